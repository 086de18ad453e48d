//! The servers that can be driven.
//!
//! **Lives here:** which servers there are (`models.toml`, `others.toml`, a command line, an
//! address), how each is built, started, watched and stopped, the gate that it passes before it is
//! worth a number, the null reference, and which processors server and generator get.
//!
//! **May use:** `base`, `workload`, `drive`.
//!
//! **Must not know:** what is measured, and how servers compare.

mod build;
pub mod cpus;
pub mod gate;
mod models;
pub mod null;
mod others;
mod process;
mod profiler;
mod server;
pub mod synthetic;
pub mod wrapper;

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::text;
use crate::workload::{Mode, Workload};
use gate::Lack;

pub use models::{Entry, Models};
pub use others::{Other, Others};
pub use profiler::Profile;
pub(crate) use profiler::Profiler;
pub use server::{Server, Start};

/// The name of the null reference in tables and records.
pub const NULL: &str = "null (bare epoll)";
/// The same, entered once more.
pub const NULL_AGAIN: &str = "null (bare epoll), again";
/// What is added to the name of a server that is entered once more.
pub const AGAIN: &str = ", again";

/// A server to drive and how to get it.
#[derive(Clone, Debug)]
pub struct Target {
    /// What it is called in tables and records.
    pub name: String,
    /// How to start it.
    pub how: How,
    /// Whether it is a package of this workspace: the same protocol, buffers and backpressure.
    pub ours: bool,
    /// The server of which it is the model bare, if it is one.
    pub bare_of: Option<String>,
    /// Whether it is held to the whole contract of the gate, and not only to what every server must
    /// do.
    pub contract: bool,
    /// What it was seen to lack of the contract.
    pub lacks: Vec<Lack>,
    /// Whether it is the user's own, by --cmd or --addr, of which no file says what it speaks.
    pub unlisted: bool,
    /// Whether it is another project's, of `others.toml`.
    pub foreign: bool,
    /// Templates of its files, by name: they are written into a folder of its own, `{dir}`.
    pub files: BTreeMap<String, String>,
    /// What it speaks.
    pub modes: Vec<Mode>,
    /// The most connections that it can serve at once, if it has a limit of its own.
    pub most_connections: Option<u32>,
    /// The least that it is warmed up for, however short a run is.
    pub warmup: Duration,
    /// Cases of the gate that are declared unsupported, with the reason.
    pub unsupported: BTreeMap<String, String>,
}

/// A server as a record describes it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Entrant {
    /// What it is called.
    pub name: String,
    /// Whether it is a package of this workspace.
    #[serde(default)]
    pub ours: bool,
    /// The program or command, or where it was running.
    pub command: String,
    /// Conformance cases that it is declared not to pass, with the reason.
    pub unsupported: BTreeMap<String, String>,
    /// The server of which it is the model bare, if it is one.
    #[serde(default)]
    pub bare_of: Option<String>,
    /// What it lacks of the contract, if it is not held to it.
    #[serde(default)]
    pub lacks: Vec<Lack>,
}

/// The ways to a running server.
#[derive(Clone, Debug)]
pub enum How {
    /// A package of the workspace, not yet built.
    Package(String, Vec<String>),
    /// The model bare of a package of the workspace, not yet built.
    Bare(String),
    /// A program whose only argument is where it listens, and that says so.
    Plain(PathBuf),
    /// A program that understands the common flags and says where it listens.
    Program(PathBuf, Vec<String>),
    /// Any command, with `{addr}`, or `{host}` and `{port}`, to be filled in (see `words`); it is
    /// done when something listens there.
    Command(String),
    /// It is running already at one of these addresses, perhaps as a process that can be watched.
    Running(Vec<SocketAddr>, Option<i32>),
    /// A model that an agent starts on its own machine.
    Elsewhere(String),
    /// The null reference: this program's own bare loop, in a process of its own, which burns so
    /// much processor time for each message.
    Null(Duration),
}

impl Target {
    /// Whether it goes on after SIGSTOP and SIGCONT. They end a wait for events with EINTR, which
    /// some servers take for a failure. So those of other people are not tried with it.
    pub fn bears_suspension(&self) -> bool {
        let others = self.foreign || matches!(self.how, How::Command(_));
        self.contract || !others
    }

    /// The null reference.
    pub fn null() -> Self {
        Self::new(NULL, How::Null(Duration::ZERO), vec![Mode::Echo])
    }

    /// The same server once more, to see whether it is told from itself.
    pub fn again(&self) -> Self {
        Self { name: format!("{}{AGAIN}", self.name), ..self.clone() }
    }

    /// A user's own command, named after its program, or after the script that this runs. It speaks
    /// echo, and chat too if it takes the mode as an argument.
    pub fn command(command: &str) -> Result<Self> {
        let words = words(command).context("--cmd")?;
        let name = command_name(&words);
        let modes = match command.contains("{mode}") {
            true => vec![Mode::Echo, Mode::Chat],
            false => vec![Mode::Echo],
        };
        let target = Self::new(&name, How::Command(command.to_owned()), modes);
        Ok(Self { unlisted: true, ..target })
    }

    /// A server that is already running at `addr`, perhaps as the local process `pid`. It speaks
    /// echo. A name may have several addresses.
    pub fn running(addr: &str, pid: Option<i32>) -> Result<Self> {
        let resolved: Vec<_> = addr
            .to_socket_addrs()
            .map_err(|e| anyhow!("{addr:?} is not an address ({e}); write HOST:PORT"))?
            .collect();
        if resolved.is_empty() {
            bail!("{addr:?} has no address");
        }
        let target = Self::new(addr, How::Running(resolved, pid), vec![Mode::Echo]);
        Ok(Self { unlisted: true, ..target })
    }

    /// A model that an agent starts on its own machine, from its own models file: no more than its
    /// name is known of it here. Agents drive echo.
    pub(crate) fn elsewhere(model: &str) -> Self {
        Self::new(model, How::Elsewhere(model.to_owned()), vec![Mode::Echo])
    }

    /// What a result calls it once it has answered at `addr`: a host's name may have several.
    pub(crate) fn name_at(&self, addr: SocketAddr) -> String {
        match self.how {
            How::Running(..) if addr.to_string() != self.name => format!("{} ({addr})", self.name),
            _ => self.name.clone(),
        }
    }

    /// What a record says of it.
    pub fn entrant(&self) -> Entrant {
        let line = |program: String, args: &[String]| [&[program], args].concat().join(" ");
        let command = match &self.how {
            How::Package(package, args) => line(package.clone(), args),
            How::Program(program, args) => line(program.display().to_string(), args),
            How::Bare(package) => bare_name(package),
            How::Plain(program) => format!("{} {{addr}}", program.display()),
            How::Command(command) => command.clone(),
            How::Running(..) => format!("running at {}", self.name),
            How::Elsewhere(model) => format!("{model} of the agent beside the servers"),
            How::Null(_) => "a bare epoll loop of loadgen's own".into(),
        };
        Entrant {
            name: self.name.clone(),
            ours: self.ours,
            command,
            unsupported: self.unsupported.clone(),
            bare_of: self.bare_of.clone(),
            lacks: self.lacks.clone(),
        }
    }

    /// Whether it takes the flags that all servers of the workspace, and the peers, take.
    fn takes_flags(&self) -> bool {
        matches!(self.how, How::Package(..) | How::Program(..))
    }

    /// Why it cannot take part in a workload: the model itself has a limit, the server lacks what
    /// the workload needs, or it must be told to wait or to work and only those of the workspace
    /// know how.
    pub fn refuses(&self, workload: &Workload) -> Option<String> {
        if workload.slows_the_handler() && self.bare_of.is_some() {
            let name = &workload.name;
            return Some(format!("{name} needs --wait or --work, and a model bare takes no flags"));
        }
        if workload.slows_the_handler() && !self.takes_flags() {
            return Some(format!(
                "{} needs a server of this workspace, which takes --wait and --work; another one \
                 must wait or work by itself: drive it with ping-pong",
                workload.name
            ));
        }
        if workload.disturbance.is_some() && matches!(self.how, How::Null(_)) {
            return Some("the null reference waits for a client that does not read".into());
        }
        if let Some(lack) = self.lacks.iter().find(|lack| lack.hinders(workload)) {
            return Some(format!("{} needs {}, which it lacks", workload.name, lack.what));
        }
        // Visitors leave: those of a server of one client at a time wait until it is their turn.
        if workload.churn.is_some() && self.most_connections == Some(1) {
            return None;
        }
        let most = self.most_connections.filter(|most| *most < workload.connections)?;
        Some(format!("the model serves at most {most} at once; ask for --connections {most}"))
    }

    fn new(name: &str, how: How, modes: Vec<Mode>) -> Self {
        Self {
            name: name.to_owned(),
            how,
            ours: false,
            bare_of: None,
            contract: false,
            lacks: Vec::new(),
            unlisted: false,
            foreign: false,
            files: BTreeMap::new(),
            modes,
            most_connections: None,
            warmup: Duration::ZERO,
            unsupported: BTreeMap::new(),
        }
    }
}

/// The words of a command, split as a shell splits them; no shell sees it.
fn split(command: &str) -> Result<Vec<String>> {
    shlex::split(command)
        .with_context(|| format!("{command:?}: a quote is open, or a backslash is the end"))
}

/// The words of a command that says where the server is to listen: a host alone is not enough.
pub(crate) fn words(command: &str) -> Result<Vec<String>> {
    let words = split(command)?;
    if !words.iter().any(|word| word.contains("{addr}") || word.contains("{port}")) {
        bail!(
            "{command:?} must say {{addr}}, or {{host}} and {{port}}, or {{port}} alone, where the \
             server is to listen"
        );
    }
    for word in &words {
        check_placeholders(word)?;
    }
    Ok(words)
}

/// What a command may have filled in.
const PLACEHOLDERS: [&str; 4] = ["addr", "host", "port", "mode"];

/// Fails for a mistyped one. Other words in braces are the command's own.
fn check_placeholders(word: &str) -> Result<()> {
    for part in word.split('{').skip(1) {
        let Some((name, _)) = part.split_once('}') else { continue };
        if PLACEHOLDERS.contains(&name) {
            continue;
        }
        if let Some(near) = text::nearest(name, &PLACEHOLDERS) {
            bail!("{word:?}: {{{name}}} would not be filled in; did you mean {{{near}}}?");
        }
    }
    Ok(())
}

/// Programs that run another one, which is what a user means: interpreters, and what sets up a
/// process.
const RUNNERS: [&str; 20] = [
    "python", "pypy", "node", "deno", "bun", "ruby", "perl", "php", "lua", "luajit", "java", "go",
    "escript", "elixir", "bash", "sh", "env", "nice", "taskset", "valgrind",
];

/// What a command is called: the file that the user has written, which is its program, or, where
/// the program only runs another file, the first of its words that names one.
fn command_name(words: &[String]) -> String {
    let of =
        |word: &str| Path::new(word).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let Some((program, args)) = words.split_first() else { return String::new() };
    let name = of(program);
    // Its version may be in its name: python3.13.
    let plain = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    if !RUNNERS.contains(&plain) {
        return name;
    }
    let script = args.iter().find(|word| Path::new(word).is_file());
    script.map_or(name, |script| of(script))
}

/// The name of the model bare of a package: that of its example.
fn bare_name(package: &str) -> String {
    package.replacen("serve-", "bare-", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_called_after_what_the_user_has_written() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("my-echo.py");
        std::fs::write(&script, "").unwrap();
        let script = script.display();
        let name = |command: String| Target::command(&command).unwrap().name;
        assert_eq!(name(format!("python3 -u {script} {{addr}}")), "my-echo.py");
        assert_eq!(name(format!("/usr/bin/env X=1 python3.13 {script} {{addr}}")), "my-echo.py");
        assert_eq!(name(format!("/opt/serve --config {script} {{addr}}")), "serve");
        assert_eq!(name("python3 -m asyncecho {addr}".into()), "python3");
    }

    #[test]
    fn a_mistyped_placeholder_is_an_error() {
        let error = |command| format!("{:#}", Target::command(command).unwrap_err());
        assert!(error("serve {hots} {port}").contains("did you mean {host}?"));
        assert!(error("serve --listen={addr} {moed}").contains("did you mean {mode}?"));
        for own in ["awk '{print}' {addr}", "serve {} {addr}", "serve { {addr}", "a {x{port}}"] {
            assert!(Target::command(own).is_ok(), "{own}");
        }
    }

    #[test]
    fn a_command_chats_only_if_it_says_so() {
        let modes = |command| Target::command(command).unwrap().modes;
        assert_eq!(modes("serve {addr}"), [Mode::Echo]);
        assert_eq!(modes("serve {addr} {mode}"), [Mode::Echo, Mode::Chat]);
        assert_eq!(Target::running("127.0.0.1:7", None).unwrap().modes, [Mode::Echo]);
    }
}
