//! Coroutines: each connection has a stack of its own and yields where a thread would block.
//!
//! This is the model bare, an echo of bytes: the complete server is `src/main.rs`.
//!
//! **Who waits where:** the main thread in `accept`, each coroutine in its client's `read` or
//! `write`; underneath, may's worker thread, for all of them, in an unseen `epoll_wait`.
//! **What wakes it:** a client that comes, bytes that come, room for bytes to go.
//!
//! may is the scheduler. Where a call would block, `CoIo` leaves the stack of the coroutine as it
//! is, and the worker goes on with another one. A client that is silent, or slow to take its bytes,
//! stops its own coroutine and no other. The price is a stack and a buffer for each connection.
//!
//! A connection whose bytes are not taken is not read: `write_all` waits until all of them are.
//!
//! Run: `cargo run --release -p serve-may --example bare-may -- 127.0.0.1:7007`
//!
//! **What it lacks**, and where `src/main.rs` has it:
//! - a limit on connections, and a pause when there are no descriptors (this loop spins):
//!   `Shared::admit` and `Shared::accept`;
//! - a limit on coroutines, because may panics when there is no memory for a stack:
//!   `Shared::accept`;
//! - an idle connection without a buffer: `Conn::receive`;
//! - a turn for the others while one client sends without a pause: `Conn::run`;
//! - lines, a limit on their length, and chat: `Conn::handle`;
//! - deadlines for idle peers and for slow ones: `Conn::wait` and `Shared::mind_deadlines`;
//! - a stop that first writes what is due: `Shared::stop` and `Conn::run`;
//! - more than one core, flags and counters: `main` and `serve`.

use std::env;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

use may::go;
use may::io::CoIo;

fn main() -> io::Result<()> {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:7007".to_owned());
    let listener = TcpListener::bind(address)?;
    // One worker, on whichever processor is free: may 0.3.51 has a race between several.
    may::config().set_workers(1).set_worker_pin(false);
    // An output that is closed or full keeps no client out.
    let _ = writeln!(io::stdout(), "listening on {}", listener.local_addr()?);

    loop {
        // An error is one client's, or a shortage: neither ends the server.
        let Ok((socket, _)) = listener.accept() else { continue };
        go!(move || echo(socket));
    }
}

/// The life of a connection, one call that waits after another. An error ends it.
fn echo(socket: TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut socket = CoIo::new(socket)?;
    // On the heap: a coroutine's stack is small.
    let mut buffer = vec![0; 8 * 1024];
    loop {
        let len = socket.read(&mut buffer)?;
        if len == 0 {
            return Ok(());
        }
        socket.write_all(&buffer[..len])?;
    }
}
