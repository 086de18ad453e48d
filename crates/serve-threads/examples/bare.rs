//! Multithreaded synchronous: a thread for each connection, with calls that block.
//!
//! This is the model bare, an echo of bytes: the complete server is `src/main.rs`.
//!
//! **Who waits where:** the main thread in `accept`, each other thread in its client's `read` or
//! `write`.
//! **What wakes it:** a client that comes, bytes that come, room for bytes to go.
//!
//! The kernel's scheduler is the event loop. A client that is silent, or slow to take its bytes,
//! stops its own thread and no other. The price is a stack and a buffer for each connection.
//!
//! A connection whose bytes are not taken is not read: `write_all` waits until all of them are.
//!
//! Run: `cargo run --release -p serve-threads --example bare-threads -- 127.0.0.1:7007`
//!
//! **What it lacks**, and where `src/main.rs` has it:
//! - a limit on connections, and a pause when there are no descriptors (this loop spins):
//!   `Acceptor::admit` and `Shared::pause`;
//! - small stacks, and patience when there is no thread to be had: `Conn::start`;
//! - lines, a limit on their length, and chat: `Conn::echo_lines` and `Conn::chat_in`;
//! - deadlines for idle peers and for slow ones: `Conn::receive` and `Conn::send`;
//! - a stop that first writes what is due: `Shared::stop` and `Conn::echo_lines`;
//! - flags and counters: `main` and `serve`.

use std::env;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

fn main() -> io::Result<()> {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:7007".to_owned());
    let listener = TcpListener::bind(address)?;
    // An output that is closed or full keeps no client out.
    let _ = writeln!(io::stdout(), "listening on {}", listener.local_addr()?);

    loop {
        // An error is one client's, or a shortage: neither ends the server.
        let Ok((socket, _)) = listener.accept() else { continue };
        // Without a thread to be had, the connection is closed.
        let _ = thread::Builder::new().spawn(move || echo(socket));
    }
}

/// The life of a connection, one call that waits after another. An error ends it.
fn echo(mut socket: TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let len = socket.read(&mut buffer)?;
        if len == 0 {
            return Ok(());
        }
        socket.write_all(&buffer[..len])?;
    }
}
