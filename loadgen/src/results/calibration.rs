//! What a calibration found: the same server driven against itself.

use schemars::JsonSchema;
use serde::Serialize;

use super::stats::{Ratio, Spread};

/// What came out.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct Calibration {
    /// The server.
    pub server: String,
    /// Part of its CPU per message that the second of each pair burns in addition; 0: none.
    pub handicap: f64,
    /// Rounds of each pair.
    pub rounds: u32,
    /// Second to first, of each pair.
    pub pairs: Vec<Ratio>,
    /// Pairs called different: the second slower.
    pub slower: usize,
    /// Pairs called different: the second faster.
    pub faster: usize,
    /// Messages for each second of the server as it is: with the null reference, the ceiling.
    pub rate: Option<Spread>,
    /// Its processor time for each message in nanoseconds.
    pub cpu_ns: Option<Spread>,
    /// The generator's processor time for each message in nanoseconds.
    pub generator_ns: Option<Spread>,
    /// The median part by which the two of a pair differ in a single round.
    pub noise: f64,
    /// Whether Ctrl-C ended it early.
    pub interrupted: bool,
}
