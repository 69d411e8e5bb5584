//! One host of Millrace's against a scripted peer, and what the tests of single connections share.

use std::net::Ipv4Addr;
use std::time::Duration;

use engine::port::Flags;
use engine::stack::{ConnectionId, Status};
use pmd::sim::{Clock, WireOptions, wire};
use tables::{TcpSettings, Verdict};

use crate::support::gateway::{CLIENT_MAC, NORTH_MAC, small_tcp};
use crate::support::host::{Host, Manual};
use crate::support::script::{ACK, SYN, Script, Seg};
use crate::support::{World, secs, us};

pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 9, 1, 1);
pub const PEER: Ipv4Addr = Ipv4Addr::new(10, 9, 1, 2);

/// Initial sequence number of the peer, just before numbers wrap.
pub const ISS: u32 = u32::MAX - 100;

/// MSS 1460, no window scale: windows are in bytes.
pub const MSS: [u8; 4] = [2, 4, 5, 180];

/// A host, and a peer with one connection to it.
pub struct Bench {
    pub world: World<Host<Manual>, Script, ()>,
    /// The peer's next sequence number.
    pub seq: u32,
    /// What the peer expects next.
    pub ack: u32,
    pub window: u16,
    /// Ports of the peer and of the host.
    pub ports: (u16, u16),
}

impl Bench {
    pub fn new(tcp: &TcpSettings) -> Self {
        let clock = Clock::new();
        let mut options = WireOptions { clock: clock.clone(), ..WireOptions::default() };
        options.left.mac = NORTH_MAC;
        options.right.mac = CLIENT_MAC;
        let (left, right) = wire(options, 1);
        let mid = Host::new(left, &["10.9.1.1/24"], tcp, 7, Manual::default());
        let north = Script::new(right, PEER.octets(), NORTH_MAC);
        let mut bench =
            Self { world: World { clock, mid, north, south: () }, seq: ISS, ack: 0, window: 60_000, ports: (4000, 80) };
        // Away from time 0, and from the start of a tick.
        bench.world.run(us(1_234_567));
        bench
    }

    /// The peer has connected.
    pub fn open() -> (Self, ConnectionId) {
        let mut bench = Self::new(&small_tcp());
        let id = bench.accept(&MSS);
        (bench, id)
    }

    /// The peer connects with these options in its SYN.
    pub fn accept(&mut self, options: &[u8]) -> ConnectionId {
        self.syn(options);
        let answer = self.expect(SYN | ACK);
        assert_eq!(answer.ack, self.seq);
        self.ack = answer.end();
        self.tx(ACK, b"");
        self.settle();
        let id = ConnectionId(*self.world.mid.app.ids.last().expect("a connection"));
        assert_eq!(self.status(id), Status::Open);
        id
    }

    /// The host has connected to the peer.
    pub fn connected() -> (Self, ConnectionId) {
        let mut bench = Self::new(&small_tcp());
        let id = bench.connect();
        let syn = bench.expect(SYN);
        bench.ports = (8080, syn.source.1);
        bench.ack = syn.end();
        bench.send(&Seg { options: MSS.to_vec(), ..bench.segment(SYN | ACK, b"") });
        bench.seq = bench.seq.wrapping_add(1);
        let answer = bench.expect(ACK);
        assert_eq!((answer.seq, answer.ack), (bench.ack, bench.seq));
        assert_eq!(bench.status(id), Status::Open);
        (bench, id)
    }

    /// The host begins to connect to the peer's port 8080.
    pub fn connect(&mut self) -> ConnectionId {
        let now = self.world.now();
        self.world.mid.connect(now, "10.9.1.2:8080".parse().unwrap())
    }

    /// A segment of the peer's at its present numbers.
    pub fn segment(&self, flags: Flags, payload: &[u8]) -> Seg {
        Seg {
            at: Duration::ZERO,
            source: (PEER, self.ports.0),
            destination: (HOST, self.ports.1),
            seq: self.seq,
            ack: if flags.ack() { self.ack } else { 0 },
            flags,
            window: self.window,
            options: Vec::new(),
            payload: payload.to_vec(),
        }
    }

    /// The peer sends `segment` as it is.
    pub fn send(&mut self, segment: &Seg) {
        self.world.north.send(segment);
    }

    /// The peer sends a SYN.
    pub fn syn(&mut self, options: &[u8]) {
        self.send(&Seg { options: options.to_vec(), ..self.segment(SYN, b"") });
        self.seq = self.seq.wrapping_add(1);
    }

    /// The peer sends a segment in sequence.
    pub fn tx(&mut self, flags: Flags, payload: &[u8]) {
        let segment = self.segment(flags, payload);
        self.seq = segment.end();
        self.send(&segment);
    }

    /// The peer sends a segment that is `offset` away from what the host expects, and goes on as if it had not.
    pub fn tx_at(&mut self, offset: i32, flags: Flags, payload: &[u8]) {
        let segment = self.segment(flags, payload);
        self.send(&Seg { seq: segment.seq.wrapping_add_signed(offset), ..segment });
    }

    /// The next segment that the host sends, within 100 s.
    #[track_caller]
    pub fn rx(&mut self) -> Seg {
        let came = self.world.run_until(secs(100), |world| !world.north.inbox.is_empty());
        assert!(came, "the host sends nothing");
        self.world.north.inbox.pop_front().unwrap()
    }

    /// The same, which has to have these flags. The peer takes note of what it acknowledges from now on.
    #[track_caller]
    pub fn expect(&mut self, flags: Flags) -> Seg {
        let segment = self.rx();
        assert!(segment.is(flags), "{flags:?} is expected, not {segment:?}");
        if self.ack == segment.seq {
            self.ack = segment.end();
        }
        segment
    }

    /// The host sends nothing for `span`.
    #[track_caller]
    pub fn quiet(&mut self, span: Duration) {
        self.world.run(span);
        assert_eq!(self.world.north.inbox.pop_front(), None, "nothing is to be sent");
    }

    /// What is on its way arrives. Less than any timer.
    pub fn settle(&mut self) {
        self.world.run(us(100));
    }

    pub fn status(&self, id: ConnectionId) -> Status {
        self.world.mid.stack.status(id)
    }

    pub fn read(&mut self, id: ConnectionId) -> Vec<u8> {
        self.settle();
        self.world.mid.read(id)
    }

    pub fn write(&mut self, id: ConnectionId, bytes: &[u8]) {
        self.world.mid.stack.send(id, bytes);
    }

    pub fn drops(&self, verdict: Verdict) -> u64 {
        self.world.mid.drops(verdict)
    }

    /// The host lets go of the connection.
    pub fn close(&mut self, id: ConnectionId) {
        let now = self.world.now();
        self.world.mid.stack.close(id, now, secs(2));
    }

    /// The host closes its side only.
    pub fn shut_down(&mut self, id: ConnectionId) {
        self.world.mid.stack.shut_down(id);
    }
}

/// The moments are so many milliseconds apart, give or take a timer's tick and the wire.
#[track_caller]
pub fn assert_times(times: &[Duration], gaps: &[u64]) {
    let measured: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(measured.len(), gaps.len());
    for (measured, gap) in measured.iter().zip(gaps) {
        let wanted = Duration::from_millis(*gap);
        assert!(measured.abs_diff(wanted) < us(400), "{measured:?} instead of {wanted:?}, of {times:?}");
    }
}
