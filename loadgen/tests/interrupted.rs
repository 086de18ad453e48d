//! What is left of a run that is interrupted or killed: what it has measured, and no server.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test, as it should")]

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use common::Wrong;
use common::program::{LOADGEN, SHORT, folder, models};
use procfs::process::Process;
use serde_json::Value;
use signal_hook::consts::SIGCONT;

#[test]
fn ctrl_c_keeps_the_finished_rounds_and_leaves_no_server() {
    let dir = folder("interrupt");
    let (file, out) = (models(&dir), dir.join("record").display().to_string());
    let args = ["compare", "--models-file", &file, "--models", "one,two", "--rounds", "900"];
    let mut compare = Command::new(LOADGEN);
    compare.args(args).args(["--workloads", "ping-pong", "--out", &out]).args(SHORT);
    let (child, text) = common::interrupted(&mut compare, "round 4 of 900");
    assert!(text.contains("of 900 rounds") && text.contains("| one"), "{text}");
    let left = servers(&child).len();
    assert_eq!(left, 0);
}

/// Not a test but a server of its own process, which a test has loadgen start: its address and a
/// file are arguments of this program. The file says how many clients it has. Told to be `frail` it
/// ends when it is made to go on after a suspension, told to be `mute` it answers nothing.
#[test]
#[ignore = "a server that a test of this file starts"]
fn serve() {
    let mut words = std::env::args().skip_while(|word| word != "serve").skip(1);
    let Some((addr, file)) = words.next().zip(words.next()) else { return };
    let manner = words.next().unwrap_or_default();
    let (frail, mute) = (manner == "frail", manner == "mute");
    let frail = Arc::new(AtomicBool::new(frail));
    signal_hook::flag::register_conditional_shutdown(SIGCONT, 7, frail).unwrap();
    let clients = Mutex::new(0);
    let count = Arc::new(move |more: i32| {
        let mut clients = clients.lock().unwrap();
        *clients += more;
        // It may be read at any moment.
        let beside = format!("{file}.part");
        std::fs::write(&beside, clients.to_string()).unwrap();
        std::fs::rename(&beside, &file).unwrap();
    });
    for stream in TcpListener::bind(addr).unwrap().incoming().map_while(Result::ok) {
        count(1);
        let count = Arc::clone(&count);
        std::thread::spawn(move || {
            let _ = echo(stream, mute);
            count(-1);
        });
    }
}

fn echo(mut stream: TcpStream, mute: bool) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut bytes = [0; 4096];
    loop {
        let len = stream.read(&mut bytes)?;
        if len == 0 {
            return Ok(());
        }
        if !mute {
            stream.write_all(&bytes[..len])?;
        }
    }
}

/// The system tells a server of the end of its generator, but not one that has changed its user,
/// nor what a server has started: `verify` ends all of it itself.
#[test]
fn ctrl_c_ends_a_verification_and_its_server() {
    const SCRIPT: &str = r#"
        "$3" --ignored --exact --nocapture serve "$1" "$2" mute &
        trap exit TERM
        wait
    "#;
    let dir = folder("verified");
    let own = std::env::current_exe().unwrap().display().to_string();
    let (script, file) = (dir.join("parent.sh"), dir.join("clients"));
    std::fs::write(&script, SCRIPT).unwrap();
    let command = format!("sh {} {{addr}} {} {own}", script.display(), file.display());
    let args = ["verify", "--cmd", &command];
    let mut verify = Command::new(LOADGEN);
    verify.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = verify.spawn().unwrap();
    let clients = || std::fs::read_to_string(&file).unwrap_or_default();
    while clients().parse::<u32>().unwrap_or(0) == 0 {
        std::thread::yield_now();
    }
    let said = press_ctrl_c(child).stderr;
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("interrupted"), "{said}");
    let word = file.display().to_string();
    let is_left = |p: &Process| p.cmdline().is_ok_and(|words| words.contains(&word));
    let left = procfs::process::all_processes().unwrap().flatten().filter(is_left).count();
    assert_eq!(left, 0, "processes of the server");
}

/// A server may wait at its end for the clients that it has. These ones do so for two seconds, and
/// then tell how many they still have.
#[test]
fn ctrl_c_closes_the_connections_before_it_ends_the_servers() {
    const SCRIPT: &str = r#"
        (trap '' TERM; exec "$3" --ignored --exact --nocapture serve "$1" "$2") &
        trap 'for n in 1 2 3 4 5 6 7 8 9; do
                  [ "$(cat "$2")" = 0 ] || sleep 0.2
              done
              cp "$2" "$2.end"; kill -9 $!; exit' TERM
        wait
    "#;
    let dir = folder("patient");
    let own = std::env::current_exe().unwrap().display().to_string();
    let (script, models) = (dir.join("patient.sh"), dir.join("models.toml"));
    std::fs::write(&script, SCRIPT).unwrap();
    let files = ["one", "two"].map(|name| dir.join(name));
    let entries = files.each_ref().map(|file| {
        let (file, name) = (file.display(), file.file_name().unwrap().display());
        let command = format!("sh {} {{addr}} {file} {own}", script.display());
        format!("[model.{name}]\nmodes = [\"echo\"]\ncommand = \"{command}\"\n")
    });
    std::fs::write(&models, entries.concat()).unwrap();
    let mut compare = Command::new(LOADGEN);
    compare.args(["compare", "--models", "one,two", "--workloads", "ping-pong", "--rounds", "9"]);
    compare.arg("--models-file").arg(&models).args(["--warmup", "0s", "--duration", "9s"]);
    let point = "ping-pong, 64 connections, 64 B, depth 1";
    let _ =
        common::interrupted(&mut compare, &format!("round 1 of 9: {point}: 4 servers in turns"));
    for file in files {
        let left = std::fs::read_to_string(file.with_extension("end")).unwrap();
        assert_eq!(left, "0", "clients that {} had at its end", file.display());
    }
}

/// SIGSTOP and SIGCONT end a wait for events with EINTR, and a server may take that for a failure:
/// these ones end with it. They are driven in turns all the same.
#[test]
fn a_server_that_bears_no_suspension_is_compared() {
    let dir = folder("unsuspended");
    let own = std::env::current_exe().unwrap().display().to_string();
    let models = dir.join("models.toml");
    let entries = ["one", "two"].map(|name| {
        let file = dir.join(name).display().to_string();
        let command = format!("{own} --ignored --exact --nocapture serve {{addr}} {file} frail");
        format!("[model.{name}]\nmodes = [\"echo\"]\ncommand = \"{command}\"\n")
    });
    std::fs::write(&models, entries.concat()).unwrap();
    let mut compare = Command::new(LOADGEN);
    compare.args(["compare", "--models", "one,two", "--workloads", "ping-pong", "--rounds", "2"]);
    // Few, for it has a thread for each, and a server of many threads is never suspended.
    compare.args(["--connections", "4", "--reference=false", "--models-file"]).arg(&models);
    compare.args(SHORT);
    let output = compare.arg("--json").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let value: Value = serde_json::from_slice(&output.stdout).expect(&said);
    assert_eq!(value["comparison"]["sections"][0]["rounds"], 2, "{value:#}");
}

/// What a run says that gets Ctrl-C once its server has answered `lines` lines.
fn interrupted_run(lines: u64, args: &[&str]) -> Value {
    let (addr, count) = common::counting_echo(Wrong::Nothing);
    let child = Command::new(LOADGEN)
        .args(["run", "--addr", &addr.to_string(), "--json", "--warmup", "0s"])
        .args(["--duration", "50s", "--connections", "8"])
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while count.lines() < lines {
        std::thread::yield_now();
    }
    serde_json::from_slice(&press_ctrl_c(child).stdout).unwrap()
}

/// Presses Ctrl-C, and waits for its end.
fn press_ctrl_c(child: Child) -> Output {
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

#[test]
fn ctrl_c_shows_what_a_run_has_measured_until_then() {
    for args in [&["--workload", "ping-pong"][..], &["--workload", "open-loop", "--rate", "5000"]] {
        let value = interrupted_run(4000, args);
        let run = &value["run"];
        assert_eq!(run["interrupted"], true, "{run:#}");
        assert!(run["measured"]["messages"].as_u64().unwrap() > 3000, "{run:#}");
        assert!(run["measured"]["window_seconds"].as_f64().unwrap() < 49.0, "{run:#}");
        let reasons: Vec<_> = run["verdict"]["reasons"].as_array().unwrap().iter().collect();
        let said = reasons[0].as_str().unwrap();
        assert!(said.starts_with("interrupted after") && said.contains("of 50"), "{reasons:?}");
        assert_eq!(run["verdict"]["status"], "SUSPECT");
        // On a busy machine what was due may wait for a connection, and is missing then. What was
        // not yet due is not: the schedule ends with the window.
        let seconds = run["measured"]["window_seconds"].as_f64().unwrap();
        let scheduled = run["measured"]["open_loop"]["scheduled"].as_f64().unwrap_or_default();
        assert!(scheduled < 5000.0 * (seconds + 1.0), "{scheduled} in {seconds} s: {reasons:?}");
    }
}

#[test]
fn a_run_that_is_interrupted_before_it_measures_says_so() {
    let addr = common::echo(Wrong::Nothing).to_string();
    let mut run = Command::new(LOADGEN);
    run.args(["run", "--addr", &addr, "--warmup", "50s", "--json"]);
    common::interrupted(&mut run, "ping-pong: ");
}

/// The servers that a generator has started and not yet ended.
fn servers(generator: &Child) -> Vec<Process> {
    let ours = |p: &Process| p.stat().is_ok_and(|s| s.ppid == generator.id() as i32);
    procfs::process::all_processes().unwrap().flatten().filter(ours).collect()
}

/// Kills a generator as soon as all of its `n` servers are as wanted; they must end too.
fn killed_with_servers(args: &[&str], n: usize, wanted: impl Fn(&[Process]) -> bool) {
    let mut child = Command::new(LOADGEN)
        .args(args)
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // It is the server once it has become the command.
    let is_server =
        |p: &Process| p.cmdline().is_ok_and(|words| words.iter().any(|w| w == "null-server"));
    let servers = loop {
        let servers = servers(&child);
        if servers.len() == n && servers.iter().all(is_server) && wanted(&servers) {
            break servers;
        }
        std::thread::yield_now();
    };
    let open = |p: &Process| {
        let pid = rustix::process::Pid::from_raw(p.pid).unwrap();
        rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap()
    };
    let servers: Vec<_> = servers.iter().map(open).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    for server in &servers {
        let mut ended = [rustix::event::PollFd::new(server, rustix::event::PollFlags::IN)];
        let deadline = rustix::time::Timespec { tv_sec: 10, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut ended, Some(&deadline)).unwrap(), 1, "it must end");
    }
}

#[test]
fn a_killed_generator_leaves_no_server() {
    let command = format!("{LOADGEN} null-server --listen {{addr}}");
    let args = ["run", "--cmd", &command, "--duration", "60s", "--warmup", "0s"];
    killed_with_servers(&args, 1, |servers| servers[0].fd_count().is_ok_and(|n| n > 10));
}

#[test]
fn a_killed_comparison_leaves_no_suspended_server() {
    let dir = folder("killed");
    let (file, out) = (models(&dir), dir.join("record").display().to_string());
    // Only servers that claim the contract are suspended.
    let claimed =
        std::fs::read_to_string(&file).unwrap().replace(".one]", ".one]\ncontract = true");
    std::fs::write(&file, claimed).unwrap();
    let compare = ["compare", "--models-file", &file, "--models", "one,two", "--rounds", "900"];
    let args = [&compare[..], &["--reference=false", "--out", &out], &SHORT].concat();
    let suspended = |p: &Process| p.stat().is_ok_and(|s| s.state == 'T');
    killed_with_servers(&args, 2, |servers| servers.iter().any(suspended));
}
