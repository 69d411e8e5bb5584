//! One client connection, and the request that it is at.

use core::time::Duration;
use std::net::SocketAddr;

use arrayvec::ArrayVec;
use proto::http1::{BodyDecoder, Framing, Method, Version};
use tables::access::{TARGET_BYTES, WORD_BYTES};
use tables::filter::{MAX_RETRY_CODES, Retry};
use tables::{BindId, EndpointId, Epoch, SeriesId, Snapshot};

use super::mirror::{Copies, Wanted};
use super::pins::Pins;
use crate::balance::Wish;
use crate::clock::Instant;
use crate::stack::ConnectionId;

/// A client connection.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) id: ConnectionId,
    /// Where it connected to.
    pub(super) local: SocketAddr,
    /// Where it came from.
    pub(super) remote: SocketAddr,
    /// The bind of `local` in the snapshot of that epoch.
    bind: Option<(Epoch, Option<BindId>)>,
    pub(super) phase: Phase,
    /// Bytes of the head that were searched for its end.
    pub(super) searched: usize,
    /// Bytes of the head that the parser saw without finding a fault.
    pub(super) checked: usize,
    /// When the first byte of the request came; [`Instant::NEVER`] before.
    pub(super) started: Instant,
    /// When the connection was accepted.
    opened: Instant,
    /// When the connection became idle.
    pub(super) idle_since: Instant,
    /// What the timer is armed for.
    pub(super) armed: Instant,
    pub(super) exchange: Exchange,
    pub(super) words: Option<Box<Words>>,
    /// What the route's filters made of the request. Requests without filters have none.
    pub(super) changed: Option<Box<Changed>>,
}

/// A request as filters changed it, and what they will do with its response: copied, so that it holds in every later
/// snapshot, too.
#[derive(Debug, Default)]
pub(super) struct Changed {
    /// The head as it goes to the backend.
    pub(super) head: Vec<u8>,
    /// Names of response fields to be taken out, in lower case, each with a line feed behind it.
    pub(super) strip: Vec<u8>,
    /// Response field lines to be put in, each with its CRLF.
    pub(super) append: Vec<u8>,
    /// Where copies of the request will go.
    pub(super) wanted: Wanted,
    /// Copies of the request that want its body.
    pub(super) copies: Copies,
    /// What its route says of further attempts.
    pub(super) retries: Option<Retries>,
}

/// Further attempts of a request.
#[derive(Debug)]
pub(super) struct Retries {
    codes: ArrayVec<u16, MAX_RETRY_CODES>,
    left: u8,
    backoff: Duration,
    /// When the next one is due; `None` while one is under way.
    at: Option<Instant>,
}

impl Retries {
    pub(super) fn new(retry: &Retry) -> Self {
        let codes = retry.codes.iter().copied().take(MAX_RETRY_CODES).collect();
        Self { codes, left: retry.attempts, backoff: retry.backoff, at: None }
    }
}

impl Changed {
    /// What is kept for the next request.
    const KEPT: usize = 4096;

    /// Makes it one of another request.
    pub(super) fn clear(&mut self) {
        for part in [&mut self.head, &mut self.strip, &mut self.append] {
            part.clear();
            part.shrink_to(Self::KEPT);
        }
        self.wanted.clear();
        self.copies.clear();
        self.retries = None;
    }
}

/// What the access log says of a request, beside numbers. Idle connections have none.
#[derive(Debug, Default)]
pub(super) struct Words {
    pub(super) method: ArrayVec<u8, WORD_BYTES>,
    pub(super) authority: ArrayVec<u8, WORD_BYTES>,
    pub(super) target: ArrayVec<u8, TARGET_BYTES>,
}

/// What a client connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It waits for a request, or for the rest of one's head.
    Head,
    /// It is being served.
    Exchange,
    /// It is a tunnel: bytes pass both ways as they are.
    Tunnel,
}

/// One request and its response.
#[derive(Debug)]
pub(super) struct Exchange {
    /// The backend connection, established or not.
    pub(super) upstream: Option<ConnectionId>,
    /// Its endpoint.
    pub(super) endpoint: Option<(EndpointId, SocketAddr)>,
    /// Position of the rule in its snapshot, and of the target in the rule.
    pub(super) choice: Option<Choice>,
    /// The snapshot of `choice` is kept for it, as long as it is not one of too many.
    pub(super) pinned: bool,
    /// `timeouts.backendRequest` of its rule.
    pub(super) backend_timeout: Option<Duration>,
    pub(super) series: SeriesId,
    /// What it says about its endpoint.
    pub(super) wish: Wish,
    /// The tag that its response has to set in the session cookie; 0 for none.
    pub(super) new_session: u64,
    /// The backend's latency is of interest to the balancer.
    pub(super) observed: bool,
    /// Connections tried before this one.
    pub(super) attempt: u8,
    /// The backend connection served a request before this one.
    pub(super) reused: bool,

    pub(super) method: Method,
    pub(super) version: Version,
    /// The client would send another request on this connection.
    pub(super) keep_alive: bool,
    /// The client asked for another protocol.
    pub(super) wants_upgrade: bool,
    /// How the request's body is framed, on both sides.
    pub(super) framing: Framing,
    /// Bytes of the request's head at the front of the client's buffer; 0 once consumed. While they are there, the request
    /// can be sent again.
    pub(super) head_held: usize,
    pub(super) head_sent: bool,
    pub(super) body: BodyDecoder,
    pub(super) request_done: bool,

    /// Bytes of the response's head that were searched for its end.
    pub(super) response_searched: usize,
    pub(super) interim: u8,
    /// The response's body, once its head was sent.
    pub(super) response: Option<BodyDecoder>,
    /// How the body is framed towards the client.
    pub(super) response_framing: Framing,
    /// The backend connection can serve another request.
    pub(super) upstream_keep: bool,
    /// The client's connection ends with this response.
    pub(super) close: bool,
    pub(super) status: u16,

    pub(super) connecting_since: Instant,
    pub(super) sent_at: Instant,
    /// When a byte of the exchange last moved.
    pub(super) progress: Instant,
    /// From sending to the first byte of the response, in nanoseconds.
    pub(super) backend_ns: u64,
    /// The end of everything, by the route's or the listener's timeout.
    pub(super) until: Instant,
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
    pub(super) body_bytes: u64,
}

/// Which rule of which snapshot serves a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice {
    pub(super) epoch: Epoch,
    pub(super) rule: u32,
    pub(super) target: u32,
}

impl Client {
    pub(super) fn new() -> Self {
        let nobody = SocketAddr::from(([0, 0, 0, 0], 0));
        Self {
            id: ConnectionId(u32::MAX),
            local: nobody,
            remote: nobody,
            bind: None,
            phase: Phase::Head,
            searched: 0,
            checked: 0,
            started: Instant::NEVER,
            opened: Instant::default(),
            idle_since: Instant::default(),
            armed: Instant::NEVER,
            exchange: Exchange::new(),
            words: None,
            changed: None,
        }
    }

    /// Makes it the client of a new connection.
    pub(super) fn begin(&mut self, id: ConnectionId, local: SocketAddr, remote: SocketAddr, now: Instant) {
        self.id = id;
        self.local = local;
        self.remote = remote;
        self.bind = None;
        self.opened = now;
        self.armed = Instant::NEVER;
        self.await_request(now);
    }

    /// Whether the connection has lived for `age`, give or take a tenth: what was opened together does not come back together.
    pub(super) fn is_old(&self, age: Duration, now: Instant) -> bool {
        let drawn = (self.opened.0 ^ u64::from(self.remote.port()) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
        let part = age / 10;
        now.since(self.opened)
            >= u64::try_from((age - part + part * 2 * drawn as u32 / 255).as_nanos()).unwrap_or(u64::MAX)
    }

    /// When the connection was accepted.
    pub(super) fn opened(&self) -> Instant {
        self.opened
    }

    /// The bind that it came in by, looked up once an epoch.
    #[inline]
    pub(super) fn bind(&mut self, snapshot: &Snapshot) -> Option<BindId> {
        match self.bind {
            Some((epoch, bind)) if epoch == snapshot.epoch => bind,
            _ => {
                let bind = snapshot.bind(self.local);
                self.bind = Some((snapshot.epoch, bind));
                bind
            }
        }
    }

    /// Whether the request can and may be sent once more: it is still here, and nobody was told anything.
    pub(super) fn can_retry(&self) -> bool {
        let exchange = &self.exchange;
        let left = self.retries().is_some_and(|retries| retries.left > 0);
        left && exchange.head_held > 0 && exchange.interim == 0 && !exchange.answered()
    }

    /// Whether an answer with that status is one to be tried again.
    pub(super) fn retries_status(&self, status: u16) -> bool {
        self.retries().is_some_and(|retries| retries.codes.contains(&status)) && self.can_retry()
    }

    /// When the next attempt is due, if that is what it waits for.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retries()?.at
    }

    /// Notes that the next attempt begins after the back-off.
    pub(super) fn await_retry(&mut self, now: Instant) {
        if let Some(retries) = self.changed.as_mut().and_then(|changed| changed.retries.as_mut()) {
            retries.left = retries.left.saturating_sub(1);
            retries.at = Some(now + retries.backoff);
        }
        self.exchange.attempt = self.exchange.attempt.saturating_add(1);
        self.exchange.head_sent = false;
        self.exchange.response_searched = 0;
        self.exchange.backend_ns = 0;
    }

    /// Notes that the next attempt has begun.
    pub(super) fn begin_retry(&mut self) {
        if let Some(retries) = self.changed.as_mut().and_then(|changed| changed.retries.as_mut()) {
            retries.at = None;
        }
    }

    fn retries(&self) -> Option<&Retries> {
        self.changed.as_ref()?.retries.as_ref()
    }

    /// What is left of its further attempts, where its route is looked up once more.
    pub(super) fn attempts_left(&self) -> Option<u8> {
        self.retries().map(|retries| retries.left)
    }

    /// No more attempts than these.
    pub(super) fn limit_attempts(&mut self, left: u8) {
        if let Some(retries) = self.changed.as_mut().and_then(|changed| changed.retries.as_mut()) {
            retries.left = retries.left.min(left);
        }
    }

    /// Makes it wait for the next request.
    pub(super) fn await_request(&mut self, now: Instant) {
        self.phase = Phase::Head;
        self.searched = 0;
        self.checked = 0;
        self.started = Instant::NEVER;
        self.idle_since = now;
        self.exchange.reset();
    }
}

impl Exchange {
    fn new() -> Self {
        Self {
            upstream: None,
            endpoint: None,
            choice: None,
            pinned: false,
            backend_timeout: None,
            series: SeriesId(0),
            wish: Wish::default(),
            new_session: 0,
            observed: false,
            attempt: 0,
            reused: false,
            method: Method::Other,
            version: Version::Http11,
            keep_alive: false,
            wants_upgrade: false,
            framing: Framing::None,
            head_held: 0,
            head_sent: false,
            body: BodyDecoder::new(Framing::None),
            request_done: false,
            response_searched: 0,
            interim: 0,
            response: None,
            response_framing: Framing::None,
            upstream_keep: false,
            close: false,
            status: 0,
            connecting_since: Instant::default(),
            sent_at: Instant::default(),
            progress: Instant::default(),
            backend_ns: 0,
            until: Instant::NEVER,
            request_bytes: 0,
            response_bytes: 0,
            body_bytes: 0,
        }
    }

    /// Forgets the last request.
    pub(super) fn reset(&mut self) {
        *self = Self::new();
    }

    /// Notes which rule serves the request. Its snapshot is kept until the response begins.
    #[inline]
    pub(super) fn choose(&mut self, choice: Choice, backend_timeout: Option<Duration>, pins: &mut Pins) {
        self.choice = Some(choice);
        self.backend_timeout = backend_timeout;
        self.pinned = true;
        pins.pin();
    }

    /// The epoch that it began under; `None` where it was refused before that mattered.
    #[inline]
    pub(super) fn epoch(&self) -> Option<Epoch> {
        self.choice.map(|choice| choice.epoch)
    }

    /// The response has begun: its head is on its way to the client.
    pub(super) fn answered(&self) -> bool {
        self.response.is_some()
    }
}
