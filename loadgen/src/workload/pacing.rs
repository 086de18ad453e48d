//! How messages are spread over time, and lines over sizes.

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

/// Reads a size with its weight, such as `1024:9`, for `--sizes`.
pub fn parse_share(text: &str) -> Result<(u32, u32), String> {
    let parts = text.split_once(':').and_then(|(size, weight)| {
        let size = size.parse().ok().filter(|&size| size > 0)?;
        Some((size, weight.parse().ok().filter(|&weight| weight > 0)?))
    });
    parts.ok_or_else(|| {
        "expected BYTES:WEIGHT, both from 1 to 4294967295, such as 64:90,1024:9,16384:1".to_owned()
    })
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
        for wrong in ["64", "64:", "64:0", "0:64", "4294967296:1", "a:1", "64:-1", ""] {
            assert!(parse_share(wrong).is_err(), "{wrong:?}");
        }
    }
}
