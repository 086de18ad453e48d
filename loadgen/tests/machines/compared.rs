//! A comparison that agents drive: its table and its record, and what becomes of it when an agent,
//! a server or the conductor ends.

use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output};

use libtest_mimic::Failed;
use loadgen::measure::Status;
use loadgen::record::Stored;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::beside::{beside, models};
use crate::cluster::{HUB, Hosts, LOADGEN, Nats, agent, call, folder};

/// What a comparison by two agents asks for, beside models, rounds and times.
const ASKED: [&str; 10] = [
    "compare",
    "--agents",
    "2",
    "--server-agent",
    "s",
    "--workloads",
    "ping-pong",
    "--connections",
    "4",
    "--json",
];

/// The comparison in a document, and the exit code.
fn outcome(output: &Output) -> (Value, Option<i32>) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let parsed = serde_json::from_slice::<Value>(&output.stdout);
    let mut document = parsed.unwrap_or_else(|e| panic!("{e}: {said}"));
    (document["comparison"].take(), output.status.code())
}

pub(crate) fn two_models_over_three_hosts() -> Result<(), Failed> {
    let hosts = Hosts::new()?;
    let [hub, one, other] = hosts.paths();
    let nats = Nats::at(Some(&hub), HUB, 4222, &[]);
    let url = nats.url();
    let _agents = [agent(Some(&one), &url, "one", &[]), agent(Some(&other), &url, "other", &[])];
    let _s = beside(Some(&hub), &url, HUB, &models("compared"), &[]);
    let dir = folder("compared");
    let out = dir.display().to_string();
    let times = ["--rounds", "6", "--duration", "2s", "--warmup", "50ms"];
    let further = ["--models", "quick,hard", "--out", &out];
    let mut asked = call(Some(&hub), &url, &[&ASKED[..], &times, &further].concat());
    let (found, code) = outcome(&asked.output()?);
    assert_eq!((code, &found["interrupted"]), (Some(0), &false.into()), "{found:#}");
    let names = |machines: &Value| -> Vec<String> {
        let all = machines.as_array().unwrap().iter();
        all.map(|machine| machine["agent"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&found["machines"]["agents"]), ["one", "other"]);
    assert_eq!(found["machines"]["beside"]["agent"], "s");
    let section = &found["sections"][0];
    let ranks =
        |n: usize| (section["rows"][n]["server"].clone(), section["rows"][n]["rank"].clone());
    assert_eq!((ranks(0), ranks(1)), (("quick".into(), 1.into()), ("hard".into(), 2.into())));
    assert_eq!((&section["rounds"], &section["pairs"][0]["apart"]), (&6.into(), &true.into()));
    // It computes until 200 µs are over, at each line. On a busy machine other programs have a part
    // of that time.
    let cost = section["rows"][1]["cpu_ns"]["median"].as_f64().unwrap();
    assert!((50_000.0..4_000_000.0).contains(&cost), "{found:#}");
    in_its_record(&dir)
}

/// The same is in the record, with every round of each agent, and `report` shows it.
fn in_its_record(dir: &Path) -> Result<(), Failed> {
    let stored = Stored::read(dir)?;
    assert_eq!(stored.runs.len(), 12);
    for agent in ["1-one", "2-other"] {
        let own = Stored::read(&dir.join("agents").join(agent))?.runs;
        let rounds: Vec<u32> = own.iter().map(|(round, _)| *round).collect();
        assert_eq!(rounds, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5], "{agent}");
    }
    // In each round the other one begins.
    let servers: Vec<&str> = stored.runs.iter().map(|(_, run)| run.server.as_str()).collect();
    assert_ne!(servers[0], servers[2], "{servers:?}");
    let shown = Command::new(LOADGEN).arg("report").arg(dir).output()?;
    let shown = String::from_utf8(shown.stdout)?;
    for part in ["Driven from one (", " and other (", "the servers ran on s (", "no gate", "hard: "]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    // Runs alone say as much, where the comparison was cut off.
    std::fs::remove_file(dir.join("result.json"))?;
    let again = Stored::read(dir)?.comparison.unwrap();
    assert_eq!(again.machines, stored.comparison.unwrap().machines);
    assert_eq!((again.sections[0].rounds, again.interrupted), (6, false));
    assert!(dir.join("report.html").exists());
    Ok(())
}

/// A comparison that has told of its third round's first window.
struct Third {
    comparison: Child,
    said: Lines<BufReader<ChildStderr>>,
}

impl Third {
    fn reach(nats: &Nats, out: &str) -> Result<Self, Failed> {
        let times = ["--rounds", "8", "--duration", "1s", "--warmup", "50ms"];
        let further = ["--models", "quick,hard", "--agents-within", "5s", "--out", out];
        let asked = [&ASKED[..], &times, &further].concat();
        let mut comparison = call(None, &nats.url(), &asked).spawn()?;
        let mut said = BufReader::new(comparison.stderr.take().unwrap()).lines();
        for sign in ["round 3 of 8", "from 2 agents"] {
            let found = said.by_ref().map_while(Result::ok).any(|line| line.contains(sign));
            assert!(found, "it did not come to {sign:?}");
        }
        Ok(Self { comparison, said })
    }

    fn end(self) -> Result<(Value, Option<i32>), Failed> {
        let rest: Vec<String> = self.said.map_while(Result::ok).collect();
        let output = self.comparison.wait_with_output()?;
        Ok(outcome(&Output { stderr: rest.join("\n").into_bytes(), ..output }))
    }
}

pub(crate) fn an_agent_is_killed_in_a_comparison() -> Result<(), Failed> {
    let nats = Nats::start(&[]);
    let [_a, b] = ["a", "b"].map(|name| agent(None, &nats.url(), name, &[]));
    let _s = beside(None, &nats.url(), "127.0.0.1", &models("lost"), &[]);
    let dir = folder("lost");
    let third = Third::reach(&nats, &dir.display().to_string())?;
    drop(b);
    let (found, code) = third.end()?;
    assert_eq!((code, &found["interrupted"]), (Some(1), &false.into()), "{found:#}");
    let [run, why] = [&found["lost"][0][0], &found["lost"][0][1]].map(|text| text.to_string());
    assert!(run.contains("round 3, ") && run.contains("INVALID"), "{run}");
    assert!(why.contains("b: nothing was heard of it for"), "{why}");
    // The rounds before it count, and what the other agent has measured is kept.
    assert_eq!(found["sections"][0]["rounds"], 2, "{found:#}");
    assert_eq!((&found["failed"], &found["left_out"]), (&Value::Array(vec![]), &found["failed"]));
    let stored = Stored::read(&dir)?;
    let (round, last) = stored.runs.last().unwrap();
    assert_eq!((stored.runs.len(), *round, last.verdict.status), (5, 2, Status::Invalid));
    let kept = Stored::read(&dir.join("agents/1-a"))?;
    assert!(kept.runs[4].1.measured.as_ref().unwrap().messages > 0);
    std::fs::remove_file(dir.join("result.json"))?;
    let again = Stored::read(&dir)?.comparison.unwrap();
    assert_eq!((again.sections[0].rounds, again.lost.len()), (2, 1));
    Ok(())
}

pub(crate) fn an_interrupted_comparison_keeps_its_rounds() -> Result<(), Failed> {
    let nats = Nats::start(&[]);
    let _agents = ["a", "b"].map(|name| agent(None, &nats.url(), name, &[]));
    let _s = beside(None, &nats.url(), "127.0.0.1", &models("interrupted"), &[]);
    let dir = folder("interrupted");
    let third = Third::reach(&nats, &dir.display().to_string())?;
    kill_process(Pid::from_child(&third.comparison), Signal::INT)?;
    let (found, code) = third.end()?;
    assert_eq!((code, &found["interrupted"]), (Some(130), &true.into()), "{found:#}");
    assert_eq!(found["sections"][0]["rounds"], 2, "{found:#}");
    assert_eq!(Stored::read(&dir)?.runs.len(), 4);
    Ok(())
}

/// One that ends by itself and one that the agent does not have are left out and named.
pub(crate) fn a_server_fails_in_a_comparison() -> Result<(), Failed> {
    let nats = Nats::start(&[]);
    let _agents = ["a", "b"].map(|name| agent(None, &nats.url(), name, &[]));
    let _s = beside(None, &nats.url(), "127.0.0.1", &models("fails"), &[]);
    let dir = folder("fails").display().to_string();
    let times = ["--rounds", "2", "--duration", "4s", "--warmup", "50ms"];
    let further = ["--models", "mortal,unheard-of,quick", "--out", &dir];
    let asked = [&ASKED[..], &times, &further].concat();
    let (found, code) = outcome(&call(None, &nats.url(), &asked).output()?);
    assert_eq!((code, &found["lost"]), (Some(1), &Value::Null), "{found:#}");
    assert_eq!(found["failed"], serde_json::json!(["mortal", "unheard-of"]), "{found:#}");
    let why = found["left_out"].to_string();
    assert!(why.contains("s, beside the server: the server ended in the middle"), "{why}");
    assert!(why.contains("its models file has no unheard-of"), "{why}");
    let rows = found["sections"][0]["rows"].as_array().unwrap();
    assert_eq!((rows.len(), &rows[0]["server"]), (1, &"quick".into()), "{found:#}");
    assert_eq!(found["sections"][0]["rounds"], 2, "{found:#}");
    Ok(())
}

/// What cannot be done over several machines is refused, or left out and said.
pub(crate) fn what_a_comparison_by_agents_cannot_do_is_said() -> Result<(), Failed> {
    let nats = "nats://127.0.0.1:9";
    let base = ["compare", "--agents", "2", "--server-agent", "s", "--models", "a"];
    let refused = [
        (&["--cmd", "x {addr}"][..], "models of its own models file"),
        (&["--bare"], "models of its own models file"),
        (&["--reference=true"], "says nothing of the generators here"),
        (&["--workloads", "fan-out"], "the same nicknames"),
        (&["--workloads", "hog"], "disturbers of its own"),
        (&["--generator-cpus", "0"], "belongs to the agents"),
    ];
    for (flags, why) in refused {
        let output = call(None, nats, &[&base[..], flags].concat()).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {said}");
        assert!(said.contains(why), "{flags:?}: {said}");
    }
    for (asked, why) in [(&base[..5], "name the servers"), (&base[..3], "name the servers")] {
        let output = call(None, nats, asked).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && said.contains(why), "{asked:?}: {said}");
    }
    // Of the usual workloads those that cannot be shared out are named before anything starts.
    let out = folder("refused").display().to_string();
    let output = call(None, nats, &[&base[..], &["--out", &out]].concat()).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("fan-out is left out: fan-out cannot be shared out"), "{said}");
    Ok(())
}
