//! The server of one run, as the agent beside it keeps it: started, watched, and stopped when the
//! conductor says so or is not heard of any more.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use super::Bus;
use super::words::{self, ABANDONED, Letter, Order, Serve, Server as Wanted, Told, written};
use crate::measure::meeting::{SETTLE, instant};
use crate::measure::{Beside, Settings};
use crate::target::cpus::{Pinning, pin, plan_alone};
use crate::target::{Models, Server, Start, Target};

/// How often the conductor hears that this agent is there.
const BEAT: Duration = Duration::from_secs(1);
/// How often it is looked whether the server is alive.
const LOOK: Duration = Duration::from_millis(100);

/// What an agent beside a server may start there.
#[derive(Debug)]
pub struct Stand {
    /// The address of this machine at which its servers listen.
    pub host: IpAddr,
    /// The models that it may start, and no others.
    pub models: Models,
}

impl Stand {
    /// The names of the models that can run here.
    pub(super) fn names(&self) -> Vec<String> {
        let all = self.models.entries().filter(|(_, entry)| self.models.missing(entry).is_none());
        all.map(|(name, _)| name.clone()).collect()
    }

    /// The model of that name, if the models file has it.
    fn find(&self, name: &str) -> Result<Target> {
        if !self.models.entries().any(|(own, _)| own == name) {
            bail!("no model of its models file is called {name:?}");
        }
        self.models.find(name)
    }
}

/// The server of one run.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) run: String,
    agent: String,
    bus: Arc<Bus>,
    ahead: i64,
    orders: Sender<Order>,
    interrupted: Arc<AtomicBool>,
    /// What was said last, which is said again when it is asked for.
    last: Mutex<Option<Told>>,
    ended: AtomicBool,
}

impl Keeper {
    /// Also returns where its orders come out, for [`Keeper::work`].
    pub(super) fn new(
        run: String,
        agent: &str,
        bus: &Arc<Bus>,
        ahead: i64,
    ) -> (Self, Receiver<Order>) {
        let (orders, receiver) = channel();
        let keeper = Self {
            run,
            agent: agent.to_owned(),
            bus: bus.clone(),
            ahead,
            orders,
            interrupted: Arc::default(),
            last: Mutex::default(),
            ended: AtomicBool::default(),
        };
        (keeper, receiver)
    }

    /// Hands an order on. When all is over it is only said again how it ended.
    pub(super) fn order(&self, order: Order) {
        if self.has_ended() || self.orders.send(order).is_err() {
            self.say_again();
        }
    }

    /// The run is given up: the server is to end.
    pub(super) fn leave(&self) {
        self.interrupted.store(true, Relaxed);
    }

    /// Whether nothing more is to be done.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Relaxed)
    }

    /// Keeps the server to its end. What goes wrong is told to the conductor.
    pub(super) fn work(&self, serve: &Serve, stand: &Stand, orders: &Receiver<Order>) {
        let (subject, from) = (words::run(&self.run), self.agent.clone());
        let beats = self.bus.repeat(BEAT, move || {
            let told = Told::Beat { driving: false, messages: 0, elapsed: 0, p99: None };
            let letter = Letter { from: from.clone(), told };
            (subject.clone(), written(&letter, b"").unwrap_or_default())
        });
        if let Err(e) = self.keep(serve, stand, orders) {
            let why = format!("{e:#}").lines().collect::<Vec<_>>().join("; ");
            self.say(Told::Failed { why });
        }
        drop(beats);
        self.ended.store(true, Relaxed);
    }

    fn keep(&self, serve: &Serve, stand: &Stand, orders: &Receiver<Order>) -> Result<()> {
        let (target, pinning) = match &serve.server {
            Wanted::Model(name) => {
                let target = model(stand, name, serve)?;
                let target = stand.models.build(&target, &self.interrupted)?;
                (target, plan_alone(serve.workers, &serve.cpus)?)
            }
            Wanted::Process(pid) => {
                let here = procfs::process::Process::new(*pid);
                here.with_context(|| format!("process {pid} is not here"))?;
                // Where it listens is the conductor's affair.
                (Target::running("0.0.0.0:0", Some(*pid))?, Pinning::default())
            }
        };
        if !pinning.generator.is_empty() {
            pin(&pinning.generator)?;
        }
        let settings = Settings {
            workers: serve.workers,
            server_cpus: pinning.server.clone(),
            interrupted: self.interrupted.clone(),
            ..Settings::default()
        };
        settings.speed.watch()?;
        let server = Server::start(&target, &start(serve, stand.host, &pinning.server))?;
        let started = matches!(serve.server, Wanted::Model(_));
        self.say(Told::Serving {
            addr: started.then(|| server.addr.to_string()),
            cpus: pinning.server,
            unpinned: pinning.denied,
        });
        let pid = server.pid().context("the server has no process")?;
        self.watch(server, Beside::begin(&settings, pid), orders)
    }

    /// Does what the conductor says until the server is not needed any more.
    fn watch(
        &self,
        mut server: Server,
        mut beside: Beside<'_>,
        orders: &Receiver<Order>,
    ) -> Result<()> {
        let (mut heard, mut warm, mut booked) = (Instant::now(), None, false);
        while !self.interrupted.load(Relaxed) {
            let due = warm.filter(|_| !beside.is_warm());
            let left = due.map(|due: Instant| due.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                beside.warm();
            }
            server.check_alive(Duration::ZERO)?;
            match orders.recv_timeout(left.unwrap_or(LOOK).min(LOOK)) {
                Ok(Order::Begin { at, .. }) if warm.is_none() => {
                    beside.opened();
                    let at =
                        UNIX_EPOCH + Duration::from_nanos(at.saturating_add_signed(-self.ahead));
                    // When the warm-up's last answers have come.
                    let window = instant(at);
                    warm = Some(window.checked_sub(SETTLE / 2).unwrap_or(window));
                }
                Ok(Order::Book { .. }) if !booked => {
                    booked = true;
                    self.say(Told::Spent(Box::new(beside.end())));
                }
                Ok(Order::Stop { .. }) => {
                    let complaint = server.stop();
                    self.say(Told::Stopped { complaint });
                    return Ok(());
                }
                Ok(_) => self.say_again(),
                Err(RecvTimeoutError::Timeout) => {
                    if heard.elapsed() > ABANDONED {
                        bail!("nothing was heard of the conductor for {} s", ABANDONED.as_secs());
                    }
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            heard = Instant::now();
        }
        Ok(())
    }

    /// Says something that is said again when it is asked for.
    pub(super) fn say(&self, told: Told) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
        self.say_again();
    }

    /// What is not heard is asked for again.
    fn say_again(&self) {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(told) = last {
            let letter = Letter { from: self.agent.clone(), told };
            let said =
                written(&letter, b"").and_then(|bytes| self.bus.say(words::run(&self.run), bytes));
            drop(said);
        }
    }
}

/// The model of that name, which can be asked what it will be asked.
fn model(stand: &Stand, name: &str, serve: &Serve) -> Result<Target> {
    let target = stand.find(name)?;
    let mode = serve.workload.mode;
    if !target.modes.contains(&mode) {
        bail!("{name} does not speak {}, which {} needs", mode.name(), serve.workload.name);
    }
    match target.refuses(&serve.workload) {
        Some(why) => bail!(why),
        None => Ok(target),
    }
}

fn start<'a>(serve: &Serve, host: IpAddr, cpus: &'a [usize]) -> Start<'a> {
    let workload = &serve.workload;
    let start = Start::new(workload.mode, workload.admitted(), serve.workers, cpus);
    Start { host, ..start.busy_as(workload) }
}
