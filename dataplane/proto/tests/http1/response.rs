//! The rows for backends: an invalid or ambiguous head, and how the request decides its response's framing.

use proto::http1::{Framing, InvalidResponse, Limits, Method, ResponseHead, Version, parse_response};

fn response(bytes: &[u8], request: Method) -> Result<Option<ResponseHead<'_>>, InvalidResponse> {
    parse_response(bytes, request, &Limits::default())
}

#[track_caller]
fn accepted(bytes: &[u8], request: Method) -> ResponseHead<'_> {
    match response(bytes, request) {
        Ok(Some(head)) => head,
        other => panic!("{}: {other:?}", bytes.escape_ascii()),
    }
}

/// A 200 with these field lines.
fn ok(lines: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{lines}\r\n").into_bytes()
}

#[test]
fn invalid_and_ambiguous_heads_are_refused() {
    use InvalidResponse::*;
    let cases: Vec<(&str, Vec<u8>, InvalidResponse)> = vec![
        ("length and coding", ok("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"), LengthAndTransferEncoding),
        ("differing lengths", ok("Content-Length: 1\r\nContent-Length: 2\r\n"), DifferingContentLengths),
        ("listed lengths", ok("Content-Length: 1, 2\r\n"), InvalidContentLength),
        ("signed length", ok("Content-Length: +1\r\n"), InvalidContentLength),
        ("empty length", ok("Content-Length:\r\n"), InvalidContentLength),
        ("overflowing length", ok("Content-Length: 18446744073709551616\r\n"), InvalidContentLength),
        ("unknown coding", ok("Transfer-Encoding: gzip, chunked\r\n"), InvalidTransferEncoding),
        ("coding not chunked", ok("Transfer-Encoding: gzip\r\n"), InvalidTransferEncoding),
        ("chunked twice", ok("Transfer-Encoding: chunked, chunked\r\n"), InvalidTransferEncoding),
        (
            "coding repeated",
            ok("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
            InvalidTransferEncoding,
        ),
        ("coding in 1.0", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".into(), TransferEncodingInHttp10),
        ("101 without a protocol", b"HTTP/1.1 101 Switching Protocols\r\n\r\n".into(), SwitchWithoutUpgrade),
        ("101 to h2c", b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n".into(), SwitchWithoutUpgrade),
        ("HTTP/2.0", b"HTTP/2.0 200 OK\r\n\r\n".into(), UnsupportedVersion),
        ("another protocol", b"SSH-2.0-OpenSSH_9.2\r\n".into(), MalformedStatusLine),
        ("HTTP/0.9", b"<html>".into(), MalformedStatusLine),
        ("empty line before", b"\r\nHTTP/1.1 200 OK\r\n\r\n".into(), MalformedStatusLine),
        ("LF before", b"\nHTTP/1.1 200 OK\r\n\r\n".into(), MalformedStatusLine),
        ("two digits", b"HTTP/1.1 20 OK\r\n\r\n".into(), MalformedStatusLine),
        ("four digits", b"HTTP/1.1 2000 OK\r\n\r\n".into(), MalformedStatusLine),
        ("status below 100", b"HTTP/1.1 099 X\r\n\r\n".into(), MalformedStatusLine),
        ("no status", b"HTTP/1.1 OK\r\n\r\n".into(), MalformedStatusLine),
        ("two spaces", b"HTTP/1.1  200 OK\r\n\r\n".into(), MalformedStatusLine),
        ("NUL in the reason", b"HTTP/1.1 200 O\0K\r\n\r\n".into(), MalformedStatusLine),
        ("bare LF", b"HTTP/1.1 200 OK\n\n".into(), BareLf),
        ("bare LF in a field", ok("A: b\nC: d\r\n"), BareLf),
        ("bare CR in the reason", b"HTTP/1.1 200 O\rK\r\n\r\n".into(), BareCr),
        ("bare CR in a field", ok("A: b\rc\r\n"), BareCr),
        ("obs-fold", ok("A: b\r\n c\r\n"), ObsFold),
        ("space before the colon", ok("A : b\r\n"), SpaceBeforeColon),
        ("empty name", ok(": b\r\n"), EmptyFieldName),
        ("name not a token", ok("A(: b\r\n"), InvalidFieldName),
        ("control byte", ok("A: \x01\r\n"), InvalidFieldValue),
        ("too many fields", ok(&"A: b\r\n".repeat(101)), TooManyFields),
        ("too many options", ok(&format!("Connection: {}\r\n", "a,".repeat(33))), TooManyConnectionOptions),
    ];
    let mut wrong = Vec::new();
    for (name, bytes, cause) in &cases {
        let whole = response(bytes, Method::Get).err();
        let split = (0..=bytes.len()).find_map(|len| match response(&bytes[..len], Method::Get) {
            Ok(None) => None,
            other => Some(other.err()),
        });
        if whole != Some(*cause) || split != Some(Some(*cause)) {
            wrong.push(format!("{name}: expected {cause:?}, whole {whole:?}, byte by byte {split:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let large = ok(&format!("A: {}\r\n", "a".repeat(70_000)));
    assert_eq!(response(&large, Method::Get).err(), Some(HeadTooLarge));
    assert!(InvalidResponse::ALL.iter().all(|cause| cause.status() == 502));
}

#[test]
fn the_request_and_the_status_decide_the_framing() {
    use Method::{Get, Head};
    let length = "Content-Length: 5\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n";
    for (request, status, lines, framing) in [
        (Get, 200, length, Framing::Length(5)),
        (Get, 200, "Content-Length: 0\r\n", Framing::Length(0)),
        (Get, 200, "Content-Length: 5\r\nContent-Length: 5\r\n", Framing::Length(5)),
        (Get, 200, chunked, Framing::Chunked),
        (Get, 200, "", Framing::UntilClose),
        (Get, 404, "", Framing::UntilClose),
        (Head, 200, length, Framing::None),
        (Head, 200, chunked, Framing::None),
        (Head, 200, "", Framing::None),
        (Get, 204, "", Framing::None),
        (Get, 204, length, Framing::None),
        (Get, 304, length, Framing::None),
        (Get, 304, "", Framing::None),
        (Get, 100, "", Framing::None),
        (Get, 103, "Link: </a>\r\n", Framing::None),
        (Get, 205, "Content-Length: 0\r\n", Framing::Length(0)),
    ] {
        let bytes = format!("HTTP/1.1 {status} X\r\n{lines}\r\n");
        let head = accepted(bytes.as_bytes(), request);
        assert_eq!((head.framing, head.status), (framing, status), "{request:?} {status} {lines}");
        assert_eq!(head.is_interim(), status < 200);
    }
    assert_eq!(accepted(&ok(length), Head).content_length, Some(5));
}

#[test]
fn a_backend_connection_is_kept_only_when_that_is_sure() {
    for (version, status, lines, keeps) in [
        ("1.1", 200, "Content-Length: 0\r\n", true),
        ("1.1", 200, "Transfer-Encoding: chunked\r\n", true),
        ("1.1", 200, "", false),
        ("1.1", 200, "Content-Length: 0\r\nConnection: close\r\n", false),
        ("1.0", 200, "Content-Length: 0\r\n", false),
        ("1.0", 200, "Content-Length: 0\r\nConnection: keep-alive\r\n", true),
        ("1.0", 200, "Connection: keep-alive\r\n", false),
        ("1.1", 304, "Content-Length: 9\r\n", true),
        ("1.1", 204, "", true),
        // It may well send what it announces.
        ("1.1", 204, "Content-Length: 9\r\n", false),
        ("1.1", 204, "Transfer-Encoding: chunked\r\n", false),
    ] {
        let bytes = format!("HTTP/{version} {status} X\r\n{lines}\r\n");
        assert_eq!(accepted(bytes.as_bytes(), Method::Get).keep_alive, keeps, "{version} {status} {lines}");
    }
}

#[test]
fn the_parts_of_a_head() {
    let bytes = b"HTTP/1.0 404 Nicht da\xfc \r\nA: b\r\n\r\nbody";
    let head = accepted(bytes, Method::Get);
    assert_eq!((head.status, head.version), (404, Version::Http10));
    assert_eq!(head.reason, b"Nicht da\xfc ");
    assert_eq!((head.len, head.fields.len(), head.fields.get("a")), (bytes.len() - 4, 1, Some(&b"b"[..])));
    assert_eq!(accepted(b"HTTP/1.1 200 \r\n\r\n", Method::Get).reason, b"");
    assert_eq!(accepted(b"HTTP/1.1 999\r\n\r\n", Method::Get).status, 999);
    let switch = accepted(b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", Method::Get);
    assert_eq!((switch.upgrade, switch.is_interim()), (Some(&b"websocket"[..]), false));
    // What h1 servers that know h2 say on every response.
    assert_eq!(accepted(&ok("Upgrade: h2c\r\nConnection: upgrade\r\n"), Method::Get).upgrade, None);
}
