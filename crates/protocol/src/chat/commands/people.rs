//! What a member says of itself: AWAY, SETNAME, its modes.

use super::Request;
use crate::chat::Hub;
use crate::chat::caps::Cap;
use crate::chat::members::{MemberKey, UserMode};
use crate::chat::names;
use crate::chat::reply::{
    ERR_NOSUCHNICK, ERR_UMODEUNKNOWNFLAG, ERR_USERSDONTMATCH, RPL_NOWAWAY, RPL_UMODEIS, RPL_UNAWAY,
};

impl Hub {
    /// AWAY (RFC 2812, 4.1).
    pub(super) fn away(&mut self, request: &Request<'_>) {
        let text = names::clip(request.params.at(0), names::AWAY);
        let away = (!text.is_empty()).then(|| text.into());
        let numeric = if away.is_some() { RPL_NOWAWAY } else { RPL_UNAWAY };
        let member = &mut self.members[request.from];
        if member.away != away {
            member.away = away;
            let said = if text.is_empty() { [&b""[..], b""] } else { [b" :", text] };
            let parts = [b":", &*member.mask, b" AWAY", said[0], said[1]];
            let mut message = self.post.encode(&parts);
            self.send_to_sharers_with(Cap::AwayNotify, request.from, &mut message);
        }
        self.answer(request.from, numeric, &[]);
    }

    /// SETNAME (IRCv3 "setname").
    pub(super) fn setname(&mut self, request: &Request<'_>) {
        let (from, name) = (request.from, request.params.at(0));
        if name.is_empty() || name.len() > names::REAL_NAME {
            let text = b" FAIL SETNAME INVALID_REALNAME :Real name is empty or too long";
            return self.reply.line(&[b":", &self.server, text]);
        }
        self.members[from].real_name = name.into();
        let mask = &self.members[from].mask;
        let mut message = self.post.encode(&[b":", mask, b" SETNAME :", name]);
        self.send_to_sharers_with(Cap::Setname, from, &mut message);
        if self.members[from].caps.has(Cap::Setname) {
            self.echo(from, &mut message);
        }
    }

    /// MODE of a member (RFC 2812, 3.1.5): of oneself only.
    pub(super) fn user_mode(&mut self, request: &Request<'_>) {
        let Request { from, ref params, .. } = *request;
        let (member, name) = (&self.members[from], params.at(0));
        if names::same(name, &member.nick) {
            if params.len() > 1 {
                return self.change_user_modes(from, params.at(1));
            }
            let shown = member.modes.show();
            self.reply.text(member, RPL_UMODEIS, &[&shown]);
        } else if self.members.named(name).is_some() {
            self.reply.numeric(member, ERR_USERSDONTMATCH, &[]);
        } else {
            self.reply.numeric(member, ERR_NOSUCHNICK, &[names::shown(name)]);
        }
    }

    fn change_user_modes(&mut self, from: MemberKey, letters: &[u8]) {
        let before = self.members[from].modes;
        let (mut on, mut unknown) = (true, false);
        for &letter in letters {
            match (letter, UserMode::new(letter)) {
                (b'+', _) => on = true,
                (b'-', _) => on = false,
                // Only OPER makes an operator.
                (_, Some(UserMode::Operator)) if on => {}
                (_, Some(mode)) => self.members.set_mode(from, mode, on),
                (_, None) => unknown = true,
            }
        }
        if unknown {
            self.answer(from, ERR_UMODEUNKNOWNFLAG, &[]);
        }
        self.tell_user_modes(from, before);
    }

    /// Tells a member which of its modes have changed.
    pub(super) fn tell_user_modes(&mut self, to: MemberKey, before: super::UserModes) {
        let member = &self.members[to];
        let changes = member.modes.since(before);
        if !changes.is_empty() {
            self.reply.line(&[b":", &member.mask, b" MODE ", &member.nick, b" :", &changes]);
        }
    }
}
