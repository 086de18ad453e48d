//! `loadgen find-max`: the highest rate at which an objective such as p99 < 1 ms holds.
//!
//! In an open loop, because only there does a response time count from the moment at which a user
//! would have asked. The rate is doubled until the objective is missed, then the gap is halved
//! until it is narrow, and what is left is confirmed by repeats. A rate that was missed while the
//! machine was not quiet is asked again.

use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use schemars::JsonSchema;
use serde::Serialize;

use super::{asked, begin, publish, settings};
use crate::cli;
use crate::host::Host;
use crate::models::{How, Models, Target};
use crate::progress::Progress;
use crate::run::{Interrupted, Report, Settings, Status, run};
use crate::schema::{Body, Document};
use crate::stats::Latency;
use crate::table;
use crate::workload::{Changes, Workload};

/// Measured and warm-up time of a probe.
const PROBE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_millis(300));
/// The search ends when the highest rate that held and the lowest that did not differ by less.
const NARROW: f64 = 1.05;
/// Repeats that must all hold before a rate is reported.
const REPEATS: u32 = 3;
/// Runs at one rate at most while the machine is not quiet.
const ATTEMPTS: u32 = 5;
/// What a verdict says where the machine was not quiet (`judge`).
const OTHERS: &str = "other guests of this host";
/// Beyond this many messages for each second one generator is not asked.
const MOST: f64 = 10_000_000.0;

/// What response times must keep to.
#[derive(Clone, Copy, Debug)]
pub struct Objective {
    name: &'static str,
    pick: fn(&Latency) -> u64,
    limit: Duration,
}

impl FromStr for Objective {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        type Pick = fn(&Latency) -> u64;
        const NAMES: [(&str, Pick); 5] = [
            ("p50", |l| l.p50),
            ("p90", |l| l.p90),
            ("p99", |l| l.p99),
            ("p99.9", |l| l.p999),
            ("max", |l| l.max),
        ];
        let parts = text.split_once('<').and_then(|(name, limit)| {
            let (name, pick) = *NAMES.iter().find(|(known, _)| *known == name.trim())?;
            let limit = humantime::parse_duration(limit.trim()).ok().filter(|l| !l.is_zero())?;
            Some(Self { name, pick, limit })
        });
        parts.ok_or_else(|| "expected p50, p90, p99, p99.9 or max, such as 'p99<1ms'".to_owned())
    }
}

impl std::fmt::Display for Objective {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}<{}", self.name, humantime::format_duration(self.limit))
    }
}

/// One probe.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Probe {
    /// Messages asked for each second.
    pub rate: f64,
    /// The objective's response time in nanoseconds.
    pub response_ns: u64,
    /// Whether the objective held and everything was sent.
    pub held: bool,
    /// Whether the machine was quiet meanwhile; if not, a miss may not be the server's.
    pub quiet: bool,
    /// What speaks against the run, in words.
    pub reasons: Vec<String>,
}

/// What the search found for one server.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Found {
    /// The server.
    pub server: String,
    /// The highest rate that held, repeats included; `None` if none did.
    pub rate: Option<f64>,
    /// The lowest rate that did not hold; `None` if the search ended before.
    pub missed: Option<f64>,
    /// Why the search was given up, if it was: an error, or Ctrl-C.
    pub failed: Option<String>,
    /// What ended the search upwards, in words.
    pub limit: String,
    /// All probes in their order.
    pub probes: Vec<Probe>,
}

/// `loadgen find-max`.
pub fn find_max(args: &cli::FindMax) -> Result<ExitCode> {
    let models = asked(Models::load(args.common.models_file.as_deref()))?;
    let targets =
        asked(args.models.iter().map(|name| models.find(name)).collect::<Result<Vec<_>>>())?;
    let workload = asked(workload(&args.workload, args.from, &args.changes))?;
    asked(targets.iter().try_for_each(|target| speaks(target, &workload)))?;
    let (pinning, settings) = asked(settings(&args.common, &args.driving))?;
    let host = Host::look();
    let mut progress = Progress::start();
    let built = build(&models, &targets, &settings, &mut progress)?;
    begin(&pinning, &settings, &progress)?;
    let (mut found, mut interrupted) = (Vec::new(), false);
    for (target, built) in targets.iter().zip(built) {
        let mut one = Found { server: target.name.clone(), ..Found::default() };
        let searched = built.and_then(|target| {
            let mut probe =
                |rate| probe(&target, &workload, rate, &args.objective, &settings, &mut progress);
            Search { found: &mut one, probe: &mut probe }.run(args.from)
        });
        if let Err(e) = searched {
            interrupted = e.is::<Interrupted>();
            let why = format!("{e:#}").lines().collect::<Vec<_>>().join("; ");
            progress.note(&format!("{}: {why}", target.name));
            one.failed = Some(why);
        }
        one.limit = limit(&one);
        found.push(one);
        if interrupted {
            break;
        }
    }
    drop(progress);
    let code = match () {
        () if interrupted => ExitCode::from(130),
        () if found.iter().any(|found| found.rate.is_none()) => ExitCode::FAILURE,
        () => ExitCode::SUCCESS,
    };
    let text = text(&args.objective, &workload, &found);
    let document = Document::new(Body::FindMax {
        host: host.into(),
        objective: args.objective.to_string(),
        found,
    });
    publish(&document, &text, args.common.json)?;
    Ok(code)
}

/// Builds every server before the first is driven. One that cannot be built costs the others
/// nothing; Ctrl-C ends it all, for nothing is found yet.
fn build(
    models: &Models,
    targets: &[Target],
    settings: &Settings,
    progress: &mut Progress,
) -> Result<Vec<Result<Target>>> {
    let mut built = Vec::new();
    for target in targets {
        if let How::Package(package, _) = &target.how {
            progress.step(format!("building {package}"));
        }
        match models.build(target, &settings.interrupted) {
            Err(e) if e.is::<Interrupted>() => return Err(e),
            other => built.push(other),
        }
    }
    Ok(built)
}

fn speaks(target: &Target, workload: &Workload) -> Result<()> {
    match target.modes.contains(&workload.mode) {
        true => Ok(()),
        false => {
            let (mode, name) = (workload.mode.name(), &workload.name);
            bail!("{} does not speak {mode}, which {name} needs", target.name)
        }
    }
}

fn workload(name: &str, rate: f64, changes: &Changes) -> Result<Workload> {
    if changes.rate.is_some() {
        bail!("--rate is what is searched for; --from says where to begin");
    }
    let changes = Changes { rate: Some(rate), ..changes.clone() };
    Workload::find(name, &changes, PROBE.0, PROBE.1)
}

/// The search for one server's rate.
struct Search<'a> {
    /// What was found so far.
    found: &'a mut Found,
    /// One run at a rate.
    probe: &'a mut dyn FnMut(f64) -> Result<Probe>,
}

impl Search<'_> {
    fn run(&mut self, from: f64) -> Result<()> {
        let (mut held, mut missed) = (None, None);
        let (mut rate, mut down) = (from, 2.0);
        loop {
            if self.holds(rate)? {
                held = Some(rate);
            } else {
                missed = Some(rate);
            }
            rate = match (held, missed) {
                (Some(low), None) if low * 2.0 > MOST => break,
                (Some(low), None) => low * 2.0,
                (Some(low), Some(high)) if high / low < NARROW => {
                    if self.confirmed(low)? {
                        break;
                    }
                    // It held once by luck: the search goes on below it, in steps that grow.
                    (held, missed, down) = (None, Some(low), NARROW);
                    low / down
                }
                (Some(low), Some(high)) => (low * high).sqrt(),
                (None, Some(high)) if high < 2.0 => break,
                (None, Some(high)) => {
                    down = 2.0_f64.min(down * down);
                    high / down
                }
                (None, None) => bail!("a probe neither holds nor fails"),
            };
        }
        (self.found.rate, self.found.missed) = (held, missed);
        Ok(())
    }

    fn confirmed(&mut self, rate: f64) -> Result<bool> {
        for _ in 0..REPEATS {
            if !self.holds(rate)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the objective holds at `rate`. A machine that is not quiet makes no server faster:
    /// what held meanwhile has held, and what was missed is asked again. Where the machine is
    /// never quiet the search must go on below, and `limit` says why.
    fn holds(&mut self, rate: f64) -> Result<bool> {
        for _ in 0..ATTEMPTS {
            let probe = (self.probe)(rate)?;
            let (held, quiet) = (probe.held, probe.quiet);
            self.found.probes.push(probe);
            if held || quiet {
                return Ok(held);
            }
        }
        Ok(false)
    }
}

/// One run at `rate` on a server of its own.
fn probe(
    target: &Target,
    workload: &Workload,
    rate: f64,
    objective: &Objective,
    settings: &Settings,
    progress: &mut Progress,
) -> Result<Probe> {
    let name = &target.name;
    progress.step(format!("{name}: {} messages/s", table::number(rate)));
    let workload = Workload { rate: Some(rate), ..workload.clone() };
    let report = run(target, &workload, settings, progress)?;
    if report.verdict.status == Status::Invalid {
        bail!("INVALID at {rate:.0}/s: {}", report.verdict.reasons.join("; "));
    }
    judge(&report, rate, objective)
        .with_context(|| format!("{name} at {rate:.0}/s has no response times"))
}

fn judge(report: &Report, rate: f64, objective: &Objective) -> Result<Probe> {
    let measured = report.measured.as_ref().context("no numbers")?;
    let response = measured.main_latency().context("no latency")?;
    let response_ns = (objective.pick)(response);
    let open = measured.open_loop.context("a closed loop")?;
    let in_time = u128::from(response_ns) < objective.limit.as_nanos();
    // Whoever leaves messages unsent has not held the rate, however fast the others were.
    let held = in_time && open.unsent + open.dropped == 0;
    let reasons = report.verdict.reasons.clone();
    let quiet = !reasons.iter().any(|why| why.contains(OTHERS));
    Ok(Probe { rate, response_ns, held, quiet, reasons })
}

/// What ended the search: the last word on the lowest rate that did not hold says so.
fn limit(found: &Found) -> String {
    if let Some(why) = &found.failed {
        return format!("not known: {why}");
    }
    let above = |probe: &&Probe| !probe.held && found.rate.is_none_or(|held| probe.rate > held);
    let failed = found.probes.iter().filter(above).rev();
    let Some(first) = failed.min_by(|a, b| a.rate.total_cmp(&b.rate)) else {
        return "nothing: the search ended at the most that is asked".into();
    };
    if !first.quiet {
        return format!(
            "not known: the machine was not quiet in any of {ATTEMPTS} runs at {}/s, so the \
             server's own limit may be higher",
            table::number(first.rate)
        );
    }
    // The generator's own faults begin with these words (`judge`, `doubts`).
    let own = |why: &&String| {
        why.starts_with("limited by the generator") || why.starts_with("the generator was late")
    };
    match first.reasons.iter().find(own) {
        Some(why) => format!("the generator, so the server's own limit is higher: {why}"),
        None => match first.reasons.first() {
            Some(why) => format!("the objective; {why}"),
            None => "the objective".into(),
        },
    }
}

fn text(objective: &Objective, workload: &Workload, found: &[Found]) -> String {
    let header = ["server", "highest rate", "missed at", objective.name, "probes", "limited by"];
    let rows: Vec<_> = found
        .iter()
        .map(|f| {
            let number = |rate: Option<f64>| rate.map_or("-".into(), table::number);
            let at = f.probes.iter().rev().find(|probe| Some(probe.rate) == f.rate);
            let response = at.map_or("-".into(), |probe| table::time(probe.response_ns as f64));
            vec![
                f.server.clone(),
                number(f.rate),
                number(f.missed),
                response,
                f.probes.len().to_string(),
                f.limit.clone(),
            ]
        })
        .collect();
    format!(
        "\nthe highest rate with {objective}: {}, open loop, response times from the schedule; {} \
         connections, {} bytes; confirmed by {REPEATS} repeats\n{}",
        workload.name,
        workload.connections,
        workload.size,
        table::draw(&header, &rows, 1)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{Disturbances, Outcome};

    #[test]
    fn objectives_are_read_and_shown() {
        for text in ["p99<1ms", "p50 < 200us", "p99.9<2s", "max<1s"] {
            let objective: Objective = text.parse().unwrap();
            assert_eq!(objective.to_string(), text.replace(' ', ""));
        }
        for wrong in ["p98<1ms", "p99", "p99<", "p99<0s", "p99>1ms", ""] {
            assert!(wrong.parse::<Objective>().is_err(), "{wrong:?}");
        }
    }

    /// What a probe of a server says that holds up to 10,000 messages/s.
    fn probe(rate: f64, quiet: bool) -> Probe {
        let held = rate <= 10_000.0 && quiet;
        Probe { rate, response_ns: 1, held, quiet, reasons: Vec::new() }
    }

    /// Searches with what `probe` says.
    fn search(probe: &mut dyn FnMut(f64) -> Result<Probe>) -> (Found, Result<()>) {
        let mut found = Found::default();
        let result = Search { found: &mut found, probe }.run(1000.0);
        found.failed = result.as_ref().err().map(ToString::to_string);
        found.limit = limit(&found);
        (found, result)
    }

    #[test]
    fn the_highest_rate_is_found_from_above_and_from_below() {
        for limit in [15.0, 999.0, 1000.0, 123_456.0] {
            let mut probe = |rate| Ok(Probe { held: rate <= limit, ..probe(rate, true) });
            let (found, _) = search(&mut probe);
            let (rate, missed) = (found.rate.unwrap(), found.missed.unwrap());
            assert!(rate <= limit && limit < missed && missed / rate < NARROW, "{limit}: {rate}");
            assert!(found.probes.len() < 25, "{limit}: {}", found.probes.len());
            assert_eq!(found.limit, "the objective");
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
        assert_eq!(found.limit, "the objective");
    }

    #[test]
    fn a_machine_that_is_never_quiet_is_not_taken_for_the_servers_limit() {
        let (found, _) = search(&mut |rate| Ok(probe(rate, rate < 3000.0)));
        assert!(found.rate.is_some_and(|rate| rate < 3000.0));
        let wanted = "not known: the machine was not quiet in any of 5 runs at 3,";
        assert!(found.limit.starts_with(wanted), "{}", found.limit);
        let four = found.probes.iter().filter(|probe| probe.rate == 4000.0).count();
        assert_eq!(four, 5, "so often and no more");
    }

    #[test]
    fn what_was_asked_before_an_error_is_kept() {
        let (found, result) = search(&mut |rate| match rate {
            4000.0 => Err(Interrupted.into()),
            _ => Ok(probe(rate, true)),
        });
        assert!(result.unwrap_err().is::<Interrupted>());
        assert_eq!((found.probes.len(), found.rate), (2, None), "nothing is confirmed");
        assert_eq!(found.limit, "not known: interrupted");
    }

    /// The words by which a disturbed run is known are those of its verdict.
    #[test]
    fn a_verdict_says_that_others_were_at_work() {
        let second = Duration::from_secs(1);
        let workload = workload("open-loop", 1000.0, &Changes::default()).unwrap();
        for (stolen, slow) in [(0.05, None), (0.0, Some(0.05))] {
            let machine = Disturbances { stolen, slow, ..Disturbances::default() };
            let mut outcome = Outcome { machine, ..Outcome::default() };
            outcome.phase.total = 1000;
            outcome.phase.busy_ns = second.as_nanos() as u64;
            let (verdict, _) = crate::judge::judge(&workload, &outcome);
            assert!(verdict.reasons.iter().any(|why| why.contains(OTHERS)), "{verdict:?}");
        }
    }

    #[test]
    fn the_generators_own_limit_is_never_the_servers() {
        let probe = |rate, held, why: &str| Probe {
            rate,
            response_ns: 1,
            held,
            quiet: true,
            reasons: vec![why.to_owned()],
        };
        let found = |why| Found {
            probes: vec![probe(1e3, true, ""), probe(4e3, false, ""), probe(2e3, false, why)],
            ..Found::default()
        };
        let own = limit(&found("limited by the generator (99 % of its processor): x"));
        assert!(own.starts_with("the generator, so"), "{own}");
        assert!(limit(&found("messages waited")).starts_with("the objective; messages"));
    }
}
