//! A process of the pool: it accepts a client, serves it to its end, and accepts the next.

use std::io::{ErrorKind, IoSlice};
use std::mem::{self, MaybeUninit};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::process::exit;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use launch::{Counter, Counters, Heard};
use protocol::{ConnId, Due, Line, Next, Outbox, Parcel, Session};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{RecvFlags, SendFlags, sendmsg};

use crate::frame::{self, Packets};
use crate::{Pool, Seat, TICK};

/// The most slices in one vectored write.
const SLICES: usize = 64;

/// What the threads of one process share.
pub(crate) struct Worker {
    pub(crate) pool: &'static Pool,
    pub(crate) index: usize,
    pub(crate) counters: &'static Counters,
    /// Who is being served.
    pub(crate) client: Mutex<Option<Arc<Conn>>>,
}

pub(crate) struct Conn {
    worker: &'static Worker,
    id: ConnId,
    socket: TcpStream,
    state: Mutex<State>,
}

/// In echo it stays locked for the client's life: nobody else wants it.
struct State {
    session: Session,
    outbox: Outbox,
    /// Chat: what the hub must still be told, if it could not be told at once.
    untold: Option<(u8, &'static str)>,
    /// Chat: the hub will close it. Until that comes, no deadline counts.
    cut: bool,
    /// Chat: the connection is over.
    gone: bool,
}

impl Worker {
    /// The life of the process: one client after another.
    pub(crate) fn run(&'static self) {
        let launch = self.pool.launch;
        let mut buffer = Box::new_uninit_slice(launch.read_size());
        while !launch.stop.requested() {
            match self.pool.listener.accept() {
                Ok((socket, peer)) => self.admit(socket, peer.ip(), &mut buffer),
                // The listening socket has been shut down: the server stops.
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

    /// Serves a client to its end.
    fn admit(&'static self, socket: TcpStream, peer: IpAddr, buffer: &mut [MaybeUninit<u8>]) {
        let (pool, launch, seat) = (self.pool, self.pool.launch, self.seat());
        let admit = |others| launch.admit_beside(&socket, others, self.counters);
        if !pool.enter(seat, peer, admit) {
            return;
        }
        // As `Slots` would name it, which cannot see the generations of a process that has died.
        let generation = seat.clients.fetch_add(1, SeqCst) + 1;
        let id = ConnId::from_bits((generation & 0xff_ffff) << 24 | self.index as u64);
        seat.id.store(id.bits(), SeqCst);
        let (session, outbox) = (Session::new(&launch.settings, launch.now()), Outbox::default());
        let state = Mutex::new(State { session, outbox, untold: None, cut: false, gone: false });
        let _ = socket.set_write_timeout(Some(TICK));
        let conn = Arc::new(Conn { worker: self, id, socket, state });
        *lock(&self.client) = Some(Arc::clone(&conn));
        if pool.links.is_empty() {
            conn.echo(buffer);
        } else {
            let host = peer.to_string();
            pool.tell(&Packets::of(id, frame::OPEN, host.as_bytes()), SendFlags::empty());
            conn.chat(buffer);
            let why = b"Connection closed";
            pool.tell(&Packets::of(id, frame::LEAVE, why), SendFlags::empty());
        }
        lock(&self.client).take();
        seat.id.store(0, SeqCst);
        seat.taken.store(false, SeqCst);
    }

    fn seat(&self) -> &'static Seat {
        &self.pool.seats[self.index]
    }

    /// The thread that waits for the parent's word: a client in whose `recv` its process waits gets
    /// the end of the stream. Where something has come nobody waits, and were that side shut down,
    /// the kernel would reset a peer that goes on talking. In chat the hub has been told.
    pub(crate) fn heed(&self) {
        let launch = self.pool.launch;
        while launch.next_signal() != Heard::Stop {}
        if let Some(conn) = &*lock(&self.client)
            && self.pool.links.is_empty()
            && !launch::has_unread(&conn.socket)
        {
            let _ = conn.socket.shutdown(Shutdown::Read);
        }
        thread::sleep(launch.drain_timeout);
        exit(0);
    }

    /// Chat: the thread that waits for the hub's mail, because one in `recv` for its client cannot
    /// see that there is something to send. It never waits for anything else.
    pub(crate) fn postman(&self) {
        let link = &self.pool.links[self.index].worker;
        let (mut buffer, mut armed) = (vec![0; frame::PACKET], Duration::MAX);
        let mut left = Duration::MAX;
        loop {
            if left < armed {
                let _ = set_socket_timeout(link, Timeout::Recv, Some(left));
                armed = left;
            }
            let received = rustix::net::recv(link, &mut buffer[..], RecvFlags::empty());
            self.counters.wakeups.add(1);
            let conn = lock(&self.client).clone();
            match received {
                Ok((len, _)) => conn.iter().for_each(|conn| conn.deliver(&buffer[..len])),
                Err(_) => armed = Duration::MAX,
            }
            let next = conn.and_then(|conn| conn.turn(false));
            left = next.map_or(Duration::from_secs(3600), |(_, left)| left);
        }
    }
}

type Received<'a> = Result<Option<&'a [u8]>, Errno>;

impl Conn {
    /// Echo: the whole life of a connection, one call that waits after another.
    fn echo(&self, buffer: &mut [MaybeUninit<u8>]) {
        let launch = self.worker.pool.launch;
        let mut state = lock(&self.state);
        let State { session, outbox, .. } = &mut *state;
        let (mut armed, mut stuck, mut told) = (Duration::MAX, false, false);
        let mut now = launch.now();
        loop {
            if launch.stop.requested() && !mem::replace(&mut told, true) {
                session.stop(launch::has_unread(&self.socket), outbox);
            }
            let read = match session.next(outbox) {
                Next::Serve { read } => read,
                Next::Shut if self.socket.shutdown(Shutdown::Write).is_ok() => continue,
                Next::Shut | Next::Close => break,
            };
            let left = session.deadline(outbox).after(now);
            let mut input = None;
            if left.is_zero() {
                let due = self.worker.counters.expired(session.expire(now, outbox));
                if !matches!(due, Due::Later | Due::Resume) {
                    break;
                }
            } else if !(outbox.is_empty() || stuck && read) {
                let Ok(()) = self.write(outbox, SendFlags::empty()) else { break };
                // A peer may send all it has before it reads: take that, up to the high-water mark.
                stuck = !outbox.is_empty();
                if !stuck {
                    continue;
                }
            } else if read {
                // A shorter timeout does no harm, so while deadlines only move away none is set.
                if left < armed {
                    let _ = self.socket.set_read_timeout(Some(left));
                    armed = left;
                }
                let flags = if stuck { RecvFlags::DONTWAIT } else { RecvFlags::empty() };
                let Ok(received) = self.read(buffer, flags) else { break };
                input = received;
                if input.is_none() {
                    (armed, stuck) = (Duration::MAX, false);
                } else if input == Some(&[]) {
                    session.end();
                }
            } else {
                thread::sleep(left); // As a handler does that waits for its database.
            }
            now = launch.now();
            let lines = session.echo(input.unwrap_or_default(), now, outbox);
            self.worker.counters.lines.add(lines);
            launch.burn(lines);
        }
    }

    /// Chat: the whole life of a member as far as it is heard.
    fn chat(&self, buffer: &mut [MaybeUninit<u8>]) {
        let mut armed = Duration::MAX;
        while let Some((read, left)) = self.turn(true) {
            if !read {
                thread::sleep(left.min(TICK));
                continue;
            }
            if left < armed {
                let _ = self.socket.set_read_timeout(Some(left));
                armed = left;
            }
            match self.read(buffer, RecvFlags::empty()) {
                Ok(None) => armed = Duration::MAX,
                Ok(input) => self.handle(input),
                Err(_) => lock(&self.state).gone = true,
            }
        }
    }

    /// Chat: writes what the socket takes and does what is due. Then: whether to read, and for how
    /// long there is nothing else to do. None: the connection is over.
    fn turn(&self, reader: bool) -> Option<(bool, Duration)> {
        loop {
            let now = self.worker.pool.launch.now();
            let mut state = lock(&self.state);
            self.flush(&mut state);
            let State { session, outbox, untold, cut, gone } = &mut *state;
            // Without waiting: while the hub waits for this process it hears nobody.
            if let Some((kind, reason)) = *untold
                && self
                    .worker
                    .pool
                    .tell(&Packets::of(self.id, kind, reason.as_bytes()), SendFlags::DONTWAIT)
            {
                *untold = None;
            }
            let left = session.deadline(outbox).after(now);
            let idle = outbox.is_empty() && untold.is_none();
            let due = match session.next(outbox) {
                _ if *gone => return None,
                Next::Serve { read } if *cut || !left.is_zero() => {
                    let left = if *cut { TICK } else { left };
                    return Some((read, if idle { left } else { left.min(TICK) }));
                }
                Next::Serve { .. } => self.worker.counters.expired(session.expire(now, outbox)),
                Next::Shut if self.socket.shutdown(Shutdown::Write).is_ok() => continue,
                Next::Shut | Next::Close => Due::Close,
            };
            match due {
                Due::Later => {}
                Due::Resume if !reader => return Some((false, TICK)),
                Due::Resume => {
                    drop(state);
                    self.handle(None);
                }
                Due::Ping => *untold = Some((frame::PING, "")),
                Due::Cut(reason) => (*cut, *untold) = (true, Some((frame::CUT, reason))),
                Due::Close => {
                    *gone = true;
                    let _ = self.socket.shutdown(Shutdown::Both);
                }
            }
        }
    }

    /// Chat: gives the protocol what has come, or nothing to go on with what it held back, and
    /// tells the hub.
    fn handle(&self, input: Option<&[u8]>) {
        let launch = self.worker.pool.launch;
        let mut packets = Packets::new(self.id);
        let mut state = lock(&self.state);
        if input == Some(&[]) {
            state.session.end();
        }
        let lines = state.session.chat(input.unwrap_or_default(), launch.now(), |line| {
            match line {
                Line::Whole(line) => packets.push(frame::LINE, line),
                Line::TooLong => packets.push(frame::TOO_LONG, b""),
                Line::Refused(reason) => packets.push(frame::CUT, reason.as_bytes()),
                Line::End => packets.push(frame::END, b""),
                Line::Room => {}
            }
            true // The hub takes no more packets than it has room for.
        });
        drop(state);
        self.worker.counters.lines.add(lines);
        launch.burn(lines);
        self.worker.pool.tell(&packets, SendFlags::empty());
    }

    /// Chat: queues mail from the hub.
    fn deliver(&self, packet: &[u8]) {
        let now = self.worker.pool.launch.now();
        let mut state = lock(&self.state);
        let State { session, outbox, untold, cut, .. } = &mut *state;
        for mail in frame::mail(packet).filter(|mail| mail.to == self.id) {
            *cut &= !matches!(mail.parcel, Parcel::Close(_));
            if session.post(mail.parcel, now, outbox).is_err() {
                self.worker.counters.slow_cut.add(1);
                (*cut, *untold) = (true, Some((frame::CUT, protocol::SENDQ_EXCEEDED)));
            }
        }
    }

    /// One `recv`. None: nothing has come. Empty: nothing more will come.
    fn read<'a>(&self, buffer: &'a mut [MaybeUninit<u8>], flags: RecvFlags) -> Received<'a> {
        let received = rustix::net::recv(&self.socket, buffer, flags);
        self.worker.counters.wakeups.add(1);
        let received = received.map(|((bytes, _), _)| Some(&*bytes));
        let input =
            received.or_else(|error| self.failed(error, &self.worker.counters.read_errors))?;
        self.worker.counters.bytes_in.add(input.map_or(0, <[u8]>::len) as u64);
        Ok(input)
    }

    /// Chat: writes what the socket takes, without waiting: others may want the lock.
    fn flush(&self, state: &mut State) {
        let mut before = usize::MAX;
        while !state.outbox.is_empty() && state.outbox.len() < before && !state.gone {
            before = state.outbox.len();
            if self.write(&mut state.outbox, SendFlags::DONTWAIT).is_err() {
                state.gone = true;
                let _ = self.socket.shutdown(Shutdown::Both);
            }
        }
    }

    /// One `send`, of as much of what is queued as it takes before its timeout.
    fn write(&self, outbox: &mut Outbox, flags: SendFlags) -> Result<(), Errno> {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let filled = slices.iter_mut().zip(outbox.slices());
        let flags = flags | SendFlags::NOSIGNAL;
        let sent = match filled.map(|(slice, bytes)| *slice = IoSlice::new(bytes)).count() {
            1 => rustix::net::send(&self.socket, &slices[0], flags),
            count => sendmsg(&self.socket, &slices[..count], &mut Default::default(), flags),
        };
        let len = sent.or_else(|error| self.failed(error, &self.worker.counters.write_errors))?;
        self.worker.counters.bytes_out.add(len as u64);
        outbox.advance(len);
        Ok(())
    }

    /// Tells a timeout (or a SIGSTOP: what has a timeout does not go on after it) from an error.
    fn failed<T: Default>(&self, error: Errno, errors: &Counter) -> Result<T, Errno> {
        let passed = matches!(error, Errno::AGAIN | Errno::INTR);
        if passed { &self.worker.counters.would_blocks } else { errors }.add(1);
        if passed { Ok(T::default()) } else { Err(error) }
    }
}

/// A panic ends the process, so no lock is found poisoned.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
