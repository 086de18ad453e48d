//! Records and what is made of them: the same table again, JSON that keeps to its schema, CSV.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test, as it should")]

mod common;
#[path = "common/schema.rs"]
mod schema;

use std::io::Write;
use std::path::Path;
use std::process::Command;

use common::Wrong;
use common::program::{LOADGEN, folder, loadgen, refused};
use flate2::{Compression, write::GzEncoder};
use schema::complaints;
use serde_json::Value;

/// What it prints, if it ends with this exit code.
fn printed(args: &[&str], code: i32) -> String {
    let output = loadgen(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}\n{stdout}");
    stdout
}

/// A models file with two servers, which are the null reference.
fn models(dir: &Path) -> String {
    let entry = |name: &str| {
        format!(
            "[model.{name}]\ncommand = \"{LOADGEN} null-server --listen {{addr}}\"\n\
             modes = [\"echo\"]\n[model.{name}.unsupported]\nsplit-lines = \"no lines\"\n\
             over-long-line = \"no <limit>\"\nnot-before-asked = \"no lines\"\n"
        )
    };
    let file = dir.join("models.toml");
    std::fs::write(&file, entry("one") + &entry("two")).unwrap();
    file.display().to_string()
}

/// Compares them in `rounds` short rounds. Returns what was printed and the record.
fn compare(dir: &Path, rounds: u32, json: bool) -> (String, String) {
    let (file, out) = (models(dir), dir.join("record").display().to_string());
    let rounds = rounds.to_string();
    let mut args = vec!["compare", "--models-file", &file, "--only-models-file"];
    args.extend(["--rounds", &rounds, "--out", &out]);
    args.extend(["--workloads", "ping-pong,idle", "--connections", "20"]);
    args.extend(["--duration", "300ms", "--warmup", "20ms"]);
    args.extend(json.then_some("--json"));
    (printed(&args, 0), out)
}

#[test]
fn json_keeps_to_the_published_schema() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/schema/loadgen.schema.json");
    let published = std::fs::read_to_string(path).unwrap();
    let now = printed(&["schema"], 0);
    assert!(published == now, "loadgen schema > docs/schema/loadgen.schema.json; {now}");
    let schema: Value = serde_json::from_str(&now).unwrap();
    let check = |text: &str| {
        let value: Value = serde_json::from_str(text).unwrap();
        let complaints = complaints(&schema, &value);
        assert!(complaints.is_empty(), "{complaints:#?}");
        value
    };
    let (text, record) = compare(&folder("schema"), 1, true);
    let mut wrong = check(&text);
    assert_eq!(check(&printed(&["report", &record, "--json"], 0)), wrong);
    let addr = common::echo(Wrong::Nothing).to_string();
    check(&printed(&["run", "--addr", &addr, "--duration", "50ms", "--warmup", "0s", "--json"], 0));
    check(&printed(&["verify", "--addr", &addr, "--json"], 0));
    check(&printed(&["verify", "--addr", &addr, "--json", "--contract"], 1));
    check(&printed(&["list", "--json"], 0));
    // Its exit code is the machine's.
    let doctor = loadgen(&["doctor", "--json"]);
    check(&String::from_utf8(doctor.stdout).unwrap());
    wrong["comparison"]["sections"][0]["rows"][0]["cpu_ns"]["median"] = "fast".into();
    assert!(!complaints(&schema, &wrong).is_empty(), "a schema that takes anything says nothing");
}

#[test]
fn the_records_that_are_published_are_read() {
    let records = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/record");
    for name in ["2026-11-22-quick", "2026-11-28-full"] {
        let text = printed(&["report", &records.join(name).display().to_string()], 0);
        assert!(text.contains("How much the model is worth"), "{name}: {text}");
    }
}

/// A command that fails prints its error where its result would stand.
#[test]
fn json_of_what_fails_is_its_error() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/schema/loadgen.schema.json");
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let (_held, nowhere) = common::refusing();
    let nowhere = nowhere.to_string();
    let cases: [(&[&str], i32); 12] = [
        (&["run", "--addr", "here"], 2),
        (&["run", "--addr", &nowhere], 1),
        (&["run", "--cmd", "false {addr}"], 1),
        (&["run"], 2),
        (&["run", "--model", "epol-level"], 2),
        (&["compare", "--models", "epol-level"], 2),
        (&["compare", "--rounds", "0"], 2),
        (&["verify", "--addr", &nowhere, "--mode", "chat", "--server-cpus", "4000"], 2),
        (&["calibrate", "--rounds", "5"], 2),
        (&["find-max", "--models", "epol-level"], 2),
        (&["report", "/nowhere"], 2),
        (&["list", "--models-file", "/nowhere.toml"], 2),
    ];
    for (args, code) in cases {
        let output = loadgen(&[args, &["--json"]].concat());
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        let value: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{args:?}: {e}: {stderr}"));
        assert_eq!(complaints(&schema, &value), [""; 0], "{args:?}");
        let error = value["error"].as_str().unwrap();
        assert!(!error.is_empty() && stderr.contains(error), "{args:?}: {error:?}: {stderr}");
        let plain = loadgen(args);
        assert_eq!(plain.status.code(), Some(code), "{args:?}");
        assert!(plain.stdout.is_empty(), "{args:?}: nothing without --json");
    }
}

#[test]
fn an_error_beside_a_result_is_no_second_document() {
    let dir = folder("beside");
    let file = models(&dir);
    // A limit on the size of files stands in for a full disk.
    let text = format!(
        "trap '' XFSZ; ulimit -f 4 && exec {LOADGEN} compare --json --models-file {file} --models one \
         --workloads ping-pong --rounds 2 --duration 50ms --warmup 0s --out {}/record",
        dir.display()
    );
    let output = Command::new("bash").args(["-c", &text]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("is incomplete"), "{stderr}");
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(value["comparison"].is_object());
}

#[test]
fn a_record_that_was_cut_off_is_read_as_far_as_it_got() {
    let (text, record) = compare(&folder("cut"), 2, false);
    let dir = Path::new(&record);
    assert_eq!(printed(&["report", &record], 0), text, "whole, it gives the same table again");
    let result = std::fs::read_to_string(dir.join("result.json")).unwrap();
    std::fs::write(dir.join("result.json"), &result[..result.len() / 2]).unwrap();
    assert_eq!(printed(&["report", &record], 0), text, "half a result is none");
    std::fs::remove_file(dir.join("result.json")).unwrap();
    let runs = std::fs::read_to_string(dir.join("runs.jsonl")).unwrap();
    assert_eq!(printed(&["report", &record], 0), text, "and so do the runs alone");
    // The last line is the second round of a server with idle connections.
    std::fs::write(dir.join("runs.jsonl"), &runs[..runs.len() - 10]).unwrap();
    let cut = printed(&["report", &record], 0);
    assert!(cut.contains("1 of 2 rounds") && cut.contains("2 of 2 rounds"), "{cut}");
    std::fs::write(dir.join("runs.jsonl"), runs.replacen("round", "sound", 1)).unwrap();
    refused(&["report", &record], 2, &["line 1"]);
    std::fs::remove_file(dir.join("runs.jsonl")).unwrap();
    let empty = dir.join("empty").display().to_string();
    refused(&["report", &record, &empty], 2, &["no runs", &empty]); // All are named.
    // As records are kept for long; whatever follows the last line break was cut off.
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&runs.as_bytes()[..runs.len() - 10]).unwrap();
    std::fs::write(dir.join("runs.jsonl.gz"), gzip.finish().unwrap()).unwrap();
    assert_eq!(printed(&["report", &record], 0), cut, "compressed, it says the same");
}

#[test]
fn who_failed_in_a_record_that_was_cut_off_is_left_out() {
    let (_, record) = compare(&folder("short"), 4, false);
    let dir = Path::new(&record);
    std::fs::remove_file(dir.join("result.json")).unwrap();
    let runs = std::fs::read_to_string(dir.join("runs.jsonl")).unwrap();
    let early = |line: &&str| {
        let run: Value = serde_json::from_str(line).unwrap();
        run["server"] != "two" || run["round"] == 0 || run["workload"]["name"] == "idle"
    };
    let kept: Vec<&str> = runs.lines().filter(early).collect();
    assert_eq!(kept.len(), 4 * 2 * 4 - 3);
    std::fs::write(dir.join("runs.jsonl"), kept.join("\n") + "\n").unwrap();
    let text = printed(&["report", &record], 0);
    assert_eq!(text.matches("; 4 of 4 rounds of").count(), 2, "{text}");
    assert!(text.contains("two: ping-pong") && text.contains("1 of 4 recorded"), "{text}");
}

#[test]
fn csv_has_every_run() {
    let dir = folder("csv");
    let (_, record) = compare(&dir, 2, false);
    let text = printed(&["report", &record, "--csv"], 0);
    let mut lines = text.lines();
    let header: Vec<_> = lines.next().unwrap().split(',').collect();
    let at = |name: &str| header.iter().position(|column| *column == name).unwrap();
    let rows: Vec<Vec<_>> = lines.map(|line| line.split(',').collect()).collect();
    assert_eq!(rows.len(), 2 * 2 * 4);
    assert_eq!(rows[0][at("workload")], "ping-pong");
    assert!(rows[0][at("cpu_ns_per_message")].parse::<f64>().unwrap() > 0.0);
    assert!(rows[0][at("p99_ns")].parse::<u64>().unwrap() > 0);
    assert_eq!(
        ["loop", "rate", "churn", "disturbance"].map(|c| rows[0][at(c)]),
        ["closed", "", "", ""]
    );
    let addr = common::echo(Wrong::Nothing).to_string();
    let run = |name: &str, flags: &[&str]| {
        let out = dir.join(name).display().to_string();
        let args = ["run", "--addr", &addr, "--duration", "200ms", "--warmup", "0s", "--out", &out];
        printed(&[&args[..], flags].concat(), 0);
        let text = printed(&["report", &out, "--csv"], 0);
        let values = text.lines().nth(1).unwrap().split(',').map(str::to_owned);
        values.collect::<Vec<_>>()
    };
    let open = run("open", &["--rate", "500"]);
    let how = ["loop", "rate", "arrivals", "when_busy"].map(|column| open[at(column)].as_str());
    assert_eq!(how, ["open", "500", "poisson", "queue"]);
    let disturbed = run("disturbed", &["--disturbance", "half-open", "--disturbers", "2"]);
    let by = ["disturbance", "disturbers"].map(|column| disturbed[at(column)].as_str());
    assert_eq!(by, ["half-open", "2"]);
    assert_eq!(run("churn", &["--churn", "3"])[at("churn")], "3");
}

/// So many rounds of two servers, of which the second computes for so long for every line.
fn against(dir: &Path, name: &str, work: &str, rounds: &str) -> String {
    let entry = |name: &str, work: &str| {
        format!(
            "[model.{name}]\ncommand = \"{LOADGEN} null-server --listen {{addr}} --work {work}\"\n\
             modes = [\"echo\"]\n[model.{name}.unsupported]\nsplit-lines = \"no lines\"\n\
             over-long-line = \"no limit\"\nnot-before-asked = \"no lines\"\n"
        )
    };
    let (file, out) = (dir.join(format!("{name}.toml")), dir.join(name).display().to_string());
    std::fs::write(&file, entry("one", "0ns") + &entry("two", work)).unwrap();
    let file = file.display().to_string();
    let mut args = vec!["compare", "--models-file", &file, "--only-models-file"];
    args.extend(["--rounds", rounds, "--out", &out]);
    args.extend(["--workloads", "ping-pong", "--connections", "8"]);
    args.extend(["--duration", "60ms", "--warmup", "10ms"]);
    printed(&args, 0);
    out
}

#[test]
fn a_regression_since_an_older_record_is_told_and_fails() {
    let dir = folder("against");
    let old = against(&dir, "old", "0ns", "7");
    let same = printed(&["report", &old, "--against", &old], 0);
    assert!(same.contains("2 compared: 0 worse") && same.contains("2 with no change"), "{same}");
    let new = against(&dir, "new", "200us", "7");
    let text = printed(&["report", &new, "--against", &old, "--json"], 1);
    let changes = &serde_json::from_str::<Value>(&text).unwrap()["against"]["changes"];
    let of = |name: &str| {
        let all = changes.as_array().unwrap();
        all.iter().find(|change| change["server"] == name).unwrap().clone()
    };
    assert_eq!(of("two")["outcome"], "worse", "{text}");
    assert!(of("two")["ratio"]["low"].as_f64().unwrap() > 2.0, "{text}");
    let better = printed(&["report", &old, "--against", &new], 0);
    assert!(better.contains(" 1 better"), "{better}");
    // Two rounds say nothing, and so must the exit code.
    let few = against(&dir, "few", "0ns", "2");
    let text = printed(&["report", &few, "--against", &few], 2);
    assert!(
        text.contains("cannot tell: too few rounds") && !text.contains(" | no change"),
        "{text}"
    );
    // Another machine's numbers are no change of ours.
    let host = Path::new(&new).join("host.json");
    let text = std::fs::read_to_string(&host).unwrap();
    std::fs::write(&host, text.replacen("\"kernel\": \"", "\"kernel\": \"not-", 1)).unwrap();
    refused(&["report", &new, "--against", &old], 2, &["different machines"]);
    refused(&["report", &old, &new, "--against", &old], 2, &["name one"]);
}

#[test]
fn two_generators_of_one_server_become_one_run() {
    let dir = folder("merge");
    let path = |name: &str| dir.join(name).display().to_string();
    let addr = common::echo(Wrong::Nothing).to_string();
    let generators = ["1", "2"].map(|seed| {
        let mut command = Command::new(LOADGEN);
        command.args(["run", "--addr", &addr, "--seed", seed, "--out", &path(seed)]);
        command.args(["--duration", "2s", "--warmup", "0s", "--connections", seed, "--json"]);
        command.stdout(std::process::Stdio::piped()).spawn().unwrap()
    });
    let runs = generators.map(|child| {
        let output = child.wait_with_output().unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["run"].take()
    });
    let out = path("merged");
    let args = ["report", "--merge", &path("1"), &path("2"), "--out", &out, "--json"];
    let output = loadgen(&args);
    if output.status.code() == Some(2) {
        // On a machine so busy that they did not run together, that is what it must say.
        let stderr = String::from_utf8_lossy(&output.stderr);
        return assert!(stderr.contains("at the same time"), "{stderr}");
    }
    let merged = serde_json::from_slice::<Value>(&output.stdout).unwrap()["run"].take();
    let messages = |run: &Value| run["measured"]["messages"].as_u64().unwrap();
    assert_eq!(messages(&merged), messages(&runs[0]) + messages(&runs[1]));
    assert_eq!(merged["measured"]["latency"]["latency"]["count"], messages(&merged));
    assert_eq!(merged["workload"]["connections"], 3);
    refused(&args[..args.len() - 1], 2, &["holds a record already"]);
    refused(&["report", &out, "--merge"], 2, &["--out"]);
}

/// Nothing was measured, so there is nothing to keep, and the next attempt may use the folder.
#[test]
fn a_run_that_fails_before_it_measures_leaves_no_record() {
    let dir = folder("failed");
    let (new, found) = (dir.join("new"), dir.join("found"));
    std::fs::create_dir_all(&found).unwrap();
    std::fs::write(found.join("note"), "mine").unwrap();
    for out in [&new, &found] {
        let out = out.display().to_string();
        refused(&["run", "--cmd", "false {addr}", "--out", &out], 1, &["false"]);
    }
    assert!(!new.exists());
    let left: Vec<_> = std::fs::read_dir(&found).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["note"]);
}

#[test]
fn shells_and_man_are_told_about_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let script = printed(&["completions", shell], 0);
        assert!(script.contains("compare") && script.contains("models-file"), "{shell}");
        for name in ["epoll-level", "bare-tokio", "inspircd", "fan-out", "waiting-handler"] {
            assert!(script.contains(name), "{shell} should offer {name}");
        }
    }
    assert!(printed(&["man"], 0).contains(".TH loadgen 1"));
    for page in [printed(&["man"], 0), printed(&["man", "run"], 0)] {
        let codes = page.split(".SH \"EXIT STATUS\"").nth(1).unwrap();
        for code in ["0", "1", "2", "130"] {
            assert!(codes.contains(&format!(".TP\n\\fB{code}\\fR\n")), "{page}");
        }
        assert!(!page.contains("Exit codes:"), "they are said once: {page}");
    }
    for help in [printed(&["--help"], 0), printed(&["compare", "-h"], 0)] {
        let codes = help.split("Exit codes:\n").nth(1).unwrap();
        assert!(codes.contains("  2    Wrong use") && codes.contains("  130  Interr"), "{help}");
    }
    let page = printed(&["man", "compare"], 0);
    assert!(page.contains("loadgen\\-compare") && page.contains("rounds"), "{page}");
    refused(&["man", "fly"], 2, &["fly"]);
}

#[test]
fn a_page_holds_everything_and_needs_nothing() {
    let dir = folder("html");
    let (_, record) = compare(&dir, 2, false);
    let page = std::fs::read_to_string(Path::new(&record).join("report.html")).unwrap();
    let again = dir.join("again.html").display().to_string();
    assert_eq!(printed(&["report", &record, "--html", &again], 0), "");
    assert_eq!(std::fs::read_to_string(&again).unwrap(), page);
    for part in
        ["one", "two", "null (bare epoll)", "ping-pong", "idle", "Loopback is not", "closed loop"]
    {
        assert!(page.contains(part), "{part}");
    }
    assert!(page.contains("no &lt;limit&gt;") && !page.contains("<limit>"), "text is escaped");
    // The one script stands within the page and asks for nothing.
    assert_eq!(page.matches("<script").count(), 1);
    for foreign in ["http:", "https:", "src=", "@import", "url(", "fetch(", "import("] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    // Two servers and the reference in two workloads of two rounds.
    assert_eq!(page.matches("<circle class=\"dot\"").count(), 3 * 2 * 2);
    for link in page.split("href=\"#").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert_eq!(page.matches(&format!("id=\"{link}\"")).count(), 1, "{link}");
    }
    let run = dir.join("run").display().to_string();
    let addr = common::echo(Wrong::Nothing).to_string();
    let args = ["run", "--addr", &addr, "--duration", "50ms", "--warmup", "0s", "--out", &run];
    printed(&args, 0);
    printed(&["report", &run, &record, "--html", &again], 0);
    let both = std::fs::read_to_string(&again).unwrap();
    assert!(both.contains(&addr) && both.contains("id=\"r1s0\""), "two records on one page");
}
