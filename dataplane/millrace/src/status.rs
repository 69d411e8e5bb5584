//! `millrace status`: asks the admin endpoint.

use core::time::Duration;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use control::status::{Cores, Status};
use serde::de::DeserializeOwned;

use crate::cli::Output;
use crate::failure::Failure;
use crate::validate::{Table, tables};

/// For the connection, and for each byte of the answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of an answer that are read at most: far more than any configuration's status.
const LONGEST: u64 = 256 << 20;

/// Shows what a running Millrace says about itself.
pub(crate) fn status(admin: SocketAddr, output: Output) -> Result<(), Failure> {
    show(admin, "/status", output, render)
}

/// Shows its cores.
pub(crate) fn cores(admin: SocketAddr, output: Output) -> Result<(), Failure> {
    show(admin, "/cores", output, render_cores)
}

pub(crate) fn show<T: DeserializeOwned>(
    admin: SocketAddr,
    path: &str,
    output: Output,
    render: impl FnOnce(&T) -> String,
) -> Result<(), Failure> {
    let (status, body) = ask(admin, "GET", path, PATIENCE)?;
    if status != 200 {
        return Err(strange(admin, &format!("status {status}")));
    }
    say(admin, output, &body, render)
}

/// Says what was answered, as it is or rendered.
pub(crate) fn say<T: DeserializeOwned>(
    admin: SocketAddr,
    output: Output,
    body: &[u8],
    render: impl FnOnce(&T) -> String,
) -> Result<(), Failure> {
    let wrong = |error: serde_json::Error| strange(admin, &error.to_string());
    match output {
        Output::Json => crate::validate::print_json(&serde_json::from_slice::<serde_json::Value>(body).map_err(wrong)?),
        Output::Table => crate::say(&render(&serde_json::from_slice(body).map_err(wrong)?)),
    }
    Ok(())
}

pub(crate) fn strange(admin: SocketAddr, what: &str) -> Failure {
    Failure::new(format!("{admin} did not answer as Millrace's admin endpoint does: {what}"))
        .hint("is another program, or another version, on that port?")
}

/// One request; status and body of the answer.
pub(crate) fn ask(admin: SocketAddr, method: &str, path: &str, patience: Duration) -> Result<(u16, Vec<u8>), Failure> {
    request(admin, method, path, patience).map_err(|error| {
        Failure::new(format!("no answer from the admin address {admin}: {error}"))
            .hint("is Millrace running, here and in this network namespace? --admin says where spec.admin.address of its Appliance is")
    })
}

fn request(admin: SocketAddr, method: &str, path: &str, patience: Duration) -> io::Result<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect_timeout(&admin, PATIENCE)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // HTTP/1.0: the answer is neither chunked nor followed by another.
    write!(stream, "{method} {path} HTTP/1.0\r\nHost: {admin}\r\nContent-Length: 0\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer)?;
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").ok_or_else(|| invalid("the answer is not HTTP"))?;
    let head = String::from_utf8_lossy(answer.get(..end).unwrap_or_default()).into_owned();
    let first = head.lines().next().unwrap_or_default();
    let status = first.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(|| invalid(first))?;
    Ok((status, answer.split_off(end + 4)))
}

fn render(status: &Status) -> String {
    let ready = if status.ready { "ready".to_owned() } else { format!("not ready: {}", status.reasons.join("; ")) };
    let mut text = format!(
        "{} (millrace {}), up {}, epoch {}, {ready}\nmemory: {}\n",
        status.name,
        status.version,
        duration(status.uptime_seconds),
        status.epoch,
        status.memory,
    );
    text += &crate::live::configuration(&status.configuration, status.epoch);
    let mut cores = Table::new(&["CORE", "CPU", "STAGE", "EPOCH", "BUSY", "CONNECTIONS", "REQUESTS"]);
    for core in &status.cores {
        cores.row([
            core.index.to_string(),
            core.cpu.to_string(),
            if core.alive { core.stage.clone() } else { format!("{}, not moving", core.stage) },
            core.epoch.to_string(),
            format!("{:.0} %", core.busy * 100.0),
            core.connections.to_string(),
            core.requests.to_string(),
        ]);
    }
    let mut ports = Table::new(&["PORT", "LINK", "DRIVER", "MAC", "MTU", "ADDRESSES", "RECEIVED", "SENT"]);
    for port in &status.ports {
        ports.row([
            port.name.clone(),
            if port.link_up { "up" } else { "down" }.to_owned(),
            port.driver.clone(),
            port.mac.clone(),
            port.mtu.to_string(),
            port.addresses.join(","),
            port.rx_packets.to_string(),
            port.tx_packets.to_string(),
        ]);
    }
    text += &format!("{}\n{}\n{}", cores.render(), ports.render(), tables(&status.gateways, &status.routes));
    if !status.names.is_empty() {
        text += &format!("\n{}", crate::listings::render_names(&status.names));
    }
    text
}

fn render_cores(all: &Cores) -> String {
    let mut cores = Table::new(&[
        "CORE",
        "CPU",
        "STAGE",
        "EPOCH",
        "BUSY",
        "WHEN-IDLE",
        "CONNECTIONS",
        "SHARE",
        "UPSTREAM",
        "IDLE",
        "REQUESTS",
    ]);
    let mut ports =
        Table::new(&["CORE", "PORT", "STEERING", "RECEIVED", "SENT", "HANDED-IN", "HANDED-OUT", "STRAYS", "RING-FULL"]);
    for detail in &all.cores {
        let core = &detail.core;
        cores.row([
            core.index.to_string(),
            core.cpu.to_string(),
            if core.alive { core.stage.clone() } else { format!("{}, not moving", core.stage) },
            core.epoch.to_string(),
            format!("{:.0} %", core.busy * 100.0),
            detail.when_idle.clone(),
            core.connections.to_string(),
            format!("{:.0} %", detail.share * 100.0),
            detail.upstream.to_string(),
            detail.upstream_idle.to_string(),
            core.requests.to_string(),
        ]);
        for (position, port) in detail.ports.iter().enumerate() {
            ports.row([
                core.index.to_string(),
                port.name.clone(),
                port.way.clone(),
                port.rx_packets.to_string(),
                port.tx_packets.to_string(),
                port.handed_in.to_string(),
                port.handed_out.to_string(),
                port.strays.to_string(),
                // Counted for the core as a whole.
                if position == 0 { detail.ring_full.to_string() } else { String::new() },
            ]);
        }
    }
    format!("{}\n{}", cores.render(), ports.render())
}

pub(crate) fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}
