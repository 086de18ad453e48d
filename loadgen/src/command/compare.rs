//! `loadgen compare`: from flags to a plan, and from the result to the exit code.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};

use super::{asked, begin, publish, settings};
use crate::cli;
use crate::compare::{Compare, LeftOut, Pace, Plan, Row};
use crate::host::Host;
use crate::models::{Models, Target};
use crate::progress::Progress;
use crate::record::{Record, default_folder};
use crate::run::Status;
use crate::schema::{Body, Document};
use crate::table;
use crate::workload::{self, Changes};

/// How a comparison goes on: ten rounds are enough to show one difference among many.
const FULL: Pace = Pace {
    rounds: 10,
    fewer: true,
    duration: Duration::from_millis(1000),
    warmup: Duration::from_millis(250),
    budget: Duration::from_secs(570),
};
/// And a quick one.
const QUICK: Pace = Pace {
    rounds: 8,
    fewer: true,
    duration: Duration::from_millis(400),
    warmup: Duration::from_millis(100),
    budget: Duration::from_secs(80),
};

/// `loadgen compare`.
pub fn compare(args: &cli::Compare) -> Result<ExitCode> {
    let models = asked(Models::load(args.common.models_file.as_deref()))?;
    let plan = asked(plan(args, &models))?;
    let (pinning, settings) = asked(settings(&args.common, &args.driving))?;
    let host = Host::look();
    let mut record = begin_record(args, &host)?;
    let mut progress = Progress::start();
    let compare = Compare {
        models: &models,
        settings: &settings,
        progress: &mut progress,
        record: record.as_mut(),
        left_out: LeftOut::default(),
    };
    let comparison = compare.run(&plan, |progress| begin(&pinning, &settings, progress))?;
    drop(progress);
    let invalid = |row: &Row| row.status == Status::Invalid;
    let wrong = comparison.sections.iter().any(|section| section.rows.iter().any(invalid));
    let broken = comparison.control.as_ref().is_some_and(|control| !control.found.is_empty());
    // Of servers that nobody named, those that fail are only listed.
    let named = !(args.models.is_empty() && args.cmd.is_empty());
    let failed = named && !comparison.failed.is_empty();
    let code = match () {
        () if comparison.interrupted => ExitCode::from(130),
        () if wrong || broken || failed || comparison.sections.is_empty() => ExitCode::FAILURE,
        () => ExitCode::SUCCESS,
    };
    let text = table::comparison(&comparison);
    let body = Body::Comparison { host: host.into(), comparison: comparison.into() };
    let document = Document::new(body);
    publish(&document, &text, args.common.json)?;
    if let Some(record) = record {
        record.finish(&document)?;
    }
    Ok(code)
}

/// The record that was asked for, or one in the default folder, without which one can do.
fn begin_record(args: &cli::Compare, host: &Host) -> Result<Option<Record>> {
    match &args.out {
        Some(dir) => asked(Record::create(dir, host)).map(Some),
        None => Ok(Record::create(&default_folder("compare"), host)
            .inspect_err(|e| eprintln!("note: no record is kept: {e:#}"))
            .ok()),
    }
}

fn plan(args: &cli::Compare, models: &Models) -> Result<Plan> {
    let usual = if args.quick { QUICK } else { FULL };
    let (rounds, fewer) = (args.rounds.unwrap_or(usual.rounds), args.rounds.is_none());
    let plan = Plan {
        targets: targets(args, models)?,
        points: points(args)?,
        pace: Pace { rounds, fewer, ..usual },
        reference: args.reference,
        control: args.control,
    };
    plan.check()?;
    Ok(plan)
}

fn targets(args: &cli::Compare, models: &Models) -> Result<Vec<Target>> {
    let mut targets = Vec::new();
    for name in &args.models {
        targets.push(models.find(name)?);
    }
    if args.models.is_empty() && args.cmd.is_empty() {
        for (name, entry) in models.entries() {
            match models.missing(entry) {
                Some(why) => eprintln!("{name} is left out: {why}"),
                None => targets.push(models.find(name)?),
            }
        }
    }
    for command in &args.cmd {
        let mut target = Target::command(command)?;
        // The same program with other arguments.
        let taken = |name: &str| targets.iter().any(|other: &Target| other.name == name);
        let numbered = (2..).map(|n| format!("{}-{n}", target.name));
        let mut free = std::iter::once(target.name.clone()).chain(numbered);
        target.name = free.find(|name| !taken(name)).unwrap_or_default();
        targets.push(target);
    }
    for (n, target) in targets.iter().enumerate() {
        if targets[..n].iter().any(|earlier| earlier.name == target.name) {
            bail!("{} is named twice", target.name);
        }
    }
    Ok(targets)
}

/// The points of the grid. Without `--workloads` they are those that show most in the time: the
/// workloads that are marked for it, ping-pong and pipelined with few and with many connections.
fn points(args: &cli::Compare) -> Result<Vec<(String, Changes)>> {
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
