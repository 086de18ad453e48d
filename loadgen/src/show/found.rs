//! What searches for the highest rate found, for people.

use super::table;
use crate::base::text;
use crate::compare::find_max::SEARCHES;
use crate::results::Found;
use crate::workload::{Objective, Workload};

/// All of it.
pub fn found(objective: &Objective, workload: &Workload, all: &[Found]) -> String {
    let header =
        ["server", "highest rate", "missed at", objective.quantile.name(), "probes", "limited by"];
    let rows: Vec<_> = all
        .iter()
        .map(|f| {
            let number = |rate: Option<f64>| rate.map_or("-".into(), text::number);
            let range = match &f.answers[..] {
                [low, .., high] if low < high => {
                    format!(" [{} .. {}]", text::number(*low), text::number(*high))
                }
                _ => String::new(),
            };
            let more = if f.at_least { " or more" } else { "" };
            let at = f.probes.iter().rev().find(|probe| Some(probe.rate) == f.rate);
            let response = at.map_or("-".into(), |probe| text::time(probe.response_ns as f64));
            vec![
                f.server.clone(),
                number(f.rate) + &range + more,
                number(f.missed),
                response,
                f.probes.len().to_string(),
                f.limit.clone(),
            ]
        })
        .collect();
    let title = format!(
        "the highest rate with {objective}: {}, open loop, response times from the schedule; {} \
         connections, {} bytes; the median [range] of {SEARCHES} searches, or of one where the machine was not quiet",
        workload.name, workload.connections, workload.size,
    );
    // Not the last column, which holds sentences: they are wrapped.
    let table = table::draw_most(&header, &rows, 1, &[4, 2, 3]);
    format!("\n{}{table}", table::wrap(&title, ""))
}
