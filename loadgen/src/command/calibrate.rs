//! `loadgen calibrate`: this machine's ceiling and noise floor, and whether verdicts can be
//! trusted here.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};

use super::cli;
use super::publish::publish;
use super::setup::{begin, settings};
use crate::base::exit::{INTERRUPTED, asked};
use crate::compare::calibrate::{Bench, Pairs};
use crate::measure::Progress;
use crate::results::{Body, Document, FEWEST_ROUNDS, Host};
use crate::show;
use crate::target::Target;
use crate::workload::{Mode, Workload};

/// `loadgen calibrate`.
pub(super) fn calibrate(args: &cli::Calibrate) -> Result<ExitCode> {
    let models = asked(args.common.models_file.load())?;
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
    let pairs = Pairs { pairs: args.pairs, rounds: args.rounds, handicap: args.handicap };
    let mut bench = Bench { workload: &workload, settings: &settings, progress: &mut progress };
    let calibration = bench.calibrate(&target, &pairs)?;
    drop(progress);
    let (text, interrupted) = (show::calibration(&calibration, &workload), calibration.interrupted);
    let body = Body::Calibration { host: host.into(), calibration: calibration.into() };
    publish(&Document::new(body), &text, args.common.json)?;
    Ok(if interrupted { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS })
}

fn workload(args: &cli::Calibrate) -> Result<Workload> {
    let (duration, warmup) = (Duration::from_millis(250), Duration::from_millis(60));
    let workload = Workload::find(&args.workload, &args.changes, duration, warmup)?;
    if workload.mode != Mode::Echo || workload.disturbance.is_some() {
        bail!("calibrate needs an echo workload without a disturbance: the null reference is echo");
    }
    if (args.rounds as usize) < FEWEST_ROUNDS {
        bail!("--rounds {} shows nothing: {FEWEST_ROUNDS} is the fewest", args.rounds);
    }
    Ok(workload)
}
