//! How far an agent's clock is from the conductor's, measured by round trips.
//!
//! The agent says when the question came, by its clock. It came between its sending and the arrival
//! of the answer, so the quickest of several round trips bounds the difference best.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use super::bus::Bus;
use super::words;
use crate::base::text::time;

/// Round trips of which the quickest counts.
const TRIPS: u32 = 20;
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How well the instant at which windows begin must be known.
const KNOWN: Duration = Duration::from_millis(5);
/// By how much clocks may go apart during a run beside what is not known of them.
const DRIFT: Duration = Duration::from_millis(1);

/// How far a clock is ahead of the conductor's, and how well that is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Reading {
    /// Nanoseconds that it is ahead.
    pub(super) ahead: i64,
    /// At most so many nanoseconds more or less.
    pub(super) within: u64,
}

/// Nanoseconds since 1970.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_nanos() as u64
}

/// Reads the clock of an agent.
pub(super) fn read(bus: &Bus, agent: &str) -> Result<Reading> {
    let mut best: Option<Reading> = None;
    for _ in 0..TRIPS {
        let mut sent = 0;
        let question = || {
            sent = now();
            Vec::new()
        };
        let answer = bus.ask(words::clock(agent), question, PATIENCE)?;
        let back = now();
        let theirs = std::str::from_utf8(&answer)?.parse().context("no time")?;
        let reading = reading(sent, theirs, back);
        if best.is_none_or(|best| reading.within < best.within) {
            best = Some(reading);
        }
    }
    best.context("its clock was not read")
}

/// What one round trip tells.
fn reading(sent: u64, theirs: u64, back: u64) -> Reading {
    let within = back.saturating_sub(sent) / 2;
    Reading { ahead: theirs.wrapping_sub(sent + within) as i64, within }
}

/// What speaks against a run whose agent's clock was read before it and after it.
pub(super) fn doubt(before: Reading, after: Option<Reading>) -> Option<String> {
    let told = |ns: u64| time(ns as f64);
    if before.within > KNOWN.as_nanos() as u64 {
        return Some(format!(
            "its clock could be read to {} only, so its window may have begun as much too early or \
             too late",
            told(before.within)
        ));
    }
    let after = after?;
    let moved = after.ahead.abs_diff(before.ahead);
    let known = before.within + after.within + DRIFT.as_nanos() as u64;
    (moved > known).then(|| {
        format!("its clock was set, or went wrong, by {} against the conductor's", told(moved))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_trip_bounds_the_difference() {
        let clock = reading(1_000, 5_900, 2_000);
        assert_eq!(clock, Reading { ahead: 4_400, within: 500 });
        let behind = reading(10_000, 2_000, 10_200);
        assert_eq!(behind, Reading { ahead: -8_100, within: 100 });
    }

    #[test]
    fn clocks_that_are_known_and_steady_are_no_doubt() {
        let at = |ahead, within| Reading { ahead, within };
        assert_eq!(doubt(at(3_600_000_000_000, 200_000), Some(at(3_600_000_500_000, 9))), None);
        assert_eq!(doubt(at(0, 200_000), None), None);
        let slow = doubt(at(0, 8_000_000), None).unwrap();
        assert!(slow.contains("read to 8.00 ms only"), "{slow}");
        let set = doubt(at(0, 1_000), Some(at(-2_000_000_000, 1_000))).unwrap();
        assert!(set.contains("was set, or went wrong, by 2.00 s"), "{set}");
    }
}
