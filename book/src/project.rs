//! Where the files of the project are.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The models, in the order in which the book teaches them.
pub const MODELS: [&str; 18] = [
    "iterative",
    "threads",
    "prefork",
    "nonblocking",
    "select",
    "poll",
    "epoll-level",
    "epoll-edge",
    "sigio",
    "uring",
    "mio",
    "polling",
    "calloop",
    "may",
    "tokio",
    "smol",
    "async-std",
    "compio",
];

/// The folder of the workspace.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/")).to_owned()
}

/// The text of a file of the project.
///
/// # Errors
///
/// When it cannot be read, with its name.
pub fn read(path: &str) -> Result<String> {
    fs::read_to_string(root().join(path)).with_context(|| format!("{path} cannot be read"))
}

/// Where the model bare is.
#[must_use]
pub fn bare(model: &str) -> String {
    format!("crates/serve-{model}/examples/bare.rs")
}

/// The sources of the complete server: `main.rs`, and then the others by name.
///
/// # Errors
///
/// When its folder cannot be listed.
pub fn complete(model: &str) -> Result<Vec<String>> {
    let folder = format!("crates/serve-{model}/src");
    let mut files = Vec::new();
    for entry in fs::read_dir(root().join(&folder)).with_context(|| folder.clone())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".rs") {
            files.push(format!("{folder}/{name}"));
        }
    }
    files.sort_by_key(|file| (!file.ends_with("/main.rs"), file.clone()));
    Ok(files)
}

/// Where the captured system calls of a model are.
#[must_use]
pub fn calls(model: &str) -> String {
    format!("docs/book/calls/{model}.txt")
}
