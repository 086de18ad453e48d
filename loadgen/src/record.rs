//! Records on disk: the host, every run with its full histograms as it ends, and the result.
//!
//! ```text
//! DIR/host.json      kernel, processors, limits, versions, the command
//! DIR/runs.jsonl     one line a run, written the moment it ends
//! DIR/result.json    what was printed, once there is something to print
//! ```

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::{Value, json};

use crate::run::Report;

/// A record that is being written.
pub struct Record {
    dir: PathBuf,
    runs: File,
    /// What went wrong first; nothing is written after it.
    broken: Option<anyhow::Error>,
}

impl Record {
    /// Begins a record in `dir`, which must not hold one: records are never overwritten.
    pub fn create(dir: &Path) -> Result<Self> {
        let path = dir.join("runs.jsonl");
        if path.exists() {
            bail!("{} holds a record already; name another folder for --out", dir.display());
        }
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        write(&dir.join("host.json"), &host())?;
        let runs = OpenOptions::new()
            .create_new(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { dir: dir.to_owned(), runs, broken: None })
    }

    /// Adds one run. A full disk must not cost the runs to come: it is reported at the end.
    pub fn run(&mut self, round: u32, report: &Report) {
        if self.broken.is_none() {
            self.broken = self.append(round, report).err();
        }
    }

    fn append(&mut self, round: u32, report: &Report) -> Result<()> {
        let mut value = json!({ "round": round });
        let fields = serde_json::to_value(report)?;
        if let (Value::Object(all), Value::Object(fields)) = (&mut value, fields) {
            all.extend(fields);
        }
        value["histograms"] = histograms(report);
        let line = format!("{value}\n");
        Ok(self.runs.write_all(line.as_bytes())?)
    }

    /// Writes the result and returns the folder, or says why the record is incomplete.
    pub fn finish(self, result: &impl Serialize) -> Result<PathBuf> {
        if let Some(e) = self.broken {
            return Err(e.context(format!("the record in {} is incomplete", self.dir.display())));
        }
        write(&self.dir.join("result.json"), result)?;
        Ok(self.dir)
    }
}

fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)? + "\n";
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// For each latency the values (ns, the upper end of their class) with their counts. Histograms
/// of equal bounds add up exactly by adding the counts of equal values.
fn histograms(report: &Report) -> Value {
    let Some(measured) = &report.measured else { return Value::Null };
    let all = measured.histograms.iter().map(|(name, histogram)| {
        let counts: Vec<_> = histogram
            .iter_recorded()
            .map(|v| json!([v.value_iterated_to(), v.count_at_value()]))
            .collect();
        ((*name).to_owned(), Value::Array(counts))
    });
    Value::Object(all.collect())
}

/// What a reader of a record must know about the machine and the program.
pub fn host() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find(|line| line.starts_with("model name"));
    let memory = read("/proc/meminfo");
    let (mut total, after) = (None, "MemTotal:");
    for line in memory.lines().filter_map(|line| line.strip_prefix(after)) {
        total = line.split_whitespace().next().and_then(|kb| kb.parse::<u64>().ok());
    }
    json!({
        "time": humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string(),
        "kernel": format!("{} {}", read("/proc/sys/kernel/osrelease"), std::env::consts::ARCH),
        "processor": model.and_then(|line| line.split_once(": ")).map(|(_, model)| model),
        "processors": std::thread::available_parallelism().map_or(1, |n| n.get()),
        "memory_bytes": total.map(|kb| kb * 1024),
        "descriptor_limit": crate::server::descriptor_limit(),
        "local_ports": read("/proc/sys/net/ipv4/ip_local_port_range"),
        "somaxconn": read("/proc/sys/net/core/somaxconn"),
        "clock": read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "loadgen": env!("CARGO_PKG_VERSION"),
        "command": std::env::args().collect::<Vec<_>>(),
    })
}
