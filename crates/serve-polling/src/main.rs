//! An event loop on portable readiness: polling tells once, and must be asked again each time.
//!
//! **Who waits where:** each worker, in `polling::Poller` (`epoll_wait`), for all of its sockets.
//! **What wakes it:** a socket that is ready, the next deadline, or `Poller::notify`, which is
//! called when the server stops and when another worker has mail for one of its members.
//!
//! polling is oneshot by default: a socket that it has named is forgotten until it is asked for
//! again. So one bounded read for each event is enough, what we cannot use is just not asked for,
//! and every message pays a call to ask again. With `--trigger level` none does.
//!
//! Run: `cargo run --release -p serve-polling -- --trigger level`
//! Read next: `serve-mio`, the other portable loop, told once for all and never asking again.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use launch::{Counters, Failure, Launch, Place};
use polling::{Event, Events, PollMode, Poller};
use protocol::{ConnId, Deadlines, Due, Hub, Mail, Mode, Next, Outbox, Session, Slots, Time};
use rustix::net::{SocketAddrAny, SocketFlags, acceptfrom_with};

/// A key that is no [`ConnId`]: its top byte is not zero. `usize::MAX` is polling's own.
const LISTENER: usize = usize::MAX - 1;
const _: () = assert!(usize::BITS == 64, "a ConnId fits a key");

/// Connections accepted in one turn, so that a storm of them does not starve those inside.
const ACCEPTS: usize = 64;
/// The most slices in one vectored write.
const SLICES: usize = 64;
/// How long to leave the listener alone when there are no descriptors to be had.
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
    let hub = Hub::new(Arc::clone(&launch.settings), launch.workers);
    let pollers: Result<Vec<_>, _> = (0..launch.workers).map(|_| Poller::new()).collect();
    let shared: &'static Shared = Box::leak(Box::new(Shared {
        launch,
        pollers: pollers.map_err(Failure::of("polling"))?,
        hub: (launch.settings.mode == Mode::Chat).then(|| Mutex::new(hub)),
    }));

    let mut threads = Vec::new();
    for (index, listener) in launch.listen_each()?.into_iter().enumerate() {
        let worker = Worker::new(index, shared, listener).map_err(Failure::of("polling"))?;
        let run = || worker.run().unwrap_or_else(|failure| launch.abort(&failure));
        threads.push(thread::Builder::new().spawn(run).map_err(Failure::of("thread"))?);
    }
    launch.on_stop(|| shared.pollers.iter().for_each(wake))?;
    launch.announce();
    threads.into_iter().for_each(|thread| drop(thread.join()));
    Ok(())
}

/// What all workers share.
struct Shared {
    launch: &'static Launch<Extra>,
    /// Each worker's poller: the others only notify it.
    pollers: Vec<Poller>,
    /// In chat only. Its lock is never held across a system call.
    hub: Option<Mutex<Hub>>,
}

/// One event loop, with all that belongs to it alone.
struct Worker {
    index: usize,
    shared: &'static Shared,
    counters: &'static Counters,
    poller: &'static Poller,
    mode: PollMode,
    /// None once the server stops.
    listener: Option<TcpListener>,
    /// When to accept again after a shortage.
    accept_at: Time,
    conns: Slots<Conn>,
    deadlines: Deadlines,
    /// When to stop for good, once the server stops.
    drain_until: Time,
    /// The instant of this turn.
    now: Time,
    buffer: Vec<u8>,
    mail: Vec<Mail>,
    /// Whose outbox was empty before the mail came. The others are written to when polling says.
    dirty: Vec<ConnId>,
}

struct Conn {
    /// Before the socket: whoever sees the connection end finds the place free.
    _place: Place,
    socket: TcpStream,
    session: Session,
    outbox: Outbox,
    /// What polling has been told to watch for, until it forgets.
    interest: Option<Event>,
}

impl Worker {
    fn new(index: usize, shared: &'static Shared, listener: TcpListener) -> io::Result<Worker> {
        listener.set_nonblocking(true)?;
        let (poller, level) = (&shared.pollers[index], shared.launch.extra.trigger == "level");
        let mode = if level { PollMode::Level } else { PollMode::Oneshot };
        // SAFETY: `woken` deletes it from the poller before it is closed.
        unsafe { poller.add_with_mode(&listener, Event::readable(LISTENER), mode)? };
        Ok(Worker {
            index,
            shared,
            counters: shared.launch.counters(index),
            poller,
            mode,
            listener: Some(listener),
            accept_at: Time::NEVER,
            conns: Slots::new(index),
            deadlines: Deadlines::default(),
            drain_until: Time::NEVER,
            now: shared.launch.now(),
            buffer: vec![0; shared.launch.read_size()],
            mail: Vec::new(),
            dirty: Vec::new(),
        })
    }

    fn run(mut self) -> Result<(), Failure> {
        let mut events = Events::new(); // At most 1024 in one turn.
        loop {
            let next = self.deadlines.next().min(self.accept_at).min(self.drain_until);
            let timeout = (next < Time::NEVER).then(|| next.after(self.now));
            events.clear();
            self.poller.wait(&mut events, timeout).map_err(Failure::of("polling"))?;
            self.counters.wakeups.add(1);
            self.now = self.shared.launch.now();
            for event in events.iter() {
                match event.key {
                    LISTENER => self.accept(),
                    key => self.ready(ConnId::from_bits(key as u64), event),
                }
            }
            self.woken();
            self.expire();
            self.deliver();
            let drained = self.listener.is_none() && self.conns.is_empty();
            if drained || self.drain_until <= self.now {
                let left: Vec<_> = self.conns.ids().collect();
                left.into_iter().for_each(|id| self.close(id, "Server stops"));
                return Ok(());
            }
        }
    }

    fn accept(&mut self) {
        self.accept_at = self.now; // Asks for the next when the turn ends.
        for _ in 0..ACCEPTS {
            let Some(listener) = &self.listener else { return };
            match acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok((socket, Some(peer))) => self.admit(TcpStream::from(socket), peer),
                Err(rustix::io::Errno::AGAIN) => return self.counters.would_blocks.add(1),
                Err(error) if launch::is_shortage(&error.into()) => {
                    // The listener stays ready: were it watched on, the loop would spin.
                    self.counters.shortages.add(1);
                    self.accept_at = self.now + SHORTAGE_PAUSE;
                    self.poller.modify_with_mode(listener, Event::none(LISTENER), self.mode).ok();
                    return;
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
        let (outbox, interest) = (Outbox::default(), None);
        let conn = Conn { socket, session, outbox, interest, _place: place };
        let (id, conn) = self.conns.insert(conn);
        let interest = *conn.interest.insert(Event::readable(id.bits() as usize));
        // SAFETY: `close` deletes it from the poller before it is closed.
        if unsafe { self.poller.add_with_mode(&conn.socket, interest, self.mode) }.is_err() {
            return drop(self.conns.remove(id));
        }
        if let Some(hub) = &self.shared.hub {
            lock(hub).open(id, &peer.to_string(), self.now);
        }
        self.settle(id);
    }

    /// A socket is ready. If its connection is closed now, or its slot another's, nobody is found.
    fn ready(&mut self, id: ConnId, event: Event) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        let reading = conn.interest.is_some_and(|interest| interest.readable);
        conn.interest = conn.interest.filter(|_| self.mode == PollMode::Level);
        match reading {
            true if event.readable => self.read(id),
            // Told whether asked for or not: the peer is gone for good.
            false if event.readable => return self.close(id, "Connection reset"),
            _ => {}
        }
        if event.writable {
            self.write(id);
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
                self.settle(id);
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
            match send(&conn.socket, &conn.outbox) {
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

    /// Makes polling watch for what the connection can use now, unless it does.
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
        let interest = Event::new(id.bits() as usize, read, !conn.outbox.is_empty());
        if conn.interest.replace(interest) != Some(interest)
            && self.poller.modify_with_mode(&conn.socket, interest, self.mode).is_err()
        {
            return self.close(id, "Out of memory");
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
            others.for_each(|worker| wake(&self.shared.pollers[worker]));
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
        wake(&self.shared.pollers[self.index]); // There may be more.
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
            let event = Event::readable(LISTENER);
            let watch = |listener| self.poller.modify_with_mode(listener, event, self.mode);
            let watched = self.listener.as_ref().map_or(Ok(()), watch).is_ok();
            // There may be no memory for that either.
            self.accept_at = if watched { Time::NEVER } else { self.now + SHORTAGE_PAUSE };
        }
    }

    /// polling does not tell who was notified: perhaps there is mail, or the server stops.
    fn woken(&mut self) {
        let stop = self.shared.launch.stop.requested();
        let Some(listener) = self.listener.take_if(|_| stop) else { return };
        let _ = self.poller.delete(&listener);
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
        let Some(closed) = self.conns.remove(id) else { return };
        let _ = self.poller.delete(&closed.socket);
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

/// It can only fail when there is no poller left to notify.
fn wake(poller: &Poller) {
    let _ = poller.notify();
}

/// A panic ends the process, so no lock is found poisoned.
fn lock(hub: &Mutex<Hub>) -> MutexGuard<'_, Hub> {
    hub.lock().unwrap_or_else(PoisonError::into_inner)
}
