//! The pictures of the documents are what a command makes of a record that is named here.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test, as it should")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The record that the README quotes.
const RECORD: &str = "docs/record/2026-11-28-full";

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// What draws `record` into `dir`, with its exit code.
fn draw(record: &Path, dir: &Path) -> Output {
    let loadgen = env!("CARGO_BIN_EXE_loadgen");
    let report = Command::new(loadgen).arg("report").arg(record).arg("--picture").arg(dir).output();
    report.unwrap()
}

/// Names and texts of all files in a folder.
fn files(dir: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let text = |path: PathBuf| fs::read_to_string(path).unwrap();
    entries.map(|e| (e.file_name().into_string().unwrap(), text(e.path()))).collect()
}

#[test]
fn the_pictures_of_the_documents_are_those_of_their_record() {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("pictures");
    let _ = fs::remove_dir_all(&dir);
    let drawn = draw(&project().join(RECORD), &dir);
    assert!(drawn.status.success(), "{}", String::from_utf8_lossy(&drawn.stderr));
    let (drawn, kept) = (files(&dir), files(&project().join("docs/pictures")));
    assert_eq!(drawn.keys().collect::<Vec<_>>(), kept.keys().collect::<Vec<_>>());
    for (name, text) in &drawn {
        let again = format!("loadgen report {RECORD} --picture docs/pictures");
        assert!(kept[name] == *text, "docs/pictures/{name} is stale: {again}");
        assert!(text.contains(">uring<") && text.contains("</svg>"), "{name}");
    }
    let readme = fs::read_to_string(project().join("README.md")).unwrap();
    for name in drawn.keys().filter(|name| name.starts_with("map")) {
        assert!(readme.contains(&format!("docs/pictures/{name}")), "README.md shows {name}");
    }
    assert!(readme.contains(RECORD), "and names the record");
}

#[test]
fn what_cannot_be_drawn_is_said() {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("no-pictures");
    let nothing = draw(&project().join("docs/record/2026-11-22-calibrate"), &dir);
    let said = String::from_utf8_lossy(&nothing.stderr).into_owned();
    assert!(nothing.status.code() == Some(2) && said.contains("no runs"), "{said}");
    assert!(!dir.exists());
}
