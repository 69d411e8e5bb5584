//! HTTP/1.1 as BEHAVIOUR.md wants it: tables of named cases, and properties.

mod body;
mod encode;
mod properties;
mod request;
mod response;
mod smuggling;

use proto::http1::{Limits, Rejection, RequestHead, parse_request};

/// With the default limits.
fn request(bytes: &[u8]) -> Result<Option<RequestHead<'_>>, Rejection> {
    parse_request(bytes, &Limits::default())
}

/// A request that must be accepted.
#[track_caller]
fn accepted(bytes: &[u8]) -> RequestHead<'_> {
    match request(bytes) {
        Ok(Some(head)) => head,
        other => panic!("{}: {other:?}", bytes.escape_ascii()),
    }
}

/// Each case must be refused with its cause, whole and when it comes byte by byte.
#[track_caller]
fn refused(cases: &[(&str, impl AsRef<[u8]>, Rejection)]) {
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|(name, bytes, cause)| {
            let bytes = bytes.as_ref();
            let whole = request(bytes).err();
            let split = (0..=bytes.len()).find_map(|len| match request(&bytes[..len]) {
                Ok(None) => None,
                other => Some(other.err()),
            });
            (whole != Some(*cause) || split != Some(Some(*cause)))
                .then(|| format!("{name}: expected {cause:?}, whole {whole:?}, byte by byte {split:?}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
