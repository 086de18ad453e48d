//! The event loops that talk to a server, and what they share: phases, the poller, the threads.
//!
//! A run is a sequence of phases. Each begins and ends with nothing in flight, so that the cost of
//! a phase can be read from the server while it is idle, and belongs to exactly the messages that
//! the phase counted.

mod churn;
mod connect;
mod disturb;
mod echo;
mod fanout;
mod ledger;
mod line;
mod open;
mod pacer;
mod schedule;
mod team;
mod window;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::fd::{AsFd, OwnedFd};
use rustix::time::Timespec;

use crate::check::FaultLog;
use crate::pacing::OpenLoop;

pub use connect::Shortage;
pub use disturb::{Disturbance, Disturbers, Fate};
pub use team::{Plan, Team};

/// Connections opened, and greeted, before the next ones are tried; below any usual backlog.
const BATCH: usize = 128;
/// How long a loop sleeps at most before it looks whether it should stop.
const NAP: Duration = Duration::from_millis(50);
/// Events taken in one go.
const EVENTS: usize = 1024;
/// The index of a timer's events.
const TIMER: usize = usize::MAX;
/// Size of the one receive buffer of a loop, in bytes.
const RECEIVE: usize = 256 * 1024;

/// What the threads of a run and the thread that watches them tell each other.
#[derive(Debug, Default)]
pub struct Shared {
    /// Set to end the current phase early.
    pub stop: AtomicBool,
    /// Messages checked so far, for the progress line; written once per batch of events.
    pub messages: AtomicU64,
    /// The last finished second and its latency, in one number that grows from second to second:
    /// the second's number above [`LATENCY_BITS`], nanoseconds below; 0 before the first has ended.
    recent: AtomicU64,
}

/// Bits of a latency in [`Shared::recent`]: 18 minutes, where a histogram ends at 100 s.
const LATENCY_BITS: u32 = 40;

/// How far a phase is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Messages checked so far.
    pub messages: u64,
    /// 99th percentile of the latency in the last finished second, on the thread where it was the
    /// highest; `None` before the first has ended, and where nothing was recorded in it.
    pub p99: Option<Duration>,
}

impl Shared {
    /// A phase begins.
    fn begin(&self) {
        self.messages.store(0, Relaxed);
        self.recent.store(0, Relaxed);
    }

    /// A thread has finished second `n` of a phase, counted from 1, with this latency (ns); 0 if
    /// nothing was recorded in it.
    fn finished(&self, n: u64, p99: u64) {
        let p99 = p99.min((1 << LATENCY_BITS) - 1);
        self.recent.fetch_max(n << LATENCY_BITS | p99, Relaxed);
    }

    fn seen(&self) -> Seen {
        let p99 = self.recent.load(Relaxed) & ((1 << LATENCY_BITS) - 1);
        let p99 = (p99 > 0).then_some(Duration::from_nanos(p99));
        Seen { messages: self.messages.load(Relaxed), p99 }
    }
}

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
    fn duration(self) -> Duration {
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
        let begun = self.window_ns < self.seconds.len() as u64 * window::SECOND;
        let mut seconds = next.seconds.into_iter();
        if let (true, Some(last)) = (begun, self.seconds.last_mut()) {
            seconds.by_ref().take(1).for_each(|second| last.merge(second));
        }
        self.seconds.extend(seconds);
        self.window_ns += next.window_ns;
        self.busy_ns += next.busy_ns;
        self.faults.merge(next.faults);
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

/// A histogram from 1 ns to 100 s at 3 significant digits; later values count as 100 s.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 100_000_000_000, 3).expect("constant bounds are valid")
}

/// A thread's connections and how it drives them.
trait Driver {
    /// Opens every connection and makes it ready for the first phase.
    fn open(&mut self, shared: &Shared) -> Result<()>;
    /// Runs one phase to its end.
    fn run(&mut self, phase: Phase, shared: &Shared) -> Result<PhaseResult>;
}

/// An epoll instance and room for its events.
struct Poller {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Poller {
    fn new() -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, events: Vec::with_capacity(EVENTS) })
    }

    /// Registers a descriptor for reading; level-triggered, once and for all.
    fn add(&self, fd: impl AsFd, index: usize) -> Result<()> {
        self.ctl(fd, index, epoll::EventFlags::IN, true)
    }

    /// Registers a timer, whose expiry wakes the next wait once and needs no read.
    fn add_timer(&self, fd: impl AsFd) -> Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        self.ctl(fd, TIMER, flags, true)
    }

    /// Asks for writability as well, or no longer; only a full socket buffer leads here.
    fn want_out(&self, fd: impl AsFd, index: usize, wanted: bool) -> Result<()> {
        let flags = if wanted {
            epoll::EventFlags::IN | epoll::EventFlags::OUT
        } else {
            epoll::EventFlags::IN
        };
        self.ctl(fd, index, flags, false)
    }

    fn ctl(&self, fd: impl AsFd, index: usize, flags: epoll::EventFlags, add: bool) -> Result<()> {
        let data = epoll::EventData::new_u64(index as u64);
        let done = if add {
            epoll::add(&self.epoll, fd, data, flags)
        } else {
            epoll::modify(&self.epoll, fd, data, flags)
        };
        Ok(done?)
    }

    /// No more events of this descriptor, which stays open.
    fn delete(&self, fd: impl AsFd) -> Result<()> {
        Ok(epoll::delete(&self.epoll, fd)?)
    }

    /// Waits for events, `timeout` at most. Interrupted or timed out, there are none.
    fn wait(&mut self, timeout: Duration) -> Result<usize> {
        let timeout = Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: i64::from(timeout.subsec_nanos()),
        };
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&timeout)) {
            Ok(n) => Ok(n),
            Err(rustix::io::Errno::INTR) => Ok(0),
            Err(e) => Err(e.into()),
        }
    }

    /// The index and the readiness of the `n`th event of the last wait.
    fn event(&self, n: usize) -> (usize, epoll::EventFlags) {
        let event = self.events[n];
        (event.data.u64() as usize, event.flags)
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

    #[test]
    fn the_latest_second_of_the_slowest_thread_is_seen() {
        let shared = Shared::default();
        assert_eq!(shared.seen(), Seen::default());
        let p99 = |shared: &Shared| shared.seen().p99.map(|p99| p99.as_nanos());
        for (n, own, seen) in [(1, 500, 500), (1, 700, 700), (1, 600, 700), (2, 40, 40), (1, 9, 40)]
        {
            shared.finished(n, own);
            assert_eq!(p99(&shared), Some(seen));
        }
        shared.finished(3, 0);
        assert_eq!(p99(&shared), None, "a stall");
        shared.finished(3, 7);
        shared.begin();
        assert_eq!(p99(&shared), None);
    }
}
