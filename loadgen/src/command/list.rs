//! `loadgen list`: the models and the workloads.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Result;

use super::cli::List;
use super::publish::print_json;
use crate::base::exit::asked;
use crate::base::output;
use crate::results::{Body, Document, Listed};
use crate::show::{self, table};
use crate::target::{Entry, Others};
use crate::workload::{self, Mode};

/// `loadgen list`.
pub(super) fn list(args: &List) -> Result<ExitCode> {
    let models = asked(args.models_file.load())?;
    if args.others {
        return others(&models.others, args.json);
    }
    let modes = |modes: &[Mode]| modes.iter().map(|m| m.name()).collect::<Vec<_>>().join(", ");
    if args.json {
        let listed = |(name, e): (&String, &Entry)| Listed {
            name: name.clone(),
            summary: e.summary.clone(),
            modes: e.modes.clone(),
            unsupported: e.unsupported.clone(),
            missing: models.missing(e),
            setup: e.setup.clone(),
            bare: models.bare(name).map(|bare| bare.name),
        };
        let workloads = workload::list()?;
        let models = models.entries().map(listed).collect();
        print_json(&Document::new(Body::List { models, workloads }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = models
        .entries()
        .map(|(name, e)| {
            let here = models.missing(e).map_or("yes".into(), |why| format!("no: {why}"));
            let unsupported = match e.unsupported.len() {
                0 => String::new(),
                n => n.to_string(),
            };
            let bare = models.bare(name).map_or("", |_| "yes").to_owned();
            vec![name.clone(), modes(&e.modes), e.summary.clone(), here, bare, unsupported]
        })
        .collect();
    let header = ["model", "speaks", "what it is", "runs here", "bare", "unsupported"];
    let mut text = table::draw(&header, &rows, header.len());
    let unsupported =
        "unsupported: so many cases of the suite; --json and models.toml say which, and why";
    text.push_str(&table::wrap(unsupported, "  "));
    let bare = "bare: bare-MODEL is the same model in a few lines; compare --bare enters it";
    text.push_str(&table::wrap(bare, "  "));
    let compared = |default| if default { "yes" } else { "by name" };
    let rows: Vec<_> = workload::list()?
        .into_iter()
        .map(|w| vec![w.name.to_owned(), w.summary, compared(w.default).to_owned()])
        .collect();
    text.push('\n');
    text.push_str(&table::draw(&["workload", "what it asks", "in compare"], &rows, 3));
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// `loadgen list --others`.
fn others(others: &Others, json: bool) -> Result<ExitCode> {
    let mut listed = Vec::new();
    for (name, other) in others.entries() {
        listed.push(Listed {
            name: name.clone(),
            summary: other.summary.clone(),
            modes: other.modes.clone(),
            unsupported: BTreeMap::new(),
            missing: other.missing(),
            setup: Some(other.setup.clone()),
            bare: None,
        });
    }
    if json {
        let workloads = workload::list()?;
        print_json(&Document::new(Body::List { models: listed, workloads }))?;
    } else {
        output::print(&show::others(&listed))?;
    }
    Ok(ExitCode::SUCCESS)
}
