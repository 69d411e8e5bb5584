//! HTTP/1.1 messages (RFC 9110, RFC 9112): heads, body framing, and what goes out on the other side.
//!
//! It owns the decision whether bytes are one unambiguous message. What is ambiguous is refused here, so that no two
//! parties on a message's way can disagree about where it ends: that, and not the backend's taste, is why these
//! parsers are stricter than the RFC asks of a recipient (no bare LF, no obs-fold, no list of lengths).
//!
//! `engine::conn` calls [`parse_request`] and [`parse_response`] on the front of its receive buffer, and
//! [`BodyDecoder`] on what follows; `engine::proxy` calls the encoders. Values borrow from the buffer.
//!
//! It never decodes or rewrites a target: dot segments and percent-encoding reach the router and the backend as the
//! client sent them.
//!
//! `httparse` is the fast path. It forgives what we must not (bare LF, empty lines in front, non-ASCII targets), and
//! its errors do not say enough for a log line: so a message that it does not accept, and one that it accepts but that
//! is not clean, goes through a strict byte-by-byte check that names the first fault.

mod body;
mod encode;
mod error;
mod fields;
mod layout;
mod request;
mod response;

pub use body::{BodyDecoder, Decoded, MAX_CHUNK_EXTENSION, MAX_TRAILERS};
pub use encode::{
    CHUNK_END, FieldChanges, ForwardOptions, ForwardedFor, LAST_CHUNK, MAX_CHUNK_HEADER, RequestChanges,
    encode_chunk_header, encode_host, encode_interim, encode_local, encode_number, encode_request, encode_response,
    encode_trailers, reason, response_framing,
};
pub use error::{BodyError, FieldFault, InvalidResponse, Rejection};
pub use fields::{Field, Fields, FieldsIter, MAX_CONNECTION_OPTIONS};
pub use request::{RequestHead, parse_request};
pub use response::{ResponseHead, parse_response};

/// The most field lines that a head or a trailer section may have, whatever [`Limits`] says.
pub const MAX_FIELDS: usize = 100;

/// Bounds on a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request target.
    pub target: usize,
    /// Bytes of a head, with its empty line.
    pub head: usize,
    /// Field lines of a head; [`MAX_FIELDS`] bounds it.
    pub fields: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { target: 8 * 1024, head: 64 * 1024, fields: MAX_FIELDS }
    }
}

/// The protocol versions that are spoken here; any other is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

/// A request method; those without a meaning here are `Other` and pass through by their bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the registered names, RFC 9110 §9.3 and RFC 5789
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Patch,
    Connect,
    Trace,
    Other,
}

impl Method {
    /// Method names are case-sensitive (RFC 9110 §9.1).
    pub fn from_bytes(name: &[u8]) -> Self {
        match name {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"OPTIONS" => Self::Options,
            b"PATCH" => Self::Patch,
            b"CONNECT" => Self::Connect,
            b"TRACE" => Self::Trace,
            _ => Self::Other,
        }
    }

    /// May the request be sent twice (RFC 9110 §9.2.2)? Nothing is known about `Other`, so it may not.
    pub fn is_idempotent(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Put | Self::Delete | Self::Options | Self::Trace)
    }
}

/// How a message's body ends (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunked transfer coding.
    Chunked,
    /// The body ends with the connection; responses only.
    UntilClose,
}

impl Framing {
    /// No byte of body follows the head.
    pub fn is_empty(self) -> bool {
        matches!(self, Self::None | Self::Length(0))
    }
}

/// What is said about the connection to whom a response goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// The connection takes another request after this one.
    KeepAlive,
    /// The connection ends with this response.
    Close,
}

/// Offset just behind the empty line that ends a head, or `None` while there is none. Bytes before `from` were looked
/// at before, with the answer `None`: callers remember how far they looked, so that a head that comes byte by byte
/// costs no more than one that comes at once.
///
/// It also stops at an empty line made with bare LF, which the parsers then refuse, so that such a peer gets its
/// answer at once and not after a timeout.
pub fn head_end(bytes: &[u8], from: usize) -> Option<usize> {
    // The line feed that completes an end may be new while what precedes it is old, so looking from `from` is enough:
    // the test looks backwards.
    let fresh = bytes.get(from..)?;
    memchr::memchr_iter(b'\n', fresh).map(|found| from + found).find_map(|at| {
        let before = bytes.get(..at)?;
        (before.ends_with(b"\n\r") || before.ends_with(b"\n")).then_some(at + 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_end_is_found_wherever_the_search_resumes() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest";
        let end = head.len() - 4;
        for from in 0..end {
            assert_eq!(head_end(head, from), Some(end), "from {from}");
            assert_eq!(head_end(&head[..end - 1], from.min(end - 1)), None);
        }
        assert_eq!(head_end(head, head.len() + 9), None);
        assert_eq!(head_end(b"GET / HTTP/1.1\n\n", 0), Some(16));
    }

    #[test]
    fn only_what_rfc_9110_names_is_idempotent() {
        let idempotent = [Method::Get, Method::Head, Method::Put, Method::Delete, Method::Options, Method::Trace];
        assert!(idempotent.into_iter().all(Method::is_idempotent));
        assert!(![Method::Post, Method::Patch, Method::Connect, Method::Other].into_iter().any(Method::is_idempotent));
        assert_eq!(Method::from_bytes(b"get"), Method::Other);
    }
}
