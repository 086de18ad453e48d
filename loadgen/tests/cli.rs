//! The command line as people meet it: good input works, bad input gets one clear error.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test, as it should")]

mod common;

use std::process::{Command, Output, Stdio};

use base64::prelude::{BASE64_STANDARD, Engine};
use common::Wrong;
use common::program::{LOADGEN, SHORT, folder, loadgen, models, refused};
use hdrhistogram::serialization::Deserializer;
use serde_json::Value;

#[test]
fn wrong_use_is_refused_with_what_to_do() {
    refused(&[], 2, &["Usage"]);
    refused(&["fly"], 2, &["unrecognized subcommand"]);
    refused(&["run"], 2, &["--addr", "--model", "--cmd"]);
    refused(&["run", "--model", "epol-level"], 2, &["did you mean epoll-level?"]);
    refused(&["run", "--model", "nginx"], 2, &["there are", "threads", "tokio"]);
    refused(&["run", "--addr", "here"], 2, &["HOST:PORT"]);
    refused(&["run", "--cmd", "my-server"], 2, &["{addr}"]);
    refused(&["run", "--addr", "[::1]:9", "--nats", "nats://[::1]"], 2, &["add --agents"]);
    refused(&["compare", "--models", "epoll-level,nginx"], 2, &["nginx"]);
    refused(&["run", "--cmd", "my-server {hots} {port}"], 2, &["did you mean {host}?"]);
    refused(&["compare", "--workloads", "ping"], 2, &["ping-pong", "fan-out"]);
    refused(&["compare", "--workloads", "fanout"], 2, &["did you mean fan-out?"]);
    refused(&["compare", "--rounds", "0"], 2, &["--rounds"]);
    refused(&["compare", "--connections", "16,many"], 2, &["many", "--connections"]);
    refused(&["compare", "--size", "64,4", "--depth", "1,2"], 2, &["16 to 65536 bytes"]);
    refused(&["calibrate", "--handicap", "10"], 2, &["10%"]);
    refused(&["calibrate", "--rounds", "5"], 2, &["6 is the fewest"]);
    refused(&["calibrate", "--workload", "fan-out"], 2, &["needs an echo workload"]);
    refused(&["calibrate", "--workload", "hog"], 2, &["without a disturbance"]);
    refused(&["list", "--models-file", "/nowhere.toml"], 2, &["/nowhere.toml"]);
}

#[test]
fn a_peer_that_is_not_installed_is_said_with_how_to_get_it() {
    let file = folder("peers").join("models.toml");
    let text = "[model.absent]\nprogram = \"target/no-such-peer\"\nsetup = \"./get it\"\n\
                needs = { no-such-tool = \"install it\" }\nmodes = [\"echo\"]\n";
    std::fs::write(&file, text).unwrap();
    let file = file.display().to_string();
    let how = "no-such-tool is missing; get it: install it && ./get it";
    let list = loadgen(&["list", "--models-file", &file, "--json"]);
    let value: Value = serde_json::from_slice(&list.stdout).unwrap();
    assert_eq!(value["models"][0]["missing"], how);
    refused(&["run", "--model", "absent", "--models-file", &file], 2, &["absent", how]);
    refused(&["compare", "--models", "absent", "--models-file", &file], 2, &["absent", how]);
    // Only --serve starts any of them.
    let agent = ["agent", "--nats", "nats://127.0.0.1:1", "--models-file", &file];
    refused(&agent, 2, &["--models-file", "--serve"]);
    std::fs::write(&file, format!("{text}command = \"b {{addr}}\"\n")).unwrap();
    refused(&["list", "--models-file", &file], 2, &["absent", "a command or a program"]);
}

#[test]
fn numbers_that_do_not_fit_are_refused() {
    let run = |more: &[&str], says: &[&str]| {
        refused(&[&["run", "--addr", "127.0.0.1:1"], more].concat(), 2, says);
    };
    run(&["--size", "4"], &["16 to 65536 bytes"]);
    run(&["--connections", "0"], &["--connections"]);
    run(&["--connections", "many"], &["--connections"]);
    run(&["--duration", "soon"], &["--duration"]);
    run(&["--duration", "0s"], &["--duration", "from 1ms to 1day"]);
    run(&["--duration", "2days"], &["--duration", "from 1ms to 1day"]);
    run(&["--stall-timeout", "0s"], &["--stall-timeout", "from 1ms to 1day"]);
    run(&["--active", "65"], &["--active 65 is more than --connections 64"]);
    run(&["--workload", "fan-out", "--size", "500"], &["15 to 350"]);
    run(&["--workload", "fan-out", "--speakers", "300"], &["no more speakers than members"]);
    run(&["--workload", "fan-out", "--mode", "echo"], &["drives chat"]);
    run(&["--workload", "ping-pong", "--server-time"], &["belongs to the chat workloads"]);
    run(&["--rate", "0"], &["--rate", "from 0.01 to 100000000"]);
    run(&["--when-busy", "drop"], &["give it a --rate"]);
    run(&["--sizes", "64:90,1024"], &["BYTES:WEIGHT"]);
    run(&["--sizes", "64:90,8:1"], &["--size 8 does not fit"]);
    run(&["--workload", "fan-out", "--sizes", "64:1,65:1"], &["--sizes belongs to the echo"]);
    let pipelined = ["--workload", "fan-out", "--rate", "9", "--when-busy", "pipeline"];
    run(&pipelined, &["belongs to echo"]);
    run(&["--server-cpus", "4000"], &["processors"]);
    run(&["--wait", "5ms"], &["a server of this workspace"]);
    run(&["--workload", "working-handler"], &["a server of this workspace"]);
    run(&["--disturbance", "noise"], &["connect-storm", "half-open"]);
    run(&["--disturbers", "3"], &["--disturbance"]);
    run(&["--churn", "1", "--disturbance", "hog"], &["bystanders stay"]);
    run(&["--work", "2s"], &["--work", "from 0s to 1s"]);
    run(&["--pid", "0"], &["--pid"]);
}

#[test]
fn what_cannot_be_reached_is_said() {
    let (_held, addr) = common::refusing();
    refused(&["run", "--addr", &addr.to_string()], 1, &["is a server listening there?"]);
    refused(&["run", "--addr", "127.0.0.1:1", "--connections", "999999"], 1, &["ulimit -Hn"]);
    let no_such = ["run", "--cmd", "/no/such/server {addr}"];
    refused(&no_such, 1, &["did not start", "/no/such/server", "No such file"]);
}

#[test]
fn a_server_that_dies_is_quoted() {
    let script = folder("dies").join("server.sh");
    let text = format!(
        "echo 'my last words' >&2\n{LOADGEN} null-server --listen $1 &\nsleep 0.5\nkill $!\nexit 3\n"
    );
    std::fs::write(&script, text).unwrap();
    let command = format!("sh {} {{addr}}", script.display());
    let args = ["run", "--cmd", &command, "--duration", "20s", "--warmup", "10s"];
    let said = refused(&args, 1, &["my last words", "exit code 3"]);
    assert_eq!(said.matches("my last words").count(), 1, "{said}");
}

#[test]
fn verify_names_the_cases() {
    let right = common::echo(Wrong::Nothing).to_string();
    let output = loadgen(&["verify", "--addr", &right, "--json"]);
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    let result = |case: &str| {
        let all = value["findings"].as_array().unwrap();
        all.iter().find(|f| f["case"] == case).unwrap()["result"].clone()
    };
    // The server of the tests has no limit on a line, and nothing else to blame.
    assert_eq!((result("half-close"), result("over-long-line")), ("pass".into(), "lacks".into()));
    assert_eq!(result("not-before-asked"), "pass");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn compare_goes_on_without_those_that_fail() {
    let dir = folder("compare");
    let (file, out) = (models(&dir), dir.join("record").display().to_string());
    let args = ["compare", "--models-file", &file, "--only-models-file", "--json"];
    let more = ["--workloads", "ping-pong,idle", "--rounds", "2", "--connections", "20"];
    let output = loadgen(&[&args[..], &more, &["--out", &out], &SHORT].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    let value: Value = serde_json::from_slice(&output.stdout).expect(&stderr);
    let comparison = &value["comparison"];
    // They were not named.
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert_eq!(comparison["failed"], serde_json::json!(["dies", "strict"]));
    let left_out: Vec<_> = comparison["left_out"].as_array().unwrap().iter().collect();
    assert_eq!(left_out.len(), 3, "{left_out:?}");
    let why = |n: usize| left_out[n][1].as_str().unwrap();
    assert!(why(0).contains("at most 1 at once"), "{left_out:?}");
    assert!(why(2).contains("fails the echo gate: over-long-line: "), "{left_out:?}");
    assert!(why(2).contains("; not-before-asked: "), "each case is named: {left_out:?}");
    for section in comparison["sections"].as_array().unwrap() {
        let rows = section["rows"].as_array().unwrap();
        let names: Vec<_> = rows.iter().map(|row| row["server"].as_str().unwrap()).collect();
        assert!(names.contains(&"one") && names.contains(&"two"), "{names:?}");
        assert_eq!(names[2], "null (bare epoll)", "the reference comes last");
        assert!(rows[2]["rank"].is_null(), "the reference is never ranked");
        assert!(rows[0]["rank"] == 1 && rows[0]["cpu_ns"]["median"].as_f64().unwrap() > 0.0);
    }
    let runs = std::fs::read_to_string(dir.join("record/runs.jsonl")).unwrap();
    let runs: Vec<Value> = runs.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(runs.len(), 2 * 2 * 4, "two servers and the reference twice");
    let order = |n: usize| runs[n]["server"].as_str().unwrap();
    let (mut first, mirrored) = ([0, 1, 2, 3].map(order), [11, 10, 9, 8].map(order));
    first.rotate_left(2);
    assert_eq!(first, mirrored, "the second round begins in the middle, and is mirrored");
    let recorded = |holder: &Value| -> u64 {
        let text = holder["histograms"]["latency"].as_str().unwrap();
        let bytes = BASE64_STANDARD.decode(text).unwrap();
        let histogram = Deserializer::new().deserialize::<u64, _>(&mut &bytes[..]);
        histogram.unwrap().len()
    };
    assert_eq!(recorded(&runs[0]), runs[0]["measured"]["messages"].as_u64().unwrap());
    assert_eq!(runs[0]["seconds"], serde_json::json!([]), "one second is the whole");
    for file in ["host.json", "result.json"] {
        let text = std::fs::read_to_string(dir.join("record").join(file)).unwrap();
        serde_json::from_str::<Value>(&text).unwrap();
    }
    let again = [&args[..4], &more, &["--out", &out], &SHORT].concat();
    refused(&again, 2, &["holds a record already"]);
}

#[test]
fn a_server_that_was_named_and_fails_is_an_error() {
    let file = models(&folder("named"));
    let compare = |models: &str| {
        let args = ["compare", "--models-file", &file, "--models", models, "--rounds", "1"];
        let output = loadgen(&[&args[..], &["--workloads", "ping-pong"], &SHORT].concat());
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    for fails in ["dies", "strict"] {
        let (code, text) = compare(&format!("one,{fails}"));
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains("| one") && text.contains(&format!("  {fails}: ")), "{text}");
    }
    let (code, text) = compare("one,alone");
    assert_eq!(code, Some(0), "what it is known not to do is no failure: {text}");
    assert!(text.contains("at most 1 at once"), "{text}");
}

/// What bash says to a script that may use `$0` for the program.
fn script(text: &str) -> Output {
    Command::new("bash").args(["-c", text, LOADGEN]).output().unwrap()
}

#[test]
fn a_shortage_of_descriptors_is_told_before_anything_starts() {
    let output = script("ulimit -n 80; exec $0 run --cmd '/no/such {addr}' --connections 30");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    for part in ["30 connections need 94 file descriptors", "hard limit is 80", "--connections"] {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
}

/// A process takes a descriptor while it is looked at. The thousand of prefork are looked at beside
/// thousands of connections.
#[test]
fn many_processes_and_few_descriptors_hide_no_cost() {
    let mut crowd: Vec<_> = (0..100)
        .map(|_| Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap())
        .collect();
    let output = script(
        "ulimit -n 90; exec $0 run --cmd \"$0 null-server --listen {addr}\" --connections 4 \
         --duration 100ms --warmup 20ms --json",
    );
    for child in &mut crowd {
        drop(child.stdin.take());
        child.wait().unwrap();
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let value: Value = serde_json::from_slice(&output.stdout).expect(&text);
    let cost = &value["run"]["measured"]["cost"];
    assert!(cost["cpu_ns_per_message"].as_f64().unwrap() > 0.0, "{cost:#}");
    assert_eq!(cost["threads"], 1, "{cost:#}");
}

#[test]
fn a_shortage_of_ports_keeps_the_finished_rounds() {
    // A network of its own where one address's ports are used up after a few runs. The connections
    // of a run find other addresses then; the first contact, which has none to choose, does not.
    let network = "ip link set lo up && echo 0 > /proc/sys/net/ipv4/tcp_tw_reuse && \
                   echo 40000 40099 > /proc/sys/net/ipv4/ip_local_port_range";
    if !script(&format!("unshare -rn bash -c '{network}'")).status.success() {
        return eprintln!("skipped: no network namespace may be made here");
    }
    let file = models(&folder("ports"));
    let output = script(&format!(
        "unshare -rn bash -c '{network} && exec $0 compare --models-file {file} --models one \
         --reference=false --workloads ping-pong --rounds 900 --duration 100ms --warmup 20ms' $0"
    ));
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(stdout.contains("of 900 rounds"), "{stderr}");
    assert!(stdout.contains("no local port is left") && stdout.contains("TIME_WAIT"), "{stdout}");
}

#[test]
fn a_full_standard_output_is_an_error() {
    let output = script("exec $0 list > /dev/full");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("No space left"), "{stderr}");
}

#[test]
fn a_control_enters_each_server_twice_at_each_point_of_the_grid() {
    let file = models(&folder("control"));
    let args = ["compare", "--models-file", &file, "--models", "one", "--control", "--json"];
    let grid = ["--connections", "2,4", "--depth", "3", "--rounds", "6", "--reference=false"];
    let output = loadgen(&[&args[..], &grid, &SHORT].concat());
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    let comparison = &value["comparison"];
    let point = |n: usize| {
        let workload = &comparison["sections"][n]["workload"];
        [&workload["connections"], &workload["depth"]].map(|value| value.as_u64().unwrap())
    };
    assert_eq!([0, 1].map(point), [[2, 3], [4, 3]]);
    assert_eq!(comparison["control"]["pairs"], 2);
    // Chance may find a difference; then it must be said, and fail.
    let found = comparison["control"]["found"].as_array().unwrap();
    let (code, says) = if found.is_empty() { (0, "holds") } else { (1, "is broken") };
    assert_eq!(output.status.code(), Some(code));
    assert!(comparison["answer"][0].as_str().unwrap().contains(says), "{comparison:#}");
}

#[test]
fn a_comparison_of_no_server_is_an_error() {
    let dir = folder("no-server");
    let (file, out) = (models(&dir), |name| dir.join(name).display().to_string());
    let args = ["compare", "--models-file", &file, "--models"];
    let chat = ["one", "--workloads", "fan-out", "--out", &out("chat")];
    refused(&[&args[..], &chat].concat(), 1, &["no server is left to compare", "speaks"]);
    let alone = ["alone", "--workloads", "ping-pong", "--out", &out("alone")];
    let output = loadgen(&[&args[..], &alone].concat());
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("alone: echo: the model serves at most 1 at once"), "{text}");
    assert!(!text.contains("null (bare epoll)"), "the reference is not driven alone: {text}");
}

#[test]
fn a_prescribed_rate_is_the_limit_of_no_server() {
    let dir = folder("prescribed");
    let file = models(&dir);
    let args = ["compare", "--models-file", &file, "--models", "one", "--rounds", "6"];
    let more = ["--workloads", "open-loop", "--connections", "20", "--rate", "1000"];
    let output = loadgen(&[&args[..], &more, &SHORT].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("| one") && text.contains("noise floor"), "{text}");
    for untrue in ["rank no server", "% of messages/s", "a rate says who was faster"] {
        assert!(!text.contains(untrue), "{untrue}: {text}");
    }
}

#[test]
fn a_large_handicap_is_found() {
    let args = ["calibrate", "--pairs", "1", "--rounds", "6", "--handicap", "300%", "--json"];
    let output = loadgen(&[&args[..], &["--connections", "4"], &SHORT].concat());
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    let calibration = &value["calibration"];
    assert_eq!((&calibration["slower"], &calibration["faster"]), (&1.into(), &0.into()));
    assert!(calibration["pairs"][0]["ratio"].as_f64().unwrap() > 2.0, "{calibration:#}");
    assert!(calibration["rate"]["median"].as_f64().unwrap() > 0.0);
}

#[test]
fn a_full_disk_costs_the_record_and_not_the_result() {
    let dir = folder("full");
    let file = models(&dir);
    // A limit on the size of files stands in for the disk: writes fail once the signal that
    // comes with it is ignored.
    let output = script(&format!(
        "trap '' XFSZ; ulimit -f 4 && exec $0 compare --models-file {file} --models one \
         --workloads ping-pong --rounds 2 --duration 100ms --warmup 20ms --out {0}/record",
        dir.display()
    ));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("is incomplete"), "{stderr}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("2 of 2 rounds"), "{stderr}");
}

#[test]
fn compare_prints_a_table_that_a_pipe_can_take() {
    let dir = folder("table");
    let (file, out) = (models(&dir), dir.join("record").display().to_string());
    let args = ["compare", "--models-file", &file, "--models", "one,two", "--rounds", "2"];
    let more = ["--workloads", "ping-pong", "--out", &out];
    let output = loadgen(&[&args[..], &more, &SHORT].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("| rank | server"), "{text}");
    assert!(text.contains("ranked by CPU per message"), "{text}");
    assert!(!text.contains('\u{1b}'), "no escapes into a pipe");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains("round 1 of 2: ping-pong, 64 connections, 64 B, depth 1: one"),
        "{stderr}"
    );
    let again = loadgen(&["report", &out]);
    assert_eq!(again.status.code(), Some(0), "{}", String::from_utf8_lossy(&again.stderr));
    assert_eq!(String::from_utf8_lossy(&again.stdout), text, "the record holds all of it");
}

#[test]
fn list_names_everything() {
    let text = String::from_utf8(loadgen(&["list"]).stdout).unwrap();
    for name in ["epoll-level", "tokio-per-core", "fan-out", "churn", "by name", "open-loop"] {
        assert!(text.contains(name), "{name}: {text}");
    }
    let value: Value = serde_json::from_slice(&loadgen(&["list", "--json"]).stdout).unwrap();
    assert!(value["models"].as_array().unwrap().len() >= 5);
}
