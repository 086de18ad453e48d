//! The generator's threads: each opens its share, then runs one phase after another on command.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, atomic::Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, anyhow};

use super::churn::Churn;
use super::echo::Echo;
use super::fanout::Fanout;
use super::ledger::Shape;
use super::member::Hello;
use super::open::Open;
use super::pacer::{Pace, Part};
use super::payload::Payload;
use super::{Driver, Phase, PhaseResult, Seen, Shared};
use crate::workload::pacing::text_sizes;
use crate::workload::{Mode, Workload};

/// How often the watching thread is called while a phase runs.
const TICK: Duration = Duration::from_millis(200);

/// What to drive, and from how many threads.
pub struct Plan<'a> {
    /// Where the server listens.
    pub addr: SocketAddr,
    /// What to send.
    pub workload: &'a Workload,
    /// Generator threads; each has its own connections (echo) or channels (chat).
    pub threads: u32,
    /// Seed of the payload.
    pub seed: u64,
    /// Without any answer for so long, the server counts as stalled.
    pub stall: Duration,
    /// Whether an open loop waits without sleeping.
    pub spins: bool,
    /// What members of a chat say by PASS before they register.
    pub password: Option<String>,
}

enum Report {
    Opened(Result<()>),
    Done(Result<Box<PhaseResult>>),
}

/// Makes a driver in its own thread: epoll's events are not to be moved between threads.
type Make = Box<dyn FnOnce() -> Result<Box<dyn Driver>> + Send>;

/// The running threads. Dropping it closes their connections.
pub struct Team {
    shared: Arc<Shared>,
    commands: Vec<Sender<Phase>>,
    reports: Receiver<Report>,
    threads: Vec<JoinHandle<()>>,
}

impl Team {
    /// Starts the threads; each begins to open its connections at once.
    pub fn start(plan: &Plan<'_>) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let (reporter, reports) = channel();
        let mut team = Self { shared, commands: Vec::new(), reports, threads: Vec::new() };
        for make in drivers(plan) {
            let (commander, commands) = channel();
            let (shared, reporter) = (team.shared.clone(), reporter.clone());
            let name = format!("drive-{}", team.threads.len());
            let work = move || work(make, &shared, &commands, &reporter);
            team.threads.push(std::thread::Builder::new().name(name).spawn(work)?);
            team.commands.push(commander);
        }
        Ok(team)
    }

    /// Waits until all connections are open. `watch` is called several times a second with how far
    /// it is; its error ends the wait.
    pub fn opened(&mut self, watch: &mut dyn FnMut(Seen) -> Result<()>) -> Result<()> {
        for _ in 0..self.threads.len() {
            match self.report(watch)? {
                Report::Opened(result) => result?,
                Report::Done(_) => unreachable!("a thread reports its opening first"),
            }
        }
        Ok(())
    }

    /// Runs one phase on all threads and adds up what they bring.
    pub fn run(
        &mut self,
        phase: Phase,
        watch: &mut dyn FnMut(Seen) -> Result<()>,
    ) -> Result<PhaseResult> {
        self.shared.begin();
        for command in &self.commands {
            command.send(phase).map_err(|_| anyhow!("a generator thread has ended"))?;
        }
        let mut merged: Option<PhaseResult> = None;
        for _ in 0..self.threads.len() {
            if let Report::Done(result) = self.report(watch)? {
                let result = *result?;
                match &mut merged {
                    Some(sum) => sum.merge(result),
                    None => merged = Some(result),
                }
            }
        }
        merged.ok_or_else(|| anyhow!("no generator thread ran"))
    }

    /// What its threads look at, to end a phase before its time.
    pub(crate) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    fn report(&self, watch: &mut dyn FnMut(Seen) -> Result<()>) -> Result<Report> {
        loop {
            // Also before the first wait, or short phases would never see Ctrl-C.
            watch(self.shared.seen())?;
            match self.reports.recv_timeout(TICK) {
                Ok(report) => return Ok(report),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(anyhow!("the generator's threads have ended"));
                }
            }
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        self.commands.clear();
        for thread in self.threads.drain(..) {
            // A panic has been printed by the thread itself.
            let _ = thread.join();
        }
    }
}

fn work(make: Make, shared: &Shared, commands: &Receiver<Phase>, reports: &Sender<Report>) {
    let opened = make().and_then(|mut driver| driver.open(shared).map(|()| driver));
    let mut driver = match opened {
        Ok(driver) => driver,
        // A report that is not taken any more means that the run was given up.
        Err(e) => return drop(reports.send(Report::Opened(Err(e)))),
    };
    if reports.send(Report::Opened(Ok(()))).is_err() {
        return;
    }
    while let Ok(phase) = commands.recv() {
        if reports.send(Report::Done(driver.run(phase, shared).map(Box::new))).is_err() {
            return;
        }
    }
}

/// What thread `n`, with its part of the connections that talk, has of an open loop.
fn pace(plan: &Plan<'_>, n: u32, part: Part) -> Option<Pace> {
    let Workload { rate, arrivals, when_busy, depth, .. } = *plan.workload;
    let rate = rate?;
    let offset = (f64::from(n) + 0.5) / f64::from(plan.threads);
    // Different threads, different times; the payload's own numbers come from the bare seed.
    let seed = plan.seed ^ (u64::from(n) + 1).wrapping_mul(0xd134_2543_de82_ef95);
    Some(Pace { rate, part, arrivals, offset, when_busy, depth, seed, spins: plan.spins })
}

/// What the first `n` of `parts` equal parts have of `all`, in whole numbers.
fn share(all: u32, n: u32, parts: u32) -> u32 {
    (u64::from(all) * u64::from(n) / u64::from(parts)) as u32
}

/// Which of those who talk are among the connections `ids`: all ranges together have exactly those
/// who do, and none has more than its connections, for each is given what it has of the
/// connections.
fn talkers(workload: &Workload, ids: &Range<u32>) -> Part {
    let before = |id| share(workload.active, id, workload.connections);
    Part { from: before(ids.start), to: before(ids.end), whole: workload.active }
}

/// One driver for each thread, the work divided as evenly as it goes.
fn drivers(plan: &Plan<'_>) -> Vec<Make> {
    let Plan { addr, workload, seed, stall, .. } = *plan;
    let part = |all: u32, n: u32| share(all, n, plan.threads)..share(all, n + 1, plan.threads);
    let Workload { members, speakers, depth, .. } = *workload;
    let size = workload.size as usize;
    let mut makes: Vec<Make> = Vec::new();
    for n in 0..plan.threads {
        match workload.mode {
            Mode::Echo => {
                let ids = part(workload.connections, n);
                let talkers = talkers(workload, &ids);
                let active = talkers.to - talkers.from;
                if ids.is_empty() {
                    continue;
                }
                let sizes = workload.sizes.clone();
                let visit = workload.churn.map(|lines| (lines, depth));
                let pace = pace(plan, n, talkers);
                makes.push(Box::new(move || {
                    let payload = match &sizes[..] {
                        [] => Payload::new(seed, size - 1),
                        mix => Payload::mixed(seed, &text_sizes(mix)),
                    };
                    Ok(match (visit, pace) {
                        (Some(visit), _) => Box::new(Churn::new(addr, ids, visit, payload, stall)?),
                        (_, Some(pace)) => {
                            Box::new(Open::new(addr, ids, active, pace, payload, stall)?)
                        }
                        _ => Box::new(Echo::new(addr, ids, active, depth, payload, stall)?),
                    })
                }));
            }
            Mode::Chat => {
                let channels = part(workload.channels, n);
                if channels.is_empty() {
                    continue;
                }
                let base = channels.start * members;
                let whole = workload.channels;
                let pace = pace(plan, n, Part { from: channels.start, to: channels.end, whole });
                let channels = channels.len() as u32;
                let shape = Shape { base, channels, members, speakers, depth };
                let (password, server_time) = (plan.password.clone(), workload.server_time);
                let hello = Hello { password, server_time };
                makes.push(Box::new(move || {
                    let payload = Payload::new(seed, size);
                    Ok(Box::new(Fanout::new(addr, shape, pace, payload, stall, hello)?))
                }));
            }
        }
    }
    makes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Poller;
    use super::super::pacer::Pacer;
    use super::*;
    use crate::workload::Changes;

    proptest! {
        /// In any number of windows, beside warm-ups, and in each of these alone.
        #[test]
        fn a_rate_is_exact_over_all_threads(
            rate in prop_oneof![0.01..10.0, 0.01..1e8],
            threads in 1u32..40,
            (connections, active) in (1u32..200).prop_flat_map(|all| (Just(all), 1..=all)),
            windows in proptest::collection::vec(1u64..100_000_000_000, 1..4),
        ) {
            let second = Duration::from_secs(1);
            let (connections, active) = (Some(connections), Some(active));
            let changes = Changes { connections, active, rate: Some(rate), ..Changes::default() };
            let workload = Workload::find("open-loop", &changes, second, second).unwrap();
            let addr = ([127, 0, 0, 1], 1).into();
            let plan = Plan {
                addr,
                workload: &workload,
                threads,
                seed: 1,
                stall: second,
                spins: false,
                password: None,
            };
            let (mut measured, mut warm) = (0, vec![0; windows.len()]);
            for n in 0..threads {
                let part = |n| share(workload.connections, n, threads);
                let talkers = super::talkers(&workload, &(part(n)..part(n + 1)));
                let pace = pace(&plan, n, talkers).unwrap();
                let mut pacer = Pacer::new(pace, &Poller::new().unwrap()).unwrap();
                for (window, warm) in windows.iter().zip(&mut warm) {
                    let duration = Duration::from_nanos(*window);
                    pacer.begin(Phase::Load { duration, record: false });
                    *warm += pacer.counts().scheduled;
                    pacer.begin(Phase::Load { duration, record: true });
                    measured += pacer.counts().scheduled;
                }
            }
            let messages = |nanoseconds: u64| (rate * nanoseconds as f64 / 1e9).round() as u64;
            prop_assert_eq!(measured, messages(windows.iter().sum()));
            let alone: Vec<_> = windows.iter().map(|&window| messages(window)).collect();
            prop_assert_eq!(warm, alone);
        }
    }

    #[test]
    fn all_talkers_are_shared_out_and_each_has_a_connection() {
        let second = Duration::from_secs(1);
        for (connections, threads) in [(8, 5), (5, 8), (64, 3), (7, 7), (1000, 6)] {
            for talkers in 1..=connections {
                let changes = Changes {
                    connections: Some(connections),
                    active: Some(talkers),
                    ..Changes::default()
                };
                let workload = Workload::find("ping-pong", &changes, second, second).unwrap();
                let mut sum = 0;
                for n in 0..threads {
                    let ids = share(connections, n, threads)..share(connections, n + 1, threads);
                    let part = super::talkers(&workload, &ids);
                    let active = part.to - part.from;
                    assert!(active <= ids.len() as u32, "{talkers} of {connections}: {active}");
                    sum += active;
                }
                assert_eq!(sum, talkers, "of {connections} in {threads} threads");
            }
        }
    }
}
