//! A port whose rings are two queues in memory: what a packet costs here is the engine's cost, and little else.
//!
//! [`pmd::sim`] keeps arrival times and faults, which cost as much as a short request; a count of the packet path would be half its.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use pmd::{BURST, Burst, Frame, Lane, LaneCounters, Link, RxChecksum, TxChecksum, checksum};

/// Bytes of a buffer: DPDK's default data room.
const ROOM: usize = 2048;

type Pool = Rc<RefCell<Vec<Box<[u8]>>>>;

/// One port.
pub(crate) struct MemoryLane {
    mac: [u8; 6],
    pool: Pool,
    received: VecDeque<MemoryFrame>,
    sent: VecDeque<MemoryFrame>,
    counters: LaneCounters,
}

/// One buffer.
#[derive(Debug)]
pub(crate) struct MemoryFrame {
    buffer: Box<[u8]>,
    len: usize,
    pool: Pool,
}

impl MemoryLane {
    /// A port with this Ethernet address, whose device knows no checksums.
    pub(crate) fn new(mac: [u8; 6]) -> Self {
        Self {
            mac,
            pool: Pool::default(),
            received: VecDeque::new(),
            sent: VecDeque::new(),
            counters: LaneCounters::default(),
        }
    }

    /// Lets a copy of `bytes` arrive.
    pub(crate) fn arrive(&mut self, bytes: &[u8]) {
        let mut frame = MemoryFrame::allocate(&self.pool);
        frame.buffer[..bytes.len()].copy_from_slice(bytes);
        frame.len = bytes.len();
        self.received.push_back(frame);
    }

    /// The oldest frame that was sent.
    pub(crate) fn departed(&mut self) -> Option<MemoryFrame> {
        self.sent.pop_front()
    }
}

impl Lane for MemoryLane {
    type Frame = MemoryFrame;

    fn receive(&mut self, burst: &mut Burst<MemoryFrame>) {
        for frame in self.received.drain(..self.received.len().min(BURST)) {
            self.counters.rx_packets += 1;
            self.counters.rx_bytes += frame.len as u64;
            burst.push(frame);
        }
    }

    fn allocate(&mut self) -> Option<MemoryFrame> {
        Some(MemoryFrame::allocate(&self.pool))
    }

    fn transmit(&mut self, mut frame: MemoryFrame, checksum: TxChecksum) {
        if let TxChecksum::Tcp { l2_len, l3_len } = checksum {
            assert!(checksum::finish_tcp(frame.bytes_mut(), l2_len.into(), l3_len.into()));
        }
        self.counters.tx_packets += 1;
        self.counters.tx_bytes += frame.len as u64;
        self.sent.push_back(frame);
    }

    fn flush(&mut self) {}

    fn mac(&self) -> [u8; 6] {
        self.mac
    }

    fn mtu(&self) -> u16 {
        1500
    }

    fn link(&self) -> Link {
        Link { up: true, mbps: 0 }
    }

    fn counters(&self) -> LaneCounters {
        self.counters
    }

    fn allocate_reserved(&mut self) -> Option<MemoryFrame> {
        self.allocate()
    }

    fn allocate_large(&mut self) -> Option<MemoryFrame> {
        None
    }

    fn largest(&self) -> u16 {
        0
    }

    fn frames_in_use(&self) -> usize {
        self.received.len() + self.sent.len()
    }
}

impl MemoryFrame {
    fn allocate(pool: &Pool) -> Self {
        let buffer = pool.borrow_mut().pop().unwrap_or_else(|| vec![0xa5; ROOM].into());
        Self { buffer, len: 0, pool: Rc::clone(pool) }
    }
}

impl Frame for MemoryFrame {
    fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[..self.len]
    }

    fn set_len(&mut self, len: usize) -> bool {
        let fits = len <= self.buffer.len();
        if fits {
            self.len = len;
        }
        fits
    }

    fn trim_front(&mut self, count: usize) -> bool {
        let Some(len) = self.len.checked_sub(count) else { return false };
        self.buffer.copy_within(count..self.len, 0);
        self.len = len;
        true
    }

    fn grow_front(&mut self, count: usize) -> bool {
        let len = self.len;
        let fits = self.set_len(len + count);
        if fits {
            self.buffer.copy_within(..len, count);
        }
        fits
    }

    fn rx_checksum(&self) -> RxChecksum {
        RxChecksum::Unchecked
    }
}

impl Drop for MemoryFrame {
    fn drop(&mut self) {
        self.pool.borrow_mut().push(std::mem::take(&mut self.buffer));
    }
}
