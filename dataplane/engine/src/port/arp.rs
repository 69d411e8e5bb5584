//! ARP packets.

use core::net::Ipv4Addr;

use tables::Verdict;

/// An ARP packet for IPv4 over Ethernet (RFC 826).
#[derive(Debug, Clone, Copy)]
pub(super) struct Packet {
    pub(super) request: bool,
    pub(super) sender_mac: [u8; 6],
    pub(super) sender: Ipv4Addr,
    pub(super) target_mac: [u8; 6],
    pub(super) target: Ipv4Addr,
}

impl Packet {
    /// Bytes behind the Ethernet header.
    pub(super) const LEN: usize = 28;

    const PREFIX: [u8; 6] = [0, 1, 8, 0, 6, 4];

    /// Reads what follows the Ethernet header; padding is ignored.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Verdict> {
        let bytes = bytes.first_chunk::<{ Self::LEN }>().ok_or(Verdict::Truncated)?;
        let (sender, target) = bytes[8..].split_at(10);
        let half = |half: &[u8]| match *half {
            [a, b, c, d, e, f, w, x, y, z] => Some(([a, b, c, d, e, f], Ipv4Addr::new(w, x, y, z))),
            _ => None,
        };
        let (Some((sender_mac, sender)), Some((target_mac, target))) = (half(sender), half(target)) else {
            return Err(Verdict::ArpInvalid);
        };
        let operation = u16::from_be_bytes([bytes[6], bytes[7]]);
        if bytes[..6] != Self::PREFIX || !matches!(operation, 1 | 2) || sender_mac[0] & 1 != 0 || sender_mac == [0; 6] {
            return Err(Verdict::ArpInvalid);
        }
        Ok(Self { request: operation == 1, sender_mac, sender, target_mac, target })
    }

    /// Writes it behind the Ethernet header. `false` where there is no room.
    pub(super) fn write(&self, bytes: &mut [u8]) -> bool {
        let Some(bytes) = bytes.first_chunk_mut::<{ Self::LEN }>() else {
            return false;
        };
        bytes[..6].copy_from_slice(&Self::PREFIX);
        bytes[6..8].copy_from_slice(&[0, if self.request { 1 } else { 2 }]);
        bytes[8..14].copy_from_slice(&self.sender_mac);
        bytes[14..18].copy_from_slice(&self.sender.octets());
        bytes[18..24].copy_from_slice(&self.target_mac);
        bytes[24..28].copy_from_slice(&self.target.octets());
        true
    }
}
