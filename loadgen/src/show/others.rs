//! The servers that other people wrote, as a table.

use super::table;
use crate::results::Listed;

/// What each is, whether it can run here, and how to get it.
pub fn others(listed: &[Listed]) -> String {
    let mut rows = Vec::new();
    for other in listed {
        let modes: Vec<_> = other.modes.iter().map(|mode| mode.name()).collect();
        let here = if other.missing.is_none() { "yes" } else { "no" };
        let setup = other.setup.clone().unwrap_or_default();
        // What it needs beside itself is known only to the reason.
        let how = other.missing.clone().unwrap_or(setup);
        rows.push(vec![
            other.name.clone(),
            modes.join(", "),
            other.summary.clone(),
            here.to_owned(),
            how,
        ]);
    }
    let mut text =
        table::draw(&["server", "speaks", "what it is", "runs here", "get it"], &rows, 5);
    let held = "they are held only to what every server must do; compare shows what each lacks";
    text.push_str(&table::wrap(held, "  "));
    text
}
