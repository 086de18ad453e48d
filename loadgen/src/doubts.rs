//! What speaks against the numbers of a run, by the kind of its loop.

use std::time::Duration;

use crate::drive::PhaseResult;
use crate::pacing::OpenLoop;
use crate::run::Measured;
use crate::stats::Latency;
use crate::workload::Workload;

/// Part by which connections × depth may differ from rate × mean latency.
const LITTLE: f64 = 0.10;
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
    reasons: &mut Vec<String>,
) {
    if let Some(drift) = drift(&phase.slices).filter(|drift| drift.abs() > DRIFT) {
        reasons.push(format!("the rate drifted during the run ({:+.0} %)", drift * 100.0));
    }
    let Some(latency) = measured.main_latency() else { return };
    // All windows are full until their turn ends; then the last answers come, one by one, which
    // takes as long as an answer does. So on average half of them are still in flight meanwhile.
    let full = phase.window_ns as f64 + 0.5 * f64::from(phase.phases) * latency.mean;
    let busy = latency.count as f64 * latency.mean / full;
    let asked = w.in_flight() as f64;
    if (busy / asked - 1.0).abs() > LITTLE {
        reasons.push(format!(
            "Little's law is violated (rate x latency is {busy:.1} in flight, not {asked})"
        ));
    }
}

/// An open loop's messages leave when their time has come, and all of them do.
pub(crate) fn open(w: &Workload, lateness: &Latency, open: &OpenLoop, reasons: &mut Vec<String>) {
    if open.unsent > 0 {
        reasons.push(format!(
            "messages were not sent by the end of the window, and their response times are \
             missing ({} of {})",
            open.unsent, open.scheduled
        ));
    }
    if open.dropped > 0 {
        reasons.push(format!(
            "messages were dropped because every connection was busy, and their response times are \
             missing ({} of {})",
            open.dropped, open.scheduled
        ));
    }
    let off = open.sent_per_second / w.rate.unwrap_or(f64::INFINITY) - 1.0;
    // Half a message is what rounding to whole ones takes.
    if off.abs() > OFF_RATE + 0.5 / open.scheduled.max(1) as f64 {
        reasons.push(format!("the rate asked for was not kept ({:+.1} %)", off * 100.0));
    }
    let late = lateness.p99;
    if late > LATE.as_nanos() as u64 {
        let late = crate::table::time(late as f64);
        // More than one in a hundred had to wait, and so the 99th percentile did.
        reasons.push(match open.queued * 100 > open.sent {
            true => format!(
                "messages waited for a connection with room: too few connections, or a server \
                 that cannot keep up or stalled ({} of {}, lateness p99 {late})",
                open.queued, open.sent
            ),
            false => format!("the generator was late (lateness p99 {late})"),
        });
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
    use crate::workload::Changes;

    #[test]
    fn drift_is_told_from_noise() {
        assert_eq!(drift(&[100; 9]), None);
        assert_eq!(drift(&[100; 10]), Some(0.0));
        assert!(drift(&[100, 100, 100, 100, 100, 50, 50, 50, 50, 50]).is_some_and(|d| d < -0.4));
    }

    /// What is said of a second of 1,000 messages of which `change` made something else.
    fn said(change: fn(&mut OpenLoop), late_ns: u64) -> Vec<String> {
        let changes = Changes { rate: Some(1000.0), ..Changes::default() };
        let second = Duration::from_secs(1);
        let workload = Workload::find("open-loop", &changes, second, second).unwrap();
        let (scheduled, sent, sent_per_second) = (1000, 1000, 1000.0);
        let mut loop_ = OpenLoop { scheduled, sent, sent_per_second, ..OpenLoop::default() };
        change(&mut loop_);
        let mut lateness = crate::drive::histogram();
        lateness.record(late_ns).unwrap();
        let mut reasons = Vec::new();
        open(&workload, &Latency::of(&lateness), &loop_, &mut reasons);
        reasons
    }

    #[test]
    fn an_open_loop_is_doubted_for_what_it_did_not_do_in_time() {
        assert!(said(|_| (), 100_000).is_empty());
        let one = |change, late_ns, reason: &str| {
            let reasons = said(change, late_ns);
            assert!(reasons.len() == 1 && reasons[0].starts_with(reason), "{reasons:?}");
        };
        one(|o| o.unsent = 1, 0, "messages were not sent");
        one(|o| o.dropped = 1, 0, "messages were dropped");
        one(|o| o.sent_per_second = 990.0, 0, "the rate asked for was not kept (-1.0 %)");
        one(|_| (), 300_000, "the generator was late");
        one(|o| o.queued = 20, 300_000, "messages waited for a connection");
    }
}
