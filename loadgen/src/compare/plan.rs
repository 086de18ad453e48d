//! What to compare, how often, and for how long, so that it fits the time there is.

use std::time::Duration;

use anyhow::Result;

use crate::target::Target;
use crate::workload::{Changes, Workload};

/// Rounds that are run even where there is no time for them: with fewer, the correction for the
/// many pairs of a table would leave nothing shown.
pub(super) const ENOUGH_ROUNDS: u32 = 8;
/// The shortest part of its usual time that a run is cut to.
const SHORTEST: f64 = 0.1;

/// What to compare.
pub struct Plan {
    /// The servers, not yet built.
    pub targets: Vec<Target>,
    /// The points to compare them at: a workload and the changes to it.
    pub points: Vec<(String, Changes)>,
    /// How often, for how long, and how long in all.
    pub timing: Timing,
    /// Whether the null reference takes part.
    pub reference: bool,
    /// Whether each server is entered twice, to see whether a difference is found where none is.
    pub control: bool,
}

/// How often, for how long, and how long in all.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
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

impl Plan {
    /// The points with these times, where neither the workload nor a flag says another.
    pub(super) fn workloads(&self, duration: Duration, warmup: Duration) -> Result<Vec<Workload>> {
        let find = |(name, changes): &(String, Changes)| {
            Workload::find(name, &changes.fitting(name), duration, warmup)
        };
        self.points.iter().map(find).collect()
    }

    /// Fails if a point does not exist or does not fit together.
    pub fn check(&self) -> Result<()> {
        self.workloads(self.timing.duration, self.timing.warmup).map(drop)
    }
}

impl Timing {
    /// Of all claims: within fifteen minutes.
    pub fn of_claims() -> Self {
        Self {
            rounds: 10,
            fewer: true,
            duration: Duration::from_millis(1000),
            warmup: Duration::from_millis(250),
            budget: Duration::from_secs(870),
        }
    }

    /// Of all claims at the ends of their points: within three minutes, and with as few rounds as
    /// can show differences where most of them are there.
    pub fn of_quick_claims() -> Self {
        Self {
            rounds: 7,
            fewer: true,
            duration: Duration::from_millis(200),
            warmup: Duration::from_millis(60),
            budget: Duration::from_secs(170),
        }
    }

    /// How long rounds that take `each` will go on from `round`, with so much left of the budget.
    pub(super) fn left(&self, round: u32, each: Duration, budget: Duration) -> Duration {
        let all = each * (self.rounds - round);
        let enough = each * ENOUGH_ROUNDS.saturating_sub(round);
        if self.fewer { all.min(budget.max(enough)) } else { all }
    }

    /// How long runs may measure and warm up, so that all rounds fit: those of a round would take
    /// `driven` at full length, and take `beside` whatever their length.
    pub(super) fn fit(
        &self,
        left: Duration,
        driven: Duration,
        beside: Duration,
    ) -> (Duration, Duration) {
        let round = left.as_secs_f64() / f64::from(self.rounds.max(1));
        let whole = driven.as_secs_f64().max(f64::MIN_POSITIVE);
        let part = ((round - beside.as_secs_f64()) / whole).clamp(SHORTEST, 1.0);
        (self.duration.mul_f64(part), self.warmup.mul_f64(part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_is_that_of_the_rounds_within_the_budget() {
        let second = Duration::from_secs(1);
        let timing = |fewer| Timing {
            rounds: 100,
            fewer,
            duration: second,
            warmup: second,
            budget: second * 90,
        };
        assert_eq!(timing(false).left(0, second * 2, second * 90), second * 200);
        assert_eq!(timing(true).left(0, second * 2, second * 90), second * 90);
        assert_eq!(timing(true).left(98, second * 2, second * 90), second * 4);
        assert_eq!(timing(true).left(6, second * 60, second * 9), second * 120, "eight at least");
    }

    #[test]
    fn runs_are_cut_to_the_time_there_is() {
        let ms = Duration::from_millis;
        let (duration, warmup, budget) = (ms(400), ms(150), Duration::from_secs(80));
        let timing = Timing { rounds: 8, fewer: true, duration, warmup, budget };
        let full = (duration + warmup) * 10;
        assert_eq!(timing.fit(budget, full, ms(1000)), (duration, warmup), "time enough");
        // Sixty runs of the usual length, and twenty that measure three times as long.
        let (driven, beside) = ((duration + warmup) * 60 + (duration * 3 + warmup) * 20, ms(4000));
        let (duration, warmup) = timing.fit(budget, driven, beside);
        let round = beside + (duration + warmup) * 60 + (duration * 3 + warmup) * 20;
        assert!(round * 8 <= budget + ms(1) && round * 8 > budget - ms(100), "{round:?}");
        let (shortest, _) = timing.fit(ms(10), driven, beside);
        assert_eq!(shortest, ms(40), "a run is never cut to nothing");
    }
}
