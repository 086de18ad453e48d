//! Scripts: what is said to the hub, and what it says to whom.
//!
//! `alice> JOIN #c` is a line from alice; `alice< :s 366 ...` is a line that she must get because
//! of it, in the order written and with nothing between; `...` at its end stands for anything. Who
//! is first heard of in a script is registered under that name beforehand, unless the name begins
//! with `?`: that one has just connected. `< *close TEXT`, `< *welcome` and `< *overrun` are
//! parcels that are no text.

mod bounds;
mod caps;
mod commands;
mod forging;
mod model;
mod monitor;
mod offers;
mod oper;
mod operators;
mod people;
mod post;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::members::{Membership, UserMode};
use super::{Hub, Mail, Parcel};
use crate::{ChatSettings, ConnId, Line, Settings, Time};

/// A hub, and what was mailed to each connection, by name.
struct World {
    hub: Hub,
    ids: BTreeMap<String, ConnId>,
    now: Time,
}

fn settings() -> Settings {
    let chat = ChatSettings {
        server_name: "s".to_owned(),
        network: "net".to_owned(),
        started_unix: 1_000,
        ..ChatSettings::default()
    };
    Settings { chat, ..Settings::default() }
}

/// The id that a worker would give to the tenant of a slot.
fn conn(worker: u64, generation: u64, slot: usize) -> ConnId {
    ConnId::from_bits(worker << 48 | generation << 24 | slot as u64)
}

/// The lines in the bytes of one parcel, which hold nothing but whole ones.
fn lines_of(bytes: &[u8]) -> Vec<String> {
    let check = |line: &[u8]| {
        let tags = crate::chat::parse::tags_len(line);
        let long = tags > 8191 || line.len() - tags > 512;
        assert!(!long, "too long: {:?}", String::from_utf8_lossy(line));
        let line = line.strip_suffix(b"\r\n").expect("a whole line");
        let line = String::from_utf8_lossy(line).into_owned();
        assert!(!line.contains(['\r', '\n', '\0']), "forged: {line:?}");
        line
    };
    bytes.split_inclusive(|&byte| byte == b'\n').map(check).collect()
}

/// Asserts what holds between two calls, whatever was called.
fn check(hub: &Hub) {
    let (mut holders, mut watching) = (0, 0);
    for key in hub.members.keys() {
        let member = &hub.members[key];
        assert!(hub.members.find(member.id) == Some(key));
        if !member.nick.is_empty() {
            holders += 1;
            assert!(hub.members.holder(&member.nick) == Some(key), "{:?}", member.nick);
        }
        watching += member.watched.len();
        for nick in &member.watched {
            assert!(hub.watchers.of(nick).any(|watcher| watcher == key), "watches one way only");
        }
        for (place, &Membership { channel, .. }) in member.channels.iter().enumerate() {
            let before = &member.channels[..place];
            assert!(before.iter().all(|other| other.channel != channel), "in a channel twice");
            assert!(hub.channels[channel].members.contains(&key), "joined one way only");
        }
    }
    assert_eq!(hub.members.nicknames(), holders);
    assert_eq!(hub.watchers.len(), watching);
    let having = |mode| hub.members.keys().filter(|&key| hub.members[key].modes.has(mode)).count();
    assert_eq!(hub.members.invisible(), having(UserMode::Invisible));
    assert_eq!(hub.members.operators(), having(UserMode::Operator));
    for key in hub.channels.keys() {
        let channel = &hub.channels[key];
        assert!(!channel.members.is_empty());
        assert!(hub.channels.find(&channel.name) == Some(key));
        for (place, &member) in channel.members.iter().enumerate() {
            assert!(!channel.members[..place].contains(&member), "a member twice");
            assert!(hub.members[member].rank(key).is_some(), "left one way only");
        }
    }
    assert!(hub.reply.bytes().is_empty(), "a reply that was not sent");
    assert!(hub.label.is_none() && hub.post.clock.is_none(), "left from the last line");
}

impl World {
    fn new(settings: Settings) -> World {
        World {
            hub: Hub::new(Arc::new(settings), 1),
            ids: BTreeMap::new(),
            now: Time::from_millis(7_000),
        }
    }

    fn connect(&mut self, name: &str) {
        let id = conn(0, 1, self.ids.len());
        self.hub.open(id, "h", self.now);
        self.ids.insert(name.to_owned(), id);
    }

    fn say(&mut self, name: &str, line: impl AsRef<[u8]>) {
        if !self.ids.contains_key(name) {
            self.connect(name);
            if !name.starts_with('?') {
                self.say(name, format!("NICK {name}"));
                self.say(name, format!("USER {name} 0 * :Real {name}"));
                self.mail();
            }
        }
        self.hub.line(self.ids[name], Line::Whole(line.as_ref()), self.now);
        check(&self.hub);
    }

    /// All mail since the last call: for each receiver, in order.
    fn mail(&mut self) -> BTreeMap<String, Vec<String>> {
        let mut taken = Vec::new();
        self.hub.take(0, &mut taken);
        let mut mail: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for Mail { to, parcel } in taken {
            let name = self.ids.iter().find(|(_, id)| **id == to).unwrap().0;
            mail.entry(name.clone()).or_default().extend(match parcel {
                Parcel::Text(message) => lines_of(&message),
                Parcel::Welcome => vec!["*welcome".to_owned()],
                Parcel::Overrun => vec!["*overrun".to_owned()],
                Parcel::Resume => vec![],
                Parcel::Close(last) if last.is_empty() => vec!["*close".to_owned()],
                Parcel::Close(last) => vec![format!("*close {}", lines_of(&last).concat())],
            });
        }
        mail
    }

    /// Compares all mail since the last call with the `<` lines in `expected`.
    fn expect(&mut self, expected: &[(&str, &str)]) {
        let mut mail = self.mail();
        for (name, pattern) in expected {
            let lines = mail.entry((*name).to_owned()).or_default();
            assert!(!lines.is_empty(), "nothing more for {name}, who should get {pattern:?}");
            let line = lines.remove(0);
            match pattern.strip_suffix("...") {
                Some(start) => assert!(line.starts_with(start), "{line:?} is not {pattern:?}"),
                None => assert_eq!(line, *pattern, "for {name}"),
            }
        }
        mail.retain(|_, lines| !lines.is_empty());
        assert!(mail.is_empty(), "unexpected: {mail:#?}");
    }

    fn play(&mut self, script: &str) {
        let mut expected = Vec::new();
        let steps = script.split('\n').map(str::trim_start).filter(|step| !step.is_empty());
        for step in steps {
            if let Some((name, line)) = step.split_once("> ").filter(|(name, _)| is_name(name)) {
                self.expect(&core::mem::take(&mut expected));
                self.say(name, line);
            } else {
                let (name, line) = step.split_once("< ").expect("a line to or from a member");
                expected.push((name, line));
            }
        }
        self.expect(&expected);
    }
}

fn is_name(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'?')
}

/// Plays a script with the settings of [`settings`].
fn play(script: &str) {
    World::new(settings()).play(script);
}
