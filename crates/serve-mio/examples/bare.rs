//! An event loop on portable readiness: mio says once that a socket is ready; we remember.
//!
//! This is the model bare, an echo of bytes: the complete server is `src/main.rs`.
//!
//! **Who waits where:** the only thread, in `mio::Poll` (`epoll_wait`), for all of its sockets at
//! once.
//! **What wakes it:** a socket that becomes ready: to be accepted from, to be read, to be written.
//!
//! mio is edge-triggered: it reports what has changed, and reports it once. So a socket that was
//! reported stays in a list until a call on it would block. Each socket in the list gets one call
//! in each turn, and there is no sleep while there is one.
//!
//! A connection waits for one thing at a time. Bytes that the socket does not take are kept. While
//! there are any, they are tried again and nothing is read. So it never keeps more than one read.
//!
//! Run: `cargo run --release -p serve-mio --example bare-mio -- 127.0.0.1:7007`
//!
//! **What it lacks**, and where `src/main.rs` has it:
//! - a limit on connections, and a pause when there are no descriptors (this loop spins): `accept`;
//! - lines, a limit on their length, and chat: `read`;
//! - deadlines for idle peers and for slow ones: `wait`;
//! - a stop that first writes what is kept: `run`;
//! - more than one core, flags and counters: `main` and `serve`.

use std::collections::{BTreeSet, HashMap};
use std::env;
use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net;
use std::os::fd::AsRawFd;
use std::time::Duration;

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

fn main() -> io::Result<()> {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:7007".to_owned());
    let listener = net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let mut listener = TcpListener::from_std(listener);
    let mut poll = Poll::new()?;
    let listening = Token(listener.as_raw_fd() as usize);
    poll.registry().register(&mut listener, listening, Interest::READABLE)?;
    // An output that is closed or full keeps no client out.
    let _ = writeln!(io::stdout(), "listening on {}", listener.local_addr()?);

    let mut conns = HashMap::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut events = Events::with_capacity(256);
    let mut ready = BTreeSet::new();
    loop {
        let timeout = if ready.is_empty() { None } else { Some(Duration::ZERO) };
        match poll.poll(&mut events, timeout) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        ready.extend(events.iter().map(Event::token));
        for token in mem::take(&mut ready) {
            if token == listening {
                match accept(&listener, &poll) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                    Err(_) => {} // One client's, or a shortage: neither ends the server.
                    Ok((token, conn)) => _ = conns.insert(token, conn),
                }
            } else if let Some(conn) = conns.get_mut(&token) {
                match conn.ready(&mut buffer) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                    Err(_) => {
                        conns.remove(&token); // Closes the socket, and so epoll forgets it.
                        continue;
                    }
                    Ok(()) => {}
                }
            }
            ready.insert(token);
        }
    }
}

struct Conn {
    socket: TcpStream,
    /// What was read and is not written yet.
    kept: Vec<u8>,
}

fn accept(listener: &TcpListener, poll: &Poll) -> io::Result<(Token, Conn)> {
    let (mut socket, _) = listener.accept()?;
    socket.set_nodelay(true)?;
    let token = Token(socket.as_raw_fd() as usize);
    poll.registry().register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
    Ok((token, Conn { socket, kept: Vec::new() }))
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
