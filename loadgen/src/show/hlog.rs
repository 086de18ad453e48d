//! The latencies of every run, second by second, as an interval log of HdrHistogram: its own tools
//! and plotters in many languages read it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, ensure};
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use crate::measure::{Measured, Report};
use crate::record::Stored;

/// Nanoseconds in the unit of the log's column for the largest value, as its tools expect.
const MILLISECOND: f64 = 1e6;

/// One run with numbers, by when it began.
struct Run<'a> {
    began: SystemTime,
    /// What precedes the name of a latency in its tag.
    tag: String,
    measured: &'a Measured,
}

/// All runs of all records, in the order of time.
pub fn hlog(records: &[Stored]) -> Result<String> {
    let mut runs = Vec::new();
    for record in records {
        let alone = records.len() == 1 && record.comparison.is_none() && record.runs.len() == 1;
        for (round, report) in &record.runs {
            let Some(measured) = &report.measured else { continue };
            let began = humantime::parse_rfc3339(&measured.began)
                .with_context(|| format!("{:?} is no time", measured.began))?;
            let tag = if alone { String::new() } else { tag(*round, report) };
            runs.push(Run { began, tag, measured });
        }
    }
    runs.sort_by_key(|run| run.began);
    let first = runs.first().context("no run has numbers: all are INVALID")?;
    write(first.began, &runs)
}

/// Which run a latency is of: `SERVER/WORKLOAD/...`, without what separates columns.
fn tag(round: u32, report: &Report) -> String {
    let w = &report.workload;
    let rate = w.rate.map_or(String::new(), |rate| format!("-rate{rate}"));
    let text = format!(
        "{}/{}-connections{}-size{}-depth{}{rate}/round{}/",
        report.server,
        w.name,
        w.connections,
        w.size,
        w.depth,
        round + 1
    );
    text.replace([',', ' ', '\r', '\n'], "_")
}

fn write(start: SystemTime, runs: &[Run<'_>]) -> Result<String> {
    let (mut text, mut serializer) = (Vec::new(), V2DeflateSerializer::new());
    let mut builder = IntervalLogWriterBuilder::new();
    builder
        .add_comment("[Logged by loadgen: latencies in nanoseconds, the largest in milliseconds]")
        .with_start_time(start)
        .with_max_value_divisor(MILLISECOND);
    let mut log = builder.begin_log_with(&mut text, &mut serializer)?;
    for run in runs {
        let began = run.began.duration_since(UNIX_EPOCH)?;
        let window = Duration::from_secs_f64(run.measured.window_seconds);
        for (second, from) in run.measured.seconds.iter().zip(0..) {
            let from = Duration::from_secs(from);
            // After the window the last answers come: they are counted in its last second.
            let lasts = window.saturating_sub(from).min(Duration::from_secs(1));
            for (n, (name, _)) in run.measured.histograms.iter().enumerate() {
                let histogram = second.histogram(n);
                if histogram.is_empty() {
                    continue;
                }
                let tag = format!("{}{name}", run.tag);
                let tag = Tag::new(&tag).with_context(|| format!("{tag:?} is no tag"))?;
                log.write_histogram(&histogram, began + from, lasts, Some(tag))
                    .map_err(|e| anyhow!("the log cannot be written: {e:?}"))?;
            }
        }
    }
    ensure!(!text.is_empty(), "the log is empty");
    Ok(String::from_utf8(text)?)
}
