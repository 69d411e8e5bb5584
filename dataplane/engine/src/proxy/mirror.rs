//! Copies of requests for backends whose answers nobody waits for (Gateway API `RequestMirror`).
//!
//! A mirror gets what the request's own backend gets, Host included. What it has not taken yet waits in a buffer of its own, which is
//! bounded: the copy is given up when it is full, and so the original is never held up. Answers are read and thrown away, so that the connection
//! can serve again.

use arrayvec::ArrayVec;
use pmd::Lane;
use proto::http1::{BodyDecoder, Decoded, Framing, Limits, Method, parse_response};
use tables::filter::Mirror as MirrorFilter;
use tables::{ClusterId, Endpoint};

use super::client::Client;
use super::request::limits;
use super::serve::PIECES_A_STEP;
use super::upstream::Upstream;
use super::{Context, Proxy, Role, SPARE_CLIENTS};
use crate::clock::Instant;
use crate::stack::{ConnectionId, Stack, Status};

/// Copies of one request at most; `schema` lets a rule have four, and a backend reference four more.
pub(super) const MAX_MIRRORS: usize = 8;

/// Bytes of a body that wait for a mirror at most.
const PENDING: usize = 64 << 10;

/// What a spare mirror keeps of its buffer.
const KEPT: usize = 4 << 10;

/// The clusters that a request is copied to.
pub(super) type Wanted = ArrayVec<ClusterId, MAX_MIRRORS>;

/// The copies of a request whose body is not complete.
pub(super) type Copies = ArrayVec<ConnectionId, MAX_MIRRORS>;

/// One copy of a request, on a connection of its own.
pub(super) struct Mirror {
    /// What the connection was before and may be again.
    upstream: Upstream,
    /// The client whose body is still being copied.
    client: Option<ConnectionId>,
    /// What is to be sent; the first `sent` bytes of it were.
    pending: Vec<u8>,
    sent: usize,
    method: Method,
    /// The answer's body, once its head was read, and whether the connection can be used again behind it.
    answer: Option<(BodyDecoder, bool)>,
    /// When the copy is given up.
    until: Instant,
}

/// What became of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// It is under way.
    Going,
    /// It was answered; `true` if the connection can serve another request.
    Answered(bool),
    /// It will not be.
    Lost,
}

/// Decides which requests are copied: spread so evenly that of any hundred a share of so many is taken, give or take a few.
#[derive(Debug, Default)]
pub(super) struct Draw(u32);

impl Draw {
    /// Whether the next request is among those that `mirror` wants.
    pub(super) fn next(&mut self, mirror: &MirrorFilter) -> bool {
        // Multiples of the golden ratio fill the circle without a pattern that requests could be in step with.
        self.0 = self.0.wrapping_add(0x9e37_79b9);
        (u64::from(self.0) * u64::from(mirror.denominator)) >> 32 < u64::from(mirror.numerator)
    }
}

impl Proxy {
    /// Opens the copies of a request that is about to be dispatched.
    pub(super) fn start_mirrors<L: Lane>(&mut self, cx: &mut Context<'_, L>, client: &mut Client) {
        let Some(changed) = client.changed.as_mut() else { return };
        for cluster in changed.wanted.take() {
            cx.net.counters.mirrors.add(1);
            let streams = !client.exchange.request_done;
            let owner = streams.then_some(client.id);
            match self.open_mirror(cx, owner, client.exchange.method, &changed.head, cluster) {
                Some(id) if streams => changed.copies.push(id),
                Some(_) => {}
                None => cx.net.counters.mirrors_lost.add(1),
            }
        }
    }

    fn open_mirror<L: Lane>(
        &mut self,
        cx: &mut Context<'_, L>,
        client: Option<ConnectionId>,
        method: Method,
        head: &[u8],
        cluster: ClusterId,
    ) -> Option<ConnectionId> {
        let table = cx.snapshot.cluster(cluster)?;
        let selection = cx.endpoints.selection(cx.snapshot.epoch, cluster, table);
        let &Endpoint { id: endpoint, address, .. } = self.balance.endpoint(table, selection, cx.net.now)?;
        let (id, upstream) = match self.pools.take(endpoint) {
            Some(id) => match self.roles.get(id.0 as usize) {
                Some(Role::Upstream(upstream)) => (id, Upstream { armed: false, ..*upstream }),
                _ => return None,
            },
            None => {
                if !self.pools.admit(endpoint) {
                    return None;
                }
                let Ok(id) = cx.stack.connect(&mut cx.net, address) else {
                    self.pools.discharge(endpoint);
                    cx.net.counters.upstream_failed.add(1);
                    return None;
                };
                let now = cx.net.now;
                let idle =
                    Upstream { endpoint, client: None, established: false, served: 0, idle_since: now, armed: false };
                (id, idle)
            }
        };
        let http = &cx.snapshot.http;
        let until = cx.net.now + http.connect_timeout + http.response_timeout;
        let mut mirror = match self.spare_mirrors.pop() {
            Some(mut spare) => {
                let pending = core::mem::take(&mut spare.pending);
                *spare = Mirror { upstream, client, pending, sent: 0, method, answer: None, until };
                spare
            }
            None => Box::new(Mirror { upstream, client, pending: Vec::new(), sent: 0, method, answer: None, until }),
        };
        mirror.pending.extend_from_slice(head);
        if cx.stack.status(id) == Status::Open {
            mirror.flush(cx.stack, id);
        }
        self.wheel.schedule(id.0, until);
        self.set_role(id, Role::Mirror(mirror));
        Some(id)
    }

    /// Copies a piece of the client's body, framed as its backend gets it, and its end.
    pub(super) fn copy_body<L: Lane>(
        &mut self,
        cx: &mut Context<'_, L>,
        client: &mut Client,
        piece: &[u8],
        last: bool,
    ) {
        let Some(changed) = client.changed.as_mut() else { return };
        changed.copies.retain(|id| {
            let Some(Role::Mirror(mirror)) = self.roles.get_mut(id.0 as usize) else { return false };
            if mirror.pending.len() - mirror.sent + piece.len() > PENDING {
                self.lose(cx, *id);
                return false;
            }
            mirror.pending.extend_from_slice(piece);
            mirror.flush(cx.stack, *id);
            if last {
                mirror.client = None;
                mirror.until = cx.net.now + cx.snapshot.http.response_timeout;
                self.wheel.schedule(id.0, mirror.until);
                // The answer may be there already.
                cx.stack.wake(*id);
            }
            !last
        });
    }

    /// Gives up the copies of a request whose body will not be complete.
    pub(super) fn drop_copies<L: Lane>(&mut self, cx: &mut Context<'_, L>, client: &mut Client) {
        let copies = client.changed.as_mut().map(|changed| changed.copies.take());
        for id in copies.into_iter().flatten() {
            self.lose(cx, id);
        }
    }

    /// Something happened to a mirror's connection.
    pub(super) fn drive_mirror<L: Lane>(&mut self, cx: &mut Context<'_, L>, id: ConnectionId) {
        let status = cx.stack.status(id);
        let limits = limits(&cx.snapshot.http);
        let Some(Role::Mirror(mirror)) = self.roles.get_mut(id.0 as usize) else { return };
        if !mirror.upstream.established && matches!(status, Status::Open | Status::PeerClosed) {
            cx.net.counters.upstream_opened.add(1);
            self.upstreams += 1;
            mirror.upstream.established = true;
        }
        match mirror.proceed(cx.stack, id, status, &limits, &mut self.input) {
            Progress::Going => {}
            Progress::Answered(keep) => self.end_mirror(cx, id, keep),
            Progress::Lost => self.lose(cx, id),
        }
    }

    /// A mirror's timer fired.
    pub(super) fn expire_mirror<L: Lane>(&mut self, cx: &mut Context<'_, L>, id: ConnectionId) {
        let Some(Role::Mirror(mirror)) = self.roles.get(id.0 as usize) else { return };
        let until = mirror.until;
        // A body that is still being copied has its client's deadlines.
        if mirror.client.is_some() {
            self.wheel.schedule(id.0, cx.net.now + cx.snapshot.http.response_timeout);
        } else if cx.net.now < until {
            self.wheel.schedule(id.0, until);
        } else {
            self.lose(cx, id);
        }
    }

    /// Gives a copy up.
    pub(super) fn lose<L: Lane>(&mut self, cx: &mut Context<'_, L>, id: ConnectionId) {
        cx.net.counters.mirrors_lost.add(1);
        self.end_mirror(cx, id, false);
    }

    fn end_mirror<L: Lane>(&mut self, cx: &mut Context<'_, L>, id: ConnectionId, keep: bool) {
        let Some(role) = self.roles.get_mut(id.0 as usize) else { return };
        let role = core::mem::replace(role, Role::None);
        let Role::Mirror(mut mirror) = role else { return self.set_role(id, role) };
        let client = mirror.client;
        self.set_role(id, Role::Upstream(mirror.upstream));
        self.wheel.cancel(id.0);
        if let Some(Role::Client(client)) = client.and_then(|client| self.roles.get_mut(client.0 as usize))
            && let Some(changed) = client.changed.as_mut()
        {
            changed.copies.retain(|copy| *copy != id);
        }
        if self.spare_mirrors.len() < SPARE_CLIENTS {
            mirror.pending.clear();
            mirror.pending.shrink_to(KEPT);
            self.spare_mirrors.push(mirror);
        }
        if keep {
            // Under which epoch the request began is not known any more: the address decides.
            self.park(cx, id, 0);
        } else {
            self.let_go(cx, id, true);
        }
    }
}

impl Mirror {
    /// Sends and reads what can be.
    fn proceed(
        &mut self,
        stack: &mut Stack,
        id: ConnectionId,
        status: Status,
        limits: &Limits,
        input: &mut Vec<u8>,
    ) -> Progress {
        match status {
            Status::Opening => return Progress::Going,
            Status::Unknown => return Progress::Lost,
            Status::Open | Status::PeerClosed => self.flush(stack, id),
            Status::Ended(_) => {}
        }
        let progress = self.read(stack, id, limits, input);
        match progress {
            // An answer before the end of the request leaves the connection in the middle of a message.
            Progress::Answered(keep) => Progress::Answered(keep && self.client.is_none() && self.pending.is_empty()),
            Progress::Going if status != Status::Open && stack.readable(id) == 0 => {
                let until_close = self.answer.as_mut().is_some_and(|(body, _)| body.end_of_input().is_ok());
                if until_close { Progress::Answered(false) } else { Progress::Lost }
            }
            progress => progress,
        }
    }

    /// Hands over what waits, as far as there is room.
    fn flush(&mut self, stack: &mut Stack, id: ConnectionId) {
        let rest = self.pending.get(self.sent..).unwrap_or_default();
        if rest.is_empty() {
            return;
        }
        let n = rest.len().min(stack.room(id));
        stack.send(id, rest.get(..n).unwrap_or_default());
        self.sent += n;
        if self.sent == self.pending.len() {
            self.pending.clear();
            self.sent = 0;
        } else if self.sent > PENDING {
            self.pending.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Reads the answer and throws it away.
    fn read(&mut self, stack: &mut Stack, id: ConnectionId, limits: &Limits, input: &mut Vec<u8>) -> Progress {
        for _ in 0..PIECES_A_STEP {
            let readable = stack.readable(id);
            if let Some((body, keep)) = &mut self.answer {
                if body.is_complete() {
                    return Progress::Answered(*keep);
                }
                let front = stack.front(id);
                let skip = match body.decode(front) {
                    Err(_) => return Progress::Lost,
                    Ok(Decoded::Data { skip, len }) => {
                        body.advance(len);
                        skip + len
                    }
                    Ok(Decoded::End { skip, .. }) => {
                        stack.consume(id, skip);
                        return Progress::Answered(*keep);
                    }
                    // Trailers across the buffer's seam are not worth a copy: nobody reads them.
                    Ok(Decoded::More { skip: 0 }) if readable > front.len() => return Progress::Answered(false),
                    Ok(Decoded::More { skip: 0 }) => return Progress::Going,
                    Ok(Decoded::More { skip }) => skip,
                };
                stack.consume(id, skip);
                continue;
            }
            if readable == 0 {
                return Progress::Going;
            }
            let full = stack.is_full(id);
            let front = stack.front(id);
            let bytes = if front.len() == readable {
                front
            } else {
                stack.copy_front(id, input);
                &*input
            };
            let len = match parse_response(bytes, self.method, limits) {
                Ok(Some(head)) if head.status == 101 => return Progress::Answered(false),
                Ok(Some(head)) => {
                    if !head.is_interim() {
                        let keep = head.keep_alive && head.framing != Framing::UntilClose;
                        self.answer = Some((BodyDecoder::new(head.framing), keep));
                    }
                    head.len
                }
                Ok(None) if full => return Progress::Lost,
                Ok(None) => return Progress::Going,
                Err(_) => return Progress::Lost,
            };
            stack.consume(id, len);
        }
        stack.wake(id);
        Progress::Going
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_taken_evenly() {
        let mut draw = Draw::default();
        for (numerator, denominator) in [(0, 100), (1, 100), (25, 100), (1, 3), (99, 100), (100, 100), (7, 1000)] {
            let mirror = MirrorFilter { cluster: ClusterId(0), numerator, denominator };
            let taken = (0..10_000).filter(|_| draw.next(&mirror)).count() as i64;
            let share = i64::from(numerator) * 10_000 / i64::from(denominator);
            assert!((taken - share).abs() <= 3, "{taken} for {numerator}/{denominator}");
        }
    }
}
