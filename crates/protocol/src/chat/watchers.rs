//! Who watches for whom (IRCv3 "monitor"). A nickname is watched for, and not the member who holds it.

use std::collections::{BTreeSet, HashMap};

use super::members::MemberKey;
use super::names::Folded;

/// Most nicknames that one member watches for (MONITOR in 005).
pub(super) const MOST: usize = 100;

/// Those who watch, by what they watch for. What each of them watches for stands in
/// [`super::members::Member::watched`] as well.
#[derive(Default)]
pub(super) struct Watchers {
    /// By folded nickname. No set is empty.
    of: HashMap<Box<[u8]>, BTreeSet<MemberKey>>,
}

impl Watchers {
    pub(super) fn add(&mut self, nick: &[u8], watcher: MemberKey) {
        if let Some(nick) = Folded::new(nick) {
            self.of.entry(nick.as_bytes().into()).or_default().insert(watcher);
        }
    }

    pub(super) fn remove(&mut self, nick: &[u8], watcher: MemberKey) {
        let Some(nick) = Folded::new(nick) else { return };
        if let Some(all) = self.of.get_mut(nick.as_bytes()) {
            all.remove(&watcher);
            if all.is_empty() {
                self.of.remove(nick.as_bytes());
            }
        }
    }

    /// Those who watch for `nick`.
    pub(super) fn of(&self, nick: &[u8]) -> impl Iterator<Item = MemberKey> + '_ {
        let all = Folded::new(nick).and_then(|nick| self.of.get(nick.as_bytes()));
        all.into_iter().flatten().copied()
    }

    /// How many watch for something, each counted for each nickname.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert!(self.of.values().all(|all| !all.is_empty()));
        self.of.values().map(BTreeSet::len).sum()
    }
}
