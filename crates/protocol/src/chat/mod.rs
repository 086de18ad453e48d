//! Chat: an IRC subset as pure state. Lines in, mail out.

use std::sync::Arc;

use crate::{ConnId, Line, Message, Settings, Time};

/// One thing for one connection, in the order in which the hub decided it.
#[derive(Clone, Debug)]
pub struct Mail {
    /// Whom it is for.
    pub to: ConnId,
    /// What it is.
    pub parcel: Parcel,
}

/// What [`Mail`] brings.
#[derive(Clone, Debug)]
pub enum Parcel {
    /// Bytes to send: one or more whole lines, shared by all their receivers.
    Text(Message),
    /// The member has registered: its registration deadline is off.
    Welcome,
    /// The last parcel of this connection.
    Close(Message),
}

/// Members, channels and nicknames.
pub struct Hub {
    settings: Arc<Settings>,
}

impl Hub {
    /// An empty hub whose mail goes to `workers` workers.
    #[must_use]
    pub fn new(settings: Arc<Settings>, workers: usize) -> Hub {
        let _ = workers;
        Hub { settings }
    }

    /// A connection has come.
    pub fn open(&mut self, id: ConnId, host: &str, now: Time) {
        let _ = (id, host, now, &self.settings);
    }

    /// One line of that connection.
    pub fn line(&mut self, id: ConnId, line: Line<'_>, now: Time) {
        let _ = (id, line, now);
    }

    /// Asks a silent member for a sign of life.
    pub fn ping(&mut self, id: ConnId) {
        let _ = id;
    }

    /// Ends a member.
    pub fn cut(&mut self, id: ConnId, reason: &str) {
        let _ = (id, reason);
    }

    /// A connection is gone.
    pub fn leave(&mut self, id: ConnId, reason: &str) {
        let _ = (id, reason);
    }

    /// The server stops: tells everyone, closes everyone.
    pub fn shut_down(&mut self) {}

    /// Moves the mail for connections of `worker` into `mail`.
    pub fn take(&mut self, worker: usize, mail: &mut Vec<Mail>) {
        let _ = (worker, mail);
    }

    /// The workers other than `own` that have got mail.
    pub fn wakes(&mut self, own: usize) -> impl Iterator<Item = usize> + use<> {
        let _ = own;
        std::iter::empty()
    }
}
