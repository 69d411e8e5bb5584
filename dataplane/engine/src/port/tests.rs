//! A port against a scripted peer: frames in, verdicts and frames out.

mod interfaces;
mod ipv6_host;
mod ipv6_packets;
mod neighbors;

use super::ethernet::BROADCAST;
use super::*;
use crate::flow::FlowKey;
use core::net::SocketAddr;
use pmd::sim::{SimLane, WireOptions, receive_all, wire};
use pmd::{Burst, RxChecksum, checksum};
use proptest::prelude::*;
use tables::RouteSettings;

const US: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEER: [u8; 6] = [2, 0, 0, 0, 0, 2];
const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];
const OUR_IP: Ipv4Addr = Ipv4Addr::new(10, 9, 1, 1);
const PEER_IP: Ipv4Addr = Ipv4Addr::new(10, 9, 1, 2);
const ROUTER_IP: Ipv4Addr = Ipv4Addr::new(10, 9, 1, 254);

/// A port on the left end of a wire, and whoever talks to it on the right one.
struct Bench {
    port: Port<SimLane>,
    peer: SimLane,
    counters: CoreCounters,
    now: Instant,
    delivered: u64,
}

impl Bench {
    fn new(tcp: &TcpSettings, rx_offload: bool) -> Self {
        let mut options = WireOptions::default();
        options.left.rx_offload = rx_offload;
        options.left.rx_ring = 65_536;
        let (left, peer) = wire(options, 1);
        let mut settings =
            PortSettings::untagged("north", vec!["10.9.1.1/24".parse().unwrap(), "fd00:9:1::1/64".parse().unwrap()]);
        let gateway = |destination: &str, via: IpAddr| RouteSettings {
            destination: destination.parse().unwrap(),
            via: vec![via],
        };
        settings.interfaces[0].routes.push(gateway("0.0.0.0/0", ROUTER_IP.into()));
        Self::with(left, peer, &settings, tcp)
    }

    fn with(left: SimLane, peer: SimLane, settings: &PortSettings, tcp: &TcpSettings) -> Self {
        let port = Port::new(0, left, settings, tcp);
        Self { port, peer, counters: CoreCounters::new(1), now: Instant::default(), delivered: 0 }
    }

    fn wait(&mut self, step: Duration) {
        self.peer.clock().advance(step);
        self.now = Instant(self.peer.clock().now().as_nanos() as u64);
    }

    /// Time passes, with maintenance whenever it is due.
    fn live(&mut self, span: Duration) {
        let end = self.now + span;
        while self.port.next_maintenance() <= end {
            let step = self.port.next_maintenance() - self.now;
            self.wait(step);
            self.port.maintain(self.now, &self.counters);
        }
        self.wait(end - self.now);
    }

    fn drops(&self, verdict: Verdict) -> u64 {
        self.counters.drops[verdict as usize].read()
    }

    /// Lets the port take a frame, and checks that it became exactly one thing.
    fn take(&mut self, frame: &[u8]) -> Ingress<<SimLane as Lane>::Frame> {
        assert!(pmd::sim::send(&mut self.peer, frame));
        self.wait(Duration::from_micros(10));
        let mut burst = Burst::new();
        self.port.lane_mut().receive(&mut burst);
        assert_eq!(burst.len(), 1);
        let before = self.sum();
        let result = self.port.ingress(self.now, burst.pop().unwrap(), &self.counters);
        self.delivered += u64::from(!matches!(result, Ingress::Done));
        assert_eq!(self.sum() - before, 1, "one frame is one thing: {frame:02x?}");
        result
    }

    fn sum(&self) -> u64 {
        let of_ours = [Verdict::NeighborUnresolved, Verdict::NeighborQueueFull, Verdict::NoRoute];
        let dropped = Verdict::ALL.iter().filter(|v| !of_ours.contains(v)).map(|v| self.drops(*v));
        self.delivered + self.port.consumed() + dropped.sum::<u64>()
    }

    /// The verdict on a frame; `None` where it was delivered or consumed.
    fn verdict(&mut self, frame: &[u8]) -> Option<Verdict> {
        let before: Vec<u64> = self.counters.drops.iter().map(|d| d.read()).collect();
        self.take(frame);
        Verdict::ALL.iter().copied().find(|v| self.drops(*v) != before[*v as usize])
    }

    fn segment(&mut self, frame: &[u8]) -> Segment {
        match self.take(frame) {
            Ingress::Segment(_, segment) => segment,
            other => panic!("{other:?}"),
        }
    }

    /// What the port sent since the last call.
    fn sent(&mut self) -> Vec<Vec<u8>> {
        self.port.lane_mut().flush();
        self.wait(Duration::from_micros(10));
        receive_all(&mut self.peer)
    }

    /// Sends a packet of ours that holds `mark`.
    fn send(&mut self, destination: Ipv4Addr, mark: u8) {
        let mut frame = self.port.packet(21).unwrap();
        let packet = &mut frame.bytes_mut()[ETHERNET..];
        assert!(ipv4::write(packet, ipv4::TCP, OUR_IP, destination));
        packet[20] = mark;
        self.port.send(self.now, frame, destination.into(), TxChecksum::Complete, &self.counters);
    }

    fn knows(&mut self, address: Ipv4Addr, mac: [u8; 6]) {
        self.send(address, 0);
        assert!(matches!(self.take(&arp_reply(mac, address)), Ingress::Done));
        assert_eq!(self.sent().last().unwrap()[..6], mac);
    }
}

fn bench() -> Bench {
    Bench::new(&TcpSettings::default(), false)
}

fn ethernet(to: [u8; 6], from: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&to, &from, &ethertype.to_be_bytes()[..], payload].concat()
}

fn ip_packet(protocol: u8, source: Ipv4Addr, destination: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; 20];
    packet.extend(payload);
    assert!(ipv4::write(&mut packet, protocol, source, destination));
    packet
}

/// A frame from the peer to us.
fn ip_frame(protocol: u8, payload: &[u8]) -> Vec<u8> {
    ethernet(US, PEER, ethernet::IPV4, &ip_packet(protocol, PEER_IP, OUR_IP, payload))
}

/// A segment from port 4000 to port 80 with these flags, options and payload; its checksum is right.
fn tcp(flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let offset = ((5 + options.len() / 4) << 4) as u8;
    let mut segment = vec![0x0f, 0xa0, 0, 80, 0, 0, 1, 0, 0, 0, 2, 0, offset, flags, 0x10, 0, 0, 0, 0, 0];
    segment.extend(options);
    segment.extend(payload);
    finish(ip_frame(ipv4::TCP, &segment))
}

/// Makes all checksums right.
fn finish(mut frame: Vec<u8>) -> Vec<u8> {
    let l3_len = usize::from(frame[ETHERNET] & 0x0f) * 4;
    assert!(checksum::finish_tcp(&mut frame, ETHERNET, l3_len));
    frame
}

fn changed(mut frame: Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    change(&mut frame);
    frame
}

fn arp_request(mac: [u8; 6], sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    arp_frame(BROADCAST, arp::Packet { request: true, sender_mac: mac, sender, target_mac: [0; 6], target })
}

fn arp_reply(mac: [u8; 6], sender: Ipv4Addr) -> Vec<u8> {
    arp_frame(US, arp::Packet { request: false, sender_mac: mac, sender, target_mac: US, target: OUR_IP })
}

fn arp_frame(to: [u8; 6], packet: arp::Packet) -> Vec<u8> {
    let mut bytes = [0; arp::Packet::LEN];
    assert!(packet.write(&mut bytes));
    ethernet(to, packet.sender_mac, ethernet::ARP, &bytes)
}

/// Whom an ARP request asks for, and by which Ethernet destination.
fn asked(frame: &[u8]) -> Option<(Ipv4Addr, [u8; 6])> {
    (frame[12..14] == ethernet::ARP.to_be_bytes()).then(|| {
        let packet = arp::Packet::parse(&frame[14..]).unwrap();
        assert!(packet.request && packet.sender == OUR_IP && packet.sender_mac == US);
        (packet.target, frame[..6].try_into().unwrap())
    })
}

const ACK: u8 = 0x10;
const SYN: u8 = 0x02;

#[test]
fn each_bad_frame_has_its_verdict() {
    use Verdict as V;
    let good = || tcp(ACK, &[], b"hello");
    let ip_at = |at: usize, value: u8| finish(changed(good(), |f| f[ETHERNET + at] = value));
    let source = |ip: [u8; 4]| finish(changed(good(), |f| f[26..30].copy_from_slice(&ip)));
    let target = |ip: [u8; 4]| finish(changed(good(), |f| f[30..34].copy_from_slice(&ip)));
    let tcp_at = |at: usize, value: u8| finish(changed(good(), |f| f[34 + at] = value));
    // Behind an IP header with options.
    let ip_options = |options: [u8; 4]| {
        let frame = changed(good(), |f| {
            f.splice(34..34, options);
            f[14] = 0x46;
            f[17] += 4;
        });
        finish(frame)
    };
    let mut cases = vec![
        ("good", good(), None),
        ("runt", vec![0; 13], Some(V::Truncated)),
        ("headers only", good()[..14].to_vec(), Some(V::Truncated)),
        ("19 bytes of IP", good()[..33].to_vec(), Some(V::Truncated)),
        ("another's MAC", changed(good(), |f| f[5] = 9), Some(V::NotOurMac)),
        ("a group's MAC", changed(good(), |f| f[0] = 3), Some(V::NotOurMac)),
        ("broadcast, but our address", changed(good(), |f| f[..6].fill(0xff)), Some(V::NotOurMac)),
        ("LLC", changed(good(), |f| f[12..14].copy_from_slice(&[0, 60])), Some(V::EtherType)),
        ("LLDP", changed(good(), |f| f[12..14].copy_from_slice(&[0x88, 0xcc])), Some(V::EtherType)),
        ("VLAN", changed(good(), |f| f[12..14].copy_from_slice(&[0x81, 0])), Some(V::Vlan)),
        ("QinQ", changed(good(), |f| f[12..14].copy_from_slice(&[0x88, 0xa8])), Some(V::Vlan)),
        (
            "IPv4 that calls itself IPv6",
            changed(good(), |f| f[12..14].copy_from_slice(&[0x86, 0xdd])),
            Some(V::IpHeader),
        ),
        ("version 6 in an IPv4 frame", changed(good(), |f| f[14] = 0x65), Some(V::IpHeader)),
        ("IHL 4", changed(good(), |f| f[14] = 0x44), Some(V::IpHeader)),
        ("IHL beyond the total length", changed(good(), |f| f[14] = 0x4f), Some(V::IpHeader)),
        ("total length below IHL", changed(good(), |f| f[17] = 19), Some(V::IpHeader)),
        ("total length beyond the frame", changed(good(), |f| f[17] += 1), Some(V::IpHeader)),
        ("IP checksum", changed(good(), |f| f[22] ^= 1), Some(V::IpChecksum)),
        ("IP checksum, flipped twice", changed(good(), |f| f[24] ^= 0xff), Some(V::IpChecksum)),
        ("no-operation options", ip_options([1, 1, 1, 0]), None),
        ("router alert", ip_options([148, 4, 0, 0]), None),
        ("loose source route", ip_options([131, 3, 4, 0]), Some(V::IpHeader)),
        ("strict source route", ip_options([1, 137, 3, 4]), Some(V::IpHeader)),
        ("IP option of length 0", ip_options([7, 0, 0, 0]), Some(V::IpHeader)),
        ("IP option of length 1", ip_options([7, 1, 0, 0]), Some(V::IpHeader)),
        ("IP option too long", ip_options([1, 7, 4, 0]), Some(V::IpHeader)),
        ("IP option cut", ip_options([1, 1, 1, 7]), Some(V::IpHeader)),
        ("LAND", source([10, 9, 1, 1]), Some(V::Land)),
        ("LAND elsewhere", finish(changed(good(), |f| f.copy_within(26..30, 30))), Some(V::Land)),
        ("from 0.0.0.0", source([0; 4]), Some(V::IpSource)),
        ("from 0.1.2.3", source([0, 1, 2, 3]), Some(V::IpSource)),
        ("from loopback", source([127, 0, 0, 1]), Some(V::IpSource)),
        ("from broadcast", source([255; 4]), Some(V::IpSource)),
        ("from directed broadcast", source([10, 9, 1, 255]), Some(V::IpSource)),
        ("from multicast", source([239, 1, 1, 1]), Some(V::IpSource)),
        ("to another", target([10, 9, 1, 3]), Some(V::IpDestination)),
        ("to broadcast", target([255; 4]), Some(V::IpDestination)),
        ("to directed broadcast", target([10, 9, 1, 255]), Some(V::IpDestination)),
        ("to multicast", target([224, 0, 0, 1]), Some(V::IpDestination)),
        ("to loopback", target([127, 0, 0, 1]), Some(V::IpDestination)),
        ("first fragment", ip_at(6, 0x20), Some(V::Fragment)),
        ("last fragment", ip_at(7, 0x01), Some(V::Fragment)),
        ("reserved bit only", ip_at(6, 0x80), None),
        ("TTL 0 at its end", ip_at(8, 0), None),
        ("19 bytes of TCP", ip_frame(6, &[1; 19]), Some(V::TcpHeader)),
        ("no bytes of TCP", ip_frame(6, &[]), Some(V::TcpHeader)),
        ("data offset 4", tcp_at(12, 0x40), Some(V::TcpHeader)),
        ("data offset 0", tcp_at(12, 0), Some(V::TcpHeader)),
        ("data offset beyond", tcp_at(12, 0x70), Some(V::TcpHeader)),
        ("TCP checksum", changed(good(), |f| f[58] ^= 0x20), Some(V::TcpChecksum)),
        (
            "TCP checksum, last byte",
            changed(tcp(ACK, &[], b"odd"), |f| *f.last_mut().unwrap() ^= 1),
            Some(V::TcpChecksum),
        ),
        ("source port 0", finish(changed(good(), |f| f[34..36].fill(0))), Some(V::TcpHeader)),
        ("destination port 0", finish(changed(good(), |f| f[36..38].fill(0))), Some(V::TcpHeader)),
        ("null", tcp_at(13, 0), Some(V::TcpFlags)),
        ("Xmas", tcp_at(13, 0x29), Some(V::TcpFlags)),
        ("all", tcp_at(13, 0x3f), Some(V::TcpFlags)),
        ("SYN+FIN", tcp_at(13, 0x03), Some(V::TcpFlags)),
        ("SYN+FIN+ACK", tcp_at(13, 0x13), Some(V::TcpFlags)),
        ("SYN+RST", tcp_at(13, 0x06), Some(V::TcpFlags)),
        ("FIN+RST", tcp_at(13, 0x15), Some(V::TcpFlags)),
        ("FIN alone", tcp_at(13, 0x01), Some(V::TcpFlags)),
        ("SYN with ECN", tcp_at(13, 0xc2), None),
        ("RST alone", tcp_at(13, 0x04), None),
        ("RST+ACK", tcp_at(13, 0x14), None),
        ("FIN+PSH+ACK+URG", tcp_at(13, 0x39), None),
        ("UDP", ip_frame(17, &[0; 12]), Some(V::IpProtocol)),
        ("SCTP", ip_frame(132, &[0; 12]), Some(V::IpProtocol)),
        ("ICMP, 7 bytes", ip_frame(1, &[8, 0, 0, 0, 0, 0, 0]), Some(V::IcmpInvalid)),
        ("ICMP checksum", ip_frame(1, &[8, 0, 0, 0, 0, 1, 0, 1]), Some(V::IcmpInvalid)),
        ("ICMP echo reply", icmp(&[0, 0, 0, 0, 0, 1, 0, 1]), Some(V::IcmpUnrelated)),
        ("ICMP redirect", icmp(&[5, 0, 0, 0, 0, 1, 0, 1]), Some(V::IcmpUnrelated)),
    ];
    for (name, options, verdict) in [
        ("length 0", [99, 0, 0, 0], Some(V::TcpOption)),
        ("length 1", [99, 1, 0, 0], Some(V::TcpOption)),
        ("overrun", [1, 99, 4, 0], Some(V::TcpOption)),
        ("no length", [1, 1, 1, 99], Some(V::TcpOption)),
        ("MSS of 3 bytes", [2, 3, 0, 0], Some(V::TcpOption)),
        ("window scale of 4 bytes", [3, 4, 0, 0], Some(V::TcpOption)),
        ("SACK-permitted of 3 bytes", [4, 3, 0, 0], Some(V::TcpOption)),
        ("SACK without blocks", [5, 2, 0, 0], Some(V::TcpOption)),
        ("timestamps of 4 bytes", [8, 4, 0, 0], Some(V::TcpOption)),
        ("junk behind the end", [0, 99, 0, 0], None),
        ("unknown", [99, 4, 7, 7], None),
    ] {
        cases.push((name, tcp(ACK, &options, b""), verdict));
    }
    let mut sack = vec![1, 1, 5, 18];
    sack.extend([7; 16]);
    cases.push(("SACK of two blocks", tcp(ACK, &sack, b""), None));
    sack[3] = 14;
    cases.push(("SACK of one and a half", tcp(ACK, &sack, b""), Some(V::TcpOption)));
    // What the device says about checksums changes who finds out, and never the outcome.
    for rx_offload in [false, true] {
        let mut bench = Bench::new(&TcpSettings::default(), rx_offload);
        for (name, frame, verdict) in &cases {
            assert_eq!(bench.verdict(frame), *verdict, "{name}, offload {rx_offload}");
        }
    }
}

#[test]
fn a_segment_says_where_everything_is() {
    let mut bench = bench();
    let options = [2, 4, 0x05, 0xb4, 4, 2, 8, 10, 0, 0, 0, 7, 0, 0, 0, 9, 1, 3, 3, 7];
    let segment = bench.segment(&tcp(SYN, &options, b"early"));
    let (local, remote): (SocketAddr, SocketAddr) = ((OUR_IP, 80).into(), (PEER_IP, 4000).into());
    assert_eq!(segment.key, FlowKey::new(local, remote));
    assert_eq!((segment.ip_offset, segment.tcp_offset, segment.payload_offset), (14, 34, 74));
    assert_eq!((segment.payload_len, segment.end, segment.len()), (5, 79, 6));
    assert_eq!((segment.seq, segment.ack, segment.flags, segment.window), (256, 512, Flags::SYN, 4096));
    let expected =
        Options { mss: Some(1460), window_scale: Some(7), sack_permitted: true, sack: false, timestamps: Some((7, 9)) };
    assert_eq!(segment.options, expected);

    // Ethernet pads small frames to 60 bytes, with anything.
    let mut padded = tcp(ACK | 1, &[], b"x");
    padded.resize(60, 0x77);
    let segment = bench.segment(&padded);
    assert_eq!((segment.payload_offset, segment.payload_len, segment.end, segment.len()), (54, 1, 55, 2));
}

#[test]
fn syn_options_are_clamped_where_the_stack_reads_them() {
    for (mss, scale, want) in [(0u16, 255u8, (64, 14)), (63, 15, (64, 14)), (64, 14, (64, 14)), (1460, 0, (1460, 0))] {
        let [high, low] = mss.to_be_bytes();
        let mut frame = tcp(SYN, &[1, 2, 4, high, low, 99, 2, 3, 3, scale, 0, 0], b"");
        let Ingress::Segment(_, mut segment) = bench().take(&frame) else { panic!() };
        clamp_syn_options(&mut frame, &mut segment, 64);
        assert_eq!((segment.options.mss, segment.options.window_scale), (Some(want.0), Some(want.1)));
        let again = bench().segment(&finish(frame));
        assert_eq!(again.options, segment.options);
    }
}

#[test]
fn resets_answer_by_the_book_and_not_without_end() {
    let mut bench = Bench::new(&TcpSettings { resets_per_second: 8, ..TcpSettings::default() }, false);
    bench.knows(PEER_IP, PEER);
    for (frame, seq, ack, flags) in
        [(tcp(ACK, &[], b"hello"), 512, 0, 0x04), (tcp(SYN, &[], b"hello"), 0, 256 + 6, 0x14)]
    {
        let segment = bench.segment(&frame);
        bench.port.reset_for(bench.now, &segment, &bench.counters);
        let sent = bench.sent();
        let [reset] = &sent[..] else { panic!("{sent:?}") };
        assert_eq!((&reset[..6], reset.len()), (&PEER[..], 54));
        // The answer is a valid segment to somebody who owns the peer's address.
        let ip = ipv4::parse(&reset[14..], RxChecksum::Unchecked).unwrap();
        let reset = segment::parse_v4(reset, &ip, RxChecksum::Unchecked).unwrap();
        assert_eq!(reset.key, FlowKey::new((PEER_IP, 4000).into(), (OUR_IP, 80).into()));
        assert_eq!((reset.seq, reset.ack, reset.flags.0, reset.window), (seq, ack, flags, 0));
    }
    let segment = bench.segment(&tcp(0x04, &[], b""));
    bench.port.reset_for(bench.now, &segment, &bench.counters);
    assert!(bench.sent().is_empty(), "a RST is never answered");
    let segment = bench.segment(&tcp(ACK, &[], b""));
    bench.live(Duration::from_secs(1));
    bench.sent();
    for _ in 0..100 {
        bench.port.reset_for(bench.now, &segment, &bench.counters);
    }
    assert_eq!(bench.sent().len(), 2);
    assert_eq!((bench.counters.resets_sent.read(), bench.counters.segments_sent.read()), (4, 4));
}

/// A frame with an ICMP message whose checksum is right.
fn icmp(message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    message[2..4].fill(0);
    let sum = !checksum::sum(0, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    ip_frame(ipv4::ICMP, &message)
}

#[test]
fn echo_is_answered_whole_and_at_a_rate() {
    let mut bench = Bench::new(&TcpSettings { icmp_per_second: 40, ..TcpSettings::default() }, false);
    bench.knows(PEER_IP, PEER);
    for len in [0usize, 1, 17, 18, 1472] {
        let mut request = vec![8, 0, 0, 0, 0x12, 0x34, 0, 7];
        request.extend((0..len).map(|i| i as u8));
        let mut frame = icmp(&request);
        frame.resize(frame.len().max(60), 0x99);
        assert_eq!(bench.verdict(&frame), None);
        let sent = bench.sent();
        let [reply] = &sent[..] else { panic!("{sent:?}") };
        let ip = ipv4::parse(&reply[14..], RxChecksum::Unchecked).unwrap();
        assert_eq!((ip.source, ip.destination, ip.total, reply.len()), (OUR_IP, PEER_IP, 28 + len, 42 + len));
        assert_eq!(checksum::sum(0, &reply[34..]), 0xffff);
        assert_eq!((&reply[34..36], &reply[38..]), (&[0, 0][..], &request[4..]));
    }
    // Options of the request are not sent back.
    let frame = changed(icmp(&[8, 0, 0, 0, 1, 2, 3, 4, 5]), |f| {
        f.splice(34..34, [1, 1, 1, 0]);
        f[14] = 0x46;
        f[17] += 4;
        f[24..26].fill(0);
        let sum = !checksum::sum(0, &f[14..38]);
        f[24..26].copy_from_slice(&sum.to_be_bytes());
    });
    assert_eq!(bench.verdict(&frame), None);
    let sent = bench.sent();
    assert_eq!((sent[0][14], sent[0].len(), &sent[0][38..]), (0x45, 43, &[1, 2, 3, 4, 5][..]));
    let ping = icmp(&[8, 0, 0, 0, 0, 0, 0, 0]);
    let verdicts: Vec<_> = (0..100).map(|_| bench.verdict(&ping)).collect();
    assert!(verdicts.iter().all(|v| v.is_none_or(|v| v == Verdict::IcmpRate)));
    assert!((1..20).contains(&verdicts.iter().filter(|v| v.is_none()).count()));
}

#[test]
fn protocols_that_nobody_speaks_are_refused_by_icmp() {
    let mut bench = bench();
    bench.knows(PEER_IP, PEER);
    for (protocol, code) in [(17, 3), (132, 2)] {
        let frame = ip_frame(protocol, &[0xab; 100]);
        bench.take(&frame);
        let sent = bench.sent();
        let [error] = &sent[..] else { panic!("{sent:?}") };
        let ip = ipv4::parse(&error[14..], RxChecksum::Unchecked).unwrap();
        assert_eq!((ip.destination, ip.protocol, ip.total, error.len()), (PEER_IP, 1, 56, 70));
        assert_eq!((&error[34..36], checksum::sum(0, &error[34..])), (&[3, code][..], 0xffff));
        assert_eq!(error[42..], frame[14..42]);
    }
    assert_eq!(bench.counters.icmp_errors.read(), 2);
    for _ in 0..1000 {
        bench.take(&ip_frame(17, &[0; 8]));
    }
    assert!(bench.counters.icmp_errors.read() < 300);
    assert_eq!(bench.drops(Verdict::IpProtocol), 1002);
}

#[test]
fn icmp_errors_about_our_segments_are_told() {
    let mut bench = bench();
    let remote = Ipv4Addr::new(192, 0, 2, 1);
    let quote = |source: Ipv4Addr, total: u16| {
        let mut packet = ip_packet(6, source, remote, &[0, 80, 0x0f, 0xa0, 1, 2, 3, 4]);
        packet[2..4].copy_from_slice(&total.to_be_bytes());
        packet
    };
    let message = |kind: u8, code: u8, mtu: u16, quote: &[u8]| {
        let [high, low] = mtu.to_be_bytes();
        icmp(&[&[kind, code, 0, 0, 0, 0, high, low], quote].concat())
    };
    let good = quote(OUR_IP, 1500);
    for (kind, code, mtu, total, want) in [
        (3, 3, 0, 1500, IcmpErrorKind::Unreachable { code: 3 }),
        (3, 0, 0, 1500, IcmpErrorKind::Unreachable { code: 0 }),
        (11, 1, 0, 1500, IcmpErrorKind::Unreachable { code: 0 }),
        (12, 9, 0, 1500, IcmpErrorKind::Unreachable { code: 0 }),
        (3, 4, 1400, 1500, IcmpErrorKind::FragmentationNeeded { mtu: 1400 }),
        (3, 4, 0, 1500, IcmpErrorKind::FragmentationNeeded { mtu: 1492 }),
        (3, 4, 0, 1492, IcmpErrorKind::FragmentationNeeded { mtu: 1006 }),
        (3, 4, 0, 40, IcmpErrorKind::FragmentationNeeded { mtu: 68 }),
    ] {
        let Ingress::IcmpError(error) = bench.take(&message(kind, code, mtu, &quote(OUR_IP, total))) else {
            panic!("{kind} {code}")
        };
        let key = FlowKey::v4(OUR_IP, 80, remote, 4000);
        assert_eq!(error, IcmpError { key, seq: 0x0102_0304, kind: want });
    }
    for (name, quote, verdict) in [
        ("another's segment", quote(PEER_IP, 1500), Verdict::IcmpUnrelated),
        ("UDP", changed(good.clone(), |q| q[9] = 17), Verdict::IcmpUnrelated),
        ("later fragment", changed(good.clone(), |q| q[7] = 1), Verdict::IcmpUnrelated),
        ("7 bytes of TCP", good[..27].to_vec(), Verdict::IcmpInvalid),
        ("no header", good[..19].to_vec(), Verdict::IcmpInvalid),
        ("nothing", Vec::new(), Verdict::IcmpInvalid),
        ("IHL 4", changed(good.clone(), |q| q[0] = 0x44), Verdict::IcmpInvalid),
        ("IHL beyond", changed(good.clone(), |q| q[0] = 0x4f), Verdict::IcmpInvalid),
        ("version 6", changed(good, |q| q[0] = 0x65), Verdict::IcmpInvalid),
    ] {
        assert_eq!(bench.verdict(&message(3, 4, 1400, &quote)), Some(verdict), "{name}");
    }
    assert!(bench.sent().is_empty());
}

proptest! {
    /// Valid frames with a few bytes changed, cut or padded: whatever they become, they become one thing.
    #[test]
    fn mangled_frames_are_one_thing_each(
        kind in 0usize..5,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        len in 0usize..120,
        offload: bool,
        repair: bool,
    ) {
        let mut frame = match kind {
            0 => tcp(ACK, &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2], b"payload"),
            1 => tcp(SYN, &[2, 4, 5, 0xb4, 3, 3, 7, 4, 2, 0, 0, 0], b""),
            2 => arp_request(PEER, PEER_IP, OUR_IP),
            3 => icmp(&[8, 0, 0, 0, 0, 1, 0, 2, 3, 4, 5]),
            _ => icmp(&[&[3, 4, 0, 0, 0, 0, 0, 0], &ip_packet(6, OUR_IP, PEER_IP, &[1; 8])[..]].concat()),
        };
        for (at, value) in changes {
            let at = at.index(frame.len());
            frame[at] = value;
        }
        if repair {
            let l3_len = usize::from(frame[ETHERNET] & 0x0f) * 4;
            let _ = checksum::finish_tcp(&mut frame, ETHERNET, l3_len);
        }
        if len >= 14 {
            frame.resize(len, 0x5a);
        }
        let mut bench = Bench::new(&TcpSettings::default(), offload);
        if let Ingress::Segment(frame, segment) = bench.take(&frame) {
            let mut bytes = frame.bytes().to_vec();
            prop_assert!(segment.end <= bytes.len());
            prop_assert_eq!(segment.payload_offset + segment.payload_len, segment.end);
            let mut clamped = segment;
            clamp_syn_options(&mut bytes, &mut clamped, 64);
            bench.port.reset_for(bench.now, &segment, &bench.counters);
        }
        bench.live(Duration::from_secs(4));
        bench.sent();
        prop_assert_eq!(bench.port.lane().frames_in_use(), 0);
    }
}
