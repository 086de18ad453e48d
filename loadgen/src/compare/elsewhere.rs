//! A comparison that other machines drive, and what of one on this machine it does without.
//!
//! The agent beside the servers builds, starts, pins and stops each of them for its own run. So
//! there is no gate here, no null reference, and no turns: a server that waits for its next turn
//! would have to be suspended there while connections from everywhere stay open. Each run has the
//! machines to itself, and rounds alone interleave the servers.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::Result;

use super::course::Compare;
use super::entrants::Entrants;
use super::plan::Plan;
use crate::base::exit::Interrupted;
use crate::measure::{Progress, Report};
use crate::record::{Record, agents_folder};
use crate::results::{Done, Host};
use crate::target::{Models, Target};
use crate::workload::Workload;

/// What a run by agents takes beside warming up and measuring: calling them, reading their clocks,
/// naming an instant that lies ahead, and starting and stopping the server.
const AROUND: Duration = Duration::from_millis(1500);

/// Where a comparison takes place.
pub enum Field<'a> {
    /// On this machine, with servers that are built from these models.
    Here(&'a Models),
    /// On others, which drive each run when they are told to.
    Elsewhere(&'a mut Drive<'a>),
}

/// One run of a server by other machines.
pub type Drive<'a> = dyn FnMut(&Target, &Workload, &mut Progress) -> Result<Driven> + 'a;

/// A run by other machines.
pub struct Driven {
    /// All of it as one run.
    pub report: Report,
    /// What each machine has measured, with its name and its description.
    pub parts: Vec<(String, Host, Report)>,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a run by other machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// All of them saw it to its end, whatever its verdict.
    Seen,
    /// All of them are there, but the server, or what one of them did with it, has failed.
    Failed,
    /// One of them is not there any more.
    Gone,
}

/// A machine was lost: no further round would have the same machines.
#[derive(Debug)]
pub(super) struct MachineLost;

impl std::fmt::Display for MachineLost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a machine was lost")
    }
}

impl std::error::Error for MachineLost {}

/// All servers at all points: what they speak is known to the agent beside them.
pub(super) fn entrants(plan: &Plan, workloads: &[Workload], servers: &[Target]) -> Entrants {
    let entered = |target: &Target| {
        let twin = plan.control.then(|| target.again());
        std::iter::once(target.clone()).chain(twin)
    };
    let passed: Vec<Target> = servers.iter().flat_map(entered).collect();
    let starting = passed.iter().map(|target| (target.name.clone(), AROUND)).collect();
    Entrants { of: vec![passed.clone(); workloads.len()], passed, starting }
}

/// The records of each machine's own parts, in the folder of the comparison's.
#[derive(Default)]
pub(super) struct PartRecords(BTreeMap<String, Record>);

impl PartRecords {
    fn keep(&mut self, record: &mut Record, round: u32, parts: &[(String, Host, Report)]) {
        record.attempt(|dir| {
            for (agent, host, report) in parts {
                let folder = dir.join(agents_folder(self.0.len(), agent));
                if !self.0.contains_key(agent) {
                    self.0.insert(agent.clone(), Record::create(&folder, host)?);
                }
                if let Some(own) = self.0.get_mut(agent) {
                    own.run(round, report);
                }
            }
            Ok(())
        });
    }

    /// Ends them. What went wrong is the record's to tell.
    pub(super) fn close(self, record: &mut Record) {
        record.attempt(|_| self.0.into_values().try_for_each(|own| own.close().map(drop)));
    }
}

impl Compare<'_> {
    /// One round at one point, one server after the other. It counts as a whole or not at all.
    pub(super) fn round_elsewhere(
        &mut self,
        round: u32,
        n: usize,
        order: &[Target],
        workload: &Workload,
        step: &str,
        done: &mut Vec<Done>,
    ) -> Result<Vec<String>> {
        let (mut failed, mut finished) = (Vec::new(), Vec::new());
        for target in order {
            let Field::Elsewhere(drive) = &mut self.field else { break };
            self.progress.step(format!("{step}: {}", target.name));
            let Driven { report, parts, fate } = drive(target, workload, self.progress)?;
            if report.interrupted || self.settings.interrupted.load(Relaxed) {
                return Err(Interrupted.into());
            }
            // Of one that no machine was told to drive there is nothing to keep.
            if let (Some(record), false) = (&mut self.record, report.parts.is_empty()) {
                record.run(round, &report);
                self.parts.keep(record, round, &parts);
            }
            match fate {
                Fate::Seen => finished.push(Done { workload: n, report }),
                Fate::Failed => {
                    let why = report.verdict.reasons.join("; ");
                    self.fail(&target.name, format!("{}: {why}", workload.point()));
                    done.retain(|d| d.workload != n || d.report.server != target.name);
                    failed.push(target.name.clone());
                }
                Fate::Gone => {
                    self.left_out.lose(round, &report);
                    return Err(MachineLost.into());
                }
            }
        }
        done.extend(finished);
        Ok(failed)
    }
}
