//! Vigie, a Layer-7 high-availability load balancer: the wiring of its crates, and the command line.

mod acme;
mod activation;
mod admin;
mod api_client;
mod attempt;
mod check;
mod cli;
mod demo;
mod export;
mod http;
mod listening;
mod machine;
mod memory;
mod notify;
mod observe;
mod ocsp;
mod options;
mod print;
mod providers;
mod publish;
mod report;
mod rest;
mod rollout;
mod run;
mod server;
mod signals;
mod telemetry;
mod upgrade;
mod verify;
mod way_out;

use std::ffi::OsString;
use std::process::ExitCode;

use crate::cli::{Cli, Command};
use crate::options::Options;
use crate::print::say;

/// Version as `vigie version` and the API give it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Runs the program with these arguments (without its own name).
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let cli = match cli::parse(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    let options = cli.options();
    if let Some(given) = options.names()
        && let Some(name) = cli.command.as_ref().and_then(Command::reads_no_configuration)
    {
        print::complain(&format!("vigie: `{name}` reads no configuration\n  hint: leave out {given}"));
        return ExitCode::FAILURE;
    }
    let is_demo = matches!(cli.command, Some(Command::Demo { .. }));
    obey(cli, &options).unwrap_or_else(|error| {
        let hint = way_out::hint(&error, is_demo).map(|hint| format!("\n  hint: {hint}"));
        print::complain(&format!("vigie: {error:#}{}", hint.unwrap_or_default()));
        ExitCode::FAILURE
    })
}

/// Does what the command line asks for.
fn obey(cli: Cli, options: &Options) -> anyhow::Result<ExitCode> {
    match cli.command {
        _ if cli.version => say(&cli::version()),
        None => run::run(options)?,
        Some(Command::Check) => return Ok(check::check(options)),
        Some(Command::Demo { port }) => demo::run(port)?,
        Some(Command::Healthcheck) => check::healthcheck(options)?,
        Some(Command::Upgrade { pid }) => upgrade::command(pid)?,
        Some(Command::Server { command }) => return server::run(options, &command),
        Some(Command::Rollout(asked)) => return rollout::run(options, &asked),
        Some(Command::Verify(asked)) => return verify::run(options, &asked),
        Some(Command::Version) => say(&cli::version()),
    }
    Ok(ExitCode::SUCCESS)
}
