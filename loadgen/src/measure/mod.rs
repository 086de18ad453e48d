//! One run of one server under one workload, and what it is worth.
//!
//! **Lives here:** the course of a run (`run`, `lane`, `round`), what it costs the server, what the
//! machine did meanwhile, the verdict with its reasons, the report of all that as types, and the
//! progress line.
//!
//! **May use:** `base`, `workload`, `drive`, `target`.
//!
//! **Must not know:** other runs to compare it with, records, tables.

mod beside;
mod bystanders;
mod cost;
mod doubts;
mod gauges;
mod lane;
pub mod machine;
pub mod meeting;
mod pace;
mod part;
mod progress;
mod report;
mod rivals;
pub mod round;
mod run;
pub mod speed;
pub mod syscalls;
pub(crate) mod verdict;

pub(crate) use beside::{Beside, Spent};
pub use bystanders::Disturbed;
pub(crate) use cost::user_share;
pub use cost::{Cost, Held};
pub use gauges::{Gauges, Now};
pub use pace::Pace;
pub use part::{Kept, Part};
pub use progress::Progress;
pub use report::{Measured, Report, Settings, Status, Verdict};
pub use run::run;
