//! MODE of channels.

use super::Request;
use crate::chat::Hub;
use crate::chat::channels::{Channel, ChannelKey};
use crate::chat::masks::{self, Added, Entry, MaskList};
use crate::chat::members::MemberKey;
use crate::chat::modes::{self, Change, Flag};
use crate::chat::names;
use crate::chat::reply::{
    ERR_BANLISTFULL, ERR_CHANOPRIVSNEEDED, ERR_INVALIDMODEPARAM, ERR_NEEDMOREPARAMS,
    ERR_NOSUCHCHANNEL, ERR_NOSUCHNICK, ERR_NOTONCHANNEL, ERR_UNKNOWNMODE, ERR_USERNOTINCHANNEL,
    Numeric, RPL_BANLIST, RPL_CHANNELMODEIS, RPL_CREATIONTIME, RPL_ENDOFBANLIST,
    RPL_ENDOFEXCEPTLIST, RPL_ENDOFINVEXLIST, RPL_EXCEPTLIST, RPL_INVEXLIST, Reply,
};

/// Modes with a parameter, and modes that are refused, in one line (MODES in 005).
pub(super) const MODES: usize = 6;

/// One line of MODE being carried out.
struct Wish<'a> {
    request: &'a Request<'a>,
    channel: ChannelKey,
    leads: bool,
    /// Whether the member has been told that it does not lead.
    told: bool,
    /// Place of the next parameter.
    next: usize,
    /// How many more modes with a parameter, and how many more refusals, this line may have.
    left: usize,
    refusals: usize,
    /// The lists that this line has told.
    lists: Vec<u8>,
    changes: Vec<Change>,
}

impl<'a> Wish<'a> {
    /// The next parameter; none when there is none left.
    fn param(&mut self) -> Option<&'a [u8]> {
        let there = self.next < self.request.params.len();
        let param = self.request.params.at(self.next);
        self.next += usize::from(there);
        there.then_some(param)
    }
}

impl Hub {
    /// MODE (RFC 2812, 3.1.5 and 3.2.3).
    pub(super) fn mode(&mut self, request: &Request<'_>) {
        if request.params.at(0).starts_with(b"#") {
            self.channel_mode(request);
        } else {
            self.user_mode(request);
        }
    }

    fn channel_mode(&mut self, request: &Request<'_>) {
        let Request { from, ref params, .. } = *request;
        let Some(key) = self.channels.find(params.at(0)) else {
            return self.answer(from, ERR_NOSUCHCHANNEL, &[names::shown(params.at(0))]);
        };
        if params.len() < 2 {
            return self.tell_modes(from, key);
        }
        let mut wish = Wish {
            request,
            channel: key,
            leads: self.leads(from, key),
            told: false,
            next: 2,
            left: MODES,
            refusals: MODES,
            lists: Vec::new(),
            changes: Vec::new(),
        };
        self.reply.keep_room_for_ends("beI".len());
        let mut on = true;
        // A letter that is none has more than one byte at most, and is told whole.
        for letter in params.at(1).utf8_chunks().flat_map(|chunk| chunk.valid().chars()) {
            match letter {
                '+' => on = true,
                '-' => on = false,
                letter => self.change_mode(&mut wish, on, letter),
            }
        }
        self.tell_changes(from, key, &wish.changes);
    }

    /// 324 and 329.
    fn tell_modes(&mut self, to: MemberKey, key: ChannelKey) {
        let (member, channel) = (&self.members[to], &self.channels[key]);
        let shown = channel.modes.show(member.rank(key).is_some());
        let created = channel.created.to_string();
        self.reply.text(member, RPL_CHANNELMODEIS, &[&channel.name, b" ", &shown]);
        let parts = [&channel.name, &b" "[..], created.as_bytes()];
        self.reply.text(member, RPL_CREATIONTIME, &parts);
    }

    /// Tells all members of a channel what has changed in it.
    fn tell_changes(&mut self, from: MemberKey, key: ChannelKey, changes: &[Change]) {
        let (mask, name) = (&self.members[from].mask, &self.channels[key].name);
        let head = [b":", &**mask, b" MODE ", name, b" "].concat();
        for piece in modes::in_pieces(changes, Reply::LINE - head.len()) {
            let mut message = self.post.encode(&[&head, &piece]);
            self.send_to_others(key, from, &mut message);
            self.echo(from, &mut message);
        }
    }

    fn change_mode(&mut self, wish: &mut Wish<'_>, on: bool, letter: char) {
        if wish.left == 0 && takes_param(on, letter) && wish.param().is_some() {
            return; // 005 has told how many there may be.
        }
        match letter {
            'b' | 'e' | 'I' => self.change_list(wish, on, letter as u8),
            'o' | 'v' => self.change_rank(wish, on, letter as u8),
            'k' => self.change_key(wish, on),
            'l' => self.change_limit(wish, on),
            _ => match u8::try_from(letter).ok().and_then(Flag::new) {
                Some(flag) if self.may_change(wish) => {
                    if self.channels[wish.channel].modes.set(flag, on) {
                        wish.changes.push(Change { on, letter: letter as u8, param: Vec::new() });
                    }
                }
                Some(_) => {}
                None => {
                    let letter = letter.to_string();
                    self.refuse_mode(wish, ERR_UNKNOWNMODE, &[names::shown(letter.as_bytes())]);
                }
            },
        }
    }

    /// Whether the member leads the channel; it is told once if it does not.
    fn may_change(&mut self, wish: &mut Wish<'_>) -> bool {
        if !wish.leads && !core::mem::replace(&mut wish.told, true) {
            let from = wish.request.from;
            let inside = self.members[from].rank(wish.channel).is_some();
            let numeric = if inside { ERR_CHANOPRIVSNEEDED } else { ERR_NOTONCHANNEL };
            self.answer(from, numeric, &[names::shown(wish.request.params.at(0))]);
        }
        wish.leads
    }

    /// Says why one mode is not changed, unless too many have been refused in this line.
    fn refuse_mode(&mut self, wish: &mut Wish<'_>, numeric: Numeric, params: &[&[u8]]) {
        if wish.refusals > 0 {
            wish.refusals -= 1;
            self.answer(wish.request.from, numeric, params);
        }
    }

    fn refuse_param(&mut self, wish: &mut Wish<'_>, letter: &[u8], param: &[u8]) {
        let channel = names::shown(wish.request.params.at(0));
        self.refuse_mode(wish, ERR_INVALIDMODEPARAM, &[channel, letter, names::shown(param)]);
    }

    /// +o and +v.
    fn change_rank(&mut self, wish: &mut Wish<'_>, on: bool, letter: u8) {
        if !self.may_change(wish) {
            return;
        }
        let Some(nick) = wish.param() else {
            return self.refuse_mode(wish, ERR_NEEDMOREPARAMS, &[b"MODE"]);
        };
        wish.left -= 1;
        let Some(to) = self.members.named(nick) else {
            return self.refuse_mode(wish, ERR_NOSUCHNICK, &[names::shown(nick)]);
        };
        let Some(rank) = self.members[to].rank_mut(wish.channel) else {
            let shown = [names::shown(nick), names::shown(wish.request.params.at(0))];
            return self.refuse_mode(wish, ERR_USERNOTINCHANNEL, &shown);
        };
        let held = if letter == b'o' { &mut rank.operator } else { &mut rank.voice };
        if core::mem::replace(held, on) != on {
            if to == wish.request.from && letter == b'o' {
                wish.leads = on;
            }
            let param = self.members[to].nick.to_vec();
            wish.changes.push(Change { on, letter, param });
        }
    }

    /// +b, +e and +I, and what stands in them. The exceptions to a ban are its operators' business.
    fn change_list(&mut self, wish: &mut Wish<'_>, on: bool, letter: u8) {
        let Some(wanted) = wish.param() else {
            if letter == b'b' || self.may_change(wish) {
                self.tell_list(wish, letter);
            }
            return;
        };
        if !self.may_change(wish) {
            return;
        }
        wish.left -= 1;
        let Some(mask) = masks::complete(wanted) else {
            return self.refuse_param(wish, &[letter], wanted);
        };
        let at = self.settings.chat.unix(wish.request.now);
        let by = self.members[wish.request.from].nick.clone();
        let channel = &mut self.channels[wish.channel];
        let list = list_of(channel, letter);
        if on {
            match list.add(Entry { mask: mask.as_slice().into(), by, at }) {
                Added::New => wish.changes.push(Change { on, letter, param: mask }),
                Added::Known => {}
                Added::Full => {
                    let channel = names::shown(wish.request.params.at(0));
                    self.refuse_mode(wish, ERR_BANLISTFULL, &[channel, &[letter]]);
                }
            }
        } else if let Some(mask) = list.remove(&mask) {
            wish.changes.push(Change { on, letter, param: mask.into() });
        }
    }

    fn tell_list(&mut self, wish: &mut Wish<'_>, letter: u8) {
        let (entry, end) = match letter {
            b'b' => (RPL_BANLIST, RPL_ENDOFBANLIST),
            b'e' => (RPL_EXCEPTLIST, RPL_ENDOFEXCEPTLIST),
            _ => (RPL_INVEXLIST, RPL_ENDOFINVEXLIST),
        };
        if wish.lists.contains(&letter) {
            return;
        }
        wish.lists.push(letter);
        let Hub { members, channels, reply, .. } = self;
        let to = &members[wish.request.from];
        let channel = &mut channels[wish.channel];
        let name = channel.name.clone();
        for Entry { mask, by, at } in list_of(channel, letter).iter() {
            if !reply.has_room() {
                break;
            }
            let at = at.to_string();
            reply.text(to, entry, &[&name, b" ", mask, b" ", by, b" ", at.as_bytes()]);
        }
        reply.end_of_list(to, end, &[names::shown(wish.request.params.at(0))]);
    }

    /// +k. What takes it away needs no key, and most clients give one.
    fn change_key(&mut self, wish: &mut Wish<'_>, on: bool) {
        if !self.may_change(wish) {
            return;
        }
        let given = wish.param();
        wish.left = wish.left.saturating_sub(usize::from(given.is_some()));
        let key = &mut self.channels[wish.channel].modes.key;
        match given {
            _ if !on => {
                if key.take().is_some() {
                    wish.changes.push(Change { on, letter: b'k', param: b"*".into() });
                }
            }
            None => self.refuse_mode(wish, ERR_NEEDMOREPARAMS, &[b"MODE"]),
            Some(given) if !modes::is_key(given) => self.refuse_param(wish, b"k", b""),
            Some(given) => {
                if key.as_deref() != Some(given) {
                    *key = Some(given.into());
                    wish.changes.push(Change { on, letter: b'k', param: given.into() });
                }
            }
        }
    }

    /// +l.
    fn change_limit(&mut self, wish: &mut Wish<'_>, on: bool) {
        if !self.may_change(wish) {
            return;
        }
        if !on {
            if self.channels[wish.channel].modes.limit.take().is_some() {
                wish.changes.push(Change { on, letter: b'l', param: Vec::new() });
            }
            return;
        }
        let Some(given) = wish.param() else {
            return self.refuse_mode(wish, ERR_NEEDMOREPARAMS, &[b"MODE"]);
        };
        wish.left -= 1;
        let number = core::str::from_utf8(given).ok().and_then(|text| text.parse::<u32>().ok());
        let Some(number) = number.filter(|&number| number > 0) else {
            return self.refuse_param(wish, b"l", given);
        };
        let limit = &mut self.channels[wish.channel].modes.limit;
        if limit.replace(number) != Some(number) {
            wish.changes.push(Change { on, letter: b'l', param: number.to_string().into() });
        }
    }
}

fn takes_param(on: bool, letter: char) -> bool {
    matches!(letter, 'b' | 'e' | 'I' | 'o' | 'v' | 'k') || on && letter == 'l'
}

fn list_of(channel: &mut Channel, letter: u8) -> &mut MaskList {
    match letter {
        b'b' => &mut channel.bans,
        b'e' => &mut channel.exceptions,
        _ => &mut channel.invited,
    }
}
