//! Documents as JSON.

use anyhow::Result;

use crate::results::Document;

/// A document, indented for people.
pub fn json(document: &Document) -> Result<String> {
    Ok(serde_json::to_string_pretty(document)? + "\n")
}
