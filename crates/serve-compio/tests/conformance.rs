//! The suite that every server passes, run against this one.

use std::process::ExitCode;

fn main() -> ExitCode {
    conformance::run(env!("CARGO_PKG_NAME"), env!("CARGO_BIN_EXE_serve-compio"))
}
