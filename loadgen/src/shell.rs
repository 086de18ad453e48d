//! What a shell and `man` want to know: completions and manual pages, made from the flags.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_mangen::Man;

use crate::cli::{self, Cli};
use crate::command::asked;
use crate::table;

/// `loadgen completions`.
pub fn completions(args: &cli::Completions) -> Result<ExitCode> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "loadgen", &mut text);
    table::print(&String::from_utf8(text)?)?;
    Ok(ExitCode::SUCCESS)
}

/// `loadgen man`.
pub fn man(args: &cli::Man) -> Result<ExitCode> {
    let page = asked(page(args.command.as_deref()))?;
    let mut text = Vec::new();
    Man::new(page).render(&mut text)?;
    table::print(&String::from_utf8(text)?)?;
    Ok(ExitCode::SUCCESS)
}

/// The program, or one of its commands under its full name.
fn page(name: Option<&str>) -> Result<clap::Command> {
    let mut program = Cli::command();
    program.build();
    let Some(name) = name else { return Ok(program) };
    let command = program.find_subcommand(name).filter(|command| !command.is_hide_set());
    let command = command.with_context(|| format!("no command is called {name:?}"))?;
    Ok(command.clone())
}
