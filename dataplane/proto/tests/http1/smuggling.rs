//! Published request-smuggling payloads, whole: what is accepted must have one reading, and what has two is refused.

use proto::http1::{BodyDecoder, Decoded, Framing};

use super::request;

/// How much of `bytes` the first message takes by our reading, or the status of the answer.
fn first_message(bytes: &[u8]) -> Result<usize, u16> {
    let head = request(bytes).map_err(|cause| cause.status())?.expect("the corpus has whole heads");
    let mut decoder = BodyDecoder::new(head.framing);
    let mut at = head.len;
    loop {
        match decoder.decode(&bytes[at..]).map_err(|error| error.status())? {
            Decoded::Data { skip, len } => {
                at += skip + len;
                decoder.advance(len);
            }
            Decoded::End { skip, .. } => return Ok(at + skip),
            Decoded::More { .. } => return Err(408),
        }
    }
}

#[test]
fn payloads_with_two_readings_are_refused() {
    let corpus: &[(&str, &str)] = &[
        (
            "CL.TE",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 13\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nSMUGGLED",
        ),
        (
            "TE.CL",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nSMUGGLED\r\n0\r\n\r\n",
        ),
        ("TE.TE, xchunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        ("TE.TE, space before colon", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
        (
            "TE.TE, two lines",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
        ),
        ("TE.TE, leading space", "POST / HTTP/1.1\r\nHost: a\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("TE.TE, folded", "POST / HTTP/1.1\r\nHost: a\r\nX: X\r\n\tTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("TE.TE, LF in the value", "POST / HTTP/1.1\r\nHost: a\r\nX: X\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("TE.TE, CR in the value", "POST / HTTP/1.1\r\nHost: a\r\nX: X\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("TE.TE, vertical tab", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n"),
        ("TE.TE, NUL", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\0\r\n\r\n0\r\n\r\n"),
        ("TE.TE, folded value", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
        ("TE.TE, next line", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\u{85}\r\n\r\n0\r\n\r\n"),
        ("TE.0", "OPTIONS / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
        ("CL.CL", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\nContent-Length: 7\r\n\r\n12345\r\na"),
        ("CL list", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8, 7\r\n\r\n12345\r\na"),
        ("CL with a NUL", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\0\r\n\r\n12345678"),
        ("CL in a name with a space", "POST / HTTP/1.1\r\nHost: a\r\nContent Length: 8\r\n\r\n12345678"),
        ("CL in HTTP/0.9 clothes", "GET /\r\nContent-Length: 8\r\n\r\n12345678"),
        ("TE in HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (
            "chunk size with a prefix",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
        ),
        (
            "chunk size with a sign",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n",
        ),
        (
            "chunk size that wraps",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000003\r\nabc\r\n0\r\n\r\n",
        ),
        (
            "chunk size with leading space",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n 3\r\nabc\r\n0\r\n\r\n",
        ),
        (
            "TERM.EXT: LF ends the size line",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
        ),
        (
            "EXT.TERM: LF in an extension",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;a\nxx\r\nabc\r\n0\r\n\r\n",
        ),
        (
            "CR in an extension",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;a\rb\r\nabc\r\n0\r\n\r\n",
        ),
        ("chunk spills", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n0\r\n\r\n"),
        ("two bytes for CRLF", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcXX0\r\n\r\n"),
        ("LF behind a chunk", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\n0\r\n\r\n"),
        ("LF behind the last chunk", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\n\n"),
        ("LF ends trailers", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\n\n"),
        ("folded trailer", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n c\r\n\r\n"),
    ];
    let wrong: Vec<_> = corpus.iter().filter(|(_, bytes)| first_message(bytes.as_bytes()) != Err(400)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_has_one_reading_takes_no_byte_more() {
    for (name, message) in [
        ("a length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n12345678"),
        ("chunks", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nT: u\r\n\r\n"),
        ("a GET without a body", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("a GET with one", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"),
        ("a length in another name", "GET / HTTP/1.1\r\nHost: a\r\nX-Content-Length: 3\r\nContent_Length: 3\r\n\r\n"),
    ] {
        let two = format!("{message}GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(first_message(two.as_bytes()), Ok(message.len()), "{name}");
    }
    assert_eq!(request(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap().unwrap().framing, Framing::None);
}
