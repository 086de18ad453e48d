//! Signal-driven I/O: the kernel queues a signal for each socket that is ready; one loop waits.
//!
//! This is the model bare, an echo of bytes: the complete server is `src/main.rs`.
//!
//! **Who waits where:** the only thread, in `sigtimedwait`, for the signals of all of its sockets.
//! **What wakes it:** a real-time signal, which names the descriptor of a socket. No handler runs:
//! the signals are blocked.
//!
//! A signal reports what has happened, once. So a socket that was reported stays in a list
//! until a call on it would block. Each socket in the list gets one call in each turn, and there is
//! no sleep while there is one. If the queue of signals is full, the kernel sends a plain SIGIO
//! instead: then every socket is put in the list.
//!
//! A connection waits for one thing at a time. Bytes that the socket does not take are kept. While
//! there are any, they are tried again and nothing is read. So it never keeps more than one read.
//!
//! Run: `cargo run --release -p serve-sigio --example bare-sigio -- 127.0.0.1:7007`
//!
//! **What it lacks**, and where `src/main.rs` has it:
//! - a limit on connections, and a pause when there are no descriptors (this loop spins): `accept`;
//! - a signalfd, which hands over many signals in one call: `wait`;
//! - lines, a limit on their length, and chat: `read`;
//! - deadlines for idle peers and for slow ones: `wait`;
//! - a stop that first writes what is kept: `run`;
//! - more than one core, flags and counters: `main` and `serve`.

#![expect(unsafe_code)]

use std::collections::{BTreeSet, HashMap};
use std::env;
use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::process;
use std::ptr;

use nix::libc::{self, c_int, c_long};
use nix::sys::signal::{SigSet, Signal};

/// Signals fetched in one turn.
const SIGNALS: usize = 256;

fn main() -> io::Result<()> {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:7007".to_owned());
    // Those that are no standard signals are the real-time signals.
    let mut signals = SigSet::all();
    Signal::iterator().for_each(|signal| signals.remove(signal));
    signals.add(Signal::SIGIO);
    signals.thread_block()?;
    let listener = TcpListener::bind(address)?;
    arm(&listener)?;
    // An output that is closed or full keeps no client out.
    let _ = writeln!(io::stdout(), "listening on {}", listener.local_addr()?);

    let mut conns = HashMap::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut ready = BTreeSet::from([listener.as_raw_fd()]);
    loop {
        for _ in 0..SIGNALS {
            let Some((signal, fd)) = wait(&signals, ready.is_empty())? else { break };
            if signal == libc::SIGIO {
                ready.insert(listener.as_raw_fd());
                ready.extend(conns.keys());
            } else {
                ready.insert(fd);
            }
        }
        for fd in mem::take(&mut ready) {
            if fd == listener.as_raw_fd() {
                match accept(&listener) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                    Err(_) => {} // One client's, or a shortage: neither ends the server.
                    Ok(conn) => {
                        // For bytes that came before it was armed no signal will come.
                        ready.insert(conn.socket.as_raw_fd());
                        conns.insert(conn.socket.as_raw_fd(), conn);
                    }
                }
            } else if let Some(conn) = conns.get_mut(&fd) {
                match conn.ready(&mut buffer) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                    Err(_) => {
                        conns.remove(&fd); // Closes the socket.
                        continue;
                    }
                    Ok(()) => {}
                }
            }
            ready.insert(fd);
        }
    }
}

struct Conn {
    socket: TcpStream,
    /// What was read and is not written yet.
    kept: Vec<u8>,
}

/// The next signal in the queue, and the descriptor that it names. If there is none, sleeps until
/// one comes, or comes back at once.
fn wait(signals: &SigSet, sleep: bool) -> io::Result<Option<(c_int, RawFd)>> {
    /// What sigaction(2) says of SIGIO and its like: the `libc` crate does not show these fields.
    #[repr(C)]
    struct Info {
        signal_errno_code: [c_int; 3],
        band: c_long,
        fd: RawFd,
        rest: [u8; size_of::<libc::siginfo_t>()],
    }
    let rest = [0; size_of::<libc::siginfo_t>()];
    let mut info = Info { signal_errno_code: [0; 3], band: 0, fd: 0, rest };

    let timeout = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let timeout = if sleep { ptr::null() } else { ptr::from_ref(&timeout) };
    // SAFETY: `info` has the alignment of a siginfo_t and more than its size, and consists of
    // integers, which may be any bytes. The set and the timeout outlive the call.
    let signal = unsafe { libc::sigtimedwait(signals.as_ref(), (&raw mut info).cast(), timeout) };
    if signal > 0 {
        return Ok(Some((signal, info.fd)));
    }
    let error = io::Error::last_os_error();
    let none = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted);
    if none { Ok(None) } else { Err(error) }
}

fn accept(listener: &TcpListener) -> io::Result<Conn> {
    let (socket, _) = listener.accept()?;
    arm(&socket)?;
    socket.set_nodelay(true)?;
    Ok(Conn { socket, kept: Vec::new() })
}

/// From now on a signal comes for all that happens to the socket, and calls on it do not wait.
fn arm(socket: &impl AsRawFd) -> io::Result<()> {
    const F_SETSIG: c_int = 10; // From fcntl(2): the `libc` crate does not have it everywhere.
    let (fd, process) = (socket.as_raw_fd(), process::id() as c_int);
    let flags = libc::O_NONBLOCK | libc::O_ASYNC;
    // SAFETY: the three commands take an int and touch no memory of this process. The signals that
    // follow are blocked, so that they interrupt nothing.
    let armed = unsafe {
        libc::fcntl(fd, libc::F_SETOWN, process) == 0
            && libc::fcntl(fd, F_SETSIG, libc::SIGRTMIN()) == 0
            && libc::fcntl(fd, libc::F_SETFL, flags) == 0
    };
    if armed { Ok(()) } else { Err(io::Error::last_os_error()) }
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
