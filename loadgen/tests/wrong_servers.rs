//! A server that does one line of a hundred thousand wrong gets no number, and is told what it did.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test, as it should")]

mod common;

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Count, Wrong};

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
        .args(["run", "--json", "--warmup", "0s", "--duration", "1s", "--stall-timeout", "2s"])
        .args(["--addr", &addr.to_string()])
        .args(args)
        .output()
        .unwrap();
    assert!(began.elapsed() < Duration::from_secs(60), "a run must end");
    let stderr = String::from_utf8_lossy(&output.stderr);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect(&stderr);
    Seen {
        code: output.status.code(),
        status: value["run"]["verdict"]["status"].as_str().unwrap().to_owned(),
        faults: value["run"]["faults"].clone(),
        measured: !value["run"]["measured"].is_null(),
    }
}

/// The run in which the server gets its one line wrong is INVALID, without a number, and names the
/// fault; those before are not. How long that takes is the machine's affair.
fn caught(start: impl Fn() -> (SocketAddr, Arc<Count>), args: &[&str], fault: &str) {
    for _ in 0..3 {
        let (addr, count) = start();
        let mut seen = run(addr, args);
        while !count.was_wrong() {
            assert_eq!((seen.code, seen.measured), (Some(0), true), "too early: {}", seen.faults);
            seen = run(addr, args);
        }
        assert_eq!((seen.code, seen.status.as_str()), (Some(1), "INVALID"), "{}", seen.faults);
        assert!(!seen.measured, "an INVALID run has no numbers");
        if seen.faults[fault].as_u64().is_some_and(|n| n >= 1) {
            return;
        }
        // Where it was the last line of a run, the one that would have shown its kind is missing.
        assert!(!seen.faults["unanswered"].is_null(), "{fault}: {}", seen.faults);
    }
    panic!("never seen: {fault}");
}

fn wrong_echo(wrong: Wrong, args: &[&str], fault: &str) {
    caught(|| common::counting_echo(wrong), args, fault);
}

fn wrong_chat(wrong: Wrong, args: &[&str], fault: &str) {
    caught(|| common::counting_chat(wrong), args, fault);
}

const PING_PONG: [&str; 4] = ["--workload", "ping-pong", "--connections", "8"];
const PIPELINED: [&str; 6] = ["--workload", "pipelined", "--connections", "8", "--depth", "4"];
const CHURN: [&str; 8] =
    ["--workload", "churn", "--connections", "8", "--churn", "50", "--depth", "4"];
const OPEN: [&str; 6] = ["--workload", "open-loop", "--connections", "8", "--rate", "100000"];
const MIXED: [&str; 6] = ["--workload", "mixed-sizes", "--connections", "8", "--depth", "4"];
const OPEN_CHAT: [&str; 6] = ["--workload", "fan-out", "--members", "6", "--rate", "100000"];
const FAN_OUT: [&str; 6] = ["--workload", "fan-out", "--members", "6", "--speakers", "2"];
const TIMED: [&str; 7] =
    ["--workload", "fan-out", "--members", "6", "--speakers", "2", "--server-time"];

#[test]
fn right_servers_are_not_invalid() {
    for (addr, args) in [
        (common::echo(Wrong::Nothing), &PING_PONG[..]),
        (common::echo(Wrong::Nothing), &PIPELINED),
        (common::echo(Wrong::Nothing), &CHURN),
        (common::chat(Wrong::Nothing), &FAN_OUT),
        (common::echo(Wrong::Nothing), &OPEN),
        (common::echo(Wrong::Nothing), &MIXED),
        (common::chat(Wrong::Nothing), &OPEN_CHAT),
        (common::counting_chat_with_times(Wrong::Nothing).0, &TIMED),
        (common::counting_chat_with_times(Wrong::Nothing).0, &FAN_OUT),
    ] {
        let seen = run(addr, args);
        assert_eq!(seen.code, Some(0), "{}", seen.faults);
        assert!(seen.measured && seen.status != "INVALID");
    }
}

#[test]
fn dropped() {
    wrong_echo(Wrong::Drop, &CHURN, "lost");
    wrong_echo(Wrong::Drop, &PIPELINED, "lost");
    wrong_echo(Wrong::Drop, &PING_PONG, "unanswered");
    wrong_chat(Wrong::Drop, &FAN_OUT, "lost");
    wrong_echo(Wrong::Drop, &OPEN, "unanswered");
    wrong_chat(Wrong::Drop, &OPEN_CHAT, "lost");
    wrong_echo(Wrong::Drop, &MIXED, "lost");
}

#[test]
fn swapped() {
    wrong_echo(Wrong::Swap, &CHURN, "crossed");
    wrong_echo(Wrong::Swap, &PING_PONG, "crossed");
    wrong_echo(Wrong::Swap, &PIPELINED, "crossed");
    wrong_chat(Wrong::OtherChannel, &FAN_OUT, "crossed");
    wrong_echo(Wrong::Swap, &OPEN, "crossed");
    wrong_echo(Wrong::Swap, &MIXED, "crossed");
}

#[test]
fn truncated() {
    wrong_echo(Wrong::Truncate, &CHURN, "truncated");
    wrong_echo(Wrong::Truncate, &PING_PONG, "truncated");
    wrong_echo(Wrong::Stop, &PING_PONG, "truncated");
    wrong_chat(Wrong::Truncate, &FAN_OUT, "truncated");
    wrong_echo(Wrong::Truncate, &MIXED, "truncated");
}

#[test]
fn repeated() {
    wrong_echo(Wrong::Repeat, &CHURN, "repeated");
    wrong_echo(Wrong::Repeat, &PING_PONG, "repeated");
    wrong_echo(Wrong::Repeat, &PIPELINED, "repeated");
    wrong_chat(Wrong::Repeat, &FAN_OUT, "repeated");
}

#[test]
fn reordered() {
    wrong_echo(Wrong::Reorder, &CHURN, "reordered");
    wrong_echo(Wrong::Reorder, &PIPELINED, "reordered");
    wrong_chat(Wrong::Reorder, &FAN_OUT, "reordered");
}

#[test]
fn altered() {
    wrong_echo(Wrong::Alter, &CHURN, "altered");
    wrong_echo(Wrong::Alter, &PING_PONG, "altered");
    wrong_echo(Wrong::Constant, &PIPELINED, "altered");
    wrong_chat(Wrong::Alter, &FAN_OUT, "altered");
}

#[test]
fn answered_before_it_was_asked() {
    wrong_echo(Wrong::Early, &PING_PONG, "early");
    let alone = ["--workload", "churn", "--connections", "8", "--churn", "50"];
    wrong_echo(Wrong::Early, &alone, "early");
}

#[test]
fn never_answered() {
    wrong_echo(Wrong::Silence, &CHURN, "unanswered");
    wrong_echo(Wrong::Silence, &PING_PONG, "unanswered");
    wrong_echo(Wrong::Silence, &PIPELINED, "unanswered");
}

#[test]
fn closed() {
    wrong_echo(Wrong::Close, &CHURN, "closed");
    wrong_echo(Wrong::Close, &PING_PONG, "closed");
    wrong_chat(Wrong::Close, &FAN_OUT, "closed");
}

#[test]
fn without_the_time_that_was_asked_for() {
    caught(|| common::counting_chat_with_times(Wrong::Untimed), &TIMED, "altered");
    caught(|| common::counting_chat_with_times(Wrong::Drop), &TIMED, "lost");
    let seen = run(common::chat(Wrong::Nothing), &TIMED);
    assert_eq!((seen.code, seen.measured), (Some(1), false), "it has refused: {}", seen.faults);
}

#[test]
fn sent_to_its_speaker() {
    wrong_chat(Wrong::ToSpeaker, &FAN_OUT, "to-speaker");
}
