//! Channels as places to be in: JOIN, PART, TOPIC.

use super::{Request, targets};
use crate::Time;
use crate::chat::Hub;
use crate::chat::caps::Cap;
use crate::chat::channels::{Channel, ChannelKey, Topic};
use crate::chat::members::{MemberKey, Membership};
use crate::chat::modes::{Flag, Rank};
use crate::chat::names;
use crate::chat::reply::{
    ERR_BADCHANNELKEY, ERR_BANNEDFROMCHAN, ERR_CHANNELISFULL, ERR_CHANOPRIVSNEEDED,
    ERR_INVITEONLYCHAN, ERR_NOSUCHCHANNEL, ERR_NOTONCHANNEL, ERR_TOOMANYCHANNELS, Numeric,
    RPL_ENDOFNAMES, RPL_NOTOPIC, RPL_TOPIC, RPL_TOPICWHOTIME,
};

impl Hub {
    /// JOIN (RFC 2812, 3.2.1). An empty list, which irssi sends by itself, is a list of nothing.
    pub(super) fn join(&mut self, request: &Request<'_>) {
        if request.params.at(0) == b"0" {
            return self.part_all(request.from);
        }
        let wanted = || targets(request.params.at(0));
        let mut keys = request.params.at(1).split(|&byte| byte == b',');
        self.reply.keep_room_for_ends(wanted().count());
        for name in wanted() {
            let key = keys.next().unwrap_or_default();
            if let Err(numeric) = self.join_one(request.from, name, key, request.now) {
                let member = &self.members[request.from];
                self.reply.numeric(member, numeric, &[names::shown(name)]);
            }
        }
    }

    fn join_one(
        &mut self,
        from: MemberKey,
        name: &[u8],
        key: &[u8],
        now: Time,
    ) -> Result<(), Numeric> {
        if !names::is_channel(name) {
            return Err(ERR_NOSUCHCHANNEL);
        }
        let found = self.channels.find(name);
        let member = &self.members[from];
        if found.is_some_and(|key| member.rank(key).is_some()) {
            return Ok(());
        }
        if member.channels.len() >= self.settings.limits.max_channels {
            return Err(ERR_TOOMANYCHANNELS);
        }
        if let Some(found) = found {
            self.admits(found, from, key)?;
        }
        let created = self.settings.chat.unix(now);
        let key = found.unwrap_or_else(|| self.channels.create(name, created));
        // The first is its operator: there is no other who could make one.
        let rank = if found.is_none() { Rank::OPERATOR } else { Rank::default() };
        let channel = &mut self.channels[key];
        channel.members.push(from);
        let member = &mut self.members[from];
        member.channels.push(Membership { channel: key, rank });
        member.invitations.retain(|invitation| invitation.serial != channel.serial);

        let mut message = self.post.encode(&[b":", &member.mask, b" JOIN ", &channel.name]);
        // There are no accounts: `*` is the name of none.
        let parts = [b":", &*member.mask, b" JOIN ", &channel.name, b" * :", &member.real_name];
        message = message.or_extended(self.post.encode_plain(&parts));
        self.send_to_others(key, from, &mut message);
        self.echo(from, &mut message);
        if let Some(away) = &self.members[from].away {
            let mut message = self.post.encode(&[b":", &self.members[from].mask, b" AWAY :", away]);
            self.send_to_others_with(Cap::AwayNotify, key, from, &mut message);
        }
        if self.channels[key].topic.is_some() {
            self.tell_topic(from, key);
        }
        self.tell_names(from, key);
        let member = &self.members[from];
        self.reply.end_of_list(member, RPL_ENDOFNAMES, &[names::shown(name)]);
        Ok(())
    }

    /// Whether a channel lets a member in that gives this key, or why not. An operator that invites
    /// it has opened the door, whatever else would keep it shut.
    fn admits(&self, channel: ChannelKey, member: MemberKey, key: &[u8]) -> Result<(), Numeric> {
        let (channel, member) = (&self.channels[channel], &self.members[member]);
        if member.is_invited(channel.serial) {
            return Ok(());
        }
        let Channel { modes, .. } = channel;
        if channel.bans(&member.mask) {
            return Err(ERR_BANNEDFROMCHAN);
        }
        if modes.has(Flag::InviteOnly) && !channel.invited.fits(&member.mask) {
            return Err(ERR_INVITEONLYCHAN);
        }
        if modes.key.as_ref().is_some_and(|wanted| !names::is_secret(wanted, key)) {
            return Err(ERR_BADCHANNELKEY);
        }
        if modes.limit.is_some_and(|limit| channel.members.len() >= limit as usize) {
            return Err(ERR_CHANNELISFULL);
        }
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
        for Membership { channel, .. } in self.members[from].channels.clone() {
            self.part_one(from, channel, b"");
        }
    }

    fn part_one(&mut self, from: MemberKey, key: ChannelKey, reason: &[u8]) {
        let (mask, name) = (&self.members[from].mask, &self.channels[key].name);
        let between: &[u8] = if reason.is_empty() { b"" } else { b" :" };
        let mut message = self.post.encode(&[b":", mask, b" PART ", name, between, reason]);
        self.send_to_others(key, from, &mut message);
        self.echo(from, &mut message);
        self.take_out(from, key);
    }

    /// Takes a member out of a channel.
    pub(super) fn take_out(&mut self, member: MemberKey, key: ChannelKey) {
        self.members[member].channels.retain(|other| other.channel != key);
        self.channels.remove_member(key, member);
    }

    /// The channel called `name`, if there is one and `member` is in it.
    pub(super) fn channel_of(&self, member: MemberKey, name: &[u8]) -> Result<ChannelKey, Numeric> {
        let key = self.channels.find(name).ok_or(ERR_NOSUCHCHANNEL)?;
        self.members[member].rank(key).map(|_| key).ok_or(ERR_NOTONCHANNEL)
    }

    /// The channel called `name`, if `member` is an operator of it.
    pub(super) fn channel_led_by(
        &self,
        member: MemberKey,
        name: &[u8],
    ) -> Result<ChannelKey, Numeric> {
        let key = self.channel_of(member, name)?;
        self.leads(member, key).then_some(key).ok_or(ERR_CHANOPRIVSNEEDED)
    }

    pub(super) fn leads(&self, member: MemberKey, key: ChannelKey) -> bool {
        self.members[member].rank(key).is_some_and(|rank| rank.operator)
    }

    /// TOPIC (RFC 2812, 3.2.4), for members of the channel only; to set it where it is guarded, for
    /// its operators.
    pub(super) fn topic(&mut self, request: &Request<'_>) {
        let Request { from, ref params, now, .. } = *request;
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
        if self.channels[key].modes.has(Flag::GuardedTopic) && !self.leads(from, key) {
            return self.answer(from, ERR_CHANOPRIVSNEEDED, &[names::shown(params.at(0))]);
        }
        let text = names::clip(params.at(1), names::TOPIC);
        let at = self.settings.chat.unix(now);
        let member = &self.members[from];
        let topic = Topic { text: text.into(), by: member.nick.clone(), at };
        self.channels[key].topic = (!text.is_empty()).then_some(topic);

        let (mask, name) = (&member.mask, &self.channels[key].name);
        let mut message = self.post.encode(&[b":", mask, b" TOPIC ", name, b" :", text]);
        self.send_to_others(key, from, &mut message);
        self.echo(from, &mut message);
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
}
