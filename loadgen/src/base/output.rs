//! What this program says: results on standard output, all else on standard error.

use std::io::{ErrorKind, Write};

use anyhow::Result;

/// Writes to standard output. A reader who has seen enough and left is no error.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
    }
}

/// Writes a line to standard error. Where there is no reader, or no room, it is lost: what is said
/// there never ends a measurement, and changes no exit code.
pub fn say(line: &str) {
    let _ = std::io::stderr().lock().write_all(format!("{line}\n").as_bytes());
}
