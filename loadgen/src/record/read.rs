//! A record as it is read again, as far as it got.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use flate2::read::MultiGzDecoder;
use serde::de::DeserializeOwned;

use super::line::Line;
use super::{HOST, PLAN, RESULT, RUNS, TABLE, holds_runs};
use crate::base::output::say;
use crate::measure::Report;
use crate::results::{Comparison, Host, SCHEMA, assemble};

/// A record as it was read.
pub struct Stored {
    /// Where it is.
    pub dir: PathBuf,
    /// Where it was made.
    pub host: Host,
    /// Every finished run with its round, in the order of time; their histograms are filled in.
    pub runs: Vec<(u32, Report)>,
    /// The comparison, from its own result or, if that is missing, from the runs; none in the
    /// record of a single run.
    pub comparison: Option<Comparison>,
    /// What was printed, in the record of a command that keeps no runs.
    pub table: Option<String>,
}

/// The lines of the runs in `dir`, and their file.
fn runs(dir: &Path) -> Result<(PathBuf, String)> {
    let [plain, compressed] = RUNS.map(|name| dir.join(name));
    let is_compressed = !plain.exists() && compressed.exists();
    let path = if is_compressed { compressed } else { plain };
    let mut text = String::new();
    let read = File::open(&path).and_then(|mut file| match is_compressed {
        true => MultiGzDecoder::new(file).read_to_string(&mut text),
        false => file.read_to_string(&mut text),
    });
    read.with_context(|| format!("{} is no record: cannot read its runs", dir.display()))?;
    Ok((path, text))
}

impl Stored {
    /// The run, with its round, in one line of the file of runs.
    pub fn run(line: &str) -> Result<(u32, Report)> {
        Line::parse(line)
    }

    /// Reads the record in `dir`, as far as it got.
    pub fn read(dir: &Path) -> Result<Self> {
        let table = std::fs::read_to_string(dir.join(TABLE)).ok();
        let (path, text) = match table {
            Some(_) if !holds_runs(dir) => Default::default(),
            _ => runs(dir)?,
        };
        let host = read(&dir.join(HOST))?;
        let lines: Vec<&str> = text.lines().collect();
        let mut runs = Vec::with_capacity(lines.len());
        for (n, line) in lines.iter().enumerate() {
            match Self::run(line) {
                Ok(run) => runs.push(run),
                // The program was killed, or the disk was full, while it wrote this line.
                Err(_) if n + 1 == lines.len() && !text.ends_with('\n') => {}
                Err(e) => return Err(e.context(format!("{}, line {}", path.display(), n + 1))),
            }
        }
        // Records of runs that are kept for long have such a table too.
        let table = table.filter(|_| runs.is_empty());
        let comparison = if table.is_none() { Self::comparison(dir, &runs)? } else { None };
        Ok(Self { dir: dir.to_owned(), host, runs, comparison, table })
    }

    /// The text of what `--json` printed.
    pub fn result(&self) -> Result<String> {
        let path = self.dir.join(RESULT);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    fn comparison(dir: &Path, runs: &[(u32, Report)]) -> Result<Option<Comparison>> {
        let (result, plan) = (dir.join(RESULT), dir.join(PLAN));
        if result.exists() {
            match read::<serde_json::Value>(&result) {
                Ok(value) => return of_result(value, &result),
                // The runs say the same, as far as they got.
                Err(e) if plan.exists() || runs.len() == 1 => {
                    say(&format!("note: {e:#}; the runs are read instead"));
                }
                Err(e) => return Err(e),
            }
        }
        if plan.exists() {
            return Ok(Some(assemble(&read(&plan)?, runs)));
        }
        Ok(None)
    }
}

/// The comparison in a `result.json`; none in that of a single run.
fn of_result(mut value: serde_json::Value, path: &Path) -> Result<Option<Comparison>> {
    if value["schema"] != SCHEMA {
        let version = match &value["schema"] {
            serde_json::Value::Null => "from before versions were counted".into(),
            version => format!("of version {version}"),
        };
        bail!("{} is {version}, and this loadgen reads version {SCHEMA}", path.display());
    }
    let comparison = serde_json::from_value(value["comparison"].take());
    comparison.with_context(|| path.display().to_string())
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| {
        format!("{} is not what this loadgen writes; is it from an older one?", path.display())
    })
}
