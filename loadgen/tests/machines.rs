//! One run that several machines drive, with a real NATS server. It needs `nats-server`, and the
//! case with three hosts network namespaces, which only root may make: what cannot be tried is
//! shown as ignored, with the reason.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test, as it should")]

#[path = "machines/beside.rs"]
mod beside;
#[path = "common/cluster.rs"]
mod cluster;
mod common;
#[path = "machines/compared.rs"]
mod compared;
#[path = "machines/reach.rs"]
mod reach;
#[path = "machines/secrets.rs"]
mod secrets;
#[path = "machines/slow.rs"]
mod slow;

use std::process::{Child, Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::{HUB, Hosts, Killed, NATS, Nats, agent, call, conduct, folder, outcome, reasons};
use common::{Count, Wrong};
use libtest_mimic::{Arguments, Failed, Trial};
use loadgen::record::Stored;
use serde_json::Value;

/// A quiet open loop: 2000 lines a second for four seconds, so that half time is known by the
/// lines that the server has seen.
const QUIET: [&str; 10] = [
    "--workload",
    "open-loop",
    "--rate",
    "2000",
    "--connections",
    "6",
    "--warmup",
    "100ms",
    "--duration",
    "4s",
];
const HALF: u64 = 4000;
/// A short run, of which only the verdict is looked at.
const SHORT: [&str; 6] = ["--connections", "4", "--duration", "500ms", "--warmup", "50ms"];

type Test = fn() -> Result<(), Failed>;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let lacks_nats = Command::new(NATS).arg("--version").output().err();
    let lacks_nats =
        lacks_nats.map(|_| "nats-server is missing: apt-get install nats-server".into());
    let lacks_hosts = lacks_nats.clone().or_else(|| Hosts::new().err());
    let of_hosts: [(&str, Test); 2] = [
        ("parts_of_three_hosts_add_up", parts_of_three_hosts_add_up),
        ("two_models_over_three_hosts", compared::two_models_over_three_hosts),
    ];
    let of_nats: [(&str, Test); 23] = [
        ("an_agent_is_killed_at_half_time", an_agent_is_killed_at_half_time),
        ("an_agent_stands_still", an_agent_stands_still),
        ("an_agent_is_of_another_version", an_agent_is_of_another_version),
        ("two_agents_have_one_name", two_agents_have_one_name),
        ("an_agent_is_missing", an_agent_is_missing),
        ("nats_is_started_again_at_half_time", nats_is_started_again_at_half_time),
        ("clocks_are_an_hour_apart", clocks_are_an_hour_apart),
        ("a_wrong_answer_to_one_is_the_verdict_of_all", a_wrong_answer_to_one),
        ("nats_asks_who_is_there", nats_asks_who_is_there),
        ("a_server_is_kept_and_its_cost_taken", beside::a_server_is_kept_and_its_cost_taken),
        ("only_own_models_are_started", beside::only_models_of_its_own_file_are_started),
        ("the_server_ends_in_the_middle", beside::the_server_ends_in_the_middle),
        ("the_agent_beside_is_killed", beside::the_agent_beside_the_server_is_killed),
        ("a_conductor_is_killed", beside::a_conductor_is_killed),
        ("an_agent_is_free", beside::an_agent_is_free_when_its_conductor_is_killed),
        ("an_agent_is_killed_in_a_comparison", compared::an_agent_is_killed_in_a_comparison),
        ("a_comparison_is_interrupted", compared::an_interrupted_comparison_keeps_its_rounds),
        ("a_server_fails_in_a_comparison", compared::a_server_fails_in_a_comparison),
        ("a_comparison_is_refused", compared::what_a_comparison_by_agents_cannot_do_is_said),
        ("secrets_are_kept_nowhere", secrets::secrets_are_kept_nowhere),
        ("a_file_of_credentials_is_not_repeated", secrets::a_file_of_credentials_is_not_repeated),
        ("two_reach_what_one_cannot", reach::two_reach_what_one_cannot),
        ("agents_search_for_the_highest_rate", reach::agents_search_for_the_highest_rate),
    ];
    let lacks_shares = lacks_nats.clone().or_else(|| slow::Share::new("probe").err());
    let of_shares: [(&str, Test); 1] =
        [("two_reach_a_rate_that_one_cannot", reach::two_reach_a_rate_that_one_cannot)];
    let of_hosts = of_hosts.into_iter().map(|(name, test)| (name, test, &lacks_hosts));
    let of_nats = of_nats.into_iter().map(|(name, test)| (name, test, &lacks_nats));
    let of_shares = of_shares.into_iter().map(|(name, test)| (name, test, &lacks_shares));
    let cases = of_hosts.chain(of_nats).chain(of_shares);
    let trials = cases.map(|(name, test, lack)| match lack {
        Some(why) => Trial::test(name, test).with_kind(why).with_ignored_flag(true),
        None => Trial::test(name, test),
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

fn parts_of_three_hosts_add_up() -> Result<(), Failed> {
    let hosts = Hosts::new()?;
    let [hub, one, other] = hosts.paths();
    let nats = Nats::at(Some(&hub), HUB, 4222, &[]);
    let url = nats.url();
    let _agents = [agent(Some(&one), &url, "one", &[]), agent(Some(&other), &url, "other", &[])];
    let _s = beside::beside(Some(&hub), &url, HUB, &beside::models("hosts"), &[]);
    let dir = folder("sum");
    let out = dir.display().to_string();
    let asked = ["run", "--agents", "2", "--model", "slow", "--server-agent", "s", "--json"];
    let further = ["--connections", "7", "--duration", "2s", "--warmup", "100ms", "--out", &out];
    let output = call(Some(&hub), &url, &[&asked[..], &further].concat()).output()?;
    let (run, code) = outcome(&output);
    assert_eq!(code, Some(0), "{run:#}");
    let parts = run["parts"].as_array().unwrap();
    let names: Vec<_> = parts.iter().map(|part| part["agent"].as_str().unwrap()).collect();
    assert_eq!(names, ["one", "other"]);
    assert_eq!(parts.iter().map(|part| part["connections"].as_u64().unwrap()).sum::<u64>(), 7);
    assert!(run["kept"]["addr"].as_str().unwrap().starts_with(HUB), "{run:#}");
    beside::is_of_the_server(&run["measured"]["cost"]);
    let all = &Stored::read(&dir)?.runs[0].1;
    let read = |name: &str| Stored::read(&dir.join("agents").join(name)).unwrap().runs.remove(0).1;
    let (a, b) = (read("1-one"), read("2-other"));
    let [all, a, b] = [all, &a, &b].map(|run| run.measured.as_ref().unwrap());
    assert_eq!(all.messages, a.messages + b.messages);
    assert!(a.messages > 0 && b.messages > 0);
    let sum = a.messages_per_second + b.messages_per_second;
    assert!((all.messages_per_second / sum - 1.0).abs() < 1e-9);
    assert_eq!(run["measured"]["messages"], all.messages);
    for (n, (name, histogram)) in all.histograms.iter().enumerate() {
        let mut sum = a.histograms[n].1.clone();
        sum.add(&b.histograms[n].1).unwrap();
        assert_eq!(*histogram, sum, "{name}");
        assert_eq!(histogram.len(), all.messages, "{name}");
    }
    Ok(())
}

/// A run by two agents of [`QUIET`] lines, of which half have come.
struct Halfway {
    run: Child,
    nats: Nats,
    agents: [Killed; 2],
    /// The agent beside the server, which is this process.
    beside: Killed,
    dir: std::path::PathBuf,
}

fn halfway(name: &str) -> Halfway {
    let nats = Nats::start(&[]);
    let (addr, count) = common::counting_echo(Wrong::Nothing);
    let agents = ["a", "b"].map(|name| agent(None, &nats.url(), name, &[]));
    let beside = beside::beside(None, &nats.url(), "127.0.0.1", &beside::models(name), &[]);
    let dir = folder(name);
    let (out, own) = (dir.display().to_string(), std::process::id().to_string());
    let further = ["--out", &out, "--pid", &own, "--server-agent", "s"];
    let further = [&QUIET[..], &further].concat();
    let run = conduct(None, &nats.url(), &addr.to_string(), 2, &further).spawn().unwrap();
    until(&count, HALF);
    Halfway { run, nats, agents, beside, dir }
}

/// Waits until the server has seen so many lines.
fn until(count: &Arc<Count>, lines: u64) {
    let end = Instant::now() + Duration::from_secs(60);
    while count.lines() < lines {
        assert!(Instant::now() < end, "{} lines have come", count.lines());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn an_agent_is_killed_at_half_time() -> Result<(), Failed> {
    let Halfway { run, agents: [_a, b], dir, nats: _nats, beside: _s } = halfway("killed");
    drop(b);
    let (run, code) = outcome(&run.wait_with_output()?);
    assert_eq!((code, &run["verdict"]["status"]), (Some(1), &Value::from("INVALID")), "{run:#}");
    assert!(reasons(&run).contains("b: nothing was heard of it for"), "{run:#}");
    assert!(reasons(&run).contains("which are in no number"), "{run:#}");
    assert!(run["measured"].is_null(), "{run:#}");
    let [a, b] = [&run["parts"][0], &run["parts"][1]];
    assert!(a["messages"].as_u64().unwrap() > 3000 && b["lost"].is_string(), "{run:#}");
    // What was measured is kept.
    let kept = Stored::read(&dir.join("agents/1-a"))?;
    assert_eq!(kept.runs[0].1.measured.as_ref().unwrap().messages, a["messages"]);
    Ok(())
}

fn an_agent_stands_still() -> Result<(), Failed> {
    let Halfway { run, agents: [_a, b], nats: _nats, beside: _s, .. } = halfway("still");
    let pid = rustix::process::Pid::from_child(&b.0);
    rustix::process::kill_process(pid, rustix::process::Signal::STOP)?;
    let (run, code) = outcome(&run.wait_with_output()?);
    assert_eq!(code, Some(1), "{run:#}");
    assert!(reasons(&run).contains("b: nothing was heard of it for"), "{run:#}");
    Ok(())
}

fn nats_is_started_again_at_half_time() -> Result<(), Failed> {
    let Halfway { run, mut nats, agents: _agents, beside: _s, .. } = halfway("again");
    nats.stop();
    nats.again();
    let (run, code) = outcome(&run.wait_with_output()?);
    assert_eq!((code, &run["verdict"]["status"]), (Some(0), &Value::from("SUSPECT")), "{run:#}");
    assert!(reasons(&run).contains("the connection to NATS was lost during the run"), "{run:#}");
    let parts = run["parts"].as_array().unwrap();
    let sum: u64 = parts.iter().map(|part| part["messages"].as_u64().unwrap()).sum();
    assert_eq!(run["measured"]["messages"], sum, "{run:#}");
    assert!(run["measured"]["cost"]["cpu_ns_per_message"].as_f64() > Some(0.0), "{run:#}");
    Ok(())
}

fn an_agent_is_of_another_version() -> Result<(), Failed> {
    let nats = Nats::start(&[]);
    let addr = common::echo(Wrong::Nothing).to_string();
    let _a = agent(None, &nats.url(), "a", &[]);
    let _b = agent(None, &nats.url(), "b", &["--pretend-version", "9.9.9"]);
    let further = [&SHORT[..], &["--agents-within", "2s"]].concat();
    let (run, code) = outcome(&conduct(None, &nats.url(), &addr, 2, &further).output()?);
    assert_eq!((code, &run["verdict"]["status"]), (Some(1), &Value::from("INVALID")), "{run:#}");
    assert!(reasons(&run).contains("b is left out: it runs version 9.9.9"), "{run:#}");
    // It does not hinder those that fit.
    let (run, code) = outcome(&conduct(None, &nats.url(), &addr, 1, &further).output()?);
    assert_eq!((code, &run["parts"][0]["agent"]), (Some(0), &Value::from("a")), "{run:#}");
    Ok(())
}

/// Their parts could not be told apart. Agents that are told no name have that of their machine.
fn two_agents_have_one_name() -> Result<(), Failed> {
    let nats = Nats::start(&[]);
    let addr = common::echo(Wrong::Nothing).to_string();
    let _agents = ["a", "a"].map(|name| agent(None, &nats.url(), name, &[]));
    let further = [&SHORT[..], &["--agents-within", "2s"]].concat();
    let (run, code) = outcome(&conduct(None, &nats.url(), &addr, 2, &further).output()?);
    assert_eq!((code, &run["verdict"]["status"]), (Some(1), &Value::from("INVALID")), "{run:#}");
    assert!(reasons(&run).contains("a is left out: another agent has this name"), "{run:#}");
    let (run, code) = outcome(&conduct(None, &nats.url(), &addr, 1, &further).output()?);
    assert_eq!((code, &run["parts"][0]["agent"]), (Some(0), &Value::from("a")), "{run:#}");
    Ok(())
}

fn an_agent_is_missing() -> Result<(), Failed> {
    let nats = Nats::start(&[]);
    let _a = agent(None, &nats.url(), "a", &[]);
    let further = [&SHORT[..], &["--agents-within", "1s"]].concat();
    let output = conduct(None, &nats.url(), "127.0.0.1:9", 2, &further).output()?;
    let (run, code) = outcome(&output);
    assert_eq!(code, Some(1), "{run:#}");
    assert!(reasons(&run).contains("2 agents were asked for; there were after 1 s: a"), "{run:#}");
    Ok(())
}

fn clocks_are_an_hour_apart() -> Result<(), Failed> {
    const HOUR: f64 = 3_600e9;
    let nats = Nats::start(&[]);
    let addr = common::echo(Wrong::Nothing).to_string();
    let _a = agent(None, &nats.url(), "a", &["--pretend-ahead", "3600000"]);
    let _b = agent(None, &nats.url(), "b", &["--pretend-ahead", "-3600000"]);
    let (run, code) = outcome(&conduct(None, &nats.url(), &addr, 2, &SHORT).output()?);
    assert_eq!(code, Some(0), "{run:#}");
    for (part, ahead) in run["parts"].as_array().unwrap().iter().zip([HOUR, -HOUR]) {
        let known = part["clock_within_ns"].as_f64().unwrap() + 1e6;
        assert!((part["clock_ahead_ns"].as_f64().unwrap() - ahead).abs() < known, "{run:#}");
    }
    assert!(run["measured"]["messages"].as_u64().unwrap() > 0, "{run:#}");
    Ok(())
}

fn a_wrong_answer_to_one() -> Result<(), Failed> {
    let nats = Nats::start(&[]);
    let addr = common::echo(Wrong::Alter).to_string();
    let _agents = ["a", "b"].map(|name| agent(None, &nats.url(), name, &[]));
    let further = ["--connections", "8", "--depth", "64", "--workload", "pipelined"];
    let further = [&further[..], &["--duration", "20s", "--warmup", "0s"]].concat();
    let (run, code) = outcome(&conduct(None, &nats.url(), &addr, 2, &further).output()?);
    assert_eq!((code, &run["verdict"]["status"]), (Some(1), &Value::from("INVALID")), "{run:#}");
    assert_eq!(run["faults"]["altered"], 1, "{run:#}");
    assert!(run["measured"].is_null(), "{run:#}");
    Ok(())
}

fn nats_asks_who_is_there() -> Result<(), Failed> {
    let nats = Nats::start(&["--user", "me", "--pass", "secret"]);
    let addr = common::echo(Wrong::Nothing).to_string();
    let url = nats.url_as("me", "secret");
    let _a = agent(None, &url, "a", &[]);
    let (run, code) = outcome(&conduct(None, &url, &addr, 1, &SHORT).output()?);
    assert_eq!(code, Some(0), "{run:#}");
    let wrong = nats.url_as("me", "hidden");
    let refused = conduct(None, &wrong, &addr, 1, &SHORT).output()?;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(
        said.contains("cannot connect to nats://127.77.") && !said.contains("hidden"),
        "{said}"
    );
    Ok(())
}
