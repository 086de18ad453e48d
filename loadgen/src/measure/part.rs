//! One machine's part of a run that several machines drove.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Verdict;

/// One agent's part of a run.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Part {
    /// The agent's name.
    pub agent: String,
    /// The version of loadgen that it runs.
    pub version: String,
    /// Processors that it may use.
    pub cores: u32,
    /// Seed of its payload.
    pub seed: u64,
    /// Its share of the connections.
    pub connections: u32,
    /// Its share of the rate, in an open loop.
    pub rate: Option<f64>,
    /// Nanoseconds that its clock was ahead of the conductor's before the run. Where the window
    /// begins is corrected for it.
    pub clock_ahead_ns: Option<i64>,
    /// How well that is known, in nanoseconds: half of the quickest round trip.
    pub clock_within_ns: Option<u64>,
    /// Why it brought no result, if it brought none.
    pub lost: Option<String>,
    /// The verdict on its part.
    pub verdict: Option<Verdict>,
    /// Messages that it checked.
    pub messages: Option<u64>,
    /// The same for each second.
    pub messages_per_second: Option<f64>,
    /// The busiest generator thread's part of a processor there, from 0 to 1.
    pub generator_cpu: Option<f64>,
}

/// The agent beside the server of a run: it took the server's cost where that ran.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Kept {
    /// The agent's name.
    pub agent: String,
    /// The version of loadgen that it runs.
    pub version: String,
    /// Processors that it may use.
    pub cores: u32,
    /// Where the server listened; `None` if it was not there.
    pub addr: Option<String>,
    /// Processors of the server; empty: not pinned.
    pub server_cpus: Vec<usize>,
    /// Why the agent, or the server, was lost.
    pub lost: Option<String>,
}
