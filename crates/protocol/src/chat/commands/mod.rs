//! The commands: what each of them does is told in the file of its kind.

mod caps;
mod elist;
mod help;
mod listing;
mod moderation;
mod modes;
mod monitor;
mod oper;
mod people;
mod places;
mod queries;
mod registration;
mod talk;
mod who;

use super::Hub;
use super::members::{MemberKey, UserModes};
use super::names;
use super::parse::{Name, Params, Parsed, parse};
use super::reply::{ERR_NEEDMOREPARAMS, ERR_NOTREGISTERED, ERR_UNKNOWNCOMMAND};
use crate::chat;
use crate::{ChatSettings, Limits, Settings, Time};

/// A command that a member gave.
struct Request<'a> {
    from: MemberKey,
    /// The command as it was sent.
    word: &'a [u8],
    /// As they came, without the `@`.
    tags: &'a [u8],
    params: Params<'a>,
    now: Time,
}

/// What a command needs to be carried out.
struct Command {
    run: fn(&mut Hub, &Request<'_>),
    /// The least parameters; with fewer, 461. Zero where another numeric tells what is missing.
    params: usize,
    /// Whether it may come before registration.
    early: bool,
}

fn find(name: &[u8]) -> Option<Command> {
    let (run, params, early): (fn(&mut Hub, &Request<'_>), usize, bool) = match name {
        b"PRIVMSG" => (Hub::privmsg, 0, false),
        b"NOTICE" => (Hub::notice, 0, false),
        b"PING" => (Hub::answer_ping, 0, true),
        b"PONG" => (Hub::pong, 0, true),
        b"JOIN" => (Hub::join, 1, false),
        b"PART" => (Hub::part, 1, false),
        b"TOPIC" => (Hub::topic, 1, false),
        b"NAMES" => (Hub::names, 0, false),
        b"LIST" => (Hub::list, 0, false),
        b"KICK" => (Hub::kick, 2, false),
        b"INVITE" => (Hub::invite, 0, false),
        b"MODE" => (Hub::mode, 1, false),
        b"CAP" => (Hub::cap, 1, true),
        b"PASS" => (Hub::pass, 1, true),
        b"NICK" => (Hub::nick, 0, true),
        b"USER" => (Hub::user, 4, true),
        b"QUIT" => (Hub::quit, 0, true),
        b"WHO" => (Hub::who, 0, false),
        b"WHOIS" => (Hub::whois, 0, false),
        b"WHOWAS" => (Hub::whowas, 0, false),
        b"TAGMSG" => (Hub::tagmsg, 0, false),
        b"SETNAME" => (Hub::setname, 1, false),
        b"AWAY" => (Hub::away, 0, false),
        b"TIME" => (Hub::time, 0, false),
        b"INFO" => (Hub::info, 0, false),
        b"ADMIN" => (Hub::admin, 0, false),
        b"STATS" => (Hub::stats, 1, false),
        b"LINKS" => (Hub::links, 0, false),
        b"LUSERS" => (Hub::lusers, 0, false),
        b"MOTD" => (Hub::motd, 0, false),
        b"VERSION" => (Hub::version, 0, false),
        b"ISON" => (Hub::ison, 1, false),
        b"OPER" => (Hub::oper, 2, false),
        b"KILL" => (Hub::kill, 1, false),
        b"WALLOPS" => (Hub::wallops, 1, false),
        b"REHASH" => (Hub::rehash, 0, false),
        b"HELP" | b"HELPOP" => (Hub::help, 0, false),
        b"MONITOR" => (Hub::monitor, 1, false),
        b"USERHOST" => (Hub::userhost, 1, false),
        _ => return None,
    };
    Some(Command { run, params, early })
}

impl Hub {
    /// Carries out one line, which holds no CR, LF or NUL.
    pub(super) fn command(&mut self, from: MemberKey, line: &[u8], now: Time) {
        let Some(Parsed { tags, command: word, params }) = parse(line) else { return };
        self.note_label(from, tags);
        let name = Name::new(word);
        let name = name.as_ref().map_or(&b""[..], Name::as_bytes);
        if self.settings.chat.utf8_only && core::str::from_utf8(line).is_err() {
            return self.refuse_encoding(name);
        }
        let command = find(name);
        let member = &self.members[from];
        match command {
            // RFC 2812, 3.1, and Modern IRC on 451: what is not known is not allowed either.
            _ if !member.registered && !command.as_ref().is_some_and(|known| known.early) => {
                self.reply.numeric(member, ERR_NOTREGISTERED, &[]);
            }
            None => self.reply.numeric(member, ERR_UNKNOWNCOMMAND, &[names::shown(word)]),
            Some(command) if params.len() < command.params => {
                self.reply.numeric(member, ERR_NEEDMOREPARAMS, &[name]);
            }
            Some(command) => (command.run)(self, &Request { from, word, tags, params, now }),
        }
    }

    /// Says that a line is not UTF-8. UTF8ONLY, which 005 claims, names this reply; a client that
    /// does not know it shows the line as it is, which says in words what is wrong.
    fn refuse_encoding(&mut self, name: &[u8]) {
        // RFC 2812, 3.3.2: nothing is ever said in return for a NOTICE.
        if name == b"NOTICE" {
            return;
        }
        let name = if find(name).is_some() { name } else { b"*" };
        let text = b" INVALID_UTF8 :Message rejected: this server takes UTF-8 only";
        self.reply.line(&[b":", &self.server, b" FAIL ", name, text]);
    }
}

impl ChatSettings {
    /// Seconds since 1970.
    pub(super) fn unix(&self, time: Time) -> u64 {
        self.started_unix.saturating_add(time.as_nanos() / 1_000_000_000)
    }
}

/// The names in a list of targets.
fn targets(list: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    list.split(|&byte| byte == b',').filter(|name| !name.is_empty())
}

/// What 005 says of a server with these settings, a line each (Modern IRC, "RPL_ISUPPORT").
pub(super) fn features(settings: &Settings) -> Vec<Box<[u8]>> {
    /// Thirteen would be allowed; so many fit beside the longest names.
    const TOKENS_PER_LINE: usize = 8;
    let Limits { max_channels, max_targets, .. } = settings.limits;
    let network = settings.chat.network.replace(' ', "\\x20");
    let network = String::from_utf8_lossy(&names::host(&network)).into_owned();
    let mut tokens = vec![
        format!("AWAYLEN={}", names::AWAY),
        "BOT=B".to_owned(),
        "CASEMAPPING=ascii".to_owned(),
        format!("CHANLIMIT=#:{max_channels}"),
        "CHANMODES=beI,k,l,imnst".to_owned(),
        "ELIST=CMNTU".to_owned(),
        "EXCEPTS=e".to_owned(),
        "INVEX=I".to_owned(),
        format!("KEYLEN={}", chat::modes::KEY),
        format!("MAXLIST=beI:{}", chat::masks::MOST),
        format!("MODES={}", modes::MODES),
        format!("MONITOR={}", chat::watchers::MOST),
        "PREFIX=(ov)@+".to_owned(),
        format!("CHANNELLEN={}", Limits::CHANNEL),
        "CHANTYPES=#".to_owned(),
        format!("HOSTLEN={}", names::HOST),
        format!("MAXTARGETS={max_targets}"),
        format!("NAMELEN={}", names::REAL_NAME),
        format!("NETWORK={network}"),
        format!("NICKLEN={}", Limits::NICK),
        // LIST never makes the server cut the client that asked.
        "SAFELIST".to_owned(),
        "STATUSMSG=@+".to_owned(),
        format!(
            "TARGMAX=JOIN:,KICK:{max_targets},LIST:{max_targets},NAMES:{max_targets},\
             NOTICE:{max_targets},PART:,PRIVMSG:{max_targets},TAGMSG:{max_targets},WHOIS:1,WHOWAS:{max_targets}"
        ),
        format!("TOPICLEN={}", names::TOPIC),
        format!("USERLEN={}", names::USER),
        "WHOX".to_owned(),
    ];
    if settings.chat.utf8_only {
        tokens.push("UTF8ONLY".to_owned());
    }
    tokens.chunks(TOKENS_PER_LINE).map(|line| line.join(" ").into_bytes().into()).collect()
}
