//! `loadgen`: no number without proof that the server answered rightly, and no number that is
//! really the generator's own.
//!
//! Read `cli` for what can be asked, `run` for the course of one run, `drive/echo.rs` for the loop
//! that does the work, and `check` for what it checks. It is a library so that its own tests can
//! reach it; nothing else is meant to.

pub mod bystanders;
pub mod check;
pub mod cli;
pub mod command;
pub mod compare;
pub mod cost;
pub mod cpus;
pub mod doctor;
mod doubts;
pub mod drive;
pub mod host;
mod judge;
mod lane;
pub mod models;
pub mod null;
pub mod pacing;
pub mod progress;
pub mod record;
pub mod report;
mod round;
pub mod run;
pub mod schema;
pub mod server;
pub mod shell;
pub mod speed;
pub mod stats;
pub mod synthetic;
pub mod syscalls;
pub mod table;
pub mod verify;
pub mod workload;
