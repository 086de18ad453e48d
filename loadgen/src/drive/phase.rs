//! A phase of a run, and what it brought.

use std::time::Duration;

use hdrhistogram::Histogram;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::faults::FaultLog;
use super::histogram;
use super::window::SECOND;

/// What to do next with the open connections.
#[derive(Clone, Copy, Debug)]
pub enum Phase {
    /// Keep every window full for this long, then wait for what is in flight.
    Load {
        /// How long to keep sending.
        duration: Duration,
        /// Whether latencies are recorded; not so while warming up.
        record: bool,
    },
    /// One message on each connection, so that the server is known to have accepted it.
    Touch,
}

impl Phase {
    /// How long it keeps sending.
    pub(super) fn duration(self) -> Duration {
        match self {
            Self::Load { duration, .. } => duration,
            Self::Touch => Duration::ZERO,
        }
    }
}

/// What one phase brought, over one thread or, once merged, over all.
#[derive(Debug, Default)]
pub struct PhaseResult {
    /// Phases in one: turns of the same connections, one after the other.
    pub phases: u32,
    /// Messages checked, those in flight at the end included.
    pub total: u64,
    /// Messages written: equal to `total` in echo, fewer in fan-out.
    pub sent: u64,
    /// How long the windows were kept full, in nanoseconds.
    pub window_ns: u64,
    /// The same until the last answer: what the rate is made of.
    pub busy_ns: u64,
    /// Processor time of the busiest generator thread in that time, in nanoseconds, without what
    /// it spent waiting.
    pub cpu_ns: u64,
    /// Messages checked in each tenth of the window, or in each of many phases.
    pub slices: Vec<u64>,
    /// Latencies in nanoseconds, by name, the most telling one first.
    pub histograms: Vec<(&'static str, Histogram<u64>)>,
    /// The same second by second, from the beginning of the window to the last answer.
    pub seconds: Vec<Second>,
    /// What became of the schedule, in an open loop.
    pub open_loop: Option<OpenLoop>,
    /// Whether it was stopped before its time.
    pub cut: bool,
    /// What was wrong.
    pub faults: FaultLog,
}

impl PhaseResult {
    /// Adds what another thread measured in the same phase.
    pub fn merge(&mut self, other: Self) {
        self.total += other.total;
        self.sent += other.sent;
        self.window_ns = self.window_ns.max(other.window_ns);
        self.busy_ns = self.busy_ns.max(other.busy_ns);
        self.cut |= other.cut;
        self.cpu_ns = self.cpu_ns.max(other.cpu_ns);
        for (sum, n) in self.slices.iter_mut().zip(other.slices) {
            *sum += n;
        }
        for ((_, sum), (_, histogram)) in self.histograms.iter_mut().zip(other.histograms) {
            // Histograms of equal bounds always add up.
            sum.add(&histogram).expect("histograms of one shape");
        }
        let both = self.seconds.len().min(other.seconds.len());
        let mut seconds = other.seconds.into_iter();
        for (sum, second) in self.seconds.iter_mut().zip(seconds.by_ref().take(both)) {
            sum.merge(second);
        }
        self.seconds.extend(seconds);
        if let (Some(sum), Some(other)) = (&mut self.open_loop, &other.open_loop) {
            sum.merge(other);
        }
        self.faults.merge(other.faults);
    }
}

impl PhaseResult {
    /// Adds what the same connections brought in a later phase. Only the first may be empty.
    pub fn then(&mut self, next: Self) {
        if self.phases == 0 {
            let faults = std::mem::take(&mut self.faults);
            *self = next;
            return self.faults.merge(faults);
        }
        if self.phases == 1 {
            self.slices = vec![self.total];
        }
        self.slices.push(next.total);
        self.phases += next.phases;
        self.total += next.total;
        self.sent += next.sent;
        self.cpu_ns += next.cpu_ns;
        for ((_, sum), (_, histogram)) in self.histograms.iter_mut().zip(next.histograms) {
            sum.add(&histogram).expect("histograms of one shape");
        }
        // Phases of less than a second are parts of one.
        let begun = self.window_ns < self.seconds.len() as u64 * SECOND;
        let mut seconds = next.seconds.into_iter();
        if let (true, Some(last)) = (begun, self.seconds.last_mut()) {
            seconds.by_ref().take(1).for_each(|second| last.merge(second));
        }
        self.seconds.extend(seconds);
        if let (Some(sum), Some(next_loop)) = (&mut self.open_loop, &next.open_loop) {
            sum.then(next_loop, [self.window_ns, next.window_ns]);
        }
        self.cut |= next.cut;
        self.window_ns += next.window_ns;
        self.busy_ns += next.busy_ns;
        self.faults.merge(next.faults);
    }
}

/// What became of the messages that an open loop's schedule held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OpenLoop {
    /// Messages in the schedule.
    pub scheduled: u64,
    /// Messages sent, in time or late.
    pub sent: u64,
    /// Messages not sent by the end of the window.
    pub unsent: u64,
    /// Messages that had to wait for a connection with room; they are among the sent.
    pub queued: u64,
    /// Messages sent beyond the depth because no connection had room; they are among the sent.
    pub pipelined: u64,
    /// Messages not sent because no connection had room.
    pub dropped: u64,
    /// Messages sent for each second, until the end of the window or, if it was later, until the
    /// last of them was sent.
    pub sent_per_second: f64,
}

impl OpenLoop {
    /// Adds what another thread has sent in the same window.
    pub fn merge(&mut self, other: &Self) {
        self.add(other);
        self.sent_per_second += other.sent_per_second;
    }

    /// Adds what the same threads have sent in a later window; `ns` is how long each of the two
    /// lasted.
    fn then(&mut self, next: &Self, ns: [u64; 2]) {
        self.add(next);
        let [own, other] = ns.map(|ns| ns as f64);
        let sent = self.sent_per_second * own + next.sent_per_second * other;
        self.sent_per_second = sent / (own + other).max(1.0);
    }

    fn add(&mut self, other: &Self) {
        self.scheduled += other.scheduled;
        self.sent += other.sent;
        self.unsent += other.unsent;
        self.queued += other.queued;
        self.pipelined += other.pipelined;
        self.dropped += other.dropped;
    }
}

/// One second of a phase, so that a stall is seen, and runs can be merged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Second {
    /// Messages checked in it.
    pub messages: u64,
    /// For each of the phase's histograms, in their order, the values recorded in this second
    /// (ns, the upper end of their class, ascending) with their counts.
    pub counts: Vec<Vec<(u64, u64)>>,
}

impl Second {
    /// 99th percentile of the `n`th histogram's values (ns); `None` where nothing was recorded.
    pub(crate) fn p99(&self, n: usize) -> Option<u64> {
        let counts = self.counts.get(n)?;
        let all: u64 = counts.iter().map(|(_, count)| count).sum();
        let mut above = all / 100;
        let value = counts.iter().rev().find(|(_, count)| match above.checked_sub(*count) {
            Some(left) => {
                above = left;
                false
            }
            None => true,
        });
        value.map(|(value, _)| *value)
    }

    /// The values of the `n`th histogram (ns) in full.
    pub(crate) fn histogram(&self, n: usize) -> Histogram<u64> {
        let mut sum = histogram();
        for &(value, count) in self.counts.get(n).into_iter().flatten() {
            sum.saturating_record_n(value, count);
        }
        sum
    }

    /// Adds the same second of another thread.
    pub(crate) fn merge(&mut self, other: Self) {
        self.messages += other.messages;
        for (sum, counts) in self.counts.iter_mut().zip(other.counts) {
            sum.extend(counts);
            sum.sort_unstable();
            sum.dedup_by(|next, kept| {
                let same = next.0 == kept.0;
                kept.1 += if same { next.1 } else { 0 };
                same
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_of_threads_add_up() {
        let mut one = Second { messages: 3, counts: vec![vec![(10, 1), (30, 2)]] };
        one.merge(Second { messages: 5, counts: vec![vec![(10, 1), (20, 1), (30, 3)]] });
        assert_eq!(one, Second { messages: 8, counts: vec![vec![(10, 2), (20, 1), (30, 5)]] });
    }

    #[test]
    fn the_turns_of_an_open_loop_add_up() {
        let turn = |sent: u64, ns: u64| PhaseResult {
            phases: 1,
            window_ns: ns,
            open_loop: Some(OpenLoop {
                scheduled: sent + 1,
                sent,
                unsent: 1,
                sent_per_second: sent as f64 * 1e9 / ns as f64,
                ..OpenLoop::default()
            }),
            ..PhaseResult::default()
        };
        let mut sum = PhaseResult::default();
        for (sent, ns) in [(300, SECOND / 10), (0, SECOND / 10), (200, 3 * SECOND / 10)] {
            sum.then(turn(sent, ns));
        }
        let counts = sum.open_loop.unwrap();
        assert_eq!((counts.scheduled, counts.sent, counts.unsent), (503, 500, 3));
        assert!((counts.sent_per_second - 1000.0).abs() < 1e-6, "{counts:?}");
    }

    #[test]
    fn a_second_has_the_percentile_of_its_histogram() {
        for slow in [0, 1, 9, 10, 11, 500] {
            let mut histogram = histogram();
            histogram.record_n(100, 1000 - slow).unwrap();
            histogram.record_n(900, slow).unwrap();
            let counts = [(100, 1000 - slow), (900, slow)].into_iter().filter(|(_, n)| *n > 0);
            let second = Second { messages: 1000, counts: vec![counts.collect(), Vec::new()] };
            assert_eq!(second.p99(0), Some(histogram.value_at_quantile(0.99)), "{slow}");
            assert_eq!((second.p99(1), second.p99(2)), (None, None));
        }
    }
}
