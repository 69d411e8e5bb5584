//! When a lost segment is sent again, beyond what smoltcp knows of it.
//!
//! smoltcp sends the oldest segment again at the third duplicate ACK, and everything again when its retransmission timer ends. A second hole in the
//! same window, a retransmission that is lost too, and a tail that nobody answers all come down to that timer, 200 ms towards
//! clients. Here it is noticed that a segment is missing, by partial acknowledgments (RFC 6582 §3.2) and by a probe timer (RFC 8985 §7); the
//! stack then hands smoltcp three duplicate ACKs of its own making, which it answers with the segment. Pure state: it sends nothing itself.

use core::time::Duration;

use crate::clock::Instant;

/// Duplicate ACKs that tell of a loss (RFC 5681 §3.2).
const DUPLICATES: u8 = 3;

/// What a probe waits beyond the round trips: more than a polling core or a peer's interrupts take, and longer than peers delay the ACK of
/// a second full segment.
const MARGIN: Duration = Duration::from_millis(10);

/// Probes in a row, each after twice the time, before the rest is left to the retransmission timer.
const PROBES: u8 = 4;

/// What one connection knows of its losses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Recovery {
    /// SND.NXT when the loss was noticed. An ACK that moves on and does not reach it tells of another one.
    recover: Option<u32>,
    duplicates: u8,
    probes: u8,
    /// The next retransmission is one that this asked for.
    asked: bool,
    /// The round trip that is being measured: the sequence number behind it, and when that was sent.
    timed: Option<(u32, Instant)>,
    /// Smoothed round trip and its variation (RFC 6298 §2), nanoseconds; 0 before the first.
    srtt: u64,
    rttvar: u64,
    /// When to probe; [`Instant::NEVER`] with little on its way.
    probe_at: Instant,
    /// Bytes on their way from which on a probe makes sense: two full segments, of which the second is acknowledged at once (RFC 9293
    /// §3.8.6.3).
    least: u32,
}

/// What an ACK says, for [`Recovery::heard`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard {
    /// SND.UNA before and after it.
    pub una: (u32, u32),
    /// SND.NXT.
    pub nxt: u32,
    /// It carries nothing, acknowledges nothing new, and does not change the window, or tells of data behind a gap.
    pub duplicate: bool,
}

impl Recovery {
    /// Nothing was sent yet, on a path with this MTU.
    #[must_use]
    pub(super) fn new(mtu: u16) -> Self {
        Self {
            recover: None,
            duplicates: 0,
            probes: 0,
            asked: false,
            timed: None,
            srtt: 0,
            rttvar: 0,
            probe_at: Instant::NEVER,
            least: 2 * u32::from(mtu.saturating_sub(40)),
        }
    }

    /// Notes that bytes up to `end` went out, for the first time or not, with `flight` bytes on their way now.
    #[inline]
    pub(super) fn sent(&mut self, now: Instant, end: u32, is_new: bool, flight: u32) {
        if is_new {
            self.timed = self.timed.or(Some((end, now)));
        } else {
            // What was sent twice cannot be measured (RFC 6298 §3), and after the retransmission timer smoltcp sends everything again.
            self.timed = None;
            if !core::mem::take(&mut self.asked) {
                self.recover = None;
            }
        }
        if flight >= self.least && self.probe_at == Instant::NEVER && self.probes < PROBES {
            self.probe_at = now + self.wait();
        }
    }

    /// Notes an ACK. Returns whether the oldest segment on its way is lost and has to be sent again.
    #[inline]
    #[must_use]
    pub(super) fn heard(&mut self, now: Instant, ack: &Heard) -> bool {
        let (before, una) = ack.una;
        let flight = ack.nxt.wrapping_sub(una);
        if before == una {
            if ack.duplicate && flight > 0 {
                self.duplicates = self.duplicates.saturating_add(1);
                if self.duplicates == DUPLICATES && self.recover.is_none() {
                    self.recover = Some(ack.nxt);
                    return self.ask();
                }
            }
            return false;
        }
        self.duplicates = 0;
        self.probes = 0;
        if let Some((end, at)) = self.timed
            && una.wrapping_sub(end) as i32 >= 0
        {
            self.measured(now.since(at));
            self.timed = None;
        }
        self.probe_at = if flight >= self.least { now + self.wait() } else { Instant::NEVER };
        match self.recover {
            Some(point) if una.wrapping_sub(point) as i32 >= 0 => {
                self.recover = None;
                false
            }
            Some(_) => self.ask(),
            None => false,
        }
    }

    /// When [`Recovery::probe`] is due.
    #[inline]
    #[must_use]
    pub(super) fn due(&self) -> Instant {
        self.probe_at
    }

    /// Nobody answered in time. Returns whether the oldest segment is taken for lost and has to be sent again: not into a window that is `shut`.
    /// `nxt` is SND.NXT.
    #[must_use]
    pub(super) fn probe(&mut self, now: Instant, nxt: u32, shut: bool) -> bool {
        if shut {
            self.probe_at = Instant::NEVER;
            return false;
        }
        self.recover = self.recover.or(Some(nxt));
        self.probes += 1;
        self.probe_at = if self.probes < PROBES { now + self.wait() * (1 << self.probes) } else { Instant::NEVER };
        self.ask()
    }

    fn ask(&mut self) -> bool {
        self.asked = true;
        true
    }

    /// RFC 6298 §2.2 and §2.3.
    fn measured(&mut self, rtt: u64) {
        if self.srtt == 0 {
            (self.srtt, self.rttvar) = (rtt.max(1), rtt / 2);
        } else {
            self.rttvar = (3 * self.rttvar + self.srtt.abs_diff(rtt)) / 4;
            self.srtt = (7 * self.srtt + rtt) / 8;
        }
    }

    /// Two round trips (RFC 8985 §7.2), or what they vary by, and the margin.
    fn wait(&self) -> Duration {
        Duration::from_nanos((2 * self.srtt).max(self.srtt + 4 * self.rttvar)) + MARGIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1460;

    fn at(ms: u64) -> Instant {
        Instant(ms * 1_000_000)
    }

    fn ack(before: u32, una: u32, nxt: u32) -> Heard {
        Heard { una: (before, una), nxt, duplicate: before == una }
    }

    /// `segments` of them on their way from 0, sent at time 0 with a round trip known to be 1 ms.
    fn flight(segments: u32) -> Recovery {
        let mut recovery = Recovery::new(1500);
        recovery.sent(at(0), 0, true, 0);
        assert!(!recovery.heard(at(1), &ack(u32::MAX, 0, 0)));
        for n in 1..=segments {
            recovery.sent(at(1), n * MSS, true, n * MSS);
        }
        recovery
    }

    #[test]
    fn the_third_duplicate_and_each_partial_ack_tell_of_a_loss() {
        let mut recovery = flight(10);
        let nxt = 10 * MSS;
        let answers: Vec<bool> = (0..5).map(|_| recovery.heard(at(2), &ack(0, 0, nxt))).collect();
        assert_eq!(answers, [false, false, true, false, false]);
        recovery.sent(at(2), MSS, false, nxt);
        assert!(recovery.heard(at(3), &ack(0, 4 * MSS, nxt)), "a second hole");
        recovery.sent(at(3), 5 * MSS, false, nxt);
        assert!(!recovery.heard(at(4), &ack(4 * MSS, nxt, nxt)), "all of it");
        assert!(!recovery.heard(at(4), &ack(nxt, nxt, nxt)), "nothing is on its way");
    }

    #[test]
    fn after_the_retransmission_timer_partial_acks_are_what_they_are() {
        let mut recovery = flight(10);
        let nxt = 10 * MSS;
        assert_eq!((0..3).filter(|_| recovery.heard(at(2), &ack(0, 0, nxt))).count(), 1);
        recovery.sent(at(2), MSS, false, nxt);
        // smoltcp begins anew, and nobody asked it to.
        recovery.sent(at(300), MSS, false, nxt);
        assert!(!recovery.heard(at(301), &ack(0, 4 * MSS, nxt)));
    }

    #[test]
    fn a_tail_of_two_segments_is_probed_for_and_one_is_not() {
        let recovery = flight(2);
        assert_eq!(recovery.due(), at(14), "sent at 1 ms; a round trip of 1 ms and four times half of it; the margin");
        assert_eq!(flight(1).due(), Instant::NEVER);
    }

    #[test]
    fn probes_back_off_and_end() {
        let mut recovery = flight(5);
        let mut times = Vec::new();
        while recovery.due() != Instant::NEVER {
            let now = recovery.due();
            times.push(now.0 / 1_000_000);
            assert!(recovery.probe(now, 5 * MSS, false));
            recovery.sent(now, MSS, false, 5 * MSS);
        }
        assert_eq!(times, [14, 40, 92, 196]);
        assert!(recovery.heard(at(200), &ack(0, MSS, 5 * MSS)), "the rest is missing, too");
        assert_eq!(recovery.due(), at(200 + 13), "from the start");
    }

    #[test]
    fn sequence_numbers_wrap() {
        let mut recovery = Recovery::new(1500);
        let una = u32::MAX - MSS;
        let nxt = una.wrapping_add(5 * MSS);
        assert_eq!((0..3).filter(|_| recovery.heard(at(2), &ack(una, una, nxt))).count(), 1);
        assert!(recovery.heard(at(3), &ack(una, una.wrapping_add(2 * MSS), nxt)));
        assert!(!recovery.heard(at(3), &ack(una.wrapping_add(2 * MSS), nxt, nxt)));
    }
}
