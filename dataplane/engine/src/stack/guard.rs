//! What a segment may do to a connection before smoltcp sees it (RFC 5961, RFC 9293 §3.10.7.4).
//!
//! smoltcp closes on any RST in the window, ignores a SYN in a synchronized state, accepts ACKs of data that was never
//! sent, and throws away the data of a segment whose ACK is old. A pure function over what both ends know puts that right.

use tables::Verdict;

use crate::port::Segment;

/// Where a connection stands, in sequence numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    /// Oldest sequence number of ours that is not acknowledged.
    pub snd_una: u32,
    /// The next that we shall send, never sent before.
    pub snd_nxt: u32,
    /// The largest window that the peer ever offered, in bytes.
    pub max_window: u32,
    /// The next sequence number that we expect.
    pub rcv_nxt: u32,
    /// What we can take beyond it, in bytes.
    pub rcv_window: u32,
    /// What we could take if nothing waited to be read: the largest window there is.
    pub rcv_buffer: u32,
    /// The handshake is complete, or the peer's SYN has at least been seen.
    pub phase: Phase,
}

/// How far the handshake is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Our SYN is out; nothing is known of the peer's numbers. smoltcp's checks are right.
    SynSent,
    /// The peer's SYN is in, our SYN is not acknowledged.
    SynReceived,
    /// Both are synchronized.
    Synchronized,
}

/// What to do with a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judgement {
    /// Hand it over as it is.
    Deliver,
    /// Hand it over with its ACK replaced by SND.UNA: the ACK is old, the data may be new.
    DeliverWithAck(u32),
    /// Hand it over with its sequence number replaced by RCV.NXT: a bare ACK from further on in the window.
    DeliverWithSeq(u32),
    /// Drop it, and send an ACK of where we stand.
    Challenge(Verdict),
    /// Drop it.
    Drop(Verdict),
}

/// Judges `segment`.
#[must_use]
pub(super) fn judge(at: &Position, segment: &Segment) -> Judgement {
    if at.phase == Phase::SynSent {
        return Judgement::Deliver;
    }
    if segment.flags.rst() {
        return judge_rst(at, segment);
    }
    if segment.flags.syn() {
        return judge_syn(at, segment);
    }
    if !segment.flags.ack() {
        // Everything after the handshake's first segment acknowledges something (RFC 9293 §3.10.7.4, fifth).
        return Judgement::Drop(Verdict::TcpFlags);
    }
    match at.phase {
        // A wrong ACK here is answered with a RST (RFC 9293 §3.10.7.4), which smoltcp does.
        Phase::SynReceived | Phase::SynSent => Judgement::Deliver,
        Phase::Synchronized => judge_ack(at, segment),
    }
}

/// RFC 5961 §3.2.
fn judge_rst(at: &Position, segment: &Segment) -> Judgement {
    let offset = segment.seq.wrapping_sub(at.rcv_nxt);
    if offset == 0 {
        Judgement::Deliver
    } else if offset < at.rcv_window {
        Judgement::Challenge(Verdict::RstChallenged)
    } else {
        Judgement::Drop(Verdict::RstOutsideWindow)
    }
}

/// RFC 5961 §4.2. Before the handshake is complete, the peer's SYN may simply have been sent again: our SYN-ACK's own timer answers it.
fn judge_syn(at: &Position, segment: &Segment) -> Judgement {
    let again = at.phase == Phase::SynReceived && segment.seq.wrapping_add(1) == at.rcv_nxt;
    match (again, segment.flags.ack()) {
        (true, false) => Judgement::Drop(Verdict::AckOld),
        // The SYN-ACK of a simultaneous open (RFC 9293 figure 7): its ACK counts.
        (true, true) => Judgement::Deliver,
        (false, _) => Judgement::Challenge(Verdict::SynChallenged),
    }
}

/// RFC 5961 §5.2: SND.UNA − MAX.SND.WND ≤ SEG.ACK ≤ SND.NXT.
fn judge_ack(at: &Position, segment: &Segment) -> Judgement {
    let ahead = segment.ack.wrapping_sub(at.snd_una);
    if ahead <= at.snd_nxt.wrapping_sub(at.snd_una) {
        // Who has sent all that the window allows, or more because it shrank or to probe it, acknowledges from its right edge or
        // beyond. smoltcp takes nothing from there, and would not hear the ACKs of a peer that is itself waiting for our window
        // (RFC 9293 §3.10.7.4: "special allowance should be made to accept valid ACKs").
        let offset = segment.seq.wrapping_sub(at.rcv_nxt);
        if segment.len() == 0 && offset > 0 && offset <= at.rcv_buffer {
            return Judgement::DeliverWithSeq(at.rcv_nxt);
        }
        return Judgement::Deliver;
    }
    let behind = at.snd_una.wrapping_sub(segment.ack);
    if behind > at.max_window {
        return Judgement::Challenge(Verdict::AckChallenged);
    }
    if segment.len() == 0 {
        return Judgement::Drop(Verdict::AckOld);
    }
    Judgement::DeliverWithAck(at.snd_una)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::Flags;

    const AT: Position = Position {
        snd_una: 1000,
        snd_nxt: 1500,
        max_window: 800,
        rcv_nxt: u32::MAX - 10,
        rcv_window: 100,
        rcv_buffer: 300,
        phase: Phase::Synchronized,
    };

    fn segment(flags: Flags, seq: u32, ack: u32, payload_len: usize) -> Segment {
        Segment { seq, ack, flags, payload_len, ..Segment::test() }
    }

    fn rst(offset: u32) -> Judgement {
        judge(&AT, &segment(Flags::RST, AT.rcv_nxt.wrapping_add(offset), 0, 0))
    }

    #[test]
    fn rfc_5961_3_2_resets() {
        assert_eq!(rst(0), Judgement::Deliver);
        assert_eq!(rst(1), Judgement::Challenge(Verdict::RstChallenged));
        assert_eq!(rst(99), Judgement::Challenge(Verdict::RstChallenged));
        assert_eq!(rst(100), Judgement::Drop(Verdict::RstOutsideWindow));
        assert_eq!(rst(u32::MAX), Judgement::Drop(Verdict::RstOutsideWindow));
    }

    #[test]
    fn rfc_5961_4_2_syn_in_a_synchronized_state() {
        for seq in [AT.rcv_nxt, AT.rcv_nxt.wrapping_sub(1), 7] {
            for flags in [Flags::SYN, Flags::SYN | Flags::ACK] {
                assert_eq!(judge(&AT, &segment(flags, seq, 1000, 0)), Judgement::Challenge(Verdict::SynChallenged));
            }
        }
    }

    #[test]
    fn a_syn_sent_again_is_not_a_challenge() {
        let at = Position { phase: Phase::SynReceived, ..AT };
        let syn = |flags, seq| judge(&at, &segment(flags, seq, 0, 0));
        assert_eq!(syn(Flags::SYN, AT.rcv_nxt.wrapping_sub(1)), Judgement::Drop(Verdict::AckOld));
        assert_eq!(syn(Flags::SYN | Flags::ACK, AT.rcv_nxt.wrapping_sub(1)), Judgement::Deliver);
        assert_eq!(syn(Flags::SYN, AT.rcv_nxt), Judgement::Challenge(Verdict::SynChallenged));
    }

    #[test]
    fn rfc_5961_5_2_acks() {
        let ack = |ack, len| judge(&AT, &segment(Flags::ACK, AT.rcv_nxt, ack, len));
        assert_eq!(ack(1000, 0), Judgement::Deliver);
        assert_eq!(ack(1500, 0), Judgement::Deliver);
        assert_eq!(ack(1501, 0), Judgement::Challenge(Verdict::AckChallenged));
        assert_eq!(ack(999, 0), Judgement::Drop(Verdict::AckOld));
        assert_eq!(ack(999, 5), Judgement::DeliverWithAck(1000));
        assert_eq!(ack(200, 5), Judgement::DeliverWithAck(1000));
        assert_eq!(ack(199, 5), Judgement::Challenge(Verdict::AckChallenged));
    }

    #[test]
    fn rfc_9293_3_10_7_4_bare_acks_from_the_windows_right_edge_and_beyond() {
        let ack =
            |at: &Position, offset, len| judge(at, &segment(Flags::ACK, at.rcv_nxt.wrapping_add(offset), 1000, len));
        assert_eq!(ack(&AT, 0, 0), Judgement::Deliver);
        assert_eq!(ack(&AT, 1, 0), Judgement::DeliverWithSeq(AT.rcv_nxt));
        assert_eq!(ack(&AT, 100, 0), Judgement::DeliverWithSeq(AT.rcv_nxt));
        assert_eq!(ack(&AT, 300, 0), Judgement::DeliverWithSeq(AT.rcv_nxt));
        assert_eq!(ack(&AT, 301, 0), Judgement::Deliver, "left to smoltcp, which answers it");
        assert_eq!(ack(&AT, 100, 1), Judgement::Deliver);
        let shut = Position { rcv_window: 0, ..AT };
        assert_eq!(ack(&shut, 1, 0), Judgement::DeliverWithSeq(AT.rcv_nxt));
    }

    #[test]
    fn an_old_ack_with_a_fin_still_counts() {
        let fin = segment(Flags::FIN | Flags::ACK, AT.rcv_nxt, 999, 0);
        assert_eq!(judge(&AT, &fin), Judgement::DeliverWithAck(1000));
    }

    #[test]
    fn a_segment_without_ack_is_dropped_and_syn_sent_is_left_to_the_stack() {
        assert_eq!(judge(&AT, &segment(Flags::PSH, AT.rcv_nxt, 0, 1)), Judgement::Drop(Verdict::TcpFlags));
        let at = Position { phase: Phase::SynSent, ..AT };
        assert_eq!(judge(&at, &segment(Flags::RST, 5, 5, 0)), Judgement::Deliver);
    }
}
