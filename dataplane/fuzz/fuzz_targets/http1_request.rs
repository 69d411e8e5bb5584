//! Requests: what is accepted has one reading, here and behind us.
#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use proto::http1::{
    FieldChanges, ForwardOptions, ForwardedFor, Framing, Limits, Method, RequestChanges, encode_request, head_end,
    parse_request,
};

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits { target: 64, head: 512, fields: 12 };
    let parsed = parse_request(bytes, &limits);

    // The same at some split: sound so far, or the same fault already.
    let split = bytes.len() / 2;
    match parse_request(&bytes[..split], &limits) {
        Ok(None) => {}
        Ok(Some(early)) => assert_eq!(early.len, parsed.as_ref().unwrap().as_ref().unwrap().len),
        Err(early) => assert_eq!(Some(&early), parsed.as_ref().err()),
    }

    let head = match parsed {
        Ok(Some(head)) => head,
        Ok(None) => return assert!(bytes.len() < limits.head && head_end(bytes, 2).is_none_or(|end| end <= 4)),
        Err(rejection) => {
            return assert!(matches!(rejection.status(), 400 | 405 | 414 | 417 | 431 | 501 | 505));
        }
    };
    assert_eq!(head_end(bytes, 2), Some(head.len));
    assert!(head.framing != Framing::UntilClose);
    assert!(!matches!(head.method, Method::Connect | Method::Trace));
    assert!(head.path.starts_with(b"/") || head.path == b"*");
    assert_eq!(head.fields.iter().count(), head.fields.len());
    for field in &head.fields {
        assert!(!field.name.is_empty() && !field.name.contains(&b' '));
        assert!(!field.value.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)));
    }

    // A route's changes leave it one message with the same end.
    let changes = RequestChanges {
        path: Some((b"/new", b"/path")),
        authority: Some(b"inner"),
        fields: FieldChanges { strip: b"x-a\ncookie\n", append: b"X-A: b\r\n" },
    };
    let options = ForwardOptions {
        client: IpAddr::from([10, 0, 0, 1]),
        scheme: "http",
        forwarded_for: ForwardedFor::Append,
        via: None,
        default_authority: "backend",
        changes: Some(&changes),
    };
    let mut out = Vec::new();
    encode_request(&head, &options, &mut out);
    match parse_request(&out, &Limits::default()) {
        Ok(Some(again)) => {
            assert_eq!((again.len, again.framing, again.query), (out.len(), head.framing, head.query));
            assert_eq!((again.path, again.authority), (&b"/new/path"[..], &b"inner"[..]));
            assert_eq!(again.fields.get_all(b"x-a").collect::<Vec<_>>(), [b"b"]);
        }
        other => panic!("{}: {other:?}", out.escape_ascii()),
    }

    for forwarded_for in [ForwardedFor::Append, ForwardedFor::Replace, ForwardedFor::None] {
        let client = IpAddr::from([10, 0, 0, 1]);
        let options =
            ForwardOptions { client, scheme: "http", forwarded_for, via: Some("mr"), default_authority: "backend", changes: None };
        let mut out = Vec::new();
        encode_request(&head, &options, &mut out);
        let again = match parse_request(&out, &Limits::default()) {
            Ok(Some(again)) => again,
            other => panic!("{}: {other:?}", out.escape_ascii()),
        };
        assert_eq!(again.len, out.len());
        assert_eq!((again.method, again.path, again.query), (head.method, head.path, head.query));
        assert_eq!((again.framing, again.upgrade), (head.framing, head.upgrade));
        assert_eq!(again.expect_continue, head.expect_continue);
        if !head.authority.is_empty() {
            assert_eq!((again.authority, again.host), (head.authority, head.host));
        }
    }
});
