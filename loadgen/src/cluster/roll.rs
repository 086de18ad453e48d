//! The agents of one run, and how far each is.

use std::collections::BTreeMap;
use std::io::Read;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use flate2::read::GzDecoder;

use super::clock::Reading;
use super::words::{Here, Letter, Told, read};
use crate::drive::Seen;
use crate::measure::{Part, Report};
use crate::record::read_run;
use crate::results::Host;
use crate::workload::Workload;

/// An agent of which nothing is heard for so long is lost: it tells once a second how far it is.
pub(super) const SILENCE: Duration = Duration::from_secs(5);
/// The most bytes of one agent's result, unpacked.
const MOST: u64 = 1 << 30;

/// How far an agent is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Stage {
    /// It opens its connections.
    Opening,
    /// They are open.
    Ready,
    /// Its window has begun.
    Driving,
    /// All its answers have come, and its connections are still open.
    Driven,
    /// Its result is here.
    Done,
    /// It takes no part any more, and why.
    Lost(Loss),
}

/// Why an agent takes no part any more.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Loss {
    /// It is not there any more, or what it says cannot be relied upon: it drives no further run.
    Gone(String),
    /// It is there, and its part of this run, or its server, has failed.
    Failed(String),
}

impl Loss {
    /// In words.
    pub(super) fn why(&self) -> &str {
        match self {
            Self::Gone(why) | Self::Failed(why) => why,
        }
    }
}

/// What an agent is lost for that has said nothing for so long.
pub(super) fn silence(silent: Duration) -> Loss {
    Loss::Gone(format!("nothing was heard of it for {} s", silent.as_secs()))
}

/// One agent of a run.
pub(super) struct Entry {
    pub(super) here: Here,
    pub(super) share: Workload,
    pub(super) seed: u64,
    pub(super) clock: Option<Reading>,
    pub(super) after: Option<Reading>,
    pub(super) stage: Stage,
    pub(super) result: Option<(Host, Report)>,
    heard: Instant,
    /// Messages, since when (ns), and the latency of the last second (ns).
    seen: (u64, u64, Option<u64>),
    pieces: BTreeMap<u32, Vec<u8>>,
}

/// The agents of one run.
pub(super) struct Roll(pub(super) Vec<Entry>);

impl Entry {
    pub(super) fn new(here: Here, share: Workload, seed: u64, now: Instant) -> Self {
        Self {
            here,
            share,
            seed,
            clock: None,
            after: None,
            stage: Stage::Opening,
            result: None,
            heard: now,
            seen: (0, 0, None),
            pieces: BTreeMap::new(),
        }
    }

    fn lose(&mut self, loss: Loss) {
        if !matches!(self.stage, Stage::Done | Stage::Lost(_)) {
            self.stage = Stage::Lost(loss);
        }
    }

    /// Why it takes no part any more.
    pub(super) fn lost(&self) -> Option<String> {
        let Stage::Lost(loss) = &self.stage else { return None };
        let (why, (messages, elapsed, _)) = (loss.why(), self.seen);
        Some(match elapsed {
            0 => why.to_owned(),
            _ => format!(
                "{why}; it had told of {messages} messages in {:.1} s, which are in no number",
                elapsed as f64 / 1e9
            ),
        })
    }

    fn hear(&mut self, told: Told, body: &[u8], now: Instant) -> Result<()> {
        self.heard = now;
        match told {
            Told::Beat { driving, messages, elapsed, p99 } if driving => {
                self.seen = (messages, elapsed, p99);
                if self.stage == Stage::Ready {
                    self.stage = Stage::Driving;
                }
            }
            Told::Beat { .. } => {}
            Told::Ready if self.stage == Stage::Opening => self.stage = Stage::Ready,
            Told::Driven if matches!(self.stage, Stage::Ready | Stage::Driving) => {
                self.stage = Stage::Driven;
            }
            // Said again, or by the agent beside the server, whose letters are not for the roll.
            Told::Ready
            | Told::Driven
            | Told::Serving { .. }
            | Told::Spent(_)
            | Told::Stopped { .. } => {}
            Told::Refused { why } => self.lose(Loss::Gone(format!("it refused: {why}"))),
            Told::Leaves { why } => self.lose(Loss::Gone(why)),
            Told::Failed { why } => self.lose(Loss::Failed(why)),
            Told::Piece { n, of } => {
                self.pieces.insert(n, body.to_vec());
                if (0..of).all(|n| self.pieces.contains_key(&n)) {
                    self.unpack()?;
                }
            }
        }
        Ok(())
    }

    fn unpack(&mut self) -> Result<()> {
        let packed = std::mem::take(&mut self.pieces).into_values().collect::<Vec<_>>().concat();
        let mut bytes = Vec::new();
        GzDecoder::new(&packed[..]).take(MOST).read_to_end(&mut bytes)?;
        let (host, line) = read::<Host>(&bytes)?;
        let report = read_run(std::str::from_utf8(line)?)?;
        self.result = Some((host, report));
        self.stage = Stage::Done;
        Ok(())
    }

    /// What the record says of it.
    pub(super) fn part(&self) -> Part {
        let report = self.result.as_ref().map(|(_, report)| report);
        let measured = report.and_then(|report| report.measured.as_ref());
        Part {
            agent: self.here.name.clone(),
            version: self.here.version.clone(),
            cores: self.here.cores,
            seed: self.seed,
            connections: self.share.connections,
            rate: self.share.rate,
            clock_ahead_ns: self.clock.map(|clock| clock.ahead),
            clock_within_ns: self.clock.map(|clock| clock.within),
            lost: self.lost(),
            verdict: report.map(|report| report.verdict.clone()),
            messages: measured.map(|m| m.messages),
            messages_per_second: measured.map(|m| m.messages_per_second),
            generator_cpu: measured.map(|m| m.generator_cpu),
        }
    }
}

impl Roll {
    /// Takes what was said. Returns the agent whose result has come whole, as often as it comes.
    pub(super) fn hear(&mut self, bytes: &[u8], now: Instant) -> Option<String> {
        let (letter, body) = read::<Letter>(bytes).ok()?;
        let entry = self.0.iter_mut().find(|entry| entry.here.id == letter.from)?;
        if let Err(e) = entry.hear(letter.told, body, now).context("its result cannot be read") {
            entry.lose(Loss::Gone(format!("{e:#}")));
        }
        (entry.stage == Stage::Done).then_some(letter.from)
    }

    /// Who has not been heard for too long is lost. `back` is when the conductor's own connection
    /// came back, if it was down: an agent has time since then.
    pub(super) fn miss(&mut self, now: Instant, back: Option<Instant>) {
        for entry in &mut self.0 {
            let since = back.map_or(entry.heard, |back| back.max(entry.heard));
            let silent = now.saturating_duration_since(since);
            if silent > SILENCE {
                entry.lose(silence(silent));
            }
        }
    }

    /// Who is not as far as that is lost.
    pub(super) fn expect(&mut self, done: impl Fn(&Stage) -> bool, loss: &Loss) {
        for entry in self.0.iter_mut().filter(|entry| !done(&entry.stage)) {
            entry.lose(loss.clone());
        }
    }

    /// Whether any is lost.
    pub(super) fn any_lost(&self) -> bool {
        self.0.iter().any(|entry| matches!(entry.stage, Stage::Lost(_)))
    }

    /// Whether any is not there any more.
    pub(super) fn any_gone(&self) -> bool {
        self.0.iter().any(|entry| matches!(entry.stage, Stage::Lost(Loss::Gone(_))))
    }

    /// Whether every agent is done or lost.
    pub(super) fn all_over(&self) -> bool {
        self.0.iter().all(|entry| matches!(entry.stage, Stage::Done | Stage::Lost(_)))
    }

    /// Whether every agent has driven, or is lost.
    pub(super) fn all_driven(&self) -> bool {
        let has = |stage: &Stage| matches!(stage, Stage::Driven | Stage::Done | Stage::Lost(_));
        self.0.iter().all(|entry| has(&entry.stage))
    }

    /// Whether every agent has opened its connections.
    pub(super) fn all_ready(&self) -> bool {
        self.0.iter().all(|entry| entry.stage == Stage::Ready)
    }

    /// How far all are together, and since when: the rate is the sum of their rates.
    pub(super) fn seen(&self) -> (Seen, Duration) {
        let longest = self.0.iter().map(|entry| entry.seen.1).max().unwrap_or(0);
        let rates = self.0.iter().filter(|entry| entry.seen.1 > 0);
        let rate: f64 = rates.map(|entry| entry.seen.0 as f64 / entry.seen.1 as f64).sum();
        let p99 = self.0.iter().filter_map(|entry| entry.seen.2).max();
        let messages = (rate * longest as f64) as u64;
        (Seen { messages, p99: p99.map(Duration::from_nanos) }, Duration::from_nanos(longest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::words::written;
    use crate::workload::Changes;

    fn roll(names: &[&str]) -> (Roll, Instant) {
        let second = Duration::from_secs(1);
        let share = Workload::find("ping-pong", &Changes::default(), second, second).unwrap();
        let now = Instant::now();
        let here =
            |name: &&str| Here { id: (*name).into(), name: (*name).into(), ..Here::default() };
        (Roll(names.iter().map(|n| Entry::new(here(n), share.clone(), 1, now)).collect()), now)
    }

    fn say(roll: &mut Roll, from: &str, told: Told, now: Instant) {
        let letter = Letter { from: from.into(), told };
        assert_eq!(roll.hear(&written(&letter, b"").unwrap(), now), None);
    }

    fn beat(messages: u64, elapsed: u64, p99: u64) -> Told {
        Told::Beat { driving: true, messages, elapsed, p99: Some(p99) }
    }

    #[test]
    fn an_agent_that_says_nothing_is_lost() {
        let (mut roll, began) = roll(&["a", "b"]);
        let second = Duration::from_secs(1);
        for name in ["a", "b"] {
            say(&mut roll, name, Told::Ready, began);
        }
        assert!(roll.all_ready());
        for n in 1..=8 {
            say(&mut roll, "a", beat(10, u64::from(n), 5), began + second * n);
        }
        say(&mut roll, "b", beat(77, 2_000_000_000, 5), began + second * 2);
        roll.miss(began + second * 7, None);
        assert!(!roll.any_lost());
        roll.miss(began + second * 8, Some(began + second * 6));
        assert!(!roll.any_lost(), "it has had time for two seconds only");
        roll.miss(began + second * 8, None);
        let why = roll.0[1].lost().unwrap();
        assert!(why.starts_with("nothing was heard of it for 6 s; it had told of 77"), "{why}");
        assert_eq!(roll.0[0].lost(), None);
        assert!(!roll.all_over());
    }

    /// A part that fails ends its run. An agent that is gone ends all that would follow.
    #[test]
    fn an_agent_that_fails_is_still_there() {
        let (mut failed, now) = roll(&["a"]);
        say(&mut failed, "a", Told::Failed { why: "refused".into() }, now);
        assert!(failed.any_lost() && !failed.any_gone());
        let (mut gone, _) = roll(&["a"]);
        say(&mut gone, "a", Told::Leaves { why: "ended".into() }, now);
        assert!(gone.any_lost() && gone.any_gone());
    }

    #[test]
    fn the_rate_of_all_is_the_sum_of_their_rates() {
        let (mut roll, now) = roll(&["a", "b"]);
        say(&mut roll, "a", beat(1000, 1_000_000_000, 7), now);
        say(&mut roll, "b", beat(4000, 2_000_000_000, 9), now);
        let (seen, elapsed) = roll.seen();
        assert_eq!((seen.messages, elapsed), (6000, Duration::from_secs(2)));
        assert_eq!(seen.p99, Some(Duration::from_nanos(9)));
    }

    #[test]
    fn what_strangers_say_is_not_heard() {
        let (mut roll, now) = roll(&["a"]);
        say(&mut roll, "b", Told::Ready, now);
        assert_eq!(roll.hear(b"nonsense", now), None);
        assert_eq!(roll.0[0].stage, Stage::Opening);
        say(&mut roll, "a", Told::Piece { n: 0, of: 1 }, now);
        let why = roll.0[0].lost().unwrap();
        assert!(why.starts_with("its result cannot be read"), "{why}");
    }
}
