//! The servers of `others.toml`, which other people wrote, each with the real program: it starts
//! with the configuration that is made for it, passes what every server must do, and is driven. A
//! server that is not installed is shown as ignored, with the command that gets it.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test, as it should")]

use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;

const LOADGEN: &str = env!("CARGO_BIN_EXE_loadgen");

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let listed = printed(&["list", "--others", "--json"]).unwrap();
    let mut trials = Vec::new();
    for server in listed["models"].as_array().unwrap() {
        let name = server["name"].as_str().unwrap().to_owned();
        let chats = server["modes"][0] == "chat";
        let missing = server["missing"].as_str().map(str::to_owned);
        for (what, test) in [("verified", verified as Test), ("driven", driven)] {
            let server = name.clone();
            let trial = Trial::test(format!("{name} is {what}"), move || test(&server, chats));
            trials.push(match &missing {
                Some(why) => trial.with_kind(why).with_ignored_flag(true),
                None => trial,
            });
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// What is tried with the server of this name, which chats or echoes.
type Test = fn(&str, bool) -> Result<(), Failed>;

fn verified(name: &str, _chats: bool) -> Result<(), Failed> {
    let value = printed(&["verify", "--model", name, "--json"])?;
    let findings = value["findings"].as_array().unwrap();
    let must: Vec<_> = findings.iter().filter(|finding| finding["tier"] == "must").collect();
    assert!(!must.is_empty());
    assert!(must.iter().all(|finding| finding["result"] == "pass"), "{must:#?}");
    Ok(())
}

/// Some connections, for a moment: every byte is right, and its cost is known.
fn driven(name: &str, chats: bool) -> Result<(), Failed> {
    let workload: &[&str] = if chats {
        &["--workload", "fan-out", "--members", "10"]
    } else {
        &["--workload", "ping-pong", "--connections", "10"]
    };
    let short = ["--duration", "200ms", "--warmup", "50ms", "--stall-timeout", "20s", "--json"];
    let run = printed(&[&["run", "--model", name], workload, &short].concat())?["run"].take();
    let measured = &run["measured"];
    assert!(measured["messages"].as_u64().unwrap() > 0, "{run:#}");
    assert!(measured["cost"]["cpu_ns_per_message"].as_f64().unwrap() > 0.0, "{run:#}");
    assert_eq!(run["faults"], serde_json::json!({}), "{run:#}");
    Ok(())
}

/// What loadgen prints as JSON, if it ends well.
fn printed(args: &[&str]) -> Result<Value, Failed> {
    let output = Command::new(LOADGEN).args(args).output()?;
    if !output.status.success() {
        let [stdout, stderr] =
            [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
        return Err(format!("{args:?}: {}\n{stderr}\n{stdout}", output.status).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}
