//! The mail one bound at a time, how threads hand it to each other, and what an operator is told.

use std::sync::Mutex;

use super::*;
use crate::{Done, Gone, Posted, SENDQ_EXCEEDED, Watch};

/// Members on one worker whose mail has been taken; each may have 4096 bytes.
fn world(names: &[&str]) -> World {
    let mut settings = settings();
    settings.limits.sendq = 4096;
    let mut world = World::new(settings);
    for name in names {
        world.say(name, "JOIN #c");
    }
    world.mail();
    world
}

impl World {
    fn key(&self, name: &str) -> super::super::MemberKey {
        self.hub.members.find(self.ids[name]).expect("a member")
    }

    /// Mails so many bytes.
    fn post(&mut self, name: &str, len: usize) {
        let key = self.key(name);
        self.hub.post.mail(key, &vec![b'x'; len].into());
    }

    /// Whether there is room for a line of the member, in whose queue so much waits.
    fn has_room(&mut self, name: &str, queued: usize) -> bool {
        let key = self.key(name);
        self.hub.post.has_room(key, queued)
    }

    /// The parcels that are mailed and not taken, with the names of their receivers.
    fn parcels(&mut self) -> Vec<(String, Parcel)> {
        let mut taken = Vec::new();
        self.hub.take(0, &mut taken);
        let name = |to: ConnId| self.ids.iter().find(|(_, id)| **id == to).unwrap().0.clone();
        taken.into_iter().map(|mail| (name(mail.to), mail.parcel)).collect()
    }
}

#[test]
fn a_member_may_have_as_much_mail_as_its_limit_and_no_byte_more() {
    let mut world = world(&["a"]);
    world.post("a", 4095);
    world.post("a", 1);
    assert_eq!(world.parcels().len(), 2);
    world.post("a", 4096);
    world.post("a", 1);
    world.post("a", 1);
    let parcels = world.parcels();
    assert!(matches!(&parcels[..], [(_, Parcel::Text(_)), (_, Parcel::Overrun)]), "{parcels:?}");
}

#[test]
fn speakers_wait_when_more_than_a_quarter_is_mailed_or_queued() {
    let mut world = world(&["a", "b"]);
    assert!(world.has_room("a", 1024));
    assert!(!world.has_room("a", 1025));
    world.parcels();
    world.hub.line(world.ids["a"], Line::Whole(b"PING x"), world.now);
    world.parcels();

    world.post("a", 1000);
    assert!(world.has_room("a", 24) && world.has_room("b", 0));
    assert!(!world.has_room("a", 25), "what is mailed and what waits count together");
    world.post("a", 24);
    assert!(world.has_room("b", 0));
    world.post("a", 1);
    assert!(!world.has_room("b", 0), "every speaker waits for the worker");
    world.parcels();
    assert!(world.has_room("b", 0) && world.has_room("a", 1024));
}

#[test]
fn only_so_many_go_on_as_what_they_say_has_room() {
    let mut world = world(&["a", "b", "c", "slow"]);
    let slow = world.ids["slow"];
    world.hub.press(slow);
    for name in ["a", "b", "c"] {
        assert!(!world.has_room(name, 0));
    }
    world.hub.relieve(slow);
    let told: Vec<_> = world.parcels().into_iter().map(|(name, _)| name).collect();
    assert_eq!(told, ["a", "b", "c"]);
    world.hub.press(slow);
    // A line each of two fits into the quarter.
    assert_eq!(["a", "b", "c"].map(|name| world.has_room(name, 0)), [true, true, false]);
    assert!(!world.has_room("a", 0), "for one line each");
}

#[test]
fn no_speaker_waits_for_a_member_that_is_gone() {
    let mut world = world(&["a", "b", "late"]);
    let (a, late) = (world.ids["a"], world.ids["late"]);
    world.hub.press(late);
    assert!(!world.has_room("a", 0) && !world.has_room("b", 0));
    world.hub.leave(a, "gone");
    world.hub.leave(late, "gone");
    let resumed = |(name, parcel)| matches!(parcel, Parcel::Resume).then_some(name);
    assert_eq!(world.parcels().into_iter().filter_map(resumed).collect::<Vec<_>>(), ["b"]);
    assert!(world.has_room("b", 0));
}

#[test]
fn an_answer_has_half_of_the_queue_less_what_is_mailed() {
    let mut world = world(&["a"]);
    let key = world.key("a");
    assert_eq!(world.hub.post.room(key), 2048);
    world.post("a", 48);
    assert_eq!(world.hub.post.room(key), 2000);
    world.parcels();
    assert_eq!(world.hub.post.room(key), 2048);
    assert_eq!(world.hub.wakes(ConnId::MAX_WORKERS).count(), 0, "there is no such worker");
}

#[test]
fn what_is_handed_out_is_all_and_what_comes_of_it_too() {
    let mut world = world(&["a", "b", "slow", "slower"]);
    world.say("a", "PRIVMSG #c :x");
    let (a, b) = (world.ids["a"], world.ids["b"]);
    let slow = [world.ids["slow"], world.ids["slower"]];
    let mut handed = Vec::new();
    let done = world.hub.hand_out(&mut Vec::new(), |to, parcel| {
        let said = matches!(&parcel, Parcel::Text(text) if text.ends_with(b":x\r\n"));
        handed.push((to, parcel));
        Posted { wake: false, full: said && slow.contains(&to), behind: said && to == b }
    });
    assert_eq!(done, Done { slow_cut: 2, ..Done::default() });
    for id in slow {
        let last = handed.iter().rfind(|(to, _)| *to == id).unwrap();
        let Parcel::Close(words) = &last.1 else { panic!("{last:?}") };
        assert_eq!(lines_of(words), [format!("ERROR :Closing link: {SENDQ_EXCEEDED}")]);
    }
    let quits = handed.iter().filter(|(to, parcel)| {
        *to == a && matches!(parcel, Parcel::Text(text) if text.ends_with(b"exceeded\r\n"))
    });
    assert_eq!(quits.count(), 2);
    assert!(!world.has_room("a", 0), "b is behind");
    world.hub.relieve(b);
    assert!(world.has_room("a", 0));
}

/// The ends that have been told.
#[derive(Debug, Default)]
struct Ends(Mutex<Vec<String>>);

impl Watch for Ends {
    fn queue(&self, _: usize, _: usize) {}

    fn slow(&self, _: bool) {}

    fn registered(&self) {}

    fn gone(&self, gone: &Gone<'_>) {
        let [nick, host, reason] = [gone.nick, gone.host, gone.reason].map(String::from_utf8_lossy);
        let line = format!("{nick} {host} {}: {reason}", gone.registered);
        self.0.lock().unwrap().push(line);
    }
}

#[test]
fn the_end_of_each_member_is_told_once() {
    let ends = Arc::new(Ends::default());
    let watch: Arc<dyn Watch> = Arc::clone(&ends) as Arc<dyn Watch>;
    let mut world = World::new(Settings { watch: Some(watch), ..settings() });
    for name in ["a", "b", "c"] {
        world.say(name, "JOIN #c");
    }
    world.connect("?d");
    let [b, d] = [world.ids["b"], world.ids["?d"]];
    world.say("a", "QUIT :bye");
    world.hub.cut(b, "Ping timeout");
    world.hub.leave(b, "Connection reset");
    world.hub.leave(d, "Connection reset");
    world.hub.shut_down();
    assert_eq!(
        *ends.0.lock().unwrap(),
        [
            "a h true: Quit: bye",
            "b h true: Ping timeout",
            "* h false: Connection reset",
            "c h true: Server shutting down",
        ]
    );
}
