//! What is known of a run while it goes on, for a thread that tells it to others.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crate::drive::Seen;

/// The numbers that are shared. They are written several times a second by the thread that watches
/// a run, and never by those that drive the server.
#[derive(Debug, Default)]
pub struct Gauges(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    now: Now,
    /// Messages of the phase that goes on, of which `now` has all.
    phase: u64,
}

/// The numbers at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Now {
    /// What is done at present.
    pub step: String,
    /// Messages checked since the beginning, those of the warm-up included.
    pub messages: u64,
    /// For how long the phase has gone on that goes on now.
    pub elapsed: Duration,
    /// 99th percentile of the latency in the last finished second, on the thread where it was the
    /// highest.
    pub p99: Option<Duration>,
    /// How long it will still go on, if that is known.
    pub left: Option<Duration>,
}

impl Gauges {
    /// A copy of all.
    pub fn now(&self) -> Now {
        self.state().now.clone()
    }

    pub(super) fn step(&self, step: &str) {
        step.clone_into(&mut self.state().now.step);
    }

    pub(super) fn look(&self, seen: Seen, elapsed: Duration, left: Option<Duration>) {
        let mut state = self.state();
        // A phase that begins counts from nothing.
        let begun = seen.messages < state.phase || elapsed < state.now.elapsed;
        let before = if begun { 0 } else { state.phase };
        state.phase = seen.messages;
        let now = &mut state.now;
        now.messages += seen.messages.saturating_sub(before);
        (now.elapsed, now.left, now.p99) = (elapsed, left, seen.p99);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_all_phases_add_up() {
        let gauges = Gauges::default();
        let ms = Duration::from_millis;
        for (messages, elapsed) in [(0, 1), (10, 200), (30, 400), (5, 200), (6, 400), (50, 200)] {
            let seen = Seen { messages, p99: None };
            gauges.look(seen, ms(elapsed), Some(ms(7)));
        }
        let now = gauges.now();
        assert_eq!((now.messages, now.left), (30 + 6 + 50, Some(ms(7))));
        assert_eq!(now.elapsed, ms(200));
    }
}
