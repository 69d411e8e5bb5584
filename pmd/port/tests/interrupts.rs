//! A core that sleeps is woken by its devices: net_virtio_user and net_vhost by each other, net_tap by the kernel.

mod common;

use std::net::UdpSocket;
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::{in_own_process, not_run, open, options, run, veth, with_roles};
use pmd::{Burst, DpdkLane, Eal, EalOptions, Frame, Hugepages, Lane, PortOptions, Sleeper, TxChecksum, WokenBy};

/// Frames sent to a sleeper, one at a time.
const FRAMES: u32 = 300;

/// Between two of them: the sleeper lies down meanwhile.
const APART: Duration = Duration::from_millis(3);

/// Before this, whatever is waited for has to be there.
const PATIENCE: Duration = Duration::from_secs(60);

/// EtherType for local experiments (IEEE 802).
const ETHER_TYPE: [u8; 2] = [0x88, 0xb5];

#[test]
fn vhost_wakes_a_virtio_user() {
    meet("vhost_wakes_a_virtio_user", "virtio");
}

#[test]
fn virtio_user_wakes_a_vhost() {
    meet("virtio_user_wakes_a_vhost", "vhost");
}

/// Two processes, one of which sleeps while the other one sends now and then.
fn meet(test: &str, sleeps: &str) {
    with_roles(test, 256, &["vhost", "virtio"], |role, folder| {
        let socket = folder.join("socket");
        let path = socket.display();
        let device = match role {
            "vhost" => format!("net_vhost0,iface={path},queues=1"),
            _ => format!("net_virtio_user0,path={path},queues=1,queue_size=256"),
        };
        if role == "virtio" {
            wait_for("the socket of the other side", || socket.exists());
        }
        let eal = Eal::start(&EalOptions {
            mebibytes: 64,
            hugepages: Hugepages::Required,
            single_file_segments: true,
            ..options(&[&device])
        });
        let eal = eal.unwrap_or_else(|error| panic!("{error}: {:#?}", error.log()));
        let (_port, mut lane) = open(&eal, &device, &interrupting());
        wait_for("the link", || lane.link().up);
        if role == sleeps {
            let sleeper = Sleeper::new().unwrap();
            assert!(lane.watch(&sleeper), "{:#?}", eal.take_log());
            std::fs::write(folder.join("sleeps"), "").unwrap();
            receive_asleep(&mut lane, &sleeper, test);
            std::fs::write(folder.join("done"), "").unwrap();
        } else {
            wait_for("the sleeper", || folder.join("sleeps").exists());
            for _ in 0..FRAMES {
                sleep(APART);
                send_time(&mut lane);
            }
            wait_for("the sleeper's end", || folder.join("done").exists());
        }
    });
}

/// Takes [`FRAMES`] frames, asleep whenever there is none.
fn receive_asleep(lane: &mut DpdkLane, sleeper: &Sleeper, test: &str) {
    let (mut burst, mut latencies) = (Burst::new(), Vec::new());
    let (mut woken, mut others, deadline) = (0, 0, Instant::now() + PATIENCE);
    let busy_before = thread_time();
    let began = Instant::now();
    while latencies.len() < FRAMES as usize {
        assert!(Instant::now() < deadline, "{} of {FRAMES} frames arrived; woken {woken} times", latencies.len());
        sleeper.lie_down();
        assert!(lane.arm());
        lane.receive(&mut burst);
        if burst.is_empty() {
            // Longer than all frames take together: a wake that was lost fails the test.
            match sleeper.sleep(PATIENCE) {
                WokenBy::Device => woken += 1,
                _ => others += 1,
            }
        }
        lane.disarm();
        sleeper.get_up();
        lane.receive(&mut burst);
        let now = monotonic();
        for frame in burst.drain(..).filter(|frame| frame.bytes()[12..14] == ETHER_TYPE) {
            let sent = u64::from_ne_bytes(frame.bytes()[14..22].try_into().unwrap());
            latencies.push(Duration::from_nanos(now - sent));
        }
    }
    let (busy, all) = (thread_time() - busy_before, began.elapsed());
    latencies.sort();
    let (median, late) = (latencies[latencies.len() / 2], latencies[latencies.len() * 99 / 100]);
    eprintln!(
        "{test}: woken {woken} times; after {median:?} in the median, {late:?} in 99 of 100; on the CPU {busy:?} of {all:?}"
    );
    assert!(woken >= FRAMES / 2, "woken {woken} times");
    assert_eq!(others, 0, "neither a signal nor time ends a sleep here");
    // What a loaded machine adds is not ours to judge; a sleeper that is not woken waits for milliseconds until the next frame.
    assert!(median < APART, "{median:?}");
    assert!(busy < all / 5, "{busy:?} of {all:?} on the CPU");
}

#[test]
fn the_kernel_wakes_a_tap() {
    in_own_process("the_kernel_wakes_a_tap", || {
        if !std::path::Path::new("/dev/net/tun").exists() {
            return not_run("the_kernel_wakes_a_tap", "the kernel has no TAP interfaces");
        }
        let device = "net_tap0,iface=mrp-tap";
        let eal = Eal::start(&options(&[device])).unwrap();
        let (_port, mut lane) = open(&eal, device, &interrupting());
        let sleeper = Sleeper::new().unwrap();
        assert!(lane.watch(&sleeper), "{:#?}", eal.take_log());
        run("ip link set mrp-tap up && ip addr add 10.77.0.1/24 dev mrp-tap");
        run("ip neigh add 10.77.0.2 lladdr 02:00:00:00:00:02 dev mrp-tap");
        let socket = UdpSocket::bind("10.77.0.1:0").unwrap();
        let caller = std::thread::spawn(move || {
            for number in 0..100u8 {
                sleep(APART);
                socket.send_to(&[number], "10.77.0.2:9").unwrap();
            }
        });
        let (mut burst, mut got, mut woken) = (Burst::new(), 0, 0);
        let deadline = Instant::now() + PATIENCE;
        while got < 100 {
            assert!(Instant::now() < deadline, "{got} frames arrived; woken {woken} times");
            sleeper.lie_down();
            assert!(lane.arm());
            lane.receive(&mut burst);
            if burst.is_empty() && sleeper.sleep(Duration::from_secs(5)) == WokenBy::Device {
                woken += 1;
            }
            lane.disarm();
            sleeper.get_up();
            // UDP to the discard port, after Ethernet and IPv4.
            got += burst.drain(..).filter(|frame| frame.bytes().get(36..38) == Some(&[0, 9])).count();
        }
        caller.join().unwrap();
        assert!(woken >= 50, "woken {woken} times");
    });
}

#[test]
fn what_has_no_interrupts_says_so() {
    in_own_process("what_has_no_interrupts_says_so", || {
        veth("mrp-a", "mrp-b");
        let memif = "net_memif0,role=server,id=0,socket=/tmp/mrp-no-interrupts,socket-abstract=yes";
        let devices = ["net_null0", "net_af_packet0,iface=mrp-a", memif];
        let eal = Eal::start(&options(&devices)).unwrap();
        for device in devices {
            let (_port, mut lane) = open(&eal, device, &PortOptions { mbufs: 1024, ..interrupting() });
            assert!(!lane.watch(&Sleeper::new().unwrap()), "{device}");
            assert!(!lane.arm(), "{device}");
        }
    });
}

#[test]
fn a_device_that_was_not_asked_for_interrupts_has_none() {
    in_own_process("a_device_that_was_not_asked_for_interrupts_has_none", || {
        let device = "net_vhost0,iface=/tmp/mrp-vhost-unasked";
        let eal = Eal::start(&options(&[device])).unwrap();
        let (_port, mut lane) = open(&eal, device, &PortOptions { mbufs: 1024, ..PortOptions::default() });
        assert!(!lane.watch(&Sleeper::new().unwrap()));
    });
}

fn interrupting() -> PortOptions {
    PortOptions { mbufs: 2048, interrupts: true, ..PortOptions::default() }
}

fn send_time(lane: &mut DpdkLane) {
    let mut frame = lane.allocate().unwrap();
    assert!(frame.set_len(60));
    let bytes = frame.bytes_mut();
    bytes.fill(0);
    bytes[..6].fill(0xff);
    bytes[12..14].copy_from_slice(&ETHER_TYPE);
    bytes[14..22].copy_from_slice(&monotonic().to_ne_bytes());
    lane.transmit(frame, TxChecksum::Complete);
    lane.flush();
    assert_eq!(lane.counters().tx_full, 0);
}

/// The clock that all processes of the machine read alike, in nanoseconds.
fn monotonic() -> u64 {
    let time = clock(libc::CLOCK_MONOTONIC);
    u64::try_from(time.as_nanos()).unwrap()
}

/// What this thread had of a CPU.
fn thread_time() -> Duration {
    clock(libc::CLOCK_THREAD_CPUTIME_ID)
}

fn clock(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time is valid for the call.
    assert_eq!(unsafe { libc::clock_gettime(clock, &raw mut time) }, 0);
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::yield_now();
    }
}
