//! SIGTERM, SIGINT and SIGUSR1.

use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SigSet, Signal};

use crate::{Failure, Launch};

/// Whether the server was told to stop.
#[derive(Default)]
pub struct Stop(AtomicBool);

impl Stop {
    /// Whether it was. The model's own wake-up says when to look.
    #[must_use]
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

fn signals() -> SigSet {
    SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1])
}

/// Keeps the signals from interrupting anything: they wait until the thread below asks for them.
pub(crate) fn block_signals() {
    // It fails only for a set that does not exist.
    let _ = signals().thread_block();
}

impl<E: Send + Sync + 'static> Launch<E> {
    /// Calls `wake` when the server is told to stop, from a thread that does nothing but wait for
    /// signals. What `wake` does to get the workers out of their wait is part of the model. The
    /// same thread answers SIGUSR1 with the counters, and a second stop signal by ending the
    /// process at once.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn on_stop(&'static self, wake: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
        let mut wake = Some(wake);
        let wait = move || {
            loop {
                match signals().wait() {
                    Ok(Signal::SIGUSR1) => self.report(),
                    Ok(_) => {
                        self.stop.0.store(true, Ordering::Release);
                        let Some(wake) = wake.take() else {
                            self.log.info("told to stop again: ends at once");
                            self.report();
                            std::process::exit(0);
                        };
                        self.log.info("told to stop: draining");
                        wake();
                    }
                    Err(_) => {}
                }
            }
        };
        let thread = std::thread::Builder::new().name("signals".into()).stack_size(64 << 10);
        thread.spawn(wait).map(drop).map_err(Failure::of("cannot start the signal thread"))
    }
}
