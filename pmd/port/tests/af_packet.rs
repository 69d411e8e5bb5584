//! net_af_packet on a veth pair: the port that works on any Linux machine.

mod common;

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use common::{exchange, in_own_process, open, options, run, veth};
use pmd::{Burst, Eal, Frame, Lane, Link, MemoryMode, PortOptions, RxChecksum, TxChecksum};

#[test]
fn frames_pass_between_two_ports() {
    in_own_process("frames_pass_between_two_ports", || {
        veth("mrp-a", "mrp-b");
        let eal =
            Eal::start(&options(&["net_af_packet0,iface=mrp-a", "net_af_packet1,iface=mrp-b,qdisc_bypass=1"])).unwrap();
        assert_eq!(eal.memory_mode(), MemoryMode::Ordinary);
        let _registered = eal.register_thread().unwrap();
        assert!(eal.register_thread().is_err(), "a thread registers once");
        let (a_port, mut a) = open(&eal, "net_af_packet0,iface=mrp-a", &PortOptions::default());
        let (_b_port, mut b) = open(&eal, "net_af_packet1", &PortOptions::default());
        assert_eq!(a_port.driver(), "net_af_packet");
        assert_eq!(a.mtu(), 1500);
        let address = std::fs::read_to_string("/proc/net/dev").unwrap();
        assert!(address.contains("mrp-a"), "this process is in the namespace of the veth pair");

        exchange(&mut a, &mut b, 2000);
        exchange(&mut b, &mut a, 500);
        assert_eq!((a.frames_in_use(), b.frames_in_use()), (0, 0));
        let statistics = a_port.statistics().unwrap();
        assert!(statistics.tx_packets >= 2000 && statistics.rx_packets >= 500, "{statistics:?}");

        assert!(a.link().up);
        run("ip link set mrp-b down");
        assert!(!a.link().up, "af_packet itself does not know, the interface does");
        run("ip link set mrp-b up");
        let deadline = Instant::now() + Duration::from_secs(10);
        while !matches!(a.link(), Link { up: true, .. }) {
            assert!(Instant::now() < deadline);
        }
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
