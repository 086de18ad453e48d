//! `loadgen compare --agents N`: a comparison that several machines drive.

use std::process::ExitCode;

use anyhow::{Result, bail};

use super::cli;
use super::compare::{all_once, begin_record, conclude, points, timing};
use super::setup::settings_elsewhere;
use crate::base::exit::asked;
use crate::base::output::say;
use crate::cluster::{Asked, Bus, Conductor, Keep, shares};
use crate::compare::elsewhere::Field;
use crate::compare::{Compare, Plan};
use crate::measure::Progress;
use crate::results::{Host, LeftOut};
use crate::target::{How, Target};
use crate::workload::{Changes, Workload};

/// `loadgen compare` where agents drive.
pub(super) fn compare(args: &cli::Compare, agents: u32) -> Result<ExitCode> {
    let beside = asked(beside(args))?;
    let mut left_out = LeftOut::default();
    let plan = asked(plan(args, agents, &mut left_out))?;
    let settings = asked(settings_elsewhere(&args.common, &args.driving))?;
    let mut host = Host::look();
    let mut record = begin_record(args, &host)?;
    let mut progress = Progress::start();
    let bus = Bus::connect(&args.machines.access, "loadgen compare")?;
    let mut conductor = Conductor::new(&bus);
    let mut machines: Vec<(String, Host)> = Vec::new();
    let mut drive = |target: &Target, workload: &Workload, progress: &mut Progress| {
        let model = match &target.how {
            How::Elsewhere(model) => model,
            _ => &target.name,
        };
        let question = Asked {
            server: &target.name,
            addr: None,
            keep: Some(Keep::model(beside, model, &args.common.server_cpus)),
            workload,
            settings: &settings,
            agents,
            patience: args.machines.agents_within,
        };
        let driven = conductor.run(&question, progress)?;
        for (agent, host, _) in &driven.parts {
            if !machines.iter().any(|(known, _)| known == agent) {
                machines.push((agent.clone(), host.clone()));
            }
        }
        Ok(driven)
    };
    let field = Field::Elsewhere(&mut drive);
    let compare = Compare::new(field, &settings, &mut progress, record.as_mut(), left_out);
    let comparison = compare.run(&plan, |_| Ok(()))?;
    drop(progress);
    host.merged = machines.into_iter().map(|(_, host)| host).collect();
    conclude(args, host, comparison, record)
}

/// The agent beside the servers. Fails if anything is asked that only this machine can do.
fn beside(args: &cli::Compare) -> Result<&str> {
    if !args.cmd.is_empty() || args.bare {
        bail!(
            "--cmd and --bare belong to comparisons on this machine: the agent beside the servers \
             starts the models of its own models file, and no other program"
        );
    }
    if args.reference == Some(true) {
        bail!(
            "--reference belongs to comparisons on this machine: what the null reference costs on \
             another one says nothing of the generators here"
        );
    }
    if args.common.password_file.is_some() {
        bail!("--password-file belongs to chat, which agents do not drive");
    }
    if args.models.is_empty() {
        bail!(
            "name the servers, --models A,B: which ones can run beside --server-agent is not known \
             here"
        );
    }
    match &args.machines.server_agent {
        Some(agent) => Ok(agent),
        None => bail!(
            "--server-agent NAME is missing: servers are ranked by what they cost, which only the \
             agent beside them can tell"
        ),
    }
}

fn plan(args: &cli::Compare, agents: u32, left_out: &mut LeftOut) -> Result<Plan> {
    let targets: Vec<Target> = args.models.iter().map(|name| Target::elsewhere(name)).collect();
    all_once(&targets)?;
    let plan = Plan {
        targets,
        points: shared_points(args, agents, left_out)?,
        timing: timing(args),
        reference: false,
        control: args.control,
    };
    plan.check()?;
    Ok(plan)
}

/// The points that can be shared out among agents. A workload that was named must be one of them;
/// of the usual ones, those that are not are left out, and said.
fn shared_points(
    args: &cli::Compare,
    agents: u32,
    left_out: &mut LeftOut,
) -> Result<Vec<(String, Changes)>> {
    let timing = timing(args);
    let mut shared = Vec::new();
    for (name, changes) in points(args)? {
        let fitting = changes.fitting(&name);
        let workload = Workload::find(&name, &fitting, timing.duration, timing.warmup)?;
        match shares(&workload, agents) {
            Ok(_) => shared.push((name, changes)),
            Err(why) if args.workloads.is_empty() => {
                say(&format!("{name} is left out: {why:#}"));
                left_out.all.push((workload.point(), format!("{why:#}")));
            }
            Err(why) => return Err(why),
        }
    }
    Ok(shared)
}
