//! What speaks against the numbers of a run, by the kind of its loop.

use std::time::Duration;

use super::Measured;
use super::report::Doubt;
use crate::base::text::time;
use crate::drive::{Latency, OpenLoop, PhaseResult};
use crate::workload::Workload;

/// Part by which connections × depth may differ from rate × mean latency.
const LITTLE: f64 = 0.10;
/// Messages of one speaker a second that are so few that flood control may be behind it.
const HELD_BACK: f64 = 10.0;
/// Part of an open loop's messages that must have waited, or not have been sent, for that.
const WAITED: f64 = 0.01;
/// Part by which an open loop may send more or less than was asked for.
const OFF_RATE: f64 = 0.005;
/// How late the 99th percentile of an open loop's messages may be sent.
const LATE: Duration = Duration::from_micros(200);
/// Part by which the second half of a window may differ from the first.
const DRIFT: f64 = 0.15;

/// A closed loop's rate is the server's and steady, and its windows are full.
pub(crate) fn closed(
    w: &Workload,
    measured: &Measured,
    phase: &PhaseResult,
    doubts: &mut Vec<Doubt>,
) {
    if let Some(drift) = drift(&phase.slices).filter(|drift| drift.abs() > DRIFT) {
        doubts.push(Doubt::Other(format!(
            "the rate drifted during the run ({:+.0} %)",
            drift * 100.0
        )));
    }
    // What was in flight when it was cut has no latency.
    let Some(latency) = measured.main_latency().filter(|_| !phase.cut) else { return };
    // All windows are full until their turn ends; then the last answers come. When is the server's
    // affair, flood control's for example: so what was in flight for how long is at least that of
    // full windows, and at most that of windows that were full until the last answer.
    let sum = latency.count as f64 * latency.mean;
    let [least, most] = [phase.window_ns, phase.busy_ns].map(|ns| sum / ns.max(1) as f64);
    let asked = w.in_flight() as f64;
    let little = if least < asked * (1.0 - LITTLE) {
        Some((least, "the windows were not kept full"))
    } else if most > asked * (1.0 + LITTLE) {
        Some((most, "more was timed than was asked"))
    } else {
        None
    };
    if let Some((busy, why)) = little {
        doubts.push(Doubt::Other(format!(
            "Little's law is violated (rate x latency is {busy:.1} in flight, not {asked}): {why}"
        )));
    }
}

/// So little of a chat that is not known to have its flood control off comes through, that flood
/// control is the likely reason.
pub(crate) fn held_back(w: &Workload, measured: &Measured, doubts: &mut Vec<Doubt>) {
    let waited = measured.open_loop.is_none_or(|open| {
        (open.queued + open.unsent + open.dropped) as f64 > WAITED * open.scheduled as f64
    });
    let speakers = f64::from((w.channels * w.speakers).max(1));
    let each = measured.messages_per_second / measured.deliveries_per_sent / speakers;
    if waited && each < HELD_BACK {
        doubts.push(Doubt::Other(format!(
            "the server's flood control is the likely limit ({each:.1} messages/s of each speaker \
             came through): start it without (--no-flood-control, for servers of this workspace)"
        )));
    }
}

/// An open loop's messages leave when their time has come, and all of them do.
pub(crate) fn open(
    w: &Workload,
    lateness: &Latency,
    open: &OpenLoop,
    cut: bool,
    doubts: &mut Vec<Doubt>,
) {
    if open.unsent > 0 {
        doubts.push(Doubt::Other(format!(
            "messages were not sent by the end of the window, and their response times are \
             missing ({} of {})",
            open.unsent, open.scheduled
        )));
    }
    if open.dropped > 0 {
        doubts.push(Doubt::Other(format!(
            "messages were dropped because every connection was busy, and their response times are \
             missing ({} of {})",
            open.dropped, open.scheduled
        )));
    }
    let off = open.sent_per_second / w.rate.unwrap_or(f64::INFINITY) - 1.0;
    // Half a message is what rounding to whole ones takes. The part of a schedule that a window
    // held which was cut has by chance more or less.
    if !cut && off.abs() > OFF_RATE + 0.5 / open.scheduled.max(1) as f64 {
        let off = off * 100.0;
        doubts.push(Doubt::Other(format!("the rate asked for was not kept ({off:+.1} %)")));
    }
    let late = lateness.p99;
    if late > LATE.as_nanos() as u64 {
        let late = time(late as f64);
        // More than one in a hundred had to wait, and so the 99th percentile did.
        let doubt = if open.queued * 100 > open.sent {
            Doubt::Other(format!(
                "messages waited for a connection with room: too few connections, or a server \
                 that cannot keep up or stalled ({} of {}, lateness p99 {late})",
                open.queued, open.sent
            ))
        } else {
            Doubt::Generator(format!("the generator was late (lateness p99 {late})"))
        };
        doubts.push(doubt);
    }
}

/// How much more (or less) the second half of the window brought than the first.
fn drift(slices: &[u64]) -> Option<f64> {
    if slices.len() < 10 {
        return None;
    }
    let (first, second) = slices.split_at(slices.len() / 2);
    let sum = |half: &[u64]| half.iter().sum::<u64>() as f64;
    Some(sum(second) / sum(first).max(1.0) - 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::verdict::{Evidence, judge};
    use crate::workload::Changes;

    #[test]
    fn drift_is_told_from_noise() {
        assert_eq!(drift(&[100; 9]), None);
        assert_eq!(drift(&[100; 10]), Some(0.0));
        assert!(drift(&[100, 100, 100, 100, 100, 50, 50, 50, 50, 50]).is_some_and(|d| d < -0.4));
    }

    /// A second of 1,000 answers, each after a millisecond, of one line in flight.
    #[test]
    fn a_closed_loop_is_doubted_for_what_does_not_add_up() {
        let said = |change: fn(&mut PhaseResult), after_ns: u64| {
            let changes = Changes { connections: Some(1), ..Changes::default() };
            let second = Duration::from_secs(1);
            let workload = Workload::find("ping-pong", &changes, second, second).unwrap();
            let mut histogram = crate::drive::histogram();
            histogram.record_n(after_ns, 1000).unwrap();
            let mut evidence = Evidence::default();
            let phase = &mut evidence.phase;
            (phase.total, phase.window_ns, phase.busy_ns) = (1000, 1_000_000_000, 1_000_000_000);
            phase.histograms.push(("latency", histogram));
            change(phase);
            let (verdict, _) = judge(&workload, &evidence);
            verdict.reasons.join("; ")
        };
        assert_eq!(said(|_| (), 1_000_000), "");
        let drifted = said(|phase| phase.slices = [[100; 10], [50; 10]].concat(), 1_000_000);
        assert_eq!(drifted, "the rate drifted during the run (-50 %)");
        for (after_ns, why) in [
            (500_000, "the windows were not kept full"),
            (2_000_000, "more was timed than was asked"),
        ] {
            let told = said(|_| (), after_ns);
            assert!(told.starts_with("Little's law is violated") && told.ends_with(why), "{told}");
        }
    }

    /// What is said of a second of 1,000 messages of which `change` made something else.
    fn said(change: fn(&mut OpenLoop), late_ns: u64) -> Vec<Doubt> {
        let changes = Changes { rate: Some(1000.0), ..Changes::default() };
        let second = Duration::from_secs(1);
        let workload = Workload::find("open-loop", &changes, second, second).unwrap();
        let (scheduled, sent, sent_per_second) = (1000, 1000, 1000.0);
        let mut loop_ = OpenLoop { scheduled, sent, sent_per_second, ..OpenLoop::default() };
        change(&mut loop_);
        let mut lateness = crate::drive::histogram();
        lateness.record(late_ns).unwrap();
        let mut doubts = Vec::new();
        open(&workload, &Latency::of(&lateness), &loop_, false, &mut doubts);
        doubts
    }

    #[test]
    fn an_open_loop_is_doubted_for_what_it_did_not_do_in_time() {
        assert!(said(|_| (), 100_000).is_empty());
        let one = |change, late_ns, reason: &str| {
            let doubts = said(change, late_ns);
            assert!(doubts.len() == 1 && doubts[0].text().starts_with(reason), "{doubts:?}");
            let own = matches!(doubts[0], Doubt::Generator(_));
            assert_eq!(own, reason.contains("generator"), "{doubts:?}");
        };
        one(|o| o.unsent = 1, 0, "messages were not sent");
        one(|o| o.dropped = 1, 0, "messages were dropped");
        one(|o| o.sent_per_second = 990.0, 0, "the rate asked for was not kept (-1.0 %)");
        one(|_| (), 300_000, "the generator was late");
        one(|o| o.queued = 20, 300_000, "messages waited for a connection");
    }
}
