//! Nothing is allocated per message: a phase of four times as many allocates as often.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test, as it should")]

mod common;

use std::alloc::System;
use std::time::Duration;

use loadgen::drive::{Phase, Plan, Team};
use loadgen::workload::{Changes, Workload};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What a phase may allocate whatever it does: its histograms, those of each second, its report,
/// the command for it.
const A_PHASE: usize = 200;

/// Allocations and messages of a phase. The server is a thread of this process and counts too.
fn phase(team: &mut Team, duration: Duration) -> (usize, u64) {
    let region = Region::new(ALLOCATOR);
    let load = Phase::Load { duration, record: true };
    let result = team.run(load, &mut |_| Ok(())).unwrap();
    let change = region.change();
    assert!(result.faults.is_empty(), "{:?}", result.faults);
    (change.allocations + change.reallocations, result.total)
}

// One test for all: the counter belongs to the whole process.
#[test]
fn nothing_is_allocated_per_message() {
    // More than these servers can answer: what is waiting takes no memory either.
    let rate = Some(100_000.0);
    for (addr, name, changes) in [
        (
            common::echo(common::Wrong::Nothing),
            "pipelined",
            Changes { connections: Some(8), ..Changes::default() },
        ),
        (
            common::chat(common::Wrong::Nothing),
            "fan-out",
            Changes { members: Some(8), ..Changes::default() },
        ),
        (
            common::echo(common::Wrong::Nothing),
            "open-loop",
            Changes { connections: Some(8), depth: Some(16), rate, ..Changes::default() },
        ),
        (
            common::chat(common::Wrong::Nothing),
            "fan-out",
            Changes { members: Some(8), rate, ..Changes::default() },
        ),
    ] {
        let nothing = Duration::ZERO;
        let workload = Workload::find(name, &changes, Duration::from_secs(1), nothing).unwrap();
        let stall = Duration::from_secs(5);
        let plan = Plan {
            addr,
            workload: &workload,
            threads: 1,
            seed: 1,
            stall,
            spins: false,
            password: None,
        };
        let mut team = Team::start(&plan).unwrap();
        team.opened(&mut |_| Ok(())).unwrap();
        phase(&mut team, Duration::from_millis(100));
        // How long a phase must be for so many messages is the machine's affair.
        let (mut duration, mut messages) = (Duration::from_millis(200), 0);
        for enough in [2_000, 8_000] {
            while messages < enough {
                let allocations;
                (allocations, messages) = phase(&mut team, duration);
                assert!(allocations < A_PHASE, "{name}: {allocations} for {messages} messages");
                duration *= 2;
            }
            messages = 0;
        }
    }
}
