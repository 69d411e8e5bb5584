//! Filters of routes, segment by segment.

use tables::ClusterId;
use tables::access::Flag;
use tables::filter::{Cors, FieldChanges, Filters, Mirror, OriginPattern, PathChange, Redirect, Retry, RuleFilters};

use crate::http::Side::{Backend, Client};
use crate::http::{REPLY, Stage};
use crate::support::gateway::GatewayOptions;
use crate::support::script::{ACK, FIN, RST, SYN};
use crate::support::{ms, secs};

fn stage(filters: Filters) -> Stage {
    let filters = RuleFilters { rule: filters, ..RuleFilters::default() };
    Stage::new(&GatewayOptions { filters: Some(filters), ..GatewayOptions::default() })
}

fn changes(strip: &[u8], append: &[u8]) -> FieldChanges {
    FieldChanges { strip: strip.into(), append: append.into() }
}

fn everything() -> Filters {
    Filters {
        request: changes(b"x-secret\nx-user\n", b"X-User: 7\r\n"),
        response: changes(b"server\n", b"X-Seen: yes\r\n"),
        host: Some((*b"inner.example").into()),
        path: Some(PathChange::Prefix(4, (*b"/v2").into())),
        ..Filters::default()
    }
}

const REQUEST: &[u8] =
    b"GET /api/x?a=b HTTP/1.1\r\nHost: shop.example:81\r\nX-Secret: s\r\nX-USER: 1\r\nx-user: 2\r\nA: b\r\n\r\n";
const WITH_SERVER: &[u8] = b"HTTP/1.1 200 OK\r\nServer: s\r\nA: b\r\nContent-Length: 2\r\n\r\nok";

#[track_caller]
fn assert_changed(head: &str) {
    assert!(head.starts_with("GET /v2/x?a=b HTTP/1.1\r\nHost: inner.example\r\nA: b\r\n"), "{head}");
    assert!(head.contains("\r\nX-Forwarded-For: 10.9.1.2\r\n"), "{head}");
    assert!(head.ends_with("\r\nX-User: 7\r\n\r\n") && !head.contains("X-Secret") && !head.contains(": 2"), "{head}");
}

#[test]
fn a_request_and_its_response_are_changed_on_a_new_and_on_an_idle_connection() {
    let mut stage = stage(everything());
    let mut client = stage.connect(4000);
    stage.send(Client, &mut client, ACK, REQUEST);
    let mut backend = stage.accept();
    for round in 0..3 {
        if round > 0 {
            stage.send(Client, &mut client, ACK, REQUEST);
        }
        assert_changed(&stage.head(Backend, &mut backend));
        stage.send(Backend, &mut backend, ACK, WITH_SERVER);
        let reply = stage.read(Client, &mut client, |bytes| bytes.ends_with(b"ok"));
        assert_eq!(reply, "HTTP/1.1 200 OK\r\nA: b\r\nX-Seen: yes\r\nContent-Length: 2\r\n\r\nok");
    }
}

/// The tables change between the request and its response, and between two tries.
#[test]
fn changes_hold_over_a_change_of_tables_and_over_a_replay() {
    let mut stage = stage(everything());
    let mut client = stage.connect(4000);
    stage.send(Client, &mut client, ACK, REQUEST);
    let mut backend = stage.accept();
    stage.head(Backend, &mut backend);
    stage.send(Backend, &mut backend, ACK, REPLY);
    stage.read(Client, &mut client, |bytes| bytes.ends_with(b"ok"));
    stage.send(Client, &mut client, ACK, REQUEST);
    stage.head(Backend, &mut backend);
    // The idle connection turns out to be dead, and the request is sent once more.
    stage.send(Backend, &mut backend, FIN | ACK, b"");
    stage.closing(Backend);
    let mut second = stage.accept();
    assert_changed(&stage.head(Backend, &mut second));
    stage.world.mid.publish(2, &["10.9.2.9:8080".parse().unwrap()]);
    stage.world.run(ms(10));
    stage.send(Backend, &mut second, ACK, WITH_SERVER);
    let reply = stage.read(Client, &mut client, |bytes| bytes.ends_with(b"ok"));
    assert!(reply.contains("X-Seen: yes") && !reply.contains("Server"), "{reply}");
}

#[test]
fn a_redirect_is_answered_here_and_the_connection_stays() {
    let redirect = Redirect {
        status: 301,
        scheme: Some("https"),
        host: Some((*b"new.example").into()),
        port: Some(8443),
        path: Some(PathChange::Prefix(4, (*b"/v2").into())),
    };
    let mut stage = stage(Filters { redirect: Some(Box::new(redirect)), ..Filters::default() });
    let mut client = stage.connect(4000);
    for _ in 0..2 {
        stage.send(Client, &mut client, ACK, REQUEST);
        let reply = stage.head(Client, &mut client);
        assert_eq!(
            reply,
            "HTTP/1.1 301 Moved Permanently\r\nLocation: https://new.example:8443/v2/x?a=b\r\nContent-Length: 0\r\n\
             Connection: keep-alive\r\n\r\n"
        );
    }
    stage.world.run(secs(1));
    assert!(stage.world.south.inbox.is_empty(), "nothing goes to a backend");
    assert_eq!(stage.world.mid.log.iter().map(|r| (r.status, r.flag)).collect::<Vec<_>>(), [(301, Flag::Filter); 2]);
}

/// Gateway API, `HTTPRequestRedirectFilter.port`.
#[test]
fn the_port_of_a_redirect_follows_from_scheme_and_listener() {
    let location = |scheme, port, path: &str| {
        let redirect = Redirect { status: 302, scheme, host: None, port, path: None };
        let mut stage = stage(Filters { redirect: Some(Box::new(redirect)), ..Filters::default() });
        let mut client = stage.connect(4000);
        let request = format!("GET {path} HTTP/1.1\r\nHost: a.example:8080\r\n\r\n");
        stage.send(Client, &mut client, ACK, request.as_bytes());
        let reply = stage.head(Client, &mut client);
        reply.lines().find_map(|line| line.strip_prefix("Location: ")).unwrap().to_owned()
    };
    // The listener's is 80.
    assert_eq!(location(None, None, "/a?b"), "http://a.example/a?b");
    assert_eq!(location(None, Some(80), "/"), "http://a.example/");
    assert_eq!(location(None, Some(8080), "/"), "http://a.example:8080/");
    assert_eq!(location(None, Some(443), "/"), "http://a.example:443/");
    assert_eq!(location(Some("https"), None, "/"), "https://a.example/");
    assert_eq!(location(Some("https"), Some(443), "/"), "https://a.example/");
    assert_eq!(location(Some("https"), Some(80), "/"), "https://a.example:80/");
    assert_eq!(location(Some("http"), None, "http://b.example?x"), "http://b.example/?x");
}

fn cors(credentials: bool) -> Filters {
    let cors = Cors {
        origins: [OriginPattern::Exact((*b"https://a.example").into())].into(),
        credentials,
        methods: (*b"*").into(),
        headers: (*b"x-a, x-b").into(),
        expose: (*b"*").into(),
        max_age: (*b"5").into(),
    };
    Filters { cors: Some(Box::new(cors)), ..Filters::default() }
}

#[test]
fn a_preflight_is_answered_here() {
    let ask = |credentials, origin: &str| {
        let mut stage = stage(cors(credentials));
        let mut client = stage.connect(4000);
        let request =
            format!("OPTIONS / HTTP/1.1\r\nHost: a\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: PUT\r\n\r\n");
        stage.send(Client, &mut client, ACK, request.as_bytes());
        stage.head(Client, &mut client)
    };
    assert_eq!(
        ask(true, "https://a.example"),
        "HTTP/1.1 200 OK\r\nVary: Origin\r\nAccess-Control-Allow-Origin: https://a.example\r\n\
         Access-Control-Allow-Credentials: true\r\nAccess-Control-Allow-Methods: PUT\r\n\
         Access-Control-Allow-Headers: x-a, x-b\r\nAccess-Control-Max-Age: 5\r\nContent-Length: 0\r\n\
         Connection: keep-alive\r\n\r\n"
    );
    assert!(ask(false, "https://a.example").contains("\r\nAccess-Control-Expose-Headers: *\r\n"));
    let stranger = ask(true, "https://b.example");
    assert!(stranger.starts_with("HTTP/1.1 200 OK\r\n") && !stranger.contains("Access-Control"), "{stranger}");
}

#[test]
fn what_the_backend_says_about_origins_is_replaced() {
    for (origin, allowed) in [("https://a.example", true), ("https://b.example", false)] {
        let mut stage = stage(cors(false));
        let mut client = stage.connect(4000);
        stage.send(
            Client,
            &mut client,
            ACK,
            format!("GET / HTTP/1.1\r\nHost: a\r\nOrigin: {origin}\r\n\r\n").as_bytes(),
        );
        let mut backend = stage.accept();
        stage.head(Backend, &mut backend);
        let reply = b"HTTP/1.1 200 OK\r\naccess-control-allow-origin: *\r\nContent-Length: 2\r\n\r\nok";
        stage.send(Backend, &mut backend, ACK, reply);
        let reply = stage.read(Client, &mut client, |bytes| bytes.ends_with(b"ok"));
        assert!(reply.contains("Vary: Origin") && !reply.contains("Access-Control-Allow-Methods"), "{reply}");
        assert_eq!(reply.contains("Allow-Origin: https://a.example\r\n"), allowed, "{reply}");
        assert!(!reply.contains("allow-origin: *"), "{reply}");
    }
}

fn mirrored(numerator: u32) -> Stage {
    let mirror = Mirror { cluster: ClusterId(1), numerator, denominator: 2 };
    stage(Filters { mirrors: [mirror].into(), ..everything() })
}

const POST: &[u8] = b"POST /api/x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 8\r\n\r\n";

#[test]
fn a_mirror_gets_what_the_backend_gets_and_nobody_gets_its_answer() {
    let mut stage = mirrored(2);
    let mut client = stage.connect(4000);
    stage.send(Client, &mut client, ACK, POST);
    let mut mirror = stage.accept();
    let mut backend = stage.accept();
    assert_eq!((mirror.local.1, backend.local.1), (9090, 8080));
    for round in 0..2 {
        if round > 0 {
            stage.send(Client, &mut client, ACK, POST);
        }
        stage.send(Client, &mut client, ACK, b"01234567");
        let whole = |bytes: &[u8]| bytes.ends_with(b"01234567");
        let original = stage.read(Backend, &mut backend, whole);
        let copy = stage.read(Backend, &mut mirror, whole);
        assert!(copy.starts_with("POST /v2/x HTTP/1.1\r\nHost: inner.example\r\n"), "{copy}");
        assert_eq!(copy, original);
        // The mirror answers first, with a body of which no byte is passed on.
        stage.send(
            Backend,
            &mut mirror,
            ACK,
            b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
        );
        stage.send(Backend, &mut backend, ACK, REPLY);
        let reply = stage.read(Client, &mut client, |bytes| bytes.ends_with(b"ok"));
        assert!(reply.starts_with("HTTP/1.1 200 OK\r\n") && !reply.contains("no"), "{reply}");
    }
    let counters = &stage.world.mid.counters;
    assert_eq!((counters.mirrors.read(), counters.mirrors_lost.read()), (2, 0));
    assert_eq!(counters.upstream_opened.read(), 2, "the mirror's connection serves again, too");
}

#[test]
fn a_chunked_body_is_copied_with_its_trailers() {
    let mut stage = mirrored(2);
    let mut client = stage.connect(4000);
    stage.send(
        Client,
        &mut client,
        ACK,
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    );
    let mut mirror = stage.accept();
    let mut backend = stage.accept();
    stage.send(Client, &mut client, ACK, b"2;x=y\r\nde\r\n0\r\nA: b\r\n\r\n");
    let whole = |bytes: &[u8]| bytes.ends_with(b"0\r\nA: b\r\n\r\n");
    let copy = stage.read(Backend, &mut mirror, whole);
    assert_eq!(copy, stage.read(Backend, &mut backend, whole));
    assert!(copy.contains("3\r\nabc\r\n2\r\nde\r\n0\r\n"), "{copy}");
}

#[test]
fn a_share_of_requests_is_mirrored() {
    let mut stage = mirrored(1);
    let mut client = stage.connect(4000);
    stage.send(Client, &mut client, ACK, REQUEST);
    let mut backends = vec![stage.accept()];
    for round in 0..20 {
        if round > 0 {
            stage.send(Client, &mut client, ACK, REQUEST);
            stage.settle();
        }
        while stage.world.south.inbox.iter().any(|segment| segment.is(SYN)) {
            backends.push(stage.accept());
        }
        for backend in &mut backends {
            stage.settle();
            let asked = stage.world.south.inbox.iter().any(|s| s.source == backend.remote && !s.payload.is_empty());
            if asked {
                stage.head(Backend, backend);
                stage.send(Backend, backend, ACK, REPLY);
            }
        }
        stage.read(Client, &mut client, |bytes| bytes.ends_with(b"ok"));
    }
    assert!((9..=11).contains(&stage.world.mid.counters.mirrors.read()));
}

#[test]
fn a_dead_mirror_costs_the_original_nothing() {
    let mut stage = mirrored(2);
    let mut client = stage.connect(4000);
    stage.send(Client, &mut client, ACK, REQUEST);
    stage.settle();
    // The mirror's SYN is never answered.
    stage.world.south.inbox.pop_front();
    let mut backend = stage.accept();
    let asked = stage.world.clock.now();
    stage.head(Backend, &mut backend);
    stage.send(Backend, &mut backend, ACK, REPLY);
    stage.read(Client, &mut client, |bytes| bytes.ends_with(b"ok"));
    assert!(stage.world.clock.now() - asked < ms(5));
    stage.world.run(secs(120));
    let counters = &stage.world.mid.counters;
    assert_eq!((counters.mirrors.read(), counters.mirrors_lost.read()), (1, 1));
    assert_eq!(stage.world.mid.log[0].flag, Flag::None);
    stage.world.mid.assert_sums();
}

#[test]
fn a_mirror_too_slow_for_a_body_is_given_up_and_the_body_goes_on() {
    const BODY: usize = 400_000;
    let mut stage = mirrored(2);
    let mut client = stage.connect(4000);
    let head = format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {BODY}\r\n\r\n");
    stage.send(Client, &mut client, ACK, head.as_bytes());
    stage.accept();
    let mut backend = stage.accept();
    stage.head(Backend, &mut backend);
    let mut sent = 0;
    while sent < BODY {
        let piece = vec![b'x'; 1400.min(BODY - sent)];
        stage.send(Client, &mut client, ACK, &piece);
        sent += piece.len();
        // The backend takes it, the mirror acknowledges nothing.
        stage.read(Backend, &mut backend, |bytes| bytes.len() >= piece.len());
    }
    stage.send(Backend, &mut backend, ACK, REPLY);
    let reply = stage.read(Client, &mut client, |bytes| bytes.ends_with(b"ok"));
    assert!(reply.starts_with("HTTP/1.1 200 OK\r\n"), "{reply}");
    assert_eq!(stage.world.mid.counters.mirrors_lost.read(), 1);
}

#[test]
fn a_copy_ends_with_a_client_that_leaves_in_the_middle_of_its_body() {
    let mut stage = mirrored(2);
    let mut client = stage.connect(4000);
    stage.send(Client, &mut client, ACK, POST);
    let mut mirror = stage.accept();
    stage.accept();
    stage.head(Backend, &mut mirror);
    stage.send(Client, &mut client, RST, b"");
    let mut resets = 0;
    while resets < 2 {
        resets += u32::from(stage.closing(Backend).flags.rst());
    }
    stage.world.run(secs(5));
    assert_eq!(stage.world.mid.counters.mirrors_lost.read(), 1);
    stage.world.mid.assert_empty();
}

fn retrying(attempts: u8, backoff: core::time::Duration) -> Stage {
    let retry = Retry { codes: [500, 503].into(), attempts, backoff };
    let filters = RuleFilters { retry: Some(Box::new(retry)), ..RuleFilters::default() };
    let mut options = GatewayOptions { filters: Some(filters), ..GatewayOptions::default() };
    options.http.response_timeout = secs(3);
    Stage::new(&options)
}

const UNAVAILABLE: &[u8] = b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno";

/// GEP-1731: after the back-off, as often as it says; then the last answer is passed on.
#[test]
fn a_status_is_tried_again_after_the_back_off() {
    for (attempts, expected) in [(2, "HTTP/1.1 200 OK"), (1, "HTTP/1.1 503 No")] {
        let mut stage = retrying(attempts, ms(50));
        let mut client = stage.connect(4000);
        stage.send(Client, &mut client, ACK, REQUEST);
        let mut first = None;
        for attempt in 0..=attempts {
            let asked = stage.world.clock.now();
            let mut backend = stage.accept();
            assert!(attempt == 0 || stage.world.clock.now() - asked >= ms(50));
            let head = stage.head(Backend, &mut backend);
            // What is sent is the same each time.
            assert_eq!(*first.get_or_insert(head.clone()), head);
            let reply = if attempt < 2 { UNAVAILABLE } else { REPLY };
            stage.send(Backend, &mut backend, ACK, reply);
            if attempt < attempts {
                assert!(stage.closing(Backend).flags.rst());
            }
        }
        let reply = stage.read(Client, &mut client, |bytes| bytes.ends_with(b"ok") || bytes.ends_with(b"no"));
        assert!(reply.starts_with(expected), "{reply}");
        assert_eq!(stage.world.mid.counters.upstream_retried.read(), u64::from(attempts));
        assert_eq!(stage.world.mid.log[0].attempt, attempts);
        // The connection serves on.
        stage.send(Client, &mut client, ACK, REQUEST);
        stage.world.run(ms(10));
        assert_eq!(stage.world.mid.counters.requests_started.read(), 2);
    }
}

#[test]
fn a_backend_that_dies_or_stays_silent_is_tried_again() {
    let mut stage = retrying(2, ms(1));
    let mut client = stage.connect(4000);
    stage.send(Client, &mut client, ACK, REQUEST);
    let mut backend = stage.accept();
    stage.head(Backend, &mut backend);
    stage.send(Backend, &mut backend, RST, b"");
    let mut backend = stage.accept();
    stage.head(Backend, &mut backend);
    // Nothing comes within the time for a response.
    assert!(stage.closing(Backend).flags.rst());
    let mut backend = stage.accept();
    stage.head(Backend, &mut backend);
    stage.send(Backend, &mut backend, ACK, REPLY);
    let reply = stage.read(Client, &mut client, |bytes| bytes.ends_with(b"ok"));
    assert!(reply.starts_with("HTTP/1.1 200 OK"), "{reply}");
}

/// BEHAVIOUR.md: requests that are not idempotent are never replayed; nor is one that a client does not wait for.
#[test]
fn what_may_not_be_sent_twice_is_not() {
    let mut stage = retrying(3, ms(50));
    let mut client = stage.connect(4000);
    stage.send(Client, &mut client, ACK, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    let mut backend = stage.accept();
    stage.head(Backend, &mut backend);
    stage.send(Backend, &mut backend, ACK, UNAVAILABLE);
    let reply = stage.read(Client, &mut client, |bytes| bytes.ends_with(b"no"));
    assert!(reply.starts_with("HTTP/1.1 503 No"), "{reply}");
    stage.send(Client, &mut client, ACK, REQUEST);
    stage.head(Backend, &mut backend);
    stage.send(Backend, &mut backend, ACK, UNAVAILABLE);
    stage.settle();
    stage.send(Client, &mut client, RST, b"");
    stage.world.run(secs(1));
    assert_eq!(stage.world.mid.log[1].flag, Flag::ClientGone);
    assert!(!stage.world.south.inbox.iter().any(|segment| segment.is(SYN)), "nobody is asked again");
    stage.world.run(secs(5));
    stage.world.mid.assert_empty();
}
