//! Coming and going: PASS, NICK, USER, PING, PONG, QUIT.

use super::Request;
use crate::Time;
use crate::chat::members::{MemberKey, Membership};
use crate::chat::names;
use crate::chat::reply::{
    ERR_ALREADYREGISTERED, ERR_BANONCHAN, ERR_ERRONEUSNICKNAME, ERR_NEEDMOREPARAMS,
    ERR_NICKNAMEINUSE, ERR_NONICKNAMEGIVEN, ERR_NOORIGIN, ERR_PASSWDMISMATCH, RPL_CREATED,
    RPL_MONOFFLINE, RPL_MYINFO, RPL_WELCOME, RPL_YOURHOST,
};
use crate::chat::{Farewell, Hub, Parcel};

/// The server's name and version as 002, 004 and 351 tell them.
pub(super) const VERSION: &[u8] = concat!("iomodels-", env!("CARGO_PKG_VERSION")).as_bytes();

impl Hub {
    /// PASS (RFC 2812, 3.1.1): remembered as right or wrong until registration.
    pub(super) fn pass(&mut self, request: &Request<'_>) {
        let member = &mut self.members[request.from];
        if member.registered {
            return self.reply.numeric(member, ERR_ALREADYREGISTERED, &[]);
        }
        let texts = self.settings.chat.texts();
        let password = texts.password().unwrap_or_default();
        member.password_matches = names::is_secret(password.as_bytes(), request.params.at(0));
    }

    /// NICK (RFC 2812, 3.1.2). A nickname is its holder's from here on, registered or not.
    pub(super) fn nick(&mut self, request: &Request<'_>) {
        let Request { from, ref params, now, .. } = *request;
        let member = &self.members[from];
        let nick = params.at(0);
        if nick.is_empty() {
            return self.reply.numeric(member, ERR_NONICKNAMEGIVEN, &[]);
        }
        if !names::is_nick(nick) {
            let shown = names::shown(nick);
            return self.reply.numeric(member, ERR_ERRONEUSNICKNAME, &[shown]);
        }
        if self.members.holder(nick).is_some_and(|holder| holder != from) {
            return self.reply.numeric(member, ERR_NICKNAMEINUSE, &[nick]);
        }
        if *member.nick == *nick {
            return;
        }
        let muted = |place: &&Membership| {
            !place.rank.is_heard() && self.channels[place.channel].bans(&member.mask)
        };
        if let Some(place) = member.channels.iter().find(muted) {
            // Who is not heard there is not heard by another name either.
            let about = [nick, &*self.channels[place.channel].name];
            return self.reply.numeric(member, ERR_BANONCHAN, &about);
        }
        if member.registered {
            let mut message = self.post.encode(&[b":", &member.mask, b" NICK ", nick]);
            self.send_to_sharers(from, &mut message);
            self.echo(from, &mut message);
            self.past.note(&self.members[from], self.settings.chat.unix(now));
        }
        let before = self.members[from].nick.clone();
        self.members.rename(from, nick);
        if self.members[from].registered && !names::same(&before, nick) {
            self.tell_watchers(&before, RPL_MONOFFLINE, &before, from);
            self.tell_online(from);
        }
        self.register_if_ready(from, now);
    }

    /// USER (RFC 2812, 3.1.3). The second and third parameter mean nothing any more.
    pub(super) fn user(&mut self, request: &Request<'_>) {
        let member = &mut self.members[request.from];
        if member.registered {
            return self.reply.numeric(member, ERR_ALREADYREGISTERED, &[]);
        }
        if request.params.at(3).is_empty() {
            return self.reply.numeric(member, ERR_NEEDMOREPARAMS, &[b"USER"]);
        }
        member.user = names::user(request.params.at(0));
        member.real_name = names::clip(request.params.at(3), names::REAL_NAME).into();
        self.register_if_ready(request.from, request.now);
    }

    /// PING (RFC 2812, 3.7.2): the token comes back.
    pub(super) fn answer_ping(&mut self, request: &Request<'_>) {
        let token = request.params.at(0);
        if token.is_empty() {
            let member = &self.members[request.from];
            return self.reply.numeric(member, ERR_NOORIGIN, &[]);
        }
        self.reply.line(&[b":", &self.server, b" PONG ", &self.server, b" :", token]);
    }

    /// PONG: that a line came is the whole answer, and the socket's owner has seen it.
    pub(super) fn pong(&mut self, _: &Request<'_>) {}

    /// QUIT (RFC 2812, 3.1.7). The word before the reason keeps a client from claiming what only
    /// the server says, such as that its queue ran over (Modern IRC, "QUIT message").
    pub(super) fn quit(&mut self, request: &Request<'_>) {
        let reason = request.params.at(0);
        let reason =
            if reason.is_empty() { b"Client quit" } else { &*[b"Quit: ", reason].concat() };
        self.sever(request.from, Farewell::Told, reason);
    }

    /// Completes the registration of a member that has said all it takes.
    pub(super) fn register_if_ready(&mut self, key: MemberKey, now: Time) {
        let member = &self.members[key];
        let named = !member.nick.is_empty() && !member.user.is_empty();
        if member.registered || member.negotiating || !named {
            return;
        }
        let chat = &self.settings.chat;
        if chat.texts().password().is_some() && !member.password_matches {
            if let Some(changing) = &chat.changing {
                changing.refused(&member.host);
            }
            self.reply.numeric(member, ERR_PASSWDMISMATCH, &[]);
            self.send_reply(key);
            return self.sever(key, Farewell::Told, ERR_PASSWDMISMATCH.text.as_bytes());
        }
        self.members.register(key);
        if let Some(watch) = &self.settings.watch {
            watch.registered();
        }
        self.members[key].since = now;
        self.members[key].spoke = now;
        self.post.force(key, Parcel::Welcome);
        self.welcome(key);
        self.tell_online(key);
    }

    /// 001 to 005, then what LUSERS and MOTD answer (RFC 2812, 5.1; Modern IRC).
    fn welcome(&mut self, key: MemberKey) {
        let member = &self.members[key];
        let network = self.settings.chat.network.as_bytes();
        let started = names::date(self.settings.chat.started_unix);
        let (server, reply) = (&self.server, &mut self.reply);
        let welcome = [&b":Welcome to the "[..], network, b" network, ", &member.mask];
        reply.text(member, RPL_WELCOME, &welcome);
        let host = [&b":Your host is "[..], server, b", running version ", VERSION];
        reply.text(member, RPL_YOURHOST, &host);
        reply.text(member, RPL_CREATED, &[b":This server was started ", started.as_bytes()]);
        // The modes of users, those of channels, and of these the ones with a parameter.
        let modes = b" Biow Ibeiklmnostv Ibeklov";
        reply.text(member, RPL_MYINFO, &[server, b" ", VERSION, modes]);
        self.tell_features(key);
        self.tell_users(key);
        self.tell_motd(key);
    }
}
