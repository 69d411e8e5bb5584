//! Where requests go as endpoints change: sessions and hashes that persist, subsets, priorities, zones, slow start and panic, with real clients.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use support::backend::Backend;
use support::gateway::{Config, Gateway, MILLRACE};
use support::load::Load;
use support::sandbox::{Ns, Sandbox};
use support::wait_for;

/// The endpoints of these tests: 10.9.2.2 with ports from 9001 on, each of which says its port.
fn servers(sandbox: &Sandbox, ports: std::ops::RangeInclusive<u16>) -> BTreeMap<u16, Backend> {
    ports.map(|port| (port, server(sandbox, port))).collect()
}

fn server(sandbox: &Sandbox, port: u16) -> Backend {
    let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{port}");
    Backend::canned(sandbox, Ns::B1, &format!("10.9.2.2:{port}"), reply)
}

fn list(ports: &[u16]) -> Vec<String> {
    ports.iter().map(|port| format!("10.9.2.2:{port}")).collect()
}

/// Everything to the endpoints of these ports, by a policy.
fn config(ports: &[u16], policy: &str) -> Config {
    let list = list(ports);
    let list: Vec<&str> = list.iter().map(String::as_str).collect();
    Config::everything_to(&list).document(&of_backend("all", policy))
}

fn of_backend(name: &str, policy: &str) -> String {
    format!(
        "apiVersion: millrace.dev/v1alpha1\nkind: BackendPolicy\nmetadata: {{ name: {name} }}\nspec:\n  \
         targetRefs: [{{ group: millrace.dev, kind: Backend, name: {name} }}]\n{policy}"
    )
}

/// A backend whose endpoints say more of themselves: each port with further fields.
fn backend(name: &str, endpoints: &[(u16, &str)]) -> String {
    let endpoints: Vec<String> =
        endpoints.iter().map(|(port, more)| format!("{{ address: 10.9.2.2, port: {port}{more} }}")).collect();
    format!(
        "apiVersion: millrace.dev/v1alpha1\nkind: Backend\nmetadata: {{ name: {name} }}\nspec:\n  endpoints: [{}]\n",
        endpoints.join(", ")
    )
}

const CHECKED: &str = "  healthCheck:\n    active: { type: TCP, interval: 200ms, timeout: 100ms, unhealthyThreshold: 2, healthyThreshold: 2 }\n";

/// Which ports serve, and how many of `requests` each.
fn spread(gateway: &Gateway<'_>, requests: usize) -> BTreeMap<u16, usize> {
    let mut connection = gateway.connect();
    let mut counts = BTreeMap::new();
    for _ in 0..requests {
        connection.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
        let response = connection.response();
        assert_eq!(response.status, 200);
        *counts.entry(response.text().parse().expect("a port")).or_default() += 1;
    }
    counts
}

/// The port that serves a request with this field.
fn by(gateway: &Gateway<'_>, field: &str) -> u16 {
    let response = gateway.request(&format!("GET / HTTP/1.1\r\nHost: test\r\n{field}\r\nConnection: close"));
    assert_eq!(response.status, 200);
    response.text().parse().expect("a port")
}

fn expect_health(gateway: &Gateway<'_>, expected: &[(u16, &str)]) {
    wait_for("they are as they should be", Duration::from_secs(10), || {
        let all: serde_json::Value = serde_json::from_slice(&gateway.admin("/endpoints").body).expect("JSON");
        let is = |(port, health): &(u16, &str)| {
            all["endpoints"].as_array().expect("a list").iter().any(|endpoint| {
                endpoint["address"] == format!("10.9.2.2:{port}").as_str() && endpoint["health"] == *health
            })
        };
        expected.iter().all(is)
    });
}

/// curl with a jar of cookies stays where it is while endpoints come and go in front of it and behind it, and moves once its own is gone.
#[test]
fn a_session_outlives_changes_of_the_endpoints_under_load() {
    let sandbox = sandbox_or_skip!();
    let _servers = servers(&sandbox, 9001..=9006);
    let policy = "  sessionPersistence: { sessionName: sid }\n";
    let config = |ports: &[u16]| config(ports, policy).text();
    let mut gateway = Gateway::start_text(&sandbox, &config(&[9001, 9002, 9003]));
    let curl = |jar: usize| -> u16 {
        let jar = sandbox.dir().join(format!("jar{jar}"));
        let jar = jar.to_str().expect("a path");
        let said =
            sandbox.output(Ns::Client, "curl", &["-sS", "-b", jar, "-c", jar, "--max-time", "5", "http://10.9.1.1/"]);
        said.parse().expect("a port")
    };
    // Before others take turns, too.
    let first: Vec<u16> = (0..6).map(curl).collect();
    assert!([9001, 9002, 9003].iter().all(|port| first.contains(port)), "{first:?}");
    let load = Load::start(&sandbox, 4, "GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    for ports in
        [&[9001, 9002, 9003][..], &[9004, 9003, 9002, 9001], &[9006, 9001, 9005, 9002, 9004, 9003], &[9003, 9002, 9001]]
    {
        let epoch = gateway.epoch();
        gateway.rewrite(&format!("{}# {epoch}\n", config(ports)));
        if ports.len() > 3 || epoch > 1 {
            gateway.await_epoch_after(epoch);
        }
        let now: Vec<u16> = (0..6).map(curl).collect();
        assert_eq!(now, first, "with {ports:?}");
    }
    // One goes: whose it was moves, and stays there; the others stay.
    let epoch = gateway.epoch();
    gateway.rewrite(&config(&[9003, 9001]));
    gateway.await_epoch_after(epoch);
    let moved: Vec<u16> = (0..6).map(curl).collect();
    assert_eq!((0..6).map(curl).collect::<Vec<_>>(), moved);
    for (before, after) in first.iter().zip(&moved) {
        assert!(if *before == 9002 { *after != 9002 } else { after == before }, "{first:?} {moved:?}");
    }
    // It drains: sessions that it has stay, nobody new comes.
    let drain =
        sandbox.command(Ns::Millrace, MILLRACE).args(["set", "endpoint", "all", "10.9.2.2:9001", "drain"]).output();
    assert!(drain.expect("it starts").status.success());
    assert_eq!((0..6).map(curl).collect::<Vec<_>>(), moved);
    assert!((10..16).all(|jar| curl(jar) == 9003));
    let outcomes = load.finish();
    assert!(outcomes.len() > 100 && outcomes.iter().all(|o| o.is_good()));
    gateway.assert_alive();
}

/// Of a hundred users, those of an endpoint that goes move, and nearly nobody else; when it is back, they are where they were.
#[test]
fn a_hash_moves_few_when_endpoints_change_under_load() {
    for (table, slack) in
        [("maglev: { tableSize: 65537 }", 4), ("ringHash: { minimumRingSize: 4096, maximumRingSize: 65536 }", 4)]
    {
        let sandbox = sandbox_or_skip!();
        let _servers = servers(&sandbox, 9001..=9005);
        let policy = format!(
            "  loadBalancer:\n    type: ConsistentHash\n    consistentHash: {{ type: Header, header: {{ name: x-user }}, {table} }}\n"
        );
        let config = |ports: &[u16]| config(ports, &policy).text();
        let all = [9001, 9002, 9003, 9004, 9005];
        let mut gateway = Gateway::start_text(&sandbox, &config(&all));
        let load = Load::start(&sandbox, 4, "GET / HTTP/1.1\r\nHost: test\r\nX-User: load\r\n\r\n");
        let users = || (0..100).map(|user| by(&gateway, &format!("X-User: {user}"))).collect::<Vec<u16>>();
        let before = users();
        assert!(all.iter().all(|port| before.iter().filter(|by| *by == port).count() >= 8), "{before:?}");
        let change = |ports: &[u16]| {
            let epoch = gateway.epoch();
            gateway.rewrite(&config(ports));
            gateway.await_epoch_after(epoch);
        };
        change(&[9005, 9004, 9002, 9001]);
        let without = users();
        let moved = before.iter().zip(&without).filter(|(a, b)| a != b).count();
        let had_to = before.iter().filter(|port| **port == 9003).count();
        assert!(!without.contains(&9003) && moved <= had_to + slack, "{table}: {moved} moved, {had_to} had to");
        change(&[9001, 9005, 9003, 9004, 9002]);
        assert_eq!(users(), before, "{table}: whatever their order");
        let outcomes = load.finish();
        assert!(outcomes.iter().all(|o| o.is_good()));
        let all_of_one: std::collections::BTreeSet<&str> = outcomes.iter().map(|o| o.by.as_str()).collect();
        assert!(
            all_of_one.len() <= 2,
            "one user is at one place before, and at one while that is gone: {all_of_one:?}"
        );
        gateway.assert_alive();
    }
}

/// Priorities: the next level takes what the one before cannot, by Envoy's rule (1.4 times the share of those that are well), and gives it back.
#[test]
fn the_next_priority_takes_over_as_the_first_one_fails() {
    let sandbox = sandbox_or_skip!();
    let mut servers = servers(&sandbox, 9001..=9004);
    let endpoints = [(9001, ""), (9002, ""), (9003, ", priority: 1"), (9004, ", priority: 1")];
    let config = Config::new()
        .document(&backend("all", &endpoints))
        .route("all", &[], ("PathPrefix", "/"), &["all"])
        .document(&of_backend("all", CHECKED));
    let gateway = Gateway::start(&sandbox, &config);
    expect_health(&gateway, &[(9001, "healthy"), (9002, "healthy"), (9003, "healthy"), (9004, "healthy")]);
    assert_eq!(spread(&gateway, 40), [(9001, 20), (9002, 20)].into());
    // Half of them: 70 % is what the level takes.
    servers.remove(&9001);
    expect_health(&gateway, &[(9001, "unhealthy")]);
    let counts = spread(&gateway, 200);
    assert!(counts.keys().eq(&[9002, 9003, 9004]) && (138..=142).contains(&counts[&9002]), "{counts:?}");
    servers.remove(&9002);
    expect_health(&gateway, &[(9002, "unhealthy")]);
    assert_eq!(spread(&gateway, 40), [(9003, 20), (9004, 20)].into());
    // Nobody is well anywhere: 503 at once.
    servers.clear();
    expect_health(&gateway, &[(9003, "unhealthy"), (9004, "unhealthy")]);
    assert_eq!(gateway.get("/").status, 503);
    let _back = [server(&sandbox, 9001), server(&sandbox, 9002)];
    expect_health(&gateway, &[(9001, "healthy"), (9002, "healthy")]);
    assert_eq!(spread(&gateway, 40), [(9001, 20), (9002, 20)].into());
}

/// Zones: those of the appliance's own zone take all while they can; the others help as they fail, and take over.
#[test]
fn other_zones_help_where_the_own_one_fails() {
    let sandbox = sandbox_or_skip!();
    let mut servers = servers(&sandbox, 9001..=9003);
    let endpoints = [(9001, ", zone: a"), (9002, ", zone: a"), (9003, ", zone: b")];
    let policy = format!("  loadBalancer: {{ type: RoundRobin, zoneAware: {{ preferLocal: true }} }}\n{CHECKED}");
    let config = Config::new()
        .document(&backend("all", &endpoints))
        .route("all", &[], ("PathPrefix", "/"), &["all"])
        .document(&of_backend("all", &policy));
    let text = config
        .text()
        .replace("metadata: { name: edge }", "metadata: { name: edge, labels: { topology.kubernetes.io/zone: a } }");
    let gateway = Gateway::start_text(&sandbox, &text);
    expect_health(&gateway, &[(9001, "healthy"), (9002, "healthy"), (9003, "healthy")]);
    assert_eq!(spread(&gateway, 40), [(9001, 20), (9002, 20)].into());
    servers.remove(&9002);
    expect_health(&gateway, &[(9002, "unhealthy")]);
    let counts = spread(&gateway, 200);
    assert!((138..=142).contains(&counts[&9001]) && (58..=62).contains(&counts[&9003]), "{counts:?}");
    servers.remove(&9001);
    expect_health(&gateway, &[(9001, "unhealthy")]);
    assert_eq!(spread(&gateway, 20), [(9003, 20)].into());
    let _back = [server(&sandbox, 9001), server(&sandbox, 9002)];
    expect_health(&gateway, &[(9001, "healthy"), (9002, "healthy")]);
    assert_eq!(spread(&gateway, 40), [(9001, 20), (9002, 20)].into());
}

/// Panic: with fewer than half of them well, all take requests, the sick ones too; with half of them, only those that are well.
#[test]
fn with_fewer_than_half_well_all_are_tried() {
    let sandbox = sandbox_or_skip!();
    let mut servers = servers(&sandbox, 9001..=9004);
    let mut gateway = Gateway::start(&sandbox, &config(&[9001, 9002, 9003, 9004], CHECKED));
    expect_health(&gateway, &[(9001, "healthy"), (9002, "healthy"), (9003, "healthy"), (9004, "healthy")]);
    servers.remove(&9001);
    servers.remove(&9002);
    expect_health(&gateway, &[(9001, "unhealthy"), (9002, "unhealthy")]);
    assert_eq!(spread(&gateway, 40), [(9003, 20), (9004, 20)].into());
    servers.remove(&9003);
    expect_health(&gateway, &[(9003, "unhealthy")]);
    // Turns go to all four. Who meets three that refuse, one after the other, is told so; the others find the one that is left.
    let mut connection = gateway.connect();
    let mut ask = || {
        connection.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
        connection.response()
    };
    let answers: Vec<_> = (0..40).map(|_| ask()).map(|reply| (reply.status, reply.text())).collect();
    let served = answers.iter().filter(|(status, text)| *status == 200 && text == "9004").count();
    assert!(served >= 20 && answers.iter().all(|(status, _)| [200, 502].contains(status)), "{answers:?}");
    assert!(gateway.metric("millrace_upstream_connections_failed_total", &[]) >= 40, "the sick ones are tried");
    let all: serde_json::Value = serde_json::from_slice(&gateway.admin("/endpoints").body).expect("JSON");
    assert!(all["endpoints"].as_array().expect("a list").iter().all(|e| e["share"] == 0.25), "{all}");
    servers.clear();
    expect_health(&gateway, &[(9004, "unhealthy")]);
    assert_eq!(gateway.get("/").status, 503);
    gateway.assert_alive();
}

/// Slow start: what comes back gets a tenth of its share at first, more and more of it, and all of it when its window is over.
#[test]
fn who_is_back_starts_slowly() {
    const WINDOW: Duration = Duration::from_secs(8);
    let sandbox = sandbox_or_skip!();
    let mut servers = servers(&sandbox, 9001..=9002);
    let policy = format!("  loadBalancer: {{ type: RoundRobin, slowStart: {{ window: 8s }} }}\n{CHECKED}");
    let mut gateway = Gateway::start(&sandbox, &config(&[9001, 9002], &policy));
    expect_health(&gateway, &[(9001, "healthy"), (9002, "healthy")]);
    assert_eq!(
        spread(&gateway, 40),
        [(9001, 20), (9002, 20)].into(),
        "those that are there from the start start together"
    );
    servers.remove(&9001);
    expect_health(&gateway, &[(9001, "unhealthy")]);
    assert_eq!(spread(&gateway, 20), [(9002, 20)].into());
    servers.insert(9001, server(&sandbox, 9001));
    expect_health(&gateway, &[(9001, "healthy")]);
    let back = std::time::Instant::now();
    let mut shares = Vec::new();
    while back.elapsed() < WINDOW + Duration::from_secs(3) {
        let at = back.elapsed().as_secs_f64() / WINDOW.as_secs_f64();
        let counts = spread(&gateway, 200);
        let served = counts.get(&9001).copied().unwrap_or(0) as f64;
        // By weights: the ramp against the other one's 1.
        let expected = at.clamp(0.1, 1.0);
        let ramp = served / (200.0 - served);
        // It moves once a second.
        assert!((ramp - expected).abs() < 0.23, "{ramp} after {:?}, {expected} expected", back.elapsed());
        shares.push(served / 200.0);
        std::thread::sleep(Duration::from_millis(400));
    }
    eprintln!("{shares:?}");
    assert!(shares[0] < 0.2 && *shares.last().expect("some") == 0.5, "{shares:?}");
    gateway.assert_alive();
}

/// Subsets by label: each takes requests by its own members alone, and follows their labels when those change.
#[test]
fn subsets_are_those_with_the_labels() {
    let sandbox = sandbox_or_skip!();
    let _servers = servers(&sandbox, 9001..=9003);
    let make = |third: &str| {
        let of = |version: &str| {
            format!(
                "apiVersion: millrace.dev/v1alpha1\nkind: Backend\nmetadata: {{ name: {version} }}\nspec:\n  \
                 subset: {{ of: all, matchLabels: {{ version: {version} }} }}\n"
            )
        };
        let endpoints =
            [(9001, ", labels: { version: v1, disk: ssd }"), (9002, ", labels: { version: v2 }"), (9003, third)];
        Config::new()
            .document(&backend("all", &endpoints))
            .document(&of("v1"))
            .document(&of("v2"))
            .route("v1", &["v1.example"], ("PathPrefix", "/"), &["v1"])
            .route("v2", &["v2.example"], ("PathPrefix", "/"), &["v2"])
            .route("all", &[], ("PathPrefix", "/"), &["all"])
            .text()
    };
    let gateway = Gateway::start_text(&sandbox, &make(", labels: { version: v2 }"));
    let seen = |host: &str| {
        let one = |_| {
            let reply = gateway.request(&format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close"));
            if reply.status == 200 { reply.text().parse().expect("a port") } else { reply.status }
        };
        (0..12).map(one).collect::<std::collections::BTreeSet<u16>>()
    };
    assert_eq!(seen("v1.example"), [9001].into());
    assert_eq!(seen("v2.example"), [9002, 9003].into());
    assert_eq!(seen("other.example"), [9001, 9002, 9003].into());
    gateway.rewrite(&make(", labels: { version: v1 }"));
    gateway.await_epoch_after(1);
    assert_eq!((seen("v1.example"), seen("v2.example")), ([9001, 9003].into(), [9002].into()));
}

/// The example of every way to choose.
#[test]
fn the_example_chooses_in_every_way() {
    let sandbox = sandbox_or_skip!();
    sandbox.start_nginx();
    sandbox.run_script("ip -n $NS_CLIENT address add 10.9.1.4/24 dev eth0");
    let mut gateway = Gateway::start_example(&sandbox, "choosers.yaml");
    let ask = |path: &str, field: &str| {
        let reply = gateway.request(&format!("GET {path} HTTP/1.1\r\nHost: test\r\n{field}Connection: close"));
        if reply.status == 200 {
            reply.field("X-Backend").expect("a name").to_owned()
        } else {
            reply.status.to_string()
        }
    };
    let count = |path: &str, n: usize| (0..n).filter(|_| ask(path, "") == "b1").count();
    assert_eq!(count("/turns", 40), 30);
    // Five standard deviations of 100 throws of a coin.
    assert!((25..=75).contains(&count("/chance", 100)));
    assert!((1..40).contains(&count("/latency", 40)));
    assert!([0, 20].contains(&count("/client", 20)), "one client, one endpoint");
    for (path, of) in [
        ("/cookie", (|user| (String::new(), format!("Cookie: a=b; user={user}\r\n"))) as fn(usize) -> (String, String)),
        ("/query", |user| (format!("?user={user}&x"), String::new())),
    ] {
        let by = |user| {
            let (query, field) = of(user);
            ask(&format!("{path}{query}"), &field)
        };
        let users: Vec<String> = (0..30).map(by).collect();
        assert_eq!((0..30).map(by).collect::<Vec<_>>(), users, "{path}");
        assert!((5..=25).contains(&users.iter().filter(|by| *by == "b1").count()), "{path}: {users:?}");
    }
    assert_eq!(count("/v2", 10), 0);
    wait_for("the check fails", Duration::from_secs(10), || ask("/grpc", "") == "503");
    gateway.assert_alive();
}
