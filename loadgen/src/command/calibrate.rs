//! `loadgen calibrate`: this machine's ceiling and noise floor, and whether verdicts can be
//! trusted here. The same server is driven against itself, or against itself with a handicap, in
//! many small comparisons whose right outcome is known.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use schemars::JsonSchema;
use serde::Serialize;

use super::{asked, begin, publish, settings};
use crate::cli;
use crate::compare::text;
use crate::host::Host;
use crate::models::{How, Models, Target};
use crate::progress::Progress;
use crate::round;
use crate::run::{Interrupted, Measured, Report, Settings};
use crate::schema::{Body, Document};
use crate::stats::{FEWEST_ROUNDS, Ratio, SignedRank, Spread};
use crate::table;
use crate::workload::Workload;

/// Runs before the first pair: they say what a message costs, of which the handicap is a part.
const FIRST: usize = 5;

/// What came out.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct Calibration {
    /// The server.
    pub server: String,
    /// Part of its CPU per message that the second of each pair burns in addition; 0: none.
    pub handicap: f64,
    /// Rounds of each pair.
    pub rounds: u32,
    /// Second to first, of each pair.
    pub pairs: Vec<Ratio>,
    /// Pairs called different: the second slower.
    pub slower: usize,
    /// Pairs called different: the second faster.
    pub faster: usize,
    /// Messages for each second of the server as it is: with the null reference, the ceiling.
    pub rate: Option<Spread>,
    /// Its processor time for each message in nanoseconds.
    pub cpu_ns: Option<Spread>,
    /// The generator's processor time for each message in nanoseconds.
    pub generator_ns: Option<Spread>,
    /// The median part by which the two of a pair differ in a single round.
    pub noise: f64,
    /// Whether Ctrl-C ended it early.
    pub interrupted: bool,
}

/// The numbers of one run.
struct Sample {
    rate: f64,
    cpu: f64,
    generator: f64,
}

/// `loadgen calibrate`.
pub fn calibrate(args: &cli::Calibrate) -> Result<ExitCode> {
    let models = asked(Models::load(args.common.models_file.as_deref()))?;
    let target = match &args.model {
        Some(name) => asked(models.find(name))?,
        None => Target::null(),
    };
    let workload = asked(workload(args))?;
    let (pinning, settings) = asked(settings(&args.common, &args.driving))?;
    let host = Host::look();
    let mut progress = Progress::start();
    let target = models.build(&target, &settings.interrupted)?;
    begin(&pinning, &settings, &progress)?;
    let mut bench = Bench { workload: &workload, settings: &settings, progress: &mut progress };
    let calibration = bench.calibrate(&target, args)?;
    drop(progress);
    let (text, interrupted) = (calibration.text(&workload), calibration.interrupted);
    let body = Body::Calibration { host: host.into(), calibration: calibration.into() };
    publish(&Document::new(body), &text, args.common.json)?;
    Ok(if interrupted { ExitCode::from(130) } else { ExitCode::SUCCESS })
}

fn workload(args: &cli::Calibrate) -> Result<Workload> {
    let (duration, warmup) = (Duration::from_millis(250), Duration::from_millis(60));
    let workload = Workload::find("ping-pong", &args.changes, duration, warmup)?;
    if (args.rounds as usize) < FEWEST_ROUNDS {
        bail!("--rounds {} shows nothing: {FEWEST_ROUNDS} is the fewest", args.rounds);
    }
    Ok(workload)
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
struct Bench<'a> {
    workload: &'a Workload,
    settings: &'a Settings,
    progress: &'a mut Progress,
}

impl Bench<'_> {
    fn calibrate(&mut self, target: &Target, args: &cli::Calibrate) -> Result<Calibration> {
        if args.handicap > 0.0 && !matches!(target.how, How::Null(_) | How::Program(..)) {
            bail!("--handicap needs a server that takes --work: one of this workspace's packages");
        }
        let mut found = Calibration {
            server: target.name.clone(),
            handicap: args.handicap,
            rounds: args.rounds,
            ..Calibration::default()
        };
        let mut samples = Vec::new();
        let mut differences = Vec::new();
        match self.pairs(target, args, &mut found, &mut samples, &mut differences) {
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
        args: &cli::Calibrate,
        found: &mut Calibration,
        samples: &mut Vec<Sample>,
        differences: &mut Vec<f64>,
    ) -> Result<()> {
        let mut other = target.again();
        if args.handicap > 0.0 {
            for n in 1..=FIRST {
                let step = format!("first look, {n} of {FIRST}");
                samples.append(&mut self.samples(std::slice::from_ref(target), &step)?);
            }
            let costs: Vec<f64> = samples.iter().map(|sample| sample.cpu).collect();
            let cost = Spread::of(&costs).map_or(0.0, |s| s.median);
            other = handicapped(target, Duration::from_nanos((cost * args.handicap) as u64));
        }
        let rule = SignedRank::of(args.rounds as usize);
        for pair in 1..=args.pairs {
            let (mut first, mut second) = (Vec::new(), Vec::new());
            for round in 1..=args.rounds {
                let step = format!("pair {pair} of {}, round {round}", args.pairs);
                // Mirrored, as in a comparison.
                let mut both = [target.clone(), other.clone()];
                if round % 2 == 0 {
                    both.reverse();
                }
                let mut of_round = self.samples(&both, &step)?;
                if round % 2 == 0 {
                    of_round.reverse();
                }
                second.extend(of_round.pop().map(|sample| sample.cpu));
                first.extend(of_round.last().map(|sample| sample.cpu));
                samples.append(&mut of_round);
            }
            let center = if args.handicap > 0.0 { 1.0 + args.handicap } else { 1.0 };
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

impl Calibration {
    fn text(&self, workload: &Workload) -> String {
        let spread = |spread: Option<Spread>| {
            spread.map_or("-".into(), |s| {
                let [median, low, high] = [s.median, s.low, s.high].map(table::number);
                format!("{median} [{low} .. {high}]")
            })
        };
        let widths: Vec<f64> = self.pairs.iter().map(|r| (r.high / r.low).sqrt() - 1.0).collect();
        let ratios: Vec<f64> = self.pairs.iter().map(|ratio| ratio.ratio).collect();
        let (pairs, percent) = (self.pairs.len(), |part: f64| format!("{:.1} %", 100.0 * part));
        let verdict = match self.handicap > 0.0 {
            true => format!("{} of {pairs} shown to be slower", self.slower),
            false => format!(
                "{} of {pairs} called different, where none is and one in twenty may be",
                self.slower + self.faster
            ),
        };
        let median = |values: &[f64]| Spread::of(values).map_or(0.0, |s| s.median);
        let ceiling = match self.server == crate::models::NULL {
            true => "messages/s: the ceiling",
            false => "messages/s",
        };
        let mut rows = Vec::new();
        let mut row = |name: &str, value: String| rows.push(vec![name.to_owned(), value]);
        row("server", self.server.clone());
        row("workload", workload.point());
        row(ceiling, spread(self.rate));
        row("server CPU ns/message", spread(self.cpu_ns));
        row("generator CPU ns/message", spread(self.generator_ns));
        row("noise of one round", format!("{} (median)", percent(self.noise)));
        let floor = percent(median(&widths));
        row("noise floor", format!("± {floor} with {} rounds (median)", self.rounds));
        row("pairs", verdict);
        if self.handicap > 0.0 {
            row("handicap", format!("{} more CPU for each message", percent(self.handicap)));
            row("handicap found", format!("{:.3} times (median)", median(&ratios)));
        }
        for wrong in self.pairs.iter().filter(|r| r.shown() > 1.0 && self.handicap == 0.0) {
            row("called different", text(wrong));
        }
        table::draw(&["", ""], &rows, 2)
    }
}
