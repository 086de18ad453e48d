//! Windows of several generators that begin at one instant.
//!
//! A run that meets others opens its connections as soon as it can. It warms up so that it is done
//! shortly before the window, waits until the instant that was agreed upon, and begins.

use std::fmt::Debug;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;

use crate::base::text::time;
use crate::drive::Seen;

/// Between the end of the warm-up's sending and the window: the last answers come in this time.
pub(crate) const SETTLE: Duration = Duration::from_millis(250);
/// How much later than agreed a window may begin.
const LATE: Duration = Duration::from_millis(10);

/// What others want to know of a run, and what it wants to know of them.
pub trait Meeting: Debug + Send + Sync {
    /// All connections of this run are open.
    fn opened(&self) -> Result<()>;

    /// When the window is to begin; waits for so long until that is known. Its error ends the run.
    fn window(&self, patience: Duration) -> Result<Option<Instant>>;

    /// Called several times a second with how far a phase is.
    fn look(&self, seen: Seen, elapsed: Duration);

    /// All answers have come. Returns when the connections may be closed.
    fn driven(&self) -> Result<()>;
}

/// A window that begins at a time of the wall clock: nothing is heard of the others.
#[derive(Clone, Copy, Debug)]
pub struct At(pub SystemTime);

impl Meeting for At {
    fn opened(&self) -> Result<()> {
        Ok(())
    }

    fn window(&self, _: Duration) -> Result<Option<Instant>> {
        Ok(Some(instant(self.0)))
    }

    fn look(&self, _: Seen, _: Duration) {}

    fn driven(&self) -> Result<()> {
        Ok(())
    }
}

/// The same moment by the monotonic clock. What has passed already is now.
pub(crate) fn instant(at: SystemTime) -> Instant {
    let now = Instant::now();
    let left = at.duration_since(SystemTime::now()).unwrap_or_default();
    now.checked_add(left).unwrap_or(now)
}

/// What there is to say of a window that began so long after the time that was agreed upon.
pub(crate) fn doubt(late: Duration) -> Option<String> {
    let told = time(late.as_nanos() as f64);
    (late > LATE).then(|| {
        format!(
            "the window began {told} after the time that was agreed upon: the connections and the \
             warm-up took longer"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_may_be_a_little_late() {
        assert_eq!(doubt(Duration::from_millis(9)), None);
        let told = doubt(Duration::from_millis(1500)).unwrap();
        assert!(told.starts_with("the window began 1.50 s after"), "{told}");
    }

    #[test]
    fn a_time_of_the_wall_clock_is_a_moment() {
        let before = Instant::now();
        let soon = instant(SystemTime::now() + Duration::from_secs(5));
        let after = Instant::now();
        // However long this thread stood still meanwhile.
        let [least, most] = [after, before].map(|from| soon.duration_since(from).as_secs_f64());
        assert!(least < 5.5 && most > 4.5, "from {least} s to {most} s");
        assert!(instant(SystemTime::UNIX_EPOCH) >= before);
    }
}
