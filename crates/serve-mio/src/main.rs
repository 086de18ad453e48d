//! An event loop on a library of readiness: mio says once that a socket is ready; we remember.
//!
//! **Who waits where:** each worker, in `mio::Poll` (`epoll_wait`), for all of its sockets at once.
//! **What wakes it:** a socket that is ready, the next deadline, or its `mio::Waker`, which is used
//! when the server stops and when another worker has mail for one of its members.
//!
//! mio is edge-triggered on every system: it names a socket when something has changed, and once.
//! So a connection keeps in mind that it is readable or writable until a call would block. That is
//! mio's rule for all systems. On Linux, as here, a read of less than the buffer holds says it too.
//! A connection that may have more to read is put into `read_next`: while that is not empty, the
//! wait does not sleep. All is registered once, for everything, and never switched off.
//!
//! In chat each connection is a member. The hub (`protocol::Hub`) hears the lines of all members
//! and decides what each of them is told: that is the member's mail. All workers share one hub.
//!
//! What is common to all event loops (the connections, what is queued, which deadline is next, what
//! the hub has sent) is in `protocol::Connections`, which never waits; the order of its calls is
//! drawn at the top of `protocol/src/connections/mod.rs`. This file is the waiting. A turn is one
//! pass of its loop.
//!
//! Run: `cargo run --release -p serve-mio -- --mode chat`
//! Read first: `examples/bare.rs`, this model without all that a server needs.
//! Read next: `serve-polling`, the other loop on a library: it names a socket once, and not before
//! it is asked.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::{IpAddr, Shutdown};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use launch::{Counters, Failure, IoSlices, Launch, Place, READ_SIZE};
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use protocol::{ConnId, Connections, Hub, Mode, Next, Outbox, Time};

/// Tokens that are no [`ConnId`]: their top byte is not zero.
const LISTENER: Token = Token(usize::MAX);
const WAKE: Token = Token(usize::MAX - 1);
const _: () = assert!(usize::BITS == 64, "a ConnId fits a token");

/// Events fetched in one turn.
const EVENTS: usize = 256;
/// Connections accepted from a listener at a time: many new ones do not starve those that are open.
const ACCEPTS: usize = 64;
/// How long to leave the listeners alone when there are no descriptors left.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let about = "Echo or chat on mio, edge-triggered: one event loop for each worker";
    launch::main(env!("CARGO_PKG_NAME"), about, serve)
}

fn serve(launch: &'static Launch) -> Result<(), Failure> {
    let (mut polls, mut wakers) = (Vec::new(), Vec::new());
    for _ in 0..launch.workers {
        let poll = Poll::new().map_err(Failure::of("mio"))?;
        wakers.push(Waker::new(poll.registry(), WAKE).map_err(Failure::of("mio"))?);
        polls.push(poll);
    }
    let hub = || Mutex::new(Hub::new(Arc::clone(&launch.settings), launch.workers));
    let hub = (launch.settings.mode == Mode::Chat).then(hub);
    let shared: &'static Shared = Box::leak(Box::new(Shared { launch, wakers, hub }));

    let mut workers = Vec::new();
    for (index, own) in launch.listeners_each()?.into_iter().zip(polls).enumerate() {
        workers.push(Worker::new(index, shared, own).map_err(Failure::of("mio"))?);
    }
    launch.on_stop(|| shared.wakers.iter().for_each(wake))?;
    launch.run_each(workers, Worker::run)
}

/// What all workers share.
struct Shared {
    launch: &'static Launch,
    /// One for each worker: to use it ends the worker's wait.
    wakers: Vec<Waker>,
    /// In chat only. Its lock is never held across a call that can wait.
    hub: Option<Mutex<Hub>>,
}

impl Shared {
    fn lock_hub(&self) -> Option<MutexGuard<'_, Hub>> {
        // A panic ends the process, so no lock is found poisoned.
        self.hub.as_ref().map(|hub| hub.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One event loop, with all that belongs to it alone.
struct Worker {
    shared: &'static Shared,
    counters: &'static Counters,
    poll: Poll,
    /// Empty once the server stops.
    listeners: Vec<TcpListener>,
    /// When to accept: now, if newcomers have been announced and may not all have been accepted;
    /// later, after a shortage.
    accept_at: Time,
    conns: Connections<Io>,
    /// What may have more to read, and is not announced again: the next turn begins with it.
    read_next: BTreeSet<ConnId>,
    /// The instant of this turn.
    now: Time,
    buffer: Vec<u8>,
}

/// What this model keeps for a connection.
struct Io {
    /// Holds one of `--max-connections`. It is freed before `socket` is closed, so that a client
    /// that sees the connection close can connect again at once.
    _place: Place,
    socket: TcpStream,
    /// What mio has reported and no system call has disproved.
    readable: bool,
    writable: bool,
    /// Something comes after what a read returns, even if the read is short: the end of the stream,
    /// or an urgent byte, before which a read stops. Holds until a read would block.
    behind: bool,
    /// Whether the connection wants to be read, as `settle` has said.
    reading: bool,
}

impl Worker {
    fn new(
        index: usize,
        shared: &'static Shared,
        (listeners, poll): (Vec<std::net::TcpListener>, Poll),
    ) -> io::Result<Worker> {
        let launch = shared.launch;
        for listener in &listeners {
            listener.set_nonblocking(true)?;
        }
        let mut listeners: Vec<_> = listeners.into_iter().map(TcpListener::from_std).collect();
        for listener in &mut listeners {
            poll.registry().register(listener, LISTENER, Interest::READABLE)?;
        }
        Ok(Worker {
            shared,
            counters: launch.counters(index),
            poll,
            listeners,
            accept_at: Time::NEVER,
            conns: Connections::new(&launch.settings, index),
            read_next: BTreeSet::new(),
            now: launch.now(),
            buffer: vec![0; READ_SIZE],
        })
    }

    fn run(mut self) -> Result<(), Failure> {
        let mut events = Events::with_capacity(EVENTS);
        while !self.conns.finished() {
            self.wait(&mut events)?;
            for id in mem::take(&mut self.read_next) {
                self.ready(id, None);
            }
            for event in events.iter() {
                match event.token() {
                    LISTENER => self.accept_at = self.accept_at.min(self.now), // See `end_turn`.
                    WAKE => self.woken(),
                    Token(bits) => self.ready(ConnId::from_bits(bits as u64), Some(event)),
                }
            }
            self.end_turn();
            // Touched: the turn has queued something for it, or its deadline has passed. Closing a
            // connection can leave mail for other members in the hub. Then `next_deadline` is in
            // the past: the next wait ends at once, and the next turn fetches that mail.
            while let Some(id) = self.conns.next_touched() {
                // A socket takes a little long before mio says so. A peer that reads slowly would
                // look silent at its deadline, so a write is tried in any case.
                if let Some(conn) = self.conns.get_mut(id) {
                    conn.io.writable = true;
                }
                self.write(id);
                self.settle(id);
            }
        }
        Ok(())
    }

    /// Waits until there is something to do. A signal that interrupts it does no harm: then there
    /// are no events.
    fn wait(&mut self, events: &mut Events) -> Result<(), Failure> {
        let next = self.conns.next_deadline().min(self.accept_at);
        let next = if self.read_next.is_empty() { next } else { self.now };
        match self.poll.poll(events, next.timeout(self.now)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => result.map_err(Failure::of("mio"))?,
        }
        self.counters.wakeups.add(1);
        self.now = self.shared.launch.now();
        Ok(())
    }

    fn accept(&mut self) {
        for at in 0..self.listeners.len() {
            self.accept_from(at);
        }
    }

    fn accept_from(&mut self, at: usize) {
        for _ in 0..ACCEPTS {
            match self.listeners[at].accept() {
                Ok((socket, peer)) => self.admit(socket, peer.ip()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.counters.would_blocks.add(1);
                    return;
                }
                Err(error) if launch::is_shortage(&error) => {
                    self.counters.shortages.add(1);
                    self.accept_at = self.now + SHORTAGE_PAUSE;
                    return;
                }
                Err(_) => self.counters.accept_errors.add(1),
            }
        }
        self.accept_at = self.now; // There may be more, which will not be announced again.
    }

    fn admit(&mut self, socket: TcpStream, peer: IpAddr) {
        let Some(place) = self.shared.launch.admit(&socket, peer, self.counters) else { return };
        let host = place.peer().to_string();
        let io = Io {
            _place: place,
            socket,
            readable: false,
            writable: true, // A new socket has room: the first write need not wait for an event.
            behind: false,
            reading: true,
        };
        let id = self.conns.open(io, &host, self.now, self.shared.lock_hub().as_deref_mut());
        let Some(conn) = self.conns.get_mut(id) else { return };
        let token = Token(id.bits() as usize);
        let all = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        if self.poll.registry().register(&mut conn.io.socket, token, all).is_err() {
            self.close(id, "Out of memory");
        }
    }

    /// The waker was used: there is mail, which the end of the turn brings, or the server stops.
    fn woken(&mut self) {
        if self.shared.launch.stop.requested() {
            // A listener that a manager handed over is open in another process too, and stays in
            // the epoll set then. Each newcomer of the other process is one event here, no more.
            self.listeners.clear();
            // `is_busy` makes system calls, and none is made under the hub's lock: `stop` calls it
            // in echo only, where there is no hub.
            let mut hub = self.shared.lock_hub();
            self.conns.stop(hub.as_deref_mut(), |io| launch::is_busy(&io.socket));
        }
    }

    /// A socket is ready. The event may be stale: if its connection was closed earlier in this
    /// turn, the id finds none, even if its slot has another tenant already.
    fn ready(&mut self, id: ConnId, event: Option<&Event>) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        conn.io.readable |= event.is_some_and(Event::is_readable);
        conn.io.writable |= event.is_some_and(Event::is_writable);
        conn.io.behind |= event.is_some_and(|event| event.is_read_closed() || event.is_priority());
        // mio reports this even if it was not asked for: the connection is dead. If it may be read,
        // `read` fetches what is left, then the end or the error.
        conn.dead |= event.is_some_and(Event::is_error);
        // One read in a turn: what is in `read_next` already is read in the next one.
        if conn.io.reading && conn.io.readable && !self.read_next.contains(&id) {
            self.read(id);
        }
        self.write(id);
        self.settle(id);
    }

    fn read(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        match conn.io.socket.read(&mut self.buffer) {
            // No bytes (`len` is 0): the peer has ended its stream, and `received` notes it.
            Ok(len) => {
                // A short read means that the socket is empty, unless more is behind it.
                conn.io.readable = conn.io.behind || len == self.buffer.len();
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
                (conn.io.readable, conn.io.behind) = (false, false);
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
        while conn.io.writable && !conn.outbox.is_empty() {
            match send(&conn.io.socket, &conn.outbox) {
                Ok(len) => {
                    self.counters.bytes_out.add(len as u64);
                    conn.outbox.advance(len);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.counters.would_blocks.add(1);
                    conn.io.writable = false;
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

    /// Adds the connection to `read_next` if it is to be read and may have more.
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

        conn.io.reading = read;
        if read && conn.io.readable {
            self.read_next.insert(id);
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
            wake(&self.shared.wakers[worker]);
        }
        self.conns.deliver(self.now);

        if self.accept_at <= self.now {
            self.accept_at = Time::NEVER;
            self.accept();
        }
    }

    fn close(&mut self, id: ConnId, reason: &str) {
        let closed = self.conns.close(id, reason, self.shared.lock_hub().as_deref_mut());
        // Closing the only descriptor of a socket ends its registration.
        drop(closed);
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

/// Does not fail: mio empties the counter if it is ever full.
fn wake(waker: &Waker) {
    let _ = waker.wake();
}
