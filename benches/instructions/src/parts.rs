//! Single parts of the packet path and of HTTP.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use engine::clock::Instant;
use engine::flow::{FlowKey, FlowTable};
use engine::port::{Ingress, Port};
use engine::steer::{PortPlan, Steered, places};
use engine::timer::Wheel;
use pmd::{BURST, Burst, Lane, checksum};
use proto::http1::{self, BodyDecoder, Connection, Decoded, ForwardOptions, Framing, Limits, Method, Version};
use tables::route::Host;
use tables::{
    Conditions, CoreCounters, HostPattern, PathPattern, PortSettings, Request, RouteTable, RouteTableBuilder, Schedule,
    TcpSettings, ValueMatch,
};

use crate::collect_here;
use crate::frames::{ACK, PSH, Peer};
use crate::heads::{BROWSER, CANARY, NGINX, WRK};
use crate::lane::MemoryLane;

/// Measures `n` calls, after a few that bring the caches of the process (CPU features, first allocations) into being.
pub(crate) fn calls(n: u64, mut call: impl FnMut(u64)) {
    (0..3).for_each(&mut call);
    collect_here(&mut || (0..n).for_each(&mut call));
}

pub(crate) fn checksum_1460(n: u64) {
    let bytes: Vec<u8> = (0..1460u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    calls(n, |_| {
        black_box(checksum::sum(0, black_box(&bytes)));
    });
}

pub(crate) fn flow_find(n: u64) {
    const FLOWS: u32 = 100_000;
    let key = |i: u32| {
        let remote = Ipv4Addr::from_bits(0x0a00_0000 + i / 50_000);
        FlowKey::v4(Ipv4Addr::new(10, 9, 1, 1), 80, remote, (i % 50_000) as u16 + 10_000)
    };
    let keys: Vec<FlowKey> = (0..FLOWS).map(key).collect();
    let mut table = FlowTable::with_capacity(FLOWS as usize, [1, 2]);
    for (value, key) in (0..).zip(&keys) {
        assert!(table.insert(table.hash(key), value).is_ok());
    }
    calls(n, |i| {
        let key = &keys[(i * 7919 % u64::from(FLOWS)) as usize];
        let hash = table.hash(black_box(key));
        assert!(table.find(hash, |value| keys[value as usize] == *key).is_some());
    });
}

pub(crate) fn timer(n: u64) {
    const KEYS: u64 = 10_000;
    let mut wheel = Wheel::with_capacity(KEYS as usize);
    let mut now = Instant::default();
    // Each is armed anew long before it is due, but for every hundredth, which fires.
    let mut step = |i: u64| {
        now = now + Duration::from_micros(10);
        let after = if i.is_multiple_of(100) { Duration::from_millis(2) } else { Duration::from_secs(10) };
        wheel.schedule((i % KEYS) as u32, now + after);
        wheel.advance(now, 256, |key| {
            black_box(key);
        });
    };
    (0..KEYS).for_each(&mut step);
    calls(n, step);
}

pub(crate) fn ingress(n: u64, payload: usize) {
    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
    let settings = PortSettings::untagged("north", "10.9.1.1/24".parse().into_iter().collect());
    let mut port = Port::new(0, MemoryLane::new(MAC), &settings, &TcpSettings::default());
    let counters = CoreCounters::new(1);
    let mut peer = Peer {
        here: SocketAddrV4::new(Ipv4Addr::new(10, 9, 1, 2), 4000),
        there: SocketAddrV4::new(Ipv4Addr::new(10, 9, 1, 1), 80),
        macs: ([2, 0, 0, 0, 0, 3], MAC),
        seq: 1,
        ack: 1,
    };
    let mut bytes = Vec::new();
    peer.segment(ACK | PSH, &vec![b'x'; payload], &mut bytes);
    port.lane_mut().arrive(&bytes);
    let mut burst = Burst::new();
    port.lane_mut().receive(&mut burst);
    let mut frame = burst.pop();
    calls(n, |_| {
        let Some(received) = frame.take() else { panic!("the frame was dropped") };
        if let Ingress::Segment(kept, segment) = port.ingress(Instant::default(), received, &counters) {
            black_box(&segment);
            frame = Some(kept);
        }
    });
}

/// A packet that arrives at the core with the queue and is received by the one that its flow belongs to.
pub(crate) fn hand_over(n: u64) {
    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
    let plans = [PortPlan { queues: 1, ..PortPlan::default() }];
    let mut cores = places(2, &plans, &TcpSettings::default(), [1, 2]).into_iter();
    let mut core = || {
        let (_, links) = cores.next().expect("two");
        Steered::new(MemoryLane::new(MAC), links.into_iter().next().expect("one"))
    };
    let (mut first, mut second) = (core(), core());
    let mut burst = Burst::new();
    let mut bytes = Vec::new();
    // A client whose flow is the second core's.
    for port in 4000.. {
        let here = SocketAddrV4::new(Ipv4Addr::new(10, 9, 1, 2), port);
        let there = SocketAddrV4::new(Ipv4Addr::new(10, 9, 1, 1), 80);
        Peer { here, there, macs: ([2, 0, 0, 0, 0, 3], MAC), seq: 1, ack: 1 }.segment(ACK, &[], &mut bytes);
        first.device_mut().arrive(&bytes);
        first.receive(&mut burst);
        if burst.is_empty() {
            break;
        }
        burst.clear();
    }
    second.receive(&mut burst);
    burst.clear();
    let mut turn = |first: &mut Steered<MemoryLane>, second: &mut Steered<MemoryLane>| {
        first.receive(&mut burst);
        assert!(burst.is_empty());
        second.receive(&mut burst);
        assert_eq!(burst.len(), BURST);
        burst.clear();
    };
    for round in 0..n / BURST as u64 + 2 {
        (0..BURST).for_each(|_| first.device_mut().arrive(&bytes));
        if round < 2 {
            turn(&mut first, &mut second);
        } else {
            collect_here(&mut || turn(&mut first, &mut second));
        }
    }
}

pub(crate) fn parse_request(n: u64, head: &[u8]) {
    let limits = Limits::default();
    calls(n, |_| {
        let parsed = http1::parse_request(black_box(head), &limits);
        assert!(matches!(black_box(&parsed), Ok(Some(_))));
    });
}

pub(crate) fn parse_wrk(n: u64) {
    parse_request(n, WRK);
}

pub(crate) fn parse_browser(n: u64) {
    parse_request(n, BROWSER);
}

pub(crate) fn encode_request(n: u64, head: &[u8]) {
    let Ok(Some(head)) = http1::parse_request(head, &Limits::default()) else { panic!("refused") };
    let options = ForwardOptions {
        client: IpAddr::V4(Ipv4Addr::new(10, 9, 1, 2)),
        scheme: "http",
        forwarded_for: http1::ForwardedFor::Append,
        via: None,
        default_authority: "10.9.1.1",
        changes: None,
    };
    let mut out = Vec::with_capacity(4096);
    calls(n, |_| {
        out.clear();
        http1::encode_request(black_box(&head), &options, &mut out);
        black_box(&out);
    });
}

pub(crate) fn encode_wrk(n: u64) {
    encode_request(n, WRK);
}

pub(crate) fn encode_browser(n: u64) {
    encode_request(n, BROWSER);
}

pub(crate) fn parse_response(n: u64) {
    let limits = Limits::default();
    calls(n, |_| {
        let parsed = http1::parse_response(black_box(NGINX), Method::Get, &limits);
        assert!(matches!(black_box(&parsed), Ok(Some(_))));
    });
}

pub(crate) fn encode_response(n: u64) {
    let Ok(Some(head)) = http1::parse_response(NGINX, Method::Get, &Limits::default()) else { panic!("refused") };
    let mut out = Vec::with_capacity(4096);
    calls(n, |_| {
        out.clear();
        let head = black_box(&head);
        http1::encode_response(head, head.framing, Connection::KeepAlive, Version::Http11, None, None, &mut out);
        black_box(&out);
    });
}

pub(crate) fn chunked_16k(n: u64) {
    let mut body = Vec::new();
    for _ in 0..4 {
        http1::encode_chunk_header(4096, &mut body);
        body.extend_from_slice(&[b'x'; 4096]);
        body.extend_from_slice(http1::CHUNK_END);
    }
    body.extend_from_slice(http1::LAST_CHUNK);
    calls(n, |_| {
        let mut decoder = BodyDecoder::new(Framing::Chunked);
        let mut rest = black_box(&body[..]);
        let mut payload = 0;
        loop {
            match decoder.decode(rest) {
                Ok(Decoded::Data { skip, len }) => {
                    rest = &rest[skip + len..];
                    decoder.advance(len);
                    payload += len;
                }
                Ok(Decoded::End { .. }) => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(payload, 16 << 10);
    });
}

/// Looks up a path three segments deep, in a table of `hosts` hosts with `paths` prefixes each.
fn route(n: u64, hosts: usize, paths: usize) {
    let mut builder = RouteTableBuilder::default();
    for host in 0..hosts {
        for path in 0..paths {
            let pattern = PathPattern::Prefix(format!("/products/p{path}").into_bytes().into());
            let host = HostPattern::Exact(format!("h{host}.example.com").into());
            builder.insert(host, &pattern, Conditions::default(), path as u32);
        }
    }
    find(n, &builder.build(), b"h1.example.com", b"/products/p3/running", 3);
}

/// Looks a path up, which `rule` serves.
pub(crate) fn find(n: u64, table: &RouteTable, host: &[u8], path: &[u8], rule: u32) {
    let Ok(Some(head)) = http1::parse_request(WRK, &Limits::default()) else { panic!("refused") };
    calls(n, |_| {
        let fields = head.fields.iter().map(|field| (field.name, field.value));
        let request = Request { method: head.method_bytes, path: black_box(path), query: None, fields };
        assert_eq!(table.find(&Host::new(black_box(host)), &request), Some(rule));
    });
}

pub(crate) fn route_10(n: u64) {
    route(n, 2, 5);
}

pub(crate) fn route_10_000(n: u64) {
    route(n, 100, 100);
}

/// Looks up one of `users` rules of the same path, of which each wants another value of a header field.
pub(crate) fn route_by_header(n: u64, users: u32) {
    // Each has a hash of its own. With a few of them, a field that is no key has the mark of one by chance, which is a tenth more instructions.
    let tables: [_; 8] = core::array::from_fn(|_| routes_by_header(users));
    let Ok(Some(head)) = http1::parse_request(CANARY, &Limits::default()) else { panic!("refused") };
    calls(n, |at| {
        let fields = head.fields.iter().map(|field| (field.name, field.value));
        let request = Request { method: head.method_bytes, path: black_box(head.path), query: None, fields };
        assert_eq!(tables[at as usize % tables.len()].find(&Host::new(head.host), &request), Some(7));
    });
}

fn routes_by_header(users: u32) -> RouteTable {
    let mut builder = RouteTableBuilder::default();
    let root = PathPattern::Prefix(b"/".as_slice().into());
    for user in 0..users {
        let wanted = (b"x-user".as_slice().into(), ValueMatch::Exact(user.to_string().into_bytes().into()));
        let conditions = Conditions { headers: [wanted].into(), ..Conditions::default() };
        builder.insert(HostPattern::Any, &root, conditions, user);
    }
    builder.insert(HostPattern::Any, &root, Conditions::default(), users);
    builder.build()
}

pub(crate) fn schedule(n: u64) {
    let schedule = Schedule::new(&[5, 1, 1]).expect("somebody has a turn");
    let mut cursor = 0;
    calls(n, |_| {
        black_box(schedule.next(&mut cursor));
    });
}
