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
//! Reading order: `server` (the process under test), `surroundings` (what it finds), `client` and
//! `member` (who talks to it), `watchdog` (how a case ends), then any file in `cases`.
//!
//! Three environment variables: `CONFORMANCE_SEED` repeats the random cases of an earlier run,
//! `CONFORMANCE_SCRIPTS` says how many random scripts a case plays, and `CONFORMANCE_DEADLINE`
//! after how many seconds a case that hangs is ended.

mod cases;
mod client;
mod member;
mod models;
mod oracle;
mod server;
mod surroundings;
mod usage;
mod watchdog;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};

use crate::cases::{Case, Mode};
use crate::models::Model;

/// Runs every case against each model that `package` declares in `loadgen/models.toml`.
///
/// `program` is the path of the server's binary: `env!("CARGO_BIN_EXE_serve-...")`. The arguments
/// of the test harness (a filter, `--list`, `--test-threads`) are read from the command line.
pub fn run(package: &str, program: &str) -> ExitCode {
    let cases = cases::of(package);
    judge(models::of_package(package, program, &cases), &cases)
}

/// Runs the echo cases against each peer that `loadgen/models.toml` names: a program in another
/// language that takes the same flags. The cases of one that is not installed are ignored.
pub fn run_peers() -> ExitCode {
    let mut cases = cases::of("a peer");
    cases.retain(|case| case.mode == Mode::Echo);
    judge(models::peers(&cases), &cases)
}

fn judge(models: Result<Vec<Model>, String>, cases: &[Case]) -> ExitCode {
    if let Some(code) = surroundings::called() {
        return code;
    }
    let arguments = Arguments::from_args();
    let models = match models {
        Ok(models) => models,
        Err(reason) => {
            eprintln!("conformance: {reason}");
            return ExitCode::FAILURE;
        }
    };
    let seed = watchdog::seed();
    if !arguments.list {
        announce(&models, seed);
    }
    watchdog::silence_case_threads();
    let trials = models
        .into_iter()
        .map(Arc::new)
        .flat_map(|model| cases.iter().map(move |case| trial(*case, &model, seed)))
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Says before the first case what will be left out and why, and how to repeat the run.
fn announce(models: &[Model], seed: u64) {
    eprintln!("conformance: seed {seed} (CONFORMANCE_SEED={seed} repeats the random cases)");
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
