//! The hub beside a naive model, over random scripts: exactly who receives what in which order.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::oper::settings_with_operators;
use super::*;

const PEOPLE: usize = 5;

#[derive(Clone, Debug)]
enum Act {
    Open,
    User,
    Nick(&'static str),
    Join(Vec<&'static str>),
    PartAll,
    Part(Vec<&'static str>),
    Say(Vec<&'static str>),
    Topic(&'static str),
    Mode(&'static str, Vec<(&'static str, &'static str)>),
    Kick(&'static str, Vec<&'static str>),
    Invite(&'static str, &'static str),
    Away(&'static str),
    /// MODE of oneself, with +i and -i.
    Hide(bool),
    WhoAll,
    Names(&'static str),
    /// MONITOR, to begin and to end to watch.
    Watch(bool, Vec<&'static str>),
    /// MONITOR with a letter alone.
    Watched(&'static str),
    /// OPER, with the right password or a wrong one.
    Oper(bool),
    /// MODE of oneself, with -o.
    Resign,
    /// MODE of oneself, with +w and -w.
    Want(bool),
    Wallops,
    Kill(&'static str),
    Rehash,
    Quit,
    Cut,
    Leave,
    End,
}

fn act() -> impl Strategy<Value = Act> {
    let nick = || select(vec!["a", "A", "b", "B", "c", "[", "{", "1", "é"]);
    let channel = || select(vec!["#x", "#X", "#y", "#z", "x", "#é"]);
    let target = select(vec!["a", "B", "c", "{", "#x", "#Y", "#z", "#none"]);
    prop_oneof![
        4 => Just(Act::Open),
        4 => Just(Act::User),
        6 => nick().prop_map(Act::Nick),
        8 => vec(channel(), 1..4).prop_map(Act::Join),
        1 => Just(Act::PartAll),
        4 => vec(channel(), 1..4).prop_map(Act::Part),
        8 => vec(target, 1..5).prop_map(Act::Say),
        2 => channel().prop_map(Act::Topic),
        6 => (channel(), vec(select(CHANGES), 1..5))
            .prop_map(|(channel, changes)| Act::Mode(channel, changes)),
        2 => (channel(), vec(nick(), 1..3)).prop_map(|(channel, nicks)| Act::Kick(channel, nicks)),
        2 => (nick(), channel()).prop_map(|(nick, channel)| Act::Invite(nick, channel)),
        2 => select(vec!["", ":gone"]).prop_map(Act::Away),
        2 => any::<bool>().prop_map(Act::Hide),
        1 => Just(Act::WhoAll),
        1 => channel().prop_map(Act::Names),
        4 => (prop::bool::weighted(0.8), vec(nick(), 1..4))
            .prop_map(|(on, nicks)| Act::Watch(on, nicks)),
        2 => select(vec!["S", "L", "C"]).prop_map(Act::Watched),
        3 => prop::bool::weighted(0.8).prop_map(Act::Oper),
        1 => Just(Act::Resign),
        2 => any::<bool>().prop_map(Act::Want),
        1 => Just(Act::Wallops),
        1 => nick().prop_map(Act::Kill),
        1 => Just(Act::Rehash),
        1 => Just(Act::Quit),
        1 => Just(Act::Cut),
        1 => Just(Act::Leave),
        1 => Just(Act::End),
    ]
}

/// Modes to change, with their parameters.
const CHANGES: &[(&str, &str)] = &[
    ("+i", ""),
    ("-i", ""),
    ("+m", ""),
    ("-m", ""),
    ("+n", ""),
    ("-n", ""),
    ("+s", ""),
    ("+t", ""),
    ("-t", ""),
    ("+o", "a"),
    ("-o", "a"),
    ("+o", "b"),
    ("+o", "C"),
    ("-o", "{"),
    ("+v", "A"),
    ("+v", "b"),
    ("-v", "b"),
    ("+b", "a!*@*"),
    ("-b", "a!*@*"),
    ("+b", "b!*@*"),
    ("+e", "b!*@*"),
    ("+I", "c!*@*"),
    ("+k", "sesame"),
    ("-k", "*"),
    ("+l", "2"),
    ("+l", "1"),
    ("-l", ""),
];

/// The line that a member says who is called `nick`.
fn line_of(act: &Act, nick: &str) -> Option<String> {
    Some(match act {
        Act::User => "USER u 0 * :R".to_owned(),
        Act::Nick(nick) => format!("NICK {nick}"),
        Act::Join(channels) => format!("JOIN {}", channels.join(",")),
        Act::PartAll => "JOIN 0".to_owned(),
        Act::Part(channels) => format!("PART {}", channels.join(",")),
        Act::Say(targets) => format!("PRIVMSG {} :hi", targets.join(",")),
        Act::Topic(channel) => format!("TOPIC {channel} :t"),
        Act::Mode(channel, changes) => {
            let letters: String = changes.iter().map(|(letter, _)| *letter).collect();
            let params: String = changes.iter().map(|(_, param)| format!(" {param}")).collect();
            format!("MODE {channel} {letters}{params}")
        }
        Act::Kick(channel, nicks) => format!("KICK {channel} {}", nicks.join(",")),
        Act::Invite(nick, channel) => format!("INVITE {nick} {channel}"),
        Act::Away(text) => format!("AWAY {text}"),
        Act::Hide(on) => format!("MODE {} {}i", nick, if *on { '+' } else { '-' }),
        Act::WhoAll => "WHO *".to_owned(),
        Act::Names(channel) => format!("NAMES {channel}"),
        Act::Watch(on, nicks) => {
            format!("MONITOR {} {}", if *on { '+' } else { '-' }, nicks.join(","))
        }
        Act::Watched(letter) => format!("MONITOR {letter}"),
        Act::Oper(right) => format!("OPER root {}", if *right { "right" } else { "wrong" }),
        Act::Resign => format!("MODE {nick} -o"),
        Act::Want(on) => format!("MODE {} {}w", nick, if *on { '+' } else { '-' }),
        Act::Wallops => "WALLOPS :hear".to_owned(),
        Act::Kill(nick) => format!("KILL {nick} :out"),
        Act::Rehash => "REHASH".to_owned(),
        Act::Quit => "QUIT".to_owned(),
        Act::Open | Act::Cut | Act::Leave | Act::End => return None,
    })
}

#[derive(Default)]
struct Person {
    nick: String,
    user: bool,
    registered: bool,
    away: bool,
    hidden: bool,
    /// Of the server.
    operator: bool,
    wallops: bool,
    /// As it spelled them.
    watched: Vec<&'static str>,
    /// Whether the password of its last OPER was right, until it is told.
    asked: Option<bool>,
    wrong: u32,
    /// As joined, folded.
    channels: Vec<String>,
}

#[derive(Default)]
struct Place {
    name: String,
    topic: bool,
    members: BTreeSet<usize>,
    operators: BTreeSet<usize>,
    voices: BTreeSet<usize>,
    invited: BTreeSet<usize>,
    /// Flags, `k` and `l`, and masks behind their letters.
    modes: BTreeSet<String>,
    key: bool,
    limit: Option<usize>,
}

impl Place {
    fn has(&self, mode: &str) -> bool {
        self.modes.contains(mode)
    }

    fn bans(&self, nick: &str) -> bool {
        let listed = |letter| self.has(&format!("{letter} {}!*@*", fold(nick)));
        listed("b") && !listed("e")
    }

    fn is_heard(&self, who: usize, nick: &str) -> bool {
        let outside = !self.members.contains(&who) && self.has("n");
        self.operators.contains(&who)
            || self.voices.contains(&who)
            || !outside && !self.has("m") && !self.bans(nick)
    }
}

/// The rules once more, as plainly as can be.
#[derive(Default)]
struct Model {
    people: BTreeMap<usize, Person>,
    places: BTreeMap<String, Place>,
    mail: BTreeMap<usize, Vec<String>>,
}

fn fold(name: &str) -> String {
    name.to_ascii_lowercase()
}

impl Model {
    fn tell(&mut self, who: usize, text: impl Into<String>) {
        self.mail.entry(who).or_default().push(text.into());
    }

    fn tell_all(&mut self, who: impl IntoIterator<Item = usize>, text: &str) {
        for who in who {
            self.tell(who, text);
        }
    }

    fn mask(&self, who: usize) -> String {
        format!(":{}!u@h", self.people[&who].nick)
    }

    fn sharers(&self, who: usize) -> BTreeSet<usize> {
        let places = self.people[&who].channels.iter().map(|channel| &self.places[channel]);
        places
            .flat_map(|place| place.members.iter().copied())
            .filter(|&other| other != who)
            .collect()
    }

    fn drop_member(&mut self, who: usize, channel: &str) {
        let place = self.places.get_mut(channel).unwrap();
        place.members.remove(&who);
        place.operators.remove(&who);
        place.voices.remove(&who);
        if place.members.is_empty() {
            self.places.remove(channel);
        }
        self.people.get_mut(&who).unwrap().channels.retain(|other| other != channel);
    }

    fn go(&mut self, who: usize, reason: &str) {
        let text = format!("{} QUIT :{reason}", self.mask(who));
        self.tell_all(self.sharers(who), &text);
        for channel in self.people[&who].channels.clone() {
            self.drop_member(who, &channel);
        }
        let person = self.people.remove(&who).unwrap();
        if person.registered {
            self.tell_watchers(&person.nick, "731", &person.nick);
        }
        for place in self.places.values_mut() {
            place.invited.remove(&who);
        }
    }

    fn nick(&mut self, who: usize, nick: &str) {
        let valid = !matches!(nick, "1" | "é");
        let taken =
            |(other, person): (&usize, &Person)| *other != who && fold(&person.nick) == fold(nick);
        if !valid {
            self.tell(who, "432");
        } else if self.people.iter().any(taken) {
            self.tell(who, "433");
        } else if self.people[&who].nick != nick {
            let person = &self.people[&who];
            let muted = |name: &&String| !self.places[*name].is_heard(who, &person.nick);
            let banned = |name: &&String| self.places[*name].bans(&person.nick);
            if person.channels.iter().filter(muted).any(|name| banned(&name)) {
                return self.tell(who, "435");
            }
            if self.people[&who].registered {
                let text = format!("{} NICK {nick}", self.mask(who));
                self.tell_all(self.sharers(who), &text);
                self.tell(who, text);
            }
            let person = self.people.get_mut(&who).unwrap();
            let before = std::mem::replace(&mut person.nick, nick.to_owned());
            if person.registered && fold(&before) != fold(nick) {
                self.tell_watchers(&before, "731", &before);
                let mask = format!("{nick}!u@h");
                self.tell_watchers(nick, "730", &mask);
            }
            self.welcome(who);
        }
    }

    fn tell_watchers(&mut self, nick: &str, numeric: &str, shown: &str) {
        let watches = |person: &Person| person.watched.iter().any(|it| fold(it) == fold(nick));
        let all: Vec<_> = self.people.iter().filter(|it| watches(it.1)).map(|it| *it.0).collect();
        self.tell_all(all, &format!("{numeric} {shown}"));
    }

    fn watch(&mut self, who: usize, on: bool, nicks: &[&'static str]) {
        let person = self.people.get_mut(&who).unwrap();
        if !on {
            let meant = |it: &&str| nicks.iter().any(|nick| fold(nick) == fold(it));
            return person.watched.retain(|it| !meant(it));
        }
        let mut added: Vec<&'static str> = Vec::new();
        let valid = |nick: &&&str| !matches!(**nick, "1" | "é");
        for nick in nicks.iter().filter(valid) {
            if !person.watched.iter().any(|it| fold(it) == fold(nick)) {
                person.watched.push(nick);
            }
            if !added.iter().any(|it| fold(it) == fold(nick)) {
                added.push(nick);
            }
        }
        if nicks.iter().any(|nick| !valid(&nick)) {
            self.tell(who, "432");
        }
        self.presence(who, &added);
    }

    fn presence(&mut self, who: usize, nicks: &[&str]) {
        let (mut there, mut gone) = (Vec::new(), Vec::new());
        for nick in nicks {
            match self.named(nick) {
                Some(to) => there.push(format!("{}!u@h", self.people[&to].nick)),
                None => gone.push((*nick).to_owned()),
            }
        }
        for (numeric, all) in [("730", there), ("731", gone)] {
            if !all.is_empty() {
                self.tell(who, format!("{numeric} {}", all.join(",")));
            }
        }
    }

    fn watched(&mut self, who: usize, letter: &str) {
        let watched = self.people[&who].watched.clone();
        match letter {
            "S" => self.presence(who, &watched),
            "C" => self.people.get_mut(&who).unwrap().watched.clear(),
            _ => {
                if !watched.is_empty() {
                    self.tell(who, format!("732 {}", watched.join(",")));
                }
                self.tell(who, "733");
            }
        }
    }

    fn welcome(&mut self, who: usize) {
        let person = self.people.get_mut(&who).unwrap();
        if person.user && !person.nick.is_empty() && !person.registered {
            person.registered = true;
            let features = "005 ".repeat(crate::chat::commands::features(&settings()).len());
            let told =
                format!("*welcome 001 002 003 004 {features}251 252 253 254 255 265 266 422");
            for text in told.split(' ') {
                self.tell(who, text);
            }
            let nick = self.people[&who].nick.clone();
            self.tell_watchers(&nick, "730", &format!("{nick}!u@h"));
        }
    }

    fn join(&mut self, who: usize, name: &str) {
        let channel = fold(name);
        if !name.starts_with('#') {
            self.tell(who, "403");
        } else if !self.people[&who].channels.contains(&channel) {
            let nick = fold(&self.people[&who].nick);
            let place = self.places.entry(channel.clone()).or_default();
            if place.members.is_empty() {
                place.name = name.to_owned();
                place.operators.insert(who);
                place.modes.insert("n".to_owned());
            }
            let numeric = match place {
                _ if place.invited.contains(&who) => "",
                _ if place.bans(&nick) => "474",
                _ if place.has("i") && !place.has(&format!("I {nick}!*@*")) => "473",
                _ if place.key => "475",
                _ if place.limit.is_some_and(|limit| place.members.len() >= limit) => "471",
                _ => "",
            };
            if !numeric.is_empty() {
                return self.tell(who, numeric);
            }
            place.invited.remove(&who);
            place.members.insert(who);
            let (name, topic, members) = (place.name.clone(), place.topic, place.members.clone());
            self.people.get_mut(&who).unwrap().channels.push(channel);
            let text = format!("{} JOIN {name}", self.mask(who));
            self.tell_all(members.iter().copied(), &text);
            if topic {
                self.tell(who, "332");
                self.tell(who, "333");
            }
            self.names(who, &name);
        }
    }

    fn names(&mut self, who: usize, name: &str) {
        let Some(place) = self.places.get(&fold(name)) else { return self.tell(who, "366") };
        let inside = place.members.contains(&who);
        if inside || !place.has("s") {
            let name = &place.name;
            let seen = place.members.iter().filter(|other| inside || !self.people[other].hidden);
            let nicks = seen.map(|other| {
                let voice = if place.voices.contains(other) { "+" } else { "" };
                let sign = if place.operators.contains(other) { "@" } else { voice };
                format!("{sign}{}", self.people[other].nick)
            });
            let nicks = nicks.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(" ");
            if !nicks.is_empty() {
                self.tell(who, format!("353 {name} {nicks}"));
            }
        }
        self.tell(who, "366");
    }

    fn who_all(&mut self, who: usize) {
        let own = self.people[&who].channels.clone();
        for (&other, person) in &self.people {
            let shared = person.channels.iter().any(|name| own.contains(name));
            if person.registered && (!person.hidden || other == who || shared) {
                let here = if person.away { "G" } else { "H" };
                let star = if person.operator { "*" } else { "" };
                let text = format!("352 {} {here}{star}", person.nick);
                self.mail.entry(who).or_default().push(text);
            }
        }
        self.mail.entry(who).or_default().sort();
        self.tell(who, "315");
    }

    /// The channel, if `who` is in it; else `who` is told what is wrong.
    fn inside(&mut self, who: usize, name: &str, outside: &str) -> Option<String> {
        let channel = fold(name);
        let numeric = match self.places.get(&channel) {
            None => "403",
            Some(place) if !place.members.contains(&who) => outside,
            Some(_) => return Some(channel),
        };
        self.tell(who, numeric);
        None
    }

    fn part(&mut self, who: usize, name: &str) {
        let Some(channel) = self.inside(who, name, "442") else { return };
        let place = &self.places[&channel];
        let text = format!("{} PART {}", self.mask(who), place.name);
        self.tell_all(place.members.clone(), &text);
        self.drop_member(who, &channel);
    }

    fn say(&mut self, who: usize, target: &str) {
        if target.starts_with('#') {
            let Some(place) = self.places.get(&fold(target)) else {
                return self.tell(who, "403");
            };
            if !place.is_heard(who, &self.people[&who].nick) {
                return self.tell(who, "404");
            }
            let text = format!("{} PRIVMSG {} :hi", self.mask(who), place.name);
            let others = place.members.iter().copied().filter(|&other| other != who);
            self.tell_all(others.collect::<Vec<_>>(), &text);
            return;
        }
        let named = |person: &Person| person.registered && fold(&person.nick) == fold(target);
        let found = self.people.iter().find(|(_, person)| named(person));
        match found.map(|(&to, person)| (to, person.nick.clone())) {
            Some((to, nick)) => {
                let text = format!("{} PRIVMSG {nick} :hi", self.mask(who));
                self.tell(to, text);
                if self.people[&to].away {
                    self.tell(who, "301");
                }
            }
            None => self.tell(who, "401"),
        }
    }

    fn topic(&mut self, who: usize, name: &str) {
        let Some(channel) = self.inside(who, name, "442") else { return };
        let mask = self.mask(who);
        let place = self.places.get_mut(&channel).unwrap();
        if place.has("t") && !place.operators.contains(&who) {
            return self.tell(who, "482");
        }
        place.topic = true;
        let (text, members) = (format!("{mask} TOPIC {} :t", place.name), place.members.clone());
        self.tell_all(members, &text);
    }

    fn named(&self, nick: &str) -> Option<usize> {
        let named = |person: &Person| person.registered && fold(&person.nick) == fold(nick);
        self.people.iter().find(|(_, person)| named(person)).map(|(&who, _)| who)
    }

    fn mode(&mut self, who: usize, name: &str, changes: &[(&str, &str)]) {
        let channel = fold(name);
        if !self.places.contains_key(&channel) {
            return self.tell(who, if name.starts_with('#') { "403" } else { "401" });
        }
        let (mut told, mut letters, mut params) = (false, String::new(), String::new());
        let mut sign = "";
        for (letter, param) in changes {
            let leads = self.places[&channel].operators.contains(&who);
            if !leads {
                if !std::mem::replace(&mut told, true) {
                    let inside = self.places[&channel].members.contains(&who);
                    self.tell(who, if inside { "482" } else { "442" });
                }
                continue;
            }
            let Some(param) = self.change(who, &channel, letter, param) else { continue };
            if sign != &letter[..1] {
                letters += &letter[..1];
                sign = &letter[..1];
            }
            letters += &letter[1..];
            params += &param;
        }
        if !letters.is_empty() {
            let place = &self.places[&channel];
            let text = format!("{} MODE {} {letters}{params}", self.mask(who), place.name);
            self.tell_all(place.members.clone(), &text);
        }
    }

    /// Changes one mode; gives its parameter as it is told, or none where nothing has changed.
    fn change(&mut self, who: usize, channel: &str, letter: &str, param: &str) -> Option<String> {
        let (on, letter) = (letter.starts_with('+'), &letter[1..]);
        let place = self.places.get_mut(channel).unwrap();
        let changed = match letter {
            "o" | "v" => {
                let Some(to) = self.named(param) else {
                    self.tell(who, "401");
                    return None;
                };
                let place = self.places.get_mut(channel).unwrap();
                if !place.members.contains(&to) {
                    self.tell(who, "441");
                    return None;
                }
                let held = if letter == "o" { &mut place.operators } else { &mut place.voices };
                let changed = if on { held.insert(to) } else { held.remove(&to) };
                return changed.then(|| format!(" {}", self.people[&to].nick));
            }
            "k" => std::mem::replace(&mut place.key, on) != on,
            "l" => {
                let limit = on.then(|| param.parse().unwrap());
                std::mem::replace(&mut place.limit, limit) != limit
            }
            _ => {
                let mode = format!("{letter} {param}").trim_end().to_owned();
                if on { place.modes.insert(mode) } else { place.modes.remove(&mode) }
            }
        };
        let param = if param.is_empty() { String::new() } else { format!(" {param}") };
        changed.then_some(param)
    }

    fn kick(&mut self, who: usize, name: &str, nicks: &[&str]) {
        for nick in nicks {
            let Some(channel) = self.inside(who, name, "442") else { continue };
            let place = &self.places[&channel];
            let to = self.named(nick);
            match to {
                _ if !place.operators.contains(&who) => self.tell(who, "482"),
                None => self.tell(who, "401"),
                Some(to) if !place.members.contains(&to) => self.tell(who, "441"),
                Some(to) => {
                    let (kicker, kicked) = (&self.people[&who].nick, &self.people[&to].nick);
                    let mask = self.mask(who);
                    let text = format!("{mask} KICK {} {kicked} :{kicker}", place.name);
                    self.tell_all(place.members.clone(), &text);
                    self.drop_member(to, &channel);
                }
            }
        }
    }

    fn invite(&mut self, who: usize, nick: &str, name: &str) {
        let Some(to) = self.named(nick) else { return self.tell(who, "401") };
        let Some(channel) = self.inside(who, name, "442") else { return };
        let mask = self.mask(who);
        let place = self.places.get_mut(&channel).unwrap();
        let leads = place.operators.contains(&who);
        if place.members.contains(&to) {
            self.tell(who, "443");
        } else if place.has("i") && !leads {
            self.tell(who, "482");
        } else {
            if leads {
                place.invited.insert(to);
            }
            let text = format!("{mask} INVITE {} {}", self.people[&to].nick, place.name);
            self.tell(who, "341");
            self.tell(to, text);
            if self.people[&to].away {
                self.tell(who, "301");
            }
        }
    }

    fn tell_own_mode(&mut self, who: usize, on: bool, letter: char) {
        let sign = if on { '+' } else { '-' };
        let text = format!("{} MODE {} :{sign}{letter}", self.mask(who), self.people[&who].nick);
        self.tell(who, text);
    }

    /// Tells what came of the last OPER. False when that was the end of the member.
    fn answer_oper(&mut self, who: usize) -> bool {
        let person = self.people.get_mut(&who).unwrap();
        match person.asked.take() {
            None => {}
            Some(true) => {
                let before = std::mem::replace(&mut person.operator, true);
                self.tell(who, "381");
                if !before {
                    self.tell_own_mode(who, true, 'o');
                }
            }
            Some(false) => {
                person.wrong += 1;
                let last = person.wrong == 3;
                self.tell(who, "464");
                if last {
                    self.tell(who, "*close ERROR");
                    self.go(who, "Too many wrong passwords");
                    return false;
                }
            }
        }
        true
    }

    fn kill(&mut self, who: usize, nick: &str) {
        let Some(to) = self.named(nick) else { return self.tell(who, "401") };
        let killer = self.people[&who].nick.clone();
        let text = format!("{} KILL {} :out", self.mask(who), self.people[&to].nick);
        self.tell(to, text);
        self.tell(to, "*close ERROR");
        self.go(to, &format!("Killed ({killer} (out))"));
    }

    fn act(&mut self, who: usize, act: &Act) {
        if let Act::Open = act {
            self.people.entry(who).or_default();
            return;
        }
        if !self.people.contains_key(&who) {
            return;
        }
        if !matches!(act, Act::Cut | Act::Leave) && !self.answer_oper(who) {
            return;
        }
        let person = self.people.get_mut(&who).unwrap();
        let registered = person.registered;
        match act {
            Act::Quit => {
                self.tell(who, "*close ERROR");
                self.go(who, "Client quit");
            }
            Act::Cut => {
                self.tell(who, "*close ERROR");
                self.go(who, "cut");
            }
            Act::End => {
                self.tell(who, "*close");
                self.go(who, "Connection closed");
            }
            Act::Leave => self.go(who, "left"),
            Act::Nick(nick) => self.nick(who, nick),
            Act::User if registered => self.tell(who, "462"),
            Act::User => {
                person.user = true;
                self.welcome(who);
            }
            _ if !registered => self.tell(who, "451"),
            _ => self.act_inside(who, act),
        }
    }

    /// What a member does that has registered.
    fn act_inside(&mut self, who: usize, act: &Act) {
        let person = self.people.get_mut(&who).unwrap();
        match act {
            Act::Join(names) => names.iter().for_each(|name| self.join(who, name)),
            Act::Part(names) => names.iter().for_each(|name| self.part(who, name)),
            Act::PartAll => {
                for channel in self.people[&who].channels.clone() {
                    self.part(who, &channel);
                }
            }
            Act::Say(targets) => {
                let mut told = BTreeSet::new();
                for target in targets.iter().filter(|target| told.insert(fold(target))) {
                    self.say(who, target);
                }
            }
            Act::Topic(name) => self.topic(who, name),
            Act::Mode(name, changes) => self.mode(who, name, changes),
            Act::Kick(name, nicks) => self.kick(who, name, nicks),
            Act::Invite(nick, name) => self.invite(who, nick, name),
            Act::Away(text) => {
                person.away = !text.is_empty();
                self.tell(who, if text.is_empty() { "305" } else { "306" });
            }
            Act::Hide(on) => {
                if std::mem::replace(&mut person.hidden, *on) != *on {
                    self.tell_own_mode(who, *on, 'i');
                }
            }
            Act::Want(on) => {
                if std::mem::replace(&mut person.wallops, *on) != *on {
                    self.tell_own_mode(who, *on, 'w');
                }
            }
            Act::Resign => {
                if std::mem::take(&mut person.operator) {
                    self.tell_own_mode(who, false, 'o');
                }
            }
            Act::Oper(right) => person.asked = Some(*right),
            Act::Wallops | Act::Kill(_) | Act::Rehash if !person.operator => self.tell(who, "481"),
            Act::Wallops => {
                let text = format!("{} WALLOPS :hear", self.mask(who));
                let wanting: Vec<_> =
                    self.people.iter().filter(|it| it.1.wallops).map(|it| *it.0).collect();
                self.tell_all(wanting, &text);
            }
            Act::Kill(nick) => self.kill(who, nick),
            Act::Rehash => self.tell(who, "382"),
            Act::WhoAll => self.who_all(who),
            Act::Names(name) => self.names(who, name),
            Act::Watch(on, nicks) => self.watch(who, *on, nicks),
            Act::Watched(letter) => self.watched(who, letter),
            _ => unreachable!("above"),
        }
    }
}

/// A line as the model tells it: of numerics the number alone, of 353 the names in order.
fn brief(line: &str) -> String {
    let words: Vec<_> = line.split(' ').collect();
    match words[..] {
        [":s", "353", _, "=" | "@", channel, ..] => {
            let nicks = line.rsplit(':').next().unwrap().split(' ');
            let nicks: Vec<_> = nicks.collect::<BTreeSet<_>>().into_iter().collect();
            format!("353 {channel} {}", nicks.join(" "))
        }
        [":s", numeric @ ("730" | "731" | "732"), _, who] => format!("{numeric} {}", &who[1..]),
        [":s", "352", .., nick, flags, ":0", "R"] => format!("352 {nick} {flags}"),
        [":s", numeric, ..] => numeric.to_owned(),
        ["*close", "ERROR", ..] => "*close ERROR".to_owned(),
        _ => line.to_owned(),
    }
}

fn run(script: &[(usize, Act)]) {
    let mut world = World::new(settings_with_operators());
    let mut model = Model::default();
    // No member that has gone comes back under the same id, as no two tenants of a slot have one.
    let mut generations = [0; PEOPLE];
    for (who, act) in script {
        let (who, name) = (*who, who.to_string());
        if matches!(act, Act::Open) && !model.people.contains_key(&who) {
            generations[who] += 1;
            world.ids.insert(name.clone(), conn(0, generations[who], who));
            world.hub.open(world.ids[&name], "h", world.now);
        }
        let nick = model.people.get(&who).map(|person| person.nick.clone()).unwrap_or_default();
        model.act(who, act);
        let Some(&id) = world.ids.get(&name) else { continue };
        match act {
            Act::Cut => world.hub.cut(id, "cut"),
            Act::Leave => world.hub.leave(id, "left"),
            Act::End => _ = world.hub.line(id, Line::End, world.now),
            _ => {
                if let Some(line) = line_of(act, &nick) {
                    world.hub.line(id, Line::Whole(line.as_bytes()), world.now);
                }
            }
        }
        check(&world.hub);
        let got: BTreeMap<usize, Vec<String>> = world
            .mail()
            .into_iter()
            .map(|(name, lines)| (name.parse().unwrap(), lines.iter().map(|l| brief(l)).collect()))
            .collect();
        let mut got = got;
        if let (Act::WhoAll, Some(lines)) = (act, got.get_mut(&who)) {
            lines.sort();
            let end_first = usize::from(lines[0] == "315");
            lines.rotate_left(end_first);
        }
        assert_eq!(got, core::mem::take(&mut model.mail), "after {who}: {act:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn the_hub_does_what_the_rules_say(script in vec((0..PEOPLE, act()), 1..150)) {
        // Most scripts should be about people who are there.
        let arrivals = (0..PEOPLE - 1).zip(["a", "b", "c", "["]).flat_map(|(who, nick)| {
            [(who, Act::Open), (who, Act::Nick(nick)), (who, Act::User)]
        });
        run(&arrivals.chain(script).collect::<Vec<_>>());
    }
}

/// What members do in channels.
fn acts_in_channels() -> Vec<Act> {
    vec![
        Act::Join(vec!["#x"]),
        Act::Join(vec!["#y"]),
        Act::Part(vec!["#x"]),
        Act::Say(vec!["#x", "b"]),
        Act::Nick("c"),
        Act::Mode("#x", vec![("+o", "a"), ("-o", "b"), ("+v", "b")]),
        Act::Mode("#x", vec![("+i", ""), ("+m", ""), ("+t", "")]),
        Act::Mode("#x", vec![("+b", "b!*@*"), ("+s", "")]),
        Act::Kick("#x", vec!["a", "b"]),
        Act::Invite("b", "#x"),
        Act::Topic("#x"),
        Act::Hide(true),
        Act::Watch(true, vec!["a", "c"]),
        Act::Quit,
    ]
}

/// What operators of the server do, and what they do it to.
fn acts_of_operators() -> Vec<Act> {
    vec![
        Act::Oper(true),
        Act::Oper(false),
        Act::Resign,
        Act::Want(true),
        Act::Wallops,
        Act::Kill("a"),
        Act::Kill("b"),
        Act::Rehash,
        Act::Join(vec!["#x"]),
        Act::Nick("c"),
        Act::Quit,
        Act::End,
    ]
}

/// All scripts of `depth` of these acts by two members in two channels.
fn search(depth: u32, acts: &[Act]) {
    let steps: Vec<_> = (0..2).flat_map(|who| acts.iter().map(move |act| (who, act))).collect();
    let arrivals = (0..2)
        .zip(["a", "b"])
        .flat_map(|(who, nick)| [(who, Act::Open), (who, Act::Nick(nick)), (who, Act::User)]);
    let arrivals: Vec<_> = arrivals.chain([(0, Act::Join(vec!["#x"]))]).collect();
    for number in 0..steps.len().pow(depth) {
        let places = (0..depth).map(|digit| number / steps.len().pow(digit) % steps.len());
        let script = places.map(|place| (steps[place].0, steps[place].1.clone()));
        run(&arrivals.iter().cloned().chain(script).collect::<Vec<_>>());
    }
}

#[test]
fn every_short_script_of_two_members_does_what_the_rules_say() {
    search(3, &acts_in_channels());
    search(3, &acts_of_operators());
}

#[test]
#[ignore = "it takes two minutes"]
fn every_script_of_four_acts_does_what_the_rules_say() {
    search(4, &acts_in_channels());
    search(4, &acts_of_operators());
}
