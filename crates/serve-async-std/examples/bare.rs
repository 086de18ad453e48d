//! Asynchronous programming: each connection is a task that reads as if it blocked, on async-std.
//!
//! This is the model bare, an echo of bytes: the complete server is `src/main.rs`. The authors of
//! async-std have discontinued it: shown for comparison, not for new servers.
//!
//! **Who waits where:** the main task in `accept`, each other task in its client's `read` or
//! `write_all`; underneath, one of the threads, for all of them, in an unseen `epoll_wait`, while
//! the others run tasks or wait for one.
//! **What wakes it:** a client that comes, bytes that come, room for bytes to go: the reactor is
//! told of it (oneshot: armed again for every wait) and wakes the task, which the executor polls.
//!
//! The executor is the scheduler. A client that is silent, or slow to take its bytes, stops its own
//! task and no other. A task is a state machine on the heap, as large as what it keeps across an
//! `await`. The price is that, and a buffer for each connection.
//!
//! There is one executor, and async-std starts a thread for each core to run its tasks. The
//! variable ASYNC_STD_THREAD_COUNT sets another number.
//!
//! A connection whose bytes are not taken is not read: `write_all` waits until all of them are.
//!
//! Run: `cargo run --release -p serve-async-std --example bare-async-std -- 127.0.0.1:7007`
//!
//! **What it lacks**, and where `src/main.rs` has it:
//! - a limit on connections: `admit`;
//! - an idle connection without a buffer: `Connection::read`;
//! - a turn for other tasks while one client sends without a pause: `Connection::run`;
//! - lines, a limit on their length, and chat: `Connection::handle`;
//! - deadlines for idle peers and for slow ones: `Connection::run`;
//! - a stop that first writes what is due: `accept` and `Connection::run`;
//! - flags and counters: `main` and `Shared`; the number of threads: `src/runtime.rs`.

use std::env;
use std::io::{self, Write};
use std::time::Duration;

use async_std::io::{ReadExt, WriteExt};
use async_std::net::{TcpListener, TcpStream};
use async_std::task::{self, block_on, sleep};

fn main() -> io::Result<()> {
    block_on(accept())
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
        task::spawn(echo(socket));
    }
}

/// The life of a connection, one call that waits after another. An error ends it.
async fn echo(mut socket: TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    // A vector: an array would be part of the task, which is moved when it is spawned.
    let mut buffer = vec![0; 8 * 1024];
    loop {
        let len = socket.read(&mut buffer).await?;
        if len == 0 {
            return Ok(());
        }
        socket.write_all(&buffer[..len]).await?;
    }
}
