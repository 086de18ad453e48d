//! A server against itself, or against itself with a handicap, in many small comparisons whose
//! right outcome is known.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::base::exit::Interrupted;
use crate::measure::{Measured, Pace, Progress, Report, Settings, round};
use crate::results::{Calibration, SignedRank, Spread};
use crate::target::{How, Target};
use crate::workload::Workload;

/// Runs before the first pair: they say what a message costs, of which the handicap is a part.
const FIRST: usize = 5;

/// What a run takes, about, beside warming up and measuring: starting, connecting, stopping.
const AROUND: Duration = Duration::from_millis(150);

/// Which comparisons to make.
#[derive(Clone, Copy, Debug)]
pub struct Pairs {
    /// How many.
    pub pairs: u32,
    /// Rounds of each.
    pub rounds: u32,
    /// Part of its CPU per message that the second of each pair burns in addition.
    pub handicap: f64,
}

/// The numbers of one run.
struct Sample {
    rate: f64,
    cpu: f64,
    generator: f64,
}

/// The same server with `work` for each message.
fn handicapped(target: &Target, work: Duration) -> Target {
    let mut target = target.again();
    match &mut target.how {
        How::Null(spent) => *spent = work,
        How::Program(_, args) => {
            args.extend(["--work".into(), format!("{}ns", work.as_nanos())]);
        }
        // `build` leaves no package, and a command is refused before.
        _ => {}
    }
    target
}

/// What all runs share.
pub struct Bench<'a> {
    /// What is asked.
    pub workload: &'a Workload,
    /// How.
    pub settings: &'a Settings,
    /// What the user sees meanwhile.
    pub progress: &'a mut Progress,
}

impl Bench<'_> {
    /// Drives a target, which is built already, against itself. Ctrl-C ends it early.
    pub fn calibrate(&mut self, target: &Target, pairs: &Pairs) -> Result<Calibration> {
        if pairs.handicap > 0.0 && !matches!(target.how, How::Null(_) | How::Program(..)) {
            bail!("--handicap needs a server that takes --work: one of this workspace's packages");
        }
        let mut found = Calibration {
            server: target.name.clone(),
            handicap: pairs.handicap,
            rounds: pairs.rounds,
            ..Calibration::default()
        };
        let mut samples = Vec::new();
        let mut differences = Vec::new();
        match self.pairs(target, pairs, &mut found, &mut samples, &mut differences) {
            Ok(()) => {}
            Err(e) if e.is::<Interrupted>() => found.interrupted = true,
            Err(e) => return Err(e),
        }
        let spread =
            |pick: fn(&Sample) -> f64| Spread::of(&samples.iter().map(pick).collect::<Vec<_>>());
        found.rate = spread(|sample| sample.rate);
        found.cpu_ns = spread(|sample| sample.cpu);
        found.generator_ns = spread(|sample| sample.generator);
        found.noise = Spread::of(&differences).map_or(0.0, |s| s.median);
        found.slower = found.pairs.iter().filter(|ratio| ratio.low > 1.0).count();
        found.faster = found.pairs.iter().filter(|ratio| ratio.high < 1.0).count();
        Ok(found)
    }

    fn pairs(
        &mut self,
        target: &Target,
        pairs: &Pairs,
        found: &mut Calibration,
        samples: &mut Vec<Sample>,
        differences: &mut Vec<f64>,
    ) -> Result<()> {
        let mut other = target.again();
        let mut left = pairs.pairs * pairs.rounds;
        let mut pace = Pace::begin((self.workload.lasts() + AROUND) * 2);
        self.progress.expect_all(pace.left(left));
        if pairs.handicap > 0.0 {
            for n in 1..=FIRST {
                let step = format!("first look, {n} of {FIRST}");
                samples.append(&mut self.samples(std::slice::from_ref(target), &step)?);
            }
            let costs: Vec<f64> = samples.iter().map(|sample| sample.cpu).collect();
            let cost = Spread::of(&costs).map_or(0.0, |s| s.median);
            other = handicapped(target, Duration::from_nanos((cost * pairs.handicap) as u64));
        }
        let rule = SignedRank::of(pairs.rounds as usize);
        for pair in 1..=pairs.pairs {
            let (mut first, mut second) = (Vec::new(), Vec::new());
            for round in 1..=pairs.rounds {
                let step = format!("pair {pair} of {}, round {round}", pairs.pairs);
                // Mirrored, as in a comparison.
                let mut both = [target.clone(), other.clone()];
                if round % 2 == 0 {
                    both.reverse();
                }
                let mut of_round = self.samples(&both, &step)?;
                pace.step();
                left -= 1;
                self.progress.expect_all(pace.left(left));
                if round % 2 == 0 {
                    of_round.reverse();
                }
                second.extend(of_round.pop().map(|sample| sample.cpu));
                first.extend(of_round.last().map(|sample| sample.cpu));
                samples.append(&mut of_round);
            }
            let center = if pairs.handicap > 0.0 { 1.0 + pairs.handicap } else { 1.0 };
            let off = |(first, second): (&f64, &f64)| (second / first / center - 1.0).abs();
            differences.extend(first.iter().zip(&second).map(off));
            found.pairs.extend(rule.ratio(&second, &first));
        }
        Ok(())
    }

    /// One round of these; a sample of each.
    fn samples(&mut self, targets: &[Target], step: &str) -> Result<Vec<Sample>> {
        let reports = round::round(targets, self.workload, self.settings, self.progress, step)?;
        let sample = |(target, report): (&Target, Result<Report>)| {
            let report = report?;
            let cost = |m: &Measured| m.cost.as_ref().map(|cost| cost.cpu_ns_per_message);
            let measured = report.measured.as_ref();
            let known = measured.and_then(|m| Some((m, cost(m)?)));
            let (measured, cpu) = known.with_context(|| {
                let reasons = report.verdict.reasons.join("; ");
                format!("{} gave no number: {reasons}", target.name)
            })?;
            let (rate, generator) =
                (measured.messages_per_second, measured.generator_cpu_ns_per_message);
            Ok(Sample { rate, cpu, generator })
        };
        targets.iter().zip(reports).map(sample).collect()
    }
}
