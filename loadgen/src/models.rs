//! The servers that can be driven: `models.toml`, a command line, or an address.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::run::Interrupted;
use crate::verify::NEED_TWO;
use crate::workload::{Mode, Workload, humantime_option};

/// How often it is looked whether a build was interrupted.
const LOOK: Duration = Duration::from_millis(100);
/// The name of the null reference in tables and records.
pub const NULL: &str = "null (bare epoll)";
/// The same, entered once more.
pub const NULL_AGAIN: &str = "null (bare epoll), again";
/// What is added to the name of a server that is entered once more.
pub const AGAIN: &str = ", again";

/// One entry of `models.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The workspace package that is built and run.
    pub package: Option<String>,
    /// Or a command, with `{addr}` and `{mode}` to be filled in.
    pub command: Option<String>,
    /// Or a peer: a program that understands the common flags and says where it listens. A path
    /// from the workspace's root, or a name to be found on PATH.
    pub program: Option<String>,
    /// What the program runs, if it is an interpreter: a path from the workspace's root.
    pub script: Option<String>,
    /// The command that gets the program.
    pub setup: Option<String>,
    /// Programs that `setup` needs to be on PATH, each with the command that gets it.
    #[serde(default)]
    pub needs: BTreeMap<String, String>,
    /// Further flags of the program.
    #[serde(default)]
    pub args: Vec<String>,
    /// The model in one sentence.
    #[serde(default)]
    pub summary: String,
    /// What it speaks.
    pub modes: Vec<Mode>,
    /// The most connections that the model can serve at once, where it has a limit of its own.
    pub most_connections: Option<u32>,
    /// The least that it needs to warm up: a compiler at run time knows only then what is hot.
    #[serde(default, with = "humantime_option")]
    pub warmup: Option<Duration>,
    /// Conformance cases that it cannot pass, each with the reason.
    #[serde(default)]
    pub unsupported: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct File {
    model: BTreeMap<String, Entry>,
}

/// All entries of a models file, by name.
#[derive(Debug)]
pub struct Models {
    entries: BTreeMap<String, Entry>,
    workspace: PathBuf,
}

/// A server to drive and how to get it.
#[derive(Clone, Debug)]
pub struct Target {
    /// What it is called in tables and records.
    pub name: String,
    /// How to start it.
    pub how: How,
    /// Whether it is a package of this workspace: the same protocol, buffers and backpressure.
    pub ours: bool,
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
}

/// The ways to a running server.
#[derive(Clone, Debug)]
pub enum How {
    /// A package of the workspace, not yet built.
    Package(String, Vec<String>),
    /// A program that understands the common flags and says where it listens.
    Program(PathBuf, Vec<String>),
    /// Any command; it is done when something listens at `{addr}`.
    Command(String),
    /// It is running already, perhaps as a process that can be watched.
    Running(SocketAddr, Option<i32>),
    /// The null reference: this program's own bare loop, in a process of its own, which burns so
    /// much processor time for each message.
    Null(Duration),
}

impl Models {
    /// Reads `path`, or the workspace's file, or, away from the workspace, the one built in.
    pub fn load(path: Option<&Path>) -> Result<Self> {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("models.toml");
        let text = match path {
            Some(path) => std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the models file {}", path.display()))?,
            None => std::fs::read_to_string(&own)
                .unwrap_or_else(|_| include_str!("../models.toml").to_owned()),
        };
        let name = path.unwrap_or(&own).display().to_string();
        let file: File = toml::from_str(&text).map_err(|e| anyhow!("{name}: {e}"))?;
        for (model, entry) in &file.model {
            let ways = [&entry.package, &entry.command, &entry.program];
            if ways.iter().filter(|way| way.is_some()).count() != 1 {
                bail!("{name}: model {model} needs either a package, a command or a program");
            }
            if entry.command.as_ref().is_some_and(|c| !c.contains("{addr}")) {
                bail!("{name}: model {model}: its command must say {{addr}} where it is to listen");
            }
        }
        let own = Path::new(env!("CARGO_MANIFEST_DIR"));
        let workspace = own.parent().unwrap_or(own).to_owned();
        Ok(Self { entries: file.model, workspace })
    }

    /// All entries by name.
    pub fn entries(&self) -> impl Iterator<Item = (&String, &Entry)> {
        self.entries.iter()
    }

    /// The model of that name, or of that package name where only one model has it.
    pub fn find(&self, name: &str) -> Result<Target> {
        let plain = name.strip_prefix("serve-").unwrap_or(name);
        let entry = self.entries.get_key_value(name).or_else(|| self.entries.get_key_value(plain));
        match entry {
            Some((name, entry)) => match self.missing(entry) {
                Some(why) => bail!("{name} cannot run here: {why}"),
                None => Ok(self.target(name, entry)),
            },
            None => {
                let names: Vec<_> = self.entries.keys().map(String::as_str).collect();
                let near = nearest(plain, &names);
                let near = near.map(|near| format!("did you mean {near}? ")).unwrap_or_default();
                bail!("no model is called {name:?}; {near}there are {}", names.join(", "))
            }
        }
    }

    fn target(&self, name: &str, entry: &Entry) -> Target {
        let how = match (&entry.package, &entry.program) {
            (Some(package), _) => How::Package(package.clone(), entry.args.clone()),
            (None, Some(program)) => {
                let script = entry.script.iter().map(|path| self.workspace.join(path));
                let args = script.map(|path| path.display().to_string());
                let program = self.locate(program).unwrap_or_else(|| program.into());
                How::Program(program, args.chain(entry.args.iter().cloned()).collect())
            }
            (None, None) => How::Command(entry.command.clone().unwrap_or_default()),
        };
        let mut unsupported = entry.unsupported.clone();
        if entry.most_connections == Some(1) {
            let why = "the model serves one client at a time";
            unsupported.extend(NEED_TWO.map(|case| (case.to_owned(), why.to_owned())));
        }
        Target {
            name: name.to_owned(),
            how,
            ours: entry.package.is_some(),
            modes: entry.modes.clone(),
            most_connections: entry.most_connections,
            warmup: entry.warmup.unwrap_or_default(),
            unsupported,
        }
    }

    /// Why a model cannot run here, if that is known without building it, and how to get it.
    pub fn missing(&self, entry: &Entry) -> Option<String> {
        if let Some(package) = &entry.package {
            let manifest = self.workspace.join("crates").join(package).join("Cargo.toml");
            return (!manifest.exists())
                .then(|| format!("crates/{package} is not in this workspace"));
        }
        let program = entry.program.as_ref()?;
        if self.locate(program).is_some() {
            return None;
        }
        let lacking = entry.needs.iter().filter(|(need, _)| self.locate(need).is_none());
        let (mut names, mut commands): (Vec<_>, Vec<_>) = lacking.unzip();
        names.extend(names.is_empty().then_some(program));
        commands.extend(&entry.setup);
        let names: Vec<_> = names.into_iter().map(String::as_str).collect();
        let commands: Vec<_> = commands.into_iter().map(String::as_str).collect();
        Some(format!("{} is missing; get it: {}", names.join(", "), commands.join(" && ")))
    }

    /// The file of a program: a path from the workspace's root, or a name on PATH.
    fn locate(&self, program: &str) -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = match program.contains('/') {
            true => vec![self.workspace.clone()],
            false => std::env::split_paths(&path).collect(),
        };
        folders.into_iter().map(|folder| folder.join(program)).find(|path| path.is_file())
    }

    /// Builds what a target needs, one package at a time, so that one crate's features do not
    /// change another's dependencies. Returns the target with its program's path. Fails with
    /// [`Interrupted`] once `interrupted` is set.
    pub fn build(&self, target: &Target, interrupted: &AtomicBool) -> Result<Target> {
        let How::Package(package, args) = &target.how else { return Ok(target.clone()) };
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command
            .args(["build", "--release", "--quiet", "--message-format=json", "-p", package])
            .current_dir(&self.workspace);
        let output = finish(&mut command, interrupted)?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            let why = text.lines().find(|line| line.starts_with("error")).unwrap_or("see cargo");
            bail!("{package} does not build ({why}); try: cargo build --release -p {package}");
        }
        let program = String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter(|message| message["target"]["name"] == package.as_str())
            .find_map(|message| message["executable"].as_str().map(PathBuf::from))
            .with_context(|| format!("{package} has no program of its name"))?;
        Ok(Target { how: How::Program(program, args.clone()), ..target.clone() })
    }
}

/// Runs cargo to its end, or until it is interrupted, which must not pass for a failed build.
fn finish(cargo: &mut Command, interrupted: &AtomicBool) -> Result<Output> {
    let child = cargo
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run cargo, which builds the servers; is Rust installed?")?;
    let pid = Pid::from_child(&child);
    let (sender, ended) = channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    loop {
        let output = ended.recv_timeout(LOOK);
        if interrupted.load(Relaxed) {
            if output.is_err() {
                let _ = kill_process(pid, Signal::TERM);
                let _ = ended.recv();
            }
            return Err(Interrupted.into());
        }
        match output {
            Ok(output) => return Ok(output?),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => bail!("cargo was lost sight of"),
        }
    }
}

impl Target {
    /// The null reference.
    pub fn null() -> Self {
        Self::new(NULL, How::Null(Duration::ZERO), vec![Mode::Echo])
    }

    /// The same server once more, to see whether it is told from itself.
    pub fn again(&self) -> Self {
        Self { name: format!("{}{AGAIN}", self.name), ..self.clone() }
    }

    /// A user's own command, named after its program.
    pub fn command(command: &str) -> Result<Self> {
        if !command.contains("{addr}") {
            bail!("--cmd {command:?} must say {{addr}} where the server is to listen");
        }
        let program = command.split_whitespace().next().unwrap_or_default();
        let name = Path::new(program).file_name().unwrap_or_default().to_string_lossy();
        let modes = vec![Mode::Echo, Mode::Chat];
        Ok(Self::new(&name, How::Command(command.to_owned()), modes))
    }

    /// A server that is already running at `addr`, perhaps as the local process `pid`.
    pub fn running(addr: &str, pid: Option<i32>) -> Result<Self> {
        let resolved = addr
            .to_socket_addrs()
            .map_err(|e| anyhow!("{addr:?} is not an address ({e}); write HOST:PORT"))?
            .next()
            .with_context(|| format!("{addr:?} has no address"))?;
        Ok(Self::new(addr, How::Running(resolved, pid), vec![Mode::Echo, Mode::Chat]))
    }

    /// What a record says of it.
    pub fn entrant(&self) -> Entrant {
        let line = |program: String, args: &[String]| [&[program], args].concat().join(" ");
        let command = match &self.how {
            How::Package(package, args) => line(package.clone(), args),
            How::Program(program, args) => line(program.display().to_string(), args),
            How::Command(command) => command.clone(),
            How::Running(addr, _) => format!("running at {addr}"),
            How::Null(_) => "a bare epoll loop of loadgen's own".into(),
        };
        let (name, unsupported) = (self.name.clone(), self.unsupported.clone());
        Entrant { name, ours: self.ours, command, unsupported }
    }

    /// Whether it takes the flags that all servers of the workspace, and the peers, take.
    fn takes_flags(&self) -> bool {
        matches!(self.how, How::Package(..) | How::Program(..))
    }

    /// Why it cannot take part in a workload: the model itself has a limit, or the server must be
    /// told to wait or to work and only those of the workspace know how.
    pub fn refuses(&self, workload: &Workload) -> Option<String> {
        if workload.slows_the_handler() && !self.takes_flags() {
            return Some(format!(
                "{} needs a server of this workspace, which takes --wait and --work; another one \
                 must wait or work by itself: drive it with ping-pong",
                workload.name
            ));
        }
        if workload.disturbance.is_some() && matches!(self.how, How::Null(_)) {
            return Some("the null reference waits for whoever does not read".into());
        }
        let most = self.most_connections.filter(|most| *most < workload.connections)?;
        Some(format!("the model serves at most {most} at once; ask for --connections {most}"))
    }

    fn new(name: &str, how: How, modes: Vec<Mode>) -> Self {
        Self {
            name: name.to_owned(),
            how,
            ours: false,
            modes,
            most_connections: None,
            warmup: Duration::ZERO,
            unsupported: BTreeMap::new(),
        }
    }
}

/// The name that a mistyped one most likely meant.
fn nearest<'a>(typed: &str, names: &[&'a str]) -> Option<&'a str> {
    let scored = names.iter().map(|name| (distance(typed, name), *name));
    scored.min().filter(|&(score, name)| score <= name.len() / 2).map(|(_, name)| name)
}

/// The Levenshtein distance in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_that_comes_with_the_program_is_valid() {
        let models = Models::load(None).unwrap();
        assert_eq!(models.find("serve-epoll-level").unwrap().name, "epoll-level");
        assert_eq!(models.find("tokio-per-core").unwrap().name, "tokio-per-core");
        let error = models.find("epol-level").unwrap_err().to_string();
        assert!(error.contains("did you mean epoll-level?"), "{error}");
        assert!(!models.find("zzzzzzzz").unwrap_err().to_string().contains("did you mean"));
    }

    #[test]
    fn a_peer_is_there_or_its_setup_is_told() {
        let models = Models::load(None).unwrap();
        let peer = |program: &str, needs: &str| -> Entry {
            let text = format!("program = {program:?}\nsetup = \"./get it\"\nmodes = [\"echo\"]\n");
            toml::from_str(&format!("{text}needs = {{ {needs} }}")).unwrap()
        };
        assert_eq!(models.missing(&peer("sh", "")), None);
        assert_eq!(models.missing(&peer("loadgen/Cargo.toml", "")), None);
        let missing = |program, needs| models.missing(&peer(program, needs)).unwrap();
        assert_eq!(missing("target/no", "sh = 'no'"), "target/no is missing; get it: ./get it");
        assert_eq!(missing("/no", "no-x = 'get x'"), "no-x is missing; get it: get x && ./get it");
    }

    #[test]
    fn distances() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }
}
