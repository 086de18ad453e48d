//! What an operator is told of a connection: its queue, and in echo its end ([`crate::Watch`]).

use super::{CONNECTION_RESET, Ending, Kind, Session};
use crate::Outbox;

/// How many bytes have been told to wait. (Small: each connection has one.)
#[derive(Clone, Copy, Default)]
pub(super) struct Told(u32);

impl Session {
    /// Tells how much waits for the peer, where that has changed by much. This stands in the way of
    /// every message: while little waits, there is nothing to tell.
    #[inline]
    pub(super) fn tell_queue(&mut self, outbox: &Outbox) {
        let len = outbox.len();
        if self.told.0 > 0 || len >= self.told_step() {
            self.tell_change(len);
        }
    }

    /// The least change that is told.
    fn told_step(&self) -> usize {
        self.settings.limits.sendq / 64
    }

    fn tell_change(&mut self, len: usize) {
        // No queue is that long.
        let now = u32::try_from(len).unwrap_or(u32::MAX);
        let (before, mark) = (self.told.0, self.settings.limits.high_water());
        let [was_slow, slow] = [before, now].map(|bytes| bytes as usize > mark);
        if now > 0 && (now.abs_diff(before) as usize) < self.told_step() && slow == was_slow {
            return;
        }
        self.told = Told(now);
        let Some(watch) = &self.settings.watch else { return };
        watch.queue(before as usize, now as usize);
        if slow != was_slow {
            watch.slow(slow);
        }
    }

    /// Echo: tells why the connection ends. Only the first call counts.
    pub(crate) fn tell_end(&mut self, reason: &str) {
        if let Kind::Echo(echo) = &mut self.kind
            && let Some(peer) = echo.peer.take()
            && let Some(watch) = &self.settings.watch
        {
            watch.ended(&peer.0, reason);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.told.0 > 0 {
            self.tell_change(0);
        }
        match self.ending {
            Ending::Over(reason) => self.tell_end(reason),
            // It was no end of the protocol's: its socket has failed.
            _ => self.tell_end(CONNECTION_RESET),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use crate::{
        Connections, Due, Duplex, Gone, Input, Limits, Mode, Next, Outbox, Parcel, Session,
        Settings, Time, Watch,
    };

    /// What has been told, summed up.
    #[derive(Debug, Default)]
    struct Sums(Mutex<(usize, usize, usize)>);

    impl Watch for Sums {
        fn queue(&self, before: usize, now: usize) {
            let mut sums = self.0.lock().unwrap();
            sums.0 = sums.0 + now - before;
            sums.2 += 1;
        }

        fn slow(&self, is: bool) {
            let mut sums = self.0.lock().unwrap();
            sums.1 = if is { sums.1 + 1 } else { sums.1 - 1 };
        }

        fn registered(&self) {}

        fn gone(&self, _: &Gone<'_>) {}
    }

    #[test]
    fn a_queue_is_told_in_steps_and_forgotten_with_its_connection() {
        let sums = Arc::new(Sums::default());
        let limits = Limits { sendq: 6_400, ..Limits::default() };
        let watch: Arc<dyn Watch> = Arc::clone(&sums) as Arc<dyn Watch>;
        let settings = Settings { mode: Mode::Chat, limits, ..Settings::default() };
        let settings = Arc::new(Settings { watch: Some(watch), ..settings });
        let mut session = Session::new(&settings, Time::ZERO);
        let mut outbox = Outbox::default();
        let post = |session: &mut Session, outbox: &mut Outbox, len: usize| {
            let text = Parcel::Text(vec![b'x'; len].into());
            assert!(session.post(text, Time::ZERO, outbox).is_ok());
            let _ = session.next(Time::ZERO, outbox);
            *sums.0.lock().unwrap()
        };
        assert_eq!(post(&mut session, &mut outbox, 99), (0, 0, 0), "less than a step");
        outbox.advance(99);
        assert_eq!(post(&mut session, &mut outbox, 100), (100, 0, 1));
        assert_eq!(post(&mut session, &mut outbox, 99), (100, 0, 1), "a little more");
        assert_eq!(post(&mut session, &mut outbox, 1_401), (1_600, 0, 2));
        assert_eq!(post(&mut session, &mut outbox, 1), (1_601, 1, 3), "over the soft limit");
        outbox.advance(1_600);
        let _ = session.next(Time::ZERO, &outbox);
        assert_eq!(*sums.0.lock().unwrap(), (1, 0, 4));
        outbox.advance(1);
        let _ = session.next(Time::ZERO, &outbox);
        assert_eq!(*sums.0.lock().unwrap(), (0, 0, 5), "nothing waits");
        let mut other = Session::new(&settings, Time::ZERO);
        let mut full = Outbox::default();
        let _ = other.post(Parcel::Text(vec![b'x'; 6_000].into()), Time::ZERO, &mut full);
        assert_eq!(*sums.0.lock().unwrap(), (6_000, 1, 6));
        drop(other);
        assert_eq!(*sums.0.lock().unwrap(), (0, 0, 7));
    }

    #[test]
    fn of_a_queue_that_is_always_empty_nothing_is_told() {
        let sums = Arc::new(Sums::default());
        let watch: Arc<dyn Watch> = Arc::clone(&sums) as Arc<dyn Watch>;
        let settings = Arc::new(Settings { watch: Some(watch), ..Settings::default() });
        let mut session = Session::new(&settings, Time::ZERO);
        let _ = session.next(Time::ZERO, &Outbox::default());
        drop(session);
        assert_eq!(*sums.0.lock().unwrap(), (0, 0, 0));
    }

    /// The ends that have been told.
    #[derive(Debug, Default)]
    struct Ends(Mutex<Vec<String>>);

    impl Watch for Ends {
        fn queue(&self, _: usize, _: usize) {}

        fn slow(&self, _: bool) {}

        fn registered(&self) {}

        fn gone(&self, _: &Gone<'_>) {}

        fn follows_ends(&self) -> bool {
            true
        }

        fn ended(&self, peer: &str, reason: &str) {
            self.0.lock().unwrap().push(format!("{peer}: {reason}"));
        }
    }

    fn watched(mode: Mode) -> (Arc<Ends>, Arc<Settings>) {
        let ends = Arc::new(Ends::default());
        let watch: Arc<dyn Watch> = Arc::clone(&ends) as Arc<dyn Watch>;
        (ends, Arc::new(Settings { mode, watch: Some(watch), ..Settings::default() }))
    }

    #[test]
    fn the_end_of_an_echo_client_is_told_once_with_its_reason() {
        let (ends, settings) = watched(Mode::Echo);
        let mut outbox = Outbox::default();
        let mut closed = Session::new(&settings, Time::ZERO).of("closed");
        closed.echo(Input::Received(&[]), Time::ZERO, &mut outbox);
        assert_eq!(closed.next(Time::ZERO, &outbox), Next::Close("Connection closed"));
        let mut idle = Session::new(&settings, Time::ZERO).of("idle");
        let late = Time::ZERO + settings.limits.idle_timeout;
        assert_eq!(idle.expire(late, &outbox), Due::Close);
        let mut stopped = Session::new(&settings, Time::ZERO).of("stopped");
        stopped.stop(false, &outbox);
        assert_eq!(stopped.next(Time::ZERO, &outbox), Next::Close("Server shutting down"));
        let mut talking = Session::new(&settings, Time::ZERO).of("talking");
        talking.stop(true, &outbox);
        assert_eq!(talking.next(Time::ZERO, &outbox), Next::Shut);
        talking.echo(Input::Received(&[]), Time::ZERO, &mut outbox);
        assert_eq!(talking.next(Time::ZERO, &outbox), Next::Close("Server shutting down"));
        let lost = Session::new(&settings, Time::ZERO).of("lost");
        let unregistered = Session::new(&settings, Time::ZERO);
        for session in [closed, idle, stopped, talking, lost, unregistered] {
            drop(session);
        }
        let mut conns = Connections::new(&settings, 0);
        let id = conns.open((), "refused", Time::ZERO, None);
        drop(conns.close(id, "Out of memory", None));
        let expected = [
            "closed: Connection closed",
            "idle: Timed out",
            "stopped: Server shutting down",
            "talking: Server shutting down",
            "lost: Connection reset",
            "refused: Out of memory",
        ];
        assert_eq!(*ends.0.lock().unwrap(), expected);
    }

    #[test]
    fn the_end_of_a_client_that_several_threads_serve_is_told() {
        let (ends, settings) = watched(Mode::Echo);
        drop(Duplex::new(&settings, Time::ZERO).of("shared"));
        assert_eq!(*ends.0.lock().unwrap(), ["shared: Connection reset"]);
    }

    #[test]
    fn who_does_not_follow_ends_is_not_told_of_them() {
        assert!(!Sums::default().follows_ends());
    }

    #[test]
    fn the_hub_alone_tells_the_end_of_a_member() {
        let (ends, settings) = watched(Mode::Chat);
        drop(Session::new(&settings, Time::ZERO).of("a"));
        assert_eq!(ends.0.lock().unwrap().len(), 0);
    }
}
