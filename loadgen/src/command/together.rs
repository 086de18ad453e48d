//! `loadgen run --agents N`: one run that several machines drive.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};

use super::cli::{Common, Run, Which};
use super::machines::Machines;
use super::publish::finish;
use super::run::{exit_code, run_workload};
use super::setup::{settings_elsewhere, target};
use crate::base::exit::asked;
use crate::cluster::{Asked, Bus, Conductor, Keep};
use crate::compare::elsewhere::Driven;
use crate::measure::{Progress, Report};
use crate::record::{Record, agents_folder};
use crate::results::{Body, Document, Host};
use crate::show;
use crate::target::Target;

/// `loadgen run` where agents drive.
pub(super) fn run(args: &Run, agents: u32) -> Result<ExitCode> {
    asked(fits(args))?;
    let server = asked(server(&args.which, args.pid, &args.machines, &args.common))?;
    let workload = asked(run_workload(args, server.target.as_ref()))?;
    let settings = asked(settings_elsewhere(&args.common, &args.driving))?;
    let host = Host::look();
    let create = |dir| Record::create(dir, &host);
    let mut record = asked(args.out.as_deref().map(create).transpose())?;
    let mut progress = Progress::start();
    let bus = Bus::connect(&args.machines.access, "loadgen run")?;
    let question = Asked {
        server: &server.name,
        addr: server.addr.as_deref(),
        keep: server.keep,
        workload: &workload,
        settings: &settings,
        agents,
        patience: args.machines.agents_within,
    };
    let driven = Conductor::new(&bus).run(&question, &mut progress)?;
    drop(progress);
    let Driven { report, parts, .. } = driven;
    if let Some(record) = &mut record {
        record.run(0, &report);
        record.attempt(|dir| keep_parts(dir, &parts));
    }
    let (code, text) = (exit_code(&report), show::run(&report));
    let merged = parts.into_iter().map(|(_, host, _)| host).collect();
    let host = Box::new(Host { merged, ..host });
    let document = Document::new(Body::Run { host, run: Box::new(report) });
    finish(&document, &text, args.common.json, record)?;
    Ok(code)
}

/// A server that agents drive.
pub(super) struct Elsewhere {
    /// What it is called.
    pub(super) name: String,
    /// Where it runs already, if it does.
    pub(super) addr: Option<String>,
    /// The agent beside it, if there is one.
    pub(super) keep: Option<Keep>,
    /// What is known of it here: of one that its agent starts, that agent knows more.
    target: Option<Target>,
}

/// Nothing is asked which only a run from here can do.
fn fits(args: &Run) -> Result<()> {
    if args.profile.is_some() || args.metrics.metrics.is_some() {
        bail!("--profile and --metrics belong to runs from this machine, not to --agents");
    }
    if args.at.is_some() {
        bail!("--at starts runs that do not know of each other; agents are told when to begin");
    }
    Ok(())
}

/// The server that the flags name.
pub(super) fn server(
    which: &Which,
    pid: Option<i32>,
    machines: &Machines,
    common: &Common,
) -> Result<Elsewhere> {
    if common.password_file.is_some() {
        bail!("--password-file belongs to chat, which agents do not drive");
    }
    let own = &common.models_file;
    match (&machines.server_agent, &which.addr, &which.model) {
        (_, Some(addr), _) => {
            if machines.server_agent.is_some() != pid.is_some() {
                bail!(
                    "--addr with --agents: the cost is that of --pid on the machine of \
                     --server-agent; give both or none"
                );
            }
            let keep = machines.server_agent.as_ref().zip(pid);
            Ok(Elsewhere {
                name: addr.clone(),
                addr: Some(addr.clone()),
                keep: keep.map(|(agent, pid)| Keep::process(agent, pid)),
                target: Some(target(which, &own.load()?, None)?),
            })
        }
        (Some(agent), None, Some(model)) => Ok(Elsewhere {
            name: model.clone(),
            addr: None,
            keep: Some(Keep::model(agent, model, &common.server_cpus)),
            target: None,
        }),
        _ => bail!(
            "agents drive a server that is running already, --addr, or a --model that \
             --server-agent starts"
        ),
    }
}

/// A record of each agent's own part, as if it had been a run of its own.
fn keep_parts(dir: &Path, parts: &[(String, Host, Report)]) -> Result<()> {
    for (n, (agent, host, report)) in parts.iter().enumerate() {
        let mut record = Record::create(&dir.join(agents_folder(n, agent)), host)?;
        record.run(0, report);
        let (host, run) = (Box::new(host.clone()), Box::new(report.clone()));
        record.result(&Document::new(Body::Run { host, run }));
        record.close()?;
    }
    Ok(())
}
