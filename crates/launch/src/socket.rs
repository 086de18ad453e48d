//! The listening socket.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::{Failure, Launch};

/// How often and how long apart an address that is in use is asked for again.
///
/// When a server on io_uring is killed, the kernel takes its rings apart on a thread of its own,
/// some milliseconds after the process is gone, and only then closes the listener that was in one.
/// No event tells when. What the former server was, the next cannot know: so all are patient.
const ATTEMPTS: u32 = 40;
const ATTEMPT_PAUSE: Duration = Duration::from_millis(5);

/// What the flags say of it.
pub(crate) struct Wanted {
    pub(crate) addr: SocketAddr,
    pub(crate) backlog: i32,
}

impl<E> Launch<E> {
    /// One listening socket for each worker, all at one address: the kernel spreads the
    /// connections over them by a hash of their addresses (SO_REUSEPORT).
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn listen_each(&self) -> Result<Vec<TcpListener>, Failure> {
        if self.workers == 1 {
            return Ok(vec![self.listen()?]);
        }
        // With SO_REUSEPORT a second server of the same user would quietly get half of our
        // connections, so first see whether the address is free without it.
        let mut addr = self.socket.addr;
        drop(self.bind(addr, false)?);
        let mut listeners = Vec::with_capacity(self.workers);
        for _ in 0..self.workers {
            let socket = self.bind(addr, true)?;
            listeners.push(self.start_listening(socket)?);
            // The others get the port that the first was given.
            addr = *self.bound.get().unwrap_or(&addr);
        }
        Ok(listeners)
    }

    /// One listening socket.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn listen(&self) -> Result<TcpListener, Failure> {
        self.start_listening(self.bind(self.socket.addr, false)?)
    }

    /// Says on standard output where the server listens. Call it when it accepts, not before.
    pub fn announce(&self) {
        crate::ANNOUNCED.store(true, Ordering::Relaxed);
        let addr = self.bound.get().unwrap_or(&self.socket.addr);
        let mut out = io::stdout();
        // A standard output that is closed is no reason not to serve.
        let _ = writeln!(out, "listening on {addr}").and_then(|()| out.flush());
    }

    fn bind(&self, addr: SocketAddr, share: bool) -> Result<Socket, Failure> {
        let open = || {
            let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
            // Old connections of a former server that are in TIME_WAIT do not matter.
            socket.set_reuse_address(true)?;
            socket.set_reuse_port(share)?;
            // Accepted sockets inherit it: no system call for each of them.
            socket.set_tcp_nodelay(true)?;
            socket.bind(&addr.into())?;
            Ok(socket)
        };
        let in_use = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
        let mut result = open();
        for _ in 1..ATTEMPTS {
            if result.as_ref().is_err_and(in_use) {
                thread::sleep(ATTEMPT_PAUSE);
                result = open();
            }
        }
        result.map_err(|error| self.cannot_listen(addr, &error))
    }

    fn start_listening(&self, socket: Socket) -> Result<TcpListener, Failure> {
        if let Err(error) = socket.listen(self.socket.backlog) {
            return Err(self.cannot_listen(self.socket.addr, &error));
        }
        let listener = TcpListener::from(socket);
        if let Ok(addr) = listener.local_addr() {
            self.bound.get_or_init(|| addr);
        }
        Ok(listener)
    }

    fn cannot_listen(&self, addr: SocketAddr, error: &io::Error) -> Failure {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => "; another server is there: choose another --listen",
            io::ErrorKind::PermissionDenied => "; choose a --listen port above 1023",
            io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
            _ => "",
        };
        Failure::Failed(format!("cannot listen on {addr}: {error}{hint}"))
    }
}

/// Whether an error of accept says that descriptors or memory have run out: stop accepting until
/// a connection closes or a moment has passed. Any other error concerns the one connection that
/// was to be accepted.
#[must_use]
pub fn is_shortage(error: &io::Error) -> bool {
    use nix::errno::Errno;
    let shortages = [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM];
    error.raw_os_error().is_some_and(|code| shortages.contains(&Errno::from_raw(code)))
}

/// Whether bytes have come that nobody has read. Closed with such bytes in it, a connection is
/// reset (RFC 2525, 2.17), and what the kernel has not yet sent of what was written is thrown away.
#[must_use]
pub fn has_unread(socket: impl AsFd) -> bool {
    rustix::io::ioctl_fionread(socket).is_ok_and(|bytes| bytes > 0)
}
