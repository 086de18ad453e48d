//! MONITOR: to be told who comes and goes.

use super::{Request, targets};
use crate::chat::Hub;
use crate::chat::members::MemberKey;
use crate::chat::names;
use crate::chat::reply::{
    ERR_ERRONEUSNICKNAME, ERR_MONLISTFULL, ERR_NEEDMOREPARAMS, RPL_ENDOFMONLIST, RPL_MONLIST,
    RPL_MONOFFLINE, RPL_MONONLINE,
};
use crate::chat::watchers::MOST;

impl Hub {
    /// MONITOR (IRCv3 "monitor").
    pub(super) fn monitor(&mut self, request: &Request<'_>) {
        let Request { from, ref params, .. } = *request;
        let (what, list) = (params.at(0), params.at(1));
        match what {
            b"+" | b"-" if list.is_empty() => {
                self.answer(from, ERR_NEEDMOREPARAMS, &[b"MONITOR"]);
            }
            b"+" => self.watch(from, list),
            b"-" => targets(list).for_each(|nick| self.unwatch(from, nick)),
            b"C" | b"c" => {
                for nick in core::mem::take(&mut self.members[from].watched) {
                    self.watchers.remove(&nick, from);
                }
            }
            b"L" | b"l" => self.tell_watched(from),
            b"S" | b"s" => {
                let watched = self.members[from].watched.clone();
                self.tell_presence(from, &watched.iter().map(|nick| &**nick).collect::<Vec<_>>());
            }
            _ => {
                let shown = names::shown(what);
                let code = b" FAIL MONITOR INVALID_SUBCOMMAND ";
                let text = b" :Not one of + - C L S";
                self.reply.line(&[b":", &self.server, code, shown, text]);
            }
        }
    }

    /// Adds nicknames to those that a member watches for, as many as there is room for, and says of
    /// each whether it is there.
    fn watch(&mut self, from: MemberKey, list: &[u8]) {
        let mut added: Vec<&[u8]> = Vec::new();
        let mut refused = None;
        for nick in targets(list) {
            if !names::is_nick(nick) {
                refused = refused.or(Some(nick));
                continue;
            }
            if added.iter().any(|other| names::same(other, nick)) {
                continue;
            }
            let watched = &mut self.members[from].watched;
            if !watched.iter().any(|other| names::same(other, nick)) {
                if watched.len() >= MOST {
                    self.refuse_from(from, list, nick);
                    break;
                }
                watched.push(nick.into());
                self.watchers.add(nick, from);
            }
            added.push(nick);
        }
        if let Some(nick) = refused {
            self.answer(from, ERR_ERRONEUSNICKNAME, &[names::shown(nick)]);
        }
        self.tell_presence(from, &added);
    }

    /// Says that there is no room for `first` and what stands after it in `list`.
    fn refuse_from(&mut self, to: MemberKey, list: &[u8], first: &[u8]) {
        let at = targets(list).position(|nick| core::ptr::eq(nick, first)).unwrap_or_default();
        let rest = targets(list).skip(at).filter(|nick| names::is_nick(nick));
        let rest = rest.collect::<Vec<_>>().join(&b',');
        self.answer(to, ERR_MONLISTFULL, &[MOST.to_string().as_bytes(), &rest]);
    }

    fn unwatch(&mut self, from: MemberKey, nick: &[u8]) {
        self.members[from].watched.retain(|other| !names::same(other, nick));
        self.watchers.remove(nick, from);
    }

    /// Says which of `nicks` are there and which are not.
    fn tell_presence(&mut self, to: MemberKey, nicks: &[&[u8]]) {
        let Hub { members, reply, .. } = self;
        let named = |nick: &&&[u8]| members.named(nick);
        let there =
            || nicks.iter().filter_map(|nick| named(&nick)).map(|key| [&*members[key].mask]);
        let gone = || nicks.iter().filter(|nick| named(nick).is_none()).map(|nick| [*nick]);
        let to = &members[to];
        if there().next().is_some() {
            reply.list_between(b',', to, RPL_MONONLINE, &[b":"], there());
        }
        if gone().next().is_some() {
            reply.list_between(b',', to, RPL_MONOFFLINE, &[b":"], gone());
        }
    }

    fn tell_watched(&mut self, to: MemberKey) {
        let to = &self.members[to];
        let watched = to.watched.iter().map(|nick| [&**nick]);
        if watched.len() > 0 {
            self.reply.list_between(b',', to, RPL_MONLIST, &[b":"], watched);
        }
        self.reply.end_of_list(to, RPL_ENDOFMONLIST, &[]);
    }

    /// Tells those who watch for a member that it is there.
    pub(super) fn tell_online(&mut self, key: MemberKey) {
        let (nick, mask) = (self.members[key].nick.clone(), self.members[key].mask.clone());
        self.tell_watchers(&nick, RPL_MONONLINE, &mask, key);
    }
}
