//! Everything about one run: what was asked, how, what was measured, and the verdict.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use hdrhistogram::Histogram;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::meeting::Meeting;
use super::speed::Speed;
use super::{Cost, Disturbed, Kept, Part};
use crate::drive::{Latency, OpenLoop, Second};
use crate::target::Profile;
use crate::workload::Workload;

/// The latencies that a table shows, by name; a run has one of them.
const MAIN: [&str; 5] = ["latency", "response", "last", "visit", "disturbed"];

/// What stays the same over all runs of a command.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Settings {
    /// Seed of the payload.
    pub seed: u64,
    /// Generator threads.
    pub threads: u32,
    /// The server's core budget.
    pub workers: u32,
    /// Processors of the server; empty: not pinned.
    pub server_cpus: Vec<usize>,
    /// Processors of the generator; empty: not pinned.
    pub generator_cpus: Vec<usize>,
    /// Why nothing is pinned, where the system does not allow it.
    #[serde(default)]
    pub unpinned: Option<String>,
    /// Without any answer for so long, the server counts as stalled.
    #[serde(skip)]
    pub stall: Duration,
    /// What members of a chat say by PASS before they register. It is in no record.
    #[serde(skip)]
    pub password: Option<String>,
    /// What is to run beside the server once all is measured.
    #[serde(skip)]
    pub profile: Option<Profile>,
    /// Set by Ctrl-C.
    #[serde(skip)]
    pub interrupted: Arc<AtomicBool>,
    /// How fast the processors are meanwhile.
    #[serde(skip)]
    pub speed: Speed,
    /// Whom the window is to begin together with.
    #[serde(skip)]
    pub meeting: Option<Arc<dyn Meeting>>,
}

impl Settings {
    /// Whether an open loop's threads wait without sleeping: each has a processor to itself.
    pub(crate) fn spins(&self, workload: &Workload) -> bool {
        let threads = self.threads as usize + usize::from(workload.disturbance.is_some());
        let own = |cpu: &&usize| !self.server_cpus.contains(cpu);
        threads <= self.generator_cpus.iter().filter(own).count()
    }
}

/// Whether a run's numbers can be believed.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// Nothing speaks against them.
    Valid,
    /// They are true, but perhaps not the server's.
    Suspect,
    /// Something was wrong, and there are none.
    Invalid,
}

impl Status {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Valid => "VALID",
            Self::Suspect => "SUSPECT",
            Self::Invalid => "INVALID",
        }
    }
}

/// A status with its reasons.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// The status.
    pub status: Status,
    /// Why it is not VALID.
    pub reasons: Vec<String>,
    /// The first of these reasons that is a limit of the generator, if there is one: then the
    /// server's own limit is not known.
    #[serde(default)]
    pub generator: Option<String>,
}

/// What speaks against the numbers of a run, and whose doing it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// The generator has reached a limit of its own.
    Generator(String),
    /// The server, the machine, or what was asked.
    Other(String),
}

impl Doubt {
    /// In words.
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Generator(text) | Self::Other(text) => text,
        }
    }
}

impl Verdict {
    /// A status with reasons of which none is a limit of the generator.
    pub(crate) fn new(status: Status, reasons: Vec<String>) -> Self {
        Self { status, reasons, generator: None }
    }

    /// VALID, or SUSPECT if there are doubts.
    pub(crate) fn of(doubts: &[Doubt]) -> Self {
        let status = if doubts.is_empty() { Status::Valid } else { Status::Suspect };
        let reasons = doubts.iter().map(|doubt| doubt.text().to_owned()).collect();
        let generator = doubts.iter().find_map(|doubt| match doubt {
            Doubt::Generator(text) => Some(text.clone()),
            Doubt::Other(_) => None,
        });
        Self { status, reasons, generator }
    }
}

/// The numbers of a run that is not INVALID.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Measured {
    /// Messages checked, those in flight at the end included. In echo a message is a line that
    /// came back; in fan-out it is one delivery.
    pub messages: u64,
    /// Messages checked for each second from the first write to the last answer.
    pub messages_per_second: f64,
    /// Bytes of those messages, line ends included, for each second: in echo as many went each way.
    pub bytes_per_second: f64,
    /// Deliveries of one message that was sent; 1 in echo.
    pub deliveries_per_sent: f64,
    /// Connections opened, asked and closed for each second of the window; churn only.
    pub visits_per_second: Option<f64>,
    /// When the window began, RFC 3339 in UTC.
    pub began: String,
    /// What the bystanders felt, where they were disturbed.
    pub disturbed: Option<Disturbed>,
    /// Length of the window in seconds.
    pub window_seconds: f64,
    /// What became of the schedule, in an open loop.
    #[serde(default)]
    pub open_loop: Option<OpenLoop>,
    /// Latencies by name. Closed loop: `latency` in echo; `first`, `median` and `last` delivery in
    /// fan-out. Open loop: `response` (from the time of the schedule to the answer), `service`
    /// (from the write to the answer) and `lateness` (from the schedule to the write) in echo; in
    /// fan-out the deliveries, from the time of the schedule, and `lateness`. Churn: `answered`,
    /// from the connect to the first answer, and `visit`, to the end. Bystanders: `calm` and
    /// `disturbed`.
    pub latency: BTreeMap<String, Latency>,
    /// Busiest generator thread's part of a processor, from 0 to 1, without what it spent waiting.
    pub generator_cpu: f64,
    /// That thread's processor time for each message, its own or not, in nanoseconds: with one
    /// thread the generator's whole cost.
    pub generator_cpu_ns_per_message: f64,
    /// Part of the time, from 0 to 1, in which the processors ran at less than half their speed;
    /// `None` if it was not looked at.
    #[serde(default)]
    pub slow_processors: Option<f64>,
    /// Part of the time, from 0 to 1, of the processors in use that other guests of the host took.
    #[serde(default)]
    pub stolen_processors: Option<f64>,
    /// Part of it that other programs of this machine took; `None` where the server's process is
    /// not known, and so not told from others.
    #[serde(default)]
    pub taken_processors: Option<f64>,
    /// Costs of the server; `None` if its process is not known or not here.
    pub cost: Option<Cost>,
    /// Resident memory that each idle connection added, in bytes.
    pub idle_bytes_per_connection: Option<f64>,
    /// Kernel memory that each idle connection added, in bytes: sockets of both ends, stacks of
    /// threads, page tables; of the whole machine, so whatever else happens there is in it, and
    /// fewer than 1,000 connections do not show.
    #[serde(default)]
    pub kernel_bytes_per_connection: Option<f64>,
    /// System calls of the server for each message, counted while warming up.
    #[serde(default)]
    pub system_calls_per_message: Option<f64>,
    /// Why they are not known.
    #[serde(default)]
    pub system_calls_unknown: Option<String>,
    /// The latencies in full (ns), by name; a record keeps them beside the rest.
    #[serde(skip)]
    pub histograms: Vec<(String, Histogram<u64>)>,
    /// The same second by second.
    #[serde(skip)]
    pub seconds: Vec<Second>,
}

/// Everything about one run.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// The server's name.
    pub server: String,
    /// What was asked of it.
    pub workload: Workload,
    /// How.
    pub settings: Settings,
    /// Whether chat's flood control was on; `None` in echo, and where it is not ours to say.
    pub flood_control: Option<bool>,
    /// Whether Ctrl-C ended it early: then the numbers are of what was measured until then.
    #[serde(default)]
    pub interrupted: bool,
    /// Whether the numbers can be believed.
    pub verdict: Verdict,
    /// The numbers; none if the run is INVALID.
    pub measured: Option<Measured>,
    /// Faults by kind.
    pub faults: BTreeMap<String, u64>,
    /// The first few faults in words.
    pub examples: Vec<String>,
    /// The parts of the machines that drove it, where there were several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
    /// The agent beside the server, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Kept>,
}

impl Report {
    /// Whether a machine that took part in it, or the server that one of them kept, was lost.
    pub(crate) fn has_lost(&self) -> bool {
        let lost = self.parts.iter().any(|part| part.lost.is_some());
        lost || self.kept.as_ref().is_some_and(|kept| kept.lost.is_some())
    }
}

impl Measured {
    /// The latency that a table shows: of a line in echo (in an open loop from the time of the
    /// schedule), of the last delivery in fan-out, of the whole visit in churn, of bystanders
    /// while they are disturbed.
    pub fn main_latency(&self) -> Option<&Latency> {
        MAIN.iter().find_map(|name| self.latency.get(*name))
    }

    /// The same in full.
    pub fn main_histogram(&self) -> Option<&Histogram<u64>> {
        let of = |name: &&str| self.histograms.iter().find(|(own, _)| own == name);
        MAIN.iter().find_map(of).map(|(_, histogram)| histogram)
    }
}
