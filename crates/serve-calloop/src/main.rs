//! Event-driven: handlers are registered with a loop that is not ours, and it calls them back.
//!
//! **Who waits where:** calloop's loop, one in each worker, in `EventLoop::run` (`epoll_wait`).
//! **What wakes it:** a source that has a handler: a socket, the timer, or a ping, which is sent
//! when the server stops and when another worker has mail for one of its members.
//!
//! This is what Twisted, Tornado and Node are. The loop hands each handler the worker, the state
//! that the handlers share. What a source is to be watched for can only change when all handlers
//! have returned, so the end of a turn has a list of those changes.
//!
//! In chat each connection is a member. The hub (`protocol::Hub`) hears the lines of all members
//! and decides what each of them is told: that is the member's mail. All workers share one hub.
//!
//! What is common to all event loops (the connections, what is queued, which deadline is next, what
//! the hub has sent) is in `protocol::Connections`, which never waits; the order of its calls is
//! drawn at the top of `protocol/src/connections/mod.rs`. This file is the waiting. A turn is one
//! pass of its loop.
//!
//! Run: `cargo run --release -p serve-calloop -- --mode chat`
//! Read first: `examples/bare.rs`, this model without all that a server needs.
//! Read next: `serve-polling`, the loop underneath, and `serve-tokio`, where handlers are tasks.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use calloop::generic::Generic;
use calloop::ping::{Ping, PingSource, make_ping};
use calloop::timer::{TimeoutAction, Timer};
use calloop::{Dispatcher, EventLoop, LoopHandle, LoopSignal, RegistrationToken};
use calloop::{Interest, Mode::Level, PostAction, Readiness};
use launch::{Counters, Failure, IoSlices, Launch, Place, READ_SIZE};
use protocol::{ConnId, Connections, Hub, Mode, Next, Outbox, Time};

/// Connections accepted from a listener at a time: many new ones do not starve those that are open.
const ACCEPTS: usize = 64;
/// How long to leave the listeners alone when there are no descriptors left.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let about = "Echo or chat on calloop: handlers registered with an event loop for each worker";
    launch::main(env!("CARGO_PKG_NAME"), about, serve)
}

fn serve(launch: &'static Launch) -> Result<(), Failure> {
    let (mut pings, mut sources) = (Vec::new(), Vec::new());
    for _ in 0..launch.workers {
        let (ping, source) = make_ping().map_err(Failure::of("ping"))?;
        pings.push(ping);
        sources.push(source);
    }
    let hub = || Mutex::new(Hub::new(Arc::clone(&launch.settings), launch.workers));
    let hub = (launch.settings.mode == Mode::Chat).then(hub);
    let shared: &'static Shared = Box::leak(Box::new(Shared { launch, pings, hub }));

    let (ready, started) = mpsc::channel();
    let mut workers = Vec::new();
    for (index, own) in launch.listeners_each()?.into_iter().zip(sources).enumerate() {
        let (listeners, ping) = own;
        workers.push(Own { index, shared, listeners, ping, ready: ready.clone() });
    }
    launch.on_stop(|| shared.pings.iter().for_each(Ping::ping))?;
    let run = |own| Worker::run(own).map_err(Failure::of("calloop"));
    launch.run_each_when(workers, run, || started.iter().take(launch.workers).collect())
}

/// What all workers share.
struct Shared {
    launch: &'static Launch,
    /// One for each worker: to ping it ends the worker's wait.
    pings: Vec<Ping>,
    /// In chat only. Its lock is never held across a call that can wait.
    hub: Option<Mutex<Hub>>,
}

impl Shared {
    fn lock_hub(&self) -> Option<MutexGuard<'_, Hub>> {
        // A panic ends the process, so no lock is found poisoned.
        self.hub.as_ref().map(|hub| hub.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What one worker starts with, on its thread.
struct Own {
    index: usize,
    shared: &'static Shared,
    listeners: Vec<TcpListener>,
    ping: PingSource,
    /// Where it says that it listens. Before that the server does not announce itself.
    ready: Sender<Result<(), Failure>>,
}

/// The state of one event loop, which each of its handlers is given.
struct Worker {
    shared: &'static Shared,
    counters: &'static Counters,
    handle: LoopHandle<'static, Worker>,
    signal: LoopSignal,
    /// When the next deadline is, and the source that goes off then.
    timer: (Time, Option<RegistrationToken>),
    /// Empty once the server stops.
    listeners: Vec<RegistrationToken>,
    /// When to accept again after a shortage.
    accept_at: Time,
    conns: Connections<Io>,
    /// For which connections the loop is to watch for something else from the end of this turn on.
    changed: Vec<ConnId>,
    /// The instant of this call.
    now: Time,
    buffer: Vec<u8>,
}

/// What this model keeps for a connection.
struct Io {
    /// Holds one of `--max-connections`. It is freed before `socket` is closed, so that a client
    /// that sees the connection close can connect again at once.
    _place: Place,
    socket: Rc<TcpStream>,
    source: Option<Source>,
    interest: Interest,
}

/// What the loop has of a connection: its socket, its handler, and the name of both.
type Source = (Dispatcher<'static, Generic<Rc<TcpStream>>, Worker>, RegistrationToken);

impl Worker {
    fn run(own: Own) -> calloop::Result<()> {
        let mut event_loop = EventLoop::<Worker>::try_new()?;
        let (launch, handle) = (own.shared.launch, event_loop.handle());
        let mut listeners = Vec::new();
        for listener in own.listeners {
            listener.set_nonblocking(true)?;
            let source = Generic::new(listener, Interest::READ, Level);
            let token = handle.insert_source(source, |_, it, worker| Ok(worker.accept(it)))?;
            listeners.push(token);
        }
        handle.insert_source(own.ping, |(), _, _| ())?; // The end of the turn does what it is for.
        let _ = own.ready.send(Ok(())); // It fails only if the server is about to end.
        let mut worker = Worker {
            shared: own.shared,
            counters: launch.counters(own.index),
            handle,
            signal: event_loop.get_signal(),
            timer: (Time::NEVER, None),
            listeners,
            accept_at: Time::NEVER,
            conns: Connections::new(&launch.settings, own.index),
            changed: Vec::new(),
            now: launch.now(),
            buffer: vec![0; READ_SIZE],
        };
        event_loop.run(None, &mut worker, Worker::after_handlers)
    }

    /// The loop has called all handlers that had something to do, and is about to wait.
    fn after_handlers(&mut self) {
        self.counters.wakeups.add(1);
        self.now = self.shared.launch.now();
        self.woken();
        self.end_turn();
        while let Some(id) = self.conns.next_touched() {
            self.write(id);
            self.settle(id);
        }
        while let Some(id) = self.changed.pop() {
            self.watch(id);
        }
        if self.conns.finished() {
            self.signal.stop();
        }
        self.set_timer();
    }

    /// Has the loop watch for what the connection can use from now on.
    fn watch(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        let Some((source, token)) = &conn.io.source else { return };
        source.as_source_mut().interest = conn.io.interest;
        if self.handle.update(token).is_err() {
            self.close(id, "Out of memory");
        }
    }

    /// Has the loop call this worker at the next deadline.
    fn set_timer(&mut self) {
        let next = self.conns.next_deadline().min(self.accept_at);
        if next == self.timer.0 {
            return;
        }
        if let Some(timer) = self.timer.1.take() {
            self.handle.remove(timer);
        }
        self.timer.0 = next;
        if let Some(left) = next.timeout(self.now) {
            let expire = |_, (): &mut (), worker: &mut Worker| {
                worker.timer = (Time::NEVER, None); // The end of the turn does what it is for.
                TimeoutAction::Drop
            };
            self.timer.1 = self.handle.insert_source(Timer::from_duration(left), expire).ok();
        }
    }

    fn accept(&mut self, listener: &TcpListener) -> PostAction {
        self.now = self.shared.launch.now();
        for _ in 0..ACCEPTS {
            match launch::accept_nonblocking(listener) {
                Ok((socket, peer)) => self.admit(socket, peer.ip()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.counters.would_blocks.add(1);
                    break;
                }
                Err(error) if launch::is_shortage(&error) => {
                    self.counters.shortages.add(1);
                    self.accept_at = self.now + SHORTAGE_PAUSE;
                    // The listener stays ready: the loop would spin if it were still watched.
                    return PostAction::Disable;
                }
                Err(_) => self.counters.accept_errors.add(1),
            }
        }
        PostAction::Continue
    }

    fn admit(&mut self, socket: TcpStream, peer: IpAddr) {
        let Some(place) = self.shared.launch.admit(&socket, peer, self.counters) else { return };
        let host = place.peer().to_string();
        let socket = Rc::new(socket);
        let source = Generic::new(Rc::clone(&socket), Interest::READ, Level);
        let io = Io { _place: place, socket, source: None, interest: Interest::READ };
        let id = self.conns.open(io, &host, self.now, self.shared.lock_hub().as_deref_mut());
        let Some(conn) = self.conns.get_mut(id) else { return };
        let ready = move |ready, _: &mut _, worker: &mut Worker| worker.ready(id, ready);
        let source = Dispatcher::new(source, ready);
        match self.handle.register_dispatcher(source.clone()) {
            Ok(token) => conn.io.source = Some((source, token)),
            Err(_) => self.close(id, "Out of memory"),
        }
    }

    /// Perhaps the server stops.
    fn woken(&mut self) {
        if self.shared.launch.stop.requested() {
            for listener in self.listeners.drain(..) {
                self.handle.remove(listener);
            }
            // `is_busy` makes system calls, and none is made under the hub's lock: `stop` calls it
            // in echo only, where there is no hub.
            let mut hub = self.shared.lock_hub();
            self.conns.stop(hub.as_deref_mut(), |io| launch::is_busy(&io.socket));
        }
    }

    /// A socket is ready. The event may be stale: if its connection was closed earlier in this
    /// turn, the id finds none, even if its slot has another tenant already.
    fn ready(&mut self, id: ConnId, ready: Readiness) -> io::Result<PostAction> {
        self.now = self.shared.launch.now();
        let Some(conn) = self.conns.get_mut(id) else { return Ok(PostAction::Continue) };
        let reading = conn.io.interest.readable;
        // calloop reports this even if it was not asked for: the connection is dead.
        conn.dead |= ready.readable && !reading;
        if ready.readable && reading {
            self.read(id);
        }
        self.write(id);
        self.settle(id);
        Ok(PostAction::Continue)
    }

    fn read(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        match (&*conn.io.socket).read(&mut self.buffer) {
            Ok(len) => {
                self.counters.bytes_in.add(len as u64);
                let mut hub = self.shared.lock_hub();
                let bytes = &self.buffer[..len];
                let done = self.conns.received(id, bytes, self.now, hub.as_deref_mut());
                drop(hub);
                // Counts the lines, and burns the processor for `--work`: so without the lock.
                self.shared.launch.account(done, self.counters);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.counters.would_blocks.add(1);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {} // A signal came first.
            Err(_) => {
                self.counters.read_errors.add(1);
                self.close(id, "Connection reset");
            }
        }
    }

    fn write(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        while !conn.outbox.is_empty() {
            match send(&conn.io.socket, &conn.outbox) {
                Ok(len) => {
                    self.counters.bytes_out.add(len as u64);
                    conn.outbox.advance(len);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.counters.would_blocks.add(1);
                    return;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {} // A signal came first.
                Err(_) => {
                    self.counters.write_errors.add(1);
                    self.close(id, "Connection reset");
                    return;
                }
            }
        }
    }

    /// Has calloop watch for what the connection can use now, if that has changed.
    fn settle(&mut self, id: ConnId) {
        let Some((next, conn)) = self.conns.settle(id, self.now) else { return };
        let read = match next {
            Next::Serve { read } => read,
            Next::Shut => {
                let _ = conn.io.socket.shutdown(Shutdown::Write); // Fails if the peer has gone.
                true
            }
            Next::Close(reason) => {
                self.close(id, reason);
                return;
            }
        };

        let (interest, write) = (&mut conn.io.interest, !conn.outbox.is_empty());
        if (interest.readable, interest.writable) != (read, write) {
            *interest = Interest { readable: read, writable: write };
            self.changed.push(id);
        }
    }

    /// What may concern any connection: deadlines that have passed, mail from the hub, and whether
    /// there are descriptors again.
    fn end_turn(&mut self) {
        let mut hub = self.shared.lock_hub();
        let done = self.conns.turn(self.now, hub.as_deref_mut());
        drop(hub);
        self.shared.launch.account(done, self.counters);
        while let Some(worker) = self.conns.next_wake() {
            self.shared.pings[worker].ping();
        }
        self.conns.deliver(self.now);

        if self.accept_at <= self.now {
            self.accept_at = Time::NEVER;
            for listener in &self.listeners {
                // One that is still watched cannot be enabled, and would look like a shortage.
                let _ = self.handle.disable(listener);
                if self.handle.enable(listener).is_err() {
                    self.accept_at = self.now + SHORTAGE_PAUSE; // No memory for that either.
                }
            }
        }
    }

    fn close(&mut self, id: ConnId, reason: &str) {
        let closed = self.conns.close(id, reason, self.shared.lock_hub().as_deref_mut());
        let Some(conn) = closed else { return };
        if let Some((_, token)) = conn.io.source {
            self.handle.remove(token);
        }
        if self.accept_at < Time::NEVER {
            self.accept_at = self.now; // A descriptor is free again.
        }
    }
}

/// One system call, which writes as much of the queue as the socket takes.
fn send(mut socket: &TcpStream, outbox: &Outbox) -> io::Result<usize> {
    match &*IoSlices::new(outbox.slices()) {
        [slice] => socket.write(slice),
        slices => socket.write_vectored(slices),
    }
}
