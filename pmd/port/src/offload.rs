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
    /// Cuts sent TCP packets into segments (TSO).
    pub tso: bool,
    /// Joins received TCP segments, or leaves together what a peer on the same machine never cut (LRO).
    pub lro: bool,
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

/// Prepares a TCP frame for the device to cut into segments of `mss` bytes. `None` where it is no whole TCP frame. The checksum's
/// place is left to the driver's own preparation, because drivers want different sums there.
pub(crate) fn segments(frame: &mut [u8], l2_len: u8, l3_len: u8, mss: u16, offloads: Offloads) -> Option<TxRequest> {
    let request = finish_tcp(frame, l2_len, l3_len, Offloads { tx_tcp: true, ..offloads })?;
    let lengths = request.lengths | u64::from(mss) << sys::SHIM_TX_TSO_SEGSZ_SHIFT;
    Some(TxRequest { flags: request.flags | sys::SHIM_TX_TCP_SEG, lengths })
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
    } else if l4 != sys::SHIM_RX_L4_CKSUM_GOOD && l4 != sys::SHIM_RX_L4_CKSUM_NONE {
        RxChecksum::Unchecked
    } else if ip == 0 {
        // virtio looks at L4 only; the IPv4 header's twenty bytes are cheap.
        ipv4_header_verdict(frame)
    } else {
        RxChecksum::Good
    }
}

/// Whether a peer on the same machine left the L4 checksum to be filled. The bytes came through memory and are taken to be whole (virtio 1.2
/// §5.1.6.4.2, DPDK's RTE_MBUF_F_RX_L4_CKSUM_NONE); only what goes on to a wire needs the sum.
#[inline]
pub(crate) fn is_partial(flags: u64) -> bool {
    flags & sys::SHIM_RX_L4_CKSUM_MASK == sys::SHIM_RX_L4_CKSUM_NONE
}

/// Fills the checksum that a peer on the same machine left open, so that the bytes are what a wire carries.
#[cold]
pub(crate) fn complete_partial(frame: &mut [u8]) {
    if let Some((l2_len, l3_len)) = ip_header(frame) {
        // What is neither TCP nor UDP has no checksum that could have been left open.
        let _ = checksum::finish_l4(frame, l2_len, l3_len);
    }
}

fn ipv4_header_verdict(frame: &[u8]) -> RxChecksum {
    let Some((l2_len, l3_len)) = ip_header(frame) else { return RxChecksum::Unchecked };
    match frame.get(l2_len..l2_len + l3_len) {
        Some(header) if header[0] >> 4 == 6 || checksum::header_is_right(header) => RxChecksum::Good,
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

#[cfg(test)]
mod tests {
    use super::*;

    const TCP_ONLY: Offloads =
        Offloads { rx_l4: true, rx_ipv4: false, tx_tcp: true, tx_ipv4: false, tso: true, lro: true };
    const BOTH: Offloads = Offloads { tx_ipv4: true, ..TCP_ONLY };

    /// A frame with rubbish for checksums: Ethernet of `l2_len` bytes, IPv4 or IPv6, `protocol`, and an odd payload.
    fn frame(l2_len: usize, ipv6: bool, protocol: u8) -> Vec<u8> {
        let segment = 20 + 33;
        let mut frame = vec![0; 12];
        if l2_len == 18 {
            frame.extend([0x81, 0, 0, 7]);
        }
        if ipv6 {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, segment, protocol, 64]);
            frame.extend((0..32).map(|at| at ^ 0xa5));
        } else {
            frame.extend([8, 0, 0x45, 0, 0, 20 + segment, 1, 2, 0x40, 0, 64, protocol, 0xde, 0xad]);
            frame.extend([10, 9, 1, 1, 10, 9, 2, 2]);
        }
        frame.extend([0x1f, 0x90, 0, 80, 1, 2, 3, 4, 5, 6, 7, 8, 0x80, 0x18, 0xff, 0xff, 0xbe, 0xef, 0, 0]);
        frame.extend((0..33).map(|at| at * 7));
        frame
    }

    #[test]
    fn what_the_device_is_asked_for_makes_the_frame_that_software_makes() {
        for (l2_len, ipv6, offloads) in
            [(14, false, TCP_ONLY), (14, false, BOTH), (18, false, TCP_ONLY), (14, true, TCP_ONLY), (18, true, BOTH)]
        {
            let l3_len = if ipv6 { 40 } else { 20 };
            let mut by_software = frame(l2_len, ipv6, 6);
            assert!(finish_tcp(&mut by_software, l2_len as u8, l3_len as u8, Offloads::default()).is_none());
            let mut by_device = frame(l2_len, ipv6, 6);
            let request = finish_tcp(&mut by_device, l2_len as u8, l3_len as u8, offloads).unwrap();

            // What a device does: it finds its way by the lengths, and sums what it was not told about.
            let (l2, l3, l4) = (request.lengths & 0x7f, request.lengths >> 7 & 0x1ff, request.lengths >> 16 & 0xff);
            assert_eq!((l2, l3, l4), (l2_len as u64, l3_len as u64, 32));
            let family = if ipv6 { sys::SHIM_TX_IPV6 } else { sys::SHIM_TX_IPV4 };
            let header_too = !ipv6 && offloads.tx_ipv4;
            let expected = sys::SHIM_TX_TCP_CKSUM | family | if header_too { sys::SHIM_TX_IP_CKSUM } else { 0 };
            assert_eq!(request.flags, expected);
            let l4_at = l2_len + l3_len;
            let value = !checksum::sum(0, &by_device[l4_at..]);
            by_device[l4_at + 16..l4_at + 18].copy_from_slice(&value.to_be_bytes());
            if header_too {
                let value = !checksum::sum(0, &by_device[l2_len..l4_at]);
                by_device[l2_len + 10..l2_len + 12].copy_from_slice(&value.to_be_bytes());
            }
            assert_eq!(by_device, by_software, "l2_len {l2_len}, IPv6 {ipv6}, {offloads:?}");
        }
    }

    #[test]
    fn what_is_to_be_cut_says_into_how_much() {
        for ipv6 in [false, true] {
            let l3_len = if ipv6 { 40 } else { 20 };
            let request = segments(&mut frame(14, ipv6, 6), 14, l3_len, 1448, BOTH).unwrap();
            let l4_len = request.lengths >> 16 & 0xff;
            assert_eq!((l4_len, request.lengths >> 24 & 0xffff), (32, 1448));
            let asked = sys::SHIM_TX_TCP_SEG | sys::SHIM_TX_TCP_CKSUM;
            assert_eq!(request.flags & asked, asked);
        }
        assert!(segments(&mut frame(14, false, 6)[..60], 14, 20, 1448, BOTH).is_none());
    }

    #[test]
    fn frames_that_are_not_what_was_said_are_left_alone() {
        let whole = frame(14, false, 6);
        for cut in 0..whole.len() {
            for offloads in [Offloads::default(), TCP_ONLY, BOTH] {
                let mut frame = whole[..cut].to_vec();
                assert!(finish_tcp(&mut frame, 14, 20, offloads).is_none());
                assert_eq!(frame, whole[..cut]);
            }
        }
    }

    #[test]
    fn flags_become_a_verdict() {
        use crate::lane::RxChecksum::{Bad, Good, Unchecked};
        let (ip_good, ip_bad, ip_none) =
            (sys::SHIM_RX_IP_CKSUM_GOOD, sys::SHIM_RX_IP_CKSUM_BAD, sys::SHIM_RX_IP_CKSUM_NONE);
        let (l4_good, l4_bad) = (sys::SHIM_RX_L4_CKSUM_GOOD, sys::SHIM_RX_L4_CKSUM_BAD);
        for (flags, expected) in [
            (0, Unchecked),
            (ip_good, Unchecked),
            (ip_good | l4_good, Good),
            (ip_none | l4_good, Good),
            (ip_bad | l4_good, Bad),
            (ip_good | l4_bad, Bad),
            (l4_bad, Bad),
            (ip_bad, Bad),
        ] {
            assert_eq!(rx_checksum(flags, &[]), expected, "{flags:#x}");
        }
        // Where the device looked at L4 only, or a peer left the L4 checksum open, the IPv4 header is summed here.
        for (l2_len, l4) in [(14, l4_good), (18, l4_good), (14, sys::SHIM_RX_L4_CKSUM_NONE)] {
            let mut frame = frame(l2_len, false, 6);
            assert_eq!(rx_checksum(l4, &frame), Bad);
            assert!(checksum::finish_tcp(&mut frame, l2_len, 20));
            frame[l2_len + 20 + 16] ^= 1;
            assert_eq!(rx_checksum(l4, &frame), Good);
        }
        assert_eq!(rx_checksum(ip_good | sys::SHIM_RX_L4_CKSUM_NONE, &[]), Good);
        assert_eq!(rx_checksum(l4_good, &frame(14, true, 6)), Good);
        assert_eq!(rx_checksum(l4_good, &[0; 60]), Unchecked);
    }

    #[test]
    fn a_checksum_left_open_is_filled() {
        for (protocol, ipv6) in [(6, false), (6, true), (17, false), (17, true)] {
            let mut open = frame(14, ipv6, protocol);
            let l3_len = if ipv6 { 40 } else { 20 };
            let addresses = if ipv6 { 22..54 } else { 26..34 };
            let seed = checksum::pseudo_header(&open[addresses], protocol, 53);
            complete_partial(&mut open);
            assert_eq!(checksum::sum(seed, &open[14 + l3_len..]), 0xffff, "protocol {protocol}, IPv6 {ipv6}");
        }
        let mut other = frame(14, false, 1);
        let before = other.clone();
        complete_partial(&mut other);
        assert_eq!(other, before);
        for cut in 0..before.len() {
            complete_partial(&mut frame(14, false, 17)[..cut]);
        }
    }
}
