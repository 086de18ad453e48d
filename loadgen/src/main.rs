//! The program: flags in, exit code out. The library beside it does the work.

use std::process::ExitCode;

use clap::Parser;

use loadgen::cli::{Cli, Command};
use loadgen::run::Interrupted;
use loadgen::{command, doctor, null, report, schema, shell, synthetic};

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::List(args) => command::list(&args),
        Command::Doctor(args) => doctor::command(&args),
        Command::Run(args) => command::run(&args),
        Command::Compare(args) => command::compare(&args),
        Command::Calibrate(args) => command::calibrate(&args),
        Command::FindMax(args) => command::find_max(&args),
        Command::Verify(args) => command::verify(&args),
        Command::Report(args) => report::command(&args),
        Command::Schema => schema::command(),
        Command::Completions(args) => shell::completions(&args),
        Command::Man(args) => shell::man(&args),
        Command::NullServer(args) => match args.synthetic() {
            Some(plan) => synthetic::serve(plan),
            None => null::serve(args.listen, args.work),
        }
        .map(|()| ExitCode::SUCCESS),
        Command::NullClient(args) => {
            null::drive(args.addr, args.connections, args.size as usize, args.duration)
                .map(|()| ExitCode::SUCCESS)
        }
        Command::Exec(args) => Err(command::exec(&args)),
    };
    outcome.unwrap_or_else(|error| {
        let end = if error.is::<Interrupted>() { ": nothing was measured to its end" } else { "" };
        eprintln!("loadgen: {error:#}{end}");
        command::exit_code(&error)
    })
}
