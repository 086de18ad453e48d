//! The channels: each is there as long as a member is in it.

use std::collections::HashMap;

use super::masks::MaskList;
use super::members::MemberKey;
use super::modes::Modes;
use super::names::Folded;
use super::slab::{Key, Slab};

/// The key of a channel in the hub.
pub(super) type ChannelKey = Key<Channel>;

/// What a channel is about, and who said so when.
pub(super) struct Topic {
    pub(super) text: Box<[u8]>,
    pub(super) by: Box<[u8]>,
    /// Seconds since 1970.
    pub(super) at: u64,
}

/// One channel.
pub(super) struct Channel {
    /// As its first member spelled it.
    pub(super) name: Box<[u8]>,
    /// Seconds since 1970.
    pub(super) created: u64,
    /// No other channel has or had it: an invitation to one that is gone is for no other.
    pub(super) serial: u64,
    pub(super) topic: Option<Topic>,
    pub(super) modes: Modes,
    /// Who may not join or speak (+b).
    pub(super) bans: MaskList,
    /// Who may in spite of that (+e).
    pub(super) exceptions: MaskList,
    /// Who is always invited (+I).
    pub(super) invited: MaskList,
    /// Keys and nothing else, side by side: this is what a message to the channel walks along.
    pub(super) members: Vec<MemberKey>,
}

impl Channel {
    /// Whether `mask` is kept out, and from speaking.
    pub(super) fn bans(&self, mask: &[u8]) -> bool {
        self.bans.fits(mask) && !self.exceptions.fits(mask)
    }
}

/// All channels.
pub(super) struct Channels {
    /// How many there have been.
    serials: u64,
    slab: Slab<Channel>,
    /// By folded name.
    names: HashMap<Box<[u8]>, ChannelKey>,
}

impl Channels {
    pub(super) fn new() -> Channels {
        Channels { serials: 0, slab: Slab::new(), names: HashMap::new() }
    }

    /// The channel called `name`.
    pub(super) fn find(&self, name: &[u8]) -> Option<ChannelKey> {
        self.names.get(Folded::new(name)?.as_bytes()).copied()
    }

    /// Adds an empty channel under a valid name that none has. A member must join it at once.
    pub(super) fn create(&mut self, name: &[u8], created: u64) -> ChannelKey {
        self.serials += 1;
        let channel = Channel {
            name: name.into(),
            created,
            serial: self.serials,
            topic: None,
            modes: Modes::new(),
            bans: MaskList::default(),
            exceptions: MaskList::default(),
            invited: MaskList::default(),
            members: Vec::new(),
        };
        let key = self.slab.insert(channel);
        if let Some(folded) = Folded::new(name) {
            self.names.insert(folded.as_bytes().into(), key);
        }
        key
    }

    /// Takes `member` out of a channel, and the channel away with its last member.
    pub(super) fn remove_member(&mut self, key: ChannelKey, member: MemberKey) {
        let channel = &mut self.slab[key];
        // A scan, because a member that leaves is announced to all of them anyway.
        if let Some(place) = channel.members.iter().position(|&other| other == member) {
            channel.members.swap_remove(place);
        }
        if !channel.members.is_empty() {
            return;
        }
        if let Some(folded) = Folded::new(&channel.name) {
            self.names.remove(folded.as_bytes());
        }
        self.slab.remove(key);
    }

    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = ChannelKey> + '_ {
        self.slab.keys()
    }
}

impl core::ops::Index<ChannelKey> for Channels {
    type Output = Channel;

    fn index(&self, key: ChannelKey) -> &Channel {
        &self.slab[key]
    }
}

impl core::ops::IndexMut<ChannelKey> for Channels {
    fn index_mut(&mut self, key: ChannelKey) -> &mut Channel {
        &mut self.slab[key]
    }
}
