//! Coroutines: each connection has a stack of its own and yields where a thread would block.
//!
//! **Who waits where:** each coroutine in [`Conn::wait`], for its socket, its deadline and other
//! coroutines; underneath, each of may's workers for all of its sockets, in an unseen `epoll_wait`.
//! **What wakes it:** the socket (edge-triggered, registered once); for the rest, what has it calls
//! the coroutine's waker: another coroutine with mail, the main thread for deadlines, or the stop.
//!
//! [`Conn::run`] is the whole life of a connection, one call after another, as in `serve-threads`.
//! Any function may wait: what an async task keeps in a state machine is the stack here. It is
//! small, so there is no deep recursion and no buffer on it. The next coroutine sees the same
//! thread-locals and may need the same std lock, so neither is kept across a wait.
//!
//! A thread in `recv` cannot be woken, so that in chat a member takes two of them. A coroutine that
//! waits can be woken, and one is enough. It fetches the messages for its member from [`Room`].
//!
//! What to do next is `protocol`'s to say ([`Step`]). Here is how this model does it, and waits.
//! `waker.rs` has what wakes a coroutine, and how one lets others run.
//!
//! Run: `cargo run --release -p serve-may -- --workers 2 --mode chat`
//! Read first: `examples/bare.rs`, this model without all that a server needs.
//! Read next: `serve-threads`, where the kernel switches the stacks, and `serve-smol`, whose tasks
//! have none.

mod waker;

use std::cell::RefCell;
use std::io::ErrorKind;
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use launch::{Counter, Counters, Failure, IoSlices, Launch, Place, READ_SIZE};
use may::coroutine;
use may::io::{CoIo, WaitIo};
use protocol::{ConnId, Deadlines, Done, Input, Mode, Outbox, Room, Session, Slots, Step, Time};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send, sendmsg};

use crate::waker::{Waker, yield_for};

/// A coroutine's stack. Most of it is never touched, and so is only address space.
const STACK: usize = 64 << 10;
/// Stacks kept for those to come.
const SPARE_STACKS: usize = 64;
/// Linux lets a process have 65,530 mappings. A stack takes two, and may panics if it gets none.
const MOST_COROUTINES: usize = 65_530 / 5 * 2;
/// Reads, or accepted connections, before other coroutines run.
const MOST_READS: u32 = 16;
/// The same for a member of the chat, each of whose lines can become a message to every other.
const MOST_CHAT_READS: u32 = 4;
/// How long to leave a listener alone when the process has run out of descriptors.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);

thread_local! {
    /// Used only between two waits, in a function that waits for nothing and is never inlined.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Why a connection ends, for those who shared a channel with the member.
type Reason = &'static str;
/// What the members of the chat share.
type ChatRoom = Room<Arc<Waker>>;

fn main() -> ExitCode {
    launch::main(env!("CARGO_PKG_NAME"), "Echo or chat: a coroutine for each connection", serve)
}

fn serve(launch: &'static Launch) -> Result<(), Failure> {
    let config = may::config();
    config.set_workers(launch.workers).set_stack_size(STACK / size_of::<usize>());
    config.set_pool_capacity(SPARE_STACKS).set_worker_pin(false);

    let mut listeners = Vec::new();
    for listener in launch.listeners()? {
        listeners.push(CoIo::new(listener).map_err(Failure::of("listener"))?);
    }
    let chat = launch.settings.mode == Mode::Chat;
    let room = chat.then(|| Mutex::new(Room::new(&launch.settings)));
    let conns =
        Conns { wakers: Slots::new(0), deadlines: Deadlines::default(), alarm_at: Time::NEVER };
    let (conns, alarm) = (Mutex::new(conns), Condvar::new());
    let shared: &'static Shared =
        Box::leak(Box::new(Shared { launch, listeners, room, conns, alarm }));

    for listener in &shared.listeners {
        spawn(move || shared.accept(listener));
    }
    launch.on_stop(|| shared.stop())?;
    if launch.workers > 1 {
        launch.log.warn("may 0.3.51 has a race between workers: see README.md, or use one");
    }
    launch.warn_beyond(MOST_COROUTINES, "a stack takes two of the memory mappings of a process");
    launch.announce();
    shared.mind_deadlines();
    Ok(())
}

/// What all coroutines share. No lock is held across a call that can wait.
struct Shared {
    launch: &'static Launch,
    listeners: Vec<CoIo<TcpListener>>,
    /// In chat only.
    room: Option<Mutex<ChatRoom>>,
    /// Locked when a connection comes and when it goes, and when its deadline comes nearer.
    conns: Mutex<Conns>,
    /// For the main thread: a coroutine must not wait on a std `Condvar`.
    alarm: Condvar,
}

/// All connections, and when each is to be woken.
struct Conns {
    wakers: Slots<Arc<Waker>>,
    deadlines: Deadlines,
    /// When the main thread looks at them next.
    alarm_at: Time,
}

/// One connection, owned by its coroutine.
struct Conn {
    shared: &'static Shared,
    counters: &'static Counters,
    id: ConnId,
    /// In chat only.
    member: Option<ConnId>,
    waker: Arc<Waker>,
    session: Session,
    outbox: Outbox,
    /// When the last call returned that may have taken time.
    now: Time,
    /// When it will be woken. A line that moves the deadline later costs one comparison.
    alarm_at: Time,
    /// What epoll has said and no call that would block has taken back.
    ready: EventFlags,
    place: Place,
    socket: CoIo<TcpStream>,
}

impl Shared {
    fn accept(&'static self, listener: &CoIo<TcpListener>) {
        let (launch, counters) = (self.launch, self.launch.counters(0));
        let mut turns = 0_u32;
        while !launch.stop.requested() {
            let full = lock(&self.conns).wakers.len() >= MOST_COROUTINES;
            let accepted = if full { Err(Errno::NOMEM.into()) } else { listener.inner().accept() };
            match accepted {
                Ok((socket, peer)) => self.admit(socket, peer.ip(), counters),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    counters.would_blocks.add(1);
                    listener.wait_io();
                    counters.wakeups.add(1);
                }
                Err(error) if launch::is_shortage(&error) => {
                    counters.shortages.add(1);
                    yield_for(SHORTAGE_PAUSE);
                }
                Err(_) => counters.accept_errors.add(1),
            }
            turns += 1;
            if turns.is_multiple_of(MOST_READS) {
                yield_for(Duration::ZERO); // Lets other coroutines run.
            }
        }
    }

    fn admit(&'static self, socket: TcpStream, peer: IpAddr, counters: &Counters) {
        let launch = self.launch;
        let Some(place) = launch.admit(&socket, peer, counters) else { return };
        let host = place.peer().to_string();
        let now = launch.now();
        let Ok(socket) = CoIo::new(socket) else {
            counters.accept_errors.add(1);
            return;
        };
        // Notified at first: the server may be stopping already.
        let waker = Arc::new(Waker { waker: socket.waker(), notified: AtomicBool::new(true) });
        let id = lock(&self.conns).wakers.insert(Arc::clone(&waker)).0;
        let room = self.room.as_ref().map(lock);
        let member = room.map(|mut room| room.open(&host, now, Arc::clone(&waker)));

        let conn = Conn {
            shared: self,
            counters: launch.counters(id.slot()),
            id,
            member,
            waker,
            session: Session::new(&launch.settings, now).of(&host),
            outbox: Outbox::default(),
            now,
            alarm_at: Time::NEVER,
            ready: EventFlags::IN | EventFlags::OUT,
            place,
            socket,
        };
        spawn(move || conn.serve());
    }

    /// The server stops. A connection that is accepted from now on finds out by itself.
    fn stop(&self) {
        for listener in &self.listeners {
            self.launch.end_accept(listener.inner());
            listener.waker().wakeup();
        }
        let members = self.room.as_ref().map(|room| lock(room).shut_down());
        for waker in members.unwrap_or_default() {
            waker.notify();
        }
        let conns = lock(&self.conns);
        let all: Vec<_> =
            conns.wakers.ids().filter_map(|id| conns.wakers.get(id).cloned()).collect();
        drop(conns);
        for waker in all {
            waker.notify();
        }
        self.alarm.notify_one();
    }

    /// The main thread: wakes the connections whose deadline has come, until the server has been
    /// told to stop and the last of them is gone.
    fn mind_deadlines(&self) {
        let mut due: Vec<Arc<Waker>> = Vec::new();
        loop {
            let now = self.launch.now();
            let mut conns = lock(&self.conns);
            if self.launch.stop.requested() && conns.wakers.is_empty() {
                return;
            }
            while let Some(id) = conns.deadlines.expired(now) {
                due.extend(conns.wakers.get(id).cloned());
            }
            if due.is_empty() {
                conns.alarm_at = conns.deadlines.next();
                let left = conns.alarm_at.after(now);
                drop(self.alarm.wait_timeout(conns, left));
                continue;
            }
            drop(conns);
            for waker in due.drain(..) {
                waker.waker.wakeup();
            }
        }
    }
}

impl Conn {
    fn serve(mut self) {
        let reason = self.run().unwrap_or("Connection reset");
        self.close(reason);
    }

    /// The whole life of a connection: does what there is to do, and waits when there is nothing.
    fn run(&mut self) -> Result<Reason, Errno> {
        let most_reads = if self.member.is_some() { MOST_CHAT_READS } else { MOST_READS };
        let mut reads = 0;
        loop {
            let writable = self.ready.contains(EventFlags::OUT);
            // Mail waits until what was taken before it is sent, or the socket takes no more: while
            // a read has let others run, as much again may have come.
            let sends = writable && !self.outbox.is_empty();
            if !sends && self.waker.notified.swap(false, Ordering::Acquire) {
                self.collect();
            }
            let step = self.session.step(self.now, &self.outbox, !writable);
            match step {
                Step::Send if writable => self.send()?,
                Step::Receive(_) | Step::ReceiveNow if self.ready.contains(EventFlags::IN) => {
                    self.receive()?;
                    reads += 1;
                    if reads == most_reads {
                        yield_for(Duration::ZERO);
                        reads = 0;
                    } else if self.member.is_some() {
                        coroutine::yield_now(); // Lets the members run that have got mail from it.
                    }
                }
                // No read or write would tell while it does neither.
                Step::Pause(_) if self.ready.intersects(EventFlags::ERR | EventFlags::HUP) => {
                    return Ok("Connection reset");
                }
                Step::Send | Step::Receive(_) | Step::ReceiveNow | Step::Pause(_) => {
                    self.wait();
                    reads = 0;
                }
                Step::Close(reason) => {
                    self.act(step);
                    return Ok(reason);
                }
                step => {
                    if step == Step::Resume && !self.outbox.is_empty() {
                        // The kernel tells of room only when much of the socket's buffer is free.
                        // An echo client that takes little is not silent, so it is tried.
                        self.ready.insert(EventFlags::OUT);
                        self.send()?;
                    }
                    self.act(step);
                }
            }
        }
    }

    /// Gives the worker to other coroutines until the socket is ready, the deadline comes, or this
    /// coroutine is notified.
    fn wait(&mut self) {
        let deadline = self.session.deadline(&self.outbox);
        // Set when the deadline comes earlier, and again when it has fired. A deadline that moves
        // later does not set it: then it fires once too early, and is set again. So too if this
        // comes before the main thread to an alarm that is due: then that one is still set.
        if deadline < self.alarm_at || self.alarm_at <= self.now {
            let mut conns = lock(&self.shared.conns);
            self.alarm_at = conns.deadlines.set(self.id, deadline);
            if deadline < conns.alarm_at {
                conns.alarm_at = deadline;
                drop(conns);
                self.shared.alarm.notify_one();
            }
        }
        // What has happened since the last wait ends this at once.
        self.ready |= EventFlags::from_bits_retain(self.socket.wait_io() as u32);
        self.counters.wakeups.add(1);
        self.now = self.shared.launch.now();
    }

    /// The steps that do not wait.
    fn act(&mut self, step: Step) {
        self.shared.launch.account(step.done(), self.counters);
        match step {
            Step::Resume => {
                self.handle(Input::Resume);
                yield_for(Duration::ZERO); // It may be much. Lets other coroutines run.
            }
            Step::Ping => self.with_room(|room, id, _, _| room.ping(id)),
            Step::Cut(reason) => self.with_room(|room, id, _, _| room.cut(id, reason)),
            // Fails if the peer has gone.
            Step::Shut => _ = self.socket.inner().shutdown(Shutdown::Write),
            // The first four wait, and are done in `run`.
            Step::Send | Step::Receive(_) | Step::ReceiveNow | Step::Pause(_) => {}
            Step::Close(_) | Step::Relieve => {} // Counted. Only a thread that only sends relieves.
        }
    }

    /// Chat: there is mail. Echo: the server stops, or nothing has happened yet.
    fn collect(&mut self) {
        if self.member.is_some() {
            self.with_room(|_, _, _, _| ()); // For the mail only.
        } else if self.shared.launch.stop.requested() {
            self.session.stop(launch::is_busy(self.socket.inner()), &self.outbox);
        }
    }

    /// Gives `input` to the protocol, which queues what comes back.
    fn handle(&mut self, input: Input<'_>) {
        let now = self.now;
        let mut lines = 0;
        if self.member.is_some() {
            self.with_room(|room, id, session, outbox| {
                lines = room.chat(id, session, input, now, outbox);
            });
        } else {
            lines = self.session.echo(input, now, &mut self.outbox);
        }
        self.shared.launch.account(Done { lines, ..Done::default() }, self.counters);
    }

    /// Chat: calls the room under its lock, takes what has come for this member, and wakes the
    /// coroutines of those for whom something has come. Not inlined: to wake one, may looks up the
    /// worker that runs this.
    #[inline(never)]
    fn with_room(&mut self, call: impl FnOnce(&mut ChatRoom, ConnId, &mut Session, &Outbox)) {
        let (Some(id), Some(room)) = (self.member, &self.shared.room) else { return };
        let mut room = lock(room);
        call(&mut room, id, &mut self.session, &self.outbox);
        let exchange = room.exchange(id, &mut self.session, &mut self.outbox, self.now);
        drop(room);
        self.counters.slow_cut.add(exchange.slow_cut.into());
        for waker in exchange.to_wake {
            waker.notify();
        }
    }

    /// One `recv`, into the buffer of the worker that runs this now. may registers sockets without
    /// EPOLLPRI, so a short read may have stopped at an urgent byte: only EAGAIN says that all is
    /// read. Not inlined, lest the compiler looks the worker up once for several reads.
    #[inline(never)]
    fn receive(&mut self) -> Result<(), Errno> {
        BUFFER.with_borrow_mut(|buffer| {
            buffer.resize(READ_SIZE, 0);
            match recv(self.socket.inner(), &mut buffer[..], RecvFlags::empty()) {
                Ok((len, _)) => {
                    self.counters.bytes_in.add(len as u64);
                    self.now = self.shared.launch.now();
                    self.handle(Input::Received(&buffer[..len]));
                    Ok(())
                }
                Err(error) => self.failed(error, EventFlags::IN, &self.counters.read_errors),
            }
        })
    }

    /// One `send`, of as much of what is queued as it takes. Not inlined: an idle coroutine has no
    /// room for slices on its stack.
    #[inline(never)]
    fn send(&mut self) -> Result<(), Errno> {
        let (socket, flags) = (self.socket.inner(), SendFlags::NOSIGNAL);
        let sent = match &*IoSlices::new(self.outbox.slices()) {
            [slice] => send(socket, slice, flags),
            slices => sendmsg(socket, slices, &mut Default::default(), flags),
        };
        match sent {
            Ok(len) => {
                self.counters.bytes_out.add(len as u64);
                self.outbox.advance(len);
                Ok(())
            }
            Err(error) => self.failed(error, EventFlags::OUT, &self.counters.write_errors),
        }
    }

    /// Tells that the socket is no longer ready for `what` from an error.
    fn failed(&mut self, error: Errno, what: EventFlags, errors: &Counter) -> Result<(), Errno> {
        if error == Errno::INTR {
            return Ok(()); // A signal came first.
        }
        self.ready.remove(what);
        if error == Errno::AGAIN {
            self.counters.would_blocks.add(1);
            return Ok(());
        }
        errors.add(1);
        Err(error)
    }

    /// Leaves the chat before the socket is closed: a client that sees it close finds the name and
    /// the place free, and can connect again at once.
    fn close(self, reason: Reason) {
        if let (Some(id), Some(room)) = (self.member, &self.shared.room) {
            let wake = lock(room).leave(id, reason);
            for waker in wake {
                waker.notify();
            }
        }
        let mut conns = lock(&self.shared.conns);
        conns.wakers.remove(self.id);
        conns.deadlines.clear(self.id);
        drop(conns);
        if self.shared.launch.stop.requested() {
            self.shared.alarm.notify_one();
        }
        drop(self.session); // It logs its end, and once the place is free the server may end.
        drop(self.place);
        // By itself it would be closed before it leaves epoll, when its number may belong to
        // another socket already.
        drop(self.socket.into_inner());
    }
}

fn spawn(run: impl FnOnce() + Send + 'static) {
    // SAFETY: nothing thread-local is kept across a wait: there is only `BUFFER`, borrowed in
    // `receive`, which waits for nothing. No function recurses or has a large buffer on the stack,
    // and below it is a guard page.
    drop(unsafe { coroutine::spawn(run) });
}

/// A panic ends the process, so no lock is found poisoned.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
