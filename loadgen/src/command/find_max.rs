//! `loadgen find-max`: from flags to a search, and from what it found to the exit code.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};

use super::cli::{self, Which};
use super::publish::publish;
use super::setup::{begin, settings, settings_elsewhere};
use super::together::{Elsewhere, server};
use crate::base::exit::{INTERRUPTED, asked};
use crate::cluster::{Asked, Bus, Conductor};
use crate::compare::find_max::{Drive, FindMax, build};
use crate::measure::{Progress, run};
use crate::results::{Body, Document, Host};
use crate::show;
use crate::target::{Models, Target};
use crate::workload::{Changes, Workload};

/// Measured and warm-up time of a probe.
const PROBE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_millis(300));

/// `loadgen find-max`.
pub(super) fn find_max(args: &cli::FindMax) -> Result<ExitCode> {
    let workload = asked(workload(&args.workload, args.from, &args.changes))?;
    if let Some(agents) = asked(args.machines.agents())? {
        return from_agents(args, &workload, agents);
    }
    let models = asked(args.common.models_file.load())?;
    let targets = asked(targets(args, &models))?;
    asked(targets.iter().try_for_each(|target| speaks(target, &workload)))?;
    let (pinning, settings) = asked(settings(&args.common, &args.driving))?;
    let mut progress = Progress::start();
    let built = build(&models, &targets, &settings, &mut progress)?;
    begin(&pinning, &settings, &progress)?;
    let names: Vec<String> = targets.into_iter().map(|target| target.name).collect();
    let mut drive = |n: usize, workload: &Workload, progress: &mut Progress| match &built[n] {
        Ok(target) => run(target, workload, &settings, progress),
        Err(e) => bail!("{e:#}"),
    };
    search(args, &workload, Host::look(), &names, &mut drive, progress)
}

/// The same where several machines drive.
fn from_agents(args: &cli::FindMax, workload: &Workload, agents: u32) -> Result<ExitCode> {
    let settings = asked(settings_elsewhere(&args.common, &args.driving))?;
    let servers = asked(servers(args))?;
    let names: Vec<String> = servers.iter().map(|server| server.name.clone()).collect();
    let progress = Progress::start();
    let bus = Bus::connect(&args.machines.access, "loadgen find-max")?;
    let mut conductor = Conductor::new(&bus);
    let mut drive = |n: usize, workload: &Workload, progress: &mut Progress| {
        let server = &servers[n];
        let question = Asked {
            server: &server.name,
            addr: server.addr.as_deref(),
            keep: server.keep.clone(),
            workload,
            settings: &settings,
            agents,
            patience: args.machines.agents_within,
        };
        Ok(conductor.run(&question, progress)?.report)
    };
    search(args, workload, Host::look(), &names, &mut drive, progress)
}

fn search(
    args: &cli::FindMax,
    workload: &Workload,
    host: Host,
    servers: &[String],
    drive: &mut Drive<'_>,
    mut progress: Progress,
) -> Result<ExitCode> {
    let search = FindMax { workload, objective: &args.objective, from: args.from };
    let (found, interrupted) = search.run(servers, drive, &mut progress);
    drop(progress);
    let code = match () {
        () if interrupted => ExitCode::from(INTERRUPTED),
        () if found.iter().any(|found| found.rate.is_none()) => ExitCode::FAILURE,
        () => ExitCode::SUCCESS,
    };
    let text = show::found(&args.objective, workload, &found);
    let document = Document::new(Body::FindMax {
        host: host.into(),
        objective: args.objective.to_string(),
        found,
    });
    publish(&document, &text, args.common.json)?;
    Ok(code)
}

fn targets(args: &cli::FindMax, models: &Models) -> Result<Vec<Target>> {
    match &args.addr {
        Some(addr) => Ok(vec![Target::running(addr, None)?]),
        None => args.models.iter().map(|name| models.find(name)).collect(),
    }
}

/// The servers that agents drive.
fn servers(args: &cli::FindMax) -> Result<Vec<Elsewhere>> {
    let server = |which| server(&which, None, &args.machines, &args.common);
    match &args.addr {
        Some(addr) => Ok(vec![server(Which { addr: Some(addr.clone()), ..Which::default() })?]),
        None => {
            let names = args.models.iter().cloned();
            names.map(|name| server(Which { model: Some(name), ..Which::default() })).collect()
        }
    }
}

fn speaks(target: &Target, workload: &Workload) -> Result<()> {
    match target.modes.contains(&workload.mode) {
        true => Ok(()),
        false => {
            let (mode, name) = (workload.mode.name(), &workload.name);
            bail!("{} does not speak {mode}, which {name} needs", target.name)
        }
    }
}

fn workload(name: &str, rate: f64, changes: &Changes) -> Result<Workload> {
    if changes.rate.is_some() {
        bail!("--rate is what is searched for; --from says where to begin");
    }
    let changes = Changes { rate: Some(rate), ..changes.clone() };
    Workload::find(name, &changes, PROBE.0, PROBE.1)
}
