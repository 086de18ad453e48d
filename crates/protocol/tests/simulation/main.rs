//! The whole core of a server under one seed: workers with their [`Connections`], the hub that they
//! share, sessions and queues, on a kernel that is simulated too.
//!
//! The kernel here does all that a real one may do: it delivers bytes in any split, takes writes in
//! any size, reports readiness late, in vain and in any order, fails calls, and lets peers die at
//! any point. Time is the simulation's own. A seed makes a world (echo or chat, readiness or
//! completions, one to three workers, its limits), and then one step after another.
//!
//! What must hold is checked at every step: every byte and every message comes exactly once and in
//! order, and no queue passes its bound. From time to time the world is left alone, with every peer
//! reading: then all that can go on must go on, only by the wake-ups that the core has asked for.
//! A lost wake-up shows as a message that never comes.
//!
//! ```text
//! cargo test -p protocol --test simulation                                a second or two
//! SIMULATION_STEPS=1000000000 cargo test --release -p protocol --test simulation -- --nocapture
//! SIMULATION_WORLD=SEED cargo test -p protocol --test simulation          that world alone
//! ```
//!
//! A world that fails is shrunk: steps are left out for as long as it still fails, and those that
//! remain are printed.

mod client;
mod kernel;
mod random;
mod worker;
mod world;

use std::env;
use std::fmt::Write;
use std::panic::{self, AssertUnwindSafe};
use std::time::Instant;

use crate::world::World;

/// Steps of one world. Faults that need more than that to show are found by other tests.
const STEPS: u64 = 1_500;
/// Worlds that have failed once. In 226330 a worker with completions stood still for longer than a
/// member may be slow, and cut one that reads.
const FOUND: [u64; 1] = [226_330];
/// Steps of a plain run.
const USUAL: u64 = 1_500_000;

#[test]
fn a_world_goes_on_and_loses_nothing() {
    // Debug assertions panic as any other fault does; each is caught, shrunk and printed.
    panic::set_hook(Box::new(|_| {}));
    if let Some(seed) = number("SIMULATION_WORLD") {
        try_world(seed);
        return;
    }
    let (steps, started) = (number("SIMULATION_STEPS").unwrap_or(USUAL), Instant::now());
    let first = number("SIMULATION_SEED").unwrap_or(1);
    let worlds = steps.div_ceil(STEPS);
    let mut calls = 0;
    for seed in FOUND.into_iter().chain(first..first + worlds) {
        calls += try_world(seed);
    }
    let seconds = started.elapsed().as_secs_f64();
    let _ = panic::take_hook();
    println!(
        "{worlds} worlds of {STEPS} steps, {calls} calls of the core, {:.0} steps a second",
        (worlds * STEPS) as f64 / seconds
    );
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// Runs one world. If it fails, shrinks it and says how.
#[track_caller]
fn try_world(seed: u64) -> u64 {
    let all: Vec<u64> = (0..STEPS).collect();
    match run(seed, &all, None) {
        Ok(calls) => calls,
        Err(reason) => {
            let steps = shrink(seed, all);
            let mut course = String::new();
            let last = run(seed, &steps, Some(&mut course)).err().unwrap_or(reason);
            let _ = panic::take_hook();
            panic!(
                "world {seed} fails after {} of {STEPS} steps:\n{course}{last}\n\
                 to repeat it: SIMULATION_WORLD={seed}",
                steps.len()
            );
        }
    }
}

/// Runs the steps with these numbers, then leaves the world alone until all is quiet, and ends it.
/// Returns how many calls of the core that took, or what was wrong.
fn run(seed: u64, steps: &[u64], mut course: Option<&mut String>) -> Result<u64, String> {
    let mut world = World::new(seed);
    if let Some(course) = &mut course {
        let _ = writeln!(course, "  {}", world.describe());
    }
    let result = panic::catch_unwind(AssertUnwindSafe(|| {
        for &step in steps {
            world.step(step, course.as_deref_mut());
        }
        world.end(course.as_deref_mut());
    }));
    match result {
        Ok(()) => Ok(world.calls()),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
            Err(text.unwrap_or_else(|| "a panic without a word".to_owned()))
        }
    }
}

/// Leaves out as many steps as can be left out of a world that fails: halves, quarters, and so on
/// (Zeller and Hildebrandt's delta debugging).
fn shrink(seed: u64, mut steps: Vec<u64>) -> Vec<u64> {
    let mut size = steps.len() / 2;
    while size > 0 {
        let mut at = 0;
        while at < steps.len() {
            let mut fewer = steps.clone();
            fewer.drain(at..(at + size).min(fewer.len()));
            if run(seed, &fewer, None).is_err() {
                steps = fewer;
            } else {
                at += size;
            }
        }
        size /= 2;
    }
    steps
}
