//! `loadgen schema`: what `--json` prints.

use std::process::ExitCode;

use anyhow::Result;

use crate::base::output;
use crate::results;

/// `loadgen schema`.
pub(super) fn schema() -> Result<ExitCode> {
    output::print(&results::schema())?;
    Ok(ExitCode::SUCCESS)
}
