//! What an owner does next that can do one thing at a time: a thread or a process that blocks.
//!
//! The owner asks [`Session::step`], does what it says with one call, which may wait, and asks
//! again. If several threads own a connection together, each asks [`crate::Duplex`] for its part.

use super::{Due, Next, SENDQ_EXCEEDED, Session, TIMED_OUT};
use crate::{Done, Outbox, Time};

/// One call that may block, or one thing to do before the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send what is queued, and wait for the socket to take it.
    Send,
    /// Receive, and wait for bytes until this instant.
    Receive(Time),
    /// Receive what has come already: the socket takes nothing now, and a peer may send all that it
    /// has before it reads. If nothing has come, the next step is to send.
    ReceiveNow,
    /// Neither, until this instant: as a handler does that waits for its database.
    Pause(Time),
    /// Call [`Session::echo`] or [`Session::chat`] with [`crate::Input::Resume`].
    Resume,
    /// Chat: call [`crate::Hub::ping`].
    Ping,
    /// Chat: call [`crate::Hub::cut`] with this reason.
    Cut(&'static str),
    /// Chat, for a thread that sends ([`crate::Duplex`]): call [`crate::Hub::relieve`].
    Relieve,
    /// Shut the sending side down ([`Next::Shut`]).
    Shut,
    /// Close, for this reason.
    Close(&'static str),
}

impl Step {
    /// What a server counts when it takes this step.
    pub fn done(self) -> Done {
        let slow = self == Step::Cut(SENDQ_EXCEEDED);
        let late = matches!(self, Step::Cut(_)) && !slow || self == Step::Close(TIMED_OUT);
        Done { lines: 0, slow_cut: slow.into(), timed_out: late.into() }
    }
}

impl Session {
    /// What to do next, at `now`: [`Session::next`], [`Session::deadline`] and [`Session::expire`]
    /// in one question. `stuck` says that the last send has not taken all that was queued.
    pub fn step(&mut self, now: Time, outbox: &Outbox, stuck: bool) -> Step {
        loop {
            let read = match self.next(now, outbox) {
                Next::Serve { read } => read,
                Next::Shut => return Step::Shut,
                Next::Close(reason) => return Step::Close(reason),
            };

            let deadline = self.deadline(outbox);
            if deadline <= now {
                match self.expire(now, outbox) {
                    // The deadline has moved, or the session has: ask again.
                    Due::Later | Due::Close => continue,
                    Due::Resume => return Step::Resume,
                    Due::Ping => return Step::Ping,
                    Due::Cut(reason) => return Step::Cut(reason),
                }
            }

            return match (outbox.is_empty(), read) {
                (true, true) => Step::Receive(deadline),
                (true, false) => Step::Pause(deadline),
                (false, true) if stuck => Step::ReceiveNow,
                (false, _) => Step::Send,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;
    use std::sync::Arc;

    use crate::{ConnId, Hub, Input, Limits, Mode, Parcel, Settings};

    use super::*;

    const ID: ConnId = ConnId::from_bits(0);

    /// A session accepted at 0 that is given a second for everything, and its queue.
    fn session(mode: Mode) -> (Arc<Settings>, Session, Outbox) {
        let second = Duration::from_secs(1);
        let limits = Limits {
            idle_timeout: second,
            registration_timeout: second,
            ping_timeout: second,
            linger: second,
            sendq: 4000,
            sendq_grace: second,
            ..Limits::default()
        };
        let settings = Settings { mode, limits, ..Settings::default() };
        let settings = Arc::new(settings);
        let session = Session::new(&settings, Time::ZERO);
        (settings, session, Outbox::default())
    }

    /// A chat session that has registered.
    fn member() -> (Session, Outbox, Hub) {
        let (settings, mut session, mut outbox) = session(Mode::Chat);
        assert_eq!(session.post(Parcel::Welcome, Time::ZERO, &mut outbox), Ok(()));
        let mut hub = Hub::new(settings, 1);
        hub.open(ID, "host", Time::ZERO);
        (session, outbox, hub)
    }

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    fn text(len: usize) -> Parcel {
        Parcel::Text(vec![b'x'; len].into())
    }

    #[test]
    fn echo_receives_and_sends_in_turn() {
        let (_, mut session, mut outbox) = session(Mode::Echo);
        assert_eq!(session.step(at(0), &outbox, false), Step::Receive(at(1000)));
        assert_eq!(session.echo(Input::Received(b"a\n"), at(5), &mut outbox), 1);
        assert_eq!(session.step(at(5), &outbox, false), Step::Send);
        outbox.advance(2);
        assert_eq!(session.step(at(6), &outbox, false), Step::Receive(at(1005)));
    }

    #[test]
    fn echo_receives_what_has_come_while_the_socket_is_full_and_no_more_above_the_mark() {
        let (settings, mut session, mut outbox) = session(Mode::Echo);
        session.echo(Input::Received(b"a\n"), at(0), &mut outbox);
        assert_eq!(session.step(at(0), &outbox, true), Step::ReceiveNow);
        assert_eq!(session.step(at(0), &outbox, false), Step::Send);
        outbox.copy(&vec![b'\n'; settings.limits.high_water()]);
        assert_eq!(session.step(at(0), &outbox, true), Step::Send);
        outbox.advance(outbox.len());
        assert!(matches!(session.step(at(0), &outbox, true), Step::Receive(_)));
    }

    #[test]
    fn a_handler_that_waits_pauses_and_then_resumes() {
        let settings = Settings { wait: Duration::from_millis(5), ..Settings::default() };
        let mut session = Session::new(&Arc::new(settings), at(0));
        let mut outbox = Outbox::default();
        assert_eq!(session.echo(Input::Received(b"a\n"), at(0), &mut outbox), 0);
        assert_eq!(session.step(at(0), &outbox, false), Step::Pause(at(5)));
        assert_eq!(session.step(at(5), &outbox, false), Step::Resume);
        assert_eq!(session.echo(Input::Resume, at(5), &mut outbox), 1);
        assert_eq!(session.step(at(5), &outbox, false), Step::Send);
    }

    #[test]
    fn echo_closes_when_the_stream_has_ended_and_all_is_sent() {
        let (_, mut session, mut outbox) = session(Mode::Echo);
        session.echo(Input::Received(b"a\n"), at(0), &mut outbox);
        session.echo(Input::Received(&[]), at(0), &mut outbox);
        assert_eq!(session.step(at(0), &outbox, true), Step::Send);
        outbox.advance(2);
        let step = session.step(at(0), &outbox, false);
        assert_eq!(step, Step::Close("Connection closed"));
        assert_eq!(step.done(), Done::default());
    }

    #[test]
    fn a_silent_echo_client_is_closed_and_counted_once() {
        let (_, mut session, outbox) = session(Mode::Echo);
        let step = session.step(at(1000), &outbox, false);
        assert_eq!(step, Step::Close("Timed out"));
        assert_eq!(step.done(), Done { timed_out: 1, ..Done::default() });
    }

    #[test]
    fn an_echo_client_that_takes_nothing_is_tried_once_more() {
        let (_, mut session, mut outbox) = session(Mode::Echo);
        session.echo(Input::Received(b"a\n"), at(0), &mut outbox);
        assert_eq!(session.step(at(0), &outbox, false), Step::Send);
        assert_eq!(session.step(at(1000), &outbox, true), Step::Resume);
        assert_eq!(session.echo(Input::Resume, at(1000), &mut outbox), 0);
        assert_eq!(session.step(at(1000), &outbox, true), Step::Close("Timed out"));
    }

    #[test]
    fn an_echo_client_that_takes_its_replies_is_not_silent() {
        let (_, mut session, mut outbox) = session(Mode::Echo);
        session.echo(Input::Received(b"abc\n"), at(0), &mut outbox);
        assert_eq!(session.step(at(0), &outbox, false), Step::Send);
        outbox.advance(2);
        assert_eq!(session.step(at(1000), &outbox, true), Step::ReceiveNow);
        assert_eq!(session.step(at(1999), &outbox, false), Step::Send);
        assert_eq!(session.step(at(2000), &outbox, true), Step::Resume);
    }

    #[test]
    fn an_echo_server_that_stops_ends_its_side_once_and_lingers() {
        let (_, mut session, outbox) = session(Mode::Echo);
        session.stop(true, &outbox);
        assert_eq!(session.step(at(0), &outbox, false), Step::Shut);
        assert_eq!(session.step(at(0), &outbox, false), Step::Receive(at(1000)));
        let step = session.step(at(1000), &outbox, false);
        assert_eq!(step, Step::Close("Timed out"));
    }

    #[test]
    fn an_idle_echo_client_is_closed_when_the_server_stops() {
        let (_, mut session, outbox) = session(Mode::Echo);
        session.stop(false, &outbox);
        assert_eq!(session.step(at(0), &outbox, false), Step::Close("Server shutting down"));
    }

    #[test]
    fn a_silent_member_is_pinged_and_then_cut_and_no_deadline_counts_until_its_last_words() {
        let (mut session, mut outbox, _) = member();
        assert_eq!(session.step(at(0), &outbox, true), Step::Receive(at(1000)));
        assert_eq!(session.step(at(1000), &outbox, true), Step::Ping);
        assert_eq!(session.step(at(1000), &outbox, true), Step::Receive(at(2000)));
        let step = session.step(at(2000), &outbox, false);
        assert_eq!(step, Step::Cut("Ping timeout"));
        assert_eq!(step.done(), Done { timed_out: 1, ..Done::default() });
        assert_eq!(session.step(at(9000), &outbox, true), Step::Receive(Time::NEVER));

        let last = Parcel::Close(b"bye\r\n"[..].into());
        assert_eq!(session.post(last, at(9000), &mut outbox), Ok(()));
        assert_eq!(session.step(at(9000), &outbox, true), Step::Send);
        outbox.advance(5);
        assert_eq!(session.step(at(9000), &outbox, false), Step::Shut);
        assert_eq!(session.step(at(9000), &outbox, true), Step::Receive(at(10_000)));
        assert_eq!(session.step(at(10_000), &outbox, true), Step::Close("Timed out"));
    }

    #[test]
    fn a_client_that_does_not_register_is_cut() {
        let (_, mut session, outbox) = session(Mode::Chat);
        let step = session.step(at(1000), &outbox, false);
        assert_eq!(step, Step::Cut("Registration timed out"));
    }

    #[test]
    fn a_member_that_reads_too_slowly_is_cut_and_counted_as_slow() {
        let (mut session, mut outbox, mut hub) = member();
        assert_eq!(session.post(text(1500), at(0), &mut outbox), Ok(()));
        // It speaks, so that it is not silent.
        session.chat(Input::Received(b"x\n"), at(900), &outbox, ID, &mut hub);
        let step = session.step(at(1000), &outbox, true);
        assert_eq!(step, Step::Cut(SENDQ_EXCEEDED));
        assert_eq!(step.done(), Done { slow_cut: 1, ..Done::default() });
    }

    #[test]
    fn what_the_sender_has_taken_still_counts() {
        let (mut session, mut outbox, _) = member();
        assert_eq!(session.post(text(100), at(0), &mut outbox), Ok(()));
        let mut batch = outbox.take();
        assert_eq!(session.step(at(0), &outbox, false), Step::Send);
        assert_eq!(session.step(at(0), &outbox, true), Step::ReceiveNow);
        batch.advance(100);
        assert!(outbox.take().is_empty());
        assert_eq!(session.step(at(0), &outbox, false), Step::Receive(at(1000)));
    }

    #[test]
    fn a_member_that_has_not_read_its_answers_waits_for_the_sender_and_then_resumes() {
        let (mut session, mut outbox, mut hub) = member();
        assert_eq!(session.post(text(1500), at(0), &mut outbox), Ok(()));
        session.chat(Input::Received(b"x\n"), at(0), &outbox, ID, &mut hub);
        assert_eq!(session.step(at(0), &outbox, true), Step::Send);
        outbox.advance(1500);
        assert_eq!(session.step(at(0), &outbox, true), Step::Resume);
    }
}
