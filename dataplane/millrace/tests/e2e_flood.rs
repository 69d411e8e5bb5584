//! Floods of SYNs beside clients that mean it.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flood::{Plan, flood};
use support::gateway::{Config, Gateway};
use support::packets::{SYN, Tcp};
use support::sandbox::{Ns, Sandbox};
use support::wait_for;
use support::wire::Wire;

const HALF_OPEN: u64 = 256;

fn plan(rate: u32, count: u64) -> Plan {
    let (to, from) = ("10.9.1.1:80".parse().unwrap(), "10.9.1.128".parse().unwrap());
    Plan { interface: "eth0".to_owned(), to, from, rate, count, mac: None, nobody: false }
}

/// Short connections by wrk for so many seconds: how many, and what went wrong.
fn short_connections(sandbox: &Sandbox, seconds: u32) -> (u64, String) {
    let duration = format!("-d{seconds}s");
    let words = ["-t1", "-c8", &duration, "--timeout", "10s", "-H", "Connection: close", "http://10.9.1.1/"];
    let said = sandbox.output(Ns::Client, "wrk", &words);
    let requests = said.lines().find_map(|line| line.trim().split_once(" requests in")).expect("wrk's summary");
    let wrong = said.lines().filter(|line| line.contains("Socket errors") || line.contains("Non-2xx"));
    (requests.0.parse().expect("a number"), wrong.collect())
}

#[test]
fn every_honest_connection_succeeds_beside_a_flood() {
    let sandbox = sandbox_or_skip!();
    sandbox.start_nginx();
    let config = Config::everything_to(&["10.9.2.2:8080", "10.9.2.3:8080"])
        .appliance(&format!("  tcp: {{ halfOpen: {HALF_OPEN} }}\n"));
    let mut gateway = Gateway::start(&sandbox, &config);
    // Everything that grows once has grown.
    short_connections(&sandbox, 1);
    let before = gateway.resident_kib();
    let stop = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let flooding = scope.spawn(|| sandbox.inside(Ns::Client, || flood(&plan(10_000, 300_000), &stop)));
        let cookies = || gateway.metric("millrace_syn_cookies_sent_total", &[]);
        wait_for("the flood is on", Duration::from_secs(10), || cookies() > 1000);
        let (requests, wrong) = short_connections(&sandbox, 5);
        assert!(requests > 500 && wrong.is_empty(), "{requests} requests, {wrong}");
        for _ in 0..100 {
            assert_eq!(gateway.get("/").status, 200);
        }
        let accepted = gateway.metric("millrace_syn_cookies_accepted_total", &[]);
        assert!(accepted > requests / 2, "{accepted} of {requests} by a cookie");
        assert!(gateway.metric("millrace_connections_half_open", &[]) <= HALF_OPEN);
        let kept = ["millrace_flows", "millrace_sockets"].map(|name| gateway.metric(name, &[]));
        let waiting = gateway.metric("millrace_tcp_time_wait", &[]);
        assert!(kept.iter().all(|&n| n <= HALF_OPEN + 600 + waiting), "{kept:?}, {waiting} in TIME-WAIT");
        let grown = gateway.resident_kib().saturating_sub(before);
        // The half-open ones have buffers, 128 KiB each.
        assert!(grown < 128 * HALF_OPEN + 8192, "resident memory grew by {grown} KiB");
        stop.store(true, Ordering::Relaxed);
        flooding.join().unwrap().unwrap()
    });
    assert!(sent.syns > 20_000, "{sent:?}");
    wait_for("what was half open is gone", Duration::from_secs(20), || {
        gateway.metric("millrace_connections_half_open", &[]) == 0
    });
    gateway.assert_alive();
}

#[test]
fn the_example_limits_each_source() {
    let sandbox = sandbox_or_skip!();
    sandbox.start_nginx();
    let gateway = Gateway::start_example(&sandbox, "flood.yaml");
    let wire = Wire::plug(&sandbox);
    for portion in 1..=8u64 {
        for n in 0..500u16 {
            let port = 1024 + (portion as u16) * 500 + n;
            wire.send(&Tcp::new(port, 80, SYN, u32::from(n), 0).options(&[2, 4, 5, 180]));
        }
        let answered = || gateway.metric("millrace_syn_cookies_sent_total", &[]);
        wait_for("they have arrived", Duration::from_secs(5), || {
            answered() + gateway.metric("millrace_connections_half_open", &[]) + gateway.drops("source_rate")
                >= portion * 500
        });
    }
    // 2,000 at once and 1,000 a second, of 4,000.
    assert!(gateway.drops("source_rate") > 100, "{}", gateway.drops("source_rate"));
    // Another one does not notice.
    for _ in 0..50 {
        assert_eq!(gateway.get("/").status, 200);
    }
}
