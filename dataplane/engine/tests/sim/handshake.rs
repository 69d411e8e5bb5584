//! How connections begin.

use engine::stack::Status;
use tables::{TcpSettings, Verdict};

use crate::support::gateway::small_tcp;
use crate::support::script::{ACK, RST, SYN, Seg};
use crate::support::{ms, secs, us};
use crate::tcp::{Bench, ISS, MSS};

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
