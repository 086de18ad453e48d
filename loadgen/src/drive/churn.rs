//! The churn driver: connect, ask a few lines, say that it was all, see the end, connect again.
//!
//! A visit ends as the protocol has it: the client shuts down its sending side and reads until the
//! server closes. So the last answer is followed by proof that nothing else came, never more
//! connections are open than were asked for, and the client, which closes first, keeps the
//! TIME_WAIT. To have a port for each, visits come from each of [`SOURCES`] loopback addresses.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use anyhow::Result;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

use super::check::examine;
use super::faults::{Fault, FaultyOpening};
use super::line::{Conn, compose};
use super::payload::Payload;
use super::window::{Step, Window};
use super::{BATCH, Driver, NAP, Phase, PhaseResult, Poller, RECEIVE, Shared, connect};

/// Loopback addresses that visits come from, one after the other: together they have far more ports
/// than a kernel keeps connections in TIME_WAIT.
const SOURCES: u32 = 64;
/// Lines in flight of a visit at most, so that they fit one write.
const LINES: u32 = 64;

/// One visit at a time on one place. Sequence numbers go on from visit to visit, so that an answer
/// to an earlier one is told from the right one.
struct Place {
    id: u32,
    seq: u32,
    /// `None` between visits, and for good once something was wrong.
    visit: Option<Visit>,
    /// Kept from visit to visit for its memory.
    unread: Vec<u8>,
}

struct Visit {
    /// Lines of the visit: `next <= sent <= goal`.
    conn: Conn,
    /// The first line of this visit, and the one after its last.
    lines: Range<u32>,
    began: u64,
    half_closed: bool,
}

/// One thread's share of the visitors.
pub(super) struct Churn {
    addr: SocketAddr,
    /// Lines of a visit, and how many of them are in flight at once.
    lines: u32,
    depth: u32,
    payload: Payload,
    stall: Duration,
    poller: Poller,
    places: Vec<Place>,
    visits: u32,
    /// Visits under way.
    outstanding: u64,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
}

impl Churn {
    /// Visitors `ids`, each of whom asks `lines` lines a visit, `depth` of them at once.
    pub(super) fn new(
        addr: SocketAddr,
        ids: Range<u32>,
        (lines, depth): (u32, u32),
        payload: Payload,
        stall: Duration,
    ) -> Result<Self> {
        let place = |id| Place { id, seq: 0, visit: None, unread: Vec::new() };
        Ok(Self {
            addr,
            lines,
            depth: depth.min(lines).min(LINES),
            stall,
            poller: Poller::new()?,
            places: ids.map(place).collect(),
            visits: 0,
            outstanding: 0,
            inbox: vec![0; RECEIVE],
            outbox: vec![0; LINES as usize * (payload.longest() + 1)],
            payload,
        })
    }

    /// Connects and sends the first lines, as far as they go.
    fn open(&mut self, index: usize, window: &mut Window) -> Result<()> {
        let began = window.now();
        let source = connect::loopback(self.addr, self.visits % SOURCES);
        self.visits = self.visits.wrapping_add(1);
        let place = &mut self.places[index];
        let (fd, _) = connect::start(self.addr, place.id, source)?;
        self.poller.add(&fd, index)?;
        let mut conn = Conn::new(fd, place.id, true);
        (conn.next, conn.sent) = (place.seq, place.seq);
        conn.goal = place.seq.wrapping_add(self.depth);
        conn.wrong = Some(std::mem::take(&mut place.unread));
        let lines = place.seq..place.seq.wrapping_add(self.lines);
        place.seq = lines.end;
        place.visit = Some(Visit { conn, lines, began, half_closed: false });
        self.outstanding += 1;
        // Over loopback the connection stands by now; elsewhere this waits until it does.
        self.write(index, window)
    }

    fn drain(&mut self, window: &mut Window, shared: &Shared) -> Result<()> {
        loop {
            for n in 0..self.poller.wait(NAP)? {
                let (index, ready) = self.poller.event(n);
                if ready.contains(EventFlags::OUT) {
                    self.write(index, window)?;
                }
                if ready.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                    self.read(index, window)?;
                }
            }
            // A visit that has begun is finished: its lines and its end are owed.
            if window.batch(self.outstanding, shared) == Step::Finish {
                return Ok(());
            }
        }
    }

    fn read(&mut self, index: usize, window: &mut Window) -> Result<()> {
        let Some(visit) = &mut self.places[index].visit else { return Ok(()) };
        let received = match recv(&visit.conn.fd, &mut self.inbox[..], RecvFlags::empty()) {
            Ok((0, _)) if visit.half_closed => return self.end(index, window),
            Ok((0, _)) => return self.closed(index, "closed by the server", window),
            Ok((n, _)) => n,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(e) => return self.failed(index, e, window),
        };
        let before = visit.conn.next;
        examine(&mut visit.conn, &self.payload, &self.inbox[..received], &mut window.faults);
        let answers = visit.conn.next.wrapping_sub(before);
        window.total += u64::from(answers);
        if answers > 0 && before == visit.lines.start && window.record {
            let now = window.now();
            window.note(1, now - visit.began);
        }
        let left = visit.lines.end.wrapping_sub(visit.conn.goal);
        visit.conn.goal = visit.conn.goal.wrapping_add(answers.min(left));
        if visit.conn.next == visit.lines.end && !visit.half_closed {
            visit.half_closed = true;
            // A server that has closed already is seen by the next read.
            return match shutdown(&visit.conn.fd, Shutdown::Write) {
                Ok(()) | Err(Errno::NOTCONN) => Ok(()),
                Err(e) => Err(e.into()),
            };
        }
        self.write(index, window)
    }

    /// Writes the lines that are due, as far as the socket takes them.
    fn write(&mut self, index: usize, window: &mut Window) -> Result<()> {
        let Some(visit) = &mut self.places[index].visit else { return Ok(()) };
        let conn = &mut visit.conn;
        while conn.sent != conn.goal {
            let end = compose(conn, &self.payload, &mut self.outbox, |_| ());
            let bytes = &self.outbox[conn.sent_bytes..end];
            let written = match send(&conn.fd, bytes, SendFlags::NOSIGNAL) {
                Ok(n) => n,
                Err(Errno::AGAIN | Errno::NOTCONN) => break,
                Err(Errno::INTR) => continue,
                Err(e) => return self.failed(index, e, window),
            };
            window.sent += conn.wrote(written, &self.payload);
        }
        let wants_out = conn.sent != conn.goal;
        if wants_out != conn.wants_out {
            conn.wants_out = wants_out;
            self.poller.want_out(&conn.fd, index, wants_out)?;
        }
        Ok(())
    }

    /// The server has closed after us, as it should: the visit is over, and the next one begins.
    fn end(&mut self, index: usize, window: &mut Window) -> Result<()> {
        let place = &mut self.places[index];
        let Some(visit) = place.visit.take() else { return Ok(()) };
        self.outstanding -= 1;
        place.unread = visit.conn.wrong.unwrap_or_default();
        if !place.unread.is_empty() {
            let describe = || format!("connection {}: half a line before the end", place.id);
            window.faults.add(Fault::Early, 1, describe);
        }
        if window.record {
            let now = window.now();
            window.note(0, now - visit.began);
        }
        // Closed before the next one is opened: no more connections than were asked for.
        drop(visit.conn.fd);
        if window.sending && window.faults.is_empty() {
            self.open(index, window)?;
        }
        Ok(())
    }

    /// An error of the socket: a fault of the server, unless it was never reached.
    fn failed(&mut self, index: usize, error: Errno, window: &mut Window) -> Result<()> {
        match error {
            Errno::CONNREFUSED | Errno::TIMEDOUT | Errno::HOSTUNREACH | Errno::NETUNREACH => {
                Err(connect::explain(self.addr, error))
            }
            _ => self.closed(index, &error.to_string(), window),
        }
    }

    fn closed(&mut self, index: usize, why: &str, window: &mut Window) -> Result<()> {
        let place = &mut self.places[index];
        let Some(visit) = place.visit.take() else { return Ok(()) };
        self.outstanding -= 1;
        let lines = visit.lines.end.wrapping_sub(visit.conn.next);
        window.faults.add(Fault::Closed, 1, || {
            format!("connection {}: {why}, {lines} lines of its visit unanswered", place.id)
        });
        Ok(())
    }

    /// What is missing at the end of a phase is a fault of its own.
    fn settle(&mut self, window: &mut Window) {
        if window.cut {
            return;
        }
        for place in &mut self.places {
            let Some(visit) = place.visit.take() else { continue };
            let came = visit.conn.wrong.map_or(0, |unread| unread.len());
            let missing = visit.lines.end.wrapping_sub(visit.conn.next);
            let fault = if came > 0 { Fault::Truncated } else { Fault::Unanswered };
            window.faults.add(fault, u64::from(missing.max(1)), || match missing {
                0 => format!("connection {}: no end of the stream after ours", place.id),
                _ => format!(
                    "connection {}, line {}: {came} bytes came, then nothing",
                    place.id, visit.conn.next
                ),
            });
        }
        self.outstanding = 0;
    }
}

impl Driver for Churn {
    /// Nothing stays open; one visit of each place shows that the server answers.
    fn open(&mut self, shared: &Shared) -> Result<()> {
        for first in (0..self.places.len()).step_by(BATCH) {
            let mut window = Window::new(Phase::Touch, self.stall, &[]);
            for index in first..self.places.len().min(first + BATCH) {
                self.open(index, &mut window)?;
            }
            self.drain(&mut window, shared)?;
            self.settle(&mut window);
            if !window.faults.is_empty() {
                return Err(FaultyOpening(window.faults).into());
            }
        }
        Ok(())
    }

    fn run(&mut self, phase: Phase, shared: &Shared) -> Result<PhaseResult> {
        let mut window = Window::new(phase, self.stall, &["visit", "answered"]);
        for index in 0..self.places.len() {
            self.open(index, &mut window)?;
        }
        self.drain(&mut window, shared)?;
        self.settle(&mut window);
        Ok(window.finish())
    }
}
