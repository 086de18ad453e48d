//! The workloads that can be asked for by name: those that come with the program, from
//! `workloads/*.toml`, and files of the user's own in the same form.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Arrivals, Changes, Disturbance, Mode, WhenBusy, Workload, pacing, refuse};
use crate::base::durations::humantime_option;
use crate::base::text;

/// The workloads that come with the program: name and TOML.
const BUILT_IN: [(&str, &str); 17] = [
    ("ping-pong", include_str!("../../workloads/ping-pong.toml")),
    ("pipelined", include_str!("../../workloads/pipelined.toml")),
    ("fan-out", include_str!("../../workloads/fan-out.toml")),
    ("fan-out-timed", include_str!("../../workloads/fan-out-timed.toml")),
    ("idle", include_str!("../../workloads/idle.toml")),
    ("quiet", include_str!("../../workloads/quiet.toml")),
    ("churn", include_str!("../../workloads/churn.toml")),
    ("streaming", include_str!("../../workloads/streaming.toml")),
    ("waiting-handler", include_str!("../../workloads/waiting-handler.toml")),
    ("connect-storm", include_str!("../../workloads/connect-storm.toml")),
    ("stalled-reader", include_str!("../../workloads/stalled-reader.toml")),
    ("one-byte", include_str!("../../workloads/one-byte.toml")),
    ("half-open", include_str!("../../workloads/half-open.toml")),
    ("hog", include_str!("../../workloads/hog.toml")),
    ("working-handler", include_str!("../../workloads/working-handler.toml")),
    ("open-loop", include_str!("../../workloads/open-loop.toml")),
    ("mixed-sizes", include_str!("../../workloads/mixed-sizes.toml")),
];

/// A workload file: what it leaves out has a default.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sheet {
    pub(super) summary: String,
    pub(super) mode: Mode,
    pub(super) connections: Option<u32>,
    pub(super) active: Option<u32>,
    #[serde(default)]
    pub(super) size: u32,
    #[serde(default)]
    pub(super) sizes: Vec<(u32, u32)>,
    pub(super) depth: u32,
    pub(super) rate: Option<f64>,
    #[serde(default)]
    pub(super) arrivals: Arrivals,
    #[serde(default)]
    pub(super) when_busy: WhenBusy,
    pub(super) channels: Option<u32>,
    pub(super) members: Option<u32>,
    pub(super) speakers: Option<u32>,
    #[serde(default)]
    pub(super) server_time: bool,
    pub(super) churn: Option<u32>,
    pub(super) disturbance: Option<Disturbance>,
    pub(super) disturbers: Option<u32>,
    /// Whether a comparison runs it without having been asked for it by name.
    #[serde(default)]
    pub(super) default: bool,
    /// How many times the usual time it is measured: few messages need longer to show anything.
    #[serde(default = "once")]
    pub(super) longer: u32,
    #[serde(default, with = "humantime_option")]
    pub(super) wait: Option<Duration>,
    #[serde(default, with = "humantime_option")]
    pub(super) work: Option<Duration>,
    #[serde(default, with = "humantime_option")]
    pub(super) duration: Option<Duration>,
    #[serde(default, with = "humantime_option")]
    pub(super) warmup: Option<Duration>,
}

fn once() -> u32 {
    1
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
        |name| named(name).map(|s| Listed { name, summary: s.summary, default: s.default });
    names().into_iter().map(listed).collect()
}

/// What a name stands for: a workload that comes with the program, or a file of the user's.
pub(super) fn named(name: &str) -> Result<Sheet> {
    if is_file(name) {
        let text = std::fs::read_to_string(name).with_context(|| format!("cannot read {name}"))?;
        return parse(name, &text);
    }
    let Some((name, text)) = BUILT_IN.iter().find(|(known, _)| *known == name) else {
        let near = text::did_you_mean(name, &names());
        bail!(
            "no workload is called {name:?}; {near}there are {}, or name a file that ends in .toml",
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
        let sheet = named(name)?;
        if !is_file(name) {
            return sheet.settle(name, changes, duration, warmup);
        }
        // Its ending tells it from a workload that comes with the program.
        let short = Path::new(name).file_name().map_or(name.into(), |own| own.to_string_lossy());
        sheet.settle(&short, changes, duration, warmup).with_context(|| name.to_owned())
    }

    /// The workload in the text of a file called `name`, as [`Workload::find`] reads it.
    pub fn read(
        name: &str,
        text: &str,
        changes: &Changes,
        duration: Duration,
        warmup: Duration,
    ) -> Result<Self> {
        parse(name, text)?.settle(name, changes, duration, warmup)
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
            server_time: changes.server_time || self.server_time,
            churn: changes.churn.or(self.churn),
            disturbance: changes.disturbance.or(self.disturbance),
            disturbers: changes.disturbers.or(self.disturbers).unwrap_or(1),
            wait: changes.wait.or(self.wait).unwrap_or_default(),
            work: changes.work.or(self.work).unwrap_or_default(),
            duration: changes.duration.or(self.duration).unwrap_or(duration * self.longer),
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
