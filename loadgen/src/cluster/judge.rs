//! What a run by several machines is worth.
//!
//! The rules: a run is INVALID if an agent was lost, refused or failed, or if the windows did not
//! lie together; it is SUSPECT if a part is, if the connection to NATS was lost meanwhile, or if a
//! clock was not known or not steady. What was measured is kept in any case: as the sum where all
//! parts came, else part by part. The agent beside the server is an agent as the others: if it is
//! lost, or its server is, the run is INVALID.

use std::time::{Duration, SystemTime};

use anyhow::Result;

use super::clock;
use super::roll::{Entry, Roll};
use super::served::Served;
use crate::base::text::time;
use crate::measure::{Report, Settings, Status, Verdict};
use crate::results::merged;
use crate::workload::Workload;

/// What was asked, as the report says it.
pub(super) struct Question<'a> {
    pub(super) server: &'a str,
    pub(super) workload: &'a Workload,
    pub(super) settings: &'a Settings,
}

impl Question<'_> {
    /// A run without numbers.
    pub(super) fn invalid(&self, reasons: Vec<String>) -> Report {
        Report {
            server: self.server.to_owned(),
            workload: self.workload.clone(),
            settings: self.settings.clone(),
            flood_control: None,
            interrupted: false,
            verdict: Verdict::new(Status::Invalid, reasons),
            measured: None,
            faults: Default::default(),
            examples: Vec::new(),
            parts: Vec::new(),
            kept: None,
        }
    }

    /// The verdict on what all have brought. `outage` is how long the connection to NATS was down.
    pub(super) fn judge(&self, roll: &Roll, served: Option<&Served>, outage: Duration) -> Report {
        let mut lost = lost(roll);
        if let Some((served, why)) = served.and_then(|served| Some((served, served.lost()?))) {
            lost.insert(0, format!("{}, beside the server: {why}", served.here.name));
        }
        let mut report = match &lost[..] {
            [] => self.sum(roll).unwrap_or_else(|e| self.invalid(vec![format!("{e:#}")])),
            _ => self.invalid(lost),
        };
        let mut doubts = doubts(roll, outage);
        if let Some(served) = served {
            self.book(&mut report, served);
            report.kept = Some(served.kept());
            let machine = served.spent.iter().flat_map(|spent| &spent.doubts);
            let all = machine.chain(&served.doubts);
            doubts.extend(all.map(|why| format!("{}, beside the server: {why}", served.here.name)));
        }
        if !doubts.is_empty() {
            report.verdict.status = report.verdict.status.max(Status::Suspect);
            report.verdict.reasons.extend(doubts);
        }
        report.parts = roll.0.iter().map(Entry::part).collect();
        report
    }

    /// All parts as one run.
    fn sum(&self, roll: &Roll) -> Result<Report> {
        let parts: Vec<Report> = roll.0.iter().filter_map(|entry| self.comparable(entry)).collect();
        let mut sum = match &parts[..] {
            [one] => one.clone(),
            many => merged(&many.iter().collect::<Vec<_>>())?,
        };
        sum.workload = self.workload.clone();
        sum.settings.seed = self.settings.seed;
        sum.settings.workers = self.settings.workers;
        if let Some(measured) = &mut sum.measured {
            measured.system_calls_unknown = Some("not counted where agents drive".into());
        }
        let reasons = roll.0.iter().zip(&parts).flat_map(|(entry, part)| {
            let told = part.verdict.reasons.iter();
            told.map(|why| format!("{}: {why}", entry.here.name))
        });
        sum.verdict.reasons = reasons.collect();
        Ok(sum)
    }

    /// What the server has cost, in the numbers if there are any.
    fn book(&self, report: &mut Report, served: &Served) {
        report.settings.server_cpus.clone_from(&served.cpus);
        let Some((measured, spent)) = report.measured.as_mut().zip(served.spent.as_ref()) else {
            return;
        };
        let Workload { connections, churn, .. } = self.workload;
        spent.book(measured, *connections, churn.is_none());
    }

    /// A part with the times of the conductor's clock, and what was asked of all.
    fn comparable(&self, entry: &Entry) -> Option<Report> {
        let (_, report) = entry.result.as_ref()?;
        let mut report = report.clone();
        self.server.clone_into(&mut report.server);
        report.workload = self.workload.clone();
        if let (Some(measured), Some(clock)) = (&mut report.measured, entry.clock) {
            let began = humantime::parse_rfc3339(&measured.began).ok()?;
            let began = back(began, clock.ahead);
            measured.began = humantime::format_rfc3339_micros(began).to_string();
        }
        Some(report)
    }
}

/// A time of a clock that is so many nanoseconds ahead.
fn back(told: SystemTime, ahead: i64) -> SystemTime {
    let by = Duration::from_nanos(ahead.unsigned_abs());
    if ahead < 0 { told + by } else { told - by }
}

/// Which agents were lost, and why.
fn lost(roll: &Roll) -> Vec<String> {
    let lost = roll.0.iter().filter_map(|entry| Some((entry, entry.lost()?)));
    lost.map(|(entry, why)| format!("{}: {why}", entry.here.name)).collect()
}

fn doubts(roll: &Roll, outage: Duration) -> Vec<String> {
    let clocks = roll.0.iter().filter_map(|entry| {
        let why = clock::doubt(entry.clock?, entry.after)?;
        Some(format!("{}: {why}", entry.here.name))
    });
    let mut doubts: Vec<String> = clocks.collect();
    if !outage.is_zero() {
        doubts.push(format!(
            "the connection to NATS was lost during the run ({}): what troubled it may have \
             troubled the run",
            time(outage.as_nanos() as f64)
        ));
    }
    doubts
}
