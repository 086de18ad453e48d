//! What the processes under test use, read from /proc: memory, processor time, descriptors.
//!
//! A server may be several processes (prefork); all of them share its process group, and what is
//! said here is the sum over that group.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

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
    /// Processes, and those among them of which each thread is stopped.
    pub(crate) processes: usize,
    pub(crate) stopped: usize,
}

/// Reads what the process group uses. A process that has ended counts for nothing.
pub(crate) fn of_group(group: Pid) -> Usage {
    let mut sum = Usage::default();
    for (proc, stat) in members(group) {
        // `None` is a process that has just ended.
        if let Some(one) = of_member(&proc, &stat) {
            sum.resident_kib += one.resident_kib;
            sum.peak_kib += one.peak_kib;
            sum.descriptors += one.descriptors;
            sum.ticks += one.ticks;
            sum.processes += 1;
            sum.stopped += one.stopped;
        }
    }
    sum
}

/// Whether no thread of the process group runs, or could run if a processor were free.
pub(crate) fn is_asleep(group: Pid) -> bool {
    members(group).all(|(proc, _)| states(&proc).all(|state| state != 'R'))
}

/// Whether each thread of a process is stopped. Each stops by itself when it comes to it: that the
/// first one stands says nothing of those that wait for a processor.
fn is_stopped(proc: &Path) -> bool {
    states(proc).all(|state| matches!(state, 'T' | 't' | 'Z' | 'X'))
}

/// The state of each thread of a process.
fn states(proc: &Path) -> impl Iterator<Item = char> {
    let threads = fs::read_dir(proc.join("task")).into_iter().flatten().flatten();
    let stats = threads.filter_map(|it| fs::read_to_string(it.path().join("stat")).ok());
    // The state stands behind the name, which ends with the last parenthesis.
    stats.filter_map(|stat| stat.rsplit(") ").next()?.chars().next())
}

/// How many times the thread that waits for signals has begun to wait: the one that is named after
/// them, or in a group of several processes the first of these. `None` where no thread has given
/// itself that name yet.
pub(crate) fn waits_of_signals(group: Pid) -> Option<u64> {
    let tasks = PathBuf::from(format!("/proc/{}/task", group.as_raw_nonzero()));
    let threads = fs::read_dir(&tasks).ok()?.flatten().map(|it| it.path());
    let named = |thread: &PathBuf| {
        fs::read_to_string(thread.join("comm")).is_ok_and(|name| name.trim() == "signals")
    };
    let first = || {
        let several = members(group).nth(1).is_some();
        several.then(|| tasks.join(group.as_raw_nonzero().to_string()))
    };
    let thread = threads.into_iter().find(named).or_else(first)?;
    let status = fs::read_to_string(thread.join("status")).ok()?;
    let waits = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
    waits.trim().parse().ok()
}

/// The processes of the group, first the one that it is named after.
pub(crate) fn processes(group: Pid) -> Vec<Pid> {
    let mut pids: Vec<_> = members(group).filter_map(|(proc, _)| pid_of(&proc)).collect();
    pids.sort_by_key(|&pid| pid != group);
    pids
}

/// The process of the group that holds the connection from `client` to `server`.
pub(crate) fn holder(group: Pid, server: SocketAddr, client: SocketAddr) -> Option<Pid> {
    let sockets = fs::read_to_string("/proc/net/tcp").ok()?;
    let ends = [server, client].map(|addr| format!(":{:04X}", addr.port()));
    let mut rows = sockets.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
    let row = rows.find(|row| {
        let addrs = row.iter().skip(1).zip(&ends);
        addrs.filter(|(addr, port)| addr.ends_with(port.as_str())).count() == 2
    })?;
    let socket = PathBuf::from(format!("socket:[{}]", row.get(9)?));
    let holds = |proc: &Path| {
        let mut descriptors = fs::read_dir(proc.join("fd")).into_iter().flatten().flatten();
        descriptors.any(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == socket))
    };
    members(group).find(|(proc, _)| holds(proc)).and_then(|(proc, _)| pid_of(&proc))
}

/// Where a socket listens at this address, which only one server was told to listen at.
pub(crate) fn listener_at(ip: Ipv4Addr) -> Option<SocketAddr> {
    const LISTENS: &str = "0A";
    // The kernel writes an address as numbers of this machine's byte order. A virtual machine may
    // listen there with a socket of IPv6, which has the address as ::ffff:127.0.0.1.
    let ip_in_hex = format!("{:08X}", u32::from_ne_bytes(ip.octets()));
    let mapped = format!("{:024X}", u128::from(u32::from_ne_bytes([0, 0, 0xff, 0xff])));
    let sockets = [
        (fs::read_to_string("/proc/net/tcp").ok()?, ip_in_hex.clone()),
        (fs::read_to_string("/proc/net/tcp6").unwrap_or_default(), mapped + &ip_in_hex),
    ];
    let port = sockets.iter().find_map(|(table, ip)| {
        table.lines().find_map(|row| {
            let mut fields = row.split_whitespace().skip(1);
            let (at, port) = fields.next()?.split_once(':')?;
            let is_here = at == ip && fields.nth(1) == Some(LISTENS);
            is_here.then(|| u16::from_str_radix(port, 16).ok()).flatten()
        })
    })?;
    Some(SocketAddr::from((ip, port)))
}

fn pid_of(proc: &Path) -> Option<Pid> {
    Pid::from_raw(proc.file_name()?.to_str()?.parse().ok()?)
}

/// The living processes of the group: the directory of each, and its `stat` from the third field
/// on, which is its state.
fn members(group: Pid) -> impl Iterator<Item = (PathBuf, Vec<String>)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(move |entry| {
        let proc = entry.path();
        pid_of(&proc)?;
        let stat = fs::read_to_string(proc.join("stat")).ok()?;
        // The name in parentheses may hold anything; what counts comes after the last one.
        let fields = stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned);
        let fields: Vec<String> = fields.collect();
        let is_member = *fields.get(2)? == group.as_raw_pid().to_string();
        (is_member && fields[0] != "Z").then_some((proc, fields))
    })
}

fn of_member(proc: &Path, stat: &[String]) -> Option<Usage> {
    let number = |field: usize| stat.get(field - 3)?.parse::<u64>().ok();
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
        stopped: usize::from(is_stopped(proc)),
    })
}
