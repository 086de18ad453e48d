//! One black-box suite, run against every server program.
//!
//! It speaks raw bytes over real sockets to the real program and depends on no other crate of the
//! project, so that a bug in `protocol` cannot hide in its own test. Each case of each server is a
//! test of its own, named `SERVER::CASE`; what a server cannot do is declared in
//! `loadgen/models.toml` with the reason, and shown as ignored.
//!
//! A server's `tests/conformance.rs` (with `harness = false`) is only this:
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! fn main() -> ExitCode {
//!     conformance::run("serve-epoll-level", "target/debug/serve-epoll-level")
//! }
//! ```
//!
//! Reading order: `server` (the process under test), `surroundings` (what it finds), `manager` (who
//! starts it as a service), `client` and `member` (who talks to it), `network` (what may be between
//! them), `watchdog` (how a case ends), then any file in `cases`.
//!
//! Five environment variables: `CONFORMANCE_SEED` repeats the random cases of an earlier run,
//! `CONFORMANCE_SCRIPTS` says how many random scripts a case plays, `CONFORMANCE_SESSIONS` how many
//! malformed sessions a case holds, and `CONFORMANCE_DEADLINE` after how many seconds a case that
//! hangs is ended. With `CONFORMANCE_NETWORK=bad` the cases of framing, life and chat run once more
//! for each server, over a network that delays and splits (`network`), as `SERVER-far::CASE`; for
//! one server they always do.

mod bare;
mod cases;
mod client;
mod manager;
mod member;
mod models;
mod network;
mod oracle;
#[cfg(target_arch = "x86_64")]
mod rings;
mod server;
mod surroundings;
mod traced;
#[cfg_attr(not(target_arch = "x86_64"), path = "tracee_elsewhere.rs")]
mod tracee;
mod tracer;
mod usage;
mod watchdog;

use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use libtest_mimic::{Arguments, Trial};

use crate::cases::{Case, Mode};
use crate::models::Model;

/// How many cases run at once beyond one for each processor. Much of a case is waiting, for
/// deadlines that are real time: without these, two processors would be idle for two thirds of it.
const MORE_CASES: usize = 4;

/// Runs every case against each model that `package` declares in `loadgen/models.toml`, and those
/// for the model bare against its `examples/bare.rs`.
///
/// `program` is the path of the server's binary: `env!("CARGO_BIN_EXE_serve-...")`. The arguments
/// of the test harness (a filter, `--list`, `--test-threads`) are read from the command line.
pub fn run(package: &str, program: &str) -> ExitCode {
    let cases = cases::of(package);
    let models = models::of_package(package, program, &cases);
    let far = models.as_ref().ok().filter(|_| network::is_asked_for(package));
    let far = far.map(|models| Ok(models.iter().map(Model::far).collect()));
    let mut suites = vec![(models, cases)];
    suites.extend(far.map(|models| (models, cases::far())));
    if bare::source(package).is_file() {
        let (mut cases, together) = cases::bare(package);
        let model = models::bare(package, program, &together);
        cases.extend(together);
        suites.push((model.map(|model| vec![model]), cases));
    }
    judge(suites)
}

/// Runs the echo cases against each peer that `loadgen/models.toml` names: a program in another
/// language that takes the same flags. The cases of one that is not installed are ignored.
pub fn run_peers() -> ExitCode {
    let mut cases = cases::shared("a peer");
    cases.retain(|case| case.mode == Mode::Echo);
    judge(vec![(models::peers(&cases), cases)])
}

/// Models, or why there are none, and the cases that each of them is put through.
type Suite = (Result<Vec<Model>, String>, Vec<Case>);

fn judge(suites: Vec<Suite>) -> ExitCode {
    if let Some(code) = surroundings::called() {
        return code;
    }
    let mut arguments = Arguments::from_args();
    if arguments.test_threads.is_none() {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        arguments.test_threads = Some(processors + MORE_CASES);
    }
    let seed = watchdog::seed();
    if !arguments.list {
        eprintln!("conformance: seed {seed} (CONFORMANCE_SEED={seed} repeats the random cases)");
    }
    let mut trials = Vec::new();
    for (models, cases) in suites {
        let mut models = match models {
            Ok(models) => models,
            Err(reason) => {
                eprintln!("conformance: {reason}");
                return ExitCode::FAILURE;
            }
        };
        for model in &mut models {
            cases::leave_out_missing(&cases, &mut model.unsupported);
        }
        if !arguments.list {
            announce(&models);
        }
        for model in models.into_iter().map(Arc::new) {
            trials.extend(cases.iter().map(|case| trial(*case, &model, seed)));
        }
    }
    watchdog::silence_case_threads();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Says before the first case what will be left out and why.
fn announce(models: &[Model]) {
    for model in models {
        if model.program.is_none() {
            let list = "`cargo run -p loadgen -- list` says how to get it";
            eprintln!("conformance: {} is not installed: {list}", model.name);
            continue;
        }
        for (case, reason) in &model.unsupported {
            eprintln!("conformance: unsupported: {}::{case}: {reason}", model.name);
        }
    }
}

fn trial(case: Case, model: &Arc<Model>, seed: u64) -> Trial {
    let name = format!("{}::{}", model.name, case.name);
    let ignored = model.program.is_none() || model.unsupported.contains_key(case.name);
    let model = Arc::clone(model);
    let program = model.program.clone().unwrap_or_default();
    Trial::test(name, move || watchdog::run(case, &model, &program, seed))
        .with_ignored_flag(ignored)
}
