//! Numbers for chapters, out of the records in `docs/record/`. No chapter has a number of its own.

use std::fmt::Write;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::project;

/// The comparison that the book quotes.
const COMPARISON: &str = "docs/record/2026-11-28-full";

/// The runs that tell what an idle connection holds.
const IDLE: &str = "docs/record/2026-11-22-idle-10000";

/// A comparison as `loadgen compare` leaves it; of what is in it, only what chapters quote.
#[derive(Deserialize)]
pub struct Record {
    comparison: Comparison,
}

#[derive(Deserialize)]
struct Comparison {
    sections: Vec<Section>,
}

#[derive(Deserialize)]
struct Section {
    workload: Workload,
    rows: Vec<Row>,
    pairs: Vec<Pair>,
}

#[derive(Deserialize)]
struct Workload {
    name: String,
    connections: u64,
    active: u64,
}

#[derive(Deserialize)]
struct Row {
    server: String,
    calls: Option<Range>,
    switches: Option<Range>,
}

/// Two servers whose rounds were driven in turns: what `a` costs as a multiple of what `b` costs.
#[derive(Deserialize)]
struct Pair {
    a: String,
    b: String,
    /// Whether they were shown to differ.
    apart: bool,
    ratio: Ratio,
}

#[derive(Deserialize)]
struct Ratio {
    ratio: f64,
}

#[derive(Deserialize)]
struct Range {
    median: f64,
}

/// A run as `loadgen run --json` prints it.
#[derive(Deserialize)]
struct Printed {
    run: Run,
}

#[derive(Deserialize)]
struct Run {
    workload: Workload,
    measured: Measured,
}

#[derive(Deserialize)]
struct Measured {
    idle_bytes_per_connection: f64,
}

impl Record {
    /// The comparison that the book quotes.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or is none.
    pub fn load() -> Result<Record> {
        let path = format!("{COMPARISON}/result.json");
        serde_json::from_str(&project::read(&path)?).with_context(|| path)
    }

    /// What a message costs `server` at a point such as `ping-pong 1000`, as a multiple of what it
    /// costs the best server of that point.
    ///
    /// # Errors
    ///
    /// When the record has no such point or server.
    pub fn ratio(&self, server: &str, point: &str) -> Result<String> {
        let section = self.section(point)?;
        let (ratio, _) = section.ratio(section.row(server)?)?;
        Ok(format!("{ratio:.2}"))
    }

    /// A quantity for each message, the median of all rounds: `calls` or `switches`.
    ///
    /// # Errors
    ///
    /// When the record has no such point, server or quantity.
    pub fn each_message(&self, quantity: &str, server: &str, point: &str) -> Result<String> {
        let row = self.section(point)?.row(server)?;
        let range = match quantity {
            "calls" => &row.calls,
            "switches" => &row.switches,
            _ => bail!("no quantity is called {quantity}"),
        };
        let range = range.as_ref().with_context(|| format!("{server} has no {quantity}"))?;
        Ok(format!("{:.2}", range.median))
    }

    /// How many times what the cheaper of two servers costs the dearer one costs, at the point
    /// where they are furthest apart.
    ///
    /// # Errors
    ///
    /// When they are no pair at some point.
    pub fn at_most(&self, one: &str, other: &str) -> Result<String> {
        let mut widest: f64 = 1.0;
        for section in &self.comparison.sections {
            let (ratio, _) = section.pair(one, other)?;
            widest = widest.max(ratio).max(1.0 / ratio);
        }
        Ok(format!("{widest:.2}"))
    }

    /// A table of the costs of some servers: CPU at each point, and memory.
    ///
    /// # Errors
    ///
    /// When one of them is in no record.
    pub fn table(&self, servers: &[&str]) -> Result<String> {
        let mut table = "| server |".to_owned();
        for section in &self.comparison.sections {
            write!(table, " {} |", section.name())?;
        }
        write!(table, " idle connection |\n|---|{}---:|\n", "---:|".repeat(self.points()))?;
        for server in servers {
            write!(table, "| {server} |")?;
            for section in &self.comparison.sections {
                match section.row(server) {
                    Ok(row) => write!(table, " {} |", section.cell(row)?)?,
                    Err(_) => write!(table, " – |")?,
                }
            }
            let memory = idle_bytes(server).unwrap_or_else(|_| "–".to_owned());
            writeln!(table, " {memory} |")?;
        }
        Ok(table)
    }

    fn points(&self) -> usize {
        self.comparison.sections.len()
    }

    fn section(&self, point: &str) -> Result<&Section> {
        let found = self.comparison.sections.iter().find(|section| section.point() == point);
        found.with_context(|| format!("{COMPARISON} has no point {point}"))
    }
}

impl Section {
    fn point(&self) -> String {
        format!("{} {}", self.workload.name, self.workload.connections)
    }

    fn name(&self) -> String {
        let Workload { name, connections, active } = &self.workload;
        let talk = if active < connections { format!(", {active} talk") } else { String::new() };
        format!("{name} {connections}{talk}")
    }

    fn row(&self, server: &str) -> Result<&Row> {
        let found = self.rows.iter().find(|row| row.server == server);
        found.with_context(|| format!("{COMPARISON} has no {server} at {}", self.point()))
    }

    /// The ratio to the best server, which is the first row, and whether they were shown to differ.
    fn ratio(&self, row: &Row) -> Result<(f64, bool)> {
        let best = self.rows.first().with_context(|| format!("{} has no rows", self.point()))?;
        if best.server == row.server {
            return Ok((1.0, false));
        }
        self.pair(&row.server, &best.server)
    }

    /// What `one` costs as a multiple of what `other` costs, and whether they were shown to differ.
    fn pair(&self, one: &str, other: &str) -> Result<(f64, bool)> {
        for pair in &self.pairs {
            if pair.a == one && pair.b == other {
                return Ok((pair.ratio.ratio, pair.apart));
            }
            if pair.a == other && pair.b == one {
                return Ok((1.0 / pair.ratio.ratio, pair.apart));
            }
        }
        bail!("{one} and {other} are no pair at {}", self.point())
    }

    fn cell(&self, row: &Row) -> Result<String> {
        let (ratio, apart) = self.ratio(row)?;
        let sign = if apart { "" } else { "=" };
        Ok(format!("{ratio:.2}{sign}"))
    }
}

/// The bytes of its own memory that a server holds for each idle connection.
///
/// # Errors
///
/// When there is no run of it.
pub fn idle_bytes(server: &str) -> Result<String> {
    let path = format!("{IDLE}/{server}.json");
    let printed: Printed =
        serde_json::from_str(&project::read(&path)?).with_context(|| path.clone())?;
    let bytes = printed.run.measured.idle_bytes_per_connection;
    Ok(if bytes >= 10_000.0 {
        format!("{:.0} KiB", bytes / 1024.0)
    } else {
        format!("{bytes:.0} bytes")
    })
}

/// How many connections the run of [`idle_bytes`] held.
///
/// # Errors
///
/// When there is no run of it.
pub fn idle_connections(server: &str) -> Result<String> {
    let path = format!("{IDLE}/{server}.json");
    let printed: Printed = serde_json::from_str(&project::read(&path)?).with_context(|| path)?;
    Ok(printed.run.workload.connections.to_string())
}

#[cfg(test)]
mod tests {
    use super::Record;

    #[test]
    fn ratios_are_those_of_the_table_that_was_printed() {
        let record = Record::load().expect("the record");
        let table = crate::project::read("docs/record/2026-11-28-full/table.md").expect("a table");
        let points = ["ping-pong 16", "ping-pong 1000", "pipelined 16", "pipelined 1000"];
        let points = points.into_iter().chain(["fan-out 200", "idle 1000"]);
        for server in ["threads", "prefork", "uring", "tokio", "nonblocking"] {
            let row = table.lines().find(|line| line.starts_with(&format!("| {server} ")));
            let cells: Vec<&str> = row.expect("a row").split('|').skip(2).map(str::trim).collect();
            for (point, cell) in points.clone().zip(cells) {
                let ratio = record.ratio(server, point).expect("a ratio");
                assert_eq!(ratio, cell.trim_end_matches('='), "{server} at {point}");
            }
        }
    }
}
