//! Those who disturb: connections that behave badly on purpose, while bystanders are measured.
//!
//! They live on one thread of low priority, so that what the bystanders feel comes from the server
//! and not from a generator that is busy with being bad. Each acts at most once in a fixed number
//! of milliseconds, one after the other, so their number bounds their rate. What comes back to them
//! is checked as well: every line that they send is the same, so the stream must repeat it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use rustix::event::epoll::EventFlags;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::sockopt::socket_error;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::faults::{Fault, FaultLog};
use super::payload::Payload;
use super::window::thread_cpu_ns;
use super::{Poller, connect};
use crate::base::limits::Shortage;
use crate::base::text::quoted;
use crate::workload::Disturbance;

/// Niceness of the thread: where processors are short it gets a tenth of what a driver gets.
const NICE: i32 = 10;
/// Bytes that a hog or a stalled reader writes at once.
const CHUNK: usize = 64 * 1024;
/// One millisecond: how often the disturbers that are due act.
const TICK: Duration = Duration::from_millis(1);
/// Ticks between two acts of one disturber; between two bytes of a line they are fewer.
const PERIOD: usize = 10;
const BYTE_PERIOD: usize = 5;
/// Disturbers come from 127.1.0.1 and the addresses behind it, bystanders from 127.0.0.1.
const APART: u32 = 0x1_0000;
/// How many addresses, so that a storm never runs out of ports.
const SOURCES: u32 = 64;

/// What became of the disturbers.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Fate {
    /// Connections that were established.
    pub connected: u64,
    /// Those that were refused, by the kernel or with an error line.
    pub refused: u64,
    /// Those that the server closed or reset.
    pub cut: u64,
    /// Lines that came back to them.
    pub served: u64,
    /// Part of a processor that they took from the generator, from 0 to 1.
    pub cpu: f64,
}

/// Disturbers at work. Dropping it ends them.
pub struct Disturbers {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(Fate, FaultLog)>>>,
}

impl Disturbers {
    /// Begins to disturb the server at `addr` with `count` connections and lines of `size` bytes.
    pub fn start(
        addr: SocketAddr,
        disturbance: Disturbance,
        count: u32,
        size: u32,
        seed: u64,
    ) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let work = move || {
            // Linux knows a niceness for each thread; asking for less is always granted.
            let _ = rustix::process::setpriority_process(None, NICE);
            Crowd::new(addr, disturbance, count, size as usize, seed)?.disturb(&stopped)
        };
        let thread = std::thread::Builder::new().name("disturb".into()).spawn(work)?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Ends them and says what became of them, and what the server did wrong to them.
    pub fn stop(mut self) -> Result<(Fate, FaultLog)> {
        self.join().unwrap_or_else(|| Err(anyhow!("the disturbers have ended")))
    }

    fn join(&mut self) -> Option<Result<(Fate, FaultLog)>> {
        self.stop.store(true, Relaxed);
        // A panic has been printed by the thread itself.
        self.thread.take()?.join().ok()
    }
}

impl Drop for Disturbers {
    fn drop(&mut self) {
        self.join();
    }
}

/// One disturber's connection.
struct Disturber {
    fd: OwnedFd,
    established: bool,
    /// Bytes sent and received, all of the one line again and again.
    sent: usize,
    received: usize,
    /// The server has sent an error line instead.
    refused: bool,
}

/// All disturbers, on their thread.
struct Crowd {
    addr: SocketAddr,
    disturbance: Disturbance,
    size: usize,
    /// The line, as often as it takes to send or expect [`CHUNK`] bytes from any place in it.
    lines: Vec<u8>,
    inbox: Vec<u8>,
    poller: Poller,
    crowd: Vec<Option<Disturber>>,
    fate: Fate,
    connects: u32,
    faults: FaultLog,
}

impl Crowd {
    fn new(
        addr: SocketAddr,
        disturbance: Disturbance,
        count: u32,
        size: usize,
        seed: u64,
    ) -> Result<Self> {
        let mut line = vec![b'\n'; size];
        Payload::new(seed, size - 1).write(0, 0, &mut line);
        Ok(Self {
            addr,
            disturbance,
            size,
            lines: line.repeat(CHUNK / size + 2),
            inbox: vec![0; CHUNK],
            poller: Poller::new()?,
            crowd: (0..count).map(|_| None).collect(),
            fate: Fate::default(),
            connects: 0,
            faults: FaultLog::default(),
        })
    }

    fn disturb(mut self, stop: &AtomicBool) -> Result<(Fate, FaultLog)> {
        let (began, cpu) = (Instant::now(), thread_cpu_ns());
        let one_byte = self.disturbance == Disturbance::OneByte;
        let period = if one_byte { BYTE_PERIOD } else { PERIOD };
        let mut ticked = usize::MAX;
        while !stop.load(Relaxed) {
            let tick = began.elapsed().as_millis() as usize;
            // Ticks that were slept through are not made up for: that would be a burst.
            if tick != ticked {
                ticked = tick;
                for index in (tick % period..self.crowd.len()).step_by(period) {
                    self.act(index)?;
                }
            }
            for n in 0..self.poller.wait(TICK)? {
                let (index, ready) = self.poller.event(n);
                self.serve(index, ready)?;
            }
        }
        self.fate.cpu = (thread_cpu_ns() - cpu) as f64 / began.elapsed().as_nanos() as f64;
        Ok((self.fate, self.faults))
    }

    /// What a disturber does when it is due.
    fn act(&mut self, index: usize) -> Result<()> {
        let Some(disturber) = &mut self.crowd[index] else { return self.connect(index) };
        match self.disturbance {
            Disturbance::ConnectStorm if disturber.established => {
                self.crowd[index] = None;
                self.connect(index)
            }
            Disturbance::OneByte if disturber.established => self.write(index, 1),
            _ => Ok(()),
        }
    }

    fn connect(&mut self, index: usize) -> Result<()> {
        let source = connect::loopback(self.addr, APART + self.connects % SOURCES);
        self.connects = self.connects.wrapping_add(1);
        let fd = match connect::start(self.addr, index as u32, source) {
            Ok((fd, _)) => fd,
            Err(e) if e.is::<Shortage>() => return Err(e),
            Err(_) => {
                self.fate.refused += 1;
                return Ok(());
            }
        };
        // It is established when it can be written to.
        self.poller.ctl(&fd, index, EventFlags::OUT, true)?;
        let disturber = Disturber { fd, established: false, sent: 0, received: 0, refused: false };
        self.crowd[index] = Some(disturber);
        Ok(())
    }

    fn serve(&mut self, index: usize, ready: EventFlags) -> Result<()> {
        let Some(disturber) = &mut self.crowd[index] else { return Ok(()) };
        if !disturber.established {
            if socket_error(&disturber.fd)?.is_err() {
                self.fate.refused += 1;
                self.crowd[index] = None;
                return Ok(());
            }
            disturber.established = true;
            self.fate.connected += 1;
            let flags = match self.disturbance {
                Disturbance::StalledReader => EventFlags::OUT | EventFlags::RDHUP,
                Disturbance::Hog => EventFlags::IN | EventFlags::OUT,
                _ => EventFlags::IN,
            };
            return self.poller.ctl(&disturber.fd, index, flags, false);
        }
        if ready.intersects(EventFlags::ERR | EventFlags::HUP | EventFlags::RDHUP) {
            self.gone(index);
            return Ok(());
        }
        if ready.contains(EventFlags::IN) {
            self.read(index);
        }
        if ready.contains(EventFlags::OUT) {
            self.write(index, CHUNK)?;
        }
        Ok(())
    }

    /// Sends up to `most` bytes of the endless stream of one line.
    fn write(&mut self, index: usize, most: usize) -> Result<()> {
        let Some(disturber) = &mut self.crowd[index] else { return Ok(()) };
        let from = disturber.sent % self.size;
        match send(&disturber.fd, &self.lines[from..from + most], SendFlags::NOSIGNAL) {
            Ok(n) => disturber.sent += n,
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.gone(index),
        }
        Ok(())
    }

    fn read(&mut self, index: usize) {
        let Some(disturber) = &mut self.crowd[index] else { return };
        let n = match recv(&disturber.fd, &mut self.inbox[..], RecvFlags::empty()) {
            Err(Errno::AGAIN | Errno::INTR) => return,
            Ok((0, _)) | Err(_) => return self.gone(index),
            Ok((n, _)) => n,
        };
        let (data, from) = (&self.inbox[..n], disturber.received % self.size);
        let asked = disturber.received + n <= disturber.sent;
        if asked && *data == self.lines[from..from + n] {
            let before = disturber.received / self.size;
            disturber.received += n;
            self.fate.served += (disturber.received / self.size - before) as u64;
        } else if data.starts_with(b"ERR ") {
            disturber.refused = true;
        } else if !disturber.refused {
            disturber.refused = true;
            let fault = if asked { Fault::Altered } else { Fault::Early };
            self.faults.add(fault, 1, || format!("disturber {index}: {}", quoted(data)));
        }
    }

    /// The server has ended this connection; the place is taken again when it is next due.
    fn gone(&mut self, index: usize) {
        if let Some(disturber) = self.crowd[index].take() {
            match disturber.refused {
                true => self.fate.refused += 1,
                false => self.fate.cut += 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// A peer that reads everything it is sent on its first connection, and says how it began.
    fn first_bytes(disturbance: Disturbance, count: usize) -> Vec<u8> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let disturbers = Disturbers::start(addr, disturbance, 1, 64, 1).unwrap();
        let (mut peer, from) = listener.accept().unwrap();
        assert_ne!(from.ip(), addr.ip(), "disturbers come from addresses of their own");
        let mut bytes = vec![0; count];
        std::io::Read::read_exact(&mut peer, &mut bytes).unwrap();
        drop(peer);
        // Cut, it comes again.
        listener.accept().unwrap();
        let (fate, faults) = disturbers.stop().unwrap();
        assert!(fate.connected >= 1 && fate.cut >= 1 && faults.is_empty(), "{fate:?}");
        bytes
    }

    #[test]
    fn they_come_again_when_they_are_cut() {
        let hog = first_bytes(Disturbance::Hog, 3 * CHUNK);
        assert!(hog.chunks(64).all(|line| *line == hog[..64] && line[63] == b'\n'));
        assert_eq!(first_bytes(Disturbance::OneByte, 3), hog[..3]);
        assert_eq!(first_bytes(Disturbance::StalledReader, 64), hog[..64]);
        first_bytes(Disturbance::HalfOpen, 0);
    }

    #[test]
    fn what_comes_back_to_them_is_checked() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let disturbers = Disturbers::start(addr, Disturbance::OneByte, 1, 64, 1).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        std::io::Read::read_exact(&mut peer, &mut [0; 2]).unwrap();
        std::io::Write::write_all(&mut peer, b"never said").unwrap();
        drop(peer);
        listener.accept().unwrap();
        let (_, faults) = disturbers.stop().unwrap();
        assert_eq!(faults.counts().next(), Some((Fault::Early, 1)));
    }
}
