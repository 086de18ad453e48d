//! Many servers: built, put through the gate, driven in interleaved rounds, and ranked.
//!
//! Rounds are mirrored (A B C, then C B A), so that drift of the machine falls on all alike. The
//! numbers are medians with their ranges; verdicts are on pairs, round by round (`stats`), and
//! ranks follow from them (`section`).

mod flips;
mod section;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::drive::Shortage;
use crate::models::{AGAIN, Entrant, How, Models, Target};
use crate::progress::Progress;
use crate::record::Record;
use crate::round;
use crate::run::{Interrupted, Report, Settings};
use crate::server::{Server, Start};
use crate::stats::{FEWEST_ROUNDS, Ratio, shown};
use crate::verify::{Outcome, verify};
use crate::workload::{Changes, Mode, Workload};

pub use flips::{At, Flip, text};
pub(crate) use section::CPU_PER_MESSAGE;
pub use section::{Pair, Row, Section};

/// Connections that the gate may hold at once, with room to spare.
const GATE_CONNECTIONS: u32 = 16;
/// What a run takes beside warming up, measuring, and starting and stopping the server: reading
/// its memory and its counters, and the threads that drive it.
const AROUND: Duration = Duration::from_millis(60);
/// Opening a connection and touching it.
const CONNECT: Duration = Duration::from_micros(120);
/// Rounds that are run even where there is no time for them: with fewer, the correction for the
/// many pairs of a table would leave nothing shown.
const ENOUGH_ROUNDS: u32 = 8;
/// The shortest part of its usual time that a run is cut to.
const SHORTEST: f64 = 0.1;

/// What to compare.
pub struct Plan {
    /// The servers, not yet built.
    pub targets: Vec<Target>,
    /// The points to compare them at: a workload and the changes to it.
    pub points: Vec<(String, Changes)>,
    /// How often, for how long, and how long in all.
    pub pace: Pace,
    /// Whether the null reference takes part.
    pub reference: bool,
    /// Whether each server is entered twice, to see whether a difference is found where none is.
    pub control: bool,
}

/// How often, for how long, and how long in all.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Rounds to run.
    pub rounds: u32,
    /// Whether fewer will do where there is no time for so many, but never fewer than eight.
    pub fewer: bool,
    /// Measured time of a run, if there is time enough.
    pub duration: Duration,
    /// Its warm-up.
    pub warmup: Duration,
    /// Time for everything after the build.
    pub budget: Duration,
}

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
struct Done {
    workload: usize,
    report: Report,
}

/// Who takes part, point by point, and how long starting and stopping takes each of them.
struct Entrants {
    of: Vec<Vec<Target>>,
    starting: BTreeMap<String, Duration>,
}

/// A comparison under way.
pub struct Compare<'a> {
    /// Where packages are built.
    pub models: &'a Models,
    /// What stays the same in all runs.
    pub settings: &'a Settings,
    /// What the user sees meanwhile.
    pub progress: &'a mut Progress,
    /// Where runs are recorded.
    pub record: Option<&'a mut Record>,
    /// What was left out; nothing to begin with.
    pub left_out: LeftOut,
}

/// Who is not ranked.
#[derive(Debug, Default)]
pub struct LeftOut {
    /// All of them, with the reason.
    all: Vec<(String, String)>,
    /// The names of those that failed.
    failed: Vec<String>,
}

impl Compare<'_> {
    /// Builds, checks, drives, ranks. What fails is left out and named; the rest goes on.
    pub fn run(
        mut self,
        plan: &Plan,
        begin: impl FnOnce(&Progress) -> Result<()>,
    ) -> Result<Comparison> {
        let built = self.build(plan)?;
        let deadline = Instant::now() + plan.pace.budget;
        let servers = built.iter().map(Target::entrant).collect();
        let planned = Planned { rounds: plan.pace.rounds, control: plan.control, servers };
        if let Some(record) = &mut self.record {
            record.plan(&planned);
        }
        // Only now: compilers should have all processors.
        begin(self.progress)?;
        let mut workloads = plan.workloads(plan.pace.duration, plan.pace.warmup)?;
        let mut done = Vec::new();
        let mut entrants = match self.gate(plan, &workloads, &built) {
            Ok(entrants) => entrants,
            Err(Interrupted) => return Ok(planned.result(&workloads, &[], self.left_out, true)),
        };
        if entrants.of.iter().flatten().all(|target| matches!(target.how, How::Null(_))) {
            if self.left_out.all.is_empty() {
                bail!("nobody to compare: no server speaks what these workloads ask for");
            }
            return Ok(planned.result(&workloads, &[], self.left_out, false));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let (duration, warmup) = plan.pace.fit(left, &entrants.around(&workloads));
        for (workload, fitted) in workloads.iter_mut().zip(plan.workloads(duration, warmup)?) {
            *workload = fitted;
        }
        let interrupted = self.rounds(plan, &workloads, &mut entrants, deadline, &mut done)?;
        Ok(planned.result(&workloads, &done, self.left_out, interrupted))
    }

    fn build(&mut self, plan: &Plan) -> Result<Vec<Target>> {
        let mut built = Vec::new();
        for target in &plan.targets {
            if let How::Package(package, _) = &target.how {
                self.progress.step(format!("building {package} for {}", target.name));
            }
            match self.models.build(target, &self.settings.interrupted) {
                Ok(target) => built.push(target),
                Err(e) if e.is::<Interrupted>() => return Err(e),
                Err(e) => self.fail(&target.name, format!("{e:#}")),
            }
        }
        Ok(built)
    }

    fn leave_out(&mut self, name: &str, why: String) {
        self.progress.note(&format!("{name} is left out: {why}"));
        self.left_out.all.push((name.to_owned(), why));
    }

    fn fail(&mut self, name: &str, why: String) {
        self.left_out.failed.push(name.to_owned());
        self.leave_out(name, why);
    }

    /// For each workload those who may enter it: they speak its mode and have passed the gate.
    fn gate(
        &mut self,
        plan: &Plan,
        workloads: &[Workload],
        built: &[Target],
    ) -> Result<Entrants, Interrupted> {
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
            for target in built.iter().filter(|target| target.modes.contains(&mode)) {
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
                    Ok(took) => {
                        starting.insert(target.name.clone(), took);
                        entrants.push(target.clone());
                        if plan.control {
                            entrants.push(target.again());
                        }
                    }
                    Err(e) => {
                        let why = format!("fails the {} gate: {e:#}", mode.name());
                        self.fail(&target.name, why);
                    }
                }
            }
        }
        let of = |w: &Workload| passed.get(w.mode.name()).cloned().unwrap_or_default();
        let mut entrants = Entrants { of: workloads.iter().map(of).collect(), starting };
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
        for round in 0..plan.pace.rounds {
            let began = Instant::now();
            let enough = plan.pace.fewer && round >= ENOUGH_ROUNDS;
            if enough && began + longest > deadline {
                break;
            }
            let each = if round > 0 { longest } else { entrants.round(workloads) };
            self.progress.expect(plan.pace.left(
                round,
                each,
                deadline.saturating_duration_since(began),
            ));
            for (n, workload) in workloads.iter().enumerate() {
                // Whoever stands at an end has two turns in a row: each round somebody else.
                let mut order = entrants.of[n].clone();
                let ahead = order.len() * round as usize / plan.pace.rounds as usize;
                order.rotate_left(ahead);
                if round % 2 == 1 {
                    order.reverse();
                }
                let step =
                    format!("round {} of {}: {}", round + 1, plan.pace.rounds, workload.point());
                match self.round(round, n, workload, &order, &step, done) {
                    Ok(failed) => entrants.of[n].retain(|target| !failed.contains(&target.name)),
                    Err(e) if e.is::<Interrupted>() => return Ok(true),
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

    /// One round at one point. Returns the names of those who failed; they are out of all rounds.
    fn round(
        &mut self,
        round: u32,
        n: usize,
        workload: &Workload,
        order: &[Target],
        step: &str,
        done: &mut Vec<Done>,
    ) -> Result<Vec<String>> {
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

/// Returns how long starting and stopping took.
fn gate_one(target: &Target, mode: Mode, settings: &Settings) -> Result<Duration> {
    let start = Start {
        mode,
        connections: GATE_CONNECTIONS,
        workers: settings.workers,
        no_flood_control: mode == Mode::Chat,
        wait: Duration::ZERO,
        work: Duration::ZERO,
        cpus: Some(&settings.server_cpus[..]).filter(|cpus| !cpus.is_empty()),
    };
    let began = Instant::now();
    let server = Server::start(target, &start)?;
    let started = began.elapsed();
    for finding in verify(server.addr, mode, &target.unsupported) {
        if let Outcome::Fail(why) = finding.result {
            bail!("{}: {why}", finding.case);
        }
    }
    let began = Instant::now();
    match server.stop() {
        Some(complaint) => bail!(complaint),
        None => Ok(started + began.elapsed()),
    }
}

/// What the finished runs of a comparison say that was cut off and left no result.
pub fn assemble(planned: &Planned, runs: &[(u32, Report)]) -> Comparison {
    let mut workloads: Vec<Workload> = Vec::new();
    let mut done = Vec::new();
    for (_, report) in runs {
        let known = workloads.iter().position(|workload| *workload == report.workload);
        let workload = known.unwrap_or_else(|| {
            workloads.push(report.workload.clone());
            workloads.len() - 1
        });
        done.push(Done { workload, report: report.clone() });
    }
    let left_out = without_the_short(&workloads, &mut done);
    planned.result(&workloads, &done, left_out, true)
}

/// Leaves out, point by point, who has fewer runs than others by more than the round under way:
/// it failed, and would leave the others no more rounds than it had itself.
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
    fn result(
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
            None => flips::answer(&sections, &flips),
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
        }
    }
}

impl Plan {
    /// The points with these times, where neither the workload nor a flag says another.
    fn workloads(&self, duration: Duration, warmup: Duration) -> Result<Vec<Workload>> {
        let find = |(name, changes): &(String, Changes)| {
            Workload::find(name, &changes.fitting(name), duration, warmup)
        };
        self.points.iter().map(find).collect()
    }

    /// Fails if a point does not exist or does not fit together.
    pub fn check(&self) -> Result<()> {
        self.workloads(self.pace.duration, self.pace.warmup).map(drop)
    }
}

impl Entrants {
    /// How long a round will take.
    fn round(&self, workloads: &[Workload]) -> Duration {
        let each = |(w, entrants): (&Workload, &Vec<Target>)| w.lasts() * entrants.len() as u32;
        let driven: Duration = workloads.iter().zip(&self.of).map(each).sum();
        driven + self.around(workloads).iter().sum::<Duration>()
    }

    /// What each run of one round takes beside warming up and measuring.
    fn around(&self, workloads: &[Workload]) -> Vec<Duration> {
        let each = |(workload, entrants): (&Workload, &Vec<Target>)| -> Vec<Duration> {
            let connect = CONNECT * workload.connections;
            let start = |t: &Target| self.starting.get(&t.name).copied().unwrap_or_default();
            entrants.iter().map(|target| AROUND + connect + start(target) + target.warmup).collect()
        };
        workloads.iter().zip(&self.of).flat_map(each).collect()
    }
}

impl Pace {
    /// How long rounds that take `each` will go on from `round`, with so much left of the budget.
    fn left(&self, round: u32, each: Duration, budget: Duration) -> Duration {
        let all = each * (self.rounds - round);
        let enough = each * ENOUGH_ROUNDS.saturating_sub(round);
        if self.fewer { all.min(budget.max(enough)) } else { all }
    }

    /// How long runs that take so much beside may measure and warm up, so that all rounds fit.
    fn fit(&self, left: Duration, around: &[Duration]) -> (Duration, Duration) {
        let round = left.as_secs_f64() / f64::from(self.rounds.max(1));
        let beside: Duration = around.iter().sum();
        let each = (round - beside.as_secs_f64()) / around.len().max(1) as f64;
        let part = (each / (self.duration + self.warmup).as_secs_f64()).clamp(SHORTEST, 1.0);
        (self.duration.mul_f64(part), self.warmup.mul_f64(part))
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
            text(ratio),
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
                let broken = "The harness is broken here: it finds a difference between a server \
                              and itself. Trust no comparison from this machine as it is now.";
                let mut sentences = vec![broken.to_owned()];
                sentences.extend(found.iter().cloned());
                sentences
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_is_that_of_the_rounds_within_the_budget() {
        let second = Duration::from_secs(1);
        let pace = |fewer| Pace {
            rounds: 100,
            fewer,
            duration: second,
            warmup: second,
            budget: second * 90,
        };
        assert_eq!(pace(false).left(0, second * 2, second * 90), second * 200);
        assert_eq!(pace(true).left(0, second * 2, second * 90), second * 90);
        assert_eq!(pace(true).left(98, second * 2, second * 90), second * 4);
        assert_eq!(pace(true).left(6, second * 60, second * 9), second * 120, "eight at least");
    }

    #[test]
    fn runs_are_cut_to_the_time_there_is() {
        let ms = Duration::from_millis;
        let (duration, warmup, budget) = (ms(400), ms(150), Duration::from_secs(80));
        let pace = Pace { rounds: 8, fewer: true, duration, warmup, budget };
        assert_eq!(pace.fit(budget, &[ms(100); 10]), (duration, warmup), "time enough");
        let around = [[ms(40); 40], [ms(60); 40]].concat();
        let (duration, warmup) = pace.fit(budget, &around);
        let round = around.iter().sum::<Duration>() + (duration + warmup) * 80;
        assert!(round * 8 <= budget + ms(1) && round * 8 > budget - ms(100), "{round:?}");
        let (shortest, _) = pace.fit(ms(10), &around);
        assert_eq!(shortest, ms(40), "a run is never cut to nothing");
    }
}
