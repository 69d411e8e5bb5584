//! A whole core between scripted clients and backends. Only its turns are counted.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use engine::clock::Instant;
use engine::core::{Core, CoreInput};
use engine::steer::{Place, PortPlan, places};
use pmd::Frame;
use tables::access::AccessQueue;
use tables::filter::{FieldChanges, Filters, PathChange, RuleFilters};
use tables::{
    Bind, Cluster, ClusterId, Conditions, CoreCounters, CoreSettings, Endpoint, EndpointId, EndpointSeat, HostPattern,
    HttpSettings, KeyTable, Limit, LimitId, LimitKey, LimitRate, Listener, Method, PathPattern, PortSettings,
    RouteTableBuilder, Rule, Selection, Series, SeriesId, SeriesLines, Snapshot, SynCookies, Target, TcpSettings,
    ValueMatch, publish,
};

use crate::collect_here;
use crate::frames::{ACK, FIN, PSH, Peer, SYN, arp_reply, tcp};
use crate::lane::{MemoryFrame, MemoryLane};

const NORTH_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const SOUTH_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 3];
const BACKEND_MAC: [u8; 6] = [2, 0, 0, 0, 0, 4];

const LISTENER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 9, 1, 1), 80);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 9, 1, 2);
const BACKENDS: [SocketAddrV4; 2] =
    [SocketAddrV4::new(Ipv4Addr::new(10, 9, 2, 2), 8080), SocketAddrV4::new(Ipv4Addr::new(10, 9, 2, 3), 8080)];

/// Virtual time per request and turn: as with 100,000 requests a second of two turns each.
const PACE: Duration = Duration::from_micros(5);

/// Turns that an exchange may take; it takes two to five.
const PATIENCE: usize = 16;

const NORTH: usize = 0;
const SOUTH: usize = 1;

/// A core's place among those that share its tables.
pub(crate) struct Seat {
    index: u16,
    place: Place,
    snapshot: Arc<Snapshot>,
}

/// Places of so many cores, whose devices have a queue for each.
pub(crate) fn seats(count: u16) -> Vec<Seat> {
    let snapshot = Arc::new(snapshot(Conditions::default(), None, false));
    let plans = [NORTH, SOUTH].map(|_| PortPlan { queues: count, ..PortPlan::default() });
    let places = places::<MemoryFrame>(count, &plans, &TcpSettings::default(), [1, 2]);
    let seat = |(index, (place, _))| Seat { index, place, snapshot: Arc::clone(&snapshot) };
    (0..).zip(places).map(seat).collect()
}

/// A core with a port to clients and one to backends.
pub(crate) struct Gateway {
    core: Core<MemoryLane>,
    counters: Arc<CoreCounters>,
    now: Instant,
    clients: HashMap<u16, Client>,
    backends: HashMap<(SocketAddrV4, u16), Peer>,
    /// Sent in turn.
    requests: &'static [&'static [u8]],
    asked: usize,
    response: Vec<u8>,
    /// What its turns took, of the clock.
    spent: Duration,
    next_port: u16,
    out: Vec<u8>,
    /// Segments with payload that clients got.
    delivered: u64,
    /// Turns are counted from now on.
    counting: bool,
    /// Keeps the snapshot's slot alive.
    _publisher: publish::Publisher<Snapshot>,
}

struct Client {
    peer: Peer,
    answers: u64,
    closed: bool,
}

impl Gateway {
    /// A gateway whose clients send `request` and whose backends answer `response`.
    pub(crate) fn new(request: &'static [u8], response: &[u8]) -> Self {
        Self::with(request, response, SynCookies::Overload)
    }

    /// The same that answers SYNs with cookies, or does not.
    pub(crate) fn with(request: &'static [u8], response: &[u8], syn_cookies: SynCookies) -> Self {
        Self::serving(snapshot(Conditions::default(), None, false), Vec::leak(vec![request]), response, syn_cookies)
    }

    /// One whose route asks for a header field, rewrites the path, and has a limit; its backend is balanced by least request.
    pub(crate) fn with_policies(request: &'static [u8], response: &[u8]) -> Self {
        let rule = Filters { path: Some(PathChange::Prefix(4, b"/v2".as_slice().into())), ..Filters::default() };
        let filters = RuleFilters { rule, ..RuleFilters::default() };
        let requests = Vec::leak(vec![request]);
        Self::serving(snapshot(by_user(), Some(Box::new(filters)), true), requests, response, SynCookies::Overload)
    }

    /// One whose route asks for a header field, and has filters.
    pub(crate) fn filtered(request: &'static [u8], response: &[u8]) -> Self {
        let changes = |strip: &[u8], append: &[u8]| FieldChanges { strip: strip.into(), append: append.into() };
        let rule = Filters {
            request: changes(b"x-secret\n", b"X-Stage: canary\r\n"),
            response: changes(b"server\n", b"X-Served-By: millrace\r\n"),
            path: Some(PathChange::Prefix(4, b"/v2".as_slice().into())),
            ..Filters::default()
        };
        let filters = RuleFilters { rule, ..RuleFilters::default() };
        let requests = Vec::leak(vec![request]);
        Self::serving(snapshot(by_user(), Some(Box::new(filters)), false), requests, response, SynCookies::Overload)
    }

    /// One of several that serve the same tables.
    pub(crate) fn on(seat: Seat, request: &'static [u8], response: &[u8]) -> Self {
        Self::seated(seat, Vec::leak(vec![request]), response, SynCookies::Overload)
    }

    /// One with so many routes, /n/r00000 and so on, for which these are asked in turn.
    pub(crate) fn routing(routes: u32, requests: &'static [&'static [u8]], response: &[u8]) -> Self {
        Self::serving(many(routes), requests, response, SynCookies::Overload)
    }

    fn serving(
        snapshot: Snapshot,
        requests: &'static [&'static [u8]],
        response: &[u8],
        syn_cookies: SynCookies,
    ) -> Self {
        let seat = Seat { index: 0, place: Place::alone(), snapshot: Arc::new(snapshot) };
        Self::seated(seat, requests, response, syn_cookies)
    }

    fn seated(seat: Seat, requests: &'static [&'static [u8]], response: &[u8], syn_cookies: SynCookies) -> Self {
        let Seat { index, place, snapshot } = seat;
        let (publisher, snapshot) = publish::slot(snapshot);
        let counters = Arc::new(CoreCounters::new(2));
        let access: AccessQueue = Arc::new(ArrayQueue::new(16));
        let port = |name: &str, address: &str| PortSettings::untagged(name, address.parse().into_iter().collect());
        // So short that a thousand connections bring it to its steady state.
        let tcp = TcpSettings { time_wait: Duration::from_millis(20), syn_cookies, ..TcpSettings::default() };
        let core = Core::new(CoreInput {
            index,
            lanes: vec![MemoryLane::new(NORTH_MAC), MemoryLane::new(SOUTH_MAC)],
            settings: CoreSettings { ports: vec![port("north", "10.9.1.1/24"), port("south", "10.9.2.1/24")], tcp },
            snapshot,
            endpoints: EndpointSeat::default(),
            counters: Arc::clone(&counters),
            lifecycle: Arc::default(),
            access,
            place,
            seed: 1,
        });
        Self {
            core,
            counters,
            now: Instant::default() + Duration::from_secs(1),
            clients: HashMap::new(),
            backends: HashMap::new(),
            requests,
            asked: 0,
            response: response.to_vec(),
            spent: Duration::ZERO,
            next_port: 10_000,
            out: Vec::new(),
            delivered: 0,
            counting: false,
            _publisher: publisher,
        }
    }

    /// What all its turns took so far.
    pub(crate) fn spent(&self) -> Duration {
        self.spent
    }

    fn request(&mut self) -> &'static [u8] {
        self.asked += 1;
        self.requests[self.asked % self.requests.len()]
    }

    /// Counts all turns from now on.
    pub(crate) fn count(&mut self) {
        self.counting = true;
    }

    /// Opens `n` connections and has a request served on each.
    pub(crate) fn connect(&mut self, n: usize) -> Vec<u16> {
        let ports: Vec<u16> = (0..n)
            .map(|_| {
                self.next_port = if self.next_port < 60_000 { self.next_port + 1 } else { 10_000 };
                self.open(self.next_port);
                self.next_port
            })
            .collect();
        for _ in 0..PATIENCE {
            if ports.iter().all(|port| self.clients[port].answers > 0) {
                return ports;
            }
            self.turn(n);
        }
        panic!("no answer within {PATIENCE} turns")
    }

    /// Has a request served on each of these connections.
    pub(crate) fn exchange(&mut self, ports: &[u16]) {
        for &port in ports {
            self.ask(port);
        }
        for turn in 1..=PATIENCE {
            self.turn(ports.len());
            if ports.iter().all(|port| self.clients[port].answers == 1) {
                // One turn in and one back, once the backends' connections are there.
                assert!(turn == 2 || !self.counting, "{turn} turns");
                return;
            }
        }
        panic!("no answer within {PATIENCE} turns")
    }

    /// Opens `n` connections, has a request served on each that closes it, and lets them close.
    pub(crate) fn visit(&mut self, n: usize) {
        let ports = self.connect(n);
        for _ in 0..PATIENCE {
            if ports.iter().all(|port| self.clients[port].closed) {
                // The last acknowledgments.
                self.turn(n);
                self.clients.clear();
                return;
            }
            self.turn(n);
        }
        panic!("not closed within {PATIENCE} turns")
    }

    /// `n` SYNs from as many made-up clients, which get cookies that nobody brings back.
    pub(crate) fn flood(&mut self, n: usize) {
        for _ in 0..n {
            self.next_port = if self.next_port < 60_000 { self.next_port + 1 } else { 10_000 };
            self.open(self.next_port);
        }
        let Self { core, now, .. } = self;
        *now = *now + PACE * n as u32;
        let mut turn = || assert!(core.turn(*now));
        if self.counting {
            collect_here(&mut turn);
        } else {
            turn();
        }
        let lane = self.core.ports_mut()[NORTH].lane_mut();
        let answers = core::iter::from_fn(|| lane.departed()).filter(|frame| tcp(frame.bytes()).is_some()).count();
        assert_eq!(answers, n);
        self.clients.clear();
    }

    /// Lets the backend of the only connection send `n` full segments, and the client acknowledge them.
    pub(crate) fn stream(&mut self, n: usize) {
        let before = self.delivered;
        let payload = [b'x'; 1460];
        for _ in 0..n {
            let (_, peer) = self.backends.iter_mut().next().expect("there is one");
            peer.segment(ACK, &payload, &mut self.out);
            self.core.ports_mut()[SOUTH].lane_mut().arrive(&self.out);
        }
        for _ in 0..PATIENCE {
            self.turn(n);
            if self.delivered - before >= n as u64 {
                return;
            }
        }
        panic!("{} of {n} segments arrived", self.delivered - before)
    }

    /// One turn of the core without anything to do.
    pub(crate) fn idle(&mut self, step: Duration) {
        self.now = self.now + step;
        let Self { core, now, .. } = self;
        collect_here(&mut || assert!(!core.turn(*now)));
    }

    /// Time moves on without a turn.
    pub(crate) fn wait(&mut self, step: Duration) {
        for _ in 0..100 {
            self.now = self.now + step / 100;
            self.core.turn(self.now);
            self.peers();
        }
    }

    fn turn(&mut self, requests: usize) {
        self.now = self.now + PACE * requests as u32;
        let Self { core, now, .. } = self;
        let mut turn = || {
            core.turn(*now);
        };
        if self.counting {
            collect_here(&mut turn);
        } else {
            let began = std::time::Instant::now();
            turn();
            self.spent += began.elapsed();
        }
        self.peers();
    }

    /// Nothing was dropped or sent again: what is measured is the usual way.
    pub(crate) fn check(&self) {
        let drops: u64 = self.counters.drops.iter().map(tables::Counter::read).sum();
        assert_eq!((drops, self.counters.retransmissions.read(), self.counters.resets_sent.read()), (0, 0, 0));
    }

    fn open(&mut self, port: u16) {
        let mut peer = Peer {
            here: SocketAddrV4::new(CLIENT, port),
            there: LISTENER,
            macs: (CLIENT_MAC, NORTH_MAC),
            seq: 0x1000_0000,
            ack: 0,
        };
        peer.segment(SYN, &[], &mut self.out);
        self.core.ports_mut()[NORTH].lane_mut().arrive(&self.out);
        self.clients.insert(port, Client { peer, answers: 0, closed: false });
    }

    fn ask(&mut self, port: u16) {
        let request = self.request();
        let client = self.clients.get_mut(&port).expect("it is open");
        client.answers = 0;
        client.peer.segment(ACK | PSH, request, &mut self.out);
        self.core.ports_mut()[NORTH].lane_mut().arrive(&self.out);
    }

    /// Lets peers answer everything that was sent to them.
    fn peers(&mut self) {
        while let Some(frame) = self.core.ports_mut()[NORTH].lane_mut().departed() {
            self.client_receives(frame.bytes());
        }
        while let Some(frame) = self.core.ports_mut()[SOUTH].lane_mut().departed() {
            self.backend_receives(frame.bytes());
        }
    }

    fn client_receives(&mut self, frame: &[u8]) {
        let first = self.requests[0];
        let lane = self.core.ports_mut()[NORTH].lane_mut();
        let Some(seen) = tcp(frame) else {
            return arp_reply(frame, CLIENT_MAC).iter().for_each(|reply| lane.arrive(reply));
        };
        let client = self.clients.get_mut(&seen.destination.port()).expect("a connection of ours");
        client.peer.note(&seen);
        if seen.flags & SYN != 0 {
            // As clients do: the handshake's last ACK, and at once the request.
            client.peer.segment(ACK, &[], &mut self.out);
            lane.arrive(&self.out);
            client.peer.segment(ACK | PSH, first, &mut self.out);
            lane.arrive(&self.out);
            return;
        }
        client.answers += u64::from(seen.payload.starts_with(b"HTTP/1.1 200 OK\r\n"));
        if !seen.payload.is_empty() {
            self.delivered += 1;
            // Linux acknowledges every other segment of a stream at once; answers ride with the next request.
            if seen.payload.len() >= 1400 && self.delivered.is_multiple_of(2) {
                client.peer.segment(ACK, &[], &mut self.out);
                lane.arrive(&self.out);
            }
        }
        if seen.flags & FIN != 0 {
            client.closed = true;
            client.peer.segment(ACK | FIN, &[], &mut self.out);
            lane.arrive(&self.out);
        }
    }

    fn backend_receives(&mut self, frame: &[u8]) {
        let lane = self.core.ports_mut()[SOUTH].lane_mut();
        let Some(seen) = tcp(frame) else {
            return arp_reply(frame, BACKEND_MAC).iter().for_each(|reply| lane.arrive(reply));
        };
        let peer = self.backends.entry((seen.destination, seen.source.port())).or_insert_with(|| Peer {
            here: seen.destination,
            there: seen.source,
            macs: (BACKEND_MAC, SOUTH_MAC),
            seq: 0x2000_0000,
            ack: 0,
        });
        peer.note(&seen);
        if seen.flags & SYN != 0 {
            peer.segment(SYN | ACK, &[], &mut self.out);
            lane.arrive(&self.out);
        } else if seen.payload.ends_with(b"\r\n\r\n") {
            peer.segment(ACK | PSH, &self.response, &mut self.out);
            lane.arrive(&self.out);
        }
    }
}

/// One listener with so many routes, each of which has two series, as control makes them; all have the same backend.
fn many(count: u32) -> Snapshot {
    let (listener, backend): (Arc<str>, Arc<str>) = ("default/web/http".into(), "default/hello".into());
    let (mut routes, mut rules, mut series) = (RouteTableBuilder::default(), Vec::new(), Vec::new());
    let (mut lines, mut unserved_lines) = (SeriesLines::new(1), SeriesLines::new(1));
    for number in 0..count {
        let name: Arc<str> = format!("default/r{number}").into();
        let mut id = |backend: &Arc<str>| {
            let (listener, name, backend) = (Arc::clone(&listener), Arc::clone(&name), Arc::clone(backend));
            let lines = if backend.is_empty() { &mut unserved_lines } else { &mut lines };
            series.push(Arc::new(lines.series(listener, name, backend)));
            SeriesId(series.len() as u32 - 1)
        };
        let target = Target { cluster: ClusterId(0), weight: 1, series: id(&backend) };
        let unserved = id(&"".into());
        rules.push(Rule::new(Arc::clone(&name), 0, vec![target], unserved));
        let path = PathPattern::Prefix(format!("/n/r{number:05}").into_bytes().into());
        routes.insert(HostPattern::Any, &path, Conditions::default(), number);
    }
    let routes = routes.build();
    let listener = Listener { name: listener, hostname: HostPattern::Any, routes, unmatched: SeriesId(0) };
    let bind = Bind::new(LISTENER.into(), vec![listener], SeriesId(0));
    Snapshot::new(1, HttpSettings::default(), vec![bind], rules, vec![hello()], series)
}

/// A backend with two endpoints.
fn hello() -> Cluster {
    let endpoint =
        |(id, address): (u32, SocketAddrV4)| Endpoint { id: EndpointId(id), address: address.into(), weight: 1 };
    Cluster::new("default/hello:8080".into(), (0..).zip(BACKENDS).map(endpoint).collect())
}

fn by_user() -> Conditions {
    let wanted = (b"x-user".as_slice().into(), ValueMatch::Exact(b"7".as_slice().into()));
    Conditions { headers: [wanted].into(), ..Conditions::default() }
}

/// One listener, one route, one backend with two endpoints. With `policies` the route has a limit, and the endpoint with fewer requests under
/// way is taken.
fn snapshot(conditions: Conditions, filters: Option<Box<RuleFilters>>, policies: bool) -> Snapshot {
    let series = Series::new("default/web/http".into(), "default/hello".into(), "default/hello".into(), 1);
    let mut cluster = hello();
    let target = Target { cluster: ClusterId(0), weight: 1, series: SeriesId(0) };
    let mut rule = Rule::new("default/hello".into(), 0, vec![target], SeriesId(0));
    rule.filters = filters;
    let mut limits = Vec::new();
    if policies {
        cluster.selection = Arc::new(Selection::new(Method::LeastRequest, cluster.endpoints.to_vec()));
        rule.limits = Some([LimitId(0)].into());
        limits.push(Limit {
            name: "default/fair/per-client".into(),
            target: "HTTPRoute/default/hello".into(),
            by: LimitKey::Source { ipv4_prefix: 32, ipv6_prefix: 64 },
            rate: LimitRate::new(100_000_000, 1, 100_000_000, 1),
            policy_field: "".into(),
            limit_field: "".into(),
            keys: Arc::new(KeyTable::new(1024, 1, 1, 0, (1, 2))),
        });
    }
    let mut routes = RouteTableBuilder::default();
    routes.insert(HostPattern::Any, &PathPattern::Prefix(b"/".as_slice().into()), conditions, 0);
    let listener = Listener {
        name: "default/web/http".into(),
        hostname: HostPattern::Any,
        routes: routes.build(),
        unmatched: SeriesId(0),
    };
    let bind = Bind::new(LISTENER.into(), vec![listener], SeriesId(0));
    let series = vec![Arc::new(series)];
    Snapshot::new(1, HttpSettings::default(), vec![bind], vec![rule], vec![cluster], series).with_limits(limits)
}
