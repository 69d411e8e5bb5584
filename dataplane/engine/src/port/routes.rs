//! Routes: what is on-link nowhere goes to a router, and its flows are spread where there are several.

use core::net::IpAddr;

use ipnet::IpNet;
use tables::RouteSettings;

use super::neighbors::Pin;

/// The routes of one interface.
#[derive(Debug)]
pub(super) struct Routes {
    /// Longest prefix first.
    routes: Vec<RouteSettings>,
    next_hops: Vec<Pin>,
}

impl Routes {
    pub(super) fn new(routes: &[RouteSettings]) -> Self {
        let mut routes = routes.to_vec();
        routes.sort_by_key(|route| core::cmp::Reverse(route.destination.prefix_len()));
        let mut next_hops: Vec<Pin> = Vec::new();
        for route in &routes {
            for &hop in &route.via {
                let watched = route.via.len() > 1;
                match next_hops.iter_mut().find(|pin| pin.address == Some(hop)) {
                    Some(pin) => pin.watched |= watched,
                    None => next_hops.push(Pin { address: Some(hop), watched }),
                }
            }
        }
        Self { routes, next_hops }
    }

    /// All next hops, once each.
    pub(super) fn next_hops(&self) -> &[Pin] {
        &self.next_hops
    }

    /// Whether `address` is a next hop, which is on the link by definition.
    pub(super) fn is_next_hop(&self, address: IpAddr) -> bool {
        self.next_hops.iter().any(|pin| pin.address == Some(address))
    }

    /// How long the prefix is of the route that leads to `destination`.
    pub(super) fn prefix_len(&self, destination: IpAddr) -> Option<u8> {
        self.find(destination).map(|route| route.destination.prefix_len())
    }

    /// The next hop for a flow to `destination`. Flows keep theirs while it lives, whatever happens to others (highest random weight, RFC
    /// 2992 §2). Where none lives one is taken all the same, so that somebody is asked again.
    pub(super) fn next_hop(
        &self,
        destination: IpAddr,
        flow: impl FnOnce() -> u64,
        is_dead: impl Fn(IpAddr) -> bool,
    ) -> Option<IpAddr> {
        let route = self.find(destination)?;
        if let [only] = route.via.as_slice() {
            return Some(*only);
        }
        let flow = flow();
        route.via.iter().copied().max_by_key(|&hop| (!is_dead(hop), mix(flow ^ fold(hop))))
    }

    fn find(&self, destination: IpAddr) -> Option<&RouteSettings> {
        let fits = |net: &IpNet| net.contains(&destination);
        self.routes.iter().find(|route| fits(&route.destination) && !route.via.is_empty())
    }
}

/// What tells the flow of an IP packet of ours from others: its addresses, and the ports where there are any.
#[must_use]
pub(super) fn flow_of(packet: &[u8]) -> u64 {
    let (addresses, ports) = match packet.first().map(|first| first >> 4) {
        Some(4) => (12..20, 20..24),
        _ => (8..40, 40..44),
    };
    let words = packet.get(addresses).unwrap_or_default().chunks(8).chain(packet.get(ports));
    words.fold(0, |flow, word| {
        let mut bytes = [0; 8];
        for (to, from) in bytes.iter_mut().zip(word) {
            *to = *from;
        }
        mix(flow ^ u64::from_be_bytes(bytes))
    })
}

fn fold(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64 ^ address.to_bits() as u64,
    }
}

/// The finalizer of SplitMix64: each bit of the number changes half of the result's.
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn route(destination: &str, via: &[&str]) -> RouteSettings {
        RouteSettings { destination: destination.parse().unwrap(), via: via.iter().map(|hop| ip(hop)).collect() }
    }

    #[test]
    fn the_longest_prefix_wins() {
        let routes = Routes::new(&[
            route("0.0.0.0/0", &["10.9.1.254"]),
            route("192.0.2.128/25", &["10.9.1.252"]),
            route("192.0.2.0/24", &["10.9.1.253"]),
            route("::/0", &["fe80::1"]),
        ]);
        for (destination, hop) in [
            ("8.8.8.8", "10.9.1.254"),
            ("192.0.2.1", "10.9.1.253"),
            ("192.0.2.129", "10.9.1.252"),
            ("2001:db8::1", "fe80::1"),
        ] {
            assert_eq!(routes.next_hop(ip(destination), || 0, |_| false), Some(ip(hop)), "{destination}");
        }
        assert_eq!((routes.prefix_len(ip("192.0.2.1")), routes.prefix_len(ip("::2"))), (Some(24), Some(0)));
        assert_eq!(Routes::new(&[]).next_hop(ip("8.8.8.8"), || 0, |_| false), None);
    }

    #[test]
    fn flows_are_spread_and_move_only_when_their_hop_dies() {
        let hops = ["10.9.1.252", "10.9.1.253", "10.9.1.254"];
        let routes = Routes::new(&[route("0.0.0.0/0", &hops)]);
        assert!(routes.next_hops().iter().all(|pin| pin.watched));
        let dead = ip(hops[1]);
        let mut taken = [0u32; 3];
        for flow in 0..3000u64 {
            let flow = mix(flow);
            let hop = routes.next_hop(ip("8.8.8.8"), || flow, |_| false).unwrap();
            let without = routes.next_hop(ip("8.8.8.8"), || flow, |hop| hop == dead).unwrap();
            assert!(without != dead && (hop == dead || hop == without));
            taken[hops.iter().position(|h| ip(h) == hop).unwrap()] += 1;
            assert_eq!(routes.next_hop(ip("8.8.8.8"), || flow, |_| true), Some(hop), "all dead: one is asked again");
        }
        assert!(taken.iter().all(|&taken| (900..1100).contains(&taken)), "{taken:?}");
    }

    #[test]
    fn ports_tell_flows_apart() {
        let mut packet = [0u8; 60];
        packet[0] = 0x45;
        let first = flow_of(&packet);
        packet[21] = 1;
        assert_ne!(flow_of(&packet), first);
        packet[0] = 0x60;
        let first = flow_of(&packet);
        packet[43] = 1;
        assert_ne!(flow_of(&packet), first);
        assert_eq!(flow_of(&[]), flow_of(&[]));
    }
}
