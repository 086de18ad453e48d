//! What commands do before anything is measured.

use anyhow::{Result, bail};

use super::cli::{Common, Driving, Which};
use crate::base::limits::raise_descriptor_limit;
use crate::base::signals;
use crate::measure::speed::Speed;
use crate::measure::{Progress, Settings};
use crate::target::cpus::{self, Pinning, pin};
use crate::target::{Models, Target};

/// The one server that the flags name.
pub(super) fn target(which: &Which, models: &Models, pid: Option<i32>) -> Result<Target> {
    match (&which.addr, &which.model, &which.cmd) {
        (Some(addr), _, _) => Target::running(addr, pid),
        (_, Some(name), _) => models.find(name),
        (_, _, Some(command)) => Target::command(command),
        _ => bail!("name a server: --addr, --model or --cmd"),
    }
}

/// Where all threads run, what all runs share, and the flag that Ctrl-C sets.
pub(super) fn settings(common: &Common, driving: &Driving) -> Result<(Pinning, Settings)> {
    let pinning =
        cpus::plan(common.workers, driving.threads, &common.server_cpus, &driving.generator_cpus)?;
    let settings = settings_at(common, driving, &pinning)?;
    Ok((pinning, settings))
}

/// The same where all threads run on other machines: nothing is pinned here.
pub(super) fn settings_elsewhere(common: &Common, driving: &Driving) -> Result<Settings> {
    if !driving.generator_cpus.is_empty() {
        bail!("--generator-cpus belongs to the agents: loadgen agent --generator-cpus");
    }
    settings_at(common, driving, &Pinning::default())
}

fn settings_at(common: &Common, driving: &Driving, pinning: &Pinning) -> Result<Settings> {
    Ok(Settings {
        seed: driving.seed,
        threads: driving.threads,
        workers: common.workers,
        server_cpus: pinning.server.clone(),
        generator_cpus: pinning.generator.clone(),
        stall: driving.stall_timeout,
        password: common.password()?,
        profile: None,
        interrupted: signals::interruption()?,
        speed: Speed::default(),
        unpinned: pinning.denied.clone(),
        meeting: None,
    })
}

/// What is the last to do before servers are started.
pub(super) fn begin(pinning: &Pinning, settings: &Settings, progress: &Progress) -> Result<()> {
    if let Some(note) = &pinning.note {
        progress.note(&format!("note: {note}"));
    }
    raise_descriptor_limit();
    if !pinning.generator.is_empty() {
        pin(&pinning.generator)?;
    }
    Ok(settings.speed.watch()?)
}
