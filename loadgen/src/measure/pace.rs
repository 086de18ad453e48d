//! How long a command with many steps of one kind will go on: as long for each as for those before.

use std::time::{Duration, Instant};

/// The steps that are done, and the time that they took.
pub struct Pace {
    began: Instant,
    done: u32,
    /// What a step will take, before the first is done.
    first: Duration,
}

impl Pace {
    /// The first step, which will take about `first`, begins.
    pub fn begin(first: Duration) -> Self {
        Self { began: Instant::now(), done: 0, first }
    }

    /// A step is done.
    pub fn step(&mut self) {
        self.done += 1;
    }

    /// How long so many more steps will take.
    pub fn left(&self, steps: u32) -> Duration {
        Self::each(self.began.elapsed(), self.done, self.first) * steps
    }

    fn each(elapsed: Duration, done: u32, first: Duration) -> Duration {
        if done == 0 { first } else { elapsed / done }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_takes_as_long_as_those_before() {
        let second = Duration::from_secs(1);
        assert_eq!(Pace::each(second * 9, 0, second), second, "none is done");
        assert_eq!(Pace::each(second * 9, 3, second), second * 3);
        assert_eq!(Pace::begin(second).left(7), second * 7);
    }
}
