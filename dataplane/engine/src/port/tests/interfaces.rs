//! VLANs of one port, and routes with several next hops.

use super::*;
use tables::InterfaceSettings;

const OTHER_IP: Ipv4Addr = Ipv4Addr::new(10, 9, 8, 1);
const HERE: Ipv4Addr = Ipv4Addr::new(10, 9, 7, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(10, 9, 7, 2);

/// Untagged 10.9.1.1, and in VLANs 7 and 8 10.9.7.1 and 10.9.8.1.
fn trunk() -> Bench {
    let (left, peer) = wire(WireOptions::default(), 1);
    let interface = |vlan: Option<u16>, address: &str| InterfaceSettings {
        vlan,
        addresses: vec![address.parse().unwrap()],
        mtu: vlan.map(|vlan| 1500 - vlan),
        ..InterfaceSettings::default()
    };
    let interfaces =
        vec![interface(Some(7), "10.9.7.1/24"), interface(Some(8), "10.9.8.1/24"), interface(None, "10.9.1.1/24")];
    let settings = PortSettings { name: "trunk".into(), mtu: None, interfaces };
    let mut bench = Bench::with(left, peer, &settings, &TcpSettings::default());
    bench.live(Duration::from_secs(3));
    bench.sent();
    bench
}

fn tagged(tag: u16, frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &[0x81, 0], &tag.to_be_bytes(), &frame[12..]].concat()
}

/// The VLAN of a frame, and the frame without it.
fn untagged(frame: &[u8]) -> (Option<u16>, Vec<u8>) {
    match frame[12..14] == [0x81, 0] {
        true => (Some(u16::from_be_bytes([frame[14], frame[15]])), [&frame[..12], &frame[16..]].concat()),
        false => (None, frame.to_vec()),
    }
}

/// A segment from `source` to `destination`.
fn tcp_to(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    finish(changed(tcp(ACK, &[], b"hello"), |frame| {
        frame[26..30].copy_from_slice(&source.octets());
        frame[30..34].copy_from_slice(&destination.octets());
    }))
}

#[test]
fn each_vlan_has_its_addresses_and_no_others() {
    let mut bench = trunk();
    let frame = tcp_to(THERE, HERE);
    let Ingress::Segment(taken, segment) = bench.take(&tagged(7, &frame)) else { panic!() };
    assert_eq!((segment.interface, segment.ip_offset, taken.bytes()), (1, 14, &frame[..]), "the tag is gone");
    // Priority and drop eligibility do not matter; a tag with nothing but a priority is none.
    assert!(matches!(bench.take(&tagged(0xf007, &frame)), Ingress::Segment(..)));
    let Ingress::Segment(_, segment) = bench.take(&tagged(0x6000, &tcp(ACK, &[], b""))) else { panic!() };
    assert_eq!(segment.interface, 0);
    for (name, frame, verdict) in [
        ("without a tag", frame.clone(), Verdict::IpDestination),
        ("in the other VLAN", tagged(8, &frame), Verdict::IpDestination),
        ("in no VLAN of ours", tagged(9, &frame), Verdict::Vlan),
        ("in two VLANs", tagged(7, &tagged(8, &frame)), Verdict::Vlan),
        ("untagged address in a VLAN", tagged(7, &tcp(ACK, &[], b"")), Verdict::IpDestination),
        ("a tag and no more", tagged(7, &frame)[..17].to_vec(), Verdict::Truncated),
        ("a provider's tag", changed(tagged(7, &frame), |f| f[12..14].copy_from_slice(&[0x88, 0xa8])), Verdict::Vlan),
    ] {
        assert_eq!(bench.verdict(&frame), Some(verdict), "{name}");
    }
    assert_eq!((bench.port.mtu(HERE.into()), bench.port.mtu(OUR_IP.into())), (1493, 1500));
    // The RST goes the way that the segment came.
    bench.verdict(&tagged(7, &arp_request(PEER, THERE, HERE)));
    bench.sent();
    bench.port.reset_for(bench.now, &segment_of(&frame), &bench.counters);
    assert_eq!(untagged(&bench.sent()[0]).0, Some(7));
}

/// The segment in `frame`, as it came in by VLAN 7.
fn segment_of(frame: &[u8]) -> Segment {
    let ip = ipv4::parse(&frame[ETHERNET..], RxChecksum::Unchecked).unwrap();
    Segment { interface: 1, ..segment::parse_v4(frame, &ip, RxChecksum::Unchecked).unwrap() }
}

#[test]
fn neighbors_of_a_vlan_are_asked_and_answered_in_it() {
    let mut bench = trunk();
    let ask = |target| arp_request(PEER, THERE, target);
    assert_eq!(bench.verdict(&tagged(7, &ask(HERE))), None);
    let (vlan, answer) = untagged(&bench.sent()[0]);
    assert_eq!((vlan, arp::Packet::parse(&answer[14..]).unwrap().sender), (Some(7), HERE));
    for (name, frame) in [
        ("for the other VLAN's address", tagged(7, &ask(OTHER_IP))),
        ("for the untagged one", tagged(7, &ask(OUR_IP))),
        ("untagged", ask(HERE)),
        ("in the other VLAN", tagged(8, &ask(HERE))),
    ] {
        assert!(bench.verdict(&frame).is_some(), "{name}");
    }
    assert!(bench.sent().is_empty());
    // A packet leaves by the VLAN that has its source.
    let mut frame = bench.port.packet(20).unwrap();
    assert!(ipv4::write(&mut frame.bytes_mut()[14..], ipv4::TCP, OTHER_IP, Ipv4Addr::new(10, 9, 8, 2)));
    bench.port.send(bench.now, frame, [10, 9, 8, 2].into(), TxChecksum::Complete, &bench.counters);
    let (vlan, question) = untagged(&bench.sent()[0]);
    assert_eq!((vlan, arp::Packet::parse(&question[14..]).unwrap().target.octets()), (Some(8), [10, 9, 8, 2]));
    let answer = arp::Packet {
        request: false,
        sender_mac: PEER,
        sender: Ipv4Addr::new(10, 9, 8, 2),
        target_mac: US,
        target: OTHER_IP,
    };
    let answer = arp_frame(US, answer);
    assert_eq!(bench.verdict(&tagged(7, &answer)), Some(Verdict::ArpInvalid), "not on that link");
    assert!(bench.sent().is_empty());
    assert_eq!(bench.verdict(&tagged(8, &answer)), None);
    let (vlan, packet) = untagged(&bench.sent()[0]);
    assert_eq!((vlan, &packet[..6], &packet[12..14]), (Some(8), &PEER[..], &[8, 0][..]));
}

#[test]
fn a_remembered_hop_remembers_the_vlan() {
    let mut bench = trunk();
    bench.verdict(&tagged(7, &arp_request(PEER, THERE, HERE)));
    bench.sent();
    let mut hop = Hop::default();
    for _ in 0..2 {
        let mut frame = bench.port.packet(40).unwrap();
        assert!(ipv4::write(&mut frame.bytes_mut()[14..], ipv4::TCP, HERE, THERE));
        frame.bytes_mut()[34..].copy_from_slice(&[0, 80, 9, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10, 0, 0, 0, 0, 0, 0]);
        let checksum = TxChecksum::Tcp { l2_len: 14, l3_len: 20 };
        bench.port.send_via(bench.now, &mut hop, frame, THERE.into(), checksum, &bench.counters);
        let (vlan, sent) = untagged(&bench.sent()[0]);
        assert_eq!((vlan, &sent[..6]), (Some(7), &PEER[..]));
        assert_eq!(finish(sent.clone()), sent, "the checksum is filled behind the tag");
    }
}

const HOPS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 9, 1, 253), Ipv4Addr::new(10, 9, 1, 254)];
const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 0xfd], ROUTER];

/// Asks from the port that the next hops in `alive` answer, for a while.
fn answer_for(bench: &mut Bench, alive: &[usize], seconds: u32) {
    for _ in 0..seconds * 4 {
        bench.live(Duration::from_millis(250));
        for (target, _) in bench.sent().iter().filter_map(|frame| asked(frame)) {
            if let Some(hop) = alive.iter().copied().find(|&hop| HOPS[hop] == target) {
                bench.take(&arp_reply(MACS[hop], HOPS[hop]));
            }
        }
    }
}

/// By which of the next hops each of 200 flows leaves.
fn spread(bench: &mut Bench) -> Vec<Option<usize>> {
    let far = Ipv4Addr::new(192, 0, 2, 1);
    let send = |port: u16| {
        let mut frame = bench.port.packet(24).unwrap();
        let packet = &mut frame.bytes_mut()[ETHERNET..];
        assert!(ipv4::write(packet, ipv4::TCP, OUR_IP, far));
        packet[20..].copy_from_slice(&(u32::from(port) << 16 | 80).to_be_bytes());
        bench.port.send(bench.now, frame, far.into(), TxChecksum::Complete, &bench.counters);
        let sent = bench.sent();
        let to =
            sent.iter().find(|frame| frame[12..14] == [8, 0]).map(|frame| <[u8; 6]>::try_from(&frame[..6]).unwrap());
        to.and_then(|to| MACS.iter().position(|mac| *mac == to))
    };
    (0..200).map(send).collect()
}

#[test]
fn flows_are_spread_over_the_next_hops_that_answer() {
    let (left, peer) = wire(WireOptions::default(), 1);
    let mut settings = PortSettings::untagged("north", vec!["10.9.1.1/24".parse().unwrap()]);
    let via = HOPS.map(IpAddr::V4).to_vec();
    settings.interfaces[0].routes = vec![RouteSettings { destination: "0.0.0.0/0".parse().unwrap(), via }];
    let mut bench = Bench::with(left, peer, &settings, &TcpSettings::default());
    answer_for(&mut bench, &[0, 1], 3);
    let both = spread(&mut bench);
    let first = both.iter().filter(|hop| **hop == Some(0)).count();
    assert!((70..130).contains(&first) && both.iter().all(Option::is_some), "{first}");
    // One falls silent: it is asked for, whether it is used or not, and then left out. Only its flows move.
    answer_for(&mut bench, &[1], 10);
    let mut gone = Vec::new();
    bench.port.unreachable(|address| gone.push(address));
    assert_eq!(gone, [IpAddr::V4(HOPS[0])]);
    assert!(spread(&mut bench).iter().all(|hop| *hop == Some(1)));
    // As long as it is silent nobody is told again.
    answer_for(&mut bench, &[1], 30);
    bench.port.unreachable(|address| panic!("{address} again"));
    assert!(spread(&mut bench).iter().all(|hop| *hop == Some(1)));
    // It is back, and so are its flows.
    answer_for(&mut bench, &[0, 1], 10);
    assert_eq!(spread(&mut bench), both);
    // Nobody is left: flows wait for whom they would have gone to.
    answer_for(&mut bench, &[], 12);
    assert!(spread(&mut bench).iter().all(Option::is_none));
    answer_for(&mut bench, &[0, 1], 10);
    assert_eq!(spread(&mut bench), both);
}
