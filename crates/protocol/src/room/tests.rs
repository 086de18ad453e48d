//! Tasks that share a room, against a hub alone: random orders of lines, ends, visits and a stop.

use proptest::prelude::*;

use super::*;
use crate::{Due, Line, Next, Parcel};

/// The tasks of a server, without sockets. Each is woken by its index.
struct Tasks {
    room: Room<usize>,
    tasks: Vec<Task>,
}

struct Task {
    id: ConnId,
    session: Session,
    outbox: Outbox,
    /// What has been written to the socket.
    written: Vec<u8>,
    gone: bool,
}

impl Tasks {
    fn new(settings: &Arc<Settings>, count: usize) -> Tasks {
        let mut room = Room::new(settings);
        let open = |index| Task {
            id: room.open("host", Time::ZERO, index),
            session: Session::new(settings, Time::ZERO),
            outbox: Outbox::default(),
            written: Vec::new(),
            gone: false,
        };
        let tasks = (0..count).map(open).collect();
        Tasks { room, tasks }
    }

    /// As a task visits the room. Without `input` it only hears.
    fn visit(&mut self, who: usize, input: Option<Input<'_>>) -> Exchange<usize> {
        let Task { id, session, outbox, .. } = &mut self.tasks[who];
        if let Some(input) = input {
            self.room.chat(*id, session, input, Time::ZERO, outbox);
        }
        self.room.exchange(*id, session, outbox, Time::ZERO)
    }

    /// The socket takes all that is queued.
    fn write(&mut self, who: usize) {
        let Task { outbox, written, .. } = &mut self.tasks[who];
        written.extend(outbox.slices().flatten());
        outbox.advance(outbox.len());
    }

    /// Says lines, of which the task is the only one to be heard, and returns whom to wake.
    fn say(&mut self, who: usize, lines: &str) -> Vec<usize> {
        let exchange = self.visit(who, Some(Input::Received(lines.as_bytes())));
        self.write(who);
        exchange.to_wake
    }

    /// Hears what is in the inbox, and returns whom to wake.
    fn hear(&mut self, who: usize) -> Vec<usize> {
        let exchange = self.visit(who, None);
        self.write(who);
        exchange.to_wake
    }

    fn next(&mut self, who: usize) -> Next {
        let Task { session, outbox, .. } = &mut self.tasks[who];
        session.next(Time::ZERO, outbox)
    }

    fn text(&self, who: usize) -> String {
        String::from_utf8_lossy(&self.tasks[who].written).into_owned()
    }
}

fn settings(mode: Mode, change: impl FnOnce(&mut Settings)) -> Arc<Settings> {
    let mut settings = Settings { mode, ..Settings::default() };
    settings.limits.flood_control = false;
    change(&mut settings);
    Arc::new(settings)
}

/// Tasks whose members share the channel `#c` and have heard everything.
fn members(settings: &Arc<Settings>, names: &[&str]) -> Tasks {
    let mut tasks = Tasks::new(settings, names.len());
    for (who, name) in names.iter().enumerate() {
        let _ = tasks.say(who, &format!("NICK {name}\r\nUSER u 0 * :u\r\nJOIN #c\r\n"));
    }
    for who in 0..names.len() {
        assert_eq!(tasks.hear(who), [0; 0], "there is nothing to tell");
    }
    tasks
}

/// The hub alone, and for each task what it is to hear and whether it has been woken.
struct Naive {
    hub: Hub,
    ids: Vec<ConnId>,
    output: Vec<Vec<u8>>,
    /// Something has come since it last looked.
    woken: Vec<bool>,
}

impl Naive {
    fn new(settings: &Arc<Settings>, ids: Vec<ConnId>) -> Naive {
        let mut hub = Hub::new(Arc::clone(settings), 1);
        for &id in &ids {
            hub.open(id, "host", Time::ZERO);
        }
        let count = ids.len();
        Naive { hub, ids, output: vec![Vec::new(); count], woken: vec![false; count] }
    }

    fn say(&mut self, who: usize, lines: &str) {
        for line in lines.lines() {
            self.hub.line(self.ids[who], Line::Whole(line.as_bytes()), Time::ZERO);
        }
    }

    /// Takes note of all that the hub has said. Returns who is to be woken for it.
    fn fetch(&mut self, own: Option<usize>) -> Vec<usize> {
        let (mut mail, mut wake) = (Vec::new(), Vec::new());
        self.hub.take(0, &mut mail);
        for Mail { to, parcel } in mail {
            let Some(to) = self.ids.iter().position(|id| *id == to) else { continue };
            if own != Some(to) && !self.woken[to] {
                self.woken[to] = true;
                wake.push(to);
            }
            if let Parcel::Text(bytes) | Parcel::Close(bytes) = parcel {
                self.output[to].extend(bytes.iter());
            }
        }
        if let Some(own) = own {
            self.woken[own] = false;
        }
        wake
    }
}

#[derive(Clone, Debug)]
enum Act {
    Say(String),
    Hear,
    End,
    Reset,
}

fn acts() -> impl Strategy<Value = Vec<(usize, Act)>> {
    let line = prop_oneof![
        Just("JOIN #a\r\n"),
        Just("JOIN #a,#b\r\n"),
        Just("PART #a\r\n"),
        Just("PRIVMSG #a :one\r\n"),
        Just("PRIVMSG #a,#b,m1 :two\r\n"),
        Just("NICK other\r\n"),
        Just("NAMES #a\r\n"),
        Just("QUIT :bye\r\n"),
    ];
    let lines = prop::collection::vec(line, 1..5).prop_map(|lines| lines.concat());
    let act = prop_oneof![
        8 => lines.prop_map(Act::Say),
        6 => Just(Act::Hear),
        1 => Just(Act::End),
        1 => Just(Act::Reset),
    ];
    prop::collection::vec((0..5_usize, act), 0..60)
}

proptest! {
    /// Each member gets what the hub says to it, once and in the hub's order, and a task is woken
    /// when something comes for a member that has nothing waiting, and only then.
    #[test]
    fn tasks_agree_with_a_hub_alone(acts in acts(), stop in prop::bool::ANY) {
        let settings = settings(Mode::Chat, |_| ());
        let mut tasks = Tasks::new(&settings, 5);
        let mut naive = Naive::new(&settings, tasks.tasks.iter().map(|task| task.id).collect());
        let hello = |who| (who, Act::Say(format!("NICK m{who}\r\nUSER u 0 * :u\r\n")));
        for (who, act) in (0..5).map(hello).chain(acts) {
            if tasks.tasks[who].gone {
                continue;
            }
            let wake = match act {
                Act::Say(lines) => {
                    naive.say(who, &lines);
                    tasks.say(who, &lines)
                }
                Act::Hear => tasks.hear(who),
                Act::End => {
                    naive.hub.line(naive.ids[who], Line::End, Time::ZERO);
                    tasks.say(who, "")
                }
                Act::Reset => {
                    tasks.tasks[who].gone = true;
                    naive.hub.leave(naive.ids[who], "Connection reset");
                    let wake = tasks.room.leave(naive.ids[who], "Connection reset");
                    naive.ids[who] = ConnId::from_bits(u64::MAX);
                    prop_assert_eq!(wake, naive.fetch(None));
                    continue;
                }
            };
            prop_assert_eq!(wake, naive.fetch(Some(who)));
        }

        if stop {
            naive.hub.shut_down();
            prop_assert_eq!(tasks.room.shut_down(), naive.fetch(None));
        }
        for who in 0..5 {
            if !tasks.tasks[who].gone {
                prop_assert_eq!(tasks.hear(who), [0; 0]);
                let expected = String::from_utf8_lossy(&naive.output[who]).into_owned();
                prop_assert_eq!(tasks.text(who), expected);
            }
        }
    }
}

#[test]
fn speakers_wait_for_a_task_that_does_not_come_to_its_inbox() {
    let settings = settings(Mode::Chat, |settings| settings.limits.sendq = 8192);
    let mut tasks = members(&settings, &["late", "loud"]);
    let line = |number| format!("PRIVMSG #c :{number} {}\r\n", "x".repeat(400));
    assert_eq!(tasks.say(1, &line(0)), [0], "the first wakes the task");
    let mut said = 1;
    while tasks.next(1) == (Next::Serve { read: true }) {
        assert_eq!(tasks.say(1, &line(said)), [0; 0], "it is awake already");
        said += 1;
        assert!(said < 20, "the speaker does not wait");
    }

    // The last line is held.
    assert_eq!(tasks.hear(0), [1], "the speaker hears that there is room again");
    assert_eq!(tasks.text(0).matches(&"x".repeat(400)).count(), said - 1);
    assert_eq!(tasks.hear(1), [0; 0]);
    let Task { session, outbox, .. } = &mut tasks.tasks[1];
    assert_eq!(session.expire(Time::ZERO, outbox), Due::Resume);
    assert_eq!(tasks.visit(1, Some(Input::Resume)).to_wake, [0]);
    let _ = tasks.hear(0);
    assert_eq!(tasks.text(0).matches(&"x".repeat(400)).count(), said);
    assert_eq!(tasks.next(1), Next::Serve { read: true });
}

#[test]
fn a_member_that_does_not_read_is_cut_and_hears_why() {
    let settings = settings(Mode::Chat, |settings| settings.limits.sendq = 8192);
    let mut tasks = members(&settings, &["slow", "quick", "loud"]);
    let line = format!("PRIVMSG #c :{}\r\n", "x".repeat(400));
    for _ in 0..100 {
        assert_eq!(tasks.say(2, &line), [0, 1]);
        let _ = tasks.hear(1);
        let heard = tasks.visit(0, None); // Nothing of it is written.
        if heard.slow_cut {
            assert_eq!(heard.to_wake, [1, 2, 0], "the others hear it, and it hears its last words");
            assert!(!tasks.visit(0, None).slow_cut, "told once");
            tasks.write(0);
            assert!(tasks.text(0).ends_with("ERROR :Closing link: SendQ exceeded\r\n"));
            let _ = tasks.hear(1);
            assert!(tasks.text(1).ends_with("QUIT :SendQ exceeded\r\n"));
            return;
        }
    }
    panic!("it was not cut");
}

#[test]
fn a_cut_and_a_ping_reach_the_member_that_asks_for_them() {
    let mut tasks = members(&settings(Mode::Chat, |_| ()), &["silent", "other"]);
    let id = tasks.tasks[0].id;
    tasks.room.ping(id);
    assert_eq!(tasks.hear(0), [0; 0], "its own task is awake");
    assert!(tasks.text(0).ends_with("PING :localhost\r\n"));
    tasks.room.cut(id, "Ping timeout");
    assert_eq!(tasks.hear(0), [1]);
    assert!(tasks.text(0).ends_with("Ping timeout\r\n"));
}

#[test]
fn a_stop_of_echo_wakes_every_task_and_an_end_wakes_none() {
    let mut tasks = Tasks::new(&settings(Mode::Echo, |_| ()), 3);
    let second = tasks.tasks[1].id;
    assert_eq!(tasks.room.leave(second, "Connection closed"), [0; 0]);
    assert_eq!(tasks.room.shut_down(), [0, 2]);
}

#[test]
fn an_id_whose_connection_is_gone_finds_nothing() {
    let mut tasks = members(&settings(Mode::Chat, |_| ()), &["gone", "stays"]);
    let id = tasks.tasks[0].id;
    assert_eq!(tasks.room.leave(id, "Connection reset"), [1]);
    let _ = tasks.hear(1);
    let heard = tasks.text(1);
    tasks.room.cut(id, "again");
    assert_eq!(tasks.say(0, "PRIVMSG #c :still here\r\n"), [0; 0]);
    assert_eq!(tasks.room.leave(id, "again"), [0; 0]);
    assert_eq!(tasks.hear(1), [0; 0]);
    assert_eq!(tasks.text(1), heard);
}
