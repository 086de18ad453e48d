//! What has come from the peer and is not handled yet.

use core::time::Duration;

use crate::{Lines, Time};

/// What the owner of a connection tells its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input<'a> {
    /// What `read` gave: bytes or, as `read` says it by giving none, the end of the stream.
    Received(&'a [u8]),
    /// Nothing new, but what was held back may go on: [`crate::Due::Resume`],
    /// [`crate::Step::Resume`].
    Resume,
}

/// Why lines that have come are not handled yet. While they are held, the connection is not read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// They are not held: each line is handled as it comes.
    No,
    /// Until this instant: for `--wait`, for the ration of a member, or because as many lines have
    /// been handled as fit into one step.
    Until(Time),
    /// Chat: until the hub, which has no room for lines, says that it has:
    /// [`crate::Parcel::Resume`].
    ForRoom,
    /// Chat: until the member has read the answers that wait in its queue.
    ForReader,
}

/// Whether more bytes are to come.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// They may come at any time.
    Open,
    /// Echo: the server stops. The peer may send more, and it is not read.
    Stopped,
    /// The peer has ended its stream, or is treated as if it had.
    Ended,
}

/// Framing, what is held back before it, and the state of the stream behind it.
pub(super) struct Intake {
    pub(super) lines: Lines,
    pub(super) held: Held,
    pub(super) source: Source,
}

impl Intake {
    pub(super) fn new() -> Intake {
        Intake { lines: Lines::default(), held: Held::No, source: Source::Open }
    }

    /// Remembers the end of the stream, if `input` is that.
    pub(super) fn note_end(&mut self, input: Input<'_>) {
        if input == Input::Received(&[]) {
            self.source = Source::Ended;
        }
    }

    /// The bytes to handle now, behind what `lines` holds. `None`: all of it has to wait, and
    /// `input` has been put to the rest.
    ///
    /// `--wait`: what one read brings is answered that much later, as if its handler were waiting
    /// for a database.
    pub(super) fn admit<'a>(
        &mut self,
        input: Input<'a>,
        wait: Duration,
        now: Time,
    ) -> Option<&'a [u8]> {
        let bytes = match input {
            Input::Received(bytes) => bytes,
            Input::Resume => &[],
        };
        match self.held {
            Held::No if wait.is_zero() || !bytes.contains(&b'\n') => Some(bytes),
            Held::No => {
                self.hold(bytes, Held::Until(now + wait));
                None
            }
            Held::Until(at) if at <= now => {
                self.held = Held::No;
                Some(bytes)
            }
            held => {
                self.hold(bytes, held);
                None
            }
        }
    }

    /// Keeps `rest`, which stands behind what `lines` has, and says why.
    pub(super) fn hold(&mut self, rest: &[u8], why: Held) {
        self.lines.hold(rest);
        self.held = why;
    }

    pub(super) fn is_held(&self) -> bool {
        self.held != Held::No
    }

    /// When what is held may go on by itself.
    pub(super) fn deadline(&self) -> Time {
        match self.held {
            Held::Until(at) => at,
            Held::No | Held::ForRoom | Held::ForReader => Time::NEVER,
        }
    }
}
