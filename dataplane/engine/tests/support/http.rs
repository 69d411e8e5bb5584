//! Just enough HTTP/1.1 for both ends, written apart from `proto` so that it can disagree.

use engine::random::Random;

/// One request or response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// From the first line to the last field, without the empty line.
    pub head: String,
    pub body: Vec<u8>,
}

impl Message {
    pub fn first_line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    /// The status of a response.
    pub fn status(&self) -> u16 {
        self.first_line().split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
    }
}

/// Takes a byte stream apart.
#[derive(Debug, Default)]
pub struct Reader {
    buffer: Vec<u8>,
    head: Option<String>,
    body: Vec<u8>,
    rest: Rest,
}

/// What is still to come of a body.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Rest {
    #[default]
    Nothing,
    Length(usize),
    /// A chunk's size line is next.
    ChunkSize,
    /// So much of a chunk, and its CRLF.
    Chunk(usize),
    /// The trailer section.
    Trailers,
    UntilClose,
}

impl Reader {
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Nothing of another message has come.
    pub fn is_empty(&self) -> bool {
        self.head.is_none() && self.buffer.is_empty()
    }

    /// The next whole message. Heads of responses without a length have a body that ends with the stream: see [`Reader::end`].
    pub fn next(&mut self) -> Option<Message> {
        if self.head.is_none() {
            let end = find(&self.buffer, b"\r\n\r\n")?;
            let head = String::from_utf8(self.take(end)).unwrap();
            self.take(4);
            self.rest = rest_of(&head);
            self.head = Some(head);
        }
        loop {
            match self.rest {
                Rest::Nothing => return self.finish(),
                Rest::Length(0) => return self.finish(),
                Rest::Length(n) => {
                    let piece = self.take(n.min(self.buffer.len()));
                    if piece.is_empty() {
                        return None;
                    }
                    self.rest = Rest::Length(n - piece.len());
                    self.body.extend(piece);
                }
                Rest::ChunkSize => {
                    let end = find(&self.buffer, b"\r\n")?;
                    let line = String::from_utf8(self.take(end)).unwrap();
                    self.take(2);
                    let size = usize::from_str_radix(line.split(';').next().unwrap(), 16).expect("a chunk size");
                    self.rest = if size == 0 { Rest::Trailers } else { Rest::Chunk(size) };
                }
                Rest::Chunk(n) => {
                    if self.buffer.len() < n + 2 {
                        return None;
                    }
                    let piece = self.take(n);
                    self.body.extend(piece);
                    assert_eq!(self.take(2), b"\r\n", "the end of a chunk");
                    self.rest = Rest::ChunkSize;
                }
                Rest::Trailers => {
                    let end = find(&self.buffer, b"\r\n")?;
                    let line = self.take(end);
                    self.take(2);
                    if line.is_empty() {
                        return self.finish();
                    }
                }
                Rest::UntilClose => {
                    let all = self.take(self.buffer.len());
                    self.body.extend(all);
                    return None;
                }
            }
        }
    }

    /// The stream ended with a FIN: the message that is complete with it.
    pub fn end(&mut self) -> Option<Message> {
        assert!(self.rest != Rest::UntilClose || self.buffer.is_empty());
        (self.rest == Rest::UntilClose).then(|| self.finish()).flatten()
    }

    /// What came so far of a message that is not complete.
    pub fn partial(&self) -> Option<(&str, &[u8])> {
        self.head.as_deref().map(|head| (head, &self.body[..]))
    }

    fn finish(&mut self) -> Option<Message> {
        self.rest = Rest::Nothing;
        Some(Message { head: self.head.take()?, body: std::mem::take(&mut self.body) })
    }

    fn take(&mut self, n: usize) -> Vec<u8> {
        self.buffer.drain(..n).collect()
    }
}

/// `len` bytes that follow from `seed`.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| random.next_u64().to_le_bytes()).collect();
    bytes.truncate(len);
    bytes
}

/// `body` in chunks of changing sizes.
pub fn chunked(body: &[u8], seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut out = Vec::with_capacity(body.len() * 2);
    let mut rest = body;
    while !rest.is_empty() {
        let bits = random.next_u64() % 14;
        let n = (1 + random.next_u64() as usize % (1 << bits)).min(rest.len());
        out.extend(format!("{n:x}\r\n").bytes());
        out.extend(&rest[..n]);
        out.extend(b"\r\n");
        rest = &rest[n..];
    }
    out.extend(b"0\r\n\r\n");
    out
}

pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

fn rest_of(head: &str) -> Rest {
    let response = head.starts_with("HTTP/");
    let status = if response { head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0) } else { 0 };
    if field(head, "transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        Rest::ChunkSize
    } else if let Some(length) = field(head, "content-length") {
        Rest::Length(length.parse().expect("a content length"))
    } else if response && status != 204 && status != 304 && status >= 200 {
        Rest::UntilClose
    } else {
        Rest::Nothing
    }
}
