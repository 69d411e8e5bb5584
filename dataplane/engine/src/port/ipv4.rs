//! IPv4 headers.

use core::net::Ipv4Addr;

use pmd::{RxChecksum, checksum};
use tables::Verdict;

/// Bytes of an Ethernet header: where an IP packet begins in a frame.
pub(super) const ETHERNET: usize = 14;

/// Bytes of an IPv4 header without options.
pub(super) const HEADER: usize = 20;

/// Protocol numbers (RFC 5237).
pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

/// What a valid IPv4 header says (RFC 791 §3.1).
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    /// Bytes of the header with its options.
    pub(super) len: usize,
    /// Bytes of the packet; the frame may be longer.
    pub(super) total: usize,
    pub(super) protocol: u8,
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
    pub(super) fragment: bool,
}

/// Reads the header at the start of `packet`, which may be padded at its end.
///
/// # Errors
/// The verdict on a packet that is shorter than a header, whose lengths do not fit, whose checksum is wrong, or whose options
/// are malformed or ask for source routing (dropped as RFC 7126 §4.3 recommends).
#[inline]
pub(super) fn parse(packet: &[u8], seen: RxChecksum) -> Result<Header, Verdict> {
    let Some(fixed) = packet.first_chunk::<HEADER>() else {
        return Err(Verdict::Truncated);
    };
    let len = usize::from(fixed[0] & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if fixed[0] >> 4 != 4 || len < HEADER || total < len || total > packet.len() {
        return Err(Verdict::IpHeader);
    }
    let header = packet.get(..len).ok_or(Verdict::IpHeader)?;
    // Where the device says Bad, software finds out which of the checksums it means.
    if seen != RxChecksum::Good && !checksum::header_is_right(header) {
        return Err(Verdict::IpChecksum);
    }
    if len > HEADER && !options_acceptable(&header[HEADER..]) {
        return Err(Verdict::IpHeader);
    }
    Ok(Header {
        len,
        total,
        protocol: fixed[9],
        source: Ipv4Addr::new(fixed[12], fixed[13], fixed[14], fixed[15]),
        destination: Ipv4Addr::new(fixed[16], fixed[17], fixed[18], fixed[19]),
        // More fragments, or an offset.
        fragment: u16::from_be_bytes([fixed[6], fixed[7]]) & 0x3fff != 0,
    })
}

/// Writes a header without options at the start of `packet`: TTL 64, DF, and an id of 0, which an atomic datagram may
/// have (RFC 6864 §4.1). `false` where `packet` has no room for it, or is longer than a length field can say.
pub(super) fn write(packet: &mut [u8], protocol: u8, source: Ipv4Addr, destination: Ipv4Addr) -> bool {
    let Ok(total) = u16::try_from(packet.len()) else {
        return false;
    };
    let Some(header) = packet.first_chunk_mut::<HEADER>() else {
        return false;
    };
    let [high, low] = total.to_be_bytes();
    header[..12].copy_from_slice(&[0x45, 0, high, low, 0, 0, 0x40, 0, 64, protocol, 0, 0]);
    header[12..16].copy_from_slice(&source.octets());
    header[16..20].copy_from_slice(&destination.octets());
    let value = !checksum::sum(0, header);
    header[10..12].copy_from_slice(&value.to_be_bytes());
    true
}

/// Option syntax (RFC 791 §3.1), without loose or strict source routes.
fn options_acceptable(mut options: &[u8]) -> bool {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const LOOSE_SOURCE_ROUTE: u8 = 131;
    const STRICT_SOURCE_ROUTE: u8 = 137;
    // Ends: each step takes at least one of at most 40 bytes.
    loop {
        options = match options {
            [] | [END, ..] => return true,
            [NO_OPERATION, rest @ ..] => rest,
            [LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE, ..] => return false,
            [_, len, ..] if *len >= 2 => match options.get(usize::from(*len)..) {
                Some(rest) => rest,
                None => return false,
            },
            _ => return false,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let mut packet = [0xa5; 24];
        let (source, destination) = (Ipv4Addr::new(1, 2, 3, 4), Ipv4Addr::new(5, 6, 7, 8));
        assert!(write(&mut packet, TCP, source, destination));
        let header = parse(&packet, RxChecksum::Unchecked).unwrap();
        assert_eq!((header.len, header.total, header.protocol, header.fragment), (20, 24, TCP, false));
        assert_eq!((header.source, header.destination), (source, destination));
        assert!(!write(&mut packet[..19], TCP, source, destination));
    }
}
