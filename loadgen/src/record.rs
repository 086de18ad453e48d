//! Records on disk: the host, every run with its full histograms as it ends, and the result.
//!
//! ```text
//! DIR/host.json      kernel, processors, limits, versions, the command
//! DIR/plan.json      a comparison's servers and rounds
//! DIR/runs.jsonl     one line a run, written the moment it ends; read as runs.jsonl.gz too
//! DIR/result.json    what --json prints, once there is something to print
//! DIR/report.html    the same for people
//! ```
//!
//! A record is only ever added to. One that was cut off can be read as far as it got.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use flate2::read::MultiGzDecoder;
use hdrhistogram::Histogram;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::compare::{Comparison, Planned, assemble};
use crate::drive::{Second, histogram};
use crate::host::{Host, workspace};
use crate::report::html;
use crate::run::Report;
use crate::schema::{Document, SCHEMA};

/// A record that is being written.
pub struct Record {
    dir: PathBuf,
    runs: File,
    /// What went wrong first; nothing is written after it.
    broken: Option<anyhow::Error>,
}

/// The runs of a record, and the same compressed, as records are kept for long.
const RUNS: [&str; 2] = ["runs.jsonl", "runs.jsonl.gz"];

/// The values of a histogram (ns, the upper end of their class) with their counts. Histograms of
/// equal bounds add up exactly by adding the counts of equal values.
type Counts = Vec<(u64, u64)>;

/// One line of `runs.jsonl`.
#[derive(Serialize, Deserialize)]
struct Line {
    round: u32,
    #[serde(flatten)]
    report: Report,
    histograms: BTreeMap<String, Counts>,
    /// The same second by second; empty if there was but one.
    #[serde(default)]
    seconds: Vec<StoredSecond>,
}

/// One second of a run.
#[derive(Serialize, Deserialize)]
struct StoredSecond {
    messages: u64,
    histograms: BTreeMap<String, Counts>,
}

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
}

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

impl Record {
    /// Begins a record in `dir`, which must not hold one: records are never overwritten.
    pub fn create(dir: &Path, host: &Host) -> Result<Self> {
        let path = dir.join(RUNS[0]);
        if holds_runs(dir) {
            bail!("{} holds a record already; name another folder for --out", dir.display());
        }
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        write(&dir.join("host.json"), host)?;
        let runs = OpenOptions::new()
            .create_new(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { dir: dir.to_owned(), runs, broken: None })
    }

    /// Says what a comparison is about to do.
    pub fn plan(&mut self, planned: &Planned) {
        self.attempt(|record| write(&record.dir.join("plan.json"), planned));
    }

    /// Adds one run.
    pub fn run(&mut self, round: u32, report: &Report) {
        self.attempt(|record| {
            let text = serde_json::to_string(&Line::of(round, report))? + "\n";
            Ok(record.runs.write_all(text.as_bytes())?)
        });
    }

    /// A full disk must not cost the runs to come: it is reported at the end.
    fn attempt(&mut self, write: impl FnOnce(&mut Self) -> Result<()>) {
        if self.broken.is_none() {
            self.broken = write(self).err();
        }
    }

    /// Writes the result and the report, and says where they are; or why the record is incomplete.
    pub fn finish(mut self, result: &Document) -> Result<()> {
        let page = self.dir.join("report.html");
        self.attempt(|record| write(&record.dir.join("result.json"), result));
        self.attempt(|record| html::write(&[Stored::read(&record.dir)?], &page));
        if let Some(e) = self.broken {
            return Err(e.context(format!("the record in {} is incomplete", self.dir.display())));
        }
        eprintln!("record: {}\nreport: {}", self.dir.display(), page.display());
        Ok(())
    }
}

fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)? + "\n";
    whole(path, text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}

/// Writes a file that is there as a whole or not at all, whatever ends the program or the machine.
fn whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let beside = path.with_extension("part");
    let write = || {
        let mut file = File::create(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    };
    // On a full disk the part would only be in the way.
    write().inspect_err(|_| drop(std::fs::remove_file(&beside)))
}

impl Line {
    fn of(round: u32, report: &Report) -> Self {
        let (mut histograms, mut seconds) = (BTreeMap::new(), Vec::new());
        if let Some(measured) = &report.measured {
            let names = || measured.histograms.iter().map(|(name, _)| name.clone());
            let counts = measured.histograms.iter().map(|(_, histogram)| counts(histogram));
            histograms = names().zip(counts).collect();
            let several = measured.seconds.iter().filter(|_| measured.seconds.len() > 1);
            seconds.extend(several.map(|second| StoredSecond {
                messages: second.messages,
                histograms: names().zip(second.counts.iter().cloned()).collect(),
            }));
        }
        Self { round, report: report.clone(), histograms, seconds }
    }

    fn parse(text: &str) -> Result<(u32, Report)> {
        let Self { round, mut report, histograms, seconds } = serde_json::from_str(text)?;
        if let Some(measured) = &mut report.measured {
            for (name, counts) in &histograms {
                measured.histograms.push((name.clone(), from_counts(counts)?));
            }
            let seconds = seconds.into_iter().map(|mut second| Second {
                messages: second.messages,
                counts: histograms
                    .keys()
                    .map(|name| second.histograms.remove(name).unwrap_or_default())
                    .collect(),
            });
            measured.seconds = seconds.collect();
            if measured.seconds.is_empty() {
                let counts = measured.histograms.iter().map(|(_, histogram)| counts(histogram));
                let only = Second { messages: measured.messages, counts: counts.collect() };
                measured.seconds.push(only);
            }
        }
        Ok((round, report))
    }
}

fn counts(histogram: &Histogram<u64>) -> Counts {
    histogram.iter_recorded().map(|v| (v.value_iterated_to(), v.count_at_value())).collect()
}

fn from_counts(counts: &Counts) -> Result<Histogram<u64>> {
    let mut histogram = histogram();
    for &(value, count) in counts {
        histogram.record_n(value, count).map_err(|e| anyhow!("{value} ns: {e}"))?;
    }
    Ok(histogram)
}

/// Whether there is anything to read in `dir`.
pub fn holds_runs(dir: &Path) -> bool {
    RUNS.iter().any(|name| dir.join(name).exists())
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
    /// Reads the record in `dir`, as far as it got.
    pub fn read(dir: &Path) -> Result<Self> {
        let (path, text) = runs(dir)?;
        let host = read(&dir.join("host.json"))?;
        let lines: Vec<&str> = text.lines().collect();
        let mut runs = Vec::with_capacity(lines.len());
        for (n, line) in lines.iter().enumerate() {
            match Line::parse(line) {
                Ok(run) => runs.push(run),
                // The program was killed, or the disk was full, while it wrote this line.
                Err(_) if n + 1 == lines.len() && !text.ends_with('\n') => {}
                Err(e) => return Err(e.context(format!("{}, line {}", path.display(), n + 1))),
            }
        }
        let comparison = Self::comparison(dir, &runs)?;
        Ok(Self { dir: dir.to_owned(), host, runs, comparison })
    }

    fn comparison(dir: &Path, runs: &[(u32, Report)]) -> Result<Option<Comparison>> {
        let (result, plan) = (dir.join("result.json"), dir.join("plan.json"));
        if result.exists() {
            match read::<serde_json::Value>(&result) {
                Ok(value) => return of_result(value, &result),
                // The runs say the same, as far as they got.
                Err(e) if plan.exists() || runs.len() == 1 => {
                    eprintln!("note: {e:#}; the runs are read instead");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_comes_back_from_a_record_as_it_was() {
        let mut histogram = histogram();
        for value in [1, 999, 1_000, 123_456_789, 99_999_999_999, u64::MAX] {
            histogram.saturating_record_n(value, value % 7 + 1);
        }
        assert_eq!(from_counts(&counts(&histogram)).unwrap(), histogram);
        assert!(from_counts(&vec![(u64::MAX, 1)]).is_err(), "no generator writes such a value");
    }
}
