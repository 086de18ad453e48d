//! One record against an older one: what changed beyond the noise, for people and for CI.
//!
//! The rounds of two records are no pairs, and the machine may have been faster or slower when the
//! older one was made. So each round's number is first divided by the null reference's of that
//! round; then the rounds are compared as two samples ([`rank_sum`]), with the correction for the
//! number of comparisons that pairs of servers have. Where a record has no reference, as in chat
//! and beside disturbers, the ratio is shown and nothing is made of it.

use std::time::Duration;

use anyhow::{Result, ensure};
use schemars::JsonSchema;
use serde::Serialize;

use super::comparison::Comparison;
use super::section::{CPU_PER_MESSAGE, Row, Section};
use super::stats::{Ratio, Spread, rank_sum, shown};
use crate::measure::Status;
use crate::target::NULL;
use crate::workload::Workload;

/// By what part a number must have changed at least. The rounds of a record share its minutes, and
/// those differ by more than rounds do, even beside the reference: one and the same program, asked
/// again minutes later, was found at 0.85 to 1.06 of itself.
const MARGIN: f64 = 0.10;

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
    /// What else may be behind the ratios, and why some are not judged, in words.
    pub notes: Vec<String>,
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
    /// now ÷ before; `None` for so few rounds that nothing can be shown. Where it is not judged,
    /// it is of the machine as well.
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
    /// Enough rounds, and no difference shown.
    Same,
    /// Too few rounds to show any difference.
    TooFewRounds,
    /// Without the null reference in both records: the server cannot be told from the machine.
    NotJudged,
}

impl Outcome {
    /// In words.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Worse => "worse",
            Self::Wrong => "INVALID now",
            Self::Gone => "left out now",
            Self::Better => "better",
            Self::Same => "no change shown",
            Self::TooFewRounds => "cannot tell: too few rounds",
            Self::NotJudged => "not judged",
        }
    }

    fn regressed(self) -> bool {
        matches!(self, Self::Worse | Self::Wrong | Self::Gone)
    }

    fn judged(self) -> bool {
        !matches!(self, Self::TooFewRounds | Self::NotJudged)
    }
}

impl Against {
    /// What changed from `before` to `now`. Fails where they have nothing in common.
    pub(crate) fn between(now: &Comparison, before: &Comparison) -> Result<Self> {
        let (mut changes, mut unmatched) = (Vec::new(), Vec::new());
        let mut both = Vec::new();
        for section in &now.sections {
            match before.sections.iter().find(|old| same_question(section, old)) {
                Some(old) => {
                    of_section((section, now), old, &mut changes, &mut unmatched);
                    both.push((section, old));
                }
                None => unmatched.push(format!("{}: only in the newer", section.workload.point())),
            }
        }
        for old in &before.sections {
            if !now.sections.iter().any(|section| same_question(section, old)) {
                unmatched.push(format!("{}: only in the older", old.workload.point()));
            }
        }
        ensure!(!changes.is_empty(), "the two records have no server at any point in common");
        let mut open: Vec<(&mut Change, Ratio)> = changes
            .iter_mut()
            .filter(|change| change.outcome == Outcome::Same)
            .filter_map(|change| change.ratio.map(|ratio| (change, ratio)))
            .collect();
        let chances: Vec<f64> = open.iter().map(|(_, ratio)| ratio.p).collect();
        for ((change, ratio), shown) in open.iter_mut().zip(shown(&chances)) {
            if shown && ratio.low > 1.0 + MARGIN {
                change.outcome = Outcome::Worse;
            } else if shown && ratio.high < 1.0 / (1.0 + MARGIN) {
                change.outcome = Outcome::Better;
            }
        }
        let notes = other_times(&both).into_iter().chain(not_judged(&changes)).collect();
        Ok(Self { old: String::new(), new: String::new(), changes, unmatched, notes })
    }

    /// Whether anything is shown to have become worse.
    pub(crate) fn regressed(&self) -> bool {
        self.changes.iter().any(|change| change.outcome.regressed())
    }

    /// Whether anything could be judged.
    pub(crate) fn judged(&self) -> bool {
        self.changes.iter().any(|change| change.outcome.judged())
    }
}

/// Where rounds were longer or shorter: each pair of times once, with its points.
fn other_times(both: &[(&Section, &Section)]) -> Vec<String> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for (new, old) in both {
        let times = |section: &Section| {
            let Workload { duration, warmup, .. } = &section.workload;
            let [duration, warmup] = [duration, warmup].map(Duration::as_secs_f64);
            format!("{duration:.2} s after {warmup:.2} s of warm-up")
        };
        let (before, now) = (times(old), times(new));
        if before == now {
            continue;
        }
        let words = format!("rounds of {before} before, of {now} now");
        let point = new.workload.point();
        match found.iter_mut().find(|(known, _)| *known == words) {
            Some((_, points)) => points.push(point),
            None => found.push((words, vec![point])),
        }
    }
    found.into_iter().map(|(words, points)| format!("{words}: {}", points.join("; "))).collect()
}

/// Why changes are not judged, once for all of them.
fn not_judged(changes: &[Change]) -> Option<String> {
    let of = changes.iter().filter(|change| change.outcome == Outcome::NotJudged);
    let mut points: Vec<&str> = of.map(|change| change.point.as_str()).collect();
    points.dedup();
    (!points.is_empty()).then(|| {
        format!(
            "not judged, because without the null reference in every round of both records a \
             changed server looks like a machine that was slower or faster that day: {}",
            points.join("; ")
        )
    })
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
            Some(_) if !beside_null => Outcome::NotJudged,
            Some(_) => Outcome::Same,
            None if tried.left_out.iter().any(|(name, _)| name == server) => Outcome::Gone,
            None => {
                unmatched.push(format!("{server} at {point}: only in the older"));
                continue;
            }
        };
        let (was, is) = (values(old, server), values(new, server));
        let median = |values: &[f64]| Spread::of(values).map(|spread| spread.median);
        let ratio = rank_sum(&is, &was);
        let unknown = ratio.is_none() && outcome == Outcome::Same;
        changes.push(Change {
            point: point.clone(),
            server: server.clone(),
            measure: format!("{}{beside}", new.ranked_by),
            before: median(&was),
            now: median(&is),
            ratio,
            outcome: if unknown { Outcome::TooFewRounds } else { outcome },
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
    fn without_the_reference_or_enough_rounds_nothing_is_judged() {
        let (old, new) = (comparison(1.0, &[("a", 1.0)]), comparison(1.5, &[("a", 2.0)]));
        let without = |comparison: &Comparison| {
            let mut comparison = comparison.clone();
            comparison.sections[0].rows.retain(|row| row.server != NULL);
            comparison
        };
        for (new, old) in [(without(&new), old.clone()), (new.clone(), without(&old))] {
            let against = Against::between(&new, &old).unwrap();
            assert_eq!(against.changes[0].outcome, Outcome::NotJudged);
            assert!(against.changes[0].ratio.unwrap().low > 1.0, "it is shown all the same");
            assert!(!against.regressed() && !against.judged());
            let said = |note: &&String| note.contains("null reference");
            assert_eq!(against.notes.iter().filter(said).count(), 1, "{:?}", against.notes);
        }
        let few = |comparison: &Comparison| {
            let mut comparison = comparison.clone();
            comparison.sections[0].rounds = 3;
            comparison.sections[0].rows.iter_mut().for_each(|row| row.measure.truncate(3));
            comparison
        };
        let against = Against::between(&few(&new), &few(&old)).unwrap();
        assert_eq!(against.changes[0].outcome, Outcome::TooFewRounds);
        assert!(!against.judged());
    }

    #[test]
    fn other_times_are_said() {
        let (old, mut new) = (comparison(1.0, &[("a", 1.0)]), comparison(1.0, &[("a", 1.0)]));
        assert!(Against::between(&new, &old).unwrap().notes.is_empty());
        new.sections[0].workload.warmup = Duration::from_millis(250);
        let notes = Against::between(&new, &old).unwrap().notes;
        assert!(notes.len() == 1 && notes[0].contains("0.25 s of warm-up now"), "{notes:?}");
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
