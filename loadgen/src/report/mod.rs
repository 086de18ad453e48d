//! `report`: what a record says, in the form that is asked for. It measures nothing.

mod chart;
mod csv;
pub(crate) mod html;
mod merge;

use std::process::ExitCode;

use anyhow::Result;

use crate::cli;
use crate::command::asked;
use crate::record::Stored;
use crate::schema::{Body, Document};
use crate::table;

/// `loadgen report`.
pub fn command(args: &cli::Report) -> Result<ExitCode> {
    let mut records: Vec<Stored> =
        asked(args.dirs.iter().map(|dir| Stored::read(dir)).collect::<Result<_>>())?;
    if let Some(out) = &args.out {
        asked(merge::merge(&records, out))?;
        records = vec![Stored::read(out)?];
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
