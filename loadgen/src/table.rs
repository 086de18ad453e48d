//! Results for people: tables on standard output, drawn for a terminal, Markdown into a pipe.
//!
//! There are no colours, so that NO_COLOR has nothing to forbid.

mod comparison;

use std::io::{ErrorKind, IsTerminal, Write};

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};

use crate::bystanders::Disturbed;
use crate::pacing::OpenLoop;
use crate::run::{Measured, Report, Status};

pub use comparison::comparison;
#[cfg(test)]
pub(crate) use comparison::tests::three_kinds;
pub(crate) use comparison::{
    ENOUGH_CONNECTIONS, HONESTY, heading, letter, limited, map_title, mapped, not_mapped, notes,
    rank, ranked, told, verdict,
};

/// Seconds of a run that are shown one by one.
const SECONDS: usize = 20;

/// Writes to standard output. A reader who has seen enough and left is no error.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
    }
}

/// A table of texts; the columns from `numbers` on are aligned to the right.
pub fn draw(header: &[&str], rows: &[Vec<String>], numbers: usize) -> String {
    let mut table = Table::new();
    let terminal = std::io::stdout().is_terminal();
    table.load_style(if terminal { presets::UTF8_FULL_CONDENSED } else { presets::ASCII_MARKDOWN });
    table.set_header(header.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(numbers) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{table}\n")
}

/// A number in four figures or so: `1,234,567`, `123.4`, `0.0123`.
pub fn number(value: f64) -> String {
    match value {
        v if v >= 1000.0 => thousands(v.round() as u64),
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v if v >= 1.0 => format!("{v:.2}"),
        v => format!("{v:.3}"),
    }
}

fn thousands(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Nanoseconds with a fitting unit.
pub fn time(ns: f64) -> String {
    match ns {
        v if v >= 1e9 => format!("{} s", number(v / 1e9)),
        v if v >= 1e6 => format!("{} ms", number(v / 1e6)),
        v if v >= 1e3 => format!("{} µs", number(v / 1e3)),
        v => format!("{} ns", number(v)),
    }
}

/// Bytes with a fitting unit.
pub fn bytes(value: f64) -> String {
    match value {
        v if v >= 1_048_576.0 => format!("{} MiB", number(v / 1_048_576.0)),
        v if v >= 1024.0 => format!("{} KiB", number(v / 1024.0)),
        v => format!("{v:.0} B"),
    }
}

/// The word for a status.
pub fn status(status: Status) -> &'static str {
    match status {
        Status::Valid => "VALID",
        Status::Suspect => "SUSPECT",
        Status::Invalid => "INVALID",
    }
}

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
pub fn report(report: &Report) -> String {
    draw(&["", ""], &rows(report), 2)
}

/// The same as names and values.
pub fn rows(report: &Report) -> Vec<Vec<String>> {
    let w = &report.workload;
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut row = |name: &str, value: String| rows.push(vec![name.to_owned(), value]);
    row("server", report.server.clone());
    row("workload", format!("{}: {}", w.name, w.summary));
    row("loop", w.loop_kind());
    row("connections, size, depth", format!("{}, {}, {}", w.connections, w.size_kind(), w.depth));
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
        cost(m.cost.as_ref(), &mut row);
        if let Some(idle) = m.idle_bytes_per_connection {
            row("resident per connection", format!("{}, opened and idle", bytes(idle)));
        }
        if let Some(kernel) = m.kernel_bytes_per_connection {
            row("kernel memory per connection", format!("{}, both ends", bytes(kernel)));
        }
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
    row("verdict", status(report.verdict.status).to_owned());
    for reason in &report.verdict.reasons {
        row("", reason.clone());
    }
    rows
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

fn cost(cost: Option<&crate::cost::Cost>, row: &mut impl FnMut(&str, String)) {
    let Some(cost) = cost else {
        return row("server's cost", "not known: its process is not (give --pid)".into());
    };
    let share = match cost.user_share {
        Some(user) => format!(" ({:.0} % user)", user * 100.0),
        None => String::new(),
    };
    row("server CPU/message", format!("{}{share}", time(cost.cpu_ns_per_message)));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drive::{Second, histogram};
    use crate::judge::{Outcome, judge};
    use crate::workload::{Changes, Workload};
    use std::time::Duration;

    /// What is shown of a window with these latencies (ns), one in each second; 0 is a stall.
    fn seconds(latencies: &[u64], window_ns: u64) -> Option<String> {
        let second = Duration::from_secs(1);
        let workload = Workload::find("ping-pong", &Changes::default(), second, second).unwrap();
        let mut outcome = Outcome::default();
        outcome.phase.total = latencies.len() as u64;
        (outcome.phase.window_ns, outcome.phase.busy_ns) = (window_ns, window_ns);
        outcome.phase.histograms.push(("latency", histogram()));
        let second = |&ns: &u64| Second {
            messages: 1,
            counts: vec![Some((ns, 1)).filter(|_| ns > 0).into_iter().collect()],
        };
        outcome.phase.seconds = latencies.iter().map(second).collect();
        by_second(&judge(&workload, &outcome).1.unwrap())
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

    #[test]
    fn numbers_have_four_figures_or_so() {
        assert_eq!(number(1_234_567.4), "1,234,567");
        assert_eq!([number(123.4), number(12.34), number(1.234)], ["123", "12.3", "1.23"]);
        assert_eq!([time(1500.0), time(2.5e9)], ["1.50 µs", "2.50 s"]);
        assert_eq!([bytes(100.0), bytes(2048.0)], ["100 B", "2.00 KiB"]);
    }
}
