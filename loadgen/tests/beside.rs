//! What goes beside a run and its record: metrics while it goes on, a profiler when it is measured,
//! logs for other programs.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test, as it should")]

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use base64::prelude::{BASE64_STANDARD, Engine};
use common::Wrong;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use serde_json::Value;

const LOADGEN: &str = env!("CARGO_BIN_EXE_loadgen");

fn loadgen(args: &[&str]) -> Output {
    Command::new(LOADGEN).args(args).output().unwrap()
}

/// An empty folder of this test's own.
fn folder(name: &str) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("beside-{name}"));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// The answer to one request, head and body.
fn get(addr: &str, request: &str) -> String {
    let mut client = TcpStream::connect(addr).unwrap();
    client.write_all(format!("{request} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_long_run_tells_how_far_it_is() {
    let addr = common::echo(Wrong::Nothing).to_string();
    let mut child = Command::new(LOADGEN)
        .args(["run", "--addr", &addr, "--connections", "4", "--duration", "10m", "--metrics", "0"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let said = "metrics are on http://127.0.0.1:";
    let url = lines.find(|line| line.starts_with(said)).unwrap();
    let at = url.strip_prefix("metrics are on http://").unwrap().strip_suffix("/metrics").unwrap();
    let total = |answer: &str| -> u64 {
        let line = answer.lines().find(|line| line.starts_with("loadgen_messages_total ")).unwrap();
        line.split(' ').nth(1).unwrap().parse().unwrap()
    };
    let (mut answer, mut seen) = (String::new(), Vec::new());
    // Until it has grown twice, and the first second has a latency.
    while seen.len() < 3 || !answer.contains("\nloadgen_latency_p99_seconds ") {
        answer = get(at, "GET /metrics");
        let now = total(&answer);
        assert!(seen.last().is_none_or(|last| *last <= now), "a counter does not fall");
        if seen.last() != Some(&now) {
            seen.push(now);
        }
    }
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\n# EOF\n"), "{answer}");
    assert!(answer.contains("application/openmetrics-text; version=1.0.0"), "{answer}");
    assert!(answer.contains(&format!("server=\"{addr}\"")), "{answer}");
    assert!(answer.contains("\nloadgen_left_seconds "), "{answer}");
    assert!(get(at, "GET /").starts_with("HTTP/1.1 404"));
    assert!(get(at, "POST /metrics").starts_with("HTTP/1.1 405"));
    let head = get(at, "HEAD /metrics");
    assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    lines.for_each(drop);
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn metrics_are_for_this_machine_unless_told_otherwise() {
    let output = loadgen(&["run", "--addr", "127.0.0.1:1", "--metrics", "0.0.0.0:0"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("--public"), "{stderr}");
}

/// An open loop of 200 messages, with this profiler. Returns the exit code, the result and what was
/// said.
fn profiled(dir: &std::path::Path, profile: &str) -> (Option<i32>, Value, String) {
    let command = format!("{LOADGEN} null-server --listen {{addr}}");
    let out = dir.join("record").display().to_string();
    let args = ["run", "--cmd", &command, "--workload", "open-loop", "--connections", "4"];
    // Long enough for any profiler to start.
    let short = ["--rate", "100", "--duration", "2s", "--warmup", "0s", "--json"];
    let output = loadgen(&[&args[..], &short, &["--out", &out, "--profile", profile]].concat());
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let value: Value = serde_json::from_slice(&output.stdout).expect(&stderr);
    (output.status.code(), value["run"].clone(), stderr)
}

#[test]
fn a_profiler_runs_beside_the_server_when_all_is_measured() {
    let dir = folder("profile");
    // It ends at SIGINT only, as perf does, and then writes what it has seen.
    let shell = "trap 'cat /proc/{pid}/cmdline > {out}; exit 0' INT; tail -f /dev/null & wait";
    let (code, run, stderr) = profiled(&dir, &format!("sh -c {}", quoted(shell)));
    assert_eq!(code, Some(0), "{stderr}");
    let seen = std::fs::read_to_string(dir.join("record/profile.data")).unwrap();
    assert!(seen.contains("null-server"), "it was the server, and was alive: {seen:?}");
    only_the_first_window(&run);
    assert!(!run["measured"]["cost"].is_null());
}

/// What is measured is the window before the profiler's: on a busy machine a message may be late,
/// but none is counted that is not in the schedule.
fn only_the_first_window(run: &Value) {
    let measured = &run["measured"];
    assert_eq!(measured["open_loop"]["scheduled"], 200, "{run:#}");
    assert!((1..=200).contains(&measured["messages"].as_u64().unwrap()), "{run:#}");
}

/// One word of a command.
fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

#[test]
fn a_profiler_that_fails_costs_no_number() {
    let failing = [
        ("fails", "no-such-profiler -p {pid}", "no-such-profiler"),
        ("fails-late", "sh -c 'echo no permission >&2; exit 3'", "no permission"),
    ];
    for (name, profile, says) in failing {
        let (code, run, stderr) = profiled(&folder(name), profile);
        assert_eq!(code, Some(1), "{stderr}");
        only_the_first_window(&run);
        assert!(stderr.contains("--profile: ") && stderr.contains(says), "{stderr}");
    }
    let output = loadgen(&["run", "--addr", "127.0.0.1:1", "--profile", "perf '"]);
    assert_eq!(output.status.code(), Some(2), "a quote is open");
    let hog = ["run", "--addr", "127.0.0.1:1", "--workload", "hog", "--profile", "perf"];
    assert_eq!(loadgen(&hog).status.code(), Some(2), "the disturbers would be gone");
}

/// Messages by tag, and the latest end of an interval, of an interval log.
fn read_log(text: &str) -> (BTreeMap<String, u64>, usize) {
    let (mut sums, mut intervals) = (BTreeMap::new(), 0);
    let mut start = None;
    for entry in IntervalLogIterator::new(text.as_bytes()) {
        match entry.unwrap() {
            LogEntry::StartTime(time) => start = Some(time),
            LogEntry::Interval(interval) => {
                assert!(interval.start_timestamp() >= start.unwrap());
                let bytes = BASE64_STANDARD.decode(interval.encoded_histogram()).unwrap();
                let histogram = Deserializer::new().deserialize::<u64, _>(&mut &bytes[..]).unwrap();
                let max = histogram.max() as f64 / 1e6;
                assert!((interval.max() - max).abs() < 0.001 * max + 0.001, "milliseconds");
                let tag = interval.tag().unwrap().as_str().to_owned();
                *sums.entry(tag).or_default() += histogram.len();
                intervals += 1;
            }
            LogEntry::BaseTime(_) => panic!("times are absolute"),
        }
    }
    (sums, intervals)
}

#[test]
fn a_record_is_told_as_an_interval_log() {
    let dir = folder("hlog");
    let addr = common::echo(Wrong::Nothing).to_string();
    let out = dir.join("run").display().to_string();
    let args = ["run", "--addr", &addr, "--connections", "4", "--out", &out, "--json"];
    // Two of its seconds have messages, unless the machine stands still for one and a half of them.
    let run = loadgen(&[&args[..], &["--duration", "2500ms", "--warmup", "0s"]].concat());
    let run: Value = serde_json::from_slice(&run.stdout).unwrap();
    let log = String::from_utf8(loadgen(&["report", &out, "--hlog"]).stdout).unwrap();
    let (sums, intervals) = read_log(&log);
    let count = run["run"]["measured"]["latency"]["latency"]["count"].as_u64().unwrap();
    assert_eq!(sums, BTreeMap::from([("latency".to_owned(), count)]));
    assert!(intervals >= 2, "one for each second: {intervals}");
    // Of two records each run has tags of its own.
    let other = dir.join("other").display().to_string();
    let args = ["run", "--addr", &addr, "--connections", "4", "--out", &other, "--json"];
    let rate = ["--workload", "open-loop", "--rate", "1000", "--duration", "500ms"];
    let run = loadgen(&[&args[..], &rate, &["--warmup", "0s"]].concat());
    let run: Value = serde_json::from_slice(&run.stdout).unwrap();
    let log = String::from_utf8(loadgen(&["report", &other, &out, "--hlog"]).stdout).unwrap();
    let (sums, _) = read_log(&log);
    let ends: Vec<&str> = sums.keys().map(|tag| tag.rsplit('/').next().unwrap()).collect();
    assert_eq!(ends, ["lateness", "response", "service", "latency"], "{sums:?}");
    let response = sums.iter().find(|(tag, _)| tag.ends_with("/response")).unwrap();
    assert!(response.0.contains("open-loop-connections4-size64-depth1-rate1000"), "{response:?}");
    assert_eq!(run["run"]["measured"]["latency"]["response"]["count"], *response.1);
}

#[test]
fn the_records_of_older_versions_are_told_as_logs_too() {
    let record = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/record/2026-11-22-quick");
    let output = loadgen(&["report", record, "--hlog"]);
    let (sums, _) = read_log(&String::from_utf8(output.stdout).unwrap());
    assert!(sums.len() > 3 && sums.keys().all(|tag| tag.contains("/round")), "{:?}", sums.keys());
}
