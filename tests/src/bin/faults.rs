//! Puts faults into the project, one at a time, and says which tests notice.
//!
//! The faults stand in `tests/faults.toml`. Each is put into a copy of the project, under
//! `target/faults`, and the tests of one package are run there. A fault that no test notices needs
//! a case, or a reason why it cannot be noticed.
//!
//! ```text
//! cargo run -p conformance --bin faults                    all of them, which takes hours
//! cargo run -p conformance --bin faults -- protocol        those of one package
//! cargo run -p conformance --bin faults -- "stale event"   those with these words in them
//! ```
//!
//! The table comes on standard output, the course on standard error. The exit code is 1 if a fault
//! was not noticed.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use std::{env, io, thread};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::Deserialize;

/// The faults.
const LIST: &str = include_str!("../../faults.toml");
/// The longest time that the tests of one package may take. A fault that makes them hang is
/// noticed by that.
const LONGEST: Duration = Duration::from_secs(600);
/// Names of tests that are written down for one fault.
const NAMES: usize = 3;

#[derive(Deserialize)]
struct List {
    fault: Vec<Entry>,
}

/// One fault, as the list has it.
#[derive(Deserialize)]
struct Entry {
    /// What is wrong with it in place, in words.
    what: String,
    /// The file; `*` in it stands for each server that has the text `old`.
    file: String,
    /// What stands there, once.
    old: String,
    /// What is put there instead.
    new: String,
    /// Why it cannot be noticed, if that is so.
    harmless: Option<String>,
}

/// One fault in one file.
struct Fault<'a> {
    entry: &'a Entry,
    file: String,
    package: String,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("no workspace")?;
    let list: List = toml::from_str(LIST)?;
    let mut faults = expand_all(root, &list)?;
    let wanted: Vec<String> = env::args().skip(1).collect();
    faults.retain(|it| {
        let is_meant = |word: &String| it.package == *word || it.entry.what.contains(word);
        wanted.is_empty() || wanted.iter().any(is_meant)
    });

    let copy = root.join("target/faults/tree");
    copy_tree(root, &copy)?;
    let packages: BTreeSet<&str> = faults.iter().map(|it| it.package.as_str()).collect();
    for package in packages {
        if let Some(names) = run_tests(&copy, package)? {
            return Err(format!("{package} without a fault does not pass: {names}").into());
        }
    }
    println!("| fault | file | noticed by |\n|---|---|---|");
    let mut missed = 0;
    for (number, fault) in faults.iter().enumerate() {
        let verdict = try_fault(&copy, fault)?;
        let harmless = fault.entry.harmless.as_ref().map(|why| format!("harmless: {why}"));
        let (row, is_missed) = match (verdict, harmless) {
            (Some(names), _) => (names, false),
            (None, Some(why)) => (why, false),
            (None, None) => ("**nothing**".to_owned(), true),
        };
        missed += usize::from(is_missed);
        println!("| {} | {} | {row} |", fault.entry.what, fault.file);
        io::stdout().flush()?;
        eprintln!("{} of {}: {}: {row}", number + 1, faults.len(), fault.entry.what);
    }
    eprintln!("{missed} of {} were not noticed", faults.len());
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn expand_all<'a>(root: &Path, list: &'a List) -> Result<Vec<Fault<'a>>, Box<dyn Error>> {
    let mut faults = Vec::new();
    for entry in &list.fault {
        faults.extend(expand(root, entry)?);
    }
    Ok(faults)
}

/// The files that a fault is for.
fn expand<'a>(root: &Path, entry: &'a Entry) -> Result<Vec<Fault<'a>>, Box<dyn Error>> {
    let mut files = vec![entry.file.clone()];
    if let Some((before, after)) = entry.file.split_once('*') {
        let (folder, start) = before.rsplit_once('/').ok_or("a * without a folder")?;
        files.clear();
        for found in fs::read_dir(root.join(folder))? {
            let name = found?.file_name().to_string_lossy().into_owned();
            let file = format!("{folder}/{name}{after}");
            let text = fs::read_to_string(root.join(&file)).unwrap_or_default();
            if name.starts_with(start) && text.contains(&entry.old) {
                files.push(file);
            }
        }
        files.sort();
    }
    let mut faults = Vec::new();
    for file in files {
        let text = fs::read_to_string(root.join(&file))?;
        if text.matches(&entry.old).count() != 1 {
            return Err(format!("{file} does not have once: {}", entry.old).into());
        }
        let package = file.split('/').nth(1).ok_or("a file of no package")?.to_owned();
        faults.push(Fault { entry, file, package });
    }
    if faults.is_empty() {
        return Err(format!("no file has: {}", entry.old).into());
    }
    Ok(faults)
}

/// Copies what git knows of the project; what is unchanged stays as it is, so that little is built.
fn copy_tree(root: &Path, copy: &Path) -> Result<(), Box<dyn Error>> {
    let mut list = Command::new("git");
    let listed = list.arg("-C").arg(root).args(["ls-files", "-z"]).output()?;
    for name in String::from_utf8(listed.stdout)?.split_terminator('\0') {
        let (from, to) = (root.join(name), copy.join(name));
        let Ok(bytes) = fs::read(&from) else { continue };
        if fs::read(&to).is_ok_and(|old| old == bytes) {
            continue;
        }
        fs::create_dir_all(to.parent().ok_or("no folder")?)?;
        fs::write(&to, bytes)?;
    }
    Ok(())
}

/// The tests that notice the fault, in words; `None` if none does.
fn try_fault(copy: &Path, fault: &Fault<'_>) -> Result<Option<String>, Box<dyn Error>> {
    let file = copy.join(&fault.file);
    let sound = fs::read_to_string(&file)?;
    fs::write(&file, sound.replacen(&fault.entry.old, &fault.entry.new, 1))?;
    let verdict = run_tests(copy, &fault.package);
    fs::write(&file, sound)?;
    verdict
}

fn run_tests(copy: &Path, package: &str) -> Result<Option<String>, Box<dyn Error>> {
    let output = copy.with_file_name("output");
    let build = copy.with_file_name("build");
    if !cargo(copy, &build, &["test", "--no-run", "-p", package], &output)?.is_some_and(|ok| ok) {
        return Err(format!("it does not compile: see {}", output.display()).into());
    }
    let passed = cargo(copy, &build, &["test", "--no-fail-fast", "-p", package], &output)?;
    let text = String::from_utf8_lossy(&fs::read(&output)?).into_owned();
    let failed: Vec<&str> = text.lines().filter_map(failed_test).collect();
    Ok(match passed {
        Some(true) => None,
        None => Some(format!("the tests hang after {}", in_words(&failed))),
        Some(false) if failed.is_empty() => Some("the tests abort".to_owned()),
        Some(false) => Some(in_words(&failed)),
    })
}

/// The name in `test NAME ... FAILED`.
fn failed_test(line: &str) -> Option<&str> {
    let line = line.trim_end().strip_suffix("FAILED")?;
    Some(line.strip_prefix("test ")?.trim_end().strip_suffix("...")?.trim_end())
}

fn in_words(failed: &[&str]) -> String {
    let mut words = failed[..failed.len().min(NAMES)].join(", ");
    if failed.len() > NAMES {
        let _ = write!(words, " and {} more", failed.len() - NAMES);
    }
    words
}

/// Runs cargo in the copy. Whether it succeeded; `None` if it took too long.
fn cargo(
    copy: &Path,
    build: &Path,
    args: &[&str],
    output: &Path,
) -> Result<Option<bool>, Box<dyn Error>> {
    let out = File::create(output)?;
    let mut command = Command::new(env!("CARGO"));
    command.args(args).current_dir(copy).env("CARGO_TARGET_DIR", build);
    command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).process_group(0);
    let mut child = command.spawn()?;
    let group = Pid::from_raw(child.id().cast_signed());
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait()));
    if let Ok(status) = ended.recv_timeout(LONGEST) {
        return Ok(Some(status?.success()));
    }
    killpg(group, Signal::SIGKILL)?;
    ended.recv()??;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_can_be_put_in() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let list: List = toml::from_str(LIST).unwrap();
        let faults = expand_all(root, &list).unwrap();
        assert!(faults.len() > list.fault.len(), "some are for several servers");
        for entry in &list.fault {
            assert!(entry.old != entry.new && !entry.what.is_empty(), "{}", entry.what);
        }
    }

    #[test]
    fn the_names_of_failed_tests_are_found() {
        assert_eq!(failed_test("test a::b ... FAILED"), Some("a::b"));
        assert_eq!(failed_test("test mio::c            ... FAILED"), Some("mio::c"));
        assert_eq!(failed_test("test a::b ... ok"), None);
        assert_eq!(failed_test("test result: FAILED. 1 passed"), None);
        assert_eq!(in_words(&["a", "b", "c", "d", "e"]), "a, b, c and 2 more");
    }
}
