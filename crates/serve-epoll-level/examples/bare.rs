//! Multiplexed I/O, level-triggered: one loop asks the kernel which of its sockets are ready.
//!
//! This is the model bare, an echo of bytes: the complete server is `src/main.rs`.
//!
//! **Who waits where:** the only thread, in `epoll_wait`, for all of its sockets at once.
//! **What wakes it:** a socket that is ready: to be accepted from, to be read, to be written.
//!
//! Level-triggered means that `epoll_wait` names a socket again and again for as long as it is
//! ready. So one call for each event is enough, and what is left is announced in the next turn.
//!
//! A connection waits for one thing at a time. Bytes that the socket does not take are kept. While
//! there are any, epoll watches for room to write (EPOLLOUT) and not for more to read (EPOLLIN). So
//! it never keeps more than one read.
//!
//! Run: `cargo run --release -p serve-epoll-level --example bare-epoll-level -- 127.0.0.1:7007`
//!
//! **What it lacks**, and where `src/main.rs` has it:
//! - a limit on connections, and a pause when there are no descriptors (this loop spins): `accept`;
//! - lines, a limit on their length, and chat: `read`;
//! - deadlines for idle peers and for slow ones: `wait`;
//! - a stop that first writes what is kept: `run`;
//! - more than one core, flags and counters: `main` and `serve`.

use std::collections::HashMap;
use std::env;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::retry_on_intr;

fn main() -> io::Result<()> {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:7007".to_owned());
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, token(&listener), EventFlags::IN)?;
    // An output that is closed or full keeps no client out.
    let _ = writeln!(io::stdout(), "listening on {}", listener.local_addr()?);

    let mut conns = HashMap::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut events = Vec::with_capacity(256);
    loop {
        retry_on_intr(|| epoll::wait(&epoll, spare_capacity(&mut events), None))?;
        for event in events.drain(..) {
            let fd = event.data.u64() as RawFd;
            if fd == listener.as_raw_fd() {
                // An error is one client's, or a shortage: neither ends the server.
                if let Ok(conn) = accept(&listener, &epoll) {
                    conns.insert(conn.socket.as_raw_fd(), conn);
                }
            } else if let Some(conn) = conns.get_mut(&fd)
                && conn.ready(&epoll, &mut buffer).is_err()
            {
                conns.remove(&fd); // Closes the socket, and so epoll forgets it.
            }
        }
    }
}

struct Conn {
    socket: TcpStream,
    /// What was read and is not written yet.
    kept: Vec<u8>,
    /// What epoll watches for.
    interest: EventFlags,
}

fn accept(listener: &TcpListener, epoll: &OwnedFd) -> io::Result<Conn> {
    let (socket, _) = listener.accept()?;
    socket.set_nonblocking(true)?;
    socket.set_nodelay(true)?;
    let interest = EventFlags::IN;
    epoll::add(epoll, &socket, token(&socket), interest)?;
    Ok(Conn { socket, kept: Vec::new(), interest })
}

impl Conn {
    /// An error, or the end of what comes, closes the connection.
    fn ready(&mut self, epoll: &OwnedFd, buffer: &mut [u8]) -> io::Result<()> {
        let done = if self.kept.is_empty() { self.read(buffer) } else { self.write() };
        match done {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => self.settle(epoll),
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

    /// Makes epoll watch for what the connection waits for, if that has changed.
    fn settle(&mut self, epoll: &OwnedFd) -> io::Result<()> {
        let interest = if self.kept.is_empty() { EventFlags::IN } else { EventFlags::OUT };
        if interest != self.interest {
            epoll::modify(epoll, &self.socket, token(&self.socket), interest)?;
            self.interest = interest;
        }
        Ok(())
    }
}

fn token(socket: &impl AsRawFd) -> EventData {
    EventData::new_u64(socket.as_raw_fd() as u64)
}
