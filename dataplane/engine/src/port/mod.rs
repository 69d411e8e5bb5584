//! One core's end of a port, below TCP: Ethernet, ARP, IPv4 and ICMP.
//!
//! The core's loop hands every received frame to [`Port::ingress`] and gets back the TCP segments, whose headers,
//! checksums, options and flags are valid; ARP and ICMP are dealt with here. The stack sends IP packets with [`Port::send`], which finds
//! the next hop's Ethernet address. The port owns its lane, its addresses and its neighbors. It knows no
//! connection, keeps no frame but those that wait for a neighbor, and never blocks.
//!
//! Each received frame is exactly one of: a segment given back, an ICMP error given back, one that was consumed here
//! ([`Port::consumed`]), or dropped with one verdict. Packets of ours that are dropped have verdicts of their own:
//! `NeighborUnresolved`, `NeighborQueueFull` and `NoRoute`.

mod arp;
mod icmp;
mod ipv4;
mod neighbors;
mod rate;
mod segment;

pub use icmp::{IcmpError, IcmpErrorKind};
pub use segment::{Flags, LARGEST_WINDOW_SCALE, Options, Reply, Segment, clamp_syn_options};

use core::net::{IpAddr, Ipv4Addr};
use core::time::Duration;

use arrayvec::ArrayVec;
use pmd::{Frame, Lane, TxChecksum};
use tables::{CoreCounters, PortSettings, TcpSettings, Verdict};

use crate::clock::Instant;
use ipv4::{Addresses, ETHERNET};
use neighbors::{MAINTAIN_STEPS, Neighbors, Question};
use rate::TokenBucket;

/// One core's end of a port.
#[derive(Debug)]
pub struct Port<L: Lane> {
    index: usize,
    lane: L,
    mac: [u8; 6],
    mtu: u16,
    largest: u16,
    addresses: Addresses,
    neighbors: Neighbors<L::Frame>,
    arp_rate: TokenBucket,
    icmp_rate: TokenBucket,
    reset_rate: TokenBucket,
    link_up: bool,
    announcements: u8,
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

/// A remembered next hop of one destination: as long as the port's neighbors do not change, sending to it needs no look-up.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hop {
    mac: [u8; 6],
    /// 0 for none.
    generation: u32,
}

/// Bytes of an Ethernet header: where the IP packet of a frame begins.
pub const ETHERNET_HEADER: usize = ETHERNET;

/// Time from one look at the link to the next, and between announcements.
const TICK: Duration = Duration::from_secs(1);

/// Announcements of our addresses when the link comes up (RFC 5227 §2.3: ANNOUNCE_NUM).
const ANNOUNCEMENTS: u8 = 2;

const BROADCAST: [u8; 6] = [0xff; 6];

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;

const CODE_PROTOCOL_UNREACHABLE: u8 = 2;
const CODE_PORT_UNREACHABLE: u8 = 3;

impl<L: Lane> Port<L> {
    /// The port at `index` among the appliance's ports. Its link counts as down, and its addresses as not announced, until
    /// the first [`Port::maintain`].
    #[must_use]
    pub fn new(index: usize, lane: L, settings: &PortSettings, tcp: &TcpSettings) -> Self {
        let mac = lane.mac();
        let mtu = settings.mtu.unwrap_or(u16::MAX).min(lane.mtu());
        let largest = lane.largest();
        Self {
            index,
            lane,
            mac,
            mtu,
            largest,
            addresses: Addresses::new(&settings.addresses, settings.gateway),
            neighbors: Neighbors::new(tcp.neighbors as usize, tcp.neighbor_queue, settings.gateway),
            arp_rate: TokenBucket::new(tcp.arp_per_second),
            icmp_rate: TokenBucket::new(tcp.icmp_per_second),
            reset_rate: TokenBucket::new(tcp.resets_per_second),
            link_up: false,
            announcements: 0,
            next_tick: Instant::default(),
            consumed: 0,
        }
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
        &self.lane
    }

    /// The same, to receive and to flush.
    #[inline]
    #[must_use]
    pub fn lane_mut(&mut self) -> &mut L {
        &mut self.lane
    }

    /// Whether the link was up when it was last looked at, about a second ago at most.
    #[must_use]
    pub fn link_up(&self) -> bool {
        self.link_up
    }

    /// Gives the lane back.
    #[must_use]
    pub fn into_lane(self) -> L {
        self.lane
    }

    /// The largest IP packet, in bytes: the device's or the configured one, whichever is less.
    #[must_use]
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// Frames received that ended here and were no drops: ARP packets for us, and answered echo requests.
    #[must_use]
    pub fn consumed(&self) -> u64 {
        self.consumed
    }

    /// Whether `address` is one of ours on this port.
    #[must_use]
    pub fn owns(&self, address: IpAddr) -> bool {
        self.addresses.owns(address)
    }

    /// Whether packets for `address` can leave by this port, to itself or to the gateway.
    #[must_use]
    pub fn reaches(&self, address: IpAddr) -> bool {
        self.addresses.next_hop(address).is_some()
    }

    /// Whether `address` is another host on this port's own networks.
    #[must_use]
    pub fn on_link(&self, address: IpAddr) -> bool {
        self.addresses.on_link(address)
    }

    /// Our address to use towards `destination`; `None` where it cannot be reached.
    #[must_use]
    pub fn source_for(&self, destination: IpAddr) -> Option<IpAddr> {
        self.addresses.source_for(destination)
    }

    /// Takes one received frame. ARP and ICMP are answered here; what is dropped is counted in `counters.drops`.
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
        let mut frame = self.lane.allocate()?;
        frame.set_len(ETHERNET + len).then_some(frame)
    }

    /// The same for a packet of up to [`Port::largest`] bytes, which the lane cuts into segments. It has no length yet.
    pub fn large_packet(&mut self) -> Option<L::Frame> {
        self.lane.allocate_large()
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
        self.packet(len).or_else(|| {
            let mut frame = self.lane.allocate_reserved()?;
            frame.set_len(ETHERNET + len).then_some(frame)
        })
    }

    /// Sends a frame whose IP packet begins at byte 14. Where the next hop's Ethernet address is not known yet, the frame
    /// waits and an ARP request is sent; what cannot wait, or waits in vain, is dropped and counted.
    pub fn send(
        &mut self,
        now: Instant,
        frame: L::Frame,
        destination: IpAddr,
        checksum: TxChecksum,
        counters: &CoreCounters,
    ) {
        self.resolve(now, frame, destination, checksum, counters, false);
    }

    /// The same with a next hop that the caller remembers for this destination, so that the usual packet costs no look-up.
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
        if hop.generation == self.neighbors.generation() {
            self.emit(frame, hop.mac, destination, checksum);
            return;
        }
        *hop = match self.resolve(now, frame, destination, checksum, counters, false) {
            Some(mac) => Hop { mac, generation: self.neighbors.generation() },
            None => Hop::default(),
        };
    }

    /// Sends a received frame that was made its own answer, whose IP packet begins at byte 14, to the station that it came from: it
    /// needs no neighbor, and so nothing that a flood could use up.
    pub fn send_back(&mut self, mut frame: L::Frame, checksum: TxChecksum) {
        if let Some(header) = frame.bytes_mut().first_chunk_mut::<ETHERNET>() {
            header.copy_within(6..12, 0);
            header[6..12].copy_from_slice(&self.mac);
        }
        self.lane.transmit(frame, checksum);
    }

    /// Sends a segment that needs no connection. Counts it in `segments_sent`, or the packet's drop.
    pub fn reply(&mut self, now: Instant, reply: &Reply, counters: &CoreCounters) {
        let Some(mut frame) = self.bare_packet(Reply::LEN) else {
            return;
        };
        let Some(destination) = frame.bytes_mut().get_mut(ETHERNET..).and_then(|packet| reply.write(packet)) else {
            count(counters, Verdict::NoRoute);
            return;
        };
        counters.segments_sent.add(1);
        let checksum = TxChecksum::Tcp { l2_len: ETHERNET as u8, l3_len: ipv4::HEADER as u8 };
        self.resolve(now, frame, destination.into(), checksum, counters, true);
    }

    /// Answers a segment of no connection with a RST (RFC 9293 §3.10.7.1), unless it is a RST itself or too many were sent
    /// lately. Counts in `resets_sent` and `segments_sent`; the verdict on the segment is the caller's.
    pub fn reset_for(&mut self, now: Instant, segment: &Segment, counters: &CoreCounters) {
        if let Some(reply) = Reply::reset(segment)
            && self.reset_rate.take(now)
        {
            counters.resets_sent.add(1);
            self.reply(now, &reply, counters);
        }
    }

    /// Looks at the link, announces our addresses, asks neighbors again, gives up those that stay silent and forgets those that
    /// nobody used. Bounded work a call; due again at [`Port::next_maintenance`].
    pub fn maintain(&mut self, now: Instant, counters: &CoreCounters) {
        if now >= self.next_tick {
            self.next_tick = now + TICK;
            self.tick(counters);
        }
        let mut questions = ArrayVec::<Question, MAINTAIN_STEPS>::new();
        self.neighbors.maintain(now, &mut questions, counters);
        for question in questions {
            self.ask(question, counters);
        }
    }

    /// When [`Port::maintain`] wants to be called next.
    #[must_use]
    pub fn next_maintenance(&self) -> Instant {
        self.neighbors.next_due().map_or(self.next_tick, |due| due.min(self.next_tick))
    }

    /// Destinations whose next hop did not answer since the last call, so that connects to them can fail early.
    pub fn unreachable(&mut self, f: impl FnMut(IpAddr)) {
        self.neighbors.unreachable(f);
    }

    #[inline]
    fn classify(
        &mut self,
        now: Instant,
        frame: L::Frame,
        counters: &CoreCounters,
    ) -> Result<Ingress<L::Frame>, Verdict> {
        let bytes = frame.bytes();
        let header = bytes.first_chunk::<ETHERNET>().ok_or(Verdict::Truncated)?;
        let to_us = header[..6] == self.mac;
        if !to_us && header[..6] != BROADCAST {
            return Err(Verdict::NotOurMac);
        }
        match u16::from_be_bytes([header[12], header[13]]) {
            ETHERTYPE_IPV4 => {}
            ETHERTYPE_ARP => {
                let packet = arp::Packet::parse(&bytes[ETHERNET..])?;
                drop(frame);
                self.arp(now, &packet, counters)?;
                self.consumed += 1;
                return Ok(Ingress::Done);
            }
            ETHERTYPE_IPV6 => return Err(Verdict::Ipv6),
            0x8100 | 0x88a8 | 0x9100 => return Err(Verdict::Vlan),
            _ => return Err(Verdict::EtherType),
        }
        let seen = frame.rx_checksum();
        let ip = ipv4::parse(&bytes[ETHERNET..], seen)?;
        self.admit(&ip, to_us)?;
        match ip.protocol {
            ipv4::TCP => {
                let segment = segment::parse(bytes, &ip, seen)?;
                Ok(Ingress::Segment(frame, segment))
            }
            ipv4::ICMP => self.icmp(now, frame, &ip, counters),
            protocol => {
                let code = if protocol == UDP { CODE_PORT_UNREACHABLE } else { CODE_PROTOCOL_UNREACHABLE };
                self.refuse(now, bytes, &ip, code, counters);
                Err(Verdict::IpProtocol)
            }
        }
    }

    /// Whether a packet with this header may be looked at: from somebody who can exist, to us, whole.
    #[inline]
    fn admit(&self, ip: &ipv4::Header, to_us: bool) -> Result<(), Verdict> {
        if ip.source == ip.destination {
            return Err(Verdict::Land);
        }
        if !self.addresses.is_unicast_v4(ip.source) || self.addresses.owns_v4(ip.source) {
            return Err(Verdict::IpSource);
        }
        if !self.addresses.owns_v4(ip.destination) {
            return Err(Verdict::IpDestination);
        }
        // To our IP address, but by Ethernet to everybody (RFC 1122 §3.3.6).
        if !to_us {
            return Err(Verdict::NotOurMac);
        }
        if ip.fragment { Err(Verdict::Fragment) } else { Ok(()) }
    }

    #[cold]
    fn icmp(
        &mut self,
        now: Instant,
        mut frame: L::Frame,
        ip: &ipv4::Header,
        counters: &CoreCounters,
    ) -> Result<Ingress<L::Frame>, Verdict> {
        match icmp::parse(frame.bytes(), ip)? {
            icmp::Message::Error(error) => Ok(Ingress::IcmpError(error)),
            icmp::Message::Echo => {
                if ip.total > usize::from(self.mtu) {
                    return Err(Verdict::IcmpInvalid);
                }
                if !self.icmp_rate.take(now) {
                    return Err(Verdict::IcmpRate);
                }
                let len = icmp::turn_echo(frame.bytes_mut(), ip).ok_or(Verdict::IcmpInvalid)?;
                if !frame.set_len(len) {
                    return Err(Verdict::IcmpInvalid);
                }
                self.consumed += 1;
                counters.icmp_echo_replies.add(1);
                self.resolve(now, frame, ip.source.into(), TxChecksum::Complete, counters, true);
                Ok(Ingress::Done)
            }
        }
    }

    /// Tells the sender of the packet in `frame` that nobody here speaks its protocol, unless too many were told lately.
    #[cold]
    fn refuse(&mut self, now: Instant, frame: &[u8], ip: &ipv4::Header, code: u8, counters: &CoreCounters) {
        let len = icmp::unreachable_len(ip);
        if !self.icmp_rate.take(now) {
            return;
        }
        let (Some(mut reply), Some(refused)) = (self.packet(len), frame.get(ETHERNET..)) else {
            return;
        };
        let packet = reply.bytes_mut().get_mut(ETHERNET..);
        if packet.and_then(|packet| icmp::write_unreachable(packet, code, refused, ip)).is_some() {
            counters.icmp_errors.add(1);
            self.resolve(now, reply, ip.source.into(), TxChecksum::Complete, counters, true);
        }
    }

    #[cold]
    fn arp(&mut self, now: Instant, packet: &arp::Packet, counters: &CoreCounters) -> Result<(), Verdict> {
        let (sender, target) = (IpAddr::V4(packet.sender), IpAddr::V4(packet.target));
        if packet.sender_mac == self.mac || self.owns(sender) {
            return Err(Verdict::ArpInvalid);
        }
        // A host that is about to take an address asks from 0.0.0.0 whether somebody has it (RFC 5227 §2.1.1).
        let probe = packet.request && packet.sender.is_unspecified();
        if !probe && !self.on_link(sender) {
            return Err(Verdict::ArpInvalid);
        }
        // What we asked for is bounded by our asking; everything else by the rate.
        let asked = !packet.request && self.neighbors.is_asked(sender);
        if !asked && !self.arp_rate.take(now) {
            return Err(Verdict::ArpRate);
        }
        if !self.owns(target) {
            if let Some(question) = self.neighbors.hinted(now, sender, packet.sender_mac) {
                self.ask(question, counters);
            }
            return Err(Verdict::IpDestination);
        }
        if packet.request {
            if !probe {
                self.neighbors.heard(now, sender, packet.sender_mac);
            }
            let reply = arp::Packet {
                request: false,
                sender_mac: self.mac,
                sender: packet.target,
                target_mac: packet.sender_mac,
                target: packet.sender,
            };
            if self.send_arp(&reply, packet.sender_mac) {
                counters.arp_replies.add(1);
            }
        } else if !self.neighbors.answered(now, sender, packet.sender_mac) {
            return Err(Verdict::ArpInvalid);
        }
        // Ends: nothing is added meanwhile, and few wait for one neighbor.
        while let Some(waiting) = self.neighbors.next_ready(sender) {
            self.emit(waiting.frame, packet.sender_mac, waiting.destination, waiting.checksum);
        }
        Ok(())
    }

    /// Sends to the next hop, or lets the frame wait for it. The Ethernet address that it went to, if it went.
    fn resolve(
        &mut self,
        now: Instant,
        frame: L::Frame,
        destination: IpAddr,
        checksum: TxChecksum,
        counters: &CoreCounters,
        stateless: bool,
    ) -> Option<[u8; 6]> {
        let Some(next_hop) = self.addresses.next_hop(destination) else {
            count(counters, Verdict::NoRoute);
            return None;
        };
        let (mac, question) = match self.neighbors.look_up(now, next_hop) {
            Some((mac, question)) => {
                self.emit(frame, mac, destination, checksum);
                (Some(mac), Ok(question))
            }
            None => (None, self.neighbors.wait(now, next_hop, frame, destination, checksum, stateless)),
        };
        match question {
            Ok(Some(question)) => self.ask(question, counters),
            Ok(None) => {}
            Err(verdict) => count(counters, verdict),
        }
        mac
    }

    /// Writes the Ethernet header and hands the frame to the lane.
    #[inline]
    fn emit(&mut self, mut frame: L::Frame, mac: [u8; 6], destination: IpAddr, checksum: TxChecksum) {
        let ethertype = if destination.is_ipv4() { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
        if let Some(header) = frame.bytes_mut().first_chunk_mut::<ETHERNET>() {
            header[..6].copy_from_slice(&mac);
            header[6..12].copy_from_slice(&self.mac);
            header[12..].copy_from_slice(&ethertype.to_be_bytes());
            self.lane.transmit(frame, checksum);
        }
    }

    fn ask(&mut self, question: Question, counters: &CoreCounters) {
        // The other family is asked by ND, which this port does not speak; its packets wait in vain and are counted.
        let (IpAddr::V4(target), Some(IpAddr::V4(sender))) =
            (question.address, self.addresses.source_for(question.address))
        else {
            return;
        };
        let request = arp::Packet { request: true, sender_mac: self.mac, sender, target_mac: [0; 6], target };
        if self.send_arp(&request, question.to.unwrap_or(BROADCAST)) {
            counters.arp_requests.add(1);
        }
    }

    fn send_arp(&mut self, packet: &arp::Packet, mac: [u8; 6]) -> bool {
        let Some(mut frame) = self.bare_packet(arp::Packet::LEN) else {
            return false;
        };
        let Some((header, rest)) = frame.bytes_mut().split_first_chunk_mut::<ETHERNET>() else {
            return false;
        };
        header[..6].copy_from_slice(&mac);
        header[6..12].copy_from_slice(&self.mac);
        header[12..].copy_from_slice(&ETHERTYPE_ARP.to_be_bytes());
        let written = packet.write(rest);
        if written {
            self.lane.transmit(frame, TxChecksum::Complete);
        }
        written
    }

    fn tick(&mut self, counters: &CoreCounters) {
        self.neighbors.age();
        let up = self.lane.link().up;
        if up && !self.link_up {
            self.announcements = ANNOUNCEMENTS;
        }
        self.link_up = up;
        if let Some(port) = counters.ports.get(self.index) {
            port.link_up.set(u64::from(up));
        }
        if up && self.announcements > 0 {
            self.announcements -= 1;
            let mut position = 0;
            while let Some(address) = self.addresses.v4(position) {
                self.announce(address, counters);
                position += 1;
            }
        }
    }

    /// Tells everybody where `address` is (RFC 5227 §2.3).
    fn announce(&mut self, address: Ipv4Addr, counters: &CoreCounters) {
        let packet =
            arp::Packet { request: true, sender_mac: self.mac, sender: address, target_mac: [0; 6], target: address };
        if self.send_arp(&packet, BROADCAST) {
            counters.arp_requests.add(1);
        }
    }
}

const UDP: u8 = 17;

#[inline]
fn count(counters: &CoreCounters, verdict: Verdict) {
    counters.drops[verdict as usize].add(1);
}

#[cfg(test)]
mod tests;
