use std::sync::Arc;

use tables::inspect::{PLACES, Turn};

use super::*;
use crate::compile::Compiler;

const CONFIGURATION: &str = "
apiVersion: millrace.dev/v1alpha1
kind: Appliance
metadata: { name: edge }
spec:
  cores: [0]
  ports:
    - { name: north, device: \"net_af_packet0,iface=n\", addresses: [10.9.1.1/24, 10.9.1.5/24] }
    - { name: south, device: \"net_af_packet1,iface=s\", addresses: [10.9.2.1/24] }
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: web }
spec:
  gatewayClassName: millrace
  listeners:
    - { name: http, protocol: HTTP, port: 80 }
    - { name: shop, protocol: HTTP, port: 80, hostname: \"*.example\" }
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: shop }
spec:
  parentRefs: [{ name: web, sectionName: shop }]
  hostnames: [shop.example]
  rules:
    - name: beta
      matches: [{ path: { type: PathPrefix, value: /cart }, headers: [{ name: x-user, value: \"7\" }] }]
      filters: [{ type: RequestHeaderModifier, requestHeaderModifier: { set: [{ name: x-beta, value: \"1\" }] } }]
      backendRefs:
        - { group: millrace.dev, kind: Backend, name: a, port: 8080, weight: 3 }
        - { group: millrace.dev, kind: Backend, name: b, port: 8080, weight: 1 }
      timeouts: { request: 5s }
    - matches: [{ path: { type: PathPrefix, value: /cart } }]
      backendRefs: [{ group: millrace.dev, kind: Backend, name: a, port: 8080 }]
    - matches: [{ path: { type: Exact, value: /old } }]
      filters: [{ type: RequestRedirect, requestRedirect: { statusCode: 301, hostname: new.example } }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: all }
spec:
  parentRefs: [{ name: web, sectionName: shop }]
  rules: [{ backendRefs: [{ group: millrace.dev, kind: Backend, name: b, port: 8080 }] }]
---
apiVersion: millrace.dev/v1alpha1
kind: Backend
metadata: { name: a }
spec: { endpoints: [{ address: 10.9.2.2 }, { address: 10.9.2.3, weight: 3 }] }
---
apiVersion: millrace.dev/v1alpha1
kind: Backend
metadata: { name: b }
spec: { endpoints: [{ address: 10.9.2.4, weight: 0 }] }
---
apiVersion: millrace.dev/v1alpha1
kind: SecurityPolicy
metadata: { name: doors }
spec:
  targetRefs: [{ group: gateway.networking.k8s.io, kind: Gateway, name: web }]
  sources: { deny: [192.0.2.0/24] }
";

fn ask(query: &str) -> Explanation {
    let configuration = schema::load_str("x.yaml", CONFIGURATION).unwrap_or_else(|errors| panic!("{errors}"));
    let compiled = Compiler::new(1).compile(&Arc::new(configuration));
    explain(&compiled, &Present::default(), &Question::from_query(query).unwrap()).unwrap()
}

fn verdicts(explanation: &Explanation) -> Vec<(String, &str)> {
    let rows = explanation.considered.iter();
    rows.map(|row| (format!("{}#{}", row.route.trim_start_matches("default/"), row.rule), &*row.verdict)).collect()
}

#[test]
fn the_chosen_rule_comes_first_and_the_others_say_why_not() {
    let e = ask("url=http://shop.example/cart/1&header=X-User: 7");
    assert_eq!(
        verdicts(&e),
        [
            ("shop#0".to_owned(), "chosen"),
            ("shop#1".to_owned(), "matches, but the chosen one asks for more header fields"),
            ("all#0".to_owned(), "matches, but the chosen one's hostname is more specific"),
            ("shop#2".to_owned(), "its path does not match"),
        ]
    );
    assert_eq!(e.listener.as_ref().unwrap().name.as_deref(), Some("default/web/shop"));
    assert_eq!(e.outcome, "75.0 % to default/a:8080, 25.0 % to default/b:8080");
    let chosen = e.chosen.unwrap();
    assert_eq!(chosen.request_timeout.as_deref(), Some("5s"));
    assert!(chosen.filters[0].starts_with("requestHeaderModifier {\"set\""), "{:?}", chosen.filters);
    assert!(chosen.source.starts_with("x.yaml:"), "{}", chosen.source);
    let shares: Vec<f64> = chosen.backends[0].endpoints.iter().map(|e| e.share).collect();
    assert_eq!(shares, [0.25, 0.75]);

    let e = ask("url=http://shop.example/cart&header=x-user: 8");
    assert_eq!(verdicts(&e)[0], ("shop#1".to_owned(), "chosen"));
    let missed = e.considered.iter().find(|row| row.name.as_deref() == Some("beta")).unwrap();
    assert_eq!(missed.verdict, "header x-user is not = 7");
    assert_eq!(e.outcome, "goes to default/a:8080");
}

/// With a BackendPolicy for `a`.
fn policy(spec: &str) -> Compiled {
    let text = format!(
        "{CONFIGURATION}---\napiVersion: millrace.dev/v1alpha1\nkind: BackendPolicy\nmetadata: {{ name: a }}\nspec:\n  \
         targetRefs: [{{ group: millrace.dev, kind: Backend, name: a }}]\n{spec}"
    );
    Compiler::new(1).compile(&Arc::new(schema::load_str("x.yaml", &text).unwrap_or_else(|errors| panic!("{errors}"))))
}

#[test]
fn the_pick_is_exact_where_turns_hashes_and_sessions_decide() {
    let ask = |compiled: &Compiled, query: &str, place: Option<u32>| {
        let turns = |_: u32| turns(compiled, place.into_iter());
        let present = Present { turns: Some(&turns), ..Present::default() };
        let question = Question::from_query(&format!("url=http://shop.example/cart{query}")).unwrap();
        explain(compiled, &present, &question).unwrap().chosen.unwrap()
    };
    let pick = |compiled: &Compiled, query: &str, place| ask(compiled, query, place).backends[0].pick.clone().unwrap();
    let round_robin = policy("  loadBalancer: { type: RoundRobin }\n");
    let turns: Vec<String> = (0..4).map(|place| pick(&round_robin, "", Some(place)).endpoint.unwrap()).collect();
    assert_eq!(turns.iter().filter(|turn| *turn == "10.9.2.3:8080").count(), 3, "{turns:?}");
    let cluster = round_robin.snapshot.clusters.iter().find(|cluster| *cluster.name == *"default/a:8080").unwrap();
    let tables::Chooser::RoundRobin(schedule) = cluster.selection.chooser() else { panic!() };
    let mut cursor = 0;
    let expected =
        turns.iter().map(|_| cluster.selection.member(schedule.next(&mut cursor)).unwrap().address.to_string());
    assert_eq!(turns, expected.collect::<Vec<_>>());
    assert_eq!(pick(&round_robin, "", Some(1)).why, "it is its turn on core 0");
    let unknown = pick(&round_robin, "", None);
    assert_eq!((unknown.endpoint, unknown.candidates.len(), unknown.candidates[0].probability), (None, 2, 0.75));
    // Three of four go to a, the fourth to b.
    let next: Vec<_> = (0..4).map(|place| ask(&round_robin, "&header=x-user: 7", Some(place)).next.unwrap()).collect();
    assert_eq!(next.iter().filter(|name| *name == "default/a:8080").count(), 3, "{next:?}");

    let by_header =
        "  loadBalancer: { type: ConsistentHash, consistentHash: { type: Header, header: { name: x-id } } }\n";
    let hashed = policy(by_header);
    let of = |id: &str| pick(&hashed, &format!("&header=X-Id: {id}"), Some(0));
    assert_eq!((of("1").why.as_str(), of("1").endpoint), ("by the hash of header x-id", of("1").endpoint));
    let cluster = hashed.snapshot.clusters.iter().find(|cluster| *cluster.name == *"default/a:8080").unwrap();
    let tables::Chooser::Hashed(table) = cluster.selection.chooser() else { panic!() };
    let expected = cluster.selection.member(table.find(tables::selection::request_hash(0, b"1"))).unwrap();
    assert_eq!(of("1").endpoint, Some(expected.address.to_string()));
    let without = pick(&hashed, "", Some(0));
    assert_eq!((without.endpoint, without.why.as_str()), (None, "drawn by chance: the request has no header x-id"));

    let least = pick(&policy("  loadBalancer: { type: LeastRequest }\n"), "", Some(0));
    assert!(least.endpoint.is_none() && least.why.starts_with("of two that are drawn by chance"), "{least:?}");
    let by_source = policy("  loadBalancer: { type: SourceIPHash }\n");
    assert!(
        pick(&by_source, "", None).endpoint.is_none() && pick(&by_source, "&client=192.0.3.1", None).endpoint.is_some()
    );
}

/// What cores at these places answer.
fn turns(compiled: &Compiled, places: impl Iterator<Item = u32>) -> Vec<(u16, Turn)> {
    let turn = |place| Turn { ticket: 1, epoch: compiled.snapshot.epoch, rule: place, targets: [place; PLACES] };
    (0..).zip(places.map(turn)).collect()
}

/// Each core has turns of its own; where a hash decides, they all pick the same.
#[test]
fn each_core_says_whose_turn_it_is() {
    let ask = |compiled: &Compiled, query: &str| {
        let turns = |_: u32| turns(compiled, 0..4);
        let present = Present { turns: Some(&turns), ..Present::default() };
        let question = Question::from_query(&format!("url=http://shop.example/cart{query}")).unwrap();
        explain(compiled, &present, &question).unwrap().chosen.unwrap()
    };
    let compiled = policy("  loadBalancer: { type: RoundRobin }\n");
    let cluster = compiled.snapshot.clusters.iter().find(|cluster| *cluster.name == *"default/a:8080").unwrap();
    let tables::Chooser::RoundRobin(schedule) = cluster.selection.chooser() else { panic!() };
    let mut cursor = 0;
    let expected: Vec<CoreTurn> = (0..4)
        .map(|core| CoreTurn {
            core,
            backend: "default/a:8080".to_owned(),
            endpoint: cluster.selection.member(schedule.next(&mut cursor)).map(|member| member.address.to_string()),
        })
        .collect();
    let alone = ask(&compiled, "");
    assert_eq!(alone.cores, expected);
    assert_eq!(alone.backends[0].pick.as_ref().unwrap().endpoint, expected[0].endpoint, "the first one's");
    // Of two backends each core has one; three of four places are a's.
    let two = ask(&compiled, "&header=x-user: 7");
    let backends: Vec<&str> = two.cores.iter().map(|turn| turn.backend.as_str()).collect();
    assert_eq!(backends.iter().filter(|name| **name == "default/a:8080").count(), 3, "{backends:?}");
    assert_eq!(two.next.as_deref(), Some(backends[0]));
    let hashed =
        policy("  loadBalancer: { type: ConsistentHash, consistentHash: { type: Header, header: { name: x-id } } }\n");
    assert_eq!(ask(&hashed, "&header=x-id: 1").cores, []);
}

#[test]
fn what_is_answered_here_or_not_at_all_is_said() {
    assert_eq!(ask("url=http://shop.example/old").outcome, "answered here with 301, a redirect");
    assert_eq!(ask("url=http://x.example/").outcome, "503: default/b:8080 has no endpoint that takes requests");
    assert_eq!(ask("url=http://elsewhere.org/").outcome, "404: no rule of listener default/web/http takes it");
    let nobody = ask("url=http://shop.example:81/").outcome;
    assert!(nobody.starts_with("nobody listens there"), "{nobody}");
    let denied = ask("url=http://shop.example/&client=192.0.2.9").outcome;
    assert_eq!(denied, "192.0.2.9 may not connect (SecurityPolicy): its packets get no answer");
    let at = ask("url=http://shop.example/cart&address=10.9.1.5").listener.unwrap().address;
    assert_eq!(at, "10.9.1.5:80");
}

#[test]
fn names_are_not_resolved_where_nothing_runs() {
    let text = CONFIGURATION.replace("{ address: 10.9.2.4, weight: 0 }", "{ fqdn: { hostname: shop.test } }");
    let compiled = Compiler::new(1).compile(&Arc::new(schema::load_str("x.yaml", &text).unwrap()));
    let question = Question::from_query("url=http://x.example/").unwrap();
    let explanation = explain(&compiled, &Present::default(), &question).unwrap();
    assert_eq!(explanation.outcome, "goes to default/b:8080, whose endpoints DNS knows");
    let names = &explanation.chosen.unwrap().backends[0].names;
    assert_eq!(names[..], ["shop.test: not resolved here; a running Millrace knows its addresses"]);
}

#[test]
fn questions_survive_their_way_and_bad_ones_are_refused_in_words() {
    let question = Question {
        method: "POST".to_owned(),
        url: "http://a.b/c?d=e&f=%20".to_owned(),
        headers: vec![("x-a".to_owned(), "1&2=3+4".to_owned())],
        client: Some("2001:db8::1".parse().unwrap()),
        address: None,
        core: Some(3),
    };
    assert_eq!(Question::from_query(&question.to_query()), Ok(question));
    for (query, wrong) in [
        ("header=x", "header x has no colon"),
        ("client=me", "me is not an IP address"),
        ("core=-1", "-1 is not a core's number"),
        ("to=x", "unknown parameter to"),
    ] {
        let error = Question::from_query(query).unwrap_err();
        assert!(error.starts_with(wrong), "{error}");
    }
    let compiled = Compiler::new(1).compile(&Arc::new(schema::load_str("x.yaml", CONFIGURATION).unwrap()));
    for url in ["", "shop.example/cart", "https://shop.example/", "http:///x", "http://a b/"] {
        let question = Question { method: "GET".to_owned(), url: url.to_owned(), ..Question::default() };
        assert!(explain(&compiled, &Present::default(), &question).is_err(), "{url}");
    }
}

/// The preflight of a request is taken by the rule that would take the request, if that has a CORS filter.
#[test]
fn a_preflight_is_explained_by_the_rule_of_its_request() {
    let text = CONFIGURATION.replace(
        "  rules: [{ backendRefs: [{ group: millrace.dev, kind: Backend, name: b, port: 8080 }] }]\n",
        "  rules:\n    - matches: [{ method: PUT }]\n      filters: [{ type: CORS, cors: { allowOrigins: [\"https://a.example\"] } }]\n      \
         backendRefs: [{ group: millrace.dev, kind: Backend, name: b, port: 8080 }]\n",
    );
    assert_ne!(text, CONFIGURATION);
    let configuration = schema::load_str("x.yaml", &text).unwrap_or_else(|errors| panic!("{errors}"));
    let compiled = Compiler::new(1).compile(&Arc::new(configuration));
    let ask = |query: &str| {
        explain(
            &compiled,
            &Present::default(),
            &Question::from_query(&format!("url=http://q.example/&{query}")).unwrap(),
        )
        .unwrap()
    };
    let preflight = ask("method=OPTIONS&header=Origin: https://a.example&header=Access-Control-Request-Method: PUT");
    let chosen = preflight.considered.iter().find(|considered| considered.verdict == "chosen").unwrap();
    assert_eq!((chosen.route.as_str(), chosen.rule), ("default/all", 0));
    assert!(ask("method=OPTIONS&header=Origin: https://a.example").chosen.is_none());
    assert!(ask("method=PUT").chosen.is_some());
}
