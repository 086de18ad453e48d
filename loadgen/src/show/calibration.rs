//! What a calibration found, for people.

use super::table;
use crate::base::text::{self, percent};
use crate::results::{Calibration, Spread};
use crate::target::NULL;
use crate::workload::Workload;

/// All of it.
pub fn calibration(found: &Calibration, workload: &Workload) -> String {
    let spread = |spread: Option<Spread>| {
        spread.map_or("-".into(), |s| {
            let [median, low, high] = [s.median, s.low, s.high].map(text::number);
            format!("{median} [{low} .. {high}]")
        })
    };
    let widths: Vec<f64> = found.pairs.iter().map(|r| (r.high / r.low).sqrt() - 1.0).collect();
    let ratios: Vec<f64> = found.pairs.iter().map(|ratio| ratio.ratio).collect();
    let pairs = found.pairs.len();
    let verdict = match found.handicap > 0.0 {
        true => format!("{} of {pairs} shown to be slower", found.slower),
        false => format!(
            "{} of {pairs} called different, where none is and one in twenty may be",
            found.slower + found.faster
        ),
    };
    let median = |values: &[f64]| Spread::of(values).map_or(0.0, |s| s.median);
    let ceiling = match found.server == NULL {
        true => "messages/s: the ceiling",
        false => "messages/s",
    };
    let mut rows = Vec::new();
    let mut row = |name: &str, value: String| rows.push(vec![name.to_owned(), value]);
    row("server", found.server.clone());
    row("workload", workload.point());
    row(ceiling, spread(found.rate));
    row("server CPU ns/message", spread(found.cpu_ns));
    row("generator CPU ns/message", spread(found.generator_ns));
    row("noise of one round", format!("{} (median)", percent(found.noise)));
    let floor = percent(median(&widths));
    row("noise floor", format!("± {floor} with {} rounds (median)", found.rounds));
    row("pairs", verdict);
    if found.handicap > 0.0 {
        row("handicap", format!("{} more CPU for each message", percent(found.handicap)));
        row("handicap found", format!("{:.3} times (median)", median(&ratios)));
    }
    for wrong in found.pairs.iter().filter(|r| r.shown() > 1.0 && found.handicap == 0.0) {
        row("called different", wrong.to_string());
    }
    table::draw(&["", ""], &rows, 2)
}
