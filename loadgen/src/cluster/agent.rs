//! An agent: it says that it is there, and drives its part of one run after another, or keeps the
//! server of each.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::RecvTimeoutError;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, bail};

use super::Bus;
use super::bus::Repeated;
use super::clock;
use super::errand::Errand;
use super::keeper::{Keeper, Stand};
use super::words::{self, FORM, Here, Order, Plan, Serve, Told, read, written};
use crate::base::exit::Interrupted;
use crate::base::output::say;
use crate::target::cpus::{self, Pinning};
use crate::workload::Mode;

/// How often it is looked whether the agent is to end.
const LOOK: Duration = Duration::from_millis(200);

/// What an agent says of itself that is not so: for tests of what follows from it.
#[derive(Clone, Debug, Default)]
pub struct Pretence {
    /// Nanoseconds that its clock is ahead.
    pub ahead: i64,
    /// Its version.
    pub version: Option<String>,
}

/// What an agent is there for.
pub enum Post {
    /// It drives, on these processors (none: on the last ones).
    Drive(Vec<usize>),
    /// It keeps servers.
    Beside(Stand),
}

/// An agent.
pub struct Agent {
    bus: Arc<Bus>,
    here: Here,
    ahead: i64,
    generator_cpus: Vec<usize>,
    stand: Option<Arc<Stand>>,
    errand: Option<Arc<Errand>>,
    keeper: Option<(Arc<Keeper>, JoinHandle<()>)>,
    _clock: Repeated,
}

impl Agent {
    /// An agent of that name.
    pub fn new(bus: Bus, name: String, post: Post, pretence: Pretence) -> Result<Self> {
        let (generator_cpus, stand) = match post {
            Post::Drive(cpus) => (cpus, None),
            Post::Beside(stand) => (Vec::new(), Some(Arc::new(stand))),
        };
        let token: String =
            name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let id = format!("{token}-{:x}-{:x}", std::process::id(), clock::now());
        let ahead = pretence.ahead;
        let tells = bus.answer(words::clock(&id), move |_| {
            clock::now().saturating_add_signed(ahead).to_string().into_bytes()
        })?;
        let here = Here {
            id,
            name,
            version: pretence.version.unwrap_or_else(|| env!("CARGO_PKG_VERSION").into()),
            form: FORM,
            cores: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
            modes: if stand.is_none() { vec![Mode::Echo] } else { Vec::new() },
            beside: stand.is_some(),
            serves: stand.as_ref().map(|stand| stand.names()).unwrap_or_default(),
            busy: false,
        };
        let (errand, keeper, bus) = (None, None, Arc::new(bus));
        Ok(Self { bus, here, ahead, generator_cpus, stand, errand, keeper, _clock: tells })
    }

    /// Does what conductors say until it is interrupted.
    pub fn serve(&mut self, interrupted: &AtomicBool) -> Result<()> {
        let orders = self.bus.hear(&[words::CALL.into(), words::to(&self.here.id)])?;
        self.announce();
        say(&format!("agent {} is there", self.here.name));
        while !interrupted.load(Relaxed) {
            match orders.recv_timeout(LOOK) {
                Ok(bytes) => self.obey(&bytes),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("the connection to NATS has ended"),
            }
            if let Some(errand) = self.running() {
                errand.leave_if_abandoned();
            }
        }
        let ended = || Told::Leaves { why: "its owner has ended it".into() };
        if let Some(errand) = self.running() {
            errand.tell(ended(), b"");
        }
        if let Some((keeper, thread)) = self.keeper.take().filter(|(k, _)| !k.has_ended()) {
            keeper.say(ended());
            keeper.leave();
            // Its server is stopped, and leaves nothing.
            let _ = thread.join();
        }
        self.bus.flush()?;
        Err(Interrupted.into())
    }

    fn obey(&mut self, bytes: &[u8]) {
        // What cannot be read is of another version, which has been told already.
        let Ok((order, _)) = read::<Order>(bytes) else { return };
        match &order {
            Order::Call => self.announce(),
            Order::Plan(plan) => self.begin(*plan.clone()),
            Order::Serve(serve) => self.keep(serve, &order),
            Order::Stay { run }
            | Order::Begin { run, .. }
            | Order::Cut { run }
            | Order::Close { run }
            | Order::Book { run }
            | Order::Stop { run }
            | Order::Taken { run }
            | Order::Leave { run } => self.hand_on(run, &order),
        }
    }

    /// Tells whatever is at work for that run.
    fn hand_on(&self, run: &str, order: &Order) {
        if let Some((keeper, _)) = self.keeper.as_ref().filter(|(keeper, _)| keeper.run == run) {
            match order {
                Order::Leave { .. } => keeper.leave(),
                other => keeper.order(other.clone()),
            }
        }
        let Some(errand) = self.errand.as_ref().filter(|errand| errand.plan.run == run) else {
            return;
        };
        errand.heard();
        match order {
            Order::Begin { at, .. } => errand.begin(*at),
            Order::Cut { .. } => errand.cut(),
            Order::Close { .. } => errand.close(),
            Order::Taken { .. } => errand.taken(),
            Order::Leave { .. } => errand.leave(),
            _ => {}
        }
    }

    /// Keeps the server of a run. An order that comes again is answered again.
    fn keep(&mut self, serve: &Serve, order: &Order) {
        let known = self.keeper.as_ref().map(|(keeper, _)| keeper.clone());
        if let Some(keeper) = known.as_ref().filter(|keeper| keeper.run == serve.run) {
            return keeper.order(order.clone());
        }
        let (keeper, orders) = Keeper::new(serve.run.clone(), &self.here.id, &self.bus, self.ahead);
        let Some(stand) = self.stand.clone() else {
            return keeper.say(Told::Refused { why: "it was not started with --serve".into() });
        };
        if known.is_some_and(|other| !other.has_ended()) {
            return keeper.say(Told::Refused { why: "it keeps the server of another run".into() });
        }
        let (keeper, serve) = (Arc::new(keeper), serve.clone());
        let worker = keeper.clone();
        let work = move || worker.work(&serve, &stand, &orders);
        match std::thread::Builder::new().name("server".into()).spawn(work) {
            Ok(thread) => self.keeper = Some((keeper, thread)),
            Err(e) => keeper.say(Told::Refused { why: e.to_string() }),
        }
    }

    fn begin(&mut self, plan: Plan) {
        let other = self.running().is_some_and(|running| running.plan.run != plan.run);
        let again = self.errand.as_ref().is_some_and(|errand| errand.plan.run == plan.run);
        let (run, threads) = (plan.run.clone(), plan.threads);
        let errand = Arc::new(Errand::new(plan, &self.here.id, &self.bus, self.ahead));
        if other {
            errand.tell(Told::Refused { why: "it is part of another run".into() }, b"");
            return;
        }
        // A plan that comes twice is one plan.
        if again {
            return;
        }
        let pinning = match self.pinning(threads) {
            Ok(pinning) => pinning,
            Err(e) => return errand.tell(Told::Refused { why: format!("{e:#}") }, b""),
        };
        self.errand = Some(errand.clone());
        let work = move || errand.work(&pinning);
        if let Err(e) = std::thread::Builder::new().name("run".into()).spawn(work) {
            say(&format!("run {run}: {e}"));
        }
    }

    fn pinning(&self, threads: u32) -> Result<Pinning> {
        cpus::plan(1, threads, &[], &self.generator_cpus)
    }

    fn running(&self) -> Option<&Arc<Errand>> {
        self.errand.as_ref().filter(|errand| !errand.has_ended())
    }

    /// One that is not heard is called again.
    fn announce(&self) {
        let keeps = self.keeper.as_ref().is_some_and(|(keeper, _)| !keeper.has_ended());
        let here = Here { busy: keeps || self.running().is_some(), ..self.here.clone() };
        let said = written(&here, b"").and_then(|bytes| self.bus.say(words::HERE.into(), bytes));
        drop(said);
    }
}
