//! The course of a comparison: build, gate, drive in interleaved rounds, rank.
//!
//! Rounds are mirrored (A B C, then C B A), so that drift of the machine falls on all alike.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::elsewhere::{Field, MachineLost, PartRecords};
use super::entrants::Entrants;
use super::plan::{ENOUGH_ROUNDS, Plan};
use crate::base::exit::Interrupted;
use crate::base::limits::Shortage;
use crate::measure::{Progress, Settings, round};
use crate::record::Record;
use crate::results::{Comparison, Done, LeftOut, Planned};
use crate::target::{How, Target};
use crate::workload::Workload;

/// A comparison under way.
pub struct Compare<'a> {
    /// Where it takes place.
    pub field: Field<'a>,
    /// What stays the same in all runs.
    pub settings: &'a Settings,
    /// What the user sees meanwhile.
    pub progress: &'a mut Progress,
    /// Where runs are recorded.
    pub record: Option<&'a mut Record>,
    /// What was left out; nothing to begin with.
    pub left_out: LeftOut,
    /// Records of what each of other machines has measured.
    pub(super) parts: PartRecords,
}

impl<'a> Compare<'a> {
    /// A comparison that is about to begin.
    pub fn new(
        field: Field<'a>,
        settings: &'a Settings,
        progress: &'a mut Progress,
        record: Option<&'a mut Record>,
        left_out: LeftOut,
    ) -> Self {
        Self { field, settings, progress, record, left_out, parts: PartRecords::default() }
    }

    /// Builds, checks, drives, ranks. What fails is left out and named; the rest goes on.
    pub fn run(
        mut self,
        plan: &Plan,
        begin: impl FnOnce(&Progress) -> Result<()>,
    ) -> Result<Comparison> {
        let built = self.build(plan)?;
        let deadline = Instant::now() + plan.timing.budget;
        let servers = built.iter().map(Target::entrant).collect();
        let mut planned = Planned { rounds: plan.timing.rounds, control: plan.control, servers };
        if let Some(record) = &mut self.record {
            record.plan(&planned);
        }
        // Only now: compilers should have all processors.
        begin(self.progress)?;
        let mut workloads = plan.workloads(plan.timing.duration, plan.timing.warmup)?;
        let mut done = Vec::new();
        let mut entrants = match self.gate(plan, &workloads, &built) {
            Ok(entrants) => entrants,
            Err(Interrupted) => return Ok(planned.result(&workloads, &[], self.left_out, true)),
        };
        planned.note_lacks(&entrants.passed);
        if let Some(record) = &mut self.record {
            record.plan(&planned);
        }
        if entrants.of.iter().flatten().all(|target| matches!(target.how, How::Null(_))) {
            if self.left_out.all.is_empty() {
                bail!(
                    "no server is left to compare: none of them speaks what these workloads ask for"
                );
            }
            return Ok(planned.result(&workloads, &[], self.left_out, false));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let (driven, beside) = (entrants.driven(&workloads), entrants.beside(&workloads));
        let (duration, warmup) = plan.timing.fit(left, driven, beside);
        for (workload, fitted) in workloads.iter_mut().zip(plan.workloads(duration, warmup)?) {
            *workload = fitted;
        }
        let interrupted = self.rounds(plan, &workloads, &mut entrants, deadline, &mut done)?;
        if let Some(record) = &mut self.record {
            self.parts.close(record);
        }
        Ok(planned.result(&workloads, &done, self.left_out, interrupted))
    }

    fn build(&mut self, plan: &Plan) -> Result<Vec<Target>> {
        // The agent beside the servers builds those that it starts.
        let Field::Here(models) = self.field else { return Ok(plan.targets.clone()) };
        let mut built = Vec::new();
        for target in &plan.targets {
            if let How::Package(package, _) | How::Bare(package) = &target.how {
                self.progress.step(format!("building {package} for {}", target.name));
            }
            match models.build(target, &self.settings.interrupted) {
                Ok(target) => built.push(target),
                Err(e) if e.is::<Interrupted>() => return Err(e),
                Err(e) => self.fail(&target.name, format!("{e:#}")),
            }
        }
        Ok(built)
    }

    pub(super) fn leave_out(&mut self, name: &str, why: String) {
        self.progress.note(&format!("{name} is left out: {why}"));
        self.left_out.all.push((name.to_owned(), why));
    }

    pub(super) fn fail(&mut self, name: &str, why: String) {
        self.left_out.failed.push(name.to_owned());
        self.leave_out(name, why);
    }

    /// All rounds, or as many as there is time for. Returns whether they were interrupted.
    fn rounds(
        &mut self,
        plan: &Plan,
        workloads: &[Workload],
        entrants: &mut Entrants,
        deadline: Instant,
        done: &mut Vec<Done>,
    ) -> Result<bool> {
        let mut longest = Duration::ZERO;
        for round in 0..plan.timing.rounds {
            let began = Instant::now();
            let enough = plan.timing.fewer && round >= ENOUGH_ROUNDS;
            if enough && began + longest > deadline {
                break;
            }
            let each = if round > 0 { longest } else { entrants.round(workloads) };
            self.progress.expect(plan.timing.left(
                round,
                each,
                deadline.saturating_duration_since(began),
            ));
            for (n, workload) in workloads.iter().enumerate() {
                // The server at an end has two turns in a row: each round another one.
                let mut order = entrants.of[n].clone();
                let ahead = order.len() * round as usize / plan.timing.rounds as usize;
                order.rotate_left(ahead);
                if round % 2 == 1 {
                    order.reverse();
                }
                let step =
                    format!("round {} of {}: {}", round + 1, plan.timing.rounds, workload.point());
                match self.round(round, n, workload, &order, &step, done) {
                    Ok(failed) => entrants.of[n].retain(|target| !failed.contains(&target.name)),
                    Err(e) if e.is::<Interrupted>() => return Ok(true),
                    Err(e) if e.is::<MachineLost>() => return Ok(false),
                    // No server's fault, and the next one would meet it too.
                    Err(e) => {
                        let why = format!("given up in round {}: {e:#}", round + 1);
                        self.leave_out(&workload.point(), why);
                        entrants.of[n].clear();
                    }
                }
            }
            longest = longest.max(began.elapsed());
        }
        Ok(false)
    }

    /// One round at one point. Returns the names of the servers that failed; they are out of all
    /// rounds.
    fn round(
        &mut self,
        round: u32,
        n: usize,
        workload: &Workload,
        order: &[Target],
        step: &str,
        done: &mut Vec<Done>,
    ) -> Result<Vec<String>> {
        if let Field::Elsewhere(_) = self.field {
            return self.round_elsewhere(round, n, order, workload, step, done);
        }
        let mut failed = Vec::new();
        let reports = round::round(order, workload, self.settings, self.progress, step)?;
        for (target, report) in order.iter().zip(reports) {
            match report {
                Ok(report) => {
                    if let Some(record) = &mut self.record {
                        record.run(round, &report);
                    }
                    done.push(Done { workload: n, report });
                }
                Err(e) if e.is::<Shortage>() => return Err(e),
                Err(e) => {
                    self.fail(&target.name, format!("{}: {e:#}", workload.point()));
                    done.retain(|d| d.workload != n || d.report.server != target.name);
                    failed.push(target.name.clone());
                }
            }
        }
        Ok(failed)
    }
}
