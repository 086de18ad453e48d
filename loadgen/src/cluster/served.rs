//! The server of one run, as the conductor sees it: what the agent beside it was told and has said.

use std::time::{Duration, Instant};

use super::clock::Reading;
use super::roll::{Loss, SILENCE, silence};
use super::words::{Here, Letter, Order, Told, read};
use crate::measure::{Kept, Spent};

/// How often the agent is told what is wanted of it: so it knows that there is a conductor, and
/// what was lost on its way is said again.
const AGAIN: Duration = Duration::from_secs(1);

/// How far the server is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Stage {
    /// It is built and started.
    Starting,
    /// It is there.
    Serving,
    /// What it has spent is known.
    Booked,
    /// It has ended.
    Stopped,
    /// It, or its agent, takes no part any more, and why.
    Lost(Loss),
}

/// The server of one run.
pub(super) struct Served {
    pub(super) here: Here,
    pub(super) clock: Option<Reading>,
    pub(super) stage: Stage,
    pub(super) addr: Option<String>,
    pub(super) cpus: Vec<usize>,
    pub(super) spent: Option<Spent>,
    /// What speaks against it, beside what the machine did.
    pub(super) doubts: Vec<String>,
    wish: Option<Order>,
    said: Option<Instant>,
    heard: Instant,
}

impl Served {
    /// Nothing is wanted yet. `addr` is where the server listens if it runs already.
    pub(super) fn new(here: Here, addr: Option<&str>, now: Instant) -> Self {
        Self {
            here,
            clock: None,
            stage: Stage::Starting,
            addr: addr.map(str::to_owned),
            cpus: Vec::new(),
            spent: None,
            doubts: Vec::new(),
            wish: None,
            said: None,
            heard: now,
        }
    }

    /// What is wanted from now on.
    pub(super) fn want(&mut self, wish: Order) {
        (self.wish, self.said) = (Some(wish), None);
    }

    /// Whether it was asked what the server has spent.
    pub(super) fn books(&self) -> bool {
        matches!(self.wish, Some(Order::Book { .. }))
    }

    /// What is to be said to the agent now.
    pub(super) fn due(&mut self, now: Instant) -> Option<&Order> {
        let over = matches!(self.stage, Stage::Stopped | Stage::Lost(_));
        let soon = self.said.is_some_and(|said| now.saturating_duration_since(said) < AGAIN);
        let wish = self.wish.as_ref().filter(|_| !over && !soon)?;
        self.said = Some(now);
        Some(wish)
    }

    /// Takes what was said, if this agent has said it.
    pub(super) fn hear(&mut self, bytes: &[u8], now: Instant) -> bool {
        let Ok((letter, _)) = read::<Letter>(bytes) else { return false };
        if letter.from != self.here.id {
            return false;
        }
        self.heard = now;
        match letter.told {
            Told::Serving { addr, cpus, unpinned } if self.stage == Stage::Starting => {
                self.stage = Stage::Serving;
                self.cpus = cpus;
                self.addr = addr.or_else(|| self.addr.take());
                self.doubts.extend(unpinned);
            }
            Told::Spent(spent) if self.stage == Stage::Serving => {
                self.stage = Stage::Booked;
                self.spent = Some(*spent);
            }
            Told::Stopped { complaint } if self.stage != Stage::Stopped => {
                self.stage = Stage::Stopped;
                self.doubts.extend(complaint);
            }
            Told::Refused { why } => self.lose(Loss::Gone(format!("it refused: {why}"))),
            Told::Leaves { why } => self.lose(Loss::Gone(why)),
            Told::Failed { why } => self.lose(Loss::Failed(why)),
            _ => {}
        }
        true
    }

    /// One that has not been heard for too long is lost; see [`Roll::miss`](super::roll::Roll).
    pub(super) fn miss(&mut self, now: Instant, back: Option<Instant>) {
        let since = back.map_or(self.heard, |back| back.max(self.heard));
        let silent = now.saturating_duration_since(since);
        if silent > SILENCE {
            self.lose(silence(silent));
        }
    }

    pub(super) fn lose(&mut self, loss: Loss) {
        if !matches!(self.stage, Stage::Stopped | Stage::Lost(_)) {
            self.stage = Stage::Lost(loss);
        }
    }

    /// Why it takes no part any more.
    pub(super) fn lost(&self) -> Option<&str> {
        let Stage::Lost(loss) = &self.stage else { return None };
        Some(loss.why())
    }

    /// Whether its agent is not there any more.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self.stage, Stage::Lost(Loss::Gone(_)))
    }

    /// What the record says of it.
    pub(super) fn kept(&self) -> Kept {
        Kept {
            agent: self.here.name.clone(),
            version: self.here.version.clone(),
            cores: self.here.cores,
            addr: self.addr.clone(),
            server_cpus: self.cpus.clone(),
            lost: self.lost().map(str::to_owned),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::words::written;

    fn served() -> (Served, Instant) {
        let now = Instant::now();
        let here = Here { id: "s-1".into(), name: "s".into(), ..Here::default() };
        (Served::new(here, None, now), now)
    }

    fn say(served: &mut Served, from: &str, told: Told) -> bool {
        let letter = Letter { from: from.into(), told };
        served.hear(&written(&letter, b"").unwrap(), Instant::now())
    }

    #[test]
    fn what_is_wanted_is_said_once_a_second_until_it_is_over() {
        let (mut served, now) = served();
        assert_eq!(served.due(now), None);
        let stop = || Order::Stop { run: "r".into() };
        served.want(stop());
        assert_eq!(served.due(now), Some(&stop()));
        assert_eq!(served.due(now + AGAIN / 2), None);
        assert_eq!(served.due(now + AGAIN), Some(&stop()));
        assert!(say(&mut served, "s-1", Told::Stopped { complaint: Some("late".into()) }));
        assert_eq!(served.due(now + AGAIN * 2), None);
        assert!(say(&mut served, "s-1", Told::Stopped { complaint: Some("late".into()) }));
        assert_eq!(served.doubts, ["late"], "what is said again counts once");
        assert_eq!(served.lost(), None);
    }

    #[test]
    fn a_server_that_ends_or_an_agent_that_is_silent_is_lost() {
        let (mut ended, now) = served();
        assert!(!say(&mut ended, "stranger", Told::Failed { why: "no".into() }));
        assert!(say(&mut ended, "s-1", Told::Failed { why: "exit code 1".into() }));
        assert_eq!(ended.lost(), Some("exit code 1"));
        let (mut silent, _) = served();
        silent.miss(now + SILENCE / 2, None);
        assert_eq!(silent.lost(), None);
        silent.miss(now + SILENCE * 2, None);
        assert!(silent.lost().unwrap().starts_with("nothing was heard of it for"));
    }
}
