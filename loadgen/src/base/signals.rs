//! Signals as they were inherited, set to what this program and its servers need.
//!
//! A process inherits which signals are ignored and which are blocked. With SIGCHLD ignored nothing
//! can be learned of the end of a child, and a server that inherits SIGTERM as ignored or blocked
//! does not end when it is asked to. The mask can be set directly. To set a signal back to its
//! default takes unsafe code, but to catch it does not; and what is caught has its default again
//! in the program that a process becomes, be it the same one.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nix::sys::signal::SigSet;
use procfs::process::Process;
use signal_hook::consts::{
    SIGCHLD, SIGFPE, SIGHUP, SIGILL, SIGINT, SIGKILL, SIGSEGV, SIGSTOP, SIGTERM,
};

use super::exit;

/// This program's own file, also when another one has its name by now.
pub(crate) const OWN: &str = "/proc/self/exe";
/// The highest number of a signal.
const LAST: i32 = 64;
/// Signals that stay as they are: SIGHUP is ignored where `nohup` was asked for, the others cannot
/// be ignored, or not where a program's own fault raises them.
const KEPT: [i32; 6] = [SIGHUP, SIGKILL, SIGSTOP, SIGILL, SIGFPE, SIGSEGV];

/// At the start of this program, before it has threads: no signal is blocked, and children can be
/// waited for. Where SIGCHLD is ignored the program begins once more, with the default: a handler
/// would interrupt it whenever a server stops.
pub fn prepare() {
    let _ = SigSet::empty().thread_set_mask();
    if heed(SIGCHLD..=SIGCHLD) {
        let mut args = std::env::args_os();
        let mut again = Command::new(OWN);
        again.arg0(args.next().unwrap_or_else(|| OWN.into())).args(args);
        // If that fails the handler does: children can be waited for.
        let _ = again.exec();
    }
}

/// A flag that SIGINT (Ctrl-C) and SIGTERM set. The second of them ends this process at once; the
/// servers' wrapper sees to it that they follow.
pub(crate) fn interruption() -> std::io::Result<Arc<AtomicBool>> {
    let code = i32::from(exit::INTERRUPTED);
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, code, interrupted.clone())?;
        signal_hook::flag::register(signal, interrupted.clone())?;
    }
    Ok(interrupted)
}

/// Before this process becomes a server: no signal is blocked or ignored, but for those that
/// stay as they are.
pub(crate) fn prepare_server() {
    let _ = SigSet::empty().thread_set_mask();
    let _ = heed(1..=LAST);
}

/// Catches those of the signals that are ignored, and says whether there were any.
fn heed(signals: impl Iterator<Item = i32>) -> bool {
    let status = Process::myself().and_then(|own| own.status());
    // One bit for each signal, from number 1 on. Without /proc it is not known; nor can a server be
    // started then.
    let ignored = status.map_or(0, |status| status.sigign);
    let mut caught = false;
    for signal in signals {
        if ignored & 1 << (signal - 1) != 0 && !KEPT.contains(&signal) {
            // It fails for the two that the C library keeps to itself.
            let flag = Arc::new(AtomicBool::new(false));
            caught |= signal_hook::flag::register(signal, flag).is_ok();
        }
    }
    caught
}
