//! What clients and backends send each other, so that every reply can be checked.
//!
//! A nonce, sixteen hexadecimal digits, stands at the end of the request's path, in the reply's field `x-nonce`, and at the
//! start of each KiB of a body in either direction. So a reply, or a part of a body, that went to the wrong client shows.

use memchr::memmem;

/// Bytes of a nonce.
pub const NONCE: usize = 16;

/// From one nonce in a body to the next.
const BLOCK: usize = 1024;

/// What is in a body beside nonces.
static FILLING: [u8; BLOCK] = filling();

const fn filling() -> [u8; BLOCK] {
    let mut bytes = [0; BLOCK];
    let mut at = 0;
    while at < BLOCK {
        // Printable, and no two neighbors alike.
        bytes[at] = b'!' + ((at * 7) % 89) as u8;
        at += 1;
    }
    bytes
}

/// A nonce as it is sent.
#[must_use]
#[inline]
pub fn digits(nonce: u64) -> [u8; NONCE] {
    // Half a byte to a byte, eight at a time: spread, then '0' or 'a' - 10 is added.
    let [high, low] = [(nonce >> 32) as u32, nonce as u32].map(|half| {
        let mut x = u64::from(half);
        x = (x | x << 16) & 0x0000_ffff_0000_ffff;
        x = (x | x << 8) & 0x00ff_00ff_00ff_00ff;
        x = (x | x << 4) & 0x0f0f_0f0f_0f0f_0f0f;
        let letters = (x + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
        (x + 0x3030_3030_3030_3030 + letters * 39).to_be_bytes()
    });
    let mut out = [0; NONCE];
    out[..8].copy_from_slice(&high);
    out[8..].copy_from_slice(&low);
    out
}

/// Writes the part of `what` that falls into `out`: `what` begins at `at`, and `out` at `from`, both counted from the same start.
#[inline]
pub fn overlay(out: &mut [u8], from: usize, at: usize, what: &[u8]) {
    let begin = at.max(from);
    let end = (at + what.len()).min(from + out.len());
    if begin < end
        && let (Some(target), Some(source)) = (out.get_mut(begin - from..end - from), what.get(begin - at..end - at))
    {
        target.copy_from_slice(source);
    }
}

/// Writes the part of a body that begins at `from`.
pub fn fill_body(nonce: &[u8; NONCE], from: usize, out: &mut [u8]) {
    blocks(from, out.len(), |part, within| {
        let Some(out) = out.get_mut(part) else { return };
        if let Some(source) = FILLING.get(within..within + out.len()) {
            out.copy_from_slice(source);
        }
        overlay(out, within, 0, nonce);
    });
}

/// Whether `part` is what [`fill_body`] would have written.
#[must_use]
pub fn body_holds(nonce: &[u8; NONCE], from: usize, part: &[u8]) -> bool {
    let mut holds = true;
    blocks(from, part.len(), |range, within| {
        let part = part.get(range).unwrap_or_default();
        let split = NONCE.saturating_sub(within).min(part.len());
        let (own, rest) = part.split_at(split);
        let behind = within + split;
        holds &= nonce.get(within..within + split).unwrap_or_default() == own
            && FILLING.get(behind..behind + rest.len()).is_some_and(|filling| filling == rest);
    });
    holds
}

/// Cuts `len` bytes from `from` on at the borders of blocks: each part, and where in its block it begins.
#[inline]
fn blocks(from: usize, len: usize, mut each: impl FnMut(std::ops::Range<usize>, usize)) {
    let mut done = 0;
    while done < len {
        let within = (from + done) % BLOCK;
        let end = len.min(done + BLOCK - within);
        each(done..end, within);
        done = end;
    }
}

/// A message of which all copies are alike but for the nonce: a head, and a body by [`fill_body`].
#[derive(Debug, Clone)]
pub struct Message {
    head: Vec<u8>,
    nonce_at: usize,
    body: usize,
}

impl Message {
    /// A message whose head has sixteen bytes in place of the nonce at `nonce_at`.
    #[must_use]
    pub fn new(head: Vec<u8>, nonce_at: usize, body: usize) -> Self {
        Self { head, nonce_at, body }
    }

    /// A backend's response.
    #[must_use]
    pub fn response(status: &str, body: usize) -> Self {
        let fields = format!("HTTP/1.1 {status}\r\nServer: blast\r\nContent-Length: {body}\r\nx-nonce: ");
        let nonce_at = fields.len();
        Self::new(format!("{fields}{:NONCE$}\r\n\r\n", "").into_bytes(), nonce_at, body)
    }

    /// A client's request, with further `fields` as they are sent.
    #[must_use]
    pub fn request(host: &str, prefix: &str, fields: &[String], body: usize, close: bool) -> Self {
        let method = if body > 0 { "POST" } else { "GET" };
        let start = format!("{method} {prefix}");
        let nonce_at = start.len();
        let mut head = format!("{start}{:NONCE$} HTTP/1.1\r\nHost: {host}\r\n", "");
        for field in fields {
            head.push_str(field);
            head.push_str("\r\n");
        }
        if body > 0 {
            head.push_str(&format!("Content-Length: {body}\r\n"));
        }
        if close {
            head.push_str("Connection: close\r\n");
        }
        head.push_str("\r\n");
        Self::new(head.into_bytes(), nonce_at, body)
    }

    /// Bytes in all. Messages are shorter than 4 GiB.
    #[must_use]
    pub fn len(&self) -> u32 {
        u32::try_from(self.head.len() + self.body).unwrap_or(u32::MAX)
    }

    /// Bytes of the body.
    #[must_use]
    pub fn body(&self) -> u64 {
        self.body as u64
    }

    /// Always false: there is a head.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Writes the part that begins at `from`.
    #[inline]
    pub fn fill(&self, nonce: &[u8; NONCE], from: usize, out: &mut [u8]) {
        let head = self.head.get(from..).unwrap_or_default();
        let in_head = head.len().min(out.len());
        let (out_head, out_body) = out.split_at_mut(in_head);
        if let Some(head) = head.get(..in_head)
            && in_head > 0
        {
            out_head.copy_from_slice(head);
            overlay(out_head, from, self.nonce_at, nonce);
        }
        if !out_body.is_empty() {
            fill_body(nonce, (from + in_head).saturating_sub(self.head.len()), out_body);
        }
    }
}

/// What a head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Its length, with the empty line.
    pub len: usize,
    /// The status; 0 of a request.
    pub status: u16,
    /// The nonce; zeros where there is none.
    pub nonce: [u8; NONCE],
    /// `Content-Length`; zero where there is none.
    pub body: u64,
}

/// A head that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// Reads heads that are nearly always the same, by comparing them with the last one.
#[derive(Debug, Default)]
pub struct Reader {
    /// The last head, where its nonce is, and what it says.
    known: Vec<u8>,
    nonce_at: usize,
    said: Option<Head>,
}

/// Fields of a head at most.
const FIELDS: usize = 64;

impl Reader {
    /// The response head that `bytes` begin with; `None` where it is not complete.
    ///
    /// # Errors
    /// What stands there is no response.
    #[inline]
    pub fn response(&mut self, bytes: &[u8]) -> Result<Option<Head>, Malformed> {
        if let Some(head) = self.again(bytes, self.nonce_at) {
            return Ok(Some(head));
        }
        let mut fields = [httparse::EMPTY_HEADER; FIELDS];
        let mut response = httparse::Response::new(&mut fields);
        let httparse::Status::Complete(len) = response.parse(bytes).map_err(|_| Malformed)? else { return Ok(None) };
        let mut head =
            Head { len, status: response.code.unwrap_or(0), nonce: [0; NONCE], body: body(response.headers)? };
        let nonce = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case("x-nonce"));
        if let Some(nonce) =
            nonce.and_then(|field| field.value.first_chunk::<NONCE>().filter(|_| field.value.len() == NONCE))
        {
            head.nonce = *nonce;
            let at = memmem::find(bytes, nonce);
            self.learn(bytes, at, head);
        }
        Ok(Some(head))
    }

    /// The same of a request, whose nonce ends its path.
    ///
    /// # Errors
    /// What stands there is no request, or its path ends with no nonce.
    #[inline]
    pub fn request(&mut self, bytes: &[u8]) -> Result<Option<Head>, Malformed> {
        if let Some(head) = self.again(bytes, self.nonce_at) {
            return Ok(Some(head));
        }
        let mut fields = [httparse::EMPTY_HEADER; FIELDS];
        let mut request = httparse::Request::new(&mut fields);
        let httparse::Status::Complete(len) = request.parse(bytes).map_err(|_| Malformed)? else { return Ok(None) };
        let nonce = request.path.and_then(|path| path.as_bytes().last_chunk::<NONCE>()).ok_or(Malformed)?;
        let head = Head { len, status: 0, nonce: *nonce, body: body(request.headers)? };
        let at = memmem::find(bytes, nonce);
        self.learn(bytes, at, head);
        Ok(Some(head))
    }

    #[inline]
    fn again(&self, bytes: &[u8], nonce_at: usize) -> Option<Head> {
        let said = self.said?;
        let bytes = bytes.get(..said.len)?;
        let (before, rest) = bytes.split_at_checked(nonce_at)?;
        let (nonce, behind) = rest.split_first_chunk::<NONCE>()?;
        let same = self.known.get(..nonce_at)? == before && self.known.get(nonce_at + NONCE..)? == behind;
        same.then_some(Head { nonce: *nonce, ..said })
    }

    fn learn(&mut self, bytes: &[u8], nonce_at: Option<usize>, head: Head) {
        if let (Some(at), Some(bytes)) = (nonce_at, bytes.get(..head.len)) {
            self.known.clear();
            self.known.extend_from_slice(bytes);
            self.nonce_at = at;
            self.said = Some(head);
        }
    }
}

fn body(fields: &[httparse::Header<'_>]) -> Result<u64, Malformed> {
    let Some(field) = fields.iter().find(|field| field.name.eq_ignore_ascii_case("content-length")) else {
        return Ok(0);
    };
    std::str::from_utf8(field.value).ok().and_then(|value| value.trim().parse().ok()).ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_hexadecimal() {
        for nonce in [0, 1, 0x0123_4567_89ab_cdef, u64::MAX, 0xa0b1_9f00_ffff_9a9a] {
            assert_eq!(digits(nonce), format!("{nonce:016x}").as_bytes());
        }
    }

    #[test]
    fn a_message_is_the_same_in_any_pieces() {
        for message in
            [Message::response("200 OK", 5000), Message::request("gateway", "/r/", &["A: b".to_owned()], 3000, true)]
        {
            let nonce = digits(0x1234_5678_9abc_def0);
            let mut whole = vec![0; message.len() as usize];
            message.fill(&nonce, 0, &mut whole);
            for piece in [1, 7, 16, 100, 1024, 1460, 9000] {
                let mut built = Vec::new();
                while built.len() < whole.len() {
                    let mut part = vec![0; piece.min(whole.len() - built.len())];
                    message.fill(&nonce, built.len(), &mut part);
                    built.extend(part);
                }
                assert_eq!(built, whole, "pieces of {piece}");
            }
            let (_, body) = whole.split_at(message.head.len());
            for from in [0, 1, 15, 16, 17, 1000, 1023, 1024, 1030, 2047] {
                for len in [0, 1, 15, 16, 900, 1024, 1700] {
                    let end = body.len().min(from + len);
                    assert!(body_holds(&nonce, from, &body[from..end]));
                    if end > from {
                        for at in [from, (from + end) / 2, end - 1] {
                            let mut wrong = body[from..end].to_vec();
                            wrong[at - from] ^= 1;
                            assert!(!body_holds(&nonce, from, &wrong), "{from}, {len}, {at}");
                        }
                    }
                }
            }
            assert!(!body_holds(&digits(3), 0, body));
        }
    }

    #[test]
    fn heads_are_read_fast_and_slowly_alike() {
        let mut reader = Reader::default();
        let message = Message::response("200 OK", 60);
        for nonce in [5, 6, 7] {
            let mut bytes = vec![0; message.len() as usize];
            message.fill(&digits(nonce), 0, &mut bytes);
            let expected = Head { len: bytes.len() - 60, status: 200, nonce: digits(nonce), body: 60 };
            assert_eq!(reader.response(&bytes), Ok(Some(expected)));
            assert_eq!(Reader::default().response(&bytes), Ok(Some(expected)));
            for cut in 0..expected.len {
                assert_eq!(reader.response(&bytes[..cut]), Ok(None));
            }
        }
        let other = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 3\r\n\r\nno\n";
        assert_eq!(reader.response(other), Ok(Some(Head { len: 55, status: 503, nonce: [0; NONCE], body: 3 })));
        assert_eq!(reader.response(b"rubbish"), Err(Malformed));
        assert_eq!(reader.request(b"GET / HTTP/1.1\r\n\r\n"), Err(Malformed));
    }
}
