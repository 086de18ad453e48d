//! How long a peer may be silent.

use super::Due;
use crate::{Limits, Outbox, Time};

/// Echo: a peer is silent that sends no whole line, and takes none of the replies that wait.
pub(super) struct EchoSilence {
    /// When the last whole line came, or the peer was last seen to read.
    heard: Time,
    /// What was queued when the server last looked; `None` until it looks.
    owed: Option<usize>,
    /// Whether a write has been tried since the deadline came.
    tried: bool,
}

impl EchoSilence {
    pub(super) fn new(now: Time) -> EchoSilence {
        EchoSilence { heard: now, owed: None, tried: false }
    }

    /// A whole line has come, or the peer has been seen to read.
    pub(super) fn broken(&mut self, now: Time) {
        *self = EchoSilence::new(now);
    }

    /// Notes how much is queued, once after each sign of life.
    pub(super) fn note_queue(&mut self, outbox: &Outbox) {
        self.owed.get_or_insert(outbox.len());
    }

    pub(super) fn deadline(&self, limits: &Limits) -> Time {
        self.heard + limits.idle_timeout
    }

    /// Whether the deadline has come, and the next call of `expire` gives the peer up unless it has
    /// taken something meanwhile.
    pub(super) fn is_doubted(&self) -> bool {
        self.tried
    }

    /// The deadline has come. While its replies wait, the server itself may be what does not read,
    /// so a peer that takes them is not silent. A socket is said to be writable only when much has
    /// gone, so a write is tried before the peer is given up.
    pub(super) fn expire(&mut self, now: Time, outbox: &Outbox) -> Due {
        let taken = self.owed.is_some_and(|owed| outbox.len() < owed);
        if taken && (self.tried || !outbox.is_empty()) {
            self.broken(now);
            return Due::Later;
        }
        if outbox.is_empty() || self.tried {
            return Due::Close;
        }
        self.tried = true;
        Due::Resume
    }
}

/// Chat: a member is silent that sends no byte. It is asked once, then cut.
pub(super) struct ChatSilence {
    /// When the last byte came.
    heard: Time,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It has until then to register.
    Registering(Time),
    Registered,
    /// It has been sent a PING, has said nothing since, and is cut at this instant.
    Pinged(Time),
    /// The hub has been asked to cut it. No deadline counts until its last words come.
    Cut,
}

impl ChatSilence {
    pub(super) fn new(limits: &Limits, now: Time) -> ChatSilence {
        let stage = Stage::Registering(now + limits.registration_timeout);
        ChatSilence { heard: now, stage }
    }

    /// A byte has come.
    pub(super) fn broken(&mut self, now: Time) {
        self.heard = now;
        if let Stage::Pinged(_) = self.stage {
            self.stage = Stage::Registered;
        }
    }

    pub(super) fn registered(&mut self) {
        self.stage = Stage::Registered;
    }

    pub(super) fn cut(&mut self) {
        self.stage = Stage::Cut;
    }

    pub(super) fn is_cut(&self) -> bool {
        self.stage == Stage::Cut
    }

    pub(super) fn deadline(&self, limits: &Limits) -> Time {
        let silent = self.heard + limits.idle_timeout;
        match self.stage {
            Stage::Registering(until) => until.min(silent),
            Stage::Registered => silent,
            Stage::Pinged(until) => until,
            Stage::Cut => Time::NEVER,
        }
    }

    /// The deadline has come. It may have passed long ago, if the whole server was stopped: a
    /// member has its time to answer all the same.
    pub(super) fn expire(&mut self, limits: &Limits, now: Time) -> Due {
        match self.stage {
            Stage::Registering(_) => Due::Cut("Registration timed out"),
            Stage::Registered => {
                self.stage = Stage::Pinged(now + limits.ping_timeout);
                Due::Ping
            }
            Stage::Pinged(_) => Due::Cut("Ping timeout"),
            Stage::Cut => Due::Later,
        }
    }
}
