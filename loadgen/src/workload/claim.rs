//! A claim that is often made about the models, and the experiments that try it: one file each in
//! `loadgen/claims`.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Changes, Disturbance};

/// Defines the claims that come with the program: name and TOML.
macro_rules! built_in {
    ($($name:literal),* $(,)?) => {
        const BUILT_IN: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../claims/", $name, ".toml")))),*];
    };
}

built_in![
    "blocked-costs-nothing",
    "blocking-is-not-sync",
    "completion-wins",
    "connections-are-memory",
    "coroutines-cost-a-stack",
    "dear-when-quiet",
    "edge-more-efficient",
    "edge-remembers",
    "fewer-switches",
    "flat-to-ten-thousand",
    "frameworks",
    "handlers-cost-nothing",
    "level-repeats",
    "loop-overlaps",
    "multiplexing-for-one",
    "no-copying-between-tasks",
    "one-at-a-time",
    "polling-burns",
    "processes-isolate",
    "runtime-tax",
    "select-poll-scan",
    "short-steps",
    "sigio-second-phase",
    "stealing-helps",
    "tail-under-load",
    "threads-overlap",
    "waits-pay",
];

/// What the ratio of the two numbers must be for the claim to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Smaller than 1 by more than the margin.
    Less,
    /// Greater than 1 by more than the margin.
    More,
    /// Within the margin around 1.
    Equal,
    /// Smaller or greater than 1 by more than the margin.
    Differ,
}

/// What is compared.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Quantity {
    /// Processor time of the server for each message, in nanoseconds.
    Cpu,
    /// Processor time of the server for each second, in nanoseconds.
    CpuOfSecond,
    /// System calls of the server for each message.
    Calls,
    /// Context switches of the server for each message.
    Switches,
    /// Resident memory for each idle connection, in bytes.
    IdleMemory,
    /// Resident memory and memory of the kernel for each idle connection, in bytes.
    AllMemory,
    /// Half of the answers take at most this, in nanoseconds.
    P50,
    /// 99 of 100 answers take at most this, in nanoseconds.
    P99,
    /// Messages for each second.
    Rate,
    /// Lines of a server's sources that name what threads or tasks share, or hand over.
    Sharing,
    /// Lines of code of a server's sources.
    Lines,
    /// Blocks of unsafe code in a server's sources.
    Unsafe,
    /// 1 where a server waits in the call that brings the bytes, by its captured system calls.
    WaitsInTransfer,
    /// 1 where a server fetches the bytes itself, by its captured system calls.
    CopiesItself,
    /// Bytes that a loop never reads which reads once for each event.
    Unanswered,
}

impl Quantity {
    /// Whether it depends on how fast the machine is.
    pub fn is_of_time(self) -> bool {
        !matches!(self, Self::Calls | Self::IdleMemory | Self::AllMemory)
    }

    /// All that a run may say. The others are counted: they have no noise.
    pub const MEASURED: [Self; 9] = [
        Self::Cpu,
        Self::CpuOfSecond,
        Self::Calls,
        Self::Switches,
        Self::IdleMemory,
        Self::AllMemory,
        Self::P50,
        Self::P99,
        Self::Rate,
    ];
}

/// What differs from point to point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Along {
    /// Connections that are held.
    #[default]
    Connections,
    /// Bytes of a line.
    Size,
    /// Lines in flight on a connection.
    Depth,
    /// How long the server holds back every reply, in microseconds.
    WaitUs,
    /// How long the server computes for every line, in microseconds.
    WorkUs,
    /// Rate of an open loop, in percent of what the server reaches in a closed one.
    LoadPercent,
}

impl Along {
    /// In words.
    pub fn word(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Size => "bytes of a line",
            Self::Depth => "lines in flight",
            Self::WaitUs => "µs of waiting",
            Self::WorkUs => "µs of computing",
            Self::LoadPercent => "% of its capacity",
        }
    }
}

/// The numbers of a workload that an experiment changes, at all points alike.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct With {
    /// Connections that are held.
    pub connections: Option<u32>,
    /// Connections that talk.
    pub active: Option<u32>,
    /// Bytes of a line.
    pub size: Option<u32>,
    /// Lines in flight on a connection.
    pub depth: Option<u32>,
    /// Messages for each second.
    pub rate: Option<f64>,
    /// How long the server holds back every reply, in microseconds.
    pub wait_us: Option<u32>,
    /// How long the server computes for every line, in microseconds.
    pub work_us: Option<u32>,
    /// What others do meanwhile.
    pub disturbance: Option<Disturbance>,
}

/// What one number of a server is held against: another server, a limit, or itself.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    /// What the ratio must be.
    pub kind: Kind,
    /// The server that the claim is about.
    pub server: String,
    /// Flags that it is started with beside its own.
    #[serde(default)]
    pub args: Vec<String>,
    /// The server that it is compared with. Without one, and without a limit, a server is compared
    /// with itself at the first of the values.
    pub to: Option<String>,
    /// The number that it is compared with.
    pub limit: Option<f64>,
    /// Compared with itself: whether it is expected to grow as the values do.
    #[serde(default)]
    pub proportional: bool,
    /// Whether it is left out where there is little time.
    #[serde(default)]
    pub thorough: bool,
    /// What is asked. Nothing of what is counted.
    #[serde(default)]
    pub workload: String,
    /// What is changed of that.
    #[serde(default)]
    pub with: With,
    /// Workers that each server has.
    #[serde(default = "one")]
    pub workers: u32,
    /// What is compared.
    pub quantity: Quantity,
    /// The part by which the two may differ and still count as equal.
    pub margin: f64,
    /// What differs from point to point.
    #[serde(default)]
    pub along: Along,
    /// Each of them is a point, but for the first one where a server is compared with itself; from
    /// the smallest to the largest. None of what is counted.
    #[serde(default)]
    pub values: Vec<u32>,
}

fn one() -> u32 {
    1
}

impl Experiment {
    /// Whether nothing is driven.
    pub fn is_counted(&self) -> bool {
        !Quantity::MEASURED.contains(&self.quantity)
    }

    /// Whether a server is compared with itself.
    pub fn is_growth(&self) -> bool {
        self.to.is_none() && self.limit.is_none()
    }

    /// What is asked at a point.
    pub fn changes(&self, value: u32) -> Changes {
        let micros = |us: Option<u32>| us.map(|us| Duration::from_micros(us.into()));
        let With { connections, active, size, depth, rate, wait_us, work_us, disturbance } =
            self.with;
        let mut changes = Changes {
            connections,
            active,
            size,
            depth,
            rate,
            wait: micros(wait_us),
            work: micros(work_us),
            disturbance,
            ..Changes::default()
        };
        match self.along {
            Along::Connections => changes.connections = Some(value),
            Along::Size => changes.size = Some(value),
            Along::Depth => changes.depth = Some(value),
            Along::WaitUs => changes.wait = micros(Some(value)),
            Along::WorkUs => changes.work = micros(Some(value)),
            // As if its capacity were 100 messages a second.
            Along::LoadPercent => changes.rate = Some(value.into()),
        }
        changes
    }

    /// The same at its ends alone.
    fn ends(mut self) -> Self {
        if self.values.len() > 2 {
            self.values = vec![self.values[0], self.values[self.values.len() - 1]];
        }
        self
    }

    fn check(&self) -> Result<()> {
        let fewest = if self.is_growth() { 2 } else { 1 };
        if self.is_counted() {
            let driven = !(self.workload.is_empty() && self.values.is_empty());
            if driven || self.is_growth() {
                bail!("what is counted has no workload and no values, and needs `to` or `limit`");
            }
        } else if self.values.len() < fewest || !self.values.is_sorted() || self.margin <= 0.0 {
            bail!("give values in their order, at least {fewest}, and a margin above 0");
        }
        if self.to.is_some() && self.limit.is_some() {
            bail!("give either `to` or `limit`");
        }
        if self.proportional && !self.is_growth() {
            bail!("`proportional` belongs to a server that is compared with itself");
        }
        Ok(())
    }
}

/// A claim with its experiments.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// What it is called: the name of its file.
    #[serde(skip_deserializing)]
    pub name: String,
    /// What is said.
    pub claim: String,
    /// Where it comes from.
    pub source: String,
    /// What explains it.
    pub because: String,
    /// What tries it. It holds where all of them show it.
    #[serde(rename = "experiment")]
    pub experiments: Vec<Experiment>,
}

impl Claim {
    /// The claims of these names; all of them without a name.
    pub fn find(names: &[String]) -> Result<Vec<Self>> {
        if let Some(name) = names.iter().find(|name| BUILT_IN.iter().all(|(own, _)| own != name)) {
            let known: Vec<_> = BUILT_IN.iter().map(|(own, _)| *own).collect();
            bail!("no claim is called {name:?}; there are {}", known.join(", "));
        }
        let asked = |own: &str| names.is_empty() || names.iter().any(|name| name == own);
        let chosen = BUILT_IN.iter().filter(|(own, _)| asked(own));
        chosen.map(|(name, text)| Self::parse(name, text)).collect()
    }

    /// The claim in the text of a file.
    fn parse(name: &str, text: &str) -> Result<Self> {
        let file = || format!("claims/{name}.toml");
        let claim: Self = toml::from_str(text).with_context(file)?;
        if claim.experiments.iter().all(|experiment| experiment.thorough) {
            bail!("{}: give an experiment that is not `thorough`", file());
        }
        claim.experiments.iter().try_for_each(Experiment::check).with_context(file)?;
        Ok(Self { name: name.to_owned(), ..claim })
    }

    /// The same where there is little time: without some experiments, and with the others at the
    /// ends of their points alone.
    pub fn quick(mut self) -> Self {
        self.experiments.retain(|experiment| !experiment.thorough);
        self.experiments = self.experiments.into_iter().map(Experiment::ends).collect();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Workload;

    #[test]
    fn every_file_is_a_claim_and_can_be_asked_for() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/claims");
        let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
        let mut files: Vec<_> =
            files.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect();
        let claims = Claim::find(&[]).unwrap();
        let mut names: Vec<_> = claims.into_iter().map(|claim| claim.name).collect();
        files.sort();
        names.sort();
        assert_eq!(files, names);
        assert!(Claim::find(&["no-such".into()]).is_err());
        assert_eq!(Claim::find(&["runtime-tax".into()]).unwrap().len(), 1);
    }

    #[test]
    fn every_point_can_be_asked_and_what_differs_is_what_the_file_says() {
        let second = Duration::from_secs(1);
        for claim in Claim::find(&[]).unwrap() {
            for experiment in &claim.experiments {
                for &value in &experiment.values {
                    let changes = experiment.changes(value);
                    let workload = Workload::find(&experiment.workload, &changes, second, second);
                    let workload = workload.unwrap_or_else(|e| panic!("{}: {e:#}", claim.name));
                    let micros = |time: Duration| time.as_micros() as u32;
                    let found = match experiment.along {
                        Along::Connections => workload.connections,
                        Along::Size => workload.size,
                        Along::Depth => workload.depth,
                        Along::WaitUs => micros(workload.wait),
                        Along::WorkUs => micros(workload.work),
                        Along::LoadPercent => workload.rate.unwrap() as u32,
                    };
                    assert_eq!(found, value, "{}", claim.name);
                }
            }
        }
    }

    #[test]
    fn an_experiment_that_makes_no_sense_is_refused() {
        let good = "claim = 'c'\nsource = 's'\nbecause = 'b'\n[[experiment]]\nkind = 'less'\n\
                    server = 'a'\nto = 'b'\nworkload = 'ping-pong'\nquantity = 'cpu'\n\
                    margin = 0.1\nvalues = [1, 2]\n";
        assert!(Claim::parse("good", good).is_ok());
        for (from, to) in [
            ("[1, 2]", "[]"),
            ("[1, 2]", "[2, 1]"),
            ("0.1", "0.0"),
            ("to = 'b'", "to = 'b'\nlimit = 1.0"),
            ("to = 'b'", "to = 'b'\nproportional = true"),
            ("to = 'b'\n", "limits = 1.0\n"),
            ("to = 'b'\n", "to = 'b'\nthorough = true\n"),
        ] {
            assert!(Claim::parse("bad", &good.replace(from, to)).is_err(), "{to}");
        }
        let alone = good.replace("to = 'b'\n", "");
        assert!(Claim::parse("alone", &alone).is_ok());
        assert!(Claim::parse("alone", &alone.replace("[1, 2]", "[1]")).is_err());
    }
}
