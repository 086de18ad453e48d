//! `report`: what a record says, in the form that is asked for. It measures nothing.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, anyhow, bail, ensure};

use super::cli;
use super::publish::{keep, print_json, publish};
use crate::base::exit::asked;
use crate::base::output::{self, say};
use crate::measure::Report;
use crate::record::{Record, Stored, is_record};
use crate::results::{Body, Document, FEWEST_ROUNDS, Host, merged};
use crate::{compare, show};

/// `loadgen report`.
pub(super) fn report(args: &cli::Report) -> Result<ExitCode> {
    asked(all_are_records(&args.dirs))?;
    let mut records: Vec<Stored> =
        asked(args.dirs.iter().map(|dir| Stored::read(dir)).collect::<Result<_>>())?;
    asked(can_be_shown(args, &records))?;
    if let Some(out) = &args.out {
        asked(merge(&records, out))?;
        records = vec![Stored::read(out)?];
    }
    if let Some(old) = &args.against {
        return against(&records, old, args.json);
    }
    if let Some(dir) = &args.picture {
        return pictures(&records, dir);
    }
    if let Some(file) = &args.html {
        show::html(&records, file)?;
        say(&format!("report: {}", file.display()));
    } else if args.csv {
        output::print(&show::csv(&records)?)?;
    } else if args.hlog {
        output::print(&show::hlog(&records)?)?;
    } else {
        for record in &records {
            print(record, args.json)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `--picture`: draws one record.
fn pictures(records: &[Stored], dir: &Path) -> Result<ExitCode> {
    let [record] = records else {
        return asked(Err(anyhow!("--picture draws one record: name one")));
    };
    for name in asked(show::pictures(record, dir))? {
        say(&format!("picture: {}", dir.join(name).display()));
    }
    Ok(ExitCode::SUCCESS)
}

/// Names all folders at once that have nothing to report.
fn all_are_records(dirs: &[PathBuf]) -> Result<()> {
    let empty = dirs.iter().filter(|dir| !is_record(dir));
    let empty: Vec<String> = empty.map(|dir| dir.display().to_string()).collect();
    ensure!(
        empty.is_empty(),
        "no runs to report, neither runs.jsonl nor runs.jsonl.gz, are in {}; name only folders that \
         loadgen has written",
        empty.join(", ")
    );
    Ok(())
}

/// The records of soak and claims have a table and no runs.
fn can_be_shown(args: &cli::Report, records: &[Stored]) -> Result<()> {
    let by_runs = [&args.out, &args.against, &args.picture, &args.html].iter().any(|o| o.is_some());
    let bare = records.iter().find(|record| record.table.is_some());
    if let Some(record) = bare.filter(|_| by_runs || args.csv || args.hlog) {
        let dir = record.dir.display();
        bail!("{dir} holds a table and no runs: it can be printed as it is, and with --json");
    }
    Ok(())
}

/// `--against`: what changed since an older record.
fn against(records: &[Stored], old: &Path, json: bool) -> Result<ExitCode> {
    let [new] = records else {
        return asked(Err(anyhow!("--against compares one record with an older one: name one")));
    };
    let against = asked(Stored::read(old).and_then(|old| compare::against::against(new, &old)))?;
    let code = match () {
        () if against.regressed() => ExitCode::FAILURE,
        // Two records that cannot answer are wrong use, like two that cannot be compared.
        () if !against.judged() => ExitCode::from(2),
        () => ExitCode::SUCCESS,
    };
    let (text, judged) = (show::against(&against), against.judged());
    publish(&Document::new(Body::Against { against: Box::new(against) }), &text, json)?;
    if !judged {
        say(&format!(
            "loadgen: nothing could be judged: it takes the same echo workload beside the null \
             reference in both records, and --rounds {FEWEST_ROUNDS} or more"
        ));
    }
    Ok(code)
}

fn print(record: &Stored, json: bool) -> Result<()> {
    if let Some(table) = &record.table {
        return if json { output::print(&record.result()?) } else { output::print(table) };
    }
    if record.runs.is_empty() && record.comparison.is_none() {
        say(&format!("note: {} holds no run that was finished", record.dir.display()));
    }
    let host = Box::new(record.host.clone());
    if let Some(comparison) = &record.comparison {
        if !json {
            return output::print(&show::comparison(comparison));
        }
        let comparison = Box::new(comparison.clone());
        return print_json(&Document::new(Body::Comparison { host, comparison }));
    }
    for (_, run) in &record.runs {
        if json {
            let run = Box::new(run.clone());
            print_json(&Document::new(Body::Run { host: host.clone(), run }))?;
        } else {
            output::print(&show::run(run))?;
        }
    }
    Ok(())
}

/// Merges records of single runs into a new record in `out`.
fn merge(records: &[Stored], out: &Path) -> Result<()> {
    let runs = records.iter().map(single).collect::<Result<Vec<_>>>()?;
    let merged = merged(&runs)?;
    let host = Host { merged: records.iter().map(|r| r.host.clone()).collect(), ..Host::look() };
    let mut record = Record::create(out, &host)?;
    record.run(0, &merged);
    let (host, run) = (Box::new(host), Box::new(merged));
    keep(record, &Document::new(Body::Run { host, run }))
}

/// The one run of a record.
fn single(record: &Stored) -> Result<&Report> {
    match &record.runs[..] {
        [(_, run)] if record.comparison.is_none() => Ok(run),
        _ => bail!(
            "{} is not the record of a single run (loadgen run --out DIR), and only those can be \
             merged: the rounds of two comparisons do not run at the same time",
            record.dir.display()
        ),
    }
}
