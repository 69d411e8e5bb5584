//! The clients: they ask, and check every reply.
//!
//! Closed loop: each connection asks again as soon as it has its reply. Open loop: requests are due at fixed times, whatever the
//! gateway does, and their latency counts from then on, also while they wait for a free connection; so a gateway that stalls
//! cannot hide it (coordinated omission).

use std::collections::VecDeque;

use hdrhistogram::Histogram;

use crate::endpoint::{App, Do, Gone, Start};
use crate::message::{Message, NONCE, Reader, body_holds, digits};

/// Idle connections that are being opened at the same time, well below what a gateway admits half-open.
const OPENING: u32 = 256;

/// Nanoseconds until a refused connection is tried again.
const RETRY: u64 = 100_000_000;

/// Latencies above this many nanoseconds count as this: a minute.
const LONGEST: u64 = 60_000_000_000;

/// What the clients do.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Connections that ask.
    pub busy: u32,
    /// Connections that ask once and are held.
    pub idle: u32,
    /// A connection for each request.
    pub close: bool,
    /// Requests a second, at fixed times; `None` is a closed loop.
    pub rate: Option<f64>,
    /// Requests, used in turn. Each is shorter than 4 GiB.
    pub requests: Vec<Message>,
    /// Bytes of a reply's body.
    pub reply: u64,
    /// Nanoseconds after which a reply is missing.
    pub timeout: u64,
}

/// What can be wrong with a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// Another client's.
    Swapped,
    /// One that came before.
    Repeated,
    /// Bytes that no request asked for.
    Unasked,
    /// Cut short.
    Truncated,
    /// None in time, or its connection ended before.
    Missing,
    /// Not 200.
    Status,
    /// A length that was not asked for.
    Length,
    /// A body that is not the backend's.
    Body,
    /// No HTTP.
    Malformed,
    /// No connection.
    Connect,
    /// A connection that should have been closed behind its reply, and was not.
    Unclosed,
}

impl Wrong {
    /// All, in the order of [`ClientCounters::wrong`].
    pub const ALL: [(Self, &'static str); 11] = [
        (Self::Swapped, "swapped"),
        (Self::Repeated, "repeated"),
        (Self::Unasked, "unasked"),
        (Self::Truncated, "truncated"),
        (Self::Missing, "missing"),
        (Self::Status, "status"),
        (Self::Length, "length"),
        (Self::Body, "body"),
        (Self::Malformed, "malformed"),
        (Self::Connect, "connect"),
        (Self::Unclosed, "unclosed"),
    ];
}

/// What the clients counted, over the whole run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClientCounters {
    /// Requests begun.
    pub requests: u64,
    /// Replies that were right.
    pub replies: u64,
    /// Replies that were not, by [`Wrong`].
    pub wrong: [u64; Wrong::ALL.len()],
    /// Connections that the gateway closed although they could have been used again.
    pub closed_early: u64,
    /// Connections that were opened to be held idle, and had their reply.
    pub idle: u32,
    /// Connections that were to be held idle, and did not get that far.
    pub idle_refused: u32,
    /// Of those held idle, what answered once more at the end.
    pub idle_answered: u32,
}

impl ClientCounters {
    /// All that was wrong.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.wrong.iter().sum()
    }

    /// How often this was wrong.
    #[must_use]
    pub fn of(&self, wrong: Wrong) -> u64 {
        self.wrong.get(wrong as usize).copied().unwrap_or(0)
    }
}

/// What the clients measured.
#[derive(Debug)]
pub struct Measured {
    /// Replies.
    pub replies: u64,
    /// Bytes of their bodies.
    pub reply_bytes: u64,
    /// Bytes of their requests' bodies.
    pub request_bytes: u64,
    /// Latencies in nanoseconds.
    pub latency: Histogram<u64>,
    /// Of these, the ones in which [`Client::disturbed`] never happened.
    pub undisturbed: Histogram<u64>,
    /// Replies in each second, the last of which may be cut short.
    pub seconds: Vec<u64>,
}

impl Default for Measured {
    fn default() -> Self {
        Self {
            replies: 0,
            reply_bytes: 0,
            request_bytes: 0,
            latency: histogram(),
            undisturbed: histogram(),
            seconds: Vec::new(),
        }
    }
}

impl Measured {
    /// Adds what was measured at another time.
    pub fn add(&mut self, other: &Self) {
        self.replies += other.replies;
        self.reply_bytes += other.reply_bytes;
        self.request_bytes += other.request_bytes;
        // Of the same bounds.
        let _ = self.latency.add(&other.latency);
        let _ = self.undisturbed.add(&other.undisturbed);
        self.seconds.extend(&other.seconds);
    }
}

/// The clients' half of the load.
#[derive(Debug)]
pub struct Client {
    options: ClientOptions,
    /// Nanoseconds between two requests of an open loop.
    interval: f64,
    reader: Reader,
    counters: ClientCounters,
    measured: Measured,
    /// When measuring begins and ends.
    window: (u64, u64),
    /// Until when something took this core's time last.
    disturbed: u64,
    /// Of an open loop: what piled up meanwhile has not all been answered.
    recovering: bool,
    /// When the open loop began; `None` before.
    began: Option<u64>,
    issued: u64,
    nonces: u64,
    outstanding: u64,
    /// How many of the requests are used.
    used: usize,
    stopping: bool,
    waiting: bool,
    to_open: VecDeque<u32>,
    refused: VecDeque<(u64, u32)>,
    ready: VecDeque<u32>,
    /// Held connections: whether they are wanted yet, how many were begun, how many are being opened or asked.
    hold: bool,
    next_idle: u32,
    asking_idle: u32,
    /// How many were asked once more; `None` before that is wanted.
    checked_idle: Option<u32>,
}

/// Of one connection.
#[derive(Debug)]
pub struct ClientState {
    phase: Phase,
    nonce: u64,
    previous: u64,
    begun: u64,
    deadline: u64,
    came: u64,
    request: u32,
    /// Of a held connection: it is being opened, or asked.
    asking: bool,
    /// A head that came in parts.
    head: Option<Box<[u8]>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    None,
    Connecting,
    Idle,
    Head,
    Body,
    Closing,
}

impl Default for ClientState {
    fn default() -> Self {
        Self {
            phase: Phase::None,
            nonce: 0,
            previous: 0,
            begun: 0,
            deadline: u64::MAX,
            came: 0,
            request: 0,
            asking: false,
            head: None,
        }
    }
}

impl Client {
    /// Clients that have not begun. Nothing is measured before [`Client::measure`].
    #[must_use]
    pub fn new(options: ClientOptions) -> Self {
        Self {
            interval: options.rate.map_or(0.0, |rate| 1e9 / rate),
            reader: Reader::default(),
            counters: ClientCounters::default(),
            measured: Measured::default(),
            window: (u64::MAX, u64::MAX),
            disturbed: 0,
            recovering: false,
            began: None,
            issued: 0,
            nonces: 0,
            outstanding: 0,
            stopping: false,
            waiting: false,
            to_open: (0..options.busy).collect(),
            used: options.requests.len(),
            refused: VecDeque::new(),
            ready: VecDeque::new(),
            hold: false,
            next_idle: 0,
            asking_idle: 0,
            checked_idle: None,
            options,
        }
    }

    /// Measures what is replied from `from` to `to`.
    pub fn measure(&mut self, from: u64, to: u64) {
        self.window = (from, to);
        self.measured.seconds = vec![0; to.saturating_sub(from).div_ceil(SECOND) as usize];
    }

    /// Something else took this core's time until `now`: what had begun, or was due, by then has waited for that, too. So does what an open loop begins
    /// until everything that had piled up has its reply.
    pub fn disturbed(&mut self, now: u64) {
        self.disturbed = now;
        self.recovering = self.options.rate.is_some();
    }

    /// Uses the first `count` requests in turn, and no others.
    pub fn requests(&mut self, count: usize) {
        self.used = count.min(self.options.requests.len());
    }

    /// Opens nothing until told that everybody is there.
    pub fn begin(&mut self, everybody: bool) {
        self.waiting = !everybody;
    }

    /// Asks nothing more.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Asks again, after [`Client::stop`].
    pub fn resume(&mut self) {
        self.stopping = false;
    }

    /// Requests without a reply so far.
    #[must_use]
    pub fn outstanding(&self) -> u64 {
        self.outstanding
    }

    /// Opens the connections that are to be held idle, beside those that ask.
    pub fn hold(&mut self) {
        self.hold = true;
    }

    /// Whether all connections that are to be held idle were opened, or could not be.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.next_idle >= self.options.idle && self.asking_idle == 0
    }

    /// Asks each connection that is held idle once more; also after [`Client::stop`].
    pub fn check_idle(&mut self) {
        self.checked_idle = Some(0);
    }

    /// Whether each of them has answered or failed to.
    #[must_use]
    pub fn idle_checked(&self) -> bool {
        self.checked_idle.is_none_or(|checked| checked >= self.options.idle) && self.asking_idle == 0
    }

    /// What was counted.
    #[must_use]
    pub fn counters(&self) -> ClientCounters {
        self.counters
    }

    /// What was measured so far; nothing was, then.
    pub fn take_measured(&mut self) -> Measured {
        std::mem::take(&mut self.measured)
    }

    /// What was measured.
    #[must_use]
    pub fn measured(&self) -> &Measured {
        &self.measured
    }

    /// Requests of the open loop that were due and not begun by `now`.
    #[must_use]
    pub fn backlog(&self, now: u64) -> u64 {
        let due = self.began.map_or(0, |began| (now.saturating_sub(began) as f64 / self.interval) as u64);
        if self.options.rate.is_some() { due.saturating_sub(self.issued) } else { 0 }
    }

    /// When the next request of the open loop is due.
    fn due(&mut self, now: u64) -> u64 {
        let began = *self.began.get_or_insert(now);
        began + (self.issued as f64 * self.interval) as u64
    }

    fn ask(&mut self, now: u64, begun: u64, state: &mut ClientState) -> Do {
        self.nonces += 1;
        state.previous = state.nonce;
        // Odd, so that all are different; large, so that they look so.
        state.nonce = self.nonces.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        state.begun = begun;
        state.deadline = now + self.options.timeout;
        state.phase = Phase::Head;
        state.came = 0;
        let count = self.used as u64;
        // As many requests as are configured fit 32 bits.
        state.request = if count > 1 { (self.nonces % count) as u32 } else { 0 };
        self.counters.requests += 1;
        self.outstanding += 1;
        let len = self.options.requests.get(state.request as usize).map_or(1, Message::len);
        Do::Send { len, close: false }
    }

    fn wrong(&mut self, state: &mut ClientState, wrong: Wrong) -> Do {
        if let Some(count) = self.counters.wrong.get_mut(wrong as usize) {
            *count += 1;
        }
        if matches!(state.phase, Phase::Head | Phase::Body) {
            self.outstanding -= 1;
        }
        state.phase = Phase::Idle;
        state.deadline = u64::MAX;
        state.head = None;
        Do::Abort
    }

    fn head(&mut self, now: u64, id: u32, state: &mut ClientState, bytes: &[u8]) -> Do {
        let head = match self.reader.response(bytes) {
            Ok(Some(head)) => head,
            Ok(None) if bytes.len() < 64 << 10 => {
                state.head = Some(bytes.into());
                return Do::Nothing;
            }
            _ => return self.wrong(state, Wrong::Malformed),
        };
        if head.status != 200 {
            return self.wrong(state, Wrong::Status);
        }
        if head.nonce != digits(state.nonce) {
            let repeated = head.nonce == digits(state.previous);
            return self.wrong(state, if repeated { Wrong::Repeated } else { Wrong::Swapped });
        }
        if head.body != self.options.reply {
            return self.wrong(state, Wrong::Length);
        }
        state.phase = Phase::Body;
        state.came = 0;
        self.body(now, id, state, bytes.get(head.len..).unwrap_or_default())
    }

    fn body(&mut self, now: u64, id: u32, state: &mut ClientState, bytes: &[u8]) -> Do {
        let left = usize::try_from(self.options.reply - state.came).unwrap_or(usize::MAX);
        let (part, behind) = bytes.split_at(left.min(bytes.len()));
        if !body_holds(&digits(state.nonce), state.came as usize, part) {
            return self.wrong(state, Wrong::Body);
        }
        state.came += part.len() as u64;
        if state.came < self.options.reply {
            return Do::Nothing;
        }
        self.complete(now, id, state);
        if !behind.is_empty() {
            return self.unasked(state, behind);
        }
        self.next(now, id, state)
    }

    /// Bytes that come while nothing is asked for.
    fn unasked(&mut self, state: &mut ClientState, bytes: &[u8]) -> Do {
        let again = matches!(self.reader.response(bytes), Ok(Some(head)) if head.nonce == digits(state.nonce));
        self.wrong(state, if again { Wrong::Repeated } else { Wrong::Unasked })
    }

    fn complete(&mut self, now: u64, id: u32, state: &mut ClientState) {
        self.outstanding -= 1;
        self.counters.replies += 1;
        state.phase = Phase::Idle;
        state.deadline = u64::MAX;
        if id >= self.options.busy {
            return;
        }
        let (from, to) = self.window;
        if now >= from && now < to {
            let m = &mut self.measured;
            m.replies += 1;
            m.reply_bytes += self.options.reply;
            m.request_bytes += self.options.requests.get(state.request as usize).map_or(0, Message::body);
            let latency = now.saturating_sub(state.begun).min(LONGEST);
            m.latency.saturating_record(latency);
            if state.begun >= self.disturbed {
                m.undisturbed.saturating_record(latency);
            }
            if let Some(second) = m.seconds.get_mut(((now - from) / SECOND) as usize) {
                *second += 1;
            }
        }
    }

    /// What to do behind a reply.
    fn next(&mut self, now: u64, id: u32, state: &mut ClientState) -> Do {
        if id >= self.options.busy {
            self.asking_idle -= 1;
            state.asking = false;
            let count =
                if self.checked_idle.is_some() { &mut self.counters.idle_answered } else { &mut self.counters.idle };
            *count += 1;
            return Do::Nothing;
        }
        if self.options.close {
            state.phase = Phase::Closing;
            state.deadline = now + self.options.timeout;
            return Do::Nothing;
        }
        if self.options.rate.is_some() || self.stopping {
            self.ready.push_back(id);
            return Do::Nothing;
        }
        self.ask(now, now, state)
    }

    /// A connection that was used is no more, or never was.
    fn lost(&mut self, now: u64, id: u32, state: &mut ClientState, how: Gone) {
        if id >= self.options.busy {
            // Held connections are not opened again: that they are gone is the finding.
            if std::mem::take(&mut state.asking) {
                self.asking_idle -= 1;
                self.counters.idle_refused += u32::from(self.checked_idle.is_none());
            }
            return;
        }
        match how {
            Gone::Refused | Gone::TimedOut => self.refused.push_back((now + RETRY, id)),
            _ => self.to_open.push_back(id),
        }
    }
}

const SECOND: u64 = 1_000_000_000;

fn histogram() -> Histogram<u64> {
    // Three digits up to a minute: constants that the crate accepts.
    Histogram::new_with_bounds(1, LONGEST, 3).unwrap_or_else(|_| unreachable!("constant bounds"))
}

impl App for Client {
    type State = ClientState;

    #[inline]
    fn start(&mut self, now: u64) -> Option<Start> {
        if let Some(checked) = &mut self.checked_idle
            && *checked < self.options.idle
            && self.asking_idle < OPENING
        {
            *checked += 1;
            return Some(Start::Ask(self.options.busy + *checked - 1));
        }
        if self.stopping || self.waiting {
            return None;
        }
        if self.hold && self.next_idle < self.options.idle && self.asking_idle < OPENING {
            self.asking_idle += 1;
            self.next_idle += 1;
            return Some(Start::Open(self.options.busy + self.next_idle - 1));
        }
        if self.refused.front().is_some_and(|(at, _)| *at <= now)
            && let Some((_, id)) = self.refused.pop_front()
        {
            self.to_open.push_back(id);
        }
        if self.options.rate.is_none() {
            let resumed = |ready: &mut VecDeque<u32>| ready.pop_front().map(Start::Ask);
            return self.to_open.pop_front().map(Start::Open).or_else(|| resumed(&mut self.ready));
        }
        if self.recovering {
            self.disturbed = now;
            self.recovering = self.outstanding > 0 || self.backlog(now) > 0;
        }
        if !self.options.close {
            if let Some(id) = self.to_open.pop_front() {
                return Some(Start::Open(id));
            }
            if self.ready.is_empty() {
                return None;
            }
        }
        if self.due(now) > now {
            return None;
        }
        if self.options.close {
            self.to_open.pop_front().map(Start::Open)
        } else {
            self.ready.pop_front().map(Start::Ask)
        }
    }

    fn opening(&mut self, now: u64, id: u32, state: &mut ClientState) {
        let asking = id >= self.options.busy;
        let begun = if self.options.close && self.options.rate.is_some() && !asking { self.due(now) } else { now };
        self.issued += u64::from(self.options.close && !asking);
        *state = ClientState { phase: Phase::Connecting, begun, asking, ..ClientState::default() };
    }

    fn asked(&mut self, now: u64, id: u32, state: &mut ClientState) -> Do {
        if id >= self.options.busy {
            if state.phase != Phase::Idle {
                return Do::Nothing;
            }
            self.asking_idle += 1;
            state.asking = true;
            return self.ask(now, now, state);
        }
        // A closed loop that goes on.
        let due = if self.options.rate.is_some() { self.due(now) } else { now };
        self.issued += 1;
        self.ask(now, due, state)
    }

    fn opened(&mut self, now: u64, id: u32, state: &mut ClientState) -> Do {
        state.phase = Phase::Idle;
        if id >= self.options.busy {
            return self.ask(now, now, state);
        }
        if self.options.close && !self.stopping {
            let begun = state.begun;
            return self.ask(now, begun, state);
        }
        if self.options.rate.is_some() || self.stopping {
            self.ready.push_back(id);
            return Do::Nothing;
        }
        self.ask(now, now, state)
    }

    #[inline]
    fn receive(&mut self, now: u64, id: u32, state: &mut ClientState, bytes: &[u8]) -> Do {
        match state.phase {
            Phase::Body => self.body(now, id, state, bytes),
            Phase::Head => match state.head.take() {
                None => self.head(now, id, state, bytes),
                Some(head) => {
                    let head = [&head, bytes].concat();
                    self.head(now, id, state, &head)
                }
            },
            _ => self.unasked(state, bytes),
        }
    }

    #[inline]
    fn fill(&self, state: &ClientState, offset: u32, out: &mut [u8]) {
        if let Some(request) = self.options.requests.get(state.request as usize) {
            request.fill(&digits(state.nonce), offset as usize, out);
        }
    }

    fn ended(&mut self, _now: u64, _id: u32, state: &mut ClientState) -> Do {
        match state.phase {
            Phase::Head if state.head.is_none() => self.wrong(state, Wrong::Missing),
            Phase::Head | Phase::Body => self.wrong(state, Wrong::Truncated),
            Phase::Closing => Do::Close,
            _ => {
                self.counters.closed_early += 1;
                self.ready.retain(|ready| *ready != _id);
                Do::Close
            }
        }
    }

    fn gone(&mut self, now: u64, id: u32, state: &mut ClientState, how: Gone) {
        match state.phase {
            Phase::Connecting => drop(self.wrong(state, Wrong::Connect)),
            Phase::Head if state.head.is_none() => drop(self.wrong(state, Wrong::Missing)),
            Phase::Head | Phase::Body => drop(self.wrong(state, Wrong::Truncated)),
            Phase::Idle if how != Gone::Closed => self.ready.retain(|ready| *ready != id),
            _ => {}
        }
        state.phase = Phase::None;
        state.deadline = u64::MAX;
        self.lost(now, id, state, how);
    }

    #[inline]
    fn deadline(&self, state: &ClientState) -> u64 {
        state.deadline
    }

    fn expired(&mut self, _now: u64, _id: u32, state: &mut ClientState) -> Do {
        let wrong = match state.phase {
            Phase::Body => Wrong::Truncated,
            Phase::Head if state.head.is_some() => Wrong::Truncated,
            Phase::Closing => Wrong::Unclosed,
            _ => Wrong::Missing,
        };
        self.wrong(state, wrong)
    }
}

const _: () = assert!(NONCE == 16, "a nonce is the digits of 64 bits");
