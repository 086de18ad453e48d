//! Asynchronous programming: each connection is a task that reads as if it blocked, on smol.
//!
//! **Who waits where:** each task, in one race of futures, for socket, timer and other tasks.
//! Underneath, one thread waits for all of that, in an unseen `epoll_wait`; the others, for tasks.
//! **What wakes it:** the one reactor, when the socket is ready (oneshot, armed for each wait) or
//! the timer fires; another task or the stop signal, through the task's own `Event`.
//!
//! As in smol's examples, each connection is a task. There are two differences:
//! - A task that waits holds no read buffer. All that a task keeps across an `await` is memory that
//!   an idle connection costs. So the buffer of `Connection::read` is on the stack, and the bytes
//!   in it are handled before `Connection::read` returns.
//! - No channel leads to a member. Messages for a member wait in its inbox, which is bounded and
//!   stands in the `protocol::Room`. So no task waits for a member that reads slowly.
//!
//! `runtime.rs` starts the threads that run the tasks.
//!
//! Run: `cargo run --release -p serve-smol -- --workers 2 --mode chat`
//! Read first: `examples/bare.rs`, this model without all that a server needs.
//! Read next: `serve-polling`, the oneshot readiness that is hidden here, and `serve-tokio`, armed
//! once.

mod runtime;

use std::future::poll_fn;
use std::io::{self, ErrorKind, Write};
use std::mem::{self, MaybeUninit};
use std::net::{IpAddr, Shutdown};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, ready};
use std::time::Duration;

use event_listener::Event;
use launch::{Counters, Failure, IoSlices, Launch, Place, READ_SIZE};
use protocol::{ConnId, Done, Due, Input, Mode, Next, Outbox, Room, Session, Time};
use rustix::net::{RecvFlags, recv};
use smol::channel;
use smol::future::{FutureExt, pending, yield_now};
use smol::{Async, Timer};

use crate::runtime::EXECUTOR;

/// How long to leave a listener alone when the process has run out of descriptors.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);

/// What wakes a task from outside. (On another runtime it is another type.)
type Wakeup = Event;

/// What the tasks of the connections share.
type TaskRoom = Room<Arc<Wakeup>>;

/// The standard library's sockets, known to the reactor.
type TcpListener = Async<std::net::TcpListener>;
type TcpStream = Async<std::net::TcpStream>;

fn main() -> ExitCode {
    let about = "Echo or chat on smol: a task for each connection";
    launch::main(env!("CARGO_PKG_NAME"), about, serve)
}

fn serve(launch: &'static Launch) -> Result<(), Failure> {
    let room = Mutex::new(Room::new(&launch.settings));
    let shared: &'static Shared = Box::leak(Box::new(Shared { launch, room, stop: Wakeup::new() }));
    launch.on_stop(|| shared.stop())?;
    runtime::run(shared)
}

/// What all tasks share.
struct Shared {
    launch: &'static Launch,
    /// Its lock is never held across a call that waits, nor an `await`. In echo it is taken when a
    /// connection comes and when it goes.
    room: Mutex<TaskRoom>,
    /// The server stops: the tasks that accept wait for it.
    stop: Wakeup,
}

impl Shared {
    fn lock_room(&self) -> MutexGuard<'_, TaskRoom> {
        // A panic ends the process, so no lock is found poisoned.
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server stops. A connection that is accepted from now on finds out by itself.
    fn stop(&self) {
        self.stop.notify(usize::MAX);
        let tasks = self.lock_room().shut_down();
        wake_all(tasks);
    }

    /// The counters of the thread that runs the task now. No other thread writes to their cache
    /// lines.
    fn counters(&self) -> &'static Counters {
        self.launch.counters(runtime::index())
    }
}

/// Wakes tasks. No lock is held meanwhile: to wake a task may be a system call, which wakes the
/// thread that runs it.
fn wake_all(tasks: Vec<Arc<Wakeup>>) {
    for task in tasks {
        task.notify(1);
    }
}

/// Accepts connections until the server stops, and then waits until they have ended.
async fn accept(shared: &'static Shared, listener: TcpListener) {
    // One channel, two uses. A connection that ends sends a message: a descriptor is free again.
    // Each connection also holds a sender: when the last one is dropped, the channel is closed, and
    // all connections have ended.
    let (alive, ended) = channel::bounded(1);
    // It listens before the flag is looked at, so that no stop is missed.
    let mut stopped = shared.stop.listen();
    while !shared.launch.stop.requested() {
        let accepted = async { Some(listener.accept().await) };
        let stopped = async {
            (&mut stopped).await;
            None
        };
        let Some(accepted) = accepted.or(stopped).await else { break };
        match accepted {
            Ok((socket, peer)) => {
                if let Some(mut connection) = admit(shared, &socket, peer.ip()) {
                    let alive = alive.clone();
                    let serving = async move {
                        connection.serve(&socket).await;
                        // The place is free before the peer sees the connection close: it can
                        // connect again at once.
                        drop(connection);
                        drop(socket);
                        // Fails if an earlier end is still in the channel.
                        let _ = alive.try_send(());
                    };
                    EXECUTOR.spawn(serving).detach();
                }
            }
            Err(error) if launch::is_shortage(&error) => {
                shared.counters().shortages.add(1);
                // With the end of a connection a descriptor is free again.
                let pause = async { _ = Timer::after(SHORTAGE_PAUSE).await };
                pause.or(async { _ = ended.recv().await }).await;
            }
            Err(_) => shared.counters().accept_errors.add(1),
        }
        yield_now().await; // Lets other tasks run.
    }
    drop(listener);
    drop(alive);
    while ended.recv().await.is_ok() {}
}

fn admit(shared: &'static Shared, socket: &TcpStream, peer: IpAddr) -> Option<Connection> {
    let (launch, now) = (shared.launch, shared.launch.now());
    let place = launch.admit(socket, peer, shared.counters())?;
    let (session, outbox) =
        (Session::new(&launch.settings, now).of(place.peer()), Outbox::default());
    let wakeup = Arc::new(Wakeup::new());
    let id = shared.lock_room().open(&place.peer().to_string(), now, Arc::clone(&wakeup));
    Some(Connection {
        shared,
        id,
        session,
        outbox,
        wakeup,
        read_at: None,
        more: false,
        _place: place,
    })
}

/// One connection, owned by its task.
struct Connection {
    shared: &'static Shared,
    id: ConnId,
    session: Session,
    outbox: Outbox,
    /// Wakes the task. Chat: there is mail in the inbox. Echo: the server stops.
    wakeup: Arc<Wakeup>,
    /// The instant, if the task has just read: one look at the clock is enough for a message.
    read_at: Option<Time>,
    /// The last read filled the buffer: there is more.
    more: bool,
    _place: Place,
}

impl Connection {
    /// Serves the connection to its end. Then its member leaves the chat.
    async fn serve(&mut self, socket: &TcpStream) {
        let reason = self.run(socket).await.unwrap_or("Connection reset");
        let tasks = self.shared.lock_room().leave(self.id, reason);
        wake_all(tasks);
    }

    /// In each turn: writes, asks the protocol what to wait for, and waits until the first of that
    /// has come. Returns why the connection ends, for those who share a channel with the member.
    async fn run(&mut self, socket: &TcpStream) -> io::Result<&'static str> {
        let wakeup = Arc::clone(&self.wakeup);
        let mut notified = wakeup.listen();
        // Looks once at the start: a notification may have been sent before this task listened.
        let mut woken = true;
        // Set when the deadline comes earlier and when it has fired, not when it moves later.
        let mut timer = Timer::never();
        let mut timer_at = Time::NEVER;
        let mut turns = 0_u8;
        loop {
            let now = self.read_at.take().unwrap_or_else(|| self.shared.launch.now());
            if mem::take(&mut woken) {
                notified = wakeup.listen();
                self.collect(socket, now);
            }
            self.write(socket)?;
            let read = match self.session.next(now, &self.outbox) {
                Next::Serve { read } => read,
                Next::Shut => {
                    // Fails if the peer has gone.
                    let _ = socket.get_ref().shutdown(Shutdown::Write);
                    true
                }
                Next::Close(reason) => return Ok(reason),
            };
            let deadline = self.session.deadline(&self.outbox);
            if deadline <= now {
                self.expire(now);
                yield_now().await; // Lets other tasks run.
                continue;
            }
            if deadline < timer_at {
                timer_at = deadline;
                timer.set_after(deadline.after(now));
            }
            // Every 256th turn too, if the task never has to wait.
            turns = turns.wrapping_add(1);
            if self.more || turns == 0 {
                yield_now().await; // Lets other tasks run.
            }

            let unsent = !self.outbox.is_empty();
            // As `writable().await`, which would make the task larger.
            let writable = poll_fn(|cx| socket.poll_writable(cx));
            // One future ends the wait, and the others are dropped. No byte is lost with them:
            // `read` takes bytes from the socket only in the poll in which it also handles them and
            // returns. `writable` takes none. A notification that has come stays in `notified`.
            // The socket comes last: notifications come only while other tasks run.
            let fires = async {
                (&mut timer).await;
                timer_at = Time::NEVER;
                Ok(())
            };
            let wakes = async {
                (&mut notified).await;
                woken = true;
                Ok(())
            };
            let takes = async { if unsent { writable.await } else { pending().await } };
            let reads = async { if read { self.read(socket).await } else { pending().await } };
            fires.or(wakes).or(takes).or(reads).await?;
            self.shared.counters().wakeups.add(1);
        }
    }

    /// Waits until bytes have come or the stream has ended, and handles that.
    ///
    /// Most programs write `socket.read(&mut buffer).await`, with a buffer that lives in the task.
    /// Here it lives on the stack, for one poll, so that poll must also handle what it has read.
    /// `readable().await` needs no `poll_fn`. But when it is dropped, it forgets that the kernel
    /// watches already: that is one more `epoll_ctl` whenever another future ends the wait.
    async fn read(&mut self, socket: &TcpStream) -> io::Result<()> {
        poll_fn(|cx| {
            if !mem::take(&mut self.more) {
                ready!(socket.poll_readable(cx))?;
            }
            let mut buffer = [const { MaybeUninit::uninit() }; READ_SIZE];
            match recv(socket, &mut buffer, RecvFlags::empty()).map_err(io::Error::from) {
                Ok(((bytes, _), _)) => {
                    self.received(bytes);
                    self.more = bytes.len() == READ_SIZE;
                    Poll::Ready(Ok(()))
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.shared.counters().would_blocks.add(1);
                    Poll::Ready(Ok(())) // Nothing has come. The next turn waits.
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {
                    self.more = true; // A signal came first.
                    Poll::Ready(Ok(()))
                }
                Err(error) => {
                    self.shared.counters().read_errors.add(1);
                    Poll::Ready(Err(error))
                }
            }
        })
        .await
    }

    /// Writes as much of what is queued as the socket takes now.
    fn write(&mut self, socket: &TcpStream) -> io::Result<()> {
        while !self.outbox.is_empty() {
            let written = socket.get_ref().write_vectored(&IoSlices::new(self.outbox.slices()));
            match written {
                Ok(len) => {
                    self.shared.counters().bytes_out.add(len as u64);
                    self.outbox.advance(len);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.shared.counters().would_blocks.add(1);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {} // A signal came first.
                Err(error) => {
                    self.shared.counters().write_errors.add(1);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Bytes have come; or none, which is the end of the stream.
    fn received(&mut self, bytes: &[u8]) {
        self.shared.counters().bytes_in.add(bytes.len() as u64);
        let now = self.shared.launch.now();
        self.read_at = Some(now);
        self.handle(Input::Received(bytes), now);
    }

    /// Gives `input` to the protocol, which queues what comes back.
    fn handle(&mut self, input: Input<'_>, now: Time) {
        let (id, launch) = (self.id, self.shared.launch);
        let lines = match launch.settings.mode {
            Mode::Echo => self.session.echo(input, now, &mut self.outbox),
            Mode::Chat => self
                .with_room(now, |room, session, outbox| room.chat(id, session, input, now, outbox)),
        };
        launch.account(Done { lines, ..Done::default() }, self.shared.counters());
    }

    /// The task has been woken from outside. Chat: there may be mail in the inbox. Echo: the server
    /// may be stopping.
    fn collect(&mut self, socket: &TcpStream, now: Time) {
        let launch = self.shared.launch;
        if launch.settings.mode == Mode::Chat {
            self.with_room(now, |_, _, _| ()); // For the mail only.
        } else if launch.stop.requested() {
            self.session.stop(launch::is_busy(socket), &self.outbox);
        }
    }

    /// A deadline has come.
    fn expire(&mut self, now: Time) {
        let id = self.id;
        let due = self.session.expire(now, &self.outbox);
        self.shared.counters().expired(due);
        match due {
            Due::Resume => self.handle(Input::Resume, now),
            Due::Ping => self.with_room(now, |room, _, _| room.ping(id)),
            Due::Cut(reason) => self.with_room(now, |room, _, _| room.cut(id, reason)),
            Due::Later | Due::Close => {}
        }
    }

    /// Chat: calls the room under its lock, and moves the mail in the member's inbox to its outbox.
    /// Then, without the lock, wakes the tasks of the members that have got mail.
    fn with_room<R>(
        &mut self,
        now: Time,
        call: impl FnOnce(&mut TaskRoom, &mut Session, &Outbox) -> R,
    ) -> R {
        let mut room = self.shared.lock_room();
        let result = call(&mut room, &mut self.session, &self.outbox);
        let exchange = room.exchange(self.id, &mut self.session, &mut self.outbox, now);
        drop(room);
        wake_all(exchange.to_wake);
        self.shared.counters().slow_cut.add(exchange.slow_cut.into());
        result
    }
}
