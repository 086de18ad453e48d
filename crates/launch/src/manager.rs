//! What a service manager hands over and is told: the protocols of systemd for listening sockets
//! (`sd_listen_fds`) and for the state of a service (`sd_notify`), which others speak as well.

use std::env;
use std::ffi::OsStr;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::time::Duration;

use listenfd::ListenFd;
use rustix::time::{ClockId, clock_gettime};
use socket2::SockRef;

use crate::Failure;

/// The most descriptors that a service manager may hand over.
const MOST_SOCKETS: usize = 1024;

/// The number of the first of them.
const FIRST: usize = 3;

/// How long a manager may be busy before it is not told something.
const PATIENCE: Duration = Duration::from_secs(1);

/// A service manager that wants to know how the server is, if there is one. It is told by the
/// process that it has started, and not by children of that.
pub(crate) struct Manager {
    addr: Option<SocketAddr>,
    main_process: u32,
}

impl Manager {
    pub(crate) fn from_env() -> Manager {
        let addr = env::var_os("NOTIFY_SOCKET").and_then(|name| notify_addr(&name));
        Manager { addr, main_process: process::id() }
    }

    /// Whether this process is the one that was started, and no child of it.
    pub(crate) fn is_main_process(&self) -> bool {
        process::id() == self.main_process
    }

    /// Tells it that the server reads its files anew, and is not ready until it says so.
    pub(crate) fn tell_reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let now = Duration::try_from(now).unwrap_or_default();
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()));
    }

    /// Tells it lines such as `READY=1`. That it has gone or does not listen does no harm.
    pub(crate) fn tell(&self, lines: &str) {
        let Some(addr) = &self.addr else { return };
        if !self.is_main_process() {
            return;
        }
        if let Ok(socket) = UnixDatagram::unbound()
            && socket.set_write_timeout(Some(PATIENCE)).is_ok()
        {
            let _ = socket.send_to_addr(lines.as_bytes(), addr);
        }
    }
}

/// A path, or after `@` a name in the abstract namespace.
fn notify_addr(name: &OsStr) -> Option<SocketAddr> {
    match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name).ok(),
        [b'/', ..] => SocketAddr::from_pathname(name).ok(),
        _ => None,
    }
}

/// The listening sockets that this process was handed over, and how each is called. All are
/// non-blocking: that is a property which other processes that have the socket share, such as the
/// server that this one takes over from. So it never changes.
pub(crate) fn sockets() -> Result<Vec<(TcpListener, String)>, Failure> {
    let is_ours = env::var("LISTEN_PID").is_ok_and(|pid| pid == process::id().to_string());
    let Some(count) = env::var_os("LISTEN_FDS").filter(|_| is_ours) else { return Ok(Vec::new()) };
    let number = count.to_str().and_then(|count| count.parse().ok());
    let Some(count) = number.filter(|count| *count <= MOST_SOCKETS) else {
        let count = count.to_string_lossy();
        let expected = format!("expected a whole number from 0 to {MOST_SOCKETS}");
        return Err(Failure::Usage(format!("the variable LISTEN_FDS is {count}: {expected}")));
    };
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut passed = ListenFd::from_env();
    let mut sockets = Vec::with_capacity(count);
    for which in 0..count {
        let wrong = |what: &str| {
            let number = FIRST + which;
            Failure::Usage(format!("descriptor {number}, which was handed over, {what}"))
        };
        let Ok(Some(socket)) = passed.take_tcp_listener(which) else {
            return Err(wrong("is no TCP socket: check ListenStream= of the socket unit"));
        };
        if !SockRef::from(&socket).is_listener().unwrap_or(false) {
            return Err(wrong("does not listen: check Accept=no in the socket unit"));
        }
        socket.set_nonblocking(true).map_err(|error| wrong(&format!("fails: {error}")))?;
        // Accepted sockets inherit it.
        let _ = SockRef::from(&socket).set_tcp_nodelay(true);
        sockets.push((socket, names.next().unwrap_or_default().to_owned()));
    }
    Ok(sockets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_listens_on_a_path_or_an_abstract_name() {
        let path = notify_addr(OsStr::new("/run/notify")).expect("a path");
        assert_eq!(path.as_pathname().and_then(|path| path.to_str()), Some("/run/notify"));
        let name = notify_addr(OsStr::new("@notify")).expect("a name");
        assert_eq!(name.as_abstract_name(), Some(&b"notify"[..]));
        assert!(notify_addr(OsStr::new("vsock:2:1234")).is_none());
        assert!(notify_addr(OsStr::new("")).is_none());
    }
}
