//! What the machine did to a run meanwhile: other guests, other programs, slow processors, a clock
//! that was set.

use std::time::{Duration, Instant, SystemTime};

use super::Settings;
use super::rivals::Rivals;

/// Part of the processors' time above which steal time makes the numbers doubtful.
pub(crate) const STOLEN: f64 = 0.01;
/// Part of the time that the processors may be slow before the numbers are doubtful.
pub(crate) const SLOW: f64 = 0.01;
/// Part of the processors' time that other programs may take before the numbers are doubtful.
pub(crate) const TAKEN: f64 = 0.01;

/// What the machine did to a run, between two moments.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Interference {
    /// Part of the time of the processors in use that other guests of the host took.
    pub(crate) stolen: f64,
    /// Part of it that other programs of this machine took, where the server's process is known.
    pub(crate) taken: Option<f64>,
    /// Part of the time in which the generator's processors were slow, if that was looked at.
    pub(crate) slow: Option<f64>,
    /// By how much the wall clock was set.
    pub(crate) step: Duration,
}

/// The counters that tell of it, at one moment.
pub(crate) struct Counters {
    ticks: (u64, u64),
    rivals: Option<Rivals>,
    /// Processors in use.
    cpus: usize,
    samples: (u64, u64),
    clocks: (SystemTime, Instant),
}

impl Counters {
    /// Those of the processors in use. `server` is the server's process, if that is known.
    pub(crate) fn now(settings: &Settings, server: Option<i32>) -> Self {
        let mut cpus = [&settings.server_cpus[..], &settings.generator_cpus].concat();
        cpus.sort_unstable();
        cpus.dedup();
        let all = std::thread::available_parallelism().map_or(1, |n| n.get());
        Self {
            ticks: stolen_ticks(&cpus),
            rivals: server.map(|server| Rivals::now(server, &cpus)),
            cpus: if cpus.is_empty() { all } else { cpus.len() },
            samples: settings.speed.samples(),
            clocks: (SystemTime::now(), Instant::now()),
        }
    }

    /// What has happened since `before`.
    pub(crate) fn since(&self, before: &Self) -> Interference {
        let passed = self.clocks.1 - before.clocks.1;
        // Both clocks are slewed alike; only setting moves one and not the other.
        let step = match self.clocks.0.duration_since(before.clocks.0 + passed) {
            Ok(forward) => forward,
            Err(back) => back.duration(),
        };
        let rivals = self.rivals.as_ref().zip(before.rivals.as_ref());
        let room = passed.as_nanos() as f64 * self.cpus as f64;
        Interference {
            stolen: part(self.ticks, before.ticks).unwrap_or(0.0),
            taken: rivals.map(|(now, before)| (now.since(before) as f64 / room).min(1.0)),
            slow: part(self.samples, before.samples),
            step,
        }
    }
}

/// How many of all, in the time between two counts of both.
fn part(after: (u64, u64), before: (u64, u64)) -> Option<f64> {
    let (some, all) = (after.0 - before.0, after.1 - before.1);
    (all > 0).then(|| some as f64 / all as f64)
}

/// Ticks that these processors, or if none are named all of this machine, were given to others,
/// and ticks in all.
pub(crate) fn stolen_ticks(cpus: &[usize]) -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    sum_ticks(&text, cpus)
}

fn sum_ticks(stat: &str, cpus: &[usize]) -> (u64, u64) {
    let mut sums = (0, 0);
    for line in stat.lines() {
        let mut words = line.split_whitespace();
        let Some(name) = words.next().and_then(|word| word.strip_prefix("cpu")) else { break };
        let named = name.parse().is_ok_and(|cpu| cpus.contains(&cpu));
        if named || (name.is_empty() && cpus.is_empty()) {
            // user nice system idle iowait irq softirq steal ...
            let ticks: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
            sums.0 += ticks.get(7).copied().unwrap_or(0);
            sums.1 += ticks.iter().take(8).sum::<u64>();
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steal_time_is_that_of_the_processors_in_use() {
        let stat = "cpu  9 9 9 9 9 9 9 36 0 0\ncpu0 1 1 1 1 1 1 1 3 0 0\ncpu1 1 1 1 1 1 1 1 33 0 0\n\
                    intr 99 1\n";
        assert_eq!(sum_ticks(stat, &[]), (36, 99));
        assert_eq!(sum_ticks(stat, &[0]), (3, 10));
        assert_eq!(sum_ticks(stat, &[1, 0]), (36, 50));
    }
}
