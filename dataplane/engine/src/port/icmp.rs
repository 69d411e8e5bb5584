//! ICMP (RFC 792): echo replies, the two errors that a host owes, and errors about our own segments.

use core::net::Ipv4Addr;

use pmd::checksum;
use tables::Verdict;

use super::ipv4::{self, ETHERNET, HEADER};
use crate::flow::FlowKey;

/// Bytes of an ICMP header.
const ICMP_HEADER: usize = 8;

/// Bytes of the refused packet that an error quotes behind its IP header (RFC 792). Not more, so that an error is never much
/// larger than what provoked it.
const QUOTED: usize = 8;

/// What a router or host says about a segment of ours. Anybody can forge one who guesses the connection, so that the
/// connection checks the sequence number (RFC 5927 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IcmpError {
    /// The connection; its local end is us.
    pub key: FlowKey,
    /// Sequence number of the segment that did not arrive.
    pub seq: u32,
    /// What happened to it.
    pub kind: IcmpErrorKind,
}

/// What an [`IcmpError`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IcmpErrorKind {
    /// It could not be delivered (type 3). Time exceeded and parameter problem come as code 0: soft errors like it
    /// (RFC 1122 §4.2.3.9).
    Unreachable {
        /// The ICMP code.
        code: u8,
    },
    /// It was too large (type 3, code 4).
    FragmentationNeeded {
        /// The next hop's MTU as the router says; where it does not, the next smaller plateau (RFC 1191 §7.1). No floor is applied.
        mtu: u16,
    },
}

/// What an ICMP message for us asks for.
#[derive(Debug)]
pub(super) enum Message {
    Echo,
    Error(IcmpError),
}

/// Reads the message in `frame`, whose IPv4 header is valid and `ip`.
pub(super) fn parse(frame: &[u8], ip: &ipv4::Header) -> Result<Message, Verdict> {
    let message = frame.get(ETHERNET + ip.len..ETHERNET + ip.total).ok_or(Verdict::Truncated)?;
    let header = message.first_chunk::<ICMP_HEADER>().ok_or(Verdict::IcmpInvalid)?;
    if checksum::sum(0, message) != 0xffff {
        return Err(Verdict::IcmpInvalid);
    }
    let (kind, code) = (header[0], header[1]);
    match kind {
        8 => Ok(Message::Echo),
        3 | 11 | 12 => {
            let (quoted, key, seq) = parse_quoted(&message[ICMP_HEADER..], ip.destination)?;
            let kind = match (kind, code) {
                (3, 4) => {
                    let mtu = u16::from_be_bytes([header[6], header[7]]);
                    IcmpErrorKind::FragmentationNeeded { mtu: if mtu == 0 { plateau_below(quoted) } else { mtu } }
                }
                (3, code) => IcmpErrorKind::Unreachable { code },
                _ => IcmpErrorKind::Unreachable { code: 0 },
            };
            Ok(Message::Error(IcmpError { key, seq, kind }))
        }
        _ => Err(Verdict::IcmpUnrelated),
    }
}

/// Total length, connection and sequence number of a quoted segment, which must be one that `local` sent.
fn parse_quoted(packet: &[u8], local: Ipv4Addr) -> Result<(u16, FlowKey, u32), Verdict> {
    let header = packet.first_chunk::<HEADER>().ok_or(Verdict::IcmpInvalid)?;
    let len = usize::from(header[0] & 0x0f) * 4;
    if header[0] >> 4 != 4 || len < HEADER {
        return Err(Verdict::IcmpInvalid);
    }
    let source = Ipv4Addr::new(header[12], header[13], header[14], header[15]);
    let destination = Ipv4Addr::new(header[16], header[17], header[18], header[19]);
    let offset = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
    if header[9] != ipv4::TCP || source != local || offset != 0 {
        return Err(Verdict::IcmpUnrelated);
    }
    let tcp = packet.get(len..).and_then(|tcp| tcp.first_chunk::<8>()).ok_or(Verdict::IcmpInvalid)?;
    let local_port = u16::from_be_bytes([tcp[0], tcp[1]]);
    let remote_port = u16::from_be_bytes([tcp[2], tcp[3]]);
    let total = u16::from_be_bytes([header[2], header[3]]);
    let seq = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
    Ok((total, FlowKey::v4(source, local_port, destination, remote_port), seq))
}

/// The largest common MTU below `total` (RFC 1191 §7.1).
fn plateau_below(total: u16) -> u16 {
    const PLATEAUS: [u16; 10] = [65_535, 32_000, 17_914, 8_166, 4_352, 2_002, 1_492, 1_006, 508, 296];
    PLATEAUS.into_iter().find(|&plateau| plateau < total).unwrap_or(68)
}

/// Makes an echo request its own reply, in place and without IP options. Returns the frame's new length.
pub(super) fn turn_echo(frame: &mut [u8], ip: &ipv4::Header) -> Option<usize> {
    let message = ETHERNET + ip.len..ETHERNET + ip.total;
    let len = message.len();
    frame.get(message.clone())?;
    frame.copy_within(message, ETHERNET + HEADER);
    let end = ETHERNET + HEADER + len;
    let packet = frame.get_mut(ETHERNET..end)?;
    if !ipv4::write(packet, ipv4::ICMP, ip.destination, ip.source) {
        return None;
    }
    let message = packet.get_mut(HEADER..)?;
    message[0] = 0;
    finish(message);
    Some(end)
}

/// Bytes of the IP packet that [`write_unreachable`] makes of a packet with header `ip`.
pub(super) fn unreachable_len(ip: &ipv4::Header) -> usize {
    HEADER + ICMP_HEADER + ip.total.min(ip.len + QUOTED)
}

/// Writes a destination unreachable with `code` about `refused`, an IP packet with header `ip`.
pub(super) fn write_unreachable(packet: &mut [u8], code: u8, refused: &[u8], ip: &ipv4::Header) -> Option<()> {
    if !ipv4::write(packet, ipv4::ICMP, ip.destination, ip.source) {
        return None;
    }
    let message = packet.get_mut(HEADER..)?;
    let (header, quote) = message.split_at_mut_checked(ICMP_HEADER)?;
    header.fill(0);
    header[0] = 3;
    header[1] = code;
    quote.copy_from_slice(refused.get(..quote.len())?);
    finish(message);
    Some(())
}

fn finish(message: &mut [u8]) {
    if let Some(field) = message.get_mut(2..4) {
        field.fill(0);
    }
    let value = !checksum::sum(0, message);
    if let Some(field) = message.get_mut(2..4) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}
