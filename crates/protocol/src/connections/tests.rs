//! Connections against naive models: random orders of bytes, ends, writes, time, mail and stops.

use core::time::Duration;
use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{Line, Mode, Parcel};

/// A loop without sockets: what a server does around [`Connections`], as its contract says.
struct Loop {
    conns: Connections<Peer>,
    now: Time,
    /// What has been written to each connection, also to those that are closed.
    written: BTreeMap<ConnId, Vec<u8>>,
    closed: BTreeMap<ConnId, &'static str>,
    done: Done,
}

/// The other end of a connection.
struct Peer {
    /// Bytes that the socket still takes.
    room: usize,
    /// Whether the loop wants to read.
    reading: bool,
    unread: bool,
    shut: bool,
}

impl Loop {
    fn new(settings: &Arc<Settings>, worker: usize) -> Loop {
        Loop {
            conns: Connections::new(settings, worker),
            now: Time::ZERO,
            written: BTreeMap::new(),
            closed: BTreeMap::new(),
            done: Done::default(),
        }
    }

    fn open(&mut self, hub: Option<&mut Hub>) -> ConnId {
        let peer = Peer { room: usize::MAX, reading: true, unread: false, shut: false };
        let id = self.conns.open(peer, "host", self.now, hub);
        self.written.insert(id, Vec::new());
        id
    }

    fn receive(&mut self, id: ConnId, bytes: &[u8], mut hub: Option<&mut Hub>) {
        let done = self.conns.received(id, bytes, self.now, hub.as_deref_mut());
        self.done.lines += done.lines;
        self.write_and_settle(id, hub);
    }

    /// A turn, and then as many as are due at once.
    fn turns(&mut self, mut hub: Option<&mut Hub>) {
        for _ in 0..100 {
            let done = self.conns.turn(self.now, hub.as_deref_mut());
            self.done.lines += done.lines;
            self.done.slow_cut += done.slow_cut;
            self.done.timed_out += done.timed_out;
            while self.conns.next_wake().is_some() {}
            self.conns.deliver(self.now);
            while let Some(id) = self.conns.next_touched() {
                self.write_and_settle(id, hub.as_deref_mut());
            }
            if self.conns.next_deadline() > self.now {
                return;
            }
        }
        panic!("there is always something left to do at once");
    }

    fn write_and_settle(&mut self, id: ConnId, hub: Option<&mut Hub>) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        let written = self.written.entry(id).or_default();
        let bytes: Vec<u8> = conn.outbox.slices().flatten().copied().collect();
        let len = bytes.len().min(conn.io.room);
        written.extend(&bytes[..len]);
        conn.io.room = conn.io.room.saturating_sub(len);
        conn.outbox.advance(len);

        let Some((next, conn)) = self.conns.settle(id, self.now) else { return };
        match next {
            Next::Serve { read } => conn.io.reading = read,
            Next::Shut => {
                assert!(conn.outbox.is_empty() && !conn.io.shut, "shut once, after the last byte");
                conn.io.shut = true;
                conn.io.reading = true;
            }
            Next::Close(reason) => {
                assert!(self.conns.close(id, reason, hub).is_some());
                self.closed.insert(id, reason);
            }
        }
    }

    /// What has been written to a connection or waits to be.
    fn output(&self, id: ConnId) -> Vec<u8> {
        let mut output = self.written[&id].clone();
        if let Some(conn) = self.conns.get(id) {
            output.extend(conn.outbox.slices().flatten());
        }
        output
    }
}

fn settings(mode: Mode, change: impl FnOnce(&mut Settings)) -> Arc<Settings> {
    let mut settings = Settings { mode, ..Settings::default() };
    settings.limits.flood_control = false;
    change(&mut settings);
    Arc::new(settings)
}

#[derive(Clone, Debug)]
enum Step {
    /// The peer sends these bytes, if it is read.
    Receive(Vec<u8>),
    /// The peer ends its stream.
    End,
    /// The peer is gone.
    Reset,
    /// The loop is told that the connection is dead. Something may still be read from it.
    Dead,
    /// The peer's socket takes so many bytes more from now on.
    Room(usize),
    /// So many milliseconds pass.
    Pass(u64),
    Turn,
    Stop,
}

const IDLE: u64 = 1000;
const WAIT: u64 = 5;

fn echo_steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
    let bytes = prop::collection::vec(prop_oneof![3 => Just(b'x'), 1 => Just(b'\n')], 1..40);
    let step = prop_oneof![
        10 => bytes.prop_map(Step::Receive),
        1 => Just(Step::End),
        1 => Just(Step::Reset),
        1 => Just(Step::Dead),
        4 => (0..60_usize).prop_map(Step::Room),
        3 => (0..400_u64).prop_map(Step::Pass),
        4 => Just(Step::Turn),
        1 => prop::bool::weighted(0.1).prop_map(|stop| if stop { Step::Stop } else { Step::Turn }),
    ];
    prop::collection::vec((0..4_usize, step), 0..80)
}

/// One connection of echo, as the protocol tells it: all that has come, and when.
#[derive(Default)]
struct Naive {
    input: Vec<u8>,
    /// When the last whole line came.
    heard: u64,
    ended: bool,
    reset: bool,
    dead: bool,
}

impl Naive {
    /// All whole lines.
    fn lines(&self) -> &[u8] {
        let end = self.input.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        &self.input[..end]
    }
}

/// What the test drives: a loop, four connections, and what the protocol says of each.
struct EchoWorld {
    it: Loop,
    ids: Vec<ConnId>,
    model: Vec<Naive>,
    now: u64,
    stopped: bool,
}

impl EchoWorld {
    fn new(settings: &Arc<Settings>) -> EchoWorld {
        let mut it = Loop::new(settings, 0);
        let ids = (0..4).map(|_| it.open(None)).collect();
        let model = (0..4).map(|_| Naive::default()).collect();
        EchoWorld { it, ids, model, now: 0, stopped: false }
    }

    fn play(&mut self, who: usize, step: Step) {
        let EchoWorld { it, ids, model, now, stopped } = self;
        let (id, naive) = (ids[who], &mut model[who]);
        let open = it.conns.get(id).map(|conn| conn.io.reading);
        match step {
            Step::Receive(bytes) if open == Some(true) && !naive.ended => {
                it.receive(id, &bytes, None);
                if !it.closed.contains_key(&id) && !*stopped {
                    naive.input.extend(&bytes);
                    naive.heard = if bytes.contains(&b'\n') { *now } else { naive.heard };
                }
            }
            Step::End if open == Some(true) => {
                naive.ended = true;
                it.receive(id, &[], None);
            }
            Step::Reset if open.is_some() => {
                naive.reset = true;
                assert!(it.conns.close(id, "Connection reset", None).is_some());
            }
            Step::Dead => {
                if let Some(conn) = it.conns.get_mut(id) {
                    (naive.dead, conn.dead) = (true, true);
                    it.conns.touch(id);
                }
            }
            Step::Room(room) => self.set_room(id, room),
            Step::Pass(millis) => {
                *now += millis;
                it.now = Time::from_millis(*now);
            }
            Step::Stop if !*stopped => {
                *stopped = true;
                it.conns.stop(None, |peer| peer.unread);
            }
            _ => {}
        }
        self.it.turns(None);
    }

    fn set_room(&mut self, id: ConnId, room: usize) {
        if let Some(conn) = self.it.conns.get_mut(id) {
            conn.io.room = room;
            self.it.conns.touch(id);
        }
    }

    /// What holds after every step. `held`: replies may be held back (`--wait`).
    fn check(&self, high_water: usize, held: bool) {
        for (id, naive) in self.ids.iter().zip(&self.model) {
            let (output, lines) = (self.it.output(*id), naive.lines());
            assert!(lines.starts_with(&output), "a byte that was not sent in a line");
            let conn = self.it.conns.get(*id);
            if let Some(conn) = conn.filter(|_| !held) {
                assert_eq!(&output[..], lines, "a line that did not come back");
                let over = conn.outbox.len() > high_water;
                assert!(!(over && conn.io.reading), "read above the high-water mark");
            }
            assert!(
                conn.is_none_or(|conn| !conn.dead || conn.io.reading),
                "a dead connection is kept, and not read"
            );
            let served = output == lines && conn.is_none_or(|conn| conn.outbox.is_empty());
            match self.it.closed.get(id) {
                Some(&"Timed out") => {
                    let silent = self.now >= naive.heard + IDLE;
                    assert!(self.stopped || silent, "closed too early");
                }
                Some(&"Connection reset") => assert!(naive.dead, "closed though it lives"),
                Some(_) => {
                    assert!(naive.ended || self.stopped, "closed for no reason");
                    assert!(served && self.it.written[id] == lines, "closed too early");
                }
                None if naive.reset => {}
                None => assert!(!(naive.ended && served), "not closed at its end"),
            }
        }
    }

    /// In the end all that was held back has come, and all that are silent have gone.
    fn finish(&mut self) {
        for id in self.ids.clone() {
            self.set_room(id, usize::MAX);
        }
        self.it.now = Time::from_millis(self.now + WAIT);
        self.it.turns(None);
        for (id, naive) in self.ids.iter().zip(&self.model) {
            if self.it.conns.get(*id).is_some() {
                assert_eq!(&self.it.written[id][..], naive.lines());
            }
        }
        for seconds in 1..20 {
            self.it.now = Time::from_millis(self.now + seconds * IDLE);
            self.it.turns(None);
        }
        assert_eq!(self.it.conns.ids().count(), 0, "a silent connection was not closed");
        assert_eq!(self.it.conns.finished(), self.stopped);
    }
}

proptest! {
    /// Echo: each line comes back once and in order, held back for `--wait` and no longer; nothing
    /// is read above the mark; a connection ends when it must, and not before.
    #[test]
    fn echo_agrees_with_a_string(steps in echo_steps(), wait in prop::bool::ANY) {
        let wait = if wait { WAIT } else { 0 };
        let settings = settings(Mode::Echo, |settings| {
            settings.limits.sendq = 400;
            settings.limits.idle_timeout = Duration::from_millis(IDLE);
            settings.wait = Duration::from_millis(wait);
        });
        let mut world = EchoWorld::new(&settings);
        for (who, step) in steps {
            world.play(who, step);
            world.check(settings.limits.high_water(), wait > 0);
        }
        world.finish();
    }
}

#[derive(Clone, Debug)]
enum Say {
    /// These lines, the last of which may be unfinished.
    Lines(Vec<u8>),
    End,
    Reset,
    Turn,
}

fn chat_steps() -> impl Strategy<Value = Vec<(usize, Say)>> {
    let line = prop_oneof![
        Just("JOIN #a\r\n"),
        Just("JOIN #a,#b\r\n"),
        Just("PART #a\r\n"),
        Just("PRIVMSG #a :one\r\n"),
        Just("PRIVMSG #a,#b,m1 :two\n"),
        Just("NICK other\r\n"),
        Just("NAMES #a\r\n"),
        Just("TOPIC #a :t"),
        Just("\r\n"),
        Just("QUIT :bye\r\n"),
    ];
    let lines = prop::collection::vec(line, 1..5).prop_map(|lines| lines.concat().into_bytes());
    let step = prop_oneof![
        8 => lines.prop_map(Say::Lines),
        1 => Just(Say::End),
        1 => Just(Say::Reset),
        6 => Just(Say::Turn),
    ];
    prop::collection::vec((0..5_usize, step), 0..40)
}

/// Chat without sessions, queues and workers: a hub, whose mail is appended as it comes.
struct NaiveChat {
    hub: Hub,
    output: BTreeMap<ConnId, Vec<u8>>,
    /// The unfinished line of each.
    rest: BTreeMap<ConnId, Vec<u8>>,
}

impl NaiveChat {
    fn say(&mut self, id: ConnId, bytes: &[u8]) {
        let rest = self.rest.entry(id).or_default();
        rest.extend(bytes);
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let line = line.strip_suffix(b"\n").unwrap_or(&line);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            self.hub.line(id, Line::Whole(line), Time::ZERO);
        }
        self.fetch();
    }

    fn fetch(&mut self) {
        for worker in 0..2 {
            let mut mail = Vec::new();
            self.hub.take(worker, &mut mail);
            for Mail { to, parcel } in mail {
                if let Parcel::Text(bytes) | Parcel::Close(bytes) = parcel {
                    self.output.entry(to).or_default().extend(bytes.iter());
                }
            }
        }
    }
}

proptest! {
    /// Chat on two workers: each member gets what the hub says to it, once, in the hub's order,
    /// whatever the splits, the turns and the ends.
    #[test]
    fn chat_agrees_with_a_hub_alone(steps in chat_steps(), stop in prop::bool::ANY) {
        let settings = settings(Mode::Chat, |_| ());
        let mut hub = Hub::new(Arc::clone(&settings), 2);
        let mut naive = NaiveChat {
            hub: Hub::new(Arc::clone(&settings), 2),
            output: BTreeMap::new(),
            rest: BTreeMap::new(),
        };
        let mut loops = [Loop::new(&settings, 0), Loop::new(&settings, 1)];
        let mut ids = Vec::new();
        for who in 0..5 {
            let id = loops[who % 2].open(Some(&mut hub));
            naive.hub.open(id, "host", Time::ZERO);
            let hello = format!("NICK m{who}\r\nUSER u 0 * :u\r\n");
            loops[who % 2].receive(id, hello.as_bytes(), Some(&mut hub));
            naive.say(id, hello.as_bytes());
            ids.push(id);
        }
        for (who, step) in steps {
            let (it, id) = (&mut loops[who % 2], ids[who]);
            if it.conns.get(id).is_none() {
                continue;
            }
            match step {
                Say::Lines(bytes) => {
                    // Whole or byte by byte, by turns.
                    let piece = if bytes.len() % 2 == 0 { bytes.len() } else { 1 };
                    for piece in bytes.chunks(piece) {
                        it.receive(id, piece, Some(&mut hub));
                    }
                    naive.say(id, &bytes);
                }
                Say::End => {
                    it.receive(id, &[], Some(&mut hub));
                    naive.hub.line(id, Line::End, Time::ZERO);
                }
                Say::Reset => {
                    prop_assert!(it.conns.close(id, "Connection reset", Some(&mut hub)).is_some());
                    naive.hub.leave(id, "Connection reset");
                }
                Say::Turn => it.turns(Some(&mut hub)),
            }
            naive.fetch();
        }
        if stop {
            for it in &mut loops {
                it.conns.stop(Some(&mut hub), |_| false);
            }
            naive.hub.shut_down();
            naive.fetch();
        }
        for _ in 0..3 {
            for it in &mut loops {
                it.turns(Some(&mut hub));
            }
        }
        for (who, id) in ids.iter().enumerate() {
            let (it, expected) = (&loops[who % 2], naive.output.remove(id).unwrap_or_default());
            if it.conns.get(*id).is_some() {
                let (output, expected) = (it.output(*id), String::from_utf8_lossy(&expected));
                prop_assert_eq!(String::from_utf8_lossy(&output), expected);
            } else {
                prop_assert!(expected.starts_with(&it.written[id]), "not said by the hub");
            }
        }
    }
}

/// Registers `names` on one worker, each heard by all others in a channel.
fn members(it: &mut Loop, hub: &mut Hub, names: &[&str]) -> Vec<ConnId> {
    let mut ids = Vec::new();
    for name in names {
        let id = it.open(Some(hub));
        let hello = format!("NICK {name}\r\nUSER u 0 * :u\r\nJOIN #c\r\n");
        it.receive(id, hello.as_bytes(), Some(hub));
        ids.push(id);
    }
    it.turns(Some(hub));
    ids
}

#[test]
fn a_member_that_does_not_read_is_cut_and_the_rest_are_told() {
    let settings = settings(Mode::Chat, |settings| settings.limits.sendq = 8192);
    let mut hub = Hub::new(Arc::clone(&settings), 1);
    let mut it = Loop::new(&settings, 0);
    let ids = members(&mut it, &mut hub, &["slow", "quick", "loud"]);
    if let Some(conn) = it.conns.get_mut(ids[0]) {
        conn.io.room = 0;
    }
    let line = format!("PRIVMSG #c :{}\r\n", "x".repeat(400));
    for _ in 0..40 {
        it.receive(ids[2], line.as_bytes(), Some(&mut hub));
        it.turns(Some(&mut hub));
    }
    assert_eq!(it.done.slow_cut, 1);
    let heard = String::from_utf8(it.output(ids[1])).expect("text");
    assert_eq!(heard.matches(&"x".repeat(400)).count(), 40, "the reader gets everything");
    assert_eq!(heard.matches("QUIT :SendQ exceeded").count(), 1);
    let last = String::from_utf8(it.output(ids[0])).expect("text");
    assert!(last.ends_with("ERROR :Closing link: SendQ exceeded\r\n"), "{last}");
}

#[test]
fn deadlines_of_chat_ping_cut_and_close() {
    let settings = settings(Mode::Chat, |settings| {
        settings.limits.idle_timeout = Duration::from_secs(10);
        settings.limits.ping_timeout = Duration::from_secs(5);
        settings.limits.linger = Duration::from_secs(1);
    });
    let mut hub = Hub::new(Arc::clone(&settings), 1);
    let mut it = Loop::new(&settings, 0);
    let ids = members(&mut it, &mut hub, &["silent", "other"]);
    it.now = Time::from_millis(10_000);
    it.turns(Some(&mut hub));
    assert!(it.output(ids[0]).ends_with(b"PING :localhost\r\n"));
    it.receive(ids[1], b"PONG\r\n", Some(&mut hub));
    it.now = Time::from_millis(15_000);
    it.turns(Some(&mut hub));
    assert!(it.output(ids[0]).ends_with(b"Ping timeout\r\n"));
    assert!(it.output(ids[1]).ends_with(b"QUIT :Ping timeout\r\n"));
    assert_eq!(it.done.timed_out, 1);
    it.now = Time::from_millis(16_000);
    it.turns(Some(&mut hub));
    assert_eq!(it.closed.get(&ids[0]), Some(&"Timed out"));
}

#[test]
fn a_member_has_time_to_answer_a_ping_that_comes_late() {
    let settings = settings(Mode::Chat, |settings| {
        settings.limits.idle_timeout = Duration::from_secs(10);
        settings.limits.ping_timeout = Duration::from_secs(5);
    });
    let mut hub = Hub::new(Arc::clone(&settings), 1);
    let mut it = Loop::new(&settings, 0);
    let ids = members(&mut it, &mut hub, &["silent"]);
    it.now = Time::from_millis(100_000); // The server was stopped for so long.
    it.turns(Some(&mut hub));
    assert!(it.output(ids[0]).ends_with(b"PING :localhost\r\n"));
    it.now = Time::from_millis(104_999);
    it.receive(ids[0], b"PONG\r\n", Some(&mut hub));
    it.now = Time::from_millis(105_000);
    it.turns(Some(&mut hub));
    assert!(it.output(ids[0]).ends_with(b"PING :localhost\r\n"));
    assert_eq!(it.done.timed_out, 0);
}

#[test]
fn what_a_dead_connection_has_sent_is_read_before_it_is_closed() {
    let settings = settings(Mode::Echo, |settings| settings.limits.sendq = 400);
    let mut it = Loop::new(&settings, 0);
    let id = it.open(None);
    let conn = it.conns.get_mut(id).expect("it is open");
    (conn.dead, conn.io.room) = (true, 0);
    it.conns.touch(id);
    it.turns(None);
    it.receive(id, b"its last line\n", None);
    assert_eq!(it.done.lines, 1);
    assert!(it.conns.get(id).is_some(), "there may be more to read");
    it.receive(id, &[b'\n'; 400], None);
    assert_eq!(it.closed.get(&id), Some(&"Connection reset"), "its queue is full: it is not read");
}

#[test]
fn an_id_whose_slot_has_another_tenant_finds_nothing() {
    let settings = settings(Mode::Echo, |_| ());
    let mut it = Loop::new(&settings, 0);
    let first = it.open(None);
    assert!(it.conns.close(first, "", None).is_some());
    let second = it.open(None);
    assert_eq!(first.slot(), second.slot());
    it.receive(first, b"stale\n", None);
    it.conns.touch(first);
    it.turns(None);
    assert!(it.conns.close(first, "", None).is_none());
    assert_eq!(it.done.lines, 0);
    assert!(it.output(second).is_empty());
}

#[test]
fn a_touched_connection_comes_once_and_the_loop_does_not_sleep_before() {
    let settings = settings(Mode::Echo, |_| ());
    let mut it = Loop::new(&settings, 0);
    let id = it.open(None);
    for _ in 0..2 {
        it.conns.touch(id);
        it.conns.touch(id);
        assert!(it.conns.next_deadline() <= it.now);
        assert_eq!(it.conns.next_touched(), Some(id));
        assert_eq!(it.conns.next_touched(), None);
        assert!(it.conns.next_deadline() > it.now);
    }
}

#[test]
fn a_server_that_stops_is_finished_when_its_last_connection_is_closed() {
    let settings = settings(Mode::Echo, |_| ());
    let mut it = Loop::new(&settings, 0);
    let id = it.open(None);
    it.conns.stop(None, |_| true);
    it.turns(None);
    assert!(it.conns.is_stopping() && !it.conns.finished());
    it.conns.stop(None, |_| panic!("only the first call counts"));
    it.receive(id, b"", None);
    assert!(it.conns.finished());
}

#[test]
fn a_turn_comes_at_once_for_mail_of_which_no_wake_up_tells() {
    let settings = settings(Mode::Chat, |_| ());
    let mut hub = Hub::new(Arc::clone(&settings), 1);
    let mut it = Loop::new(&settings, 0);
    members(&mut it, &mut hub, &["ann", "bob"]);
    assert!(it.conns.next_deadline() > it.now, "nothing is left to do");

    let _ = it.conns.expire(it.now, Some(&mut hub), |_| false);
    assert!(it.conns.next_deadline() <= it.now, "`expire` has not fetched the mail");
    it.turns(Some(&mut hub));
    it.conns.stop(Some(&mut hub), |_| false);
    assert!(it.conns.next_deadline() <= it.now, "there are last words");
    it.turns(Some(&mut hub));
    it.open(Some(&mut hub));
    assert!(it.conns.next_deadline() <= it.now, "a newcomer gets last words too");
}

#[test]
fn a_turn_comes_at_once_to_cut_a_member_whose_queue_is_full() {
    let settings = settings(Mode::Chat, |settings| settings.limits.sendq = 8192);
    let mut hub = Hub::new(Arc::clone(&settings), 1);
    let mut it = Loop::new(&settings, 0);
    let ids = members(&mut it, &mut hub, &["slow", "loud"]);
    if let Some(conn) = it.conns.get_mut(ids[0]) {
        conn.io.room = 0;
    }
    let line = format!("PRIVMSG #c :{}\r\n", "x".repeat(400));
    while it.conns.full.is_empty() {
        it.receive(ids[1], line.as_bytes(), Some(&mut hub));
        let _ = it.conns.turn(it.now, Some(&mut hub));
        it.conns.deliver(it.now);
        while it.conns.next_touched().is_some() {}
    }
    assert!(it.conns.next_deadline() <= it.now);
}

#[test]
fn a_worker_is_woken_for_mail_and_only_then() {
    let settings = settings(Mode::Chat, |_| ());
    let mut hub = Hub::new(Arc::clone(&settings), 2);
    let mut here = Loop::new(&settings, 0);
    let mut there = Loop::new(&settings, 1);
    let speaker = members(&mut here, &mut hub, &["here"])[0];
    members(&mut there, &mut hub, &["there"]);
    here.turns(Some(&mut hub));

    here.receive(speaker, b"PRIVMSG #c :hello\r\n", Some(&mut hub));
    let _ = here.conns.turn(here.now, Some(&mut hub));
    assert_eq!(here.conns.next_wake(), Some(1));
    assert_eq!(here.conns.next_wake(), None);
    here.conns.deliver(here.now);

    here.receive(speaker, b"PING x\r\n", Some(&mut hub));
    let _ = here.conns.turn(here.now, Some(&mut hub));
    assert_eq!(here.conns.next_wake(), None);
}

#[test]
fn a_close_leaves_mail_for_a_turn_at_once() {
    let settings = settings(Mode::Chat, |_| ());
    let mut hub = Hub::new(Arc::clone(&settings), 1);
    let mut it = Loop::new(&settings, 0);
    let ids = members(&mut it, &mut hub, &["goes", "stays"]);
    assert!(it.conns.next_deadline() > it.now, "nothing is left to do");
    assert!(it.conns.close(ids[0], "Connection reset", Some(&mut hub)).is_some());
    assert!(it.conns.next_deadline() <= it.now, "the others are told in a turn at once");
    it.turns(Some(&mut hub));
    assert!(it.output(ids[1]).ends_with(b"QUIT :Connection reset\r\n"));
}

#[test]
fn a_member_that_stays_over_the_soft_limit_is_cut_after_the_grace_time() {
    let settings = settings(Mode::Chat, |settings| {
        settings.limits.sendq = 8192;
        settings.limits.sendq_grace = Duration::from_secs(2);
    });
    let mut hub = Hub::new(Arc::clone(&settings), 1);
    let mut it = Loop::new(&settings, 0);
    let ids = members(&mut it, &mut hub, &["slow", "loud"]);
    if let Some(conn) = it.conns.get_mut(ids[0]) {
        conn.io.room = 0;
    }
    let line = format!("PRIVMSG #c :{}\r\n", "x".repeat(400));
    for _ in 0..6 {
        it.receive(ids[1], line.as_bytes(), Some(&mut hub));
        it.turns(Some(&mut hub));
    }
    assert_eq!(it.conns.next_deadline(), Time::from_millis(2000));
    it.now = Time::from_millis(2000);
    it.turns(Some(&mut hub));
    assert_eq!(it.done.slow_cut, 1);
}

#[test]
fn all_connections_have_their_ids_listed_and_the_touched_are_looked_at() {
    let settings = settings(Mode::Echo, |_| ());
    let mut it = Loop::new(&settings, 0);
    let ids: Vec<_> = (0..3).map(|_| it.open(None)).collect();
    assert!(it.conns.close(ids[1], "", None).is_some());
    assert_eq!(it.conns.ids().collect::<Vec<_>>(), [ids[0], ids[2]]);
    assert!(!it.conns.is_stopping());

    it.conns.get_mut(ids[2]).expect("it is open").io.unread = true;
    assert!(!it.conns.any_touched(|_| true), "none is touched");
    it.conns.touch(ids[0]);
    assert!(it.conns.any_touched(|conn| !conn.io.unread));
    assert!(!it.conns.any_touched(|conn| conn.io.unread));
    it.conns.touch(ids[2]);
    assert!(it.conns.any_touched(|conn| conn.io.unread));
}

#[test]
fn what_deadlines_bring_is_counted() {
    let settings = settings(Mode::Echo, |settings| {
        settings.wait = Duration::from_millis(WAIT);
        settings.limits.idle_timeout = Duration::from_millis(IDLE);
    });
    let mut it = Loop::new(&settings, 0);
    for _ in 0..3 {
        let id = it.open(None);
        it.receive(id, b"one\ntwo\n", None);
    }
    assert_eq!(it.done, Done::default(), "they wait");
    it.now = Time::from_millis(WAIT);
    it.turns(None);
    assert_eq!(it.done, Done { lines: 6, ..Done::default() });
    it.now = Time::from_millis(WAIT + IDLE);
    it.turns(None);
    assert_eq!(it.done, Done { lines: 6, timed_out: 3, ..Done::default() });
}

/// What every idle connection costs, whatever the model. A server of 100,000 of them pays for each
/// byte here with 100 kB.
#[test]
#[cfg(target_pointer_width = "64")]
fn a_connection_takes_few_bytes() {
    assert_eq!((size_of::<Session>(), size_of::<Outbox>()), (168, 96));
    assert_eq!(size_of::<Connection<()>>(), 272);
}
