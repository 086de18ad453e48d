//! One point of a comparison on the page: what was asked, the table, and the pictures.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use maud::{Markup, html};

use super::chart::{self, Unit};
use super::map::beside_best;
use super::scroll::scrolled;
use super::{parts, words};
use crate::base::text::{bytes, number, time};
use crate::drive::histogram;
use crate::record::Stored;
use crate::results::{Row, Section, Spread};

/// All of it. `id` is the point's anchor.
pub(super) fn point(record: &Stored, section: &Section, id: &str, rounds: u32) -> Markup {
    let w = &section.workload;
    let strips: Vec<(&str, &[f64])> =
        section.rows.iter().map(|row| (row.server.as_str(), &row.measure[..])).collect();
    let memory = memory(record, section);
    let memory: Vec<(&str, &[f64])> =
        memory.iter().map(|(server, rounds)| (*server, &rounds[..])).collect();
    let notes = words::notes(section);
    html! {
        p { (words::load(w)) ". " small { (w.summary) "." } }
        @for line in words::heading(section, rounds) { p.soft { (line) } }
        figure {
            figcaption { "Every round (dot) and the median (bar): " (section.ranked_by) }
            (chart::rounds(&format!("{}: {}", w.name, section.ranked_by), &strips, Unit::Time))
        }
        (rows(section))
        details open[notes.len() <= words::FEW_NOTES] {
            summary { "Notes: what is shown, and what disturbed it" }
            ul.soft { @for note in &notes { li { (note) } } }
        }
        (parts::cost(section))
        h3 { "Latency" }
        p.soft { "All rounds together, from the fastest to 99.999 %; faint: the others" }
        (chart::latencies(&format!("l{id}"), &distributions(record, section)))
        (parts::memory(section))
        @if w.connections >= words::ENOUGH_CONNECTIONS && !memory.is_empty() {
            figure {
                figcaption { "Every round: memory for each idle connection" }
                (chart::rounds("Memory for each idle connection", &memory, Unit::Bytes))
            }
        }
    }
}

/// For each row of a section, round by round, what an idle connection took.
fn memory<'a>(record: &Stored, section: &'a Section) -> Vec<(&'a str, Vec<f64>)> {
    let of = |row: &'a Row| {
        let runs = record.runs.iter().map(|(_, run)| run);
        let own = runs.filter(|run| run.server == row.server && run.workload == section.workload);
        let bytes = own.filter_map(|run| run.measured.as_ref()?.idle_bytes_per_connection);
        (row.server.as_str(), bytes.collect::<Vec<_>>())
    };
    section.rows.iter().map(of).filter(|(_, rounds)| !rounds.is_empty()).collect()
}

/// For each row of a section its latencies of all rounds added up.
fn distributions(record: &Stored, section: &Section) -> Vec<(String, Histogram<u64>)> {
    let mut sums: BTreeMap<&str, Histogram<u64>> = BTreeMap::new();
    for (_, run) in record.runs.iter().filter(|(_, run)| run.workload == section.workload) {
        let main = run.measured.as_ref().and_then(|measured| measured.main_histogram());
        let Some(own) = main else { continue };
        let sum = sums.entry(&run.server).or_insert_with(histogram);
        // Histograms of equal bounds always add up.
        sum.add(own).expect("histograms of one shape");
    }
    let of = |row: &Row| Some((row.server.clone(), sums.remove(row.server.as_str())?));
    section.rows.iter().filter_map(of).collect()
}

fn rows(section: &Section) -> Markup {
    let disturbed = section.workload.disturbance.is_some();
    let kernel = section.rows.iter().any(|row| row.kernel_bytes.is_some());
    let table = html! {
        table {
            thead {
                tr {
                    th.first scope="col" { "server" }
                    th scope="col" { "rank" }
                    th scope="col" { "CPU/message" }
                    th scope="col" { "× best " small { "95 % interval" } }
                    th scope="col" { "× null" }
                    th scope="col" { "messages/s" }
                    th scope="col" { "p50" }
                    th scope="col" { "p99" }
                    @if disturbed { th scope="col" { "p99" br; "× calm" } }
                    th scope="col" { "switches/" br; "message" }
                    th scope="col" { "calls/" br; "message" }
                    th scope="col" { "peak RSS" }
                    th scope="col" { "RSS/idle" br; "connection" }
                    @if kernel { th scope="col" { "kernel/idle" br; "connection" } }
                    th.text scope="col" { "verdict" }
                }
            }
            tbody { @for row in &section.rows { (self::row(section, row, kernel)) } }
        }
    };
    scrolled("All numbers: the median of the rounds, and their range", table)
}

fn row(section: &Section, row: &Row, kernel: bool) -> Markup {
    let beside = beside_best(section, &row.server);
    html! {
        tr data-server=(row.server) {
            th scope="row" { (row.server) }
            td { (words::rank(row)) }
            td { (spread(row.cpu_ns, time)) }
            td {
                @if let Some((ratio, apart)) = beside {
                    (number(ratio.ratio)) @if !apart { " =" }
                    small { (number(ratio.low)) " … " (number(ratio.high)) }
                }
            }
            td { (row.to_null.map(number).unwrap_or_default()) }
            td { (marked(row.rate, words::limited(row), number)) }
            td { (spread(row.p50_ns, time)) }
            td { (spread(row.p99_ns, time)) }
            @if section.workload.disturbance.is_some() { td { (spread(row.to_calm, number)) } }
            td { (middle(row.switches, number)) }
            td { (middle(row.calls, number)) }
            td { (middle(row.peak_rss, bytes)) }
            td { (middle(row.idle_bytes, bytes)) }
            @if kernel { td { (middle(row.kernel_bytes, bytes)) } }
            td.text { span class=(row.status.word()) { (words::verdict(row)) } }
        }
    }
}

fn spread(spread: Option<Spread>, format: fn(f64) -> String) -> Markup {
    marked(spread, "", format)
}

fn marked(spread: Option<Spread>, mark: &str, format: fn(f64) -> String) -> Markup {
    html! {
        @if let Some(spread) = spread {
            (format(spread.median)) (mark)
            @if spread.low < spread.high {
                small { (format(spread.low)) " … " (format(spread.high)) }
            }
        }
    }
}

fn middle(spread: Option<Spread>, format: fn(f64) -> String) -> String {
    spread.map(|spread| format(spread.median)).unwrap_or_default()
}
