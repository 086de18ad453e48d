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
use crate::base::limits::Shortage;

/// Connections from one loopback address before the next one is used. The usual range has 28,232
/// ports, and those of earlier runs stay in TIME_WAIT for a minute.
const PER_ADDRESS: u32 = 8192;
/// Loopback addresses that are tried after one that has no port left.
const DETOURS: u32 = 64;

/// Connects numbers `ids` to `addr`, all at once, and waits until all are established.
pub(super) fn batch(
    addr: SocketAddr,
    ids: std::ops::Range<u32>,
    patience: Duration,
    shared: &Shared,
) -> Result<Vec<OwnedFd>> {
    let mut poller = Poller::new()?;
    let mut sockets = Vec::with_capacity(ids.len());
    let (mut pending, mut detour) = (0, 0);
    for id in ids.clone() {
        let (fd, established) = start_near(addr, id, source(addr, id), &mut detour)?;
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

/// Begins one connection; whether it is established already is the second value. Where `source`
/// has no port left, the loopback addresses behind it may have one.
pub(super) fn start(addr: SocketAddr, id: u32, source: Option<IpAddr>) -> Result<(OwnedFd, bool)> {
    start_near(addr, id, source, &mut 0)
}

/// The same from the address `detour` places behind `source`, or from a later one, which is kept
/// for the connections to come: an address that is exhausted takes long to say so.
fn start_near(
    addr: SocketAddr,
    id: u32,
    source: Option<IpAddr>,
    detour: &mut u32,
) -> Result<(OwnedFd, bool)> {
    loop {
        let shortage = match start_from(addr, id, behind(addr, source, *detour)) {
            Err(e) if e.downcast_ref::<Shortage>().is_some_and(Shortage::is_of_ports) => e,
            other => return other,
        };
        if *detour == DETOURS || behind(addr, source, 1).is_none() {
            return Err(shortage);
        }
        *detour += 1;
    }
}

/// The address `detour` places behind `source`; `None` where the kernel's choice will do, or there
/// is no other one.
fn behind(addr: SocketAddr, source: Option<IpAddr>, detour: u32) -> Option<IpAddr> {
    match source {
        _ if detour == 0 => source,
        None => loopback(addr, detour),
        Some(IpAddr::V4(from)) if from.is_loopback() => {
            Some(IpAddr::V4(Ipv4Addr::from_bits(from.to_bits() + detour)))
        }
        Some(_) => None,
    }
}

fn start_from(addr: SocketAddr, id: u32, source: Option<IpAddr>) -> Result<(OwnedFd, bool)> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let fd = match socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP)) {
        Err(Errno::MFILE | Errno::NFILE) => {
            bail!(Shortage::of_descriptors(id))
        }
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
        Errno::ADDRNOTAVAIL | Errno::ADDRINUSE => {
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
    fn detours_lead_to_other_loopback_addresses_only() {
        let local = SocketAddr::from(([127, 0, 0, 1], 7));
        let away = SocketAddr::from(([10, 0, 0, 1], 7));
        let from = |last| Some(IpAddr::from([127, 0, 0, last]));
        assert_eq!([behind(local, None, 0), behind(local, from(9), 0)], [None, from(9)]);
        assert_eq!([behind(local, None, 2), behind(local, from(9), 2)], [from(3), from(11)]);
        assert_eq!([behind(away, None, 1), behind(away, Some(away.ip()), 1)], [None, None]);
    }

    #[test]
    fn sources_spread_over_loopback_only() {
        let local = SocketAddr::from(([127, 0, 0, 1], 7));
        assert_eq!(source(local, PER_ADDRESS - 1), None);
        assert_eq!(source(local, PER_ADDRESS), Some(IpAddr::from([127, 0, 0, 2])));
        assert_eq!(source(SocketAddr::from(([10, 0, 0, 1], 7)), 20_000), None);
    }
}
