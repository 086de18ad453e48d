//! Non-blocking I/O: one loop asks every socket, again and again, and none makes it wait.
//!
//! **Who waits where:** nobody, for anything that happens. A worker goes round over all of its
//! sockets and has each answer at once; `--idle` says what it does when a whole round was in vain.
//! **What wakes it:** nothing. It finds what has come when it asks, in the next round: bytes, the
//! next deadline, and a flag that is set when the server stops and when another worker has mail.
//!
//! The kernel is told nothing and tells nothing: no list to keep, no event to lose, no change of
//! interest, and a round in which everybody had something to say has no call too many. The price
//! is a call for each silent connection in each round: it grows with their number and not with
//! what they say, and with `--idle spin` it is a core at 100 % with nobody there.
//!
//! Run: `cargo run --release -p serve-nonblocking -- --idle spin`
//! Read next: `serve-poll`, which has the kernel ask all of them in one call, and waits there.

use std::hint;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use launch::{Counters, Failure, Launch, Place};
use protocol::{ConnId, Deadlines, Due, Hub, Mail, Mode, Next, Outbox, Session, Slots, Time};
use rustix::net::{SocketAddrAny, SocketFlags, acceptfrom_with};

/// Connections accepted in one round, so that a storm of them does not starve those inside.
const ACCEPTS: usize = 64;
/// The most slices in one vectored write.
const SLICES: usize = 64;
/// How long to leave the listener alone when there are no descriptors to be had.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause after a round in vain.
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
    let hub = Hub::new(Arc::clone(&launch.settings), launch.workers);
    let shared: &'static Shared = Box::leak(Box::new(Shared {
        launch,
        wakes: (0..launch.workers).map(|_| AtomicBool::new(false)).collect(),
        hub: (launch.settings.mode == Mode::Chat).then(|| Mutex::new(hub)),
    }));

    let mut threads = Vec::new();
    for (index, listener) in launch.listen_each()?.into_iter().enumerate() {
        let worker = Worker::new(index, shared, listener).map_err(Failure::of("listener"))?;
        threads.push(thread::Builder::new().spawn(|| worker.run()).map_err(Failure::of("thread"))?);
    }
    launch.on_stop(|| shared.wakes.iter().for_each(wake))?;
    launch.announce();
    threads.into_iter().for_each(|thread| drop(thread.join()));
    Ok(())
}

/// What all workers share.
struct Shared {
    launch: &'static Launch<Extra>,
    /// Each worker's flag: somebody has something for it.
    wakes: Vec<AtomicBool>,
    /// In chat only. Its lock is never held across a system call.
    hub: Option<Mutex<Hub>>,
}

/// One loop, with all that belongs to it alone.
struct Worker {
    index: usize,
    shared: &'static Shared,
    counters: &'static Counters,
    /// None once the server stops.
    listener: Option<TcpListener>,
    /// From when on to ask the listener: later than now after a shortage.
    accept_at: Time,
    conns: Slots<Conn>,
    deadlines: Deadlines,
    /// When to stop for good, once the server stops.
    drain_until: Time,
    /// The instant of this round.
    now: Time,
    /// Whether anybody had anything to say in this round.
    fruitful: bool,
    buffer: Vec<u8>,
    mail: Vec<Mail>,
    /// Whose outbox was empty before the mail came. The others are written to in each round.
    dirty: Vec<ConnId>,
}

struct Conn {
    /// Before the socket: whoever sees the connection end finds the place free.
    _place: Place,
    socket: TcpStream,
    session: Session,
    outbox: Outbox,
    /// Whether to ask it for bytes.
    reading: bool,
}

impl Worker {
    fn new(index: usize, shared: &'static Shared, listener: TcpListener) -> io::Result<Worker> {
        listener.set_nonblocking(true)?;
        Ok(Worker {
            index,
            shared,
            counters: shared.launch.counters(index),
            listener: Some(listener),
            accept_at: Time::ZERO,
            conns: Slots::new(index),
            deadlines: Deadlines::default(),
            drain_until: Time::NEVER,
            now: shared.launch.now(),
            fruitful: false,
            buffer: vec![0; shared.launch.read_size()],
            mail: Vec::new(),
            dirty: Vec::new(),
        })
    }

    fn run(mut self) {
        let mut round = Vec::new();
        loop {
            self.counters.wakeups.add(1);
            self.now = self.shared.launch.now();
            self.fruitful = false;
            if self.accept_at <= self.now {
                self.accept();
            }
            if self.shared.wakes[self.index].swap(false, Ordering::Acquire) {
                self.woken();
            }
            round.extend(self.conns.ids());
            round.drain(..).for_each(|id| self.ask(id));
            self.expire();
            if self.fruitful {
                self.deliver();
            }
            let drained = self.listener.is_none() && self.conns.is_empty();
            if drained || self.drain_until <= self.now {
                return;
            }
            match self.shared.launch.extra.idle {
                _ if self.fruitful => {}
                Idle::Spin => hint::spin_loop(),
                Idle::Yield => thread::yield_now(),
                Idle::Sleep(pause) => thread::sleep(pause),
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
    }

    fn admit(&mut self, socket: TcpStream, peer: SocketAddrAny) {
        self.fruitful = true;
        let launch = self.shared.launch;
        let Ok(peer) = SocketAddr::try_from(peer).map(|peer| peer.ip()) else { return };
        let Some(place) = launch.admit(&socket, peer, self.counters) else { return };
        let session = Session::new(&launch.settings, self.now);
        let (outbox, reading) = (Outbox::default(), true);
        let (id, _) = self.conns.insert(Conn { socket, session, outbox, reading, _place: place });
        if let Some(hub) = &self.shared.hub {
            lock(hub).open(id, &peer.to_string(), self.now);
        }
        self.settle(id);
    }

    /// Nobody has said that the socket is ready: whether it is, the calls say.
    fn ask(&mut self, id: ConnId) {
        if self.conns.get(id).is_some_and(|conn| !conn.outbox.is_empty()) {
            self.write(id);
        }
        if self.conns.get(id).is_some_and(|conn| conn.reading) {
            self.read(id);
        }
    }

    fn read(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        match (&conn.socket).read(&mut self.buffer) {
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
        self.fruitful = true;
        self.shared.launch.burn(lines);
        self.write(id);
    }

    fn write(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        while !conn.outbox.is_empty() {
            match send(&conn.socket, &conn.outbox) {
                Ok(len) => {
                    self.counters.bytes_out.add(len as u64);
                    self.fruitful = true;
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

    /// Decides whether to ask the connection for bytes from now on.
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
            self.fruitful = true;
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
    }

    /// Somebody set this worker's flag: there is mail, which the end of the round brings, or the
    /// server stops.
    fn woken(&mut self) {
        self.fruitful = true;
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
        let Some(_closed) = self.conns.remove(id) else { return };
        self.deadlines.clear(id);
        if let Some(hub) = &self.shared.hub {
            lock(hub).leave(id, reason);
        }
        self.fruitful = true;
        self.accept_at = self.now; // A descriptor is free again.
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

/// Found in the next round: there is nothing to wake anybody from.
fn wake(flag: &AtomicBool) {
    flag.store(true, Ordering::Release);
}

/// A panic ends the process, so no lock is found poisoned.
fn lock(hub: &Mutex<Hub>) -> MutexGuard<'_, Hub> {
    hub.lock().unwrap_or_else(PoisonError::into_inner)
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
