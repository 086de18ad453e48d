//! Multiplexed I/O with `select`: one loop hands the kernel sets of all its sockets, each time.
//!
//! **Who waits where:** each worker, in `select`, for all of its sockets at once.
//! **What wakes it:** a socket that is ready, the next deadline, or its eventfd, which is written
//! when the server stops and when another worker has mail for one of its members.
//!
//! The kernel remembers nothing between two calls: it asks every socket of both sets and writes the
//! answer over them, so every wake-up costs as much as there are connections. A set has 1024 bits,
//! whatever `--max-connections` says: a client whose descriptor is higher is told that the server
//! is full.
//!
//! In chat each connection is a member. The hub (`protocol::Hub`) hears the lines of all members
//! and decides what each of them is told: that is the member's mail. All workers share one hub.
//!
//! What is common to all event loops (the connections, what is queued, which deadline is next, what
//! the hub has sent) is in `protocol::Connections`, which never waits; the order of its calls is
//! drawn at the top of `protocol/src/connections/mod.rs`. This file is the waiting. A turn is one
//! pass of its loop.
//!
//! Run: `cargo run --release -p serve-select -- --mode chat`
//! Read first: `examples/bare.rs`, this model without all that a server needs.
//! Read next: `serve-poll`, with no such limit, and `serve-epoll-level`, where the list stays in
//! the kernel.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{iter, thread};

use launch::{Counters, Failure, IoSlices, Launch, Place, READ_SIZE};
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::select::{FD_SETSIZE, FdSet, pselect};
use nix::sys::time::TimeSpec;
use protocol::{ConnId, Connections, Hub, Mode, Next, Outbox, Time};
use rustix::event::{EventfdFlags, eventfd};

/// Tokens that are no [`ConnId`]: their top byte is not zero.
const LISTENER: u64 = u64::MAX;
const WAKE: u64 = u64::MAX - 1;

/// From here on there is no bit for a descriptor: C writes past the end of the set, nix panics.
const BEYOND: i32 = FD_SETSIZE as i32;
/// Some of those below are the server's own.
const MOST_CONNECTIONS: usize = 1000;
/// Connections accepted from a listener at a time: many new ones do not starve those that are open.
const ACCEPTS: usize = 64;
/// How long to leave the listeners alone when there are no descriptors left.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let about =
        "Echo or chat on select, for up to 1024 descriptors: one event loop for each worker";
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
        let highest = listeners.iter().map(AsRawFd::as_raw_fd).max();
        if highest.max(Some(shared.wakers[index].as_raw_fd())) >= Some(BEYOND) {
            return Err(Failure::Unsupported("no descriptor below 1024 is free for select".into()));
        }
        workers.push(Worker::new(index, shared, listeners).map_err(Failure::of("listener"))?);
    }
    launch.warn_beyond(MOST_CONNECTIONS, "select watches descriptors below 1024");
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
    waker: &'static OwnedFd,
    /// Empty once the server stops.
    listeners: Vec<TcpListener>,
    /// When to accept again after a shortage.
    accept_at: Time,
    conns: Connections<At>,
    /// The sockets of `conns`, without gaps: what each turn goes through.
    watched: Vec<Watched>,
    /// The instant of this turn.
    now: Time,
    buffer: Vec<u8>,
}

/// Where the socket of a connection is in [`Worker::watched`].
struct At(usize);

/// What this model keeps for a connection.
struct Watched {
    /// Holds one of `--max-connections`. It is freed before `socket` is closed, so that a client
    /// that sees the connection close can connect again at once.
    _place: Place,
    socket: TcpStream,
    id: ConnId,
    /// Into which sets it goes: IN, to read, and OUT, to write.
    interest: PollFlags,
}

impl Worker {
    fn new(
        index: usize,
        shared: &'static Shared,
        listeners: Vec<TcpListener>,
    ) -> io::Result<Worker> {
        let launch = shared.launch;
        for listener in &listeners {
            listener.set_nonblocking(true)?;
        }
        Ok(Worker {
            shared,
            counters: launch.counters(index),
            waker: &shared.wakers[index],
            listeners,
            accept_at: Time::NEVER,
            conns: Connections::new(&launch.settings, index),
            watched: Vec::new(),
            now: launch.now(),
            buffer: vec![0; READ_SIZE],
        })
    }

    fn run(mut self) -> Result<(), Failure> {
        let mut events = Vec::new();
        while !self.conns.finished() {
            self.wait(&mut events)?;
            for (token, flags) in events.drain(..) {
                match token {
                    LISTENER => self.accept(),
                    WAKE => self.woken(),
                    token => self.ready(ConnId::from_bits(token), flags),
                }
            }
            self.end_turn();
            // Touched: the turn has queued something for it, or its deadline has passed. Closing a
            // connection can leave mail for other members in the hub. Then `next_deadline` is in
            // the past: the next wait ends at once, and the next turn fetches that mail.
            while let Some(id) = self.conns.next_touched() {
                self.write(id);
                self.settle(id);
            }
        }
        Ok(())
    }

    /// Waits until there is something to do. A signal that interrupts it does no harm: then there
    /// are no events.
    fn wait(&mut self, events: &mut Vec<(u64, PollFlags)>) -> Result<(), Failure> {
        let next = self.conns.next_deadline().min(self.accept_at);
        let timeout = next.timeout(self.now).map(TimeSpec::from);
        let mut fds = Vec::with_capacity(self.watched.len() + 2);
        fds.extend(self.watched.iter().map(|it| (it.socket.as_fd(), it.interest)));
        fds.push((self.waker.as_fd(), PollFlags::POLLIN));
        // After a shortage the listeners stay ready: were they watched, the loop would spin.
        if self.accept_at == Time::NEVER {
            fds.extend(self.listeners.iter().map(|it| (it.as_fd(), PollFlags::POLLIN)));
        }
        let (mut reads, mut writes, mut end) = (FdSet::new(), FdSet::new(), 0);
        for (fd, interest) in &fds {
            end = end.max(fd.as_raw_fd() + 1);
            if interest.contains(PollFlags::POLLIN) {
                reads.insert(*fd);
            }
            if interest.contains(PollFlags::POLLOUT) {
                writes.insert(*fd);
            }
        }
        let count = match pselect(end, &mut reads, &mut writes, None, timeout.as_ref(), None) {
            Ok(count) => count as usize,
            Err(Errno::EINTR) => 0,
            Err(Errno::ENOMEM) => {
                // It has to copy the sets. Nothing tells when there is memory again.
                self.counters.shortages.add(1);
                thread::sleep(SHORTAGE_PAUSE);
                0
            }
            Err(error) => return Err(Failure::of("select")(error)),
        };

        let ids = self.watched.iter().map(|watched| watched.id.bits());
        let tokens = ids.chain([WAKE]).chain(iter::repeat(LISTENER));
        let ready = tokens.zip(fds.iter().map(|(fd, _)| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::POLLIN, reads.contains(*fd));
            flags.set(PollFlags::POLLOUT, writes.contains(*fd));
            flags
        }));
        events.extend(ready.filter(|(_, flags)| !flags.is_empty()).take(count));
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
    }

    fn admit(&mut self, socket: TcpStream, peer: IpAddr) {
        let Some(place) = self.shared.launch.admit(&socket, peer, self.counters) else { return };
        let host = place.peer().to_string();
        if socket.as_raw_fd() >= BEYOND {
            self.shared.launch.refuse(&socket, self.counters);
            return;
        }
        let at = At(self.watched.len());
        let id = self.conns.open(at, &host, self.now, self.shared.lock_hub().as_deref_mut());
        self.watched.push(Watched { _place: place, socket, id, interest: PollFlags::POLLIN });
    }

    /// The waker was used: there is mail, which the end of the turn brings, or the server stops.
    fn woken(&mut self) {
        let _ = rustix::io::read(self.waker, &mut [0; 8]);
        if self.shared.launch.stop.requested() {
            self.listeners.clear();
            let (hub, watched) = (&mut self.shared.lock_hub(), &self.watched);
            let is_busy = |at: &At| launch::is_busy(&watched[at.0].socket);
            self.conns.stop(hub.as_deref_mut(), is_busy);
        }
    }

    /// A socket is ready. The event may be stale: if its connection was closed earlier in this
    /// turn, the id finds none, even if its slot has another tenant already.
    fn ready(&mut self, id: ConnId, flags: PollFlags) {
        let Some(conn) = self.conns.get(id) else { return };
        // The set to read has a peer that is gone, too.
        if (self.watched[conn.io.0].interest & flags).contains(PollFlags::POLLIN) {
            self.read(id);
        }
        self.write(id);
        self.settle(id);
    }

    fn read(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        match (&self.watched[conn.io.0].socket).read(&mut self.buffer) {
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
            match send(&self.watched[conn.io.0].socket, &conn.outbox) {
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

    /// Makes select watch for what the connection can use now.
    fn settle(&mut self, id: ConnId) {
        let Some((next, conn)) = self.conns.settle(id, self.now) else { return };
        let Watched { socket, interest, .. } = &mut self.watched[conn.io.0];
        let read = match next {
            Next::Serve { read } => read,
            Next::Shut => {
                let _ = socket.shutdown(Shutdown::Write); // Fails if the peer has gone.
                true
            }
            Next::Close(reason) => {
                self.close(id, reason);
                return;
            }
        };

        interest.set(PollFlags::POLLIN, read);
        interest.set(PollFlags::POLLOUT, !conn.outbox.is_empty());
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
        }
    }

    fn close(&mut self, id: ConnId, reason: &str) {
        let closed = self.conns.close(id, reason, self.shared.lock_hub().as_deref_mut());
        let Some(At(at)) = closed.map(|conn| conn.io) else { return };
        drop(self.watched.swap_remove(at));
        if let Some(moved) = self.watched.get(at).and_then(|it| self.conns.get_mut(it.id)) {
            moved.io = At(at);
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

/// Fails only when the counter is full, and then the reader is awake anyway.
fn wake(waker: &OwnedFd) {
    let _ = rustix::io::write(waker, &1_u64.to_ne_bytes());
}
