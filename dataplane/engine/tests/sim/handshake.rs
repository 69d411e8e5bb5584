//! How connections begin.

use engine::stack::{Ended, Status};
use tables::{SynCookies, TcpSettings, Verdict};

use crate::support::gateway::small_tcp;
use crate::support::script::{ACK, RST, SYN, Seg};
use crate::support::{ms, secs};
use crate::tcp::{Bench, ISS, MSS, assert_times};

/// RFC 9293 §3.5.
#[test]
fn three_segments_open_a_connection() {
    let (mut bench, id) = Bench::open();
    bench.tx(ACK, b"hello");
    assert_eq!(bench.read(id), b"hello");
    let ack = bench.expect(ACK);
    assert_eq!(ack.ack, bench.seq);
    bench.write(id, b"world");
    assert_eq!(bench.expect(ACK).payload, b"world");
}

/// RFC 9293 §3.10.7.4: the probe that smoltcp sends when its keep-alive is switched on is not wanted here.
#[test]
fn nothing_is_sent_right_after_the_handshake() {
    let (mut bench, _) = Bench::open();
    bench.quiet(secs(29));
    let (mut bench, _) = Bench::connected();
    bench.quiet(secs(29));
}

/// The largest payload of 5000 bytes that the host sends after a SYN with these options.
fn largest_payload(options: &[u8]) -> usize {
    let mut bench = Bench::new(&small_tcp());
    let id = bench.accept(options);
    bench.write(id, &[7; 5000]);
    let mut largest = 0;
    let mut got = 0;
    while got < 5000 {
        let segment = bench.expect(ACK);
        largest = largest.max(segment.payload.len());
        got += segment.payload.len();
        bench.tx(ACK, b"");
    }
    largest
}

/// RFC 9293 §3.7.1: an MSS is obeyed, and none is 536. A tiny one would make headers most of what we send.
#[test]
fn the_peers_mss_is_obeyed() {
    assert_eq!(largest_payload(&MSS), 1460);
    assert_eq!(largest_payload(&[2, 4, 2, 0]), 512);
    assert_eq!(largest_payload(&[]), 536);
    assert_eq!(largest_payload(&[2, 4, 0, 1]), 64);
    assert_eq!(largest_payload(&[2, 4, 0, 0]), 64);
    assert_eq!(largest_payload(&[2, 4, 0xff, 0xff]), 1460, "our own MTU bounds it");
}

/// RFC 9293 §3.7.1 and RFC 7323 §2.2: ours is said; a window scale only to who has one.
#[test]
fn options_of_a_syn_ack() {
    let answer = |options: &[u8]| {
        let mut bench = Bench::new(&small_tcp());
        bench.syn(options);
        bench.expect(SYN | ACK)
    };
    let plain = answer(&MSS);
    assert_eq!(plain.option(2), Some(&[5, 180][..]));
    assert_eq!(plain.option(3), None);
    let scaled = answer(&[1, 3, 3, 7]);
    assert_eq!(scaled.option(3), Some(&[1][..]), "64 KiB need one bit more than there are");
    assert_eq!(answer(&[]).option(2), Some(&[5, 180][..]));
}

/// RFC 7323 §2.3: a shift above 14 is 14.
#[test]
fn a_window_scale_of_15_is_14() {
    for shift in [14, 15, 255] {
        let mut bench = Bench::new(&small_tcp());
        bench.window = 1;
        let id = bench.accept(&[2, 4, 5, 180, 1, 3, 3, shift]);
        bench.write(id, &[1; 60_000]);
        let una = bench.ack;
        // Until congestion control would allow more than that window.
        let mut most = 0;
        for _ in 0..60 {
            let segment = bench.expect(ACK);
            most = most.max(segment.end().wrapping_sub(bench.ack.wrapping_sub(segment.payload.len() as u32)));
            assert!(segment.end().wrapping_sub(una) <= 60_000);
            bench.tx(ACK, b"");
            bench.settle();
            if bench.ack.wrapping_sub(una) == 60_000 {
                break;
            }
        }
        assert_eq!(bench.ack.wrapping_sub(una), 60_000, "a window of 16 KiB and not of a byte");
        assert!(most <= 16_384);
    }
}

/// RFC 9293 §3.10.7.4: the answer to a repeated SYN comes by the SYN-ACK's own timer, so that a SYN costs one reply.
#[test]
fn a_repeated_syn_is_the_same_connection() {
    let mut bench = Bench::new(&small_tcp());
    bench.syn(&MSS);
    let first = bench.expect(SYN | ACK);
    let again = Seg { seq: ISS, options: MSS.to_vec(), ..bench.segment(SYN, b"") };
    bench.send(&again);
    bench.quiet(ms(150));
    eprintln!("{:?}", Verdict::ALL.iter().map(|v| (v, bench.drops(*v))).filter(|v| v.1 > 0).collect::<Vec<_>>());
    assert_eq!(bench.drops(Verdict::AckOld), 1);
    let second = bench.expect(SYN | ACK);
    assert_eq!((second.seq, second.ack), (first.seq, first.ack));
    bench.ack = first.end();
    bench.tx(ACK, b"x");
    bench.settle();
    assert_eq!(bench.world.mid.app.ids.len(), 1);
    assert_eq!(bench.world.mid.stack.live(), 1);
}

/// RFC 6298 at five times real time, and the limit on handshakes.
#[test]
fn a_syn_ack_is_repeated_with_back_off_and_then_given_up() {
    let mut bench = Bench::new(&small_tcp());
    bench.syn(&MSS);
    let mut times = Vec::new();
    let start = bench.world.clock.now();
    loop {
        let segment = bench.rx();
        if !segment.is(SYN | ACK) {
            assert!(segment.is(RST | ACK) || segment.is(RST), "{segment:?}");
            break;
        }
        times.push(segment.at);
    }
    assert_times(&times[..5], &[200, 400, 800, 1600]);
    let took = bench.world.clock.now() - start;
    assert!((ms(9_900)..ms(10_200)).contains(&took), "{took:?}");
    bench.settle();
    bench.world.mid.assert_empty();
}

/// RFC 9293 §3.10.7.4, second: back to LISTEN, which here means that nothing is kept.
#[test]
fn a_reset_in_syn_received_frees_everything() {
    let mut bench = Bench::new(&small_tcp());
    bench.syn(&MSS);
    bench.expect(SYN | ACK);
    bench.tx_at(1, RST, b"");
    bench.settle();
    assert_eq!(bench.world.mid.stack.live(), 1, "in the window and not exact (RFC 5961 §3.2)");
    bench.world.north.inbox.clear();
    bench.tx(RST, b"");
    bench.quiet(secs(1));
    bench.world.mid.assert_empty();
    assert!(bench.world.mid.app.ids.is_empty(), "nobody above heard of it");
}

/// RFC 9293 §3.10.7.4, fifth: an unacceptable ACK in SYN-RECEIVED gets `<SEQ=SEG.ACK><CTL=RST>`.
#[test]
fn a_wrong_ack_in_syn_received_is_reset() {
    let mut bench = Bench::new(&small_tcp());
    bench.syn(&MSS);
    let answer = bench.expect(SYN | ACK);
    let wrong = answer.end().wrapping_add(5);
    bench.send(&Seg { ack: wrong, ..bench.segment(ACK, b"") });
    let reset = bench.rx();
    assert!(reset.is(RST), "{reset:?}");
    assert_eq!(reset.seq, wrong);
    // The handshake itself goes on.
    bench.ack = answer.end();
    bench.tx(ACK, b"x");
    bench.settle();
    assert_eq!(bench.world.mid.app.ids.len(), 1);
}

/// RFC 4987 §3: what a flood of SYNs can take is bounded, and free again when handshakes end.
#[test]
fn half_open_connections_are_limited() {
    let mut bench = Bench::new(&TcpSettings { half_open: 2, syn_cookies: SynCookies::Never, ..small_tcp() });
    for port in 0..10 {
        bench.ports.0 = 4000 + port;
        bench.send(&Seg { options: MSS.to_vec(), ..bench.segment(SYN, b"") });
    }
    bench.settle();
    assert_eq!(bench.world.north.inbox.len(), 2);
    assert_eq!(bench.drops(Verdict::HalfOpenLimit), 8);
    bench.world.run(secs(11));
    bench.world.north.inbox.clear();
    bench.world.mid.assert_empty();
    bench.ports.0 = 5000;
    bench.accept(&MSS);
    bench.world.mid.stack.report(&bench.world.mid.counters);
    assert_eq!(bench.world.mid.counters.half_open.read(), 0);
}

#[test]
fn connections_are_limited() {
    let mut bench = Bench::new(&TcpSettings { max_connections: 1, ..small_tcp() });
    let id = bench.accept(&MSS);
    let first = (bench.seq, bench.ack);
    bench.ports.0 = 4001;
    bench.syn(&MSS);
    bench.quiet(secs(1));
    assert_eq!(bench.drops(Verdict::ConnectionLimit), 1);
    // The first one does not notice.
    bench.ports.0 = 4000;
    (bench.seq, bench.ack) = first;
    bench.tx(ACK, b"still here");
    assert_eq!(bench.read(id), b"still here");
}

/// RFC 9293 §3.10.7.1.
#[test]
fn segments_to_nobody_are_reset() {
    let mut bench = Bench::new(&small_tcp());
    bench.ports.1 = 81;
    bench.syn(&MSS);
    let reset = bench.rx();
    assert!(reset.is(RST | ACK));
    assert_eq!((reset.seq, reset.ack), (0, bench.seq));
    bench.ports.1 = 80;
    bench.ack = 77;
    bench.tx(ACK, b"stray");
    let reset = bench.rx();
    assert!(reset.is(RST));
    assert_eq!(reset.seq, 77);
    bench.tx(RST, b"");
    bench.quiet(secs(1));
    assert_eq!(bench.drops(Verdict::TcpNoConnection), 3);
}

#[test]
fn resets_to_nobody_are_limited() {
    let mut bench = Bench::new(&TcpSettings { resets_per_second: 40, ..small_tcp() });
    // The first one makes the host ask for the peer's Ethernet address, for which only a few packets wait.
    bench.tx(ACK, b"stray");
    bench.world.run(secs(1));
    bench.world.north.inbox.clear();
    for _ in 0..500 {
        bench.tx(ACK, b"stray");
    }
    bench.settle();
    assert_eq!(bench.world.north.inbox.len(), 10, "a quarter of a second's worth");
    assert_eq!(bench.drops(Verdict::TcpNoConnection), 501);
    let counters = &bench.world.mid.counters;
    assert_eq!(counters.resets_sent.read() + counters.resets_withheld.read(), 501);
}

/// RFC 6298 at ten times real time.
#[test]
fn our_syn_is_repeated_with_back_off() {
    let mut bench = Bench::new(&small_tcp());
    bench.connect();
    let times: Vec<_> = (0..5).map(|_| bench.expect(SYN).at).collect();
    assert_times(&times, &[100, 200, 400, 800]);
}

/// RFC 9293 §3.10.7.3, second.
#[test]
fn a_refused_connection_ends() {
    let mut bench = Bench::new(&small_tcp());
    let id = bench.connect();
    let syn = bench.expect(SYN);
    bench.ports = (8080, syn.source.1);
    // A RST that does not acknowledge our SYN says nothing.
    bench.ack = syn.end().wrapping_add(1);
    bench.tx(RST | ACK, b"");
    bench.settle();
    assert_eq!(bench.status(id), Status::Opening);
    bench.world.north.inbox.clear();
    bench.ack = syn.end();
    bench.tx(RST | ACK, b"");
    bench.settle();
    assert_eq!(bench.status(id), Status::Ended(Some(Ended::Reset)));
    bench.world.mid.stack.abort(id);
    bench.quiet(secs(1));
    bench.world.mid.assert_empty();
}

/// RFC 9293 figure 7: both ends open at once.
#[test]
fn simultaneous_open() {
    let mut bench = Bench::new(&small_tcp());
    let id = bench.connect();
    let syn = bench.expect(SYN);
    bench.ports = (8080, syn.source.1);
    bench.syn(&MSS);
    let answer = bench.expect(SYN | ACK);
    assert_eq!((answer.seq, answer.ack), (syn.seq, bench.seq));
    bench.ack = syn.end();
    bench.tx(ACK, b"");
    bench.settle();
    assert_eq!(bench.status(id), Status::Open);
    bench.tx(ACK, b"both");
    assert_eq!(bench.read(id), b"both");
}

/// A next hop that nobody answers for fails what waits for it, long before TCP would.
#[test]
fn connecting_to_a_host_that_is_not_there_fails_early() {
    let mut bench = Bench::new(&small_tcp());
    bench.world.north.answers_arp = false;
    let id = bench.connect();
    let ended = Status::Ended(Some(Ended::TimedOut));
    assert!(bench.world.run_until(secs(5), |world| world.mid.stack.status(id) == ended));
    bench.world.mid.stack.abort(id);
    bench.quiet(secs(10));
    bench.world.mid.assert_empty();
    assert!(bench.drops(Verdict::NeighborUnresolved) > 0);
}
