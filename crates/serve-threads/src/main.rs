//! Multithreaded synchronous: a thread for each connection, which does one thing after another.
//!
//! **Who waits where:** the acceptors in `accept`; each connection's thread in `recv`, and in echo
//! also in `send`. In chat each member has a second thread, its writer, which waits until there is
//! mail, and in `send`.
//! **What wakes it:** what it waits for, or a timeout. To stop, the sockets are shut down.
//!
//! The kernel's scheduler is the event loop. [`Conn::echo`] is the whole life of a connection, one
//! call that waits after another, and no other thread touches what is its own.
//!
//! A thread in `recv` cannot see that there is something to send. So in chat the thread that has
//! got a line queues it for its receivers, and their writers send it. While a writer is busy, lines
//! gather behind it, and then leave in one `send`. [`Registry`] is locked before [`Conn::state`],
//! and in chat neither lock is held across a call that can wait.
//!
//! What to do next is `protocol`'s to say ([`Step`]). Here is how this model does it, and waits.
//!
//! Run: `cargo run --release -p serve-threads -- --mode chat`
//! Read first: `examples/bare.rs`, this model without all that a server needs.
//! Read next: `serve-may`, which has the same functions in coroutines; `serve-prefork`, where the
//! threads are processes; and `serve-epoll-level`, where one thread waits for all sockets at once.

mod handed;

use std::mem::{self, MaybeUninit};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use launch::{Counter, Counters, Failure, IoSlices, Launch, Place, READ_SIZE, RecvWait, lock};
use protocol::{ConnId, Done, Duplex, Hub, Input, Mail, Mode, Outbox, Posted, Slots, Step, Time};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, sendmsg};

/// A thread's stack. Most of it is never touched, and so is only address space.
const STACK: usize = 64 << 10;
/// Linux lets a process have 65,530 mappings, and a thread takes four: two stacks, two guard pages.
/// The standard library ends a process whose new thread gets only some, so keep well away.
const MOST_THREADS: usize = 65_530 / 5;
/// How long to wait in `send`, or for a free descriptor or thread, before looking again.
const TICK: Duration = Duration::from_millis(100);

/// Why a connection ends, for those who shared a channel with it.
type Reason = &'static str;

fn main() -> ExitCode {
    launch::main(env!("CARGO_PKG_NAME"), "Echo or chat: a blocking thread per connection", serve)
}

fn serve(launch: &'static Launch) -> Result<(), Failure> {
    let chat = launch.settings.mode == Mode::Chat;
    let hub = chat.then(|| Hub::new(Arc::clone(&launch.settings), 1));
    let registry = Mutex::new(Registry { conns: Slots::new(0), hub, mail: Vec::new() });
    let most = if chat { MOST_THREADS / 2 } else { MOST_THREADS };
    let departed = Condvar::new();
    let shared: &'static Shared = Box::leak(Box::new(Shared { launch, most, registry, departed }));

    let listeners: Vec<_> = launch.listeners_each()?.into_iter().flatten().collect();
    let listeners: &'static [TcpListener] = listeners.leak();
    let mut acceptors = Vec::new();
    for (index, listener) in listeners.iter().enumerate() {
        acceptors.push(Acceptor { shared, counters: launch.counters(index), listener });
    }
    launch.on_stop(|| shared.stop(listeners))?;
    launch.warn_beyond(most, "a thread takes four of the memory mappings of a process");
    launch.run_each(acceptors, Acceptor::run)?;

    // The acceptors have ended. Now the connections.
    let registry = lock(&shared.registry);
    drop(shared.departed.wait_while(registry, |registry| !registry.conns.is_empty()));
    Ok(())
}

/// What all threads share.
struct Shared {
    launch: &'static Launch,
    /// The most connections that there can be threads for.
    most: usize,
    registry: Mutex<Registry>,
    /// A connection is gone.
    departed: Condvar,
}

/// Who is there. Echo locks it when a connection comes and when it goes, never in between.
struct Registry {
    conns: Slots<Arc<Conn>>,
    /// In chat only.
    hub: Option<Hub>,
    /// On its way from the hub to the queues; empty when the lock is free.
    mail: Vec<Mail>,
}

/// One thread that accepts. Each address has one for each of `--workers`.
struct Acceptor {
    shared: &'static Shared,
    counters: &'static Counters,
    listener: &'static TcpListener,
}

/// One connection: what its threads share, and those that have mail for it.
struct Conn {
    shared: &'static Shared,
    counters: &'static Counters,
    id: ConnId,
    /// In echo the connection's thread keeps it locked for life: no other thread wants it.
    state: Mutex<Duplex>,
    /// Holds one of `--max-connections`. It is dropped after `state`, which logs the end as it is
    /// dropped. It is freed before `socket` is closed, so that a client that sees the connection
    /// close can connect again at once.
    _place: Place,
    socket: TcpStream,
    /// Chat: there is something to write, or the reader may go on, or the connection is over.
    changed: Condvar,
    /// Echo: whether the thread waits in `recv` for the stop to wake it.
    wait: RecvWait,
}

/// What a thread receives with.
struct ReadBuffer {
    /// Not filled with zeros: an idle connection has not touched its pages.
    buffer: Box<[MaybeUninit<u8>]>,
    /// The timeout that the socket has.
    armed: Duration,
}

impl Acceptor {
    fn run(self) -> Result<(), Failure> {
        let launch = self.shared.launch;
        while handed::may_accept(launch, self.listener) {
            match self.listener.accept() {
                Ok((socket, peer)) => self.admit(socket, peer.ip()),
                Err(_) if launch.stop.requested() => {}
                Err(error) if handed::is_taken(&error) => self.counters.would_blocks.add(1),
                Err(error) if launch::is_shortage(&error) => self.shared.pause(self.counters),
                Err(_) => self.counters.accept_errors.add(1),
            }
            self.counters.wakeups.add(1);
        }
        Ok(())
    }

    fn admit(&self, socket: TcpStream, peer: IpAddr) {
        let (shared, launch) = (self.shared, self.shared.launch);
        let Some(place) = launch.admit(&socket, peer, self.counters) else { return };
        let host = place.peer().to_string();
        let now = launch.now();
        let _ = socket.set_write_timeout(Some(TICK));
        let state = Mutex::new(Duplex::new(&launch.settings, now).of(&host));

        let mut registry = lock(&shared.registry);
        if launch.stop.requested() {
            return; // `stop` has been to all connections, or waits for this lock.
        }
        let (id, conn) = registry.conns.insert_with(|id| {
            let counters = launch.counters(id.slot());
            let (changed, wait) = (Condvar::new(), RecvWait::default());
            Arc::new(Conn { shared, counters, id, _place: place, socket, state, changed, wait })
        });
        let conn = Arc::clone(conn);
        let chat = registry.hub.as_mut().map(|hub| hub.open(id, &host, now)).is_some();
        drop(registry);

        if chat {
            conn.start(Conn::chat_out);
            conn.start(Conn::chat_in);
        } else {
            conn.start(Conn::echo);
        }
    }
}

impl Shared {
    /// Something has run out. New clients wait in the backlog until a connection ends, or a while.
    fn pause(&self, counters: &Counters) {
        counters.shortages.add(1);
        drop(self.departed.wait_timeout(lock(&self.registry), TICK));
    }

    /// The server stops. Members get their last words and then time to end the stream.
    /// Where the thread of an echo client waits in `recv`, that is ended, as soon as the client has
    /// taken its replies. A client that talks has woken its thread itself.
    fn stop(&self, listeners: &[TcpListener]) {
        for listener in listeners {
            self.launch.end_accept(listener);
        }
        if self.ask(Hub::shut_down).is_some() {
            self.deliver();
            return;
        }
        self.launch.interrupt_waits(|late| {
            let Registry { conns, .. } = &*lock(&self.registry);
            let conns = conns.ids().filter_map(|id| conns.get(id));
            conns.filter(|conn| conn.wait.interrupt(&conn.socket, late)).count()
        });
    }

    /// Chat: calls the hub. What comes of it waits for [`Shared::deliver`].
    fn ask<T>(&self, call: impl FnOnce(&mut Hub) -> T) -> Option<T> {
        lock(&self.registry).hub.as_mut().map(call)
    }

    /// Chat: queues the hub's mail for its receivers, and wakes the writers that had nothing to
    /// do. All members get it in the hub's order, because the hub stays locked until it is queued.
    fn deliver(&self) {
        let now = self.launch.now();
        let mut idle = Vec::new();
        let mut registry = lock(&self.registry);
        let Registry { conns, hub: Some(hub), mail } = &mut *registry else { return };
        let done = hub.hand_out(mail, |to, parcel| {
            let Some(conn) = conns.get(to) else { return Posted::default() };
            let posted = lock(&conn.state).post(parcel, now);
            if posted.wake {
                idle.push(Arc::clone(conn));
            }
            posted
        });
        drop(registry);

        self.launch.account(done, self.launch.counters(0));
        for conn in idle {
            conn.changed.notify_all();
        }
    }
}

impl Conn {
    /// Starts a thread as soon as the system has one, or closes when the server stops before.
    fn start(self: &Arc<Conn>, run: fn(&Conn)) {
        loop {
            let conn = Arc::clone(self);
            let enough = lock(&self.shared.registry).conns.len() <= self.shared.most;
            let thread = thread::Builder::new().stack_size(STACK);
            if enough && thread.spawn(move || run(&conn)).is_ok() {
                return;
            }
            self.shared.pause(self.counters);
            if self.shared.launch.stop.requested() {
                self.close();
                return;
            }
        }
    }

    fn echo(&self) {
        // An error of the socket ends the connection as its end does.
        let _ = self.echo_lines();
        self.close();
    }

    /// Echo: the whole life of a connection, one call that waits after another.
    fn echo_lines(&self) -> Result<(), Errno> {
        let launch = self.shared.launch;
        // Locked to the end of the function: no other thread wants it.
        let Duplex { session, outbox, .. } = &mut *lock(&self.state);
        let mut read_buffer = ReadBuffer::new();
        let mut now = launch.now();
        let mut stuck = false;
        loop {
            if self.wait.end(&launch.stop) {
                session.stop(launch::is_busy(&self.socket), outbox);
            }
            let mut input = None;
            match session.step(now, outbox, stuck) {
                Step::Send => {
                    self.send(outbox, SendFlags::empty())?;
                    stuck = !outbox.is_empty();
                }
                // It has just been told to stop, and heeds that first.
                Step::Receive(_) if !self.wait.begin(&launch.stop) => {}
                Step::Receive(until) => input = self.receive(&mut read_buffer, until.after(now))?,
                Step::ReceiveNow => {
                    input = self.receive(&mut read_buffer, Duration::ZERO)?;
                    stuck = input.is_some(); // If nothing has come, wait in `send` again.
                }
                Step::Pause(until) => thread::sleep(until.after(now)),
                Step::Resume => input = Some(Input::Resume),
                step @ Step::Close(_) => {
                    self.act(step);
                    return Ok(());
                }
                step => self.act(step),
            }

            now = launch.now();
            if let Some(input) = input {
                let lines = session.echo(input, now, outbox);
                launch.account(Done { lines, ..Done::default() }, self.counters);
            }
        }
    }

    /// Chat: the life of the reader, which takes a member's lines. The writer minds the deadlines
    /// while this waits in `recv`.
    fn chat_in(&self) {
        let mut read_buffer = ReadBuffer::new();
        loop {
            match self.next_step(Duplex::receiver_step) {
                Step::Receive(_) => match self.receive(&mut read_buffer, Duration::MAX) {
                    Ok(Some(input)) => self.handle(input),
                    Ok(None) => {}
                    Err(_) => self.hang_up("Connection reset"),
                },
                Step::Close(reason) => {
                    self.hang_up(reason);
                    self.close();
                    return;
                }
                step => self.act(step),
            }
        }
    }

    /// Chat: the life of the writer, which sends what the member is to get. It first sends what
    /// the socket takes at once, and if that is nothing waits in `send`: the member does not read.
    fn chat_out(&self) {
        // It is sent without the lock, and more may gather meanwhile.
        let mut batch = Outbox::default();
        let mut stuck = false;
        loop {
            let step = self.next_step(|state, now| {
                if batch.is_empty() && mem::take(&mut state.waits) {
                    self.changed.notify_all(); // The reader may go on, now or at the end.
                }
                state.sender_step(now, &mut batch, stuck)
            });
            match step {
                Step::Send => {
                    let before = batch.len();
                    let flags = if stuck { SendFlags::empty() } else { SendFlags::DONTWAIT };
                    if self.send(&mut batch, flags).is_err() {
                        self.hang_up("Connection reset");
                    }
                    // Once it has to wait in `send`, it does so until the batch is empty.
                    stuck = !batch.is_empty() && (stuck || batch.len() == before);
                }
                Step::Close(reason) => {
                    self.hang_up(reason);
                    return;
                }
                step => self.act(step),
            }
        }
    }

    /// Chat: waits until there is something to do for the thread that asks.
    fn next_step(&self, mut ask: impl FnMut(&mut Duplex, Time) -> Step) -> Step {
        loop {
            let now = self.shared.launch.now();
            let mut state = lock(&self.state);
            let step = ask(&mut state, now);
            let Step::Pause(until) = step else { return step };
            state.waits = true;
            drop(self.changed.wait_timeout(state, until.after(now)));
            self.counters.wakeups.add(1);
        }
    }

    /// The steps that do not wait. In chat either thread may be given one, and does it.
    fn act(&self, step: Step) {
        let shared = self.shared;
        shared.launch.account(step.done(), self.counters);
        match step {
            Step::Resume => self.handle(Input::Resume),
            Step::Ping => _ = shared.ask(|hub| hub.ping(self.id)),
            Step::Cut(reason) => _ = shared.ask(|hub| hub.cut(self.id, reason)),
            Step::Relieve => _ = shared.ask(|hub| hub.relieve(self.id)),
            // Fails if the peer has gone.
            Step::Shut => _ = self.socket.shutdown(Shutdown::Write),
            // The first four wait, and are done where they are asked for.
            Step::Send | Step::Receive(_) | Step::ReceiveNow | Step::Pause(_) | Step::Close(_) => {}
        }
        shared.deliver();
    }

    /// Chat: gives the protocol `input`, and queues what comes of it for those whom it concerns.
    fn handle(&self, input: Input<'_>) {
        let (shared, now) = (self.shared, self.shared.launch.now());
        let lines = shared.ask(|hub| {
            let Duplex { session, outbox, .. } = &mut *lock(&self.state);
            session.chat(input, now, outbox, self.id, hub)
        });
        let done = Done { lines: lines.unwrap_or_default(), ..Done::default() };
        shared.launch.account(done, self.counters);
        shared.deliver();
    }

    /// One `recv`, which waits for at most `left`. `None`: nothing has come.
    fn receive<'a>(
        &self,
        to: &'a mut ReadBuffer,
        left: Duration,
    ) -> Result<Option<Input<'a>>, Errno> {
        let mut flags = RecvFlags::empty();
        if left.is_zero() {
            flags = RecvFlags::DONTWAIT;
        } else if left < to.armed {
            // A shorter timeout does no harm: none is set while deadlines only move away.
            let _ = self.socket.set_read_timeout(Some(left));
            to.armed = left;
        }
        let received = rustix::net::recv(&self.socket, &mut to.buffer[..], flags);
        self.counters.wakeups.add(1);
        match received {
            Ok(((bytes, _), _)) => {
                self.counters.bytes_in.add(bytes.len() as u64);
                Ok(Some(Input::Received(bytes)))
            }
            Err(error) => {
                to.armed = Duration::MAX; // The time has passed, so the next is set anew.
                self.failed(error, &self.counters.read_errors).map(|()| None)
            }
        }
    }

    /// One `send`, of as much of what is queued as it takes before its timeout.
    fn send(&self, outbox: &mut Outbox, flags: SendFlags) -> Result<(), Errno> {
        let flags = flags | SendFlags::NOSIGNAL;
        let sent = match &*IoSlices::new(outbox.slices()) {
            [slice] => rustix::net::send(&self.socket, slice, flags),
            slices => sendmsg(&self.socket, slices, &mut Default::default(), flags),
        };
        match sent {
            Ok(len) => {
                self.counters.bytes_out.add(len as u64);
                outbox.advance(len);
                Ok(())
            }
            Err(error) => self.failed(error, &self.counters.write_errors),
        }
    }

    /// Tells a timeout from an error. A SIGSTOP interrupts what has a timeout: that is none either.
    fn failed(&self, error: Errno, errors: &Counter) -> Result<(), Errno> {
        if matches!(error, Errno::AGAIN | Errno::INTR) {
            self.counters.would_blocks.add(1);
            return Ok(());
        }
        errors.add(1);
        Err(error)
    }

    /// Chat: ends the connection for both of its threads, whatever they wait for.
    fn hang_up(&self, reason: Reason) {
        if lock(&self.state).end(reason) {
            self.shared.launch.account(Step::Close(reason).done(), self.counters);
        }
        let _ = self.socket.shutdown(Shutdown::Both);
        self.changed.notify_all();
    }

    fn close(&self) {
        let reason = lock(&self.state).over().unwrap_or("Connection closed");
        // The hub first: as soon as it is removed, a new connection may have its slot.
        self.shared.ask(|hub| hub.leave(self.id, reason));
        lock(&self.shared.registry).conns.remove(self.id);
        self.shared.deliver();
        self.shared.departed.notify_all();
    }
}

impl ReadBuffer {
    fn new() -> ReadBuffer {
        ReadBuffer { buffer: Box::new_uninit_slice(READ_SIZE), armed: Duration::MAX }
    }
}
