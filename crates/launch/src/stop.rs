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

/// A signal that [`Launch::next_signal`] has waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// SIGTERM or SIGINT: stop, or stop at once if it was heard before.
    Stop,
    /// SIGUSR1: tell the counters.
    Report,
    /// SIGCHLD or SIGALRM: a child has ended, or it is time to look.
    Look,
}

fn signals() -> SigSet {
    SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1])
}

/// Keeps the signals from interrupting anything: they wait until the thread below asks for them.
pub(crate) fn block_signals() {
    // It fails only for a set that does not exist.
    let _ = signals().thread_block();
}

/// For a model of several processes: SIGCHLD and SIGALRM wait as well, until
/// [`Launch::next_signal`] asks for them. Call it before the first child is there.
pub fn block_child_signals() {
    let _ = SigSet::from_iter([Signal::SIGCHLD, Signal::SIGALRM]).thread_block();
}

impl<E> Launch<E> {
    /// Waits for a signal, instead of [`Launch::on_stop`]: for a process that must not have a
    /// second thread because it forks.
    pub fn next_signal(&self) -> Heard {
        let mut wanted = signals();
        wanted.add(Signal::SIGCHLD);
        wanted.add(Signal::SIGALRM);
        loop {
            match wanted.wait() {
                Ok(Signal::SIGUSR1) => return Heard::Report,
                Ok(Signal::SIGCHLD | Signal::SIGALRM) => return Heard::Look,
                Ok(_) => {
                    self.stop.0.store(true, Ordering::Release);
                    return Heard::Stop;
                }
                Err(_) => {}
            }
        }
    }
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
                        wake();
                        self.log.info("told to stop: draining");
                    }
                    Err(_) => {}
                }
            }
        };
        let thread = std::thread::Builder::new().name("signals".into()).stack_size(64 << 10);
        thread.spawn(wait).map(drop).map_err(Failure::of("cannot start the signal thread"))
    }
}
