//! Every run of a record as one line of comma-separated values, for spreadsheets and data frames.

use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;

use crate::drive::Latency;
use crate::measure::{Report, Status};
use crate::record::Stored;
use crate::workload::Workload;

/// The columns. What a run does not have is left empty.
const HEADER: [&str; 43] = [
    "record",
    "time",
    "round",
    "server",
    "workload",
    "mode",
    "connections",
    "active",
    "size",
    "depth",
    "channels",
    "members",
    "speakers",
    "loop",
    "rate",
    "arrivals",
    "when_busy",
    "churn",
    "disturbance",
    "disturbers",
    "wait_s",
    "work_s",
    "duration_s",
    "verdict",
    "reasons",
    "messages",
    "messages_per_second",
    "latency",
    "min_ns",
    "mean_ns",
    "p50_ns",
    "p90_ns",
    "p99_ns",
    "p999_ns",
    "max_ns",
    "generator_cpu",
    "cpu_ns_per_message",
    "voluntary_switches_per_message",
    "involuntary_switches_per_message",
    "peak_rss_bytes",
    "idle_bytes_per_connection",
    "kernel_bytes_per_connection",
    "system_calls_per_message",
];

/// All runs of all records.
pub fn render(records: &[Stored]) -> Result<String> {
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    writer.write_record(HEADER)?;
    for record in records {
        for (round, run) in &record.runs {
            for line in lines(record, *round, run) {
                writer.write_record(&line)?;
            }
        }
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}

/// A line for each latency of the run; one without any for a run that has none.
fn lines(record: &Stored, round: u32, run: &Report) -> Vec<Vec<String>> {
    match &run.measured {
        None => vec![line(record, round, run, None)],
        Some(m) => m.latency.iter().map(|l| line(record, round, run, Some(l))).collect(),
    }
}

/// How the loop goes, and what is special about this workload.
fn question(w: &Workload) -> [String; 9] {
    fn name(value: Option<impl ValueEnum>) -> String {
        let known = value.and_then(|value| value.to_possible_value());
        known.map(|known| known.get_name().to_owned()).unwrap_or_default()
    }
    let seconds = |time: Duration| time.as_secs_f64().to_string();
    let number = |value: Option<u32>| value.map(|n| n.to_string()).unwrap_or_default();
    [
        if w.rate.is_some() { "open" } else { "closed" }.to_owned(),
        w.rate.map(|rate| rate.to_string()).unwrap_or_default(),
        name(w.rate.map(|_| w.arrivals)),
        name(w.rate.map(|_| w.when_busy)),
        number(w.churn),
        name(w.disturbance),
        number(w.disturbance.map(|_| w.disturbers)),
        seconds(w.wait),
        seconds(w.work),
    ]
}

fn line(
    record: &Stored,
    round: u32,
    run: &Report,
    latency: Option<(&String, &Latency)>,
) -> Vec<String> {
    let w = &run.workload;
    let mut cells = vec![
        record.dir.display().to_string(),
        record.host.time.clone(),
        round.to_string(),
        run.server.clone(),
        w.name.clone(),
        w.mode.name().to_owned(),
    ];
    let sizes = [w.connections, w.active, w.size, w.depth, w.channels, w.members, w.speakers];
    cells.extend(sizes.map(|n| n.to_string()));
    cells.extend(question(w));
    cells.push(w.duration.as_secs_f64().to_string());
    cells.push(run.verdict.status.word().to_owned());
    cells.push(run.verdict.reasons.join("; "));
    let m = run.measured.as_ref().filter(|_| run.verdict.status != Status::Invalid);
    let cost = m.and_then(|m| m.cost.as_ref());
    let text = |value: Option<f64>| value.map(|v| v.to_string()).unwrap_or_default();
    cells.push(text(m.map(|m| m.messages as f64)));
    cells.push(text(m.map(|m| m.messages_per_second)));
    cells.push(latency.map(|(name, _)| name.clone()).unwrap_or_default());
    let l = latency.map(|(_, latency)| latency);
    cells.push(text(l.map(|l| l.min as f64)));
    cells.push(text(l.map(|l| l.mean)));
    let quantiles: [fn(&Latency) -> u64; 5] =
        [|l| l.p50, |l| l.p90, |l| l.p99, |l| l.p999, |l| l.max];
    cells.extend(quantiles.map(|quantile| text(l.map(|l| quantile(l) as f64))));
    cells.push(text(m.map(|m| m.generator_cpu)));
    cells.push(text(cost.map(|c| c.cpu_ns_per_message)));
    cells.push(text(cost.map(|c| c.voluntary_switches_per_message)));
    cells.push(text(cost.map(|c| c.involuntary_switches_per_message)));
    cells.push(text(cost.map(|c| c.peak_rss_bytes as f64)));
    cells.push(text(m.and_then(|m| m.idle_bytes_per_connection)));
    cells.push(text(m.and_then(|m| m.kernel_bytes_per_connection)));
    cells.push(text(m.and_then(|m| m.system_calls_per_message)));
    cells
}
