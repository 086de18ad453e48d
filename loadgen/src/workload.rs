//! What to ask of a server: the workloads of `workloads/*.toml`, and the flags that change them.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::check::{HEADER, MAX_CONNECTIONS};
use crate::drive::Disturbance;

/// The workloads that come with the program: name and TOML.
const BUILT_IN: [(&str, &str); 13] = [
    ("ping-pong", include_str!("../workloads/ping-pong.toml")),
    ("pipelined", include_str!("../workloads/pipelined.toml")),
    ("fan-out", include_str!("../workloads/fan-out.toml")),
    ("idle", include_str!("../workloads/idle.toml")),
    ("churn", include_str!("../workloads/churn.toml")),
    ("streaming", include_str!("../workloads/streaming.toml")),
    ("waiting-handler", include_str!("../workloads/waiting-handler.toml")),
    ("connect-storm", include_str!("../workloads/connect-storm.toml")),
    ("stalled-reader", include_str!("../workloads/stalled-reader.toml")),
    ("one-byte", include_str!("../workloads/one-byte.toml")),
    ("half-open", include_str!("../workloads/half-open.toml")),
    ("hog", include_str!("../workloads/hog.toml")),
    ("working-handler", include_str!("../workloads/working-handler.toml")),
];

/// The protocol's default limit on a line, its end included, in bytes.
const MAX_ECHO: u32 = 65_536;
/// What is left of a chat line of 512 bytes after a long source and a channel name.
const MAX_CHAT: u32 = 350;

/// The longest phase.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// The slowest handler.
const SLOWEST: Duration = Duration::from_secs(1);

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
    /// Bytes of a line with its end (echo), or of a message's text (chat).
    pub size: u32,
    /// Lines in flight on an active connection, or messages in flight of a speaker.
    pub depth: u32,
    /// Chat channels.
    pub channels: u32,
    /// Members of each channel.
    pub members: u32,
    /// Members of each channel who speak.
    pub speakers: u32,
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

/// Durations as seconds in records.
mod seconds {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(
        duration: &std::time::Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(duration.as_secs_f64())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<std::time::Duration, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        std::time::Duration::try_from_secs_f64(seconds).map_err(D::Error::custom)
    }
}

/// A workload file: what it leaves out has a default.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sheet {
    summary: String,
    mode: Mode,
    connections: Option<u32>,
    active: Option<u32>,
    size: u32,
    depth: u32,
    channels: Option<u32>,
    members: Option<u32>,
    speakers: Option<u32>,
    churn: Option<u32>,
    disturbance: Option<Disturbance>,
    disturbers: Option<u32>,
    /// Whether a comparison runs it without having been asked for it by name.
    #[serde(default)]
    default: bool,
    #[serde(default, with = "humantime_option")]
    wait: Option<Duration>,
    #[serde(default, with = "humantime_option")]
    work: Option<Duration>,
    #[serde(default, with = "humantime_option")]
    duration: Option<Duration>,
    #[serde(default, with = "humantime_option")]
    warmup: Option<Duration>,
}

/// Optional durations such as `"5s"` in workload files.
mod humantime_option {
    use serde::{Deserialize, Deserializer, de::Error};

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<std::time::Duration>, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map(Some).map_err(D::Error::custom)
    }
}

/// The flags that change a workload's numbers.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Changes {
    /// Connections to hold (in chat: the members of all channels together)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub connections: Option<u32>,
    /// Connections that talk, the rest being idle (echo)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub active: Option<u32>,
    /// Bytes of a line with its end (echo), or of a message's text (chat)
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..))]
    pub size: Option<u32>,
    /// Lines in flight on a connection, or messages in flight of a speaker
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub depth: Option<u32>,
    /// Chat channels
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=99_999))]
    pub channels: Option<u32>,
    /// Members of each channel, its speakers included
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    pub members: Option<u32>,
    /// Members of each channel who speak
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub speakers: Option<u32>,
    /// Lines to ask on each connection before it is closed and opened again (echo)
    #[arg(long, value_name = "LINES", value_parser = clap::value_parser!(u32).range(1..))]
    pub churn: Option<u32>,
    /// What others do in the second half of the run, the connections being bystanders (echo)
    #[arg(long)]
    pub disturbance: Option<Disturbance>,
    /// How many of them do so
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub disturbers: Option<u32>,
    /// How long the server holds back every reply, such as 5ms (servers of this workspace only)
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub wait: Option<Duration>,
    /// How long the server computes for every line, such as 50us (servers of this workspace only)
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub work: Option<Duration>,
    /// How long to measure, such as 5s or 500ms
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
    /// How long to drive before measuring
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub warmup: Option<Duration>,
}

impl Changes {
    /// Without the flags that do not concern the workload `name`, where several are run at once.
    pub fn fitting(&self, name: &str) -> Self {
        let chat = sheet(name).is_ok_and(|sheet| sheet.mode == Mode::Chat);
        match chat {
            true => Self {
                active: None,
                churn: None,
                disturbance: None,
                disturbers: None,
                ..self.clone()
            },
            false => Self { channels: None, members: None, speakers: None, ..self.clone() },
        }
    }
}

/// A workload as `loadgen list` shows it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "ListedWorkload")]
pub struct Listed {
    /// What it is called.
    pub name: &'static str,
    /// One sentence.
    pub summary: String,
    /// Whether a comparison runs it without having been asked for it by name.
    pub default: bool,
}

/// Every workload.
pub fn list() -> Result<Vec<Listed>> {
    let listed =
        |name| sheet(name).map(|s| Listed { name, summary: s.summary, default: s.default });
    names().into_iter().map(listed).collect()
}

fn sheet(name: &str) -> Result<Sheet> {
    let Some((name, text)) = BUILT_IN.iter().find(|(known, _)| *known == name) else {
        bail!("no workload is called {name:?}; there are {}", names().join(", "));
    };
    toml::from_str(text).with_context(|| format!("workloads/{name}.toml"))
}

/// Names of all workloads.
fn names() -> Vec<&'static str> {
    BUILT_IN.iter().map(|(name, _)| *name).collect()
}

impl Workload {
    /// A built-in workload with `changes` applied; `duration` and `warmup` where neither says.
    /// Fails, with what to do, on an unknown name or numbers that do not fit together.
    pub fn find(
        name: &str,
        changes: &Changes,
        duration: Duration,
        warmup: Duration,
    ) -> Result<Self> {
        sheet(name)?.settle(name, changes, duration, warmup)
    }

    /// What is asked, in a few words: the name and the numbers that a grid changes.
    pub fn point(&self) -> String {
        let active = match self.mode == Mode::Echo && self.active < self.connections {
            true => format!(" ({} active)", self.active),
            false => String::new(),
        };
        let Self { name, connections, size, depth, .. } = self;
        format!("{name}, {connections} connections{active}, {size} B, depth {depth}")
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

impl Sheet {
    fn settle(
        self,
        name: &str,
        changes: &Changes,
        duration: Duration,
        warmup: Duration,
    ) -> Result<Workload> {
        let channels = changes.channels.or(self.channels).unwrap_or(1);
        let mut members = changes.members.or(self.members).unwrap_or(0);
        let mut connections = changes.connections.or(self.connections).unwrap_or(0);
        if self.mode == Mode::Chat {
            if let Some(n) = changes.connections.filter(|_| changes.members.is_none()) {
                members = n / channels;
            }
            connections = channels.saturating_mul(members);
        }
        let active = changes.active.or(self.active).unwrap_or(connections);
        let workload = Workload {
            name: name.to_owned(),
            summary: self.summary,
            mode: self.mode,
            connections,
            // Fewer connections than the file's active ones mean that all of them talk.
            active: if changes.active.is_none() { active.min(connections) } else { active },
            size: changes.size.unwrap_or(self.size),
            depth: changes.depth.unwrap_or(self.depth),
            channels,
            members,
            speakers: changes.speakers.or(self.speakers).unwrap_or(0),
            churn: changes.churn.or(self.churn),
            disturbance: changes.disturbance.or(self.disturbance),
            disturbers: changes.disturbers.or(self.disturbers).unwrap_or(1),
            wait: changes.wait.or(self.wait).unwrap_or_default(),
            work: changes.work.or(self.work).unwrap_or_default(),
            duration: changes.duration.or(self.duration).unwrap_or(duration),
            warmup: changes.warmup.or(self.warmup).unwrap_or(warmup),
        };
        workload.refuse_nonsense(changes)?;
        Ok(workload)
    }
}

impl Workload {
    fn refuse_nonsense(&self, changes: &Changes) -> Result<()> {
        let name = &self.name;
        let header = HEADER as u32;
        let (least, most) = match self.mode {
            Mode::Echo => (header + 1, MAX_ECHO),
            Mode::Chat => (header, MAX_CHAT),
        };
        if !(least..=most).contains(&self.size) {
            bail!(
                "--size {} does not fit {name}: {least} to {most} bytes, because each line \
                 carries its connection and sequence number and must fit the protocol's limit",
                self.size
            );
        }
        if self.connections > MAX_CONNECTIONS {
            bail!("--connections {} is more than {MAX_CONNECTIONS}", self.connections);
        }
        if self.duration.is_zero() {
            bail!("--duration must be longer than nothing, for example 5s");
        }
        if self.duration.max(self.warmup) > LONGEST {
            bail!("--duration and --warmup are at most a day each");
        }
        if self.wait.max(self.work) > SLOWEST {
            bail!("--wait and --work are at most a second each: longer is a stall");
        }
        if self.active > self.connections {
            bail!("--active {} is more than --connections {}", self.active, self.connections);
        }
        match self.mode {
            Mode::Echo => {
                let chat = [changes.channels, changes.members, changes.speakers];
                if chat.iter().any(Option::is_some) {
                    bail!("--channels, --members and --speakers belong to fan-out, not to {name}");
                }
                if self.churn.is_some() && self.active < self.connections {
                    bail!("all visitors of {name} ask; leave --active out");
                }
                if self.churn.is_some() && self.disturbance.is_some() {
                    bail!("bystanders stay; leave out --churn or --disturbance");
                }
                if changes.disturbers.is_some() && self.disturbance.is_none() {
                    bail!("--disturbers needs a --disturbance, for example hog");
                }
            }
            Mode::Chat => {
                if self.churn.is_some() || self.disturbance.is_some() {
                    bail!("--churn and --disturbance belong to the echo workloads, not to {name}");
                }
                if changes.active.is_some() {
                    bail!("--active belongs to the echo workloads; {name} has --speakers");
                }
                if self.members < 2 || self.speakers > self.members {
                    bail!(
                        "{} speakers among {} members in a channel: at least 2 members, and no \
                         more speakers than members; change --connections, --members or --speakers",
                        self.speakers,
                        self.members
                    );
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(name: &str, changes: &Changes) -> Result<Workload> {
        Workload::find(name, changes, Duration::from_secs(5), Duration::from_secs(1))
    }

    #[test]
    fn every_workload_is_valid_as_it_comes() {
        for name in names() {
            find(name, &Changes::default()).unwrap();
        }
    }

    #[test]
    fn flags_change_fields() {
        let changes = Changes { connections: Some(10), depth: Some(3), ..Changes::default() };
        let idle = find("idle", &changes).unwrap();
        assert_eq!((idle.connections, idle.active, idle.depth), (10, 10, 3));
        let chat = find("fan-out", &changes).unwrap();
        assert_eq!((chat.connections, chat.members, chat.in_flight()), (10, 10, 12));
    }

    #[test]
    fn nonsense_is_refused() {
        let with = |change: fn(&mut Changes)| {
            let mut changes = Changes::default();
            change(&mut changes);
            changes
        };
        assert!(find("ping-pong", &with(|c| c.size = Some(15))).is_err());
        assert!(find("fan-out", &with(|c| c.size = Some(400))).is_err());
        assert!(find("fan-out", &with(|c| c.connections = Some(1))).is_err());
        assert!(find("ping-pong", &with(|c| c.speakers = Some(1))).is_err());
        assert!(find("nothing", &Changes::default()).is_err());
    }
}
