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
    let Message { source, command, params } = message;
    let numeric = command.len() == 3 && command.bytes().all(|byte| byte.is_ascii_digit());
    Some(match command.as_str() {
        "002" | "003" | "004" | "005" | "251" | "252" | "253" | "254" | "255" | "422" => {
            return None;
        }
        "353" => {
            let mut names: Vec<&str> = message.text().split(' ').collect();
            names.sort_unstable();
            format!("353 {} {} {}", params[0], params[2], names.join(" "))
        }
        "332" => format!("332 {}", params.join(" ")),
        // What comes last is a time, or words for people.
        _ if numeric => format!("{command} {}", params[..params.len().max(1) - 1].join(" ")),
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

    /// Somebody says a line. Who is not there (any more) is not heard.
    pub(crate) fn line(&mut self, who: usize, line: &str) {
        let Some(person) = self.people.get(&who) else { return };
        if line.len() > LINE {
            return self.numeric(who, "417", "");
        }
        let (command, params) = take_apart(line);
        let name = command.to_ascii_uppercase();
        let early = ["NICK", "USER", "PING", "QUIT"].contains(&name.as_str());
        let least = match name.as_str() {
            "JOIN" | "PART" | "TOPIC" => 1,
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
            "JOIN" => self.join(who, at(&params, 0)),
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
        } else if self.people[&who].nick != wanted {
            if self.people[&who].registered {
                let text = format!("{} NICK {wanted}", self.mask(who));
                self.tell_all(self.sharers(who), &text);
                self.tell(who, &text);
            }
            self.person(who).nick = wanted.to_owned();
            self.register(who);
        }
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

    /// Somebody is gone: from everything, and those who shared a channel are told.
    fn leave(&mut self, who: usize, reason: &str) {
        let text = format!("{} QUIT {reason}", self.mask(who));
        self.tell_all(self.sharers(who), &text);
        for channel in self.people[&who].channels.clone() {
            self.remove(who, &channel);
        }
        self.people.remove(&who);
    }

    fn remove(&mut self, who: usize, folded: &str) {
        let channel = self.channels.get_mut(folded).expect("a channel that somebody is in");
        channel.members.remove(&who);
        if channel.members.is_empty() {
            self.channels.remove(folded);
        }
        self.person(who).channels.retain(|other| other != folded);
    }

    fn join(&mut self, who: usize, list: &str) {
        if list == "0" {
            for folded in self.people[&who].channels.clone() {
                let name = self.channels[&folded].name.clone();
                self.part(who, &name, "");
            }
            return;
        }
        for name in names_in(list) {
            let folded = fold(name);
            if !is_channel(name) {
                self.numeric(who, "403", name);
            } else if !self.people[&who].channels.contains(&folded) {
                let channel = self.channels.entry(folded.clone()).or_default();
                if channel.members.is_empty() {
                    name.clone_into(&mut channel.name);
                }
                channel.members.insert(who);
                let (name, everybody) = (channel.name.clone(), channel.members.clone());
                let has_topic = channel.topic.is_some();
                self.person(who).channels.push(folded.clone());
                let text = format!("{} JOIN {name}", self.mask(who));
                self.tell_all(everybody, &text);
                if has_topic {
                    self.tell_topic(who, &folded);
                }
                self.tell_names(who, &folded);
            }
        }
    }

    /// The folded name, if the channel is there and they are in it; else they are told.
    fn inside(&mut self, who: usize, name: &str, outside: &str) -> Option<String> {
        let code = match self.channels.get(&fold(name)) {
            None => "403",
            Some(channel) if !channel.members.contains(&who) => outside,
            Some(_) => return Some(fold(name)),
        };
        if !outside.is_empty() {
            self.numeric(who, code, name);
        }
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
        if list.is_empty() {
            self.numeric(who, "366", "*");
        }
        for name in names_in(list) {
            if self.channels.contains_key(&fold(name)) {
                self.tell_names(who, &fold(name));
            } else {
                self.numeric(who, "366", name);
            }
        }
    }

    fn tell_names(&mut self, who: usize, folded: &str) {
        let channel = &self.channels[folded];
        let name = channel.name.clone();
        let mut nicks: Vec<_> =
            channel.members.iter().map(|member| self.people[member].nick.as_str()).collect();
        nicks.sort_unstable();
        let text = format!("{name} {}", nicks.join(" "));
        self.numeric(who, "353", &text);
        self.numeric(who, "366", &name);
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
                let outside = if answered { "404" } else { "" };
                let Some(folded) = self.inside(who, target, outside) else { continue };
                let channel = &self.channels[&folded];
                let line = format!("{} {verb} {} {text}", self.mask(who), channel.name);
                let others = channel.members.iter().copied().filter(|&other| other != who);
                self.tell_all(others.collect::<Vec<_>>(), &line);
                continue;
            }
            let mut people = self.people.iter();
            let named = people.find(|(_, p)| p.registered && fold(&p.nick) == fold(target));
            match named.map(|(&to, person)| (to, person.nick.clone())) {
                Some((to, nick)) => {
                    let line = format!("{} {verb} {nick} {text}", self.mask(who));
                    self.tell(to, &line);
                }
                None if answered => self.numeric(who, "401", target),
                None => {}
            }
        }
    }

    fn person(&mut self, who: usize) -> &mut Person {
        self.people.get_mut(&who).expect("somebody who is there")
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
    fn only_the_reason_of_a_quit_may_be_open() {
        assert!(agrees("a!u@h QUIT *", "a!u@h QUIT Connection reset"));
        assert!(!agrees("a!u@h PART #c *", "a!u@h PART #c x"));
    }
}
