//! Who is let in: so many connections in all, so many from one address.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};

use protocol::Mode;
use socket2::SockRef;

use crate::{Counters, Launch};

/// Counts the connections of all workers.
pub(crate) struct Gate {
    mode: Mode,
    max: usize,
    max_per_ip: usize,
    inside: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    all: usize,
    by_ip: HashMap<IpAddr, usize>,
}

impl Gate {
    pub(crate) fn new(mode: Mode, max: usize, max_per_ip: usize) -> Gate {
        Gate { mode, max, max_per_ip, inside: Mutex::default() }
    }

    /// A place for a connection from `ip`, or the line that says why there is none.
    fn admit(&'static self, ip: IpAddr) -> Result<Place, &'static [u8]> {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let here = inside.by_ip.get(&ip).copied().unwrap_or(0);
        if let Some(refusal) = self.refusal(inside.all, here) {
            return Err(refusal);
        }
        inside.by_ip.insert(ip, here + 1);
        inside.all += 1;
        Ok(Place { gate: self, ip })
    }

    /// Why there is no place beside `all` others, of which `here` are from the same address.
    fn refusal(&self, all: usize, here: usize) -> Option<&'static [u8]> {
        if all >= self.max {
            return Some(match self.mode {
                Mode::Echo => b"ERR the server is full\r\n",
                Mode::Chat => b"ERROR :The server is full\r\n",
            });
        }
        (here >= self.max_per_ip).then_some(match self.mode {
            Mode::Echo => b"ERR too many connections from your address\r\n",
            Mode::Chat => b"ERROR :Too many connections from your address\r\n",
        })
    }
}

impl<E> Launch<E> {
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
                None
            }
        }
    }

    /// As [`Launch::admit`], for a model of several processes, which counts by itself: whether to
    /// let a connection in beside `all` others, of which `here` are from its address.
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
}

fn refuse(socket: &impl AsFd, refusal: &[u8], counters: &Counters) {
    counters.refused.add(1);
    let flags = nix::libc::MSG_DONTWAIT | nix::libc::MSG_NOSIGNAL;
    let _ = SockRef::from(socket).send_with_flags(refusal, flags);
}

/// One connection's place. Dropping it makes the place free.
pub struct Place {
    gate: &'static Gate,
    ip: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inside = self.gate.inside.lock().unwrap_or_else(PoisonError::into_inner);
        inside.all -= 1;
        if let Entry::Occupied(mut here) = inside.by_ip.entry(self.ip) {
            *here.get_mut() -= 1;
            if *here.get() == 0 {
                here.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1));
    const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

    #[test]
    fn a_place_is_free_again_when_it_is_left() {
        let gate: &'static Gate = Box::leak(Box::new(Gate::new(Mode::Echo, 3, 2)));
        let first = gate.admit(HERE).expect("empty");
        let _second = gate.admit(HERE).expect("one inside");
        assert!(gate.admit(HERE).is_err_and(|line| line.ends_with(b"your address\r\n")));
        let _third = gate.admit(THERE).expect("another address");
        assert!(gate.admit(THERE).is_err_and(|line| line.ends_with(b"full\r\n")));
        drop(first);
        assert_eq!(gate.admit(HERE).map(|place| place.ip).ok(), Some(HERE));
        assert_eq!(gate.inside.lock().expect("not poisoned").by_ip.len(), 2);
    }
}
