//! A model bare beside its complete server.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test, as it should")]

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::{Value, json};

const LOADGEN: &str = env!("CARGO_BIN_EXE_loadgen");

fn loadgen(args: &[&str]) -> Output {
    Command::new(LOADGEN).args(args).output().unwrap()
}

#[test]
fn list_says_which_models_have_one() {
    let value: Value = serde_json::from_slice(&loadgen(&["list", "--json"]).stdout).unwrap();
    let models = value["models"].as_array().unwrap();
    let bare = |name: &str| &models.iter().find(|model| model["name"] == name).unwrap()["bare"];
    assert_eq!(bare("epoll-level"), "bare-epoll-level");
    assert_eq!(bare("iterative"), "bare-iterative");
    // The crate's model bare is that of the model of its name; peers have none.
    assert!(bare("tokio-per-core").is_null() && bare("polling-level").is_null());
    assert!(bare("asyncio").is_null());
}

/// Standard error of what fails as wrong use.
fn refused(args: &[&str]) -> String {
    let output = loadgen(args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
    stderr
}

#[test]
fn what_has_no_model_bare_is_refused() {
    let none = refused(&["compare", "--bare", "--models", "tokio-per-core"]);
    assert!(none.contains("none of these models has a model bare"), "{none}");
    let workers = refused(&["compare", "--bare", "--models", "epoll-level", "--workers", "2"]);
    assert!(workers.contains("--workers 1"), "{workers}");
    let none = refused(&["run", "--model", "bare-tokio-per-core"]);
    assert!(none.contains("no model is called"), "{none}");
}

#[test]
fn a_model_bare_is_ranked_beside_its_complete_server() {
    let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("bare-record");
    let _ = std::fs::remove_dir_all(&out);
    let out = out.display().to_string();
    let args = ["compare", "--bare", "--models", "epoll-level", "--rounds", "6", "--json"];
    let asked = ["--workloads", "ping-pong,fan-out,waiting-handler", "--connections", "16"];
    let short = ["--duration", "100ms", "--warmup", "20ms", "--out", &out];
    let output = loadgen(&[&args[..], &asked, &short].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let value: Value = serde_json::from_slice(&output.stdout).expect(&stderr);
    let comparison = &value["comparison"];

    let servers = comparison["servers"].as_array().unwrap();
    let of = |name: &str| servers.iter().find(|server| server["name"] == name).unwrap();
    let bare = of("bare-epoll-level");
    assert_eq!((&bare["bare_of"], &bare["ours"]), (&json!("epoll-level"), &json!(false)));
    assert!(of("epoll-level")["bare_of"].is_null());

    let section = |name: &str| {
        let sections = comparison["sections"].as_array().unwrap();
        sections.iter().find(|section| section["workload"]["name"] == name).unwrap()
    };
    let names = |name: &str| {
        let rows = section(name)["rows"].as_array().unwrap().iter();
        let ranked = rows.filter(|row| row["rank"].is_u64());
        let mut names: Vec<_> = ranked.map(|row| row["server"].as_str().unwrap()).collect();
        names.sort_unstable();
        names
    };
    assert_eq!(names("ping-pong"), ["bare-epoll-level", "epoll-level"]);
    assert_eq!(names("fan-out"), ["epoll-level"], "a model bare only echoes");
    assert_eq!(names("waiting-handler"), ["epoll-level"], "and takes no flags");
    let left_out = comparison["left_out"].to_string();
    assert!(left_out.contains("a model bare takes no flags"), "{left_out}");
    assert_eq!(comparison["failed"], json!([]), "{left_out}");

    let completeness = &section("ping-pong")["completeness"];
    assert_eq!(completeness.as_array().unwrap().len(), 1);
    let both = &completeness[0];
    assert_eq!((&both["server"], &both["bare"]), (&json!("epoll-level"), &bare["name"]));
    let ratio = |which: &str| both["ratio"][which].as_f64().unwrap();
    assert!(0.0 < ratio("low") && ratio("low") <= ratio("ratio"), "{both:#}");
    assert!(ratio("ratio") <= ratio("high"), "{both:#}");

    let text = String::from_utf8(loadgen(&["report", &out]).stdout).unwrap();
    assert_eq!(text.matches("What completeness costs").count(), 2, "answer and table: {text}");
    assert!(text.contains("bare-epoll-level lacks: ") && text.contains("line limit"), "{text}");
    let page = std::fs::read_to_string(format!("{out}/report.html")).unwrap();
    assert_eq!(page.matches("What completeness costs").count(), 3, "answer, caption and its label");
}
