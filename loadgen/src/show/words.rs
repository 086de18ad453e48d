//! What is said of a comparison in words, on a terminal and on a page alike.

use crate::base::text::{bytes, number, percent, thousands};
use crate::measure::Status;
use crate::results::{
    Comparison, FEWEST_ROUNDS, Flip, Machine, Machines, Ratio, Row, Section, Spread,
};
use crate::workload::{Mode, Workload};

/// Connections from which on memory per idle connection is more than a matter of page sizes.
pub(super) const ENOUGH_CONNECTIONS: u32 = 500;
/// Notes of a point up to which they stand open on a page.
pub(super) const FEW_NOTES: usize = 6;
/// Why the ranks are of what they are.
pub(super) const HONESTY: &str = "CPU per message ranks more honestly than messages/s where server \
     and generator share few processors: a rate says who was faster together with the generator.";
/// That there might have been more.
pub(super) const INTERRUPTED: &str = "Interrupted: not all rounds were finished.";

/// How a comparison that other machines drove is to be read.
const ELSEWHERE: [&str; 2] = [
    "Each server had the machines to itself for its whole window: over several machines servers do \
     not take turns of milliseconds. So what the machines and the network did from one run to the \
     next is part of every range.",
    "There was no gate, no null reference and no model bare, and neither system calls nor the \
     kernel's memory are known: `loadgen compare` on the servers' own machine has them.",
];

/// Which machines took part, where agents drove, what that means, and which of them was lost.
pub(super) fn elsewhere(comparison: &Comparison) -> Vec<String> {
    let mut sentences = Vec::new();
    for (run, why) in &comparison.lost {
        sentences
            .push(format!("{run}: {why}. The comparison ended there; the rounds before it count."));
    }
    let Some(Machines { agents, beside }) = &comparison.machines else { return sentences };
    let named = |machine: &Machine| {
        let Machine { agent, cores, .. } = machine;
        format!("{agent} ({cores} {})", if *cores == 1 { "processor" } else { "processors" })
    };
    let all: Vec<String> = agents.iter().map(named).collect();
    let there = beside.as_ref().map_or("another machine".into(), named);
    sentences.push(format!("Driven from {}; the servers ran on {there}.", all.join(" and ")));
    sentences.extend(ELSEWHERE.map(str::to_owned));
    sentences
}

/// A, B, ... Z, then numbers.
pub(super) fn letter(n: usize) -> String {
    match u8::try_from(n) {
        Ok(n) if n < 26 => char::from(b'A' + n).to_string(),
        _ => (n + 1).to_string(),
    }
}

/// What is asked at a point, for a reader who knows no word of the generator's: "1,000 clients of
/// whom 16 talk".
pub(super) fn load(workload: &Workload) -> String {
    let w = workload;
    let clients = thousands(u64::from(w.connections));
    if w.disturbance.is_some() {
        return format!("{clients} clients that ask and wait while others disturb them");
    }
    if let Some(lines) = w.churn {
        return format!("{clients} clients that come, ask {lines} times and go");
    }
    if w.mode == Mode::Chat {
        let rooms = if w.channels == 1 { "a chat room" } else { "chat rooms" };
        return format!("{rooms} of {} members, {} of whom speak", w.members, w.speakers);
    }
    let who = match w.active < w.connections {
        true => format!("{clients} clients of whom {} talk", thousands(u64::from(w.active))),
        false => format!("{clients} clients"),
    };
    match w.rate {
        Some(rate) => format!("{} requests a second from {who}", number(rate)),
        None if w.active < w.connections => who,
        None if w.depth == 1 => format!("{who} that ask and wait for the answer"),
        None => format!("{who} that each have {} requests on their way", w.depth),
    }
}

/// What the page is about. Servers that were entered and are ranked nowhere are counted apart.
pub(super) fn title(comparison: &Comparison) -> String {
    let all: Vec<(usize, &Section)> = comparison.sections.iter().enumerate().collect();
    let ranked = ranked(&all).len();
    let others = comparison.servers.len().saturating_sub(ranked);
    let servers = if ranked == 1 { "server" } else { "servers" };
    let others = if others > 0 { format!(", {others} not") } else { String::new() };
    format!("What the I/O model is worth: {ranked} {servers} ranked{others}")
}

/// The points that the map compares, with their indices: the ratios of others are of another
/// measure.
pub(super) fn mapped(comparison: &Comparison) -> Vec<(usize, &Section)> {
    let all = comparison.sections.iter().enumerate();
    all.filter(|(_, section)| section.is_of_cpu()).collect()
}

/// Whether rates of these points rank anything: those of open loops are given.
pub(super) fn has_rates(points: &[(usize, &Section)]) -> bool {
    points.iter().any(|(_, section)| section.workload.rate.is_none())
}

/// Why points are not in the map, if there are any.
pub(super) fn not_mapped(comparison: &Comparison) -> Option<String> {
    let all = comparison.sections.iter().enumerate();
    let others = all.filter(|(_, section)| !section.is_of_cpu());
    let words: Vec<_> =
        others.map(|(n, section)| format!("{} by {}", letter(n), section.ranked_by)).collect();
    (!words.is_empty()).then(|| format!("not in the map, because ranked: {}", words.join(", ")))
}

/// The servers that are ranked at any of these points, the first one's order first.
pub(super) fn ranked<'a>(points: &[(usize, &'a Section)]) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    let rows = points.iter().flat_map(|(_, section)| &section.rows);
    for row in rows.filter(|row| row.rank.is_some()) {
        if !names.contains(&row.server.as_str()) {
            names.push(&row.server);
        }
    }
    names
}

/// What the table of completeness shows.
pub(super) const COMPLETENESS: &str = "What completeness costs: CPU per message of each complete \
     server as a multiple of the same model's, bare";

/// The points at which a server is ranked beside its model bare, with their indices.
pub(super) fn beside_bare(comparison: &Comparison) -> Vec<(usize, &Section)> {
    let all = comparison.sections.iter().enumerate();
    let shows = |section: &Section| section.completeness.iter().any(|both| both.ratio.is_some());
    all.filter(|(_, section)| shows(section)).collect()
}

/// The servers that are ranked beside their model bare at any of these points.
pub(super) fn complete<'a>(points: &[(usize, &'a Section)]) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for both in points.iter().flat_map(|(_, section)| &section.completeness) {
        if !names.contains(&both.server.as_str()) {
            names.push(&both.server);
        }
    }
    names
}

/// What completeness costs a server at a point: the ratio with its interval, marked where the two
/// are not shown to differ.
pub(super) fn cost_of_completeness(section: &Section, server: &str) -> String {
    let both = section.completeness.iter().find(|both| both.server == server);
    match both.and_then(|both| Some((both.ratio?, both.apart))) {
        Some((ratio, apart)) => format!("{}{}", ratio, if apart { "" } else { "=" }),
        None => "-".into(),
    }
}

/// What the map shows, and that it flips only where something does.
pub(super) fn map_title(comparison: &Comparison) -> &'static str {
    match comparison.flips[..] {
        [] => "CPU per message as a multiple of the best one's",
        _ => "Where the ranking flips: CPU per message as a multiple of the best one's",
    }
}

/// The verdict on a row, with the number of its rounds that are doubted, if they are not all.
pub(super) fn verdict(row: &Row) -> String {
    let (word, rounds) = (row.status.word(), row.measure.len() as u32);
    match row.status {
        Status::Suspect if 0 < row.doubted && row.doubted < rounds => {
            format!("{word} {}/{rounds}", row.doubted)
        }
        _ => word.to_owned(),
    }
}

/// A flip in words, its points by their letters.
pub(super) fn told(flip: &Flip) -> String {
    let (less, more) = (&flip.less[0], &flip.more[0]);
    format!(
        "{} takes {} times the CPU of {} in {}, and {} times in {}",
        flip.a,
        less.ratio,
        flip.b,
        letter(less.section),
        more.ratio,
        letter(more.section)
    )
}

/// What a section's numbers are of, line by line: what was asked and how, and what the columns of
/// this workload mean.
pub(super) fn heading(section: &Section, rounds: u32) -> Vec<String> {
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

/// A row's rank, with the mark of those that share it.
pub(super) fn rank(row: &Row) -> String {
    let mark = if row.shared { "=" } else { "" };
    row.rank.map_or("-".into(), |rank| format!("{rank}{mark}"))
}

/// The mark of a rate that is the generator's limit; [`notes`] says what it means.
pub(super) fn limited(row: &Row) -> &'static str {
    if row.at_ceiling { "*" } else { "" }
}

/// What the column of memory shows.
pub(super) const MEMORY: &str = "memory: what all connections added, opened and idle, of the \
     server's process and of the kernel, both ends; in parentheses the kernel's part";

/// Memory that all connections of a row took, with the kernel's part where it is known.
pub(super) fn memory(row: &Row, workload: &Workload) -> String {
    let all = |each: Spread| each.median * f64::from(workload.connections);
    match (row.idle_bytes.map(all), row.kernel_bytes.map(all)) {
        (Some(own), Some(kernel)) => format!("{} ({})", bytes(own + kernel), bytes(kernel)),
        (Some(own), None) => format!("{} (not known)", bytes(own)),
        (None, _) => "-".into(),
    }
}

/// What the column of the processor's share is of.
pub(super) fn share_of(section: &Section) -> &'static str {
    match section.workload.rate {
        Some(_) => "of a CPU: the part of one processor that the server took at this rate",
        None => {
            "of a CPU: the part of one processor that the server took at the rate that it reached; \
             --rate asks all for the same"
        }
    }
}

/// What the table alone would not say.
pub(super) fn notes(section: &Section) -> Vec<String> {
    let mut notes = Vec::new();
    let mut note = |note: String| notes.push(note);
    if section.rows.iter().any(|row| row.at_ceiling) {
        note(
            "* limited by the generator: not shown to be slower than the null reference, so that \
             these rates rank no server"
                .into(),
        );
    }
    if let Some(cpu) = &section.noise {
        let floor = |ratio: &Ratio| percent((ratio.high / ratio.low).sqrt() - 1.0);
        let rate = section.rate_noise.as_ref().map(floor);
        let rate = rate.map_or(String::new(), |rate| format!(", ± {rate} of messages/s"));
        note(format!(
            "noise floor (the null reference, entered twice): ± {} of CPU per message{rate}",
            floor(cpu)
        ));
    }
    doubts(section, &mut note);
    lacks(section, &mut note);
    if (section.rounds as usize) < FEWEST_ROUNDS {
        let rounds = section.rounds;
        let rounds = if rounds == 1 { "1 round".into() } else { format!("{rounds} rounds") };
        note(format!("{rounds} can show no difference; {FEWEST_ROUNDS} are the fewest"));
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
                let shares = shares(section, row, first);
                note(format!("{}: {} times {}{shares}", row.server, r, first.server));
            }
            Some((false, r)) => equal.push(format!("{} {}", row.server, r)),
            None => {}
        }
    }
    if !equal.is_empty() {
        note(format!("no difference shown from {}: {}", first.server, equal.join(", ")));
    }
    notes
}

/// What a ratio is of, at a rate that is the same for both: a large one may be one of little.
fn shares(section: &Section, row: &Row, first: &Row) -> String {
    let given = section.workload.rate.is_some() && section.is_of_cpu();
    match row.cpu_share.zip(first.cpu_share).filter(|_| given) {
        Some((more, less)) => {
            format!(" ({} of a processor against {})", percent(more.median), percent(less.median))
        }
        None => String::new(),
    }
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
    for row in section.rows.iter().filter(|row| row.status == Status::Invalid) {
        if let Some(example) = &row.example {
            note(format!("{}, for example: {example}", row.server));
        }
    }
}

/// What servers lack of the contract that are not held to it; those that lack the same together.
fn lacks(section: &Section, note: &mut dyn FnMut(String)) {
    let mut lacking: Vec<(&[String], Vec<&str>)> = Vec::new();
    for row in section.rows.iter().filter(|row| !row.lacks.is_empty()) {
        match lacking.iter_mut().find(|(lacks, _)| *lacks == row.lacks) {
            Some((_, servers)) => servers.push(&row.server),
            None => lacking.push((&row.lacks, vec![&row.server])),
        }
    }
    for (lacks, servers) in lacking {
        let verb = if servers.len() == 1 { "lacks" } else { "lack" };
        note(format!("{} {verb}: {}", servers.join(", "), lacks.join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_have_letters_and_then_numbers() {
        assert_eq!([letter(0), letter(25), letter(26)], ["A", "Z", "27"]);
    }
}
