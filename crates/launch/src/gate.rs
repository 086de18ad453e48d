//! Which connections are let in: so many in all, so many from one address.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsFd;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use protocol::Mode;
use socket2::SockRef;

use crate::{Counters, Launch, Log};

/// Counts the connections of all workers.
pub(crate) struct Gate {
    mode: Mode,
    max: usize,
    max_per_ip: usize,
    log: Log,
    inside: Mutex<Inside>,
    /// The last connection is gone.
    emptied: Condvar,
}

#[derive(Default)]
struct Inside {
    all: usize,
    /// How many there have been. It begins anew after 2^32.
    ever: u32,
    /// By what [`network_of`] says.
    by_network: HashMap<IpAddr, usize>,
}

/// What the limits per address count as one: an IPv4 address, also where it is written as an IPv6
/// address, or all the 2^64 addresses that share the first half of an IPv6 address. A single host
/// is given so many (RFC 7934, 6.1), and could come from another each time.
#[must_use]
pub fn network_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
        ip => ip,
    }
}

impl Gate {
    pub(crate) fn new(mode: Mode, max: usize, max_per_ip: usize, log: Log) -> Gate {
        Gate { mode, max, max_per_ip, log, inside: Mutex::default(), emptied: Condvar::new() }
    }

    /// How many connections are there.
    pub(crate) fn inside(&self) -> usize {
        self.lock().all
    }

    /// Waits until all connections are gone, for at most so long.
    pub(crate) fn await_empty(&self, most: Duration) {
        drop(self.emptied.wait_timeout_while(self.lock(), most, |inside| inside.all > 0));
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection from `peer`, or the line that says why there is none.
    fn admit(&'static self, peer: IpAddr) -> Result<Place, &'static [u8]> {
        let (peer, network) = (peer.to_canonical(), network_of(peer));
        let mut inside = self.lock();
        let here = inside.by_network.get(&network).copied().unwrap_or(0);
        if let Some(refusal) = self.refusal(inside.all, here) {
            return Err(refusal);
        }
        inside.by_network.insert(network, here + 1);
        inside.all += 1;
        inside.ever = inside.ever.wrapping_add(1);
        let number = inside.ever;
        drop(inside);
        self.log.connection(&number, peer, "begins");
        Ok(Place { gate: self, peer, number })
    }

    fn full(&self) -> &'static [u8] {
        match self.mode {
            Mode::Echo => b"ERR the server is full\r\n",
            Mode::Chat => b"ERROR :The server is full\r\n",
        }
    }

    /// Why there is no place beside `all` others, of which `here` are from the same address.
    fn refusal(&self, all: usize, here: usize) -> Option<&'static [u8]> {
        if all >= self.max {
            return Some(self.full());
        }
        (here >= self.max_per_ip).then_some(match self.mode {
            Mode::Echo => b"ERR too many connections from your address\r\n",
            Mode::Chat => b"ERROR :Too many connections from your address\r\n",
        })
    }
}

impl<E> Launch<E> {
    /// Tells a connection that the server is full, without waiting for it: then close it. For a
    /// model that is full for a reason of its own.
    pub fn refuse(&self, socket: &impl AsFd, counters: &Counters) {
        refuse(socket, self.gate.full(), counters);
    }

    /// The most connections that are let in at a time.
    #[must_use]
    pub fn max_connections(&self) -> usize {
        self.gate.max
    }

    /// For a model that cannot hold as many connections as there may be descriptors: warns, with
    /// the reason, when `--max-connections` asks for more than `most`. What becomes of the others
    /// is up to the model.
    pub fn warn_beyond(&self, most: usize, why: &str) {
        if let Some(asked) = self.connections_asked_for.filter(|asked| *asked > most) {
            self.log.warn(&format!("serves {most} of --max-connections {asked}: {why}"));
        }
    }

    /// Lets a connection from `peer` in, for as long as its [`Place`] lives. When there is no
    /// place, it is told why, without waiting for it: then close it.
    pub fn admit(
        &'static self,
        socket: &impl AsFd,
        peer: IpAddr,
        counters: &Counters,
    ) -> Option<Place> {
        counters.accepts.add(1);
        match self.gate.admit(peer) {
            Ok(place) => Some(place),
            Err(refusal) => {
                refuse(socket, refusal, counters);
                self.log.connection(
                    &"refused",
                    peer.to_canonical(),
                    "is told that there is no place",
                );
                None
            }
        }
    }

    /// As [`Launch::admit`], for a model of several processes, which counts by itself: whether to
    /// let a connection in beside `all` others, of which `here` are from its [`network_of`].
    pub fn admit_beside(
        &self,
        socket: &impl AsFd,
        (all, here): (usize, usize),
        counters: &Counters,
    ) -> bool {
        counters.accepts.add(1);
        let refusal = self.gate.refusal(all, here);
        refusal.inspect(|refusal| refuse(socket, refusal, counters)).is_none()
    }

    /// For a model of several processes, each of which serves one connection at a time: logs that
    /// the one of this process begins.
    pub fn begins(&self, peer: IpAddr) {
        let name = format!("in process {}", std::process::id());
        self.log.connection(&name, peer.to_canonical(), "begins");
    }

    /// The same at its end, which it counts.
    pub fn ends(&self, peer: IpAddr, counters: &Counters) {
        counters.ended.add(1);
        let name = format!("in process {}", std::process::id());
        self.log.connection(&name, peer.to_canonical(), "ends");
    }
}

fn refuse(socket: &impl AsFd, refusal: &[u8], counters: &Counters) {
    counters.refused.add(1);
    let socket = SockRef::from(socket);
    let flags = nix::libc::MSG_DONTWAIT | nix::libc::MSG_NOSIGNAL;
    let _ = socket.send_with_flags(refusal, flags);
    // What the client has said is thrown away. Closed with it unread, the connection would be
    // reset, and the client might not see the refusal.
    let _ = socket.recv_with_flags(&mut [MaybeUninit::uninit(); 4096], nix::libc::MSG_DONTWAIT);
}

/// One connection's place. Dropping it makes the place free.
pub struct Place {
    gate: &'static Gate,
    peer: IpAddr,
    /// Tells it from others in the log.
    number: u32,
}

impl Place {
    /// The peer's address, canonical: an IPv4 peer has an IPv4 address, also where the server
    /// listens on an IPv6 address for both.
    #[must_use]
    pub fn peer(&self) -> IpAddr {
        self.peer
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // First: once it is counted out, the server may end, and another one may have its place.
        self.gate.log.connection(&self.number, self.peer, "ends");
        let mut inside = self.gate.lock();
        inside.all -= 1;
        if let Entry::Occupied(mut here) = inside.by_network.entry(network_of(self.peer)) {
            *here.get_mut() -= 1;
            if *here.get() == 0 {
                here.remove();
            }
        }
        if inside.all == 0 {
            self.gate.emptied.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::log::{Format, Level};

    fn log() -> Log {
        Log::new("test", Format::Text, Level::Info)
    }

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1));
    const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

    #[test]
    fn a_place_is_free_again_when_it_is_left() {
        let gate: &'static Gate = Box::leak(Box::new(Gate::new(Mode::Echo, 3, 2, log())));
        let first = gate.admit(HERE).expect("empty");
        let _second = gate.admit(HERE).expect("one inside");
        assert!(gate.admit(HERE).is_err_and(|line| line.ends_with(b"your address\r\n")));
        let _third = gate.admit(THERE).expect("another address");
        assert!(gate.admit(THERE).is_err_and(|line| line.ends_with(b"full\r\n")));
        drop(first);
        assert_eq!(gate.admit(HERE).map(|place| place.peer()).ok(), Some(HERE));
        assert_eq!(gate.inside.lock().expect("not poisoned").by_network.len(), 2);
    }

    #[test]
    fn an_ipv4_peer_is_the_same_through_an_ipv6_socket() {
        let gate: &'static Gate = Box::leak(Box::new(Gate::new(Mode::Echo, 9, 1, log())));
        let mapped: IpAddr = "::ffff:127.0.0.1".parse().expect("an address");
        let place = gate.admit(mapped).expect("empty");
        assert_eq!(place.peer(), HERE);
        assert!(gate.admit(HERE).is_err(), "from the same address");
        drop(place);
        assert!(gate.admit(HERE).is_ok(), "the place is free");
    }

    #[test]
    fn the_hosts_of_an_ipv6_network_count_as_one() {
        let gate: &'static Gate = Box::leak(Box::new(Gate::new(Mode::Echo, 9, 1, log())));
        let [one, neighbour, other] = ["2001:db8::1", "2001:db8::ffff:0:0:1", "2001:db8:0:1::1"]
            .map(|text| text.parse::<IpAddr>().expect("an address"));
        let place = gate.admit(one).expect("empty");
        assert_eq!(place.peer(), one);
        assert!(gate.admit(neighbour).is_err(), "from the same network");
        assert!(gate.admit(other).is_ok(), "from another");
        drop(place);
        assert!(gate.admit(neighbour).is_ok(), "the place is free");
    }
}
