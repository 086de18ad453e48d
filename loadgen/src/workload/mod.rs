//! What is asked of a server.
//!
//! **Lives here:** a workload with every number settled, the files and flags that it is made of,
//! how its messages are spread over time and sizes, what others do to the server meanwhile, the
//! objective that response times must keep to, and which of these make no sense.
//!
//! **May use:** `base`.
//!
//! **Must not know:** sockets, servers, and how anything is measured.

mod changes;
mod claim;
mod disturbance;
pub mod limits;
mod objective;
pub mod pacing;
mod refuse;
mod sheet;

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::durations::seconds;
use crate::base::text;

pub use changes::Changes;
pub use claim::{Along, Claim, Experiment, Kind, Quantity, With};
pub use disturbance::Disturbance;
pub use objective::{Objective, Quantile};
pub use pacing::{Arrivals, WhenBusy};
pub use sheet::{Listed, list};

/// Connections that a server is told to allow in a storm: what it allows when not told.
const STORM: u32 = 16_384;

/// Which half of the protocol a server is to speak.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Every line comes back.
    Echo,
    /// The IRC subset.
    Chat,
}

impl Mode {
    /// The word for `--mode`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Chat => "chat",
        }
    }
}

/// A workload with every number settled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Workload {
    /// What it is called.
    pub name: String,
    /// One sentence.
    pub summary: String,
    /// What the server must speak.
    pub mode: Mode,
    /// Connections held; in chat the product of channels and members.
    pub connections: u32,
    /// Connections that talk (echo).
    pub active: u32,
    /// Bytes of a line with its end (echo), or of a message's text (chat); the mean of `sizes`.
    pub size: u32,
    /// Where lines differ in size (echo): sizes in bytes with their weights.
    #[serde(default)]
    pub sizes: Vec<(u32, u32)>,
    /// Lines in flight on an active connection, or messages in flight of a speaker; in an open
    /// loop the most of them.
    pub depth: u32,
    /// Messages sent for each second, over all connections: an open loop. Without it the loop is
    /// closed: each answer makes room for the next message.
    #[serde(default)]
    pub rate: Option<f64>,
    /// How the times of an open loop's messages are drawn.
    #[serde(default)]
    pub arrivals: Arrivals,
    /// What an open loop does with a message that finds every connection busy.
    #[serde(default)]
    pub when_busy: WhenBusy,
    /// Chat channels.
    pub channels: u32,
    /// Members of each channel.
    pub members: u32,
    /// Members of each channel who speak.
    pub speakers: u32,
    /// Whether the members of a channel ask for the time of each message (IRCv3 `server-time`).
    #[serde(default)]
    pub server_time: bool,
    /// Lines that a visitor asks before it leaves and comes again; `None` where connections last.
    pub churn: Option<u32>,
    /// What others do in the second half of the run, while those connections are the bystanders.
    pub disturbance: Option<Disturbance>,
    /// How many do so.
    pub disturbers: u32,
    /// How long the server is to hold back every reply, as if a handler asked a database.
    #[serde(with = "seconds")]
    #[schemars(with = "f64")]
    pub wait: Duration,
    /// How long the server is to compute for every line.
    #[serde(with = "seconds")]
    #[schemars(with = "f64")]
    pub work: Duration,
    /// How long is measured.
    #[serde(with = "seconds")]
    #[schemars(with = "f64")]
    pub duration: Duration,
    /// How long is driven first without being measured.
    #[serde(with = "seconds")]
    #[schemars(with = "f64")]
    pub warmup: Duration,
}

impl Workload {
    /// What is asked, in a few words: the name and the numbers that a grid changes.
    pub fn point(&self) -> String {
        let active = match self.mode == Mode::Echo && self.active < self.connections {
            true => format!(" ({} active)", self.active),
            false => String::new(),
        };
        let size = match &self.sizes[..] {
            [] => format!("{} B", self.size),
            _ => format!("{} B on average", self.size),
        };
        let Self { name, connections, depth, .. } = self;
        let rate = self.rate.map_or(String::new(), |rate| format!(", {rate}/s"));
        let time = if self.server_time { ", with times" } else { "" };
        format!("{name}, {connections} connections{active}, {size}, depth {depth}{rate}{time}")
    }

    /// Bytes of its longest line with its end (echo), or of a message's text (chat).
    pub fn longest(&self) -> u32 {
        self.sizes.iter().map(|&(size, _)| size).max().unwrap_or(self.size)
    }

    /// Whether the server is asked to wait or to work for each line.
    pub fn slows_the_handler(&self) -> bool {
        !(self.wait.is_zero() && self.work.is_zero())
    }

    /// Connections that a server must be able to hold. In churn it may close one, and be asked
    /// for the next, before it has counted it out.
    pub fn places(&self) -> u32 {
        let disturbers = if self.disturbance.is_some() { self.disturbers } else { 0 };
        let again = if self.churn.is_some() { self.connections } else { 0 };
        self.connections.saturating_add(again).saturating_add(disturbers)
    }

    /// How long a run of it drives the server: among disturbers it warms up once more.
    pub fn lasts(&self) -> Duration {
        let warmups = if self.disturbance.is_some() { 2 } else { 1 };
        self.duration + self.warmup * warmups
    }

    /// Connections that a server is told to allow. In a storm those that have gone already are
    /// counted out whenever the server gets to it, and it is not its limit that is tested.
    pub fn admitted(&self) -> u32 {
        match self.disturbance {
            Some(Disturbance::ConnectStorm) => self.places().max(STORM),
            _ => self.places(),
        }
    }

    /// The rate, and how it is kept, in words.
    pub fn loop_kind(&self) -> String {
        let Some(rate) = self.rate else { return "closed loop".into() };
        let arrivals = match self.arrivals {
            Arrivals::Poisson => "Poisson arrivals",
            Arrivals::Uniform => "equal gaps",
        };
        let busy = match self.when_busy {
            WhenBusy::Queue => "queue",
            WhenBusy::Pipeline => "pipeline",
            WhenBusy::Drop => "drop",
        };
        let rate = text::number(rate);
        format!("open loop, {rate} messages/s, {arrivals}, when busy: {busy}")
    }

    /// The size of a line, or of all that there are, in words.
    pub fn size_kind(&self) -> String {
        match &self.sizes[..] {
            [] => format!("{} bytes", self.size),
            mix => format!("{} bytes (by weight)", pacing::shares(mix)),
        }
    }

    /// Connections, size and depth, in words.
    pub fn numbers(&self) -> String {
        let time = if self.server_time { ", with the time of each message" } else { "" };
        format!("{}, {}, {}{time}", self.connections, self.size_kind(), self.depth)
    }

    /// How many messages can be in flight at once; in churn, how many visits.
    pub fn in_flight(&self) -> u64 {
        if self.churn.is_some() {
            return u64::from(self.connections);
        }
        let talkers = match self.mode {
            Mode::Echo => self.active,
            Mode::Chat => self.channels * self.speakers,
        };
        u64::from(talkers) * u64::from(self.depth)
    }
}
