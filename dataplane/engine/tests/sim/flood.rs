//! Floods of SYNs: cookies (RFC 4987), and limits per source.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use engine::clock::Instant;
use engine::port::Flags;
use engine::random::Random;
use engine::stack::{ConnectionId, Net, Stack, Status};
use pmd::sim::{Clock, SimLane, WireOptions, wire};
use pmd::{Frame, Lane, TxChecksum};
use tables::{SourceLimit, SynCookies, TcpSettings, Verdict};

use crate::end_to_end::{faulty, plan};
use crate::support::client::{Clients, Plan, Request};
use crate::support::gateway::{CLIENT_MAC, Gateway, GatewayOptions, NORTH_MAC, small_tcp, world};
use crate::support::host::{App, Host, Manual};
use crate::support::script::{ACK, FIN, RST, SYN, Seg};
use crate::support::server::Server;
use crate::support::{World, for_seeds, ms, secs, us};
use crate::tcp::{Bench, ISS, MSS};

/// MSS 1460, SACK permitted, window scale 7: what Linux asks for, without timestamps.
const LINUX: [u8; 12] = [2, 4, 5, 180, 1, 1, 4, 2, 1, 3, 3, 7];

fn always() -> TcpSettings {
    TcpSettings { syn_cookies: SynCookies::Always, ..small_tcp() }
}

impl Bench {
    fn nothing_is_kept(&mut self) {
        self.world.mid.stack.report(&self.world.mid.counters);
        self.world.mid.assert_empty();
    }

    /// The peer has a cookie.
    fn with_cookie(tcp: &TcpSettings, options: &[u8]) -> Self {
        let mut bench = Self::new(tcp);
        bench.syn(options);
        bench.ack = bench.expect(SYN | ACK).end();
        bench.nothing_is_kept();
        bench
    }

    fn cookies(&self) -> (u64, u64) {
        let counters = &self.world.mid.counters;
        (counters.syn_cookies_sent.read(), counters.syn_cookies_accepted.read())
    }
}

#[test]
fn a_syn_ack_with_a_cookie_says_what_every_other_one_says() {
    for options in [&LINUX[..], &MSS, &[], &[1, 3, 3, 0], &[1, 1, 4, 2, 1, 3, 3, 14]] {
        let answer = |tcp: &TcpSettings| {
            let mut bench = Bench::new(tcp);
            bench.syn(options);
            bench.expect(SYN | ACK)
        };
        let (plain, cookie) = (answer(&small_tcp()), answer(&always()));
        let same = Seg { at: plain.at, seq: plain.seq, ..cookie.clone() };
        assert_eq!(plain, same, "{options:?}");
        assert_ne!(plain.seq, cookie.seq);
    }
}

#[test]
fn a_cookie_opens_a_connection() {
    let mut bench = Bench::with_cookie(&always(), &LINUX);
    bench.tx(ACK, b"");
    bench.settle();
    let id = ConnectionId(0);
    assert_eq!(bench.status(id), Status::Open);
    bench.tx(ACK, b"hello");
    assert_eq!(bench.read(id), b"hello");
    assert_eq!(bench.expect(ACK).ack, bench.seq);
    bench.write(id, b"world");
    assert_eq!(bench.expect(ACK).payload, b"world");
    bench.tx(ACK, b"");
    bench.shut_down(id);
    assert!(bench.expect(FIN | ACK).is(FIN | ACK));
    assert_eq!(bench.cookies(), (1, 1));
    assert_eq!(bench.drops(Verdict::TcpNoConnection), 0);
}

/// The last ACK of the handshake was lost, and data brings the cookie; or a FIN.
#[test]
fn the_first_data_may_bring_the_cookie() {
    let mut bench = Bench::with_cookie(&always(), &MSS);
    bench.tx(ACK, b"first");
    let id = ConnectionId(0);
    assert_eq!(bench.read(id), b"first");
    assert_eq!(bench.expect(ACK).ack, bench.seq);
    let mut bench = Bench::with_cookie(&always(), &MSS);
    bench.tx(FIN | ACK, b"all");
    assert_eq!(bench.read(id), b"all");
    assert_eq!(bench.status(id), Status::PeerClosed);
}

/// RFC 9293 §3.7.1 and RFC 7323 §2: both survive, and are obeyed.
#[test]
fn mss_and_window_scale_survive() {
    for (options, largest) in [(&LINUX[..], 1460), (&[2, 4, 2, 30], 536), (&[], 536), (&[2, 4, 5, 0xa5], 1440)] {
        let mut bench = Bench::with_cookie(&always(), options);
        // With a scale of 7 that is 1,280 bytes times 128; without one it is what it says.
        bench.window = if options.len() == 12 { 10 } else { 5000 };
        bench.tx(ACK, b"");
        bench.settle();
        bench.write(ConnectionId(0), &[7; 5000]);
        let (mut most, mut got) = (0, 0);
        while got < 5000 {
            let segment = bench.expect(ACK);
            most = most.max(segment.payload.len());
            got += segment.payload.len();
            bench.tx(ACK, b"");
        }
        let window = if options.len() == 12 { 1280 } else { 5000 };
        assert_eq!(most, largest.min(window), "{options:?}");
    }
}

#[test]
fn what_is_no_cookie_of_ours_opens_nothing() {
    let forge = |change: fn(&mut Seg)| {
        let mut bench = Bench::with_cookie(&always(), &MSS);
        let mut segment = bench.segment(ACK, b"");
        change(&mut segment);
        bench.send(&segment);
        bench.settle();
        bench.nothing_is_kept();
        assert!(bench.world.mid.app.ids.is_empty());
        assert_eq!(bench.drops(Verdict::TcpNoConnection), 1);
        bench.world.north.inbox.pop_front()
    };
    let reset = |answer: Option<Seg>| assert!(answer.is_some_and(|answer| answer.is(RST)));
    reset(forge(|s| s.ack = s.ack.wrapping_add(1)));
    reset(forge(|s| s.ack ^= 0x0100));
    reset(forge(|s| s.ack ^= 2));
    reset(forge(|s| s.seq = s.seq.wrapping_add(1)));
    reset(forge(|s| s.source.1 += 1));
    reset(forge(|s| s.source.0 = Ipv4Addr::new(10, 9, 1, 3)));
    assert_eq!(forge(|s| s.flags = RST | ACK), None, "a RST is not answered");
}

/// A minute later nobody waits for it, and it is as good as forged.
#[test]
fn a_stale_cookie_is_refused() {
    let mut bench = Bench::with_cookie(&always(), &MSS);
    bench.world.run(secs(31));
    bench.tx(ACK, b"");
    bench.settle();
    assert_eq!(bench.cookies(), (1, 1), "half a minute is nothing");
    let mut bench = Bench::with_cookie(&always(), &MSS);
    bench.world.run(secs(64));
    bench.tx(ACK, b"");
    assert!(bench.rx().is(RST));
    assert_eq!(bench.cookies(), (1, 0));
    bench.nothing_is_kept();
}

/// Nobody is reset for want of room: the client sends its data again, and there may be room then.
#[test]
fn a_cookie_that_comes_back_to_a_full_house_may_come_again() {
    let mut bench = Bench::new(&TcpSettings { max_connections: 1, ..always() });
    bench.syn(&MSS);
    bench.ack = bench.expect(SYN | ACK).end();
    bench.tx(ACK, b"");
    bench.settle();
    let first = (bench.seq, bench.ack);
    bench.ports.0 = 4001;
    bench.seq = ISS;
    bench.syn(&MSS);
    bench.ack = bench.expect(SYN | ACK).end();
    let request = bench.segment(ACK, b"request");
    bench.send(&request);
    bench.quiet(ms(100));
    assert_eq!(bench.drops(Verdict::ConnectionLimit), 1);
    let second = (bench.seq, bench.ack);
    bench.ports.0 = 4000;
    (bench.seq, bench.ack) = first;
    bench.tx(RST, b"");
    bench.settle();
    bench.world.mid.stack.abort(ConnectionId(0));
    bench.settle();
    bench.ports.0 = 4001;
    (bench.seq, bench.ack) = second;
    bench.send(&request);
    assert_eq!(bench.read(ConnectionId(0)), b"request");
}

/// Below the limit there are no cookies, and a made-up ACK is never looked at twice.
#[test]
fn cookies_begin_at_the_limit() {
    let mut bench = Bench::new(&TcpSettings { half_open: 2, ..small_tcp() });
    for port in 0..10 {
        bench.ports.0 = 4000 + port;
        bench.send(&Seg { options: MSS.to_vec(), ..bench.segment(SYN, b"") });
    }
    bench.settle();
    assert_eq!(bench.world.north.inbox.len(), 10);
    assert_eq!(bench.cookies(), (8, 0));
    assert_eq!(bench.world.mid.stack.live(), 2);
    // The last one is honest.
    let answer = bench.world.north.inbox.drain(..).find(|answer| answer.destination.1 == 4009).unwrap();
    (bench.seq, bench.ack) = (answer.ack, answer.end());
    bench.tx(ACK, b"honest");
    bench.settle();
    assert_eq!(bench.cookies(), (8, 1));
    assert_eq!(bench.world.mid.stack.live(), 3);
    assert_eq!(bench.drops(Verdict::HalfOpenLimit), 0);
}

#[test]
fn a_source_may_open_only_so_many_connections() {
    let limit = SourceLimit { connections_per_second: 10, burst: 3, prefix_v4: 32, prefix_v6: 64, sources: 64 };
    for tcp in [small_tcp(), always()] {
        let mut bench = Bench::new(&TcpSettings { source_limit: Some(limit.clone()), ..tcp });
        let from = |bench: &mut Bench, host: u8, ports: core::ops::Range<u16>| {
            for port in ports {
                let syn = bench.segment(SYN, b"");
                bench.send(&Seg { source: (Ipv4Addr::new(10, 9, 1, host), port), options: MSS.to_vec(), ..syn });
            }
            bench.settle();
            bench.world.north.inbox.drain(..).filter(|answer| answer.destination.0.octets()[3] == host).count()
        };
        assert_eq!(from(&mut bench, 2, 1000..1020), 3);
        assert_eq!(bench.drops(Verdict::SourceRate), 17);
        assert_eq!(from(&mut bench, 3, 1000..1002), 2, "others are not affected");
        bench.world.run(ms(150));
        bench.world.north.inbox.clear();
        assert_eq!(from(&mut bench, 2, 2000..2020), 1);
    }
}

/// The other family: longer headers, another default for the MSS, another checksum.
#[test]
fn cookies_over_ipv6() {
    let clock = Clock::new();
    let mut options = WireOptions { clock: clock.clone(), ..WireOptions::default() };
    options.left.mac = NORTH_MAC;
    options.right.mac = CLIENT_MAC;
    let (left, right) = wire(options, 1);
    let mid = Host::new(left, &["2001:db8::1/64"], &always(), 7, Manual::default());
    let north = Host::new(right, &["2001:db8::2/64"], &small_tcp(), 8, Manual::default());
    let mut world = World { clock, mid, north, south: () };
    // Addresses are checked first (RFC 4862 §5.4).
    world.run(secs(5));
    let now = world.now();
    let client = world.north.connect(now, "[2001:db8::1]:80".parse().unwrap());
    world.run(ms(50));
    assert_eq!(world.north.stack.status(client), Status::Open);
    let counters = &world.mid.counters;
    assert_eq!((counters.syn_cookies_sent.read(), counters.syn_cookies_accepted.read()), (1, 1));
    let server = ConnectionId(*world.mid.app.ids.first().expect("a connection"));
    let bytes: Vec<u8> = (0..20_000u32).map(|n| n as u8).collect();
    world.mid.stack.send(server, &bytes);
    let mut got = Vec::new();
    for _ in 0..100 {
        world.run(ms(5));
        got.extend(world.north.read(client));
    }
    assert!(got == bytes, "{} bytes", got.len());
    assert_eq!(world.mid.counters.retransmissions.read(), 0);
}

/// Honest clients, and SYNs from all over the network in between.
struct Flooded {
    clients: Clients,
    random: Random,
    next: Instant,
    gap: Duration,
    left: u32,
    /// Addresses and ports that were made up.
    sources: BTreeSet<(u32, u16)>,
}

impl Flooded {
    fn new(clients: Clients, syns: u32, gap: Duration) -> Self {
        let next = Instant::default();
        Self { clients, random: Random::new(99), next, gap, left: syns, sources: BTreeSet::new() }
    }

    /// A SYN from an address that nobody has.
    fn syn(&mut self) -> Vec<u8> {
        let number = self.random.next_u64();
        // Neighbors that never answer, and strangers.
        let local = Ipv4Addr::new(10, 9, 1, 3 + (number % 250) as u8).to_bits();
        let source = if number & 1 == 0 { local } else { 0x0b00_0000 | (number >> 40) as u32 };
        let port = 1024 + (number >> 20) as u16 % 60_000;
        self.sources.insert((source, port));
        let mut frame = [NORTH_MAC, CLIENT_MAC].concat();
        frame.extend([8, 0, 0x45, 0, 0, 52, 0, 0, 0x40, 0, 64, 6, 0, 0]);
        frame.extend(source.to_be_bytes());
        frame.extend([10, 9, 1, 1]);
        frame.extend(port.to_be_bytes());
        frame.extend(80u16.to_be_bytes());
        frame.extend((number as u32).to_be_bytes());
        frame.extend([0, 0, 0, 0, 0x80, Flags::SYN.0, 0xfa, 0xf0, 0, 0, 0, 0]);
        frame.extend(LINUX);
        frame
    }
}

impl App for Flooded {
    fn ready(&mut self, stack: &mut Stack, net: &mut Net<'_, SimLane>, id: ConnectionId) {
        self.clients.ready(stack, net, id);
    }

    fn tick(&mut self, stack: &mut Stack, net: &mut Net<'_, SimLane>) -> bool {
        let mut any = self.clients.tick(stack, net);
        while self.left > 0 && net.now >= self.next && !self.clients.is_done() {
            self.next = net.now + self.gap;
            self.left -= 1;
            let bytes = self.syn();
            let lane = net.ports[0].lane_mut();
            let mut frame = lane.allocate().unwrap();
            assert!(frame.set_len(bytes.len()));
            frame.bytes_mut().copy_from_slice(&bytes);
            lane.transmit(frame, TxChecksum::Tcp { l2_len: 14, l3_len: 20 });
            any = true;
        }
        any
    }

    fn next(&self) -> Option<Instant> {
        (self.left > 0 && !self.clients.is_done()).then_some(self.next)
    }
}

type Siege = World<Gateway, Host<Flooded>, Host<Server>>;

fn siege(options: &GatewayOptions, flooded: Flooded) -> Siege {
    let client = TcpSettings { syn_cookies: SynCookies::Never, ..options.tcp.clone() };
    world(
        options,
        |lane| Host::new(lane, &["10.9.1.2/24"], &client, options.seed ^ 1, flooded),
        |lane| {
            let mut host = Host::new(lane, &["10.9.2.2/24", "10.9.2.3/24"], &client, 2, Server::default());
            host.listening = vec![8080];
            host
        },
    )
}

/// The promise: whatever comes beside them, honest clients get through, and what is kept stays flat.
#[test]
fn honest_clients_do_not_notice_a_flood() {
    const HALF_OPEN: u32 = 64;
    const AT_ONCE: usize = 8;
    let tcp = TcpSettings { half_open: HALF_OPEN, ..small_tcp() };
    let options = GatewayOptions { tcp, ..GatewayOptions::default() };
    // A new connection for each request.
    let plans = (0..400).map(|n| Plan::new([Request::get("get", 3000, n)]));
    let flooded = Flooded::new(Clients::new(plans, AT_ONCE), 200_000, us(5));
    let mut sim = siege(&options, flooded);
    let (mut most_flows, mut most_sockets, mut most_timers) = (0, 0, 0);
    let done = sim.run_until(secs(100), |sim| {
        let counters = &sim.mid.counters;
        most_flows = most_flows.max(counters.flows.read().saturating_sub(counters.time_wait.read()));
        most_sockets = most_sockets.max(counters.sockets.read());
        most_timers = most_timers.max(counters.timers.read());
        sim.north.app.clients.is_done()
    });
    assert!(done, "{:?}", sim.north.app.clients.unfinished());
    let outcomes = &sim.north.app.clients.done;
    assert!(outcomes.len() == 400 && outcomes.iter().all(|outcome| outcome.good), "every honest connection succeeds");
    let counters = &sim.mid.counters;
    assert!(sim.north.app.sources.len() > 1000, "{} made-up sources", sim.north.app.sources.len());
    assert!(counters.syn_cookies_sent.read() > 1000, "{}", counters.syn_cookies_sent.read());
    assert!(counters.syn_cookies_accepted.read() > 300, "{}", counters.syn_cookies_accepted.read());
    // Half-open ones, clients, and as many connections to backends; some linger for a moment.
    let bound = u64::from(HALF_OPEN) + 12 * AT_ONCE as u64;
    assert!(
        most_flows <= bound && most_sockets <= bound && most_timers <= 2 * bound,
        "{most_flows} {most_sockets} {most_timers}"
    );
    sim.run(secs(130));
    sim.mid.assert_empty();
}

/// Cookies on every handshake, over wires that lose and reorder: what the stack does with such a connection is what it does with any.
#[test]
fn connections_from_cookies_live_like_others() {
    for_seeds(0..6, |seed| {
        let mut random = Random::new(seed);
        let plans: Vec<_> = (0..30).map(|_| plan(&mut random)).collect();
        let tcp = TcpSettings { syn_cookies: SynCookies::Always, ..small_tcp() };
        let options = GatewayOptions { seed, tcp, path: faulty(0.01), ..GatewayOptions::default() };
        let mut sim = siege(&options, Flooded::new(Clients::new(plans, 6), 0, us(1)));
        assert!(
            sim.run_until(secs(600), |sim| sim.north.app.clients.is_done()),
            "{:?}",
            sim.north.app.clients.unfinished()
        );
        let done = &sim.north.app.clients.done;
        let good = done.iter().filter(|outcome| outcome.good).count();
        assert!(good + 3 >= done.len(), "{good} of {}", done.len());
        assert!(sim.mid.counters.syn_cookies_accepted.read() >= 30);
        sim.run(secs(130));
        sim.mid.assert_empty();
    });
}
