//! How messages are spread over time, and lines over sizes: what a workload says, and what came
//! of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the times of an open loop's messages are drawn.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Arrivals {
    /// As from many users who know nothing of each other: a Poisson process.
    #[default]
    Poisson,
    /// At equal distances.
    Uniform,
}

/// What happens to a message of an open loop whose time has come while every connection has
/// `depth` lines in flight.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum WhenBusy {
    /// It waits until a connection has room; the wait is in its response time.
    #[default]
    Queue,
    /// It is written at once, behind what its connection has in flight already.
    Pipeline,
    /// It is not sent.
    Drop,
}

/// What became of the messages that an open loop's schedule held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OpenLoop {
    /// Messages in the schedule.
    pub scheduled: u64,
    /// Messages sent, in time or late.
    pub sent: u64,
    /// Messages not sent by the end of the window.
    pub unsent: u64,
    /// Messages that had to wait for a connection with room; they are among the sent.
    pub queued: u64,
    /// Messages sent beyond the depth because no connection had room; they are among the sent.
    pub pipelined: u64,
    /// Messages not sent because no connection had room.
    pub dropped: u64,
    /// Messages sent for each second, until the end of the window or, if it was later, until the
    /// last of them was sent.
    pub sent_per_second: f64,
}

impl OpenLoop {
    /// Adds what another thread has sent in the same window.
    pub fn merge(&mut self, other: &Self) {
        self.scheduled += other.scheduled;
        self.sent += other.sent;
        self.unsent += other.unsent;
        self.queued += other.queued;
        self.pipelined += other.pipelined;
        self.dropped += other.dropped;
        self.sent_per_second += other.sent_per_second;
    }
}

/// Reads a size with its weight, such as `1024:9`, for `--sizes`.
pub fn parse_share(text: &str) -> Result<(u32, u32), String> {
    let parts = text.split_once(':').and_then(|(size, weight)| {
        Some((size.parse().ok()?, weight.parse().ok().filter(|&weight| weight > 0)?))
    });
    parts.ok_or_else(|| "expected BYTES:WEIGHT, such as 64:90,1024:9,16384:1".to_owned())
}

/// Sizes with their weights as `--sizes` takes them.
pub fn shares(sizes: &[(u32, u32)]) -> String {
    let texts: Vec<_> = sizes.iter().map(|(size, weight)| format!("{size}:{weight}")).collect();
    texts.join(",")
}

/// The mean size in bytes, weighted and rounded.
pub fn mean_size(sizes: &[(u32, u32)]) -> u32 {
    let weights: u64 = sizes.iter().map(|&(_, weight)| u64::from(weight)).sum();
    let bytes: u64 = sizes.iter().map(|&(size, w)| u64::from(size) * u64::from(w)).sum();
    ((bytes + weights / 2) / weights.max(1)) as u32
}

/// The lengths of texts in lines of these sizes: without the line's end.
pub fn text_sizes(sizes: &[(u32, u32)]) -> Vec<(usize, u32)> {
    sizes.iter().map(|&(size, weight)| (size as usize - 1, weight)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_and_shown() {
        let sizes: Vec<_> =
            "64:90,1024:9".split(',').map(parse_share).map(Result::unwrap).collect();
        assert_eq!(sizes, [(64, 90), (1024, 9)]);
        assert_eq!(shares(&sizes), "64:90,1024:9");
        assert_eq!(mean_size(&sizes), (64 * 90 + 1024 * 9 + 49) / 99);
        for wrong in ["64", "64:", "64:0", "a:1", "64:-1", ""] {
            assert!(parse_share(wrong).is_err(), "{wrong:?}");
        }
    }
}
