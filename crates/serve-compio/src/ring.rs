//! The ring as compio is told to set it up, and what it sends from.

use std::io::{self, ErrorKind};
use std::num::NonZero;
use std::sync::mpsc::Sender;
use std::time::Duration;

use compio::BufResult;
use compio::buf::{IoBuf, IoVectoredBuf};
use compio::driver::ProactorBuilder;
use compio::driver::op::OpCodeFlag;
use compio::io::AsyncWrite;
use compio::net::TcpStream;
use compio::runtime::{Runtime, RuntimeBuilder};
use launch::{Failure, Launch, MOST_SLICES};
use protocol::Outbox;

/// Buffers that the kernel receives into, for all of a worker's connections: together small enough
/// to stay in the cache.
const BUFFERS: NonZero<u16> = NonZero::new(128).unwrap();
const BUFFER_LEN: usize = 8 << 10;
/// Completions that the kernel can leave without setting any aside.
const COMPLETIONS: u32 = 4096;
/// Tasks run before the kernel is asked again.
const TASKS: usize = 256;

/// Says whether the kernel can be asked at all, and for what: where it cannot, the runtime panics.
pub(crate) fn probe() -> Result<(), Failure> {
    let mut small = ProactorBuilder::new();
    let asked = small.capacity(2).build().and_then(|mut driver| driver.poll(Some(Duration::ZERO)));
    match asked {
        Err(error) if error.kind() != ErrorKind::TimedOut => return Err(unavailable(&error)),
        _ => {}
    }
    // What it can be asked for, the runtime finds out once, with a ring that it has only for that.
    // When that fails, later, it takes it for nothing.
    small.detect_opcode_support(OpCodeFlag::basic());
    small.build().map(drop).map_err(|error| unavailable(&error))
}

/// A runtime for this thread. Nothing else than io_uring is compiled in, so it falls back to none.
/// It tells `ready` whether it is there; if not, the main thread ends the process.
pub(crate) fn runtime(
    launch: &'static Launch,
    ready: &Sender<Result<(), Failure>>,
) -> Option<Runtime> {
    let mut ring = ProactorBuilder::new();
    // Without TASKRUN_FLAG: while it is raised, compio does not ask for completions, and those that
    // are deferred never come.
    ring.cqsize(COMPLETIONS).single_issuer(true).defer_taskrun(true);
    // With --work a receive brings no more lines than are worked on in one step. compio does not
    // ask for completions in a turn that a timer began. So were each step to wait for a timer, two
    // busy connections would be enough that the kernel is never asked.
    let most = usize::try_from(launch.settings.step_lines).unwrap_or(BUFFER_LEN);
    ring.buffer_pool_size(BUFFERS).buffer_pool_buffer_len(BUFFER_LEN.min(most));
    let mut runtime = RuntimeBuilder::new();
    runtime.with_proactor(ring).event_interval(TASKS);
    // Tasks that another thread wakes come through this queue, each once: those of members whom a
    // task of another worker has something for, and all at a stop. A thread that finds the queue
    // full spins until this one has emptied it, and holds the task's `Event` locked meanwhile. This
    // one may wait for just that lock, or spin likewise. So there is a place for every task.
    runtime.sync_queue_size(launch.max_connections() + TASKS);
    let built = runtime.build();
    let built = built.and_then(|runtime| runtime.buffer_pool().map(|_| runtime));
    let _ = ready.send(built.as_ref().map(drop).map_err(unavailable));
    built.ok()
}

/// Why there is no ring, and what to do.
fn unavailable(error: &io::Error) -> Failure {
    let hint = match error.kind() {
        ErrorKind::OutOfMemory => {
            "raise the limit of locked memory (`ulimit -l`) or use fewer --workers"
        }
        _ => "choose another server",
    };
    Failure::Unsupported(format!("io_uring is not available here: {error}; {hint}"))
}

/// What the kernel sends from: it comes back when that is done.
pub(crate) struct Batch(pub(crate) Outbox);

impl IoBuf for Batch {
    fn as_init(&self) -> &[u8] {
        self.0.slices().next().unwrap_or_default()
    }
}

impl IoVectoredBuf for Batch {
    fn iter_slice(&self) -> impl Iterator<Item = &[u8]> {
        self.0.slices().take(MOST_SLICES)
    }
}

/// One request for as much as the socket takes of what is queued.
pub(crate) async fn send(mut socket: &TcpStream, batch: Outbox) -> BufResult<usize, Batch> {
    let many = batch.slices().nth(1).is_some();
    if many { socket.write_vectored(Batch(batch)).await } else { socket.write(Batch(batch)).await }
}
