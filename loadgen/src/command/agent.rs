//! `loadgen agent`: drive when a conductor says so.

use std::process::ExitCode;

use anyhow::{Result, anyhow};

use super::machines;
use crate::base::exit::{INTERRUPTED, Interrupted, asked};
use crate::base::limits::raise_descriptor_limit;
use crate::base::signals;
use crate::cluster::{Agent, Bus, Post, Pretence, Stand};
use crate::target::cpus;

/// Nanoseconds of a millisecond.
const MILLISECOND: i64 = 1_000_000;

/// `loadgen agent`: it ends by a signal only.
pub(super) fn agent(args: &machines::Agent) -> Result<ExitCode> {
    asked(cpus::plan(1, 1, &[], &args.generator_cpus))?;
    if args.access.nats.is_none() {
        return asked(Err(anyhow!("name the NATS server where conductors are heard: --nats URL")));
    }
    if args.serve.is_none() && args.models_file.is_given() {
        return asked(Err(anyhow!(
            "--models-file names what --serve may start: give --serve ADDRESS too, or leave it out"
        )));
    }
    let post = match args.serve {
        Some(host) => Post::Beside(Stand { host, models: asked(args.models_file.load())? }),
        None => Post::Drive(args.generator_cpus.clone()),
    };
    let interrupted = signals::interruption()?;
    raise_descriptor_limit();
    let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name = args.name.clone().unwrap_or(machine);
    let pretence = Pretence {
        ahead: args.pretend_ahead.saturating_mul(MILLISECOND),
        version: args.pretend_version.clone(),
    };
    let bus = Bus::connect(&args.access, &format!("loadgen agent {name}"))?;
    let mut agent = Agent::new(bus, name, post, pretence)?;
    match agent.serve(&interrupted) {
        // To be ended is how an agent ends.
        Err(e) if e.is::<Interrupted>() => Ok(ExitCode::from(INTERRUPTED)),
        other => other.map(|()| ExitCode::SUCCESS),
    }
}
