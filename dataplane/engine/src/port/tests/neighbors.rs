//! What the port knows of its neighbors, and how little a stranger can do about it.

use super::*;

#[test]
fn neighbors_are_asked_for_and_packets_wait() {
    let mut bench = Bench::new(&TcpSettings { neighbor_queue: 3, ..TcpSettings::default() }, false);
    for mark in 0..9 {
        bench.send(PEER_IP, mark);
    }
    // A few may wait for one neighbor; it is the oldest that do.
    let kept = 9 - bench.drops(Verdict::NeighborQueueFull) as u8;
    assert!((2..6).contains(&kept) && bench.port.interfaces[0].neighbors.waiting() == usize::from(kept), "{kept}");
    let sent = bench.sent();
    assert_eq!(sent.iter().map(|f| asked(f)).collect::<Vec<_>>(), [Some((PEER_IP, BROADCAST))]);
    assert_eq!(bench.verdict(&arp_reply(PEER, PEER_IP)), None);
    let sent = bench.sent();
    assert_eq!(sent.iter().map(|f| f[34]).collect::<Vec<_>>(), (0..kept).collect::<Vec<_>>());
    assert!(sent.iter().all(|f| f[..6] == PEER && f[6..12] == US && f[12..14] == [8, 0]));
    bench.send(PEER_IP, 9);
    assert_eq!(bench.sent()[0][34], 9);
    // Through the gateway, whose address is asked for and not the destination's.
    bench.send(Ipv4Addr::new(192, 0, 2, 1), 7);
    assert_eq!(asked(&bench.sent()[0]), Some((ROUTER_IP, BROADCAST)));
    bench.take(&arp_reply(ROUTER, ROUTER_IP));
    assert_eq!(bench.sent()[0][..6], ROUTER);
    bench.send(Ipv4Addr::new(10, 9, 1, 255), 1);
    assert_eq!(bench.drops(Verdict::NoRoute), 1);
    assert_eq!(bench.port.lane().frames_in_use(), 0);
}

#[test]
fn a_silent_neighbor_is_asked_three_times_and_given_up() {
    let mut bench = bench();
    bench.live(Duration::from_secs(5));
    bench.sent();
    bench.send(PEER_IP, 1);
    bench.send(PEER_IP, 2);
    for _ in 0..3 {
        bench.live(Duration::from_millis(1001));
    }
    assert_eq!(bench.sent().iter().filter_map(|f| asked(f)).count(), 3);
    assert_eq!(bench.drops(Verdict::NeighborUnresolved), 2);
    assert_eq!(bench.port.lane().frames_in_use(), 0);
    let mut gone = Vec::new();
    bench.port.unreachable(|address| gone.push(address));
    assert_eq!(gone, [IpAddr::V4(PEER_IP)]);
    bench.port.unreachable(|address| panic!("{address} again"));
    // The gateway's silence is told as the destinations that wanted it; asking starts anew with the next packet.
    bench.send(Ipv4Addr::new(192, 0, 2, 1), 1);
    bench.live(Duration::from_secs(4));
    bench.port.unreachable(|address| gone.push(address));
    assert_eq!(gone[1..], [IpAddr::V4(ROUTER_IP), [192, 0, 2, 1].into()]);
    bench.sent();
    bench.knows(ROUTER_IP, ROUTER);
}

#[test]
fn what_is_in_use_is_asked_again_in_the_background() {
    let mut bench = bench();
    bench.knows(PEER_IP, PEER);
    let mut hop = Hop::default();
    let mut answered = true;
    let mut unicast = 0;
    // A packet a second for two minutes, and nobody who answers from the 70th second on.
    let mut lost_at = None;
    for second in 0..120 {
        bench.live(Duration::from_secs(1));
        let mut frame = bench.port.packet(20).unwrap();
        assert!(ipv4::write(&mut frame.bytes_mut()[14..], ipv4::TCP, OUR_IP, PEER_IP));
        bench.port.send_via(bench.now, &mut hop, frame, PEER_IP.into(), TxChecksum::Complete, &bench.counters);
        let sent = bench.sent();
        if !sent.iter().any(|f| f[12..14] == [8, 0]) {
            lost_at.get_or_insert(second);
        }
        answered &= second < 70;
        for (_, mac) in sent.iter().filter_map(|f| asked(f)).filter(|(target, _)| *target == PEER_IP) {
            unicast += u32::from(mac == PEER);
            if answered {
                bench.take(&arp_reply(PEER, PEER_IP));
            }
        }
    }
    assert!((2..=4).contains(&unicast), "{unicast}");
    assert!(lost_at.is_some_and(|second| (70..=105).contains(&second)), "{lost_at:?}");
    assert!(bench.drops(Verdict::NeighborUnresolved) > 0);
}

#[test]
fn an_unused_neighbor_is_forgotten() {
    let mut bench = bench();
    bench.knows(PEER_IP, PEER);
    bench.live(Duration::from_secs(25));
    assert_eq!(bench.port.interfaces[0].neighbors.len(), 1);
    bench.live(Duration::from_secs(1000));
    assert_eq!(bench.port.interfaces[0].neighbors.len(), 0);
    assert_eq!(bench.port.interfaces[0].neighbors.next_due(), None);
}

#[test]
fn a_remembered_hop_follows_a_neighbor_that_moves() {
    let mut bench = bench();
    bench.knows(ROUTER_IP, ROUTER);
    let far = Ipv4Addr::new(192, 0, 2, 1);
    let mut hop = Hop::default();
    let mut next_mac = |bench: &mut Bench| {
        let mut frame = bench.port.packet(20).unwrap();
        assert!(ipv4::write(&mut frame.bytes_mut()[14..], ipv4::TCP, OUR_IP, far));
        bench.port.send_via(bench.now, &mut hop, frame, far.into(), TxChecksum::Complete, &bench.counters);
        <[u8; 6]>::try_from(&bench.sent()[0][..6]).unwrap()
    };
    assert_eq!(next_mac(&mut bench), ROUTER);
    // A stand-in announces itself: not believed, but asked for at once.
    let mut stand_in = ROUTER;
    stand_in[5] = 0xfd;
    let announcement = arp_request(stand_in, ROUTER_IP, ROUTER_IP);
    assert_eq!(bench.verdict(&announcement), Some(Verdict::IpDestination));
    assert_eq!(bench.sent().iter().filter_map(|f| asked(f)).collect::<Vec<_>>(), [(ROUTER_IP, BROADCAST)]);
    assert_eq!(next_mac(&mut bench), ROUTER);
    bench.take(&arp_reply(stand_in, ROUTER_IP));
    assert_eq!(next_mac(&mut bench), stand_in);
    // It asks us from its old address again.
    assert_eq!(bench.verdict(&arp_request(ROUTER, ROUTER_IP, OUR_IP)), None);
    bench.sent();
    assert_eq!(next_mac(&mut bench), ROUTER);
}

#[test]
fn arp_is_answered_and_spoofing_is_not_believed() {
    let mut bench = bench();
    assert_eq!(bench.verdict(&arp_request(PEER, PEER_IP, OUR_IP)), None);
    let sent = bench.sent();
    let reply = arp::Packet::parse(&sent[0][14..]).unwrap();
    assert_eq!((sent[0][..6].to_vec(), reply.request), (PEER.to_vec(), false));
    assert_eq!((reply.sender_mac, reply.sender), (US, OUR_IP));
    assert_eq!((reply.target_mac, reply.target), (PEER, PEER_IP));
    // Whoever asked is known, so that the answer to what comes next needs no question but is checked by one.
    bench.send(PEER_IP, 5);
    let sent = bench.sent();
    assert_eq!((sent[0][34], asked(&sent[1])), (5, Some((PEER_IP, PEER))));

    let zero = Ipv4Addr::UNSPECIFIED;
    let mut group = PEER;
    group[0] |= 1;
    let invalid = Some(Verdict::ArpInvalid);
    let short = arp_reply(PEER, PEER_IP)[..41].to_vec();
    for (name, frame, verdict) in [
        ("for another", arp_request(PEER, PEER_IP, Ipv4Addr::new(10, 9, 1, 77)), Some(Verdict::IpDestination)),
        ("our address by request", arp_request(PEER, OUR_IP, OUR_IP), invalid),
        ("our address by reply", arp_reply(PEER, OUR_IP), invalid),
        ("our Ethernet address", arp_reply(US, PEER_IP), invalid),
        ("not asked for", arp_reply(PEER, Ipv4Addr::new(10, 9, 1, 78)), invalid),
        ("off-link", arp_request(PEER, Ipv4Addr::new(10, 9, 2, 2), OUR_IP), invalid),
        ("broadcast sender", arp_request(PEER, Ipv4Addr::new(10, 9, 1, 255), OUR_IP), invalid),
        ("group MAC", arp_request(group, PEER_IP, OUR_IP), invalid),
        ("no MAC", arp_request([0; 6], PEER_IP, OUR_IP), invalid),
        ("reply from 0.0.0.0", arp_reply(PEER, zero), invalid),
        ("short", short, Some(Verdict::Truncated)),
        ("operation 3", changed(arp_reply(PEER, PEER_IP), |f| f[21] = 3), invalid),
        ("hardware 2", changed(arp_reply(PEER, PEER_IP), |f| f[15] = 2), invalid),
        ("protocol IPv6", changed(arp_reply(PEER, PEER_IP), |f| f[16] = 0x86), invalid),
        ("hardware length", changed(arp_reply(PEER, PEER_IP), |f| f[18] = 8), invalid),
    ] {
        assert_eq!(bench.verdict(&frame), verdict, "{name}");
        assert_eq!(bench.sent(), Vec::<Vec<u8>>::new(), "{name}");
        assert_eq!(bench.port.interfaces[0].neighbors.len(), 1, "{name}");
    }
    // Somebody asks whether our address is free (RFC 5227): defended, nothing learned.
    assert_eq!(bench.verdict(&arp_request(group.map(|b| b & 0xfe), zero, OUR_IP)), None);
    assert_eq!((bench.sent().len(), bench.port.interfaces[0].neighbors.len()), (1, 1));
    assert_eq!(bench.counters.arp_replies.read(), 2);
}

#[test]
fn a_flood_of_neighbors_keeps_the_gateway_and_those_in_use() {
    let tcp = TcpSettings { neighbors: 64, arp_per_second: 10_000, ..TcpSettings::default() };
    let mut bench = Bench::new(&tcp, false);
    bench.knows(ROUTER_IP, ROUTER);
    for host in 2..40 {
        bench.knows(Ipv4Addr::new(10, 9, 1, host), [2, 1, 0, 0, 0, host]);
    }
    bench.send(Ipv4Addr::new(10, 9, 1, 250), 77);
    for round in 0..20u8 {
        for host in 40..240 {
            bench.take(&arp_request([2, 7, 0, 0, round, host], Ipv4Addr::new(10, 9, 1, host), OUR_IP));
            bench.wait(Duration::from_millis(1));
        }
        assert!(bench.port.interfaces[0].neighbors.len() <= 65);
    }
    bench.sent();
    assert!(bench.port.interfaces[0].neighbors.generation() > 1);
    for host in 2..40 {
        bench.send(Ipv4Addr::new(10, 9, 1, host), host);
        let sent = bench.sent();
        assert_eq!(sent[0][..6], [2, 1, 0, 0, 0, host]);
    }
    bench.send(Ipv4Addr::new(192, 0, 2, 1), 1);
    assert_eq!(bench.sent()[0][..6], ROUTER);
    bench.take(&arp_reply(PEER, Ipv4Addr::new(10, 9, 1, 250)));
    assert_eq!(bench.sent()[0][34], 77, "who waited still gets its answer");
}

#[test]
fn packets_that_wait_are_bounded_in_sum() {
    let mut bench = Bench::new(&TcpSettings { neighbors: 0, ..TcpSettings::default() }, false);
    // Eight entries, four of which may wait; two for what needs no connection.
    let reply = |host| Reply {
        key: FlowKey::v4(OUR_IP, 80, Ipv4Addr::new(10, 9, 1, host), 99),
        seq: 0,
        ack: None,
        flags: Flags::RST,
        window: 0,
    };
    for host in 2..10 {
        bench.port.reply(bench.now, &reply(host), &bench.counters);
    }
    assert_eq!((bench.port.interfaces[0].neighbors.waiting(), bench.drops(Verdict::NeighborQueueFull)), (2, 6));
    for host in 20..30 {
        bench.send(Ipv4Addr::new(10, 9, 1, host), 0);
    }
    assert_eq!((bench.port.interfaces[0].neighbors.waiting(), bench.drops(Verdict::NeighborQueueFull)), (4, 14));
    bench.live(Duration::from_secs(4));
    assert_eq!((bench.port.interfaces[0].neighbors.waiting(), bench.port.interfaces[0].neighbors.len()), (0, 0));
    assert_eq!(bench.drops(Verdict::NeighborUnresolved), 4);
    bench.sent();
    assert_eq!(bench.port.lane().frames_in_use(), 0);
}

#[test]
fn arp_has_a_rate_that_answers_to_us_do_not_count_against() {
    let mut bench = Bench::new(&TcpSettings { arp_per_second: 40, ..TcpSettings::default() }, false);
    let verdicts: Vec<_> = (0..100).map(|_| bench.verdict(&arp_request(PEER, PEER_IP, OUR_IP))).collect();
    assert_eq!(verdicts.iter().filter(|v| v.is_none()).count(), 10);
    assert_eq!(bench.drops(Verdict::ArpRate), 90);
    bench.send(ROUTER_IP, 3);
    assert_eq!(bench.verdict(&arp_reply(ROUTER, ROUTER_IP)), None);
    assert_eq!(bench.sent().last().unwrap()[34], 3);
}

#[test]
fn addresses_are_announced_when_the_link_comes_up() {
    let mut bench = bench();
    let announced = |bench: &mut Bench| bench.sent().iter().filter(|f| asked(f) == Some((OUR_IP, BROADCAST))).count();
    assert_eq!(bench.port.next_maintenance(), Instant::default());
    bench.live(Duration::from_secs(10));
    assert_eq!(announced(&mut bench), 2);
    assert_eq!(bench.counters.ports[0].link_up.read(), 1);
    bench.port.lane_mut().set_link(false);
    bench.live(Duration::from_secs(3));
    assert_eq!(bench.counters.ports[0].link_up.read(), 0);
    bench.port.lane_mut().set_link(true);
    bench.live(Duration::from_secs(3));
    assert_eq!(announced(&mut bench), 2);
    assert_eq!(bench.counters.arp_requests.read(), 4);
}

#[test]
fn an_empty_pool_costs_packets_and_nothing_else() {
    let mut bench = bench();
    let mut held = Vec::new();
    while let Some(frame) = bench.port.packet(1500) {
        held.push(frame);
    }
    let pool = held.len();
    while let Some(frame) = bench.port.bare_packet(1500) {
        held.push(frame);
    }
    assert_eq!(held.len(), pool + pmd::RESERVE as usize, "what carries no data has a reserve");
    bench.live(Duration::from_secs(3));
    bench.port.maintain(bench.now, &bench.counters);
    let frame = held.pop().unwrap();
    bench.port.send(bench.now, frame, PEER_IP.into(), TxChecksum::Complete, &bench.counters);
    assert!(bench.sent().is_empty(), "no buffer to ask with");
    held.clear();
    bench.live(Duration::from_secs(2));
    assert!(bench.sent().iter().any(|f| asked(f) == Some((PEER_IP, BROADCAST))), "asked later");
}

#[test]
fn more_neighbors_than_places_evict_the_coldest_and_never_the_gateway() {
    let mut bench = Bench::new(&TcpSettings { neighbors: 16, ..TcpSettings::default() }, false);
    bench.knows(ROUTER_IP, ROUTER);
    for host in 2..102 {
        bench.knows(Ipv4Addr::new(10, 9, 1, host), [2, 1, 0, 0, 0, host]);
        assert!(bench.port.interfaces[0].neighbors.len() <= 17);
    }
    bench.send(Ipv4Addr::new(192, 0, 2, 1), 1);
    assert_eq!(bench.sent()[0][..6], ROUTER);
    for (host, known) in [(101, true), (86, true), (85, false)] {
        bench.send(Ipv4Addr::new(10, 9, 1, host), 1);
        assert_eq!(bench.sent()[0][12..14] == [8, 0], known, "{host}");
    }
}
