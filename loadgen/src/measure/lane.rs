//! One server under load: started, connected and warm, driven in one turn or in many, and stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Error, Result, anyhow, bail};

use super::cost::{Memory, Snapshot};
use super::machine::Counters;
use super::meeting::{Meeting, SETTLE};
use super::syscalls::Counting;
use super::verdict::{Evidence, judge};
use super::{Disturbed, Progress, Report, Settings, Status};
use crate::base::exit::Interrupted;
use crate::base::limits::descriptor_limit;
use crate::drive::{
    Disturbers, Fault, FaultyOpening, Phase, PhaseResult, Plan, Seen, Shared, Team,
};
use crate::target::{How, Profile, Profiler, Server, Start, Target, gate};
use crate::workload::{Mode, Workload};

/// How long a server that has closed connections may take to turn out to be dying.
const DYING: Duration = Duration::from_millis(300);
/// Threads of a server up to which it is suspended while it rests. One of more threads has them
/// for its connections, and they block; suspending and waking them all would cost it more.
const FEW_THREADS: u64 = 16;
/// How often a run that waits for others looks after its server, and for Ctrl-C.
const LOOK: Duration = Duration::from_millis(100);
/// Connections from which on what the kernel holds for them shows.
const MANY: u32 = 1000;

/// A server with the connections to it. Between its turns it may rest, and then costs nothing.
pub(crate) struct Lane<'a> {
    target: &'a Target,
    workload: &'a Workload,
    settings: &'a Settings,
    /// `None` once there was a fault: then nothing more is asked. It stands before the server, so
    /// that a lane that is dropped closes its connections first: the server would wait for them.
    team: Option<Team>,
    server: Server,
    /// What was measured so far.
    evidence: Evidence,
    /// The server's counters before the first turn.
    before: Option<Snapshot>,
    /// And this machine's.
    counters: Counters,
    resting: bool,
    /// When the window is to begin, where others begin it as well.
    window: Option<Instant>,
    /// Whether Ctrl-C in a turn ends that turn and keeps what it has brought.
    keeps: bool,
}

impl<'a> Lane<'a> {
    /// Starts a target, which is built already, opens its connections and warms it up.
    pub(crate) fn open(
        target: &'a Target,
        workload: &'a Workload,
        settings: &'a Settings,
        progress: &mut Progress,
    ) -> Result<Self> {
        check_descriptors(workload)?;
        if let Some(why) = target.refuses(workload) {
            bail!(why);
        }
        let (mode, connections) = (workload.mode, workload.admitted());
        let start = Start::new(mode, connections, settings.workers, &settings.server_cpus);
        let start = start.busy_as(workload);
        let mut lane = Self {
            server: Server::start(target, &start)?,
            team: None,
            evidence: Evidence::default(),
            before: None,
            counters: Counters::now(settings, None),
            resting: false,
            window: None,
            keeps: false,
            target,
            workload,
            settings,
        };
        lane.warm_up(progress).map_err(|error| lane.explained(error))?;
        Ok(lane)
    }

    fn warm_up(&mut self, progress: &mut Progress) -> Result<()> {
        let (addr, pid, workload) = (self.server.addr, self.server.pid(), self.workload);
        let Settings { threads, seed, stall, ref interrupted, .. } = *self.settings;
        // The first connection may cost the server what later ones do not: buffers, lazy tables.
        let password = self.settings.password.clone();
        let door = gate::Door { addr, password: password.clone() };
        gate::first_contact(&door, workload.mode, stall)
            .with_context(|| format!("no sensible answer from {addr}"))?;
        let empty = Memory::now(pid);
        let spins = self.settings.spins(workload);
        let mut team =
            Team::start(&Plan { addr, workload, threads, seed, stall, spins, password })?;
        let mut watch = Watch::begin(&mut self.server, interrupted, progress);
        watch.meeting = self.settings.meeting.as_deref();
        let opened = team.opened(&mut |seen| watch.look(seen));
        match opened.map_err(Error::downcast::<FaultyOpening>) {
            Ok(()) => {}
            Err(Ok(FaultyOpening(faults))) => {
                self.evidence.phase.faults = faults;
                return Ok(());
            }
            Err(Err(e)) => return Err(e),
        }
        if workload.churn.is_none() {
            note_idle_memory(&mut self.evidence, workload.connections, empty, Memory::now(pid));
        }
        let counting =
            pid.context("its process is not known (give --pid)").and_then(Counting::start);
        let warmup = workload.warmup.max(self.target.warmup);
        self.window = watch.meet(warmup)?;
        let warm = watch.load(&mut team, warmup, false)?;
        let calls = counting.and_then(Counting::finish).map_err(|e| format!("{e:#}"));
        self.evidence.calls = match warm.total {
            0 => Err("nothing was asked while warming up, when calls are counted".into()),
            messages => calls.map(|calls| calls as f64 / messages as f64),
        };
        if !warm.faults.is_empty() {
            self.evidence.phase.faults = warm.faults;
            return Ok(());
        }
        self.team = Some(team);
        self.before = pid.and_then(Snapshot::take);
        self.counters = Counters::now(self.settings, pid);
        Ok(())
    }

    /// Drives it for so long, in the one turn that it has. Ctrl-C ends the turn, and what was
    /// measured until then is kept.
    pub(crate) fn whole(&mut self, duration: Duration, progress: &mut Progress) -> Result<()> {
        self.keeps = true;
        self.turn(duration, progress)
    }

    /// Drives it for so long. Fails with [`Interrupted`] on Ctrl-C.
    pub(crate) fn turn(&mut self, duration: Duration, progress: &mut Progress) -> Result<()> {
        if std::mem::take(&mut self.resting) {
            self.server.resume();
        }
        let driven = self.drive(duration, progress);
        driven.map_err(|error| self.explained(error))
    }

    fn drive(&mut self, duration: Duration, progress: &mut Progress) -> Result<()> {
        let (workload, settings) = (self.workload, self.settings);
        let Some(team) = &mut self.team else { return Ok(()) };
        let mut watch = Watch::begin(&mut self.server, &settings.interrupted, progress);
        watch.meeting = settings.meeting.as_deref();
        if let Some(window) = self.window.take() {
            self.evidence.late = watch.until(window)?;
        }
        let disturbed = watch.disturb(team, workload, settings.seed)?;
        let part = if disturbed.is_some() { 2 } else { 1 };
        if disturbed.is_some() {
            self.before = watch.server.pid().and_then(Snapshot::take);
            self.counters = Counters::now(settings, watch.server.pid());
        }
        watch.cuts = self.keeps.then(|| team.shared());
        let began = SystemTime::now();
        let mut phase = watch.load(team, duration / part, true)?;
        if let Some((calm, disturbers)) = disturbed {
            self.after_all();
            self.evidence.disturbed = Some(Disturbed::join(&mut phase, calm, disturbers)?);
        }
        self.evidence.began.get_or_insert(began);
        self.evidence.phase.then(phase);
        if !self.evidence.phase.faults.is_empty() {
            self.team = None;
        }
        Ok(())
    }

    /// Goes on as long again with a profiler beside the server. All costs are booked before it
    /// starts, and nothing is recorded meanwhile; but every byte is checked. Ctrl-C ends it, and
    /// what was measured is kept.
    pub(crate) fn profile(&mut self, profile: &Profile, progress: &mut Progress) -> Result<()> {
        if self.team.is_none() || self.evidence.phase.cut {
            return Ok(());
        }
        self.after_all();
        let started = match self.server.pid() {
            Some(pid) => Profiler::start(profile, pid),
            None => Err(anyhow!("the server's process is not known (give --pid)")),
        };
        let profiler = match started {
            Ok(profiler) => profiler,
            Err(why) => {
                profile.fail(format!("{why:#}"));
                return Ok(());
            }
        };
        let Some(team) = &mut self.team else { return Ok(()) };
        progress.step(format!("profiling {}: {}", self.target.name, profile.out.display()));
        let mut watch = Watch::begin(&mut self.server, &self.settings.interrupted, progress);
        watch.cuts = Some(team.shared());
        let phase = watch.load(team, self.workload.duration, false);
        profiler.finish(profile);
        self.evidence.phase.faults.merge(phase?.faults);
        Ok(())
    }

    /// It is the turn of others.
    pub(crate) fn rest(&mut self) {
        let threads = self.before.as_ref().map_or(u64::MAX, Snapshot::threads);
        if threads <= FEW_THREADS && self.target.bears_suspension() {
            self.server.suspend();
            self.resting = true;
        }
    }

    /// Books what the server has used since the first turn.
    fn after_all(&mut self) {
        let after = self.server.pid().and_then(Snapshot::take);
        self.evidence.usage = self.before.take().zip(after);
        self.evidence.unread = self.server.pid().is_some() && self.evidence.usage.is_none();
        let counters = Counters::now(self.settings, self.server.pid());
        self.evidence.machine = counters.since(&self.counters);
    }

    /// Stops the server, and judges what was measured.
    pub(crate) fn close(mut self) -> Result<Report> {
        // Read while it rests: looking for its processes takes time, in which it would go on.
        if self.evidence.usage.is_none() {
            self.after_all();
        }
        if self.resting {
            self.server.resume();
        }
        if let Some(meeting) = &self.settings.meeting {
            meeting.driven()?;
        }
        let Self { target, workload, settings, mut server, team, mut evidence, .. } = self;
        drop(team);
        let faults = &evidence.phase.faults;
        if faults.counts().any(|(fault, _)| fault == Fault::Closed) {
            // It may be dying: connections are the first thing that the kernel takes from a
            // process.
            server.check_alive(DYING)?;
        }
        let name = target.name_at(server.addr);
        let complaint = server.stop();
        let ours = matches!(target.how, How::Program(..));
        evidence.may_hold_back = workload.mode == Mode::Chat && !ours;
        let (mut verdict, measured) = judge(workload, &evidence);
        for doubt in [complaint, settings.unpinned.clone()].into_iter().flatten() {
            verdict.status = verdict.status.max(Status::Suspect);
            verdict.reasons.push(doubt);
        }
        Ok(Report {
            server: name,
            workload: workload.clone(),
            settings: settings.clone(),
            flood_control: (ours && workload.mode == Mode::Chat).then_some(false),
            interrupted: evidence.phase.cut,
            verdict,
            measured,
            faults: evidence.phase.faults.counts().map(|(f, n)| (f.name().into(), n)).collect(),
            examples: evidence.phase.faults.examples().to_vec(),
            parts: Vec::new(),
            kept: None,
        })
    }

    /// A server that has died explains better what the connections only felt.
    fn explained(&mut self, error: Error) -> Error {
        let told = format!("{error:#}");
        match self.server.check_alive(Duration::ZERO) {
            Err(_) if error.is::<Interrupted>() => error,
            // It may have been the death that ended the run.
            Err(death) if told.contains(&death.to_string()) => error,
            Err(death) => death.context(told),
            Ok(()) => error,
        }
    }
}

/// Notes what each connection has added to the memory.
fn note_idle_memory(evidence: &mut Evidence, connections: u32, empty: Memory, full: Memory) {
    let each = |full: Option<u64>, empty: Option<u64>| {
        Some(full?.saturating_sub(empty?) as f64 / f64::from(connections))
    };
    evidence.idle = each(full.server, empty.server);
    // It is known for the whole machine, on which a few connections do not show.
    if connections >= MANY {
        evidence.kernel = each(full.kernel, empty.kernel);
    }
}

/// A shortage of descriptors is told before anything is started.
fn check_descriptors(workload: &Workload) -> Result<()> {
    let needed = u64::from(workload.places()) + 64;
    let limit = descriptor_limit();
    if needed > limit {
        bail!(
            "{} connections need {needed} file descriptors here and as many in the server, and \
             the hard limit is {limit}; raise it (ulimit -Hn) or ask for fewer --connections",
            workload.places()
        );
    }
    Ok(())
}

/// Looks after a phase while it runs: Ctrl-C, the server's death, the progress line.
struct Watch<'a> {
    server: &'a mut Server,
    interrupted: &'a AtomicBool,
    progress: &'a mut Progress,
    began: Instant,
    /// Where Ctrl-C is to end the phase and not the run: what ends it.
    cuts: Option<Arc<Shared>>,
    /// Whom the window is to begin together with.
    meeting: Option<&'a dyn Meeting>,
}

impl<'a> Watch<'a> {
    fn begin(
        server: &'a mut Server,
        interrupted: &'a AtomicBool,
        progress: &'a mut Progress,
    ) -> Self {
        Self { server, interrupted, progress, began: Instant::now(), cuts: None, meeting: None }
    }

    fn look(&mut self, seen: Seen) -> Result<()> {
        if self.interrupted.load(Relaxed) {
            match &self.cuts {
                Some(shared) => shared.cut(),
                None => return Err(Interrupted.into()),
            }
        }
        self.server.check_alive(Duration::ZERO)?;
        self.progress.tick(seen, self.began.elapsed());
        if let Some(meeting) = self.meeting {
            meeting.look(seen, self.began.elapsed());
        }
        Ok(())
    }

    /// All connections are open. Waits until a warm-up of that length ends shortly before the
    /// window, whose beginning it returns.
    fn meet(&mut self, warmup: Duration) -> Result<Option<Instant>> {
        let Some(meeting) = self.meeting else { return Ok(None) };
        meeting.opened()?;
        loop {
            if let Some(window) = meeting.window(LOOK)? {
                if let Some(begins) = window.checked_sub(warmup + SETTLE) {
                    self.until(begins)?;
                }
                return Ok(Some(window));
            }
            self.look(Seen::default())?;
        }
    }

    /// Waits until a moment, and returns by how much it has passed.
    fn until(&mut self, moment: Instant) -> Result<Duration> {
        loop {
            let left = moment.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(moment.elapsed());
            }
            std::thread::sleep(left.min(LOOK));
            self.look(Seen::default())?;
        }
    }

    fn load(&mut self, team: &mut Team, duration: Duration, record: bool) -> Result<PhaseResult> {
        self.began = Instant::now();
        team.run(Phase::Load { duration, record }, &mut |seen| self.look(seen))
    }

    /// Measures the calm, which takes half of the time, and lets the disturbers in.
    fn disturb(
        &mut self,
        team: &mut Team,
        workload: &Workload,
        seed: u64,
    ) -> Result<Option<(PhaseResult, Disturbers)>> {
        let Some(disturbance) = workload.disturbance else { return Ok(None) };
        let mut calm = self.load(team, workload.duration / 2, true)?;
        let Workload { disturbers, size, .. } = *workload;
        let disturbers = Disturbers::start(self.server.addr, disturbance, disturbers, size, seed)?;
        // What counts is how it is among them, not how they arrive.
        calm.faults.merge(self.load(team, workload.warmup, false)?.faults);
        Ok(Some((calm, disturbers)))
    }
}
