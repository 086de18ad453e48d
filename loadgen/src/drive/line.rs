//! Lines on many connections: what is to be written, and what is due to be read. Whether that is
//! what came, `check` says.
//!
//! A connection has no buffers. What it still has to write, and what it expects to read, are
//! functions of a few numbers, so a short write or a split answer costs only a counter, and
//! ten thousand connections cost what their sockets cost. When a line is sent is the drivers'
//! business (`echo`, `open`); what is noted of its times is theirs too ([`Notes`]).

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use anyhow::Result;
use rustix::event::epoll::EventFlags;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::faults::{Fault, FaultyOpening};
use super::payload::Payload;
use super::window::{Step, Window};
use super::{BATCH, NAP, Phase, Poller, RECEIVE, Shared, connect};

/// Bytes composed for one write at most; a deeper window takes several writes.
const SEND: usize = 256 * 1024;

/// What a driver notes of each line in flight. Times are nanoseconds since the phase began.
pub(super) trait Notes {
    /// Line `seq` of connection `index` is handed to the kernel now; again if it took nothing.
    fn written(&mut self, index: usize, seq: u32, now: u64);
    /// Its answer has come, and was right.
    fn answered(&mut self, index: usize, seq: u32, now: u64, window: &mut Window);
}

/// What an event brought: lines answered on a connection, and when they had been read.
pub(super) struct Answers {
    pub(super) index: usize,
    pub(super) lines: u32,
    pub(super) now: u64,
}

/// One connection. Sequence numbers count lines: `next <= sent <= goal`.
pub(super) struct Conn {
    pub(super) fd: OwnedFd,
    pub(super) id: u32,
    /// The line whose answer is expected next, and how many of its bytes were seen and right.
    pub(super) next: u32,
    pub(super) matched: usize,
    /// The line that is to be written next, and how many of its bytes were written.
    pub(super) sent: u32,
    pub(super) sent_bytes: usize,
    /// Lines below this number are to be written now.
    pub(super) goal: u32,
    pub(super) wants_out: bool,
    pub(super) dead: bool,
    /// Whether it talks when its touch is answered.
    pub(super) active: bool,
    /// Unread bytes of a connection on which something was wrong; it is read line by line since.
    pub(super) wrong: Option<Vec<u8>>,
}

/// One thread's share of the connections.
pub(super) struct Lines<N> {
    addr: SocketAddr,
    ids: Range<u32>,
    active: u32,
    pub(super) payload: Payload,
    stall: Duration,
    pub(super) poller: Poller,
    pub(super) conns: Vec<Conn>,
    pub(super) notes: N,
    pub(super) inbox: Vec<u8>,
    outbox: Vec<u8>,
    /// Lines that are to be answered before the phase ends.
    pub(super) outstanding: u64,
}

impl<N: Notes> Lines<N> {
    /// Connections `ids`, of which `active` talk; not yet opened.
    pub(super) fn new(
        addr: SocketAddr,
        ids: Range<u32>,
        active: u32,
        payload: Payload,
        stall: Duration,
        notes: N,
    ) -> Result<Self> {
        Ok(Self {
            addr,
            active,
            stall,
            poller: Poller::new()?,
            conns: Vec::with_capacity(ids.len()),
            notes,
            inbox: vec![0; RECEIVE],
            outbox: vec![0; SEND.max(payload.longest() + 1)],
            payload,
            ids,
            outstanding: 0,
        })
    }

    /// Spreads the active connections evenly over all.
    fn is_active(&self, index: u32) -> bool {
        let (all, active) = (self.ids.len() as u64, u64::from(self.active));
        (u64::from(index) + 1) * active / all > u64::from(index) * active / all
    }

    /// Opens every connection, and sends one line on each, which must come back.
    pub(super) fn open(&mut self, shared: &Shared) -> Result<()> {
        for first in self.ids.clone().step_by(BATCH) {
            let ids = first..self.ids.end.min(first + BATCH as u32);
            let from = self.conns.len();
            for (fd, id) in connect::batch(self.addr, ids.clone(), self.stall, shared)?
                .into_iter()
                .zip(ids.clone())
            {
                self.poller.add(&fd, self.conns.len())?;
                let active = self.is_active(id - self.ids.start);
                self.conns.push(Conn::new(fd, id, active));
            }
            // An established connection may still wait in the backlog; an answered one does not.
            let mut window = Window::new(Phase::Touch, self.stall, &[]);
            for index in from..self.conns.len() {
                self.ask(index, 1);
                self.write(index, window.now(), &mut window)?;
            }
            while window.batch(self.outstanding, shared) != Step::Finish {
                for n in 0..self.poller.wait(NAP)? {
                    self.event(n, &mut window)?;
                }
            }
            self.settle(&mut window);
            if !window.faults.is_empty() {
                return Err(FaultyOpening(window.faults).into());
            }
        }
        Ok(())
    }

    /// So many more lines are to be written on a connection, and answered. Returns the number of
    /// the first.
    #[inline]
    pub(super) fn ask(&mut self, index: usize, lines: u32) -> u32 {
        let conn = &mut self.conns[index];
        let first = conn.goal;
        if !conn.dead {
            conn.goal = first.wrapping_add(lines);
            self.outstanding += u64::from(lines);
        }
        first
    }

    /// Serves the `n`th event of the last wait. Returns what was answered, if anything was.
    #[inline]
    pub(super) fn event(&mut self, n: usize, window: &mut Window) -> Result<Option<Answers>> {
        let (index, ready) = self.poller.event(n);
        if ready.contains(EventFlags::OUT) {
            let now = window.now();
            self.write(index, now, window)?;
        }
        if ready.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            return self.read(index, window);
        }
        Ok(None)
    }

    /// One receive and its check.
    #[inline]
    fn read(&mut self, index: usize, window: &mut Window) -> Result<Option<Answers>> {
        let conn = &mut self.conns[index];
        if conn.dead {
            return Ok(None);
        }
        let received = match recv(&conn.fd, &mut self.inbox[..], RecvFlags::empty()) {
            Ok((0, _)) => return self.closed(index, "closed by the server", window).map(|()| None),
            Ok((n, _)) => n,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            Err(e) => return self.closed(index, &e.to_string(), window).map(|()| None),
        };
        // Stamped for each receive, and not for each batch of events: the batch would add to a
        // latency the time that the connections before this one took. All lines of one receive
        // had arrived by now, so they share the stamp, and so do the lines that are written in
        // return, which follow after nothing but the check: one clock reading for both.
        let now = window.now();
        let lines = self.check(index, received, now, window);
        self.outstanding = self.outstanding.saturating_sub(u64::from(lines));
        Ok(Some(Answers { index, lines, now }).filter(|answers| answers.lines > 0))
    }

    /// Writes what the connection has to say, as far as the socket takes it.
    pub(super) fn write(&mut self, index: usize, now: u64, window: &mut Window) -> Result<()> {
        let conn = &mut self.conns[index];
        while conn.sent != conn.goal && !conn.dead {
            let end = compose(conn, &self.payload, &mut self.outbox, |seq| {
                self.notes.written(index, seq, now);
            });
            let bytes = &self.outbox[conn.sent_bytes..end];
            let written = match send(&conn.fd, bytes, SendFlags::NOSIGNAL) {
                Ok(n) => n,
                Err(Errno::AGAIN) => 0,
                Err(Errno::INTR) => continue,
                Err(e) => return self.closed(index, &e.to_string(), window),
            };
            let short = written < bytes.len();
            window.sent += conn.wrote(written, &self.payload);
            if short {
                break;
            }
        }
        let wants_out = conn.sent != conn.goal && !conn.dead;
        if wants_out != conn.wants_out {
            conn.wants_out = wants_out;
            self.poller.want_out(&conn.fd, index, wants_out)?;
        }
        Ok(())
    }

    /// Nothing new is begun; a line that is partly written is finished.
    pub(super) fn stop_sending(&mut self) {
        self.outstanding = 0;
        for conn in &mut self.conns {
            conn.goal = conn.sent.wrapping_add(u32::from(conn.sent_bytes > 0));
            self.outstanding += u64::from(conn.in_flight());
        }
    }

    fn closed(&mut self, index: usize, why: &str, window: &mut Window) -> Result<()> {
        let conn = &mut self.conns[index];
        let lines = conn.in_flight();
        window.faults.add(Fault::Closed, 1, || {
            format!("connection {}: {why}, {lines} lines unanswered", conn.id)
        });
        conn.dead = true;
        conn.next = conn.goal;
        conn.sent = conn.goal;
        self.outstanding = self.outstanding.saturating_sub(u64::from(lines));
        self.poller.delete(&conn.fd)
    }

    /// What is missing at the end of a phase is a fault of its own.
    pub(super) fn settle(&mut self, window: &mut Window) {
        if window.cut {
            return;
        }
        for conn in &mut self.conns {
            let missing = conn.in_flight();
            if missing == 0 {
                continue;
            }
            let size = self.payload.text_len(conn.id, conn.next) + 1;
            let fault = if conn.matched > 0 { Fault::Truncated } else { Fault::Unanswered };
            window.faults.add(fault, u64::from(missing), || {
                let part = format!("{} of {size} bytes came", conn.matched);
                format!("connection {}, line {}: {part}, then nothing", conn.id, conn.next)
            });
        }
    }
}

impl Conn {
    pub(super) fn new(fd: OwnedFd, id: u32, active: bool) -> Self {
        Self {
            fd,
            id,
            next: 0,
            matched: 0,
            sent: 0,
            sent_bytes: 0,
            goal: 0,
            wants_out: false,
            dead: false,
            active,
            wrong: None,
        }
    }

    /// Lines that are asked for and not answered, written or not.
    pub(super) fn in_flight(&self) -> u32 {
        self.goal.wrapping_sub(self.next)
    }

    /// Goes on by `bytes` that the kernel has taken. Returns how many lines that finished.
    pub(super) fn wrote(&mut self, bytes: usize, payload: &Payload) -> u64 {
        self.sent_bytes += bytes;
        let mut lines = 0;
        while self.sent_bytes > 0 {
            let size = payload.text_len(self.id, self.sent) + 1;
            if self.sent_bytes < size {
                break;
            }
            self.sent_bytes -= size;
            self.sent = self.sent.wrapping_add(1);
            lines += 1;
        }
        lines
    }
}

/// Puts lines from `conn.sent` on into `outbox`, as many as are wanted and fit; of the first,
/// `sent_bytes` are written already. Each line of which nothing is written is told to `begin`.
/// Returns where they end.
pub(super) fn compose(
    conn: &Conn,
    payload: &Payload,
    outbox: &mut [u8],
    mut begin: impl FnMut(u32),
) -> usize {
    let (mut seq, mut end) = (conn.sent, 0);
    while seq != conn.goal && outbox.len() - end > payload.longest() {
        if seq != conn.sent || conn.sent_bytes == 0 {
            begin(seq);
        }
        end += payload.write(conn.id, seq, &mut outbox[end..]);
        outbox[end] = b'\n';
        end += 1;
        seq = seq.wrapping_add(1);
    }
    end
}
