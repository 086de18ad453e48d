//! What the processes under test use, read from /proc: memory, processor time, descriptors.
//!
//! A server may be several processes (prefork); all of them share its process group, and what is
//! said here is the sum over that group.

use std::fs;
use std::path::Path;

use rustix::process::Pid;

/// What a process group uses at one instant.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Resident memory now, in KiB (`VmRSS`).
    pub(crate) resident_kib: u64,
    /// The most resident memory there ever was, in KiB (`VmHWM`).
    pub(crate) peak_kib: u64,
    /// Open descriptors.
    pub(crate) descriptors: usize,
    /// Processor time, user and system, in clock ticks.
    pub(crate) ticks: u64,
    /// Processes, and those among them that are stopped.
    pub(crate) processes: usize,
    pub(crate) stopped: usize,
}

/// Reads what the process group uses. A process that has ended counts for nothing.
pub(crate) fn of_group(group: Pid) -> Usage {
    let mut sum = Usage::default();
    let Ok(entries) = fs::read_dir("/proc") else { return sum };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()) {
            // `None` is a process that has just ended, or one of another group.
            if let Some(one) = of_member(&entry.path(), group) {
                sum.resident_kib += one.resident_kib;
                sum.peak_kib += one.peak_kib;
                sum.descriptors += one.descriptors;
                sum.ticks += one.ticks;
                sum.processes += 1;
                sum.stopped += one.stopped;
            }
        }
    }
    sum
}

fn of_member(proc: &Path, group: Pid) -> Option<Usage> {
    let stat = fs::read_to_string(proc.join("stat")).ok()?;
    // The name in parentheses may hold anything; the fields that count come after the last one.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    if number(5)? != u64::try_from(group.as_raw_nonzero().get()).ok()? {
        return None;
    }
    let state = *fields.first()?;
    if state == "Z" {
        return None;
    }
    let status = fs::read_to_string(proc.join("status")).ok()?;
    let kib = |key: &str| -> Option<u64> {
        status
            .lines()
            .find_map(|line| line.strip_prefix(key))?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    };
    Some(Usage {
        // One that is just ending has no memory left to tell of.
        resident_kib: kib("VmRSS:").unwrap_or(0),
        peak_kib: kib("VmHWM:").unwrap_or(0),
        descriptors: fs::read_dir(proc.join("fd")).map_or(0, Iterator::count),
        ticks: number(14)? + number(15)?,
        processes: 1,
        stopped: usize::from(state == "T"),
    })
}
