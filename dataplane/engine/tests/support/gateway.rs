//! The whole core between two wires, with tables made by hand.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use engine::clock::Instant;
use engine::core::{Core, CoreInput};
use engine::steer::Place;
use pmd::Lane;
use pmd::sim::pcap::Tap;
use pmd::sim::{Clock, EndOptions, PathOptions, SimLane, WireOptions, wire};
use tables::access::{AccessLevel, AccessRecord};
use tables::endpoints::Reports;
use tables::lifecycle::Lifecycle;
use tables::publish::{Publisher, slot};
use tables::*;

use super::{Party, World};

pub const NORTH_MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];
pub const SOUTH_MAC: [u8; 6] = [2, 0, 0, 0, 2, 1];
pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 1, 2];
pub const BACKEND_MAC: [u8; 6] = [2, 0, 0, 0, 2, 2];

/// Where the gateway listens.
pub const LISTENER: &str = "10.9.1.1:80";

/// Drops that are of packets of ours and not of received ones.
const OF_OURS: [Verdict; 3] = [Verdict::NeighborUnresolved, Verdict::NeighborQueueFull, Verdict::NoRoute];

/// A lane that sums up all that passes it.
pub type Traced = Tap<SimLane, Digest, Box<dyn FnMut() -> Duration>>;

/// FNV-1a of a capture file, which is also written to a file if `MILLRACE_SIM_PCAP` names a directory.
pub struct Digest {
    pub hash: u64,
    file: Option<std::fs::File>,
}

impl Digest {
    fn new(name: &str) -> Self {
        let file = std::env::var_os("MILLRACE_SIM_PCAP").map(|directory| {
            let thread = std::thread::current().name().unwrap_or("sim").replace("::", "-");
            std::fs::File::create(std::path::Path::new(&directory).join(format!("{thread}-{name}.pcap"))).unwrap()
        });
        Self { hash: 0xcbf2_9ce4_8422_2325, file }
    }
}

impl Write for Digest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hash = fnv(self.hash, bytes);
        self.file.as_mut().map_or(Ok(()), |file| file.write_all(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub fn fnv(seed: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(seed, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// How a gateway is made.
#[derive(Clone)]
pub struct GatewayOptions {
    pub seed: u64,
    pub tcp: TcpSettings,
    pub http: HttpSettings,
    /// Of the one cluster.
    pub endpoints: Vec<SocketAddr>,
    pub path: PathOptions,
    /// Buffers of the gateway's lanes.
    pub pool: usize,
    /// Of the gateway's lanes.
    pub tx_ring: usize,
    /// That all requests have to pass.
    pub limits: Vec<Limit>,
    /// Who may connect.
    pub sources: Vec<Arc<SourceTable>>,
    /// At both ends of both wires.
    pub segmentation: Segmentation,
    /// Of the one rule.
    pub filters: Option<filter::RuleFilters>,
    /// Of the one rule.
    pub backend_timeout: Option<Duration>,
}

/// Who cuts TCP packets into segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Segmentation {
    /// The stack.
    #[default]
    Stack,
    /// The device that sends (TSO).
    Device,
    /// Nobody, as between two ends on one machine (TSO and LRO).
    Nobody,
}

impl Default for GatewayOptions {
    fn default() -> Self {
        Self {
            seed: 1,
            tcp: small_tcp(),
            http: HttpSettings { access: AccessLevel::All, ..HttpSettings::default() },
            endpoints: vec!["10.9.2.2:8080".parse().unwrap()],
            path: PathOptions::default(),
            pool: 65_536,
            tx_ring: 1024,
            limits: Vec::new(),
            sources: Vec::new(),
            segmentation: Segmentation::default(),
            filters: None,
            backend_timeout: None,
        }
    }
}

/// The defaults with small tables, since tests make many.
pub fn small_tcp() -> TcpSettings {
    TcpSettings { max_connections: 4096, max_time_wait: 4096, ..TcpSettings::default() }
}

/// The core and what surrounds it.
pub struct Gateway {
    pub core: Core<Traced>,
    pub counters: Arc<CoreCounters>,
    pub lifecycle: Arc<Lifecycle>,
    pub publisher: Publisher<Snapshot>,
    pub endpoints: Publisher<EndpointTable>,
    pub reports: Reports,
    access: Arc<ArrayQueue<AccessRecord>>,
    /// Requests that ended, oldest first.
    pub log: Vec<AccessRecord>,
    pub series: Vec<Arc<Series>>,
    options: GatewayOptions,
}

impl Gateway {
    /// A gateway, and the other ends of its two wires: the clients' and the backends'.
    pub fn new(clock: &Clock, options: &GatewayOptions) -> (Self, SimLane, SimLane) {
        let cuts = |mac| EndOptions {
            tso: options.segmentation != Segmentation::Stack,
            lro: options.segmentation == Segmentation::Nobody,
            ..EndOptions::new(mac)
        };
        let end = |mac| EndOptions { pool: options.pool, tx_ring: options.tx_ring, ..cuts(mac) };
        let link = |ours, theirs, seed| {
            let symmetric = WireOptions::symmetric(clock, options.path.clone());
            wire(WireOptions { left: end(ours), right: cuts(theirs), ..symmetric }, seed)
        };
        let (north, clients) = link(NORTH_MAC, CLIENT_MAC, options.seed);
        let (south, backends) = link(SOUTH_MAC, BACKEND_MAC, options.seed ^ 0x5555);
        let series: Vec<_> = (0..4).map(|_| Arc::new(Series::new("l".into(), "r".into(), "b".into(), 1))).collect();
        let (publisher, snapshot) = slot(Arc::new(snapshot(1, options, &options.endpoints, &series)));
        let (endpoints, table) = slot(Arc::default());
        let reports = EndpointSeat::reports();
        let seat = EndpointSeat { table, reports: Arc::clone(&reports), cores: 1 };
        let counters = Arc::new(CoreCounters::new(2));
        let lifecycle = Arc::new(Lifecycle::default());
        let access = Arc::new(ArrayQueue::new(65_536));
        let port = |name: &str, address: &str| PortSettings::untagged(name, vec![address.parse().unwrap()]);
        let core = Core::new(CoreInput {
            index: 0,
            lanes: vec![tap(clock, north, "north"), tap(clock, south, "south")],
            settings: CoreSettings {
                ports: vec![port("north", "10.9.1.1/24"), port("south", "10.9.2.1/24")],
                tcp: options.tcp.clone(),
            },
            snapshot,
            endpoints: seat,
            counters: Arc::clone(&counters),
            lifecycle: Arc::clone(&lifecycle),
            access: Arc::clone(&access),
            place: Place::alone(),
            seed: options.seed,
        });
        let options = options.clone();
        (
            Self { core, counters, lifecycle, publisher, endpoints, reports, access, log: Vec::new(), series, options },
            clients,
            backends,
        )
    }

    /// Publishes tables with other endpoints.
    pub fn publish(&mut self, epoch: u64, endpoints: &[SocketAddr]) {
        self.publisher.publish(Arc::new(snapshot(epoch, &self.options, endpoints, &self.series)));
        self.publisher.reclaim();
    }

    /// Publishes tables that listen elsewhere.
    pub fn publish_at(&mut self, epoch: u64, listener: &str) {
        let table = snapshot_at(listener, epoch, &self.options, &self.options.endpoints, &self.series);
        self.publisher.publish(Arc::new(table));
        self.publisher.reclaim();
    }

    /// The wire's end at port `index`.
    pub fn lane(&mut self, index: usize) -> &SimLane {
        self.core.ports_mut()[index].lane().lane()
    }

    pub fn lane_mut(&mut self, index: usize) -> &mut SimLane {
        self.core.ports_mut()[index].lane_mut().lane_mut()
    }

    pub fn drops(&self, verdict: Verdict) -> u64 {
        self.counters.drops[verdict as usize].read()
    }

    /// What passed both ports, and when, as one number.
    pub fn digest(self) -> u64 {
        let lanes = self.core.into_lanes();
        lanes.into_iter().fold(0, |sum, tap| fnv(sum, &tap.finish().unwrap().1.hash.to_le_bytes()))
    }

    /// The sums of `tables::counters`, which hold once the core is at rest.
    #[track_caller]
    pub fn assert_sums(&mut self) {
        let c = Arc::clone(&self.counters);
        assert_eq!(c.connections_opened.read(), c.connections_closed.read() + c.connections_open.read());
        assert_eq!(c.requests_started.read(), c.requests_finished.read() + c.requests_active.read());
        let consumed: u64 = self.core.ports_mut().iter().map(|port| port.consumed()).sum();
        let received: u64 = self.core.ports_mut().iter().map(|port| port.lane().counters().rx_packets).sum();
        let dropped = Verdict::ALL.iter().filter(|v| !OF_OURS.contains(v)).map(|v| self.drops(*v)).sum::<u64>();
        let delivered = c.segments_received.read() + c.syn_cookies_sent.read();
        let kernels: u64 = c.ports.iter().map(|port| port.exception_to_host.read()).sum();
        assert_eq!(received, delivered + kernels + consumed + dropped, "received = delivered + dropped");
        let finished: u64 = self.series.iter().flat_map(|s| s.cores[0].by_status()).sum();
        assert_eq!(finished, c.requests_finished.read(), "requests by status");
        assert_eq!(self.log.len() as u64 + c.access_log_lost.read(), c.requests_finished.read(), "access log");
    }

    /// Nothing is left of any connection, and the sums hold.
    #[track_caller]
    pub fn assert_empty(&mut self) {
        let c = Arc::clone(&self.counters);
        let left = [&c.flows, &c.timers, &c.sockets, &c.half_open, &c.time_wait].map(Counter::read);
        assert_eq!(left, [0; 5], "flows, timers, sockets, half open, TIME-WAIT");
        let open = [&c.connections_open, &c.upstream_open, &c.upstream_idle, &c.requests_active, &c.tunnels_open];
        assert_eq!(open.map(Counter::read), [0; 5], "connections, upstream open, idle, requests, tunnels");
        for port in 0..2 {
            assert_eq!(self.lane(port).frames_in_use(), 0, "frames of port {port}");
        }
        self.assert_sums();
    }
}

impl Party for Gateway {
    fn turn(&mut self, now: Instant) -> bool {
        let busy = self.core.turn(now);
        self.log.extend(core::iter::from_fn(|| self.access.pop()));
        busy
    }

    fn next(&mut self) -> Option<Duration> {
        let due = self.core.next_due().map(|at| Duration::from_nanos(at.0));
        let arrivals = [self.lane(0).next_arrival(), self.lane(1).next_arrival()];
        due.into_iter().chain(arrivals.into_iter().flatten()).min()
    }
}

/// A world around a gateway, whose other two parties are made from their wires' ends.
pub fn world<N, S>(
    options: &GatewayOptions,
    north: impl FnOnce(SimLane) -> N,
    south: impl FnOnce(SimLane) -> S,
) -> World<Gateway, N, S> {
    let clock = Clock::new();
    let (mid, clients, backends) = Gateway::new(&clock, options);
    World { clock, mid, north: north(clients), south: south(backends) }
}

fn tap(clock: &Clock, lane: SimLane, name: &str) -> Traced {
    let clock = clock.clone();
    Tap::new(lane, Digest::new(name), Box::new(move || clock.now()) as Box<dyn FnMut() -> Duration>).unwrap()
}

/// One listener for any host, one rule for any path, one cluster.
pub fn snapshot(epoch: u64, options: &GatewayOptions, endpoints: &[SocketAddr], series: &[Arc<Series>]) -> Snapshot {
    snapshot_at(LISTENER, epoch, options, endpoints, series)
}

fn snapshot_at(
    listener: &str,
    epoch: u64,
    options: &GatewayOptions,
    endpoints: &[SocketAddr],
    series: &[Arc<Series>],
) -> Snapshot {
    let address = listener.parse().unwrap();
    let mut routes = RouteTableBuilder::default();
    routes.insert(HostPattern::Any, &PathPattern::Prefix((*b"/").into()), Conditions::default(), 0);
    let listener = Listener {
        name: "ns/gw/http".into(),
        hostname: HostPattern::Any,
        routes: routes.build(),
        unmatched: SeriesId(1),
    };
    let target = Target { cluster: ClusterId(0), weight: 1, series: SeriesId(3) };
    // An address keeps its id from epoch to epoch, as control has it.
    let endpoint = |address: &SocketAddr| Endpoint {
        id: EndpointId(match address.ip() {
            std::net::IpAddr::V4(v4) => u32::from(v4.octets()[3]),
            std::net::IpAddr::V6(_) => 0,
        }),
        address: *address,
        weight: 1,
    };
    // Where filters can have requests copied to.
    let mirror = Endpoint { id: EndpointId(255), address: "10.9.2.2:9090".parse().unwrap(), weight: 1 };
    let mut rule = Rule::new("ns/route".into(), 0, vec![target], SeriesId(2));
    rule.filters = options.filters.clone().map(Box::new);
    rule.backend_timeout = options.backend_timeout;
    if !options.limits.is_empty() {
        rule.limits = Some((0u32..).take(options.limits.len()).map(LimitId).collect());
    }
    let bind = Bind::new(address, vec![listener], SeriesId(0)).with_sources(options.sources.clone());
    Snapshot::new(
        epoch,
        options.http.clone(),
        vec![bind],
        vec![rule],
        vec![
            Cluster::new("ns/backend:8080".into(), endpoints.iter().map(endpoint).collect()),
            Cluster::new("ns/mirror:9090".into(), vec![mirror]),
        ],
        series.to_vec(),
    )
    .with_limits(options.limits.clone())
}
