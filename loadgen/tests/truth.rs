//! What is reported is what was injected: a server with known service times, or one that stalls.
//!
//! A busy machine can only add to a latency, so the tests that run everywhere ask for no more than
//! what must show whatever else the machine does. The exact ones want a quiet machine, or take the
//! seconds in which it was quiet. Service times there are of milliseconds, so that 2 % of them is
//! more than what the way to the server and back takes:
//!
//! ```text
//! cargo test --release -p loadgen --test truth -- --ignored --nocapture --test-threads 1
//! ```

#![allow(clippy::unwrap_used, reason = "a failure here fails the test, as it should")]

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

const LOADGEN: &str = env!("CARGO_BIN_EXE_loadgen");
/// The percentiles that are compared, by their names in reports.
const RANKS: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)];

/// A server with known service times.
struct Synthetic {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
    addr: String,
}

impl Synthetic {
    fn start(args: &[&str]) -> Self {
        let mut child = Command::new(LOADGEN)
            .args(["exec", "--cpus", "0", "--parent", &std::process::id().to_string(), "--"])
            .args([LOADGEN, "null-server"])
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let addr = line.trim().strip_prefix("listening on ").unwrap().to_owned();
        Self { child, out, addr }
    }

    /// Ends it; returns what it says that it has injected.
    fn injected(mut self) -> Value {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let mut text = String::new();
        self.out.read_to_string(&mut text).unwrap();
        self.child.wait().unwrap();
        serde_json::from_str(&text).unwrap()
    }
}

/// `loadgen run` against it, without a warm-up.
fn run(addr: &str, args: &[&str]) -> Value {
    let output = Command::new(LOADGEN)
        .args(["run", "--json", "--warmup", "0s", "--addr", addr])
        .args(args)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let value: Value = serde_json::from_slice(&output.stdout).expect(&stderr);
    assert!(!value["run"]["measured"].is_null(), "{}", value["run"]["verdict"]);
    value["run"].clone()
}

fn latency(run: &Value, name: &str, of: &str) -> f64 {
    run["measured"]["latency"][name][of].as_f64().unwrap()
}

fn ms(ns: f64) -> f64 {
    ns / 1e6
}

/// A stall of 0.4 s in a window of 1.2 s, under both kinds of loop.
#[test]
fn open_loop_shows_a_stall_and_closed_loop_hides_it() {
    let stalling = ["--service", "constant:1ms", "--stall-after", "450", "--stall-for", "400ms"];
    let server = Synthetic::start(&stalling);
    let load = ["--workload", "open-loop", "--connections", "50", "--duration", "1200ms"];
    let rate = ["--rate", "1000", "--arrivals", "uniform"];
    let open = run(&server.addr, &[&load[..], &rate].concat());
    // A third of the messages come due while the server stands still, and wait for from 0 to
    // 0.4 s: one in ten of all waits for more than 0.4 s - 0.1 x 1.2 s.
    let p90 = ms(latency(&open, "response", "p90"));
    assert!(p90 > 270.0, "p90 of {p90} ms");
    let counts = &open["measured"]["open_loop"];
    let count = |name: &str| counts[name].as_u64().unwrap();
    assert_eq!(count("scheduled"), 1200);
    assert_eq!(count("sent") + count("unsent"), 1200);
    assert!(count("queued") > 0, "50 connections are soon busy: {counts}");

    let server = Synthetic::start(&stalling);
    let load = ["--workload", "ping-pong", "--connections", "50", "--duration", "1200ms"];
    let closed = run(&server.addr, &load);
    // One message of each connection at most waits for the stall, whatever the users would feel.
    let hidden = ms(latency(&closed, "latency", "p90"));
    assert!(hidden < p90 / 2.0, "closed loop: p90 of {hidden} ms, open loop: {p90} ms");
    // A generator that stood still when the stall began has asked later, and waited for less of it.
    assert!(ms(latency(&closed, "latency", "max")) > 200.0, "one of them did wait");
}

/// No answer comes before its time, and the times are those that were injected or more.
#[test]
fn service_times_are_at_least_what_was_injected() {
    let server = Synthetic::start(&["--service", "bimodal:2ms:40ms:0.2"]);
    let load = ["--workload", "open-loop", "--connections", "100", "--duration", "500ms"];
    let run =
        run(&server.addr, &[&load[..], &["--rate", "1000", "--arrivals", "uniform"]].concat());
    let service = |of| ms(latency(&run, "service", of));
    assert!(service("min") >= 1.99, "{} ms", service("min"));
    assert!(service("p90") >= 39.9, "{} ms", service("p90"));
    let parts = latency(&run, "service", "mean") + latency(&run, "lateness", "mean");
    let response = latency(&run, "response", "mean");
    // Histograms keep three significant digits.
    assert!((response / parts - 1.0).abs() < 0.01, "{response} is not the sum, {parts}");
    let injected = server.injected();
    // On a busy machine what was due at the end may find no room.
    let counts = &run["measured"]["open_loop"];
    let [sent, unsent] = ["sent", "unsent"].map(|name| counts[name].as_u64().unwrap());
    assert_eq!((sent + unsent, injected["drawn"]["count"].as_u64()), (500, Some(sent)), "{counts}");
    assert!(ms(injected["drawn"]["p90"].as_f64().unwrap()) >= 39.9, "{injected}");
}

/// Within 2 % or 20 us.
fn near(reported: f64, injected: f64) -> bool {
    (reported - injected).abs() <= (0.02 * injected).max(20_000.0)
}

/// Compares all ranks, prints them, and says which were too far off.
fn compare(kind: &str, reported: &Value, expected: impl Fn(&str, f64) -> f64) -> Vec<String> {
    let mut off = Vec::new();
    for (name, q) in RANKS {
        let (reported, expected) = (reported[name].as_f64().unwrap(), expected(name, q));
        println!(
            "{kind:<40} {name:<5} {:>10.1} us  of {:>10.1} us",
            reported / 1e3,
            expected / 1e3
        );
        if !near(reported, expected) {
            off.push(format!("{kind} {name}: {reported} ns, not {expected} ns"));
        }
    }
    off
}

/// Whether the host let the machine alone, as told by the speed of its processors and by steal
/// time, not by any message.
fn quiet(verdict: &Value) -> bool {
    let host = |reason: &Value| reason.as_str().unwrap().contains("other guests of this host");
    !verdict["reasons"].as_array().unwrap().iter().any(host)
}

/// In seconds with a quiet machine, all ranks are what the server drew.
#[test]
#[ignore = "needs quiet seconds: for a machine of one's own, or patience"]
fn reported_quantiles_are_the_injected_ones() {
    let mut off = Vec::new();
    for text in ["constant:50ms", "bimodal:2ms:20ms:0.05", "pareto:2ms:1.5:200ms"] {
        let mut seconds = 0;
        for _ in 0..60 {
            let server = Synthetic::start(&["--service", text]);
            let load = ["--workload", "open-loop", "--connections", "500", "--duration", "1s"];
            let run = run(&server.addr, &[&load[..], &["--rate", "2000"]].concat());
            let injected = server.injected();
            if quiet(&run["verdict"]) {
                seconds += 1;
                println!("{text}: {}", run["verdict"]["status"]);
                let reported = &run["measured"]["latency"]["service"];
                let of = |name: &str, _| injected["drawn"][name].as_f64().unwrap();
                off.extend(compare(text, reported, of));
            }
            if seconds == 5 {
                break;
            }
        }
        assert!(seconds >= 3, "{seconds} quiet seconds in a minute are too few to say anything");
    }
    assert!(off.is_empty(), "{off:#?}");
}

/// The one second of a stall, at the rank where it belongs: of `r x d` messages, `r x 1 s` wait
/// for what is left of that second when they come, evenly from 0 to 1 s.
#[test]
#[ignore = "exact to 2 %: for a quiet machine"]
fn a_stalled_second_is_seen_at_its_rank() {
    let (seconds, service) = (5.0, 5e6);
    let stalling = ["--service", "constant:5ms", "--stall-after", "1400", "--stall-for", "1s"];
    let load = ["--connections", "1000", "--duration", "5s"];
    // At equal distances: how many fall into that second is not left to chance. And few, so that
    // answering them all when it is over takes no time to speak of.
    let open = ["--workload", "open-loop", "--rate", "400", "--arrivals", "uniform"];
    let server = Synthetic::start(&stalling);
    let run_open = run(&server.addr, &[&load[..], &open].concat());
    println!("open loop: {}", run_open["verdict"]);
    let expected = |_: &str, q: f64| {
        // Above this rank are those who waited: the longest one second, the shortest not at all.
        let waited = 1.0 - q;
        service + (1.0 - waited * seconds).max(0.0) * 1e9
    };
    let off = compare("open loop", &run_open["measured"]["latency"]["response"], expected);
    let server = Synthetic::start(&stalling);
    let closed = ["--workload", "ping-pong", "--connections", "16", "--duration", "5s"];
    let run_closed = run(&server.addr, &closed);
    println!("closed loop: {}", run_closed["verdict"]);
    compare("closed loop", &run_closed["measured"]["latency"]["latency"], expected);
    assert!(off.is_empty(), "{off:#?}");
    let hidden = ms(latency(&run_closed, "latency", "p99"));
    assert!(hidden < 10.0, "closed loop does not see the stall at p99: {hidden} ms");
}

/// `loadgen run` of a workload over 1,000 connections to epoll-level, for a second.
fn second(workload: &[&str]) -> Value {
    let load = ["--model", "epoll-level", "--connections", "1000", "--duration", "1s"];
    let output =
        Command::new(LOADGEN).args(["run", "--json"]).args(load).args(workload).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice::<Value>(&output.stdout).expect(&stderr)["run"].clone()
}

/// At half of what a server can do at most, messages leave in time and at the rate asked for. A
/// second in which the host slowed or took the processors is not counted; the run must say so.
#[test]
#[ignore = "needs quiet seconds: for a machine of one's own, or patience"]
fn at_half_of_capacity_messages_are_sent_in_time() {
    let rate = |_| second(&["--workload", "ping-pong"])["measured"]["messages_per_second"].as_f64();
    let mut rates: Vec<f64> = (0..5).filter_map(rate).collect();
    rates.sort_by(f64::total_cmp);
    let half = (rates[rates.len() / 2] / 2.0).round().to_string();
    println!("half of the median capacity of five seconds: {half} messages/s");
    let (mut valid, mut off) = (0, Vec::new());
    for _ in 0..60 {
        let run = second(&["--workload", "open-loop", "--rate", &half]);
        let verdict = &run["verdict"];
        let measured = &run["measured"];
        println!(
            "{:<7} slow {:4.1} %, sent/s {:>8.0}, lateness p99 {:>8.1} us, service p99 {:>8.1} us",
            verdict["status"].as_str().unwrap(),
            measured["slow_processors"].as_f64().unwrap() * 100.0,
            measured["open_loop"]["sent_per_second"].as_f64().unwrap(),
            latency(&run, "lateness", "p99") / 1e3,
            latency(&run, "service", "p99") / 1e3,
        );
        match (quiet(verdict), verdict["status"] == "VALID") {
            (false, _) => {}
            (true, true) => valid += 1,
            (true, false) => off.push(verdict.clone()),
        }
        if valid + off.len() == 10 {
            break;
        }
    }
    println!("{valid} of {} quiet seconds are VALID", valid + off.len());
    assert!(valid >= 5 && off.len() * 10 <= valid, "{valid} VALID, {off:#?}");
}
