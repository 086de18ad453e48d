//! What a server costs, read from the kernel for its whole process tree.
//!
//! Processor time comes from the process's CPU-time clock: nanoseconds, over all its threads, the
//! ended ones included. `/proc/PID/stat` counts the same in ticks of 10 ms and serves only to
//! split the sum into user and system, and to add what processes have used that have ended since:
//! their parent is charged with it once it has waited for them. For a thread that is running on
//! another processor the clock lags by up to a tick; snapshots are therefore taken while no message
//! is in flight.

use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use procfs::process::{Process, all_processes};
use procfs::{Current, ticks_per_second};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Ticks below which the split into user and system would be noise.
const ENOUGH_TICKS: u64 = 20;

/// The counters of a process tree at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    cpu_ns: u64,
    /// Processor time of processes that have ended and were waited for, in nanoseconds.
    ended_ns: u64,
    user_ticks: u64,
    system_ticks: u64,
    voluntary: u64,
    involuntary: u64,
    peak_rss: u64,
    threads: u64,
    descriptors: u64,
}

/// What the messages between two snapshots have cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Cost {
    /// User and system time for each message, in nanoseconds.
    pub cpu_ns_per_message: f64,
    /// Part of that time spent in user space, from 0 to 1; `None` if too little to be told apart.
    pub user_share: Option<f64>,
    /// Clock ticks (10 ms as a rule) of user space and of the kernel. They are too few in a short
    /// run, and are added up over the rounds of a comparison.
    #[serde(default)]
    pub ticks: [u64; 2],
    /// Times that a thread went to sleep, for each message.
    pub voluntary_switches_per_message: f64,
    /// Times that a thread was made to give way, for each message.
    pub involuntary_switches_per_message: f64,
    /// Most memory resident at any time since the start, in bytes.
    pub peak_rss_bytes: u64,
    /// Threads at the end.
    pub threads: u64,
    /// Open descriptors at the end.
    pub descriptors: u64,
}

/// The numbers of the process, if it is there, and of all its descendants. They are read one after
/// the other: a process that is open takes a descriptor, and a comparison may have few to spare.
pub(crate) fn tree(root: i32) -> Vec<i32> {
    let mut all: Vec<(i32, i32)> = all_processes()
        .into_iter()
        .flatten()
        .filter_map(|process| process.and_then(|p| p.stat()).ok())
        .map(|stat| (stat.ppid, stat.pid))
        .collect();
    let mut found: Vec<i32> = all.iter().map(|(_, pid)| *pid).filter(|pid| *pid == root).collect();
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        let is_child = |(ppid, _): &mut (i32, i32)| *ppid == parent;
        found.extend(all.extract_if(.., is_child).map(|(_, pid)| pid));
        next += 1;
    }
    found
}

/// Those of the processes that can still be looked at, one after the other.
pub(crate) fn opened(pids: Vec<i32>) -> impl Iterator<Item = Process> {
    pids.into_iter().filter_map(|pid| Process::new(pid).ok())
}

/// The part of user space in these ticks of user space and of the kernel, if there are enough.
pub(crate) fn user_share([user, kernel]: [u64; 2]) -> Option<f64> {
    let ticks = user + kernel;
    (ticks >= ENOUGH_TICKS).then(|| user as f64 / ticks as f64)
}

impl Snapshot {
    /// Threads of the tree.
    pub(crate) fn threads(&self) -> u64 {
        self.threads
    }

    /// Reads the counters of `root` and its descendants; `None` if `root` cannot be read. What has
    /// ended of the others counts as nothing.
    pub(crate) fn take(root: i32) -> Option<Self> {
        let tree = tree(root);
        if tree.is_empty() {
            return None;
        }
        let mut sum = Self::default();
        for process in opened(tree) {
            let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(process.pid));
            if let Ok(time) = clock.and_then(clock_gettime) {
                sum.cpu_ns += time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64;
            }
            if let Ok(stat) = process.stat() {
                let [user, system] = [stat.cutime, stat.cstime].map(|ticks| ticks as u64);
                sum.user_ticks += stat.utime + user;
                sum.system_ticks += stat.stime + system;
                sum.ended_ns += (user + system) * 1_000_000_000 / ticks_per_second();
                sum.threads += stat.num_threads as u64;
            }
            for task in process.tasks().into_iter().flatten().flatten() {
                if let Ok(status) = task.status() {
                    sum.voluntary += status.voluntary_ctxt_switches.unwrap_or(0);
                    sum.involuntary += status.nonvoluntary_ctxt_switches.unwrap_or(0);
                }
            }
            let peak = process.status().ok().and_then(|status| status.vmhwm);
            sum.peak_rss += peak.unwrap_or(0) * 1024;
            sum.descriptors += process.fd_count().unwrap_or(0) as u64;
        }
        Some(sum)
    }

    /// What `messages` have cost since `before`.
    pub(crate) fn since(&self, before: &Self, messages: u64) -> Cost {
        let each = |now: u64, then: u64| now.saturating_sub(then) as f64 / messages.max(1) as f64;
        let user = self.user_ticks.saturating_sub(before.user_ticks);
        let ticks = user + self.system_ticks.saturating_sub(before.system_ticks);
        let cpu_ns = |all: &Self| all.cpu_ns + all.ended_ns;
        Cost {
            cpu_ns_per_message: each(cpu_ns(self), cpu_ns(before)),
            user_share: user_share([user, ticks - user]),
            ticks: [user, ticks - user],
            voluntary_switches_per_message: each(self.voluntary, before.voluntary),
            involuntary_switches_per_message: each(self.involuntary, before.involuntary),
            peak_rss_bytes: self.peak_rss,
            threads: self.threads,
            descriptors: self.descriptors,
        }
    }
}

/// Resident memory of the tree in bytes, counted page by page: the quick counter of
/// `/proc/PID/statm` may be off by some dozens of pages for each processor. Pages that several
/// processes share count for each of them.
pub(crate) fn resident(root: i32) -> Option<u64> {
    let rss = |process: Process| {
        let rollup = process.smaps_rollup().ok()?;
        let map = rollup.memory_map_rollup.iter().next()?;
        map.extension.map.get("Rss").copied()
    };
    let tree = tree(root);
    (!tree.is_empty()).then(|| opened(tree).filter_map(rss).sum())
}

/// Memory at one moment, in bytes, as far as it is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// Of the server's processes.
    pub(crate) server: Option<u64>,
    /// Of the kernel, for its own objects.
    pub(crate) kernel: Option<u64>,
}

impl Memory {
    pub(crate) fn now(server: Option<i32>) -> Self {
        Self { server: server.and_then(resident), kernel: kernel_memory() }
    }
}

/// What a process tree holds at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// Open descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
    /// Resident memory in bytes.
    pub resident_bytes: u64,
}

impl Held {
    /// By `root` and its descendants; `None` if it has ended.
    pub fn by(root: i32) -> Option<Self> {
        let resident_bytes = resident(root)?;
        let Snapshot { threads, descriptors, .. } = Snapshot::take(root)?;
        Some(Self { descriptors, threads, resident_bytes })
    }
}

/// Memory in bytes that the kernel of this machine holds for its own objects, for the stacks of
/// threads and for page tables: what connections take of it beside the memory of processes. It is
/// known for the machine only, so it covers both ends of a connection, and whatever else grows.
fn kernel_memory() -> Option<u64> {
    let info = procfs::Meminfo::current().ok()?;
    Some(info.slab + info.kernel_stack? + info.page_tables?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_costs_are_seen_and_grow() {
        let pid = std::process::id() as i32;
        let before = Snapshot::take(pid).unwrap();
        let mut state = 1;
        let spin = (0..20_000_000).fold(0, |sum: u64, _| {
            sum.wrapping_add(crate::base::random::splitmix(std::hint::black_box(&mut state)))
        });
        std::hint::black_box(spin);
        let cost = Snapshot::take(pid).unwrap().since(&before, 1);
        assert!(cost.cpu_ns_per_message > 1e6, "{cost:?}");
        assert!(cost.threads >= 1 && cost.descriptors >= 3 && cost.peak_rss_bytes > 0);
        assert!(resident(pid).is_some_and(|bytes| bytes > 100_000));
        assert_eq!(resident(i32::MAX), None);
        assert!(Snapshot::take(i32::MAX).is_none());
    }

    #[test]
    fn children_that_have_ended_are_in_the_cost() {
        let before = Snapshot::take(std::process::id() as i32).unwrap();
        let spin = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        let ended = std::process::Command::new("sh").args(["-c", spin]).status().unwrap();
        assert!(ended.success());
        let after = Snapshot::take(std::process::id() as i32).unwrap();
        assert!(after.ended_ns > before.ended_ns, "{before:?}, {after:?}");
    }
}
