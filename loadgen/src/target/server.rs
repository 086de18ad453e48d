//! The server under test: started, found listening, watched, and never left running.
//!
//! It is started through this program's own hidden `exec` command, which asks the kernel to end it
//! when its parent ends, moves it to its processors, and only then becomes the server. So neither
//! Ctrl-C nor a crash of ours leaves a server behind, and no thread of it ever ran elsewhere. Those
//! that we know are killed then, because a suspended one would never look at a SIGTERM. A command
//! of the user's own is asked to end: it may have processes to take along.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, bail};
use rustix::process::Signal;
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use super::process::Process;
use super::{How, Target, split, words};
use crate::base::limits::Shortage;
use crate::base::signals::OWN;
use crate::workload::{Mode, Workload};

/// How long a server may take until it listens.
pub(super) const START: Duration = Duration::from_secs(10);
/// Connections above those of the workload: the gate's, and the first one's.
const SPARE: u32 = 16;

/// What servers say whose port another program has taken: the system's own words.
const TAKEN: &str = "Address already in use";
/// Ports that are tried with a server that says so.
const ATTEMPTS: u32 = 4;

/// Where a server listens that only this machine is to reach.
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// How a server is to be started.
#[derive(Clone, Debug)]
pub struct Start<'a> {
    /// The address of this machine at which it is to listen, on a free port.
    pub host: IpAddr,
    /// What it is to speak.
    pub mode: Mode,
    /// Connections it must take, all from one address if need be.
    pub connections: u32,
    /// Its core budget.
    pub workers: u32,
    /// How long it is to hold back every reply.
    pub wait: Duration,
    /// How long it is to compute for every line.
    pub work: Duration,
    /// Processors to run on; `None` leaves it to the kernel.
    pub cpus: Option<&'a [usize]>,
}

impl<'a> Start<'a> {
    /// On the loopback, with replies as soon as they can be. No `cpus` leave the processors to the
    /// kernel.
    pub fn new(mode: Mode, connections: u32, workers: u32, cpus: &'a [usize]) -> Self {
        let cpus = Some(cpus).filter(|cpus| !cpus.is_empty());
        let (wait, work) = (Duration::ZERO, Duration::ZERO);
        Self { host: LOOPBACK, mode, connections, workers, wait, work, cpus }
    }

    /// The same with the times that a workload wants the server to take for a line.
    pub fn busy_as(self, workload: &Workload) -> Self {
        Self { wait: workload.wait, work: workload.work, ..self }
    }
}

/// A server that listens. Dropping it ends its whole process group.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub addr: SocketAddr,
    process: Option<Process>,
    watched: Option<i32>,
    /// The folder with its files. It goes after the process: fields are dropped in their order.
    _folder: Option<TempDir>,
}

impl Server {
    /// Starts a target, or only takes its address if it is running, and waits until it listens.
    pub fn start(target: &Target, start: &Start<'_>) -> Result<Self> {
        let listen = SocketAddr::new(start.host, 0).to_string();
        let (program, args) = match &target.how {
            How::Running(addrs, pid) => {
                return Ok(Self {
                    addr: answering(addrs)?,
                    process: None,
                    watched: *pid,
                    _folder: None,
                });
            }
            How::Package(package, _) | How::Bare(package) => bail!("{package} has not been built"),
            How::Elsewhere(model) => bail!("{model} is started by the agent beside it"),
            How::Command(command) => return Self::start_command(target, command, start),
            How::Null(work) => {
                let work = format!("{}ns", work.as_nanos());
                let args = ["null-server", "--listen", &listen, "--work", &work];
                (OWN.into(), args.map(str::to_owned).to_vec())
            }
            How::Program(program, args) => (program.clone(), common_flags(args, start)),
            How::Plain(program) => (program.clone(), vec![listen]),
        };
        let (mut process, lines) =
            Process::spawn(&program.to_string_lossy(), &args, start.cpus, Signal::KILL)?;
        let line =
            process.first_line(&lines).with_context(|| format!("{} did not start", target.name))?;
        let addr = line
            .strip_prefix("listening on ")
            .and_then(|addr| addr.parse().ok())
            .ok_or_else(|| {
                anyhow!(
                    "{}: its first line is {line:?}, not \"listening on ADDR:PORT\"",
                    target.name
                )
            })?;
        Ok(Self { addr, process: Some(process), watched: None, _folder: None })
    }

    /// Starts a command that does not tell where it listens: on a port that was free just now, and
    /// on another one where a program has taken that port before the server does.
    fn start_command(target: &Target, command: &str, start: &Start<'_>) -> Result<Self> {
        let mut attempt = 1;
        loop {
            let started = Self::try_command(target, command, start);
            let taken = |error: &Error| format!("{error:#}").contains(TAKEN);
            if attempt == ATTEMPTS || !started.as_ref().is_err_and(taken) {
                return started;
            }
            attempt += 1;
        }
    }

    fn try_command(target: &Target, command: &str, start: &Start<'_>) -> Result<Self> {
        let addr = match TcpListener::bind(SocketAddr::new(start.host, 0)) {
            Err(e) if e.kind() == ErrorKind::AddrInUse => bail!(Shortage::of_ports()),
            other => other?.local_addr()?,
        };
        let folder = folder(target)?;
        let dir = folder.as_ref().map(|folder| folder.path().display().to_string());
        // Split first: what is filled in is never taken apart.
        let fill = |text: String| {
            let text = text
                .replace("{addr}", &addr.to_string())
                .replace("{host}", &addr.ip().to_string())
                .replace("{port}", &addr.port().to_string())
                .replace("{mode}", start.mode.name());
            match &dir {
                Some(dir) => text.replace("{dir}", dir),
                None => text,
            }
        };
        if let Some(folder) = &folder {
            for (name, template) in &target.files {
                std::fs::write(folder.path().join(name), fill(template.clone()))
                    .with_context(|| format!("cannot write {name} for {}", target.name))?;
            }
        }
        // A server with files may have it in them where it is to listen.
        let words = if folder.is_some() { split(command)? } else { words(command)? };
        let words: Vec<_> = words.into_iter().map(fill).collect();
        let (program, args) = words.split_first().context("the command is empty")?;
        let (mut process, _lines) = Process::spawn(program, args, start.cpus, Signal::TERM)?;
        let began = Instant::now();
        // Nothing but trying tells when a foreign program listens; its end is the only event.
        while !listens(addr)? {
            if process.wait(Duration::from_millis(20)) {
                bail!("{} did not start: {}", target.name, process.obituary());
            }
            if began.elapsed() > START {
                let seconds = START.as_secs();
                let filled = words.join(" ");
                bail!("{} does not listen on {addr} after {seconds} s: {filled}", target.name);
            }
        }
        Ok(Self { addr, process: Some(process), watched: None, _folder: folder })
    }

    /// The process whose costs are the server's, if there is one on this machine.
    pub fn pid(&self) -> Option<i32> {
        self.watched.or_else(|| self.process.as_ref().map(|p| p.id()))
    }

    /// Fails, with its last words, if the server has ended by itself or does so within `patience`.
    pub fn check_alive(&mut self, patience: Duration) -> Result<()> {
        if let Some(process) = &mut self.process
            && process.wait(patience)
        {
            bail!("the server ended in the middle of the run: {}", process.obituary())
        }
        Ok(())
    }

    /// Keeps it from running, and from spinning, until it is resumed.
    pub fn suspend(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it run again.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            process.signal(signal);
        }
    }

    /// Asks the server to end, and insists after a while. Returns what was wrong with its end.
    pub fn stop(mut self) -> Option<String> {
        self.process.take().and_then(|mut process| process.stop())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            process.stop();
        }
    }
}

/// A new folder for the files of a server, if it has any.
fn folder(target: &Target) -> Result<Option<TempDir>> {
    if target.files.is_empty() {
        return Ok(None);
    }
    let prefix = format!("loadgen-{}-", target.name);
    let folder = tempfile::Builder::new().prefix(&prefix).tempdir();
    Ok(Some(folder.with_context(|| format!("cannot make a folder for {}", target.name))?))
}

/// The first of the addresses that accepts a connection. A single one is not tried: the first
/// contact does that.
fn answering(addrs: &[SocketAddr]) -> Result<SocketAddr> {
    if let [addr] = addrs {
        return Ok(*addr);
    }
    let mut failed = Vec::new();
    for &addr in addrs {
        match TcpStream::connect_timeout(&addr, START) {
            Ok(_) => return Ok(addr),
            Err(e) => failed.push(format!("{addr}: {e}")),
        }
    }
    bail!("cannot connect to any address ({}); is a server listening there?", failed.join("; "))
}

/// Whether a server accepts connections at an address of this machine. A connect that happens to be
/// given the very port that it asks for meets itself: so a loopback address is asked from another
/// one, and elsewhere such a connection does not count.
fn listens(addr: SocketAddr) -> Result<bool> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    if addr.ip() == LOOPBACK {
        socket.bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into())?;
    }
    if socket.connect_timeout(&addr.into(), START).is_err() {
        return Ok(false);
    }
    Ok(socket.local_addr()?.as_socket() != Some(addr))
}

/// The flags that every server of the workspace takes.
fn common_flags(args: &[String], start: &Start<'_>) -> Vec<String> {
    let connections = (start.connections + SPARE).to_string();
    let listen = SocketAddr::new(start.host, 0).to_string();
    let mut flags: Vec<String> = args.to_vec();
    let pairs = [
        ("--listen", listen.as_str()),
        ("--mode", start.mode.name()),
        ("--workers", &start.workers.to_string()),
        ("--max-connections", &connections),
        ("--max-connections-per-ip", &connections),
    ];
    flags.extend(pairs.iter().flat_map(|(flag, value)| [(*flag).into(), (*value).into()]));
    // The load of a chat is a flood: it is to find out what the server can bear.
    if start.mode == Mode::Chat {
        flags.push("--no-flood-control".into());
    }
    for (flag, duration) in [("--wait", start.wait), ("--work", start.work)] {
        if !duration.is_zero() {
            flags.extend([flag.into(), humantime::format_duration(duration).to_string()]);
        }
    }
    flags
}
