//! The course of trying a claim, with servers of which is known which one is dearer.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test, as it should")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const LOADGEN: &str = env!("CARGO_BIN_EXE_loadgen");
/// What a handicapped server computes for each message: many times what a message costs.
const HANDICAP: &str = "50us";

/// A models file in which each model is the null reference, which computes so long for a message.
fn models(dir: &Path, works: &[(&str, &str)]) -> String {
    let entry = |(name, work): &(&str, &str)| {
        format!(
            "[model.{name}]\ncommand = \"{LOADGEN} null-server --listen {{addr}} --work {work}\"\n\
             modes = [\"echo\"]\n"
        )
    };
    let path = dir.join("models.toml");
    std::fs::write(&path, works.iter().map(entry).collect::<String>()).unwrap();
    path.display().to_string()
}

fn claims(dir: &Path, works: &[(&str, &str)], names: &[&str]) -> Command {
    let mut command = Command::new(LOADGEN);
    let models = models(dir, works);
    command.args(["claims", "--quick", "--json", "--only-models-file", "--models-file", &models]);
    command.arg("--out").arg(dir.join("record")).args(names);
    command
}

fn verdicts(json: &[u8]) -> Vec<(String, String)> {
    let value: Value = serde_json::from_slice(json).unwrap();
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    let verdict = |one: &Value| (word(&one["claim"]["name"]), word(&one["ruling"]));
    value["claims"].as_array().unwrap().iter().map(verdict).collect()
}

fn verdict(works: &[(&str, &str)]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let output = claims(dir.path(), works, &["multiplexing-for-one"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let page = std::fs::read_to_string(dir.path().join("record/report.html")).unwrap();
    let [(name, verdict)] = &verdicts(&output.stdout)[..] else { panic!("{said}") };
    assert_eq!(name, "multiplexing-for-one");
    let words = if verdict == "cannot-run" { "cannot run here" } else { verdict };
    assert!(page.contains(&format!("multiplexing-for-one: {words}")), "{page}");
    verdict.clone()
}

#[test]
fn a_handicap_turns_a_verdict() {
    assert_eq!(verdict(&[("threads", "0ns"), ("epoll-level", HANDICAP)]), "holds");
    assert_eq!(verdict(&[("threads", HANDICAP), ("epoll-level", "0ns")]), "fails");
}

#[test]
fn a_claim_whose_servers_are_missing_or_wrong_cannot_be_tried() {
    assert_eq!(verdict(&[("threads", "0ns")]), "cannot-run");
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("models.toml");
    // It listens, and takes connections that it never answers.
    let mute = "[model.epoll-level]\ncommand = \"python3 -c 'import socket,sys,signal; \
                s=socket.create_server((sys.argv[1],int(sys.argv[2]))); signal.pause()' {host} \
                {port}\"\nmodes = [\"echo\"]\n";
    let good = format!(
        "[model.threads]\ncommand = \"{LOADGEN} null-server --listen {{addr}}\"\nmodes = \
         [\"echo\"]\n"
    );
    std::fs::write(&own, good + mute).unwrap();
    let output = Command::new(LOADGEN)
        .args(["claims", "multiplexing-for-one", "--quick", "--only-models-file", "--models-file"])
        .arg(&own)
        .arg("--out")
        .arg(dir.path().join("record"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("cannot run here") && said.contains("fails the echo gate"), "{said}");
}

/// Claims are tried in the order of the list: the first is done when the second begins.
#[test]
fn ctrl_c_keeps_the_verdicts_of_finished_claims() {
    let dir = tempfile::tempdir().unwrap();
    let works = [("threads", "0ns"), ("epoll-level", HANDICAP), ("prefork", "0ns")];
    let names = ["multiplexing-for-one", "processes-isolate"];
    let mut child = claims(dir.path(), &works, &names)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(said.any(|line| line.contains("claim 2 of 2")), "the second claim never began");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    said.for_each(drop);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["interrupted"], true);
    assert_eq!(verdicts(&output.stdout), [("multiplexing-for-one".into(), "holds".into())]);
}
