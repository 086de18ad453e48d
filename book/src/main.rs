//! Builds the book: `cargo run -p book`, and shows it on this machine alone: `-- --serve`.
//!
//! The chapters are under `docs/`, in the order of `docs/SUMMARY.md`. What they show of the servers
//! is taken from the servers: sources, pictures, system calls and numbers come in by macros, which
//! [`book::chapters`] explains.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Result;
use book::{build, capture, project, serve};
use clap::Parser;

/// Builds the book into target/book.
#[derive(Parser)]
struct Flags {
    /// Shows the book on 127.0.0.1, at this port, after it is built.
    #[arg(long, value_name = "PORT", num_args = 0..=1, default_missing_value = "7070")]
    serve: Option<u16>,

    /// Runs the models bare under strace, keeps their system calls, and builds nothing.
    #[arg(long, value_name = "MODEL", num_args = 0.., conflicts_with = "serve")]
    capture: Option<Vec<String>>,

    /// Where the pages go.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

fn main() -> Result<()> {
    let flags = Flags::parse();
    let mut terminal = io::stdout();
    if let Some(models) = flags.capture {
        return capture::keep(&models, &mut terminal);
    }
    let out = flags.out.unwrap_or_else(|| project::root().join("target/book"));
    build::build(&out)?;
    writeln!(terminal, "{}", out.join("index.html").display())?;
    match flags.serve {
        Some(port) => serve::serve(&out, port, &mut terminal),
        None => Ok(()),
    }
}
