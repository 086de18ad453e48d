//! The event loops that talk to a server.
//!
//! A run is a sequence of phases. Each begins and ends with nothing in flight, so that the cost of
//! a phase can be read from the server while it is idle, and belongs to exactly the messages that
//! the phase counted.
//!
//! **Lives here:** the generator's threads, their connections, when each line is sent, what is
//! sent, the check of every byte that comes back, and the times of answers.
//!
//! **May use:** `base`, `workload`.
//!
//! **Must not know:** what a server is beyond its address, what it costs, and what its numbers are
//! worth.

mod check;
mod churn;
mod connect;
mod disturb;
mod echo;
mod fanout;
mod faults;
mod latency;
mod ledger;
mod line;
mod member;
mod offline;
mod open;
mod pacer;
mod payload;
mod phase;
mod poller;
mod schedule;
mod shared;
mod team;
mod window;

use std::time::Duration;

use anyhow::Result;

use poller::Poller;

pub use disturb::{Disturbers, Fate};
pub use faults::{Fault, FaultLog, FaultyOpening};
pub use latency::{Latency, histogram};
pub use offline::OfflineEcho;
pub use phase::{OpenLoop, Phase, PhaseResult, Second};
pub use shared::{Seen, Shared};
pub use team::{Plan, Team};

/// Connections opened, and greeted, before the next ones are tried; below any usual backlog.
const BATCH: usize = 128;
/// How long a loop sleeps at most before it looks whether it should stop.
const NAP: Duration = Duration::from_millis(50);
/// Size of the one receive buffer of a loop, in bytes.
const RECEIVE: usize = 256 * 1024;

/// A thread's connections and how it drives them.
trait Driver {
    /// Opens every connection and makes it ready for the first phase.
    fn open(&mut self, shared: &Shared) -> Result<()>;
    /// Runs one phase to its end.
    fn run(&mut self, phase: Phase, shared: &Shared) -> Result<PhaseResult>;
}
