//! Which agents take part in a run: they are called until enough are there.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::Bus;
use super::conductor::Asked;
use super::words::{self, FORM, Here, Order, Server, read, written};
use crate::base::exit::Interrupted;
use crate::compare::elsewhere::Fate;
use crate::measure::Progress;

/// How often agents are called: one that has just ended another run says so when it is asked.
const CALL: Duration = Duration::from_millis(500);

/// The agent beside the server.
#[derive(Clone, Debug)]
pub struct Keep {
    /// Its name.
    pub agent: String,
    /// The model that it is to start, or the process of a server that runs already.
    pub(super) server: Server,
    /// Processors that the server is to have; none: the first ones.
    pub cpus: Vec<usize>,
}

impl Keep {
    /// That agent starts this model of its own models file, on these processors.
    pub fn model(agent: &str, model: &str, cpus: &[usize]) -> Self {
        let server = Server::Model(model.to_owned());
        Self { agent: agent.to_owned(), server, cpus: cpus.to_vec() }
    }

    /// That agent watches a server that runs already as this process.
    pub fn process(agent: &str, pid: i32) -> Self {
        Self { agent: agent.to_owned(), server: Server::Process(pid), cpus: Vec::new() }
    }
}

/// The agents of a run.
#[derive(Clone, Debug, Default)]
pub(super) struct Gathered {
    /// Those that drive, in the order of their names.
    pub(super) drivers: Vec<Here>,
    /// The one beside the server.
    pub(super) keeper: Option<Here>,
}

/// Why a run cannot begin.
#[derive(Debug)]
pub(super) struct Missing {
    pub(super) why: Vec<String>,
    /// Whether agents are missing, or all are there and the one beside the server lacks it.
    pub(super) fate: Fate,
}

/// Those that have answered so far.
struct Answers<'a> {
    asked: &'a Asked<'a>,
    /// The agents of the run before, if there was one: the next is driven by the same.
    known: &'a [Here],
    fit: Gathered,
    /// Why others take no part, by their ids.
    unfit: Vec<(String, String)>,
    /// Whether the agent beside the server has said that it does not have it.
    lacks: bool,
}

/// Waits until enough agents are there, or says why they are not.
pub(super) fn gather(
    bus: &Bus,
    asked: &Asked<'_>,
    known: &[Here],
    progress: &mut Progress,
) -> Result<std::result::Result<Gathered, Missing>> {
    let heard = bus.hear(&[words::HERE.into()])?;
    let end = Instant::now() + asked.patience;
    let (fit, unfit) = Default::default();
    let mut answers = Answers { asked, known, fit, unfit, lacks: false };
    let mut call = Instant::now();
    while !answers.are_enough() && !answers.are_in_vain() && Instant::now() < end {
        if call <= Instant::now() {
            bus.say(words::CALL.into(), written(&Order::Call, b"")?)?;
            call = Instant::now() + CALL;
            progress.step(answers.told());
        }
        if asked.settings.interrupted.load(Relaxed) {
            return Err(Interrupted.into());
        }
        if let Some(bytes) = next(&heard, call.min(end))?
            && let Ok((here, _)) = read::<Here>(&bytes)
        {
            answers.hear(here);
        }
    }
    if !answers.are_enough() {
        let fate = if answers.are_in_vain() { Fate::Failed } else { Fate::Gone };
        return Ok(Err(Missing { why: answers.why_not(), fate }));
    }
    for (_, why) in &answers.unfit {
        progress.note(why);
    }
    answers.fit.drivers.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    Ok(Ok(answers.fit))
}

/// What is heard until then.
fn next(heard: &Receiver<Vec<u8>>, end: Instant) -> Result<Option<Vec<u8>>> {
    match heard.recv_timeout(end.saturating_duration_since(Instant::now())) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(RecvTimeoutError::Timeout) => Ok(None),
        Err(RecvTimeoutError::Disconnected) => bail!("the connection to NATS has ended"),
    }
}

impl Answers<'_> {
    fn are_enough(&self) -> bool {
        let keeps = self.asked.keep.is_none() || self.fit.keeper.is_some();
        keeps && self.fit.drivers.len() == self.asked.agents as usize
    }

    /// Nothing is waited for but a server that the agent beside it does not have.
    fn are_in_vain(&self) -> bool {
        self.lacks && self.fit.drivers.len() == self.asked.agents as usize
    }

    fn told(&self) -> String {
        let there = format!("{} of {} agents are there", self.fit.drivers.len(), self.asked.agents);
        match &self.asked.keep {
            Some(keep) if self.fit.keeper.is_none() => {
                format!("{there}, and {} is not", keep.agent)
            }
            _ => there,
        }
    }

    fn hear(&mut self, here: Here) {
        let keep = self.asked.keep.as_ref().filter(|keep| keep.agent == here.name);
        // One beside a server that is none of this run.
        let other = here.beside && keep.is_none();
        let unknown = !self.known.is_empty() && !self.known.iter().any(|own| own.id == here.id);
        if other || unknown {
            return;
        }
        self.unfit.retain(|(id, _)| *id != here.id);
        let mut taken = self.fit.drivers.iter().chain(&self.fit.keeper);
        let namesake = match taken.find(|known| known.name == here.name) {
            Some(known) if known.id == here.id => return,
            // Their parts could not be told apart.
            Some(_) => Some("another agent has this name; give each its own (--name)".into()),
            None => None,
        };
        let cannot = keep.and_then(|keep| cannot_keep(&here, keep));
        self.lacks |= here.beside && cannot.is_some();
        match unfitness(&here).or(cannot).or(namesake) {
            Some(why) => self.unfit.push((here.id, format!("{} is left out: {why}", here.name))),
            None if keep.is_some() => self.fit.keeper = Some(here),
            None if self.fit.drivers.len() < self.asked.agents as usize => {
                self.fit.drivers.push(here);
            }
            None => {}
        }
    }

    /// What is missing, and who is left out.
    fn why_not(self) -> Vec<String> {
        let Asked { agents, patience, keep, .. } = self.asked;
        let seconds = patience.as_secs_f64();
        let names: Vec<_> = self.fit.drivers.iter().map(|here| here.name.as_str()).collect();
        let names = if names.is_empty() { "none".into() } else { names.join(", ") };
        let mut why = Vec::new();
        if self.fit.drivers.len() < *agents as usize {
            why.push(format!(
                "{agents} agents were asked for; there were after {seconds} s: {names}"
            ));
        }
        let there = self.fit.keeper.is_some() || self.lacks;
        if let Some(keep) = keep.as_ref().filter(|_| !there) {
            why.push(format!(
                "the agent beside the server, {}, was not there after {seconds} s",
                keep.agent
            ));
        }
        let heard = |own: &&Here| {
            let mut all = self.fit.drivers.iter().chain(&self.fit.keeper).map(|here| &here.id);
            all.any(|id| *id == own.id) || self.unfit.iter().any(|(id, _)| *id == own.id)
        };
        let gone = self.known.iter().filter(|own| !heard(own));
        why.extend(gone.map(|own| format!("{} does not answer any more", own.name)));
        why.extend(self.unfit.into_iter().map(|(_, why)| why));
        why
    }
}

/// Why an agent cannot take part.
fn unfitness(here: &Here) -> Option<String> {
    let own = env!("CARGO_PKG_VERSION");
    if (here.version.as_str(), here.form) != (own, FORM) {
        return Some(format!(
            "it runs version {} (form {} of the messages), and this is {own} (form {FORM})",
            here.version, here.form
        ));
    }
    here.busy.then(|| "it is part of another run".into())
}

/// Why an agent cannot keep that server.
fn cannot_keep(here: &Here, keep: &Keep) -> Option<String> {
    if !here.beside {
        return Some("it was not started with --serve, so it keeps no server".into());
    }
    match &keep.server {
        Server::Model(model) if !here.serves.contains(model) => {
            let names = here.serves.join(", ");
            Some(format!("its models file has no {model} that can run there; it has {names}"))
        }
        _ => None,
    }
}
