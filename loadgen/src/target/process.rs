//! The process of a server: started, listened to, waited for, and ended with its whole group.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};

use super::cpus::format_cpus;
use super::server::START;
use crate::base::signals::OWN;

/// How long a server may take to end after SIGTERM.
const STOP: Duration = Duration::from_secs(5);
/// How long the last words of a server that has ended are waited for.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Lines of standard error that are kept for messages.
const TAIL: usize = 12;

#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    tail: Arc<Mutex<VecDeque<String>>>,
    /// Closed once standard error has been read to its end.
    tail_end: Receiver<()>,
    /// Closed once it has ended.
    end: Receiver<()>,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts a program in a process group of its own. Lines of its standard output come through
    /// the channel; standard error is kept. When this process ends it gets the signal `orphaned`.
    pub(super) fn spawn(
        program: &str,
        args: &[String],
        cpus: Option<&[usize]>,
        orphaned: Signal,
    ) -> Result<(Self, Receiver<String>)> {
        let cpus = cpus.map(format_cpus).unwrap_or_default();
        let [parent, signal] =
            [std::process::id(), orphaned.as_raw() as u32].map(|n| n.to_string());
        let mut child = Command::new(OWN)
            .args(["exec", "--cpus", &cpus, "--parent", &parent, "--signal", &signal, "--"])
            .arg(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start this program again to become {program}"))?;
        let end = end_of(&child);
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
        Ok((Self { child, tail, tail_end, end, ended: None }, lines))
    }

    /// Its number.
    pub(super) fn id(&self) -> i32 {
        self.child.id() as i32
    }

    /// Sends a signal to its whole group. A process that has ended is noticed when it is asked for
    /// something.
    pub(super) fn signal(&self, signal: Signal) {
        let _ = rustix::process::kill_process_group(Pid::from_child(&self.child), signal);
    }

    /// The first line that it says.
    pub(super) fn first_line(&mut self, lines: &Receiver<String>) -> Result<String> {
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
    pub(super) fn wait(&mut self, timeout: Duration) -> bool {
        if self.ended.is_none()
            && self.end.recv_timeout(timeout) == Err(RecvTimeoutError::Disconnected)
        {
            self.ended = self.child.try_wait().unwrap_or(None);
        }
        self.ended.is_some()
    }

    /// Whether it has ended by itself as it should, or by the SIGINT that it was sent.
    pub(super) fn succeeded(&self) -> bool {
        let interrupted = Some(Signal::INT.as_raw());
        self.ended.is_some_and(|status| status.success() || status.signal() == interrupted)
    }

    /// Asks it to end, and insists after a while. Returns what was wrong with its end.
    pub(super) fn stop(&mut self) -> Option<String> {
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
    pub(super) fn obituary(&self) -> String {
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

/// A channel that is closed once a child has ended. A thread of its own waits for that, so that it
/// takes no descriptor that a system may refuse. It does not reap the child: until then the number
/// of the process stays its own.
fn end_of(child: &Child) -> Receiver<()> {
    let (open, end) = channel();
    let pid = WaitId::Pid(Pid::from_child(child));
    std::thread::spawn(move || {
        let _open: Sender<()> = open;
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while let Err(Errno::INTR) = waitid(pid.clone(), options) {}
    });
    end
}

/// Hands every line of `pipe` to `take`, on a thread of its own, until the pipe is closed.
fn each_line(pipe: impl Read + Send + 'static, mut take: impl FnMut(String) + Send + 'static) {
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            take(String::from_utf8_lossy(&line).trim_end().to_owned());
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_has_ended_is_said_to_have() {
        let child = Command::new("true").process_group(0).spawn().unwrap();
        let (end, (_, tail_end)) = (end_of(&child), channel());
        let mut process = Process { child, tail: Arc::default(), tail_end, end, ended: None };
        while !process.wait(Duration::from_secs(1)) {}
        let told = process.stop().unwrap();
        assert!(told.starts_with("the server ended by itself: exit code 0"), "{told}");
    }
}
