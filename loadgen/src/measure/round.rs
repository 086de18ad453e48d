//! One round: several servers, all alive at once, driven in turns of a few milliseconds.
//!
//! A machine, a virtual one above all, is fast now and slow a moment later. Two servers that are
//! driven one after the other, for a second each, meet different machines; two that take turns
//! meet the same one. So a second divided into short turns tells more than a minute in long ones;
//! `docs/record/2026-11-22-calibrate` has the numbers.
//!
//! A lane that has no turn rests: nothing is in flight on its connections, and unless it has a
//! thread for each of them it is suspended, so that one that never sleeps takes nothing from the
//! others. Each round starts all servers anew: how a process happens to lie in memory is part of
//! the noise, and must not be taken for the server's own.

use std::time::Duration;

use anyhow::Result;

use super::lane::Lane;
use super::{Progress, Report, Settings};
use crate::base::exit::Interrupted;
use crate::base::limits::descriptor_limit;
use crate::target::Target;
use crate::workload::{Mode, Workload};

/// The shortest turn. Shorter ones would show mostly how cold the caches are.
const TURN: Duration = Duration::from_millis(10);
/// What a turn lasts longer for each connection, so that every one of them has several answers.
const PER_CONNECTION: Duration = Duration::from_micros(30);
/// Messages that a turn of an open loop has at least, so that the way back into the caches is no
/// great part of what they cost.
const OF_A_SCHEDULE: f64 = 50.0;
/// The highest rate of an open loop that takes turns, in messages a second. At higher rates
/// messages queue, and a queue must not end with a turn.
const MODERATE: f64 = 5000.0;
/// How many times its latency a turn lasts at least, where the server is asked to wait.
const WAITS: u32 = 20;
/// Descriptors of a generator beside those of its connections: pipes, pollers, the record.
const BESIDE: u64 = 256;
/// Those beside connections for each server.
const EACH: u64 = 8;

/// Drives every target (built already) through one workload, in this order and back, in turns as
/// far as they can take turns. Fails only when interrupted; a target that fails is reported.
pub(crate) fn round(
    targets: &[Target],
    workload: &Workload,
    settings: &Settings,
    progress: &mut Progress,
    step: &str,
) -> Result<Vec<Result<Report>>> {
    let mut reports = Vec::new();
    for together in targets.chunks(at_once(workload, descriptor_limit())) {
        let mut lanes = open(together, workload, settings, progress, step);
        if lanes.len() > 1 {
            progress.step(format!("{step}: {} servers in turns", lanes.len()));
        }
        let (turns, each) = turns(workload);
        for turn in 0..turns {
            let order: Box<dyn Iterator<Item = usize>> = match turn % 2 {
                0 => Box::new(0..lanes.len()),
                _ => Box::new((0..lanes.len()).rev()),
            };
            for n in order {
                let Ok(lane) = &mut lanes[n] else { continue };
                if let Err(e) = lane.turn(each, progress) {
                    lanes[n] = Err(e);
                } else if together.len() > 1 {
                    lane.rest();
                }
            }
        }
        reports.extend(lanes.into_iter().map(|lane| lane.and_then(Lane::close)));
        if reports.iter().any(|report| report.as_ref().is_err_and(|e| e.is::<Interrupted>())) {
            return Err(Interrupted.into());
        }
    }
    Ok(reports)
}

fn open<'a>(
    targets: &'a [Target],
    workload: &'a Workload,
    settings: &'a Settings,
    progress: &mut Progress,
    step: &str,
) -> Vec<Result<Lane<'a>>> {
    let mut lanes: Vec<Result<Lane>> = Vec::with_capacity(targets.len());
    for target in targets {
        progress.step(format!("{step}: {}", target.name));
        let mut lane = Lane::open(target, workload, settings, progress);
        if let (Ok(lane), true) = (&mut lane, targets.len() > 1) {
            lane.rest();
        }
        lanes.push(lane);
    }
    lanes
}

/// Whether a window can be divided: not that of an open loop with a queue, which goes on through
/// it, nor of churn, nor of a disturbance.
fn takes_turns(workload: &Workload) -> bool {
    let Workload { rate, churn, disturbance, .. } = workload;
    let queues = rate.is_some_and(|rate| rate > MODERATE || workload.mode == Mode::Chat);
    !queues && churn.is_none() && disturbance.is_none()
}

/// How many servers can be alive at once: as many as there are descriptors for.
fn at_once(workload: &Workload, descriptors: u64) -> usize {
    if !takes_turns(workload) {
        return 1;
    }
    let each = u64::from(workload.places()) + EACH;
    usize::try_from(descriptors.saturating_sub(BESIDE) / each).unwrap_or(usize::MAX).max(1)
}

/// How many turns each server has, and how long one lasts.
fn turns(workload: &Workload) -> (u32, Duration) {
    if !takes_turns(workload) {
        return (1, workload.duration);
    }
    let answers = PER_CONNECTION * workload.connections + workload.wait * WAITS;
    let schedule = workload.rate.map_or(0.0, |rate| OF_A_SCHEDULE / rate);
    let shortest = (TURN + answers).max(Duration::from_secs_f64(schedule));
    let turns = (workload.duration.as_secs_f64() / shortest.as_secs_f64()).max(1.0) as u32;
    (turns, workload.duration / turns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Changes;

    fn workload(name: &str, connections: u32) -> Workload {
        let changes = Changes { connections: Some(connections), ..Changes::default() };
        let second = Duration::from_secs(1);
        Workload::find(name, &changes, second, second).unwrap()
    }

    #[test]
    fn turns_fill_the_window() {
        let (turns, each) = super::turns(&workload("ping-pong", 64));
        assert!((80..=85).contains(&turns) && each * turns <= Duration::from_secs(1));
        assert!(super::turns(&workload("ping-pong", 10_000)).0 <= 4, "many answers in each");
        assert_eq!(super::turns(&workload("open-loop", 64)), (1, Duration::from_secs(1)));
        let (turns, each) = super::turns(&workload("quiet", 64));
        assert_eq!((turns, each), (120, Duration::from_millis(25)), "50 messages in each");
    }

    #[test]
    fn as_many_are_alive_as_there_are_descriptors_for() {
        assert_eq!(at_once(&workload("ping-pong", 1000), 20_000), 19);
        assert_eq!(at_once(&workload("idle", 10_000), 20_000), 1);
        assert_eq!(at_once(&workload("churn", 10), 20_000), 1);
        assert!(at_once(&workload("quiet", 64), 20_000) > 100);
        assert_eq!(at_once(&workload("ping-pong", 1000), 100), 1, "the run itself will say so");
    }
}
