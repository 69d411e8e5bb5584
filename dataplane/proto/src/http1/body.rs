//! Body framing: which bytes behind a head are payload, and where the body ends (RFC 9112 §6, §7).
//!
//! The decoder holds no payload and copies none: it says how the bytes at the front of the caller's buffer divide. So
//! the caller can take part of a payload when its own output is full, and ask again for the rest later.

use core::ops::Range;

use super::error::BodyError;
use super::fields::{Fields, is_token};
use super::{Framing, head_end};

/// The most bytes of extensions on one chunk-size line. They mean nothing here and are dropped (RFC 9112 §7.1.1).
pub const MAX_CHUNK_EXTENSION: usize = 256;

/// The most bytes of a trailer section, with its empty line.
pub const MAX_TRAILERS: usize = 8 * 1024;

/// The most hexadecimal digits of a chunk size: what fits 64 bits.
const MAX_SIZE_DIGITS: u8 = 16;

/// Follows one message body. Made from the head's framing; asked again and again with the front of the buffer.
///
/// Of each answer the caller consumes `skip` bytes, always and first: the decoder counts them as gone. Of
/// [`Decoded::Data`] it then takes as much payload as it has room for, none included, consumes it, and tells
/// [`advance`](Self::advance).
#[derive(Clone, Debug)]
pub struct BodyDecoder {
    state: State,
}

/// What the front of the input is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// `skip` bytes of framing, then `len` bytes of payload, at least one, both within the input.
    Data {
        /// Bytes to consume first.
        skip: usize,
        /// Bytes of payload behind them; tell [`BodyDecoder::advance`] how many were taken.
        len: usize,
    },
    /// More input is needed after `skip` bytes are consumed. What then remains is the beginning of a trailer section: it
    /// must stay in the buffer, in one piece, until the whole of it, at most [`MAX_TRAILERS`] bytes, is there.
    More {
        /// Bytes to consume.
        skip: usize,
    },
    /// The body is complete.
    End {
        /// Bytes to consume, trailers included: read those first.
        skip: usize,
        /// Where in the input the trailer fields lie, each line with its CRLF; for
        /// [`encode_trailers`](super::encode_trailers).
        trailers: Option<Range<usize>>,
    },
}

#[derive(Clone, Copy, Debug)]
enum State {
    Length(u64),
    UntilClose,
    Size {
        size: u64,
        digits: u8,
    },
    Extension {
        size: u64,
        at: Extension,
        len: usize,
    },
    /// The CR of the size line was seen.
    SizeLf {
        size: u64,
    },
    /// So much payload is left of this chunk, at least one byte.
    Chunk(u64),
    ChunkCr,
    ChunkLf,
    /// So much of the trailer section was searched for its end.
    Trailers {
        searched: usize,
    },
    Complete,
    Failed(BodyError),
}

/// Where in `*( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] )` a chunk extension is.
#[derive(Clone, Copy, Debug)]
enum Extension {
    BeforeSemicolon,
    BeforeName,
    Name,
    AfterName,
    BeforeValue,
    Token,
    Quoted,
    Escaped,
    AfterQuoted,
}

impl BodyDecoder {
    /// At the first byte behind the head.
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Complete,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::SIZE,
            Framing::UntilClose => State::UntilClose,
        };
        Self { state }
    }

    /// Looks at the front of `input`, which begins with the first byte not consumed yet.
    ///
    /// # Errors
    /// The framing is broken, and stays so: nothing behind it can be trusted.
    pub fn decode(&mut self, input: &[u8]) -> Result<Decoded, BodyError> {
        let mut at = 0;
        // Each turn but the last consumes a byte.
        loop {
            match self.step(input, at) {
                Ok(None) => at += 1,
                Ok(Some(decoded)) => return Ok(decoded),
                Err(error) => {
                    self.state = State::Failed(error);
                    return Err(error);
                }
            }
        }
    }

    /// `n` bytes of the payload of the last [`Decoded::Data`] were taken and consumed.
    pub fn advance(&mut self, n: usize) {
        let n = n as u64; // usize has at most 64 bits
        self.state = match self.state {
            State::Length(left) if left <= n => State::Complete,
            State::Length(left) => State::Length(left - n),
            State::Chunk(left) if left <= n => State::ChunkCr,
            State::Chunk(left) => State::Chunk(left - n),
            other => other,
        };
    }

    /// The peer will send no more.
    ///
    /// # Errors
    /// The body is not complete: whoever receives it must not take it for whole.
    pub fn end_of_input(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::Complete => Ok(()),
            State::UntilClose => {
                self.state = State::Complete;
                Ok(())
            }
            State::Failed(error) => Err(error),
            _ => {
                self.state = State::Failed(BodyError::Truncated);
                Err(BodyError::Truncated)
            }
        }
    }

    /// All of the body was seen and consumed.
    pub fn is_complete(&self) -> bool {
        matches!(self.state, State::Complete)
    }

    /// Bytes of payload that are left, where that is known: not for chunked bodies.
    pub fn remaining_hint(&self) -> Option<u64> {
        match self.state {
            State::Length(left) => Some(left),
            State::Complete => Some(0),
            _ => None,
        }
    }

    /// Consumes the byte at `at`, or has an answer.
    fn step(&mut self, input: &[u8], at: usize) -> Result<Option<Decoded>, BodyError> {
        let rest = input.get(at..).unwrap_or_default();
        let data = |left: u64| match usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len())) {
            0 => Decoded::More { skip: at },
            len => Decoded::Data { skip: at, len },
        };
        match self.state {
            State::Failed(error) => return Err(error),
            State::Complete => return Ok(Some(Decoded::End { skip: at, trailers: None })),
            State::Length(left) | State::Chunk(left) => return Ok(Some(data(left))),
            State::UntilClose => return Ok(Some(data(u64::MAX))),
            State::Trailers { searched } => return self.trailers(rest, at, searched).map(Some),
            _ => {}
        }
        let Some(&b) = rest.first() else { return Ok(Some(Decoded::More { skip: at })) };
        self.state = match self.state {
            State::Size { size, digits } => size_digit(size, digits, b)?,
            State::Extension { size, at, len } => extension(size, at, len, b)?,
            State::SizeLf { size: 0 } if b == b'\n' => State::Trailers { searched: 0 },
            State::SizeLf { size } if b == b'\n' => State::Chunk(size),
            State::ChunkCr if b == b'\r' => State::ChunkLf,
            State::ChunkLf if b == b'\n' => State::SIZE,
            _ => return Err(BodyError::InvalidChunkTerminator),
        };
        Ok(None)
    }

    /// `rest`, behind the last chunk's size line, is `at` bytes into the input.
    fn trailers(&mut self, rest: &[u8], at: usize, searched: usize) -> Result<Decoded, BodyError> {
        match rest {
            [] | [b'\r'] => return Ok(Decoded::More { skip: at }),
            [b'\r', b'\n', ..] => {
                self.state = State::Complete;
                return Ok(Decoded::End { skip: at + 2, trailers: None });
            }
            [b'\r' | b'\n', ..] => return Err(BodyError::InvalidChunkTerminator),
            _ => {}
        }
        match head_end(rest, searched) {
            Some(end) if end <= MAX_TRAILERS => {
                let section = end.checked_sub(2).and_then(|end| rest.get(..end)).unwrap_or_default();
                Fields::parse(section).map_err(|_| BodyError::InvalidTrailers)?;
                self.state = State::Complete;
                Ok(Decoded::End { skip: at + end, trailers: Some(at..at + section.len()) })
            }
            None if rest.len() < MAX_TRAILERS => {
                self.state = State::Trailers { searched: rest.len() };
                Ok(Decoded::More { skip: at })
            }
            _ => Err(BodyError::TrailersTooLarge),
        }
    }
}

impl State {
    /// At the beginning of a chunk-size line.
    const SIZE: Self = Self::Size { size: 0, digits: 0 };
}

fn size_digit(size: u64, digits: u8, b: u8) -> Result<State, BodyError> {
    match (char::from(b).to_digit(16), b) {
        (Some(_), _) if digits == MAX_SIZE_DIGITS => Err(BodyError::InvalidChunkSize),
        (Some(digit), _) => Ok(State::Size { size: size << 4 | u64::from(digit), digits: digits + 1 }),
        _ if digits == 0 => Err(BodyError::InvalidChunkSize),
        (None, b'\r') => Ok(State::SizeLf { size }),
        (None, b'\n') => Err(BodyError::InvalidChunkTerminator),
        (None, b';' | b' ' | b'\t') => extension(size, Extension::BeforeSemicolon, 0, b),
        (None, _) => Err(BodyError::InvalidChunkSize),
    }
}

fn extension(size: u64, at: Extension, len: usize, b: u8) -> Result<State, BodyError> {
    use Extension::*;
    if len == MAX_CHUNK_EXTENSION && b != b'\r' {
        return Err(BodyError::ChunkExtensionTooLong);
    }
    let next = match (at, b) {
        (Name | AfterName | Token | AfterQuoted, b'\r') => return Ok(State::SizeLf { size }),
        (_, b'\n') => return Err(BodyError::InvalidChunkTerminator),

        (Quoted, b'"') => AfterQuoted,
        (Quoted, b'\\') => Escaped,
        (Quoted | Escaped, b'\t' | b' '..=b'~' | 0x80..) => Quoted,
        (Quoted | Escaped, _) => return Err(BodyError::InvalidChunkExtension),

        (BeforeSemicolon | BeforeName | BeforeValue | AfterName | AfterQuoted, b' ' | b'\t') => at,
        (Name, b' ' | b'\t') => AfterName,
        (Token, b' ' | b'\t') => AfterQuoted,
        (BeforeSemicolon | Name | AfterName | Token | AfterQuoted, b';') => BeforeName,
        (Name | AfterName, b'=') => BeforeValue,
        (BeforeValue, b'"') => Quoted,
        (BeforeName | Name, b) if is_token(b) => Name,
        (BeforeValue | Token, b) if is_token(b) => Token,
        _ => return Err(BodyError::InvalidChunkExtension),
    };
    Ok(State::Extension { size, at: next, len: len + 1 })
}
