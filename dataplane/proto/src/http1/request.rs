//! Request heads: syntax, framing, and whom the request is for.

use core::mem::MaybeUninit;

use super::error::Rejection;
use super::fields::{Fields, Known, Scan, Section, Seen, check_section, decimal, is_token, members};
use super::layout::Layout;
use super::{Framing, Limits, MAX_FIELDS, Method, Version};

/// The longest method name; the longest registered one has 17 bytes.
const MAX_METHOD: usize = 32;

/// A request head that is safe to forward. Its parts lie in the buffer that was parsed.
#[derive(Clone, Debug)]
pub struct RequestHead<'b> {
    /// The method.
    pub method: Method,
    /// Its name as sent.
    pub method_bytes: &'b [u8],
    /// The target as it stood on the request line.
    pub target: &'b [u8],
    /// The absolute path with its leading `/`, without the query, as sent: nothing is decoded and dot segments stay. `*` for
    /// `OPTIONS *`.
    pub path: &'b [u8],
    /// What follows the first `?`.
    pub query: Option<&'b [u8]>,
    /// Host, or the authority of an absolute-form target (RFC 9112 §3.2.2), as sent and with its port. Empty only for an
    /// HTTP/1.0 request that has none.
    pub authority: &'b [u8],
    /// The authority without its port; an IPv6 address keeps its brackets.
    pub host: &'b [u8],
    /// The client's version.
    pub version: Version,
    /// How the body ends; never `UntilClose`.
    pub framing: Framing,
    /// The client takes another response on this connection.
    pub keep_alive: bool,
    /// The client waits for 100 before it sends its body. False where there is no body to wait for, or for HTTP/1.0.
    pub expect_continue: bool,
    /// The Upgrade field, if Connection names it and it offers nothing that is HTTP again (h2c). When `None`, neither
    /// field is forwarded.
    pub upgrade: Option<&'b [u8]>,
    /// All fields, with those that are not forwarded.
    pub fields: Fields<'b>,
    /// Bytes of the head with its empty line, and with an empty line before it.
    pub len: usize,
    /// The client takes trailers.
    pub(super) te_trailers: bool,
    /// The request line and the Host field behind it are what would be made of them.
    pub(super) as_is: bool,
    pub(super) layout: Layout<'b>,
}

impl RequestHead<'_> {
    /// How often an OPTIONS request may still be forwarded (RFC 9110 §7.6.2). `None` for other methods, and where the field does not stand once with a
    /// number; what exceeds 64 bits counts as the largest number.
    #[inline]
    pub fn max_forwards(&self) -> Option<u64> {
        if self.method == Method::Options { self.forwards_left() } else { None }
    }

    #[cold]
    fn forwards_left(&self) -> Option<u64> {
        let mut values = self.layout.values(Known::MaxForwards);
        let value = values.next().filter(|value| !value.is_empty() && value.iter().all(u8::is_ascii_digit))?;
        values.next().is_none().then(|| decimal(value).unwrap_or(u64::MAX))
    }
}

/// Parses a request head at the front of `bytes`. `Ok(None)`: it is sound so far, and not complete.
///
/// One empty line before the request line is passed over (RFC 9112 §2.2). An incomplete head costs a pass over all of it:
/// callers that get it in small pieces ask [`head_end`](super::head_end) first.
///
/// # Errors
/// Answer with [`Rejection::status`], then close. Syntax is refused as soon as its bytes are there; what depends on the
/// fields together, once the head is complete.
pub fn parse_request<'b>(bytes: &'b [u8], limits: &Limits) -> Result<Option<RequestHead<'b>>, Rejection> {
    let window = bytes.get(..limits.head).unwrap_or(bytes);
    let skipped = if window.starts_with(b"\r\n") { 2 } else { 0 };
    let input = window.get(skipped..).unwrap_or_default();

    let mut slots = [const { MaybeUninit::<httparse::Header<'b>>::uninit() }; MAX_FIELDS];
    let slots = slots.get_mut(..limits.fields.min(MAX_FIELDS)).unwrap_or_default();
    let mut parsed = httparse::Request::new(&mut []);
    let outcome = parsed.parse_with_uninit_headers(input, slots);
    if let (Ok(httparse::Status::Complete(len)), Some(method), Some(target)) = (outcome, parsed.method, parsed.path)
        && let Some(head) = input.get(..len)
        && is_clean(head, method.as_bytes(), target.as_bytes(), limits)
        && let Some(scan) = Scan::over::<false>(head, parsed.headers)
    {
        let version = if parsed.version == Some(0) { Version::Http10 } else { Version::Http11 };
        let line = Line { method: method.as_bytes(), target: target.as_bytes(), version };
        return judge(&line, scan, parsed.headers.len(), skipped + len).map(Some);
    }
    match check(input, limits) {
        Err(rejection) => Err(rejection),
        // Both parsers are meant to agree on what is sound; where they do not, the request is not.
        Ok(Some(())) => Err(Rejection::MalformedRequestLine),
        Ok(None) if bytes.len() >= limits.head => Err(Rejection::HeadTooLarge),
        Ok(None) => Ok(None),
    }
}

/// Nothing is in the head that httparse takes and we do not; [`Scan::over`] looks at how lines end.
fn is_clean(head: &[u8], method: &[u8], target: &[u8], limits: &Limits) -> bool {
    head.first().is_some_and(|&b| is_token(b))
        && method.len() <= MAX_METHOD
        && target.len() <= limits.target
        && are_target(target)
}

/// All of them may stand in a target: eight at a time, as targets are long.
fn are_target(target: &[u8]) -> bool {
    const fn each(b: u8) -> u64 {
        u64::from_ne_bytes([b; 8])
    }
    let (words, rest) = target.as_chunks::<8>();
    let odd = words.iter().fold(0, |odd, word| {
        let word = u64::from_ne_bytes(*word);
        let (hash, del) = (word ^ each(b'#'), word ^ each(0x7f));
        // The highest bit of a byte is set where the byte is below `!`, `#`, DEL or not ASCII. A borrow may set it in other bytes
        // too, but only beside one of these.
        odd | word | word.wrapping_sub(each(b'!')) | hash.wrapping_sub(each(1)) | del.wrapping_sub(each(1))
    });
    odd & each(0x80) == 0 && rest.iter().all(|&b| is_target(b))
}

/// A byte that may stand in a target: visible ASCII, and no fragment (RFC 9112 §3.2). More than RFC 3986 allows, as
/// browsers send `|` and `{`.
fn is_target(b: u8) -> bool {
    matches!(b, b'!'..=b'~') && b != b'#'
}

/// A request line in parts.
struct Line<'b> {
    method: &'b [u8],
    target: &'b [u8],
    version: Version,
}

/// The slow path: names the first fault. `Ok(None)`: none so far, and the head is not complete.
fn check(input: &[u8], limits: &Limits) -> Result<Option<()>, Rejection> {
    let Some(line) = check_line(input, limits)? else { return Ok(None) };
    let section = input.get(line..).unwrap_or_default();
    match check_section(section, limits.fields.min(MAX_FIELDS))? {
        Section::Ended => Ok(Some(())),
        Section::Unfinished { .. } => Ok(None),
    }
}

/// The length of the request line with its CRLF.
fn check_line(input: &[u8], limits: &Limits) -> Result<Option<usize>, Rejection> {
    let method = input.iter().take(MAX_METHOD + 1).take_while(|&&b| is_token(b)).count();
    match input.get(method) {
        _ if method > MAX_METHOD => return Err(Rejection::MalformedRequestLine),
        None => return Ok(None),
        Some(b'\r') if method == 0 && input.len() == 1 => return Ok(None),
        Some(b' ') if method > 0 => {}
        Some(_) => return Err(Rejection::MalformedRequestLine),
    }
    let target_at = method + 1;
    let rest = input.get(target_at..).unwrap_or_default();
    let target = rest.iter().take(limits.target.saturating_add(1)).take_while(|&&b| is_target(b)).count();
    match rest.get(target) {
        _ if target > limits.target => return Err(Rejection::TargetTooLong),
        None => return Ok(None),
        Some(b' ') if target > 0 => {}
        // HTTP/0.9, or no target.
        Some(b' ' | b'\r' | b'\n') => return Err(Rejection::MalformedRequestLine),
        Some(_) => return Err(Rejection::InvalidTarget),
    }
    let version_at = target_at + target + 1;
    let version = input.get(version_at..).unwrap_or_default();
    check_version(version).map_err(|fault| match fault {
        VersionFault::Malformed => Rejection::MalformedRequestLine,
        VersionFault::Unsupported => Rejection::UnsupportedVersion,
    })?;
    match version.get(8..).unwrap_or_default() {
        [] | [b'\r'] => Ok(None),
        [b'\r', b'\n', ..] => Ok(Some(version_at + 10)),
        [b'\r', ..] => Err(Rejection::BareCr),
        [b'\n', ..] => Err(Rejection::BareLf),
        _ => Err(Rejection::MalformedRequestLine),
    }
}

/// What is wrong with a version.
pub(super) enum VersionFault {
    /// It has not the form of one.
    Malformed,
    /// It is none of ours.
    Unsupported,
}

/// `HTTP/1.0`, `HTTP/1.1`, or the beginning of any version.
pub(super) fn check_version(bytes: &[u8]) -> Result<(), VersionFault> {
    let version = bytes.get(..8).unwrap_or(bytes);
    let form = version.iter().zip(b"HTTP/0.0").all(|(&b, &form)| match form {
        b'0' => b.is_ascii_digit(),
        _ => b == form,
    });
    match version {
        _ if !form => Err(VersionFault::Malformed),
        b"HTTP/1.0" | b"HTTP/1.1" => Ok(()),
        _ if version.len() == 8 => Err(VersionFault::Unsupported),
        _ => Ok(()),
    }
}

/// What the head means, once its syntax is sound.
fn judge<'b>(line: &Line<'b>, scan: Scan<'b>, fields: usize, len: usize) -> Result<RequestHead<'b>, Rejection> {
    if scan.connection.too_many {
        return Err(Rejection::TooManyConnectionOptions);
    }
    let framing = framing(&scan, line.version)?;
    let host_field = host_field(&scan.host, line.version)?;
    let method = Method::from_bytes(line.method);
    if matches!(method, Method::Connect | Method::Trace) {
        return Err(Rejection::MethodNotAllowed);
    }
    let target = Target::parse(line.target, method)?;
    let authority = target.authority.or(host_field).unwrap_or_default();
    let http11 = line.version == Version::Http11;
    if scan.expects_unknown {
        return Err(Rejection::ExpectationFailed);
    }
    Ok(RequestHead {
        method,
        method_bytes: line.method,
        target: line.target,
        path: target.path,
        query: target.query,
        authority: authority.whole,
        host: authority.host,
        version: line.version,
        framing,
        keep_alive: !scan.connection.close && (http11 || scan.connection.keep_alive),
        // RFC 9110 §10.1.1: not in HTTP/1.0, and not without content.
        expect_continue: scan.expects_continue && http11 && !framing.is_empty(),
        upgrade: scan.upgrade().filter(|_| http11),
        fields: scan.layout.fields(fields),
        len,
        te_trailers: scan.te_trailers && scan.connection.te,
        as_is: http11 && target.authority.is_none() && scan.layout.begins_with_host(),
        layout: scan.layout,
    })
}

/// RFC 9112 §6.3, and stricter: whatever two parsers could take differently is refused.
fn framing(scan: &Scan<'_>, version: Version) -> Result<Framing, Rejection> {
    let length = scan.content_length;
    let coding = scan.transfer_encoding;
    match (length.first, coding.first) {
        (None, None) => Ok(Framing::None),
        (Some(_), Some(_)) => Err(Rejection::LengthAndTransferEncoding),
        (Some(_), None) if length.repeated => Err(Rejection::RepeatedContentLength),
        (Some(value), None) => decimal(value).map(Framing::Length).ok_or(Rejection::InvalidContentLength),
        (None, Some(_)) if version == Version::Http10 => Err(Rejection::TransferEncodingInHttp10),
        (None, Some(_)) if coding.repeated => Err(Rejection::RepeatedTransferEncoding),
        (None, Some(value)) => transfer_coding(value),
    }
}

/// The last coding must be chunked, and no other may be; what stands before it is a coding that is not known here.
fn transfer_coding(value: &[u8]) -> Result<Framing, Rejection> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(Framing::Chunked);
    }
    let chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let ends_chunked = members(value).last().is_some_and(chunked);
    let once = members(value).filter(|coding| chunked(coding)).count() == 1;
    let named = members(value).all(|coding| coding.first().is_some_and(|&b| is_token(b)));
    if ends_chunked && once && named {
        return Err(Rejection::UnknownTransferCoding);
    }
    Err(Rejection::InvalidTransferEncoding)
}

/// An authority that was checked.
#[derive(Clone, Copy, Default)]
struct Authority<'b> {
    whole: &'b [u8],
    host: &'b [u8],
}

/// What the Host field says (RFC 9112 §3.2).
fn host_field<'b>(seen: &Seen<'b>, version: Version) -> Result<Option<Authority<'b>>, Rejection> {
    match seen.first {
        _ if seen.repeated => Err(Rejection::RepeatedHost),
        Some(value) => Authority::parse(value).map(Some),
        None if version == Version::Http10 => Ok(None),
        None => Err(Rejection::MissingHost),
    }
}

/// What a target is made of (RFC 9112 §3.2).
struct Target<'b> {
    path: &'b [u8],
    query: Option<&'b [u8]>,
    /// Of an absolute-form target.
    authority: Option<Authority<'b>>,
}

impl<'b> Target<'b> {
    fn parse(target: &'b [u8], method: Method) -> Result<Self, Rejection> {
        if target.starts_with(b"/") {
            let (path, query) = split_query(target);
            return Ok(Self { path, query, authority: None });
        }
        if target == b"*" && method == Method::Options {
            return Ok(Self { path: target, query: None, authority: None });
        }
        let rest = without_scheme(target).ok_or(Rejection::InvalidTarget)?;
        let end = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at_checked(end).ok_or(Rejection::InvalidTarget)?;
        let authority = Authority::parse(authority)?;
        let (path, query) = split_query(rest);
        let path = match path {
            // RFC 9112 §3.2.4: the last proxy says it as asterisk-form.
            [] if method == Method::Options && query.is_none() => b"*",
            [] => b"/",
            path => path,
        };
        Ok(Self { path, query, authority: Some(authority) })
    }
}

fn split_query(target: &[u8]) -> (&[u8], Option<&[u8]>) {
    // memchr pays off from about here on.
    let at = if target.len() < 16 { target.iter().position(|&b| b == b'?') } else { memchr::memchr(b'?', target) };
    match at.and_then(|at| target.split_at_checked(at)) {
        Some((path, query)) => (path, query.get(1..)),
        None => (target, None),
    }
}

fn without_scheme(target: &[u8]) -> Option<&[u8]> {
    let after = |scheme: &[u8]| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    };
    after(b"http://").or_else(|| after(b"https://"))
}

impl<'b> Authority<'b> {
    /// RFC 3986 §3.2, RFC 9110 §4.2. A comma is refused although a reg-name may have one: it is what two merged Host
    /// fields look like.
    fn parse(whole: &'b [u8]) -> Result<Self, Rejection> {
        // A name, and a port if there is one: what nearly all are.
        let name = whole.iter().take_while(|&&b| is_host_byte(b)).count();
        if let Some((host @ [_, ..], port)) = whole.split_at_checked(name)
            && is_port(port)
        {
            return Ok(Self { whole, host });
        }
        if whole.contains(&b'@') {
            return Err(Rejection::UserinfoInAuthority);
        }
        let host_len = match whole {
            [b'[', ..] => memchr::memchr(b']', whole).map(|at| at + 1),
            _ => Some(memchr::memchr(b':', whole).unwrap_or(whole.len())),
        };
        let (host, port) = host_len.and_then(|len| whole.split_at_checked(len)).ok_or(Rejection::InvalidHost)?;
        (is_host(host) && is_port(port)).then_some(Self { whole, host }).ok_or(Rejection::InvalidHost)
    }
}

fn is_host(host: &[u8]) -> bool {
    match host {
        [] => false,
        [b'[', address @ .., b']'] => {
            core::str::from_utf8(address).is_ok_and(|address| address.parse::<core::net::Ipv6Addr>().is_ok())
        }
        name => name.iter().enumerate().all(|(at, &b)| match b {
            b'%' => name.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)),
            b => is_host_byte(b),
        }),
    }
}

/// A byte of a reg-name that stands for itself (RFC 3986 §3.2.2), without the comma.
fn is_host_byte(b: u8) -> bool {
    static HOST: [bool; 256] = {
        let mut map = [false; 256];
        let mut b = 0;
        while b < map.len() {
            map[b] = matches!(b as u8, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~'
                | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'=');
            b += 1;
        }
        map
    };
    HOST[usize::from(b)]
}

/// Nothing, or a colon and a number that fits; RFC 3986 allows the number to be missing.
fn is_port(port: &[u8]) -> bool {
    match port {
        [] | [b':'] => true,
        [b':', digits @ ..] => decimal(digits).is_some_and(|port| port <= u64::from(u16::MAX)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_of_a_target_is_judged_the_same_wherever_it_stands() {
        for len in 1..20 {
            for at in 0..len {
                for b in 0..=u8::MAX {
                    let mut target = vec![b'~'; len];
                    target[at] = b;
                    assert_eq!(are_target(&target), is_target(b), "{}", target.escape_ascii());
                }
            }
        }
    }
}
