//! `loadgen find-max`: the highest rate at which an objective such as p99 < 1 ms holds.
//!
//! In an open loop, because only there does a response time count from the moment at which a user
//! would have asked. The rate is doubled until the objective is missed, then the gap is halved
//! until it is narrow, and what is left is confirmed by repeats.

use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use schemars::JsonSchema;
use serde::Serialize;

use super::{asked, begin, publish, settings};
use crate::cli;
use crate::host::Host;
use crate::models::{How, Models, Target};
use crate::progress::Progress;
use crate::run::{Report, Settings, Status, run};
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
    let workload = asked(workload(args.from, &args.changes))?;
    let (pinning, settings) = asked(settings(&args.common, &args.driving))?;
    let host = Host::look();
    let mut progress = Progress::start();
    let mut built = Vec::new();
    for target in targets {
        if let How::Package(package, _) = &target.how {
            progress.step(format!("building {package}"));
        }
        built.push(models.build(&target, &settings.interrupted)?);
    }
    begin(&pinning, &settings, &progress)?;
    let mut found = Vec::new();
    for target in &built {
        let search =
            Search { target, workload: &workload, settings: &settings, progress: &mut progress };
        found.push(search.run(&args.objective)?);
    }
    drop(progress);
    let none = found.iter().any(|found| found.rate.is_none());
    let text = text(&args.objective, &workload, &found);
    let document = Document::new(Body::FindMax {
        host: host.into(),
        objective: args.objective.to_string(),
        found,
    });
    publish(&document, &text, args.common.json)?;
    Ok(if none { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn workload(rate: f64, changes: &Changes) -> Result<Workload> {
    if changes.rate.is_some() {
        bail!("--rate is what is searched for; --from says where to begin");
    }
    let changes = Changes { rate: Some(rate), ..changes.clone() };
    Workload::find("open-loop", &changes, PROBE.0, PROBE.1)
}

/// The search for one server's rate.
struct Search<'a> {
    target: &'a Target,
    workload: &'a Workload,
    settings: &'a Settings,
    progress: &'a mut Progress,
}

impl Search<'_> {
    fn run(mut self, objective: &Objective) -> Result<Found> {
        let mut found = Found { server: self.target.name.clone(), ..Found::default() };
        let (mut held, mut missed) = (None, None);
        let mut rate = self.workload.rate.context("an open loop has a rate")?;
        loop {
            if self.probe(rate, objective, &mut found)? {
                held = Some(rate);
            } else {
                missed = Some(rate);
            }
            rate = match (held, missed) {
                (Some(low), None) if low * 2.0 > MOST => break,
                (Some(low), None) => low * 2.0,
                (Some(low), Some(high)) if high / low < NARROW => {
                    if self.confirmed(low, objective, &mut found)? {
                        break;
                    }
                    // It held once by luck: the search goes on below it.
                    (held, missed) = (None, Some(low));
                    low / NARROW
                }
                (Some(low), Some(high)) => (low * high).sqrt(),
                (None, Some(high)) if high < 2.0 => break,
                (None, Some(high)) => high / if found.probes.len() > 1 { NARROW } else { 2.0 },
                (None, None) => bail!("a probe neither holds nor fails"),
            };
        }
        (found.rate, found.missed) = (held, missed);
        found.limit = limit(&found);
        Ok(found)
    }

    fn confirmed(&mut self, rate: f64, objective: &Objective, found: &mut Found) -> Result<bool> {
        for _ in 0..REPEATS {
            if !self.probe(rate, objective, found)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// One run at `rate` on a server of its own. Returns whether the objective held.
    fn probe(&mut self, rate: f64, objective: &Objective, found: &mut Found) -> Result<bool> {
        let name = &self.target.name;
        self.progress.step(format!("{name}: {} messages/s", table::number(rate)));
        let workload = Workload { rate: Some(rate), ..self.workload.clone() };
        let report = run(self.target, &workload, self.settings, self.progress)?;
        if report.verdict.status == Status::Invalid {
            bail!("{name} at {rate:.0}/s is INVALID: {}", report.verdict.reasons.join("; "));
        }
        let probe = judge(&report, rate, objective)
            .with_context(|| format!("{name} at {rate:.0}/s has no response times"))?;
        let held = probe.held;
        found.probes.push(probe);
        Ok(held)
    }
}

fn judge(report: &Report, rate: f64, objective: &Objective) -> Result<Probe> {
    let measured = report.measured.as_ref().context("no numbers")?;
    let response = measured.latency.get("response").ok_or_else(|| anyhow!("a closed loop"))?;
    let response_ns = (objective.pick)(response);
    let open = measured.open_loop.context("a closed loop")?;
    let in_time = u128::from(response_ns) < objective.limit.as_nanos();
    // Whoever leaves messages unsent has not held the rate, however fast the others were.
    let held = in_time && open.unsent + open.dropped == 0;
    Ok(Probe { rate, response_ns, held, reasons: report.verdict.reasons.clone() })
}

/// What ended the search: the lowest rate that did not hold says so.
fn limit(found: &Found) -> String {
    let failed = found.probes.iter().filter(|probe| !probe.held);
    let Some(first) = failed.min_by(|a, b| a.rate.total_cmp(&b.rate)) else {
        return "nothing: the search ended at the most that is asked".into();
    };
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
        "\nthe highest rate with {objective}: open loop, response times from the schedule; {} \
         connections, {} bytes; confirmed by {REPEATS} repeats\n{}",
        workload.connections,
        workload.size,
        table::draw(&header, &rows, 1)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn the_generators_own_limit_is_never_the_servers() {
        let probe = |rate, held, why: &str| Probe {
            rate,
            response_ns: 1,
            held,
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
