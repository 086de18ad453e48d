//! What was found, as types, and what follows from it.
//!
//! **Lives here:** the results of every command and the form that JSON gives them, the statistics
//! (medians, intervals, what counts as shown), ranks, flips, what completeness costs, what changed
//! between two comparisons, several generators' runs as one, and the descriptions of machines.
//!
//! **May use:** `base`, `workload`, `drive`, `target`, `measure`.
//!
//! **Must not know:** how a comparison is run, where results are kept, and how they look.

mod against;
mod calibration;
mod claims;
mod comparison;
mod completeness;
mod document;
mod fitness;
mod flips;
mod found;
mod host;
mod machines;
mod merge;
mod section;
mod soak;
mod stats;

pub use against::{Against, Change, Outcome};
pub use calibration::Calibration;
pub use claims::{ClaimPoint, ExperimentResult, Ruling, Tried, rule};
pub use comparison::{Comparison, Control, LeftOut, Planned, assemble};
pub use completeness::Completeness;
pub use document::{Body, Document, Listed, SCHEMA, schema};
pub use fitness::{DoctorFinding, Level};
pub use flips::{At, Flip};
pub use found::{Found, Probe};
pub use host::{Host, workspace};
pub use machines::{Machine, Machines};
pub use section::{Pair, Row, Section};
pub use soak::{Course, FEWEST_LAPS, Growth, Lap, Soaked, Watched};
pub use stats::{FEWEST_ROUNDS, Ratio, SignedRank, Spread, rank_sum, shown};

pub(crate) use comparison::Done;
pub(crate) use merge::merged;
