//! Standard error: one line an event, as text or as JSON.

use std::io::Write;

use serde_json::{Value, json};

use crate::Failure;
use crate::counters::{self, Counters};

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
}

/// Writes to standard error. A standard error that is closed or full of errors hurts nobody:
/// every failure to write is ignored.
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
        // One write a line, so that the lines of several threads do not mix.
        let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
    }
}
