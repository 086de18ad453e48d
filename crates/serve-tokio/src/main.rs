//! Asynchronous programming: each connection is a task that reads as if it blocked, on tokio.
//!
//! **Who waits where:** each task, in one `select!`, for socket, timer and other tasks.
//! Underneath, each thread of the runtime waits for all of that, in an unseen `epoll_wait`.
//! **What wakes it:** the runtime, when the socket is ready (edge-triggered, registered once) or
//! the timer fires; another task or the stop signal, through the task's own `Notify`.
//!
//! As in tokio's tutorial, each connection is a task. There are two differences:
//! - A task that waits holds no read buffer. All that a task keeps across an `await` is memory that
//!   an idle connection costs. So the buffer of `Connection::read` is on the stack, and the bytes
//!   in it are handled before `Connection::read` returns.
//! - No channel leads to a member. Messages for a member wait in its inbox, which is bounded and
//!   stands in the `protocol::Room`. So no task waits for a member that reads slowly.
//!
//! `runtime.rs` starts the threads that run the tasks.
//!
//! Run: `cargo run --release -p serve-tokio -- --flavor multi-thread --workers 2 --mode chat`
//! Read first: `examples/bare.rs`, this model without all that a server needs.
//! Read next: `serve-epoll-level`, the loop that is hidden here, and `serve-threads`, which really
//! blocks.

mod runtime;

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::mem::{self, MaybeUninit};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, ready};
use std::time::Duration;

use launch::{Counters, Failure, IoSlices, Place, READ_SIZE};
use protocol::{ConnId, Done, Due, Input, Mode, Next, Outbox, Room, Session, Time};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::tcp::ReadHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};

use crate::runtime::Launch;

/// How long to leave a listener alone when the process has run out of descriptors.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);

/// What wakes a task from outside. (On another runtime it is another type.)
type Wakeup = Notify;

/// What the tasks of the connections share.
type TaskRoom = Room<Arc<Wakeup>>;

fn main() -> ExitCode {
    let about = "Echo or chat on tokio: a task for each connection";
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
        self.stop.notify_waiters();
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
        task.notify_one();
    }
}

/// Accepts connections until the server stops, and then waits until they have ended.
async fn accept(shared: &'static Shared, listener: TcpListener) {
    // One channel, two uses. A connection that ends sends a message: a descriptor is free again.
    // Each connection also holds a sender: when the last one is dropped, the channel is closed, and
    // all connections have ended.
    let (alive, mut ended) = mpsc::channel(1);
    // `notified()` hears `notify_waiters` from its creation on, before it is polled. So it is made
    // before the flag is looked at, and no stop is missed.
    let mut stopped = pin!(shared.stop.notified());
    while !shared.launch.stop.requested() {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stopped => break,
        };
        match accepted {
            Ok((mut socket, peer)) => {
                if let Some(mut connection) = admit(shared, &socket, peer.ip()) {
                    let alive = alive.clone();
                    let serving = async move {
                        connection.serve(&mut socket).await;
                        // The place is free before the peer sees the connection close: it can
                        // connect again at once.
                        drop(connection);
                        drop(socket);
                        // Fails if an earlier end is still in the channel.
                        let _ = alive.try_send(());
                    };
                    tokio::spawn(serving);
                }
            }
            Err(error) if launch::is_shortage(&error) => {
                shared.counters().shortages.add(1);
                // With the end of a connection a descriptor is free again.
                let _ = timeout(SHORTAGE_PAUSE, ended.recv()).await;
            }
            Err(_) => shared.counters().accept_errors.add(1),
        }
    }
    drop(listener);
    drop(alive);
    while ended.recv().await.is_some() {}
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
    async fn serve(&mut self, socket: &mut TcpStream) {
        let reason = self.run(socket).await.unwrap_or("Connection reset");
        let tasks = self.shared.lock_room().leave(self.id, reason);
        wake_all(tasks);
    }

    /// In each turn: writes, asks the protocol what to wait for, and waits until the first of that
    /// has come. Returns why the connection ends, for those who share a channel with the member.
    async fn run(&mut self, socket: &mut TcpStream) -> io::Result<&'static str> {
        let wakeup = Arc::clone(&self.wakeup);
        let mut notified = pin!(wakeup.notified());
        // Looks once at the start: nothing notifies a connection that is opened after the stop.
        let mut woken = true;
        // Set when the deadline comes earlier and when it has fired, not when it moves later.
        let mut timer = pin!(sleep(Duration::ZERO));
        let mut timer_at = Time::NEVER;
        loop {
            let now = self.read_at.take().unwrap_or_else(|| self.shared.launch.now());
            if mem::take(&mut woken) {
                notified.set(wakeup.notified());
                self.collect(socket, now);
            }
            self.write(socket)?;
            let read = match self.session.next(now, &self.outbox) {
                Next::Serve { read } => read,
                Next::Shut => {
                    let _ = socket.shutdown().await; // Fails if the peer has gone.
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
                timer.as_mut().reset(Instant::now() + deadline.after(now));
            }
            if mem::take(&mut self.more) {
                yield_now().await; // Lets other tasks run.
            }

            let unsent = !self.outbox.is_empty();
            let (mut reader, writer) = socket.split(); // To wait for both at once.
            // As `writable().await`, which would make the task larger.
            let writable = poll_fn(|cx| writer.as_ref().poll_write_ready(cx));
            // One future ends the wait, and the others are dropped. No byte is lost with them:
            // `read` takes bytes from the socket only in the poll in which it also handles them and
            // returns. `writable` takes none. A notification that has come stays in `notified`.
            // `select!` polls in random order, so none of them starves.
            tokio::select! {
                result = self.read(&mut reader), if read => result?,
                result = writable, if unsent => result?,
                () = &mut notified => woken = true,
                () = &mut timer, if timer_at < Time::NEVER => timer_at = Time::NEVER,
            }
            self.shared.counters().wakeups.add(1);
        }
    }

    /// Waits until bytes have come or the stream has ended, and handles that.
    ///
    /// Most programs write `socket.read(&mut buffer).await`, with a buffer that lives in the task.
    /// Here it lives on the stack, for one poll, so that poll must also handle what it has read.
    /// `readable().await` and `try_read` need no `poll_fn`, but one more `recv` for each message:
    /// only `poll_read` knows from a buffer that is not full that there is no more.
    async fn read(&mut self, reader: &mut ReadHalf<'_>) -> io::Result<()> {
        poll_fn(|cx| {
            let mut buffer = [const { MaybeUninit::uninit() }; READ_SIZE];
            let mut buffer = ReadBuf::uninit(&mut buffer);
            match ready!(Pin::new(&mut *reader).poll_read(cx, &mut buffer)) {
                Ok(()) => {
                    self.received(buffer.filled());
                    self.more = buffer.remaining() == 0;
                    Poll::Ready(Ok(()))
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
            let written = runtime::write(socket, &IoSlices::new(self.outbox.slices()));
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
