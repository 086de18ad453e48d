//! Servers that are given as a command: how it is split, what it is named after, what it speaks.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test, as it should")]

mod common;

use std::process::Command;

use common::program::{LOADGEN, SHORT, folder, loadgen, null_server, refused};
use serde_json::Value;

#[test]
fn a_command_is_split_as_a_shell_splits_it() {
    let dir = folder("a folder with spaces");
    let program = dir.join("my server");
    std::os::unix::fs::symlink(LOADGEN, &program).unwrap();
    let program = program.display().to_string();
    for command in [
        format!("'{program}' null-server --listen {{addr}}"),
        format!("\"{program}\" null-server --listen={{host}}:{{port}}"),
        format!("{} null-server --listen 127.0.0.1:{{port}}", program.replace(' ', "\\ ")),
    ] {
        let args = [&["run", "--cmd", &command, "--json"][..], &SHORT].concat();
        let output = Command::new(LOADGEN).args(args).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{command}: {stderr}");
        let value: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(value["run"]["server"], "my server");
    }
}

#[test]
fn no_shell_sees_a_command() {
    let dir = folder("no-shell");
    let made = dir.join("made");
    let command = format!("{} ; touch {}", null_server(), made.display());
    let args = [&["run", "--cmd", &command][..], &SHORT].concat();
    let output = Command::new(LOADGEN).args(args).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "the null reference knows no argument ';'");
    assert!(!made.exists());
}

#[test]
fn a_command_without_a_place_or_with_an_open_quote_is_refused() {
    let dir = folder("commands");
    for (command, says) in [
        ("my-server", "{addr}"),
        ("my-server --host {host}", "{port}"),
        ("'my server {addr}", "quote"),
        ("", "{addr}"),
        ("''", "{addr}"),
    ] {
        let file = dir.join("models.toml");
        let text = format!("[model.own]\ncommand = \"{command}\"\nmodes = [\"echo\"]\n");
        std::fs::write(&file, text).unwrap();
        let file = file.display().to_string();
        for args in [
            ["run", "--cmd", command],
            ["compare", "--cmd", command],
            ["list", "--models-file", &file],
        ] {
            let output = Command::new(LOADGEN).args(args).output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
            assert!(stderr.contains(says), "{args:?} should say {says:?}: {stderr}");
        }
    }
}

#[test]
fn two_scripts_of_one_interpreter_have_names_of_their_own() {
    let dir = folder("scripts");
    let command = |name: &str| {
        let path = dir.join(name);
        std::fs::write(&path, format!("exec {LOADGEN} null-server --listen \"$1\"")).unwrap();
        format!("sh '{}' {{addr}}", path.display())
    };
    let (one, two) = (command("one.sh"), command("two.sh"));
    let args = ["compare", "--cmd", &one, "--cmd", &two, "--cmd", &one, "--rounds", "1", "--json"];
    let output = loadgen(&[&args[..], &["--workloads", "ping-pong"], &SHORT].concat());
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    let servers = value["comparison"]["servers"].as_array().unwrap().iter();
    let names: Vec<_> = servers.map(|server| server["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["one.sh", "two.sh", "one.sh-2"]);
}

#[test]
fn commands_alone_are_compared_with_each_other() {
    let command = format!("{LOADGEN} null-server --listen {{addr}}");
    let args = ["compare", "--cmd", &command, "--cmd", &command, "--rounds", "1", "--json"];
    let output = loadgen(&[&args[..], &["--workloads", "ping-pong"], &SHORT].concat());
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    let servers = value["comparison"]["servers"].as_array().unwrap();
    let names: Vec<_> = servers.iter().map(|server| server["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["loadgen", "loadgen-2"], "and nothing of models.toml");
}

#[test]
fn a_command_speaks_echo_unless_it_is_said_that_it_chats() {
    let script = folder("speaks").join("server.sh");
    std::fs::write(&script, format!("exec {LOADGEN} null-server --listen $1\n")).unwrap();
    let plain = format!("sh {} {{addr}}", script.display());
    let compare = |args: &[&str]| {
        let args = [&["compare", "--rounds", "1", "--json", "--workloads", "fan-out"], args];
        let output = loadgen(&[&args.concat()[..], &SHORT].concat());
        let value: Value = serde_json::from_slice(&output.stdout).unwrap();
        // Nothing is left to compare.
        assert_eq!(output.status.code(), Some(1), "{value:#}");
        let left_out = &value["comparison"]["left_out"];
        (left_out[0][1].as_str().unwrap().to_owned(), value["comparison"]["failed"].clone())
    };
    let (why, failed) = compare(&["--cmd", &plain]);
    assert!(why.contains("not said to speak chat") && why.contains("--speaks"), "{why}");
    assert_eq!(failed, serde_json::json!([]), "what it is not asked for is no failure");
    // The null reference gives back what it reads, which is no welcome.
    let (why, failed) = compare(&["--cmd", &format!("{plain} {{mode}}")]);
    assert!(why.contains("fails the chat gate") && why.contains("nothing came for"), "{why}");
    assert_eq!(failed.as_array().unwrap().len(), 1, "{why}");
    refused(&["compare", "--speaks", "chat"], 2, &["--cmd"]);
}

/// `--quick` asks for echo and chat. A command that does not chat is compared in echo, and the
/// chat that it is left out of is named.
#[test]
fn a_quick_comparison_of_a_command_leaves_out_chat_by_name() {
    let script = folder("quick").join("server.sh");
    std::fs::write(&script, format!("exec {LOADGEN} null-server --listen $1\n")).unwrap();
    let plain = format!("sh {} {{addr}}", script.display());
    let args = ["compare", "--quick", "--rounds", "2", "--json", "--cmd", &plain];
    let output = loadgen(&[&args[..], &SHORT].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let value: Value = serde_json::from_slice(&output.stdout).expect(&stderr);
    let comparison = &value["comparison"];
    let left_out = comparison["left_out"].as_array().unwrap();
    let [name, why] = [0, 1].map(|n| left_out[0][n].as_str().unwrap());
    assert_eq!((left_out.len(), name), (1, "server.sh"), "{comparison:#}");
    assert!(why.contains("not said to speak chat") && why.contains("--speaks"), "{why}");
    let sections = comparison["sections"].as_array().unwrap().iter();
    let driven: Vec<_> = sections.map(|section| &section["workload"]["name"]).collect();
    assert!(!driven.is_empty() && driven.iter().all(|name| *name == "ping-pong"), "{driven:?}");
    assert_eq!(comparison["failed"], serde_json::json!([]), "{comparison:#}");
}
