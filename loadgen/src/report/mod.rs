//! `report`: what a record says, in the form that is asked for. It measures nothing.

pub(crate) mod against;
mod chart;
mod csv;
pub(crate) mod html;
mod merge;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, anyhow, ensure};

use self::against::Against;
use crate::cli;
use crate::command::{asked, publish};
use crate::record::{Stored, holds_runs};
use crate::schema::{Body, Document};
use crate::stats::FEWEST_ROUNDS;
use crate::table;

/// `loadgen report`.
pub fn command(args: &cli::Report) -> Result<ExitCode> {
    asked(all_hold_runs(&args.dirs))?;
    let mut records: Vec<Stored> =
        asked(args.dirs.iter().map(|dir| Stored::read(dir)).collect::<Result<_>>())?;
    if let Some(out) = &args.out {
        asked(merge::merge(&records, out))?;
        records = vec![Stored::read(out)?];
    }
    if let Some(old) = &args.against {
        return against(&records, old, args.json);
    }
    if let Some(file) = &args.html {
        html::write(&records, file)?;
        eprintln!("report: {}", file.display());
    } else if args.csv {
        table::print(&csv::render(&records)?)?;
    } else {
        for record in &records {
            print(record, args.json)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Names all folders at once that have nothing to report.
fn all_hold_runs(dirs: &[PathBuf]) -> Result<()> {
    let empty = dirs.iter().filter(|dir| !holds_runs(dir));
    let empty: Vec<String> = empty.map(|dir| dir.display().to_string()).collect();
    ensure!(
        empty.is_empty(),
        "no runs to report, neither runs.jsonl nor runs.jsonl.gz, are in {}; name only folders that \
         loadgen compare, run or report has written",
        empty.join(", ")
    );
    Ok(())
}

/// `--against`: what changed since an older record.
fn against(records: &[Stored], old: &Path, json: bool) -> Result<ExitCode> {
    let [new] = records else {
        return asked(Err(anyhow!("--against compares one record with an older one: name one")));
    };
    let against = asked(Stored::read(old).and_then(|old| Against::of(new, &old)))?;
    let code = match () {
        () if against.regressed() => ExitCode::FAILURE,
        // Two records that cannot answer are wrong use, like two that cannot be compared.
        () if !against.judged() => ExitCode::from(2),
        () => ExitCode::SUCCESS,
    };
    let (text, judged) = (against.text(), against.judged());
    publish(&Document::new(Body::Against { against: Box::new(against) }), &text, json)?;
    if !judged {
        eprintln!(
            "loadgen: nothing could be judged: it takes the same echo workload beside the null \
             reference in both records, and --rounds {FEWEST_ROUNDS} or more"
        );
    }
    Ok(code)
}

fn print(record: &Stored, json: bool) -> Result<()> {
    let host = Box::new(record.host.clone());
    if let Some(comparison) = &record.comparison {
        if !json {
            return table::print(&table::comparison(comparison));
        }
        let comparison = Box::new(comparison.clone());
        return Document::new(Body::Comparison { host, comparison }).print();
    }
    for (_, run) in &record.runs {
        if json {
            let run = Box::new(run.clone());
            Document::new(Body::Run { host: host.clone(), run }).print()?;
        } else {
            table::print(&table::report(run))?;
        }
    }
    Ok(())
}
