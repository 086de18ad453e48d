//! Many servers: built, put through the gate, driven in interleaved rounds, and ranked.
//!
//! Rounds are mirrored (A B C, then C B A), so that drift of the machine falls on all alike. The
//! numbers are medians with their ranges. A server is ranked behind another only where all rounds
//! of the one lie on the same side of all rounds of the other.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::drive::Shortage;
use crate::models::{Entrant, How, Models, NULL, Target};
use crate::progress::Progress;
use crate::record::Record;
use crate::run::{Interrupted, Measured, Report, Settings, Status, run};
use crate::server::{Server, Start};
use crate::stats::{Ratio, Spread, ranks};
use crate::verify::{Outcome, verify};
use crate::workload::{Changes, Mode, Workload};

/// Connections that the gate may hold at once, with room to spare.
const GATE_CONNECTIONS: u32 = 16;

/// What to compare.
pub struct Plan {
    /// The servers, not yet built.
    pub targets: Vec<Target>,
    /// The workloads.
    pub workloads: Vec<Workload>,
    /// How often each server runs each workload.
    pub rounds: u32,
    /// Whether the null reference takes part.
    pub reference: bool,
}

/// What a comparison is about to do, as its record keeps it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Planned {
    /// Rounds that were asked for.
    pub rounds: u32,
    /// The servers that could be built.
    pub servers: Vec<Entrant>,
}

/// The result.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Comparison {
    /// Rounds that were asked for.
    pub rounds: u32,
    /// The servers that could be built.
    pub servers: Vec<Entrant>,
    /// One section for each workload.
    pub sections: Vec<Section>,
    /// Servers that could not be built, failed the gate, or failed in a run, with the reason.
    pub left_out: Vec<(String, String)>,
    /// Whether Ctrl-C ended it early.
    pub interrupted: bool,
}

/// The servers under one workload.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Section {
    /// What was asked.
    pub workload: Workload,
    /// Rounds that all servers have finished.
    pub rounds: u32,
    /// The measure of the ranks.
    pub ranked_by: String,
    /// Best first, then what is not ranked.
    pub rows: Vec<Row>,
    /// Every pair of ranked servers.
    pub pairs: Vec<Pair>,
}

/// One server under one workload. Spreads are over its rounds.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Row {
    /// The server.
    pub server: String,
    /// One more than the number of servers shown to be better; `None` where it is not ranked.
    pub rank: Option<usize>,
    /// Whether another one has the same rank.
    pub shared: bool,
    /// Messages for each second.
    pub rate: Option<Spread>,
    /// Median latency in nanoseconds.
    pub p50_ns: Option<Spread>,
    /// 99th percentile in nanoseconds.
    pub p99_ns: Option<Spread>,
    /// 99th percentile while disturbed divided by that in the calm before.
    pub to_calm: Option<Spread>,
    /// Server's processor time for each message in nanoseconds.
    pub cpu_ns: Option<Spread>,
    /// That time divided by the null reference's of the same round: the median.
    pub to_null: Option<f64>,
    /// Context switches for each message, of both kinds.
    pub switches: Option<Spread>,
    /// Most resident memory in bytes.
    pub peak_rss: Option<Spread>,
    /// Resident memory for each idle connection in bytes.
    pub idle_bytes: Option<Spread>,
    /// Whether flood control was on, in chat.
    pub flood_control: Option<bool>,
    /// The worst verdict of all rounds.
    pub status: Status,
    /// Its reasons, each with the number of rounds.
    pub reasons: Vec<String>,
    /// The measure of the rank, round by round.
    pub measure: Vec<f64>,
}

/// Two servers under one workload, by the measure of the ranks.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Pair {
    /// The one.
    pub a: String,
    /// The other.
    pub b: String,
    /// Whether their ranges have no point in common.
    pub apart: bool,
    /// a ÷ b, paired by rounds; `None` for fewer than three rounds.
    pub ratio: Option<Ratio>,
}

/// One finished run.
struct Done {
    round: u32,
    workload: usize,
    report: Report,
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
}

impl Compare<'_> {
    /// Builds, checks, drives, ranks. What fails is left out and named; the rest goes on.
    pub fn run(mut self, plan: &Plan, pin: impl FnOnce() -> Result<()>) -> Result<Comparison> {
        let mut left_out = Vec::new();
        let built = self.build(plan, &mut left_out);
        let servers = built.iter().map(Target::entrant).collect();
        let planned = Planned { rounds: plan.rounds, servers };
        if let Some(record) = &mut self.record {
            record.plan(&planned);
        }
        // Only now: compilers should have all processors.
        pin()?;
        let entrants = self.gate(plan, built, &mut left_out);
        let mut done = Vec::new();
        let interrupted = match entrants {
            Ok(entrants) => self.rounds(plan, &entrants, &mut done, &mut left_out)?,
            Err(_) => true,
        };
        let sections = sections(&plan.workloads, &done);
        let Planned { rounds, servers } = planned;
        Ok(Comparison { rounds, servers, sections, left_out, interrupted })
    }

    fn build(&mut self, plan: &Plan, left_out: &mut Vec<(String, String)>) -> Vec<Target> {
        let mut built = Vec::new();
        for target in &plan.targets {
            if let How::Package(package, _) = &target.how {
                self.progress.step(format!("building {package} for {}", target.name));
            }
            match self.models.build(target) {
                Ok(target) => built.push(target),
                Err(e) => self.leave_out(left_out, &target.name, format!("{e:#}")),
            }
        }
        built
    }

    fn leave_out(&self, left_out: &mut Vec<(String, String)>, name: &str, why: String) {
        self.progress.note(&format!("{name} is left out: {why}"));
        left_out.push((name.to_owned(), why));
    }

    /// For each workload those who may enter it: they speak its mode and have passed the gate.
    fn gate(
        &mut self,
        plan: &Plan,
        built: Vec<Target>,
        left_out: &mut Vec<(String, String)>,
    ) -> Result<Vec<Vec<Target>>, Interrupted> {
        let mut passed: BTreeMap<&str, Vec<Target>> = BTreeMap::new();
        for mode in [Mode::Echo, Mode::Chat] {
            let of_mode = |workload: &&Workload| workload.mode == mode;
            let asked: Vec<&Workload> = plan.workloads.iter().filter(of_mode).collect();
            if asked.is_empty() {
                continue;
            }
            let entrants = passed.entry(mode.name()).or_default();
            if plan.reference && mode == Mode::Echo {
                entrants.push(Target::null());
            }
            for target in built.iter().filter(|target| target.modes.contains(&mode)) {
                if self.settings.interrupted.load(std::sync::atomic::Ordering::Relaxed) {
                    return Err(Interrupted);
                }
                // Where only some of the workloads refuse it, it is left out of those later.
                let refused: Vec<_> = asked.iter().filter_map(|w| target.refuses(w)).collect();
                if let Some(why) = refused.first().filter(|_| refused.len() == asked.len()) {
                    let why = format!("{}: {why}", mode.name());
                    self.leave_out(left_out, &target.name, why);
                    continue;
                }
                self.progress.step(format!("verifying {} ({})", target.name, mode.name()));
                match gate_one(target, mode, self.settings) {
                    Ok(()) => entrants.push(target.clone()),
                    Err(e) => {
                        let why = format!("fails the {} gate: {e:#}", mode.name());
                        self.leave_out(left_out, &target.name, why);
                    }
                }
            }
        }
        let of = |w: &Workload| {
            let mut entrants = passed.get(w.mode.name()).cloned().unwrap_or_default();
            // Who reads "x null" is not to find a null reference that did something else.
            entrants.retain(|t| !matches!(t.how, How::Null) || t.refuses(w).is_none());
            entrants
        };
        Ok(plan.workloads.iter().map(of).collect())
    }

    /// All rounds. Returns whether they were interrupted.
    fn rounds(
        &mut self,
        plan: &Plan,
        entrants: &[Vec<Target>],
        done: &mut Vec<Done>,
        left_out: &mut Vec<(String, String)>,
    ) -> Result<bool> {
        let mut failed: Vec<(usize, String)> = Vec::new();
        let mut given_up: Vec<usize> = Vec::new();
        for round in 0..plan.rounds {
            for (n, workload) in plan.workloads.iter().enumerate() {
                if given_up.contains(&n) {
                    continue;
                }
                let mut order: Vec<&Target> = entrants[n].iter().collect();
                if round % 2 == 1 {
                    order.reverse();
                }
                for target in order {
                    if failed.contains(&(n, target.name.clone())) {
                        continue;
                    }
                    self.progress.step(format!(
                        "round {} of {}: {} {}",
                        round + 1,
                        plan.rounds,
                        workload.name,
                        target.name
                    ));
                    match run(target, workload, self.settings, self.progress) {
                        Ok(report) => {
                            if let Some(record) = &mut self.record {
                                record.run(round, &report);
                            }
                            done.push(Done { round, workload: n, report });
                        }
                        Err(e) if e.is::<Interrupted>() => return Ok(true),
                        // No server's fault, and the next one would meet it too.
                        Err(e) if e.is::<Shortage>() => {
                            let why = format!("given up in round {}: {e:#}", round + 1);
                            self.leave_out(left_out, &workload.name, why);
                            given_up.push(n);
                            break;
                        }
                        Err(e) => {
                            let why = format!("{}: {e:#}", workload.name);
                            self.leave_out(left_out, &target.name, why);
                            failed.push((n, target.name.clone()));
                            done.retain(|d| d.workload != n || d.report.server != target.name);
                        }
                    }
                }
            }
        }
        Ok(false)
    }
}

fn gate_one(target: &Target, mode: Mode, settings: &Settings) -> Result<()> {
    let start = Start {
        mode,
        connections: GATE_CONNECTIONS,
        workers: settings.workers,
        no_flood_control: mode == Mode::Chat,
        wait: Duration::ZERO,
        work: Duration::ZERO,
        cpus: Some(&settings.server_cpus[..]).filter(|cpus| !cpus.is_empty()),
    };
    let server = Server::start(target, &start)?;
    for finding in verify(server.addr, mode, &target.unsupported) {
        if let Outcome::Fail(why) = finding.result {
            bail!("{}: {why}", finding.case);
        }
    }
    match server.stop() {
        Some(complaint) => bail!(complaint),
        None => Ok(()),
    }
}

/// What the finished runs of a comparison say that was cut off and left no result.
pub fn assemble(planned: &Planned, runs: &[(u32, Report)]) -> Comparison {
    let mut workloads: Vec<Workload> = Vec::new();
    let mut done = Vec::new();
    for (round, report) in runs {
        let known = workloads.iter().position(|workload| *workload == report.workload);
        let workload = known.unwrap_or_else(|| {
            workloads.push(report.workload.clone());
            workloads.len() - 1
        });
        done.push(Done { round: *round, workload, report: report.clone() });
    }
    Comparison {
        rounds: planned.rounds,
        servers: planned.servers.clone(),
        sections: sections(&workloads, &done),
        left_out: Vec::new(),
        interrupted: true,
    }
}

fn sections(workloads: &[Workload], done: &[Done]) -> Vec<Section> {
    let all = workloads.iter().enumerate();
    all.map(|(n, workload)| section(workload, n, done))
        .filter(|section| !section.rows.is_empty())
        .collect()
}

/// Rows, ranks and pairs of one workload, from the rounds that all its servers have finished.
fn section(workload: &Workload, index: usize, done: &[Done]) -> Section {
    let mut runs: BTreeMap<&str, Vec<(u32, &Report)>> = BTreeMap::new();
    for d in done.iter().filter(|d| d.workload == index) {
        runs.entry(&d.report.server).or_default().push((d.round, &d.report));
    }
    let rounds = runs.values().map(Vec::len).min().unwrap_or(0);
    for reports in runs.values_mut() {
        // A round that was interrupted counts for nobody.
        reports.truncate(rounds);
    }
    let reference: Vec<Option<f64>> =
        runs.get(NULL).into_iter().flatten().map(|(_, report)| cpu(report)).collect();
    let mut rows: Vec<Row> =
        runs.iter().map(|(name, reports)| row(name, reports, &reference, workload)).collect();
    let ranked_by = match () {
        () if workload.disturbance.is_some() => "the bystanders' p99",
        () if workload.has_idle() => "memory per idle connection",
        () => "CPU per message",
    };
    rank(&mut rows, rounds);
    let pairs = pairs(&rows);
    Section {
        workload: workload.clone(),
        rounds: rounds as u32,
        ranked_by: ranked_by.into(),
        rows,
        pairs,
    }
}

fn cpu(report: &Report) -> Option<f64> {
    Some(report.measured.as_ref()?.cost.as_ref()?.cpu_ns_per_message)
}

fn row(
    name: &str,
    reports: &[(u32, &Report)],
    reference: &[Option<f64>],
    workload: &Workload,
) -> Row {
    let each = |measure: &dyn Fn(&Measured) -> Option<f64>| -> Vec<f64> {
        reports.iter().filter_map(|(_, r)| r.measured.as_ref().and_then(measure)).collect()
    };
    let spread = |measure: &dyn Fn(&Measured) -> Option<f64>| Spread::of(&each(measure));
    let cost = |pick: fn(&crate::cost::Cost) -> f64| {
        spread(&move |m: &Measured| m.cost.as_ref().map(pick))
    };
    let mut counted: BTreeMap<&str, u32> = BTreeMap::new();
    for reason in reports.iter().flat_map(|(_, report)| &report.verdict.reasons) {
        // What stands in parentheses is the single round's.
        *counted.entry(reason.split(" (").next().unwrap_or(reason)).or_default() += 1;
    }
    let ratios: Vec<f64> = reports
        .iter()
        .zip(reference)
        .filter_map(|((_, report), null)| Some(cpu(report)? / (*null)?))
        .collect();
    let status = reports.iter().map(|(_, r)| r.verdict.status).max().unwrap_or(Status::Invalid);
    let measure = match () {
        () if workload.disturbance.is_some() => each(&|m| Some(m.main_latency()?.p99 as f64)),
        () if workload.has_idle() => each(&|m| m.idle_bytes_per_connection),
        () => each(&|m| m.cost.as_ref().map(|cost| cost.cpu_ns_per_message)),
    };
    let valid = status != Status::Invalid;
    Row {
        server: name.to_owned(),
        rank: None,
        shared: false,
        rate: spread(&|m| Some(m.messages_per_second)).filter(|_| valid),
        p50_ns: spread(&|m| Some(m.main_latency()?.p50 as f64)).filter(|_| valid),
        p99_ns: spread(&|m| Some(m.main_latency()?.p99 as f64)).filter(|_| valid),
        to_calm: spread(&|m| Some(m.disturbed.as_ref()?.p99_ratio)).filter(|_| valid),
        cpu_ns: cost(|c| c.cpu_ns_per_message).filter(|_| valid),
        to_null: Spread::of(&ratios).map(|s| s.median).filter(|_| valid),
        switches: cost(|c| c.voluntary_switches_per_message + c.involuntary_switches_per_message)
            .filter(|_| valid),
        peak_rss: cost(|c| c.peak_rss_bytes as f64).filter(|_| valid),
        idle_bytes: spread(&|m| m.idle_bytes_per_connection).filter(|_| valid),
        flood_control: reports.iter().find_map(|(_, report)| report.flood_control),
        status,
        reasons: counted
            .iter()
            .map(|(why, n)| format!("{why} (in {n} of {} rounds)", reports.len()))
            .collect(),
        measure: if valid { measure } else { Vec::new() },
    }
}

/// Ranks what can be ranked, and puts the rows in order.
fn rank(rows: &mut [Row], rounds: usize) {
    let ranked: Vec<usize> = (0..rows.len())
        .filter(|&n| rounds > 1 && rows[n].server != NULL && rows[n].measure.len() == rounds)
        .collect();
    let spreads: Vec<Spread> =
        ranked.iter().filter_map(|&n| Spread::of(&rows[n].measure)).collect();
    let ranks = ranks(&spreads);
    for (&n, &rank) in ranked.iter().zip(&ranks) {
        rows[n].rank = Some(rank);
        rows[n].shared = ranks.iter().filter(|&&other| other == rank).count() > 1;
    }
    let middle = |row: &Row| Spread::of(&row.measure).map_or(f64::INFINITY, |s| s.median);
    rows.sort_by(|a, b| {
        let key = |row: &Row| (row.server == NULL, row.rank.unwrap_or(usize::MAX));
        key(a).cmp(&key(b)).then(middle(a).total_cmp(&middle(b)))
    });
}

fn pairs(rows: &[Row]) -> Vec<Pair> {
    let ranked: Vec<&Row> = rows.iter().filter(|row| row.rank.is_some()).collect();
    let mut pairs = Vec::new();
    for (n, a) in ranked.iter().enumerate() {
        for b in &ranked[n + 1..] {
            let spreads = Spread::of(&a.measure).zip(Spread::of(&b.measure));
            pairs.push(Pair {
                a: a.server.clone(),
                b: b.server.clone(),
                apart: spreads.is_some_and(|(a, b)| a.apart(&b).is_ne()),
                ratio: Ratio::paired(&a.measure, &b.measure, 1),
            });
        }
    }
    pairs
}

/// The workloads of a comparison; flags that belong to chat do not concern echo, nor the reverse.
pub fn workloads(
    names: &[String],
    changes: &Changes,
    duration: Duration,
    warmup: Duration,
) -> Result<Vec<Workload>> {
    names
        .iter()
        .map(|name| Workload::find(name, &changes.fitting(name), duration, warmup))
        .collect()
}
