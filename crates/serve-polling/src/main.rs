//! An event loop on portable readiness: polling says it once, and must be asked again.
//!
//! **Who waits where:** each worker, in `polling::Poller` (`epoll_wait`), for all of its sockets.
//! **What wakes it:** a socket that is ready, the next deadline, or `Poller::notify`, which is
//! called when the server stops and when another worker has mail for one of its members.
//!
//! polling is oneshot by default: a socket that it has named is forgotten until it is asked for
//! again. So one bounded read for each event is enough, what we cannot use is just not asked for,
//! and every message pays a call to ask again. With `--trigger level` none does.
//!
//! In chat each connection is a member. The hub (`protocol::Hub`) hears the lines of all members
//! and decides what each of them is told: that is the member's mail. All workers share one hub.
//!
//! What is common to all event loops (the connections, what is queued, which deadline is next, what
//! the hub has sent) is in `protocol::Connections`, which never waits; the order of its calls is
//! drawn at the top of `protocol/src/connections/mod.rs`. This file is the waiting. A turn is one
//! pass of its loop.
//!
//! Run: `cargo run --release -p serve-polling -- --trigger level`
//! Read first: `examples/bare.rs`, this model without all that a server needs.
//! Read next: `serve-mio`, the other loop on a library, told once for all and never asking again.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use launch::{Counters, Failure, IoSlices, Launch, Place, READ_SIZE};
use polling::{Event, Events, PollMode, Poller};
use protocol::{ConnId, Connections, Hub, Mode, Next, Outbox, Time};

/// A key that is no [`ConnId`]: its top byte is not zero. `usize::MAX` is polling's own.
const LISTENER: usize = usize::MAX - 1;
const _: () = assert!(usize::BITS == 64, "a ConnId fits a key");

/// Connections accepted from a listener at a time: many new ones do not starve those that are open.
const ACCEPTS: usize = 64;
/// How long to leave the listeners alone when there are no descriptors left.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);

#[derive(clap::Args)]
struct Extra {
    /// Whether a socket must be asked for again after each event
    #[arg(long, default_value = "oneshot", value_parser = ["oneshot", "level"])]
    trigger: String,
}

fn main() -> ExitCode {
    let about = "Echo or chat on polling, oneshot or level: one event loop for each worker";
    launch::main(env!("CARGO_PKG_NAME"), about, serve)
}

fn serve(launch: &'static Launch<Extra>) -> Result<(), Failure> {
    let mut pollers = Vec::new();
    for _ in 0..launch.workers {
        pollers.push(Poller::new().map_err(Failure::of("polling"))?);
    }
    let hub = || Mutex::new(Hub::new(Arc::clone(&launch.settings), launch.workers));
    let hub = (launch.settings.mode == Mode::Chat).then(hub);
    let shared: &'static Shared = Box::leak(Box::new(Shared { launch, pollers, hub }));

    let mut workers = Vec::new();
    for (index, listeners) in launch.listeners_each()?.into_iter().enumerate() {
        workers.push(Worker::new(index, shared, listeners).map_err(Failure::of("polling"))?);
    }
    launch.on_stop(|| shared.pollers.iter().for_each(wake))?;
    launch.run_each(workers, Worker::run)
}

/// What all workers share.
struct Shared {
    launch: &'static Launch<Extra>,
    /// One for each worker: to notify it ends the worker's wait.
    pollers: Vec<Poller>,
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
    poller: &'static Poller,
    mode: PollMode,
    /// Empty once the server stops.
    listeners: Vec<TcpListener>,
    /// When to ask for the listeners again; after a shortage, later than at once.
    accept_at: Time,
    conns: Connections<Io>,
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
    /// What polling watches for, until it forgets.
    interest: Option<Event>,
}

impl Worker {
    fn new(
        index: usize,
        shared: &'static Shared,
        listeners: Vec<TcpListener>,
    ) -> io::Result<Worker> {
        let launch = shared.launch;
        let poller = &shared.pollers[index];
        let level = launch.extra.trigger == "level";
        let mode = if level { PollMode::Level } else { PollMode::Oneshot };
        for listener in &listeners {
            listener.set_nonblocking(true)?;
            // SAFETY: `woken` deletes it from the poller before it is closed.
            unsafe { poller.add_with_mode(listener, Event::readable(LISTENER), mode)? };
        }
        Ok(Worker {
            shared,
            counters: launch.counters(index),
            poller,
            mode,
            listeners,
            accept_at: Time::NEVER,
            conns: Connections::new(&launch.settings, index),
            now: launch.now(),
            buffer: vec![0; READ_SIZE],
        })
    }

    fn run(mut self) -> Result<(), Failure> {
        let mut events = Events::new(); // At most 1024 in one turn.
        while !self.conns.finished() {
            self.wait(&mut events)?;
            for event in events.iter() {
                match event.key {
                    LISTENER => self.accept(),
                    key => self.ready(ConnId::from_bits(key as u64), event),
                }
            }
            self.woken();
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

    /// Waits until there is something to do. A signal that interrupts it does no harm: polling goes
    /// on waiting.
    fn wait(&mut self, events: &mut Events) -> Result<(), Failure> {
        let next = self.conns.next_deadline().min(self.accept_at);
        events.clear();
        self.poller.wait(events, next.timeout(self.now)).map_err(Failure::of("polling"))?;
        self.counters.wakeups.add(1);
        self.now = self.shared.launch.now();
        Ok(())
    }

    fn accept(&mut self) {
        self.accept_at = self.now; // The end of the turn asks for the next.
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
                    // The listeners stay ready: the loop would spin if they were still watched.
                    self.watch_listeners(Event::none(LISTENER));
                    return;
                }
                Err(_) => self.counters.accept_errors.add(1),
            }
        }
    }

    fn watch_listeners(&self, interest: Event) {
        for listener in &self.listeners {
            // Cannot fail: the descriptor is registered, and a change needs no memory.
            let _ = self.poller.modify_with_mode(listener, interest, self.mode);
        }
    }

    fn admit(&mut self, socket: TcpStream, peer: IpAddr) {
        let Some(place) = self.shared.launch.admit(&socket, peer, self.counters) else { return };
        let host = place.peer().to_string();
        let io = Io {
            _place: place,
            socket,
            interest: None, // Its key is the id, which the connection does not have yet.
        };
        let id = self.conns.open(io, &host, self.now, self.shared.lock_hub().as_deref_mut());
        let Some(conn) = self.conns.get_mut(id) else { return };
        let interest = Event::readable(id.bits() as usize);
        conn.io.interest = Some(interest);
        // SAFETY: `close` deletes it from the poller before it is closed.
        if unsafe { self.poller.add_with_mode(&conn.io.socket, interest, self.mode) }.is_err() {
            self.close(id, "Out of memory");
        }
    }

    /// polling does not tell that it was notified. Perhaps there is mail, which the end of the turn
    /// brings, or the server stops.
    fn woken(&mut self) {
        if self.shared.launch.stop.requested() {
            for listener in &self.listeners {
                let _ = self.poller.delete(listener);
            }
            self.listeners.clear();
            // `is_busy` makes system calls, and none is made under the hub's lock: `stop` calls it
            // in echo only, where there is no hub.
            let mut hub = self.shared.lock_hub();
            self.conns.stop(hub.as_deref_mut(), |io| launch::is_busy(&io.socket));
        }
    }

    /// A socket is ready. The event may be stale: if its connection was closed earlier in this
    /// turn, the id finds none, even if its slot has another tenant already.
    fn ready(&mut self, id: ConnId, event: Event) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        let reading = conn.io.interest.is_some_and(|interest| interest.readable);
        if self.mode == PollMode::Oneshot {
            conn.io.interest = None;
        }
        // polling reports this even if it was not asked for: the connection is dead.
        conn.dead |= event.readable && !reading;
        if event.readable && reading {
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
            match send(&conn.io.socket, &conn.outbox) {
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

    /// Makes polling watch for what the connection can use now, unless it does.
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

        let interest = Event::new(id.bits() as usize, read, !conn.outbox.is_empty());
        if conn.io.interest != Some(interest) {
            conn.io.interest = Some(interest);
            if self.poller.modify_with_mode(&conn.io.socket, interest, self.mode).is_err() {
                self.close(id, "Out of memory");
            }
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
            wake(&self.shared.pollers[worker]);
        }
        self.conns.deliver(self.now);

        if self.accept_at <= self.now {
            self.accept_at = Time::NEVER;
            self.watch_listeners(Event::readable(LISTENER));
        }
    }

    fn close(&mut self, id: ConnId, reason: &str) {
        let closed = self.conns.close(id, reason, self.shared.lock_hub().as_deref_mut());
        // What was added must be deleted before it is closed.
        if let Some(conn) = &closed {
            let _ = self.poller.delete(&conn.io.socket);
        }
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

/// Fails only when there is no poller left to notify.
fn wake(poller: &Poller) {
    let _ = poller.notify();
}
