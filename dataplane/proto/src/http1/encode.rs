//! What goes out: heads as they are forwarded, chunk framing, and replies of Millrace's own.
//!
//! Framing and connection fields are made anew from what the parser concluded and never copied, so that the next party
//! cannot read the message differently. Everything is appended to a buffer that the caller reuses.

use core::net::IpAddr;
use std::io::Write;

use super::fields::{Field, Fields, Known, known};
use super::layout::field;
use super::{Connection, Framing, Method, RequestHead, ResponseHead, Version};

/// How a request is changed on its way.
#[derive(Clone, Copy, Debug)]
pub struct ForwardOptions<'a> {
    /// Who sent it.
    pub client: IpAddr,
    /// How it came: `http` or `https`.
    pub scheme: &'a str,
    /// What is said about the two above.
    pub forwarded_for: ForwardedFor,
    /// The pseudonym for Via; without it there is no Via of ours.
    pub via: Option<&'a str>,
    /// Host for an HTTP/1.0 request that has none; the backend's address, say. HTTP/1.1 obliges us to send one.
    pub default_authority: &'a str,
    /// What a route changes.
    pub changes: Option<&'a RequestChanges<'a>>,
}

/// What a route changes in a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestChanges<'a> {
    /// The two parts of the path that goes out instead of the one that came. They hold characters of a target and no `?`.
    pub path: Option<(&'a [u8], &'a [u8])>,
    /// The Host that goes out.
    pub authority: Option<&'a [u8]>,
    /// Fields.
    pub fields: FieldChanges<'a>,
}

/// Changes to field lines: these are taken out, then those are put in. Neither is about framing or the connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct FieldChanges<'a> {
    /// Names in lower case, each with a line feed behind it.
    pub strip: &'a [u8],
    /// Whole field lines, each with its CRLF.
    pub append: &'a [u8],
}

impl FieldChanges<'_> {
    /// Whether fields of that name are taken out.
    #[must_use]
    pub fn strips(&self, name: &[u8]) -> bool {
        // Nothing stands behind the last line feed, and no field has an empty name.
        self.strip.split(|&b| b == b'\n').any(|strip| strip.eq_ignore_ascii_case(name))
    }

    /// The first letters of the names to be taken out, as bits: most lines begin with none of them.
    pub(super) fn letters(&self) -> u32 {
        let starts = self.strip.split(|&b| b == b'\n').filter_map(|name| name.first());
        starts.fold(0, |letters, first| letters | 1 << (first & 31))
    }

    /// Whether a line is of a field to be taken out.
    #[inline]
    pub(super) fn strips_line(&self, letters: u32, line: &[u8]) -> bool {
        let Some(first) = line.first() else { return false };
        // The lower five bits of a letter are the same in either case.
        letters & 1 << (first & 31) != 0
            && memchr::memchr(b':', line).and_then(|end| line.get(..end)).is_some_and(|name| self.strips(name))
    }
}

/// What becomes of X-Forwarded-For and X-Forwarded-Proto.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedFor {
    /// The client's address goes behind those that came, and X-Forwarded-Proto is set. For clients that are proxies.
    #[default]
    Append,
    /// Both are set, and whatever the client claimed about its way (Forwarded, X-Forwarded-Host, X-Forwarded-Port too)
    /// is removed.
    Replace,
    /// All of them pass as they came.
    None,
}

/// The last chunk, and no trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// What follows a chunk's payload.
pub const CHUNK_END: &[u8] = b"\r\n";

/// The most bytes that [`encode_chunk_header`] appends.
pub const MAX_CHUNK_HEADER: usize = 18;

/// The request as it goes to a backend: HTTP/1.1, origin-form, and only what is meant for the other end.
pub fn encode_request(head: &RequestHead<'_>, options: &ForwardOptions<'_>, out: &mut Vec<u8>) {
    // Max-Forwards makes a request of OPTIONS another one.
    if options.changes.is_some() || head.method == Method::Options {
        return encode_changed_request(head, options, options.changes.unwrap_or(&RequestChanges::default()), out);
    }
    let from = if head.as_is {
        0
    } else {
        encode_request_line(head, options.default_authority, out);
        head.layout.behind_host()
    };
    let mut forwarded_for = false;
    head.layout.copy(from, out, |known| match (known, options.forwarded_for) {
        (Known::Expect, _) => head.expect_continue,
        (Known::MaxForwards, _) => true,
        (Known::ForwardedFor, ForwardedFor::Append) => {
            forwarded_for = true;
            false
        }
        (Known::ForwardedOther, ForwardedFor::Append) => true,
        (Known::ForwardedFor | Known::ForwardedProto | Known::ForwardedOther, ForwardedFor::None) => true,
        _ => false,
    });
    encode_framing(head.framing, out);
    encode_request_connection(head, out);
    if options.forwarded_for != ForwardedFor::None {
        encode_forwarded_for(head, forwarded_for, options.client, out);
        encode_forwarded_proto(options.scheme, out);
    }
    encode_via(head.version, options.via, out);
    out.extend_from_slice(b"\r\n");
}

/// The same with changes. What they take out or set of the fields that say where a request came from, is as if it were not to be said.
#[inline(never)]
fn encode_changed_request(
    head: &RequestHead<'_>,
    options: &ForwardOptions<'_>,
    changes: &RequestChanges<'_>,
    out: &mut Vec<u8>,
) {
    let (start, end) = changes.path.unwrap_or((head.path, b""));
    out.extend_from_slice(head.method_bytes);
    out.push(b' ');
    out.extend_from_slice(start);
    out.extend_from_slice(end);
    if let Some(query) = head.query {
        out.push(b'?');
        out.extend_from_slice(query);
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let default = if head.authority.is_empty() { options.default_authority.as_bytes() } else { head.authority };
    field(out, b"Host", changes.authority.unwrap_or(default));
    let max_forwards = head.max_forwards();
    let mut forwarded_for = false;
    let passes = |known| match (known, options.forwarded_for) {
        (Known::Expect, _) => head.expect_continue,
        (Known::MaxForwards, _) => max_forwards.is_none(),
        (Known::ForwardedFor, ForwardedFor::Append) => {
            forwarded_for = true;
            false
        }
        (Known::ForwardedOther, ForwardedFor::Append) => true,
        (Known::ForwardedFor | Known::ForwardedProto | Known::ForwardedOther, ForwardedFor::None) => true,
        _ => false,
    };
    head.layout.copy_changed(head.layout.behind_host(), out, &changes.fields, passes);
    encode_framing(head.framing, out);
    encode_request_connection(head, out);
    if options.forwarded_for != ForwardedFor::None {
        if !changes.fields.strips(b"x-forwarded-for") {
            encode_forwarded_for(head, forwarded_for, options.client, out);
        }
        if !changes.fields.strips(b"x-forwarded-proto") {
            encode_forwarded_proto(options.scheme, out);
        }
    }
    if let Some(left) = max_forwards.filter(|_| !changes.fields.strips(b"max-forwards")) {
        // Less by this hop. One of zero is for nobody else, and our caller has answered it.
        out.extend_from_slice(b"Max-Forwards: ");
        encode_number(left.saturating_sub(1), out);
        out.extend_from_slice(b"\r\n");
    }
    encode_via(head.version, options.via, out);
    out.extend_from_slice(changes.fields.append);
    out.extend_from_slice(b"\r\n");
}

// Called from two places, of which one is hot.
#[inline(always)]
fn encode_forwarded_for(head: &RequestHead<'_>, append: bool, client: IpAddr, out: &mut Vec<u8>) {
    out.extend_from_slice(b"X-Forwarded-For: ");
    if append {
        // One line, as many backends read only one.
        for value in head.layout.values(Known::ForwardedFor).filter(|value| !value.is_empty()) {
            out.extend_from_slice(value);
            out.extend_from_slice(b", ");
        }
    }
    encode_address(client, out);
    out.extend_from_slice(b"\r\n");
}

#[inline(always)]
fn encode_forwarded_proto(scheme: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"X-Forwarded-Proto: ");
    out.extend_from_slice(scheme.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// How a response's body goes to a client of that version: what it cannot be told the length of ends with the connection.
pub fn response_framing(upstream: Framing, client: Version) -> Framing {
    match (upstream, client) {
        (Framing::Chunked | Framing::UntilClose, Version::Http11) => Framing::Chunked,
        (Framing::Chunked | Framing::UntilClose, Version::Http10) => Framing::UntilClose,
        (Framing::None | Framing::Length(_), _) => upstream,
    }
}

/// The response as it goes to the client, whose body follows in `out_framing` (see [`response_framing`]). Says
/// `Connection: close` where the framing needs it, whatever `connection` asks.
///
/// For a 101 the connection fields are those of the switch.
pub fn encode_response(
    head: &ResponseHead<'_>,
    out_framing: Framing,
    connection: Connection,
    client_version: Version,
    via: Option<&str>,
    changes: Option<FieldChanges<'_>>,
    out: &mut Vec<u8>,
) {
    match changes {
        None => encode_end_to_end(head, out),
        Some(changes) => encode_changed(head, &changes, out),
    }
    match (out_framing, head.content_length) {
        // HEAD and 304 say what a body would have had; RFC 9110 §8.6 forbids it for 1xx and 204.
        (Framing::None, Some(length)) if head.status >= 200 && head.status != 204 => {
            encode_framing(Framing::Length(length), out);
        }
        _ => encode_framing(out_framing, out),
    }
    if let Some(protocol) = head.upgrade {
        out.extend_from_slice(b"Connection: upgrade\r\n");
        field(out, b"Upgrade", protocol);
    } else if connection == Connection::Close || out_framing == Framing::UntilClose {
        out.extend_from_slice(b"Connection: close\r\n");
    } else if client_version == Version::Http10 {
        out.extend_from_slice(b"Connection: keep-alive\r\n");
    }
    encode_via(head.version, via, out);
    out.extend_from_slice(b"\r\n");
}

/// An interim response, 100 or 103 say, as it goes to the client. Not for clients of HTTP/1.0, who know none.
pub fn encode_interim(head: &ResponseHead<'_>, out: &mut Vec<u8>) {
    encode_end_to_end(head, out);
    out.extend_from_slice(b"\r\n");
}

/// The size line of a chunk of `len` bytes, which must not be 0; [`CHUNK_END`] follows the payload.
pub fn encode_chunk_header(len: usize, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let significant = (usize::BITS - len.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..significant).rev() {
        out.extend(DIGITS.get(len >> (digit * 4) & 0xf));
    }
    out.extend_from_slice(b"\r\n");
}

/// The end of a chunked body: the last chunk, those fields of the section `raw` (see
/// [`Decoded::End`](super::Decoded::End)) that may be trailers, and the empty line.
pub fn encode_trailers(raw: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    for Field { name, value } in &Fields::parse(raw).unwrap_or_default() {
        if known(name).is_none() && !is_forbidden_trailer(name) {
            field(out, name, value);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// A reply of Millrace's own, with a plain text body; `head_only` for HEAD, which gets the same head and no body.
/// Fields with a CR, LF or NUL in them are left out; `lines` are whole field lines, each with its CRLF.
pub fn encode_local(
    status: u16,
    extra_fields: &[(&str, &str)],
    lines: &[u8],
    body: &str,
    connection: Connection,
    head_only: bool,
    out: &mut Vec<u8>,
) {
    status_line(status, reason(status).as_bytes(), out);
    let splits = |text: &str| text.bytes().any(|b| matches!(b, b'\r' | b'\n' | 0));
    for (name, value) in extra_fields {
        if !splits(name) && !splits(value) {
            field(out, name.as_bytes(), value.as_bytes());
        }
    }
    out.extend_from_slice(lines);
    let has_body = status >= 200 && status != 204 && status != 304;
    if has_body {
        if !body.is_empty() {
            out.extend_from_slice(b"Content-Type: text/plain; charset=utf-8\r\n");
        }
        encode_framing(Framing::Length(body.len() as u64), out);
    }
    // Said either way: the client's version, and so its default, is not known here.
    out.extend_from_slice(match connection {
        Connection::KeepAlive => b"Connection: keep-alive\r\n\r\n",
        Connection::Close => b"Connection: close\r\n\r\n",
    });
    if has_body && !head_only {
        out.extend_from_slice(body.as_bytes());
    }
}

/// An address as the host of a URI (RFC 3986 §3.2.2).
pub fn encode_host(address: IpAddr, out: &mut Vec<u8>) {
    match address.to_canonical() {
        IpAddr::V4(_) => encode_address(address, out),
        IpAddr::V6(_) => {
            out.push(b'[');
            encode_address(address, out);
            out.push(b']');
        }
    }
}

/// A number in decimal.
pub fn encode_number(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// The registered reason phrase (RFC 9110 §15, RFC 6585), or nothing.
pub fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        411 => "Length Required",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        425 => "Too Early",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

fn status_line(status: u16, reason: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason);
    out.extend_from_slice(b"\r\n");
}

/// The request line and the Host field.
fn encode_request_line(head: &RequestHead<'_>, default_authority: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(head.method_bytes);
    out.push(b' ');
    out.extend_from_slice(head.path);
    if let Some(query) = head.query {
        out.push(b'?');
        out.extend_from_slice(query);
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let authority = if head.authority.is_empty() { default_authority.as_bytes() } else { head.authority };
    field(out, b"Host", authority);
}

/// A response's status line, and its fields without those of the hop (RFC 9110 §7.6.1) and without those that are made anew.
fn encode_end_to_end(head: &ResponseHead<'_>, out: &mut Vec<u8>) {
    let from = if head.as_is {
        0
    } else {
        status_line(head.status, head.reason, out);
        head.layout.behind_first_line()
    };
    head.layout.copy(from, out, Known::is_of_requests);
}

/// The same with changes.
#[inline(never)]
fn encode_changed(head: &ResponseHead<'_>, changes: &FieldChanges<'_>, out: &mut Vec<u8>) {
    status_line(head.status, head.reason, out);
    head.layout.copy_changed(head.layout.behind_first_line(), out, changes, Known::is_of_requests);
    out.extend_from_slice(changes.append);
}

fn encode_framing(framing: Framing, out: &mut Vec<u8>) {
    match framing {
        Framing::None | Framing::UntilClose => {}
        Framing::Length(length) => {
            out.extend_from_slice(b"Content-Length: ");
            out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
    }
}

fn encode_request_connection(head: &RequestHead<'_>, out: &mut Vec<u8>) {
    match (head.upgrade, head.te_trailers) {
        (None, false) => {}
        (None, true) => out.extend_from_slice(b"Connection: TE\r\nTE: trailers\r\n"),
        (Some(protocol), te) => {
            out.extend_from_slice(match te {
                true => b"Connection: upgrade, TE\r\nTE: trailers\r\n",
                false => b"Connection: upgrade\r\n",
            });
            field(out, b"Upgrade", protocol);
        }
    }
}

/// RFC 9110 §7.6.3: the version as received. Behind those that came, as it is the last field line.
fn encode_via(received: Version, pseudonym: Option<&str>, out: &mut Vec<u8>) {
    if let Some(pseudonym) = pseudonym {
        out.extend_from_slice(match received {
            Version::Http10 => b"Via: 1.0 ",
            Version::Http11 => b"Via: 1.1 ",
        });
        out.extend_from_slice(pseudonym.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

fn encode_address(address: IpAddr, out: &mut Vec<u8>) {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            // Four bytes at a time, of which the next four overwrite what was too much.
            let mut text = [0; 16];
            let mut len = 0;
            for octet in v4.octets() {
                let (digits, count) = OCTETS[usize::from(octet)];
                if let Some(place) = text.get_mut(len..len + 4) {
                    place.copy_from_slice(&digits);
                }
                len += usize::from(count);
            }
            // Without the last dot.
            out.extend_from_slice(text.get(..len - 1).unwrap_or_default());
        }
        IpAddr::V6(v6) => {
            // A Vec takes every write.
            let _ = write!(out, "{v6}");
        }
    }
}

/// Each octet in decimal with a dot behind it, and how many bytes that is.
const OCTETS: [([u8; 4], u8); 256] = {
    let mut octets = [([0; 4], 0); 256];
    let mut octet = 0;
    while octet < 256 {
        let (hundreds, tens, ones) =
            (b'0' + (octet / 100) as u8, b'0' + (octet / 10 % 10) as u8, b'0' + (octet % 10) as u8);
        octets[octet] = match octet {
            0..10 => ([ones, b'.', 0, 0], 2),
            10..100 => ([tens, ones, b'.', 0], 3),
            _ => ([hundreds, tens, ones, b'.'], 4),
        };
        octet += 1;
    }
    octets
};

/// Fields that must not come behind the content they govern (RFC 9110 §6.5.1): framing, the hop and Max-Forwards are known to
/// [`known`]; these are routing, request modifiers, authentication, and how to take the content.
fn is_forbidden_trailer(name: &[u8]) -> bool {
    const FORBIDDEN: [&[u8]; 28] = [
        b"age",
        b"authorization",
        b"cache-control",
        b"content-encoding",
        b"content-range",
        b"content-type",
        b"cookie",
        b"date",
        b"expires",
        b"if-match",
        b"if-modified-since",
        b"if-none-match",
        b"if-range",
        b"if-unmodified-since",
        b"location",
        b"origin",
        b"pragma",
        b"proxy-authentication-info",
        b"range",
        b"retry-after",
        b"set-cookie",
        b"trailer",
        b"vary",
        b"via",
        b"warning",
        b"www-authenticate",
        b"x-real-ip",
        b"x-request-id",
    ];
    FORBIDDEN.iter().any(|forbidden| name.eq_ignore_ascii_case(forbidden))
}
