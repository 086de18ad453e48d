//! What a server must say, worked out as plainly as can be: the oracle of the random scripts.
//!
//! It is written from the description of the protocol and shares nothing with the servers, so that
//! a fault of theirs cannot hide here as well. Nothing in it is quick. What the protocol leaves
//! open is left out: the words that end a numeric, the server's name, times, and why a connection
//! that vanished is said to have gone.

use std::collections::{BTreeMap, BTreeSet};

use crate::member::Message;

/// The user name of everybody, and where they come from.
pub(crate) const USER: &str = "u";
const HOST: &str = "127.0.0.1";

/// What everybody is told last when the stream ends.
pub(crate) const END: &str = "END";

/// The longest line, without its CRLF; and without its two colons, which are left out here.
const LINE: usize = 510;
const PLAIN: usize = LINE - 2;

/// The most nicknames that one member watches for.
pub(crate) const MOST_WATCHED: usize = 100;

/// The whole chat: who is there, which channels there are, and who has been told what.
#[derive(Default)]
pub(crate) struct Chat {
    people: BTreeMap<usize, Person>,
    /// By folded name.
    channels: BTreeMap<String, Channel>,
    told: BTreeMap<usize, Vec<String>>,
}

#[derive(Default)]
struct Person {
    /// Empty until NICK.
    nick: String,
    has_user: bool,
    registered: bool,
    /// What it says while it is away; empty while it is here.
    away: String,
    /// Its own modes.
    modes: BTreeSet<char>,
    /// Whom it watches for, as it spelled them.
    watched: Vec<String>,
    /// Folded, in the order in which they were joined.
    channels: Vec<String>,
}

#[derive(Default)]
struct Channel {
    /// As its first member spelled it.
    name: String,
    /// The text and who set it.
    topic: Option<(String, String)>,
    members: BTreeSet<usize>,
    operators: BTreeSet<usize>,
    voices: BTreeSet<usize>,
    /// Whom an operator has invited.
    invited: BTreeSet<usize>,
    flags: BTreeSet<char>,
    key: Option<String>,
    limit: Option<usize>,
    /// The letter of a list and a mask.
    masks: BTreeSet<(char, String)>,
}

impl Channel {
    fn lists(&self, letter: char, name: &str) -> bool {
        self.masks.iter().any(|(list, mask)| *list == letter && fits(&fold(mask), &fold(name)))
    }

    fn bans(&self, name: &str) -> bool {
        self.lists('b', name) && !self.lists('e', name)
    }

    /// Whether it hears them, who are called so.
    fn hears(&self, who: usize, name: &str) -> bool {
        let outside = self.flags.contains(&'n') && !self.members.contains(&who);
        let ranked = self.operators.contains(&who) || self.voices.contains(&who);
        ranked || !outside && !self.flags.contains(&'m') && !self.bans(name)
    }
}

/// Bytes in lines, echoed: each whole line as it came, and one answer for each that is too long.
pub(crate) fn echo(sent: &[u8], max_line: usize) -> Vec<u8> {
    let lines = sent.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n"));
    let answer = |line| if line_fits(line, max_line) { line } else { b"ERR line too long\r\n" };
    lines.flat_map(answer).copied().collect()
}

fn line_fits(line: &[u8], max_line: usize) -> bool {
    line.len() <= max_line
}

/// A message as the oracle puts it; none for what it leaves out.
pub(crate) fn plain(message: &Message) -> Option<String> {
    let Message { source, command, params, .. } = message;
    let numeric = command.len() == 3 && command.bytes().all(|byte| byte.is_ascii_digit());
    Some(match command.as_str() {
        "002" | "003" | "004" | "005" | "251" | "252" | "253" | "254" | "255" | "265" | "266"
        | "422" => {
            return None;
        }
        "353" => {
            let mut names: Vec<&str> = message.text().split(' ').collect();
            names.sort_unstable();
            format!("353 {} {} {}", params[0], params[2], names.join(" "))
        }
        "332" | "730" | "731" | "732" => format!("{command} {}", params.join(" ")),
        // What comes last is a time, or words for people.
        _ if numeric => format!("{command} {}", params[..params.len().max(1) - 1].join(" ")),
        "FAIL" => format!("FAIL {}", params[..params.len().max(1) - 1].join(" ")),
        "ERROR" => "ERROR".to_owned(),
        "PONG" => format!("PONG {}", message.text()),
        _ => format!("{source} {command} {}", params.join(" ")).trim_end().to_owned(),
    })
}

/// Whether this is what the oracle expects.
pub(crate) fn agrees(expected: &str, got: &str) -> bool {
    match expected.strip_suffix('*') {
        Some(start) if start.contains(" QUIT ") => got.starts_with(start),
        _ => expected == got,
    }
}

/// Whether a mask with `*` and `?` fits a name.
fn fits(mask: &str, name: &str) -> bool {
    let Some(first) = mask.chars().next() else { return name.is_empty() };
    let rest = &mask[first.len_utf8()..];
    match (first, name.chars().next()) {
        ('*', next) => {
            fits(rest, name) || next.is_some_and(|next| fits(mask, &name[next.len_utf8()..]))
        }
        (_, None) => false,
        (first, Some(next)) => {
            (first == '?' || first == next) && fits(rest, &name[next.len_utf8()..])
        }
    }
}

fn fold(name: &str) -> String {
    name.to_ascii_lowercase()
}

fn is_nick(name: &str) -> bool {
    let special = |c: char| "[]\\`_^{|}".contains(c);
    let first = |c: char| c.is_ascii_alphabetic() || special(c);
    let rest = |c: char| first(c) || c.is_ascii_digit() || c == '-';
    name.starts_with(first) && name.chars().all(rest) && name.len() <= 30
}

fn is_channel(name: &str) -> bool {
    name.starts_with('#') && (2..=64).contains(&name.len())
}

impl Chat {
    /// What everybody has been told since the last call.
    pub(crate) fn take(&mut self) -> BTreeMap<usize, Vec<String>> {
        std::mem::take(&mut self.told)
    }

    pub(crate) fn has(&self, who: usize) -> bool {
        self.people.contains_key(&who)
    }

    /// How many have registered, and how many have not.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let registered = self.people.values().filter(|person| person.registered).count();
        (registered, self.people.len() - registered)
    }

    /// How many are invisible.
    pub(crate) fn hidden(&self) -> usize {
        self.people.values().filter(|person| person.modes.contains(&'i')).count()
    }

    pub(crate) fn arrive(&mut self, who: usize) {
        self.people.insert(who, Person::default());
    }

    /// The connection is gone without a word. With its last word still to be read, its stream ends.
    pub(crate) fn vanish(&mut self, who: usize, listens: bool) {
        self.leave(who, "*");
        if listens {
            self.tell(who, END);
        }
    }

    /// A member says a line. One that is not there (any more) is not heard.
    pub(crate) fn line(&mut self, who: usize, line: &str) {
        let Some(person) = self.people.get(&who) else { return };
        if line.len() > LINE {
            return self.numeric(who, "417", "");
        }
        let (command, params) = take_apart(line);
        let name = command.to_ascii_uppercase();
        let early = ["NICK", "USER", "PING", "QUIT"].contains(&name.as_str());
        let least = match name.as_str() {
            "JOIN" | "PART" | "TOPIC" | "MODE" | "MONITOR" => 1,
            "KICK" => 2,
            "USER" => 4,
            _ => 0,
        };
        match name.as_str() {
            "" => {}
            _ if !person.registered && !early => self.numeric(who, "451", ""),
            _ if params.len() < least => self.numeric(who, "461", &name),
            "NICK" => self.nick(who, at(&params, 0)),
            "USER" => self.user(who),
            "PING" => self.ping(who, at(&params, 0)),
            "QUIT" => self.quit(who, at(&params, 0)),
            "JOIN" => self.join(who, at(&params, 0), at(&params, 1)),
            "KICK" => self.kick(who, at(&params, 0), at(&params, 1), at(&params, 2)),
            "INVITE" => self.invite(who, at(&params, 0), at(&params, 1)),
            "MODE" if !at(&params, 0).starts_with('#') => self.own_mode(who, &params),
            "MODE" => self.mode(who, &params),
            "AWAY" => self.away(who, at(&params, 0)),
            "MONITOR" => self.monitor(who, at(&params, 0), at(&params, 1)),
            "PART" => self.part(who, at(&params, 0), at(&params, 1)),
            "TOPIC" => self.topic(who, at(&params, 0), params.get(1).map(String::as_str)),
            "NAMES" => self.names(who, at(&params, 0)),
            "PRIVMSG" | "NOTICE" => self.talk(who, &name, at(&params, 0), at(&params, 1)),
            _ => self.numeric(who, "421", &command),
        }
    }

    fn tell(&mut self, who: usize, text: &str) {
        // No line is longer than that, and the source does not make it longer.
        let excess = text.len().saturating_sub(PLAIN);
        let text =
            if excess > 0 && text.contains('@') { &text[..text.len() - excess] } else { text };
        self.told.entry(who).or_default().push(text.to_owned());
    }

    fn tell_all(&mut self, who: impl IntoIterator<Item = usize>, text: &str) {
        who.into_iter().for_each(|who| self.tell(who, text));
    }

    fn numeric(&mut self, who: usize, code: &str, about: &str) {
        let nick = &self.people[&who].nick;
        let nick = if nick.is_empty() { "*" } else { nick };
        let text = format!("{code} {nick} {about}").trim_end().to_owned();
        self.tell(who, &text);
    }

    fn mask(&self, who: usize) -> String {
        format!("{}!{USER}@{HOST}", self.people[&who].nick)
    }

    /// Everybody else who is in a channel with them.
    fn sharers(&self, who: usize) -> BTreeSet<usize> {
        let shared = self.channels.values().filter(|channel| channel.members.contains(&who));
        shared.flat_map(|channel| channel.members.iter().copied()).filter(|&m| m != who).collect()
    }

    fn nick(&mut self, who: usize, wanted: &str) {
        let taken = self
            .people
            .iter()
            .any(|(&other, person)| other != who && fold(&person.nick) == fold(wanted));
        if wanted.is_empty() {
            self.numeric(who, "431", "");
        } else if !is_nick(wanted) {
            self.numeric(who, "432", wanted);
        } else if taken {
            self.numeric(who, "433", wanted);
        } else if let Some(channel) =
            self.silenced_in(who).filter(|_| wanted != self.people[&who].nick)
        {
            self.numeric(who, "435", &format!("{wanted} {channel}"));
        } else if self.people[&who].nick != wanted {
            if self.people[&who].registered {
                let text = format!("{} NICK {wanted}", self.mask(who));
                self.tell_all(self.sharers(who), &text);
                self.tell(who, &text);
            }
            let before = std::mem::replace(&mut self.person(who).nick, wanted.to_owned());
            if self.people[&who].registered && fold(&before) != fold(wanted) {
                self.tell_watchers(&before, "731", &before);
                self.tell_watchers(wanted, "730", &self.mask(who));
            }
            self.register(who);
        }
    }

    /// The first channel they joined of those in which they are banned and have no rank.
    fn silenced_in(&self, who: usize) -> Option<String> {
        let name = self.mask(who);
        let mut channels = self.people[&who].channels.iter().map(|name| &self.channels[name]);
        let ranked = |c: &Channel| c.operators.contains(&who) || c.voices.contains(&who);
        channels.find(|c| c.bans(&name) && !ranked(c)).map(|c| c.name.clone())
    }

    fn user(&mut self, who: usize) {
        if self.people[&who].registered {
            return self.numeric(who, "462", "");
        }
        self.person(who).has_user = true;
        self.register(who);
    }

    fn register(&mut self, who: usize) {
        let person = self.person(who);
        if !person.registered && person.has_user && !person.nick.is_empty() {
            person.registered = true;
            self.numeric(who, "001", "");
            self.tell_watchers(&self.people[&who].nick.clone(), "730", &self.mask(who));
        }
    }

    fn ping(&mut self, who: usize, token: &str) {
        if token.is_empty() {
            return self.numeric(who, "409", "");
        }
        self.tell(who, &format!("PONG {token}"));
    }

    fn quit(&mut self, who: usize, reason: &str) {
        let reason = if reason.is_empty() { "Client quit" } else { &format!("Quit: {reason}") };
        self.leave(who, reason);
        self.tell(who, "ERROR");
        self.tell(who, END);
    }

    /// A member is gone: from everything, and those who shared a channel are told.
    fn leave(&mut self, who: usize, reason: &str) {
        let text = format!("{} QUIT {reason}", self.mask(who));
        self.tell_all(self.sharers(who), &text);
        for channel in self.people[&who].channels.clone() {
            self.remove(who, &channel);
        }
        for channel in self.channels.values_mut() {
            channel.invited.remove(&who);
        }
        let Some(person) = self.people.remove(&who) else { return };
        if person.registered {
            self.tell_watchers(&person.nick, "731", &person.nick);
        }
    }

    /// Those who watch for a nickname are told that it is taken or free.
    fn tell_watchers(&mut self, nick: &str, code: &str, shown: &str) {
        let watches =
            |person: &Person| person.watched.iter().any(|other| fold(other) == fold(nick));
        let watchers = self.people.iter().filter(|(_, person)| watches(person));
        for who in watchers.map(|(&who, _)| who).collect::<Vec<_>>() {
            self.numeric(who, code, shown);
        }
    }

    fn monitor(&mut self, who: usize, what: &str, list: &str) {
        let watched = self.people[&who].watched.clone();
        match what.to_ascii_uppercase().as_str() {
            "+" | "-" if list.is_empty() => self.numeric(who, "461", "MONITOR"),
            "+" => self.watch(who, list),
            "-" => {
                let meant = |nick: &String| names_in(list).any(|other| fold(other) == fold(nick));
                self.person(who).watched.retain(|nick| !meant(nick));
            }
            "C" => self.person(who).watched.clear(),
            "S" => self.tell_presence(who, &watched),
            "L" => {
                if !watched.is_empty() {
                    self.numeric(who, "732", &watched.join(","));
                }
                self.numeric(who, "733", "");
            }
            _ => {
                let shown = if what.is_empty() || what.contains(' ') { "*" } else { what };
                self.tell(who, &format!("FAIL MONITOR INVALID_SUBCOMMAND {shown}"));
            }
        }
    }

    /// Nicknames are added until there is no room, and it is said of each whether it is there.
    fn watch(&mut self, who: usize, list: &str) {
        let (mut added, mut refused) = (Vec::<String>::new(), None);
        let has = |nicks: &[String], nick: &str| nicks.iter().any(|n| fold(n) == fold(nick));
        let mut rest: Vec<&str> = names_in(list).collect();
        while let Some(&nick) = rest.first() {
            let watched = &mut self.person(who).watched;
            if !is_nick(nick) {
                refused = refused.or(Some(nick));
            } else if !has(&added, nick) {
                if !has(watched, nick) && watched.len() == MOST_WATCHED {
                    rest.retain(|nick| is_nick(nick));
                    let about = format!("{MOST_WATCHED} {}", rest.join(","));
                    self.numeric(who, "734", &about);
                    break;
                }
                if !has(watched, nick) {
                    watched.push(nick.to_owned());
                }
                added.push(nick.to_owned());
            }
            rest.remove(0);
        }
        if let Some(nick) = refused {
            self.numeric(who, "432", nick);
        }
        self.tell_presence(who, &added);
    }

    /// Those of these nicknames that are there, then those that are not.
    fn tell_presence(&mut self, who: usize, nicks: &[String]) {
        let named: Vec<_> = nicks.iter().map(|nick| (nick, self.named(nick))).collect();
        let there = named.iter().filter_map(|(_, to)| to.map(|to| self.mask(to)));
        let there: Vec<_> = there.collect();
        let gone = named.iter().filter(|(_, to)| to.is_none()).map(|(nick, _)| nick.as_str());
        let gone: Vec<_> = gone.collect();
        for (code, list) in [("730", there.join(",")), ("731", gone.join(","))] {
            if !list.is_empty() {
                self.numeric(who, code, &list);
            }
        }
    }

    fn remove(&mut self, who: usize, folded: &str) {
        let channel = self.channels.get_mut(folded).expect("a channel that has a member");
        channel.members.remove(&who);
        channel.operators.remove(&who);
        channel.voices.remove(&who);
        if channel.members.is_empty() {
            self.channels.remove(folded);
        }
        self.person(who).channels.retain(|other| other != folded);
    }

    fn join(&mut self, who: usize, list: &str, keys: &str) {
        if list == "0" {
            for folded in self.people[&who].channels.clone() {
                let name = self.channels[&folded].name.clone();
                self.part(who, &name, "");
            }
            return;
        }
        let mut keys = keys.split(',');
        for name in names_in(list) {
            let (folded, key) = (fold(name), keys.next().unwrap_or_default());
            if !is_channel(name) {
                self.numeric(who, "403", name);
            } else if !self.people[&who].channels.contains(&folded) {
                if let Some(code) = self.shut(who, &folded, key) {
                    self.numeric(who, code, name);
                    continue;
                }
                let channel = self.channels.entry(folded.clone()).or_default();
                if channel.members.is_empty() {
                    name.clone_into(&mut channel.name);
                    channel.operators.insert(who);
                    channel.flags.insert('n');
                }
                channel.invited.remove(&who);
                channel.members.insert(who);
                let (own, everybody) = (channel.name.clone(), channel.members.clone());
                let has_topic = channel.topic.is_some();
                self.person(who).channels.push(folded.clone());
                let text = format!("{} JOIN {own}", self.mask(who));
                self.tell_all(everybody, &text);
                if has_topic {
                    self.tell_topic(who, &folded);
                }
                self.tell_names(who, &folded);
                self.numeric(who, "366", name);
            }
        }
    }

    /// Why a channel does not let them in.
    fn shut(&self, who: usize, folded: &str, key: &str) -> Option<&'static str> {
        let channel = self.channels.get(folded)?;
        let name = self.mask(who);
        let full = channel.limit.is_some_and(|limit| channel.members.len() >= limit);
        if channel.invited.contains(&who) {
            None
        } else if channel.bans(&name) {
            Some("474")
        } else if channel.flags.contains(&'i') && !channel.lists('I', &name) {
            Some("473")
        } else if channel.key.as_ref().is_some_and(|wanted| wanted != key) {
            Some("475")
        } else {
            full.then_some("471")
        }
    }

    fn named(&self, nick: &str) -> Option<usize> {
        let mut people = self.people.iter();
        people.find(|(_, p)| p.registered && fold(&p.nick) == fold(nick)).map(|(&who, _)| who)
    }

    fn leads(&self, who: usize, folded: &str) -> bool {
        self.channels[folded].operators.contains(&who)
    }

    /// Several of one channel; the scripts do not name several channels.
    fn kick(&mut self, who: usize, name: &str, nicks: &str, reason: &str) {
        for nick in names_in(nicks) {
            let Some(folded) = self.inside(who, name, "442") else { continue };
            let channel = &self.channels[&folded];
            let Some(to) = self.named(nick).filter(|_| self.leads(who, &folded)) else {
                let leads = self.leads(who, &folded);
                let (code, about) = if leads { ("401", nick) } else { ("482", name) };
                self.numeric(who, code, about);
                continue;
            };
            if !channel.members.contains(&to) {
                self.numeric(who, "441", &format!("{nick} {name}"));
                continue;
            }
            let (kicked, name) = (&self.people[&to].nick, &channel.name);
            let kicker = &self.people[&who].nick;
            let reason = if reason.is_empty() { kicker } else { reason };
            let text = format!("{} KICK {name} {kicked} {reason}", self.mask(who));
            self.tell_all(channel.members.clone(), &text);
            self.remove(to, &folded);
        }
    }

    fn invite(&mut self, who: usize, nick: &str, name: &str) {
        if name.is_empty() {
            return self.numeric(who, "461", "INVITE");
        }
        let Some(to) = self.named(nick) else { return self.numeric(who, "401", nick) };
        let Some(folded) = self.inside(who, name, "442") else { return };
        let (leads, mask) = (self.leads(who, &folded), self.mask(who));
        let invited = self.people[&to].nick.clone();
        let channel = self.channels.get_mut(&folded).expect("they are in it");
        if channel.members.contains(&to) {
            return self.numeric(who, "443", &format!("{nick} {name}"));
        }
        if channel.flags.contains(&'i') && !leads {
            return self.numeric(who, "482", name);
        }
        let (nick, name) = (invited, channel.name.clone());
        if leads {
            channel.invited.insert(to);
        }
        // The oracle leaves out what comes last in a numeric.
        self.numeric(who, "341", &nick);
        self.tell(to, &format!("{mask} INVITE {nick} {name}"));
        self.tell_away(who, to);
    }

    fn away(&mut self, who: usize, text: &str) {
        text.clone_into(&mut self.person(who).away);
        self.numeric(who, if text.is_empty() { "305" } else { "306" }, "");
    }

    fn tell_away(&mut self, who: usize, about: usize) {
        let about = &self.people[&about];
        if !about.away.is_empty() {
            // The text comes last in it.
            let nick = about.nick.clone();
            self.numeric(who, "301", &nick);
        }
    }

    fn own_mode(&mut self, who: usize, params: &[String]) {
        let name = at(params, 0);
        match self.named(name) {
            None => self.numeric(who, "401", name),
            Some(other) if other != who => self.numeric(who, "502", ""),
            Some(_) if params.len() == 1 => self.numeric(who, "221", ""),
            Some(_) => {
                let before = self.people[&who].modes.clone();
                let (mut on, mut unknown) = (true, false);
                for letter in at(params, 1).chars() {
                    let modes = &mut self.person(who).modes;
                    match letter {
                        '+' | '-' => on = letter == '+',
                        'i' | 'w' if on => _ = modes.insert(letter),
                        'i' | 'w' => _ = modes.remove(&letter),
                        'o' => {}
                        _ => unknown = true,
                    }
                }
                if unknown {
                    self.numeric(who, "501", "");
                }
                let now = &self.people[&who].modes;
                let signed = |sign: &str, letters: String| {
                    if letters.is_empty() { letters } else { format!("{sign}{letters}") }
                };
                let more = signed("+", now.difference(&before).collect());
                let less = signed("-", before.difference(now).collect());
                if more.len() + less.len() > 0 {
                    let nick = &self.people[&who].nick;
                    let text = format!("{} MODE {nick} {more}{less}", self.mask(who));
                    self.tell(who, &text);
                }
            }
        }
    }

    /// MODE of a channel. In the scripts a mode that takes a parameter has one.
    fn mode(&mut self, who: usize, params: &[String]) {
        let name = at(params, 0);
        if !self.channels.contains_key(&fold(name)) {
            return self.numeric(who, if name.starts_with('#') { "403" } else { "401" }, name);
        }
        let folded = fold(name);
        let (mut on, mut told, mut changes) = (true, false, Vec::new());
        let mut rest = params[2.min(params.len())..].iter();
        for letter in at(params, 1).chars() {
            match letter {
                '+' => on = true,
                '-' => on = false,
                'o' | 'v' | 'b' | 'e' | 'I' | 'k' | 'l' | 'i' | 'm' | 'n' | 's' | 't' => {
                    let takes = "ovbeIk".contains(letter) || letter == 'l' && on;
                    if !self.leads(who, &folded) {
                        if !std::mem::replace(&mut told, true) {
                            let inside = self.channels[&folded].members.contains(&who);
                            self.numeric(who, if inside { "482" } else { "442" }, name);
                        }
                        continue;
                    }
                    let param = if takes { rest.next().map_or("", |param| param) } else { "" };
                    if let Some(param) = self.change(who, name, on, letter, param) {
                        changes.push((on, letter, param));
                    }
                }
                other => self.numeric(who, "472", &other.to_string()),
            }
        }
        let (mut letters, mut behind, mut sign) = (String::new(), String::new(), None);
        for (on, letter, param) in changes {
            if sign.replace(on) != Some(on) {
                letters.push(if on { '+' } else { '-' });
            }
            letters.push(letter);
            behind += &format!(" {param}");
        }
        if !letters.is_empty() {
            let channel = &self.channels[&folded];
            let behind: Vec<_> = behind.split_whitespace().collect();
            let text =
                format!("{} MODE {} {letters} {}", self.mask(who), channel.name, behind.join(" "));
            self.tell_all(channel.members.clone(), text.trim_end());
        }
    }

    /// Changes one mode. Gives its parameter as it is told; nothing where nothing has changed.
    fn change(
        &mut self,
        who: usize,
        name: &str,
        on: bool,
        letter: char,
        param: &str,
    ) -> Option<String> {
        let folded = fold(name);
        if letter == 'o' || letter == 'v' {
            let Some(to) = self.named(param) else {
                self.numeric(who, "401", param);
                return None;
            };
            let nick = self.people[&to].nick.clone();
            let channel = self.channels.get_mut(&folded).expect("it is there");
            if !channel.members.contains(&to) {
                self.numeric(who, "441", &format!("{param} {name}"));
                return None;
            }
            let held = if letter == 'o' { &mut channel.operators } else { &mut channel.voices };
            let changed = if on { held.insert(to) } else { held.remove(&to) };
            return changed.then_some(nick);
        }
        let channel = self.channels.get_mut(&folded).expect("it is there");
        let (changed, told) = match letter {
            'k' => {
                let key = on.then(|| param.to_owned());
                let told = if on { param } else { "*" };
                (std::mem::replace(&mut channel.key, key.clone()) != key, told)
            }
            'l' => {
                let limit = if on { param.parse().ok() } else { None };
                (std::mem::replace(&mut channel.limit, limit) != limit, param)
            }
            'b' | 'e' | 'I' => {
                let mask = (letter, param.to_owned());
                let changed =
                    if on { channel.masks.insert(mask) } else { channel.masks.remove(&mask) };
                (changed, param)
            }
            _ if on => (channel.flags.insert(letter), ""),
            _ => (channel.flags.remove(&letter), ""),
        };
        changed.then(|| told.to_owned())
    }

    /// The folded name, if the channel is there and they are in it; else they are told.
    fn inside(&mut self, who: usize, name: &str, outside: &str) -> Option<String> {
        let code = match self.channels.get(&fold(name)) {
            None => "403",
            Some(channel) if !channel.members.contains(&who) => outside,
            Some(_) => return Some(fold(name)),
        };
        self.numeric(who, code, name);
        None
    }

    fn part(&mut self, who: usize, list: &str, reason: &str) {
        for name in names_in(list) {
            let Some(folded) = self.inside(who, name, "442") else { continue };
            let channel = &self.channels[&folded];
            let text = format!("{} PART {} {reason}", self.mask(who), channel.name);
            self.tell_all(channel.members.clone(), text.trim_end());
            self.remove(who, &folded);
        }
    }

    fn topic(&mut self, who: usize, name: &str, text: Option<&str>) {
        let Some(folded) = self.inside(who, name, "442") else { return };
        let Some(text) = text else { return self.tell_topic(who, &folded) };
        let (mask, nick) = (self.mask(who), self.people[&who].nick.clone());
        if self.channels[&folded].flags.contains(&'t') && !self.leads(who, &folded) {
            return self.numeric(who, "482", name);
        }
        let channel = self.channels.get_mut(&folded).expect("they are in it");
        channel.topic = (!text.is_empty()).then(|| (text.to_owned(), nick));
        let (name, everybody) = (channel.name.clone(), channel.members.clone());
        self.tell_all(everybody, format!("{mask} TOPIC {name} {text}").trim_end());
    }

    fn tell_topic(&mut self, who: usize, folded: &str) {
        let channel = &self.channels[folded];
        let name = channel.name.clone();
        match channel.topic.clone() {
            None => self.numeric(who, "331", &name),
            Some((text, by)) => {
                self.numeric(who, "332", &format!("{name} {text}"));
                self.numeric(who, "333", &format!("{name} {by}"));
            }
        }
    }

    fn names(&mut self, who: usize, list: &str) {
        for name in names_in(list) {
            let seen = |c: &Channel| !c.flags.contains(&'s') || c.members.contains(&who);
            if self.channels.get(&fold(name)).is_some_and(seen) {
                self.tell_names(who, &fold(name));
            }
        }
        self.numeric(who, "366", if list.is_empty() { "*" } else { list });
    }

    fn tell_names(&mut self, who: usize, folded: &str) {
        let channel = &self.channels[folded];
        let name = channel.name.clone();
        let sign =
            |member| match (channel.operators.contains(member), channel.voices.contains(member)) {
                (true, _) => "@",
                (false, true) => "+",
                (false, false) => "",
            };
        let inside = channel.members.contains(&who);
        let seen = |member: &&usize| inside || !self.people[*member].modes.contains(&'i');
        let mut nicks: Vec<_> = channel
            .members
            .iter()
            .filter(seen)
            .map(|member| format!("{}{}", sign(member), self.people[member].nick))
            .collect();
        nicks.sort_unstable();
        if !nicks.is_empty() {
            let text = format!("{name} {}", nicks.join(" "));
            self.numeric(who, "353", &text);
        }
    }

    /// PRIVMSG and NOTICE; a NOTICE is never answered.
    fn talk(&mut self, who: usize, verb: &str, list: &str, text: &str) {
        let answered = verb == "PRIVMSG";
        if list.is_empty() || text.is_empty() {
            if answered {
                self.numeric(who, if list.is_empty() { "411" } else { "412" }, "");
            }
            return;
        }
        let mut served = BTreeSet::new();
        for target in names_in(list) {
            if !served.insert(fold(target)) {
                continue;
            }
            if target.starts_with('#') {
                let channel = self.channels.get(&fold(target));
                let hears = |channel: &&Channel| channel.hears(who, &self.mask(who));
                let Some(channel) = channel.filter(hears) else {
                    let code = if channel.is_some() { "404" } else { "403" };
                    if answered {
                        self.numeric(who, code, target);
                    }
                    continue;
                };
                let line = format!("{} {verb} {} {text}", self.mask(who), channel.name);
                let others = channel.members.iter().copied().filter(|&other| other != who);
                self.tell_all(others.collect::<Vec<_>>(), &line);
                continue;
            }
            match self.named(target).map(|to| (to, self.people[&to].nick.clone())) {
                Some((to, nick)) => {
                    let line = format!("{} {verb} {nick} {text}", self.mask(who));
                    self.tell(to, &line);
                    if answered {
                        self.tell_away(who, to);
                    }
                }
                None if answered => self.numeric(who, "401", target),
                None => {}
            }
        }
    }

    fn person(&mut self, who: usize) -> &mut Person {
        self.people.get_mut(&who).expect("a member that is there")
    }
}

/// The command and the parameters of a line. A source is not believed.
fn take_apart(line: &str) -> (String, Vec<String>) {
    let mut rest = line.trim_start_matches(' ');
    if rest.starts_with(':') {
        rest = rest.split_once(' ').map_or("", |(_, rest)| rest);
    }
    let (middle, last) = match format!(" {rest}").split_once(" :") {
        Some((middle, last)) => (middle.to_owned(), Some(last.to_owned())),
        None => (rest.to_owned(), None),
    };
    let mut words = middle.split(' ').filter(|word| !word.is_empty()).map(str::to_owned);
    let command = words.next().unwrap_or_default();
    (command, words.chain(last).collect())
}

fn at(params: &[String], index: usize) -> &str {
    params.get(index).map_or("", String::as_str)
}

fn names_in(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_lines_come_back_and_long_ones_are_told() {
        assert_eq!(echo(b"a\r\nbcde\nf", 4), b"a\r\nERR line too long\r\n");
        assert_eq!(echo(b"abc\n\nd\n", 4), b"abc\n\nd\n");
    }

    #[test]
    fn a_line_is_taken_apart() {
        let params = |line: &str| (take_apart(line).0, take_apart(line).1.join("|"));
        assert_eq!(params(":me  PRIVMSG  #a :b :c "), ("PRIVMSG".into(), "#a|b :c ".into()));
        assert_eq!(params("PING :"), ("PING".into(), String::new()));
        assert_eq!(take_apart("PING :").1.len(), 1);
        assert_eq!(params(" "), (String::new(), String::new()));
    }

    #[test]
    fn a_message_reaches_the_others_and_a_quit_those_who_share() {
        let mut chat = Chat::default();
        for (who, nick) in ["ann", "bob", "cid"].into_iter().enumerate() {
            chat.arrive(who);
            chat.line(who, "USER u 0 * :r");
            chat.line(who, &format!("NICK {nick}"));
        }
        chat.line(0, "JOIN #c");
        chat.line(1, "JOIN #C");
        chat.take();
        chat.line(0, "PRIVMSG #c,cid,nobody :hi there");
        let told = chat.take();
        assert_eq!(told[&0], ["401 ann nobody"]);
        assert_eq!(told[&1], ["ann!u@127.0.0.1 PRIVMSG #c hi there"]);
        assert_eq!(told[&2], ["ann!u@127.0.0.1 PRIVMSG cid hi there"]);
        chat.line(0, "QUIT");
        let told = chat.take();
        assert_eq!((told[&0].join(" "), told.contains_key(&2)), ("ERROR END".into(), false));
        assert!(agrees(&told[&1][0], "ann!u@127.0.0.1 QUIT Client quit"));
        chat.vanish(1, false);
        assert_eq!(chat.counts(), (1, 0));
    }

    #[test]
    fn who_watches_is_told_of_each_who_comes_and_goes() {
        let mut chat = Chat::default();
        for who in 0..2 {
            chat.arrive(who);
            chat.line(who, "USER u 0 * :r");
        }
        chat.line(0, "NICK ann");
        chat.line(0, "MONITOR + Bob,9,bob,cid");
        assert_eq!(chat.take()[&0], ["001 ann", "432 ann 9", "731 ann Bob,cid"]);
        chat.line(1, "NICK bob");
        chat.line(1, "NICK BOB");
        chat.line(1, "NICK Cid");
        let told = ["730 ann bob!u@127.0.0.1", "731 ann BOB", "730 ann Cid!u@127.0.0.1"];
        assert_eq!(chat.take()[&0], told);
        chat.line(0, "MONITOR - BOB");
        chat.line(0, "MONITOR L");
        assert_eq!(chat.take()[&0], ["732 ann cid", "733 ann"]);
        chat.vanish(1, false);
        assert_eq!(chat.take()[&0], ["731 ann Cid"]);
        let many: Vec<_> = (0..MOST_WATCHED).map(|n| format!("n{n}")).collect();
        chat.line(0, &format!("MONITOR + {},9", many.join(",")));
        let told = chat.take();
        assert_eq!(told[&0][0], "734 ann 100 n99");
        assert_eq!(told[&0][1], format!("731 ann {}", many[..99].join(",")));
        chat.line(0, "monitor c");
        chat.line(0, "MONITOR X");
        chat.line(0, "MONITOR +");
        assert_eq!(chat.take()[&0], ["FAIL MONITOR INVALID_SUBCOMMAND X", "461 ann MONITOR"]);
    }

    #[test]
    fn only_the_reason_of_a_quit_may_be_open() {
        assert!(agrees("a!u@h QUIT *", "a!u@h QUIT Connection reset"));
        assert!(!agrees("a!u@h PART #c *", "a!u@h PART #c x"));
    }
}
