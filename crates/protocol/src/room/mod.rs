//! What connections share when a task of its own serves each of them.
//!
//! A task owns its socket, its [`Session`] and its outbox. Here is the rest, behind one lock that
//! the server owns: for each connection what wakes its task, and in chat also the hub and an inbox
//! for each member. Nothing here waits, and nothing here wakes. A visit to the room goes like this:
//!
//! 1. Lock the room.
//! 2. Call [`Room::chat`], [`Room::ping`] or [`Room::cut`]; or nothing, if the task has been woken
//!    to collect its mail.
//! 3. Call [`Room::exchange`]: mail for other members goes to their inboxes, and what is in this
//!    member's inbox goes to its outbox.
//! 4. Unlock, and then wake the tasks that [`Exchange::to_wake`] names.
//!
//! In echo the room is visited when a connection comes and when it goes, and when the server stops.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::{
    ConnId, Hub, Inbox, Input, Mail, Mode, Outbox, SENDQ_EXCEEDED, Session, Settings, Slots, Time,
};

/// What the connections share. `W` is what wakes a task, such as an `Arc<Notify>`. A wake-up counts
/// also when the task is not waiting yet: it keeps the wake-up, or looks after it has begun to
/// wait.
pub struct Room<W> {
    settings: Arc<Settings>,
    /// In chat only.
    hub: Option<Hub>,
    members: Slots<Member<W>>,
    /// On its way from the hub to the inboxes; empty between two calls.
    mail: Vec<Mail>,
}

struct Member<W> {
    waker: W,
    inbox: Inbox,
}

/// What comes of [`Room::exchange`].
#[must_use]
pub struct Exchange<W> {
    /// What wakes the tasks whose inbox was empty and is no longer.
    pub to_wake: Vec<W>,
    /// The member was cut, because it reads too slowly.
    pub slow_cut: bool,
}

impl<W: Clone> Room<W> {
    /// A room without connections.
    #[must_use]
    pub fn new(settings: &Arc<Settings>) -> Room<W> {
        let chat = settings.mode == Mode::Chat;
        Room {
            settings: Arc::clone(settings),
            hub: chat.then(|| Hub::new(Arc::clone(settings), 1)),
            members: Slots::new(0),
            mail: Vec::new(),
        }
    }

    /// A connection from `host`, accepted at `now`, whose task `waker` wakes.
    pub fn open(&mut self, host: &str, now: Time, waker: W) -> ConnId {
        let id = self.members.insert(Member { waker, inbox: Inbox::default() }).0;
        if let Some(hub) = &mut self.hub {
            hub.open(id, host, now);
        }
        id
    }

    /// As [`Session::chat`]. Returns how many lines were handled.
    pub fn chat(
        &mut self,
        id: ConnId,
        session: &mut Session,
        input: Input<'_>,
        now: Time,
        outbox: &Outbox,
    ) -> u64 {
        let Some(hub) = &mut self.hub else { return 0 };
        session.chat(input, now, outbox, id, hub)
    }

    /// As [`Hub::ping`].
    pub fn ping(&mut self, id: ConnId) {
        if let Some(hub) = &mut self.hub {
            hub.ping(id);
        }
    }

    /// As [`Hub::cut`].
    pub fn cut(&mut self, id: ConnId, reason: &str) {
        if let Some(hub) = &mut self.hub {
            hub.cut(id, reason);
        }
    }

    /// Brings the mail of the hub to the inboxes, and queues what has come for `id`. Call it last
    /// under the lock, so that every member gets all mail in the hub's order.
    pub fn exchange(
        &mut self,
        id: ConnId,
        session: &mut Session,
        outbox: &mut Outbox,
        now: Time,
    ) -> Exchange<W> {
        let mut exchange = Exchange { to_wake: self.bring(Some(id)), slow_cut: false };
        let Some(member) = self.members.get_mut(id) else { return exchange };
        let inbox = core::mem::take(&mut member.inbox);
        let pressed = inbox.is_pressed(&self.settings.limits);
        for parcel in inbox {
            exchange.slow_cut |= session.post(parcel, now, outbox).is_err();
        }
        if (pressed || exchange.slow_cut)
            && let Some(hub) = &mut self.hub
        {
            if pressed {
                hub.relieve(id);
            }
            if exchange.slow_cut {
                hub.cut(id, SENDQ_EXCEEDED);
            }
            // If there is mail for `id` again, its task is woken as well.
            exchange.to_wake.extend(self.bring(None));
        }
        exchange
    }

    /// The connection is gone, for this reason. Returns what wakes the tasks of the members that
    /// have shared a channel with its member.
    #[must_use]
    pub fn leave(&mut self, id: ConnId, reason: &str) -> Vec<W> {
        self.members.remove(id);
        if let Some(hub) = &mut self.hub {
            hub.leave(id, reason);
        }
        self.bring(None)
    }

    /// The server stops. Returns what wakes the tasks: in chat those whose members get their last
    /// words, in echo all, which then call [`Session::stop`].
    #[must_use]
    pub fn shut_down(&mut self) -> Vec<W> {
        if let Some(hub) = &mut self.hub {
            hub.shut_down();
            return self.bring(None);
        }
        let members = self.members.ids().filter_map(|id| self.members.get(id));
        members.map(|member| member.waker.clone()).collect()
    }

    /// Brings the mail of the hub to the inboxes. Returns what wakes the tasks whose inbox was
    /// empty, except the task of `own`, which is awake and looks by itself.
    fn bring(&mut self, own: Option<ConnId>) -> Vec<W> {
        let mut wake = Vec::new();
        let Some(hub) = &mut self.hub else { return wake };
        hub.take(0, &mut self.mail);
        for Mail { to, parcel } in self.mail.drain(..) {
            let Some(member) = self.members.get_mut(to) else { continue };
            if member.inbox.is_empty() && own != Some(to) {
                wake.push(member.waker.clone());
            }
            if member.inbox.push(parcel, &self.settings.limits) {
                // The task has not come to it: speakers wait until it has.
                hub.press(to);
            }
        }
        wake
    }
}
