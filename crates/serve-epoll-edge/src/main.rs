//! Multiplexed I/O, edge-triggered: the kernel says once which sockets are ready; we remember.
//!
//! **Who waits where:** each worker, in `epoll_wait`, for all of its sockets at once.
//! **What wakes it:** a socket that is ready, the next deadline, or its eventfd, which is written
//! when the server stops and when another worker has mail for one of its members.
//!
//! Edge-triggered means that `epoll_wait` reports what has changed, and once. So a connection keeps
//! in mind that it is readable or writable until a call would block, or reads less than the buffer
//! holds. A connection that may have more to read is put into `read_next`: while that is not empty,
//! the wait does not sleep. All is registered once, for everything, and never switched off: no
//! `epoll_ctl` after that. The eventfd is not even read: each write to it is a change.
//!
//! In chat each connection is a member. The hub (`protocol::Hub`) hears the lines of all members
//! and decides what each of them is told: that is the member's mail. All workers share one hub.
//!
//! What is common to all event loops (the connections, what is queued, which deadline is next, what
//! the hub has sent) is in `protocol::Connections`, which never waits; the order of its calls is
//! drawn at the top of `protocol/src/connections/mod.rs`. This file is the waiting. A turn is one
//! pass of its loop.
//!
//! Run: `cargo run --release -p serve-epoll-edge -- --mode chat`
//! Read first: `examples/bare.rs`, this model without all that a server needs.
//! Read next: `serve-epoll-level`, where the kernel remembers, and `serve-mio`, the same on a
//! library.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use launch::{Counters, Failure, IoSlices, Launch, Place, READ_SIZE};
use protocol::{ConnId, Connections, Hub, Mode, Next, Outbox, Time};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;

/// Tokens that are no [`ConnId`]: their top byte is not zero.
const LISTENER: u64 = u64::MAX;
const WAKE: u64 = u64::MAX - 1;

/// Events fetched in one turn.
const EVENTS: usize = 256;
/// Connections accepted from a listener at a time: many new ones do not starve those that are open.
const ACCEPTS: usize = 64;
/// How long to leave the listeners alone when there are no descriptors left.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let about = "Echo or chat on edge-triggered epoll: one event loop for each worker";
    launch::main(env!("CARGO_PKG_NAME"), about, serve)
}

fn serve(launch: &'static Launch) -> Result<(), Failure> {
    let mut wakers = Vec::new();
    for _ in 0..launch.workers {
        let waker = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC);
        wakers.push(waker.map_err(Failure::of("eventfd"))?);
    }
    let hub = || Mutex::new(Hub::new(Arc::clone(&launch.settings), launch.workers));
    let hub = (launch.settings.mode == Mode::Chat).then(hub);
    let shared: &'static Shared = Box::leak(Box::new(Shared { launch, wakers, hub }));

    let mut workers = Vec::new();
    for (index, listeners) in launch.listeners_each()?.into_iter().enumerate() {
        workers.push(Worker::new(index, shared, listeners).map_err(Failure::of("epoll"))?);
    }
    launch.on_stop(|| shared.wakers.iter().for_each(wake))?;
    launch.run_each(workers, Worker::run)
}

/// What all workers share.
struct Shared {
    launch: &'static Launch,
    /// One eventfd for each worker: to write to it ends the worker's wait.
    wakers: Vec<OwnedFd>,
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
    epoll: OwnedFd,
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
    /// What epoll has reported and no system call has disproved.
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
        listeners: Vec<TcpListener>,
    ) -> io::Result<Worker> {
        let launch = shared.launch;
        let waker = &shared.wakers[index];
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let interest = EventFlags::IN | EventFlags::ET;
        epoll::add(&epoll, waker, EventData::new_u64(WAKE), interest)?;
        for listener in &listeners {
            listener.set_nonblocking(true)?;
            epoll::add(&epoll, listener, EventData::new_u64(LISTENER), interest)?;
        }
        Ok(Worker {
            shared,
            counters: launch.counters(index),
            epoll,
            listeners,
            accept_at: Time::NEVER,
            conns: Connections::new(&launch.settings, index),
            read_next: BTreeSet::new(),
            now: launch.now(),
            buffer: vec![0; READ_SIZE],
        })
    }

    fn run(mut self) -> Result<(), Failure> {
        let mut events = Vec::with_capacity(EVENTS);
        while !self.conns.finished() {
            self.wait(&mut events)?;
            for id in mem::take(&mut self.read_next) {
                self.ready(id, EventFlags::empty());
            }
            for event in events.drain(..) {
                match event.data.u64() {
                    LISTENER => self.accept_at = self.accept_at.min(self.now), // See `end_turn`.
                    WAKE => self.woken(),
                    token => self.ready(ConnId::from_bits(token), event.flags),
                }
            }
            self.end_turn();
            // Touched: the turn has queued something for it, or its deadline has passed. Closing a
            // connection can leave mail for other members in the hub. Then `next_deadline` is in
            // the past: the next wait ends at once, and the next turn fetches that mail.
            while let Some(id) = self.conns.next_touched() {
                // A socket takes a little long before epoll says so. A peer that reads slowly would
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
    fn wait(&mut self, events: &mut Vec<Event>) -> Result<(), Failure> {
        let next = self.conns.next_deadline().min(self.accept_at);
        let next = if self.read_next.is_empty() { next } else { self.now };
        let timeout = next.timeout(self.now).and_then(|left| Timespec::try_from(left).ok());
        match epoll::wait(&self.epoll, spare_capacity(events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(Failure::of("epoll_wait")(error)),
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
            match launch::accept_nonblocking(&self.listeners[at]) {
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
        let Some(conn) = self.conns.get(id) else { return };
        let data = EventData::new_u64(id.bits());
        let all = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::PRI;
        if epoll::add(&self.epoll, &conn.io.socket, data, all | EventFlags::ET).is_err() {
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
    fn ready(&mut self, id: ConnId, flags: EventFlags) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        conn.io.readable |= flags.contains(EventFlags::IN);
        conn.io.writable |= flags.contains(EventFlags::OUT);
        conn.io.behind |= flags.intersects(EventFlags::RDHUP | EventFlags::PRI);
        // epoll reports these two even if they were not asked for: the connection is dead. If it
        // may be read, `read` fetches what is left, then the end or the error.
        conn.dead |= flags.intersects(EventFlags::HUP | EventFlags::ERR);
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
        // Closing the only descriptor of a socket takes it out of the epoll set.
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

/// Does not fail: nothing reads the counter, and it is full after 2^64 - 2 writes only.
fn wake(waker: &OwnedFd) {
    let _ = rustix::io::write(waker, &1_u64.to_ne_bytes());
}
