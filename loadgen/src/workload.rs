//! What to ask of a server: the workloads of `workloads/*.toml`, and the flags that change them.

mod refuse;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::drive::Disturbance;
use crate::pacing::{self, Arrivals, WhenBusy};

/// The workloads that come with the program: name and TOML.
const BUILT_IN: [(&str, &str); 15] = [
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
    ("open-loop", include_str!("../workloads/open-loop.toml")),
    ("mixed-sizes", include_str!("../workloads/mixed-sizes.toml")),
];

/// The most lines in flight on a connection.
const MAX_DEPTH: u32 = 65_536;
/// Connections that a server is told to allow in a storm: what it allows when not told.
const STORM: u32 = 16_384;
/// The most chat channels.
const MAX_CHANNELS: u32 = 99_999;

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

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
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
    #[serde(default)]
    size: u32,
    #[serde(default)]
    sizes: Vec<(u32, u32)>,
    depth: u32,
    rate: Option<f64>,
    #[serde(default)]
    arrivals: Arrivals,
    #[serde(default)]
    when_busy: WhenBusy,
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

/// Optional durations such as `"5s"` in our files.
pub(crate) mod humantime_option {
    use serde::{Deserialize, Deserializer, de::Error};

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
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
    /// Sizes of lines in bytes with their weights, such as 64:90,1024:9,16384:1 (echo)
    #[arg(long, value_name = "BYTES:WEIGHT", value_delimiter = ',', conflicts_with = "size",
          value_parser = pacing::parse_share)]
    pub sizes: Vec<(u32, u32)>,
    /// Open loop: messages to send for each second over all connections, answered or not
    #[arg(long, value_name = "PER_SECOND")]
    pub rate: Option<f64>,
    /// How the times of an open loop are drawn
    #[arg(long, value_name = "HOW")]
    pub arrivals: Option<Arrivals>,
    /// What an open loop does with a message when every connection has --depth lines in flight
    #[arg(long, value_name = "WHAT")]
    pub when_busy: Option<WhenBusy>,
    /// Lines in flight on a connection, or messages in flight of a speaker
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_DEPTH)))]
    pub depth: Option<u32>,
    /// Chat channels
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_CHANNELS)))]
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
                sizes: Vec::new(),
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

/// What a name stands for: a workload that comes with the program, or a file of the user's.
fn sheet(name: &str) -> Result<Sheet> {
    if is_file(name) {
        let text = std::fs::read_to_string(name).with_context(|| format!("cannot read {name}"))?;
        return parse(name, &text);
    }
    let Some((name, text)) = BUILT_IN.iter().find(|(known, _)| *known == name) else {
        bail!(
            "no workload is called {name:?}; there are {}, or name a file that ends in .toml",
            names().join(", ")
        );
    };
    parse(&format!("workloads/{name}.toml"), text)
}

fn is_file(name: &str) -> bool {
    name.ends_with(".toml")
}

/// Reads a workload file; an error says in one line where it is.
fn parse(path: &str, text: &str) -> Result<Sheet> {
    let sheet: Sheet = toml::from_str(text).map_err(|e| {
        let line = e.span().map(|span| 1 + text[..span.start].matches('\n').count());
        let line = line.map_or(String::new(), |line| format!(", line {line}"));
        anyhow!("{path}{line}: {}", e.message().replace('\n', "; "))
    })?;
    sheet.refuse_nothing().with_context(|| path.to_owned())?;
    Ok(sheet)
}

/// Names of all workloads.
fn names() -> Vec<&'static str> {
    BUILT_IN.iter().map(|(name, _)| *name).collect()
}

impl Workload {
    /// A workload, built in or of a file that ends in `.toml`, with `changes` applied; `duration`
    /// and `warmup` where neither says. Fails, with what to do, on an unknown name, a file that
    /// cannot be read, or numbers that do not fit together.
    pub fn find(
        name: &str,
        changes: &Changes,
        duration: Duration,
        warmup: Duration,
    ) -> Result<Self> {
        let sheet = sheet(name)?;
        if !is_file(name) {
            return sheet.settle(name, changes, duration, warmup);
        }
        // Its ending tells it from a workload that comes with the program.
        let short = Path::new(name).file_name().map_or(name.into(), |own| own.to_string_lossy());
        sheet.settle(&short, changes, duration, warmup).with_context(|| name.to_owned())
    }

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
        format!("{name}, {connections} connections{active}, {size}, depth {depth}{rate}")
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
        let rate = crate::table::number(rate);
        format!("open loop, {rate} messages/s, {arrivals}, when busy: {busy}")
    }

    /// The size of a line, or of all that there are, in words.
    pub fn size_kind(&self) -> String {
        match &self.sizes[..] {
            [] => format!("{} bytes", self.size),
            mix => format!("{} bytes (by weight)", pacing::shares(mix)),
        }
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
            refuse::remainder(changes, channels, members)?;
        }
        let active = changes.active.or(self.active).unwrap_or(connections);
        let sizes = match (changes.size, &changes.sizes[..]) {
            (None, []) => self.sizes,
            (_, sizes) => sizes.to_vec(),
        };
        let size = changes.size.unwrap_or(self.size);
        let workload = Workload {
            name: name.to_owned(),
            summary: self.summary,
            mode: self.mode,
            connections,
            // Fewer connections than the file's active ones mean that all of them talk.
            active: if changes.active.is_none() { active.min(connections) } else { active },
            size: if sizes.is_empty() { size } else { pacing::mean_size(&sizes) },
            sizes,
            depth: changes.depth.unwrap_or(self.depth),
            rate: changes.rate.or(self.rate),
            arrivals: changes.arrivals.unwrap_or(self.arrivals),
            when_busy: changes.when_busy.unwrap_or(self.when_busy),
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
    fn a_size_replaces_a_mix_of_sizes_and_a_mix_a_size() {
        let one = find("mixed-sizes", &Changes { size: Some(100), ..Changes::default() }).unwrap();
        assert_eq!((one.size, one.sizes.len()), (100, 0));
        let sizes = vec![(50, 1), (150, 1)];
        let mix = find("ping-pong", &Changes { sizes, ..Changes::default() }).unwrap();
        assert_eq!((mix.size, mix.sizes.len()), (100, 2));
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
        assert!(find("ping-pong", &with(|c| c.when_busy = Some(WhenBusy::Drop))).is_err());
        assert!(find("ping-pong", &with(|c| c.rate = Some(0.0))).is_err());
        assert!(find("ping-pong", &with(|c| c.rate = Some(f64::NAN))).is_err());
        assert!(find("ping-pong", &with(|c| c.sizes = vec![(64, 1), (8, 1)])).is_err());
        assert!(find("fan-out", &with(|c| c.sizes = vec![(64, 1)])).is_err());
    }

    #[test]
    fn a_file_is_refused_with_its_line_or_with_what_to_do() {
        let echo = "summary = 'x'\nmode = 'echo'\n";
        let chat = "summary = 'x'\nmode = 'chat'\nsize = 64\ndepth = 1\nmembers = 2\n";
        assert!(parse("my.toml", &format!("{echo}size = 64\ndepth = 1\nconnections = 2")).is_ok());
        for (text, says) in [
            (format!("{echo}dept = 1"), "my.toml, line 3: unknown field `dept`"),
            (format!("{echo}size = 64"), "my.toml, line 1: missing field `depth`"),
            (format!("{echo}depth = 'deep'"), "my.toml, line 3: invalid type"),
            (format!("{echo}depth = "), "my.toml, line 3: "),
            (format!("{echo}depth = 1\nwait = '5 parsecs'"), "my.toml, line 4: "),
            (format!("{echo}depth = 1"), "my.toml: connections must be at least 1"),
            (format!("{echo}depth = 0\nconnections = 1"), "my.toml: depth must be 1 to 65536"),
            (format!("{echo}depth = 1\nconnections = 0"), "connections must be at least 1"),
            (format!("{echo}depth = 1\nconnections = 1\nchurn = 0"), "churn must be at least 1"),
            (format!("{echo}depth = 1\nconnections = 1\nsizes = [[64, 0]]"), "weight"),
            (format!("{chat}speakers = 1\nchannels = 0"), "channels must be 1 to 99999"),
            (chat.into(), "speakers must be at least 1"),
            (format!("{chat}speakers = 1\nconnections = 9"), "leave it out"),
        ] {
            let error = format!("{:#}", parse("my.toml", &text).unwrap_err());
            assert!(error.contains(says) && !error.contains('\n'), "{text}: {error}");
        }
    }

    #[test]
    fn connections_that_channels_do_not_divide_are_refused_with_what_does() {
        let chat = |connections, channels, members| {
            let connections = Some(connections);
            find("fan-out", &Changes { connections, channels, members, ..Changes::default() })
        };
        assert_eq!(chat(98, Some(7), None).unwrap().members, 14);
        assert_eq!(chat(98, Some(7), Some(14)).unwrap().connections, 98);
        let why = |wrong: Result<Workload>| wrong.unwrap_err().to_string();
        let remainder = why(chat(100, Some(7), None));
        assert!(remainder.contains("--connections 98 or 105"), "{remainder}");
        let few = why(chat(5, Some(7), None));
        assert!(few.contains("--connections 14"), "{few}");
        let product = why(chat(100, Some(7), Some(14)));
        assert!(product.contains("7 channels of 14 members are 98 connections"), "{product}");
        assert!(why(chat(100, None, Some(30))).contains("1 channel of 30"));
    }
}
