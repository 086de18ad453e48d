//! Channels: JOIN, PART, TOPIC, NAMES, LIST, MODE.

use super::{Request, targets};
use crate::Time;
use crate::chat::Hub;
use crate::chat::channels::{Channel, ChannelKey, Topic};
use crate::chat::members::{Member, MemberKey};
use crate::chat::names;
use crate::chat::reply::{
    ERR_NOSUCHCHANNEL, ERR_NOSUCHNICK, ERR_NOTONCHANNEL, ERR_TOOMANYCHANNELS, ERR_UMODEUNKNOWNFLAG,
    ERR_UNKNOWNMODE, ERR_USERSDONTMATCH, Numeric, RPL_CHANNELMODEIS, RPL_CREATIONTIME,
    RPL_ENDOFBANLIST, RPL_ENDOFNAMES, RPL_LIST, RPL_LISTEND, RPL_LISTSTART, RPL_NAMREPLY,
    RPL_NOTOPIC, RPL_TOPIC, RPL_TOPICWHOTIME, RPL_UMODEIS, Reply,
};

impl Hub {
    /// JOIN (RFC 2812, 3.2.1). Keys are ignored: no channel has one. An empty list, which irssi
    /// sends by itself, is a list of nothing.
    pub(super) fn join(&mut self, request: &Request<'_>) {
        if request.params.at(0) == b"0" {
            return self.part_all(request.from);
        }
        for name in targets(request.params.at(0)) {
            if let Err(numeric) = self.join_one(request.from, name, request.now) {
                let member = &self.members[request.from];
                self.reply.numeric(member, numeric, &[names::shown(name)]);
            }
        }
    }

    fn join_one(&mut self, from: MemberKey, name: &[u8], now: Time) -> Result<(), Numeric> {
        if !names::is_channel(name) {
            return Err(ERR_NOSUCHCHANNEL);
        }
        let found = self.channels.find(name);
        let member = &self.members[from];
        if found.is_some_and(|key| member.channels.contains(&key)) {
            return Ok(());
        }
        if member.channels.len() >= self.settings.limits.max_channels {
            return Err(ERR_TOOMANYCHANNELS);
        }
        let created = self.settings.chat.unix(now);
        let key = found.unwrap_or_else(|| self.channels.create(name, created));
        self.channels[key].members.push(from);
        self.members[from].channels.push(key);

        let (mask, name) = (&self.members[from].mask, &self.channels[key].name);
        let message = self.post.encode(&[b":", mask, b" JOIN ", name]);
        self.send_to_others(key, from, &message);
        self.reply.echo(&message);
        if self.channels[key].topic.is_some() {
            self.tell_topic(from, key);
        }
        self.tell_names(from, key);
        Ok(())
    }

    /// PART (RFC 2812, 3.2.2).
    pub(super) fn part(&mut self, request: &Request<'_>) {
        let from = request.from;
        for name in targets(request.params.at(0)) {
            match self.channel_of(from, name) {
                Ok(key) => self.part_one(from, key, request.params.at(1)),
                Err(numeric) => {
                    let member = &self.members[from];
                    self.reply.numeric(member, numeric, &[names::shown(name)]);
                }
            }
        }
    }

    fn part_all(&mut self, from: MemberKey) {
        for key in self.members[from].channels.clone() {
            self.part_one(from, key, b"");
        }
    }

    fn part_one(&mut self, from: MemberKey, key: ChannelKey, reason: &[u8]) {
        let (mask, name) = (&self.members[from].mask, &self.channels[key].name);
        let between: &[u8] = if reason.is_empty() { b"" } else { b" :" };
        let message = self.post.encode(&[b":", mask, b" PART ", name, between, reason]);
        self.send_to_others(key, from, &message);
        self.reply.echo(&message);
        self.members[from].channels.retain(|&other| other != key);
        self.channels.remove_member(key, from);
    }

    /// The channel called `name`, if there is one and `member` is in it.
    fn channel_of(&self, member: MemberKey, name: &[u8]) -> Result<ChannelKey, Numeric> {
        let key = self.channels.find(name).ok_or(ERR_NOSUCHCHANNEL)?;
        let joined = self.members[member].channels.contains(&key);
        joined.then_some(key).ok_or(ERR_NOTONCHANNEL)
    }

    /// TOPIC (RFC 2812, 3.2.4), for members of the channel only.
    pub(super) fn topic(&mut self, request: &Request<'_>) {
        let Request { from, ref params, now } = *request;
        let key = match self.channel_of(from, params.at(0)) {
            Ok(key) => key,
            Err(numeric) => {
                let shown = names::shown(params.at(0));
                return self.reply.numeric(&self.members[from], numeric, &[shown]);
            }
        };
        if params.len() < 2 {
            return self.tell_topic(from, key);
        }
        let text = names::clip(params.at(1), names::TOPIC);
        let at = self.settings.chat.unix(now);
        let member = &self.members[from];
        let topic = Topic { text: text.into(), by: member.nick.clone(), at };
        self.channels[key].topic = (!text.is_empty()).then_some(topic);

        let (mask, name) = (&member.mask, &self.channels[key].name);
        let message = self.post.encode(&[b":", mask, b" TOPIC ", name, b" :", text]);
        self.send_to_others(key, from, &message);
        self.reply.echo(&message);
    }

    fn tell_topic(&mut self, to: MemberKey, key: ChannelKey) {
        let (member, channel) = (&self.members[to], &self.channels[key]);
        let Some(topic) = &channel.topic else {
            return self.reply.numeric(member, RPL_NOTOPIC, &[&channel.name]);
        };
        let at = topic.at.to_string();
        self.reply.text(member, RPL_TOPIC, &[&channel.name, b" :", &topic.text]);
        let who_and_when = [&channel.name, &b" "[..], &topic.by, b" ", at.as_bytes()];
        self.reply.text(member, RPL_TOPICWHOTIME, &who_and_when);
    }

    /// NAMES (RFC 2812, 3.2.5).
    pub(super) fn names(&mut self, request: &Request<'_>) {
        let list = request.params.at(0);
        if list.is_empty() {
            let member = &self.members[request.from];
            return self.reply.numeric(member, RPL_ENDOFNAMES, &[b"*"]);
        }
        for name in targets(list).take(self.settings.limits.max_targets) {
            match self.channels.find(name) {
                Some(key) => self.tell_names(request.from, key),
                // No error here: an unknown channel is an empty one (RFC 2812, 3.2.5).
                None => {
                    let member = &self.members[request.from];
                    self.reply.numeric(member, RPL_ENDOFNAMES, &[names::shown(name)]);
                }
            }
        }
    }

    fn tell_names(&mut self, to: MemberKey, key: ChannelKey) {
        let (member, channel) = (&self.members[to], &self.channels[key]);
        let nicks = channel.members.iter().map(|&key| &*self.members[key].nick);
        if self.reply.has_room() {
            self.reply.list(member, RPL_NAMREPLY, &[b"= ", &channel.name, b" :"], nicks);
        }
        self.reply.end_of_list(member, RPL_ENDOFNAMES, &[&channel.name]);
    }

    /// LIST (RFC 2812, 3.2.6), of some channels or of all.
    pub(super) fn list(&mut self, request: &Request<'_>) {
        let list = request.params.at(0);
        let Hub { settings, members, channels, reply, .. } = self;
        let to = &members[request.from];
        reply.numeric(to, RPL_LISTSTART, &[b"Channel"]);
        if list.is_empty() {
            for key in channels.keys() {
                if !reply.has_room() {
                    break;
                }
                tell_channel(reply, to, &channels[key]);
            }
        }
        for name in targets(list).take(settings.limits.max_targets) {
            if let Some(key) = channels.find(name) {
                tell_channel(reply, to, &channels[key]);
            }
        }
        reply.end_of_list(to, RPL_LISTEND, &[]);
    }

    /// MODE (RFC 2812, 3.1.5 and 3.2.3): there are no modes, and that is what it tells. Clients
    /// ask of their own accord, and irssi waits for the list of bans after joining.
    pub(super) fn mode(&mut self, request: &Request<'_>) {
        if request.params.at(0).starts_with(b"#") {
            self.channel_mode(request);
        } else {
            self.user_mode(request);
        }
    }

    fn channel_mode(&mut self, request: &Request<'_>) {
        let params = &request.params;
        let member = &self.members[request.from];
        let Some(key) = self.channels.find(params.at(0)) else {
            let shown = names::shown(params.at(0));
            return self.reply.numeric(member, ERR_NOSUCHCHANNEL, &[shown]);
        };
        let channel = &self.channels[key];
        if params.len() < 2 {
            let created = channel.created.to_string();
            self.reply.text(member, RPL_CHANNELMODEIS, &[&channel.name, b" +"]);
            let parts = [&channel.name, &b" "[..], created.as_bytes()];
            return self.reply.text(member, RPL_CREATIONTIME, &parts);
        }
        // One answer is enough: no mode that comes after would fare better.
        match params.at(1).iter().find(|byte| !matches!(byte, b'+' | b'-')) {
            None => {}
            Some(b'b') if params.len() == 2 => {
                self.reply.numeric(member, RPL_ENDOFBANLIST, &[&channel.name]);
            }
            Some(mode) => {
                let mode = if mode.is_ascii() { &[*mode][..] } else { b"*" };
                self.reply.numeric(member, ERR_UNKNOWNMODE, &[names::shown(mode)]);
            }
        }
    }

    fn user_mode(&mut self, request: &Request<'_>) {
        let member = &self.members[request.from];
        let name = request.params.at(0);
        if names::same(name, &member.nick) {
            match request.params.len() {
                1 => self.reply.text(member, RPL_UMODEIS, &[b"+"]),
                _ => self.reply.numeric(member, ERR_UMODEUNKNOWNFLAG, &[]),
            }
        } else if self.members.named(name).is_some() {
            self.reply.numeric(member, ERR_USERSDONTMATCH, &[]);
        } else {
            self.reply.numeric(member, ERR_NOSUCHNICK, &[names::shown(name)]);
        }
    }
}

/// Adds a 322.
fn tell_channel(reply: &mut Reply, to: &Member, channel: &Channel) {
    let members = channel.members.len().to_string();
    let topic = channel.topic.as_ref().map_or(&b""[..], |topic| &topic.text);
    reply.text(to, RPL_LIST, &[&channel.name, b" ", members.as_bytes(), b" :", topic]);
}
