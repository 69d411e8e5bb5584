//! Clients, the gateway and backends, all with Millrace's TCP: every byte arrives once and in order, and nothing is left.

use std::time::Duration;

use engine::random::Random;
use pmd::Lane;
use pmd::sim::PathOptions;

use crate::support::client::{Clients, Plan, Request};
use crate::support::gateway::{Gateway, GatewayOptions, Segmentation, world};
use crate::support::host::Host;
use crate::support::server::Server;
use crate::support::{World, for_seeds, ms, secs, us};

pub type Sim = World<Gateway, Host<Clients>, Host<Server>>;

/// Clients, a gateway and a host with three backend addresses.
pub fn sim(options: &GatewayOptions, clients: Clients) -> Sim {
    let backends = ["10.9.2.2/24", "10.9.2.3/24", "10.9.2.4/24"];
    world(
        options,
        |lane| Host::new(lane, &["10.9.1.2/24"], &options.tcp, options.seed ^ 1, clients),
        |lane| {
            let mut host = Host::new(lane, &backends, &options.tcp, options.seed ^ 2, Server::default());
            host.listening = vec![8080];
            host
        },
    )
}

impl Sim {
    /// Lives until all clients are done, which takes less than `limit`.
    #[track_caller]
    pub fn finish(&mut self, limit: Duration) {
        let done = self.run_until(limit, |sim| sim.north.app.is_done());
        assert!(done, "not done after {limit:?}: (id, requests, unsent, partial) {:?}", self.north.app.unfinished());
    }

    /// All responses were as they ought to be.
    #[track_caller]
    pub fn assert_good(&self) {
        let flagged = self.mid.log.iter().filter(|record| !record.detail.is_empty());
        let told: Vec<_> = flagged.map(|r| (r.client, r.status, r.flag, r.detail, r.duration_ns, r.endpoint)).collect();
        for outcome in &self.north.app.done {
            assert!(outcome.good, "{:?}; the access log has {told:?}", summary(outcome));
        }
    }

    /// After all timeouts, nothing is left anywhere.
    #[track_caller]
    pub fn assert_empty(&mut self) {
        self.run(secs(130));
        self.mid.assert_empty();
        self.north.assert_empty();
        self.south.assert_empty();
    }
}

fn summary(outcome: &crate::support::client::Outcome) -> String {
    let heads: Vec<_> = outcome.responses.iter().map(|r| (r.first_line(), r.body.len())).collect();
    format!("connection {} ended {:?}: {heads:?}, partial {:?}", outcome.id, outcome.ended, outcome.partial)
}

/// A path with faults of every kind, in proportion to `loss`.
pub fn faulty(loss: f64) -> PathOptions {
    PathOptions {
        delay: us(50),
        jitter: us(100),
        loss,
        duplication: loss / 2.0,
        corruption: loss / 5.0,
        reordering: loss,
        reorder_delay: us(400),
        ..PathOptions::default()
    }
}

/// A few requests of every kind and size.
pub fn plan(random: &mut Random) -> Plan {
    let mut pick = |n: u64| random.next_u64() % n;
    let count = 1 + pick(4);
    let mut requests = Vec::new();
    for at in 0..count {
        // Every order of magnitude up to 256 KiB.
        let bits = pick(19);
        let len = pick(1 << bits) as usize;
        let seed = pick(1 << 30);
        requests.push(match pick(5) {
            0 => Request::get("get", len, seed),
            1 => Request::get("chunked", len, seed),
            2 => Request::post(len, seed, false),
            3 => Request::post(len, seed, true),
            // After it, the connection is over.
            _ if at + 1 == count => Request::get("close", len, seed),
            _ => Request::get("get", len, seed),
        });
    }
    Plan { pipelined: pick(3) == 0, ..Plan::new(requests) }
}

fn mixed_traffic(seed: u64, loss: f64, connections: usize) -> Sim {
    mixed_traffic_cut_by(Segmentation::Stack, seed, loss, connections)
}

fn mixed_traffic_cut_by(segmentation: Segmentation, seed: u64, loss: f64, connections: usize) -> Sim {
    let mut random = Random::new(seed ^ 0xfeed);
    let options = GatewayOptions {
        seed,
        endpoints: ["10.9.2.2:8080", "10.9.2.3:8080", "10.9.2.4:8080"].map(|e| e.parse().unwrap()).into(),
        segmentation,
        ..GatewayOptions::default()
    };
    // Everybody meets everybody first: an ARP request that is lost three times is an error that clients are told of.
    let first = (0..3).map(|_| Plan::new([Request::get("get", 1, 1)]));
    let mut sim = sim(&options, Clients::new(first, 1));
    sim.finish(secs(1));
    let path = faulty(loss);
    sim.north.port[0].lane_mut().set_path(path.clone());
    sim.south.port[0].lane_mut().set_path(path.clone());
    sim.mid.lane_mut(0).set_path(path.clone());
    sim.mid.lane_mut(1).set_path(path);
    sim.north.app.plans.extend((0..connections).map(|_| plan(&mut random)));
    sim.north.app.at_once = 24;
    sim.run(ms(1));
    sim.finish(secs(300));
    sim.assert_good();
    sim
}

#[test]
fn a_request_goes_through_the_whole_core() {
    let plan = Plan::new([Request::get("get", 1000, 5)]);
    let mut sim = sim(&GatewayOptions::default(), Clients::new([plan], 1));
    sim.finish(secs(5));
    sim.assert_good();
    sim.assert_empty();
}

#[test]
fn every_byte_arrives_once_on_a_perfect_wire() {
    for_seeds(0..40, |seed| mixed_traffic(seed, 0.0, 48).assert_empty());
}

#[test]
fn every_byte_arrives_once_at_1_percent_loss() {
    for_seeds(1000..1040, |seed| mixed_traffic(seed, 0.01, 48).assert_empty());
}

#[test]
fn every_byte_arrives_once_at_5_percent_loss() {
    for_seeds(2000..2040, |seed| mixed_traffic(seed, 0.05, 48).assert_empty());
}

#[test]
fn every_byte_arrives_once_in_segments_that_a_device_cuts() {
    for_seeds(3000..3020, |seed| mixed_traffic_cut_by(Segmentation::Device, seed, 0.0, 48).assert_empty());
    for_seeds(3020..3040, |seed| mixed_traffic_cut_by(Segmentation::Device, seed, 0.01, 48).assert_empty());
}

#[test]
fn every_byte_arrives_once_in_segments_that_nobody_cuts() {
    for_seeds(4000..4020, |seed| mixed_traffic_cut_by(Segmentation::Nobody, seed, 0.0, 48).assert_empty());
    for_seeds(4020..4040, |seed| mixed_traffic_cut_by(Segmentation::Nobody, seed, 0.01, 48).assert_empty());
}

#[test]
fn large_bodies_go_in_few_packets_where_somebody_else_cuts_them() {
    let packets = |segmentation| {
        let options = GatewayOptions { segmentation, ..GatewayOptions::default() };
        let mut sim = sim(&options, Clients::new([Plan::new([Request::get("get", 4 << 20, 5)])], 1));
        sim.finish(secs(60));
        sim.assert_good();
        (sim.mid.counters.segments_sent.read(), sim.south.port[0].lane().counters().tx_packets)
    };
    let (stack, device, nobody) =
        (packets(Segmentation::Stack), packets(Segmentation::Device), packets(Segmentation::Nobody));
    // 4 MiB in segments of 1,460 bytes.
    assert!(stack.0 > 2800 && device.0 < stack.0 / 4, "{stack:?}, {device:?}");
    assert!(device.1 > 2800, "a device that cuts: {device:?}");
    assert!(nobody.0 < stack.0 / 4 && nobody.1 < 700, "{nobody:?}");
}

#[test]
fn the_same_seed_gives_the_same_packets() {
    let digest = |seed| mixed_traffic(seed, 0.05, 12).mid.digest();
    assert_eq!(digest(1), digest(1));
    assert_ne!(digest(1), digest(2));
}
