//! Signs of life for a service manager that asks for them (`WatchdogSec=` of systemd).
//!
//! That this thread runs says nothing of the loops. So before each sign it connects to the server
//! as a client does, ends its side, and waits for the server to end the other: that takes a loop, a
//! thread or a task that accepts, reads and closes. Where each worker has listening sockets of its
//! own, each must have accepted: the kernel spreads the connections, so there are as many attempts
//! as that takes.

use std::env;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use crate::{Failure, Launch, is_shortage};

/// Attempts for each worker: that one is missed by all has the odds of 1 to a million, or less.
const ATTEMPTS: usize = 16;

/// The shortest pause between signs, whatever the manager asks for.
const SHORTEST: Duration = Duration::from_millis(1);

/// How often a sign is due, if the manager asks for signs: twice as often as it would miss one.
pub(crate) fn interval() -> Option<Duration> {
    let number = |name| env::var(name).ok()?.parse().ok();
    let is_ours = env::var_os("WATCHDOG_PID").is_none()
        || number("WATCHDOG_PID") == Some(u64::from(process::id()));
    let micros = number("WATCHDOG_USEC").filter(|micros| is_ours && *micros > 0)?;
    Some((Duration::from_micros(micros) / 2).max(SHORTEST))
}

impl<E: Send + Sync + 'static> Launch<E> {
    /// Gives signs from a thread of its own, where the manager asks for them.
    ///
    /// # Errors
    /// When no thread can be had.
    pub(crate) fn start_watchdog(&'static self) -> Result<(), Failure> {
        let Some(interval) = self.watchdog else { return Ok(()) };
        let thread = thread::Builder::new().name("watchdog".into()).stack_size(128 << 10);
        let watch = move || {
            let mut told = false;
            while !self.stop.requested() {
                let start = Instant::now();
                let lives = self.lives(start + interval);
                if lives {
                    self.manager.tell("WATCHDOG=1");
                } else if !told && self.bound.get().is_some() && !self.stop.requested() {
                    self.log.warn("a worker does not answer: no sign of life to the manager");
                }
                told = !lives;
                thread::sleep(interval.saturating_sub(start.elapsed()));
            }
        };
        thread.spawn(watch).map_err(Failure::of("cannot start the thread of the watchdog"))?;
        Ok(())
    }

    /// Whether the server has served an attempt, or one by each worker, until `end`.
    fn lives(&self, end: Instant) -> bool {
        let accepted = |worker| self.counters(worker).accepts.get();
        let before: Vec<u64> = (0..self.workers).map(accepted).collect();
        let all_accepted = || (0..self.workers).all(|worker| accepted(worker) > before[worker]);
        for at in 0..ATTEMPTS * self.workers {
            let Some(addrs) = self.bound.get().filter(|addrs| !addrs.is_empty()) else {
                return false;
            };
            let left = end.saturating_duration_since(Instant::now());
            match probe(addrs[at % addrs.len()], left) {
                Ok(()) if !self.socket.each_has_its_own() || all_accepted() => return true,
                Ok(()) => {}
                // There is no descriptor for the attempt. Others are served, if any counter moves.
                Err(error) if is_shortage(&error) => return self.moves(end),
                Err(_) => return false,
            }
        }
        false
    }

    /// Whether any wait of the server returns until `end`.
    fn moves(&self, end: Instant) -> bool {
        let wakeups = || self.tally.sum(|counters| &counters.wakeups);
        let before = wakeups();
        while Instant::now() < end {
            if wakeups() > before {
                return true;
            }
            thread::sleep(SHORTEST);
        }
        false
    }
}

/// Connects, ends its side, and waits for the server to do the same.
fn probe(addr: SocketAddr, left: Duration) -> io::Result<()> {
    let mut addr = addr;
    match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => addr.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => addr.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    let end = Instant::now() + left;
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let mut socket = TcpStream::connect_timeout(&addr, left)?;
    socket.shutdown(Shutdown::Write)?;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        if socket.read(&mut [0; 512])? == 0 {
            return Ok(());
        }
    }
}
