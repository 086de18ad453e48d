//! What a server is told before it starts: plain values, all limits on by default.

use core::fmt;
use core::time::Duration;
use std::sync::Arc;

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
    /// Chat: the most bytes of tags before a line, the `@` and the space behind them included
    /// (IRCv3 "message-tags").
    pub const CHAT_TAGS: usize = 4096;
    /// Chat: how long a member waits for the answer to OPER, whatever the answer is.
    pub const OPER_DELAY: Duration = Duration::from_secs(1);
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

/// What a chat server says and asks for that may change while it runs.
#[derive(Clone, Debug, Default)]
pub struct ChatTexts {
    /// As [`ChatSettings::motd`].
    pub motd: Option<Vec<String>>,
    /// As [`ChatSettings::password`].
    pub password: Option<String>,
}

/// Where the hub asks for what may change, and what it tells in return. None of it may wait: the
/// hub is locked meanwhile.
pub trait Changing: fmt::Debug + Send + Sync {
    /// What holds now.
    fn texts(&self) -> Arc<ChatTexts>;

    /// A member from `host` was refused for a wrong password, or for none.
    fn refused(&self, host: &[u8]);

    /// Whether there are operators of the server at all.
    fn has_operators(&self) -> bool {
        false
    }

    /// Begins to find out, elsewhere, whether `name` is an operator of the server who has this
    /// password; `host` is where the question comes from. None when too many such questions wait.
    fn verify(&self, name: &[u8], password: &[u8], host: &[u8]) -> Option<Arc<dyn Verdict>> {
        let _ = (name, password, host);
        None
    }

    /// Begins to read anew, elsewhere, what [`Changing::texts`] tells.
    fn reload(&self) {}
}

/// What is found out for OPER.
pub trait Verdict: fmt::Debug + Send + Sync {
    /// Whether the password is right; none while that is not known.
    fn get(&self) -> Option<bool>;
}

/// Who is told how it stands with the clients, for the numbers and the log of an operator. None of
/// it may wait.
pub trait Watch: fmt::Debug + Send + Sync {
    /// The bytes that wait for one client were so many and are now so many. Changes of less than a
    /// 64th of [`Limits::sendq`] are not told, save that nothing is left: what a client takes at
    /// once costs nothing.
    fn queue(&self, before: usize, now: usize);

    /// One client has begun (`true`) or ceased to have more than [`Limits::high_water`] waiting.
    fn slow(&self, is: bool);

    /// A member has registered.
    fn registered(&self);

    /// A connection of the chat ends.
    fn gone(&self, gone: &Gone<'_>);

    /// Whether [`Watch::ended`] is to be told: each connection then remembers whose it is.
    fn follows_ends(&self) -> bool {
        false
    }

    /// A connection of an echo server ends: whose, as [`crate::Session::of`] was told, and why.
    fn ended(&self, _peer: &str, _reason: &str) {}
}

/// Whose connection ends in the chat, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone<'a> {
    /// Its nickname; `*` where it had none.
    pub nick: &'a [u8],
    /// As [`crate::Hub::open`] was told.
    pub host: &'a [u8],
    /// Whether it had registered.
    pub registered: bool,
    /// As those hear it who shared a channel with it. A peer may have chosen it.
    pub reason: &'a [u8],
}

/// What holds now of [`ChatTexts`].
pub(crate) enum TextsNow<'a> {
    Fixed(&'a ChatSettings),
    Changing(Arc<ChatTexts>),
}

impl TextsNow<'_> {
    pub(crate) fn motd(&self) -> Option<&[String]> {
        match self {
            TextsNow::Fixed(settings) => settings.motd.as_deref(),
            TextsNow::Changing(texts) => texts.motd.as_deref(),
        }
    }

    pub(crate) fn password(&self) -> Option<&str> {
        match self {
            TextsNow::Fixed(settings) => settings.password.as_deref(),
            TextsNow::Changing(texts) => texts.password.as_deref(),
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
    /// What the server is, in a few words.
    pub description: String,
    /// The message of the day, line by line, without terminators; none: 422.
    pub motd: Option<Vec<String>>,
    /// Whom to write to, as ADMIN tells it; none: 423.
    pub admin: Option<String>,
    /// What PASS must say; none: anyone may come.
    pub password: Option<String>,
    /// Who is asked for these two instead, where they may change.
    pub changing: Option<Arc<dyn Changing>>,
    /// Whether text that is not UTF-8 is refused.
    pub utf8_only: bool,
    /// Seconds from 1970 to [`crate::Time::ZERO`], for the replies that tell a date.
    pub started_unix: u64,
}

impl ChatSettings {
    /// The message of the day and the password.
    pub(crate) fn texts(&self) -> TextsNow<'_> {
        match &self.changing {
            Some(changing) => TextsNow::Changing(changing.texts()),
            None => TextsNow::Fixed(self),
        }
    }
}

impl Default for ChatSettings {
    fn default() -> ChatSettings {
        ChatSettings {
            server_name: "localhost".to_owned(),
            network: "iomodels".to_owned(),
            description: "one protocol, every I/O model".to_owned(),
            motd: None,
            admin: None,
            password: None,
            changing: None,
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
    /// Lines of one connection that are handled in one go before the others have their turn;
    /// `u64::MAX`: as many as one read brings. For handlers that compute: one long step of an
    /// event loop delays every connection.
    pub step_lines: u64,
    /// Who is told how it stands with the clients.
    pub watch: Option<Arc<dyn Watch>>,
    /// Chat only.
    pub chat: ChatSettings,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            mode: Mode::Echo,
            limits: Limits::default(),
            wait: Duration::ZERO,
            step_lines: u64::MAX,
            watch: None,
            chat: ChatSettings::default(),
        }
    }
}
