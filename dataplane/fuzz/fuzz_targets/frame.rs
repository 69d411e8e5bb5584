//! Frames: whatever arrives becomes exactly one thing, what is handed on lies within the frame, and no buffer stays behind.
#![no_main]

use core::time::Duration;

use engine::clock::Instant;
use engine::port::{Ingress, Port, clamp_syn_options};
use libfuzzer_sys::fuzz_target;
use pmd::sim::{Clock, SimLane, WireOptions, receive_all, send, wire};
use pmd::{Burst, Frame, Lane, checksum};
use tables::{CoreCounters, PortSettings, TcpSettings, Verdict};

/// Frames taken from one input.
const FRAMES: usize = 16;

/// Drops of packets that the port sent itself.
const OF_OURS: [Verdict; 3] = [Verdict::NeighborUnresolved, Verdict::NeighborQueueFull, Verdict::NoRoute];

fn now(clock: &Clock) -> Instant {
    Instant::default() + clock.now()
}

/// Makes the checksums right, so that a mutated frame gets beyond them.
fn repair(frame: &mut [u8]) {
    let Some(&[first, _, high, low, _, _, _, _, _, protocol]) = frame.get(14..24) else { return };
    let (len, total) = (usize::from(first & 15) * 4, usize::from(u16::from_be_bytes([high, low])));
    if checksum::finish_tcp(frame, 14, len) && protocol == 6 {
        return;
    }
    let Some(packet) = frame.get_mut(14..14 + total) else { return };
    if len >= 20 && packet.len() >= len + 4 {
        for (range, at) in [(0..len, 10), (len..packet.len(), 2)] {
            let part = &mut packet[range];
            part[at..at + 2].fill(0);
            let value = !checksum::sum(0, part);
            part[at..at + 2].copy_from_slice(&value.to_be_bytes());
        }
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
    let settings = PortSettings {
        name: "north".into(),
        addresses: vec!["10.9.1.1/24".parse().unwrap(), "10.9.1.4/24".parse().unwrap()],
        gateway: (device & 2 == 2).then(|| "10.9.1.254".parse().unwrap()),
        mtu: None,
    };
    let tcp = TcpSettings { neighbors: 8, ..TcpSettings::default() };
    let mut port = Port::new(0, lane, &settings, &tcp);
    let counters = CoreCounters::new(1);
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
