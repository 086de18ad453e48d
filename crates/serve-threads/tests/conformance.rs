//! The suite, run on this server.

use std::process::ExitCode;

fn main() -> ExitCode {
    conformance::run("serve-threads", env!("CARGO_BIN_EXE_serve-threads"))
}
