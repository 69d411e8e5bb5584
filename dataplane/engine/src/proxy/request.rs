//! A request's head: read, refused or routed, and encoded for a backend.

use std::net::IpAddr;

use pmd::Lane;
use proto::http1::{
    self, BodyDecoder, ForwardOptions, ForwardedFor as HttpForwardedFor, Framing, Limits, RequestChanges, RequestHead,
    parse_request,
};
use tables::access::{AccessLevel, Flag, cut};
use tables::{EndpointTable, ForwardedFor, HttpSettings, Request, Routed, SeriesId, Snapshot};

use super::client::{Choice, Client, Phase};
use super::reply::{ABOUT_US, Refusal};
use super::{Context, Proxy, Step};
use crate::clock::Instant;
use crate::stack::Status;

impl Proxy {
    /// Reads the head of the next request, as far as it is there.
    pub(super) fn read_head<L: Lane>(&mut self, cx: &mut Context<'_, L>, client: &mut Client) -> Step {
        let id = client.id;
        let now = cx.net.now;
        let http = &cx.snapshot.http;
        let status = cx.stack.status(id);
        let readable = cx.stack.readable(id);
        let over = !matches!(status, Status::Open);
        if readable == 0 {
            if let Status::Ended(_) | Status::Unknown = status {
                cx.stack.abort(id);
                return Step::Gone;
            }
            if over || cx.draining || client.bind(cx.snapshot).is_none() {
                cx.stack.close(id, now, http.linger_timeout);
                return Step::Gone;
            }
            return Step::Wait(client.idle_since + http.idle_timeout);
        }
        if client.started == Instant::NEVER {
            client.started = now;
        }
        let full = cx.stack.is_full(id);
        let front = cx.stack.front(id).len();
        // In one piece nearly always: the ring is empty, and starts over, whenever a request was taken whole.
        let mut input = core::mem::take(&mut self.input);
        let bytes = if front == readable {
            cx.stack.front(id)
        } else {
            cx.stack.copy_front(id, &mut input);
            &input
        };
        // Nearly every head comes whole: it is parsed at once, and looked through for its end only when that was too early.
        let complete = client.searched == 0 || http1::head_end(bytes, client.searched).is_some();
        client.searched = bytes.len();
        // A head that comes in small pieces is looked at when it is complete, and for faults whenever it has doubled:
        // so that it costs a constant per byte, and a fault is still found early.
        let parsed = if !complete && !full && client.checked > 0 && bytes.len() < client.checked * 2 {
            Ok(None)
        } else {
            client.checked = bytes.len();
            match parse_request(bytes, &limits(http)) {
                Ok(Some(head)) => Ok(Some(self.begin(cx.snapshot, cx.endpoints, cx.draining, client, &head, now))),
                Ok(None) => Ok(None),
                Err(rejection) => Err(rejection),
            }
        };
        self.input = input;
        match parsed {
            Ok(None) if full => self.reject(cx, client, http1::Rejection::HeadTooLarge),
            Ok(None) => incomplete(cx, client, over),
            Err(rejection) => self.reject(cx, client, rejection),
            Ok(Some(Err(refusal))) => {
                self.start(cx, client);
                self.refuse(cx, client, refusal)
            }
            Ok(Some(Ok(()))) => {
                self.start(cx, client);
                if client.changed.is_some() {
                    self.start_mirrors(cx, client);
                }
                self.dispatch(cx, client, true)
            }
        }
    }

    /// Refuses a head that is no request.
    fn reject<L: Lane>(&mut self, cx: &mut Context<'_, L>, client: &mut Client, rejection: http1::Rejection) -> Step {
        self.start_refused(cx, client);
        self.refuse(cx, client, Refusal::new(rejection.status(), Flag::Rejected, rejection.detail()))
    }

    /// Counts a request that will be refused before its listener is known.
    pub(super) fn start_refused<L: Lane>(&mut self, cx: &Context<'_, L>, client: &mut Client) {
        let bind = client.bind(cx.snapshot).and_then(|bind| cx.snapshot.binds().get(bind.0 as usize));
        if let Some(bind) = bind {
            client.exchange.series = bind.unmatched;
        }
        self.start(cx, client);
    }

    /// Notes what the head says, finds its rule and target, and encodes it for the backend.
    fn begin(
        &mut self,
        snapshot: &Snapshot,
        endpoints: &EndpointTable,
        draining: bool,
        client: &mut Client,
        head: &RequestHead<'_>,
        now: Instant,
    ) -> Result<(), Refusal> {
        let http = &snapshot.http;
        let bind = client.bind(snapshot);
        let last = draining || http.max_age.is_some_and(|age| client.is_old(age, now));
        let exchange = &mut client.exchange;
        exchange.method = head.method;
        exchange.version = head.version;
        exchange.keep_alive = head.keep_alive && !last;
        exchange.wants_upgrade = head.upgrade.is_some();
        exchange.framing = head.framing;
        exchange.body = BodyDecoder::new(head.framing);
        exchange.request_done = exchange.body.is_complete();
        exchange.head_held = head.len;
        exchange.request_bytes = head.len as u64;
        exchange.progress = now;
        exchange.until = http.request_timeout.map_or(Instant::NEVER, |timeout| client.started + timeout);
        if http.access != AccessLevel::None {
            let mut words = self.spare_words.pop().unwrap_or_default();
            words.method = cut(head.method_bytes);
            words.authority = cut(head.authority);
            words.target = cut(head.target);
            client.words = Some(words);
        }
        if let (Framing::Length(length), Some(limit)) = (head.framing, http.max_body)
            && length > limit
        {
            return Err(Refusal::new(413, Flag::Rejected, "body_too_large"));
        }
        let Some(bind) = bind else {
            exchange.keep_alive = false;
            return Err(Refusal::new(404, Flag::NoRoute, "listener_removed"));
        };
        // About us by its target, or because it may go no further (RFC 9110 §7.6.2).
        if head.path == b"*" || head.max_forwards() == Some(0) {
            exchange.series = snapshot.binds().get(bind.0 as usize).map_or(SeriesId(0), |bind| bind.unmatched);
            return Err(Refusal::new(200, Flag::Filter, ABOUT_US));
        }
        self.route((snapshot, endpoints), client, head, now, true)
    }

    /// Finds a request's rule and target, and encodes it for the backend. `counts` says whether it has to pass its rule's limits.
    #[inline]
    fn route(
        &mut self,
        (snapshot, endpoints): (&Snapshot, &EndpointTable),
        client: &mut Client,
        head: &RequestHead<'_>,
        now: Instant,
        counts: bool,
    ) -> Result<(), Refusal> {
        let Some(bind) = client.bind(snapshot) else {
            return Err(Refusal::new(404, Flag::NoRoute, "listener_removed"));
        };
        let exchange = &mut client.exchange;
        let request = Request {
            method: head.method_bytes,
            path: head.path,
            query: head.query,
            fields: head.fields.iter().map(|field| (field.name, field.value)),
        };
        let (index, rule) = match snapshot.route(bind, head.host, &request) {
            Routed::Rule(index, rule) => (index, rule),
            Routed::Nothing(series) => {
                exchange.series = series;
                return Err(Refusal::new(404, Flag::NoRoute, "no_route"));
            }
        };
        if let Some((_, series)) = snapshot.plain_target(index) {
            // Nothing of the rule itself is looked at: with thousands of them, it is in no cache.
            exchange.choose(Choice { epoch: snapshot.epoch, rule: index, target: 0 }, None, &mut self.pins);
            exchange.series = series;
            self.encode(&snapshot.http, client, head);
            return Ok(());
        }
        exchange.series = rule.unserved;
        if let Some(timeout) = rule.request_timeout {
            exchange.until = client.started + timeout;
        }
        if let Some(limits) = rule.limits.as_ref().filter(|_| counts) {
            self.limiter.admit(snapshot, limits, client.remote.ip(), head, now).map_err(Refusal::limited)?;
        }
        if let Some(filters) = &rule.filters {
            return self.begin_filtered((snapshot, endpoints), client, head, (index, rule), filters);
        }
        let Some(target) = self.target((snapshot, endpoints), client, head, rule) else {
            return Err(Refusal::new(500, Flag::NoBackend, "no_backend"));
        };
        let exchange = &mut client.exchange;
        let choice = Choice { epoch: snapshot.epoch, rule: index, target: target as u32 };
        exchange.choose(choice, rule.backend_timeout, &mut self.pins);
        if let Some(target) = rule.targets.get(target) {
            exchange.series = target.series;
        }
        self.encode(&snapshot.http, client, head);
        Ok(())
    }

    /// The tables that a request began under were given up, because more epochs are in use than tables are held. Nobody was told anything of it
    /// yet, and it is here still: it is routed by the tables of now, as if it had come now, but for limits that it has passed and copies that were
    /// made of it.
    #[cold]
    pub(super) fn begin_again<L: Lane>(&mut self, cx: &mut Context<'_, L>, client: &mut Client) -> Step {
        let (snapshot, endpoints, now) = (cx.snapshot, cx.endpoints, cx.net.now);
        let (left, copies) = (client.attempts_left(), client.changed.as_mut().map(|changed| changed.copies.take()));
        if let Some(mut changed) = client.changed.take() {
            changed.clear();
            self.spare_changed.push(changed);
        }
        client.exchange.pinned = false;
        cx.stack.copy_front(client.id, &mut self.input);
        let input = core::mem::take(&mut self.input);
        let routed = match parse_request(&input, &limits(&snapshot.http)) {
            Ok(Some(head)) if client.exchange.head_held > 0 => {
                self.route((snapshot, endpoints), client, &head, now, false)
            }
            // What was sent is not here any more, and is not sent twice either.
            _ => Err(Refusal::new(503, Flag::NoEndpoint, "configuration_changed")),
        };
        self.input = input;
        client.limit_attempts(left.unwrap_or(0));
        let copies = copies.unwrap_or_default();
        match &mut client.changed {
            Some(changed) => {
                changed.wanted.clear();
                changed.copies = copies;
            }
            None => copies.into_iter().for_each(|id| self.lose(cx, id)),
        }
        match routed {
            Ok(()) => self.dispatch(cx, client, true),
            Err(refusal) => self.refuse(cx, client, refusal),
        }
    }

    pub(super) fn encode(&mut self, http: &HttpSettings, client: &Client, head: &RequestHead<'_>) {
        self.out.clear();
        http1::encode_request(head, &forward_options(http, client.remote.ip(), None), &mut self.out);
    }

    /// Counts a request that has begun.
    fn start<L: Lane>(&mut self, cx: &Context<'_, L>, client: &mut Client) {
        client.phase = Phase::Exchange;
        self.active += 1;
        cx.net.counters.requests_started.add(1);
    }
}

/// How a request is changed on its way.
pub(super) fn forward_options<'a>(
    http: &'a HttpSettings,
    client: IpAddr,
    changes: Option<&'a RequestChanges<'a>>,
) -> ForwardOptions<'a> {
    ForwardOptions {
        client,
        scheme: SCHEME,
        forwarded_for: match http.forwarded_for {
            ForwardedFor::Append => HttpForwardedFor::Append,
            ForwardedFor::Replace => HttpForwardedFor::Replace,
            ForwardedFor::None => HttpForwardedFor::None,
        },
        via: http.via.as_deref(),
        // HTTP/1.0 without Host: an empty one says that there is none (RFC 9112 §3.2).
        default_authority: "",
        changes,
    }
}

/// What all clients speak.
pub(super) const SCHEME: &str = "http";

/// A head that is not complete.
fn incomplete<L: Lane>(cx: &mut Context<'_, L>, client: &Client, over: bool) -> Step {
    if over {
        // The client closed in the middle of it: nobody waits for an answer.
        cx.stack.close(client.id, cx.net.now, cx.snapshot.http.linger_timeout);
        return Step::Gone;
    }
    Step::Wait(client.started + cx.snapshot.http.head_timeout)
}

pub(super) fn limits(http: &HttpSettings) -> Limits {
    Limits { target: http.max_target as usize, head: http.max_head as usize, fields: http.max_fields as usize }
}
