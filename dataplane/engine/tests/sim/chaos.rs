//! Everything at once, from seeds: whatever clients, backends and wires do, nothing hangs and nothing is left.

use std::net::SocketAddr;

use engine::random::Random;
use pmd::sim::PathOptions;

use crate::end_to_end::{Sim, faulty, plan, sim};
use crate::support::client::{Clients, Leave, Plan, Request};
use crate::support::gateway::GatewayOptions;
use crate::support::{for_seeds, ms, secs};

/// A connection that may do anything.
fn any_plan(random: &mut Random) -> Plan {
    let mut plan = plan(random);
    let mut pick = |n: u64| random.next_u64() % n;
    if pick(3) == 0 {
        let how = [Leave::Reset, Leave::Close, Leave::ShutDown][pick(3) as usize];
        plan.leaves = Some((pick(30) as usize, how));
    }
    if pick(3) == 0 {
        let size = pick(100_000);
        let path = match pick(6) {
            0 => format!("/die/{size}"),
            1 => format!("/cut/{size}"),
            2 => "/reset".to_owned(),
            3 => "/silent".to_owned(),
            _ => "/last".to_owned(),
        };
        let at = pick(plan.requests.len() as u64 + 1) as usize;
        plan.requests.insert(at, Request::any(&path));
    }
    if pick(8) == 0 {
        plan.sip = Some(pick(3000) as usize);
    }
    plan
}

fn any_endpoints(random: &mut Random) -> Vec<SocketAddr> {
    // The first three serve; then a closed port, and an address that nobody has.
    let all = ["10.9.2.2:8080", "10.9.2.3:8080", "10.9.2.4:8080", "10.9.2.4:81", "10.9.2.9:8080"];
    let mut list: Vec<SocketAddr> = all.iter().map(|e| e.parse().unwrap()).collect();
    list.retain(|_| !random.next_u64().is_multiple_of(3));
    list
}

fn chaos(seed: u64) -> Sim {
    let mut random = Random::new(seed ^ 0xc0de);
    let mut options = GatewayOptions { seed, endpoints: any_endpoints(&mut random), ..GatewayOptions::default() };
    let mut pick = |n: u64| random.next_u64() % n;
    options.path = faulty([0.0, 0.01, 0.05, 0.15][pick(4) as usize]);
    options.pool = [65_536, 40][pick(2) as usize];
    options.tx_ring = [1024, 8][pick(2) as usize];
    let buffer = [65_536, 8192, 3000][pick(3) as usize];
    (options.tcp.receive_buffer, options.tcp.send_buffer) = (buffer, buffer);
    // Odd ones too: stack time and real time then have no common unit.
    options.tcp.client_time_scale = [1, 3, 5, 7][pick(4) as usize];
    options.tcp.backend_time_scale = [1, 7, 10, 13][pick(4) as usize];
    options.tcp.max_connections = [4096, 20][pick(2) as usize];
    options.tcp.max_time_wait = [4096, 5][pick(2) as usize];
    options.http.response_timeout = secs(3);
    options.http.body_timeout = secs(4);
    options.http.idle_per_endpoint = [256, 1][pick(2) as usize];
    options.http.upstream_idle_timeout = [secs(55), ms(20)][pick(2) as usize];
    options.http.request_timeout = [None, Some(secs(2))][pick(2) as usize];
    let plans: Vec<Plan> = (0..60).map(|_| any_plan(&mut random)).collect();
    let mut sim = sim(&options, Clients::new(plans, 30));
    // The hosts have the memory that the gateway may lack.
    for epoch in 2..20 {
        sim.run(ms(10));
        if random.next_u64().is_multiple_of(4) {
            sim.mid.publish(epoch, &any_endpoints(&mut random));
        }
        if random.next_u64().is_multiple_of(10) {
            let port = (random.next_u64() % 2) as usize;
            let path = sim.mid.lane(port).path();
            sim.mid.lane_mut(port).set_path(PathOptions { loss: 1.0, ..path.clone() });
            sim.run(ms(300));
            sim.mid.lane_mut(port).set_path(path);
        }
    }
    sim.finish(secs(400));
    sim
}

#[test]
fn nothing_hangs_and_nothing_is_left() {
    for_seeds(0..60, |seed| chaos(seed).assert_empty());
}
