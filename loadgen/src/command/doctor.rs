//! Is this machine fit to measure on? Each answer with what to do about it.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::time::{ClockId, clock_gettime};

use super::cli::Doctor;
use super::publish::print_json;
use crate::base::output;
use crate::base::text::{self, percent};
use crate::measure::machine::{self, stolen_ticks};
use crate::measure::speed::{self, SLOW};
use crate::measure::syscalls::Counting;
use crate::results::{Body, DoctorFinding, Document, Host, Level};
use crate::show;
use crate::target::{Models, cpus};

/// Descriptors that 10,000 connections and the rest of a process take.
const DESCRIPTORS: u64 = 10_100;
/// Local ports that the same take, if they all come from one address.
const PORTS: u64 = 10_000;
/// By how much equal work may differ in time (90th percentile to median) on a steady processor.
const STEADY: f64 = 1.05;
/// For how long that is looked at: the host's slow spells may be seconds apart.
const LOOK: Duration = Duration::from_secs(4);
/// Steps of such work: about a millisecond.
const STEPS: u32 = 200_000;
/// How late a sleep of a millisecond may end before an open loop is late because of it.
const LATE: Duration = Duration::from_micros(200);

/// Fine, or `level` with advice.
fn finding(what: &'static str, seen: String, fault: Option<(Level, &str)>) -> DoctorFinding {
    let (level, advice) = fault.unwrap_or((Level::Ok, ""));
    DoctorFinding { what, level, seen, advice: advice.to_owned() }
}

fn warn(when: bool, advice: &str) -> Option<(Level, &str)> {
    when.then_some((Level::Warning, advice))
}

/// `loadgen doctor`.
pub(super) fn doctor(args: &Doctor) -> Result<ExitCode> {
    let models = args.models_file.load()?;
    let host = Host::look();
    let findings = examine(&models, &host);
    let bad = findings.iter().any(|finding| finding.level == Level::Bad);
    if args.json {
        print_json(&Document::new(Body::Doctor { host: host.into(), doctor: findings }))?;
    } else {
        output::print(&show::fitness(&findings))?;
    }
    Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Everything, in the order in which it is shown. Takes about five seconds.
fn examine(models: &Models, host: &Host) -> Vec<DoctorFinding> {
    let before = stolen_ticks(&[]);
    let mut findings = vec![processors(host)];
    findings.extend(steadiness());
    findings.push(sleep());
    let after = stolen_ticks(&[]);
    let stolen = (after.0 - before.0) as f64 / (after.1 - before.1).max(1) as f64;
    let advice = "other guests take processor time: measure when they are quiet, or elsewhere";
    findings.push(finding(
        "steal time",
        format!("{} now, {} since boot", percent(stolen), percent(host.stolen_since_boot)),
        warn(stolen > machine::STOLEN, advice),
    ));
    findings.extend([load(host), governor(host), clock(host)]);
    findings.extend([descriptors(host), ports(host), backlog(host)]);
    findings.extend([io_uring(), system_calls(), toolchain(host)]);
    findings.extend(missing(models));
    findings
}

fn processors(host: &Host) -> DoctorFinding {
    let plan = cpus::plan(1, 1, &[], &[]).ok();
    let denied = plan.as_ref().and_then(|plan| plan.denied.clone());
    let pinned = plan.filter(|plan| !plan.generator.is_empty());
    let apart = match (&denied, pinned) {
        (Some(why), _) => why.clone(),
        (None, None) => "nothing can be pinned".into(),
        (None, Some(plan)) => {
            format!("server on {:?}, generator on {:?}", plan.server, plan.generator)
        }
    };
    let name = host.processor.as_deref().unwrap_or("unknown");
    let guest = if host.virtual_machine { ", a virtual machine" } else { "" };
    let advice = "server and generator share one: compare CPU per message, not messages/s";
    let seen = format!("{} x {name}{guest}; {apart}", host.processors);
    let advice = match denied {
        Some(_) => "allow sched_getaffinity and sched_setaffinity; until then expect SUSPECT",
        None => advice,
    };
    finding("processors", seen, warn(host.processors < 2 || denied.is_some(), advice))
}

/// How much equal pieces of work differ in time, and why: other programs had the processor, or it
/// was slow.
fn steadiness() -> [DoctorFinding; 3] {
    let (began, mut pieces) = (Instant::now(), Vec::new());
    while began.elapsed() < LOOK {
        let before = own_time();
        let time = speed::work(STEPS).as_secs_f64();
        pieces.push((time, own_time() - before));
    }
    steady(&pieces)
}

/// Of pieces of work: how long each took, and for how long of that it ran, in seconds.
fn steady(pieces: &[(f64, f64)]) -> [DoctorFinding; 3] {
    let sorted = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times
    };
    let times = sorted(pieces.iter().map(|(time, _)| *time).collect());
    let own = sorted(pieces.iter().map(|(_, own)| *own).collect());
    let (median, own_median) = (times[times.len() / 2], own[own.len() / 2]);
    let [p90, most] = [times[times.len() * 9 / 10], times[times.len() - 1]].map(|t| t / median);
    let steady = finding(
        "steadiness",
        format!("equal work takes {p90:.2} x the median (p90), {most:.2} x at most"),
        warn(p90 > STEADY, "use more rounds and compare ratios; see what follows for the cause"),
    );
    let (all, ran): (f64, f64) = (times.iter().sum(), own.iter().sum());
    let taken = (1.0 - ran / all).max(0.0);
    let others = finding(
        "other programs",
        format!("had this processor for {} of {} s", percent(taken), LOOK.as_secs()),
        warn(taken > machine::TAKEN, "stop what else runs here"),
    );
    // Of the time that it ran: what other programs took is no slowness.
    let slow: f64 = own.iter().filter(|&&time| time > SLOW * own_median).sum();
    let part = slow / ran;
    let advice = "the host slows its processors (power, heat, other guests), and this system can \
                  only watch: expect SUSPECT, and compare ratios of interleaved rounds";
    let seen = format!("below half speed for {} of {} s", percent(part), LOOK.as_secs());
    [steady, others, finding("slow spells", seen, warn(part > machine::SLOW, advice))]
}

/// Processor time of the calling thread in seconds.
fn own_time() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// How late a sleeper wakes up.
fn sleep() -> DoctorFinding {
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
        (text::time(late[50].as_nanos() as f64), text::time(late[98].as_nanos() as f64));
    let advice = "an open loop that has no processor to itself sleeps, and will be late: expect \
                  SUSPECT there, or measure on a quieter machine";
    finding(
        "timers",
        format!("a sleep ends {p50} late (p50), {p99} (p99)"),
        warn(late[98] > LATE, advice),
    )
}

fn load(host: &Host) -> DoctorFinding {
    let last: f64 = host.load.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0.0);
    let advice = "something else runs, or did until just now: stop it, or wait";
    finding("load", format!("{} (1, 5, 15 minutes)", host.load), warn(last > 0.5, advice))
}

fn governor(host: &Host) -> DoctorFinding {
    let seen = match host.governors.is_empty() {
        true => "the frequency is not this system's to set".into(),
        false => host.governors.join(", "),
    };
    let slow = host.governors.iter().any(|governor| governor != "performance");
    finding("governor", seen, warn(slow, "cpupower frequency-set -g performance"))
}

fn clock(host: &Host) -> DoctorFinding {
    let slow = !matches!(host.clock.as_str(), "tsc" | "kvm-clock" | "arch_sys_counter");
    let advice = "reading this clock is a system call: the generator's own cost grows";
    finding("clock source", host.clock.clone(), warn(slow, advice))
}

fn descriptors(host: &Host) -> DoctorFinding {
    let fault = match host.descriptor_limit {
        n if n < 256 => Some((Level::Bad, "raise the hard limit (ulimit -Hn 20000)")),
        n if n < DESCRIPTORS => Some((Level::Warning, "for 10,000 connections: ulimit -Hn 20000")),
        _ => None,
    };
    finding("descriptors", format!("at most {} a process", host.descriptor_limit), fault)
}

fn ports(host: &Host) -> DoctorFinding {
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

fn backlog(host: &Host) -> DoctorFinding {
    let somaxconn = &host.settings["net/core/somaxconn"];
    let short = somaxconn.parse::<u32>().is_ok_and(|n| n < 1024);
    let advice = "a storm of connections overflows it: sysctl net.core.somaxconn=4096";
    finding("backlog", format!("at most {somaxconn}"), warn(short, advice))
}

fn io_uring() -> DoctorFinding {
    let advice = "uring and compio will not start: sysctl kernel.io_uring_disabled=0";
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if status.lines().any(|line| line.split_whitespace().eq(["Seccomp:", "2"])) {
        let advice = "uring and compio may not start: allow io_uring in the container's profile";
        return finding("io_uring", "a seccomp filter may forbid it".into(), warn(true, advice));
    }
    match std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").as_deref().map(str::trim) {
        Ok("0") => finding("io_uring", "not forbidden by kernel.io_uring_disabled".into(), None),
        Ok("1") => finding("io_uring", "for the privileged only".into(), warn(true, advice)),
        Ok(_) => finding("io_uring", "forbidden".into(), warn(true, advice)),
        Err(_) => {
            let seen = "no kernel.io_uring_disabled: Linux before 6.6, or built without io_uring";
            finding("io_uring", seen.into(), None)
        }
    }
}

fn system_calls() -> DoctorFinding {
    match Counting::start(std::process::id() as i32).and_then(Counting::finish) {
        Ok(_) => finding("system calls", "can be counted".into(), None),
        Err(e) => {
            let advice = "run as root, or do without the number of system calls";
            finding("system calls", format!("{e:#}"), warn(true, advice))
        }
    }
}

fn toolchain(host: &Host) -> DoctorFinding {
    let advice = "servers of the workspace cannot be built: install Rust, or use --cmd and --addr";
    match &host.compiler {
        Some(version) => finding("compiler", version.clone(), None),
        None => finding("compiler", "no rustc".into(), warn(true, advice)),
    }
}

/// What of the models file cannot run here, and why.
fn missing(models: &Models) -> Vec<DoctorFinding> {
    let missing = models.entries().filter_map(|(name, entry)| {
        let why = models.missing(entry)?;
        let (seen, advice) = (format!("{name} cannot run here"), why);
        Some(DoctorFinding { what: "model", level: Level::Warning, seen, advice })
    });
    missing.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_doubt_comes_with_advice() {
        let findings = examine(&Models::load(None).unwrap(), &Host::look());
        assert!(findings.len() >= 12, "{findings:?}");
        for finding in &findings {
            assert!(!finding.seen.is_empty(), "{finding:?}");
            assert_eq!(finding.level == Level::Ok, finding.advice.is_empty(), "{finding:?}");
        }
    }

    #[test]
    fn what_others_took_is_not_called_slow() {
        let levels = |pieces: &[(f64, f64)]| steady(pieces).map(|finding| finding.level);
        let even = vec![(0.001, 0.001); 100];
        assert_eq!(levels(&even), [Level::Ok; 3]);
        assert!(
            steady(&even)[2].seen.starts_with("below half speed for 0.0 %"),
            "{:?}",
            steady(&even)
        );
        let with = |piece| [&even[..], &[piece; 20]].concat();
        let busy = levels(&with((0.004, 0.001)));
        assert_eq!(busy, [Level::Warning, Level::Warning, Level::Ok]);
        let slow = levels(&with((0.004, 0.004)));
        assert_eq!(slow, [Level::Warning, Level::Ok, Level::Warning]);
    }

    #[test]
    fn a_shortage_of_descriptors_is_told_by_its_degree() {
        let with = |descriptor_limit| descriptors(&Host { descriptor_limit, ..Host::look() }).level;
        assert_eq!([64, 1024, 20_000].map(with), [Level::Bad, Level::Warning, Level::Ok]);
    }
}
