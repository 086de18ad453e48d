//! Echo on glommio: a task for each client, on an executor that owns its thread and three rings.
//!
//! **Who waits where:** each task, in one `poll_fn` over its socket; one thread below them, in the
//! `io_uring_enter` of glommio.
//! **What wakes it:** the ring, when there is something to receive or room to send, or the timer
//! fires; the stop signal, through an `Event`.
//!
//! glommio tries `recv` and `send` at once and asks the ring only when they would have blocked. Its
//! streams are those of `futures_lite`: bytes are copied into a buffer of the task.
//!
//! Run: `loadgen/peers/setup`, then `target/peers/rust/release/glommio-echo`
//! Read next: `monoio_echo`, which gives its buffers away, and `serve-tokio`, which has a flavour
//! with a runtime per core.

use std::fmt::Display;
use std::future::poll_fn;
use std::io;
use std::net;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd};
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::mpsc::{self, Sender};
use std::task::Poll;
use std::time::Duration;

use event_listener::Event;
use futures_lite::FutureExt;
use futures_lite::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use glommio::net::{TcpListener, TcpStream};
use glommio::timer::sleep;
use glommio::{LocalExecutorBuilder, Placement};
use io_uring::{IoUring, Probe};
use launch::{Counters, Failure, Launch, Place, READ_SIZE};
use protocol::{Done, Due, Input, Mode, Next, Outbox, Session, Time};

/// How long to leave a listener alone when the process has run out of descriptors.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);
/// Bytes for the receives of one client.
const BUFFER_LEN: usize = if READ_SIZE < 16 << 10 { READ_SIZE } else { 16 << 10 };

fn main() -> ExitCode {
    launch::main("glommio_echo", "Echo on glommio: a task for each client", serve)
}

fn serve(launch: &'static Launch) -> Result<(), Failure> {
    if launch.settings.mode == Mode::Chat {
        return Err(Failure::Usage("--mode chat: this server speaks echo alone".to_owned()));
    }
    probe().map_err(unavailable)?;
    let stop: &'static Event = Box::leak(Box::new(Event::new()));
    let (ready, started) = mpsc::channel();
    let mut workers = Vec::new();
    for (index, listeners) in launch.listeners_each()?.into_iter().enumerate() {
        let counters = launch.counters(index);
        let shared = Shared { launch, counters, stop };
        workers.push(Worker { shared, listeners, ready: ready.clone() });
    }
    launch.run_each_when(workers, Worker::run, || {
        started.iter().take(launch.workers).collect::<Result<(), _>>()?;
        launch.on_stop(|| _ = stop.notify(usize::MAX))
    })
}

/// What the tasks of a worker share.
#[derive(Clone, Copy)]
struct Shared {
    launch: &'static Launch,
    counters: &'static Counters,
    /// The server stops.
    stop: &'static Event,
}

/// A thread, and the listeners that it serves.
struct Worker {
    shared: Shared,
    listeners: Vec<net::TcpListener>,
    /// Where it says whether it has its ring.
    ready: Sender<Result<(), Failure>>,
}

impl Worker {
    fn run(self) -> Result<(), Failure> {
        let built = LocalExecutorBuilder::new(Placement::Unbound).make();
        let _ = self.ready.send(built.as_ref().map(drop).map_err(unavailable));
        let Ok(executor) = built else { return Ok(()) }; // The main thread ends the process.
        executor.run(async {
            let mut accepting = Vec::new();
            for listener in self.listeners {
                listener.set_nonblocking(true).map_err(Failure::of("listener"))?;
                accepting.push(glommio::spawn_local(accept(self.shared, owned(listener))));
            }
            for task in accepting {
                task.await;
            }
            Ok(())
        })
    }
}

/// Tries what the runtime asks of io_uring: where that is forbidden in part, it panics or waits for
/// ever.
fn probe() -> io::Result<()> {
    let ring = IoUring::new(2)?;
    ring.submitter().register_probe(&mut Probe::new())?;
    ring.submitter().submit().map(drop)
}

/// Why there is no ring, and what to do.
fn unavailable(error: impl Display) -> Failure {
    let hint = "choose another server, or raise the limit of locked memory (`ulimit -l`)";
    Failure::Unsupported(format!("io_uring is not available here: {error}; {hint}"))
}

/// Accepts clients until the server stops, and then waits until they have gone.
async fn accept(shared: Shared, listener: TcpListener) {
    // Each client has a clone, and notifies it when it ends.
    let alive = Rc::new(Event::new());
    let mut stopped = shared.stop.listen();
    while !shared.launch.stop.requested() {
        let accepted = async {
            let socket = listener.accept().await.map_err(io::Error::from);
            Some(socket.and_then(|socket| Ok((socket.peer_addr()?, socket))))
        };
        let stops = async {
            (&mut stopped).await;
            None
        };
        match accepted.or(stops).await {
            Some(Ok((peer, socket))) => {
                let (launch, counters) = (shared.launch, shared.counters);
                let Some(place) = launch.admit(&borrowed(&socket), peer.ip(), counters) else {
                    continue;
                };
                let alive = Rc::clone(&alive);
                let serving = async move {
                    // An error of the socket ends the client as its end does.
                    let _ = Client::new(shared, place).serve(&mut { socket }).await;
                    alive.notify(1);
                };
                glommio::spawn_local(serving).detach();
            }
            Some(Err(error)) if launch::is_shortage(&error) => {
                shared.counters.shortages.add(1);
                // With the end of a client a descriptor is free again.
                sleep(SHORTAGE_PAUSE).or(alive.listen()).await;
            }
            Some(Err(_)) => shared.counters.accept_errors.add(1),
            None => {}
        }
    }
    drop(listener);
    while Rc::strong_count(&alive) > 1 {
        alive.listen().await;
    }
}

/// glommio makes its listeners itself, or takes the number of a descriptor.
#[expect(unsafe_code)]
fn owned(listener: net::TcpListener) -> TcpListener {
    // SAFETY: the descriptor is a listening socket, and was owned by what gives it up here.
    unsafe { TcpListener::from_raw_fd(listener.into_raw_fd()) }
}

/// For what `launch` does with a socket: glommio lends a descriptor only as a number.
#[expect(unsafe_code)]
fn borrowed(socket: &TcpStream) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open for as long as the stream that owns it is borrowed.
    unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) }
}

/// One client, owned by its task.
struct Client {
    shared: Shared,
    session: Session,
    outbox: Outbox,
    place: Place,
}

impl Client {
    fn new(shared: Shared, place: Place) -> Client {
        let session = Session::new(&shared.launch.settings, shared.launch.now());
        Client { shared, session, outbox: Outbox::default(), place }
    }

    /// Serves the client to its end. The place is free before the peer sees the connection close:
    /// it can connect again at once.
    async fn serve(mut self, socket: &mut TcpStream) -> io::Result<()> {
        let result = self.run(socket).await;
        drop(self.place);
        result
    }

    /// In each turn: asks the protocol what to wait for, and waits until the first of that has
    /// come.
    async fn run(&mut self, socket: &mut TcpStream) -> io::Result<()> {
        let mut buffer = vec![0; self.buffer_len()];
        let mut notified = self.shared.stop.listen();
        let mut timer = pin!(sleep(Duration::ZERO));
        let mut timer_at = Time::NEVER;
        loop {
            let (read, deadline) = match self.next(|| launch::is_busy(borrowed(socket))) {
                Plan::Wait { read, until } => (read, until),
                Plan::Shut => {
                    let _ = socket.close().await; // Ends our side. Fails if the peer has gone.
                    continue;
                }
                Plan::Close => return Ok(()),
            };
            if deadline < timer_at {
                timer_at = deadline;
                timer.set(sleep(deadline.after(self.shared.launch.now())));
            }
            // A socket that never blocks would keep the thread.
            glommio::yield_if_needed().await;

            let woken = poll_fn(|cx| {
                if let Some(slice) = self.outbox.slices().next()
                    && let Poll::Ready(result) = Pin::new(&mut *socket).poll_write(cx, slice)
                {
                    return Poll::Ready(Woken::Sent(result));
                }
                if Pin::new(&mut notified).poll(cx).is_ready() {
                    return Poll::Ready(Woken::Stopped);
                }
                if read
                    && let Poll::Ready(result) = Pin::new(&mut *socket).poll_read(cx, &mut buffer)
                {
                    return Poll::Ready(Woken::Received(result));
                }
                if timer_at < Time::NEVER && timer.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Woken::Timer);
                }
                Poll::Pending
            });
            match woken.await {
                Woken::Sent(result) => {
                    let len = result.inspect_err(|_| self.shared.counters.write_errors.add(1))?;
                    self.shared.counters.bytes_out.add(len as u64);
                    self.outbox.advance(len);
                }
                Woken::Received(result) => {
                    let len = result.inspect_err(|_| self.shared.counters.read_errors.add(1))?;
                    self.received(&buffer[..len]);
                    self.shared.counters.wakeups.add(1);
                }
                Woken::Timer => timer_at = Time::NEVER,
                Woken::Stopped => notified = self.shared.stop.listen(),
            }
        }
    }

    /// With --work each byte may be a line, and other clients wait for it.
    fn buffer_len(&self) -> usize {
        let most = usize::try_from(self.shared.launch.settings.step_lines).unwrap_or(BUFFER_LEN);
        BUFFER_LEN.min(most)
    }

    /// What the protocol wants, after all that is due.
    fn next(&mut self, unread: impl Fn() -> bool) -> Plan {
        let launch = self.shared.launch;
        loop {
            let now = launch.now();
            if launch.stop.requested() {
                self.session.stop(unread(), &self.outbox);
            }
            let read = match self.session.next(now, &self.outbox) {
                Next::Serve { read } => read,
                Next::Shut => return Plan::Shut,
                Next::Close(_) => return Plan::Close,
            };
            let until = self.session.deadline(&self.outbox);
            if until > now {
                return Plan::Wait { read, until };
            }
            let due = self.session.expire(now, &self.outbox);
            self.shared.counters.expired(due);
            if due == Due::Resume {
                self.handle(Input::Resume, now);
            }
        }
    }

    /// Bytes have come; or none, which is the end of the stream.
    fn received(&mut self, bytes: &[u8]) {
        self.shared.counters.bytes_in.add(bytes.len() as u64);
        self.handle(Input::Received(bytes), self.shared.launch.now());
    }

    /// Gives `input` to the protocol, which queues what comes back.
    fn handle(&mut self, input: Input<'_>, now: Time) {
        let lines = self.session.echo(input, now, &mut self.outbox);
        self.shared.launch.account(Done { lines, ..Done::default() }, self.shared.counters);
    }
}

/// What a client is to do next.
enum Plan {
    Wait { read: bool, until: Time },
    Shut,
    Close,
}

/// What has ended a wait.
enum Woken {
    Sent(io::Result<usize>),
    Received(io::Result<usize>),
    Timer,
    Stopped,
}
