//! The commands that `--help` does not name: what this program starts itself as.

use std::process::ExitCode;

use anyhow::{Result, anyhow};

use super::cli::{Exec, NullClient, NullServer};
use crate::target::{null, synthetic, wrapper};

/// `loadgen null-server`.
pub(super) fn null_server(args: &NullServer) -> Result<ExitCode> {
    match args.synthetic() {
        Some(plan) => synthetic::serve(plan)?,
        None => null::serve(args.listen, args.work)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// `loadgen null-client`.
pub(super) fn null_client(args: &NullClient) -> Result<ExitCode> {
    null::drive(args.addr, args.connections, args.size as usize, args.duration)?;
    Ok(ExitCode::SUCCESS)
}

/// The hidden wrapper that servers are started through. Returns only what went wrong.
pub(super) fn exec(args: &Exec) -> anyhow::Error {
    let cpus: Result<Vec<usize>, _> =
        args.cpus.split(',').filter(|cpu| !cpu.is_empty()).map(str::parse).collect();
    match cpus {
        Ok(cpus) => wrapper::exec(&cpus, args.parent, args.signal, &args.command),
        Err(e) => anyhow!("--cpus {:?}: {e}", args.cpus),
    }
}
