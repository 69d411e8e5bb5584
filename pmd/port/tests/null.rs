//! net_null, which receives without end and takes whatever is sent.

mod common;

use common::{in_own_process, open, options};
use pmd::{BURST, Burst, Eal, Frame, Lane, PortOptions, RxChecksum, TxChecksum};

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
