//! The book is built, and what it says is held to what is there.

use std::fs;
use std::path::{Path, PathBuf};

use book::record::Record;
use book::{build, capture, check, project};

/// Chapters of the book's own. The other documents have a rule of their own for numbers, which the
/// records' README tells.
const CHAPTERS: &str = "docs/book";

#[test]
fn the_book_is_built_and_no_link_leads_nowhere() {
    let out = folder("links");
    build::build(&out).expect("the book is built");
    let broken = check::broken_links(&out).expect("its pages can be read");
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    for page in ["index.html", "book/choosing.html", "side-by-side.html", "print.html"] {
        assert!(out.join(page).is_file(), "{page} is missing");
    }
    let chapter = fs::read_to_string(out.join("book/threads.html")).expect("a chapter");
    let record = Record::load().expect("the record");
    let ratio = record.ratio("threads", "ping-pong 1000").expect("a ratio");
    for shown in ["thread::Builder", "<svg", "recvfrom", &ratio] {
        assert!(chapter.contains(shown), "the chapter of threads does not show {shown}");
    }
    fs::remove_dir_all(&out).expect("the folder goes");
}

#[test]
fn no_number_is_typed_by_hand() {
    let mut found = Vec::new();
    for (path, text) in chapters() {
        for number in check::typed_numbers(&text) {
            found.push(format!("{}: {number}", path.display()));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_model_has_a_chapter_with_all_its_parts() {
    let text: String = chapters().into_iter().map(|(_, text)| text).collect();
    for model in project::MODELS {
        for part in ["picture", "bare", "calls"] {
            let wanted = format!("{{{{{part} {model}}}}}");
            assert!(text.contains(&wanted), "no chapter has {wanted}");
        }
    }
    for (path, text) in chapters() {
        let text = text.replace("What they cost", "What it costs");
        let text = text.replace("What breaks them", "What breaks it");
        if text.contains("{{bare ") {
            for heading in ["What breaks it", "What it costs", "Exercises", "*Look for*"] {
                assert!(text.contains(heading), "{}: no {heading}", path.display());
            }
        }
    }
}

#[test]
fn every_server_of_the_workspace_is_in_the_book() {
    let entries = fs::read_dir(project::root().join("crates")).expect("the crates");
    let names = entries.map(|entry| entry.expect("a crate").file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    let mut servers: Vec<String> =
        names.filter_map(|name| name.strip_prefix("serve-").map(str::to_owned)).collect();
    servers.sort();
    let mut known = project::MODELS.map(str::to_owned);
    known.sort();
    assert_eq!(servers, known);
}

#[test]
fn captured_system_calls_are_those_of_today() {
    if !cfg!(target_arch = "x86_64") {
        eprintln!("skipped: system calls have other names on other processors than x86_64");
        return;
    }
    if !capture::has_strace() {
        eprintln!("skipped: there is no strace that can trace here");
        return;
    }
    for model in project::MODELS {
        let kept = project::read(&project::calls(model)).expect("the calls that were kept");
        let same = |fresh: &String| capture::names(&kept) == capture::names(fresh);
        // On a busy machine the time that is looked at may end too early: so a trace that differs
        // is taken anew.
        let tried = (0..3).map(|_| capture::fresh(model));
        let fresh = match first_or_last(tried, same) {
            Ok(fresh) => fresh,
            Err(error) if is_forbidden(&error) => {
                eprintln!("skipped: {model}: {error:#}");
                continue;
            }
            Err(error) => panic!("{model}: {error:#}"),
        };
        assert_eq!(
            capture::names(&kept),
            capture::names(&fresh),
            "the calls of {model} have changed: cargo run -p book -- --capture {model}\n{fresh}"
        );
    }
}

/// The first try that is as wanted or fails, or else the last one.
fn first_or_last<E>(
    tries: impl Iterator<Item = Result<String, E>>,
    wanted: impl Fn(&String) -> bool,
) -> Result<String, E> {
    let mut last = Ok(String::new());
    for tried in tries {
        last = tried;
        if last.as_ref().map_or(true, &wanted) {
            break;
        }
    }
    last
}

/// Whether a model cannot run here: io_uring is forbidden in many containers.
fn is_forbidden(error: &anyhow::Error) -> bool {
    format!("{error:#}").contains("it does not listen")
}

fn chapters() -> Vec<(PathBuf, String)> {
    let entries = fs::read_dir(project::root().join(CHAPTERS)).expect("the chapters");
    let paths = entries.map(|entry| entry.expect("a chapter").path());
    let mut chapters: Vec<(PathBuf, String)> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a chapter");
            (path, text)
        })
        .collect();
    chapters.sort();
    chapters
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("book-{name}"))
}
