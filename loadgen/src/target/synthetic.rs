//! A server with known service times: what the generator reports is held against what was injected.
//!
//! Each line comes back after a time that is drawn from a given distribution and counts from when
//! the line was read. The connections wait independently of each other; on one connection answers
//! keep their order. The draws are not independent: they run evenly through the distribution (a
//! Weyl sequence of the golden ratio), so that the quantiles of any few thousand draws in a row
//! are the distribution's own, and a test need not allow for chance in its tail.
//!
//! While a client is connected it never sleeps, which takes a processor for itself but keeps the
//! timer's and the scheduler's delays out of the service times. It ends on SIGTERM or SIGINT and
//! prints what it has drawn, and what came of it: from reading a line to writing it. The first line
//! of a connection is in neither: the generator asks them all at once while it connects.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{SocketAddr, TcpListener};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use memchr::{memchr, memchr_iter};
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SocketFlags, accept_with, recv};
use rustix::time::Timespec;
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::null::send_all;
use crate::base::limits::raise_descriptor_limit;
use crate::base::output::print;
use crate::base::random::splitmix;
use crate::drive::{Latency, histogram};

/// Size of the receive buffer in bytes.
const BUFFER: usize = 64 * 1024;
/// The event data of the listening socket.
const LISTENER: u64 = u64::MAX;
/// How long it sleeps at most without a connection.
const NAP: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
/// The golden ratio's part after the point, times 2^64: steps by it fill a circle most evenly.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// A distribution of service times, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Service {
    /// Always the same.
    Constant(f64),
    /// The first, but with the given chance the second.
    Bimodal(f64, f64, f64),
    /// Pareto's distribution: the least, the exponent, and where it is cut off.
    Pareto(f64, f64, f64),
}

impl Service {
    /// The time that a part `q` (0 to 1) of all service times do not exceed.
    pub fn quantile(&self, q: f64) -> f64 {
        match *self {
            Self::Constant(time) => time,
            Self::Bimodal(fast, slow, chance) => {
                if q <= 1.0 - chance {
                    fast
                } else {
                    slow
                }
            }
            Self::Pareto(least, exponent, most) => {
                (least * (1.0 - q).powf(-1.0 / exponent)).min(most)
            }
        }
    }
}

impl FromStr for Service {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let time =
            |text: &str| humantime::parse_duration(text).map(|time| time.as_nanos() as f64).ok();
        let service = match parts[..] {
            ["constant", at] => time(at).map(Self::Constant),
            ["bimodal", fast, slow, chance] => {
                time(fast).zip(time(slow)).and_then(|(fast, slow)| {
                    let chance =
                        chance.parse().ok().filter(|chance| (0.0..=1.0).contains(chance))?;
                    Some(Self::Bimodal(fast, slow, chance))
                })
            }
            ["pareto", least, exponent, most] => {
                time(least).zip(time(most)).and_then(|(least, most)| {
                    let exponent =
                        exponent.parse().ok().filter(|&exponent: &f64| exponent > 0.0)?;
                    Some(Self::Pareto(least, exponent, most))
                })
            }
            _ => None,
        };
        service.ok_or_else(|| {
            "expected constant:TIME, bimodal:TIME:TIME:CHANCE or pareto:LEAST:EXPONENT:MOST, \
             such as constant:200us, bimodal:200us:5ms:0.05 or pareto:100us:1.5:50ms"
                .to_owned()
        })
    }
}

/// What the server is to do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Where it listens.
    pub listen: SocketAddr,
    /// How long it takes to answer.
    pub service: Service,
    /// After how many lines it does nothing at all, and for how long.
    pub stall: Option<(u64, Duration)>,
    /// Seed of the draws.
    pub seed: u64,
}

/// One connection. Its place in the list is never given to another one.
struct Peer {
    fd: Option<OwnedFd>,
    /// Lines that are not answered, and the beginning of the next one.
    held: Vec<u8>,
    /// When the answer before the next one leaves: answers keep their order.
    last: u64,
}

struct Synthetic {
    plan: Plan,
    began: Instant,
    state: u64,
    peers: Vec<Peer>,
    open: usize,
    /// Answers by time: when each is due, whose it is, and when its line was read, unless it was a
    /// connection's first.
    due: BinaryHeap<Reverse<(u64, usize, Option<u64>)>>,
    /// Lines read so far, the first ones included.
    lines: u64,
    drawn: Histogram<u64>,
    realised: Histogram<u64>,
}

/// Serves until a signal ends it.
pub fn serve(plan: Plan) -> Result<()> {
    raise_descriptor_limit();
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, stop.clone())?;
    }
    let listener =
        TcpListener::bind(plan.listen).with_context(|| format!("cannot bind {}", plan.listen))?;
    rustix::net::listen(&listener, 4096)?;
    listener.set_nonblocking(true)?;
    print(&format!("listening on {}\n", listener.local_addr()?))?;
    let mut server = Synthetic::new(plan);
    server.run(&listener, &stop)?;
    let (drawn, realised) = (Latency::of(&server.drawn), Latency::of(&server.realised));
    print(&format!("{}\n", json!({ "drawn": drawn, "realised": realised })))
}

impl Synthetic {
    fn new(plan: Plan) -> Self {
        Self {
            began: Instant::now(),
            state: splitmix(&mut plan.seed.clone()),
            plan,
            peers: Vec::new(),
            open: 0,
            due: BinaryHeap::new(),
            lines: 0,
            drawn: histogram(),
            realised: histogram(),
        }
    }

    fn run(&mut self, listener: &TcpListener, stop: &AtomicBool) -> Result<()> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let data = epoll::EventData::new_u64;
        epoll::add(&epoll, listener, data(LISTENER), epoll::EventFlags::IN)?;
        let (mut events, mut buffer) = (Vec::with_capacity(1024), vec![0; BUFFER]);
        while !stop.load(Relaxed) {
            self.answer();
            self.stall();
            events.clear();
            let patience = if self.open == 0 { NAP } else { Timespec::default() };
            match epoll::wait(&epoll, spare_capacity(&mut events), Some(&patience)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
            for event in &events {
                let place = event.data.u64();
                if place != LISTENER {
                    self.read(place as usize, &mut buffer);
                    continue;
                }
                let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
                while let Ok(fd) = accept_with(listener, flags) {
                    rustix::net::sockopt::set_tcp_nodelay(&fd, true)?;
                    let place = self.peers.len() as u64;
                    epoll::add(&epoll, &fd, data(place), epoll::EventFlags::IN)?;
                    self.peers.push(Peer { fd: Some(fd), held: Vec::new(), last: 0 });
                    self.open += 1;
                }
            }
        }
        Ok(())
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// Sleeps through the stall once its time has come: here the sleep is what is asked for.
    fn stall(&mut self) {
        if let Some((_, length)) = self.plan.stall.take_if(|(lines, _)| self.lines >= *lines) {
            std::thread::sleep(length);
        }
    }

    /// Takes lines in, and says when each is to be answered.
    fn read(&mut self, place: usize, buffer: &mut [u8]) {
        let Some(fd) = &self.peers[place].fd else { return };
        let received = match recv(fd, &mut *buffer, RecvFlags::empty()) {
            Err(Errno::AGAIN | Errno::INTR) => return,
            Ok((0, _)) | Err(_) => return self.close(place),
            Ok((n, _)) => n,
        };
        let now = self.now();
        self.peers[place].held.extend_from_slice(&buffer[..received]);
        for _ in memchr_iter(b'\n', &buffer[..received]) {
            self.state = self.state.wrapping_add(GOLDEN);
            let q = (self.state >> 11) as f64 / (1u64 << 53) as f64;
            let drawn = self.plan.service.quantile(q) as u64;
            self.lines += 1;
            let peer = &mut self.peers[place];
            let read = (peer.last > 0).then_some(now);
            if read.is_some() {
                self.drawn.saturating_record(drawn);
            }
            peer.last = peer.last.max(now + drawn);
            self.due.push(Reverse((peer.last, place, read)));
        }
    }

    /// Writes all answers whose time has come.
    fn answer(&mut self) {
        while let Some(&Reverse((due, place, read))) = self.due.peek() {
            let now = self.now();
            if due > now {
                return;
            }
            self.due.pop();
            let peer = &mut self.peers[place];
            let (Some(fd), Some(end)) = (&peer.fd, memchr(b'\n', &peer.held)) else { continue };
            if let Some(read) = read {
                self.realised.saturating_record(now - read);
            }
            if send_all(fd, &peer.held[..=end]) {
                peer.held.drain(..=end);
            } else {
                self.close(place);
            }
        }
    }

    fn close(&mut self, place: usize) {
        self.peers[place] = Peer { fd: None, held: Vec::new(), last: 0 };
        self.open -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_read_and_refused() {
        assert_eq!("constant:200us".parse(), Ok(Service::Constant(200_000.0)));
        let bimodal = Service::Bimodal(100_000.0, 2_000_000.0, 0.05);
        assert_eq!("bimodal:100us:2ms:0.05".parse(), Ok(bimodal));
        for wrong in ["constant", "constant:soon", "bimodal:1ms:2ms:5", "pareto:1ms:0:1s", "x:1"] {
            assert!(wrong.parse::<Service>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn quantiles_are_the_distributions_own() {
        let bimodal = Service::Bimodal(1.0, 9.0, 0.25);
        assert_eq!([0.5, 0.75, 0.76].map(|q| bimodal.quantile(q)), [1.0, 1.0, 9.0]);
        let pareto = Service::Pareto(100.0, 2.0, 5000.0);
        assert_eq!([0.0, 0.75, 0.99].map(|q| pareto.quantile(q).round()), [100.0, 200.0, 1000.0]);
        assert_eq!(pareto.quantile(1.0), 5000.0);
    }
}
