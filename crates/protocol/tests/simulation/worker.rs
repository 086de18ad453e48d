//! One worker: what a server does around [`Connections`], as its contract says, in the two kinds
//! that there are: readiness (a loop asks the socket) and completions (the kernel does the work).

use std::collections::BTreeMap;
use std::mem;

use protocol::{
    ConnId, Connection, Connections, Done, Hub, Limits, Mode, Next, Outbox, Settings, Time,
};

use crate::kernel::{Fault, Socket};
use crate::random::Random;

/// Bytes of one read.
const READ: usize = 512;
/// Reads after the high-water mark: the one that passes it, and with completions one more, which
/// was on its way.
const READS: usize = 2;
/// Ids of closed connections that are kept, to be named by stale events.
const STALE: usize = 8;

/// What the kernel has for a call, and what all workers share.
pub(crate) struct Around<'a> {
    pub(crate) sockets: &'a mut [Socket],
    pub(crate) hub: Option<&'a mut Hub>,
    pub(crate) now: Time,
    /// Whether the server has been told to stop.
    pub(crate) stop: bool,
    pub(crate) random: &'a mut Random,
    /// Whether calls may fail and events may be missing.
    pub(crate) faults: bool,
    /// Calls of the core.
    pub(crate) calls: &'a mut u64,
}

pub(crate) struct Worker {
    settings: std::sync::Arc<Settings>,
    conns: Connections<Io>,
    /// Sockets in the backlog.
    pub(crate) backlog: Vec<usize>,
    /// Another worker, or the stop, has asked it to look.
    pub(crate) woken: bool,
    /// Whether the kernel does the reading and the writing.
    completions: bool,
    /// Completions: closed, and kept for the write that is in flight.
    leaving: BTreeMap<ConnId, Connection<Io>>,
    stale: Vec<ConnId>,
    buffer: Vec<u8>,
}

/// What the model keeps for a connection.
struct Io {
    socket: usize,
    reading: bool,
    /// Completions: a receive was asked for before the pause, and may still bring something.
    armed: bool,
    /// Readiness: whether to be told that the socket takes more.
    writing: bool,
    /// Completions: what the kernel is writing.
    flight: Option<Flight>,
    eager: bool,
}

/// A write that the kernel does on its own: where the bytes are, and what they were.
struct Flight {
    pieces: Vec<(*const u8, usize)>,
    bytes: Vec<u8>,
}

impl Worker {
    pub(crate) fn new(
        settings: &std::sync::Arc<Settings>,
        index: usize,
        completions: bool,
    ) -> Worker {
        Worker {
            settings: settings.clone(),
            conns: Connections::new(settings, index),
            backlog: Vec::new(),
            woken: false,
            completions,
            leaving: BTreeMap::new(),
            stale: Vec::new(),
            buffer: Vec::new(),
        }
    }

    /// Whether a real loop would end its wait now.
    pub(crate) fn is_due(&self, sockets: &[Socket], now: Time) -> bool {
        self.woken
            || !self.backlog.is_empty()
            || self.conns.next_deadline() <= now
            || self.conns.ids().any(|id| self.is_ready(id, sockets))
            || self.leaving.values().any(|conn| conn.io.flight.is_some())
    }

    pub(crate) fn next_deadline(&self) -> Time {
        self.conns.next_deadline()
    }

    /// Whether the worker has ended: then it has no connection left.
    pub(crate) fn finished(&self) -> bool {
        let (finished, open) = (self.conns.finished(), self.conns.ids().count());
        assert!(!finished || open == 0, "finished with {open} connections");
        finished && self.leaving.is_empty()
    }

    fn is_ready(&self, id: ConnId, sockets: &[Socket]) -> bool {
        let Some(conn) = self.conns.get(id) else { return false };
        let (io, socket) = (&conn.io, &sockets[conn.io.socket]);
        let in_flight = io.flight.is_some();
        io.reading && socket.readable()
            || (io.writing || in_flight) && socket.writable()
            || socket.reset
    }

    /// One turn of the loop.
    pub(crate) fn turn(&mut self, around: &mut Around<'_>) -> Vec<usize> {
        if mem::take(&mut self.woken) && around.stop {
            let sockets = &around.sockets;
            let unread = |io: &Io| !sockets[io.socket].to_server.bytes.is_empty();
            self.conns.stop(around.hub.as_deref_mut(), unread);
        }
        for socket in mem::take(&mut self.backlog) {
            self.admit(socket, around);
        }
        for id in self.events(around) {
            self.ready(id, around);
        }
        if around.faults {
            self.call_with_stale_ids(around);
        }
        let wakes = self.collect(around);
        while let Some(id) = self.conns.next_touched() {
            self.write(id, around);
            self.settle(id, around);
        }
        wakes
    }

    fn admit(&mut self, socket: usize, around: &mut Around<'_>) {
        if self.conns.is_stopping() {
            around.sockets[socket].closed = true;
            return;
        }
        let eager = around.sockets[socket].size == usize::MAX;
        let armed = self.completions;
        let io = Io { socket, reading: true, armed, writing: false, flight: None, eager };
        *around.calls += 1;
        let id = self.conns.open(io, "host", around.now, around.hub.as_deref_mut());
        if self.completions {
            self.conns.touch(id);
        }
    }

    /// The sockets that the kernel reports: in any order, some of them too late, some in vain, and
    /// some that are no more.
    fn events(&mut self, around: &mut Around<'_>) -> Vec<ConnId> {
        let ready = |id: &ConnId| self.is_ready(*id, around.sockets);
        let mut ids: Vec<_> = self.conns.ids().filter(ready).collect();
        ids.extend(self.leaving.keys());
        if !around.faults {
            return ids;
        }
        let random = &mut *around.random;
        // What is sent to a peer that reads at once is reported at once: when the time for a slow
        // member passes meanwhile, no server could know better.
        let at_once = |id: &ConnId| {
            self.conns.get(*id).is_some_and(|it| it.io.eager && it.io.flight.is_some())
        };
        ids.retain(|id| !random.once_in(4) || at_once(id));
        ids.extend(self.conns.ids().filter(|_| random.once_in(8)));
        ids.extend(&self.stale);
        for at in (1..ids.len()).rev() {
            ids.swap(at, random.below(at + 1));
        }
        ids
    }

    /// The id of a connection that is gone finds nothing, whichever call it comes with.
    fn call_with_stale_ids(&mut self, around: &mut Around<'_>) {
        for &id in &self.stale {
            let hub = around.hub.as_deref_mut();
            match around.random.below(4) {
                0 => {
                    let done = self.conns.received(id, b"PING :stale\r\n", around.now, hub);
                    assert_eq!(done, Done::default(), "a stale id is served");
                }
                1 => assert!(self.conns.settle(id, around.now).is_none(), "a stale id settles"),
                2 => assert!(self.conns.close(id, "stale", hub).is_none(), "closed twice"),
                _ => self.conns.touch(id),
            }
        }
    }

    fn ready(&mut self, id: ConnId, around: &mut Around<'_>) {
        if self.completions {
            self.land(id, around);
        }
        let Some(conn) = self.conns.get_mut(id) else { return };
        assert!(!self.stale.contains(&id), "a stale id finds a connection");
        let reset = around.sockets[conn.io.socket].reset;
        conn.dead |= reset;
        if conn.io.reading || conn.io.armed {
            self.read(id, around);
        }
        if !self.completions {
            self.write(id, around);
            self.settle(id, around);
        } else if reset {
            self.conns.touch(id);
        }
    }

    fn read(&mut self, id: ConnId, around: &mut Around<'_>) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        let socket = &mut around.sockets[conn.io.socket];
        let faults = around.faults.then_some(&mut *around.random);
        match socket.read(&mut self.buffer, READ, faults) {
            Ok(()) => {
                *around.calls += 1;
                conn.io.armed &= conn.io.reading;
                let hub = around.hub.as_deref_mut();
                let done = self.conns.received(id, &self.buffer, around.now, hub);
                assert!(done.slow_cut == 0 && done.timed_out == 0, "{done:?}");
                if self.completions {
                    self.conns.touch(id);
                }
            }
            Err(Fault::WouldBlock) => {}
            Err(Fault::Reset) => self.close(id, "Connection reset", around),
        }
    }

    fn write(&mut self, id: ConnId, around: &mut Around<'_>) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        check_bound(&self.settings, &conn.outbox);
        if conn.outbox.is_empty() || conn.io.flight.is_some() {
            return;
        }
        if self.completions {
            let slices = conn.outbox.lend(16);
            let (mut pieces, mut bytes) = (Vec::new(), Vec::new());
            for slice in slices {
                pieces.push((slice.as_ptr(), slice.len()));
                bytes.extend_from_slice(slice);
            }
            conn.io.flight = Some(Flight { pieces, bytes });
            return;
        }
        while !conn.outbox.is_empty() {
            let faults = (around.faults && !conn.io.eager).then_some(&mut *around.random);
            match around.sockets[conn.io.socket].write(conn.outbox.slices(), faults) {
                Ok(len) => conn.outbox.advance(len),
                Err(Fault::WouldBlock) => return,
                Err(Fault::Reset) => {
                    self.close(id, "Connection reset", around);
                    return;
                }
            }
        }
    }

    /// Completions: the write that is in flight may be over.
    fn land(&mut self, id: ConnId, around: &mut Around<'_>) {
        let left = self.leaving.get_mut(&id);
        let Some(conn) = left.or_else(|| self.conns.get_mut(id)) else { return };
        let Some(flight) = conn.io.flight.take() else { return };
        flight.check(&conn.outbox);
        if self.leaving.remove(&id).is_some() {
            return; // With the last of what is in flight, the connection is dropped.
        }
        let Some(conn) = self.conns.get_mut(id) else { return };
        let faults = (around.faults && !conn.io.eager).then_some(&mut *around.random);
        let pieces = std::iter::once(&flight.bytes[..]);
        match around.sockets[conn.io.socket].write(pieces, faults) {
            Ok(len) => {
                conn.outbox.advance(len);
                self.conns.touch(id);
            }
            Err(Fault::WouldBlock) => conn.io.flight = Some(flight),
            Err(Fault::Reset) => self.close(id, "Connection reset", around),
        }
    }

    fn settle(&mut self, id: ConnId, around: &mut Around<'_>) {
        *around.calls += 1;
        let Some((next, conn)) = self.conns.settle(id, around.now) else { return };
        conn.io.writing = !conn.outbox.is_empty();
        let socket = &mut around.sockets[conn.io.socket];
        conn.io.reading = match next {
            Next::Serve { read } => {
                conn.io.armed |= self.completions && read;
                read
            }
            Next::Shut => {
                assert!(conn.outbox.is_empty(), "the stream ends before its last byte");
                assert!(!socket.to_client.ended, "the stream ends twice");
                socket.to_client.ended = true;
                true
            }
            Next::Close(reason) => {
                // With unread input the kernel would send a reset, which can destroy what is on
                // its way to the client. (A server that stops closes an idle echo client at once.)
                let orderly = reason == "Connection closed" && !socket.reset;
                let ended = socket.to_server.ended || around.stop;
                assert!(
                    !orderly || socket.to_server.bytes.is_empty() && ended,
                    "closed before the client's end was read"
                );
                assert!(!orderly || conn.outbox.is_empty(), "closed before its last byte");
                self.close(id, reason, around);
                return;
            }
        };
    }

    /// Deadlines and mail. Returns the workers to wake.
    fn collect(&mut self, around: &mut Around<'_>) -> Vec<usize> {
        *around.calls += 1;
        // As `serve-uring` does: a member is not slow if its send was not made yet.
        let mark = self.settings.limits.high_water();
        let waits = |it: &Connection<Io>| it.io.flight.is_none() && it.outbox.len() > mark;
        let behind = self.completions && self.conns.any_touched(waits);
        let hub = around.hub.as_deref_mut();
        let _ = if behind {
            self.conns.expire(around.now, hub, waits)
        } else {
            self.conns.turn(around.now, hub)
        };
        let mut wakes = Vec::new();
        while let Some(worker) = self.conns.next_wake() {
            wakes.push(worker);
        }
        self.conns.deliver(around.now);
        wakes
    }

    fn close(&mut self, id: ConnId, reason: &str, around: &mut Around<'_>) {
        *around.calls += 1;
        let hub = around.hub.as_deref_mut();
        let Some(conn) = self.conns.close(id, reason, hub) else { return };
        around.sockets[conn.io.socket].closed = true;
        self.stale.push(id);
        if self.stale.len() > STALE {
            self.stale.remove(0);
        }
        if conn.io.flight.is_some() {
            self.leaving.insert(id, conn);
        }
    }
}

impl Flight {
    /// The kernel reads the memory until the write is over: nothing may have moved or changed.
    fn check(&self, outbox: &Outbox) {
        let mut bytes = &self.bytes[..];
        let mut slices = outbox.slices();
        for &(address, len) in &self.pieces {
            let slice = slices.next().expect("what was lent is still queued");
            assert_eq!(slice.as_ptr(), address, "what was lent has moved");
            assert!(slice.len() >= len && slice[..len] == bytes[..len], "it has changed");
            bytes = &bytes[len..];
        }
    }
}

/// No queue is without a bound: in echo, what the reads add above the high-water mark, with a line
/// before it that was not whole; in chat, the limit and the last words.
fn check_bound(settings: &Settings, outbox: &Outbox) {
    let limits = &settings.limits;
    let bound = match settings.mode {
        Mode::Echo => limits.high_water() + READS * READ + 2 * limits.max_line,
        Mode::Chat => limits.sendq + Limits::CHAT_LINE,
    };
    assert!(outbox.len() <= bound, "{} bytes are queued", outbox.len());
}
