//! Multiplexed I/O with `select`: one loop hands the kernel sets of all its sockets, each time.
//!
//! This is the model bare, an echo of bytes: the complete server is `src/main.rs`.
//!
//! **Who waits where:** the only thread, in `select`, for all of its sockets at once.
//! **What wakes it:** a socket that is ready: to be accepted from, to be read, to be written.
//!
//! The kernel remembers nothing between two calls. Each turn hands it the whole sets, and it writes
//! the answer over them, so a turn costs as much as there are connections. A set has 1024 bits: a
//! connection with a higher descriptor is closed at once.
//!
//! A connection waits for one thing at a time. Bytes that the socket does not take are kept. While
//! there are any, it is in the set of those to be written and not in the set of those to be read.
//! So it never keeps more than one read.
//!
//! Run: `cargo run --release -p serve-select --example bare-select -- 127.0.0.1:7007`
//!
//! **What it lacks**, and where `src/main.rs` has it:
//! - a limit on connections, and a pause when there are no descriptors (this loop spins): `accept`;
//! - a word to a client that is refused: `accept`;
//! - lines, a limit on their length, and chat: `read`;
//! - deadlines for idle peers and for slow ones: `wait`;
//! - a stop that first writes what is kept: `run`;
//! - more than one core, flags and counters: `main` and `serve`.

use std::collections::HashMap;
use std::env;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, RawFd};

use nix::errno::Errno;
use nix::sys::select::{FD_SETSIZE, FdSet, select};

fn main() -> io::Result<()> {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:7007".to_owned());
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    // An output that is closed or full keeps no client out.
    let _ = writeln!(io::stdout(), "listening on {}", listener.local_addr()?);

    let mut conns: HashMap<RawFd, Conn> = HashMap::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let (mut reads, mut writes) = (FdSet::new(), FdSet::new());
        reads.insert(listener.as_fd());
        for conn in conns.values() {
            let set = if conn.kept.is_empty() { &mut reads } else { &mut writes };
            set.insert(conn.socket.as_fd());
        }
        select(None, &mut reads, &mut writes, None, None)?;
        let ready = reads.fds(None).chain(writes.fds(None));
        let ready: Vec<_> = ready.map(|fd| fd.as_raw_fd()).collect();
        for fd in ready {
            if fd == listener.as_raw_fd() {
                // An error is one client's, or a shortage: neither ends the server.
                if let Ok(conn) = accept(&listener) {
                    conns.insert(conn.socket.as_raw_fd(), conn);
                }
            } else if let Some(conn) = conns.get_mut(&fd)
                && conn.ready(&mut buffer).is_err()
            {
                conns.remove(&fd);
            }
        }
    }
}

struct Conn {
    socket: TcpStream,
    /// What was read and is not written yet.
    kept: Vec<u8>,
}

fn accept(listener: &TcpListener) -> io::Result<Conn> {
    let (socket, _) = listener.accept()?;
    if socket.as_raw_fd() >= FD_SETSIZE as RawFd {
        return Err(Errno::EMFILE.into()); // A set has no bit for it.
    }
    socket.set_nonblocking(true)?;
    socket.set_nodelay(true)?;
    Ok(Conn { socket, kept: Vec::new() })
}

impl Conn {
    /// An error, or the end of what comes, closes the connection.
    fn ready(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let done = if self.kept.is_empty() { self.read(buffer) } else { self.write() };
        match done {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            done => done,
        }
    }

    /// Nothing is kept before a read, so at the end of the stream all has been written.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let len = self.socket.read(buffer)?;
        if len == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.kept.extend_from_slice(&buffer[..len]);
        self.write()
    }

    fn write(&mut self) -> io::Result<()> {
        let len = self.socket.write(&self.kept)?;
        self.kept.drain(..len);
        Ok(())
    }
}
