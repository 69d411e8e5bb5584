//! Rate limits and source lists: what a client sees, and what holds over several cores.

use std::sync::Arc;
use std::time::Duration;

use tables::access::Flag;
use tables::{KeyTable, Limit, LimitKey, LimitRate, SourceTable, Verdict};

use crate::cores;
use crate::http::Side::Client;
use crate::http::Stage;
use crate::support::appliance::Device;
use crate::support::client::{Clients, Plan, Request};
use crate::support::gateway::GatewayOptions;
use crate::support::script::{ACK, SYN};
use crate::support::{ms, secs};

fn limit(by: LimitKey, rate: LimitRate, cores: u16) -> Limit {
    Limit {
        name: "ns/policy/per-key".into(),
        target: "HTTPRoute/ns/route".into(),
        by,
        rate,
        policy_field: "\"per-key\";q=2;w=60".into(),
        limit_field: "\"per-key\";r=0;t=".into(),
        keys: Arc::new(KeyTable::new(64, usize::from(cores), 1, 0, (3, 4))),
    }
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nX-Key: one\r\n\r\n";
const OTHER: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nX-Key: two\r\n\r\n";
const REPLY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// BEHAVIOUR.md: 429 with Retry-After. The connection goes on, other keys are served, and time heals.
#[test]
fn over_the_limit_a_client_is_told_when_to_come_back() {
    let limits = vec![limit(LimitKey::Header("x-key".into()), LimitRate::new(2, 60, 2, 1), 1)];
    let mut stage = Stage::new(&GatewayOptions { limits: limits.clone(), ..GatewayOptions::default() });
    let mut client = stage.connect(4000);
    let mut backend = None;
    for _ in 0..2 {
        stage.send(Client, &mut client, ACK, GET);
        let backend = backend.get_or_insert_with(|| stage.accept());
        stage.head(crate::http::Side::Backend, backend);
        stage.send(crate::http::Side::Backend, backend, ACK, REPLY);
        stage.read(Client, &mut client, |bytes| bytes.ends_with(b"ok"));
    }
    stage.settle();
    stage.world.south.inbox.clear();
    stage.send(Client, &mut client, ACK, GET);
    let refused = stage.read(Client, &mut client, |bytes| bytes.ends_with(b"rate_limited"));
    assert!(refused.starts_with("HTTP/1.1 429 Too Many Requests\r\n"), "{refused}");
    for field in [
        "\r\nRetry-After: 30\r\n",
        "\r\nRateLimit-Policy: \"per-key\";q=2;w=60\r\n",
        "\r\nRateLimit: \"per-key\";r=0;t=30\r\n",
    ] {
        assert!(refused.contains(field), "{field:?} in {refused}");
    }
    assert!(refused.contains("\r\nConnection: keep-alive\r\n"), "{refused}");
    stage.settle();
    assert!(stage.world.south.inbox.is_empty(), "not one byte went to the backend");
    let record = &stage.world.mid.log[2];
    assert_eq!((record.status, record.flag, record.detail), (429, Flag::RateLimited, "rate_limited"));

    let backend = &mut backend.unwrap();
    stage.send(Client, &mut client, ACK, OTHER);
    stage.head(crate::http::Side::Backend, backend);
    stage.send(crate::http::Side::Backend, backend, ACK, REPLY);
    stage.read(Client, &mut client, |bytes| bytes.ends_with(b"ok"));
    stage.world.run(secs(30));
    stage.send(Client, &mut client, ACK, GET);
    stage.head(crate::http::Side::Backend, backend);
    let counts = &limits[0].keys.counts()[0];
    assert_eq!((counts.admitted.read(), counts.limited.read()), (4, 1));
}

/// DESIGN.md §3: true for the whole appliance, whichever cores the connections land on.
#[test]
fn a_limit_is_for_all_cores_together() {
    for cores in [1u16, 2, 8] {
        for device in [Device::Rss, Device::Single] {
            // One client on one connection, and others on many: the cores have unequal shares.
            let busy = Plan::new((0..60).map(|_| Request::any("/get/10/1")));
            let plans = core::iter::once(busy).chain((0..60).map(|_| Plan::new([Request::any("/get/10/2")])));
            let limits = vec![limit(LimitKey::All, LimitRate::new(50, 3600, 50, cores), cores)];
            let options = GatewayOptions { limits, ..cores::options(5) };
            let mut sim = cores::sim(cores, device, &options, Clients::new(plans, 16));
            sim.finish(secs(60));
            let responses = sim.north.app.done.iter().flat_map(|outcome| &outcome.responses);
            let (mut passed, mut refused) = (0, 0);
            for response in responses {
                match response.status() {
                    200 => passed += 1,
                    429 => refused += 1,
                    other => panic!("{other}"),
                }
            }
            assert_eq!((passed, refused), (50, 70), "{cores} cores, {device:?}");
            sim.assert_empty();
        }
    }
}

/// The same for every kind of key and for each of two keys, in every unit: a burst, and what time earns; a client's many connections and his one
/// that is busy share an allowance, wherever they lie.
#[test]
fn each_key_has_its_allowance_over_all_cores() {
    // Which requests have the first key, and which the second.
    let header = ["X-Key: one\r\n", "X-Key: two\r\n"];
    let cookie = ["Cookie: a=b; sid=one\r\n", "Cookie: sid=\"two\"\r\n"];
    let kinds: [(LimitKey, [&str; 2], bool); 4] = [
        // A route's, rule's or listener's: all of its requests together.
        (LimitKey::All, ["", ""], false),
        (LimitKey::Source { ipv4_prefix: 24, ipv6_prefix: 64 }, ["", ""], false),
        (LimitKey::Header("x-key".into()), header, true),
        (LimitKey::Cookie("sid".into()), cookie, true),
    ];
    for cores in [1u16, 2, 8] {
        for (index, (by, keys, apart)) in kinds.iter().enumerate() {
            // Each kind in another unit, and each unit on each number of cores.
            for seconds in [[60, 3600, 1, 60][index], [3600, 60, 60, 3600][index]] {
                let get = |key: usize| Request::with(&format!("/get/10/{}", key + 1), keys[key]);
                let busy = Plan::new((0..80).map(|_| get(0)));
                let many = (0..60).map(|n| Plan::new([get(usize::from(n % 3 == 0))]));
                let steady = Plan::new((0..50).map(|_| get(1)));
                let plans = core::iter::once(busy).chain(many).chain([steady]);
                let rate = LimitRate::new(30, seconds, 30, cores);
                assert_eq!(rate.batch, 1, "at such rates, limits are exact");
                let limits = vec![limit(by.clone(), rate, cores)];
                let counted = Arc::clone(&limits[0].keys);
                let options = GatewayOptions { limits, ..cores::options(7) };
                let mut sim = cores::sim(cores, Device::Rss, &options, Clients::new(plans, 16));
                let started = sim.clock.now();
                sim.finish(secs(60));
                let span = (sim.clock.now() - started).as_nanos() as u64;
                let responses: Vec<_> = sim.north.app.done.iter().flat_map(|outcome| &outcome.responses).collect();
                assert_eq!(responses.len(), 190);
                let passed = |seed: u64| {
                    let body = crate::support::http::pattern(seed, 10);
                    responses.iter().filter(|r| r.status() == 200 && r.body == body).count() as u64
                };
                let (one, two) = (passed(1), passed(2));
                let refused = responses.iter().filter(|r| r.status() == 429).count() as u64;
                assert_eq!(one + two + refused, 190);
                let most = 30 + span / rate.interval + 1;
                let fair = |passed: u64| (30..=most).contains(&passed);
                let said = format!("{one} and {two} of {most}, {cores} cores, {by:?} in {seconds} s");
                assert!(if *apart { fair(one) && fair(two) } else { fair(one + two) }, "{said}");
                let admitted: u64 = counted.counts().iter().map(|core| core.admitted.read()).sum();
                assert_eq!(admitted, one + two, "{said}");
                // They were at several cores, which is what it is about.
                let of_cores = counted.counts().iter().filter(|core| core.admitted.read() + core.limited.read() > 0);
                assert_eq!(of_cores.count().min(2), usize::from(cores).min(2), "{said}");
            }
        }
    }
}

/// At rates where cores take batches: never above what is stated, and not far below the limit.
#[test]
fn batches_keep_to_the_stated_overshoot_under_skew() {
    for cores in [2u16, 8] {
        let rate = LimitRate::new(64_000, 1, 200, cores);
        assert!(rate.batch > 1);
        let plans = (0..40).map(|n| Plan::new((0..if n == 0 { 400 } else { 25 }).map(|_| Request::any("/get/10/1"))));
        let options = GatewayOptions { limits: vec![limit(LimitKey::All, rate, cores)], ..cores::options(6) };
        let mut sim = cores::sim(cores, Device::Rss, &options, Clients::new(plans, 40));
        let started = sim.clock.now();
        sim.finish(secs(60));
        let span = (sim.clock.now() - started).as_nanos() as u64;
        let passed = sim.north.app.done.iter().flat_map(|o| &o.responses).filter(|r| r.status() == 200).count() as u64;
        let most = span / rate.interval + 200 + u64::from(cores) * (rate.batch - 1);
        assert!(passed <= most, "{passed} of {most}, {cores} cores");
        assert!(passed >= 200, "{passed}, {cores} cores");
    }
}

/// At the packet: no answer, no state.
#[test]
fn a_client_that_is_denied_meets_nobody() {
    let nets = |list: &[&str]| list.iter().map(|net| net.parse().unwrap()).collect::<Vec<_>>();
    let table = |allow: &[&str], deny: &[&str]| vec![Arc::new(SourceTable::new(&nets(allow), &nets(deny)))];
    for (sources, welcome) in [
        (table(&["10.9.0.0/16"], &[]), true),
        (table(&["10.9.0.0/16"], &["10.9.1.2/32"]), false),
        (table(&["192.0.2.0/24"], &[]), false),
        (table(&[], &["192.0.2.0/24"]), true),
    ] {
        let mut stage = Stage::new(&GatewayOptions { sources, ..GatewayOptions::default() });
        if welcome {
            stage.connect(4000);
            continue;
        }
        let mut end = stage.end(4000);
        stage.send(Client, &mut end, SYN, b"");
        stage.send(Client, &mut end, ACK, b"x");
        stage.world.run(ms(500));
        assert!(stage.world.north.inbox.is_empty(), "{:?}", stage.world.north.inbox);
        assert_eq!(stage.world.mid.drops(Verdict::SourceDenied), 2);
        stage.world.run(Duration::from_secs(1));
        stage.world.mid.assert_empty();
    }
}
