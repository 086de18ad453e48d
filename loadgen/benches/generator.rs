//! What checking costs: processor time for each ping-pong message, of the generator and of a bare
//! epoll client that checks nothing, against the same bare server, in interleaved rounds.
//!
//! ```text
//! cargo bench -p loadgen --bench generator
//! ```

#![allow(clippy::unwrap_used, reason = "a failure here ends the benchmark, as it should")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use loadgen::results::{FEWEST_ROUNDS, SignedRank, Spread};
use serde_json::Value;

const LOADGEN: &str = env!("CARGO_BIN_EXE_loadgen");
/// Pairs of runs for each number of connections.
const ROUNDS: usize = 15;
/// What either client measures in a run.
const DURATION: &str = "700ms";
/// Processors of the server and of the clients.
const CPUS: [&str; 2] = ["0", "1"];

fn main() {
    // `cargo test --benches` only wants to know that it starts.
    let rounds = if std::env::args().any(|arg| arg == "--bench") { ROUNDS } else { FEWEST_ROUNDS };
    let (mut server, addr) = bare_server();
    println!("CPU per ping-pong message of 64 bytes: ns, median of {rounds} rounds");
    println!("connections  bare client  loadgen  ratio [95 % interval]");
    for connections in ["64", "1000"] {
        let (mut bare, mut checked) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            // Mirrored, so that drift of the machine falls on both alike.
            if round % 2 == 0 {
                bare.push(bare_client(&addr, connections));
                checked.push(generator(&addr, connections));
            } else {
                checked.push(generator(&addr, connections));
                bare.push(bare_client(&addr, connections));
            }
        }
        let median = |values: &[f64]| Spread::of(values).unwrap().median;
        let ratio = SignedRank::of(rounds).ratio(&checked, &bare).unwrap();
        println!(
            "{connections:>11}  {:>11.0}  {:>7.0}  {:.3} [{:.3} .. {:.3}]",
            median(&bare),
            median(&checked),
            ratio.ratio,
            ratio.low,
            ratio.high
        );
    }
    server.kill().unwrap();
    server.wait().unwrap();
}

/// This program's command `args` on processor `cpu`, ending with us.
fn pinned(cpu: &str, args: &[&str]) -> Command {
    let mut command = Command::new(LOADGEN);
    command.args(["exec", "--cpus", cpu, "--parent", &std::process::id().to_string(), "--"]);
    command.arg(LOADGEN).args(args).stdin(Stdio::null());
    command
}

fn bare_server() -> (Child, String) {
    let mut child = pinned(CPUS[0], &["null-server"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (child, line.trim().strip_prefix("listening on ").unwrap().to_owned())
}

fn answer(mut command: Command) -> Value {
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{command:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn bare_client(addr: &str, connections: &str) -> f64 {
    let flags = ["--connections", connections, "--size", "64", "--duration", DURATION];
    let args = [&["null-client", "--addr", addr], &flags[..]].concat();
    answer(pinned(CPUS[1], &args))["cpu_ns_per_message"].as_f64().unwrap()
}

fn generator(addr: &str, connections: &str) -> f64 {
    let flags = ["--connections", connections, "--size", "64", "--duration", DURATION];
    let own = ["--generator-cpus", CPUS[1], "--warmup", "100ms", "--json"];
    let args = [&["run", "--addr", addr], &flags[..], &own].concat();
    let mut command = Command::new(LOADGEN);
    command.args(args);
    let report = answer(command);
    report["run"]["measured"]["generator_cpu_ns_per_message"].as_f64().unwrap()
}
