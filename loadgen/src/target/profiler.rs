//! A command that looks at a server while it is driven, such as `perf record`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::process::Process;
use super::split;

/// How long it may take to write what it has seen, once it was told to end.
const END: Duration = Duration::from_secs(60);
/// How long it may take to show that it cannot start at all.
const START: Duration = Duration::from_millis(300);

/// What is to be run beside a server.
#[derive(Clone, Debug)]
pub struct Profile {
    /// The command, with `{pid}` and `{out}` to be filled in. It is split into words as a shell
    /// does, without a shell.
    command: String,
    /// The file for what it has seen.
    pub out: PathBuf,
    /// What went wrong. It is no matter of the run, whose numbers are kept.
    failed: Arc<OnceLock<String>>,
}

impl Profile {
    /// Fails if the command cannot be split into words.
    pub fn new(command: &str, out: PathBuf) -> Result<Self> {
        if split(command).context("--profile")?.is_empty() {
            bail!("--profile: the command is empty");
        }
        Ok(Self { command: command.to_owned(), out, failed: Arc::default() })
    }

    /// It cannot do what was asked.
    pub(crate) fn fail(&self, why: String) {
        // The first reason is the one that counts.
        let _ = self.failed.set(why);
    }

    /// What went wrong, if anything did.
    pub fn failure(&self) -> Option<&str> {
        self.failed.get().map(String::as_str)
    }
}

/// The command while it runs. Dropping it ends its whole process group.
pub(crate) struct Profiler(Process);

impl Profiler {
    /// Starts it for the server `pid`. Fails, with its last words, if it ends at once.
    pub(crate) fn start(profile: &Profile, pid: i32) -> Result<Self> {
        let words = words(&profile.command, pid, &profile.out)?;
        let (program, args) = words.split_first().context("the command is empty")?;
        // On the processors of this program: those of the server are the server's.
        let (process, _lines) = Process::spawn(program, args, None, Signal::TERM)?;
        let mut profiler = Self(process);
        if profiler.0.wait(START) && !profiler.0.succeeded() {
            bail!("{program} ended at once: {}", profiler.0.obituary());
        }
        Ok(profiler)
    }

    /// Tells it to end, as Ctrl-C would, and waits until it has written what it has seen.
    pub(crate) fn finish(mut self, profile: &Profile) {
        if !self.0.wait(Duration::ZERO) {
            self.0.signal(Signal::INT);
        }
        if !self.0.wait(END) {
            profile.fail(format!("it did not end within {} s of SIGINT", END.as_secs()));
        } else if !self.0.succeeded() {
            profile.fail(self.0.obituary());
        }
    }
}

impl Drop for Profiler {
    fn drop(&mut self) {
        self.0.signal(Signal::KILL);
    }
}

fn words(command: &str, pid: i32, out: &Path) -> Result<Vec<String>> {
    let (pid, out) = (pid.to_string(), out.display().to_string());
    let filled = |word: String| word.replace("{pid}", &pid).replace("{out}", &out);
    // Split first: what is filled in is never taken apart.
    Ok(split(command)?.into_iter().map(filled).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_filled_in_is_never_taken_apart() {
        let words = words("perf record -g -p {pid} -o '{out}'", 17, Path::new("a b")).unwrap();
        assert_eq!(words, ["perf", "record", "-g", "-p", "17", "-o", "a b"]);
        let new = |command: &str| Profile::new(command, PathBuf::new());
        assert!(new("perf '").is_err() && new(" ").is_err() && new("true").is_ok());
    }
}
