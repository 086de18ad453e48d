//! How the work of a run is shared out: connections and rate add up to what was asked.

use anyhow::{Result, bail, ensure};

use crate::workload::{Mode, Workload};

/// What the `n`th of `parts` equal parts has of `all`, in whole numbers.
fn part(all: u32, n: u32, parts: u32) -> u32 {
    let before = |n: u32| (u64::from(all) * u64::from(n) / u64::from(parts)) as u32;
    before(n + 1) - before(n)
}

/// The shares of `agents` in a workload. Each has connections that talk, and of the rate what it
/// has of those.
pub fn shares(workload: &Workload, agents: u32) -> Result<Vec<Workload>> {
    if workload.mode == Mode::Chat {
        bail!(
            "{} cannot be shared out: the members of two generators would have the same nicknames",
            workload.name
        );
    }
    ensure!(
        workload.disturbance.is_none(),
        "{} cannot be shared out: each generator would bring disturbers of its own",
        workload.name
    );
    let (active, idle) = (workload.active, workload.connections - workload.active);
    ensure!(
        agents <= active,
        "{active} connections that talk are too few for {agents} agents; raise --connections"
    );
    let share = |n| {
        let own = part(active, n, agents);
        let rate = workload.rate.map(|rate| rate * f64::from(own) / f64::from(active));
        let connections = own + part(idle, n, agents);
        Workload { connections, active: own, rate, ..workload.clone() }
    };
    Ok((0..agents).map(share).collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::workload::{Changes, Disturbance};

    fn workload(name: &str, changes: Changes) -> Workload {
        let second = Duration::from_secs(1);
        Workload::find(name, &changes, second, second).unwrap()
    }

    proptest! {
        #[test]
        fn shares_add_up(
            (connections, active) in (1u32..200).prop_flat_map(|all| (Just(all), 1..=all)),
            agents in 1u32..40,
            rate in 1.0..1e6,
        ) {
            let (connections, active) = (Some(connections), Some(active));
            let whole = workload("open-loop", Changes {
                connections, active, rate: Some(rate), ..Changes::default()
            });
            let Ok(shares) = shares(&whole, agents) else {
                prop_assert!(agents > whole.active);
                return Ok(());
            };
            prop_assert_eq!(shares.len(), agents as usize);
            prop_assert_eq!(shares.iter().map(|w| w.connections).sum::<u32>(), whole.connections);
            prop_assert_eq!(shares.iter().map(|w| w.active).sum::<u32>(), whole.active);
            let sum: f64 = shares.iter().filter_map(|w| w.rate).sum();
            prop_assert!((sum / rate - 1.0).abs() < 1e-9);
            prop_assert!(shares.iter().all(|w| w.active >= 1 && w.active <= w.connections));
        }
    }

    #[test]
    fn what_cannot_be_shared_out_is_refused() {
        let chat = workload("fan-out", Changes::default());
        assert!(shares(&chat, 2).unwrap_err().to_string().contains("nicknames"));
        let storm = Changes { disturbance: Some(Disturbance::ConnectStorm), ..Changes::default() };
        let storm = workload("ping-pong", storm);
        assert!(shares(&storm, 2).unwrap_err().to_string().contains("disturbers"));
    }
}
