//! One connection's side of the protocol: what its bytes mean and what its owner does next.

use std::sync::Arc;

use crate::{Full, Limits, Line, Lines, Mode, Outbox, Parcel, Settings, Time};

/// What the owner of a connection does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Write what is queued; read only if `read`.
    Serve {
        /// Whether to read: false above the high-water mark, while a reply is held back, while a
        /// member is over its ration, and after the end of the stream.
        read: bool,
    },
    /// Told once, when the last byte has been written, to a member and to whoever was talking to an
    /// echo server when it was told to stop: shut the sending side down, then read and
    /// discard until the peer has ended its stream too. Closing at once would send a reset if the
    /// peer is still talking, and a reset can destroy the last words on their way.
    Shut,
    /// Close.
    Close,
}

/// What a passed deadline asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing yet: the deadline has moved. Set it again.
    Later,
    /// Call [`Session::echo`] or [`Session::chat`] with no bytes: what was held back may go on.
    Resume,
    /// Chat: call [`crate::Hub::ping`].
    Ping,
    /// Chat: call [`crate::Hub::cut`] with this reason.
    Cut(&'static str),
    /// Close.
    Close,
}

/// Why a member is cut that does not read.
pub const SENDQ_EXCEEDED: &str = "SendQ exceeded";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// The last bytes are queued.
    Closing,
    /// The sending side is shut.
    Shut,
}

/// The state of one connection, without its socket and its queue.
pub struct Session {
    settings: Arc<Settings>,
    lines: Lines,
    /// Echo: when the last whole line came, or the peer was seen to read. Chat: when the last
    /// byte came.
    heard: Time,
    /// Echo: what was queued then, once that has been asked for, and whether it has been tried
    /// to write since.
    owed: Option<usize>,
    tried: bool,
    /// When what is held back goes on; [`Time::NEVER`] when nothing is.
    resume_at: Time,
    /// When the registration, or the closing, must be over; [`Time::ZERO`] when the closing has
    /// begun and nobody has looked at the time since.
    until: Time,
    /// Chat: when the lines that came so far are paid for, at one per interval.
    paid_at: Time,
    /// Chat: since when the member has been over its ration.
    flooding: Option<Time>,
    phase: Phase,
    ended: bool,
    /// Echo: the server stops, and no more bytes are read, though the peer may send some.
    stopping: bool,
    paused: bool,
    pinged: bool,
    registered: bool,
    /// Chat: the first line has been looked at.
    greeted: bool,
    /// Chat: the hub has been told that no more lines come.
    deaf: bool,
    /// Chat: the queue was full, and only the last words are still queued.
    full: bool,
    /// Chat: the hub has no room for lines.
    waiting: bool,
}

impl Session {
    /// The session of a connection accepted at `now`.
    #[must_use]
    pub fn new(settings: &Arc<Settings>, now: Time) -> Session {
        let until = match settings.mode {
            Mode::Echo => Time::NEVER,
            Mode::Chat => now + settings.limits.registration_timeout,
        };
        Session {
            settings: Arc::clone(settings),
            lines: Lines::default(),
            heard: now,
            owed: None,
            tried: false,
            resume_at: Time::NEVER,
            until,
            paid_at: now,
            flooding: None,
            phase: Phase::Open,
            ended: false,
            stopping: false,
            paused: false,
            pinged: false,
            registered: false,
            greeted: false,
            deaf: false,
            full: false,
            waiting: false,
        }
    }

    /// Echo: bytes from the peer, or none to go on with what was held back. Queues what comes
    /// back. Returns how many lines were handled.
    pub fn echo(&mut self, input: &[u8], now: Time, outbox: &mut Outbox) -> u64 {
        if self.phase != Phase::Open || self.holds_back(input, now) {
            return 0;
        }
        let limit = self.settings.limits.max_line;
        let mut handled = 0;
        let relayed = self.lines.relay(input, limit, |lines| {
            handled += lines.iter().filter(|&&byte| byte == b'\n').count() as u64;
            outbox.copy(lines);
        });
        let mut rest = if relayed { &[] } else { input };
        while !relayed && let Some(line) = self.lines.next(&mut rest, limit) {
            handled += 1;
            match line {
                Line::Whole(bytes) => outbox.copy(bytes),
                _ => outbox.copy(b"ERR line too long\r\n"),
            }
        }
        if handled > 0 {
            (self.heard, self.owed, self.tried) = (now, None, false);
        }
        handled
    }

    /// Chat: bytes from the peer, or none to go on with what was held back. Gives what the hub
    /// must hear to `hear`, for [`crate::Hub::line`], which says whether there is room for more.
    /// Returns how many lines were handled.
    pub fn chat(&mut self, input: &[u8], now: Time, mut hear: impl FnMut(Line<'_>) -> bool) -> u64 {
        if self.phase != Phase::Open || self.deaf {
            return 0;
        }
        if !input.is_empty() {
            self.heard = now;
            self.pinged = false;
        }
        if !self.greeted && input.first() == Some(&TLS_HANDSHAKE) {
            self.deaf = true;
            hear(Line::Refused("This is not a TLS port"));
            return 0;
        }
        if self.holds_back(input, now) {
            return 0;
        }
        let mut handled = 0;
        let mut rest = input;
        self.waiting = self.waiting || !hear(Line::Room);
        while !self.waiting && !self.over_ration(rest, now) {
            let Some(line) = self.lines.next(&mut rest, Limits::CHAT_LINE) else { break };
            handled += 1;
            self.paid_at = self.paid_at.max(now) + self.settings.limits.flood_interval;
            let first = !core::mem::replace(&mut self.greeted, true);
            self.waiting = !match line {
                Line::Whole(bytes) if first && is_http(bytes) => {
                    self.deaf = true;
                    hear(Line::Refused("This is not a web server"));
                    return handled;
                }
                Line::Whole(bytes) => hear(Line::Whole(without_terminator(bytes))),
                other => hear(other),
            };
        }
        if self.waiting {
            self.lines.hold(rest);
            return handled;
        }
        let half = self.settings.limits.flood_interval * (self.settings.limits.flood_burst / 2);
        if self.paid_at <= now + half {
            self.flooding = None;
        }
        self.judge_rest(now, hear);
        handled
    }

    /// What `chat` says after the last line that could be handled for now.
    fn judge_rest(&mut self, now: Time, mut hear: impl FnMut(Line<'_>) -> bool) {
        let limits = &self.settings.limits;
        let waiting = self.lines.len().max(self.lines.skipping().unwrap_or(0));
        let refusal = match self.flooding {
            Some(since) if now.after(since) > limits.flood_grace => Some("Excess Flood"),
            Some(_) if waiting > limits.max_recvq => Some("Excess Flood"),
            None if waiting > limits.max_recvq => Some("RecvQ exceeded"),
            _ => None,
        };
        if let Some(reason) = refusal {
            self.deaf = true;
            hear(Line::Refused(reason));
        } else if self.ended && self.resume_at == Time::NEVER {
            self.deaf = true;
            hear(Line::End);
        }
    }

    /// The peer has ended its stream: no more bytes come. Call [`Session::echo`] or
    /// [`Session::chat`] with no bytes afterwards.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Echo: the server stops, and there is input in the socket or not (`unread`). Whoever gets
    /// replies, or may be talking, gets what it has been promised, the end of the stream, and time
    /// to end the other side. Who is idle is closed at once. Call [`Session::echo`] with no bytes
    /// afterwards.
    pub fn stop(&mut self, unread: bool, outbox: &Outbox) {
        let held = self.resume_at != Time::NEVER || !self.lines.is_empty();
        if unread || held || self.paused || !outbox.is_empty() {
            self.stopping = true;
        } else {
            self.ended = true;
        }
    }

    /// Chat: takes what the hub has sent to this connection.
    ///
    /// # Errors
    /// [`Full`], once, when the queue is over its limit: call [`crate::Hub::cut`].
    pub fn post(&mut self, parcel: Parcel, now: Time, outbox: &mut Outbox) -> Result<(), Full> {
        match parcel {
            Parcel::Text(_) if self.full => {}
            Parcel::Text(message) => {
                let shared = outbox.share(message, &self.settings.limits, now);
                self.full = shared.is_err();
                return shared;
            }
            Parcel::Resume => {
                self.waiting = false;
                self.resume_at = now;
            }
            Parcel::Overrun if self.full => {}
            Parcel::Overrun => {
                self.full = true;
                return Err(Full);
            }
            Parcel::Welcome => {
                self.registered = true;
                self.until = Time::NEVER;
            }
            Parcel::Close(last) => {
                if self.full {
                    outbox.discard();
                }
                outbox.copy(&last);
                self.phase = Phase::Closing;
                self.until = now + self.settings.limits.linger;
            }
        }
        Ok(())
    }

    /// What to do with the socket now. Ask after every other call, and after writing.
    pub fn next(&mut self, outbox: &Outbox) -> Next {
        let limits = &self.settings.limits;
        self.owed.get_or_insert(outbox.len());
        match self.phase {
            Phase::Open => {
                let held = self.waiting || self.resume_at != Time::NEVER;
                let echo = self.settings.mode == Mode::Echo;
                let over = self.ended || self.stopping;
                if echo && over && !held && outbox.is_empty() {
                    self.phase = Phase::Closing;
                    self.until = Time::ZERO;
                    return self.next(outbox);
                }
                let mark = if self.paused { limits.low_water() } else { limits.high_water() };
                self.paused = outbox.len() > mark;
                Next::Serve { read: !(over || self.paused || held) }
            }
            Phase::Closing if !outbox.is_empty() => Next::Serve { read: false },
            Phase::Closing if !self.ended => {
                self.phase = Phase::Shut;
                Next::Shut
            }
            Phase::Shut if !self.ended => Next::Serve { read: true },
            Phase::Closing | Phase::Shut => Next::Close,
        }
    }

    /// When to call [`Session::expire`]. It moves with every call; one that was earlier does no
    /// harm.
    #[must_use]
    pub fn deadline(&self, outbox: &Outbox) -> Time {
        if self.phase != Phase::Open {
            return self.until;
        }
        let limits = &self.settings.limits;
        let mut silence = self.heard + limits.idle_timeout;
        if self.pinged {
            silence = silence + limits.ping_timeout;
        }
        self.resume_at.min(self.until).min(outbox.deadline(limits)).min(silence)
    }

    /// What has become due by `now`. Call it again after [`Due::Resume`] or [`Due::Ping`] only
    /// when the next deadline has come.
    pub fn expire(&mut self, now: Time, outbox: &Outbox) -> Due {
        if now < self.deadline(outbox) {
            return Due::Later;
        }
        if self.phase != Phase::Open {
            if self.until > Time::ZERO {
                return Due::Close;
            }
            self.until = now + self.settings.limits.linger;
            return Due::Later;
        }
        if now >= self.resume_at {
            return Due::Resume;
        }
        if self.settings.mode == Mode::Echo {
            return self.judge_silence(now, outbox);
        }
        if now >= outbox.deadline(&self.settings.limits) {
            self.full = true;
            return Due::Cut(SENDQ_EXCEEDED);
        }
        if !self.registered {
            return Due::Cut("Registration timed out");
        }
        if self.pinged {
            return Due::Cut("Ping timeout");
        }
        self.pinged = true;
        Due::Ping
    }

    /// Echo: while its replies wait, the server itself may be what does not read, so a peer that
    /// takes them is not silent. A socket is said to be writable only when much has gone, and so
    /// it is tried before the peer is given up.
    fn judge_silence(&mut self, now: Time, outbox: &Outbox) -> Due {
        let taken = self.owed.is_some_and(|owed| outbox.len() < owed);
        if taken && (self.tried || !outbox.is_empty()) {
            (self.heard, self.owed, self.tried) = (now, None, false);
            Due::Later
        } else if outbox.is_empty() || core::mem::replace(&mut self.tried, true) {
            Due::Close
        } else {
            Due::Resume
        }
    }

    /// `--wait`: what one read brings is answered that much later, and until then the connection
    /// is not read, as if its handler were waiting for a database. Keeps `input` and says true
    /// while it is so.
    fn holds_back(&mut self, input: &[u8], now: Time) -> bool {
        if self.resume_at != Time::NEVER {
            if now < self.resume_at {
                self.lines.hold(input);
                return true;
            }
            self.resume_at = Time::NEVER;
            return false;
        }
        let wait = self.settings.wait;
        if wait.is_zero() || !input.contains(&b'\n') {
            return false;
        }
        self.lines.hold(input);
        self.resume_at = now + wait;
        true
    }

    /// Flood control: a leaky bucket of `flood_burst` lines that refills by one each
    /// `flood_interval` (the generic cell rate algorithm: one instant is its whole state). Keeps
    /// `rest` until the next line may be paid for and says true when the bucket is empty.
    fn over_ration(&mut self, rest: &[u8], now: Time) -> bool {
        let limits = &self.settings.limits;
        let allowed = now + limits.flood_interval * limits.flood_burst.saturating_sub(1);
        if !limits.flood_control || self.paid_at <= allowed {
            return false;
        }
        if rest.is_empty() && self.lines.is_empty() {
            return false;
        }
        self.flooding.get_or_insert(now);
        self.resume_at = now + self.paid_at.after(allowed);
        self.lines.hold(rest);
        true
    }
}

/// The first byte of a TLS record that carries a handshake (RFC 8446, 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// Whether a browser is talking: a page must not be able to use it as a chat client.
fn is_http(line: &[u8]) -> bool {
    const METHODS: [&[u8]; 6] = [b"GET", b"POST", b"HEAD", b"PUT", b"OPTIONS", b"CONNECT"];
    let word = line.split(|byte| byte.is_ascii_whitespace()).next().unwrap_or_default();
    METHODS.contains(&word)
}

fn without_terminator(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    fn settings(mode: Mode, change: impl FnOnce(&mut Settings)) -> Arc<Settings> {
        let mut settings = Settings { mode, ..Settings::default() };
        change(&mut settings);
        Arc::new(settings)
    }

    fn content(outbox: &Outbox) -> String {
        String::from_utf8(outbox.slices().flatten().copied().collect()).expect("text")
    }

    /// What `chat` gives to the hub, as text.
    fn hear(session: &mut Session, input: &[u8], millis: u64) -> Vec<String> {
        let mut heard = Vec::new();
        session.chat(input, Time::from_millis(millis), |line| {
            heard.push(match line {
                Line::Whole(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                Line::TooLong => "<too long>".into(),
                Line::Refused(reason) => format!("<{reason}>"),
                Line::End => "<end>".into(),
                Line::Room => return true,
            });
            !heard.ends_with(&["no more".into()])
        });
        heard
    }

    fn text(text: &str) -> Parcel {
        Parcel::Text(Arc::from(text.as_bytes()))
    }

    #[test]
    fn echo_answers_an_overlong_line_in_its_place() {
        let settings = settings(Mode::Echo, |settings| settings.limits.max_line = 8);
        let mut session = Session::new(&settings, Time::ZERO);
        let mut outbox = Outbox::default();
        let handled = session.echo(b"one\ntoo long by far\r\ntwo\r\nunfi", Time::ZERO, &mut outbox);
        assert_eq!(handled, 3);
        assert_eq!(content(&outbox), "one\nERR line too long\r\ntwo\r\n");
    }

    #[test]
    fn echo_ends_when_every_reply_is_written() {
        let mut session = Session::new(&settings(Mode::Echo, |_| ()), Time::ZERO);
        let mut outbox = Outbox::default();
        session.echo(b"a\nb", Time::ZERO, &mut outbox);
        session.end();
        session.echo(b"", Time::ZERO, &mut outbox);
        assert_eq!(session.next(&outbox), Next::Serve { read: false });
        outbox.advance(2);
        assert_eq!(session.next(&outbox), Next::Close);
    }

    #[test]
    fn reading_stops_at_the_high_water_mark_and_goes_on_at_the_low() {
        let settings = settings(Mode::Echo, |settings| settings.limits.sendq = 1600);
        let mut session = Session::new(&settings, Time::ZERO);
        let mut outbox = Outbox::default();
        session.echo(&[b'\n'; 401], Time::ZERO, &mut outbox);
        assert_eq!(session.next(&outbox), Next::Serve { read: false });
        outbox.advance(300);
        assert_eq!(session.next(&outbox), Next::Serve { read: false });
        outbox.advance(1);
        assert_eq!(session.next(&outbox), Next::Serve { read: true });
    }

    #[test]
    fn a_wait_holds_replies_back_even_past_the_end() {
        let settings = settings(Mode::Echo, |settings| settings.wait = Duration::from_millis(5));
        let mut session = Session::new(&settings, Time::ZERO);
        let mut outbox = Outbox::default();
        assert_eq!(session.echo(b"a\nb\nc", Time::from_millis(1), &mut outbox), 0);
        assert_eq!(session.next(&outbox), Next::Serve { read: false });
        assert_eq!(session.deadline(&outbox), Time::from_millis(6));
        session.end();
        session.echo(b"", Time::from_millis(2), &mut outbox);
        assert_eq!(session.next(&outbox), Next::Serve { read: false });
        assert_eq!(session.expire(Time::from_millis(5), &outbox), Due::Later);
        assert_eq!(session.expire(Time::from_millis(6), &outbox), Due::Resume);
        assert_eq!(session.echo(b"", Time::from_millis(6), &mut outbox), 2);
        assert_eq!(content(&outbox), "a\nb\n");
        outbox.advance(4);
        assert_eq!(session.next(&outbox), Next::Close);
    }

    #[test]
    fn echo_without_a_whole_line_is_closed() {
        let settings =
            settings(Mode::Echo, |settings| settings.limits.idle_timeout = Duration::from_secs(1));
        let mut session = Session::new(&settings, Time::ZERO);
        let mut outbox = Outbox::default();
        session.echo(b"one\n", Time::from_millis(500), &mut outbox);
        outbox.advance(4);
        session.echo(b"byte by byte", Time::from_millis(1400), &mut outbox);
        assert_eq!(session.expire(Time::from_millis(1499), &outbox), Due::Later);
        assert_eq!(session.expire(Time::from_millis(1500), &outbox), Due::Close);
    }

    #[test]
    fn chat_gives_lines_without_their_ends_and_then_the_end() {
        let mut session = Session::new(&settings(Mode::Chat, |_| ()), Time::ZERO);
        assert_eq!(hear(&mut session, b"NICK a\r\nUSER", 0), ["NICK a"]);
        assert_eq!(hear(&mut session, b" a 0 * a\n\r\nx", 0), ["USER a 0 * a", ""]);
        session.end();
        assert_eq!(hear(&mut session, b"", 0), ["<end>"]);
        assert_eq!(hear(&mut session, b"", 0), [""; 0]);
    }

    #[test]
    fn a_browser_and_a_tls_client_are_refused_at_the_first_line_only() {
        let settings = settings(Mode::Chat, |_| ());
        let first = |input: &[u8]| hear(&mut Session::new(&settings, Time::ZERO), input, 0);
        for method in ["GET", "POST", "HEAD", "PUT", "OPTIONS", "CONNECT"] {
            let request = format!("{method} / HTTP/1.1\r\nNICK a\r\n");
            assert_eq!(first(request.as_bytes()), ["<This is not a web server>"]);
        }
        assert_eq!(first(b"\x16\x03\x01\x02\x00"), ["<This is not a TLS port>"]);
        assert_eq!(first(b"NICK a\r\nGET / HTTP/1.1\r\n"), ["NICK a", "GET / HTTP/1.1"]);
    }

    #[test]
    fn a_line_without_end_is_told_then_refused() {
        let settings = settings(Mode::Chat, |settings| settings.limits.max_recvq = 2000);
        let mut session = Session::new(&settings, Time::ZERO);
        assert_eq!(hear(&mut session, &[b'x'; 513], 0), ["<too long>"]);
        assert_eq!(hear(&mut session, &[b'x'; 1000], 0), [""; 0]);
        assert_eq!(hear(&mut session, &[b'x'; 1000], 0), ["<RecvQ exceeded>"]);
        assert_eq!(hear(&mut session, b"\nNICK a\n", 0), [""; 0]);
    }

    #[test]
    fn a_flood_is_slowed_and_one_that_goes_on_is_cut() {
        let settings = settings(Mode::Chat, |settings| {
            settings.limits.flood_burst = 3;
            settings.limits.flood_interval = Duration::from_millis(100);
            settings.limits.flood_grace = Duration::from_millis(250);
        });
        let mut session = Session::new(&settings, Time::ZERO);
        let outbox = Outbox::default();
        assert_eq!(hear(&mut session, b"1\n2\n3\n4\n5\n6\n7\n8\n", 0), ["1", "2", "3"]);
        assert_eq!(session.next(&outbox), Next::Serve { read: false });
        for (at, heard) in [(100, "4"), (200, "5")] {
            assert_eq!(session.deadline(&outbox), Time::from_millis(at));
            assert_eq!(session.expire(Time::from_millis(at), &outbox), Due::Resume);
            assert_eq!(hear(&mut session, b"", at), [heard]);
        }
        assert_eq!(hear(&mut session, b"", 300), ["6", "<Excess Flood>"]);
    }

    #[test]
    fn a_burst_within_the_ration_is_never_slowed() {
        let mut session = Session::new(&settings(Mode::Chat, |_| ()), Time::ZERO);
        for second in 0..100 {
            assert_eq!(hear(&mut session, b"a\nb\n", second * 1000).len(), 2);
            assert_eq!(session.next(&Outbox::default()), Next::Serve { read: true });
        }
    }

    #[test]
    fn a_bucket_that_is_empty_does_not_count_bytes_as_lines() {
        let settings = settings(Mode::Chat, |settings| settings.limits.flood_burst = 1);
        let mut session = Session::new(&settings, Time::ZERO);
        for byte in b"PRIVMSG #c :slowly typed" {
            assert_eq!(hear(&mut session, &[*byte], 0), [""; 0]);
            assert_eq!(session.next(&Outbox::default()), Next::Serve { read: true });
        }
        assert_eq!(hear(&mut session, b"\n", 0), ["PRIVMSG #c :slowly typed"]);
    }

    #[test]
    fn registration_then_silence_then_ping_then_cut() {
        let settings = settings(Mode::Chat, |settings| {
            settings.limits.registration_timeout = Duration::from_secs(1);
            settings.limits.idle_timeout = Duration::from_secs(10);
            settings.limits.ping_timeout = Duration::from_secs(5);
        });
        let mut session = Session::new(&settings, Time::ZERO);
        let mut outbox = Outbox::default();
        let due = |session: &mut Session, outbox: &Outbox, seconds: u64| {
            session.expire(Time::from_millis(seconds * 1000), outbox)
        };
        let late = Due::Cut("Registration timed out");
        assert_eq!(due(&mut Session::new(&settings, Time::ZERO), &outbox, 1), late);
        assert_eq!(session.post(Parcel::Welcome, Time::ZERO, &mut outbox), Ok(()));
        assert_eq!(due(&mut session, &outbox, 9), Due::Later);
        assert_eq!(due(&mut session, &outbox, 10), Due::Ping);
        assert_eq!(due(&mut session, &outbox, 14), Due::Later);
        assert_eq!(hear(&mut session, b"PONG\n", 14_000), ["PONG"]);
        assert_eq!(due(&mut session, &outbox, 15), Due::Later);
        assert_eq!(due(&mut session, &outbox, 24), Due::Ping);
        assert_eq!(due(&mut session, &outbox, 29), Due::Cut("Ping timeout"));
    }

    #[test]
    fn what_finds_no_room_waits_until_there_is() {
        let mut session = Session::new(&settings(Mode::Chat, |_| ()), Time::ZERO);
        let mut outbox = Outbox::default();
        assert_eq!(hear(&mut session, b"a\nno more\nb\nc", 0), ["a", "no more"]);
        assert_eq!(session.next(&outbox), Next::Serve { read: false });
        session.end();
        assert_eq!(hear(&mut session, b"", 1), [""; 0]);
        assert_eq!(session.expire(Time::from_millis(1), &outbox), Due::Later);
        let now = Time::from_millis(2);
        assert_eq!(session.post(Parcel::Resume, now, &mut outbox), Ok(()));
        assert_eq!(session.expire(now, &outbox), Due::Resume);
        assert_eq!(hear(&mut session, b"", 2), ["b", "<end>"]);
    }

    #[test]
    fn nothing_is_said_where_there_is_no_room() {
        let mut session = Session::new(&settings(Mode::Chat, |_| ()), Time::ZERO);
        let deaf = |line: Line<'_>| {
            assert_eq!(line, Line::Room);
            false
        };
        assert_eq!(session.chat(b"a\n", Time::ZERO, deaf), 0);
        assert_eq!(session.next(&Outbox::default()), Next::Serve { read: false });
    }

    #[test]
    fn mail_that_ran_over_is_told_once() {
        let mut session = Session::new(&settings(Mode::Chat, |_| ()), Time::ZERO);
        let mut outbox = Outbox::default();
        assert_eq!(session.post(Parcel::Overrun, Time::ZERO, &mut outbox), Err(Full));
        assert_eq!(session.post(Parcel::Overrun, Time::ZERO, &mut outbox), Ok(()));
        assert_eq!(session.post(text("lost\r\n"), Time::ZERO, &mut outbox), Ok(()));
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_full_queue_keeps_only_the_message_begun_and_the_last_words() {
        let settings = settings(Mode::Chat, |settings| settings.limits.sendq = 20);
        let mut session = Session::new(&settings, Time::ZERO);
        let mut outbox = Outbox::default();
        assert_eq!(session.post(text("12345678\r\n"), Time::ZERO, &mut outbox), Ok(()));
        assert_eq!(session.post(text("abcdefgh\r\n"), Time::ZERO, &mut outbox), Ok(()));
        outbox.advance(4);
        assert_eq!(session.post(text("too much\r\n"), Time::ZERO, &mut outbox), Err(Full));
        assert_eq!(session.post(text("x\r\n"), Time::ZERO, &mut outbox), Ok(()));
        let last = Parcel::Close(Arc::from(&b"ERROR :SendQ exceeded\r\n"[..]));
        assert_eq!(session.post(last, Time::ZERO, &mut outbox), Ok(()));
        assert_eq!(content(&outbox), "5678\r\nERROR :SendQ exceeded\r\n");
    }

    #[test]
    fn a_peer_that_takes_its_replies_is_not_silent() {
        let idle = Duration::from_millis(100);
        let settings = settings(Mode::Echo, |settings| settings.limits.idle_timeout = idle);
        let (mut session, mut outbox) = (Session::new(&settings, Time::ZERO), Outbox::default());
        session.echo(b"0123456789\n", Time::ZERO, &mut outbox);
        session.next(&outbox);
        outbox.advance(1);
        assert_eq!(session.expire(Time::from_millis(100), &outbox), Due::Later);
        session.next(&outbox);
        assert_eq!(session.deadline(&outbox), Time::from_millis(200));
        assert_eq!(session.expire(Time::from_millis(200), &outbox), Due::Resume);
        outbox.advance(1);
        assert_eq!(session.expire(Time::from_millis(200), &outbox), Due::Later);
        session.next(&outbox);
        assert_eq!(session.expire(Time::from_millis(300), &outbox), Due::Resume);
        assert_eq!(session.expire(Time::from_millis(300), &outbox), Due::Close);
        outbox.advance(9);
        assert_eq!(session.expire(Time::from_millis(300), &outbox), Due::Later);
        session.next(&outbox);
        assert_eq!(session.expire(Time::from_millis(400), &outbox), Due::Close);
    }

    #[test]
    fn a_stop_closes_the_idle_and_lingers_with_who_talks() {
        let settings = settings(Mode::Echo, |_| ());
        let mut outbox = Outbox::default();
        let mut idle = Session::new(&settings, Time::ZERO);
        idle.stop(false, &outbox);
        assert_eq!(idle.next(&outbox), Next::Close);

        let mut talking = Session::new(&settings, Time::ZERO);
        talking.stop(true, &outbox);
        assert_eq!(talking.next(&outbox), Next::Shut);

        let mut owed = Session::new(&settings, Time::ZERO);
        owed.echo(b"one\n", Time::ZERO, &mut outbox);
        owed.stop(false, &outbox);
        assert_eq!(owed.next(&outbox), Next::Serve { read: false });
        outbox.advance(4);
        assert_eq!(owed.next(&outbox), Next::Shut);
        assert_eq!(owed.next(&outbox), Next::Serve { read: true });
        // Its time begins when the last byte has been written, however long that took.
        let end = Time::from_millis(60_000);
        assert_eq!(owed.expire(end, &outbox), Due::Later);
        assert_eq!(owed.echo(b"two\n", end, &mut outbox), 0);
        assert_eq!(owed.next(&outbox), Next::Serve { read: true });
        assert_eq!(owed.deadline(&outbox), end + settings.limits.linger);
        assert_eq!(owed.expire(end + settings.limits.linger, &outbox), Due::Close);
        owed.end();
        assert_eq!(owed.next(&outbox), Next::Close);
    }

    #[test]
    fn a_stop_answers_what_a_handler_waits_for() {
        let settings = settings(Mode::Echo, |settings| settings.wait = Duration::from_millis(5));
        let (mut session, mut outbox) = (Session::new(&settings, Time::ZERO), Outbox::default());
        session.echo(b"one\n", Time::ZERO, &mut outbox);
        session.stop(false, &outbox);
        assert_eq!(session.next(&outbox), Next::Serve { read: false });
        session.echo(b"", Time::from_millis(5), &mut outbox);
        assert_eq!(content(&outbox), "one\n");
        outbox.advance(4);
        assert_eq!(session.next(&outbox), Next::Shut);
    }

    #[test]
    fn a_closing_lets_the_peer_read_its_last_words() {
        let mut session = Session::new(&settings(Mode::Chat, |_| ()), Time::ZERO);
        let mut outbox = Outbox::default();
        let last = Parcel::Close(Arc::from(&b"ERROR :bye\r\n"[..]));
        assert_eq!(session.post(last, Time::ZERO, &mut outbox), Ok(()));
        assert_eq!(session.next(&outbox), Next::Serve { read: false });
        outbox.advance(12);
        assert_eq!(session.next(&outbox), Next::Shut);
        assert_eq!(session.next(&outbox), Next::Serve { read: true });
        assert_eq!(hear(&mut session, b"more\n", 0), [""; 0]);
        assert_eq!(session.expire(Time::from_millis(4999), &outbox), Due::Later);
        assert_eq!(session.expire(Time::from_millis(5000), &outbox), Due::Close);
        session.end();
        assert_eq!(session.next(&outbox), Next::Close);
    }
}
