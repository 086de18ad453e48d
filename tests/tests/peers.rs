//! The echo part of the suite, run against the peers that are installed.

use std::process::ExitCode;

fn main() -> ExitCode {
    conformance::run_peers()
}
