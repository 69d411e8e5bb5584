//! Frames on their way in: what each one is, and who may have sent it.

use core::net::Ipv6Addr;

use pmd::{Frame, Lane, TxChecksum};
use tables::{CoreCounters, Verdict};

use super::ethernet::{self, BROADCAST};
use super::icmpv6::{self, Complaint};
use super::interface::Departure;
use super::ipv4::{self, ETHERNET};
use super::ipv6::{self, Problem};
use super::{Ingress, Port, arp, icmp, segment};
use crate::clock::Instant;

const CODE_PROTOCOL_UNREACHABLE: u8 = 2;
const CODE_PORT_UNREACHABLE: u8 = 3;

impl<L: Lane> Port<L> {
    #[inline]
    pub(super) fn classify(
        &mut self,
        now: Instant,
        mut frame: L::Frame,
        counters: &CoreCounters,
    ) -> Result<Ingress<L::Frame>, Verdict> {
        let header = frame.bytes().first_chunk::<ETHERNET>().ok_or(Verdict::Truncated)?;
        let to_us = header[..6] == self.link.mac;
        let to_group = header[..2] == [0x33, 0x33];
        if !to_us && !to_group && header[..6] != BROADCAST {
            return Err(Verdict::NotOurMac);
        }
        let mut ethertype = u16::from_be_bytes([header[12], header[13]]);
        let mut index = 0;
        if ethertype == ethernet::VLAN {
            (index, ethertype) = self.interface_for(&mut frame)?;
        }
        match ethertype {
            ethernet::IPV4 if !to_group => self.ipv4(now, index, frame, to_us, counters),
            ethernet::IPV6 => self.ipv6(now, index, frame, to_us, counters),
            ethernet::ARP if !to_group => {
                let packet = arp::Packet::parse(frame.bytes().get(ETHERNET..).unwrap_or_default())?;
                drop(frame);
                let interface = self.interfaces.get_mut(index).ok_or(Verdict::Vlan)?;
                let result = interface.arp(now, &mut self.link, &packet, counters);
                self.renew();
                result?;
                self.consumed += 1;
                Ok(Ingress::Done)
            }
            ethernet::IPV4 | ethernet::ARP => Err(Verdict::NotOurMac),
            0x88a8 | 0x9100 => Err(Verdict::Vlan),
            _ => Err(Verdict::EtherType),
        }
    }

    /// The interface that a frame belongs to, and what the frame carries; its tag is gone then.
    fn interface_for(&self, frame: &mut L::Frame) -> Result<(usize, u16), Verdict> {
        let ethertype = |frame: &L::Frame| {
            let field = frame.bytes().get(12..).and_then(|bytes| bytes.first_chunk::<2>());
            field.map(|field| u16::from_be_bytes(*field)).ok_or(Verdict::Truncated)
        };
        let mut vlan = 0;
        if ethertype(frame)? == ethernet::VLAN {
            vlan = ethernet::untag(frame).ok_or(Verdict::Truncated)?;
        }
        let is_it = |v: Option<core::num::NonZeroU16>| v.map_or(0, core::num::NonZeroU16::get) == vlan;
        let index = self.interfaces.iter().position(|interface| is_it(interface.vlan)).ok_or(Verdict::Vlan)?;
        match ethertype(frame)? {
            ethernet::VLAN => Err(Verdict::Vlan),
            carried => Ok((index, carried)),
        }
    }

    #[inline]
    fn ipv4(
        &mut self,
        now: Instant,
        index: usize,
        frame: L::Frame,
        to_us: bool,
        counters: &CoreCounters,
    ) -> Result<Ingress<L::Frame>, Verdict> {
        let bytes = frame.bytes();
        let seen = frame.rx_checksum();
        let ip = ipv4::parse(bytes.get(ETHERNET..).unwrap_or_default(), seen)?;
        self.admit_v4(index, &ip, to_us)?;
        match ip.protocol {
            ipv4::TCP => {
                let mut segment = segment::parse_v4(bytes, &ip, seen)?;
                // Ports have fewer interfaces than that.
                segment.interface = index as u8;
                Ok(Ingress::Segment(frame, segment))
            }
            ipv4::ICMP => self.icmp(now, index, frame, &ip, counters),
            protocol => {
                let code = if protocol == ipv4::UDP { CODE_PORT_UNREACHABLE } else { CODE_PROTOCOL_UNREACHABLE };
                self.refuse(now, index, bytes, &ip, code, counters);
                Err(Verdict::IpProtocol)
            }
        }
    }

    /// Whether a packet with this header may be looked at: from somebody who can exist, to us, whole.
    #[inline]
    fn admit_v4(&self, index: usize, ip: &ipv4::Header, to_us: bool) -> Result<(), Verdict> {
        let addresses = &self.interfaces.get(index).ok_or(Verdict::IpDestination)?.addresses;
        if ip.source == ip.destination {
            return Err(Verdict::Land);
        }
        if !addresses.is_unicast_v4(ip.source) || addresses.owns_v4(ip.source) {
            return Err(Verdict::IpSource);
        }
        if !addresses.owns_v4(ip.destination) {
            return Err(Verdict::IpDestination);
        }
        // To our IP address, but by Ethernet to everybody (RFC 1122 §3.3.6).
        if !to_us {
            return Err(Verdict::NotOurMac);
        }
        if ip.fragment { Err(Verdict::Fragment) } else { Ok(()) }
    }

    #[inline]
    fn ipv6(
        &mut self,
        now: Instant,
        index: usize,
        mut frame: L::Frame,
        to_us: bool,
        counters: &CoreCounters,
    ) -> Result<Ingress<L::Frame>, Verdict> {
        let ip = ipv6::parse(frame.bytes().get(ETHERNET..).unwrap_or_default())?;
        let to_group = self.admit_v6(index, &frame, &ip, to_us)?;
        if let Some(objection) = ip.objection {
            if let Some(problem) = objection.problem {
                self.complain(now, index, frame.bytes(), &ip, Complaint::Parameter(problem), counters);
            }
            return Err(objection.verdict);
        }
        match ip.protocol {
            ipv4::TCP if to_group => Err(Verdict::IpDestination),
            ipv4::TCP => {
                let seen = frame.rx_checksum();
                let at = ipv6::collapse(frame.bytes_mut(), &ip);
                let mut segment = segment::parse_v6(frame.bytes(), &ip, at, seen)?;
                segment.interface = index as u8;
                Ok(Ingress::Segment(frame, segment))
            }
            ipv6::ICMP => self.icmpv6(now, index, frame, &ip, to_group, counters),
            ipv6::NO_NEXT => Err(Verdict::IpProtocol),
            protocol => {
                let complaint = if protocol == ipv4::UDP {
                    Complaint::PortUnreachable
                } else {
                    let pointer = ip.protocol_at as u32;
                    let code = ipv6::UNRECOGNIZED_NEXT_HEADER;
                    Complaint::Parameter(Problem { code, pointer, even_to_group: false })
                };
                self.complain(now, index, frame.bytes(), &ip, complaint, counters);
                Err(Verdict::IpProtocol)
            }
        }
    }

    /// Whether a packet with this header may be looked at: from somebody who can exist, and to us, alone or in a group. Says which.
    #[inline]
    fn admit_v6(&self, index: usize, frame: &L::Frame, ip: &ipv6::Header, to_us: bool) -> Result<bool, Verdict> {
        let interface = self.interfaces.get(index).ok_or(Verdict::IpDestination)?;
        let addresses = &interface.addresses;
        if ip.source == ip.destination {
            return Err(Verdict::Land);
        }
        if to_us && addresses.owns_v6(ip.destination) {
            let someone = ipv6::is_unicast(ip.source) && !addresses.owns_v6(ip.source);
            return if someone { Ok(false) } else { Err(Verdict::IpSource) };
        }
        let host = interface.host.as_ref().ok_or(Verdict::Ipv6)?;
        if !ip.destination.is_multicast() {
            // To our IP address, but by Ethernet to others.
            let ours = addresses.owns_v6(ip.destination);
            return Err(if ours { Verdict::NotOurMac } else { Verdict::IpDestination });
        }
        if !host.listens(ip.destination) {
            return Err(Verdict::IpDestination);
        }
        // Who is about to take an address has none.
        let someone = (ip.source.is_unspecified() || ipv6::is_unicast(ip.source)) && !addresses.owns_v6(ip.source);
        if !someone {
            return Err(Verdict::IpSource);
        }
        let mac = ipv6::group_mac(ip.destination);
        if frame.bytes().get(..6) == Some(&mac[..]) { Ok(true) } else { Err(Verdict::NotOurMac) }
    }

    #[cold]
    fn icmp(
        &mut self,
        now: Instant,
        index: usize,
        mut frame: L::Frame,
        ip: &ipv4::Header,
        counters: &CoreCounters,
    ) -> Result<Ingress<L::Frame>, Verdict> {
        match icmp::parse(frame.bytes(), ip)? {
            icmp::Message::Error(error) => Ok(Ingress::IcmpError(error)),
            icmp::Message::Echo => {
                self.admit_echo(now, index, ip.total)?;
                let len = icmp::turn_echo(frame.bytes_mut(), ip).ok_or(Verdict::IcmpInvalid)?;
                if !frame.set_len(len) {
                    return Err(Verdict::IcmpInvalid);
                }
                self.consumed += 1;
                counters.icmp_echo_replies.add(1);
                self.answer(now, index, frame, ip.source.into(), counters);
                Ok(Ingress::Done)
            }
        }
    }

    #[cold]
    fn icmpv6(
        &mut self,
        now: Instant,
        index: usize,
        mut frame: L::Frame,
        ip: &ipv6::Header,
        to_group: bool,
        counters: &CoreCounters,
    ) -> Result<Ingress<L::Frame>, Verdict> {
        match icmpv6::parse(frame.bytes(), ip)? {
            icmpv6::Message::Link(kind) => {
                let interface = self.interfaces.get_mut(index).ok_or(Verdict::IpDestination)?;
                let result = interface.nd(now, &mut self.link, frame.bytes(), ip, kind, counters);
                self.renew();
                result?;
                self.consumed += 1;
                Ok(Ingress::Done)
            }
            // One question to a group would be answered by all of it.
            _ if to_group => Err(Verdict::IpDestination),
            icmpv6::Message::Error(error) => Ok(Ingress::IcmpError(error)),
            icmpv6::Message::Echo => {
                self.admit_echo(now, index, ip.total)?;
                let len = icmpv6::turn_echo(frame.bytes_mut(), ip).ok_or(Verdict::IcmpInvalid)?;
                if !frame.set_len(len) {
                    return Err(Verdict::IcmpInvalid);
                }
                self.consumed += 1;
                counters.icmp_echo_replies.add(1);
                self.answer(now, index, frame, ip.source.into(), counters);
                Ok(Ingress::Done)
            }
        }
    }

    /// Whether an echo request of `total` bytes may be answered.
    fn admit_echo(&mut self, now: Instant, index: usize, total: usize) -> Result<(), Verdict> {
        if self.interfaces.get(index).is_none_or(|interface| total > usize::from(interface.mtu)) {
            return Err(Verdict::IcmpInvalid);
        }
        if self.icmp_rate.take(now) { Ok(()) } else { Err(Verdict::IcmpRate) }
    }

    /// Sends what anybody can provoke, by the interface that it was provoked on.
    fn answer(
        &mut self,
        now: Instant,
        index: usize,
        frame: L::Frame,
        destination: core::net::IpAddr,
        counters: &CoreCounters,
    ) {
        let departure = Departure { frame, destination, checksum: TxChecksum::Complete, stateless: true };
        self.resolve(now, index, departure, counters);
    }

    /// Tells the sender of the packet in `frame` that nobody here speaks its protocol, unless too many were told lately.
    #[cold]
    fn refuse(
        &mut self,
        now: Instant,
        index: usize,
        frame: &[u8],
        ip: &ipv4::Header,
        code: u8,
        counters: &CoreCounters,
    ) {
        let len = icmp::unreachable_len(ip);
        if !self.icmp_rate.take(now) {
            return counters.icmp_errors_withheld.add(1);
        }
        let (Some(mut reply), Some(refused)) = (self.packet(len), frame.get(ETHERNET..)) else {
            return;
        };
        let packet = reply.bytes_mut().get_mut(ETHERNET..);
        if packet.and_then(|packet| icmp::write_unreachable(packet, code, refused, ip)).is_some() {
            counters.icmp_errors.add(1);
            self.answer(now, index, reply, ip.source.into(), counters);
        }
    }

    /// Tells the sender of the IPv6 packet in `frame` what is wrong with it (RFC 4443 §2.4), unless too many were told lately.
    #[cold]
    fn complain(
        &mut self,
        now: Instant,
        index: usize,
        frame: &[u8],
        ip: &ipv6::Header,
        complaint: Complaint,
        counters: &CoreCounters,
    ) {
        let Some(interface) = self.interfaces.get(index) else { return };
        let to_group = ip.destination.is_multicast();
        let even_to_group = matches!(complaint, Complaint::Parameter(Problem { even_to_group: true, .. }));
        let source = if to_group { source_towards(interface, ip.source) } else { Some(ip.destination) };
        let Some(source) = source else { return };
        if !ipv6::is_unicast(ip.source) || (to_group && !even_to_group) {
            return;
        }
        if !self.icmp_rate.take(now) {
            return counters.icmp_errors_withheld.add(1);
        }
        let (Some(mut reply), Some(refused)) = (self.packet(icmpv6::error_len(ip.total)), frame.get(ETHERNET..)) else {
            return;
        };
        let packet = reply.bytes_mut().get_mut(ETHERNET..);
        if packet.and_then(|packet| icmpv6::write_error(packet, complaint, refused, ip, source)).is_some() {
            counters.icmp_errors.add(1);
            self.answer(now, index, reply, ip.source.into(), counters);
        }
    }
}

/// Our address towards the sender of what went to a group.
fn source_towards<F: Frame>(interface: &super::interface::Interface<F>, sender: Ipv6Addr) -> Option<Ipv6Addr> {
    match interface.source_for(sender.into())? {
        core::net::IpAddr::V6(source) => Some(source),
        core::net::IpAddr::V4(_) => None,
    }
}
