//! What every server does before and after its loop: flags, limits, sockets, stop signals,
//! counters, exit codes and the log. Nothing here waits for a connection: that is the model's.
//!
//! It knows the plain values of `protocol` ([`protocol::Settings`], [`protocol::Time`]) and
//! nothing of what the protocol does with them.

mod counters;
mod flags;
mod gate;
mod log;
mod socket;
mod stop;

use std::fmt::Display;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use protocol::{Settings, Time};

pub use counters::{Counter, Counters};
pub use flags::NoExtra;
pub use gate::Place;
pub use log::Log;
pub use socket::{has_unread, is_shortage};
pub use stop::{Heard, Stop, block_child_signals};

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
    bound: OnceLock<SocketAddr>,
    counters: Vec<Counters>,
    /// Counters that several processes share, instead of those above.
    shared_counters: OnceLock<&'static [Counters]>,
    work: Duration,
    started: Instant,
}

/// The most bytes read from one connection in one turn, in all models: [`Launch::read_size`] says
/// how many here.
pub const READ_SIZE: usize = 64 << 10;

impl<E> Launch<E> {
    /// How many bytes to read from one connection in one turn: the budget that keeps one from
    /// starving the others. With `--work` it is small, since the time that a turn takes is then a
    /// matter of lines, of which each byte may be one.
    #[must_use]
    pub fn read_size(&self) -> usize {
        if self.work.is_zero() { READ_SIZE } else { 1 << 10 }
    }

    /// Now, since the start of the server. Read it once per turn of the loop.
    #[must_use]
    pub fn now(&self) -> Time {
        let nanos = self.started.elapsed().as_nanos();
        Time::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// The counters of one worker, or of one of many threads or tasks: on cache lines that it
    /// shares with nobody, or with few.
    #[must_use]
    pub fn counters(&self, which: usize) -> &Counters {
        let counters = self.all_counters();
        &counters[which % counters.len()]
    }

    fn all_counters(&self) -> &[Counters] {
        self.shared_counters.get().copied().unwrap_or(&self.counters)
    }

    /// For a model of several processes: counts in `counters`, memory that all of them share, so
    /// that one process can tell the sum. Call it before anything is counted; only the first call
    /// has an effect.
    pub fn share_counters(&self, counters: &'static [Counters]) {
        if !counters.is_empty() {
            self.shared_counters.get_or_init(|| counters);
        }
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
        self.log.counters(self.all_counters());
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
    stop::block_signals();
    end_on_panic(name);
    let launch = match flags::parse::<E>(name, about) {
        Ok(launch) => &*Box::leak(Box::new(launch)),
        Err(flags::Early::Help(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(flags::Early::Failure(failure)) => {
            Log::new(name, log::Format::Text).failure(&failure);
            return ExitCode::from(failure.exit_code());
        }
    };
    let result = serve(launch);
    // A server that never came to listen has nothing to tell.
    if ANNOUNCED.load(Ordering::Relaxed) {
        launch.report();
    }
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            launch.log.failure(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Whether the server has said where it listens.
static ANNOUNCED: AtomicBool = AtomicBool::new(false);

/// A panic is a bug of ours. It ends the whole process: a server that has lost one of its threads
/// would look alive and leave its clients waiting. So no lock is ever found poisoned.
///
/// Only before it listens is a panic no bug: runtimes have no other way to say that there is no
/// thread to be had. That is one line like any other failure to start.
fn end_on_panic(name: &'static str) {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if ANNOUNCED.load(Ordering::Relaxed) {
            tell(panic);
        } else {
            let text = panic.to_string().replace('\n', " ");
            Log::new(name, log::Format::Text).failure(&Failure::Failed(text));
        }
        std::process::exit(1);
    }));
}
