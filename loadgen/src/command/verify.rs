//! `loadgen verify`: one server and the gate.

use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;

use anyhow::Result;

use super::cli::Verify;
use super::publish::print_json;
use super::setup::target;
use crate::base::exit::{Interrupted, asked};
use crate::base::limits::raise_descriptor_limit;
use crate::base::{output, signals};
use crate::results::{Body, Document};
use crate::show;
use crate::target::gate::{self, CaseResult, Door, stopped};
use crate::target::{Server, Start, cpus};
use crate::workload::Mode;

/// `loadgen verify`.
pub(super) fn verify(args: &Verify) -> Result<ExitCode> {
    let models = asked(args.common.models_file.load())?;
    let target = asked(target(&args.which, &models, None))?;
    let known = args.which.model.is_some();
    let modes = match args.mode {
        Some(mode) => vec![mode],
        None if known => target.modes.clone(),
        None => vec![Mode::Echo],
    };
    let password = asked(args.common.password())?;
    let pinning = asked(cpus::plan(args.common.workers, 1, &args.common.server_cpus, &[]))?;
    let interrupted = signals::interruption()?;
    let target = models.build(&target, &interrupted)?;
    raise_descriptor_limit();
    let held = args.contract || target.contract;
    let (mut findings, mut name) = (Vec::new(), target.name.clone());
    for mode in modes {
        let start = Start::new(mode, 64, args.common.workers, &pinning.server);
        let server = Server::start(&target, &start)?;
        name = target.name_at(server.addr);
        let door = Door { addr: server.addr, password: password.clone() };
        findings.extend(gate::verify(&door, mode, &target.unsupported, held, &interrupted));
        let complaint = server.stop();
        if interrupted.load(Relaxed) {
            // The table alone: a document would not say that it is not of everything.
            if !args.common.json && !findings.is_empty() {
                output::print(&show::verification(&findings))?;
            }
            return Err(Interrupted.into());
        }
        findings.extend(stopped(complaint, held));
    }
    let failed = findings.iter().any(|f| matches!(f.result, CaseResult::Fail(_)));
    if args.common.json {
        print_json(&Document::new(Body::Verification { server: name, findings }))?;
    } else {
        output::print(&show::verification(&findings))?;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
