//! The state of a connection: a line of the cache.

use super::WINDOW;
use crate::segment::{Fields, flags};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum State {
    #[default]
    Free,
    SynSent,
    SynReceived,
    /// Established, or in any state of closing.
    Open,
}

/// One line of the cache.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(64))]
pub(super) struct Connection {
    pub(super) local: u32,
    pub(super) remote: u32,
    pub(super) local_port: u16,
    pub(super) remote_port: u16,
    /// The oldest byte not acknowledged, the next to be sent, and behind the last that was ever sent.
    pub(super) snd_una: u32,
    pub(super) snd_nxt: u32,
    pub(super) snd_max: u32,
    /// Where the message begins and ends.
    pub(super) start: u32,
    pub(super) end: u32,
    pub(super) rcv_nxt: u32,
    /// RCV.NXT as last told the peer.
    pub(super) told: u32,
    pub(super) snd_wnd: u32,
    pub(super) mss: u16,
    pub(super) scale: u8,
    pub(super) state: State,
    pub(super) retries: u8,
    pub(super) duplicates: u8,
    pub(super) marks: Marks,
    /// When the segment at `snd_una` is sent again.
    pub(super) retransmit_at: u32,
    /// While [`Marks::RECOVERING`]: where the loss is over (RFC 6582).
    pub(super) recover: u32,
}

/// Small flags of a connection.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Marks(u8);

impl Marks {
    /// A FIN follows the message.
    pub(super) const CLOSING: u8 = 1;
    /// The peer's FIN came.
    pub(super) const ENDED: u8 = 2;
    /// In [`Endpoint::unacknowledged`].
    pub(super) const LISTED: u8 = 4;
    /// In [`Endpoint::waiting`].
    pub(super) const WAITING: u8 = 8;
    /// An acknowledgment has to be sent, even if it tells nothing new.
    pub(super) const ACK: u8 = 16;
    /// Segments ahead of RCV.NXT are kept in [`Endpoint::ahead`].
    pub(super) const AHEAD: u8 = 32;
    /// Lost segments are being sent again, one for each acknowledgment that shows the next.
    pub(super) const RECOVERING: u8 = 64;

    pub(super) fn has(self, mark: u8) -> bool {
        self.0 & mark != 0
    }

    pub(super) fn set(&mut self, mark: u8) {
        self.0 |= mark;
    }

    pub(super) fn clear(&mut self, mark: u8) {
        self.0 &= !mark;
    }
}

impl Connection {
    /// Behind all that is to be sent, the FIN among it.
    pub(super) fn last(&self) -> u32 {
        self.end.wrapping_add(u32::from(self.marks.has(Marks::CLOSING)))
    }

    pub(super) fn outstanding(&self) -> u32 {
        self.snd_max.wrapping_sub(self.snd_una)
    }

    pub(super) fn under_way(&self) -> u32 {
        self.snd_nxt.wrapping_sub(self.snd_una)
    }

    pub(super) fn unsent(&self) -> u32 {
        self.last().wrapping_sub(self.snd_nxt)
    }
}

/// Times in a [`Connection`] count in these nanoseconds, so that they fit 32 bits: an hour and more.
pub(super) const TICK: u64 = 1 << 20;

pub(super) fn fields(c: &Connection, set: u8, seq: u32) -> Fields {
    Fields {
        source: c.local,
        destination: c.remote,
        source_port: c.local_port,
        destination_port: c.remote_port,
        seq,
        ack: if set & flags::ACK == 0 { 0 } else { c.rcv_nxt },
        flags: set,
        window: WINDOW,
    }
}

pub(super) fn ticks(now: u64) -> u32 {
    u32::try_from(now / TICK).unwrap_or(u32::MAX)
}
