//! Records as one HTML file: no script, nothing from the network, light or dark as the reader is.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::chart::{self, Unit};
use crate::compare::{Comparison, Row, Section};
use crate::host::Host;
use crate::record::Stored;
use crate::run::Report;
use crate::stats::{Ratio, Spread};
use crate::table::{self, bytes, number, status, time};

/// The document that the list of known biases is taken from.
const METHODOLOGY: &str = include_str!("../../../docs/METHODOLOGY.md");

/// Writes all records into one file.
pub(crate) fn write(records: &[Stored], path: &Path) -> Result<()> {
    let text = page(records).into_string();
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn page(records: &[Stored]) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "loadgen: " (records.first().map_or("", |record| &record.host.time)) }
                style { (PreEscaped(include_str!("style.css"))) }
            }
            body {
                @for (n, record) in records.iter().enumerate() { (one(record, n)) }
                h2 { "What these numbers do not say" }
                ul { @for bias in biases() { li { (bias) } } }
            }
        }
    }
}

fn one(record: &Stored, n: usize) -> Markup {
    html! {
        @match &record.comparison {
            Some(comparison) => (self::comparison(record, comparison, n)),
            None => @for (_, run) in &record.runs { (self::run(run, n)) },
        }
        (self::host(&record.host))
    }
}

fn comparison(record: &Stored, comparison: &Comparison, n: usize) -> Markup {
    let id = |section: usize| format!("r{n}s{section}");
    html! {
        h1 { "What the I/O model is worth: " (comparison.servers.len()) " servers compared" }
        p.soft { (record.host.time) ", " (record.host.processor.as_deref().unwrap_or("")) }
        @if comparison.interrupted { p.INVALID { "Interrupted: not all rounds were finished." } }
        @if !comparison.answer.is_empty() {
            div.answer { @for sentence in &comparison.answer { p { (sentence) } } }
        }
        @if !table::mapped(comparison).is_empty() { p.soft { (table::HONESTY) } }
        (map(comparison, &id))
        @for (n, section) in comparison.sections.iter().enumerate() {
            h2 id=(id(n)) { (table::letter(n)) ". " (section.workload.name) }
            (self::section(record, section, &id(n), comparison.rounds))
        }
        @if !comparison.left_out.is_empty() {
            h2 { "Not ranked" }
            ul { @for (name, why) in &comparison.left_out { li { b { (name) } ": " (why) } } }
        }
        (unsupported(comparison))
    }
}

/// Servers against points: what each costs beside the best of the point, and who changes places.
fn map(comparison: &Comparison, id: &dyn Fn(usize) -> String) -> Markup {
    let sections = &comparison.sections;
    let points = table::mapped(comparison);
    html! {
        h2 { (table::map_title(comparison)) }
        ul.letters {
            @for (n, section) in sections.iter().enumerate() {
                li { a href={ "#" (id(n)) } { (table::letter(n)) } ": " (section.workload.point()) }
            }
        }
        div.scroll {
            table {
                caption {
                    "CPU per message as a multiple of the best one's of the point; = marks what "
                    "is not shown to differ from it"
                }
                thead {
                    tr {
                        th.text scope="col" { "server" }
                        @for (n, _) in &points {
                            th scope="col" { a href={ "#" (id(*n)) } { (table::letter(*n)) } }
                        }
                    }
                }
                tbody {
                    @for name in table::ranked(&points) {
                        tr {
                            th scope="row" { (name) }
                            @for (_, section) in &points { (place(section, name)) }
                        }
                    }
                }
            }
        }
        @if let Some(why) = table::not_mapped(comparison) { p.soft { (why) } }
        @if !comparison.flips.is_empty() {
            details {
                summary { (comparison.flips.len()) " pairs of servers change places" }
                ul {
                    @for flip in &comparison.flips { li { (table::told(flip)) } }
                }
            }
        }
    }
}

/// One place of the map; the darker, the farther behind the best.
fn place(section: &Section, name: &str) -> Markup {
    let best = section.rows.first().is_some_and(|row| row.server == name && row.rank.is_some());
    html! {
        @match beside_best(section, name) {
            Some((ratio, apart)) => {
                @let heat = (ratio.ratio.log2().max(0.0) * 25.0).min(70.0).round();
                @let title = format!("{:.2} to {:.2}", ratio.low, ratio.high);
                td title=(title) style=[(heat > 0.0 && apart).then(|| format!("--heat:{heat}%"))] {
                    (format!("{:.2}", ratio.ratio)) @if !apart { "=" }
                }
            },
            None if best => td { b { "best" } },
            None => td { "–" },
        }
    }
}

fn section(record: &Stored, section: &Section, id: &str, rounds: u32) -> Markup {
    let w = &section.workload;
    let heading = table::heading(section, rounds);
    let strips: Vec<(&str, &[f64])> =
        section.rows.iter().map(|row| (row.server.as_str(), &row.measure[..])).collect();
    let memory = memory(record, section);
    let memory: Vec<(&str, &[f64])> =
        memory.iter().map(|(server, rounds)| (*server, &rounds[..])).collect();
    html! {
        p { (w.summary) "." }
        @for line in heading { p.soft { (line) } }
        figure {
            figcaption { "Every round (dot) and the median (bar): " (section.ranked_by) }
            (chart::rounds(&format!("{}: {}", w.name, section.ranked_by), &strips, Unit::Time))
        }
        (rows(section))
        ul.soft { @for note in table::notes(section) { li { (note) } } }
        h3 { "Latency" }
        p.soft { "All rounds together, from the fastest to 99.999 %; faint: the others" }
        (chart::latencies(&format!("l{id}"), &distributions(record, section)))
        @if w.connections >= table::ENOUGH_CONNECTIONS && !memory.is_empty() {
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
        let sum = sums.entry(&run.server).or_insert_with(crate::drive::histogram);
        // Histograms of equal bounds always add up.
        sum.add(own).expect("histograms of one shape");
    }
    let of = |row: &Row| Some((row.server.clone(), sums.remove(row.server.as_str())?));
    section.rows.iter().filter_map(of).collect()
}

fn rows(section: &Section) -> Markup {
    let disturbed = section.workload.disturbance.is_some();
    html! {
        div.scroll {
            table {
                caption { "Median of the rounds, and their range" }
                thead {
                    tr {
                        th scope="col" { "rank" }
                        th.text scope="col" { "server" }
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
                        th scope="col" { "kernel/idle" br; "connection" }
                        th.text scope="col" { "verdict" }
                    }
                }
                tbody { @for row in &section.rows { (self::row(section, row)) } }
            }
        }
    }
}

fn row(section: &Section, row: &Row) -> Markup {
    let beside = beside_best(section, &row.server);
    html! {
        tr {
            td { (table::rank(row)) }
            th scope="row" { (row.server) }
            td { (spread(row.cpu_ns, time)) }
            td {
                @if let Some((ratio, apart)) = beside {
                    (number(ratio.ratio)) @if !apart { " =" }
                    small { (number(ratio.low)) " … " (number(ratio.high)) }
                }
            }
            td { (row.to_null.map(number).unwrap_or_default()) }
            td { (marked(row.rate, table::limited(row), number)) }
            td { (spread(row.p50_ns, time)) }
            td { (spread(row.p99_ns, time)) }
            @if section.workload.disturbance.is_some() { td { (spread(row.to_calm, number)) } }
            td { (middle(row.switches, number)) }
            td { (middle(row.calls, number)) }
            td { (middle(row.peak_rss, bytes)) }
            td { (middle(row.idle_bytes, bytes)) }
            td { (middle(row.kernel_bytes, bytes)) }
            td.text { span class=(status(row.status)) { (table::verdict(row)) } }
        }
    }
}

/// A server's measure divided by the best one's, and whether the two are shown to differ.
fn beside_best(section: &Section, server: &str) -> Option<(Ratio, bool)> {
    let best = section.rows.first().filter(|best| best.rank.is_some())?;
    section.pairs.iter().find_map(|pair| {
        let (other, ratio) = pair.seen_from(server)?;
        (other == best.server).then_some((ratio, pair.apart))
    })
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

fn unsupported(comparison: &Comparison) -> Markup {
    let servers = comparison.servers.iter().filter(|server| !server.unsupported.is_empty());
    html! {
        h2 { "What the servers are declared not to support" }
        @for server in servers {
            details {
                summary { b { (server.name) } ": " (server.unsupported.len()) " cases" }
                dl {
                    @for (case, why) in &server.unsupported { dt { (case) } dd { (why) } }
                }
            }
        }
        h2 { "How they were started" }
        dl {
            @for server in &comparison.servers {
                dt { b { (server.name) } }
                dd { (server.command) }
            }
        }
    }
}

/// The record of a single run.
fn run(report: &Report, n: usize) -> Markup {
    let histograms = report.measured.as_ref().map_or(&[][..], |measured| &measured.histograms);
    html! {
        h1 { (report.server) ": " (report.workload.name) }
        table {
            @for row in table::rows(report) {
                tr { th scope="row" { (row[0]) } td.text { (row[1]) } }
            }
        }
        h2 { "Latency" }
        (chart::latencies(&format!("r{n}"), histograms))
    }
}

fn host(host: &Host) -> Markup {
    let or_unknown = |value: &Option<String>| value.clone().unwrap_or_else(|| "unknown".into());
    let list = |map: &BTreeMap<String, String>| {
        map.iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>().join("; ")
    };
    let facts = [
        ("command", host.command.join(" ")),
        ("time", host.time.clone()),
        ("kernel", host.kernel.clone()),
        ("processor", or_unknown(&host.processor)),
        ("processors", host.processors.to_string()),
        ("virtual machine", if host.virtual_machine { "yes" } else { "no" }.into()),
        ("memory", host.memory_bytes.map_or("unknown".into(), |n| bytes(n as f64))),
        ("governors", host.governors.join(", ")),
        ("clock source", host.clock.clone()),
        ("load before", host.load.clone()),
        ("stolen since boot", format!("{:.2} %", host.stolen_since_boot * 100.0)),
        ("descriptor limit", host.descriptor_limit.to_string()),
        ("settings", list(&host.settings)),
        ("mitigations", list(&host.mitigations)),
        ("loadgen", host.loadgen.clone()),
        ("revision", or_unknown(&host.revision)),
        ("compiler", or_unknown(&host.compiler)),
    ];
    html! {
        h2 { "Machine and command" }
        table {
            @for (name, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
                tr { th scope="row" { (name) } td.text { (value) } }
            }
        }
        @for merged in &host.merged { (self::host(merged)) }
    }
}

/// The list under the heading "Bias", without its marks.
fn biases() -> Vec<&'static str> {
    let list = METHODOLOGY.split("\n## Bias\n").nth(1).unwrap_or_default();
    list.lines().filter_map(|line| line.strip_prefix("- ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_says_what_the_terminal_says() {
        let comparison = table::three_kinds();
        let said: Vec<String> = comparison
            .sections
            .iter()
            .flat_map(|section| table::heading(section, comparison.rounds))
            .chain(table::not_mapped(&comparison))
            .chain([table::HONESTY.to_owned()])
            .collect();
        let (dir, host) = (Default::default(), Host::look());
        let record = Stored { dir, host, runs: Vec::new(), comparison: Some(comparison) };
        let page = page(&[record]).into_string();
        for sentence in &said {
            assert!(page.contains(sentence.as_str()), "{sentence}");
        }
        assert!(said.len() > 9 && page.matches("1,234*").count() == 2);
    }

    #[test]
    fn the_biases_are_found_in_the_methodology() {
        let biases = biases();
        assert!(biases.len() >= 5 && biases[0].contains("Loopback"), "{biases:?}");
    }
}
