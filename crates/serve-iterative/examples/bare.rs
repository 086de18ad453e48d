//! Single-threaded synchronous: one client after another, with calls that block.
//!
//! This is the model bare, an echo of bytes: the complete server is `src/main.rs`.
//!
//! **Who waits where:** the only thread: in `accept`, then in its client's `read` or `write`.
//! **What wakes it:** a client that comes, bytes that come, room for bytes to go.
//!
//! There is never more than one client. While it is silent, or slow to take its bytes, all others
//! wait in the backlog.
//!
//! A connection whose bytes are not taken is not read: `write_all` waits until all of them are.
//!
//! Run: `cargo run --release -p serve-iterative --example bare-iterative -- 127.0.0.1:7007`
//!
//! **What it lacks**, and where `src/main.rs` has it:
//! - a pause when there are no descriptors (this loop spins): `Shared::pause`;
//! - lines, a limit on their length, and chat: `Conn::echo` and `Conn::chat`;
//! - deadlines for idle peers and for slow ones: `Conn::receive` and `Conn::send`;
//! - a stop that first writes what is due: `Shared::stop` and `Conn::echo`;
//! - more than one worker, flags and counters: `main` and `serve`.

use std::env;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

fn main() -> io::Result<()> {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:7007".to_owned());
    let listener = TcpListener::bind(address)?;
    // An output that is closed or full keeps no client out.
    let _ = writeln!(io::stdout(), "listening on {}", listener.local_addr()?);

    loop {
        // An error is one client's, or a shortage: neither ends the server.
        let Ok((socket, _)) = listener.accept() else { continue };
        let _ = echo(socket);
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
