//! Runs mdBook's library over the chapters, and adds the pages that are not chapters.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::rc::Rc;

use anyhow::Result;
use mdbook_driver::MDBook;
use mdbook_driver::config::Config;

use crate::chapters::Chapters;
use crate::{project, side, sources};

/// Folders of `docs/` that mdBook copies, and that are no part of the book: the pages of sources
/// show what chapters link to.
const NOT_SHOWN: [&str; 3] = ["record", "schema", "book/calls"];

/// Builds all pages into `out`.
///
/// # Errors
///
/// When a chapter has a macro that does not work, or a file cannot be read or written.
pub fn build(out: &Path) -> Result<()> {
    let linked = Rc::new(RefCell::new(BTreeSet::new()));
    let mut book = MDBook::load_with_config(project::root(), config(out)?)?;
    book.with_preprocessor(Chapters::new(Rc::clone(&linked)));
    book.build()?;
    for folder in NOT_SHOWN {
        let folder = out.join(folder);
        if folder.is_dir() {
            fs::remove_dir_all(folder)?;
        }
    }
    fs::write(out.join(side::PAGE), side::page()?)?;
    sources::write(out, &linked.borrow())
}

fn config(out: &Path) -> Result<Config> {
    let mut config = Config::default();
    config.book.title = Some("I/O models, side by side".to_owned());
    config.book.description =
        Some("How a server waits: every I/O model of Linux as one small server".to_owned());
    config.book.language = Some("en".to_owned());
    config.book.src = "docs".into();
    config.build.build_dir = out.to_owned();
    config.build.create_missing = false;
    // The chapters have macros of their own, and no file of mdBook's is included in them.
    config.build.use_default_preprocessors = false;
    config.set("output.html.default-theme", "light")?;
    config.set("output.html.preferred-dark-theme", "navy")?;
    config.set("output.html.additional-css", ["book/style/book.css"])?;
    config.set("output.html.additional-js", ["book/style/book.js"])?;
    config.set("output.html.no-section-label", false)?;
    config.set("output.html.hash-files", false)?;
    config.set("output.html.input-404", "")?;
    config.set("output.html.playground.copyable", true)?;
    config.set("output.html.playground.runnable", false)?;
    Ok(config)
}
