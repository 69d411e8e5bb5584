//! The command line: see the library.

#![forbid(unsafe_code)]

use core::net::{Ipv4Addr, SocketAddrV4};
use core::sync::atomic::AtomicBool;
use std::process::ExitCode;

use clap::Parser;
use flood::{Plan, flood};

/// Sends SYNs from made-up addresses to a target in a private network, and nothing else.
#[derive(Debug, Parser)]
struct Arguments {
    /// The interface to send from.
    #[arg(long)]
    interface: String,
    /// Address and port to send to.
    #[arg(long)]
    to: SocketAddrV4,
    /// An address that nobody has, on the target's network; SYNs come from the 64 around it and from 198.18.0.0/15.
    #[arg(long)]
    from: Ipv4Addr,
    /// SYNs a second; 200,000 at most.
    #[arg(long, default_value_t = 10_000)]
    rate: u32,
    /// SYNs in all; 20,000,000 at most.
    #[arg(long, default_value_t = 100_000)]
    count: u64,
    /// The target's Ethernet address; asked for by ARP where it is left out.
    #[arg(long, value_parser = mac)]
    mac: Option<[u8; 6]>,
    /// Send to an Ethernet address that nobody has: for comparison.
    #[arg(long)]
    nobody: bool,
}

fn mac(text: &str) -> Result<[u8; 6], String> {
    let parts: Result<Vec<u8>, _> = text.split(':').map(|part| u8::from_str_radix(part, 16)).collect();
    parts.ok().and_then(|parts| parts.try_into().ok()).ok_or_else(|| "six bytes such as 02:00:00:00:00:01".to_owned())
}

fn main() -> ExitCode {
    let Arguments { interface, to, from, rate, count, mac, nobody } = Arguments::parse();
    match flood(&Plan { interface, to, from, rate, count, mac, nobody }, &AtomicBool::new(false)) {
        Ok(sent) => {
            println!("{} SYNs in {:.3} s", sent.syns, sent.took.as_secs_f64());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("flood: {error}");
            ExitCode::FAILURE
        }
    }
}
