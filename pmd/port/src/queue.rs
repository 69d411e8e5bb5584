//! One core's queue pair on one port: the hot path.
//!
//! The polling core calls it. It never locks, allocates memory of the heap, or logs; a driver like af_packet makes system calls.

use std::sync::Arc;

use dpdk_sys as sys;

use crate::eal::interrupts::Presence;
use crate::error::{Errno, check};
use crate::lane::{BURST, Burst, Frame, LARGE_FRAME, Lane, LaneCounters, Link, TxChecksum};
use crate::mbuf::Mbuf;
use crate::mempool::Mempool;
use crate::offload::{self, Offloads};
use crate::port::{Pools, Shared};
use crate::sleep::Sleeper;

/// The queue of a lane that has none: it allocates, and neither receives nor sends.
const NO_QUEUE: u16 = u16::MAX;

/// What stands in front of an IP packet at most.
const ETHERNET_AND_TAG: u16 = 18;

/// DPDK's lane: an rx queue, a tx queue, and a pool; or a pool alone, where the device has fewer queues than there are cores.
#[derive(Debug)]
pub struct DpdkLane {
    /// Frames to be sent with the next flush. Goes before `shared`, which keeps their pools.
    stage: Burst<Mbuf>,
    staged_bytes: u64,
    counters: LaneCounters,
    id: u16,
    queue: u16,
    offloads: Offloads,
    pools: Pools,
    shared: Arc<Shared>,
    /// Where the driver frees memory that a burst may be using.
    presence: Option<Arc<Presence>>,
    /// How its queue wakes a sleeper, where one watches it.
    interrupt: Option<Interrupt>,
    /// One core's: a lane may move to its thread, and is not shared.
    _not_sync: std::marker::PhantomData<std::cell::Cell<()>>,
}

/// How a device is asked to signal the next frame.
#[derive(Debug)]
enum Interrupt {
    /// Each time anew. Some drivers free what that touches when the other side goes, and have to be able to wait for it.
    Asked(Option<Arc<Presence>>),
    /// It always does: the kernel's end of a TAP is a descriptor like others.
    Always,
    /// There is no queue.
    None,
}

impl DpdkLane {
    /// The lane of `queue`; without one, a lane that has buffers only.
    pub(crate) fn new(shared: Arc<Shared>, queue: Option<u16>, pools: Pools) -> Self {
        Self {
            stage: Burst::new(),
            staged_bytes: 0,
            counters: LaneCounters::default(),
            id: shared.id(),
            queue: queue.unwrap_or(NO_QUEUE),
            offloads: shared.offloads,
            pools,
            presence: shared.needs_presence().then(Presence::announce),
            shared,
            interrupt: None,
            _not_sync: std::marker::PhantomData,
        }
    }

    /// The queue's number on its port; `None` where the lane has buffers only.
    #[must_use]
    pub fn queue(&self) -> Option<u16> {
        (self.queue != NO_QUEUE).then_some(self.queue)
    }

    /// The pool that this lane allocates from, and receives into where the device does not join segments.
    #[must_use]
    pub fn pool(&self) -> &Mempool {
        &self.pools.usual
    }

    /// Lets this lane's device wake `sleeper` once the lane is armed ([`Lane::arm`]). `false` where the device has no interrupts, or was not configured
    /// for them ([`crate::PortOptions::interrupts`]).
    pub fn watch(&mut self, sleeper: &Sleeper) -> bool {
        if self.queue == NO_QUEUE {
            self.interrupt = Some(Interrupt::None);
            return true;
        }
        if !self.shared.interrupts() {
            return false;
        }
        // SAFETY: the port is started and lives as long as `shared`, the queue is its own.
        let descriptor = unsafe { sys::rte_eth_dev_rx_intr_ctl_q_get_fd(self.id, self.queue) };
        if descriptor < 0 || sleeper.watch(descriptor).is_err() {
            return false;
        }
        let guard = self.shared.guards_interrupts().then(Presence::announce);
        let interrupt = match self.ask(guard.as_deref(), true) {
            Ok(_) => Interrupt::Asked(guard),
            Err(Errno(libc::ENOTSUP)) => Interrupt::Always,
            Err(_) => return false,
        };
        self.interrupt = Some(interrupt);
        self.disarm();
        true
    }

    /// Switches the queue's interrupt.
    fn ask(&self, guard: Option<&Presence>, on: bool) -> Result<u32, Errno> {
        let switch = if on { sys::rte_eth_dev_rx_intr_enable } else { sys::rte_eth_dev_rx_intr_disable };
        // SAFETY: as in `watch`.
        check(within(guard, || unsafe { switch(self.id, self.queue) }))
    }

    /// Makes frames in several segments frames of one.
    #[cold]
    fn straighten(&mut self, burst: &mut Burst<Mbuf>) {
        burst.retain(|frame| {
            let whole = frame.segments() == 1 || frame.linearize();
            self.counters.rx_scattered += u64::from(!whole);
            whole
        });
    }

    /// Prepares a frame for the device to cut. `false` where it cannot.
    fn prepare_segments(&self, frame: &mut Mbuf, l2_len: u8, l3_len: u8, mss: u16) -> bool {
        let Some(request) = offload::segments(frame.bytes_mut(), l2_len, l3_len, mss, self.offloads) else {
            return false;
        };
        frame.set_tx_offload(request.lengths);
        frame.set_flags(frame.flags() & sys::SHIM_MBUF_ATTACHED | request.flags);
        if self.queue == NO_QUEUE {
            return false;
        }
        // What has to stand in the checksum's place is for the driver to say: virtio wants the length in it, most NICs do not.
        let mut raw = frame.as_ptr();
        // SAFETY: as in `receive`; the one mbuf is ours, and stays so.
        unsafe { sys::rte_eth_tx_prepare(self.id, self.queue, &raw mut raw, 1) == 1 }
    }
}

/// Calls the driver; so that it can be waited for, where that is needed.
#[inline]
fn within<T>(presence: Option<&Presence>, call: impl FnOnce() -> T) -> T {
    match presence {
        None => call(),
        Some(presence) => presence.during(call),
    }
}

impl Lane for DpdkLane {
    type Frame = Mbuf;

    #[inline]
    fn receive(&mut self, burst: &mut Burst<Mbuf>) {
        debug_assert!(burst.is_empty(), "the contract of Lane::receive");
        burst.clear();
        if self.queue == NO_QUEUE {
            return;
        }
        let room = burst.as_mut_ptr().cast::<*mut sys::rte_mbuf>();
        // SAFETY: the port is started and lives as long as `shared`; this lane is its queue's only user, since it is not
        // Clone and not Sync. `room` holds BURST pointers, and an Mbuf is one pointer. DPDK writes as many owned, non-null
        // mbufs as it returns, at most BURST.
        unsafe {
            let receive = || sys::rte_eth_rx_burst(self.id, self.queue, room, BURST as u16);
            let received = within(self.presence.as_deref(), receive);
            burst.set_len(usize::from(received));
        }
        if burst.is_empty() {
            return;
        }
        if burst.iter().any(|frame| frame.segments() > 1) {
            self.straighten(burst);
        }
        let mut bytes = 0;
        for frame in burst.iter() {
            bytes += u64::from(frame.frame_len());
            frame.prefetch();
        }
        self.counters.rx_packets += burst.len() as u64;
        self.counters.rx_bytes += bytes;
    }

    #[inline]
    fn allocate(&mut self) -> Option<Mbuf> {
        let frame = self.pools.usual.allocate();
        self.counters.pool_empty += u64::from(frame.is_none());
        frame
    }

    #[cold]
    fn allocate_reserved(&mut self) -> Option<Mbuf> {
        self.pools.usual.allocate().or_else(|| self.pools.reserve.allocate())
    }

    #[inline]
    fn allocate_large(&mut self) -> Option<Mbuf> {
        let frame = self.pools.large.as_ref().and_then(Mempool::allocate);
        self.counters.pool_empty += u64::from(frame.is_none());
        frame
    }

    #[inline]
    fn transmit(&mut self, mut frame: Mbuf, checksum: TxChecksum) {
        // What the device said when the frame came in says nothing about its going out; how its memory is attached does.
        let mut flags = frame.flags() & sys::SHIM_MBUF_ATTACHED;
        match checksum {
            TxChecksum::Tcp { l2_len, l3_len } => {
                if let Some(request) = offload::finish_tcp(frame.bytes_mut(), l2_len, l3_len, self.offloads) {
                    flags |= request.flags;
                    frame.set_tx_offload(request.lengths);
                }
                frame.set_flags(flags);
            }
            TxChecksum::TcpSegments { l2_len, l3_len, mss } => {
                if !self.prepare_segments(&mut frame, l2_len, l3_len, mss) {
                    self.counters.tx_refused += 1;
                    return;
                }
            }
            TxChecksum::Complete => {
                // What a peer on this machine left open has to be whole on the next wire.
                if offload::is_partial(frame.flags()) {
                    offload::complete_partial(frame.bytes_mut());
                }
                frame.set_flags(flags);
            }
        }
        self.staged_bytes += u64::from(frame.frame_len());
        self.stage.push(frame);
        if self.stage.is_full() {
            self.flush();
        }
    }

    #[inline]
    fn flush(&mut self) {
        let count = self.stage.len();
        if count == 0 {
            return;
        }
        if self.queue == NO_QUEUE {
            self.counters.tx_full += count as u64;
            self.staged_bytes = 0;
            return self.stage.clear();
        }
        let frames = self.stage.as_mut_ptr().cast::<*mut sys::rte_mbuf>();
        // SAFETY: as in `receive`. The stage gives up its frames before DPDK takes them: the first `taken` are DPDK's,
        // the rest are ours, and are read and then freed once.
        unsafe {
            self.stage.set_len(0);
            let send = || sys::rte_eth_tx_burst(self.id, self.queue, frames, count as u16);
            let taken = within(self.presence.as_deref(), send);
            let left = count - usize::from(taken);
            if left > 0 {
                let rest = std::slice::from_raw_parts(frames.add(usize::from(taken)).cast::<Mbuf>(), left);
                self.staged_bytes -= rest.iter().map(|frame| u64::from(frame.frame_len())).sum::<u64>();
                self.counters.tx_full += left as u64;
                sys::rte_pktmbuf_free_bulk(frames.add(usize::from(taken)), left as u32);
            }
            self.counters.tx_packets += u64::from(taken);
        }
        self.counters.tx_bytes += std::mem::take(&mut self.staged_bytes);
    }

    fn mac(&self) -> [u8; 6] {
        self.shared.mac
    }

    fn mtu(&self) -> u16 {
        self.shared.mtu
    }

    fn largest(&self) -> u16 {
        if self.offloads.tso { LARGE_FRAME - ETHERNET_AND_TAG } else { 0 }
    }

    fn link(&self) -> Link {
        self.shared.link()
    }

    fn counters(&self) -> LaneCounters {
        self.counters
    }

    fn arm(&mut self) -> bool {
        match &self.interrupt {
            Some(Interrupt::Asked(guard)) => self.ask(guard.as_deref(), true).is_ok(),
            Some(Interrupt::Always | Interrupt::None) => true,
            None => false,
        }
    }

    fn disarm(&mut self) {
        if let Some(Interrupt::Asked(guard)) = &self.interrupt {
            // Where it fails, a signal too many comes, and wakes for nothing.
            let _ = self.ask(guard.as_deref(), false);
        }
    }

    fn frames_in_use(&self) -> usize {
        self.pools.in_use() as usize
    }
}
