//! What response times must keep to, such as `p99<1ms`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::base::bounds::DAY;

/// The part of all messages that are as fast as an objective asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantile {
    /// Half of them.
    P50,
    /// 90 %.
    P90,
    /// 99 %.
    P99,
    /// 99.9 %.
    P999,
    /// All of them.
    Max,
}

impl Quantile {
    const ALL: [Self; 5] = [Self::P50, Self::P90, Self::P99, Self::P999, Self::Max];

    /// The word for `--objective`.
    pub fn name(self) -> &'static str {
        match self {
            Self::P50 => "p50",
            Self::P90 => "p90",
            Self::P99 => "p99",
            Self::P999 => "p99.9",
            Self::Max => "max",
        }
    }

    /// Part of the messages that may be slower, from 0 to 1.
    pub fn tail(self) -> f64 {
        match self {
            Self::P50 => 0.5,
            Self::P90 => 0.1,
            Self::P99 => 0.01,
            Self::P999 => 0.001,
            Self::Max => 0.0,
        }
    }
}

/// What response times must keep to.
#[derive(Clone, Copy, Debug)]
pub struct Objective {
    /// Of how many messages.
    pub quantile: Quantile,
    /// Their response time must be shorter.
    pub limit: Duration,
}

impl FromStr for Objective {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('<').and_then(|(name, limit)| {
            let quantile = Quantile::ALL.into_iter().find(|known| known.name() == name.trim())?;
            let limit = humantime::parse_duration(limit.trim()).ok();
            let limit = limit.filter(|limit| !limit.is_zero() && *limit <= DAY)?;
            Some(Self { quantile, limit })
        });
        parts.ok_or_else(|| {
            "expected p50, p90, p99, p99.9 or max below a duration from 1ns to 1day, such as \
             'p99<1ms'"
                .to_owned()
        })
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}<{}", self.quantile.name(), humantime::format_duration(self.limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objectives_are_read_and_shown() {
        for text in ["p99<1ms", "p50 < 200us", "p99.9<2s", "max<1s"] {
            let objective: Objective = text.parse().unwrap();
            assert_eq!(objective.to_string(), text.replace(' ', ""));
        }
        for wrong in ["p98<1ms", "p99", "p99<", "p99<0s", "p99<25h", "p99>1ms", ""] {
            assert!(wrong.parse::<Objective>().is_err(), "{wrong:?}");
        }
    }
}
