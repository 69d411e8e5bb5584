//! What holds for every input.

use core::net::IpAddr;

use proptest::prelude::*;
use proto::http1::*;

/// Bytes that come near to HTTP: pieces that matter, in any order, with anything between.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => prop::sample::select(vec![
            "GET ", "POST ", "OPTIONS ", "* ", "/ ", "/a?b ", "http://b/c ", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "\r\n",
            "\r\n", "\r\n", "\r\n\r\n", "\n", "\r", " ", "\t", ":", ": ", "Host: a\r\n", "Content-Length: 5\r\n",
            "Content-Length: ", "Transfer-Encoding: chunked\r\n", "Connection: close, x-a\r\n", "X-A: b\r\n",
            "Connection: upgrade\r\n", "Upgrade: websocket\r\n", "Expect: 100-continue\r\n", "X-Forwarded-For: c\r\n",
            "HTTP/1.1 200 OK\r\n", "HTTP/1.1 ", "204 ", "304 ", "200 ", "101 ",
        ]).prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(piece, 0..16).prop_map(|pieces| pieces.concat())
}

/// A sound request, with its line and fields in any order.
fn sound_request() -> impl Strategy<Value = Vec<u8>> {
    let line = prop::sample::select(vec!["GET /", "POST /a?b", "HEAD http://b:1/c", "OPTIONS *", "BREW //x/..?"]);
    let field = prop::sample::select(vec![
        "Accept: */*",
        "X-A:b",
        "Connection: close",
        "Connection: keep-alive, X-A",
        "X-Forwarded-For: 1.2.3.4",
        "TE: trailers",
        "Connection: te",
        "Via: 1.1 x",
        "Cookie: \t a=b; c=d \t",
        "Proxy-Connection: x",
        "Connection: upgrade",
    ]);
    let framing = prop::sample::select(vec![
        "",
        "Content-Length: 12\r\n",
        "Transfer-Encoding: CHUNKED\r\n",
        "Content-Length: 0\r\n",
        "Upgrade: a\r\n",
        "Content-Length: 4\r\nExpect: 100-continue\r\n",
    ]);
    (line, prop::collection::vec(field, 0..8), framing).prop_map(|(line, fields, framing)| {
        let fields: String = fields.iter().flat_map(|field| [*field, "\r\n"]).collect();
        format!("{line} HTTP/1.1\r\nHost: a.example:80\r\n{fields}{framing}\r\n").into_bytes()
    })
}

/// The answer to a request that comes in as many pieces as it has bytes.
fn byte_by_byte<T>(bytes: &[u8], parse: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
    (0..=bytes.len()).find_map(|len| parse(&bytes[..len]))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn a_request_is_the_same_whole_and_byte_by_byte(bytes in prop_oneof![pieces(), sound_request()], fields in 0..9_usize) {
        let limits = Limits { target: 8, head: 200, fields };
        let parse = |bytes: &[u8]| match parse_request(bytes, &limits) {
            Ok(None) => None,
            Ok(Some(head)) => Some(Ok((head.len, format!("{head:?}")))),
            Err(cause) => Some(Err(cause)),
        };
        prop_assert_eq!(parse(&bytes), byte_by_byte(&bytes, parse));
    }

    #[test]
    fn a_response_is_the_same_whole_and_byte_by_byte(start in "(HTTP/1.[01] (200|204|304|101) ?)?", rest in pieces()) {
        let bytes = [start.as_bytes(), &rest].concat();
        let parse = |bytes: &[u8]| match parse_response(bytes, Method::Get, &Limits { target: 0, head: 200, fields: 5 }) {
            Ok(None) => None,
            Ok(Some(head)) => Some(Ok(format!("{head:?}"))),
            Err(cause) => Some(Err(cause)),
        };
        prop_assert_eq!(parse(&bytes), byte_by_byte(&bytes, parse));
    }

    #[test]
    fn no_bytes_make_a_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse_request(&bytes, &Limits::default());
        let _ = parse_response(&bytes, Method::Other, &Limits::default());
        let _ = Fields::parse(&bytes).map(|fields| fields.iter().count());
        let mut decoder = BodyDecoder::new(Framing::Chunked);
        let _ = decoder.decode(&bytes);
        encode_trailers(&bytes, &mut Vec::new());
        head_end(&bytes, bytes.len() / 2);
    }

    #[test]
    fn what_is_forwarded_parses_as_the_same_request(
        bytes in sound_request(),
        mode in prop::sample::select(vec![ForwardedFor::Append, ForwardedFor::Replace, ForwardedFor::None]),
    ) {
        let limits = Limits::default();
        let head = parse_request(&bytes, &limits).unwrap().unwrap();
        prop_assert_eq!(head.fields.len(), head.fields.iter().count());
        let options = ForwardOptions {
            client: IpAddr::from([10, 0, 0, 1]), scheme: "http", forwarded_for: mode, via: Some("mr"), default_authority: "d",
            changes: None,
        };
        let mut out = Vec::new();
        encode_request(&head, &options, &mut out);
        let again = parse_request(&out, &limits).unwrap().unwrap();
        prop_assert_eq!(again.len, out.len());
        prop_assert_eq!((again.method_bytes, again.path, again.query), (head.method_bytes, head.path, head.query));
        prop_assert_eq!((again.authority, again.host, again.framing), (head.authority, head.host, head.framing));
        prop_assert_eq!((again.expect_continue, again.upgrade), (head.expect_continue, head.upgrade));
        prop_assert!(again.keep_alive, "the client's wish to close is not the backend's");
        for name in ["keep-alive", "proxy-connection"] {
            prop_assert_eq!(again.fields.get(name), None);
        }
    }

    /// Whatever a route changes, the backend reads one message, framed as it was, and nothing of what was taken out.
    #[test]
    fn what_is_changed_parses_as_one_request_of_the_same_framing(
        bytes in sound_request(),
        path in prop::option::of(("/[a-z]{0,5}", "(/[a-z]{0,5})?")),
        authority in prop::option::of("[a-z]{1,5}"),
        strip in prop::sample::subsequence(vec!["x-a", "accept", "cookie", "x-forwarded-proto", "absent"], 0..5),
        append in prop::collection::vec("[a-z]{1,4}", 0..3),
    ) {
        let limits = Limits::default();
        let head = parse_request(&bytes, &limits).unwrap().unwrap();
        let names: String = strip.iter().flat_map(|name| [*name, "\n"]).collect();
        let lines: String = append.iter().map(|value| format!("X-New: {value}\r\n")).collect();
        let parts = path.as_ref().map(|(start, end)| (start.as_bytes(), end.as_bytes()));
        let changes = RequestChanges {
            path: parts,
            authority: authority.as_ref().map(|name| name.as_bytes()),
            fields: FieldChanges { strip: names.as_bytes(), append: lines.as_bytes() },
        };
        let options = ForwardOptions {
            client: IpAddr::from([10, 0, 0, 1]), scheme: "http", forwarded_for: ForwardedFor::Append, via: Some("mr"),
            default_authority: "d", changes: Some(&changes),
        };
        let mut out = Vec::new();
        encode_request(&head, &options, &mut out);
        let again = parse_request(&out, &limits).unwrap().unwrap();
        prop_assert_eq!(again.len, out.len());
        prop_assert_eq!((again.method_bytes, again.query, again.framing), (head.method_bytes, head.query, head.framing));
        prop_assert_eq!((again.expect_continue, again.upgrade), (head.expect_continue, head.upgrade));
        let expected = path.map_or_else(|| head.path.to_vec(), |(start, end)| [start, end].concat().into_bytes());
        // `*` stands for no path only with OPTIONS and alone.
        prop_assert_eq!(again.path, &expected[..]);
        prop_assert_eq!(again.authority, authority.as_deref().map_or(head.authority, str::as_bytes));
        for name in &strip {
            prop_assert_eq!(again.fields.get(name), None, "{}", name);
        }
        let added: Vec<_> = again.fields.get_all(b"x-new").collect();
        prop_assert_eq!(added, append.iter().map(|value| value.as_bytes()).collect::<Vec<_>>());
        for field in &head.fields {
            let kept = again.fields.get_all(field.name).any(|value| value == field.value);
            let nominated = head.fields.get_all(b"connection").any(|v| v.to_ascii_lowercase().ends_with(&field.name.to_ascii_lowercase()));
            let changed = strip.iter().any(|name| field.name.eq_ignore_ascii_case(name.as_bytes()));
            if [&b"X-A"[..], b"Accept", b"Cookie"].contains(&field.name) && !changed && !nominated {
                prop_assert!(kept, "{:?}", field);
            }
        }
    }

    #[test]
    fn a_body_comes_out_as_it_went_in(
        chunks in prop::collection::vec((prop::collection::vec(any::<u8>(), 1..40), "(;[a-z]{1,9}(=\"[ -!#-Z]{0,9}\")?)?"), 0..8),
        trailers in "([A-Z]{1,5}: [ -~]{0,9}\r\n){0,3}",
        // How many bytes are there at each look, and how many of a payload find room.
        script in prop::collection::vec((1..20_usize, 0..9_usize), 1..40),
    ) {
        let mut wire = Vec::new();
        let mut payload = Vec::new();
        for (chunk, extension) in &chunks {
            let mut header = Vec::new();
            encode_chunk_header(chunk.len(), &mut header);
            wire.extend_from_slice(header.strip_suffix(b"\r\n").unwrap());
            wire.extend_from_slice(extension.as_bytes());
            wire.extend_from_slice(CHUNK_END);
            wire.extend_from_slice(chunk);
            wire.extend_from_slice(CHUNK_END);
            payload.extend_from_slice(chunk);
        }
        wire.extend_from_slice(b"0\r\n");
        wire.extend_from_slice(trailers.as_bytes());
        wire.extend_from_slice(b"\r\n");
        let body = wire.len();
        wire.extend_from_slice(b"GET / HTTP/1.1\r\n");

        let mut decoder = BodyDecoder::new(Framing::Chunked);
        let mut got = Vec::new();
        let mut at = 0;
        let mut there = 0;
        for (arrived, room) in script.iter().cycle() {
            there = (there + arrived).min(wire.len());
            match decoder.decode(&wire[at..there]).unwrap() {
                Decoded::Data { skip, len } => {
                    at += skip;
                    prop_assert!(len > 0 && at + len <= there);
                    let taken = len.min((*room).max(usize::from(there == wire.len())));
                    got.extend_from_slice(&wire[at..at + taken]);
                    at += taken;
                    decoder.advance(taken);
                }
                Decoded::More { skip } => {
                    at += skip;
                    prop_assert!(at <= there && there < wire.len(), "it waits for what will not come");
                }
                Decoded::End { skip, trailers: range } => {
                    let range = range.unwrap_or_default();
                    prop_assert_eq!(&wire[at..][range], trailers.as_bytes());
                    at += skip;
                    break;
                }
            }
        }
        prop_assert!(decoder.is_complete());
        prop_assert_eq!(at, body);
        prop_assert_eq!(got, payload);
    }

    #[test]
    fn any_chunked_bytes_decode_the_same_whole_and_byte_by_byte(
        bytes in "(([0-9a-f]{1,2}|[ ;=\"\\\\a\r\n:]{1,3}|0\r\n|1\r\n|\r\n|A: b\r\n)){0,12}",
    ) {
        let run = |step: usize| {
            let bytes = bytes.as_bytes();
            let mut decoder = BodyDecoder::new(Framing::Chunked);
            let (mut at, mut there) = (0, 0);
            let mut payload = Vec::new();
            loop {
                match decoder.decode(&bytes[at..there]) {
                    Err(error) => return (payload, Err(error)),
                    Ok(Decoded::Data { skip, len }) => {
                        payload.extend_from_slice(&bytes[at + skip..at + skip + len]);
                        at += skip + len;
                        decoder.advance(len);
                    }
                    Ok(Decoded::End { skip, .. }) => return (payload, Ok(at + skip)),
                    Ok(Decoded::More { skip }) => {
                        at += skip;
                        if there == bytes.len() {
                            return (payload, Err(decoder.end_of_input().unwrap_err()));
                        }
                        there = (there + step).min(bytes.len());
                    }
                }
            }
        };
        let whole = run(bytes.len().max(1));
        prop_assert_eq!(&whole, &run(1));
        prop_assert_eq!(&whole, &run(3));
    }
}
