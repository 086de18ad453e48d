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
    /// Told once, when the last byte has been written: shut the sending side down, then read and
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
    /// Echo: when the last whole line came. Chat: when the last byte came.
    heard: Time,
    /// When what is held back goes on; [`Time::NEVER`] when nothing is.
    resume_at: Time,
    /// When the registration, or the closing, must be over.
    until: Time,
    /// Chat: when the lines that came so far are paid for, at one per interval.
    paid_at: Time,
    /// Chat: since when the member has been over its ration.
    flooding: Option<Time>,
    phase: Phase,
    ended: bool,
    paused: bool,
    pinged: bool,
    registered: bool,
    /// Chat: the first line has been looked at.
    greeted: bool,
    /// Chat: the hub has been told that no more lines come.
    deaf: bool,
    /// Chat: the queue was full, and only the last words are still queued.
    full: bool,
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
            resume_at: Time::NEVER,
            until,
            paid_at: now,
            flooding: None,
            phase: Phase::Open,
            ended: false,
            paused: false,
            pinged: false,
            registered: false,
            greeted: false,
            deaf: false,
            full: false,
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
            self.heard = now;
        }
        handled
    }

    /// Chat: bytes from the peer, or none to go on with what was held back. Gives what the hub
    /// must hear to `hear`, for [`crate::Hub::line`]. Returns how many lines were handled.
    pub fn chat(&mut self, input: &[u8], now: Time, mut hear: impl FnMut(Line<'_>)) -> u64 {
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
        while !self.over_ration(rest, now) {
            let Some(line) = self.lines.next(&mut rest, Limits::CHAT_LINE) else { break };
            handled += 1;
            self.paid_at = self.paid_at.max(now) + self.settings.limits.flood_interval;
            let first = !core::mem::replace(&mut self.greeted, true);
            match line {
                Line::Whole(bytes) if first && is_http(bytes) => {
                    self.deaf = true;
                    hear(Line::Refused("This is not a web server"));
                    return handled;
                }
                Line::Whole(bytes) => hear(Line::Whole(without_terminator(bytes))),
                other => hear(other),
            }
        }
        let half = self.settings.limits.flood_interval * (self.settings.limits.flood_burst / 2);
        if self.paid_at <= now + half {
            self.flooding = None;
        }
        self.judge_rest(now, hear);
        handled
    }

    /// What `chat` says after the last line that could be handled for now.
    fn judge_rest(&mut self, now: Time, mut hear: impl FnMut(Line<'_>)) {
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

    /// The peer has ended its stream, or the server stops: no more bytes come. Call
    /// [`Session::echo`] or [`Session::chat`] with no bytes afterwards.
    pub fn end(&mut self) {
        self.ended = true;
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
        match self.phase {
            Phase::Open => {
                let held = self.resume_at != Time::NEVER;
                let echo = self.settings.mode == Mode::Echo;
                if echo && self.ended && !held && outbox.is_empty() {
                    return Next::Close;
                }
                let mark = if self.paused { limits.low_water() } else { limits.high_water() };
                self.paused = outbox.len() > mark;
                Next::Serve { read: !(self.ended || self.paused || held) }
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
            return Due::Close;
        }
        if now >= self.resume_at {
            return Due::Resume;
        }
        if self.settings.mode == Mode::Echo {
            return Due::Close;
        }
        if now >= outbox.deadline(&self.settings.limits) {
            self.full = true;
            return Due::Cut("SendQ exceeded");
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
