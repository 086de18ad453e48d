//! Coming and going: CAP, PASS, NICK, USER, PING, PONG, QUIT.

use core::hint::black_box;

use super::Request;
use crate::Time;
use crate::chat::members::MemberKey;
use crate::chat::names;
use crate::chat::reply::{
    ERR_ALREADYREGISTERED, ERR_ERRONEUSNICKNAME, ERR_NICKNAMEINUSE, ERR_NONICKNAMEGIVEN,
    ERR_NOORIGIN, ERR_PASSWDMISMATCH, ERR_UNKNOWNCOMMAND, RPL_CREATED, RPL_MYINFO, RPL_WELCOME,
    RPL_YOURHOST,
};
use crate::chat::{Farewell, Hub, Parcel};

/// The server's name and version as 002, 004 and 351 tell them.
pub(super) const VERSION: &[u8] = concat!("iomodels-", env!("CARGO_PKG_VERSION")).as_bytes();

impl Hub {
    /// CAP (IRCv3 "Client Capability Negotiation"): there is none to be had, but a client that
    /// asks is told so, and registration waits for it to finish.
    pub(super) fn cap(&mut self, request: &Request<'_>) {
        let subcommand = request.params.at(0).to_ascii_uppercase();
        let member = &mut self.members[request.from];
        if matches!(&*subcommand, b"LS" | b"REQ") && !member.registered {
            member.negotiating = true;
        }
        let (verb, wanted): (&[u8], &[u8]) = match &*subcommand {
            b"LS" => (b" LS :", b""),
            b"LIST" => (b" LIST :", b""),
            b"REQ" => (b" NAK :", request.params.at(1)),
            b"END" => {
                member.negotiating = false;
                return self.register_if_ready(request.from, request.now);
            }
            _ => return self.reply.numeric(member, ERR_UNKNOWNCOMMAND, &[b"CAP"]),
        };
        self.reply.line(&[b":", &self.server, b" CAP ", member.name(), verb, wanted]);
    }

    /// PASS (RFC 2812, 3.1.1): remembered as right or wrong until registration.
    pub(super) fn pass(&mut self, request: &Request<'_>) {
        let member = &mut self.members[request.from];
        if member.registered {
            return self.reply.numeric(member, ERR_ALREADYREGISTERED, &[]);
        }
        let password = self.settings.chat.password.as_deref().unwrap_or_default();
        member.password_matches = is_secret(password.as_bytes(), request.params.at(0));
    }

    /// NICK (RFC 2812, 3.1.2). A nickname is its holder's from here on, registered or not.
    pub(super) fn nick(&mut self, request: &Request<'_>) {
        let Request { from, ref params, now } = *request;
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
        if member.registered {
            let message = self.post.encode(&[b":", &member.mask, b" NICK ", nick]);
            self.send_to_sharers(from, &message);
            self.reply.echo(&message);
        }
        self.members.rename(from, nick);
        self.register_if_ready(from, now);
    }

    /// USER (RFC 2812, 3.1.3). The second and third parameter mean nothing any more.
    pub(super) fn user(&mut self, request: &Request<'_>) {
        let member = &mut self.members[request.from];
        if member.registered {
            return self.reply.numeric(member, ERR_ALREADYREGISTERED, &[]);
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

    /// Completes the registration of whoever has said all it takes.
    fn register_if_ready(&mut self, key: MemberKey, now: Time) {
        let member = &self.members[key];
        let named = !member.nick.is_empty() && !member.user.is_empty();
        if member.registered || member.negotiating || !named {
            return;
        }
        if self.settings.chat.password.is_some() && !member.password_matches {
            self.reply.numeric(member, ERR_PASSWDMISMATCH, &[]);
            self.send_reply(key);
            return self.sever(key, Farewell::Told, ERR_PASSWDMISMATCH.text.as_bytes());
        }
        self.members.register(key);
        self.members[key].since = now;
        self.members[key].spoke = now;
        self.post.force(key, Parcel::Welcome);
        self.welcome(key);
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
        // The last two say which modes there are, of users and of channels: none.
        reply.text(member, RPL_MYINFO, &[server, b" ", VERSION, b" - -"]);
        self.tell_features(key);
        self.tell_users(key);
        self.tell_motd(key);
    }
}

/// Whether `given` is `secret`, in a time that does not depend on how much of it is right: a
/// password cannot be found letter by letter.
fn is_secret(secret: &[u8], given: &[u8]) -> bool {
    let bytes = secret.iter().chain(core::iter::repeat(&0));
    let differing = given.iter().zip(bytes).fold(0, |sum, (a, b)| black_box(sum | (a ^ b)));
    differing == 0 && secret.len() == given.len()
}

#[cfg(test)]
mod tests {
    use super::is_secret;

    #[test]
    fn only_the_secret_is_the_secret() {
        assert!(is_secret(b"sesame", b"sesame"));
        assert!(is_secret(b"", b""));
        for wrong in [&b"sesam"[..], b"sesames", b"Sesame", b"", b"sesame\0"] {
            assert!(!is_secret(b"sesame", wrong));
        }
        assert!(!is_secret(b"", b"a"));
    }
}
