//! Endpoints that come and go, by health checks and by an operator's word, under load.

mod support;

use std::process::Stdio;
use std::time::{Duration, Instant};

use support::backend::Backend;
use support::gateway::{Config, Gateway, MILLRACE};
use support::sandbox::{Ns, Sandbox, VIP};
use support::wait_for;
use support::wrk::Wrk;

const ONE: &str = "10.9.2.2:9000";
const TWO: &str = "10.9.2.3:9000";

/// A policy of the backend `all`.
fn policy(spec: &str) -> String {
    format!(
        "apiVersion: millrace.dev/v1alpha1\nkind: BackendPolicy\nmetadata: {{ name: all }}\nspec:\n  \
         targetRefs: [{{ group: millrace.dev, kind: Backend, name: all }}]\n{spec}"
    )
}

const CHECKED: &str = "  healthCheck:\n    active: { type: TCP, interval: 200ms, timeout: 100ms, unhealthyThreshold: 2, healthyThreshold: 2 }\n";

/// Answers with its name.
fn named(sandbox: &Sandbox, ns: Ns, address: &str, name: &str) -> Backend {
    let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
    Backend::canned(sandbox, ns, address, reply)
}

/// The state and health of an endpoint, as `get endpoints` has them.
fn endpoint(gateway: &Gateway<'_>, address: &str) -> serde_json::Value {
    let all: serde_json::Value = serde_json::from_slice(&gateway.admin("/endpoints").body).expect("JSON");
    let endpoints = all["endpoints"].as_array().expect("a list");
    endpoints.iter().find(|e| e["address"] == address).unwrap_or_else(|| panic!("{address} in {all}")).clone()
}

/// `millrace` with these words, in the gateway's namespace: whether it went well, and what it said.
fn millrace(sandbox: &Sandbox, words: &[&str]) -> (bool, String) {
    let output = sandbox.command(Ns::Millrace, MILLRACE).args(words).stdin(Stdio::null()).output().expect("it starts");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn a_dead_endpoint_is_noticed_and_gets_nothing_until_it_is_back() {
    let sandbox = sandbox_or_skip!();
    let one = named(&sandbox, Ns::B1, ONE, "one");
    let _two = named(&sandbox, Ns::B2, TWO, "two");
    let gateway = Gateway::start(&sandbox, &Config::everything_to(&[ONE, TWO]).document(&policy(CHECKED)));
    wait_for("both are well", Duration::from_secs(10), || {
        [ONE, TWO].iter().all(|address| endpoint(&gateway, address)["health"] == "healthy")
    });
    let bodies = |n| (0..n).map(|_| gateway.get("/").text()).collect::<Vec<_>>();
    assert_eq!(bodies(20).iter().filter(|body| *body == "one").count(), 10);
    drop(one);
    wait_for("it is noticed", Duration::from_secs(10), || endpoint(&gateway, ONE)["health"] == "unhealthy");
    assert_eq!(endpoint(&gateway, ONE)["lastFailure"]["reason"], "connection refused");
    assert!(bodies(20).iter().all(|body| body == "two"));
    // Both gone: nobody is well, and that is a 503 at once.
    let _one = named(&sandbox, Ns::B1, ONE, "one");
    wait_for("it is back", Duration::from_secs(10), || endpoint(&gateway, ONE)["health"] == "healthy");
    assert_eq!(bodies(20).iter().filter(|body| *body == "one").count(), 10);
    let (went_well, table) = millrace(&sandbox, &["get", "endpoints"]);
    assert!(went_well && table.contains("connection refused"), "{table}");
}

#[test]
fn no_endpoint_that_is_well_is_a_503_at_once() {
    let sandbox = sandbox_or_skip!();
    let gateway = Gateway::start(&sandbox, &Config::everything_to(&[ONE, TWO]).document(&policy(CHECKED)));
    wait_for("it is noticed", Duration::from_secs(10), || {
        [ONE, TWO].iter().all(|address| endpoint(&gateway, address)["health"] == "unhealthy")
    });
    let start = Instant::now();
    assert_eq!(gateway.get("/").status, 503);
    assert!(start.elapsed() < Duration::from_millis(200), "{:?}", start.elapsed());
}

/// Ten drains and returns under wrk: not one request fails, and a drained endpoint gets nothing.
#[test]
fn draining_an_endpoint_under_load_fails_nothing() {
    let sandbox = sandbox_or_skip!();
    sandbox.start_nginx();
    let gateway = Gateway::start(&sandbox, &Config::everything_to(&["10.9.2.2:8080", "10.9.2.3:8080"]));
    let url = format!("http://{VIP}/");
    let load = Wrk::start(&sandbox, &["-c16", "--timeout", "2s", &url]);
    let set = |state: &[&str]| {
        let (went_well, said) = millrace(&sandbox, &[&["set", "endpoint", "all", "10.9.2.2"], state].concat());
        assert!(went_well && said.contains("1 endpoint(s) set"), "{said}");
    };
    for _ in 0..10 {
        set(&["drain"]);
        assert_eq!(endpoint(&gateway, "10.9.2.2:8080")["state"], "draining");
        assert_eq!(endpoint(&gateway, "10.9.2.3:8080")["share"], 1.0);
        std::thread::sleep(Duration::from_millis(100));
        set(&["weight", "3"]);
        set(&["ready"]);
        std::thread::sleep(Duration::from_millis(100));
    }
    load.finish();
    // wrk leaves while it waits for answers: those are 499.
    let failed: Vec<_> = gateway.answers().into_iter().filter(|(code, _)| code != "200" && code != "499").collect();
    assert_eq!(failed, []);
    let (went_well, said) = millrace(&sandbox, &["set", "endpoint", "other", "10.9.2.2", "drain"]);
    assert!(!went_well && said.contains("no route uses a backend default/other; there are default/all"), "{said}");
}

#[test]
fn what_was_set_outlives_a_restart_until_it_is_taken_back_or_gone() {
    let sandbox = sandbox_or_skip!();
    let _backends = [(Ns::B1, ONE, "one"), (Ns::B2, TWO, "two")].map(|(ns, at, name)| named(&sandbox, ns, at, name));
    let config = |endpoints: &[&str]| Config::everything_to(endpoints).text();
    let mut gateway = Gateway::start_text(&sandbox, &config(&[ONE, TWO]));
    let set = |words: &[&str]| {
        let (went_well, said) = millrace(&sandbox, &[&["set", "endpoint", "all"], words].concat());
        assert!(went_well && said == "1 endpoint(s) set\n", "{said}");
    };
    set(&["10.9.2.2", "weight", "3"]);
    set(&["10.9.2.3", "drain"]);
    for _ in 0..2 {
        gateway.terminate();
        assert!(gateway.ended(Duration::from_secs(20)).success());
        drop(gateway);
        gateway = Gateway::start_as_is(&sandbox, &[]);
        assert_eq!(endpoint(&gateway, ONE)["set"], "weight 3");
        assert_eq!(
            (&endpoint(&gateway, TWO)["set"], &endpoint(&gateway, TWO)["state"]),
            (&"drain".into(), &"draining".into())
        );
        assert!((0..10).all(|_| gateway.get("/").text() == "one"));
    }
    let (_, table) = millrace(&sandbox, &["get", "endpoints"]);
    assert!(table.contains("SET") && table.contains("weight 3"), "{table}");
    set(&["10.9.2.3", "reset"]);
    assert_eq!((0..40).filter(|_| gateway.get("/").text() == "two").count(), 10);
    // Gone from the configuration, it is gone for good.
    for endpoints in [&[TWO][..], &[ONE, TWO]] {
        let epoch = gateway.epoch();
        gateway.rewrite(&config(endpoints));
        gateway.await_epoch_after(epoch);
    }
    assert_eq!(endpoint(&gateway, ONE)["set"], serde_json::Value::Null);
    assert_eq!((0..40).filter(|_| gateway.get("/").text() == "two").count(), 20);
    assert!(
        gateway.log().contains("what was set of endpoints that are gone is forgotten: 10.9.2.2:9000 of default/all")
    );
    let (went_well, text) = millrace(&sandbox, &["get", "config"]);
    assert!(went_well && text.starts_with("# epoch 3, files, accepted "), "{text}");
    assert!(text.ends_with(&config(&[ONE, TWO])), "{text}");
    // It is what POST takes.
    assert_eq!(gateway.post("/config", &gateway.admin("/config").text()).status, 200);
}

/// What `explain` says is picked is who answers next, and saying so moves nothing.
#[test]
fn what_is_explained_is_what_happens_next() {
    let sandbox = sandbox_or_skip!();
    let backends = [(Ns::B1, "10.9.2.2:8080", "one"), (Ns::B2, "10.9.2.3:8080", "two")];
    let _backends = backends.map(|(ns, address, name)| named(&sandbox, ns, address, name));
    let config = Config::everything_to(&["10.9.2.2:8080*2", "10.9.2.3:8080"])
        .backend("kept", &["10.9.2.2:8080", "10.9.2.3:8080"])
        .route("kept", &[], ("PathPrefix", "/kept"), &["kept"])
        .document(
            "apiVersion: millrace.dev/v1alpha1\nkind: BackendPolicy\nmetadata: { name: kept }\nspec:\n  targetRefs: [{ group: \
             millrace.dev, kind: Backend, name: kept }]\n  loadBalancer: { type: ConsistentHash, consistentHash: { type: Header, \
             header: { name: x-user } } }\n  sessionPersistence: { sessionName: sid }\n",
        );
    let gateway = Gateway::start(&sandbox, &config);
    let explained = |path: &str, field: &str| {
        let url = format!("http://{VIP}{path}");
        let words = ["explain", "GET", &url, "-o", "json"];
        let words = if field.is_empty() { words.to_vec() } else { [&words[..], &["-H", field]].concat() };
        let (went_well, said) = millrace(&sandbox, &words);
        assert!(went_well, "{said}");
        let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
        let pick = said["chosen"]["backends"][0]["pick"].clone();
        let name = match pick["endpoint"].as_str() {
            Some("10.9.2.2:8080") => "one",
            Some("10.9.2.3:8080") => "two",
            other => panic!("{other:?} in {said}"),
        };
        (name.to_owned(), pick["why"].as_str().expect("a reason").to_owned())
    };
    for _ in 0..9 {
        let (pick, why) = explained("/", "");
        assert_eq!((explained("/", "").0, why.as_str()), (pick.clone(), "it is its turn on core 0"));
        assert_eq!(gateway.get("/").text(), pick);
    }
    let mut session = String::new();
    for user in 0..8 {
        let field = format!("X-User: {user}");
        let answer = gateway.request(&format!("GET /kept HTTP/1.1\r\nHost: test\r\n{field}\r\nConnection: close"));
        assert_eq!(explained("/kept", &field), (answer.text(), "by the hash of header x-user".to_owned()));
        let cookie = answer.field("set-cookie").expect("a session").split(';').next().expect("a pair").to_owned();
        assert_eq!(explained("/kept", &format!("Cookie: {cookie}")), (answer.text(), "cookie sid names it".to_owned()));
        session = cookie;
    }
    let (_, text) =
        millrace(&sandbox, &["explain", "GET", &format!("http://{VIP}/kept"), "-H", &format!("Cookie: {session}")]);
    assert!(text.contains("    pick     10.9.2.") && text.contains(": cookie sid names it"), "{text}");
}

/// A Service and its slice: the one that is ready answers, and the one that terminates does not.
#[test]
fn a_kubernetes_service_is_a_backend() {
    let sandbox = sandbox_or_skip!();
    let backends = [(Ns::B1, "10.9.2.2:8080", "one"), (Ns::B2, "10.9.2.3:8080", "two")];
    let _backends = backends.map(|(ns, address, name)| named(&sandbox, ns, address, name));
    let gateway = Gateway::start_example(&sandbox, "kubernetes.yaml");
    for _ in 0..10 {
        assert_eq!(gateway.get("/").text(), "one");
    }
    assert!(gateway.get("/").field("set-cookie").is_some_and(|cookie| cookie.starts_with("hello-session=")));
    assert_eq!(endpoint(&gateway, "10.9.2.3:8080")["state"], "terminating");
}

/// The example's backends: checks, a hash of a field, and a session by cookie.
#[test]
fn the_example_balances() {
    let sandbox = sandbox_or_skip!();
    let backends = [(Ns::B1, "10.9.2.2:8080", "one"), (Ns::B2, "10.9.2.3:8080", "two")];
    let _backends = backends.map(|(ns, address, name)| named(&sandbox, ns, address, name));
    let gateway = Gateway::start_example(&sandbox, "balancing.yaml");
    let ask = |path: &str, field: &str| {
        gateway.request(&format!("GET {path} HTTP/1.1\r\nHost: test\r\n{field}Connection: close"))
    };
    wait_for("the absent one is noticed", Duration::from_secs(15), || {
        endpoint(&gateway, "10.9.2.9:8080")["health"] == "unhealthy"
    });
    for _ in 0..20 {
        assert_eq!(ask("/", "").status, 200);
    }
    let mut users = std::collections::BTreeSet::new();
    for user in 0..20 {
        let field = format!("X-User: {user}\r\n");
        let first = ask("/user", &field).text();
        assert!((0..5).all(|_| ask("/user", &field).text() == first));
        users.insert(first);
    }
    assert_eq!(users.len(), 2);
    let first = ask("/cart", "");
    let cookie = first.field("set-cookie").expect("a session").to_owned();
    assert!(cookie.starts_with("cart-session=") && cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax; Max-Age=86400"));
    let field = format!("Cookie: {}\r\n", cookie.split(';').next().expect("a pair"));
    for _ in 0..10 {
        let next = ask("/cart", &field);
        assert_eq!((next.text(), next.field("set-cookie")), (first.text(), None));
    }
    // What nobody was given names nobody.
    let made_up = ask("/cart", "Cookie: cart-session=0123456789abcdef\r\n");
    assert!(made_up.field("set-cookie").is_some());
}
