//! What a server finds when it starts, and that it ends with whoever started it.
//!
//! Some of that can only be arranged by the process that becomes the server. To do so between fork
//! and exec takes unsafe code; so the test program calls itself by a hidden word, and that process
//! arranges what is asked for and becomes the server.

use std::env;
use std::error::Error;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{self, Command, ExitCode};
use std::sync::Arc;

use rustix::process::{
    Gid, Pid, Resource, Rlimit, Signal, Uid, getppid, getrlimit, getuid, prlimit,
    set_parent_process_death_signal, setrlimit,
};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use crate::server::Server;
use crate::watchdog::Watch;

/// The hidden words: become a program; start a server and wait; change what a server may have.
const BECOME: &str = "--become";
const HOLD: &str = "--hold";
const LIMIT: &str = "--limit";

/// The number of io_uring_setup, the same on every architecture that Linux has had it on from the
/// start.
const IO_URING_SETUP: i64 = 425;

/// Nobody in particular: the user and group that own no files.
const NOBODY: u32 = 65_534;

/// What a server finds when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Surroundings {
    /// What the suite itself has.
    Usual,
    /// io_uring answers with this error.
    NoIoUring(u16),
    /// It runs as a user for whom limits hold, which for root they do not.
    Limited,
    /// The same, and there are no more processes or threads to be had.
    NoProcesses,
}

impl Surroundings {
    fn to_word(self) -> String {
        match self {
            Surroundings::Usual => "usual".to_owned(),
            Surroundings::NoIoUring(errno) => errno.to_string(),
            Surroundings::Limited => "limited".to_owned(),
            Surroundings::NoProcesses => "no-processes".to_owned(),
        }
    }

    fn from_word(word: &str) -> Result<Self, Box<dyn Error>> {
        Ok(match word {
            "usual" => Surroundings::Usual,
            "limited" => Surroundings::Limited,
            "no-processes" => Surroundings::NoProcesses,
            errno => Surroundings::NoIoUring(errno.parse()?),
        })
    }
}

/// The command that becomes `program` in these surroundings. It is killed when the thread that
/// starts it ends, however that comes about.
pub(crate) fn command(surroundings: Surroundings, program: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg(BECOME).arg(process::id().to_string());
    command.arg(surroundings.to_word()).arg(program);
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

/// Does what a hidden word asks for; `None` if the program was called to test.
pub(crate) fn called() -> Option<ExitCode> {
    let words: Vec<String> = env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [BECOME, parent, surroundings, program, ..] => {
            let Err(error) = become_server(parent, surroundings, program, &words[4..]);
            Some(fail(&format!("cannot become {program}: {error}")))
        }
        [HOLD, program, ..] => {
            let watch = Arc::new(Watch::new());
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
        _ => None,
    }
}

fn fail(reason: &str) -> ExitCode {
    eprintln!("conformance: {reason}");
    ExitCode::FAILURE
}

/// Lowers or raises how many processes the user may have when `server` wants another.
fn limit(server: &str, no_more: bool) -> Result<(), Box<dyn Error>> {
    become_ordinary()?;
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
    let (parent, surroundings) = (parent.parse()?, Surroundings::from_word(surroundings)?);
    let binary = File::open(program)?;
    let mut command = Command::new(program);
    if let Surroundings::Limited | Surroundings::NoProcesses = surroundings {
        become_ordinary()?;
        // That user may not be able to walk to the program, but this process has opened it.
        command = Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()));
        command.arg0(program);
    }
    // Not before the change of user, which takes it back.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid().map(Pid::as_raw_pid) != Some(parent) {
        return Err("whoever started it has ended".into());
    }
    match surroundings {
        Surroundings::NoIoUring(errno) => forbid_io_uring(errno)?,
        Surroundings::NoProcesses => {
            setrlimit(Resource::Nproc, Rlimit { current: Some(0), maximum: Some(0) })?;
        }
        Surroundings::Usual | Surroundings::Limited => {}
    }
    Err(command.args(args).exec().into())
}

/// Stops being root. Who is not root is ordinary already.
fn become_ordinary() -> Result<(), Box<dyn Error>> {
    if getuid().is_root() {
        let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        set_thread_groups(&[])?;
        set_thread_res_gid(group, group, group)?;
        set_thread_res_uid(user, user, user)?;
    }
    Ok(())
}

/// Lets io_uring_setup fail, here and in all that this process becomes or starts.
fn forbid_io_uring(errno: u16) -> Result<(), Box<dyn Error>> {
    let rules = [(IO_URING_SETUP, Vec::new())].into();
    let (otherwise, then) = (SeccompAction::Allow, SeccompAction::Errno(errno.into()));
    let filter = SeccompFilter::new(rules, otherwise, then, env::consts::ARCH.try_into()?)?;
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
            Surroundings::NoIoUring(38),
            Surroundings::Limited,
            Surroundings::NoProcesses,
        ] {
            assert_eq!(Surroundings::from_word(&surroundings.to_word()).unwrap(), surroundings);
        }
        assert!(Surroundings::from_word("else").is_err());
    }
}
