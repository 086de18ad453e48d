//! What operators of a channel do to members: KICK, INVITE.

use super::{Request, targets};
use crate::chat::Hub;
use crate::chat::caps::Cap;
use crate::chat::channels::ChannelKey;
use crate::chat::letter::Letter;
use crate::chat::members::MemberKey;
use crate::chat::modes::Flag;
use crate::chat::names;
use crate::chat::reply::{
    ERR_CHANOPRIVSNEEDED, ERR_NEEDMOREPARAMS, ERR_NOSUCHNICK, ERR_USERNOTINCHANNEL,
    ERR_USERONCHANNEL, RPL_ENDOFINVITELIST, RPL_INVITELIST, RPL_INVITING,
};

impl Hub {
    /// KICK (RFC 2812, 3.2.8): several members of one channel, or a channel for each. Those beyond
    /// the most targets stay, as TARGMAX tells.
    pub(super) fn kick(&mut self, request: &Request<'_>) {
        let Request { from, ref params, .. } = *request;
        let (channels, nicks) = (params.at(0), params.at(1));
        let one = targets(channels).count() == 1;
        if !one && targets(channels).count() != targets(nicks).count() {
            return self.answer(from, ERR_NEEDMOREPARAMS, &[b"KICK"]);
        }
        let most = self.settings.limits.max_targets;
        let mut channels = targets(channels).cycle();
        for nick in targets(nicks).take(most) {
            let Some(channel) = channels.next() else { return };
            match self.channel_led_by(from, channel) {
                Ok(key) => self.kick_one(from, key, [channel, nick], params.at(2)),
                Err(numeric) => self.answer(from, numeric, &[names::shown(channel)]),
            }
        }
    }

    /// The names are the channel's and the member's, as they were sent.
    fn kick_one(&mut self, from: MemberKey, key: ChannelKey, sent: [&[u8]; 2], reason: &[u8]) {
        let [name, nick] = sent;
        let channel = &self.channels[key].name;
        let Some(to) = self.members.named(nick) else {
            return self.answer(from, ERR_NOSUCHNICK, &[names::shown(nick)]);
        };
        let (kicker, kicked) = (&self.members[from], &self.members[to]);
        if kicked.rank(key).is_none() {
            let about = [nick, name].map(names::shown);
            return self.reply.numeric(kicker, ERR_USERNOTINCHANNEL, &about);
        }
        let reason = if reason.is_empty() { &kicker.nick } else { reason };
        let parts = [b":", &*kicker.mask, b" KICK ", channel, b" ", &kicked.nick, b" :", reason];
        let mut message = self.post.encode(&parts);
        self.send_to_others(key, from, &mut message);
        self.echo(from, &mut message);
        self.take_out(to, key);
    }

    /// INVITE (RFC 2812, 3.2.7), and without a name the list of one's own invitations. Any member
    /// may, unless the channel is for invited ones only. What an operator says opens the channel
    /// for the one that is invited; what another member says is a message and nothing more.
    pub(super) fn invite(&mut self, request: &Request<'_>) {
        let Request { from, ref params, .. } = *request;
        if params.len() == 0 {
            return self.tell_invitations(from);
        }
        if params.len() == 1 {
            return self.answer(from, ERR_NEEDMOREPARAMS, &[b"INVITE"]);
        }
        let [nick, name] = [params.at(0), params.at(1)].map(names::shown);
        let Some(to) = self.members.named(params.at(0)) else {
            return self.answer(from, ERR_NOSUCHNICK, &[nick]);
        };
        let key = match self.channel_of(from, params.at(1)) {
            Ok(key) => key,
            Err(numeric) => return self.answer(from, numeric, &[name]),
        };
        let (leads, channel) = (self.leads(from, key), &self.channels[key]);
        let (inviter, invited) = (&self.members[from], &self.members[to]);
        if invited.rank(key).is_some() {
            return self.reply.numeric(inviter, ERR_USERONCHANNEL, &[nick, name]);
        }
        if channel.modes.has(Flag::InviteOnly) && !leads {
            return self.reply.numeric(inviter, ERR_CHANOPRIVSNEEDED, &[name]);
        }
        self.reply.text(inviter, RPL_INVITING, &[&invited.nick, b" ", &channel.name]);
        let parts = [b":", &*inviter.mask, b" INVITE ", &invited.nick, b" ", &channel.name];
        let mut message = self.post.encode(&parts);
        self.post.offer(to, &mut message);
        self.notify_of_invitation(from, key, &mut message);
        self.tell_away(from, to);
        let channel = &self.channels[key];
        if leads {
            self.members[to].invite(&channel.name, channel.serial);
        }
    }

    /// Tells of an invitation those who could have given it, where they have asked for that.
    fn notify_of_invitation(&mut self, from: MemberKey, key: ChannelKey, message: &mut Letter) {
        for &other in &self.channels[key].members {
            if other != from && self.members[other].rank(key).is_some_and(|rank| rank.operator) {
                self.post.offer_with(Cap::InviteNotify, other, message);
            }
        }
    }

    fn tell_invitations(&mut self, to: MemberKey) {
        let Hub { members, channels, reply, .. } = self;
        let to = &members[to];
        for invitation in &to.invitations {
            let channel = channels.find(&invitation.name).map(|key| &channels[key]);
            if let Some(channel) = channel.filter(|found| found.serial == invitation.serial)
                && reply.has_room()
            {
                reply.text(to, RPL_INVITELIST, &[&channel.name]);
            }
        }
        reply.end_of_list(to, RPL_ENDOFINVITELIST, &[]);
    }
}
