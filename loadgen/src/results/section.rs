//! One point of a comparison: its rows, which pairs are shown to differ, and the ranks that follow.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::completeness::{Completeness, completeness};
use super::{Ratio, SignedRank, Spread, shown};
use crate::measure::{self, Cost, Measured, Report, Status};
use crate::target::{Entrant, NULL, NULL_AGAIN};
use crate::workload::Workload;

/// The usual measure of the ranks.
pub(crate) const CPU_PER_MESSAGE: &str = "CPU per message";

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
    /// Each complete server beside the same model bare, where both are ranked by CPU per message.
    #[serde(default)]
    pub completeness: Vec<Completeness>,
    /// The null reference to itself, entered twice: CPU per message. The noise floor.
    #[serde(default)]
    pub noise: Option<Ratio>,
    /// The same for messages per second; none in an open loop, whose rate is given.
    #[serde(default)]
    pub rate_noise: Option<Ratio>,
}

/// One server under one workload. Spreads are over its rounds.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Row {
    /// The server.
    pub server: String,
    /// Whether it is one of this workspace's: same protocol, buffers and backpressure.
    #[serde(default)]
    pub ours: bool,
    /// What it lacks of the contract, in words, if it is not held to it.
    #[serde(default)]
    pub lacks: Vec<String>,
    /// One more than the number of servers shown to be better; `None` where it is not ranked.
    pub rank: Option<usize>,
    /// Whether another one has the same rank.
    pub shared: bool,
    /// Messages for each second.
    pub rate: Option<Spread>,
    /// Whether that rate is not shown to be below the null reference's: then it is the
    /// generator's limit, and no rate to compare.
    #[serde(default)]
    pub at_ceiling: bool,
    /// Median latency in nanoseconds.
    pub p50_ns: Option<Spread>,
    /// 99th percentile in nanoseconds.
    pub p99_ns: Option<Spread>,
    /// 99th percentile while disturbed divided by that in the calm before.
    #[serde(default)]
    pub to_calm: Option<Spread>,
    /// Server's processor time for each message in nanoseconds.
    pub cpu_ns: Option<Spread>,
    /// The server's processor time at this rate, as a part of the time of one processor.
    #[serde(default)]
    pub cpu_share: Option<Spread>,
    /// The processor time for each message divided by the null reference's of the same round: the
    /// median.
    pub to_null: Option<f64>,
    /// Part of that time spent in user space, over all rounds together, from 0 to 1; `None` if too
    /// little to be told apart.
    #[serde(default)]
    pub user_share: Option<f64>,
    /// Context switches for each message, of both kinds.
    pub switches: Option<Spread>,
    /// System calls for each message, where they could be counted.
    #[serde(default)]
    pub calls: Option<Spread>,
    /// Most resident memory in bytes.
    pub peak_rss: Option<Spread>,
    /// Resident memory for each idle connection in bytes.
    pub idle_bytes: Option<Spread>,
    /// Kernel memory for each idle connection in bytes, of both of its ends.
    #[serde(default)]
    pub kernel_bytes: Option<Spread>,
    /// Whether flood control was on, in chat.
    pub flood_control: Option<bool>,
    /// The worst verdict of all rounds.
    pub status: Status,
    /// Rounds that are not VALID.
    #[serde(default)]
    pub doubted: u32,
    /// Its reasons, each with the number of rounds.
    pub reasons: Vec<String>,
    /// The first fault that was seen, in words, where a round was INVALID.
    #[serde(default)]
    pub example: Option<String>,
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
    /// Whether they are shown to differ, all pairs of the section considered.
    pub apart: bool,
    /// a ÷ b, paired by rounds; `None` for fewer than six rounds, which can show nothing.
    pub ratio: Option<Ratio>,
}

impl Pair {
    /// `first` to the other one, if it is one of the two.
    pub fn seen_from(&self, first: &str) -> Option<(&str, Ratio)> {
        match self.ratio {
            Some(ratio) if self.a == first => Some((&self.b, ratio)),
            Some(ratio) if self.b == first => Some((&self.a, ratio.inverse())),
            _ => None,
        }
    }
}

impl Section {
    /// Whether its ranks and ratios can be set beside those of other points.
    pub(crate) fn is_of_cpu(&self) -> bool {
        self.ranked_by == CPU_PER_MESSAGE
    }

    /// Rows, pairs and ranks of one workload, from the rounds that all its servers finished.
    pub fn of(workload: &Workload, servers: &[Entrant], runs: &[&Report]) -> Self {
        let mut each: BTreeMap<&str, Vec<&Report>> = BTreeMap::new();
        for report in runs {
            each.entry(&report.server).or_default().push(*report);
        }
        let rounds = each.values().map(Vec::len).min().unwrap_or(0);
        for reports in each.values_mut() {
            // A round that was interrupted counts for no server.
            reports.truncate(rounds);
        }
        let rule = SignedRank::of(rounds);
        let null = Reference::of(each.get(NULL));
        let again = Reference::of(each.get(NULL_AGAIN));
        let ours = |name: &str| servers.iter().any(|server| server.name == name && server.ours);
        let mut rows: Vec<Row> = each
            .iter()
            .filter(|(name, _)| **name != NULL_AGAIN)
            .map(|(name, reports)| row(name, ours(name), reports, &null, &rule))
            .collect();
        if workload.rate.is_some() {
            // The rate of an open loop is given: it is no limit of a server.
            rows.iter_mut().for_each(|row| row.at_ceiling = false);
        }
        let bystanders = workload.disturbance.is_some();
        for row in rows.iter_mut().filter(|row| bystanders && row.status != Status::Invalid) {
            let p99 = |m: &Measured| Some(m.main_latency()?.p99 as f64);
            row.measure = each_of(&each[row.server.as_str()], &p99);
        }
        for row in &mut rows {
            let complete = row.measure.len() == rounds && rounds > 0;
            row.rank = (row.server != NULL && complete).then_some(1);
        }
        for row in &mut rows {
            let lacks = servers.iter().filter(|s| s.name == row.server).flat_map(|s| &s.lacks);
            let here = lacks.filter(|lack| lack.mode == workload.mode);
            row.lacks = here.map(|lack| lack.what.clone()).collect();
        }
        let pairs = pairs(&rows, &rule);
        rank(&mut rows, &pairs);
        let completeness = if bystanders { Vec::new() } else { completeness(servers, &pairs) };
        Self {
            workload: workload.clone(),
            rounds: rounds as u32,
            ranked_by: if bystanders { "the bystanders' p99" } else { CPU_PER_MESSAGE }.into(),
            rows,
            pairs,
            completeness,
            noise: rule.ratio(&null.cpu, &again.cpu),
            rate_noise: rule.ratio(&null.rate, &again.rate).filter(|_| workload.rate.is_none()),
        }
    }
}

/// The null reference's numbers, round by round.
struct Reference {
    cpu: Vec<f64>,
    rate: Vec<f64>,
}

impl Reference {
    fn of(reports: Option<&Vec<&Report>>) -> Self {
        let reports = reports.map_or(&[][..], Vec::as_slice);
        Self { cpu: each_of(reports, &cpu), rate: each_of(reports, &rate) }
    }
}

fn cpu(measured: &Measured) -> Option<f64> {
    measured.cost.as_ref().map(|cost| cost.cpu_ns_per_message)
}

fn rate(measured: &Measured) -> Option<f64> {
    Some(measured.messages_per_second)
}

/// One measure, of each round that has it.
fn each_of(reports: &[&Report], measure: &dyn Fn(&Measured) -> Option<f64>) -> Vec<f64> {
    reports.iter().filter_map(|report| report.measured.as_ref().and_then(measure)).collect()
}

fn row(name: &str, ours: bool, reports: &[&Report], null: &Reference, rule: &SignedRank) -> Row {
    let mut counted: BTreeMap<&str, u32> = BTreeMap::new();
    for reason in reports.iter().flat_map(|report| &report.verdict.reasons) {
        // What stands in parentheses is the single round's.
        *counted.entry(reason.split(" (").next().unwrap_or(reason)).or_default() += 1;
    }
    let status = reports.iter().map(|r| r.verdict.status).max().unwrap_or(Status::Invalid);
    // One INVALID round leaves no number of any.
    let valid = if status == Status::Invalid { &[] } else { reports };
    let spread = |measure: &dyn Fn(&Measured) -> Option<f64>| Spread::of(&each_of(valid, measure));
    let cost = |pick: fn(&Cost) -> f64| spread(&move |m: &Measured| m.cost.as_ref().map(pick));
    let measure = each_of(valid, &cpu);
    let ratios: Vec<f64> = measure.iter().zip(&null.cpu).map(|(own, null)| own / null).collect();
    let to_ceiling = rule.ratio(&each_of(valid, &rate), &null.rate);
    Row {
        server: name.to_owned(),
        ours,
        lacks: Vec::new(),
        rank: None,
        shared: false,
        rate: spread(&rate),
        at_ceiling: name != NULL && to_ceiling.is_some_and(|ratio| ratio.high >= 1.0),
        p50_ns: spread(&|m| Some(m.main_latency()?.p50 as f64)),
        p99_ns: spread(&|m| Some(m.main_latency()?.p99 as f64)),
        to_calm: spread(&|m| Some(m.disturbed.as_ref()?.p99_ratio)),
        cpu_ns: spread(&cpu),
        cpu_share: spread(&|m| Some(cpu(m)? * m.messages_per_second / 1e9)),
        to_null: Spread::of(&ratios).map(|s| s.median),
        user_share: user_share(valid),
        switches: cost(|c| c.voluntary_switches_per_message + c.involuntary_switches_per_message),
        calls: spread(&|m| m.system_calls_per_message),
        peak_rss: cost(|c| c.peak_rss_bytes as f64),
        idle_bytes: spread(&|m| m.idle_bytes_per_connection),
        kernel_bytes: spread(&|m| m.kernel_bytes_per_connection),
        flood_control: reports.iter().find_map(|report| report.flood_control),
        status,
        doubted: reports.iter().filter(|r| r.verdict.status != Status::Valid).count() as u32,
        reasons: counted
            .iter()
            .map(|(why, n)| format!("{why} (in {n} of {} rounds)", reports.len()))
            .collect(),
        example: reports.iter().find_map(|report| report.examples.first().cloned()),
        measure,
    }
}

/// The part of user space over all rounds together. Records from before the ticks were kept have
/// it for the rounds that were long enough by themselves.
fn user_share(reports: &[&Report]) -> Option<f64> {
    let costs = reports.iter().filter_map(|report| report.measured.as_ref()?.cost.as_ref());
    let ticks = costs
        .clone()
        .fold([0, 0], |[user, kernel], cost| [user + cost.ticks[0], kernel + cost.ticks[1]]);
    let known: Vec<f64> = costs.filter_map(|cost| cost.user_share).collect();
    measure::user_share(ticks).or_else(|| Spread::of(&known).map(|share| share.median))
}

/// Every pair of those that can be ranked, and whether it is shown to differ.
fn pairs(rows: &[Row], rule: &SignedRank) -> Vec<Pair> {
    let ranked: Vec<&Row> = rows.iter().filter(|row| row.rank.is_some()).collect();
    let mut pairs = Vec::new();
    for (n, a) in ranked.iter().enumerate() {
        for b in &ranked[n + 1..] {
            let ratio = rule.ratio(&a.measure, &b.measure);
            let (a, b) = (a.server.clone(), b.server.clone());
            pairs.push(Pair { a, b, apart: false, ratio });
        }
    }
    let chances: Vec<f64> = pairs.iter().map(|pair| pair.ratio.map_or(1.0, |r| r.p)).collect();
    for (pair, shown) in pairs.iter_mut().zip(shown(&chances)) {
        pair.apart = shown;
    }
    pairs
}

/// Ranks follow from the pairs: one more than the number of those shown to be better.
fn rank(rows: &mut [Row], pairs: &[Pair]) {
    let apart: Vec<&Pair> = pairs.iter().filter(|pair| pair.apart).collect();
    for row in rows.iter_mut().filter(|row| row.rank.is_some()) {
        let seen = apart.iter().filter_map(|pair| pair.seen_from(&row.server));
        row.rank = Some(1 + seen.filter(|(_, ratio)| ratio.ratio > 1.0).count());
    }
    let ranks: Vec<Option<usize>> = rows.iter().map(|row| row.rank).collect();
    for row in rows.iter_mut().filter(|row| row.rank.is_some()) {
        row.shared = ranks.iter().filter(|&&other| other == row.rank).count() > 1;
    }
    let middle = |row: &Row| Spread::of(&row.measure).map_or(f64::INFINITY, |s| s.median);
    rows.sort_by(|a, b| {
        let key = |row: &Row| (row.server == NULL, row.rank.unwrap_or(usize::MAX));
        key(a).cmp(&key(b)).then(middle(a).total_cmp(&middle(b)))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(server: &str, measure: [f64; 8]) -> Row {
        Row {
            server: server.into(),
            ours: true,
            lacks: Vec::new(),
            rank: Some(1),
            shared: false,
            rate: None,
            at_ceiling: false,
            p50_ns: None,
            p99_ns: None,
            to_calm: None,
            cpu_ns: None,
            cpu_share: None,
            to_null: None,
            user_share: None,
            switches: None,
            calls: None,
            peak_rss: None,
            idle_bytes: None,
            kernel_bytes: None,
            flood_control: None,
            status: Status::Valid,
            doubted: 0,
            reasons: Vec::new(),
            example: None,
            measure: measure.to_vec(),
        }
    }

    #[test]
    fn ranks_follow_from_the_pairs() {
        let noise = [1.0, 1.1, 0.9, 1.0, 1.2, 0.8, 1.0, 1.1];
        // The same drift in both: what differs is the ratio, though the ranges overlap.
        let twice = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
        let mut rows = vec![
            row("slow", twice.map(|x| x * 1.3)),
            row("fast", twice),
            row("like-fast", std::array::from_fn(|n| twice[n] * noise[n])),
        ];
        let pairs = pairs(&rows, &SignedRank::of(8));
        rank(&mut rows, &pairs);
        let ranks: Vec<_> = rows.iter().map(|r| (r.server.as_str(), r.rank, r.shared)).collect();
        // Of equal ranks the one with the lower median stands first.
        let expected = [("like-fast", Some(1), true), ("fast", Some(1), true)];
        assert_eq!((&ranks[..2], ranks[2]), (&expected[..], ("slow", Some(3), false)));
    }
}
