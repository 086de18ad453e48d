//! `loadgen soak`: servers under changing load for a long time.

use std::process::ExitCode;

use anyhow::Result;

use super::cli;
use super::publish::{PAGE, publish};
use super::setup::{begin, settings};
use crate::base::exit::{AfterResult, INTERRUPTED, asked};
use crate::base::output::say;
use crate::compare::soak::SoakCourse;
use crate::measure::Progress;
use crate::record::{Record, default_folder};
use crate::results::{Body, Document, Host, Soaked};
use crate::show;
use crate::target::{Models, Target};

/// `loadgen soak`.
pub(super) fn soak(args: &cli::Soak) -> Result<ExitCode> {
    let models = asked(args.common.models_file.load())?;
    let targets = asked(targets(args, &models))?;
    let (pinning, settings) = asked(settings(&args.common, &args.driving))?;
    let host = Host::look();
    let folder = args.out.clone().unwrap_or_else(|| default_folder("soak"));
    let mut record = asked(Record::create(&folder, &host))?;
    let mut progress = Progress::start();
    let mut built = Vec::new();
    for target in &targets {
        progress.step(format!("building {}", target.name));
        built.push(models.build(target, &settings.interrupted)?);
    }
    begin(&pinning, &settings, &progress)?;
    let course = SoakCourse { settings: &settings, progress: &mut progress, record: &mut record };
    let (soaked, interrupted) = course.all(&built, args.time)?;
    drop(progress);
    let text = show::soaked(&soaked);
    record.attempt(|dir| show::soak_page(&host, &soaked, &dir.join(PAGE)));
    let sound = soaked.iter().all(Soaked::is_sound);
    let document = Document::new(Body::Soak { host: host.into(), interrupted, soaked });
    record.result(&document);
    record.table(&text);
    publish(&document, &text, args.common.json)?;
    let dir = record.close().map_err(AfterResult)?;
    say(&format!("record: {}\nreport: {}", dir.display(), dir.join(PAGE).display()));
    Ok(match (interrupted, sound) {
        (true, _) => ExitCode::from(INTERRUPTED),
        (false, true) => ExitCode::SUCCESS,
        (false, false) => ExitCode::FAILURE,
    })
}

/// Those that were named, or all servers of this workspace: not the peers, which may be missing.
fn targets(args: &cli::Soak, models: &Models) -> Result<Vec<Target>> {
    if !args.models.is_empty() {
        return args.models.iter().map(|name| models.find(name)).collect();
    }
    let packages = models.entries().filter(|(_, entry)| entry.package.is_some());
    packages.map(|(name, _)| models.find(name)).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn without_names_it_is_every_server_and_no_peer() {
        let models = Models::load(None).unwrap();
        let parsed = cli::Cli::try_parse_from(["loadgen", "soak"]).unwrap();
        let cli::Command::Soak(args) = parsed.command else { panic!("another command") };
        let found = targets(&args, &models).unwrap();
        let names: Vec<&str> = found.iter().map(|target| target.name.as_str()).collect();
        for server in ["iterative", "epoll-level", "uring", "tokio-per-core"] {
            assert!(names.contains(&server), "{names:?}");
        }
        assert!(!names.contains(&"asyncio") && !names.contains(&"asio"), "{names:?}");
    }
}
