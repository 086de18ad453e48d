//! The servers that take part in a comparison: they speak what is asked and have passed the gate.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::course::Compare;
use super::elsewhere::{self, Field};
use super::plan::Plan;
use crate::base::exit::Interrupted;
use crate::measure::Settings;
use crate::target::gate::{CaseResult, Door, Lack, lacks, stopped, verify};
use crate::target::{AGAIN, How, Server, Start, Target};
use crate::workload::{Mode, Workload};

/// Connections that the gate may hold at once, with room to spare.
const GATE_CONNECTIONS: u32 = 16;
/// What a run takes beside warming up, measuring, and starting and stopping the server: reading
/// its memory and its counters, and the threads that drive it.
pub(super) const AROUND: Duration = Duration::from_millis(60);
/// Opening a connection and touching it.
pub(super) const CONNECT: Duration = Duration::from_micros(120);

/// The servers that take part, point by point, and how long starting and stopping takes each of
/// them.
pub(super) struct Entrants {
    /// Those of each workload.
    pub(super) of: Vec<Vec<Target>>,
    /// All that have passed the gate, once for each mode.
    pub(super) passed: Vec<Target>,
    pub(super) starting: BTreeMap<String, Duration>,
}

impl Entrants {
    /// How long a round will take.
    pub(super) fn round(&self, workloads: &[Workload]) -> Duration {
        self.driven(workloads) + self.beside(workloads)
    }

    /// How long the runs of a round warm up and measure.
    pub(super) fn driven(&self, workloads: &[Workload]) -> Duration {
        let each = |(w, entrants): (&Workload, &Vec<Target>)| w.lasts() * entrants.len() as u32;
        workloads.iter().zip(&self.of).map(each).sum()
    }

    /// What the runs of a round take beside that.
    pub(super) fn beside(&self, workloads: &[Workload]) -> Duration {
        let start = |t: &Target| self.starting.get(&t.name).copied().unwrap_or_default();
        let each = |(workload, entrants): (&Workload, &Vec<Target>)| -> Duration {
            let around = AROUND + CONNECT * workload.connections;
            entrants.iter().map(|target| around + start(target) + target.warmup).sum()
        };
        workloads.iter().zip(&self.of).map(each).sum()
    }
}

impl Compare<'_> {
    /// For each workload the servers that may enter it: they speak its mode and have passed the
    /// gate.
    pub(super) fn gate(
        &mut self,
        plan: &Plan,
        workloads: &[Workload],
        built: &[Target],
    ) -> Result<Entrants, Interrupted> {
        if let Field::Elsewhere(_) = self.field {
            return Ok(elsewhere::entrants(plan, workloads, built));
        }
        let mut passed: BTreeMap<&str, Vec<Target>> = BTreeMap::new();
        let mut starting = BTreeMap::new();
        for mode in [Mode::Echo, Mode::Chat] {
            let of_mode = |workload: &&Workload| workload.mode == mode;
            let asked: Vec<&Workload> = workloads.iter().filter(of_mode).collect();
            if asked.is_empty() {
                continue;
            }
            let entrants = passed.entry(mode.name()).or_default();
            if plan.reference && mode == Mode::Echo {
                entrants.extend([Target::null(), Target::null().again()]);
            }
            for target in built {
                if !target.modes.contains(&mode) {
                    self.leave_out_mute(target, mode, &asked);
                    continue;
                }
                if self.settings.interrupted.load(Relaxed) {
                    return Err(Interrupted);
                }
                // Where only some of the workloads refuse it, it is left out of those below.
                let refused: Vec<_> = asked.iter().filter_map(|w| target.refuses(w)).collect();
                if let Some(why) = refused.first().filter(|_| refused.len() == asked.len()) {
                    self.leave_out(&target.name, format!("{}: {why}", mode.name()));
                    continue;
                }
                self.progress.step(format!("verifying {} ({})", target.name, mode.name()));
                match gate_one(target, mode, self.settings) {
                    Ok(Passed { took, lacks }) => {
                        starting.insert(target.name.clone(), took);
                        let target = Target { lacks, ..target.clone() };
                        let twin = plan.control.then(|| target.again());
                        entrants.push(target);
                        entrants.extend(twin);
                    }
                    Err(e) => {
                        let why = format!("fails the {} gate: {e:#}", mode.name());
                        self.fail(&target.name, why);
                    }
                }
            }
        }
        let of = |w: &Workload| passed.get(w.mode.name()).cloned().unwrap_or_default();
        let mut entrants = Entrants {
            of: workloads.iter().map(of).collect(),
            passed: passed.values().flatten().cloned().collect(),
            starting,
        };
        for (workload, entrants) in workloads.iter().zip(&mut entrants.of) {
            // What a model or a peer cannot do is no failure, and known without a run.
            for target in entrants.extract_if(.., |target| target.refuses(workload).is_some()) {
                let why = target.refuses(workload).unwrap_or_default();
                if !matches!(target.how, How::Null(_)) && !target.name.ends_with(AGAIN) {
                    self.leave_out(&target.name, format!("{}: {why}", workload.point()));
                }
            }
        }
        Ok(entrants)
    }

    /// A server does not speak the mode of these workloads. That is said where the user may have
    /// expected it to.
    fn leave_out_mute(&mut self, target: &Target, mode: Mode, asked: &[&Workload]) {
        let mode = mode.name();
        if target.unlisted {
            let why = format!("it is not said to speak {mode} (--speaks {mode})");
            self.leave_out(&target.name, why);
        } else if target.foreign {
            let names: Vec<_> = asked.iter().map(|workload| workload.name.as_str()).collect();
            let why = format!("{}: it does not speak {mode}", names.join(", "));
            self.leave_out(&target.name, why);
        }
    }
}

/// What is known of a server that has passed the gate.
pub(super) struct Passed {
    /// How long starting and stopping took.
    pub(super) took: Duration,
    /// What it lacks that is not required of it.
    pub(super) lacks: Vec<Lack>,
}

/// Fails with all that the server did wrong of what is required of it.
pub(super) fn gate_one(target: &Target, mode: Mode, settings: &Settings) -> Result<Passed> {
    let start = Start::new(mode, GATE_CONNECTIONS, settings.workers, &settings.server_cpus);
    let began = Instant::now();
    let server = Server::start(target, &start)?;
    let started = began.elapsed();
    let door = Door { addr: server.addr, password: settings.password.clone() };
    let Settings { interrupted, .. } = settings;
    let mut findings = verify(&door, mode, &target.unsupported, target.contract, interrupted);
    let began = Instant::now();
    findings.extend(stopped(server.stop(), target.contract));
    let took = started + began.elapsed();
    let failed = findings.iter().filter_map(|finding| match &finding.result {
        CaseResult::Fail(why) => Some(format!("{}: {why}", finding.case)),
        _ => None,
    });
    let failed: Vec<String> = failed.collect();
    if !failed.is_empty() {
        bail!(failed.join("; "));
    }
    Ok(Passed { took, lacks: lacks(&findings, mode) })
}
