//! Who is there: found by connection, by nickname, or by key.

use std::collections::HashMap;
use std::sync::Arc;

use super::caps::Caps;
use super::channels::ChannelKey;
use super::modes::Rank;
use super::names::{self, Folded};
use super::slab::{Key, Slab};
use crate::{ConnId, Time, Verdict};

/// The key of a member in the hub.
pub(super) type MemberKey = Key<Member>;

/// That a member is in a channel.
#[derive(Clone, Copy)]
pub(super) struct Membership {
    pub(super) channel: ChannelKey,
    pub(super) rank: Rank,
}

/// A mode of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UserMode {
    /// Is a robot (IRCv3 "bot-mode").
    Bot,
    Invisible,
    /// Of the server, made by OPER.
    Operator,
    /// Wants to hear WALLOPS.
    Wallops,
}

/// All modes of members, with their letters.
const USER_MODES: [(u8, UserMode); 4] = [
    (b'B', UserMode::Bot),
    (b'i', UserMode::Invisible),
    (b'o', UserMode::Operator),
    (b'w', UserMode::Wallops),
];

impl UserMode {
    /// The mode with this letter.
    pub(super) fn new(letter: u8) -> Option<UserMode> {
        USER_MODES.iter().find(|(other, _)| *other == letter).map(|(_, mode)| *mode)
    }
}

/// The modes that a member has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct UserModes(u8);

impl UserModes {
    pub(super) fn has(self, mode: UserMode) -> bool {
        self.0 & 1 << mode as u8 != 0
    }

    /// As 221 tells them.
    pub(super) fn show(self) -> Vec<u8> {
        [b"+".to_vec(), self.letters()].concat()
    }

    fn letters(self) -> Vec<u8> {
        let all = USER_MODES.iter().filter(|(_, mode)| self.has(*mode));
        all.map(|(letter, _)| *letter).collect()
    }

    /// What has changed since it had those, as MODE tells it; empty for nothing.
    pub(super) fn since(self, before: UserModes) -> Vec<u8> {
        let mut changes = Vec::new();
        for (sign, letters) in [
            (b'+', UserModes(self.0 & !before.0).letters()),
            (b'-', UserModes(before.0 & !self.0).letters()),
        ] {
            if !letters.is_empty() {
                changes.push(sign);
                changes.extend(letters);
            }
        }
        changes
    }
}

/// That an operator of a channel wants a member in it.
pub(super) struct Invitation {
    /// The channel's name as it was then.
    pub(super) name: Box<[u8]>,
    /// [`super::channels::Channel::serial`].
    pub(super) serial: u64,
}

/// Most invitations that a member has: the oldest gives way.
const INVITATIONS: usize = 32;

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
    /// [`Members::set_mode`] changes them.
    pub(super) modes: UserModes,
    /// Where it says it is, while it is away.
    pub(super) away: Option<Box<[u8]>>,
    /// What it has asked for; the hub's `set_caps` changes it.
    pub(super) caps: Caps,
    /// Between CAP LS or CAP REQ and CAP END: registration waits.
    pub(super) negotiating: bool,
    /// Whether the last PASS was the right one.
    pub(super) password_matches: bool,
    /// The channels it is in, in the order in which it joined: few, so that a scan is the
    /// quickest test of membership.
    pub(super) channels: Vec<Membership>,
    /// The oldest first.
    pub(super) invitations: Vec<Invitation>,
    /// The nicknames it watches for, as it spelled them; [`super::watchers::MOST`] at most.
    pub(super) watched: Vec<Box<[u8]>>,
    pub(super) since: Time,
    /// When it last sent a message to anyone.
    pub(super) spoke: Time,
    /// Bytes that its owner last said were waiting to be read.
    pub(super) queued: usize,
    /// Its OPER that has not been answered.
    pub(super) asked: Option<Box<Asked>>,
    /// How many of them were wrong.
    pub(super) wrong_opers: u8,
}

/// An OPER that waits for its answer.
pub(super) struct Asked {
    pub(super) verdict: Arc<dyn Verdict>,
    /// What its response is to be labelled with.
    pub(super) label: Option<Box<[u8]>>,
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
            modes: UserModes::default(),
            away: None,
            caps: Caps::default(),
            negotiating: false,
            password_matches: false,
            channels: Vec::new(),
            invitations: Vec::new(),
            watched: Vec::new(),
            since: now,
            spoke: now,
            queued: 0,
            asked: None,
            wrong_opers: 0,
        }
    }

    /// What replies call the member: `*` while it has no nickname.
    pub(super) fn name(&self) -> &[u8] {
        if self.nick.is_empty() { b"*" } else { &self.nick }
    }

    /// The rank it has in a channel, if it is in it.
    pub(super) fn rank(&self, channel: ChannelKey) -> Option<Rank> {
        self.channels.iter().find(|other| other.channel == channel).map(|other| other.rank)
    }

    /// Its rank in a channel, to be changed.
    pub(super) fn rank_mut(&mut self, channel: ChannelKey) -> Option<&mut Rank> {
        let mut all = self.channels.iter_mut();
        all.find(|other| other.channel == channel).map(|other| &mut other.rank)
    }

    /// Remembers an invitation.
    pub(super) fn invite(&mut self, name: &[u8], serial: u64) {
        self.invitations.retain(|other| other.serial != serial);
        if self.invitations.len() >= INVITATIONS {
            self.invitations.remove(0);
        }
        self.invitations.push(Invitation { name: name.into(), serial });
    }

    /// Whether it is invited.
    pub(super) fn is_invited(&self, serial: u64) -> bool {
        self.invitations.iter().any(|other| other.serial == serial)
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
    /// The most that have been registered at once.
    most: usize,
    /// Of those that are registered.
    invisible: usize,
    operators: usize,
}

impl Members {
    pub(super) fn new(workers: usize) -> Members {
        let seats = (0..workers).map(|_| Vec::new()).collect();
        Members {
            slab: Slab::new(),
            seats,
            nicks: HashMap::new(),
            registered: 0,
            most: 0,
            invisible: 0,
            operators: 0,
        }
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
        self.invisible -= usize::from(member.modes.has(UserMode::Invisible));
        self.operators -= usize::from(member.modes.has(UserMode::Operator));
        if let Some(folded) = Folded::new(&member.nick) {
            self.nicks.remove(folded.as_bytes());
        }
    }

    fn seat(&mut self, id: ConnId) -> Option<&mut Option<MemberKey>> {
        self.seats.get_mut(id.worker())?.get_mut(id.slot())
    }

    /// The member in the slot of `id`, under that id or an older one.
    pub(super) fn seated(&self, id: ConnId) -> Option<MemberKey> {
        *self.seats.get(id.worker())?.get(id.slot())?
    }

    /// The member whose connection is `id`.
    pub(super) fn find(&self, id: ConnId) -> Option<MemberKey> {
        self.seated(id).filter(|&key| self.slab[key].id == id)
    }

    /// The member that holds `nick`, registered or not.
    pub(super) fn holder(&self, nick: &[u8]) -> Option<MemberKey> {
        self.nicks.get(Folded::new(nick)?.as_bytes()).copied()
    }

    /// The registered member called `nick`: others do not see a member before it has registered.
    pub(super) fn named(&self, nick: &[u8]) -> Option<MemberKey> {
        self.holder(nick).filter(|&key| self.slab[key].registered)
    }

    /// Gives a member a valid nickname that no other holds.
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
        self.most = self.most.max(self.registered);
    }

    /// Switches a mode of a registered member.
    pub(super) fn set_mode(&mut self, key: MemberKey, mode: UserMode, on: bool) {
        let modes = &mut self.slab[key].modes;
        if modes.has(mode) == on {
            return;
        }
        modes.0 ^= 1 << mode as u8;
        let count = match mode {
            UserMode::Invisible => &mut self.invisible,
            UserMode::Operator => &mut self.operators,
            UserMode::Bot | UserMode::Wallops => return,
        };
        *count = if on { *count + 1 } else { *count - 1 };
    }

    /// The most that have been registered at once.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// How many are invisible.
    pub(super) fn invisible(&self) -> usize {
        self.invisible
    }

    /// Those who want to hear WALLOPS.
    pub(super) fn wallops(&self) -> Vec<MemberKey> {
        self.keys().filter(|&key| self.slab[key].modes.has(UserMode::Wallops)).collect()
    }

    /// How many are operators of the server.
    pub(super) fn operators(&self) -> usize {
        self.operators
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
