//! The binary: command line, EAL start, thread pinning, wiring, signals.
//!
//! It decides nothing about packets or configuration; it puts together what `control`, `pmd` and `engine` are.
//!
//! Exit codes: 0 done; 1 failed; 2 the command line or the configuration was refused.
#![forbid(unsafe_code)]

mod check;
mod cli;
mod endpoints;
mod exceptions;
mod explain;
mod failure;
mod listings;
mod live;
mod polling;
mod reflect;
mod resume;
mod run;
mod signals;
mod status;
mod validate;

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use cli::{Cli, Command, Listing, Output, Settable};
use failure::Failure;

/// Connections that `get connections` lists where nobody says how many.
const CONNECTIONS: usize = 1000;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        Command::Run { files, state, log } => run::run(files, state, *log),
        Command::Validate { files, output } => validate::validate(files, *output),
        Command::Check { files } => check::check(files),
        Command::Status { admin, output } => status::status(*admin, *output),
        Command::Get { what, admin, output, limit } => get(*what, *admin, *output, *limit),
        Command::Explain { request, ask } => explain::explain(request, ask.admin, ask.output),
        Command::Reload { ask } => live::reload(ask.admin, ask.output),
        Command::Drain { admin } => live::drain(*admin),
        Command::Reflect(mirror) => reflect::reflect(mirror),
        Command::Set { what: Settable::Endpoint { backend, address, admin, setting } } => {
            endpoints::set(*admin, backend, address, *setting)
        }
        Command::Version => {
            say(&format!("millrace {}\n{}\n", env!("CARGO_PKG_VERSION"), pmd::dpdk_version()));
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprint!("{failure}");
            failure.exit_code()
        }
    }
}

fn get(what: Listing, admin: SocketAddr, output: Output, limit: Option<usize>) -> Result<(), Failure> {
    if limit.is_some() && !matches!(what, Listing::Connections) {
        Cli::command()
            .error(ErrorKind::ArgumentConflict, "--limit is about connections: `millrace get connections`")
            .exit();
    }
    match what {
        Listing::Cores => status::cores(admin, output),
        Listing::Listeners => listings::listeners(admin, output),
        Listing::Routes => listings::routes(admin, output),
        Listing::Backends => listings::backends(admin, output),
        Listing::Connections => listings::connections(admin, output, limit.unwrap_or(CONNECTIONS)),
        Listing::Limits => listings::limits(admin, output),
        Listing::Epochs => live::epochs(admin, output),
        Listing::Endpoints => endpoints::list(admin, output),
        Listing::Config => status::show(admin, "/config?format=json", output, control::text::ConfigurationText::yaml),
        Listing::Names => listings::names(admin, output),
    }
}

/// Writes to standard output. Whoever closed it early (`| head`) has read enough.
fn say(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}
