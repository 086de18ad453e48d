//! What this program does in the process that is to become a server, through its hidden command
//! `exec`.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal};

use super::cpus::pin;
use crate::base::signals;

/// Becomes `command`, on `cpus`, getting `signal` when `parent` ends. Returns only if that fails.
pub fn exec(cpus: &[usize], parent: u32, signal: i32, command: &[String]) -> anyhow::Error {
    let prepare = || -> Result<()> {
        let signal = Signal::from_named_raw(signal).context("--signal names no signal")?;
        rustix::process::set_parent_process_death_signal(Some(signal))?;
        // It may have ended before the kernel was asked to watch it.
        let now = rustix::process::getppid().map_or(0, Pid::as_raw_pid);
        if now != parent as i32 {
            bail!("the load generator has ended");
        }
        if !cpus.is_empty() {
            pin(cpus)?;
        }
        Ok(())
    };
    if let Err(e) = prepare() {
        return e;
    }
    signals::prepare_server();
    let error = Command::new(&command[0]).args(&command[1..]).exec();
    anyhow!("cannot run {}: {error}", command[0])
}
