//! net_ring, which hands back what it is sent: lanes, pools and counters without a second party.

mod common;

use std::thread;

use common::{every_length, in_own_process, number, numbered, open, options};
use pmd::error::PortError;
use pmd::{BURST, Burst, Eal, EalError, Frame, Lane, Mbuf, Port, PortOptions, RESERVE, TxChecksum};

/// Sends and receives on the same lane until `frames` came back.
fn loop_back(lane: &mut impl Lane<Frame = Mbuf>, frames: u32) {
    let mut burst = Burst::new();
    for first in (0..frames).step_by(BURST) {
        for next in first..first + BURST as u32 {
            let mut frame = lane.allocate().unwrap();
            numbered(&mut frame, next, every_length(next));
            lane.transmit(frame, TxChecksum::Complete);
        }
        lane.receive(&mut burst);
        let numbers: Vec<_> = burst.drain(..).map(|frame| number(&frame, every_length).unwrap()).collect();
        assert!(numbers.into_iter().eq(first..first + BURST as u32), "a full stage is sent without a flush");
    }
}

#[test]
fn queues_are_lanes_of_their_own() {
    in_own_process("queues_are_lanes_of_their_own", || {
        let eal = Eal::start(&options(&["net_ring0"])).unwrap();
        assert_eq!(Eal::start(&options(&[])).unwrap_err(), EalError::AlreadyStarted);
        assert!(eal.version().starts_with("DPDK "));
        let wanted = PortOptions { queues: 4, mbufs: 1024, ..PortOptions::default() };
        let too_many = PortOptions { queues: 1000, ..PortOptions::default() };
        assert!(matches!(Port::configure(&eal, "net_ring1", &wanted), Err(PortError::NotFound { .. })));
        let mut port = Port::configure(&eal, "net_ring0", &wanted).unwrap();
        assert!(matches!(Port::configure(&eal, "net_ring0", &too_many), Err(PortError::InUse { .. })));
        assert!(matches!(port.take_lane(0), Err(PortError::NotStarted { .. })));
        port.start().unwrap();
        let mut first = port.take_lane(0).unwrap();
        assert!(matches!(port.take_lane(0), Err(PortError::NoLane { queue: 0, .. })));
        assert!(matches!(port.take_lane(4), Err(PortError::NoLane { queue: 4, .. })));
        let lanes = port.lanes().unwrap();
        assert_eq!(lanes.iter().map(pmd::DpdkLane::queue).collect::<Vec<_>>(), [Some(1), Some(2), Some(3)]);
        assert_eq!((port.driver(), port.queues(), port.capabilities().queues), ("net_ring", 4, 16));

        thread::scope(|scope| {
            for mut lane in lanes {
                let eal = &eal;
                scope.spawn(move || {
                    let _registered = eal.register_thread().unwrap();
                    loop_back(&mut lane, 20_000);
                    assert_eq!(lane.frames_in_use(), 0);
                    assert_eq!(lane.counters().tx_packets, 20_000);
                    assert_eq!(
                        (lane.counters().rx_packets, lane.counters().rx_bytes),
                        (20_000, lane.counters().tx_bytes)
                    );
                });
            }
        });
        assert_eq!(first.counters().rx_packets, 0, "what one queue was sent, another does not get");
        loop_back(&mut first, 3200);
        assert_eq!(port.statistics().unwrap().tx_packets, 63_200);
        assert!(!port.statistics().unwrap().extended.is_empty());
    });
}

#[test]
fn an_empty_pool_refuses_and_recovers() {
    in_own_process("an_empty_pool_refuses_and_recovers", || {
        let eal = Eal::start(&options(&["net_ring0"])).unwrap();
        let (_port, mut lane) = open(&eal, "net_ring0", &PortOptions { mbufs: 255, ..PortOptions::default() });
        for registered in [false, true] {
            let _registered = registered.then(|| eal.register_thread().unwrap());
            let refused = lane.counters().pool_empty;
            let mut held = Vec::new();
            while let Some(mut frame) = lane.allocate() {
                assert!(frame.bytes().is_empty());
                assert!(frame.set_len(2048) && !frame.set_len(2049) && !frame.set_len(1 << 16));
                assert_eq!(frame.bytes().len(), 2048, "a refused length changes nothing");
                held.push(frame);
            }
            assert_eq!(held.len(), 255);
            assert_eq!(lane.frames_in_use(), 255);
            assert!(lane.allocate().is_none());
            assert_eq!(lane.counters().pool_empty, refused + 2);
            let reserved: Vec<_> = std::iter::from_fn(|| lane.allocate_reserved()).collect();
            assert_eq!((reserved.len(), lane.frames_in_use()), (RESERVE as usize, 255 + RESERVE as usize));
            drop(reserved);
            held.truncate(255 - BURST);
            loop_back(&mut lane, 320);
            drop(held);
            assert_eq!(lane.frames_in_use(), 0);
        }
    });
}

#[test]
fn a_full_ring_drops_and_counts() {
    in_own_process("a_full_ring_drops_and_counts", || {
        let eal = Eal::start(&options(&["net_ring0"])).unwrap();
        let (_port, mut lane) = open(&eal, "net_ring0", &PortOptions { mbufs: 4096, ..PortOptions::default() });
        let mut burst = Burst::new();
        let mut bytes = 0;
        let mut next = 0;
        for round in 1..=3 {
            for sent in 0..1500 {
                let mut frame = lane.allocate().unwrap();
                numbered(&mut frame, next + sent, every_length(next + sent));
                lane.transmit(frame, TxChecksum::Complete);
            }
            lane.flush();
            // net_ring's rings hold 1023 frames.
            let counters = lane.counters();
            assert_eq!((counters.tx_packets, counters.tx_full), (round * 1023, round * 477));
            assert_eq!(lane.frames_in_use(), 1023, "what was dropped is back in its pool");
            bytes += (next..next + 1023).map(|number| every_length(number) as u64).sum::<u64>();
            assert_eq!(counters.tx_bytes, bytes, "bytes of dropped frames are not counted as sent");
            for expected in (next..next + 1023).step_by(BURST) {
                lane.receive(&mut burst);
                let numbers = burst.drain(..).map(|frame| number(&frame, every_length).unwrap());
                assert!(numbers.eq(expected..(expected + BURST as u32).min(next + 1023)));
            }
            assert_eq!(lane.frames_in_use(), 0);
            next += 1500;
        }
    });
}

#[test]
fn frames_may_leave_by_another_port_and_outlive_everything() {
    in_own_process("frames_may_leave_by_another_port_and_outlive_everything", || {
        let eal = Eal::start(&options(&["net_ring0", "net_ring1"])).unwrap();
        let (a_port, mut a) = open(&eal, "net_ring0", &PortOptions { mbufs: 512, ..PortOptions::default() });
        let (b_port, mut b) = open(&eal, "net_ring1", &PortOptions { mbufs: 512, ..PortOptions::default() });
        loop_back(&mut a, 320);
        let mut frame = a.allocate().unwrap();
        numbered(&mut frame, 7, 900);
        b.transmit(frame, TxChecksum::Complete);
        b.flush();
        assert_eq!((a.frames_in_use(), b.frames_in_use()), (1, 0));
        let mut burst = Burst::new();
        b.receive(&mut burst);
        assert_eq!(number(&burst[0], |_| 900), Some(7));

        let staged = a.allocate().unwrap();
        a.transmit(staged, TxChecksum::Complete);
        drop((a, a_port, b_port, eal));
        assert_eq!(number(&burst[0], |_| 900), Some(7), "the memory is still there");
        drop(b);
        assert_eq!(number(&burst[0], |_| 900), Some(7), "the memory is still there");
        burst.clear();
    });
}

#[test]
fn everything_ends_with_its_last_owner() {
    in_own_process("everything_ends_with_its_last_owner", || {
        let eal = Eal::start(&options(&["net_ring0"])).unwrap();
        let (port, mut lane) = open(&eal, "net_ring0", &PortOptions { mbufs: 512, ..PortOptions::default() });
        drop((eal.clone(), eal, port));
        loop_back(&mut lane, 320);
        let mapped = || std::fs::read_to_string("/proc/self/maps").unwrap().contains("memfd:nohuge");
        assert!(mapped(), "the lane alone keeps DPDK's memory");
        drop(lane);
        assert!(!mapped(), "DPDK gave its memory back");
        assert_eq!(Eal::start(&options(&[])).unwrap_err(), EalError::AlreadyStarted);
    });
}

#[test]
fn a_device_without_a_driver_is_named() {
    in_own_process("a_device_without_a_driver_is_named", || {
        let error = Eal::start(&options(&["net_ring0", "net_none0,x=1"])).unwrap_err();
        let reason = "DPDK has no driver of this name".to_owned();
        assert_eq!(error, EalError::UnknownDevice { device: "net_none0,x=1".into(), reason });
    });
}
