//! Neighbors that do not answer: connections to them that were not established end at once.
//!
//! Who they are is known by looking through the slots, a bounded number in a turn.

use core::net::IpAddr;
use core::ops::Range;

use super::connection::{Ended, Side};
use super::{ConnectionId, Stack};

/// Slots looked at in a turn, so that other traffic does not wait.
const SLOTS_A_TURN: u32 = 1024;

/// Neighbors looked for at a time. Connections to others end by their own timer.
const ADDRESSES: usize = 64;

/// Who is being looked for.
#[derive(Debug, Default)]
pub(super) struct Unreachable {
    /// Each with the number of slots that are still to be looked at.
    addresses: Vec<(IpAddr, u32)>,
    /// The slot to go on with.
    next: u32,
}

impl Unreachable {
    fn add(&mut self, address: IpAddr, slots: u32) {
        self.addresses.retain(|(known, _)| *known != address);
        if self.addresses.len() < ADDRESSES && slots > 0 {
            self.addresses.push((address, slots));
        }
    }

    /// Slots to look at now, of `slots`.
    fn step(&mut self, slots: u32) -> Range<u32> {
        let from = if self.next >= slots { 0 } else { self.next };
        let to = slots.min(from + SLOTS_A_TURN);
        self.next = to;
        from..to
    }

    /// So many were looked at.
    fn looked(&mut self, count: u32) {
        self.addresses.retain_mut(|(_, left)| {
            *left = left.saturating_sub(count.max(1));
            *left > 0
        });
    }
}

impl Stack {
    /// Nobody at `address` answers: what waits for a handshake with it is given up in the next turns.
    pub fn unreachable(&mut self, address: IpAddr) {
        let slots = self.slots();
        self.unreachable.add(address, slots);
    }

    /// Goes on with looking for connections to those who do not answer. Returns whether there was anything to do.
    #[inline]
    pub fn give_up_unreachable(&mut self) -> bool {
        if self.unreachable.addresses.is_empty() {
            return false;
        }
        self.look();
        true
    }

    #[cold]
    fn look(&mut self) {
        let slots = self.unreachable.step(self.slots());
        for id in slots.clone().map(ConnectionId) {
            let Self { unreachable, slots, .. } = self;
            let Some(Some(connection)) = slots.get_mut(id.0 as usize) else { continue };
            let sought = |address| unreachable.addresses.iter().any(|(sought, _)| *sought == address);
            if connection.side == Side::Backend && !connection.established && sought(connection.track.remote) {
                connection.ended = Some(Ended::TimedOut);
                connection.pooled.socket_mut().abort();
                self.mark_ready(id);
                self.mark_dirty(id);
            }
        }
        self.unreachable.looked(slots.end - slots.start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_is_looked_at_once_for_each_address() {
        let mut sought = Unreachable::default();
        let (a, b): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let slots = 2 * SLOTS_A_TURN + 5;
        let mut seen = [vec![0; slots as usize], vec![0; slots as usize]];
        sought.add(a, slots);
        for turn in 0.. {
            if turn == 1 {
                // In the middle of the walk.
                sought.add(b, slots);
            }
            if sought.addresses.is_empty() {
                break;
            }
            let step = sought.step(slots);
            assert!(step.len() <= SLOTS_A_TURN as usize);
            for (address, seen) in [a, b].iter().zip(&mut seen) {
                if sought.addresses.iter().any(|(sought, _)| sought == address) {
                    step.clone().for_each(|slot| seen[slot as usize] += 1);
                }
            }
            sought.looked(step.len() as u32);
            assert!(turn < 10);
        }
        assert!(seen.iter().all(|seen| seen.iter().all(|&times| times >= 1)), "none is left out");
        for n in 0..200u32 {
            sought.add(IpAddr::from(n.to_be_bytes()), 10);
        }
        assert_eq!(sought.addresses.len(), ADDRESSES);
        sought.add(a, 0);
        assert_eq!(sought.addresses.len(), ADDRESSES, "without slots there is nothing to look for");
    }
}
