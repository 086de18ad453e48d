//! The gate in front of a comparison: what every server must do, and what is only tried and shown.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test, as it should")]

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

const LOADGEN: &str = env!("CARGO_BIN_EXE_loadgen");
const SHORT: [&str; 4] = ["--duration", "100ms", "--warmup", "20ms"];
/// The longest line of a server that knows a limit of its own.
const LIMIT: usize = 4096;

/// Not a test but a server of its own process, which the tests have loadgen start: its address and
/// its manner are arguments of this program that are taken for names of tests as well.
#[test]
#[ignore = "a server that the tests of this file start"]
fn serve() {
    let mut words = std::env::args().skip_while(|word| word != "serve").skip(1);
    let Some((addr, manner)) = words.next().zip(words.next()) else { return };
    serve_at(TcpListener::bind(addr).unwrap(), manner);
}

/// An echo of lines, a thread for each client.
fn serve_at(listener: TcpListener, manner: String) {
    let latest = Arc::new(Mutex::new(None));
    for stream in listener.incoming().map_while(Result::ok) {
        let (latest, manner) = (latest.clone(), manner.clone());
        if manner == "crossing" {
            *latest.lock().unwrap() = stream.try_clone().ok();
        }
        // A client that leaves ends its own thread.
        thread::spawn(move || drop(echo(stream, &manner, &latest)));
    }
}

/// One client's lines, without a limit, and what else the manner asks for.
fn echo(stream: TcpStream, manner: &str, latest: &Mutex<Option<TcpStream>>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut out = stream;
    if manner == "crossing" {
        out.write_all(b"welcome\n")?;
    }
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if manner == "limited" && line.len() > LIMIT {
            line.truncate(LIMIT - 1);
            line.push(b'\n');
        }
        match &mut *latest.lock().unwrap() {
            Some(other) => other.write_all(&line)?,
            None => out.write_all(&line)?,
        }
    }
    if manner == "parting" {
        out.write_all(b"bye\n")?;
    }
    Ok(())
}

fn loadgen(args: &[&str]) -> Output {
    Command::new(LOADGEN).args(args).output().unwrap()
}

/// An empty folder of this test's own.
fn folder(name: &str) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("gate-{name}"));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// A models file with a server of each manner; `more` is added to each entry.
fn models(dir: &std::path::Path, manners: &[&str], more: &str) -> String {
    let own = std::env::current_exe().unwrap().display().to_string();
    let entry = |manner: &&str| {
        format!(
            "[model.{manner}]\nmodes = [\"echo\"]\n{more}\n\
             command = \"'{own}' --ignored --exact --nocapture serve {{addr}} {manner}\"\n"
        )
    };
    let path = dir.join("models.toml");
    std::fs::write(&path, manners.iter().map(entry).collect::<String>()).unwrap();
    path.display().to_string()
}

/// Compares the servers of these manners. Returns the exit code, the result, and its record.
fn compare(manners: &[&str], more: &str, workloads: &str) -> (Option<i32>, Value, String) {
    let dir = folder(&format!("{}{}", manners.join("-"), more.len()));
    let (file, out) = (models(&dir, manners, more), dir.join("record").display().to_string());
    let names = manners.join(",");
    let args = ["compare", "--models-file", &file, "--models", &names, "--workloads", workloads];
    let often = ["--rounds", "1", "--connections", "4", "--json", "--out", &out];
    let output = loadgen(&[&args[..], &often, &SHORT].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    let mut value: Value = serde_json::from_slice(&output.stdout).expect(&stderr);
    (output.status.code(), value["comparison"].take(), out)
}

/// Why a server was left out.
fn why<'a>(comparison: &'a Value, server: &str) -> Vec<&'a str> {
    let all = comparison["left_out"].as_array().unwrap().iter();
    all.filter(|entry| entry[0] == server).map(|entry| entry[1].as_str().unwrap()).collect()
}

#[test]
fn an_echo_without_a_line_limit_is_ranked_and_shown_as_lacking_it() {
    let (code, comparison, record) = compare(&["unlimited"], "", "ping-pong");
    assert_eq!(code, Some(0), "{comparison:#}");
    let row = &comparison["sections"][0]["rows"][0];
    assert_eq!((&row["server"], &row["rank"]), (&json!("unlimited"), &json!(1)), "{row:#}");
    assert_eq!(row["lacks"], json!(["line limit"]));
    let lack = &comparison["servers"][0]["lacks"][0];
    assert_eq!(lack["case"], "over-long-line");
    assert!(lack["why"].as_str().unwrap().contains("ERR line too long"), "{lack:#}");

    let text = String::from_utf8(loadgen(&["report", &record]).stdout).unwrap();
    assert!(text.contains("  unlimited lacks: line limit\n"), "{text}");
    let page = std::fs::read_to_string(format!("{record}/report.html")).unwrap();
    assert!(page.contains("unlimited lacks: line limit"));
    // Of a record that was cut off the plan says it.
    std::fs::remove_file(format!("{record}/result.json")).unwrap();
    assert_eq!(String::from_utf8(loadgen(&["report", &record]).stdout).unwrap(), text);
}

#[test]
fn an_echo_that_crosses_connections_is_refused_with_every_case_it_fails() {
    let (code, comparison, _) = compare(&["crossing", "unlimited"], "", "ping-pong");
    assert_eq!(code, Some(1), "it was named");
    assert_eq!(comparison["failed"], json!(["crossing"]));
    let why = why(&comparison, "crossing");
    assert!(why[0].starts_with("fails the echo gate: "), "{why:?}");
    for case in ["no-crossing: ", "nothing-else: "] {
        assert!(why[0].contains(case), "{case}: {why:?}");
    }
    assert!(!why[0].contains("half-close"), "what it need not do is no reason: {why:?}");
    let rows = comparison["sections"][0]["rows"].as_array().unwrap();
    assert_eq!(rows[0]["server"], "unlimited", "the other one is ranked");
}

#[test]
fn a_server_that_claims_the_contract_is_held_to_it() {
    let (code, comparison, _) = compare(&["unlimited"], "contract = true", "ping-pong");
    assert_eq!(code, Some(1), "{comparison:#}");
    let why = why(&comparison, "unlimited");
    assert!(why[0].contains("over-long-line: "), "{why:?}");
}

#[test]
fn a_workload_that_needs_what_a_server_lacks_is_left_out_for_it() {
    let manners = ["parting", "limited", "unlimited"];
    let (code, comparison, _) = compare(&manners, "", "ping-pong,churn,mixed-sizes");
    assert_eq!((code, &comparison["failed"]), (Some(0), &json!([])), "{comparison:#}");
    let parting = why(&comparison, "parting");
    assert_eq!(parting.len(), 1, "{parting:?}");
    assert!(parting[0].starts_with("churn, ") && parting[0].contains("needs half-close"));
    let limited = why(&comparison, "limited");
    assert_eq!(limited.len(), 1, "{limited:?}");
    assert!(limited[0].starts_with("mixed-sizes, ") && limited[0].contains("lines of 64 KiB"));
    let ranked = |n: usize| {
        let rows = comparison["sections"][n]["rows"].as_array().unwrap().iter();
        let ranked = rows.filter(|row| !row["rank"].is_null());
        let mut names: Vec<_> = ranked.map(|row| row["server"].as_str().unwrap()).collect();
        names.sort_unstable();
        names
    };
    assert_eq!(ranked(0), ["limited", "parting", "unlimited"]);
    assert_eq!(
        (ranked(1), ranked(2)),
        (vec!["limited", "unlimited"], vec!["parting", "unlimited"])
    );
}

/// A server in a thread of the test.
fn running(manner: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr: SocketAddr = listener.local_addr().unwrap();
    thread::spawn(move || serve_at(listener, manner.to_owned()));
    addr.to_string()
}

#[test]
fn verify_tells_what_is_required_from_what_is_lacking() {
    let addr = running("unlimited");
    let verify = |more: &[&str]| {
        let output = loadgen(&[&["verify", "--addr", &addr], more].concat());
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = verify(&[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("  lacks: line limit\n"), "{text}");
    let (code, text) = verify(&["--contract"]);
    assert_eq!(code, Some(1), "{text}");
    let (_, text) = verify(&["--json"]);
    let value: Value = serde_json::from_str(&text).unwrap();
    let findings = value["findings"].as_array().unwrap();
    let of = |case: &str| findings.iter().find(|finding| finding["case"] == case).unwrap();
    let limit = of("over-long-line");
    assert_eq!((&limit["tier"], &limit["result"]), (&json!("contract"), &json!("lacks")));
    let split = of("split-lines");
    assert_eq!((&split["tier"], &split["result"]), (&json!("must"), &json!("pass")));
}

#[test]
fn verify_does_not_try_the_contract_of_a_server_that_no_one_can_use() {
    let output = loadgen(&["verify", "--addr", &running("crossing"), "--json"]);
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = value["findings"].as_array().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(findings.iter().all(|finding| finding["tier"] == "must"), "{findings:#?}");
    assert!(findings.iter().filter(|finding| finding["result"] == "fail").count() >= 2);
}
