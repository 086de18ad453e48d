//! Whether a machine is fit to measure on, for people.

use super::table::draw;
use crate::results::{DoctorFinding, Level};

/// All that was looked at.
pub fn fitness(findings: &[DoctorFinding]) -> String {
    let word = |level| match level {
        Level::Ok => "ok",
        Level::Warning => "warning",
        Level::Bad => "BAD",
    };
    let row = |f: &DoctorFinding| {
        vec![f.what.to_owned(), word(f.level).to_owned(), f.seen.clone(), f.advice.clone()]
    };
    let rows: Vec<_> = findings.iter().map(row).collect();
    draw(&["", "", "seen", "what to do"], &rows, 4)
}
