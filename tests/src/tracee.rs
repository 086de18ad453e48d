//! A thread that is traced: which call it is about to make, and how that is made to fail.

use std::collections::HashMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, OnceLock};

use nix::errno::Errno;
use nix::libc::{self, c_long, user_regs_struct};
use nix::sys::ptrace;
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use socket2::Socket;

use crate::rings::Rings;
use crate::watchdog::lock;

/// The calls that the server is stopped before. Those that no error is put in the place of are here
/// because of what they say of rings.
pub(crate) const CALLS: &[(&str, c_long)] = &[
    ("accept", libc::SYS_accept),
    ("accept4", libc::SYS_accept4),
    ("bind", libc::SYS_bind),
    ("clock_nanosleep", libc::SYS_clock_nanosleep),
    ("clone", libc::SYS_clone),
    ("clone3", libc::SYS_clone3),
    ("close", libc::SYS_close),
    ("epoll_create1", libc::SYS_epoll_create1),
    ("epoll_ctl", libc::SYS_epoll_ctl),
    ("epoll_pwait", libc::SYS_epoll_pwait),
    ("epoll_pwait2", libc::SYS_epoll_pwait2),
    ("epoll_wait", libc::SYS_epoll_wait),
    ("eventfd2", libc::SYS_eventfd2),
    ("fcntl", libc::SYS_fcntl),
    ("getpeername", libc::SYS_getpeername),
    ("getsockname", libc::SYS_getsockname),
    ("getsockopt", libc::SYS_getsockopt),
    ("io_uring_enter", libc::SYS_io_uring_enter),
    ("io_uring_register", libc::SYS_io_uring_register),
    ("io_uring_setup", libc::SYS_io_uring_setup),
    ("ioctl", libc::SYS_ioctl),
    ("listen", libc::SYS_listen),
    ("mmap", libc::SYS_mmap),
    ("nanosleep", libc::SYS_nanosleep),
    ("pipe2", libc::SYS_pipe2),
    ("poll", libc::SYS_poll),
    ("ppoll", libc::SYS_ppoll),
    ("pselect6", libc::SYS_pselect6),
    ("read", libc::SYS_read),
    ("readv", libc::SYS_readv),
    ("recvfrom", libc::SYS_recvfrom),
    ("recvmsg", libc::SYS_recvmsg),
    ("rt_sigtimedwait", libc::SYS_rt_sigtimedwait),
    ("select", libc::SYS_select),
    ("sendmsg", libc::SYS_sendmsg),
    ("sendto", libc::SYS_sendto),
    ("setsockopt", libc::SYS_setsockopt),
    ("shutdown", libc::SYS_shutdown),
    ("signalfd4", libc::SYS_signalfd4),
    ("socket", libc::SYS_socket),
    ("socketpair", libc::SYS_socketpair),
    ("timerfd_create", libc::SYS_timerfd_create),
    ("timerfd_settime", libc::SYS_timerfd_settime),
    ("wait4", libc::SYS_wait4),
    ("waitid", libc::SYS_waitid),
    ("write", libc::SYS_write),
    ("writev", libc::SYS_writev),
];

/// Calls without a descriptor. (`poll` and `select` have many.)
const WITHOUT: &[&str] = &[
    "clock_nanosleep",
    "clone",
    "clone3",
    "epoll_create1",
    "eventfd2",
    "io_uring_setup",
    "nanosleep",
    "pipe2",
    "poll",
    "ppoll",
    "pselect6",
    "rt_sigtimedwait",
    "select",
    "socket",
    "socketpair",
    "timerfd_create",
    "wait4",
    "waitid",
];

/// A call that is about to be made.
#[derive(Debug)]
pub(crate) struct Call {
    /// Its name; with the operation behind it where that decides which errors there are.
    pub(crate) name: String,
    /// What its descriptor is: `client`, `listener`, `unix`, `socket`, `eventfd` and the like,
    /// `file`, `pipe`, or `none`.
    pub(crate) kind: String,
    /// Of a connection, the client's port.
    pub(crate) port: u16,
}

/// A thread that is traced.
pub(crate) struct Tracee {
    pub(crate) pid: Pid,
    /// What to do when the call has been made that it is in.
    then: Option<After>,
}

enum After {
    /// Lets it seem to have failed.
    Fail(Errno),
    /// Notes a ring that was set up, with the parameters at this address.
    Ring(u64),
    /// Notes where this part of a ring's memory is.
    Mapped { ring: i32, offset: u64 },
}

impl Tracee {
    pub(crate) fn new(pid: Pid) -> Self {
        Self { pid, then: None }
    }

    /// It is about to make a call. `meet` says with which error that fails.
    pub(crate) fn before(
        &mut self,
        mut meet: impl FnMut(&Call) -> Option<Errno>,
    ) -> nix::Result<()> {
        let mut regs = ptrace::getregs(self.pid)?;
        let number = regs.orig_rax as c_long;
        let Some((name, _)) = CALLS.iter().find(|(_, it)| *it == number) else {
            return ptrace::cont(self.pid, None);
        };
        let then = self.of_a_ring(name, &regs);
        if *name == "mmap" {
            return self.goes_on(then);
        }
        if *name == "io_uring_enter" {
            self.requests(&regs, &mut meet);
        }
        let call = self.call(name, &regs);
        let Some(errno) = meet(&call) else { return self.goes_on(then) };
        if *name == "close" {
            // Whatever the kernel answers, the descriptor is closed.
            return self.goes_on(Some(After::Fail(errno)));
        }
        // No call has that number, so none is made.
        regs.orig_rax = u64::MAX;
        regs.rax = result(errno);
        ptrace::setregs(self.pid, regs)?;
        ptrace::cont(self.pid, None)
    }

    /// It makes the call, and stands again after it if there is something to do then.
    fn goes_on(&mut self, then: Option<After>) -> nix::Result<()> {
        self.then = then;
        match self.then {
            Some(_) => ptrace::syscall(self.pid, None),
            None => ptrace::cont(self.pid, None),
        }
    }

    /// It has made the call for which it was stopped, or is in it.
    pub(crate) fn after(&mut self) -> nix::Result<()> {
        let mut regs = ptrace::getregs(self.pid)?;
        match self.then.take() {
            Some(After::Fail(errno)) => {
                regs.rax = result(errno);
                ptrace::setregs(self.pid, regs)?;
            }
            Some(After::Ring(params)) => {
                rings().set_up(self.pid, regs.rax as i32, params);
            }
            Some(After::Mapped { ring, offset }) => rings().mapped(ring, offset, regs.rax),
            None => {}
        }
        ptrace::cont(self.pid, None)
    }

    /// What is to be noted after a call that sets up a ring.
    fn of_a_ring(&self, name: &str, regs: &user_regs_struct) -> Option<After> {
        match name {
            "io_uring_setup" => Some(After::Ring(regs.rsi)),
            "mmap" => {
                let ring = regs.r8 as i32;
                (ring >= 0 && self.kind(ring).0 == "io_uring")
                    .then_some(After::Mapped { ring, offset: regs.r9 })
            }
            _ => None,
        }
    }

    fn call(&self, name: &str, regs: &user_regs_struct) -> Call {
        let operation = match name {
            "epoll_ctl" => match regs.rsi as i32 {
                libc::EPOLL_CTL_ADD => "_add",
                libc::EPOLL_CTL_MOD => "_mod",
                _ => "_del",
            },
            "fcntl" => match regs.rsi as i32 {
                libc::F_SETFL => "_setfl",
                libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => "_dup",
                libc::F_GETFL | libc::F_GETFD => "_get",
                _ => "_set",
            },
            _ => "",
        };
        let descriptor = if name == "epoll_ctl" { regs.rdx } else { regs.rdi };
        let (kind, port) = if WITHOUT.contains(&name) {
            ("none".to_owned(), 0)
        } else {
            self.kind(descriptor as i32)
        };
        Call { name: format!("{name}{operation}"), kind, port }
    }

    /// Shows the requests that it is about to submit, and lets one fail.
    fn requests(&self, regs: &user_regs_struct, meet: &mut impl FnMut(&Call) -> Option<Errno>) {
        for request in rings().pending(self.pid, regs.rdi as i32, regs.rsi as u32) {
            let (kind, port) = match request.descriptor {
                Some(descriptor) => self.kind(descriptor),
                None => ("fixed".to_owned(), 0),
            };
            if let Some(errno) = meet(&Call { name: request.name(), kind, port }) {
                request.fail(self.pid, errno);
            }
        }
    }

    /// What a descriptor is, and the client's port.
    fn kind(&self, descriptor: i32) -> (String, u16) {
        let link = fs::read_link(format!("/proc/{}/fd/{descriptor}", self.pid));
        let Ok(link) = link.map(|link| link.to_string_lossy().into_owned()) else {
            return ("none".to_owned(), 0);
        };
        if let Some(name) = link.strip_prefix("anon_inode:") {
            return (name.trim_matches(['[', ']']).to_owned(), 0);
        }
        if !link.starts_with("socket:") {
            let kind = if link.starts_with("pipe:") { "pipe" } else { "file" };
            return (kind.to_owned(), 0);
        }
        if let Some((kind, port)) = lock(sockets()).get(&link) {
            return ((*kind).to_owned(), *port);
        }
        let (kind, port) = self.socket(descriptor).map_or(("socket", 0), |it| of_socket(&it));
        // A socket that is neither may become either.
        if kind != "socket" {
            lock(sockets()).insert(link, (kind, port));
        }
        (kind.to_owned(), port)
    }

    /// The socket itself, to ask what it is.
    fn socket(&self, descriptor: i32) -> Option<Socket> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let process = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
        let process = rustix::process::Pid::from_raw(process.trim().parse().ok()?)?;
        let process = pidfd_open(process, PidfdFlags::empty()).ok()?;
        let socket: OwnedFd = pidfd_getfd(process, descriptor, PidfdGetfdFlags::empty()).ok()?;
        Some(Socket::from(socket))
    }
}

/// What the kernel gives back for an error.
fn result(errno: Errno) -> u64 {
    -i64::from(errno as i32) as u64
}

fn of_socket(socket: &Socket) -> (&'static str, u16) {
    if socket.local_addr().is_ok_and(|addr| addr.as_socket().is_none()) {
        return ("unix", 0);
    }
    if socket.is_listener().unwrap_or(false) {
        return ("listener", 0);
    }
    let peer = socket.peer_addr().ok().and_then(|addr| addr.as_socket());
    peer.map_or(("socket", 0), |peer: SocketAddr| ("client", peer.port()))
}

/// What sockets are, by the number that the kernel has for each.
fn sockets() -> &'static Mutex<HashMap<String, (&'static str, u16)>> {
    static SOCKETS: OnceLock<Mutex<HashMap<String, (&'static str, u16)>>> = OnceLock::new();
    SOCKETS.get_or_init(Mutex::default)
}

fn rings() -> std::sync::MutexGuard<'static, Rings> {
    static RINGS: OnceLock<Mutex<Rings>> = OnceLock::new();
    lock(RINGS.get_or_init(Mutex::default))
}

/// The memory of a process that stands.
pub(crate) fn memory(pid: Pid) -> std::io::Result<File> {
    File::options().read(true).write(true).open(format!("/proc/{pid}/mem"))
}
