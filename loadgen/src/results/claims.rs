//! Claims and their verdicts on this machine.

use schemars::JsonSchema;
use serde::Serialize;

use super::stats::{Ratio, SignedRank, shown};
use crate::workload::{Claim, Experiment, Kind};

/// What was found of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Ruling {
    /// It is shown at every point.
    Holds,
    /// Its opposite, or a difference smaller than its margin, is shown at every point.
    Fails,
    /// It holds on one side of a crossing and fails on the other, or in one experiment and not in
    /// another.
    Depends,
    /// Neither is shown.
    NotShown,
    /// The experiment cannot be made on this machine.
    CannotRun,
}

impl Ruling {
    /// The words for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::Fails => "fails",
            Self::Depends => "depends",
            Self::NotShown => "not shown",
            Self::CannotRun => "cannot run here",
        }
    }
}

/// The numbers of one point: of each round in which both sides gave one.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct ClaimPoint {
    /// The value of what differs from point to point.
    pub value: u32,
    /// Of the server that the claim is about.
    pub server: Vec<f64>,
    /// Of what it is compared with. Where that is the server itself, expected to grow, these are
    /// the numbers that it would then have.
    pub to: Vec<f64>,
    /// Rounds in which the run of one of them was SUSPECT.
    pub doubted: u32,
    /// Their ratio; `None` with too few rounds.
    pub ratio: Option<Ratio>,
}

/// What was found in one experiment.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ExperimentResult {
    /// Its points.
    pub points: Vec<ClaimPoint>,
    /// Why it could not be made.
    pub cannot: Option<String>,
    /// What it says of the claim.
    pub ruling: Ruling,
    /// Where it depends: the values between which it changes.
    pub crossing: Option<(u32, u32)>,
}

impl Default for ExperimentResult {
    fn default() -> Self {
        Self { points: Vec::new(), cannot: None, ruling: Ruling::NotShown, crossing: None }
    }
}

/// A claim with what was found.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Tried {
    /// What was tried.
    pub claim: Claim,
    /// Of each of its experiments what was found.
    pub results: Vec<ExperimentResult>,
    /// The verdict.
    pub ruling: Ruling,
}

/// A number of a point that is held against a bound.
struct Test {
    claim: usize,
    experiment: usize,
    point: usize,
    bound: f64,
    ratio: Ratio,
}

/// Judges claims together: the more of them are tried, the more each has to show.
pub fn rule(tried: &mut [Tried]) {
    let tests = tests(tried);
    let chances: Vec<f64> = tests.iter().map(|test| test.ratio.p).collect();
    let shown: Vec<&Test> =
        tests.iter().zip(shown(&chances)).filter_map(|(t, shown)| shown.then_some(t)).collect();
    for (claim, one) in tried.iter_mut().enumerate() {
        for (n, (result, experiment)) in
            one.results.iter_mut().zip(&one.claim.experiments).enumerate()
        {
            let mut sides = Vec::new();
            for point in 0..result.points.len() {
                if experiment.is_counted() {
                    sides.push(counted(experiment, &result.points[point]));
                    continue;
                }
                let of_point = shown
                    .iter()
                    .filter(|test| (test.claim, test.experiment, test.point) == (claim, n, point));
                let found: Vec<(f64, bool)> =
                    of_point.map(|test| (test.bound, test.ratio.ratio > 1.0)).collect();
                sides.push(side(experiment.kind, &found));
            }
            (result.ruling, result.crossing) = conclude(result, &sides);
        }
        let rulings: Vec<Ruling> = one.results.iter().map(|result| result.ruling).collect();
        one.ruling = together(&rulings);
    }
}

/// Fills in the ratios of all points, and holds them against the bounds.
fn tests(tried: &mut [Tried]) -> Vec<Test> {
    let mut tests = Vec::new();
    for (claim, one) in tried.iter_mut().enumerate() {
        for (place, (found, experiment)) in
            one.results.iter_mut().zip(&one.claim.experiments).enumerate()
        {
            for (at, point) in found.points.iter_mut().enumerate() {
                point.ratio = SignedRank::of(point.server.len()).ratio(&point.server, &point.to);
                if experiment.is_counted() {
                    continue;
                }
                for bound in bounds(experiment.kind, experiment.margin) {
                    let of_bound = against(point, bound);
                    tests.extend(of_bound.map(|ratio| Test {
                        claim,
                        experiment: place,
                        point: at,
                        bound,
                        ratio,
                    }));
                }
            }
        }
    }
    tests
}

/// The ratios that the claim's is held against.
fn bounds(kind: Kind, margin: f64) -> Vec<f64> {
    let above = 1.0 + margin;
    match kind {
        Kind::Less => vec![1.0 / above],
        Kind::More => vec![above],
        Kind::Equal | Kind::Differ => vec![1.0 / above, above],
    }
}

/// The ratio of a point as a multiple of `bound`.
fn against(point: &ClaimPoint, bound: f64) -> Option<Ratio> {
    let server: Vec<f64> = point.server.iter().map(|number| number / bound).collect();
    SignedRank::of(server.len()).ratio(&server, &point.to)
}

/// Whether a point speaks for the claim, from the bounds that its ratio is shown to be above (true)
/// or below (false).
fn side(kind: Kind, found: &[(f64, bool)]) -> Option<bool> {
    match (kind, found) {
        (Kind::Less, [(_, above)]) => Some(!above),
        (Kind::More, [(_, above)]) => Some(*above),
        (Kind::Equal, found) => within(found),
        (Kind::Differ, found) => within(found).map(|within| !within),
        _ => None,
    }
}

/// Whether a count speaks for the claim. There is no chance in it.
fn counted(experiment: &Experiment, point: &ClaimPoint) -> Option<bool> {
    let (server, to) = (*point.server.first()?, *point.to.first()?);
    let above = 1.0 + experiment.margin;
    let within = server <= to * above && to <= server * above;
    Some(match experiment.kind {
        Kind::Less => server * above < to,
        Kind::More => server > to * above,
        Kind::Equal => within,
        Kind::Differ => !within,
    })
}

/// Whether a ratio is shown to be between two bounds, or outside of them.
fn within(found: &[(f64, bool)]) -> Option<bool> {
    let outside = found.iter().any(|&(bound, above)| (bound > 1.0) == above);
    if outside { Some(false) } else { (found.len() == 2).then_some(true) }
}

fn conclude(result: &ExperimentResult, sides: &[Option<bool>]) -> (Ruling, Option<(u32, u32)>) {
    if result.cannot.is_some() {
        return (Ruling::CannotRun, None);
    }
    let values = result.points.iter().map(|point| point.value);
    let known: Vec<(u32, bool)> =
        values.zip(sides).filter_map(|(value, side)| Some((value, (*side)?))).collect();
    let changes: Vec<(u32, u32)> =
        known.windows(2).filter(|w| w[0].1 != w[1].1).map(|w| (w[0].0, w[1].0)).collect();
    match (&changes[..], known.first()) {
        ([crossing], _) => (Ruling::Depends, Some(*crossing)),
        ([], Some((_, true))) if known.len() == sides.len() => (Ruling::Holds, None),
        ([], Some((_, false))) if known.len() == sides.len() => (Ruling::Fails, None),
        _ => (Ruling::NotShown, None),
    }
}

/// What experiments say together; those that cannot be made here say nothing.
fn together(rulings: &[Ruling]) -> Ruling {
    let made: Vec<Ruling> =
        rulings.iter().copied().filter(|ruling| *ruling != Ruling::CannotRun).collect();
    let is = |ruling| made.contains(&ruling);
    if made.is_empty() {
        Ruling::CannotRun
    } else if is(Ruling::Depends) || (is(Ruling::Holds) && is(Ruling::Fails)) {
        Ruling::Depends
    } else if is(Ruling::NotShown) {
        Ruling::NotShown
    } else {
        made[0]
    }
}

impl Tried {
    /// Without a verdict yet.
    pub fn new(claim: Claim) -> Self {
        Self { claim, results: Vec::new(), ruling: Ruling::NotShown }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An experiment whose server has `ratios` times what the other has, one for each point.
    fn result(experiment: &Experiment, ratios: &[f64]) -> ExperimentResult {
        if experiment.is_counted() {
            return count(experiment, ratios[0]);
        }
        let to: Vec<f64> = (0..10).map(|n| 100.0 + f64::from(n)).collect();
        let values = &experiment.values[usize::from(experiment.is_growth())..];
        let points = values.iter().zip(ratios).map(|(&value, ratio)| ClaimPoint {
            value,
            server: to.iter().map(|number| number * ratio).collect(),
            to: to.clone(),
            ..ClaimPoint::default()
        });
        ExperimentResult { points: points.collect(), ..ExperimentResult::default() }
    }

    /// The same of what is counted. Beside a limit of 0 there is no ratio.
    fn count(experiment: &Experiment, ratio: f64) -> ExperimentResult {
        let to = experiment.limit.unwrap_or(100.0);
        let good = experiment.limit == Some(0.0) && ratio <= 1.0 + experiment.margin / 2.0;
        let server = if good { 0.0 } else { to.max(1.0) * ratio };
        let point = ClaimPoint { server: vec![server], to: vec![to], ..ClaimPoint::default() };
        ExperimentResult { points: vec![point], ..ExperimentResult::default() }
    }

    /// Ratios that make an experiment show its claim, and those of a handicapped server that make
    /// it show the opposite.
    fn good_and_bad(experiment: &Experiment) -> (f64, Vec<f64>) {
        let within = 1.0 + experiment.margin / 2.0;
        let beyond = 1.0 + experiment.margin * 2.0;
        match experiment.kind {
            Kind::Less => (1.0 / beyond, vec![1.0 / within, 1.0, 2.0]),
            Kind::More => (beyond, vec![within, 1.0, 0.5]),
            // Less than nothing cannot be counted.
            Kind::Equal if experiment.limit == Some(0.0) => (within, vec![beyond]),
            Kind::Equal => (within, vec![1.0 / beyond, beyond]),
            Kind::Differ => (beyond, vec![1.0, within]),
        }
    }

    fn ruled(claim: &Claim, results: Vec<ExperimentResult>) -> Tried {
        let mut tried = Tried { results, ..Tried::new(claim.clone()) };
        rule(std::slice::from_mut(&mut tried));
        tried
    }

    fn alone(claim: &Claim, result: ExperimentResult) -> (Ruling, Option<(u32, u32)>) {
        let claim = Claim { experiments: claim.experiments[..1].to_vec(), ..claim.clone() };
        let tried = ruled(&claim, vec![result]);
        (tried.ruling, tried.results[0].crossing)
    }

    #[test]
    fn every_claim_can_hold_and_its_counter_example_makes_it_fail() {
        for claim in Claim::find(&[]).unwrap() {
            let everywhere =
                |pick: fn(&Experiment) -> Option<f64>| -> Option<Vec<ExperimentResult>> {
                    let of =
                        |e: &Experiment| Some(result(e, &vec![pick(e)?; e.values.len().max(1)]));
                    claim.experiments.iter().map(of).collect()
                };
            let name = &claim.name;
            let good = everywhere(|e| Some(good_and_bad(e).0)).unwrap();
            assert_eq!(ruled(&claim, good.clone()).ruling, Ruling::Holds, "{name}");
            let bad = everywhere(|e| good_and_bad(e).1.first().copied()).unwrap();
            assert_eq!(ruled(&claim, bad).ruling, Ruling::Fails, "{name}");
            // One experiment that fails is enough for the claim not to hold.
            for (n, experiment) in claim.experiments.iter().enumerate() {
                for bad in good_and_bad(experiment).1 {
                    let mut results = good.clone();
                    results[n] = result(experiment, &vec![bad; experiment.values.len().max(1)]);
                    let found = ruled(&claim, results);
                    assert_eq!(found.results[n].ruling, Ruling::Fails, "{name} {n} {bad}");
                    assert_ne!(found.ruling, Ruling::Holds, "{name} {n} {bad}");
                }
            }
        }
    }

    #[test]
    fn a_crossing_is_found_and_noise_shows_nothing() {
        let claim = &Claim::find(&["multiplexing-for-one".into()]).unwrap()[0];
        let experiment = Experiment { values: vec![1, 4, 16, 64], ..claim.experiments[0].clone() };
        let with = |ratios: &[f64]| result(&experiment, ratios);
        let crossing = alone(claim, with(&[1.5, 1.4, 0.9, 0.5]));
        assert_eq!(crossing, (Ruling::Depends, Some((4, 16))));
        assert_eq!(alone(claim, with(&[1.5, 0.5, 1.5, 0.5])).0, Ruling::NotShown);
        let mut noisy = with(&[1.5; 4]);
        for (n, number) in noisy.points[1].server.iter_mut().enumerate() {
            *number *= if n % 2 == 0 { 0.4 } else { 1.0 };
        }
        assert_eq!(alone(claim, noisy).0, Ruling::NotShown);
        let mut few = with(&[1.5; 4]);
        few.points[0].server.truncate(5);
        few.points[0].to.truncate(5);
        assert_eq!(alone(claim, few).0, Ruling::NotShown);
        let cannot = ExperimentResult { cannot: Some("no ring".into()), ..with(&[1.5; 4]) };
        assert_eq!(alone(claim, cannot).0, Ruling::CannotRun);
    }

    #[test]
    fn experiments_speak_together() {
        use Ruling::{CannotRun, Depends, Fails, Holds, NotShown};
        for (rulings, verdict) in [
            (&[Holds, Holds][..], Holds),
            (&[Fails, Fails], Fails),
            (&[Holds, Fails], Depends),
            (&[Holds, Depends], Depends),
            (&[Holds, NotShown], NotShown),
            (&[Fails, NotShown], NotShown),
            (&[Holds, NotShown, Fails], Depends),
            (&[Holds, CannotRun], Holds),
            (&[CannotRun, CannotRun], CannotRun),
        ] {
            assert_eq!(together(rulings), verdict, "{rulings:?}");
        }
    }
}
