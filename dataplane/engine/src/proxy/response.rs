//! A backend's response: its head, its body, its end.

use pmd::Lane;
use proto::http1::{
    self, BodyDecoder, Connection, FieldChanges, Framing, ResponseHead, Version, parse_response, response_framing,
};
use tables::access::Flag;

use super::affinity;
use super::client::{Client, Phase};
use super::reply::Refusal;
use super::request::limits;
use super::serve::{Moved, move_body};
use super::sweep::show_epoch;
use super::{Context, Proxy, Step};
use crate::clock::Instant;
use crate::stack::{ConnectionId, Status};

/// What became of a response's head.
enum Head {
    /// An interim response, so many bytes long, which is in `out` if the client is told of it.
    Interim(usize),
    /// The final one, so many bytes long, in `out`.
    Final(usize),
    /// A switch of protocols, so many bytes long, in `out`.
    Switch(usize),
    /// It cannot be passed on.
    Invalid(&'static str),
}

impl Proxy {
    /// Moves what can be moved of the response.
    pub(super) fn respond<L: Lane>(&mut self, cx: &mut Context<'_, L>, client: &mut Client, up: ConnectionId) -> Step {
        if !client.exchange.answered() {
            match self.read_response_head(cx, client, up) {
                Step::Again => {}
                step => return step,
            }
            if client.phase == Phase::Tunnel {
                return Step::Again;
            }
        }
        let chunked = client.exchange.response_framing == Framing::Chunked;
        let Some(body) = client.exchange.response.as_mut() else { return Step::Wait(Instant::NEVER) };
        let (moved, bytes) = move_body(cx, &mut self.out, body, (up, client.id), chunked, None);
        if bytes > 0 {
            client.exchange.response_bytes += bytes;
            client.exchange.progress = cx.net.now;
        }
        match moved {
            Moved::All => self.complete(cx, client),
            Moved::More => Step::Again,
            Moved::Broken(detail) => self.cut_short(cx, client, Flag::BackendInvalid, detail),
            Moved::Stuck => self.response_is_stuck(cx, client, up),
        }
    }

    /// Nothing of the body can be moved: is it that the backend has ended?
    fn response_is_stuck<L: Lane>(&mut self, cx: &mut Context<'_, L>, client: &mut Client, up: ConnectionId) -> Step {
        let status = cx.stack.status(up);
        if status == Status::Open || cx.stack.readable(up) > 0 {
            return Step::Wait(Instant::NEVER);
        }
        let chunked = client.exchange.response_framing == Framing::Chunked;
        let Some(body) = client.exchange.response.as_mut() else { return Step::Wait(Instant::NEVER) };
        // Only a FIN says that a body without a length is complete. A RST says that it is not, unless it comes behind the FIN: from a
        // backend that has forgotten the connection while the client was still reading.
        let clean = cx.stack.peer_finished(up);
        if !clean || body.end_of_input().is_err() {
            return self.cut_short(cx, client, Flag::BackendTruncated, "body_truncated");
        }
        if chunked {
            cx.stack.send(client.id, http1::LAST_CHUNK);
        }
        self.complete(cx, client)
    }

    /// Reads the response's head, as far as it is there, and the interim responses before it.
    fn read_response_head<L: Lane>(&mut self, cx: &mut Context<'_, L>, client: &mut Client, up: ConnectionId) -> Step {
        for _ in 0..=cx.snapshot.http.max_interim {
            let readable = cx.stack.readable(up);
            let ended = !matches!(cx.stack.status(up), Status::Open);
            if readable == 0 {
                return if ended { self.ended_before_head(cx, client) } else { Step::Wait(Instant::NEVER) };
            }
            let full = cx.stack.is_full(up);
            let front = cx.stack.front(up).len();
            let bytes = if front == readable {
                cx.stack.front(up)
            } else {
                cx.stack.copy_front(up, &mut self.input);
                &self.input
            };
            let searched = client.exchange.response_searched;
            client.exchange.response_searched = bytes.len();
            let last = full || ended || bytes.len() > cx.snapshot.http.max_head as usize;
            let parsed = if last || searched == 0 || http1::head_end(bytes, searched).is_some() {
                parse_response(bytes, client.exchange.method, &limits(&cx.snapshot.http))
            } else {
                return Step::Wait(Instant::NEVER);
            };
            let again = matches!(&parsed, Ok(Some(head)) if client.retries_status(head.status));
            if again {
                return self.try_again(cx, client);
            }
            if client.exchange.backend_ns == 0 {
                let exchange = &mut client.exchange;
                exchange.backend_ns = cx.net.now.since(exchange.sent_at).max(1);
                if let (true, Some(endpoint)) = (exchange.observed, exchange.endpoint) {
                    self.balance.observe(endpoint, exchange.backend_ns, cx.net.now);
                }
            }
            let head = match parsed {
                Ok(Some(head)) => {
                    // The last one where its listener is gone.
                    let last = cx.draining || client.bind(cx.snapshot).is_none();
                    forward_head(cx.snapshot.http.via.as_deref(), last, client, &head, &mut self.out)
                }
                Ok(None) if ended => return self.ended_before_head(cx, client),
                Ok(None) if last => Head::Invalid("head_too_large"),
                Ok(None) => return Step::Wait(Instant::NEVER),
                Err(invalid) => Head::Invalid(invalid.detail()),
            };
            let len = match head {
                Head::Invalid(detail) => {
                    return self.refuse(cx, client, Refusal::new(502, Flag::BackendInvalid, detail));
                }
                Head::Interim(len) | Head::Final(len) | Head::Switch(len) => len,
            };
            if client.exchange.new_session != 0 && !matches!(head, Head::Interim(_)) {
                self.begin_session(cx, client);
            }
            cx.stack.consume(up, len);
            if cx.snapshot.http.epoch_header && !matches!(head, Head::Interim(_)) {
                show_epoch(&mut self.out, client.exchange.epoch().unwrap_or_default());
            }
            client.exchange.response_searched = 0;
            client.exchange.response_bytes += self.out.len() as u64;
            client.exchange.progress = cx.net.now;
            if let Head::Interim(_) = head {
                client.exchange.interim += 1;
                if client.exchange.interim > cx.snapshot.http.max_interim {
                    let refusal = Refusal::new(502, Flag::BackendInvalid, "too_many_interim_responses");
                    return self.refuse(cx, client, refusal);
                }
            }
            if !self.out.is_empty() {
                cx.stack.send(client.id, &self.out);
            }
            match head {
                Head::Final(_) | Head::Switch(_) => {
                    cx.stack.consume(client.id, client.exchange.head_held);
                    client.exchange.head_held = 0;
                    self.unpin(client);
                    if let Head::Switch(_) = head {
                        client.phase = Phase::Tunnel;
                        self.tunnels += 1;
                    }
                    return Step::Again;
                }
                Head::Interim(_) | Head::Invalid(_) => {}
            }
        }
        self.refuse(cx, client, Refusal::new(502, Flag::BackendInvalid, "too_many_interim_responses"))
    }

    /// Has the client come back to the endpoint that served it.
    fn begin_session<L: Lane>(&mut self, cx: &Context<'_, L>, client: &Client) {
        let cluster = client.exchange.choice.and_then(|choice| {
            let tables = cx.tables(choice.epoch)?;
            tables.target_cluster(choice.rule, choice.target).map(|(_, cluster)| cluster)
        });
        let affinity = cluster.and_then(|cluster| cluster.affinity.as_deref());
        // Where its tables are gone, the next response sets it.
        if let Some(cookie) = affinity.and_then(|affinity| affinity.session.as_ref()) {
            affinity::set_session(cookie, client.exchange.new_session, &mut self.out);
        }
    }

    /// The backend closed or reset before its response began.
    fn ended_before_head<L: Lane>(&mut self, cx: &mut Context<'_, L>, client: &mut Client) -> Step {
        let exchange = &mut client.exchange;
        // A connection that had been idle may have been closed while the request was on its way to it: what is idempotent, and still
        // here, is sent once more (RFC 9112 §9.3.1).
        let replay = exchange.reused && exchange.head_held > 0 && exchange.interim == 0 && exchange.attempt == 0;
        if replay {
            exchange.attempt += 1;
            exchange.head_sent = false;
            exchange.endpoint = None;
            cx.net.counters.upstream_replayed.add(1);
            self.drop_upstream(cx, client);
            return match self.dispatch(cx, client, false) {
                // The caller goes on with the old connection otherwise.
                Step::Again => Step::Wait(Instant::NEVER),
                step => step,
            };
        }
        if client.can_retry() {
            return self.try_again(cx, client);
        }
        self.refuse(cx, client, Refusal::new(502, Flag::BackendReset, "closed_before_response"))
    }
}

/// Encodes a response's head for the client, and notes what it means.
fn forward_head(
    via: Option<&str>,
    last: bool,
    client: &mut Client,
    head: &ResponseHead<'_>,
    out: &mut Vec<u8>,
) -> Head {
    let changes = client.changed.as_deref().filter(|changed| !changed.strip.is_empty() || !changed.append.is_empty());
    let changes = changes.map(|changed| FieldChanges { strip: &changed.strip, append: &changed.append });
    let exchange = &mut client.exchange;
    out.clear();
    if head.is_interim() {
        if exchange.version == Version::Http11 {
            http1::encode_interim(head, out);
        }
        return Head::Interim(head.len);
    }
    if head.status == 101 {
        if !exchange.wants_upgrade || head.upgrade.is_none() || !exchange.request_done {
            return Head::Invalid("unasked_switch");
        }
        exchange.status = 101;
        http1::encode_response(head, Framing::None, Connection::KeepAlive, exchange.version, via, changes, out);
        return Head::Switch(head.len);
    }
    let framing = response_framing(head.framing, exchange.version);
    // A reply before the end of the request closes the connection: the rest of it is nobody's to read.
    exchange.close = !exchange.keep_alive || last || !exchange.request_done || framing == Framing::UntilClose;
    let connection = if exchange.close { Connection::Close } else { Connection::KeepAlive };
    http1::encode_response(head, framing, connection, exchange.version, via, changes, out);
    exchange.status = head.status;
    exchange.response = Some(BodyDecoder::new(head.framing));
    exchange.response_framing = framing;
    exchange.upstream_keep = head.keep_alive && head.framing != Framing::UntilClose;
    Head::Final(head.len)
}
