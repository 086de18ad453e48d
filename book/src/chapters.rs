//! Puts into chapters what their macros ask for, and mends links that lead out of the book.
//!
//! A macro stands in two braces. What it needs is read from the project when the book is built, so
//! that no chapter can differ from the servers and the records.
//!
//! | macro | what it becomes |
//! |---|---|
//! | `bare MODEL` | the source of the model bare |
//! | `picture MODEL` | who waits where, drawn |
//! | `calls MODEL` | the system calls of one ping-pong, as they were captured |
//! | `costs SERVER…` | a table of costs |
//! | `cpu SERVER WORKLOAD CONNECTIONS` | CPU per message, as a multiple of the best server's |
//! | `calls-each SERVER WORKLOAD CONNECTIONS` | system calls per message |
//! | `switches-each SERVER WORKLOAD CONNECTIONS` | context switches per message |
//! | `at-most ONE OTHER` | the ratio of their CPU where they are furthest apart |
//! | `idle SERVER` | the memory of an idle connection |
//! | `idle-held SERVER` | how many connections were held when that was measured |
//! | `given PATH NUMBER UNIT` | a number with a unit that stands in a source of the project |
//! | `side LEFT RIGHT MOMENT` | a link to these two, side by side |

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::sync::LazyLock;

use anyhow::{Context, Result, bail};
use mdbook_preprocessor::book::{Book, BookItem, Chapter};
use mdbook_preprocessor::errors::Result as BookResult;
use mdbook_preprocessor::{Preprocessor, PreprocessorContext};
use regex::{Captures, Regex};

use crate::record::{self, Record};
use crate::{picture, project, side, sources};

/// A name, and what follows it, in two braces.
pub(crate) static MACRO: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\{\{([a-z-]+)((?: [^}\n]+)?)\}\}").expect("a pattern"));

/// The target of a link.
static LINK: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\]\(([^)#\s]+)(#[^)\s]*)?\)").expect("a pattern"));

/// The preprocessor: it notes the files outside of the book that chapters link to.
pub struct Chapters {
    linked: Rc<RefCell<BTreeSet<String>>>,
}

impl Chapters {
    /// Files that need a page are added to `linked`.
    #[must_use]
    pub fn new(linked: Rc<RefCell<BTreeSet<String>>>) -> Chapters {
        Chapters { linked }
    }
}

impl Preprocessor for Chapters {
    fn name(&self) -> &'static str {
        "chapters"
    }

    fn run(&self, _: &PreprocessorContext, mut book: Book) -> BookResult<Book> {
        let record = Record::load()?;
        let chapters: BTreeSet<PathBuf> =
            book.chapters().filter_map(|chapter| chapter.path.clone()).collect();
        let mut failed = None;
        book.for_each_mut(|item| {
            if let BookItem::Chapter(chapter) = item
                && let Err(error) = self.finish(chapter, &record, &chapters)
            {
                failed.get_or_insert(error);
            }
        });
        match failed {
            Some(error) => Err(error),
            None => Ok(book),
        }
    }
}

impl Chapters {
    fn finish(
        &self,
        chapter: &mut Chapter,
        record: &Record,
        chapters: &BTreeSet<PathBuf>,
    ) -> Result<()> {
        let Some(path) = chapter.path.clone() else { return Ok(()) };
        let up = "../".repeat(path.components().count() - 1);
        // The links first: what a macro puts in is from the book's own folder already.
        let text = self.mend_links(&chapter.content, &path, &up, chapters)?;
        chapter.content =
            expand(&text, record, &up).with_context(|| format!("docs/{}", path.display()))?;
        Ok(())
    }

    /// Links to files that are no chapters lead to pages that show them.
    fn mend_links(
        &self,
        text: &str,
        chapter: &Path,
        up: &str,
        chapters: &BTreeSet<PathBuf>,
    ) -> Result<String> {
        replace(&LINK, text, |link| {
            let (target, part) = (&link[1], link.get(2).map_or("", |part| part.as_str()));
            if target.contains("://") || target.contains("{{") {
                return Ok(link[0].to_owned());
            }
            let folder = Path::new("docs").join(chapter.parent().unwrap_or(Path::new("")));
            let path = joined(&folder, target);
            let in_docs = path.strip_prefix("docs").ok().map(Path::to_owned);
            if in_docs.is_some_and(|path| chapters.contains(&path)) {
                return Ok(link[0].to_owned());
            }
            let path = path.to_string_lossy().into_owned();
            if !project::root().join(&path).exists() {
                bail!("docs/{}: there is no {path}", chapter.display());
            }
            let page = format!("]({up}{}{part})", sources::page(&path));
            self.linked.borrow_mut().insert(path);
            Ok(page)
        })
    }
}

fn joined(folder: &Path, target: &str) -> PathBuf {
    let mut path = PathBuf::new();
    for part in folder.join(target).components() {
        match part {
            Component::ParentDir => _ = path.pop(),
            Component::Normal(part) => path.push(part),
            _ => {}
        }
    }
    path
}

/// Replaces all macros of a chapter.
///
/// # Errors
///
/// When a macro has no meaning, or what it asks for is not there.
pub fn expand(text: &str, record: &Record, up: &str) -> Result<String> {
    replace(&MACRO, text, |found| {
        let words: Vec<&str> = found[2].split_whitespace().collect();
        value(&found[1], &words, record, up).with_context(|| found[0].to_owned())
    })
}

fn value(name: &str, words: &[&str], record: &Record, up: &str) -> Result<String> {
    Ok(match (name, words) {
        ("bare", [model]) => bare(model, up)?,
        ("picture", [model]) => picture::draw(model)?,
        ("calls", [model]) => calls(model)?,
        ("costs", servers) => record.table(servers)?,
        ("cpu", [server, workload, connections]) => {
            record.ratio(server, &format!("{workload} {connections}"))?
        }
        ("calls-each", [server, workload, connections]) => {
            record.each_message("calls", server, &format!("{workload} {connections}"))?
        }
        ("switches-each", [server, workload, connections]) => {
            record.each_message("switches", server, &format!("{workload} {connections}"))?
        }
        ("at-most", [one, other]) => record.at_most(one, other)?,
        ("idle", [server]) => record::idle_bytes(server)?,
        ("idle-held", [server]) => record::idle_connections(server)?,
        ("given", [path, number, unit @ ..]) => given(path, number, unit)?,
        ("side", [left, right, moment @ ..]) => {
            let moment = moment.join(" ");
            let target = side::address(left, right, &moment)?;
            format!("[{left} and {right}, side by side, at *{moment}*]({up}{target})")
        }
        _ => bail!("no macro is called {name} with {} words", words.len()),
    })
}

fn bare(model: &str, up: &str) -> Result<String> {
    let path = project::bare(model);
    let source = project::read(&path)?;
    let whole = side::address(model, model, "accept")?;
    Ok(format!(
        "```rust,ignore\n{source}```\n\n`{path}`. [Beside the complete server]({up}{whole})."
    ))
}

fn calls(model: &str) -> Result<String> {
    let path = project::calls(model);
    let text = project::read(&path)
        .with_context(|| format!("capture it: cargo run -p book -- --capture {model}"))?;
    Ok(format!("```text\n{text}```"))
}

/// A number of the project's own: it must stand in the file, with or without `_` in it.
fn given(path: &str, number: &str, unit: &[&str]) -> Result<String> {
    let text = project::read(path)?.replace('_', "");
    let plain = number.replace([',', '_'], "");
    let pattern = Regex::new(&format!(r"(^|[^0-9.]){}($|[^0-9])", regex::escape(&plain)))?;
    if !pattern.is_match(&text) {
        bail!("{path} does not say {number}");
    }
    Ok([&[number], unit].concat().join(" "))
}

/// Replaces what `pattern` finds, unless one of the replacements fails.
fn replace(
    pattern: &Regex,
    text: &str,
    mut with: impl FnMut(&Captures<'_>) -> Result<String>,
) -> Result<String> {
    let mut done = String::new();
    let mut from = 0;
    for found in pattern.captures_iter(text) {
        let whole = found.get_match();
        done.push_str(&text[from..whole.start()]);
        done.push_str(&with(&found)?);
        from = whole.end();
    }
    done.push_str(&text[from..]);
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::{Record, expand};

    fn expanded(text: &str) -> Result<String, String> {
        let record = Record::load().expect("the record");
        expand(text, &record, "../").map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_macro_becomes_what_it_asks_for() {
        let record = Record::load().expect("the record");
        let ratio = record.ratio("threads", "ping-pong 1000").expect("a ratio");
        let text = expanded("a {{cpu threads ping-pong 1000}} b").expect("a number");
        assert_eq!(text, format!("a {ratio} b"));
        assert!(expanded("{{bare threads}}").expect("a source").contains("thread::Builder"));
        assert!(expanded("no { macro }, and no }} either").is_ok());
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        for bad in [
            "{{bare nothing}}",
            "{{cpu nothing ping-pong 1000}}",
            "{{cpu threads ping-pong 17}}",
            "{{calls nothing}}",
            "{{idle nothing}}",
            "{{picture nothing}}",
            "{{side threads nothing accept}}",
            "{{side threads poll nothing}}",
            "{{alike threads uring}}",
            "{{nothing}}",
            "{{given crates/serve-poll/examples/bare.rs 987654 bytes}}",
        ] {
            assert!(expanded(bad).is_err_and(|error| error.contains(bad)), "{bad}");
        }
    }
}
