//! The command `blast`.
//!
//! Exit code 0: every reply was right. 1: some were not. 2: it could not run.

#![forbid(unsafe_code)]

mod admin;
mod cli;
mod host;
mod machine;
mod raw;
mod report;
mod run;
mod wires;

use std::collections::BTreeMap;
use std::process::ExitCode;

use blast::{Client, ClientOptions, Endpoint, HostOptions, Message, Server};
use clap::{Parser, ValueEnum};
use pmd::{DpdkLane, Lane, MemoryMode, Port};

use cli::{Arguments, Workload};
use report::{Idle, Latency, Part, Report, Settings, Side};
use run::{Outcome, Plan};

fn main() -> ExitCode {
    match execute(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("blast: {error}");
            ExitCode::from(2)
        }
    }
}

/// Whether all was right.
fn execute(arguments: &Arguments) -> Result<bool, String> {
    if arguments.workload == Workload::Machine {
        return machine::measure(arguments);
    }
    if arguments.north.is_empty() {
        return Err("--north is missing: the device towards the gateway".to_owned());
    }
    let eal = wires::start(arguments)?;
    let north = wires::open(&eal, arguments, &arguments.north)?;
    let south = arguments.south.as_ref().map(|device| wires::open(&eal, arguments, device)).transpose()?;
    wires::pin(arguments.core)?;
    let _registered = eal.register_thread().map_err(|error| error.to_string())?;
    let both: Vec<_> = std::iter::once(&north).chain(&south).collect();
    wires::wait_for_links(&both)?;
    match arguments.workload {
        Workload::Raw => return raw::send(arguments, north),
        Workload::Reflect => return raw::reflect(arguments, north, south),
        Workload::Forward => return raw::forward(north, south),
        _ => {}
    }

    let port = north.port;
    let connections = arguments.connections + arguments.idle;
    let mut clients = Endpoint::new(north.lane, Client::new(client(arguments)), client_host(arguments, connections));
    let (south_port, mut backends) = match south {
        Some(wire) => {
            let server = Server::new(arguments.reply() as usize);
            (Some(wire.port), Some(Endpoint::new(wire.lane, server, backend_host(arguments, connections))))
        }
        None => (None, None),
    };
    let plan = Plan {
        warm_up: nanoseconds(arguments.warm_up),
        duration: nanoseconds(arguments.duration),
        timeout: nanoseconds(arguments.timeout),
        idle: arguments.idle > 0,
        parts: arguments.parts.clone(),
        between: arguments.between.clone().unwrap_or_default(),
        admin: arguments.gateway_admin.clone().filter(|_| arguments.parts.is_empty()),
        gateway: arguments.gateway_pid,
    };
    let slots = backend_host(arguments, connections).connections.max(connections);
    let outcome = run::run(&mut clients, backends.as_mut(), slots, &plan)?;
    let memory = match eal.memory_mode() {
        MemoryMode::Hugepages => "hugepages",
        MemoryMode::Ordinary => "ordinary pages",
    };
    let sides =
        (side(&port, &clients), south_port.zip(backends.as_ref()).map(|(port, backends)| side(&port, backends)));
    let report = report(arguments, memory, &eal.version(), &clients, outcome, sides);
    let json = serde_json::to_string_pretty(&report).map_err(|error| error.to_string())?;
    match arguments.json.as_deref() {
        Some("-") => println!("{json}"),
        file => {
            println!("{}", report.summary());
            if let Some(file) = file {
                std::fs::write(file, json).map_err(|error| format!("{file}: {error}"))?;
            }
        }
    }
    Ok(report.errors == 0 && report.backends.errors() == 0 && report.idle.as_ref().is_none_or(Idle::all_there))
}

fn client(arguments: &Arguments) -> ClientOptions {
    let close = arguments.workload == Workload::Close;
    let request =
        |path: &str| Message::request(&arguments.host, path, &arguments.fields, arguments.request() as usize, close);
    let requests = match arguments.paths() {
        0 => vec![request(&arguments.path)],
        routes => (0..routes).map(|route| request(&format!("{}r{route:05}/", arguments.path))).collect(),
    };
    ClientOptions {
        busy: arguments.connections,
        idle: arguments.idle,
        close,
        rate: arguments.rate,
        requests,
        reply: u64::from(arguments.reply()),
        timeout: nanoseconds(arguments.timeout),
    }
}

fn client_host(arguments: &Arguments, connections: u32) -> HostOptions {
    HostOptions {
        first: arguments.clients.to_bits(),
        addresses: arguments.client_addresses,
        peer: if arguments.direct { arguments.backends } else { arguments.gateway }.to_bits(),
        port: if arguments.direct { arguments.backend_port } else { arguments.port },
        listens: false,
        connections,
        retransmission: u64::from(arguments.retransmission()) * 1_000_000,
        delayed_ack: 10_000_000,
        retries: if arguments.loss > 0.0 { 10 } else { 5 },
        in_flight: arguments.in_flight,
        window_scale: arguments.window_scale,
        loss: arguments.loss,
        seed: std::time::UNIX_EPOCH.elapsed().map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(0)),
    }
}

fn backend_host(arguments: &Arguments, connections: u32) -> HostOptions {
    HostOptions {
        first: arguments.backends.to_bits(),
        addresses: arguments.backend_addresses,
        peer: if arguments.direct { arguments.clients } else { arguments.gateway_south }.to_bits(),
        port: arguments.backend_port,
        listens: true,
        loss: 0.0,
        retransmission: u64::from(arguments.retransmission.unwrap_or(200)) * 1_000_000,
        // A gateway may keep more connections than it uses at a time.
        connections: connections.saturating_mul(2).max(4096),
        ..client_host(arguments, connections)
    }
}

fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

fn side<A: blast::endpoint::App>(port: &Port, host: &Endpoint<DpdkLane, A>) -> Side {
    let counted = host.lane().counters();
    Side {
        driver: port.driver().to_owned(),
        offloads: wires::offloads(port.offloads()),
        rx_packets: counted.rx_packets,
        rx_bytes: counted.rx_bytes,
        tx_packets: counted.tx_packets,
        tx_bytes: counted.tx_bytes,
        tx_full: counted.tx_full,
        pool_empty: counted.pool_empty,
        tcp: host.counters(),
    }
}

fn report(
    arguments: &Arguments,
    memory: &str,
    dpdk: &str,
    clients: &Endpoint<DpdkLane, Client>,
    outcome: Outcome,
    (north, south): (Side, Option<Side>),
) -> Report {
    let counters = outcome.clients;
    let measured = outcome.whole.as_ref().unwrap_or_else(|| clients.app().measured());
    let seconds = arguments.duration * arguments.parts.len().max(1) as f64;
    let gigabits = |bytes: u64| bytes as f64 * 8.0 / seconds / 1e9;
    let parts = outcome.parts.iter().map(|part| Part::new(part, arguments.duration)).collect();
    let idle = outcome.alone.as_ref().map(|alone| Idle::new(arguments.idle, &counters, alone, &outcome, seconds));
    let (gateway_busy, gateway_problem) = match outcome.gateway {
        Some(Ok(share)) => (Some(share), None),
        Some(Err(problem)) => (None, Some(problem)),
        None => (None, None),
    };
    let name = arguments.workload.to_possible_value();
    Report {
        workload: name.map_or_else(String::new, |name| name.get_name().to_owned()),
        settings: Settings {
            arguments: std::env::args().skip(1).collect(),
            north: arguments.north.clone(),
            south: arguments.south.clone(),
            core: arguments.core,
            connections: arguments.connections,
            idle: arguments.idle,
            rate: arguments.rate,
            reply_bytes: arguments.reply(),
            request_bytes: arguments.request(),
            direct: arguments.direct,
            routes: arguments.paths(),
            loss: arguments.loss,
            retransmission_milliseconds: arguments.retransmission(),
            large_frames: arguments.large(),
            memory: format!("{} MiB in {memory}", arguments.memory),
        },
        versions: BTreeMap::from([("blast", env!("CARGO_PKG_VERSION").to_owned()), ("dpdk", dpdk.to_owned())]),
        seconds,
        requests: counters.requests,
        replies: counters.replies,
        replies_measured: measured.replies,
        requests_per_second: measured.replies as f64 / seconds,
        seconds_requests: measured.seconds.clone(),
        reply_gigabits_per_second: gigabits(measured.reply_bytes),
        request_gigabits_per_second: gigabits(measured.request_bytes),
        backlog: outcome.backlog,
        idle_connections: counters.idle,
        idle,
        parts,
        said_at_end: outcome.said,
        stalls: outcome.stalls,
        taken: outcome.taken,
        gateway_memory: outcome.memory[2],
        connections_open: outcome.live,
        latency_microseconds: Latency::new(measured),
        latency_undisturbed_microseconds: Latency::of(&measured.undisturbed),
        errors: counters.errors(),
        errors_by_kind: report::by_kind(&counters),
        closed_early: counters.closed_early,
        backends: outcome.backends,
        north,
        south,
        generator_busy: outcome.busy,
        limited_by: report::limited_by(outcome.busy, gateway_busy),
        gateway_busy,
        gateway_problem,
    }
}
