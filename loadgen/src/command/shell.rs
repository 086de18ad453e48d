//! What a shell and `man` want to know: completions and manual pages, made from the flags.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::builder::{PossibleValue, PossibleValuesParser};
use clap_mangen::Man;

use super::cli;
use crate::base::exit::{MEANINGS, asked};
use crate::base::output;
use crate::target::Models;
use crate::workload;

/// `loadgen completions`.
pub(super) fn completions(args: &cli::Completions) -> Result<ExitCode> {
    let mut text = Vec::new();
    let mut command = offering(cli::command())?;
    clap_complete::generate(args.shell, &mut command, "loadgen", &mut text);
    output::print(&String::from_utf8(text)?)?;
    Ok(ExitCode::SUCCESS)
}

/// The same command line, with the names that there are now as the values of flags that take models
/// and workloads: a shell offers them.
fn offering(command: clap::Command) -> Result<clap::Command> {
    let models = Models::load(None)?;
    let mut servers = Vec::new();
    for (name, entry) in models.entries() {
        servers.push(PossibleValue::new(name.clone()).help(entry.summary.clone()));
        let bare = models.bare(name).map(|bare| bare.name);
        servers.extend(bare.map(|bare| PossibleValue::new(bare).help("the same model, bare")));
    }
    for (name, other) in models.others.entries() {
        servers.push(PossibleValue::new(name.clone()).help(other.summary.clone()));
    }
    let mut workloads = Vec::new();
    for listed in workload::list()? {
        workloads.push(PossibleValue::new(listed.name).help(listed.summary));
    }
    Ok(command.mut_subcommands(|command| {
        command.mut_args(|arg| match arg.get_id().as_str() {
            "model" | "models" => arg.value_parser(PossibleValuesParser::new(servers.clone())),
            "workload" | "workloads" => {
                arg.value_parser(PossibleValuesParser::new(workloads.clone()))
            }
            _ => arg,
        })
    }))
}

/// `loadgen man`.
pub(super) fn man(args: &cli::Man) -> Result<ExitCode> {
    let page = asked(page(args.command.as_deref()))?;
    let mut text = Vec::new();
    // A section of a manual page says it, and not the text below the flags.
    Man::new(page.after_help(None::<&str>)).render(&mut text)?;
    text.extend_from_slice(exit_status().as_bytes());
    output::print(&String::from_utf8(text)?)?;
    Ok(ExitCode::SUCCESS)
}

/// The section on exit codes, in the language of manual pages.
fn exit_status() -> String {
    let mut text = String::from(".SH \"EXIT STATUS\"\n");
    for (code, meaning) in MEANINGS {
        // A hyphen alone would be a sign that a reader cannot search for.
        text.push_str(&format!(".TP\n\\fB{code}\\fR\n{}.\n", meaning.replace('-', "\\-")));
    }
    text
}

/// The program, or one of its commands under its full name.
fn page(name: Option<&str>) -> Result<clap::Command> {
    let mut program = cli::command();
    program.build();
    let Some(name) = name else { return Ok(program) };
    let command = program.find_subcommand(name).filter(|command| !command.is_hide_set());
    let command = command.with_context(|| format!("no command is called {name:?}"))?;
    Ok(command.clone())
}
