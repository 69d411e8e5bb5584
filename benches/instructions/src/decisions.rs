//! Decisions that tables make: who is picked, who may pass, who may connect.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use engine::balance::{Balance, Wish};
use engine::clock::Instant;
use engine::limit::Limiter;
use engine::random::Random;
use ipnet::{IpNet, Ipv4Net};
use proto::http1::{self, Limits};
use tables::selection::{request_hash, session_tag};
use tables::{
    Cluster, ClusterId, Conditions, Endpoint, EndpointId, Expression, HostPattern, HttpSettings, KeyTable, Limit,
    LimitId, LimitKey, LimitRate, Method, PathPattern, RouteTableBuilder, Selection, Snapshot, SourceTable,
};

use crate::heads::WRK;
use crate::parts::{calls, find};

/// Endpoints of the cluster that is picked from, of uneven weights.
const ENDPOINTS: u32 = 16;

/// Keys of the limits that are asked.
const KEYS: u64 = 10_000;

/// The key of session cookies.
const SECRET: [u64; 2] = [3, 4];

/// The endpoint of a request, where nothing failed: by `method`, and for those that hash by the hash of the client's address, which
/// is worked out here, too.
pub(crate) fn pick(n: u64, method: Method) {
    let balanced = Balanced::new(method);
    let hashes = matches!(method, Method::Modulo | Method::Maglev(_) | Method::Ring(..));
    balanced.picks(n, |i| {
        let client = Ipv4Addr::from_bits(0x0a00_0000 + i as u32).octets();
        Wish { hash: if hashes { request_hash(1, black_box(&client)).max(1) } else { 0 }, session: 0 }
    });
}

/// The same where a cookie names the endpoint.
pub(crate) fn pick_session(n: u64) {
    let mut balanced = Balanced::new(Method::RoundRobin);
    let members = balanced.selection.members().to_vec();
    let tags: Vec<u64> = members.iter().map(|member| session_tag(SECRET, "default/hello", member.address)).collect();
    balanced.selection = Selection::new(Method::RoundRobin, members).with_sessions(SECRET, "default/hello", Vec::new());
    balanced.picks(n, |i| Wish { hash: 0, session: tags[i as usize % tags.len()] });
}

struct Balanced {
    snapshot: Snapshot,
    selection: Selection,
}

impl Balanced {
    fn new(method: Method) -> Self {
        let endpoints: Vec<Endpoint> = (0..ENDPOINTS)
            .map(|id| Endpoint {
                id: EndpointId(id),
                address: SocketAddr::from(([10, 9, 2, id as u8], 8080)),
                weight: 1 + id % 3,
            })
            .collect();
        let cluster = Cluster::new("default/hello:8080".into(), endpoints.clone());
        let snapshot = Snapshot::new(1, HttpSettings::default(), vec![], vec![], vec![cluster], vec![]);
        Self { snapshot, selection: Selection::new(method, endpoints) }
    }

    fn picks(&self, n: u64, wish: impl Fn(u64) -> Wish) {
        let cluster = self.snapshot.cluster(ClusterId(0)).expect("there is one");
        let mut balance = Balance::new(&self.snapshot, Random::new(7));
        let mut now = Instant(1_000_000_000);
        for id in 0..ENDPOINTS {
            let address = SocketAddr::from(([10, 9, 2, id as u8], 8080));
            balance.observe((EndpointId(id), address), 100_000 + u64::from(id), now);
        }
        let under_way: Vec<u32> = (0..ENDPOINTS).map(|id| id % 5).collect();
        calls(n, |i| {
            now.0 += 10_000;
            let load = |id: EndpointId| under_way.get(id.0 as usize).copied().unwrap_or(0);
            let picked = balance.member(cluster, black_box(&self.selection), wish(i), None, now, load);
            assert!(black_box(picked).is_some());
        });
    }
}

/// Whether a request may pass a limit by its client's address, on one of `cores` cores, of as many clients as the table is for: alone a
/// core takes one at a time from the shared bucket, with others a batch. The time between requests is such that none is refused.
pub(crate) fn limit(n: u64, cores: u16, clients: u64) {
    let limit = Limit {
        name: "default/fair/per-client".into(),
        target: "Gateway/default/web".into(),
        by: LimitKey::Source { ipv4_prefix: 32, ipv6_prefix: 64 },
        rate: LimitRate::new(1_000_000, 1, 1_000_000, cores),
        policy_field: "".into(),
        limit_field: "".into(),
        keys: Arc::new(KeyTable::new(KEYS as usize, usize::from(cores), 1, 0, (1, 2))),
    };
    let snapshot = Snapshot::new(1, HttpSettings::default(), vec![], vec![], vec![], vec![]).with_limits(vec![limit]);
    let mut limiter = Limiter::new(0);
    let Ok(Some(head)) = http1::parse_request(WRK, &Limits::default()) else { panic!("refused") };
    let mut now = Instant(1_000_000_000);
    let mut admit = |i: u64| {
        now.0 += 2_000;
        let client = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + (i % clients) as u32));
        assert!(limiter.admit(&snapshot, &[LimitId(0)], black_box(client), &head, now).is_ok());
    };
    (0..clients).for_each(&mut admit);
    calls(n, admit);
}

/// Whether a client may connect, with so many networks listed.
pub(crate) fn sources(n: u64, networks: u32) {
    let net = |i: u32| Some(Ipv4Net::new((0x0a00_0000 + (i << 9)).into(), 24).ok()?.into());
    let nets: Vec<IpNet> = (0..networks).filter_map(net).collect();
    let (allow, deny) = nets.split_at(nets.len() / 2);
    let table = SourceTable::new(allow, deny);
    calls(n, |i| {
        let client = 0x0a00_0000 + (i as u32).wrapping_mul(0x9e37_79b9) % (networks << 9);
        black_box(table.allows(black_box(IpAddr::V4(client.into()))));
    });
}

/// Looks up one of `hosts` hosts, each with ten expressions and as many prefixes. All of an own host's expressions are tried, longest
/// first; 50 hosts have nearly as many as a configuration may have.
pub(crate) fn route_regex(n: u64, hosts: usize, prefixes: usize) {
    const EXPRESSIONS: usize = 10;
    let expression = |number: usize| {
        let text = format!("/p{number}/[a-z]+/[0-9]+");
        let built = schema::Expression::parse(&text).expect("it is one");
        PathPattern::Expression(Expression::new(Arc::clone(built.text()), Arc::clone(built.automaton())))
    };
    let expressions: Vec<PathPattern> = (0..EXPRESSIONS).map(expression).collect();
    let mut builder = RouteTableBuilder::default();
    for host in 0..hosts {
        let host = HostPattern::Exact(format!("h{host}.example.com").into());
        for (number, path) in (0..).zip(&expressions) {
            builder.insert(host.clone(), path, Conditions::default(), number);
        }
        for number in 0..prefixes {
            let path = PathPattern::Prefix(format!("/q{number}").into_bytes().into());
            builder.insert(host.clone(), &path, Conditions::default(), (EXPRESSIONS + number) as u32);
        }
    }
    find(n, &builder.build(), b"h1.example.com", b"/p3/running/42", 3);
}
