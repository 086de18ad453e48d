//! Opening many connections: non-blocking, in batches, from more than one address if need be.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::sockopt::{set_tcp_nodelay, socket_error};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, ipproto, socket_with};

use super::{NAP, Poller, Shared};

/// Connections from one loopback address before the next one is used. The usual range has 28,232
/// ports, and those of earlier runs stay in TIME_WAIT for a minute.
const PER_ADDRESS: u32 = 8192;

/// Connects numbers `ids` to `addr`, all at once, and waits until all are established.
pub(super) fn batch(
    addr: SocketAddr,
    ids: std::ops::Range<u32>,
    patience: Duration,
    shared: &Shared,
) -> Result<Vec<OwnedFd>> {
    let mut poller = Poller::new()?;
    let mut sockets = Vec::with_capacity(ids.len());
    let mut pending = 0;
    for id in ids.clone() {
        let (fd, established) = start(addr, id)?;
        if !established {
            poller.add(&fd, sockets.len())?;
            poller.want_out(&fd, sockets.len(), true)?;
            pending += 1;
        }
        sockets.push(fd);
    }
    let began = Instant::now();
    while pending > 0 {
        if began.elapsed() > patience {
            bail!(
                "{pending} of {} connections to {addr} were not accepted within {}; \
                 is the server alive, and its backlog long enough?",
                ids.len(),
                humantime::format_duration(patience)
            );
        }
        if shared.stop.load(std::sync::atomic::Ordering::Relaxed) {
            bail!("stopped while connecting");
        }
        for n in 0..poller.wait(NAP)? {
            let (index, _) = poller.event(n);
            if let Err(e) = socket_error(&sockets[index])? {
                return Err(explain(addr, e));
            }
            poller.delete(&sockets[index])?;
            pending -= 1;
        }
    }
    Ok(sockets)
}

/// Begins one connection; whether it is established already is the second value.
fn start(addr: SocketAddr, id: u32) -> Result<(OwnedFd, bool)> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let fd = match socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP)) {
        Err(Errno::MFILE | Errno::NFILE) => bail!(
            "out of file descriptors at connection {id}: the limit is {}; \
             raise the hard limit (ulimit -Hn) or ask for fewer --connections",
            crate::server::descriptor_limit()
        ),
        other => other.context("cannot make a socket")?,
    };
    set_tcp_nodelay(&fd, true)?;
    if let Some(source) = source(addr, id) {
        // Without this the kernel would reserve a port number for the source address alone.
        setsockopt(&fd, IpBindAddressNoPort, &true)?;
        bind(&fd, &SocketAddr::new(source, 0)).context("cannot bind a loopback address")?;
    }
    match connect(&fd, &addr) {
        Ok(()) => Ok((fd, true)),
        Err(Errno::INPROGRESS) => Ok((fd, false)),
        Err(e) => Err(explain(addr, e)),
    }
}

/// The loopback address to come from; `None` where the kernel's choice will do.
fn source(addr: SocketAddr, id: u32) -> Option<IpAddr> {
    let IpAddr::V4(to) = addr.ip() else { return None };
    let step = id / PER_ADDRESS;
    if !to.is_loopback() || step == 0 {
        return None;
    }
    Some(IpAddr::V4(Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + step)))
}

fn explain(addr: SocketAddr, error: Errno) -> anyhow::Error {
    let hint = match error {
        Errno::CONNREFUSED => "nothing listens there; start the server first",
        Errno::ADDRNOTAVAIL => {
            "no local port is left for it; ask for fewer --connections, wait a minute for \
             TIME_WAIT, or widen net.ipv4.ip_local_port_range"
        }
        Errno::NETUNREACH | Errno::HOSTUNREACH => "there is no route to that host",
        Errno::TIMEDOUT => "it does not answer",
        _ => "the server or a firewall refused it",
    };
    anyhow::anyhow!("cannot connect to {addr}: {error}; {hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_spread_over_loopback_only() {
        let local = SocketAddr::from(([127, 0, 0, 1], 7));
        assert_eq!(source(local, PER_ADDRESS - 1), None);
        assert_eq!(source(local, PER_ADDRESS), Some(IpAddr::from([127, 0, 0, 2])));
        assert_eq!(source(SocketAddr::from(([10, 0, 0, 1], 7)), 20_000), None);
    }
}
