//! The server under test: a real process, started on a port of its own and gone with its case.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, kill_process, kill_process_group, pidfd_open,
    prlimit,
};
use serde_json::Value;

use crate::client::{Client, Dial};
use crate::member::{Member, introduction};
use crate::surroundings::{self, Surroundings};
use crate::usage::{self, Usage};
use crate::watchdog::{Watch, lock};

/// A running server.
pub(crate) struct Server {
    process: Process,
    addr: SocketAddr,
    /// Held open, so that a server which says more than its first line does not fail for it.
    stdout: Option<ChildStdout>,
}

impl Server {
    /// Starts `program` and waits for its `listening on ADDR:PORT`.
    #[track_caller]
    pub(crate) fn start(
        watch: &Arc<Watch>,
        surroundings: Surroundings,
        program: &str,
        args: &[String],
    ) -> Self {
        Self::start_by(watch, surroundings::command(surroundings, program), args)
    }

    /// Starts it by a command of [`surroundings::command`], which may have been changed since.
    #[track_caller]
    pub(crate) fn start_by(watch: &Arc<Watch>, command: Command, args: &[String]) -> Self {
        let process = Process::spawn(watch, command, args, Stdio::piped());
        match Self::listens_or_ends(process) {
            Ok(server) => server,
            Err(outcome) => panic!("the server ended before it listened: {outcome:?}"),
        }
    }

    /// Waits until a process listens, or has ended before.
    #[track_caller]
    pub(crate) fn listens_or_ends(mut process: Process) -> Result<Self, Outcome> {
        let mut stdout = process.child.stdout.take().expect("standard output is piped");
        let Some(line) = line_or_end(&process.watch, &mut stdout) else {
            return Err(process.outcome());
        };
        let addr = listening_on(&line);
        Ok(Self { process, addr, stdout: Some(stdout) })
    }

    /// Waits until a process listens at `addr`, an address of its own, or has ended. For a server
    /// that cannot say which port the kernel picked. A port that the suite had found free would not
    /// do: another case that starts a process at that moment holds it open until that process runs.
    #[track_caller]
    pub(crate) fn unheard(process: Process, addr: &str) -> Self {
        let addr: SocketAddrV4 = addr.parse().expect("an IPv4 address and a port");
        let watch = Arc::clone(&process.watch);
        let mut server = Self { process, addr: addr.into(), stdout: None };
        watch.until("the server to listen or to end", || match usage::listener_at(*addr.ip()) {
            Some(listener) => {
                server.addr = listener;
                true
            }
            None => server.has_ended(),
        });
        server
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Waits until it says that it listens at another address too.
    #[track_caller]
    pub(crate) fn another_addr(&mut self) -> SocketAddr {
        let stdout = self.stdout.as_mut().expect("its standard output is open");
        announced(&self.process.watch, stdout)
    }

    /// Clients connect to this address of the server from now on.
    pub(crate) fn at(&mut self, addr: SocketAddr) -> &mut Self {
        self.addr = addr;
        self
    }

    pub(crate) fn watch(&self) -> &Arc<Watch> {
        &self.process.watch
    }

    /// A new connection.
    #[track_caller]
    pub(crate) fn client(&self) -> Client {
        Client::connect(self.watch(), self.addr, Dial::default())
    }

    /// Many new connections.
    #[track_caller]
    pub(crate) fn clients(&self, count: usize) -> Vec<Client> {
        (0..count).map(|_| self.client()).collect()
    }

    /// A new connection whose kernel buffers hold about `bytes` each way.
    #[track_caller]
    pub(crate) fn client_with_buffers(&self, bytes: usize) -> Client {
        Client::connect(self.watch(), self.addr, Dial { buffers: Some(bytes), from: None })
    }

    /// A new connection from another address of this machine.
    #[track_caller]
    pub(crate) fn client_from(&self, from: impl Into<IpAddr>) -> Client {
        let from = Some(from.into());
        Client::connect(self.watch(), self.addr, Dial { buffers: None, from })
    }

    /// A registered member of the chat.
    #[track_caller]
    pub(crate) fn member(&self, nick: &str) -> Member {
        Member::register(self.client(), nick)
    }

    /// A new connection that has said this before the server can see it. For a server that soon
    /// cuts a client that is silent: no pause of the suite counts as a silence of its client.
    #[track_caller]
    pub(crate) fn prompt_client(&self, words: &str) -> Client {
        self.freeze();
        let mut client = self.client();
        client.send(words);
        self.thaw();
        client
    }

    /// A member of the chat that has introduced itself before the server can see it.
    #[track_caller]
    pub(crate) fn prompt_member(&self, nick: &str) -> Member {
        let mut member = Member::stranger(self.prompt_client(&introduction(nick)));
        nick.clone_into(&mut member.nick);
        member.welcome();
        member
    }

    /// Proves that the server still serves: a new connection gets its line back.
    #[track_caller]
    pub(crate) fn serves(&self) {
        self.client().round_trip("still there?");
    }

    /// The same of a server that soon cuts a client that is silent.
    #[track_caller]
    pub(crate) fn serves_a_prompt_client(&self) {
        self.prompt_client("still there?\n").expect("still there?\n");
    }

    /// Closes the pipes that the server writes to.
    pub(crate) fn close_outputs(&mut self) {
        self.stdout = None;
    }

    #[track_caller]
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.process.log.pid, signal).expect("signal the server");
    }

    /// Stops the server in its tracks (SIGSTOP) and waits until it stands.
    #[track_caller]
    pub(crate) fn freeze(&self) {
        kill_process_group(self.process.log.pid, Signal::STOP).expect("stop the server");
        self.watch().until("the server to be stopped", || {
            let usage = self.usage();
            usage.processes > 0 && usage.stopped == usage.processes
        });
    }

    /// Lets a frozen server go on.
    #[track_caller]
    pub(crate) fn thaw(&self) {
        kill_process_group(self.process.log.pid, Signal::CONT).expect("continue the server");
    }

    /// Lets no more than `most` signals be queued for the processes of this user, where the server
    /// queues one (RLIMIT_SIGPENDING).
    #[track_caller]
    pub(crate) fn limit_queued_signals(&self, most: u64) {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        prlimit(Some(self.process.log.pid), Resource::Sigpending, limit).expect("set the limit");
    }

    /// Lets it have no more processes or threads than it has, or as many as the suite may have. For
    /// root no such limit holds, so it must run in [`Surroundings::Limited`].
    #[track_caller]
    pub(crate) fn limit_processes(&self, no_more: bool) {
        let status = surroundings::limiting(self.process.log.pid, no_more).status();
        assert!(status.is_ok_and(|status| status.success()), "the limit cannot be set");
    }

    /// Its processes, first the one that was started.
    pub(crate) fn processes(&self) -> Vec<Pid> {
        usage::processes(self.process.log.pid)
    }

    /// The process that serves this client.
    #[track_caller]
    pub(crate) fn process_of(&self, client: &Client) -> Pid {
        let holder = usage::holder(self.process.log.pid, self.addr, client.addr());
        holder.expect("a process that holds the connection")
    }

    /// Kills it as `kill -9` does, and waits until it is gone.
    #[track_caller]
    pub(crate) fn kill(&mut self) {
        kill_group(self.process.log.pid);
        self.wait();
    }

    /// Kills it: what it has said after its first line on standard output, and on standard error.
    #[track_caller]
    pub(crate) fn end(mut self) -> (String, Vec<String>) {
        self.process.child.stdout = self.stdout.take();
        kill_group(self.process.log.pid);
        let outcome = self.process.outcome();
        (outcome.stdout, outcome.stderr)
    }

    /// Waits for the end of the process.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.process.wait()
    }

    /// Whether the process has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        matches!(self.process.child.try_wait(), Ok(Some(_)))
    }

    pub(crate) fn usage(&self) -> Usage {
        usage::of_group(self.process.log.pid)
    }

    /// Whether each of its threads waits for something: one that spins is never seen so.
    pub(crate) fn is_asleep(&self) -> bool {
        usage::is_asleep(self.process.log.pid)
    }

    /// How many times what waits for signals has begun to wait. A server may listen a moment before
    /// the thread that does so runs.
    #[track_caller]
    pub(crate) fn waits_of_signals(&self) -> u64 {
        let mut waits = None;
        self.watch().until("a thread that waits for signals", || {
            waits = usage::waits_of_signals(self.process.log.pid);
            waits.is_some()
        });
        waits.unwrap_or_default()
    }

    /// Asks for the counters with SIGUSR1.
    #[track_caller]
    pub(crate) fn counters(&self) -> Value {
        let seen = self.process.log.total();
        self.signal(Signal::USR1);
        let line = self.process.log.wait_for(
            &self.process.watch,
            seen,
            "the counters after SIGUSR1",
            |line| line.contains("\"counters\""),
        );
        counters_of(&line)
    }

    /// Waits until it says a line on standard error that has this in it.
    #[track_caller]
    pub(crate) fn says(&self, part: &str) -> String {
        let what = format!("a line with {part:?} on standard error");
        self.process.log.wait_for(&self.process.watch, 0, &what, |line| line.contains(part))
    }

    /// All that it has said on standard error so far.
    pub(crate) fn said(&self) -> Vec<String> {
        self.process.log.tail(usize::MAX)
    }

    /// Asks for one counter.
    #[track_caller]
    pub(crate) fn counter(&self, name: &str) -> u64 {
        let counters = self.counters();
        let Some(value) = counters[name].as_u64() else {
            panic!("no counter {name:?} in {counters}");
        };
        value
    }

    /// How often something ran out that it needed.
    #[track_caller]
    pub(crate) fn shortages(&self) -> u64 {
        let counters = self.counters();
        counters["errors"]["shortage"].as_u64().expect("a counter of shortages")
    }

    /// What it has said on standard error, after the process has ended.
    #[track_caller]
    pub(crate) fn last_words(&self) -> Vec<String> {
        self.process.log.wait_end(&self.process.watch);
        self.process.log.tail(usize::MAX)
    }

    /// The last line of standard error, after the process has ended.
    #[track_caller]
    pub(crate) fn last_counters(&self) -> Value {
        self.process.log.wait_end(&self.process.watch);
        let lines = self.process.log.tail(usize::MAX);
        let Some(line) = lines.iter().rev().find(|line| line.contains("\"counters\"")) else {
            panic!("no counters on standard error at the end; it says {lines:?}");
        };
        counters_of(line)
    }
}

#[track_caller]
fn counters_of(line: &str) -> Value {
    let parsed: Value = match serde_json::from_str(line) {
        Ok(value) => value,
        Err(error) => panic!("the counters are not one line of JSON ({error}): {line:?}"),
    };
    assert!(parsed["counters"].is_object(), "`counters` is not an object in {line:?}");
    parsed["counters"].clone()
}

/// A process in a group of its own, killed with all its children when dropped, and when the thread
/// that has started it ends.
pub(crate) struct Process {
    child: Child,
    log: Arc<Log>,
    watch: Arc<Watch>,
}

impl Process {
    #[track_caller]
    pub(crate) fn spawn(
        watch: &Arc<Watch>,
        mut command: Command,
        args: &[String],
        stdout: Stdio,
    ) -> Self {
        let spawned =
            command.args(args).stdout(stdout).stderr(Stdio::piped()).process_group(0).spawn();
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) => panic!("cannot start {command:?}: {error}"),
        };
        let log = Arc::new(Log {
            pid: Pid::from_child(&child),
            running: AtomicBool::new(true),
            said: Mutex::default(),
            changed: Condvar::new(),
        });
        watch.add(Arc::clone(&log));
        let stderr = child.stderr.take().expect("standard error is piped");
        let writer = Arc::clone(&log);
        thread::spawn(move || writer.collect(BufReader::new(stderr)));
        Self { child, log, watch: Arc::clone(watch) }
    }

    pub(crate) fn pid(&self) -> Pid {
        self.log.pid
    }

    /// Where it reads from: a pipe, where it was started with one.
    #[track_caller]
    pub(crate) fn stdin(&mut self) -> &mut ChildStdin {
        self.child.stdin.as_mut().expect("standard input is piped")
    }

    /// The next line of its standard output.
    #[track_caller]
    pub(crate) fn line(&mut self) -> String {
        let stdout = self.child.stdout.as_mut().expect("standard output is piped");
        next_line(&self.watch, stdout)
    }

    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        // One that was seen to have ended is there no more.
        if let Ok(Some(status)) = self.child.try_wait() {
            self.log.running.store(false, Ordering::Relaxed);
            return status;
        }
        let left = self.watch.awaiting("the server to exit");
        let pidfd = pidfd_open(self.log.pid, PidfdFlags::empty()).expect("watch the process");
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        let ready = poll(&mut fds, Some(&timespec(left))).expect("wait for the process");
        assert!(ready == 1, "deadline passed while waiting for the server to exit");
        self.log.running.store(false, Ordering::Relaxed);
        self.child.wait().expect("the exit status of a child")
    }

    /// Runs to the end: the exit code and what it said on standard output and standard error.
    #[track_caller]
    pub(crate) fn outcome(mut self) -> Outcome {
        let status = self.wait();
        let mut stdout = String::new();
        if let Some(mut pipe) = self.child.stdout.take() {
            pipe.read_to_string(&mut stdout).expect("what a dead process wrote");
        }
        self.log.wait_end(&self.watch);
        Outcome { code: status.code(), stdout, stderr: self.log.tail(usize::MAX) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        kill_group(self.log.pid);
        self.log.running.store(false, Ordering::Relaxed);
        // The process is killed; that it cannot be waited for would change nothing.
        drop(self.child.wait());
    }
}

/// How a process that was not meant to go on ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: Vec<String>,
}

/// What a process says on standard error, and which one it is.
pub(crate) struct Log {
    pub(crate) pid: Pid,
    running: AtomicBool,
    said: Mutex<Said>,
    changed: Condvar,
}

#[derive(Default)]
struct Said {
    lines: VecDeque<String>,
    /// Lines ever said; `lines` keeps the last of them.
    total: usize,
    ended: bool,
}

impl Log {
    /// Lines kept of one process; a server that logs without end must not fill our memory.
    const KEPT: usize = 2000;

    /// The last lines, at most `count`.
    pub(crate) fn tail(&self, count: usize) -> Vec<String> {
        let said = lock(&self.said);
        said.lines.iter().skip(said.lines.len().saturating_sub(count)).cloned().collect()
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running.load(Ordering::Relaxed)
    }

    fn total(&self) -> usize {
        lock(&self.said).total
    }

    fn collect(&self, mut stderr: impl BufRead) {
        let mut line = Vec::new();
        // An error reads like the end: there will be no more lines.
        while stderr.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            let mut said = lock(&self.said);
            said.lines.push_back(String::from_utf8_lossy(&line).trim_end().to_owned());
            said.total += 1;
            if said.lines.len() > Self::KEPT {
                said.lines.pop_front();
            }
            line.clear();
            self.changed.notify_all();
        }
        lock(&self.said).ended = true;
        self.changed.notify_all();
    }

    /// Waits for a line that is said after the first `seen` lines and that `wanted` accepts.
    #[track_caller]
    fn wait_for(
        &self,
        watch: &Watch,
        mut seen: usize,
        what: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> String {
        let mut said = lock(&self.said);
        loop {
            let fresh = said.total - seen;
            let skip = said.lines.len().saturating_sub(fresh);
            if let Some(line) = said.lines.iter().skip(skip).find(|line| wanted(line)) {
                return line.clone();
            }
            assert!(!said.ended, "standard error ended before {what}");
            seen = said.total;
            let waited = self.changed.wait_timeout(said, watch.awaiting(what));
            said = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    #[track_caller]
    fn wait_end(&self, watch: &Watch) {
        let mut said = lock(&self.said);
        while !said.ended {
            let waited =
                self.changed.wait_timeout(said, watch.awaiting("the end of standard error"));
            said = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Kills a process and all its children.
pub(crate) fn kill_group(group: Pid) {
    // It fails only if there is no process left to kill.
    let _ = kill_process_group(group, Signal::KILL);
}

pub(crate) fn timespec(duration: std::time::Duration) -> Timespec {
    Timespec {
        tv_sec: duration.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

/// Where the server says that it listens.
#[track_caller]
fn announced(watch: &Watch, stdout: &mut ChildStdout) -> SocketAddr {
    listening_on(&next_line(watch, stdout))
}

#[track_caller]
fn listening_on(line: &str) -> SocketAddr {
    let addr = line.strip_prefix("listening on ").and_then(|addr| addr.parse().ok());
    addr.unwrap_or_else(|| {
        panic!("expected `listening on ADDR:PORT` on standard output, got {line:?}")
    })
}

#[track_caller]
fn next_line(watch: &Watch, stdout: &mut ChildStdout) -> String {
    line_or_end(watch, stdout).expect("the server ended before it listened")
}

/// The next line, or `None` where the output ends without one.
#[track_caller]
fn line_or_end(watch: &Watch, stdout: &mut ChildStdout) -> Option<String> {
    let mut line = Vec::new();
    loop {
        let left = watch.awaiting("`listening on` from the server");
        let mut fds = [PollFd::from_borrowed_fd(stdout.as_fd(), PollFlags::IN)];
        if poll(&mut fds, Some(&timespec(left))).expect("poll a pipe") == 0 {
            continue;
        }
        // Byte by byte: what comes after the line must stay in the pipe.
        let mut byte = [0];
        match stdout.read(&mut byte) {
            Ok(1) if byte[0] != b'\n' => line.push(byte[0]),
            Ok(0) if line.is_empty() => return None,
            Ok(_) => return Some(String::from_utf8_lossy(&line).into_owned()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => panic!("reading the server's standard output: {error}"),
        }
    }
}
