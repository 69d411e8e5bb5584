//! Chunked bodies: however they arrive, and however much of them finds room, what is read is the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::http1::{BodyDecoder, BodyError, CHUNK_END, Decoded, Framing, encode_chunk_header, encode_trailers};

/// Payload, trailers and the end of the body; or the payload before a fault, and the fault.
#[derive(Debug, PartialEq)]
struct Outcome {
    payload: Vec<u8>,
    end: Result<(Vec<u8>, usize), BodyError>,
}

/// `arrive` bytes come at a time, and `room` bytes of payload are taken at most.
fn decode(bytes: &[u8], arrive: usize, room: usize) -> Outcome {
    let mut decoder = BodyDecoder::new(Framing::Chunked);
    let (mut at, mut there) = (0, 0);
    let mut payload = Vec::new();
    loop {
        match decoder.decode(&bytes[at..there]) {
            Err(error) => return Outcome { payload, end: Err(error) },
            Ok(Decoded::Data { skip, len }) => {
                assert!(len > 0 && at + skip + len <= there);
                at += skip;
                let taken = len.min(room);
                payload.extend_from_slice(&bytes[at..at + taken]);
                at += taken;
                decoder.advance(taken);
            }
            Ok(Decoded::End { skip, trailers }) => {
                assert!(decoder.is_complete() && at + skip <= there);
                let trailers = bytes[at..][trailers.unwrap_or_default()].to_vec();
                return Outcome { payload, end: Ok((trailers, at + skip)) };
            }
            Ok(Decoded::More { skip }) => {
                at += skip;
                assert!(at <= there);
                if there == bytes.len() {
                    return Outcome { payload, end: Err(decoder.end_of_input().unwrap_err()) };
                }
                there = (there + arrive).min(bytes.len());
            }
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((&script, bytes)) = input.split_first() else { return };
    let whole = decode(bytes, usize::MAX / 2, usize::MAX);
    let (arrive, room) = (usize::from(script & 15) + 1, usize::from(script >> 4) + 1);
    assert_eq!(whole, decode(bytes, arrive, room));

    // What we would send on reads as the same payload, and its trailers survive another hop as they are.
    if let Outcome { payload, end: Ok((trailers, _)) } = whole {
        let mut out = Vec::new();
        for chunk in payload.chunks(room) {
            encode_chunk_header(chunk.len(), &mut out);
            out.extend_from_slice(chunk);
            out.extend_from_slice(CHUNK_END);
        }
        let last = out.len();
        encode_trailers(&trailers, &mut out);
        let again = decode(&out, arrive, room);
        let (kept, end) = again.end.expect("our own body is sound");
        assert_eq!((&again.payload, end), (&payload, out.len()));
        let mut once_more = Vec::new();
        encode_trailers(&kept, &mut once_more);
        assert_eq!(once_more, out[last..]);
    }
});
