//! A comparison for people: the answer, the map of where the ranking flips, a table for each point.

use super::{bytes, draw, number, status, time};
use crate::compare::{Comparison, Flip, Row, Section, text};
use crate::run::Status;
use crate::stats::{FEWEST_ROUNDS, Ratio, Spread};
use crate::workload::{Mode, Workload};

/// Connections from which on memory per idle connection is more than a matter of page sizes.
pub(crate) const ENOUGH_CONNECTIONS: u32 = 500;
/// Bytes of a line from which on bytes for each second say more than lines for each second.
const LARGE: u32 = 4096;
/// Flips told in words; the JSON has them all.
const TOLD: usize = 8;
/// Why the ranks are of what they are.
pub(crate) const HONESTY: &str = "CPU per message ranks more honestly than messages/s where server \
     and generator share few processors: a rate says who was faster together with the generator.";
/// Columns that text is wrapped at.
const WIDTH: usize = 100;

/// The whole of a comparison.
pub fn comparison(comparison: &Comparison) -> String {
    let mut text = String::new();
    for sentence in &comparison.answer {
        text.push_str(&wrap(sentence, ""));
    }
    let points = mapped(comparison);
    if !points.is_empty() {
        text.push_str(&wrap(HONESTY, ""));
    }
    if points.len() > 1 && comparison.control.is_none() {
        map(comparison, &points, &mut text);
    }
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

/// A paragraph in lines of at most [`WIDTH`] columns.
fn wrap(paragraph: &str, indent: &str) -> String {
    let mut text = String::new();
    let mut line = indent.to_owned();
    for word in paragraph.split(' ') {
        if line.chars().count() + 1 + word.chars().count() > WIDTH && line.len() > indent.len() {
            text.push_str(&format!("{line}\n"));
            line = format!("{indent}  ");
        } else if line.len() > indent.len() {
            line.push(' ');
        }
        line.push_str(word);
    }
    text + &line + "\n"
}

/// A, B, ... Z, then numbers.
pub(crate) fn letter(n: usize) -> String {
    match u8::try_from(n) {
        Ok(n) if n < 26 => char::from(b'A' + n).to_string(),
        _ => (n + 1).to_string(),
    }
}

/// The points that the map compares, with their indices: the ratios of others are of another
/// measure.
pub(crate) fn mapped(comparison: &Comparison) -> Vec<(usize, &Section)> {
    let all = comparison.sections.iter().enumerate();
    all.filter(|(_, section)| section.is_of_cpu()).collect()
}

/// Why points are not in the map, if there are any.
pub(crate) fn not_mapped(comparison: &Comparison) -> Option<String> {
    let all = comparison.sections.iter().enumerate();
    let others = all.filter(|(_, section)| !section.is_of_cpu());
    let words: Vec<_> =
        others.map(|(n, section)| format!("{} by {}", letter(n), section.ranked_by)).collect();
    (!words.is_empty()).then(|| format!("not in the map, because ranked: {}", words.join(", ")))
}

/// The servers that are ranked at any of these points, the first one's order first.
pub(crate) fn ranked<'a>(points: &[(usize, &'a Section)]) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    let rows = points.iter().flat_map(|(_, section)| &section.rows);
    for row in rows.filter(|row| row.rank.is_some()) {
        if !names.contains(&row.server.as_str()) {
            names.push(&row.server);
        }
    }
    names
}

/// Servers against points: what each costs beside the best of the point, and where the order of
/// two is reversed.
fn map(comparison: &Comparison, points: &[(usize, &Section)], text: &mut String) {
    text.push_str(&format!("\n{}\n", map_title(comparison)));
    let letters: Vec<String> = points.iter().map(|(n, _)| letter(*n)).collect();
    let mut header = vec!["server"];
    header.extend(letters.iter().map(String::as_str));
    let row = |name: &str| {
        let cells = points.iter().map(|(_, section)| beside_best(section, name));
        std::iter::once(name.to_owned()).chain(cells).collect()
    };
    let rows: Vec<Vec<String>> = ranked(points).into_iter().map(row).collect();
    text.push_str(&draw(&header, &rows, 1));
    let order = letters.first().map_or("", String::as_str);
    text.push_str(&format!(
        "  = not shown to differ from the best of that point, whatever its ratio; in the order of {order}\n"
    ));
    for (letter, (_, section)) in letters.iter().zip(points) {
        text.push_str(&format!("  {letter}: {}\n", section.workload.point()));
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

/// What the map shows, and that it flips only where something does.
pub(crate) fn map_title(comparison: &Comparison) -> &'static str {
    match comparison.flips[..] {
        [] => "CPU per message as a multiple of the best one's",
        _ => "Where the ranking flips: CPU per message as a multiple of the best one's",
    }
}

/// The verdict on a row, with the number of its rounds that are doubted, if they are not all.
pub(crate) fn verdict(row: &Row) -> String {
    let (word, rounds) = (status(row.status), row.measure.len() as u32);
    match row.status {
        Status::Suspect if 0 < row.doubted && row.doubted < rounds => {
            format!("{word} {}/{rounds}", row.doubted)
        }
        _ => word.to_owned(),
    }
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

/// A flip in words, its points by their letters.
pub(crate) fn told(flip: &Flip) -> String {
    let (less, more) = (&flip.less[0], &flip.more[0]);
    format!(
        "{} takes {} times the CPU of {} in {}, and {} times in {}",
        flip.a,
        text(&less.ratio),
        flip.b,
        letter(less.section),
        text(&more.ratio),
        letter(more.section)
    )
}

/// What a section's numbers are of, line by line: what was asked and how, and what the columns of
/// this workload mean.
pub(crate) fn heading(section: &Section, rounds: u32) -> Vec<String> {
    let w = &section.workload;
    let how = format!(
        "{}; {} of {rounds} rounds of {:.2} s; median [range]; ranked by {}",
        w.loop_kind(),
        section.rounds,
        w.duration.as_secs_f64(),
        section.ranked_by,
    );
    let mut lines = vec![w.point(), how];
    if w.mode == Mode::Chat {
        let off = section.rows.iter().any(|row| row.flood_control == Some(false));
        let flood = if off { "flood control off; " } else { "" };
        lines.push(format!("{flood}a message is one delivery; p99: the last member's"));
    }
    if let Some(disturbance) = w.disturbance {
        lines.push(format!(
            "{} x {disturbance:?}; all numbers are the bystanders' meanwhile, x calm is their p99 \
             beside that of the calm before; CPU is the server's for all, divided by the \
             bystanders' messages",
            w.disturbers
        ));
    }
    if w.rate.is_some() && w.mode == Mode::Echo {
        lines.push("p99: from the time in the schedule to the answer".into());
    }
    lines
}

fn section(section: &Section, letter: String, rounds: u32) -> String {
    let w = &section.workload;
    let idle = w.connections >= ENOUGH_CONNECTIONS;
    let memory = if idle { "RSS/conn" } else { "peak RSS" };
    let rate = if w.size >= LARGE { "MiB/s" } else { "msgs/s" };
    let beside = if w.disturbance.is_some() { "x calm" } else { "x null" };
    let (calls, switches) = ("calls/msg", "sw/msg");
    let header =
        ["rank", "server", "CPU ns/msg", beside, rate, "p99", calls, switches, memory, "verdict"];
    let rows: Vec<_> = section.rows.iter().map(|row| cells(row, w, idle)).collect();
    let mut text = format!("\n{letter}. {}: {}\n", w.name, w.summary);
    for line in heading(section, rounds) {
        text.push_str(&wrap(&line, ""));
    }
    text.push_str(&draw(&header, &rows, 2));
    for note in notes(section) {
        text.push_str(&wrap(&note, "  "));
    }
    text
}

/// A row's rank, with the mark of those that share it.
pub(crate) fn rank(row: &Row) -> String {
    let mark = if row.shared { "=" } else { "" };
    row.rank.map_or("-".into(), |rank| format!("{rank}{mark}"))
}

/// The mark of a rate that is the generator's limit; [`notes`] says what it means.
pub(crate) fn limited(row: &Row) -> &'static str {
    if row.at_ceiling { "*" } else { "" }
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
        if bystanders { middle(row.to_calm, number) } else { to_null },
        format!("{rate}{}", limited(row)),
        if bystanders { range(row.p99_ns, time) } else { middle(row.p99_ns, time) },
        middle(row.calls, number),
        middle(row.switches, number),
        middle(if idle { row.idle_bytes } else { row.peak_rss }, bytes),
        verdict(row),
    ]
}

/// What the table alone would not say.
pub(crate) fn notes(section: &Section) -> Vec<String> {
    let mut notes = Vec::new();
    let mut note = |note: String| notes.push(note);
    if section.rows.iter().any(|row| row.at_ceiling) {
        note(
            "* limited by the generator: not shown to be slower than the null reference, so that \
             these rates rank nobody"
                .into(),
        );
    }
    if let (Some(cpu), Some(rate)) = (&section.noise, &section.rate_noise) {
        let percent = |ratio: &Ratio| 100.0 * ((ratio.high / ratio.low).sqrt() - 1.0);
        note(format!(
            "noise floor (the null reference, entered twice): ± {:.1} % of CPU per message, ± {:.1} \
             % of messages/s",
            percent(cpu),
            percent(rate)
        ));
    }
    doubts(section, &mut note);
    if (section.rounds as usize) < FEWEST_ROUNDS {
        let rounds = section.rounds;
        note(format!("{rounds} rounds can show no difference; {FEWEST_ROUNDS} are the fewest"));
        return notes;
    }
    let Some(first) = section.rows.first().filter(|row| row.rank.is_some()) else { return notes };
    // The pairs of the first row: how much more than the best each of the others takes.
    let mut equal = Vec::new();
    for row in &section.rows[1..] {
        let pair = section.pairs.iter().find_map(|pair| {
            let (other, ratio) = pair.seen_from(&row.server)?;
            (other == first.server).then_some((pair.apart, ratio))
        });
        match pair {
            Some((true, r)) => {
                note(format!("{}: {} times {}", row.server, self::text(&r), first.server))
            }
            Some((false, r)) => equal.push(format!("{} {}", row.server, self::text(&r))),
            None => {}
        }
    }
    if !equal.is_empty() {
        note(format!("no difference shown from {}: {}", first.server, equal.join(", ")));
    }
    notes
}

/// Why rows are not VALID: each reason once, with the servers it concerns.
fn doubts(section: &Section, note: &mut dyn FnMut(String)) {
    let mut reasons: Vec<(&str, Vec<(&str, &str)>)> = Vec::new();
    for row in section.rows.iter().filter(|row| row.status != Status::Valid) {
        for reason in &row.reasons {
            let (why, rounds) = reason.rsplit_once(" (in ").unwrap_or((reason, ""));
            let rounds = rounds.split(" rounds").next().unwrap_or_default();
            let concerned = (row.server.as_str(), rounds);
            match reasons.iter_mut().find(|(known, _)| *known == why) {
                Some((_, servers)) => servers.push(concerned),
                None => reasons.push((why, vec![concerned])),
            }
        }
    }
    for (why, servers) in reasons {
        let rounds = servers[0].1;
        if servers.len() == section.rows.len() && servers.iter().all(|(_, n)| *n == rounds) {
            note(format!("{why}, in {rounds} rounds of every server"));
            continue;
        }
        let servers: Vec<_> = servers.iter().map(|(name, n)| format!("{name} ({n})")).collect();
        note(format!("{why}, in so many rounds: {}", servers.join(", ")));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;

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
                section("open-loop", "CPU per message", true),
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

    #[test]
    fn text_is_wrapped() {
        let text = wrap(&"word ".repeat(50), "  ");
        assert!(
            text.lines().all(|line| line.len() <= WIDTH && line.starts_with("  word")
                || line.starts_with("    word")),
            "{text}"
        );
        assert_eq!(text.split_whitespace().count(), 50);
        assert_eq!([letter(0), letter(25), letter(26)], ["A", "Z", "27"]);
    }
}
