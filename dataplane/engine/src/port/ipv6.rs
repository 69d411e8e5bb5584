//! IPv6 headers and their extension headers (RFC 8200).

use core::net::Ipv6Addr;

use tables::Verdict;

use super::ipv4::ETHERNET;

/// Bytes of an IPv6 header.
pub(super) const HEADER: usize = 40;

/// The least MTU of a link (RFC 8200 §5).
pub(super) const LEAST_MTU: u16 = 1280;

/// Next header values.
pub(super) const HOP_BY_HOP: u8 = 0;
pub(super) const ICMP: u8 = 58;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
pub(super) const NO_NEXT: u8 = 59;
const DESTINATION_OPTIONS: u8 = 60;

/// Extension headers of one packet at most (RFC 8504 §5.3 lets a host limit them); real ones carry one or two.
const EXTENSIONS: usize = 4;

/// Options of one extension header at most, padding among them (RFC 8504 §5.3).
const OPTIONS: usize = 8;

/// Codes of a parameter problem (RFC 4443 §3.4).
const ERRONEOUS_FIELD: u8 = 0;
pub(super) const UNRECOGNIZED_NEXT_HEADER: u8 = 1;
const UNRECOGNIZED_OPTION: u8 = 2;

/// What a valid IPv6 header says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    /// Bytes of the header with its extension headers.
    pub(super) len: usize,
    /// Bytes of the packet; the frame may be longer.
    pub(super) total: usize,
    /// What follows the extension headers.
    pub(super) protocol: u8,
    /// Where in the packet the field stands that says so.
    pub(super) protocol_at: usize,
    pub(super) hop_limit: u8,
    pub(super) source: Ipv6Addr,
    pub(super) destination: Ipv6Addr,
    /// An extension header that keeps the packet from being taken.
    pub(super) objection: Option<Objection>,
}

/// What is wrong with a packet's extension headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Objection {
    pub(super) verdict: Verdict,
    /// The parameter problem to be told to the source.
    pub(super) problem: Option<Problem>,
}

/// A parameter problem (RFC 4443 §3.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) code: u8,
    /// Where in the packet it is.
    pub(super) pointer: u32,
    /// Told even where the packet went to a group (RFC 8200 §4.2).
    pub(super) even_to_group: bool,
}

/// Reads the header at the start of `packet`, which may be padded at its end, and its extension headers. What is wrong with those
/// is in the header's `objection`: whether anybody is told depends on whom the packet is for.
///
/// # Errors
/// The verdict on a packet that is shorter than a header or whose length does not fit. Jumbograms (RFC 2675) are among them.
#[inline]
pub(super) fn parse(packet: &[u8]) -> Result<Header, Verdict> {
    let Some(fixed) = packet.first_chunk::<HEADER>() else {
        return Err(Verdict::Truncated);
    };
    let total = HEADER + usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
    if fixed[0] >> 4 != 6 || total > packet.len() {
        return Err(Verdict::IpHeader);
    }
    let mut header = Header {
        len: HEADER,
        total,
        protocol: fixed[6],
        protocol_at: 6,
        hop_limit: fixed[7],
        source: address(fixed, 8),
        destination: address(fixed, 24),
        objection: None,
    };
    if matches!(header.protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS) {
        header.objection = walk(packet.get(..total).ok_or(Verdict::IpHeader)?, &mut header).err();
    }
    Ok(header)
}

/// The address at `at` in a header.
#[inline]
fn address(header: &[u8; HEADER], at: usize) -> Ipv6Addr {
    let octets = header.get(at..).and_then(|rest| rest.first_chunk::<16>());
    octets.map_or(Ipv6Addr::UNSPECIFIED, |octets| Ipv6Addr::from(*octets))
}

/// Steps over the extension headers, as far as they may be stepped over.
#[cold]
fn walk(packet: &[u8], header: &mut Header) -> Result<(), Objection> {
    let malformed = Objection { verdict: Verdict::IpHeader, problem: None };
    let erroneous = |verdict, code, pointer: usize| Objection {
        verdict,
        // It fits: a packet has at most 65,575 bytes.
        problem: Some(Problem { code, pointer: pointer as u32, even_to_group: false }),
    };
    for _ in 0..EXTENSIONS {
        let at = header.len;
        let rest = packet.get(at..).unwrap_or_default();
        let (next, len) = match (header.protocol, rest) {
            // Only directly behind the IPv6 header (RFC 8200 §4.1).
            (HOP_BY_HOP, _) if at > HEADER => {
                return Err(erroneous(Verdict::IpExtension, UNRECOGNIZED_NEXT_HEADER, header.protocol_at));
            }
            (HOP_BY_HOP | DESTINATION_OPTIONS, [next, len, ..]) => {
                let len = (usize::from(*len) + 1) * 8;
                options(rest.get(2..len).ok_or(malformed)?, at + 2)?;
                (*next, len)
            }
            // Of no type that anybody here follows, type 0 among them (RFC 5095 §3): ignored where it has been followed to its end.
            (ROUTING, [next, len, _, left, ..]) => {
                if *left != 0 {
                    return Err(erroneous(Verdict::IpExtension, ERRONEOUS_FIELD, at + 2));
                }
                (*next, (usize::from(*len) + 1) * 8)
            }
            // A fragment that is the whole packet (RFC 6946) is like none.
            (FRAGMENT, [next, _, high, low, _, _, _, _, ..]) => {
                if u16::from_be_bytes([*high, *low]) & 0xfff9 != 0 {
                    return Err(Objection { verdict: Verdict::Fragment, problem: None });
                }
                (*next, 8)
            }
            (HOP_BY_HOP | DESTINATION_OPTIONS | ROUTING | FRAGMENT, _) => return Err(malformed),
            _ => return Ok(()),
        };
        if at + len > packet.len() {
            return Err(malformed);
        }
        (header.protocol, header.protocol_at, header.len) = (next, at, at + len);
    }
    match header.protocol {
        HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS => {
            Err(Objection { verdict: Verdict::IpExtension, problem: None })
        }
        _ => Ok(()),
    }
}

/// Looks at the options of an extension header, which begin `at` bytes into the packet (RFC 8200 §4.2).
fn options(mut bytes: &[u8], mut at: usize) -> Result<(), Objection> {
    const PAD1: u8 = 0;
    const PADN: u8 = 1;
    const ROUTER_ALERT: u8 = 5;
    for _ in 0..OPTIONS {
        let (kind, len) = match bytes {
            [] => return Ok(()),
            [PAD1, ..] => (PAD1, 1),
            [kind, len, ..] => (*kind, usize::from(*len) + 2),
            [_] => return Err(Objection { verdict: Verdict::IpHeader, problem: None }),
        };
        let problem = |even_to_group| {
            Some(Problem { code: UNRECOGNIZED_OPTION, pointer: u32::try_from(at).unwrap_or(0), even_to_group })
        };
        let problem = match (kind, kind >> 6) {
            // What one does not know, its two highest bits say what to do about.
            (PAD1 | PADN | ROUTER_ALERT, _) | (_, 0) => {
                let Some(rest) = bytes.get(len..) else {
                    return Err(Objection { verdict: Verdict::IpHeader, problem: None });
                };
                bytes = rest;
                at += len;
                continue;
            }
            (_, 1) => None,
            (_, 2) => problem(true),
            _ => problem(false),
        };
        return Err(Objection { verdict: Verdict::IpExtension, problem });
    }
    if bytes.is_empty() { Ok(()) } else { Err(Objection { verdict: Verdict::IpExtension, problem: None }) }
}

/// Takes the extension headers out of the packet in `frame`, whose header is `ip`: moves the IPv6 header up to what follows them.
/// Returns where the packet then begins in the frame.
#[inline]
pub(super) fn collapse(frame: &mut [u8], ip: &Header) -> usize {
    if ip.len > HEADER { move_header(frame, ip) } else { ETHERNET }
}

#[cold]
fn move_header(frame: &mut [u8], ip: &Header) -> usize {
    let extensions = ip.len - HEADER;
    let start = ETHERNET + extensions;
    if frame.len() < start + HEADER {
        return ETHERNET;
    }
    frame.copy_within(ETHERNET..ETHERNET + HEADER, start);
    if let Some(header) = frame.get_mut(start..).and_then(|packet| packet.first_chunk_mut::<HEADER>()) {
        // It fits: the length was a number of 16 bits before.
        header[4..6].copy_from_slice(&((ip.total - ip.len) as u16).to_be_bytes());
        header[6] = ip.protocol;
    }
    start
}

/// Writes a header at the start of `packet`: no flow label, no traffic class. `false` where `packet` has no room for it, or is longer
/// than a length field can say.
pub(super) fn write(packet: &mut [u8], protocol: u8, hop_limit: u8, source: Ipv6Addr, destination: Ipv6Addr) -> bool {
    let Some(Ok(payload)) = packet.len().checked_sub(HEADER).map(u16::try_from) else {
        return false;
    };
    let Some(header) = packet.first_chunk_mut::<HEADER>() else {
        return false;
    };
    let [high, low] = payload.to_be_bytes();
    header[..8].copy_from_slice(&[0x60, 0, 0, 0, high, low, protocol, hop_limit]);
    header[8..24].copy_from_slice(&source.octets());
    header[24..].copy_from_slice(&destination.octets());
    true
}

/// The hop limit of what may travel.
pub(super) const HOPS: u8 = 64;

/// Stands for any destination on the link, where a source is looked for.
pub(super) const ANY_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);

/// Whether `address` can be one host's, seen on a wire: not unspecified, loopback or multicast, and none that embeds an IPv4 address
/// (RFC 4291 §2.5.5), which no wire carries.
#[inline]
pub(super) fn is_unicast(address: Ipv6Addr) -> bool {
    // ::/96 holds the unspecified address, loopback and those compatible with IPv4; ::ffff:0:0/96 the mapped ones.
    let bits = address.to_bits();
    bits >> 32 != 0 && bits >> 32 != 0xffff && bits >> 120 != 0xff
}

/// Whether `address` is a link's own (RFC 4291 §2.5.6).
#[inline]
pub(super) fn is_link_local(address: Ipv6Addr) -> bool {
    address.to_bits() >> 118 == 0xfe80 >> 6
}

/// The group that everybody listens to who has `address` (RFC 4291 §2.7.1).
#[must_use]
pub(super) fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(0xff02_0000_0000_0000_0000_0001_ff00_0000 | (address.to_bits() & 0xff_ffff))
}

/// All nodes on a link.
pub(super) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// All routers on a link.
pub(super) const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// The Ethernet address of a group (RFC 2464 §7).
#[must_use]
pub(super) fn group_mac(group: Ipv6Addr) -> [u8; 6] {
    let [.., a, b, c, d] = group.octets();
    [0x33, 0x33, a, b, c, d]
}

/// The link-local address made from an Ethernet address (RFC 4291 §2.5.6 and Appendix A).
#[must_use]
pub(super) fn link_local(mac: [u8; 6]) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: Ipv6Addr = Ipv6Addr::new(0xfd00, 9, 1, 0, 0, 0, 0, 2);
    const DESTINATION: Ipv6Addr = Ipv6Addr::new(0xfd00, 9, 1, 0, 0, 0, 0, 1);

    /// A packet of `first` and what follows it.
    fn packet(first: u8, rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; HEADER + rest.len()];
        assert!(write(&mut packet, first, HOPS, SOURCE, DESTINATION));
        packet[HEADER..].copy_from_slice(rest);
        packet
    }

    fn objection(first: u8, rest: &[u8]) -> Option<(Verdict, Option<(u8, u32)>)> {
        let header = parse(&packet(first, rest)).unwrap();
        header.objection.map(|o| (o.verdict, o.problem.map(|p| (p.code, p.pointer))))
    }

    #[test]
    fn what_is_written_reads_back() {
        let header = parse(&packet(6, &[1, 2, 3, 4])).unwrap();
        assert_eq!((header.len, header.total, header.protocol, header.hop_limit), (40, 44, 6, 64));
        assert_eq!((header.source, header.destination), (SOURCE, DESTINATION));
        assert!(header.objection.is_none());
        assert_eq!(parse(&packet(6, &[0; 4])[..43]).unwrap_err(), Verdict::IpHeader);
        assert_eq!(parse(&packet(6, &[])[..39]).unwrap_err(), Verdict::Truncated);
    }

    #[test]
    fn extension_headers_are_stepped_over() {
        let chain = [
            &[DESTINATION_OPTIONS, 0, 5, 2, 0, 0, 1, 0][..],
            &[ROUTING, 0, 0x1e, 4, 0, 0, 0, 0],
            &[FRAGMENT, 2, 0, 0, 0, 0, 0, 0],
            &[0; 16],
            &[6, 0xee, 0, 0, 1, 2, 3, 4],
            &[0xaa; 20],
        ]
        .concat();
        let mut frame = [&[0xcc; ETHERNET][..], &packet(HOP_BY_HOP, &chain)].concat();
        let header = parse(&frame[ETHERNET..]).unwrap();
        assert!(header.objection.is_none(), "{header:?}");
        assert_eq!((header.protocol, header.len), (6, 40 + 48));
        let start = collapse(&mut frame, &header);
        let plain = parse(&frame[start..]).unwrap();
        assert_eq!((plain.len, plain.protocol, plain.total), (40, 6, 60));
        assert_eq!((plain.source, plain.destination), (SOURCE, DESTINATION));
        assert_eq!(frame[start + HEADER..], [0xaa; 20]);
    }

    #[test]
    fn extension_headers_are_bounded() {
        let extension = Verdict::IpExtension;
        let pad = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
        let five = [pad(60), pad(60), pad(60), pad(60), pad(6)].concat();
        assert_eq!(objection(60, &five), Some((extension, None)));
        assert_eq!(objection(60, &five[..32]), Some((extension, None)), "as many as may be, and another one announced");
        assert_eq!(objection(60, &five[8..]), None);
        let many = |len: u8, count: usize| {
            let mut header = vec![0; usize::from(len + 1) * 8];
            (header[0], header[1]) = (6, len);
            header[2 + count..].fill(0);
            header
        };
        assert_eq!(objection(60, &many(0, 0)), None, "six of one byte");
        assert_eq!(objection(60, &many(1, 0)), Some((extension, None)), "fourteen of one byte");
        // Behind another header, a hop-by-hop header is one that nobody knows.
        assert_eq!(objection(60, &[pad(0), pad(6)].concat()), Some((extension, Some((1, 40)))));
    }

    #[test]
    fn what_cannot_be_followed_is_told() {
        let extension = Verdict::IpExtension;
        // RFC 5095: a type 0 routing header with segments left is erroneous at its type.
        assert_eq!(objection(43, &[6, 0, 0, 1, 0, 0, 0, 0]), Some((extension, Some((0, 42)))));
        assert_eq!(objection(43, &[6, 0, 0, 0, 0, 0, 0, 0]), None);
        let option = |kind: u8| [6, 0, kind, 4, 0, 0, 0, 0];
        assert_eq!(objection(60, &option(0x3e)), None);
        assert_eq!(objection(60, &option(0x7e)), Some((extension, None)));
        assert_eq!(objection(60, &option(0xbe)), Some((extension, Some((2, 42)))));
        assert_eq!(objection(0, &option(0xc2)), Some((extension, Some((2, 42)))), "a jumbogram");
        for bad in [&[6, 1, 1, 4, 0, 0, 0, 0][..], &[6], &[6, 0, 0x1e, 5, 0, 0, 0, 0], &[6, 0, 1, 3, 0, 0, 0, 9]] {
            assert_eq!(objection(60, bad), Some((Verdict::IpHeader, None)), "{bad:?}");
        }
        for fragment in [[6, 0, 0, 1, 0, 0, 0, 0], [6, 0, 0, 8, 0, 0, 0, 0], [6, 0, 0x10, 1, 0, 0, 0, 0]] {
            assert_eq!(objection(44, &fragment), Some((Verdict::Fragment, None)));
        }
    }

    #[test]
    fn kinds_of_addresses() {
        let ip = |text: &str| text.parse::<Ipv6Addr>().unwrap();
        for text in ["::", "::1", "::10.0.0.1", "::ffff:10.0.0.1", "ff02::1", "ff0e::9"] {
            assert!(!is_unicast(ip(text)), "{text}");
        }
        for text in ["2001:db8::1", "fe80::1", "fd00::", "64:ff9b::1"] {
            assert!(is_unicast(ip(text)), "{text}");
        }
        assert!(is_link_local(ip("fe80::1")) && is_link_local(ip("febf::1")));
        assert!(!is_link_local(ip("fec0::1")) && !is_link_local(ip("fd00::1")));
        assert_eq!(solicited_node(ip("2001:db8::12:3456")), ip("ff02::1:ff12:3456"));
        assert_eq!(group_mac(ip("ff02::1:ff12:3456")), [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
        assert_eq!(link_local([2, 0, 0, 0, 0, 1]), ip("fe80::ff:fe00:1"));
    }
}
