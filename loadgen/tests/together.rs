//! Generators that begin together: at a time of the clock, without knowing of each other.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test, as it should")]
#![allow(dead_code, reason = "each test uses its part of what is common")]

mod common;

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use common::Wrong;
use serde_json::Value;

const LOADGEN: &str = env!("CARGO_BIN_EXE_loadgen");

/// A run of two connections, with the seed and further flags.
fn run(addr: &str, seed: &str, further: &[&str]) -> Command {
    let mut command = Command::new(LOADGEN);
    command.args(["run", "--addr", addr, "--connections", "2", "--seed", seed, "--json"]);
    command.args(["--duration", "2s", "--warmup", "100ms"]).args(further);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    command
}

fn document(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn windows_begin_at_the_time_that_was_named_and_can_be_merged() {
    let addr = common::echo(Wrong::Nothing).to_string();
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("together");
    let _ = std::fs::remove_dir_all(&dir);
    let path = |name: &str| dir.join(name).display().to_string();
    let at = SystemTime::now() + Duration::from_secs(4);
    let told = humantime::format_rfc3339_millis(at).to_string();
    let runs = ["1", "2"].map(|seed| {
        let out = path(seed);
        run(&addr, seed, &["--at", &told, "--out", &out]).spawn().unwrap()
    });
    for run in runs {
        let output = run.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let run = document(&output)["run"].take();
        let began = run["measured"]["began"].as_str().unwrap();
        // Milliseconds were told.
        let began = humantime::parse_rfc3339(began).unwrap() + Duration::from_millis(1);
        let late = began.duration_since(at).unwrap();
        let said = run["verdict"]["reasons"].to_string().contains("after the time that was agreed");
        assert!(said || late < Duration::from_millis(12), "{late:?}: {run}");
    }
    let args = ["report", "--merge", &path("1"), &path("2"), "--out", &path("merged"), "--json"];
    let merged = document(&Command::new(LOADGEN).args(args).output().unwrap());
    assert_eq!(merged["run"]["workload"]["connections"], 4, "{merged}");
}

#[test]
fn a_time_that_has_passed_is_refused() {
    let output = run("127.0.0.1:9", "1", &["--at", "2001-01-01T00:00:00Z"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("has passed"), "{said}");
}
