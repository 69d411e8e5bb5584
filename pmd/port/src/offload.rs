//! Checksums: what the device does, and what is left to software.

use dpdk_sys as sys;

use crate::checksum;
use crate::lane::RxChecksum;

/// What a port's device does about checksums.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offloads {
    /// Verifies TCP and UDP checksums of received frames.
    pub rx_l4: bool,
    /// Verifies IPv4 header checksums of received frames.
    pub rx_ipv4: bool,
    /// Fills TCP checksums of sent frames.
    pub tx_tcp: bool,
    /// Fills IPv4 header checksums of sent frames.
    pub tx_ipv4: bool,
}

/// The mbuf's flags and packed header lengths that ask the device for what software left undone.
pub(crate) struct TxRequest {
    pub(crate) flags: u64,
    pub(crate) lengths: u64,
}

/// Fills the checksums of a TCP frame, or prepares them for the device. `None` where the frame is
/// complete, or is no TCP frame that this can be done to.
#[inline]
pub(crate) fn finish_tcp(frame: &mut [u8], l2_len: u8, l3_len: u8, offloads: Offloads) -> Option<TxRequest> {
    if !offloads.tx_tcp {
        // A frame that does not hold what its headers say is sent as it is; the receiver drops it.
        let _ = checksum::finish_tcp(frame, usize::from(l2_len), usize::from(l3_len));
        return None;
    }
    let packet = checksum::Packet::tcp(frame, usize::from(l2_len), usize::from(l3_len))?;
    let l4_len = u64::from(packet.segment[12] >> 4) * 4;
    // The device sums the segment, and finds the sum over the pseudo header in the checksum's place.
    packet.segment[16..18].copy_from_slice(&packet.pseudo_header.to_be_bytes());
    let mut flags = sys::SHIM_TX_TCP_CKSUM;
    if !packet.ipv4 {
        flags |= sys::SHIM_TX_IPV6;
    } else if offloads.tx_ipv4 {
        packet.header[10..12].fill(0);
        flags |= sys::SHIM_TX_IPV4 | sys::SHIM_TX_IP_CKSUM;
    } else {
        checksum::fill_ipv4(packet.header);
        flags |= sys::SHIM_TX_IPV4;
    }
    let lengths =
        u64::from(l2_len) | u64::from(l3_len) << sys::SHIM_TX_L3_LEN_SHIFT | l4_len << sys::SHIM_TX_L4_LEN_SHIFT;
    Some(TxRequest { flags, lengths })
}

/// What the device says about a received frame, by the mbuf's flags.
#[inline]
pub(crate) fn rx_checksum(flags: u64, frame: &[u8]) -> RxChecksum {
    let ip = flags & sys::SHIM_RX_IP_CKSUM_MASK;
    let l4 = flags & sys::SHIM_RX_L4_CKSUM_MASK;
    if ip | l4 == 0 {
        RxChecksum::Unchecked
    } else if ip == sys::SHIM_RX_IP_CKSUM_BAD || l4 == sys::SHIM_RX_L4_CKSUM_BAD {
        RxChecksum::Bad
    } else if l4 != sys::SHIM_RX_L4_CKSUM_GOOD {
        RxChecksum::Unchecked
    } else if ip == 0 {
        // virtio looks at L4 only; the IPv4 header's twenty bytes are cheap.
        ipv4_header_verdict(frame)
    } else {
        RxChecksum::Good
    }
}

/// Whether a peer on the same machine left the L4 checksum to be filled.
#[inline]
pub(crate) fn is_partial(flags: u64) -> bool {
    flags & sys::SHIM_RX_L4_CKSUM_MASK == sys::SHIM_RX_L4_CKSUM_NONE
}

/// Fills the checksum that a peer on the same machine left open, so that the bytes are what a wire would
/// carry, and returns the mbuf's new flags.
#[cold]
pub(crate) fn complete_partial(flags: u64, frame: &mut [u8]) -> u64 {
    let rest = flags & !sys::SHIM_RX_L4_CKSUM_MASK;
    if ip_header(frame).is_some_and(|(l2_len, l3_len)| checksum::finish_l4(frame, l2_len, l3_len)) {
        rest | sys::SHIM_RX_L4_CKSUM_GOOD
    } else {
        rest
    }
}

#[cold]
fn ipv4_header_verdict(frame: &[u8]) -> RxChecksum {
    let Some((l2_len, l3_len)) = ip_header(frame) else { return RxChecksum::Unchecked };
    match frame.get(l2_len..l2_len + l3_len) {
        Some(header) if header[0] >> 4 == 6 || checksum::sum(0, header) == 0xffff => RxChecksum::Good,
        Some(_) => RxChecksum::Bad,
        None => RxChecksum::Unchecked,
    }
}

/// Where the IP header begins, and its length (without IPv6 extension headers), for Ethernet with at most one VLAN tag.
fn ip_header(frame: &[u8]) -> Option<(usize, usize)> {
    let ether_type = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
    let (kind, l2_len) = match ether_type(12)? {
        0x8100 => (ether_type(16)?, 18),
        kind => (kind, 14),
    };
    let first = *frame.get(l2_len)?;
    match (kind, first >> 4) {
        (0x0800, 4) if first & 0xf >= 5 => Some((l2_len, usize::from(first & 0xf) * 4)),
        (0x86dd, 6) => Some((l2_len, 40)),
        _ => None,
    }
}
