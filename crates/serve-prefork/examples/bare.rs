//! Multiprocess synchronous: a pool of processes, each of which serves one client to its end.
//!
//! This is the model bare, an echo of bytes: the complete server is `src/main.rs`.
//!
//! **Who waits where:** each process in `accept`, all on one socket, then in its client's `read` or
//! `write`. Their parent waits in `wait`.
//! **What wakes it:** a client that comes, bytes that come, room for bytes to go; and the parent, a
//! process that ends.
//!
//! Each process of the pool is an iterative server. A client that is silent, or slow to take its
//! bytes, stops its own process; when all are busy, the others wait in the backlog. A process that
//! dies takes its one client along, and the parent forks another.
//!
//! A connection whose bytes are not taken is not read: `write_all` waits until all of them are.
//!
//! Run: `cargo run --release -p serve-prefork --example bare-prefork -- 127.0.0.1:7007`
//!
//! **What it lacks**, and where `src/main.rs` and `src/worker.rs` have it:
//! - a size of the pool to choose, and a warning when it is too small: `serve`;
//! - a pause when there are no descriptors (this loop spins): `Worker::run`;
//! - lines, a limit on their length, and chat: `Conn::echo` and `Conn::chat`;
//! - deadlines for idle peers and for slow ones: `Conn::receive` and `Conn::send`;
//! - a stop that first writes what is due: `Pool::stop` and `Conn::echo`;
//! - flags and counters: `main` and `serve`.

#![expect(unsafe_code)]

use std::env;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::parent_id;
use std::process;
use std::thread;
use std::time::Duration;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::wait::wait;
use nix::unistd::{ForkResult, fork};

/// Processes of the pool, and so the most clients at once.
const PROCESSES: usize = 64;

fn main() -> io::Result<()> {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:7007".to_owned());
    let listener = TcpListener::bind(address)?;
    for _ in 0..PROCESSES {
        start(&listener)?;
    }
    // An output that is closed or full keeps no client out.
    let _ = writeln!(io::stdout(), "listening on {}", listener.local_addr()?);

    loop {
        wait()?;
        while start(&listener).is_err() {
            thread::sleep(Duration::from_secs(1)); // There may be no more processes for now.
        }
    }
}

/// Forks a process that serves clients until its parent ends.
fn start(listener: &TcpListener) -> io::Result<()> {
    let parent = process::id();
    // SAFETY: this process has one thread, so that no other can have held a lock: the child may do
    // all that its parent may.
    if let ForkResult::Parent { .. } = unsafe { fork() }? {
        return Ok(());
    }
    // The parent may have ended before the kernel was asked to tell of it.
    if set_pdeathsig(Signal::SIGTERM).is_err() || parent_id() != parent {
        process::exit(1);
    }
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
