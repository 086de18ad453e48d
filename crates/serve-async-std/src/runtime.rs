//! The threads that run the tasks: those of async-std's one executor.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_global_executor::{GlobalExecutorConfig, init_with_config};
use async_std::net::TcpListener;
use async_std::task;
use futures_lite::future;
use launch::Failure;

use crate::{Shared, accept};

/// How many threads have run a task.
static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static INDEX: usize = THREADS.fetch_add(1, Ordering::Relaxed);
}

/// Which of the threads that run tasks this one is.
pub(crate) fn index() -> usize {
    INDEX.with(|index| *index)
}

/// Runs a task that accepts for each listener, and all tasks that it starts, until the server has
/// stopped: on as many threads as --workers.
pub(crate) fn run(shared: &'static Shared) -> Result<(), Failure> {
    let launch = shared.launch;
    // By itself async-std starts a thread for each core, or as many as a variable says; no variable
    // has an empty name.
    let threads = GlobalExecutorConfig::default().with_env_var("").with_min_threads(launch.workers);
    init_with_config(threads.with_max_threads(launch.workers));
    let mut accepting = Vec::new();
    for listener in launch.listeners()? {
        listener.set_nonblocking(true).map_err(Failure::of("listener"))?;
        accepting.push(task::spawn(accept(shared, TcpListener::from(listener))));
    }
    launch.announce();
    for task in accepting {
        // Not `task::block_on`: it would wait in `epoll_wait` in place of a thread that runs tasks.
        future::block_on(task);
    }
    Ok(())
}
