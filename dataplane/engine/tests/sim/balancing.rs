//! Health checks over the wire in virtual time, and the table by which control takes endpoints out and brings them back.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pmd::sim::Clock;
use tables::*;

use crate::end_to_end::{Sim, sim};
use crate::support::appliance::{Appliance, Device};
use crate::support::client::{Clients, Plan, Request};
use crate::support::gateway::GatewayOptions;
use crate::support::host::Host;
use crate::support::server::Server;
use crate::support::{World, ms, secs};

fn http(path: &str, expected: (u16, u16)) -> Probe {
    let request = format!("GET {path} HTTP/1.1\r\nHost: backend\r\nConnection: close\r\n\r\n");
    Probe::Http(request.into_bytes().into(), [expected].into())
}

fn check(id: u32, address: &str, probe: Probe) -> Check {
    let way = CheckWay { interval: secs(5), timeout: secs(2), probe };
    Check { id: CheckId(id), address: address.parse().unwrap(), way: Arc::new(way) }
}

fn table(version: u64, checks: &[Check]) -> Arc<EndpointTable> {
    Arc::new(EndpointTable::new(version, 1, vec![], checks.into()))
}

fn quiet() -> Sim {
    sim(&GatewayOptions::default(), Clients::new([], 1))
}

fn endpoint(address: &str) -> Endpoint {
    let address: SocketAddr = address.parse().unwrap();
    let SocketAddr::V4(v4) = address else { panic!() };
    Endpoint { id: EndpointId(v4.ip().octets()[3].into()), address, weight: 1 }
}

#[test]
fn checks_tell_what_is_wrong() {
    let checks = [
        check(1, "10.9.2.2:8080", Probe::Tcp),
        check(2, "10.9.2.2:8081", Probe::Tcp),
        check(3, "10.9.2.99:8080", Probe::Tcp),
        check(4, "192.0.2.1:80", Probe::Tcp),
        check(5, "10.9.2.3:8080", http("/get/5/1", (200, 299))),
        check(6, "10.9.2.3:8080", http("/get/5/1", (500, 599))),
        check(7, "10.9.2.3:8080", http("/silent", (200, 299))),
        check(8, "10.9.2.3:8080", http("/reset", (200, 299))),
        check(9, "10.9.2.3:8080", http("/chunked/70000/3", (200, 200))),
        // A good head is no good answer.
        check(10, "10.9.2.3:8080", http("/die/100", (200, 200))),
        check(11, "10.9.2.3:8080", http("/cut/100", (200, 200))),
        check(12, "10.9.2.3:8080", http("/close/3000/3", (200, 200))),
        check(13, "10.9.2.3:8080", http("/chunked/300/3", (200, 200))),
    ];
    let mut sim = quiet();
    sim.mid.endpoints.publish(table(1, &checks));
    let mut seen: BTreeMap<u32, Vec<Option<CheckFailure>>> = BTreeMap::new();
    sim.run_until(secs(60), |sim| {
        while let Some(report) = sim.mid.reports.pop() {
            seen.entry(report.check.0).or_default().push(report.failure);
        }
        false
    });
    let expected = [
        None,
        Some(CheckFailure::Refused),
        Some(CheckFailure::ConnectTimeout),
        Some(CheckFailure::NoRoute),
        None,
        Some(CheckFailure::Status(200)),
        Some(CheckFailure::Timeout),
        Some(CheckFailure::Reset),
        None,
        Some(CheckFailure::Reset),
        Some(CheckFailure::Closed),
        None,
        None,
    ];
    for (id, expected) in (1..).zip(expected) {
        let of_check = &seen[&id];
        // Twelve in a minute, give or take a tenth and the first one.
        assert!((10..=14).contains(&of_check.len()), "check {id}: {}", of_check.len());
        assert!(of_check.iter().all(|failure| *failure == expected), "check {id}: {of_check:?}");
    }
    // No checks any more, and nothing is left of those that were.
    sim.mid.endpoints.publish(table(2, &[]));
    sim.assert_empty();
}

/// Other endpoints of the table do not disturb the checks' rhythm, and other checks do not reset that of those that stay.
#[test]
fn checks_keep_their_time_over_tables() {
    let first = [check(1, "10.9.2.2:8080", Probe::Tcp), check(2, "10.9.2.3:8080", Probe::Tcp)];
    let mut sim = quiet();
    sim.mid.endpoints.publish(table(1, &first));
    let mut at = Vec::new();
    for version in 2..200 {
        sim.run_until(ms(300), |sim| {
            let now = sim.clock.now();
            at.extend(std::iter::from_fn(|| sim.mid.reports.pop()).filter(|r| r.check.0 == 1).map(|_| now));
            false
        });
        let more: Vec<Check> = if version % 2 == 0 { first.to_vec() } else { first[..1].to_vec() };
        sim.mid.endpoints.publish(table(version, &more));
        sim.mid.endpoints.reclaim();
    }
    assert!((10..=14).contains(&at.len()), "{at:?}");
    for pair in at.windows(2) {
        let gap = pair[1] - pair[0];
        assert!((ms(4_400)..ms(5_600)).contains(&gap), "{gap:?}");
    }
}

/// Each endpoint is checked by one core, also where frames are handed from core to core; a core that starts again goes on with its own.
#[test]
fn several_cores_share_the_checks() {
    for device in [Device::Rss, Device::Single] {
        let options = GatewayOptions::default();
        let clock = Clock::new();
        let (mid, north, south) = Appliance::new(&clock, 4, device, &options);
        let backends = ["10.9.2.2/24", "10.9.2.3/24", "10.9.2.4/24"];
        let north = Host::new(north, &["10.9.1.2/24"], &options.tcp, 1, Clients::new([], 1));
        let mut south = Host::new(south, &backends, &options.tcp, 2, Server::default());
        south.listening = vec![8080];
        let mut sim = World { clock, mid, north, south };
        let checks: Vec<Check> = (0..12).map(|id| check(id, "10.9.2.2:8080", http("/get/5/1", (200, 200)))).collect();
        for publisher in &sim.mid.endpoints {
            publisher.publish(table(1, &checks));
        }
        sim.run(secs(30));
        let mut by_check: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (core, reports) in sim.mid.reports.iter().enumerate() {
            while let Some(report) = reports.pop() {
                assert_eq!(report.failure, None, "{device:?}");
                by_check.entry(report.check.0).or_default().push(core);
            }
        }
        assert_eq!(by_check.len(), 12);
        for (check, cores) in by_check {
            assert!((5..=7).contains(&cores.len()), "{device:?}: check {check}: {cores:?}");
            assert!(cores.iter().all(|&core| core == check as usize % 4), "{device:?}: check {check}: {cores:?}");
        }
    }
}

/// An endpoint goes and comes back without another snapshot, while requests are under way.
#[test]
fn a_table_takes_an_endpoint_out_and_another_brings_it_back() {
    let list = ["10.9.2.2:8080", "10.9.2.3:8080"];
    let options = GatewayOptions { endpoints: list.map(|e| e.parse().unwrap()).into(), ..GatewayOptions::default() };
    let requests = || (0..40).map(|seed| Request::get("get", 2000, seed));
    let mut sim = sim(&options, Clients::new((0..4).map(|_| Plan::new(requests())), 4));
    let only = |version, address: &str| {
        let selection = Arc::new(Selection::round_robin(vec![endpoint(address)]));
        Arc::new(EndpointTable::new(version, 1, vec![Some(selection)], Arc::default()))
    };
    let to = |sim: &Sim, from: usize| -> Vec<u32> {
        sim.mid.log[from..].iter().map(|record| record.endpoint.unwrap().0.0).collect()
    };
    sim.run_until(secs(5), |sim| sim.mid.log.len() >= 20);
    sim.mid.endpoints.publish(only(1, "10.9.2.3:8080"));
    sim.run_until(secs(5), |sim| sim.mid.log.len() >= 80);
    let drained = to(&sim, 30);
    assert!(drained.iter().all(|&endpoint| endpoint == 3), "{drained:?}");
    sim.mid.endpoints.publish(Arc::new(EndpointTable::new(2, 1, vec![None], Arc::default())));
    sim.finish(secs(5));
    sim.assert_good();
    let back = to(&sim, 100);
    let two = back.iter().filter(|&&endpoint| endpoint == 2).count();
    assert!((25..=35).contains(&two), "{two} of {}", back.len());
    sim.assert_empty();
}

/// A table that belongs to another snapshot says nothing about this one's clusters.
#[test]
fn a_table_for_another_snapshot_is_not_obeyed() {
    let mut sim = sim(&GatewayOptions::default(), Clients::new([Plan::new([Request::get("get", 10, 1)])], 1));
    let nobody = Arc::new(Selection::round_robin(vec![]));
    sim.mid.endpoints.publish(Arc::new(EndpointTable::new(1, 7, vec![Some(nobody)], Arc::default())));
    sim.finish(secs(5));
    sim.assert_good();
}

/// A selection without members is BEHAVIOUR.md's 503, at once.
#[test]
fn no_healthy_endpoint_is_a_503() {
    let mut sim = sim(&GatewayOptions::default(), Clients::new([Plan::new([Request::any("/get/1/1")])], 1));
    let nobody = Arc::new(Selection::round_robin(vec![]));
    sim.mid.endpoints.publish(Arc::new(EndpointTable::new(1, 1, vec![Some(nobody)], Arc::default())));
    sim.finish(secs(5));
    assert_eq!(sim.north.app.done[0].responses[0].status(), 503);
    assert!(sim.mid.log[0].duration_ns < Duration::from_millis(10).as_nanos() as u64);
    sim.assert_empty();
}
