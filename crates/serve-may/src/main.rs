//! Coroutines: each connection has a stack of its own and yields where a thread would block.
//!
//! **Who waits where:** each coroutine in `wait_io`, for its socket, its deadline and news for its
//! member; underneath, each of may's workers for all of its sockets, in an unseen `epoll_wait`.
//! **What wakes it:** the socket (edge-triggered, registered once); for the rest, whoever has it
//! calls the coroutine's waker: another coroutine, the main thread for deadlines, or the stop.
//!
//! Any function may wait: what an async task keeps in a state machine is the stack here. It is
//! small, so there is no deep recursion and no buffer on it. The next coroutine sees the same
//! thread-locals and may need the same std lock, so neither is kept across a wait.
//!
//! Run: `cargo run --release -p serve-may -- --workers 2 --mode chat`
//! Read next: `serve-smol`, the same functions without stacks, and `serve-threads`, where the
//! kernel switches them, and a thread in `recv` cannot be woken, so that chat takes two.

mod room;

use std::cell::RefCell;
use std::io::{ErrorKind, IoSlice};
use std::mem;
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use launch::{Counter, Counters, Failure, Launch, Place};
use may::coroutine;
use may::io::{CoIo, WaitIo};
use protocol::{ConnId, Deadlines, Due, Hub, Mode, Next, Outbox, Session, Slots, Time};
use room::{Member, Room};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

/// A coroutine's stack. Most of it is never touched, and so is only address space.
const STACK: usize = 64 << 10;
/// Stacks kept for those to come.
const SPARE_STACKS: usize = 64;
/// Linux lets a process have 65,530 mappings. A stack takes two, and may panics if it gets none.
const MOST_COROUTINES: usize = 65_530 / 5 * 2;
/// Reads in one turn, before the others.
const MOST_READS: u32 = 16;
/// The most slices in one vectored write.
const SLICES: usize = 64;
/// How long to leave the listener alone when there are no descriptors to be had.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);

thread_local! {
    /// Used only between two waits, in a function that waits for nothing and is never inlined.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Why a connection ends, for those who shared a channel with it.
type Reason = &'static str;

fn main() -> ExitCode {
    launch::main(env!("CARGO_PKG_NAME"), "Echo or chat: a coroutine for each connection", serve)
}

fn serve(launch: &'static Launch) -> Result<(), Failure> {
    let (chat, listener) = (launch.settings.mode == Mode::Chat, launch.listen()?);
    let config = may::config();
    config.set_workers(launch.workers).set_stack_size(STACK / size_of::<usize>());
    config.set_pool_capacity(SPARE_STACKS).set_worker_pin(false);
    let listener = CoIo::new(listener).map_err(Failure::of("listener"))?;
    let hub = Hub::new(Arc::clone(&launch.settings), 1);
    let (members, deadlines, alarm_at) = (Slots::new(0), Deadlines::default(), Time::NEVER);
    let room = Mutex::new(Room { hub, members, mail: Vec::new(), deadlines, alarm_at });
    let shared: &'static Shared =
        Box::leak(Box::new(Shared { launch, chat, listener, room, alarm: Condvar::new() }));
    spawn(|| shared.accept());
    launch.on_stop(|| shared.stop())?;
    if launch.workers > 1 {
        launch.log.warn("may 0.3.51 has a race between workers: see README.md, or use one");
    }
    launch.warn_beyond(MOST_COROUTINES, "a stack takes two of the memory mappings of a process");
    launch.announce();
    shared.mind_deadlines();
    Ok(())
}

/// What all coroutines share.
struct Shared {
    launch: &'static Launch,
    chat: bool,
    listener: CoIo<TcpListener>,
    /// Its lock is never held across a system call or a wait. In echo it is taken when a connection
    /// comes and goes, and when a deadline comes nearer.
    room: Mutex<Room>,
    /// For the main thread: a coroutine must not wait on a std `Condvar`.
    alarm: Condvar,
}

impl Shared {
    fn accept(&'static self) {
        let (counters, mut turns) = (self.launch.counters(0), 0_u32);
        while !self.launch.stop.requested() {
            let full = lock(&self.room).members.len() >= MOST_COROUTINES;
            let nobody = || Err(Errno::NOMEM.into());
            match if full { nobody() } else { self.listener.inner().accept() } {
                Ok((socket, peer)) => self.admit(socket, peer.ip(), counters),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    counters.would_blocks.add(1);
                    self.listener.wait_io();
                    counters.wakeups.add(1);
                }
                Err(error) if launch::is_shortage(&error) => {
                    counters.shortages.add(1);
                    yield_for(SHORTAGE_PAUSE);
                }
                Err(_) => counters.accept_errors.add(1),
            }
            turns += 1;
            if turns.is_multiple_of(MOST_READS) {
                yield_for(Duration::ZERO); // The others first.
            }
        }
    }

    fn admit(&'static self, socket: TcpStream, peer: IpAddr, counters: &Counters) {
        let (launch, now) = (self.launch, self.launch.now());
        let Some(_place) = launch.admit(&socket, peer, counters) else { return };
        let Ok(socket) = CoIo::new(socket) else { return counters.accept_errors.add(1) };
        let (rang, news) = (AtomicBool::new(false), AtomicBool::new(true));
        let member = Member { waker: socket.waker(), rang, news, inbox: Mutex::default() };
        let member = Arc::new(member);
        let id = self.tell(None, |room| {
            let id = room.members.insert(Arc::clone(&member)).0;
            if self.chat {
                room.hub.open(id, &peer.to_string(), now);
            }
            id
        });
        let (shared, counters) = (self, launch.counters(id.slot()));
        let (session, outbox) = (Session::new(&launch.settings, now), Outbox::default());
        let (alarm_at, ready) = (Time::NEVER, EventFlags::all());
        #[rustfmt::skip]
        let mut conn = Connection {
            shared, counters, id, member, session, outbox, alarm_at, ready, _place, socket,
        };
        spawn(move || {
            let reason = conn.run().err().unwrap_or("Connection closed");
            conn.close(reason);
        });
    }

    /// The server was told to stop. Whoever is accepted from now on finds out by itself.
    fn stop(&self) {
        let members: Vec<_> = self.tell(None, |room| {
            room.hub.shut_down();
            room.members.ids().filter_map(|id| room.members.get(id).cloned()).collect()
        });
        members.iter().for_each(|member| member.wake(&member.news));
        let _ = rustix::net::shutdown(self.listener.inner(), rustix::net::Shutdown::Both);
        self.listener.waker().wakeup();
        self.alarm.notify_one();
    }

    /// The main thread: wakes the connections whose deadline has come, until all is drained.
    fn mind_deadlines(&self) {
        let mut end = Time::NEVER;
        loop {
            let (now, mut due) = (self.launch.now(), Vec::new());
            let mut room = lock(&self.room);
            if self.launch.stop.requested() {
                end = end.min(now + self.launch.drain_timeout);
                if room.members.is_empty() || now >= end {
                    return;
                }
            }
            while let Some(id) = room.deadlines.expired(now) {
                due.extend(room.members.get(id).cloned());
            }
            if due.is_empty() {
                room.alarm_at = room.deadlines.next().min(end);
                let left = room.alarm_at.after(now);
                drop(self.alarm.wait_timeout(room, left));
            } else {
                drop(room);
                due.iter().for_each(|member| member.wake(&member.rang));
            }
        }
    }
}

/// One connection, owned by its coroutine.
struct Connection {
    shared: &'static Shared,
    counters: &'static Counters,
    id: ConnId,
    member: Arc<Member>,
    session: Session,
    outbox: Outbox,
    /// When it will be woken. That a line moves the deadline later is a comparison.
    alarm_at: Time,
    /// What epoll has said and no read or write that would block has taken back.
    ready: EventFlags,
    _place: Place,
    socket: CoIo<TcpStream>,
}

impl Connection {
    /// The whole life of a connection: does what there is to do, and waits when there is nothing.
    fn run(&mut self) -> Result<(), Reason> {
        let mut reads = 0;
        loop {
            if self.member.rang.swap(false, Ordering::Acquire) {
                self.alarm_at = Time::NEVER;
                self.expire()?;
            }
            if self.member.news.swap(false, Ordering::Acquire) {
                if self.shared.launch.stop.requested() && !self.shared.chat {
                    let unread = launch::has_unread(self.socket.inner());
                    self.session.stop(unread, &self.outbox);
                    self.handle(&[])?;
                }
                self.deliver()?;
            }
            let read = match self.session.next(&self.outbox) {
                Next::Serve { read } => read,
                Next::Shut => {
                    // Fails if the peer has gone.
                    let _ = self.socket.inner().shutdown(Shutdown::Write);
                    true
                }
                Next::Close => return Ok(()),
            };
            if !self.outbox.is_empty() && self.ready.contains(EventFlags::OUT) {
                self.write()?;
            } else if !(read && self.ready.contains(EventFlags::IN)) {
                self.wait();
                reads = 0;
            } else if reads < MOST_READS {
                self.read()?;
                if self.shared.chat {
                    coroutine::yield_now(); // First whoever has got news from it.
                }
                reads += 1;
            } else {
                yield_for(Duration::ZERO);
                reads = 0;
            }
        }
    }

    /// Gives the worker to others until the socket is ready, the deadline comes, or there is news.
    fn wait(&mut self) {
        let deadline = self.session.deadline(&self.outbox);
        if deadline < self.alarm_at {
            self.alarm_at = deadline;
            let mut room = lock(&self.shared.room);
            room.deadlines.set(self.id, deadline);
            if deadline < room.alarm_at {
                room.alarm_at = deadline;
                drop(room);
                self.shared.alarm.notify_one();
            }
        }
        // What has happened since the last wait ends this at once.
        self.ready |= EventFlags::from_bits_retain(self.socket.wait_io() as u32);
        self.counters.wakeups.add(1);
    }

    /// One `recv`, into the buffer of whichever worker runs this now. may registers sockets without
    /// EPOLLPRI, so a short read may have stopped at an urgent byte: only EAGAIN says that all is
    /// read. Not inlined, lest the compiler looks the worker up once for several reads.
    #[inline(never)]
    fn read(&mut self) -> Result<(), Reason> {
        BUFFER.with_borrow_mut(|buffer| {
            buffer.resize(self.shared.launch.read_size(), 0);
            match recv(self.socket.inner(), &mut buffer[..], RecvFlags::empty()) {
                Ok((len, _)) => {
                    self.counters.bytes_in.add(len as u64);
                    if len == 0 {
                        self.session.end();
                    }
                    self.handle(&buffer[..len])
                }
                Err(error) => self.failed(error, EventFlags::IN, &self.counters.read_errors),
            }
        })
    }

    /// Gives `input` to the protocol, and writes what comes back.
    fn handle(&mut self, input: &[u8]) -> Result<(), Reason> {
        let (shared, id, now) = (self.shared, self.id, self.shared.launch.now());
        let lines = match shared.chat {
            false => self.session.echo(input, now, &mut self.outbox),
            true => shared.tell(Some(id), |room| {
                self.session.chat(input, now, |line| room.hub.line(id, line, now))
            }),
        };
        self.counters.lines.add(lines);
        shared.launch.burn(lines);
        if shared.chat { self.deliver() } else { self.write() }
    }

    fn write(&mut self) -> Result<(), Reason> {
        while !self.outbox.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let filled = slices.iter_mut().zip(self.outbox.slices());
            let count = filled.map(|(slice, bytes)| *slice = IoSlice::new(bytes)).count();
            match rustix::io::writev(self.socket.inner(), &slices[..count]) {
                Ok(len) => {
                    self.counters.bytes_out.add(len as u64);
                    self.outbox.advance(len);
                }
                Err(error) => {
                    return self.failed(error, EventFlags::OUT, &self.counters.write_errors);
                }
            }
        }
        Ok(())
    }

    /// Tells that the socket is no longer ready for `what` from an error.
    fn failed(&mut self, error: Errno, what: EventFlags, errors: &Counter) -> Result<(), Reason> {
        self.ready.remove(what);
        let passed = error == Errno::AGAIN;
        if passed { &self.counters.would_blocks } else { errors }.add(1);
        if passed { Ok(()) } else { Err("Connection reset") }
    }

    /// Queues all that is in the inbox, and writes it at once.
    fn deliver(&mut self) -> Result<(), Reason> {
        let (shared, now) = (self.shared, self.shared.launch.now());
        let inbox = mem::take(&mut *lock(&self.member.inbox));
        if inbox.is_pressed(&shared.launch.settings.limits) {
            shared.tell(None, |room| room.hub.relieve(self.id));
        }
        let mut full = false;
        for parcel in inbox {
            full |= self.session.post(parcel, now, &mut self.outbox).is_err();
        }
        if full {
            self.counters.slow_cut.add(1);
            shared.tell(None, |room| room.hub.cut(self.id, protocol::SENDQ_EXCEEDED));
        }
        self.write()
    }

    fn expire(&mut self) -> Result<(), Reason> {
        let (shared, own) = (self.shared, Some(self.id));
        let due = self.session.expire(shared.launch.now(), &self.outbox);
        match self.counters.expired(due) {
            Due::Later => return Ok(()),
            Due::Resume => return self.handle(&[]),
            Due::Ping => shared.tell(own, |room| room.hub.ping(self.id)),
            Due::Cut(reason) => shared.tell(own, |room| room.hub.cut(self.id, reason)),
            Due::Close => return Err("Timed out"),
        }
        self.deliver()
    }

    /// Leaves the chat before the socket is closed: whoever sees it closed finds the name free.
    fn close(self, reason: Reason) {
        self.shared.tell(None, |room| {
            room.members.remove(self.id);
            room.deadlines.clear(self.id);
            room.hub.leave(self.id, reason);
        });
        if self.shared.launch.stop.requested() {
            self.shared.alarm.notify_one();
        }
        drop(self._place); // Before the socket: whoever sees the end finds the place free.
        // By itself it would be closed before it leaves epoll: somebody else's by then.
        drop(self.socket.into_inner());
    }
}

/// Lets the others go first. may's `yield_now` alone would come back before its worker has asked
/// epoll for news; may's sleepers are woken by a thread that is none, and sent to one from there.
fn yield_for(pause: Duration) {
    coroutine::sleep(pause);
    coroutine::yield_now();
}

fn spawn(run: impl FnOnce() + Send + 'static) {
    // SAFETY: nothing thread-local is kept across a wait: there is only `BUFFER`, borrowed in
    // `read`, which waits for nothing. No function recurses or has a large buffer on the stack, and
    // below it is a guard page.
    drop(unsafe { coroutine::spawn(run) });
}

/// A panic ends the process, so no lock is found poisoned.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
