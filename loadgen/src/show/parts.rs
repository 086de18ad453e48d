//! What a message costs by its parts, and what memory is taken: a bar in each place of a table, so
//! that numbers stay text and columns are small multiples of each other.

use maud::{Markup, html};

use super::chart::Unit;
use super::scroll::scrolled;
use crate::results::{Row, Section, Spread};

/// One column of bars.
struct Column {
    title: &'static str,
    unit: Unit,
    of: fn(&Row) -> Option<f64>,
}

/// Processor time, system calls and switches of each message, server by server.
pub(super) fn cost(section: &Section) -> Markup {
    let columns = [
        Column { title: "CPU time", unit: Unit::Time, of: |row| middle(row.cpu_ns) },
        Column {
            title: "in the server itself",
            unit: Unit::Time,
            of: |row| Some(middle(row.cpu_ns)? * row.user_share?),
        },
        Column {
            title: "in the kernel",
            unit: Unit::Time,
            of: |row| Some(middle(row.cpu_ns)? * (1.0 - row.user_share?)),
        },
        Column { title: "system calls", unit: Unit::Number, of: |row| middle(row.calls) },
        Column { title: "thread switches", unit: Unit::Number, of: |row| middle(row.switches) },
    ];
    bars("What a message costs, by part (medians)", &columns, section)
}

/// Memory of each server.
pub(super) fn memory(section: &Section) -> Markup {
    let columns = [
        Column {
            title: "most memory of the server",
            unit: Unit::Bytes,
            of: |row| middle(row.peak_rss),
        },
        Column {
            title: "more for each idle connection",
            unit: Unit::Bytes,
            of: |row| middle(row.idle_bytes),
        },
        Column {
            title: "in the kernel, for both ends",
            unit: Unit::Bytes,
            of: |row| middle(row.kernel_bytes),
        },
    ];
    bars("Memory (medians)", &columns, section)
}

fn middle(spread: Option<Spread>) -> Option<f64> {
    spread.map(|spread| spread.median)
}

/// A table of bars, without the columns of which nothing is known.
fn bars(caption: &str, columns: &[Column], section: &Section) -> Markup {
    let most = |column: &Column| section.rows.iter().filter_map(column.of).fold(0.0, f64::max);
    let columns: Vec<(&Column, f64)> =
        columns.iter().map(|c| (c, most(c))).filter(|(_, most)| *most > 0.0).collect();
    let table = html! {
        table.bars {
            thead {
                tr {
                    th.first scope="col" { "server" }
                    @for (column, _) in &columns { th scope="col" { (column.title) } }
                }
            }
            tbody {
                @for row in &section.rows {
                    tr data-server=(row.server) {
                        th scope="row" { (row.server) }
                        @for (column, most) in &columns { (bar(column, row, *most)) }
                    }
                }
            }
        }
    };
    html! { @if !columns.is_empty() { (scrolled(caption, table)) } }
}

fn bar(column: &Column, row: &Row, most: f64) -> Markup {
    html! {
        @match (column.of)(row) {
            None => td { "–" },
            Some(value) => {
                @let wide = (value / most * 100.0).round();
                td {
                    (column.unit.text(value))
                    span.bar style=(format!("--wide:{wide}%")) {}
                }
            },
        }
    }
}
