//! How a case runs and how it ends: on a thread of its own, with a deadline enforced from outside.
//!
//! Everything that a case waits for is bounded by its deadline from inside. Should that fail (a
//! bug in the suite), the watchdog kills the servers, which wakes what waits for them, and
//! fails the case all the same. A failure names what was awaited and the server's last words.

use std::any::Any;
use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::env;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::panic::{self, AssertUnwindSafe};
use std::process::Stdio;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use libtest_mimic::Failed;

use crate::bare;
use crate::cases::Case;
use crate::models::Model;
use crate::network::Network;
use crate::server::{Log, Outcome, Process, Server, kill_group};
use crate::surroundings::{self, Surroundings};
use crate::traced::{self, Traced};
use crate::tracer::Fault;

/// How long a case may take, unless `CONFORMANCE_DEADLINE` (in seconds) says otherwise. Far more
/// than any needs on a loaded machine: it ends a hang, it does not judge speed.
const BUDGET: Duration = Duration::from_secs(240);

/// How many random scripts a case plays, unless `CONFORMANCE_SCRIPTS` says otherwise.
const SCRIPTS: u64 = 3;

/// How many malformed sessions a case holds, unless `CONFORMANCE_SESSIONS` says otherwise.
const SESSIONS: u64 = 200;

/// Which shell.
const SHELL: &str = "/bin/sh";

/// The loopback, and a port that the kernel picks.
const ANY_PORT: &str = "127.0.0.1:0";

/// What the watchdog grants beyond the budget before it steps in.
const GRACE: Duration = Duration::from_secs(5);

/// What a case is given: the server to start, its deadline, its random numbers.
pub(crate) struct Ctx {
    program: String,
    args: Vec<String>,
    seed: u64,
    pub(crate) watch: Arc<Watch>,
}

/// What the watchdog sees of a running case.
pub(crate) struct Watch {
    deadline: Instant,
    awaiting: Mutex<String>,
    servers: Mutex<Vec<Arc<Log>>>,
    /// What is between the clients and the server; `None`: nothing.
    network: Option<Network>,
}

impl Ctx {
    /// Starts the server in echo mode.
    #[track_caller]
    pub(crate) fn echo(&self, args: &[&str]) -> Server {
        self.echo_in(Surroundings::Usual, args)
    }

    /// Starts the server in chat mode.
    #[track_caller]
    pub(crate) fn chat(&self, args: &[&str]) -> Server {
        self.chat_in(Surroundings::Usual, args)
    }

    /// Starts the server in chat mode for members who say much at once.
    #[track_caller]
    pub(crate) fn busy_chat(&self, args: &[&str]) -> Server {
        self.chat(&[&["--no-flood-control"], args].concat())
    }

    /// Starts the server through a shell that runs `prelude` (a limit, a redirection) first.
    #[track_caller]
    pub(crate) fn echo_after(&self, prelude: &str, args: &[&str]) -> Server {
        self.echo_in_after(Surroundings::Usual, prelude, args)
    }

    /// The same in surroundings of its own.
    #[track_caller]
    pub(crate) fn echo_in_after(
        &self,
        surroundings: Surroundings,
        prelude: &str,
        args: &[&str],
    ) -> Server {
        let line = self.shell(prelude, self.command_line("echo", args));
        Server::start(&self.watch, surroundings, SHELL, &line)
    }

    /// Starts the server in chat mode through a shell that runs `prelude` first.
    #[track_caller]
    pub(crate) fn chat_after(&self, prelude: &str, args: &[&str]) -> Server {
        let line = self.shell(prelude, self.command_line("chat", args));
        Server::start(&self.watch, Surroundings::Usual, SHELL, &line)
    }

    /// Starts the server in echo mode through a shell that runs `prelude` first, where it can say
    /// nothing or may not come to listen. Waits until it does or has ended.
    #[track_caller]
    pub(crate) fn echo_unheard_after(&self, prelude: &str) -> Server {
        let addr = own_addr();
        let line = self.command_line("echo", &["--listen", &addr]);
        let process = self.program_beside(SHELL, &self.shell(prelude, line));
        Server::unheard(process, &addr)
    }

    /// The arguments with which a shell runs `prelude` and becomes the server.
    fn shell(&self, prelude: &str, args: Vec<String>) -> Vec<String> {
        let script = format!("{prelude}; exec \"$0\" \"$@\"");
        let mut command_line = vec!["-c".to_owned(), script, self.program.clone()];
        command_line.extend(args);
        command_line
    }

    /// Starts the server with these flags and no others, but for the port that the kernel picks.
    #[track_caller]
    pub(crate) fn start(&self, args: &[&str]) -> Server {
        let mut all = self.args.clone();
        all.extend(["--listen", ANY_PORT].iter().chain(args).map(|&arg| arg.to_owned()));
        Server::start(&self.watch, Surroundings::Usual, &self.program, &all)
    }

    /// Starts the server with these flags and no others.
    #[track_caller]
    pub(crate) fn flags(&self, args: &[&str]) -> Server {
        let all: Vec<String> =
            self.args.iter().cloned().chain(args.iter().map(|&arg| arg.to_owned())).collect();
        Server::start(&self.watch, Surroundings::Usual, &self.program, &all)
    }

    /// Starts the server through a shell that runs `prelude` first, with these flags and no others,
    /// to see it end.
    #[track_caller]
    pub(crate) fn outcome_after(&self, prelude: &str, args: &[&str]) -> Outcome {
        let all = self.args.iter().cloned().chain(args.iter().map(|&arg| arg.to_owned()));
        self.program_beside(SHELL, &self.shell(prelude, all.collect())).outcome()
    }

    /// Starts the server in echo mode in surroundings of its own.
    #[track_caller]
    pub(crate) fn echo_in(&self, surroundings: Surroundings, args: &[&str]) -> Server {
        let args = self.command_line("echo", args);
        Server::start(&self.watch, surroundings, &self.program, &args)
    }

    /// Starts the server in chat mode in surroundings of its own.
    #[track_caller]
    pub(crate) fn chat_in(&self, surroundings: Surroundings, args: &[&str]) -> Server {
        let args = self.command_line("chat", args);
        Server::start(&self.watch, surroundings, &self.program, &args)
    }

    /// Starts the server in echo mode from a process that does nothing else, and gives that one.
    #[track_caller]
    pub(crate) fn echo_held(&self, args: &[&str]) -> Server {
        let args = surroundings::holding(&self.program, &self.command_line("echo", args));
        Server::start(&self.watch, Surroundings::Usual, "/proc/self/exe", &args)
    }

    /// Starts the model bare, which takes an address and nothing else.
    #[track_caller]
    pub(crate) fn bare(&self) -> Server {
        bare::build(&self.program);
        Server::start(&self.watch, Surroundings::Usual, &self.program, &[ANY_PORT.to_owned()])
    }

    /// Starts the model bare through a shell that runs `prelude` (a limit) first.
    #[track_caller]
    pub(crate) fn bare_after(&self, prelude: &str) -> Server {
        bare::build(&self.program);
        let line = self.shell(prelude, vec![ANY_PORT.to_owned()]);
        Server::start(&self.watch, Surroundings::Usual, SHELL, &line)
    }

    /// Starts the server with these arguments only, to see it end.
    #[track_caller]
    pub(crate) fn spawn(
        &self,
        surroundings: Surroundings,
        args: &[&str],
        stdout: impl Into<Stdio>,
    ) -> Process {
        let mut all = self.args.clone();
        all.extend(args.iter().map(|&arg| arg.to_owned()));
        let command = surroundings::command(surroundings, &self.program);
        Process::spawn(&self.watch, command, &all, stdout.into())
    }

    /// Starts another program, which ends with the case.
    #[track_caller]
    pub(crate) fn program_beside(&self, program: &str, args: &[String]) -> Process {
        let command = surroundings::command(Surroundings::Usual, program);
        Process::spawn(&self.watch, command, args, Stdio::piped())
    }

    /// Starts the server in a mode where its system calls can be made to fail. Already at the start
    /// this call fails.
    #[track_caller]
    pub(crate) fn traced(&self, mode: &str, args: &[&str], first: Option<Fault>) -> Traced {
        traced::start(&self.watch, &self.program, &self.command_line(mode, args), first)
            .unwrap_or_else(|outcome| panic!("it does not start: {outcome:?}"))
    }

    /// The same where it may not come to listen.
    #[track_caller]
    pub(crate) fn traced_or_ends(&self, fault: Fault) -> Result<Traced, Outcome> {
        let args = self.command_line("echo", &[]);
        traced::start(&self.watch, &self.program, &args, Some(fault))
    }

    /// The arguments that make the program this model.
    pub(crate) fn args(&self) -> &[String] {
        &self.args
    }

    /// The program under test, for cases that start it in a way of their own.
    pub(crate) fn program(&self) -> &str {
        &self.program
    }

    /// Random numbers that the same seed repeats for this case, whatever else runs.
    pub(crate) fn rng(&self) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.seed)
    }

    fn command_line(&self, mode: &str, args: &[&str]) -> Vec<String> {
        let mut all = self.args.clone();
        // A case that needs an address of its own says so; a flag may stand only once.
        if !args.contains(&"--listen") {
            all.extend(["--listen", ANY_PORT].map(str::to_owned));
        }
        all.extend(["--mode", mode].map(str::to_owned));
        all.extend(args.iter().map(|&arg| arg.to_owned()));
        all
    }
}

impl Watch {
    pub(crate) fn new(network: Option<Network>) -> Self {
        Self {
            deadline: Instant::now() + budget(),
            awaiting: Mutex::new("nothing yet".to_owned()),
            servers: Mutex::default(),
            network,
        }
    }

    /// Where a client connects in order to reach the server at this address.
    pub(crate) fn door(&self, server: SocketAddr) -> SocketAddr {
        self.network.as_ref().map_or(server, |network| network.door(server))
    }

    /// Says what the case waits for from here on, and how long it may.
    ///
    /// # Panics
    ///
    /// When the case's time is up: there is nothing left to wait for.
    #[track_caller]
    pub(crate) fn awaiting(&self, what: &str) -> Duration {
        let mut awaiting = lock(&self.awaiting);
        if *awaiting != what {
            what.clone_into(&mut awaiting);
        }
        drop(awaiting);
        let left = self.deadline.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "deadline passed while waiting for {what}");
        left
    }

    /// Waits until `condition` holds. For states that no event announces (descriptors in /proc, a
    /// process that has stopped): looks again after a nap, and what ends it is the state alone.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        while !condition() {
            self.awaiting(what);
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn add(&self, log: Arc<Log>) {
        lock(&self.servers).push(log);
    }
}

/// An address of the loopback that is this case's own, with a port that the kernel picks. For a
/// case that comes back to a port which was free for a while: at the usual address, another case,
/// which runs beside it, might have been given that port. And for a server that cannot say where it
/// listens: nothing else does so at this address.
pub(crate) fn own_addr() -> String {
    let [a, b, c] = [fastrand::u8(64..128), fastrand::u8(..), fastrand::u8(1..255)];
    format!("127.{a}.{b}.{c}:0")
}

/// Runs one case to its end and tells the harness how it went.
pub(crate) fn run(case: Case, model: &Model, program: &str, seed: u64) -> Result<(), Failed> {
    let name = format!("{}::{}", model.name, case.name);
    let case_seed = hash(&(seed, case.name));
    let watch = Arc::new(Watch::new(model.far.then(|| Network::new(case_seed))));
    let ctx = Ctx {
        program: program.to_owned(),
        args: model.args.clone(),
        seed: case_seed,
        watch: Arc::clone(&watch),
    };
    let (done, ended) = mpsc::channel();
    thread::Builder::new().name(format!("{THREAD}{name}")).spawn(move || {
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| (case.run)(&ctx)));
        // The receiver is gone only if the watchdog has already failed this case.
        drop(done.send(outcome.map_err(|payload| message(&*payload))));
    })?;
    let reason = match await_end(&ended, &watch) {
        Ok(()) => return Ok(()),
        Err(reason) => reason,
    };
    let place = lock(panics()).remove(&format!("{THREAD}{name}")).unwrap_or_default();
    Err(report(&reason, &place, &watch, seed).into())
}

fn await_end(ended: &mpsc::Receiver<Result<(), String>>, watch: &Watch) -> Result<(), String> {
    match ended.recv_timeout(budget() + GRACE) {
        Ok(outcome) => return outcome,
        Err(RecvTimeoutError::Disconnected) => return Err("the case's thread vanished".to_owned()),
        Err(RecvTimeoutError::Timeout) => {}
    }
    for server in lock(&watch.servers).iter() {
        if server.is_running() {
            kill_group(server.pid);
        }
    }
    // The death of its server wakes the case; what it says then is a consequence, not the cause.
    drop(ended.recv_timeout(GRACE));
    Err(format!("killed by the watchdog while waiting for {}", lock(&watch.awaiting)))
}

fn report(reason: &str, place: &str, watch: &Watch, seed: u64) -> String {
    let mut text = format!("{reason}\n  at: {place}\n  last awaited: {}", lock(&watch.awaiting));
    // A case that starts many has little to say of each.
    let said = lock(&watch.servers).iter().map(|s| (s.pid, s.tail(8))).collect::<Vec<_>>();
    for (pid, lines) in said.iter().filter(|(_, lines)| !lines.is_empty()) {
        text.push_str(&format!("\n  server {pid} said last:"));
        for line in lines {
            text.push_str(&format!("\n    {line}"));
        }
    }
    text.push_str(&format!("\n  seed: CONFORMANCE_SEED={seed}"));
    text
}

/// What a panic said.
pub(crate) fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("panicked").to_owned()
}

/// What the names of the threads that run cases begin with.
const THREAD: &str = "case ";

fn panics() -> &'static Mutex<HashMap<String, String>> {
    static PANICS: OnceLock<Mutex<HashMap<String, String>>> = OnceLock::new();
    PANICS.get_or_init(Mutex::default)
}

/// Keeps where a case failed for its report, instead of printing it among other cases' lines.
pub(crate) fn silence_case_threads() {
    let otherwise = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let thread = thread::current();
        let (Some(name), Some(place)) = (thread.name(), info.location()) else {
            return otherwise(info);
        };
        if !name.starts_with(THREAD) {
            return otherwise(info);
        }
        lock(panics()).entry(name.to_owned()).or_insert_with(|| place.to_string());
    }));
}

fn budget() -> Duration {
    number_from("CONFORMANCE_DEADLINE").map_or(BUDGET, Duration::from_secs)
}

/// How many malformed sessions to hold.
pub(crate) fn sessions() -> u64 {
    number_from("CONFORMANCE_SESSIONS").unwrap_or(SESSIONS)
}

/// How many random scripts to play.
pub(crate) fn scripts() -> u64 {
    number_from("CONFORMANCE_SCRIPTS").unwrap_or(SCRIPTS)
}

/// The seed of this run: the one asked for, or a new one.
pub(crate) fn seed() -> u64 {
    if let Some(seed) = number_from("CONFORMANCE_SEED") {
        return seed;
    }
    hash(&SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()) % 1_000_000
}

/// # Panics
///
/// When the variable is set to something else than a number: to go on would do what was not asked.
fn number_from(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    match text.parse() {
        Ok(number) => Some(number),
        Err(_) => panic!("{variable}={text} is not a number"),
    }
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Locks, also after another thread of the case has failed: then the report still needs it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
