//! The agent beside the server: what it starts, watches and tells, and what becomes of a run when
//! it, its server or the conductor ends.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use loadgen::record::Stored;
use procfs::process::Process;
use serde_json::Value;

use crate::cluster::{Killed, LOADGEN, Nats, agent, call, conduct, folder, outcome, reasons};
use crate::common::{self, Wrong};
use crate::{HALF, QUIET, SHORT, until};

/// A models file: servers that compute for 20 µs, for 200 µs and not at all at each line, and one
/// that ends after 3 s.
const MODELS: &str = "[model.slow]\ncommand = \"LOADGEN null-server --listen {addr} --work 20us\"\n\
                      modes = [\"echo\"]\n\
                      [model.hard]\ncommand = \"LOADGEN null-server --listen {addr} --work 200us\"\n\
                      modes = [\"echo\"]\n\
                      [model.quick]\ncommand = \"LOADGEN null-server --listen {addr}\"\n\
                      modes = [\"echo\"]\n\
                      [model.mortal]\ncommand = \"timeout 3 LOADGEN null-server --listen {addr}\"\n\
                      modes = [\"echo\"]\n";

/// The path of a models file of this test alone.
pub(crate) fn models(name: &str) -> String {
    let dir = folder(&format!("models-{name}"));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("models.toml");
    std::fs::write(&path, MODELS.replace("LOADGEN", LOADGEN)).unwrap();
    path.display().to_string()
}

/// An agent that stands beside a server and may start only the models of that file.
pub(crate) fn beside(
    within: Option<&str>,
    url: &str,
    host: &str,
    file: &str,
    further: &[&str],
) -> Killed {
    let args = ["--serve", host, "--models-file", file, "--only-models-file"];
    agent(within, url, "s", &[&args, further].concat())
}

/// A run of a model that the agent `s` starts.
pub(crate) fn of_model(url: &str, model: &str, agents: u32, further: &[&str]) -> Command {
    let agents = agents.to_string();
    let args = ["run", "--agents", &agents, "--model", model, "--server-agent", "s", "--json"];
    call(None, url, &[&args, further].concat())
}

pub(crate) fn a_server_is_kept_and_its_cost_taken() -> Result<(), Failed> {
    let nats = Nats::start(&[]);
    let url = nats.url();
    let _agents = ["a", "b"].map(|name| agent(None, &url, name, &[]));
    // Its counters are read when the window begins by its own clock, however wrong that is.
    let behind = ["--pretend-ahead", "-3600000"];
    let _s = beside(None, &url, "127.0.0.1", &models("kept"), &behind);
    for round in 1..=2 {
        let (run, code) = outcome(&of_model(&url, "slow", 2, &SHORT).output()?);
        assert_eq!(code, Some(0), "{round}: {run:#}");
        assert_eq!((&run["server"], &run["kept"]["agent"]), (&"slow".into(), &"s".into()));
        is_of_the_server(&run["measured"]["cost"]);
        assert!(run["measured"]["idle_bytes_per_connection"].is_f64(), "{run:#}");
        let many = std::thread::available_parallelism()?.get() > 1;
        assert_eq!(many, !run["kept"]["server_cpus"].as_array().unwrap().is_empty(), "{run:#}");
        let addr = run["kept"]["addr"].as_str().unwrap();
        assert!(TcpStream::connect(addr).is_err(), "the server at {addr} has not been stopped");
    }
    let mut shown = of_model(&url, "slow", 2, &SHORT);
    let shown = shown.arg("--server-cpus").arg("0").output()?;
    assert_eq!(shown.status.code(), Some(0), "{shown:?}");
    Ok(())
}

/// A cost that the server `slow` may have had. Where it loses its processor it computes less than
/// its 20 µs: what it has in any case, and the generators have not, is one thread.
pub(crate) fn is_of_the_server(cost: &Value) {
    let each = cost["cpu_ns_per_message"].as_f64().unwrap();
    assert!((1_000.0..2_000_000.0).contains(&each) && cost["threads"] == 1, "{cost:#}");
}

pub(crate) fn only_models_of_its_own_file_are_started() -> Result<(), Failed> {
    let nats = Nats::start(&[]);
    let url = nats.url();
    let _a = agent(None, &url, "a", &[]);
    let s = beside(None, &url, "127.0.0.1", &models("own"), &[]);
    let further = [&SHORT[..], &["--agents-within", "1s"]].concat();
    for model in ["epoll-level", "ncat", "bare-epoll-level", "/bin/true"] {
        let (run, code) = outcome(&of_model(&url, model, 1, &further).output()?);
        let wanted = format!("its models file has no {model} that can run there");
        assert_eq!(code, Some(1), "{run:#}");
        assert!(reasons(&run).contains(&wanted), "{run:#}");
    }
    drop(s);
    let _s = agent(None, &url, "s", &[]);
    let (run, _) = outcome(&of_model(&url, "slow", 1, &further).output()?);
    assert!(reasons(&run).contains("s is left out: it was not started with --serve"), "{run:#}");
    Ok(())
}

pub(crate) fn the_server_ends_in_the_middle() -> Result<(), Failed> {
    let nats = Nats::start(&[]);
    let url = nats.url();
    let _a = agent(None, &url, "a", &[]);
    let s = beside(None, &url, "127.0.0.1", &models("mortal"), &[]);
    let mut run = of_model(&url, "slow", 1, &QUIET).spawn()?;
    let mut said = BufReader::new(run.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(said.any(|line| line.contains(", from 1 agents")), "the agent is not told to begin");
    std::thread::spawn(move || said.for_each(drop));
    let server = children(s.0.id()).pop().ok_or("no server has started")?;
    // 30 ms: the lines of the whole run take 160, or less where the server loses its processor.
    let ticks = || server.stat().map_or(0, |stat| stat.utime + stat.stime);
    let (before, end) = (ticks(), Instant::now() + Duration::from_secs(60));
    while (ticks() - before) * 100 < 3 * procfs::ticks_per_second() {
        assert!(Instant::now() < end, "no line of the run has come");
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = rustix::process::Pid::from_raw(server.pid).ok_or("a process has a number")?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
    let (run, code) = outcome(&run.wait_with_output()?);
    assert_eq!((code, &run["verdict"]["status"]), (Some(1), &Value::from("INVALID")), "{run:#}");
    let wanted = "s, beside the server: the server ended in the middle of the run";
    assert!(reasons(&run).contains(wanted), "{run:#}");
    assert!(run["kept"]["lost"].is_string(), "{run:#}");
    Ok(())
}

pub(crate) fn the_agent_beside_the_server_is_killed() -> Result<(), Failed> {
    let nats = Nats::start(&[]);
    let url = nats.url();
    let (addr, count) = common::counting_echo(Wrong::Nothing);
    let _a = agent(None, &url, "a", &[]);
    let s = beside(None, &url, "127.0.0.1", &models("killed"), &[]);
    let dir = folder("killed-beside");
    let (out, own) = (dir.display().to_string(), std::process::id().to_string());
    let addr = addr.to_string();
    let args = ["run", "--agents", "1", "--addr", &addr, "--pid", &own, "--server-agent", "s"];
    let further = [&args[..], &["--json", "--out", &out], &QUIET].concat();
    let run = call(None, &url, &further).spawn()?;
    until(&count, HALF);
    drop(s);
    let (run, code) = outcome(&run.wait_with_output()?);
    assert_eq!((code, &run["verdict"]["status"]), (Some(1), &Value::from("INVALID")), "{run:#}");
    assert!(reasons(&run).contains("s, beside the server: nothing was heard of it for"), "{run:#}");
    // What was measured is kept.
    let kept: PathBuf = dir.join("agents/1-a");
    assert!(Stored::read(&kept)?.runs[0].1.measured.as_ref().unwrap().messages > HALF);
    Ok(())
}

pub(crate) fn a_conductor_is_killed() -> Result<(), Failed> {
    let nats = Nats::start(&[]);
    let url = nats.url();
    let _a = agent(None, &url, "a", &[]);
    let s = beside(None, &url, "127.0.0.1", &models("orphan"), &[]);
    let server = || {
        let found = children(s.0.id()).into_iter().filter_map(|child| child.cmdline().ok());
        found.map(|words| words.join(" ")).find(|words| words.contains("null-server"))
    };
    let long = ["--duration", "600s", "--connections", "2"];
    let conductor = Killed(of_model(&url, "slow", 1, &long).spawn()?);
    let end = Instant::now() + Duration::from_secs(60);
    while server().is_none() {
        assert!(Instant::now() < end, "no server has started");
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(conductor);
    let end = Instant::now() + Duration::from_secs(60);
    while let Some(words) = server() {
        assert!(Instant::now() < end, "still there: {words}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

pub(crate) fn an_agent_is_free_when_its_conductor_is_killed() -> Result<(), Failed> {
    let nats = Nats::start(&[]);
    let url = nats.url();
    let (addr, count) = common::counting_echo(Wrong::Nothing);
    let _a = agent(None, &url, "a", &[]);
    let addr = addr.to_string();
    let long = [&QUIET[..8], &["--duration", "600s"]].concat();
    let conductor = Killed(conduct(None, &url, &addr, 1, &long).spawn()?);
    until(&count, HALF);
    drop(conductor);
    // The agent is busy until it gives the run up, and then drives the next.
    let further = [&SHORT[..], &["--agents-within", "60s"]].concat();
    let (run, code) = outcome(&conduct(None, &url, &addr, 1, &further).output()?);
    assert_eq!(code, Some(0), "{run:#}");
    let seen = count.lines();
    let (run, code) = outcome(&conduct(None, &url, &addr, 1, &further).output()?);
    assert_eq!(code, Some(0), "{run:#}");
    // Nothing of the run that was given up goes on: those of the warm-up were sent as well.
    let own = run["measured"]["messages"].as_u64().unwrap();
    assert!(count.lines() - seen < own * 2, "{} lines, of which {own} count", count.lines() - seen);
    Ok(())
}

/// The children of a process.
fn children(parent: u32) -> Vec<Process> {
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let tasks = std::fs::read_dir(format!("/proc/{parent}/task")).unwrap().flatten();
    let ids: String = tasks.map(|task| read(task.path().join("children"))).collect();
    let ids = ids.split_whitespace().filter_map(|id| id.parse().ok());
    ids.filter_map(|id| Process::new(id).ok()).collect()
}
