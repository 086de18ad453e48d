//! A member's connection that several threads serve.

use core::fmt;
use std::sync::Arc;

use super::{Session, Step};
use crate::{Outbox, Parcel, Settings, Time};

/// What the threads share that serve one connection, for the server to put behind a lock.
///
/// One of them receives. Another may send: it takes all that is queued at a stroke, as its batch,
/// and sends it without the lock, while more gathers. A third brings mail. Each asks what to do
/// next, and [`Step::Close`] is told to all as soon as one has called [`Duplex::end`].
pub struct Duplex {
    /// What the peer's bytes mean.
    pub session: Session,
    /// What is queued, and what the sender has taken of it.
    pub outbox: Outbox,
    /// A thread may be waiting, so it must be woken. The thread that wakes it takes this back: once
    /// is enough.
    pub waits: bool,
    /// The socket takes nothing of the sender's batch.
    stuck: bool,
    /// The sender has not come to a lot of mail, and those who speak wait until it has.
    behind: bool,
    over: Option<&'static str>,
    /// Mail from which on the sender is behind.
    mark: usize,
}

/// What is to be done after [`Duplex::post`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Posted {
    /// A thread waits that has something to do now: wake it.
    pub wake: bool,
    /// The queue is over its limit: call [`crate::Hub::cut`].
    pub full: bool,
    /// The sender has not come to its mail: call [`crate::Hub::press`]. Never for a member that
    /// does not read, for which no speaker waits.
    pub behind: bool,
}

impl Duplex {
    /// A connection accepted at `now`.
    #[must_use]
    pub fn new(settings: &Arc<Settings>, now: Time) -> Duplex {
        Duplex {
            session: Session::new(settings, now),
            outbox: Outbox::default(),
            waits: false,
            stuck: false,
            behind: false,
            over: None,
            mark: settings.limits.high_water(),
        }
    }

    /// As [`Session::of`].
    #[must_use]
    pub fn of(self, peer: impl fmt::Display) -> Duplex {
        Duplex { session: self.session.of(peer), ..self }
    }

    /// As [`Session::step`], for a thread that receives, and sends what the socket takes at once.
    pub fn step(&mut self, now: Time, stuck: bool) -> Step {
        match self.over {
            Some(reason) => Step::Close(reason),
            None => self.session.step(now, &self.outbox, stuck),
        }
    }

    /// As [`Session::step`], for a thread that only receives. It is never told to send.
    /// [`Step::Pause`] lasts until it is woken.
    pub fn receiver_step(&mut self, now: Time) -> Step {
        match self.step(now, true) {
            // What others take time over, the peer or the sender, this thread waits for.
            Step::Send => Step::Pause(self.session.deadline(&self.outbox)),
            Step::ReceiveNow => Step::Receive(self.session.deadline(&self.outbox)),
            step => step,
        }
    }

    /// As [`Session::step`], for a thread that only sends. It is never told to receive.
    /// [`Step::Pause`] lasts until it is woken. [`Step::Send`] means its `batch`, which is filled
    /// here. `stuck` says that the socket takes nothing of the batch. When the batch is empty,
    /// wake the receiver if it waits: it may go on.
    pub fn sender_step(&mut self, now: Time, batch: &mut Outbox, stuck: bool) -> Step {
        let taken = batch.is_empty();
        if taken {
            *batch = self.outbox.take();
        } else {
            self.outbox.note_left(batch.len());
        }
        self.stuck = stuck && !taken;
        // With much in its batch it has taken the mail, but not yet sent it: speakers wait on.
        if self.behind && (stuck || taken && batch.len() <= self.mark) {
            self.behind = false;
            return Step::Relieve;
        }
        match self.step(now, false) {
            Step::Receive(until) => Step::Pause(until),
            step => step,
        }
    }

    /// Takes what the hub has sent to this connection.
    pub fn post(&mut self, parcel: Parcel, now: Time) -> Posted {
        let full = self.session.post(parcel, now, &mut self.outbox).is_err();
        let behind = !self.stuck && self.outbox.len() > self.mark;
        self.behind |= behind;
        Posted { wake: core::mem::take(&mut self.waits), full, behind }
    }

    /// The connection is over, for all threads. Returns whether this is news; the first reason
    /// counts.
    pub fn end(&mut self, reason: &'static str) -> bool {
        let news = self.over.is_none();
        self.over.get_or_insert(reason);
        news
    }

    /// Why the connection is over, if it is.
    #[must_use]
    pub fn over(&self) -> Option<&'static str> {
        self.over
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use crate::{ConnId, Hub, Input, Limits, Mode};

    use super::*;

    const NOW: Time = Time::ZERO;

    fn settings() -> Arc<Settings> {
        let limits = Limits { sendq: 4000, ..Limits::default() };
        Arc::new(Settings { mode: Mode::Chat, limits, ..Settings::default() })
    }

    fn text(len: usize) -> Parcel {
        Parcel::Text(vec![b'x'; len].into())
    }

    fn posted(wake: bool, full: bool, behind: bool) -> Posted {
        Posted { wake, full, behind }
    }

    #[test]
    fn the_receiver_receives_while_the_sender_waits_for_mail_and_sends() {
        let mut both = Duplex::new(&settings(), NOW);
        let mut batch = Outbox::default();
        let until = both.session.deadline(&both.outbox);
        assert_eq!(both.receiver_step(NOW), Step::Receive(until));
        assert_eq!(both.sender_step(NOW, &mut batch, false), Step::Pause(until));

        both.waits = true;
        assert_eq!(both.post(text(7), NOW), posted(true, false, false));
        assert_eq!(both.post(text(3), NOW), posted(false, false, false), "woken already");
        assert_eq!(both.sender_step(NOW, &mut batch, false), Step::Send);
        assert_eq!(batch.len(), 10);
        assert_eq!(both.receiver_step(NOW), Step::Receive(until));

        batch.advance(10);
        assert_eq!(both.sender_step(NOW, &mut batch, false), Step::Pause(until));
    }

    #[test]
    fn the_receiver_waits_while_the_member_has_not_read_its_answers() {
        let settings = settings();
        let (mut both, mut batch) = (Duplex::new(&settings, NOW), Outbox::default());
        let mut hub = Hub::new(settings, 1);
        let _ = both.post(text(1500), NOW);
        let Duplex { session, outbox, .. } = &mut both;
        session.chat(Input::Received(b"x\n"), NOW, outbox, ConnId::from_bits(0), &mut hub);
        assert!(matches!(both.receiver_step(NOW), Step::Pause(_)));
        assert_eq!(both.sender_step(NOW, &mut batch, true), Step::Relieve);
        batch.advance(1500);
        // Now that the sender has come again, one of the two resumes.
        assert_eq!(both.sender_step(NOW, &mut batch, false), Step::Resume);
    }

    #[test]
    fn speakers_wait_for_a_sender_that_is_behind_until_it_has_come() {
        let (mut both, mut batch) = (Duplex::new(&settings(), NOW), Outbox::default());
        assert_eq!(both.post(text(1500), NOW), posted(false, false, true));
        assert_eq!(both.sender_step(NOW, &mut batch, false), Step::Send, "it is taken, not sent");
        batch.advance(1500);
        assert_eq!(both.sender_step(NOW, &mut batch, false), Step::Relieve);
        assert!(matches!(both.sender_step(NOW, &mut batch, false), Step::Pause(_)), "told once");
    }

    #[test]
    fn no_speaker_waits_for_a_member_that_does_not_read() {
        let (mut both, mut batch) = (Duplex::new(&settings(), NOW), Outbox::default());
        assert_eq!(both.post(text(500), NOW), posted(false, false, false));
        assert_eq!(both.sender_step(NOW, &mut batch, false), Step::Send);
        assert_eq!(both.post(text(1500), NOW), posted(false, false, true));
        assert_eq!(both.sender_step(NOW, &mut batch, false), Step::Send, "it has not come to it");
        assert_eq!(both.sender_step(NOW, &mut batch, true), Step::Relieve);
        assert_eq!(both.sender_step(NOW, &mut batch, true), Step::Send);
        assert_eq!(both.post(text(1500), NOW), posted(false, false, false));
        assert_eq!(both.post(text(1500), NOW), posted(false, true, false));
        assert_eq!(both.post(text(1500), NOW), posted(false, false, false), "told once");
    }

    #[test]
    fn speakers_wait_for_a_sender_in_the_midst_of_its_batch() {
        let (mut both, mut batch) = (Duplex::new(&settings(), NOW), Outbox::default());
        assert_eq!(both.post(text(500), NOW), posted(false, false, false));
        assert_eq!(both.sender_step(NOW, &mut batch, false), Step::Send);
        batch.advance(100);
        assert_eq!(both.sender_step(NOW, &mut batch, false), Step::Send);
        assert_eq!(both.post(text(1500), NOW), posted(false, false, true));
    }

    #[test]
    fn a_member_that_takes_a_large_batch_bit_by_bit_is_not_cut() {
        let (mut both, mut batch) = (Duplex::new(&settings(), NOW), Outbox::default());
        let (soon, later) = (NOW + Duration::from_secs(1), NOW + Duration::from_secs(25));
        let at_last = NOW + Limits::default().sendq_grace;
        both.session.post(Parcel::Welcome, NOW, &mut both.outbox).expect("there is room");
        let _ = both.post(text(3000), NOW);
        assert_eq!(both.sender_step(NOW, &mut batch, false), Step::Send);
        batch.advance(2800);
        assert_eq!(both.sender_step(soon, &mut batch, true), Step::Relieve);
        assert_eq!(both.sender_step(soon, &mut batch, true), Step::Send);
        let step = both.receiver_step(later);
        assert!(matches!(step, Step::Receive(until) if until > at_last), "{step:?}");
        assert_eq!(both.sender_step(at_last, &mut batch, true), Step::Send);
        assert_eq!(both.post(text(3000), at_last), posted(false, false, false));
    }

    #[test]
    fn a_sender_is_behind_from_the_high_water_mark_on() {
        let mut both = Duplex::new(&settings(), NOW);
        assert_eq!(both.post(text(1000), NOW), posted(false, false, false));
        assert_eq!(both.post(text(1), NOW), posted(false, false, true));
    }

    #[test]
    fn both_hear_of_deadlines_and_of_the_end() {
        let (mut both, mut batch) = (Duplex::new(&settings(), NOW), Outbox::default());
        let late = NOW + Duration::from_secs(3600);
        assert!(matches!(both.receiver_step(late), Step::Cut(_)));
        assert_eq!(both.receiver_step(late), Step::Receive(Time::NEVER));
        assert_eq!(both.sender_step(late, &mut batch, false), Step::Pause(Time::NEVER));

        assert!(both.end("Connection reset"));
        assert!(!both.end("Timed out"));
        assert_eq!(both.over(), Some("Connection reset"));
        let close = Step::Close("Connection reset");
        assert_eq!(both.step(late, true), close);
        assert_eq!(both.receiver_step(late), close);
        assert_eq!(both.sender_step(late, &mut batch, false), close);
    }
}
