//! What a run can end with: the table of docs/METHODOLOGY.md is held against the sources that say
//! it and the tests that show it, and here stand those of servers that end or begin wrongly.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test, as it should")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use serde_json::Value;

const LOADGEN: &str = env!("CARGO_BIN_EXE_loadgen");
/// The sources whose sentences are those of verdicts, and where in them: from this text to that.
const SAID: &[(&str, &str, &str)] = &[
    ("measure/verdict.rs", "pub(crate) fn interfered", "#[cfg(test)]"),
    ("measure/doubts.rs", "pub(crate) fn closed", "#[cfg(test)]"),
    ("measure/meeting.rs", "pub(crate) fn doubt", "#[cfg(test)]"),
    ("drive/faults.rs", "pub fn reasons", "\n    }\n"),
    ("target/process.rs", "fn stop(", "\n    }\n"),
    ("target/cpus.rs", "pub fn plan(", "\n}\n"),
];
/// What stands there and is no sentence of a verdict.
const OTHERS: &[&str] = &["nothing was counted", "messages/s and latency are"];

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The texts between quotes, without what breaks their lines and with `…` for what is filled in.
fn literals(code: &str) -> Vec<String> {
    let code: String = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    let mut found = Vec::new();
    let mut rest = code.as_str();
    while let Some(start) = rest.find('"') {
        let mut text = String::new();
        let mut chars = rest[start + 1..].char_indices();
        let mut end = rest.len();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    end = start + 1 + at + 1;
                    break;
                }
                '\\' => match chars.next() {
                    Some((_, '\n')) => {}
                    Some((_, c)) => text.push(c),
                    None => {}
                },
                c => text.push(c),
            }
        }
        found.push(plain(&text));
        rest = &rest[end..];
    }
    found
}

/// A text with single spaces and `…` for what is filled in.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    for (n, part) in text.split('{').enumerate() {
        let after = if n == 0 { Some(part) } else { part.split_once('}').map(|(_, after)| after) };
        plain.push_str(if n == 0 { "" } else { "…" });
        plain.push_str(after.unwrap_or_default());
    }
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A row of the table.
struct Row {
    verdict: String,
    /// What it says, without what is explained after it.
    sentence: String,
    /// The test that shows it.
    test: String,
}

fn table() -> Vec<Row> {
    let document = read("../docs/METHODOLOGY.md");
    let section = document.split("### How a run ends").nth(1).unwrap();
    let section = section.split("\n### ").next().unwrap();
    let rows = section
        .lines()
        .filter(|line| line.starts_with("| INVALID") || line.starts_with("| SUSPECT"));
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let quoted = |cell: &str| cell.split('`').nth(1).unwrap_or_default().to_owned();
        Row { verdict: cells[1].to_owned(), sentence: quoted(cells[2]), test: quoted(cells[3]) }
    };
    rows.map(row).collect()
}

/// The kinds of faults, each of which a verdict can name.
fn faults() -> Vec<String> {
    let source = read("src/drive/faults.rs");
    let names = source.split("pub fn name").nth(1).unwrap().split("\n    }\n").next().unwrap();
    literals(names)
}

/// The sentences and parts of sentences in the sources: what has three words.
fn said() -> Vec<String> {
    let mut said = Vec::new();
    for (path, from, to) in SAID {
        let source = read(Path::new("src").join(path));
        let part = source.split(from).nth(1).unwrap_or_else(|| panic!("{path} has no {from}"));
        said.extend(literals(part.split(to).next().unwrap()));
    }
    said.retain(|text| text.split(' ').count() >= 3 && !OTHERS.contains(&text.as_str()));
    said
}

#[test]
fn the_table_has_every_sentence_of_the_sources() {
    let rows = table();
    for text in said() {
        assert!(
            rows.iter().any(|row| row.sentence.contains(text.trim_end_matches('…'))),
            "no row says {text:?}"
        );
    }
    for fault in faults() {
        let begins = format!("… {fault}");
        assert!(rows.iter().any(|row| row.sentence.starts_with(&begins)), "no row for {fault}");
    }
    assert!(said().len() > 15 && faults().len() > 10, "the sentences are not found");
}

#[test]
fn every_row_is_said_by_a_source() {
    let (said, faults) = (said(), faults());
    for Row { sentence, .. } in table() {
        let of_a_fault = faults.iter().any(|fault| sentence == format!("… {fault}"));
        let begins = |text: &String| sentence.starts_with(text.trim_end_matches('…'));
        assert!(of_a_fault || said.iter().any(begins), "no source says {sentence:?}");
    }
}

#[test]
fn every_row_is_shown_by_a_test_that_looks_for_it() {
    let mut tests = BTreeMap::new();
    for folder in ["src/measure", "src/target", "tests"] {
        for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|kind| kind == "rs") {
                let source = fs::read_to_string(&path).unwrap();
                for body in source.split("#[test]\n").skip(1) {
                    let name = body.split("fn ").nth(1).unwrap().split('(').next().unwrap();
                    tests.insert(name.to_owned(), body.to_owned());
                }
            }
        }
    }
    for Row { sentence, test, verdict } in table() {
        let body = tests.get(&test).unwrap_or_else(|| panic!("there is no test {test}"));
        // Two words near its beginning tell it from the others.
        let words: Vec<&str> = sentence
            .trim_start_matches("… ")
            .split(' ')
            .take(6)
            .map(|word| word.trim_end_matches(','))
            .collect();
        let looked_for = |pair: &[&str]| body.contains(pair.join(" ").trim_end_matches(':'));
        let found = words.len() == 1 && body.contains(words[0]) || words.windows(2).any(looked_for);
        assert!(found, "{test} does not look for {sentence:?} ({verdict})");
    }
}

/// An echo with room for so many connections, which says so to all others and ends them.
fn full_echo(room: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for (n, stream) in listener.incoming().map_while(Result::ok).enumerate() {
            thread::spawn(move || drop(if n < room { echo(stream) } else { refuse(stream) }));
        }
    });
    addr
}

fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let len = stream.read(&mut buffer)?;
        if len == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..len])?;
    }
}

/// Reads until the client ends: a close at once could destroy what was said.
fn refuse(mut stream: TcpStream) -> std::io::Result<()> {
    stream.write_all(b"ERR the server is full\r\n")?;
    stream.shutdown(std::net::Shutdown::Write)?;
    std::io::copy(&mut stream, &mut std::io::sink()).map(drop)
}

#[test]
fn a_server_that_is_full_is_said_to_refuse() {
    for workload in ["ping-pong", "churn", "open-loop"] {
        let addr = full_echo(4).to_string();
        let args = ["run", "--addr", &addr, "--connections", "20", "--workload", workload];
        let short = ["--warmup", "0s", "--duration", "300ms"];
        let output = Command::new(LOADGEN).args(args).args(short).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{workload}");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        assert!(said.contains("INVALID"), "{workload}: {said}");
        let cause = " refused: the server said \"ERR the server is full\"";
        assert!(said.contains(cause), "{workload}: {said}");
        assert!(!said.contains(" altered") && !said.contains(" early"), "{workload}: {said}");
    }
}

/// A server of one echo whose first process is a shell with these words before and after it.
fn shell(name: &str, before: &str, after: &str) -> String {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.sh"));
    let text = format!("{before}\n{LOADGEN} null-server --listen $1 &\n{after}\n");
    fs::write(&path, text).unwrap();
    format!("sh {} {{addr}}", path.display())
}

/// The reasons of the verdict in what `run --json` has printed.
fn reasons(stdout: &[u8]) -> String {
    let value: Value = serde_json::from_slice(stdout).unwrap();
    value["run"]["verdict"]["reasons"].to_string()
}

#[test]
fn a_server_that_ends_wrongly_is_said_to() {
    let short = ["--json", "--warmup", "0s", "--duration", "200ms"];
    for (name, before, says) in [
        ("fails", "trap 'exit 1' TERM", "the server failed while stopping: exit code 1"),
        ("stays", "trap '' TERM", "the server did not end within 5 s of SIGTERM"),
    ] {
        let command = shell(name, before, "wait");
        let run = ["run", "--cmd", &command];
        let output = Command::new(LOADGEN).args(run).args(short).output().unwrap();
        let told = reasons(&output.stdout);
        assert!(told.contains(says), "{name}: {told}");
    }
}
