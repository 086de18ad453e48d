//! What a run brought, whether that can be believed, and the numbers if they are to be had.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::bystanders::Disturbed;
use crate::cost::Snapshot;
use crate::doubts;
use crate::drive::PhaseResult;
use crate::run::{Measured, Settings, Status, Verdict};
use crate::stats::Latency;
use crate::workload::{Mode, Workload};

/// Part of a processor above which the generator, not the server, sets the pace.
const BUSY: f64 = 0.95;
/// Part of the processors' time above which steal time makes the numbers doubtful.
const STOLEN: f64 = 0.01;
/// Part of the time that the processors may be slow before the numbers are doubtful.
const SLOW: f64 = 0.01;
/// By how much the wall clock may be set meanwhile.
const STEP: Duration = Duration::from_millis(1);

/// What was measured, before it is judged.
pub(crate) struct Outcome {
    pub(crate) phase: PhaseResult,
    /// When the first window began.
    pub(crate) began: Option<SystemTime>,
    pub(crate) disturbed: Option<Disturbed>,
    /// The server's counters before the first window and after the last.
    pub(crate) usage: Option<(Snapshot, Snapshot)>,
    /// Resident memory that each connection added.
    pub(crate) idle: Option<f64>,
    /// Kernel memory that each connection added, on both of its ends.
    pub(crate) kernel: Option<f64>,
    /// System calls of the server for each message, or why they are not known.
    pub(crate) calls: std::result::Result<f64, String>,
    /// What the machine did meanwhile.
    pub(crate) machine: Disturbances,
}

/// What disturbed a run from without, between two moments.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Disturbances {
    /// Part of the time of the processors in use that other guests of the host took.
    pub(crate) stolen: f64,
    /// Part of the time in which the generator's processors were slow, if anybody looked.
    pub(crate) slow: Option<f64>,
    /// By how much the wall clock was set.
    pub(crate) step: Duration,
}

/// Counters of such disturbances at one moment.
#[derive(Clone, Copy)]
pub(crate) struct Quiet {
    ticks: (u64, u64),
    samples: (u64, u64),
    clocks: (SystemTime, Instant),
}

impl Quiet {
    pub(crate) fn now(settings: &Settings) -> Self {
        let cpus = [&settings.server_cpus[..], &settings.generator_cpus].concat();
        Self {
            ticks: stolen_ticks(&cpus),
            samples: settings.speed.samples(),
            clocks: (SystemTime::now(), Instant::now()),
        }
    }

    /// What has happened since `before`.
    pub(crate) fn since(&self, before: &Self) -> Disturbances {
        let passed = self.clocks.1 - before.clocks.1;
        // Both clocks are slewed alike; only setting moves one and not the other.
        let step = match self.clocks.0.duration_since(before.clocks.0 + passed) {
            Ok(forward) => forward,
            Err(back) => back.duration(),
        };
        Disturbances {
            stolen: part(self.ticks, before.ticks).unwrap_or(0.0),
            slow: part(self.samples, before.samples),
            step,
        }
    }
}

/// How many of all, in the time between two counts of both.
fn part(after: (u64, u64), before: (u64, u64)) -> Option<f64> {
    let (some, all) = (after.0 - before.0, after.1 - before.1);
    (all > 0).then(|| some as f64 / all as f64)
}

/// Ticks that these processors, or if none are named all of this machine, were given to others,
/// and ticks in all.
pub(crate) fn stolen_ticks(cpus: &[usize]) -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    sum_ticks(&text, cpus)
}

fn sum_ticks(stat: &str, cpus: &[usize]) -> (u64, u64) {
    let mut sums = (0, 0);
    for line in stat.lines() {
        let mut words = line.split_whitespace();
        let Some(name) = words.next().and_then(|word| word.strip_prefix("cpu")) else { break };
        let named = name.parse().is_ok_and(|cpu| cpus.contains(&cpu));
        if named || (name.is_empty() && cpus.is_empty()) {
            // user nice system idle iowait irq softirq steal ...
            let ticks: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
            sums.0 += ticks.get(7).copied().unwrap_or(0);
            sums.1 += ticks.iter().take(8).sum::<u64>();
        }
    }
    sums
}

/// What the machine did to a run.
fn disturbed(by: &Disturbances, reasons: &mut Vec<String>) {
    if by.stolen > STOLEN {
        let percent = by.stolen * 100.0;
        reasons.push(format!("other guests of this host took processor time ({percent:.1} %)"));
    }
    if let Some(slow) = by.slow.filter(|&slow| slow > SLOW) {
        reasons.push(format!(
            "the processors ran at less than half their speed for a part of the time ({:.1} %): \
             power, heat or other guests of this host",
            slow * 100.0
        ));
    }
    if by.step > STEP {
        let step = crate::table::time(by.step.as_nanos() as f64);
        reasons.push(format!("the wall clock was set meanwhile ({step})"));
    }
}

impl Default for Outcome {
    fn default() -> Self {
        Self {
            phase: PhaseResult::default(),
            began: None,
            disturbed: None,
            usage: None,
            idle: None,
            kernel: None,
            calls: Err("nothing was counted".into()),
            machine: Disturbances::default(),
        }
    }
}

/// The verdict, and the numbers if they are to be had.
pub(crate) fn judge(workload: &Workload, outcome: &Outcome) -> (Verdict, Option<Measured>) {
    let phase = &outcome.phase;
    if !phase.faults.is_empty() {
        let reasons = phase.faults.counts().map(|(f, n)| format!("{n} {}", f.name())).collect();
        return (Verdict { status: Status::Invalid, reasons }, None);
    }
    if phase.total == 0 {
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
    disturbed(&outcome.machine, &mut reasons);
    match measured.open_loop.as_ref().zip(measured.latency.get("lateness")) {
        Some((open, lateness)) => doubts::open(workload, lateness, open, &mut reasons),
        None => doubts::closed(workload, &measured, phase, &mut reasons),
    }
    let status = if reasons.is_empty() { Status::Valid } else { Status::Suspect };
    (Verdict { status, reasons }, Some(measured))
}

fn measured(workload: &Workload, outcome: &Outcome) -> Measured {
    let phase = &outcome.phase;
    let seconds = phase.window_ns as f64 / 1e9;
    let receivers = f64::from(workload.members.saturating_sub(1));
    let busy = phase.busy_ns.max(1) as f64;
    let rate = phase.total as f64 * 1e9 / busy;
    Measured {
        messages: phase.total,
        messages_per_second: rate,
        bytes_per_second: rate * f64::from(workload.size),
        visits_per_second: workload.churn.map(|lines| rate / f64::from(lines)),
        deliveries_per_sent: if workload.mode == Mode::Chat { receivers } else { 1.0 },
        began: humantime::format_rfc3339_micros(outcome.began.unwrap_or(UNIX_EPOCH)).to_string(),
        window_seconds: seconds,
        latency: phase
            .histograms
            .iter()
            .map(|(name, histogram)| ((*name).to_owned(), Latency::of(histogram)))
            .collect(),
        disturbed: outcome.disturbed.clone(),
        open_loop: phase.open_loop,
        generator_cpu: phase.cpu_ns as f64 / busy,
        generator_cpu_ns_per_message: phase.cpu_ns as f64 / phase.total as f64,
        slow_processors: outcome.machine.slow,
        cost: outcome.usage.as_ref().map(|(before, after)| after.since(before, phase.total)),
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
    use crate::check::Fault;
    use crate::drive::histogram;
    use crate::workload::Changes;
    use std::time::Duration;

    /// Two connections of depth 1 in a window of a second: 1,000 messages of `latency_ns` each.
    fn outcome(latency_ns: u64) -> (Workload, Outcome) {
        let changes = Changes { connections: Some(2), ..Changes::default() };
        let second = Duration::from_secs(1);
        let workload = Workload::find("ping-pong", &changes, second, second).unwrap();
        let mut outcome = Outcome::default();
        let mut histogram = histogram();
        histogram.record_n(latency_ns, 1000).unwrap();
        outcome.phase.histograms.push(("latency", histogram));
        (outcome.phase.total, outcome.phase.phases) = (1000, 1);
        (outcome.phase.window_ns, outcome.phase.busy_ns) = (1_000_000_000, 1_000_000_000);
        outcome.phase.cpu_ns = 500_000_000;
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
        doubt(2_000_000, |o| o.machine.stolen = 0.05, "other guests");
        doubt(2_000_000, |o| o.machine.slow = Some(0.05), "the processors ran at less than half");
        doubt(2_000_000, |o| o.machine.step = STEP * 2, "the wall clock was set");
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

    #[test]
    fn steal_time_is_that_of_the_processors_in_use() {
        let stat = "cpu  9 9 9 9 9 9 9 36 0 0\ncpu0 1 1 1 1 1 1 1 3 0 0\ncpu1 1 1 1 1 1 1 1 33 0 0\n\
                    intr 99 1\n";
        assert_eq!(sum_ticks(stat, &[]), (36, 99));
        assert_eq!(sum_ticks(stat, &[0]), (3, 10));
        assert_eq!(sum_ticks(stat, &[1, 0]), (36, 50));
    }
}
