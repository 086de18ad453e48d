//! What the workloads beside ping-pong and fan-out report, from a server that does nothing wrong.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test, as it should")]

mod common;

use std::process::Command;

use common::Wrong;
use serde_json::Value;

/// The numbers of a run with these flags.
fn measured(args: &[&str]) -> Value {
    let addr = common::echo(Wrong::Nothing).to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["run", "--json", "--warmup", "100ms", "--duration", "1s", "--addr", &addr])
        .args(args)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let value: Value = serde_json::from_slice(&output.stdout).expect(&stderr);
    assert_eq!(output.status.code(), Some(0), "{}", value["run"]["verdict"]);
    value["run"]["measured"].clone()
}

fn count(latency: &Value, name: &str) -> u64 {
    latency[name]["count"].as_u64().unwrap_or(0)
}

#[test]
fn churn_tells_visits_and_lines() {
    let args = ["--workload", "churn", "--connections", "8", "--churn", "3", "--depth", "2"];
    let measured = measured(&args);
    let rate = |name: &str| measured[name].as_f64().unwrap();
    assert!((rate("messages_per_second") / rate("visits_per_second") - 3.0).abs() < 1e-6);
    let latency = &measured["latency"];
    assert!(count(latency, "visit") > 0);
    assert_eq!(count(latency, "visit"), count(latency, "answered"));
    assert_eq!(measured["messages"], 3 * count(latency, "visit"), "all visits are finished");
    let mean = |name: &str| latency[name]["mean"].as_f64().unwrap();
    assert!(mean("answered") < mean("visit"), "the first answer comes before the end");
}

#[test]
fn streaming_tells_bytes() {
    let measured = measured(&["--workload", "streaming", "--connections", "2", "--size", "8192"]);
    let rate = |name: &str| measured[name].as_f64().unwrap();
    assert!((rate("bytes_per_second") / rate("messages_per_second") - 8192.0).abs() < 1e-3);
}

#[test]
fn bystanders_are_measured_before_and_meanwhile() {
    for (workload, disturbers) in [
        ("connect-storm", 4),
        ("stalled-reader", 2),
        ("one-byte", 4),
        ("half-open", 20),
        ("hog", 1),
    ] {
        let few = disturbers.to_string();
        let measured = measured(&[
            "--workload",
            workload,
            "--connections",
            "4",
            "--size",
            "16",
            "--disturbers",
            &few,
        ]);
        let latency = &measured["latency"];
        assert!(count(latency, "calm") > 0 && count(latency, "disturbed") > 0, "{workload}");
        assert_eq!(measured["messages"], count(latency, "disturbed"), "the calm is not the run");
        let disturbed = &measured["disturbed"];
        let p99 = |name: &str| latency[name]["p99"].as_f64().unwrap();
        let ratio = disturbed["p99_ratio"].as_f64().unwrap();
        assert!((ratio / (p99("disturbed") / p99("calm")) - 1.0).abs() < 1e-6);
        let fate = |name: &str| disturbed["fate"][name].as_u64().unwrap();
        let came = fate("connected");
        assert_eq!((fate("refused"), fate("cut")), (0, 0), "{workload}");
        // Of low priority, they may not all have had their turn on a busy machine.
        let at_once = workload == "connect-storm" || came <= disturbers;
        assert!(came >= 1 && at_once, "{workload}: {came} connected, and who is served stays");
        let answered = fate("served") > 0;
        match workload {
            "hog" => assert!(answered),
            "one-byte" => {}
            _ => assert!(!answered, "{workload}: no line was both sent and read"),
        }
    }
}
