//! IPv4 headers, and which addresses are ours, on-link, or nobody's.

use core::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use pmd::{RxChecksum, checksum};
use tables::Verdict;

/// Bytes of an Ethernet header: where an IP packet begins in a frame.
pub(super) const ETHERNET: usize = 14;

/// Bytes of an IPv4 header without options.
pub(super) const HEADER: usize = 20;

/// Protocol numbers (RFC 5237).
pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;

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
    if seen != RxChecksum::Good && checksum::sum(0, header) != 0xffff {
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

/// Our addresses on one port and what they make reachable.
#[derive(Debug)]
pub(super) struct Addresses {
    networks: Vec<IpNet>,
    /// The IPv4 ones again, for the check of every packet.
    own_v4: Vec<u32>,
    broadcast_v4: Vec<u32>,
    gateway: Option<IpAddr>,
}

impl Addresses {
    pub(super) fn new(networks: &[IpNet], gateway: Option<IpAddr>) -> Self {
        let v4 = |net: &IpNet| match net {
            IpNet::V4(net) => Some(*net),
            IpNet::V6(_) => None,
        };
        Self {
            networks: networks.to_vec(),
            own_v4: networks.iter().filter_map(v4).map(|net| net.addr().to_bits()).collect(),
            // Prefixes of 31 and 32 bits have no broadcast address (RFC 3021).
            broadcast_v4: networks
                .iter()
                .filter_map(v4)
                .filter(|net| net.prefix_len() < 31)
                .map(|net| net.broadcast().to_bits())
                .collect(),
            gateway,
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = IpAddr> {
        self.networks.iter().map(IpNet::addr)
    }

    /// Our IPv4 address at `position`.
    pub(super) fn v4(&self, position: usize) -> Option<Ipv4Addr> {
        self.own_v4.get(position).map(|&bits| Ipv4Addr::from_bits(bits))
    }

    pub(super) fn owns(&self, address: IpAddr) -> bool {
        self.iter().any(|own| own == address)
    }

    #[inline]
    pub(super) fn owns_v4(&self, address: Ipv4Addr) -> bool {
        self.own_v4.contains(&address.to_bits())
    }

    /// Whether `address` can be one other host's on these networks: not 0/8, loopback, multicast, or a broadcast address
    /// (RFC 1122 §3.2.1.3).
    #[inline]
    pub(super) fn is_unicast_v4(&self, address: Ipv4Addr) -> bool {
        let first = address.octets()[0];
        first != 0
            && first != 127
            && first & 0xf0 != 0xe0
            && address != Ipv4Addr::BROADCAST
            && !self.broadcast_v4.contains(&address.to_bits())
    }

    fn is_unicast(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.is_unicast_v4(address),
            IpAddr::V6(address) => !address.is_multicast() && !address.is_unspecified() && !address.is_loopback(),
        }
    }

    /// Another host that needs no router.
    pub(super) fn on_link(&self, address: IpAddr) -> bool {
        let local = Some(address) == self.gateway || self.networks.iter().any(|net| net.contains(&address));
        local && self.is_unicast(address) && !self.owns(address)
    }

    /// Who takes packets for `destination`.
    pub(super) fn next_hop(&self, destination: IpAddr) -> Option<IpAddr> {
        if self.on_link(destination) {
            return Some(destination);
        }
        let gateway = self.gateway.filter(|gateway| gateway.is_ipv4() == destination.is_ipv4())?;
        (self.is_unicast(destination) && !self.owns(destination)).then_some(gateway)
    }

    /// Our address towards `destination`: the one in the next hop's network, else the first of its family.
    pub(super) fn source_for(&self, destination: IpAddr) -> Option<IpAddr> {
        let hop = self.next_hop(destination)?;
        let near = self.networks.iter().filter(|net| net.contains(&hop)).max_by_key(|net| net.prefix_len());
        near.map(IpNet::addr).or_else(|| self.iter().find(|own| own.is_ipv4() == destination.is_ipv4()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(gateway: Option<&str>) -> Addresses {
        let networks = ["10.9.1.1/24", "10.9.1.2/24", "192.0.2.7/31"].map(|net| net.parse().unwrap());
        Addresses::new(&networks, gateway.map(|g| g.parse().unwrap()))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn routes() {
        let alone = addresses(None);
        let routed = addresses(Some("10.9.1.254"));
        for (destination, without, with) in [
            ("10.9.1.9", Some("10.9.1.9"), Some("10.9.1.9")),
            ("192.0.2.6", Some("192.0.2.6"), Some("192.0.2.6")),
            ("8.8.8.8", None, Some("10.9.1.254")),
            ("10.9.1.1", None, None),
            ("10.9.1.255", None, None),
            ("255.255.255.255", None, None),
            ("224.0.0.1", None, None),
            ("127.0.0.1", None, None),
            ("0.0.0.0", None, None),
            ("2001:db8::1", None, None),
        ] {
            assert_eq!(alone.next_hop(ip(destination)), without.map(ip), "{destination}");
            assert_eq!(routed.next_hop(ip(destination)), with.map(ip), "{destination}");
        }
        assert_eq!(routed.source_for(ip("192.0.2.6")), Some(ip("192.0.2.7")));
        assert!(routed.source_for(ip("8.8.8.8")).is_some_and(|own| own.to_string().starts_with("10.9.1.")));
        let outside = addresses(Some("172.16.0.1"));
        assert!(outside.on_link(ip("172.16.0.1")), "a gateway outside of every prefix is on-link by definition");
        assert_eq!(outside.source_for(ip("8.8.8.8")), Some(ip("10.9.1.1")));
    }

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
