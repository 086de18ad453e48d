//! Messages: PRIVMSG and NOTICE.

use super::{Request, targets};
use crate::chat::Hub;
use crate::chat::names;
use crate::chat::reply::{
    ERR_CANNOTSENDTOCHAN, ERR_NORECIPIENT, ERR_NOSUCHCHANNEL, ERR_NOSUCHNICK, ERR_NOTEXTTOSEND,
    Numeric,
};

/// RFC 2812 has 407 for this, which current practice has dropped: to a client, each target is one
/// that could not be sent to.
const TOO_MANY_TARGETS: Numeric = Numeric {
    text: "Too many targets: this one and those after it got nothing",
    ..ERR_CANNOTSENDTOCHAN
};

/// The two commands that carry text. Nothing is ever said in return for a NOTICE, so that two
/// robots do not talk for ever (RFC 2812, 3.3.2).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Privmsg,
    Notice,
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

    fn talk(&mut self, request: &Request<'_>, verb: Verb) {
        let (list, text) = (request.params.at(0), request.params.at(1));
        if list.is_empty() {
            return self.refuse(request, verb, ERR_NORECIPIENT, &[]);
        }
        if text.is_empty() {
            return self.refuse(request, verb, ERR_NOTEXTTOSEND, &[]);
        }
        self.members[request.from].spoke = request.now;
        for (place, target) in targets(list).enumerate() {
            if place == self.settings.limits.max_targets {
                let shown = names::shown(target);
                return self.refuse(request, verb, TOO_MANY_TARGETS, &[shown]);
            }
            // Who is named twice gets it once.
            if targets(list).take(place).any(|earlier| names::same(earlier, target)) {
                continue;
            }
            let sent = match target {
                [b'#', ..] => self.send_to_channel(request, verb, target, text),
                _ => self.send_to_nick(request, verb, target, text),
            };
            if let Err(numeric) = sent {
                self.refuse(request, verb, numeric, &[names::shown(target)]);
            }
        }
    }

    /// Only members may speak in a channel, and they do not hear themselves.
    fn send_to_channel(
        &mut self,
        request: &Request<'_>,
        verb: Verb,
        target: &[u8],
        text: &[u8],
    ) -> Result<(), Numeric> {
        let key = self.channels.find(target).ok_or(ERR_NOSUCHCHANNEL)?;
        let member = &self.members[request.from];
        if !member.channels.contains(&key) {
            return Err(ERR_CANNOTSENDTOCHAN);
        }
        let name = &self.channels[key].name;
        let message = self.post.encode(&[b":", &member.mask, verb.between(), name, b" :", text]);
        self.send_to_others(key, request.from, &message);
        Ok(())
    }

    /// Who writes to its own nickname gets it back: it asked for that. In a channel nobody does.
    fn send_to_nick(
        &mut self,
        request: &Request<'_>,
        verb: Verb,
        target: &[u8],
        text: &[u8],
    ) -> Result<(), Numeric> {
        let to = self.members.named(target).ok_or(ERR_NOSUCHNICK)?;
        let mask = &self.members[request.from].mask;
        let nick = &self.members[to].nick;
        let message = self.post.encode(&[b":", mask, verb.between(), nick, b" :", text]);
        if to == request.from {
            self.reply.echo(&message);
        } else {
            self.post.offer(to, &message);
        }
        Ok(())
    }

    fn refuse(&mut self, request: &Request<'_>, verb: Verb, numeric: Numeric, params: &[&[u8]]) {
        if verb == Verb::Privmsg {
            self.reply.numeric(&self.members[request.from], numeric, params);
        }
    }
}

impl Verb {
    /// The command as it stands between the source and the target.
    fn between(self) -> &'static [u8] {
        match self {
            Verb::Privmsg => b" PRIVMSG ",
            Verb::Notice => b" NOTICE ",
        }
    }
}
