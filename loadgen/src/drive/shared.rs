//! What the threads of a run and the thread that watches them tell each other.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

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
    /// The phase that runs ends now, and what is in flight is waited for only shortly.
    pub(crate) fn cut(&self) {
        self.stop.store(true, Relaxed);
    }

    /// A phase begins.
    pub(super) fn begin(&self) {
        self.messages.store(0, Relaxed);
        self.recent.store(0, Relaxed);
    }

    /// A thread has finished second `n` of a phase, counted from 1, with this latency (ns); 0 if
    /// nothing was recorded in it.
    pub(super) fn finished(&self, n: u64, p99: u64) {
        let p99 = p99.min((1 << LATENCY_BITS) - 1);
        self.recent.fetch_max(n << LATENCY_BITS | p99, Relaxed);
    }

    pub(super) fn seen(&self) -> Seen {
        let p99 = self.recent.load(Relaxed) & ((1 << LATENCY_BITS) - 1);
        let p99 = (p99 > 0).then_some(Duration::from_nanos(p99));
        Seen { messages: self.messages.load(Relaxed), p99 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
