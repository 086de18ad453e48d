//! Several generators that drove one server at the same time, as one run.
//!
//! Counts, rates and histograms add up exactly. What the server cost is one thing that each
//! generator may have seen, so it is taken from one of them and divided by all messages.

use std::time::SystemTime;

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::drive::Latency;
use crate::measure::{Cost, Measured, Report, Status, Verdict};
use crate::workload::{Mode, Workload};

/// Part of the longest window that all windows must have in common.
const TOGETHER: f64 = 0.9;
/// Faults that are told in words.
const EXAMPLES: usize = 5;

/// One run from those of all generators; they must belong together.
pub(crate) fn merged(runs: &[&Report]) -> Result<Report> {
    let [first, others @ ..] = runs else { bail!("there is nothing to merge") };
    ensure!(!others.is_empty(), "merging takes two records or more");
    for (n, other) in others.iter().enumerate() {
        belongs(first, other)?;
        let known = runs[..=n].iter().any(|earlier| earlier.settings.seed == other.settings.seed);
        ensure!(
            !known,
            "two generators used --seed {}; each needs its own, or a line that went to the wrong \
             generator would not be noticed",
            other.settings.seed
        );
    }
    let measured = runs.iter().map(|run| run.measured.as_ref()).collect::<Option<Vec<_>>>();
    let mut report = Report { measured: None, ..(*first).clone() };
    report.workload.connections = runs.iter().map(|run| run.workload.connections).sum();
    report.workload.active = runs.iter().map(|run| run.workload.active).sum();
    report.workload.rate = runs.iter().map(|run| run.workload.rate).sum();
    report.settings.threads = runs.iter().map(|run| run.settings.threads).sum();
    report.settings.generator_cpus = Vec::new();
    for run in others {
        for (fault, count) in &run.faults {
            *report.faults.entry(fault.clone()).or_default() += count;
        }
        report.examples.extend(run.examples.iter().cloned());
    }
    report.examples.truncate(EXAMPLES);
    report.interrupted = runs.iter().any(|run| run.interrupted);
    report.verdict = verdict(runs);
    if let Some(measured) = measured.filter(|_| report.verdict.status != Status::Invalid) {
        report.measured = Some(sum(&measured)?);
    }
    Ok(report)
}

/// The same question to the same server; only the connections may differ.
fn belongs(first: &Report, other: &Report) -> Result<()> {
    let (a, b) = (&first.server, &other.server);
    ensure!(a == b, "one generator drove {a} and another {b}; name the server alike in all");
    ensure!(
        first.workload.mode == Mode::Echo,
        "{} cannot be merged: the members of two generators would have the same nicknames",
        first.workload.name
    );
    ensure!(
        first.workload.disturbance.is_none(),
        "{} cannot be merged: each generator brought disturbers of its own",
        first.workload.name
    );
    let question = |w: &Workload| Workload { connections: 0, active: 0, ..w.clone() };
    ensure!(
        question(&first.workload) == question(&other.workload),
        "the generators asked different things of {a}: all but --connections and --active must be \
         the same"
    );
    Ok(())
}

fn verdict(runs: &[&Report]) -> Verdict {
    let reasons = runs.iter().enumerate().flat_map(|(n, run)| {
        run.verdict.reasons.iter().map(move |why| format!("generator {}: {why}", n + 1))
    });
    let status = runs.iter().map(|run| run.verdict.status).max().unwrap_or(Status::Invalid);
    let generator = runs.iter().find_map(|run| run.verdict.generator.clone());
    Verdict { status, reasons: reasons.collect(), generator }
}

fn sum(all: &[&Measured]) -> Result<Measured> {
    together(all)?;
    let mut merged = all[0].clone();
    for other in &all[1..] {
        merged.messages += other.messages;
        merged.messages_per_second += other.messages_per_second;
        merged.bytes_per_second += other.bytes_per_second;
        merged.visits_per_second =
            merged.visits_per_second.zip(other.visits_per_second).map(|(a, b)| a + b);
        if let (Some(sum), Some(theirs)) = (&mut merged.open_loop, &other.open_loop) {
            sum.merge(theirs);
        }
        merged.window_seconds = merged.window_seconds.max(other.window_seconds);
        for (name, histogram) in &mut merged.histograms {
            let same = other.histograms.iter().find(|(theirs, _)| theirs == name);
            let (_, theirs) = same.with_context(|| format!("one record has no {name}"))?;
            histogram.add(theirs).map_err(|e| anyhow!("{name}: {e}"))?;
        }
        let both = merged.seconds.len().min(other.seconds.len());
        for (second, theirs) in merged.seconds.iter_mut().zip(&other.seconds) {
            second.merge(theirs.clone());
        }
        merged.seconds.extend_from_slice(&other.seconds[both..]);
    }
    let of = |(name, histogram): &(String, _)| (name.clone(), Latency::of(histogram));
    merged.latency = merged.histograms.iter().map(of).collect();
    let busiest = all.iter().max_by(|a, b| a.generator_cpu.total_cmp(&b.generator_cpu));
    if let Some(busiest) = busiest {
        merged.generator_cpu = busiest.generator_cpu;
        merged.generator_cpu_ns_per_message = busiest.generator_cpu_ns_per_message;
    }
    let most = |part: fn(&Measured) -> Option<f64>| {
        all.iter().filter_map(|m| part(m)).max_by(f64::total_cmp)
    };
    merged.slow_processors = most(|m| m.slow_processors);
    merged.stolen_processors = most(|m| m.stolen_processors);
    merged.taken_processors = most(|m| m.taken_processors);
    merged.cost = cost(all, merged.messages);
    // What one generator saw grow may have been for the connections of another.
    merged.idle_bytes_per_connection = None;
    merged.kernel_bytes_per_connection = None;
    // Each generator has counted the calls that all of them caused, over its own messages.
    merged.system_calls_per_message = None;
    merged.system_calls_unknown = Some("counted by several generators at once".into());
    Ok(merged)
}

/// The windows must overlap, or their rates were never reached at the same time.
fn together(all: &[&Measured]) -> Result<()> {
    let (mut from, mut to, mut longest) = (f64::MIN, f64::MAX, 0.0_f64);
    for measured in all {
        let began = humantime::parse_rfc3339(&measured.began)
            .with_context(|| format!("{:?} is no time", measured.began))?;
        let began = began.duration_since(SystemTime::UNIX_EPOCH)?.as_secs_f64();
        from = from.max(began);
        to = to.min(began + measured.window_seconds);
        longest = longest.max(measured.window_seconds);
    }
    ensure!(
        to - from >= TOGETHER * longest,
        "the generators did not measure at the same time: their windows have {:.1} of {longest:.1} \
         s in common; start them together, with a long --warmup to be sure",
        (to - from).max(0.0)
    );
    Ok(())
}

/// The server's cost from the generator that saw most of it, for the messages of all.
fn cost(all: &[&Measured], messages: u64) -> Option<Cost> {
    let seen = all.iter().filter_map(|m| Some((m.cost.as_ref()?, m.messages)));
    let total = |(cost, own): &(&Cost, u64)| cost.cpu_ns_per_message * *own as f64;
    let (cost, own) = seen.max_by(|a, b| total(a).total_cmp(&total(b)))?;
    let part = own as f64 / messages.max(1) as f64;
    Some(Cost {
        cpu_ns_per_message: cost.cpu_ns_per_message * part,
        voluntary_switches_per_message: cost.voluntary_switches_per_message * part,
        involuntary_switches_per_message: cost.involuntary_switches_per_message * part,
        ..cost.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drive::histogram;
    use hdrhistogram::Histogram;
    use serde_json::json;

    /// What one of two generators left: `values` in nanoseconds, and the server's cost if seen.
    fn report(seed: u64, values: &[u64], cpu_ns: Option<f64>) -> Report {
        let changes = crate::workload::Changes { connections: Some(2), ..Default::default() };
        let second = std::time::Duration::from_secs(1);
        let workload = Workload::find("ping-pong", &changes, second, second).unwrap();
        let cost = cpu_ns.map(|ns| {
            json!({
                "cpu_ns_per_message": ns, "user_share": null, "threads": 1, "descriptors": 9,
                "voluntary_switches_per_message": 1.0, "involuntary_switches_per_message": 0.0,
                "peak_rss_bytes": 4096,
            })
        });
        let mut report: Report = serde_json::from_value(json!({
            "server": "10.0.0.1:7007", "workload": workload,
            "settings": { "seed": seed, "threads": 1, "workers": 1,
                          "server_cpus": [], "generator_cpus": [] },
            "flood_control": null, "verdict": { "status": "VALID", "reasons": [] },
            "faults": {}, "examples": [],
            "measured": {
                "messages": values.len(), "messages_per_second": values.len(),
                "bytes_per_second": 64.0, "visits_per_second": null,
                "deliveries_per_sent": 1.0, "began": "2026-11-22T12:00:00.000000Z",
                "window_seconds": 1.0, "latency": {}, "generator_cpu": 0.5,
                "generator_cpu_ns_per_message": 900.0, "cost": cost,
                "idle_bytes_per_connection": 100.0,
            },
        }))
        .unwrap();
        let measured = report.measured.as_mut().unwrap();
        measured.histograms.push(("latency".into(), filled(values)));
        report
    }

    fn filled(values: &[u64]) -> Histogram<u64> {
        let mut histogram = histogram();
        values.iter().for_each(|&value| histogram.saturating_record(value));
        histogram
    }

    fn refused(a: &Report, b: &Report, why: &str) {
        let error = merged(&[a, b]).unwrap_err().to_string();
        assert!(error.contains(why), "{error:?} should say {why:?}");
    }

    #[test]
    fn merged_is_the_histogram_of_the_union() {
        let (a, b) = ([1_000, 2_000, 50_000_000], [1_001, 2_000, 7, 900_000_000_000]);
        let (one, other) = (report(1, &a, None), report(2, &b, None));
        let sum = merged(&[&one, &other]).unwrap().measured.unwrap();
        assert_eq!(sum.histograms[0].1, filled(&[&a[..], &b[..]].concat()));
        assert_eq!(
            (sum.messages, sum.messages_per_second, sum.latency["latency"].count),
            (7, 7.0, 7)
        );
    }

    #[test]
    fn the_cost_of_the_one_server_counts_once() {
        // Both watched it: 3 messages of 4,000 ns, and 1 of 11,000, are the same 12 µs or so.
        let (one, other) = (report(1, &[1; 3], Some(4_000.0)), report(2, &[1], Some(11_000.0)));
        let both = merged(&[&one, &other]).unwrap().measured.unwrap();
        assert_eq!(both.cost.unwrap().cpu_ns_per_message, 3_000.0);
        let far = report(2, &[1], None);
        let cost = merged(&[&one, &far]).unwrap().measured.unwrap().cost.unwrap();
        assert_eq!((cost.cpu_ns_per_message, cost.peak_rss_bytes), (3_000.0, 4096));
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let one = report(1, &[1], None);
        refused(&one, &report(1, &[1], None), "--seed 1");
        let change = |change: fn(&mut Report)| {
            let mut other = report(2, &[1], None);
            change(&mut other);
            other
        };
        refused(&one, &change(|r| r.server = "10.0.0.2:7007".into()), "another 10.0.0.2:7007");
        refused(&one, &change(|r| r.workload.depth = 2), "asked different things");
        let late = |r: &mut Report| {
            r.measured.as_mut().unwrap().began = "2026-11-22T12:00:00.500000Z".into();
        };
        refused(&one, &change(late), "0.5 of 1.0 s in common");
        assert!(merged(&[&one]).is_err());
        let invalid = change(|r| {
            r.verdict.status = Status::Invalid;
            r.faults.insert("lost".into(), 3);
            r.measured = None;
        });
        let sum = merged(&[&one, &invalid]).unwrap();
        assert!(sum.measured.is_none() && sum.verdict.status == Status::Invalid);
        assert_eq!(sum.faults["lost"], 3);
    }
}
