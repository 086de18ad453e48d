//! The program: flags in, exit code out. The library beside it does the work.

use std::process::ExitCode;

use loadgen::base::exit::{self, AfterResult, Interrupted};
use loadgen::base::output::{self, say};
use loadgen::base::signals;
use loadgen::command::cli;
use loadgen::command::{execute, print_json};
use loadgen::results::{Body, Document};

fn main() -> ExitCode {
    signals::prepare();
    let cli = match cli::parse() {
        Ok(cli) => cli,
        Err(e) => return print_usage(&e),
    };
    match execute(&cli.command) {
        Ok(code) => code,
        Err(error) => {
            report_failure(&error);
            exit::code(&error)
        }
    }
}

fn report_failure(error: &anyhow::Error) {
    let end = if error.is::<Interrupted>() { ": nothing was measured to its end" } else { "" };
    let text = format!("{error:#}{end}");
    say(&format!("loadgen: {text}"));
    if !error.is::<AfterResult>() {
        print_failure(text);
    }
}

/// The command line asks for help, or it is wrong.
fn print_usage(error: &clap::Error) -> ExitCode {
    let text = error.to_string();
    if error.use_stderr() {
        say(text.trim_end());
        print_failure(text.trim().trim_start_matches("error: ").to_owned());
        return ExitCode::from(2);
    }
    match output::print(&text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            say(&format!("loadgen: {e:#}"));
            ExitCode::FAILURE
        }
    }
}

/// With `--json` an error stands where the result would. The command line is looked at as it came:
/// it may be what is wrong.
fn print_failure(error: String) {
    let mut args = std::env::args_os().take_while(|arg| arg != "--");
    if args.any(|arg| arg == "--json") {
        // Where this cannot be printed, standard error and the exit code have said it.
        let _ = print_json(&Document::new(Body::Failure { error }));
    }
}
