//! Multiprocess synchronous: a pool of processes, each of which serves one client to its end.
//!
//! **Who waits where:** each process in `accept`, all on one socket (in `poll`, when there are
//! several addresses to listen on), then in its client's `recv` and `send`. In chat it has a second
//! thread in `recv` on the process's link to the hub. The hub is a process of its own and waits in
//! `recv` for all of them. Their parent waits for signals.
//! **What wakes it:** what it waits for, or a timeout. To stop, the sockets are shut down.
//!
//! Processes share what was laid out before they were forked: [`Seat`]s and counters, all atomics.
//! A process that dies takes its own client along and no other: the kernel tells the parent, which
//! forks another, and so must never have a second thread. In chat each line is copied to the hub,
//! and what comes of it to the process of each receiver: that is the price of the walls. The hub
//! may wait for a process to take its mail. So the thread that takes it never waits, neither for
//! its client nor for the hub.
//!
//! The parent is here, the processes of the pool are in `worker.rs`, the hub is in `hub.rs`.
//!
//! Run: `cargo run --release -p serve-prefork -- --mode chat`
//! Read first: `examples/bare.rs`, this model without all that a server needs.
//! Read next: `serve-iterative`, which is one of these, and `serve-threads`, without the walls.

mod frame;
mod hub;
mod sys;
mod worker;

use std::net::{IpAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::{ExitCode, exit};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use launch::{Failure, Heard, Launch};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, alarm, getpid, getppid};
use protocol::{ConnId, Mode};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};

use crate::frame::Packets;
use crate::worker::Worker;

/// How long to wait in `send`, or for a free descriptor, before looking again; in chat also
/// before a socket that was full is tried again.
const TICK: Duration = Duration::from_millis(100);
/// How long a process may leave its mail from the hub untaken before it is given up.
const STUCK: Duration = Duration::from_secs(10);
/// Processes that wait in `accept` beforehand, for each worker.
const SPARE: usize = 64;
/// Packets that the hub hears before it sends what comes of them.
const TURN: usize = 64;

fn main() -> ExitCode {
    launch::main(env!("CARGO_PKG_NAME"), "Echo or chat: a pool of blocking processes", serve)
}

#[derive(clap::Args)]
struct Extra {
    /// The most processes, and so the most connections at once
    #[arg(long, value_name = "N", default_value = "2048")]
    #[arg(value_parser = launch::numbers::<u16>(1, 8192))]
    processes: u16,
}

fn serve(launch: &'static Launch<Extra>) -> Result<(), Failure> {
    let listeners = launch.listeners()?;
    if listeners.len() > 1 {
        // What `poll` has announced another process may accept first: then there is nothing to
        // wait for.
        for listener in &listeners {
            listener.set_nonblocking(true).map_err(Failure::of("listener"))?;
        }
    }
    let size = usize::from(launch.extra.processes);
    launch.warn_beyond(size, "each takes a process: raise --processes");
    launch.share_counters(sys::shared(size + 1).map_err(Failure::of("shared memory"))?);
    let pair = |timeout| {
        let kind = (AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC);
        let (hub, worker) = rustix::net::socketpair(kind.0, kind.1, kind.2, None)?;
        set_socket_timeout(&hub, Timeout::Send, timeout)?;
        Ok(Link { hub, worker })
    };
    let chat = launch.settings.mode == Mode::Chat;
    let links: Result<_, Errno> =
        (0..if chat { size } else { 0 }).map(|_| pair(Some(STUCK))).collect();
    let pool: &'static Pool = Box::leak(Box::new(Pool {
        launch,
        listeners,
        parent: getpid(),
        seats: sys::shared(size + 1).map_err(Failure::of("shared memory"))?,
        inbox: pair(None).map_err(Failure::of("socketpair"))?,
        links: links.map_err(Failure::of("socketpair, one for each process in chat"))?,
    }));
    pool.supervise()
}

/// What all processes share. It is laid out before the first of them is forked.
struct Pool {
    launch: &'static Launch<Extra>,
    /// One for each address.
    listeners: Vec<TcpListener>,
    /// The process that forks and waits for signals.
    parent: Pid,
    /// One for each process of the pool, and one more, for the hub.
    seats: &'static [Seat],
    /// Chat: what all other processes tell the hub.
    inbox: Link,
    /// Chat: what the hub tells each process.
    links: Vec<Link>,
}

/// A socket pair that keeps the boundaries of packets.
struct Link {
    hub: OwnedFd,
    worker: OwnedFd,
}

/// One process, and its client: in memory that all processes share.
#[derive(Default)]
struct Seat {
    /// 0: there is none.
    pid: AtomicI32,
    /// The client's [`ConnId`], while it is there.
    id: AtomicU64,
    taken: AtomicBool,
    /// The address of the client, or as much of it as the limit per address looks at.
    ip: [AtomicU64; 2],
    /// How many clients it has had: the generation of the next one's id.
    clients: AtomicU64,
    /// The hub's seat: which process counts the seats just now, so that it does so alone.
    door: AtomicI32,
}

impl Pool {
    /// The life of the parent: wait for signals, and keep the seats filled.
    fn supervise(&'static self) -> Result<(), Failure> {
        sys::heed_children();
        launch::block_child_signals();
        let mut announced = false;
        loop {
            if let Err(error) = self.fill() {
                if !announced && self.count().0 == 0 {
                    return Err(Failure::Failed(format!("cannot start a process: {error}")));
                }
                self.launch.log.warn(&format!("fork: {error}; tries again"));
                alarm::set(1);
            }
            if !announced {
                self.launch.announce();
                announced = true;
            }
            match self.launch.next_signal() {
                Heard::Report => self.launch.report(),
                Heard::Look => self.reap()?,
                Heard::Stop => return self.stop(),
            }
        }
    }

    /// How many processes serve clients.
    fn size(&self) -> usize {
        self.seats.len() - 1
    }

    fn hub_seat(&self) -> &Seat {
        &self.seats[self.size()]
    }

    /// Starts as many processes as there should be.
    fn fill(&'static self) -> Result<(), nix::errno::Errno> {
        // The hub comes first, and there is none in echo.
        let hub = if self.links.is_empty() { self.size() } else { self.size() + 1 };
        let (mut there, taken) = self.count();
        for (index, seat) in self.seats[..hub].iter().enumerate().rev() {
            if index < self.size() && there >= self.wanted(taken) {
                break;
            }
            if seat.pid.load(SeqCst) != 0 {
                continue;
            }
            match sys::fork() {
                Ok(Some(pid)) => {
                    seat.pid.store(pid.as_raw(), SeqCst);
                    there += usize::from(index < self.size());
                }
                Ok(None) => self.child(index),
                Err(error) => {
                    self.launch.counters(index).shortages.add(1);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// How many processes there are for clients, and how many have one.
    fn count(&self) -> (usize, usize) {
        let pool = self.seats[..self.size()].iter();
        let there = pool.clone().filter(|seat| seat.pid.load(SeqCst) != 0).count();
        (there, pool.filter(|seat| seat.taken.load(SeqCst)).count())
    }

    /// How many there should be when so many have a client.
    fn wanted(&self, taken: usize) -> usize {
        (taken + SPARE * self.launch.workers).min(self.size())
    }

    /// The life of a child, which ends with its parent.
    fn child(&'static self, index: usize) -> ! {
        let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
        if getppid() != self.parent {
            exit(1); // It has died before that took effect.
        }
        self.seats[index].pid.store(getpid().as_raw(), SeqCst);
        if index == self.size() {
            self.hub();
        }
        let worker: &'static Worker = Box::leak(Box::new(Worker::new(self, index)));
        let mut others: Vec<fn(&Worker)> = vec![Worker::heed];
        if !self.links.is_empty() {
            others.push(Worker::postman);
        }
        for life in others {
            if thread::Builder::new().stack_size(64 << 10).spawn(move || life(worker)).is_err() {
                self.launch.counters(index).shortages.add(1);
                thread::sleep(TICK);
                exit(1); // Its parent tries again.
            }
        }
        worker.run();
        exit(0);
    }

    /// Empties the seats of those who have died. Without the hub there is no chat.
    fn reap(&'static self) -> Result<(), Failure> {
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            let (WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) = status else {
                break;
            };
            let pid = pid.as_raw();
            let Some(seat) = self.seats.iter().find(|seat| seat.pid.load(SeqCst) == pid) else {
                continue;
            };
            let _ = self.hub_seat().door.compare_exchange(pid, 0, SeqCst, SeqCst);
            seat.pid.store(0, SeqCst);
            if seat.taken.swap(false, SeqCst) {
                self.launch.counters(0).ended.add(1);
            }
            let id = ConnId::from_bits(seat.id.swap(0, SeqCst));
            if std::ptr::eq(seat, self.hub_seat()) {
                return Err(Failure::Failed("the hub's process has died".into()));
            }
            if self.launch.stop.requested() {
                continue;
            }
            self.launch.log.warn(&format!("process {pid} has died: replaces it"));
            // Before the replacement, if that can be done at once: it has the same seat, and the
            // hub is to hear of its client after the end of this one.
            let leave = Packets::of(id, frame::LEAVE, b"Connection reset");
            let told = self.tell(&leave, SendFlags::DONTWAIT);
            // Before all that waits: the hub may be waiting for a worker to take the mail.
            // `supervise` tries again.
            let _ = self.fill();
            if !told {
                self.tell(&leave, SendFlags::empty());
            }
        }
        Ok(())
    }

    /// Stops all processes. Each ends by itself within the drain timeout. If one does not, because
    /// it is itself stopped, say, it is ended; a second signal ends all.
    fn stop(&'static self) -> Result<(), Failure> {
        self.launch.log.info("told to stop: draining");
        let workers = || self.seats[..self.size()].iter();
        let alive = || workers().map(|seat| seat.pid.load(SeqCst)).filter(|pid| *pid != 0);
        self.tell(&Packets::of(ConnId::from_bits(0), frame::STOP, b""), SendFlags::empty());
        alive().for_each(|pid| signal(pid, Signal::SIGTERM));
        for listener in &self.listeners {
            self.launch.end_accept(listener);
        }
        let end = self.launch.now() + self.launch.drain_timeout + TICK;
        while alive().next().is_some() && self.launch.now() < end {
            alarm::set(1); // And look again.
            match self.launch.next_signal() {
                Heard::Report => self.launch.report(),
                Heard::Look => self.reap()?,
                Heard::Stop => {
                    self.launch.log.info("told to stop again: ends at once");
                    break;
                }
            }
        }
        let hub = self.hub_seat().pid.load(SeqCst);
        let rest = alive().chain([hub]).filter(|pid| *pid != 0);
        rest.for_each(|pid| signal(pid, Signal::SIGKILL));
        Ok(())
    }

    /// Chat: tells the hub something, or with DONTWAIT says that it could not.
    fn tell(&self, packets: &Packets, flags: SendFlags) -> bool {
        let send = |packet| loop {
            let sent = rustix::net::send(&self.inbox.worker, packet, flags | SendFlags::NOSIGNAL);
            if sent != Err(Errno::INTR) {
                return sent.is_ok();
            }
        };
        self.links.is_empty() || packets.iter().all(send)
    }

    /// Lets the client of a process in, if `admit` says so when told how many others there are in
    /// all, and from the same address.
    fn enter(&self, seat: &Seat, ip: IpAddr, admit: impl FnOnce((usize, usize)) -> bool) -> bool {
        let door = &self.hub_seat().door;
        while door.compare_exchange_weak(0, getpid().as_raw(), SeqCst, SeqCst).is_err() {
            thread::yield_now();
        }
        let ip = match launch::network_of(ip) {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
            IpAddr::V6(ip) => ip.to_bits(),
        };
        let ip = [(ip >> 64) as u64, ip as u64];
        let (there, taken) = self.count();
        // Early enough, so that no client waits for a process to be forked.
        if there < self.wanted((taken + 1).saturating_sub(SPARE * self.launch.workers / 2)) {
            signal(self.parent.as_raw(), Signal::SIGALRM);
        }
        let inside = self.seats.iter().filter(|seat| seat.taken.load(SeqCst));
        let same = |seat: &Seat| [0, 1].map(|half: usize| seat.ip[half].load(SeqCst)) == ip;
        let (all, here) =
            inside.fold((0, 0), |(all, here), seat| (all + 1, here + usize::from(same(seat))));
        let admitted = admit((all, here));
        if admitted {
            seat.ip.iter().zip(ip).for_each(|(place, half)| place.store(half, SeqCst));
            seat.taken.store(true, SeqCst);
        }
        door.store(0, SeqCst);
        admitted
    }
}

/// It fails when the process has gone, and then there is nothing to do. Nor is there when a seat
/// has become empty meanwhile: 0 would be everybody.
fn signal(pid: i32, signal: Signal) {
    if pid > 0 {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}
