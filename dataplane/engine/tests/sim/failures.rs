//! What goes wrong at backends, at clients and on the wires, and what the other side is told.

use std::time::Duration;

use pmd::sim::PathOptions;
use tables::access::{AccessLevel, Flag};
use tables::{HttpSettings, Verdict};

use crate::end_to_end::{Sim, sim};
use crate::support::client::{Clients, Outcome, Plan, Request};
use crate::support::gateway::GatewayOptions;
use crate::support::server::ANNOUNCED;
use crate::support::{ms, secs};

/// Runs one connection with these requests to its end.
fn one(options: &GatewayOptions, requests: impl IntoIterator<Item = Request>) -> (Sim, Outcome) {
    let mut sim = sim(options, Clients::new([Plan::new(requests)], 1));
    sim.finish(secs(100));
    let outcome = sim.north.app.done[0].clone();
    (sim, outcome)
}

fn endpoints(list: &[&str]) -> GatewayOptions {
    GatewayOptions { endpoints: list.iter().map(|e| e.parse().unwrap()).collect(), ..GatewayOptions::default() }
}

fn statuses(outcome: &Outcome) -> Vec<u16> {
    outcome.responses.iter().map(|response| response.status()).collect()
}

#[test]
fn a_backend_that_resets_before_its_head_is_a_502() {
    let (mut sim, outcome) = one(&endpoints(&["10.9.2.2:8080"]), [Request::any("/reset")]);
    assert_eq!(statuses(&outcome), [502]);
    assert_eq!((sim.mid.log[0].flag, sim.mid.log[0].status), (Flag::BackendReset, 502));
    sim.assert_empty();
}

/// BEHAVIOUR.md: never a reply that looks complete, whether the backend dies with a RST or a FIN.
#[test]
fn a_backend_that_dies_in_the_body_cuts_the_response_short() {
    for path in ["/die/50000", "/cut/50000", "/die/1", "/cut/0"] {
        let (mut sim, outcome) = one(&endpoints(&["10.9.2.2:8080"]), [Request::any(path)]);
        assert!(outcome.responses.is_empty(), "{path}");
        let (head, got) = outcome.partial.clone().expect(path);
        assert!(head.contains(&format!("{ANNOUNCED}")), "{head}");
        let sent: usize = path[5..].parse().unwrap();
        assert!(got <= sent, "{path}: {got}");
        assert_eq!(sim.mid.log[0].flag, Flag::BackendTruncated, "{path}");
        sim.assert_empty();
    }
}

/// Port 8081 of the first endpoint is closed: the request goes to the other one.
#[test]
fn a_refused_connection_is_tried_elsewhere() {
    let options = endpoints(&["10.9.2.2:8081", "10.9.2.3:8080"]);
    let plans = (0..10).map(|seed| Plan::new([Request::get("get", 100, seed)]));
    let mut sim = sim(&options, Clients::new(plans, 10));
    sim.finish(secs(5));
    sim.assert_good();
    assert!(sim.mid.counters.upstream_failed.read() >= 4);
    assert!(sim.mid.log.iter().any(|record| record.attempt > 0));
    sim.assert_empty();
}

#[test]
fn refused_everywhere_is_a_502() {
    let options = endpoints(&["10.9.2.2:8081", "10.9.2.3:8081"]);
    let (mut sim, outcome) = one(&options, [Request::any("/get/1/1"), Request::any("/get/1/1")]);
    assert_eq!(statuses(&outcome), [502, 502], "on one connection: it was no fault of the client's");
    assert_eq!(sim.mid.log[0].flag, Flag::ConnectFailed);
    assert_eq!(sim.mid.counters.upstream_failed.read(), 6);
    sim.assert_empty();
}

/// Nobody has that address.
#[test]
fn an_endpoint_that_is_not_there_is_a_504() {
    let (mut sim, outcome) = one(&endpoints(&["10.9.2.99:8080"]), [Request::any("/get/1/1")]);
    assert_eq!(statuses(&outcome), [504]);
    assert_eq!(sim.mid.log[0].flag, Flag::ConnectTimeout);
    assert!(sim.mid.log[0].duration_ns < 15_500_000_000, "{}", sim.mid.log[0].duration_ns);
    assert!(sim.mid.drops(Verdict::NeighborUnresolved) > 0);
    sim.assert_empty();
}

/// Neighbors that are given up in the same moment: all of their connections fail then, and none waits for the connect timeout.
#[test]
fn endpoints_that_are_given_up_together_fail_together() {
    let options = endpoints(&["10.9.2.97:8080", "10.9.2.98:8080", "10.9.2.99:8080"]);
    let plans = (0..3).map(|_| Plan::new([Request::any("/get/1/1")]));
    let mut sim = sim(&options, Clients::new(plans, 3));
    sim.finish(secs(100));
    assert_eq!(sim.mid.log.len(), 3);
    for record in &sim.mid.log {
        // Three endpoints, three questions each, a second apart; the connect timeout would be five seconds each.
        assert!(record.duration_ns < 12_000_000_000, "{}", record.duration_ns);
    }
    sim.assert_empty();
}

/// The wire to the backends eats everything after they were met.
#[test]
fn an_endpoint_that_does_not_answer_is_a_504() {
    let mut sim = sim(&endpoints(&["10.9.2.2:8080"]), Clients::new([Plan::new([Request::any("/last")])], 1));
    sim.finish(secs(5));
    sim.mid.lane_mut(1).set_path(PathOptions { loss: 1.0, ..PathOptions::default() });
    let start = sim.clock.now();
    sim.north.app.plans.push_back(Plan::new([Request::any("/get/1/1")]));
    sim.run(ms(1));
    sim.finish(secs(30));
    assert_eq!(statuses(&sim.north.app.done[1]), [504]);
    let took = sim.clock.now() - start;
    assert!((secs(1)..secs(16)).contains(&took), "{took:?}");
    assert_eq!(sim.mid.log[1].flag, Flag::ConnectTimeout);
    sim.assert_empty();
}

#[test]
fn a_backend_that_says_nothing_is_a_504() {
    let (mut sim, outcome) = one(&endpoints(&["10.9.2.2:8080"]), [Request::any("/silent")]);
    assert_eq!(statuses(&outcome), [504]);
    assert_eq!(sim.mid.log[0].flag, Flag::BackendTimeout);
    assert!((59_900_000_000..60_200_000_000).contains(&sim.mid.log[0].duration_ns));
    sim.assert_empty();
}

/// RFC 9112 §9.3.1: a pooled connection that the backend closed meanwhile costs the client nothing.
#[test]
fn a_pooled_connection_that_died_is_replaced() {
    let options = endpoints(&["10.9.2.2:8080"]);
    let plan = Plan::new([Request::get("get", 10, 1)]);
    let mut sim = sim(&options, Clients::new([plan.clone()], 1));
    sim.finish(secs(5));
    sim.run(secs(1));
    assert_eq!(sim.mid.counters.upstream_idle.read(), 1);
    // The backend restarts without a word: it knows no connection any more, and resets what comes.
    sim.south.stack = engine::stack::Stack::new(&options.tcp, engine::random::Random::new(99));
    sim.north.app.plans.push_back(plan);
    sim.finish(secs(5));
    sim.assert_good();
    assert_eq!(sim.mid.counters.upstream_replayed.read(), 1);
    sim.assert_empty();
}

/// What is not idempotent is never sent twice (RFC 9110 §9.2.2).
#[test]
fn a_post_on_a_pooled_connection_that_died_is_not_repeated() {
    let options = endpoints(&["10.9.2.2:8080"]);
    let mut sim = sim(&options, Clients::new([Plan::new([Request::get("get", 10, 1)])], 1));
    sim.finish(secs(5));
    sim.run(secs(1));
    sim.south.stack = engine::stack::Stack::new(&options.tcp, engine::random::Random::new(99));
    sim.north.app.plans.push_back(Plan::new([Request::post(10, 1, false)]));
    sim.run(ms(1));
    sim.finish(secs(5));
    assert_eq!(statuses(&sim.north.app.done[1]), [502]);
    assert_eq!(sim.mid.counters.upstream_replayed.read(), 0);
    sim.assert_empty();
}

/// A client that reads slowly holds up its backend and nothing else: the gateway takes no more than its buffers hold.
#[test]
fn a_slow_reader_meets_back_pressure() {
    let slow = Plan { sip: Some(1000), ..Plan::new([Request::get("get", 2_000_000, 1)]) };
    let mut sim = sim(&endpoints(&["10.9.2.2:8080"]), Clients::new([slow], 1));
    sim.run(ms(200));
    assert!(!sim.north.app.is_done());
    // What the backend could get rid of is what the client took, and what four buffers of 64 KiB hold on the way.
    let taken = sim.mid.counters.ports[1].rx_bytes.read();
    let passed = sim.mid.counters.ports[0].tx_bytes.read();
    assert!(taken < passed + 3 * 65_536, "{taken} came from the backend, {passed} went to the client");
    // Others are served at their own speed.
    sim.north.app.at_once = 2;
    sim.north.app.plans.push_back(Plan::new([Request::get("get", 300_000, 2)]));
    assert!(sim.run_until(secs(2), |sim| !sim.north.app.done.is_empty()));
    assert!(sim.north.app.done[0].good);
}

/// BEHAVIOUR.md: a reader that takes nothing for 30 s is reset, and its backend is told.
#[test]
fn a_reader_that_stops_is_cut_off() {
    let stopped = Plan { sip: Some(0), ..Plan::new([Request::get("get", 2_000_000, 1)]) };
    let mut sim = sim(&endpoints(&["10.9.2.2:8080"]), Clients::new([stopped], 1));
    sim.finish(secs(70));
    assert_eq!(sim.mid.log.len(), 1);
    assert_eq!(sim.mid.log[0].flag, Flag::ClientTimeout);
    sim.assert_empty();
}

/// A client that vanishes in the middle of a request is found out, and the backend connection ends with it.
#[test]
fn a_client_that_vanishes_is_found_out() {
    let mut sim = sim(&endpoints(&["10.9.2.2:8080"]), Clients::new([Plan::new([Request::any("/silent")])], 1));
    sim.run(ms(10));
    assert_eq!(sim.mid.counters.requests_active.read(), 1);
    sim.mid.lane_mut(0).set_path(PathOptions { loss: 1.0, ..PathOptions::default() });
    let wire = PathOptions { loss: 1.0, ..PathOptions::default() };
    engine_lane(&mut sim).set_path(wire);
    sim.run(secs(70));
    assert_eq!(sim.mid.counters.requests_active.read(), 0);
    assert_eq!(sim.mid.log.len(), 1);
    sim.run(secs(130));
    sim.mid.assert_empty();
    sim.south.assert_empty();
}

fn engine_lane(sim: &mut Sim) -> &mut pmd::sim::SimLane {
    sim.north.port[0].lane_mut()
}

/// BEHAVIOUR.md, the host: an empty pool drops and counts, and passes. No connection is lost.
#[test]
fn an_empty_pool_passes() {
    let options = GatewayOptions { pool: 12, ..endpoints(&["10.9.2.2:8080"]) };
    let plans = (0..30).map(|seed| Plan::new([Request::get("get", 100_000, seed), Request::post(100_000, seed, true)]));
    let mut sim = sim(&options, Clients::new(plans, 30));
    sim.finish(secs(200));
    sim.assert_good();
    let empty: u64 = sim.mid.counters.ports.iter().map(|port| port.pool_empty.read()).sum();
    assert!(empty > 0, "the pool never ran dry");
    sim.assert_empty();
}

/// BEHAVIOUR.md, the host: so does a full tx ring.
#[test]
fn a_full_tx_ring_passes() {
    let options = GatewayOptions { tx_ring: 6, ..endpoints(&["10.9.2.2:8080"]) };
    let plans = (0..30).map(|seed| Plan::new([Request::get("get", 100_000, seed), Request::post(100_000, seed, true)]));
    let mut sim = sim(&options, Clients::new(plans, 30));
    sim.finish(secs(200));
    sim.assert_good();
    let full: u64 = sim.mid.counters.ports.iter().map(|port| port.tx_full.read()).sum();
    assert!(full > 0, "the ring was never full");
    sim.assert_empty();
}

/// BEHAVIOUR.md, the host: connections outlive their link for a while.
#[test]
fn a_link_that_goes_and_comes_loses_nothing() {
    for port in [0, 1] {
        let plans =
            (0..8).map(|seed| Plan::new([Request::get("get", 300_000, seed), Request::post(200_000, seed, false)]));
        let mut sim = sim(&endpoints(&["10.9.2.2:8080"]), Clients::new(plans, 8));
        sim.run(ms(2));
        sim.mid.lane_mut(port).set_link(false);
        sim.run(secs(5));
        assert!(!sim.north.app.is_done());
        sim.mid.lane_mut(port).set_link(true);
        sim.finish(secs(60));
        sim.assert_good();
        sim.assert_empty();
    }
}

/// More clients at once than connections are allowed: those that are too many wait for their SYN's next turn.
#[test]
fn more_clients_than_connections() {
    let mut options = endpoints(&["10.9.2.2:8080", "10.9.2.3:8080"]);
    options.tcp.max_connections = 40;
    let plans = (0..200).map(|seed| Plan::new([Request::get("get", 1000, seed)]));
    let mut sim = sim(&options, Clients::new(plans, 30));
    sim.finish(secs(100));
    let good = sim.north.app.done.iter().filter(|outcome| outcome.good).count();
    let refused = sim.mid.log.iter().filter(|record| record.status == 503).count();
    assert_eq!(good + refused, 200, "served, or told that there is no room");
    assert!(good > 100, "{good}");
    sim.assert_empty();
}

/// A reload in the middle of traffic touches no connection.
#[test]
fn tables_change_under_traffic() {
    let options = endpoints(&["10.9.2.2:8080"]);
    let plans = (0..60).map(|seed| Plan::new((0..5).map(|n| Request::get("chunked", 20_000, seed * 10 + n))));
    let mut sim = sim(&options, Clients::new(plans, 20));
    for epoch in 2..40u64 {
        sim.run(ms(1));
        let endpoint = format!("10.9.2.{}:8080", 2 + epoch % 3).parse().unwrap();
        sim.mid.publish(epoch, &[endpoint]);
    }
    sim.finish(secs(60));
    sim.assert_good();
    sim.mid.publisher.reclaim();
    assert_eq!(sim.mid.publisher.acknowledged(), 39);
    sim.assert_empty();
}

/// A drain lets what runs finish, and then the core stops.
#[test]
fn a_drain_loses_nothing() {
    use tables::lifecycle::Stage;
    let plans = (0..20).map(|seed| Plan::new([Request::get("get", 250_000, seed)]));
    let mut sim = sim(&endpoints(&["10.9.2.2:8080"]), Clients::new(plans, 20));
    assert!(sim.run_until(secs(5), |sim| sim.mid.counters.requests_started.read() == 20));
    sim.mid.lifecycle.advance(Stage::Draining);
    sim.finish(secs(20));
    sim.assert_good();
    assert!(sim.run_until(secs(20), |sim| sim.mid.lifecycle.stage() == Stage::Stopped));
    // Whoever comes now is refused.
    sim.north.app.plans.push_back(Plan::new([Request::any("/get/1/1")]));
    sim.run(ms(1));
    sim.finish(secs(10));
    assert!(!sim.north.app.done[20].good);
    sim.assert_empty();
}

/// A drain does not wait for clients that are gone: with the answer on its way, nobody is left who would acknowledge it.
#[test]
fn a_drain_does_not_wait_for_who_is_gone() {
    use tables::lifecycle::Stage;
    let plans = (0..20).map(|seed| Plan::new([Request::get("get", 20_000, seed)]));
    let mut sim = sim(&endpoints(&["10.9.2.2:8080"]), Clients::new(plans, 20));
    assert!(sim.run_until(secs(5), |sim| sim.mid.counters.requests_started.read() == 20));
    let gone = PathOptions { loss: 1.0, ..PathOptions::default() };
    sim.mid.lane_mut(0).set_path(gone.clone());
    engine_lane(&mut sim).set_path(gone);
    // The responses end here, and lie in the send buffers.
    assert!(sim.run_until(secs(1), |sim| sim.mid.counters.requests_active.read() == 0));
    sim.mid.lifecycle.advance(Stage::Draining);
    let began = sim.now();
    assert!(sim.run_until(secs(30), |sim| sim.mid.lifecycle.stage() == Stage::Stopped));
    let took = Duration::from_nanos(sim.now().since(began));
    assert!((secs(4)..secs(7)).contains(&took), "{took:?}");
    assert_eq!(sim.mid.counters.connections_open.read(), 0);
}

/// Whoever goes on acknowledging gets all of it, however slowly.
#[test]
fn a_drain_waits_for_who_is_slow() {
    use tables::lifecycle::Stage;
    let path = PathOptions { delay: ms(1500), ..PathOptions::default() };
    let options = GatewayOptions { path, ..endpoints(&["10.9.2.2:8080"]) };
    let plans = (0..5).map(|seed| Plan::new([Request::get("get", 60_000, seed)]));
    let mut sim = sim(&options, Clients::new(plans, 5));
    assert!(sim.run_until(secs(60), |sim| sim.mid.counters.requests_finished.read() == 5));
    sim.mid.lifecycle.advance(Stage::Draining);
    sim.finish(secs(30));
    sim.assert_good();
    assert!(sim.run_until(secs(30), |sim| sim.mid.lifecycle.stage() == Stage::Stopped));
}

/// Connections one after another and a few at a time leave nothing behind, neither ports nor memory.
#[test]
fn twenty_thousand_short_connections() {
    let mut options = endpoints(&["10.9.2.2:8080", "10.9.2.3:8080", "10.9.2.4:8080"]);
    options.tcp.max_time_wait = 65_536;
    options.http = HttpSettings { access: AccessLevel::All, ..options.http };
    let plans = (0..20_000).map(|n| {
        let request = if n % 2 == 0 { Request::any("/last") } else { Request::get("get", 64, n) };
        Plan::new([request])
    });
    let mut sim = sim(&options, Clients::new(plans, 8));
    sim.finish(secs(600));
    sim.assert_good();
    assert_eq!(sim.mid.counters.connections_opened.read(), 20_000);
    assert_eq!(sim.mid.counters.requests_finished.read(), 20_000);
    assert!(sim.mid.counters.upstream_opened.read() >= 10_000);
    sim.assert_empty();
}
