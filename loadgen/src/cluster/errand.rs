//! An agent's part of one run: driven on a thread of its own, told what the conductor says.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context, Result};
use flate2::{Compression, write::GzEncoder};

use super::Bus;
use super::words::{self, ABANDONED, Letter, Plan, Told, written};
use crate::base::exit::Interrupted;
use crate::base::output::say;
use crate::drive::Seen;
use crate::measure::meeting::{Meeting, instant};
use crate::measure::{self, Progress, Report, Settings};
use crate::record::written_run;
use crate::results::Host;
use crate::target::Target;
use crate::target::cpus::{Pinning, pin};

/// How often the conductor hears how far this part is.
const BEAT: Duration = Duration::from_secs(1);
/// Bytes of a piece of a result: NATS takes a megabyte at once unless it is told otherwise.
const PIECE: usize = 128 * 1024;
/// How long the conductor may take to say that a result has come, before it is sent again.
const TAKEN: Duration = Duration::from_secs(2);
/// How many times it is sent.
const TRIES: u32 = 60;
/// How many times, once a second, it is said that all answers have come.
const STAYS: u32 = 30;

/// One part of a run.
#[derive(Debug)]
pub(super) struct Errand {
    pub(super) plan: Plan,
    agent: String,
    bus: Arc<Bus>,
    /// Nanoseconds that this agent says its clock is ahead of what it is.
    ahead: i64,
    interrupted: Arc<AtomicBool>,
    /// When the conductor was last heard of.
    heard: Mutex<Instant>,
    state: Mutex<State>,
    changed: Condvar,
    pulse: Arc<Mutex<Pulse>>,
}

#[derive(Debug, Default)]
struct State {
    window: Option<Instant>,
    left: bool,
    closed: bool,
    taken: bool,
    ended: bool,
}

/// How far it is.
#[derive(Debug, Default)]
struct Pulse {
    window: Option<Instant>,
    seen: Seen,
    elapsed: Duration,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Errand {
    pub(super) fn new(plan: Plan, agent: &str, bus: &Arc<Bus>, ahead: i64) -> Self {
        Self {
            plan,
            agent: agent.to_owned(),
            bus: bus.clone(),
            ahead,
            interrupted: Arc::default(),
            heard: Mutex::new(Instant::now()),
            state: Mutex::default(),
            changed: Condvar::new(),
            pulse: Arc::default(),
        }
    }

    /// Drives, and hands over what that brought. What goes wrong is told to the conductor.
    pub(super) fn work(self: &Arc<Self>, pinning: &Pinning) {
        let (subject, pulse, from) =
            (words::run(&self.plan.run), self.pulse.clone(), self.agent.clone());
        let beats = self.bus.repeat(BEAT, move || {
            let pulse = locked(&pulse);
            let told = Told::Beat {
                driving: pulse.window.is_some_and(|window| window <= Instant::now()),
                messages: pulse.seen.messages,
                elapsed: pulse.elapsed.as_nanos() as u64,
                p99: pulse.seen.p99.map(|p99| p99.as_nanos() as u64),
            };
            let letter = Letter { from: from.clone(), told };
            (subject.clone(), written(&letter, b"").unwrap_or_default())
        });
        if let Err(e) = self.drive(pinning).and_then(|report| self.hand_over(report)) {
            let why = format!("{e:#}").lines().collect::<Vec<_>>().join("; ");
            self.tell(Told::Failed { why }, b"");
        }
        drop(beats);
        locked(&self.state).ended = true;
    }

    fn drive(self: &Arc<Self>, pinning: &Pinning) -> Result<Report> {
        let Plan { addr, workload, threads, seed, stall, .. } = &self.plan;
        let target = Target::running(addr, None)?;
        let settings = Settings {
            seed: *seed,
            threads: *threads,
            workers: 1,
            server_cpus: Vec::new(),
            generator_cpus: pinning.generator.clone(),
            stall: Duration::try_from_secs_f64(*stall)?,
            password: None,
            profile: None,
            interrupted: self.interrupted.clone(),
            speed: Default::default(),
            unpinned: pinning.denied.clone(),
            meeting: Some(self.clone()),
        };
        if !pinning.generator.is_empty() {
            pin(&pinning.generator)?;
        }
        settings.speed.watch()?;
        let mut progress = Progress::start();
        progress.step(format!("{}: {addr}", workload.point()));
        measure::run(&target, workload, &settings, &mut progress)
    }

    /// Tells the result piece by piece until the conductor has all of it.
    fn hand_over(&self, mut report: Report) -> Result<()> {
        if let Some(measured) = &mut report.measured {
            let began = humantime::parse_rfc3339(&measured.began)?;
            let ahead = Duration::from_nanos(self.ahead.unsigned_abs());
            let told = if self.ahead < 0 { began - ahead } else { began + ahead };
            measured.began = humantime::format_rfc3339_micros(told).to_string();
        }
        let head = written(&Host::look(), written_run(&report)?.as_bytes())?;
        let mut packed = GzEncoder::new(Vec::new(), Compression::default());
        packed.write_all(&head)?;
        let packed = packed.finish()?;
        let of = packed.len().div_ceil(PIECE) as u32;
        for _ in 0..TRIES {
            for (n, piece) in packed.chunks(PIECE).enumerate() {
                self.tell(Told::Piece { n: n as u32, of }, piece);
            }
            let state = locked(&self.state);
            let waits = |state: &mut State| !state.taken && !state.left;
            let waited = self.changed.wait_timeout_while(state, TAKEN, waits);
            if !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out() {
                return Ok(());
            }
        }
        Err(anyhow::anyhow!("the conductor has not taken the result"))
    }

    /// What is not heard is noticed by its absence.
    pub(super) fn tell(&self, told: Told, body: &[u8]) {
        let letter = Letter { from: self.agent.clone(), told };
        let said =
            written(&letter, body).map(|bytes| self.bus.say(words::run(&self.plan.run), bytes));
        drop(said);
    }

    /// The window begins at this time of the agent's own clock.
    pub(super) fn begin(&self, at: u64) {
        let at = UNIX_EPOCH + Duration::from_nanos(at.saturating_add_signed(-self.ahead));
        let window = instant(at);
        locked(&self.pulse).window = Some(window);
        locked(&self.state).window = Some(window);
        self.changed.notify_all();
    }

    /// The window ends now.
    pub(super) fn cut(&self) {
        self.interrupted.store(true, Relaxed);
    }

    /// The run is given up.
    pub(super) fn leave(&self) {
        self.cut();
        locked(&self.state).left = true;
        self.changed.notify_all();
    }

    /// The conductor has said something.
    pub(super) fn heard(&self) {
        *locked(&self.heard) = Instant::now();
    }

    /// Gives the run up if its conductor is gone, so that the agent is free for the next. Its own
    /// connection to NATS may be what is gone: then the conductor has lost this part as well.
    pub(super) fn leave_if_abandoned(&self) {
        if locked(&self.heard).elapsed() > ABANDONED && !locked(&self.state).left {
            let seconds = ABANDONED.as_secs();
            say(&format!("the run is given up: its conductor was not heard of for {seconds} s"));
            self.leave();
        }
    }

    /// The connections may be closed.
    pub(super) fn close(&self) {
        locked(&self.state).closed = true;
        self.changed.notify_all();
    }

    /// The conductor has the result.
    pub(super) fn taken(&self) {
        locked(&self.state).taken = true;
        self.changed.notify_all();
    }

    /// Whether nothing more is to be done.
    pub(super) fn has_ended(&self) -> bool {
        locked(&self.state).ended
    }
}

impl Meeting for Errand {
    fn opened(&self) -> Result<()> {
        let letter = Letter { from: self.agent.clone(), told: Told::Ready };
        let said = self.bus.say(words::run(&self.plan.run), written(&letter, b"")?);
        said.context("cannot tell the conductor that the connections are open")
    }

    fn window(&self, patience: Duration) -> Result<Option<Instant>> {
        let state = locked(&self.state);
        let waits = |state: &mut State| state.window.is_none() && !state.left;
        let waited = self.changed.wait_timeout_while(state, patience, waits);
        let state = waited.unwrap_or_else(PoisonError::into_inner).0;
        if state.left { Err(Interrupted.into()) } else { Ok(state.window) }
    }

    fn look(&self, seen: Seen, elapsed: Duration) {
        let mut pulse = locked(&self.pulse);
        (pulse.seen, pulse.elapsed) = (seen, elapsed);
    }

    fn driven(&self) -> Result<()> {
        let tries = if self.plan.stays { STAYS } else { 0 };
        for _ in 0..tries {
            self.tell(Told::Driven, b"");
            let waits = |state: &mut State| !state.closed && !state.left;
            let waited = self.changed.wait_timeout_while(locked(&self.state), BEAT, waits);
            if !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out() {
                break;
            }
        }
        Ok(())
    }
}
