//! One, two, four and eight cores on the same ports: every flow at one core, nothing overtaken, nothing left.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use engine::random::Random;
use engine::steer::PortPlan;
use pmd::Way;
use pmd::sim::{Clock, PathOptions, Spread};
use tables::{HttpSettings, TcpSettings, Verdict};

use crate::end_to_end::plan;
use crate::support::appliance::{Appliance, Device, Ledger, Shared};
use crate::support::client::{Clients, Plan, Request};
use crate::support::gateway::GatewayOptions;
use crate::support::host::Host;
use crate::support::server::Server;
use crate::support::{World, for_seeds, ms, secs};

pub type Sim = World<Appliance, Host<Clients>, Host<Server>>;

pub fn sim(cores: u16, device: Device, options: &GatewayOptions, clients: Clients) -> Sim {
    let clock = Clock::new();
    surround(clock.clone(), Appliance::new(&clock, cores, device, options), options, clients)
}

fn surround(
    clock: Clock,
    (mid, north, south): (Appliance, pmd::sim::SimLane, pmd::sim::SimLane),
    options: &GatewayOptions,
    clients: Clients,
) -> Sim {
    let hosts = TcpSettings { max_connections: 65_536, max_time_wait: 65_536, ..options.tcp.clone() };
    let backends = ["10.9.2.2/24", "10.9.2.3/24", "10.9.2.4/24"];
    let north = Host::new(north, &["10.9.1.2/24"], &hosts, options.seed ^ 1, clients);
    let mut south = Host::new(south, &backends, &hosts, options.seed ^ 2, Server::default());
    south.listening = vec![8080];
    World { clock, mid, north, south }
}

pub fn options(seed: u64) -> GatewayOptions {
    GatewayOptions {
        seed,
        endpoints: ["10.9.2.2:8080", "10.9.2.3:8080", "10.9.2.4:8080"].map(|e| e.parse().unwrap()).into(),
        ..GatewayOptions::default()
    }
}

impl Sim {
    #[track_caller]
    pub fn finish(&mut self, limit: Duration) {
        let done = self.run_until(limit, |sim| sim.north.app.is_done());
        assert!(done, "not done after {limit:?}: {:?}", self.north.app.unfinished());
        for outcome in &self.north.app.done {
            assert!(outcome.good, "{outcome:?}");
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

/// Some mixed traffic; the world afterwards.
fn traffic(cores: u16, device: Device, seed: u64) -> Sim {
    let mut random = Random::new(seed);
    let plans: Vec<_> = (0..64).map(|_| plan(&mut random)).collect();
    let mut sim = sim(cores, device, &options(seed), Clients::new(plans, 24));
    sim.finish(secs(60));
    sim.assert_empty();
    sim
}

const DEVICES: [Device; 6] =
    [Device::Rss, Device::FalseRss, Device::Rules, Device::FalseRules, Device::Queues, Device::Single];

#[test]
fn every_flow_is_at_one_core_and_in_order() {
    for device in DEVICES {
        for cores in [1, 2, 4, 8] {
            for_seeds(0..2, |seed| traffic(cores, device, seed).mid.assert_in_order());
        }
    }
}

#[test]
fn all_cores_get_clients() {
    for device in DEVICES {
        let sim = traffic(4, device, 9);
        for counters in &sim.mid.counters {
            assert!(counters.connections_opened.read() > 3, "{device:?}");
            assert!(counters.upstream_opened.read() > 0, "{device:?}");
        }
    }
}

#[test]
fn with_a_known_hash_nothing_is_handed_over() {
    for cores in [2, 4, 8] {
        let mut sim = traffic(cores, Device::Rss, 3);
        assert_eq!(sim.mid.ways(0), vec![Way::Rss; usize::from(cores)]);
        let steering = sim.mid.steering();
        assert_eq!((steering.handed_out, steering.strays), (0, 0));
        assert!(steering.copies > 0, "ARP replies go to all");
    }
}

#[test]
fn rules_bring_replies_to_the_core_that_asked() {
    for cores in [2, 4] {
        let mut sim = traffic(cores, Device::Rules, 3);
        assert_eq!(sim.mid.ways(1), vec![Way::Rules; usize::from(cores)]);
        for core in &mut sim.mid.cores {
            let steering = pmd::Lane::steering(core.ports_mut()[1].lane());
            assert_eq!((steering.handed_out, steering.strays), (0, 0), "{steering:?}");
        }
    }
}

#[test]
fn rules_that_the_device_does_not_keep_to_are_found_out() {
    let mut sim = traffic(4, Device::FalseRules, 3);
    assert!(sim.mid.ways(1).contains(&Way::Queues), "{:?}", sim.mid.ways(1));
    assert!(sim.mid.steering().handed_out > 0);
}

#[test]
fn a_hash_that_the_device_does_not_keep_to_is_found_out() {
    let mut sim = traffic(4, Device::FalseRss, 3);
    assert_eq!(sim.mid.ways(0), [Way::Queues; 4]);
    assert_eq!(sim.mid.ways(1), [Way::Queues; 4]);
    assert!(sim.mid.steering().handed_out > 0);
}

#[test]
fn one_queue_serves_any_number_of_cores() {
    let mut sim = traffic(8, Device::Single, 4);
    assert_eq!(sim.mid.ways(0), [Way::Hash; 8]);
    let sent: Vec<u64> =
        sim.mid.cores.iter_mut().map(|core| pmd::Lane::counters(core.ports_mut()[0].lane()).tx_packets).collect();
    assert!(sent[0] > 0 && sent[1..].iter().all(|&sent| sent == 0), "all leave by the one queue: {sent:?}");
}

/// A device that moves everything to the next queue when it is told to.
fn moving(cores: u16, shift: &Rc<Cell<usize>>) -> impl FnMut() -> (PortPlan, Spread) {
    move || {
        let shift = Rc::clone(shift);
        let spread: Spread = Box::new(move |frame| usize::from(*frame.get(35).unwrap_or(&0)) + shift.get());
        (PortPlan { queues: cores, ..PortPlan::default() }, spread)
    }
}

#[test]
fn a_flow_that_moves_to_another_queue_finds_its_core() {
    for cores in [2, 4, 8] {
        let shift = Rc::new(Cell::new(0));
        let (clock, options, ledger) = (Clock::new(), options(6), Shared::<Ledger>::default());
        let made = Appliance::with_spread(&clock, cores, &options, &ledger, moving(cores, &shift));
        let plans = (0..16).map(|i| Plan::new((0..20).map(move |j| Request::get("get", 30_000, i * 100 + j))));
        let mut sim = surround(clock, made, &options, Clients::new(plans, 16));
        for step in 0..40 {
            shift.set(step * 3);
            sim.run(ms(1));
        }
        sim.finish(secs(60));
        let steering = sim.mid.steering();
        assert!(steering.strays > 0);
        assert_eq!(sim.mid.sum(|c| &c.resets_sent), 0, "nobody was taken for a stranger");
        sim.assert_empty();
    }
}

#[test]
fn a_stranger_is_looked_for_by_all_and_reset_by_the_last() {
    let shift = Rc::new(Cell::new(0));
    let (clock, options, ledger) = (Clock::new(), options(6), Shared::<Ledger>::default());
    let made = Appliance::with_spread(&clock, 4, &options, &ledger, moving(4, &shift));
    let mut sim = surround(clock, made, &options, Clients::new([Plan::new([Request::any("/get/1/1")])], 1));
    sim.finish(secs(5));
    let mut frame = vec![0u8; 54];
    frame[..6].copy_from_slice(&crate::support::gateway::NORTH_MAC);
    frame[6..12].copy_from_slice(&crate::support::gateway::CLIENT_MAC);
    frame[12..24].copy_from_slice(&[8, 0, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6]);
    frame[26..34].copy_from_slice(&[10, 9, 1, 2, 10, 9, 1, 1]);
    frame[34..38].copy_from_slice(&[200, 0, 0, 80]);
    frame[46..48].copy_from_slice(&[0x50, 0x10]);
    assert!(pmd::checksum::finish_tcp(&mut frame, 14, 20));
    assert!(pmd::sim::send(sim.north.port[0].lane_mut(), &frame));
    sim.run(ms(20));
    assert_eq!(sim.mid.drops(Verdict::TcpNoConnection), 1);
    assert_eq!(sim.mid.sum(|c| &c.resets_sent), 1);
    assert_eq!(sim.mid.steering().strays, 3);
    sim.assert_empty();
}

#[test]
fn cores_leave_together() {
    use tables::lifecycle::Stage;
    let plans = [Plan::new((0..3).map(|i| Request::get("get", 2_000_000, i)))];
    let path = PathOptions { delay: ms(5), ..PathOptions::default() };
    let mut sim = sim(4, Device::Single, &GatewayOptions { path, ..options(2) }, Clients::new(plans, 1));
    sim.run(ms(100));
    sim.mid.lifecycles.iter().for_each(|lifecycle| lifecycle.advance(Stage::Draining));
    sim.run(ms(20));
    let stages = |sim: &Sim| sim.mid.lifecycles.iter().map(|l| l.stage()).collect::<Vec<_>>();
    assert_eq!(stages(&sim), [Stage::Draining; 4], "one is still served, by the queue of another");
    assert!(sim.run_until(secs(60), |sim| stages(sim) == [Stage::Stopped; 4]));
    assert_eq!(sim.north.app.done[0].responses.len(), 1);
}

#[test]
fn a_limit_is_all_cores_together_however_uneven() {
    // All clients at one core, or by hash.
    for device in [Device::Queues, Device::Single] {
        let tcp = TcpSettings { max_connections: 100, ..options(1).tcp };
        let plans = (0..600).map(|i| Plan::new([Request::get("get", 20_000, i)]));
        let options = GatewayOptions { tcp: tcp.clone(), ..options(8) };
        let clock = Clock::new();
        let (mid, north, south) = Appliance::new(&clock, 4, device, &options);
        let clients = Clients::new(plans, 300);
        let hosts = GatewayOptions { tcp: TcpSettings { max_connections: 4096, ..tcp }, ..options.clone() };
        let mut sim = surround(clock, (mid, north, south), &hosts, clients);
        let mut most = 0;
        sim.run_until(secs(30), |sim| {
            let live: u64 = sim.mid.cores.iter().map(|core| u64::from(core.connections())).sum();
            assert!(live <= 100, "{live} connections");
            most = most.max(live);
            sim.north.app.is_done()
        });
        // Four cores take one unit at a time here: they may hold three unused.
        assert!(most >= 97, "only {most} connections");
        assert!(sim.mid.drops(Verdict::ConnectionLimit) > 0);
        sim.assert_empty();
    }
}

/// All clients of `cores` cores arrive at the first one, and want so many responses of one endpoint at a time. The most connections that were open to it.
fn skewed(cores: u16, at_once: usize, http: HttpSettings) -> (Sim, u64) {
    let options = GatewayOptions {
        endpoints: vec!["10.9.2.2:8080".parse().unwrap()],
        path: PathOptions { delay: ms(5), ..PathOptions::default() },
        http,
        ..options(cores.into())
    };
    let clock = Clock::new();
    let device = || (PortPlan { queues: cores, ..PortPlan::default() }, Box::new(|_: &[u8]| 0usize) as Spread);
    let made = Appliance::with_spread(&clock, cores, &options, &Shared::<Ledger>::default(), device);
    let plans = (0..300).map(|i| Plan::new((0..2).map(|j| Request::get("get", 20_000, i * 2 + j))));
    let mut sim = surround(clock, made, &options, Clients::new(plans, at_once));
    let mut most = 0;
    let done = sim.run_until(secs(60), |sim| {
        most = most.max(sim.mid.sum(|counters| &counters.upstream_open));
        sim.north.app.is_done()
    });
    assert!(done, "{:?}", sim.north.app.unfinished());
    let elsewhere: u64 = sim.mid.counters.iter().skip(1).map(|counters| counters.requests_started.read()).sum();
    assert_eq!(elsewhere, 0, "the other cores have nothing to do");
    (sim, most)
}

#[test]
fn a_busy_core_has_the_backend_connections_that_the_others_leave() {
    for cores in [2, 4, 8] {
        // Divided, it would be 24, 12 and 6 for the one that is busy. Each other core keeps one.
        let http = HttpSettings { max_per_endpoint: 48, ..HttpSettings::default() };
        let at_once = 48 - (usize::from(cores) - 1);
        let (mut sim, most) = skewed(cores, at_once, http.clone());
        sim.finish(secs(1));
        assert!(most > 24 && most <= 48, "{most} connections");
        sim.assert_empty();
        // With more clients than connections some are refused, and no connection is one too many.
        let (mut sim, most) = skewed(cores, 96, http);
        let refused = sim.north.app.done.iter().filter(|outcome| !outcome.good).count();
        assert!(refused > 0, "nobody was refused");
        assert!(most as usize <= at_once, "{most} connections");
        sim.assert_empty();
    }
}

#[test]
fn a_busy_core_keeps_the_idle_connections_that_the_others_leave() {
    for cores in [2, 4, 8] {
        // Divided, it would be 16, 8 and 4.
        let http = HttpSettings { idle_per_endpoint: 32, ..HttpSettings::default() };
        let kept = 32 - (u64::from(cores) - 1);
        let (mut sim, _) = skewed(cores, 64, http);
        sim.finish(secs(1));
        sim.run(secs(1));
        assert_eq!(sim.mid.sum(|counters| &counters.upstream_idle), kept, "{cores} cores");
        sim.assert_empty();
    }
}

#[test]
fn a_core_that_starts_again_takes_its_place_and_its_share() {
    let tcp = TcpSettings { max_connections: 100, ..options(1).tcp };
    let options = GatewayOptions { tcp, ..options(4) };
    let clock = Clock::new();
    let made = Appliance::new(&clock, 2, Device::Single, &options);
    let hosts = GatewayOptions { tcp: TcpSettings { max_connections: 4096, ..options.tcp.clone() }, ..options };
    let plans = (0..16).map(|i| Plan::new((0..2000).map(move |j| Request::get("get", 100, i * 100 + j))));
    let mut sim = surround(clock, made, &hosts, Clients::new(plans, 16));
    for index in [1, 0] {
        sim.run(ms(20));
        assert!(sim.mid.cores[index].connections() > 0, "it has something to lose");
        sim.mid.restart(index);
    }
    sim.run_until(secs(30), |sim| sim.north.app.is_done());
    let (whole, lost): (Vec<_>, Vec<_>) = sim.north.app.done.drain(..).partition(|outcome| outcome.good);
    assert!(!lost.is_empty() && whole.len() + lost.len() == 16, "{} and {}", whole.len(), lost.len());
    // What they had of the limit was not lost with them.
    sim.run(secs(130));
    assert_eq!(sim.mid.cores.iter().map(|core| core.connections()).sum::<u32>(), 0);
    sim.north.app.plans.extend((0..400).map(|i| Plan::new([Request::get("get", 20_000, i)])));
    sim.north.app.at_once = 200;
    let mut most = 0;
    sim.run_until(secs(30), |sim| {
        most = most.max(sim.mid.cores.iter().map(|core| core.connections()).sum());
        sim.north.app.is_done()
    });
    assert!((95..=100).contains(&most), "{most} connections at a time");
}

/// Connections that are opened and closed in a debug build; `MILLRACE_SIM_CONNECTIONS` says how many otherwise.
const CONNECTIONS: u64 = 20_000;

#[test]
fn a_million_connections_leave_nothing_behind() {
    let count = std::env::var("MILLRACE_SIM_CONNECTIONS").map_or(CONNECTIONS, |n| n.parse().expect("a number"));
    let tcp = TcpSettings { max_time_wait: 65_536, time_wait: ms(200), ..options(1).tcp };
    let options = GatewayOptions { tcp, ..options(5) };
    let clock = Clock::new();
    let (mid, north, south) = Appliance::new(&clock, 4, Device::Single, &options);
    mid.ledger.borrow_mut().off = true;
    let mut sim = surround(clock, (mid, north, south), &options, Clients::new([], 512));
    let mut made = 0;
    let mut done = 0;
    while made < count {
        let batch = (count - made).min(10_000);
        sim.north.app.plans.extend((0..batch).map(|i| Plan::new([Request::any(&format!("/last/{i}"))])));
        made += batch;
        sim.finish(secs(600));
        done += sim.north.app.done.drain(..).count() as u64;
        sim.south.app.requests.clear();
        sim.mid.log.clear();
    }
    assert_eq!(done, count);
    assert_eq!(sim.mid.sum(|c| &c.connections_opened), count);
    assert_eq!(sim.mid.sum(|c| &c.upstream_opened), count, "each answer was its connection's last");
    sim.assert_empty();
}
