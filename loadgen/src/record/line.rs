//! One line of `runs.jsonl`: a run with its full histograms.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::packed::{Packed, counts};
use crate::drive::Second;
use crate::measure::Report;

/// One line of `runs.jsonl`.
#[derive(Serialize, Deserialize)]
pub(super) struct Line {
    round: u32,
    #[serde(flatten)]
    report: Report,
    histograms: BTreeMap<String, Packed>,
    /// The same second by second; empty if there was but one.
    #[serde(default)]
    seconds: Vec<StoredSecond>,
}

/// One second of a run.
#[derive(Serialize, Deserialize)]
struct StoredSecond {
    messages: u64,
    histograms: BTreeMap<String, Packed>,
}

impl Line {
    /// What is kept of a run.
    pub(super) fn of(round: u32, report: &Report) -> Result<Self> {
        let (mut histograms, mut seconds) = (BTreeMap::new(), Vec::new());
        if let Some(measured) = &report.measured {
            for (name, histogram) in &measured.histograms {
                histograms.insert(name.clone(), Packed::of(histogram)?);
            }
            for second in measured.seconds.iter().filter(|_| measured.seconds.len() > 1) {
                let mut stored =
                    StoredSecond { messages: second.messages, histograms: BTreeMap::new() };
                for ((name, _), counts) in measured.histograms.iter().zip(&second.counts) {
                    stored.histograms.insert(name.clone(), Packed::of_counts(counts)?);
                }
                seconds.push(stored);
            }
        }
        Ok(Self { round, report: report.clone(), histograms, seconds })
    }

    /// The run with its round.
    pub(super) fn parse(text: &str) -> Result<(u32, Report)> {
        let Self { round, mut report, histograms, seconds } = serde_json::from_str(text)?;
        if let Some(measured) = &mut report.measured {
            for (name, packed) in &histograms {
                measured.histograms.push((name.clone(), packed.histogram()?));
            }
            for stored in seconds {
                let mut second = Second { messages: stored.messages, counts: Vec::new() };
                for name in histograms.keys() {
                    let packed = stored.histograms.get(name);
                    second.counts.push(packed.map(Packed::counts).transpose()?.unwrap_or_default());
                }
                measured.seconds.push(second);
            }
            if measured.seconds.is_empty() {
                let counts = measured.histograms.iter().map(|(_, histogram)| counts(histogram));
                let only = Second { messages: measured.messages, counts: counts.collect() };
                measured.seconds.push(only);
            }
        }
        Ok((round, report))
    }
}

/// A run with its full histograms, as one line.
pub(crate) fn written_run(report: &Report) -> Result<String> {
    Ok(serde_json::to_string(&Line::of(0, report)?)?)
}

/// The same, read again.
pub(crate) fn read_run(text: &str) -> Result<Report> {
    Ok(Line::parse(text)?.1)
}
