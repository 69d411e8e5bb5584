//! Wires between two processes, each with an EAL of its own: net_vhost with net_virtio_user, and net_memif.
//!
//! The role "near" sends and checks; the role "far" checks too, and sends everything back.

mod common;

use std::thread::sleep;
use std::time::{Duration, Instant};

use common::{every_length, number, numbered, open, options, with_roles};
use pmd::{
    Burst, DpdkLane, Eal, EalOptions, Frame, Hugepages, Lane, Mbuf, MemoryMode, Offloads, PortOptions, RxChecksum,
    TxChecksum, checksum,
};

/// The number of the frame that ends a test.
const LAST: u32 = u32::MAX;

/// Before this, whatever the other process does has to be done.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn virtio_user_and_vhost() {
    with_roles("virtio_user_and_vhost", 256, &["far", "near"], |role, folder| {
        let socket = folder.join("vhost");
        let path = socket.display();
        let (device, driver) = match role {
            "far" => (format!("net_vhost0,iface={path},queues=1"), "net_vhost"),
            _ => (format!("net_virtio_user0,path={path},queues=1,queue_size=256"), "net_virtio_user"),
        };
        if role == "near" {
            wait_for("the socket of the other side", || socket.exists());
        }
        let eal = start(&device, |options| options.single_file_segments = true);
        let (port, mut lane) = open(&eal, &device, &small());
        assert_eq!(port.driver(), driver);
        assert!(port.offloads().tx_tcp && port.offloads().rx_l4, "{:?}", port.capabilities());
        meet(role, &eal, port.offloads(), &mut lane);
        // The two rings of virtio hold what is to be received into, and what was sent and not yet asked for.
        let rings = if role == "near" { 2 * 256 } else { 0 };
        assert!(lane.frames_in_use() <= rings, "{} mbufs in use", lane.frames_in_use());
    });
}

#[test]
fn segments_travel_whole_where_nobody_has_to_cut_them() {
    with_roles("segments_travel_whole_where_nobody_has_to_cut_them", 512, &["far", "near"], |role, folder| {
        let socket = folder.join("vhost");
        let far = role == "far";
        let device = match role {
            "far" => format!("net_vhost0,iface={},queues=1,tso=1", socket.display()),
            _ => format!("net_virtio_user0,path={},queues=1,queue_size=256", socket.display()),
        };
        if !far {
            wait_for("the socket of the other side", || socket.exists());
        }
        let eal = start(&device, |options| {
            options.single_file_segments = true;
            options.mebibytes = 192;
        });
        let (port, mut lane) = open(&eal, &device, &PortOptions { large_mbufs: 64, ..small() });
        assert!(port.offloads().tso && port.offloads().lro, "{:?}", port.capabilities());
        wait_for("the link", || lane.link().up);
        let mut burst = Burst::new();
        for (payload, ipv6) in [(1449, false), (20_000, true), (65_000, false), (65_000, true)] {
            let (bytes, l3_len) = tcp(ipv6, payload);
            let cut = TxChecksum::TcpSegments { l2_len: 14, l3_len, mss: 1448 };
            assert!(bytes.len() <= usize::from(lane.largest()) + 14);
            let send = |lane: &mut DpdkLane| {
                let mut frame = lane.allocate_large().unwrap();
                assert!(frame.set_len(bytes.len()));
                frame.bytes_mut().copy_from_slice(&bytes);
                lane.transmit(frame, cut);
                lane.flush();
            };
            let receive = |lane: &mut DpdkLane, burst: &mut Burst<Mbuf>| {
                wait_for("segments", || {
                    lane.receive(burst);
                    !burst.is_empty()
                });
                for frame in burst.drain(..) {
                    assert_eq!(frame.rx_checksum(), RxChecksum::Good);
                    assert!(finished(frame.bytes(), l3_len) == finished(&bytes, l3_len), "{payload}, IPv6 {ipv6}");
                }
            };
            if far {
                receive(&mut lane, &mut burst);
                send(&mut lane);
            } else {
                send(&mut lane);
                receive(&mut lane, &mut burst);
            }
        }
        assert_eq!((lane.counters().rx_packets, lane.counters().tx_packets, lane.counters().tx_refused), (4, 4, 0));
        if far {
            wait_for("the other side", || folder.join("done").exists());
        } else {
            std::fs::write(folder.join("done"), "").unwrap();
        }
    });
}

#[test]
fn memif() {
    with_roles("memif", 256, &["far", "near"], |role, folder| {
        let memif = if role == "far" { "server" } else { "client" };
        let socket = folder.join("memif");
        let device = format!("net_memif0,role={memif},id=0,socket={},socket-abstract=no", socket.display());
        if role == "near" {
            wait_for("the socket of the other side", || socket.exists());
        }
        let eal = start(&device, |_| {});
        let (port, mut lane) = open(&eal, &device, &small());
        assert_eq!((port.driver(), port.offloads()), ("net_memif", Offloads::default()));
        meet(role, &eal, port.offloads(), &mut lane);
        assert_eq!(lane.frames_in_use(), 0);
    });
}

#[test]
fn a_frame_that_fits_no_mbuf_is_dropped_and_counted() {
    with_roles("a_frame_that_fits_no_mbuf_is_dropped_and_counted", 256, &["far", "near"], |role, folder| {
        let socket = folder.join("vhost");
        let far = role == "far";
        let device = match role {
            "far" => format!("net_vhost0,iface={},queues=1", socket.display()),
            _ => format!("net_virtio_user0,path={},queues=1", socket.display()),
        };
        if !far {
            wait_for("the socket of the other side", || socket.exists());
        }
        let eal = start(&device, |options| options.single_file_segments = true);
        let room = if far { 1600 } else { 4000 };
        let (_port, mut lane) = open(&eal, &device, &PortOptions { data_room: room, ..small() });
        wait_for("the link", || lane.link().up);
        // Every second frame takes three mbufs over there.
        let len = |number: u32| if number % 2 == 1 { 3900 } else { 1600 };
        if far {
            let mut burst = Burst::new();
            let mut expected = 0;
            wait_for("all frames", || {
                lane.receive(&mut burst);
                for frame in burst.drain(..) {
                    assert_eq!(number(&frame, len), Some(expected));
                    expected += 2;
                }
                expected > 100
            });
            assert_eq!((lane.counters().rx_packets, lane.counters().rx_bytes), (51, 51 * 1600));
            assert_eq!((lane.counters().rx_scattered, lane.frames_in_use() as u64), (50, 0));
            std::fs::write(folder.join("done"), "").unwrap();
        } else {
            for next in 0..=100 {
                let mut frame = lane.allocate().unwrap();
                numbered(&mut frame, next, len(next));
                lane.transmit(frame, TxChecksum::Complete);
                lane.flush();
                sleep(Duration::from_millis(1));
            }
            assert_eq!(lane.counters().tx_full, 0);
            wait_for("the other side", || folder.join("done").exists());
        }
    });
}

fn small() -> PortOptions {
    PortOptions { mbufs: 2048, ..PortOptions::default() }
}

fn start(device: &str, change: impl FnOnce(&mut EalOptions)) -> Eal {
    let mut options = EalOptions { mebibytes: 64, hugepages: Hugepages::Required, ..options(&[device]) };
    change(&mut options);
    let eal = Eal::start(&options).unwrap_or_else(|error| panic!("{error}: {:#?}", error.log()));
    assert_eq!(eal.memory_mode(), MemoryMode::Hugepages);
    eal
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::yield_now();
    }
}

/// Both roles of a test in which everything comes back.
fn meet(role: &str, eal: &Eal, offloads: Offloads, lane: &mut DpdkLane) {
    let _registered = eal.register_thread().unwrap();
    wait_for("the link", || lane.link().up);
    if role == "far" { send_back(lane) } else { send(lane, offloads) }
}

fn send(lane: &mut DpdkLane, offloads: Offloads) {
    const FRAMES: u32 = 4000;
    let mut burst = Burst::new();
    let mut back = 0;
    for first in (0..FRAMES).step_by(16) {
        for next in first..first + 16 {
            let mut frame = lane.allocate().unwrap();
            numbered(&mut frame, next, every_length(next));
            lane.transmit(frame, TxChecksum::Complete);
        }
        lane.flush();
        wait_for("numbered frames", || {
            lane.receive(&mut burst);
            for frame in burst.drain(..) {
                assert_eq!(number(&frame, every_length), Some(back));
                back += 1;
            }
            back == first + 16
        });
    }
    for payload in (0..1440).step_by(13) {
        for ipv6 in [false, true] {
            let (bytes, l3_len) = tcp(ipv6, payload);
            let mut frame = lane.allocate().unwrap();
            assert!(frame.set_len(bytes.len()));
            frame.bytes_mut().copy_from_slice(&bytes);
            lane.transmit(frame, TxChecksum::Tcp { l2_len: 14, l3_len });
            lane.flush();
            let mut same = false;
            wait_for("TCP frames", || {
                lane.receive(&mut burst);
                for frame in burst.drain(..) {
                    let sent = finished(&bytes, l3_len);
                    if forwarded(payload) {
                        assert_ne!(frame.rx_checksum(), RxChecksum::Bad);
                        assert_eq!(frame.bytes(), sent, "what goes on to another wire has its checksums");
                    } else {
                        check_tcp(&frame, offloads);
                    }
                    same = finished(frame.bytes(), l3_len) == sent;
                    assert!(same, "payload of {payload}, IPv6 {ipv6}");
                }
                same
            });
        }
    }
    let mut last = lane.allocate().unwrap();
    numbered(&mut last, LAST, 60);
    lane.transmit(last, TxChecksum::Complete);
    lane.flush();
    wait_for("the end", || {
        lane.receive(&mut burst);
        burst.drain(..).any(|frame| number(&frame, |_| 60) == Some(LAST))
    });
    assert_eq!((lane.counters().tx_full, lane.counters().pool_empty), (0, 0));
    assert_eq!(lane.counters().tx_packets, lane.counters().rx_packets);
    assert_eq!(lane.counters().tx_bytes, lane.counters().rx_bytes);
}

fn send_back(lane: &mut DpdkLane) {
    let mut burst = Burst::new();
    let mut ended = false;
    wait_for("the end", || {
        lane.receive(&mut burst);
        for mut frame in burst.drain(..) {
            let mut checksum = TxChecksum::Complete;
            match frame.bytes()[12..14] {
                [0x88, 0xb5] => {
                    let len = |number| if number == LAST { 60 } else { every_length(number) };
                    ended |= number(&frame, len) == Some(LAST);
                }
                [first, _] => {
                    let l3_len = if first == 8 { 20 } else { 40 };
                    assert_ne!(frame.rx_checksum(), RxChecksum::Bad);
                    let l4 = 14 + usize::from(l3_len);
                    if !forwarded(frame.bytes().len() - l4 - 20) {
                        // Filled once more on the way back, over rubbish.
                        frame.bytes_mut()[l4 + 16..l4 + 18].fill(0x77);
                        checksum = TxChecksum::Tcp { l2_len: 14, l3_len };
                    }
                }
                _ => unreachable!(),
            }
            lane.transmit(frame, checksum);
        }
        lane.flush();
        ended
    });
    // The other side ends when it has seen the end; rings must stay until then.
    sleep(Duration::from_millis(500));
}

/// Which frames come back as they were received, and not as new ones.
fn forwarded(payload: usize) -> bool {
    payload % 2 == 1
}

fn check_tcp(frame: &Mbuf, offloads: Offloads) {
    let expected = if offloads.rx_l4 { RxChecksum::Good } else { RxChecksum::Unchecked };
    assert_eq!(frame.rx_checksum(), expected);
}

/// The frame with its checksums as software fills them.
fn finished(frame: &[u8], l3_len: u8) -> Vec<u8> {
    let mut frame = frame.to_vec();
    assert!(checksum::finish_tcp(&mut frame, 14, usize::from(l3_len)));
    frame
}

/// A TCP frame whose checksum fields hold rubbish, and the length of its IP header.
fn tcp(ipv6: bool, payload: usize) -> (Vec<u8>, u8) {
    let segment = 20 + payload;
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    if ipv6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, (segment >> 8) as u8, segment as u8, 6, 64]);
        frame.extend((0..32).map(|at| at ^ 0xa5));
    } else {
        let total = 20 + segment;
        frame.extend([8, 0, 0x45, 0, (total >> 8) as u8, total as u8, 1, 2, 0x40, 0, 64, 6, 0xde, 0xad]);
        frame.extend([10, 9, 1, 1, 10, 9, 2, 2]);
    }
    frame.extend([0x1f, 0x90, 0, 80, 1, 2, 3, 4, 5, 6, 7, 8, 0x50, 0x18, 0xff, 0xff, 0xbe, 0xef, 0, 0]);
    frame.extend((0..payload).map(|at| (at * 7) as u8));
    (frame, if ipv6 { 40 } else { 20 })
}
