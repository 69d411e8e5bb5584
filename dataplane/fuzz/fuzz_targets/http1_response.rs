//! Responses: the first byte says what was asked, the rest is what the backend answered.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::http1::{
    Connection, Framing, Limits, Method, Version, encode_interim, encode_response, parse_response, response_framing,
};

fuzz_target!(|input: &[u8]| {
    let Some((choice, bytes)) = input.split_first() else { return };
    let request = if choice & 1 == 0 { Method::Get } else { Method::Head };
    let client = if choice & 2 == 0 { Version::Http11 } else { Version::Http10 };
    let connection = if choice & 4 == 0 { Connection::KeepAlive } else { Connection::Close };
    let limits = Limits { target: 0, head: 512, fields: 12 };
    let parsed = parse_response(bytes, request, &limits);

    match parse_response(&bytes[..bytes.len() / 2], request, &limits) {
        Ok(None) => {}
        Ok(Some(early)) => assert_eq!(early.len, parsed.as_ref().unwrap().as_ref().unwrap().len),
        Err(early) => assert_eq!(Some(&early), parsed.as_ref().err()),
    }
    let Ok(Some(head)) = parsed else { return };
    assert!(head.status >= 100 && head.len <= bytes.len());
    assert!(head.framing != Framing::UntilClose || !head.keep_alive);
    assert_eq!(head.upgrade.is_some(), head.status == 101);
    assert_eq!(head.fields.iter().count(), head.fields.len());

    let mut out = Vec::new();
    if head.is_interim() {
        encode_interim(&head, &mut out);
        let again = parse_response(&out, request, &Limits::default()).unwrap().unwrap();
        assert_eq!((again.status, again.len, again.framing), (head.status, out.len(), Framing::None));
        return;
    }
    let framing = response_framing(head.framing, client);
    encode_response(&head, framing, connection, client, Some("mr"), None, &mut out);
    let again = match parse_response(&out, request, &Limits::default()) {
        Ok(Some(again)) => again,
        other => panic!("{}: {other:?}", out.escape_ascii()),
    };
    assert_eq!((again.status, again.len, again.framing), (head.status, out.len(), framing));
    assert_eq!(again.upgrade, head.upgrade);
    if head.upgrade.is_none() {
        let closes = connection == Connection::Close || framing == Framing::UntilClose;
        assert_eq!(again.keep_alive, !closes);
    }
});
