//! Messages: PRIVMSG, NOTICE and TAGMSG.

use super::caps::client_tags;
use super::{Request, targets};
use crate::chat::Hub;
use crate::chat::caps::Cap;
use crate::chat::channels::ChannelKey;
use crate::chat::letter::Letter;
use crate::chat::members::{MemberKey, UserMode};
use crate::chat::modes::{Flag, Rank};
use crate::chat::names;
use crate::chat::reply::{
    ERR_CANNOTSENDTOCHAN, ERR_NORECIPIENT, ERR_NOSUCHCHANNEL, ERR_NOSUCHNICK, ERR_NOTEXTTOSEND,
    ERR_UNKNOWNCOMMAND, Numeric, RPL_AWAY,
};

/// RFC 2812 has 407 for this, which current practice has dropped: to a client, each target is one
/// that could not be sent to.
const TOO_MANY_TARGETS: Numeric = Numeric {
    text: "Too many targets: this one and those after it got nothing",
    ..ERR_CANNOTSENDTOCHAN
};

/// The commands that carry something to others. Nothing is ever said in return for a NOTICE, so
/// that two robots do not talk for ever (RFC 2812, 3.3.2).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Privmsg,
    Notice,
    /// Tags alone (IRCv3 "message-tags"), to those who understand them.
    Tagmsg,
}

/// What is said, to whatever targets.
struct Speech<'a> {
    from: MemberKey,
    verb: Verb,
    text: &'a [u8],
    /// The tags that go along: those of the client's own, and `bot`.
    tags: Vec<u8>,
}

impl Hub {
    /// PRIVMSG (RFC 2812, 3.3.1).
    pub(super) fn privmsg(&mut self, request: &Request<'_>) {
        self.talk(request, Verb::Privmsg);
    }

    /// NOTICE (RFC 2812, 3.3.2).
    pub(super) fn notice(&mut self, request: &Request<'_>) {
        self.talk(request, Verb::Notice);
    }

    /// TAGMSG (IRCv3 "message-tags"), for members that have asked for tags.
    pub(super) fn tagmsg(&mut self, request: &Request<'_>) {
        if self.members[request.from].caps.has(Cap::MessageTags) {
            self.talk(request, Verb::Tagmsg);
        } else {
            self.answer(request.from, ERR_UNKNOWNCOMMAND, &[request.word]);
        }
    }

    fn talk(&mut self, request: &Request<'_>, verb: Verb) {
        let Request { from, ref params, now, .. } = *request;
        let (list, text) = (params.at(0), params.at(1));
        if list.is_empty() {
            return self.refuse(from, verb, ERR_NORECIPIENT, &[]);
        }
        if text.is_empty() && verb != Verb::Tagmsg {
            return self.refuse(from, verb, ERR_NOTEXTTOSEND, &[]);
        }
        self.members[from].spoke = now;
        let tagged = self.members[from].caps.has(Cap::MessageTags);
        let mut tags = if tagged { client_tags(request.tags) } else { Vec::new() };
        if self.members[from].modes.has(UserMode::Bot) {
            let between: &[u8] = if tags.is_empty() { b"" } else { b";" };
            tags = [b"bot", between, &tags].concat();
        }
        let speech = Speech { from, verb, text, tags };
        for (place, target) in targets(list).enumerate() {
            if place == self.settings.limits.max_targets {
                return self.refuse(from, verb, TOO_MANY_TARGETS, &[names::shown(target)]);
            }
            // Who is named twice gets it once.
            if targets(list).take(place).any(|earlier| names::same(earlier, target)) {
                continue;
            }
            let sent = match target {
                [b'#', ..] => self.send_to_channel(&speech, b"", target),
                [b'@' | b'+', b'#', ..] => {
                    let (sign, name) = target.split_at(1);
                    self.send_to_channel(&speech, sign, name)
                }
                _ => self.send_to_nick(&speech, target),
            };
            if let Err(numeric) = sent {
                self.refuse(from, verb, numeric, &[names::shown(target)]);
            }
        }
    }

    /// Who speaks in a channel does not hear itself there, unless it has asked for that. With a
    /// sign before the name only operators hear it (`@`), or those with voice too (`+`).
    fn send_to_channel(
        &mut self,
        speech: &Speech<'_>,
        sign: &[u8],
        name: &[u8],
    ) -> Result<(), Numeric> {
        let key = self.channels.find(name).ok_or(ERR_NOSUCHCHANNEL)?;
        if !self.is_heard(speech.from, key) {
            return Err(ERR_CANNOTSENDTOCHAN);
        }
        let (mask, name) = (&self.members[speech.from].mask, &self.channels[key].name);
        let parts = speech.parts(mask, sign, name);
        let message = self.post.encode(&parts[..speech.verb.parts()]);
        let mut message = self.with_tags(speech, message);
        if !sign.is_empty() {
            self.send_to_ranked(speech, sign, key, &mut message);
        } else if speech.verb == Verb::Tagmsg {
            self.send_to_others_with(Cap::MessageTags, key, speech.from, &mut message);
        } else {
            self.send_to_others(key, speech.from, &mut message);
        }
        self.echo_if_wanted(speech.from, &mut message);
        Ok(())
    }

    /// To those of a channel who have the rank that a sign stands for, or a higher one.
    fn send_to_ranked(
        &mut self,
        speech: &Speech<'_>,
        sign: &[u8],
        key: ChannelKey,
        message: &mut Letter,
    ) {
        for &to in &self.channels[key].members {
            let rank = self.members[to].rank(key).unwrap_or_default();
            let meant = rank.operator || sign == b"+" && rank.voice;
            if !meant || to == speech.from {
                continue;
            }
            if speech.verb == Verb::Tagmsg {
                self.post.offer_with(Cap::MessageTags, to, message);
            } else {
                self.post.offer(to, message);
            }
        }
    }

    /// A member that writes to its own nickname gets it back: it asked for that.
    fn send_to_nick(&mut self, speech: &Speech<'_>, target: &[u8]) -> Result<(), Numeric> {
        let to = self.members.named(target).ok_or(ERR_NOSUCHNICK)?;
        let (mask, nick) = (&self.members[speech.from].mask, &self.members[to].nick);
        let message = self.post.encode(&speech.parts(mask, b"", nick)[..speech.verb.parts()]);
        let mut message = self.with_tags(speech, message);
        if to == speech.from && self.label.is_none() {
            // In its place among the other answers. A label is on the echo alone.
            self.echo(to, &mut message);
        } else if speech.verb == Verb::Tagmsg {
            self.post.offer_with(Cap::MessageTags, to, &mut message);
        } else {
            self.post.offer(to, &mut message);
        }
        self.echo_if_wanted(speech.from, &mut message);
        if speech.verb == Verb::Privmsg {
            self.tell_away(speech.from, to);
        }
        Ok(())
    }

    /// The message with an id and the client's own tags, for those who understand them.
    fn with_tags(&mut self, speech: &Speech<'_>, message: Letter) -> Letter {
        message.with_tags(self.post.next_id(), &speech.tags)
    }

    fn echo_if_wanted(&mut self, from: MemberKey, message: &mut Letter) {
        if self.members[from].caps.has(Cap::EchoMessage) {
            self.echo(from, message);
        }
    }

    /// Whether a channel hears a member: an operator or a member with voice always, all others
    /// unless a mode or a ban is against it.
    fn is_heard(&self, member: MemberKey, channel: ChannelKey) -> bool {
        let (member, rank) = (&self.members[member], self.members[member].rank(channel));
        let channel = &self.channels[channel];
        if rank.is_some_and(Rank::is_heard) {
            return true;
        }
        let outside = rank.is_none() && channel.modes.has(Flag::MembersOnly);
        !outside && !channel.modes.has(Flag::Moderated) && !channel.bans(&member.mask)
    }

    /// Says that `about` is away, if it is.
    pub(super) fn tell_away(&mut self, to: MemberKey, about: MemberKey) {
        let about = &self.members[about];
        if let Some(away) = &about.away {
            self.reply.text(&self.members[to], RPL_AWAY, &[&about.nick, b" :", away]);
        }
    }

    fn refuse(&mut self, to: MemberKey, verb: Verb, numeric: Numeric, params: &[&[u8]]) {
        if verb != Verb::Notice {
            self.answer(to, numeric, params);
        }
    }
}

impl Speech<'_> {
    /// The line for a target, [`Verb::parts`] of it.
    fn parts<'b>(&'b self, mask: &'b [u8], sign: &'b [u8], target: &'b [u8]) -> [&'b [u8]; 7] {
        [b":", mask, self.verb.between(), sign, target, b" :", self.text]
    }
}

impl Verb {
    /// How many parts a line has: a TAGMSG ends with its target.
    fn parts(self) -> usize {
        if self == Verb::Tagmsg { 5 } else { 7 }
    }

    /// The command as it stands between the source and the target.
    fn between(self) -> &'static [u8] {
        match self {
            Verb::Privmsg => b" PRIVMSG ",
            Verb::Notice => b" NOTICE ",
            Verb::Tagmsg => b" TAGMSG ",
        }
    }
}
