//! The byte streams of connections, as the layer above uses them.

use core::time::Duration;
use std::net::SocketAddr;

use smoltcp::socket::tcp::State;

use super::connection::Connection;
use super::pool::window_shift;
use super::{ConnectionId, Ended, Side, Stack};
use crate::clock::Instant;

/// Bytes of spill above which a connection takes no more from above: one head at most goes beyond.
const SPILL_KEPT: usize = 8 << 10;

/// Where a connection stands, for the layer above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The handshake is not complete.
    Opening,
    /// Bytes go both ways.
    Open,
    /// The peer has closed its side: what is buffered can be read, and bytes can be sent.
    PeerClosed,
    /// It is over. What is buffered can be read.
    Ended(Option<Ended>),
    /// There is no such connection.
    Unknown,
}

impl Stack {
    /// The next connection that something happened to.
    pub fn next_ready(&mut self) -> Option<ConnectionId> {
        while let Some(id) = self.ready.pop_front() {
            let id = ConnectionId(id);
            if let Some(connection) = self.connection_mut(id)
                && connection.ready
            {
                connection.ready = false;
                if !connection.orphan {
                    return Some(id);
                }
            }
        }
        None
    }

    /// Makes sure that the layer above hears of `id` again, in this turn or the next.
    pub fn wake(&mut self, id: ConnectionId) {
        self.mark_ready(id);
    }

    /// Whose connection it is, and its addresses (local, remote).
    #[must_use]
    pub fn addresses(&self, id: ConnectionId) -> Option<(Side, SocketAddr, SocketAddr)> {
        let connection = self.connection(id)?;
        Some((connection.side, connection.key.local(), connection.key.remote()))
    }

    /// Where it stands.
    #[must_use]
    pub fn status(&self, id: ConnectionId) -> Status {
        let Some(connection) = self.connection(id) else { return Status::Unknown };
        match connection.pooled.socket().state() {
            State::Listen | State::SynSent | State::SynReceived => Status::Opening,
            State::Established | State::FinWait1 | State::FinWait2 => Status::Open,
            State::CloseWait | State::LastAck | State::Closing => Status::PeerClosed,
            State::TimeWait | State::Closed => Status::Ended(connection.ended),
        }
    }

    /// RFC 9293's name of its state (§3.3.2), as listings show it.
    #[must_use]
    pub fn state_name(&self, id: ConnectionId) -> &'static str {
        let Some(connection) = self.connection(id) else { return "closed" };
        match connection.pooled.socket().state() {
            State::Closed => "closed",
            State::Listen => "listen",
            State::SynSent => "syn-sent",
            State::SynReceived => "syn-received",
            State::Established => "established",
            State::FinWait1 => "fin-wait-1",
            State::FinWait2 => "fin-wait-2",
            State::CloseWait => "close-wait",
            State::Closing => "closing",
            State::LastAck => "last-ack",
            State::TimeWait => "time-wait",
        }
    }

    /// Whether the peer has closed its side, so that what can be read is all that it sent, also if it has reset the connection since.
    #[must_use]
    pub fn peer_finished(&self, id: ConnectionId) -> bool {
        self.connection(id).is_some_and(|connection| connection.peer_finished)
    }

    /// Bytes that can be read.
    #[inline]
    #[must_use]
    pub fn readable(&self, id: ConnectionId) -> usize {
        self.connection(id).map_or(0, |connection| connection.pooled.socket().recv_queue())
    }

    /// Whether the receive buffer is full: nothing more will come until some of it is consumed.
    #[must_use]
    pub fn is_full(&self, id: ConnectionId) -> bool {
        self.connection(id).is_some_and(|connection| {
            let socket = connection.pooled.socket();
            socket.recv_queue() == socket.recv_capacity()
        })
    }

    /// The bytes that can be read, as far as they lie in one piece, which is all of them most of the time.
    #[inline]
    pub fn front(&mut self, id: ConnectionId) -> &[u8] {
        let Some(connection) = self.connection_mut(id) else { return &[] };
        connection.pooled.socket_mut().peek(usize::MAX).unwrap_or_default()
    }

    /// Copies all the bytes that can be read to `out`, replacing what was in it. They stay readable.
    pub fn copy_front(&mut self, id: ConnectionId, out: &mut Vec<u8>) {
        out.clear();
        let Some(connection) = self.connection_mut(id) else { return };
        let socket = connection.pooled.socket_mut();
        out.resize(socket.recv_queue(), 0);
        let copied = socket.peek_slice(out).unwrap_or(0);
        out.truncate(copied);
    }

    /// Forgets the first `n` bytes that can be read.
    pub fn consume(&mut self, id: ConnectionId, n: usize) {
        let Some(connection) = self.connection_mut(id) else { return };
        let mut left = n;
        // Twice at most: the buffer is a ring.
        while left > 0 {
            let taken = connection.take(left, |_| {});
            if taken == 0 {
                break;
            }
            left -= taken;
        }
        self.mark_dirty(id);
    }

    /// Bytes that `send` takes without spilling.
    #[inline]
    #[must_use]
    pub fn room(&self, id: ConnectionId) -> usize {
        let Some(connection) = self.connection(id) else { return 0 };
        let socket = connection.pooled.socket();
        if !connection.spill.is_empty() || !socket.may_send() {
            return 0;
        }
        socket.send_capacity() - socket.send_queue()
    }

    /// Bytes that are on their way out and not acknowledged.
    #[must_use]
    pub fn unsent(&self, id: ConnectionId) -> usize {
        self.connection(id).map_or(0, |connection| connection.pooled.socket().send_queue() + connection.spill.len())
    }

    /// Queues all of `bytes`. What the buffer has no room for waits beside it; callers that send more than a head look at
    /// [`Stack::room`] first.
    pub fn send(&mut self, id: ConnectionId, bytes: &[u8]) {
        let Some(connection) = self.connection_mut(id) else { return };
        let socket = connection.pooled.socket_mut();
        let sent = if connection.spill.is_empty() { socket.send_slice(bytes).unwrap_or(0) } else { 0 };
        if socket.may_send()
            && let Some(rest) = bytes.get(sent..)
        {
            connection.spill.extend_from_slice(rest);
        }
        self.mark_dirty(id);
    }

    /// Moves up to `n` bytes that can be read at `from` to the send buffer of `to`. Returns how many.
    pub fn transfer(&mut self, from: ConnectionId, to: ConnectionId, n: usize) -> usize {
        let (a, b) = (from.0 as usize, to.0 as usize);
        let moved = match self.slots.get_disjoint_mut([a, b]) {
            Ok([Some(from), Some(to)]) if to.spill.is_empty() => {
                let target = to.pooled.socket_mut();
                let mut moved = 0;
                // Twice at most: both buffers are rings, and the sending one is filled across its seam by `send_slice`.
                while moved < n {
                    let step = from.pooled.socket_mut().recv(|bytes| {
                        let bytes = bytes.get(..n - moved).unwrap_or(bytes);
                        let sent = target.send_slice(bytes).unwrap_or(0);
                        (sent, sent)
                    });
                    match step {
                        Ok(step) if step > 0 => moved += step,
                        _ => break,
                    }
                }
                from.track.consumed = from.track.consumed.wrapping_add(moved as u32);
                moved
            }
            _ => 0,
        };
        if moved > 0 {
            self.mark_dirty(from);
            self.mark_dirty(to);
        }
        moved
    }

    /// Closes our side once everything is sent. The layer above goes on reading.
    pub fn shut_down(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connection_mut(id) {
            connection.closing = true;
        }
        self.mark_dirty(id);
    }

    /// Lets go of `id`: everything is sent, then our side is closed, what still comes is thrown away, and after `linger` without the
    /// peer's closing too the connection is reset. The layer above hears no more of it.
    pub fn close(&mut self, id: ConnectionId, now: Instant, linger: Duration) {
        let timeout = self.settings.timeout;
        let Some(connection) = self.connection_mut(id) else { return };
        connection.closing = true;
        connection.orphan = true;
        connection.linger = linger;
        // The linger time begins when the peer has everything.
        let unsent = connection.pooled.socket().send_queue() + connection.spill.len() > 0;
        connection.orphan_until = now + if unsent { linger.max(timeout) } else { linger };
        let socket = connection.pooled.socket_mut();
        socket.set_keep_alive(None);
        socket.set_timeout(None);
        self.discard_input(id);
        self.mark_dirty(id);
    }

    /// Resets `id`, and lets go of it.
    pub fn abort(&mut self, id: ConnectionId) {
        let Some(connection) = self.connection_mut(id) else { return };
        connection.orphan = true;
        connection.spill.clear();
        connection.pooled.socket_mut().abort();
        self.mark_dirty(id);
    }

    /// Throws away what came in for nobody.
    pub(super) fn discard_input(&mut self, id: ConnectionId) {
        let readable = self.readable(id);
        self.consume(id, readable);
    }
}

impl Connection {
    /// Consumes up to `n` bytes that lie in one piece, after `f` saw them. Returns how many.
    fn take(&mut self, n: usize, f: impl FnOnce(&[u8])) -> usize {
        let taken = self.pooled.socket_mut().recv(|bytes| {
            let taken = n.min(bytes.len());
            f(bytes.get(..taken).unwrap_or_default());
            (taken, taken)
        });
        let taken = taken.unwrap_or(0);
        // A receive buffer is far below 2^32 bytes.
        self.track.consumed = self.track.consumed.wrapping_add(taken as u32);
        taken
    }

    /// Hands spilled bytes to the socket as it has room, and closes it once there are none and a close was asked for.
    pub(super) fn pour_spill(&mut self) {
        let socket = self.pooled.socket_mut();
        if !self.spill.is_empty() {
            let sent = socket.send_slice(&self.spill).unwrap_or(0);
            self.spill.drain(..sent);
            if self.spill.is_empty() && self.spill.capacity() > SPILL_KEPT {
                self.spill = Vec::new();
            }
        }
        if self.closing && self.spill.is_empty() {
            socket.close();
        }
    }

    /// The window scale that we announced.
    pub(super) fn window_shift(&self) -> u32 {
        if self.track.scaled { window_shift(self.pooled.socket().recv_capacity()) } else { 0 }
    }
}
