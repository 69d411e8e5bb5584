//! What the tests with a real DPDK share.
//!
//! EAL starts once a process and wants root. So a test runs its body in a process of its own: it executes the test binary again
//! with the test's name and a role. That process has a network and a mount namespace of its own, which vanish with it.

#![allow(dead_code, reason = "each test file uses a part")]

use std::env;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use pmd::{Burst, DpdkLane, Eal, EalOptions, Frame, Hugepages, Lane, Mbuf, Port, PortOptions, TxChecksum};

const ROLE: &str = "MILLRACE_TEST_ROLE";
const FOLDER: &str = "MILLRACE_TEST_FOLDER";

/// The longest that a child may take: many times what it needs, for machines with other work.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs `body` in a child process, and fails where it fails.
pub(crate) fn in_own_process(test: &str, body: impl FnOnce()) {
    with_roles(test, 0, &["alone"], |_, _| body());
}

/// Runs `body` in one child process a role, all at the same time and each in namespaces of its own, with `hugepages_mib` MiB of
/// free hugepages in the machine. `body` gets its role, and a folder that all roles share.
pub(crate) fn with_roles(test: &str, hugepages_mib: u64, roles: &[&str], body: impl FnOnce(&str, &Path)) {
    if let (Ok(role), Ok(folder)) = (env::var(ROLE), env::var(FOLDER)) {
        body(&role, Path::new(&folder));
        fs::write(Path::new(&folder).join(format!("{role}.ended")), "").unwrap();
        return;
    }
    if !is_root() {
        return not_run(test, "needs root");
    }
    let Ok(_hugepages) = Hugepages2M::reserve(hugepages_mib) else {
        return not_run(test, &format!("the kernel has no {hugepages_mib} MiB of hugepages to give"));
    };
    let folder = PathBuf::from(format!("/tmp/mrp-{}-{test}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let mut children: Vec<_> = roles.iter().map(|role| (*role, spawn(test, role, &folder))).collect();
    let deadline = Instant::now() + LIMIT;
    let mut failures = Vec::new();
    let mut running = children.len();
    // When one fails, the others wait in vain for it.
    while running > 0 && failures.is_empty() {
        running = 0;
        for (role, child) in &mut children {
            match child.try_wait().unwrap() {
                Some(status) if status.success() => {}
                Some(status) => failures.push(format!("{role}: {status}")),
                None if Instant::now() > deadline => failures.push(format!("{role}: killed after {LIMIT:?}")),
                None => running += 1,
            }
        }
        sleep(Duration::from_millis(10));
    }
    for (_, child) in &mut children {
        let _ = child.kill();
        let _ = child.wait();
    }
    // A name that is no test's ends well, too.
    let ran = |role: &&str| folder.join(format!("{role}.ended")).exists();
    assert!(!failures.is_empty() || roles.iter().all(ran), "{test}: no such test");
    fs::remove_dir_all(&folder).unwrap();
    assert!(failures.is_empty(), "{test}: {failures:?}");
}

/// Says it past the harness, which keeps what a passing test prints with `println!`.
pub(crate) fn not_run(test: &str, why: &str) {
    let line = format!("\n######## {test} NOT RUN: {why} ########\n\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// A process of its own for a role, which the caller ends.
pub(crate) fn spawn(test: &str, role: &str, folder: &Path) -> Child {
    Command::new("unshare")
        .args(["--net", "--mount", "--"])
        .arg(env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .env(FOLDER, folder)
        .spawn()
        .unwrap()
}

/// Free hugepages of 2 MiB for one test at a time; the machine's setting is put back when it ends.
struct Hugepages2M {
    /// The setting before, if it was changed.
    before: Option<u64>,
    /// Held until the setting is back.
    _lock: Option<File>,
}

const NR_HUGEPAGES: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
const FREE_HUGEPAGES: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";

impl Hugepages2M {
    fn reserve(mib: u64) -> Result<Self, ()> {
        if mib == 0 {
            return Ok(Self { before: None, _lock: None });
        }
        let lock = File::create("/tmp/mrp-hugepages.lock").unwrap();
        lock.lock().unwrap();
        let read = |file| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
        let (Some(total), Some(free)) = (read(NR_HUGEPAGES), read(FREE_HUGEPAGES)) else { return Err(()) };
        let missing = (mib / 2).saturating_sub(free);
        let mut guard = Self { before: None, _lock: Some(lock) };
        if missing > 0 {
            guard.before = Some(total);
            fs::write(NR_HUGEPAGES, (total + missing).to_string()).map_err(drop)?;
        }
        if read(FREE_HUGEPAGES).is_some_and(|free| free >= mib / 2) { Ok(guard) } else { Err(()) }
    }
}

impl Drop for Hugepages2M {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            fs::write(NR_HUGEPAGES, before.to_string()).unwrap();
        }
    }
}

pub(crate) fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    status.lines().any(|line| line.starts_with("Uid:\t") && line.split('\t').nth(2) == Some("0"))
}

/// Runs a command and fails where it fails.
pub(crate) fn run(command: &str) {
    let status = Command::new("sh").args(["-c", command]).status().unwrap();
    assert!(status.success(), "{command}: {status}");
}

/// A veth pair in this process's namespace, both ends up, without the kernel's own chatter and offloads.
pub(crate) fn veth(a: &str, b: &str) {
    run(&format!("ip link add {a} type veth peer name {b}"));
    for end in [a, b] {
        run(&format!("ethtool -K {end} tx off rx off tso off gso off gro off >/dev/null"));
        // Where the kernel has no IPv6, there is nothing to switch off.
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{end}/disable_ipv6"), "1");
        run(&format!("ip link set {end} up"));
    }
}

/// Options for these devices on ordinary memory.
pub(crate) fn options(devices: &[&str]) -> EalOptions {
    EalOptions {
        mebibytes: 128,
        hugepages: Hugepages::Off,
        devices: devices.iter().map(|device| (*device).to_owned()).collect(),
        ..EalOptions::default()
    }
}

/// Configures and starts a port and takes its only lane.
pub(crate) fn open(eal: &Eal, device: &str, options: &PortOptions) -> (Port, DpdkLane) {
    let mut port =
        Port::configure(eal, device, options).unwrap_or_else(|error| panic!("{error}: {:#?}", eal.take_log()));
    port.start().unwrap();
    let lane = port.take_lane(0).unwrap();
    (port, lane)
}

/// EtherType for local experiments (IEEE 802): no kernel answers it.
const ETHER_TYPE: u16 = 0x88b5;

/// A frame of `len` bytes that says its number and is filled with what follows from it.
pub(crate) fn numbered(frame: &mut Mbuf, number: u32, len: usize) {
    assert!(frame.set_len(len));
    let bytes = frame.bytes_mut();
    bytes[..6].fill(0xff);
    bytes[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    bytes[12..14].copy_from_slice(&ETHER_TYPE.to_be_bytes());
    bytes[14..18].copy_from_slice(&number.to_be_bytes());
    for (at, byte) in bytes.iter_mut().enumerate().skip(18) {
        *byte = filling(number, at);
    }
}

/// The number of a frame that `numbered` made, whole; `None` for other frames.
pub(crate) fn number(frame: &Mbuf, len: impl Fn(u32) -> usize) -> Option<u32> {
    let bytes = frame.bytes();
    if bytes.get(12..14)? != ETHER_TYPE.to_be_bytes() {
        return None;
    }
    let number = u32::from_be_bytes(bytes[14..18].try_into().unwrap());
    assert_eq!(bytes.len(), len(number), "length of frame {number}");
    for (at, byte) in bytes.iter().enumerate().skip(18) {
        assert_eq!(*byte, filling(number, at), "byte {at} of frame {number}");
    }
    Some(number)
}

fn filling(number: u32, at: usize) -> u8 {
    (number as usize).wrapping_mul(31).wrapping_add(at.wrapping_mul(7)) as u8
}

/// Frame lengths from the shortest to the longest.
pub(crate) fn every_length(number: u32) -> usize {
    60 + (number as usize * 97) % (1514 - 60 + 1)
}

/// Sends numbered frames through `tx` and receives them all, whole and in order, from `rx`.
pub(crate) fn exchange(tx: &mut DpdkLane, rx: &mut DpdkLane, frames: u32) {
    let mut expected = 0;
    let mut burst = Burst::new();
    let deadline = Instant::now() + Duration::from_secs(30);
    for first in (0..frames).step_by(32) {
        let end = frames.min(first + 32);
        for next in first..end {
            let mut frame = tx.allocate().expect("a pool with free mbufs");
            numbered(&mut frame, next, every_length(next));
            tx.transmit(frame, TxChecksum::Complete);
        }
        tx.flush();
        while expected < end {
            assert!(Instant::now() < deadline, "frame {expected} did not arrive");
            rx.receive(&mut burst);
            for frame in burst.drain(..) {
                if let Some(got) = number(&frame, every_length) {
                    assert_eq!(got, expected);
                    expected += 1;
                }
            }
        }
    }
    let (sent, received) = (tx.counters(), rx.counters());
    assert!(sent.tx_packets >= u64::from(frames) && received.rx_packets >= u64::from(frames));
    let bytes: u64 = (0..frames).map(|number| every_length(number) as u64).sum();
    assert!(sent.tx_bytes >= bytes && received.rx_bytes >= bytes);
    assert_eq!((sent.tx_full, sent.pool_empty), (0, 0));
}
