//! Instants without a clock.

use core::ops::{Add, Sub};
use core::time::Duration;

/// An instant, in nanoseconds since the server started. Eight bytes, because every connection
/// keeps a few of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The start of the server.
    pub const ZERO: Time = Time(0);
    /// Later than any instant that comes: the deadline of what has no deadline.
    pub const NEVER: Time = Time(u64::MAX);

    /// The instant `nanos` nanoseconds after the start.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Time {
        Time(nanos)
    }

    /// The instant `millis` milliseconds after the start.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Time {
        Time(millis.saturating_mul(1_000_000))
    }

    /// Nanoseconds since the start.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long it is from `now` until this instant; zero when it has passed.
    #[must_use]
    pub const fn after(self, now: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(now.0))
    }

    /// How long to wait from `now` for this instant, as the calls that wait want to be told:
    /// `None`, for as long as it takes, when it is [`Time::NEVER`].
    #[must_use]
    pub fn timeout(self, now: Time) -> Option<Duration> {
        (self < Time::NEVER).then(|| self.after(now))
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    fn add(self, rhs: Duration) -> Time {
        let nanos = u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX);
        Time(self.0.saturating_add(nanos))
    }
}

impl Sub<Time> for Time {
    type Output = Duration;

    fn sub(self, rhs: Time) -> Duration {
        self.after(rhs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates() {
        let start = Time::from_millis(5);
        assert_eq!(start + Duration::from_millis(2), Time::from_millis(7));
        assert_eq!(Time::NEVER + Duration::from_secs(1), Time::NEVER);
        assert_eq!(Time::ZERO + Duration::MAX, Time::NEVER);
        assert_eq!(Time::ZERO.after(start), Duration::ZERO);
        assert_eq!(start - Time::ZERO, Duration::from_millis(5));
    }

    #[test]
    fn nothing_waits_for_what_has_passed_and_all_wait_for_what_never_comes() {
        let (now, later) = (Time::from_millis(5), Time::from_millis(7));
        assert_eq!(later.timeout(now), Some(Duration::from_millis(2)));
        assert_eq!(now.timeout(later), Some(Duration::ZERO));
        assert_eq!(Time::NEVER.timeout(now), None);
        assert_eq!(later.as_nanos(), 7_000_000);
    }
}
