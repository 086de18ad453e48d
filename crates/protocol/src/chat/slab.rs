//! Things under small dense keys, so that a list of them is a list of integers.

use core::cmp::Ordering;
use core::marker::PhantomData;
use core::ops::{Index, IndexMut};

/// The key of a `T`. It is good until that `T` is removed, and the hub lets no key outlive that:
/// a key without its `T` is a bug, never a peer's doing.
pub(super) struct Key<T>(u32, PhantomData<fn() -> T>);

impl<T> Key<T> {
    /// The key as an index.
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

impl<T> Clone for Key<T> {
    fn clone(&self) -> Key<T> {
        *self
    }
}

impl<T> Copy for Key<T> {}

impl<T> PartialEq for Key<T> {
    fn eq(&self, other: &Key<T>) -> bool {
        self.0 == other.0
    }
}

impl<T> Eq for Key<T> {}

impl<T> PartialOrd for Key<T> {
    fn partial_cmp(&self, other: &Key<T>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Key<T> {
    fn cmp(&self, other: &Key<T>) -> Ordering {
        self.0.cmp(&other.0)
    }
}

/// Values of one type, each under its key.
pub(super) struct Slab<T> {
    entries: Vec<Option<T>>,
    free: Vec<Key<T>>,
}

impl<T> Slab<T> {
    pub(super) fn new() -> Slab<T> {
        Slab { entries: Vec::new(), free: Vec::new() }
    }

    pub(super) fn insert(&mut self, value: T) -> Key<T> {
        let key = self.free.pop().unwrap_or_else(|| {
            let key = u32::try_from(self.entries.len()).expect("fewer than 2^32 values");
            self.entries.push(None);
            Key(key, PhantomData)
        });
        self.entries[key.index()] = Some(value);
        key
    }

    pub(super) fn remove(&mut self, key: Key<T>) -> Option<T> {
        let value = self.entries.get_mut(key.index())?.take()?;
        self.free.push(key);
        Some(value)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// All keys in use, in their own order.
    pub(super) fn keys(&self) -> impl Iterator<Item = Key<T>> + '_ {
        self.entries
            .iter()
            .zip(0..)
            .filter(|(entry, _)| entry.is_some())
            .map(|(_, key)| Key(key, PhantomData))
    }
}

impl<T> Index<Key<T>> for Slab<T> {
    type Output = T;

    fn index(&self, key: Key<T>) -> &T {
        self.entries[key.index()].as_ref().expect("a key lives no longer than its value")
    }
}

impl<T> IndexMut<Key<T>> for Slab<T> {
    fn index_mut(&mut self, key: Key<T>) -> &mut T {
        self.entries[key.index()].as_mut().expect("a key lives no longer than its value")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_dense_and_used_again() {
        let mut slab = Slab::new();
        let keys = ["a", "b", "c"].map(|value| slab.insert(value));
        assert_eq!(keys.map(Key::index), [0, 1, 2]);
        assert_eq!(slab.remove(keys[1]), Some("b"));
        assert_eq!(slab.remove(keys[1]), None);
        assert_eq!(slab.len(), 2);
        assert_eq!(slab.keys().map(Key::index).collect::<Vec<_>>(), [0, 2]);
        assert_eq!(slab.insert("d").index(), 1);
        assert_eq!((slab.len(), slab[keys[2]]), (3, "c"));
    }
}
