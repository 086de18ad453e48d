//! The threads that run the tasks: one executor, and any of them runs any of its tasks.

use std::cell::Cell;
use std::thread;

use launch::Failure;
use smol::future::{self, pending};
use smol::{Async, Executor};

use crate::{Shared, accept};

/// What the tasks are spawned on.
pub(crate) static EXECUTOR: Executor<'static> = Executor::new();

thread_local! {
    static INDEX: Cell<usize> = const { Cell::new(0) };
}

/// Which of the threads that run tasks this one is.
pub(crate) fn index() -> usize {
    INDEX.get()
}

/// Runs a task that accepts for each listener, and all tasks that it starts, until the server has
/// stopped: on as many threads as --workers.
pub(crate) fn run(shared: &'static Shared) -> Result<(), Failure> {
    let launch = shared.launch;
    let mut accepting = Vec::new();
    for listener in launch.listeners()? {
        let listener = Async::new(listener).map_err(Failure::of("listener"))?;
        accepting.push(EXECUTOR.spawn(accept(shared, listener)));
    }
    for index in 0..launch.workers {
        let run = move || {
            INDEX.set(index);
            smol::block_on(EXECUTOR.run(pending::<()>()))
        };
        thread::Builder::new().spawn(run).map_err(Failure::of("thread"))?;
    }
    launch.announce();
    for task in accepting {
        // Not `smol::block_on`: it would wait in `epoll_wait` in place of a thread that runs tasks.
        future::block_on(task);
    }
    Ok(())
}
