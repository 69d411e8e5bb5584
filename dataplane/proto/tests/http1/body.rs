//! The rows for bodies: chunk sizes, terminators, extensions, trailers, and bodies that end too early.

use proto::http1::{BodyDecoder, BodyError, Decoded, Framing, MAX_CHUNK_EXTENSION, MAX_TRAILERS};

/// Payload, trailers and how many bytes the body took; the input arrives `step` bytes at a time.
type Outcome = Result<(Vec<u8>, Vec<u8>, usize), BodyError>;

fn decode(framing: Framing, input: &[u8], step: usize) -> Outcome {
    let mut decoder = BodyDecoder::new(framing);
    let (mut at, mut end) = (0, 0);
    let mut payload = Vec::new();
    loop {
        match decoder.decode(&input[at..end])? {
            Decoded::Data { skip, len } => {
                at += skip;
                payload.extend_from_slice(&input[at..at + len]);
                at += len;
                decoder.advance(len);
            }
            Decoded::More { skip } => {
                at += skip;
                if end == input.len() {
                    decoder.end_of_input()?;
                    return Ok((payload, Vec::new(), at));
                }
                end = (end + step).min(input.len());
            }
            Decoded::End { skip, trailers } => {
                assert!(decoder.is_complete());
                let trailers = trailers.map_or(Vec::new(), |range| input[at..][range].to_vec());
                return Ok((payload, trailers, at + skip));
            }
        }
    }
}

#[test]
fn bad_chunked_bodies_are_refused() {
    use BodyError::*;
    let long = |len: usize| format!("1;{}\r\na\r\n0\r\n\r\n", "a".repeat(len - 1));
    // `len` bytes behind the size line.
    let trailers = |len: usize| format!("0\r\nA: {}\r\n\r\n", "a".repeat(len - 7));
    let cases: Vec<(&str, String, BodyError)> = vec![
        ("no size", "\r\n".into(), InvalidChunkSize),
        ("not hexadecimal", "g\r\n".into(), InvalidChunkSize),
        ("prefix", "0x1\r\n".into(), InvalidChunkSize),
        ("plus", "+1\r\n".into(), InvalidChunkSize),
        ("minus", "-1\r\n".into(), InvalidChunkSize),
        ("space before", " 1\r\n".into(), InvalidChunkSize),
        ("space inside", "1 1\r\n".into(), InvalidChunkExtension),
        ("space behind", "1 \r\n".into(), InvalidChunkExtension),
        ("comma", "1,1\r\n".into(), InvalidChunkSize),
        ("NUL", "1\0\r\n".into(), InvalidChunkSize),
        ("17 digits", "00000000000000001\r\n".into(), InvalidChunkSize),
        ("LF ends the size", "1\na\r\n".into(), InvalidChunkTerminator),
        ("CR alone ends the size", "1\ra".into(), InvalidChunkTerminator),
        ("CR CR LF", "1\r\r\n".into(), InvalidChunkTerminator),
        ("chunk not terminated", "1\r\nab\r\n".into(), InvalidChunkTerminator),
        ("LF behind a chunk", "1\r\na\n".into(), InvalidChunkTerminator),
        ("CR behind a chunk", "1\r\na\r1".into(), InvalidChunkTerminator),
        ("empty extension", "1;\r\n".into(), InvalidChunkExtension),
        ("two semicolons", "1;;a\r\n".into(), InvalidChunkExtension),
        ("no extension name", "1;=a\r\n".into(), InvalidChunkExtension),
        ("no extension value", "1;a=\r\n".into(), InvalidChunkExtension),
        ("control byte in an extension", "1;a\x01\r\n".into(), InvalidChunkExtension),
        ("CR in an extension", "1;a\rb\r\n".into(), InvalidChunkTerminator),
        ("LF in an extension", "1;a\nb\r\n".into(), InvalidChunkTerminator),
        ("CRLF in a quoted string", "1;a=\"\r\n\"\r\n".into(), InvalidChunkExtension),
        ("CR in a quoted string", "1;a=\"\\\r\"\r\n".into(), InvalidChunkExtension),
        ("quoted string not closed", "1;a=\"b\r\n".into(), InvalidChunkExtension),
        ("text behind a quoted string", "1;a=\"b\"c\r\n".into(), InvalidChunkExtension),
        ("extension too long", long(MAX_CHUNK_EXTENSION + 1), ChunkExtensionTooLong),
        ("LF for the empty line", "0\r\n\n".into(), InvalidChunkTerminator),
        ("CR for the empty line", "0\r\n\rX".into(), InvalidChunkTerminator),
        ("trailer without a colon", "0\r\nA\r\n\r\n".into(), InvalidTrailers),
        ("trailer folded", "0\r\nA: b\r\n c\r\n\r\n".into(), InvalidTrailers),
        ("trailer with LF", "0\r\nA: b\nC: d\r\n\r\n".into(), InvalidTrailers),
        ("trailers end in LF", "0\r\nA: b\n\n".into(), InvalidTrailers),
        ("trailer with space before the colon", "0\r\nA : b\r\n\r\n".into(), InvalidTrailers),
        ("101 trailers", format!("0\r\n{}\r\n", "A: b\r\n".repeat(101)), InvalidTrailers),
        ("trailers too large", trailers(MAX_TRAILERS + 1), TrailersTooLarge),
        ("trailers without end", trailers(MAX_TRAILERS + 9)[..3 + MAX_TRAILERS].into(), TrailersTooLarge),
        ("no end in a size", "1".into(), Truncated),
        ("no end in a chunk", "5\r\nabc".into(), Truncated),
        ("no last chunk", "3\r\nabc\r\n".into(), Truncated),
        ("no empty line", "0\r\n".into(), Truncated),
        ("no end of trailers", "0\r\nA: b\r\n".into(), Truncated),
    ];
    let wrong: Vec<_> = cases
        .iter()
        .flat_map(|(name, bytes, cause)| [usize::MAX / 2, 1].map(|step| (name, bytes, cause, step)))
        .map(|(name, bytes, cause, step)| (name, cause, decode(Framing::Chunked, bytes.as_bytes(), step).err()))
        .filter(|(_, cause, got)| got != &Some(**cause))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(BodyError::ALL.iter().all(|error| error.status() == 400));
    // At the limits.
    assert!(decode(Framing::Chunked, long(MAX_CHUNK_EXTENSION).as_bytes(), 1).is_ok());
    assert!(decode(Framing::Chunked, trailers(MAX_TRAILERS).as_bytes(), 1000).is_ok());
}

#[test]
fn chunked_bodies_give_their_payload_however_they_arrive() {
    for (body, payload, trailers) in [
        ("0\r\n\r\n", "", ""),
        ("000\r\n\r\n", "", ""),
        ("5\r\nhello\r\n0\r\n\r\n", "hello", ""),
        ("A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789", ""),
        ("0000000000000001\r\na\r\n0\r\n\r\n", "a", ""),
        ("1;a;b=c\r\nx\r\n2 ; b = \"c;\\\" \" ;d\r\nyz\r\n0;e=f\r\n\r\n", "xyz", ""),
        ("1\r\n\r\r\n1\r\n\n\r\n0\r\n\r\n", "\r\n", ""),
        ("1\r\na\r\n0\r\nA: b\r\nC:\r\n\r\n", "a", "A: b\r\nC:\r\n"),
    ] {
        let next = format!("{body}GET / HTTP/1.1\r\n");
        for step in 1..=next.len() {
            let outcome = decode(Framing::Chunked, next.as_bytes(), step);
            assert_eq!(outcome, Ok((payload.into(), trailers.into(), body.len())), "{body:?} by {step}");
        }
    }
}

#[test]
fn the_largest_chunk_is_2_to_the_64_less_1() {
    let mut decoder = BodyDecoder::new(Framing::Chunked);
    let input = b"ffffffffffffffff\r\nab";
    assert_eq!(decoder.decode(input), Ok(Decoded::Data { skip: 18, len: 2 }));
    decoder.advance(2);
    assert_eq!(decoder.decode(b"abc"), Ok(Decoded::Data { skip: 0, len: 3 }));
}

#[test]
fn counted_bodies_take_their_length_and_no_more() {
    let body = b"helloGET /";
    for step in 1..=body.len() {
        assert_eq!(decode(Framing::Length(5), body, step), Ok((b"hello".to_vec(), Vec::new(), 5)));
    }
    assert_eq!(decode(Framing::Length(5), b"hell", 1), Err(BodyError::Truncated));
    for empty in [Framing::None, Framing::Length(0)] {
        assert!(BodyDecoder::new(empty).is_complete());
        assert_eq!(decode(empty, body, 1), Ok((Vec::new(), Vec::new(), 0)));
    }
    let mut decoder = BodyDecoder::new(Framing::Length(u64::MAX));
    assert_eq!(decoder.decode(body), Ok(Decoded::Data { skip: 0, len: 10 }));
    decoder.advance(4);
    assert_eq!(decoder.remaining_hint(), Some(u64::MAX - 4));
}

#[test]
fn bodies_until_close_end_with_the_connection() {
    assert_eq!(decode(Framing::UntilClose, b"hello", 2), Ok((b"hello".to_vec(), Vec::new(), 5)));
    assert!(!BodyDecoder::new(Framing::UntilClose).is_complete());
}

#[test]
fn an_error_stays() {
    let mut decoder = BodyDecoder::new(Framing::Chunked);
    assert_eq!(decoder.decode(b"x"), Err(BodyError::InvalidChunkSize));
    assert_eq!(decoder.decode(b"0\r\n\r\n"), Err(BodyError::InvalidChunkSize));
    assert_eq!(decoder.end_of_input(), Err(BodyError::InvalidChunkSize));
    assert!(!decoder.is_complete());
}

#[test]
fn nothing_is_taken_when_there_is_no_room() {
    let mut decoder = BodyDecoder::new(Framing::Chunked);
    assert_eq!(decoder.decode(b"3\r\nabc"), Ok(Decoded::Data { skip: 3, len: 3 }));
    decoder.advance(0);
    assert_eq!(decoder.decode(b"abc"), Ok(Decoded::Data { skip: 0, len: 3 }));
    decoder.advance(2);
    assert_eq!(decoder.decode(b"c\r\n0"), Ok(Decoded::Data { skip: 0, len: 1 }));
    decoder.advance(1);
    assert_eq!(decoder.decode(b"\r\n0"), Ok(Decoded::More { skip: 3 }));
    assert_eq!(decoder.decode(b"\r\nA: b"), Ok(Decoded::More { skip: 2 }), "trailers wait in the buffer");
    assert_eq!(decoder.decode(b"A: b\r\n\r"), Ok(Decoded::More { skip: 0 }));
    assert_eq!(decoder.decode(b"A: b\r\n\r\nGET"), Ok(Decoded::End { skip: 8, trailers: Some(0..6) }));
}
