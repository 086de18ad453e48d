//! What a server is told before it starts: plain values, all limits on by default.

use core::time::Duration;

/// The protocol a server speaks, for its whole life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Every whole line comes back.
    Echo,
    /// An IRC subset.
    Chat,
}

/// Every limit of the protocol, with its default.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Echo: longest line, in bytes, terminator included.
    pub max_line: usize,
    /// Chat: most bytes of one line held or skipped while its end does not come; also the most
    /// bytes that may wait for a member's flood allowance.
    pub max_recvq: usize,
    /// Most bytes queued for one connection. In chat a member over it is cut at once. A quarter
    /// of it is the soft limit in chat and the high-water mark for reading in both modes.
    pub sendq: usize,
    /// Chat: how long a member may stay over the soft limit.
    pub sendq_grace: Duration,
    /// Echo: the longest time without a whole line, or a sign that the replies that wait are
    /// taken. Chat: the silence before a ping.
    pub idle_timeout: Duration,
    /// Chat: the silence after a ping.
    pub ping_timeout: Duration,
    /// Chat: the time a newcomer has to register.
    pub registration_timeout: Duration,
    /// How long a connection that is being closed may take to read its last bytes.
    pub linger: Duration,
    /// Chat: whether a member's lines are rationed.
    pub flood_control: bool,
    /// Chat: lines that a member may send in one go.
    pub flood_burst: u32,
    /// Chat: the time that pays for one more line.
    pub flood_interval: Duration,
    /// Chat: how long a member may go on sending more than its ration.
    pub flood_grace: Duration,
    /// Chat: channels that one member may be in.
    pub max_channels: usize,
    /// Chat: targets that one command may name.
    pub max_targets: usize,
}

impl Limits {
    /// Chat: longest line, in bytes, terminator included (RFC 2812, 2.3).
    pub const CHAT_LINE: usize = 512;
    /// Chat: longest nickname, in bytes.
    pub const NICK: usize = 30;
    /// Chat: longest channel name, in bytes.
    pub const CHANNEL: usize = 64;

    /// Bytes queued from which on a connection is not read.
    #[must_use]
    pub fn high_water(&self) -> usize {
        self.sendq / 4
    }

    /// Bytes queued from which on a connection that was not read is read again.
    #[must_use]
    pub fn low_water(&self) -> usize {
        self.sendq / 16
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_line: 64 << 10,
            max_recvq: 8 << 10,
            sendq: 1 << 20,
            sendq_grace: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(300),
            ping_timeout: Duration::from_secs(60),
            registration_timeout: Duration::from_secs(30),
            linger: Duration::from_secs(5),
            flood_control: true,
            flood_burst: 20,
            flood_interval: Duration::from_millis(500),
            flood_grace: Duration::from_secs(30),
            max_channels: 50,
            max_targets: 8,
        }
    }
}

/// What a chat server tells of itself.
#[derive(Clone, Debug)]
pub struct ChatSettings {
    /// The name that the server's own messages carry as their source.
    pub server_name: String,
    /// The network's name, as 005 tells it.
    pub network: String,
    /// The message of the day, line by line, without terminators; none: 422.
    pub motd: Option<Vec<String>>,
    /// What PASS must say; none: anyone may come.
    pub password: Option<String>,
    /// Whether text that is not UTF-8 is refused.
    pub utf8_only: bool,
    /// Seconds from 1970 to [`crate::Time::ZERO`], for the replies that tell a date.
    pub started_unix: u64,
}

impl Default for ChatSettings {
    fn default() -> ChatSettings {
        ChatSettings {
            server_name: "localhost".to_owned(),
            network: "iomodels".to_owned(),
            motd: None,
            password: None,
            utf8_only: true,
            started_unix: 0,
        }
    }
}

/// All that the protocol has to be told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Echo or chat.
    pub mode: Mode,
    /// All limits.
    pub limits: Limits,
    /// How long every reply is held back, as a handler that asks a database would hold it.
    pub wait: Duration,
    /// Chat only.
    pub chat: ChatSettings,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            mode: Mode::Echo,
            limits: Limits::default(),
            wait: Duration::ZERO,
            chat: ChatSettings::default(),
        }
    }
}
