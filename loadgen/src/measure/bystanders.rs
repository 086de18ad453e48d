//! What bystanders felt: the calm before, the disturbance, and the one beside the other.

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::drive::{Disturbers, Fate, PhaseResult};

/// What the disturbers did to the bystanders, and what became of them. The run's rate, costs and
/// latency `disturbed` are those of the bystanders meanwhile; the latency `calm` is from before.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Disturbed {
    /// The bystanders' messages for each second before.
    pub calm_messages_per_second: f64,
    /// Their median latency while disturbed, divided by that before.
    pub p50_ratio: f64,
    /// The same for the 99th percentile.
    pub p99_ratio: f64,
    /// What became of the disturbers.
    pub fate: Fate,
}

impl Disturbed {
    /// Ends the disturbance, and adds the calm before, and what the disturbers have seen, to the
    /// phase in which the bystanders were disturbed.
    pub fn join(
        phase: &mut PhaseResult,
        calm: PhaseResult,
        disturbers: Disturbers,
    ) -> Result<Self> {
        let (fate, faults) = disturbers.stop()?;
        let ratio = |quantile| {
            let [after, before] =
                [&*phase, &calm].map(|p| p.histograms[0].1.value_at_quantile(quantile));
            after as f64 / before.max(1) as f64
        };
        let disturbed = Self {
            calm_messages_per_second: calm.total as f64 * 1e9 / calm.busy_ns.max(1) as f64,
            p50_ratio: ratio(0.5),
            p99_ratio: ratio(0.99),
            fate,
        };
        phase.faults.merge(faults);
        phase.faults.merge(calm.faults);
        // The first histogram is the most telling one; in an open loop it has others beside it.
        phase.histograms.iter_mut().take(1).for_each(|(name, _)| *name = "disturbed");
        let before = calm.histograms.into_iter().take(1);
        phase.histograms.extend(before.map(|(_, before)| ("calm", before)));
        // The seconds are those of the window: the calm was before it.
        phase.seconds.iter_mut().for_each(|second| second.counts.push(Vec::new()));
        Ok(disturbed)
    }
}
