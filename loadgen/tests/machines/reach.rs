//! What several generators reach together.

use std::io::{BufRead, BufReader};

use libtest_mimic::Failed;
use serde_json::Value;

use crate::cluster::{Killed, LOADGEN, Nats, agent, call, conduct, outcome, reasons, start};
use crate::common::{self, Wrong};
use crate::slow::Share;

/// An agent that may open few descriptors.
fn narrow(url: &str, name: &str) -> Killed {
    let command = format!("ulimit -n 300; exec {LOADGEN} agent --nats {url} --name {name}");
    start(None, "sh", &["-c", &command], &format!("agent {name} is there"))
}

pub(crate) fn two_reach_what_one_cannot() -> Result<(), Failed> {
    let nats = Nats::start(&[]);
    let addr = common::echo(Wrong::Nothing).to_string();
    let _agents = ["a", "b"].map(|name| narrow(&nats.url(), name));
    let asked = ["--connections", "400", "--duration", "300ms", "--warmup", "50ms"];
    let (one, code) = outcome(&conduct(None, &nats.url(), &addr, 1, &asked).output()?);
    assert_eq!(code, Some(1), "{one:#}");
    let why = reasons(&one);
    assert!(why.contains("400 connections need 464 file descriptors"), "{one:#}");
    let (two, code) = outcome(&conduct(None, &nats.url(), &addr, 2, &asked).output()?);
    assert_eq!(code, Some(0), "{two:#}");
    let parts = two["parts"].as_array().unwrap();
    let each: Vec<_> = parts.iter().map(|part| part["connections"].as_u64().unwrap()).collect();
    assert_eq!((each, &two["workload"]["connections"]), (vec![200, 200], &Value::from(400)));
    Ok(())
}

/// The rate at which the search begins, in lines for each second, and the most that is tried.
const FIRST: f64 = 500.0;
const LAST: f64 = 500_000.0;
/// How near the search comes to what one agent reaches.
const NEAR: f64 = 1.1;
/// What is well above that, and well below what two reach.
const BEYOND: f64 = 1.25;
/// Periods in a window of two seconds.
const PERIODS: u64 = 20;
/// In so many of them an agent was held back whose share does not suffice, and no more often one
/// whose share does: opening connections and packing the result may use one up.
const MOST: u64 = PERIODS * 2 / 3;
const FEW: u64 = PERIODS / 3;
/// How often two agents may try, where the machine is not quiet.
const TRIES: usize = 5;
/// How many rates are tried, each that much above the one before, where what a share is worth
/// changes meanwhile.
const RATES: usize = 8;

/// Two agents of which each may use a tenth of a processor. What that is worth is found first. The
/// kernel says whether a share was used up, whatever else the machine does.
pub(crate) fn two_reach_a_rate_that_one_cannot() -> Result<(), Failed> {
    let held = Held::start()?;
    let mut rate = held.limit_of_one()?;
    for _ in 0..RATES {
        let beyond = rate * BEYOND;
        if held.is_too_much_for_one(beyond)? {
            let verdicts = held.by_two(beyond)?;
            let valid = verdicts.iter().any(|verdict| verdict["status"] == "VALID");
            if !verdicts.is_empty() && held.is_too_much_for_one(beyond)? {
                return match valid {
                    true => Ok(()),
                    false => none_is_valid_here(&held.addr, beyond, &verdicts),
                };
            }
        }
        rate *= NEAR;
    }
    Err(format!("no rate up to {rate:.0} lines/s is too much for one and not for two").into())
}

/// Two agents that are held back.
struct Held {
    nats: Nats,
    addr: String,
    agents: [(Killed, Share); 2],
}

impl Held {
    fn start() -> Result<Self, Failed> {
        let nats = Nats::start(&[]);
        let addr = common::echo(Wrong::Nothing).to_string();
        let agent = |name| Share::new(name).map(|share| (share.agent(&nats.url(), name), share));
        let agents = [agent("a")?, agent("b")?];
        Ok(Self { nats, addr, agents })
    }

    /// In how many periods each was held back so far.
    fn periods(&self) -> [u64; 2] {
        [0, 1].map(|n| self.agents[n].1.held_back())
    }

    /// Whether one agent's share was used up. If so, its result must say whose limit that is.
    fn is_too_much_for_one(&self, rate: f64) -> Result<bool, Failed> {
        let before: u64 = self.periods().iter().sum();
        let run = open(&self.nats, &self.addr, 1, rate)?;
        let short = self.periods().iter().sum::<u64>() - before >= MOST;
        let verdict = &run["verdict"];
        let said = verdict["status"] == "SUSPECT" && verdict["generator"].is_string();
        assert!(said || !short, "its share was used up, and it does not say so: {run:#}");
        Ok(short)
    }

    /// A rate that is only just too much for one.
    fn limit_of_one(&self) -> Result<f64, Failed> {
        let (mut reached, mut rate) = (0.0, FIRST);
        while !self.is_too_much_for_one(rate)? {
            (reached, rate) = (rate, rate * 2.0);
            assert!(rate < LAST, "no rate is too much for a tenth of a processor");
        }
        while reached > 0.0 && rate / reached > NEAR {
            let middle = (reached * rate).sqrt();
            match self.is_too_much_for_one(middle)? {
                true => rate = middle,
                false => reached = middle,
            }
        }
        Ok(rate)
    }

    /// What is said of runs by two whose shares sufficed, up to the first that is VALID.
    fn by_two(&self, rate: f64) -> Result<Vec<Value>, Failed> {
        let mut verdicts = Vec::new();
        for _ in 0..TRIES {
            let before = self.periods();
            let two = open(&self.nats, &self.addr, 2, rate)?;
            let parts = two["parts"].as_array().unwrap();
            let each: Vec<_> = parts.iter().map(|part| part["rate"].as_f64().unwrap()).collect();
            assert_eq!(each, [rate / 2.0; 2], "{two:#}");
            if self.periods().iter().zip(before).all(|(after, before)| after - before <= FEW) {
                verdicts.push(two["verdict"].clone());
            }
            if two["verdict"]["status"] == "VALID" {
                break;
            }
        }
        Ok(verdicts)
    }
}

/// The shares of two agents sufficed, and yet no run was VALID: nor are all of an agent that has
/// the whole machine.
fn none_is_valid_here(addr: &str, rate: f64, verdicts: &[Value]) -> Result<(), Failed> {
    let nats = Nats::start(&[]);
    let _whole = agent(None, &nats.url(), "whole", &[]);
    let mut valid = 0;
    for _ in 0..TRIES {
        valid += usize::from(open(&nats, addr, 1, rate)?["verdict"]["status"] == "VALID");
    }
    assert!(valid < TRIES, "this machine is quiet, and of two: {verdicts:?}");
    eprintln!("this machine is not quiet: {rate:.0} lines/s by two agents: {}", verdicts[0]);
    Ok(())
}

/// A run of an open loop.
fn open(nats: &Nats, addr: &str, agents: u32, rate: f64) -> Result<Value, Failed> {
    // With a thread more than the generator has processors none of them waits without sleeping,
    // which would use the share up.
    let threads = std::thread::available_parallelism()?.to_string();
    let rate = rate.to_string();
    let asked = ["--workload", "open-loop", "--rate", &rate, "--when-busy", "pipeline"];
    let lines = ["--connections", "8", "--threads", &threads];
    // So much warm-up that both measure at the same time also on a busy machine.
    let asked = [&asked[..], &lines, &["--duration", "2s", "--warmup", "1s"]].concat();
    let (run, code) = outcome(&conduct(None, &nats.url(), addr, agents, &asked).output()?);
    // Beside other programs the windows of the two may drift apart, and then the run is INVALID.
    assert!(matches!(code, Some(0 | 1)), "{run:#}");
    Ok(run)
}

/// What was found before an agent was lost is kept, and why the search has ended.
pub(crate) fn agents_search_for_the_highest_rate() -> Result<(), Failed> {
    let nats = Nats::start(&[]);
    let addr = common::echo(Wrong::Nothing).to_string();
    let [_a, b] = ["a", "b"].map(|name| agent(None, &nats.url(), name, &[]));
    let args = ["find-max", "--agents", "2", "--addr", &addr, "--json", "--from", "1000"];
    let asked = ["--objective", "p50<10s", "--duration", "200ms", "--agents-within", "2s"];
    let asked = [&asked[..], &["--connections", "8"]].concat();
    let mut search = call(None, &nats.url(), &[&args[..], &asked].concat()).spawn()?;
    let mut said = BufReader::new(search.stderr.take().unwrap()).lines();
    // Whether it has held is the machine's affair.
    let probed = |line: &String| {
        ["held", "missed"].iter().any(|it| line.contains(&format!("1,000 messages/s {it}: p50")))
    };
    let line = said.by_ref().map_while(Result::ok).find(probed);
    assert!(line.is_some(), "there was no first probe");
    drop(b);
    let rest: String = said.map_while(Result::ok).map(|line| line + "\n").collect();
    let output = search.wait_with_output()?;
    let document: Value =
        serde_json::from_slice(&output.stdout).map_err(|e| format!("{e}: {rest}"))?;
    let found = &document["found"][0];
    assert_eq!((output.status.code(), &found["server"]), (Some(1), &addr.into()), "{document:#}");
    assert_eq!(found["probes"][0]["rate"], 1000.0, "{document:#}");
    let why = found["failed"].as_str().unwrap();
    assert!(why.starts_with("INVALID at"), "{why}");
    Ok(())
}
