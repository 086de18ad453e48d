//! Non-blocking I/O: one loop asks every socket, again and again, and none makes it wait.
//!
//! **Who waits where:** no thread waits for anything that happens. A worker goes round over all of
//! its sockets and has each answer at once; `--idle` says what it does after a round without any
//! progress.
//! **What wakes it:** nothing. It finds what has come when it asks, in the next round: bytes, the
//! next deadline, and a flag that is set when the server stops and when another worker has mail.
//!
//! The kernel keeps nothing and reports nothing: no list to keep, no event to lose, no change of
//! interest, and a round in which every socket had something to say has no call too many. The price
//! is a call for each silent connection in each round: it grows with their number and not with
//! what they say. With `--idle spin` it is a processor at 100 % when no client says anything.
//!
//! In chat each connection is a member. The hub (`protocol::Hub`) hears the lines of all members
//! and decides what each of them is told: that is the member's mail. All workers share one hub.
//!
//! What is common to all event loops (the connections, what is queued, which deadline is next, what
//! the hub has sent) is in `protocol::Connections`, which never waits; the order of its calls is
//! drawn at the top of `protocol/src/connections/mod.rs`. This file is the waiting. A turn is one
//! pass of its loop.
//!
//! Run: `cargo run --release -p serve-nonblocking -- --idle spin`
//! Read first: `examples/bare.rs`, this model without all that a server needs.
//! Read next: `serve-poll`, which has the kernel ask all sockets in one call, and waits there.

use std::hint;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use launch::{Counters, Failure, IoSlices, Launch, Place, READ_SIZE};
use protocol::{ConnId, Connections, Hub, Mode, Next, Outbox, Time};

/// Connections accepted in one round, so that a storm of them does not starve those inside.
const ACCEPTS: usize = 64;
/// How long to leave the listeners alone when there are no descriptors left.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause after a round without progress.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
struct Extra {
    /// What a round does in which no socket had anything to say: spin, yield or sleep:DURATION
    #[arg(long, value_name = "HOW", default_value = "sleep:1ms", value_parser = idle)]
    idle: Idle,
}

#[derive(Clone, Copy)]
enum Idle {
    /// Asks again.
    Spin,
    /// Lets others run that are ready to, then asks again.
    Yield,
    /// Asks again after a while.
    Sleep(Duration),
}

fn main() -> ExitCode {
    let about = "Echo or chat on non-blocking sockets: one loop for each worker asks all of them";
    launch::main(env!("CARGO_PKG_NAME"), about, serve)
}

fn serve(launch: &'static Launch<Extra>) -> Result<(), Failure> {
    let wakes = (0..launch.workers).map(|_| AtomicBool::new(false)).collect();
    let hub = || Mutex::new(Hub::new(Arc::clone(&launch.settings), launch.workers));
    let hub = (launch.settings.mode == Mode::Chat).then(hub);
    let shared: &'static Shared = Box::leak(Box::new(Shared { launch, wakes, hub }));

    let mut workers = Vec::new();
    for (index, listeners) in launch.listeners_each()?.into_iter().enumerate() {
        workers.push(Worker::new(index, shared, listeners).map_err(Failure::of("listener"))?);
    }
    launch.on_stop(|| shared.wakes.iter().for_each(wake))?;
    launch.run_each(workers, Worker::run)
}

/// What all workers share.
struct Shared {
    launch: &'static Launch<Extra>,
    /// Each worker's flag: another worker, or the stop, has something for it.
    wakes: Vec<AtomicBool>,
    /// In chat only. Its lock is never held across a call that can wait.
    hub: Option<Mutex<Hub>>,
}

impl Shared {
    fn lock_hub(&self) -> Option<MutexGuard<'_, Hub>> {
        // A panic ends the process, so no lock is found poisoned.
        self.hub.as_ref().map(|hub| hub.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One loop, with all that belongs to it alone.
struct Worker {
    shared: &'static Shared,
    counters: &'static Counters,
    wake: &'static AtomicBool,
    /// Empty once the server stops.
    listeners: Vec<TcpListener>,
    /// From when on to ask the listeners: later than now after a shortage.
    accept_at: Time,
    conns: Connections<Io>,
    /// The instant of this round.
    now: Time,
    /// Whether any socket had something to say in this round.
    progress: bool,
    buffer: Vec<u8>,
}

/// What this model keeps for a connection.
struct Io {
    /// Holds one of `--max-connections`. It is freed before `socket` is closed, so that a client
    /// that sees the connection close can connect again at once.
    _place: Place,
    socket: TcpStream,
    /// Whether to ask the socket for bytes.
    reading: bool,
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
            wake: &shared.wakes[index],
            listeners,
            accept_at: Time::ZERO,
            conns: Connections::new(&launch.settings, index),
            now: launch.now(),
            progress: true,
            buffer: vec![0; READ_SIZE],
        })
    }

    fn run(mut self) -> Result<(), Failure> {
        let mut round = Vec::new();
        while !self.conns.finished() {
            self.wait();
            if self.accept_at <= self.now {
                self.accept();
            }
            if self.wake.swap(false, Ordering::Acquire) {
                self.woken();
            }
            round.extend(self.conns.ids());
            for id in round.drain(..) {
                self.ready(id);
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

    /// After a round in which no socket had anything to say: what `--idle` says.
    fn wait(&mut self) {
        if !self.progress {
            match self.shared.launch.extra.idle {
                Idle::Spin => hint::spin_loop(),
                Idle::Yield => thread::yield_now(),
                Idle::Sleep(pause) => thread::sleep(pause),
            }
        }
        self.progress = false;
        self.counters.wakeups.add(1);
        self.now = self.shared.launch.now();
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
        let io = Io { _place: place, socket, reading: true };
        self.conns.open(io, &host, self.now, self.shared.lock_hub().as_deref_mut());
        self.progress = true;
    }

    /// The flag was set: there is mail, which the end of the round brings, or the server stops.
    fn woken(&mut self) {
        self.progress = true;
        if self.shared.launch.stop.requested() {
            self.listeners.clear();
            // `is_busy` makes system calls, and none is made under the hub's lock: `stop` calls it
            // in echo only, where there is no hub.
            let mut hub = self.shared.lock_hub();
            self.conns.stop(hub.as_deref_mut(), |io| launch::is_busy(&io.socket));
        }
    }

    /// No event has said that the socket is ready: the calls show whether it is.
    fn ready(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        let unsent = !conn.outbox.is_empty();
        let received = conn.io.reading && self.read(id);
        if received || unsent {
            self.write(id);
            self.settle(id);
        }
    }

    /// Returns whether there was something to read.
    fn read(&mut self, id: ConnId) -> bool {
        let Some(conn) = self.conns.get_mut(id) else { return false };
        match conn.io.socket.read(&mut self.buffer) {
            Ok(len) => {
                self.counters.bytes_in.add(len as u64);
                let mut hub = self.shared.lock_hub();
                let bytes = &self.buffer[..len];
                let done = self.conns.received(id, bytes, self.now, hub.as_deref_mut());
                drop(hub);
                // Counts the lines, and burns the processor for `--work`: so without the lock.
                self.shared.launch.account(done, self.counters);
                self.progress = true;
                true
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.counters.would_blocks.add(1);
                false
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => false, // A signal came first.
            Err(_) => {
                self.counters.read_errors.add(1);
                self.close(id, "Connection reset");
                false
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
                    self.progress = true;
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

    /// Decides whether to ask the connection for bytes from now on.
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
    }

    /// What may concern any connection: deadlines that have passed, and mail from the hub. After a
    /// round without progress there is none.
    fn end_turn(&mut self) {
        let due = self.conns.next_deadline() <= self.now;
        if !due && !self.progress {
            return;
        }
        self.progress = true;
        let mut hub = self.shared.lock_hub();
        let done = self.conns.turn(self.now, hub.as_deref_mut());
        drop(hub);
        self.shared.launch.account(done, self.counters);
        while let Some(worker) = self.conns.next_wake() {
            wake(&self.shared.wakes[worker]);
        }
        self.conns.deliver(self.now);
    }

    fn close(&mut self, id: ConnId, reason: &str) {
        let closed = self.conns.close(id, reason, self.shared.lock_hub().as_deref_mut());
        drop(closed);
        self.progress = true;
        self.accept_at = self.now; // A descriptor is free again.
    }
}

/// One system call, which writes as much of the queue as the socket takes.
fn send(mut socket: &TcpStream, outbox: &Outbox) -> io::Result<usize> {
    match &*IoSlices::new(outbox.slices()) {
        [slice] => socket.write(slice),
        slices => socket.write_vectored(slices),
    }
}

/// Found in the next round: there is no wait that it would have to end.
fn wake(flag: &AtomicBool) {
    flag.store(true, Ordering::Release);
}

fn idle(text: &str) -> Result<Idle, String> {
    let sleep = text.strip_prefix("sleep:").and_then(|text| humantime::parse_duration(text).ok());
    match (text, sleep) {
        ("spin", _) => Ok(Idle::Spin),
        ("yield", _) => Ok(Idle::Yield),
        // Everything waits for the next round, deadlines and the stop too.
        (_, Some(pause)) if pause <= LONGEST_PAUSE => Ok(Idle::Sleep(pause)),
        _ => {
            Err("expected spin, yield or sleep:DURATION, such as sleep:1ms, at most 1s".to_owned())
        }
    }
}
