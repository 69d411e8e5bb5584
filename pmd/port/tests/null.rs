//! net_null, which receives without end and takes whatever is sent.

mod common;

use common::{in_own_process, open, options};
use pmd::{BURST, Burst, Eal, Frame, Lane, Port, PortError, PortOptions, RxChecksum, TxChecksum};

#[test]
fn bursts_are_forwarded_without_a_leak() {
    in_own_process("bursts_are_forwarded_without_a_leak", || {
        let eal = Eal::start(&options(&["net_null0,size=128,copy=1", "net_null1,no-rx=1"])).unwrap();
        let _registered = eal.register_thread().unwrap();
        let (a_port, mut a) = open(&eal, "net_null0", &PortOptions { mbufs: 1000, ..PortOptions::default() });
        let (b_port, mut b) = open(&eal, "net_null1", &PortOptions { mbufs: 1000, ..PortOptions::default() });
        assert_eq!((a_port.driver(), b_port.name()), ("net_null", "net_null1"));
        let mut burst = Burst::new();
        for _ in 0..10_000 {
            a.receive(&mut burst);
            assert_eq!(burst.len(), BURST);
            for frame in burst.drain(..) {
                assert_eq!(frame.rx_checksum(), RxChecksum::Unchecked);
                b.transmit(frame, TxChecksum::Complete);
            }
        }
        b.flush();
        assert_eq!(a.counters().rx_packets, 10_000 * BURST as u64);
        assert_eq!(a.counters().rx_bytes, 128 * a.counters().rx_packets);
        assert_eq!(b.counters().tx_packets, a.counters().rx_packets);
        assert_eq!(b.counters().tx_bytes, a.counters().rx_bytes);
        b.receive(&mut burst);
        assert!(burst.is_empty());
        assert_eq!((a.frames_in_use(), b.frames_in_use()), (0, 0));
        assert_eq!(b_port.statistics().unwrap().tx_packets, b.counters().tx_packets);
    });
}

#[test]
fn receiving_stops_without_mbufs_and_goes_on_with_them() {
    in_own_process("receiving_stops_without_mbufs_and_goes_on_with_them", || {
        let eal = Eal::start(&options(&["net_null0"])).unwrap();
        let (_port, mut lane) = open(&eal, "net_null0", &PortOptions { mbufs: 255, ..PortOptions::default() });
        let mut burst = Burst::new();
        for _ in 0..3 {
            let mut held = Vec::new();
            for _ in 0..20 {
                lane.receive(&mut burst);
                held.extend(burst.drain(..));
            }
            assert!(held.len() > 255 - BURST, "{}", held.len());
            assert_eq!(lane.frames_in_use(), held.len());
            drop(held);
            assert_eq!(lane.frames_in_use(), 0);
        }
    });
}

#[test]
fn a_device_with_fewer_queues_than_cores_gives_the_others_buffers() {
    in_own_process("a_device_with_fewer_queues_than_cores_gives_the_others_buffers", || {
        let eal = Eal::start(&options(&["net_null0", "net_null1"])).unwrap();
        let key: Vec<u8> = (1..=64).collect();
        let small = PortOptions { mbufs: 1000, rss_key: key, ..PortOptions::default() };
        let one = PortOptions { queues: 1, lanes: 2, ..small.clone() };
        let mut port = Port::configure(&eal, "net_null0", &one).unwrap();
        port.start().unwrap();
        assert_eq!((port.queues(), port.spreading()), (1, None));
        let mut lanes = port.lanes().unwrap();
        let mut bare = lanes.pop().unwrap();
        assert_eq!((lanes[0].queue(), bare.queue()), (Some(0), None));
        let mut burst = Burst::new();
        bare.receive(&mut burst);
        assert!(burst.is_empty());
        let frame = bare.allocate().unwrap();
        bare.transmit(frame, TxChecksum::Complete);
        bare.flush();
        assert_eq!((bare.counters().tx_full, bare.counters().tx_packets, bare.frames_in_use()), (1, 0, 0));
        // What one lane allocated, another one sends.
        let frame = bare.allocate().unwrap();
        lanes[0].transmit(frame, TxChecksum::Complete);
        lanes[0].flush();
        assert_eq!((lanes[0].counters().tx_packets, bare.frames_in_use()), (1, 0));

        let too_many = PortOptions { queues: 2000, ..small };
        assert!(matches!(Port::configure(&eal, "net_null1", &too_many), Err(PortError::Queues { .. })));
    });
}

#[test]
fn the_hash_that_spreads_flows_is_told() {
    in_own_process("the_hash_that_spreads_flows_is_told", || {
        let eal = Eal::start(&options(&["net_null0"])).unwrap();
        let key: Vec<u8> = (1..=64).collect();
        let two = PortOptions { queues: 2, lanes: 2, mbufs: 1000, rss_key: key, ..PortOptions::default() };
        let mut port = Port::configure(&eal, "net_null0", &two).unwrap();
        port.start().unwrap();
        assert!(port.capabilities().rss);
        let told = port.spreading().expect("net_null tells");
        // It takes no other than Microsoft's.
        assert_eq!((told.key.len(), &told.key[..4]), (40, &[0x6d, 0x5a, 0x56, 0xda][..]));
        assert_eq!(told.table.len(), 128);
        assert!(told.table.iter().all(|&queue| queue < 2));
    });
}
