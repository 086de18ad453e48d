//! What a command leaves: its result on standard output, and its record.

use anyhow::Result;

use crate::base::exit::AfterResult;
use crate::base::output::{self, say};
use crate::record::{Record, Stored};
use crate::results::Document;
use crate::show;

/// The page of a record, beside its other files.
pub(super) const PAGE: &str = "report.html";

/// A result on standard output, for programs.
pub fn print_json(document: &Document) -> Result<()> {
    output::print(&show::json(document)?)
}

/// A result on standard output, for programs or for people.
pub(super) fn publish(document: &Document, text: &str, json: bool) -> Result<()> {
    if json { print_json(document) } else { output::print(text) }
}

/// The same, and the end of the record, which is kept whether the result can be printed or not.
pub(super) fn finish(
    document: &Document,
    text: &str,
    json: bool,
    record: Option<Record>,
) -> Result<()> {
    let published = publish(document, text, json);
    if let Some(record) = record {
        keep(record, document).map_err(AfterResult)?;
    }
    published
}

/// Ends a record with its result and its page, and says where they are.
pub(super) fn keep(mut record: Record, document: &Document) -> Result<()> {
    record.result(document);
    record.attempt(|dir| show::html(&[Stored::read(dir)?], &dir.join(PAGE)));
    let dir = record.close()?;
    say(&format!("record: {}\nreport: {}", dir.display(), dir.join(PAGE).display()));
    Ok(())
}
