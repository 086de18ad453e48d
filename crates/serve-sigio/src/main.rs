//! Signal-driven I/O: the kernel tells of each socket by a signal, which is queued and waited for.
//!
//! **Who waits where:** each worker, in `sigtimedwait`, for all signals meant for its thread.
//! **What wakes it:** a real-time signal from a socket, which names its descriptor; another, which
//! is sent when the server stops and when another worker has mail for one of its members; the next
//! deadline. No handler ever runs: all are blocked. What came meanwhile, a signalfd gives at once.
//!
//! A signal is a hint: each segment that comes queues one, and its descriptor may be another's now.
//! So, as with edges, a connection keeps its ready bits until a system call shows that they are
//! over. If the queue is full, a plain SIGIO comes instead: then `poll` is asked, about everybody.
//!
//! Run: `cargo run --release -p serve-sigio -- --mode chat`
//! Read next: `serve-epoll-edge`, told by events what this one is told by signals.

mod signals;

use std::collections::{BTreeSet, HashMap};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use launch::{Counters, Failure, Launch, Place};
use protocol::{ConnId, Deadlines, Due, Hub, Mail, Mode, Next, Outbox, Session, Slots, Time};
use rustix::event::PollFlags;
use rustix::net::{SocketAddrAny, SocketFlags, acceptfrom_with};
use rustix::thread::{Pid, gettid};

use crate::signals::{Signals, Told, wake};

/// Connections accepted in one turn, so that a storm of them does not starve those inside.
const ACCEPTS: usize = 64;
/// The most slices in one vectored write.
const SLICES: usize = 64;
/// How long to leave the listener alone when there are no descriptors to be had.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let about = "Echo or chat on queued signals: one event loop for each worker";
    launch::main(env!("CARGO_PKG_NAME"), about, serve)
}

fn serve(launch: &'static Launch) -> Result<(), Failure> {
    let hub = Hub::new(Arc::clone(&launch.settings), launch.workers);
    signals::block().map_err(Failure::of("sigprocmask"))?;
    let shared: &'static Shared = Box::leak(Box::new(Shared {
        launch,
        threads: (0..launch.workers).map(|_| OnceLock::new()).collect(),
        hub: (launch.settings.mode == Mode::Chat).then(|| Mutex::new(hub)),
    }));

    let mut threads = Vec::new();
    for (index, listener) in launch.listen_each()?.into_iter().enumerate() {
        let new = move || Worker::new(index, shared, listener).map_err(Failure::of("signals"));
        let run = || new().and_then(Worker::run).unwrap_or_else(|failure| launch.abort(&failure));
        threads.push(thread::Builder::new().spawn(run).map_err(Failure::of("thread"))?);
    }
    shared.threads.iter().for_each(|thread| _ = thread.wait());
    launch.on_stop(|| shared.threads.iter().for_each(wake))?;
    launch.announce();
    threads.into_iter().for_each(|thread| drop(thread.join()));
    Ok(())
}

/// What all workers share.
struct Shared {
    launch: &'static Launch,
    /// Each worker's thread, once it has started.
    threads: Vec<OnceLock<Pid>>,
    /// In chat only. Its lock is never held across a system call.
    hub: Option<Mutex<Hub>>,
}

/// One event loop, with all that belongs to it alone.
struct Worker {
    index: usize,
    shared: &'static Shared,
    counters: &'static Counters,
    signals: Signals,
    /// Whose the descriptor is that a signal names.
    owners: HashMap<RawFd, ConnId>,
    /// None once the server stops.
    listener: Option<TcpListener>,
    /// When to accept again, for what has been announced and was not accepted.
    accept_at: Time,
    conns: Slots<Conn>,
    /// Who has more to read, which nobody tells again. Each is read once a turn, after all signals.
    listed: BTreeSet<ConnId>,
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
    /// Before the socket: whoever sees the connection end finds the place free.
    _place: Place,
    socket: TcpStream,
    session: Session,
    outbox: Outbox,
    /// What was told and no system call has shown to be over; and whether we want to read.
    ready: PollFlags,
    reading: bool,
}

impl Worker {
    fn new(index: usize, shared: &'static Shared, listener: TcpListener) -> io::Result<Worker> {
        signals::arm(&listener)?;
        Ok(Worker {
            index,
            shared,
            counters: shared.launch.counters(index),
            signals: Signals::new()?,
            owners: HashMap::new(),
            listener: Some(listener),
            accept_at: Time::ZERO, // Of those who are there already, nobody will tell.
            conns: Slots::new(index),
            listed: BTreeSet::new(),
            deadlines: Deadlines::default(),
            drain_until: Time::NEVER,
            now: shared.launch.now(),
            buffer: vec![0; shared.launch.read_size()],
            mail: Vec::new(),
            dirty: Vec::new(),
        })
    }

    fn run(mut self) -> Result<(), Failure> {
        self.shared.threads[self.index].get_or_init(gettid);
        loop {
            let next = self.deadlines.next().min(self.accept_at).min(self.drain_until);
            let next = if self.listed.is_empty() { next } else { self.now };
            self.signals.wait(next, self.now).map_err(Failure::of("sigtimedwait"))?;
            self.counters.wakeups.add(1);
            self.now = self.shared.launch.now();
            while let Some(told) = self.signals.next() {
                match told {
                    Told::Socket(fd, flags) => match self.owners.get(&fd) {
                        Some(&id) => self.ready(id, flags),
                        // The listener's, or closed since: to accept in vain harms nobody.
                        None if self.accept_at < Time::NEVER => {} // `expire` goes on with it.
                        None => self.accept_at = self.now,
                    },
                    Told::Wake => self.woken(),
                    Told::Overflow => self.overflow()?,
                }
            }
            std::mem::take(&mut self.listed).into_iter().for_each(|id| self.read(id));
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
                    self.counters.shortages.add(1);
                    return self.accept_at = self.now + SHORTAGE_PAUSE;
                }
                _ => self.counters.accept_errors.add(1),
            }
        }
        self.accept_at = self.now; // There may be more, which will not be announced again.
    }

    fn admit(&mut self, socket: TcpStream, peer: SocketAddrAny) {
        let launch = self.shared.launch;
        let Ok(peer) = SocketAddr::try_from(peer).map(|peer| peer.ip()) else { return };
        let Some(place) = launch.admit(&socket, peer, self.counters) else { return };
        let session = Session::new(&launch.settings, self.now);
        let (outbox, ready, reading) = (Outbox::default(), PollFlags::OUT, true);
        let conn = Conn { socket, session, outbox, ready, reading, _place: place };
        let (id, conn) = self.conns.insert(conn);
        if signals::arm(&conn.socket).is_err() {
            return drop(self.conns.remove(id));
        }
        self.owners.insert(conn.socket.as_raw_fd(), id);
        if let Some(hub) = &self.shared.hub {
            lock(hub).open(id, &peer.to_string(), self.now);
        }
        // Of what has come before, and how much, nobody will tell.
        self.ready(id, PollFlags::IN | PollFlags::PRI);
    }

    /// Something may have happened to it; or to the former owner of its descriptor, which is vain.
    fn ready(&mut self, id: ConnId, flags: PollFlags) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        if (flags & conn.ready).contains(PollFlags::IN) {
            conn.ready.insert(PollFlags::PRI); // Told twice: there may be more than one thing.
        }
        conn.ready.insert(flags);
        // Told whether asked for or not; but maybe of the former owner, so the socket is asked.
        if !conn.reading && flags.contains(PollFlags::ERR) && signals::has_failed(&conn.socket) {
            return self.close(id, "Connection reset");
        }
        self.write(id);
    }

    fn read(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id).filter(|conn| conn.reading) else { return };
        match (&conn.socket).read(&mut self.buffer) {
            Ok(len) => {
                self.counters.bytes_in.add(len as u64);
                // A short read empties the socket, if there was one thing to read.
                let behind = conn.ready.contains(PollFlags::PRI);
                conn.ready.set(PollFlags::IN, behind || len == self.buffer.len());
                if len == 0 {
                    conn.session.end();
                }
                self.handle(id, len);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.counters.would_blocks.add(1);
                conn.ready.remove(PollFlags::IN | PollFlags::PRI);
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
        while !conn.outbox.is_empty() && conn.ready.contains(PollFlags::OUT) {
            match send(&conn.socket, &conn.outbox) {
                Ok(len) => {
                    self.counters.bytes_out.add(len as u64);
                    conn.outbox.advance(len);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.counters.would_blocks.add(1);
                    conn.ready.remove(PollFlags::OUT);
                }
                Err(_) => {
                    self.counters.write_errors.add(1);
                    return self.close(id, "Connection reset");
                }
            }
        }
        self.settle(id);
    }

    /// Lists the connection if it can use now what was told and was not used up.
    fn settle(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        conn.reading = match conn.session.next(&conn.outbox) {
            Next::Serve { read } => read,
            Next::Shut => {
                let _ = conn.socket.shutdown(Shutdown::Write); // Fails if the peer has gone.
                true
            }
            Next::Close => return self.close(id, "Connection closed"),
        };
        if conn.reading && conn.ready.contains(PollFlags::IN) {
            self.listed.insert(id);
        }
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
            others.for_each(|worker| wake(&self.shared.threads[worker]));
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
        wake(&self.shared.threads[self.index]); // There may be more.
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
            self.accept();
        }
    }

    /// Somebody sent a signal: there is mail, which the end of the turn brings, or it is to stop.
    fn woken(&mut self) {
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
            conn.session.stop(launch::has_unread(&conn.socket), &conn.outbox);
            self.handle(id, 0);
        }
    }

    /// The queue was full, and nobody knows what is missing: empties it and has `poll` tell it all.
    fn overflow(&mut self) -> Result<(), Failure> {
        self.counters.overflows.add(1);
        self.signals.discard();
        self.accept_at = if self.accept_at < Time::NEVER { self.accept_at } else { self.now };
        self.woken();
        let ids: Vec<_> = self.conns.ids().collect();
        let sockets = ids.iter().filter_map(|id| Some(&self.conns.get(*id)?.socket));
        let flags = signals::poll(sockets).map_err(Failure::of("poll"))?;
        ids.into_iter().zip(flags).for_each(|(id, flags)| self.ready(id, flags));
        Ok(())
    }

    fn close(&mut self, id: ConnId, reason: &str) {
        let Some(closed) = self.conns.remove(id) else { return };
        self.owners.remove(&closed.socket.as_raw_fd());
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

/// A panic ends the process, so no lock is found poisoned.
fn lock(hub: &Mutex<Hub>) -> MutexGuard<'_, Hub> {
    hub.lock().unwrap_or_else(PoisonError::into_inner)
}
