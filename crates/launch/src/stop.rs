//! SIGTERM, SIGINT, SIGUSR1 and SIGHUP.

use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use protocol::Time;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{Failure, Launch, texts};

/// Whether the server was told to stop.
#[derive(Default)]
pub struct Stop(AtomicBool);

impl Stop {
    /// Whether it was. The model's own wake-up says when to look.
    #[must_use]
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// Says so. Why this and [`Stop::requested`] are sequentially consistent, see
    /// [`crate::RecvWait`].
    pub(crate) fn request(&self) {
        self.0.store(true, Ordering::SeqCst);
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

/// For a server that has something to read anew: SIGHUP waits as the others do. Where it has not,
/// the signal stays as it is: it ends the server with its terminal, or is ignored for `nohup`. Call
/// it before there is a second thread.
pub(crate) fn block_hangup() {
    let _ = SigSet::from_iter([Signal::SIGHUP]).thread_block();
}

/// Sets which signals are blocked, whatever was inherited. SIGTERM, SIGINT and SIGUSR1 interrupt
/// nothing, and wait until the thread below asks for them. A signal that is blocked is queued even
/// where the process has inherited that it is ignored.
///
/// SIGXFSZ is never asked for. It says that a file, which standard error may be, has reached the
/// limit of its size, and would end the server. Blocked, it leaves the write to fail.
pub(crate) fn set_signal_mask() {
    let mut waiting = signals();
    waiting.add(Signal::SIGXFSZ);
    // It fails only for a set that does not exist.
    let _ = waiting.thread_set_mask();
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
        let mut wanted = self.heeded();
        wanted.add(Signal::SIGCHLD);
        wanted.add(Signal::SIGALRM);
        loop {
            self.serve_manager_until(&wanted);
            match wanted.wait() {
                Ok(Signal::SIGUSR1) => return Heard::Report,
                Ok(Signal::SIGHUP) if !self.manager.is_main_process() => {}
                Ok(Signal::SIGHUP) => self.reload(),
                Ok(Signal::SIGCHLD | Signal::SIGALRM) => return Heard::Look,
                Ok(_) => {
                    if !self.stop.requested() {
                        self.manager.tell("STOPPING=1");
                    }
                    self.stop.request();
                    return Heard::Stop;
                }
                Err(_) => {}
            }
        }
    }

    /// The signals that are waited for.
    fn heeded(&self) -> SigSet {
        let mut signals = signals();
        if self.texts.as_ref().is_some_and(|texts| texts.are_in_files()) {
            signals.add(Signal::SIGHUP);
        }
        signals
    }

    /// Reads the texts of the chat anew.
    fn reload(&self) {
        let Some(texts) = &self.texts else { return };
        self.manager.tell_reloading();
        texts::tell(&self.log, texts.reload());
        self.manager.tell("READY=1");
    }

    /// Where a manager or the reader of metrics wants something beside, in the process that must
    /// not have a second thread: answers them until one of the signals has come. That this process
    /// turns is all that it can tell of itself; the processes of its children it does not know.
    fn serve_manager_until(&self, wanted: &SigSet) {
        if self.metrics.is_none() && self.watchdog.is_none() || !self.manager.is_main_process() {
            return;
        }
        let Ok(signals) = SignalFd::with_flags(wanted, SfdFlags::SFD_CLOEXEC) else { return };
        if let Some(listener) = &self.metrics {
            static TOLD: AtomicBool = AtomicBool::new(false);
            if !TOLD.swap(true, Ordering::Relaxed) {
                let _ = listener.set_nonblocking(true);
                self.tell_metrics(listener);
            }
        }
        let timeout = self.watchdog.and_then(|interval| Timespec::try_from(interval).ok());
        loop {
            if self.watchdog.is_some() && !self.stop.requested() {
                self.manager.tell("WATCHDOG=1");
            }
            let listener = self.metrics.iter().map(|it| PollFd::new(it, PollFlags::IN));
            let mut fds: Vec<_> =
                [PollFd::new(&signals, PollFlags::IN)].into_iter().chain(listener).collect();
            if poll(&mut fds, timeout.as_ref()).is_err() {
                continue;
            }
            if !fds[0].revents().is_empty() {
                return;
            }
            if let Some(listener) = self.metrics.as_ref().filter(|_| !fds[1].revents().is_empty()) {
                self.answer_one(listener);
            }
        }
    }
}

impl<E: Send + Sync + 'static> Launch<E> {
    /// Calls `wake` when the server is told to stop, from a thread that does nothing but wait for
    /// signals. What `wake` does to get the workers out of their wait is part of the model. The
    /// same thread answers SIGUSR1 with the counters, and ends the process when `--drain-timeout`
    /// has passed or at a second stop signal, whatever the workers do then.
    ///
    /// # Errors
    /// When no descriptor or thread can be had.
    pub fn on_stop(&'static self, wake: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
        let signals = SignalFd::with_flags(&self.heeded(), SfdFlags::SFD_CLOEXEC);
        let signals = signals.map_err(Failure::of("signalfd"))?;
        let thread = std::thread::Builder::new().name("signals".into()).stack_size(64 << 10);
        let heed = move || {
            self.wait_for_stop();
            let deadline = self.now() + self.drain_timeout;
            // Before any worker sees it: the last of them to end takes this thread along.
            self.log.info("told to stop: draining");
            self.manager.tell("STOPPING=1");
            self.stop.request();
            // On a thread of its own: whatever becomes of it, the deadline holds.
            let waker = std::thread::Builder::new().stack_size(64 << 10);
            if waker.spawn(wake).is_err() {
                self.log.warn("no thread to wake the workers: ends at the drain timeout");
            }

            if self.stops_again(&signals, deadline) {
                self.log.info("told to stop again: ends at once");
            }
            self.report_once();
            std::process::exit(0);
        };
        thread.spawn(heed).map_err(Failure::of("cannot start the signal thread"))?;
        self.start_metrics()?;
        self.start_watchdog()
    }

    /// Waits for a stop signal, and answers the others meanwhile. It waits for signals themselves,
    /// and not for a signalfd: the kernel wakes a thread that polls one at every signal that any
    /// thread gets, and with signal-driven I/O that is each segment.
    fn wait_for_stop(&self) {
        let signals = self.heeded();
        loop {
            if let Ok(signal) = signals.wait()
                && self.is_stop(signal)
            {
                return;
            }
        }
    }

    /// Whether a second stop signal comes before `deadline`. Answers the others meanwhile.
    fn stops_again(&self, signals: &SignalFd, deadline: Time) -> bool {
        loop {
            let left = deadline.timeout(self.now());
            if left.is_some_and(|left| left.is_zero()) {
                return false;
            }
            let timeout = left.and_then(|left| Timespec::try_from(left).ok());
            let mut fds = [PollFd::new(signals, PollFlags::IN)];
            if !poll(&mut fds, timeout.as_ref()).is_ok_and(|ready| ready > 0) {
                continue;
            }
            if let Ok(Some(info)) = signals.read_signal()
                && let Ok(signal) = Signal::try_from(info.ssi_signo.cast_signed())
                && self.is_stop(signal)
            {
                return true;
            }
        }
    }

    /// Whether the signal says to stop. Does what the others say.
    fn is_stop(&self, signal: Signal) -> bool {
        match signal {
            Signal::SIGUSR1 => self.report(),
            Signal::SIGHUP => self.reload(),
            _ => return true,
        }
        false
    }
}
