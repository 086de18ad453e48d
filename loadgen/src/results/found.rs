//! What a search for the highest rate found.

use schemars::JsonSchema;
use serde::Serialize;

/// One probe.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Probe {
    /// Messages asked for each second.
    pub rate: f64,
    /// The objective's response time in nanoseconds.
    pub response_ns: u64,
    /// Messages that were due and not sent.
    pub unsent: u64,
    /// Whether the objective held and everything was sent.
    pub held: bool,
    /// What disturbed the machine meanwhile by so much that a miss may not be the server's; `None`
    /// if it was quiet.
    pub disturbed: Option<String>,
    /// What speaks against the run, in words.
    pub reasons: Vec<String>,
    /// The first of them that is a limit of the generator, if there is one.
    pub generator: Option<String>,
}

/// What the search found for one server.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Found {
    /// The server.
    pub server: String,
    /// The highest rate that held: the median of the searches; `None` if none did.
    pub rate: Option<f64>,
    /// The lowest rate above it that did not hold in that search; `None` if that ended before.
    pub missed: Option<f64>,
    /// The answer of every search that was finished, the lowest first.
    pub answers: Vec<f64>,
    /// Whether the answers are so close to each other that another search will find the same.
    pub reproducible: bool,
    /// Whether the server's own limit may be higher: the machine or the generator ended the search.
    pub at_least: bool,
    /// Why the search was given up, if it was: an error, or Ctrl-C.
    pub failed: Option<String>,
    /// What ended the search upwards, in words.
    pub limit: String,
    /// All probes in their order.
    pub probes: Vec<Probe>,
}
