//! Frames: whatever arrives becomes exactly one thing, what is handed on lies within the frame, and no buffer stays behind.
#![no_main]

use core::time::Duration;

use engine::clock::Instant;
use engine::port::{Ingress, Port, clamp_syn_options};
use libfuzzer_sys::fuzz_target;
use pmd::sim::{Clock, SimLane, WireOptions, receive_all, send, wire};
use pmd::{Burst, Frame, Lane, checksum};
use tables::{CoreCounters, InterfaceSettings, PortSettings, RouteSettings, TcpSettings, Verdict};

/// Frames taken from one input.
const FRAMES: usize = 16;

/// Drops of packets that the port sent itself.
const OF_OURS: [Verdict; 3] = [Verdict::NeighborUnresolved, Verdict::NeighborQueueFull, Verdict::NoRoute];

fn now(clock: &Clock) -> Instant {
    Instant::default() + clock.now()
}

/// Makes the checksums right, so that a mutated frame gets beyond them.
fn repair(frame: &mut [u8]) {
    let l2_len = if frame.get(12..14) == Some(&[0x81, 0]) { 18 } else { 14 };
    match frame.get(l2_len).map(|first| first >> 4) {
        Some(4) => repair_v4(frame, l2_len),
        Some(6) => repair_v6(frame, l2_len),
        _ => {}
    }
}

fn repair_v4(frame: &mut [u8], l2_len: usize) {
    let Some(&[first, _, high, low, _, _, _, _, _, protocol]) = frame.get(l2_len..l2_len + 10) else { return };
    let (len, total) = (usize::from(first & 15) * 4, usize::from(u16::from_be_bytes([high, low])));
    if checksum::finish_tcp(frame, l2_len, len) && protocol == 6 {
        return;
    }
    let Some(packet) = frame.get_mut(l2_len..l2_len + total) else { return };
    if len >= 20 && packet.len() >= len + 4 {
        for (range, at) in [(0..len, 10), (len..packet.len(), 2)] {
            let part = &mut packet[range];
            part[at..at + 2].fill(0);
            let value = !checksum::sum(0, part);
            part[at..at + 2].copy_from_slice(&value.to_be_bytes());
        }
    }
}

/// Steps over extension headers of eight bytes, of which fuzzing makes plenty.
fn repair_v6(frame: &mut [u8], l2_len: usize) {
    let Some(&[_, _, _, _, high, low, mut next]) = frame.get(l2_len..l2_len + 7) else { return };
    let total = 40 + usize::from(u16::from_be_bytes([high, low]));
    let mut len = 40;
    while let (0 | 43 | 44 | 60, Some(&behind)) = (next, frame.get(l2_len + len)) {
        (next, len) = (behind, len + 8);
    }
    if next == 6 {
        let _ = checksum::finish_tcp(frame, l2_len, len);
    }
    let Some(packet) = frame.get_mut(l2_len..l2_len + total) else { return };
    let Some((header, message)) = packet.split_at_mut_checked(len) else { return };
    if next == 58 && message.len() >= 4 {
        message[2..4].fill(0);
        let seed = checksum::pseudo_header(&header[8..40], 58, message.len() as u16);
        let value = !checksum::sum(seed, message);
        message[2..4].copy_from_slice(&value.to_be_bytes());
    }
}

fn take(port: &mut Port<SimLane>, clock: &Clock, counters: &CoreCounters) -> u64 {
    let mut burst = Burst::new();
    let mut handed_on = 0;
    port.lane_mut().receive(&mut burst);
    for frame in burst {
        match port.ingress(now(clock), frame, counters) {
            Ingress::Segment(mut frame, mut segment) => {
                handed_on += 1;
                let bytes = frame.bytes_mut();
                assert!(
                    segment.ip_offset + 20 <= segment.tcp_offset && segment.tcp_offset + 20 <= segment.payload_offset
                );
                assert!(segment.payload_offset + segment.payload_len == segment.end && segment.end <= bytes.len());
                assert!(port.owns(segment.key.local_addr()) && segment.flags.plausible());
                clamp_syn_options(bytes, &mut segment, LEAST_MSS);
                assert!(segment.options.mss.is_none_or(|mss| mss >= LEAST_MSS));
                port.reset_for(now(clock), &segment, counters);
            }
            Ingress::IcmpError(error) => {
                handed_on += 1;
                assert!(port.owns(error.key.local_addr()));
            }
            Ingress::Done => {}
        }
    }
    handed_on
}

// The first byte chooses the device. Then, for each frame: a byte of choices, a length, and the frame.
const LEAST_MSS: u16 = 64;

fuzz_target!(|input: &[u8]| {
    let Some((&device, mut rest)) = input.split_first() else { return };
    let clock = Clock::new();
    let mut options = WireOptions { clock: clock.clone(), ..WireOptions::default() };
    options.left.rx_offload = device & 1 == 1;
    let (lane, mut peer) = wire(options, 1);
    let networks = |addresses: &[&str]| addresses.iter().map(|net| net.parse().unwrap()).collect::<Vec<_>>();
    let mut settings =
        PortSettings::untagged("north", networks(&["10.9.1.1/24", "10.9.1.4/24", "fd00:9:1::1/64", "fe80::1/64"]));
    let untagged = &mut settings.interfaces[0];
    if device & 2 == 2 {
        for (destination, via) in [("0.0.0.0/0", "10.9.1.254"), ("0.0.0.0/0", "10.9.1.253"), ("::/0", "fe80::fe")] {
            let (destination, via) = (destination.parse().unwrap(), via.parse().unwrap());
            match untagged.routes.iter_mut().find(|route| route.destination == destination) {
                Some(route) => route.via.push(via),
                None => untagged.routes.push(RouteSettings { destination, via: vec![via] }),
            }
        }
    }
    untagged.router_discovery = device & 4 == 4;
    let addresses = networks(&["10.9.7.1/24", "fd00:9:7::1/64"]);
    settings.interfaces.push(InterfaceSettings { vlan: Some(7), addresses, ..InterfaceSettings::default() });
    let tcp = TcpSettings { neighbors: 8, ..TcpSettings::default() };
    let mut port = Port::new(0, lane, &settings, &tcp);
    let counters = CoreCounters::new(1);
    // Addresses are checked before they are used; an even device meets frames while they are.
    for _ in 0..(device & 8) {
        port.maintain(now(&clock), &counters);
        clock.advance(Duration::from_secs(1));
    }
    let (mut sent, mut handed_on) = (0, 0);
    while let [choices, len, tail @ ..] = rest
        && sent < FRAMES
    {
        let (frame, tail) = tail.split_at(tail.len().min(usize::from(*len)));
        rest = tail;
        let mut frame = frame.to_vec();
        if choices & 1 == 1 && frame.len() >= 6 {
            frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        }
        if choices & 2 == 2 {
            repair(&mut frame);
        }
        assert!(send(&mut peer, &frame));
        sent += 1;
        clock.advance(Duration::from_micros(10) + Duration::from_millis(100) * u32::from(choices >> 4));
        handed_on += take(&mut port, &clock, &counters);
        port.maintain(now(&clock), &counters);
        port.lane_mut().flush();
    }
    let dropped: u64 = Verdict::ALL
        .iter()
        .filter(|verdict| !OF_OURS.contains(verdict))
        .map(|&verdict| counters.drops[verdict as usize].read())
        .sum();
    assert_eq!(port.lane().counters().rx_packets, sent as u64);
    assert_eq!(handed_on + port.consumed() + dropped, sent as u64);

    // What waits for a neighbor is given up in the end.
    for _ in 0..10 {
        clock.advance(Duration::from_secs(1));
        port.maintain(now(&clock), &counters);
        port.lane_mut().flush();
    }
    assert_eq!(port.lane().frames_in_use(), 0);
    clock.advance(Duration::from_secs(1));
    for frame in receive_all(&mut peer) {
        assert!(frame.len() >= 42 && frame[6..12] == [2, 0, 0, 0, 0, 1]);
    }
});
