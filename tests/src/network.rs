//! A bad network between the clients of a case and the server: a proxy for each address.
//!
//! Bytes come late, in pieces of any size, and now and then not for a while. Each connection and
//! each of its directions has its own delays, so what one client sends before another may arrive
//! behind it. The end of a stream stays an end, a reset stays a reset, and no byte is lost: what a
//! case expects of a connection still holds. It is the time and the cut of the bytes that differ.

use std::collections::HashMap;
use std::env;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use crate::watchdog::lock;

/// The one server whose cases always run over the network as well.
const ALWAYS: &str = "serve-epoll-level";

/// Most bytes that are taken at once.
const MOST: usize = 4096;

/// Of so many pieces one is held up for longer.
const SELDOM: u32 = 50;

/// Whether the cases of `package` are to run over a bad network as well.
pub(crate) fn is_asked_for(package: &str) -> bool {
    package == ALWAYS || env::var("CONFORMANCE_NETWORK").is_ok_and(|network| network == "bad")
}

/// The doors that stand in for servers.
pub(crate) struct Network {
    seed: u64,
    doors: Mutex<HashMap<SocketAddr, SocketAddr>>,
}

impl Network {
    /// The delays and the sizes of pieces follow from `seed`, as far as threads run in one order.
    pub(crate) fn new(seed: u64) -> Network {
        Network { seed, doors: Mutex::default() }
    }

    /// Where to connect in order to reach `server`.
    pub(crate) fn door(&self, server: SocketAddr) -> SocketAddr {
        *lock(&self.doors).entry(server).or_insert_with(|| {
            let rng = fastrand::Rng::with_seed(self.seed);
            open(server, rng).expect("a port for the network")
        })
    }
}

/// Listens, and brings each client that comes to `server`. It does so until the test's process
/// ends: a server may be started again at its address.
fn open(server: SocketAddr, mut rng: fastrand::Rng) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((server.ip(), 0))?;
    let door = listener.local_addr()?;
    start(move || {
        while let Ok((client, _)) = listener.accept() {
            let rng = rng.fork();
            // Without a thread the client is closed, and its case says so.
            let _ = start(move || carry(client, server, rng));
        }
    })?;
    Ok(door)
}

/// A connection needs two threads, and some cases a thousand of them.
fn start(run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name("network".into()).stack_size(64 << 10).spawn(run)?;
    Ok(())
}

/// Both sides of a connection.
struct Both {
    client: TcpStream,
    server: TcpStream,
    reset: AtomicBool,
}

impl Both {
    /// One side has been reset, and the other one is to be: it is when both threads have let it go,
    /// which closes it. Nothing more may be sent to it, not even the end of the stream.
    fn reset(&self) {
        self.reset.store(true, Ordering::SeqCst);
        for side in [&self.client, &self.server] {
            // Neither can fail in a way that matters: then the side has gone.
            let _ = SockRef::from(side).set_linger(Some(Duration::ZERO));
            let _ = side.shutdown(Shutdown::Read);
        }
    }
}

/// Carries the bytes of one connection, both ways.
fn carry(client: TcpStream, server: SocketAddr, mut rng: fastrand::Rng) {
    let Ok(server) = TcpStream::connect(server) else {
        // There is none: the client learns it by a reset.
        let _ = SockRef::from(&client).set_linger(Some(Duration::ZERO));
        return;
    };
    let both = Arc::new(Both { client, server, reset: AtomicBool::new(false) });
    let (back, other) = (Arc::clone(&both), rng.fork());
    let started = start(move || {
        if one_way(&back.server, &back.client, &back, other).is_err() {
            back.reset();
        }
    });
    if started.is_err() || one_way(&both.client, &both.server, &both, rng).is_err() {
        both.reset();
    }
}

/// Carries what comes `from` one side to the other, until its stream ends.
fn one_way(
    mut from: &TcpStream,
    mut to: &TcpStream,
    both: &Both,
    mut rng: fastrand::Rng,
) -> io::Result<()> {
    to.set_nodelay(true)?;
    let mut buffer = [0; MOST];
    loop {
        let most = if rng.bool() { MOST } else { rng.usize(1..=64) };
        let count = match from.read(&mut buffer[..most]) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if both.reset.load(Ordering::SeqCst) {
            return Ok(());
        }
        if count == 0 {
            return to.shutdown(Shutdown::Write);
        }

        // This is the delay itself, and waits for no event.
        thread::sleep(delay(&mut rng));
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            let piece = if rng.u32(..4) == 0 { rng.usize(1..=rest.len()) } else { rest.len() };
            to.write_all(&rest[..piece])?;
            rest = &rest[piece..];
        }
    }
}

/// Mostly none, often a moment, seldom so long that a server has long gone to sleep.
fn delay(rng: &mut fastrand::Rng) -> Duration {
    if rng.u32(..SELDOM) == 0 {
        return Duration::from_millis(rng.u64(5..30));
    }
    if rng.bool() { Duration::from_micros(rng.u64(..1_000)) } else { Duration::ZERO }
}
