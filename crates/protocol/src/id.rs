//! Names for connections that cannot be mistaken for their predecessors.

use core::fmt;

const SLOT_BITS: u32 = 24;
const GENERATION_BITS: u32 = 24;
const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;
const GENERATION_MASK: u64 = (1 << GENERATION_BITS) - 1;

/// The name of one connection: a worker, a slot and the slot's generation, in 64 bits.
///
/// ```text
///  63      56 55      48 47                    24 23                     0
/// +----------+----------+------------------------+------------------------+
/// |   tag    |  worker  |       generation       |          slot          |
/// +----------+----------+------------------------+------------------------+
/// ```
///
/// The tag is always zero here: it is the server's own, to tell kinds of events or completions
/// apart in an epoll `data` or an io_uring `user_data`. A slot that gets a new tenant gets a new
/// generation, so an event or a message meant for the old tenant is recognised and dropped. A
/// generation comes round again after 16,777,216 tenants of one slot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(u64);

impl ConnId {
    /// The most workers a process can have.
    pub const MAX_WORKERS: usize = 1 << 8;
    /// The most slots a worker can have.
    pub const MAX_SLOTS: usize = 1 << SLOT_BITS;

    const fn new(worker: u8, generation: u32, slot: u32) -> ConnId {
        let generation = generation as u64 & GENERATION_MASK;
        ConnId((worker as u64) << 48 | generation << SLOT_BITS | slot as u64 & SLOT_MASK)
    }

    /// The id as the 64 bits of a token. The top byte is zero.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The id in a token; the top byte is ignored. An id that was never given out finds nothing.
    #[must_use]
    pub const fn from_bits(bits: u64) -> ConnId {
        ConnId(bits & !(0xff << 56))
    }

    /// The worker that owns the connection, from 0.
    #[must_use]
    pub const fn worker(self) -> usize {
        (self.0 >> 48) as usize & 0xff
    }

    /// The slot, from 0, dense: fit to index an array.
    #[must_use]
    pub const fn slot(self) -> usize {
        (self.0 & SLOT_MASK) as usize
    }

    const fn generation(self) -> u32 {
        (self.0 >> SLOT_BITS & GENERATION_MASK) as u32
    }
}

impl fmt::Debug for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}.{}", self.worker(), self.slot(), self.generation())
    }
}

struct Slot<T> {
    generation: u32,
    tenant: Option<T>,
}

/// One worker's connections, each found by its [`ConnId`] in constant time.
pub struct Slots<T> {
    worker: u8,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

impl<T> Slots<T> {
    /// No connections yet, for the worker numbered `worker`.
    ///
    /// # Panics
    /// When `worker` is not below [`ConnId::MAX_WORKERS`]: the flags refuse that before.
    #[must_use]
    pub fn new(worker: usize) -> Slots<T> {
        let worker = u8::try_from(worker).expect("fewer than 256 workers");
        Slots { worker, slots: Vec::new(), free: Vec::new() }
    }

    /// Gives a free slot to `tenant`.
    ///
    /// # Panics
    /// When all [`ConnId::MAX_SLOTS`] are taken: more than a process can have descriptors.
    pub fn insert(&mut self, tenant: T) -> (ConnId, &mut T) {
        self.insert_with(|_| tenant)
    }

    /// As [`Slots::insert`], for a tenant that is to know its own id.
    ///
    /// # Panics
    /// As [`Slots::insert`].
    pub fn insert_with(&mut self, tenant: impl FnOnce(ConnId) -> T) -> (ConnId, &mut T) {
        let slot = self.free.pop().unwrap_or_else(|| {
            assert!(self.slots.len() < ConnId::MAX_SLOTS, "slots exhausted");
            self.slots.push(Slot { generation: 0, tenant: None });
            (self.slots.len() - 1) as u32
        });
        let entry = &mut self.slots[slot as usize];
        entry.generation = (entry.generation + 1) & GENERATION_MASK as u32;
        let id = ConnId::new(self.worker, entry.generation, slot);
        (id, entry.tenant.insert(tenant(id)))
    }

    fn entry(&mut self, id: ConnId) -> Option<&mut Slot<T>> {
        let here = id.worker() == usize::from(self.worker);
        let entry = self.slots.get_mut(id.slot()).filter(|_| here)?;
        (entry.generation == id.generation()).then_some(entry)
    }

    /// The tenant, unless it has gone.
    #[must_use]
    pub fn get(&self, id: ConnId) -> Option<&T> {
        let here = id.worker() == usize::from(self.worker);
        let entry = self.slots.get(id.slot()).filter(|_| here)?;
        entry.tenant.as_ref().filter(|_| entry.generation == id.generation())
    }

    /// The tenant, unless it has gone.
    pub fn get_mut(&mut self, id: ConnId) -> Option<&mut T> {
        self.entry(id)?.tenant.as_mut()
    }

    /// Takes the tenant out and frees its slot.
    pub fn remove(&mut self, id: ConnId) -> Option<T> {
        let tenant = self.entry(id)?.tenant.take()?;
        self.free.push(id.slot() as u32);
        Some(tenant)
    }

    /// How many tenants there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The ids of all tenants, in order of their slots.
    pub fn ids(&self) -> impl Iterator<Item = ConnId> + '_ {
        self.slots
            .iter()
            .enumerate()
            .filter(|(_, entry)| entry.tenant.is_some())
            .map(|(slot, entry)| ConnId::new(self.worker, entry.generation, slot as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_round_trip_and_leave_the_top_byte_free() {
        let id = ConnId::new(255, 0xff_ffff, 0xff_ffff);
        assert_eq!(id.bits() >> 56, 0);
        assert_eq!(ConnId::from_bits(id.bits() | 0xab << 56), id);
        assert_eq!((id.worker(), id.slot()), (255, 0xff_ffff));
    }

    #[test]
    fn a_former_tenant_is_not_found() {
        let mut slots = Slots::new(3);
        let first = slots.insert("first").0;
        assert_eq!(slots.remove(first), Some("first"));
        let second = slots.insert("second").0;
        assert_eq!(first.slot(), second.slot());
        assert_eq!(slots.get(first), None);
        assert_eq!(slots.get_mut(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.get(second), Some(&"second"));
        assert_eq!(slots.len(), 1);
    }

    #[test]
    fn each_tenant_of_a_slot_has_another_id() {
        let mut slots = Slots::new(0);
        let mut ids = Vec::new();
        for _ in 0..100 {
            let id = slots.insert(()).0;
            assert_eq!(id.slot(), 0);
            assert!(!ids.contains(&id), "{id:?}");
            ids.push(id);
            slots.remove(id);
        }
    }

    #[test]
    fn an_id_is_shown_as_worker_slot_and_generation() {
        assert_eq!(format!("{:?}", ConnId::new(3, 7, 12)), "3:12.7");
    }

    #[test]
    fn another_workers_id_is_not_found() {
        let mut ours = Slots::new(0);
        let id = ours.insert(()).0;
        let mut theirs = Slots::new(1);
        theirs.insert(());
        assert!(ours.get(id).is_some());
        assert!(theirs.get(id).is_none());
        assert!(theirs.get_mut(id).is_none());
        assert!(theirs.remove(id).is_none());
    }

    #[test]
    fn ids_lists_the_living() {
        let mut slots = Slots::new(0);
        let ids: Vec<_> = (0..3).map(|n| slots.insert(n).0).collect();
        slots.remove(ids[1]);
        assert_eq!(slots.ids().collect::<Vec<_>>(), [ids[0], ids[2]]);
    }
}
