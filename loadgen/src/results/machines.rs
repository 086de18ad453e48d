//! The machines that took part in a comparison which agents drove.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::measure::{Kept, Part, Report};

/// The machines of a comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Machines {
    /// Those that drove, in the order of their parts.
    pub agents: Vec<Machine>,
    /// The one beside the servers.
    pub beside: Option<Machine>,
}

/// One machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Machine {
    /// What its agent is called.
    pub agent: String,
    /// The version of loadgen that it runs.
    pub version: String,
    /// Processors that it may use.
    pub cores: u32,
}

impl Machines {
    /// Those that the runs name; none where this machine drove by itself.
    pub(super) fn of<'a>(runs: impl Iterator<Item = &'a Report>) -> Option<Self> {
        let (mut agents, mut beside) = (Vec::new(), None);
        for run in runs {
            for machine in run.parts.iter().map(Machine::driving) {
                if !agents.contains(&machine) {
                    agents.push(machine);
                }
            }
            beside = beside.or_else(|| run.kept.as_ref().map(Machine::beside));
        }
        (!agents.is_empty()).then_some(Self { agents, beside })
    }
}

impl Machine {
    fn driving(part: &Part) -> Self {
        let Part { agent, version, cores, .. } = part;
        Self { agent: agent.clone(), version: version.clone(), cores: *cores }
    }

    fn beside(kept: &Kept) -> Self {
        let Kept { agent, version, cores, .. } = kept;
        Self { agent: agent.clone(), version: version.clone(), cores: *cores }
    }
}
