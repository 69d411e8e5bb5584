//! The contract between a port and the core that polls it.

use arrayvec::ArrayVec;

/// Frames that one `receive` takes at most, and that `transmit` stages before it hands them over.
/// 32 keeps a burst's headers in the L1 cache and is what the PMDs' vector paths are tuned for.
pub const BURST: usize = 32;

/// The frames of one receive call, oldest first.
pub type Burst<F> = ArrayVec<F, BURST>;

/// One packet buffer, owned by whoever holds it; dropping it gives it back to its pool.
pub trait Frame {
    /// The frame from its Ethernet header on, without FCS.
    fn bytes(&self) -> &[u8];

    /// The same bytes, to be written.
    fn bytes_mut(&mut self) -> &mut [u8];

    /// Makes the frame `len` bytes long, cutting or extending it at its end. Extended bytes hold
    /// whatever the buffer held before. Returns `false`, and changes nothing, where the buffer is
    /// smaller than that.
    #[must_use]
    fn set_len(&mut self, len: usize) -> bool;

    /// Cuts `count` bytes off the front. Returns `false`, and changes nothing, where the frame is shorter than that.
    #[must_use]
    fn trim_front(&mut self, count: usize) -> bool;

    /// Extends the frame by `count` bytes at its front, which hold anything. Returns `false`, and changes nothing, where
    /// there is no room; a fresh frame, and one that came from a device, has room for a VLAN tag at least.
    #[must_use]
    fn grow_front(&mut self, count: usize) -> bool;

    /// What the device found out about the frame's IPv4 header and TCP/UDP checksums.
    fn rx_checksum(&self) -> RxChecksum;
}

/// A device's verdict on the checksums of a received frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RxChecksum {
    /// The device did not look: software has to.
    Unchecked,
    /// IPv4 header and L4 checksums are right.
    Good,
    /// One of them is wrong.
    Bad,
}

/// What is left to do about the checksums of a frame that is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TxChecksum {
    /// The frame is complete.
    Complete,
    /// An IPv4 or IPv6 packet begins `l2_len` bytes into the frame, and carries TCP after an IP header
    /// of `l3_len` bytes. The IPv4 header checksum and the TCP checksum fields hold anything: the lane fills them, in the NIC
    /// where it can and in software where it cannot.
    Tcp {
        /// Bytes before the IP header: 14, or 18 with a VLAN tag.
        l2_len: u8,
        /// Bytes of the IP header.
        l3_len: u8,
    },
    /// The same for a packet whose payload the lane cuts into segments of `mss` bytes, the last one may be shorter (TSO): each gets
    /// the headers, with its own lengths, sequence number and checksums, and FIN and PSH only at the end. Only for what is no
    /// longer than [`Lane::largest`], and in a frame of [`Lane::allocate_large`].
    TcpSegments {
        /// Bytes before the IP header: 14, or 18 with a VLAN tag.
        l2_len: u8,
        /// Bytes of the IP header.
        l3_len: u8,
        /// Bytes of payload in each segment; not 0.
        mss: u16,
    },
}

/// The longest frame that a large buffer holds, in bytes: DPDK measures a buffer with 16 bits, and keeps 128 bytes in front.
pub const LARGE_FRAME: u16 = u16::MAX - 128;

/// Frames beyond its pool that a lane has in reserve for small packets: two bursts.
pub const RESERVE: u32 = 64;

/// What a lane counted since it was made. All counters only grow.
/// `allocated = transmitted + dropped + frames freed or still held by the core` holds at any time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LaneCounters {
    /// Frames received.
    pub rx_packets: u64,
    /// Bytes received, without FCS.
    pub rx_bytes: u64,
    /// Frames that the device took to be sent.
    pub tx_packets: u64,
    /// Bytes that the device took to be sent.
    pub tx_bytes: u64,
    /// Frames freed because the tx ring was full.
    pub tx_full: u64,
    /// Frames freed because the device cannot cut them as it was asked to.
    pub tx_refused: u64,
    /// Allocations refused because the pool was empty.
    pub pool_empty: u64,
    /// Received frames freed because they came in several segments and did not fit into one mbuf. They are not in `rx_packets`.
    pub rx_scattered: u64,
}

/// How a port's frames find the core that their flow belongs to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Way {
    /// There is one core.
    #[default]
    Alone,
    /// The device spreads flows by a hash that is computed here too, so that replies arrive where they belong.
    Rss,
    /// The device spreads flows over its queues in a way of its own.
    Queues,
    /// The device has fewer queues than there are cores: who receives a frame hands it to the core that its flow's hash names.
    Hash,
    /// As `Queues`, but for replies of backends: rules of the device bring them to the core that has the address they go to.
    Rules,
}

/// What a lane did to bring frames to their cores. All counters only grow.
/// `received + handed_in = kept + handed_out + ring_full` holds at any time, for frames other than those to be sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Steering {
    /// The way in use.
    pub way: Way,
    /// Received frames that came from other cores.
    pub handed_in: u64,
    /// Received frames that went to other cores.
    pub handed_out: u64,
    /// Of those, the ones that no rule led to another core: this core did not know their connection, and the next was to look.
    pub strays: u64,
    /// Frames made because several cores want to see the same one.
    pub copies: u64,
    /// Received frames freed because the ring to their core was full.
    pub ring_full: u64,
}

/// A set of TCP ports, a bit for each.
pub type PortSet = [u64; 1024];

/// A port's link, as the device last reported it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Carrier present.
    pub up: bool,
    /// Speed in Mbit/s; 0 where the device does not know.
    pub mbps: u32,
}

/// One core's handle on one port: its rx queue, its tx queue, and the pool they draw from.
///
/// A lane belongs to one core. It is neither `Clone` nor `Sync`.
pub trait Lane {
    /// The buffers of this lane.
    type Frame: Frame;

    /// Appends up to [`BURST`] received frames to `burst`, which must be empty.
    fn receive(&mut self, burst: &mut Burst<Self::Frame>);

    /// An empty frame to be filled and transmitted; `None`, and counted, when the pool is empty.
    fn allocate(&mut self) -> Option<Self::Frame>;

    /// The same from the lane's small reserve where the pool is empty: for what makes others give buffers back, like ACKs.
    fn allocate_reserved(&mut self) -> Option<Self::Frame>;

    /// An empty frame that holds up to [`LARGE_FRAME`] bytes, for [`TxChecksum::TcpSegments`]; `None`, and counted, when there is none.
    fn allocate_large(&mut self) -> Option<Self::Frame>;

    /// Stages `frame` for sending. A full stage is flushed at once.
    fn transmit(&mut self, frame: Self::Frame, checksum: TxChecksum);

    /// Hands all staged frames to the device. What its ring does not take is freed and counted.
    fn flush(&mut self);

    /// The port's Ethernet address.
    fn mac(&self) -> [u8; 6];

    /// The largest IP packet that the port carries, in bytes.
    fn mtu(&self) -> u16;

    /// The largest IP packet that the lane takes as [`TxChecksum::TcpSegments`], in bytes; 0 where nothing behind it cuts segments.
    fn largest(&self) -> u16;

    /// The link's state, read without blocking.
    fn link(&self) -> Link;

    /// What this lane counted so far.
    fn counters(&self) -> LaneCounters;

    /// How frames find their cores here, and how many were handed over.
    fn steering(&self) -> Steering {
        Steering::default()
    }

    /// Whether the last [`Lane::receive`] did anything beside filling its burst.
    fn worked(&self) -> bool {
        false
    }

    /// Whether [`Lane::pass_on`] may find another core that knows a segment's connection.
    fn passes_on(&self) -> bool {
        false
    }

    /// Gives the frame at `position` of the last burst, whose connection this core does not know, to the next core that may. Comes back
    /// where there is none.
    fn pass_on(&mut self, frame: Self::Frame, position: usize) -> Option<Self::Frame> {
        let _ = position;
        Some(frame)
    }

    /// From now on, segments to these ports are clients'.
    fn listen(&mut self, ports: &PortSet) {
        let _ = ports;
    }

    /// Asks for whoever sleeps on this lane to be woken by the next frame ([`crate::Sleeper`]). What arrived before wakes nobody, and has to be
    /// received first. `false` where that cannot be asked for, or not now.
    fn arm(&mut self) -> bool {
        false
    }

    /// Takes [`Lane::arm`] back: the lane is polled again.
    fn disarm(&mut self) {}

    /// Frames that are out of the lane's pool: held by the core, by the stage, or by the device. Not for every packet: it may walk over
    /// per-core caches.
    fn frames_in_use(&self) -> usize;
}
