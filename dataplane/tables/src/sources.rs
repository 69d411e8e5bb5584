//! Which clients may connect, by the smallest of the listed networks that holds their address.

use core::net::IpAddr;

use ipnet::IpNet;

/// Allow and deny lists, worked out into ranges: a look-up is a binary search in an array, however the networks lie within each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceTable {
    v4: Box<[Range<u32>]>,
    v6: Box<[Range<u128>]>,
}

/// All addresses from here to the next range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range<A> {
    from: A,
    allowed: bool,
}

impl SourceTable {
    /// A table of these networks. Addresses in none of them are allowed where `allow` is empty. Where a network is in both, `deny` counts.
    #[must_use]
    pub fn new(allow: &[IpNet], deny: &[IpNet]) -> Self {
        let others = allow.is_empty();
        let listed = allow.iter().map(|net| (net, true)).chain(deny.iter().map(|net| (net, false)));
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (net, allowed) in listed {
            match net {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits(), allowed)),
                IpNet::V6(net) => v6.push((net.network().to_bits(), net.broadcast().to_bits(), allowed)),
            }
        }
        Self {
            v4: ranges(v4, 0, u32::MAX, others, |last| last.checked_add(1)),
            v6: ranges(v6, 0, u128::MAX, others, |last| last.checked_add(1)),
        }
    }

    /// Whether this client may connect.
    #[must_use]
    pub fn allows(&self, client: IpAddr) -> bool {
        match client {
            IpAddr::V4(v4) => find(&self.v4, v4.to_bits()),
            IpAddr::V6(v6) => find(&self.v6, v6.to_bits()),
        }
    }
}

fn find<A: Copy + Ord>(ranges: &[Range<A>], address: A) -> bool {
    let behind = ranges.partition_point(|range| range.from <= address);
    behind.checked_sub(1).and_then(|at| ranges.get(at)).is_none_or(|range| range.allowed)
}

/// Disjoint ranges from networks, of which any two are disjoint or one within the other: first, last, and whether they are allowed.
fn ranges<A: Copy + Ord>(
    mut nets: Vec<(A, A, bool)>,
    first: A,
    last: A,
    others: bool,
    next: fn(A) -> Option<A>,
) -> Box<[Range<A>]> {
    // The larger of two that begin together comes first; of two that are the same, the denied one comes last and so lies inside.
    nets.sort_by(|a, b| (a.0, b.1, b.2).cmp(&(b.0, a.1, a.2)));
    let mut found: Vec<Range<A>> = Vec::new();
    let mut push = |from, allowed| match found.last_mut() {
        Some(before) if before.from == from => before.allowed = allowed,
        _ => found.push(Range { from, allowed }),
    };
    push(first, others);
    // Networks that hold the place, from the largest in.
    let mut open = vec![(last, others)];
    let close = |open: &mut Vec<(A, bool)>, push: &mut dyn FnMut(A, bool)| {
        if let (Some((end, _)), Some((_, around))) = (open.pop(), open.last())
            && let Some(after) = next(end)
        {
            push(after, *around);
        }
    };
    for (start, end, allowed) in nets {
        while open.len() > 1 && open.last().is_some_and(|(end, _)| *end < start) {
            close(&mut open, &mut push);
        }
        push(start, allowed);
        open.push((end, allowed));
    }
    while open.len() > 1 {
        close(&mut open, &mut push);
    }
    found.dedup_by(|later, before| later.allowed == before.allowed);
    found.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|net| net.parse().unwrap()).collect()
    }

    fn table(allow: &[&str], deny: &[&str]) -> SourceTable {
        SourceTable::new(&nets(allow), &nets(deny))
    }

    fn allows(table: &SourceTable, client: &str) -> bool {
        table.allows(client.parse().unwrap())
    }

    #[test]
    fn the_smallest_network_decides() {
        let t = table(&["10.0.0.0/8", "10.66.7.0/24"], &["10.66.0.0/16", "10.66.7.9/32", "0.0.0.0/0"]);
        for (client, allowed) in [
            ("10.0.0.0", true),
            ("10.65.255.255", true),
            ("10.66.0.0", false),
            ("10.66.6.255", false),
            ("10.66.7.8", true),
            ("10.66.7.9", false),
            ("10.66.7.10", true),
            ("10.66.8.0", false),
            ("10.67.0.0", true),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("9.255.255.255", false),
            ("255.255.255.255", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(allows(&t, client), allowed, "{client}");
        }
    }

    #[test]
    fn without_an_allow_list_all_others_may() {
        let t = table(&[], &["192.0.2.0/24", "2001:db8::/32", "::/128"]);
        assert!(allows(&t, "192.0.3.0") && !allows(&t, "192.0.2.255"));
        assert!(allows(&t, "2001:db9::") && !allows(&t, "2001:db8:ffff::1") && !allows(&t, "::"));
        assert!(allows(&SourceTable::default(), "1.2.3.4"));
        let t = table(&["2001:db8::1/128"], &[]);
        assert!(!allows(&t, "192.0.2.1") && allows(&t, "2001:db8::1"));
    }

    #[test]
    fn it_agrees_with_looking_at_every_network() {
        let mut state = 7u64;
        let mut random = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u32
        };
        for round in 0..200 {
            // Few bits, so that networks lie within each other.
            let mut listed = std::collections::BTreeMap::new();
            for _ in 0..random() % 40 {
                let length = 24 + (random() % 9) as u8;
                let bits =
                    (0x0a00_0000 | (random() % 1024)) & u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
                let net: IpNet = ipnet::Ipv4Net::new(bits.into(), length).unwrap().into();
                listed.insert(net, random() % 2 == 0);
            }
            let of = |allowed| listed.iter().filter(|(_, a)| **a == allowed).map(|(n, _)| *n).collect::<Vec<_>>();
            let t = SourceTable::new(&of(true), &of(false));
            for address in 0x09ff_fff0..0x0a00_0410u32 {
                let client = IpAddr::V4(address.into());
                let smallest = listed.iter().filter(|(n, _)| n.contains(&client)).max_by_key(|(n, _)| n.prefix_len());
                let expected = smallest.map_or(of(true).is_empty(), |(_, allowed)| *allowed);
                assert_eq!(t.allows(client), expected, "round {round}, {client}, {listed:?}");
            }
        }
    }
}
