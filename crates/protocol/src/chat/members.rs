//! Who is there: found by connection, by nickname, or by key.

use std::collections::HashMap;

use super::channels::ChannelKey;
use super::names::{self, Folded};
use super::slab::{Key, Slab};
use crate::{ConnId, Time};

/// The key of a member in the hub.
pub(super) type MemberKey = Key<Member>;

/// One connection as chat sees it, registered or not yet.
pub(super) struct Member {
    pub(super) id: ConnId,
    /// Empty until NICK.
    pub(super) nick: Box<[u8]>,
    /// Empty until USER.
    pub(super) user: Box<[u8]>,
    pub(super) host: Box<[u8]>,
    pub(super) real_name: Box<[u8]>,
    /// `nick!user@host`: the source of what the member does.
    pub(super) mask: Box<[u8]>,
    pub(super) registered: bool,
    /// Between CAP LS or CAP REQ and CAP END: registration waits.
    pub(super) negotiating: bool,
    /// Whether the last PASS was the right one.
    pub(super) password_matches: bool,
    /// The channels it is in, in the order in which it joined: few, so that a scan is the
    /// quickest test of membership.
    pub(super) channels: Vec<ChannelKey>,
    pub(super) since: Time,
    /// When it last sent a message to anyone.
    pub(super) spoke: Time,
}

impl Member {
    pub(super) fn new(id: ConnId, host: &str, now: Time) -> Member {
        Member {
            id,
            nick: Box::default(),
            user: Box::default(),
            host: names::host(host),
            real_name: Box::default(),
            mask: Box::default(),
            registered: false,
            negotiating: false,
            password_matches: false,
            channels: Vec::new(),
            since: now,
            spoke: now,
        }
    }

    /// What replies call the member: `*` while it has no nickname.
    pub(super) fn name(&self) -> &[u8] {
        if self.nick.is_empty() { b"*" } else { &self.nick }
    }

    /// Makes the mask of what it is made of.
    pub(super) fn update_mask(&mut self) {
        let parts: [&[u8]; 5] = [&self.nick, b"!", &self.user, b"@", &self.host];
        self.mask = parts.concat().into();
    }
}

/// All members.
pub(super) struct Members {
    slab: Slab<Member>,
    /// By worker and slot of the connection: both are dense, so there is nothing to hash.
    seats: Vec<Vec<Option<MemberKey>>>,
    /// By folded nickname.
    nicks: HashMap<Box<[u8]>, MemberKey>,
    registered: usize,
}

impl Members {
    pub(super) fn new(workers: usize) -> Members {
        let seats = (0..workers).map(|_| Vec::new()).collect();
        Members { slab: Slab::new(), seats, nicks: HashMap::new(), registered: 0 }
    }

    /// Adds a member; none when no such worker is known.
    pub(super) fn insert(&mut self, member: Member) -> Option<MemberKey> {
        let id = member.id;
        let seats = self.seats.get_mut(id.worker())?;
        if seats.len() <= id.slot() {
            seats.resize(id.slot() + 1, None);
        }
        let key = self.slab.insert(member);
        seats[id.slot()] = Some(key);
        Some(key)
    }

    /// Takes a member out; its nickname is free.
    pub(super) fn remove(&mut self, key: MemberKey) {
        let Some(member) = self.slab.remove(key) else { return };
        if let Some(seat) = self.seat(member.id) {
            *seat = None;
        }
        self.registered -= usize::from(member.registered);
        if let Some(folded) = Folded::new(&member.nick) {
            self.nicks.remove(folded.as_bytes());
        }
    }

    fn seat(&mut self, id: ConnId) -> Option<&mut Option<MemberKey>> {
        self.seats.get_mut(id.worker())?.get_mut(id.slot())
    }

    /// Whoever sits in the slot of `id`, under that id or an older one.
    pub(super) fn seated(&self, id: ConnId) -> Option<MemberKey> {
        *self.seats.get(id.worker())?.get(id.slot())?
    }

    /// The member whose connection is `id`.
    pub(super) fn find(&self, id: ConnId) -> Option<MemberKey> {
        self.seated(id).filter(|&key| self.slab[key].id == id)
    }

    /// Whoever holds `nick`, registered or not.
    pub(super) fn holder(&self, nick: &[u8]) -> Option<MemberKey> {
        self.nicks.get(Folded::new(nick)?.as_bytes()).copied()
    }

    /// The registered member called `nick`: nobody else is there for others.
    pub(super) fn named(&self, nick: &[u8]) -> Option<MemberKey> {
        self.holder(nick).filter(|&key| self.slab[key].registered)
    }

    /// Gives a member a valid nickname that nobody else holds.
    pub(super) fn rename(&mut self, key: MemberKey, nick: &[u8]) {
        let member = &mut self.slab[key];
        if let Some(old) = Folded::new(&member.nick) {
            self.nicks.remove(old.as_bytes());
        }
        if let Some(new) = Folded::new(nick) {
            self.nicks.insert(new.as_bytes().into(), key);
        }
        member.nick = nick.into();
        member.update_mask();
    }

    /// Makes a member one that others see.
    pub(super) fn register(&mut self, key: MemberKey) {
        let member = &mut self.slab[key];
        member.registered = true;
        member.update_mask();
        self.registered += 1;
    }

    /// How many are registered.
    pub(super) fn registered(&self) -> usize {
        self.registered
    }

    /// How many are not, or not yet.
    pub(super) fn unregistered(&self) -> usize {
        self.slab.len() - self.registered
    }

    /// How many nicknames are taken.
    #[cfg(test)]
    pub(super) fn nicknames(&self) -> usize {
        self.nicks.len()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = MemberKey> + '_ {
        self.slab.keys()
    }
}

impl core::ops::Index<MemberKey> for Members {
    type Output = Member;

    fn index(&self, key: MemberKey) -> &Member {
        &self.slab[key]
    }
}

impl core::ops::IndexMut<MemberKey> for Members {
    fn index_mut(&mut self, key: MemberKey) -> &mut Member {
        &mut self.slab[key]
    }
}
