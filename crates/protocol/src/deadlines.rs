//! Which connection is due next, for a loop that owns many.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::{ConnId, Time};

/// The next instant at which each connection of a worker must be looked at.
///
/// A deadline that moves later, as it does with each line that comes, costs a comparison: the
/// entry stays where it is, and when it comes up the server asks the connection again
/// ([`crate::Session::expire`]) and sets it anew.
#[derive(Default)]
pub struct Deadlines {
    due: BinaryHeap<Reverse<(Time, ConnId)>>,
    /// By slot: the one entry of `due` that counts. All others are stale.
    armed: Vec<(Time, Option<ConnId>)>,
    stale: usize,
}

impl Deadlines {
    /// Looks at `id` no later than `at`. A connection set before is looked at no later than the
    /// earlier of the two instants. Returns that one: it alone is armed. It may have passed, where
    /// another thread takes what has expired, and `at` is to be set again when it has come up.
    pub fn set(&mut self, id: ConnId, at: Time) -> Time {
        if self.armed.len() <= id.slot() {
            self.armed.resize(id.slot() + 1, (Time::NEVER, None));
        }
        let armed = &mut self.armed[id.slot()];
        if armed.1 == Some(id) && armed.0 <= at {
            return armed.0;
        }
        if armed.1.is_some() {
            self.stale += 1;
        }
        if at == Time::NEVER {
            *armed = (Time::NEVER, None);
            return at;
        }
        *armed = (at, Some(id));
        self.due.push(Reverse((at, id)));
        self.sweep();
        at
    }

    /// Forgets `id`: its connection is gone.
    pub fn clear(&mut self, id: ConnId) {
        if let Some(armed) = self.armed.get_mut(id.slot())
            && armed.1 == Some(id)
        {
            *armed = (Time::NEVER, None);
            self.stale += 1;
            self.sweep();
        }
    }

    /// The instant at which [`Deadlines::expired`] should be asked next; [`Time::NEVER`] when
    /// no connection is due.
    #[must_use]
    pub fn next(&self) -> Time {
        self.due.peek().map_or(Time::NEVER, |Reverse((at, _))| *at)
    }

    /// A connection whose instant has come, each once: set it again after looking at it.
    pub fn expired(&mut self, now: Time) -> Option<ConnId> {
        while let Some(&Reverse((at, id))) = self.due.peek() {
            if at > now {
                return None;
            }
            self.due.pop();
            let armed = &mut self.armed[id.slot()];
            if *armed == (at, Some(id)) {
                *armed = (Time::NEVER, None);
                return Some(id);
            }
            self.stale -= 1;
        }
        None
    }

    /// Throws the stale entries out when they are the most: a server whose clients come and go
    /// must not remember each of them until its idle timeout.
    fn sweep(&mut self) {
        if self.stale > 64 && self.stale * 2 > self.due.len() {
            let mut due = core::mem::take(&mut self.due).into_vec();
            due.retain(|Reverse((at, id))| self.armed[id.slot()] == (*at, Some(*id)));
            // An instant that was set, moved nearer and set again stands there twice.
            due.sort_unstable();
            due.dedup();
            self.due = due.into();
            self.stale = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::Slots;

    #[test]
    fn churn_leaves_nothing_behind() {
        let mut deadlines = Deadlines::default();
        let mut slots = Slots::new(0);
        for _ in 0..100_000 {
            let id = slots.insert(()).0;
            deadlines.set(id, Time::from_millis(300_000));
            slots.remove(id);
            deadlines.clear(id);
        }
        assert!(deadlines.due.len() < 200, "{}", deadlines.due.len());
    }

    #[test]
    fn an_entry_that_has_come_up_is_stale_no_longer() {
        let mut slots = Slots::new(0);
        let id = slots.insert(()).0;
        let mut deadlines = Deadlines::default();
        for _ in 0..3 {
            deadlines.set(id, Time::from_millis(2));
            deadlines.set(id, Time::from_millis(1));
            assert_eq!(deadlines.stale, 1);
            assert_eq!(deadlines.expired(Time::from_millis(2)), Some(id));
            assert_eq!(deadlines.expired(Time::from_millis(2)), None);
            assert_eq!((deadlines.stale, deadlines.due.len()), (0, 0));
        }
    }

    #[test]
    fn what_is_set_before_an_earlier_instant_has_come_up_is_set_again_after_it() {
        let mut slots = Slots::new(0);
        let id = slots.insert(()).0;
        let mut deadlines = Deadlines::default();
        let (early, late) = (Time::from_millis(1), Time::from_millis(2));
        assert_eq!(deadlines.set(id, early), early);
        // It has passed, but nobody has taken it yet.
        assert_eq!(deadlines.set(id, late), early, "what is armed");
        assert_eq!(deadlines.set(id, Time::NEVER), early, "what is armed");
        assert_eq!(deadlines.expired(early), Some(id));
        assert_eq!(deadlines.expired(late), None);
        assert_eq!(deadlines.set(id, Time::NEVER), Time::NEVER);
        assert_eq!(deadlines.set(id, late), late);
        assert_eq!(deadlines.expired(late), Some(id));
    }

    #[test]
    fn an_entry_that_stands_there_twice_counts_as_stale_once() {
        let mut slots = Slots::new(0);
        let ids: Vec<_> = (0..70).map(|_| slots.insert(()).0).collect();
        let mut deadlines = Deadlines::default();
        let (early, late) = (Time::from_millis(1), Time::from_millis(1_000));
        for _ in 0..2 {
            for id in &ids {
                deadlines.set(*id, late);
                deadlines.set(*id, early);
            }
            while deadlines.expired(early).is_some() {}
        }
        for id in &ids {
            deadlines.set(*id, late);
        }
        let mut due = Vec::new();
        while let Some(id) = deadlines.expired(late) {
            due.push(id);
        }
        due.sort();
        assert_eq!(due, ids, "each once");
        assert_eq!((deadlines.stale, deadlines.due.len()), (0, 0));
    }

    proptest! {
        /// Against a map: no connection is looked at later than asked, and each once.
        #[test]
        fn agrees_with_a_map(
            steps in prop::collection::vec((0..4_u8, 0..8_usize, 0..50_u64), 0..300),
        ) {
            let mut slots = Slots::new(0);
            let ids: Vec<_> = (0..8).map(|_| slots.insert(()).0).collect();
            let mut deadlines = Deadlines::default();
            let mut model = BTreeMap::new();
            let mut now = 0;
            for (step, who, ahead) in steps {
                let (id, at) = (ids[who], Time::from_millis(now + ahead));
                match step {
                    0 | 1 => {
                        let known = model.entry(id).or_insert(at);
                        *known = at.min(*known);
                        prop_assert_eq!(deadlines.set(id, at), *known);
                    }
                    2 => {
                        deadlines.clear(id);
                        model.remove(&id);
                    }
                    _ => {
                        now += ahead;
                        while let Some(id) = deadlines.expired(Time::from_millis(now)) {
                            let at = model.remove(&id);
                            prop_assert!(at.is_some_and(|at| at <= Time::from_millis(now)));
                        }
                        prop_assert!(model.values().all(|at| *at > Time::from_millis(now)));
                        let next = model.values().min();
                        prop_assert!(next.is_none_or(|at| deadlines.next() <= *at));
                    }
                }
            }
        }
    }
}
