//! Async/await over completions: each connection is a task that moves its buffers, on compio.
//!
//! **Who waits where:** each task, in one race of futures, for what the kernel does for it, its
//! timer and other tasks. Underneath, each worker's thread waits for all of that, in an unseen
//! `io_uring_enter`.
//! **What wakes it:** the worker's own ring, when a receive or a send is done or the timer fires;
//! another task or the stop signal, through the task's own `Event`.
//!
//! The kernel works in a task's buffers while the task waits. So a task gives its buffers away and
//! gets them back with the result: to send, all that is queued at once. To receive, it gives none:
//! the kernel picks one of the worker's when there are bytes, so an idle connection holds no
//! buffer. That is one difference from compio's examples. There are two more:
//! - What the kernel has begun is not dropped when another future ends the wait: bytes that it has
//!   received would be lost. `receiving` and `sending` outlive the wait, and there is at most one
//!   of each.
//! - No channel leads to a member. Messages for a member wait in its inbox, which is bounded and
//!   stands in the `protocol::Room`. So no task waits for a member that reads slowly.
//!
//! Run: `cargo run --release -p serve-compio -- --workers 2 --mode chat`
//! Read first: `examples/bare.rs`, this model without all that a server needs.
//! Read next: `serve-uring`, the rings that are hidden here, and `serve-smol`, which is told of
//! readiness instead.

mod ring;

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::mem;
use std::net::{self, IpAddr};
use std::pin::pin;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use compio::BufResult;
use compio::driver::BufferRef;
use compio::io::{AsyncReadManaged, AsyncWrite};
use compio::net::{TcpListener, TcpStream};
use compio::runtime::spawn;
use compio::time::{sleep, timeout};
use event_listener::Event;
use futures_lite::StreamExt;
use futures_lite::future::{FutureExt, pending, yield_now};
use launch::{Counters, Failure, Launch, Place};
use protocol::{ConnId, Done, Due, Input, Mode, Next, Outbox, Room, Session, Time};

use crate::ring::{Batch, runtime, send};

/// How long to leave a listener alone when the process has run out of descriptors.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);
/// In a shorter sleep the kernel would not be asked what it has done.
const SHORTEST_SLEEP: Duration = Duration::from_micros(100);

/// What wakes a task from outside. (On another runtime it is another type.)
type Wakeup = Event;

/// What the tasks of the connections share.
type TaskRoom = Room<Arc<Wakeup>>;

thread_local! {
    /// Which worker runs on this thread.
    static INDEX: Cell<usize> = const { Cell::new(0) };
}

fn main() -> ExitCode {
    let about = "Echo or chat on compio: a task for each connection, and completions from io_uring";
    launch::main(env!("CARGO_PKG_NAME"), about, serve)
}

fn serve(launch: &'static Launch) -> Result<(), Failure> {
    ring::probe()?; // Says now if io_uring is not available.
    let room = Mutex::new(Room::new(&launch.settings));
    let shared: &'static Shared = Box::leak(Box::new(Shared { launch, room, stop: Wakeup::new() }));

    let (ready, started) = mpsc::channel();
    let mut workers = Vec::new();
    for (index, listeners) in launch.listeners_each()?.into_iter().enumerate() {
        workers.push(Worker { shared, index, listeners, ready: ready.clone() });
    }
    launch.run_each_when(workers, Worker::run, || {
        started.iter().take(launch.workers).collect::<Result<(), _>>()?;
        launch.on_stop(|| _ = shared.stop.notify(usize::MAX))
    })
}

/// A thread, and the listeners that it serves.
struct Worker {
    shared: &'static Shared,
    index: usize,
    listeners: Vec<net::TcpListener>,
    /// Where it says whether it has its ring. Before that the server does not announce itself.
    ready: Sender<Result<(), Failure>>,
}

impl Worker {
    fn run(self) -> Result<(), Failure> {
        INDEX.set(self.index);
        // A ring belongs to the thread that makes it.
        let Some(runtime) = runtime(self.shared.launch, &self.ready) else { return Ok(()) };
        runtime.block_on(async {
            let mut accepting = Vec::new();
            for listener in self.listeners {
                let listener = TcpListener::from_std(listener).map_err(Failure::of("listener"))?;
                accepting.push(spawn(accept(self.shared, listener)));
            }
            for task in accepting {
                let _ = task.await; // It does not fail: a panic ends the process.
            }
            Ok(())
        })
    }
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

    /// Of this thread, on a cache line that no other writes to.
    fn counters(&self) -> &'static Counters {
        self.launch.counters(INDEX.get())
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
    // Each connection has a clone, and notifies it when it ends.
    let alive = Rc::new(Event::new());
    // One request to the kernel for all connections to come.
    let mut incoming = listener.incoming();
    let mut stop = shared.stop.listen();
    while !shared.launch.stop.requested() {
        let accepted = async {
            let socket = incoming.next().await?;
            Some(socket.and_then(|socket| Ok((socket.peer_addr()?, socket))))
        };
        let stopped = async {
            (&mut stop).await;
            None
        };
        match accepted.or(stopped).await {
            Some(Ok((peer, socket))) => {
                if let Some(mut connection) = admit(shared, &socket, peer.ip()) {
                    let alive = Rc::clone(&alive);
                    let serving = async move {
                        connection.serve(&socket).await;
                        // The place is free before the peer sees the connection close: it can
                        // connect again at once.
                        drop(connection);
                        drop(socket);
                        alive.notify(1);
                    };
                    spawn(serving).detach();
                }
            }
            Some(Err(error)) if launch::is_shortage(&error) => {
                shared.counters().shortages.add(1);
                // With the end of a connection a descriptor is free again.
                let _ = timeout(SHORTAGE_PAUSE, alive.listen()).await;
            }
            Some(Err(_)) => shared.counters().accept_errors.add(1),
            None => {}
        }
        yield_now().await; // Lets other tasks run.
    }
    drop(incoming);
    // Not the signal thread: from there each wake-up would need a place in this thread's queue. A
    // connection that another worker accepts from now on finds out by itself.
    let tasks = shared.lock_room().shut_down();
    wake_all(tasks);
    // The port is free once the kernel has given up accepting.
    let _ = listener.close().await;
    while Rc::strong_count(&alive) > 1 {
        alive.listen().await;
    }
}

fn admit(shared: &'static Shared, socket: &TcpStream, peer: IpAddr) -> Option<Connection> {
    let (launch, now) = (shared.launch, shared.launch.now());
    let place = launch.admit(socket, peer, shared.counters())?;
    let (session, outbox) =
        (Session::new(&launch.settings, now).of(place.peer()), Outbox::default());
    let wakeup = Arc::new(Wakeup::new());
    let id = shared.lock_room().open(&place.peer().to_string(), now, Arc::clone(&wakeup));
    Some(Connection { shared, id, session, outbox, wakeup, read_at: None, _place: place })
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
    _place: Place,
}

impl Connection {
    /// Serves the connection to its end. Then its member leaves the chat.
    async fn serve(&mut self, socket: &TcpStream) {
        let reason = self.run(socket).await.unwrap_or("Connection reset");
        let tasks = self.shared.lock_room().leave(self.id, reason);
        wake_all(tasks);
    }

    /// In each turn: asks the protocol what to wait for, sends, and waits until the first of that
    /// has come. Returns why the connection ends, for those who share a channel with the member.
    async fn run(&mut self, socket: &TcpStream) -> io::Result<&'static str> {
        let wakeup = Arc::clone(&self.wakeup);
        let mut notified = wakeup.listen();
        let mut woken = true; // A notification may have been sent before this task listened.
        // Set when the deadline comes earlier and when it has fired, not when it moves later.
        let mut timer = pin!(sleep(Duration::ZERO));
        let mut timer_at = Time::NEVER;
        let mut starved = false; // No buffer was free for the last receive.
        // The second is large and seldom there, so it is not part of the task.
        let (mut receiving, mut sending) = (pin!(None), None);
        loop {
            let now = self.read_at.take().unwrap_or_else(|| self.shared.launch.now());
            if mem::take(&mut woken) {
                notified = wakeup.listen();
                self.collect(socket, now);
            }
            let read = match self.session.next(now, &self.outbox) {
                Next::Serve { read } => read,
                Next::Shut => {
                    let _ = { socket }.shutdown().await; // Fails if the peer has gone.
                    true
                }
                Next::Close(reason) => return Ok(reason),
            };
            let deadline = self.session.deadline(&self.outbox);
            if deadline < timer_at {
                timer_at = deadline;
                timer.set(sleep(deadline.after(now).max(SHORTEST_SLEEP)));
            }
            if read && receiving.is_none() {
                receiving.set(Some(async move { { socket }.read_managed(0).await }));
            }
            if sending.is_none() && !self.outbox.is_empty() {
                sending = Some(Box::pin(send(socket, self.outbox.take())));
            }

            let behind = sending.is_some() && self.is_over_high_water();
            let sent = async { Woken::Sent(maybe(sending.as_mut()).await) };
            let fires = async {
                maybe((timer_at < Time::NEVER).then_some(timer.as_mut())).await;
                Woken::Timer
            };
            let wakes = async {
                (&mut notified).await;
                Woken::Notified
            };
            let received = async { Woken::Received(maybe(receiving.as_mut().as_pin_mut()).await) };
            let others = async {
                sleep_if(behind).await;
                fires.or(wakes).or(received).await
            };
            match sent.or(others).await {
                Woken::Sent(result) => {
                    sending = self.sent(result)?.map(|batch| Box::pin(send(socket, batch)));
                }
                Woken::Timer => {
                    timer_at = Time::NEVER;
                    self.expire(self.shared.launch.now());
                }
                Woken::Notified => woken = true,
                Woken::Received(result) => {
                    receiving.set(None);
                    starved = self.read(result)?;
                }
            }
            yield_if(mem::take(&mut starved)).await;
            self.shared.counters().wakeups.add(1);
        }
    }

    /// Whether much is queued. Then, while a send is under way, the task waits a moment for its
    /// completion before it queues more: until it comes, it is not known whether the peer reads.
    /// Messages for the member wait in its inbox meanwhile. When they are many, their senders wait.
    fn is_over_high_water(&self) -> bool {
        self.outbox.len() > self.shared.launch.settings.limits.high_water()
    }

    /// A receive is done: handles what has come. Returns whether nothing has, because no buffer was
    /// free, or a signal came first.
    fn read(&mut self, result: io::Result<Option<BufferRef>>) -> io::Result<bool> {
        match result {
            Ok(buffer) => {
                self.received(buffer.as_deref().unwrap_or_default());
                Ok(false)
            }
            Err(error) if error.kind() == ErrorKind::ResourceBusy || is_retry(&error) => {
                self.shared.counters().would_blocks.add(1);
                Ok(true)
            }
            Err(error) => {
                self.shared.counters().read_errors.add(1);
                Err(error)
            }
        }
    }

    /// Some of a batch has been sent. Returns what to send next: its rest, or what has been queued
    /// meanwhile, if anything has. The outbox is told in any case: it counts what was taken from it
    /// last and is not known to have been sent.
    fn sent(&mut self, result: BufResult<usize, Batch>) -> io::Result<Option<Outbox>> {
        let BufResult(sent, Batch(mut batch)) = result;
        let len = match sent {
            Err(error) if is_retry(&error) => 0,
            sent => sent.inspect_err(|_| self.shared.counters().write_errors.add(1))?,
        };
        self.shared.counters().bytes_out.add(len as u64);
        batch.advance(len);
        if batch.is_empty() {
            batch = self.outbox.take();
        } else {
            self.outbox.note_left(batch.len());
        }
        Ok((!batch.is_empty()).then_some(batch))
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

/// What has ended a wait.
enum Woken {
    Sent(BufResult<usize, Batch>),
    Timer,
    Notified,
    Received(io::Result<Option<BufferRef>>),
}

/// Waits for a future if there is one, and otherwise for ever.
async fn maybe<F: Future + Unpin>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}

/// Waits a moment if a send should be done first.
async fn sleep_if(behind: bool) {
    if behind {
        sleep(SHORTEST_SLEEP).await;
    }
}

/// Lets other tasks run if there was no buffer: they give theirs back.
async fn yield_if(starved: bool) {
    if starved {
        yield_now().await;
    }
}

/// Whether a request may be made again: a signal came first, or the kernel could not wait.
fn is_retry(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock)
}
