//! One TCP connection, and where it stands.

use core::time::Duration;
use std::net::IpAddr;

use smoltcp::socket::tcp::State;
use smoltcp::time::Instant as StackInstant;
use tables::CoreCounters;

use super::guard::{Phase, Position};
use super::pool::Pooled;
use super::recovery::Recovery;
use crate::clock::Instant;
use crate::flow::FlowKey;
use crate::port::{Hop, Segment};

/// Which end of the gateway a connection is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// A client connected to us.
    Client,
    /// We connected to a backend.
    Backend,
}

/// One TCP connection.
pub(super) struct Connection {
    /// Its addresses; `local` is ours.
    pub key: FlowKey,
    /// The key's hash in the flow table.
    pub hash: u64,
    /// Index of its port.
    pub port: u8,
    /// Client or backend.
    pub side: Side,
    /// Stack time over real time.
    pub scale: u32,
    /// Largest IP packet on its path.
    pub mtu: u16,
    /// Position of the stack's interface for that MTU.
    pub interface: u8,
    /// The socket.
    pub pooled: Pooled,
    /// Sequence numbers.
    pub track: Track,
    /// The next hop, remembered.
    pub hop: Hop,
    /// Bytes that were accepted from above and that the send buffer has no room for.
    pub spill: Vec<u8>,
    /// Close once everything was handed to the socket.
    pub closing: bool,
    /// Nobody above cares any more: input is thrown away, and the slot is freed once the socket is done.
    pub orphan: bool,
    /// When an orphan is reset.
    pub orphan_until: Instant,
    /// How long an orphan waits for the peer to close, once the peer has everything.
    pub linger: Duration,
    /// What the peer had acknowledged when an orphan was last hurried.
    pub hurried_at: Option<u32>,
    /// Since when the peer's window is shut with something to send; [`Instant::NEVER`] while it is not.
    pub(super) zero_window_since: Instant,
    /// Counted as half open.
    pub half_open: bool,
    /// It was established once.
    pub established: bool,
    /// The peer's FIN came, and everything before it.
    pub peer_finished: bool,
    /// In the queue for egress.
    pub dirty: bool,
    /// In the queue for the layer above.
    pub ready: bool,
    /// When its timer is armed for.
    pub armed: Instant,
    /// Challenge ACKs sent in the second that began at `challenge_second`.
    pub challenges: u32,
    /// See `challenges`.
    pub challenge_second: Instant,
    /// Why it ended, once it has.
    pub ended: Option<Ended>,
}

/// Why a connection ended without our wanting it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The peer reset it.
    Reset,
    /// The peer fell silent.
    TimedOut,
}

impl Connection {
    /// The stack's time for this connection.
    #[inline]
    #[must_use]
    pub(super) fn stack_time(&self, now: Instant) -> StackInstant {
        stack_time(now, self.scale)
    }

    /// The real time of a moment in its stack time.
    #[inline]
    #[must_use]
    pub(super) fn real_time(&self, at: StackInstant) -> Instant {
        let micros = u64::try_from(at.total_micros()).unwrap_or(0);
        // Rounded up: a timer that fires before the stack's time has come would fire again at once, and so on.
        Instant(micros.saturating_mul(1000).div_ceil(u64::from(self.scale)))
    }

    /// Since when the peer's window has been shut while there is something to send; [`Instant::NEVER`] where it is not.
    pub(super) fn shut_since(&mut self, now: Instant) -> Instant {
        let socket = self.pooled.socket();
        if !self.track.window_shut || socket.send_queue() == 0 || !socket.is_open() {
            self.zero_window_since = Instant::NEVER;
        } else if self.zero_window_since == Instant::NEVER {
            self.zero_window_since = now;
        }
        self.zero_window_since
    }

    /// Whether there is something to send for sure: a SYN, bytes that were never sent, or a close.
    #[inline]
    pub(super) fn has_news(&self) -> bool {
        let in_flight = self.track.snd_nxt.wrapping_sub(self.track.snd_una) as usize;
        self.closing || !self.established || self.pooled.socket().send_queue() > in_flight
    }

    /// The least time that smoltcp lets pass before it sends something again: its minimum RTO of a second, in real time.
    #[inline]
    pub(super) fn least_rto(&self) -> Duration {
        Duration::from_secs(1) / self.scale
    }

    /// Whether every byte in the send buffer is on its way, so that asking the stack for another segment can be spared. Never after a
    /// retransmission or a FIN, when it does not matter.
    #[inline]
    pub(super) fn everything_sent(&self) -> bool {
        let in_flight = self.track.snd_nxt.wrapping_sub(self.track.snd_una) as usize;
        self.track.last_was_new && self.pooled.socket().send_queue() == in_flight
    }

    /// What the guard needs to know.
    #[must_use]
    pub(super) fn position(&self) -> Position {
        let socket = self.pooled.socket();
        let queued = socket.recv_queue();
        let (phase, fin) = match socket.state() {
            State::SynSent => (Phase::SynSent, 0),
            State::Listen | State::SynReceived => (Phase::SynReceived, 0),
            State::CloseWait | State::LastAck | State::Closing | State::TimeWait => (Phase::Synchronized, 1),
            State::Established | State::FinWait1 | State::FinWait2 | State::Closed => (Phase::Synchronized, 0),
        };
        Position {
            snd_una: self.track.snd_una,
            snd_nxt: self.track.snd_nxt,
            max_window: self.track.max_window,
            // Buffers are far below 2^32 bytes.
            rcv_nxt: self
                .track
                .rcv_start
                .wrapping_add(self.track.consumed)
                .wrapping_add(queued as u32)
                .wrapping_add(fin),
            rcv_window: (socket.recv_capacity() - queued) as u32,
            rcv_buffer: socket.recv_capacity() as u32,
            phase,
        }
    }
}

/// The stack's time at `scale` times real time.
#[inline]
#[must_use]
pub(super) fn stack_time(now: Instant, scale: u32) -> StackInstant {
    StackInstant::from_micros_const(i64::try_from(now.0.saturating_mul(u64::from(scale)) / 1000).unwrap_or(i64::MAX))
}

/// Sequence numbers of a connection, as seen on its packets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Track {
    /// The peer's address.
    pub remote: IpAddr,
    /// Oldest of ours not acknowledged.
    pub snd_una: u32,
    /// Next of ours, never sent before.
    pub snd_nxt: u32,
    /// Largest window the peer offered.
    pub max_window: u32,
    /// The peer's window scale (RFC 7323 §2), at most 14.
    pub peer_scale: u8,
    /// Both sides scale their windows.
    pub scaled: bool,
    /// The peer's initial sequence number, plus one.
    pub rcv_start: u32,
    /// Bytes of the peer's that the layer above took.
    pub consumed: u32,
    /// The last packet of ours carried only what was never sent before.
    last_was_new: bool,
    /// The peer's last window was 0.
    pub(super) window_shut: bool,
    /// The same window, as it stood in the header. That of a segment with an older ACK says nothing any more.
    pub(super) window: u16,
    /// Sequence and acknowledgment number of the segment that the window came with (RFC 9293 §3.3.1: SND.WL1 and SND.WL2).
    window_from: (u32, u32),
    /// The first packet of ours is still to come.
    fresh: bool,
    /// What is lost on its way.
    pub(super) recovery: Recovery,
}

impl Track {
    /// A connection of which nothing was seen yet, on a path with that MTU.
    #[must_use]
    pub(super) fn new(remote: IpAddr, mtu: u16) -> Self {
        Self {
            remote,
            snd_una: 0,
            snd_nxt: 0,
            max_window: 0,
            peer_scale: 0,
            scaled: false,
            rcv_start: 0,
            consumed: 0,
            last_was_new: false,
            window_shut: false,
            window: 0,
            window_from: (0, 0),
            fresh: true,
            recovery: Recovery::new(mtu),
        }
    }

    /// Notes a segment that was handed to the stack.
    #[inline]
    pub(super) fn received(&mut self, segment: &Segment) {
        if segment.flags.syn() {
            self.rcv_start = segment.seq.wrapping_add(1);
            self.window_from = (segment.seq, segment.ack);
            self.scaled = segment.options.window_scale.is_some();
            self.peer_scale = segment.options.window_scale.unwrap_or(0).min(14);
        }
        let scale = if segment.flags.syn() { 0 } else { self.peer_scale };
        self.max_window = self.max_window.max(u32::from(segment.window) << scale);
        if segment.flags.ack() {
            let ahead = segment.ack.wrapping_sub(self.snd_una);
            if ahead <= self.snd_nxt.wrapping_sub(self.snd_una) {
                self.snd_una = segment.ack;
                if segment.flags.syn() || !self.window_is_old(segment) {
                    self.window = segment.window;
                    self.window_shut = segment.window == 0;
                    self.window_from = (segment.seq, segment.ack);
                }
            }
        }
    }

    /// Whether `segment` was sent before the one that the window came with (RFC 9293 §3.10.7.4): a window that was shut then may be open now.
    #[inline]
    pub(super) fn window_is_old(&self, segment: &Segment) -> bool {
        let (seq, ack) = self.window_from;
        let (seq, ack) = (segment.seq.wrapping_sub(seq) as i32, segment.ack.wrapping_sub(ack) as i32);
        seq < 0 || (seq == 0 && ack < 0)
    }

    /// Notes that our SYN went out with sequence number `isn` before there was a connection.
    pub(super) fn sent_before(&mut self, isn: u32) {
        self.fresh = false;
        self.snd_una = isn;
        self.snd_nxt = isn.wrapping_add(1);
    }

    /// Notes an IP packet that the stack made, and puts its sequence number right.
    #[inline]
    pub(super) fn sent(&mut self, now: Instant, packet: &mut [u8], counters: &CoreCounters) {
        let header = if packet.first().is_some_and(|first| first >> 4 == 6) { 40 } else { 20 };
        let Some(tcp) = packet.get_mut(header..) else { return };
        let (Some(&[a, b, c, d]), Some(&[offset, flags])) = (tcp.get(4..8), tcp.get(12..14)) else { return };
        let seq = u32::from_be_bytes([a, b, c, d]);
        let (fin, syn, rst) = (flags & 1, (flags >> 1) & 1, flags & 4 != 0);
        let payload = tcp.len().saturating_sub(usize::from(offset >> 4) * 4);
        // A packet is at most 65,535 bytes.
        let len = payload as u32 + u32::from(fin) + u32::from(syn);
        counters.segments_sent.add(1);
        // What carries nothing goes out at SND.NXT (RFC 9293 §3.10.7.4, §3.10.5). smoltcp takes that back when it sends again, and a peer
        // that has received more in the meantime would drop an ACK or a RST from there.
        let ack = flags & 0x10 != 0;
        if len == 0
            && ack
            && !self.fresh
            && (self.snd_nxt.wrapping_sub(seq) as i32) > 0
            && let Some(field) = tcp.get_mut(4..8)
        {
            field.copy_from_slice(&self.snd_nxt.to_be_bytes());
        }
        if rst {
            counters.resets_sent.add(1);
            return;
        }
        if self.fresh {
            self.fresh = false;
            self.snd_una = seq;
            self.snd_nxt = seq;
        }
        self.last_was_new = seq == self.snd_nxt;
        let end = seq.wrapping_add(len);
        let ahead = end.wrapping_sub(self.snd_nxt) as i32;
        if ahead > 0 {
            self.snd_nxt = end;
        }
        // A keep-alive is one old byte below SND.UNA, which is nothing sent again.
        if len > 0 && (seq.wrapping_sub(self.snd_una) as i32) >= 0 {
            let again = i64::from(ahead) < i64::from(len);
            counters.retransmissions.add(u64::from(again));
            self.recovery.sent(now, end, !again, self.snd_nxt.wrapping_sub(self.snd_una));
        }
    }
}
