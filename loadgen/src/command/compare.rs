//! `loadgen compare`: from flags to a plan, and from the result to the exit code.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};

use super::cli;
use super::from_agents;
use super::publish::finish;
use super::setup::{begin, settings};
use crate::base::exit::{INTERRUPTED, asked};
use crate::base::output::say;
use crate::compare::elsewhere::Field;
use crate::compare::{Compare, Plan, Timing};
use crate::measure::{Progress, Status};
use crate::record::{Record, default_folder};
use crate::results::{Body, Comparison, Document, Host, LeftOut, Row};
use crate::show;
use crate::target::{Models, Target};
use crate::workload::{self, Changes};

/// How a comparison goes on: ten rounds are enough to show one difference among many.
const FULL: Timing = Timing {
    rounds: 10,
    fewer: true,
    duration: Duration::from_millis(1000),
    warmup: Duration::from_millis(250),
    budget: Duration::from_secs(570),
};
/// And a quick one.
const QUICK: Timing = Timing {
    rounds: 8,
    fewer: true,
    duration: Duration::from_millis(400),
    warmup: Duration::from_millis(100),
    budget: Duration::from_secs(80),
};

/// `loadgen compare`.
pub(super) fn compare(args: &cli::Compare) -> Result<ExitCode> {
    if let Some(agents) = asked(args.machines.agents())? {
        return from_agents::compare(args, agents);
    }
    let models = asked(args.common.models_file.load())?;
    let (plan, left_out) = asked(plan(args, &models))?;
    let (pinning, settings) = asked(settings(&args.common, &args.driving))?;
    let host = Host::look();
    let mut record = begin_record(args, &host)?;
    let mut progress = Progress::start();
    let field = Field::Here(&models);
    let compare = Compare::new(field, &settings, &mut progress, record.as_mut(), left_out);
    let comparison = compare.run(&plan, |progress| begin(&pinning, &settings, progress))?;
    drop(progress);
    conclude(args, host, comparison, record)
}

/// The exit code, the result and the end of the record.
pub(super) fn conclude(
    args: &cli::Compare,
    host: Host,
    comparison: Comparison,
    record: Option<Record>,
) -> Result<ExitCode> {
    let invalid = |row: &Row| row.status == Status::Invalid;
    let wrong = comparison.sections.iter().any(|section| section.rows.iter().any(invalid));
    let broken = comparison.control.as_ref().is_some_and(|control| !control.found.is_empty());
    // Of servers that were not named, those that fail are only listed.
    let named = !(args.models.is_empty() && args.cmd.is_empty());
    let failed = named && !comparison.failed.is_empty();
    let code = match () {
        () if comparison.interrupted => ExitCode::from(INTERRUPTED),
        () if wrong || broken || failed || !comparison.lost.is_empty() => ExitCode::FAILURE,
        () if comparison.sections.is_empty() => ExitCode::FAILURE,
        () => ExitCode::SUCCESS,
    };
    let text = show::comparison(&comparison);
    let body = Body::Comparison { host: host.into(), comparison: comparison.into() };
    let document = Document::new(body);
    finish(&document, &text, args.common.json, record)?;
    Ok(code)
}

/// The record that was asked for, or one in the default folder, without which one can do.
pub(super) fn begin_record(args: &cli::Compare, host: &Host) -> Result<Option<Record>> {
    match &args.out {
        Some(dir) => asked(Record::create(dir, host)).map(Some),
        None => Ok(Record::create(&default_folder("compare"), host)
            .inspect_err(|e| say(&format!("note: no record is kept: {e:#}")))
            .ok()),
    }
}

/// What is asked, and the servers that are missing on this machine.
fn plan(args: &cli::Compare, models: &Models) -> Result<(Plan, LeftOut)> {
    let mut left_out = LeftOut::default();
    let plan = Plan {
        targets: targets(args, models, &mut left_out)?,
        points: points(args)?,
        timing: timing(args),
        reference: args.reference.unwrap_or(true),
        control: args.control,
    };
    plan.check()?;
    Ok((plan, left_out))
}

/// How often, and for how long.
pub(super) fn timing(args: &cli::Compare) -> Timing {
    let usual = if args.quick { QUICK } else { FULL };
    let (rounds, fewer) = (args.rounds.unwrap_or(usual.rounds), args.rounds.is_none());
    Timing { rounds, fewer, ..usual }
}

fn targets(args: &cli::Compare, models: &Models, left_out: &mut LeftOut) -> Result<Vec<Target>> {
    let mut targets = Vec::new();
    for name in &args.models {
        // Another project's server is not this one's to bring along.
        match models.missing_other(name) {
            Some(why) => {
                say(&format!("{name} is left out: {why}"));
                left_out.all.push((name.clone(), why));
            }
            None => targets.push(models.find(name)?),
        }
    }
    if let Some((name, why)) = left_out.all.first()
        && targets.is_empty()
        && args.cmd.is_empty()
    {
        bail!("no server is left to drive: {name}: {why}");
    }
    if args.models.is_empty() && args.cmd.is_empty() {
        for (name, entry) in models.entries() {
            match models.missing(entry) {
                Some(why) => say(&format!("{name} is left out: {why}")),
                None => targets.push(models.find(name)?),
            }
        }
    }
    if args.bare {
        enter_bare(args.common.workers, models, &mut targets)?;
    }
    for command in &args.cmd {
        let mut target = Target::command(command)?;
        if !args.speaks.is_empty() {
            target.modes.clone_from(&args.speaks);
        }
        // The same program with other arguments.
        let taken = |name: &str| targets.iter().any(|other: &Target| other.name == name);
        let numbered = (2..).map(|n| format!("{}-{n}", target.name));
        let mut free = std::iter::once(target.name.clone()).chain(numbered);
        target.name = free.find(|name| !taken(name)).unwrap_or_default();
        targets.push(target);
    }
    all_once(&targets)?;
    Ok(targets)
}

/// Fails if two have one name.
pub(super) fn all_once(targets: &[Target]) -> Result<()> {
    for (n, target) in targets.iter().enumerate() {
        if targets[..n].iter().any(|earlier| earlier.name == target.name) {
            bail!("{} is named twice", target.name);
        }
    }
    Ok(())
}

/// Enters behind each model the same model bare.
fn enter_bare(workers: u32, models: &Models, targets: &mut Vec<Target>) -> Result<()> {
    if workers > 1 {
        bail!("--bare needs --workers 1: a model bare takes no flags");
    }
    let (complete, mut found) = (std::mem::take(targets), false);
    for target in complete {
        // It may have been named as well.
        targets.retain(|other| other.name != target.name);
        let bare = models.bare(&target.name);
        if bare.is_none() && target.ours {
            say(&format!("note: {} has no model bare of its own", target.name));
        }
        found |= bare.is_some();
        targets.push(target);
        targets.extend(bare);
    }
    if !found {
        bail!("--bare: none of these models has a model bare; `loadgen list` says which have");
    }
    Ok(())
}

/// The points of the grid. Without `--workloads` they are those that show most in the time: the
/// workloads that are marked for it, ping-pong and pipelined with few and with many connections.
pub(super) fn points(args: &cli::Compare) -> Result<Vec<(String, Changes)>> {
    let grid = &args.grid;
    let names = match &args.workloads[..] {
        [] if grid.is_asked() => vec!["ping-pong".to_owned()],
        [] if args.quick => ["ping-pong", "fan-out"].map(str::to_owned).to_vec(),
        [] => {
            let marked = workload::list()?.into_iter().filter(|w| w.default);
            marked.map(|w| w.name.to_owned()).collect()
        }
        asked => asked.to_vec(),
    };
    let plain = args.workloads.is_empty() && !args.quick && !grid.is_asked();
    let points = names.iter().flat_map(|name| {
        let few_and_many = plain && matches!(name.as_str(), "ping-pong" | "pipelined");
        grid.points(name, if few_and_many { &[16, 1000] } else { &[] })
    });
    Ok(points.collect())
}
