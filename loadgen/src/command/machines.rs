//! The flags of commands that several machines take part in.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;

use super::cli::{MOST_CPU, ModelsFile};
use crate::base::bounds::{self, DAY, MILLISECOND};
use crate::cluster::Access;

/// Which machines drive.
#[derive(Debug, Args)]
pub struct Machines {
    /// Where they meet.
    #[command(flatten)]
    pub access: Access,
    /// Let so many agents (see `loadgen agent`) drive instead of this process, each with its share
    /// of the connections and of the rate
    #[arg(long, value_name = "N", requires = "nats",
          value_parser = bounds::number(1_u32, 1000))]
    agents: Option<u32>,
    /// How long agents may take to be there, and then to open their connections
    #[arg(long, value_name = "DURATION", default_value = "30s", requires = "nats",
          value_parser = bounds::duration(MILLISECOND, DAY))]
    pub agents_within: Duration,
    /// The agent beside the server (see `loadgen agent --serve`): it starts --model, or each of
    /// --models, from its own models file, pins it, takes its cost there, and stops it; of a server
    /// that runs already (--addr) it takes the cost of the process --pid of its machine
    #[arg(long, value_name = "NAME", requires = "agents")]
    pub server_agent: Option<String>,
}

impl Machines {
    /// How many agents drive; none if this process does.
    pub fn agents(&self) -> Result<Option<u32>> {
        if self.access.nats.is_some() && self.agents.is_none() {
            bail!("--nats says where the agents meet, and not how many drive: add --agents N");
        }
        Ok(self.agents)
    }
}

/// Flags of `agent`.
#[derive(Debug, Args)]
pub struct Agent {
    /// Where conductors are heard.
    #[command(flatten)]
    pub access: Access,
    /// What it is called [default: the name of this machine]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Processors to drive from (default: the last ones)
    #[arg(long, value_name = "LIST", value_delimiter = ',', conflicts_with = "serve",
          value_parser = bounds::number(0, MOST_CPU))]
    pub generator_cpus: Vec<usize>,
    /// Stand beside the server instead of driving (see run --server-agent): start models of this
    /// machine's models file when a conductor says so, and no other program; they listen at this
    /// address of this machine
    #[arg(long, value_name = "ADDRESS", value_parser = own_address)]
    pub serve: Option<IpAddr>,
    /// The models that --serve may start.
    #[command(flatten)]
    pub models_file: ModelsFile,
    /// Say that the clock is so many milliseconds ahead: for tests
    #[arg(
        long,
        value_name = "MILLISECONDS",
        default_value_t = 0,
        hide = true,
        allow_negative_numbers = true
    )]
    pub pretend_ahead: i64,
    /// Say that this is another version: for tests
    #[arg(long, value_name = "VERSION", hide = true)]
    pub pretend_version: Option<String>,
}

/// An address at which a server can be reached: agents are told it.
fn own_address(text: &str) -> Result<IpAddr, String> {
    let parsed = text.parse::<IpAddr>().ok().filter(|address| !address.is_unspecified());
    parsed.ok_or_else(|| "write one address of this machine that the agents reach".into())
}
