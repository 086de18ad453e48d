//! A process of the pool: it accepts a client, serves it to its end, and accepts the next.
//!
//! Its first thread waits in `accept`, and then in `recv` and `send` for its client. A second one
//! waits for the word to stop. In chat a third one waits for mail from the hub.

use std::io::{self, ErrorKind};
use std::mem::{self, MaybeUninit};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::exit;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use launch::{Counter, Counters, Heard, IoSlices, READ_SIZE, RecvWait, lock};
use protocol::{ConnId, Done, Duplex, Input, Outbox, SENDQ_EXCEEDED, Step};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{RecvFlags, SendFlags, sendmsg};

use crate::frame::{self, Packets};
use crate::{Pool, Seat, TICK};

/// How long to wait for mail when there is nothing else to look for.
const LONG: Duration = Duration::from_secs(3600);

/// What the threads of one process share.
pub(crate) struct Worker {
    pool: &'static Pool,
    index: usize,
    counters: &'static Counters,
    /// The client that is being served.
    client: Mutex<Option<Arc<Conn>>>,
}

/// The client, and what the threads share of it.
struct Conn {
    worker: &'static Worker,
    id: ConnId,
    socket: TcpStream,
    /// In echo it stays locked for the client's life: no other thread wants it.
    state: Mutex<State>,
    /// Chat: mail has come, and with it what the first thread may be waiting for.
    changed: Condvar,
    /// Echo: whether the first thread waits in `recv` for the stop to wake it.
    wait: RecvWait,
}

struct State {
    duplex: Duplex,
    /// Chat: what still has to be sent to the hub, if that could not be done at once.
    unsent: Option<(u8, &'static str)>,
    /// Chat: bytes written to the socket, modulo 2^32: the hub counts what still waits.
    written: u32,
    /// Chat: mail has come since the first thread last paused.
    mail: bool,
}

/// What a process receives with.
struct ReadBuffer {
    buffer: Box<[MaybeUninit<u8>]>,
    /// The timeout that the socket has.
    armed: Duration,
}

impl Worker {
    pub(crate) fn new(pool: &'static Pool, index: usize) -> Worker {
        Worker { pool, index, counters: pool.launch.counters(index), client: Mutex::default() }
    }

    /// The life of the process: one client after another.
    pub(crate) fn run(&'static self) {
        let launch = self.pool.launch;
        let mut read_buffer = ReadBuffer::new();
        // The next to be asked comes first, so that no address starves another.
        let mut listeners: Vec<_> = self.pool.listeners.iter().collect();
        while !launch.stop.requested() {
            match self.accept(&mut listeners) {
                Ok((socket, peer)) => self.admit(socket, peer.ip(), &mut read_buffer),
                // The listening socket has been shut down, or left to others: the server stops.
                Err(error) if error.kind() == ErrorKind::InvalidInput => return,
                Err(error) if launch::is_shortage(&error) => {
                    self.counters.shortages.add(1);
                    thread::sleep(TICK);
                }
                Err(_) => self.counters.accept_errors.add(1),
            }
            self.counters.wakeups.add(1);
        }
    }

    /// Waits for a client: in `accept` itself when there is one listener, in `poll` when there are
    /// more, or processes of another server have it too. To shut it down would end `accept`, and
    /// their connections as well.
    fn accept(&self, listeners: &mut [&TcpListener]) -> io::Result<(TcpStream, SocketAddr)> {
        let end = self.pool.launch.accept_end();
        if let ([listener], None) = (&listeners[..], end) {
            return listener.accept();
        }
        loop {
            let sockets = listeners.iter().map(|socket| socket.as_fd()).chain(end);
            let mut waits: Vec<_> =
                sockets.map(|socket| PollFd::from_borrowed_fd(socket, PollFlags::IN)).collect();
            // A signal that interrupts it does no harm: then none is ready.
            let _ = poll(&mut waits, None);
            let mut ready = waits.iter().map(|wait| !wait.revents().is_empty());
            if end.is_some() && ready.next_back() == Some(true) {
                return Err(ErrorKind::InvalidInput.into()); // The server stops.
            }
            let Some(ready) = ready.position(|ready| ready) else { continue };
            let accepted = listeners[ready].accept();
            listeners.rotate_left(ready + 1);
            match accepted {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.counters.would_blocks.add(1); // Another process was first.
                }
                accepted => return accepted,
            }
        }
    }

    /// Serves a client to its end.
    fn admit(&'static self, socket: TcpStream, peer: IpAddr, read_buffer: &mut ReadBuffer) {
        let (pool, launch, seat) = (self.pool, self.pool.launch, self.seat());
        let admit = |others| launch.admit_beside(&socket, others, self.counters);
        if !pool.enter(seat, peer, admit) {
            return;
        }
        launch.begins(peer);
        // As `Slots` would name it, which cannot see the generations of a process that has died.
        let generation = seat.clients.fetch_add(1, SeqCst) + 1;
        let id = ConnId::from_bits((generation & 0xff_ffff) << 24 | self.index as u64);
        seat.id.store(id.bits(), SeqCst);
        let _ = socket.set_write_timeout(Some(TICK));
        let host = peer.to_canonical().to_string();
        let duplex = Duplex::new(&launch.settings, launch.now()).of(&host);
        let state = Mutex::new(State { duplex, unsent: None, written: 0, mail: false });
        let (changed, wait) = (Condvar::new(), RecvWait::default());
        let conn = Arc::new(Conn { worker: self, id, socket, state, changed, wait });
        *lock(&self.client) = Some(Arc::clone(&conn));

        read_buffer.armed = Duration::MAX;
        if pool.links.is_empty() {
            // An error of the socket ends the connection as its end does.
            let _ = conn.echo(read_buffer);
        } else {
            conn.tell(frame::OPEN, &host, SendFlags::empty());
            conn.chat(read_buffer);
            let reason = lock(&conn.state).duplex.over().unwrap_or("Connection closed");
            conn.tell(frame::LEAVE, reason, SendFlags::empty());
        }
        lock(&self.client).take();
        launch.ends(peer, self.counters);
        seat.id.store(0, SeqCst);
        seat.taken.store(false, SeqCst);
    }

    fn seat(&self) -> &'static Seat {
        &self.pool.seats[self.index]
    }

    /// The thread that waits for the parent's word. Where the first thread waits in `recv`, that is
    /// ended, as soon as the client has taken its replies. A client that talks has woken it itself.
    /// In chat the parent tells the hub.
    pub(crate) fn heed(&self) {
        let launch = self.pool.launch;
        while launch.next_signal() != Heard::Stop {}
        let end = launch.now() + launch.drain_timeout;
        if self.pool.links.is_empty() {
            launch.interrupt_waits(|late| {
                let client = lock(&self.client);
                client.iter().filter(|conn| conn.wait.interrupt(&conn.socket, late)).count()
            });
        }
        thread::sleep(end.after(launch.now()));
        exit(0);
    }

    /// Chat: the thread that waits for the hub's mail, because one in `recv` for its client cannot
    /// see that there is something to send. It never waits for anything else.
    pub(crate) fn postman(&self) {
        let (launch, link) = (self.pool.launch, &self.pool.links[self.index].worker);
        let mut buffer = vec![0; frame::PACKET];
        let (mut left, mut armed) = (LONG, Duration::MAX);
        loop {
            if left < armed {
                let _ = set_socket_timeout(link, Timeout::Recv, Some(left));
                armed = left;
            }
            let received = rustix::net::recv(link, &mut buffer[..], RecvFlags::empty());
            self.counters.wakeups.add(1);
            let conn = lock(&self.client).clone();
            match (received, &conn) {
                (Ok((len, _)), Some(conn)) => conn.deliver(&buffer[..len]),
                (Ok(_), None) => {} // Its member is gone.
                (Err(_), _) => armed = Duration::MAX,
            }

            left = match conn.map(|conn| conn.next_step()) {
                None | Some(Step::Close(_)) => LONG,
                Some(Step::Receive(until) | Step::Pause(until)) => {
                    until.after(launch.now()).clamp(Duration::from_micros(1), LONG)
                }
                // The client is to take more, or the other thread goes on with what it has said.
                Some(_) => TICK,
            };
        }
    }
}

impl Conn {
    /// Echo: the whole life of a connection, one call that waits after another.
    fn echo(&self, read_buffer: &mut ReadBuffer) -> Result<(), Errno> {
        let launch = self.worker.pool.launch;
        let State { duplex, .. } = &mut *lock(&self.state);
        let Duplex { session, outbox, .. } = duplex;
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
                // Fails if the peer has gone.
                Step::Shut => _ = self.socket.shutdown(Shutdown::Write),
                step @ Step::Close(_) => {
                    launch.account(step.done(), self.worker.counters);
                    return Ok(());
                }
                Step::Ping | Step::Cut(_) | Step::Relieve => {} // In chat only.
            }

            now = launch.now();
            if let Some(input) = input {
                let lines = session.echo(input, now, outbox);
                launch.account(Done { lines, ..Done::default() }, self.worker.counters);
            }
        }
    }

    /// Chat: the whole life of a member, as far as it sends lines.
    fn chat(&self, read_buffer: &mut ReadBuffer) {
        let launch = self.worker.pool.launch;
        loop {
            match self.next_step() {
                Step::Receive(until) => self.hear(read_buffer, until.after(launch.now())),
                Step::ReceiveNow => self.hear(read_buffer, TICK),
                Step::Pause(until) => self.pause(until.after(launch.now()).min(TICK)),
                Step::Send => self.pause(TICK),
                Step::Resume => self.handle(Input::Resume),
                Step::Close(_) => return,
                Step::Ping | Step::Cut(_) | Step::Relieve | Step::Shut => {} // Done.
            }
        }
    }

    /// Chat: waits until mail has come, for at most `left`.
    fn pause(&self, left: Duration) {
        let no_mail = |state: &mut State| !mem::take(&mut state.mail);
        drop(self.changed.wait_timeout_while(lock(&self.state), left, no_mail));
    }

    /// Chat: waits for at most `left`, and handles what comes.
    fn hear(&self, read_buffer: &mut ReadBuffer, left: Duration) {
        match self.receive(read_buffer, left) {
            Ok(Some(input)) => self.handle(input),
            Ok(None) => {}
            Err(_) => {
                lock(&self.state).duplex.end("Connection reset");
            }
        }
    }

    /// Chat: sends what the socket takes, and does what waits for nothing. Then: what to wait for,
    /// or [`Step::Resume`], which only the first thread may do, since the hub may let it wait.
    fn next_step(&self) -> Step {
        let launch = self.worker.pool.launch;
        loop {
            let now = launch.now();
            let mut state = lock(&self.state);
            self.flush(&mut state);
            // Without waiting: while the hub waits for this process, it takes packets of no other.
            if let Some((kind, reason)) = state.unsent
                && self.tell(kind, reason, SendFlags::DONTWAIT)
            {
                state.unsent = None;
            }

            let over = state.duplex.over().is_some();
            // What is still queued the socket does not take.
            let step = state.duplex.step(now, true);
            if !over {
                launch.account(step.done(), self.worker.counters);
            }
            match step {
                Step::Ping => state.unsent = Some((frame::PING, "")),
                Step::Cut(reason) => state.unsent = Some((frame::CUT, reason)),
                // Fails if the peer has gone.
                Step::Shut => _ = self.socket.shutdown(Shutdown::Write),
                Step::Close(reason) => {
                    state.duplex.end(reason);
                    let _ = self.socket.shutdown(Shutdown::Both); // For the other thread.
                    return step;
                }
                Step::Receive(until) if state.unsent.is_some() => {
                    return Step::Receive(until.min(now + TICK));
                }
                step => return step,
            }
        }
    }

    /// Chat: gives the protocol `input`, and tells the hub the lines.
    fn handle(&self, input: Input<'_>) {
        let launch = self.worker.pool.launch;
        let mut state = lock(&self.state);
        let mut packets = Packets::of_lines(self.id, state.written);
        let Duplex { session, outbox, .. } = &mut state.duplex;
        let lines = session.chat(input, launch.now(), outbox, self.id, &mut packets);
        drop(state);
        launch.account(Done { lines, ..Done::default() }, self.worker.counters);
        self.worker.pool.tell(&packets, SendFlags::empty());
    }

    /// Chat: tells the hub one thing, or with DONTWAIT says that it could not.
    fn tell(&self, kind: u8, payload: &str, flags: SendFlags) -> bool {
        self.worker.pool.tell(&Packets::of(self.id, kind, payload.as_bytes()), flags)
    }

    /// Chat: queues mail from the hub.
    fn deliver(&self, packet: &[u8]) {
        let now = self.worker.pool.launch.now();
        let mut state = lock(&self.state);
        for mail in frame::mail(packet).filter(|mail| mail.to == self.id) {
            if state.duplex.post(mail.parcel, now).full {
                self.worker.counters.slow_cut.add(1);
                state.unsent = Some((frame::CUT, SENDQ_EXCEEDED));
            }
        }
        state.mail = true;
        drop(state);
        self.changed.notify_one();
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
        self.worker.counters.wakeups.add(1);
        match received {
            Ok(((bytes, _), _)) => {
                self.worker.counters.bytes_in.add(bytes.len() as u64);
                Ok(Some(Input::Received(bytes)))
            }
            Err(error) => {
                to.armed = Duration::MAX; // The time has passed, so the next is set anew.
                self.failed(error, &self.worker.counters.read_errors).map(|()| None)
            }
        }
    }

    /// Chat: sends what the socket takes, without waiting: the other thread may want the lock.
    fn flush(&self, state: &mut State) {
        let State { duplex, written, .. } = state;
        let mut before = usize::MAX;
        while !duplex.outbox.is_empty() && duplex.outbox.len() < before && duplex.over().is_none() {
            before = duplex.outbox.len();
            if self.send(&mut duplex.outbox, SendFlags::DONTWAIT).is_err() {
                duplex.end("Connection reset");
                let _ = self.socket.shutdown(Shutdown::Both);
            }
            let sent = before - duplex.outbox.len();
            *written = written.wrapping_add(sent as u32);
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
                self.worker.counters.bytes_out.add(len as u64);
                outbox.advance(len);
                Ok(())
            }
            Err(error) => self.failed(error, &self.worker.counters.write_errors),
        }
    }

    /// Tells a timeout from an error. A SIGSTOP interrupts what has a timeout: that is none either.
    fn failed(&self, error: Errno, errors: &Counter) -> Result<(), Errno> {
        if matches!(error, Errno::AGAIN | Errno::INTR) {
            self.worker.counters.would_blocks.add(1);
            return Ok(());
        }
        errors.add(1);
        Err(error)
    }
}

impl ReadBuffer {
    fn new() -> ReadBuffer {
        ReadBuffer { buffer: Box::new_uninit_slice(READ_SIZE), armed: Duration::MAX }
    }
}
