//! Building the servers of the workspace.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::{How, Models, Target, bare_name};
use crate::base::exit::Interrupted;

/// How often it is looked whether a build was interrupted.
const LOOK: Duration = Duration::from_millis(100);

impl Models {
    /// Builds what a target needs, one package at a time, so that one crate's features do not
    /// change another's dependencies. Returns the target with its program's path. Fails with
    /// [`Interrupted`] once `interrupted` is set.
    pub fn build(&self, target: &Target, interrupted: &AtomicBool) -> Result<Target> {
        let how = match &target.how {
            How::Package(package, args) => {
                let program = self.executable(package, package, &[], interrupted)?;
                How::Program(program, args.clone())
            }
            How::Bare(package) => {
                let name = bare_name(package);
                let example = ["--example", &name];
                How::Plain(self.executable(package, &name, &example, interrupted)?)
            }
            other => other.clone(),
        };
        Ok(Target { how, ..target.clone() })
    }

    /// Builds the program `name` of a package, which further flags may select.
    fn executable(
        &self,
        package: &str,
        name: &str,
        flags: &[&str],
        interrupted: &AtomicBool,
    ) -> Result<PathBuf> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command
            .args(["build", "--release", "--quiet", "--message-format=json", "-p", package])
            .args(flags)
            .current_dir(&self.workspace);
        let output = finish(&mut command, interrupted)?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            let why = text.lines().find(|line| line.starts_with("error")).unwrap_or("see cargo");
            let words = [&["cargo build --release -p", package], flags].concat().join(" ");
            bail!("{name} does not build ({why}); try: {words}");
        }
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter(|message| message["target"]["name"] == name)
            .find_map(|message| message["executable"].as_str().map(PathBuf::from))
            .with_context(|| format!("{package} has no program {name}"))
    }
}

/// Runs cargo to its end, or until it is interrupted, which must not pass for a failed build.
fn finish(cargo: &mut Command, interrupted: &AtomicBool) -> Result<Output> {
    let child = cargo
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run cargo, which builds the servers; is Rust installed?")?;
    let pid = Pid::from_child(&child);
    let (sender, ended) = channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    loop {
        let output = ended.recv_timeout(LOOK);
        if interrupted.load(Relaxed) {
            if output.is_err() {
                let _ = kill_process(pid, Signal::TERM);
                let _ = ended.recv();
            }
            return Err(Interrupted.into());
        }
        match output {
            Ok(output) => return Ok(output?),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => bail!("cargo was lost sight of"),
        }
    }
}
