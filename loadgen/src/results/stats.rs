//! The few statistics a report needs: medians, ranges, and whether two servers differ.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Median and range of the rounds of one measure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Spread {
    /// The middle value.
    pub median: f64,
    /// The smallest value.
    pub low: f64,
    /// The largest value.
    pub high: f64,
}

impl Spread {
    /// `None` without values.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            (sorted[middle - 1] + sorted[middle]) / 2.0
        };
        Some(Self { median, low, high })
    }
}

/// Level of an interval, and of what counts as shown: one in twenty.
const LEVEL: f64 = 0.05;
/// The fewest rounds that can show a difference: with five, even if all of them say the same,
/// chance alone says so in 1 of 16 cases.
pub const FEWEST_ROUNDS: usize = 6;

/// A ratio over rounds with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Ratio {
    /// The Hodges-Lehmann estimate: the median over all pairs of rounds of the geometric mean of
    /// their ratios; where rounds are not paired, the median of all ratios.
    pub ratio: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
    /// The chance that two equal servers come out at least so far apart.
    #[serde(default = "certain")]
    pub p: f64,
}

fn certain() -> f64 {
    1.0
}

impl Ratio {
    /// The other way round: b to a.
    pub fn inverse(&self) -> Self {
        Self { ratio: 1.0 / self.ratio, low: 1.0 / self.high, high: 1.0 / self.low, p: self.p }
    }

    /// How far from 1 the interval begins, as a factor; 1 if it holds 1.
    pub fn shown(&self) -> f64 {
        self.low.max(1.0 / self.high).max(1.0)
    }
}

/// With its interval: `1.52 [1.44 .. 1.60]`.
impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} [{:.2} .. {:.2}]", self.ratio, self.low, self.high)
    }
}

/// Wilcoxon's signed-rank test and the interval that belongs to it, for a number of rounds.
///
/// If two servers are equal, either might have had the other's number in any round, so the logs of
/// their ratios are symmetric about zero, whatever the shape of the noise: the level holds without
/// any further assumption but that rounds are independent. A few rounds gone astray move it little.
/// Source: Hollander, Wolfe and Chicken, Nonparametric Statistical Methods, 3rd ed., 3.1 to 3.3.
#[derive(Debug)]
pub struct SignedRank {
    rounds: usize,
    /// The chance that the statistic is at most its index.
    at_most: Vec<f64>,
}

impl SignedRank {
    /// The exact distribution: each rank from 1 to `rounds` is in the sum or not, evenly.
    pub fn of(rounds: usize) -> Self {
        let mut chance = vec![0.0; rounds * (rounds + 1) / 2 + 1];
        chance[0] = 1.0;
        for rank in 1..=rounds {
            for sum in (0..chance.len()).rev() {
                let with = if sum >= rank { chance[sum - rank] } else { 0.0 };
                chance[sum] = (chance[sum] + with) / 2.0;
            }
        }
        let mut sum = 0.0;
        for chance in &mut chance {
            sum += *chance;
            *chance = sum;
        }
        Self { rounds, at_most: chance }
    }

    /// `a` to `b`, round by round. `None` for other than the expected number of rounds, for fewer
    /// than [`FEWEST_ROUNDS`], or for numbers that have no ratio.
    pub fn ratio(&self, a: &[f64], b: &[f64]) -> Option<Ratio> {
        let logs: Vec<f64> = a.iter().zip(b).map(|(a, b)| (a / b).ln()).collect();
        let usable = logs.iter().all(|log| log.is_finite());
        if logs.len() != self.rounds || self.rounds < FEWEST_ROUNDS || !usable {
            return None;
        }
        // The statistic is the number of Walsh averages above zero.
        let mut averages = Vec::with_capacity(self.at_most.len() - 1);
        for (n, one) in logs.iter().enumerate() {
            averages.extend(logs[n..].iter().map(|other| (one + other) / 2.0));
        }
        estimate(averages, &self.at_most)
    }
}

/// `a` to `b` where their rounds are not of one run, and so not pairs: the test of Wilcoxon, Mann
/// and Whitney and the interval that belongs to it. If the two are equal, any of the rounds might
/// have been of either. `None` for so few rounds that nothing could be shown, or for numbers that
/// have no ratio. Source: Hollander, Wolfe and Chicken, 4.1 to 4.3.
pub fn rank_sum(a: &[f64], b: &[f64]) -> Option<Ratio> {
    // The statistic is the number of pairs in which `a` is above `b`.
    let logs = a.iter().flat_map(|a| b.iter().map(move |b| (a / b).ln()));
    let logs: Vec<f64> = logs.collect();
    let usable = !logs.is_empty() && logs.iter().all(|log| log.is_finite());
    if usable { estimate(logs, &rank_sum_at_most(a.len(), b.len())) } else { None }
}

/// The chance that the statistic is at most its index: the coefficients of the Gaussian binomial
/// `a + b` over `a`, each the number of orders of the rounds with that statistic.
fn rank_sum_at_most(a: usize, b: usize) -> Vec<f64> {
    let mut orders = vec![0.0; a * b + 1];
    orders[0] = 1.0;
    for k in 1..=a {
        // Times 1 - x^(b + k), then divided by 1 - x^k.
        for n in (b + k..orders.len()).rev() {
            orders[n] -= orders[n - b - k];
        }
        for n in k..orders.len() {
            orders[n] += orders[n - k];
        }
    }
    let all: f64 = orders.iter().sum();
    let mut sum = 0.0;
    for orders in &mut orders {
        sum += *orders / all;
        *orders = sum;
    }
    orders
}

/// The estimate, its interval and the chance of a test whose statistic is how many of `logs` are
/// above zero; `at_most` is the distribution of that number if there is no difference.
fn estimate(mut logs: Vec<f64>, at_most: &[f64]) -> Option<Ratio> {
    logs.sort_by(f64::total_cmp);
    let all = logs.len();
    let (above, below) = logs.iter().fold((0, 0), |(above, below), &log| {
        (above + usize::from(log > 0.0), below + usize::from(log < 0.0))
    });
    let cut = at_most.iter().take_while(|&&chance| chance <= LEVEL / 2.0).count();
    Some(Ratio {
        ratio: Spread::of(&logs)?.median.exp(),
        low: logs[cut.checked_sub(1)?].exp(),
        high: logs[all - cut].exp(),
        p: (2.0 * at_most[(all - above).min(all - below)]).min(1.0),
    })
}

/// Which of these chances count as shown, so that of all that do, one in twenty at most is
/// expected to be false. Source: Benjamini and Hochberg, J. R. Statist. Soc. B 57 (1995) 289-300;
/// for comparisons of all pairs: Williams, Jones and Tukey, J. Educ. Behav. Stat. 24 (1999) 42-69.
pub fn shown(chances: &[f64]) -> Vec<bool> {
    let mut sorted = chances.to_vec();
    sorted.sort_by(f64::total_cmp);
    let allowed = |n: usize| LEVEL * (n + 1) as f64 / chances.len() as f64;
    let most = (0..sorted.len()).rev().find(|&n| sorted[n] <= allowed(n)).map(|n| sorted[n]);
    chances.iter().map(|chance| most.is_some_and(|most| *chance <= most)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_ranges() {
        let spread = |values: &[f64]| Spread::of(values);
        let expected = Spread { median: 2.0, low: 1.0, high: 3.0 };
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Some(expected));
        assert_eq!(spread(&[4.0, 1.0]).map(|s| s.median), Some(2.5));
        assert_eq!(spread(&[4.0, 1.0, 9.0, 3.0]).map(|s| s.median), Some(3.5));
        assert_eq!(spread(&[]), None);
    }

    #[test]
    fn the_distribution_is_that_of_the_tables() {
        // Wilcoxon's table: the largest sums that are significant at 5 %, both sides together.
        for (rounds, largest) in [(6, 0), (7, 2), (8, 3), (9, 5), (10, 8), (16, 29), (25, 89)] {
            let chances = SignedRank::of(rounds).at_most;
            let cut = chances.iter().take_while(|&&chance| chance <= 0.025).count();
            assert_eq!(cut - 1, largest, "{rounds} rounds");
            assert!((chances.last().unwrap() - 1.0).abs() < 1e-9);
        }
    }

    #[test]
    fn a_ratio_has_an_interval_around_it() {
        let a = [11.0, 22.0, 33.0, 44.0, 55.0, 67.0];
        let b = [10.0, 20.0, 30.0, 39.0, 50.0, 60.0];
        let six = SignedRank::of(6);
        let ratio = six.ratio(&a, &b).unwrap();
        assert!(ratio.low > 1.05 && ratio.low <= ratio.ratio && ratio.ratio <= ratio.high);
        assert!((ratio.p - 2.0 / 64.0).abs() < 1e-9, "{ratio:?}");
        // With six rounds nothing is cut off: the interval has the lowest and the highest ratio.
        assert!((ratio.low - 1.1).abs() < 1e-9 && (ratio.high - 44.0 / 39.0).abs() < 1e-9);
        let inverse = six.ratio(&b, &a).unwrap();
        assert!((inverse.low - ratio.inverse().low).abs() < 1e-9);
        assert!((inverse.high - ratio.inverse().high).abs() < 1e-9 && inverse.p == ratio.p);
        assert!((ratio.shown() - ratio.low).abs() < 1e-9);
        assert!((inverse.shown() - ratio.low).abs() < 1e-9);
        // Equal throughout: an interval of no width, and nothing shown.
        let same = six.ratio(&a, &a).unwrap();
        assert_eq!((same.low, same.high, same.p, same.shown()), (1.0, 1.0, 1.0, 1.0));
        assert!(SignedRank::of(5).ratio(&a[..5], &b[..5]).is_none(), "too few can show nothing");
        assert!(six.ratio(&a[..5], &b).is_none() && six.ratio(&[0.0; 6], &b).is_none());
    }

    #[test]
    fn a_ratio_the_other_way_round_has_its_ends_exchanged() {
        let ratio = Ratio { ratio: 0.5, low: 0.25, high: 0.8, p: 0.01 };
        assert_eq!(ratio.inverse(), Ratio { ratio: 2.0, low: 1.25, high: 4.0, p: 0.01 });
        assert_eq!(ratio.to_string(), "0.50 [0.25 .. 0.80]");
    }

    #[test]
    fn a_ratio_of_a_record_without_a_chance_shows_nothing() {
        let ratio: Ratio = serde_json::from_str(r#"{"ratio": 2, "low": 1.5, "high": 3}"#).unwrap();
        assert_eq!(ratio.p, 1.0);
    }

    #[test]
    fn the_distribution_without_pairs_is_that_of_the_tables() {
        // Mann and Whitney's table: the largest statistics significant at 5 %, both sides together.
        for (a, b, largest) in [(4, 4, 0), (5, 5, 2), (6, 6, 5), (8, 8, 13), (10, 8, 17)] {
            let chances = rank_sum_at_most(a, b);
            let cut = chances.iter().take_while(|&&chance| chance <= 0.025).count();
            assert_eq!(cut - 1, largest, "{a} and {b} rounds");
            assert!((chances[a * b] - 1.0).abs() < 1e-9);
        }
    }

    #[test]
    fn rounds_of_two_runs_are_compared() {
        let (a, b) = ([11.0, 11.2, 10.8, 11.1], [10.0, 10.1, 9.9, 10.2, 10.0]);
        let ratio = rank_sum(&a, &b).unwrap();
        assert!(ratio.low > 1.05 && ratio.low <= ratio.ratio && ratio.ratio <= ratio.high);
        assert!((ratio.p - 2.0 / 126.0).abs() < 1e-9, "{ratio:?}");
        assert!((rank_sum(&b, &a).unwrap().low - ratio.inverse().low).abs() < 1e-9);
        assert_eq!(rank_sum(&a, &a).map(|same| same.p), Some(1.0));
        assert!(rank_sum(&a[..3], &b[..3]).is_none(), "too few can show nothing");
        assert!(rank_sum(&[], &b).is_none() && rank_sum(&[0.0; 4], &b).is_none());
    }

    #[test]
    fn one_round_gone_astray_moves_little() {
        let b = [100.0; 8];
        let mut a = [110.0, 111.0, 109.0, 110.0, 112.0, 108.0, 110.0, 111.0];
        a[3] = 40.0;
        let ratio = SignedRank::of(8).ratio(&a, &b).unwrap();
        assert!((ratio.ratio - 1.1).abs() < 0.01, "{ratio:?}");
    }

    #[test]
    fn what_is_shown_among_many() {
        assert_eq!(shown(&[0.04]), [true]);
        assert_eq!(shown(&[0.05, 0.05]), [true; 2], "as much as is allowed");
        assert_eq!(shown(&[0.04, 0.5]), [false, false]);
        assert_eq!(shown(&[0.5, 0.01, 0.04, 0.03]), [false, true, false, false]);
        assert_eq!(shown(&[0.03, 0.01, 0.04, 0.03]), [true; 4]);
        assert_eq!(shown(&[]), [false; 0]);
    }
}
