//! Response heads from backends: syntax, and framing as the request decides it.

use core::mem::MaybeUninit;

use super::error::InvalidResponse;
use super::fields::{Fields, Scan, Section, check_section, decimal};
use super::layout::Layout;
use super::request::{VersionFault, check_version};
use super::{Framing, Limits, MAX_FIELDS, Method, Version};

/// A response head that is safe to forward. Its parts lie in the buffer that was parsed.
#[derive(Clone, Debug)]
pub struct ResponseHead<'b> {
    /// 100 to 999.
    pub status: u16,
    /// May be empty, and may hold obs-text.
    pub reason: &'b [u8],
    /// The backend's version.
    pub version: Version,
    /// How the body ends, given the request's method (RFC 9112 §6.3).
    pub framing: Framing,
    /// What Content-Length says, also where no body follows (HEAD, 304).
    pub content_length: Option<u64>,
    /// The connection can carry another request after this response.
    pub keep_alive: bool,
    /// The protocol that a 101 switches to. Whether it was asked for is the caller's to know.
    pub upgrade: Option<&'b [u8]>,
    /// All fields, with those that are not forwarded.
    pub fields: Fields<'b>,
    /// Bytes of the head with its empty line.
    pub len: usize,
    /// The status line is what would be made of it.
    pub(super) as_is: bool,
    pub(super) layout: Layout<'b>,
}

impl ResponseHead<'_> {
    /// A 1xx before the final response. 101 is none of these: it is the last thing that HTTP says on a connection.
    pub fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }
}

/// Parses a response head at the front of `bytes`, the answer to a request with that method. `Ok(None)`: sound so far, and
/// not complete.
///
/// # Errors
/// The head is invalid, or leaves open where its body ends: the client gets 502, and the connection is not used again.
pub fn parse_response<'b>(
    bytes: &'b [u8],
    request: Method,
    limits: &Limits,
) -> Result<Option<ResponseHead<'b>>, InvalidResponse> {
    let input = bytes.get(..limits.head).unwrap_or(bytes);
    let mut slots = [const { MaybeUninit::<httparse::Header<'b>>::uninit() }; MAX_FIELDS];
    let slots = slots.get_mut(..limits.fields.min(MAX_FIELDS)).unwrap_or_default();
    let mut parsed = httparse::Response::new(&mut []);
    let outcome = httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, input, slots);
    if let (Ok(httparse::Status::Complete(len)), Some(status)) = (outcome, parsed.code)
        && let Some(head) = input.get(..len)
        && head.starts_with(b"HTTP/")
        && status >= 100
        && let Some(scan) = Scan::over::<true>(head, parsed.headers)
        && let Some(rest) = scan.layout.first_line().get(STATUS_END..)
    {
        let version = if parsed.version == Some(0) { Version::Http10 } else { Version::Http11 };
        let reason = rest.strip_prefix(b" ");
        let as_is = version == Version::Http11 && reason.is_some();
        let line = Line { status, reason: reason.unwrap_or(rest), version, as_is };
        return judge(&line, scan, parsed.headers.len(), request, len).map(Some);
    }
    match check(input, limits) {
        Err(fault) => Err(fault),
        // Both parsers are meant to agree on what is sound; where they do not, the response is not.
        Ok(Some(())) => Err(InvalidResponse::MalformedStatusLine),
        Ok(None) if bytes.len() >= limits.head => Err(InvalidResponse::HeadTooLarge),
        Ok(None) => Ok(None),
    }
}

/// Length of `HTTP/1.1 200`.
const STATUS_END: usize = 12;

/// A status line in parts.
struct Line<'b> {
    status: u16,
    reason: &'b [u8],
    version: Version,
    as_is: bool,
}

/// The slow path: names the first fault. `Ok(None)`: none so far, and the head is not complete.
fn check(input: &[u8], limits: &Limits) -> Result<Option<()>, InvalidResponse> {
    let Some(line) = check_line(input)? else { return Ok(None) };
    let section = input.get(line..).unwrap_or_default();
    match check_section(section, limits.fields.min(MAX_FIELDS))? {
        Section::Ended => Ok(Some(())),
        Section::Unfinished { .. } => Ok(None),
    }
}

/// The length of the status line with its CRLF.
fn check_line(input: &[u8]) -> Result<Option<usize>, InvalidResponse> {
    check_version(input).map_err(|fault| match fault {
        VersionFault::Malformed => InvalidResponse::MalformedStatusLine,
        VersionFault::Unsupported => InvalidResponse::UnsupportedVersion,
    })?;
    let form = input.get(8..STATUS_END).or(input.get(8..)).unwrap_or_default();
    let formed = form.iter().enumerate().all(|(at, b)| match at {
        0 => *b == b' ',
        1 => matches!(b, b'1'..=b'9'),
        _ => b.is_ascii_digit(),
    });
    if !formed {
        return Err(InvalidResponse::MalformedStatusLine);
    }
    for (at, &b) in input.iter().enumerate().skip(STATUS_END) {
        match b {
            b'\r' => {
                return match input.get(at + 1) {
                    Some(b'\n') => Ok(Some(at + 2)),
                    Some(_) => Err(InvalidResponse::BareCr),
                    None => Ok(None),
                };
            }
            b'\n' => return Err(InvalidResponse::BareLf),
            _ if at == STATUS_END && b != b' ' => return Err(InvalidResponse::MalformedStatusLine),
            b'\t' | b' '..=b'~' | 0x80.. => {}
            _ => return Err(InvalidResponse::MalformedStatusLine),
        }
    }
    Ok(None)
}

/// What the head means, once its syntax is sound.
fn judge<'b>(
    line: &Line<'b>,
    scan: Scan<'b>,
    fields: usize,
    request: Method,
    len: usize,
) -> Result<ResponseHead<'b>, InvalidResponse> {
    if scan.connection.too_many {
        return Err(InvalidResponse::TooManyConnectionOptions);
    }
    let length = match scan.content_length.first {
        None => None,
        Some(_) if scan.content_length.differs => return Err(InvalidResponse::DifferingContentLengths),
        Some(value) => Some(decimal(value).ok_or(InvalidResponse::InvalidContentLength)?),
    };
    let chunked = match scan.transfer_encoding.first {
        None => false,
        Some(_) if length.is_some() => return Err(InvalidResponse::LengthAndTransferEncoding),
        Some(_) if line.version == Version::Http10 => return Err(InvalidResponse::TransferEncodingInHttp10),
        Some(value) if value.eq_ignore_ascii_case(b"chunked") && !scan.transfer_encoding.repeated => true,
        Some(_) => return Err(InvalidResponse::InvalidTransferEncoding),
    };
    let upgrade = scan.upgrade().filter(|_| line.status == 101);
    if line.status == 101 && upgrade.is_none() {
        return Err(InvalidResponse::SwitchWithoutUpgrade);
    }
    let never_has_body = line.status < 200 || line.status == 204;
    let framing = match length {
        _ if never_has_body || line.status == 304 || request == Method::Head => Framing::None,
        Some(length) => Framing::Length(length),
        None if chunked => Framing::Chunked,
        None => Framing::UntilClose,
    };
    // A backend that announces a body where there is none may well send it: what follows cannot be trusted.
    let announced = never_has_body && (chunked || length.is_some_and(|length| length > 0));
    let offered = match line.version {
        Version::Http10 => scan.connection.keep_alive,
        Version::Http11 => true,
    };
    Ok(ResponseHead {
        status: line.status,
        reason: line.reason,
        version: line.version,
        framing,
        content_length: length,
        keep_alive: offered && !scan.connection.close && framing != Framing::UntilClose && !announced,
        upgrade,
        fields: scan.layout.fields(fields),
        len,
        as_is: line.as_is,
        layout: scan.layout,
    })
}
