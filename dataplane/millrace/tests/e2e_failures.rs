//! Backends that are down, slow, broken or lying: what the client gets, and that nobody else notices.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use support::backend::{Backend, Served};
use support::gateway::{Config, Gateway};
use support::pattern;
use support::sandbox::{Ns, Sandbox, VIP};

const RAW: &str = "10.9.2.2:9000";

/// Short patience, so that the tests need little.
const TIMEOUTS: &str = "  http: { timeouts: { head: 1s, body: 1s, connect: 1s, response: 1s } }\n";

fn gateway(sandbox: &Sandbox) -> Gateway<'_> {
    Gateway::start(sandbox, &Config::everything_to(&[RAW]).appliance(TIMEOUTS))
}

#[test]
fn a_backend_that_refuses_or_is_not_there_is_a_gateway_error() {
    let sandbox = sandbox_or_skip!();
    let config = Config::everything_to(&[RAW])
        .appliance(TIMEOUTS)
        .backend("nobody", &["10.9.2.77:80"])
        .route("nobody", &[], ("PathPrefix", "/nobody"), &["nobody"])
        .backend("off", &["10.9.2.2:9000*0"])
        .route("off", &[], ("PathPrefix", "/off"), &["off"]);
    let gateway = Gateway::start(&sandbox, &config);
    // Nothing listens: the kernel there answers with a RST.
    let start = Instant::now();
    assert_eq!(gateway.get("/").status, 502);
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    // Nobody has the address: ARP is not answered.
    let reply = gateway.get("/nobody");
    assert!(matches!(reply.status, 502 | 504), "{reply:?}");
    // No endpoint may serve it.
    assert_eq!(gateway.get("/off").status, 503);
    // It comes up, and is used at once.
    let _backend = Backend::echo(&sandbox, Ns::B1, RAW);
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn another_endpoint_is_tried_when_one_refuses() {
    let sandbox = sandbox_or_skip!();
    let _backend = Backend::echo(&sandbox, Ns::B2, "10.9.2.3:9000");
    let config = Config::everything_to(&[RAW, "10.9.2.3:9000"]).appliance(TIMEOUTS);
    let gateway = Gateway::start(&sandbox, &config);
    for _ in 0..20 {
        // Nothing was sent to the endpoint that refused, so that even a POST may go elsewhere.
        let reply = gateway.request("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\nConnection: close");
        assert_eq!(reply.status, 200);
    }
}

#[test]
fn a_backend_that_closes_or_resets_before_its_reply_is_a_502() {
    let sandbox = sandbox_or_skip!();
    let _backend = Backend::start(&sandbox, Ns::B1, RAW, |served| {
        let Some(head) = served.head() else { return };
        if head.contains("/reset") {
            served.reset();
        } else if head.contains("/half") {
            served.send("HTTP/1.1 200 OK\r\nContent-Le");
        }
    });
    let gateway = gateway(&sandbox);
    for path in ["/close", "/reset", "/half"] {
        assert_eq!(gateway.get(path).status, 502, "{path}");
    }
}

#[test]
fn a_backend_that_says_nothing_is_a_504() {
    let sandbox = sandbox_or_skip!();
    let _backend = Backend::start(&sandbox, Ns::B1, RAW, |served| while served.request().is_some() {});
    let gateway = gateway(&sandbox);
    let start = Instant::now();
    assert_eq!(gateway.get("/").status, 504);
    let took = start.elapsed();
    assert!((Duration::from_millis(900)..Duration::from_secs(4)).contains(&took), "{took:?}");
}

#[test]
fn the_request_timeout_of_a_route_is_kept() {
    let sandbox = sandbox_or_skip!();
    let _backend = Backend::start(&sandbox, Ns::B1, RAW, |served| while served.request().is_some() {});
    let route = r#"apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: quick }
spec:
  parentRefs: [{ name: web }]
  rules:
    - backendRefs: [{ group: millrace.dev, kind: Backend, name: all, port: 8080 }]
      timeouts: { request: 300ms }
"#;
    let config = Config::new().backend("all", &[RAW]).document(route);
    let gateway = Gateway::start(&sandbox, &config);
    let start = Instant::now();
    assert_eq!(gateway.get("/").status, 504);
    let took = start.elapsed();
    assert!((Duration::from_millis(250)..Duration::from_secs(2)).contains(&took), "{took:?}");
}

#[test]
fn a_reply_that_dies_in_its_body_never_looks_complete() {
    let sandbox = sandbox_or_skip!();
    let _backend = Backend::start(&sandbox, Ns::B1, RAW, |served| {
        let Some(head) = served.head() else { return };
        if head.contains("/length") {
            served.send("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n");
            served.send(pattern(60_000));
        } else if head.contains("/chunked") {
            served.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n");
            served.send(pattern(1024));
            served.send("\r\n400\r\n");
            served.send(pattern(500));
        } else if head.contains("/bad-chunk") {
            served.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\nwhat\r\n0\r\n\r\n");
        }
        std::thread::sleep(Duration::from_millis(100));
        if head.contains("reset") {
            served.reset();
        }
    });
    let gateway = gateway(&sandbox);
    for path in ["/length", "/chunked", "/length-reset", "/chunked-reset", "/bad-chunk"] {
        let reply = gateway.get(path);
        assert_eq!(reply.status, 200, "{path}");
        assert!(!reply.complete, "{path} looks complete with {} bytes", reply.body.len());
    }
}

#[test]
fn a_reply_that_stalls_is_cut_off() {
    let sandbox = sandbox_or_skip!();
    let _backend = Backend::start(&sandbox, Ns::B1, RAW, |served| {
        if served.head().is_some() {
            served.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegin");
            while served.some().is_some() {}
        }
    });
    let gateway = gateway(&sandbox);
    let start = Instant::now();
    let reply = gateway.get("/");
    assert!(!reply.complete && reply.text() == "begin", "{reply:?}");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn an_invalid_head_from_a_backend_is_a_502() {
    let sandbox = sandbox_or_skip!();
    const REPLIES: &[(&str, &str)] = &[
        ("garbage", "220 mail.example.com ESMTP\r\n\r\n"),
        ("version", "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ("status", "HTTP/1.1 2x0 OK\r\nContent-Length: 0\r\n\r\n"),
        ("both framings", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
        ("a signed length", "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello"),
        ("unknown coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello"),
        ("space before the colon", "HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello"),
        ("obs-fold", "HTTP/1.1 200 OK\r\nX-A: 1\r\n 2\r\nContent-Length: 0\r\n\r\n"),
        ("a bare LF", "HTTP/1.1 200 OK\nContent-Length: 0\n\n"),
        ("NUL", "HTTP/1.1 200 OK\r\nX-A: a\0b\r\nContent-Length: 0\r\n\r\n"),
        ("unasked 101", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"),
    ];
    let _backend = Backend::start(&sandbox, Ns::B1, RAW, |served| {
        let Some(head) = served.head() else { return };
        let number = head.trim_start_matches("GET /").split(' ').next().and_then(|word| word.parse::<usize>().ok());
        match number.and_then(|number| REPLIES.get(number)) {
            Some((_, reply)) => {
                served.send(reply);
            }
            None => {
                for _ in 0..9 {
                    served.send("HTTP/1.1 103 Early Hints\r\n\r\n");
                }
                served.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            }
        }
        while served.some().is_some() {}
    });
    let gateway = gateway(&sandbox);
    for (number, (what, _)) in REPLIES.iter().enumerate() {
        assert_eq!(gateway.get(&format!("/{number}")).status, 502, "{what}");
    }
    let mut connection = gateway.connect();
    connection.send("GET /interim HTTP/1.1\r\nHost: test\r\n\r\n");
    let mut interim = 0;
    let last = loop {
        let reply = connection.response();
        if reply.status != 103 {
            break reply.status;
        }
        interim += 1;
    };
    assert_eq!((last, interim <= 8), (502, true), "{interim} interim replies");
}

#[test]
fn bytes_on_an_idle_backend_connection_end_it() {
    let sandbox = sandbox_or_skip!();
    let backend = Backend::start(&sandbox, Ns::B1, RAW, |served| {
        while served.request().is_some() {
            served.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            std::thread::sleep(Duration::from_millis(50));
            served.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong");
        }
    });
    let gateway = gateway(&sandbox);
    for _ in 0..5 {
        assert_eq!(gateway.get("/").text(), "ok");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(backend.connections(), 5, "a connection that spoke unasked was used again");
}

#[test]
fn a_backend_that_closes_idle_connections_costs_no_request() {
    let sandbox = sandbox_or_skip!();
    // Each connection serves three requests and then closes without a word, at the moment when the next may be under way.
    let _backend = Backend::start(&sandbox, Ns::B1, RAW, |served| {
        for _ in 0..3 {
            if served.request().is_none() {
                return;
            }
            served.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let gateway = gateway(&sandbox);
    let mut connection = gateway.connect();
    for n in 0..300 {
        connection.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
        let reply = connection.response();
        assert_eq!(reply.status, 200, "request {n}: {reply:?}");
    }
    let url = format!("http://{VIP}/");
    let output = sandbox.output(Ns::Client, "wrk", &["-t1", "-c8", "-d2s", &url]);
    assert!(!output.contains("Non-2xx") && !output.contains("Socket errors"), "{output}");
}

#[test]
fn a_post_is_never_sent_twice() {
    let sandbox = sandbox_or_skip!();
    static POSTS: AtomicUsize = AtomicUsize::new(0);
    // Serves one request, and dies of the second.
    let serve = |served: &mut Served| {
        for n in 0..2 {
            let Some(request) = served.request() else { return };
            if request.head.starts_with("POST") {
                POSTS.fetch_add(1, Ordering::SeqCst);
            }
            if n == 0 {
                served.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
        }
    };
    let _backend = Backend::start(&sandbox, Ns::B1, RAW, serve);
    let gateway = gateway(&sandbox);
    assert_eq!(gateway.get("/").status, 200);
    let reply = gateway.request("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\nConnection: close");
    assert_eq!(reply.status, 502);
    assert_eq!(POSTS.load(Ordering::SeqCst), 1);
    // A GET may be repeated, and is.
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(gateway.get("/").status, 200);
}
