//! The server under test: started, found listening, watched, and never left running.
//!
//! It is started through this program's own hidden `exec` command, which asks the kernel to end it
//! when its parent ends, moves it to its processors, and only then becomes the server. So neither
//! Ctrl-C nor a crash of ours leaves a server behind, and no thread of it ever ran elsewhere. Those
//! that we know are killed then, because a suspended one would never look at a SIGTERM. A command
//! of the user's own is asked to end: it may have processes to take along.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal};
use rustix::thread::CpuSet;
use rustix::time::Timespec;
use socket2::{Domain, Socket, Type};

use crate::drive::Shortage;
use crate::models::{How, Target};
use crate::workload::Mode;

/// How long a server may take until it listens.
const START: Duration = Duration::from_secs(10);
/// How long a server may take to end after SIGTERM.
const STOP: Duration = Duration::from_secs(5);
/// How long the last words of a server that has ended are waited for.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Connections above those of the workload: the gate's, and the first one's.
const SPARE: u32 = 16;
/// Lines of standard error that are kept for messages.
const TAIL: usize = 12;

/// How a server is to be started.
#[derive(Clone, Debug)]
pub struct Start<'a> {
    /// What it is to speak.
    pub mode: Mode,
    /// Connections it must take, all from one address if need be.
    pub connections: u32,
    /// Its core budget.
    pub workers: u32,
    /// Whether chat's flood control is off, as fan-out at full speed needs it.
    pub no_flood_control: bool,
    /// How long it is to hold back every reply.
    pub wait: Duration,
    /// How long it is to compute for every line.
    pub work: Duration,
    /// Processors to run on; `None` leaves it to the kernel.
    pub cpus: Option<&'a [usize]>,
}

/// A server that listens. Dropping it ends its whole process group.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub addr: SocketAddr,
    process: Option<Process>,
    watched: Option<i32>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    tail: Arc<Mutex<VecDeque<String>>>,
    /// Closed once standard error has been read to its end.
    tail_end: Receiver<()>,
    ended: Option<ExitStatus>,
}

impl Server {
    /// Starts a target, or only takes its address if it is running, and waits until it listens.
    pub fn start(target: &Target, start: &Start<'_>) -> Result<Self> {
        let own = || std::env::current_exe().context("cannot find this program's own file");
        let (program, args) = match &target.how {
            How::Running(addr, pid) => {
                return Ok(Self { addr: *addr, process: None, watched: *pid });
            }
            How::Package(package, _) => bail!("{package} has not been built"),
            How::Command(command) => return Self::start_command(target, command, start),
            How::Null(work) => {
                let work = format!("{}ns", work.as_nanos());
                let args = ["null-server", "--listen", "127.0.0.1:0", "--work", &work];
                (own()?, args.map(str::to_owned).to_vec())
            }
            How::Program(program, args) => (program.clone(), common_flags(args, start)),
        };
        let (mut process, lines) =
            Process::spawn(&program.to_string_lossy(), &args, start, Signal::KILL)?;
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
        Ok(Self { addr, process: Some(process), watched: None })
    }

    /// Starts a command that does not tell where it listens: on a port that was free just now.
    fn start_command(target: &Target, command: &str, start: &Start<'_>) -> Result<Self> {
        let addr = match TcpListener::bind("127.0.0.1:0") {
            Err(e) if e.kind() == ErrorKind::AddrInUse => bail!(Shortage::of_ports()),
            other => other?.local_addr()?,
        };
        let filled =
            command.replace("{addr}", &addr.to_string()).replace("{mode}", start.mode.name());
        let mut words = filled.split_whitespace().map(str::to_owned);
        let program = words.next().context("the command is empty")?;
        let words: Vec<_> = words.collect();
        let (mut process, _lines) = Process::spawn(&program, &words, start, Signal::TERM)?;
        let began = Instant::now();
        // Nothing but trying tells when a foreign program listens; its end is the only event.
        while !listens(addr)? {
            if process.wait(Duration::from_millis(20)) {
                bail!("{} did not start: {}", target.name, process.obituary());
            }
            if began.elapsed() > START {
                let seconds = START.as_secs();
                bail!("{} does not listen on {addr} after {seconds} s: {filled}", target.name);
            }
        }
        Ok(Self { addr, process: Some(process), watched: None })
    }

    /// The process whose costs are the server's, if there is one on this machine.
    pub fn pid(&self) -> Option<i32> {
        self.watched.or_else(|| self.process.as_ref().map(|p| p.child.id() as i32))
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
            // One that has ended is noticed when it is asked for something.
            let group = Pid::from_child(&process.child);
            let _ = rustix::process::kill_process_group(group, signal);
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

/// Whether somebody accepts connections at an IPv4 loopback address. It is asked from another one,
/// or a connect that happens to be given the very port that it asks for would meet itself.
fn listens(addr: SocketAddr) -> Result<bool> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into())?;
    Ok(socket.connect_timeout(&addr.into(), START).is_ok())
}

/// The flags that every server of the workspace takes.
fn common_flags(args: &[String], start: &Start<'_>) -> Vec<String> {
    let connections = (start.connections + SPARE).to_string();
    let mut flags: Vec<String> = args.to_vec();
    let pairs = [
        ("--listen", "127.0.0.1:0"),
        ("--mode", start.mode.name()),
        ("--workers", &start.workers.to_string()),
        ("--max-connections", &connections),
        ("--max-connections-per-ip", &connections),
    ];
    flags.extend(pairs.iter().flat_map(|(flag, value)| [(*flag).into(), (*value).into()]));
    if start.no_flood_control {
        flags.push("--no-flood-control".into());
    }
    for (flag, duration) in [("--wait", start.wait), ("--work", start.work)] {
        if !duration.is_zero() {
            flags.extend([flag.into(), humantime::format_duration(duration).to_string()]);
        }
    }
    flags
}

impl Process {
    /// Starts a program in a process group of its own. Lines of its standard output come through
    /// the channel; standard error is kept. When this process ends it gets the signal `orphaned`.
    fn spawn(
        program: &str,
        args: &[String],
        start: &Start<'_>,
        orphaned: Signal,
    ) -> Result<(Self, Receiver<String>)> {
        let cpus = start.cpus.map(format_cpus).unwrap_or_default();
        let [parent, signal] =
            [std::process::id(), orphaned.as_raw() as u32].map(|n| n.to_string());
        let mut child = Command::new(std::env::current_exe()?)
            .args(["exec", "--cpus", &cpus, "--parent", &parent, "--signal", &signal, "--"])
            .arg(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        let tail = Arc::new(Mutex::new(VecDeque::new()));
        let (sender, lines) = channel();
        if let Some(stdout) = child.stdout.take() {
            // Read to the end, wanted or not, so that the server never blocks on a full pipe.
            each_line(stdout, move |line| drop(sender.send(line)));
        }
        let (tail_open, tail_end) = channel();
        if let Some(stderr) = child.stderr.take() {
            let tail = tail.clone();
            each_line(stderr, move |line| {
                // It is held for as long as there may be more.
                let _open: &Sender<()> = &tail_open;
                let mut tail = tail.lock().unwrap_or_else(|e| e.into_inner());
                if tail.len() == TAIL {
                    tail.pop_front();
                }
                tail.push_back(line);
            });
        }
        Ok((Self { child, tail, tail_end, ended: None }, lines))
    }

    fn first_line(&mut self, lines: &Receiver<String>) -> Result<String> {
        match lines.recv_timeout(START) {
            Ok(line) => Ok(line),
            Err(RecvTimeoutError::Timeout) => {
                bail!("it does not say where it listens after {} s", START.as_secs())
            }
            Err(RecvTimeoutError::Disconnected) => {
                self.wait(STOP);
                bail!("{}", self.obituary())
            }
        }
    }

    /// Whether the process ends within `timeout`.
    fn wait(&mut self, timeout: Duration) -> bool {
        if self.ended.is_none() {
            let pid = Pid::from_child(&self.child);
            if let Ok(fd) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
                let timeout = Timespec {
                    tv_sec: timeout.as_secs() as i64,
                    tv_nsec: i64::from(timeout.subsec_nanos()),
                };
                let _ = poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout));
            }
            self.ended = self.child.try_wait().unwrap_or(None);
        }
        self.ended.is_some()
    }

    fn stop(&mut self) -> Option<String> {
        let group = Pid::from_child(&self.child);
        let mut complaint = None;
        if self.wait(Duration::ZERO) {
            complaint = Some(format!("the server ended by itself: {}", self.obituary()));
        } else {
            let _ = rustix::process::kill_process(group, Signal::TERM);
            // A suspended one would not hear it.
            let _ = rustix::process::kill_process_group(group, Signal::CONT);
            if !self.wait(STOP) {
                let seconds = STOP.as_secs();
                complaint = Some(format!("the server did not end within {seconds} s of SIGTERM"));
            } else if self.ended.is_some_and(|status| status.code() == Some(1)) {
                complaint = Some(format!("the server failed while stopping: {}", self.obituary()));
            }
        }
        // Whatever of the group is left, children that outlived their parent included.
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
        self.wait(STOP);
        complaint
    }

    /// How it ended and what it said last.
    fn obituary(&self) -> String {
        let end = match self.ended {
            Some(status) => match (status.code(), status.signal()) {
                (Some(code), _) => format!("exit code {code}"),
                (None, Some(signal)) => format!("killed by signal {signal}"),
                (None, None) => status.to_string(),
            },
            None => "still running".into(),
        };
        if self.ended.is_some() {
            // Its last words may still be in the pipe, which a child of its own may hold open.
            let _ = self.tail_end.recv_timeout(LAST_WORDS);
        }
        let tail = self.tail.lock().unwrap_or_else(|e| e.into_inner());
        if tail.is_empty() {
            return format!("{end}, and nothing on its standard error");
        }
        let lines: Vec<_> = tail.iter().map(|line| format!("\n    {line}")).collect();
        format!("{end}; its standard error ends:{}", lines.concat())
    }
}

/// Hands every line of `pipe` to `take`, on a thread of its own, until the pipe is closed.
fn each_line(pipe: impl Read + Send + 'static, mut take: impl FnMut(String) + Send + 'static) {
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            take(String::from_utf8_lossy(&line).trim_end().to_owned());
        }
    });
}

/// Becomes `command`, on `cpus`, getting `signal` when `parent` ends. Returns only if that fails.
pub fn exec(cpus: &[usize], parent: u32, signal: i32, command: &[String]) -> anyhow::Error {
    let prepare = || -> Result<()> {
        let signal = Signal::from_named_raw(signal).context("--signal names no signal")?;
        rustix::process::set_parent_process_death_signal(Some(signal))?;
        // It may have ended before the kernel was asked to watch it.
        let now = rustix::process::getppid().map_or(0, Pid::as_raw_pid);
        if now != parent as i32 {
            bail!("the load generator has ended");
        }
        if !cpus.is_empty() {
            pin(cpus)?;
        }
        Ok(())
    };
    if let Err(e) = prepare() {
        return e;
    }
    let error = Command::new(&command[0]).args(&command[1..]).exec();
    anyhow!("cannot run {}: {error}", command[0])
}

/// Moves the calling thread, and the threads it will start, to `cpus`.
pub fn pin(cpus: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    cpus.iter().for_each(|&cpu| set.set(cpu));
    rustix::thread::sched_setaffinity(None, &set).with_context(|| {
        format!(
            "cannot run on processors {}; --server-cpus and --generator-cpus must name \
                 processors of this machine",
            format_cpus(cpus)
        )
    })
}

/// `[0, 1]` as `0,1`.
pub fn format_cpus(cpus: &[usize]) -> String {
    cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

/// Raises the soft limit on descriptors to the hard one. Servers started later inherit it.
pub fn raise_descriptor_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Where even this is refused, the shortage is reported when it is felt.
    let _ = rustix::process::setrlimit(Resource::Nofile, raised);
}

/// The current limit on descriptors.
pub fn descriptor_limit() -> u64 {
    rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}
