//! TCP over IPv6: a scripted peer, a path that is narrow, links with jumbo frames, and both ends Millrace's.

use std::net::Ipv6Addr;
use std::time::Duration;

use engine::clock::Instant;
use engine::stack::{ConnectionId, Status};
use pmd::sim::{Clock, SimLane, WireOptions, receive_all, send, wire};
use pmd::{Lane, checksum};
use tables::{TcpSettings, Verdict};

use crate::support::gateway::{CLIENT_MAC, NORTH_MAC, small_tcp};
use crate::support::host::{Host, Manual};
use crate::support::{Party, World, ms, secs};

const HOST: Ipv6Addr = Ipv6Addr::new(0xfd00, 9, 1, 0, 0, 0, 0, 1);
const PEER: Ipv6Addr = Ipv6Addr::new(0xfd00, 9, 1, 0, 0, 0, 0, 2);
const ISS: u32 = 5000;
const SYN: u8 = 2;
const ACK: u8 = 16;

/// A peer that answers solicitations and keeps segments.
struct Peer {
    lane: SimLane,
    /// Headers with payloads.
    segments: Vec<Vec<u8>>,
}

impl Party for Peer {
    fn turn(&mut self, _: Instant) -> bool {
        let frames = receive_all(&mut self.lane);
        for frame in frames.iter().filter(|frame| frame[12..14] == [0x86, 0xdd]) {
            match (frame[20], frame[54]) {
                (6, _) => self.segments.push(frame[14..].to_vec()),
                (58, 135) if frame[62..78] == PEER.octets() => {
                    let mut message = vec![136, 0, 0, 0, 0x60, 0, 0, 0];
                    message.extend(PEER.octets());
                    message.extend([2, 1]);
                    message.extend(self.lane.mac());
                    self.icmp(255, &message);
                }
                _ => {}
            }
        }
        !frames.is_empty()
    }

    fn next(&mut self) -> Option<Duration> {
        self.lane.next_arrival()
    }
}

impl Peer {
    fn packet(&mut self, next: u8, hops: u8, payload: &[u8]) {
        let mut frame = [&NORTH_MAC[..], &self.lane.mac(), &[0x86, 0xdd, 0x60, 0, 0, 0]].concat();
        frame.extend((payload.len() as u16).to_be_bytes());
        frame.extend([next, hops]);
        frame.extend(PEER.octets().iter().chain(&HOST.octets()).chain(payload));
        if next == 6 {
            assert!(checksum::finish_tcp(&mut frame, 14, 40));
        }
        assert!(send(&mut self.lane, &frame));
    }

    fn icmp(&mut self, hops: u8, message: &[u8]) {
        let mut message = message.to_vec();
        let addresses = [PEER.octets(), HOST.octets()].concat();
        let seed = checksum::pseudo_header(&addresses, 58, message.len() as u16);
        let sum = !checksum::sum(seed, &message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        self.packet(58, hops, &message);
    }

    /// A segment from port 4000 to port 80.
    fn tcp(&mut self, seq: u32, ack: u32, flags: u8, options: &[u8]) {
        let mut segment = vec![0x0f, 0xa0, 0, 80];
        segment.extend(seq.to_be_bytes().iter().chain(&ack.to_be_bytes()));
        segment.extend([(((20 + options.len()) / 4) << 4) as u8, flags, 0xff, 0xff, 0, 0, 0, 0]);
        segment.extend(options);
        self.packet(6, 64, &segment);
    }

    /// Says that `segment` was too big for a path of `mtu` bytes.
    fn too_big(&mut self, mtu: u32, segment: &[u8]) {
        let message = [&[2, 0, 0, 0][..], &mtu.to_be_bytes(), &segment[..48]].concat();
        self.icmp(64, &message);
    }
}

struct Bench {
    world: World<Host<Manual>, Peer, ()>,
    ack: u32,
}

impl Bench {
    /// The peer has connected over a link of `mtu` bytes; its MSS is as large as that allows.
    fn open(mtu: u16, tcp: &TcpSettings) -> (Self, ConnectionId) {
        let clock = Clock::new();
        let mut options = WireOptions { clock: clock.clone(), ..WireOptions::default() };
        (options.left.mac, options.right.mac) = (NORTH_MAC, CLIENT_MAC);
        (options.left.mtu, options.right.mtu) = (mtu, mtu);
        let (left, right) = wire(options, 1);
        let mid = Host::new(left, &["fd00:9:1::1/64"], tcp, 7, Manual::default());
        let north = Peer { lane: right, segments: Vec::new() };
        let mut bench = Self { world: World { clock, mid, north, south: () }, ack: 0 };
        bench.world.run(secs(3));
        let [high, low] = (mtu - 60).to_be_bytes();
        bench.world.north.tcp(ISS, 0, SYN, &[2, 4, high, low]);
        bench.world.run(ms(100));
        let answer = bench.world.north.segments.remove(0);
        assert_eq!((answer[53] & 0x12, &answer[60..64]), (0x12, &[2, 4, high, low][..]), "MSS follows the MTU");
        bench.ack = u32::from_be_bytes(answer[44..48].try_into().unwrap()).wrapping_add(1);
        bench.world.north.tcp(ISS + 1, bench.ack, ACK, &[]);
        bench.world.run(ms(10));
        bench.world.north.segments.clear();
        let id = ConnectionId(*bench.world.mid.app.ids.last().expect("a connection"));
        assert_eq!(bench.world.mid.stack.status(id), Status::Open);
        (bench, id)
    }

    fn write(&mut self, id: ConnectionId, bytes: &[u8]) {
        let now = self.world.now();
        self.world.mid.with(now, |stack, _, _| stack.send(id, bytes));
    }

    /// Payload lengths of the segments that came within `span`, the sum of which is acknowledged where `acknowledge` says so.
    fn came(&mut self, span: Duration, acknowledge: bool) -> (Vec<usize>, Vec<Vec<u8>>) {
        self.world.run(span);
        let segments: Vec<_> = std::mem::take(&mut self.world.north.segments);
        let lengths: Vec<usize> = segments.iter().map(|segment| segment.len() - 60).filter(|len| *len > 0).collect();
        if acknowledge {
            self.ack = self.ack.wrapping_add(lengths.iter().sum::<usize>() as u32);
            self.world.north.tcp(ISS + 1, self.ack, ACK, &[]);
        }
        (lengths, segments)
    }
}

/// RFC 8201, with RFC 5927's checks: what is in flight may say that the path is narrow, and nothing makes it narrower than 1280.
#[test]
fn a_packet_too_big_for_its_path_is_sent_again_in_smaller_ones() {
    for (told, largest) in [(1400, 1340), (1280, 1220), (9000, 1440)] {
        let (mut bench, id) = Bench::open(1500, &small_tcp());
        bench.write(id, &[5; 1440]);
        let (lengths, segments) = bench.came(ms(5), false);
        assert_eq!(lengths, [1440]);
        let mut stale = segments[0].clone();
        stale[44..48].copy_from_slice(&bench.ack.wrapping_sub(1).to_be_bytes());
        bench.world.north.too_big(1300, &stale);
        bench.world.north.too_big(1279, &segments[0]);
        bench.world.settle();
        bench.world.run(ms(1));
        assert_eq!(bench.world.mid.drops(Verdict::IcmpUnrelated), 1, "not in flight: not believed");
        assert_eq!(bench.world.mid.drops(Verdict::IcmpInvalid), 1, "no path is so narrow");
        bench.world.north.too_big(told, &segments[0]);
        let mut got = 0;
        for _ in 0..20 {
            let (lengths, segments) = bench.came(ms(100), false);
            assert!(lengths.iter().all(|len| *len <= largest), "{lengths:?} after an MTU of {told}");
            for segment in segments.iter().filter(|segment| segment.len() > 60) {
                let seq = u32::from_be_bytes(segment[44..48].try_into().unwrap());
                got = got.max(seq.wrapping_sub(bench.ack) as usize + segment.len() - 60);
            }
            let ack = bench.ack.wrapping_add(got as u32);
            bench.world.north.tcp(ISS + 1, ack, ACK, &[]);
            if got == 1440 {
                break;
            }
        }
        assert_eq!(got, 1440, "an MTU of {told}");
        bench.world.run(ms(10));
        bench.world.north.segments.clear();
        bench.ack = bench.ack.wrapping_add(1440);
        bench.write(id, &[6; 3000]);
        let (lengths, _) = bench.came(ms(20), true);
        assert!(lengths.contains(&largest), "{lengths:?} after an MTU of {told}");
    }
}

#[test]
fn jumbo_frames_carry_as_much_as_the_link_allows() {
    let tcp = TcpSettings { send_buffer: 64 << 10, ..small_tcp() };
    let (mut bench, id) = Bench::open(9000, &tcp);
    // The congestion window has to open first.
    let (mut sum, mut largest) = (0, 0);
    for round in 0..40 {
        if round % 4 == 0 {
            bench.write(id, &[7; 20_000]);
        }
        let (lengths, _) = bench.came(ms(5), true);
        sum += lengths.iter().sum::<usize>();
        largest = lengths.into_iter().fold(largest, usize::max);
    }
    assert_eq!((sum, largest), (200_000, 8940));
}

#[test]
fn both_ends_millrace_over_ipv6() {
    let clock = Clock::new();
    let mut options = WireOptions { clock: clock.clone(), ..WireOptions::default() };
    (options.left.mac, options.right.mac) = (NORTH_MAC, CLIENT_MAC);
    let (left, right) = wire(options, 3);
    let server = Host::new(left, &["fd00:9:1::1/64"], &small_tcp(), 7, Manual::default());
    let client = Host::new(right, &["fd00:9:1::2/64"], &small_tcp(), 8, Manual::default());
    let mut world = World { clock, mid: server, north: client, south: () };
    world.run(secs(3));
    let now = world.now();
    let id = world.north.connect(now, (HOST, 80).into());
    assert!(world.run_until(secs(1), |world| world.north.stack.status(id) == Status::Open));
    world.north.with(now, |stack, _, _| stack.send(id, b"over six"));
    world.run(ms(50));
    let accepted = ConnectionId(*world.mid.app.ids.last().expect("a connection"));
    assert_eq!(world.mid.read(accepted), b"over six");
    let (_, local, remote) = world.mid.stack.addresses(accepted).expect("it lives");
    assert_eq!((local, remote.ip()), ((HOST, 80).into(), PEER.into()));
    // Nobody has this address: the connection fails after three questions.
    let now = world.now();
    let lost = world.north.connect(now, "[fd00:9:1::7]:80".parse().unwrap());
    assert!(world.run_until(secs(4), |world| world.north.stack.status(lost) != Status::Opening));
    assert!(world.north.drops(Verdict::NeighborUnresolved) > 0);
}
