//! The rows for requests.

use proto::http1::{Framing, Limits, MAX_FIELDS, Method, Rejection, Version, parse_request};

use super::{accepted, refused, request};

/// A POST with these field lines behind Host.
fn post(lines: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n").into_bytes()
}

/// A GET for this target.
fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes()
}

#[test]
fn content_length_with_transfer_encoding_is_refused() {
    let cause = Rejection::LengthAndTransferEncoding;
    refused(&[
        ("length first", post("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n"), cause),
        ("coding first", post("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n"), cause),
        ("length 0", post("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"), cause),
        ("both invalid", post("Content-Length: x\r\nTransfer-Encoding: x\r\n"), cause),
        ("other case", post("cOnTeNt-LeNgTh: 4\r\ntRaNsFeR-eNcOdInG: CHUNKED\r\n"), cause),
    ]);
}

#[test]
fn content_length_must_be_one_number_that_fits() {
    let cause = Rejection::InvalidContentLength;
    refused(&[
        ("repeated, differing", post("Content-Length: 4\r\nContent-Length: 5\r\n"), Rejection::RepeatedContentLength),
        ("repeated, the same", post("Content-Length: 4\r\nContent-Length: 4\r\n"), Rejection::RepeatedContentLength),
        ("empty", post("Content-Length:\r\n"), cause),
        ("blank", post("Content-Length:  \t \r\n"), cause),
        ("plus", post("Content-Length: +4\r\n"), cause),
        ("minus", post("Content-Length: -4\r\n"), cause),
        ("hexadecimal", post("Content-Length: 0x4\r\n"), cause),
        ("hexadecimal digits", post("Content-Length: a\r\n"), cause),
        ("listed, the same", post("Content-Length: 4, 4\r\n"), cause),
        ("listed, differing", post("Content-Length: 4,5\r\n"), cause),
        ("2^64", post("Content-Length: 18446744073709551616\r\n"), cause),
        ("thirty digits", post("Content-Length: 999999999999999999999999999999\r\n"), cause),
        ("space inside", post("Content-Length: 4 4\r\n"), cause),
        ("fraction", post("Content-Length: 4.0\r\n"), cause),
        ("exponent", post("Content-Length: 1e2\r\n"), cause),
        ("underscore", post("Content-Length: 1_0\r\n"), cause),
        ("quoted", post("Content-Length: \"4\"\r\n"), cause),
        ("full-width digit", post("Content-Length: \u{ff14}\r\n"), cause),
    ]);
    assert_eq!(accepted(&post("Content-Length: \t 007 \r\n")).framing, Framing::Length(7));
    assert_eq!(accepted(&post("Content-Length: 18446744073709551615\r\n")).framing, Framing::Length(u64::MAX));
}

#[test]
fn transfer_encoding_must_end_in_exactly_one_chunked() {
    let cause = Rejection::InvalidTransferEncoding;
    refused(&[
        ("not chunked", post("Transfer-Encoding: gzip\r\n"), cause),
        ("identity", post("Transfer-Encoding: identity\r\n"), cause),
        ("chunked not last", post("Transfer-Encoding: chunked, gzip\r\n"), cause),
        ("chunked, identity", post("Transfer-Encoding: chunked, identity\r\n"), cause),
        ("chunked twice", post("Transfer-Encoding: chunked, chunked\r\n"), cause),
        ("chunked around", post("Transfer-Encoding: chunked, gzip, chunked\r\n"), cause),
        ("empty", post("Transfer-Encoding:\r\n"), cause),
        ("empty member", post("Transfer-Encoding: , chunked\r\n"), cause),
        ("trailing comma", post("Transfer-Encoding: chunked,\r\n"), cause),
        ("parameter", post("Transfer-Encoding: chunked;q=1\r\n"), cause),
        ("quoted", post("Transfer-Encoding: \"chunked\"\r\n"), cause),
        ("prefix", post("Transfer-Encoding: xchunked\r\n"), cause),
        ("suffix", post("Transfer-Encoding: chunkedx\r\n"), cause),
        ("two words", post("Transfer-Encoding: x chunked\r\n"), cause),
        ("a non-breaking space", post("Transfer-Encoding: \u{a0}chunked\r\n"), cause),
        (
            "repeated, chunked twice",
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
            Rejection::RepeatedTransferEncoding,
        ),
        (
            "repeated, identity behind",
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
            Rejection::RepeatedTransferEncoding,
        ),
        (
            "repeated, a list over two lines",
            post("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n"),
            Rejection::RepeatedTransferEncoding,
        ),
        (
            "HTTP/1.0",
            b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
            Rejection::TransferEncodingInHttp10,
        ),
    ]);
    assert_eq!(accepted(&post("Transfer-Encoding:\tChunked \t\r\n")).framing, Framing::Chunked);
}

#[test]
fn unknown_transfer_codings_get_501() {
    refused(&[
        ("gzip", post("Transfer-Encoding: gzip, chunked\r\n"), Rejection::UnknownTransferCoding),
        ("unheard of", post("Transfer-Encoding: foo;bar=baz ,chunked\r\n"), Rejection::UnknownTransferCoding),
    ]);
    assert_eq!(Rejection::UnknownTransferCoding.status(), 501);
}

#[test]
fn field_lines_must_be_sound() {
    refused(&[
        ("space before the colon", post("A : b\r\n"), Rejection::SpaceBeforeColon),
        ("tab before the colon", post("A\t: b\r\n"), Rejection::SpaceBeforeColon),
        ("space in a framing field", post("Transfer-Encoding : chunked\r\n"), Rejection::SpaceBeforeColon),
        ("obs-fold by a space", post("A: b\r\n c\r\n"), Rejection::ObsFold),
        ("obs-fold by a tab", post("A: b\r\n\tc\r\n"), Rejection::ObsFold),
        ("obs-fold of a framing field", post("Transfer-Encoding:\r\n chunked\r\n"), Rejection::ObsFold),
        ("a line of blanks", post(" \r\n"), Rejection::ObsFold),
        ("whitespace before the first", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n".to_vec(), Rejection::ObsFold),
        ("bare LF after a value", post("A: b\nC: d\r\n"), Rejection::BareLf),
        ("bare LF in a name", post("A\nB: c\r\n"), Rejection::BareLf),
        ("bare LF as the empty line", b"GET / HTTP/1.1\r\nHost: a\r\n\n".to_vec(), Rejection::BareLf),
        ("bare LF everywhere", b"GET / HTTP/1.1\nHost: a\n\n".to_vec(), Rejection::BareLf),
        ("bare CR in a value", post("A: b\rc\r\n"), Rejection::BareCr),
        ("CR CR LF", post("A: b\r\r\n"), Rejection::BareCr),
        ("bare CR at the end", b"GET / HTTP/1.1\r\nHost: a\r\n\rX".to_vec(), Rejection::BareCr),
        ("bare CR in a name", post("A\rB: c\r\n"), Rejection::InvalidFieldName),
        ("NUL in a value", post("A: b\0c\r\n"), Rejection::InvalidFieldValue),
        ("escape in a value", post("A: \x1b[31m\r\n"), Rejection::InvalidFieldValue),
        ("vertical tab", post("Transfer-Encoding: \x0bchunked\r\n"), Rejection::InvalidFieldValue),
        ("DEL in a value", post("A: \x7f\r\n"), Rejection::InvalidFieldValue),
        ("NUL in a name", post("A\0: b\r\n"), Rejection::InvalidFieldName),
        ("empty name", post(": b\r\n"), Rejection::EmptyFieldName),
        ("slash in a name", post("A/B: c\r\n"), Rejection::InvalidFieldName),
        ("parenthesis in a name", post("A(: c\r\n"), Rejection::InvalidFieldName),
        ("quote in a name", post("\"A\": c\r\n"), Rejection::InvalidFieldName),
        ("non-ASCII in a name", post("\u{e4}: c\r\n"), Rejection::InvalidFieldName),
        ("no colon", post("Nothing\r\n"), Rejection::InvalidFieldName),
        ("second request line", post("GET / HTTP/1.1\r\n"), Rejection::SpaceBeforeColon),
    ]);
    let head = post("A:\r\nb:c\td\r\n~: \t\u{fc} \t\r\n");
    let head = accepted(&head);
    assert_eq!(head.fields.len(), 4);
    assert_eq!(head.fields.get("a"), Some(&b""[..]));
    assert_eq!(head.fields.get(b"B"), Some(&b"c\td"[..]));
    assert_eq!(head.fields.get("~"), Some("\u{fc}".as_bytes()));
    assert_eq!(head.fields.get("missing"), None);
}

#[test]
fn a_malformed_request_line_is_refused() {
    let cause = Rejection::MalformedRequestLine;
    let line = |line: &str| format!("{line}\r\nHost: a\r\n\r\n").into_bytes();
    refused(&[
        ("HTTP/0.9", line("GET /"), cause),
        ("no method", line(" / HTTP/1.1"), cause),
        ("no target", line("GET  HTTP/1.1"), cause),
        ("two spaces behind the method", line("GET  / HTTP/1.1"), cause),
        ("two spaces behind the target", line("GET /  HTTP/1.1"), cause),
        ("space in the target", line("GET /a b HTTP/1.1"), cause),
        ("tab for a space", line("GET\t/ HTTP/1.1"), cause),
        ("space at the end", line("GET / HTTP/1.1 "), cause),
        ("method not a token", line("G(T / HTTP/1.1"), cause),
        ("method that never ends", line(&"A".repeat(33)), cause),
        ("method too long", line(&format!("{} / HTTP/1.1", "A".repeat(33))), cause),
        ("small http", line("GET / http/1.1"), cause),
        ("no minor version", line("GET / HTTP/1"), cause),
        ("two digits", line("GET / HTTP/1.10"), cause),
        ("two digits, major", line("GET / HTTP/01.1"), cause),
        ("no version", line("GET / "), cause),
        ("another protocol", line("GET / SIP/2.0"), cause),
        ("a TLS hello", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec(), cause),
        ("two empty lines before", b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), cause),
        ("LF before", b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), cause),
        ("CR before", b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), cause),
        ("space before", b" GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), cause),
        ("CR in the line", b"GET / HTTP/1.1\rHost: a\r\n\r\n".to_vec(), Rejection::BareCr),
        ("LF in the line", b"GET / HTTP/1.1\nHost: a\r\n\r\n".to_vec(), Rejection::BareLf),
    ]);
    // RFC 9112 §2.2 lets one empty line before a request pass.
    let head = accepted(b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nrest");
    assert_eq!((head.method, head.len), (Method::Get, 29));
}

#[test]
fn host_must_be_one_valid_authority() {
    let host = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes();
    let cause = Rejection::InvalidHost;
    refused(&[
        ("missing", b"GET / HTTP/1.1\r\nAccept: a\r\n\r\n".to_vec(), Rejection::MissingHost),
        ("missing, no fields", b"GET / HTTP/1.1\r\n\r\n".to_vec(), Rejection::MissingHost),
        ("repeated", host("a\r\nHost: b"), Rejection::RepeatedHost),
        ("repeated, the same", host("a\r\nhost: a"), Rejection::RepeatedHost),
        ("repeated, HTTP/1.0", b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n".to_vec(), Rejection::RepeatedHost),
        ("userinfo", host("user@a"), Rejection::UserinfoInAuthority),
        ("userinfo with a password", host("user:secret@a:80"), Rejection::UserinfoInAuthority),
        ("empty", host(""), cause),
        ("only a port", host(":80"), cause),
        ("two hosts", host("a, b"), cause),
        ("two hosts, no space", host("a,b"), cause),
        ("space", host("a b"), cause),
        ("path", host("a/b"), cause),
        ("backslash", host("a\\b"), cause),
        ("query", host("a?b"), cause),
        ("fragment", host("a#b"), cause),
        ("scheme", host("http://a"), cause),
        ("port not a number", host("a:b"), cause),
        ("port signed", host("a:+1"), cause),
        ("port too large", host("a:65536"), cause),
        ("two ports", host("a:1:2"), cause),
        ("IPv6 without brackets", host("::1"), cause),
        ("IPv6 not closed", host("[::1"), cause),
        ("IPv6 malformed", host("[::1::]"), cause),
        ("IPv6 with a zone", host("[fe80::1%25eth0]"), cause),
        ("IPv6 with a tail", host("[::1]x"), cause),
        ("a name in brackets", host("[a]"), cause),
        ("non-ASCII", host("\u{e4}.example"), cause),
        ("bad percent-encoding", host("%zz"), cause),
        ("cut percent-encoding", host("a%2"), cause),
    ]);
    for (sent, name) in [
        ("a.example", "a.example"),
        ("A.Example.:8080", "A.Example."),
        ("a:", "a"),
        ("10.0.0.1:65535", "10.0.0.1"),
        ("[::1]", "[::1]"),
        ("[2001:db8::192.0.2.1]:443", "[2001:db8::192.0.2.1]"),
        ("under_score", "under_score"),
        ("p%2fq", "p%2fq"),
    ] {
        let bytes = host(sent);
        let head = accepted(&bytes);
        assert_eq!((head.authority, head.host), (sent.as_bytes(), name.as_bytes()));
    }
    let old = accepted(b"GET / HTTP/1.0\r\n\r\n");
    assert_eq!((old.version, old.authority, old.host), (Version::Http10, &b""[..], &b""[..]));
}

#[test]
fn the_target_must_be_visible_ascii_in_a_known_form() {
    let cause = Rejection::InvalidTarget;
    let mut cases = vec![
        ("non-ASCII, UTF-8", get("/\u{e4}"), cause),
        ("non-ASCII, not UTF-8", b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), cause),
        ("non-ASCII in the query", get("/?\u{e4}"), cause),
        ("NUL", get("/\0"), cause),
        ("tab", get("/\t"), cause),
        ("DEL", get("/\x7f"), cause),
        ("bare CR", get("/\ra"), Rejection::MalformedRequestLine),
        ("bare LF", get("/\na"), Rejection::MalformedRequestLine),
        ("fragment", get("/a#b"), cause),
        ("relative", get("a/b"), cause),
        ("asterisk with GET", get("*"), cause),
        ("authority with GET", get("a:80"), cause),
        ("another scheme", get("ftp://a/"), cause),
        ("no authority", get("http:///"), Rejection::InvalidHost),
        ("only a port", get("http://:80/"), Rejection::InvalidHost),
        ("invalid authority", get("http://a b/"), Rejection::MalformedRequestLine),
        ("userinfo", get("http://user:secret@a/"), Rejection::UserinfoInAuthority),
        ("query first", get("?a"), cause),
    ];
    cases.push(("scheme only", get("http:/a"), cause));
    refused(&cases);
}

#[test]
fn the_target_is_taken_apart_and_not_rewritten() {
    for (target, path, query) in [
        ("/", "/", None),
        ("/a/b", "/a/b", None),
        ("/a?", "/a", Some("")),
        ("/a?b?c", "/a", Some("b?c")),
        ("//x/../y/./%2e%2e/%zz", "//x/../y/./%2e%2e/%zz", None),
        ("/a|{b}\\\"<>^`", "/a|{b}\\\"<>^`", None),
    ] {
        let bytes = get(target);
        let head = accepted(&bytes);
        assert_eq!(head.target, target.as_bytes());
        assert_eq!((head.path, head.query), (path.as_bytes(), query.map(str::as_bytes)), "{target}");
    }
    let head = accepted(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((head.method, head.path), (Method::Options, &b"*"[..]));
}

#[test]
fn an_absolute_target_brings_the_host() {
    for (target, authority, host, path, query) in [
        ("http://b.example/p?q", "b.example", "b.example", "/p", Some("q")),
        ("HTTP://b:81", "b:81", "b", "/", None),
        ("https://[::1]:8443?q", "[::1]:8443", "[::1]", "/", Some("q")),
        ("http://b/p?http://c/", "b", "b", "/p", Some("http://c/")),
    ] {
        let bytes = get(target);
        let head = accepted(&bytes);
        assert_eq!((head.authority, head.host), (authority.as_bytes(), host.as_bytes()), "{target}");
        assert_eq!((head.path, head.query), (path.as_bytes(), query.map(str::as_bytes)), "{target}");
    }
    assert_eq!(accepted(b"OPTIONS http://b HTTP/1.1\r\nHost: a\r\n\r\n").path, b"*");
    assert_eq!(accepted(b"GET http://b/ HTTP/1.0\r\n\r\n").host, b"b");
    // The field is not used, and must be sound all the same.
    refused(&[
        ("no Host field", &b"GET http://b/ HTTP/1.1\r\n\r\n"[..], Rejection::MissingHost),
        ("invalid Host field", &b"GET http://b/ HTTP/1.1\r\nHost: a/b\r\n\r\n"[..], Rejection::InvalidHost),
    ]);
}

#[test]
fn unknown_versions_get_505_and_methods_405() {
    let line = |line: &str| format!("{line}\r\nHost: a\r\n\r\n").into_bytes();
    refused(&[
        ("HTTP/2.0", line("GET / HTTP/2.0"), Rejection::UnsupportedVersion),
        ("HTTP/1.2", line("GET / HTTP/1.2"), Rejection::UnsupportedVersion),
        ("HTTP/0.9", line("GET / HTTP/0.9"), Rejection::UnsupportedVersion),
        ("HTTP/9.9", line("GET / HTTP/9.9"), Rejection::UnsupportedVersion),
        ("the HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), Rejection::UnsupportedVersion),
        ("CONNECT", line("CONNECT a:443 HTTP/1.1"), Rejection::MethodNotAllowed),
        ("TRACE", line("TRACE / HTTP/1.1"), Rejection::MethodNotAllowed),
    ]);
    assert_eq!(Rejection::UnsupportedVersion.status(), 505);
    assert_eq!(Rejection::MethodNotAllowed.status(), 405);
    assert_eq!(accepted(&line("PURGE / HTTP/1.1")).method, Method::Other);
}

#[test]
fn expectations_other_than_continue_get_417() {
    refused(&[
        ("unknown", post("Expect: tea\r\n"), Rejection::ExpectationFailed),
        ("empty", post("Expect:\r\n"), Rejection::ExpectationFailed),
        ("listed", post("Expect: 100-continue, tea\r\n"), Rejection::ExpectationFailed),
        ("repeated", post("Expect: tea\r\nExpect: 100-continue\r\n"), Rejection::ExpectationFailed),
    ]);
    assert_eq!(Rejection::ExpectationFailed.status(), 417);
    assert!(accepted(&post("Expect: 100-Continue\r\nContent-Length: 1\r\n")).expect_continue);
    assert!(!accepted(&post("Expect: 100-continue\r\n")).expect_continue, "there is no content to wait for");
    let old = b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n";
    assert!(!accepted(old).expect_continue, "RFC 9110 \u{a7}10.1.1: ignored in HTTP/1.0");
}

#[test]
fn targets_heads_and_field_counts_have_limits() {
    let limits = Limits::default();
    let target = |len: usize| get(&format!("/{}", "a".repeat(len - 1)));
    accepted(&target(limits.target));
    let many = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(count - 1)).into_bytes();
    assert_eq!(accepted(&many(MAX_FIELDS)).fields.len(), MAX_FIELDS);
    let large = |len: usize| {
        let rest = len - "GET / HTTP/1.1\r\nHost: a\r\nA: \r\n\r\n".len();
        format!("GET / HTTP/1.1\r\nHost: a\r\nA: {}\r\n\r\n", "a".repeat(rest)).into_bytes()
    };
    assert_eq!(accepted(&large(limits.head)).len, limits.head);
    refused(&[
        ("a target too long", target(limits.target + 1), Rejection::TargetTooLong),
        ("too many fields", many(MAX_FIELDS + 1), Rejection::TooManyFields),
    ]);
    // Byte by byte these would take minutes.
    for (name, bytes, cause) in [
        ("a head too large", large(limits.head + 1), Rejection::HeadTooLarge),
        ("no end in sight", large(limits.head + 100)[..limits.head].to_vec(), Rejection::HeadTooLarge),
        ("a target without end", target(limits.target + 100)[..limits.target + 50].to_vec(), Rejection::TargetTooLong),
    ] {
        assert_eq!(request(&bytes).err(), Some(cause), "{name}");
    }
    assert_eq!(request(&large(limits.head + 100)[..limits.head - 1]).unwrap().map(|_| ()), None);
    assert_eq!([Rejection::TargetTooLong.status(), Rejection::HeadTooLarge.status()], [414, 431]);
    assert_eq!(Rejection::TooManyFields.status(), 431);

    let small = Limits { target: 4, head: 64, fields: 2 };
    let cause = |bytes: &[u8]| parse_request(bytes, &small).err();
    assert_eq!(cause(b"GET /abc HTTP/1.1\r\nHost: a\r\nB: c\r\n\r\n"), None);
    assert_eq!(cause(b"GET /abcd HTTP/1.1\r\n"), Some(Rejection::TargetTooLong));
    assert_eq!(cause(b"GET / HTTP/1.1\r\nHost: a\r\nB: c\r\nD"), Some(Rejection::TooManyFields));
}

#[test]
fn connection_persists_as_version_and_options_say() {
    for (version, connection, keeps) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: keep-alive, Close\r\n", false),
        ("1.1", "Connection: x\r\nConnection: ,close,\r\n", false),
        ("1.1", "Connection: closed\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
        ("1.1", "Proxy-Connection: close\r\n", true),
    ] {
        let bytes = format!("GET / HTTP/{version}\r\nHost: a\r\n{connection}\r\n");
        assert_eq!(accepted(bytes.as_bytes()).keep_alive, keeps, "{version} {connection}");
    }
    let options = |count: usize| post(&format!("Connection: a{}\r\n", ",a".repeat(count - 1)));
    accepted(&options(32));
    refused(&[("too many options", options(33), Rejection::TooManyConnectionOptions)]);
}

#[test]
fn upgrade_passes_only_to_protocols_that_are_not_http() {
    for (lines, upgrade) in [
        ("Connection: Upgrade\r\nUpgrade: websocket\r\n", Some("websocket")),
        ("Connection: keep-alive, upgrade\r\nUpgrade: a/1, b\r\n", Some("a/1, b")),
        ("Upgrade: websocket\r\n", None),
        ("Connection: upgrade\r\n", None),
        ("Connection: upgrade\r\nUpgrade:\r\n", None),
        ("Connection: upgrade\r\nUpgrade: a\r\nUpgrade: b\r\n", None),
        ("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n", None),
        ("Connection: upgrade\r\nUpgrade: H2C\r\n", None),
        ("Connection: upgrade\r\nUpgrade: websocket, h2c\r\n", None),
        ("Connection: upgrade\r\nUpgrade: h2c-14\r\n", None),
        ("Connection: upgrade\r\nUpgrade: HTTP/2.0\r\n", None),
        ("Connection: upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n", None),
    ] {
        let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        assert_eq!(accepted(bytes.as_bytes()).upgrade, upgrade.map(str::as_bytes), "{lines}");
    }
    let old = b"GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(accepted(old).upgrade, None);
}

#[test]
fn a_pipelined_request_begins_where_the_first_ends() {
    let first = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n";
    let both = [&first[..], b"GET /2 HTTP/1.1\r\nHost: b\r\n\r\n"].concat();
    let head = accepted(&both);
    assert_eq!((head.len, head.path, head.host), (first.len(), &b"/1"[..], &b"a"[..]));
    assert_eq!(accepted(&both[head.len..]).path, b"/2");
}

#[test]
fn faults_are_seen_before_the_head_is_complete() {
    for (bytes, cause) in [
        (&b"GET / HTTP/2.0"[..], Rejection::UnsupportedVersion),
        (b"GET / HTTP/1.1\n", Rejection::BareLf),
        (b"GET /\xc3", Rejection::InvalidTarget),
        (b"GET / HTTP/1.1\r\nA ", Rejection::SpaceBeforeColon),
        (b"GET / HTTP/1.1\r\nA: \0", Rejection::InvalidFieldValue),
        (b"GET / HTTX", Rejection::MalformedRequestLine),
        (&[b'A'; 33], Rejection::MalformedRequestLine),
    ] {
        assert_eq!(request(bytes).err(), Some(cause), "{}", bytes.escape_ascii());
        assert_eq!(request(&bytes[..bytes.len() - 1]).map(|head| head.is_some()), Ok(false));
    }
}
