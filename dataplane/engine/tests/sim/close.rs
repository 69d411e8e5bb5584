//! How connections end, and that nothing is left of them.

use engine::stack::{Ended, Status};
use tables::{TcpSettings, Verdict};

use crate::support::gateway::small_tcp;
use crate::support::script::{ACK, FIN, RST, SYN};
use crate::support::{ms, secs};
use crate::tcp::{Bench, ISS, MSS};

impl Bench {
    /// Entries in TIME-WAIT, and sockets.
    fn left(&self) -> (u64, u64) {
        let host = &self.world.mid;
        host.stack.report(&host.counters);
        (host.counters.time_wait.read(), host.counters.sockets.read())
    }

    /// A connection in TIME-WAIT, as the host sees it.
    fn in_time_wait() -> Self {
        let (mut bench, id) = Bench::open();
        bench.close(id);
        bench.expect(FIN | ACK);
        bench.tx(FIN | ACK, b"");
        bench.expect(ACK);
        assert_eq!(bench.left(), (1, 0), "no buffers");
        bench
    }
}

/// RFC 9293 figure 12.
#[test]
fn we_close_first() {
    let (mut bench, id) = Bench::open();
    bench.close(id);
    bench.expect(FIN | ACK);
    bench.tx(ACK, b"");
    bench.quiet(ms(500));
    bench.tx(FIN | ACK, b"");
    let last = bench.expect(ACK);
    assert_eq!(last.ack, bench.seq);
    assert_eq!(bench.left(), (1, 0));
    bench.quiet(ms(1900));
    assert_eq!(bench.left(), (1, 0));
    bench.quiet(ms(200));
    bench.world.mid.assert_empty();
}

/// RFC 9293 §3.6, case 2: no TIME-WAIT for who closes second.
#[test]
fn the_peer_closes_first() {
    let (mut bench, id) = Bench::open();
    bench.tx(FIN | ACK, b"");
    assert_eq!(bench.expect(ACK).ack, bench.seq);
    assert_eq!(bench.status(id), Status::PeerClosed);
    bench.close(id);
    bench.expect(FIN | ACK);
    bench.tx(ACK, b"");
    bench.settle();
    bench.world.mid.assert_empty();
    bench.quiet(secs(5));
}

/// RFC 9293 figure 13.
#[test]
fn both_close_at_once() {
    let (mut bench, id) = Bench::open();
    let before = bench.ack;
    bench.close(id);
    bench.expect(FIN | ACK);
    let after = std::mem::replace(&mut bench.ack, before);
    bench.tx(FIN | ACK, b"");
    bench.ack = after;
    assert_eq!(bench.rx().ack, bench.seq);
    assert_eq!(bench.left(), (0, 1), "CLOSING");
    bench.tx(ACK, b"");
    bench.settle();
    assert_eq!(bench.left(), (1, 0), "TIME-WAIT");
    bench.quiet(secs(3));
    bench.world.mid.assert_empty();
}

/// RFC 9293 §3.6: who has closed may still receive.
#[test]
fn data_comes_after_our_fin() {
    let (mut bench, id) = Bench::open();
    bench.shut_down(id);
    bench.expect(FIN | ACK);
    for piece in [b"still ", b"comes "] {
        bench.tx(ACK, piece);
        assert_eq!(bench.read(id), piece);
        assert_eq!(bench.expect(ACK).ack, bench.seq);
    }
    bench.tx(FIN | ACK, b"!");
    assert_eq!(bench.read(id), b"!");
    assert_eq!(bench.expect(ACK).ack, bench.seq);
}

/// RFC 9293 §3.6: and who has been closed may still send.
#[test]
fn data_goes_after_the_peers_fin() {
    let (mut bench, id) = Bench::open();
    bench.tx(FIN | ACK, b"");
    bench.expect(ACK);
    bench.write(id, b"one more thing");
    assert_eq!(bench.expect(ACK).payload, b"one more thing");
    bench.tx(ACK, b"");
    bench.close(id);
    bench.expect(FIN | ACK);
    bench.tx(ACK, b"");
    bench.settle();
    bench.world.mid.assert_empty();
}

/// RFC 9293 §3.10.7.4, eighth: the FIN counts behind the data.
#[test]
fn a_fin_with_data() {
    let (mut bench, id) = Bench::open();
    bench.tx(FIN | ACK, b"last words");
    bench.settle();
    assert_eq!(bench.status(id), Status::PeerClosed);
    assert_eq!(bench.read(id), b"last words");
    assert_eq!(bench.expect(ACK).ack, bench.seq);
}

/// RFC 9293 §3.10.7.4: a FIN that comes before data that precedes it waits, or comes again.
#[test]
fn a_fin_out_of_order_ends_nothing_early() {
    let (mut bench, id) = Bench::open();
    bench.tx_at(5, FIN | ACK, b"there");
    bench.settle();
    assert_eq!(bench.status(id), Status::Open);
    bench.tx(ACK, b"hello");
    bench.settle();
    bench.seq = bench.seq.wrapping_add(5);
    assert_eq!(bench.world.north.inbox.pop_back().unwrap().ack, bench.seq, "the data counts, the FIN does not");
    bench.tx(FIN | ACK, b"");
    bench.settle();
    assert_eq!(bench.status(id), Status::PeerClosed);
    assert_eq!(bench.read(id), b"hellothere");
}

/// What was given to send goes out before the FIN, whatever the window.
#[test]
fn everything_is_sent_before_the_fin() {
    let mut bench = Bench::new(&small_tcp());
    bench.window = 3000;
    let id = bench.accept(&MSS);
    let bytes: Vec<u8> = (0..100_000u32).map(|i| (i >> 3) as u8).collect();
    bench.write(id, &bytes);
    bench.close(id);
    let mut got: Vec<u8> = Vec::new();
    loop {
        let segment = bench.rx();
        assert_eq!(segment.seq, bench.ack);
        bench.ack = segment.end();
        got.extend(&segment.payload);
        bench.tx(ACK, b"");
        if segment.flags.fin() {
            break;
        }
    }
    assert!(got == bytes);
}

#[test]
fn a_lost_fin_is_sent_again() {
    let (mut bench, id) = Bench::open();
    bench.close(id);
    let first = bench.expect(FIN | ACK);
    let second = bench.expect(FIN | ACK);
    assert_eq!(second.seq, first.seq);
    assert!((ms(195)..ms(205)).contains(&(second.at - first.at)), "{:?}", second.at - first.at);
}

/// RFC 9293 §3.10.7.4: our last ACK was lost.
#[test]
fn a_fin_again_in_time_wait_is_acknowledged_and_time_wait_begins_anew() {
    let mut bench = Bench::in_time_wait();
    bench.quiet(ms(1500));
    bench.tx_at(-1, FIN | ACK, b"");
    let ack = bench.expect(ACK);
    assert_eq!((ack.seq, ack.ack), (bench.ack, bench.seq));
    bench.quiet(ms(1900));
    assert_eq!(bench.left(), (1, 0));
    bench.quiet(ms(200));
    bench.world.mid.assert_empty();
}

/// RFC 1337 §3.
#[test]
fn a_reset_in_time_wait_is_ignored() {
    let mut bench = Bench::in_time_wait();
    bench.tx(RST, b"");
    bench.tx(RST | ACK, b"");
    bench.quiet(ms(100));
    assert_eq!(bench.left(), (1, 0));
    assert_eq!(bench.drops(Verdict::TimeWait), 2);
}

/// RFC 6191 §2, without timestamps.
#[test]
fn a_syn_beyond_the_old_numbers_opens_anew_from_time_wait() {
    let mut bench = Bench::in_time_wait();
    let old = (bench.seq, bench.ack);
    bench.seq = ISS;
    bench.syn(&MSS);
    let challenge = bench.expect(ACK);
    assert_eq!((challenge.seq, challenge.ack), (old.1, old.0), "an old SYN gets the last ACK again");
    bench.seq = old.0.wrapping_add(1000);
    let id = bench.accept(&MSS);
    assert_eq!(bench.left(), (0, 1));
    bench.tx(ACK, b"again");
    assert_eq!(bench.read(id), b"again");
}

/// Many connections in TIME-WAIT are bounded; the oldest goes.
#[test]
fn time_wait_is_bounded() {
    let mut bench = Bench::new(&TcpSettings { max_time_wait: 3, ..small_tcp() });
    for port in 0..10 {
        (bench.ports.0, bench.seq, bench.ack) = (4000 + port, ISS, 0);
        let id = bench.accept(&MSS);
        bench.close(id);
        bench.expect(FIN | ACK);
        bench.tx(FIN | ACK, b"");
        bench.expect(ACK);
        assert!(bench.left().0 <= 3);
    }
    bench.quiet(secs(3));
    bench.world.mid.assert_empty();
}

/// A peer that acknowledges our FIN and never closes is reset after the linger time.
#[test]
fn a_peer_that_never_closes_is_reset_after_the_linger_time() {
    let (mut bench, id) = Bench::open();
    bench.close(id);
    bench.expect(FIN | ACK);
    bench.tx(ACK, b"");
    bench.quiet(ms(1900));
    let reset = bench.rx();
    assert!(reset.is(RST) || reset.is(RST | ACK), "{reset:?}");
    assert_eq!(reset.seq, bench.ack);
    bench.settle();
    bench.world.mid.assert_empty();
}

/// A peer that is gone when we close is forgotten.
#[test]
fn a_peer_that_never_acknowledges_our_fin_is_forgotten() {
    let (mut bench, id) = Bench::open();
    bench.close(id);
    bench.world.run(secs(70));
    bench.world.mid.assert_empty();
}

/// What a client sends to a connection that we have let go of is thrown away, and neither fills the window nor is kept.
#[test]
fn what_comes_after_we_let_go_is_thrown_away() {
    let (mut bench, id) = Bench::open();
    bench.close(id);
    bench.expect(FIN | ACK);
    for _ in 0..200 {
        bench.tx(ACK, &[0; 1000]);
        bench.settle();
    }
    bench.world.run(ms(50));
    let last = bench.world.north.inbox.pop_back().unwrap();
    assert_eq!(last.ack, bench.seq);
    assert!(last.window > 60_000);
}

/// RFC 9293 §3.10.5: ABORT.
#[test]
fn an_abort_sends_a_reset() {
    let (mut bench, id) = Bench::open();
    bench.write(id, b"never mind");
    bench.world.mid.stack.abort(id);
    let reset = bench.rx();
    assert!(reset.flags.rst(), "{reset:?}");
    assert_eq!(reset.seq, bench.ack);
    bench.quiet(secs(1));
    bench.world.mid.assert_empty();
}

/// RFC 9293 §3.10.7.4, second: in every state a connection ends with the peer's reset.
#[test]
fn a_reset_ends_every_state() {
    let shut = |bench: &mut Bench, id| {
        bench.shut_down(id);
        bench.expect(FIN | ACK);
    };
    for state in ["ESTABLISHED", "FIN-WAIT-1", "FIN-WAIT-2", "CLOSE-WAIT", "LAST-ACK", "CLOSING"] {
        let (mut bench, id) = Bench::open();
        match state {
            "FIN-WAIT-1" => {
                let ack = bench.ack;
                shut(&mut bench, id);
                bench.ack = ack;
            }
            "FIN-WAIT-2" => {
                shut(&mut bench, id);
                bench.tx(ACK, b"");
            }
            "CLOSE-WAIT" => bench.tx(FIN | ACK, b""),
            "LAST-ACK" => {
                bench.tx(FIN | ACK, b"");
                bench.expect(ACK);
                shut(&mut bench, id);
            }
            "CLOSING" => {
                let ack = bench.ack;
                shut(&mut bench, id);
                bench.ack = ack;
                bench.tx(FIN | ACK, b"");
            }
            _ => {}
        }
        bench.settle();
        bench.world.north.inbox.clear();
        bench.tx(RST, b"");
        bench.settle();
        assert_eq!(bench.status(id), Status::Ended(Some(Ended::Reset)), "{state}");
        bench.world.mid.stack.abort(id);
        bench.quiet(secs(1));
        bench.world.mid.assert_empty();
    }
}

/// The handshake's last ACK and a FIN in one segment.
#[test]
fn a_fin_completes_the_handshake() {
    let mut bench = Bench::new(&small_tcp());
    bench.syn(&MSS);
    bench.ack = bench.expect(SYN | ACK).end();
    bench.tx(FIN | ACK, b"request");
    bench.settle();
    let id = engine::stack::ConnectionId(*bench.world.mid.app.ids.last().unwrap());
    assert_eq!(bench.status(id), Status::PeerClosed);
    assert_eq!(bench.read(id), b"request");
    bench.world.north.inbox.clear();
    bench.close(id);
    let fin = bench.expect(FIN | ACK);
    assert_eq!(fin.ack, bench.seq);
    bench.tx(ACK, b"");
    bench.settle();
    bench.world.mid.assert_empty();
}
