//! What BEHAVIOUR.md says about bad HTTP/1.1: the status, the end of the connection, and that no byte reaches a backend.

mod support;

use std::time::{Duration, Instant};

use support::backend::Backend;
use support::gateway::{Config, Gateway};
use support::sandbox::{Ns, Sandbox};
use support::wait_for;

const RAW: &str = "10.9.2.2:9000";

const LIMITS: &str = "  http: { timeouts: { head: 1s, body: 1s, idle: 2s }, limits: { body: 1MiB } }\n";

fn gateway(sandbox: &Sandbox) -> Gateway<'_> {
    Gateway::start(sandbox, &Config::everything_to(&[RAW]).appliance(LIMITS))
}

/// Sends bytes, and expects a status and then the end, with nothing that a backend would have seen.
fn refused(gateway: &Gateway<'_>, backend: &Backend, what: &str, bytes: &[u8], status: u16) {
    let (connections, seen) = (backend.connections(), backend.bytes().len());
    let mut connection = gateway.connect();
    connection.try_send(bytes);
    let reply = connection.try_response(false).unwrap_or_else(|| panic!("{what}: no reply"));
    assert_eq!(reply.status, status, "{what}: {reply:?}");
    assert!(connection.closed(), "{what}: the connection stays open");
    assert_eq!(
        (backend.connections(), backend.bytes().len()),
        (connections, seen),
        "{what}: something reached the backend: {}",
        backend.text()
    );
}

#[test]
fn ambiguous_or_malformed_requests_are_400_and_reach_no_backend() {
    let sandbox = sandbox_or_skip!();
    let backend = Backend::echo(&sandbox, Ns::B1, RAW);
    let mut gateway = gateway(&sandbox);
    // A request line and fields around the one that matters; a second request is smuggled behind it.
    let post = |field: &str| {
        format!(
            "POST / HTTP/1.1\r\nHost: test\r\n{field}\r\n\r\n5\r\nhello\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n"
        )
    };
    let get = |field: &str| format!("GET / HTTP/1.1\r\nHost: test\r\n{field}\r\n\r\n");
    let cases: &[(&str, String)] = &[
        ("length and coding", post("Content-Length: 5\r\nTransfer-Encoding: chunked")),
        ("coding and length", post("Transfer-Encoding: chunked\r\nContent-Length: 0")),
        ("length twice, the same", post("Content-Length: 5\r\nContent-Length: 5")),
        ("length twice, different", post("Content-Length: 5\r\nContent-Length: 6")),
        ("empty length", post("Content-Length:")),
        ("signed length", post("Content-Length: +5")),
        ("negative length", post("Content-Length: -5")),
        ("hexadecimal length", post("Content-Length: 0x5")),
        ("listed length", post("Content-Length: 5, 5")),
        ("overflowing length", post("Content-Length: 18446744073709551616")),
        ("length with a space inside", post("Content-Length: 5 5")),
        ("chunked is not last", post("Transfer-Encoding: chunked, gzip")),
        ("chunked twice", post("Transfer-Encoding: chunked, chunked")),
        ("coding twice", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked")),
        ("empty coding", post("Transfer-Encoding:")),
        (
            "coding on 1.0",
            post("Transfer-Encoding: chunked").replace("HTTP/1.1\r\nHost: test\r\nT", "HTTP/1.0\r\nHost: test\r\nT"),
        ),
        ("vertical tab before chunked", post("Transfer-Encoding: \x0bchunked")),
        ("space before the colon", get("X-A : 1")),
        ("tab before the colon", get("X-A\t: 1")),
        ("space before the colon of the length", post("Content-Length : 5")),
        ("obs-fold", get("X-A: 1\r\n 2")),
        ("obs-fold with a tab", get("X-A: 1\r\n\t2")),
        ("space before the first field", "GET / HTTP/1.1\r\n Host: test\r\n\r\n".into()),
        ("bare LF after the request line", "GET / HTTP/1.1\nHost: test\r\n\r\n".into()),
        ("bare LF after a field", "GET / HTTP/1.1\r\nHost: test\nX-A: 1\r\n\r\n".into()),
        ("bare LF as the end", "GET / HTTP/1.1\r\nHost: test\r\n\n".into()),
        ("bare CR in a value", get("X-A: 1\rX-B: 2")),
        ("NUL in a value", get("X-A: a\0b")),
        ("a control byte in a value", get("X-A: a\x01b")),
        ("DEL in a value", get("X-A: a\x7fb")),
        ("NUL in a name", get("X\0A: 1")),
        ("an empty name", get(": 1")),
        ("a name that is no token", get("X(A): 1")),
        ("a name with a space", get("X A: 1")),
        ("a field without a colon", get("nonsense")),
        ("no version", "GET /\r\nHost: test\r\n\r\n".into()),
        ("two spaces", "GET  / HTTP/1.1\r\nHost: test\r\n\r\n".into()),
        ("a tab in the request line", "GET\t/ HTTP/1.1\r\nHost: test\r\n\r\n".into()),
        ("a space in the target", "GET /a b HTTP/1.1\r\nHost: test\r\n\r\n".into()),
        ("a space at the end", "GET / HTTP/1.1 \r\nHost: test\r\n\r\n".into()),
        ("no target", "GET HTTP/1.1\r\nHost: test\r\n\r\n".into()),
        ("a target without a slash", "GET x HTTP/1.1\r\nHost: test\r\n\r\n".into()),
        ("a method that is no token", "G(T / HTTP/1.1\r\nHost: test\r\n\r\n".into()),
        ("no method", " / HTTP/1.1\r\nHost: test\r\n\r\n".into()),
        ("lower-case version", "GET / http/1.1\r\nHost: test\r\n\r\n".into()),
        ("NUL in the target", "GET /\0 HTTP/1.1\r\nHost: test\r\n\r\n".into()),
        ("no Host", "GET / HTTP/1.1\r\nX-A: 1\r\n\r\n".into()),
        ("Host twice", get("Host: test")),
        ("Host with userinfo", "GET / HTTP/1.1\r\nHost: user@test\r\n\r\n".into()),
        ("Host with a space", "GET / HTTP/1.1\r\nHost: te st\r\n\r\n".into()),
        ("Host with a path", "GET / HTTP/1.1\r\nHost: test/x\r\n\r\n".into()),
        ("Host with a comma", "GET / HTTP/1.1\r\nHost: a,b\r\n\r\n".into()),
        ("Host with a port that is none", "GET / HTTP/1.1\r\nHost: test:http\r\n\r\n".into()),
        ("Host with a port too large", "GET / HTTP/1.1\r\nHost: test:65536\r\n\r\n".into()),
        ("userinfo in the target", "GET http://user@test/ HTTP/1.1\r\nHost: test\r\n\r\n".into()),
        ("a target with non-ASCII", "GET /\u{e4} HTTP/1.1\r\nHost: test\r\n\r\n".into()),
        ("not HTTP at all", "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n".into()),
    ];
    for (what, bytes) in cases {
        refused(&gateway, &backend, what, bytes.as_bytes(), 400);
    }
    assert_eq!(backend.connections(), 0);
    gateway.assert_alive();
    assert_eq!(gateway.get("/").status, 200);
    let counted = gateway.metric("millrace_requests_total", &[("code", "400")]);
    assert_eq!(counted, cases.len() as u64);
}

#[test]
fn what_is_over_a_limit_or_unknown_says_which() {
    let sandbox = sandbox_or_skip!();
    let backend = Backend::echo(&sandbox, Ns::B1, RAW);
    let gateway = gateway(&sandbox);
    let fields = (0..101).map(|n| format!("X-{n}: 1\r\n")).collect::<String>();
    let cases: &[(&str, u16, String)] = &[
        ("a long target", 414, format!("GET /{} HTTP/1.1\r\nHost: test\r\n\r\n", "a".repeat(8 * 1024))),
        ("a target without end", 414, format!("GET /{}", "a".repeat(20_000))),
        ("a long head", 431, format!("GET / HTTP/1.1\r\nHost: test\r\nX-A: {}\r\n\r\n", "a".repeat(65 * 1024))),
        ("many fields", 431, format!("GET / HTTP/1.1\r\nHost: test\r\n{fields}\r\n")),
        ("a body over the limit", 413, "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1048577\r\n\r\n".into()),
        (
            "an unknown coding",
            501,
            "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n".into(),
        ),
        ("an unknown version", 505, "GET / HTTP/2.0\r\nHost: test\r\n\r\n".into()),
        ("HTTP/2 by prior knowledge", 505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into()),
        ("another major version", 505, "GET / HTTP/3.7\r\nHost: test\r\n\r\n".into()),
        ("CONNECT", 405, "CONNECT test:443 HTTP/1.1\r\nHost: test:443\r\n\r\n".into()),
        ("TRACE", 405, "TRACE / HTTP/1.1\r\nHost: test\r\n\r\n".into()),
        (
            "an unknown expectation",
            417,
            "POST / HTTP/1.1\r\nHost: test\r\nExpect: teapot\r\nContent-Length: 0\r\n\r\n".into(),
        ),
    ];
    for (what, status, bytes) in cases {
        refused(&gateway, &backend, what, bytes.as_bytes(), *status);
    }
    // Just within the limits.
    let reply = gateway.request(&format!("GET /{} HTTP/1.1\r\nHost: test\r\nConnection: close", "a".repeat(8000)));
    assert_eq!(reply.status, 200);
    let reply =
        gateway.request(&format!("GET / HTTP/1.1\r\nHost: test\r\nX-A: {}\r\nConnection: close", "a".repeat(60_000)));
    assert_eq!(reply.status, 200);
}

#[test]
fn a_chunked_body_over_the_limit_is_413_and_aborts_the_backend() {
    let sandbox = sandbox_or_skip!();
    let backend = Backend::echo(&sandbox, Ns::B1, RAW);
    let gateway = gateway(&sandbox);
    let mut connection = gateway.connect();
    connection.send("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunk = format!("{:x}\r\n{}\r\n", 65_536, "a".repeat(65_536));
    for _ in 0..20 {
        if !connection.try_send(&chunk) {
            break;
        }
    }
    assert_eq!(connection.response().status, 413);
    assert!(!backend.text().ends_with("0\r\n\r\n"), "the backend saw a body that looks complete");
}

#[test]
fn bad_chunks_end_the_request_and_the_backend_never_sees_a_whole_body() {
    let sandbox = sandbox_or_skip!();
    let backend = Backend::echo(&sandbox, Ns::B1, RAW);
    let gateway = gateway(&sandbox);
    for (what, body) in [
        ("no number", "zz\r\nhello\r\n0\r\n\r\n"),
        ("an empty size", "\r\nhello\r\n0\r\n\r\n"),
        ("a negative size", "-5\r\nhello\r\n0\r\n\r\n"),
        ("a prefixed size", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("an overflowing size", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
        ("a bare LF after the size", "5\nhello\r\n0\r\n\r\n"),
        ("a body longer than its size", "5\r\nhello!\r\n0\r\n\r\n"),
        ("no end of a chunk", "5\r\nhelloX\n0\r\n\r\n"),
        ("a bare LF after a chunk", "5\r\nhello\n0\r\n\r\n"),
        ("a control byte in an extension", "5;a=\x01\r\nhello\r\n0\r\n\r\n"),
        ("a bare CR in an extension", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
        ("a malformed trailer", "5\r\nhello\r\n0\r\nnonsense\r\n\r\n"),
        ("a folded trailer", "5\r\nhello\r\n0\r\nX-A: 1\r\n 2\r\n\r\n"),
    ] {
        let mut connection = gateway.connect();
        connection.send(format!("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n{body}"));
        let reply = connection.try_response(false).unwrap_or_else(|| panic!("{what}: no reply"));
        assert_eq!(reply.status, 400, "{what}: {reply:?}");
        assert!(connection.closed(), "{what}");
    }
    assert!(!backend.text().contains("\r\n0\r\n"), "a whole body reached the backend: {}", backend.text());
}

#[test]
fn slow_clients_get_408() {
    let sandbox = sandbox_or_skip!();
    let _backend = Backend::echo(&sandbox, Ns::B1, RAW);
    let gateway = gateway(&sandbox);
    // A head that comes drop by drop, a head that stops, a body that stops.
    let start = Instant::now();
    let mut drops = gateway.connect();
    let mut stopped = gateway.connect();
    let mut body = gateway.connect();
    stopped.send("GET / HTTP/1.1\r\nHost: te");
    body.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhalf");
    for byte in b"GET / HTTP/1.1\r\nHost: test\r\nX-A: aaaaaaaaaaaa" {
        drops.try_send([*byte]);
        std::thread::sleep(Duration::from_millis(40));
    }
    for (what, connection) in [("drops", &mut drops), ("head", &mut stopped), ("body", &mut body)] {
        let reply = connection.try_response(false).unwrap_or_else(|| panic!("{what}: no reply"));
        assert_eq!(reply.status, 408, "{what}");
        assert!(connection.closed(), "{what}");
    }
    assert!(start.elapsed() < Duration::from_secs(8));
    // A connection without a request is closed without a word.
    let mut idle = gateway.connect();
    let start = Instant::now();
    assert!(idle.closed());
    assert!(start.elapsed() > Duration::from_millis(1500), "{:?}", start.elapsed());
}

#[test]
fn many_slow_clients_do_not_disturb_a_quick_one() {
    let sandbox = sandbox_or_skip!();
    let _backend = Backend::echo(&sandbox, Ns::B1, RAW);
    let gateway = gateway(&sandbox);
    let slow = (0..500).map(|_| {
        let mut connection = gateway.connect();
        connection.send("GET / HTTP/1.1\r\nX-Slow: ");
        connection
    });
    let slow = slow.collect::<Vec<_>>();
    let start = Instant::now();
    for _ in 0..50 {
        assert_eq!(gateway.get("/").status, 200);
    }
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    drop(slow);
    wait_for("they are gone", Duration::from_secs(5), || gateway.metric("millrace_connections_open", &[]) == 0);
}

#[test]
fn a_refused_request_does_not_hurt_those_before_it() {
    let sandbox = sandbox_or_skip!();
    let backend = Backend::echo(&sandbox, Ns::B1, RAW);
    let gateway = gateway(&sandbox);
    let mut connection = gateway.connect();
    connection.send("GET /good HTTP/1.1\r\nHost: test\r\n\r\nGET /bad HTTP/1.1\r\nHost : test\r\n\r\nGET /never HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(connection.response().status, 200);
    assert_eq!(connection.response().status, 400);
    assert!(connection.closed());
    assert!(!backend.text().contains("/bad") && !backend.text().contains("/never"), "{}", backend.text());
}

#[test]
fn random_bytes_never_end_millrace() {
    let sandbox = sandbox_or_skip!();
    let _backend = Backend::echo(&sandbox, Ns::B1, RAW);
    let mut gateway = gateway(&sandbox);
    let noise = support::pattern(400_000);
    let request = b"POST /x HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let send = |part: &[u8], as_it_is: bool| {
        let mut connection = gateway.connect();
        if as_it_is {
            connection.try_send(part);
        } else {
            // A good request with one byte changed.
            let mut bytes = request.to_vec();
            let at = usize::from(u16::from_le_bytes([part[0], part[1]])) % bytes.len();
            bytes[at] = part[2];
            connection.try_send(&bytes);
        }
        connection.finish();
        connection.rest();
    };
    // Several at a time, as some are waited for until their time is up.
    std::thread::scope(|scope| {
        for parts in noise.chunks(50_000) {
            scope.spawn(move || parts.chunks(1000).enumerate().for_each(|(n, part)| send(part, n % 2 == 0)));
        }
    });
    gateway.assert_alive();
    assert_eq!(gateway.get("/").status, 200);
}
