//! A server whose system calls can be made to fail, and what says which.

use std::io::Write;
use std::process::Stdio;
use std::sync::Arc;

use crate::server::{Outcome, Process, Server};
use crate::surroundings::{self, READY, Surroundings};
use crate::tracer::{Fault, Order, Report};
use crate::watchdog::Watch;

/// A server that is traced.
pub(crate) struct Traced {
    /// Dropped first: a tracer that ends takes the server along.
    pub(crate) server: Server,
    pub(crate) tracer: Tracer,
}

/// The process that traces it.
pub(crate) struct Tracer {
    process: Process,
}

/// Starts a program that is traced from its first call on; the first that this names fails.
#[track_caller]
pub(crate) fn start(
    watch: &Arc<Watch>,
    program: &str,
    args: &[String],
    first: Option<Fault>,
) -> Result<Traced, Outcome> {
    let mut command = surroundings::command(Surroundings::Traced, program);
    command.stdin(Stdio::piped());
    let mut process = Process::spawn(watch, command, args, Stdio::piped());
    assert_eq!(process.line(), READY, "what the process says that is to become the server");
    let mut command = surroundings::tracing(process.pid());
    command.stdin(Stdio::piped());
    let mut tracer = Tracer { process: Process::spawn(watch, command, &[], Stdio::piped()) };
    assert_eq!(tracer.process.line(), "tracing", "what the tracer says");
    tracer.order(&Order::Watch(first));
    process.stdin().write_all(b"\n").expect("tell the process to go on");
    let server = Server::listens_or_ends(process)?;
    Ok(Traced { server, tracer })
}

impl Tracer {
    /// From now on lets nothing fail, or this, and counts anew.
    #[track_caller]
    pub(crate) fn watch(&mut self, fault: Option<Fault>) {
        self.order(&Order::Watch(fault));
    }

    /// What has happened since then.
    #[track_caller]
    pub(crate) fn report(&mut self) -> Report {
        self.order(&Order::Tell)
    }

    #[track_caller]
    fn order(&mut self, order: &Order) -> Report {
        let order = serde_json::to_string(order).expect("an order has no keys but strings");
        writeln!(self.process.stdin(), "{order}").expect("the tracer reads");
        serde_json::from_str(&self.process.line()).expect("a report")
    }
}

/// Why no process can be traced here, if so.
pub(crate) fn obstacle() -> Option<String> {
    if !cfg!(target_arch = "x86_64") {
        return Some("how a call is left out is written down for x86_64 only".to_owned());
    }
    let watch = Arc::new(Watch::new(None));
    let mut command = surroundings::command(Surroundings::Traced, "/bin/true");
    command.stdin(Stdio::piped());
    let mut process = Process::spawn(&watch, command, &[], Stdio::piped());
    process.line();
    let mut command = surroundings::tracing(process.pid());
    // Without orders it ends at once, where it may trace.
    command.stdin(Stdio::null());
    let outcome = Process::spawn(&watch, command, &[], Stdio::piped()).outcome();
    let reason = || format!("a process may not be traced here: {}", outcome.stderr.join(" "));
    (outcome.code != Some(0)).then(reason)
}
