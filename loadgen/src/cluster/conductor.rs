//! The conductor of a run: it calls agents, shares out the work, names the instant, and adds up.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::Bus;
use super::clock;
use super::gather::{Gathered, Keep, Missing, gather};
use super::judge::Question;
use super::roll::{Entry, Loss, Roll, Stage};
use super::served::{self, Served};
use super::shares::shares;
use super::words::{self, Here, Order, Plan, Serve, written};
use crate::base::exit::Interrupted;
use crate::compare::elsewhere::{Driven, Fate};
use crate::measure::meeting::SETTLE;
use crate::measure::{Progress, Settings};
use crate::workload::Workload;

/// Between naming the instant and the beginning of the warm-up: the word must have come by then.
const LEAD: Duration = Duration::from_millis(500);
/// How often it is looked for Ctrl-C and for silence.
const LOOK: Duration = Duration::from_millis(200);
/// How long agents may take beyond the run itself until their results are here.
const HANDING: Duration = Duration::from_secs(30);
/// How long the agent beside the server may take to tell what it has spent, and to stop it.
const STOPPING: Duration = Duration::from_secs(15);
/// How often agents are told that they may close their connections, until they do.
const AGAIN: Duration = Duration::from_millis(500);
/// How often agents are told that the conductor is there.
const STAY: Duration = Duration::from_secs(1);

/// What is asked of the agents.
pub struct Asked<'a> {
    /// What the server is called.
    pub server: &'a str,
    /// Where it listens, as the agents reach it, if it runs already.
    pub addr: Option<&'a str>,
    /// The agent beside it, if there is one.
    pub keep: Option<Keep>,
    /// All that is to be driven.
    pub workload: &'a Workload,
    /// How; the seed of each agent follows from this one.
    pub settings: &'a Settings,
    /// How many agents there are to be.
    pub agents: u32,
    /// How long agents may take to be there, and then to open their connections.
    pub patience: Duration,
}

/// The conductor of one run after another.
pub struct Conductor<'a> {
    bus: &'a Bus,
    /// The agents of the first run, which drive all that follow.
    known: Vec<Here>,
}

impl<'a> Conductor<'a> {
    /// A conductor on that connection.
    pub fn new(bus: &'a Bus) -> Self {
        Self { bus, known: Vec::new() }
    }

    /// One run. Fails if what is asked cannot be shared out, on Ctrl-C before the window, and when
    /// nothing can be said to NATS; whatever agents do is in the verdict.
    pub fn run(&mut self, asked: &Asked<'_>, progress: &mut Progress) -> Result<Driven> {
        let shares = shares(asked.workload, asked.agents)?;
        let question =
            Question { server: asked.server, workload: asked.workload, settings: asked.settings };
        let before = self.bus.outage();
        let Gathered { drivers, keeper } = match gather(self.bus, asked, &self.known, progress)? {
            Ok(agents) => agents,
            Err(Missing { why, fate }) => {
                let (report, parts) = (question.invalid(why), Vec::new());
                return Ok(Driven { report, parts, fate });
            }
        };
        self.known = drivers.iter().chain(&keeper).cloned().collect();
        let now = Instant::now();
        let entries = drivers.into_iter().zip(shares).enumerate().map(|(n, (here, share))| {
            let seed = asked.settings.seed.wrapping_add(n as u64);
            Entry::new(here, share, seed, now)
        });
        let mut course = Course {
            bus: self.bus,
            asked,
            run: format!("{:x}-{:x}", std::process::id(), clock::now()),
            roll: Roll(entries.collect()),
            served: keeper.map(|here| Served::new(here, asked.addr, now)),
            closed: None,
            stayed: now,
            cut: false,
        };
        let ran = course.run(progress);
        if ran.is_err() || course.is_any_lost() {
            course.tell_all(|run| Order::Leave { run });
            let _ = self.bus.flush();
        }
        ran?;
        let outage = self.bus.outage().saturating_sub(before);
        let fate = course.fate();
        let mut report = question.judge(&course.roll, course.served.as_ref(), outage);
        report.interrupted |= course.cut;
        let entries = course.roll.0.into_iter();
        let parts = entries
            .filter_map(|entry| entry.result.map(|(host, run)| (entry.here.name, host, run)));
        Ok(Driven { report, parts: parts.collect(), fate })
    }
}

/// One run under way.
struct Course<'a> {
    bus: &'a Bus,
    asked: &'a Asked<'a>,
    run: String,
    roll: Roll,
    served: Option<Served>,
    /// When agents were last told that they may close their connections.
    closed: Option<Instant>,
    /// When agents were last told that the conductor is there.
    stayed: Instant,
    /// Whether they were told to end the window at once.
    cut: bool,
}

impl Course<'_> {
    /// Leaves in the roll what became of every agent, and what became of the server.
    fn run(&mut self, progress: &mut Progress) -> Result<()> {
        let letters = self.bus.hear(&[words::run(&self.run)])?;
        progress.step(format!("{} agents: clocks", self.roll.0.len()));
        self.read_clocks(false);
        if self.is_any_lost() {
            return Ok(());
        }
        self.serve(&letters, progress)?;
        if self.is_any_lost() {
            return Ok(());
        }
        progress.step(format!("{} agents open their connections", self.roll.0.len()));
        self.plan()?;
        self.open(&letters)?;
        if self.is_any_lost() {
            return Ok(());
        }
        let point = self.asked.workload.point();
        progress.step(format!("{point}, from {} agents", self.roll.0.len()));
        self.drive(&letters, progress)?;
        self.stop(&letters)?;
        self.read_clocks(true);
        Ok(())
    }

    fn is_any_lost(&self) -> bool {
        self.roll.any_lost() || self.served.as_ref().is_some_and(|served| served.lost().is_some())
    }

    fn fate(&self) -> Fate {
        let gone = self.roll.any_gone() || self.served.as_ref().is_some_and(Served::is_gone);
        match () {
            () if gone => Fate::Gone,
            () if self.is_any_lost() => Fate::Failed,
            () => Fate::Seen,
        }
    }

    /// Waits until the server is there, or lost. Building it may take its time.
    fn serve(&mut self, letters: &Receiver<Vec<u8>>, progress: &mut Progress) -> Result<()> {
        let Asked { keep, workload, settings, server, .. } = self.asked;
        let Some((keep, served)) = keep.as_ref().zip(self.served.as_mut()) else { return Ok(()) };
        progress.step(format!("{} starts {server}", keep.agent));
        served.want(Order::Serve(Box::new(Serve {
            run: self.run.clone(),
            server: keep.server.clone(),
            workload: (*workload).clone(),
            workers: settings.workers,
            cpus: keep.cpus.clone(),
        })));
        while self.served.as_ref().is_some_and(|s| s.stage == served::Stage::Starting) {
            if settings.interrupted.load(Relaxed) {
                return Err(Interrupted.into());
            }
            self.listen(letters)?;
        }
        Ok(())
    }

    /// Waits until the server has ended, or is lost.
    fn stop(&mut self, letters: &Receiver<Vec<u8>>) -> Result<()> {
        let end = Instant::now() + STOPPING;
        let run = self.run.clone();
        let Some(served) = &mut self.served else { return Ok(()) };
        served.want(Order::Stop { run });
        while let Some(served) = &mut self.served
            && !matches!(served.stage, served::Stage::Stopped | served::Stage::Lost(_))
        {
            if Instant::now() >= end {
                let seconds = STOPPING.as_secs();
                let why = format!("it did not say within {seconds} s that the server has ended");
                served.lose(Loss::Failed(why));
            }
            self.listen(letters)?;
        }
        Ok(())
    }

    fn read_clocks(&mut self, after: bool) {
        for entry in &mut self.roll.0 {
            if matches!(entry.stage, Stage::Lost(_)) {
                continue;
            }
            match clock::read(self.bus, &entry.here.id) {
                Ok(reading) if after => entry.after = Some(reading),
                Ok(reading) => entry.clock = Some(reading),
                // It has handed over its result; that it is gone since then is its affair.
                Err(_) if after => {}
                Err(e) => entry.stage = Stage::Lost(unreadable(&e)),
            }
        }
        if let Some(served) = self.served.as_mut().filter(|_| !after) {
            match clock::read(self.bus, &served.here.id) {
                Ok(reading) => served.clock = Some(reading),
                Err(e) => served.lose(unreadable(&e)),
            }
        }
    }

    fn plan(&self) -> Result<()> {
        let Asked { addr, settings, .. } = self.asked;
        let told = self.served.as_ref().and_then(|served| served.addr.as_deref());
        let Some(addr) = told.or(*addr) else { bail!("it is not known where the server listens") };
        for entry in &self.roll.0 {
            let plan = Plan {
                run: self.run.clone(),
                addr: addr.to_owned(),
                workload: entry.share.clone(),
                threads: settings.threads,
                seed: entry.seed,
                stall: settings.stall.as_secs_f64(),
                stays: self.served.is_some(),
            };
            self.tell(entry, &Order::Plan(Box::new(plan)))?;
        }
        Ok(())
    }

    /// Waits until all connections are open, or an agent is lost.
    fn open(&mut self, letters: &Receiver<Vec<u8>>) -> Result<()> {
        let end = Instant::now() + self.asked.patience;
        while !self.roll.all_ready() && !self.is_any_lost() {
            if self.asked.settings.interrupted.load(Relaxed) {
                return Err(Interrupted.into());
            }
            self.listen(letters)?;
            if Instant::now() >= end {
                let seconds = self.asked.patience.as_secs_f64();
                let why = format!("its connections were not open after {seconds} s");
                self.roll.expect(|stage| *stage == Stage::Ready, &Loss::Failed(why));
            }
        }
        Ok(())
    }

    /// Names the instant, and listens until the results are here or cannot come any more.
    fn drive(&mut self, letters: &Receiver<Vec<u8>>, progress: &mut Progress) -> Result<()> {
        let workload = self.asked.workload;
        let lead = LEAD + workload.warmup + SETTLE;
        let at = clock::now() + lead.as_nanos() as u64;
        let begin = |ahead: Option<clock::Reading>| {
            let at = at.saturating_add_signed(ahead.map_or(0, |clock| clock.ahead));
            Order::Begin { run: self.run.clone(), at }
        };
        for entry in &self.roll.0 {
            self.tell(entry, &begin(entry.clock))?;
        }
        if let Some(served) = &mut self.served {
            served.want(begin(served.clock));
        }
        progress.expect(lead + workload.duration);
        let (began, outage) = (Instant::now(), self.bus.outage());
        let lasts = lead + workload.duration + self.asked.settings.stall * 2 + HANDING;
        while !self.roll.all_over() {
            self.listen(letters)?;
            self.book();
            let (seen, elapsed) = self.roll.seen();
            progress.tick(seen, elapsed);
            if !self.cut && self.asked.settings.interrupted.load(Relaxed) {
                self.cut = true;
                self.tell_all(|run| Order::Cut { run });
            }
            // What was waited for while nothing could come does not count.
            let waited = began.elapsed().saturating_sub(self.bus.outage() - outage);
            if waited > lasts {
                let why = format!("its result was not here after {:.0} s", waited.as_secs_f64());
                self.roll.expect(|stage| *stage == Stage::Done, &Loss::Gone(why));
            }
        }
        // Those that had not come to their windows have nothing to hand over.
        let nothing = self.roll.0.iter().all(|entry| entry.result.is_none());
        if self.cut && nothing { Err(Interrupted.into()) } else { Ok(()) }
    }

    /// When all agents have driven, asks what the server has spent; when that is known, lets them
    /// close their connections.
    fn book(&mut self) {
        let Some(served) = self.served.as_mut().filter(|_| self.roll.all_driven()) else { return };
        if served.stage == served::Stage::Serving && !served.books() {
            served.want(Order::Book { run: self.run.clone() });
        }
        let known = served.stage != served::Stage::Serving;
        let now = Instant::now();
        if known && self.closed.is_none_or(|closed| closed + AGAIN <= now) {
            self.closed = Some(now);
            self.tell_all(|run| Order::Close { run });
        }
    }

    /// Takes what is said in the next moment, and notices who says nothing.
    fn listen(&mut self, letters: &Receiver<Vec<u8>>) -> Result<()> {
        if self.stayed.elapsed() >= STAY {
            self.stayed = Instant::now();
            for entry in &self.roll.0 {
                // One that hears nothing more finds out by that.
                let _ = self.tell(entry, &Order::Stay { run: self.run.clone() });
            }
        }
        if let Some(served) = &mut self.served {
            let to = words::to(&served.here.id);
            if let Some(order) = served.due(Instant::now()) {
                self.bus.say(to, written(order, b"")?)?;
            }
        }
        match letters.recv_timeout(LOOK) {
            Ok(bytes) => {
                let now = Instant::now();
                if self.served.as_mut().is_some_and(|served| served.hear(&bytes, now)) {
                    return Ok(());
                }
                if let Some(agent) = self.roll.hear(&bytes, Instant::now()) {
                    let taken = Order::Taken { run: self.run.clone() };
                    self.bus.say(words::to(&agent), written(&taken, b"")?)?;
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => bail!("the connection to NATS has ended"),
        }
        if let Ok(back) = self.bus.back() {
            self.roll.miss(Instant::now(), back);
            if let Some(served) = &mut self.served {
                served.miss(Instant::now(), back);
            }
        }
        Ok(())
    }

    fn tell(&self, entry: &Entry, order: &Order) -> Result<()> {
        self.bus.say(words::to(&entry.here.id), written(order, b"")?)
    }

    /// Tells all of them; who does not hear it finds out by what comes after.
    fn tell_all(&self, order: impl Fn(String) -> Order) {
        let ids = self.roll.0.iter().map(|entry| &entry.here.id);
        for id in ids.chain(self.served.as_ref().map(|served| &served.here.id)) {
            let said = written(&order(self.run.clone()), b"")
                .and_then(|bytes| self.bus.say(words::to(id), bytes));
            drop(said);
        }
    }
}

/// What becomes of an agent whose clock does not answer.
fn unreadable(e: &anyhow::Error) -> Loss {
    Loss::Gone(format!("its clock cannot be read: {e:#}"))
}
