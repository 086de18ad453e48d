//! The course of trying claims: build the servers and put them through the gate, divide the time,
//! try one claim after the other, judge them together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::entrants::{AROUND, CONNECT, Passed, gate_one};
use super::experiment::{RoundNumbers, runs};
use super::plan::Timing;
use crate::base::exit::Interrupted;
use crate::measure::{Progress, Settings};
use crate::record::Record;
use crate::results::{Tried, rule};
use crate::target::cpus::Pinning;
use crate::target::{How, Models, Target};
use crate::workload::{Claim, Experiment, Mode, Workload};

/// What the experiments of all claims share.
pub struct ClaimCourse<'a> {
    /// Where servers come from.
    models: &'a Models,
    /// How they are driven.
    pub(super) settings: &'a Settings,
    /// Where servers run that have more workers than the settings say.
    pub(super) wide: Pinning,
    /// How often and for how long.
    pub(super) timing: Timing,
    /// What the user sees meanwhile.
    pub(super) progress: &'a mut Progress,
    /// Where runs are kept.
    pub(super) record: &'a mut Record,
    /// What runs have brought, by what was run and in which round. Nothing to begin with.
    pub(super) made: BTreeMap<(String, u32), RoundNumbers>,
    /// Messages a second that a server reaches in a closed loop, by what was run.
    pub(super) capacities: BTreeMap<String, f64>,
}

/// A server as an experiment names it.
#[derive(Clone, Debug)]
pub(super) struct Entered {
    /// Built, and through the gate.
    pub(super) target: Target,
    /// How long starting and stopping it takes.
    starting: Duration,
}

/// The servers of all experiments by what they are called; or why one of them cannot take part.
pub(super) type Servers = BTreeMap<String, Result<Entered, String>>;

/// The servers of an experiment: what each is called, its model, and its flags.
pub(super) fn named(experiment: &Experiment) -> Vec<(String, &str, &[String])> {
    let mut called = experiment.server.clone();
    for arg in &experiment.args {
        called += &format!(" {arg}");
    }
    let mut all = vec![(called, experiment.server.as_str(), &experiment.args[..])];
    all.extend(experiment.to.as_deref().map(|to| (to.to_owned(), to, &[][..])));
    all
}

impl<'a> ClaimCourse<'a> {
    /// Before anything is tried.
    pub fn new(
        models: &'a Models,
        (settings, wide): (&'a Settings, Pinning),
        timing: Timing,
        progress: &'a mut Progress,
        record: &'a mut Record,
    ) -> Self {
        let (made, capacities) = Default::default();
        Self { models, settings, wide, timing, progress, record, made, capacities }
    }

    /// Tries these claims and judges them together. Returns what was found, and whether Ctrl-C came
    /// between: then the claims that were tried to their end keep their verdicts.
    pub fn all(
        mut self,
        claims: Vec<Claim>,
        begin: impl FnOnce(&Progress) -> Result<()>,
    ) -> Result<(Vec<Tried>, bool)> {
        let mut servers = self.build(&claims)?;
        let deadline = Instant::now() + self.timing.budget;
        // Only now: compilers should have all processors.
        begin(self.progress)?;
        let mut tried = Vec::new();
        let interrupted = match self.course(claims, &mut servers, deadline, &mut tried) {
            Ok(()) => false,
            Err(e) if e.is::<Interrupted>() => true,
            Err(e) => return Err(e),
        };
        rule(&mut tried);
        Ok((tried, interrupted))
    }

    fn build(&mut self, claims: &[Claim]) -> Result<Servers> {
        let mut servers = Servers::new();
        for (called, model, args) in driven(claims).flat_map(named) {
            if servers.contains_key(&called) {
                continue;
            }
            self.progress.step(format!("building {model}"));
            let built = self.models.find(model).and_then(|target| {
                let built = self.models.build(&target, &self.settings.interrupted);
                built.map(|target| with_flags(target, &called, args))
            });
            let entered = match built {
                Ok(target) => Ok(Entered { target, starting: Duration::ZERO }),
                Err(e) if e.is::<Interrupted>() => return Err(e),
                Err(e) => Err(format!("{e:#}")),
            };
            servers.insert(called, entered);
        }
        Ok(servers)
    }

    fn course(
        &mut self,
        claims: Vec<Claim>,
        servers: &mut Servers,
        deadline: Instant,
        tried: &mut Vec<Tried>,
    ) -> Result<()> {
        self.gate(servers)?;
        let left = deadline.saturating_duration_since(Instant::now());
        let (driven, beside) = round(&claims, servers, &self.timing)?;
        let (duration, warmup) = self.timing.fit(left, driven, beside);
        (self.timing.duration, self.timing.warmup) = (duration, warmup);
        let all = claims.len();
        for (n, claim) in claims.into_iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            self.progress.expect_all(left);
            let mut one = Tried::new(claim);
            for experiment in one.claim.experiments.clone() {
                let step = format!("claim {} of {all}, {}", n + 1, one.claim.name);
                let result = self.experiment(&experiment, servers, &step, deadline)?;
                one.results.push(result);
            }
            tried.push(one);
        }
        Ok(())
    }

    /// A server that answers wrongly is worth no number.
    fn gate(&mut self, servers: &mut Servers) -> Result<()> {
        for (called, entered) in servers {
            if self.settings.interrupted.load(Relaxed) {
                return Err(Interrupted.into());
            }
            let Ok(one) = entered else { continue };
            self.progress.step(format!("verifying {called}"));
            match gate_one(&one.target, Mode::Echo, self.settings) {
                Ok(Passed { took, lacks }) => {
                    one.starting = took;
                    one.target.lacks = lacks;
                }
                Err(e) => *entered = Err(format!("{called} fails the echo gate: {e:#}")),
            }
        }
        Ok(())
    }
}

/// The experiments that drive servers.
fn driven(claims: &[Claim]) -> impl Iterator<Item = &Experiment> {
    claims.iter().flat_map(|claim| &claim.experiments).filter(|one| !one.is_counted())
}

/// The same server with further flags, under a name of its own.
fn with_flags(mut target: Target, called: &str, flags: &[String]) -> Target {
    called.clone_into(&mut target.name);
    if let How::Program(_, args) = &mut target.how {
        args.extend_from_slice(flags);
    }
    target
}

/// How long one round of all points of these claims drives servers, and what it takes beside that.
/// Servers that cannot take part take no time.
fn round(claims: &[Claim], servers: &Servers, timing: &Timing) -> Result<(Duration, Duration)> {
    let (mut drives, mut beside) = (Duration::ZERO, Duration::ZERO);
    let mut made = BTreeSet::new();
    for experiment in driven(claims) {
        let called = named(experiment);
        let names: Vec<&str> = called.iter().map(|(called, ..)| called.as_str()).collect();
        let all: Vec<_> = names.iter().map(|called| &servers[*called]).collect();
        let entered: Vec<&Entered> = all.iter().filter_map(|one| one.as_ref().ok()).collect();
        if entered.len() < all.len() {
            continue;
        }
        for &value in &experiment.values {
            let changes = experiment.changes(value);
            let workload =
                Workload::find(&experiment.workload, &changes, timing.duration, timing.warmup)?;
            if !made.insert(runs(&names, &workload, experiment.workers)) {
                continue;
            }
            for one in &entered {
                drives += workload.lasts();
                beside += AROUND + CONNECT * workload.connections;
                beside += one.starting + one.target.warmup;
            }
        }
    }
    Ok((drives, beside))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As long as a server of this workspace takes to start and to stop, on a slow machine.
    const STARTING: Duration = Duration::from_millis(30);

    #[test]
    fn all_claims_fit_their_budgets() {
        for (quick, timing) in [(true, Timing::of_quick_claims()), (false, Timing::of_claims())] {
            let claims = Claim::find(&[]).unwrap();
            let claims: Vec<Claim> =
                claims.into_iter().map(|c| if quick { c.quick() } else { c }).collect();
            let models = Models::load(None).unwrap();
            let enter = |(called, model, args): (String, &str, &[String])| {
                // A peer may be missing on the machine of this test.
                let target = models.find(model).or_else(|_| models.find("epoll-level")).unwrap();
                let target = with_flags(target, &called, args);
                (called, Ok(Entered { target, starting: STARTING }))
            };
            let servers: Servers = driven(&claims).flat_map(named).map(enter).collect();
            let gate = Duration::from_secs(1) * servers.len() as u32;
            let left = timing.budget - gate;
            let (driven, beside) = round(&claims, &servers, &timing).unwrap();
            let (duration, _) = timing.fit(left, driven, beside);
            let part = duration.as_secs_f64() / timing.duration.as_secs_f64();
            let all = (beside + driven.mul_f64(part)) * timing.rounds;
            assert!(all <= left + Duration::from_millis(1), "quick {quick}: {all:?} of {left:?}");
        }
    }
}
