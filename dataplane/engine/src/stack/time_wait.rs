//! Connections in TIME-WAIT (RFC 9293 §3.6.1), without buffers.

use std::collections::VecDeque;

use tables::Verdict;

use crate::clock::Instant;
use crate::flow::FlowKey;
use crate::port::Segment;

/// One connection that both sides have closed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    /// Its addresses.
    pub key: FlowKey,
    /// The key's hash in the flow table.
    pub hash: u64,
    /// Our next sequence number, behind our FIN.
    pub snd_nxt: u32,
    /// The peer's next sequence number, behind its FIN.
    pub rcv_nxt: u32,
    /// When it is forgotten.
    pub until: Instant,
}

/// What a segment for a connection in TIME-WAIT gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Our last ACK again, and TIME-WAIT begins anew: the peer sent its FIN again.
    Acknowledge,
    /// The entry goes, and the SYN opens a new connection (RFC 6191 §2, without timestamps: a larger sequence number).
    Reopen,
    /// Nothing.
    Drop(Verdict),
}

impl Entry {
    /// What `segment` gets.
    #[must_use]
    pub(super) fn answer(&self, segment: &Segment) -> Answer {
        // A RST ends nothing here (RFC 1337 §3).
        if segment.flags.rst() {
            return Answer::Drop(Verdict::TimeWait);
        }
        let ahead = segment.seq.wrapping_sub(self.rcv_nxt) as i32;
        if segment.flags.syn() && !segment.flags.ack() && ahead > 0 {
            return Answer::Reopen;
        }
        if segment.len() > 0 { Answer::Acknowledge } else { Answer::Drop(Verdict::TimeWait) }
    }
}

/// The entries of a core: a slab, and the order in which they end.
#[derive(Debug)]
pub(super) struct TimeWait {
    entries: Vec<Option<(u64, Entry)>>,
    free: Vec<u32>,
    /// Ends in their order, with slot and serial number; an entry whose end moved, or that is gone, is found out when its turn comes.
    order: VecDeque<(Instant, u32, u64)>,
    /// Tells an entry from the next one in its slot.
    serial: u64,
    capacity: usize,
    live: usize,
}

impl TimeWait {
    /// Room for `capacity` entries.
    #[must_use]
    pub(super) fn new(capacity: usize) -> Self {
        Self { entries: Vec::new(), free: Vec::new(), order: VecDeque::new(), serial: 0, capacity, live: 0 }
    }

    /// Entries now.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        self.live
    }

    /// Whether another entry needs an old one to go first.
    #[must_use]
    pub(super) fn is_full(&self) -> bool {
        self.live >= self.capacity
    }

    /// The entry in `slot`.
    #[must_use]
    pub(super) fn entry(&self, slot: u32) -> Option<&Entry> {
        self.entries.get(slot as usize)?.as_ref().map(|(_, entry)| entry)
    }

    /// Adds an entry, and returns its slot.
    pub(super) fn insert(&mut self, entry: Entry) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            // Bounded by `capacity`, a u32 in configuration.
            (self.entries.len() - 1) as u32
        });
        self.serial += 1;
        self.order.push_back((entry.until, slot, self.serial));
        self.live += 1;
        if let Some(place) = self.entries.get_mut(slot as usize) {
            *place = Some((self.serial, entry));
        }
        slot
    }

    /// Lets `slot` end at `until` instead.
    pub(super) fn extend(&mut self, slot: u32, until: Instant) {
        if let Some(Some((_, entry))) = self.entries.get_mut(slot as usize) {
            entry.until = until;
        }
    }

    /// Removes `slot`.
    pub(super) fn remove(&mut self, slot: u32) -> Option<Entry> {
        let (_, entry) = self.entries.get_mut(slot as usize)?.take()?;
        self.free.push(slot);
        self.live -= 1;
        Some(entry)
    }

    /// Removes one entry that has ended by `now`, or, where `oldest` is asked for, the one that ends first.
    pub(super) fn expire(&mut self, now: Instant, oldest: bool) -> Option<(u32, Entry)> {
        while let Some(&(at, slot, serial)) = self.order.front() {
            if at > now && !oldest {
                return None;
            }
            self.order.pop_front();
            match self.entries.get(slot as usize) {
                Some(Some((own, entry))) if *own == serial => {
                    if entry.until > at && !oldest {
                        self.order.push_back((entry.until, slot, serial));
                    } else {
                        return self.remove(slot).map(|entry| (slot, entry));
                    }
                }
                // Gone already.
                _ => {}
            }
        }
        None
    }

    /// When the next entry may end.
    #[must_use]
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.order.front().map(|&(at, ..)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::Flags;

    fn entry(port: u16, until: u64) -> Entry {
        let remote = std::net::SocketAddr::new("10.0.0.2".parse().unwrap(), port);
        let key = FlowKey::new("10.0.0.1:80".parse().unwrap(), remote);
        Entry { key, hash: 0, snd_nxt: 100, rcv_nxt: u32::MAX, until: Instant(until) }
    }

    fn answer(flags: Flags, seq: u32, payload_len: usize) -> Answer {
        entry(1, 1).answer(&Segment { flags, seq, payload_len, ..Segment::test() })
    }

    #[test]
    fn rfc_1337_and_6191() {
        assert_eq!(answer(Flags::RST, u32::MAX, 0), Answer::Drop(Verdict::TimeWait));
        assert_eq!(answer(Flags::SYN, 5, 0), Answer::Reopen);
        assert_eq!(answer(Flags::SYN, u32::MAX, 0), Answer::Acknowledge);
        assert_eq!(answer(Flags::SYN | Flags::ACK, 5, 0), Answer::Acknowledge);
        assert_eq!(answer(Flags::FIN | Flags::ACK, u32::MAX - 1, 0), Answer::Acknowledge);
        assert_eq!(answer(Flags::ACK, u32::MAX, 0), Answer::Drop(Verdict::TimeWait));
        assert_eq!(answer(Flags::ACK, u32::MAX - 1, 1), Answer::Acknowledge);
    }

    #[test]
    fn entries_end_in_order_and_slots_are_used_again() {
        let mut waiting = TimeWait::new(3);
        let slots: Vec<u32> = (1..=3).map(|i| waiting.insert(entry(i, u64::from(i) * 10))).collect();
        assert!(waiting.is_full());
        assert!(waiting.expire(Instant(9), false).is_none());
        assert_eq!(waiting.expire(Instant(10), false).map(|(s, _)| s), Some(slots[0]));
        waiting.extend(slots[1], Instant(100));
        assert_eq!(waiting.expire(Instant(50), false).map(|(s, _)| s), Some(slots[2]));
        assert!(waiting.expire(Instant(99), false).is_none());
        assert_eq!(waiting.expire(Instant(100), false).map(|(s, _)| s), Some(slots[1]));
        assert_eq!(waiting.len(), 0);
        assert_eq!(waiting.insert(entry(9, 200)), slots[1]);
        assert_eq!(waiting.expire(Instant(0), true).map(|(_, e)| e.key.remote().port()), Some(9));
    }
}
