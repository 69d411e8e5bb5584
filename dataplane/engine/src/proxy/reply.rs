//! Replies of Millrace's own, and the end of every exchange.

use arrayvec::ArrayString;
use pmd::Lane;
use proto::http1::{self, Connection, Method};
use tables::Snapshot;
use tables::access::Flag;

use super::client::{Client, Phase};
use super::sweep::show_epoch;
use super::{Context, Proxy, Role, Step};
use crate::limit::Limited;
use crate::stack::{ConnectionId, Status};

/// What is served at all (RFC 9110 §10.2.1).
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// `OPTIONS *`: a question about the server and none of its resources, which the server that it reaches answers (RFC 9110 §9.3.7); and
/// OPTIONS that may not be forwarded (§7.6.2).
pub(super) const ABOUT_US: &str = "server_options";

/// Why a request is answered here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) flag: Flag,
    pub(super) detail: &'static str,
    /// The rate limit that it is about.
    pub(super) limited: Option<Limited>,
}

impl Refusal {
    pub(super) const fn new(status: u16, flag: Flag, detail: &'static str) -> Self {
        Self { status, flag, detail, limited: None }
    }

    pub(super) const fn limited(limited: Limited) -> Self {
        Self { status: 429, flag: Flag::RateLimited, detail: "rate_limited", limited: Some(limited) }
    }
}

/// What a client learns about the rate limit that it met: when to come back (RFC 9110 §10.2.3), and which limit it is
/// (draft-ietf-httpapi-ratelimit-headers).
struct LimitFields<'s> {
    retry_after: ArrayString<10>,
    policy: &'s str,
    limit: ArrayString<LIMIT_FIELD>,
}

/// A name of 253 bytes, what stands around it, and a number.
const LIMIT_FIELD: usize = 288;

impl<'s> LimitFields<'s> {
    #[cold]
    fn new(snapshot: &'s Snapshot, limited: Limited) -> Option<Self> {
        let limit = snapshot.limits.get(limited.limit.0 as usize)?;
        let mut digits = itoa::Buffer::new();
        let seconds = digits.format(limited.retry_after);
        let mut field = ArrayString::new();
        field.try_push_str(&limit.limit_field).ok()?;
        field.try_push_str(seconds).ok()?;
        Some(Self { retry_after: ArrayString::from(seconds).ok()?, policy: &limit.policy_field, limit: field })
    }

    fn list(&self) -> [(&str, &str); 3] {
        [("Retry-After", &self.retry_after), ("RateLimit-Policy", self.policy), ("RateLimit", &self.limit)]
    }
}

impl Proxy {
    /// Answers the request here, or, where its response has begun already, cuts that short.
    pub(super) fn refuse<L: Lane>(&mut self, cx: &mut Context<'_, L>, client: &mut Client, refusal: Refusal) -> Step {
        self.drop_upstream(cx, client);
        if client.exchange.answered() {
            return self.cut_short(cx, client, refusal.flag, refusal.detail);
        }
        let exchange = &mut client.exchange;
        exchange.status = refusal.status;
        // After a fault nobody knows where the next request begins, and a body that was not read stands in its way.
        let keep = exchange.keep_alive
            && !cx.draining
            && exchange.request_done
            && exchange.head_held > 0
            && refusal.flag != Flag::Rejected;
        let connection = if keep { Connection::KeepAlive } else { Connection::Close };
        let head_only = exchange.method == Method::Head;
        let fields: &[(&str, &str)] = match refusal.status {
            405 => &[("Allow", METHODS)],
            503 => &[("Retry-After", "1")],
            200 if refusal.detail == ABOUT_US => &[("Allow", METHODS)],
            _ => &[],
        };
        let lines = client.changed.as_ref().map_or(&[][..], |changed| &changed.append);
        // What a filter answers says all with its fields.
        let body = if refusal.flag == Flag::Filter { "" } else { refusal.detail };
        let limit_fields = refusal.limited.and_then(|limited| LimitFields::new(cx.snapshot, limited));
        let limit_fields = limit_fields.as_ref().map(LimitFields::list);
        let fields = limit_fields.as_ref().map_or(fields, |list| list.as_slice());
        self.out.clear();
        http1::encode_local(refusal.status, fields, lines, body, connection, head_only, &mut self.out);
        if cx.snapshot.http.epoch_header {
            show_epoch(&mut self.out, exchange.epoch().unwrap_or(cx.snapshot.epoch));
        }
        exchange.response_bytes = self.out.len() as u64;
        cx.stack.send(client.id, &self.out);
        let held = exchange.head_held;
        self.finish(cx, client, refusal.flag, refusal.detail);
        if !keep {
            cx.stack.close(client.id, cx.net.now, cx.snapshot.http.linger_timeout);
            return Step::Gone;
        }
        cx.stack.consume(client.id, held);
        client.await_request(cx.net.now);
        Step::Again
    }

    /// Ends a response that cannot be completed, so that the client cannot take it for whole.
    pub(super) fn cut_short<L: Lane>(
        &mut self,
        cx: &mut Context<'_, L>,
        client: &mut Client,
        flag: Flag,
        detail: &'static str,
    ) -> Step {
        self.drop_upstream(cx, client);
        let until_close = client.exchange.response_framing == http1::Framing::UntilClose;
        self.finish(cx, client, flag, detail);
        if until_close || flag == Flag::ClientTimeout {
            // A FIN would say that this was all.
            cx.stack.abort(client.id);
        } else {
            cx.stack.close(client.id, cx.net.now, cx.snapshot.http.linger_timeout);
        }
        Step::Gone
    }

    /// The client is gone: so is its request.
    pub(super) fn give_up<L: Lane>(&mut self, cx: &mut Context<'_, L>, client: &mut Client) -> Step {
        self.drop_upstream(cx, client);
        if client.exchange.status == 0 {
            // Nobody was told anything; NGINX's code for it.
            client.exchange.status = 499;
        }
        self.finish(cx, client, Flag::ClientGone, "");
        cx.stack.abort(client.id);
        Step::Gone
    }

    /// The response is complete.
    pub(super) fn complete<L: Lane>(&mut self, cx: &mut Context<'_, L>, client: &mut Client) -> Step {
        let exchange = &mut client.exchange;
        // A backend that answers before it has the whole request leaves both connections in the middle of a message.
        let whole = exchange.request_done;
        if let Some(upstream) = exchange.upstream.take() {
            if whole && exchange.upstream_keep {
                self.park(cx, upstream, exchange.epoch().unwrap_or_default());
            } else {
                self.let_go(cx, upstream, !whole);
            }
        }
        let close = client.exchange.close || !whole;
        self.finish(cx, client, Flag::None, "");
        if close {
            cx.stack.close(client.id, cx.net.now, cx.snapshot.http.linger_timeout);
            return Step::Gone;
        }
        client.await_request(cx.net.now);
        Step::Again
    }

    /// Resets the backend connection of an exchange that will not be completed.
    pub(super) fn drop_upstream<L: Lane>(&mut self, cx: &mut Context<'_, L>, client: &mut Client) {
        if let Some(upstream) = client.exchange.upstream.take() {
            self.let_go(cx, upstream, true);
        }
    }

    /// Resets a client because the core stops.
    pub(super) fn stop_client<L: Lane>(&mut self, cx: &mut Context<'_, L>, id: ConnectionId) {
        let Some(role) = self.roles.get_mut(id.0 as usize) else { return };
        let Role::Client(mut client) = core::mem::replace(role, Role::None) else { return };
        self.drop_upstream(cx, &mut client);
        if client.phase != Phase::Head {
            self.finish(cx, &mut client, Flag::Stopped, "");
        }
        cx.stack.abort(id);
        self.retire(cx, client);
    }

    /// Whether the client can still be told anything.
    pub(super) fn client_is_gone<L: Lane>(cx: &Context<'_, L>, client: &Client) -> bool {
        matches!(cx.stack.status(client.id), Status::Ended(_) | Status::Unknown)
    }
}
