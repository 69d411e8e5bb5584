//! ICMPv6 (RFC 4443): echo replies, the errors that a host owes, and errors about our own segments.

use core::net::Ipv6Addr;

use pmd::checksum;
use tables::Verdict;

use super::icmp::{IcmpError, IcmpErrorKind};
use super::ipv4::{self, ETHERNET};
use super::ipv6::{self, HEADER, LEAST_MTU, Problem};
use crate::flow::FlowKey;

/// Bytes of an ICMPv6 header, with the four that depend on the type.
pub(super) const ICMP_HEADER: usize = 8;

/// An error quotes as much of the packet as makes it no larger than the least MTU (RFC 4443 §2.4 (c)).
const QUOTED: usize = LEAST_MTU as usize - HEADER - ICMP_HEADER;

/// Types of Neighbor Discovery and of Multicast Listener Discovery.
pub(super) const LISTENER_QUERY: u8 = 130;
pub(super) const ROUTER_SOLICITATION: u8 = 133;
pub(super) const ROUTER_ADVERTISEMENT: u8 = 134;
pub(super) const NEIGHBOR_SOLICITATION: u8 = 135;
pub(super) const NEIGHBOR_ADVERTISEMENT: u8 = 136;
pub(super) const LISTENER_REPORT_V2: u8 = 143;

/// An error that we send.
#[derive(Debug, Clone, Copy)]
pub(super) enum Complaint {
    /// Nobody listens on that UDP port.
    PortUnreachable,
    /// Something in the headers.
    Parameter(Problem),
}

/// What an ICMPv6 message asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message {
    Echo,
    Error(IcmpError),
    /// Neighbor Discovery or Multicast Listener Discovery, by its type.
    Link(u8),
}

/// Reads the message in `frame`, whose IPv6 header is `ip`.
pub(super) fn parse(frame: &[u8], ip: &ipv6::Header) -> Result<Message, Verdict> {
    let message = frame.get(ETHERNET + ip.len..ETHERNET + ip.total).ok_or(Verdict::Truncated)?;
    let header = message.first_chunk::<ICMP_HEADER>().ok_or(Verdict::IcmpInvalid)?;
    if sum(ip.source, ip.destination, message) != 0xffff {
        return Err(Verdict::IcmpInvalid);
    }
    match header[0] {
        128 => Ok(Message::Echo),
        // Unreachable, too big, time exceeded, parameter problem.
        kind @ 1..=4 => {
            let (key, seq) = parse_quoted(&message[ICMP_HEADER..], ip.destination)?;
            let kind = if kind == 2 {
                let mtu = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
                // RFC 8201 §4: less than the least MTU is no path's.
                if mtu < u32::from(LEAST_MTU) {
                    return Err(Verdict::IcmpInvalid);
                }
                IcmpErrorKind::FragmentationNeeded { mtu: u16::try_from(mtu).unwrap_or(u16::MAX) }
            } else {
                IcmpErrorKind::Unreachable { code: if kind == 1 { header[1] } else { 0 } }
            };
            Ok(Message::Error(IcmpError { key, seq, kind }))
        }
        kind @ (LISTENER_QUERY | ROUTER_ADVERTISEMENT | NEIGHBOR_SOLICITATION | NEIGHBOR_ADVERTISEMENT) => {
            Ok(Message::Link(kind))
        }
        _ => Err(Verdict::IcmpUnrelated),
    }
}

/// Connection and sequence number of a quoted segment, which must be one that `local` sent. Ours have no extension headers.
fn parse_quoted(packet: &[u8], local: Ipv6Addr) -> Result<(FlowKey, u32), Verdict> {
    let (header, rest) = packet.split_first_chunk::<HEADER>().ok_or(Verdict::IcmpInvalid)?;
    if header[0] >> 4 != 6 {
        return Err(Verdict::IcmpInvalid);
    }
    let (_, addresses) = header.split_at(8);
    let (Some(source), Some(destination)) = (addresses.first_chunk::<16>(), addresses.last_chunk::<16>()) else {
        return Err(Verdict::IcmpInvalid);
    };
    let (source, destination) = (Ipv6Addr::from(*source), Ipv6Addr::from(*destination));
    if header[6] != ipv4::TCP || source != local || !ipv6::is_unicast(destination) {
        return Err(Verdict::IcmpUnrelated);
    }
    let tcp = rest.first_chunk::<8>().ok_or(Verdict::IcmpInvalid)?;
    let local_port = u16::from_be_bytes([tcp[0], tcp[1]]);
    let remote_port = u16::from_be_bytes([tcp[2], tcp[3]]);
    let seq = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
    Ok((FlowKey::v6(source, local_port, destination, remote_port), seq))
}

/// Makes an echo request its own reply, in place and without extension headers. Returns the frame's new length.
pub(super) fn turn_echo(frame: &mut [u8], ip: &ipv6::Header) -> Option<usize> {
    let message = ETHERNET + ip.len..ETHERNET + ip.total;
    let end = ETHERNET + HEADER + message.len();
    frame.get(message.clone())?;
    frame.copy_within(message, ETHERNET + HEADER);
    let packet = frame.get_mut(ETHERNET..end)?;
    if !ipv6::write(packet, ipv6::ICMP, ipv6::HOPS, ip.destination, ip.source) {
        return None;
    }
    *packet.get_mut(HEADER)? = 129;
    finish(packet)?;
    Some(end)
}

/// Bytes of the IP packet that [`write_error`] makes of a packet of `total` bytes.
pub(super) fn error_len(total: usize) -> usize {
    HEADER + ICMP_HEADER + total.min(QUOTED)
}

/// Writes an error about `refused`, an IP packet with header `ip`, from `source`.
pub(super) fn write_error(
    packet: &mut [u8],
    complaint: Complaint,
    refused: &[u8],
    ip: &ipv6::Header,
    source: Ipv6Addr,
) -> Option<()> {
    if !ipv6::write(packet, ipv6::ICMP, ipv6::HOPS, source, ip.source) {
        return None;
    }
    let (header, quote) = packet.get_mut(HEADER..)?.split_first_chunk_mut::<ICMP_HEADER>()?;
    let (kind, code, value) = match complaint {
        Complaint::PortUnreachable => (1, 4, 0),
        Complaint::Parameter(problem) => (4, problem.code, problem.pointer),
    };
    let [a, b, c, d] = value.to_be_bytes();
    *header = [kind, code, 0, 0, a, b, c, d];
    quote.copy_from_slice(refused.get(..quote.len())?);
    finish(packet)
}

/// Fills the checksum of an ICMPv6 packet without extension headers.
pub(super) fn finish(packet: &mut [u8]) -> Option<()> {
    let (header, message) = packet.split_at_mut_checked(HEADER)?;
    fill(header, message)
}

/// Fills the checksum of `message` below `header`, whose addresses count.
pub(super) fn fill(header: &[u8], message: &mut [u8]) -> Option<()> {
    message.get_mut(2..4)?.fill(0);
    let len = u16::try_from(message.len()).ok()?;
    let seed = checksum::pseudo_header(header.get(8..HEADER)?, ipv6::ICMP, len);
    let value = !checksum::sum(seed, message);
    message.get_mut(2..4)?.copy_from_slice(&value.to_be_bytes());
    Some(())
}

/// The sum over a message and its pseudo header (RFC 8200 §8.1): all ones where its checksum is right.
fn sum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let mut addresses = [0; 32];
    let (first, second) = addresses.split_at_mut(16);
    first.copy_from_slice(&source.octets());
    second.copy_from_slice(&destination.octets());
    // It fits: an IPv6 payload has at most 65,535 bytes.
    checksum::sum(checksum::pseudo_header(&addresses, ipv6::ICMP, message.len() as u16), message)
}
