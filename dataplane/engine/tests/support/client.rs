//! Clients: connections that send requests and check every byte of the responses.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use engine::stack::{ConnectionId, Ended, Net, Stack, Status};
use pmd::sim::SimLane;

use super::gateway::{LISTENER, fnv};
use super::host::App;
use super::http::{Message, Reader, chunked, pattern};

/// What one connection does.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    pub requests: VecDeque<Request>,
    /// All requests at once, and not each after the response to the one before.
    pub pipelined: bool,
    /// Reads at most so many bytes each time that something happens; the rest stays in the stack.
    pub sip: Option<usize>,
    /// Leaves after something happened so many times: with a reset, or by closing.
    pub leaves: Option<(usize, Leave)>,
}

/// How a client leaves in the middle of what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    Reset,
    Close,
    /// Closes its side only, and goes on reading.
    ShutDown,
}

/// A request and the body that its response has to have; `None` for any.
#[derive(Debug, Clone)]
pub struct Request {
    pub bytes: Vec<u8>,
    pub expect: Option<Vec<u8>>,
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub id: u32,
    /// Responses that came whole.
    pub responses: Vec<Message>,
    /// What came of one that did not: its head, and bytes of its body.
    pub partial: Option<(String, usize)>,
    /// All responses came, and each was what was expected.
    pub good: bool,
    /// How the stack saw it end; `None` for a FIN or our own closing.
    pub ended: Option<Ended>,
}

/// Clients on one host.
pub struct Clients {
    pub plans: VecDeque<Plan>,
    /// Connections at a time.
    pub at_once: usize,
    pub done: Vec<Outcome>,
    pub target: SocketAddr,
    live: BTreeMap<u32, Live>,
}

struct Live {
    plan: Plan,
    reader: Reader,
    waiting: VecDeque<Option<Vec<u8>>>,
    out: Vec<u8>,
    sent: usize,
    responses: Vec<Message>,
    good: bool,
    /// How often something happened.
    events: usize,
}

impl Request {
    fn new(line: &str, fields: &str, body: &[u8], expect: Option<Vec<u8>>) -> Self {
        let mut bytes = format!("{line} HTTP/1.1\r\nHost: sim.example\r\n{fields}\r\n").into_bytes();
        bytes.extend(body);
        Self { bytes, expect }
    }

    /// A GET of `path`, whose response may be anything.
    pub fn any(path: &str) -> Self {
        Self::new(&format!("GET {path}"), "", b"", None)
    }

    /// The same with further field lines, each with its CRLF.
    pub fn with(path: &str, fields: &str) -> Self {
        Self::new(&format!("GET {path}"), fields, b"", None)
    }

    /// A GET whose response has `len` bytes; `kind` is `get`, `chunked` or `close`.
    pub fn get(kind: &str, len: usize, seed: u64) -> Self {
        // The server reads the seed as a number that fits a path.
        let seed = seed & 0xffff_ffff;
        Self::new(&format!("GET /{kind}/{len}/{seed}"), "", b"", Some(pattern(seed, len)))
    }

    /// A POST of `len` bytes, answered with their hash.
    pub fn post(len: usize, seed: u64, in_chunks: bool) -> Self {
        let body = pattern(seed, len);
        let expect = format!("{} {:016x}", len, fnv(0, &body)).into_bytes();
        if in_chunks {
            Self::new("POST /hash", "Transfer-Encoding: chunked\r\n", &chunked(&body, seed), Some(expect))
        } else {
            Self::new("POST /hash", &format!("Content-Length: {len}\r\n"), &body, Some(expect))
        }
    }
}

impl Plan {
    pub fn new(requests: impl IntoIterator<Item = Request>) -> Self {
        Self { requests: requests.into_iter().collect(), ..Self::default() }
    }
}

impl Clients {
    pub fn new(plans: impl IntoIterator<Item = Plan>, at_once: usize) -> Self {
        Self {
            plans: plans.into_iter().collect(),
            at_once,
            done: Vec::new(),
            target: LISTENER.parse().unwrap(),
            live: BTreeMap::new(),
        }
    }

    pub fn is_done(&self) -> bool {
        self.plans.is_empty() && self.live.is_empty()
    }

    /// What the connections that are not done have come to, for messages.
    pub fn unfinished(&self) -> Vec<(u32, usize, usize, Option<usize>)> {
        let show = |(id, live): (&u32, &Live)| {
            (*id, live.waiting.len() + live.plan.requests.len(), live.out.len() - live.sent, {
                live.reader.partial().map(|(_, body)| body.len())
            })
        };
        self.live.iter().map(show).collect()
    }

    fn end(&mut self, id: u32, ended: Option<Ended>) {
        let Some(mut live) = self.live.remove(&id) else { return };
        if ended.is_none()
            && let Some(message) = live.reader.end()
        {
            live.take(message);
        }
        let whole = live.waiting.is_empty() && live.plan.requests.is_empty() && live.reader.is_empty();
        let partial = live.reader.partial().map(|(head, body)| (head.to_owned(), body.len()));
        self.done.push(Outcome { id, responses: live.responses, partial, good: live.good && whole, ended });
    }
}

impl Live {
    fn take(&mut self, message: Message) {
        let expected = self.waiting.pop_front().expect("a response to no request");
        self.good &= expected.is_none_or(|body| body == message.body && message.status() == 200);
        self.responses.push(message);
    }

    /// Queues the next requests.
    fn ask(&mut self) {
        while (self.waiting.is_empty() || self.plan.pipelined)
            && let Some(request) = self.plan.requests.pop_front()
        {
            self.out.extend(request.bytes);
            self.waiting.push_back(request.expect);
        }
    }
}

impl App for Clients {
    fn ready(&mut self, stack: &mut Stack, net: &mut Net<'_, SimLane>, id: ConnectionId) {
        let status = stack.status(id);
        let Some(live) = self.live.get_mut(&id.0) else { return stack.abort(id) };
        let mut bytes = Vec::new();
        stack.copy_front(id, &mut bytes);
        let over = !matches!(status, Status::Open | Status::Opening);
        if let Some(sip) = live.plan.sip.filter(|_| !over) {
            bytes.truncate(sip);
        }
        stack.consume(id, bytes.len());
        live.reader.feed(&bytes);
        while let Some(message) = live.reader.next() {
            live.take(message);
        }
        if let Status::Ended(ended) = status {
            stack.abort(id);
            return self.end(id.0, ended);
        }
        if status == Status::Unknown || status == Status::PeerClosed {
            stack.close(id, net.now, Duration::from_secs(2));
            return self.end(id.0, None);
        }
        if status == Status::Opening {
            return;
        }
        live.events += 1;
        match live.plan.leaves {
            Some((after, how)) if live.events > after => match how {
                Leave::Reset => {
                    stack.abort(id);
                    return self.end(id.0, None);
                }
                Leave::Close => {
                    stack.close(id, net.now, Duration::from_secs(2));
                    return self.end(id.0, None);
                }
                Leave::ShutDown => return stack.shut_down(id),
            },
            _ => {}
        }
        live.ask();
        let n = stack.room(id).min(live.out.len() - live.sent);
        stack.send(id, &live.out[live.sent..live.sent + n]);
        live.sent += n;
        if live.sent == live.out.len() {
            live.out.clear();
            live.sent = 0;
        }
        if live.waiting.is_empty() && live.plan.requests.is_empty() {
            stack.close(id, net.now, Duration::from_secs(2));
            self.end(id.0, None);
        }
    }

    fn tick(&mut self, stack: &mut Stack, net: &mut Net<'_, SimLane>) -> bool {
        let mut any = false;
        while self.live.len() < self.at_once && !self.plans.is_empty() {
            let Ok(id) = stack.connect(net, self.target) else { break };
            let Some(plan) = self.plans.pop_front() else { break };
            let live = Live {
                plan,
                reader: Reader::default(),
                waiting: VecDeque::new(),
                out: Vec::new(),
                sent: 0,
                responses: Vec::new(),
                good: true,
                events: 0,
            };
            self.live.insert(id.0, live);
            any = true;
        }
        any
    }
}
