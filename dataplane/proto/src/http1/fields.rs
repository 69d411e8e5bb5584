//! Field lines: the section as it lies in the buffer, the strict check of it, and the few fields that matter to framing
//! and routing.

use super::error::FieldFault;
use arrayvec::ArrayVec;
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
        let (name, value) = line.split_at_checked(memchr(b':', line)?)?;
        Some(Field { name, value: trim(value.get(1..)?) })
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

/// Every line of the head ends in CRLF and none in a bare LF, and this is where the first one ends. `None` when not.
pub(super) fn first_line(head: &[u8]) -> Option<usize> {
    let mut first = None;
    for at in memchr::memchr_iter(b'\n', head) {
        if !head.get(..at)?.ends_with(b"\r") {
            return None;
        }
        first = first.or(Some(at + 1));
    }
    first
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
}

/// Switches on the length first, so that an ordinary field costs one or two comparisons.
#[inline]
pub(super) fn known(name: &[u8]) -> Option<Known> {
    let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
    let found = match name.len() {
        2 if is(b"te") => Known::Te,
        4 if is(b"host") => Known::Host,
        6 if is(b"expect") => Known::Expect,
        7 if is(b"upgrade") => Known::Upgrade,
        9 if is(b"forwarded") => Known::ForwardedOther,
        10 if is(b"connection") => Known::Connection,
        10 if is(b"keep-alive") => Known::OneHop,
        14 if is(b"content-length") => Known::ContentLength,
        14 if is(b"http2-settings") => Known::OneHop,
        15 if is(b"x-forwarded-for") => Known::ForwardedFor,
        16 if is(b"proxy-connection") => Known::OneHop,
        16 if is(b"x-forwarded-host") || is(b"x-forwarded-port") => Known::ForwardedOther,
        17 if is(b"transfer-encoding") => Known::TransferEncoding,
        17 if is(b"x-forwarded-proto") => Known::ForwardedProto,
        18 if is(b"proxy-authenticate") => Known::OneHop,
        19 if is(b"proxy-authorization") => Known::OneHop,
        _ => return None,
    };
    Some(found)
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
    count: usize,
}

impl Options {
    fn note(&mut self, value: &[u8]) -> Result<(), FieldFault> {
        for option in members(value) {
            self.count += 1;
            if self.count > MAX_CONNECTION_OPTIONS {
                return Err(FieldFault::TooManyConnectionOptions);
            }
            let is = |other: &[u8]| option.eq_ignore_ascii_case(other);
            match option.len() {
                5 if is(b"close") => self.close = true,
                10 if is(b"keep-alive") => self.keep_alive = true,
                7 if is(b"upgrade") => self.upgrade = true,
                2 if is(b"te") => self.te = true,
                0 => {}
                _ => self.names_fields = true,
            }
        }
        Ok(())
    }
}

impl<'b> Scan<'b> {
    pub(super) fn over(headers: &[httparse::Header<'b>]) -> Result<Self, FieldFault> {
        let mut scan = Self::default();
        for header in headers {
            match known(header.name.as_bytes()) {
                None => {}
                Some(Known::Host) => scan.host.note(header.value),
                Some(Known::Connection) => scan.connection.note(header.value)?,
                Some(Known::ContentLength) => scan.content_length.note(header.value),
                Some(Known::TransferEncoding) => scan.transfer_encoding.note(header.value),
                Some(Known::Upgrade) => scan.upgrade.note(header.value),
                Some(Known::Expect) => {
                    let known = header.value.eq_ignore_ascii_case(b"100-continue");
                    scan.expects_continue |= known;
                    scan.expects_unknown |= !known;
                }
                Some(Known::Te) => {
                    scan.te_trailers |= members(header.value).any(|coding| coding.eq_ignore_ascii_case(b"trailers"));
                }
                Some(Known::OneHop | Known::ForwardedFor | Known::ForwardedProto | Known::ForwardedOther) => {}
            }
        }
        Ok(scan)
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

/// The field names that a message's Connection fields name (RFC 9110 §7.6.1).
pub(super) struct Nominated<'b>(ArrayVec<&'b [u8], MAX_CONNECTION_OPTIONS>);

impl<'b> Nominated<'b> {
    /// `any`: whether there are such at all, which the parser noted.
    pub(super) fn of(fields: &Fields<'b>, any: bool) -> Self {
        let mut names = ArrayVec::new();
        if any {
            let options = fields.iter().filter(|field| known(field.name) == Some(Known::Connection));
            for name in options.flat_map(|field| members(field.value)) {
                // The parser refused a head with more.
                let _ = names.try_push(name);
            }
        }
        Self(names)
    }

    pub(super) fn contains(&self, name: &[u8]) -> bool {
        self.0.iter().any(|option| option.eq_ignore_ascii_case(name))
    }
}
