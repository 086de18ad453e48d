//! A server that does one of thousands of lines wrong gets no number, and is told what it did.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test, as it should")]

mod common;

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use common::Wrong;

/// What `run --json` said.
struct Seen {
    code: Option<i32>,
    status: String,
    faults: serde_json::Value,
    measured: bool,
}

fn run(addr: SocketAddr, args: &[&str]) -> Seen {
    let began = Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["run", "--json", "--warmup", "0s", "--duration", "2s", "--stall-timeout", "1s"])
        .args(["--addr", &addr.to_string()])
        .args(args)
        .output()
        .unwrap();
    assert!(began.elapsed() < Duration::from_secs(20), "a run must end");
    let stderr = String::from_utf8_lossy(&output.stderr);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect(&stderr);
    Seen {
        code: output.status.code(),
        status: value["run"]["verdict"]["status"].as_str().unwrap().to_owned(),
        faults: value["run"]["faults"].clone(),
        measured: !value["run"]["measured"].is_null(),
    }
}

/// The run is INVALID, without a number, and names the fault.
fn caught(addr: SocketAddr, args: &[&str], fault: &str) {
    let seen = run(addr, args);
    assert_eq!((seen.code, seen.status.as_str()), (Some(1), "INVALID"), "{}", seen.faults);
    assert!(!seen.measured, "an INVALID run has no numbers");
    assert!(seen.faults[fault].as_u64().is_some_and(|n| n >= 1), "{fault}: {}", seen.faults);
}

const PING_PONG: [&str; 4] = ["--workload", "ping-pong", "--connections", "8"];
const PIPELINED: [&str; 6] = ["--workload", "pipelined", "--connections", "8", "--depth", "4"];
const FAN_OUT: [&str; 6] = ["--workload", "fan-out", "--members", "6", "--speakers", "2"];

#[test]
fn right_servers_are_not_invalid() {
    for (addr, args) in [
        (common::echo(Wrong::Nothing), &PING_PONG[..]),
        (common::echo(Wrong::Nothing), &PIPELINED),
        (common::chat(Wrong::Nothing), &FAN_OUT),
    ] {
        let seen = run(addr, args);
        assert_eq!(seen.code, Some(0), "{}", seen.faults);
        assert!(seen.measured && seen.status != "INVALID");
    }
}

#[test]
fn dropped() {
    caught(common::echo(Wrong::Drop), &PIPELINED, "lost");
    caught(common::echo(Wrong::Drop), &PING_PONG, "unanswered");
    caught(common::chat(Wrong::Drop), &FAN_OUT, "lost");
}

#[test]
fn swapped() {
    caught(common::echo(Wrong::Swap), &PING_PONG, "crossed");
    caught(common::echo(Wrong::Swap), &PIPELINED, "crossed");
    caught(common::chat(Wrong::OtherChannel), &FAN_OUT, "crossed");
}

#[test]
fn truncated() {
    caught(common::echo(Wrong::Truncate), &PING_PONG, "truncated");
    caught(common::echo(Wrong::Stop), &PING_PONG, "truncated");
    caught(common::chat(Wrong::Truncate), &FAN_OUT, "truncated");
}

#[test]
fn repeated() {
    caught(common::echo(Wrong::Repeat), &PING_PONG, "repeated");
    caught(common::echo(Wrong::Repeat), &PIPELINED, "repeated");
    caught(common::chat(Wrong::Repeat), &FAN_OUT, "repeated");
}

#[test]
fn reordered() {
    caught(common::echo(Wrong::Reorder), &PIPELINED, "reordered");
    caught(common::chat(Wrong::Reorder), &FAN_OUT, "reordered");
}

#[test]
fn altered() {
    caught(common::echo(Wrong::Alter), &PING_PONG, "altered");
    caught(common::echo(Wrong::Constant), &PIPELINED, "altered");
    caught(common::chat(Wrong::Alter), &FAN_OUT, "altered");
}

#[test]
fn answered_before_it_was_asked() {
    let idle = ["--workload", "idle", "--connections", "8", "--active", "2"];
    caught(common::echo(Wrong::Early), &idle, "early");
}

#[test]
fn never_answered() {
    caught(common::echo(Wrong::Silence), &PING_PONG, "unanswered");
    caught(common::echo(Wrong::Silence), &PIPELINED, "unanswered");
}

#[test]
fn closed() {
    caught(common::echo(Wrong::Close), &PING_PONG, "closed");
    caught(common::chat(Wrong::Close), &FAN_OUT, "closed");
}

#[test]
fn sent_to_its_speaker() {
    caught(common::chat(Wrong::ToSpeaker), &FAN_OUT, "to-speaker");
}
