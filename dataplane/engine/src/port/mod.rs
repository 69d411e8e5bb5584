//! One core's end of a port, below TCP: Ethernet and VLANs, ARP and Neighbor Discovery, IPv4 and IPv6, ICMP.
//!
//! The core's loop hands every received frame to [`Port::ingress`] and gets back the TCP segments, whose headers,
//! checksums, options and flags are valid; everything else is dealt with here. The stack sends IP packets with [`Port::send`], which finds
//! the next hop's Ethernet address. The port owns its lane and its interfaces, each with addresses, routes and neighbors. It knows no
//! connection, keeps no frame but those that wait for a neighbor, and never blocks.
//!
//! Which interface a packet of ours leaves by, its source address says: it is the one that has it.
//!
//! Each received frame is exactly one of: a segment given back, an ICMP error given back, one that was consumed here
//! ([`Port::consumed`]), or dropped with one verdict. Packets of ours that are dropped have verdicts of their own:
//! `NeighborUnresolved`, `NeighborQueueFull` and `NoRoute`.

mod addresses;
mod arp;
mod ethernet;
mod icmp;
mod icmpv6;
mod ingress;
mod interface;
mod ipv4;
mod ipv6;
mod nd;
mod ndp;
mod neighbors;
mod rate;
mod routes;
mod segment;

pub use icmp::{IcmpError, IcmpErrorKind};
pub use segment::{Flags, LARGEST_WINDOW_SCALE, Options, Reply, Segment, clamp_syn_options};

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::num::NonZeroU16;
use core::time::Duration;

use pmd::{Frame, Lane, TxChecksum};
use tables::{CoreCounters, InterfaceSettings, PortSettings, TcpSettings, Verdict};

use crate::clock::Instant;
use ethernet::{Label, Link};
use interface::{Departure, Interface};
use ipv4::ETHERNET;
pub(crate) use rate::TokenBucket;

/// One core's end of a port.
#[derive(Debug)]
pub struct Port<L: Lane> {
    index: usize,
    largest: u16,
    link: Link<L>,
    interfaces: Vec<Interface<L::Frame>>,
    /// Changes whenever a remembered hop may have become wrong: the sum of the interfaces' own.
    generation: u32,
    icmp_rate: TokenBucket,
    reset_rate: TokenBucket,
    link_up: bool,
    next_tick: Instant,
    consumed: u64,
}

/// What became of a received frame.
#[derive(Debug)]
pub enum Ingress<F> {
    /// A valid TCP segment for one of our addresses.
    Segment(F, Segment),
    /// An error about a segment of ours.
    IcmpError(IcmpError),
    /// Consumed here, or dropped and counted.
    Done,
}

/// A remembered next hop of one flow: as long as the port's neighbors do not change, sending to it needs no look-up.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hop {
    mac: [u8; 6],
    vlan: Option<NonZeroU16>,
    /// 0 for none.
    generation: u32,
}

/// Bytes of an Ethernet header: where the IP packet of a frame begins.
pub const ETHERNET_HEADER: usize = ETHERNET;

/// Time from one look at the link to the next, and between announcements.
const TICK: Duration = Duration::from_secs(1);

impl<L: Lane> Port<L> {
    /// The port at `index` among the appliance's ports. Its link counts as down, and its addresses as not announced, until
    /// the first [`Port::maintain`]. IPv6 addresses are used a second later, when nobody has objected to them.
    #[must_use]
    pub fn new(index: usize, lane: L, settings: &PortSettings, tcp: &TcpSettings) -> Self {
        let mac = lane.mac();
        let mtu = settings.mtu.unwrap_or(u16::MAX).min(lane.mtu());
        let largest = lane.largest();
        // Untagged frames belong to the first, which is there even where it has no address.
        let (untagged, tagged) =
            settings.interfaces.iter().partition::<Vec<_>, _>(|interface| interface.vlan.is_none());
        let none = InterfaceSettings::default();
        let all = core::iter::once(untagged.first().copied().unwrap_or(&none)).chain(tagged);
        let interfaces = all.map(|interface| Interface::new(interface, mac, mtu, tcp)).collect();
        let mut port = Self {
            index,
            largest,
            link: Link { lane, mac },
            interfaces,
            generation: 0,
            icmp_rate: TokenBucket::new(tcp.icmp_per_second),
            reset_rate: TokenBucket::new(tcp.resets_per_second),
            link_up: false,
            next_tick: Instant::default(),
            consumed: 0,
        };
        port.renew();
        port
    }

    /// The position among the appliance's ports.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// The lane below.
    #[inline]
    #[must_use]
    pub fn lane(&self) -> &L {
        &self.link.lane
    }

    /// The same, to receive and to flush.
    #[inline]
    #[must_use]
    pub fn lane_mut(&mut self) -> &mut L {
        &mut self.link.lane
    }

    /// Whether the link was up when it was last looked at, about a second ago at most.
    #[must_use]
    pub fn link_up(&self) -> bool {
        self.link_up
    }

    /// Gives the lane back.
    #[must_use]
    pub fn into_lane(self) -> L {
        self.link.lane
    }

    /// The largest IP packet, in bytes, of the interface that has the address `local`, and in its family.
    #[must_use]
    pub fn mtu(&self, local: IpAddr) -> u16 {
        self.interfaces.get(self.interface_of(local)).map_or(u16::MAX, |interface| interface.mtu_for(local))
    }

    /// Frames received that ended here and were no drops: ARP and ND packets for us, and answered echo requests.
    #[must_use]
    pub fn consumed(&self) -> u64 {
        self.consumed
    }

    /// Whether `address` is one of ours on this port, and known to be nobody else's.
    #[must_use]
    pub fn owns(&self, address: IpAddr) -> bool {
        self.interfaces.iter().any(|interface| interface.owns(address))
    }

    /// How well this port leads to `address`: the more the better. `None` where it does not. Comparable between ports.
    #[must_use]
    pub fn preference(&self, address: IpAddr) -> Option<u16> {
        self.interfaces.iter().filter_map(|interface| interface.preference(address)).max()
    }

    /// Our address to use towards `destination`; `None` where it cannot be reached.
    #[must_use]
    pub fn source_for(&self, destination: IpAddr) -> Option<IpAddr> {
        let best = self.interfaces.iter().rev().max_by_key(|interface| interface.preference(destination))?;
        best.source_for(destination)
    }

    /// Takes one received frame. What is no TCP is answered here; what is dropped is counted in `counters.drops`.
    #[inline]
    pub fn ingress(&mut self, now: Instant, frame: L::Frame, counters: &CoreCounters) -> Ingress<L::Frame> {
        self.classify(now, frame, counters).unwrap_or_else(|verdict| {
            count(counters, verdict);
            Ingress::Done
        })
    }

    /// A frame for an IP packet of `len` bytes, which begins at byte 14 and holds anything. `None` where the pool is empty,
    /// which the lane counts, or its buffers are too small.
    pub fn packet(&mut self, len: usize) -> Option<L::Frame> {
        self.link.packet(len)
    }

    /// The same for a packet of up to [`Port::largest`] bytes, which the lane cuts into segments. It has no length yet.
    pub fn large_packet(&mut self) -> Option<L::Frame> {
        self.link.lane.allocate_large()
    }

    /// The largest packet that the lane cuts into segments, in bytes; 0 where it does not.
    #[inline]
    #[must_use]
    pub fn largest(&self) -> u16 {
        self.largest
    }

    /// The same for a packet that carries no data, out of the lane's reserve where the pool is empty: ACKs make peers' buffers, and then
    /// ours, free again.
    pub fn bare_packet(&mut self, len: usize) -> Option<L::Frame> {
        self.link.bare_packet(len)
    }

    /// Sends a frame whose IP packet begins at byte 14. Where the next hop's Ethernet address is not known yet, the frame
    /// waits and the neighbor is asked; what cannot wait, or waits in vain, is dropped and counted.
    pub fn send(
        &mut self,
        now: Instant,
        frame: L::Frame,
        destination: IpAddr,
        checksum: TxChecksum,
        counters: &CoreCounters,
    ) {
        let interface = self.interface_of(source_of(&frame));
        self.resolve(now, interface, Departure { frame, destination, checksum, stateless: false }, counters);
    }

    /// The same with a next hop that the caller remembers for this flow, so that the usual packet costs no look-up.
    #[inline]
    pub fn send_via(
        &mut self,
        now: Instant,
        hop: &mut Hop,
        frame: L::Frame,
        destination: IpAddr,
        checksum: TxChecksum,
        counters: &CoreCounters,
    ) {
        if hop.generation == self.generation {
            let ethertype = if destination.is_ipv4() { ethernet::IPV4 } else { ethernet::IPV6 };
            self.link.emit(frame, Label { to: hop.mac, vlan: hop.vlan, ethertype }, checksum);
            return;
        }
        let interface = self.interface_of(source_of(&frame));
        let departure = Departure { frame, destination, checksum, stateless: false };
        *hop = match self.resolve(now, interface, departure, counters) {
            Some(mac) => {
                let vlan = self.interfaces.get(interface).and_then(|interface| interface.vlan);
                Hop { mac, vlan, generation: self.generation }
            }
            None => Hop::default(),
        };
    }

    /// Sends a received frame that was made its own answer, whose IP packet begins at byte 14, by the interface that it came in by and to
    /// the station that it came from: it needs no neighbor, and so nothing that a flood could use up.
    pub fn send_back(&mut self, frame: L::Frame, interface: u8, checksum: TxChecksum) {
        let (Some(header), Some(interface)) =
            (frame.bytes().first_chunk::<ETHERNET>(), self.interfaces.get(usize::from(interface)))
        else {
            return;
        };
        let [_, _, _, _, _, _, a, b, c, d, e, f, high, low] = *header;
        let label = Label { to: [a, b, c, d, e, f], vlan: interface.vlan, ethertype: u16::from_be_bytes([high, low]) };
        self.link.emit(frame, label, checksum);
    }

    /// Sends a segment that needs no connection. Counts it in `segments_sent`, or the packet's drop.
    pub fn reply(&mut self, now: Instant, reply: &Reply, counters: &CoreCounters) {
        self.reply_by(now, self.interface_of(reply.key.local_addr()), reply, counters);
    }

    /// Answers a segment of no connection with a RST (RFC 9293 §3.10.7.1), unless it is a RST itself or too many were sent
    /// lately. Counts in `resets_sent` and `segments_sent`; the verdict on the segment is the caller's.
    pub fn reset_for(&mut self, now: Instant, segment: &Segment, counters: &CoreCounters) {
        let Some(reply) = Reply::reset(segment) else { return };
        if !self.reset_rate.take(now) {
            return counters.resets_withheld.add(1);
        }
        counters.resets_sent.add(1);
        self.reply_by(now, segment.interface.into(), &reply, counters);
    }

    /// Looks at the link, checks and announces our addresses, asks neighbors again, gives up those that stay silent and forgets those that
    /// nobody used. Bounded work a call; due again at [`Port::next_maintenance`].
    pub fn maintain(&mut self, now: Instant, counters: &CoreCounters) {
        if now >= self.next_tick {
            self.next_tick = now + TICK;
            self.tick(now, counters);
        }
        for interface in &mut self.interfaces {
            interface.maintain(now, &mut self.link, counters);
        }
        self.renew();
    }

    /// When [`Port::maintain`] wants to be called next.
    #[must_use]
    pub fn next_maintenance(&self) -> Instant {
        let due = self.interfaces.iter().filter_map(|interface| interface.neighbors.next_due());
        due.fold(self.next_tick, Instant::min)
    }

    /// Destinations whose next hop did not answer since the last call, so that connects to them can fail early.
    pub fn unreachable(&mut self, mut f: impl FnMut(IpAddr)) {
        for interface in &mut self.interfaces {
            interface.neighbors.unreachable(&mut f);
        }
    }

    /// The interface that has the address `local`; the first where none has it.
    fn interface_of(&self, local: IpAddr) -> usize {
        self.interfaces.iter().position(|interface| interface.owns(local)).unwrap_or(0)
    }

    fn reply_by(&mut self, now: Instant, interface: usize, reply: &Reply, counters: &CoreCounters) {
        let Some(mut frame) = self.bare_packet(reply.len()) else {
            return;
        };
        let Some(destination) = frame.bytes_mut().get_mut(ETHERNET..).and_then(|packet| reply.write(packet)) else {
            count(counters, Verdict::NoRoute);
            return;
        };
        counters.segments_sent.add(1);
        let checksum = TxChecksum::Tcp { l2_len: ETHERNET as u8, l3_len: reply.ip_header() as u8 };
        self.resolve(now, interface, Departure { frame, destination, checksum, stateless: true }, counters);
    }

    /// Sends by an interface, to the next hop. The Ethernet address that the frame went to, if it went.
    fn resolve(
        &mut self,
        now: Instant,
        interface: usize,
        departure: Departure<L::Frame>,
        counters: &CoreCounters,
    ) -> Option<[u8; 6]> {
        match self.interfaces.get_mut(interface) {
            Some(interface) => interface.resolve(now, &mut self.link, departure, counters),
            None => {
                count(counters, Verdict::NoRoute);
                None
            }
        }
    }

    /// Notes whether a remembered hop may have become wrong.
    fn renew(&mut self) {
        let sum = self.interfaces.iter().fold(0u32, |sum, i| sum.wrapping_add(i.neighbors.generation()));
        self.generation = sum.max(1);
    }

    fn tick(&mut self, now: Instant, counters: &CoreCounters) {
        let up = self.link.lane.link().up;
        let came_up = up && !self.link_up;
        self.link_up = up;
        let (mut tentative, mut duplicates) = (0, 0);
        for interface in &mut self.interfaces {
            interface.neighbors.age();
            if up {
                interface.tick(now, &mut self.link, came_up, counters);
            }
            tentative += interface.host.as_ref().map_or(0, nd::Host::tentative);
            duplicates += interface.host.as_ref().map_or(0, nd::Host::duplicates);
        }
        if let Some(port) = counters.ports.get(self.index) {
            port.link_up.set(u64::from(up));
            port.addresses_tentative.set(tentative as u64);
            port.addresses_duplicate.set(duplicates as u64);
        }
    }
}

/// The source of the IP packet in a frame of ours.
fn source_of(frame: &impl Frame) -> IpAddr {
    let packet = frame.bytes().get(ETHERNET..).unwrap_or_default();
    let v4 = || packet.get(12..)?.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets));
    let v6 = || packet.get(8..)?.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets));
    let source = match packet.first().map(|first| first >> 4) {
        Some(6) => v6().map(IpAddr::V6),
        _ => v4().map(IpAddr::V4),
    };
    source.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

#[inline]
fn count(counters: &CoreCounters, verdict: Verdict) {
    counters.drops[verdict as usize].add(1);
}

#[cfg(test)]
mod tests;
