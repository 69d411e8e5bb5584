//! One interface of a port: its addresses, routes and neighbors, on untagged frames or in one VLAN.
//!
//! Owned by the port, which lends it the lane. Interfaces of a port share the lane and nothing else: what one learns, another does not know.

use core::net::{IpAddr, Ipv4Addr};
use core::num::NonZeroU16;

use arrayvec::ArrayVec;
use pmd::{Frame, Lane, TxChecksum};
use tables::{CoreCounters, InterfaceSettings, TcpSettings, Verdict};

use super::addresses::Addresses;
use super::ethernet::{self, BROADCAST, Label, Link};
use super::ipv4::ETHERNET;
use super::nd::{Host, ROUTERS};
use super::neighbors::{MAINTAIN_STEPS, Neighbors, Pin, Question};
use super::rate::TokenBucket;
use super::routes::{Routes, flow_of};
use super::{arp, count, ipv6};
use crate::clock::Instant;

/// Announcements of our addresses when the link comes up (RFC 5227 §2.3: ANNOUNCE_NUM).
pub(super) const ANNOUNCEMENTS: u8 = 2;

/// One interface of a port.
#[derive(Debug)]
pub(super) struct Interface<F> {
    /// `None` for untagged frames.
    pub(super) vlan: Option<NonZeroU16>,
    /// The largest IP packet, in bytes.
    pub(super) mtu: u16,
    pub(super) addresses: Addresses,
    pub(super) routes: Routes,
    pub(super) neighbors: Neighbors<F>,
    /// What it is in IPv6; `None` where it is nothing.
    pub(super) host: Option<Host>,
    pub(super) nd_rate: TokenBucket,
    arp_rate: TokenBucket,
    announcements: u8,
}

/// A packet that leaves.
pub(super) struct Departure<F> {
    pub(super) frame: F,
    pub(super) destination: IpAddr,
    pub(super) checksum: TxChecksum,
    /// It needs no connection: an answer that anybody can provoke.
    pub(super) stateless: bool,
}

impl<F: Frame> Interface<F> {
    /// An interface of a port with the address `mac` whose device carries IP packets of `mtu` bytes.
    pub(super) fn new(settings: &InterfaceSettings, mac: [u8; 6], mtu: u16, tcp: &TcpSettings) -> Self {
        let routes = Routes::new(&settings.routes);
        let mut pins = routes.next_hops().to_vec();
        if settings.router_discovery {
            pins.extend([Pin { address: None, watched: false }; ROUTERS]);
        }
        Self {
            vlan: settings.vlan.and_then(NonZeroU16::new),
            mtu: settings.mtu.unwrap_or(u16::MAX).min(mtu),
            addresses: Addresses::new(&settings.addresses),
            neighbors: Neighbors::new(tcp.neighbors as usize, tcp.neighbor_queue, &pins),
            host: Host::new(settings, mac),
            routes,
            nd_rate: TokenBucket::new(tcp.arp_per_second),
            arp_rate: TokenBucket::new(tcp.arp_per_second),
            announcements: 0,
        }
    }

    /// The largest IP packet of `address`'s family.
    pub(super) fn mtu_for(&self, address: IpAddr) -> u16 {
        let learned = self.host.as_ref().and_then(Host::mtu).filter(|_| address.is_ipv6());
        learned.unwrap_or(u16::MAX).min(self.mtu)
    }

    pub(super) fn owns(&self, address: IpAddr) -> bool {
        self.addresses.owns(address)
    }

    /// Whether `address` is another host that needs no router.
    pub(super) fn on_link(&self, address: IpAddr) -> bool {
        let near = self.addresses.contain(address)
            || self.routes.is_next_hop(address)
            || matches!((address, &self.host), (IpAddr::V6(address), Some(host)) if host.on_link(address));
        near && self.addresses.is_unicast(address) && !self.owns(address)
    }

    /// How well the interface leads to `destination`: the longer the prefix the better, and best where it needs no router. `None` where
    /// it does not lead there, or has no address of the destination's family.
    pub(super) fn preference(&self, destination: IpAddr) -> Option<u16> {
        self.source_for(destination)?;
        if self.on_link(destination) {
            return Some(u16::MAX);
        }
        // Routers that were learned come after those that were configured.
        Some(self.routes.prefix_len(destination).map_or(0, |len| u16::from(len) + 1))
    }

    /// Our address to use towards `destination`; `None` where it cannot be reached.
    pub(super) fn source_for(&self, destination: IpAddr) -> Option<IpAddr> {
        let hop = self.next_hop(destination, || 0)?;
        self.addresses.source_for(destination, hop)
    }

    /// Who takes packets of a flow to `destination`.
    pub(super) fn next_hop(&self, destination: IpAddr, flow: impl FnOnce() -> u64) -> Option<IpAddr> {
        if self.on_link(destination) {
            return Some(destination);
        }
        let local = matches!(destination, IpAddr::V6(address) if ipv6::is_link_local(address));
        if local || !self.addresses.is_unicast(destination) || self.owns(destination) {
            return None;
        }
        let is_dead = |hop| self.neighbors.is_dead(hop);
        let learned = || self.host.as_ref().filter(|_| destination.is_ipv6())?.default_router(is_dead);
        self.routes.next_hop(destination, flow, is_dead).or_else(learned)
    }

    /// Sends to the next hop, or lets the frame wait for it. The Ethernet address that it went to, if it went.
    pub(super) fn resolve<L: Lane<Frame = F>>(
        &mut self,
        now: Instant,
        link: &mut Link<L>,
        departure: Departure<F>,
        counters: &CoreCounters,
    ) -> Option<[u8; 6]> {
        let Departure { frame, destination, checksum, stateless } = departure;
        let flow = || flow_of(frame.bytes().get(ETHERNET..).unwrap_or_default());
        let Some(next_hop) = self.next_hop(destination, flow) else {
            count(counters, Verdict::NoRoute);
            return None;
        };
        let (mac, question) = match self.neighbors.look_up(now, next_hop) {
            Some((mac, question)) => {
                link.emit(frame, self.label(mac, destination), checksum);
                (Some(mac), Ok(question))
            }
            None => (None, self.neighbors.wait(now, next_hop, frame, destination, checksum, stateless)),
        };
        match question {
            Ok(Some(question)) => self.ask(link, question, counters),
            Ok(None) => {}
            Err(verdict) => count(counters, verdict),
        }
        mac
    }

    /// The Ethernet header of an IP packet to `destination` by way of `to`.
    #[inline]
    pub(super) fn label(&self, to: [u8; 6], destination: IpAddr) -> Label {
        let ethertype = if destination.is_ipv4() { ethernet::IPV4 } else { ethernet::IPV6 };
        Label { to, vlan: self.vlan, ethertype }
    }

    /// Sends what waited for `address`, which is at `mac`.
    pub(super) fn release<L: Lane<Frame = F>>(&mut self, link: &mut Link<L>, address: IpAddr, mac: [u8; 6]) {
        // Ends: nothing is added meanwhile, and few wait for one neighbor.
        while let Some(waiting) = self.neighbors.next_ready(address) {
            link.emit(waiting.frame, self.label(mac, waiting.destination), waiting.checksum);
        }
    }

    /// Asks neighbors again, gives up those that stay silent and forgets those that nobody used.
    pub(super) fn maintain<L: Lane<Frame = F>>(&mut self, now: Instant, link: &mut Link<L>, counters: &CoreCounters) {
        let mut questions = ArrayVec::<Question, MAINTAIN_STEPS>::new();
        self.neighbors.maintain(now, &mut questions, counters);
        for question in questions {
            self.ask(link, question, counters);
        }
    }

    /// What is done once a second while the link is up; `came_up` says that it was not a second ago.
    pub(super) fn tick<L: Lane<Frame = F>>(
        &mut self,
        now: Instant,
        link: &mut Link<L>,
        came_up: bool,
        counters: &CoreCounters,
    ) {
        if came_up {
            self.announcements = ANNOUNCEMENTS;
            self.neighbors.watch(now);
        }
        if self.announcements > 0 {
            self.announcements -= 1;
            let mut position = 0;
            while let Some(address) = self.addresses.v4(position) {
                self.announce(link, address, counters);
                position += 1;
            }
        }
        self.tick_v6(now, link, came_up, counters);
    }

    /// Asks a neighbor by ARP or by Neighbor Discovery.
    pub(super) fn ask<L: Lane<Frame = F>>(&mut self, link: &mut Link<L>, question: Question, counters: &CoreCounters) {
        let target = match question.address {
            IpAddr::V4(target) => target,
            IpAddr::V6(target) => return self.solicit(link, target, question.to, counters),
        };
        let Some(IpAddr::V4(sender)) = self.addresses.source_for(question.address, question.address) else { return };
        let request = arp::Packet { request: true, sender_mac: link.mac, sender, target_mac: [0; 6], target };
        if self.send_arp(link, &request, question.to.unwrap_or(BROADCAST)) {
            counters.arp_requests.add(1);
        }
    }

    /// Takes an ARP packet.
    #[cold]
    pub(super) fn arp<L: Lane<Frame = F>>(
        &mut self,
        now: Instant,
        link: &mut Link<L>,
        packet: &arp::Packet,
        counters: &CoreCounters,
    ) -> Result<(), Verdict> {
        let (sender, target) = (IpAddr::V4(packet.sender), IpAddr::V4(packet.target));
        if packet.sender_mac == link.mac || self.owns(sender) {
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
                self.ask(link, question, counters);
            }
            return Err(Verdict::IpDestination);
        }
        if packet.request {
            if !probe {
                self.neighbors.heard(now, sender, packet.sender_mac);
            }
            let reply = arp::Packet {
                request: false,
                sender_mac: link.mac,
                sender: packet.target,
                target_mac: packet.sender_mac,
                target: packet.sender,
            };
            if self.send_arp(link, &reply, packet.sender_mac) {
                counters.arp_replies.add(1);
            }
        } else if !self.neighbors.answered(now, sender, packet.sender_mac) {
            return Err(Verdict::ArpInvalid);
        }
        self.release(link, sender, packet.sender_mac);
        Ok(())
    }

    /// Tells everybody where `address` is (RFC 5227 §2.3).
    fn announce<L: Lane<Frame = F>>(&mut self, link: &mut Link<L>, address: Ipv4Addr, counters: &CoreCounters) {
        let packet =
            arp::Packet { request: true, sender_mac: link.mac, sender: address, target_mac: [0; 6], target: address };
        if self.send_arp(link, &packet, BROADCAST) {
            counters.arp_requests.add(1);
        }
    }

    fn send_arp<L: Lane<Frame = F>>(&self, link: &mut Link<L>, packet: &arp::Packet, to: [u8; 6]) -> bool {
        let Some(mut frame) = link.bare_packet(arp::Packet::LEN) else {
            return false;
        };
        let label = Label { to, vlan: self.vlan, ethertype: ethernet::ARP };
        let written = frame.bytes_mut().get_mut(ETHERNET..).is_some_and(|bytes| packet.write(bytes));
        written && link.emit(frame, label, TxChecksum::Complete)
    }
}
