//! Standard error: one line an event, as text or as JSON.

use std::io::Write;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

use crate::Failure;
use crate::counters::{self, Counters};

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
}

/// Writes to standard error. A standard error that is closed, full or full of errors hurts nobody:
/// every failure to write is ignored, and a line that would have to wait is dropped.
pub struct Log {
    name: &'static str,
    format: Format,
}

impl Log {
    pub(crate) fn new(name: &'static str, format: Format) -> Log {
        Log { name, format }
    }

    /// Something worth knowing has happened.
    pub fn info(&self, text: &str) {
        self.event("info", text);
    }

    /// Something is wrong, and the server goes on.
    pub fn warn(&self, text: &str) {
        self.event("warn", text);
    }

    pub(crate) fn failure(&self, failure: &Failure) {
        let (Failure::Failed(text) | Failure::Usage(text) | Failure::Unsupported(text)) = failure;
        self.event("error", text);
    }

    /// The counters, always as one line of JSON.
    pub(crate) fn counters(&self, workers: &[Counters]) {
        self.line(&json!({ "counters": counters::total(workers) }).to_string());
    }

    fn event(&self, level: &str, text: &str) {
        match self.format {
            Format::Text if level == "info" => self.line(&format!("{}: {text}", self.name)),
            Format::Text => self.line(&format!("{}: {level}: {text}", self.name)),
            Format::Json => {
                let event = json!({ "server": self.name, "level": level, "message": text });
                self.line(&Value::to_string(&event));
            }
        }
    }

    fn line(&self, text: &str) {
        let mut stderr = std::io::stderr().lock();
        // A pipe that is ready takes 4 KiB (PIPE_BUF) without waiting, and no line is that long.
        let mut ready = [PollFd::new(&stderr, PollFlags::OUT)];
        if poll(&mut ready, Some(&Timespec::default())).is_ok_and(|ready| ready > 0) {
            // One write a line, so that the lines of several processes do not mix.
            let _ = stderr.write_all(format!("{text}\n").as_bytes());
        }
    }
}
