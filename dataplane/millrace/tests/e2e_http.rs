//! HTTP/1.1 through a running Millrace, between real sockets: framing both ways, keep-alive, tunnels, large bodies,
//! back-pressure, load.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use support::backend::Backend;
use support::client::Connection;
use support::gateway::{Config, Gateway};
use support::sandbox::{B1, B2, Ns, Sandbox, VIP};
use support::{pattern, wait_for};

const MIB: usize = 1 << 20;
const RAW: &str = "10.9.2.2:9000";

/// Millrace before two nginx.
fn nginx(sandbox: &Sandbox) -> Gateway<'_> {
    sandbox.start_nginx();
    Gateway::start(sandbox, &Config::everything_to(&["10.9.2.2:8080", "10.9.2.3:8080"]))
}

/// Millrace before the test's own backend.
fn raw(sandbox: &Sandbox) -> Gateway<'_> {
    Gateway::start(sandbox, &Config::everything_to(&[RAW]))
}

#[test]
fn nginx_answers_get_head_and_post() {
    let sandbox = sandbox_or_skip!();
    let gateway = nginx(&sandbox);

    let reply = gateway.get("/some/page?x=1");
    assert_eq!(reply.status, 200);
    assert!(reply.text().contains("GET /some/page?x=1 host=test"), "{reply:?}");
    assert!(matches!(reply.field("x-backend"), Some("b1" | "b2")), "{reply:?}");

    let mut connection = gateway.connect();
    connection.send("HEAD /1k HTTP/1.1\r\nHost: test\r\n\r\n");
    let reply = connection.response_to_head();
    assert_eq!((reply.status, reply.field("content-length")), (200, Some("1024")));
    // No body came after it: the next reply begins where this one ended.
    connection.send("GET /1k HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(connection.response().body, vec![b'x'; 1024]);

    connection.send("POST /upload HTTP/1.1\r\nHost: test\r\nContent-Length: 11\r\n\r\nhello world");
    assert!(connection.response().text().contains("took 11 bytes"));
    connection.send("POST /upload HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
    connection.send("5\r\nhello\r\n6;name=value\r\n world\r\n0\r\n\r\n");
    assert!(connection.response().text().contains("took 11 bytes"));
}

#[test]
fn curl_sends_every_kind_of_request() {
    let sandbox = sandbox_or_skip!();
    let _gateway = nginx(&sandbox);
    let file = sandbox.dir().join("body");
    std::fs::write(&file, pattern(300_000)).unwrap();
    let upload = format!("@{}", file.display());
    let url = format!("http://{VIP}/upload");
    let curl = |arguments: &[&str]| {
        let common = ["-sS", "--fail", "--max-time", "10"];
        sandbox.output(Ns::Client, "curl", &[&common, arguments].concat())
    };
    assert!(curl(&["--data-binary", &upload, &url]).contains("took 300000 bytes"));
    assert!(curl(&["--data-binary", &upload, "-H", "Transfer-Encoding: chunked", &url]).contains("took 300000 bytes"));
    assert!(curl(&["--data-binary", &upload, "-H", "Expect: 100-continue", &url]).contains("took 300000 bytes"));
    assert!(curl(&["--http1.0", "--data-binary", &upload, &url]).contains("took 300000 bytes"));
    for method in ["DELETE", "OPTIONS", "PATCH", "PROPFIND"] {
        let reply = curl(&["-X", method, &format!("http://{VIP}/x")]);
        assert!(reply.contains(&format!("{method} /x")), "{reply}");
    }
}

#[test]
fn a_request_arrives_as_it_was_sent_but_for_what_belongs_to_one_hop() {
    let sandbox = sandbox_or_skip!();
    let backend = Backend::echo(&sandbox, Ns::B1, RAW);
    let gateway = raw(&sandbox);
    let head = "GET /a%20b/../c?q=%C3%A4&z HTTP/1.1\r\nHost: Example.test:8080\r\nX-Custom:  spaced  \r\n\
                Keep-Alive: timeout=5\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nTE: trailers\r\n\
                Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic eA==\r\nCookie: a=1\r\nCookie: b=2";
    assert_eq!(gateway.request(head).status, 200);
    let seen = backend.text();
    assert!(seen.starts_with("GET /a%20b/../c?q=%C3%A4&z HTTP/1.1\r\n"), "{seen}");
    let lower = seen.to_ascii_lowercase();
    for kept in ["\r\nhost: example.test:8080\r\n", "\r\nx-custom: spaced", "\r\ncookie: a=1", "cookie: b=2\r\n"] {
        assert!(lower.contains(kept), "{kept:?} is missing from {seen}");
    }
    for gone in ["x-hop", "keep-alive:", "proxy-connection", "\r\nte:", "connection: close"] {
        assert!(!lower.contains(gone), "{gone:?} reached the backend: {seen}");
    }
}

#[test]
fn a_reply_arrives_as_it_was_sent_but_for_what_belongs_to_one_hop() {
    let sandbox = sandbox_or_skip!();
    let reply = "HTTP/1.1 203 Fine By Me\r\nContent-Length: 5\r\nX-A: 1\r\nX-A: 2\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\
                 Connection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\r\nhello";
    let _backend = Backend::canned(&sandbox, Ns::B1, RAW, reply);
    let gateway = raw(&sandbox);
    let mut connection = gateway.connect();
    for _ in 0..2 {
        connection.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
        let reply = connection.response();
        assert_eq!((reply.status, reply.text().as_str(), reply.version.as_str()), (203, "hello", "HTTP/1.1"));
        let values = |name: &str| {
            let fields = reply.fields.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
            fields.map(|(_, value)| value.clone()).collect::<Vec<_>>()
        };
        assert_eq!(values("x-a"), ["1", "2"]);
        assert_eq!(values("set-cookie"), ["a=1", "b=2"]);
        assert!(values("x-hop").is_empty() && values("keep-alive").is_empty(), "{reply:?}");
    }
}

#[test]
fn chunks_and_trailers_pass_both_ways() {
    let sandbox = sandbox_or_skip!();
    let down = pattern(100_000);
    let expected = down.clone();
    let _backend = Backend::start(&sandbox, Ns::B1, RAW, move |served| {
        while let Some(request) = served.request() {
            assert_eq!(request.body, pattern(50_000));
            served.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n");
            for part in down.chunks(7_777) {
                served.send([format!("{:X};e=1\r\n", part.len()).as_bytes(), part, b"\r\n"].concat());
            }
            let sum = request.trailers.to_ascii_lowercase().contains("x-check: 42");
            served.send(format!("0\r\nX-Sum: {sum}\r\n\r\n"));
        }
    });
    let gateway = raw(&sandbox);
    let mut connection = gateway.connect();
    for _ in 0..3 {
        connection.send(
            "POST / HTTP/1.1\r\nHost: test\r\nTE: trailers\r\nTrailer: X-Check\r\nTransfer-Encoding: chunked\r\n\r\n",
        );
        for part in pattern(50_000).chunks(997) {
            connection.send([format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat());
        }
        connection.send("0\r\nX-Check: 42\r\n\r\n");
        let reply = connection.response();
        assert!(reply.complete);
        assert!(reply.body == expected, "the body differs: {} bytes", reply.body.len());
        assert_eq!(reply.trailers, [("X-Sum".to_owned(), "true".to_owned())]);
    }
}

#[test]
fn a_client_that_expects_100_continue_gets_it_before_it_sends() {
    let sandbox = sandbox_or_skip!();
    let _backend = Backend::start(&sandbox, Ns::B1, RAW, |served| {
        while let Some(head) = served.head() {
            if head.to_ascii_lowercase().contains("expect: 100-continue") {
                served.send("HTTP/1.1 100 Continue\r\n\r\n");
            }
            let body = served.exactly(4).unwrap_or_default();
            assert_eq!(body, b"body");
            served.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let gateway = raw(&sandbox);
    let mut connection = gateway.connect();
    connection.send("PUT / HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(connection.response().status, 100);
    connection.send("body");
    assert_eq!(connection.response().status, 200);
}

#[test]
fn interim_replies_reach_the_client() {
    let sandbox = sandbox_or_skip!();
    let reply = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let _backend = Backend::canned(&sandbox, Ns::B1, RAW, reply);
    let gateway = raw(&sandbox);
    let mut connection = gateway.connect();
    connection.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    let first = connection.response();
    assert_eq!((first.status, first.field("link")), (103, Some("</a.css>")));
    assert_eq!(connection.response().text(), "ok");
    // HTTP/1.0 knows none (RFC 9110 §15.2).
    connection.send("GET / HTTP/1.0\r\nHost: test\r\n\r\n");
    assert_eq!(connection.response().status, 200);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let sandbox = sandbox_or_skip!();
    let backend = Backend::echo(&sandbox, Ns::B1, RAW);
    let gateway = raw(&sandbox);
    let mut connection = gateway.connect();
    let all = (0..50).map(|n| match n % 3 {
        0 => format!("GET /{n} HTTP/1.1\r\nHost: test\r\n\r\n"),
        1 => format!("POST /{n} HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nabc"),
        _ => format!("POST /{n} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    });
    connection.send(all.collect::<String>());
    for n in 0..50 {
        let reply = connection.response();
        let text = reply.text();
        assert!(text.contains(&format!(" /{n} HTTP/1.1")), "reply {n} is {text}");
        assert!(text.ends_with(if n % 3 == 0 { "body: 0\n" } else { "body: 3\n" }), "{text}");
    }
    assert!(backend.connections() <= 2, "{} connections", backend.connections());
}

#[test]
fn backend_connections_are_kept_and_shared_between_clients() {
    let sandbox = sandbox_or_skip!();
    let backend = Backend::echo(&sandbox, Ns::B1, RAW);
    let gateway = raw(&sandbox);
    for _ in 0..40 {
        assert_eq!(gateway.get("/").status, 200);
    }
    assert!(backend.connections() <= 2, "40 clients, one after another: {} connections", backend.connections());
    assert!(gateway.metric("millrace_upstream_connections_reused_total", &[]) >= 38);
}

#[test]
fn http_1_0_gets_what_it_understands() {
    let sandbox = sandbox_or_skip!();
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
    let _backend = Backend::canned(&sandbox, Ns::B1, RAW, chunked);
    let _other = Backend::canned(&sandbox, Ns::B2, "10.9.2.3:9000", "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nold");
    let config = Config::everything_to(&[RAW]).backend("old", &["10.9.2.3:9000"]);
    let gateway = Gateway::start(&sandbox, &config.route("old", &[], ("PathPrefix", "/old"), &["old"]));
    let mut connection = gateway.connect();
    connection.send("GET / HTTP/1.0\r\n\r\n");
    let reply = connection.response();
    assert_eq!(reply.text(), "hello world");
    assert!(reply.field("transfer-encoding").is_none(), "{reply:?}");
    // And a backend of that age is understood.
    assert_eq!(gateway.get("/old").text(), "old");
}

#[test]
fn a_body_that_ends_with_the_connection_arrives_whole() {
    let sandbox = sandbox_or_skip!();
    let _backend = Backend::start(&sandbox, Ns::B1, RAW, |served| {
        if served.request().is_some() {
            served.send("HTTP/1.1 200 OK\r\n\r\n");
            served.send(pattern(200_000));
        }
    });
    let gateway = raw(&sandbox);
    let reply = gateway.get("/");
    assert!(reply.body == pattern(200_000), "{} bytes", reply.body.len());
}

#[test]
fn a_websocket_becomes_a_tunnel() {
    let sandbox = sandbox_or_skip!();
    let _backend = Backend::start(&sandbox, Ns::B1, RAW, |served| {
        let Some(head) = served.head() else { return };
        let head = head.to_ascii_lowercase();
        assert!(head.contains("\r\nupgrade: websocket\r\n") && head.contains("upgrade\r\n"), "{head}");
        assert!(head.contains("sec-websocket-key: dghlihnhbxbszsbub25jzq=="), "{head}");
        // With the first frame right behind the head.
        served.send(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nfirst",
        );
        while let Some(bytes) = served.some() {
            served.send(bytes);
        }
    });
    let gateway = raw(&sandbox);
    let mut connection = gateway.connect();
    connection.send(
        "GET /chat HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    );
    let reply = connection.response();
    assert_eq!((reply.status, reply.field("upgrade")), (101, Some("websocket")));
    assert!(reply.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")), "{reply:?}");
    assert_eq!(connection.bytes(5), b"first");
    // Cores tell their gauges now and then, not at every change.
    wait_for("the tunnel is counted", Duration::from_secs(5), || gateway.metric("millrace_tunnels_open", &[]) == 1);
    for len in [1, 125, 70_000] {
        connection.send(pattern(len));
        assert!(connection.bytes(len) == pattern(len));
    }
    connection.finish();
    assert!(connection.closed());
    wait_for("the tunnel is gone", Duration::from_secs(5), || gateway.metric("millrace_tunnels_open", &[]) == 0);
}

#[test]
fn h2c_is_never_forwarded() {
    let sandbox = sandbox_or_skip!();
    let backend = Backend::echo(&sandbox, Ns::B1, RAW);
    let gateway = raw(&sandbox);
    let reply = gateway.request(
        "GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk",
    );
    assert_eq!(reply.status, 200);
    let seen = backend.text().to_ascii_lowercase();
    assert!(!seen.contains("h2c") && !seen.contains("http2-settings"), "{seen}");
}

#[test]
fn sixty_four_mebibytes_arrive_exactly_in_both_directions() {
    let sandbox = sandbox_or_skip!();
    let gateway = nginx(&sandbox);
    let data = pattern(64 * MIB);
    for backend in ["b1", "b2"] {
        let files = sandbox.dir().join(format!("nginx-{backend}/html/files"));
        std::fs::create_dir_all(&files).unwrap();
        std::fs::write(files.join("big"), &data).unwrap();
    }
    let start = Instant::now();
    let reply = gateway.get("/files/big");
    eprintln!("64 MiB down in {:?}", start.elapsed());
    assert!(reply.complete && reply.body == data, "{} bytes of {}", reply.body.len(), data.len());

    let start = Instant::now();
    let mut connection = gateway.connect();
    connection.send(format!("PUT /store/big HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", data.len()));
    connection.send(&data);
    let reply = connection.response();
    eprintln!("64 MiB up in {:?}", start.elapsed());
    assert_eq!(reply.status, 201, "{reply:?}");
    let backend = reply.field("x-backend").expect("its name").to_owned();
    let stored = std::fs::read(sandbox.dir().join(format!("nginx-{backend}/html/store/big"))).unwrap();
    assert!(stored == data, "{} bytes stored of {}", stored.len(), data.len());
}

#[test]
fn a_slow_reader_costs_bounded_memory_and_nobody_else_notices() {
    let sandbox = sandbox_or_skip!();
    let sent = Arc::new(AtomicUsize::new(0));
    let _backend = Backend::start(&sandbox, Ns::B1, RAW, {
        let sent = Arc::clone(&sent);
        move |served| {
            while let Some(request) = served.request() {
                if !request.head.contains("/big") {
                    served.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                    continue;
                }
                served.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 32 * MIB));
                for part in pattern(32 * MIB).chunks(16_384) {
                    if !served.send(part) {
                        return;
                    }
                    sent.fetch_add(part.len(), Ordering::SeqCst);
                }
            }
        }
    });
    let gateway = raw(&sandbox);
    assert_eq!(gateway.get("/").status, 200);
    let before = gateway.resident_kib();
    let mut slow = gateway.connect();
    slow.send("GET /big HTTP/1.1\r\nHost: test\r\n\r\n");
    // It fills up and then stands still.
    let mut last = 0;
    wait_for("the backend is held back", Duration::from_secs(10), || {
        std::thread::sleep(Duration::from_millis(500));
        let now = sent.load(Ordering::SeqCst);
        let stands = now == last && now > 0;
        last = now;
        stands
    });
    // The sockets of both kernels hold some megabytes; Millrace holds its two buffers.
    assert!(last < 16 * MIB, "the backend sent {last} bytes that nobody reads");
    let grown = gateway.resident_kib().saturating_sub(before);
    assert!(grown < 4096, "resident memory grew by {grown} KiB");
    for _ in 0..20 {
        assert_eq!(gateway.get("/").text(), "ok");
    }
    let reply = slow.response();
    assert!(reply.complete && reply.body == pattern(32 * MIB), "{} bytes", reply.body.len());
}

#[test]
fn the_backend_replies_before_the_body_ends_and_both_connections_close() {
    let sandbox = sandbox_or_skip!();
    let backend = Backend::start(&sandbox, Ns::B1, RAW, |served| {
        if served.head().is_some() {
            served.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig");
            while served.some().is_some() {}
        }
    });
    let gateway = raw(&sandbox);
    let mut connection = gateway.connect();
    connection.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\nbegin");
    let reply = connection.response();
    assert_eq!((reply.status, reply.text().as_str()), (413, "big"));
    assert!(connection.closed());
    assert_eq!(gateway.get("/").status, 413);
    assert_eq!(backend.connections(), 2, "the first connection was used again");
}

#[test]
fn load_without_an_error() {
    let sandbox = sandbox_or_skip!();
    let gateway = nginx(&sandbox);
    let url = format!("http://{VIP}/1k");
    let output = sandbox.output(Ns::Client, "wrk", &["-t1", "-c64", "-d3s", "--latency", &url]);
    eprintln!("{output}");
    assert!(!output.contains("Socket errors") && !output.contains("Non-2xx"), "{output}");
    let finished = gateway.metric("millrace_requests_finished_total", &[]);
    assert!(finished > 1000, "{finished} requests in 3 s");
    wait_for("no request is left over", Duration::from_secs(5), || {
        gateway.metric("millrace_requests_active", &[]) == 0 && gateway.metric("millrace_connections_open", &[]) == 0
    });
}

#[test]
fn clients_that_go_away_leave_nothing_behind() {
    let sandbox = sandbox_or_skip!();
    let _backend = Backend::start(&sandbox, Ns::B1, RAW, |served| {
        while served.request().is_some() {
            served.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {MIB}\r\n\r\n"));
            if !served.send(pattern(MIB)) {
                return;
            }
        }
    });
    let gateway = raw(&sandbox);
    for n in 0..60 {
        let mut connection = gateway.connect();
        match n % 6 {
            0 => {}
            1 => connection.send("GET / HT"),
            2 => connection.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n"),
            3 => connection.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\nhalf"),
            _ => {
                connection.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
                connection.bytes(1000 * n);
            }
        }
        if n % 2 == 0 { connection.reset() } else { drop(connection) }
    }
    wait_for("every connection is gone", Duration::from_secs(10), || {
        ["millrace_connections_open", "millrace_requests_active"].iter().all(|name| gateway.metric(name, &[]) == 0)
    });
    assert!(gateway.get("/").complete);
}

#[test]
fn a_half_closed_client_still_gets_its_reply() {
    let sandbox = sandbox_or_skip!();
    let _backend = Backend::start(&sandbox, Ns::B1, RAW, |served| {
        while served.request().is_some() {
            std::thread::sleep(Duration::from_millis(300));
            served.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let gateway = raw(&sandbox);
    let mut connection: Connection = gateway.connect();
    connection.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    connection.finish();
    assert_eq!(connection.response().text(), "ok");
    assert!(connection.closed());
}

#[test]
fn both_addresses_of_the_backend_wire_are_used() {
    let sandbox = sandbox_or_skip!();
    let first = Backend::echo(&sandbox, Ns::B1, &format!("{B1}:9000"));
    let second = Backend::echo(&sandbox, Ns::B2, &format!("{B2}:9000"));
    let config = Config::everything_to(&[&format!("{B1}:9000"), &format!("{B2}:9000*2")]);
    let gateway = Gateway::start(&sandbox, &config);
    let mut connection = gateway.connect();
    for _ in 0..90 {
        connection.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
        assert_eq!(connection.response().status, 200);
    }
    let count = |backend: &Backend| backend.text().matches("GET / ").count();
    assert_eq!(count(&first) + count(&second), 90);
    assert!((25..=35).contains(&count(&first)), "{} and {}", count(&first), count(&second));
}
