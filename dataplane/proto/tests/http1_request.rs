//! Requests, line by line of BEHAVIOUR.md's HTTP/1.1 table.

use proto::http1::*;

fn parse(bytes: &[u8]) -> Result<Option<RequestHead<'_>>, Rejection> {
    parse_request(bytes, &Limits::default())
}

#[test]
fn simple() {
    let h = parse(b"GET /a?b=c HTTP/1.1\r\nHost: x:80\r\nAccept: */*\r\n\r\n").unwrap().unwrap();
    assert_eq!(h.path, b"/a");
    let mut out = Vec::new();
    encode_request(
        &h,
        &ForwardOptions {
            client: [10, 0, 0, 1].into(),
            scheme: "http",
            forwarded_for: ForwardedFor::Append,
            via: None,
            default_authority: "b",
        },
        &mut out,
    );
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "GET /a?b=c HTTP/1.1\r\nHost: x:80\r\nAccept: */*\r\nX-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: http\r\n\r\n"
    );
}
