//! Runs the suite that every server must pass, once for each flavour.

use std::process::ExitCode;

fn main() -> ExitCode {
    conformance::run("serve-tokio", env!("CARGO_BIN_EXE_serve-tokio"))
}
