//! What goes out, to the byte.

use core::net::IpAddr;

use proto::http1::*;

use super::accepted;

fn options(forwarded_for: ForwardedFor) -> ForwardOptions<'static> {
    let client = IpAddr::from([192, 0, 2, 7]);
    ForwardOptions {
        client,
        scheme: "https",
        forwarded_for,
        via: None,
        default_authority: "10.9.2.2:8080",
        changes: None,
    }
}

fn forwarded(request: &str, options: &ForwardOptions<'_>) -> String {
    let mut out = b"what was there stays|".to_vec();
    encode_request(&accepted(request.as_bytes()), options, &mut out);
    String::from_utf8(out).unwrap().strip_prefix("what was there stays|").unwrap().to_owned()
}

/// Without X-Forwarded fields, which have a test of their own.
fn plain(request: &str) -> String {
    forwarded(request, &options(ForwardedFor::None))
}

fn returned(response: &str, request: Method, client: Version, connection: Connection) -> String {
    let head = parse_response(response.as_bytes(), request, &Limits::default()).unwrap().unwrap();
    let mut out = Vec::new();
    encode_response(&head, response_framing(head.framing, client), connection, client, Some("mr"), None, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn hop_by_hop_fields_and_those_that_connection_names_are_removed() {
    let request = "GET / HTTP/1.1\r\nhost: a\r\nConnection: X-Mine, close\r\nconnection: x-Other\r\nKeep-Alive: 5\r\n\
        Proxy-Connection: close\r\nProxy-Authorization: Basic eA==\r\nTE: gzip\r\nUpgrade: websocket\r\nX-Mine: 1\r\n\
        X-OTHER: 2\r\nHTTP2-Settings: x\r\nExpect: 100-continue\r\nX-Kept:3\r\nTrailer: T\r\n\r\n";
    assert_eq!(plain(request), "GET / HTTP/1.1\r\nHost: a\r\nX-Kept: 3\r\nTrailer: T\r\n\r\n");

    let response = "HTTP/1.1 200 Fine\r\nConnection: X-Mine, keep-alive\r\nKeep-Alive: 5\r\nUpgrade: h2c\r\n\
        Proxy-Authenticate: Basic\r\nProxy-Connection: keep-alive\r\nX-Mine: 1\r\nX-Kept: 2\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(
        returned(response, Method::Get, Version::Http11, Connection::KeepAlive),
        "HTTP/1.1 200 Fine\r\nX-Kept: 2\r\nContent-Length: 0\r\nVia: 1.1 mr\r\n\r\n"
    );
}

#[test]
fn fields_go_out_as_written_here_wherever_they_stand() {
    let spelt = |line: &str| plain(&format!("GET / HTTP/1.1\r\n{line}\r\n\r\n"));
    let expected = "GET / HTTP/1.1\r\nHost: a\r\nA: b c\r\nB: \r\n\r\n";
    for line in [
        "Host: a\r\nA: b c\r\nB: ",
        "host: a\r\nA: b c\r\nB: ",
        "Host:a\r\nA:b c\r\nB:",
        "Host: a \r\nA:b c \r\nB:\t",
        "Host:\ta\r\nA:\tb c\r\nB: \t ",
        "A: b c\r\nHost: a\r\nB: ",
        "A: \t b c \t\r\nB:\r\nHost: a",
    ] {
        assert_eq!(spelt(line), expected, "{line:?}");
    }
}

#[test]
fn a_head_with_more_odd_lines_than_are_marked_goes_out_the_same() {
    for count in 0..30 {
        let (odd, even) = ("x-a:1\r\n".repeat(count), "x-a: 1\r\n".repeat(count));
        let request = format!(
            "GET / HTTP/1.1\r\nHost: a\r\n{odd}TE: x\r\n{odd}X-Forwarded-For: 10.0.0.1\r\nForwarded: f\r\n{odd}B: c\r\n\r\n"
        );
        let out = format!(
            "GET / HTTP/1.1\r\nHost: a\r\n{even}{even}Forwarded: f\r\n{even}B: c\r\nX-Forwarded-For: 10.0.0.1, 192.0.2.7\r\n\
             X-Forwarded-Proto: https\r\n\r\n"
        );
        assert_eq!(forwarded(&request, &options(ForwardedFor::Append)), out);
        let response = format!("HTTP/1.1 200 OK\r\n{odd}Content-Length: 0\r\n{odd}Keep-Alive: 5\r\nHost: h\r\n\r\n");
        let out = format!("HTTP/1.1 200 OK\r\n{even}{even}Host: h\r\nContent-Length: 0\r\nVia: 1.1 mr\r\n\r\n");
        assert_eq!(returned(&response, Method::Get, Version::Http11, Connection::KeepAlive), out);
    }
}

#[test]
fn what_stands_behind_64_kib_of_a_head_is_seen() {
    let limits = Limits { head: 1 << 20, ..Limits::default() };
    for len in 65_470..65_540 {
        let long = "y".repeat(len);
        let request =
            format!("GET / HTTP/1.1\r\nHost: a\r\nA: {long}\r\nTE: x\r\nKeep-Alive: 5\r\nB: c\r\nUpgrade: x\r\n\r\n");
        let head = parse_request(request.as_bytes(), &limits).unwrap().unwrap();
        let mut out = Vec::new();
        encode_request(&head, &options(ForwardedFor::None), &mut out);
        let expected = format!("GET / HTTP/1.1\r\nHost: a\r\nA: {long}\r\nB: c\r\n\r\n");
        assert!(out == expected.as_bytes(), "{len}: {}", out[out.len() - 60..].escape_ascii());
    }
}

#[test]
fn connection_cannot_remove_what_is_made_anew() {
    let request = "POST / HTTP/1.1\r\nHost: a\r\nConnection: Host, Content-Length, X-Forwarded-For, Via\r\n\
        Content-Length: 3\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n";
    let out = forwarded(request, &options(ForwardedFor::Replace));
    assert!(out.contains("Host: a\r\n") && out.contains("Content-Length: 3\r\n"), "{out}");
    assert!(out.contains("X-Forwarded-For: 192.0.2.7\r\n"), "{out}");
}

#[test]
fn request_framing_is_made_anew() {
    for (sent, out) in [
        ("", ""),
        ("content-length: 007\r\n", "Content-Length: 7\r\n"),
        ("content-length: 0\r\n", "Content-Length: 0\r\n"),
        ("transfer-encoding: Chunked\r\n", "Transfer-Encoding: chunked\r\n"),
    ] {
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\n{sent}A: b\r\n\r\n");
        assert_eq!(plain(&request), format!("POST / HTTP/1.1\r\nHost: a\r\nA: b\r\n{out}\r\n"));
    }
}

#[test]
fn the_target_goes_out_in_origin_form() {
    for (line, host, out) in [
        ("GET /a/../b?c", "a", "GET /a/../b?c HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("GET /a?", "a", "GET /a? HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("GET http://b:81/c?d", "a", "GET /c?d HTTP/1.1\r\nHost: b:81\r\n\r\n"),
        ("GET http://b?d", "a", "GET /?d HTTP/1.1\r\nHost: b\r\n\r\n"),
        ("OPTIONS *", "a", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("OPTIONS http://b", "a", "OPTIONS * HTTP/1.1\r\nHost: b\r\n\r\n"),
        ("BREW /", "a", "BREW / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ] {
        assert_eq!(plain(&format!("{line} HTTP/1.1\r\nHost: {host}\r\n\r\n")), out);
    }
    assert_eq!(plain("GET / HTTP/1.0\r\n\r\n"), "GET / HTTP/1.1\r\nHost: 10.9.2.2:8080\r\n\r\n");
}

#[test]
fn upgrade_expect_and_te_are_forwarded_when_they_count() {
    let request = |lines: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    let expected = |lines: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    for (sent, out) in [
        (
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
            "Sec-WebSocket-Version: 13\r\nConnection: upgrade\r\nUpgrade: websocket\r\n",
        ),
        ("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n", ""),
        ("Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n", ""),
        ("Connection: TE\r\nTE: gzip, Trailers\r\n", "Connection: TE\r\nTE: trailers\r\n"),
        ("TE: trailers\r\n", ""),
        (
            "Connection: te, upgrade\r\nTE: trailers\r\nUpgrade: a\r\n",
            "Connection: upgrade, TE\r\nTE: trailers\r\nUpgrade: a\r\n",
        ),
        ("Expect: 100-continue\r\nContent-Length: 1\r\n", "Expect: 100-continue\r\nContent-Length: 1\r\n"),
        ("Expect: 100-continue\r\n", ""),
    ] {
        assert_eq!(plain(&request(sent)), expected(out), "{sent}");
    }
}

#[test]
fn the_client_is_named_as_asked() {
    let request = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: gopher\r\n\
        Forwarded: for=x\r\nx-forwarded-for: 10.0.0.2\r\nX-Forwarded-Host: h\r\nX-Forwarded-For:\r\n\r\n";
    let fields = |mode| {
        let out = forwarded(request, &options(mode));
        out.strip_prefix("GET / HTTP/1.1\r\nHost: a\r\n").unwrap().strip_suffix("\r\n").unwrap().to_owned()
    };
    assert_eq!(
        fields(ForwardedFor::Append),
        "Forwarded: for=x\r\nX-Forwarded-Host: h\r\nX-Forwarded-For: 10.0.0.1, 10.0.0.2, 192.0.2.7\r\n\
         X-Forwarded-Proto: https\r\n"
    );
    assert_eq!(fields(ForwardedFor::Replace), "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n");
    assert_eq!(
        fields(ForwardedFor::None),
        "X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: gopher\r\nForwarded: for=x\r\nx-forwarded-for: 10.0.0.2\r\n\
         X-Forwarded-Host: h\r\nX-Forwarded-For: \r\n"
    );
    for (client, text) in [("2001:db8::7", "2001:db8::7"), ("::ffff:192.0.2.8", "192.0.2.8")] {
        let options = ForwardOptions { client: client.parse().unwrap(), ..options(ForwardedFor::Append) };
        let out = forwarded("GET / HTTP/1.1\r\nHost: a\r\n\r\n", &options);
        assert!(out.contains(&format!("X-Forwarded-For: {text}\r\n")), "{out}");
    }
    for octet in 0..=255u8 {
        let client = core::net::Ipv4Addr::new(octet, 255 - octet, octet.wrapping_mul(7), octet / 3);
        let options = ForwardOptions { client: client.into(), ..options(ForwardedFor::Append) };
        let out = forwarded("GET / HTTP/1.1\r\nHost: a\r\n\r\n", &options);
        assert!(out.contains(&format!("X-Forwarded-For: {client}\r\n")), "{out}");
    }
}

#[test]
fn via_names_the_version_received_behind_those_before() {
    let options = ForwardOptions { via: Some("mr"), ..options(ForwardedFor::None) };
    assert_eq!(
        forwarded("GET / HTTP/1.0\r\nHost: a\r\nVia: 1.1 x\r\n\r\n", &options),
        "GET / HTTP/1.1\r\nHost: a\r\nVia: 1.1 x\r\nVia: 1.0 mr\r\n\r\n"
    );
}

/// RFC 9110 §7.6.2: of OPTIONS it is one less, and behind what came; whatever is no number, and any other method's, passes as it came.
#[test]
fn max_forwards_counts_down_with_options() {
    let lines = |method: &str, sent: &str, options: &ForwardOptions<'_>| {
        let out = forwarded(&format!("{method} /x HTTP/1.1\r\nHost: a\r\nA: b\r\n{sent}C: d\r\n\r\n"), options);
        let start = format!("{method} /x HTTP/1.1\r\nHost: a\r\nA: b\r\n");
        out.strip_prefix(&start).unwrap().strip_suffix("\r\n").unwrap().to_owned()
    };
    let plain = |method: &str, sent: &str| lines(method, sent, &options(ForwardedFor::None));
    for (sent, out) in [
        ("Max-Forwards: 1\r\n", "C: d\r\nMax-Forwards: 0\r\n"),
        ("max-forwards:10\r\n", "C: d\r\nMax-Forwards: 9\r\n"),
        ("Max-Forwards: 007 \r\n", "C: d\r\nMax-Forwards: 6\r\n"),
        ("Max-Forwards: 18446744073709551616\r\n", "C: d\r\nMax-Forwards: 18446744073709551614\r\n"),
        ("Max-Forwards: 3\r\nConnection: max-forwards\r\n", "C: d\r\nMax-Forwards: 2\r\n"),
        ("", "C: d\r\n"),
    ] {
        assert_eq!(plain("OPTIONS", sent), out, "{sent}");
    }
    for sent in ["-1", "+1", "", "1, 2", "0x1", "ten", "1\r\nMax-Forwards: 1"] {
        let sent = format!("Max-Forwards: {sent}\r\n");
        assert_eq!(plain("OPTIONS", &sent), format!("{sent}C: d\r\n"), "{sent}");
    }
    for method in ["GET", "POST", "options", "BREW"] {
        assert_eq!(plain(method, "Max-Forwards: 5\r\n"), "Max-Forwards: 5\r\nC: d\r\n", "{method}");
    }
    // What a route sets is what goes out.
    let with = |strip, append| {
        let fields = FieldChanges { strip, append };
        let changes = RequestChanges { fields, ..RequestChanges::default() };
        lines(
            "OPTIONS",
            "Max-Forwards: 5\r\n",
            &ForwardOptions { changes: Some(&changes), ..options(ForwardedFor::None) },
        )
    };
    assert_eq!(with(b"a-b\n", b"E: f\r\n"), "C: d\r\nMax-Forwards: 4\r\nE: f\r\n");
    assert_eq!(with(b"", b"E: f\r\n"), "C: d\r\nMax-Forwards: 4\r\nE: f\r\n");
    assert_eq!(with(b"max-forwards\n", b"Max-Forwards: 1\r\n"), "C: d\r\nMax-Forwards: 1\r\n");
    // In a response it is a field like any other.
    let reply = "HTTP/1.1 200 OK\r\nMax-Forwards: 5\r\nContent-Length: 0\r\n\r\n";
    assert!(
        returned(reply, Method::Options, Version::Http11, Connection::KeepAlive).contains("\r\nMax-Forwards: 5\r\n")
    );
}

#[test]
fn response_framing_suits_the_client() {
    use Connection::{Close, KeepAlive};
    use Version::{Http10, Http11};
    let length = "Content-Length: 5\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n";
    for (sent, client, connection, out) in [
        (length, Http11, KeepAlive, "Content-Length: 5\r\n"),
        (length, Http11, Close, "Content-Length: 5\r\nConnection: close\r\n"),
        (length, Http10, KeepAlive, "Content-Length: 5\r\nConnection: keep-alive\r\n"),
        (chunked, Http11, KeepAlive, "Transfer-Encoding: chunked\r\n"),
        (chunked, Http10, KeepAlive, "Connection: close\r\n"),
        ("", Http11, KeepAlive, "Transfer-Encoding: chunked\r\n"),
        ("", Http10, KeepAlive, "Connection: close\r\n"),
    ] {
        let response = format!("HTTP/1.1 200 OK\r\n{sent}\r\n");
        let expected = format!("HTTP/1.1 200 OK\r\n{out}Via: 1.1 mr\r\n\r\n");
        assert_eq!(returned(&response, Method::Get, client, connection), expected, "{sent} {client:?}");
    }
}

#[test]
fn responses_without_a_body_keep_only_a_length_that_means_something() {
    for (status, request, sent, out) in [
        (200, Method::Head, "Content-Length: 5\r\n", "Content-Length: 5\r\n"),
        (200, Method::Head, "Transfer-Encoding: chunked\r\n", ""),
        (304, Method::Get, "Content-Length: 5\r\n", "Content-Length: 5\r\n"),
        (204, Method::Get, "Content-Length: 5\r\n", ""),
    ] {
        let response = format!("HTTP/1.1 {status} X\r\n{sent}\r\n");
        let expected = format!("HTTP/1.1 {status} X\r\n{out}Via: 1.1 mr\r\n\r\n");
        assert_eq!(returned(&response, request, Version::Http11, Connection::KeepAlive), expected, "{status}");
    }
}

#[test]
fn switches_and_interim_responses_pass() {
    assert_eq!(
        returned(
            "HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n",
            Method::Get,
            Version::Http11,
            Connection::KeepAlive,
        ),
        "HTTP/1.1 101 S\r\nSec-WebSocket-Accept: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\nVia: 1.1 mr\r\n\r\n"
    );
    let response = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let head = parse_response(response, Method::Get, &Limits::default()).unwrap().unwrap();
    let mut out = Vec::new();
    encode_interim(&head, &mut out);
    assert_eq!(out, b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
}

#[test]
fn chunk_headers_are_hexadecimal_without_leading_zeros() {
    for len in [1, 9, 10, 15, 16, 255, 256, 4096, 65_535, 1 << 31, usize::MAX] {
        let mut out = Vec::new();
        encode_chunk_header(len, &mut out);
        assert_eq!(String::from_utf8(out.clone()).unwrap(), format!("{len:x}\r\n"));
        assert!(out.len() <= MAX_CHUNK_HEADER);
    }
}

#[test]
fn trailers_that_govern_the_message_are_dropped() {
    let raw = b"X-Checksum: 1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nHost: b\r\nAuthorization: x\r\n\
        Set-Cookie: x\r\nContent-Type: x\r\nCache-Control: x\r\nConnection: close\r\nTrailer: x\r\nTE: x\r\n\
        X-Forwarded-For: x\r\nCookie: x\r\nWWW-Authenticate: x\r\nProxy-Authorization: x\r\nExpect: x\r\nRange: x\r\n\
        Content-Encoding: x\r\nIf-Match: x\r\ngrpc-status:0\r\n";
    let mut out = Vec::new();
    encode_trailers(raw, &mut out);
    assert_eq!(out, b"0\r\nX-Checksum: 1\r\ngrpc-status: 0\r\n\r\n");
    for nothing in [&b""[..], b"not a field\r\n", b"A: b", b"A: b\r\n\r\nC: d\r\n"] {
        let mut out = Vec::new();
        encode_trailers(nothing, &mut out);
        assert_eq!(out, LAST_CHUNK);
    }
}

#[test]
fn local_replies_are_whole() {
    let reply = |status, fields: &[(&str, &str)], body, connection, head_only| {
        let mut out = Vec::new();
        encode_local(status, fields, b"", body, connection, head_only, &mut out);
        String::from_utf8(out).unwrap()
    };
    let head = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Type: text/plain; charset=utf-8\r\n\
        Content-Length: 5\r\nConnection: close\r\n\r\n";
    let fields = [("Retry-After", "1"), ("X", "split\r\nted")];
    assert_eq!(reply(503, &fields, "down\n", Connection::Close, false), format!("{head}down\n"));
    assert_eq!(reply(503, &fields, "down\n", Connection::Close, true), head);
    assert_eq!(
        reply(404, &[], "", Connection::KeepAlive, false),
        "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n"
    );
    let every = Rejection::ALL.iter().map(|cause| cause.status()).chain([408, 413, 429, 502, 503, 504]);
    for status in every {
        assert_ne!(reason(status), "", "{status}");
        let bytes = reply(status, &[], "why", Connection::Close, false);
        let parsed = parse_response(bytes.as_bytes(), Method::Get, &Limits::default()).unwrap().unwrap();
        assert_eq!((parsed.status, parsed.framing, parsed.keep_alive), (status, Framing::Length(3), false));
    }
}
