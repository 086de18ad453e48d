//! Soaks of servers of which is known what they keep of each client.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test, as it should")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const LOADGEN: &str = env!("CARGO_BIN_EXE_loadgen");
/// What a server that leaks keeps of each client beside its socket.
const LEAK: usize = 64 << 10;

/// Not a test but a server of its own process, which the tests have loadgen start: its address and
/// its manner are arguments of this program that are taken for names of tests as well.
#[test]
#[ignore = "a server that the tests of this file start"]
fn serve() {
    let mut words = std::env::args().skip_while(|word| word != "serve").skip(1);
    let Some((addr, manner)) = words.next().zip(words.next()) else { return };
    let listener = TcpListener::bind(addr).unwrap();
    let mut kept = Vec::new();
    for stream in listener.incoming().map_while(Result::ok) {
        if manner == "leaking" {
            kept.push((listener.try_clone().unwrap(), vec![1_u8; LEAK]));
        }
        let wrong = manner == "wrong" && stream.peer_addr().is_ok_and(|peer| peer.port() % 5 == 0);
        // A client that leaves ends its own thread.
        thread::spawn(move || drop(echo(stream, wrong)));
    }
}

fn echo(mut stream: TcpStream, wrong: bool) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut bytes = [0; 4096];
    loop {
        let len = stream.read(&mut bytes)?;
        if len == 0 {
            return Ok(());
        }
        if wrong {
            bytes[0] ^= 1;
        }
        stream.write_all(&bytes[..len])?;
    }
}

/// A soak of a server of this manner, which takes few clients, so that a lap is short.
fn soak(dir: &Path, manner: &str, time: &str) -> Command {
    let own = std::env::current_exe().unwrap().display().to_string();
    let models = dir.join("models.toml");
    let entry = format!(
        "[model.{manner}]\nmodes = [\"echo\"]\nmost_connections = 8\n\
         command = \"'{own}' --ignored --exact --nocapture serve {{addr}} {manner}\"\n"
    );
    std::fs::write(&models, entry).unwrap();
    let mut command = Command::new(LOADGEN);
    command.args(["soak", "--json", "--for", time, "--models", manner, "--models-file"]);
    command.arg(&models).arg("--out").arg(dir.join("record"));
    command
}

/// What a soak found of its one server, its exit code, and its page.
fn soaked(manner: &str, time: &str) -> (Value, Option<i32>, String) {
    let dir = tempfile::tempdir().unwrap();
    let output = soak(dir.path(), manner, time).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let mut value: Value = serde_json::from_slice(&output.stdout).expect(&said);
    let page = std::fs::read_to_string(dir.path().join("record/report.html")).expect(&said);
    (value["soaked"][0].take(), output.status.code(), page)
}

fn grew(soaked: &Value) -> Vec<&str> {
    let growth = soaked["growth"].as_array().unwrap().iter();
    growth.filter(|one| one["course"] == "grew").map(|one| one["what"].as_str().unwrap()).collect()
}

/// The latency is left out: a machine may become slower meanwhile.
#[test]
fn a_server_that_keeps_nothing_stays_flat() {
    let (soaked, _, page) = soaked("plain", "1s");
    assert!(grew(&soaked).iter().all(|what| *what == "latency"), "{soaked:#}");
    assert_eq!(soaked["problems"], Value::Array(Vec::new()), "{soaked:#}");
    assert_eq!(soaked["growth"].as_array().unwrap().len(), 4, "{soaked:#}");
    assert!(page.contains("plain, echo") && page.contains("polyline"), "{page}");
}

#[test]
fn what_a_server_keeps_of_its_clients_is_seen() {
    let (soaked, code, page) = soaked("leaking", "1s");
    let grew = grew(&soaked);
    assert!(grew.contains(&"descriptors") && grew.contains(&"memory"), "{soaked:#}");
    assert_eq!(code, Some(1));
    assert!(page.contains("GREW: descriptors"), "{page}");
}

#[test]
fn wrong_answers_are_problems() {
    let (soaked, code, page) = soaked("wrong", "1s");
    let problems = soaked["problems"].as_array().unwrap();
    assert!(!problems.is_empty() && problems.len() <= 4, "{soaked:#}");
    assert!(problems.iter().all(|it| it.as_str().unwrap().contains("lap ")), "{soaked:#}");
    assert_eq!((code, page.contains("FAILED")), (Some(1), true));
}

#[test]
fn ctrl_c_keeps_the_laps_that_were_driven() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = soak(dir.path(), "plain", "1h");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(said.any(|line| line.contains("lap 2: ")), "the second lap never began");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    said.for_each(drop);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["interrupted"], true);
    assert_eq!(value["soaked"][0]["laps"].as_array().unwrap().len(), 1, "{value:#}");
    is_shown_again(&dir.path().join("record"), &output.stdout);
}

/// `report` prints such a record as the soak did, and refuses what would take runs.
fn is_shown_again(record: &Path, json: &[u8]) {
    let report = |flags: &[&str]| {
        Command::new(LOADGEN).arg("report").arg(record).args(flags).output().unwrap()
    };
    assert!(report(&["--json"]).stdout == json);
    let table = String::from_utf8(report(&[]).stdout).unwrap();
    assert!(table.contains("| plain") && table.contains("| echo"), "{table}");
    let refused = report(&["--csv"]);
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!((refused.status.code(), refused.stdout.len()), (Some(2), 0), "{why}");
    assert!(why.contains("holds a table and no runs"), "{why}");
}
