//! The examples of matches and filters, as they stand in `config/examples/`.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use support::backend::Backend;
use support::client::Response;
use support::gateway::Gateway;
use support::sandbox::{Ns, Sandbox};
use support::wait_for;

/// The two backends of the examples, each of which says what it got.
fn backends(sandbox: &Sandbox) -> [Backend; 2] {
    [stable(sandbox), says(sandbox, Ns::B2, "10.9.2.3:8080", "canary")]
}

fn stable(sandbox: &Sandbox) -> Backend {
    says(sandbox, Ns::B1, "10.9.2.2:8080", "stable")
}

fn says(sandbox: &Sandbox, ns: Ns, address: &str, name: &'static str) -> Backend {
    Backend::start(sandbox, ns, address, move |served| {
        while let Some(request) = served.request() {
            let body = request.head;
            let head = format!("HTTP/1.1 200 OK\r\nServer: {name}\r\nX-By: {name}\r\nContent-Length: {}", body.len());
            served.send(format!("{head}\r\n\r\n{body}"));
        }
    })
}

/// Asks for a target with these fields.
fn ask(gateway: &Gateway<'_>, line: &str, fields: &[&str]) -> Response {
    let fields: String = fields.iter().map(|field| format!("\r\n{field}")).collect();
    let host = if fields.contains("\r\nHost:") { "" } else { "\r\nHost: test" };
    gateway.request(&format!("{line} HTTP/1.1{host}{fields}\r\nConnection: close"))
}

fn by(response: &Response) -> &str {
    response.field("X-By").unwrap_or_default()
}

#[test]
fn a_canary_gets_its_share_and_those_who_ask_for_it() {
    let sandbox = sandbox_or_skip!();
    let _backends = backends(&sandbox);
    let gateway = Gateway::start_example(&sandbox, "canary.yaml");
    for _ in 0..3 {
        let always = ask(&gateway, "GET /", &["X-Canary: always"]);
        assert_eq!((by(&always), always.field("X-Stage")), ("canary", Some("canary")));
        assert_eq!(by(&ask(&gateway, "GET /", &["x-canary: never"])), "stable");
    }
    let answers: Vec<_> = (0..50).map(|_| ask(&gateway, "GET /", &[])).collect();
    assert_eq!(answers.iter().filter(|answer| by(answer) == "canary").count(), 5);
    assert!(answers.iter().all(|answer| answer.field("X-Stage").is_some() == (by(answer) == "canary")));
}

#[test]
fn matches_of_all_kinds_choose() {
    let sandbox = sandbox_or_skip!();
    let _backends = backends(&sandbox);
    let gateway = Gateway::start_example(&sandbox, "matches.yaml");
    for (line, fields, expected) in [
        ("GET /", &[][..], "stable"),
        ("GET /api/x", &[], "stable"),
        ("POST /api/x", &["Content-Length: 0"], "canary"),
        ("PUT /api", &["Content-Length: 0"], "canary"),
        ("GET /v2/x", &[], "canary"),
        ("GET /v1/x", &[], "stable"),
        ("GET /x/v2", &[], "stable"),
        ("GET /?a=b&preview=%79es", &[], "canary"),
        ("GET /?preview=yes!", &[], "stable"),
        ("GET /", &["User-Agent: Mozilla/5.0 Gecko/20100101 Firefox/145.0"], "canary"),
        ("GET /", &["User-Agent: Mozilla/5.0 Gecko/20100101 Firefox/45.0"], "stable"),
    ] {
        assert_eq!(by(&ask(&gateway, line, fields)), expected, "{line} {fields:?}");
    }
}

#[test]
fn requests_are_redirected_and_rewritten() {
    let sandbox = sandbox_or_skip!();
    let _backends = backends(&sandbox);
    let gateway = Gateway::start_example(&sandbox, "redirects.yaml");
    for (target, status, location) in [
        ("/blog/2025?page=2", 301, "https://www.example.com/news/2025?page=2"),
        ("/blog", 301, "https://www.example.com/news"),
        ("/blogs", 308, "http://www.example.com/blogs"),
    ] {
        let answer = ask(&gateway, &format!("GET {target}"), &["Host: old.example.com"]);
        assert_eq!((answer.status, answer.field("Location")), (status, Some(location)), "{target}");
    }
    let answer = ask(&gateway, "GET /files/a/b?c", &["Host: www.example.com", "Cookie: secret"]);
    let seen = answer.text();
    assert!(seen.starts_with("GET /a/b?c HTTP/1.1\r\nHost: files.internal\r\n"), "{seen}");
    assert!(seen.contains("\r\nX-Forwarded-Prefix: /files\r\n") && !seen.contains("secret"), "{seen}");
    assert_eq!((answer.field("Server"), answer.field("Cache-Control")), (None, Some("public")));
}

#[test]
fn a_mirror_gets_its_share_and_may_be_dead() {
    let sandbox = sandbox_or_skip!();
    let stable = stable(&sandbox);
    let dead = Arc::new(AtomicBool::new(false));
    let canary = Backend::start(&sandbox, Ns::B2, "10.9.2.3:8080", {
        let dead = Arc::clone(&dead);
        move |served| {
            while served.request().is_some() && !dead.load(Ordering::Relaxed) {
                served.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            }
        }
    });
    let gateway = Gateway::start_example(&sandbox, "mirror.yaml");
    let mut connection = gateway.connect();
    let mut ask = |times: usize| {
        for _ in 0..times {
            connection.send("POST /x HTTP/1.1\r\nHost: shop\r\nContent-Length: 10\r\n\r\n0123456789");
            let answer = connection.response();
            assert_eq!((answer.status, by(&answer)), (200, "stable"));
        }
    };
    ask(200);
    let copies = || canary.text().matches("POST /x HTTP/1.1\r\nHost: shop\r\n").count();
    wait_for("the copies", Duration::from_secs(5), || {
        copies() == gateway.metric("millrace_mirror_requests_total", &[]) as usize
    });
    assert!((9..=11).contains(&copies()), "{} copies of 200", copies());
    assert_eq!(gateway.metric("millrace_mirror_requests_lost_total", &[]), 0);
    // It takes what comes and closes, from now on.
    dead.store(true, Ordering::Relaxed);
    ask(200);
    let copied = gateway.metric("millrace_mirror_requests_total", &[]);
    assert!((18..=22).contains(&copied), "{copied}");
    wait_for("the loss", Duration::from_secs(20), || gateway.metric("millrace_mirror_requests_lost_total", &[]) > 5);
    assert_eq!(stable.text().matches("POST /x").count(), 400);
}

#[test]
fn other_origins_get_what_they_may_have() {
    let sandbox = sandbox_or_skip!();
    let [stable, _canary] = backends(&sandbox);
    let gateway = Gateway::start_example(&sandbox, "cors.yaml");
    let preflight = |origin: &str| {
        ask(&gateway, "OPTIONS /x", &[&format!("Origin: {origin}"), "Access-Control-Request-Method: PUT"])
    };
    let answer = preflight("https://a.example.org");
    assert_eq!((answer.status, answer.field("Access-Control-Allow-Methods")), (200, Some("GET, PUT, DELETE")));
    assert_eq!(answer.field("Access-Control-Allow-Origin"), Some("https://a.example.org"));
    assert_eq!(preflight("https://example.net").field("Access-Control-Allow-Origin"), None);
    assert_eq!(stable.connections(), 0, "preflights are answered here");
    let answer = ask(&gateway, "PUT /x", &["Content-Length: 0", "Origin: https://shop.example.com"]);
    assert_eq!((by(&answer), answer.field("Access-Control-Allow-Credentials")), ("stable", Some("true")));
}

#[test]
fn namespaces_open_and_grant() {
    let sandbox = sandbox_or_skip!();
    let _backends = backends(&sandbox);
    let gateway = Gateway::start_example(&sandbox, "namespaces.yaml");
    assert_eq!(by(&ask(&gateway, "GET /", &[])), "stable");
    let status = gateway.admin("/status").text();
    assert!(status.contains("NotAllowedByListeners"), "{status}");
}

#[test]
fn what_failed_is_tried_again() {
    let sandbox = sandbox_or_skip!();
    // Every third answer is a good one, and one of the others never comes.
    let turn = AtomicUsize::new(0);
    let backend = Backend::start(&sandbox, Ns::B1, "10.9.2.2:8080", move |served| {
        while served.request().is_some() {
            match turn.fetch_add(1, Ordering::SeqCst) % 3 {
                0 => served.send("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"),
                1 => return served.reset(),
                _ => served.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
            };
        }
    });
    let gateway = Gateway::start_example(&sandbox, "retry.yaml");
    for _ in 0..5 {
        assert_eq!(ask(&gateway, "GET /x", &[]).status, 200);
    }
    assert_eq!(gateway.metric("millrace_upstream_requests_retried_total", &[]), 10);
    assert_eq!(ask(&gateway, "POST /x", &["Content-Length: 0"]).status, 503, "it may not be sent twice");
    assert_eq!(backend.text().matches("GET /x").count(), 15);
}
