//! What a server costs, taken on its own machine while other machines drive it.
//!
//! The machine that keeps the server hears nothing of the messages. It reads the server's counters
//! at the moments that it is told of, and what it finds is of all messages together.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cost::{Snapshot, resident};
use super::machine::Counters;
use super::report::Doubt;
use super::verdict::interfered;
use super::{Cost, Measured, Settings};

/// What the messages of all generators have cost the server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Spent {
    /// The cost of all messages as if they were one; `None` if the window was not seen to begin, or
    /// the server's processes could not be read.
    pub(crate) cost: Option<Cost>,
    /// Resident memory that all connections added, in bytes.
    pub(crate) idle: Option<f64>,
    /// Part of the time in which the processors there were slow.
    pub(crate) slow: Option<f64>,
    /// Part of it that other guests of the host took.
    pub(crate) stolen: f64,
    /// Part of it that other programs took.
    pub(crate) taken: Option<f64>,
    /// What speaks against the numbers.
    pub(crate) doubts: Vec<String>,
}

/// A server that is watched while others drive it.
pub(crate) struct Beside<'a> {
    settings: &'a Settings,
    server: i32,
    empty: Option<u64>,
    full: Option<u64>,
    /// Whether the window was seen to begin. The counters are read then and not again: what the
    /// server has used by a later moment would be missing in its cost.
    warm: bool,
    before: Option<(Snapshot, Counters)>,
}

impl<'a> Beside<'a> {
    /// Nothing is connected to the server yet.
    pub(crate) fn begin(settings: &'a Settings, server: i32) -> Self {
        Self { settings, server, empty: resident(server), full: None, warm: false, before: None }
    }

    /// All connections are open, and nothing was asked yet.
    pub(crate) fn opened(&mut self) {
        if self.full.is_none() {
            self.full = resident(self.server);
        }
    }

    /// The server is warm, no message is in flight, and the window is about to begin.
    pub(crate) fn warm(&mut self) {
        if !self.warm {
            self.warm = true;
            let counters = Counters::now(self.settings, Some(self.server));
            self.before = Snapshot::take(self.server).map(|snapshot| (snapshot, counters));
        }
    }

    /// Whether the window was seen to begin.
    pub(crate) fn is_warm(&self) -> bool {
        self.warm
    }

    /// All answers have come, and the connections are still open.
    pub(crate) fn end(&self) -> Spent {
        let grown = self.full.zip(self.empty);
        let idle = grown.map(|(full, empty)| full.saturating_sub(empty) as f64);
        let Some((before, counters)) = &self.before else {
            let (slow, stolen, taken, doubts) = (None, 0.0, None, Vec::new());
            return Spent { cost: None, idle, slow, stolen, taken, doubts };
        };
        let after = Snapshot::take(self.server);
        let machine = Counters::now(self.settings, Some(self.server)).since(counters);
        let mut doubts = Vec::new();
        interfered(&machine, &mut doubts);
        Spent {
            cost: after.map(|after| after.since(before, 1)),
            idle,
            slow: machine.slow,
            stolen: machine.stolen,
            taken: machine.taken,
            doubts: doubts.iter().map(Doubt::text).map(str::to_owned).collect(),
        }
    }
}

impl Spent {
    /// Books this on the messages that were measured over so many connections, which `lasting`
    /// says are there all the time.
    pub(crate) fn book(&self, measured: &mut Measured, connections: u32, lasting: bool) {
        let each = 1.0 / measured.messages.max(1) as f64;
        measured.cost = self.cost.as_ref().map(|cost| Cost {
            cpu_ns_per_message: cost.cpu_ns_per_message * each,
            voluntary_switches_per_message: cost.voluntary_switches_per_message * each,
            involuntary_switches_per_message: cost.involuntary_switches_per_message * each,
            ..cost.clone()
        });
        let idle = self.idle.filter(|_| lasting);
        measured.idle_bytes_per_connection = idle.map(|all| all / f64::from(connections.max(1)));
        let worse = |a: Option<f64>, b: Option<f64>| a.into_iter().chain(b).max_by(f64::total_cmp);
        measured.slow_processors = worse(measured.slow_processors, self.slow);
        measured.stolen_processors = worse(measured.stolen_processors, Some(self.stolen));
        measured.taken_processors = worse(measured.taken_processors, self.taken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_seen_to_begin_has_no_cost() {
        let settings = Settings::default();
        let own = std::process::id() as i32;
        let mut beside = Beside::begin(&settings, own);
        assert_eq!(beside.end().cost, None);
        beside.opened();
        beside.warm();
        assert!(beside.is_warm());
        let mut state = 1;
        let spin = (0..20_000_000).fold(0, |sum: u64, _| {
            sum.wrapping_add(crate::base::random::splitmix(std::hint::black_box(&mut state)))
        });
        std::hint::black_box(spin);
        let spent = beside.end();
        assert!(spent.cost.unwrap().cpu_ns_per_message > 1e6);
        assert!(spent.idle.is_some());
    }
}
