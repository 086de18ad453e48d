//! The verdict on a run: whether what it brought can be believed. What speaks against the numbers
//! of a kind of loop stands in `doubts`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::cost::Snapshot;
use super::machine::{Interference, SLOW, STOLEN, TAKEN};
use super::report::Doubt;
use super::{Disturbed, Measured, Status, Verdict, doubts, meeting};
use crate::base::text::{percent, time};
use crate::drive::{Latency, PhaseResult};
use crate::workload::{Mode, Workload};

/// Part of a processor above which the generator, not the server, sets the pace.
const BUSY: f64 = 0.95;
/// By how much the wall clock may be set meanwhile.
const STEP: Duration = Duration::from_millis(1);

/// What was measured, before it is judged.
pub(crate) struct Evidence {
    pub(crate) phase: PhaseResult,
    /// When the first window began.
    pub(crate) began: Option<SystemTime>,
    pub(crate) disturbed: Option<Disturbed>,
    /// The server's counters before the first window and after the last.
    pub(crate) usage: Option<(Snapshot, Snapshot)>,
    /// Whether they could not be read, though its process is known.
    pub(crate) unread: bool,
    /// Resident memory that each connection added.
    pub(crate) idle: Option<f64>,
    /// Kernel memory that each connection added, on both of its ends.
    pub(crate) kernel: Option<f64>,
    /// System calls of the server for each message, or why they are not known.
    pub(crate) calls: std::result::Result<f64, String>,
    /// Whether chat's flood control may be on: only a server of ours is known to have it off.
    pub(crate) may_hold_back: bool,
    /// What the machine did meanwhile.
    pub(crate) machine: Interference,
    /// How much later than agreed with others the window began.
    pub(crate) late: Duration,
}

/// What the machine did to a run.
pub(crate) fn interfered(by: &Interference, doubts: &mut Vec<Doubt>) {
    let mut doubt = |why: String| doubts.push(Doubt::Other(why));
    if by.stolen > STOLEN {
        let stolen = percent(by.stolen);
        doubt(format!("other guests of this host took processor time ({stolen})"));
    }
    if let Some(taken) = by.taken.filter(|&taken| taken > TAKEN) {
        let taken = percent(taken);
        doubt(format!("other programs on this machine took processor time ({taken})"));
    }
    if let Some(slow) = by.slow.filter(|&slow| slow > SLOW) {
        doubt(format!(
            "the processors ran at less than half their speed for a part of the time ({}): power, \
             heat or other guests of this host",
            percent(slow)
        ));
    }
    if by.step > STEP {
        let step = time(by.step.as_nanos() as f64);
        doubt(format!("the wall clock was set meanwhile ({step})"));
    }
}

impl Default for Evidence {
    fn default() -> Self {
        Self {
            phase: PhaseResult::default(),
            began: None,
            disturbed: None,
            usage: None,
            unread: false,
            idle: None,
            kernel: None,
            calls: Err("nothing was counted".into()),
            may_hold_back: false,
            machine: Interference::default(),
            late: Duration::ZERO,
        }
    }
}

/// The verdict, and the numbers if they are to be had.
pub(crate) fn judge(workload: &Workload, evidence: &Evidence) -> (Verdict, Option<Measured>) {
    let phase = &evidence.phase;
    if !phase.faults.is_empty() {
        return (Verdict::new(Status::Invalid, phase.faults.reasons()), None);
    }
    if phase.total == 0 {
        let reasons = vec![nothing(workload, phase)];
        return (Verdict::new(Status::Invalid, reasons), None);
    }
    let measured = measured(workload, evidence);
    let mut doubts = Vec::new();
    if phase.cut {
        let (after, all) = (measured.window_seconds, workload.duration.as_secs_f64());
        doubts.push(Doubt::Other(format!("interrupted after {after:.2} of {all} s")));
    }
    doubts.extend(meeting::doubt(evidence.late).map(Doubt::Other));
    if evidence.unread {
        let why = "what the server used is not known: its processes could not be read from /proc";
        doubts.push(Doubt::Other(why.into()));
    }
    interfered(&evidence.machine, &mut doubts);
    if measured.generator_cpu > BUSY {
        // The rate of an open loop is given.
        let what =
            if workload.rate.is_some() { "latency is" } else { "messages/s and latency are" };
        doubts.push(Doubt::Generator(format!(
            "limited by the generator ({:.0} % of its processor): {what} at least partly its own",
            measured.generator_cpu * 100.0
        )));
    }
    if evidence.may_hold_back {
        doubts::held_back(workload, &measured, &mut doubts);
    }
    match measured.open_loop.as_ref().zip(measured.latency.get("lateness")) {
        Some((open, lateness)) => doubts::open(workload, lateness, open, phase.cut, &mut doubts),
        None => doubts::closed(workload, &measured, phase, &mut doubts),
    }
    (Verdict::of(&doubts), Some(measured))
}

/// Why there was no message, and no fault either.
fn nothing(workload: &Workload, phase: &PhaseResult) -> String {
    if phase.cut {
        return "interrupted before the first answer came".into();
    }
    match workload.rate.filter(|_| phase.sent == 0) {
        Some(rate) => {
            let seconds = workload.duration.as_secs_f64();
            format!(
                "no message was sent: {rate}/s in {seconds} s are less than one; raise --rate or \
                 lengthen --duration"
            )
        }
        None => "nothing came back in the window; lengthen --duration".into(),
    }
}

fn measured(workload: &Workload, evidence: &Evidence) -> Measured {
    let phase = &evidence.phase;
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
        began: humantime::format_rfc3339_micros(evidence.began.unwrap_or(UNIX_EPOCH)).to_string(),
        window_seconds: seconds,
        latency: phase
            .histograms
            .iter()
            .map(|(name, histogram)| ((*name).to_owned(), Latency::of(histogram)))
            .collect(),
        disturbed: evidence.disturbed.clone(),
        open_loop: phase.open_loop,
        generator_cpu: phase.cpu_ns as f64 / busy,
        generator_cpu_ns_per_message: phase.cpu_ns as f64 / phase.total as f64,
        slow_processors: evidence.machine.slow,
        stolen_processors: Some(evidence.machine.stolen),
        taken_processors: evidence.machine.taken,
        cost: evidence.usage.as_ref().map(|(before, after)| after.since(before, phase.total)),
        idle_bytes_per_connection: evidence.idle,
        kernel_bytes_per_connection: evidence.kernel,
        system_calls_per_message: evidence.calls.as_ref().ok().copied(),
        system_calls_unknown: evidence.calls.as_ref().err().cloned(),
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
    use crate::drive::{Fault, histogram};
    use crate::workload::Changes;
    use std::time::Duration;

    /// Two connections of depth 1 in a window of a second: 1,000 messages of `latency_ns` each.
    fn evidence(latency_ns: u64) -> (Workload, Evidence) {
        let changes = Changes { connections: Some(2), ..Changes::default() };
        let second = Duration::from_secs(1);
        let workload = Workload::find("ping-pong", &changes, second, second).unwrap();
        let mut evidence = Evidence::default();
        let mut histogram = histogram();
        histogram.record_n(latency_ns, 1000).unwrap();
        evidence.phase.histograms.push(("latency", histogram));
        (evidence.phase.total, evidence.phase.phases) = (1000, 1);
        (evidence.phase.window_ns, evidence.phase.busy_ns) = (1_000_000_000, 1_000_000_000);
        evidence.phase.cpu_ns = 500_000_000;
        (workload, evidence)
    }

    #[test]
    fn a_plausible_run_is_valid() {
        let (workload, evidence) = evidence(2_000_000);
        let (verdict, measured) = judge(&workload, &evidence);
        assert_eq!(verdict.status, Status::Valid, "{:?}", verdict.reasons);
        assert_eq!(measured.unwrap().messages_per_second, 1000.0);
    }

    #[test]
    fn doubts_have_reasons() {
        let doubt = |latency_ns, change: fn(&mut Evidence), reason: &str| {
            let (workload, mut evidence) = evidence(latency_ns);
            change(&mut evidence);
            let (verdict, measured) = judge(&workload, &evidence);
            assert_eq!(verdict.status, Status::Suspect);
            assert!(verdict.reasons[0].starts_with(reason), "{:?}", verdict.reasons);
            assert_eq!(verdict.generator.is_some(), reason.contains("generator"), "{verdict:?}");
            assert!(measured.is_some());
        };
        doubt(2_000_000, |o| o.phase.cpu_ns = 990_000_000, "limited by the generator (99 %");
        doubt(2_000_000, |o| o.unread = true, "what the server used is not known");
        doubt(2_000_000, |o| o.machine.stolen = 0.05, "other guests");
        doubt(2_000_000, |o| o.machine.taken = Some(0.05), "other programs on this machine");
        doubt(2_000_000, |o| o.machine.slow = Some(0.05), "the processors ran at less than half");
        doubt(2_000_000, |o| o.machine.step = STEP * 2, "the wall clock was set");
        doubt(2_000_000, |o| o.late = STEP * 20, "the window began 20.0 ms after");
        doubt(1_000_000, |_| (), "Little's law");
        doubt(2_000_000, |o| o.phase.cut = true, "interrupted after 1.00 of 1 s");
    }

    #[test]
    fn what_is_just_at_a_limit_is_no_doubt() {
        let (workload, mut evidence) = evidence(2_000_000);
        evidence.phase.cpu_ns = (BUSY * 1e9) as u64;
        let (slow, stolen, taken) = (Some(SLOW), STOLEN, Some(TAKEN));
        evidence.machine = Interference { slow, stolen, taken, step: STEP };
        let (verdict, _) = judge(&workload, &evidence);
        assert_eq!(verdict.status, Status::Valid, "{:?}", verdict.reasons);
    }

    /// A thousand messages in half a second, for which the generator computed a tenth.
    #[test]
    fn rates_and_costs_are_of_the_time_in_which_messages_came() {
        for (name, visits, deliveries) in
            [("ping-pong", None, 1.0), ("churn", Some(1000.0), 1.0), ("fan-out", None, 199.0)]
        {
            let (_, mut evidence) = evidence(2_000_000);
            (evidence.phase.window_ns, evidence.phase.busy_ns) = (400_000_000, 500_000_000);
            evidence.phase.cpu_ns = 50_000_000;
            let (second, changes) = (Duration::from_secs(1), Changes::default());
            let mut workload = Workload::find(name, &changes, second, second).unwrap();
            workload.churn = workload.churn.map(|_| 2);
            let measured = judge(&workload, &evidence).1.unwrap();
            assert_eq!(measured.messages_per_second, 2000.0);
            assert_eq!(measured.bytes_per_second, 2000.0 * f64::from(workload.size));
            assert_eq!(measured.visits_per_second, visits, "{name}");
            assert_eq!(measured.deliveries_per_sent, deliveries, "{name}");
            assert_eq!(measured.window_seconds, 0.4);
            assert_eq!(measured.generator_cpu, 0.1);
            assert_eq!(measured.generator_cpu_ns_per_message, 50_000.0);
        }
    }

    #[test]
    fn the_rate_of_an_open_loop_is_given() {
        let (_, mut evidence) = evidence(2_000_000);
        evidence.phase.cpu_ns = 990_000_000;
        let changes = Changes { rate: Some(1000.0), ..Changes::default() };
        let second = Duration::from_secs(1);
        let workload = Workload::find("open-loop", &changes, second, second).unwrap();
        let said = judge(&workload, &evidence).0.reasons.concat();
        assert!(said.contains("latency is at least partly its own"), "{said}");
        assert!(!said.contains("messages/s"), "{said}");
        (evidence.phase.total, evidence.phase.sent) = (0, 0);
        let said = judge(&workload, &evidence).0.reasons.concat();
        assert!(said.starts_with("no message was sent: 1000/s in 1 s"), "{said}");
        evidence.phase.sent = 1;
        let said = judge(&workload, &evidence).0.reasons.concat();
        assert!(said.starts_with("nothing came back in the window"), "{said}");
    }

    #[test]
    fn a_run_without_a_message_says_why() {
        let (workload, mut evidence) = evidence(2_000_000);
        evidence.phase.total = 0;
        let said = |evidence: &Evidence| judge(&workload, evidence).0.reasons.concat();
        assert!(said(&evidence).starts_with("nothing came back in the window"));
        evidence.phase.cut = true;
        assert_eq!(said(&evidence), "interrupted before the first answer came");
    }

    /// The last answers of windows that are full of slow answers come when the server likes: all
    /// at once, or one by one.
    #[test]
    fn slow_answers_do_not_violate_littles_law() {
        for last in [1_000_000_000, 2_900_000_000] {
            let (workload, mut evidence) = evidence(last);
            evidence.phase.total = 2;
            evidence.phase.histograms[0].1 = histogram();
            evidence.phase.histograms[0].1.record_n(last, 2).unwrap();
            evidence.phase.busy_ns = last;
            let (verdict, _) = judge(&workload, &evidence);
            assert_eq!(verdict.status, Status::Valid, "{:?}", verdict.reasons);
        }
    }

    #[test]
    fn few_messages_of_each_speaker_are_flood_controls_likely_doing() {
        let (_, mut evidence) = evidence(2_000_000);
        let second = Duration::from_secs(1);
        let workload = Workload::find("fan-out", &Changes::default(), second, second).unwrap();
        // Four speakers, of whom each message goes to 199 members: two of each a second.
        evidence.phase.total = 4 * 2 * 199;
        let mut said = |known: bool, total: u64| {
            (evidence.may_hold_back, evidence.phase.total) = (!known, total);
            let reasons = judge(&workload, &evidence).0.reasons;
            reasons
                .iter()
                .any(|why| why.contains("flood control") && why.contains("(2.0 messages/s"))
        };
        assert!(said(false, 4 * 2 * 199));
        assert!(!said(true, 4 * 2 * 199), "it is known to be off");
        assert!(!said(false, 4 * 20 * 199));
    }

    #[test]
    fn one_fault_leaves_no_number() {
        let (workload, mut evidence) = evidence(2_000_000);
        evidence.phase.faults.add(Fault::Lost, 1, String::new);
        let (verdict, measured) = judge(&workload, &evidence);
        assert_eq!((verdict.status, verdict.reasons), (Status::Invalid, vec!["1 lost".to_owned()]));
        assert!(measured.is_none());
    }
}
