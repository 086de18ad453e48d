//! Is this machine fit to measure on? Each answer with what to do about it.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::Doctor;
use crate::cpus;
use crate::host::Host;
use crate::judge::stolen_ticks;
use crate::models::Models;
use crate::speed::{self, SLOW};
use crate::syscalls::Counting;
use crate::table;

/// Descriptors that 10,000 connections and the rest of a process take.
const DESCRIPTORS: u64 = 10_100;
/// Local ports that the same take, if they all come from one address.
const PORTS: u64 = 10_000;
/// Part of the processors' time that may be lost to other guests before runs are SUSPECT.
const STOLEN: f64 = 0.01;
/// By how much equal work may differ in time (90th percentile to median) on a steady processor.
const STEADY: f64 = 1.05;
/// For how long that is looked at: the host's slow spells may be seconds apart.
const LOOK: Duration = Duration::from_secs(4);
/// Steps of such work: about a millisecond.
const STEPS: u32 = 200_000;
/// Part of the time at less than half speed that makes runs SUSPECT.
const SLOW_PART: f64 = 0.01;
/// How late a sleep of a millisecond may end before an open loop is late because of it.
const LATE: Duration = Duration::from_micros(200);

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing to do.
    Ok,
    /// Numbers will be worse, or something cannot be measured.
    Warning,
    /// Measuring will fail.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Finding {
    /// What was looked at.
    pub what: &'static str,
    /// How it is.
    pub level: Level,
    /// What was seen.
    pub seen: String,
    /// What to do about it; empty if nothing.
    pub advice: String,
}

/// Fine, or `level` with advice.
fn finding(what: &'static str, seen: String, fault: Option<(Level, &str)>) -> Finding {
    let (level, advice) = fault.unwrap_or((Level::Ok, ""));
    Finding { what, level, seen, advice: advice.to_owned() }
}

fn warn(when: bool, advice: &str) -> Option<(Level, &str)> {
    when.then_some((Level::Warning, advice))
}

/// `loadgen doctor`.
pub fn command(args: &Doctor) -> Result<ExitCode> {
    let models = Models::load(args.models_file.as_deref())?;
    let findings = examine(&models);
    if args.json {
        table::print(&format!("{:#}\n", serde_json::to_value(&findings)?))?;
    } else {
        let word = |level| match level {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Bad => "BAD",
        };
        let row = |f: &Finding| {
            vec![f.what.to_owned(), word(f.level).to_owned(), f.seen.clone(), f.advice.clone()]
        };
        let rows: Vec<_> = findings.iter().map(row).collect();
        table::print(&table::draw(&["", "", "seen", "what to do"], &rows, 4))?;
    }
    let bad = findings.iter().any(|finding| finding.level == Level::Bad);
    Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Everything, in the order in which it is shown. Takes about five seconds.
fn examine(models: &Models) -> Vec<Finding> {
    let host = Host::look();
    let before = stolen_ticks(&[]);
    let mut findings = vec![processors(&host)];
    findings.extend(steadiness());
    findings.push(sleep());
    let after = stolen_ticks(&[]);
    let stolen = (after.0 - before.0) as f64 / (after.1 - before.1).max(1) as f64;
    let advice = "other guests take processor time: measure when they are quiet, or elsewhere";
    findings.push(finding(
        "steal time",
        format!("{:.1} % now, {:.1} % since boot", stolen * 100.0, host.stolen_since_boot * 100.0),
        warn(stolen > STOLEN, advice),
    ));
    findings.extend([load(&host), governor(&host), clock(&host)]);
    findings.extend([descriptors(&host), ports(&host), backlog(&host)]);
    findings.extend([io_uring(), system_calls(), toolchain(&host)]);
    findings.extend(missing(models));
    findings
}

fn processors(host: &Host) -> Finding {
    let plan = cpus::plan(1, 1, &[], &[]).ok();
    let pinned = plan.filter(|plan| !plan.generator.is_empty());
    let apart = pinned.map_or("nothing can be pinned".into(), |plan| {
        format!("server on {:?}, generator on {:?}", plan.server, plan.generator)
    });
    let name = host.processor.as_deref().unwrap_or("unknown");
    let guest = if host.virtual_machine { ", a virtual machine" } else { "" };
    let advice = "server and generator share one: compare CPU per message, not messages/s";
    let seen = format!("{} x {name}{guest}; {apart}", host.processors);
    finding("processors", seen, warn(host.processors < 2, advice))
}

/// How much equal pieces of work differ in time, and for how long they take a multiple of it.
fn steadiness() -> [Finding; 2] {
    let (began, mut times) = (Instant::now(), Vec::new());
    while began.elapsed() < LOOK {
        times.push(speed::work(STEPS).as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    let [p90, most] = [times[times.len() * 9 / 10], times[times.len() - 1]].map(|t| t / median);
    let slow: f64 = times.iter().filter(|&&time| time > SLOW * median).sum();
    let part = slow / times.iter().sum::<f64>();
    let steady = finding(
        "steadiness",
        format!("equal work takes {p90:.2} x the median (p90), {most:.2} x at most"),
        warn(p90 > STEADY, "stop what else runs here; use more rounds and compare ratios"),
    );
    let advice = "the host slows its processors (power, heat, other guests), and this system can \
                  only watch: expect SUSPECT, and compare ratios of interleaved rounds";
    let seen = format!("below half speed for {:.1} % of {} s", part * 100.0, LOOK.as_secs());
    [steady, finding("slow spells", seen, warn(part > SLOW_PART, advice))]
}

/// How late a sleeper wakes up.
fn sleep() -> Finding {
    let millisecond = Duration::from_millis(1);
    let mut late: Vec<Duration> = (0..100)
        .map(|_| {
            let began = Instant::now();
            std::thread::sleep(millisecond);
            began.elapsed().saturating_sub(millisecond)
        })
        .collect();
    late.sort();
    let (p50, p99) =
        (table::time(late[50].as_nanos() as f64), table::time(late[98].as_nanos() as f64));
    let advice = "an open loop will be late: expect SUSPECT, or measure on a quieter machine";
    finding(
        "timers",
        format!("a sleep ends {p50} late (p50), {p99} (p99)"),
        warn(late[98] > LATE, advice),
    )
}

fn load(host: &Host) -> Finding {
    let last: f64 = host.load.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0.0);
    let advice = "something else is running: stop it, or wait";
    finding("load", format!("{} (1, 5, 15 minutes)", host.load), warn(last > 0.5, advice))
}

fn governor(host: &Host) -> Finding {
    let seen = match host.governors.is_empty() {
        true => "the frequency is not this system's to set".into(),
        false => host.governors.join(", "),
    };
    let slow = host.governors.iter().any(|governor| governor != "performance");
    finding("governor", seen, warn(slow, "cpupower frequency-set -g performance"))
}

fn clock(host: &Host) -> Finding {
    let slow = !matches!(host.clock.as_str(), "tsc" | "kvm-clock" | "arch_sys_counter");
    let advice = "reading this clock is a system call: the generator's own cost grows";
    finding("clock source", host.clock.clone(), warn(slow, advice))
}

fn descriptors(host: &Host) -> Finding {
    let fault = match host.descriptor_limit {
        n if n < 256 => Some((Level::Bad, "raise the hard limit (ulimit -Hn 20000)")),
        n if n < DESCRIPTORS => Some((Level::Warning, "for 10,000 connections: ulimit -Hn 20000")),
        _ => None,
    };
    finding("descriptors", format!("at most {} a process", host.descriptor_limit), fault)
}

fn ports(host: &Host) -> Finding {
    let range = &host.settings["net/ipv4/ip_local_port_range"];
    let ends: Vec<u64> = range.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    let ports = ends.last().zip(ends.first()).map_or(0, |(last, first)| last - first + 1);
    let waiting = std::fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let mut words = waiting.split_whitespace().skip_while(|word| *word != "tw");
    let waiting = words.nth(1).unwrap_or("?").to_owned();
    let advice = "for servers elsewhere: sysctl net.ipv4.ip_local_port_range='1024 65535'";
    let seen = format!("{ports} local ports for each address and server, {waiting} in TIME_WAIT");
    finding("ports", seen, warn(ports < PORTS, advice))
}

fn backlog(host: &Host) -> Finding {
    let somaxconn = &host.settings["net/core/somaxconn"];
    let short = somaxconn.parse::<u32>().is_ok_and(|n| n < 1024);
    let advice = "a storm of connections overflows it: sysctl net.core.somaxconn=4096";
    finding("backlog", format!("at most {somaxconn}"), warn(short, advice))
}

fn io_uring() -> Finding {
    let advice = "uring and compio will not start: sysctl kernel.io_uring_disabled=0";
    match std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").as_deref().map(str::trim) {
        Ok("0") => finding("io_uring", "allowed to all".into(), None),
        Ok("1") => finding("io_uring", "for the privileged only".into(), warn(true, advice)),
        Ok(_) => finding("io_uring", "forbidden".into(), warn(true, advice)),
        Err(_) => finding("io_uring", "no switch to forbid it (Linux before 6.6)".into(), None),
    }
}

fn system_calls() -> Finding {
    match Counting::start(std::process::id() as i32).and_then(Counting::finish) {
        Ok(_) => finding("system calls", "can be counted".into(), None),
        Err(e) => {
            let advice = "run as root, or do without the number of system calls";
            finding("system calls", format!("{e:#}"), warn(true, advice))
        }
    }
}

fn toolchain(host: &Host) -> Finding {
    let advice = "servers of the workspace cannot be built: install Rust, or use --cmd and --addr";
    match &host.compiler {
        Some(version) => finding("compiler", version.clone(), None),
        None => finding("compiler", "no rustc".into(), warn(true, advice)),
    }
}

/// What of the models file cannot run here, and why.
fn missing(models: &Models) -> Vec<Finding> {
    let missing = models.entries().filter_map(|(name, entry)| {
        let why = models.missing(entry)?;
        let (seen, advice) = (format!("{name} cannot run here"), why);
        Some(Finding { what: "model", level: Level::Warning, seen, advice })
    });
    missing.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_doubt_comes_with_advice() {
        let findings = examine(&Models::load(None).unwrap());
        assert!(findings.len() >= 12, "{findings:?}");
        for finding in &findings {
            assert!(!finding.seen.is_empty(), "{finding:?}");
            assert_eq!(finding.level == Level::Ok, finding.advice.is_empty(), "{finding:?}");
        }
    }

    #[test]
    fn a_shortage_of_descriptors_is_told_by_its_degree() {
        let with = |descriptor_limit| descriptors(&Host { descriptor_limit, ..Host::look() }).level;
        assert_eq!([64, 1024, 20_000].map(with), [Level::Bad, Level::Warning, Level::Ok]);
    }
}
