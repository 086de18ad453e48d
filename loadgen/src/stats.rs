//! The few statistics a report needs: medians, ranges, ranks, and a paired bootstrap.

use std::cmp::Ordering;

use hdrhistogram::Histogram;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::check::splitmix;

/// Resamples of a bootstrap.
const RESAMPLES: usize = 2000;

/// A latency distribution in numbers; all in nanoseconds.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Latency {
    /// Values recorded.
    pub count: u64,
    /// The smallest.
    pub min: u64,
    /// The arithmetic mean.
    pub mean: f64,
    /// Half are at most this.
    pub p50: u64,
    /// 90 % are at most this.
    pub p90: u64,
    /// 99 % are at most this.
    pub p99: u64,
    /// 99.9 % are at most this.
    pub p999: u64,
    /// The largest.
    pub max: u64,
}

impl Latency {
    /// Sums up a histogram of nanoseconds.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        Self {
            count: histogram.len(),
            min: histogram.min(),
            mean: histogram.mean(),
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: histogram.max(),
        }
    }
}

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

    /// Less or greater only where the ranges have no point in common.
    pub fn apart(&self, other: &Self) -> Ordering {
        match (self.high < other.low, other.high < self.low) {
            (true, _) => Ordering::Less,
            (_, true) => Ordering::Greater,
            _ => Ordering::Equal,
        }
    }
}

/// For each value its rank: one more than the number of those shown to be smaller. Those whose
/// ranges overlap with the smallest share the first rank.
pub fn ranks(spreads: &[Spread]) -> Vec<usize> {
    spreads
        .iter()
        .map(|own| 1 + spreads.iter().filter(|s| s.apart(own) == Ordering::Less).count())
        .collect()
}

/// The chance that two equal servers of `rounds` rounds each have ranges that do not overlap.
pub fn false_difference(rounds: usize) -> f64 {
    // Of the orders of 2n values, two put all of one before all of the other.
    (1..=rounds).fold(2.0, |chance, n| chance * n as f64 / (rounds + n) as f64)
}

/// The ratio of `a` to `b`, round by round, with a 95 % interval from a seeded bootstrap.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Ratio {
    /// The geometric mean of the rounds' ratios.
    pub ratio: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

impl Ratio {
    /// `None` for fewer than three pairs, of which no interval can be made.
    pub fn paired(a: &[f64], b: &[f64], seed: u64) -> Option<Self> {
        let logs: Vec<f64> = a.iter().zip(b).map(|(a, b)| (a / b).ln()).collect();
        if logs.len() < 3 || logs.iter().any(|x| !x.is_finite()) {
            return None;
        }
        let mean = |sum: f64| sum / logs.len() as f64;
        let mut state = seed;
        let mut resampled: Vec<f64> = (0..RESAMPLES)
            .map(|_| {
                let pick = |_| logs[(splitmix(&mut state) % logs.len() as u64) as usize];
                mean((0..logs.len()).map(pick).sum())
            })
            .collect();
        resampled.sort_by(f64::total_cmp);
        let at = |part: f64| resampled[(part * (RESAMPLES - 1) as f64) as usize].exp();
        Some(Self { ratio: mean(logs.iter().sum()).exp(), low: at(0.025), high: at(0.975) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(values: &[f64]) -> Spread {
        Spread::of(values).unwrap()
    }

    #[test]
    fn medians_and_ranges() {
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Spread { median: 2.0, low: 1.0, high: 3.0 });
        assert_eq!(spread(&[4.0, 1.0]).median, 2.5);
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn overlapping_ranges_share_a_rank() {
        let rounds = [[10.0, 12.0], [11.0, 13.0], [12.5, 14.0], [20.0, 21.0]];
        let spreads: Vec<_> = rounds.iter().map(|r| spread(r)).collect();
        assert_eq!(ranks(&spreads), [1, 1, 2, 4]);
    }

    #[test]
    fn chance_of_a_false_difference() {
        assert!((false_difference(3) - 0.1).abs() < 1e-9);
        assert!((false_difference(5) - 2.0 / 252.0).abs() < 1e-9);
    }

    #[test]
    fn a_ratio_has_an_interval_around_it() {
        let (a, b) = ([11.0, 22.0, 33.0, 44.0], [10.0, 20.0, 30.0, 39.0]);
        let ratio = Ratio::paired(&a, &b, 1).unwrap();
        assert!(ratio.low > 1.05 && ratio.low <= ratio.ratio && ratio.ratio <= ratio.high);
        assert!(Ratio::paired(&a[..2], &b[..2], 1).is_none());
    }
}
