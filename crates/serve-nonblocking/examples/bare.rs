//! Non-blocking I/O: one loop asks every socket, again and again, and none makes it wait.
//!
//! This is the model bare, an echo of bytes: the complete server is `src/main.rs`.
//!
//! **Who waits where:** no call waits. After a turn without progress the only thread sleeps for a
//! moment.
//! **What wakes it:** nothing. The loop finds in its next turn what has come.
//!
//! The kernel keeps nothing and reports nothing. So each turn costs a call for each connection,
//! even for a silent one.
//!
//! A connection is asked for one thing at a time. Bytes that the socket does not take are kept.
//! While there are any, they are tried again and nothing is read. So it never keeps more than one
//! read.
//!
//! Run: `cargo run --release -p serve-nonblocking --example bare-nonblocking -- 127.0.0.1:7007`
//!
//! **What it lacks**, and where `src/main.rs` has it:
//! - a limit on connections, and a pause when there are no descriptors: `accept`;
//! - a choice of what a turn without progress does (spin, yield, sleep): `wait`;
//! - lines, a limit on their length, and chat: `read`;
//! - deadlines for idle peers and for slow ones: `wait`;
//! - a stop that first writes what is kept: `run`;
//! - more than one core, flags and counters: `main` and `serve`.

use std::env;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

fn main() -> io::Result<()> {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:7007".to_owned());
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    // An output that is closed or full keeps no client out.
    let _ = writeln!(io::stdout(), "listening on {}", listener.local_addr()?);

    let mut conns = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let mut in_vain = true;
        // An error is one client's, or a shortage: neither ends the server.
        if let Ok(conn) = accept(&listener) {
            conns.push(conn);
            in_vain = false;
        }
        conns.retain_mut(|conn| match conn.ready(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => true,
            done => {
                in_vain = false;
                done.is_ok()
            }
        });
        if in_vain {
            thread::sleep(Duration::from_millis(1));
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
    socket.set_nonblocking(true)?;
    socket.set_nodelay(true)?;
    Ok(Conn { socket, kept: Vec::new() })
}

impl Conn {
    /// An error, or the end of what comes, closes the connection.
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
