//! An event loop on portable readiness: mio tells once what has become ready, and we remember it.
//!
//! **Who waits where:** each worker, in `mio::Poll` (`epoll_wait`), for all of its sockets at once.
//! **What wakes it:** a socket that has become ready, the next deadline, or its `mio::Waker`, which
//! is used when the server stops and when another worker has mail for one of its members.
//!
//! mio is edge-triggered: it names a socket when something has changed, and not again. So each is
//! registered once, for everything, and two bits remember what it is ready for until a call would
//! block. Who has spent its budget before that, or may be read again, is in a list: no sleep then.
//!
//! Run: `cargo run --release -p serve-mio -- --mode chat`
//! Read next: `serve-polling`, the other portable loop, told once and no more until it asks again.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{self, Shutdown, SocketAddr};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use launch::{Counters, Failure, Launch, Place};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker, event::Event};
use protocol::{ConnId, Deadlines, Due, Hub, Mail, Mode, Next, Outbox, Session, Slots, Time};

/// Tokens that are no [`ConnId`]: their top byte is not zero.
const LISTENER: Token = Token(usize::MAX);
const WAKE: Token = Token(usize::MAX - 1);
const _: () = assert!(usize::BITS == 64, "a ConnId fits a token");

/// Events fetched in one turn.
const EVENTS: usize = 256;
/// Connections accepted in one turn, so that a storm of them does not starve those inside.
const ACCEPTS: usize = 64;
/// The most slices in one vectored write.
const SLICES: usize = 64;
/// How long to leave the listener alone when there are no descriptors to be had.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);
/// What a worker is made of.
type Own = (Poll, net::TcpListener);

fn main() -> ExitCode {
    let about = "Echo or chat on mio, edge-triggered: one event loop for each worker";
    launch::main(env!("CARGO_PKG_NAME"), about, serve)
}

fn serve(launch: &'static Launch) -> Result<(), Failure> {
    let hub = Hub::new(Arc::clone(&launch.settings), launch.workers);
    let polls: Result<Vec<_>, _> = (0..launch.workers).map(|_| Poll::new()).collect();
    let polls = polls.map_err(Failure::of("mio"))?;
    let wakes = polls.iter().map(|poll| Waker::new(poll.registry(), WAKE));
    let shared: &'static Shared = Box::leak(Box::new(Shared {
        launch,
        wakes: wakes.collect::<Result<_, _>>().map_err(Failure::of("mio"))?,
        hub: (launch.settings.mode == Mode::Chat).then(|| Mutex::new(hub)),
    }));

    let mut threads = Vec::new();
    for (index, own) in polls.into_iter().zip(launch.listen_each()?).enumerate() {
        let worker = Worker::new(index, shared, own).map_err(Failure::of("mio"))?;
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
    /// Each worker's waker.
    wakes: Vec<Waker>,
    /// In chat only. Its lock is never held across a system call.
    hub: Option<Mutex<Hub>>,
}

/// One event loop, with all that belongs to it alone.
struct Worker {
    index: usize,
    shared: &'static Shared,
    counters: &'static Counters,
    poll: Poll,
    /// None once the server stops.
    listener: Option<TcpListener>,
    /// When to accept again, for what has been announced and was not accepted.
    accept_at: Time,
    conns: Slots<Conn>,
    /// Who has more to read, which is not announced again.
    listed: BTreeSet<ConnId>,
    deadlines: Deadlines,
    /// When to stop for good, once the server stops.
    drain_until: Time,
    /// The instant of this turn.
    now: Time,
    buffer: Vec<u8>,
    mail: Vec<Mail>,
    /// Whose outbox was empty before the mail came. The others are written to when mio says.
    dirty: Vec<ConnId>,
}

struct Conn {
    /// Before the socket: whoever sees the connection end finds the place free.
    _place: Place,
    socket: TcpStream,
    session: Session,
    outbox: Outbox,
    /// What the socket is ready for, until it would block, and whether it may be read at all.
    readable: bool,
    writable: bool,
    reading: bool,
}

impl Worker {
    fn new(index: usize, shared: &'static Shared, (poll, listener): Own) -> io::Result<Worker> {
        listener.set_nonblocking(true)?;
        let mut listener = TcpListener::from_std(listener);
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Worker {
            index,
            shared,
            counters: shared.launch.counters(index),
            poll,
            listener: Some(listener),
            accept_at: Time::NEVER,
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
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let next = self.deadlines.next().min(self.accept_at).min(self.drain_until);
            let next = if self.listed.is_empty() { next } else { self.now };
            let timeout = (next < Time::NEVER).then(|| next.after(self.now));
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result.map_err(Failure::of("mio"))?,
            }
            self.counters.wakeups.add(1);
            self.now = self.shared.launch.now();
            std::mem::take(&mut self.listed).into_iter().for_each(|id| self.read(id));
            for event in &events {
                match event.token() {
                    LISTENER if self.accept_at < Time::NEVER => {} // `expire` goes on with it.
                    LISTENER => self.accept(),
                    WAKE => self.woken(),
                    Token(bits) => self.ready(ConnId::from_bits(bits as u64), event),
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
            match listener.accept() {
                Ok((socket, peer)) => self.admit(socket, peer),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return self.counters.would_blocks.add(1);
                }
                Err(error) if launch::is_shortage(&error) => {
                    self.counters.shortages.add(1);
                    return self.accept_at = self.now + SHORTAGE_PAUSE;
                }
                _ => self.counters.accept_errors.add(1),
            }
        }
        self.accept_at = self.now; // There may be more, which will not be announced again.
    }

    fn admit(&mut self, socket: TcpStream, peer: SocketAddr) {
        let (launch, peer) = (self.shared.launch, peer.ip());
        let Some(place) = launch.admit(&socket, peer, self.counters) else { return };
        let session = Session::new(&launch.settings, self.now);
        let (outbox, readable, writable, reading) = (Outbox::default(), false, true, true);
        let conn = Conn { socket, session, outbox, readable, writable, reading, _place: place };
        let (id, conn) = self.conns.insert(conn);
        let (token, all) = (Token(id.bits() as usize), Interest::READABLE | Interest::WRITABLE);
        if self.poll.registry().register(&mut conn.socket, token, all).is_err() {
            return drop(self.conns.remove(id));
        }
        if let Some(hub) = &self.shared.hub {
            lock(hub).open(id, &peer.to_string(), self.now);
        }
        self.settle(id);
    }

    /// A socket is ready. If its connection is closed now, or its slot another's, nobody is found.
    fn ready(&mut self, id: ConnId, event: &Event) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        conn.readable |= event.is_readable();
        conn.writable |= event.is_writable();
        // Told whether asked for or not: the peer is gone for good.
        if !conn.reading && event.is_error() {
            return self.close(id, "Connection reset");
        }
        if !conn.outbox.is_empty() {
            self.write(id);
        }
        self.read(id);
    }

    /// Reads until the socket would block, as mio demands, or until the budget is spent.
    fn read(&mut self, id: ConnId) {
        let mut left = self.buffer.len();
        let able = |conn: &&mut Conn| conn.readable && conn.reading;
        while left > 0 {
            let Some(conn) = self.conns.get_mut(id).filter(able) else { return };
            match conn.socket.read(&mut self.buffer[..left]) {
                Ok(len) => {
                    self.counters.bytes_in.add(len as u64);
                    if len == 0 {
                        conn.session.end();
                    }
                    self.handle(id, len);
                    left = left.saturating_sub(len.max(4096)); // Reading little is not free.
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.counters.would_blocks.add(1);
                    conn.readable = false;
                }
                Err(_) => {
                    self.counters.read_errors.add(1);
                    return self.close(id, "Connection reset");
                }
            }
        }
        self.listed.insert(id);
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
        while conn.writable && !conn.outbox.is_empty() {
            match send(&conn.socket, &conn.outbox) {
                Ok(len) => {
                    self.counters.bytes_out.add(len as u64);
                    conn.outbox.advance(len);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.counters.would_blocks.add(1);
                    conn.writable = false;
                }
                Err(_) => {
                    self.counters.write_errors.add(1);
                    return self.close(id, "Connection reset");
                }
            }
        }
        self.settle(id);
    }

    /// Lists the connection if it may be read again and has something to read for all we know.
    fn settle(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        let read = match conn.session.next(&conn.outbox) {
            Next::Serve { read } => read,
            Next::Shut => {
                let _ = conn.socket.shutdown(Shutdown::Write); // Fails if the peer has gone.
                true
            }
            Next::Close => return self.close(id, "Connection closed"),
        };
        if !std::mem::replace(&mut conn.reading, read) && read && conn.readable {
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
            self.accept();
        }
    }

    /// Somebody used this worker's waker: there is mail, or the server stops.
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

    fn close(&mut self, id: ConnId, reason: &str) {
        // Closing the only descriptor of a socket ends its registration.
        let Some(_closed) = self.conns.remove(id) else { return };
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

/// It can only fail when there is no waker left to wake.
fn wake(waker: &Waker) {
    let _ = waker.wake();
}

/// A panic ends the process, so no lock is found poisoned.
fn lock(hub: &Mutex<Hub>) -> MutexGuard<'_, Hub> {
    hub.lock().unwrap_or_else(PoisonError::into_inner)
}
