//! Multiplexed I/O with `select`: one loop hands the kernel sets of all its sockets, each time.
//!
//! **Who waits where:** each worker, in `select`, for all of its sockets at once.
//! **What wakes it:** a socket that is ready, the next deadline, or its eventfd, which is written
//! when the server stops and when another worker has mail for one of its members.
//!
//! The kernel remembers nothing between two calls: it asks every socket of both sets and writes the
//! answer over them, so every wake-up costs as much as there are connections. A set has 1024 bits,
//! whatever `--max-connections` says: who gets a higher descriptor is told that the server is full.
//!
//! Run: `cargo run --release -p serve-select -- --mode chat`
//! Read next: `serve-poll`, with no such limit, and `serve-epoll-level`, where the list stays.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use launch::{Counters, Failure, Launch, Place};
use nix::sys::select::{FD_SETSIZE, FdSet, pselect};
use nix::sys::time::TimeSpec;
use protocol::{ConnId, Deadlines, Due, Hub, Mail, Mode, Next, Outbox, Session, Slots, Time};
use rustix::event::{EventfdFlags, eventfd};
use rustix::net::{SocketAddrAny, SocketFlags, acceptfrom_with};

/// Tokens that are no [`ConnId`]: their top byte is not zero.
const LISTENER: u64 = u64::MAX;
const WAKE: u64 = u64::MAX - 1;
/// From here on there is no bit for a descriptor: C writes past the end of the set, nix panics.
const BEYOND: i32 = FD_SETSIZE as i32;
/// Some of those below are the server's own.
const MOST_CONNECTIONS: usize = 1000;
/// Connections accepted in one turn, so that a storm of them does not starve those inside.
const ACCEPTS: usize = 64;
/// The most slices in one vectored write.
const SLICES: usize = 64;
/// How long to leave the listener alone when there are no descriptors to be had.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let about =
        "Echo or chat on select, for up to 1024 descriptors: one event loop for each worker";
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
        if listener.as_raw_fd().max(shared.wakes[index].as_raw_fd()) >= BEYOND {
            return Err(Failure::Unsupported("no descriptor below 1024 is free for select".into()));
        }
        let worker = Worker::new(index, shared, listener).map_err(Failure::of("listener"))?;
        let run = || worker.run().unwrap_or_else(|failure| launch.abort(&failure));
        threads.push(thread::Builder::new().spawn(run).map_err(Failure::of("thread"))?);
    }
    launch.on_stop(|| shared.wakes.iter().for_each(wake))?;
    launch.warn_beyond(MOST_CONNECTIONS, "select watches descriptors below 1024");
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
    /// Whose outbox was empty before the mail came. The others are written to when select says.
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
    interest: (bool, bool), // Whether it goes into the set to read, and into the set to write.
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
            let timeout = (next < Time::NEVER).then(|| TimeSpec::from(next.after(self.now)));
            let listener = self.listener.iter().filter(|_| self.accept_at == Time::NEVER);
            let mut fds = Vec::with_capacity(self.watched.len() + 2);
            fds.extend(self.watched.iter().map(|it| (it.socket.as_fd(), it.interest)));
            fds.push((self.shared.wakes[self.index].as_fd(), (true, false)));
            fds.extend(listener.map(|listener| (listener.as_fd(), (true, false))));
            let (mut reads, mut writes) = (FdSet::new(), FdSet::new());
            fds.iter().filter(|it| it.1.0).for_each(|it| reads.insert(it.0));
            fds.iter().filter(|it| it.1.1).for_each(|it| writes.insert(it.0));
            let end = fds.iter().map(|it| it.0.as_raw_fd() + 1).max();
            let count = match pselect(end, &mut reads, &mut writes, None, timeout.as_ref(), None) {
                Err(nix::errno::Errno::EINTR) => continue,
                result => result.map_err(Failure::of("select"))?,
            };
            let tokens = self.watched.iter().map(|it| it.id.bits()).chain([WAKE, LISTENER]);
            let told = fds.iter().map(|it| (reads.contains(it.0), writes.contains(it.0)));
            events.extend(tokens.zip(told).filter(|(_, it)| it.0 || it.1).take(count as usize));
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
        if socket.as_raw_fd() >= BEYOND {
            self.counters.refused.add(1);
            let error = if self.shared.hub.is_some() { "ERROR :The" } else { "ERR the" };
            return drop((&socket).write(format!("{error} server is full\r\n").as_bytes()));
        }
        let session = Session::new(&launch.settings, self.now);
        let (at, outbox) = (self.watched.len(), Outbox::default());
        let (id, _) = self.conns.insert(Conn { at, session, outbox });
        self.watched.push(Watched { _place: place, socket, id, interest: (true, false) });
        if let Some(hub) = &self.shared.hub {
            lock(hub).open(id, &peer.to_string(), self.now);
        }
        self.settle(id);
    }

    /// A socket is ready. If its connection is closed now, or its slot another's, nobody is found.
    fn ready(&mut self, id: ConnId, flags: (bool, bool)) {
        if flags.0 && self.conns.get(id).is_some_and(|conn| self.watched[conn.at].interest.0) {
            self.read(id);
        }
        if flags.1 {
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

    /// Makes select watch for what the connection can use now.
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
        *interest = (read, !conn.outbox.is_empty());
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

    /// The eventfd was written to: there is mail, for the end of the turn, or the server stops.
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
