//! Flood control: how many lines a member may send.

use crate::{Limits, Time};

/// A leaky bucket of `flood_burst` lines that refills by one each `flood_interval`: the generic
/// cell rate algorithm (ITU-T I.371), whose whole state is one instant.
pub(super) struct Ration {
    /// When the lines that came so far are paid for, at one for each interval.
    paid_at: Time,
    /// Since when the member has been over its ration; [`Time::NEVER`] when it is not.
    flooding_since: Time,
}

impl Ration {
    pub(super) fn new(now: Time) -> Ration {
        Ration { paid_at: now, flooding_since: Time::NEVER }
    }

    /// When the next line may be handled, if the bucket is empty now.
    pub(super) fn empty_until(&self, limits: &Limits, now: Time) -> Option<Time> {
        let burst = limits.flood_interval.saturating_mul(limits.flood_burst.saturating_sub(1));
        let allowed = now + burst;
        let empty = limits.flood_control && self.paid_at > allowed;
        empty.then(|| now + self.paid_at.after(allowed))
    }

    /// A line had to wait.
    pub(super) fn exceed(&mut self, now: Time) {
        self.flooding_since = self.flooding_since.min(now);
    }

    /// A line has been handled.
    pub(super) fn pay(&mut self, limits: &Limits, now: Time) {
        self.paid_at = self.paid_at.max(now) + limits.flood_interval;
    }

    /// Forgets the flood once half of the burst is there again.
    pub(super) fn settle(&mut self, limits: &Limits, now: Time) {
        let half = limits.flood_interval.saturating_mul(limits.flood_burst / 2);
        if self.paid_at <= now + half {
            self.flooding_since = Time::NEVER;
        }
    }

    /// Why the member is cut, when `waiting` bytes of it could not be handled yet.
    pub(super) fn refusal(
        &self,
        limits: &Limits,
        waiting: usize,
        now: Time,
    ) -> Option<&'static str> {
        let flooding = self.flooding_since < Time::NEVER;
        if flooding && now.after(self.flooding_since) > limits.flood_grace {
            return Some("Excess Flood");
        }
        if waiting <= limits.max_recvq {
            return None;
        }
        Some(if flooding { "Excess Flood" } else { "RecvQ exceeded" })
    }
}
