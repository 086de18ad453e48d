//! All connections of one worker: everything that an event loop knows of them, save how it waits.
//!
//! # The contract of calls
//!
//! The loop owns the sockets, the hub's lock and the wait. It reports what has happened, and the
//! answers say what to do. One turn:
//!
//! ```text
//!   wait until next_deadline()                                        the model's own
//!     |
//!     +-- a new connection      open ---------------------> register its socket
//!     +-- bytes, or their end   received -----------------> write, settle
//!     +-- the socket takes more ---------------------------> write, settle
//!     +-- a call failed         close --------------------> drop its socket
//!     +-- the socket is dead    set Connection::dead -----> settle
//!     +-- the server stops      stop
//!     |
//!   turn       under the hub's lock: deadlines, and mail is fetched
//!   next_wake  without it: other workers to be woken
//!   deliver    without it: the mail is queued
//!     |
//!   next_touched, until there is none --------------------> write, settle
//! ```
//!
//! - *write*: [`Connection::outbox`] is written to the socket, as far as it takes it, and
//!   [`Outbox::advance`] is called with the number of bytes.
//! - *settle*: [`Connections::settle`] says what the connection wants next, and the loop waits for
//!   that, or closes.
//! - [`Connections::received`] does not touch, since the loop has the connection in hand and writes
//!   to it at once, while it is in the cache. A loop that has other plans (io_uring submits all
//!   writes of a turn together) calls [`Connections::touch`] and lets the end of the turn do it.
//! - In chat the hub is passed to every call that takes one, in echo never. Whatever the calls
//!   lead to for other members comes to them as mail, with the next turn of their worker.
//! - [`Connections::next_deadline`] has passed at once while a call has left something for the
//!   next turn. So the loop never sleeps on mail.
//! - An id whose connection is gone finds nothing, and every call with it does nothing.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::{
    ConnId, Deadlines, Due, Hub, Input, Mail, Next, Outbox, SENDQ_EXCEEDED, Session, Settings,
    Slots, Time,
};

/// The connections of one worker. `T` is what the server keeps for each: its socket, and what the
/// model needs to know of it.
pub struct Connections<T> {
    settings: Arc<Settings>,
    worker: usize,
    slots: Slots<Connection<T>>,
    deadlines: Deadlines,
    /// What is to be written to and settled at the end of this turn, each once.
    touched: VecDeque<ConnId>,
    /// Fetched from the hub, and not delivered yet.
    mail: Vec<Mail>,
    /// Workers that have got mail and must be woken.
    wakes: Vec<usize>,
    /// Members whose queue was full: the hub cuts them in the next turn.
    full: Vec<ConnId>,
    /// A call may have left mail in the hub, for this worker or for others: `turn` fetches it.
    unfetched: bool,
    stopping: bool,
}

/// One connection.
pub struct Connection<T> {
    /// The server's own.
    pub io: T,
    /// What waits to be written.
    pub outbox: Outbox,
    /// The loop has been told that the connection is dead (reset, or ended by both sides). What has
    /// come before may still be read. It is closed as soon as it is not to be read.
    pub dead: bool,
    session: Session,
    /// Whether it is in [`Connections::touched`].
    touched: bool,
}

/// What has been done for a server's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Done {
    /// Lines handled.
    pub lines: u64,
    /// Members cut because they read too slowly.
    pub slow_cut: u64,
    /// Connections ended by any other deadline.
    pub timed_out: u64,
}

impl<T> Connections<T> {
    /// No connections yet, for the worker numbered `worker`.
    #[must_use]
    pub fn new(settings: &Arc<Settings>, worker: usize) -> Connections<T> {
        Connections {
            settings: Arc::clone(settings),
            worker,
            slots: Slots::new(worker),
            deadlines: Deadlines::default(),
            touched: VecDeque::new(),
            mail: Vec::new(),
            wakes: Vec::new(),
            full: Vec::new(),
            unfetched: false,
            stopping: false,
        }
    }

    /// A connection from `host`, accepted at `now`. It is to be read.
    pub fn open(&mut self, io: T, host: &str, now: Time, hub: Option<&mut Hub>) -> ConnId {
        let session = Session::new(&self.settings, now).of(host);
        let outbox = Outbox::default();
        let deadline = session.deadline(&outbox);
        let id =
            self.slots.insert(Connection { io, outbox, dead: false, session, touched: false }).0;
        self.deadlines.set(id, deadline);
        if let Some(hub) = hub {
            hub.open(id, host, now);
            self.unfetched = true;
        }
        id
    }

    /// The connection, unless it is gone: then an event or a completion for it is stale.
    #[must_use]
    pub fn get(&self, id: ConnId) -> Option<&Connection<T>> {
        self.slots.get(id)
    }

    /// The connection, unless it is gone: then an event or a completion for it is stale.
    pub fn get_mut(&mut self, id: ConnId) -> Option<&mut Connection<T>> {
        self.slots.get_mut(id)
    }

    /// The ids of all connections.
    pub fn ids(&self) -> impl Iterator<Item = ConnId> + '_ {
        self.slots.ids()
    }

    /// What `read` gave: bytes or, as `read` says it by giving none, the end of the stream.
    pub fn received(&mut self, id: ConnId, bytes: &[u8], now: Time, hub: Option<&mut Hub>) -> Done {
        let Some(conn) = self.slots.get_mut(id) else { return Done::default() };
        Done { lines: conn.handle(id, Input::Received(bytes), now, hub), ..Done::default() }
    }

    /// What the connection wants next. Ask after everything that has happened to it.
    pub fn settle(&mut self, id: ConnId, now: Time) -> Option<(Next, &mut Connection<T>)> {
        let conn = self.slots.get_mut(id)?;
        let next = conn.session.next(now, &conn.outbox);
        self.deadlines.set(id, conn.session.deadline(&conn.outbox));
        if conn.dead && next == (Next::Serve { read: false }) {
            return Some((Next::Close("Connection reset"), conn));
        }
        Some((next, conn))
    }

    /// Lets the end of this turn write to the connection and settle it.
    pub fn touch(&mut self, id: ConnId) {
        if let Some(conn) = self.slots.get_mut(id)
            && !core::mem::replace(&mut conn.touched, true)
        {
            self.touched.push_back(id);
        }
    }

    /// The next connection to write to and to settle, each once in a turn.
    pub fn next_touched(&mut self) -> Option<ConnId> {
        while let Some(id) = self.touched.pop_front() {
            if let Some(conn) = self.slots.get_mut(id) {
                conn.touched = false;
                return Some(id);
            }
        }
        None
    }

    /// Whether a touched connection is as `is` says.
    #[must_use]
    pub fn any_touched(&self, mut is: impl FnMut(&Connection<T>) -> bool) -> bool {
        self.touched.iter().any(|id| self.slots.get(*id).is_some_and(&mut is))
    }

    /// Does what is due, has the hub cut members whose queue was full, and fetches the mail. Then
    /// [`Connections::next_wake`] and [`Connections::deliver`] go on without the lock.
    pub fn turn(&mut self, now: Time, mut hub: Option<&mut Hub>) -> Done {
        let mut done = self.expire(now, hub.as_deref_mut(), |_| false);
        if let Some(hub) = hub {
            for id in self.full.drain(..) {
                hub.cut(id, SENDQ_EXCEEDED);
                done.slow_cut += 1;
            }
            debug_assert!(self.mail.is_empty(), "the mail of the last turn was not delivered");
            hub.take(self.worker, &mut self.mail);
            self.wakes.extend(hub.wakes(self.worker));
            self.unfetched = false;
        }
        done
    }

    /// The part of [`Connections::turn`] that minds the deadlines, for a loop that cannot take more
    /// mail in this turn. The next turn then comes at once. A connection that `waits` for the loop,
    /// and not for its peer, is looked at then: it may have waited long only because the loop did.
    pub fn expire(
        &mut self,
        now: Time,
        mut hub: Option<&mut Hub>,
        mut waits: impl FnMut(&Connection<T>) -> bool,
    ) -> Done {
        let mut done = Done::default();
        let mut later = Vec::new();
        self.unfetched |= hub.is_some();
        while let Some(id) = self.deadlines.expired(now) {
            let Some(conn) = self.slots.get_mut(id) else { continue };
            if waits(conn) {
                later.push(id);
                continue;
            }
            match (conn.session.expire(now, &conn.outbox), hub.as_deref_mut()) {
                (Due::Resume, hub) => done.lines += conn.handle(id, Input::Resume, now, hub),
                (Due::Ping, Some(hub)) => hub.ping(id),
                (Due::Cut(reason), Some(hub)) => {
                    hub.cut(id, reason);
                    let slow = reason == SENDQ_EXCEEDED;
                    done.slow_cut += u64::from(slow);
                    done.timed_out += u64::from(!slow);
                }
                (Due::Close, _) => done.timed_out += 1,
                (Due::Later | Due::Ping | Due::Cut(_), _) => {}
            }
            self.touch(id);
        }
        for id in later {
            self.deadlines.set(id, now);
        }
        done
    }

    /// The next worker to wake, because it has got mail.
    pub fn next_wake(&mut self) -> Option<usize> {
        self.wakes.pop()
    }

    /// Queues the mail that [`Connections::turn`] has fetched.
    pub fn deliver(&mut self, now: Time) {
        let mut mail = core::mem::take(&mut self.mail);
        for Mail { to, parcel } in mail.drain(..) {
            let Some(conn) = self.slots.get_mut(to) else { continue };
            // Where more is queued already, the loop waits for the socket to take it, and settles
            // the connection then.
            let touch = conn.outbox.is_empty();
            if conn.session.post(parcel, now, &mut conn.outbox).is_err() {
                self.full.push(to);
            }
            self.deadlines.set(to, conn.session.deadline(&conn.outbox));
            if touch {
                self.touch(to);
            }
        }
        self.mail = mail;
    }

    /// When the next turn must come, whatever happens: at once, if there is something left to do.
    #[must_use]
    pub fn next_deadline(&self) -> Time {
        let left = self.unfetched || !self.full.is_empty() || !self.touched.is_empty();
        if left { Time::ZERO } else { self.deadlines.next() }
    }

    /// The connection is gone, for this reason; its socket is returned. The hub forgets the member
    /// before its socket is closed: so a client that sees the close and connects again at once
    /// finds its nickname free.
    pub fn close(
        &mut self,
        id: ConnId,
        reason: &str,
        hub: Option<&mut Hub>,
    ) -> Option<Connection<T>> {
        let mut conn = self.slots.remove(id)?;
        conn.session.tell_end(reason);
        self.deadlines.clear(id);
        if let Some(hub) = hub {
            hub.leave(id, reason);
            self.unfetched = true;
        }
        Some(conn)
    }

    /// The server stops. Members get their last words, as mail, and time to end their streams.
    /// Clients of an echo server get the replies to what has been received from them. `is_busy`
    /// says whether bytes are on their way, in either direction. To close at once could reset such
    /// a connection, so the client gets time to end its stream. Only the first call counts.
    pub fn stop(&mut self, hub: Option<&mut Hub>, mut is_busy: impl FnMut(&T) -> bool) {
        if core::mem::replace(&mut self.stopping, true) {
            return;
        }
        if let Some(hub) = hub {
            hub.shut_down();
            self.unfetched = true;
            return;
        }
        for id in self.slots.ids().collect::<Vec<_>>() {
            if let Some(conn) = self.slots.get_mut(id) {
                conn.session.stop(is_busy(&conn.io), &conn.outbox);
                self.touch(id);
            }
        }
    }

    /// Whether [`Connections::stop`] has been called.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Whether the server stops and the last connection is gone.
    #[must_use]
    pub fn finished(&self) -> bool {
        self.stopping && self.slots.is_empty()
    }
}

impl<T> Connection<T> {
    /// Echo: whether the peer is given up as silent unless a write shows otherwise. One that is
    /// made now does, and nothing has to be done for it. A loop whose last write is still in flight
    /// has to make it again, and [`Connections::expire`] has to wait for that.
    #[must_use]
    pub fn is_doubted(&self) -> bool {
        self.session.is_doubted()
    }

    fn handle(&mut self, id: ConnId, input: Input<'_>, now: Time, hub: Option<&mut Hub>) -> u64 {
        match hub {
            None => self.session.echo(input, now, &mut self.outbox),
            Some(hub) => self.session.chat(input, now, &self.outbox, id, hub),
        }
    }
}
