//! The runtimes that run the tasks: tokio's three flavours.

use std::cell::Cell;
use std::io::{self, IoSlice};

use launch::Failure;
use rustix::net::{SendFlags, sendmsg};
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime, worker_index};
use tokio::task::JoinSet;

use crate::{Shared, accept};

pub(crate) type Launch = launch::Launch<Extra>;

#[derive(clap::Args)]
pub(crate) struct Extra {
    /// Who runs the tasks
    #[arg(long, value_enum, default_value = "current-thread")]
    flavor: Flavor,
}

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum Flavor {
    /// One thread
    CurrentThread,
    /// As many threads as --workers, which steal tasks from each other
    MultiThread,
    /// A single-threaded runtime on each of --workers threads, each with its own listener
    PerCore,
}

thread_local! {
    /// Which runtime this thread runs, if there is one for each thread.
    static RUNTIME: Cell<usize> = const { Cell::new(0) };
}

/// Which of the threads that run tasks this one is. At least one of the two numbers is zero:
/// `RUNTIME` counts the runtimes of `PerCore`, `worker_index` the threads of `MultiThread`.
pub(crate) fn index() -> usize {
    RUNTIME.get() + worker_index().unwrap_or(0)
}

/// As `try_write_vectored`, which does not ask the kernel while tokio remembers that the socket
/// takes no more. The kernel tells of room only when much of the buffer is free. Until then a peer
/// that reads slowly would look like one that does not read, and be closed as silent.
pub(crate) fn write(socket: &TcpStream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    let write = || Ok(sendmsg(socket, slices, &mut Default::default(), SendFlags::NOSIGNAL)?);
    let mut asked = false;
    // If the kernel takes nothing, tokio remembers that.
    let written = socket.try_io(Interest::WRITABLE, || {
        asked = true;
        write()
    });
    if asked { written } else { write() }
}

/// Runs a task that accepts for each listener, and all tasks that it starts, until the server has
/// stopped.
pub(crate) fn run(shared: &'static Shared) -> Result<(), Failure> {
    let launch = shared.launch;
    let flavor = launch.extra.flavor;
    if flavor == Flavor::CurrentThread && launch.workers > 1 {
        let hint = "for more --workers choose --flavor multi-thread or per-core";
        return Err(Failure::Usage(format!("--flavor current-thread is one thread: {hint}")));
    }

    let per_core = flavor == Flavor::PerCore;
    let listeners = if per_core { launch.listeners_each()? } else { vec![launch.listeners()?] };
    let mut workers = Vec::new();
    for (index, listeners) in listeners.into_iter().enumerate() {
        let mut builder = match flavor {
            Flavor::MultiThread => Builder::new_multi_thread(),
            Flavor::CurrentThread | Flavor::PerCore => Builder::new_current_thread(),
        };
        // A single-threaded runtime ignores their number.
        builder.worker_threads(launch.workers).enable_io().enable_time();
        let runtime = builder.build().map_err(Failure::of("runtime"))?;
        let listeners = register(&runtime, listeners).map_err(Failure::of("listener"))?;
        workers.push(Worker { shared, index, runtime, listeners });
    }
    launch.run_each(workers, Worker::run)
}

/// Before the server says that it listens: then nothing can fail any more.
fn register(
    runtime: &Runtime,
    listeners: Vec<std::net::TcpListener>,
) -> io::Result<Vec<TcpListener>> {
    let _inside = runtime.enter();
    let mut registered = Vec::new();
    for listener in listeners {
        listener.set_nonblocking(true)?;
        registered.push(TcpListener::from_std(listener)?);
    }
    Ok(registered)
}

/// A runtime, and the listeners that it serves.
struct Worker {
    shared: &'static Shared,
    index: usize,
    runtime: Runtime,
    listeners: Vec<TcpListener>,
}

impl Worker {
    fn run(self) -> Result<(), Failure> {
        RUNTIME.set(self.index);
        // The main task of a runtime of many threads runs on none of them, so it only waits.
        self.runtime.block_on(async {
            let mut accepting = JoinSet::new();
            for listener in self.listeners {
                accepting.spawn(accept(self.shared, listener));
            }
            accepting.join_all().await;
            Ok(())
        })
    }
}
