//! System calls of a process tree, counted by the kernel's tracepoint `raw_syscalls:sys_enter`.
//!
//! While a program counts, the kernel takes the slow way into every system call of the machine. So
//! calls are counted while warming up, over exactly the messages of that phase, and never in the
//! window whose processor time is measured.

use std::fs::read_to_string;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use perf_event::events::Tracepoint;
use perf_event::{Builder, Counter};

use super::cost::{opened, tree};

/// Where the file system of tracepoints is usually mounted.
const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
/// The tracepoint's number, below that.
const ID: &str = "events/raw_syscalls/sys_enter/id";

/// Counters that run, one for each thread that was there at the start. What these threads start
/// themselves is counted with them.
pub struct Counting(Vec<Counter>);

impl Counting {
    /// Begins to count for `root` and its descendants. Fails, with the reason, where counting is
    /// not possible or not permitted.
    pub fn start(root: i32) -> Result<Self> {
        let event = Tracepoint::with_id(tracepoint()?);
        let mut counters = Vec::new();
        for process in opened(tree(root)) {
            for task in process.tasks().into_iter().flatten().flatten() {
                let mut builder = Builder::new(event);
                // A tracepoint fires in the kernel, which is left out by default.
                builder.observe_pid(task.tid).inherit(true).include_kernel();
                let mut counter = match builder.build() {
                    // It has ended in between.
                    Err(e) if e.raw_os_error() == Some(nix::libc::ESRCH) => continue,
                    other => other.context(
                        "the kernel does not let this user count (perf_event_open); run as root",
                    )?,
                };
                counter.enable()?;
                counters.push(counter);
            }
        }
        Ok(Self(counters))
    }

    /// Ends the counting and says how many system calls there were.
    pub fn finish(mut self) -> Result<u64> {
        let mut sum = 0;
        for counter in &mut self.0 {
            sum += counter.read()?;
        }
        Ok(sum)
    }
}

/// The number by which the kernel knows the tracepoint.
fn tracepoint() -> Result<u64> {
    let id = TRACEFS.iter().find_map(|dir| read_to_string(Path::new(dir).join(ID)).ok());
    let id = match id {
        Some(id) => id,
        None => mounted_for_us()
            .context("tracefs is not mounted (mount -t tracefs tracefs /sys/kernel/tracing)")?,
    };
    id.trim().parse().with_context(|| format!("{ID} holds {id:?}"))
}

/// Reads the number with tracefs mounted where only one short-lived thread sees it, so that
/// nothing changes on the machine.
fn mounted_for_us() -> Result<String> {
    let read = || -> Result<String> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        mount(Some("tracefs"), TRACEFS[0], Some("tracefs"), MsFlags::empty(), none)?;
        Ok(read_to_string(Path::new(TRACEFS[0]).join(ID))?)
    };
    std::thread::spawn(read).join().unwrap_or_else(|_| Err(anyhow!("the mounting thread failed")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_number_of_calls_is_counted() {
        let pid = std::process::id() as i32;
        let counting = match Counting::start(pid) {
            Ok(counting) => counting,
            // Where it is not permitted, the reason must say what to do.
            Err(e) => {
                return assert!(
                    format!("{e:#}").contains("root") || format!("{e:#}").contains("mount"),
                    "{e:#}"
                );
            }
        };
        let calls = 10_000;
        let call = move || (0..calls).for_each(|_| std::mem::drop(std::fs::metadata("/")));
        call();
        // A thread that is born meanwhile belongs to the tree.
        std::thread::spawn(call).join().unwrap();
        let counted = counting.finish().unwrap();
        assert!(counted >= 2 * calls, "{counted}");
    }
}
