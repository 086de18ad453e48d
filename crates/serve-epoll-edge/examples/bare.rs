//! Multiplexed I/O, edge-triggered: the kernel says once which sockets are ready; we remember.
//!
//! This is the model bare, an echo of bytes: the complete server is `src/main.rs`.
//!
//! **Who waits where:** the only thread, in `epoll_wait`, for all of its sockets at once.
//! **What wakes it:** a socket that becomes ready: to be accepted from, to be read, to be written.
//!
//! Edge-triggered means that `epoll_wait` reports what has changed, and reports it once. So a
//! socket that was reported stays in a list until a call on it would block. Each socket in the list
//! gets one call in each turn, and there is no sleep while there is one.
//!
//! A connection waits for one thing at a time. Bytes that the socket does not take are kept. While
//! there are any, they are tried again and nothing is read. So it never keeps more than one read.
//!
//! Run: `cargo run --release -p serve-epoll-edge --example bare-epoll-edge -- 127.0.0.1:7007`
//!
//! **What it lacks**, and where `src/main.rs` has it:
//! - a limit on connections, and a pause when there are no descriptors (this loop spins): `accept`;
//! - a short read as the sign that nothing is left, which saves the call that fails: `read`;
//! - lines, a limit on their length, and chat: `read`;
//! - deadlines for idle peers and for slow ones: `wait`;
//! - a stop that first writes what is kept: `run`;
//! - more than one core, flags and counters: `main` and `serve`.

use std::collections::{BTreeSet, HashMap};
use std::env;
use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::retry_on_intr;

fn main() -> io::Result<()> {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:7007".to_owned());
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, token(&listener), EventFlags::IN | EventFlags::ET)?;
    // An output that is closed or full keeps no client out.
    let _ = writeln!(io::stdout(), "listening on {}", listener.local_addr()?);

    let mut conns = HashMap::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut events = Vec::with_capacity(256);
    let mut ready = BTreeSet::new();
    loop {
        let timeout = if ready.is_empty() { None } else { Some(&Timespec::default()) };
        retry_on_intr(|| epoll::wait(&epoll, spare_capacity(&mut events), timeout))?;
        ready.extend(events.drain(..).map(|event| event.data.u64() as RawFd));
        for fd in mem::take(&mut ready) {
            if fd == listener.as_raw_fd() {
                match accept(&listener, &epoll) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                    Err(_) => {} // One client's, or a shortage: neither ends the server.
                    Ok(conn) => _ = conns.insert(conn.socket.as_raw_fd(), conn),
                }
            } else if let Some(conn) = conns.get_mut(&fd) {
                match conn.ready(&mut buffer) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                    Err(_) => {
                        conns.remove(&fd); // Closes the socket, and so epoll forgets it.
                        continue;
                    }
                    Ok(()) => {}
                }
            }
            ready.insert(fd);
        }
    }
}

struct Conn {
    socket: TcpStream,
    /// What was read and is not written yet.
    kept: Vec<u8>,
}

fn accept(listener: &TcpListener, epoll: &OwnedFd) -> io::Result<Conn> {
    let (socket, _) = listener.accept()?;
    socket.set_nonblocking(true)?;
    socket.set_nodelay(true)?;
    let interest = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
    epoll::add(epoll, &socket, token(&socket), interest)?;
    Ok(Conn { socket, kept: Vec::new() })
}

impl Conn {
    /// An error, or the end of what comes, closes the connection. WouldBlock takes it off the list.
    fn ready(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        if self.kept.is_empty() { self.read(buffer) } else { self.write() }
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

fn token(socket: &impl AsRawFd) -> EventData {
    EventData::new_u64(socket.as_raw_fd() as u64)
}
