//! What people see on a terminal of 80 columns: no line of any table is wider.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test, as it should")]

mod common;

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use common::Wrong;
use nix::pty::{Winsize, openpty};

const LOADGEN: &str = env!("CARGO_BIN_EXE_loadgen");
/// The width of the terminal.
const COLUMNS: u16 = 80;

/// What a command writes to a terminal of [`COLUMNS`] columns.
fn shown(args: &[&str]) -> String {
    let size = Winsize { ws_row: 24, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 };
    let terminal = openpty(&size, None).unwrap();
    let mut child = Command::new(LOADGEN)
        .args(args)
        .stdin(Stdio::null())
        .stdout(terminal.slave)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut text, mut part) = (Vec::new(), [0; 4096]);
    let mut terminal = File::from(terminal.master);
    // The end of a terminal that no process has open is an error.
    while let Ok(n) = terminal.read(&mut part) {
        text.extend_from_slice(&part[..n]);
    }
    child.wait().unwrap();
    String::from_utf8(text).unwrap().replace('\r', "")
}

/// It fits, and says all of this.
fn fits(args: &[&str], says: &[&str]) {
    let text = shown(args);
    for line in text.lines() {
        let width = line.chars().count();
        assert!(width <= usize::from(COLUMNS), "{args:?}: {width} columns: {line}");
    }
    // What is wrapped is in lines of a column, and so are its words.
    let words = text.replace(['│', '┆'], " ");
    for part in says {
        assert!(words.contains(part), "{args:?} should say {part:?}: {text}");
    }
}

/// A models file with two null references, whose names are as long as names are.
fn models(folder: &str) -> (String, String) {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(folder);
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    let entry = |name: &str| {
        format!(
            "[model.{name}]\ncommand = \"{LOADGEN} null-server --listen {{addr}}\"\n\
             modes = [\"echo\"]\n[model.{name}.unsupported]\nsplit-lines = \"no lines\"\n\
             over-long-line = \"no limit\"\nnot-before-asked = \"no lines\"\n"
        )
    };
    let file = dir.join("models.toml");
    std::fs::write(&file, entry("a-server-of-my-own") + &entry("another-one")).unwrap();
    (file.display().to_string(), dir.join("record").display().to_string())
}

#[test]
fn list_and_doctor_fit_a_terminal() {
    fits(&["list"], &["epoll-level", "ping-pong", "unsupported"]);
    fits(&["list", "--others"], &["inspircd", "get it"]);
    fits(&["doctor"], &["processors", "what to do"]);
}

#[test]
fn a_calibration_fits_a_terminal() {
    let (file, _) = models("terminal-calibrate");
    let own = ["calibrate", "--models-file", &file, "--model", "a-server-of-my-own"];
    let short = ["--pairs", "2", "--rounds", "6", "--duration", "40ms", "--warmup", "10ms"];
    fits(&[&own[..], &short].concat(), &["a-server-of-my-own", "messages/s"]);
}

#[test]
fn the_gate_fits_a_terminal() {
    let (file, _) = models("terminal-verify");
    let own = ["verify", "--models-file", &file, "--model", "a-server-of-my-own"];
    fits(&own, &["of every server", "over-long-line"]);
    fits(&[&own[..], &["--contract"]].concat(), &["over-long-line"]);
}

#[test]
fn a_run_fits_a_terminal() {
    let addr = common::echo(Wrong::Nothing).to_string();
    let run = ["run", "--addr", &addr, "--warmup", "0s", "--duration", "100ms"];
    fits(&[&run[..], &["--workload", "open-loop"]].concat(), &["response", "verdict"]);
    let silent = common::echo(Wrong::Silence).to_string();
    // It falls silent at one line in a hundred thousand: how long that takes is the machine's
    // affair.
    let run = ["run", "--addr", &silent, "--warmup", "0s", "--duration", "10m"];
    fits(&[&run[..], &["--stall-timeout", "100ms"]].concat(), &["INVALID", "unanswered"]);
}

#[test]
fn a_comparison_fits_a_terminal_and_says_what_it_left_out() {
    let (file, out) = models("terminal-compare");
    let own = ["--models-file", &file, "--only-models-file"];
    let compare = ["--rounds", "2", "--out", &out];
    let workloads = ["--workloads", "ping-pong,pipelined,idle,open-loop,hog"];
    let short = ["--connections", "20,40", "--duration", "40ms", "--warmup", "10ms"];
    let says = ["a-server-of-my-own", "not shown", "calls/msg", "CPU ns/msg", "verdict"];
    fits(&[&["compare"], &own[..], &compare, &workloads, &short].concat(), &says);
    fits(&["report", &out], &says);
    let changed = ["before", "compared: 0 worse", "with no change", "of too few"];
    fits(&["report", &out, "--against", &out], &changed);
}

#[test]
fn a_search_fits_a_terminal() {
    let (file, _) = models("terminal-find-max");
    let find = ["find-max", "--models-file", &file, "--models", "a-server-of-my-own,another-one"];
    let quick = ["--from", "800", "--duration", "60ms", "--warmup", "10ms", "--connections", "4"];
    let objective = ["--objective", "p99<1ns"];
    fits(&[&find[..], &quick, &objective].concat(), &["a-server-of-my-own", "highest rate"]);
}
