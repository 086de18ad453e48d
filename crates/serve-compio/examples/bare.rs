//! Async/await over completions: each connection is a task that moves its buffer, on compio.
//!
//! This is the model bare, an echo of bytes: the complete server is `src/main.rs`.
//!
//! **Who waits where:** the main task in `accept`, each other task in its client's `read` or
//! `write_all`; underneath, the only thread, for all of them, in an unseen `io_uring_enter`.
//! **What wakes it:** a client that has been accepted, bytes that have come, bytes that have gone:
//! the kernel has done what the task asked for (a completion), and the runtime polls the task.
//!
//! The kernel works in a task's buffer while the task waits. So the task gives the buffer away with
//! each request, and gets it back with the result: the compiler sees to it that no task touches a
//! buffer, or frees it, while it is the kernel's. Even an idle connection has lent its buffer.
//!
//! A connection whose bytes are not taken is not read: `write_all` waits until all of them are.
//!
//! Run: `cargo run --release -p serve-compio --example bare-compio -- 127.0.0.1:7007`
//!
//! **What it lacks**, and where `src/main.rs` has it:
//! - a limit on connections: `admit`;
//! - one request for all clients to come: `accept`;
//! - an idle connection without a buffer: `Connection::run`;
//! - lines, a limit on their length, and chat: `Connection::handle`;
//! - deadlines for idle peers and for slow ones: `Connection::run`;
//! - a stop that first writes what is due: `accept` and `Connection::run`;
//! - a clear word where io_uring is forbidden or too old: `serve`;
//! - more than one core, flags and counters: `serve` and `Worker`.

use std::env;
use std::io::{self, Write};
use std::time::Duration;

use compio::BufResult;
use compio::io::{AsyncRead, AsyncWriteExt};
use compio::net::{TcpListener, TcpStream};
use compio::runtime::{self, Runtime};
use compio::time::sleep;

fn main() -> io::Result<()> {
    Runtime::new()?.block_on(accept())
}

async fn accept() -> io::Result<()> {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:7007".to_owned());
    let listener = TcpListener::bind(address).await?;
    // An output that is closed or full keeps no client out.
    let _ = writeln!(io::stdout(), "listening on {}", listener.local_addr()?);

    loop {
        let Ok((socket, _)) = listener.accept().await else {
            // One client's error, or a shortage, which may be over after a while.
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        runtime::spawn(echo(socket)).detach();
    }
}

/// The life of a connection, one request that waits after another. An error ends it.
async fn echo(mut socket: TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(8 * 1024);
    loop {
        let BufResult(len, received) = socket.read(buffer).await;
        if len? == 0 {
            return Ok(());
        }
        let BufResult(written, sent) = socket.write_all(received).await;
        written?;
        buffer = sent;
        buffer.clear();
    }
}
