//! The ring as compio is told to set it up, and what it sends from.

use std::num::NonZero;

use compio::buf::{IoBuf, IoVectoredBuf};
use compio::driver::ProactorBuilder;
use compio::runtime::{Runtime, RuntimeBuilder};
use launch::Failure;
use protocol::Outbox;

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
pub(crate) fn runtime() -> Result<Runtime, Failure> {
    let mut ring = ProactorBuilder::new();
    // Without TASKRUN_FLAG: while it is raised, compio does not ask for completions, and those that
    // are deferred never come.
    ring.cqsize(COMPLETIONS).single_issuer(true).defer_taskrun(true);
    ring.buffer_pool_size(BUFFERS).buffer_pool_buffer_len(BUFFER_LEN);
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
