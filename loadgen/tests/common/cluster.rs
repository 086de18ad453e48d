//! NATS, agents and a conductor as processes of a test, which end with it.

#![allow(dead_code, reason = "each test uses its part")]

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use serde_json::Value;

pub(crate) const LOADGEN: &str = env!("CARGO_BIN_EXE_loadgen");
pub(crate) const NATS: &str = "nats-server";

/// A process that is killed when the test lets go of it.
pub(crate) struct Killed(pub(crate) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a program, inside of a network namespace if one is given, and waits until it writes a
/// line to standard error that contains `sign`.
pub(crate) fn start(within: Option<&str>, program: &str, args: &[&str], sign: &str) -> Killed {
    let mut command = inside(within, program, args);
    let mut child = Killed(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
    let said = child.0.stderr.take().unwrap();
    await_sign(said, program, sign);
    child
}

/// Reads lines until the sign is among them; what comes after is read and thrown away.
fn await_sign(said: ChildStderr, program: &str, sign: &str) {
    let mut lines = BufReader::new(said).lines().map_while(Result::ok);
    let mut before = Vec::new();
    loop {
        let Some(line) = lines.next() else { panic!("{program} ended: {}", before.join("\n")) };
        if line.contains(sign) {
            break;
        }
        before.push(line);
    }
    std::thread::spawn(move || lines.for_each(drop));
}

/// The command of a program inside of a network namespace, or in this one.
pub(crate) fn inside(within: Option<&str>, program: &str, args: &[&str]) -> Command {
    let mut command = match within {
        Some(namespace) => {
            let mut command = Command::new("nsenter");
            command.arg(format!("--net={namespace}")).arg(program);
            command
        }
        None => Command::new(program),
    };
    command.args(args);
    command
}

/// A NATS server.
pub(crate) struct Nats {
    server: Option<Killed>,
    within: Option<String>,
    args: Vec<String>,
    addr: String,
}

impl Nats {
    /// One of this test alone: no other process has this address of the loopback.
    pub(crate) fn start(further: &[&str]) -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let [.., high, low] = std::process::id().to_be_bytes();
        let (host, port) = (format!("127.77.{high}.{low}"), 4300 + NEXT.fetch_add(1, Relaxed));
        Self::at(None, &host, port, further)
    }

    pub(crate) fn at(within: Option<&str>, host: &str, port: u16, further: &[&str]) -> Self {
        let told = port.to_string();
        let args = [&["-a", host, "-p", &told], further].concat();
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let (within, addr) = (within.map(str::to_owned), format!("{host}:{port}"));
        let mut nats = Self { server: None, within, args, addr };
        nats.again();
        nats
    }

    /// Stops it at once, so that what is on its way is lost.
    pub(crate) fn stop(&mut self) {
        self.server = None;
    }

    /// Starts it, or starts it again.
    pub(crate) fn again(&mut self) {
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        self.server = Some(start(self.within.as_deref(), NATS, &args, "Server is ready"));
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://{}", self.addr)
    }

    pub(crate) fn url_as(&self, user: &str, password: &str) -> String {
        format!("nats://{user}:{password}@{}", self.addr)
    }
}

/// An agent that is there.
pub(crate) fn agent(within: Option<&str>, url: &str, name: &str, further: &[&str]) -> Killed {
    let args = [&["agent", "--nats", url, "--name", name], further].concat();
    start(within, LOADGEN, &args, &format!("agent {name} is there"))
}

/// The command of a run by agents.
pub(crate) fn conduct(
    within: Option<&str>,
    url: &str,
    addr: &str,
    agents: u32,
    further: &[&str],
) -> Command {
    let agents = agents.to_string();
    let args = ["run", "--agents", &agents, "--addr", addr, "--json"];
    call(within, url, &[&args, further].concat())
}

/// The command of this program that is told where NATS is; the first word says which.
pub(crate) fn call(within: Option<&str>, url: &str, args: &[&str]) -> Command {
    let mut command = inside(within, LOADGEN, &[&args[..1], &["--nats", url], &args[1..]].concat());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Starts this program with its standard error in a file, and waits until a line of that contains
/// `sign`.
pub(crate) fn logged(args: &[&str], log: &Path, sign: &str) -> Killed {
    let file = std::fs::File::create(log).unwrap();
    let mut command = Command::new(LOADGEN);
    command.args(args).stdout(file.try_clone().unwrap()).stderr(file);
    let mut child = Killed(command.spawn().unwrap());
    loop {
        let said = std::fs::read_to_string(log).unwrap();
        if said.contains(sign) {
            return child;
        }
        assert!(child.0.try_wait().unwrap().is_none(), "it has ended: {said}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// The run in a document, and the exit code.
pub(crate) fn outcome(output: &Output) -> (Value, Option<i32>) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let parsed = serde_json::from_slice::<Value>(&output.stdout);
    let mut document = parsed.unwrap_or_else(|e| panic!("{e}: {said}"));
    (document["run"].take(), output.status.code())
}

/// The reasons of a verdict as one text.
pub(crate) fn reasons(run: &Value) -> String {
    run["verdict"]["reasons"].to_string()
}

/// Three network namespaces: a hub, which has the address [`HUB`], and two that reach it over a
/// veth each. Nothing is left of them when their processes end.
pub(crate) struct Hosts([Killed; 3]);

/// The address of the hub.
pub(crate) const HUB: &str = "10.77.0.1";

impl Hosts {
    pub(crate) fn new() -> Result<Self, String> {
        let hosts = Self([namespace()?, namespace()?, namespace()?]);
        let [hub, ..] = hosts.paths();
        ip(&hub, &["link", "set", "lo", "up"])?;
        ip(&hub, &["address", "add", &format!("{HUB}/32"), "dev", "lo"])?;
        for (n, host) in hosts.paths().iter().enumerate().skip(1) {
            let (here, there) = (format!("10.77.{n}.1"), format!("10.77.{n}.2"));
            let name = format!("host{n}");
            let pid = hosts.0[n].0.id().to_string();
            let pair = ["type", "veth", "peer", "name", "hub", "netns", &pid];
            ip(&hub, &[&["link", "add", name.as_str()][..], &pair].concat())?;
            ip(&hub, &["address", "add", &format!("{here}/30"), "dev", &name])?;
            ip(&hub, &["link", "set", &name, "up"])?;
            ip(host, &["address", "add", &format!("{there}/30"), "dev", "hub"])?;
            ip(host, &["link", "set", "hub", "up"])?;
            ip(host, &["link", "set", "lo", "up"])?;
            ip(host, &["route", "add", HUB, "via", &here])?;
        }
        Ok(hosts)
    }

    /// The files of the namespaces: the hub's, and the others'.
    pub(crate) fn paths(&self) -> [String; 3] {
        [0, 1, 2].map(|n| format!("/proc/{}/ns/net", self.0[n].0.id()))
    }
}

/// A namespace that lives as long as a process, which ends with the test.
fn namespace() -> Result<Killed, String> {
    let mut command = Command::new("unshare");
    command.args(["--net", "cat", "/proc/self/comm", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = Killed(command.spawn().map_err(|e| format!("unshare: {e}"))?);
    let mut first = [0];
    // It writes the first file as soon as it is inside.
    if process.0.stdout.as_mut().unwrap().read_exact(&mut first).is_err() {
        let mut why = String::new();
        let _ = process.0.stderr.take().unwrap().read_to_string(&mut why);
        return Err(why.trim().to_owned());
    }
    Ok(process)
}

fn ip(namespace: &str, args: &[&str]) -> Result<(), String> {
    let done = inside(Some(namespace), "ip", args).output().map_err(|e| format!("ip: {e}"))?;
    let why = String::from_utf8_lossy(&done.stderr).trim().to_owned();
    if done.status.success() { Ok(()) } else { Err(format!("ip {}: {why}", args.join(" "))) }
}

/// An empty folder of this test.
pub(crate) fn folder(name: &str) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("machines").join(name);
    // There may be none yet.
    let _ = std::fs::remove_dir_all(&dir);
    dir
}
