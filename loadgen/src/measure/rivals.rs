//! What other programs take of the processors on which a server is measured.
//!
//! A compiler beside a measurement is seen by no counter of the hypervisor, and makes answers late
//! for tens of milliseconds. So the processor time of all other processes is read before and after.

use std::collections::BTreeMap;

use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use procfs::process::all_processes;

/// The kernel's mark on threads of its own: what they do may be done for the server.
const KERNEL_THREAD: u32 = 0x0020_0000;

/// Processor time in nanoseconds of each process that is neither ours nor the server's, by its
/// number; of those that were last seen on the processors in use.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rivals(BTreeMap<i32, u64>);

impl Rivals {
    /// Reads them. `server` is the server's process; `cpus` are the processors in use, empty for
    /// all.
    pub(crate) fn now(server: i32, cpus: &[usize]) -> Self {
        let stats = all_processes()
            .into_iter()
            .flatten()
            .filter_map(|process| process.ok().and_then(|process| process.stat().ok()));
        let stats: Vec<_> = stats.filter(|stat| stat.flags & KERNEL_THREAD == 0).collect();
        let parents: BTreeMap<i32, i32> = stats.iter().map(|s| (s.pid, s.ppid)).collect();
        let roots = [std::process::id() as i32, server];
        let ours = |pid: i32| {
            let up = |pid: &i32| parents.get(pid).copied();
            std::iter::successors(Some(pid), up).any(|pid| roots.contains(&pid))
        };
        let here = |cpu: Option<i32>| {
            cpus.is_empty() || cpu.is_some_and(|cpu| cpus.contains(&(cpu as usize)))
        };
        let others = stats.iter().filter(|stat| here(stat.processor) && !ours(stat.pid));
        Self(others.filter_map(|stat| Some((stat.pid, cpu_ns(stat.pid)?))).collect())
    }

    /// What they have used since `before`, in nanoseconds. Of a process that has come since it is
    /// all, of a process that has ended nothing is known.
    pub(crate) fn since(&self, before: &Self) -> u64 {
        let used = |(pid, now): (&i32, &u64)| {
            now.saturating_sub(before.0.get(pid).copied().unwrap_or_default())
        };
        self.0.iter().map(used).sum()
    }
}

fn cpu_ns(pid: i32) -> Option<u64> {
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid)).ok()?;
    let time = clock_gettime(clock).ok()?;
    Some(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    /// A grandchild whose parent has ended is no longer ours: it stands for another program.
    #[test]
    fn others_are_seen_and_our_own_are_not() {
        let own = std::process::id() as i32;
        let mut child = Command::new("sh")
            .args(["-c", "sh -c 'echo $$; while :; do :; done' & read x"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
        let busy: i32 = line.trim().parse().unwrap();
        let known = |rivals: &Rivals| rivals.0.contains_key(&busy);
        assert!(!known(&Rivals::now(own, &[])), "a child of a child is ours");
        drop(child.stdin.take());
        child.wait().unwrap();
        let before = Rivals::now(own, &[]);
        assert!(known(&before));
        while cpu_ns(busy).unwrap() < before.0[&busy] + 10_000_000 {
            std::thread::yield_now();
        }
        let used = Rivals::now(own, &[]).since(&before);
        assert!(!known(&Rivals::now(busy, &[])), "a server is no rival of itself");
        let pid = rustix::process::Pid::from_raw(busy).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        assert!(used >= 10_000_000, "{used}");
    }
}
