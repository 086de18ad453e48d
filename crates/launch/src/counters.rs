//! What a server counts.

use std::fmt::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use protocol::{Due, SENDQ_EXCEEDED};
use serde_json::{Map, Value};

/// A number that only grows. Reading it from another thread tells a recent value.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
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
    /// Connections of a model of several processes that have ended.
    pub ended: Counter,
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
    /// Wrong passwords.
    pub wrong_passwords: Counter,
    /// Times that files were read anew.
    pub reloads: Counter,
    /// What grows and shrinks, in one place for all workers ([`Tally::gauges`]).
    pub(crate) gauges: Gauges,
}

/// What holds now: numbers that grow and shrink. Each change is small beside what led to it, so all
/// workers share them.
#[derive(Default)]
pub(crate) struct Gauges {
    /// Members that have registered.
    pub(crate) members: Gauge,
    /// Bytes that wait for clients to take them.
    pub(crate) queue_bytes: Gauge,
    /// Clients for whom more waits than a quarter of `--sendq`.
    pub(crate) slow_members: Gauge,
}

/// A number that grows and shrinks.
#[derive(Default)]
pub(crate) struct Gauge(AtomicU64);

impl Gauge {
    pub(crate) fn change(&self, before: u64, now: u64) {
        self.0.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    /// Counts what a deadline ends, if it ends something.
    pub fn expired(&self, due: Due) {
        match due {
            Due::Cut(SENDQ_EXCEEDED) => self.slow_cut.add(1),
            Due::Cut(_) | Due::Close => self.timed_out.add(1),
            Due::Later | Due::Resume | Due::Ping => {}
        }
    }
}

/// All counters of the process.
#[derive(Default)]
pub(crate) struct Tally {
    own: Vec<Counters>,
    /// Counters that several processes share, instead of those.
    shared: OnceLock<&'static [Counters]>,
}

impl Tally {
    pub(crate) fn new(workers: usize) -> Tally {
        let own = (0..workers).map(|_| Counters::default()).collect();
        Tally { own, shared: OnceLock::new() }
    }

    pub(crate) fn share(&self, counters: &'static [Counters]) {
        self.shared.get_or_init(|| counters);
    }

    pub(crate) fn are_shared(&self) -> bool {
        self.shared.get().is_some()
    }

    pub(crate) fn all(&self) -> &[Counters] {
        self.shared.get().copied().unwrap_or(&self.own)
    }

    /// Those of the last worker are those of all.
    pub(crate) fn gauges(&self) -> Option<&Gauges> {
        self.all().last().map(|counters| &counters.gauges)
    }

    pub(crate) fn sum(&self, field: Field) -> u64 {
        self.all().iter().map(|worker| field(worker).get()).sum()
    }
}

type Field = fn(&Counters) -> &Counter;

/// A counter that is told: its name, what it counts, and where it is.
type Told = (&'static str, &'static str, Field);

const TOLD: [Told; 12] = [
    ("accepts", "Connections accepted, those refused included.", |c| &c.accepts),
    ("refused", "Connections told that there is no place for them.", |c| &c.refused),
    ("lines", "Lines handled.", |c| &c.lines),
    ("bytes_in", "Bytes read.", |c| &c.bytes_in),
    ("bytes_out", "Bytes written.", |c| &c.bytes_out),
    ("wakeups", "Times that the wait of the model returned.", |c| &c.wakeups),
    ("would_blocks", "Reads and writes that would have blocked.", |c| &c.would_blocks),
    ("overflows", "Times that a queue of the kernel was full.", |c| &c.overflows),
    ("slow_cut", "Members cut because they read too slowly.", |c| &c.slow_cut),
    ("timed_out", "Connections closed by any other deadline.", |c| &c.timed_out),
    ("wrong_passwords", "Wrong passwords.", |c| &c.wrong_passwords),
    ("reloads", "Times that files were read anew.", |c| &c.reloads),
];

/// Errors, by what failed.
const ERRORS: [(&str, Field); 4] = [
    ("accept", |c| &c.accept_errors),
    ("shortage", |c| &c.shortages),
    ("read", |c| &c.read_errors),
    ("write", |c| &c.write_errors),
];

/// A gauge that is told.
type ToldNow = (&'static str, &'static str, fn(&Gauges) -> &Gauge);

const TOLD_NOW: [ToldNow; 3] = [
    ("members", "Members that have registered.", |g| &g.members),
    ("queue_bytes", "Bytes that wait for clients to take them.", |g| &g.queue_bytes),
    ("slow_members", "Clients for whom more than a quarter of --sendq waits.", |g| &g.slow_members),
];

/// What holds at this moment, beside the gauges.
pub(crate) struct Now {
    /// Connections that are there.
    pub(crate) connections: u64,
    /// Since the start.
    pub(crate) uptime: Duration,
}

/// The sum over all workers.
pub(crate) fn total(tally: &Tally, now: &Now) -> Value {
    let told = TOLD.iter().map(|(name, _, field)| (*name, tally.sum(*field)));
    let told = told.chain([("connections", now.connections), ("uptime_s", now.uptime.as_secs())]);
    let gauges = tally.gauges();
    let gauges = TOLD_NOW.iter().map(|(name, _, of)| (*name, gauges.map_or(0, |g| of(g).get())));
    let mut total: Map<String, Value> =
        told.chain(gauges).map(|(name, value)| (name.to_owned(), value.into())).collect();
    let errors = ERRORS.iter().map(|(name, field)| ((*name).to_owned(), tally.sum(*field)));
    total.insert("errors".to_owned(), errors.collect());
    Value::Object(total)
}

/// The same in the text format of OpenMetrics 1.0.
pub(crate) fn open_metrics(tally: &Tally, now: &Now) -> String {
    let mut text = String::new();
    let mut describe = |name: &str, kind: &str, help: &str, samples: &str| {
        // To write to a string does not fail.
        let _ =
            write!(text, "# TYPE iomodels_{name} {kind}\n# HELP iomodels_{name} {help}\n{samples}");
    };
    for (name, help, field) in TOLD {
        let sample = format!("iomodels_{name}_total {}\n", tally.sum(field));
        describe(name, "counter", help, &sample);
    }
    let errors = ERRORS.iter().map(|(kind, field)| {
        format!("iomodels_errors_total{{kind=\"{kind}\"}} {}\n", tally.sum(*field))
    });
    describe("errors", "counter", "Errors, by what failed.", &errors.collect::<String>());
    let sample = format!("iomodels_connections {}\n", now.connections);
    describe("connections", "gauge", "Connections that are there.", &sample);
    for (name, help, of) in TOLD_NOW {
        let value = tally.gauges().map_or(0, |gauges| of(gauges).get());
        describe(name, "gauge", help, &format!("iomodels_{name} {value}\n"));
    }
    let sample = format!("iomodels_uptime_seconds {}\n", now.uptime.as_secs_f64());
    describe("uptime_seconds", "gauge", "Time since the start.", &sample);
    text.push_str("# EOF\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_workers_are_summed_up_in_both_formats() {
        let tally = Tally::new(2);
        let workers = tally.all();
        workers[0].lines.add(3);
        workers[1].lines.add(4);
        workers[1].read_errors.add(2);
        let gauges = tally.gauges().expect("there are workers");
        gauges.queue_bytes.change(0, 900);
        gauges.queue_bytes.change(900, 20);
        let now = Now { connections: 5, uptime: Duration::from_millis(1500) };
        let total = total(&tally, &now);
        assert_eq!((&total["lines"], &total["errors"]["read"]), (&7.into(), &2.into()));
        assert_eq!((&total["connections"], &total["uptime_s"]), (&5.into(), &1.into()));
        let text = open_metrics(&tally, &now);
        for line in [
            "# TYPE iomodels_lines counter",
            "iomodels_lines_total 7",
            "iomodels_errors_total{kind=\"read\"} 2",
            "iomodels_connections 5",
            "iomodels_uptime_seconds 1.5",
            "# TYPE iomodels_queue_bytes gauge",
            "iomodels_queue_bytes 20",
            "iomodels_slow_members 0",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} in {text}");
        }
        assert!(text.ends_with("\n# EOF\n"));
    }
}
