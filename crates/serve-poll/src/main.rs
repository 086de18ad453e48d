//! Multiplexed I/O with `poll`: one loop hands the kernel the list of all its sockets, each time.
//!
//! **Who waits where:** each worker, in `poll`, for all of its sockets at once.
//! **What wakes it:** a socket that is ready, the next deadline, or its eventfd, which is written
//! when the server stops and when another worker has mail for one of its members.
//!
//! The kernel remembers nothing between two calls: it goes through the whole list and asks every
//! socket. So what we cannot use is switched off for nothing, and every wake-up costs as much as
//! there are connections. Our list is dense: one that closes gives its place to the last. Safe Rust
//! lends descriptors to one call only, so the kernel's is written anew from it, 8 bytes for each.
//!
//! Run: `cargo run --release -p serve-poll -- --mode chat`
//! Read next: `serve-select`, with sets of bits, and `serve-epoll-level`, where the list stays.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use launch::{Counters, Failure, Launch, Place};
use protocol::{ConnId, Deadlines, Due, Hub, Mail, Mode, Next, Outbox, Session, Slots, Time};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::net::{SocketAddrAny, SocketFlags, acceptfrom_with};

/// Tokens that are no [`ConnId`]: their top byte is not zero.
const LISTENER: u64 = u64::MAX;
const WAKE: u64 = u64::MAX - 1;

/// Connections accepted in one turn, so that a storm of them does not starve those inside.
const ACCEPTS: usize = 64;
/// The most slices in one vectored write.
const SLICES: usize = 64;
/// How long to leave the listener alone when there are no descriptors to be had.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let about = "Echo or chat on poll: one event loop for each worker";
    launch::main(env!("CARGO_PKG_NAME"), about, serve)
}

fn serve(launch: &'static Launch) -> Result<(), Failure> {
    let hub = Hub::new(Arc::clone(&launch.settings), launch.workers);
    let new_wake = |_| eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC);
    let wakes: Result<Vec<_>, _> = (0..launch.workers).map(new_wake).collect();
    let shared: &'static Shared = Box::leak(Box::new(Shared {
        launch,
        wakes: wakes.map_err(Failure::of("eventfd"))?,
        hub: (launch.settings.mode == Mode::Chat).then(|| Mutex::new(hub)),
    }));

    let mut threads = Vec::new();
    for (index, listener) in launch.listen_each()?.into_iter().enumerate() {
        let worker = Worker::new(index, shared, listener).map_err(Failure::of("listener"))?;
        let run = || worker.run().unwrap_or_else(|failure| launch.abort(&failure));
        threads.push(thread::Builder::new().spawn(run).map_err(Failure::of("thread"))?);
    }
    launch.on_stop(|| shared.wakes.iter().for_each(wake))?;
    launch.announce();
    threads.into_iter().for_each(|thread| drop(thread.join()));
    Ok(())
}

/// What all workers share.
struct Shared {
    launch: &'static Launch,
    /// Each worker's eventfd.
    wakes: Vec<OwnedFd>,
    /// In chat only. Its lock is never held across a system call.
    hub: Option<Mutex<Hub>>,
}

/// One event loop, with all that belongs to it alone.
struct Worker {
    index: usize,
    shared: &'static Shared,
    counters: &'static Counters,
    /// None once the server stops.
    listener: Option<TcpListener>,
    /// When to accept again after a shortage.
    accept_at: Time,
    conns: Slots<Conn>,
    /// The sockets of `conns`, without gaps: what each turn goes through.
    watched: Vec<Watched>,
    deadlines: Deadlines,
    /// When to stop for good, once the server stops.
    drain_until: Time,
    /// The instant of this turn.
    now: Time,
    buffer: Vec<u8>,
    mail: Vec<Mail>,
    /// Whose outbox was empty before the mail came. The others are written to when POLLOUT says.
    dirty: Vec<ConnId>,
}

struct Conn {
    at: usize, // Where its socket is in `watched`.
    session: Session,
    outbox: Outbox,
}

struct Watched {
    /// Before the socket: whoever sees the connection end finds the place free.
    _place: Place,
    socket: TcpStream,
    id: ConnId,
    interest: PollFlags, // What poll is to watch for.
}

impl Worker {
    fn new(index: usize, shared: &'static Shared, listener: TcpListener) -> io::Result<Worker> {
        listener.set_nonblocking(true)?;
        Ok(Worker {
            index,
            shared,
            counters: shared.launch.counters(index),
            listener: Some(listener),
            accept_at: Time::NEVER,
            conns: Slots::new(index),
            watched: Vec::new(),
            deadlines: Deadlines::default(),
            drain_until: Time::NEVER,
            now: shared.launch.now(),
            buffer: vec![0; shared.launch.read_size()],
            mail: Vec::new(),
            dirty: Vec::new(),
        })
    }

    fn run(mut self) -> Result<(), Failure> {
        let mut events = Vec::new();
        loop {
            let next = self.deadlines.next().min(self.accept_at).min(self.drain_until);
            let timeout = Timespec::try_from(next.after(self.now)).ok();
            let timeout = timeout.filter(|_| next < Time::NEVER);
            let listener = self.listener.iter().filter(|_| self.accept_at == Time::NEVER);
            let mut fds = Vec::with_capacity(self.watched.len() + 2);
            fds.extend(self.watched.iter().map(|it| PollFd::new(&it.socket, it.interest)));
            fds.push(PollFd::new(&self.shared.wakes[self.index], PollFlags::IN));
            fds.extend(listener.map(|listener| PollFd::new(listener, PollFlags::IN)));
            let count = match poll(&mut fds, timeout.as_ref()) {
                Err(rustix::io::Errno::INTR) => continue,
                result => result.map_err(Failure::of("poll"))?,
            };
            let tokens = self.watched.iter().map(|it| it.id.bits()).chain([WAKE, LISTENER]);
            let told = tokens.zip(fds.iter().map(PollFd::revents));
            events.extend(told.filter(|(_, flags)| !flags.is_empty()).take(count));
            self.counters.wakeups.add(1);
            self.now = self.shared.launch.now();
            for (token, flags) in events.drain(..) {
                match token {
                    LISTENER => self.accept(),
                    WAKE => self.woken(),
                    token => self.ready(ConnId::from_bits(token), flags),
                }
            }
            self.expire();
            self.deliver();
            let drained = self.listener.is_none() && self.conns.is_empty();
            if drained || self.drain_until <= self.now {
                return Ok(());
            }
        }
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPTS {
            let Some(listener) = &self.listener else { return };
            match acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok((socket, Some(peer))) => self.admit(TcpStream::from(socket), peer),
                Err(rustix::io::Errno::AGAIN) => return self.counters.would_blocks.add(1),
                Err(error) if launch::is_shortage(&error.into()) => {
                    // The listener stays ready: were it watched on, the loop would spin.
                    self.counters.shortages.add(1);
                    return self.accept_at = self.now + SHORTAGE_PAUSE;
                }
                _ => self.counters.accept_errors.add(1),
            }
        }
    }

    fn admit(&mut self, socket: TcpStream, peer: SocketAddrAny) {
        let launch = self.shared.launch;
        let Ok(peer) = SocketAddr::try_from(peer).map(|peer| peer.ip()) else { return };
        let Some(place) = launch.admit(&socket, peer, self.counters) else { return };
        let session = Session::new(&launch.settings, self.now);
        let (at, outbox) = (self.watched.len(), Outbox::default());
        let (id, _) = self.conns.insert(Conn { at, session, outbox });
        self.watched.push(Watched { _place: place, socket, id, interest: PollFlags::IN });
        if let Some(hub) = &self.shared.hub {
            lock(hub).open(id, &peer.to_string(), self.now);
        }
        self.settle(id);
    }

    /// A socket is ready. If its connection is closed now, or its slot another's, nobody is found.
    fn ready(&mut self, id: ConnId, flags: PollFlags) {
        let Some(conn) = self.conns.get(id) else { return };
        // Told whether asked for or not: the peer is gone for good.
        let gone = flags.intersects(PollFlags::HUP | PollFlags::ERR);
        match self.watched[conn.at].interest.contains(PollFlags::IN) {
            true if gone || flags.contains(PollFlags::IN) => self.read(id),
            false if gone => return self.close(id, "Connection reset"),
            _ => {}
        }
        if flags.contains(PollFlags::OUT) {
            self.write(id);
        }
    }

    fn read(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        match (&self.watched[conn.at].socket).read(&mut self.buffer) {
            Ok(len) => {
                self.counters.bytes_in.add(len as u64);
                if len == 0 {
                    conn.session.end();
                }
                self.handle(id, len);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.counters.would_blocks.add(1);
            }
            Err(_) => {
                self.counters.read_errors.add(1);
                self.close(id, "Connection reset");
            }
        }
    }

    /// Gives the first `len` bytes of the buffer to the protocol, and writes what comes back.
    fn handle(&mut self, id: ConnId, len: usize) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        let (input, now) = (&self.buffer[..len], self.now);
        let lines = match &self.shared.hub {
            None => conn.session.echo(input, now, &mut conn.outbox),
            Some(hub) => {
                let mut hub = lock(hub);
                conn.session.chat(input, now, |line| hub.line(id, line, now))
            }
        };
        self.counters.lines.add(lines);
        self.shared.launch.burn(lines);
        self.write(id);
    }

    fn write(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        while !conn.outbox.is_empty() {
            match send(&self.watched[conn.at].socket, &conn.outbox) {
                Ok(len) => {
                    self.counters.bytes_out.add(len as u64);
                    conn.outbox.advance(len);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.counters.would_blocks.add(1);
                    break;
                }
                Err(_) => {
                    self.counters.write_errors.add(1);
                    return self.close(id, "Connection reset");
                }
            }
        }
        self.settle(id);
    }

    /// Makes poll watch for what the connection can use now.
    fn settle(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        let Watched { socket, interest, .. } = &mut self.watched[conn.at];
        let read = match conn.session.next(&conn.outbox) {
            Next::Serve { read } => read,
            Next::Shut => {
                let _ = socket.shutdown(Shutdown::Write); // Fails if the peer has gone.
                true
            }
            Next::Close => return self.close(id, "Connection closed"),
        };
        interest.set(PollFlags::IN, read);
        interest.set(PollFlags::OUT, !conn.outbox.is_empty());
        self.deadlines.set(id, conn.session.deadline(&conn.outbox));
    }

    /// Brings the hub's mail to this worker's members, each of whom is written to once however
    /// many lines there are, and wakes the other workers that have got some. Twice at most: while
    /// those speak, there is more each time, and everybody else here would wait for the end of it.
    fn deliver(&mut self) {
        let Some(hub) = &self.shared.hub else { return };
        for _ in 0..2 {
            let mut locked = lock(hub);
            locked.take(self.index, &mut self.mail);
            let others = locked.wakes(self.index);
            drop(locked);
            others.for_each(|worker| wake(&self.shared.wakes[worker]));
            if self.mail.is_empty() {
                return;
            }
            for Mail { to, parcel } in self.mail.drain(..) {
                let Some(conn) = self.conns.get_mut(to) else { continue };
                self.dirty.extend(conn.outbox.is_empty().then_some(to));
                if conn.session.post(parcel, self.now, &mut conn.outbox).is_err() {
                    self.counters.slow_cut.add(1);
                    lock(hub).cut(to, protocol::SENDQ_EXCEEDED);
                }
                self.deadlines.set(to, conn.session.deadline(&conn.outbox));
            }
            while let Some(id) = self.dirty.pop() {
                self.write(id);
            }
        }
        wake(&self.shared.wakes[self.index]); // There may be more.
    }

    fn expire(&mut self) {
        while let Some(id) = self.deadlines.expired(self.now) {
            let Some(conn) = self.conns.get_mut(id) else { continue };
            let due = self.counters.expired(conn.session.expire(self.now, &conn.outbox));
            match (due, &self.shared.hub) {
                (Due::Later, _) => self.settle(id),
                (Due::Resume, _) => self.handle(id, 0),
                // What the hub says to it comes as mail, and settles it then.
                (Due::Ping, Some(hub)) => lock(hub).ping(id),
                (Due::Cut(reason), Some(hub)) => lock(hub).cut(id, reason),
                _ => self.close(id, "Timed out"),
            }
        }
        if self.accept_at <= self.now {
            self.accept_at = Time::NEVER;
        }
    }

    /// Somebody wrote to this worker's eventfd: there is mail, which the end of the turn brings,
    /// or the server stops.
    fn woken(&mut self) {
        let _ = rustix::io::read(&self.shared.wakes[self.index], &mut [0; 8]);
        if !self.shared.launch.stop.requested() || self.listener.take().is_none() {
            return;
        }
        self.drain_until = self.now + self.shared.launch.drain_timeout;
        if let Some(hub) = &self.shared.hub {
            // Its last words come as mail, and then each member has time to end its stream.
            return lock(hub).shut_down();
        }
        for id in self.conns.ids().collect::<Vec<_>>() {
            let Some(conn) = self.conns.get_mut(id) else { continue };
            conn.session.stop(launch::has_unread(&self.watched[conn.at].socket), &conn.outbox);
            self.handle(id, 0);
        }
    }

    fn close(&mut self, id: ConnId, reason: &str) {
        let Some(conn) = self.conns.remove(id) else { return };
        let _closed = self.watched.swap_remove(conn.at);
        if let Some(moved) = self.watched.get(conn.at).and_then(|it| self.conns.get_mut(it.id)) {
            moved.at = conn.at;
        }
        self.deadlines.clear(id);
        if let Some(hub) = &self.shared.hub {
            lock(hub).leave(id, reason);
        }
        if self.accept_at < Time::NEVER {
            self.accept_at = self.now; // A descriptor is free again.
        }
    }
}

/// One system call for as much as it takes of what is queued.
fn send(mut socket: &TcpStream, outbox: &Outbox) -> io::Result<usize> {
    let mut slices = [IoSlice::new(&[]); SLICES];
    let filled = slices.iter_mut().zip(outbox.slices());
    match filled.map(|(slice, bytes)| *slice = IoSlice::new(bytes)).count() {
        1 => socket.write(&slices[0]),
        count => socket.write_vectored(&slices[..count]),
    }
}

/// It can only fail when the counter is full, and then the reader is awake anyway.
fn wake(eventfd: &OwnedFd) {
    let _ = rustix::io::write(eventfd, &1_u64.to_ne_bytes());
}

/// A panic ends the process, so no lock is found poisoned.
fn lock(hub: &Mutex<Hub>) -> MutexGuard<'_, Hub> {
    hub.lock().unwrap_or_else(PoisonError::into_inner)
}
