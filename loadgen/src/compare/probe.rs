//! One probe of a search: a run at a rate, and whether the objective held.

use anyhow::{Context, Result, bail};

use crate::base::exit::Interrupted;
use crate::base::text;
use crate::measure::{Measured, Progress, Report, Status};
use crate::results::Probe;
use crate::workload::Objective;

/// For how many times as long as a disturbance lasts answers are late because of it: a slow spell
/// of 20 ms takes 50 more to recover from (docs/METHODOLOGY.md).
const RECOVERY: f64 = 5.0;
/// Part of the time that a disturbance may take whatever the objective: less is not seen.
const UNSEEN: f64 = 0.002;

/// What a run at `rate` says of the objective.
pub(super) fn probe(
    report: &Report,
    rate: f64,
    objective: &Objective,
    progress: &Progress,
) -> Result<Probe> {
    let name = &report.server;
    if report.interrupted {
        return Err(Interrupted.into());
    }
    if report.verdict.status == Status::Invalid {
        bail!("INVALID at {rate:.0}/s: {}", report.verdict.reasons.join("; "));
    }
    let probe = judged(report, rate, objective)
        .with_context(|| format!("{name} at {rate:.0}/s has no response times"))?;
    progress.note(&format!("{name}: {} messages/s {}", text::number(rate), probe.said(objective)));
    Ok(probe)
}

fn judged(report: &Report, rate: f64, objective: &Objective) -> Result<Probe> {
    let measured = report.measured.as_ref().context("no numbers")?;
    let response = measured.main_latency().context("no latency")?;
    let response_ns = response.at(objective.quantile);
    let open = measured.open_loop.context("a closed loop")?;
    let in_time = u128::from(response_ns) < objective.limit.as_nanos();
    // A run that leaves messages unsent has not held the rate, however fast the others were.
    let held = in_time && open.unsent + open.dropped == 0;
    let unsent = open.unsent + open.dropped;
    Ok(Probe {
        rate,
        response_ns,
        unsent,
        held,
        disturbed: disturbed(measured, objective),
        reasons: report.verdict.reasons.clone(),
        generator: report.verdict.generator.clone(),
    })
}

/// What disturbed a run for so long that it may be what missed the objective. Answers are late for
/// longer than the disturbance lasts: of a window of two seconds one slow spell that is no doubt of
/// the run's rate takes its p99.
fn disturbed(measured: &Measured, objective: &Objective) -> Option<String> {
    let least = (objective.quantile.tail() / RECOVERY).max(UNSEEN);
    let parts = [
        ("slow processors", measured.slow_processors),
        ("other guests of this host", measured.stolen_processors),
        ("other programs on this machine", measured.taken_processors),
    ];
    let seen = parts.into_iter().filter_map(|(what, part)| {
        part.filter(|&part| part > least).map(|part| format!("{what}, {}", text::percent(part)))
    });
    let seen: Vec<_> = seen.collect();
    (!seen.is_empty()).then(|| seen.join("; "))
}

impl Probe {
    /// Whether it held, and if not by what it was missed.
    fn said(&self, objective: &Objective) -> String {
        let response =
            format!("{} {}", objective.quantile.name(), text::time(self.response_ns as f64));
        if self.held {
            return format!("held: {response}");
        }
        let unsent = match self.unsent {
            0 => String::new(),
            n => format!(", {} messages were not sent", text::thousands(n)),
        };
        let again = match &self.disturbed {
            None => String::new(),
            Some(by) => format!("; it does not count, for the machine was not quiet ({by})"),
        };
        format!("missed: {response}{unsent}{again}")
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::measure::verdict::{Evidence, judge};
    use crate::workload::{Changes, Workload};

    /// What a probe of a server says that holds up to 10,000 messages/s.
    pub(in crate::compare) fn probe(rate: f64, quiet: bool) -> Probe {
        let held = rate <= 10_000.0 && quiet;
        let disturbed = (!quiet).then(|| "slow processors, 5.0 %".to_owned());
        Probe {
            rate,
            response_ns: 1,
            unsent: 0,
            held,
            disturbed,
            reasons: Vec::new(),
            generator: None,
        }
    }

    /// A spell of 20 ms that no verdict speaks of takes the p99 of two seconds, and not their p50.
    #[test]
    fn what_spoiled_a_probe_is_seen_and_said() {
        let measured = |slow, taken| Measured {
            slow_processors: Some(slow),
            taken_processors: Some(taken),
            ..measured()
        };
        let seen =
            |text: &str, slow, taken| disturbed(&measured(slow, taken), &text.parse().unwrap());
        assert_eq!(seen("p99<1ms", 0.0, 0.001), None);
        assert_eq!(seen("p99<1ms", 0.005, 0.0).unwrap(), "slow processors, 0.5 %");
        assert_eq!(seen("p50<1ms", 0.005, 0.01), None);
        let both = seen("p99.9<1ms", 0.004, 0.2).unwrap();
        assert_eq!(both, "slow processors, 0.4 %; other programs on this machine, 20.0 %");
        let objective: Objective = "p99<1ms".parse().unwrap();
        let mut probe = Probe { response_ns: 7_000_000, unsent: 12, ..probe(20_000.0, true) };
        let missed = probe.said(&objective);
        assert_eq!(missed, "missed: p99 7.00 ms, 12 messages were not sent");
        probe.disturbed = Some(both);
        assert!(probe.said(&objective).contains("not quiet (slow processors"));
        probe.held = true;
        assert_eq!(probe.said(&objective), "held: p99 7.00 ms");
    }

    /// The numbers of a run.
    fn measured() -> Measured {
        let second = Duration::from_secs(1);
        let changes = Changes { rate: Some(1000.0), ..Changes::default() };
        let workload = Workload::find("open-loop", &changes, second, second).unwrap();
        let mut evidence = Evidence::default();
        (evidence.phase.total, evidence.phase.busy_ns) = (1000, 1_000_000_000);
        judge(&workload, &evidence).1.unwrap()
    }
}
