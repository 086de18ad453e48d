//! Signal-driven I/O: the kernel queues a signal for each socket that is ready; one loop waits.
//!
//! **Who waits where:** each worker, in `sigtimedwait`, for all signals meant for its thread.
//! **What wakes it:** a real-time signal from a socket, which names its descriptor; another, which
//! is sent when the server stops and when another worker has mail for one of its members; the next
//! deadline. No handler ever runs: all these signals are blocked. Those that have been queued
//! meanwhile, a signalfd gives at once.
//!
//! A signal is a hint: each segment that comes queues one, and the descriptor may belong to another
//! connection by now. So, as with edges, a connection keeps its ready bits until a system call
//! shows that they are over. If the queue is full, a plain SIGIO comes instead, and signals are
//! missing: then `poll` is asked, about all sockets. What the libraries do not wrap, and so needs
//! unsafe code, is in `signals.rs`.
//!
//! In chat each connection is a member. The hub (`protocol::Hub`) hears the lines of all members
//! and decides what each of them is told: that is the member's mail. All workers share one hub.
//!
//! What is common to all event loops (the connections, what is queued, which deadline is next, what
//! the hub has sent) is in `protocol::Connections`, which never waits; the order of its calls is
//! drawn at the top of `protocol/src/connections/mod.rs`. This file is the waiting. A turn is one
//! pass of its loop.
//!
//! Run: `cargo run --release -p serve-sigio -- --mode chat`
//! Read first: `examples/bare.rs`, this model without all that a server needs.
//! Read next: `serve-epoll-edge`, which gets as events what this one gets as signals.

mod signals;

use std::collections::{BTreeSet, HashMap};
use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use launch::{Counters, Failure, IoSlices, Launch, Place, READ_SIZE};
use protocol::{ConnId, Connections, Hub, Mode, Next, Outbox, Time};
use rustix::event::PollFlags;
use rustix::thread::{Pid, gettid};

use crate::signals::{Event, Signals, wake};

/// Connections accepted from a listener at a time: many new ones do not starve those that are open.
const ACCEPTS: usize = 64;
/// How long to leave the listeners alone when there are no descriptors left.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let about = "Echo or chat on queued signals: one event loop for each worker";
    launch::main(env!("CARGO_PKG_NAME"), about, serve)
}

fn serve(launch: &'static Launch) -> Result<(), Failure> {
    signals::block().map_err(Failure::of("sigprocmask"))?;
    let threads = (0..launch.workers).map(|_| OnceLock::new()).collect();
    let hub = || Mutex::new(Hub::new(Arc::clone(&launch.settings), launch.workers));
    let hub = (launch.settings.mode == Mode::Chat).then(hub);
    let shared: &'static Shared = Box::leak(Box::new(Shared { launch, threads, hub }));

    let mut workers = Vec::new();
    for (index, listeners) in launch.listeners_each()?.into_iter().enumerate() {
        workers.push(Worker::new(index, shared, listeners).map_err(Failure::of("signals"))?);
    }
    launch.on_stop(|| shared.threads.iter().for_each(wake))?;
    // It listens once each worker is told of its listeners, which must be done in its own thread.
    launch.run_each_when(workers, Worker::run, || {
        for thread in &shared.threads {
            thread.wait();
        }
        Ok(())
    })
}

/// What all workers share.
struct Shared {
    launch: &'static Launch,
    /// Each worker's thread, once it has started: a signal is sent to a thread.
    threads: Vec<OnceLock<Pid>>,
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
    index: usize,
    shared: &'static Shared,
    counters: &'static Counters,
    signals: Signals,
    /// Which connection a descriptor belongs to.
    owners: HashMap<RawFd, ConnId>,
    /// Empty once the server stops.
    listeners: Vec<TcpListener>,
    /// When to accept again, for what has been announced and was not accepted.
    accept_at: Time,
    conns: Connections<Io>,
    /// What signals have named, and what may still be readable. Each is tried once in a turn.
    hinted: BTreeSet<ConnId>,
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
    /// What signals have reported and no system call has disproved. PRI: there may be more than
    /// one thing to read.
    ready: PollFlags,
    reading: bool,
}

impl Worker {
    fn new(
        index: usize,
        shared: &'static Shared,
        listeners: Vec<TcpListener>,
    ) -> io::Result<Worker> {
        let launch = shared.launch;
        Ok(Worker {
            index,
            shared,
            counters: launch.counters(index),
            signals: Signals::new()?,
            owners: HashMap::new(),
            listeners,
            accept_at: Time::ZERO, // For clients that are there already no signal will come.
            conns: Connections::new(&launch.settings, index),
            hinted: BTreeSet::new(),
            now: launch.now(),
            buffer: vec![0; READ_SIZE],
        })
    }

    fn run(mut self) -> Result<(), Failure> {
        self.start().map_err(Failure::of("signals"))?;
        while !self.conns.finished() {
            self.wait()?;
            while let Some(event) = self.signals.next() {
                match event {
                    Event::Socket(fd, flags) => match self.owners.get(&fd) {
                        Some(&id) => self.hint(id, flags),
                        // A listener's, or closed since: to accept in vain does no harm.
                        None if self.accept_at < Time::NEVER => {} // `end_turn` goes on with it.
                        None => self.accept_at = self.now,
                    },
                    Event::Wake => self.woken(),
                    Event::Overflow => self.overflow()?,
                }
            }
            for id in mem::take(&mut self.hinted) {
                self.ready(id);
            }
            self.end_turn();
            // Touched: the turn has queued something for it, or its deadline has passed. Closing a
            // connection can leave mail for other members in the hub. Then `next_deadline` is in
            // the past: the next wait ends at once, and the next turn fetches that mail.
            while let Some(id) = self.conns.next_touched() {
                // A socket takes a little long before a signal says so. A peer that reads slowly
                // would look silent at its deadline, so a write is tried in any case.
                if let Some(conn) = self.conns.get_mut(id) {
                    conn.io.ready.insert(PollFlags::OUT);
                }
                self.write(id);
                self.settle(id);
            }
        }
        Ok(())
    }

    /// Has the signals sent to the thread that calls it.
    fn start(&mut self) -> io::Result<()> {
        for listener in &self.listeners {
            signals::arm(listener)?;
        }
        self.shared.threads[self.index].get_or_init(gettid);
        Ok(())
    }

    /// Waits until there is something to do. A signal that interrupts it does no harm: then there
    /// are no events.
    fn wait(&mut self) -> Result<(), Failure> {
        let next = self.conns.next_deadline().min(self.accept_at);
        let next = if self.hinted.is_empty() { next } else { self.now };
        self.signals.wait(next, self.now).map_err(Failure::of("sigtimedwait"))?;
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
        let io = Io { _place: place, socket, ready: PollFlags::OUT, reading: true };
        let id = self.conns.open(io, &host, self.now, self.shared.lock_hub().as_deref_mut());
        let Some(conn) = self.conns.get(id) else { return };
        self.owners.insert(conn.io.socket.as_raw_fd(), id);
        if signals::arm(&conn.io.socket).is_err() {
            self.close(id, "Out of memory");
            return;
        }
        // For what has come before no signal will come.
        self.hint(id, PollFlags::IN | PollFlags::PRI);
    }

    /// The signal for it was sent: there is mail, which the end of the turn brings, or the server
    /// stops.
    fn woken(&mut self) {
        if self.shared.launch.stop.requested() {
            self.listeners.clear();
            // `is_busy` makes system calls, and none is made under the hub's lock: `stop` calls it
            // in echo only, where there is no hub.
            let mut hub = self.shared.lock_hub();
            self.conns.stop(hub.as_deref_mut(), |io| launch::is_busy(&io.socket));
        }
    }

    /// The queue was full, and which signals are missing is not known: empties it and asks
    /// `poll` about all sockets.
    fn overflow(&mut self) -> Result<(), Failure> {
        self.counters.overflows.add(1);
        self.signals.discard();
        if self.accept_at == Time::NEVER {
            self.accept_at = self.now;
        }
        self.woken();
        let ids: Vec<_> = self.conns.ids().collect();
        let sockets = ids.iter().filter_map(|id| Some(&self.conns.get(*id)?.io.socket));
        let flags = signals::poll(sockets).map_err(Failure::of("poll"))?;
        for (id, flags) in ids.into_iter().zip(flags) {
            self.hint(id, flags);
        }
        Ok(())
    }

    /// Something may have happened to the socket, or to the former owner of its descriptor: then it
    /// is tried in vain.
    fn hint(&mut self, id: ConnId, flags: PollFlags) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        if (flags & conn.io.ready).contains(PollFlags::IN) {
            conn.io.ready.insert(PollFlags::PRI); // Named twice: there may be more than one thing.
        }
        conn.io.ready.insert(flags);
        self.hinted.insert(id);
    }

    /// Tries what has been reported and was not used up.
    fn ready(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        if conn.io.reading && conn.io.ready.contains(PollFlags::IN) {
            self.read(id);
        }
        self.write(id);
        self.settle(id);
    }

    fn read(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        match conn.io.socket.read(&mut self.buffer) {
            Ok(len) => {
                // A short read has emptied the socket, if there was one thing to read.
                let behind = conn.io.ready.contains(PollFlags::PRI);
                conn.io.ready.set(PollFlags::IN, behind || len == self.buffer.len());
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
                conn.io.ready.remove(PollFlags::IN | PollFlags::PRI);
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
        while conn.io.ready.contains(PollFlags::OUT) && !conn.outbox.is_empty() {
            match send(&conn.io.socket, &conn.outbox) {
                Ok(len) => {
                    self.counters.bytes_out.add(len as u64);
                    conn.outbox.advance(len);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.counters.would_blocks.add(1);
                    conn.io.ready.remove(PollFlags::OUT);
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

    /// Adds the connection to the set if it is to be read and may have more.
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

        // Reported even if it was not asked for. It may concern the former owner of the descriptor,
        // so the socket is asked. It says so once: what is read learns it from `read`.
        if !conn.io.reading && conn.io.ready.contains(PollFlags::ERR) {
            conn.io.ready.remove(PollFlags::ERR);
            if signals::has_failed(&conn.io.socket) {
                self.close(id, "Connection reset");
            }
        } else if conn.io.reading && conn.io.ready.contains(PollFlags::IN) {
            self.hinted.insert(id);
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
            wake(&self.shared.threads[worker]);
        }
        self.conns.deliver(self.now);

        if self.accept_at <= self.now {
            self.accept_at = Time::NEVER;
            self.accept();
        }
    }

    fn close(&mut self, id: ConnId, reason: &str) {
        let closed = self.conns.close(id, reason, self.shared.lock_hub().as_deref_mut());
        let Some(conn) = closed else { return };
        self.owners.remove(&conn.io.socket.as_raw_fd());
        drop(conn);
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
