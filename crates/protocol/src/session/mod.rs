//! One connection's side of the protocol: what its bytes mean and what its owner does next.
//!
//! A [`Session`] has four rooms: what has come and is not handled yet (`intake`), how many lines a
//! member may send (`ration`), how long the peer may be silent (`silence`), and how a connection
//! ends (`ending`). What only echo or only chat needs stands apart, in [`Kind`].

mod duplex;
mod ending;
mod intake;
mod ration;
mod silence;
mod step;
#[cfg(test)]
mod tests;
mod told;

use core::fmt;
use std::sync::Arc;

pub use self::duplex::{Duplex, Posted};
use self::ending::Ending;
pub use self::intake::Input;
use self::intake::{Held, Intake, Source};
use self::ration::Ration;
use self::silence::{ChatSilence, EchoSilence};
pub use self::step::Step;
use self::told::Told;
use crate::{ConnId, Full, Hub, Limits, Line, LineLimit, Mode, Outbox, Parcel, Settings, Time};

/// What the owner of a connection does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Write what is queued; read only if `read`.
    Serve {
        /// Whether to read: false above the high-water mark, while lines are held back, while a
        /// member is over its ration, and after the end of the stream.
        read: bool,
    },
    /// Told once, when the last byte has been written, to a member, and to the client of an echo
    /// server that may have been sending when the server was told to stop: shut the sending side
    /// down, then read and discard until the peer has ended its stream too. Closing at once would
    /// send a reset if the peer is still sending, and a reset can destroy the last words on their
    /// way.
    Shut,
    /// Close, and tell those who share a channel with the member this reason.
    Close(&'static str),
}

/// What a passed deadline asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing yet: the deadline has moved. Set it again.
    Later,
    /// Call [`Session::echo`] or [`Session::chat`] with [`Input::Resume`]: what was held back may
    /// go on.
    Resume,
    /// Chat: call [`Hub::ping`].
    Ping,
    /// Chat: call [`Hub::cut`] with this reason.
    Cut(&'static str),
    /// Close: [`Session::next`] says so from now on.
    Close,
}

/// Why a member is cut that does not read.
pub const SENDQ_EXCEEDED: &str = "SendQ exceeded";

/// Where a session of chat says its lines: to the hub, or to what brings them there.
pub trait Hears {
    /// Takes note of how many bytes wait in the queue of `id`: its answers are the shorter for it.
    fn note_queue(&mut self, id: ConnId, bytes: usize);

    /// Whether there is room for a line of `id`. If not, [`Parcel::Resume`] tells when there is.
    fn has_room(&mut self, id: ConnId) -> bool;

    /// Hears one line of `id`. Returns whether there is room for another, as
    /// [`Hears::has_room`] does.
    fn line(&mut self, id: ConnId, line: Line<'_>, now: Time) -> bool;
}

impl Hears for Hub {
    fn note_queue(&mut self, id: ConnId, bytes: usize) {
        Hub::note_queue(self, id, bytes);
    }

    fn has_room(&mut self, id: ConnId) -> bool {
        Hub::has_room(self, id)
    }

    fn line(&mut self, id: ConnId, line: Line<'_>, now: Time) -> bool {
        Hub::line(self, id, line, now)
    }
}

/// The state of one connection, without its socket and its queue.
pub struct Session {
    settings: Arc<Settings>,
    intake: Intake,
    ending: Ending,
    /// The queue has been over the high-water mark, and not below the low one since.
    paused: bool,
    /// Echo: the server has been told to stop.
    stopped: bool,
    told: Told,
    kind: Kind,
}

/// What echo and chat do not share.
enum Kind {
    Echo(Echo),
    Chat(Chat),
}

struct Echo {
    silence: EchoSilence,
    /// Whose end is to be told ([`crate::Watch::ended`]), until it is.
    peer: Option<Box<Peer>>,
}

/// The name of a peer. It stands behind a pointer: most servers do not ask for it, and each
/// connection would be longer for it.
struct Peer(String);

struct Chat {
    hearing: Hearing,
    ration: Ration,
    silence: ChatSilence,
    /// The queue was full, and only the last words may still be queued.
    full: bool,
    /// The hub owes the answer to a line, and gives it when it hears the next.
    owed: bool,
}

/// What a line of a member is listened to for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hearing {
    /// The first line: a browser or a TLS client gives itself away by it.
    First,
    /// All others.
    Lines,
    /// The hub has been told that no more lines come.
    Nothing,
}

impl Session {
    /// The session of a connection accepted at `now`.
    #[must_use]
    pub fn new(settings: &Arc<Settings>, now: Time) -> Session {
        let kind = match settings.mode {
            Mode::Echo => {
                let silence = EchoSilence::new(now);
                Kind::Echo(Echo { silence, peer: None })
            }
            Mode::Chat => Kind::Chat(Chat {
                hearing: Hearing::First,
                ration: Ration::new(now),
                silence: ChatSilence::new(&settings.limits, now),
                full: false,
                owed: false,
            }),
        };
        let settings = Arc::clone(settings);
        let (intake, told) = (Intake::new(), Told::default());
        Session { settings, intake, ending: Ending::No, paused: false, stopped: false, told, kind }
    }

    /// Echo: says whose connection it is, for the log of its end ([`crate::Watch::ended`]). The hub
    /// of a chat tells of ends itself.
    #[must_use]
    pub fn of(mut self, peer: impl fmt::Display) -> Session {
        if let Kind::Echo(echo) = &mut self.kind
            && self.settings.watch.as_ref().is_some_and(|watch| watch.follows_ends())
        {
            echo.peer = Some(Box::new(Peer(peer.to_string())));
        }
        self
    }

    /// Echo: takes `input` and queues what comes back. Returns how many lines were handled.
    pub fn echo(&mut self, input: Input<'_>, now: Time, outbox: &mut Outbox) -> u64 {
        self.intake.note_end(input);
        if self.ending != Ending::No {
            return 0;
        }
        let Some(bytes) = self.intake.admit(input, self.settings.wait, now) else { return 0 };
        let handled = self.send_back(bytes, now, outbox);
        if let Kind::Echo(echo) = &mut self.kind
            && handled > 0
        {
            echo.silence.broken(now);
        }
        handled
    }

    /// Queues all whole lines of `bytes`, or as many as fit into one step.
    fn send_back(&mut self, bytes: &[u8], now: Time, outbox: &mut Outbox) -> u64 {
        let (limit, most) = (self.settings.limits.max_line, self.settings.step_lines);
        let mut handled = 0;
        let lines = &mut self.intake.lines;
        if most == u64::MAX {
            // The common case: all at once, without a look at each.
            let relayed = lines.relay(bytes, limit, |lines| {
                handled += lines.iter().filter(|&&byte| byte == b'\n').count() as u64;
                outbox.copy(lines);
            });
            if relayed {
                return handled;
            }
        }

        let mut rest = bytes;
        while handled < most {
            let Some(line) = lines.next(&mut rest, limit) else { return handled };
            handled += 1;
            match line {
                Line::Whole(bytes) => outbox.copy(bytes),
                _ => outbox.copy(b"ERR line too long\r\n"),
            }
        }
        self.intake.hold(rest, Held::Until(now));
        handled
    }

    /// Chat: takes `input` of the connection `id` and gives its lines to `hub`. `outbox` is only
    /// looked at: a member whose answers wait there is not asked for more lines. Returns how many
    /// were handled.
    pub fn chat(
        &mut self,
        input: Input<'_>,
        now: Time,
        outbox: &Outbox,
        id: ConnId,
        hub: &mut impl Hears,
    ) -> u64 {
        self.intake.note_end(input);
        let Kind::Chat(chat) = &mut self.kind else { return 0 };
        if self.ending != Ending::No || chat.hearing == Hearing::Nothing {
            return 0;
        }
        if let Input::Received([first, ..]) = input {
            chat.silence.broken(now);
            if chat.hearing == Hearing::First && *first == TLS_HANDSHAKE {
                chat.hearing = Hearing::Nothing;
                hub.line(id, Line::Refused("This is not a TLS port"), now);
                return 0;
            }
        }
        let Some(bytes) = self.intake.admit(input, self.settings.wait, now) else { return 0 };
        if outbox.len() > self.settings.limits.high_water() {
            self.intake.hold(bytes, Held::ForReader);
            return 0;
        }
        hub.note_queue(id, outbox.len());
        if !hub.has_room(id) {
            self.intake.hold(bytes, Held::ForRoom);
            return 0;
        }
        if core::mem::take(&mut chat.owed) && !hub.line(id, Line::Whole(b""), now) {
            self.intake.hold(bytes, Held::ForRoom);
            return 0;
        }
        self.say_lines(bytes, now, id, hub)
    }

    /// Gives the lines of `bytes` to the hub, until it has no room, the ration is used up, or as
    /// many have been handled as fit into one step.
    fn say_lines(&mut self, bytes: &[u8], now: Time, id: ConnId, hub: &mut impl Hears) -> u64 {
        let Kind::Chat(chat) = &mut self.kind else { return 0 };
        let (intake, limits) = (&mut self.intake, &self.settings.limits);
        let (mut rest, mut handled) = (bytes, 0);
        loop {
            let any = !rest.is_empty() || !intake.lines.is_empty();
            if any && handled >= self.settings.step_lines {
                intake.hold(rest, Held::Until(now));
                return handled;
            }
            if any && let Some(at) = chat.ration.empty_until(limits, now) {
                chat.ration.exceed(now);
                intake.hold(rest, Held::Until(at));
                break;
            }
            let Some(line) = intake.lines.next_of(&mut rest, CHAT_LINE) else { break };
            handled += 1;
            chat.ration.pay(limits, now);
            chat.owed = matches!(line, Line::Whole(bytes) if Hub::is_question(bytes));
            let first = core::mem::replace(&mut chat.hearing, Hearing::Lines) == Hearing::First;
            let room = match line {
                Line::Whole(bytes) if first && is_http(bytes) => {
                    chat.hearing = Hearing::Nothing;
                    hub.line(id, Line::Refused("This is not a web server"), now);
                    return handled;
                }
                Line::Whole(bytes) => hub.line(id, Line::Whole(without_terminator(bytes)), now),
                other => hub.line(id, other, now),
            };
            if chat.owed {
                // The answer is looked for when there has been time to find it, room or not.
                intake.hold(rest, Held::Until(now + Limits::OPER_DELAY));
                return handled;
            }
            if !room {
                intake.hold(rest, Held::ForRoom);
                return handled;
            }
        }
        chat.ration.settle(limits, now);
        self.judge_rest(now, id, hub);
        handled
    }

    /// Chat: what the hub hears after the last line that could be handled for now.
    fn judge_rest(&mut self, now: Time, id: ConnId, hub: &mut impl Hears) {
        let Kind::Chat(chat) = &mut self.kind else { return };
        let lines = &self.intake.lines;
        let waiting = lines.len().max(lines.skipping().unwrap_or(0));
        if let Some(reason) = chat.ration.refusal(&self.settings.limits, waiting, now) {
            chat.hearing = Hearing::Nothing;
            hub.line(id, Line::Refused(reason), now);
        } else if self.intake.source == Source::Ended && !self.intake.is_held() {
            chat.hearing = Hearing::Nothing;
            hub.line(id, Line::End, now);
        }
    }

    /// Echo: the server stops. `busy` says whether bytes are on their way, in either direction. A
    /// peer that is owed replies, has not taken them, or may be sending, gets what it has been
    /// promised, the end of the stream, and time to end its own. An idle one is closed at once.
    /// Only the first call counts.
    pub fn stop(&mut self, busy: bool, outbox: &Outbox) {
        self.stopped = true;
        let intake = &mut self.intake;
        if intake.source != Source::Open {
            return;
        }
        let waits = intake.is_held() || !intake.lines.is_empty();
        let owed = self.paused || !outbox.is_empty();
        intake.source = if busy || waits || owed { Source::Stopped } else { Source::Ended };
    }

    /// Chat: takes what the hub has sent to this connection.
    ///
    /// # Errors
    /// [`Full`], once, when the queue is over its limit: call [`Hub::cut`].
    pub fn post(&mut self, parcel: Parcel, now: Time, outbox: &mut Outbox) -> Result<(), Full> {
        let posted = self.take_in(parcel, now, outbox);
        self.tell_queue(outbox);
        posted
    }

    fn take_in(&mut self, parcel: Parcel, now: Time, outbox: &mut Outbox) -> Result<(), Full> {
        let Kind::Chat(chat) = &mut self.kind else { return Ok(()) };
        let limits = &self.settings.limits;
        match parcel {
            Parcel::Text(_) | Parcel::Overrun if chat.full => {}
            Parcel::Text(message) => {
                if outbox.share(message, limits, now).is_err() {
                    chat.full = true;
                    chat.silence.cut();
                    return Err(Full);
                }
            }
            Parcel::Overrun => {
                chat.full = true;
                chat.silence.cut();
                return Err(Full);
            }
            Parcel::Resume if self.intake.held == Held::ForRoom => {
                self.intake.held = Held::Until(now);
            }
            Parcel::Resume => {}
            Parcel::Welcome => chat.silence.registered(),
            Parcel::Close(last) => {
                if chat.full {
                    outbox.discard();
                }
                outbox.copy(&last);
                self.ending = Ending::LastWords { until: now + limits.linger };
            }
        }
        Ok(())
    }

    /// What to do with the socket now. Ask after every other call, and after writing.
    pub fn next(&mut self, now: Time, outbox: &Outbox) -> Next {
        self.tell_queue(outbox);
        if let Kind::Echo(echo) = &mut self.kind {
            echo.silence.note_queue(outbox);
        }
        match self.ending {
            Ending::No => self.next_open(now, outbox),
            Ending::LastWords { .. } if !outbox.is_empty() => Next::Serve { read: false },
            Ending::LastWords { until } => self.end_stream(until),
            Ending::Lingering { .. } if self.intake.source != Source::Ended => {
                Next::Serve { read: true }
            }
            Ending::Lingering { .. } => self.end_both(),
            Ending::Over(reason) => Next::Close(reason),
        }
    }

    fn next_open(&mut self, now: Time, outbox: &Outbox) -> Next {
        let limits = &self.settings.limits;
        let open = self.intake.source == Source::Open;
        let held = self.intake.is_held();
        let echo = matches!(self.kind, Kind::Echo(_));
        if echo && !open && !held && outbox.is_empty() {
            let until = now + limits.linger;
            return self.end_stream(until);
        }
        let mark = if self.paused { limits.low_water() } else { limits.high_water() };
        self.paused = outbox.len() > mark;
        if self.intake.held == Held::ForReader && !self.paused {
            self.intake.held = Held::Until(now);
        }
        Next::Serve { read: open && !self.paused && !held }
    }

    /// The last byte has been written.
    fn end_stream(&mut self, until: Time) -> Next {
        if self.intake.source == Source::Ended {
            return self.end_both();
        }
        self.ending = Ending::Lingering { until };
        Next::Shut
    }

    /// Both sides have ended their stream.
    fn end_both(&mut self) -> Next {
        let reason = if self.stopped { SHUTTING_DOWN } else { CONNECTION_CLOSED };
        self.ending = Ending::Over(reason);
        Next::Close(reason)
    }

    /// When to call [`Session::expire`]. It moves with every call; one that was earlier does no
    /// harm.
    #[must_use]
    pub fn deadline(&self, outbox: &Outbox) -> Time {
        let limits = &self.settings.limits;
        match (self.ending, &self.kind) {
            (Ending::LastWords { until } | Ending::Lingering { until }, _) => until,
            (Ending::Over(_), _) => Time::NEVER,
            (Ending::No, Kind::Echo(echo)) => {
                self.intake.deadline().min(echo.silence.deadline(limits))
            }
            (Ending::No, Kind::Chat(chat)) if chat.silence.is_cut() => Time::NEVER,
            (Ending::No, Kind::Chat(chat)) => {
                let silent = chat.silence.deadline(limits);
                self.intake.deadline().min(silent).min(outbox.deadline(limits))
            }
        }
    }

    /// Echo: whether the peer is given up by the next [`Session::expire`], unless a write shows
    /// that it takes the replies that wait. One that has waited for room since before shows
    /// nothing: a socket is said to have room only when much of its buffer is free.
    #[must_use]
    pub fn is_doubted(&self) -> bool {
        let Kind::Echo(echo) = &self.kind else { return false };
        self.ending == Ending::No && echo.silence.is_doubted()
    }

    /// What has become due by `now`. Call it again after [`Due::Resume`] or [`Due::Ping`] only
    /// when the next deadline has come.
    pub fn expire(&mut self, now: Time, outbox: &Outbox) -> Due {
        if now < self.deadline(outbox) {
            return Due::Later;
        }
        if self.ending == Ending::No && self.intake.deadline() <= now {
            return Due::Resume;
        }
        let due = match (self.ending, &mut self.kind) {
            (Ending::No, Kind::Echo(echo)) => echo.silence.expire(now, outbox),
            (Ending::No, Kind::Chat(chat)) => {
                if outbox.deadline(&self.settings.limits) <= now {
                    chat.full = true;
                    Due::Cut(SENDQ_EXCEEDED)
                } else {
                    chat.silence.expire(&self.settings.limits, now)
                }
            }
            _ => Due::Close,
        };
        match (due, &mut self.kind) {
            (Due::Close, _) => self.ending = Ending::Over(TIMED_OUT),
            (Due::Cut(_), Kind::Chat(chat)) => chat.silence.cut(),
            _ => {}
        }
        due
    }
}

/// The hub looks closer at a line with tags.
const CHAT_LINE: LineLimit =
    LineLimit { plain: Limits::CHAT_LINE, tagged: Limits::CHAT_TAGS + Limits::CHAT_LINE };

/// Why a connection ends when the server stops.
pub(crate) const SHUTTING_DOWN: &str = "Server shutting down";
const CONNECTION_CLOSED: &str = "Connection closed";
const CONNECTION_RESET: &str = "Connection reset";
const TIMED_OUT: &str = "Timed out";

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
