//! Asynchronous I/O: one loop tells the kernel what to do, and learns when it is done.
//!
//! **Who waits where:** each worker, in `io_uring_enter`, for all that it has asked for.
//! **What wakes it:** a completion, the next deadline, or a message to its ring. Another worker
//! sends one when it has mail for a member here, and the stop signal sends one to each worker.
//!
//! No socket is asked whether it is ready. One request accepts from each listener, and one receives
//! from each socket, into buffers of the ring: the kernel takes a buffer only when bytes have come.
//! Such a request completes again and again (multishot), until a completion says that it was the
//! last. Then it is made again. What a turn has to send goes to the kernel in the call that waits
//! for the next turn.
//!
//! The price: from a request to its completion the kernel may use the memory that the request
//! names. Bytes that are being sent must neither move nor change. A connection that is closed stays
//! in [`Worker::leaving`] until its last request has completed. Each [`ConnId`] contains a
//! generation, so a late completion is not taken for one of the next connection in the same slot.
//! What the compiler cannot check of this is in `ring.rs`.
//!
//! In chat each connection is a member. The hub (`protocol::Hub`) hears the lines of all members
//! and decides what each of them is told: that is the member's mail. All workers share one hub.
//!
//! What is common to all event loops (the connections, what is queued, which deadline is next, what
//! the hub has sent) is in `protocol::Connections`, which never waits; the order of its calls is
//! drawn at the top of `protocol/src/connections/mod.rs`. This file is the waiting. A turn is one
//! pass of its loop.
//!
//! Run: `cargo run --release -p serve-uring -- --mode chat`
//! Read first: `examples/bare.rs`, this model without all that a server needs.
//! Read next: `serve-epoll-level`, which learns what is ready instead of what is done, and
//! `serve-compio`, whose runtime hides this loop.

mod ring;

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use launch::{Counters, Failure, Launch, Place};
use protocol::{ConnId, Connection, Connections, Hub, Mode, Next, Time};

use crate::ring::{Completion, Flight, Received, Ring, Sizes, Waker};

/// How long to leave the listeners alone when there are no descriptors left.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let about = "Echo or chat on io_uring: one completion loop for each worker";
    launch::main(env!("CARGO_PKG_NAME"), about, serve)
}

fn serve(launch: &'static Launch<Sizes>) -> Result<(), Failure> {
    let (mut rings, mut ring_fds) = (Vec::new(), Vec::new());
    for _ in 0..launch.workers {
        let ring = Ring::new(launch)?;
        ring_fds.push(ring.fd().map_err(Failure::of("io_uring"))?);
        rings.push(ring);
    }
    // The thread of the signals has a ring of its own: a message to a ring is sent from a ring.
    let mut waker = Waker::new()?;
    let hub = || Mutex::new(Hub::new(Arc::clone(&launch.settings), launch.workers));
    let hub = (launch.settings.mode == Mode::Chat).then(hub);
    let shared: &'static Shared = Box::leak(Box::new(Shared { launch, ring_fds, hub }));

    let (ready, started) = mpsc::channel();
    let mut workers = Vec::new();
    for (index, (listeners, ring)) in launch.listeners_each()?.into_iter().zip(rings).enumerate() {
        workers.push(Worker::new(index, shared, listeners, ring, ready.clone()));
    }
    launch.on_stop(move || shared.ring_fds.iter().for_each(|fd| waker.wake(fd)))?;
    // The server announces itself when the ring of each worker is on, or one could not be.
    let all_are_on = || started.iter().take(launch.workers).collect();
    launch.run_each_when(workers, Worker::run, all_are_on)
}

/// What all workers share.
struct Shared {
    launch: &'static Launch<Sizes>,
    /// One for each worker: a message to its ring ends the worker's wait.
    ring_fds: Vec<OwnedFd>,
    /// In chat only. Its lock is never held across a call that can wait.
    hub: Option<Mutex<Hub>>,
}

impl Shared {
    fn lock_hub(&self) -> Option<MutexGuard<'_, Hub>> {
        // A panic ends the process, so no lock is found poisoned.
        self.hub.as_ref().map(|hub| hub.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One completion loop, with all that belongs to it alone.
struct Worker {
    /// Dropped first: then the kernel knows none of the memory below any more.
    ring: Ring,
    shared: &'static Shared,
    counters: &'static Counters,
    /// Where it says whether its ring is on. Before that the server does not announce itself.
    ready: Sender<Result<(), Failure>>,
    /// Empty once the server stops.
    listeners: Vec<TcpListener>,
    /// Listeners that have no request to accept.
    to_accept: Vec<usize>,
    /// When to make those requests: at the end of the turn, or later after a shortage.
    accept_at: Time,
    conns: Connections<Io>,
    /// Closed, and kept for what the kernel still does with them.
    leaving: HashMap<ConnId, Connection<Io>>,
    /// The instant of this turn.
    now: Time,
}

/// What this model keeps for a connection.
struct Io {
    /// Holds one of `--max-connections`. It is freed before `socket` is closed, so that a client
    /// that sees the connection close can connect again at once.
    _place: Place,
    socket: TcpStream,
    flight: Flight,
    /// Whether the session wants input. `flight.receiving` says whether a request to receive is
    /// with the kernel.
    reading: bool,
}

impl Worker {
    fn new(
        index: usize,
        shared: &'static Shared,
        listeners: Vec<TcpListener>,
        ring: Ring,
        ready: Sender<Result<(), Failure>>,
    ) -> Worker {
        let launch = shared.launch;
        Worker {
            ring,
            shared,
            ready,
            counters: launch.counters(index),
            to_accept: (0..listeners.len()).collect(),
            listeners,
            accept_at: Time::ZERO,
            conns: Connections::new(&launch.settings, index),
            leaving: HashMap::new(),
            now: launch.now(),
        }
    }

    fn run(mut self) -> Result<(), Failure> {
        let enabled = self.ring.enable().map_err(Failure::of("io_uring"));
        let is_on = enabled.is_ok();
        let _ = self.ready.send(enabled); // It fails only if the server is about to end.
        if !is_on {
            return Ok(()); // The main thread ends the process.
        }
        self.woken(); // Perhaps the server stops already: a ring that was off got no message.
        self.end_turn(); // Makes the first requests to accept.
        while !self.conns.finished() {
            self.wait()?;
            while let Some(completion) = self.ring.next() {
                self.complete(completion);
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

    /// Submits all that was asked for, and waits until there is something to do.
    fn wait(&mut self) -> Result<(), Failure> {
        let next = self.conns.next_deadline().min(self.accept_at);
        let overflowed = self.ring.wait(next.timeout(self.now));
        let overflowed = overflowed.map_err(Failure::of("io_uring_enter"))?;
        self.counters.overflows.add(u64::from(overflowed));
        self.counters.wakeups.add(1);
        self.now = self.shared.launch.now();
        Ok(())
    }

    /// A request has completed. A multishot request does so many times.
    fn complete(&mut self, completion: Completion) {
        match completion {
            Completion::Accepted { listener, socket, more } => self.accept(listener, socket, more),
            Completion::Received { id, received, more } => {
                self.read(id, &received, more);
                self.ring.give_back(received); // The protocol has copied what it wants to keep.
            }
            Completion::Sent { id, len } => self.sent(id, len),
            Completion::Watched { id, dead, more } => self.watched(id, dead, more),
            Completion::Woken => self.woken(),
            Completion::NotWoken { worker } => {
                self.ring.wake(&self.shared.ring_fds[worker], worker)
            }
        }
    }

    fn accept(&mut self, listener: usize, socket: io::Result<TcpStream>, more: bool) {
        if self.conns.is_stopping() {
            return;
        }
        if !more {
            self.to_accept.push(listener);
            self.accept_at = self.now;
        }
        match socket {
            Ok(socket) => self.admit(socket),
            Err(error) if launch::is_shortage(&error) => {
                self.counters.shortages.add(1);
                // A request to accept that is made at once would fail at once.
                self.accept_at = self.now + SHORTAGE_PAUSE;
            }
            Err(_) => self.counters.accept_errors.add(1),
        }
    }

    fn admit(&mut self, socket: TcpStream) {
        let Ok(peer) = socket.peer_addr() else { return };
        let Some(place) = self.shared.launch.admit(&socket, peer.ip(), self.counters) else {
            return;
        };
        let host = place.peer().to_string();
        let io = Io { _place: place, socket, flight: Flight::default(), reading: true };
        let id = self.conns.open(io, &host, self.now, self.shared.lock_hub().as_deref_mut());
        // At the end of the turn `settle` makes its first request to receive.
        self.conns.touch(id);
    }

    /// A message from another ring has come: there is mail, which the end of the turn brings, or
    /// the server stops.
    fn woken(&mut self) {
        if self.shared.launch.stop.requested() && !self.conns.is_stopping() {
            for listener in 0..self.listeners.len() {
                self.ring.cancel_accept(listener);
            }
            self.to_accept.clear();
            self.listeners.clear();
            // What the ring has received is in no socket any more, but is unread all the same.
            for id in self.ring.left() {
                if let Some(conn) = self.conns.get_mut(id) {
                    conn.io.flight.unread = true;
                }
            }
            let unknown = self.ring.has_overflowed(); // Any connection may have some more.
            let is_busy = |io: &Io| unknown || io.flight.unread || launch::is_busy(&io.socket);
            // `is_busy` makes system calls, and none is made under the hub's lock: `stop` calls it
            // in echo only, where there is no hub.
            let mut hub = self.shared.lock_hub();
            self.conns.stop(hub.as_deref_mut(), is_busy);
        }
    }

    /// Notes what a completion says of its connection's requests. The completion may be late: then
    /// the connection is in `leaving`, and there is nothing else to do.
    fn note(&mut self, id: ConnId, note: impl FnOnce(&mut Flight)) -> Option<&mut Connection<Io>> {
        if let Some(conn) = self.leaving.get_mut(&id) {
            note(&mut conn.io.flight);
            self.release(id);
            return None;
        }
        let conn = self.conns.get_mut(id)?;
        note(&mut conn.io.flight);
        Some(conn)
    }

    /// A receive has brought something.
    fn read(&mut self, id: ConnId, received: &Received, more: bool) {
        let Some(conn) = self.note(id, |flight| flight.receiving = more) else { return };
        match received {
            Received::Bytes { .. } | Received::End => {
                if more && !conn.io.reading {
                    // The session pauses. `settle` has left the receive as it was, since often
                    // nothing comes before the session goes on. Now something has come.
                    self.ring.cancel_receive(id);
                }
                let bytes = self.ring.bytes(received);
                self.counters.bytes_in.add(bytes.len() as u64);
                let mut hub = self.shared.lock_hub();
                let done = self.conns.received(id, bytes, self.now, hub.as_deref_mut());
                drop(hub);
                // Counts the lines, and burns the processor for `--work`: so without the lock.
                self.shared.launch.account(done, self.counters);
            }
            // There was no free buffer. All of them are in completions that stand before this one,
            // so they are free again: `settle` can make the request again at once.
            Received::Starved => self.counters.would_blocks.add(1),
            Received::Cancelled => {}
            Received::Failed => {
                self.counters.read_errors.add(1);
                self.close(id, "Connection reset");
            }
        }
        self.conns.touch(id);
    }

    /// Sends what is queued, unless a send is in flight: two would not keep their order. The kernel
    /// goes on with that one only when a third of the socket's buffer is free. That may take a peer
    /// longer than it may be silent. So before it is given up, its send is made again: a new one is
    /// tried at once, and goes on if the peer has taken anything at all.
    fn write(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        conn.io.flight.renewing = conn.io.flight.sending && conn.is_doubted();
        if conn.io.flight.renewing {
            self.ring.cancel_send(id); // When it has completed, this function is called again.
        } else if !conn.io.flight.sending && !conn.outbox.is_empty() {
            conn.io.flight.sending = true;
            // SAFETY: until `sent` sets `sending` to false again, the outbox is not advanced, and
            // `release` drops no connection that has something in flight.
            unsafe { self.ring.send(&conn.io.socket, &mut conn.outbox, id) };
        }
    }

    fn sent(&mut self, id: ConnId, len: io::Result<usize>) {
        let Some(conn) = self.note(id, |flight| flight.sending = false) else { return };
        let Ok(len) = len else {
            self.counters.write_errors.add(1);
            self.close(id, "Connection reset");
            return;
        };
        conn.outbox.advance(len);
        self.counters.bytes_out.add(len as u64);
        self.conns.touch(id);
    }

    /// The peer of a connection that pauses, or has paused, has ended or reset it.
    fn watched(&mut self, id: ConnId, dead: bool, more: bool) {
        let Some(conn) = self.note(id, |flight| flight.watching = more) else { return };
        conn.dead |= dead;
        self.conns.touch(id); // `settle` closes it, or watches again if this was the last time.
    }

    /// Does what the session wants next: makes a request to receive unless there is one, shuts the
    /// sending side, or closes.
    fn settle(&mut self, id: ConnId) {
        let Some((next, conn)) = self.conns.settle(id, self.now) else { return };
        conn.io.reading = match next {
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

        if conn.io.reading && !conn.io.flight.receiving {
            conn.io.flight.receiving = true;
            self.ring.receive(&conn.io.socket, id);
        } else if conn.io.flight.is_over() {
            // It pauses, and nothing would tell that it was reset. This request stays when the
            // connection is read again: it completes seldom, and a read learns the same.
            conn.io.flight.watching = true;
            self.ring.watch(&conn.io.socket, id);
        }
    }

    /// What may concern any connection: deadlines that have passed, mail from the hub, and whether
    /// there are descriptors again.
    fn end_turn(&mut self) {
        // Does a long queue wait for this loop, and not for its peer? It does if no send is in
        // flight: the last one has completed, and `write` makes the next at the end of this turn.
        // More mail could fill such a queue, and the hub would cut the member as slow. So no mail
        // is fetched in this turn: `expire` is `turn` without the mail. Nor is such a member cut
        // for having been slow for long: this process may have stood still. And in echo, where no
        // mail comes, nobody is given up whose send is still to be made again.
        let mark = self.shared.launch.settings.limits.high_water();
        let long = |it: &Connection<Io>| !it.io.flight.sending && it.outbox.len() > mark;
        let waits = |it: &Connection<Io>| it.io.flight.renewing || long(it);
        let behind = self.conns.any_touched(waits);

        let mut hub = self.shared.lock_hub();
        let done = if behind || hub.is_none() {
            self.conns.expire(self.now, hub.as_deref_mut(), waits)
        } else {
            self.conns.turn(self.now, hub.as_deref_mut())
        };
        drop(hub);
        self.shared.launch.account(done, self.counters);
        while let Some(worker) = self.conns.next_wake() {
            self.ring.wake(&self.shared.ring_fds[worker], worker);
        }
        self.conns.deliver(self.now);

        if self.accept_at <= self.now {
            self.accept_at = Time::NEVER;
            for listener in self.to_accept.drain(..) {
                self.ring.accept(&self.listeners[listener], listener);
            }
        }
    }

    fn close(&mut self, id: ConnId, reason: &str) {
        let closed = self.conns.close(id, reason, self.shared.lock_hub().as_deref_mut());
        let Some(conn) = closed else { return };
        self.ring.cancel(id, &conn.io.flight);
        self.leaving.insert(id, conn);
        self.release(id);
    }

    /// Drops a closed connection, unless a request of it is still in flight.
    fn release(&mut self, id: ConnId) {
        let Some(conn) = self.leaving.get(&id) else { return };
        if conn.io.flight.is_over() {
            self.leaving.remove(&id);
            if self.accept_at < Time::NEVER {
                self.accept_at = self.now; // A descriptor is free again.
            }
        }
    }
}
