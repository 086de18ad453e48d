//! Echo on monoio: a task for each client, which gives its buffers to the kernel.
//!
//! **Who waits where:** each task, in one race of futures; one thread below them, in the
//! `io_uring_enter` of monoio.
//! **What wakes it:** the ring, when a receive or a send is done or the timer fires; the stop
//! signal, through an `Event`.
//!
//! What the kernel has begun is not dropped when another future ends the wait: bytes that it has
//! received would be lost. So `receiving` and `sending` outlive the wait. monoio has no buffers
//! that clients share: an idle client holds one of its own.
//!
//! Run: `loadgen/peers/setup`, then `target/peers/rust/release/monoio-echo --listen 127.0.0.1:7007`
//! Read next: `serve-compio`, the same model on a runtime that shares buffers, and `glommio_echo`.

use std::fmt::Display;
use std::future::pending;
use std::io;
use std::net;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::pin::pin;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use event_listener::Event;
use futures_lite::FutureExt;
use io_uring::{IoUring, Probe};
use launch::{Counters, Failure, Launch, Place, READ_SIZE};
use monoio::buf::IoBuf;
use monoio::io::{AsyncReadRent, AsyncWriteRent, OwnedReadHalf, OwnedWriteHalf, Splitable};
use monoio::net::{TcpListener, TcpStream};
use monoio::time::sleep;
use monoio::{IoUringDriver, RuntimeBuilder};
use protocol::{Done, Due, Input, Mode, Next, Outbox, Session, Time};

/// How long to leave a listener alone when the process has run out of descriptors.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);
/// Bytes for the receives of one client.
const BUFFER_LEN: usize = if READ_SIZE < 16 << 10 { READ_SIZE } else { 16 << 10 };

type Reads = OwnedReadHalf<TcpStream>;
type Writes = OwnedWriteHalf<TcpStream>;

fn main() -> ExitCode {
    launch::main("monoio_echo", "Echo on monoio: a task for each client", serve)
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
        let built = RuntimeBuilder::<IoUringDriver>::new().enable_timer().build();
        let _ = self.ready.send(built.as_ref().map(drop).map_err(unavailable));
        let Ok(mut runtime) = built else { return Ok(()) }; // The main thread ends the process.
        runtime.block_on(async {
            let mut accepting = Vec::new();
            for listener in self.listeners {
                let listener = TcpListener::from_std(listener).map_err(Failure::of("listener"))?;
                accepting.push(monoio::spawn(accept(self.shared, listener)));
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
        let accepted = async { Some(listener.accept().await) };
        let stops = async {
            (&mut stopped).await;
            None
        };
        match accepted.or(stops).await {
            Some(Ok((socket, peer))) => {
                let (launch, counters) = (shared.launch, shared.counters);
                let Some(place) = launch.admit(&borrowed(&socket), peer.ip(), counters) else {
                    continue;
                };
                let alive = Rc::clone(&alive);
                monoio::spawn(async move {
                    // An error of the socket ends the client as its end does.
                    let _ = Client::new(shared, place).serve(socket).await;
                    alive.notify(1);
                });
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

/// For what `launch` does with a socket: monoio lends a descriptor only as a number.
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
    place: Option<Place>,
}

impl Client {
    fn new(shared: Shared, place: Place) -> Client {
        let session = Session::new(&shared.launch.settings, shared.launch.now());
        Client { shared, session, outbox: Outbox::default(), place: Some(place) }
    }

    /// In each turn: asks the protocol what to wait for, and waits until the first of that is done.
    async fn serve(mut self, socket: TcpStream) -> io::Result<()> {
        let (reads, writes) = socket.into_split();
        // What the kernel has begun, and otherwise the half of the socket with its buffer.
        let (mut receiving, mut sending) = (pin!(None), pin!(None));
        let mut reads = Some((reads, vec![0; self.buffer_len()]));
        let mut writes = Some((writes, Vec::new()));
        let mut notified = self.shared.stop.listen();
        let mut timer = pin!(sleep(Duration::ZERO));
        let mut timer_at = Time::NEVER;
        let result = loop {
            // While a receive is under way nothing is unread.
            let (read, deadline) = match self.next(|| reads.is_some()) {
                Plan::Wait { read, until } => (read, until),
                Plan::Shut => {
                    if let Some((writes, _)) = &mut writes {
                        let _ = writes.shutdown().await; // Fails if the peer has gone.
                    }
                    continue;
                }
                Plan::Close => break Ok(()),
            };
            if deadline < timer_at {
                timer_at = deadline;
                timer.set(sleep(deadline.after(self.shared.launch.now())));
            }
            if let Some((half, buffer)) = reads.take_if(|_| read) {
                receiving.set(Some(receive(half, buffer)));
            }
            if let Some((half, batch)) = writes.take_if(|_| !self.outbox.is_empty()) {
                sending.set(Some(send(half, self.batch(batch), 0)));
            }

            let sent = async { Woken::Sent(maybe(sending.as_mut().as_pin_mut()).await) };
            let received = async { Woken::Received(maybe(receiving.as_mut().as_pin_mut()).await) };
            let fires = async {
                maybe((timer_at < Time::NEVER).then_some(timer.as_mut())).await;
                Woken::Timer
            };
            let stops = async {
                (&mut notified).await;
                Woken::Stopped
            };
            match sent.or(stops).or(received).or(fires).await {
                Woken::Sent((Ok(len), half, batch, from)) => {
                    sending.set(None);
                    match self.sent(len, batch, from) {
                        (batch, _) if batch.is_empty() => writes = Some((half, batch)),
                        (batch, from) => sending.set(Some(send(half, batch, from))),
                    }
                }
                Woken::Received((Ok(len), half, buffer)) => {
                    receiving.set(None);
                    self.received(&buffer[..len]);
                    reads = Some((half, buffer));
                }
                Woken::Sent((Err(error), ..)) | Woken::Received((Err(error), ..)) => {
                    break Err(error);
                }
                Woken::Timer => timer_at = Time::NEVER,
                Woken::Stopped => notified = self.shared.stop.listen(),
            }
            self.shared.counters.wakeups.add(1);
        };
        // The place is free before the peer sees the connection close: it can connect again at
        // once.
        drop(self.place.take());
        result
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

    /// All that is queued, in one buffer. The outbox is asked also when it is empty: until then it
    /// counts what was taken from it last.
    fn batch(&mut self, mut buffer: Vec<u8>) -> Vec<u8> {
        buffer.clear();
        for slice in self.outbox.take().slices() {
            buffer.extend_from_slice(slice);
        }
        buffer
    }

    /// Some of `batch` has been sent. Returns what to send next: its rest, or what has been queued
    /// meanwhile, if anything has.
    fn sent(&mut self, len: usize, batch: Vec<u8>, from: usize) -> (Vec<u8>, usize) {
        self.shared.counters.bytes_out.add(len as u64);
        if from + len < batch.len() {
            self.shared.counters.would_blocks.add(1);
            return (batch, from + len);
        }
        (self.batch(batch), 0)
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
    Sent((io::Result<usize>, Writes, Vec<u8>, usize)),
    Received((io::Result<usize>, Reads, Vec<u8>)),
    Timer,
    Stopped,
}

async fn receive(mut half: Reads, buffer: Vec<u8>) -> (io::Result<usize>, Reads, Vec<u8>) {
    let (result, buffer) = half.read(buffer).await;
    (result, half, buffer)
}

/// Sends what the socket takes of `batch` after its first `from` bytes.
async fn send(
    mut half: Writes,
    batch: Vec<u8>,
    from: usize,
) -> (io::Result<usize>, Writes, Vec<u8>, usize) {
    let (result, slice) = half.write(batch.slice(from..)).await;
    (result, half, slice.into_inner(), from)
}

/// Waits for a future if there is one, and otherwise for ever.
async fn maybe<F: Future + Unpin>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}
