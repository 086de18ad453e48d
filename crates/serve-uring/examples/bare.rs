//! Asynchronous I/O: one loop tells the kernel what to do, and learns when it is done.
//!
//! This is the model bare, an echo of bytes: the complete server is `src/main.rs`.
//!
//! **Who waits where:** the only thread, in `io_uring_enter`, for all that it has asked for.
//! **What wakes it:** a completion: a client has been accepted, bytes have come, bytes have gone.
//!
//! No socket is asked whether it is ready. A request goes into a queue that the kernel reads, and
//! its result comes back through another. One system call hands over all new requests and waits for
//! the next result.
//!
//! The listener has one request that completes again and again (multishot), until a completion says
//! that no more will come. Then it is made anew. A connection has always exactly one request at the
//! kernel: to receive, and when something has come, to send it. A send that took only a part is
//! followed by another for the rest. So nothing is received while something is unsent.
//!
//! The life of a buffer: it is made with its connection. From `push` on the kernel may read or
//! write the buffer at any time, so our code must not use, move or free it. With the completion the
//! buffer is ours again. A connection is dropped only at a completion, when it has no request at
//! the kernel: so its buffer can be freed then, and its descriptor closed and used for another
//! client.
//!
//! Run: `cargo run --release -p serve-uring --example bare-uring -- 127.0.0.1:7007`
//!
//! **What it lacks**, and where `src/main.rs` has it:
//! - a limit on connections: `admit`; a pause when there are no descriptors (this loop spins):
//!   `accept`;
//! - a receive that completes again and again, into buffers that the kernel takes only when bytes
//!   have come: `settle` and `complete`;
//! - lines, a limit on their length, and chat: `read`, which calls `protocol`;
//! - deadlines for idle peers and for slow ones: `wait` and `end_turn`;
//! - a clear word where io_uring is forbidden or too old: `ring.rs`;
//! - a request that is cancelled: `close`; a stop that first sends what is queued: `woken`;
//! - more than one core, flags and counters: `serve`.

use std::collections::HashMap;
use std::env;
use std::io::{self, ErrorKind, Write};
use std::mem::ManuallyDrop;
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};

use io_uring::opcode::{AcceptMulti, Recv, Send};
use io_uring::squeue::Entry;
use io_uring::types::Fd;
use io_uring::{IoUring, cqueue};

/// What was asked for, in the upper half of `user_data`; the descriptor is in the lower half. It is
/// enough to find the connection, since it is closed only when no request names it.
///
/// ```text
///  63                    32 31                     0
/// +------------------------+------------------------+
/// |          kind          |       descriptor       |
/// +------------------------+------------------------+
/// ```
const ACCEPT: u32 = 1;
const RECEIVE: u32 = 2;
const SEND: u32 = 3;

fn main() -> io::Result<()> {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:7007".to_owned());
    let listener = TcpListener::bind(address)?;
    // One thread submits and waits, and the kernel completes requests only inside its calls.
    let mut ring: IoUring =
        IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(256)?;
    // An output that is closed or full keeps no client out.
    let _ = writeln!(io::stdout(), "listening on {}", listener.local_addr()?);

    // If `main` fails, the connections are not dropped: the kernel may still write to their
    // buffers.
    let mut conns = ManuallyDrop::new(HashMap::<RawFd, Conn>::new());
    push(&mut ring, &accept_request(&listener));
    loop {
        wait(&ring)?;
        for completion in ring.completion().collect::<Vec<_>>() {
            let (kind, fd) = unpack(completion.user_data());
            let result = completion.result();
            if kind == ACCEPT {
                // An error is one client's, or a shortage: neither ends the server.
                if result >= 0 {
                    // SAFETY: the result is a new descriptor, which has no owner yet.
                    let socket = unsafe { TcpStream::from_raw_fd(result) };
                    let mut conn = Conn::new(socket);
                    push(&mut ring, &conn.receive_request());
                    conns.insert(result, conn);
                }
                if !cqueue::more(completion.flags()) {
                    push(&mut ring, &accept_request(&listener));
                }
            } else if let Some(conn) = conns.get_mut(&fd) {
                match conn.completed(kind, result) {
                    Some(request) => push(&mut ring, &request),
                    None => _ = conns.remove(&fd), // Closes the socket and frees the buffer.
                }
            }
        }
    }
}

/// Hands over what was pushed, and waits until something is done.
fn wait(ring: &IoUring) -> io::Result<()> {
    let Err(error) = ring.submit_and_wait(1) else { return Ok(()) };
    // A signal came, or results must be fetched first. What was not handed over is still there.
    let again = [ErrorKind::Interrupted, ErrorKind::ResourceBusy, ErrorKind::WouldBlock];
    if again.contains(&error.kind()) { Ok(()) } else { Err(error) }
}

fn push(ring: &mut IoUring, request: &Entry) {
    // SAFETY: a request to accept has no memory. Any other has a connection's buffer, which stays
    // where it is and is neither used nor freed until the completion: see the life of a buffer.
    while unsafe { ring.submission().push(request) }.is_err() {
        let _ = ring.submit(); // The queue is full: the kernel takes what is in it.
    }
}

/// Accepts one client after another.
fn accept_request(listener: &TcpListener) -> Entry {
    let fd = listener.as_raw_fd();
    AcceptMulti::new(Fd(fd)).flags(libc::SOCK_CLOEXEC).build().user_data(pack(ACCEPT, fd))
}

struct Conn {
    socket: TcpStream,
    /// A vector's bytes are on the heap: they stay where they are when the connection is moved.
    buffer: Vec<u8>,
    /// Which part of the buffer was received and is not sent yet.
    unsent: Range<usize>,
}

impl Conn {
    fn new(socket: TcpStream) -> Conn {
        let _ = socket.set_nodelay(true); // Fails if the peer has gone.
        Conn { socket, buffer: vec![0; 8 * 1024], unsent: 0..0 }
    }

    /// A request has completed. Returns the next one, or `None` if the connection is to be closed:
    /// after an error, or when the client has ended its stream. Then nothing is unsent, because a
    /// request to receive is made only after everything was sent.
    fn completed(&mut self, kind: u32, result: i32) -> Option<Entry> {
        let len = usize::try_from(result).ok()?; // An error is a negative number.
        if kind == SEND {
            self.unsent.start += len;
        } else if len > 0 {
            self.unsent = 0..len;
        } else {
            return None;
        }
        Some(if self.unsent.is_empty() { self.receive_request() } else { self.send_request() })
    }

    /// A request to receive. It completes when bytes have come.
    fn receive_request(&mut self) -> Entry {
        let fd = self.socket.as_raw_fd();
        let len = self.buffer.len() as u32;
        Recv::new(Fd(fd), self.buffer.as_mut_ptr(), len).build().user_data(pack(RECEIVE, fd))
    }

    /// A request to send. It completes when the socket has taken some of the bytes.
    fn send_request(&self) -> Entry {
        let fd = self.socket.as_raw_fd();
        let bytes = &self.buffer[self.unsent.clone()];
        Send::new(Fd(fd), bytes.as_ptr(), bytes.len() as u32).build().user_data(pack(SEND, fd))
    }
}

fn pack(kind: u32, fd: RawFd) -> u64 {
    u64::from(kind) << 32 | fd as u64
}

fn unpack(user_data: u64) -> (u32, RawFd) {
    ((user_data >> 32) as u32, user_data as RawFd)
}
