//! Event-driven: handlers are registered with a loop that is not ours, and it calls them back.
//!
//! **Who waits where:** calloop's loop, one in each worker, in `EventLoop::run` (`epoll_wait`).
//! **What wakes it:** a source that has a handler: a socket, the timer, or a ping, which is sent
//! when the server stops and when another worker has mail for one of its members.
//!
//! This is what Twisted, Tornado and Node are. The loop hands each handler the worker, the state
//! that they share. What a source is to be watched for changes when all handlers have returned.
//!
//! Run: `cargo run --release -p serve-calloop -- --mode chat`
//! Read next: `serve-polling`, the loop underneath, and `serve-tokio`, where handlers are tasks.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use calloop::generic::Generic;
use calloop::ping::{Ping, PingSource, make_ping};
use calloop::timer::{TimeoutAction, Timer};
use calloop::{Dispatcher, EventLoop, LoopHandle, LoopSignal, RegistrationToken};
use calloop::{Interest, Mode::Level, PostAction, Readiness};
use launch::{Counters, Failure, Launch, Place};
use protocol::{ConnId, Deadlines, Due, Hub, Mail, Mode, Next, Outbox, Session, Slots, Time};
use rustix::net::{SocketAddrAny, SocketFlags, acceptfrom_with};

/// Connections accepted in one turn, so that a storm of them does not starve those inside.
const ACCEPTS: usize = 64;
/// The most slices in one vectored write.
const SLICES: usize = 64;
/// How long to leave the listener alone when there are no descriptors to be had.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let about = "Echo or chat on calloop: handlers registered with an event loop for each worker";
    launch::main(env!("CARGO_PKG_NAME"), about, serve)
}

fn serve(launch: &'static Launch) -> Result<(), Failure> {
    let hub = Hub::new(Arc::clone(&launch.settings), launch.workers);
    let pings: io::Result<(Vec<_>, Vec<_>)> = (0..launch.workers).map(|_| make_ping()).collect();
    let (wakes, pings) = pings.map_err(Failure::of("ping"))?;
    let shared: &'static Shared = Box::leak(Box::new(Shared {
        launch,
        wakes,
        hub: (launch.settings.mode == Mode::Chat).then(|| Mutex::new(hub)),
    }));

    let mut threads = Vec::new();
    for (index, own) in pings.into_iter().zip(launch.listen_each()?).enumerate() {
        let abort = |error| launch.abort(&Failure::of("calloop")(error));
        let run = move || Worker::run(index, shared, own).unwrap_or_else(abort);
        threads.push(thread::Builder::new().spawn(run).map_err(Failure::of("thread"))?);
    }
    launch.on_stop(|| shared.wakes.iter().for_each(Ping::ping))?;
    launch.announce();
    threads.into_iter().for_each(|thread| drop(thread.join()));
    Ok(())
}

/// What is one worker's own, and what the loop has of a connection: its socket and its handler.
type Own = (PingSource, TcpListener);
type Source = (Dispatcher<'static, Generic<Rc<TcpStream>>, Worker>, RegistrationToken);

/// What all workers share.
struct Shared {
    launch: &'static Launch,
    /// What each worker's ping handler listens to.
    wakes: Vec<Ping>,
    /// In chat only. Its lock is never held across a system call.
    hub: Option<Mutex<Hub>>,
}

/// The state of one event loop, which each of its handlers is given.
struct Worker {
    index: usize,
    shared: &'static Shared,
    counters: &'static Counters,
    handle: LoopHandle<'static, Worker>,
    signal: LoopSignal,
    /// When the next deadline is, and the source that goes off then.
    timer: (Time, Option<RegistrationToken>),
    /// None once the server stops.
    listener: Option<RegistrationToken>,
    /// When to accept again after a shortage.
    accept_at: Time,
    conns: Slots<Conn>,
    deadlines: Deadlines,
    /// When to stop for good, once the server stops.
    drain_until: Time,
    /// The instant of this call.
    now: Time,
    buffer: Vec<u8>,
    mail: Vec<Mail>,
    /// Whose outbox was empty before the mail came. The others are written to when calloop says.
    dirty: Vec<ConnId>,
    /// For whom the loop is to watch for something else from the end of this turn on.
    changed: Vec<ConnId>,
}

struct Conn {
    /// Before the socket: whoever sees the connection end finds the place free.
    _place: Place,
    socket: Rc<TcpStream>,
    session: Session,
    outbox: Outbox,
    source: Option<Source>,
    /// What the loop is to watch for: reading, writing.
    interest: (bool, bool),
}

impl Worker {
    fn run(index: usize, shared: &'static Shared, (ping, socket): Own) -> calloop::Result<()> {
        let mut event_loop = EventLoop::<Worker>::try_new()?;
        let handle = event_loop.handle();
        socket.set_nonblocking(true)?;
        let listener = Generic::new(socket, Interest::READ, Level);
        let listener = handle.insert_source(listener, |_, it, worker| Ok(worker.accept(it)))?;
        handle.insert_source(ping, |(), _, _| ())?; // What it is for is done when the turn ends.
        let mut worker = Worker {
            index,
            shared,
            counters: shared.launch.counters(index),
            handle,
            signal: event_loop.get_signal(),
            timer: (Time::NEVER, None),
            listener: Some(listener),
            accept_at: Time::NEVER,
            conns: Slots::new(index),
            deadlines: Deadlines::default(),
            drain_until: Time::NEVER,
            now: shared.launch.now(),
            buffer: vec![0; shared.launch.read_size()],
            mail: Vec::new(),
            dirty: Vec::new(),
            changed: Vec::new(),
        };
        event_loop.run(None, &mut worker, Worker::turn_ended)
    }

    /// The loop has called all handlers that had something to do, and is about to wait.
    fn turn_ended(&mut self) {
        self.counters.wakeups.add(1);
        self.now = self.shared.launch.now();
        self.woken();
        self.deliver();
        while let Some(id) = self.changed.pop() {
            let it = self.conns.get(id).and_then(|c| c.source.as_ref().zip(Some(c.interest)));
            let Some(((source, token), (readable, writable))) = it else { continue };
            source.as_source_mut().interest = Interest { readable, writable };
            if self.handle.update(token).is_err() {
                self.close(id, "Out of memory");
            }
        }
        let drained = self.listener.is_none() && self.conns.is_empty();
        if drained || self.drain_until <= self.now {
            return self.signal.stop();
        }
        let next = self.deadlines.next().min(self.accept_at).min(self.drain_until);
        if std::mem::replace(&mut self.timer.0, next) != next {
            self.timer.1.into_iter().for_each(|timer| self.handle.remove(timer));
            let timer = Timer::from_duration(next.after(self.now));
            self.timer.1 = self.handle.insert_source(timer, |_, _, worker| worker.expire()).ok();
        }
    }

    fn accept(&mut self, listener: &TcpListener) -> PostAction {
        self.now = self.shared.launch.now();
        for _ in 0..ACCEPTS {
            match acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok((socket, Some(peer))) => self.admit(TcpStream::from(socket), peer),
                Err(rustix::io::Errno::AGAIN) => {
                    self.counters.would_blocks.add(1);
                    break;
                }
                Err(error) if launch::is_shortage(&error.into()) => {
                    // The listener stays ready: were it watched on, the loop would spin.
                    self.counters.shortages.add(1);
                    self.accept_at = self.now + SHORTAGE_PAUSE;
                    return PostAction::Disable;
                }
                _ => self.counters.accept_errors.add(1),
            }
        }
        PostAction::Continue
    }

    fn admit(&mut self, socket: TcpStream, peer: SocketAddrAny) {
        let launch = self.shared.launch;
        let Ok(peer) = SocketAddr::try_from(peer).map(|peer| peer.ip()) else { return };
        let Some(place) = launch.admit(&socket, peer, self.counters) else { return };
        let session = Session::new(&launch.settings, self.now);
        let (socket, outbox, interest) = (Rc::new(socket), Outbox::default(), (true, false));
        let source = Generic::new(Rc::clone(&socket), Interest::READ, Level);
        let conn = Conn { socket, session, outbox, source: None, interest, _place: place };
        let (id, conn) = self.conns.insert(conn);
        let source = Dispatcher::new(source, move |it, _, own: &mut Worker| own.ready(id, it));
        let Ok(token) = self.handle.register_dispatcher(source.clone()) else {
            return drop(self.conns.remove(id));
        };
        conn.source = Some((source, token));
        if let Some(hub) = &self.shared.hub {
            lock(hub).open(id, &peer.to_string(), self.now);
        }
        self.settle(id);
    }

    /// A socket is ready. If its connection is closed now, or its slot another's, nobody is found.
    fn ready(&mut self, id: ConnId, readiness: Readiness) -> io::Result<PostAction> {
        self.now = self.shared.launch.now();
        match self.conns.get(id).is_some_and(|conn| conn.interest.0) {
            true if readiness.readable => self.read(id),
            // Told whether asked for or not: the peer is gone for good.
            false if readiness.readable => self.close(id, "Connection reset"),
            _ => {}
        }
        if readiness.writable {
            self.write(id);
        }
        Ok(PostAction::Continue)
    }

    fn read(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        match (&*conn.socket).read(&mut self.buffer) {
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

    /// Has calloop watch for what the connection can use now, if that has changed.
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
        let interest = (read, !conn.outbox.is_empty());
        if std::mem::replace(&mut conn.interest, interest) != interest {
            self.changed.push(id);
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
            others.for_each(|worker| self.shared.wakes[worker].ping());
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
        self.shared.wakes[self.index].ping(); // There may be more.
    }

    fn expire(&mut self) -> TimeoutAction {
        self.now = self.shared.launch.now();
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
            let watch = |listener| self.handle.enable(&listener);
            let watched = self.listener.map_or(Ok(()), watch).is_ok();
            // There may be no memory for that either.
            self.accept_at = if watched { Time::NEVER } else { self.now + SHORTAGE_PAUSE };
        }
        self.timer = (Time::NEVER, None); // The end of the turn sets another.
        TimeoutAction::Drop
    }

    /// Perhaps the server stops.
    fn woken(&mut self) {
        let stop = self.shared.launch.stop.requested();
        let Some(listener) = self.listener.take_if(|_| stop) else { return };
        self.handle.remove(listener);
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
        closed.source.into_iter().for_each(|(_, token)| self.handle.remove(token));
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
