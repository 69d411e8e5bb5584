use tables::{Request, Routed};

use super::*;
use crate::status::{Condition, ConditionKind, ConditionStatus};

const APPLIANCE: &str = "
apiVersion: millrace.dev/v1alpha1
kind: Appliance
metadata: { name: edge }
spec:
  cores: [0]
  ports:
    - { name: north, device: \"net_af_packet0,iface=n\", addresses: [10.9.1.1/24, 10.9.1.5/24] }
    - { name: south, device: \"net_af_packet1,iface=s\", addresses: [10.9.2.1/24] }
";

const BACKENDS: &str = "
---
apiVersion: millrace.dev/v1alpha1
kind: Backend
metadata: { name: a }
spec: { endpoints: [{ address: 10.9.2.2 }, { address: 10.9.2.3, weight: 2 }, { address: 10.9.2.4, port: 9000 }] }
---
apiVersion: millrace.dev/v1alpha1
kind: Backend
metadata: { name: b }
spec: { endpoints: [{ address: 10.9.2.2 }] }
";

fn gateway(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{ name: {name} }}\n\
         spec: {{ gatewayClassName: millrace, {spec} }}\n"
    )
}

fn route(metadata: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{ {metadata} }}\nspec: {{ {spec} }}\n"
    )
}

/// One rule: these matches, this backend.
fn rule(path: &str, kind: &str, backend: &str) -> String {
    format!(
        "{{ matches: [{{ path: {{ type: {kind}, value: {path} }} }}], \
         backendRefs: [{{ group: millrace.dev, kind: Backend, name: {backend}, port: 8080 }}] }}"
    )
}

fn configuration(documents: &[String]) -> Arc<Configuration> {
    let text = format!("{APPLIANCE}{BACKENDS}{}", documents.concat());
    Arc::new(schema::load_str("test.yaml", &text).unwrap_or_else(|errors| panic!("{errors}\n{text}")))
}

fn compile(documents: &[String]) -> Compiled {
    Compiler::new(1).compile(&configuration(documents))
}

/// Which route and rule serves the request: `route#rule`; `404` for none, `-` where nobody listens.
fn served(compiled: &Compiled, address: &str, host: &str, path: &str) -> String {
    let Some(bind) = compiled.snapshot.bind(address.parse().unwrap()) else {
        return "-".to_owned();
    };
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query.as_bytes())));
    let fields = core::iter::empty::<(&[u8], &[u8])>();
    let request = Request { method: b"GET", path: path.as_bytes(), query, fields };
    match compiled.snapshot.route(bind, host.as_bytes(), &request) {
        Routed::Rule(_, rule) => format!("{}#{}", rule.route.strip_prefix("default/").unwrap(), rule.index),
        Routed::Nothing(_) => "404".to_owned(),
    }
}

fn reason(conditions: &[Condition], kind: ConditionKind) -> (ConditionStatus, &str) {
    let condition = conditions.iter().find(|c| c.kind == kind).unwrap();
    (condition.status, &condition.reason)
}

const WEB: &str =
    "addresses: [{ type: IPAddress, value: 10.9.1.1 }], listeners: [{ name: http, protocol: HTTP, port: 80 }]";

#[test]
fn the_smallest_configuration_routes() {
    let compiled = compile(&[
        gateway("web", WEB),
        route("name: hello", &format!("parentRefs: [{{ name: web }}], rules: [{}]", rule("/", "PathPrefix", "a"))),
    ]);
    assert_eq!(served(&compiled, "10.9.1.1:80", "any.example", "/x"), "hello#0");
    assert_eq!(served(&compiled, "10.9.1.1:81", "any.example", "/x"), "-");
    assert_eq!(served(&compiled, "10.9.1.5:80", "any.example", "/x"), "-");
    let snapshot = &compiled.snapshot;
    let cluster = snapshot.cluster(snapshot.rules[0].targets[0].cluster).unwrap();
    assert_eq!(&*cluster.name, "default/a:8080");
    let endpoints: Vec<_> = cluster.selection.members().iter().map(|e| (e.address.to_string(), e.weight)).collect();
    let expected = [("10.9.2.2:8080", 1), ("10.9.2.3:8080", 2), ("10.9.2.4:9000", 1)];
    assert_eq!(endpoints, expected.map(|(a, w)| (a.to_owned(), w)));
    let series = &snapshot.series[snapshot.rules[0].targets[0].series.0 as usize];
    assert_eq!(
        [&*series.listener, &*series.route, &*series.backend],
        ["default/web/http", "default/hello", "default/a"]
    );
    assert_eq!(reason(&compiled.routes[0].parents[0].conditions, ConditionKind::Accepted).0, ConditionStatus::True);
    assert_eq!(compiled.gateways[0].listeners[0].attached_routes, 1);
}

#[test]
fn a_gateway_without_addresses_listens_on_all() {
    let compiled = compile(&[
        gateway("web", "listeners: [{ name: http, protocol: HTTP, port: 80 }]"),
        route("name: r", &format!("parentRefs: [{{ name: web }}], rules: [{}]", rule("/", "PathPrefix", "a"))),
    ]);
    for address in ["10.9.1.1:80", "10.9.1.5:80", "10.9.2.1:80"] {
        assert_eq!(served(&compiled, address, "h", "/"), "r#0");
    }
}

#[test]
fn listeners_of_several_gateways_share_a_bind_and_keep_their_hosts_apart() {
    let wildcard = "listeners: [{ name: w, protocol: HTTP, port: 80, hostname: \"*.example.com\" }]";
    let exact = "listeners: [{ name: e, protocol: HTTP, port: 80, hostname: api.example.com }]";
    let compiled = compile(&[
        gateway("wild", wildcard),
        gateway("api", exact),
        route("name: w", &format!("parentRefs: [{{ name: wild }}], rules: [{}]", rule("/", "PathPrefix", "a"))),
        route("name: e", &format!("parentRefs: [{{ name: api }}], rules: [{}]", rule("/v1", "PathPrefix", "b"))),
    ]);
    let at = |host, path| served(&compiled, "10.9.1.1:80", host, path);
    assert_eq!(at("www.example.com", "/"), "w#0");
    assert_eq!(at("a.b.example.com", "/"), "w#0");
    assert_eq!(at("api.example.com", "/v1/x"), "e#0");
    // The most specific listener answers alone: the wildcard's route does not serve another listener's host.
    assert_eq!(at("api.example.com", "/"), "404");
    assert_eq!(at("example.com", "/"), "404");
    assert_eq!(at("other.org", "/"), "404");
    assert_eq!(compiled.snapshot.binds().len(), 3);
}

#[test]
fn hostnames_of_route_and_listener_meet() {
    let compiled = compile(&[
        gateway("web", "listeners: [{ name: w, protocol: HTTP, port: 80, hostname: \"*.example.com\" }]"),
        route(
            "name: r",
            &format!(
                "parentRefs: [{{ name: web }}], hostnames: [a.example.com, \"*.b.example.com\", other.org], rules: [{}]",
                rule("/", "PathPrefix", "a")
            ),
        ),
        route(
            "name: stranger",
            &format!(
                "parentRefs: [{{ name: web }}], hostnames: [other.org], rules: [{}]",
                rule("/", "PathPrefix", "a")
            ),
        ),
    ]);
    let at = |host| served(&compiled, "10.9.1.1:80", host, "/");
    assert_eq!([at("a.example.com"), at("x.b.example.com")], ["r#0", "r#0"]);
    assert_eq!([at("c.example.com"), at("b.example.com"), at("other.org")], ["404", "404", "404"]);
    let stranger = &compiled.routes[1].parents[0].conditions;
    assert_eq!(reason(stranger, ConditionKind::Accepted), (ConditionStatus::False, "NoMatchingListenerHostname"));
    assert_eq!(compiled.gateways[0].listeners[0].attached_routes, 1);
}

#[test]
fn a_routes_own_hostname_decides_even_on_an_exact_listener() {
    let compiled = compile(&[
        gateway("web", "listeners: [{ name: e, protocol: HTTP, port: 80, hostname: a.example.com }]"),
        route(
            "name: wide",
            &format!(
                "parentRefs: [{{ name: web }}], hostnames: [\"*.example.com\"], rules: [{}]",
                rule("/long/path", "PathPrefix", "a")
            ),
        ),
        route(
            "name: narrow",
            &format!(
                "parentRefs: [{{ name: web }}], hostnames: [a.example.com], rules: [{}]",
                rule("/long", "PathPrefix", "b")
            ),
        ),
        route("name: none", &format!("parentRefs: [{{ name: web }}], rules: [{}]", rule("/", "PathPrefix", "b"))),
    ]);
    let at = |path| served(&compiled, "10.9.1.1:80", "a.example.com", path);
    assert_eq!([at("/long/path"), at("/long"), at("/")], ["narrow#0", "narrow#0", "none#0"]);
}

#[test]
fn paths_and_ties() {
    let prefix = |backend| rule("/same", "PathPrefix", backend);
    let compiled = compile(&[
        gateway("web", WEB),
        route(
            "name: b, creationTimestamp: \"2025-01-01T00:00:00Z\"",
            &format!("parentRefs: [{{ name: web }}], rules: [{}]", rule("/x", "PathPrefix", "b")),
        ),
        route(
            "name: a, creationTimestamp: \"2025-01-01T00:00:00Z\"",
            &format!(
                "parentRefs: [{{ name: web }}], rules: [{}, {}, {}]",
                prefix("b"),
                rule("/x", "PathPrefix", "b"),
                rule("/x", "Exact", "b")
            ),
        ),
        route(
            "name: z, creationTimestamp: \"2024-01-01T00:00:00Z\"",
            &format!("parentRefs: [{{ name: web }}], rules: [{}, {}]", rule("/x", "Exact", "a"), prefix("a")),
        ),
    ]);
    let at = |path| served(&compiled, "10.9.1.1:80", "h", path);
    assert_eq!(at("/same/y"), "z#1", "the older route wins");
    assert_eq!(at("/x"), "z#0", "Exact wins over a prefix, and the older Exact over the younger");
    assert_eq!(at("/x/y"), "a#1", "of the same age the first by name wins");
    assert_eq!(at("/xy"), "404");
}

#[test]
fn a_rule_without_matches_serves_every_path() {
    let refs = "backendRefs: [{ group: millrace.dev, kind: Backend, name: a, port: 8080 }]";
    let compiled = compile(&[
        gateway("web", WEB),
        route("name: r", &format!("parentRefs: [{{ name: web }}], rules: [{{ {refs} }}]")),
    ]);
    assert_eq!(served(&compiled, "10.9.1.1:80", "h", "/any/thing"), "r#0");
}

#[test]
fn section_name_and_port_narrow_the_parent() {
    let listeners = "listeners: [{ name: one, protocol: HTTP, port: 80 }, { name: two, protocol: HTTP, port: 81 }, \
                     { name: three, protocol: HTTP, port: 82 }]";
    let compiled = compile(&[
        gateway("web", listeners),
        route(
            "name: r",
            &format!(
                "parentRefs: [{{ name: web, sectionName: one }}, {{ name: web, port: 82 }}], rules: [{}]",
                rule("/", "PathPrefix", "a")
            ),
        ),
    ]);
    let at = |port| served(&compiled, &format!("10.9.1.1:{port}"), "h", "/");
    assert_eq!([at(80), at(81), at(82)], ["r#0", "404", "r#0"]);
    let parents = &compiled.routes[0].parents;
    assert_eq!(parents[0].parent, "default/web/one");
    assert_eq!(reason(&parents[1].conditions, ConditionKind::Accepted).0, ConditionStatus::True);
}

#[test]
fn routes_of_other_namespaces_need_leave() {
    let listeners = "listeners: [{ name: own, protocol: HTTP, port: 80 }, \
                     { name: all, protocol: HTTP, port: 81, allowedRoutes: { namespaces: { from: All } } }]";
    let backend = "---\napiVersion: millrace.dev/v1alpha1\nkind: Backend\nmetadata: { name: a, namespace: shop }\n\
                   spec: { endpoints: [{ address: 10.9.2.2 }] }\n";
    let parent = |section| format!("{{ name: web, namespace: default, sectionName: {section} }}");
    let compiled = compile(&[
        gateway("web", listeners),
        backend.to_owned(),
        route(
            "name: r, namespace: shop",
            &format!("parentRefs: [{}, {}], rules: [{}]", parent("own"), parent("all"), rule("/", "PathPrefix", "a")),
        ),
    ]);
    let parents = &compiled.routes[0].parents;
    assert_eq!(
        reason(&parents[0].conditions, ConditionKind::Accepted),
        (ConditionStatus::False, "NotAllowedByListeners")
    );
    assert_eq!(reason(&parents[1].conditions, ConditionKind::Accepted).0, ConditionStatus::True);
    assert_eq!(compiled.gateways[0].listeners.iter().map(|l| l.attached_routes).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn weights_and_timeouts_reach_the_rule() {
    let refs = "backendRefs: [{ group: millrace.dev, kind: Backend, name: a, port: 80, weight: 3 }, \
                { group: millrace.dev, kind: Backend, name: b, port: 80, weight: 0 }]";
    let compiled = compile(&[
        gateway("web", WEB),
        route(
            "name: r",
            &format!(
                "parentRefs: [{{ name: web }}], rules: [{{ {refs}, timeouts: {{ request: 10s, backendRequest: 2s }} }}, \
                 {{ matches: [{{ path: {{ type: Exact, value: /stream }} }}], {refs}, timeouts: {{ request: 0s }} }}, \
                 {{ matches: [{{ path: {{ type: Exact, value: /none }} }}] }}]"
            ),
        ),
    ]);
    let rules = &compiled.snapshot.rules;
    assert_eq!(rules[0].targets.iter().map(|t| t.weight).collect::<Vec<_>>(), [3, 0]);
    assert_eq!(rules[0].request_timeout, Some(core::time::Duration::from_secs(10)));
    assert_eq!(rules[0].backend_timeout, Some(core::time::Duration::from_secs(2)));
    assert_eq!(rules[1].request_timeout, Some(core::time::Duration::MAX));
    assert!(rules[2].schedule.is_none(), "no backend: answered 500");
}

#[test]
fn ids_outlive_compilations() {
    let hello =
        route("name: hello", &format!("parentRefs: [{{ name: web }}], rules: [{}]", rule("/", "PathPrefix", "a")));
    let more =
        route("name: aaa", &format!("parentRefs: [{{ name: web }}], rules: [{}]", rule("/a", "PathPrefix", "b")));
    let mut compiler = Compiler::new(2);
    let first = compiler.compile(&configuration(&[gateway("web", WEB), hello.clone()]));
    let second = compiler.compile(&configuration(&[gateway("web", WEB), more, hello]));
    let third = compiler.compile(&configuration(&[gateway("web", WEB)]));
    assert_eq!([&first, &second, &third].map(|c| c.snapshot.epoch), [1, 2, 3]);
    assert!(third.snapshot.series.len() >= second.snapshot.series.len());
    for (id, series) in first.snapshot.series.iter().enumerate() {
        assert!(Arc::ptr_eq(series, &second.snapshot.series[id]), "the same series counts on");
        assert_eq!(series.cores.len(), 2);
    }
    let ids = |compiled: &Compiled| -> HashMap<SocketAddr, EndpointId> {
        compiled.snapshot.clusters.iter().flat_map(|c| c.selection.members()).map(|e| (e.address, e.id)).collect()
    };
    let later = ids(&second);
    assert!(ids(&first).iter().all(|(address, id)| later[address] == *id));
    let route_series = first.snapshot.rules[0].targets[0].series;
    assert!(second.series_in_use.contains(&route_series) && !third.series_in_use.contains(&route_series));
    assert!(third.snapshot.rules.is_empty());
}

#[test]
fn no_two_series_or_endpoints_share_an_id() {
    let compiled = compile(&[
        gateway("web", "listeners: [{ name: http, protocol: HTTP, port: 80 }]"),
        route(
            "name: r",
            &format!(
                "parentRefs: [{{ name: web }}], rules: [{}, {}]",
                rule("/", "PathPrefix", "a"),
                rule("/b", "PathPrefix", "b")
            ),
        ),
    ]);
    let labels: HashSet<_> = compiled.snapshot.series.iter().map(|s| (&s.listener, &s.route, &s.backend)).collect();
    assert_eq!(labels.len(), compiled.snapshot.series.len());
    let endpoints: Vec<_> = compiled.snapshot.clusters.iter().flat_map(|c| c.selection.members()).collect();
    for a in &endpoints {
        for b in &endpoints {
            assert_eq!(a.id == b.id, a.address == b.address);
        }
    }
}

#[test]
fn the_appliances_numbers_reach_the_cores() {
    let mut configuration = Arc::unwrap_or_clone(configuration(&[]));
    configuration.appliance.value.spec.tcp.half_open = 77;
    configuration.appliance.value.spec.http.limits.fields = 33;
    configuration.appliance.value.spec.http.timeouts.request = schema::Timeout::Never;
    let settings = core_settings(&configuration);
    assert_eq!(settings.tcp.half_open, 77);
    assert_eq!((settings.tcp.syn_cookies, settings.tcp.source_limit), (tables::SynCookies::Overload, None));
    assert_eq!(settings.ports.iter().map(|p| &*p.name).collect::<Vec<_>>(), ["north", "south"]);
    assert_eq!(settings.ports[0].interfaces[0].addresses.len(), 2);
    let http = &Compiler::new(1).compile(&Arc::new(configuration)).snapshot.http;
    assert_eq!((http.max_fields, http.request_timeout), (33, None));
}

#[test]
fn flood_limits_reach_the_cores() {
    let mut configuration = Arc::unwrap_or_clone(configuration(&[]));
    let tcp = &mut configuration.appliance.value.spec.tcp;
    tcp.syn_cookies = schema::SynCookies::Always;
    let limit =
        schema::SourceLimit { connections_per_second: 5, burst: 6, ipv4_prefix: 24, ipv6_prefix: 56, sources: 128 };
    tcp.source_limit = Some(limit);
    let tcp = core_settings(&configuration).tcp;
    assert_eq!(tcp.syn_cookies, tables::SynCookies::Always);
    let limit = tables::SourceLimit { connections_per_second: 5, burst: 6, prefix_v4: 24, prefix_v6: 56, sources: 128 };
    assert_eq!(tcp.source_limit, Some(limit));
}

#[test]
fn a_listener_in_conflict_is_served_nowhere() {
    // `schema` refuses such files; a cluster's Gateways will come one by one.
    let mut configuration = Arc::unwrap_or_clone(configuration(&[
        gateway("old", WEB),
        gateway(
            "young",
            "addresses: [{ type: IPAddress, value: 10.9.1.5 }], listeners: [{ name: http, protocol: HTTP, port: 80 }]",
        ),
        route("name: o", &format!("parentRefs: [{{ name: old }}], rules: [{}]", rule("/", "PathPrefix", "a"))),
        route("name: y", &format!("parentRefs: [{{ name: young }}], rules: [{}]", rule("/y", "PathPrefix", "a"))),
    ]));
    configuration.gateways[1].value.spec.addresses.clear();
    let compiled = Compiler::new(1).compile(&Arc::new(configuration));
    assert_eq!(served(&compiled, "10.9.1.1:80", "h", "/y"), "o#0");
    assert_eq!(served(&compiled, "10.9.1.5:80", "h", "/y"), "-");
    let young = &compiled.gateways[1];
    assert_eq!(
        reason(&young.listeners[0].conditions, ConditionKind::Conflicted),
        (ConditionStatus::True, "HostnameConflict")
    );
    assert_eq!(reason(&young.conditions, ConditionKind::Programmed).0, ConditionStatus::False);
    assert_eq!(reason(&compiled.routes[1].parents[0].conditions, ConditionKind::Accepted).0, ConditionStatus::False);
}

fn policy(name: &str, targets: &str, rules: &str) -> String {
    format!(
        "---\napiVersion: millrace.dev/v1alpha1\nkind: RoutePolicy\nmetadata: {{ name: {name} }}\n\
         spec: {{ targetRefs: [{targets}], rateLimit: {{ rules: [{rules}] }} }}\n"
    )
}

#[test]
fn limits_are_attached_where_they_point_and_live_on() {
    let to = |kind: &str, name: &str, section: &str| {
        format!("{{ group: gateway.networking.k8s.io, kind: {kind}, name: {name}{section} }}")
    };
    let limit =
        |name: &str, requests: u32| format!("{{ name: {name}, limit: {{ requests: {requests}, unit: Minute }} }}");
    let documents = |requests: u32| {
        [
            gateway(
                "web",
                "addresses: [{ value: 10.9.1.1 }], listeners: [{ name: http, protocol: HTTP, port: 80 }, { name: alt, protocol: HTTP, port: 81 }]",
            ),
            route(
                "name: a",
                &format!(
                    "parentRefs: [{{ name: web }}], rules: [{}, {}]",
                    rule("/a", "PathPrefix", "a"),
                    rule("/b", "PathPrefix", "a")
                ),
            ),
            policy("wide", &to("Gateway", "web", ", sectionName: http"), &limit("all", 9)),
            policy("narrow", &to("HTTPRoute", "a", ""), &limit("all", requests)),
        ]
    };
    let mut compiler = Compiler::new(2);
    let names = |compiled: &Compiled, address: &str, path: &str| -> Vec<String> {
        let bind = compiled.snapshot.bind(address.parse().unwrap()).unwrap();
        let fields = core::iter::empty::<(&[u8], &[u8])>();
        let request = Request { method: b"GET", path: path.as_bytes(), query: None, fields };
        let Routed::Rule(_, rule) = compiled.snapshot.route(bind, b"x", &request) else { panic!() };
        let limits = rule.limits.iter().flatten();
        limits.map(|id| compiled.snapshot.limits[id.0 as usize].name.to_string()).collect()
    };
    let first = compiler.compile(&configuration(&documents(5)));
    assert_eq!(names(&first, "10.9.1.1:80", "/b"), ["default/wide/all", "default/narrow/all"]);
    assert_eq!(names(&first, "10.9.1.1:81", "/b"), ["default/narrow/all"]);
    let fields = |compiled: &Compiled| compiled.snapshot.limits[1].policy_field.to_string();
    assert_eq!(fields(&first), "\"all\";q=5;w=60");

    // Other numbers, the same buckets; gone and back, new ones in the same place.
    let second = compiler.compile(&configuration(&documents(6)));
    assert_eq!(fields(&second), "\"all\";q=6;w=60");
    let keys = |compiled: &Compiled, at: usize| Arc::clone(&compiled.snapshot.limits[at].keys);
    assert!(Arc::ptr_eq(&keys(&first, 1), &keys(&second, 1)));
    let without = compiler.compile(&configuration(&documents(6)[..3]));
    assert_eq!(without.snapshot.limits.len(), 1);
    let third = compiler.compile(&configuration(&documents(6)));
    assert!(!Arc::ptr_eq(&keys(&first, 1), &keys(&third, 1)));
    assert_eq!(keys(&first, 1).slot(), keys(&third, 1).slot());
}

/// Whose turn it is goes with names: cursors stay when routes, rules with names and backends change their places, and when others come.
#[test]
fn cursors_follow_names() {
    let several = |name: &str, backends: &[&str]| {
        let refs = backends.iter().map(|b| format!("{{ group: millrace.dev, kind: Backend, name: {b}, port: 8080 }}"));
        format!("{{ name: {name}, backendRefs: [{}] }}", refs.collect::<Vec<_>>().join(", "))
    };
    let named = |name: &str, path: &str| {
        let rule = several(name, &["a", "b"]);
        rule.replacen(
            "backendRefs",
            &format!("matches: [{{ path: {{ type: PathPrefix, value: {path} }} }}], backendRefs"),
            1,
        )
    };
    let attached = |rules: &[String]| format!("parentRefs: [{{ name: web }}], rules: [{}]", rules.join(", "));
    let mut compiler = Compiler::new(1);
    let cursors = |compiled: &Compiled| -> (BTreeMap<(String, u32), u32>, BTreeMap<String, u32>) {
        let snapshot = &compiled.snapshot;
        let rules = snapshot.rules.iter().filter(|rule| rule.targets.len() > 1);
        let clusters = snapshot.clusters.iter();
        (
            rules.map(|rule| ((rule.route.to_string(), rule.index), rule.cursor)).collect(),
            clusters.map(|cluster| (cluster.name.to_string(), cluster.cursor)).collect(),
        )
    };
    let first = compiler.compile(&configuration(&[
        gateway("web", WEB),
        route("name: m", &attached(&[named("x", "/x"), named("y", "/y")])),
    ]));
    let (rules, clusters) = cursors(&first);
    assert_eq!((rules.len(), clusters.len()), (2, 2));
    let later = compiler.compile(&configuration(&[
        gateway("web", WEB),
        route("name: c", &attached(&[several("x", &["b", "a"])])),
        route("name: m", &attached(&[named("y", "/y"), named("x", "/x")])),
    ]));
    let (now, clusters_now) = cursors(&later);
    let of = |rules: &BTreeMap<(String, u32), u32>, route: &str, at| rules[&(format!("default/{route}"), at)];
    assert_eq!((of(&now, "m", 0), of(&now, "m", 1)), (of(&rules, "m", 1), of(&rules, "m", 0)), "rules turned round");
    assert!(!rules.values().any(|cursor| *cursor == of(&now, "c", 0)), "another one's is its own");
    assert_eq!(clusters_now, clusters, "clusters too, whose order is another one");
    assert_ne!(first.snapshot.clusters[0].name, later.snapshot.clusters[0].name);
    assert_eq!(later.snapshot.cursors(), (3, 2));
}
