//! What a hand-over costs in time: the same packets received by the core that has the queue, and by another one, on two threads.
//!
//! `instructions time hand-over`. Two CPUs that nobody else uses are wanted; the difference is what counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use engine::steer::{PortPlan, Steered, places};
use pmd::{BURST, Burst, Frame, Lane, LaneCounters, Link, RxChecksum, TxChecksum};
use tables::TcpSettings;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// Packets of a run, and the rounds of which the best counts: what the machine does besides makes others worse.
const PACKETS: usize = 1 << 20;
const ROUNDS: usize = 7;

/// Packets in memory: as many as a device's ring has, so that they come from the caches as they would from a NIC.
const POOL: usize = 1024;

/// A device that receives the same packets again and again.
struct Source {
    frames: &'static [Vec<u8>],
    next: usize,
}

/// One of its packets: many holders read it, nobody writes it.
struct Shared {
    frames: &'static [Vec<u8>],
    at: usize,
}

impl Frame for Shared {
    fn bytes(&self) -> &[u8] {
        &self.frames[self.at]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut []
    }

    fn set_len(&mut self, _: usize) -> bool {
        false
    }

    fn trim_front(&mut self, _: usize) -> bool {
        false
    }

    fn grow_front(&mut self, _: usize) -> bool {
        false
    }

    fn rx_checksum(&self) -> RxChecksum {
        RxChecksum::Good
    }
}

impl Lane for Source {
    type Frame = Shared;

    fn receive(&mut self, burst: &mut Burst<Shared>) {
        while !burst.is_full() {
            burst.push(Shared { frames: self.frames, at: self.next % POOL });
            self.next += 1;
        }
    }

    fn allocate(&mut self) -> Option<Shared> {
        None
    }

    fn allocate_reserved(&mut self) -> Option<Shared> {
        None
    }

    fn allocate_large(&mut self) -> Option<Shared> {
        None
    }

    fn transmit(&mut self, _: Shared, _: TxChecksum) {}

    fn flush(&mut self) {}

    fn mac(&self) -> [u8; 6] {
        MAC
    }

    fn mtu(&self) -> u16 {
        1500
    }

    fn largest(&self) -> u16 {
        0
    }

    fn link(&self) -> Link {
        Link { up: true, mbps: 0 }
    }

    fn counters(&self) -> LaneCounters {
        LaneCounters::default()
    }

    fn frames_in_use(&self) -> usize {
        0
    }
}

/// Prints the times of a packet, and fails where the difference is above 150 ns.
pub(crate) fn time() -> bool {
    let own = (0..ROUNDS).map(|_| run(false)).fold(f64::MAX, f64::min);
    let handed = (0..ROUNDS).map(|_| run(true)).fold(f64::MAX, f64::min);
    let more = handed - own;
    println!("received by its own core {own:.1} ns, handed to another one {handed:.1} ns: {more:.1} ns more a packet");
    more < 150.0
}

/// Nanoseconds a packet, for packets of the first core's flows or of the second one's.
fn run(second: bool) -> f64 {
    let plans = [PortPlan { queues: 1, ..PortPlan::default() }];
    // A reply of a backend: its port's remainder names the core.
    let mut frame = vec![0; 60];
    frame[12..24].copy_from_slice(&[8, 0, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6]);
    frame[26..34].copy_from_slice(&[10, 9, 2, 2, 10, 9, 2, 1]);
    frame[34..38].copy_from_slice(&[0x1f, 0x90, 0x4e, 0x20 + u8::from(second)]);
    frame[46..48].copy_from_slice(&[0x50, 0x10]);
    let frames: &'static [Vec<u8>] = Vec::leak((0..POOL).map(|_| frame.clone()).collect());
    let mut cores = places(2, &plans, &TcpSettings::default(), [1, 2]).into_iter().map(|(_, links)| {
        let source = Source { frames, next: 0 };
        Steered::new(source, links.into_iter().next().expect("one port"))
    });
    let (mut near, mut far) = (cores.next().expect("two"), cores.next().expect("two"));
    let (ready, over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let other = std::thread::spawn({
        let (ready, over) = (Arc::clone(&ready), Arc::clone(&over));
        move || {
            let mut burst = Burst::new();
            ready.store(true, Ordering::Release);
            while !over.load(Ordering::Acquire) {
                far.receive(&mut burst);
                burst.clear();
            }
            far.steering().handed_in
        }
    });
    while !ready.load(Ordering::Acquire) {
        std::hint::spin_loop();
    }
    let mut burst = Burst::new();
    let start = Instant::now();
    for _ in 0..PACKETS / BURST {
        near.receive(&mut burst);
        burst.clear();
    }
    let elapsed = start.elapsed();
    over.store(true, Ordering::Release);
    let received = other.join().expect("it does not panic");
    // What found the ring full was not handed over: then the core behind it is the slower one, and its time is what counts.
    let packets = if second { received } else { PACKETS as u64 };
    elapsed.as_nanos() as f64 / packets as f64
}
