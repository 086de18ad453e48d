//! What a server counts.

use std::sync::atomic::{AtomicU64, Ordering};

use protocol::{Due, SENDQ_EXCEEDED};
use serde_json::{Value, json};

/// A number that only grows. Reading it from another thread tells a recent value.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One worker's counters, on cache lines of their own.
#[derive(Default)]
#[repr(align(128))]
pub struct Counters {
    /// Connections accepted, those refused included.
    pub accepts: Counter,
    /// Connections told that there is no place for them.
    pub refused: Counter,
    /// Lines handled.
    pub lines: Counter,
    /// Bytes read.
    pub bytes_in: Counter,
    /// Bytes written.
    pub bytes_out: Counter,
    /// Times that the model's wait returned.
    pub wakeups: Counter,
    /// Reads and writes that would have blocked.
    pub would_blocks: Counter,
    /// Members cut because they read too slowly: over the hard limit, or too long over the soft.
    pub slow_cut: Counter,
    /// Connections closed by any other deadline.
    pub timed_out: Counter,
    /// Errors on accept, shortages not included.
    pub accept_errors: Counter,
    /// Times that accept found no descriptor, memory or thread to be had.
    pub shortages: Counter,
    /// Times that a queue of the kernel was full and something was not told: signals, completions.
    pub overflows: Counter,
    /// Connections that failed on reading.
    pub read_errors: Counter,
    /// Connections that failed on writing.
    pub write_errors: Counter,
}

impl Counters {
    /// Counts what a deadline ends, if it does, and hands it on.
    pub fn expired(&self, due: Due) -> Due {
        match due {
            Due::Cut(SENDQ_EXCEEDED) => self.slow_cut.add(1),
            Due::Cut(_) | Due::Close => self.timed_out.add(1),
            Due::Later | Due::Resume | Due::Ping => {}
        }
        due
    }
}

/// The sum over all workers.
pub(crate) fn total(workers: &[Counters]) -> Value {
    let sum = |field: fn(&Counters) -> &Counter| -> u64 {
        workers.iter().map(|worker| field(worker).get()).sum()
    };
    json!({
        "accepts": sum(|c| &c.accepts),
        "refused": sum(|c| &c.refused),
        "lines": sum(|c| &c.lines),
        "bytes_in": sum(|c| &c.bytes_in),
        "bytes_out": sum(|c| &c.bytes_out),
        "wakeups": sum(|c| &c.wakeups),
        "would_blocks": sum(|c| &c.would_blocks),
        "overflows": sum(|c| &c.overflows),
        "slow_cut": sum(|c| &c.slow_cut),
        "timed_out": sum(|c| &c.timed_out),
        "errors": {
            "accept": sum(|c| &c.accept_errors),
            "shortage": sum(|c| &c.shortages),
            "read": sum(|c| &c.read_errors),
            "write": sum(|c| &c.write_errors),
        },
    })
}
