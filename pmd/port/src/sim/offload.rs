//! A NIC's receive checksum offload, in software. Called by the wire where an end is told to have one.

use crate::{RxChecksum, checksum};

/// What a NIC would report of `frame`: a verdict on whole IPv4 and IPv6 packets with TCP or UDP directly
/// behind the IP header (IPv6: no extension headers), `Unchecked` for all else that has no wrong IPv4 header checksum.
pub(super) fn verify(frame: &[u8]) -> RxChecksum {
    look(frame).unwrap_or(RxChecksum::Unchecked)
}

fn look(frame: &[u8]) -> Option<RxChecksum> {
    const VLAN: [u8; 2] = [0x81, 0x00];
    let l2_len = if frame.get(12..14)? == VLAN { 18 } else { 14 };
    let packet = frame.get(l2_len..)?;
    match frame.get(l2_len - 2..l2_len)? {
        [0x08, 0x00] => ipv4(packet),
        [0x86, 0xdd] => ipv6(packet),
        _ => None,
    }
}

/// RFC 791 §3.1.
fn ipv4(packet: &[u8]) -> Option<RxChecksum> {
    let first = *packet.first()?;
    let header_len = usize::from(first & 0xf) * 4;
    if first >> 4 != 4 || header_len < 20 {
        return None;
    }
    let header = packet.get(..header_len)?;
    if checksum::sum(0, header) != 0xffff {
        return Some(RxChecksum::Bad);
    }
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    // More fragments, or a fragment offset: the L4 checksum covers what is not here.
    if u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0 {
        return None;
    }
    transport(&header[12..20], header[9], packet.get(header_len..total)?)
}

/// RFC 8200 §3.
fn ipv6(packet: &[u8]) -> Option<RxChecksum> {
    let (header, rest) = packet.split_at_checked(40)?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    transport(&header[8..40], header[6], rest.get(..len)?)
}

fn transport(addresses: &[u8], protocol: u8, segment: &[u8]) -> Option<RxChecksum> {
    const TCP: u8 = 6;
    const UDP: u8 = 17;
    match protocol {
        TCP if segment.len() >= 20 => {}
        // RFC 768: zero is no checksum. IPv6 forbids that, which is for the software to judge.
        UDP if segment.get(6..8)? == [0, 0] => return None,
        UDP => {}
        _ => return None,
    }
    let seed = checksum::pseudo_header(addresses, protocol, u16::try_from(segment.len()).ok()?);
    Some(match checksum::sum(seed, segment) {
        0xffff => RxChecksum::Good,
        _ => RxChecksum::Bad,
    })
}
