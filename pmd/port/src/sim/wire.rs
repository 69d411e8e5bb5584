//! The wire itself: two ends, and a path in each direction.
//!
//! A frame that is flushed at time t is serialised, impaired by [`super::fault`], and lands in the other end's
//! receive ring at its arrival time, not before. Both ends live on one thread and share the paths by `Rc`.

use super::fault::{FaultCounters, Injector, Passage, PathOptions, SplitMix64};
use super::{Clock, offload, tso};
use crate::{BURST, Burst, Frame, LARGE_FRAME, Lane, LaneCounters, Link, RESERVE, RxChecksum, TxChecksum, checksum};
use arrayvec::ArrayVec;
use core::cell::{Cell, RefCell};
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

/// One end of a wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndOptions {
    /// The end's Ethernet address. The wire does not filter by it.
    pub mac: [u8; 6],
    /// The largest IP packet, in bytes. Frames of more than that and 18 bytes are not carried.
    pub mtu: u16,
    /// Buffers that this end's holder may have at once: allocated, staged and received ones. Frames
    /// on the wire and in the rings do not count.
    pub pool: usize,
    /// Frames that wait to be received at most; what arrives beyond is dropped.
    pub rx_ring: usize,
    /// Frames that wait to be serialised at most. Where the path has no rate, frames that one flush gets away.
    pub tx_ring: usize,
    /// Verify checksums of received frames like a NIC, and report Good or Bad; else all are Unchecked.
    pub rx_offload: bool,
    /// Cut what is sent as [`TxChecksum::TcpSegments`] (TSO).
    pub tso: bool,
    /// Take what a peer with `tso` sends before it is cut, as two ends on the same machine do (LRO).
    pub lro: bool,
}

impl EndOptions {
    /// An MTU of 1500, rings of 1024, a pool of 65536 and no offload.
    #[must_use]
    pub fn new(mac: [u8; 6]) -> Self {
        Self { mac, mtu: 1500, pool: 65536, rx_ring: 1024, tx_ring: 1024, rx_offload: false, tso: false, lro: false }
    }
}

/// What a wire is made of.
#[derive(Debug, Clone)]
pub struct WireOptions {
    /// The time that the wire lives in. Give the same clock to all wires of a simulation.
    pub clock: Clock,
    /// The first end that [`wire`] returns.
    pub left: EndOptions,
    /// The second one.
    pub right: EndOptions,
    /// The path from the first end to the second.
    pub to_right: PathOptions,
    /// The path from the second end to the first.
    pub to_left: PathOptions,
}

impl WireOptions {
    /// The same path in both directions, and default ends.
    #[must_use]
    pub fn symmetric(clock: &Clock, path: PathOptions) -> Self {
        Self { clock: clock.clone(), to_right: path.clone(), to_left: path, ..Self::default() }
    }
}

impl Default for WireOptions {
    /// A perfect wire of 10 µs between 02:00:00:00:00:01 and 02:00:00:00:00:02, with a clock of its own.
    fn default() -> Self {
        Self {
            clock: Clock::new(),
            left: EndOptions::new([2, 0, 0, 0, 0, 1]),
            right: EndOptions::new([2, 0, 0, 0, 0, 2]),
            to_right: PathOptions::default(),
            to_left: PathOptions::default(),
        }
    }
}

/// A wire, as its left and its right end. All that is random on it follows from `seed`.
#[must_use]
pub fn wire(options: WireOptions, seed: u64) -> (SimLane, SimLane) {
    let WireOptions { clock, left, right, to_right, to_left } = options;
    let mut seeds = SplitMix64(seed);
    let path = |path, seed, from: &EndOptions, to: &EndOptions| {
        let whole = from.tso && to.lro;
        let largest = if whole { LARGE_FRAME.into() } else { usize::from(from.mtu.min(to.mtu)) + LINK_HEADER };
        Rc::new(RefCell::new(Path {
            injector: Injector::new(path, seed),
            largest,
            whole,
            tx_ring: from.tx_ring,
            rx_ring: to.rx_ring,
            ..Path::new()
        }))
    };
    let to_right = path(to_right, seeds.next_u64(), &left, &right);
    let to_left = path(to_left, seeds.next_u64(), &right, &left);
    let up = Rc::new(Cell::new(true));
    let room = DATA_ROOM.max(usize::from(left.mtu.max(right.mtu)) + LINK_HEADER);
    let spare = Spare::default();
    let lane = |options: EndOptions, outward: &Rc<RefCell<Path>>, inward: &Rc<RefCell<Path>>| SimLane {
        clock: clock.clone(),
        up: Rc::clone(&up),
        outward: Rc::clone(outward),
        inward: Rc::clone(inward),
        pool: Rc::new(Pool { limit: options.pool, room, in_use: Cell::new(0), spare: Rc::clone(&spare) }),
        stage: ArrayVec::new(),
        counters: LaneCounters::default(),
        options,
    };
    (lane(left, &to_right, &to_left), lane(right, &to_left, &to_right))
}

/// One end of a simulated wire.
#[derive(Debug)]
pub struct SimLane {
    clock: Clock,
    options: EndOptions,
    up: Rc<Cell<bool>>,
    outward: Rc<RefCell<Path>>,
    inward: Rc<RefCell<Path>>,
    pool: Rc<Pool>,
    stage: ArrayVec<SimFrame, BURST>,
    counters: LaneCounters,
}

impl SimLane {
    /// The clock that this wire lives by.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// When the next frame is there to be received; a past time where one waits already. `None` where nothing is under way.
    #[must_use]
    pub fn next_arrival(&self) -> Option<Duration> {
        let path = self.inward.borrow();
        let waiting = path.ring.front().map(|(at, _)| *at);
        waiting.or_else(|| path.flying.first_key_value().map(|(key, _)| key.0))
    }

    /// What happened to the frames that this end sent.
    #[must_use]
    pub fn faults(&self) -> FaultCounters {
        let path = self.outward.borrow();
        let mut counters = path.counters;
        path.injector.count_into(&mut counters);
        counters
    }

    /// Frames that this end sent and that are still on the wire or in the other end's receive ring.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        let path = self.outward.borrow();
        path.flying.len() + path.ring.len()
    }

    /// The path that this end sends on.
    #[must_use]
    pub fn path(&self) -> PathOptions {
        self.outward.borrow().injector.options().clone()
    }

    /// Changes the path that this end sends on, for frames flushed from now on.
    pub fn set_path(&mut self, options: PathOptions) {
        self.outward.borrow_mut().injector.set_options(options);
    }

    /// Takes the link down, or up again, for both ends. What is sent meanwhile is lost; what is under way arrives.
    pub fn set_link(&mut self, up: bool) {
        self.up.set(up);
    }
}

impl Lane for SimLane {
    type Frame = SimFrame;

    fn receive(&mut self, burst: &mut Burst<SimFrame>) {
        let mut path = self.inward.borrow_mut();
        path.land(self.clock.now());
        while !burst.is_full() {
            let Some((_, packet)) = path.ring.pop_front() else {
                break;
            };
            let Some(mut frame) = SimFrame::adopt(&self.pool, packet) else {
                path.counters.no_buffer += 1;
                self.counters.pool_empty += 1;
                continue;
            };
            if self.options.rx_offload {
                frame.rx_checksum = offload::verify(frame.bytes());
            }
            path.counters.delivered += 1;
            self.counters.rx_packets += 1;
            self.counters.rx_bytes += frame.packet.len as u64;
            burst.push(frame);
        }
    }

    fn allocate(&mut self) -> Option<SimFrame> {
        let frame = SimFrame::allocate(&self.pool);
        self.counters.pool_empty += u64::from(frame.is_none());
        frame
    }

    fn allocate_large(&mut self) -> Option<SimFrame> {
        let frame = self.pool.take().map(|()| {
            let buffer = vec![JUNK; LARGE_FRAME.into()].into_boxed_slice();
            SimFrame::new(&self.pool, Packet { buffer, len: 0 })
        });
        self.counters.pool_empty += u64::from(frame.is_none());
        frame
    }

    fn allocate_reserved(&mut self) -> Option<SimFrame> {
        SimFrame::allocate(&self.pool).or_else(|| {
            self.pool.take_reserved()?;
            Some(SimFrame::new(&self.pool, Packet { buffer: self.pool.buffer(), len: 0 }))
        })
    }

    fn transmit(&mut self, mut frame: SimFrame, checksum: TxChecksum) {
        match checksum {
            TxChecksum::TcpSegments { l2_len, l3_len, mss } if !self.outward.borrow().whole => {
                return self.cut(&frame, l2_len.into(), l3_len.into(), mss);
            }
            TxChecksum::Tcp { l2_len, l3_len } | TxChecksum::TcpSegments { l2_len, l3_len, .. } => {
                // A frame that its header lies about leaves as it is, as from a NIC.
                let _ = checksum::finish_tcp(frame.bytes_mut(), l2_len.into(), l3_len.into());
            }
            TxChecksum::Complete => {}
        }
        self.push(frame);
    }

    fn flush(&mut self) {
        let mut path = self.outward.borrow_mut();
        let now = self.clock.now();
        // What nobody receives ends in the ring's bound, here too, so that a silent peer costs no memory.
        path.land(now);
        path.reclaim(now);
        for frame in self.stage.drain(..) {
            let len = frame.packet.len;
            if path.queued.len() >= path.tx_ring {
                self.counters.tx_full += 1;
                continue;
            }
            self.counters.tx_packets += 1;
            self.counters.tx_bytes += len as u64;
            path.send(now, self.up.get(), frame.release());
        }
    }

    fn mac(&self) -> [u8; 6] {
        self.options.mac
    }

    fn mtu(&self) -> u16 {
        self.options.mtu
    }

    fn largest(&self) -> u16 {
        // A frame of LARGE_FRAME bytes holds it.
        if self.options.tso { LARGE_FRAME - LINK_HEADER as u16 } else { 0 }
    }

    fn link(&self) -> Link {
        let rate = self.outward.borrow().injector.options().rate;
        let mbps = rate.map_or(0, |rate| rate.get().saturating_mul(8) / 1_000_000);
        Link { up: self.up.get(), mbps: u32::try_from(mbps).unwrap_or(u32::MAX) }
    }

    fn counters(&self) -> LaneCounters {
        self.counters
    }

    fn frames_in_use(&self) -> usize {
        self.pool.in_use.get()
    }
}

impl SimLane {
    fn push(&mut self, frame: SimFrame) {
        self.stage.push(frame);
        if self.stage.is_full() {
            self.flush();
        }
    }

    fn cut(&mut self, frame: &SimFrame, l2_len: usize, l3_len: usize, mss: u16) {
        let mut pieces = Vec::new();
        let whole = self.options.tso
            && tso::cut(frame.bytes(), l2_len, l3_len, mss, |parts| {
                pieces.push(parts.concat().into_boxed_slice());
            });
        self.counters.tx_refused += u64::from(!whole);
        for mut buffer in pieces {
            // It was whole, so that its pieces are.
            let _ = checksum::finish_tcp(&mut buffer, l2_len, l3_len);
            // The device's own, until the wire has it.
            self.pool.in_use.set(self.pool.in_use.get() + 1);
            let len = buffer.len();
            self.push(SimFrame::new(&self.pool, Packet { buffer, len }));
        }
    }
}

/// A buffer of one end's pool. A frame received at one end may be sent on any other, also of another wire.
#[derive(Debug)]
pub struct SimFrame {
    packet: Packet,
    rx_checksum: RxChecksum,
    pool: Rc<Pool>,
}

impl SimFrame {
    fn allocate(pool: &Rc<Pool>) -> Option<Self> {
        pool.take()?;
        let buffer = pool.buffer();
        Some(Self::new(pool, Packet { buffer, len: 0 }))
    }

    fn adopt(pool: &Rc<Pool>, mut packet: Packet) -> Option<Self> {
        pool.take()?;
        if packet.buffer.len() != pool.room && packet.len <= pool.room {
            let mut buffer = pool.buffer();
            let len = packet.len;
            buffer[..len].copy_from_slice(&packet.buffer[..len]);
            packet = Packet { buffer, len };
        }
        Some(Self::new(pool, packet))
    }

    fn new(pool: &Rc<Pool>, packet: Packet) -> Self {
        Self { packet, rx_checksum: RxChecksum::Unchecked, pool: Rc::clone(pool) }
    }

    /// The packet, out of the pool.
    fn release(mut self) -> Packet {
        core::mem::replace(&mut self.packet, Packet { buffer: Box::default(), len: 0 })
    }
}

impl Frame for SimFrame {
    fn bytes(&self) -> &[u8] {
        &self.packet.buffer[..self.packet.len]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.packet.buffer[..self.packet.len]
    }

    fn set_len(&mut self, len: usize) -> bool {
        let fits = len <= self.packet.buffer.len();
        if fits {
            self.packet.len = len;
        }
        fits
    }

    fn trim_front(&mut self, count: usize) -> bool {
        let Some(len) = self.packet.len.checked_sub(count) else { return false };
        self.packet.buffer.copy_within(count..self.packet.len, 0);
        self.packet.len = len;
        true
    }

    fn grow_front(&mut self, count: usize) -> bool {
        let len = self.packet.len;
        let fits = self.set_len(len + count);
        if fits {
            self.packet.buffer.copy_within(..len, count);
        }
        fits
    }

    fn rx_checksum(&self) -> RxChecksum {
        self.rx_checksum
    }
}

impl Drop for SimFrame {
    fn drop(&mut self) {
        self.pool.give(core::mem::take(&mut self.packet.buffer));
    }
}

/// What a frame may have beside its IP packet: an Ethernet header and a VLAN tag.
const LINK_HEADER: usize = 18;

/// The least size of a buffer: DPDK's default data room.
const DATA_ROOM: usize = 2048;

/// Unused buffers that a wire keeps, 8 MiB: enough for what both rings hold at once, and no
/// end of them where another wire's traffic ends here.
const SPARES: usize = 4096;

/// What a fresh buffer holds: a pattern, so that reading what was not written shows.
const JUNK: u8 = 0xa5;

/// `len` bytes at the start of `buffer`.
#[derive(Debug)]
struct Packet {
    buffer: Box<[u8]>,
    len: usize,
}

/// One direction.
#[derive(Debug)]
struct Path {
    injector: Injector,
    /// All but what the injector counts.
    counters: FaultCounters,
    largest: usize,
    /// What the sender is to cut goes over uncut.
    whole: bool,
    tx_ring: usize,
    rx_ring: usize,
    /// When the frames that the sender's ring holds will have been serialised.
    queued: VecDeque<Duration>,
    /// The last of those times, also when it has passed.
    busy_until: Duration,
    /// The latest arrival of a frame that was not held back.
    latest: Duration,
    /// By arrival time, then by order of sending.
    flying: BTreeMap<(Duration, u64), Packet>,
    next: u64,
    ring: VecDeque<(Duration, Packet)>,
}

impl Path {
    fn new() -> Self {
        Self {
            injector: Injector::new(PathOptions::default(), 0),
            counters: FaultCounters::default(),
            largest: 0,
            whole: false,
            tx_ring: 0,
            rx_ring: 0,
            queued: VecDeque::new(),
            busy_until: Duration::ZERO,
            latest: Duration::ZERO,
            flying: BTreeMap::new(),
            next: 0,
            ring: VecDeque::new(),
        }
    }

    /// Frees the sender's ring of what left it by now.
    fn reclaim(&mut self, now: Duration) {
        while self.queued.front().is_some_and(|departure| *departure <= now) {
            self.queued.pop_front();
        }
    }

    fn send(&mut self, now: Duration, up: bool, packet: Packet) {
        let rate = self.injector.options().rate;
        let serialising = rate.map_or(0, |rate| packet.len as u128 * 1_000_000_000 / u128::from(rate.get()));
        let serialising = Duration::from_nanos(u64::try_from(serialising).unwrap_or(u64::MAX));
        self.busy_until = self.busy_until.max(now).saturating_add(serialising);
        self.queued.push_back(self.busy_until);
        self.counters.sent += 1;
        if packet.len > self.largest {
            self.counters.oversize += 1;
            return;
        }
        if !up {
            self.counters.lost += 1;
            return;
        }
        let copies = self.injector.decide(packet.len);
        if let [first, second] = copies[..] {
            let twin = Packet { buffer: packet.buffer.clone(), len: packet.len };
            self.fly(first, packet);
            self.fly(second, twin);
        } else if let [only] = copies[..] {
            self.fly(only, packet);
        }
    }

    fn fly(&mut self, passage: Passage, mut packet: Packet) {
        if let Some((at, mask)) = passage.flip
            && let Some(byte) = packet.buffer.get_mut(at)
        {
            *byte ^= mask;
        }
        let mut arrival = self.busy_until.saturating_add(passage.delay);
        if !passage.held_back {
            arrival = arrival.max(self.latest);
            self.latest = arrival;
        }
        self.flying.insert((arrival, self.next), packet);
        self.next += 1;
    }

    /// Moves what has arrived into the receive ring. Only `receive` takes from that ring, so doing this
    /// late gives the same as doing it at each arrival.
    fn land(&mut self, now: Duration) {
        while let Some(entry) = self.flying.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let ((at, _), packet) = entry.remove_entry();
            if self.ring.len() < self.rx_ring {
                self.ring.push_back((at, packet));
            } else {
                self.counters.ring_full += 1;
            }
        }
    }
}

/// Buffers to be used again. Both ends share them, because traffic carries them from one to the other.
type Spare = Rc<RefCell<Vec<Box<[u8]>>>>;

/// A bounded number of equal buffers. They are made when first needed.
#[derive(Debug)]
struct Pool {
    limit: usize,
    room: usize,
    in_use: Cell<usize>,
    spare: Spare,
}

impl Pool {
    /// Counts one more buffer as in use, where the limit allows.
    fn take(&self) -> Option<()> {
        let taken = self.in_use.get();
        (taken < self.limit).then(|| self.in_use.set(taken + 1))
    }

    /// The same beyond the limit, as far as the reserve goes.
    fn take_reserved(&self) -> Option<()> {
        let taken = self.in_use.get();
        (taken < self.limit + RESERVE as usize).then(|| self.in_use.set(taken + 1))
    }

    fn buffer(&self) -> Box<[u8]> {
        let used = self.spare.borrow_mut().pop();
        used.unwrap_or_else(|| vec![JUNK; self.room].into_boxed_slice())
    }

    fn give(&self, buffer: Box<[u8]>) {
        self.in_use.set(self.in_use.get() - 1);
        let mut spare = self.spare.borrow_mut();
        // A buffer that was sent away is empty here, and one from another wire may have another size.
        if buffer.len() == self.room && spare.len() < SPARES {
            spare.push(buffer);
        }
    }
}
