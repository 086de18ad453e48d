//! Multithreaded synchronous: a thread for each connection, which does one thing after another.
//!
//! **Who waits where:** acceptors in `accept`; each connection's thread in `recv`, in echo also in
//! `send`; in chat each member's second thread, its writer, until there is mail, or in `send`.
//! **What wakes it:** what it waits for, or a timeout. To stop, the sockets are shut down.
//!
//! The kernel's scheduler is the event loop. In echo a connection belongs to its thread: no lock.
//! In chat whoever has got a line queues it for its receivers, and their writers bring it, since a
//! thread in `recv` cannot see that there is something to send. While a writer waits, lines gather
//! and leave in one write. [`Room`] is locked before [`State`], and never across a system call.
//!
//! Run: `cargo run --release -p serve-threads -- --mode chat`
//! Read next: `serve-epoll-level`, where one thread waits for all sockets at once.

mod room;

use std::io::IoSlice;
use std::mem::{self, MaybeUninit};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use launch::{Counter, Counters, Failure, Launch, Place};
use protocol::{ConnId, Due, Hub, Mode, Next, Outbox, Session, Slots};
use room::Room;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, sendmsg};

/// A thread's stack. Most of it is never touched, and so is only address space.
const STACK: usize = 64 << 10;
/// Linux lets a process have 65,530 mappings, and a thread takes four: two stacks, two guard pages.
/// The standard library ends a process whose new thread gets only some, so keep well away.
const MOST_THREADS: usize = 65_530 / 5;
/// The most slices in one vectored write.
const SLICES: usize = 64;
/// How long to wait in `send`, or for descriptors and threads to be had, before looking again.
const TICK: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    launch::main(env!("CARGO_PKG_NAME"), "Echo or chat: a blocking thread per connection", serve)
}

fn serve(launch: &'static Launch) -> Result<(), Failure> {
    let chat = launch.settings.mode == Mode::Chat;
    let hub = chat.then(|| Hub::new(Arc::clone(&launch.settings), 1));
    let shared: &'static Shared = Box::leak(Box::new(Shared {
        launch,
        most: MOST_THREADS / if chat { 2 } else { 1 },
        room: Mutex::new(Room { conns: Slots::new(0), hub, mail: Vec::new() }),
        left: Condvar::new(),
    }));
    let listeners: &'static [TcpListener] = launch.listen_each()?.leak();
    let mut acceptors = Vec::new();
    for (index, listener) in listeners.iter().enumerate() {
        let accept = move || shared.accept(listener, launch.counters(index));
        acceptors.push(thread::Builder::new().spawn(accept).map_err(Failure::of("thread"))?);
    }
    launch.on_stop(|| shared.stop(listeners))?;
    launch.warn_beyond(shared.most, "a thread takes four of the memory mappings of a process");
    launch.announce();
    acceptors.into_iter().for_each(|acceptor| drop(acceptor.join()));
    let busy = |room: &mut Room| !room.conns.is_empty();
    drop(shared.left.wait_timeout_while(lock(&shared.room), launch.drain_timeout, busy));
    Ok(())
}

/// What all threads share.
struct Shared {
    launch: &'static Launch,
    /// The most connections that there can be threads for.
    most: usize,
    room: Mutex<Room>,
    /// A connection is gone.
    left: Condvar,
}

struct Conn {
    shared: &'static Shared,
    counters: &'static Counters,
    id: ConnId,
    /// Before the socket: whoever sees the connection end finds the place free.
    _place: Place,
    socket: TcpStream,
    state: Mutex<State>,
    /// Chat: there is something to write, or nothing any more.
    changed: Condvar,
}

/// In echo the connection's thread keeps it locked for life: nobody else wants it.
struct State {
    session: Session,
    outbox: Outbox,
    /// Chat: somebody may wait for `changed`. Whoever tells it takes this back: once is enough.
    waits: bool,
    /// Chat: the socket has not taken all of what its writer has.
    stuck: bool,
    /// Chat: its writer has not come to a lot of mail, and whoever speaks waits for it.
    behind: bool,
    /// Chat: why both threads end.
    gone: Option<&'static str>,
}

impl Shared {
    fn accept(&'static self, listener: &TcpListener, counters: &Counters) {
        while !self.launch.stop.requested() {
            match listener.accept() {
                Ok((socket, peer)) => self.admit(socket, peer.ip(), counters),
                Err(_) if self.launch.stop.requested() => {}
                Err(error) if launch::is_shortage(&error) => self.pause(counters),
                Err(_) => counters.accept_errors.add(1),
            }
            counters.wakeups.add(1);
        }
    }

    /// Something has run out. Whoever comes waits in the backlog until somebody leaves, or a while.
    fn pause(&self, counters: &Counters) {
        counters.shortages.add(1);
        drop(self.left.wait_timeout(lock(&self.room), TICK));
    }

    fn admit(&'static self, socket: TcpStream, peer: IpAddr, counters: &Counters) {
        let launch = self.launch;
        let Some(place) = launch.admit(&socket, peer, counters) else { return };
        let now = launch.now();
        let (session, outbox) = (Session::new(&launch.settings, now), Outbox::default());
        let state = Mutex::new(State {
            session,
            outbox,
            waits: false,
            stuck: false,
            behind: false,
            gone: None,
        });
        let _ = socket.set_write_timeout(Some(TICK));
        let mut room = lock(&self.room);
        if launch.stop.requested() {
            return; // `stop` has looked around already, or waits to.
        }
        let (id, conn) = room.conns.insert_with(|id| {
            let (counters, changed) = (launch.counters(id.slot()), Condvar::new());
            Arc::new(Conn { shared: self, counters, id, socket, state, changed, _place: place })
        });
        let conn = Arc::clone(conn);
        let chat = room.hub.as_mut().map(|hub| hub.open(id, &peer.to_string(), now)).is_some();
        drop(room);
        let lives: &[fn(&Conn)] =
            if chat { &[Conn::chat_out, Conn::chat_in] } else { &[Conn::echo] };
        lives.iter().for_each(|life| conn.start(*life));
    }

    /// Members get their last words and then time to end the stream; echo ends where it waits. If
    /// something has come it does not, and shut down, that side would reset a peer that talks on.
    fn stop(&self, listeners: &[TcpListener]) {
        for listener in listeners {
            let _ = rustix::net::shutdown(listener, rustix::net::Shutdown::Both);
        }
        if self.ask(Hub::shut_down).is_some() {
            return self.deliver();
        }
        let room = lock(&self.room);
        let conns = room.conns.ids().filter_map(|id| room.conns.get(id));
        for conn in conns.filter(|conn| !launch::has_unread(&conn.socket)) {
            let _ = conn.socket.shutdown(Shutdown::Read);
        }
    }
}

type Received<'a> = Result<Option<&'a [u8]>, Errno>;

impl Conn {
    /// Starts a thread as soon as there is one to be had, or closes when the server stops before.
    fn start(self: &Arc<Conn>, run: fn(&Conn)) {
        loop {
            let conn = Arc::clone(self);
            let enough = lock(&self.shared.room).conns.len() <= self.shared.most;
            let thread = thread::Builder::new().stack_size(STACK);
            if enough && thread.spawn(move || run(&conn)).is_ok() {
                return;
            }
            self.shared.pause(self.counters);
            if self.shared.launch.stop.requested() {
                return self.close();
            }
        }
    }

    /// Echo: the whole life of a connection, one call that waits after another.
    fn echo(&self) {
        let launch = self.shared.launch;
        let mut state = lock(&self.state);
        let State { session, outbox, .. } = &mut *state;
        let mut buffer = Box::new_uninit_slice(launch.read_size());
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
                let due = self.counters.expired(session.expire(now, outbox));
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
                let Ok(received) = self.read(&mut buffer, flags) else { break };
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
            self.counters.lines.add(lines);
            launch.burn(lines);
        }
        drop(state);
        self.close();
    }

    /// Chat: the life of a member as far as it is heard. Its writer minds the deadlines meanwhile.
    fn chat_in(&self) {
        let mut buffer = Box::new_uninit_slice(self.shared.launch.read_size());
        while self.turn(None) {
            match self.read(&mut buffer, RecvFlags::empty()) {
                Ok(input) => self.handle(input),
                Err(_) => self.hang_up("Connection reset"),
            }
        }
        self.close();
    }

    /// Chat: the life of a member as far as it is told something: its writer.
    fn chat_out(&self) {
        let mut batch = Outbox::default();
        while self.turn(Some(&mut batch)) {
            let before = batch.len();
            let mut sent = self.write(&mut batch, SendFlags::DONTWAIT);
            if sent.is_ok() && batch.len() == before {
                self.relieve(true);
                sent = self.write(&mut batch, SendFlags::empty());
            }
            if sent.is_err() {
                self.hang_up("Connection reset");
            }
        }
    }

    /// Chat: nobody need wait for this member: its writer has come to its mail, or is stuck.
    fn relieve(&self, stuck: bool) {
        let mut state = lock(&self.state);
        state.stuck = stuck;
        if mem::take(&mut state.behind) {
            drop(state);
            self.shared.ask(|hub| hub.relieve(self.id));
            self.shared.deliver();
        }
    }

    /// Chat: waits until the reader may read or, for the writer, its batch is filled, and does what
    /// is due until then. False: the connection is over.
    fn turn(&self, mut batch: Option<&mut Outbox>) -> bool {
        loop {
            let now = self.shared.launch.now();
            let mut state = lock(&self.state);
            let State { session, outbox, waits, stuck, behind, gone } = &mut *state;
            if let Some(batch) = batch.as_deref_mut().filter(|batch| batch.is_empty()) {
                *batch = outbox.take(); // Without a lock it is written, and more may gather.
                *stuck = false;
                if mem::take(waits) {
                    self.changed.notify_all(); // The reader may go on, now or at the end.
                }
                if *behind {
                    drop(state);
                    self.relieve(false);
                    continue;
                }
            }
            let left = session.deadline(outbox).after(now);
            let due = match session.next(outbox) {
                _ if gone.is_some() => return false,
                Next::Serve { read } if !left.is_zero() => {
                    if batch.as_ref().map_or(read, |batch| !batch.is_empty()) {
                        return true;
                    }
                    *waits = true;
                    drop(self.changed.wait_timeout(state, left));
                    self.counters.wakeups.add(1);
                    continue;
                }
                Next::Serve { .. } => self.counters.expired(session.expire(now, outbox)),
                Next::Shut if self.socket.shutdown(Shutdown::Write).is_ok() => continue,
                Next::Shut | Next::Close => Due::Close,
            };
            drop(state);
            match due {
                Due::Later => {}
                Due::Resume => self.handle(None),
                Due::Ping => drop(self.shared.ask(|hub| hub.ping(self.id))),
                Due::Cut(reason) => drop(self.shared.ask(|hub| hub.cut(self.id, reason))),
                Due::Close => self.hang_up("Connection closed"),
            }
            self.shared.deliver();
        }
    }

    /// Chat: gives the protocol what has come, or nothing to go on with what it held back, and
    /// queues what comes of it for those whom it concerns.
    fn handle(&self, input: Option<&[u8]>) {
        let (shared, now) = (self.shared, self.shared.launch.now());
        let lines = shared.ask(|hub| {
            let session = &mut lock(&self.state).session;
            if input == Some(&[]) {
                session.end();
            }
            session.chat(input.unwrap_or_default(), now, |line| hub.line(self.id, line, now))
        });
        self.counters.lines.add(lines.unwrap_or_default());
        shared.launch.burn(lines.unwrap_or_default());
        shared.deliver();
    }

    /// One `recv`. None: nothing has come. Empty: nothing more will come.
    fn read<'a>(&self, buffer: &'a mut [MaybeUninit<u8>], flags: RecvFlags) -> Received<'a> {
        let received = rustix::net::recv(&self.socket, buffer, flags);
        self.counters.wakeups.add(1);
        let received = received.map(|((bytes, _), _)| Some(&*bytes));
        let input = received.or_else(|error| self.failed(error, &self.counters.read_errors))?;
        self.counters.bytes_in.add(input.map_or(0, <[u8]>::len) as u64);
        Ok(input)
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
        let len = sent.or_else(|error| self.failed(error, &self.counters.write_errors))?;
        self.counters.bytes_out.add(len as u64);
        outbox.advance(len);
        Ok(())
    }

    /// Tells a timeout (or a SIGSTOP: what has a timeout does not go on after it) from an error.
    fn failed<T: Default>(&self, error: Errno, errors: &Counter) -> Result<T, Errno> {
        let passed = matches!(error, Errno::AGAIN | Errno::INTR);
        if passed { &self.counters.would_blocks } else { errors }.add(1);
        if passed { Ok(T::default()) } else { Err(error) }
    }

    /// Chat: ends the connection for both of its threads, whatever they wait for.
    fn hang_up(&self, reason: &'static str) {
        lock(&self.state).gone.get_or_insert(reason);
        let _ = self.socket.shutdown(Shutdown::Both);
        self.changed.notify_all();
    }

    fn close(&self) {
        let reason = lock(&self.state).gone.unwrap_or("Connection closed");
        lock(&self.shared.room).conns.remove(self.id);
        self.shared.ask(|hub| hub.leave(self.id, reason));
        self.shared.deliver();
        self.shared.left.notify_all();
    }
}

/// A panic ends the process, so no lock is found poisoned.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
