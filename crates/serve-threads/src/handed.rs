//! A listening socket that was handed over, and that other processes have as well.
//!
//! To end a wait in `accept`, the server shuts the socket down. With this one it must not: that
//! would end the connections in its backlog, which the next server is to have. So the acceptor
//! waits in `poll`, for the socket and for the end.

use std::io::{self, ErrorKind};
use std::net::TcpListener;

use launch::Launch;
use rustix::event::{PollFd, PollFlags, poll};

/// Whether to accept, which waits by itself; with a socket that was handed over, this waits.
pub(crate) fn may_accept(launch: &Launch, listener: &TcpListener) -> bool {
    if let Some(end) = launch.accept_end() {
        let end = PollFd::from_borrowed_fd(end, PollFlags::IN);
        // A signal that interrupts it does no harm: `accept` then finds no connection.
        let _ = poll(&mut [end, PollFd::new(listener, PollFlags::IN)], None);
    }
    !launch.stop.requested()
}

/// Whether another thread or process was first to accept the connection.
pub(crate) fn is_taken(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock
}
