//! A record that is being written.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::line::Line;
use super::{HOST, PLAN, RESULT, RUNS, TABLE, holds_runs};
use crate::measure::Report;
use crate::results::{Document, Host, Planned};

/// A record that is being written. Dropped before there is a run or a result in it, it goes again:
/// its folder would only be in the way of the next attempt.
pub struct Record {
    dir: PathBuf,
    /// Whether the folder was there before.
    found: bool,
    runs: File,
    /// Whether there is something in it to keep.
    kept: bool,
    /// What went wrong first; nothing is written after it.
    broken: Option<anyhow::Error>,
}

impl Record {
    /// Begins a record in `dir`, which must not hold one: records are never overwritten.
    pub fn create(dir: &Path, host: &Host) -> Result<Self> {
        let path = dir.join(RUNS[0]);
        if holds_runs(dir) {
            bail!("{} holds a record already; name another folder for --out", dir.display());
        }
        let found = dir.exists();
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        write(&dir.join(HOST), host)?;
        let runs = OpenOptions::new()
            .create_new(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { dir: dir.to_owned(), found, runs, kept: false, broken: None })
    }

    /// Says what a comparison is about to do.
    pub fn plan(&mut self, planned: &Planned) {
        if self.broken.is_none() {
            self.broken = write(&self.dir.join(PLAN), planned).err();
        }
    }

    /// Adds one run.
    pub fn run(&mut self, round: u32, report: &Report) {
        self.kept = true;
        if self.broken.is_none() {
            self.broken = self.append(round, report).err();
        }
    }

    /// What is kept of one run: a line of the file of runs, without its end.
    pub fn line(round: u32, report: &Report) -> Result<String> {
        Ok(serde_json::to_string(&Line::of(round, report)?)?)
    }

    fn append(&mut self, round: u32, report: &Report) -> Result<()> {
        let text = Self::line(round, report)? + "\n";
        Ok(self.runs.write_all(text.as_bytes())?)
    }

    /// Keeps the result.
    pub fn result(&mut self, result: &Document) {
        self.attempt(|dir| write(&dir.join(RESULT), result));
    }

    /// Keeps what is printed, where it could not be made again from runs.
    pub fn table(&mut self, text: &str) {
        self.attempt(|dir| {
            let path = dir.join(TABLE);
            whole(&path, text.as_bytes())
                .with_context(|| format!("cannot write {}", path.display()))
        });
    }

    /// Makes a further file in the record's folder, of what is there by now. A full disk must not
    /// cost the runs to come: what goes wrong is reported at the end.
    pub fn attempt(&mut self, write: impl FnOnce(&Path) -> Result<()>) {
        self.kept = true;
        if self.broken.is_none() {
            self.broken = write(&self.dir).err();
        }
    }

    /// Ends the record. Returns its folder, or why it is incomplete.
    pub fn close(mut self) -> Result<PathBuf> {
        match self.broken.take() {
            Some(e) => {
                Err(e.context(format!("the record in {} is incomplete", self.dir.display())))
            }
            None => Ok(self.dir.clone()),
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        for name in [RUNS[0], PLAN, HOST] {
            let _ = std::fs::remove_file(self.dir.join(name));
        }
        if !self.found {
            // It stays if another program has put something in it.
            let _ = std::fs::remove_dir(&self.dir);
        }
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
