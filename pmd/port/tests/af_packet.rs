//! net_af_packet on a veth pair: the port that works on any Linux machine.

mod common;

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use common::{exchange, in_own_process, number, numbered, open, options, run, veth, with_roles};
use pmd::{
    Burst, Eal, EalError, EalOptions, Frame, Hugepages, Lane, MemoryMode, Offloads, Port, PortError, PortOptions,
    RxChecksum, TxChecksum,
};

#[test]
fn frames_pass_on_ordinary_memory() {
    in_own_process("frames_pass_on_ordinary_memory", || {
        frames_pass(&options(&A_AND_B), MemoryMode::Ordinary);
    });
}

#[test]
fn frames_pass_on_hugepages() {
    with_roles("frames_pass_on_hugepages", 128, &["alone"], |_, _| {
        let on_hugepages = EalOptions { hugepages: Hugepages::Auto, ..options(&A_AND_B) };
        frames_pass(&on_hugepages, MemoryMode::Hugepages);
    });
}

#[test]
fn many_processes_run_side_by_side() {
    with_roles("many_processes_run_side_by_side", 0, &["one", "two", "three"], |_, _| {
        frames_pass(&options(&A_AND_B), MemoryMode::Ordinary);
    });
}

#[test]
fn a_refusal_is_in_the_drivers_words() {
    in_own_process("a_refusal_is_in_the_drivers_words", || {
        veth("mrp-a", "mrp-b");
        let device = "net_af_packet0,iface=mrp-a,blocksz=1000";
        let error = Eal::start(&options(&["net_ring0", device])).unwrap_err();
        assert!(matches!(&error, EalError::DeviceRefused { device: refused, .. } if refused == device), "{error:?}");
        assert!(error.to_string().contains("block"), "{error}");
    });
}

const A_AND_B: [&str; 2] = ["net_af_packet0,iface=mrp-a", "net_af_packet1,iface=mrp-b,qdisc_bypass=1"];

fn frames_pass(options: &EalOptions, memory: MemoryMode) {
    veth("mrp-a", "mrp-b");
    let eal = Eal::start(options).unwrap();
    assert_eq!(eal.memory_mode(), memory);
    let _registered = eal.register_thread().unwrap();
    assert!(eal.register_thread().is_err(), "a thread registers once");
    let (a_port, mut a) = open(&eal, A_AND_B[0], &PortOptions { mbufs: 4096, ..PortOptions::default() });
    let (_b_port, mut b) = open(&eal, "net_af_packet1", &PortOptions { mbufs: 4096, ..PortOptions::default() });
    assert_eq!((a_port.driver(), a_port.offloads()), ("net_af_packet", Offloads::default()));
    assert_eq!(a.mtu(), 1500);
    assert_ne!(a.mac(), b.mac());

    exchange(&mut a, &mut b, 2000);
    exchange(&mut b, &mut a, 500);
    assert_eq!((a.frames_in_use(), b.frames_in_use()), (0, 0));
    let statistics = a_port.statistics().unwrap();
    assert!(statistics.tx_packets >= 2000 && statistics.rx_packets >= 500, "{statistics:?}");

    let wait_for = |up: bool, why: &str| {
        let deadline = Instant::now() + Duration::from_secs(10);
        while a.link().up != up {
            assert!(Instant::now() < deadline, "{why}");
        }
    };
    wait_for(true, "veth has a carrier");
    run("ip link set mrp-b down");
    wait_for(false, "af_packet itself does not know, the interface does");
    run("ip link set mrp-b up");
    wait_for(true, "the carrier is back");
}

#[test]
fn the_interface_bounds_the_mtu() {
    in_own_process("the_interface_bounds_the_mtu", || {
        veth("mrp-a", "mrp-b");
        run("ip link set mrp-a mtu 1400");
        let eal = Eal::start(&options(&A_AND_B)).unwrap();
        let (_a_port, a) = open(&eal, "net_af_packet0", &PortOptions { mbufs: 1024, ..PortOptions::default() });
        assert_eq!(a.mtu(), 1400);
        let small = PortOptions { mbufs: 1024, data_room: 1500, ..PortOptions::default() };
        let error = Port::configure(&eal, "net_af_packet1", &small).unwrap_err();
        assert!(matches!(error, PortError::DataRoom { .. } | PortError::Refused { .. }), "{error}");
    });
}

#[test]
fn an_mtu_is_given_to_the_interface() {
    in_own_process("an_mtu_is_given_to_the_interface", || {
        veth("mrp-a", "mrp-b");
        let eal = Eal::start(&options(&A_AND_B)).unwrap();
        let with = |mtu| PortOptions { mbufs: 1024, mtu: Some(mtu), ..PortOptions::default() };
        let (_a_port, a) = open(&eal, "net_af_packet0", &with(1500));
        assert_eq!(a.mtu(), 1500);
        let (_b_port, b) = open(&eal, "net_af_packet1", &with(1280));
        assert_eq!(b.mtu(), 1280);
        run("ip -o link show mrp-b | grep -q 'mtu 1280'");
    });
}

#[test]
fn an_mtu_that_the_driver_cannot_carry_is_refused() {
    in_own_process("an_mtu_that_the_driver_cannot_carry_is_refused", || {
        veth("mrp-a", "mrp-b");
        let eal = Eal::start(&options(&A_AND_B)).unwrap();
        let jumbo = PortOptions { mbufs: 1024, mtu: Some(9000), data_room: 9100, ..PortOptions::default() };
        let error = Port::configure(&eal, "net_af_packet0", &jumbo).unwrap_err();
        let words = matches!(&error, PortError::Refused { log, .. } if log.iter().any(|line| line.contains("1518")));
        assert!(words, "the driver's limit is quoted: {error:?}");
    });
}

#[test]
fn jumbo_frames_pass_where_the_rings_hold_them() {
    in_own_process("jumbo_frames_pass_where_the_rings_hold_them", || {
        veth("mrp-a", "mrp-b");
        let rings = "framesz=9216,blocksz=36864,framecnt=64";
        let devices = [(0, "a"), (1, "b")].map(|(n, end)| format!("net_af_packet{n},iface=mrp-{end},{rings}"));
        let eal = Eal::start(&options(&[&devices[0], &devices[1]])).unwrap();
        let jumbo = PortOptions {
            mbufs: 1024,
            mtu: Some(9000),
            data_room: PortOptions::room_for(9000),
            ..PortOptions::default()
        };
        let (_a_port, mut a) = open(&eal, &devices[0], &jumbo);
        let (_b_port, mut b) = open(&eal, &devices[1], &jumbo);
        assert_eq!((a.mtu(), b.mtu()), (9000, 9000));
        let mut frame = a.allocate().unwrap();
        numbered(&mut frame, 7, 9014);
        a.transmit(frame, TxChecksum::Complete);
        a.flush();
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut burst = Burst::new();
        while burst.is_empty() {
            assert!(Instant::now() < deadline);
            b.receive(&mut burst);
            burst.retain(|frame| frame.bytes().len() == 9014);
        }
        assert_eq!(number(&burst[0], |_| 9014), Some(7));
    });
}

#[test]
fn the_kernel_talks_to_a_lane() {
    in_own_process("the_kernel_talks_to_a_lane", || {
        veth("mrp-a", "mrp-b");
        run("ip address add 10.9.1.2/24 dev mrp-b");
        let eal = Eal::start(&options(&["net_af_packet0,iface=mrp-a"])).unwrap();
        let (_port, mut lane) = open(&eal, "net_af_packet0", &PortOptions::default());
        let client = UdpSocket::bind("10.9.1.2:0").unwrap();
        client.set_nonblocking(true).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut arps = 0;
        let mut burst = Burst::new();
        for len in [1, 2, 18, 19, 1001, 1472] {
            let sent: Vec<u8> = (0..len).map(|at| at as u8 ^ 0x5a).collect();
            assert_eq!(client.send_to(&sent, "10.9.1.1:7").unwrap(), len);
            let mut reply = [0; 2000];
            let got = loop {
                assert!(Instant::now() < deadline, "no echo of {len} bytes, {arps} ARP requests answered");
                lane.receive(&mut burst);
                for mut frame in burst.drain(..) {
                    assert_eq!(frame.rx_checksum(), RxChecksum::Unchecked);
                    if answer_arp(frame.bytes_mut(), lane.mac()) {
                        arps += 1;
                    } else if !answer_udp(frame.bytes_mut()) {
                        continue;
                    }
                    lane.transmit(frame, TxChecksum::Complete);
                }
                lane.flush();
                if let Ok(got) = client.recv(&mut reply) {
                    break got;
                }
            };
            assert_eq!(reply[..got], sent);
        }
        assert!(arps >= 1);
        assert_eq!(lane.frames_in_use(), 0);
    });
}

/// Makes an ARP request for 10.9.1.1 its own reply.
fn answer_arp(frame: &mut [u8], mac: [u8; 6]) -> bool {
    let request = frame.get(12..14) == Some(&[8, 6]) && frame.get(20..22) == Some(&[0, 1]);
    if !request || frame.get(38..42) != Some(&[10, 9, 1, 1]) {
        return false;
    }
    let sender: [u8; 10] = frame[22..32].try_into().unwrap();
    frame[..6].copy_from_slice(&sender[..6]);
    frame[6..12].copy_from_slice(&mac);
    frame[21] = 2;
    frame[22..28].copy_from_slice(&mac);
    frame[28..32].copy_from_slice(&[10, 9, 1, 1]);
    frame[32..42].copy_from_slice(&sender);
    true
}

/// Makes a UDP packet its own reply. Swapping addresses and ports leaves both checksums right.
fn answer_udp(frame: &mut [u8]) -> bool {
    if frame.get(12..14) != Some(&[8, 0]) || frame.get(23) != Some(&17) || frame.get(36..38) != Some(&[0, 7]) {
        return false;
    }
    for (a, b, len) in [(0, 6, 6), (26, 30, 4), (34, 36, 2)] {
        for at in 0..len {
            frame.swap(a + at, b + at);
        }
    }
    true
}
