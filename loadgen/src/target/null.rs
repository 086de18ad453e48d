//! The null reference: the cheapest echo that epoll allows, and the cheapest client.
//!
//! The server has no protocol: what comes in goes back, whole lines or not, through one buffer for
//! all connections, level-triggered. A real server's cost per message divided by this one's is
//! what protocol, limits and model add. It has no backpressure either: where a peer does not read,
//! it waits for that peer, as a server must not. It is never ranked.
//!
//! The client sends and reads as the echo driver does and checks nothing: the driver's cost per
//! message divided by this one's is the price of checking.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, epoll, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send};
use rustix::time::{ClockId, clock_gettime};

use crate::base::limits::raise_descriptor_limit;
use crate::base::output;

/// Size of the one buffer in bytes.
const BUFFER: usize = 64 * 1024;
/// The event data of the listening socket.
const LISTENER: u64 = u64::MAX;

/// Serves until it is killed. For each receive it burns `work`, the known handicap of `calibrate`.
pub fn serve(listen: SocketAddr, work: Duration) -> Result<()> {
    raise_descriptor_limit();
    let listener = TcpListener::bind(listen).with_context(|| format!("cannot bind {listen}"))?;
    rustix::net::listen(&listener, 4096)?;
    listener.set_nonblocking(true)?;
    output::print(&format!("listening on {}\n", listener.local_addr()?))?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let data = epoll::EventData::new_u64;
    epoll::add(&epoll, &listener, data(LISTENER), epoll::EventFlags::IN)?;
    let mut peers: Vec<Option<OwnedFd>> = Vec::new();
    let mut free = Vec::new();
    let mut events = Vec::with_capacity(1024);
    let mut buffer = vec![0; BUFFER];
    loop {
        events.clear();
        match epoll::wait(&epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        for event in &events {
            if event.data.u64() == LISTENER {
                let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
                while let Ok(peer) = accept_with(&listener, flags) {
                    rustix::net::sockopt::set_tcp_nodelay(&peer, true)?;
                    let place = free.pop().unwrap_or_else(|| {
                        peers.push(None);
                        peers.len() - 1
                    });
                    epoll::add(&epoll, &peer, data(place as u64), epoll::EventFlags::IN)?;
                    peers[place] = Some(peer);
                }
                continue;
            }
            let place = event.data.u64() as usize;
            let Some(peer) = &peers[place] else { continue };
            if !work.is_zero() {
                let began = Instant::now();
                while began.elapsed() < work {
                    std::hint::spin_loop();
                }
            }
            if !echo(peer, &mut buffer) {
                peers[place] = None;
                free.push(place);
            }
        }
    }
}

/// One receive and its return. `false` once the peer is gone.
fn echo(peer: &OwnedFd, buffer: &mut [u8]) -> bool {
    let received = match recv(peer, &mut *buffer, RecvFlags::empty()) {
        Ok((0, _)) => return false,
        Ok((n, _)) => n,
        Err(Errno::AGAIN | Errno::INTR) => return true,
        Err(_) => return false,
    };
    send_all(peer, &buffer[..received])
}

/// Writes everything, waiting for the peer where it must. `false` once the peer is gone.
pub(crate) fn send_all(peer: &OwnedFd, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match send(peer, bytes, SendFlags::NOSIGNAL) {
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::AGAIN | Errno::INTR) => {
                let _ = poll(&mut [PollFd::new(peer, PollFlags::OUT)], None);
            }
            Err(_) => return false,
        }
    }
    true
}

/// Ping-pong on `connections` connections without a look at what comes back. Prints the messages
/// answered and the processor time of each in nanoseconds, as JSON.
pub fn drive(addr: SocketAddr, connections: usize, size: usize, time: Duration) -> Result<()> {
    raise_descriptor_limit();
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut peers = Vec::with_capacity(connections);
    for n in 0..connections {
        let peer = TcpStream::connect(addr).with_context(|| format!("cannot connect to {addr}"))?;
        peer.set_nodelay(true)?;
        peer.set_nonblocking(true)?;
        let data = epoll::EventData::new_u64(n as u64);
        epoll::add(&epoll, peer.as_fd(), data, epoll::EventFlags::IN)?;
        peers.push((peer, 0));
    }
    let mut line = vec![b'x'; size];
    line[size - 1] = b'\n';
    let mut buffer = vec![0; BUFFER];
    let mut events = Vec::with_capacity(1024);
    for (peer, _) in &peers {
        send(peer, &line, SendFlags::NOSIGNAL)?;
    }
    let cpu = || {
        let now = clock_gettime(ClockId::ProcessCPUTime);
        now.tv_sec as f64 * 1e9 + now.tv_nsec as f64
    };
    let (began, before, mut messages) = (Instant::now(), cpu(), 0u64);
    while began.elapsed() < time {
        events.clear();
        epoll::wait(&epoll, spare_capacity(&mut events), None)?;
        for event in &events {
            let (peer, received) = &mut peers[event.data.u64() as usize];
            *received += recv(&*peer, &mut buffer[..], RecvFlags::empty())?.0;
            if *received >= size {
                *received -= size;
                messages += 1;
                send(&*peer, &line, SendFlags::NOSIGNAL)?;
            }
        }
    }
    let each = (cpu() - before) / messages.max(1) as f64;
    output::print(&format!("{{\"messages\":{messages},\"cpu_ns_per_message\":{each:.1}}}\n"))
}
