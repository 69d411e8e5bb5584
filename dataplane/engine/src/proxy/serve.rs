//! A request in service: its backend connection, its body, its deadlines.

use pmd::Lane;
use proto::http1::{self, Decoded, Framing, MAX_CHUNK_HEADER};
use tables::access::Flag;

use super::client::{Client, Phase};
use super::reply::Refusal;
use super::{Context, Proxy, Role, Step};
use crate::clock::Instant;
use crate::stack::{ConnectionId, Ended, Status};

/// Pieces of a body moved in one step at most: chunks can be as small as one byte.
pub(super) const PIECES_A_STEP: usize = 64;

/// Bytes of chunk framing around a piece of payload.
pub(super) const CHUNK_OVERHEAD: usize = MAX_CHUNK_HEADER + http1::CHUNK_END.len();

/// What a body has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moved {
    /// Nothing more can be moved now.
    Stuck,
    /// The bound of a step was reached.
    More,
    /// It is complete.
    All,
    /// Its framing is broken.
    Broken(&'static str),
}

impl Proxy {
    /// Moves what can be moved of the request and of its response.
    pub(super) fn serve<L: Lane>(&mut self, cx: &mut Context<'_, L>, client: &mut Client) -> Step {
        if Self::client_is_gone(cx, client) {
            return self.give_up(cx, client);
        }
        let Some(upstream) = client.exchange.upstream else {
            if client.retry_at().is_some() {
                return Step::Wait(self.deadline(cx, client));
            }
            return self.refuse(cx, client, Refusal::new(502, Flag::ConnectFailed, "no_connection"));
        };
        match cx.stack.status(upstream) {
            Status::Opening => return Step::Wait(self.deadline(cx, client)),
            Status::Ended(ended) if !client.exchange.head_sent => return self.connect_failed(cx, client, ended),
            Status::Unknown => {
                return self.refuse(cx, client, Refusal::new(502, Flag::BackendReset, "connection_lost"));
            }
            _ => {}
        }
        if !client.exchange.head_sent {
            self.send_held_head(cx, client, upstream);
        }
        let mut more = false;
        if !client.exchange.request_done {
            match self.move_request(cx, client, upstream) {
                Moved::All => {
                    client.exchange.request_done = true;
                    client.exchange.sent_at = cx.net.now;
                }
                Moved::More => more = true,
                Moved::Stuck if self.request_is_cut(cx, client) => {
                    // Whoever sends half a request and closes is not waiting for an answer.
                    return self.give_up(cx, client);
                }
                Moved::Stuck => {}
                Moved::Broken(detail) => {
                    return self.refuse(cx, client, Refusal::new(400, Flag::Rejected, detail));
                }
            }
            if let Some(limit) = cx.snapshot.http.max_body
                && client.exchange.body_bytes > limit
            {
                return self.refuse(cx, client, Refusal::new(413, Flag::Rejected, "body_too_large"));
            }
        }
        match self.respond(cx, client, upstream) {
            Step::Wait(_) if more => Step::Again,
            Step::Wait(_) => Step::Wait(self.deadline(cx, client)),
            step => step,
        }
    }

    /// Moves what can be moved of the request's body.
    fn move_request<L: Lane>(&mut self, cx: &mut Context<'_, L>, client: &mut Client, upstream: ConnectionId) -> Moved {
        let chunked = client.exchange.framing == Framing::Chunked;
        let mirrored = client.changed.as_ref().is_some_and(|changed| !changed.copies.is_empty());
        let copy = mirrored.then_some(&mut self.copy);
        let (moved, bytes) =
            move_body(cx, &mut self.out, &mut client.exchange.body, (client.id, upstream), chunked, copy);
        if mirrored {
            let mut copy = core::mem::take(&mut self.copy);
            self.copy_body(cx, client, &copy, moved == Moved::All);
            copy.clear();
            self.copy = copy;
        }
        if bytes > 0 {
            client.exchange.request_bytes += bytes;
            client.exchange.body_bytes += bytes;
            client.exchange.progress = cx.net.now;
        }
        moved
    }

    /// The client closed before its request was complete.
    fn request_is_cut<L: Lane>(&self, cx: &Context<'_, L>, client: &Client) -> bool {
        cx.stack.status(client.id) == Status::PeerClosed && cx.stack.readable(client.id) == 0
    }

    /// No connection could be made: another endpoint is tried, as often as the settings allow.
    fn connect_failed<L: Lane>(&mut self, cx: &mut Context<'_, L>, client: &mut Client, ended: Option<Ended>) -> Step {
        cx.net.counters.upstream_failed.add(1);
        self.drop_upstream(cx, client);
        client.exchange.attempt += 1;
        if client.exchange.attempt < cx.snapshot.http.connect_attempts {
            return self.dispatch(cx, client, false);
        }
        if client.can_retry() {
            return self.try_again(cx, client);
        }
        self.refuse(
            cx,
            client,
            match ended {
                Some(Ended::Reset) => Refusal::new(502, Flag::ConnectFailed, "refused"),
                Some(Ended::TimedOut) | None => Refusal::new(504, Flag::ConnectTimeout, "connect_timeout"),
            },
        )
    }

    /// Gives an attempt up, and has the next one made after the back-off that the route asks for.
    pub(super) fn try_again<L: Lane>(&mut self, cx: &mut Context<'_, L>, client: &mut Client) -> Step {
        cx.net.counters.upstream_retried.add(1);
        self.drop_upstream(cx, client);
        client.await_retry(cx.net.now);
        Step::Wait(self.deadline(cx, client))
    }

    /// When the exchange has taken too long, as it stands.
    fn deadline<L: Lane>(&self, cx: &Context<'_, L>, client: &Client) -> Instant {
        let http = &cx.snapshot.http;
        let exchange = &client.exchange;
        let stage = if let Some(at) = client.retry_at() {
            at
        } else if !exchange.head_sent {
            exchange.connecting_since + http.connect_timeout
        } else if !exchange.request_done || exchange.answered() {
            exchange.progress + http.body_timeout
        } else {
            exchange.sent_at + http.response_timeout
        };
        let backend = Self::backend_deadline(client);
        stage.min(exchange.until).min(backend)
    }

    /// The end of the route's `backendRequest` timeout.
    fn backend_deadline(client: &Client) -> Instant {
        let exchange = &client.exchange;
        if !(exchange.pinned && exchange.head_sent) {
            return Instant::NEVER;
        }
        exchange.backend_timeout.map_or(Instant::NEVER, |timeout| exchange.sent_at + timeout)
    }

    /// Lets go of the tables that the request began under. What they say about its end is kept.
    pub(super) fn unpin(&mut self, client: &mut Client) {
        if client.exchange.pinned {
            client.exchange.until = client.exchange.until.min(Self::backend_deadline(client));
            client.exchange.pinned = false;
            if let Some(choice) = client.exchange.choice {
                self.pins.unpin(choice.epoch);
            }
        }
    }

    /// A client's timer fired: something may really be late, or the timer was armed for something that has passed.
    pub(super) fn expire_client<L: Lane>(&mut self, cx: &mut Context<'_, L>, id: ConnectionId) {
        let Some(role) = self.roles.get_mut(id.0 as usize) else { return };
        let Role::Client(mut client) = core::mem::replace(role, Role::None) else { return };
        let step = match client.phase {
            Phase::Head => self.expire_head(cx, &mut client),
            Phase::Exchange => self.expire_exchange(cx, &mut client),
            Phase::Tunnel => self.expire_tunnel(cx, &mut client),
        };
        match step {
            Step::Gone => self.retire(cx, client),
            Step::Again | Step::Wait(_) => {
                self.set_role(id, Role::Client(client));
                self.drive_client(cx, id);
            }
        }
    }

    fn expire_head<L: Lane>(&mut self, cx: &mut Context<'_, L>, client: &mut Client) -> Step {
        let http = &cx.snapshot.http;
        let now = cx.net.now;
        if client.started == Instant::NEVER {
            if now < client.idle_since + http.idle_timeout {
                return Step::Again;
            }
            cx.stack.close(client.id, now, http.linger_timeout);
            return Step::Gone;
        }
        if now < client.started + http.head_timeout {
            return Step::Again;
        }
        self.start_refused(cx, client);
        self.refuse(cx, client, Refusal::new(408, Flag::ClientTimeout, "head_timeout"))
    }

    fn expire_exchange<L: Lane>(&mut self, cx: &mut Context<'_, L>, client: &mut Client) -> Step {
        let now = cx.net.now;
        if now < self.deadline(cx, client) {
            return Step::Again;
        }
        if client.retry_at().is_some() && now < client.exchange.until {
            client.begin_retry();
            return self.dispatch(cx, client, false);
        }
        let exchange = &client.exchange;
        // The end of one attempt, or of all of them?
        if now < exchange.until && exchange.head_sent && exchange.request_done && client.can_retry() {
            return self.try_again(cx, client);
        }
        let out_of_time = now >= exchange.until || now >= Self::backend_deadline(client);
        if !exchange.head_sent && !out_of_time {
            return self.connect_failed(cx, client, Some(Ended::TimedOut));
        }
        if out_of_time {
            return self.refuse(cx, client, Refusal::new(504, Flag::BackendTimeout, "request_timeout"));
        }
        if exchange.answered() {
            // Whose fault is it: does the client not read, or does the backend not write?
            let blocked = cx.stack.unsent(client.id) > 0;
            let (flag, detail) = if blocked {
                (Flag::ClientTimeout, "response_not_read")
            } else {
                (Flag::BackendTimeout, "response_stalled")
            };
            return self.cut_short(cx, client, flag, detail);
        }
        if !exchange.request_done {
            let blocked = exchange.upstream.is_some_and(|upstream| cx.stack.unsent(upstream) > 0);
            let refusal = if blocked {
                Refusal::new(504, Flag::BackendTimeout, "request_not_read")
            } else {
                Refusal::new(408, Flag::ClientTimeout, "body_timeout")
            };
            return self.refuse(cx, client, refusal);
        }
        self.refuse(cx, client, Refusal::new(504, Flag::BackendTimeout, "response_timeout"))
    }
}

/// Moves what can be moved of a body from one connection to another, framed anew. Returns what it came to, and the payload's bytes.
/// What is sent is also appended to `copy`.
pub(super) fn move_body<L: Lane>(
    cx: &mut Context<'_, L>,
    out: &mut Vec<u8>,
    body: &mut http1::BodyDecoder,
    (from, to): (ConnectionId, ConnectionId),
    chunked: bool,
    mut copy: Option<&mut Vec<u8>>,
) -> (Moved, u64) {
    let mut bytes = 0;
    for _ in 0..PIECES_A_STEP {
        if body.is_complete() {
            return (Moved::All, bytes);
        }
        let room = cx.stack.room(to);
        let room = if chunked { room.saturating_sub(CHUNK_OVERHEAD) } else { room };
        if room == 0 {
            return (Moved::Stuck, bytes);
        }
        let front = cx.stack.front(from);
        if front.is_empty() {
            return (Moved::Stuck, bytes);
        }
        match body.decode(front) {
            Err(error) => return (Moved::Broken(error.detail()), bytes),
            Ok(Decoded::Data { skip, len }) => {
                cx.stack.consume(from, skip);
                let len = len.min(room);
                if chunked {
                    out.clear();
                    http1::encode_chunk_header(len, out);
                    cx.stack.send(to, out);
                }
                if let Some(copy) = copy.as_deref_mut() {
                    if chunked {
                        copy.extend_from_slice(out);
                    }
                    copy.extend_from_slice(cx.stack.front(from).get(..len).unwrap_or_default());
                }
                let moved = cx.stack.transfer(from, to, len);
                body.advance(moved);
                bytes += moved as u64;
                if let Some(copy) = copy.as_deref_mut() {
                    copy.truncate((copy.len() + moved).saturating_sub(len));
                }
                if chunked {
                    cx.stack.send(to, http1::CHUNK_END);
                    copy.as_deref_mut().into_iter().for_each(|copy| copy.extend_from_slice(http1::CHUNK_END));
                }
            }
            Ok(Decoded::More { skip }) => {
                cx.stack.consume(from, skip);
                let rest = cx.stack.readable(from);
                if skip == 0 && rest > cx.stack.front(from).len() {
                    // A trailer section across the buffer's seam.
                    if !trailers_in_two_pieces(cx, out, body, from, to, chunked) {
                        return (Moved::Stuck, bytes);
                    }
                    copy.as_deref_mut().into_iter().for_each(|copy| copy.extend_from_slice(out));
                } else if skip == 0 {
                    return (Moved::Stuck, bytes);
                }
            }
            Ok(Decoded::End { skip, trailers }) => {
                encode_end(trailers.and_then(|range| front.get(range)), chunked, out);
                cx.stack.send(to, out);
                cx.stack.consume(from, skip);
                copy.into_iter().for_each(|copy| copy.extend_from_slice(out));
                return (Moved::All, bytes);
            }
        }
    }
    (Moved::More, bytes)
}

/// Ends a chunked body whose trailer section lies in two pieces. Returns whether it is complete.
fn trailers_in_two_pieces<L: Lane>(
    cx: &mut Context<'_, L>,
    out: &mut Vec<u8>,
    body: &mut http1::BodyDecoder,
    from: ConnectionId,
    to: ConnectionId,
    chunked: bool,
) -> bool {
    let mut whole = Vec::new();
    cx.stack.copy_front(from, &mut whole);
    let Ok(Decoded::End { skip, trailers }) = body.decode(&whole) else { return false };
    encode_end(trailers.and_then(|range| whole.get(range)), chunked, out);
    cx.stack.send(to, out);
    cx.stack.consume(from, skip);
    true
}

/// What ends a body: the last chunk and the trailers, or nothing.
fn encode_end(trailers: Option<&[u8]>, chunked: bool, out: &mut Vec<u8>) {
    out.clear();
    match trailers {
        _ if !chunked => {}
        Some(raw) => http1::encode_trailers(raw, out),
        None => out.extend_from_slice(http1::LAST_CHUNK),
    }
}
