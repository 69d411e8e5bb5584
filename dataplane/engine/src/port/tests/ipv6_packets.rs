//! IPv6 packets for us, and what they get.

use super::*;
use crate::port::ipv6::{group_mac, link_local, solicited_node};
use crate::port::{icmpv6, ipv6};

pub(super) const OUR_IP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 9, 1, 0, 0, 0, 0, 1);
pub(super) const PEER_IP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 9, 1, 0, 0, 0, 0, 2);

/// A bench whose IPv6 addresses are assigned and announced.
pub(super) fn settled() -> Bench {
    let mut bench = bench();
    bench.live(Duration::from_secs(5));
    bench.sent();
    bench
}

pub(super) fn packet6(next: u8, hops: u8, source: Ipv6Addr, destination: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; 40];
    packet.extend(payload);
    assert!(ipv6::write(&mut packet, next, hops, source, destination));
    packet
}

/// A frame from the peer to us, or to a group.
pub(super) fn frame6(next: u8, source: Ipv6Addr, destination: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
    let to = if destination.is_multicast() { group_mac(destination) } else { US };
    ethernet(to, PEER, ethernet::IPV6, &packet6(next, 64, source, destination, payload))
}

/// An ICMPv6 message from the peer, its checksum right.
pub(super) fn icmp6(hops: u8, source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    let mut packet = packet6(ipv6::ICMP, hops, source, destination, message);
    icmpv6::finish(&mut packet).unwrap();
    let to = if destination.is_multicast() { group_mac(destination) } else { US };
    ethernet(to, PEER, ethernet::IPV6, &packet)
}

/// A segment from port 4000 to port 80 behind the extension headers in `chain`, whose first is `first`.
fn tcp6(first: u8, chain: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut segment = vec![0x0f, 0xa0, 0, 80, 0, 0, 1, 0, 0, 0, 2, 0, 0x50, ACK, 0x10, 0, 0, 0, 0, 0];
    segment.extend(payload);
    let mut plain = frame6(ipv4::TCP, PEER_IP6, OUR_IP6, &segment);
    assert!(checksum::finish_tcp(&mut plain, ETHERNET, 40));
    frame6(first, PEER_IP6, OUR_IP6, &[chain, &plain[ETHERNET + 40..]].concat())
}

const PAD: [u8; 8] = [6, 0, 1, 4, 0, 0, 0, 0];

#[test]
fn segments_come_through_with_and_without_extension_headers() {
    for rx_offload in [false, true] {
        let mut bench = Bench::new(&TcpSettings::default(), rx_offload);
        bench.live(Duration::from_secs(5));
        let segment = bench.segment(&tcp6(ipv4::TCP, &[], b"hello"));
        assert_eq!(segment.key, FlowKey::new((OUR_IP6, 80).into(), (PEER_IP6, 4000).into()));
        assert_eq!((segment.ip_offset, segment.tcp_offset, segment.payload_offset), (14, 54, 74));
        assert_eq!((segment.payload_len, segment.end, segment.seq, segment.ack), (5, 79, 256, 512));
        let Ingress::Segment(frame, segment) = bench.take(&tcp6(60, &PAD, b"hello")) else { panic!() };
        assert_eq!((segment.ip_offset, segment.tcp_offset, segment.end), (22, 62, 87));
        let packet = &frame.bytes()[segment.ip_offset..segment.end];
        assert_eq!(packet, &tcp6(ipv4::TCP, &[], b"hello")[ETHERNET..], "the headers are gone");
    }
}

#[test]
fn each_bad_ipv6_packet_has_its_verdict() {
    use Verdict as V;
    let good = || tcp6(ipv4::TCP, &[], b"hello");
    let source = |ip: &str| changed(good(), |f| f[22..38].copy_from_slice(&ip.parse::<Ipv6Addr>().unwrap().octets()));
    let target = |ip: &str| changed(good(), |f| f[38..54].copy_from_slice(&ip.parse::<Ipv6Addr>().unwrap().octets()));
    let group = |ip: &str| changed(target(ip), |f| f[..6].copy_from_slice(&group_mac(ip.parse().unwrap())));
    let cases = [
        ("good", good(), None),
        ("39 bytes of IP", good()[..53].to_vec(), Some(V::Truncated)),
        ("version 4", changed(good(), |f| f[14] = 0x40), Some(V::IpHeader)),
        ("payload beyond the frame", changed(good(), |f| f[19] += 1), Some(V::IpHeader)),
        ("padded", [good(), vec![0; 9]].concat(), None),
        ("TCP checksum", changed(good(), |f| f[75] ^= 1), Some(V::TcpChecksum)),
        ("LAND", source("fd00:9:1::1"), Some(V::Land)),
        ("from nowhere", source("::"), Some(V::IpSource)),
        ("from loopback", source("::1"), Some(V::IpSource)),
        ("from a group", source("ff02::1"), Some(V::IpSource)),
        ("from a mapped address", source("::ffff:10.9.1.2"), Some(V::IpSource)),
        ("from our link-local address", source(&link_local(US).to_string()), Some(V::IpSource)),
        ("to another", target("fd00:9:1::7"), Some(V::IpDestination)),
        ("to a mapped address", target("::ffff:10.9.1.1"), Some(V::IpDestination)),
        ("to all nodes", group("ff02::1"), Some(V::IpDestination)),
        ("to another's group", group("ff02::1:ff00:7"), Some(V::IpDestination)),
        ("to a group, by our MAC", target("ff02::1"), Some(V::NotOurMac)),
        (
            "to us, by a group's MAC",
            changed(good(), |f| f[..6].copy_from_slice(&[0x33, 0x33, 0, 0, 0, 1])),
            Some(V::NotOurMac),
        ),
        ("to us, by broadcast", changed(good(), |f| f[..6].fill(0xff)), Some(V::NotOurMac)),
        (
            "IPv4 to a group's MAC",
            changed(tcp(ACK, &[], b""), |f| f[..6].copy_from_slice(&[0x33, 0x33, 0, 0, 0, 1])),
            Some(V::NotOurMac),
        ),
        ("a fragment", tcp6(44, &[6, 0, 0, 1, 0, 0, 0, 1], b""), Some(V::Fragment)),
        ("a later fragment", tcp6(44, &[6, 0, 0, 8, 0, 0, 0, 1], b""), Some(V::Fragment)),
        ("a whole packet as a fragment", tcp6(44, &[6, 0, 0, 0, 0, 0, 0, 1], b""), None),
        ("routing of type 0", tcp6(43, &[6, 0, 0, 1, 0, 0, 0, 0], b""), Some(V::IpExtension)),
        ("an option to be discarded", tcp6(60, &[6, 0, 0x7e, 4, 0, 0, 0, 0], b""), Some(V::IpExtension)),
        ("UDP", frame6(17, PEER_IP6, OUR_IP6, &[0; 8]), Some(V::IpProtocol)),
        ("no next header", frame6(59, PEER_IP6, OUR_IP6, &[0; 8]), Some(V::IpProtocol)),
        ("ESP", frame6(50, PEER_IP6, OUR_IP6, &[0; 8]), Some(V::IpProtocol)),
        ("an echo reply", icmp6(64, PEER_IP6, OUR_IP6, &[129, 0, 0, 0, 0, 0, 0, 0]), Some(V::IcmpUnrelated)),
        ("a redirect", icmp6(255, PEER_IP6, OUR_IP6, &[137; 40]), Some(V::IcmpUnrelated)),
        ("ICMPv6 checksum", frame6(58, PEER_IP6, OUR_IP6, &[128, 0, 0, 1, 0, 0, 0, 0]), Some(V::IcmpInvalid)),
        ("a short ICMPv6 message", frame6(58, PEER_IP6, OUR_IP6, &[128, 0, 0]), Some(V::IcmpInvalid)),
    ];
    for rx_offload in [false, true] {
        let mut bench = Bench::new(&TcpSettings::default(), rx_offload);
        bench.live(Duration::from_secs(5));
        for (name, frame, verdict) in &cases {
            assert_eq!(bench.verdict(frame), *verdict, "{name}, offload {rx_offload}");
        }
        bench.sent();
        assert_eq!(bench.port.lane().frames_in_use(), bench.port.interfaces[0].neighbors.waiting());
    }
}

#[test]
fn without_an_address_there_is_no_ipv6() {
    let (left, peer) = wire(WireOptions::default(), 1);
    let settings = PortSettings::untagged("north", vec!["10.9.1.1/24".parse().unwrap()]);
    let mut bench = Bench::with(left, peer, &settings, &TcpSettings::default());
    bench.live(Duration::from_secs(5));
    assert!(bench.sent().iter().all(|frame| frame[12..14] == [8, 6]), "nothing is announced in IPv6");
    assert_eq!(bench.verdict(&tcp6(ipv4::TCP, &[], b"")), Some(Verdict::Ipv6));
    let all = icmp6(255, PEER_IP6, ipv6::ALL_NODES, &[128, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bench.verdict(&all), Some(Verdict::Ipv6));
}

#[test]
fn echo_requests_are_answered_and_limited() {
    let mut bench = settled();
    bench.knows6(PEER_IP6, PEER);
    let message = [&[128, 0, 0, 0, 0, 7, 0, 1][..], b"are you there?"].concat();
    assert_eq!(bench.verdict(&icmp6(64, PEER_IP6, OUR_IP6, &message)), None);
    let mut expected = packet6(58, 64, OUR_IP6, PEER_IP6, &changed(message.clone(), |m| m[0] = 129));
    icmpv6::finish(&mut expected).unwrap();
    assert_eq!(bench.sent(), [ethernet(PEER, US, ethernet::IPV6, &expected)]);
    assert_eq!(bench.verdict(&icmp6(64, PEER_IP6, ipv6::ALL_NODES, &message)), Some(Verdict::IpDestination));
    let answered = (0..2000).filter(|_| bench.verdict(&icmp6(64, PEER_IP6, OUR_IP6, &message)).is_none()).count();
    assert!((200..400).contains(&answered), "{answered}");
}

#[test]
fn what_is_not_understood_is_told() {
    let mut bench = settled();
    bench.knows6(PEER_IP6, PEER);
    let long = [&[6, 0, 0, 1, 0, 0, 0, 0][..], &[0x5a; 1400]].concat();
    for (refused, kind, code, pointer) in [
        (frame6(17, PEER_IP6, OUR_IP6, &[1; 20]), 1, 4, 0),
        (frame6(50, PEER_IP6, OUR_IP6, &[1; 20]), 4, 1, 6),
        (frame6(43, PEER_IP6, OUR_IP6, &long), 4, 0, 42),
        (frame6(60, PEER_IP6, OUR_IP6, &[6, 0, 0xbe, 4, 0, 0, 0, 0]), 4, 2, 42),
        (frame6(60, PEER_IP6, ipv6::ALL_NODES, &[6, 0, 0xbe, 4, 0, 0, 0, 0]), 4, 2, 42),
    ] {
        assert!(bench.verdict(&refused).is_some());
        let sent = bench.sent();
        let [error] = sent.as_slice() else { panic!("{sent:?}") };
        assert_eq!((&error[..6], &error[12..14]), (&PEER[..], &[0x86, 0xdd][..]));
        assert_eq!((error[54], error[55]), (kind, code));
        assert_eq!(error[58..62], u32::to_be_bytes(pointer));
        assert!(error.len() <= 14 + 1280, "{}", error.len());
        let quoted = &error[62..];
        assert_eq!(*quoted, refused[14..14 + quoted.len()]);
        assert!(quoted.len() == refused.len() - 14 || error.len() == 14 + 1280);
        assert_eq!(error[22..38], OUR_IP6.octets());
        // The checksum is right.
        let copy = changed(error[14..].to_vec(), |packet| icmpv6::finish(packet).unwrap());
        assert_eq!(copy, error[14..]);
    }
    // Nobody is told of what went to a group, or came from nobody.
    assert!(bench.verdict(&frame6(17, PEER_IP6, ipv6::ALL_NODES, &[1; 20])).is_some());
    assert!(
        bench
            .verdict(&frame6(60, Ipv6Addr::UNSPECIFIED, solicited_node(OUR_IP6), &[6, 0, 0xbe, 4, 0, 0, 0, 0]))
            .is_some()
    );
    assert!(bench.sent().is_empty());
    for _ in 0..2000 {
        bench.take(&frame6(17, PEER_IP6, OUR_IP6, &[1; 20]));
    }
    assert!((200..400).contains(&bench.sent().len()));
}

#[test]
fn icmpv6_errors_about_our_segments_are_told() {
    let mut bench = settled();
    let ours = |source: Ipv6Addr| {
        packet6(
            ipv4::TCP,
            60,
            source,
            PEER_IP6,
            &[0, 80, 0x0f, 0xa0, 0, 0, 3, 0, 0, 0, 0, 0, 0x50, ACK, 0, 0, 0, 0, 0, 0],
        )
    };
    let error = |kind: u8, code: u8, value: u32, quoted: &[u8]| {
        let message = [&[kind, code, 0, 0][..], &value.to_be_bytes(), quoted].concat();
        icmp6(64, PEER_IP6, OUR_IP6, &message)
    };
    let too_big = |mtu| IcmpErrorKind::FragmentationNeeded { mtu };
    for (frame, kind) in [
        (error(1, 3, 0, &ours(OUR_IP6)), IcmpErrorKind::Unreachable { code: 3 }),
        (error(2, 0, 1400, &ours(OUR_IP6)), too_big(1400)),
        (error(2, 0, 1_000_000, &ours(OUR_IP6)), too_big(u16::MAX)),
        (error(3, 0, 0, &ours(OUR_IP6)), IcmpErrorKind::Unreachable { code: 0 }),
        (error(4, 1, 6, &ours(OUR_IP6)[..48]), IcmpErrorKind::Unreachable { code: 0 }),
    ] {
        let Ingress::IcmpError(told) = bench.take(&frame) else { panic!() };
        let key = FlowKey::new((OUR_IP6, 80).into(), (PEER_IP6, 4000).into());
        assert_eq!(told, IcmpError { key, seq: 768, kind });
    }
    for (frame, verdict) in [
        (error(2, 0, 1279, &ours(OUR_IP6)), Verdict::IcmpInvalid),
        (error(1, 0, 0, &ours(OUR_IP6)[..47]), Verdict::IcmpInvalid),
        (error(1, 0, 0, &ours(OUR_IP6)[..39]), Verdict::IcmpInvalid),
        (error(1, 0, 0, &ours(PEER_IP6)), Verdict::IcmpUnrelated),
        (error(1, 0, 0, &changed(ours(OUR_IP6), |p| p[6] = 17)), Verdict::IcmpUnrelated),
        (error(1, 0, 0, &changed(ours(OUR_IP6), |p| p[0] = 0x45)), Verdict::IcmpInvalid),
    ] {
        assert_eq!(bench.verdict(&frame), Some(verdict));
    }
}

#[test]
fn a_reset_goes_back_by_ipv6() {
    let mut bench = settled();
    bench.knows6(PEER_IP6, PEER);
    let segment = bench.segment(&tcp6(ipv4::TCP, &[], b""));
    bench.port.reset_for(bench.now, &segment, &bench.counters);
    let sent = bench.sent();
    let [reset] = sent.as_slice() else { panic!("{sent:?}") };
    let ip = ipv6::parse(&reset[ETHERNET..]).unwrap();
    let reset = segment::parse_v6(reset, &ip, ETHERNET, RxChecksum::Unchecked).unwrap();
    assert_eq!((reset.flags, reset.seq), (Flags::RST, 512));
    assert_eq!((reset.key.local(), reset.key.remote()), (segment.key.remote(), segment.key.local()));
}

proptest! {
    #[test]
    fn no_ipv6_packet_panics_or_is_two_things(
        next in prop_oneof![Just(0u8), Just(43), Just(44), Just(58), Just(60), Just(6), any::<u8>()],
        to_group in any::<bool>(),
        payload in proptest::collection::vec(any::<u8>(), 0..96),
    ) {
        let mut bench = settled();
        let destination = if to_group { solicited_node(OUR_IP6) } else { OUR_IP6 };
        bench.take(&frame6(next, PEER_IP6, destination, &payload));
        if !payload.is_empty() {
            bench.take(&icmp6(255, PEER_IP6, destination, &[&payload[..], &[0; 4]].concat()));
        }
    }
}
