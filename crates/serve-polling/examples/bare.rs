//! An event loop on portable readiness: polling says it once, and must be asked again.
//!
//! This is the model bare, an echo of bytes: the complete server is `src/main.rs`.
//!
//! **Who waits where:** the only thread, in `polling::Poller` (`epoll_wait`), for all of its
//! sockets at once.
//! **What wakes it:** a socket that is ready: to be accepted from, to be read, to be written.
//!
//! polling is oneshot: a socket that it has reported is not watched any more until it is asked for
//! again. So one call for each event is enough, and what is left is reported in the next turn. The
//! price is a system call after each event, to ask again.
//!
//! A connection waits for one thing at a time. Bytes that the socket does not take are kept. While
//! there are any, room to write is asked for, and not more to read. So it never keeps more than one
//! read.
//!
//! Run: `cargo run --release -p serve-polling --example bare-polling -- 127.0.0.1:7007`
//!
//! **What it lacks**, and where `src/main.rs` has it:
//! - a limit on connections, and a pause when there are no descriptors (this loop spins): `accept`;
//! - polling's level mode, which saves the call that asks again: `settle`;
//! - lines, a limit on their length, and chat: `read`;
//! - deadlines for idle peers and for slow ones: `wait`;
//! - a stop that first writes what is kept: `run`;
//! - more than one core, flags and counters: `main` and `serve`.

use std::collections::HashMap;
use std::env;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use polling::{Event, Events, Poller};

fn main() -> io::Result<()> {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:7007".to_owned());
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let listening = Event::readable(key(&listener));
    let mut conns = HashMap::new();
    let poller = Poller::new()?;
    // SAFETY: the poller is dropped before the listener, which was made before it.
    unsafe { poller.add(&listener, listening)? };
    // An output that is closed or full keeps no client out.
    let _ = writeln!(io::stdout(), "listening on {}", listener.local_addr()?);

    let mut buffer = vec![0; 64 * 1024];
    let mut events = Events::new();
    loop {
        events.clear();
        poller.wait(&mut events, None)?;
        for event in events.iter() {
            if event.key == listening.key {
                // An error is one client's, or a shortage: neither ends the server.
                if let Ok(conn) = accept(&listener, &poller) {
                    conns.insert(key(&conn.socket), conn);
                }
                poller.modify(&listener, listening)?;
            } else if let Some(conn) = conns.get_mut(&event.key)
                && conn.ready(&poller, &mut buffer).is_err()
            {
                poller.delete(&conn.socket)?;
                conns.remove(&event.key); // Closes the socket.
            }
        }
    }
}

struct Conn {
    socket: TcpStream,
    /// What was read and is not written yet.
    kept: Vec<u8>,
}

fn accept(listener: &TcpListener, poller: &Poller) -> io::Result<Conn> {
    let (socket, _) = listener.accept()?;
    socket.set_nonblocking(true)?;
    socket.set_nodelay(true)?;
    // SAFETY: `main` deletes it from the poller before it is closed, or drops the poller first.
    unsafe { poller.add(&socket, Event::readable(key(&socket)))? };
    Ok(Conn { socket, kept: Vec::new() })
}

impl Conn {
    /// An error, or the end of what comes, closes the connection.
    fn ready(&mut self, poller: &Poller, buffer: &mut [u8]) -> io::Result<()> {
        let done = if self.kept.is_empty() { self.read(buffer) } else { self.write() };
        match done {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => self.settle(poller),
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

    /// Asks again, for what the connection waits for.
    fn settle(&self, poller: &Poller) -> io::Result<()> {
        let key = key(&self.socket);
        let interest =
            if self.kept.is_empty() { Event::readable(key) } else { Event::writable(key) };
        poller.modify(&self.socket, interest)
    }
}

fn key(socket: &impl AsRawFd) -> usize {
    socket.as_raw_fd() as usize
}
