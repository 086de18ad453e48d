//! Single-threaded synchronous: one client is served to its end, and then the next.
//!
//! **Who waits where:** each worker, in `accept` for a client, then in that client's `recv` and
//! `send` until it is gone. Everybody else waits in the backlog.
//! **What wakes it:** what it waits for, or a timeout. To stop, sockets are shut down under it.
//!
//! There is no state to keep between calls, which is why this is how one writes the first server,
//! and a client who says nothing holds everyone up until the idle timeout, which is why one writes
//! a second. Chat works and is lonely: there are never more members than workers. A thread in
//! `recv` cannot see that there is something to send, so whoever has got a line for a member of
//! another worker writes it there. Only what that socket does not take, and a cut, must wait until
//! the owner looks, every [`TICK`]. [`Room`] is locked before [`State`], and neither while waiting.
//!
//! Run: `cargo run --release -p serve-iterative -- --mode chat`
//! Read next: `serve-threads`, which gives each client a thread of its own, and `serve-prefork`,
//! which is many of these, each a process.

use std::io::IoSlice;
use std::mem::{self, MaybeUninit};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use launch::{Counter, Counters, Failure, Launch, Place};
use protocol::{ConnId, Due, Hub, Mail, Mode, Next, Outbox, Session, Slots};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, sendmsg};

/// The most slices in one vectored write.
const SLICES: usize = 64;
/// How long to wait in `send`, or for descriptors to be had, before looking again; in chat also how
/// long for whatever another worker may have left to do.
const TICK: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let about = "Echo or chat, one client after another: each worker serves one at a time";
    launch::main(env!("CARGO_PKG_NAME"), about, serve)
}

fn serve(launch: &'static Launch) -> Result<(), Failure> {
    let chat = launch.settings.mode == Mode::Chat;
    let hub = chat.then(|| Hub::new(Arc::clone(&launch.settings), 1));
    // Workers share it: with one each, a client could wait behind a busy worker beside an idle one.
    let listener: &'static TcpListener = Box::leak(Box::new(launch.listen()?));
    let running = launch.workers;
    let shared: &'static Shared = Box::leak(Box::new(Shared {
        launch,
        room: Mutex::new(Room { conns: Slots::new(0), hub, mail: Vec::new(), running }),
        left: Condvar::new(),
    }));
    for index in 0..running {
        let run = move || shared.run(listener, launch.counters(index));
        thread::Builder::new().spawn(run).map_err(Failure::of("thread"))?;
    }
    launch.on_stop(|| shared.stop(listener))?;
    launch.announce();
    let serving = |_: &mut Room| !launch.stop.requested();
    let room = shared.left.wait_while(lock(&shared.room), serving);
    let busy = |room: &mut Room| room.running > 0;
    let room = room.unwrap_or_else(PoisonError::into_inner);
    drop(shared.left.wait_timeout_while(room, launch.drain_timeout, busy));
    Ok(())
}

/// What all workers share.
struct Shared {
    launch: &'static Launch,
    room: Mutex<Room>,
    /// A client is gone, or the server stops.
    left: Condvar,
}

/// Who is there. Echo locks it when a client comes and when it goes, never in between.
struct Room {
    conns: Slots<Arc<Conn>>,
    /// In chat only.
    hub: Option<Hub>,
    mail: Vec<Mail>,
    /// Workers that have not ended.
    running: usize,
}

struct Conn {
    shared: &'static Shared,
    counters: &'static Counters,
    id: ConnId,
    /// Before the socket: whoever sees the connection end finds the place free.
    _place: Place,
    socket: TcpStream,
    state: Mutex<State>,
}

/// In echo the worker keeps it locked for the client's life: nobody else wants it.
struct State {
    session: Session,
    outbox: Outbox,
    /// Chat: somebody has found out that the peer is gone.
    gone: bool,
}

impl Shared {
    /// The life of a worker: one client after another.
    fn run(&'static self, listener: &TcpListener, counters: &'static Counters) {
        let mut buffer = Box::new_uninit_slice(self.launch.read_size());
        while !self.launch.stop.requested() {
            match listener.accept() {
                Ok((socket, peer)) => self.admit(socket, peer.ip(), counters, &mut buffer),
                Err(_) if self.launch.stop.requested() => {}
                Err(error) if launch::is_shortage(&error) => self.pause(counters),
                Err(_) => counters.accept_errors.add(1),
            }
            counters.wakeups.add(1);
        }
        lock(&self.room).running -= 1;
        self.left.notify_all();
    }

    /// Something has run out. Whoever comes waits in the backlog until somebody leaves, or a while.
    fn pause(&self, counters: &Counters) {
        counters.shortages.add(1);
        drop(self.left.wait_timeout(lock(&self.room), TICK));
    }

    /// Serves a client to its end.
    fn admit(
        &'static self,
        socket: TcpStream,
        peer: IpAddr,
        counters: &'static Counters,
        buffer: &mut [MaybeUninit<u8>],
    ) {
        let launch = self.launch;
        let Some(place) = launch.admit(&socket, peer, counters) else { return };
        let now = launch.now();
        let (session, outbox) = (Session::new(&launch.settings, now), Outbox::default());
        let state = Mutex::new(State { session, outbox, gone: false });
        let _ = socket.set_write_timeout(Some(TICK));
        let mut room = lock(&self.room);
        if launch.stop.requested() {
            return; // `stop` has looked around already, or waits to.
        }
        let (id, conn) = room.conns.insert_with(|id| {
            Arc::new(Conn { shared: self, counters, id, socket, state, _place: place })
        });
        let conn = Arc::clone(conn);
        let chat = room.hub.as_mut().map(|hub| hub.open(id, &peer.to_string(), now)).is_some();
        drop(room);
        if chat {
            conn.chat(buffer)
        } else {
            conn.echo(buffer)
        }
        conn.close();
    }

    /// Readers get what has come already and then the end of the stream, members their last words.
    fn stop(&self, listener: &TcpListener) {
        let _ = rustix::net::shutdown(listener, rustix::net::Shutdown::Both);
        let chat = self.ask(Hub::shut_down).is_some();
        self.deliver();
        for conn in self.conns() {
            // A member who has its last words has time to end its stream: that wakes the reader.
            let told = chat && {
                let State { session, outbox, .. } = &mut *lock(&conn.state);
                session.next(outbox) == Next::Shut
            };
            // Where something has come, in echo, nobody waits for it. Were that side shut down, the
            // kernel would reset a peer that goes on talking.
            if chat || !launch::has_unread(&conn.socket) {
                let how = if told { Shutdown::Write } else { Shutdown::Read };
                let _ = conn.socket.shutdown(how);
            }
        }
        self.left.notify_all();
    }

    fn conns(&self) -> Vec<Arc<Conn>> {
        let room = lock(&self.room);
        room.conns.ids().filter_map(|id| room.conns.get(id).cloned()).collect()
    }

    /// Chat: calls the hub. What comes of it waits for [`Shared::deliver`].
    fn ask<T>(&self, call: impl FnOnce(&mut Hub) -> T) -> Option<T> {
        lock(&self.room).hub.as_mut().map(call)
    }

    /// Chat: queues the hub's mail for its receivers, and writes what their sockets take. Everyone
    /// gets it in the hub's order, because the hub stays locked until it is queued.
    fn deliver(&self) {
        let now = self.launch.now();
        let mut room = lock(&self.room);
        let Room { conns, hub: Some(hub), mail, .. } = &mut *room else { return };
        // Again after a cut, of which others are told.
        while {
            hub.take(0, mail);
            !mail.is_empty()
        } {
            for Mail { to, parcel } in mail.drain(..) {
                let Some(conn) = conns.get(to) else { continue };
                let state = &mut *lock(&conn.state);
                if state.session.post(parcel, now, &mut state.outbox).is_err() {
                    conn.counters.slow_cut.add(1);
                    hub.cut(to, protocol::SENDQ_EXCEEDED);
                }
            }
        }
        drop(room);
        self.conns().iter().for_each(|conn| conn.flush(&mut lock(&conn.state)));
    }
}

type Received<'a> = Result<Option<&'a [u8]>, Errno>;

impl Conn {
    /// Echo: the whole life of a connection, one call that waits after another.
    fn echo(&self, buffer: &mut [MaybeUninit<u8>]) {
        let launch = self.shared.launch;
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
            self.counters.lines.add(lines);
            launch.burn(lines);
        }
    }

    /// Chat: the whole life of a member. While it waits others may write to its socket.
    fn chat(&self, buffer: &mut [MaybeUninit<u8>]) {
        let shared = self.shared;
        let mut armed = Duration::MAX;
        loop {
            let now = shared.launch.now();
            let mut state = lock(&self.state);
            self.flush(&mut state);
            let State { session, outbox, gone } = &mut *state;
            let left = session.deadline(outbox).after(now);
            let due = match session.next(outbox) {
                _ if *gone => return,
                Next::Serve { read } if !left.is_zero() => {
                    let alone = shared.launch.workers == 1 && outbox.is_empty() && read;
                    drop(state);
                    self.wait(read, if alone { left } else { left.min(TICK) }, &mut armed, buffer);
                    continue;
                }
                Next::Serve { .. } => self.counters.expired(session.expire(now, outbox)),
                Next::Shut if self.socket.shutdown(Shutdown::Write).is_ok() => continue,
                Next::Shut | Next::Close => return,
            };
            drop(state);
            match due {
                Due::Later => {}
                Due::Resume => self.handle(None),
                Due::Ping => drop(shared.ask(|hub| hub.ping(self.id))),
                Due::Cut(reason) => drop(shared.ask(|hub| hub.cut(self.id, reason))),
                Due::Close => return,
            }
            shared.deliver();
        }
    }

    /// Chat: waits for at most `left`, for bytes if they may be read, and handles what comes.
    fn wait(
        &self,
        read: bool,
        left: Duration,
        armed: &mut Duration,
        buffer: &mut [MaybeUninit<u8>],
    ) {
        if !read {
            return thread::sleep(left);
        }
        if left < *armed {
            let _ = self.socket.set_read_timeout(Some(left));
            *armed = left;
        }
        match self.read(buffer, RecvFlags::empty()) {
            Ok(None) => *armed = Duration::MAX,
            Ok(input) => self.handle(input),
            Err(_) => lock(&self.state).gone = true,
        }
    }

    /// Chat: gives the protocol what has come, or nothing to go on with what it held back, and
    /// brings what comes of it to those whom it concerns.
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

    fn close(&self) {
        let reason = if lock(&self.state).gone { "Connection reset" } else { "Connection closed" };
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
