//! The map of a comparison: servers against points, what each costs beside the best of the point.

use maud::{Markup, html};

use super::scroll::scrolled;
use super::words;
use crate::results::{Comparison, Ratio, Section};

/// The darkest that a place of the map gets, in percent: its number must stay readable.
const DARKEST: f64 = 40.0;
/// How much darker it gets when a ratio doubles.
const EACH_DOUBLING: f64 = 18.0;

/// The map with its legend, and the pairs that change places. `id` is the anchor of a point.
pub(super) fn map(comparison: &Comparison, id: &dyn Fn(usize) -> String) -> Markup {
    let points = words::mapped(comparison);
    let ranked = words::ranked(&points);
    html! {
        h2 { (words::map_title(comparison)) }
        (letters(comparison, id))
        @if !ranked.is_empty() {
            (table(
                "CPU per message as a multiple of the best one's of the point; = marks what is \
                 not shown to differ from it",
                &points, &ranked, id, &place,
            ))
        }
        @if let Some(why) = words::not_mapped(comparison) { p.soft { (why) } }
        @if !comparison.flips.is_empty() {
            details {
                summary { (comparison.flips.len()) " pairs of servers change places" }
                ul { @for flip in &comparison.flips { li { (words::told(flip)) } } }
            }
        }
        (completeness(comparison, id))
    }
}

/// What the letters of the points stand for.
fn letters(comparison: &Comparison, id: &dyn Fn(usize) -> String) -> Markup {
    html! {
        ul.letters {
            @for (n, section) in comparison.sections.iter().enumerate() {
                li {
                    a href={ "#" (id(n)) } { (words::letter(n)) } ": "
                    (words::load(&section.workload))
                    small { (section.workload.point()) }
                }
            }
        }
    }
}

/// What completeness costs: complete servers against points.
fn completeness(comparison: &Comparison, id: &dyn Fn(usize) -> String) -> Markup {
    let points = words::beside_bare(comparison);
    let caption = format!("{}; = marks what is not shown to differ", words::COMPLETENESS);
    let place = |section: &Section, name: &str| {
        html! { td { (words::cost_of_completeness(section, name)) } }
    };
    html! {
        @if !points.is_empty() {
            (table(&caption, &points, &words::complete(&points), id, &place))
        }
    }
}

fn table(
    caption: &str,
    points: &[(usize, &Section)],
    servers: &[&str],
    id: &dyn Fn(usize) -> String,
    place: &dyn Fn(&Section, &str) -> Markup,
) -> Markup {
    let table = html! {
        table.map {
            thead {
                tr {
                    th.first scope="col" { "server" }
                    @for (n, _) in points {
                        th scope="col" { a href={ "#" (id(*n)) } { (words::letter(*n)) } }
                    }
                }
            }
            tbody {
                @for name in servers {
                    tr data-server=(name) {
                        th scope="row" { (name) }
                        @for (_, section) in points { (place(section, name)) }
                    }
                }
            }
        }
    };
    scrolled(caption, table)
}

/// One place of the map; the darker, the farther behind the best.
fn place(section: &Section, name: &str) -> Markup {
    let best = section.rows.first().is_some_and(|row| row.server == name && row.rank.is_some());
    html! {
        @match beside_best(section, name) {
            Some((ratio, apart)) => {
                @let heat = (ratio.ratio.log2().max(0.0) * EACH_DOUBLING).min(DARKEST).round();
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

/// A server's measure divided by the best one's, and whether the two are shown to differ.
pub(super) fn beside_best(section: &Section, server: &str) -> Option<(Ratio, bool)> {
    let best = section.rows.first().filter(|best| best.rank.is_some())?;
    section.pairs.iter().find_map(|pair| {
        let (other, ratio) = pair.seen_from(server)?;
        (other == best.server).then_some((ratio, pair.apart))
    })
}
