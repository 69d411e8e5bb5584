//! `millrace get endpoints` and `millrace set endpoint`.

use std::net::SocketAddr;

use control::status::{CheckedState, EndpointStatus, Endpoints};

use crate::cli::{EndpointSetting, Output};
use crate::failure::Failure;
use crate::status::{PATIENCE, ask, show};
use crate::validate::Table;

/// Shows the endpoints of a running Millrace.
pub(crate) fn list(admin: SocketAddr, output: Output) -> Result<(), Failure> {
    show(admin, "/endpoints", output, render)
}

/// Sets an endpoint of a running Millrace.
pub(crate) fn set(admin: SocketAddr, backend: &str, address: &str, setting: EndpointSetting) -> Result<(), Failure> {
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._/:[]".contains(&b));
    if !plain(backend) || !plain(address) {
        return Err(Failure::new("BACKEND is a name, and ADDRESS an IP address with or without a port"));
    }
    let setting = match setting {
        EndpointSetting::Weight { weight } => format!("weight={weight}"),
        EndpointSetting::Drain => "drain".to_owned(),
        EndpointSetting::Ready => "ready".to_owned(),
    };
    let path = format!("/endpoints?backend={backend}&address={address}&{setting}");
    let (status, body) = ask(admin, "POST", &path, PATIENCE)?;
    let said = String::from_utf8_lossy(&body);
    if status == 200 {
        crate::say(&said);
        return Ok(());
    }
    Err(Failure::new(said.trim_end().to_owned()))
}

fn render(all: &Endpoints) -> String {
    let heads = &[
        "CLUSTER",
        "ENDPOINT",
        "WEIGHT",
        "PRIORITY",
        "ZONE",
        "NAME",
        "STATE",
        "SET",
        "HEALTH",
        "SHARE",
        "LAST-FAILURE",
    ];
    let mut table = Table::new(heads);
    for endpoint in &all.endpoints {
        let dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        table.row([
            endpoint.cluster.clone(),
            endpoint.address.clone(),
            endpoint.weight.to_string(),
            endpoint.priority.to_string(),
            dash(&endpoint.zone),
            dash(&endpoint.name),
            endpoint.state.clone(),
            dash(&endpoint.set),
            health(endpoint),
            format!("{:.1} %", endpoint.share * 100.0),
            match &endpoint.last_failure {
                Some(failure) => format!("{}, {} s ago", failure.reason, failure.seconds_ago),
                None => "-".to_owned(),
            },
        ]);
    }
    table.render()
}

fn health(endpoint: &EndpointStatus) -> String {
    match endpoint.health {
        CheckedState::Unchecked => "-",
        CheckedState::Unknown => "unknown",
        CheckedState::Healthy => "healthy",
        CheckedState::Unhealthy => "unhealthy",
    }
    .to_owned()
}
