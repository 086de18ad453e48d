//! A comparison for people: the answer, the map of where the ranking flips, a table for each point.

use super::table::{draw_most, wrap};
use super::words::{
    COMPLETENESS, ENOUGH_CONNECTIONS, HONESTY, INTERRUPTED, MEMORY, beside_bare, complete,
    cost_of_completeness, elsewhere, has_rates, heading, letter, limited, map_title, mapped,
    memory, not_mapped, notes, rank, ranked, share_of, told, verdict,
};
use crate::base::text::{bytes, number, percent, time};
use crate::results::{Comparison, Row, Section, Spread};
use crate::workload::Workload;

/// Bytes of a line from which on bytes for each second say more than lines for each second.
const LARGE: u32 = 4096;
/// Flips told in words; the JSON has them all.
const TOLD: usize = 8;
/// Columns of a section's table that a narrow terminal can do without, the least important first.
const LEAST: [usize; 7] = [8, 7, 9, 6, 4, 5, 3];

/// The whole of a comparison.
pub fn comparison(comparison: &Comparison) -> String {
    let mut text = String::new();
    for sentence in &comparison.answer {
        text.push_str(&wrap(sentence, ""));
    }
    if comparison.interrupted {
        text.push_str(&wrap(INTERRUPTED, ""));
    }
    for sentence in elsewhere(comparison) {
        text.push_str(&wrap(&sentence, ""));
    }
    let points = mapped(comparison);
    if has_rates(&points) {
        text.push_str(&wrap(HONESTY, ""));
    }
    if points.len() > 1 && comparison.control.is_none() {
        map(comparison, &points, &mut text);
    }
    completeness(comparison, &mut text);
    for (n, section) in comparison.sections.iter().enumerate() {
        text.push_str(&self::section(section, letter(n), comparison.rounds));
    }
    if !comparison.left_out.is_empty() {
        text.push_str("\nNot ranked:\n");
        for (name, why) in &comparison.left_out {
            text.push_str(&wrap(&format!("{name}: {why}"), "  "));
        }
    }
    text
}

/// Servers against points: what each costs beside the best of the point, and where the order of
/// two is reversed.
fn map(comparison: &Comparison, points: &[(usize, &Section)], text: &mut String) {
    text.push('\n');
    text.push_str(&wrap(map_title(comparison), ""));
    let letters: Vec<String> = points.iter().map(|(n, _)| letter(*n)).collect();
    let mut header = vec!["server"];
    header.extend(letters.iter().map(String::as_str));
    let row = |name: &str| {
        let cells = points.iter().map(|(_, section)| beside_best(section, name));
        std::iter::once(name.to_owned()).chain(cells).collect()
    };
    let rows: Vec<Vec<String>> = ranked(points).into_iter().map(row).collect();
    let last_first: Vec<usize> = (1..header.len()).rev().collect();
    text.push_str(&draw_most(&header, &rows, 1, &last_first));
    let order = letters.first().map_or("", String::as_str);
    let equal = format!(
        "= not shown to differ from the best of that point, whatever its ratio; in the order of {order}"
    );
    text.push_str(&wrap(&equal, "  "));
    for (letter, (_, section)) in letters.iter().zip(points) {
        text.push_str(&wrap(&format!("{letter}: {}", section.workload.point()), "  "));
    }
    if let Some(why) = not_mapped(comparison) {
        text.push_str(&wrap(&why, "  "));
    }
    for flip in comparison.flips.iter().take(TOLD) {
        text.push_str(&wrap(&told(flip), "  "));
    }
    match comparison.flips.len().saturating_sub(TOLD) {
        0 => {}
        more => text.push_str(&format!("  and {more} more pairs change places (see --json)\n")),
    }
}

/// Complete servers against points: what each costs beside the same model bare.
fn completeness(comparison: &Comparison, text: &mut String) {
    let points = beside_bare(comparison);
    if points.is_empty() {
        return;
    }
    text.push('\n');
    text.push_str(&wrap(COMPLETENESS, ""));
    let letters: Vec<String> = points.iter().map(|(n, _)| letter(*n)).collect();
    let mut header = vec!["server"];
    header.extend(letters.iter().map(String::as_str));
    let row = |server: &str| {
        let cells = points.iter().map(|(_, section)| cost_of_completeness(section, server));
        std::iter::once(server.to_owned()).chain(cells).collect()
    };
    let rows: Vec<Vec<String>> = complete(&points).into_iter().map(row).collect();
    let last_first: Vec<usize> = (1..header.len()).rev().collect();
    text.push_str(&draw_most(&header, &rows, 1, &last_first));
    text.push_str("  = not shown to differ\n");
}

fn beside_best(section: &Section, name: &str) -> String {
    let Some(row) = section.rows.iter().find(|row| row.server == name) else { return "-".into() };
    let best = section.rows.iter().find(|row| row.rank.is_some());
    let Some(best) = best.filter(|_| row.rank.is_some()) else { return "-".into() };
    if best.server == row.server {
        return "1.00=".into();
    }
    let pair = section.pairs.iter().find_map(|pair| {
        let (other, ratio) = pair.seen_from(name)?;
        (other == best.server).then_some((pair.apart, ratio))
    });
    match pair {
        Some((apart, ratio)) => format!("{:.2}{}", ratio.ratio, if apart { "" } else { "=" }),
        None => "-".into(),
    }
}

fn section(section: &Section, letter: String, rounds: u32) -> String {
    let w = &section.workload;
    let idle = w.connections >= ENOUGH_CONNECTIONS;
    let memory = if idle { "memory (kernel)" } else { "peak RSS" };
    let rate = if w.size >= LARGE { "MiB/s" } else { "msgs/s" };
    let beside = if w.disturbance.is_some() { "x calm" } else { "x null" };
    let (calls, switches) = ("calls/msg", "sw/msg");
    let header = [
        "rank",
        "server",
        "CPU ns/msg",
        "of a CPU",
        beside,
        rate,
        "p99",
        calls,
        switches,
        memory,
        "verdict",
    ];
    let rows: Vec<_> = section.rows.iter().map(|row| cells(row, w, idle)).collect();
    let mut text = format!("\n{}", wrap(&format!("{letter}. {}: {}", w.name, w.summary), ""));
    for line in heading(section, rounds) {
        text.push_str(&wrap(&line, ""));
    }
    text.push_str(&draw_most(&header, &rows, 2, &LEAST));
    text.push_str(&wrap(share_of(section), "  "));
    if idle {
        text.push_str(&wrap(MEMORY, "  "));
    }
    for note in notes(section) {
        text.push_str(&wrap(&note, "  "));
    }
    text
}

fn cells(row: &Row, workload: &Workload, idle: bool) -> Vec<String> {
    let middle = |spread: Option<Spread>, format: fn(f64) -> String| {
        spread.map_or("-".into(), |s| format(s.median))
    };
    let range = |spread: Option<Spread>, format: fn(f64) -> String| match spread {
        Some(s) if s.low < s.high => {
            format!("{} [{} .. {}]", format(s.median), format(s.low), format(s.high))
        }
        other => middle(other, format),
    };
    let size = f64::from(workload.size);
    let unit = if workload.size >= LARGE { size / 1_048_576.0 } else { 1.0 };
    let rate = row.rate.map_or("-".into(), |s| number(s.median * unit));
    let bystanders = workload.disturbance.is_some();
    let to_null = row.to_null.map_or("-".into(), |ratio| format!("{ratio:.2}"));
    vec![
        rank(row),
        row.server.clone(),
        // The measure of the ranks has its range.
        if bystanders { middle(row.cpu_ns, number) } else { range(row.cpu_ns, number) },
        middle(row.cpu_share, percent),
        if bystanders { middle(row.to_calm, number) } else { to_null },
        format!("{rate}{}", limited(row)),
        if bystanders { range(row.p99_ns, time) } else { middle(row.p99_ns, time) },
        middle(row.calls, number),
        middle(row.switches, number),
        if idle { memory(row, workload) } else { middle(row.peak_rss, bytes) },
        verdict(row),
    ]
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::workload::Mode;

    /// One round of a fan-out without flood control, of an open loop whose rate is the
    /// generator's limit, and among disturbers.
    pub(crate) fn three_kinds() -> Comparison {
        let second = Duration::from_secs(1);
        let section = |name: &str, ranked_by: &str, limited: bool| {
            let workload = Workload::find(name, &Default::default(), second, second).unwrap();
            let flood_control = (workload.mode == Mode::Chat).then_some(false);
            let row = |server: &str| {
                serde_json::json!({
                    "server": server, "rank": 1, "shared": true, "status": "VALID", "reasons": [],
                    "measure": [1.0], "flood_control": flood_control, "at_ceiling": limited,
                    "rate": { "median": 1234.0, "low": 1234.0, "high": 1234.0 },
                })
            };
            serde_json::json!({
                "workload": workload, "rounds": 1, "ranked_by": ranked_by, "pairs": [],
                "rows": [row("one"), row("two")],
            })
        };
        serde_json::from_value(serde_json::json!({
            "rounds": 1, "servers": [], "left_out": [], "interrupted": false,
            "sections": [
                section("fan-out", "CPU per message", false),
                section("hog", "the bystanders' p99", false),
                section("open-loop", "CPU per message", false),
                section("ping-pong", "CPU per message", true),
            ],
        }))
        .unwrap()
    }

    #[test]
    fn what_the_columns_mean_is_said_where_it_is_so() {
        let text = comparison(&three_kinds());
        let said = [
            "CPU per message ranks more honestly",
            "flood control off; a message is one delivery",
            "1 x Hog",
        ];
        for part in said.into_iter().chain(["closed loop; 1 of 1", "open loop, 10,000 messages/s"])
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(text.matches("1,234*").count(), 2, "{text}");
    }

    #[test]
    fn the_map_is_of_one_measure() {
        let text = comparison(&three_kinds());
        let map = text.split("\nA. ").next().unwrap();
        assert!(map.contains("A: fan-out") && map.contains("C: open-loop"), "{map}");
        assert!(!map.contains("B: hog") && map.contains("ranked: B by the bystanders'"), "{map}");
        let mut bystanders = three_kinds();
        bystanders.sections.retain(|section| !section.is_of_cpu());
        assert!(!comparison(&bystanders).contains("CPU per message as a multiple"));
    }

    /// A ratio says how much more, and the shares say whether it matters.
    #[test]
    fn at_a_rate_the_share_of_a_processor_stands_beside_the_ratio() {
        let mut given = three_kinds();
        let share = |part: f64| serde_json::json!({ "median": part, "low": part, "high": part });
        let spread = |part: f64| Some(serde_json::from_value(share(part)).unwrap());
        let ratio = serde_json::json!({ "ratio": 68.0, "low": 60.0, "high": 70.0, "p": 0.01 });
        for section in &mut given.sections {
            section.rounds = 8;
            section.rows[0].cpu_share = spread(0.008);
            section.rows[1].cpu_share = spread(0.72);
            section.pairs = serde_json::from_value(serde_json::json!([
                { "a": "two", "b": "one", "apart": true, "ratio": ratio }
            ]))
            .unwrap();
        }
        let text = comparison(&given);
        let said = "two: 68.00 [60.00 .. 70.00] times one (72.0 % of a processor against 0.8 %)";
        assert_eq!(text.matches(said).count(), 1, "where all have the same rate: {text}");
        assert!(text.contains(" 72.0 % |"), "{text}");
    }

    #[test]
    fn memory_is_of_all_connections_with_the_kernels_part() {
        let mut many = three_kinds();
        let each = |bytes: f64| serde_json::json!({ "median": bytes, "low": 1.0, "high": 1.0 });
        let spread = |bytes: f64| Some(serde_json::from_value(each(bytes)).unwrap());
        for section in &mut many.sections {
            section.workload.connections = 1024;
            section.rows[0].idle_bytes = spread(1024.0);
            section.rows[0].kernel_bytes = spread(2048.0);
            section.rows[1].idle_bytes = spread(1024.0);
        }
        let text = comparison(&many);
        assert!(text.contains("  3.00 MiB (2.00 MiB) |"), "{text}");
        assert!(text.contains("1.00 MiB (not known)"), "{text}");
    }

    #[test]
    fn a_server_that_is_invalid_is_shown_with_a_sample_of_what_it_did() {
        let mut wrong = three_kinds();
        wrong.sections[0].rows[0].status = crate::measure::Status::Invalid;
        wrong.sections[0].rows[0].example = Some("connection 3 got a line of 4".into());
        let text = comparison(&wrong);
        assert!(text.contains("  one, for example: connection 3 got a line of 4\n"), "{text}");
    }
}
