//! The backends: each request gets a response of the wanted size with the request's nonce in it.

use crate::endpoint::{App, Do, Gone, Start};
use crate::message::{Malformed, Message, NONCE, Reader, body_holds};

/// Bytes of a request's head at most.
const HEAD: usize = 64 << 10;

/// The backends' half of the load.
#[derive(Debug)]
pub struct Server {
    response: Message,
    reader: Reader,
    counters: ServerCounters,
}

/// What backends counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct ServerCounters {
    /// Requests received whole.
    pub requests: u64,
    /// Requests that could not be read.
    pub malformed: u64,
    /// Requests whose body was not what the client sent.
    pub corrupt: u64,
    /// Requests cut short by the end of their connection.
    pub truncated: u64,
    /// Bytes behind a request, before its response.
    pub pipelined: u64,
}

impl ServerCounters {
    /// Requests in which something was wrong.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.malformed + self.corrupt + self.truncated + self.pipelined
    }
}

/// Of one connection.
#[derive(Debug, Default)]
pub struct ServerState {
    nonce: [u8; NONCE],
    /// Bytes of the request's body, and how many came.
    body: u64,
    came: u64,
    /// A head that came in parts.
    head: Option<Box<[u8]>>,
}

impl Server {
    /// Backends whose responses carry `body` bytes.
    #[must_use]
    pub fn new(body: usize) -> Self {
        Self {
            response: Message::response("200 OK", body),
            reader: Reader::default(),
            counters: ServerCounters::default(),
        }
    }

    /// What was counted.
    #[must_use]
    pub fn counters(&self) -> ServerCounters {
        self.counters
    }

    fn head(&mut self, state: &mut ServerState, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        let Some(head) = self.reader.request(bytes)? else { return Ok(None) };
        state.nonce = head.nonce;
        state.body = head.body;
        state.came = 0;
        Ok(Some(head.len))
    }

    fn bytes(&mut self, state: &mut ServerState, mut bytes: &[u8]) -> Do {
        if state.came == state.body {
            // Between requests: a head begins.
            match self.head(state, bytes) {
                Ok(Some(len)) => bytes = bytes.get(len..).unwrap_or_default(),
                Ok(None) if bytes.len() < HEAD => {
                    state.head = Some(bytes.into());
                    return Do::Nothing;
                }
                _ => {
                    self.counters.malformed += 1;
                    return Do::Abort;
                }
            }
        }
        let left = usize::try_from(state.body - state.came).unwrap_or(usize::MAX);
        let (part, behind) = bytes.split_at(left.min(bytes.len()));
        if !part.is_empty() {
            if !body_holds(&state.nonce, state.came as usize, part) {
                self.counters.corrupt += 1;
                return Do::Abort;
            }
            state.came += part.len() as u64;
        }
        if !behind.is_empty() {
            self.counters.pipelined += 1;
            return Do::Abort;
        }
        if state.came < state.body {
            return Do::Nothing;
        }
        self.counters.requests += 1;
        Do::Send { len: self.response.len(), close: false }
    }
}

impl App for Server {
    type State = ServerState;

    fn start(&mut self, _now: u64) -> Option<Start> {
        None
    }

    fn opening(&mut self, _now: u64, _id: u32, _state: &mut ServerState) {}

    fn asked(&mut self, _now: u64, _id: u32, _state: &mut ServerState) -> Do {
        Do::Nothing
    }

    fn opened(&mut self, _now: u64, _id: u32, state: &mut ServerState) -> Do {
        *state = ServerState::default();
        Do::Nothing
    }

    #[inline]
    fn receive(&mut self, _now: u64, _id: u32, state: &mut ServerState, bytes: &[u8]) -> Do {
        match state.head.take() {
            None => self.bytes(state, bytes),
            Some(head) => {
                let head = [&head, bytes].concat();
                self.bytes(state, &head)
            }
        }
    }

    #[inline]
    fn fill(&self, state: &ServerState, offset: u32, out: &mut [u8]) {
        self.response.fill(&state.nonce, offset as usize, out);
    }

    fn ended(&mut self, _now: u64, _id: u32, state: &mut ServerState) -> Do {
        if state.head.is_some() || state.came < state.body {
            self.counters.truncated += 1;
            return Do::Abort;
        }
        Do::Close
    }

    fn gone(&mut self, _now: u64, _id: u32, state: &mut ServerState, how: Gone) {
        if how == Gone::Reset && (state.head.is_some() || state.came < state.body) {
            self.counters.truncated += 1;
        }
        *state = ServerState::default();
    }

    fn deadline(&self, _state: &ServerState) -> u64 {
        u64::MAX
    }

    fn expired(&mut self, _now: u64, _id: u32, _state: &mut ServerState) -> Do {
        Do::Nothing
    }
}
