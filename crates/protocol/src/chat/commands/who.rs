//! Who is there, and who was: WHO, WHOIS, WHOWAS.

use super::{Request, targets};
use crate::Time;
use crate::chat::Hub;
use crate::chat::caps::Cap;
use crate::chat::channels::ChannelKey;
use crate::chat::masks;
use crate::chat::members::{Member, MemberKey, Membership, UserMode};
use crate::chat::modes::Flag;
use crate::chat::names;
use crate::chat::past::Former;
use crate::chat::reply::{
    ERR_NONICKNAMEGIVEN, ERR_NOSUCHNICK, ERR_WASNOSUCHNICK, RPL_AWAY, RPL_ENDOFWHO, RPL_ENDOFWHOIS,
    RPL_ENDOFWHOWAS, RPL_WHOISBOT, RPL_WHOISCHANNELS, RPL_WHOISHOST, RPL_WHOISIDLE, RPL_WHOISMODES,
    RPL_WHOISOPERATOR, RPL_WHOISSERVER, RPL_WHOISUSER, RPL_WHOREPLY, RPL_WHOSPCRPL, RPL_WHOWASUSER,
};

/// Longest mask that WHO takes, in bytes: it is held against all members.
const WHO_MASK: usize = 64;

/// What WHOX may ask for, in the order in which it is told.
const FIELDS: &[u8] = b"tcuihsnfdlaor";

/// What one WHO wants of each member.
struct Question<'a> {
    from: MemberKey,
    now: Time,
    operators_only: bool,
    /// WHOX: the fields, and what the client knows its question by.
    fields: Option<(&'a [u8], &'a [u8])>,
}

impl Hub {
    /// WHO (RFC 2812, 3.6.1) of a channel, a nickname, a mask, or all, and WHOX (IRCv3).
    pub(super) fn who(&mut self, request: &Request<'_>) {
        let Request { from, ref params, now, .. } = *request;
        let (mask, wanted) = (params.at(0), params.at(1));
        let (flags, fields) = match wanted.iter().position(|&byte| byte == b'%') {
            Some(place) => (&wanted[..place], Some(&wanted[place + 1..])),
            None => (wanted, None),
        };
        let fields = fields.map(|fields| match fields.iter().position(|&byte| byte == b',') {
            Some(place) => (&fields[..place], token(&fields[place + 1..])),
            None => (fields, &b"0"[..]),
        });
        let question = Question { from, now, operators_only: flags.contains(&b'o'), fields };
        if mask.starts_with(b"#") {
            self.who_is_in(mask, &question);
        } else if let Some(about) = self.members.named(mask) {
            self.tell_who(None, about, &question);
        } else {
            self.who_fits(mask, &question);
        }
        self.reply.end_of_list(&self.members[from], RPL_ENDOFWHO, &[names::shown(mask)]);
    }

    fn who_is_in(&mut self, name: &[u8], question: &Question<'_>) {
        let Some(key) = self.channels.find(name) else { return };
        if !self.sees(question.from, key) {
            return;
        }
        for place in 0..self.channels[key].members.len() {
            let about = self.channels[key].members[place];
            let seen = self.notices_in(question.from, about, key);
            if seen && !self.tell_who(Some(key), about, question) {
                return;
            }
        }
    }

    /// All that a mask fits, or all; without those who are invisible to the one that asks.
    fn who_fits(&mut self, mask: &[u8], question: &Question<'_>) {
        let mask = if mask.is_empty() || mask == b"0" { b"*" } else { mask };
        if mask.len() > WHO_MASK {
            return;
        }
        let fits = |member: &Member| {
            [&member.nick, &member.user, &member.host]
                .into_iter()
                .any(|name| masks::fits(mask, name))
        };
        let all = self.members.keys();
        let found: Vec<_> = all
            .filter(|&about| self.members[about].registered && fits(&self.members[about]))
            .collect();
        for about in found {
            if self.notices(question.from, about) && !self.tell_who(None, about, question) {
                return;
            }
        }
    }

    /// Whether a member is told of another in a list of all: not of one that is invisible, unless
    /// they share a channel.
    fn notices(&self, member: MemberKey, other: MemberKey) -> bool {
        let (from, about) = (&self.members[member], &self.members[other]);
        let shared = || about.channels.iter().any(|place| from.rank(place.channel).is_some());
        !about.modes.has(UserMode::Invisible) || member == other || shared()
    }

    /// Whether a member is told that another is in a channel.
    pub(super) fn notices_in(&self, member: MemberKey, other: MemberKey, key: ChannelKey) -> bool {
        let inside = self.members[member].rank(key).is_some();
        inside || !self.members[other].modes.has(UserMode::Invisible)
    }

    /// Adds a 352 or 354, if that is wanted. False when there is no room for more.
    fn tell_who(
        &mut self,
        channel: Option<ChannelKey>,
        about: MemberKey,
        question: &Question<'_>,
    ) -> bool {
        let Hub { server, members, channels, reply, .. } = self;
        let (to, about) = (&members[question.from], &members[about]);
        let operator = about.modes.has(UserMode::Operator);
        if question.operators_only && !operator {
            return true;
        }
        if !reply.has_room() {
            return false;
        }
        let rank = channel.and_then(|key| about.rank(key)).unwrap_or_default();
        let channel = channel.map_or(&b"*"[..], |key| &channels[key].name);
        let here: &[u8] = if about.away.is_some() { b"G" } else { b"H" };
        let star: &[u8] = if operator { b"*" } else { b"" };
        let bot: &[u8] = if about.modes.has(UserMode::Bot) { b"B" } else { b"" };
        let flags = [here, star, bot, rank.signs(to.caps.has(Cap::MultiPrefix))].concat();
        let Member { nick, user, host, real_name, .. } = about;
        let Some((fields, token)) = question.fields else {
            // No other server lies between.
            let parts = [channel, user, host, server, nick, &flags, b":0"].join(&b' ');
            reply.text(to, RPL_WHOREPLY, &[&parts, b" ", real_name]);
            return true;
        };
        let idle = (question.now - about.spoke).as_secs().to_string();
        let mut parts = Vec::new();
        for field in FIELDS.iter().filter(|field| fields.contains(field)) {
            parts.push(b' ');
            let part: &[u8] = match field {
                b't' => token,
                b'c' => channel,
                b'u' => user,
                b'i' | b'h' => host,
                b's' => server,
                b'n' => nick,
                b'f' => &flags,
                b'l' => idle.as_bytes(),
                b'o' => b"n/a",
                b'r' => &[b":", &**real_name].concat(),
                // The distance, and the name of an account: there are none.
                _ => b"0",
            };
            parts.extend_from_slice(part);
        }
        reply.text(to, RPL_WHOSPCRPL, &[parts.get(1..).unwrap_or_default()]);
        true
    }

    /// WHOIS (RFC 2812, 3.6.2), of one nickname; a server may be named before it.
    pub(super) fn whois(&mut self, request: &Request<'_>) {
        let nick = request.params.at(request.params.len().saturating_sub(1).min(1));
        if nick.is_empty() {
            return self.answer(request.from, ERR_NONICKNAMEGIVEN, &[]);
        }
        let shown = names::shown(nick);
        match self.members.named(nick) {
            Some(about) => self.tell_whois(request, about),
            None => self.answer(request.from, ERR_NOSUCHNICK, &[shown]),
        }
        self.reply.end_of_list(&self.members[request.from], RPL_ENDOFWHOIS, &[shown]);
    }

    fn tell_whois(&mut self, request: &Request<'_>, about: MemberKey) {
        let Hub { settings, server, members, channels, reply, .. } = self;
        let own = request.from == about;
        let (to, about) = (&members[request.from], &members[about]);
        let Member { nick, user, host, real_name, since, spoke, .. } = about;
        let parts = [nick, &b" "[..], user, b" ", host, b" * :", real_name];
        reply.text(to, RPL_WHOISUSER, &parts);
        let seen = |place: &&Membership| {
            let secret = channels[place.channel].modes.has(Flag::Secret);
            !secret || to.rank(place.channel).is_some()
        };
        let joined = || about.channels.iter().filter(seen);
        if joined().next().is_some() {
            let joined = joined().map(|place| {
                let signs = place.rank.signs(to.caps.has(Cap::MultiPrefix));
                [signs, &channels[place.channel].name]
            });
            reply.list(to, RPL_WHOISCHANNELS, &[nick, b" :"], joined);
        }
        let description = settings.chat.description.as_bytes();
        reply.text(to, RPL_WHOISSERVER, &[nick, b" ", server, b" :", description]);
        if let Some(away) = &about.away {
            reply.text(to, RPL_AWAY, &[nick, b" :", away]);
        }
        if about.modes.has(UserMode::Operator) {
            reply.numeric(to, RPL_WHOISOPERATOR, &[nick]);
        }
        if about.modes.has(UserMode::Bot) {
            reply.numeric(to, RPL_WHOISBOT, &[nick]);
        }
        if own || to.modes.has(UserMode::Operator) {
            reply.text(to, RPL_WHOISHOST, &[nick, b" :is connecting from *@", host, b" ", host]);
            reply.text(to, RPL_WHOISMODES, &[nick, b" :is using modes ", &about.modes.show()]);
        }
        let idle = (request.now - *spoke).as_secs().to_string();
        let since = settings.chat.unix(*since).to_string();
        reply.numeric(to, RPL_WHOISIDLE, &[nick, idle.as_bytes(), since.as_bytes()]);
    }

    /// WHOWAS (RFC 2812, 3.6.3): the latest first, as many as the second parameter says.
    pub(super) fn whowas(&mut self, request: &Request<'_>) {
        let (list, count) = (request.params.at(0), request.params.at(1));
        if list.is_empty() {
            return self.answer(request.from, ERR_NONICKNAMEGIVEN, &[]);
        }
        let count = core::str::from_utf8(count).ok().and_then(|count| count.parse::<usize>().ok());
        let count = count.filter(|&count| count > 0).unwrap_or(usize::MAX);
        let Hub { settings, server, members, past, reply, .. } = self;
        let to = &members[request.from];
        let wanted = || targets(list).take(settings.limits.max_targets);
        reply.keep_room_for_ends(2 * wanted().count());
        for wanted in wanted() {
            let shown = names::shown(wanted);
            if past.named(wanted).next().is_none() {
                reply.numeric(to, ERR_WASNOSUCHNICK, &[shown]);
            }
            for Former { nick, user, host, real_name, until } in past.named(wanted).take(count) {
                if !reply.has_room() {
                    break;
                }
                let parts = [nick, &b" "[..], user, b" ", host, b" * :", real_name];
                reply.text(to, RPL_WHOWASUSER, &parts);
                let until = names::date(*until);
                reply.text(to, RPL_WHOISSERVER, &[nick, b" ", server, b" :", until.as_bytes()]);
            }
            reply.end_of_list(to, RPL_ENDOFWHOWAS, &[shown]);
        }
    }
}

/// What a client knows its question by: up to three digits.
fn token(given: &[u8]) -> &[u8] {
    let good = (1..=3).contains(&given.len()) && given.iter().all(u8::is_ascii_digit);
    if good { given } else { b"0" }
}
