//! How fast the processors run, moment by moment.
//!
//! Steal time tells when a virtual machine does not run at all. It does not tell when the host's
//! processors run slowly, for power, for heat or for what else shares their cores: then everything
//! takes a multiple of its time, and no counter says so. So equal work is timed every few
//! milliseconds while a server is measured.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::base::random::splitmix;

/// Between two samples. Spells of slowness that were seen last 20 to 100 ms.
const PERIOD: Duration = Duration::from_millis(5);
/// Steps of work in one try: about a microsecond.
const STEPS: u32 = 200;
/// Tries of which the fastest is the sample, so that an interrupt is no slowness.
const TRIES: usize = 3;
/// How many times the fastest sample a slow one takes.
pub(crate) const SLOW: f64 = 2.0;

/// A watch over the speed of this process's processors. Until it begins, and by default, it
/// has seen nothing.
#[derive(Clone, Debug, Default)]
pub struct Speed(Arc<Seen>);

#[derive(Debug, Default)]
struct Seen {
    slow: AtomicU64,
    all: AtomicU64,
}

impl Speed {
    /// Takes samples for as long as a holder of this watch is there, on the processors that the
    /// calling thread may use: with these pinned to the generator, the server is not interrupted.
    pub(crate) fn watch(&self) -> std::io::Result<()> {
        let seen = Arc::downgrade(&self.0);
        let look = move || {
            let mut fastest = Duration::MAX;
            while let Some(seen) = seen.upgrade() {
                let sample = sample();
                fastest = fastest.min(sample);
                seen.slow.fetch_add(u64::from(sample > fastest.mul_f64(SLOW)), Relaxed);
                seen.all.fetch_add(1, Relaxed);
                drop(seen);
                std::thread::sleep(PERIOD);
            }
        };
        std::thread::Builder::new().name("speed".into()).spawn(look).map(drop)
    }

    /// How many samples so far were slow, and how many there are.
    pub(crate) fn samples(&self) -> (u64, u64) {
        (self.0.slow.load(Relaxed), self.0.all.load(Relaxed))
    }
}

/// The time that equal work takes now.
fn sample() -> Duration {
    let tries = (0..TRIES).map(|_| work(STEPS));
    tries.min().unwrap_or_default()
}

/// The time that so many steps, each of which needs the one before, take now. They stay in
/// registers, so that neither caches nor memory are in it.
pub(crate) fn work(steps: u32) -> Duration {
    let (began, mut state) = (Instant::now(), 1);
    for _ in 0..steps {
        state = splitmix(&mut state);
    }
    black_box(state);
    began.elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_not_looked_at_until_told_to_and_then_it_goes_on() {
        let speed = Speed::default();
        assert_eq!(speed.samples(), (0, 0));
        speed.watch().unwrap();
        while speed.samples().1 < 3 {
            std::thread::yield_now();
        }
        let (slow, all) = speed.samples();
        assert!(slow < all, "the first sample is the fastest so far");
    }

    #[test]
    fn more_work_takes_longer() {
        // The fastest of many: no interrupt and no slow spell can turn this round.
        let fastest = |steps| (0..100).map(|_| work(steps)).min();
        assert!(fastest(10_000) > fastest(1_000));
    }
}
