//! Event-driven: handlers are registered with a loop that is not ours, and it calls them back.
//!
//! This is the model bare, an echo of bytes: the complete server is `src/main.rs`.
//!
//! **Who waits where:** calloop's loop on the only thread, in `EventLoop::run` (`epoll_wait`).
//! **What wakes it:** a source: the listener when a client is there, a connection when it becomes
//! ready to be read or written. The loop then calls the handler that was registered with it.
//!
//! A handler is a closure. What it keeps from call to call is its own; what all handlers share, the
//! loop hands to each: here the buffer to read into. It never waits, or all others would wait too.
//! It answers what the loop is to do with its source: watch it on, register it anew, or remove it.
//!
//! Connections are edge-triggered: the loop reports what has changed, and reports it once. So the
//! handler goes on until a call would block. After some calls it has the source registered anew,
//! which makes the loop report it again, after the other sources have had their turn.
//!
//! A connection waits for one thing at a time. Bytes that the socket does not take are kept. While
//! there are any, they are tried again and nothing is read. So it never keeps more than one read.
//!
//! Run: `cargo run --release -p serve-calloop --example bare-calloop -- 127.0.0.1:7007`
//!
//! **What it lacks**, and where `src/main.rs` has it:
//! - a limit on connections, and a pause when there are no descriptors (this loop spins): `accept`;
//! - level-triggered sources, whose handlers save the call that fails: `settle`;
//! - lines, a limit on their length, and chat: `read`;
//! - deadlines for idle peers and for slow ones, from the loop's timer: `run`;
//! - a stop that first writes what is kept: `run`;
//! - more than one core, flags and counters: `main` and `serve`.

use std::env;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};

use calloop::generic::Generic;
use calloop::{EventLoop, Interest, LoopHandle, Mode, PostAction};

/// What all handlers share.
type Buffer = Vec<u8>;

/// Calls of one handler in one turn, so that a client that never pauses does not hold up others.
const CALLS: usize = 16;

fn main() -> io::Result<()> {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:7007".to_owned());
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let mut event_loop = EventLoop::<Buffer>::try_new()?;
    let handle = event_loop.handle();
    let source = Generic::new(listener, Interest::READ, Mode::Level);
    let inserted = event_loop.handle().insert_source(source, move |_, listener, _| {
        // An error is one client's, or a shortage: neither ends the server.
        let _ = accept(listener, &handle);
        Ok(PostAction::Continue)
    });
    inserted.map_err(|failed| failed.error)?;
    // An output that is closed or full keeps no client out.
    let _ = writeln!(io::stdout(), "listening on {address}");

    let mut buffer = vec![0; 64 * 1024];
    event_loop.run(None, &mut buffer, |_| {})?;
    Ok(())
}

fn accept(listener: &TcpListener, handle: &LoopHandle<'_, Buffer>) -> io::Result<()> {
    let (socket, _) = listener.accept()?;
    socket.set_nonblocking(true)?;
    socket.set_nodelay(true)?;
    let source = Generic::new(socket, Interest::BOTH, Mode::Edge);
    let mut kept = Vec::new(); // What was read and is not written yet.
    let inserted = handle.insert_source(source, move |_, socket, buffer| {
        Ok(ready(socket, &mut kept, buffer)) // An error would end the loop.
    });
    inserted.map_err(|failed| failed.error)?;
    Ok(())
}

/// An error, or the end of what comes, removes the source, which closes its socket.
fn ready(socket: &TcpStream, kept: &mut Vec<u8>, buffer: &mut [u8]) -> PostAction {
    for _ in 0..CALLS {
        let done = if kept.is_empty() { read(socket, kept, buffer) } else { write(socket, kept) };
        match done {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return PostAction::Continue,
            Err(_) => return PostAction::Remove,
            Ok(()) => {}
        }
    }
    PostAction::Reregister
}

/// Nothing is kept before a read, so at the end of the stream all has been written.
fn read(mut socket: &TcpStream, kept: &mut Vec<u8>, buffer: &mut [u8]) -> io::Result<()> {
    let len = socket.read(buffer)?;
    if len == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    kept.extend_from_slice(&buffer[..len]);
    write(socket, kept)
}

fn write(mut socket: &TcpStream, kept: &mut Vec<u8>) -> io::Result<()> {
    let len = socket.write(kept)?;
    kept.drain(..len);
    Ok(())
}
