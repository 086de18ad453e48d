//! Channels as they are listed: NAMES, LIST.

use super::elist::Wanted;
use super::{Request, targets};
use crate::chat::Hub;
use crate::chat::caps::Cap;
use crate::chat::channels::{Channel, ChannelKey};
use crate::chat::members::{Member, MemberKey, UserMode};
use crate::chat::modes::Flag;
use crate::chat::names;
use crate::chat::reply::{
    RPL_ENDOFNAMES, RPL_LIST, RPL_LISTEND, RPL_LISTSTART, RPL_NAMREPLY, Reply,
};

impl Hub {
    /// NAMES (RFC 2812, 3.2.5). One question has one end, whatever number of channels it names.
    pub(super) fn names(&mut self, request: &Request<'_>) {
        let (from, list) = (request.from, request.params.at(0));
        for name in targets(list).take(self.settings.limits.max_targets) {
            // No error otherwise: an unknown channel is an empty one (RFC 2812, 3.2.5), and so is a
            // secret one to those outside.
            if let Some(key) = self.channels.find(name)
                && self.sees(from, key)
            {
                self.tell_names(from, key);
            }
        }
        self.reply.end_of_list(&self.members[from], RPL_ENDOFNAMES, &[names::shown(list)]);
    }

    /// Whether a member may know of a channel.
    pub(super) fn sees(&self, member: MemberKey, channel: ChannelKey) -> bool {
        !self.channels[channel].modes.has(Flag::Secret)
            || self.members[member].rank(channel).is_some()
    }

    pub(super) fn tell_names(&mut self, to: MemberKey, key: ChannelKey) {
        if !self.reply.has_room() {
            return;
        }
        let inside = self.members[to].rank(key).is_some();
        let Hub { members, channels, reply, .. } = self;
        let (to, channel) = (&members[to], &channels[key]);
        let kind: &[u8] = if channel.modes.has(Flag::Secret) { b"@ " } else { b"= " };
        let all = channel.members.iter().map(|&other| &members[other]);
        // To those outside, members that are invisible are not there.
        let seen = all.filter(|other| inside || !other.modes.has(UserMode::Invisible));
        let (all_signs, masks) = (to.caps.has(Cap::MultiPrefix), to.caps.has(Cap::UserhostInNames));
        let names = seen.map(|other| {
            let signs = other.rank(key).unwrap_or_default().signs(all_signs);
            [signs, if masks { &other.mask } else { &other.nick }]
        });
        let mut names = names.peekable();
        // A channel where no member is to be seen is an empty one too.
        if names.peek().is_some() {
            reply.list(to, RPL_NAMREPLY, &[kind, &channel.name, b" :"], names);
        }
    }

    /// LIST (RFC 2812, 3.2.6), of some channels or of all.
    pub(super) fn list(&mut self, request: &Request<'_>) {
        let from = request.from;
        self.reply.numeric(&self.members[from], RPL_LISTSTART, &[b"Channel"]);
        let wanted = Wanted::new(request.params.at(0), self.settings.limits.max_targets);
        let found: Vec<_> = if wanted.is_plain() {
            wanted.names.iter().filter_map(|name| self.channels.find(name)).collect()
        } else {
            let unix = self.settings.chat.unix(request.now);
            let fits = |key: &ChannelKey| wanted.fits(&self.channels[*key], unix);
            self.channels.keys().filter(fits).collect()
        };
        for key in found {
            if !self.sees(from, key) {
                continue;
            }
            if !self.reply.has_room() {
                break;
            }
            tell_channel(&mut self.reply, &self.members[from], &self.channels[key]);
        }
        self.reply.end_of_list(&self.members[from], RPL_LISTEND, &[]);
    }
}

/// Adds a 322.
fn tell_channel(reply: &mut Reply, to: &Member, channel: &Channel) {
    let members = channel.members.len().to_string();
    let topic = channel.topic.as_ref().map_or(&b""[..], |topic| &topic.text);
    reply.text(to, RPL_LIST, &[&channel.name, b" ", members.as_bytes(), b" :", topic]);
}
