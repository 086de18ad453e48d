//! Single-threaded synchronous: one client is served to its end, and then the next.
//!
//! **Who waits where:** each worker, in `accept` for a client, then in that client's `recv` and
//! `send` until it is gone. All other clients wait in the backlog. With several addresses to listen
//! on, a worker waits for a client in `poll` instead, since `accept` waits on one socket only.
//! **What wakes it:** what it waits for, or a timeout. To stop, the sockets are shut down.
//!
//! There is no state to keep between two calls, so this is how one writes a first server. And a
//! client that says nothing holds up all other clients until the idle timeout, so one writes a
//! second.
//!
//! Chat works and is lonely: there are never more members than workers. A thread in `recv` cannot
//! see that there is something to send. So a worker that has got a line for a member of another
//! worker sends it there itself, without waiting. What that socket does not take, and a cut, must
//! wait until the other worker looks, every [`TICK`]. [`Registry`] is locked before the state of a
//! connection, and neither lock is held while waiting.
//!
//! What to do next is `protocol`'s to say ([`Step`]). Here is how this model does it, and waits.
//!
//! Run: `cargo run --release -p serve-iterative -- --mode chat`
//! Read first: `examples/bare.rs`, this model without all that a server needs.
//! Read next: `serve-threads`, which gives each client a thread of its own, and `serve-prefork`,
//! which is many of these, each a process.

use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use launch::{Counter, Counters, Failure, IoSlices, Launch, Place, READ_SIZE, RecvWait, lock};
use protocol::{ConnId, Done, Duplex, Hub, Input, Mail, Mode, Outbox, Posted, Slots, Step};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, sendmsg};

/// How long to wait in `send`, or for a free descriptor, before looking again; in chat also how
/// long for what another worker may have left to do.
const TICK: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let about = "Echo or chat, one client after another: each worker serves one at a time";
    launch::main(env!("CARGO_PKG_NAME"), about, serve)
}

fn serve(launch: &'static Launch) -> Result<(), Failure> {
    let chat = launch.settings.mode == Mode::Chat;
    let hub = chat.then(|| Hub::new(Arc::clone(&launch.settings), 1));
    let registry = Mutex::new(Registry { conns: Slots::new(0), hub, mail: Vec::new() });
    let shared: &'static Shared =
        Box::leak(Box::new(Shared { launch, registry, departed: Condvar::new() }));

    // Workers share them: with one each, a client could wait behind a busy worker beside an idle
    // one.
    let listeners: &'static [TcpListener] = launch.listeners()?.leak();
    if listeners.len() > 1 {
        // What `poll` has announced another worker may accept first: then there is nothing to wait
        // for.
        for listener in listeners {
            listener.set_nonblocking(true).map_err(Failure::of("listener"))?;
        }
    }
    let mut workers = Vec::new();
    for index in 0..launch.workers {
        let (counters, read_buffer) = (launch.counters(index), ReadBuffer::new());
        workers.push(Worker {
            shared,
            counters,
            listeners: listeners.iter().collect(),
            read_buffer,
        });
    }
    launch.on_stop(|| shared.stop(listeners))?;
    launch.run_each(workers, Worker::run)
}

/// What all workers share.
struct Shared {
    launch: &'static Launch,
    registry: Mutex<Registry>,
    /// A client is gone.
    departed: Condvar,
}

/// Who is there. Echo locks it when a client comes and when it goes, never in between.
struct Registry {
    conns: Slots<Arc<Conn>>,
    /// In chat only.
    hub: Option<Hub>,
    /// On its way from the hub to the queues; empty when the lock is free.
    mail: Vec<Mail>,
}

/// One thread, which serves one client after another.
struct Worker {
    shared: &'static Shared,
    counters: &'static Counters,
    /// The next to be asked comes first, so that no address starves another.
    listeners: Vec<&'static TcpListener>,
    read_buffer: ReadBuffer,
}

/// The client of a worker, and what other workers see of it.
struct Conn {
    shared: &'static Shared,
    counters: &'static Counters,
    id: ConnId,
    /// In echo the worker keeps it locked for the client's life: no other worker wants it.
    state: Mutex<Duplex>,
    /// Holds one of `--max-connections`. It is dropped after `state`, which logs the end as it is
    /// dropped. It is freed before `socket` is closed, so that a client that sees the connection
    /// close can connect again at once.
    _place: Place,
    socket: TcpStream,
    /// Echo: whether the worker waits in `recv` for the stop to wake it.
    wait: RecvWait,
}

/// What a worker receives with.
struct ReadBuffer {
    buffer: Box<[MaybeUninit<u8>]>,
    /// The timeout that the socket has.
    armed: Duration,
}

impl Worker {
    fn run(mut self) -> Result<(), Failure> {
        let stop = &self.shared.launch.stop;
        while !stop.requested() {
            match self.accept() {
                Ok((socket, peer)) => self.admit(socket, peer.ip()),
                Err(_) if stop.requested() => {}
                Err(error) if launch::is_shortage(&error) => self.shared.pause(self.counters),
                Err(_) => self.counters.accept_errors.add(1),
            }
            self.counters.wakeups.add(1);
        }
        Ok(())
    }

    /// Waits for a client: in `accept` itself when there is one listener, in `poll` when there are
    /// more, or other processes have it too. To shut it down would end `accept`, and their
    /// connections as well.
    fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        let end = self.shared.launch.accept_end();
        if let ([listener], None) = (&self.listeners[..], end) {
            return listener.accept();
        }
        loop {
            let sockets = self.listeners.iter().map(|socket| socket.as_fd()).chain(end);
            let mut waits: Vec<_> =
                sockets.map(|socket| PollFd::from_borrowed_fd(socket, PollFlags::IN)).collect();
            // A signal that interrupts it does no harm: then none is ready.
            let _ = poll(&mut waits, None);
            let mut ready = waits.iter().map(|wait| !wait.revents().is_empty());
            if end.is_some() && ready.next_back() == Some(true) {
                return Err(ErrorKind::InvalidInput.into()); // The server stops.
            }
            let Some(ready) = ready.position(|ready| ready) else { continue };
            let accepted = self.listeners[ready].accept();
            self.listeners.rotate_left(ready + 1);
            match accepted {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.counters.would_blocks.add(1); // Another worker was first.
                }
                accepted => return accepted,
            }
        }
    }

    /// Serves a client to its end.
    fn admit(&mut self, socket: TcpStream, peer: IpAddr) {
        let (shared, launch, counters) = (self.shared, self.shared.launch, self.counters);
        let Some(place) = launch.admit(&socket, peer, counters) else { return };
        let host = place.peer().to_string();
        let now = launch.now();
        let _ = socket.set_write_timeout(Some(TICK));
        let state = Mutex::new(Duplex::new(&launch.settings, now).of(&host));

        let mut registry = lock(&shared.registry);
        if launch.stop.requested() {
            return; // `stop` has been to all connections, or waits for this lock.
        }
        let (id, conn) = registry.conns.insert_with(|id| {
            let wait = RecvWait::default();
            Arc::new(Conn { shared, counters, id, _place: place, socket, state, wait })
        });
        let conn = Arc::clone(conn);
        let chat = registry.hub.as_mut().map(|hub| hub.open(id, &host, now)).is_some();
        drop(registry);

        self.read_buffer.armed = Duration::MAX;
        if chat {
            conn.chat(&mut self.read_buffer);
        } else {
            // An error of the socket ends the connection as its end does.
            let _ = conn.echo(&mut self.read_buffer);
        }
        conn.close();
    }
}

impl Shared {
    /// Something has run out. New clients wait in the backlog until one is gone, or a while.
    fn pause(&self, counters: &Counters) {
        counters.shortages.add(1);
        drop(self.departed.wait_timeout(lock(&self.registry), TICK));
    }

    /// The server stops. Where the worker of an echo client waits in `recv`, that is ended, as soon
    /// as the client has taken its replies. A client that talks has woken its worker itself.
    fn stop(&self, listeners: &[TcpListener]) {
        for listener in listeners {
            self.launch.end_accept(listener);
        }
        if self.ask(Hub::shut_down).is_some() {
            self.deliver();
            for conn in self.conns() {
                conn.part();
            }
            return;
        }
        self.launch.interrupt_waits(|late| {
            self.conns().iter().filter(|conn| conn.wait.interrupt(&conn.socket, late)).count()
        });
    }

    fn conns(&self) -> Vec<Arc<Conn>> {
        let registry = lock(&self.registry);
        registry.conns.ids().filter_map(|id| registry.conns.get(id).cloned()).collect()
    }

    /// Chat: calls the hub. What comes of it waits for [`Shared::deliver`].
    fn ask<T>(&self, call: impl FnOnce(&mut Hub) -> T) -> Option<T> {
        lock(&self.registry).hub.as_mut().map(call)
    }

    /// Chat: queues the hub's mail for its receivers, and sends what their sockets take. All
    /// members get it in the hub's order, because the hub stays locked until it is queued.
    fn deliver(&self) {
        let now = self.launch.now();
        let mut registry = lock(&self.registry);
        let Registry { conns, hub: Some(hub), mail } = &mut *registry else { return };
        let done = hub.hand_out(mail, |to, parcel| {
            let Some(conn) = conns.get(to) else { return Posted::default() };
            // What is queued here is sent below: no worker is ever behind with it.
            Posted { behind: false, ..lock(&conn.state).post(parcel, now) }
        });
        drop(registry);

        self.launch.account(done, self.launch.counters(0));
        for conn in self.conns() {
            conn.flush(&mut lock(&conn.state));
        }
    }
}

impl Conn {
    /// Echo: the whole life of a connection, one call that waits after another.
    fn echo(&self, read_buffer: &mut ReadBuffer) -> Result<(), Errno> {
        let launch = self.shared.launch;
        let Duplex { session, outbox, .. } = &mut *lock(&self.state);
        let mut now = launch.now();
        let mut stuck = false;
        loop {
            if self.wait.end(&launch.stop) {
                session.stop(launch::is_busy(&self.socket), outbox);
            }
            let mut input = None;
            match session.step(now, outbox, stuck) {
                Step::Send => {
                    self.send(outbox, SendFlags::empty())?;
                    stuck = !outbox.is_empty();
                }
                // It has just been told to stop, and heeds that first.
                Step::Receive(_) if !self.wait.begin(&launch.stop) => {}
                Step::Receive(until) => input = self.receive(read_buffer, until.after(now))?,
                Step::ReceiveNow => {
                    input = self.receive(read_buffer, Duration::ZERO)?;
                    stuck = input.is_some();
                }
                Step::Pause(until) => thread::sleep(until.after(now)),
                Step::Resume => input = Some(Input::Resume),
                step @ Step::Close(_) => {
                    self.act(step);
                    return Ok(());
                }
                step => self.act(step),
            }

            now = launch.now();
            if let Some(input) = input {
                let lines = session.echo(input, now, outbox);
                launch.account(Done { lines, ..Done::default() }, self.counters);
            }
        }
    }

    /// Chat: the whole life of a member. While it waits other workers may send to its socket.
    fn chat(&self, read_buffer: &mut ReadBuffer) {
        let launch = self.shared.launch;
        loop {
            let now = launch.now();
            let mut state = lock(&self.state);
            self.flush(&mut state);
            // What is still queued the socket does not take.
            let step = state.step(now, true);
            drop(state);
            match step {
                // Another worker may have queued what this socket did not take.
                Step::Receive(until) if launch.workers > 1 => {
                    self.hear(read_buffer, until.after(now).min(TICK));
                }
                Step::Receive(until) => self.hear(read_buffer, until.after(now)),
                Step::ReceiveNow => self.hear(read_buffer, TICK),
                Step::Pause(until) => thread::sleep(until.after(now).min(TICK)),
                Step::Send => thread::sleep(TICK),
                Step::Close(_) => {
                    self.act(step);
                    return;
                }
                step => self.act(step),
            }
        }
    }

    /// Chat: the server stops, and the member's last words are queued. Its worker may wait in
    /// `recv`, and not see that.
    fn part(&self) {
        let step = lock(&self.state).step(self.shared.launch.now(), true);
        match step {
            // They are sent. The member has time to end its stream: that wakes the worker.
            Step::Shut => _ = self.socket.shutdown(Shutdown::Write),
            // The socket does not take them yet: the worker is to try.
            Step::Send => _ = self.socket.shutdown(Shutdown::Read),
            // The worker has seen it by itself. If it has ended its side already, and its other
            // side were shut down now, the kernel would reset a peer that goes on sending.
            _ => {}
        }
    }

    /// Chat: waits for at most `left`, and handles what comes.
    fn hear(&self, read_buffer: &mut ReadBuffer, left: Duration) {
        match self.receive(read_buffer, left) {
            Ok(Some(input)) => self.handle(input),
            Ok(None) => {}
            Err(_) => {
                lock(&self.state).end("Connection reset");
            }
        }
    }

    /// The steps that do not wait.
    fn act(&self, step: Step) {
        let shared = self.shared;
        shared.launch.account(step.done(), self.counters);
        match step {
            Step::Resume => self.handle(Input::Resume),
            Step::Ping => _ = shared.ask(|hub| hub.ping(self.id)),
            Step::Cut(reason) => _ = shared.ask(|hub| hub.cut(self.id, reason)),
            // Fails if the peer has gone.
            Step::Shut => _ = self.socket.shutdown(Shutdown::Write),
            // The first four wait, and are done where they are asked for.
            Step::Send | Step::Receive(_) | Step::ReceiveNow | Step::Pause(_) => {}
            Step::Close(_) | Step::Relieve => {} // Counted. Only a thread that only sends relieves.
        }
        shared.deliver();
    }

    /// Chat: gives the protocol `input`, and brings what comes of it to those whom it concerns.
    fn handle(&self, input: Input<'_>) {
        let (shared, now) = (self.shared, self.shared.launch.now());
        let lines = shared.ask(|hub| {
            let Duplex { session, outbox, .. } = &mut *lock(&self.state);
            session.chat(input, now, outbox, self.id, hub)
        });
        let done = Done { lines: lines.unwrap_or_default(), ..Done::default() };
        shared.launch.account(done, self.counters);
        shared.deliver();
    }

    /// One `recv`, which waits for at most `left`. `None`: nothing has come.
    fn receive<'a>(
        &self,
        to: &'a mut ReadBuffer,
        left: Duration,
    ) -> Result<Option<Input<'a>>, Errno> {
        let mut flags = RecvFlags::empty();
        if left.is_zero() {
            flags = RecvFlags::DONTWAIT;
        } else if left < to.armed {
            // A shorter timeout does no harm: none is set while deadlines only move away.
            let _ = self.socket.set_read_timeout(Some(left));
            to.armed = left;
        }
        let received = rustix::net::recv(&self.socket, &mut to.buffer[..], flags);
        self.counters.wakeups.add(1);
        match received {
            Ok(((bytes, _), _)) => {
                self.counters.bytes_in.add(bytes.len() as u64);
                Ok(Some(Input::Received(bytes)))
            }
            Err(error) => {
                to.armed = Duration::MAX; // The time has passed, so the next is set anew.
                self.failed(error, &self.counters.read_errors).map(|()| None)
            }
        }
    }

    /// Chat: sends what the socket takes, without waiting: other workers may want the lock.
    fn flush(&self, state: &mut Duplex) {
        let mut before = usize::MAX;
        while !state.outbox.is_empty() && state.outbox.len() < before && state.over().is_none() {
            before = state.outbox.len();
            if self.send(&mut state.outbox, SendFlags::DONTWAIT).is_err() {
                state.end("Connection reset");
                let _ = self.socket.shutdown(Shutdown::Both);
            }
        }
    }

    /// One `send`, of as much of what is queued as it takes before its timeout.
    fn send(&self, outbox: &mut Outbox, flags: SendFlags) -> Result<(), Errno> {
        let flags = flags | SendFlags::NOSIGNAL;
        let sent = match &*IoSlices::new(outbox.slices()) {
            [slice] => rustix::net::send(&self.socket, slice, flags),
            slices => sendmsg(&self.socket, slices, &mut Default::default(), flags),
        };
        match sent {
            Ok(len) => {
                self.counters.bytes_out.add(len as u64);
                outbox.advance(len);
                Ok(())
            }
            Err(error) => self.failed(error, &self.counters.write_errors),
        }
    }

    /// Tells a timeout from an error. A SIGSTOP interrupts what has a timeout: that is none either.
    fn failed(&self, error: Errno, errors: &Counter) -> Result<(), Errno> {
        if matches!(error, Errno::AGAIN | Errno::INTR) {
            self.counters.would_blocks.add(1);
            return Ok(());
        }
        errors.add(1);
        Err(error)
    }

    fn close(&self) {
        let reason = lock(&self.state).over().unwrap_or("Connection closed");
        // The hub first: as soon as it is removed, a new connection may have its slot.
        self.shared.ask(|hub| hub.leave(self.id, reason));
        lock(&self.shared.registry).conns.remove(self.id);
        self.shared.deliver();
        self.shared.departed.notify_all();
    }
}

impl ReadBuffer {
    fn new() -> ReadBuffer {
        ReadBuffer { buffer: Box::new_uninit_slice(READ_SIZE), armed: Duration::MAX }
    }
}
