//! The suite, run on this server.

use std::process::ExitCode;

fn main() -> ExitCode {
    conformance::run("serve-may", env!("CARGO_BIN_EXE_serve-may"))
}
