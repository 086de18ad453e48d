//! The command line: what can be asked, and what is refused before anything starts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use super::grid::Grid;
use super::machines::{Agent, Machines};
use crate::base::bounds::{self, DAY, MILLISECOND};
use crate::base::exit::MEANINGS;
use crate::target::Models;
use crate::target::synthetic::{self, Service};
use crate::workload::{Changes, Mode, Objective};

/// Bytes of a password that leave room for the rest of the line, which has 512.
const MOST_PASSWORD: usize = 400;
/// The highest number of a processor: no kernel is built for more.
pub const MOST_CPU: usize = 8191;

/// Drives any server that speaks the line protocol, checks every byte, and says what it costs.
#[derive(Debug, Parser)]
#[command(name = "loadgen", version, about, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The command line, with what `--help` says below the flags of each command.
pub fn command() -> clap::Command {
    let codes = exit_codes();
    let command = Cli::command().after_help(codes.clone());
    command.mut_subcommands(|command| command.after_help(codes.clone()))
}

/// What was asked, or what is wrong with it.
pub fn parse() -> std::result::Result<Cli, clap::Error> {
    Cli::from_arg_matches(&command().try_get_matches()?)
}

/// The meanings of the exit codes, a line each.
fn exit_codes() -> String {
    let mut text = String::from("Exit codes:");
    for (code, meaning) in MEANINGS {
        text.push_str(&format!("\n  {code:<4} {meaning}"));
    }
    text
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the models and the workloads, and whether they can run here
    List(List),
    /// Say whether this machine is fit to measure on, and what to do about it
    Doctor(Doctor),
    /// Drive one server with one workload and say everything about it
    Run(Run),
    /// Drive many servers in interleaved rounds and rank them
    Compare(Compare),
    /// Say this machine's ceiling and noise floor, and whether verdicts can be trusted here
    Calibrate(Calibrate),
    /// Try what is often said about the models on this machine
    Claims(Claims),
    /// Drive servers for a long time, with clients that misbehave, and say whether anything grows
    Soak(Soak),
    /// Find the highest rate at which an objective such as p99<1ms holds
    FindMax(FindMax),
    /// Put one server through the short conformance gate
    Verify(Verify),
    /// Show records again, as tables, HTML, JSON or CSV, or merge those of several generators
    Report(Report),
    /// Wait for a conductor (run --agents), and drive its share of a run from this machine
    Agent(Agent),
    /// Print the JSON Schema of what --json prints
    Schema,
    /// Print a script that completes commands and flags in a shell
    Completions(Completions),
    /// Print a manual page, for man -l -
    Man(Man),
    /// The null reference: a bare epoll echo loop without protocol, or with known service times
    #[command(hide = true)]
    NullServer(NullServer),
    /// A bare epoll client that checks nothing
    #[command(hide = true)]
    NullClient(NullClient),
    /// Become a command on given processors that ends with its parent
    #[command(hide = true)]
    Exec(Exec),
}

/// Flags of `list`.
#[derive(Debug, Args)]
pub struct List {
    /// Models of your own, beside those of this project
    #[command(flatten)]
    pub models_file: ModelsFile,
    /// Show other people's servers instead, and how to get them
    #[arg(long)]
    pub others: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Flags of `doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Models of your own, beside those of this project
    #[command(flatten)]
    pub models_file: ModelsFile,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// The models file of the user's own.
#[derive(Debug, Args)]
pub struct ModelsFile {
    /// Read further models from a file of your own; its models come first where a name is in both
    #[arg(long = "models-file", value_name = "FILE")]
    path: Option<PathBuf>,
    /// Take the models of that file only, and none of this project's
    #[arg(long = "only-models-file", requires = "path")]
    only: bool,
}

impl ModelsFile {
    /// Whether there is such a file.
    pub fn is_given(&self) -> bool {
        self.path.is_some()
    }

    /// The models of this project and of that file.
    pub fn load(&self) -> Result<Models> {
        Models::with(self.path.as_deref(), self.only)
    }
}

/// Which one server.
#[derive(Debug, Default, Args)]
#[group(required = true, multiple = false)]
pub struct Which {
    /// A server that is running already
    #[arg(long, value_name = "HOST:PORT")]
    pub addr: Option<String>,
    /// A server of models.toml; it is built and started
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// A command that serves at {addr}, for example 'my-server {addr}' or 'my-server -h {host} -p
    /// {port}'; {mode} is echo or chat. It is split into words as a shell does, without a shell
    #[arg(long, value_name = "COMMAND")]
    pub cmd: Option<String>,
}

/// What `run`, `compare` and `verify` have in common.
#[derive(Debug, Args)]
pub struct Common {
    /// Models of your own, beside those of this project
    #[command(flatten)]
    pub models_file: ModelsFile,
    /// Threads (or processes) of each server
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = bounds::number(1_u32, 1024))]
    pub workers: u32,
    /// Processors of the server, such as 0 or 0,2 (default: the first ones)
    #[arg(long, value_name = "LIST", value_delimiter = ',',
          value_parser = bounds::number(0, MOST_CPU))]
    pub server_cpus: Vec<usize>,
    /// Send the first line of this file as PASS before a registration (chat)
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Print JSON on standard output instead of tables
    #[arg(long)]
    pub json: bool,
}

impl Common {
    /// The password of --password-file.
    pub fn password(&self) -> Result<Option<String>> {
        let Some(path) = &self.password_file else { return Ok(None) };
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read --password-file {}", path.display()))?;
        let line = text.lines().next().unwrap_or_default();
        ensure!(!line.is_empty(), "--password-file {} has an empty first line", path.display());
        ensure!(
            line.len() <= MOST_PASSWORD && !line.contains('\0'),
            "the password of {} does not fit into a line of IRC",
            path.display()
        );
        Ok(Some(line.to_owned()))
    }
}

/// What `run` and `compare` have in common.
#[derive(Debug, Args)]
pub struct Driving {
    /// Generator threads
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = bounds::number(1_u32, 1024))]
    pub threads: u32,
    /// Processors of the generator (default: the last ones)
    #[arg(long, value_name = "LIST", value_delimiter = ',',
          value_parser = bounds::number(0, MOST_CPU))]
    pub generator_cpus: Vec<usize>,
    /// Seed of all that is random
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = bounds::number(0, u64::MAX))]
    pub seed: u64,
    /// Without any answer for so long, a server counts as stalled
    #[arg(long, value_name = "DURATION", default_value = "5s",
          value_parser = bounds::duration(MILLISECOND, DAY))]
    pub stall_timeout: Duration,
}

/// Flags of `run`.
#[derive(Debug, Args)]
pub struct Run {
    /// The server.
    #[command(flatten)]
    pub which: Which,
    /// The process of a server given by --addr, to read its costs from; with --server-agent one of
    /// that agent's machine
    #[arg(long, value_name = "PID", requires = "addr",
          value_parser = bounds::number(1, i32::MAX))]
    pub pid: Option<i32>,
    /// The workload (see `loadgen list`), or a file of your own that ends in .toml; by default
    /// ping-pong, or fan-out in --mode chat
    ///
    /// Such a file needs a summary, a mode (echo or chat), a size in bytes and a depth. It may have
    /// what the flags below are named after, with _ for -, for example:
    ///
    ///   summary = "what it asks"
    ///   mode = "echo"
    ///   connections = 100
    ///   size = 64
    ///   depth = 4
    ///   rate = 5000
    ///   duration = "3s"
    ///
    /// Instead of a size it may have a mix of them with their weights: sizes = [[64, 9], [1024, 1]]
    #[arg(long, value_name = "NAME|FILE", verbatim_doc_comment)]
    pub workload: Option<String>,
    /// Which half of the protocol to drive
    #[arg(long)]
    pub mode: Option<Mode>,
    /// Changes to the workload.
    #[command(flatten)]
    pub changes: Changes,
    /// How it is driven.
    #[command(flatten)]
    pub driving: Driving,
    /// Where servers come from and what is printed.
    #[command(flatten)]
    pub common: Common,
    /// Begin the window at this time, such as 2026-11-26T23:30:00Z, so that several generators
    /// begin it together (see report --merge)
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_rfc3339_weak)]
    pub at: Option<SystemTime>,
    /// Leave a record with the full histograms in this folder
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// When all is measured, go on for as long again under the same load with this command beside
    /// the server, such as 'perf record -g -p {pid} -o {out}', and end it by SIGINT: what it costs
    /// is in no number. {pid} is the server's process, {out} the file profile.data in the folder of
    /// --out, or else in the current one. It is split into words as a shell does, without a shell
    #[arg(long, value_name = "COMMAND")]
    pub profile: Option<String>,
    /// How far it is, for others.
    #[command(flatten)]
    pub metrics: Metrics,
    /// Other machines that drive.
    #[command(flatten)]
    pub machines: Machines,
}

/// Flags for what is told of a run while it goes on.
#[derive(Debug, Args)]
pub struct Metrics {
    /// Tell how far it is at http://ADDRESS:PORT/metrics, as OpenMetrics; PORT alone is one of
    /// 127.0.0.1
    #[arg(long, value_name = "[ADDRESS:]PORT", value_parser = super::metrics::address)]
    pub metrics: Option<SocketAddr>,
    /// Allow --metrics on an address that other machines can reach
    #[arg(long, requires = "metrics")]
    pub public: bool,
}

/// Flags of `compare`.
#[derive(Debug, Args)]
pub struct Compare {
    /// Servers of models.toml (default: all that can run here); with --agents they are those of the
    /// models file of --server-agent, and must be named
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub models: Vec<String>,
    /// One more server: a command that serves at {addr}, or at {host} and {port}, split into words
    /// as a shell does, without a shell; may be repeated
    #[arg(long, value_name = "COMMAND")]
    pub cmd: Vec<String>,
    /// Enter each of these models bare too, where `loadgen list` says that there is one: an echo in
    /// a few lines, so that echo workloads say what completeness costs
    #[arg(long)]
    pub bare: bool,
    /// What the servers of --cmd speak [default: echo, and chat too where the command says {mode}]
    #[arg(long, value_name = "MODES", value_delimiter = ',', requires = "cmd")]
    pub speaks: Vec<Mode>,
    /// Workloads [default: those that `loadgen list` marks, ping-pong and pipelined with 16 and
    /// with 1000 connections; ping-pong alone if --connections, --size, --depth or --rate is
    /// given]. A name that ends in .toml is a file of your own (see `loadgen run --help`)
    #[arg(long, value_name = "X,Y", value_delimiter = ',')]
    pub workloads: Vec<String>,
    /// Rounds: in each, every server runs every workload once; fewer than 6 can show nothing
    /// [default: 10, or 8 with --quick, or as many as there is time for]
    #[arg(long, value_name = "N", value_parser = bounds::number(1_u32, 1000))]
    pub rounds: Option<u32>,
    /// At most 90 seconds after the build instead of ten minutes: short runs of ping-pong and
    /// fan-out, if nothing else is asked for
    #[arg(long)]
    pub quick: bool,
    /// Enter every server twice: a difference between the two means that the harness is broken
    #[arg(long)]
    pub control: bool,
    /// Enter the null reference too, unranked: a bare epoll loop without protocol [default: true;
    /// where agents drive there is none]
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set,
          num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub reference: Option<bool>,
    /// Changes to the workloads, and the grid.
    #[command(flatten)]
    pub grid: Grid,
    /// How it is driven.
    #[command(flatten)]
    pub driving: Driving,
    /// Where servers come from and what is printed.
    #[command(flatten)]
    pub common: Common,
    /// Leave a record of every round with its full histograms in this folder [default: a new one
    /// under target/loadgen in the workspace, elsewhere under loadgen-records]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Other machines that drive, and one beside the servers.
    #[command(flatten)]
    pub machines: Machines,
}

/// Flags of `report`.
#[derive(Debug, Args)]
pub struct Report {
    /// Folders of records
    #[arg(value_name = "DIR", required = true)]
    pub dirs: Vec<PathBuf>,
    /// Write one HTML file instead of printing tables
    #[arg(long, value_name = "FILE", conflicts_with_all = ["csv", "json"])]
    pub html: Option<PathBuf>,
    /// Draw the comparison for a document instead: SVG files in this folder, light and dark, and a
    /// preview for pages that link to the project
    #[arg(long, value_name = "DIR", conflicts_with_all = ["csv", "html", "json", "against"])]
    pub picture: Option<PathBuf>,
    /// Print every run as comma-separated values instead of tables
    #[arg(long, conflicts_with = "json")]
    pub csv: bool,
    /// Print JSON instead of tables, a document for each record
    #[arg(long)]
    pub json: bool,
    /// Print the latencies of every run, second by second, as an interval log of HdrHistogram
    #[arg(long, conflicts_with_all = ["csv", "html", "json"])]
    pub hlog: bool,
    /// Say what changed since this older record, beyond the noise; exit with 1 if anything became
    /// worse
    #[arg(long, value_name = "DIR", conflicts_with_all = ["csv", "hlog", "html", "merge"])]
    pub against: Option<PathBuf>,
    /// Make one run of those of several generators that drove one server at the same time
    #[arg(long, requires = "out")]
    pub merge: bool,
    /// Where to leave the merged record
    #[arg(long, value_name = "DIR", requires = "merge")]
    pub out: Option<PathBuf>,
}

/// Flags of `completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// Flags of `man`.
#[derive(Debug, Args)]
pub struct Man {
    /// One command (default: the page of loadgen itself)
    pub command: Option<String>,
}

/// Flags of `find-max`.
#[derive(Debug, Args)]
pub struct FindMax {
    /// Servers of models.toml
    #[arg(
        long,
        visible_alias = "model",
        value_name = "A,B",
        value_delimiter = ',',
        required_unless_present = "addr"
    )]
    pub models: Vec<String>,
    /// A server that is running already, instead
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "models")]
    pub addr: Option<String>,
    /// What response times must keep to: p50, p90, p99, p99.9 or max
    #[arg(long, value_name = "OBJECTIVE", default_value = "p99<1ms")]
    pub objective: Objective,
    /// The first rate that is tried, in messages for each second
    #[arg(long, value_name = "PER_SECOND", default_value_t = 4000.0,
          value_parser = bounds::number(1.0, 1e7))]
    pub from: f64,
    /// The workload (see `loadgen list`), or a file of your own that ends in .toml (see `loadgen
    /// run --help`); --from takes the place of its rate
    #[arg(long, value_name = "NAME|FILE", default_value = "open-loop")]
    pub workload: String,
    /// Changes to the workload.
    #[command(flatten)]
    pub changes: Changes,
    /// How it is driven.
    #[command(flatten)]
    pub driving: Driving,
    /// Where servers come from and what is printed.
    #[command(flatten)]
    pub common: Common,
    /// Other machines that drive.
    #[command(flatten)]
    pub machines: Machines,
}

/// Flags of `calibrate`.
#[derive(Debug, Args)]
pub struct Calibrate {
    /// A server of models.toml instead of the null reference
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Small comparisons of the server with itself
    #[arg(long, value_name = "N", default_value_t = 10,
          value_parser = bounds::number(1_u32, 1000))]
    pub pairs: u32,
    /// Let the second of each pair burn this part of its CPU per message in addition
    #[arg(long, value_name = "PERCENT", default_value = "0%", value_parser = percent)]
    pub handicap: f64,
    /// The workload (see `loadgen list`): an echo without a disturbance
    #[arg(long, value_name = "NAME|FILE", default_value = "ping-pong")]
    pub workload: String,
    /// Rounds of each pair
    #[arg(long, value_name = "N", default_value_t = 10,
          value_parser = bounds::number(1_u32, 200))]
    pub rounds: u32,
    /// Changes to the workload.
    #[command(flatten)]
    pub changes: Changes,
    /// How it is driven.
    #[command(flatten)]
    pub driving: Driving,
    /// Where servers come from and what is printed.
    #[command(flatten)]
    pub common: Common,
}

/// Flags of `claims`.
#[derive(Debug, Args)]
pub struct Claims {
    /// Claims to try instead of all
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Measure for a shorter time
    #[arg(long)]
    pub quick: bool,
    /// Where the record goes
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// How it is driven.
    #[command(flatten)]
    pub driving: Driving,
    /// Where servers come from and what is printed.
    #[command(flatten)]
    pub common: Common,
}

/// Flags of `soak`.
#[derive(Debug, Args)]
pub struct Soak {
    /// Servers of models.toml, instead of all of this workspace
    #[arg(long, visible_alias = "model", value_name = "A,B", value_delimiter = ',')]
    pub models: Vec<String>,
    /// How long in all: each server has its part, and at least seven laps
    #[arg(long = "for", value_name = "DURATION", default_value = "2h",
          value_parser = bounds::duration(MILLISECOND, DAY))]
    pub time: Duration,
    /// Where the record goes
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// How it is driven.
    #[command(flatten)]
    pub driving: Driving,
    /// Where servers come from and what is printed.
    #[command(flatten)]
    pub common: Common,
}

/// `10%` as 0.1.
fn percent(text: &str) -> std::result::Result<f64, String> {
    let number = text.strip_suffix('%').and_then(|number| number.parse::<f64>().ok());
    match number.filter(|number| (0.0..=1000.0).contains(number)) {
        Some(number) => Ok(number / 100.0),
        None => Err("write a percentage from 0% to 1000%, such as 10%".into()),
    }
}

/// Flags of `verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// The server.
    #[command(flatten)]
    pub which: Which,
    /// Only this half of the protocol (default: all that the model names; echo for --addr, --cmd)
    #[arg(long)]
    pub mode: Option<Mode>,
    /// Hold a server to the whole contract that would only be held to what every server must do:
    /// one of --addr or --cmd, a command of a models file, a model bare
    #[arg(long)]
    pub contract: bool,
    /// Where servers come from and what is printed.
    #[command(flatten)]
    pub common: Common,
}

/// Flags of the null reference.
#[derive(Debug, Args)]
pub struct NullServer {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Burn so much CPU time for each receive
    #[arg(long, default_value = "0s", value_parser = bounds::duration(Duration::ZERO, DAY))]
    pub work: Duration,
    /// Answer each line after a time from this distribution: constant:TIME,
    /// bimodal:TIME:TIME:CHANCE or pareto:LEAST:EXPONENT:MOST
    #[arg(long, value_name = "TIMES", conflicts_with = "work")]
    pub service: Option<Service>,
    /// With --service: stand still once, after so many lines
    #[arg(long, value_name = "LINES", requires = "service", requires = "stall_for",
          value_parser = bounds::number(0, u64::MAX))]
    pub stall_after: Option<u64>,
    /// How long to stand still
    #[arg(long, value_name = "DURATION", requires = "stall_after",
          value_parser = bounds::duration(Duration::ZERO, DAY))]
    pub stall_for: Option<Duration>,
    /// Seed of the service times
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = bounds::number(0, u64::MAX))]
    pub seed: u64,
}

impl NullServer {
    /// The server with known service times, if it is that one.
    pub fn synthetic(&self) -> Option<synthetic::Plan> {
        let Self { listen, service, seed, .. } = *self;
        let stall = self.stall_after.zip(self.stall_for);
        service.map(|service| synthetic::Plan { listen, service, stall, seed })
    }
}

/// Flags of the bare client.
#[derive(Debug, Args)]
pub struct NullClient {
    /// The server
    #[arg(long)]
    pub addr: SocketAddr,
    /// Connections to hold
    #[arg(long, default_value_t = 64, value_parser = bounds::number(1, usize::from(u16::MAX)))]
    pub connections: usize,
    /// Bytes of a line with its end
    #[arg(long, default_value_t = 64, value_parser = bounds::number(1, u32::MAX))]
    pub size: u32,
    /// How long to drive
    #[arg(long, default_value = "5s", value_parser = bounds::duration(Duration::ZERO, DAY))]
    pub duration: Duration,
}

/// Flags of the wrapper that servers are started through.
#[derive(Debug, Args)]
pub struct Exec {
    /// Processors, such as 0 or 0,2; empty: any
    #[arg(long, default_value = "")]
    pub cpus: String,
    /// The process to end with
    #[arg(long)]
    pub parent: u32,
    /// The number of the signal that it is to get then
    #[arg(long, default_value_t = rustix::process::Signal::TERM.as_raw())]
    pub signal: i32,
    /// The command
    #[arg(last = true, required = true)]
    pub command: Vec<String>,
}
