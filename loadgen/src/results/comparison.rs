//! A comparison of servers: what was planned, and what its runs say.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::completeness;
use super::flips::{self, Flip};
use super::machines::Machines;
use super::section::{Pair, Section};
use super::stats::{FEWEST_ROUNDS, Ratio, shown};
use crate::measure::Report;
use crate::target::{AGAIN, Entrant, Target};
use crate::workload::Workload;

/// What a comparison is about to do, as its record keeps it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Planned {
    /// Rounds that were asked for.
    pub rounds: u32,
    /// Whether each server is entered twice.
    #[serde(default)]
    pub control: bool,
    /// The servers that could be built.
    pub servers: Vec<Entrant>,
}

/// The result.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Comparison {
    /// The answer in plain sentences, of what was shown.
    #[serde(default)]
    pub answer: Vec<String>,
    /// Pairs of servers whose order is shown to be reversed between points, the clearest first.
    #[serde(default)]
    pub flips: Vec<Flip>,
    /// With `--control`, what became of it.
    #[serde(default)]
    pub control: Option<Control>,
    /// Rounds that were asked for.
    pub rounds: u32,
    /// The servers that could be built.
    pub servers: Vec<Entrant>,
    /// One section for each workload.
    pub sections: Vec<Section>,
    /// Servers that could not be built, failed the gate, or failed in a run, with the reason.
    pub left_out: Vec<(String, String)>,
    /// Those of them that failed. The others were asked for what they are known not to do.
    #[serde(default)]
    pub failed: Vec<String>,
    /// Whether Ctrl-C ended it early.
    pub interrupted: bool,
    /// The machines that took part, where agents drove.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machines: Option<Machines>,
    /// The run in which a machine was lost, and how: it is INVALID, it counts in no number, and the
    /// comparison ended with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<(String, String)>,
}

/// The same servers, each entered twice.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Control {
    /// Pairs of a server and itself, over all points.
    pub pairs: usize,
    /// Those that were called different all the same, in words. If there is one, the harness is
    /// broken here: at most one control in twenty should find any.
    pub found: Vec<String>,
}

/// One finished run.
pub(crate) struct Done {
    /// Index of its workload.
    pub(crate) workload: usize,
    /// What it left.
    pub(crate) report: Report,
}

/// The servers that are not ranked.
#[derive(Debug, Default)]
pub struct LeftOut {
    /// All of them, with the reason.
    pub(crate) all: Vec<(String, String)>,
    /// The names of those that failed.
    pub(crate) failed: Vec<String>,
    /// Runs in which a machine was lost, with the reason.
    pub(crate) lost: Vec<(String, String)>,
}

impl LeftOut {
    /// This run does not count: a machine that took part in it was lost.
    pub(crate) fn lose(&mut self, round: u32, report: &Report) {
        let which = format!(
            "round {}, {} at {}: INVALID",
            round + 1,
            report.server,
            report.workload.point()
        );
        self.lost.push((which, report.verdict.reasons.join("; ")));
    }
}

/// What the finished runs of a comparison say that was cut off and left no result.
pub fn assemble(planned: &Planned, runs: &[(u32, Report)]) -> Comparison {
    let mut workloads: Vec<Workload> = Vec::new();
    let mut done = Vec::new();
    let mut lost = LeftOut::default();
    for (round, report) in runs {
        if report.has_lost() {
            lost.lose(*round, report);
            continue;
        }
        let known = workloads.iter().position(|workload| *workload == report.workload);
        let workload = known.unwrap_or_else(|| {
            workloads.push(report.workload.clone());
            workloads.len() - 1
        });
        done.push(Done { workload, report: report.clone() });
    }
    let left_out = LeftOut { lost: lost.lost, ..without_the_short(&workloads, &mut done) };
    let mut comparison = planned.result(&workloads, &done, left_out, true);
    // It may have been cut off after its last run.
    let short = |section: &Section| section.rounds < planned.rounds;
    comparison.interrupted = comparison.sections.iter().any(short);
    comparison
}

/// Leaves out, point by point, each server that has fewer runs than others by more than the round
/// under way: it failed, and would leave the others no more rounds than it had itself.
fn without_the_short(workloads: &[Workload], done: &mut Vec<Done>) -> LeftOut {
    let mut left_out = LeftOut::default();
    for (n, workload) in workloads.iter().enumerate() {
        let mut runs: BTreeMap<String, usize> = BTreeMap::new();
        for d in done.iter().filter(|d| d.workload == n) {
            *runs.entry(d.report.server.clone()).or_default() += 1;
        }
        let most = runs.values().copied().max().unwrap_or(0);
        for (name, runs) in runs.into_iter().filter(|(_, runs)| runs + 1 < most) {
            done.retain(|d| d.workload != n || d.report.server != name);
            let why = format!(
                "{}: failed after {runs} of {most} recorded rounds; the record was cut off \
                 before it said why",
                workload.point()
            );
            left_out.all.push((name.clone(), why));
            left_out.failed.push(name);
        }
    }
    left_out
}

impl Planned {
    /// Keeps what the servers were seen to lack in the gate.
    pub(crate) fn note_lacks(&mut self, passed: &[Target]) {
        for server in &mut self.servers {
            let seen = passed.iter().filter(|target| target.name == server.name);
            server.lacks = seen.flat_map(|target| target.lacks.clone()).collect();
        }
    }

    /// What so many finished runs say.
    pub(crate) fn result(
        &self,
        workloads: &[Workload],
        done: &[Done],
        left_out: LeftOut,
        interrupted: bool,
    ) -> Comparison {
        let sections = workloads.iter().enumerate().map(|(n, workload)| {
            let runs = done.iter().filter(|d| d.workload == n).map(|d| &d.report);
            Section::of(workload, &self.servers, &runs.collect::<Vec<_>>())
        });
        let sections: Vec<_> = sections.filter(|section| !section.rows.is_empty()).collect();
        let control = self.control.then(|| control(&sections));
        let flips = if self.control { Vec::new() } else { flips::flips(&sections) };
        let answer = match &control {
            Some(control) => control.sentences(),
            None => {
                let mut answer = flips::answer(&sections, &flips);
                answer.extend(completeness::answer(&sections));
                answer
            }
        };
        Comparison {
            answer,
            flips,
            control,
            rounds: self.rounds,
            servers: self.servers.clone(),
            sections,
            left_out: left_out.all,
            failed: left_out.failed,
            interrupted,
            machines: Machines::of(done.iter().map(|d| &d.report)),
            lost: left_out.lost,
        }
    }
}

/// Every server against itself, over all points: no pair of them differs but by chance.
fn control(sections: &[Section]) -> Control {
    let twins = |pair: &&Pair| pair.b == format!("{}{AGAIN}", pair.a);
    let pairs: Vec<(&Section, &Pair, Ratio)> = sections
        .iter()
        .flat_map(|s| s.pairs.iter().filter(twins).filter_map(move |p| Some((s, p, p.ratio?))))
        .collect();
    let chances: Vec<f64> = pairs.iter().map(|(_, _, ratio)| ratio.p).collect();
    let found = pairs.iter().zip(shown(&chances)).filter(|(_, shown)| *shown);
    let words = found.map(|((section, pair, ratio), _)| {
        format!(
            "{} has {} times its own {} in {}",
            pair.a,
            ratio,
            section.ranked_by.trim_start_matches("the "),
            section.workload.point()
        )
    });
    Control { pairs: pairs.len(), found: words.collect() }
}

impl Control {
    fn sentences(&self) -> Vec<String> {
        match &self.found[..] {
            [] if self.pairs == 0 => {
                vec![format!("The control shows nothing: it needs {FEWEST_ROUNDS} rounds or more.")]
            }
            [] => vec![format!(
                "The control holds: of {} pairs of a server and itself none is called different.",
                self.pairs
            )],
            found => {
                let broken = "A difference is found between a server and itself, which chance \
                              brings about in one control of twenty. If it is found again, the \
                              harness is broken here: trust no comparison from this machine as it \
                              is now.";
                let mut sentences = vec![broken.to_owned()];
                sentences.extend(found.iter().cloned());
                sentences
            }
        }
    }
}
