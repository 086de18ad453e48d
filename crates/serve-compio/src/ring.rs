//! The ring as compio is told to set it up, what it sends from, and who waits for that.

use std::mem;
use std::num::NonZero;

use compio::BufResult;
use compio::buf::{IoBuf, IoVectoredBuf};
use compio::driver::ProactorBuilder;
use compio::io::AsyncWrite;
use compio::net::TcpStream;
use compio::runtime::{Runtime, RuntimeBuilder};
use launch::{Failure, Launch};
use protocol::{Outbox, Time};

/// Buffers that the kernel receives into, for all of a worker's connections: together small enough
/// to stay in the cache.
const BUFFERS: NonZero<u16> = NonZero::new(128).unwrap();
const BUFFER_LEN: usize = 8 << 10;
/// Completions that the kernel can leave without setting any aside.
const COMPLETIONS: u32 = 4096;
/// Tasks run before the kernel is asked again.
const TASKS: usize = 256;
/// The most slices in one vectored write.
const SLICES: usize = 64;

/// A runtime for this thread. Nothing else than io_uring is compiled in, so it falls back to none.
pub(crate) fn runtime(launch: &Launch) -> Result<Runtime, Failure> {
    let mut ring = ProactorBuilder::new();
    // Without TASKRUN_FLAG: while it is raised, compio does not ask for completions, and those that
    // are deferred never come.
    ring.cqsize(COMPLETIONS).single_issuer(true).defer_taskrun(true);
    ring.buffer_pool_size(BUFFERS).buffer_pool_buffer_len(BUFFER_LEN.min(launch.read_size()));
    let built = RuntimeBuilder::new().with_proactor(ring).event_interval(TASKS).build();
    let built = built.and_then(|runtime| runtime.buffer_pool().map(|_| runtime));
    let because = |error| format!("io_uring cannot be had here: {error}; choose another server");
    built.map_err(|error| Failure::Unsupported(because(error)))
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
        self.0.slices().take(SLICES)
    }
}

/// One request for as much as the socket takes of what is queued.
pub(crate) async fn send(mut socket: &TcpStream, batch: Outbox) -> BufResult<usize, Batch> {
    let many = batch.slices().nth(1).is_some();
    if many { socket.write_vectored(Batch(batch)).await } else { socket.write(Batch(batch)).await }
}

/// Whether those who speak wait for what a member has queued: until the kernel has been asked what
/// it has sent, for before that nobody knows whether the peer reads.
#[derive(Default)]
pub(crate) struct Pace {
    /// They do.
    pressing: bool,
    /// The kernel was asked, and had sent nothing: nobody waits for a peer that does not read.
    pub(crate) stuck: bool,
    /// Something has been sent since they wait.
    moved: bool,
}

impl Pace {
    /// Says whether they did not wait already.
    pub(crate) fn press(&mut self) -> bool {
        self.moved &= self.pressing;
        !mem::replace(&mut self.pressing, true)
    }

    /// When to look, if not before `deadline`.
    pub(crate) fn deadline(&self, deadline: Time) -> Time {
        if self.pressing { Time::ZERO } else { deadline }
    }

    pub(crate) fn has_sent(&mut self) {
        (self.moved, self.stuck) = (true, false);
    }

    /// The kernel has been asked. Says whether they waited for that.
    pub(crate) fn relieve(&mut self, outbox: &Outbox) -> bool {
        let pressing = mem::take(&mut self.pressing);
        self.stuck |= pressing && !(self.moved || outbox.is_empty());
        pressing
    }
}
