//! Standard error: one line an event, as text or as JSON.

use std::ffi::OsString;
use std::io::Write;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use protocol::Gone;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

use crate::Failure;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Text, but for the counters
    Text,
    /// Each line an object of JSON
    Json,
}

/// What is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Level {
    /// What is wrong
    Warn,
    /// What the server does as well
    Info,
    /// Each connection and its end as well
    Connections,
}

/// Writes to standard error. A standard error that is closed, full or full of errors does no harm:
/// every failure to write is ignored, and a line that would have to wait is dropped.
#[derive(Clone, Copy)]
pub struct Log {
    name: &'static str,
    format: Format,
    level: Level,
    /// Text without the time: for a command line that is wrong.
    brief: bool,
}

impl Log {
    pub(crate) fn new(name: &'static str, format: Format, level: Level) -> Log {
        Log { name, format, level, brief: false }
    }

    /// For what is wrong before the flags are read: it looks at the arguments for the format only.
    pub(crate) fn before_flags(
        name: &'static str,
        arguments: impl Iterator<Item = OsString>,
    ) -> Log {
        let arguments: Vec<OsString> = arguments.collect();
        let json = arguments.windows(2).any(|two| two[0] == "--log" && two[1] == "json")
            || arguments.iter().any(|one| one == "--log=json");
        let format = if json { Format::Json } else { Format::Text };
        Log { name, format, level: Level::Info, brief: true }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Something worth knowing has happened.
    pub fn info(&self, text: &str) {
        if self.level >= Level::Info {
            self.event("info", text);
        }
    }

    /// Something is wrong, and the server goes on.
    pub fn warn(&self, text: &str) {
        self.event("warn", text);
    }

    /// Why the server ends, in one line: what fails in other threads meanwhile is not said. So the
    /// lock is held while the line is written.
    pub(crate) fn failure(&self, failure: &Failure) {
        static SAID: Mutex<bool> = Mutex::new(false);
        let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
        if !*said {
            self.event("error", failure.text());
            *said = true;
        }
    }

    /// A connection from `peer` begins or ends, as `what` says. `name` tells it from others.
    pub(crate) fn connection(&self, name: &dyn std::fmt::Display, peer: IpAddr, what: &str) {
        if self.level < Level::Connections {
            return;
        }
        match self.format {
            Format::Text => self.text("", &format!("connection {name} from {peer} {what}")),
            Format::Json => {
                let (name, peer) = (name.to_string(), peer.to_string());
                self.object("connection", json!({ "connection": name, "peer": peer, "is": what }));
            }
        }
    }

    /// Whether connections are logged at all.
    pub(crate) fn follows_connections(&self) -> bool {
        self.level >= Level::Connections
    }

    /// A connection of an echo server ends.
    pub(crate) fn client(&self, peer: &str, reason: &str) {
        match self.format {
            Format::Text => self.text("", &format!("client from {peer} leaves: {reason}")),
            Format::Json => {
                self.object("connection", json!({ "peer": peer, "is": "leaves", "reason": reason }))
            }
        }
    }

    /// A connection of the chat ends, of a member or of one that has not registered.
    pub(crate) fn member(&self, gone: &Gone<'_>) {
        if self.level < Level::Connections {
            return;
        }
        // A peer may have chosen the reason: no character in it may do something to a terminal, or
        // begin a line.
        let reason = String::from_utf8_lossy(gone.reason).replace(char::is_control, "?");
        let (nick, host) = (String::from_utf8_lossy(gone.nick), String::from_utf8_lossy(gone.host));
        match self.format {
            Format::Text => self.text("", &format!("member {nick} from {host} leaves: {reason}")),
            Format::Json => self.object(
                "connection",
                json!({ "member": nick, "peer": host, "is": "leaves", "reason": reason }),
            ),
        }
    }

    /// The counters, always as one line of JSON.
    pub(crate) fn counters(&self, counters: &Value) {
        match self.format {
            Format::Text => self.line(&json!({ "counters": counters }).to_string()),
            Format::Json => self.object("info", json!({ "counters": counters })),
        }
    }

    fn event(&self, level: &str, text: &str) {
        match self.format {
            Format::Text if level == "info" => self.text("", text),
            Format::Text => self.text(&format!(" {level}:"), text),
            Format::Json => self.object(level, json!({ "message": text })),
        }
    }

    fn text(&self, level: &str, text: &str) {
        if self.brief {
            self.line(&format!("{}:{level} {text}", self.name));
        } else {
            self.line(&format!("{} {}:{level} {text}", now(), self.name));
        }
    }

    /// One line: when, who and how urgent, and what else.
    fn object(&self, level: &str, more: Value) {
        let mut object = json!({ "time": now(), "server": self.name, "level": level });
        if let (Value::Object(object), Value::Object(more)) = (&mut object, more) {
            object.extend(more);
        }
        self.line(&object.to_string());
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

/// The time of day (RFC 3339), in UTC.
fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_known_before_the_flags_are() {
        let log = |arguments: &[&str]| {
            Log::before_flags("test", arguments.iter().map(OsString::from)).is_json()
        };
        assert!(log(&["--nonsense", "--log", "json"]) && log(&["--log=json"]));
        assert!(!log(&["--log", "text"]) && !log(&["json", "--log"]) && !log(&[]));
    }
}
