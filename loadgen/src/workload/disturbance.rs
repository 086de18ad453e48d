//! What others may do to a server while its other connections are measured.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How connections behave badly.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Disturbance {
    /// Connects, closes, and connects again, 100 times a second each.
    ConnectStorm,
    /// Writes for as long as the server takes it, and never reads.
    StalledReader,
    /// Sends its lines one byte at a time, a byte every 5 ms.
    OneByte,
    /// Connects and says nothing.
    HalfOpen,
    /// Pipelines as fast as it can.
    Hog,
}
