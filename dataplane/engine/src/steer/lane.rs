//! One core's view of a port that several cores share.

use arrayvec::ArrayVec;

use pmd::{BURST, Burst, Frame, Lane, LaneCounters, PortSet, Steering, TxChecksum, Waker, Way};
use spsc::{Consumer, Producer};

use super::classify::{About, about};
use super::sources::{self, contains, core_of};
use super::{FIRST_PORT, PortPlan, Rss, Rules, way};
use crate::flow::FlowKey;

/// Frames taken from one ring in one turn at most. More than a burst, since a core that has no queue to look after turns faster than the one
/// that sends for it.
const RING_SHARE: usize = 4 * BURST;

/// Received frames from rings in one turn at most where the core has a queue of its own: neither starves the other.
const RINGS_SHARE: usize = BURST / 2;

/// Segments compared with what the hash or the rules say before a queue is believed.
const CHECKS: u32 = 256;

/// A mark: no other core needs to be asked about this frame's connection.
const SETTLED: u8 = u8::MAX;

/// One core's end of a port: its device lane, which may have no queue, and its links to the other cores.
///
/// It counts in `rx_packets` what its own queue received; see [`Steering`] for what was handed over.
pub struct Steered<L: Lane> {
    // Goes first: frames in its rings are of pools that the device keeps.
    link: Option<Box<Link<L::Frame>>>,
    device: L,
}

/// What travels from core to core.
#[derive(Debug)]
pub(super) enum Handed<F> {
    /// A received frame, and how many cores have looked for its connection.
    Received(F, u8),
    /// A frame to be sent by who has a queue.
    Send(F, TxChecksum),
}

/// One core's links to the others, for one port.
pub struct Link<F> {
    core: u16,
    cores: u16,
    /// The core whose queue sends for us; `None` where we have one.
    sender: Option<u16>,
    secret: [u64; 2],
    rss: Option<Rss>,
    rules: Option<Rules>,
    checks: u32,
    /// To each core; none to ourselves.
    out: Vec<Option<Producer<Handed<F>>>>,
    from: Vec<Consumer<Handed<F>>>,
    /// By core: what wakes it, where it sleeps.
    wakers: Box<[Option<Waker>]>,
    /// The ring that is looked at first, in turns.
    first: usize,
    /// Received from the device and not looked at yet, the oldest last.
    backlog: Burst<F>,
    /// For each frame of the last burst, how many cores have looked for its connection.
    marks: ArrayVec<u8, BURST>,
    listening: Box<PortSet>,
    steering: Steering,
    /// Frames of ours freed because the ring to the core that sends for us was full.
    send_full: u64,
    worked: bool,
}

/// Where a frame belongs.
enum Target {
    Here,
    /// Here, unless another core knows its connection.
    Stray,
    Core(u16),
    All,
}

impl<L: Lane> From<L> for Steered<L> {
    /// The lane of an only core.
    fn from(device: L) -> Self {
        Self { link: None, device }
    }
}

impl<L: Lane> Steered<L> {
    /// A lane that shares its port. `device` may lack a queue where the link's plan gave it none: then it is asked for buffers only.
    #[must_use]
    pub fn new(device: L, link: Link<L::Frame>) -> Self {
        let alone = link.cores <= 1;
        Self { link: (!alone).then(|| Box::new(link)), device }
    }

    /// The lane below.
    pub fn device(&self) -> &L {
        &self.device
    }

    /// The same, for tests and harnesses.
    pub fn device_mut(&mut self) -> &mut L {
        &mut self.device
    }

    /// Wakes the cores that sleep, by index, when something is handed to them.
    pub fn wake(&mut self, wakers: &[Option<Waker>]) {
        if let Some(link) = &mut self.link {
            for (place, waker) in link.wakers.iter_mut().zip(wakers) {
                place.clone_from(waker);
            }
        }
    }
}

impl<F> Link<F> {
    pub(super) fn new(core: u16, cores: u16, plan: &PortPlan, secret: [u64; 2]) -> Self {
        Self {
            core,
            cores,
            // With some queues, the cores without one are spread over them.
            sender: (core >= plan.queues).then(|| core % plan.queues.max(1)),
            secret,
            rss: plan.rss.clone(),
            rules: plan.rules.clone(),
            checks: CHECKS,
            out: (0..cores).map(|_| None).collect(),
            from: Vec::new(),
            wakers: (0..cores).map(|_| None).collect(),
            first: 0,
            backlog: Burst::new(),
            marks: ArrayVec::new(),
            listening: sources::port_set([]),
            steering: Steering { way: way(cores, plan), ..Steering::default() },
            send_full: 0,
            worked: false,
        }
    }

    pub(super) fn connect_out(&mut self, to: u16, ring: Producer<Handed<F>>) {
        if let Some(place) = self.out.get_mut(usize::from(to)) {
            *place = Some(ring);
        }
    }

    pub(super) fn connect_in(&mut self, ring: Consumer<Handed<F>>) {
        self.from.push(ring);
    }

    #[inline]
    fn publish(&mut self) {
        for (ring, waker) in self.out.iter_mut().zip(&self.wakers) {
            if ring.as_mut().is_some_and(Producer::publish)
                && let Some(waker) = waker
            {
                waker.wake();
            }
        }
    }

    /// Hands a received frame to `core`.
    #[inline]
    fn hand_over(&mut self, core: u16, frame: F, looked: u8) {
        let ring = self.out.get_mut(usize::from(core)).and_then(Option::as_mut);
        match ring.map(|ring| ring.push(Handed::Received(frame, looked))) {
            Some(Ok(())) => self.steering.handed_out += 1,
            // Dropped here, with its frame.
            Some(Err(_)) | None => self.steering.ring_full += 1,
        }
    }
}

impl<F: Frame> Link<F> {
    /// Frames that others handed to us, as far as there is room, and those that we are to send.
    fn take_handed<L: Lane<Frame = F>>(&mut self, device: &mut L, burst: &mut Burst<F>) {
        let room = if self.sender.is_some() { BURST } else { RINGS_SHARE };
        let rings = self.from.len();
        for step in 0..rings {
            let Some(ring) = self.from.get_mut((self.first + step) % rings) else { break };
            let mut left = RING_SHARE;
            while left > 0 && burst.len() < room {
                match ring.pop() {
                    Some(Handed::Received(frame, looked)) => {
                        self.steering.handed_in += 1;
                        self.marks.push(looked);
                        burst.push(frame);
                    }
                    Some(Handed::Send(frame, checksum)) => {
                        self.worked = true;
                        device.transmit(frame, checksum);
                    }
                    None => break,
                }
                left -= 1;
            }
            ring.release();
        }
        self.first = if self.first + 1 < rings { self.first + 1 } else { 0 };
    }

    /// Frames of our own queue: ours to the burst, the others' to their cores.
    fn take_received<L: Lane<Frame = F>>(&mut self, device: &mut L, burst: &mut Burst<F>) {
        if self.backlog.is_empty() {
            device.receive(&mut self.backlog);
            self.backlog.reverse();
        }
        if self.backlog.is_empty() {
            return;
        }
        self.worked = true;
        while !burst.is_full()
            && let Some(frame) = self.backlog.pop()
        {
            let mark = match self.target(frame.bytes()) {
                Target::Core(core) if core != self.core => {
                    self.hand_over(core, frame, SETTLED);
                    continue;
                }
                Target::All => {
                    self.copy_to_all(device, &frame);
                    SETTLED
                }
                Target::Stray => 1,
                Target::Here | Target::Core(_) => SETTLED,
            };
            self.marks.push(mark);
            burst.push(frame);
        }
        self.publish();
    }

    #[inline]
    fn target(&mut self, bytes: &[u8]) -> Target {
        let (key, opens, error) = match about(bytes) {
            About::Flow { key, opens, error } => (key, opens, error),
            About::Neighbor => return Target::All,
            About::Other => return Target::Here,
        };
        if matches!(self.steering.way, Way::Rss | Way::Rules) && self.checks > 0 && !error {
            self.check(&key);
        }
        let port = key.local_port();
        if port >= FIRST_PORT && !contains(&self.listening, port) {
            return Target::Core(core_of(port, self.cores));
        }
        match self.steering.way {
            Way::Hash => Target::Core(self.core_by_hash(&key)),
            Way::Rss if error => {
                let queue = self.rss.as_ref().and_then(|rss| rss.queue(key.remote(), key.local()));
                queue.map_or(Target::Here, Target::Core)
            }
            Way::Queues | Way::Rules if error => Target::All,
            Way::Queues | Way::Rules if !opens => Target::Stray,
            Way::Alone | Way::Rss | Way::Queues | Way::Rules => Target::Here,
        }
    }

    /// The self-test: whether the device put this segment where its hash or its rules say.
    #[cold]
    fn check(&mut self, key: &FlowKey) {
        let expected = match (&self.rss, &self.rules) {
            (Some(rss), _) => rss.queue(key.remote(), key.local()),
            (None, Some(rules)) => match rules.core(key.local().ip()) {
                None => return,
                core => core,
            },
            (None, None) => None,
        };
        self.checks -= 1;
        if expected != Some(self.core) {
            self.steering.way = Way::Queues;
        }
    }

    /// The core of a client's flow where the device has too few queues.
    #[inline]
    fn core_by_hash(&self, key: &FlowKey) -> u16 {
        // The upper half of a product: as even as a remainder, without a division.
        ((u128::from(key.sip_hash(self.secret)) * u128::from(self.cores)) >> 64) as u16
    }

    #[cold]
    fn copy_to_all<L: Lane<Frame = F>>(&mut self, device: &mut L, frame: &F) {
        for ring in self.out.iter_mut().flatten() {
            let Some(mut copy) = device.allocate() else { return };
            if !copy.set_len(frame.bytes().len()) {
                return;
            }
            copy.bytes_mut().copy_from_slice(frame.bytes());
            // Who is this far behind asks again.
            self.steering.copies += u64::from(ring.push(Handed::Received(copy, SETTLED)).is_ok());
        }
    }
}

impl<L: Lane> Lane for Steered<L> {
    type Frame = L::Frame;

    #[inline]
    fn receive(&mut self, burst: &mut Burst<L::Frame>) {
        let Some(link) = &mut self.link else { return self.device.receive(burst) };
        link.worked = false;
        link.marks.clear();
        link.take_handed(&mut self.device, burst);
        if link.sender.is_none() {
            link.take_received(&mut self.device, burst);
        }
    }

    #[inline]
    fn allocate(&mut self) -> Option<L::Frame> {
        self.device.allocate()
    }

    fn allocate_reserved(&mut self) -> Option<L::Frame> {
        self.device.allocate_reserved()
    }

    #[inline]
    fn allocate_large(&mut self) -> Option<L::Frame> {
        self.device.allocate_large()
    }

    #[inline]
    fn transmit(&mut self, frame: L::Frame, checksum: TxChecksum) {
        let Some(link) = &mut self.link else { return self.device.transmit(frame, checksum) };
        let Some(sender) = link.sender else { return self.device.transmit(frame, checksum) };
        let ring = link.out.get_mut(usize::from(sender)).and_then(Option::as_mut);
        if ring.is_none_or(|ring| ring.push(Handed::Send(frame, checksum)).is_err()) {
            link.send_full += 1;
        }
    }

    #[inline]
    fn flush(&mut self) {
        if let Some(link) = &mut self.link {
            link.publish();
            if link.sender.is_some() {
                return;
            }
        }
        self.device.flush();
    }

    fn mac(&self) -> [u8; 6] {
        self.device.mac()
    }

    fn mtu(&self) -> u16 {
        self.device.mtu()
    }

    fn largest(&self) -> u16 {
        self.device.largest()
    }

    fn link(&self) -> pmd::Link {
        self.device.link()
    }

    fn counters(&self) -> LaneCounters {
        let mut counters = self.device.counters();
        counters.tx_full += self.link.as_ref().map_or(0, |link| link.send_full);
        counters
    }

    fn frames_in_use(&self) -> usize {
        self.device.frames_in_use()
    }

    fn steering(&self) -> Steering {
        self.link.as_ref().map_or_else(Steering::default, |link| link.steering)
    }

    #[inline]
    fn worked(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.worked)
    }

    #[inline]
    fn passes_on(&self) -> bool {
        self.link.as_ref().is_some_and(|link| matches!(link.steering.way, Way::Queues | Way::Rules))
    }

    fn pass_on(&mut self, frame: L::Frame, position: usize) -> Option<L::Frame> {
        let Some(link) = &mut self.link else { return Some(frame) };
        let looked = link.marks.get(position).copied().unwrap_or(SETTLED);
        if u16::from(looked) >= link.cores {
            return Some(frame);
        }
        let next = if link.core + 1 < link.cores { link.core + 1 } else { 0 };
        link.steering.strays += 1;
        link.hand_over(next, frame, looked + 1);
        None
    }

    fn arm(&mut self) -> bool {
        match &self.link {
            // Without a queue, it is the other cores that wake this one.
            Some(link) if link.sender.is_some() => true,
            Some(link) if !link.backlog.is_empty() => false,
            _ => self.device.arm(),
        }
    }

    fn disarm(&mut self) {
        if self.link.as_ref().is_none_or(|link| link.sender.is_none()) {
            self.device.disarm();
        }
    }

    fn listen(&mut self, ports: &PortSet) {
        if let Some(link) = &mut self.link {
            link.listening.copy_from_slice(ports);
        }
    }
}
