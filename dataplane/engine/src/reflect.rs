//! Frames sent back to where they came from: the far end of a benchmark of wires and devices (RFC 2544), with the lanes and the bursts of a polling
//! core, and nothing else of it.
//!
//! Called by `millrace reflect`. It never asks who a frame is for, beyond what keeps a network alive: groups and what is not to be forwarded.

use pmd::{Burst, Frame, Lane, TxChecksum};

/// One core's ports, as mirrors.
pub struct Reflector<L: Lane> {
    lanes: Vec<L>,
    burst: Burst<L::Frame>,
    refused: u64,
}

impl<L: Lane> Reflector<L> {
    /// Reflects what `lanes` receive, each its own.
    #[must_use]
    pub fn new(lanes: Vec<L>) -> Self {
        Self { lanes, burst: Burst::new(), refused: 0 }
    }

    /// One burst from each lane, and back. Returns whether there was anything.
    #[inline]
    pub fn turn(&mut self) -> bool {
        let mut any = false;
        for lane in &mut self.lanes {
            lane.receive(&mut self.burst);
            if self.burst.is_empty() {
                continue;
            }
            any = true;
            let own = lane.mac();
            for mut frame in self.burst.drain(..) {
                if reverse(frame.bytes_mut(), own) {
                    lane.transmit(frame, TxChecksum::Complete);
                } else {
                    self.refused += 1;
                }
            }
            lane.flush();
        }
        any
    }

    /// The lanes, for what they counted.
    #[must_use]
    pub fn lanes(&self) -> &[L] {
        &self.lanes
    }

    /// Frames that were not sent back: too short, from a group, or for a group of those that bridges keep to themselves.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }
}

/// Turns a frame round. One that was for a group comes from `own`, since a group sends nothing. `false` where it is not to be sent.
#[inline]
fn reverse(frame: &mut [u8], own: [u8; 6]) -> bool {
    const ETHERNET_HEADER: usize = 14;
    // IEEE 802.1Q §8.6.3: spanning tree, LACP, LLDP, pause frames.
    const LINK_LOCAL: [u8; 5] = [0x01, 0x80, 0xc2, 0x00, 0x00];
    let Some(header) = frame.first_chunk_mut::<ETHERNET_HEADER>() else { return false };
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, ..] = *header;
    let group = |first: u8| first & 1 != 0;
    if group(s0) || (group(d0) && [d0, d1, d2, d3, d4] == LINK_LOCAL && d5 < 0x10) {
        return false;
    }
    let from = if group(d0) { own } else { [d0, d1, d2, d3, d4, d5] };
    header[..6].copy_from_slice(&[s0, s1, s2, s3, s4, s5]);
    header[6..12].copy_from_slice(&from);
    true
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pmd::sim::{Clock, WireOptions, receive_all, send, wire};

    use super::*;

    const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const THEIRS: [u8; 6] = [2, 0, 0, 0, 0, 9];

    fn frame(to: [u8; 6], from: [u8; 6], rest: &[u8]) -> Vec<u8> {
        [&to[..], &from, rest].concat()
    }

    #[test]
    fn what_comes_goes_back_and_a_group_sends_nothing() {
        let rest = [&[0x88, 0xb5][..], &[7; 46]].concat();
        let other = [2, 0, 0, 0, 0, 5];
        for (to, from, back) in [
            (OWN, THEIRS, Some(OWN)),
            (other, THEIRS, Some(other)),
            ([0xff; 6], THEIRS, Some(OWN)),
            ([0x33, 0x33, 0, 0, 0, 1], THEIRS, Some(OWN)),
            ([0x01, 0x80, 0xc2, 0, 0, 0x0f], THEIRS, None),
            ([0x01, 0x80, 0xc2, 0, 0, 0x10], THEIRS, Some(OWN)),
            (OWN, [0x03, 0, 0, 0, 0, 9], None),
        ] {
            let mut bytes = frame(to, from, &rest);
            let sent = reverse(&mut bytes, OWN);
            assert_eq!(
                sent.then_some(bytes),
                back.map(|back| frame(THEIRS, back, &rest)),
                "{to:02x?} from {from:02x?}"
            );
        }
        assert!(!reverse(&mut [0; 13], OWN));
    }

    #[test]
    fn every_frame_is_sent_back_or_counted() {
        let clock = Clock::new();
        let mut options = WireOptions { clock: clock.clone(), ..WireOptions::default() };
        options.left.mac = OWN;
        let (near, mut far) = wire(options, 1);
        let mut reflector = Reflector::new(vec![near]);
        assert!(!reflector.turn());
        let good = frame(OWN, THEIRS, &[0x88, 0xb5, 1, 2, 3]);
        for _ in 0..100 {
            assert!(send(&mut far, &good) && send(&mut far, &frame(OWN, [0xff; 6], &[0; 50])));
            clock.advance_to(clock.now() + Duration::from_millis(10));
            assert!(reflector.turn());
        }
        clock.advance_to(clock.now() + Duration::from_millis(10));
        let back = receive_all(&mut far);
        assert_eq!(back.len(), 100);
        assert!(back.iter().all(|bytes| *bytes == frame(THEIRS, OWN, &[0x88, 0xb5, 1, 2, 3])));
        let counted = reflector.lanes()[0].counters();
        assert_eq!((counted.rx_packets, counted.tx_packets, reflector.refused()), (200, 100, 100));
        assert_eq!(reflector.lanes()[0].frames_in_use(), 0);
    }
}
