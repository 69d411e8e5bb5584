//! A device with several receive queues, at one end of a wire.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use super::{SimFrame, SimLane};
use crate::{Burst, Frame, Lane, LaneCounters, Link, TxChecksum};

/// Says into which queue a frame goes.
pub type Spread = Box<dyn FnMut(&[u8]) -> usize>;

/// One queue pair of a simulated device, or a handle on its buffers without one.
pub struct SimQueue {
    nic: Rc<RefCell<Nic>>,
    queue: Option<usize>,
    counters: LaneCounters,
}

struct Nic {
    lane: SimLane,
    queues: Vec<VecDeque<SimFrame>>,
    spread: Spread,
}

/// Puts a device with `queues` queue pairs at the wire's end `lane`, and gives `lanes` handles on it. Those beyond the queues have
/// none: they have buffers, and panic where they are asked to send or receive.
#[must_use]
pub fn nic(lane: SimLane, queues: usize, lanes: usize, spread: Spread) -> Vec<SimQueue> {
    let nic = Nic { lane, queues: (0..queues).map(|_| VecDeque::new()).collect(), spread };
    let nic = Rc::new(RefCell::new(nic));
    (0..lanes)
        .map(|at| SimQueue {
            nic: Rc::clone(&nic),
            queue: (at < queues).then_some(at),
            counters: LaneCounters::default(),
        })
        .collect()
}

impl SimQueue {
    /// Looks at the wire's end below.
    pub fn with_lane<R>(&self, f: impl FnOnce(&mut SimLane) -> R) -> R {
        f(&mut self.nic.borrow_mut().lane)
    }

    /// Frames that wait in this queue.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.map_or(0, |queue| self.nic.borrow().queues[queue].len())
    }
}

impl Nic {
    /// Takes all that has arrived into the queues.
    fn land(&mut self) {
        let mut burst = Burst::new();
        loop {
            self.lane.receive(&mut burst);
            if burst.is_empty() {
                return;
            }
            for frame in burst.drain(..) {
                let queue = (self.spread)(frame.bytes()) % self.queues.len();
                self.queues[queue].push_back(frame);
            }
        }
    }
}

impl Lane for SimQueue {
    type Frame = SimFrame;

    fn receive(&mut self, burst: &mut Burst<SimFrame>) {
        let queue = self.queue.expect("a handle without a queue receives nothing");
        let mut nic = self.nic.borrow_mut();
        nic.land();
        while !burst.is_full()
            && let Some(frame) = nic.queues[queue].pop_front()
        {
            self.counters.rx_packets += 1;
            self.counters.rx_bytes += frame.bytes().len() as u64;
            burst.push(frame);
        }
    }

    fn allocate(&mut self) -> Option<SimFrame> {
        self.nic.borrow_mut().lane.allocate()
    }

    fn allocate_reserved(&mut self) -> Option<SimFrame> {
        self.nic.borrow_mut().lane.allocate_reserved()
    }

    fn allocate_large(&mut self) -> Option<SimFrame> {
        self.nic.borrow_mut().lane.allocate_large()
    }

    fn transmit(&mut self, frame: SimFrame, checksum: TxChecksum) {
        assert!(self.queue.is_some(), "a handle without a queue sends nothing");
        self.counters.tx_packets += 1;
        self.counters.tx_bytes += frame.bytes().len() as u64;
        self.nic.borrow_mut().lane.transmit(frame, checksum);
    }

    fn flush(&mut self) {
        self.nic.borrow_mut().lane.flush();
    }

    fn mac(&self) -> [u8; 6] {
        self.nic.borrow().lane.mac()
    }

    fn mtu(&self) -> u16 {
        self.nic.borrow().lane.mtu()
    }

    fn largest(&self) -> u16 {
        self.nic.borrow().lane.largest()
    }

    fn link(&self) -> Link {
        self.nic.borrow().lane.link()
    }

    fn counters(&self) -> LaneCounters {
        self.counters
    }

    /// The queues have one pool, of which the first one tells.
    fn frames_in_use(&self) -> usize {
        if self.queue == Some(0) { self.nic.borrow().lane.frames_in_use() } else { 0 }
    }
}
