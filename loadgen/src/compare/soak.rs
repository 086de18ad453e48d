//! The course of a soak: each server in turn, under changing load, with a look at what it holds
//! whenever all clients have left.

use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::base::exit::Interrupted;
use crate::measure::{self, Held, Progress, Report, Settings, Status};
use crate::record::Record;
use crate::results::{FEWEST_LAPS, Lap, Soaked};
use crate::target::{How, Server, Start, Target};
use crate::workload::{Changes, Mode, Workload};

/// The workloads of a lap in echo: the first one gives the lap's latency. The others bring what
/// comes and goes, what is large, and clients that misbehave.
const ECHO: [&str; 10] = [
    "ping-pong",
    "pipelined",
    "mixed-sizes",
    "streaming",
    "churn",
    "connect-storm",
    "stalled-reader",
    "one-byte",
    "half-open",
    "hog",
];
/// In chat, where all members join and leave with each run.
const CHAT: [&str; 2] = ["fan-out", "fan-out-timed"];
/// What one workload of a lap takes at most, and how long it is driven before.
const RUN: Duration = Duration::from_secs(1);
const WARMUP: Duration = Duration::from_millis(50);
/// Laps that there should be of each server, however short a soak is.
const LAPS: u32 = 10;
/// What a run takes, about, beside measuring: connecting, leaving.
const AROUND: Duration = Duration::from_millis(150);
/// How long a server may take to close what its clients have left.
const CLOSING: Duration = Duration::from_secs(2);
/// How often it is looked whether it has: nothing announces it.
const LOOK: Duration = Duration::from_millis(10);
/// Problems after which a server is left alone.
const MOST_PROBLEMS: usize = 3;

/// Servers under load for a long time.
pub struct SoakCourse<'a> {
    /// How they are driven.
    pub settings: &'a Settings,
    /// What the user sees meanwhile.
    pub progress: &'a mut Progress,
    /// Gets the runs that went wrong.
    pub record: &'a mut Record,
}

/// The part of the time that one server has in one mode.
struct Share<'a> {
    target: &'a Target,
    workloads: Vec<Workload>,
    deadline: Instant,
}

impl SoakCourse<'_> {
    /// Drives each of these servers, which are built already, in each of its modes, for `time` in
    /// all. Returns what was found, and whether Ctrl-C ended it early.
    pub fn all(mut self, targets: &[Target], time: Duration) -> Result<(Vec<Soaked>, bool)> {
        let mut all = Vec::new();
        for target in targets {
            for &mode in &target.modes {
                // A server of one client at a time has no use for a chat.
                if !workloads(target, mode, RUN).is_empty() {
                    all.push((target, mode));
                }
            }
        }
        let began = Instant::now();
        let mut found = Vec::new();
        for (n, (target, mode)) in all.iter().enumerate() {
            let share = time.saturating_sub(began.elapsed()) / (all.len() - n) as u32;
            let mut soaked = Soaked::new(target.name.clone(), *mode);
            let driven = self.one(target, *mode, share, &mut soaked);
            let interrupted = driven.as_ref().is_err_and(|e| e.is::<Interrupted>());
            if let Err(e) = driven
                && !interrupted
            {
                soaked.problems.push(format!("{e:#}"));
            }
            soaked.judge();
            found.push(soaked);
            if interrupted {
                return Ok((found, true));
            }
        }
        Ok((found, false))
    }

    fn one(
        &mut self,
        target: &Target,
        mode: Mode,
        share: Duration,
        soaked: &mut Soaked,
    ) -> Result<()> {
        let workloads = workloads(target, mode, share);
        let connections = workloads.iter().map(Workload::admitted).max().unwrap_or(1);
        let start =
            Start::new(mode, connections, self.settings.workers, &self.settings.server_cpus);
        let mut server = Server::start(target, &start)?;
        let how = How::Running(vec![server.addr], server.pid());
        let running = Target { how, ..target.clone() };
        let part = Share { target: &running, workloads, deadline: Instant::now() + share };
        let driven = self.laps(&part, &mut server, soaked);
        if let Some(wrong) = server.stop() {
            soaked.problems.push(wrong);
        }
        driven
    }

    fn laps(&mut self, part: &Share<'_>, server: &mut Server, soaked: &mut Soaked) -> Result<()> {
        let began = Instant::now();
        let idle = held(server)?;
        // Fewer laps could show nothing: so many there are, even if they take longer.
        while Instant::now() < part.deadline || soaked.laps.len() < FEWEST_LAPS {
            let (mut messages, mut p50) = (0, None);
            for workload in &part.workloads {
                if soaked.problems.len() >= MOST_PROBLEMS {
                    return Ok(());
                }
                self.progress.expect_all(part.deadline.saturating_duration_since(Instant::now()));
                let lap = soaked.laps.len() + 1;
                let report = self.run(part.target, workload, lap, soaked)?;
                server.check_alive(Duration::ZERO)?;
                if workload.mode == Mode::Chat {
                    // The next clients use the same nicknames.
                    self.settled(server, idle)?;
                }
                let Some(measured) = report.and_then(|report| report.measured) else { continue };
                messages += measured.messages;
                p50 = p50.or_else(|| measured.main_latency().map(|latency| latency.p50));
            }
            let held = self.settled(server, idle)?;
            soaked.laps.push(Lap {
                seconds: began.elapsed().as_secs_f64(),
                messages,
                descriptors: held.descriptors,
                threads: held.threads,
                resident_bytes: held.resident_bytes,
                p50_ns: p50.unwrap_or_default(),
            });
        }
        Ok(())
    }

    /// One workload. A wrong answer is a problem of the server, and its soak goes on.
    fn run(
        &mut self,
        target: &Target,
        workload: &Workload,
        lap: usize,
        soaked: &mut Soaked,
    ) -> Result<Option<Report>> {
        if self.settings.interrupted.load(Relaxed) {
            return Err(Interrupted.into());
        }
        let name = &workload.name;
        self.progress.step(format!("{}, {}, lap {lap}: {name}", target.name, workload.mode.name()));
        let report = match measure::run(target, workload, self.settings, self.progress) {
            Ok(report) => report,
            Err(e) if e.is::<Interrupted>() => return Err(e),
            Err(e) => {
                soaked.problems.push(format!("lap {lap}, {name}: {e:#}"));
                return Ok(None);
            }
        };
        if report.interrupted {
            return Err(Interrupted.into());
        }
        if report.verdict.status == Status::Invalid {
            self.record.run(lap as u32, &report);
            let reasons = report.verdict.reasons.join("; ");
            soaked.problems.push(format!("lap {lap}, {name}: INVALID: {reasons}"));
        }
        Ok(Some(report))
    }

    /// What the server holds once it has closed what its clients have left, or has had the time.
    fn settled(&self, server: &Server, idle: Held) -> Result<Held> {
        let began = Instant::now();
        loop {
            let now = held(server)?;
            if now.descriptors <= idle.descriptors || began.elapsed() > CLOSING {
                return Ok(now);
            }
            thread::sleep(LOOK);
        }
    }
}

fn held(server: &Server) -> Result<Held> {
    match server.pid().and_then(Held::by) {
        Some(held) => Ok(held),
        None => bail!("the server's process cannot be read"),
    }
}

/// The workloads of a lap that fit the server. A share of the time holds several laps.
fn workloads(target: &Target, mode: Mode, share: Duration) -> Vec<Workload> {
    let names: &[&str] = if mode == Mode::Echo { &ECHO } else { &CHAT };
    let each = share / (LAPS * names.len() as u32);
    let duration = each.saturating_sub(AROUND).clamp(Duration::from_millis(20), RUN);
    let changes = Changes {
        connections: target.most_connections.filter(|most| *most < 64),
        ..Changes::default()
    };
    let mut fitting = Vec::new();
    for name in names {
        // With few connections there may be too few for the speakers of a channel.
        let Ok(workload) = Workload::find(name, &changes.fitting(name), duration, WARMUP) else {
            continue;
        };
        if target.refuses(&workload).is_none() && can_disturb(target, &workload) {
            fitting.push(workload);
        }
    }
    fitting
}

/// Whether there is room for the bystanders and for those who disturb them.
fn can_disturb(target: &Target, workload: &Workload) -> bool {
    let disturbers = if workload.disturbance.is_some() { workload.disturbers } else { 0 };
    target.most_connections.is_none_or(|most| workload.connections + disturbers <= most)
}
