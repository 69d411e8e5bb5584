//! Which addresses are ours on one interface, on its link, or nobody's.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::ipv6;

/// Our addresses on one interface.
#[derive(Debug)]
pub(super) struct Addresses {
    networks: Vec<IpNet>,
    /// The IPv4 ones again, for the check of every packet.
    own_v4: Vec<u32>,
    broadcast_v4: Vec<u32>,
    /// The IPv6 ones that are known to be ours alone.
    own_v6: Vec<u128>,
}

impl Addresses {
    /// IPv4 addresses are ours at once, those of IPv6 when [`Addresses::assign`] says so.
    pub(super) fn new(networks: &[IpNet]) -> Self {
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
            own_v6: Vec::with_capacity(networks.len() + 1),
        }
    }

    /// Makes an IPv6 address ours.
    pub(super) fn assign(&mut self, address: Ipv6Addr) {
        if !self.owns_v6(address) {
            self.own_v6.push(address.to_bits());
        }
    }

    /// Our IPv4 address at `position`.
    pub(super) fn v4(&self, position: usize) -> Option<Ipv4Addr> {
        self.own_v4.get(position).map(|&bits| Ipv4Addr::from_bits(bits))
    }

    #[inline]
    pub(super) fn owns(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.owns_v4(address),
            IpAddr::V6(address) => self.owns_v6(address),
        }
    }

    #[inline]
    pub(super) fn owns_v4(&self, address: Ipv4Addr) -> bool {
        self.own_v4.contains(&address.to_bits())
    }

    #[inline]
    pub(super) fn owns_v6(&self, address: Ipv6Addr) -> bool {
        self.own_v6.contains(&address.to_bits())
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

    pub(super) fn is_unicast(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.is_unicast_v4(address),
            IpAddr::V6(address) => ipv6::is_unicast(address),
        }
    }

    /// Whether `address` lies in the subnet of one of our addresses.
    pub(super) fn contain(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|net| net.contains(&address))
    }

    /// Our address towards `destination` by way of `hop`: one of the hop's subnet where there is one. In IPv6, of the destination's scope
    /// and as near to it as can be (RFC 6724 §5, rules 2 and 8).
    pub(super) fn source_for(&self, destination: IpAddr, hop: IpAddr) -> Option<IpAddr> {
        match destination {
            IpAddr::V4(_) => {
                let near = self.networks.iter().filter(|net| net.contains(&hop)).max_by_key(|net| net.prefix_len());
                near.map(IpNet::addr).or_else(|| self.v4(0).map(IpAddr::V4))
            }
            IpAddr::V6(destination) => {
                let local = ipv6::is_link_local(destination);
                let mine = self.own_v6.iter().rev().map(|&bits| Ipv6Addr::from_bits(bits));
                mine.filter(|own| ipv6::is_link_local(*own) == local)
                    .max_by_key(|own| (own.to_bits() ^ destination.to_bits()).leading_zeros())
                    .map(IpAddr::V6)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_source_is_near() {
        let networks = ["10.9.1.1/24", "192.0.2.7/31", "fd00:1::1/64", "fd00:2::1/64"].map(|net| net.parse().unwrap());
        let mut addresses = Addresses::new(&networks);
        assert_eq!(addresses.source_for(ip("fd00:1::9"), ip("fd00:1::9")), None, "not before it is known to be ours");
        for own in ["fe80::1", "fd00:1::1", "fd00:2::1"] {
            addresses.assign(own.parse().unwrap());
        }
        for (destination, hop, source) in [
            ("192.0.2.6", "192.0.2.6", "192.0.2.7"),
            ("8.8.8.8", "10.9.1.254", "10.9.1.1"),
            ("8.8.8.8", "172.16.0.1", "10.9.1.1"),
            ("fd00:1::9", "fd00:1::9", "fd00:1::1"),
            ("fd00:2::9", "fd00:2::9", "fd00:2::1"),
            ("2001:db8::1", "fe80::9", "fd00:1::1"),
            ("fe80::9", "fe80::9", "fe80::1"),
        ] {
            assert_eq!(addresses.source_for(ip(destination), ip(hop)), Some(ip(source)), "{destination}");
        }
    }
}
