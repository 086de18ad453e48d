//! Results as people and programs read them.
//!
//! There are no colours, so that NO_COLOR has nothing to forbid.
//!
//! **Lives here:** tables and sentences for a terminal, the page and its pictures, CSV, JSON,
//! interval logs of HdrHistogram, metrics of a run that goes on. Each
//! function turns a result into text; only the page is written to a file.
//!
//! **May use:** `base`, `workload`, `drive`, `target`, `measure`, `results`, `record`, `compare`,
//! `cluster`.
//!
//! **Must not know:** flags, exit codes, and where its text goes.

mod against;
mod answer;
mod calibration;
mod chart;
mod claims;
mod claims_page;
mod comparison;
mod csv;
mod fitness;
mod found;
mod hlog;
mod html;
mod json;
mod load;
mod map;
mod metrics;
mod others;
mod parts;
mod picture;
mod point;
mod run;
mod scroll;
mod soak;
pub mod table;
mod timeline;
mod verification;
mod words;

pub use against::against;
pub use calibration::calibration;
pub use claims::claims;
pub use claims_page::claims_page;
pub use comparison::comparison;
pub use csv::render as csv;
pub use fitness::fitness;
pub use found::found;
pub use hlog::hlog;
pub use html::html;
pub use json::json;
pub use metrics::metrics;
pub use others::others;
pub use picture::pictures;
pub use run::run;
pub use soak::{soak_page, soaked};
pub use verification::verification;
