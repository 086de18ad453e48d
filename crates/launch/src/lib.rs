//! What every server does before and after its loop: flags, limits, sockets, stop signals,
//! counters, exit codes and the log. Nothing here waits for a connection: that is the model's.
//!
//! It knows the plain values of `protocol` ([`protocol::Settings`], [`protocol::Time`]) and
//! nothing of what the protocol does with them.

mod config;
mod counters;
mod files;
mod flags;
mod gate;
mod io_slices;
mod log;
mod manager;
mod metrics;
mod operators;
mod recv_wait;
mod socket;
mod stop;
mod texts;
mod watch;
mod watchdog;

use std::fmt::Display;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use protocol::{Done, Settings, Time};

pub use counters::{Counter, Counters};
pub use flags::{NoExtra, durations, numbers};
pub use gate::{Place, network_of};
pub use io_slices::{IoSlices, MOST_SLICES};
pub use log::Log;
pub use recv_wait::RecvWait;
pub use socket::{accept_nonblocking, is_busy, is_shortage};
pub use stop::{Heard, Stop, block_child_signals};

/// Locks. A panic ends the process, so no lock is found poisoned.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a server ends other than by being asked to. The text is one line that says what to do.
#[derive(Debug)]
pub enum Failure {
    /// It failed while running, or could not start: exit code 1.
    Failed(String),
    /// It was started in a wrong way: exit code 2.
    Usage(String),
    /// This model cannot run here, and why: exit code 3.
    Unsupported(String),
}

impl Failure {
    /// A failure while `doing` something: `Failure::of("epoll_wait")` maps an error to it.
    pub fn of<E: Display>(doing: &str) -> impl Fn(E) -> Failure + '_ {
        move |error| Failure::Failed(format!("{doing}: {error}"))
    }

    fn text(&self) -> &str {
        let (Failure::Failed(text) | Failure::Usage(text) | Failure::Unsupported(text)) = self;
        text
    }

    fn exit_code(&self) -> u8 {
        match self {
            Failure::Failed(_) => 1,
            Failure::Usage(_) => 2,
            Failure::Unsupported(_) => 3,
        }
    }
}

/// All that a server is told and given, for its whole life. `E` is what the model's own flags
/// parse to.
pub struct Launch<E = NoExtra> {
    /// What the protocol is told.
    pub settings: Arc<Settings>,
    /// How many loops, processes or runtime threads to run.
    pub workers: usize,
    /// How long a stop may take.
    pub drain_timeout: Duration,
    /// Standard error.
    pub log: Log,
    /// Whether and when the server was told to stop.
    pub stop: Stop,
    /// The model's own flags.
    pub extra: E,
    gate: gate::Gate,
    connections_asked_for: Option<usize>,
    socket: socket::Wanted,
    manager: manager::Manager,
    bound: OnceLock<Vec<SocketAddr>>,
    metrics: Option<TcpListener>,
    /// How often the manager is given a sign of life.
    watchdog: Option<Duration>,
    /// In chat only.
    texts: Option<Arc<texts::Texts>>,
    tally: Arc<counters::Tally>,
    work: Duration,
    started: Instant,
}

/// The most bytes read from one connection in one turn, in all models: the budget that keeps one
/// from starving the others.
pub const READ_SIZE: usize = 64 << 10;

impl<E> Launch<E> {
    /// Now, since the start of the server. Read it once per turn of the loop.
    #[must_use]
    pub fn now(&self) -> Time {
        let nanos = self.started.elapsed().as_nanos();
        Time::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// The counters of one worker, or of one of many threads or tasks: on cache lines that it
    /// shares with no other, or with few.
    #[must_use]
    pub fn counters(&self, which: usize) -> &Counters {
        let counters = self.tally.all();
        &counters[which % counters.len()]
    }

    /// For a model of several processes: counts in `counters`, memory that all of them share, so
    /// that one process can tell the sum. Call it before anything is counted; only the first call
    /// has an effect.
    pub fn share_counters(&self, counters: &'static [Counters]) {
        if !counters.is_empty() {
            self.tally.share(counters);
        }
    }

    /// Counts what has been done, and does the work of `--work` for the lines among it. Call it
    /// before the replies are written.
    pub fn account(&self, done: Done, counters: &Counters) {
        counters.lines.add(done.lines);
        if done.slow_cut + done.timed_out > 0 {
            counters.slow_cut.add(done.slow_cut);
            counters.timed_out.add(done.timed_out);
        }
        self.burn(done.lines);
    }

    /// `--work`: burns its CPU time for each of `lines` lines, as a computation would.
    pub fn burn(&self, lines: u64) {
        if self.work.is_zero() || lines == 0 {
            return;
        }
        let enough = self.work * u32::try_from(lines).unwrap_or(u32::MAX);
        let start = Instant::now();
        while start.elapsed() < enough {
            std::hint::spin_loop();
        }
    }

    /// Ends the process at once with the failure of one worker.
    pub fn abort(&self, failure: &Failure) -> ! {
        self.log.failure(failure);
        std::process::exit(failure.exit_code().into())
    }

    /// Prints the counters. [`Launch::on_stop`] does so when SIGUSR1 asks for it, and [`main`] at
    /// the end: this is for a process that waits for signals by itself.
    pub fn report(&self) {
        self.log.counters(&counters::total(&self.tally, &self.now_told()));
    }

    pub(crate) fn metrics_text(&self) -> String {
        counters::open_metrics(&self.tally, &self.now_told())
    }

    fn now_told(&self) -> counters::Now {
        let connections = if self.tally.are_shared() {
            let gone = self.tally.sum(|c| &c.refused) + self.tally.sum(|c| &c.ended);
            self.tally.sum(|c| &c.accepts).saturating_sub(gone)
        } else {
            self.gate.inside() as u64
        };
        counters::Now { connections, uptime: self.started.elapsed() }
    }

    /// The last report. The main thread and the signal thread may both come to it.
    fn report_once(&self) {
        static DONE: AtomicBool = AtomicBool::new(false);
        if !DONE.swap(true, Ordering::AcqRel) {
            self.report();
        }
    }
}

impl<E: Send + Sync + 'static> Launch<E> {
    /// Runs each of `workers` on a thread of its own, says where the server listens, and returns
    /// when all have ended. The failure of one ends the process.
    ///
    /// # Errors
    /// When a thread cannot be had.
    pub fn run_each<W: Send + 'static>(
        &'static self,
        workers: Vec<W>,
        run: fn(W) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.run_each_when(workers, run, || Ok(()))
    }

    /// As [`Launch::run_each`], for workers that may still fail to start on their threads: says
    /// where the server listens once `ready` has returned.
    ///
    /// # Errors
    /// When a thread cannot be had, or that of `ready`.
    pub fn run_each_when<W: Send + 'static>(
        &'static self,
        workers: Vec<W>,
        run: fn(W) -> Result<(), Failure>,
        ready: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut threads = Vec::new();
        for worker in workers {
            let run = move || {
                if let Err(failure) = run(worker) {
                    self.abort(&failure);
                }
            };
            threads.push(thread::Builder::new().spawn(run).map_err(Failure::of("thread"))?);
        }
        ready()?;
        self.announce();
        for thread in threads {
            // It does not fail: a panic ends the process.
            let _ = thread.join();
        }
        Ok(())
    }
}

/// The `main` of every server: parses the flags, prepares the process, calls `serve`, and turns
/// what it returns into the exit code and the last line of the log.
///
/// `name` is the program's, `about` one sentence on its model for `--help`.
pub fn main<E: clap::Args + Send + Sync + 'static>(
    name: &'static str,
    about: &'static str,
    serve: impl FnOnce(&'static Launch<E>) -> Result<(), Failure>,
) -> ExitCode {
    // First of all, so that every thread to come inherits it: stop signals are waited for.
    // Descriptors 0, 1 and 2 are taken by now: where one of them was closed, the standard library
    // has opened /dev/null, so that no socket can be taken for standard output or error.
    stop::set_signal_mask();
    let early = Log::before_flags(name, std::env::args_os());
    end_on_panic(early);
    let launch = match flags::parse::<E>(name, about) {
        Ok(launch) => &*Box::leak(Box::new(launch)),
        Err(flags::Early::Help(text)) => {
            return print_help(&text);
        }
        Err(flags::Early::Failure(failure)) => {
            early.failure(&failure);
            return ExitCode::from(failure.exit_code());
        }
    };
    if launch.texts.as_ref().is_some_and(|texts| texts.are_in_files()) {
        stop::block_hangup();
    }
    let result = serve(launch);
    if result.is_ok() {
        // A thread or a task may still be on its way out, with the end of its connection to log.
        launch.gate.await_empty(LAST_ENDS);
    }
    // A server that never came to listen has nothing to tell.
    if ANNOUNCED.load(Ordering::Relaxed) {
        launch.report_once();
    }
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            launch.log.failure(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}

/// It is no error when the reader of the help ends early (`| head`); a full disk is one.
fn print_help(text: &str) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

/// How long to wait for connections that a server has let go of when it ends.
const LAST_ENDS: Duration = Duration::from_secs(1);

/// Whether the server has said where it listens.
static ANNOUNCED: AtomicBool = AtomicBool::new(false);

/// A panic is a bug of ours. It ends the whole process: a server that has lost one of its threads
/// would look alive and leave its clients waiting. So no lock is ever found poisoned.
///
/// Only before it listens is a panic no bug: runtimes have no other way to say that there is no
/// thread to be had. That is one line like any other failure to start.
fn end_on_panic(log: Log) {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if ANNOUNCED.load(Ordering::Relaxed) && !log.is_json() {
            tell(panic);
        } else {
            let text = panic.to_string().replace('\n', " ");
            log.failure(&Failure::Failed(text));
        }
        std::process::exit(1);
    }));
}
