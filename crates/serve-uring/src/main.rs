//! Asynchronous I/O: one loop tells the kernel what to do, and hears when it is done.
//!
//! **Who waits where:** each worker, in `io_uring_enter`, for all that it has asked for.
//! **What wakes it:** a completion, the next deadline, or a message from another worker's ring,
//! sent when the server stops and when there is mail for one of its members.
//!
//! No socket is asked whether it is ready. The listener is told once to accept and each socket once
//! to receive, into buffers of the ring that are lent when there is something to put there; both
//! complete again and again (multishot) until one says that no more comes, and is told anew. What a
//! turn has to send goes to the kernel in the call that waits for the next. The price: the kernel
//! reads and writes our memory on its own. What it sends must stay where it is until it says so,
//! and a connection that is closed stays until the last that was asked for it has completed; the
//! generation in its [`ConnId`] keeps that from the next tenant of its slot. What the compiler
//! cannot check of this is in `ring.rs`.
//!
//! Run: `cargo run --release -p serve-uring -- --mode chat`
//! Read next: `serve-epoll-level`, which is told what is ready instead of what is done, and
//! `serve-compio`, whose runtime hides this loop.

mod ring;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use launch::{Counters, Failure, Launch, Place};
use protocol::{ConnId, Deadlines, Due, Hub, Mail, Mode, Next, Outbox, Session, Slots, Time};

use crate::ring::{Bell, Completion, Flight, Received, Ring, Sizes};

/// How long to leave the listener alone when there are no descriptors to be had.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let about = "Echo or chat on io_uring: one completion loop for each worker";
    launch::main(env!("CARGO_PKG_NAME"), about, serve)
}

fn serve(launch: &'static Launch<Sizes>) -> Result<(), Failure> {
    let hub = Hub::new(Arc::clone(&launch.settings), launch.workers);
    let rings: Result<Vec<_>, _> = (0..launch.workers).map(|_| Ring::new(launch)).collect();
    let (rings, mut bell) = (rings?, Bell::new()?);
    let doors: Result<Vec<_>, _> = rings.iter().map(Ring::door).collect();
    let shared: &'static Shared = Box::leak(Box::new(Shared {
        launch,
        doors: doors.map_err(Failure::of("io_uring"))?,
        hub: (launch.settings.mode == Mode::Chat).then(|| Mutex::new(hub)),
    }));

    let mut threads = Vec::new();
    for (index, (listener, ring)) in launch.listen_each()?.into_iter().zip(rings).enumerate() {
        let worker = Worker::new(index, shared, listener, ring);
        let run = || worker.run().unwrap_or_else(|failure| launch.abort(&failure));
        threads.push(thread::Builder::new().spawn(run).map_err(Failure::of("thread"))?);
    }
    launch.on_stop(move || shared.doors.iter().for_each(|door| bell.ring(door)))?;
    launch.announce();
    threads.into_iter().for_each(|thread| drop(thread.join()));
    Ok(())
}

/// What all workers share.
struct Shared {
    launch: &'static Launch<Sizes>,
    /// Where each worker's ring can be told something.
    doors: Vec<OwnedFd>,
    /// In chat only. Its lock is never held across a system call.
    hub: Option<Mutex<Hub>>,
}

/// One completion loop, with all that belongs to it alone.
struct Worker {
    /// Dropped first: then the kernel knows none of the memory below any more.
    ring: Ring,
    index: usize,
    shared: &'static Shared,
    counters: &'static Counters,
    /// None once the server stops.
    listener: Option<TcpListener>,
    /// When to tell the ring to accept; after a shortage, later than at once.
    accept_at: Time,
    conns: Slots<Conn>,
    /// Closed, and kept for what the kernel still does with them.
    leaving: HashMap<ConnId, Conn>,
    deadlines: Deadlines,
    /// When to stop for good, once the server stops.
    drain_until: Time,
    /// The instant of this turn.
    now: Time,
    mail: Vec<Mail>,
    /// To whom something has happened in this turn, at whose end all is submitted at once.
    dirty: VecDeque<ConnId>,
    /// Whether there may be mail that nobody will tell of.
    behind: bool,
}

struct Conn {
    /// Before the socket: whoever sees the connection end finds the place free.
    _place: Place,
    socket: TcpStream,
    session: Session,
    outbox: Outbox,
    flight: Flight,
    /// Whether what is received is welcome.
    reading: bool,
}

impl Worker {
    fn new(index: usize, shared: &'static Shared, listener: TcpListener, ring: Ring) -> Worker {
        Worker {
            ring,
            index,
            shared,
            counters: shared.launch.counters(index),
            listener: Some(listener),
            accept_at: Time::ZERO,
            conns: Slots::new(index),
            leaving: HashMap::new(),
            deadlines: Deadlines::default(),
            drain_until: Time::NEVER,
            now: shared.launch.now(),
            mail: Vec::new(),
            dirty: VecDeque::new(),
            behind: false,
        }
    }

    fn run(mut self) -> Result<(), Failure> {
        self.ring.enable().map_err(Failure::of("io_uring"))?;
        self.woken(); // Before, it could not be told anything.
        self.expire();
        loop {
            let next = self.deadlines.next().min(self.accept_at).min(self.drain_until);
            let next = if self.behind { self.now } else { next };
            let timeout = (next < Time::NEVER).then(|| next.after(self.now));
            let overflowed = self.ring.wait(timeout).map_err(Failure::of("io_uring_enter"))?;
            self.counters.overflows.add(u64::from(overflowed));
            self.counters.wakeups.add(1);
            self.now = self.shared.launch.now();
            while let Some(completion) = self.ring.next() {
                self.ready(completion);
            }
            self.expire();
            self.deliver();
            let drained = self.listener.is_none() && self.conns.is_empty();
            if drained || self.drain_until <= self.now {
                return Ok(());
            }
        }
    }

    fn accept(&mut self, socket: io::Result<TcpStream>, more: bool) {
        if !more {
            self.accept_at = self.now;
        }
        match socket {
            _ if self.listener.is_none() => {}
            Ok(socket) => self.admit(socket),
            Err(error) if launch::is_shortage(&error) => {
                // Were it told to accept at once, it would fail at once.
                self.counters.shortages.add(1);
                self.accept_at = self.now + SHORTAGE_PAUSE;
            }
            Err(_) => self.counters.accept_errors.add(1),
        }
    }

    fn admit(&mut self, socket: TcpStream) {
        let launch = self.shared.launch;
        let Ok(peer) = socket.peer_addr().map(|peer| peer.ip()) else { return };
        let Some(place) = launch.admit(&socket, peer, self.counters) else { return };
        let session = Session::new(&launch.settings, self.now);
        let (outbox, flight) = (Outbox::default(), Flight::default());
        let conn = Conn { socket, session, outbox, flight, reading: true, _place: place };
        let (id, _) = self.conns.insert(conn);
        if let Some(hub) = &self.shared.hub {
            lock(hub).open(id, &peer.to_string(), self.now);
        }
        self.dirty.push_back(id);
    }

    /// Something is done, or a step of it.
    fn ready(&mut self, completion: Completion) {
        match completion {
            Completion::Accepted { socket, more } => self.accept(socket, more),
            Completion::Received { id, received, more } => {
                self.read(id, &received, more);
                self.ring.give_back(received); // The protocol has copied what it wants to keep.
            }
            Completion::Sent { id, len } => self.sent(id, len),
            Completion::Woken => self.woken(),
            Completion::Untold { worker } => self.ring.tell(&self.shared.doors[worker], worker),
        }
    }

    fn read(&mut self, id: ConnId, received: &Received, more: bool) {
        let Some(conn) = self.conns.get_mut(id) else {
            return self.release(id, |conn| conn.flight.receiving = more);
        };
        conn.flight.receiving = more;
        match received {
            Received::Bytes { len, .. } => {
                if more && !conn.reading {
                    // A pause costs nothing unless more comes meanwhile. Now it has: no more.
                    self.ring.cancel_receive(id);
                }
                self.counters.bytes_in.add(*len as u64);
            }
            Received::End => conn.session.end(),
            // The buffers ran out into completions that stand before this one, so they are back:
            // there is nothing to wait for before it is told to receive again.
            Received::Starved => self.counters.would_blocks.add(1),
            Received::Cancelled => {}
            Received::Failed => {
                self.counters.read_errors.add(1);
                return self.close(id, "Connection reset");
            }
        }
        self.handle(id, received);
    }

    /// Gives what has come to the protocol, and writes what comes back.
    fn handle(&mut self, id: ConnId, received: &Received) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        let (input, now) = (self.ring.bytes(received), self.now);
        let lines = match &self.shared.hub {
            None => conn.session.echo(input, now, &mut conn.outbox),
            Some(hub) => {
                let mut hub = lock(hub);
                conn.session.chat(input, now, |line| hub.line(id, line, now))
            }
        };
        self.counters.lines.add(lines);
        self.shared.launch.burn(lines);
        self.dirty.push_back(id);
    }

    /// Sends what is queued, unless a send is in flight: two would not keep their order.
    fn write(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        if !conn.flight.sending && !conn.outbox.is_empty() {
            conn.flight.sending = true;
            // SAFETY: until `sending` is false again, which `sent` and `release` see to, the outbox
            // is not advanced, and no connection is dropped that has something in flight.
            unsafe { self.ring.send(&conn.socket, &mut conn.outbox, id) };
        }
        self.settle(id);
    }

    fn sent(&mut self, id: ConnId, len: io::Result<usize>) {
        let Some(conn) = self.conns.get_mut(id) else {
            return self.release(id, |conn| conn.flight.sending = false);
        };
        conn.flight.sending = false;
        let Ok(len) = len else {
            self.counters.write_errors.add(1);
            return self.close(id, "Connection reset");
        };
        self.counters.bytes_out.add(len as u64);
        conn.outbox.advance(len);
        self.dirty.push_back(id);
    }

    /// Makes the socket receive if the connection can use it and it does not do so yet.
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
        if conn.reading && !conn.flight.receiving {
            conn.flight.receiving = true;
            self.ring.receive(&conn.socket, id);
        }
        self.deadlines.set(id, conn.session.deadline(&conn.outbox));
    }

    /// Writes to everybody to whom something has happened, and to whom the mail brings something.
    /// There may be more of it each time that it is looked for. But what is written leaves with the
    /// next call only, and mail upon mail would fill the queue of a member who reads.
    fn deliver(&mut self) {
        self.behind = self.collect();
        while let Some(id) = self.dirty.pop_front() {
            self.write(id);
        }
    }

    /// Takes the hub's mail to this worker's members, and tells the other workers that have some.
    /// Says whether there may be more.
    fn collect(&mut self) -> bool {
        let Some(hub) = &self.shared.hub else { return false };
        let mark = self.shared.launch.settings.limits.high_water();
        let late = |conn: &Conn| !conn.flight.sending && conn.outbox.len() > mark;
        if self.dirty.iter().any(|id| self.conns.get(*id).is_some_and(late)) {
            return true; // Such a member takes all that is sent at once: it is we who are slow.
        }
        let mut locked = lock(hub);
        locked.take(self.index, &mut self.mail);
        let others = locked.wakes(self.index);
        drop(locked);
        others.for_each(|worker| self.ring.tell(&self.shared.doors[worker], worker));
        let any = !self.mail.is_empty();
        for Mail { to, parcel } in self.mail.drain(..) {
            let Some(conn) = self.conns.get_mut(to) else { continue };
            self.dirty.extend(conn.outbox.is_empty().then_some(to));
            if conn.session.post(parcel, self.now, &mut conn.outbox).is_err() {
                self.counters.slow_cut.add(1);
                lock(hub).cut(to, protocol::SENDQ_EXCEEDED);
            }
            self.deadlines.set(to, conn.session.deadline(&conn.outbox));
        }
        any
    }

    fn expire(&mut self) {
        while let Some(id) = self.deadlines.expired(self.now) {
            let Some(conn) = self.conns.get_mut(id) else { continue };
            let due = self.counters.expired(conn.session.expire(self.now, &conn.outbox));
            match (due, &self.shared.hub) {
                (Due::Later, _) => self.dirty.push_back(id),
                (Due::Resume, _) => self.handle(id, &Received::Cancelled),
                // What the hub says to it comes as mail, and settles it then.
                (Due::Ping, Some(hub)) => lock(hub).ping(id),
                (Due::Cut(reason), Some(hub)) => lock(hub).cut(id, reason),
                _ => self.close(id, "Timed out"),
            }
        }
        if self.accept_at <= self.now {
            self.accept_at = Time::NEVER;
            if let Some(listener) = &self.listener {
                self.ring.accept(listener);
            }
        }
    }

    /// Another ring told this one to look: there is mail, which the end of the turn brings, or the
    /// server stops.
    fn woken(&mut self) {
        if !self.shared.launch.stop.requested() || self.listener.take().is_none() {
            return;
        }
        self.ring.cancel_accept();
        self.drain_until = self.now + self.shared.launch.drain_timeout;
        if let Some(hub) = &self.shared.hub {
            // Its last words come as mail, and then each member has time to end its stream.
            return lock(hub).shut_down();
        }
        for id in self.conns.ids().collect::<Vec<_>>() {
            let Some(conn) = self.conns.get_mut(id) else { continue };
            conn.session.stop(launch::has_unread(&conn.socket), &conn.outbox);
            self.handle(id, &Received::Cancelled);
        }
    }

    fn close(&mut self, id: ConnId, reason: &str) {
        let Some(conn) = self.conns.remove(id) else { return };
        self.deadlines.clear(id);
        if let Some(hub) = &self.shared.hub {
            lock(hub).leave(id, reason);
            self.behind = true; // It may have told others of this worker.
        }
        self.ring.cancel(id, &conn.flight);
        self.leaving.insert(id, conn);
        self.release(id, |_| {});
    }

    /// Something of a connection that was closed is done: with the last, it is dropped.
    fn release(&mut self, id: ConnId, note: impl FnOnce(&mut Conn)) {
        let Some(conn) = self.leaving.get_mut(&id) else { return };
        note(conn);
        if !conn.flight.sending && !conn.flight.receiving {
            self.leaving.remove(&id);
            if self.accept_at < Time::NEVER {
                self.accept_at = self.now; // A descriptor is free again.
            }
        }
    }
}

/// A panic ends the process, so no lock is found poisoned.
fn lock(hub: &Mutex<Hub>) -> MutexGuard<'_, Hub> {
    hub.lock().unwrap_or_else(PoisonError::into_inner)
}
