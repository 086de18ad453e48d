//! `loadgen run`: one server, one workload.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Result, anyhow, bail, ensure};

use super::cli::Run;
use super::metrics;
use super::publish::finish;
use super::setup::{begin, settings, target};
use super::together;
use crate::base::exit::{AfterResult, INTERRUPTED, asked};
use crate::measure::meeting::{At, Meeting};
use crate::measure::{self, Gauges, Progress, Report, Status};
use crate::record::Record;
use crate::results::{Body, Document, Host};
use crate::show;
use crate::target::{How, Profile, Target};
use crate::workload::{Mode, Workload};

/// Measured and warm-up time of a single run.
const RUN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(1));

/// The file that --profile fills.
const PROFILE: &str = "profile.data";

/// `loadgen run`.
pub(super) fn run(args: &Run) -> Result<ExitCode> {
    if let Some(agents) = asked(args.machines.agents())? {
        return together::run(args, agents);
    }
    let models = asked(args.common.models_file.load())?;
    let mut target = asked(target(&args.which, &models, args.pid))?;
    let workload = asked(run_workload(args, Some(&target)))?;
    let (pinning, mut settings) = asked(settings(&args.common, &args.driving))?;
    settings.meeting = asked(args.at.map(|at| meeting(at, &workload)).transpose())?;
    settings.profile = asked(profile(args, &workload))?;
    let host = Host::look();
    let create = |dir| Record::create(dir, &host);
    let mut record = asked(args.out.as_deref().map(create).transpose())?;
    let mut progress = Progress::start();
    if args.metrics.metrics.is_some() {
        let gauges = Arc::new(Gauges::default());
        asked(metrics::start(&args.metrics, &target.name, &workload, gauges.clone()))?;
        progress.tell(gauges);
    }
    if let How::Package(package, _) | How::Bare(package) = &target.how {
        progress.step(format!("building {package}"));
    }
    target = models.build(&target, &settings.interrupted)?;
    begin(&pinning, &settings, &progress)?;
    progress.step(format!("{}: {}", workload.name, target.name));
    let report = measure::run(&target, &workload, &settings, &mut progress)?;
    drop(progress);
    if let Some(record) = &mut record {
        record.run(0, &report);
    }
    let code = exit_code(&report);
    let text = show::run(&report);
    let document = Document::new(Body::Run { host: host.into(), run: report.into() });
    finish(&document, &text, args.common.json, record)?;
    if let Some(why) = settings.profile.as_ref().and_then(Profile::failure) {
        return Err(AfterResult(anyhow!("--profile: {why}")).into());
    }
    Ok(code)
}

/// What a run says by its exit code.
pub(super) fn exit_code(report: &Report) -> ExitCode {
    match report.verdict.status {
        _ if report.interrupted => ExitCode::from(INTERRUPTED),
        Status::Invalid => ExitCode::FAILURE,
        Status::Valid | Status::Suspect => ExitCode::SUCCESS,
    }
}

/// A window that begins at a time of the wall clock, which must be far enough away.
fn meeting(at: SystemTime, workload: &Workload) -> Result<Arc<dyn Meeting>> {
    let left = at.duration_since(SystemTime::now()).unwrap_or_default();
    ensure!(
        left > workload.warmup,
        "--at {} has passed, or leaves no time to warm up ({}); name a later time",
        humantime::format_rfc3339(at),
        humantime::format_duration(workload.warmup)
    );
    Ok(Arc::new(At(at)))
}

/// What is to run beside the server when all is measured.
fn profile(args: &Run, workload: &Workload) -> Result<Option<Profile>> {
    let Some(command) = &args.profile else { return Ok(None) };
    if workload.disturbance.is_some() {
        bail!("--profile: {} has disturbers, which leave when all is measured", workload.name);
    }
    let folder = args.out.clone().unwrap_or_default();
    Profile::new(command, folder.join(PROFILE)).map(Some)
}

/// The workload, which the server can be asked if it is known here.
pub(super) fn run_workload(args: &Run, target: Option<&Target>) -> Result<Workload> {
    let name = match (&args.workload, args.mode) {
        (Some(name), _) => name,
        (None, Some(Mode::Chat)) => "fan-out",
        (None, _) => "ping-pong",
    };
    let workload = Workload::find(name, &args.changes, RUN.0, RUN.1)?;
    if let Some(mode) = args.mode.filter(|mode| *mode != workload.mode) {
        bail!("{name} drives {}, not --mode {}", workload.mode.name(), mode.name());
    }
    let Some(target) = target else { return Ok(workload) };
    // To ask a server of one's own for a chat workload is to say that it chats.
    if !target.unlisted && !target.modes.contains(&workload.mode) {
        bail!("{} does not speak {}, which {name} needs", target.name, workload.mode.name());
    }
    if let Some(why) = target.refuses(&workload) {
        bail!(why);
    }
    Ok(workload)
}
