//! `millrace get listeners|routes|backends|limits`: the parts of the running configuration with what they have counted.

use std::net::SocketAddr;

use control::listing::{BackendRow, Connections, LimitRow, ListenerRow, RouteRow, Traffic};
use control::status::{NameState, NameStatus, Names};

use crate::cli::Output;
use crate::failure::Failure;
use crate::status::show;
use crate::validate::{Table, state};

/// What of `Traffic` a row ends with.
const TRAFFIC: [&str; 5] = ["REQUESTS", "4XX", "5XX", "MEAN", "P99"];

/// Shows the listeners.
pub(crate) fn listeners(admin: SocketAddr, output: Output) -> Result<(), Failure> {
    show(admin, "/listeners", output, |rows: &Vec<ListenerRow>| {
        let mut table =
            Table::<11>::new(&with_traffic(["LISTENER", "ADDRESSES", "PORT", "HOSTNAME", "ROUTES", "STATE"]));
        for row in rows {
            let own = [
                row.name.clone(),
                row.addresses.join(","),
                row.port.to_string(),
                row.hostname.clone(),
                row.attached_routes.to_string(),
                state(&row.conditions),
            ];
            table.row(cells(own, &row.traffic));
        }
        table.render()
    })
}

/// Shows the routes.
pub(crate) fn routes(admin: SocketAddr, output: Output) -> Result<(), Failure> {
    show(admin, "/routes", output, |rows: &Vec<RouteRow>| {
        let mut table = Table::<10>::new(&with_traffic(["ROUTE", "HOSTNAMES", "RULES", "LISTENERS", "STATE"]));
        for row in rows {
            let hostnames = if row.hostnames.is_empty() { "*".to_owned() } else { row.hostnames.join(",") };
            let own =
                [row.name.clone(), hostnames, row.rules.to_string(), row.listeners.join(","), state(&row.problems)];
            table.row(cells(own, &row.traffic));
        }
        table.render()
    })
}

/// Shows the backends.
pub(crate) fn backends(admin: SocketAddr, output: Output) -> Result<(), Failure> {
    show(admin, "/backends", output, |rows: &Vec<BackendRow>| {
        let mut table = Table::<9>::new(&with_traffic(["BACKEND", "ENDPOINTS", "NAMES", "RULES"]));
        for row in rows {
            let names = if row.names.is_empty() { "-".to_owned() } else { row.names.join(",") };
            let own = [row.name.clone(), row.endpoints.to_string(), names, row.rules.to_string()];
            table.row(cells(own, &row.traffic));
        }
        table.render()
    })
}

/// Shows the rate limits.
pub(crate) fn limits(admin: SocketAddr, output: Output) -> Result<(), Failure> {
    show(admin, "/limits", output, |rows: &Vec<LimitRow>| {
        let mut table = Table::new(&["LIMIT", "TARGET", "POLICY", "KEYS", "ADMITTED", "LIMITED"]);
        for row in rows {
            table.row([
                row.name.clone(),
                row.target.clone(),
                row.policy.clone(),
                row.keys.to_string(),
                row.admitted.to_string(),
                row.limited.to_string(),
            ]);
        }
        table.render()
    })
}

/// Shows the names that endpoints come from.
pub(crate) fn names(admin: SocketAddr, output: Output) -> Result<(), Failure> {
    show(admin, "/names", output, |all: &Names| render_names(&all.names))
}

pub(crate) fn render_names(names: &[NameStatus]) -> String {
    let mut table = Table::new(&["NAME", "TYPE", "FAMILY", "STATE", "ADDRESSES", "AGE", "TTL", "NEXT", "LAST-FAILURE"]);
    for name in names {
        let state = match name.state {
            NameState::Resolved => "resolved",
            NameState::Kept => "kept",
            NameState::Pending => "pending",
            NameState::Unresolved => "unresolved",
        };
        let mut addresses = if name.addresses.is_empty() { "-".to_owned() } else { name.addresses.join(",") };
        if name.refused_count > 0 {
            addresses += &format!(" ({} refused: {})", name.refused_count, name.refused.join(", "));
        }
        if name.surplus > 0 {
            addresses += &format!(" (and {} beyond the limit)", name.surplus);
        }
        let dash = || "-".to_owned();
        table.row([
            name.name.clone(),
            name.kind.clone(),
            name.lookup_family.clone(),
            state.to_owned(),
            addresses,
            name.age_seconds.map_or_else(dash, |age| crate::status::duration(age as u64)),
            name.ttl_seconds.map_or_else(dash, |ttl| format!("{ttl} s")),
            format!("{:.1} s", name.next_seconds),
            name.last_failure.as_ref().map_or_else(dash, |f| format!("{}, {} s ago", f.reason, f.seconds_ago)),
        ]);
    }
    table.render()
}

/// Shows connections, at most so many.
pub(crate) fn connections(admin: SocketAddr, output: Output, limit: usize) -> Result<(), Failure> {
    show(admin, &format!("/connections?limit={limit}"), output, |listed: &Connections| {
        let heads =
            ["CORE", "ROLE", "LOCAL", "REMOTE", "STATE", "DOING", "OTHER-LEG", "AGE", "REQUEST", "UNREAD", "UNACKED"];
        let mut table = Table::new(&heads);
        let dash = || "-".to_owned();
        for row in &listed.connections {
            table.row([
                row.core.to_string(),
                row.role.clone(),
                row.local.clone(),
                row.remote.clone(),
                row.state.clone(),
                row.doing.clone(),
                row.other.clone().unwrap_or_else(dash),
                row.age_seconds.map_or_else(dash, span),
                row.request_seconds.map_or_else(dash, span),
                row.unread.to_string(),
                row.unacknowledged.to_string(),
            ]);
        }
        let more = if listed.more { "… and more: --limit says how many are listed\n" } else { "" };
        table.render() + more
    })
}

/// `ALL` columns: `OWN` of them, and those of the traffic.
fn with_traffic<const OWN: usize, const ALL: usize>(own: [&'static str; OWN]) -> [&'static str; ALL] {
    const { assert!(OWN + TRAFFIC.len() == ALL) };
    let mut heads = [""; ALL];
    for (head, name) in heads.iter_mut().zip(own.into_iter().chain(TRAFFIC)) {
        *head = name;
    }
    heads
}

fn cells<const OWN: usize, const ALL: usize>(own: [String; OWN], traffic: &Traffic) -> [String; ALL] {
    const { assert!(OWN + TRAFFIC.len() == ALL) };
    let mut cells = [const { String::new() }; ALL];
    let counted = [
        traffic.requests.to_string(),
        traffic.client_errors.to_string(),
        traffic.server_errors.to_string(),
        if traffic.requests == 0 { "-".to_owned() } else { span(traffic.mean_seconds) },
        traffic.p99_seconds.map_or_else(|| "-".to_owned(), |bound| format!("≤ {}", span(bound))),
    ];
    for (cell, text) in cells.iter_mut().zip(own.into_iter().chain(counted)) {
        *cell = text;
    }
    cells
}

/// Seconds with a unit that people read easily.
fn span(seconds: f64) -> String {
    match seconds {
        s if s < 0.001 => format!("{:.0} µs", s * 1e6),
        s if s < 1.0 => format!("{:.1} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}
