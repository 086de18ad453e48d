//! When the messages of an open loop are due.
//!
//! The times are absolute and depend on nothing but the seed, the rate and the length of the
//! window: being late moves none of them, and the sequence is as fixed before the window begins as
//! an array would be, without taking an array's memory. What is waiting is simply the part of it
//! that is due and not yet taken.

use crate::base::random::splitmix;
use crate::workload::Arrivals;

/// The times at which messages are due, in nanoseconds since the window began, ascending.
#[derive(Clone)]
pub(super) struct Schedule {
    arrivals: Arrivals,
    state: u64,
    /// Length of the window in nanoseconds.
    window: f64,
    /// Place of the first of equally distant messages in its gap, from 0 to 1.
    offset: f64,
    all: u64,
    /// Messages whose time is not taken, the one at `at` included.
    left: u64,
    at: f64,
}

impl Schedule {
    /// Exactly `all` messages in `window` nanoseconds.
    ///
    /// Poisson: a Poisson process of which it is known that it brings that many. So the rate is
    /// the one that was asked for, and no difference from it is due to chance. Each gap is drawn
    /// as the smallest of the times that are still to come, which gives exponential gaps that
    /// fill the window (Devroye, Non-Uniform Random Variate Generation, 1986, V.3.1).
    ///
    /// Uniform: equal gaps, the first message at `offset` (0 to 1) of a gap, so that the threads
    /// of a generator can take turns.
    pub(super) fn new(arrivals: Arrivals, all: u64, window: u64, offset: f64, seed: u64) -> Self {
        let window = window as f64;
        let mut schedule = Self { arrivals, state: seed, window, offset, all, left: all, at: 0.0 };
        schedule.draw();
        schedule
    }

    /// Messages in all.
    pub(super) fn all(&self) -> u64 {
        self.all
    }

    /// Messages not taken.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// The time of the next message; `None` when all are taken.
    #[inline]
    pub(super) fn next(&self) -> Option<u64> {
        (self.left > 0).then_some(self.at as u64)
    }

    /// The time of the next message if that is not after `now`.
    #[inline]
    pub(super) fn due(&self, now: u64) -> Option<u64> {
        self.next().filter(|&at| at <= now)
    }

    /// The next message is taken.
    pub(super) fn take(&mut self) {
        self.left -= 1;
        self.draw();
    }

    fn draw(&mut self) {
        if self.left == 0 {
            return;
        }
        match self.arrivals {
            Arrivals::Uniform => {
                let place = (self.all - self.left) as f64 + self.offset;
                self.at = self.window * place / self.all as f64;
            }
            Arrivals::Poisson => {
                // From (0, 1]: its logarithm is finite.
                let u = ((splitmix(&mut self.state) >> 11) + 1) as f64 / (1u64 << 53) as f64;
                self.at -= (self.window - self.at) * (u.ln() / self.left as f64).exp_m1();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn times(mut schedule: Schedule) -> Vec<u64> {
        let next = |schedule: &mut Schedule| {
            let at = schedule.next()?;
            schedule.take();
            Some(at)
        };
        std::iter::from_fn(|| next(&mut schedule)).collect()
    }

    fn poisson(all: u64, seed: u64) -> Vec<u64> {
        times(Schedule::new(Arrivals::Poisson, all, SECOND, 0.0, seed))
    }

    #[test]
    fn a_schedule_holds_its_number_and_depends_on_the_seed_alone() {
        let one = poisson(5000, 7);
        assert_eq!(one.len(), 5000);
        assert!(one.is_sorted() && one.last().is_some_and(|&at| at < SECOND));
        assert_eq!(one, poisson(5000, 7));
        assert_ne!(one, poisson(5000, 8));
        assert!(poisson(0, 1).is_empty());
    }

    #[test]
    fn poisson_gaps_are_exponential() {
        let times = poisson(100_000, 3);
        let mut gaps: Vec<f64> = times.windows(2).map(|two| (two[1] - two[0]) as f64).collect();
        gaps.sort_by(f64::total_cmp);
        let mean = 10_000.0;
        // The largest distance of the distribution functions (Kolmogorov and Smirnov); at 100,000
        // gaps one of 0.0062 has a chance of one in a thousand. The seed is fixed.
        let n = gaps.len() as f64;
        let distance = gaps
            .iter()
            .enumerate()
            .map(|(rank, gap)| ((1.0 - (-gap / mean).exp()) - rank as f64 / n).abs());
        assert!(distance.fold(0.0, f64::max) < 0.0062);
        // The halves of the window are independent of each other but for the fixed total.
        let first = times.iter().filter(|&&at| at < SECOND / 2).count() as f64;
        assert!((first - 50_000.0).abs() < 5.0 * 158.0, "{first}");
    }

    #[test]
    fn uniform_threads_take_turns() {
        let half = |offset| times(Schedule::new(Arrivals::Uniform, 4, SECOND, offset, 1));
        assert_eq!(half(0.25), [62_500_000, 312_500_000, 562_500_000, 812_500_000]);
        assert_eq!(half(0.75)[0], 187_500_000);
    }
}
