//! `loadgen claims`: what is said about the models, tried on this machine.

use std::process::ExitCode;

use anyhow::Result;

use super::cli;
use super::publish::{PAGE, publish};
use super::setup::{begin, settings};
use crate::base::exit::{AfterResult, INTERRUPTED, asked};
use crate::base::output::say;
use crate::compare::Timing;
use crate::compare::claims::ClaimCourse;
use crate::measure::Progress;
use crate::record::{Record, default_folder};
use crate::results::{Body, Document, Host};
use crate::show;
use crate::target::cpus;
use crate::workload::Claim;

/// `loadgen claims`.
pub(super) fn claims(args: &cli::Claims) -> Result<ExitCode> {
    let models = asked(args.common.models_file.load())?;
    let mut claims = asked(Claim::find(&args.names))?;
    if args.quick {
        claims = claims.into_iter().map(Claim::quick).collect();
    }
    let (pinning, settings) = asked(settings(&args.common, &args.driving))?;
    let host = Host::look();
    let folder = args.out.clone().unwrap_or_else(|| default_folder("claims"));
    let mut record = asked(Record::create(&folder, &host))?;
    let mut progress = Progress::start();
    let workers = claims.iter().flat_map(|claim| &claim.experiments).map(|e| e.workers).max();
    let wide = cpus::plan(workers.unwrap_or(1), args.driving.threads, &[], &[])?;
    let timing = if args.quick { Timing::of_quick_claims() } else { Timing::of_claims() };
    let course = ClaimCourse::new(&models, (&settings, wide), timing, &mut progress, &mut record);
    let (tried, interrupted) =
        course.all(claims, |progress| begin(&pinning, &settings, progress))?;
    drop(progress);
    let text = show::claims(&tried);
    record.attempt(|dir| show::claims_page(&host, &tried, &dir.join(PAGE)));
    let document = Document::new(Body::Claims { host: host.into(), interrupted, claims: tried });
    record.result(&document);
    record.table(&text);
    publish(&document, &text, args.common.json)?;
    let dir = record.close().map_err(AfterResult)?;
    say(&format!("record: {}\nreport: {}", dir.display(), dir.join(PAGE).display()));
    Ok(if interrupted { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS })
}
