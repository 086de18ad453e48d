//! What every room needs, and what is about nothing in particular.
//!
//! **Lives here:** numbers as text, standard output and error, random numbers, the limits of this
//! machine, the signals that a process inherits, how a command ends.
//!
//! **May use:** nothing of this crate.
//!
//! **Must not know:** servers, workloads, runs: what is here could stand in any other program.

pub mod bounds;
pub mod durations;
pub mod exit;
pub mod limits;
pub mod output;
pub mod random;
pub mod secrets;
pub mod signals;
pub mod text;
