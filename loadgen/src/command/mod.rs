//! The command line: from flags to the rooms that do the work, and from results to exit codes.
//!
//! **Lives here:** the flags, a file for each command, what commands do before they measure, and
//! where their results go.
//!
//! **May use:** every other room.
//!
//! **Must not know:** how to measure, judge or draw: a command asks and passes on.

mod agent;
mod calibrate;
mod claims;
pub mod cli;
mod compare;
mod doctor;
mod find_max;
mod from_agents;
mod grid;
mod hidden;
mod list;
pub mod machines;
mod metrics;
mod publish;
mod report;
mod run;
mod schema;
mod setup;
mod shell;
mod soak;
mod together;
mod verify;

use std::process::ExitCode;

use anyhow::Result;

use cli::Command;

pub use publish::print_json;

/// Does what was asked.
pub fn execute(command: &Command) -> Result<ExitCode> {
    match command {
        Command::List(args) => list::list(args),
        Command::Doctor(args) => doctor::doctor(args),
        Command::Run(args) => run::run(args),
        Command::Compare(args) => compare::compare(args),
        Command::Calibrate(args) => calibrate::calibrate(args),
        Command::Claims(args) => claims::claims(args),
        Command::Soak(args) => soak::soak(args),
        Command::FindMax(args) => find_max::find_max(args),
        Command::Verify(args) => verify::verify(args),
        Command::Report(args) => report::report(args),
        Command::Agent(args) => agent::agent(args),
        Command::Schema => schema::schema(),
        Command::Completions(args) => shell::completions(args),
        Command::Man(args) => shell::man(args),
        Command::NullServer(args) => hidden::null_server(args),
        Command::NullClient(args) => hidden::null_client(args),
        Command::Exec(args) => Err(hidden::exec(args)),
    }
}
