//! The command line: what can be asked, and what is refused before anything starts.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, FromArgMatches, Parser, Subcommand};

use crate::command::Objective;
use crate::synthetic::{self, Service};
use crate::workload::{Changes, Mode};

/// Drives any server that speaks the line protocol, checks every byte, and says what it costs.
#[derive(Debug, Parser)]
#[command(name = "loadgen", version, about, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
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
    /// Find the highest rate at which an objective such as p99<1ms holds
    FindMax(FindMax),
    /// Put one server through the short conformance gate
    Verify(Verify),
    /// Show records again, as tables, HTML, JSON or CSV, or merge those of several generators
    Report(Report),
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
    /// Read another models file
    #[arg(long, value_name = "FILE")]
    pub models_file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Flags of `doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Read another models file
    #[arg(long, value_name = "FILE")]
    pub models_file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Which one server.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Which {
    /// A server that is running already
    #[arg(long, value_name = "HOST:PORT")]
    pub addr: Option<String>,
    /// A server of models.toml; it is built and started
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// A command that serves at {addr}, for example 'my-server {addr}'; {mode} is echo or chat
    #[arg(long, value_name = "COMMAND")]
    pub cmd: Option<String>,
}

/// What `run`, `compare` and `verify` have in common.
#[derive(Debug, Args)]
pub struct Common {
    /// Read another models file
    #[arg(long, value_name = "FILE")]
    pub models_file: Option<PathBuf>,
    /// Threads (or processes) of each server
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub workers: u32,
    /// Processors of the server, such as 0 or 0,2 (default: the first ones)
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub server_cpus: Vec<usize>,
    /// Print JSON on standard output instead of tables
    #[arg(long)]
    pub json: bool,
}

/// What `run` and `compare` have in common.
#[derive(Debug, Args)]
pub struct Driving {
    /// Generator threads
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: u32,
    /// Processors of the generator (default: the last ones)
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub generator_cpus: Vec<usize>,
    /// Seed of all that is random
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Without any answer for so long, a server counts as stalled
    #[arg(long, value_name = "DURATION", default_value = "5s",
          value_parser = humantime::parse_duration)]
    pub stall_timeout: Duration,
}

/// Flags of `run`.
#[derive(Debug, Args)]
pub struct Run {
    /// The server.
    #[command(flatten)]
    pub which: Which,
    /// The process of a server given by --addr, to read its costs from
    #[arg(long, value_name = "PID", requires = "addr",
          value_parser = clap::value_parser!(i32).range(1..))]
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
    /// Leave a record with the full histograms in this folder
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Flags of `compare`.
#[derive(Debug, Args)]
pub struct Compare {
    /// Servers of models.toml (default: all that can run here)
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub models: Vec<String>,
    /// One more server: a command that serves at {addr}; may be repeated
    #[arg(long, value_name = "COMMAND")]
    pub cmd: Vec<String>,
    /// Workloads [default: those that `loadgen list` marks, ping-pong and pipelined with 16 and
    /// with 1000 connections; ping-pong alone if --connections, --size, --depth or --rate is
    /// given]. A name that ends in .toml is a file of your own (see `loadgen run --help`)
    #[arg(long, value_name = "X,Y", value_delimiter = ',')]
    pub workloads: Vec<String>,
    /// Rounds: in each, every server runs every workload once; fewer than 6 can show nothing
    /// [default: 10, or 8 with --quick, or as many as there is time for]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: Option<u32>,
    /// At most 90 seconds after the build instead of ten minutes: short runs of ping-pong and
    /// fan-out, if nothing else is asked for
    #[arg(long)]
    pub quick: bool,
    /// Enter every server twice: a difference between the two means that the harness is broken
    #[arg(long)]
    pub control: bool,
    /// Enter the null reference too, unranked: a bare epoll loop without protocol
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set,
          num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub reference: bool,
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
    /// Print every run as comma-separated values instead of tables
    #[arg(long, conflicts_with = "json")]
    pub csv: bool,
    /// Print JSON instead of tables, a document for each record
    #[arg(long)]
    pub json: bool,
    /// Say what changed since this older record, beyond the noise; exit with 1 if anything became
    /// worse
    #[arg(long, value_name = "DIR", conflicts_with_all = ["csv", "html", "merge"])]
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

/// The changes to a workload, of which some may be lists: each combination is a point.
#[derive(Debug)]
pub struct Grid {
    changes: Changes,
    lists: [Vec<u32>; 3],
    rates: Vec<f64>,
}

/// The flags that may be lists in a comparison: whole numbers, and the rate.
const LISTS: [&str; 3] = ["connections", "size", "depth"];
const RATE: &str = "rate";

impl Args for Grid {
    fn augment_args(command: clap::Command) -> clap::Command {
        let list = |arg: clap::Arg| {
            let help = format!("{}; a list makes a grid", arg.get_help().unwrap_or_default());
            arg.value_delimiter(',').help(help)
        };
        let command = Changes::augment_args(command);
        LISTS.iter().chain([&RATE]).fold(command, |command, name| command.mut_arg(name, list))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Grid {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        let list = |name| matches.get_many(name).unwrap_or_default().copied().collect();
        let rates = matches.get_many(RATE).unwrap_or_default().copied().collect();
        Ok(Self { changes: Changes::from_arg_matches(matches)?, lists: LISTS.map(list), rates })
    }

    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Grid {
    /// Whether any of the lists was given.
    pub fn is_asked(&self) -> bool {
        self.lists.iter().any(|list| !list.is_empty()) || !self.rates.is_empty()
    }

    /// The points of a workload; so many connections where no flag says others.
    pub fn points(&self, name: &str, usual: &[u32]) -> Vec<(String, Changes)> {
        let connections = if self.lists[0].is_empty() { usual } else { &self.lists[0] };
        let [connections, sizes, depths] =
            [connections, &self.lists[1], &self.lists[2]].map(each::<u32>);
        let rates = each(&self.rates);
        let mut points = Vec::new();
        for &connections in &connections {
            for &size in &sizes {
                for &depth in &depths {
                    points.extend(rates.iter().map(|&rate| {
                        let own = self.changes.clone();
                        (name.to_owned(), Changes { connections, size, depth, rate, ..own })
                    }));
                }
            }
        }
        points
    }
}

/// The values of a list; an empty one leaves the workload's own number.
fn each<T: Copy>(list: &[T]) -> Vec<Option<T>> {
    match list {
        [] => vec![None],
        some => some.iter().copied().map(Some).collect(),
    }
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
        required = true
    )]
    pub models: Vec<String>,
    /// What response times must keep to: p50, p90, p99, p99.9 or max
    #[arg(long, value_name = "OBJECTIVE", default_value = "p99<1ms")]
    pub objective: Objective,
    /// The first rate that is tried, in messages for each second
    #[arg(long, value_name = "PER_SECOND", default_value_t = 4000.0, value_parser = rate)]
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
}

/// Flags of `calibrate`.
#[derive(Debug, Args)]
pub struct Calibrate {
    /// A server of models.toml instead of the null reference
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Small comparisons of the server with itself
    #[arg(long, value_name = "N", default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub pairs: u32,
    /// Let the second of each pair burn this part of its CPU per message in addition
    #[arg(long, value_name = "PERCENT", default_value = "0%", value_parser = percent)]
    pub handicap: f64,
    /// Rounds of each pair
    #[arg(long, value_name = "N", default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(1..=200))]
    pub rounds: u32,
    /// Changes to ping-pong.
    #[command(flatten)]
    pub changes: Changes,
    /// How it is driven.
    #[command(flatten)]
    pub driving: Driving,
    /// Where servers come from and what is printed.
    #[command(flatten)]
    pub common: Common,
}

/// `10%` as 0.1.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').and_then(|number| number.parse::<f64>().ok());
    match number.filter(|number| (0.0..=1000.0).contains(number)) {
        Some(number) => Ok(number / 100.0),
        None => Err("write a percentage such as 10%".into()),
    }
}

/// Messages for each second, at least one.
fn rate(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| (1.0..=1e7).contains(number));
    number.ok_or_else(|| "write messages for each second, from 1 to 10000000".into())
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
    /// Where servers come from and what is printed.
    #[command(flatten)]
    pub common: Common,
}

/// Flags of the null reference.
#[derive(Debug, Args)]
pub struct NullServer {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: std::net::SocketAddr,
    /// Burn so much CPU time for each receive
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    pub work: Duration,
    /// Answer each line after a time from this distribution: constant:TIME,
    /// bimodal:TIME:TIME:CHANCE or pareto:LEAST:EXPONENT:MOST
    #[arg(long, value_name = "TIMES", conflicts_with = "work")]
    pub service: Option<Service>,
    /// With --service: stand still once, after so many lines
    #[arg(long, value_name = "LINES", requires = "service", requires = "stall_for")]
    pub stall_after: Option<u64>,
    /// How long to stand still
    #[arg(long, value_name = "DURATION", requires = "stall_after",
          value_parser = humantime::parse_duration)]
    pub stall_for: Option<Duration>,
    /// Seed of the service times
    #[arg(long, value_name = "N", default_value_t = 1)]
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
    pub addr: std::net::SocketAddr,
    /// Connections to hold
    #[arg(long, default_value_t = 64)]
    pub connections: usize,
    /// Bytes of a line with its end
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub size: u32,
    /// How long to drive
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
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
