//! The Toeplitz hash, by which NICs spread flows over queues (receive-side scaling), in software.
//!
//! Used when a connection to a backend is opened, to choose a source port whose replies arrive at this core, and to check that the NIC
//! does what is computed here. Not on a packet's usual way.

use core::net::{IpAddr, SocketAddr};

/// Longest key that NICs take, in bytes; most take 40.
pub const LONGEST_KEY: usize = 64;

/// Bytes of the longest input: two IPv6 addresses and two ports.
const LONGEST_INPUT: usize = 36;

/// What a NIC spreads TCP flows by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rss {
    key: Box<[u8]>,
    queues: Box<[u16]>,
}

impl Rss {
    /// A NIC with this key and this indirection table, whose entries are queues. `None` where the key is shorter than an
    /// IPv4 flow needs or longer than any NIC's, or the table is no power of two long.
    #[must_use]
    pub fn new(key: &[u8], table: &[u16]) -> Option<Self> {
        let usable = (16..=LONGEST_KEY).contains(&key.len()) && table.len().is_power_of_two();
        usable.then(|| Self { key: key.into(), queues: table.into() })
    }

    /// The queue at which a segment from `remote` to `local` arrives; `None` where the addresses are of two families.
    #[must_use]
    pub fn queue(&self, remote: SocketAddr, local: SocketAddr) -> Option<u16> {
        let hash = hash(&self.key, remote, local)?;
        // The length is a power of two.
        self.queues.get(hash as usize & (self.queues.len() - 1)).copied()
    }
}

/// The hash of a TCP segment from `source` to `destination`, as NICs compute it with `key`: over both addresses and both ports, as they
/// stand in the headers (Microsoft, "RSS hashing types"). `None` where the addresses are of two families.
#[must_use]
pub fn hash(key: &[u8], source: SocketAddr, destination: SocketAddr) -> Option<u32> {
    let mut input = [0; LONGEST_INPUT];
    let len = match (source.ip(), destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            input[..4].copy_from_slice(&source.octets());
            input[4..8].copy_from_slice(&destination.octets());
            8
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            input[..16].copy_from_slice(&source.octets());
            input[16..32].copy_from_slice(&destination.octets());
            32
        }
        _ => return None,
    };
    input[len..len + 2].copy_from_slice(&source.port().to_be_bytes());
    input[len + 2..len + 4].copy_from_slice(&destination.port().to_be_bytes());
    Some(toeplitz(key, &input[..len + 4]))
}

/// For each bit of `input` that is set, the 32 bits of `key` that begin at its position, added modulo 2. The key counts as followed by zeros.
fn toeplitz(key: &[u8], input: &[u8]) -> u32 {
    let at = |position: usize| key.get(position).copied().unwrap_or(0);
    let mut window = u32::from_be_bytes([at(0), at(1), at(2), at(3)]);
    let mut hash = 0;
    for (position, byte) in input.iter().enumerate() {
        let next = at(position + 4);
        for bit in (0..8).rev() {
            if byte >> bit & 1 != 0 {
                hash ^= window;
            }
            window = window << 1 | u32::from(next >> bit & 1);
        }
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of Microsoft's "Verifying the RSS hash calculation", and of many drivers.
    const KEY: [u8; 40] = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca,
        0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b,
        0xbe, 0xac, 0x01, 0xfa,
    ];

    /// Destination, source, and the hash with TCP's ports, from the same page.
    const VECTORS: [(&str, &str, u32); 8] = [
        ("161.142.100.80:1766", "66.9.149.187:2794", 0x51cc_c178),
        ("65.69.140.83:4739", "199.92.111.2:14230", 0xc626_b0ea),
        ("12.22.207.184:38024", "24.19.198.95:12898", 0x5c2b_394a),
        ("209.142.163.6:2217", "38.27.205.30:48228", 0xafc7_327f),
        ("202.188.127.2:1303", "153.39.163.191:44251", 0x10e8_28a2),
        ("[3ffe:2501:200:3::1]:1766", "[3ffe:2501:200:1fff::7]:2794", 0x4020_7d3d),
        ("[ff02::1]:4739", "[3ffe:501:8::260:97ff:fe40:efab]:14230", 0xdde5_1bbf),
        ("[fe80::200:f8ff:fe21:67cf]:38024", "[3ffe:1900:4545:3:200:f8ff:fe21:67cf]:44251", 0x02d1_feef),
    ];

    #[test]
    fn it_computes_what_microsoft_published() {
        for (destination, source, expected) in VECTORS {
            let computed = hash(&KEY, source.parse().unwrap(), destination.parse().unwrap());
            assert_eq!(computed, Some(expected), "{source} to {destination}");
        }
    }

    #[test]
    fn the_table_is_entered_by_the_lowest_bits() {
        let rss = Rss::new(&KEY, &[7, 8, 9, 10]).unwrap();
        let (remote, local) = ("66.9.149.187:2794".parse().unwrap(), "161.142.100.80:1766".parse().unwrap());
        assert_eq!(rss.queue(remote, local), Some([7, 8, 9, 10][0x51cc_c178 & 3]));
        assert_eq!(rss.queue(remote, "[::1]:80".parse().unwrap()), None);
        assert!(Rss::new(&KEY, &[1, 2, 3]).is_none());
        assert!(Rss::new(&KEY[..8], &[1, 2]).is_none());
    }
}
