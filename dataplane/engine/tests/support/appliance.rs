//! Several cores between two wires, turned one after the other on one thread.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use engine::clock::Instant;
use engine::core::{Core, CoreInput};
use engine::steer::{Place, PortPlan, Rss, Rules, Steered, places};
use ipnet::IpNet;
use pmd::sim::{Clock, EndOptions, SimFrame, SimLane, SimQueue, Spread, WireOptions, nic, wire};
use pmd::{Burst, Frame, Lane, LaneCounters, PortSet, Steering, TxChecksum, Way};
use tables::access::AccessRecord;
use tables::endpoints::Reports;
use tables::lifecycle::Lifecycle;
use tables::publish::{Publisher, slot};
use tables::*;

use super::Party;
use super::gateway::{BACKEND_MAC, CLIENT_MAC, GatewayOptions, NORTH_MAC, SOUTH_MAC, fnv, snapshot};

/// How the devices spread flows over the cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// By the hash that they tell.
    Rss,
    /// They tell a hash, and spread by another.
    FalseRss,
    /// By a hash that they do not tell, but for addresses that they have rules for.
    Rules,
    /// They take rules, and do not keep to them.
    FalseRules,
    /// By a hash that they do not tell.
    Queues,
    /// One queue for all.
    Single,
}

/// Frames of each flow, by addresses and ports as on the wire: where and in which order.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Nothing is noted: for runs that are too long for that.
    pub off: bool,
    arrived: BTreeMap<Vec<u8>, Vec<u64>>,
    delivered: BTreeMap<Vec<u8>, Vec<(u16, u64)>>,
}

pub type Shared<T> = Rc<RefCell<T>>;

/// Notes what a core receives.
pub struct Watched {
    lane: Steered<SimQueue>,
    core: u16,
    ledger: Shared<Ledger>,
}

/// All cores and what surrounds them.
pub struct Appliance {
    pub cores: Vec<Core<Watched>>,
    pub counters: Vec<Arc<CoreCounters>>,
    pub lifecycles: Vec<Arc<Lifecycle>>,
    pub ledger: Shared<Ledger>,
    pub log: Vec<AccessRecord>,
    access: Arc<ArrayQueue<AccessRecord>>,
    publishers: Vec<Publisher<Snapshot>>,
    pub endpoints: Vec<Publisher<EndpointTable>>,
    pub reports: Vec<Reports>,
    places: Vec<Place>,
    options: GatewayOptions,
    /// Further addresses of the south port.
    ruled: u16,
    series: Vec<Arc<Series>>,
    /// The core that turns first.
    first: usize,
}

/// What tells one flow from another, and a frame's hash; `None` where it is no TCP over IPv4.
fn flow(frame: &[u8]) -> Option<(Vec<u8>, u64)> {
    (frame.get(12..14)? == [8, 0] && *frame.get(23)? == 6).then(|| (frame[26..38].to_vec(), fnv(0, frame)))
}

fn settings(options: &GatewayOptions, ruled: u16) -> CoreSettings {
    let port = |name: &str, address: &str| PortSettings::untagged(name, vec![address.parse().unwrap()]);
    let mut south = port("south", "10.9.2.1/24");
    south.interfaces[0].addresses.extend(own(ruled));
    CoreSettings { ports: vec![port("north", "10.9.1.1/24"), south], tcp: options.tcp.clone() }
}

fn key() -> Vec<u8> {
    (0..40).map(|i: u8| i.wrapping_mul(73) ^ 0x5a).collect()
}

fn spread(device: Device, cores: u16, ledger: &Shared<Ledger>) -> (PortPlan, Spread) {
    let table: Vec<u16> = (0..128).map(|i| i % cores).collect();
    let rss = Rss::new(&key(), &table).unwrap();
    let ledger = Rc::clone(ledger);
    let note = move |frame: &[u8]| {
        let seen = flow(frame);
        if let Some((flow, id)) = seen.clone().filter(|_| !ledger.borrow().off) {
            ledger.borrow_mut().arrived.entry(flow).or_default().push(id);
        }
        seen
    };
    let told = matches!(device, Device::Rss | Device::FalseRss).then(|| rss.clone());
    let queues = if device == Device::Single { 1 } else { cores };
    let spread: Spread = match device {
        Device::Rss => Box::new(move |frame| {
            let Some((_, _)) = note(frame) else { return 0 };
            let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
            let ip = |at: usize| <[u8; 4]>::try_from(&frame[at..at + 4]).unwrap();
            rss.queue((ip(26), port(34)).into(), (ip(30), port(36)).into()).unwrap().into()
        }),
        Device::Rules => Box::new(move |frame| {
            let Some((flow, _)) = note(frame) else { return 0 };
            let to = IpAddr::from(<[u8; 4]>::try_from(&frame[30..34]).unwrap());
            let rule = rules(cores).queues().find(|(address, _)| *address == to);
            rule.map_or(fnv(77, &flow) as usize >> 7, |(_, queue)| queue.into())
        }),
        Device::FalseRss | Device::FalseRules | Device::Queues => Box::new(move |frame| match note(frame) {
            Some((flow, _)) => fnv(77, &flow) as usize >> 7,
            None => 0,
        }),
        Device::Single => Box::new(move |frame| {
            note(frame);
            0
        }),
    };
    let rules = matches!(device, Device::Rules | Device::FalseRules).then(|| rules(cores));
    (PortPlan { queues, rss: told, rules }, spread)
}

/// Further addresses of the south port, for rules.
fn own(cores: u16) -> Vec<IpNet> {
    (0..cores).map(|core| format!("10.9.2.{}/24", 101 + core).parse().unwrap()).collect()
}

fn rules(cores: u16) -> Rules {
    Rules::plan(cores, &own(cores), |_| false).unwrap()
}

impl Appliance {
    /// An appliance, and the other ends of its two wires.
    pub fn new(clock: &Clock, cores: u16, device: Device, options: &GatewayOptions) -> (Self, SimLane, SimLane) {
        let ledger = Shared::<Ledger>::default();
        Self::with_spread(clock, cores, options, &ledger, || spread(device, cores, &ledger))
    }

    /// The same with devices of the test's own.
    pub fn with_spread(
        clock: &Clock,
        cores: u16,
        options: &GatewayOptions,
        ledger: &Shared<Ledger>,
        mut device: impl FnMut() -> (PortPlan, Spread),
    ) -> (Self, SimLane, SimLane) {
        let end = |mac| EndOptions { pool: options.pool, tx_ring: options.tx_ring, ..EndOptions::new(mac) };
        let link = |ours, theirs, seed| {
            let symmetric = WireOptions::symmetric(clock, options.path.clone());
            wire(WireOptions { left: end(ours), right: EndOptions::new(theirs), ..symmetric }, seed)
        };
        let (north, clients) = link(NORTH_MAC, CLIENT_MAC, options.seed);
        let (south, backends) = link(SOUTH_MAC, BACKEND_MAC, options.seed ^ 0x5555);
        let mut plans = Vec::new();
        let mut lanes: Vec<Vec<SimQueue>> = (0..cores).map(|_| Vec::new()).collect();
        for lane in [north, south] {
            let (plan, spread) = device();
            for (lane, core) in nic(lane, plan.queues.into(), cores.into(), spread).into_iter().zip(&mut lanes) {
                core.push(lane);
            }
            plans.push(plan);
        }
        let series: Vec<_> =
            (0..4).map(|_| Arc::new(Series::new("l".into(), "r".into(), "b".into(), cores.into()))).collect();
        let access = Arc::new(ArrayQueue::new(1 << 20));
        let (mut all, mut counters, mut lifecycles, mut publishers) = (vec![], vec![], vec![], vec![]);
        let ruled = if plans.iter().any(|plan| plan.rules.is_some()) { cores } else { 0 };
        let places = places::<SimFrame>(cores, &plans, &options.tcp, [options.seed, 5]);
        let (mut kept, mut endpoints, mut reports) = (Vec::new(), Vec::new(), Vec::new());
        for (index, (lanes, (place, links))) in (0..).zip(lanes.into_iter().zip(places)) {
            kept.push(place.clone());
            let (publisher, snapshot) = slot(Arc::new(snapshot(1, options, &options.endpoints, &series)));
            let (endpoint_publisher, table) = slot(Arc::default());
            endpoints.push(endpoint_publisher);
            let seat = EndpointSeat { table, reports: EndpointSeat::reports(), cores };
            reports.push(Arc::clone(&seat.reports));
            let (count, lifecycle) = (Arc::new(CoreCounters::new(2)), Arc::new(Lifecycle::default()));
            let watched = lanes.into_iter().zip(links).map(|(lane, link)| Watched {
                lane: Steered::new(lane, link),
                core: index,
                ledger: Rc::clone(ledger),
            });
            all.push(Core::new(CoreInput {
                index,
                lanes: watched.collect(),
                settings: settings(options, ruled),
                snapshot,
                endpoints: seat,
                counters: Arc::clone(&count),
                lifecycle: Arc::clone(&lifecycle),
                access: Arc::clone(&access),
                place,
                seed: options.seed ^ u64::from(index) << 32,
            }));
            counters.push(count);
            lifecycles.push(lifecycle);
            publishers.push(publisher);
        }
        let appliance = Self {
            cores: all,
            counters,
            lifecycles,
            ledger: Rc::clone(ledger),
            log: Vec::new(),
            access,
            publishers,
            endpoints,
            reports,
            places: kept,
            options: options.clone(),
            ruled,
            series,
            first: 0,
        };
        (appliance, clients, backends)
    }

    /// Puts a new core in the place of one that is lost with its connections, as the binary does after a panic.
    pub fn restart(&mut self, index: usize) {
        let old = self.cores.remove(index);
        let (publisher, snapshot) = slot(Arc::new(snapshot(1, &self.options, &self.options.endpoints, &self.series)));
        let core = Core::new(CoreInput {
            index: index as u16,
            lanes: old.into_lanes(),
            settings: settings(&self.options, self.ruled),
            snapshot,
            endpoints: EndpointSeat::default(),
            counters: Arc::clone(&self.counters[index]),
            lifecycle: Arc::clone(&self.lifecycles[index]),
            access: Arc::clone(&self.access),
            place: self.places[index].clone(),
            seed: self.options.seed ^ 0x7777,
        });
        self.cores.insert(index, core);
        self.publishers.push(publisher);
    }

    pub fn sum(&self, counter: impl Fn(&CoreCounters) -> &Counter) -> u64 {
        self.counters.iter().map(|counters| counter(counters).read()).sum()
    }

    pub fn drops(&self, verdict: Verdict) -> u64 {
        self.sum(|counters| &counters.drops[verdict as usize])
    }

    /// What steering did, over all cores and ports.
    pub fn steering(&mut self) -> Steering {
        let mut sum = Steering::default();
        for core in &mut self.cores {
            for port in core.ports_mut() {
                let one = port.lane().steering();
                sum.way = one.way;
                sum.handed_in += one.handed_in;
                sum.handed_out += one.handed_out;
                sum.strays += one.strays;
                sum.copies += one.copies;
                sum.ring_full += one.ring_full;
            }
        }
        sum
    }

    /// The ways in use, per core, of the port.
    pub fn ways(&mut self, port: usize) -> Vec<Way> {
        self.cores.iter_mut().map(|core| core.ports_mut()[port].lane().steering().way).collect()
    }

    /// Every flow's frames were brought to one core, all of them, in the order in which they arrived.
    #[track_caller]
    pub fn assert_in_order(&self) {
        let ledger = self.ledger.borrow();
        assert_eq!(ledger.arrived.len(), ledger.delivered.len());
        for (flow, arrived) in &ledger.arrived {
            let delivered = &ledger.delivered[flow];
            let cores: std::collections::BTreeSet<u16> = delivered.iter().map(|(core, _)| *core).collect();
            assert_eq!(cores.len(), 1, "the flow {flow:?} was at several cores");
            let ids: Vec<u64> = delivered.iter().map(|(_, id)| *id).collect();
            assert_eq!(&ids, arrived, "the flow {flow:?}");
        }
    }

    /// The sums of `tables::counters`, which hold once all cores are at rest.
    #[track_caller]
    pub fn assert_sums(&mut self) {
        const OF_OURS: [Verdict; 3] = [Verdict::NeighborUnresolved, Verdict::NeighborQueueFull, Verdict::NoRoute];
        for (core, c) in self.cores.iter_mut().zip(&self.counters) {
            assert_eq!(c.connections_opened.read(), c.connections_closed.read() + c.connections_open.read());
            let (mut received, mut consumed, mut handed_out) = (0, 0, 0);
            for port in core.ports_mut() {
                let steering = port.lane().steering();
                received += port.lane().counters().rx_packets + steering.handed_in;
                handed_out += steering.handed_out;
                consumed += port.consumed();
            }
            let drops = Verdict::ALL.iter().filter(|v| !OF_OURS.contains(v));
            let dropped: u64 = drops.map(|v| c.drops[*v as usize].read()).sum();
            let delivered = c.segments_received.read() + c.syn_cookies_sent.read() + consumed;
            assert_eq!(received, delivered + handed_out + dropped);
        }
        let steering = self.steering();
        assert_eq!(steering.handed_in, steering.handed_out + steering.copies);
    }

    /// Nothing is left of any connection on any core.
    #[track_caller]
    pub fn assert_empty(&mut self) {
        for c in &self.counters {
            let left = [&c.flows, &c.timers, &c.sockets, &c.half_open, &c.time_wait].map(Counter::read);
            assert_eq!(left, [0; 5], "flows, timers, sockets, half open, TIME-WAIT");
            let open = [&c.connections_open, &c.upstream_open, &c.upstream_idle, &c.requests_active];
            assert_eq!(open.map(Counter::read), [0; 4], "connections, upstream open, idle, requests");
        }
        for core in &mut self.cores {
            for port in core.ports_mut() {
                assert_eq!(port.lane().frames_in_use(), 0, "frames");
            }
        }
        self.assert_sums();
    }
}

impl Party for Appliance {
    fn turn(&mut self, now: Instant) -> bool {
        let mut busy = false;
        let cores = self.cores.len();
        for step in 0..cores {
            busy |= self.cores[(self.first + step) % cores].turn(now);
        }
        self.first = (self.first + 1) % cores;
        self.log.extend(core::iter::from_fn(|| self.access.pop()));
        busy
    }

    fn next(&mut self) -> Option<Duration> {
        let mut next = Vec::new();
        for core in &mut self.cores {
            next.extend(core.next_due().map(|at| Duration::from_nanos(at.0)));
            for port in core.ports_mut() {
                next.extend(port.lane().lane.device().with_lane(|lane| lane.next_arrival()));
            }
        }
        next.into_iter().min()
    }
}

impl Lane for Watched {
    type Frame = SimFrame;

    fn receive(&mut self, burst: &mut Burst<SimFrame>) {
        self.lane.receive(burst);
        let mut ledger = self.ledger.borrow_mut();
        if ledger.off {
            return;
        }
        for (flow, id) in burst.iter().filter_map(|frame| flow(frame.bytes())) {
            ledger.delivered.entry(flow).or_default().push((self.core, id));
        }
    }

    fn allocate(&mut self) -> Option<SimFrame> {
        self.lane.allocate()
    }

    fn allocate_reserved(&mut self) -> Option<SimFrame> {
        self.lane.allocate_reserved()
    }

    fn allocate_large(&mut self) -> Option<SimFrame> {
        self.lane.allocate_large()
    }

    fn transmit(&mut self, frame: SimFrame, checksum: TxChecksum) {
        self.lane.transmit(frame, checksum);
    }

    fn flush(&mut self) {
        self.lane.flush();
    }

    fn mac(&self) -> [u8; 6] {
        self.lane.mac()
    }

    fn mtu(&self) -> u16 {
        self.lane.mtu()
    }

    fn largest(&self) -> u16 {
        self.lane.largest()
    }

    fn link(&self) -> pmd::Link {
        self.lane.link()
    }

    fn counters(&self) -> LaneCounters {
        self.lane.counters()
    }

    fn steering(&self) -> Steering {
        self.lane.steering()
    }

    fn worked(&self) -> bool {
        self.lane.worked()
    }

    fn passes_on(&self) -> bool {
        self.lane.passes_on()
    }

    fn pass_on(&mut self, frame: SimFrame, position: usize) -> Option<SimFrame> {
        self.lane.pass_on(frame, position)
    }

    fn listen(&mut self, ports: &PortSet) {
        self.lane.listen(ports);
    }

    fn frames_in_use(&self) -> usize {
        self.lane.frames_in_use()
    }
}
