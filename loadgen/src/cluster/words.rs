//! What conductor and agents say to each other: one line of JSON, and after it, where a result is
//! handed over, a piece of it.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::measure::Spent;
use crate::workload::{Mode, Workload};

/// Version of what is said here. It grows with every change that an older agent would not get.
pub(super) const FORM: u32 = 3;

/// A conductor of which nothing is heard for so long is gone: it says once a second that it is
/// there. Longer than agents may be silent, so that a conductor whose own connection to NATS is cut
/// for a while finds its agents again. It bounds how long an agent is part of a run that nothing
/// will come of.
pub(super) const ABANDONED: Duration = Duration::from_secs(30);

/// The subject on which agents say that they are there.
pub(super) const HERE: &str = "loadgen.here";
/// The subject on which agents are asked whether they are there.
pub(super) const CALL: &str = "loadgen.call";

/// The subject that one agent hears.
pub(super) fn to(agent: &str) -> String {
    format!("loadgen.to.{agent}")
}

/// The subject on which one agent tells its clock.
pub(super) fn clock(agent: &str) -> String {
    format!("loadgen.clock.{agent}")
}

/// The subject that the conductor of a run hears.
pub(super) fn run(run: &str) -> String {
    format!("loadgen.run.{run}")
}

/// What an agent says of itself. Every field may be missing: another version says other things.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Here {
    /// Its own part of subjects.
    pub(super) id: String,
    /// What people call it.
    pub(super) name: String,
    /// Version of the program.
    pub(super) version: String,
    /// Version of what is said.
    pub(super) form: u32,
    /// Processors that it may use.
    pub(super) cores: u32,
    /// What it can drive.
    pub(super) modes: Vec<Mode>,
    /// Whether it stands beside a server, and drives nothing.
    pub(super) beside: bool,
    /// The models that it can start there.
    pub(super) serves: Vec<String>,
    /// Whether it is part of a run.
    pub(super) busy: bool,
}

/// What an agent is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "kebab-case")]
pub(super) enum Order {
    /// Say that you are there.
    Call,
    /// Open the connections of this part of a run.
    Plan(Box<Plan>),
    /// The conductor of this run is there; said once a second.
    Stay {
        /// Which run.
        run: String,
    },
    /// The window begins then.
    Begin {
        /// Which run.
        run: String,
        /// Nanoseconds since 1970 by the agent's own clock.
        at: u64,
    },
    /// End the window now, and hand over what was measured.
    Cut {
        /// Which run.
        run: String,
    },
    /// Keep the server of this run, and say where it is.
    Serve(Box<Serve>),
    /// All answers have come: what has the server spent?
    Book {
        /// Which run.
        run: String,
    },
    /// What the server has spent is known: the connections may be closed.
    Close {
        /// Which run.
        run: String,
    },
    /// The server is not needed any more.
    Stop {
        /// Which run.
        run: String,
    },
    /// The result has come whole.
    Taken {
        /// Which run.
        run: String,
    },
    /// The run is given up: nothing of it is wanted.
    Leave {
        /// Which run.
        run: String,
    },
}

/// One agent's part of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Plan {
    /// Which run.
    pub(super) run: String,
    /// Where the server listens.
    pub(super) addr: String,
    /// What to ask, with this agent's share of connections and rate.
    pub(super) workload: Workload,
    /// Generator threads.
    pub(super) threads: u32,
    /// Seed of this agent's payload.
    pub(super) seed: u64,
    /// Without any answer for so many seconds, the server counts as stalled.
    pub(super) stall: f64,
    /// Whether the connections stay open until they may be closed.
    pub(super) stays: bool,
}

/// The server of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Serve {
    /// Which run.
    pub(super) run: String,
    /// What is to be kept.
    pub(super) server: Server,
    /// All that it will be asked.
    pub(super) workload: Workload,
    /// Its core budget.
    pub(super) workers: u32,
    /// Processors that it is to have; none: the first ones.
    pub(super) cpus: Vec<usize>,
}

/// Which server is to be kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Server {
    /// A model of the agent's own models file, which it starts and stops.
    Model(String),
    /// One that runs already, as this process, which is watched only.
    Process(i32),
}

/// What an agent tells of its part of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Letter {
    /// Who tells it.
    pub(super) from: String,
    /// What.
    pub(super) told: Told,
}

/// What is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "told", rename_all = "kebab-case")]
pub(super) enum Told {
    /// How far it is; once a second.
    Beat {
        /// Whether its window has begun.
        driving: bool,
        /// Messages so far in this phase.
        messages: u64,
        /// Nanoseconds since the phase began.
        elapsed: u64,
        /// 99th percentile of the last second, in nanoseconds.
        p99: Option<u64>,
    },
    /// All connections are open.
    Ready,
    /// All its answers have come, and its connections are still open.
    Driven,
    /// The server is there.
    Serving {
        /// Where it listens, if this agent has started it.
        addr: Option<String>,
        /// Its processors; none: not pinned.
        cpus: Vec<usize>,
        /// Why it is not pinned, if the system does not allow it.
        unpinned: Option<String>,
    },
    /// What the server has spent.
    Spent(Box<Spent>),
    /// The server has ended.
    Stopped {
        /// What was wrong with its end.
        complaint: Option<String>,
    },
    /// It takes no part.
    Refused {
        /// Why.
        why: String,
    },
    /// Its part has failed.
    Failed {
        /// Why.
        why: String,
    },
    /// It leaves for good.
    Leaves {
        /// Why.
        why: String,
    },
    /// A piece of its result.
    Piece {
        /// Which, from 0 on.
        n: u32,
        /// How many there are.
        of: u32,
    },
}

/// Puts together what is said.
pub(super) fn written(head: &impl Serialize, body: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(head)?;
    bytes.push(b'\n');
    bytes.extend_from_slice(body);
    Ok(bytes)
}

/// Takes apart what was said.
pub(super) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, &[u8])> {
    let end = memchr::memchr(b'\n', bytes).context("no line of JSON")?;
    Ok((serde_json::from_slice(&bytes[..end])?, &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_heard() {
        let letter = Letter { from: "a-1".into(), told: Told::Piece { n: 1, of: 2 } };
        let bytes = written(&letter, b"x\n\0y").unwrap();
        assert_eq!(read::<Letter>(&bytes).unwrap(), (letter, &b"x\n\0y"[..]));
        assert!(read::<Letter>(b"{}\n").is_err() && read::<Letter>(b"").is_err());
    }

    #[test]
    fn another_version_is_at_least_known_by_its_name() {
        let bytes = b"{\"name\":\"old\",\"version\":\"9.9\",\"colour\":3}\n";
        let (here, _) = read::<Here>(bytes).unwrap();
        assert_eq!((here.name.as_str(), here.version.as_str(), here.form), ("old", "9.9", 0));
    }
}
