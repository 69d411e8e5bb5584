//! Data: what comes out of order, what is lost, and what does not fit the window.

use engine::random::Random;
use engine::stack::{ConnectionId, Ended, Status};
use tables::Verdict;

use crate::support::gateway::small_tcp;
use crate::support::http::pattern;
use crate::support::script::{ACK, RST, Seg};
use crate::support::{for_seeds, ms, secs, us};
use crate::tcp::{Bench, MSS, assert_times};

/// RFC 6298 §5: towards clients, the stack's second is 200 ms; and a silent peer is given up after 60 s.
#[test]
fn retransmission_with_back_off_until_the_peer_is_given_up() {
    let (mut bench, id) = Bench::open();
    let start = bench.world.clock.now();
    bench.write(id, b"anybody?");
    let mut times = Vec::new();
    loop {
        let segment = bench.rx();
        if segment.flags.rst() {
            break;
        }
        assert_eq!((segment.seq, &segment.payload[..]), (bench.ack, &b"anybody?"[..]));
        times.push(segment.at);
    }
    assert_times(&times[..5], &[200, 400, 800, 1600]);
    let took = bench.world.clock.now() - start;
    assert!((secs(59)..secs(61)).contains(&took), "{took:?}");
    assert_eq!(bench.status(id), Status::Ended(Some(Ended::TimedOut)));
    assert_eq!(bench.world.mid.counters.tcp_timeouts.read(), 1);
    assert_eq!(bench.world.mid.counters.retransmissions.read(), times.len() as u64 - 1);
    bench.world.mid.stack.abort(id);
    bench.settle();
    bench.world.mid.assert_empty();
}

/// RFC 6298 §5.7 and RFC 5681 §3.1: an ACK ends the back-off.
#[test]
fn an_ack_ends_the_back_off() {
    let (mut bench, id) = Bench::open();
    bench.write(id, b"a");
    for _ in 0..4 {
        bench.rx();
    }
    bench.ack = bench.ack.wrapping_add(1);
    bench.tx(ACK, b"");
    bench.quiet(secs(5));
    bench.write(id, b"b");
    let first = bench.rx();
    let second = bench.rx();
    assert_eq!(first.payload, b"b");
    assert_eq!(second.payload, b"b");
    assert!(second.at - first.at <= ms(3300), "{:?}", second.at - first.at);
}

/// RFC 5681 §3.2: three duplicate ACKs say that a segment was lost, long before its timer does.
#[test]
fn fast_retransmit() {
    let (mut bench, id) = Bench::open();
    let lost = bench.ack;
    // Opens the congestion window.
    bench.write(id, &[0; 20_000]);
    while bench.ack.wrapping_sub(lost) < 20_000 {
        bench.expect(ACK);
        bench.tx(ACK, b"");
    }
    bench.settle();
    let lost = bench.ack;
    bench.write(id, &pattern(1, 6 * 1460));
    bench.settle();
    let burst: Vec<_> = bench.world.north.inbox.drain(..).collect();
    assert!(burst.len() >= 5, "{}", burst.len());
    for _ in 0..2 {
        bench.tx(ACK, b"");
    }
    bench.quiet(ms(1));
    bench.tx(ACK, b"");
    bench.settle();
    let again = bench.world.north.inbox.pop_front().expect("at the third duplicate");
    assert_eq!((again.seq, &again.payload), (lost, &burst[0].payload));
    // What is acknowledged then is not sent again.
    bench.world.north.inbox.clear();
    bench.ack = lost.wrapping_add(6 * 1460);
    bench.tx(ACK, b"");
    bench.quiet(secs(3));
}

/// RFC 9293 §3.10.7.4: data waits for what is before it, and each gap is told of at once (RFC 5681 §4.2).
#[test]
fn data_out_of_order() {
    let (mut bench, id) = Bench::open();
    bench.tx_at(10, ACK, b"world");
    bench.tx_at(5, ACK, b"small");
    bench.settle();
    let acks: Vec<u32> = bench.world.north.inbox.drain(..).map(|segment| segment.ack).collect();
    assert_eq!(acks, [bench.seq; 2], "a duplicate ACK each, at once");
    assert_eq!(bench.read(id), b"");
    bench.tx(ACK, b"hello");
    assert_eq!(bench.read(id), b"hellosmallworld");
    bench.seq = bench.seq.wrapping_add(10);
    assert_eq!(bench.expect(ACK).ack, bench.seq);
}

/// RFC 9293 §3.10.7.4: segments are trimmed to what is new, in any order, across the wrap of sequence numbers.
#[test]
fn overlapping_segments_in_any_order() {
    for_seeds(0..40, |seed| {
        let mut random = Random::new(seed);
        let (mut bench, id) = Bench::open();
        let bytes = pattern(seed, 4000);
        let mut read = Vec::new();
        // Each segment begins somewhere near what is there, and carries the right bytes for its place.
        for _ in 0..3000 {
            let at = (read.len() as u64 + random.next_u64() % 600).saturating_sub(150).min(3999) as usize;
            let end = (at + 1 + random.next_u64() as usize % 120).min(4000);
            bench.tx_at(at as i32, ACK, &bytes[at..end]);
            read.extend(bench.read(id));
            bench.world.north.inbox.clear();
            if read.len() == 4000 {
                break;
            }
        }
        assert!(read == bytes, "{} bytes", read.len());
    });
}

/// RFC 9293 §3.10.7.4, first: what is beyond the window is not taken, and answered with an ACK.
#[test]
fn data_beyond_the_window() {
    let (mut bench, id) = Bench::open();
    bench.tx_at(65_536, ACK, b"too far");
    bench.tx_at(100_000, ACK, b"too far");
    bench.tx_at(-100, ACK, b"long ago");
    bench.settle();
    assert_eq!(bench.read(id), b"");
    let last = bench.world.north.inbox.pop_back().expect("an ACK of where we are");
    assert_eq!(last.ack, bench.seq);
    bench.tx(ACK, b"right");
    assert_eq!(bench.read(id), b"right");
}

/// The buffer fills, the window closes, what comes beyond it is not taken; reading opens it again and says so (RFC 9293 §3.8.6).
#[test]
fn our_window_closes_and_opens() {
    let (mut bench, id) = Bench::open();
    let bytes = pattern(3, 65_536);
    for piece in bytes.chunks(1024) {
        bench.tx(ACK, piece);
        bench.settle();
    }
    bench.world.run(ms(50));
    let closed = bench.world.north.inbox.drain(..).next_back().unwrap();
    assert_eq!((closed.ack, closed.window), (bench.seq, 0));
    assert!(bench.world.mid.stack.is_full(id));
    bench.tx_at(0, ACK, b"x");
    bench.settle();
    assert_eq!(bench.expect(ACK).ack, bench.seq, "a probe is answered, and its byte not taken");
    assert!(bench.read(id) == bytes);
    let update = bench.expect(ACK);
    assert_eq!(update.ack, bench.seq);
    assert!(update.window > 60_000, "{}", update.window);
    bench.tx(ACK, b"more");
    assert_eq!(bench.read(id), b"more");
}

/// RFC 9293 §3.8.6.1: a closed window is probed, and sending goes on when it opens.
#[test]
fn a_closed_window_is_probed() {
    let (mut bench, id) = Bench::open();
    bench.window = 0;
    bench.tx(ACK, b"shut");
    bench.read(id);
    bench.expect(ACK);
    bench.write(id, b"patience");
    let mut probes = Vec::new();
    for _ in 0..4 {
        let probe = bench.rx();
        assert!(probe.payload.len() <= 1, "{probe:?}");
        probes.push(probe.at);
        bench.send(&bench.segment(ACK, b""));
    }
    assert!(probes.windows(2).all(|pair| pair[1] - pair[0] >= ms(100)), "{probes:?}");
    bench.settle();
    bench.world.north.inbox.clear();
    bench.window = 1000;
    bench.tx(ACK, b"");
    let segment = bench.rx();
    let taken = segment.seq.wrapping_sub(bench.ack) as usize;
    assert_eq!(segment.payload, &b"patience"[taken..]);
}

/// BEHAVIOUR.md: a window that stays shut is given up after 60 s, also if the peer goes on answering probes.
#[test]
fn a_window_that_stays_closed_is_given_up_after_60_seconds() {
    let (mut bench, id) = Bench::open();
    bench.window = 0;
    bench.tx(ACK, b"shut");
    bench.read(id);
    bench.world.run(ms(50));
    bench.world.north.inbox.clear();
    bench.write(id, b"patience");
    let start = bench.world.clock.now();
    loop {
        let segment = bench.rx();
        if segment.flags.rst() {
            break;
        }
        bench.tx(ACK, b"");
        assert!(bench.world.clock.now() - start < secs(70), "not given up");
    }
    let took = bench.world.clock.now() - start;
    assert!((secs(58)..secs(62)).contains(&took), "{took:?}");
    assert_eq!(bench.status(id), Status::Ended(Some(Ended::TimedOut)));
}

/// RFC 9293 §3.8.4: a silent peer is probed; one that answers is kept for ever, one that does not is reset.
#[test]
fn keep_alive() {
    let (mut bench, id) = Bench::open();
    let start = bench.world.clock.now();
    for n in 1..=5 {
        let probe = bench.expect(ACK);
        assert_eq!(probe.seq, bench.ack.wrapping_sub(1));
        assert!((probe.at - start).abs_diff(secs(30) * n) < ms(20), "{:?}", probe.at - start);
        bench.tx(ACK, b"");
    }
    let last = bench.world.clock.now();
    let reset = loop {
        let segment = bench.rx();
        if segment.flags.rst() {
            break segment;
        }
    };
    assert!((secs(58)..secs(62)).contains(&(reset.at - last)), "{:?}", reset.at - last);
    bench.settle();
    assert_eq!(bench.status(id), Status::Ended(Some(Ended::TimedOut)));
    bench.tx(RST, b"");
    bench.settle();
    bench.world.mid.stack.abort(id);
    bench.settle();
    bench.world.mid.assert_empty();
}

/// RFC 9293 §3.8.6.3 and RFC 1122 §4.2.3.2: an ACK may wait, but not for more than every second full segment.
#[test]
fn acks_are_delayed_a_little() {
    let (mut bench, id) = Bench::open();
    bench.tx(ACK, b"one");
    bench.read(id);
    let sent = bench.world.clock.now();
    let ack = bench.expect(ACK);
    assert!((ms(20)..ms(30)).contains(&(ack.at - sent)), "{:?}", ack.at - sent);
    for _ in 0..10 {
        bench.tx(ACK, &[0; 1460]);
        bench.settle();
        bench.read(id);
    }
    bench.world.run(us(100));
    assert!(bench.world.north.inbox.len() >= 5, "{}", bench.world.north.inbox.len());
}

/// RFC 9293 §3.10.7.4, first: a peer that has sent all that our window allows acknowledges from its right edge, and has to be heard
/// although nothing more fits; else two ends that wait for each other's window wait for ever.
#[test]
fn acks_from_the_right_edge_of_the_window_count() {
    let (mut bench, id) = Bench::open();
    bench.write(id, b"response");
    bench.expect(ACK);
    // All of the window but its first byte, which is lost.
    let bytes = pattern(3, 65_535);
    for at in (1..65_535).step_by(1000) {
        let segment = bench.segment(ACK, &bytes[at..(at + 1000).min(65_535)]);
        let ack = bench.ack.wrapping_sub(8);
        bench.send(&Seg { seq: segment.seq.wrapping_add(at as u32), ack, ..segment });
        bench.settle();
    }
    assert_eq!(bench.world.mid.stack.unsent(id), 8);
    bench.tx_at(65_535, ACK, b"");
    bench.settle();
    assert_eq!(bench.world.mid.stack.unsent(id), 0);
    // And when the window is shut.
    bench.tx(ACK, &bytes[..1]);
    bench.seq = bench.seq.wrapping_add(65_534);
    bench.tx(ACK, b"!");
    bench.settle();
    bench.world.run(ms(30));
    assert_eq!(bench.world.north.inbox.pop_back().unwrap().window, 0);
    bench.world.north.inbox.clear();
    bench.write(id, b"more");
    bench.expect(ACK);
    // From behind the byte of a probe.
    bench.tx_at(1, ACK, b"");
    bench.settle();
    assert_eq!(bench.world.mid.stack.unsent(id), 0);
    // And from a peer that took an old, larger window for the present one.
    bench.write(id, b"still more");
    bench.expect(ACK);
    bench.tx_at(5000, ACK, b"");
    bench.settle();
    assert_eq!(bench.world.mid.stack.unsent(id), 0);
}

/// RFC 9293 §3.10.7.4, fifth: the window of a segment with an older ACK is not added to what was acknowledged since.
#[test]
fn an_old_segments_window_is_not_taken_for_the_present_one() {
    let mut bench = Bench::new(&small_tcp());
    bench.window = 2000;
    let id = bench.accept(&MSS);
    let edge = bench.ack.wrapping_add(2000);
    let early = bench.segment(ACK, b"early");
    bench.write(id, &[0; 6000]);
    bench.settle();
    // Overtakes `early`: nothing is left of the window.
    bench.ack = edge;
    bench.window = 0;
    let full = bench.segment(ACK, b"");
    bench.send(&full);
    bench.settle();
    bench.world.north.inbox.clear();
    bench.send(&early);
    assert_eq!(bench.read(id), b"early");
    bench.world.run(ms(50));
    let sent: Vec<_> = bench.world.north.inbox.drain(..).collect();
    assert!(sent.iter().all(|segment| segment.payload.is_empty()), "beyond the window: {sent:?}");
}

/// RFC 9293 §3.10.7.4 and §3.10.5: an ACK or a RST goes out at SND.NXT, also while something before it is sent again. A peer that has
/// it all and whose ACK was lost would not hear it otherwise.
#[test]
fn bare_segments_go_out_at_snd_nxt_during_retransmission() {
    let (mut bench, id) = Bench::open();
    bench.write(id, &[0; 2500]);
    bench.settle();
    // As much as congestion control allows at first.
    let burst: Vec<_> = bench.world.north.inbox.drain(..).collect();
    let next = burst.last().unwrap().end();
    assert!(burst.len() > 1);
    // One segment of them comes again, for which the stack goes back to the first.
    let again = bench.rx();
    assert_eq!(again.seq, bench.ack);
    bench.settle();
    bench.world.north.inbox.clear();
    let old = bench.segment(ACK, b"data");
    bench.seq = old.end();
    bench.send(&old);
    let ack = loop {
        let segment = bench.rx();
        if segment.payload.is_empty() {
            break segment;
        }
    };
    assert_eq!((ack.seq, ack.ack), (next, bench.seq));
    bench.world.mid.stack.abort(id);
    let reset = loop {
        let segment = bench.rx();
        if segment.flags.rst() {
            break segment;
        }
    };
    assert_eq!(reset.seq, next);
}

/// A gap never makes us hold more than the window.
#[test]
fn gaps_are_bounded() {
    let (mut bench, id) = Bench::open();
    let bytes = pattern(9, 60_000);
    // Every second piece of 100 bytes: 300 gaps.
    for at in (100..60_000).step_by(200) {
        bench.tx_at(at as i32, ACK, &bytes[at..at + 100]);
        bench.settle();
    }
    assert_eq!(bench.read(id), b"");
    let mut read = Vec::new();
    for at in (0..60_000).step_by(100) {
        let gone = read.len();
        bench.tx_at(at as i32, ACK, &bytes[at..at + 100]);
        read.extend(bench.read(id));
        assert!(read.len() > gone || read.len() >= at + 100, "at {at}: {}", read.len());
    }
    assert!(read == bytes);
    assert_eq!(bench.drops(Verdict::TcpFlags), 0);
}

/// Bytes of a full segment.
const FULL: usize = 1460;

/// Sends `count` full segments into an open congestion window; the first sequence number, and the segments as they came.
fn burst(bench: &mut Bench, id: ConnectionId, count: usize) -> (u32, Vec<Seg>) {
    let start = bench.ack;
    bench.write(id, &[0; 40_000]);
    while bench.ack.wrapping_sub(start) < 40_000 {
        bench.expect(ACK);
        bench.tx(ACK, b"");
    }
    bench.settle();
    bench.world.north.inbox.clear();
    let first = bench.ack;
    bench.write(id, &pattern(1, count * FULL));
    bench.settle();
    let burst: Vec<_> = bench.world.north.inbox.drain(..).collect();
    assert_eq!(burst.len(), count);
    (first, burst)
}

/// RFC 6582 §3.2: an ACK that ends in the middle of what was on its way tells of the next hole, without a wait.
#[test]
fn a_second_hole_is_filled_at_the_partial_ack() {
    let (mut bench, id) = Bench::open();
    let (first, _) = burst(&mut bench, id, 8);
    for _ in 0..5 {
        bench.tx(ACK, b"");
    }
    bench.settle();
    assert_eq!(bench.world.north.inbox.pop_front().expect("the first hole").seq, first);
    bench.world.north.inbox.clear();
    let second = first.wrapping_add(4 * FULL as u32);
    bench.ack = second;
    bench.tx(ACK, b"");
    bench.settle();
    assert_eq!(bench.world.north.inbox.pop_front().expect("the second hole").seq, second);
    bench.world.north.inbox.clear();
    bench.ack = first.wrapping_add(8 * FULL as u32);
    bench.tx(ACK, b"");
    bench.quiet(secs(3));
    assert_eq!(bench.world.mid.counters.losses.read(), 2);
}

/// RFC 8985 §7: nobody tells of a tail that is lost, and its retransmission timer is 200 ms.
#[test]
fn a_lost_tail_is_probed_for_after_two_round_trips() {
    let (mut bench, id) = Bench::open();
    let (first, burst) = burst(&mut bench, id, 3);
    let again = bench.rx();
    assert_eq!((again.seq, &again.payload), (first, &burst[0].payload));
    let waited = again.at - burst[2].at;
    assert!((ms(10)..ms(14)).contains(&waited), "{waited:?}");
    // It is lost again.
    let again = bench.rx();
    assert_eq!(again.seq, first);
    assert!((ms(20)..ms(30)).contains(&(again.at - burst[2].at - waited)));
    // The rest follows hole by hole.
    for segments in 1..3 {
        bench.ack = first.wrapping_add(segments * FULL as u32);
        bench.tx(ACK, b"");
        bench.settle();
        assert_eq!(bench.world.north.inbox.pop_front().expect("the next one").seq, bench.ack);
        bench.world.north.inbox.clear();
    }
    bench.ack = first.wrapping_add(3 * FULL as u32);
    bench.tx(ACK, b"");
    bench.quiet(secs(3));
}

/// A peer that tells of gaps by SACK may open its window at the same time.
#[test]
fn duplicates_with_sack_count_whatever_the_window() {
    let (mut bench, id) = Bench::open();
    let (first, _) = burst(&mut bench, id, 8);
    for n in 1..=3u32 {
        let mut segment = bench.segment(ACK, b"");
        segment.window -= n as u16;
        let (from, to) = (first.wrapping_add(FULL as u32), first.wrapping_add((n + 1) * FULL as u32));
        segment.options = [&[1, 1, 5, 10][..], &from.to_be_bytes(), &to.to_be_bytes()].concat();
        bench.send(&segment);
    }
    bench.settle();
    assert_eq!(bench.world.north.inbox.pop_front().expect("at the third").seq, first);
}
