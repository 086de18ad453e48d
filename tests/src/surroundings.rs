//! What a server finds when it starts, and that it ends with the process that started it.
//!
//! Some of that can only be arranged by the process that becomes the server. To do so between fork
//! and exec takes unsafe code; so the test program calls itself by a hidden word, and that process
//! arranges what is asked for and becomes the server.

use std::env;
use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Read};
use std::net::Ipv6Addr;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{self, Command, ExitCode, Stdio};
use std::sync::Arc;

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::SigSet;
use rustix::process::{
    Gid, PTracer, Pid, Resource, Rlimit, Signal, Uid, getppid, getrlimit, getuid, prlimit,
    set_parent_process_death_signal, set_ptracer, setrlimit,
};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use crate::server::Server;
use crate::watchdog::Watch;
use crate::{manager, tracee, tracer};

/// The hidden words: become a program; start a server and wait; change what a server may have; let
/// its system calls fail.
const BECOME: &str = "--become";
const HOLD: &str = "--hold";
const LIMIT: &str = "--limit";
const TRACE: &str = "--trace";

/// The numbers of io_uring's system calls, the same on every architecture that Linux has had them
/// on from the start.
pub(crate) const IO_URING_SETUP: u16 = 425;
pub(crate) const IO_URING_ENTER: u16 = 426;
pub(crate) const IO_URING_REGISTER: u16 = 427;

/// Names with several addresses, in a file for the resolver.
const HOSTS: &str = "127.0.0.1 localhost\\n::1 localhost\\n127.0.0.1 mixed\\n192.0.2.1 mixed\\n\
                     192.0.2.1 elsewhere\\n";

/// The users that own no files, and whose number is the group's too.
///
/// The kernel counts processes and locked memory by user. Cases run side by side, so each limited
/// server is another user: with one for all, the rings of one case left too little for another.
const USERS: std::ops::Range<u32> = 10_000..60_000;

/// What a server finds when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Surroundings {
    /// What the suite itself has.
    Usual,
    /// This system call of io_uring answers with this error.
    NoIoUring(u16, u16),
    /// It may lock so many bytes of memory, and runs as a user for whom that holds.
    LockedMemory(u64),
    /// All signals are blocked that can be.
    Blocked,
    /// No signal can be queued, no file written and no core dumped.
    Zero,
    /// The resolver knows the names in [`HOSTS`] and no others.
    Hosts,
    /// It runs as a user for whom limits hold, which for root they do not.
    Limited,
    /// The same, and there are no more processes or threads to be had.
    NoProcesses,
    /// Sockets are handed over as a service manager does it: `manager` has put them on their way.
    Passed,
    /// It is stopped before each of its system calls that may be made to fail: `traced` traces it.
    Traced,
}

impl Surroundings {
    fn to_word(self) -> String {
        match self {
            Surroundings::Usual => "usual".to_owned(),
            Surroundings::NoIoUring(call, errno) => format!("no-io-uring={call}={errno}"),
            Surroundings::LockedMemory(bytes) => format!("locked-memory={bytes}"),
            Surroundings::Blocked => "blocked".to_owned(),
            Surroundings::Zero => "zero".to_owned(),
            Surroundings::Hosts => "hosts".to_owned(),
            Surroundings::Limited => "limited".to_owned(),
            Surroundings::NoProcesses => "no-processes".to_owned(),
            Surroundings::Passed => "passed".to_owned(),
            Surroundings::Traced => "traced".to_owned(),
        }
    }

    fn from_word(word: &str) -> Result<Self, Box<dyn Error>> {
        Ok(match word.split('=').collect::<Vec<_>>()[..] {
            ["usual"] => Surroundings::Usual,
            ["limited"] => Surroundings::Limited,
            ["no-processes"] => Surroundings::NoProcesses,
            ["passed"] => Surroundings::Passed,
            ["traced"] => Surroundings::Traced,
            ["no-io-uring", call, errno] => Surroundings::NoIoUring(call.parse()?, errno.parse()?),
            ["locked-memory", bytes] => Surroundings::LockedMemory(bytes.parse()?),
            ["blocked"] => Surroundings::Blocked,
            ["zero"] => Surroundings::Zero,
            ["hosts"] => Surroundings::Hosts,
            _ => return Err(format!("there are no surroundings {word:?}").into()),
        })
    }
}

/// The command that becomes `program` in these surroundings. It is killed when the thread that
/// starts it ends, however that comes about.
pub(crate) fn command(surroundings: Surroundings, program: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg(BECOME).arg(process::id().to_string());
    command.arg(surroundings.to_word()).arg(program).stdin(Stdio::null());
    command
}

/// The arguments with which the test program starts a server and waits: what a case can kill in
/// order to see what becomes of the server.
pub(crate) fn holding(program: &str, args: &[String]) -> Vec<String> {
    [HOLD, program].map(str::to_owned).iter().chain(args).cloned().collect()
}

/// The command that lets a limited server have no more processes, or as many as the suite may have.
/// Root itself may lack the right to do that to another user's process; that user has it.
pub(crate) fn limiting(server: Pid, no_more: bool) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg(LIMIT).arg(server.to_string()).arg(no_more.to_string());
    command
}

/// The command that traces a process of these surroundings.
pub(crate) fn tracing(server: Pid) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg(TRACE).arg(server.to_string());
    command
}

/// Does what a hidden word asks for; `None` if the program was called to test.
pub(crate) fn called() -> Option<ExitCode> {
    let words: Vec<String> = env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [BECOME, parent, surroundings, program, ..] => {
            let Err(error) = become_server(parent, surroundings, program, &words[4..]);
            Some(fail(&format!("cannot become {program}: {error}")))
        }
        [HOLD, program, ..] => {
            let watch = Arc::new(Watch::new(None));
            let server = Server::start(&watch, Surroundings::Usual, program, &words[2..]);
            println!("listening on {}", server.addr());
            loop {
                std::thread::park();
            }
        }
        [LIMIT, server, no_more] => Some(match limit(server, no_more == "true") {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&format!("cannot limit {server}: {error}")),
        }),
        [TRACE, server] => Some(match tracer::trace(server) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&format!("cannot trace {server}: {error}")),
        }),
        _ => None,
    }
}

fn fail(reason: &str) -> ExitCode {
    eprintln!("conformance: {reason}");
    ExitCode::FAILURE
}

/// Lowers or raises how many processes the user may have when `server` wants another.
fn limit(server: &str, no_more: bool) -> Result<(), Box<dyn Error>> {
    become_ordinary(user_of(server)?)?;
    let usual = getrlimit(Resource::Nproc);
    let limit = Rlimit { current: if no_more { Some(0) } else { usual.current }, ..usual };
    prlimit(Pid::from_raw(server.parse()?), Resource::Nproc, limit)?;
    Ok(())
}

/// Arranges the surroundings, and becomes the program.
fn become_server(
    parent: &str,
    surroundings: &str,
    program: &str,
    args: &[String],
) -> Result<std::convert::Infallible, Box<dyn Error>> {
    let surroundings = Surroundings::from_word(surroundings)?;
    if surroundings == Surroundings::Hosts {
        return Err(among_hosts(parent, program, args).into());
    }
    let parent = parent.parse()?;
    // First of all, so that the sockets get the first free descriptors.
    let passed = if surroundings == Surroundings::Passed { manager::receive()? } else { 0 };
    let binary = File::open(program)?;
    let mut command = Command::new(program);
    if passed > 0 {
        command.env("LISTEN_FDS", passed.to_string());
        command.env("LISTEN_PID", process::id().to_string());
    }
    if let Surroundings::Limited | Surroundings::NoProcesses | Surroundings::LockedMemory(_) =
        surroundings
    {
        become_ordinary(USERS.start + process::id() % USERS.len() as u32)?;
        // That user may not be able to walk to the program, but this process has opened it.
        command = Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()));
        command.arg0(program);
    }
    // Not before the change of user, which takes it back.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid().map(Pid::as_raw_pid) != Some(parent) {
        return Err("the process that started it has ended".into());
    }
    match surroundings {
        Surroundings::NoIoUring(call, errno) => {
            filter([call.into()], SeccompAction::Errno(errno.into()))?;
        }
        Surroundings::LockedMemory(bytes) => {
            let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
            setrlimit(Resource::Memlock, limit)?;
        }
        Surroundings::Blocked => SigSet::all().thread_block()?,
        Surroundings::Zero => {
            for resource in [Resource::Sigpending, Resource::Fsize, Resource::Core] {
                setrlimit(resource, Rlimit { current: Some(0), maximum: Some(0) })?;
            }
        }
        Surroundings::NoProcesses => {
            setrlimit(Resource::Nproc, Rlimit { current: Some(0), maximum: Some(0) })?;
        }
        Surroundings::Traced => await_tracer()?,
        Surroundings::Usual
        | Surroundings::Limited
        | Surroundings::Hosts
        | Surroundings::Passed => {}
    }
    Err(command.args(args).exec().into())
}

/// The user as whom a process runs.
fn user_of(process: &str) -> Result<u32, Box<dyn Error>> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
    Ok(users.split_whitespace().next().ok_or("it has no user")?.parse()?)
}

/// Stops being root, and becomes this user. An ordinary user stays the same.
fn become_ordinary(user: u32) -> Result<(), Box<dyn Error>> {
    if getuid().is_root() {
        let (user, group) = (Uid::from_raw(user), Gid::from_raw(user));
        set_thread_groups(&[])?;
        set_thread_res_gid(group, group, group)?;
        set_thread_res_uid(user, user, user)?;
    }
    Ok(())
}

/// Becomes the program where the file that the resolver reads is another one: in a mount namespace
/// of its own, for which an ordinary user needs a user namespace.
fn among_hosts(parent: &str, program: &str, args: &[String]) -> io::Error {
    let script = format!(
        "file=$(mktemp) && printf '{HOSTS}' >\"$file\" && mount --bind \"$file\" /etc/hosts && \
         rm \"$file\" && exec \"$0\" \"$@\""
    );
    let mut command = Command::new("unshare");
    // In the shell, /proc/self/exe would be the shell.
    let own = match env::current_exe() {
        Ok(own) => own,
        Err(error) => return error,
    };
    command.args(NAMESPACES).args(["/bin/sh", "-c", &script]).arg(own);
    command.args([BECOME, parent, &Surroundings::Usual.to_word(), program]).args(args).exec()
}

/// What `unshare` needs for that.
const NAMESPACES: [&str; 2] = ["--map-root-user", "--mount"];

/// The addresses of the loopback in the network that a thread enters: two in one network of IPv6,
/// and one in another.
pub(crate) const NEIGHBOURS: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, 1),
    Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, 2),
    Ipv6Addr::new(0xfd00, 0, 0, 2, 0, 0, 0, 1),
];

/// Gives this thread, and the processes that it starts from now on, a network of its own in which
/// the loopback has the addresses [`NEIGHBOURS`].
pub(crate) fn enter_network() -> Result<(), Box<dyn Error>> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|error| format!("unshare: {error}"))?;
    ip(&["link", "set", "lo", "up"])?;
    for address in NEIGHBOURS {
        ip(&["-6", "addr", "add", &format!("{address}/128"), "dev", "lo", "nodad"])?;
    }
    Ok(())
}

fn ip(args: &[&str]) -> Result<(), Box<dyn Error>> {
    let output = Command::new("ip").args(args).output().map_err(|error| format!("ip: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("ip {}: {}", args.join(" "), said.trim()).into());
    }
    Ok(())
}

/// Whether there are such namespaces to be had here.
pub(crate) fn has_namespaces() -> bool {
    let mut command = Command::new("unshare");
    command.args(NAMESPACES).args(["mount", "--bind", "/etc/hosts", "/etc/hosts"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Waits for the tracer, and stands before each call that it is to see.
fn await_tracer() -> Result<(), Box<dyn Error>> {
    // Where only a parent may trace, a process may allow others to. Elsewhere there is no such
    // call, and no need for it.
    let _ = set_ptracer(PTracer::Any);
    println!("{READY}");
    if io::stdin().read(&mut [0])? == 0 {
        return Err("nothing traces it".into());
    }
    let calls = tracee::CALLS.iter().map(|(_, number)| *number);
    filter(calls, SeccompAction::Trace(0))
}

/// What a process says that is ready to be traced.
pub(crate) const READY: &str = "ready to be traced";

/// Does something else for these system calls, here and in all that this process becomes or starts.
fn filter(calls: impl IntoIterator<Item = i64>, then: SeccompAction) -> Result<(), Box<dyn Error>> {
    let rules = calls.into_iter().map(|call| (call, Vec::new())).collect();
    let filter =
        SeccompFilter::new(rules, SeccompAction::Allow, then, env::consts::ARCH.try_into()?)?;
    let program: BpfProgram = filter.try_into()?;
    Ok(seccompiler::apply_filter(&program)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surroundings_survive_the_command_line() {
        for surroundings in [
            Surroundings::Usual,
            Surroundings::NoIoUring(IO_URING_ENTER, 38),
            Surroundings::LockedMemory(1 << 16),
            Surroundings::Blocked,
            Surroundings::Zero,
            Surroundings::Hosts,
            Surroundings::Limited,
            Surroundings::NoProcesses,
            Surroundings::Passed,
            Surroundings::Traced,
        ] {
            assert_eq!(Surroundings::from_word(&surroundings.to_word()).unwrap(), surroundings);
        }
        assert!(Surroundings::from_word("else").is_err());
    }
}
