//! What the gate has found of a server.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::echo::{HALF_CLOSE, LONG_LINES, MUST_LINE};
use crate::workload::{Mode, Workload};

/// Of which servers a case is required.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Of every server: one that fails it is not ranked.
    Must,
    /// Of the workspace's servers, of the peers, and of servers that claim the contract.
    Contract,
}

/// What became of one case.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Finding {
    /// The case.
    pub case: &'static str,
    /// Of which servers it is required.
    pub tier: Tier,
    /// What a server lacks that fails it.
    pub what: &'static str,
    /// What happened.
    #[serde(flatten)]
    pub result: CaseResult,
}

/// The verdict on one case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase", tag = "result", content = "reason")]
pub enum CaseResult {
    /// As the protocol says.
    Pass,
    /// Not so, and how.
    Fail(String),
    /// Not so, and how; but it is not required of this server.
    Lacks(String),
    /// Declared in `models.toml`, with this reason.
    Unsupported(String),
}

impl CaseResult {
    /// The outcome of a case of this tier that failed, for a server that is held to the contract or
    /// is not.
    pub(super) fn failed(tier: Tier, held: bool, why: String) -> Self {
        if tier == Tier::Must || held { Self::Fail(why) } else { Self::Lacks(why) }
    }
}

/// A part of the contract that a server was seen not to keep.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Lack {
    /// In which half of the protocol.
    pub mode: Mode,
    /// What it lacks, in words.
    pub what: String,
    /// The case that it failed.
    pub case: String,
    /// How it failed.
    pub why: String,
}

impl Lack {
    /// Whether a workload cannot do without it.
    pub(crate) fn hinders(&self, workload: &Workload) -> bool {
        self.mode == workload.mode
            && match self.case.as_str() {
                // A visit ends with it.
                HALF_CLOSE => workload.churn.is_some(),
                LONG_LINES => workload.longest() > MUST_LINE,
                _ => false,
            }
    }
}
