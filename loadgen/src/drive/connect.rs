//! Opening many connections: non-blocking, in batches, from more than one address if need be.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, bail};
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
        let (fd, established) = start(addr, id, source(addr, id))?;
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

/// This machine has no more ports or descriptors for the generator: no server's fault.
#[derive(Debug)]
pub struct Shortage(String);

impl Shortage {
    /// Every local port is in use.
    pub fn of_ports() -> Self {
        Self(
            "no local port is left; ask for fewer --connections, wait a minute for TIME_WAIT, or \
             widen net.ipv4.ip_local_port_range"
                .into(),
        )
    }
}

impl std::fmt::Display for Shortage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Shortage {}

/// Begins one connection; whether it is established already is the second value.
pub(super) fn start(addr: SocketAddr, id: u32, source: Option<IpAddr>) -> Result<(OwnedFd, bool)> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let fd = match socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP)) {
        Err(Errno::MFILE | Errno::NFILE) => bail!(Shortage(format!(
            "out of file descriptors at connection {id}: the limit is {}; \
             raise the hard limit (ulimit -Hn) or ask for fewer --connections",
            crate::server::descriptor_limit()
        ))),
        other => other.context("cannot make a socket")?,
    };
    set_tcp_nodelay(&fd, true)?;
    if let Some(source) = source {
        // Without this the kernel would reserve a port number for the source address alone.
        setsockopt(&fd, IpBindAddressNoPort, &true)?;
        match bind(&fd, &SocketAddr::new(source, 0)) {
            Err(Errno::ADDRINUSE) => bail!(Shortage::of_ports()),
            other => other.context("cannot bind a loopback address")?,
        }
    }
    match connect(&fd, &addr) {
        Ok(()) => Ok((fd, true)),
        Err(Errno::INPROGRESS) => Ok((fd, false)),
        Err(e) => Err(explain(addr, e)),
    }
}

/// The loopback address to come from; `None` where the kernel's choice will do.
fn source(addr: SocketAddr, id: u32) -> Option<IpAddr> {
    let step = id / PER_ADDRESS;
    loopback(addr, step).filter(|_| step > 0)
}

/// The loopback address `step` places behind 127.0.0.1; `None` where `addr` is none itself.
pub(super) fn loopback(addr: SocketAddr, step: u32) -> Option<IpAddr> {
    let IpAddr::V4(to) = addr.ip() else { return None };
    let from = Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + step);
    to.is_loopback().then_some(IpAddr::V4(from))
}

/// What a connection's error means, and what to do.
pub(super) fn explain(addr: SocketAddr, error: Errno) -> Error {
    let hint = match error {
        Errno::CONNREFUSED => "nothing listens there; start the server first",
        Errno::ADDRNOTAVAIL => {
            return Error::new(Shortage::of_ports()).context(format!("cannot connect to {addr}"));
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
    fn a_shortage_is_told_from_a_refusal() {
        let addr = SocketAddr::from(([127, 0, 0, 1], 7));
        let error = explain(addr, Errno::ADDRNOTAVAIL);
        assert!(error.is::<Shortage>() && format!("{error:#}").contains("TIME_WAIT"));
        assert!(!explain(addr, Errno::CONNREFUSED).is::<Shortage>());
    }

    #[test]
    fn sources_spread_over_loopback_only() {
        let local = SocketAddr::from(([127, 0, 0, 1], 7));
        assert_eq!(source(local, PER_ADDRESS - 1), None);
        assert_eq!(source(local, PER_ADDRESS), Some(IpAddr::from([127, 0, 0, 2])));
        assert_eq!(source(SocketAddr::from(([10, 0, 0, 1], 7)), 20_000), None);
    }
}
