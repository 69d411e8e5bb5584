//! The simulated wire keeps its promises: time, order, bounds, sums, and one run per seed.

use core::num::NonZeroU64;
use core::time::Duration;
use pmd::sim::{Clock, EndOptions, PathOptions, SimLane, WireOptions, receive_all, send, wire};
use pmd::{BURST, Burst, Frame, Lane, RxChecksum, TxChecksum, checksum};
use proptest::prelude::*;

const MICROSECOND: Duration = Duration::from_micros(1);

fn pair(change: impl FnOnce(&mut WireOptions)) -> (Clock, SimLane, SimLane) {
    let mut options = WireOptions::default();
    change(&mut options);
    let clock = options.clock.clone();
    let (left, right) = wire(options, 42);
    (clock, left, right)
}

fn numbered(number: u32) -> Vec<u8> {
    let mut frame = vec![0; 60];
    frame[..4].copy_from_slice(&number.to_be_bytes());
    frame
}

fn numbers(frames: &[Vec<u8>]) -> Vec<u32> {
    frames.iter().map(|frame| u32::from_be_bytes(frame[..4].try_into().unwrap())).collect()
}

/// Sends `count` numbered frames, one each microsecond, and gives what arrives with its time. Jumps from event to event.
fn run(clock: &Clock, left: &mut SimLane, right: &mut SimLane, count: u32) -> Vec<(Duration, Vec<u8>)> {
    let mut arrived = Vec::new();
    let start = clock.now();
    let mut sent = 0;
    loop {
        let next_send = (sent < count).then(|| start + MICROSECOND * sent);
        let Some(next) = next_send.into_iter().chain(right.next_arrival()).min() else {
            return arrived;
        };
        clock.advance_to(next);
        if next_send == Some(next) {
            assert!(send(left, &numbered(sent)));
            sent += 1;
        }
        arrived.extend(receive_all(right).into_iter().map(|frame| (clock.now(), frame)));
    }
}

fn troubled() -> PathOptions {
    PathOptions {
        jitter: MICROSECOND * 5,
        loss: 0.05,
        duplication: 0.04,
        corruption: 0.03,
        reordering: 0.02,
        ..Default::default()
    }
}

#[test]
fn a_frame_arrives_at_its_time_and_not_before() {
    let (clock, mut left, mut right) = pair(|_| {});
    assert!(send(&mut left, b"over"));
    assert!(send(&mut right, b"back"));
    assert_eq!(right.next_arrival(), Some(MICROSECOND * 10));
    clock.advance(Duration::from_nanos(9_999));
    assert!(receive_all(&mut right).is_empty());
    clock.advance(Duration::from_nanos(1));
    assert_eq!(receive_all(&mut right), [b"over"]);
    assert_eq!(receive_all(&mut left), [b"back"]);
    assert_eq!((left.next_arrival(), right.next_arrival()), (None, None));
    assert_eq!((left.counters().tx_packets, left.counters().tx_bytes), (1, 4));
    assert_eq!((right.counters().rx_packets, right.counters().rx_bytes), (1, 4));
}

#[test]
fn staged_frames_leave_when_flushed_or_when_the_stage_is_full() {
    let (clock, mut left, mut right) = pair(|options| options.to_right.delay = Duration::ZERO);
    for _ in 0..BURST - 1 {
        let frame = left.allocate().unwrap();
        left.transmit(frame, TxChecksum::Complete);
    }
    assert_eq!((right.next_arrival(), left.frames_in_use()), (None, BURST - 1));
    let frame = left.allocate().unwrap();
    left.transmit(frame, TxChecksum::Complete);
    assert_eq!((right.next_arrival(), left.frames_in_use()), (Some(clock.now()), 0));
    let mut burst = Burst::new();
    right.receive(&mut burst);
    assert_eq!(burst.len(), BURST);
}

#[test]
fn time_never_runs_backwards() {
    let clock = Clock::new();
    let shared = clock.clone();
    clock.advance_to(MICROSECOND * 5);
    clock.advance_to(MICROSECOND * 3);
    assert_eq!((clock.now(), shared.now()), (MICROSECOND * 5, MICROSECOND * 5));
}

#[test]
fn a_rate_spaces_frames_and_fills_the_tx_ring() {
    let (clock, mut left, mut right) = pair(|options| {
        options.to_right.rate = NonZeroU64::new(60_000_000); // one of our frames each microsecond
        options.left.tx_ring = 4;
    });
    assert_eq!(left.link().mbps, 480);
    for number in 0..6 {
        assert!(send(&mut left, &numbered(number)));
    }
    assert_eq!((left.counters().tx_packets, left.counters().tx_full), (4, 2));
    assert_eq!(left.frames_in_use(), 0);
    for number in 0..4 {
        clock.advance_to(right.next_arrival().unwrap());
        assert_eq!(clock.now(), MICROSECOND * (11 + number));
        assert_eq!(numbers(&receive_all(&mut right)), [number]);
    }
    assert!(send(&mut left, &numbered(9)));
    assert_eq!(left.counters().tx_full, 2, "the ring is free again");
}

#[test]
fn a_full_receive_ring_drops_the_newest_and_recovers() {
    let (clock, mut left, mut right) = pair(|options| options.right.rx_ring = 3);
    for number in 0..5 {
        assert!(send(&mut left, &numbered(number)));
    }
    clock.advance(MICROSECOND * 10);
    assert_eq!(numbers(&receive_all(&mut right)), [0, 1, 2]);
    assert_eq!((left.faults().ring_full, left.faults().delivered), (2, 3));
    assert!(send(&mut left, &numbered(7)));
    clock.advance(MICROSECOND * 10);
    assert_eq!(numbers(&receive_all(&mut right)), [7]);
}

#[test]
fn a_peer_that_never_receives_holds_no_more_than_its_ring() {
    let (clock, mut left, _right) = pair(|options| options.right.rx_ring = 8);
    for number in 0..1000 {
        assert!(send(&mut left, &numbered(number)));
        clock.advance(MICROSECOND);
    }
    assert!(left.in_flight() <= 8 + 11, "{} held", left.in_flight());
    assert_eq!(left.faults().in_flight(), left.in_flight() as u64);
}

#[test]
fn an_empty_pool_refuses_counts_and_recovers() {
    let (clock, mut left, mut right) = pair(|options| {
        options.left.pool = 2;
        options.right.pool = 1;
    });
    let held: Vec<_> = (0..2).map(|_| left.allocate().unwrap()).collect();
    assert!(left.allocate().is_none());
    assert!(!send(&mut left, b"none left"));
    assert_eq!((left.frames_in_use(), left.counters().pool_empty), (2, 2));
    let reserved: Vec<_> = std::iter::from_fn(|| left.allocate_reserved()).collect();
    assert_eq!(reserved.len(), pmd::RESERVE as usize);
    drop(reserved);
    drop(held);
    assert_eq!(left.frames_in_use(), 0);

    for number in 0..2 {
        assert!(send(&mut left, &numbered(number)));
    }
    clock.advance(MICROSECOND * 10);
    let mut burst = Burst::new();
    right.receive(&mut burst);
    assert_eq!((burst.len(), right.frames_in_use(), right.counters().pool_empty), (1, 1, 1));
    assert_eq!((left.faults().delivered, left.faults().no_buffer, left.in_flight()), (1, 1, 0));
    burst.clear();
    assert_eq!(right.frames_in_use(), 0);
}

#[test]
fn a_frame_may_outlive_its_lane_and_leave_on_another_wire() {
    let clock = Clock::new();
    let north = WireOptions::symmetric(&clock, PathOptions::default());
    let mut south = WireOptions::symmetric(&clock, PathOptions::default());
    south.right.mtu = 9000;
    let (mut client, mut gateway_north) = wire(north, 1);
    let (mut gateway_south, mut backend) = wire(south, 2);
    assert!(send(&mut client, &numbered(5)));
    clock.advance(MICROSECOND * 10);
    let mut burst = Burst::new();
    gateway_north.receive(&mut burst);
    let frame = burst.pop().unwrap();
    assert_eq!(gateway_north.frames_in_use(), 1);
    gateway_south.transmit(frame, TxChecksum::Complete);
    gateway_south.flush();
    assert_eq!((gateway_north.frames_in_use(), gateway_south.frames_in_use()), (0, 0));
    clock.advance(MICROSECOND * 10);
    backend.receive(&mut burst);
    let mut frame = burst.pop().unwrap();
    assert_eq!(frame.bytes(), numbered(5));
    assert!(frame.set_len(9018), "the buffer is the backend's own");
    drop(backend);
    assert_eq!(frame.bytes().len(), 9018);
}

#[test]
fn a_buffer_has_its_bounds() {
    let (clock, mut left, mut right) = pair(|options| options.right.mtu = 1400);
    let mut frame = left.allocate().unwrap();
    assert_eq!((frame.bytes().len(), frame.rx_checksum()), (0, RxChecksum::Unchecked));
    assert!(frame.set_len(2048) && !frame.set_len(2049));
    assert_eq!(frame.bytes_mut().len(), 2048);
    assert!(frame.set_len(1419));
    left.transmit(frame, TxChecksum::Complete);
    assert!(send(&mut left, &[0; 1418]));
    assert!(!send(&mut left, &[0; 2049]));
    clock.advance(MICROSECOND * 10);
    assert_eq!(receive_all(&mut right), [[0; 1418]]);
    assert_eq!((left.faults().oversize, left.frames_in_use()), (1, 0));
    assert_eq!((left.mtu(), right.mtu(), left.mac(), right.mac()[5]), (1500, 1400, [2, 0, 0, 0, 0, 1], 2));
}

#[test]
fn a_link_that_is_down_loses_what_is_sent() {
    let (clock, mut left, mut right) = pair(|_| {});
    assert!(left.link().up && send(&mut left, b"under way"));
    right.set_link(false);
    assert!(!left.link().up && send(&mut left, b"lost"));
    clock.advance(MICROSECOND * 10);
    assert_eq!(receive_all(&mut right), [b"under way"]);
    left.set_link(true);
    assert!(right.link().up && send(&mut left, b"again"));
    clock.advance(MICROSECOND * 10);
    assert_eq!(receive_all(&mut right), [b"again"]);
    assert_eq!((left.faults().lost, left.faults().in_flight()), (1, 0));
}

#[test]
fn a_path_can_become_a_black_hole_and_heal() {
    let (clock, mut left, mut right) = pair(|_| {});
    let good = left.path();
    left.set_path(PathOptions { loss: 1.0, ..PathOptions::default() });
    assert_eq!(run(&clock, &mut left, &mut right, 50), []);
    left.set_path(good);
    assert_eq!(run(&clock, &mut left, &mut right, 50).len(), 50);
}

#[test]
fn one_seed_is_one_run() {
    let go = |seed| {
        let clock = Clock::new();
        let (mut left, mut right) = wire(WireOptions::symmetric(&clock, troubled()), seed);
        (run(&clock, &mut left, &mut right, 2000), left.faults())
    };
    assert_eq!(go(1), go(1));
    assert_ne!(go(1).0, go(2).0);
}

#[test]
fn the_two_directions_have_decisions_of_their_own() {
    let clock = Clock::new();
    let (mut left, mut right) =
        wire(WireOptions::symmetric(&clock, PathOptions { loss: 0.5, ..Default::default() }), 1);
    let there = run(&clock, &mut left, &mut right, 100);
    let back = run(&clock, &mut right, &mut left, 100);
    let payload = |run: Vec<(Duration, Vec<u8>)>| run.into_iter().map(|(_, frame)| frame).collect::<Vec<_>>();
    assert_ne!(payload(there), payload(back));
}

#[test]
fn faults_come_as_often_as_asked() {
    let (clock, mut left, mut right) = pair(|options| options.to_right = troubled());
    let arrived = run(&clock, &mut left, &mut right, 50_000);
    let faults = left.faults();
    // Five standard deviations of the binomial distribution.
    let about = |count: u64, of: u64, probability: f64| {
        let mean = of as f64 * probability;
        let off = (count as f64 - mean).abs();
        assert!(off < 5.0 * (mean * (1.0 - probability)).sqrt(), "{count} of {of}, wanted {mean}");
    };
    let copies = faults.sent + faults.duplicated;
    about(faults.duplicated, faults.sent, 0.04);
    about(faults.lost, copies, 0.05);
    about(faults.corrupted, copies - faults.lost, 0.03);
    about(faults.reordered, copies - faults.lost, 0.02);
    assert_eq!(arrived.len() as u64, faults.delivered);
}

#[test]
fn held_back_frames_are_overtaken_and_jitter_alone_overtakes_nobody() {
    for (reordering, ordered) in [(0.0, true), (0.1, false)] {
        let (clock, mut left, mut right) = pair(|options| {
            options.to_right = PathOptions { jitter: MICROSECOND * 50, reordering, ..Default::default() };
        });
        let frames: Vec<_> = run(&clock, &mut left, &mut right, 1000).into_iter().map(|(_, frame)| frame).collect();
        let mut order = numbers(&frames);
        assert_eq!(order.is_sorted(), ordered);
        assert_eq!(left.faults().reordered > 0, !ordered);
        order.sort_unstable();
        assert!(order.into_iter().eq(0..1000), "each once");
    }
}

#[test]
fn corruption_flips_one_bit() {
    let (clock, mut left, mut right) = pair(|options| options.to_right.corruption = 1.0);
    for (number, (_, frame)) in run(&clock, &mut left, &mut right, 200).into_iter().enumerate() {
        let sent = numbered(number as u32);
        let flipped: u32 = frame.iter().zip(&sent).map(|(a, b)| (a ^ b).count_ones()).sum();
        assert_eq!((flipped, frame.len()), (1, sent.len()));
    }
}

/// An Ethernet frame with IPv4 or IPv6 and TCP or UDP in it, its checksums zero; and its `l3_len`.
fn packet(v6: bool, protocol: u8, payload: &[u8]) -> (Vec<u8>, u8) {
    let l4: &[u8] = match protocol {
        6 => &[0x1f, 0x90, 0, 80, 1, 2, 3, 4, 5, 6, 7, 8, 0x50, 0x18, 1, 0, 0, 0, 0, 0],
        _ => &[0x1f, 0x90, 0, 53, 0, 8, 0, 0],
    };
    let len = (l4.len() + payload.len()) as u8;
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    if v6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, len, protocol, 64]);
        frame.extend([0xfd; 32]);
    } else {
        frame.extend([8, 0, 0x45, 0, 0, 20 + len, 0, 1, 0x40, 0, 64, protocol, 0, 0, 10, 9, 1, 1, 10, 9, 2, 2]);
    }
    frame.extend(l4);
    frame.extend(payload);
    (frame, if v6 { 40 } else { 20 })
}

fn transmit(lane: &mut SimLane, bytes: &[u8], checksum: TxChecksum) {
    let mut frame = lane.allocate().unwrap();
    assert!(frame.set_len(bytes.len()));
    frame.bytes_mut().copy_from_slice(bytes);
    lane.transmit(frame, checksum);
    lane.flush();
}

#[test]
fn checksums_are_filled_when_sent_and_verified_when_asked() {
    let offload = |on| pair(move |options| options.right = EndOptions { rx_offload: on, ..options.right.clone() });
    let verdict = |clock: &Clock, right: &mut SimLane| {
        clock.advance(MICROSECOND * 10);
        let mut burst = Burst::new();
        right.receive(&mut burst);
        assert_eq!(burst.len(), 1);
        burst[0].rx_checksum()
    };
    for v6 in [false, true] {
        let (bytes, l3_len) = packet(v6, 6, b"odd");
        let tcp = TxChecksum::Tcp { l2_len: 14, l3_len };
        let (clock, mut left, mut right) = offload(true);
        transmit(&mut left, &bytes, tcp);
        assert_eq!(verdict(&clock, &mut right), RxChecksum::Good);
        transmit(&mut left, &bytes, TxChecksum::Complete);
        assert_eq!(verdict(&clock, &mut right), RxChecksum::Bad);

        let (clock, mut left, mut right) = offload(false);
        transmit(&mut left, &bytes, tcp);
        assert_eq!(verdict(&clock, &mut right), RxChecksum::Unchecked);

        // A header that claims more than there is: sent as it is.
        transmit(&mut left, &bytes[..bytes.len() - 1], tcp);
        clock.advance(MICROSECOND * 10);
        assert_eq!(receive_all(&mut right), [&bytes[..bytes.len() - 1]]);
    }
}

#[test]
fn the_offload_judges_only_what_it_covers() {
    let judge = |bytes: &[u8]| {
        let (clock, mut left, mut right) = pair(|options| options.right.rx_offload = true);
        assert!(send(&mut left, bytes));
        clock.advance(MICROSECOND * 10);
        let mut burst = Burst::new();
        right.receive(&mut burst);
        burst[0].rx_checksum()
    };
    let header = |bytes: &mut Vec<u8>| {
        bytes[24..26].fill(0);
        let sum = !checksum::sum(0, &bytes[14..34]);
        bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    };
    let (mut udp, _) = packet(false, 17, b"");
    header(&mut udp);
    assert_eq!(judge(&udp), RxChecksum::Unchecked, "UDP without checksum");
    let seed = checksum::pseudo_header(&udp[26..34], 17, 8);
    let sum = !checksum::sum(seed, &udp[34..]);
    udp[40..42].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(judge(&udp), RxChecksum::Good);
    let mut tagged = udp.clone();
    tagged.splice(12..12, [0x81, 0, 0, 7]);
    assert_eq!(judge(&tagged), RxChecksum::Good, "behind a VLAN tag");
    let mut padded = udp.clone();
    padded.resize(60, 0xee);
    assert_eq!(judge(&padded), RxChecksum::Good, "with padding");
    let mut fragment = udp.clone();
    fragment[20] = 0x20;
    header(&mut fragment);
    assert_eq!(judge(&fragment), RxChecksum::Unchecked, "a fragment");
    udp[24] ^= 1;
    assert_eq!(judge(&udp), RxChecksum::Bad, "IPv4 header");
    let (mut icmp, _) = packet(false, 1, b"");
    header(&mut icmp);
    assert_eq!(judge(&icmp), RxChecksum::Unchecked);
    let (whole, _) = packet(true, 6, b"");
    for cut in 0..whole.len() {
        assert_eq!(judge(&whole[..cut]), RxChecksum::Unchecked, "cut at {cut}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// The sums of `FaultCounters` and of the lanes hold after every step, whatever happens at once.
    #[test]
    fn nothing_is_lost_uncounted(
        seed: u64,
        loss in 0.0..0.5f64,
        duplication in 0.0..1.0f64,
        corruption in 0.0..1.0f64,
        reordering in 0.0..0.5f64,
        rx_ring in 0..40usize,
        tx_ring in 0..40usize,
        pool in 1..40usize,
        rate in prop::option::of(1_000_000..1_000_000_000u64),
        steps in prop::collection::vec((0..1600usize, 0..20u64, any::<bool>(), 0..20u8), 1..300),
    ) {
        let path = PathOptions {
            delay: MICROSECOND * 3, jitter: MICROSECOND * 4, loss, duplication, corruption, reordering,
            reorder_delay: MICROSECOND * 30, rate: rate.and_then(NonZeroU64::new),
        };
        let (clock, mut left, mut right) = pair(|options| {
            options.to_right = path;
            options.right.rx_ring = rx_ring;
            options.right.pool = pool;
            options.left.tx_ring = tx_ring;
        });
        let mut held = Vec::new();
        let mut burst = Burst::new();
        let (mut attempts, mut received) = (0, 0);
        for (len, micros, receive, extra) in steps {
            attempts += 1;
            prop_assert!(send(&mut left, &vec![7; len]));
            clock.advance(MICROSECOND * micros as u32);
            if extra == 0 {
                right.set_link(!right.link().up);
            }
            if receive {
                right.receive(&mut burst);
                received += burst.len() as u64;
                held.extend(burst.drain(..));
            }
            if extra % 4 == 0 {
                held.clear();
            }
            let faults = left.faults();
            prop_assert_eq!(faults.in_flight(), left.in_flight() as u64);
            prop_assert_eq!(faults.delivered, received);
            prop_assert_eq!(left.counters().tx_packets, faults.sent);
            prop_assert_eq!(left.counters().tx_packets + left.counters().tx_full, attempts);
            prop_assert_eq!(right.counters().rx_packets, received);
            prop_assert_eq!(right.counters().pool_empty, faults.no_buffer);
            prop_assert_eq!((left.frames_in_use(), right.frames_in_use()), (0, held.len()));
        }
        held.clear();
        clock.advance(Duration::from_secs(10));
        receive_all(&mut right);
        prop_assert_eq!(left.in_flight(), 0);
        prop_assert_eq!(right.frames_in_use(), 0);
        prop_assert_eq!(left.faults().in_flight(), 0);
    }
}
