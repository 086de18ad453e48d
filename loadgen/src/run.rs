//! One run: a server, a workload, and everything about it, with a verdict.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bystanders::Disturbed;
use crate::check::{Fault, FaultLog, FaultyOpening};
use crate::cost::{Cost, Snapshot, kernel_memory, resident};
use crate::doubts;
use crate::drive::{Disturbers, Phase, PhaseResult, Plan, Second, Team};
use crate::models::{How, Target};
use crate::pacing::OpenLoop;
use crate::progress::Progress;
use crate::server::{Server, Start};
use crate::stats::Latency;
use crate::syscalls::Counting;
use crate::verify;
use crate::workload::{Mode, Workload};

/// How long a server that has closed connections may take to turn out to be dying.
const DYING: Duration = Duration::from_millis(300);
/// Part of a processor above which the generator, not the server, sets the pace.
const BUSY: f64 = 0.95;
/// Part of all processors' time above which steal time makes the numbers doubtful.
const STOLEN: f64 = 0.01;

/// The latencies that a table shows, by name; a run has one of them.
const MAIN: [&str; 5] = ["latency", "response", "last", "visit", "disturbed"];

/// What stays the same over all runs of a command.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Settings {
    /// Seed of the payload.
    pub seed: u64,
    /// Generator threads.
    pub threads: u32,
    /// The server's core budget.
    pub workers: u32,
    /// Processors of the server; empty: not pinned.
    pub server_cpus: Vec<usize>,
    /// Processors of the generator; empty: not pinned.
    pub generator_cpus: Vec<usize>,
    /// Without any answer for so long, the server counts as stalled.
    #[serde(skip)]
    pub stall: Duration,
    /// Set by Ctrl-C.
    #[serde(skip)]
    pub interrupted: Arc<AtomicBool>,
}

/// Ctrl-C ended a run before it was done.
#[derive(Debug)]
pub struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Whether a run's numbers can be believed.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// Nothing speaks against them.
    Valid,
    /// They are true, but perhaps not the server's.
    Suspect,
    /// Something was wrong, and there are none.
    Invalid,
}

/// A status with its reasons.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// The status.
    pub status: Status,
    /// Why it is not VALID.
    pub reasons: Vec<String>,
}

/// The numbers of a run that is not INVALID.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Measured {
    /// Messages checked, those in flight at the end included. In echo a message is a line that
    /// came back; in fan-out it is one delivery.
    pub messages: u64,
    /// Messages checked for each second of the window.
    pub messages_per_second: f64,
    /// Bytes of those messages, line ends included, for each second: in echo as many went each way.
    pub bytes_per_second: f64,
    /// Deliveries of one message that was sent; 1 in echo.
    pub deliveries_per_sent: f64,
    /// Connections opened, asked and closed for each second of the window; churn only.
    pub visits_per_second: Option<f64>,
    /// When the window began, RFC 3339 in UTC.
    pub began: String,
    /// What the bystanders felt, where they were disturbed.
    pub disturbed: Option<Disturbed>,
    /// Length of the window in seconds.
    pub window_seconds: f64,
    /// What became of the schedule, in an open loop.
    #[serde(default)]
    pub open_loop: Option<OpenLoop>,
    /// Latencies by name. Closed loop: `latency` in echo; `first`, `median` and `last` delivery in
    /// fan-out. Open loop: `response` (from the time of the schedule to the answer), `service`
    /// (from the write to the answer) and `lateness` (from the schedule to the write) in echo; in
    /// fan-out the deliveries, from the time of the schedule, and `lateness`. Churn: `answered`,
    /// from the connect to the first answer, and `visit`, to the end. Bystanders: `calm` and
    /// `disturbed`.
    pub latency: BTreeMap<String, Latency>,
    /// Busiest generator thread's part of a processor, from 0 to 1.
    pub generator_cpu: f64,
    /// That thread's processor time for each message, its own or not, in nanoseconds: with one
    /// thread the generator's whole cost.
    pub generator_cpu_ns_per_message: f64,
    /// Costs of the server; `None` if its process is not known or not here.
    pub cost: Option<Cost>,
    /// Resident memory that each idle connection added, in bytes.
    pub idle_bytes_per_connection: Option<f64>,
    /// Kernel memory that each idle connection added, in bytes: sockets of both ends, stacks of
    /// threads, page tables; of the whole machine, so whatever else happens there is in it.
    #[serde(default)]
    pub kernel_bytes_per_connection: Option<f64>,
    /// System calls of the server for each message, counted while warming up.
    #[serde(default)]
    pub system_calls_per_message: Option<f64>,
    /// Why they are not known.
    #[serde(default)]
    pub system_calls_unknown: Option<String>,
    /// The latencies in full (ns), by name; a record keeps them beside the rest.
    #[serde(skip)]
    pub histograms: Vec<(String, Histogram<u64>)>,
    /// The same second by second.
    #[serde(skip)]
    pub seconds: Vec<Second>,
}

/// Everything about one run.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// The server's name.
    pub server: String,
    /// What was asked of it.
    pub workload: Workload,
    /// How.
    pub settings: Settings,
    /// Whether chat's flood control was on; `None` in echo, and where it is not ours to say.
    pub flood_control: Option<bool>,
    /// Whether the numbers can be believed.
    pub verdict: Verdict,
    /// The numbers; none if the run is INVALID.
    pub measured: Option<Measured>,
    /// Faults by kind.
    pub faults: BTreeMap<String, u64>,
    /// The first few faults in words.
    pub examples: Vec<String>,
}

impl Measured {
    /// The latency that a table shows: of a line in echo (in an open loop from the time of the
    /// schedule), of the last delivery in fan-out, of the whole visit in churn, of bystanders
    /// while they are disturbed.
    pub fn main_latency(&self) -> Option<&Latency> {
        MAIN.iter().find_map(|name| self.latency.get(*name))
    }

    /// The same in full.
    pub fn main_histogram(&self) -> Option<&Histogram<u64>> {
        let of = |name: &&str| self.histograms.iter().find(|(own, _)| own == name);
        MAIN.iter().find_map(of).map(|(_, histogram)| histogram)
    }
}

/// Starts a target (built already), drives it through one workload, and stops it.
pub fn run(
    target: &Target,
    workload: &Workload,
    settings: &Settings,
    progress: &mut Progress,
) -> Result<Report> {
    check_descriptors(workload)?;
    if let Some(why) = target.refuses(workload) {
        bail!(why);
    }
    let start = Start {
        mode: workload.mode,
        connections: workload.places(),
        workers: settings.workers,
        no_flood_control: workload.mode == Mode::Chat,
        wait: workload.wait,
        work: workload.work,
        cpus: Some(&settings.server_cpus[..]).filter(|cpus| !cpus.is_empty()),
    };
    let mut server = Server::start(target, &start)?;
    let outcome = drive(&mut server, workload, settings, progress).map_err(|error| {
        // A server that has died explains better what the connections only felt.
        match server.check_alive(Duration::ZERO) {
            Err(death) if !error.is::<Interrupted>() => death.context(format!("{error:#}")),
            _ => error,
        }
    })?;
    if outcome.phase.faults.counts().any(|(fault, _)| fault == Fault::Closed) {
        // It may be dying: connections are the first thing that the kernel takes from a process.
        server.check_alive(DYING)?;
    }
    let complaint = server.stop();
    let ours = matches!(target.how, How::Program(..));
    let (mut verdict, measured) = judge(workload, &outcome);
    if let Some(complaint) = complaint {
        verdict.status = verdict.status.max(Status::Suspect);
        verdict.reasons.push(complaint);
    }
    Ok(Report {
        server: target.name.clone(),
        workload: workload.clone(),
        settings: settings.clone(),
        flood_control: (ours && workload.mode == Mode::Chat).then_some(false),
        verdict,
        measured,
        faults: outcome.phase.faults.counts().map(|(f, n)| (f.name().into(), n)).collect(),
        examples: outcome.phase.faults.examples().to_vec(),
    })
}

/// A shortage of descriptors is told before anything is started.
fn check_descriptors(workload: &Workload) -> Result<()> {
    let needed = u64::from(workload.places()) + 64;
    let limit = crate::server::descriptor_limit();
    if needed > limit {
        bail!(
            "{} connections need {needed} file descriptors here and as many in the server, and \
             the hard limit is {limit}; raise it (ulimit -Hn) or ask for fewer --connections",
            workload.places()
        );
    }
    Ok(())
}

/// What was measured, before it is judged.
struct Outcome {
    phase: PhaseResult,
    began: SystemTime,
    disturbed: Option<Disturbed>,
    cost: Option<Cost>,
    idle: Option<f64>,
    /// Kernel memory that each connection added, on both of its ends.
    kernel: Option<f64>,
    /// System calls of the server for each message, or why they are not known.
    calls: std::result::Result<f64, String>,
    /// Part of all processors' time that other guests of the host took.
    stolen: f64,
}

/// Ticks that this machine's processors were given to others, and ticks in all.
pub(crate) fn stolen_ticks() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    // cpu user nice system idle iowait irq softirq steal ...
    let ticks: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    (ticks.get(7).copied().unwrap_or(0), ticks.iter().take(8).sum())
}

impl Outcome {
    /// Nothing but faults.
    fn faulty(faults: FaultLog) -> Self {
        let phase = PhaseResult {
            in_window: 0,
            total: 0,
            sent: 0,
            window_ns: 0,
            cpu_ns: 0,
            slices: Vec::new(),
            histograms: Vec::new(),
            seconds: Vec::new(),
            open_loop: None,
            faults,
        };
        Self {
            phase,
            began: SystemTime::UNIX_EPOCH,
            disturbed: None,
            cost: None,
            idle: None,
            kernel: None,
            calls: Err("nothing was counted".into()),
            stolen: 0.0,
        }
    }
}

/// Looks after a phase while it runs: Ctrl-C, the server's death, the progress line.
struct Watch<'a> {
    server: &'a mut Server,
    interrupted: &'a AtomicBool,
    progress: &'a mut Progress,
    began: Instant,
}

impl Watch<'_> {
    fn look(&mut self, messages: u64) -> Result<()> {
        if self.interrupted.load(Relaxed) {
            return Err(Interrupted.into());
        }
        self.server.check_alive(Duration::ZERO)?;
        self.progress.tick(messages, self.began.elapsed());
        Ok(())
    }

    fn load(&mut self, team: &mut Team, duration: Duration, record: bool) -> Result<PhaseResult> {
        self.began = Instant::now();
        team.run(Phase::Load { duration, record }, &mut |messages| self.look(messages))
    }

    /// Measures the calm, which takes half of the time, and lets the disturbers in.
    fn disturb(
        &mut self,
        team: &mut Team,
        workload: &Workload,
        seed: u64,
    ) -> Result<Option<(PhaseResult, Disturbers)>> {
        let Some(disturbance) = workload.disturbance else { return Ok(None) };
        let mut calm = self.load(team, workload.duration / 2, true)?;
        let Workload { disturbers, size, .. } = *workload;
        let disturbers = Disturbers::start(self.server.addr, disturbance, disturbers, size, seed)?;
        // What counts is how it is among them, not how they arrive.
        calm.faults.merge(self.load(team, workload.warmup, false)?.faults);
        Ok(Some((calm, disturbers)))
    }
}

fn drive(
    server: &mut Server,
    workload: &Workload,
    settings: &Settings,
    progress: &mut Progress,
) -> Result<Outcome> {
    let (addr, pid) = (server.addr, server.pid());
    // The first connection may cost the server what later ones do not: buffers, lazy tables.
    verify::first_contact(addr, workload.mode, settings.stall)
        .with_context(|| format!("no sensible answer from {addr}"))?;
    let empty = (pid.and_then(resident), kernel_memory());
    let Settings { threads, seed, stall, ref interrupted, .. } = *settings;
    let mut team = Team::start(&Plan { addr, workload, threads, seed, stall })?;
    let mut watch = Watch { server, interrupted, progress, began: Instant::now() };
    let opened = team.opened(&mut |messages| watch.look(messages));
    match opened.map_err(anyhow::Error::downcast::<FaultyOpening>) {
        Ok(()) => {}
        Err(Ok(FaultyOpening(faults))) => return Ok(Outcome::faulty(faults)),
        Err(Err(e)) => return Err(e),
    }
    let full = (pid.and_then(resident), kernel_memory());
    let each = |(full, empty): (u64, u64)| {
        full.saturating_sub(empty) as f64 / f64::from(workload.connections)
    };
    let lasting = workload.churn.is_none();
    let idle = full.0.zip(empty.0).filter(|_| lasting).map(each);
    let kernel = full.1.zip(empty.1).filter(|_| lasting).map(each);
    let counting = pid.context("its process is not known (give --pid)").and_then(Counting::start);
    let warm = watch.load(&mut team, workload.warmup, false)?;
    let calls = counting.and_then(Counting::finish).map_err(|e| format!("{e:#}"));
    let calls = match warm.total {
        0 => Err("nothing was asked while warming up, when calls are counted".into()),
        messages => calls.map(|calls| calls as f64 / messages as f64),
    };
    if !warm.faults.is_empty() {
        return Ok(Outcome::faulty(warm.faults));
    }
    let disturbed = watch.disturb(&mut team, workload, seed)?;
    let part = if disturbed.is_some() { 2 } else { 1 };
    let (before, ticks) = (pid.map(Snapshot::take), stolen_ticks());
    let began = SystemTime::now();
    let mut phase = watch.load(&mut team, workload.duration / part, true)?;
    let (after, ticks_after) = (pid.map(Snapshot::take), stolen_ticks());
    let cost = before.zip(after).map(|(before, after)| after.since(&before, phase.total));
    let stolen = (ticks_after.0 - ticks.0) as f64 / (ticks_after.1 - ticks.1).max(1) as f64;
    let join = |(calm, disturbers)| Disturbed::join(&mut phase, calm, disturbers);
    let disturbed = disturbed.map(join).transpose()?;
    Ok(Outcome { phase, began, disturbed, cost, idle, kernel, calls, stolen })
}

/// The verdict, and the numbers if they are to be had.
fn judge(workload: &Workload, outcome: &Outcome) -> (Verdict, Option<Measured>) {
    let phase = &outcome.phase;
    if !phase.faults.is_empty() {
        let reasons = phase.faults.counts().map(|(f, n)| format!("{n} {}", f.name())).collect();
        return (Verdict { status: Status::Invalid, reasons }, None);
    }
    if phase.in_window == 0 {
        let reasons = vec!["nothing came back in the window; lengthen --duration".into()];
        return (Verdict { status: Status::Invalid, reasons }, None);
    }
    let measured = measured(workload, outcome);
    let mut reasons = Vec::new();
    if measured.generator_cpu > BUSY {
        reasons.push(format!(
            "limited by the generator ({:.0} % of its processor): messages/s and latency are at \
             least partly its own",
            measured.generator_cpu * 100.0
        ));
    }
    if outcome.stolen > STOLEN {
        let percent = outcome.stolen * 100.0;
        reasons.push(format!("other guests of this host took processor time ({percent:.1} %)"));
    }
    match measured.open_loop.as_ref().zip(measured.latency.get("lateness")) {
        Some((open, lateness)) => doubts::open(workload, lateness, open, &mut reasons),
        None => doubts::closed(workload, &measured, &phase.slices, &mut reasons),
    }
    let status = if reasons.is_empty() { Status::Valid } else { Status::Suspect };
    (Verdict { status, reasons }, Some(measured))
}

fn measured(workload: &Workload, outcome: &Outcome) -> Measured {
    let phase = &outcome.phase;
    let seconds = phase.window_ns as f64 / 1e9;
    let receivers = f64::from(workload.members.saturating_sub(1));
    let rate = phase.in_window as f64 / seconds;
    Measured {
        messages: phase.total,
        messages_per_second: rate,
        bytes_per_second: rate * f64::from(workload.size),
        visits_per_second: workload.churn.map(|lines| rate / f64::from(lines)),
        deliveries_per_sent: if workload.mode == Mode::Chat { receivers } else { 1.0 },
        began: humantime::format_rfc3339_micros(outcome.began).to_string(),
        window_seconds: seconds,
        latency: phase
            .histograms
            .iter()
            .map(|(name, histogram)| ((*name).to_owned(), Latency::of(histogram)))
            .collect(),
        disturbed: outcome.disturbed.clone(),
        open_loop: phase.open_loop,
        generator_cpu: phase.cpu_ns as f64 / phase.window_ns as f64,
        generator_cpu_ns_per_message: phase.cpu_ns as f64 / phase.in_window as f64,
        cost: outcome.cost.clone(),
        idle_bytes_per_connection: outcome.idle,
        kernel_bytes_per_connection: outcome.kernel,
        system_calls_per_message: outcome.calls.as_ref().ok().copied(),
        system_calls_unknown: outcome.calls.as_ref().err().cloned(),
        histograms: phase
            .histograms
            .iter()
            .map(|(name, histogram)| ((*name).to_owned(), histogram.clone()))
            .collect(),
        seconds: phase.seconds.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drive::histogram;
    use crate::workload::Changes;

    /// Two connections of depth 1 in a window of a second: 1,000 messages of `latency_ns` each.
    fn outcome(latency_ns: u64) -> (Workload, Outcome) {
        let changes = Changes { connections: Some(2), ..Changes::default() };
        let second = Duration::from_secs(1);
        let workload = Workload::find("ping-pong", &changes, second, second).unwrap();
        let mut outcome = Outcome::faulty(FaultLog::default());
        let mut histogram = histogram();
        histogram.record_n(latency_ns, 1000).unwrap();
        outcome.phase.histograms.push(("latency", histogram));
        (outcome.phase.in_window, outcome.phase.total) = (1000, 1000);
        (outcome.phase.window_ns, outcome.phase.cpu_ns) = (1_000_000_000, 500_000_000);
        (workload, outcome)
    }

    #[test]
    fn a_plausible_run_is_valid() {
        let (workload, outcome) = outcome(2_000_000);
        let (verdict, measured) = judge(&workload, &outcome);
        assert_eq!(verdict.status, Status::Valid, "{:?}", verdict.reasons);
        assert_eq!(measured.unwrap().messages_per_second, 1000.0);
    }

    #[test]
    fn doubts_have_reasons() {
        let doubt = |latency_ns, change: fn(&mut Outcome), reason: &str| {
            let (workload, mut outcome) = outcome(latency_ns);
            change(&mut outcome);
            let (verdict, measured) = judge(&workload, &outcome);
            assert_eq!(verdict.status, Status::Suspect);
            assert!(verdict.reasons[0].starts_with(reason), "{:?}", verdict.reasons);
            assert!(measured.is_some());
        };
        doubt(2_000_000, |o| o.phase.cpu_ns = 990_000_000, "limited by the generator");
        doubt(2_000_000, |o| o.stolen = 0.05, "other guests");
        doubt(1_000_000, |_| (), "Little's law");
    }

    #[test]
    fn one_fault_leaves_no_number() {
        let (workload, mut outcome) = outcome(2_000_000);
        outcome.phase.faults.add(Fault::Lost, 1, String::new);
        let (verdict, measured) = judge(&workload, &outcome);
        assert_eq!((verdict.status, verdict.reasons), (Status::Invalid, vec!["1 lost".to_owned()]));
        assert!(measured.is_none());
    }
}
