//! The flags that change a workload.

use std::time::Duration;

use super::limits::{
    LONGEST, MAX_CHANNELS, MAX_CHURN, MAX_CONNECTIONS, MAX_DEPTH, MAX_ECHO, MAX_RATE, MIN_RATE,
    SLOWEST,
};
use super::{Arrivals, Disturbance, Mode, WhenBusy, pacing, sheet};
use crate::base::bounds::{self, MILLISECOND};

/// The flags that change a workload's numbers.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Changes {
    /// Connections to hold (in chat: the members of all channels together)
    #[arg(long, value_name = "N", value_parser = bounds::number(1, MAX_CONNECTIONS))]
    pub connections: Option<u32>,
    /// Connections that talk, the rest being idle (echo)
    #[arg(long, value_name = "N", value_parser = bounds::number(1, MAX_CONNECTIONS))]
    pub active: Option<u32>,
    /// Bytes of a line with its end (echo), or of a message's text (chat)
    #[arg(long, value_name = "BYTES", value_parser = bounds::number(1, MAX_ECHO))]
    pub size: Option<u32>,
    /// Sizes of lines in bytes with their weights, such as 64:90,1024:9,16384:1 (echo)
    #[arg(long, value_name = "BYTES:WEIGHT", value_delimiter = ',', conflicts_with = "size",
          value_parser = pacing::parse_share)]
    pub sizes: Vec<(u32, u32)>,
    /// Open loop: messages to send for each second over all connections, answered or not
    #[arg(long, value_name = "PER_SECOND", value_parser = bounds::number(MIN_RATE, MAX_RATE))]
    pub rate: Option<f64>,
    /// How the times of an open loop are drawn
    #[arg(long, value_name = "HOW")]
    pub arrivals: Option<Arrivals>,
    /// What an open loop does with a message when every connection has --depth lines in flight
    #[arg(long, value_name = "WHAT")]
    pub when_busy: Option<WhenBusy>,
    /// Lines in flight on a connection, or messages in flight of a speaker
    #[arg(long, value_name = "N", value_parser = bounds::number(1, MAX_DEPTH))]
    pub depth: Option<u32>,
    /// Chat channels
    #[arg(long, value_name = "N", value_parser = bounds::number(1, MAX_CHANNELS))]
    pub channels: Option<u32>,
    /// Members of each channel, its speakers included
    #[arg(long, value_name = "N", value_parser = bounds::number(2, MAX_CONNECTIONS))]
    pub members: Option<u32>,
    /// Members of each channel who speak
    #[arg(long, value_name = "N", value_parser = bounds::number(1, MAX_CONNECTIONS))]
    pub speakers: Option<u32>,
    /// Members ask for the time of each message, as IRCv3 clients do (chat)
    #[arg(long)]
    pub server_time: bool,
    /// Lines to ask on each connection before it is closed and opened again (echo)
    #[arg(long, value_name = "LINES", value_parser = bounds::number(1, MAX_CHURN))]
    pub churn: Option<u32>,
    /// What others do in the second half of the run, the connections being bystanders (echo)
    #[arg(long)]
    pub disturbance: Option<Disturbance>,
    /// How many of them do so
    #[arg(long, value_name = "N", value_parser = bounds::number(1, MAX_CONNECTIONS))]
    pub disturbers: Option<u32>,
    /// How long the server holds back every reply, such as 5ms (servers of this workspace only)
    #[arg(long, value_name = "DURATION", value_parser = bounds::duration(Duration::ZERO, SLOWEST))]
    pub wait: Option<Duration>,
    /// How long the server computes for every line, such as 50us (servers of this workspace only)
    #[arg(long, value_name = "DURATION", value_parser = bounds::duration(Duration::ZERO, SLOWEST))]
    pub work: Option<Duration>,
    /// How long to measure, such as 5s or 500ms
    #[arg(long, value_name = "DURATION", value_parser = bounds::duration(MILLISECOND, LONGEST))]
    pub duration: Option<Duration>,
    /// How long to drive before measuring
    #[arg(long, value_name = "DURATION", value_parser = bounds::duration(Duration::ZERO, LONGEST))]
    pub warmup: Option<Duration>,
}

impl Changes {
    /// Without the flags that do not concern the workload `name`, where several are run at once.
    pub fn fitting(&self, name: &str) -> Self {
        let chat = sheet::named(name).is_ok_and(|sheet| sheet.mode == Mode::Chat);
        match chat {
            true => Self {
                active: None,
                sizes: Vec::new(),
                churn: None,
                disturbance: None,
                disturbers: None,
                ..self.clone()
            },
            false => Self {
                channels: None,
                members: None,
                speakers: None,
                server_time: false,
                ..self.clone()
            },
        }
    }
}
