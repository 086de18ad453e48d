//! What the workloads beside ping-pong and fan-out report, from a server that does nothing wrong.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test, as it should")]

mod common;

use std::path::PathBuf;
use std::process::{Command, Output};

use common::Wrong;
use serde_json::Value;

const LOADGEN: &str = env!("CARGO_BIN_EXE_loadgen");

/// A file of this test's own.
fn file(name: &str, text: &str) -> String {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// A models file with a server that dies at once and two null references.
fn models(name: &str) -> String {
    let entry = |(name, command)| {
        // The null reference answers half lines and has no limit.
        format!(
            "[model.{name}]\ncommand = \"{command} {{addr}}\"\nmodes = [\"echo\"]\n\
             [model.{name}.unsupported]\nsplit-lines = \"no lines\"\n\
             over-long-line = \"no limit\"\nnot-before-asked = \"no lines\"\n"
        )
    };
    let null = format!("{LOADGEN} null-server --listen");
    let entries = [("dies", "false"), ("one", &null), ("two", &null)];
    file(name, &entries.map(entry).concat())
}

/// The numbers of a run with these flags.
fn measured(args: &[&str]) -> Value {
    let addr = common::echo(Wrong::Nothing).to_string();
    let output = Command::new(LOADGEN)
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

/// Where the generator has a processor to itself it waits without sleeping, and that is no work.
#[test]
fn an_open_loop_that_waits_is_not_at_work() {
    let measured =
        |rate| measured(&["--workload", "open-loop", "--connections", "20", "--rate", rate]);
    // Time of a processor, so that a machine that is busy otherwise changes little in it. To wait
    // without sleeping takes all that is left of one.
    for (rate, most) in [("50", 0.05), ("1000", 0.25)] {
        let busy = measured(rate)["generator_cpu"].as_f64().unwrap();
        assert!(busy < most, "{busy} of a processor for {rate} messages a second");
    }
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

#[test]
fn a_file_of_ones_own_is_a_workload() {
    let text = "summary = 'what users of ours ask'\nmode = 'echo'\nconnections = 6\nsize = 100\n\
                depth = 2\nrate = 700\nduration = '300ms'\n";
    let own = file("own.toml", text);
    let addr = common::echo(Wrong::Nothing).to_string();
    let run = ["run", "--json", "--addr", &addr, "--workload", &own, "--depth", "3"];
    let output = Command::new(LOADGEN).args(run).args(["--warmup", "20ms"]).output().unwrap();
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    let workload = &value["run"]["workload"];
    assert_eq!((&workload["name"], &workload["size"]), (&"own.toml".into(), &100.into()));
    assert_eq!((&workload["rate"], &workload["depth"]), (&700.0.into(), &3.into()));
    let (wrong, nowhere) = (file("wrong.toml", &format!("{text}colour = 'red'")), "nowhere.toml");
    for (command, flag) in [("run", "--workload"), ("compare", "--workloads")] {
        for (file, says) in [
            (&*wrong, "wrong.toml, line 8: unknown field `colour`"),
            (nowhere, "cannot read nowhere.toml: No such file"),
        ] {
            let server: &[&str] = if command == "run" { &["--addr", &addr] } else { &[] };
            let args = [&[command, flag, file][..], server].concat();
            let output = Command::new(LOADGEN).args(args).output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.code() == Some(2) && stderr.contains(says), "{stderr}");
        }
    }
}

#[test]
fn rates_and_files_make_a_grid() {
    let own = "summary = 'x'\nmode = 'echo'\nconnections = 3\nsize = 100\ndepth = 1\n";
    let (models, own) = (models("grid.toml"), file("grid-own.toml", own));
    let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("grid-record");
    let _ = std::fs::remove_dir_all(&out);
    let output = Command::new(LOADGEN)
        .args(["compare", "--models-file", &models, "--models", "one", "--reference=false"])
        .args(["--workloads", &format!("{own},open-loop"), "--rate", "300,900.5"])
        .args(["--rounds", "1", "--duration", "100ms", "--warmup", "20ms", "--out"])
        .arg(&out)
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    for rate in ["300/s", "900.5/s"] {
        let (own, usual) = ("grid-own.toml, 3 connections, 100 B, depth 1", "open-loop, ");
        let named = |name: &str| stdout.lines().any(|l| l.contains(name) && l.contains(rate));
        assert!(named(own) && named(usual), "{rate}: {stdout}");
    }
}

/// In turns of 25 ms and a schedule each: all together are the one that was asked for.
#[test]
fn an_open_loop_of_a_moderate_rate_takes_turns_and_keeps_its_rate() {
    let models = models("turns.toml");
    let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("turns-record");
    let _ = std::fs::remove_dir_all(&out);
    let output = Command::new(LOADGEN)
        .args(["compare", "--models-file", &models, "--models", "one", "--workloads", "quiet"])
        .args(["--rounds", "1", "--duration", "330ms", "--warmup", "20ms", "--out"])
        .arg(&out)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("3 servers in turns"), "{stderr}");
    let runs = std::fs::read_to_string(out.join("runs.jsonl")).unwrap();
    assert_eq!(runs.lines().count(), 3, "one, and the reference twice");
    for run in runs.lines() {
        let run: Value = serde_json::from_str(run).unwrap();
        let (kept, measured) = (&run["measured"]["open_loop"], &run["measured"]);
        assert_eq!(kept["scheduled"], 660, "2,000 a second in 330 ms: {kept:#}");
        // On a busy machine what was due at the end of a turn may find no room.
        let [sent, unsent] = ["sent", "unsent"].map(|name| kept[name].as_u64().unwrap());
        assert_eq!(sent + unsent, 660);
        assert_eq!(measured["messages"].as_u64().unwrap(), sent, "all that was sent came back");
        let rate = kept["sent_per_second"].as_f64().unwrap();
        assert!(rate <= 2001.0, "{rate} in all windows together");
    }
}

/// A search that is over in seconds: what is asked for always holds until messages stay unsent.
const SEARCH: [&str; 9] = [
    "find-max",
    "--objective",
    "max<90s",
    "--from",
    "100000",
    "--duration",
    "100ms",
    "--warmup",
    "20ms",
];

#[test]
fn a_search_goes_on_without_a_server_that_fails() {
    let models = models("find-max-fails.toml");
    let output = Command::new(LOADGEN)
        .args(SEARCH)
        .args(["--models-file", &models, "--models", "dies,one", "--json"])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let value: Value = serde_json::from_slice(&output.stdout).expect(&stderr);
    assert_eq!(output.status.code(), Some(1), "one of the two has no answer");
    let found = |n: usize| &value["found"][n];
    let why = found(0)["failed"].as_str().unwrap();
    assert!(found(0)["server"] == "dies" && why.contains("did not start"), "{value:#}");
    assert!(found(0)["rate"].is_null() && found(1)["failed"].is_null(), "{value:#}");
    assert!(found(1)["rate"].as_f64().unwrap() > 1000.0, "{value:#}");
}

#[test]
fn ctrl_c_keeps_the_servers_that_were_searched() {
    let models = models("find-max-interrupted.toml");
    let mut search = Command::new(LOADGEN);
    search.args(SEARCH).args(["--models-file", &models, "--models", "one,two"]);
    let (_, text) = common::interrupted(&mut search, "two: ");
    let row = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    assert!(!row("| one").contains("not known: interrupted"), "{text}");
    assert!(row("| two").contains("not known: interrupted"), "{text}");
}

/// A run with 1000 connections in a network of its own, with so many ports for each address;
/// `None` where no such network may be made.
fn with_ports(ports: u32) -> Option<Output> {
    let network = format!(
        "ip link set lo up && echo 40000 {} > /proc/sys/net/ipv4/ip_local_port_range",
        39_999 + ports
    );
    let script = |text: &str| Command::new("bash").args(["-c", text, LOADGEN]).output().unwrap();
    let may = script(&format!("unshare -rn bash -c '{network}'")).status.success();
    may.then(|| {
        script(&format!(
            "unshare -rn bash -c '{network} && exec $0 run --json --connections 1000 \
             --cmd \"$0 null-server --listen {{addr}}\" --duration 100ms --warmup 20ms' $0"
        ))
    })
}

#[test]
fn a_short_range_of_ports_does_not_end_a_run_while_other_addresses_have_some() {
    let Some(enough) = with_ports(100) else {
        return eprintln!("skipped: no network namespace may be made here");
    };
    let stderr = String::from_utf8_lossy(&enough.stderr);
    let value: Value = serde_json::from_slice(&enough.stdout).expect(&stderr);
    assert_eq!(enough.status.code(), Some(0), "{}", value["run"]["verdict"]);
    assert_eq!(value["run"]["workload"]["connections"], 1000);
    // 65 addresses are tried, which have 650 ports together.
    let short = with_ports(10).unwrap();
    let stderr = String::from_utf8_lossy(&short.stderr);
    assert_eq!(short.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("no local port is left") && stderr.contains("TIME_WAIT"), "{stderr}");
}

#[test]
fn a_chat_that_asks_for_a_password_gets_it_from_a_file() {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("password");
    std::fs::create_dir_all(&dir).unwrap();
    let addr = common::closed_chat("open sesame").to_string();
    let run = |file: Option<&str>| {
        let path = dir.join("password.txt");
        let mut command = Command::new(LOADGEN);
        command.args(["run", "--addr", &addr, "--workload", "fan-out", "--members", "6", "--json"]);
        command.args(["--duration", "50ms", "--warmup", "0s", "--stall-timeout", "2s"]);
        command.args(["--out", &dir.join(file.unwrap_or("none")).display().to_string()]);
        if let Some(text) = file {
            std::fs::write(&path, format!("{text}\nnot this line\n")).unwrap();
            command.arg("--password-file").arg(&path);
        }
        command.output().unwrap()
    };
    let _ = std::fs::remove_dir_all(dir.join("open sesame"));
    let output = run(Some("open sesame"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(value["run"]["measured"]["messages"].as_u64().unwrap() > 0, "{value:#}");
    for file in ["runs.jsonl", "host.json", "result.json"] {
        let kept = std::fs::read_to_string(dir.join("open sesame").join(file)).unwrap();
        assert!(!kept.contains(":open sesame") && !kept.contains("\"open sesame\""), "{file}");
    }
    for (n, wrong) in [None, Some("open barley")].into_iter().enumerate() {
        let _ = std::fs::remove_dir_all(dir.join(wrong.unwrap_or("none")));
        let output = run(wrong);
        assert_eq!(output.status.code(), Some(1), "{n}");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains("no sensible answer"), "{n}: {stderr}");
    }
    assert_eq!(run(Some("")).status.code(), Some(2), "an empty password is none");
}
