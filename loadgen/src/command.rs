//! The commands: from flags to the parts that do the work, and from results to exit codes.

mod calibrate;
mod compare;
mod find_max;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::cli::{Common, Driving, Exec, List, Run, Verify, Which};
use crate::cpus::{self, Pinning};
use crate::host::Host;
use crate::models::{Entry, How, Models, Target};
use crate::progress::Progress;
use crate::record::Record;
use crate::run::{Interrupted, Settings, Status};
use crate::schema::{Body, Document, Listed};
use crate::server::{Server, Start, pin, raise_descriptor_limit};
use crate::speed::Speed;
use crate::table;
use crate::verify::{Finding, Outcome};
use crate::workload::{self, Mode, Workload};

pub use calibrate::{Calibration, calibrate};
pub use compare::compare;
pub use find_max::{Found, Objective, find_max};

/// Measured and warm-up time of a single run.
const RUN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(1));

/// The command line was wrong: exit code 2.
#[derive(Debug)]
struct Misuse(anyhow::Error);

impl std::fmt::Display for Misuse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

impl std::error::Error for Misuse {}

/// What depends on the command line alone, and fails as misuse.
pub(crate) fn asked<T>(result: Result<T>) -> Result<T> {
    result.map_err(|e| Misuse(e).into())
}

/// 2 for misuse, 130 for Ctrl-C, 1 for the rest.
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.is::<Misuse>() {
        ExitCode::from(2)
    } else if error.is::<Interrupted>() {
        ExitCode::from(130)
    } else {
        ExitCode::FAILURE
    }
}

/// `loadgen list`.
pub fn list(args: &List) -> Result<ExitCode> {
    let models = asked(Models::load(args.models_file.as_deref()))?;
    let modes = |modes: &[Mode]| modes.iter().map(|m| m.name()).collect::<Vec<_>>().join(", ");
    if args.json {
        let listed = |(name, e): (&String, &Entry)| Listed {
            name: name.clone(),
            summary: e.summary.clone(),
            modes: e.modes.clone(),
            unsupported: e.unsupported.clone(),
            missing: models.missing(e),
        };
        let workloads = workload::list()?;
        let models = models.entries().map(listed).collect();
        Document::new(Body::List { models, workloads }).print()?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = models
        .entries()
        .map(|(name, e)| {
            let here = models.missing(e).map_or("yes".into(), |why| format!("no: {why}"));
            let unsupported = match e.unsupported.len() {
                0 => String::new(),
                n => n.to_string(),
            };
            vec![name.clone(), modes(&e.modes), e.summary.clone(), here, unsupported]
        })
        .collect();
    let header = ["model", "speaks", "what it is", "runs here", "unsupported"];
    let mut text = table::draw(&header, &rows, header.len());
    text.push_str(
        "  unsupported: so many cases of the suite; --json and models.toml say which, and why\n",
    );
    let compared = |default| if default { "yes" } else { "by name" };
    let rows: Vec<_> = workload::list()?
        .into_iter()
        .map(|w| vec![w.name.to_owned(), w.summary, compared(w.default).to_owned()])
        .collect();
    text.push('\n');
    text.push_str(&table::draw(&["workload", "what it asks", "in compare"], &rows, 3));
    table::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// `loadgen run`.
pub fn run(args: &Run) -> Result<ExitCode> {
    let models = asked(Models::load(args.common.models_file.as_deref()))?;
    let mut target = asked(target(&args.which, &models, args.pid))?;
    let workload = asked(run_workload(args, &target))?;
    let (pinning, settings) = asked(settings(&args.common, &args.driving))?;
    let host = Host::look();
    let create = |dir| Record::create(dir, &host);
    let mut record = asked(args.out.as_deref().map(create).transpose())?;
    let mut progress = Progress::start();
    if let How::Package(package, _) = &target.how {
        progress.step(format!("building {package}"));
    }
    target = models.build(&target, &settings.interrupted)?;
    begin(&pinning, &settings, &progress)?;
    progress.step(format!("{}: {}", workload.name, target.name));
    let report = crate::run::run(&target, &workload, &settings, &mut progress)?;
    drop(progress);
    if let Some(record) = &mut record {
        record.run(0, &report);
    }
    let status = report.verdict.status;
    let text = table::report(&report);
    let document = Document::new(Body::Run { host: host.into(), run: report.into() });
    publish(&document, &text, args.common.json)?;
    if let Some(record) = record {
        record.finish(&document)?;
    }
    Ok(if status == Status::Invalid { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// A result on standard output, for programs or for people.
pub(crate) fn publish(document: &Document, text: &str, json: bool) -> Result<()> {
    if json { document.print() } else { table::print(text) }
}

fn run_workload(args: &Run, target: &Target) -> Result<Workload> {
    let name = match (&args.workload, args.mode) {
        (Some(name), _) => name,
        (None, Some(Mode::Chat)) => "fan-out",
        (None, _) => "ping-pong",
    };
    let workload = Workload::find(name, &args.changes, RUN.0, RUN.1)?;
    if let Some(mode) = args.mode.filter(|mode| *mode != workload.mode) {
        bail!("{name} drives {}, not --mode {}", workload.mode.name(), mode.name());
    }
    if !target.modes.contains(&workload.mode) {
        bail!("{} does not speak {}, which {name} needs", target.name, workload.mode.name());
    }
    if let Some(why) = target.refuses(&workload) {
        bail!(why);
    }
    Ok(workload)
}

/// `loadgen verify`.
pub fn verify(args: &Verify) -> Result<ExitCode> {
    let models = asked(Models::load(args.common.models_file.as_deref()))?;
    let target = asked(target(&args.which, &models, None))?;
    let known = args.which.model.is_some();
    let modes = match args.mode {
        Some(mode) => vec![mode],
        None if known => target.modes.clone(),
        None => vec![Mode::Echo],
    };
    let pinning = asked(cpus::plan(args.common.workers, 1, &args.common.server_cpus, &[]))?;
    let target = models.build(&target, &AtomicBool::new(false))?;
    raise_descriptor_limit();
    let mut findings = Vec::new();
    for mode in modes {
        let start = Start {
            mode,
            connections: 64,
            workers: args.common.workers,
            no_flood_control: mode == Mode::Chat,
            wait: Duration::ZERO,
            work: Duration::ZERO,
            cpus: Some(&pinning.server[..]).filter(|cpus| !cpus.is_empty()),
        };
        let server = Server::start(&target, &start)?;
        findings.extend(crate::verify::verify(server.addr, mode, &target.unsupported));
        if let Some(complaint) = server.stop() {
            let result = Outcome::Fail(complaint);
            findings.push(Finding { case: "stop", result });
        }
    }
    let failed = findings.iter().any(|f| matches!(f.result, Outcome::Fail(_)));
    if args.common.json {
        Document::new(Body::Verification { server: target.name, findings }).print()?;
    } else {
        let rows: Vec<_> = findings.iter().map(finding_row).collect();
        table::print(&table::draw(&["case", "result", ""], &rows, 3))?;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn finding_row(finding: &Finding) -> Vec<String> {
    let (result, why) = match &finding.result {
        Outcome::Pass => ("pass", ""),
        Outcome::Fail(why) => ("FAIL", why.as_str()),
        Outcome::Unsupported(why) => ("unsupported", why.as_str()),
    };
    [finding.case, result, why].map(str::to_owned).to_vec()
}

/// The hidden wrapper that servers are started through. Returns only what went wrong.
pub fn exec(args: &Exec) -> anyhow::Error {
    let cpus: Result<Vec<usize>, _> =
        args.cpus.split(',').filter(|cpu| !cpu.is_empty()).map(str::parse).collect();
    match cpus {
        Ok(cpus) => crate::server::exec(&cpus, args.parent, args.signal, &args.command),
        Err(e) => anyhow!("--cpus {:?}: {e}", args.cpus),
    }
}

fn target(which: &Which, models: &Models, pid: Option<i32>) -> Result<Target> {
    match (&which.addr, &which.model, &which.cmd) {
        (Some(addr), _, _) => Target::running(addr, pid),
        (_, Some(name), _) => models.find(name),
        (_, _, Some(command)) => Target::command(command),
        _ => bail!("name a server: --addr, --model or --cmd"),
    }
}

/// Where all threads run, what all runs share, and the flag that Ctrl-C sets.
fn settings(common: &Common, driving: &Driving) -> Result<(Pinning, Settings)> {
    if driving.stall_timeout.is_zero() {
        bail!("--stall-timeout must be longer than nothing, for example 5s");
    }
    let pinning =
        cpus::plan(common.workers, driving.threads, &common.server_cpus, &driving.generator_cpus)?;
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // The second one ends us at once; the servers' wrapper sees to it that they follow.
        signal_hook::flag::register_conditional_shutdown(signal, 130, interrupted.clone())?;
        signal_hook::flag::register(signal, interrupted.clone())?;
    }
    let settings = Settings {
        seed: driving.seed,
        threads: driving.threads,
        workers: common.workers,
        server_cpus: pinning.server.clone(),
        generator_cpus: pinning.generator.clone(),
        stall: driving.stall_timeout,
        interrupted,
        speed: Speed::default(),
    };
    Ok((pinning, settings))
}

/// What is the last to do before servers are started.
fn begin(pinning: &Pinning, settings: &Settings, progress: &Progress) -> Result<()> {
    if let Some(note) = &pinning.note {
        progress.note(&format!("note: {note}"));
    }
    raise_descriptor_limit();
    if !pinning.generator.is_empty() {
        pin(&pinning.generator)?;
    }
    Ok(settings.speed.watch()?)
}
