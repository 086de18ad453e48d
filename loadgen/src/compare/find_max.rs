//! The highest rate at which an objective such as p99 < 1 ms holds.
//!
//! In an open loop, because only there does a response time count from the moment at which a user
//! would have asked. The rate is doubled until the objective is missed, then the gap is halved
//! until it is narrow. A probe that was missed is asked again, for one may be missed by chance, and
//! where the machine was not quiet once more. All of that is done several times: the answer is the
//! median, and where the answers differ by much it says that it is not reproducible here.

use std::time::Duration;

use anyhow::{Result, bail};

use super::probe::probe;
use crate::base::exit::Interrupted;
use crate::base::text;
use crate::measure::{Pace, Progress, Report, Settings};
use crate::results::{Found, Probe};
use crate::target::{How, Models, Target};
use crate::workload::{Objective, Workload};

/// The search ends when the highest rate that held and the lowest that did not differ by less.
const NARROW: f64 = 1.05;
/// Searches of which the answer is the median; an odd number.
pub(crate) const SEARCHES: usize = 3;
/// How many times the lowest of their answers the highest may be in an answer that is reproducible.
const SAME: f64 = 1.15;
/// Probes that must say the same of a rate near the limit.
const AGREE: u32 = 2;
/// Missed probes at one rate at most that do not count because the machine was not quiet.
const ATTEMPTS: u32 = 5;
/// How the reason begins where the limit is perhaps the machine's.
const NOT_QUIET: &str = "the machine was not quiet";
/// Probes of a search for one server, before any is known.
const USUAL_PROBES: u32 = 35;
/// What a probe takes, about, beside warming up and measuring.
const AROUND: Duration = Duration::from_millis(150);
/// Beyond this many messages for each second one generator is not asked.
const MOST: f64 = 10_000_000.0;

/// What is searched for.
pub struct FindMax<'a> {
    /// What is asked; a search changes its rate.
    pub workload: &'a Workload,
    /// What response times must keep to.
    pub objective: &'a Objective,
    /// The first rate that is tried, in messages for each second.
    pub from: f64,
}

/// One run of the server of that number under a workload.
pub type Drive<'a> = dyn FnMut(usize, &Workload, &mut Progress) -> Result<Report> + 'a;

impl FindMax<'_> {
    /// Searches for each of the servers. Returns what was found, and whether Ctrl-C ended it.
    pub fn run(
        &self,
        servers: &[String],
        drive: &mut Drive<'_>,
        progress: &mut Progress,
    ) -> (Vec<Found>, bool) {
        let mut found: Vec<Found> = Vec::new();
        let mut pace = Pace::begin(self.workload.lasts() + AROUND);
        for (n, server) in servers.iter().enumerate() {
            let (usual, after) = (usual_probes(&found), (servers.len() - n - 1) as u32);
            let mut asked = 0;
            let mut one = Found { server: server.clone(), ..Found::default() };
            let mut probe = |rate| {
                // How many there will be is known only when it has ended.
                let here = usual.saturating_sub(asked).max(1);
                progress.expect_all(pace.left(here + usual * after));
                progress.step(format!("{server}: {} messages/s", text::number(rate)));
                let workload = Workload { rate: Some(rate), ..self.workload.clone() };
                let driven = drive(n, &workload, progress);
                let probe = driven.and_then(|run| probe(&run, rate, self.objective, progress));
                pace.step();
                asked += 1;
                probe
            };
            let searched = Search { found: &mut one, probe: &mut probe }.run(self.from);
            let interrupted = searched.as_ref().is_err_and(|e| e.is::<Interrupted>());
            if let Err(e) = searched {
                let why = format!("{e:#}").lines().collect::<Vec<_>>().join("; ");
                progress.note(&format!("{server}: {why}"));
                one.failed = Some(why);
            }
            one.limit = limit(&one);
            one.at_least = is_at_least(&one);
            found.push(one);
            if interrupted {
                return (found, true);
            }
        }
        (found, false)
    }
}

/// Probes that the search for one server takes: as many as for those before.
fn usual_probes(found: &[Found]) -> u32 {
    let counts: Vec<u32> = found.iter().map(|found| found.probes.len() as u32).collect();
    let count = counts.iter().filter(|&&count| count > 0).count() as u32;
    counts.iter().sum::<u32>().checked_div(count).unwrap_or(USUAL_PROBES)
}

/// Builds every server before the first is driven. One that cannot be built costs the others
/// nothing; Ctrl-C ends it all, for nothing is found yet.
pub fn build(
    models: &Models,
    targets: &[Target],
    settings: &Settings,
    progress: &mut Progress,
) -> Result<Vec<Result<Target>>> {
    let mut built = Vec::new();
    for target in targets {
        if let How::Package(package, _) | How::Bare(package) = &target.how {
            progress.step(format!("building {package}"));
        }
        match models.build(target, &settings.interrupted) {
            Err(e) if e.is::<Interrupted>() => return Err(e),
            other => built.push(other),
        }
    }
    Ok(built)
}

/// The search for one server's rate.
struct Search<'a> {
    /// What was found so far.
    found: &'a mut Found,
    /// One run at a rate.
    probe: &'a mut dyn FnMut(f64) -> Result<Probe>,
}

impl Search<'_> {
    /// Searches several times, the first time from `from`, then from what was found. In large steps
    /// also then: small ones would find again what was too low by chance.
    fn run(&mut self, mut from: f64) -> Result<()> {
        let mut answers: Vec<(f64, Option<f64>)> = Vec::new();
        for n in 1..=SEARCHES {
            let (held, missed) = self.once(from)?;
            let Some(held) = held else {
                (self.found.rate, self.found.missed) = (None, missed);
                self.found.reproducible = false;
                return Ok(());
            };
            answers.push((held, missed));
            answers.sort_by(|a, b| a.0.total_cmp(&b.0));
            let (low, high) = (answers[0].0, answers[n - 1].0);
            let (rate, missed) = answers[(n - 1) / 2];
            (self.found.rate, self.found.missed) = (Some(rate), missed);
            self.found.answers = answers.iter().map(|(held, _)| *held).collect();
            self.found.reproducible = n == SEARCHES && high / low <= SAME;
            // Another search would meet the same machine, and the answer says so already.
            if missed.is_some() && limit_of_one(self.found).starts_with(NOT_QUIET) {
                return Ok(());
            }
            from = held;
        }
        Ok(())
    }

    /// One search: the highest rate that held, and the lowest above it that did not.
    fn once(&mut self, from: f64) -> Result<(Option<f64>, Option<f64>)> {
        let (mut held, mut missed) = (None, None);
        let (mut rate, mut step) = (from, 2.0_f64);
        loop {
            // On the way up one probe is enough: what is the answer in the end is asked once more.
            let enough = if missed.is_none() { 1 } else { AGREE };
            if self.holds(rate, enough)? {
                held = Some(rate);
            } else {
                missed = Some(rate);
            }
            rate = match (held, missed) {
                (Some(low), Some(high)) if high / low < NARROW => {
                    if self.holds(low, 1)? {
                        return Ok((held, missed));
                    }
                    // It held by luck: the search goes on below it, in steps that grow.
                    (held, missed, step) = (None, Some(low), NARROW);
                    low / step
                }
                (Some(low), Some(high)) => (low * high).sqrt(),
                (Some(low), None) if low * step > MOST => return Ok((held, missed)),
                (Some(low), None) => low * step,
                (None, Some(high)) if high < 2.0 => return Ok((held, missed)),
                (None, Some(high)) => high / step,
                (None, None) => bail!("a probe neither holds nor fails"),
            };
            step = 2.0_f64.min(step * step);
        }
    }

    /// Whether the objective holds at `rate`, which `enough` probes must say, or that it does not
    /// [`AGREE`]. A machine that is not quiet makes no server faster: what held meanwhile has held,
    /// and what was missed does not count. Where the machine is never quiet the search must go on
    /// below, and `limit` says why.
    fn holds(&mut self, rate: f64, enough: u32) -> Result<bool> {
        let (mut held, mut missed, mut disturbed) = (0, 0, 0);
        loop {
            let probe = (self.probe)(rate)?;
            match &probe {
                Probe { held: true, .. } => held += 1,
                Probe { disturbed: None, .. } => missed += 1,
                Probe { .. } => disturbed += 1,
            }
            self.found.probes.push(probe);
            if held >= enough {
                return Ok(true);
            }
            if missed >= AGREE || disturbed >= ATTEMPTS {
                return Ok(false);
            }
        }
    }
}

/// What ended the search, and whether it would end there again.
fn limit(found: &Found) -> String {
    let limit = limit_of_one(found);
    match (&found.answers[..], found.reproducible) {
        ([low, .., high], false) => format!(
            "not reproducible here: {} searches found {} to {}; {limit}",
            found.answers.len(),
            text::number(*low),
            text::number(*high)
        ),
        _ if limit.starts_with(NOT_QUIET) => format!("not reproducible here: {limit}"),
        _ => limit,
    }
}

/// What ended the search that gave the answer.
fn limit_of_one(found: &Found) -> String {
    if let Some(why) = &found.failed {
        return format!("not known: {why}");
    }
    let Some(last) = last_word(found) else {
        return "nothing: the search ended at the most that is asked".into();
    };
    if let Some(by) = &last.disturbed {
        let held = found.rate.map(|rate| format!(" than {}/s", text::number(rate)));
        return format!(
            "{NOT_QUIET} in any of {ATTEMPTS} runs at {}/s ({by}), so the server's own limit may \
             be anything higher{}",
            text::number(last.rate),
            held.unwrap_or_default()
        );
    }
    match &last.generator {
        Some(why) => format!("the generator, so the server's own limit is higher: {why}"),
        None => match last.reasons.first() {
            Some(why) => format!("the objective; {why}"),
            None => "the objective".into(),
        },
    }
}

/// The last word on the lowest rate that did not hold: of a quiet probe, if there was one.
fn last_word(found: &Found) -> Option<&Probe> {
    let above = |probe: &&Probe| !probe.held && Some(probe.rate) == found.missed;
    let missed = || found.probes.iter().filter(above);
    missed().rfind(|probe| probe.disturbed.is_none()).or(missed().next_back())
}

/// Whether a rate was found, and the machine or the generator ended the search, not the server.
fn is_at_least(found: &Found) -> bool {
    let others = |last: &Probe| last.disturbed.is_some() || last.generator.is_some();
    found.rate.is_some() && last_word(found).is_some_and(others)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::probe::tests::probe;

    /// Searches with what `probe` says.
    fn search(probe: &mut dyn FnMut(f64) -> Result<Probe>) -> (Found, Result<()>) {
        let mut found = Found::default();
        let result = Search { found: &mut found, probe }.run(1000.0);
        found.failed = result.as_ref().err().map(ToString::to_string);
        found.limit = limit(&found);
        found.at_least = is_at_least(&found);
        (found, result)
    }

    #[test]
    fn the_highest_rate_is_found_from_above_and_from_below() {
        for limit in [15.0, 999.0, 1000.0, 123_456.0] {
            let mut probe = |rate| Ok(Probe { held: rate <= limit, ..probe(rate, true) });
            let (found, _) = search(&mut probe);
            let (rate, missed) = (found.rate.unwrap(), found.missed.unwrap());
            assert!(rate <= limit && limit < missed && missed / rate < NARROW, "{limit}: {rate}");
            assert!(found.probes.len() < 55, "{limit}: {}", found.probes.len());
            assert_eq!((found.limit.as_str(), found.reproducible), ("the objective", true));
        }
    }

    /// A server that holds 50,000 messages/s, asked on a machine where every probe is missed by
    /// `chance` more, and nothing tells why.
    fn noisy(seed: u64, chance: f64) -> Found {
        let mut state = seed;
        let mut probe = |rate: f64| {
            let drawn =
                (crate::base::random::splitmix(&mut state) >> 11) as f64 / (1u64 << 53) as f64;
            Ok(Probe { held: rate <= 50_000.0 && drawn >= chance, ..probe(rate, true) })
        };
        search(&mut probe).0
    }

    #[test]
    fn an_answer_is_found_again_or_says_that_it_is_not() {
        for chance in [0.05, 0.15, 0.3, 0.5] {
            let found: Vec<Found> = (0..200).map(|seed| noisy(seed, chance)).collect();
            let sure: Vec<f64> =
                found.iter().filter(|f| f.reproducible).filter_map(|f| f.rate).collect();
            let false_ones = sure.iter().filter(|&&rate| rate * SAME < 50_000.0).count();
            assert!(false_ones * 20 <= found.len(), "{chance}: {false_ones} of {}", sure.len());
            assert!(chance > 0.1 || sure.len() > 180, "{chance}: only {} are sure", sure.len());
            for unsure in found.iter().filter(|found| !found.reproducible) {
                assert!(unsure.limit.starts_with("not reproducible here"), "{}", unsure.limit);
            }
        }
    }

    #[test]
    fn what_was_missed_while_the_machine_was_not_quiet_is_asked_again() {
        let mut asked = 0;
        let mut probe = |rate| {
            asked += 1;
            Ok(probe(rate, asked % 3 == 0))
        };
        let (found, _) = search(&mut probe);
        let rate = found.rate.unwrap();
        assert!((9_500.0..=10_000.0).contains(&rate), "{rate}");
        assert_eq!((&*found.limit, found.at_least), ("the objective", false));
    }

    #[test]
    fn a_machine_that_is_never_quiet_is_not_taken_for_the_servers_limit() {
        let (found, _) = search(&mut |rate| Ok(probe(rate, rate < 3000.0)));
        assert!(found.rate.is_some_and(|rate| rate < 3000.0));
        let wanted = "not reproducible here: the machine was not quiet in any of 5 runs at 3,";
        assert!(found.limit.starts_with(wanted), "{}", found.limit);
        assert!(found.limit.contains("slow processors"), "{}", found.limit);
        assert!(found.limit.contains("anything higher than 2,"), "{}", found.limit);
        assert!(found.at_least);
        let four = found.probes.iter().filter(|probe| probe.rate == 4000.0).count();
        assert_eq!(four, 5, "so often and no more");
        let (found, _) = search(&mut |rate| Ok(probe(rate, false)));
        assert_eq!((found.rate, found.at_least), (None, false), "{}", found.limit);
    }

    #[test]
    fn what_was_asked_before_an_error_is_kept() {
        let (found, result) = search(&mut |rate| match rate {
            4000.0 => Err(Interrupted.into()),
            _ => Ok(probe(rate, true)),
        });
        assert!(result.unwrap_err().is::<Interrupted>());
        assert_eq!((found.probes.len(), found.rate), (2, None), "no search was finished");
        assert_eq!(found.limit, "not known: interrupted");
    }

    #[test]
    fn the_generators_own_limit_is_never_the_servers() {
        let found = |reasons: &[&str], generator: Option<&str>| Found {
            probes: vec![
                Probe { held: true, ..probe(1e3, true) },
                Probe { held: false, ..probe(4e3, true) },
                Probe {
                    held: false,
                    reasons: reasons.iter().map(ToString::to_string).collect(),
                    generator: generator.map(str::to_owned),
                    ..probe(2e3, true)
                },
            ],
            missed: Some(2e3),
            ..Found::default()
        };
        let own = limit(&found(&["messages waited", "it was busy"], Some("it was busy")));
        assert_eq!(own, "the generator, so the server's own limit is higher: it was busy");
        assert_eq!(limit(&found(&["messages waited"], None)), "the objective; messages waited");
    }
}
