//! Pages for the files of the project that are no chapters, and that a chapter links to.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use maud::{DOCTYPE, PreEscaped, html};

use crate::project;

/// The folder of these pages in the book.
const FOLDER: &str = "source";

/// Files larger than this are named, and not shown.
const MOST_SHOWN: u64 = 256 * 1024;

const STYLE: &str = include_str!("../style/source.css");

/// Where the page of a file or folder of the project is, from the book's own folder.
#[must_use]
pub fn page(path: &str) -> String {
    if project::root().join(path).is_dir() {
        format!("{FOLDER}/{path}/index.html")
    } else {
        format!("{FOLDER}/{}.html", in_page(path))
    }
}

/// mdBook takes whatever has `.md` in it for a link to a chapter.
fn in_page(name: &str) -> String {
    name.replace(".md", "-md")
}

/// Writes the page of each path; that of a folder brings those of the files in it.
///
/// # Errors
///
/// When a file cannot be read or written.
pub fn write(out: &Path, paths: &BTreeSet<String>) -> Result<()> {
    for path in paths {
        if !project::root().join(path).is_dir() {
            write_file(out, path)?;
            continue;
        }
        let files = listing(path)?;
        for (name, _) in files.iter().filter(|(_, shown)| *shown) {
            write_file(out, &format!("{path}/{name}"))?;
        }
        write_page(out, path, &list(&files))?;
    }
    Ok(())
}

/// The files in a folder, and whether they are shown.
fn listing(path: &str) -> Result<Vec<(String, bool)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(project::root().join(path))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let size = entry.metadata()?;
        let shown = size.is_file() && size.len() <= MOST_SHOWN && !name.ends_with(".gz");
        files.push((name, shown));
    }
    files.sort();
    Ok(files)
}

fn list(files: &[(String, bool)]) -> String {
    html! {
        ul {
            @for (name, shown) in files {
                li {
                    @if *shown { a href=(format!("{}.html", in_page(name))) { (name) } }
                    @else { (name) }
                }
            }
        }
    }
    .into_string()
}

fn write_file(out: &Path, path: &str) -> Result<()> {
    let text = project::read(path)?;
    let lines = html! {
        pre tabindex="0" {
            @for (at, line) in text.lines().enumerate() {
                span id=(anchor(path, at, line)) data-line=(at + 1) { (line) } "\n"
            }
        }
    };
    write_page(out, path, &lines.into_string())
}

/// What a link to a line names: its heading in a document, its number otherwise.
fn anchor(path: &str, at: usize, line: &str) -> String {
    let heading = line.trim_start_matches('#');
    if !path.ends_with(".md") || heading.len() == line.len() {
        return format!("L{}", at + 1);
    }
    let letters = heading.trim().chars().map(|c| if c == ' ' { '-' } else { c });
    letters.filter(|c| c.is_alphanumeric() || *c == '-').collect::<String>().to_lowercase()
}

fn write_page(out: &Path, path: &str, content: &str) -> Result<()> {
    let page = PathBuf::from(page(path));
    let home = "../".repeat(page.components().count() - 1) + "index.html";
    let text = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (path) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header { a href=(home) { "The book" } }
                main { h1 { (path) } (PreEscaped(content)) }
            }
        }
    };
    let file = out.join(page);
    let folder = file.parent().context("a page has a folder")?;
    fs::create_dir_all(folder)?;
    fs::write(&file, text.into_string()).with_context(|| file.display().to_string())
}
