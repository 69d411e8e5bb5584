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
mod run;
mod signals;
mod status;
mod validate;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command, Listing, Settable};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        Command::Run { files, state, log } => run::run(files, state, *log),
        Command::Validate { files, output } => validate::validate(files, *output),
        Command::Check { files } => check::check(files),
        Command::Status { admin, output } => status::status(*admin, *output),
        Command::Get { what: Listing::Cores, admin, output, .. } => status::cores(*admin, *output),
        Command::Get { what: Listing::Epochs, admin, output, .. } => live::epochs(*admin, *output),
        Command::Get { what: Listing::Listeners, admin, output, .. } => listings::listeners(*admin, *output),
        Command::Get { what: Listing::Routes, admin, output, .. } => listings::routes(*admin, *output),
        Command::Get { what: Listing::Backends, admin, output, .. } => listings::backends(*admin, *output),
        Command::Get { what: Listing::Connections, admin, output, limit } => {
            listings::connections(*admin, *output, *limit)
        }
        Command::Get { what: Listing::Config, admin, output, .. } => {
            status::show(*admin, "/config?format=json", *output, control::text::ConfigurationText::yaml)
        }
        Command::Get { what: Listing::Names, admin, output, .. } => listings::names(*admin, *output),
        Command::Get { what: Listing::Limits, admin, output, .. } => listings::limits(*admin, *output),
        Command::Explain { request, ask } => explain::explain(request, ask.admin, ask.output),
        Command::Reload { ask } => live::reload(ask.admin, ask.output),
        Command::Drain { admin } => live::drain(*admin),
        Command::Reflect(mirror) => reflect::reflect(mirror),
        Command::Get { what: Listing::Endpoints, admin, output, .. } => endpoints::list(*admin, *output),
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

/// Writes to standard output. Whoever closed it early (`| head`) has read enough.
fn say(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}
