//! Everything about one run, for people.

use super::table::draw;
use crate::base::text::{bytes, number, percent, thousands, time};
use crate::drive::OpenLoop;
use crate::measure::{Disturbed, Kept, Measured, Part, Report};
use crate::target::cpus::format_cpus;
use crate::workload::Workload;

/// Seconds of a run that are shown one by one.
const SECONDS: usize = 20;

/// The latencies in the order in which they are read: the most telling one first.
const LATENCIES: [&str; 11] = [
    "latency",
    "response",
    "service",
    "lateness",
    "first",
    "median",
    "last",
    "answered",
    "visit",
    "disturbed",
    "calm",
];

/// Everything about one run.
pub fn run(report: &Report) -> String {
    draw(&["", ""], &rows(report), 2)
}

/// The same as names and values.
pub(super) fn rows(report: &Report) -> Vec<Vec<String>> {
    let w = &report.workload;
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut row = |name: &str, value: String| rows.push(vec![name.to_owned(), value]);
    row("server", report.server.clone());
    row("workload", format!("{}: {}", w.name, w.summary));
    row("loop", w.loop_kind());
    row("connections, size, depth", w.numbers());
    if let Some(on) = report.flood_control {
        row("flood control", if on { "on" } else { "off" }.into());
    }
    if let Some(m) = &report.measured {
        let checked = format!("{} in {:.2} s", thousands(m.messages), m.window_seconds);
        row("messages checked", checked);
        row("messages/s", number(m.messages_per_second));
        row("MiB/s", number(m.bytes_per_second / 1_048_576.0));
        if let Some(visits) = m.visits_per_second {
            row("visits/s", format!("{}: connect, ask, close", number(visits)));
        }
        if let Some(disturbed) = &m.disturbed {
            disturbance(disturbed, &mut row);
        }
        if m.deliveries_per_sent > 1.0 {
            let sent = m.messages_per_second / m.deliveries_per_sent;
            row("sent/s", format!("{}; a message is one delivery", number(sent)));
        }
        if let Some(open) = &m.open_loop {
            open_loop(open, &mut row);
        }
        let place = |name: &str| LATENCIES.iter().position(|known| *known == name);
        let mut latencies: Vec<_> = m.latency.iter().collect();
        latencies.sort_by_key(|(name, _)| place(name));
        for (name, l) in latencies {
            let of = |ns: u64| time(ns as f64);
            let [p50, p90, p99, p999, max] = [l.p50, l.p90, l.p99, l.p999, l.max].map(of);
            row(name, format!("p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p999}, max {max}"));
        }
        if let Some(seconds) = by_second(m) {
            row("p99 by second", seconds);
        }
        let own = time(m.generator_cpu_ns_per_message);
        let busy = m.generator_cpu * 100.0;
        row("generator's processor", format!("{busy:.0} % busy, {own} for each message"));
        cost(m, !report.parts.is_empty(), &mut row);
        memory(m, w, &mut row);
        row(
            "system calls/message",
            match (m.system_calls_per_message, &m.system_calls_unknown) {
                (Some(calls), _) => number(calls),
                (None, why) => format!("not known: {}", why.as_deref().unwrap_or("not counted")),
            },
        );
    }
    for example in &report.examples {
        row("fault", example.clone());
    }
    for each in &report.parts {
        row(&format!("agent {}", each.agent), part(each));
    }
    if let Some(each) = &report.kept {
        row(&format!("agent {}", each.agent), kept(each));
    }
    row("verdict", report.verdict.status.word().to_owned());
    for reason in &report.verdict.reasons {
        row("", reason.clone());
    }
    rows
}

/// What one of several machines did.
fn part(part: &Part) -> String {
    let mut told = format!("{} connections", thousands(u64::from(part.connections)));
    if let Some(rate) = part.rate {
        told.push_str(&format!(", {}/s asked for", number(rate)));
    }
    if let Some((messages, rate)) = part.messages.zip(part.messages_per_second) {
        told.push_str(&format!(", {} messages, {}/s", thousands(messages), number(rate)));
    }
    if let Some(busy) = part.generator_cpu {
        told.push_str(&format!(", {:.0} % busy", busy * 100.0));
    }
    if let Some((ahead, within)) = part.clock_ahead_ns.zip(part.clock_within_ns) {
        let way = if ahead < 0 { "behind" } else { "ahead" };
        let [by, within] = [ahead.unsigned_abs(), within].map(|ns| time(ns as f64));
        told.push_str(&format!(", its clock {by} {way} (known to {within})"));
    }
    let fate = match &part.verdict {
        Some(verdict) => verdict.status.word(),
        None if part.lost.is_some() => "lost",
        None => "no result",
    };
    told.push_str(&format!(": {fate}"));
    told
}

/// What the agent beside the server did.
fn kept(kept: &Kept) -> String {
    let addr = kept.addr.as_deref().unwrap_or("it is not known where");
    let on = match &kept.server_cpus[..] {
        [] => String::new(),
        cpus => format!(", on processors {}", format_cpus(cpus)),
    };
    let fate = if kept.lost.is_some() { ": lost" } else { "" };
    format!("beside the server, which listened at {addr}{on}{fate}")
}

/// What bystanders felt: the rate and costs around this are those while they were disturbed.
fn disturbance(disturbed: &Disturbed, row: &mut impl FnMut(&str, String)) {
    let Disturbed { calm_messages_per_second, p50_ratio, p99_ratio, fate } = disturbed;
    row("messages/s before", number(*calm_messages_per_second));
    row("disturbed / calm", format!("p50 x {}, p99 x {}", number(*p50_ratio), number(*p99_ratio)));
    let [connected, refused, cut, served] =
        [fate.connected, fate.refused, fate.cut, fate.served].map(thousands);
    row(
        "disturbers",
        format!(
            "{connected} connected, {refused} refused, {cut} cut; {served} lines served; \
             {:.0} % of a processor",
            fate.cpu * 100.0
        ),
    );
}

/// The 99th percentile of the main latency in each second of a window of two or more, so that a
/// stall is seen; `-` where nothing was recorded.
fn by_second(measured: &Measured) -> Option<String> {
    let main = measured.main_histogram()?;
    let n = measured.histograms.iter().position(|(_, own)| std::ptr::eq(own, main))?;
    // After the window only the last answers come: they are no second of their own.
    let window = (measured.window_seconds - 0.1).ceil() as usize;
    let p99s = measured.seconds.iter().take(window).map(|second| second.p99(n));
    let p99s: Vec<_> = p99s.filter(|_| measured.window_seconds >= 2.0).collect();
    let shown = |p99: &Option<u64>| p99.map_or("-".into(), |ns| time(ns as f64));
    let first: Vec<String> = p99s.iter().take(SECONDS).map(shown).collect();
    let mut text = first.join(", ");
    let rest = (SECONDS + 1..).zip(p99s.iter().skip(SECONDS));
    if let Some((at, worst)) = rest.max_by_key(|(_, p99)| p99.unwrap_or(u64::MAX)) {
        let more = p99s.len() - SECONDS;
        text.push_str(&format!(", and {more} more, the worst {} in second {at}", shown(worst)));
    }
    (!text.is_empty()).then_some(text)
}

fn open_loop(open: &OpenLoop, row: &mut impl FnMut(&str, String)) {
    let OpenLoop { scheduled, sent, unsent, queued, pipelined, dropped, sent_per_second } = *open;
    row("sent of scheduled", format!("{} of {}", thousands(sent), thousands(scheduled)));
    row("sent/s, of the schedule", number(sent_per_second));
    let counts = [unsent, queued, pipelined, dropped].map(thousands);
    let [unsent, queued, pipelined, dropped] = counts;
    let busy = format!("{queued} queued, {pipelined} pipelined, {dropped} dropped");
    row("not sent in the window", unsent);
    row("found every connection busy", busy);
}

fn cost(measured: &Measured, from_agents: bool, row: &mut impl FnMut(&str, String)) {
    let Some(cost) = &measured.cost else {
        let give = if from_agents { "--server-agent" } else { "--pid" };
        return row("server's cost", format!("not known: its process is not (give {give})"));
    };
    let share = match cost.user_share {
        Some(user) => format!(" ({:.0} % user)", user * 100.0),
        None => String::new(),
    };
    row("server CPU/message", format!("{}{share}", time(cost.cpu_ns_per_message)));
    let of_one = cost.cpu_ns_per_message * measured.messages_per_second / 1e9;
    row("server CPU at this rate", format!("{} of a processor", percent(of_one)));
    row(
        "switches/message",
        format!(
            "{} voluntary, {} involuntary",
            number(cost.voluntary_switches_per_message),
            number(cost.involuntary_switches_per_message)
        ),
    );
    row("peak resident memory", bytes(cost.peak_rss_bytes as f64));
    row("threads, descriptors", format!("{}, {}", cost.threads, cost.descriptors));
}

/// What the connections took of memory.
fn memory(measured: &Measured, workload: &Workload, row: &mut impl FnMut(&str, String)) {
    let all = |each: f64| bytes(each * f64::from(workload.connections));
    if let Some(idle) = measured.idle_bytes_per_connection {
        let each = bytes(idle);
        row("resident per connection", format!("{each}, opened and idle; all: {}", all(idle)));
    }
    if let Some(kernel) = measured.kernel_bytes_per_connection {
        let each = bytes(kernel);
        row("kernel memory per connection", format!("{each}, both ends; all: {}", all(kernel)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drive::{Second, histogram};
    use crate::measure::verdict::{Evidence, judge};
    use crate::workload::Changes;
    use std::time::Duration;

    /// What is shown of a window with these latencies (ns), one in each second; 0 is a stall.
    fn seconds(latencies: &[u64], window_ns: u64) -> Option<String> {
        let second = Duration::from_secs(1);
        let workload = Workload::find("ping-pong", &Changes::default(), second, second).unwrap();
        let mut evidence = Evidence::default();
        evidence.phase.total = latencies.len() as u64;
        (evidence.phase.window_ns, evidence.phase.busy_ns) = (window_ns, window_ns);
        evidence.phase.histograms.push(("latency", histogram()));
        let second = |&ns: &u64| Second {
            messages: 1,
            counts: vec![Some((ns, 1)).filter(|_| ns > 0).into_iter().collect()],
        };
        evidence.phase.seconds = latencies.iter().map(second).collect();
        by_second(&judge(&workload, &evidence).1.unwrap())
    }

    #[test]
    fn a_stall_is_seen_in_its_second() {
        let seen = seconds(&[1_000, 0, 2_000_000, 9], 3_000_001_000);
        assert_eq!(seen.unwrap(), "1.00 µs, -, 2.00 ms", "the last answers are no second");
        assert_eq!(seconds(&[1_000, 9], 1_900_000_000), None, "it would say nothing new");
        let mut many = vec![1_000; 60];
        many[44] = 5_000_000;
        let seen = seconds(&many, 60_000_000_000).unwrap();
        assert_eq!(seen.matches("1.00 µs").count(), 20);
        assert!(seen.ends_with(", and 40 more, the worst 5.00 ms in second 45"), "{seen}");
    }
}
