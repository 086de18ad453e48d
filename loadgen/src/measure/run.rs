//! One run from its beginning to its end.

use anyhow::Result;

use super::lane::Lane;
use super::{Progress, Report, Settings};
use crate::target::Target;
use crate::workload::Workload;

/// Starts a target (built already), drives it through one workload, and stops it. Ctrl-C in the
/// measured window ends that window; before it, the run fails with
/// [`Interrupted`](crate::base::exit::Interrupted).
pub fn run(
    target: &Target,
    workload: &Workload,
    settings: &Settings,
    progress: &mut Progress,
) -> Result<Report> {
    let lasts = workload.lasts();
    progress.expect(lasts + target.warmup.saturating_sub(workload.warmup));
    let mut lane = Lane::open(target, workload, settings, progress)?;
    progress.expect(lasts.saturating_sub(workload.warmup));
    lane.whole(workload.duration, progress)?;
    if let Some(profile) = &settings.profile {
        progress.expect(workload.duration);
        lane.profile(profile, progress)?;
    }
    lane.close()
}
