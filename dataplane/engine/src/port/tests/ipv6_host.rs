//! Duplicate addresses, neighbors and routers in IPv6.

use super::ipv6_packets::{OUR_IP6, PEER_IP6, frame6, icmp6, packet6, settled};
use super::*;
use crate::port::ipv6::{ALL_NODES, ALL_ROUTERS, group_mac, link_local, solicited_node};
use crate::port::ndp::{LINK_HOPS, Outgoing};
use crate::port::{icmpv6, ipv6};
use tables::InterfaceSettings;

const ROUTER_IP6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xfe);
const FAR6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);
const NOBODY: Ipv6Addr = Ipv6Addr::UNSPECIFIED;

impl Bench {
    /// Sends a packet of ours by IPv6 that holds `mark`.
    fn send6(&mut self, destination: Ipv6Addr, mark: u8) {
        let mut frame = self.port.packet(41).unwrap();
        let packet = &mut frame.bytes_mut()[ETHERNET..];
        assert!(ipv6::write(packet, 59, 64, OUR_IP6, destination));
        packet[40] = mark;
        self.port.send(self.now, frame, destination.into(), TxChecksum::Complete, &self.counters);
    }

    pub(super) fn knows6(&mut self, address: Ipv6Addr, mac: [u8; 6]) {
        self.send6(address, 0);
        assert_eq!(self.verdict(&advertisement(address, OUR_IP6, Some(mac), 0x60)), None);
        assert_eq!(self.sent().last().unwrap()[..6], mac);
    }
}

/// A neighbor advertisement with these flags.
fn advertisement(target: Ipv6Addr, destination: Ipv6Addr, mac: Option<[u8; 6]>, flags: u8) -> Vec<u8> {
    let mut message = vec![136, 0, 0, 0, flags, 0, 0, 0];
    message.extend(target.octets());
    if let Some(mac) = mac {
        message.extend([2, 1]);
        message.extend(mac);
    }
    icmp6(LINK_HOPS, target, destination, &message)
}

/// A neighbor solicitation.
fn solicitation(source: Ipv6Addr, destination: Ipv6Addr, target: Ipv6Addr, mac: Option<[u8; 6]>) -> Vec<u8> {
    let message = Outgoing::Solicitation { target, link_address: mac };
    let mut packet = vec![0; message.len()];
    message.write(&mut packet, source, destination).unwrap();
    let to = if destination.is_multicast() { group_mac(destination) } else { US };
    ethernet(to, mac.unwrap_or(PEER), ethernet::IPV6, &packet)
}

/// Whom a neighbor solicitation of ours asks for, from which address, and by which Ethernet destination.
fn asked6(frame: &[u8]) -> Option<(Ipv6Addr, Ipv6Addr, [u8; 6])> {
    let ip = ipv6::parse(&frame[14..]).ok().filter(|_| frame[12..14] == [0x86, 0xdd])?;
    (ip.protocol == ipv6::ICMP && frame[54] == 135).then(|| {
        let message = crate::port::ndp::solicitation(&frame[54..], &ip).unwrap();
        assert_eq!(message.link_address, (!ip.source.is_unspecified()).then_some(US));
        (message.target, ip.source, frame[..6].try_into().unwrap())
    })
}

/// The target of a neighbor advertisement of ours, its flags, and to whom it goes.
fn told6(frame: &[u8]) -> Option<(Ipv6Addr, u8, Ipv6Addr)> {
    let ip = ipv6::parse(&frame[14..]).ok().filter(|_| frame[12..14] == [0x86, 0xdd])?;
    (ip.protocol == ipv6::ICMP && frame[54] == 136).then(|| {
        let message = crate::port::ndp::advertisement(&frame[54..], &ip).unwrap();
        assert_eq!((message.link_address, ip.hop_limit, message.router), (Some(US), 255, false));
        (message.target, frame[58], ip.destination)
    })
}

#[test]
fn addresses_are_checked_before_they_are_used() {
    let mut bench = bench();
    assert!(!bench.port.owns(OUR_IP6.into()));
    bench.live(Duration::from_millis(500));
    let local = link_local(US);
    let sent = bench.sent();
    let questions: Vec<_> = sent.iter().filter_map(|f| asked6(f)).collect();
    let group = |own| group_mac(solicited_node(own));
    assert_eq!(questions, [(OUR_IP6, NOBODY, group(OUR_IP6)), (local, NOBODY, group(local))]);
    // The groups are asked for first, from nowhere.
    let report = sent.iter().find(|f| f[12..14] == [0x86, 0xdd]).unwrap();
    assert_eq!((&report[..6], report[20], report[21]), (&[0x33, 0x33, 0, 0, 0, 0x16][..], 0, 1));
    assert_eq!((report[22..38].to_vec(), report[62], report[69]), (vec![0; 16], 143, 1));
    // One group: both addresses end alike.
    assert_eq!(report[74..90], solicited_node(OUR_IP6).octets());
    // Not ours yet: no answer to a question, no segment taken.
    let ask = solicitation(PEER_IP6, solicited_node(OUR_IP6), OUR_IP6, Some(PEER));
    assert_eq!(bench.verdict(&ask), Some(Verdict::IpDestination));
    assert_eq!(bench.verdict(&frame6(6, PEER_IP6, OUR_IP6, &[0; 20])), Some(Verdict::IpDestination));
    assert_eq!(bench.counters.ports[0].addresses_tentative.read(), 2);
    bench.live(Duration::from_secs(4));
    assert!(bench.port.owns(OUR_IP6.into()) && bench.port.owns(local.into()));
    let told: Vec<_> = bench.sent().iter().filter_map(|f| told6(f)).collect();
    assert_eq!(told, [(OUR_IP6, 0x20, ALL_NODES), (local, 0x20, ALL_NODES)].repeat(2));
    assert_eq!(bench.counters.ports[0].addresses_tentative.read(), 0);
    assert_eq!(bench.counters.nd_solicitations.read(), 2);
}

#[test]
fn an_address_that_somebody_has_is_not_used() {
    let defended = advertisement(OUR_IP6, ALL_NODES, Some(PEER), 0x20);
    let wanted = solicitation(NOBODY, solicited_node(OUR_IP6), OUR_IP6, None);
    for objection in [defended, wanted] {
        let mut bench = bench();
        bench.live(Duration::from_millis(500));
        assert_eq!(bench.verdict(&objection), None);
        bench.live(Duration::from_secs(10));
        assert!(!bench.port.owns(OUR_IP6.into()) && bench.port.owns(link_local(US).into()));
        assert_eq!(bench.counters.ports[0].addresses_duplicate.read(), 1);
        assert!(bench.sent().iter().filter_map(|f| told6(f)).all(|(target, ..)| target != OUR_IP6));
        assert_eq!(bench.port.source_for(PEER_IP6.into()), None);
        // When the link has been away it is tried again.
        bench.peer.set_link(false);
        bench.live(Duration::from_secs(2));
        bench.peer.set_link(true);
        bench.live(Duration::from_secs(4));
        assert!(bench.port.owns(OUR_IP6.into()));
    }
}

#[test]
fn what_is_ours_is_defended() {
    let mut bench = settled();
    let wanted = solicitation(NOBODY, solicited_node(OUR_IP6), OUR_IP6, None);
    assert_eq!(bench.verdict(&wanted), None);
    assert_eq!(bench.sent().iter().filter_map(|f| told6(f)).collect::<Vec<_>>(), [(OUR_IP6, 0x20, ALL_NODES)]);
    assert_eq!(bench.verdict(&advertisement(OUR_IP6, ALL_NODES, Some(PEER), 0x20)), Some(Verdict::IpSource));
    assert!(bench.port.owns(OUR_IP6.into()));
    // Connections outlive a link that goes away: the addresses stay.
    bench.peer.set_link(false);
    bench.live(Duration::from_secs(2));
    bench.peer.set_link(true);
    bench.live(Duration::from_millis(1100));
    assert!(bench.port.owns(OUR_IP6.into()));
    assert!(bench.sent().iter().any(|f| told6(f).is_some()), "announced again");
}

#[test]
fn questions_are_answered_and_those_who_ask_are_known() {
    let mut bench = settled();
    assert_eq!(bench.verdict(&solicitation(PEER_IP6, solicited_node(OUR_IP6), OUR_IP6, Some(PEER))), None);
    let sent = bench.sent();
    assert_eq!(sent.iter().filter_map(|f| told6(f)).collect::<Vec<_>>(), [(OUR_IP6, 0x60, PEER_IP6)]);
    assert_eq!(sent[0][..6], PEER);
    bench.send6(PEER_IP6, 1);
    assert_eq!(bench.sent()[0][..6], PEER, "no question is needed");
    // To us alone, without saying where it is.
    assert_eq!(bench.verdict(&solicitation(PEER_IP6, OUR_IP6, OUR_IP6, None)), None);
    assert_eq!(bench.sent().iter().filter_map(|f| told6(f)).collect::<Vec<_>>(), [(OUR_IP6, 0x60, PEER_IP6)]);
    // Whoever is not on the link gets an answer and no place.
    let before = bench.port.interfaces[0].neighbors.len();
    assert_eq!(bench.verdict(&solicitation(FAR6, solicited_node(OUR_IP6), OUR_IP6, Some(PEER))), None);
    assert_eq!(bench.port.interfaces[0].neighbors.len(), before);
}

#[test]
fn messages_from_beyond_the_link_or_malformed_count_for_nothing() {
    let mut bench = settled();
    let group = solicited_node(OUR_IP6);
    let good = || {
        let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
        message.extend(OUR_IP6.octets());
        message.extend([1, 1]);
        message.extend(PEER);
        message
    };
    let invalid = Some(Verdict::NdInvalid);
    let ask = |hops, source, destination, message: &[u8]| icmp6(hops, source, destination, message);
    for (name, frame, verdict) in [
        ("good", ask(255, PEER_IP6, group, &good()), None),
        ("routed", ask(254, PEER_IP6, group, &good()), invalid),
        ("code", ask(255, PEER_IP6, group, &changed(good(), |m| m[1] = 1)), invalid),
        ("short", ask(255, PEER_IP6, group, &good()[..23]), invalid),
        ("option of length 0", ask(255, PEER_IP6, group, &changed(good(), |m| m[25] = 0)), invalid),
        ("option beyond the end", ask(255, PEER_IP6, group, &changed(good(), |m| m[25] = 2)), invalid),
        ("a group's MAC", ask(255, PEER_IP6, group, &changed(good(), |m| m[26] = 3)), invalid),
        ("a group as target", ask(255, PEER_IP6, group, &changed(good(), |m| m[8] = 0xff)), invalid),
        ("from nobody, with a MAC", ask(255, NOBODY, group, &good()), invalid),
        ("from nobody, to all", ask(255, NOBODY, ALL_NODES, &good()[..24]), invalid),
        ("solicited by a group", advertisement(PEER_IP6, ALL_NODES, Some(PEER), 0x60), invalid),
        ("nobody asked", advertisement(PEER_IP6, OUR_IP6, Some(ROUTER), 0x60), invalid),
        ("of no router", icmp6(255, PEER_IP6, ALL_NODES, &[134; 16]), Some(Verdict::IcmpUnrelated)),
        ("a query of a host", icmp6(1, PEER_IP6, ALL_NODES, &[130; 28]), invalid),
    ] {
        assert_eq!(bench.verdict(&frame), verdict, "{name}");
    }
    let many = [&good()[..24], &[14, 1, 0, 0, 0, 0, 0, 0].repeat(33)].concat();
    assert_eq!(bench.verdict(&ask(255, PEER_IP6, group, &many)), invalid);
    // A frame that says it is ours.
    let spoof = changed(ask(255, PEER_IP6, group, &good()), |f| f[6..12].copy_from_slice(&US));
    assert_eq!(bench.verdict(&spoof), invalid);
    bench.send6(PEER_IP6, 1);
    assert_eq!(bench.sent().last().unwrap()[..6], PEER, "the good one");
}

#[test]
fn neighbors_are_asked_for_and_their_answers_judged() {
    let mut bench = settled();
    bench.send6(PEER_IP6, 7);
    let group = group_mac(solicited_node(PEER_IP6));
    assert_eq!(bench.sent().iter().map(|f| asked6(f)).collect::<Vec<_>>(), [Some((PEER_IP6, OUR_IP6, group))]);
    // Without saying where it is, it has not answered.
    assert_eq!(bench.verdict(&advertisement(PEER_IP6, OUR_IP6, None, 0x60)), Some(Verdict::NdInvalid));
    assert_eq!(bench.verdict(&advertisement(PEER_IP6, OUR_IP6, Some(PEER), 0x40)), None);
    let sent = bench.sent();
    assert_eq!((&sent[0][..6], sent[0][54]), (&PEER[..], 7));
    // An announcement is not believed, and makes it be asked for again.
    let elsewhere = advertisement(PEER_IP6, ALL_NODES, Some(ROUTER), 0x20);
    assert_eq!(bench.verdict(&elsewhere), Some(Verdict::NdInvalid));
    assert_eq!(bench.sent().iter().map(|f| asked6(f)).collect::<Vec<_>>(), [Some((PEER_IP6, OUR_IP6, group))]);
    bench.send6(PEER_IP6, 8);
    assert_eq!(bench.sent()[0][..6], PEER);
    assert_eq!(bench.verdict(&advertisement(PEER_IP6, OUR_IP6, Some(ROUTER), 0x60)), None);
    bench.send6(PEER_IP6, 9);
    assert_eq!(bench.sent()[0][..6], ROUTER);
}

#[test]
fn what_is_in_use_is_asked_after_a_delay_and_given_up() {
    let mut bench = settled();
    bench.knows6(PEER_IP6, PEER);
    let start = bench.now;
    let mut questions = Vec::new();
    let mut lost_at = None;
    for _ in 0..60 {
        bench.live(Duration::from_secs(1));
        bench.send6(PEER_IP6, 1);
        let sent = bench.sent();
        let second = bench.now.since(start) / 1_000_000_000;
        if lost_at.is_none() && !sent.iter().any(|f| f[20] == 59) {
            lost_at = Some(second);
        }
        if lost_at.is_none() {
            questions.extend(sent.iter().filter_map(|f| asked6(f)).map(|(target, _, mac)| (second, target, mac)));
        }
    }
    // RFC 4861 §10: 30 s reachable, 5 s delay, three questions a second apart, each to it alone.
    let seconds: Vec<u64> = questions.iter().map(|(second, ..)| *second).collect();
    assert_eq!(seconds.len(), 3, "{questions:?}");
    assert!((35..=37).contains(&seconds[0]) && seconds[2] == seconds[0] + 2, "{seconds:?}");
    assert!(questions.iter().all(|(_, target, mac)| (*target, *mac) == (PEER_IP6, PEER)));
    assert!(lost_at.is_some_and(|second| (38..=41).contains(&second)), "{lost_at:?}");
    let mut gone = Vec::new();
    bench.live(Duration::from_secs(5));
    bench.port.unreachable(|address| gone.push(address));
    assert!(gone.contains(&IpAddr::V6(PEER_IP6)));
}

#[test]
fn an_answer_to_a_question_keeps_a_neighbor() {
    let mut bench = settled();
    bench.knows6(PEER_IP6, PEER);
    for _ in 0..120 {
        bench.live(Duration::from_secs(1));
        bench.send6(PEER_IP6, 1);
        let sent = bench.sent();
        assert!(sent.iter().any(|f| f[20] == 59));
        if sent.iter().any(|f| asked6(f).is_some()) {
            // To a question that went to it alone it need not say where it is.
            assert_eq!(bench.verdict(&advertisement(PEER_IP6, OUR_IP6, None, 0x40)), None);
        }
    }
}

#[test]
fn a_flood_of_neighbors_leaves_the_gateway_and_those_in_use() {
    let (left, peer) = wire(WireOptions::default(), 1);
    let mut settings = PortSettings::untagged("north", vec!["fd00:9:1::1/64".parse().unwrap()]);
    settings.interfaces[0].routes =
        vec![RouteSettings { destination: "::/0".parse().unwrap(), via: vec![ROUTER_IP6.into()] }];
    let tcp = TcpSettings { neighbors: 16, arp_per_second: 100_000, ..TcpSettings::default() };
    let mut bench = Bench::with(left, peer, &settings, &tcp);
    bench.live(Duration::from_secs(3));
    bench.send6(FAR6, 0);
    assert_eq!(bench.verdict(&advertisement(ROUTER_IP6, OUR_IP6, Some(ROUTER), 0xe0)), None);
    bench.knows6(PEER_IP6, PEER);
    for n in 0..2000u16 {
        let stranger = Ipv6Addr::new(0xfd00, 9, 1, 0, 0, 0, 1, n);
        let mac = [2, 9, 9, 9, (n >> 8) as u8, n as u8];
        bench.take(&solicitation(stranger, solicited_node(OUR_IP6), OUR_IP6, Some(mac)));
    }
    assert!(bench.port.interfaces[0].neighbors.len() <= 17);
    bench.sent();
    bench.send6(FAR6, 1);
    bench.send6(PEER_IP6, 2);
    let to: Vec<_> = bench.sent().iter().map(|f| f[..6].to_vec()).collect();
    assert_eq!(to, [ROUTER, PEER]);
}

#[test]
fn questions_above_the_rate_are_dropped() {
    let mut bench = settled();
    let ask = solicitation(PEER_IP6, solicited_node(OUR_IP6), OUR_IP6, Some(PEER));
    let answered = (0..2000).filter(|_| bench.verdict(&ask).is_none()).count();
    assert!((200..400).contains(&answered), "{answered}");
    assert_eq!(bench.drops(Verdict::NdRate), 2000 - answered as u64);
}

/// A router advertisement: lifetime, and options.
fn router(source: Ipv6Addr, lifetime: u16, options: &[&[u8]]) -> Vec<u8> {
    let [high, low] = lifetime.to_be_bytes();
    let message = [&[134, 0, 0, 0, 64, 0, high, low, 0, 0, 0, 0, 0, 0, 0, 0][..], &options.concat()].concat();
    icmp6(LINK_HOPS, source, ALL_NODES, &message)
}

fn prefix(net: &str, valid: u32, flags: u8) -> Vec<u8> {
    let net: ipnet::Ipv6Net = net.parse().unwrap();
    let mut option = vec![3, 4, net.prefix_len(), flags];
    option.extend(valid.to_be_bytes());
    option.extend([0; 8]);
    option.extend(net.addr().octets());
    option
}

fn discovering() -> Bench {
    let (left, peer) = wire(WireOptions::default(), 1);
    let settings = PortSettings {
        name: "north".into(),
        mtu: None,
        interfaces: vec![InterfaceSettings {
            addresses: vec!["fd00:9:1::1/64".parse().unwrap()],
            router_discovery: true,
            ..InterfaceSettings::default()
        }],
    };
    Bench::with(left, peer, &settings, &TcpSettings::default())
}

const SOURCE_MAC: [u8; 8] = [1, 1, ROUTER[0], ROUTER[1], ROUTER[2], ROUTER[3], ROUTER[4], ROUTER[5]];

#[test]
fn routers_are_looked_for_and_their_advertisements_obeyed() {
    let mut bench = discovering();
    bench.live(Duration::from_secs(30));
    let sent = bench.sent();
    let searches: Vec<_> = sent.iter().filter(|f| f[12..14] == [0x86, 0xdd] && f[20] == 58 && f[54] == 133).collect();
    assert_eq!(searches.len(), 3);
    assert_eq!(searches[0][38..54], ALL_ROUTERS.octets());
    assert_eq!(searches[0][22..38], link_local(US).octets());
    assert_eq!(bench.port.preference(FAR6.into()), None);
    let neighbor = Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 9);
    let on_link = prefix("2001:db8:7::/64", 100, 0xc0);
    let mtu = [5, 1, 0, 0, 0, 0, 0x05, 0x78];
    assert_eq!(bench.verdict(&router(ROUTER_IP6, 60, &[&SOURCE_MAC, &mtu, &on_link])), None);
    assert_eq!((bench.port.preference(FAR6.into()), bench.port.mtu(OUR_IP6.into())), (Some(0), 1400));
    assert_eq!(bench.port.source_for(FAR6.into()), Some(OUR_IP6.into()), "no link-local source to elsewhere");
    assert_eq!(bench.port.preference(neighbor.into()), Some(u16::MAX));
    bench.send6(FAR6, 1);
    assert_eq!(bench.sent()[0][..6], ROUTER, "it said where it is");
    bench.send6(neighbor, 1);
    assert_eq!(asked6(&bench.sent()[0]).map(|(target, ..)| target), Some(neighbor));
    // Both end when nobody says it again.
    bench.live(Duration::from_secs(61));
    assert_eq!((bench.port.preference(FAR6.into()), bench.port.preference(neighbor.into())), (None, Some(u16::MAX)));
    bench.live(Duration::from_secs(41));
    assert_eq!(bench.port.preference(neighbor.into()), None);
    // And when it says so.
    assert_eq!(bench.verdict(&router(ROUTER_IP6, 60, &[&on_link])), None);
    assert_eq!(bench.port.preference(FAR6.into()), Some(0));
    assert_eq!(bench.verdict(&router(ROUTER_IP6, 0, &[&prefix("2001:db8:7::/64", 0, 0x80)])), None);
    assert_eq!((bench.port.preference(FAR6.into()), bench.port.preference(neighbor.into())), (None, None));
}

#[test]
fn bad_advertisements_and_too_many_are_not_obeyed() {
    let mut bench = discovering();
    bench.live(Duration::from_secs(3));
    let invalid = Some(Verdict::NdInvalid);
    let hops = |hops: u8| icmp6(hops, ROUTER_IP6, ALL_NODES, &[&[134, 0][..], &[0; 4], &[0, 60], &[0; 8]].concat());
    assert_eq!(bench.verdict(&hops(254)), invalid);
    assert_eq!(bench.verdict(&hops(255)), None);
    assert_eq!(bench.verdict(&router(PEER_IP6, 60, &[])), invalid, "no link-local source");
    assert_eq!(bench.verdict(&router(ROUTER_IP6, 60, &[&[3, 0, 0, 0]])), invalid);
    assert_eq!(bench.verdict(&router(ROUTER_IP6, 60, &[&[3, 1, 64, 0x80, 0, 0, 0, 0]])), invalid);
    let ignored = [prefix("fe80::/64", 100, 0x80), prefix("::/0", 100, 0x80), prefix("2001:db8:8::/64", 100, 0x40)];
    let small = [5, 1, 0, 0, 0, 0, 0x04, 0xff];
    assert_eq!(bench.verdict(&router(ROUTER_IP6, 60, &[&ignored.concat(), &small])), None);
    assert_eq!(bench.port.mtu(OUR_IP6.into()), 1500);
    let other = Ipv6Addr::new(0x2001, 0xdb8, 8, 0, 0, 0, 0, 9);
    assert_eq!(bench.port.preference(other.into()), Some(0), "through the router");
    for n in 0..200u16 {
        let router_n = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 1, n);
        bench.take(&router(router_n, 600, &[&prefix(&format!("2001:db8:1{n:03x}::/64"), 100, 0x80)]));
    }
    let host = bench.port.interfaces[0].host.as_ref().unwrap();
    assert!(host.default_router(|_| false).is_some_and(|first| first == IpAddr::V6(ROUTER_IP6)));
    assert!(bench.port.interfaces[0].neighbors.len() < 10);
    // Nobody answers for the first: the next one is used.
    bench.send6(FAR6, 1);
    bench.live(Duration::from_secs(4));
    bench.sent();
    bench.send6(FAR6, 2);
    assert_eq!(asked6(&bench.sent()[0]).map(|(target, ..)| target), Some(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 1, 0)));
}

#[test]
fn a_query_is_answered_with_our_groups() {
    let mut bench = settled();
    assert_eq!(bench.verdict(&icmp6(1, ROUTER_IP6, ALL_NODES, &[130; 28])), None);
    bench.live(Duration::from_secs(1));
    let sent = bench.sent();
    let report = sent.iter().find(|f| f[12..14] == [0x86, 0xdd] && f[62] == 143).unwrap();
    assert_eq!(report[22..38], link_local(US).octets());
    let message = &report[62..];
    let mut plain = packet6(58, 1, link_local(US), "ff02::16".parse().unwrap(), message);
    icmpv6::finish(&mut plain).unwrap();
    assert_eq!(plain[40..], *message, "its checksum does not count the router alert");
}
