//! Segments that somebody made up: RFC 5961, and ICMP by RFC 5927.

use engine::port::Flags;
use engine::stack::{ConnectionId, Ended, Status};
use tables::Verdict;

use crate::support::gateway::small_tcp;
use crate::support::script::{ACK, FIN, RST, SYN, Seg};
use crate::support::{ms, secs};
use crate::tcp::{Bench, MSS};

const FRAGMENTATION_NEEDED: u8 = 4;

impl Bench {
    /// The forged segment is answered with a challenge ACK, and the connection goes on.
    #[track_caller]
    fn challenged(&mut self, id: ConnectionId, forged: &Seg, verdict: Verdict) {
        let before = self.drops(verdict);
        self.send(forged);
        let challenge = self.expect(ACK);
        assert_eq!((challenge.seq, challenge.ack), (self.ack, self.seq));
        assert!(challenge.window > 0 && challenge.payload.is_empty());
        assert_eq!(self.drops(verdict), before + 1);
        self.goes_on(id);
    }

    /// The forged segment gets no answer, and the connection goes on.
    #[track_caller]
    fn dropped(&mut self, id: ConnectionId, forged: &Seg, verdict: Verdict) {
        let before = self.drops(verdict);
        self.send(forged);
        self.quiet(ms(20));
        assert_eq!(self.drops(verdict), before + 1);
        self.goes_on(id);
    }

    #[track_caller]
    fn goes_on(&mut self, id: ConnectionId) {
        self.tx(ACK, b"ping");
        assert_eq!(self.read(id), b"ping");
        assert_eq!(self.expect(ACK).ack, self.seq);
        self.write(id, b"pong");
        assert_eq!(self.expect(ACK).payload, b"pong");
        self.tx(ACK, b"");
        self.quiet(ms(1));
    }

    fn at(&self, offset: u32, flags: Flags, payload: &[u8]) -> Seg {
        Seg { seq: self.seq.wrapping_add(offset), ..self.segment(flags, payload) }
    }
}

/// RFC 5961 §3.2.
#[test]
fn resets() {
    let (mut bench, id) = Bench::open();
    for offset in [1, 1000, 65_535] {
        let forged = bench.at(offset, RST, b"");
        bench.challenged(id, &forged, Verdict::RstChallenged);
    }
    for offset in [65_536, 1 << 30, 1 << 31, u32::MAX] {
        let forged = bench.at(offset, RST, b"");
        bench.dropped(id, &forged, Verdict::RstOutsideWindow);
    }
    bench.tx(RST, b"");
    bench.settle();
    assert_eq!(bench.status(id), Status::Ended(Some(Ended::Reset)));
    assert_eq!(bench.world.mid.counters.resets_received.read(), 1);
}

/// RFC 5961 §3.2: the exact number decides, whatever the RST acknowledges.
#[test]
fn an_exact_reset_needs_no_acknowledgment() {
    for flags in [RST, RST | ACK] {
        let (mut bench, id) = Bench::open();
        bench.write(id, b"unacknowledged");
        bench.settle();
        bench.tx(flags, b"");
        bench.settle();
        assert_eq!(bench.status(id), Status::Ended(Some(Ended::Reset)), "{flags:?}");
    }
}

/// RFC 5961 §4.2.
#[test]
fn syns_in_a_synchronized_state() {
    let (mut bench, id) = Bench::open();
    for offset in [0, 1, 70_000, 1 << 31, u32::MAX] {
        for flags in [SYN, SYN | ACK] {
            let forged = bench.at(offset, flags, b"");
            bench.challenged(id, &forged, Verdict::SynChallenged);
            bench.world.run(secs(1));
        }
    }
}

/// RFC 5961 §4.2: a peer that restarted answers the challenge with a RST, and can then connect.
#[test]
fn a_peer_that_restarted_gets_through() {
    let (mut bench, id) = Bench::open();
    let fresh = Seg { seq: 77, options: MSS.to_vec(), ..bench.segment(SYN, b"") };
    bench.send(&fresh);
    let challenge = bench.expect(ACK);
    bench.send(&Seg { seq: challenge.ack, ack: 0, ..bench.segment(RST, b"") });
    bench.settle();
    assert_eq!(bench.status(id), Status::Ended(Some(Ended::Reset)));
    bench.world.mid.stack.abort(id);
    bench.settle();
    bench.seq = 77;
    bench.accept(&MSS);
}

/// RFC 5961 §5.2, and RFC 9293 §3.10.7.4, fifth.
#[test]
fn acknowledgments_of_what_was_never_sent_or_long_ago() {
    let (mut bench, id) = Bench::open();
    for offset in [1, 1000, 1 << 30] {
        let forged = Seg { ack: bench.ack.wrapping_add(offset), ..bench.segment(ACK, b"evil") };
        bench.challenged(id, &forged, Verdict::AckChallenged);
    }
    let forged = Seg { ack: bench.ack.wrapping_sub(70_000), ..bench.segment(ACK, b"evil") };
    bench.challenged(id, &forged, Verdict::AckChallenged);
}

/// RFC 5961 §5.2: an ACK that is merely old may come with data that is new.
#[test]
fn data_with_an_old_ack_counts() {
    let (mut bench, id) = Bench::open();
    bench.write(id, &[1; 1000]);
    let old = bench.ack;
    bench.expect(ACK);
    bench.tx(ACK, b"");
    bench.settle();
    let late = Seg { ack: old, ..bench.segment(ACK, b"late") };
    bench.seq = late.end();
    bench.send(&late);
    assert_eq!(bench.read(id), b"late");
    assert_eq!(bench.expect(ACK).ack, bench.seq);
    bench.send(&Seg { ack: old, ..bench.segment(ACK, b"") });
    bench.quiet(ms(50));
    assert_eq!(bench.drops(Verdict::AckOld), 1);
    let end = Seg { ack: old, ..bench.segment(FIN | ACK, b"end") };
    bench.send(&end);
    assert_eq!(bench.read(id), b"end");
    assert_eq!(bench.status(id), Status::PeerClosed);
}

/// RFC 9293 §3.10.7.4, fifth: without an ACK, nothing counts.
#[test]
fn data_without_an_ack() {
    let (mut bench, id) = Bench::open();
    let forged = bench.segment(Flags::PSH, b"evil");
    bench.send(&forged);
    bench.quiet(ms(20));
    assert_eq!(bench.drops(Verdict::TcpFlags), 1);
    bench.goes_on(id);
}

/// RFC 5961 §7: ten challenges a second and connection, however many segments were forged.
#[test]
fn challenges_are_limited() {
    let (mut bench, id) = Bench::open();
    for second in 1..=3u64 {
        for _ in 0..500 {
            let forged = bench.at(5, RST, b"");
            bench.send(&forged);
        }
        bench.settle();
        assert_eq!(bench.world.north.inbox.drain(..).count(), 10);
        assert_eq!(bench.world.mid.counters.challenge_acks.read(), 10 * second);
        assert_eq!(bench.world.mid.counters.challenge_acks_withheld.read(), 490 * second);
        bench.world.run(secs(1));
    }
    bench.goes_on(id);
}

/// RFC 1122 §4.2.3.9 and RFC 5927 §6.2: a soft error once established.
#[test]
fn unreachable_while_established_is_a_soft_error() {
    let (mut bench, id) = Bench::open();
    bench.write(id, b"hello");
    let segment = bench.expect(ACK);
    for code in [0, 1, 2, 3, 13] {
        bench.world.north.send_icmp(3, code, 0, &segment);
    }
    bench.tx(ACK, b"");
    bench.settle();
    bench.goes_on(id);
}

/// RFC 1122 §4.2.3.9: and the end of a connection that is being made, if it quotes our SYN.
#[test]
fn unreachable_while_connecting_ends_it() {
    let mut bench = Bench::new(&small_tcp());
    let id = bench.connect();
    let syn = bench.expect(SYN);
    bench.world.north.send_icmp(3, 1, 0, &Seg { seq: syn.seq.wrapping_add(1), ..syn.clone() });
    bench.settle();
    assert_eq!(bench.status(id), Status::Opening);
    assert_eq!(bench.drops(Verdict::IcmpUnrelated), 1);
    bench.world.north.send_icmp(3, 1, 0, &syn);
    bench.settle();
    assert_eq!(bench.status(id), Status::Ended(Some(Ended::Reset)));
}

/// An ICMP error about a client's handshake cannot end it: anybody could send it.
#[test]
fn unreachable_in_syn_received_changes_nothing() {
    let mut bench = Bench::new(&small_tcp());
    bench.syn(&MSS);
    let answer = bench.expect(SYN | ACK);
    bench.world.north.send_icmp(3, 1, 0, &answer);
    bench.settle();
    bench.ack = answer.end();
    bench.tx(ACK, b"hi");
    bench.settle();
    assert_eq!(bench.world.mid.app.ids.len(), 1);
}

/// RFC 1191, with RFC 5927's checks: what is in flight may say that the path is narrow, and a floor holds.
#[test]
fn fragmentation_needed() {
    for (told, largest) in [(1400, 1360), (0, 1452), (68, 512), (9000, 1460)] {
        let (mut bench, id) = Bench::open();
        bench.write(id, &[5; 1460]);
        let segment = bench.expect(ACK);
        assert_eq!(segment.payload.len(), 1460);
        // Not in flight: not believed.
        let stale = Seg { seq: segment.seq.wrapping_sub(1), ..segment.clone() };
        bench.world.north.send_icmp(3, FRAGMENTATION_NEEDED, 600, &stale);
        bench.settle();
        assert_eq!(bench.drops(Verdict::IcmpUnrelated), 1);
        bench.world.north.send_icmp(3, FRAGMENTATION_NEEDED, told, &segment);
        bench.settle();
        bench.ack = segment.seq;
        let mut got = 0;
        while got < 1460 {
            let piece = bench.expect(ACK);
            assert!(piece.payload.len() <= largest, "{} bytes after an MTU of {told}", piece.payload.len());
            got += piece.payload.len();
            bench.tx(ACK, b"");
        }
    }
}
