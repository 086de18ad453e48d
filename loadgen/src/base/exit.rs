//! How a command ends: its errors that have an exit code of their own.

use std::process::ExitCode;

use anyhow::Result;

/// What each exit code means.
pub const MEANINGS: [(u8, &str); 4] = [
    (0, "Done. A run may be SUSPECT: its result says so"),
    (
        1,
        "A run was INVALID, a server that was named failed, something became worse (report \
         --against), the machine is not fit (doctor), or loadgen itself failed",
    ),
    (2, "Wrong use: nothing was started"),
    (INTERRUPTED, "Interrupted (Ctrl-C): what was finished is kept"),
];

/// The exit code of a command that Ctrl-C has ended.
pub const INTERRUPTED: u8 = 130;

/// Ctrl-C ended a run before it was done.
#[derive(Debug)]
pub struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// The command line was wrong: exit code 2.
#[derive(Debug)]
struct Misuse(anyhow::Error);

impl std::fmt::Display for Misuse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

impl std::error::Error for Misuse {}

/// What went wrong when the result was printed already: it is no result of its own.
#[derive(Debug)]
pub struct AfterResult(pub(crate) anyhow::Error);

impl std::fmt::Display for AfterResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

impl std::error::Error for AfterResult {}

/// What depends on the command line alone, and fails as misuse.
pub(crate) fn asked<T>(result: Result<T>) -> Result<T> {
    result.map_err(|e| Misuse(e).into())
}

/// 2 for misuse, 130 for Ctrl-C, 1 for the rest.
pub fn code(error: &anyhow::Error) -> ExitCode {
    if error.is::<Misuse>() {
        ExitCode::from(2)
    } else if error.is::<Interrupted>() {
        ExitCode::from(INTERRUPTED)
    } else {
        ExitCode::FAILURE
    }
}
