//! What a soak found, for people: as a table, and as a page of pictures.

use std::path::Path;

use anyhow::{Context, Result};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::chart::{self, Scale, Unit};
use super::scroll::scrolled;
use super::table;
use crate::base::text::{bytes, thousands, time};
use crate::results::{Course, Growth, Host, Lap, Soaked, Watched};

const HEADER: [&str; 9] =
    ["server", "mode", "laps", "messages", "descriptors", "threads", "memory", "p50", "verdict"];

/// All servers, each in a row: medians of the first and of the last third of its laps.
pub fn soaked(all: &[Soaked]) -> String {
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    let mut text = table::draw(&HEADER, &rows, 2);
    text.push_str(
        "  descriptors to p50: the median of the first third of the laps, and of the last\n",
    );
    for one in all {
        for problem in &one.problems {
            let line = format!("{}, {}: {problem}", one.server, one.mode.name());
            text.push_str(&table::wrap(&line, "  "));
        }
    }
    text
}

fn row(one: &Soaked) -> Vec<String> {
    let messages: u64 = one.laps.iter().map(|lap| lap.messages).sum();
    let mut row = vec![
        one.server.clone(),
        one.mode.name().into(),
        one.laps.len().to_string(),
        thousands(messages),
    ];
    for what in Watched::ALL {
        let growth = one.growth.iter().find(|growth| growth.what == what);
        row.push(growth.map_or("-".into(), change));
    }
    row.push(verdict(one));
    row
}

/// `early to late`, or one of them where they are the same.
fn change(growth: &Growth) -> String {
    let [early, late] = [growth.early, growth.late].map(|it| value(growth.what, it.median));
    if early == late { early } else { format!("{early} to {late}") }
}

fn value(what: Watched, of: f64) -> String {
    match what {
        Watched::Descriptors | Watched::Threads => thousands(of.round() as u64),
        Watched::Memory => bytes(of),
        Watched::Latency => time(of),
    }
}

fn verdict(one: &Soaked) -> String {
    let (grew, levelled) = (one.that(Course::Grew), one.that(Course::Levelled));
    match () {
        () if !one.problems.is_empty() => "FAILED".into(),
        () if !grew.is_empty() => format!("GREW: {}", grew.join(", ")),
        () if !levelled.is_empty() => format!("levelled off: {}", levelled.join(", ")),
        () if one.growth.is_empty() => "too few laps to tell".into(),
        () => "flat".into(),
    }
}

/// Writes all of it into one file, with a picture for each server.
pub fn soak_page(host: &Host, all: &[Soaked], path: &Path) -> Result<()> {
    let text = page(host, all).into_string();
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn page(host: &Host, all: &[Soaked]) -> Markup {
    let sound = all.iter().filter(|one| one.is_sound()).count();
    let title = format!("Servers under load for a long time: {sound} of {} sound", all.len());
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "loadgen: " (title) }
                style { (PreEscaped(include_str!("style.css"))) }
            }
            body {
                main {
                    h1 { (title) }
                    p.soft { (host.time) ", " (host.processor.as_deref().unwrap_or("")) }
                    p {
                        "Each server was driven by one workload after the other. After each lap "
                        "all clients left, and then it was looked at what the server still holds."
                    }
                    (summary(all))
                    @for one in all { (server(one)) }
                }
            }
        }
    }
}

fn summary(all: &[Soaked]) -> Markup {
    scrolled(
        "All servers: the median of the first third of the laps, and of the last",
        html! {
            table {
                thead { tr { @for (n, name) in HEADER.iter().enumerate() {
                    th.first[n == 0].text[n == 1 || n == 8] { (name) }
                } } }
                @for one in all {
                    tr { @for (n, cell) in row(one).into_iter().enumerate() {
                        @if n == 0 { th scope="row" { (cell) } }
                        @else { td.text[n == 1 || n == 8] { (cell) } }
                    } }
                }
            }
        },
    )
}

fn server(one: &Soaked) -> Markup {
    html! {
        h2 { (one.server) ", " (one.mode.name()) ": " (verdict(one)) }
        @for problem in &one.problems { p { (problem) } }
        @if one.laps.len() > 1 {
            div.panels.picture { @for what in Watched::ALL { (panel(one, what)) } }
        }
    }
}

/// One number of a server over its laps, from zero.
fn panel(one: &Soaked, what: Watched) -> Markup {
    let unit = match what {
        Watched::Descriptors | Watched::Threads => Unit::Number,
        Watched::Memory => Unit::Bytes,
        Watched::Latency => Unit::Time,
    };
    let scale = Scale::of(unit, one.laps.iter().map(|lap| what.of(lap)), (100.0, chart::TOP));
    let last = one.laps.last().map_or(1.0, |lap| lap.seconds).max(f64::MIN_POSITIVE);
    let point = |lap: &Lap| format!("{:.1},{:.1}", lap_at(lap, last), scale.at(what.of(lap)));
    let curve: Vec<String> = one.laps.iter().map(point).collect();
    let growth = one.growth.iter().find(|growth| growth.what == what);
    let says = growth.map_or("too few laps to tell".into(), change);
    html! {
        figure.panel data-server=(one.server) {
            figcaption { b { (what.word()) } br; (says) }
            svg height=(chart::panel_height()) role="img"
                aria-label={ (what.word()) " of " (one.server) " over its laps: " (says) } {
                (chart::levels(&scale))
                (chart::stretched(html! { polyline.own points=(curve.join(" ")) {} }))
            }
        }
    }
}

/// Where a lap stands between left and right.
fn lap_at(lap: &Lap, last: f64) -> f64 {
    lap.seconds / last * 98.0 + 1.0
}
