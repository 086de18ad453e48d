//! Records as one HTML file: nothing from the network, light or dark as the reader is. Its one
//! script follows a server through all pictures; without it the page shows the same.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::run::rows as rows_of_run;
use super::{answer, chart, load, map, point, timeline, words};
use crate::base::text::bytes;
use crate::measure::Report;
use crate::record::Stored;
use crate::results::{Comparison, Host};

/// The document that the list of known biases is taken from.
const METHODOLOGY: &str = include_str!("../../../docs/METHODOLOGY.md");

/// Writes all records into one file.
pub fn html(records: &[Stored], path: &Path) -> Result<()> {
    let text = page(records).into_string();
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn page(records: &[Stored]) -> Markup {
    let servers = servers(records);
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
                @if servers.len() > 1 { (picker(&servers)) }
                main {
                    @for (n, record) in records.iter().enumerate() { (one(record, n)) }
                    h2 { "What these numbers do not say" }
                    ul { @for bias in biases() { li { (bias) } } }
                }
                @if servers.len() > 1 {
                    script { (PreEscaped(include_str!("page.js"))) }
                }
            }
        }
    }
}

/// The servers of all comparisons, by name.
fn servers(records: &[Stored]) -> BTreeSet<&str> {
    let comparisons = records.iter().filter_map(|record| record.comparison.as_ref());
    let sections = comparisons.flat_map(|comparison| &comparison.sections);
    sections.flat_map(|section| &section.rows).map(|row| row.server.as_str()).collect()
}

/// The list by which a server is picked; the script shows it.
fn picker(servers: &BTreeSet<&str>) -> Markup {
    html! {
        nav.follow hidden aria-label="Follow a server" {
            label for="follow" { "Follow " }
            select id="follow" {
                option value="" { "no server" }
                @for name in servers { option value=(name) { (name) } }
            }
            span.keys {
                kbd { "n" } " next " kbd { "p" } " previous " kbd { "s" } " list " kbd { "Esc" }
                " none"
            }
            p id="followed" aria-live="polite" {}
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
        h1 { (words::title(comparison)) }
        p.soft { (record.host.time) ", " (record.host.processor.as_deref().unwrap_or("")) }
        @if comparison.interrupted { p.INVALID { (words::INTERRUPTED) } }
        @for sentence in words::elsewhere(comparison) { p { (sentence) } }
        (answers(comparison))
        (map::map(comparison, &id))
        (load::load(comparison))
        (timeline::rounds(record, comparison))
        @for (n, section) in comparison.sections.iter().enumerate() {
            h2 id=(id(n)) { (words::letter(n)) ". " (section.workload.name) }
            (point::point(record, section, &id(n), comparison.rounds))
        }
        @if !comparison.left_out.is_empty() {
            h2 { "Not ranked" }
            ul { @for (name, why) in &comparison.left_out { li { b { (name) } ": " (why) } } }
        }
        (unsupported(comparison))
    }
}

/// The answer for a reader who decides, and the same with its intervals.
fn answers(comparison: &Comparison) -> Markup {
    let plain = answer::answer(comparison);
    html! {
        @if !plain.is_empty() {
            div.answer { @for sentence in &plain { p { (sentence) } } }
        }
        @if !comparison.answer.is_empty() {
            details open[plain.is_empty()] {
                summary { "The same with numbers and 95 % intervals" }
                @for sentence in &comparison.answer { p { (sentence) } }
            }
        }
        @if words::has_rates(&words::mapped(comparison)) { p.soft { (words::HONESTY) } }
    }
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
        table.facts {
            @for row in rows_of_run(report) {
                tr { th scope="row" { (row[0]) } td.text { (row[1]) } }
            }
        }
        (timeline::seconds(report))
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
        table.facts {
            @for (name, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
                tr { th scope="row" { (name) } td.text { (value) } }
            }
        }
        @for merged in &host.merged { (self::host(merged)) }
    }
}

/// The list under the heading "Bias", without its marks.
pub(super) fn biases() -> Vec<&'static str> {
    let list = METHODOLOGY.split("\n## Bias\n").nth(1).unwrap_or_default();
    list.lines().filter_map(|line| line.strip_prefix("- ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_says_what_the_terminal_says() {
        let comparison = super::super::comparison::tests::three_kinds();
        let said: Vec<String> = comparison
            .sections
            .iter()
            .flat_map(|section| words::heading(section, comparison.rounds))
            .chain(words::not_mapped(&comparison))
            .chain([words::HONESTY.to_owned()])
            .collect();
        let (dir, host) = (Default::default(), Host::look());
        let record =
            Stored { dir, host, runs: Vec::new(), comparison: Some(comparison), table: None };
        let page = page(&[record]).into_string();
        assert!(page.contains("What the I/O model is worth: 2 servers ranked"), "{page}");
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
