//! One experiment of a claim: its points, round by round.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::claims::{ClaimCourse, Entered, Servers, named};
use super::counted;
use crate::base::exit::Interrupted;
use crate::measure::{Measured, Report, Settings, Status, round};
use crate::results::{ClaimPoint, ExperimentResult, FEWEST_ROUNDS};
use crate::target::Target;
use crate::workload::{Along, Experiment, Quantity, Workload};

/// What one round brought at one value: the numbers of each server.
#[derive(Clone, Debug, Default)]
pub(super) struct RoundNumbers {
    numbers: Vec<Numbers>,
    doubted: bool,
}

/// What a run says of each quantity that it has.
type Numbers = BTreeMap<Quantity, f64>;

/// What tells the runs of one experiment from those of another: where nothing of it differs, they
/// are made once for both.
pub(super) fn runs(called: &[&str], workload: &Workload, workers: u32) -> String {
    format!("{called:?} {workers} {workload:?}")
}

impl ClaimCourse<'_> {
    /// Makes an experiment, or says why it cannot be made. Fails only when interrupted.
    pub(super) fn experiment(
        &mut self,
        experiment: &Experiment,
        servers: &Servers,
        step: &str,
        deadline: Instant,
    ) -> Result<ExperimentResult> {
        let points = match experiment.is_counted() {
            true => counted::point(experiment).map(|point| vec![point]),
            false => self.attempt(experiment, servers, step, deadline),
        };
        match points {
            Ok(points) => Ok(ExperimentResult { points, ..ExperimentResult::default() }),
            Err(e) if e.is::<Interrupted>() => Err(e),
            Err(e) => Ok(ExperimentResult {
                cannot: Some(format!("{e:#}")),
                ..ExperimentResult::default()
            }),
        }
    }

    fn attempt(
        &mut self,
        experiment: &Experiment,
        servers: &Servers,
        step: &str,
        deadline: Instant,
    ) -> Result<Vec<ClaimPoint>> {
        let settings = self.settings_for(experiment)?;
        let mut targets = Vec::new();
        for (called, ..) in named(experiment) {
            match servers.get(&called).context("it is not built")? {
                Ok(Entered { target, .. }) => targets.push(target.clone()),
                Err(why) => bail!("{why}"),
            }
        }
        let mut workloads = Vec::new();
        for &value in &experiment.values {
            let changes = experiment.changes(value);
            let (duration, warmup) = (self.timing.duration, self.timing.warmup);
            let workload = Workload::find(&experiment.workload, &changes, duration, warmup)?;
            workloads.push(match experiment.along {
                Along::LoadPercent => self.loads(&targets, &workload, &settings, step)?,
                _ => vec![(targets.clone(), workload)],
            });
        }
        let mut samples = vec![Vec::new(); workloads.len()];
        for round in 1..=self.timing.rounds {
            if round as usize > FEWEST_ROUNDS && Instant::now() > deadline {
                break;
            }
            let step = format!("{step}, round {round}");
            // Mirrored, as in a comparison: values as well as servers.
            let mut order: Vec<usize> = (0..workloads.len()).collect();
            if round.is_multiple_of(2) {
                order.reverse();
            }
            for n in order {
                let mut together = RoundNumbers::default();
                for (targets, workload) in &workloads[n] {
                    let sample = self.sample(targets, workload, &settings, round, &step)?;
                    together.numbers.extend(sample.numbers);
                    together.doubted |= sample.doubted;
                }
                samples[n].push(together);
            }
        }
        Ok(points(experiment, &samples))
    }

    /// Each of these servers with its own workload: at a rate that is this percentage of what it
    /// reaches.
    fn loads(
        &mut self,
        targets: &[Target],
        percent: &Workload,
        settings: &Settings,
        step: &str,
    ) -> Result<Vec<(Vec<Target>, Workload)>> {
        let mut loads = Vec::new();
        for target in targets {
            let closed = Workload { rate: None, ..percent.clone() };
            let key = runs(&[&target.name], &closed, settings.workers);
            if !self.capacities.contains_key(&key) {
                let step = format!("{step}, capacity of {}", target.name);
                let found =
                    self.sample(std::slice::from_ref(target), &closed, settings, 0, &step)?;
                let rate = found.numbers.first().and_then(|n| n.get(&Quantity::Rate).copied());
                let rate = rate.with_context(|| format!("{} gave no rate", target.name))?;
                self.capacities.insert(key.clone(), rate);
            }
            let rate = percent.rate.map(|percent| self.capacities[&key] * percent / 100.0);
            loads.push((vec![target.clone()], Workload { rate, ..percent.clone() }));
        }
        Ok(loads)
    }

    /// The settings, with as many workers as the experiment wants.
    fn settings_for(&self, experiment: &Experiment) -> Result<Settings> {
        let workers = experiment.workers;
        if workers <= self.settings.workers {
            return Ok(self.settings.clone());
        }
        if self.wide.server.len() < workers as usize {
            bail!(
                "{workers} workers need a processor each, and the generator one more; this \
                 machine has not so many"
            );
        }
        let server_cpus = self.wide.server.clone();
        Ok(Settings { workers, server_cpus, ..self.settings.clone() })
    }

    /// One round at one point.
    fn sample(
        &mut self,
        targets: &[Target],
        workload: &Workload,
        settings: &Settings,
        round: u32,
        step: &str,
    ) -> Result<RoundNumbers> {
        let called: Vec<&str> = targets.iter().map(|target| target.name.as_str()).collect();
        let key = (runs(&called, workload, settings.workers), round);
        if let Some(sample) = self.made.get(&key) {
            return Ok(sample.clone());
        }
        let mut order = targets.to_vec();
        if round.is_multiple_of(2) {
            order.reverse();
        }
        let step = format!("{step}: {}", workload.point());
        let of_round = round::round(&order, workload, settings, self.progress, &step)?;
        let mut reports = of_round.into_iter().collect::<Result<Vec<Report>>>()?;
        if round.is_multiple_of(2) {
            reports.reverse();
        }
        let mut sample = RoundNumbers::default();
        for report in &reports {
            self.record.run(round, report);
            if report.verdict.status == Status::Invalid {
                bail!("{} is INVALID: {}", report.server, report.verdict.reasons.join("; "));
            }
            // As in a comparison, a doubted round counts: all have met the same machine. A limit
            // has met none.
            sample.doubted |= report.verdict.status != Status::Valid;
            sample.numbers.push(numbers(report));
        }
        self.made.insert(key, sample.clone());
        Ok(sample)
    }
}

/// The points of an experiment, from what each round brought at each of its values.
fn points(experiment: &Experiment, samples: &[Vec<RoundNumbers>]) -> Vec<ClaimPoint> {
    let growth = experiment.is_growth();
    let mut points = Vec::new();
    for (&value, of_value) in experiment.values.iter().zip(samples).skip(usize::from(growth)) {
        let mut point = ClaimPoint { value, ..ClaimPoint::default() };
        for (round, sample) in of_value.iter().enumerate() {
            let number = |sample: &RoundNumbers, n: usize| {
                sample.numbers.get(n)?.get(&experiment.quantity).copied()
            };
            let first = samples[0].get(round);
            let to = match experiment.limit {
                Some(limit) => Some(limit),
                None if growth => {
                    let times = f64::from(value) / f64::from(experiment.values[0]);
                    let grown = if experiment.proportional { times } else { 1.0 };
                    first.and_then(|first| number(first, 0)).map(|number| number * grown)
                }
                None => number(sample, 1),
            };
            let doubted = sample.doubted || growth && first.is_some_and(|first| first.doubted);
            point.doubted += u32::from(doubted);
            if doubted && experiment.limit.is_some() && experiment.quantity.is_of_time() {
                continue;
            }
            if let (Some(server), Some(to)) = (number(sample, 0), to) {
                point.server.push(server);
                point.to.push(to);
            }
        }
        points.push(point);
    }
    points
}

/// All that a run says.
fn numbers(report: &Report) -> Numbers {
    let of = |&quantity: &Quantity| Some((quantity, number(report, quantity)?));
    Quantity::MEASURED.iter().filter_map(of).collect()
}

/// What a run says of a quantity.
fn number(report: &Report, quantity: Quantity) -> Option<f64> {
    let measured = report.measured.as_ref()?;
    let Measured { cost, messages, window_seconds, .. } = measured;
    match quantity {
        Quantity::Cpu => Some(cost.as_ref()?.cpu_ns_per_message),
        Quantity::CpuOfSecond => {
            Some(cost.as_ref()?.cpu_ns_per_message * *messages as f64 / window_seconds)
        }
        Quantity::Calls => measured.system_calls_per_message,
        Quantity::Switches => {
            let cost = cost.as_ref()?;
            Some(cost.voluntary_switches_per_message + cost.involuntary_switches_per_message)
        }
        Quantity::IdleMemory => measured.idle_bytes_per_connection,
        Quantity::AllMemory => {
            Some(measured.idle_bytes_per_connection? + measured.kernel_bytes_per_connection?)
        }
        Quantity::P50 => Some(measured.main_latency()?.p50 as f64),
        Quantity::P99 => Some(measured.main_latency()?.p99 as f64),
        Quantity::Rate => Some(measured.messages_per_second),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn experiment(more: &str) -> Experiment {
        let text = "kind = 'equal'\nserver = 'iterative'\nworkload = 'churn'\nquantity = 'p50'\n\
                    margin = 0.1\nvalues = [1, 4]\n";
        toml::from_str(&(text.to_owned() + more)).unwrap()
    }

    fn sample(numbers: &[Option<f64>], doubted: bool) -> RoundNumbers {
        let of = |number: &Option<f64>| number.map(|n| (Quantity::P50, n)).into_iter().collect();
        RoundNumbers { numbers: numbers.iter().map(of).collect(), doubted }
    }

    fn samples(numbers: &[f64], doubted: bool) -> Vec<RoundNumbers> {
        numbers.iter().map(|&number| sample(&[Some(number)], doubted)).collect()
    }

    #[test]
    fn a_server_is_compared_with_itself_as_it_would_have_grown() {
        let found = [samples(&[10.0, 11.0], true), samples(&[40.0, 50.0], false)];
        let flat = points(&experiment(""), &found);
        assert_eq!(flat.len(), 1);
        assert_eq!((flat[0].value, flat[0].doubted), (4, 2));
        assert_eq!((&flat[0].server[..], &flat[0].to[..]), (&[40.0, 50.0][..], &[10.0, 11.0][..]));
        let grown = points(&experiment("proportional = true"), &found);
        assert_eq!(grown[0].to, [40.0, 44.0]);
    }

    #[test]
    fn a_limit_and_another_server_are_what_they_are() {
        let doubted = points(&experiment("limit = 7.0"), &[samples(&[1.0], true), Vec::new()]);
        assert_eq!((doubted[0].doubted, doubted[0].server.len()), (1, 0));
        let limit = points(&experiment("limit = 7.0"), &[samples(&[1.0], false), Vec::new()]);
        assert_eq!((limit.len(), &limit[0].to[..], limit[1].to.len()), (2, &[7.0][..], 0));
        let rounds =
            vec![sample(&[Some(1.0), Some(2.0)], false), sample(&[None, Some(3.0)], false)];
        let other = points(&experiment("to = 'threads'"), &[rounds, Vec::new()]);
        assert_eq!((&other[0].server[..], &other[0].to[..]), (&[1.0][..], &[2.0][..]));
    }
}
