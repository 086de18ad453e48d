//! Operators of the server: OPER, and what only they may: KILL, WALLOPS, REHASH.
//!
//! To look whether a password is right takes a processor for as long as it is meant to, so it is
//! done elsewhere ([`crate::Changing::verify`]). The session hears no line of the member until
//! [`crate::Limits::OPER_DELAY`] has passed, and its next line brings the answer. So no loop needs
//! to be woken, every answer takes as long as any other, and no connection tries more often.

use super::Request;
use crate::chat::members::{Asked, MemberKey, UserMode};
use crate::chat::reply::{
    ERR_NEEDMOREPARAMS, ERR_NOOPERHOST, ERR_NOPRIVILEGES, ERR_NOSUCHNICK, ERR_PASSWDMISMATCH,
    RPL_REHASHING, RPL_TRYAGAIN, RPL_YOUREOPER,
};
use crate::chat::{Farewell, Hub, names};

/// So many wrong attempts end a connection.
const WRONG_OPERS: u8 = 3;

impl Hub {
    /// OPER (RFC 2812, 3.1.4).
    pub(super) fn oper(&mut self, request: &Request<'_>) {
        let Request { from, ref params, .. } = *request;
        let member = &self.members[from];
        let Some(changing) = self.settings.chat.changing.as_ref().filter(|it| it.has_operators())
        else {
            return self.reply.numeric(member, ERR_NOOPERHOST, &[]);
        };
        match changing.verify(params.at(0), params.at(1), &member.host) {
            Some(verdict) => {
                let label = self.label.take();
                self.members[from].asked = Some(Box::new(Asked { verdict, label }));
            }
            None => self.reply.numeric(member, RPL_TRYAGAIN, &[b"OPER"]),
        }
    }

    /// Answers the OPER that a member waits for.
    pub(in crate::chat) fn answer_oper(&mut self, from: MemberKey) {
        let Some(asked) = self.members[from].asked.take() else { return };
        self.label = asked.label;
        match asked.verdict.get() {
            Some(true) => {
                let before = self.members[from].modes;
                self.members.set_mode(from, UserMode::Operator, true);
                self.answer(from, RPL_YOUREOPER, &[]);
                self.tell_user_modes(from, before);
            }
            Some(false) => {
                self.answer(from, ERR_PASSWDMISMATCH, &[]);
                self.members[from].wrong_opers += 1;
            }
            None => self.answer(from, RPL_TRYAGAIN, &[b"OPER"]),
        }
        self.label_reply();
        self.label = None;
        self.send_reply(from);
        if self.members[from].wrong_opers >= WRONG_OPERS {
            self.sever(from, Farewell::Told, b"Too many wrong passwords");
        }
    }

    /// KILL (RFC 2812, 3.7.1).
    pub(super) fn kill(&mut self, request: &Request<'_>) {
        let Request { from, ref params, .. } = *request;
        if !self.is_privileged(from) {
            return;
        }
        let Some(to) = self.members.named(params.at(0)) else {
            return self.answer(from, ERR_NOSUCHNICK, &[names::shown(params.at(0))]);
        };
        let (killer, killed) = (&self.members[from], &self.members[to]);
        let said = params.at(1);
        let said = if said.is_empty() { &killer.nick } else { said };
        let reason = [b"Killed (", &*killer.nick, b" (", said, b"))"].concat();
        let parts = [b":", &*killer.mask, b" KILL ", &killed.nick, b" :", said];
        let mut message = self.post.encode(&parts);
        self.post.offer(to, &mut message);
        self.sever(to, Farewell::Told, &reason);
    }

    /// WALLOPS (RFC 2812, 4.7): to all that want to hear it, who may be the operator itself.
    pub(super) fn wallops(&mut self, request: &Request<'_>) {
        let Request { from, ref params, .. } = *request;
        if !self.is_privileged(from) {
            return;
        }
        if params.at(0).is_empty() {
            return self.answer(from, ERR_NEEDMOREPARAMS, &[b"WALLOPS"]);
        }
        let mask = &self.members[from].mask;
        let mut message = self.post.encode(&[b":", mask, b" WALLOPS :", params.at(0)]);
        for to in self.members.wallops() {
            if to == from {
                self.echo(from, &mut message);
            } else {
                self.post.offer(to, &mut message);
            }
        }
    }

    /// REHASH (RFC 2812, 4.2): does what SIGHUP does.
    pub(super) fn rehash(&mut self, request: &Request<'_>) {
        if !self.is_privileged(request.from) {
            return;
        }
        if let Some(changing) = &self.settings.chat.changing {
            changing.reload();
        }
        self.answer(request.from, RPL_REHASHING, &[&self.server.clone()]);
    }

    /// Whether a member is an operator of the server. It is told if it is not.
    fn is_privileged(&mut self, member: MemberKey) -> bool {
        let privileged = self.members[member].modes.has(UserMode::Operator);
        if !privileged {
            self.answer(member, ERR_NOPRIVILEGES, &[]);
        }
        privileged
    }
}
