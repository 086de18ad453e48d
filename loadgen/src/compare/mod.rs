//! The course of a command that drives servers many times.
//!
//! **Lives here:** a comparison from its plan over the gate to its rounds, also where other
//! machines drive it, a calibration, the experiments of claims, the search for the highest rate,
//! and the question whether two records can be compared.
//!
//! **May use:** `base`, `workload`, `drive`, `target`, `measure`, `results`, `record`.
//!
//! **Must not know:** flags, exit codes, tables.

pub(crate) mod against;
pub mod calibrate;
pub mod claims;
mod counted;
mod course;
pub mod elsewhere;
mod entrants;
mod experiment;
pub mod find_max;
mod plan;
mod probe;
pub mod soak;

pub use course::Compare;
pub use plan::{Plan, Timing};
