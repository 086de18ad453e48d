//! Records on disk: the host, every run with its full histograms as it ends, and the result.
//!
//! ```text
//! DIR/host.json      kernel, processors, limits, versions, the command
//! DIR/plan.json      a comparison's servers and rounds
//! DIR/runs.jsonl     one line a run, written the moment it ends; read as runs.jsonl.gz too
//! DIR/result.json    what --json prints, once there is something to print
//! DIR/report.html    the same for people
//! DIR/table.md       what was printed, of soak and claims, which keep no runs
//! ```
//!
//! A record is only ever added to. One that was cut off can be read as far as it got, and one in
//! which nothing was kept is removed.
//!
//! **Lives here:** the files of a record, writing them as a command goes on, and reading them
//! again.
//!
//! **May use:** `base`, `workload`, `drive`, `target`, `measure`, `results`.
//!
//! **Must not know:** how anything is shown: the page beside a record is the command's.

mod line;
mod packed;
mod read;
mod write;

use std::path::{Path, PathBuf};

use crate::results::workspace;

pub(crate) use line::{read_run, written_run};
pub use read::Stored;
pub use write::Record;

/// The runs of a record, and the same compressed, as records are kept for long.
const RUNS: [&str; 2] = ["runs.jsonl", "runs.jsonl.gz"];
/// Where it was measured.
const HOST: &str = "host.json";
/// What a comparison is about to do.
const PLAN: &str = "plan.json";
/// What was printed.
const TABLE: &str = "table.md";
/// What `--json` prints.
const RESULT: &str = "result.json";

/// Where a command leaves its record if it is not told: in the workspace's `target/loadgen`, or,
/// away from it, in `loadgen-records` of the current folder.
pub fn default_folder(command: &str) -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    let inside = workspace().filter(|workspace| here.starts_with(workspace));
    let base = match inside {
        Some(workspace) => workspace.join("target").join("loadgen"),
        None => PathBuf::from("loadgen-records"),
    };
    let now = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
    let name = format!("{}-{command}", now.trim_end_matches('Z').replace(':', "-"));
    let taken = |dir: &PathBuf| dir.exists();
    let numbered = (2..).map(|n| base.join(format!("{name}-{n}")));
    let mut free = std::iter::once(base.join(&name)).chain(numbered).skip_while(taken);
    free.next().unwrap_or(base)
}

/// The folder in a record with the records of the machines that drove.
pub const AGENTS: &str = "agents";

/// Where in it the record of an agent is that is the `n`th, from 0 on.
pub fn agents_folder(n: usize, agent: &str) -> PathBuf {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let name: String = agent.chars().map(plain).collect();
    Path::new(AGENTS).join(format!("{}-{name}", n + 1))
}

/// Whether runs are in `dir`.
fn holds_runs(dir: &Path) -> bool {
    RUNS.iter().any(|name| dir.join(name).exists())
}

/// Whether there is anything to read in `dir`: runs, or the table of a command that keeps none.
pub fn is_record(dir: &Path) -> bool {
    holds_runs(dir) || [TABLE, RESULT, HOST].iter().all(|name| dir.join(name).exists())
}
