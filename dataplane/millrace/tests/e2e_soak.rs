//! What many connections leave behind: nothing.

mod support;

use std::time::Duration;

use support::backend::Backend;
use support::gateway::{Config, Gateway};
use support::sandbox::{Ns, Sandbox, VIP};
use support::wait_for;

const GAUGES: &[&str] = &[
    "millrace_flows",
    "millrace_timers",
    "millrace_sockets",
    "millrace_connections_open",
    "millrace_connections_half_open",
    "millrace_requests_active",
    "millrace_tunnels_open",
    "millrace_tcp_time_wait",
    "millrace_upstream_connections_open",
];

fn gauges(gateway: &Gateway<'_>) -> Vec<(&'static str, u64)> {
    GAUGES.iter().map(|name| (*name, gateway.metric(name, &[]))).collect()
}

/// Idle backend connections go soon, so that the gauges can be compared.
fn start(sandbox: &Sandbox) -> Gateway<'_> {
    let config = Config::everything_to(&["10.9.2.2:8080", "10.9.2.3:8080"])
        .appliance("  upstream: { idleTimeout: 1s }\n  tcp: { maxConnections: 20000 }\n");
    Gateway::start(sandbox, &config)
}

#[test]
fn twenty_thousand_connections_leave_nothing_behind() {
    let sandbox = sandbox_or_skip!();
    sandbox.start_nginx();
    let mut gateway = start(&sandbox);
    assert_eq!(gateway.get("/").status, 200);
    settle(&gateway, &[]);
    let before = gauges(&gateway);
    let memory = gateway.resident_kib();
    let opened = gateway.metric("millrace_connections_opened_total", &[]);
    let url = format!("http://{VIP}/1k");
    let mut made = 0;
    for _ in 0..6 {
        let arguments = ["-t1", "-c16", "-d3s", "-H", "Connection: close", &url];
        let output = sandbox.output(Ns::Client, "wrk", &arguments);
        assert!(!output.contains("Non-2xx") && !output.contains("timeout"), "{output}");
        made = gateway.metric("millrace_connections_opened_total", &[]) - opened;
        if made >= 20_000 {
            break;
        }
    }
    eprintln!("{made} connections");
    assert!(made >= 20_000, "only {made} connections in 18 s");
    settle(&gateway, &before);
    let closed = gateway.metric("millrace_connections_closed_total", &[]);
    let requests = gateway.metric("millrace_requests_started_total", &[]);
    assert_eq!(gateway.metric("millrace_connections_opened_total", &[]), closed);
    assert_eq!(gateway.metric("millrace_requests_finished_total", &[]), requests);
    let grown = gateway.resident_kib().saturating_sub(memory);
    assert!(grown < 32 << 10, "resident memory grew by {grown} KiB");
    gateway.assert_alive();
}

/// Waits until the gauges are what they were, or at rest where nothing is given.
fn settle(gateway: &Gateway<'_>, wanted: &[(&'static str, u64)]) {
    let mut last = Vec::new();
    let deadline = std::time::Instant::now() + Duration::from_secs(15);
    loop {
        let now = gauges(gateway);
        let at_rest = if wanted.is_empty() {
            now == last && now.iter().all(|(name, value)| *value == 0 || *name == "millrace_timers")
        } else {
            now.as_slice() == wanted
        };
        if at_rest {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "not at rest: {now:?}, wanted {wanted:?}");
        last = now;
        std::thread::sleep(Duration::from_millis(300));
    }
}

#[test]
fn packets_received_are_delivered_or_dropped() {
    let sandbox = sandbox_or_skip!();
    let _backend = Backend::echo(&sandbox, Ns::B1, "10.9.2.2:9000");
    let gateway = Gateway::start(&sandbox, &Config::everything_to(&["10.9.2.2:9000"]));
    for _ in 0..200 {
        assert_eq!(gateway.get("/").status, 200);
    }
    // The sums that tables::counters states, at rest.
    wait_for("at rest", Duration::from_secs(10), || gateway.metric("millrace_connections_open", &[]) == 0);
    let metric = |name: &str| gateway.metric(name, &[]);
    assert_eq!(
        metric("millrace_connections_opened_total"),
        metric("millrace_connections_closed_total") + metric("millrace_connections_open")
    );
    assert_eq!(
        metric("millrace_requests_started_total"),
        metric("millrace_requests_finished_total") + metric("millrace_requests_active")
    );
    assert_eq!(metric("millrace_requests_total"), 200);
    let received = metric("millrace_port_rx_packets_total");
    let dropped = metric("millrace_packets_dropped_total");
    let segments = metric("millrace_tcp_segments_received_total");
    assert!(segments + dropped <= received, "{segments} segments and {dropped} drops of {received} packets");
    assert_eq!(metric("millrace_tcp_retransmissions_total"), 0, "on a wire that loses nothing");
}
