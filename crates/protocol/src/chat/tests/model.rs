//! The hub beside a naive model, over random scripts: exactly who receives what in which order.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

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
        1 => Just(Act::Quit),
        1 => Just(Act::Cut),
        1 => Just(Act::Leave),
        1 => Just(Act::End),
    ]
}

fn line_of(act: &Act) -> Option<String> {
    Some(match act {
        Act::User => "USER u 0 * :R".to_owned(),
        Act::Nick(nick) => format!("NICK {nick}"),
        Act::Join(channels) => format!("JOIN {}", channels.join(",")),
        Act::PartAll => "JOIN 0".to_owned(),
        Act::Part(channels) => format!("PART {}", channels.join(",")),
        Act::Say(targets) => format!("PRIVMSG {} :hi", targets.join(",")),
        Act::Topic(channel) => format!("TOPIC {channel} :t"),
        Act::Quit => "QUIT".to_owned(),
        Act::Open | Act::Cut | Act::Leave | Act::End => return None,
    })
}

#[derive(Default)]
struct Person {
    nick: String,
    user: bool,
    registered: bool,
    /// As joined, folded.
    channels: Vec<String>,
}

#[derive(Default)]
struct Place {
    name: String,
    topic: bool,
    members: BTreeSet<usize>,
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
        self.people.remove(&who);
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
            if self.people[&who].registered {
                let text = format!("{} NICK {nick}", self.mask(who));
                self.tell_all(self.sharers(who), &text);
                self.tell(who, text);
            }
            self.people.get_mut(&who).unwrap().nick = nick.to_owned();
            self.welcome(who);
        }
    }

    fn welcome(&mut self, who: usize) {
        let person = self.people.get_mut(&who).unwrap();
        if person.user && !person.nick.is_empty() && !person.registered {
            person.registered = true;
            let told = "*welcome 001 002 003 004 005 005 251 252 253 254 255 422";
            for text in told.split(' ') {
                self.tell(who, text);
            }
        }
    }

    fn join(&mut self, who: usize, name: &str) {
        let channel = fold(name);
        if !name.starts_with('#') {
            self.tell(who, "403");
        } else if !self.people[&who].channels.contains(&channel) {
            let place = self.places.entry(channel.clone()).or_default();
            if place.members.is_empty() {
                place.name = name.to_owned();
            }
            place.members.insert(who);
            let (name, topic, members) = (place.name.clone(), place.topic, place.members.clone());
            self.people.get_mut(&who).unwrap().channels.push(channel);
            let text = format!("{} JOIN {name}", self.mask(who));
            self.tell_all(members.iter().copied(), &text);
            if topic {
                self.tell(who, "332");
                self.tell(who, "333");
            }
            let nicks = members.iter().map(|other| self.people[other].nick.clone());
            let nicks = nicks.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(" ");
            self.tell(who, format!("353 {name} {nicks}"));
            self.tell(who, "366");
        }
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
            let Some(channel) = self.inside(who, target, "404") else { return };
            let place = &self.places[&channel];
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
            }
            None => self.tell(who, "401"),
        }
    }

    fn topic(&mut self, who: usize, name: &str) {
        let Some(channel) = self.inside(who, name, "442") else { return };
        let mask = self.mask(who);
        let place = self.places.get_mut(&channel).unwrap();
        place.topic = true;
        let (text, members) = (format!("{mask} TOPIC {} :t", place.name), place.members.clone());
        self.tell_all(members, &text);
    }

    fn act(&mut self, who: usize, act: &Act) {
        if let Act::Open = act {
            self.people.entry(who).or_default();
            return;
        }
        let Some(person) = self.people.get_mut(&who) else { return };
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
            Act::Open => unreachable!("above"),
        }
    }
}

/// A line as the model tells it: of numerics the number alone, of 353 the names in order.
fn brief(line: &str) -> String {
    let words: Vec<_> = line.split(' ').collect();
    match words[..] {
        [":s", "353", _, "=", channel, ..] => {
            let nicks = line.rsplit(':').next().unwrap().split(' ');
            let nicks: Vec<_> = nicks.collect::<BTreeSet<_>>().into_iter().collect();
            format!("353 {channel} {}", nicks.join(" "))
        }
        [":s", numeric, ..] => numeric.to_owned(),
        ["*close", "ERROR", ..] => "*close ERROR".to_owned(),
        _ => line.to_owned(),
    }
}

fn run(script: &[(usize, Act)]) {
    let mut world = World::new(settings());
    let mut model = Model::default();
    // Nobody who has gone comes back under the same id, as no two tenants of a slot have one.
    let mut generations = [0; PEOPLE];
    for (who, act) in script {
        let (who, name) = (*who, who.to_string());
        if matches!(act, Act::Open) && !model.people.contains_key(&who) {
            generations[who] += 1;
            world.ids.insert(name.clone(), conn(0, generations[who], who));
            world.hub.open(world.ids[&name], "h", world.now);
        }
        model.act(who, act);
        let Some(&id) = world.ids.get(&name) else { continue };
        match act {
            Act::Cut => world.hub.cut(id, "cut"),
            Act::Leave => world.hub.leave(id, "left"),
            Act::End => _ = world.hub.line(id, Line::End, world.now),
            _ => {
                if let Some(line) = line_of(act) {
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
