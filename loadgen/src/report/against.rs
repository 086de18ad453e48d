//! One record against an older one: what changed beyond the noise, for people and for CI.
//!
//! The rounds of two records are no pairs, and the machine may have been faster or slower when the
//! older one was made. So each round's number is first divided by the null reference's of that
//! round, where both records have it; then the rounds are compared as two samples
//! ([`rank_sum`]), with the correction for the number of comparisons that pairs of servers have.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use schemars::JsonSchema;
use serde::Serialize;

use crate::compare::{CPU_PER_MESSAGE, Comparison, Row, Section, text};
use crate::models::NULL;
use crate::record::Stored;
use crate::run::{Settings, Status};
use crate::stats::{Ratio, Spread, rank_sum, shown};
use crate::table::draw;
use crate::workload::Workload;

/// What changed from one record to a newer one.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Against {
    /// The folder of the older record.
    pub old: String,
    /// The folder of the newer record.
    pub new: String,
    /// Every server of both at every point of both.
    pub changes: Vec<Change>,
    /// What only one of them has, in words.
    pub unmatched: Vec<String>,
}

/// One server at one point.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Change {
    /// The point.
    pub point: String,
    /// The server.
    pub server: String,
    /// The measure that is compared.
    pub measure: String,
    /// Its median before.
    pub before: Option<f64>,
    /// Its median now; none if a round of the newer record is INVALID.
    pub now: Option<f64>,
    /// now ÷ before; `None` for so few rounds that nothing can be shown.
    pub ratio: Option<Ratio>,
    /// What that amounts to.
    pub outcome: Outcome,
}

/// What a change amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Shown to be dearer, or slower.
    Worse,
    /// It had numbers, and now its answers are wrong.
    Wrong,
    /// It had numbers, and now it fails the gate, does not build, or has died.
    Gone,
    /// Shown to be cheaper, or faster.
    Better,
    /// No difference shown.
    Same,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Worse => "worse",
            Self::Wrong => "INVALID now",
            Self::Gone => "left out now",
            Self::Better => "better",
            Self::Same => "no change shown",
        }
    }

    fn regressed(self) -> bool {
        matches!(self, Self::Worse | Self::Wrong | Self::Gone)
    }
}

impl Against {
    /// What changed from `old` to `new`. Fails where the two cannot be compared.
    pub(super) fn of(new: &Stored, old: &Stored) -> Result<Self> {
        comparable(new, old)?;
        let folder = |record: &Stored| record.dir.display().to_string();
        let changed = Self::between(comparison(new)?, comparison(old)?)?;
        Ok(Self { old: folder(old), new: folder(new), ..changed })
    }

    fn between(now: &Comparison, before: &Comparison) -> Result<Self> {
        let (mut changes, mut unmatched) = (Vec::new(), Vec::new());
        for section in &now.sections {
            match before.sections.iter().find(|old| same_question(section, old)) {
                Some(old) => of_section((section, now), old, &mut changes, &mut unmatched),
                None => unmatched.push(format!("{}: only in the newer", section.workload.point())),
            }
        }
        for old in &before.sections {
            if !now.sections.iter().any(|section| same_question(section, old)) {
                unmatched.push(format!("{}: only in the older", old.workload.point()));
            }
        }
        ensure!(!changes.is_empty(), "the two records have no server at any point in common");
        let chances: Vec<f64> = changes.iter().map(|c| c.ratio.map_or(1.0, |r| r.p)).collect();
        for (change, shown) in changes.iter_mut().zip(shown(&chances)) {
            let Some(ratio) = change.ratio.filter(|_| shown) else { continue };
            change.outcome = if ratio.ratio > 1.0 { Outcome::Worse } else { Outcome::Better };
        }
        Ok(Self { old: String::new(), new: String::new(), changes, unmatched })
    }

    /// Whether anything is shown to have become worse.
    pub(super) fn regressed(&self) -> bool {
        self.changes.iter().any(|change| change.outcome.regressed())
    }

    /// All of it for people.
    pub(super) fn text(&self) -> String {
        let mut all = String::new();
        let header = ["server", "before", "now", "now / before", "outcome"];
        for of_point in self.changes.chunk_by(|a, b| a.point == b.point) {
            let (point, measure) = (&of_point[0].point, &of_point[0].measure);
            all.push_str(&format!("{point}: {measure}\n"));
            let rows: Vec<Vec<String>> = of_point.iter().map(cells).collect();
            all.push_str(&draw(&header, &rows, 1));
            all.push('\n');
        }
        for what in &self.unmatched {
            all.push_str(&format!("not compared: {what}\n"));
        }
        let count = |outcome| self.changes.iter().filter(|c| c.outcome == outcome).count();
        all + &format!(
            "{} compared: {} worse, {} INVALID or left out now, {} better, {} with no change shown\n",
            self.changes.len(),
            count(Outcome::Worse),
            count(Outcome::Wrong) + count(Outcome::Gone),
            count(Outcome::Better),
            count(Outcome::Same)
        )
    }
}

fn cells(change: &Change) -> Vec<String> {
    let number = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.3}"));
    vec![
        change.server.clone(),
        number(change.before),
        number(change.now),
        change.ratio.map_or("-".into(), |ratio| text(&ratio)),
        change.outcome.word().to_owned(),
    ]
}

/// Another machine, or another way of measuring on it, would be taken for a change.
fn comparable(new: &Stored, old: &Stored) -> Result<()> {
    let differences = new.host.differences(&old.host);
    if !differences.is_empty() {
        bail!(
            "{} and {} were made on different machines, whose numbers say nothing about each \
             other ({}); make the older one again here",
            new.dir.display(),
            old.dir.display(),
            differences.join("; ")
        );
    }
    let how = |record: &Stored| {
        let first = record.runs.first();
        first.map(|(_, run)| {
            let Settings { threads, workers, server_cpus, generator_cpus, .. } = &run.settings;
            format!(
                "--workers {workers} --threads {threads} on processors {server_cpus:?} and \
                 {generator_cpus:?}"
            )
        })
    };
    let (how_new, how_old) = (how(new).unwrap_or_default(), how(old).unwrap_or_default());
    ensure!(
        how_new == how_old,
        "the two records were not measured in the same way: {how_new} against {how_old}"
    );
    Ok(())
}

fn comparison(record: &Stored) -> Result<&Comparison> {
    match &record.comparison {
        Some(comparison) => Ok(comparison),
        None => bail!(
            "{} is not the record of a comparison: one run shows no noise, and so no change \
             beyond it (use loadgen compare --models NAME)",
            record.dir.display()
        ),
    }
}

/// Rounds may be longer or shorter, and be ranked alike all the same.
fn same_question(a: &Section, b: &Section) -> bool {
    let question = |workload: &Workload| Workload {
        duration: Duration::ZERO,
        warmup: Duration::ZERO,
        ..workload.clone()
    };
    question(&a.workload) == question(&b.workload) && a.ranked_by == b.ranked_by
}

/// Every server that had numbers in `old` and was asked for in `new`.
fn of_section(
    (new, tried): (&Section, &Comparison),
    old: &Section,
    changes: &mut Vec<Change>,
    unmatched: &mut Vec<String>,
) {
    let point = new.workload.point();
    let whole = |section: &Section| {
        row(section, NULL).is_some_and(|null| null.measure.len() == section.rounds as usize)
    };
    let beside_null = new.ranked_by == CPU_PER_MESSAGE && whole(new) && whole(old);
    let beside = if beside_null { ", as a multiple of the null reference's" } else { "" };
    let values = |section: &Section, server: &str| -> Vec<f64> {
        let own = row(section, server).map_or(&[][..], |row| &row.measure);
        match row(section, NULL).filter(|_| beside_null) {
            Some(null) => own.iter().zip(&null.measure).map(|(own, null)| own / null).collect(),
            None => own.to_vec(),
        }
    };
    for before in old.rows.iter().filter(|row| row.server != NULL && !row.measure.is_empty()) {
        let server = &before.server;
        let outcome = match row(new, server) {
            Some(row) if row.status == Status::Invalid => Outcome::Wrong,
            Some(_) => Outcome::Same,
            None if tried.left_out.iter().any(|(name, _)| name == server) => Outcome::Gone,
            None => {
                unmatched.push(format!("{server} at {point}: only in the older"));
                continue;
            }
        };
        let (was, is) = (values(old, server), values(new, server));
        let median = |values: &[f64]| Spread::of(values).map(|spread| spread.median);
        changes.push(Change {
            point: point.clone(),
            server: server.clone(),
            measure: format!("{}{beside}", new.ranked_by),
            before: median(&was),
            now: median(&is),
            ratio: rank_sum(&is, &was),
            outcome,
        });
    }
    let newcomer = |now: &&Row| now.server != NULL && row(old, &now.server).is_none();
    for now in new.rows.iter().filter(newcomer) {
        unmatched.push(format!("{} at {point}: only in the newer", now.server));
    }
}

fn row<'a>(section: &'a Section, server: &str) -> Option<&'a Row> {
    section.rows.iter().find(|row| row.server == server)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A section of eight rounds in which each of `servers` takes so much, and the null reference
    /// what the machine makes of 1,000 ns.
    fn comparison(machine: f64, servers: &[(&str, f64)]) -> Comparison {
        let noise = [1.0, 1.03, 0.98, 1.01, 0.99, 1.02, 0.97, 1.0];
        let rows: Vec<serde_json::Value> = servers
            .iter()
            .chain(&[(NULL, 1000.0)])
            .enumerate()
            .map(|(n, (server, each))| {
                // The machine's noise falls on all alike, and each has some of its own.
                let own = |round: usize| each * machine * noise[round] * noise[(round + n) % 8];
                serde_json::json!({
                    "server": server, "shared": false, "status": "VALID", "reasons": [],
                    "measure": (0..8).map(own).collect::<Vec<f64>>(),
                })
            })
            .collect();
        let second = Duration::from_secs(1);
        let workload = Workload::find("ping-pong", &Default::default(), second, second).unwrap();
        serde_json::from_value(serde_json::json!({
            "rounds": 8, "servers": [], "left_out": [], "interrupted": false,
            "sections": [{ "workload": workload, "rounds": 8, "ranked_by": CPU_PER_MESSAGE,
                           "rows": rows, "pairs": [] }],
        }))
        .unwrap()
    }

    fn outcomes(new: &Comparison, old: &Comparison) -> Vec<(String, Outcome)> {
        let against = Against::between(new, old).unwrap();
        against.changes.into_iter().map(|c| (c.server, c.outcome)).collect()
    }

    #[test]
    fn what_changed_is_told_from_a_slower_machine() {
        let old = comparison(1.0, &[("a", 1100.0), ("b", 1200.0), ("c", 1300.0)]);
        let new = comparison(1.5, &[("a", 1300.0), ("b", 1200.0), ("c", 1100.0)]);
        let expected = [("a", Outcome::Worse), ("b", Outcome::Same), ("c", Outcome::Better)];
        assert_eq!(outcomes(&new, &old), expected.map(|(name, outcome)| (name.into(), outcome)));
        assert!(outcomes(&old, &old).iter().all(|(_, outcome)| *outcome == Outcome::Same));
    }

    #[test]
    fn wrong_answers_and_a_failed_gate_are_worse_than_any_number() {
        let old = comparison(1.0, &[("a", 1100.0), ("b", 1200.0), ("c", 1.0)]);
        let mut new = comparison(1.0, &[("a", 1100.0)]);
        let wrong = new.sections[0].rows.iter_mut().find(|row| row.server == "a").unwrap();
        (wrong.status, wrong.measure) = (Status::Invalid, Vec::new());
        new.left_out.push(("b".into(), "fails the echo gate".into()));
        let against = Against::between(&new, &old).unwrap();
        let seen: Vec<_> = against.changes.iter().map(|c| (c.server.as_str(), c.outcome)).collect();
        assert_eq!(seen, [("a", Outcome::Wrong), ("b", Outcome::Gone)]);
        assert!(against.regressed() && against.unmatched[0].starts_with("c at "));
        assert!(Against::between(&comparison(1.0, &[("z", 1.0)]), &old).is_err());
    }
}
