//! A process that traces the server and lets its system calls fail: what the real program does when
//! the kernel says no.
//!
//! The server runs with a filter (seccomp) that stops it before each call of `tracee::CALLS` and no
//! other. It stands until this process has looked at the call. Then it makes the call, or the call
//! is left out and it gets an error. The error of a request in a ring of io_uring comes with the
//! completion: so the request is replaced by one that does nothing and completes with the error.
//!
//! The suite says on standard input which call is to fail next, and asks what has been called.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::io::{self, BufRead, Write};
use std::sync::{Arc, Mutex};
use std::{process, thread};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::unistd::Pid;
use rustix::process::{Signal, WaitOptions, WaitStatus, set_parent_process_death_signal, wait};
use serde::{Deserialize, Serialize};

use crate::tracee::{Call, Tracee};
use crate::watchdog::lock;

/// The next call of this name on a descriptor of this kind fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fault {
    pub(crate) call: String,
    /// What the descriptor is, as [`Call::kind`] says it.
    pub(crate) kind: String,
    /// For a connection, the client's port; 0 for any.
    pub(crate) port: u16,
    /// How many such calls are made before.
    pub(crate) after: u64,
    /// The number of the error.
    pub(crate) errno: i32,
}

/// What has happened since the last order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Whether the call has failed that was to fail.
    pub(crate) struck: bool,
    /// How often each call was made: its name and what its descriptor is.
    pub(crate) seen: BTreeMap<String, u64>,
}

impl Report {
    /// How many calls were made.
    pub(crate) fn calls(&self) -> u64 {
        self.seen.values().sum()
    }
}

/// What the suite says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// From now on: lets nothing fail, or this.
    Watch(Option<Fault>),
    /// Asks for a report.
    Tell,
}

#[derive(Default)]
struct State {
    fault: Option<Fault>,
    report: Report,
}

impl State {
    /// Notes a call: the error that it is to fail with.
    fn meet(&mut self, call: &Call) -> Option<Errno> {
        *self.report.seen.entry(format!("{} {}", call.name, call.kind)).or_default() += 1;
        let fits = |fault: &mut Fault| {
            let port = fault.port == 0 || fault.port == call.port;
            let fits = fault.call == call.name && fault.kind == call.kind && port;
            let strikes = fits && fault.after == 0;
            fault.after -= u64::from(fits && !strikes);
            strikes
        };
        let fault = self.fault.take_if(fits)?;
        self.report.struck = true;
        Some(Errno::from_raw(fault.errno))
    }
}

/// Traces a process and all that it starts, until they have ended.
pub(crate) fn trace(server: &str) -> Result<(), Box<dyn Error>> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let options = Options::PTRACE_O_EXITKILL
        | Options::PTRACE_O_TRACESECCOMP
        | Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK;
    ptrace::seize(Pid::from_raw(server.parse()?), options)?;
    let state = Arc::new(Mutex::new(State::default()));
    let shared = Arc::clone(&state);
    thread::Builder::new().spawn(move || {
        // Without a suite there is nothing to trace for, and the server ends with this process.
        let Err(error) = obey(&shared) else { process::exit(0) };
        eprintln!("conformance: the tracer cannot go on: {error}");
        process::exit(1)
    })?;
    writeln!(io::stdout(), "tracing")?;

    // Also threads (`__WALL`), which have no name in rustix.
    let all = WaitOptions::from_bits_retain(nix::libc::__WALL as u32);
    let mut tracees = HashMap::new();
    loop {
        match wait(all) {
            Ok(Some((pid, status))) => {
                let pid = Pid::from_raw(pid.as_raw_nonzero().get());
                if status.stopped() {
                    let tracee = tracees.entry(pid).or_insert_with(|| Tracee::new(pid));
                    unless_gone(stopped(tracee, status, &state))?;
                } else {
                    tracees.remove(&pid);
                }
            }
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CHILD) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Carries out the orders of the suite, until there are no more.
fn obey(state: &Mutex<State>) -> Result<(), Box<dyn Error>> {
    for line in io::stdin().lock().lines() {
        let report = match serde_json::from_str(&line?)? {
            Order::Watch(fault) => {
                *lock(state) = State { fault, report: Report::default() };
                Report::default()
            }
            Order::Tell => lock(state).report.clone(),
        };
        writeln!(io::stdout(), "{}", serde_json::to_string(&report)?)?;
    }
    Ok(())
}

/// A thread of the server may be killed while it stands.
fn unless_gone(result: nix::Result<()>) -> nix::Result<()> {
    if result == Err(Errno::ESRCH) { Ok(()) } else { result }
}

/// Looks at why a thread of the server stands, and lets it go on.
fn stopped(tracee: &mut Tracee, status: WaitStatus, state: &Mutex<State>) -> nix::Result<()> {
    let (signal, event) = (status.stopping_signal().unwrap_or_default(), status.as_raw() >> 16);
    if event == nix::libc::PTRACE_EVENT_SECCOMP {
        return tracee.before(|call| lock(state).meet(call));
    }
    // The lowest bit that is not a signal's number marks the stop after a call (TRACESYSGOOD).
    if signal == nix::libc::SIGTRAP | 0x80 {
        return tracee.after();
    }
    // Any other event is told with a signal that was not sent.
    let sent = if event == 0 { nix::sys::signal::Signal::try_from(signal).ok() } else { None };
    ptrace::cont(tracee.pid, sent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(kind: &'static str, port: u16) -> Call {
        Call { name: "recvfrom".to_owned(), kind: kind.to_owned(), port }
    }

    #[test]
    fn a_fault_strikes_once_and_where_it_is_meant_to() {
        let errno = Errno::ECONNRESET as i32;
        let (name, kind) = ("recvfrom".to_owned(), "client".to_owned());
        let fault = Some(Fault { call: name, kind, port: 7, after: 1, errno });
        let mut state = State { fault, report: Report::default() };
        assert_eq!(state.meet(&call("listener", 7)), None);
        assert_eq!(state.meet(&call("client", 8)), None);
        assert_eq!(state.meet(&call("client", 7)), None, "one is let through");
        assert!(!state.report.struck);
        assert_eq!(state.meet(&call("client", 7)), Some(Errno::ECONNRESET));
        assert_eq!(state.meet(&call("client", 7)), None);
        assert!(state.report.struck);
        assert_eq!(state.report.calls(), 5);
        assert_eq!(state.report.seen["recvfrom client"], 4);
    }
}
