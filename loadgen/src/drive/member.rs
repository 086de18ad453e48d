//! A member of a chat: its connection, and how it gets into its channel.

use rustix::fd::OwnedFd;

use super::faults::Fault;
use super::window::Window;
use crate::base::text::quoted;

/// The longest line that is looked for, its tag and its end included, in bytes: the protocol's, and
/// room for the time of the message.
pub(super) const MAX_LINE: usize = 1024;

/// How far a member is in getting into its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Registering,
    Welcomed,
    Joined,
}

impl Stage {
    /// What has not come to pass for a member that is not that far.
    pub(super) fn missed(self) -> &'static str {
        match self {
            Self::Registering => "were not accepted",
            Self::Welcomed => "were not welcomed",
            Self::Joined => "were not let into their channel",
        }
    }
}

/// What a member says before it is welcome, beside its name.
#[derive(Clone)]
pub(super) struct Hello {
    /// What it says by PASS.
    pub(super) password: Option<String>,
    /// Whether it asks for the time of each message.
    pub(super) server_time: bool,
}

/// One connection. Its first `speakers` fellows in a channel are speakers.
pub(super) struct Member {
    pub(super) fd: OwnedFd,
    pub(super) id: u32,
    pub(super) stage: Stage,
    /// Lines to write, and how much of them is written; its capacity holds a full window.
    pub(super) out: Vec<u8>,
    pub(super) written: usize,
    pub(super) wants_out: bool,
    pub(super) dead: bool,
    /// Length of the unfinished line that stands at the beginning of this member's tail.
    pub(super) tail: usize,
}

impl Member {
    pub(super) fn new(fd: OwnedFd, id: u32, hello: &Hello, capacity: usize) -> Self {
        let mut out = Vec::with_capacity(MAX_LINE + capacity);
        if let Some(password) = &hello.password {
            out.extend_from_slice(format!("PASS :{password}\r\n").as_bytes());
        }
        if hello.server_time {
            out.extend_from_slice(b"CAP REQ :server-time\r\n");
        }
        let name = format!("NICK u{id:05x}\r\nUSER u{id:05x} 0 * :loadgen\r\n");
        out.extend_from_slice(name.as_bytes());
        if hello.server_time {
            out.extend_from_slice(b"CAP END\r\n");
        }
        Self {
            fd,
            id,
            stage: Stage::Registering,
            out,
            written: 0,
            wants_out: false,
            dead: false,
            tail: 0,
        }
    }

    /// Registration and the server's talk. Returns what the server complained about.
    #[cold]
    pub(super) fn talk(
        &mut self,
        command: &[u8],
        rest: &[u8],
        line: &[u8],
        window: &mut Window,
    ) -> Option<String> {
        match command {
            b"PING" => {
                self.out.extend_from_slice(b"PONG ");
                self.out.extend_from_slice(rest);
                self.out.extend_from_slice(b"\r\n");
            }
            b"001" => self.stage = self.stage.max(Stage::Welcomed),
            b"366" => self.stage = Stage::Joined,
            b"CAP" if has_word(rest, b"NAK") => {
                window
                    .faults
                    .add(Fault::Lost, 1, || format!("the server gives no times: {}", quoted(line)));
            }
            b"ERROR" => return Some(String::from_utf8_lossy(line).into_owned()),
            // No message of the day is no complaint.
            [b'4' | b'5', _, _] if command != b"422" => {
                let complaint = String::from_utf8_lossy(line).into_owned();
                if self.stage == Stage::Joined {
                    window.faults.add(Fault::Lost, 1, || format!("refused: {complaint}"));
                }
                return Some(complaint);
            }
            // Joins, names, topics, notices: true, and not measured.
            _ => {}
        }
        None
    }
}

/// Whether this is one of the words of a line.
fn has_word(line: &[u8], word: &[u8]) -> bool {
    line.split(|&byte| byte == b' ').any(|found| found == word)
}
