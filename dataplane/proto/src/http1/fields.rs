//! Field lines: the section as it lies in the buffer, the strict check of it, and the few fields that matter to framing
//! and routing.

use super::error::FieldFault;
use super::layout::Layout;
use memchr::memchr;

/// How many options the Connection fields of one message may name: each is compared with each field name.
pub const MAX_CONNECTION_OPTIONS: usize = 32;

/// One field: the name as sent, the value without the whitespace around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'b> {
    /// A token.
    pub name: &'b [u8],
    /// No CR, LF, NUL or other control byte but HTAB.
    pub value: &'b [u8],
}

/// A checked section of field lines, read where it lies: neither a heap nor an array of its own, so a head is small
/// enough to be passed about.
#[derive(Clone, Copy, Default)]
pub struct Fields<'b> {
    section: &'b [u8],
    count: usize,
}

impl<'b> Fields<'b> {
    /// Takes a whole section, each line with its CRLF, without the empty line behind; for trailers.
    ///
    /// # Errors
    /// The first fault in it.
    pub fn parse(section: &'b [u8]) -> Result<Self, FieldFault> {
        match check_section(section, super::MAX_FIELDS)? {
            Section::Unfinished { count, line: 0 } => Ok(Self { section, count }),
            // An empty line inside, or a last line without its end.
            Section::Unfinished { .. } | Section::Ended => Err(FieldFault::InvalidName),
        }
    }

    /// `section` was found clean, and has `count` lines.
    pub(super) fn trusted(section: &'b [u8], count: usize) -> Self {
        Self { section, count }
    }

    /// In the order sent.
    pub fn iter(&self) -> FieldsIter<'b> {
        FieldsIter { rest: self.section }
    }

    /// The value of the first field of that name; names compare without ASCII case.
    pub fn get(&self, name: impl AsRef<[u8]>) -> Option<&'b [u8]> {
        let name = name.as_ref();
        self.iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    }

    /// The values of all fields of that name, in the order sent.
    pub fn get_all<'n>(&self, name: &'n [u8]) -> impl Iterator<Item = &'b [u8]> + use<'b, 'n> {
        self.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl core::fmt::Debug for Fields<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_map().entries(self.iter().map(|f| (f.name.escape_ascii(), f.value.escape_ascii()))).finish()
    }
}

impl<'b> IntoIterator for &Fields<'b> {
    type Item = Field<'b>;
    type IntoIter = FieldsIter<'b>;

    fn into_iter(self) -> FieldsIter<'b> {
        self.iter()
    }
}

/// Walks a section's lines.
#[derive(Clone)]
pub struct FieldsIter<'b> {
    rest: &'b [u8],
}

impl<'b> Iterator for FieldsIter<'b> {
    type Item = Field<'b>;

    fn next(&mut self) -> Option<Field<'b>> {
        let (line, rest) = self.rest.split_at_checked(memchr(b'\n', self.rest)? + 1)?;
        self.rest = rest;
        Field::of(line)
    }
}

impl<'b> Field<'b> {
    /// What a line says that was found clean.
    pub(super) fn of(line: &'b [u8]) -> Option<Self> {
        let (name, value) = line.split_at_checked(memchr(b':', line)?)?;
        Some(Self { name, value: trim(value.get(1..)?) })
    }
}

/// Without the optional whitespace (RFC 9110 §5.6.3), and without the CRLF, at either end.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t' | b'\r' | b'\n'] = value {
        value = rest;
    }
    value
}

/// The members of a comma-separated list, empty ones too (RFC 9110 §5.6.1).
pub(super) fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(trim)
}

/// How far the check of a section came.
pub(super) enum Section {
    /// The empty line is there.
    Ended,
    /// More is to come; `line` bytes of an unfinished line stand at the end.
    Unfinished { count: usize, line: usize },
}

/// Goes over a section byte by byte, and names the first fault. This is the slow path: see the module above.
pub(super) fn check_section(section: &[u8], max_fields: usize) -> Result<Section, FieldFault> {
    let mut at = 0;
    let mut count = 0;
    loop {
        let line = section.get(at..).unwrap_or_default();
        match line {
            [] | [b'\r'] => return Ok(Section::Unfinished { count, line: line.len() }),
            [b'\r', b'\n', ..] => return Ok(Section::Ended),
            [b'\r', ..] => return Err(FieldFault::BareCr),
            _ if count == max_fields => return Err(FieldFault::TooManyFields),
            _ => {}
        }
        match check_line(line)? {
            Some(len) => at += len,
            None => return Ok(Section::Unfinished { count, line: line.len() }),
        }
        count += 1;
    }
}

/// The length of one field line with its CRLF, or `None` while it has no end.
fn check_line(line: &[u8]) -> Result<Option<usize>, FieldFault> {
    let Some(colon) = line.iter().position(|&b| !is_token(b)) else { return Ok(None) };
    match line.get(colon) {
        Some(b':') if colon == 0 => return Err(FieldFault::EmptyName),
        Some(b':') => {}
        Some(b'\n') => return Err(FieldFault::BareLf),
        Some(b' ' | b'\t') if colon == 0 => return Err(FieldFault::ObsFold),
        Some(b' ' | b'\t') => return Err(FieldFault::SpaceBeforeColon),
        _ => return Err(FieldFault::InvalidName),
    }
    for (at, &b) in line.iter().enumerate().skip(colon + 1) {
        match b {
            b'\r' => {
                return match line.get(at + 1) {
                    Some(b'\n') => Ok(Some(at + 2)),
                    Some(_) => Err(FieldFault::BareCr),
                    None => Ok(None),
                };
            }
            b'\n' => return Err(FieldFault::BareLf),
            b'\t' | b' '..=b'~' | 0x80.. => {}
            _ => return Err(FieldFault::InvalidValue),
        }
    }
    Ok(None)
}

/// A byte of a token (RFC 9110 §5.6.2).
pub(super) fn is_token(b: u8) -> bool {
    matches!(b, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+'
        | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
}

/// The fields that proxying treats specially.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Host,
    Connection,
    ContentLength,
    TransferEncoding,
    Expect,
    Upgrade,
    Te,
    /// Meant for one hop, and nothing that is read here: never forwarded.
    OneHop,
    ForwardedFor,
    ForwardedProto,
    /// What a client could say about the way it came, other than the two above.
    ForwardedOther,
    /// Counts down, with OPTIONS.
    MaxForwards,
}

impl Known {
    /// It means something in requests only; in a response it is an ordinary field.
    pub(super) fn is_of_requests(self) -> bool {
        matches!(
            self,
            Self::Host
                | Self::Expect
                | Self::ForwardedFor
                | Self::ForwardedProto
                | Self::ForwardedOther
                | Self::MaxForwards
        )
    }
}

/// Switches on the length and the first byte, so that an ordinary field costs no comparison. `name` is a token.
#[inline]
pub(super) fn known(name: &[u8]) -> Option<Known> {
    let found = match (name.len(), name.first()? | 0x20) {
        (2, b't') if is(name, b"te") => Known::Te,
        (4, b'h') if is(name, b"host") => Known::Host,
        (6, b'e') if is(name, b"expect") => Known::Expect,
        (7, b'u') if is(name, b"upgrade") => Known::Upgrade,
        (9, b'f') if is(name, b"forwarded") => Known::ForwardedOther,
        (10, b'c') if is(name, b"connection") => Known::Connection,
        (10, b'k') if is(name, b"keep-alive") => Known::OneHop,
        (12, b'm') if is(name, b"max-forwards") => Known::MaxForwards,
        (14, b'c') if is(name, b"content-length") => Known::ContentLength,
        (14, b'h') if is(name, b"http2-settings") => Known::OneHop,
        (15, b'x') if is(name, b"x-forwarded-for") => Known::ForwardedFor,
        (16, b'p') if is(name, b"proxy-connection") => Known::OneHop,
        (16, b'x') if is(name, b"x-forwarded-host") || is(name, b"x-forwarded-port") => Known::ForwardedOther,
        (17, b't') if is(name, b"transfer-encoding") => Known::TransferEncoding,
        (17, b'x') if is(name, b"x-forwarded-proto") => Known::ForwardedProto,
        (18, b'p') if is(name, b"proxy-authenticate") => Known::OneHop,
        (19, b'p') if is(name, b"proxy-authorization") => Known::OneHop,
        _ => return None,
    };
    Some(found)
}

/// Is `text`, without ASCII case, `lower`, which is of lower-case letters, digits and hyphens? The bit that makes letters
/// lower case is set in all of these, and without it only control bytes become digits or hyphens: `text` has none.
#[inline]
fn is<const N: usize>(text: &[u8], lower: &[u8; N]) -> bool {
    let differing = |text: &[u8; N]| text.iter().zip(lower).fold(0, |differing, (a, b)| differing | ((a | 0x20) ^ b));
    <&[u8; N]>::try_from(text).is_ok_and(|text| differing(text) == 0)
}

/// What the fields of a head say about framing and the connection, before any judgement.
#[derive(Default)]
pub(super) struct Scan<'b> {
    pub(super) host: Seen<'b>,
    pub(super) content_length: Seen<'b>,
    pub(super) transfer_encoding: Seen<'b>,
    pub(super) upgrade: Seen<'b>,
    pub(super) expects_continue: bool,
    /// Some expectation is not 100-continue.
    pub(super) expects_unknown: bool,
    pub(super) connection: Options,
    /// TE says that trailers are welcome.
    pub(super) te_trailers: bool,
    pub(super) layout: Layout<'b>,
}

/// A field that should stand once.
#[derive(Clone, Copy, Default)]
pub(super) struct Seen<'b> {
    pub(super) first: Option<&'b [u8]>,
    pub(super) repeated: bool,
    /// A repetition had another value.
    pub(super) differs: bool,
}

impl<'b> Seen<'b> {
    fn note(&mut self, value: &'b [u8]) {
        match self.first {
            None => self.first = Some(value),
            Some(first) => {
                self.repeated = true;
                self.differs |= first != value;
            }
        }
    }
}

/// The options of all Connection fields.
#[derive(Clone, Copy, Default)]
pub(super) struct Options {
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
    pub(super) te: bool,
    /// Field names are among them.
    pub(super) names_fields: bool,
    /// There are more than [`MAX_CONNECTION_OPTIONS`].
    pub(super) too_many: bool,
    count: usize,
}

impl Options {
    fn note(&mut self, value: &[u8]) {
        // Nearly always it is one, and known.
        if self.take(value) {
            self.count += 1;
        } else {
            for option in members(value) {
                self.count += 1;
                if self.count > MAX_CONNECTION_OPTIONS {
                    break;
                }
                self.names_fields |= !self.take(option) && !option.is_empty();
            }
        }
        self.too_many |= self.count > MAX_CONNECTION_OPTIONS;
    }

    /// Whether it is one that is known here.
    #[inline]
    fn take(&mut self, option: &[u8]) -> bool {
        match option.len() {
            5 if is(option, b"close") => self.close = true,
            10 if is(option, b"keep-alive") => self.keep_alive = true,
            7 if is(option, b"upgrade") => self.upgrade = true,
            2 if is(option, b"te") => self.te = true,
            _ => return false,
        }
        true
    }
}

impl<'b> Scan<'b> {
    /// Looks at what httparse made of `head`, once per field. `None`: a line does not end in CRLF, so `head` is not clean.
    ///
    /// A name begins where its line does, so the line before it, of which httparse does not tell the end, ends there.
    #[inline]
    pub(super) fn over<const RESPONSE: bool>(head: &'b [u8], headers: &[httparse::Header<'b>]) -> Option<Self> {
        let bytes = head.strip_suffix(b"\r\n")?;
        let distance = |from: *const u8, to: &httparse::Header<'_>| to.name.as_ptr().addr().wrapping_sub(from.addr());
        let section = headers.first().map_or(bytes.len(), |first| distance(bytes.as_ptr(), first));
        let (first_line, mut rest) = bytes.split_at_checked(section)?;
        if !first_line.ends_with(b"\r\n") {
            return None;
        }
        let mut scan = Self { layout: Layout::new(bytes, section), ..Self::default() };
        for (index, header) in headers.iter().enumerate() {
            let name = header.name.as_bytes();
            let len = headers.get(index + 1).map_or(rest.len(), |next| distance(name.as_ptr(), next));
            let start = bytes.len() - rest.len();
            let line;
            (line, rest) = rest.split_at_checked(len)?;
            if line.last_chunk() != Some(b"\r\n") {
                return None;
            }
            let plain = len == name.len() + header.value.len() + 4 && line.get(name.len() + 1) == Some(&b' ');
            let known = known(name);
            if known.is_none() && plain {
                continue;
            }
            if let Some(known) = known {
                scan.note(known, header.value);
            }
            if RESPONSE {
                let known = known.filter(|known| !known.is_of_requests());
                if known.is_some() || !plain {
                    scan.layout.mark(start, start + len, known);
                }
            } else if index == 0 && plain && name == b"Host" {
                scan.layout.has_host(start + len);
            } else {
                scan.layout.mark(start, start + len, known);
            }
        }
        if scan.connection.names_fields {
            scan.layout.forget_marks();
        }
        Some(scan)
    }

    #[inline]
    fn note(&mut self, known: Known, value: &'b [u8]) {
        match known {
            Known::Host => self.host.note(value),
            Known::Connection => self.connection.note(value),
            Known::ContentLength => self.content_length.note(value),
            Known::TransferEncoding => self.transfer_encoding.note(value),
            Known::Upgrade => self.upgrade.note(value),
            Known::Expect => {
                let known = value.eq_ignore_ascii_case(b"100-continue");
                self.expects_continue |= known;
                self.expects_unknown |= !known;
            }
            Known::Te => self.te_trailers |= members(value).any(|coding| coding.eq_ignore_ascii_case(b"trailers")),
            Known::OneHop
            | Known::ForwardedFor
            | Known::ForwardedProto
            | Known::ForwardedOther
            | Known::MaxForwards => {}
        }
    }

    /// The protocol to switch to, if the message offers or takes one and it is one that may pass. h2c never may: a
    /// tunnel would carry requests past every check here. Nor may any other HTTP, for the same reason.
    pub(super) fn upgrade(&self) -> Option<&'b [u8]> {
        let protocols = self.upgrade.first?;
        let http = |protocol: &[u8]| {
            let name = protocol.split(|&b| b == b'/').next().unwrap_or_default();
            name.eq_ignore_ascii_case(b"http") || name.get(..3).is_some_and(|start| start.eq_ignore_ascii_case(b"h2c"))
        };
        let usable =
            self.connection.upgrade && !self.upgrade.repeated && !protocols.is_empty() && !members(protocols).any(http);
        usable.then_some(protocols)
    }
}

/// One decimal number that fits (RFC 9110 §8.6): digits and nothing else.
pub(super) fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |number, b| {
        b.is_ascii_digit().then_some(())?;
        number.checked_mul(10)?.checked_add(u64::from(b - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names_are_known_in_any_case_and_no_others_are() {
        let names = [
            "te",
            "host",
            "expect",
            "upgrade",
            "forwarded",
            "connection",
            "keep-alive",
            "max-forwards",
            "content-length",
            "http2-settings",
            "x-forwarded-for",
            "proxy-connection",
            "x-forwarded-host",
            "x-forwarded-port",
            "transfer-encoding",
            "x-forwarded-proto",
            "proxy-authenticate",
            "proxy-authorization",
        ];
        for name in names {
            assert!(known(name.as_bytes()).is_some(), "{name}");
            for at in 0..name.len() {
                for b in (0..=u8::MAX).filter(|&b| is_token(b)) {
                    let mut other = name.as_bytes().to_vec();
                    other[at] = b;
                    let expected = names.iter().any(|name| other.eq_ignore_ascii_case(name.as_bytes()));
                    assert_eq!(known(&other).is_some(), expected, "{}", other.escape_ascii());
                }
            }
        }
    }
}
