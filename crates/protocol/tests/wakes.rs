//! Threads that share a hub or a room wake each other, in the orders that they can come in.
//!
//! loom runs each of these tests once for every order in which its threads can take the locks, up
//! to a number of changes from one thread to another in the middle of its work. If a thread waits
//! and no other can wake it, loom calls that a deadlock: so a lost wake-up fails. The hub, the
//! connections and the sessions are the real ones. Sockets take and give everything at once, and
//! time stands still.

use loom::model::Builder;
use loom::sync::{Arc, Condvar, Mutex, MutexGuard};
use loom::thread;
use protocol::{
    ConnId, Connections, Due, Hub, Input, Limits, Mode, Next, Outbox, Room, Session, Settings, Time,
};

const NOW: Time = Time::from_nanos(1_000_000_000);

/// Changes from one thread to another that loom makes where the thread could have gone on.
const CHANGES: usize = 4;

/// What wakes a thread, as an eventfd or the waker of a task does: a wake-up counts also when the
/// thread does not wait yet.
#[derive(Default)]
struct Waker {
    woken: Mutex<bool>,
    used: Condvar,
}

impl Waker {
    fn wake(&self) {
        *lock(&self.woken) = true;
        self.used.notify_one();
    }

    fn wait(&self) {
        let mut woken = lock(&self.woken);
        while !*woken {
            woken = self.used.wait(woken).expect("no thread panics");
        }
        *woken = false;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panics")
}

/// A chat with a send queue so small that the fifth message to a member that has not taken any
/// makes those who speak wait.
fn settings() -> std::sync::Arc<Settings> {
    let limits = Limits { sendq: 8192, flood_control: false, ..Limits::default() };
    std::sync::Arc::new(Settings { mode: Mode::Chat, limits, ..Settings::default() })
}

fn explore(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(CHANGES);
    builder.max_branches = 10_000;
    builder.check(model);
}

fn join(nick: usize) -> Vec<u8> {
    format!("NICK n{nick}\r\nUSER u 0 * :u\r\nJOIN #c\r\n").into_bytes()
}

/// So many lines for the channel.
fn talk(lines: usize) -> Vec<u8> {
    let line = format!("PRIVMSG #c :{}\r\n", "x".repeat(400));
    line.repeat(lines).into_bytes()
}

/// How many lines of the channel's talk there are in what a member was sent.
fn heard(sent: &[u8]) -> usize {
    let is_talk = |line: &&[u8]| line.windows(11).any(|part| part == b"PRIVMSG #c ");
    sent.split(|&byte| byte == b'\n').filter(is_talk).count()
}

/// Takes all that is queued, as a socket does whose peer reads at once.
fn take(outbox: &mut Outbox) -> Vec<u8> {
    let sent: Vec<u8> = outbox.slices().flatten().copied().collect();
    outbox.advance(sent.len());
    sent
}

/// What a member says in a test, and how much of the others' talk it is to be sent.
#[derive(Clone, Copy)]
struct Part {
    says: usize,
    hears: usize,
    /// It speaks only once its thread has been woken, and before that has fetched the mail: as when
    /// an event loop hears of both at once.
    answers: bool,
}

const fn part(says: usize, hears: usize) -> Part {
    Part { says, hears, answers: false }
}

/// One says more than there is room for, while the other's thread may not have come to it.
const ONE_SAYS_MUCH: [Part; 2] = [part(7, 0), part(0, 7)];
/// Both speak at once.
const BOTH_SPEAK: [Part; 2] = [part(2, 2), part(2, 2)];
/// Both say more than there is room for.
const BOTH_SAY_MUCH: [Part; 2] = [part(6, 6), part(6, 6)];
/// One has said so much that the other finds no room to speak before it has taken that itself.
const ONE_ANSWERS: [Part; 2] = [part(5, 1), Part { answers: true, ..part(1, 5) }];

/// Event loops: each has its own connections, here one, and they share the hub.
mod loops {
    use super::*;

    struct Shared {
        hub: Mutex<Hub>,
        wakers: [Waker; 2],
    }

    struct Worker {
        index: usize,
        conns: Connections<()>,
        id: ConnId,
        /// Lines of its member that were handled.
        handled: u64,
        /// Lines of talk that its member was sent.
        heard: usize,
    }

    impl Worker {
        fn new(shared: &Shared, settings: &std::sync::Arc<Settings>, index: usize) -> Worker {
            let mut conns = Connections::new(settings, index);
            let id = conns.open((), "127.0.0.1", NOW, Some(&mut *lock(&shared.hub)));
            Worker { index, conns, id, handled: 0, heard: 0 }
        }

        fn receive(&mut self, shared: &Shared, bytes: &[u8]) {
            let mut hub = lock(&shared.hub);
            self.handled += self.conns.received(self.id, bytes, NOW, Some(&mut *hub)).lines;
            drop(hub);
            self.conns.touch(self.id);
        }

        /// The end of a turn, as the servers' loops have it.
        fn end_turn(&mut self, shared: &Shared) {
            self.handled += self.conns.turn(NOW, Some(&mut *lock(&shared.hub))).lines;
            while let Some(worker) = self.conns.next_wake() {
                shared.wakers[worker].wake();
            }
            self.conns.deliver(NOW);
            while let Some(id) = self.conns.next_touched() {
                let conn = self.conns.get_mut(id).expect("no connection ends here");
                self.heard += heard(&take(&mut conn.outbox));
                let settled = self.conns.settle(id, NOW);
                assert!(matches!(settled, Some((Next::Serve { .. }, _))), "it goes on");
            }
        }

        fn run(mut self, shared: &Shared, part: Part) {
            if part.answers {
                shared.wakers[self.index].wait();
            }
            if part.says > 0 {
                self.receive(shared, &talk(part.says));
            }
            while self.handled < part.says as u64 || self.heard < part.hears {
                if self.conns.next_deadline() > NOW {
                    shared.wakers[self.index].wait();
                }
                self.end_turn(shared);
            }
            assert_eq!(self.heard, part.hears, "each line once");
        }
    }

    fn run(parts: [Part; 2]) {
        explore(move || {
            let settings = settings();
            let hub = Mutex::new(Hub::new(std::sync::Arc::clone(&settings), 2));
            let shared = Arc::new(Shared { hub, wakers: Default::default() });
            let mut workers = [0, 1].map(|index| Worker::new(&shared, &settings, index));
            for worker in &mut workers {
                worker.receive(&shared, &join(worker.index));
                worker.end_turn(&shared);
            }
            workers[0].end_turn(&shared); // It is told that the other has joined.
            for worker in &mut workers {
                worker.handled = 0;
            }
            let [first, second] = workers;
            let other = Arc::clone(&shared);
            let thread = thread::spawn(move || second.run(&other, parts[1]));
            first.run(&shared, parts[0]);
            thread.join().expect("it does not panic");
        });
    }

    #[test]
    fn one_says_much() {
        run(ONE_SAYS_MUCH);
    }

    #[test]
    fn both_speak() {
        run(BOTH_SPEAK);
    }

    #[test]
    fn both_say_much() {
        run(BOTH_SAY_MUCH);
    }

    #[test]
    fn one_answers() {
        run(ONE_ANSWERS);
    }
}

/// Tasks: each has one connection, and they share the room.
mod tasks {
    use super::*;

    /// A task is woken by its number.
    struct Shared {
        room: Mutex<Room<usize>>,
        wakers: [Waker; 2],
    }

    struct Task {
        index: usize,
        id: ConnId,
        session: Session,
        outbox: Outbox,
        handled: u64,
        heard: usize,
    }

    impl Task {
        fn new(shared: &Shared, settings: &std::sync::Arc<Settings>, index: usize) -> Task {
            let id = lock(&shared.room).open("127.0.0.1", NOW, index);
            let session = Session::new(settings, NOW);
            Task { index, id, session, outbox: Outbox::default(), handled: 0, heard: 0 }
        }

        /// A visit to the room, and what it leads to. Without `input` it brings the mail.
        fn visit(&mut self, shared: &Shared, input: Option<Input<'_>>) {
            let mut room = lock(&shared.room);
            if let Some(input) = input {
                self.handled += room.chat(self.id, &mut self.session, input, NOW, &self.outbox);
            }
            let exchange = room.exchange(self.id, &mut self.session, &mut self.outbox, NOW);
            drop(room);
            assert!(!exchange.slow_cut, "it takes everything at once");
            for task in exchange.to_wake {
                shared.wakers[task].wake();
            }
            self.heard += heard(&take(&mut self.outbox));
            let next = self.session.next(NOW, &self.outbox);
            assert!(matches!(next, Next::Serve { .. }), "it goes on");
        }

        fn run(mut self, shared: &Shared, part: Part) {
            if part.answers {
                shared.wakers[self.index].wait();
            }
            if part.says > 0 {
                self.visit(shared, Some(Input::Received(&talk(part.says))));
            }
            while self.handled < part.says as u64 || self.heard < part.hears {
                if self.session.deadline(&self.outbox) <= NOW {
                    let due = self.session.expire(NOW, &self.outbox);
                    assert_eq!(due, Due::Resume, "nothing else is due");
                    self.visit(shared, Some(Input::Resume));
                    continue;
                }
                shared.wakers[self.index].wait();
                self.visit(shared, None);
            }
            assert_eq!(self.heard, part.hears, "each line once");
        }
    }

    fn run(parts: [Part; 2]) {
        explore(move || {
            let settings = settings();
            let room = Mutex::new(Room::new(&settings));
            let shared = Arc::new(Shared { room, wakers: Default::default() });
            let mut tasks = [0, 1].map(|index| Task::new(&shared, &settings, index));
            for task in &mut tasks {
                task.visit(&shared, Some(Input::Received(&join(task.index))));
            }
            tasks[0].visit(&shared, None); // It is told that the other has joined.
            for task in &mut tasks {
                task.handled = 0;
            }
            let [first, second] = tasks;
            let other = Arc::clone(&shared);
            let thread = thread::spawn(move || second.run(&other, parts[1]));
            first.run(&shared, parts[0]);
            thread.join().expect("it does not panic");
        });
    }

    #[test]
    fn one_says_much() {
        run(ONE_SAYS_MUCH);
    }

    #[test]
    fn both_speak() {
        run(BOTH_SPEAK);
    }

    #[test]
    fn both_say_much() {
        run(BOTH_SAY_MUCH);
    }

    #[test]
    fn one_answers() {
        run(ONE_ANSWERS);
    }
}
