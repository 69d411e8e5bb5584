//! What a received frame is to steering: whose flow it is, as far as its headers tell. Nothing is verified here; the core that the
//! frame ends at does that.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::flow::FlowKey;

/// What a frame is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    /// A TCP segment, or an ICMP error about one of ours.
    Flow {
        /// Seen from here: local is us.
        key: FlowKey,
        /// The segment opens a connection: SYN without ACK.
        opens: bool,
        /// It is an ICMP error.
        error: bool,
    },
    /// News of a neighbor that every core wants to hear: an ARP reply or announcement, a neighbor or router advertisement, a redirect, a probe
    /// for duplicate addresses.
    Neighbor,
    /// Anything else; any core will do.
    Other,
}

/// IPv6 extension headers that are stepped over at most; what has more is looked at where it arrives.
const EXTENSIONS: usize = 4;

const ARP: u16 = 0x0806;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const TCP: u8 = 6;
const ICMP: u8 = 1;
const ICMP6: u8 = 58;

/// Looks at a frame from its Ethernet header on.
#[inline]
pub(super) fn about(frame: &[u8]) -> About {
    look(frame).unwrap_or(About::Other)
}

#[inline]
fn look(frame: &[u8]) -> Option<About> {
    let mut at = 14;
    let mut ethertype = be16(frame, 12)?;
    // Two tags at most: IEEE 802.1Q, 802.1ad.
    for _ in 0..2 {
        if matches!(ethertype, 0x8100 | 0x88a8) {
            ethertype = be16(frame, at + 2)?;
            at += 4;
        }
    }
    let packet = frame.get(at..)?;
    match ethertype {
        IPV4 => ipv4(packet),
        IPV6 => ipv6(packet),
        ARP => arp(packet),
        _ => None,
    }
}

#[inline]
fn ipv4(packet: &[u8]) -> Option<About> {
    let header = packet.first_chunk::<20>()?;
    let len = usize::from(header[0] & 0xf) * 4;
    // Fragments: the ports are in the first one only. They are dropped wherever they are.
    if header[0] >> 4 != 4 || len < 20 || u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0 {
        return None;
    }
    let payload = packet.get(len..)?;
    let source = Ipv4Addr::new(header[12], header[13], header[14], header[15]);
    let destination = Ipv4Addr::new(header[16], header[17], header[18], header[19]);
    match header[9] {
        TCP => {
            let (from, to, opens) = tcp(payload)?;
            Some(About::Flow { key: FlowKey::v4(destination, to, source, from), opens, error: false })
        }
        // Destination unreachable, source quench, time exceeded, parameter problem (RFC 792).
        ICMP if matches!(payload.first()?, 3 | 4 | 11 | 12) => quoted(payload),
        _ => None,
    }
}

#[inline]
fn ipv6(packet: &[u8]) -> Option<About> {
    let header = packet.first_chunk::<40>()?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let (protocol, payload) = after_extensions(header[6], packet.get(40..)?)?;
    match protocol {
        TCP => {
            let (from, to, opens) = tcp(payload)?;
            let key = FlowKey::new((v6(header, 24), to).into(), (v6(header, 8), from).into());
            Some(About::Flow { key, opens, error: false })
        }
        ICMP6 => match payload.first()? {
            // RFC 4443 §3: the error messages.
            1..=4 => quoted(payload),
            // RFC 4861 §4.2, §4.4, §4.5.
            134 | 136 | 137 => Some(About::Neighbor),
            // Somebody is about to take the address that he asks for (RFC 4862 §5.4.3): all who are about to take it have to know.
            135 if header[8..24] == [0; 16] => Some(About::Neighbor),
            _ => None,
        },
        _ => None,
    }
}

/// The packet of ours that an ICMP error quotes behind its 8 bytes: its source is us.
#[cold]
fn quoted(message: &[u8]) -> Option<About> {
    let packet = message.get(8..)?;
    let (local, remote, payload) = if packet.first()? >> 4 == 4 {
        let header = packet.first_chunk::<20>()?;
        let payload = packet.get(usize::from(header[0] & 0xf).max(5) * 4..)?;
        let at = |at: usize| IpAddr::V4(Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]));
        (header[9] == TCP).then_some((at(12), at(16), payload))?
    } else {
        let header = packet.first_chunk::<40>()?;
        let (protocol, payload) = after_extensions(header[6], packet.get(40..)?)?;
        (protocol == TCP).then_some((v6(header, 8).into(), v6(header, 24).into(), payload))?
    };
    let key = FlowKey::new((local, be16(payload, 0)?).into(), (remote, be16(payload, 2)?).into());
    Some(About::Flow { key, opens: false, error: true })
}

/// Source port, destination port, and whether it is a SYN without ACK.
#[inline]
fn tcp(segment: &[u8]) -> Option<(u16, u16, bool)> {
    let header = segment.first_chunk::<20>()?;
    let port = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    Some((port(0), port(2), header[13] & 0x12 == 0x02))
}

/// Steps over hop-by-hop options, routing headers and destination options (RFC 8200 §4).
fn after_extensions(mut next: u8, mut rest: &[u8]) -> Option<(u8, &[u8])> {
    for _ in 0..EXTENSIONS {
        if !matches!(next, 0 | 43 | 60) {
            break;
        }
        let len = (usize::from(*rest.get(1)?) + 1) * 8;
        next = *rest.first()?;
        rest = rest.get(len..)?;
    }
    Some((next, rest))
}

/// RFC 826; a request is news where it is an announcement: its sender asks for itself (RFC 5227 §3).
#[cold]
fn arp(packet: &[u8]) -> Option<About> {
    let packet = packet.first_chunk::<28>()?;
    let news = packet[7] == 2 || packet[14..18] == packet[24..28];
    news.then_some(About::Neighbor)
}

fn v6(header: &[u8; 40], at: usize) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&header[at..at + 16]);
    octets.into()
}

#[inline]
fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipv4(protocol: u8, source: [u8; 4], destination: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0];
        packet.extend(source.iter().chain(&destination).chain(payload));
        packet
    }

    fn ipv6(next: u8, source: Ipv6Addr, destination: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, next, 64];
        packet.extend(source.octets().iter().chain(&destination.octets()).chain(payload));
        packet
    }

    fn tcp(from: u16, to: u16, flags: u8) -> Vec<u8> {
        let mut segment = vec![0; 20];
        segment[..2].copy_from_slice(&from.to_be_bytes());
        segment[2..4].copy_from_slice(&to.to_be_bytes());
        segment[13] = flags;
        segment
    }

    fn frame(tags: &[u8], ethertype: u16, packet: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend(tags);
        frame.extend(ethertype.to_be_bytes());
        frame.extend(packet);
        frame
    }

    const THEM: [u8; 4] = [10, 0, 0, 2];
    const US: [u8; 4] = [10, 0, 0, 1];

    #[test]
    fn a_segment_is_its_flows_with_and_without_tags() {
        let key = FlowKey::new("10.0.0.1:80".parse().unwrap(), "10.0.0.2:4000".parse().unwrap());
        let packet = ipv4(TCP, THEM, US, &tcp(4000, 80, 0x02));
        for tags in [&[][..], &[0x81, 0, 0, 7], &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 8]] {
            assert_eq!(about(&frame(tags, IPV4, &packet)), About::Flow { key, opens: true, error: false });
        }
        let packet = ipv4(TCP, THEM, US, &tcp(4000, 80, 0x12));
        assert_eq!(about(&frame(&[], IPV4, &packet)), About::Flow { key, opens: false, error: false });
        for len in 0..packet.len() {
            assert_eq!(about(&frame(&[], IPV4, &packet[..len])), About::Other, "cut at {len}");
        }
    }

    #[test]
    fn a_fragment_is_nobodys() {
        let mut packet = ipv4(TCP, THEM, US, &tcp(4000, 80, 0x10));
        packet[6] = 0x20;
        assert_eq!(about(&frame(&[], IPV4, &packet)), About::Other);
    }

    #[test]
    fn an_error_belongs_to_the_flow_that_it_quotes() {
        let key = FlowKey::new("10.0.0.1:20000".parse().unwrap(), "10.0.0.2:8080".parse().unwrap());
        let mut message = vec![3, 4, 0, 0, 0, 0, 5, 0];
        message.extend(ipv4(TCP, US, THEM, &tcp(20000, 8080, 0x10)[..8]));
        let packet = ipv4(ICMP, [192, 0, 2, 1], US, &message);
        assert_eq!(about(&frame(&[], IPV4, &packet)), About::Flow { key, opens: false, error: true });
        let echo = ipv4(ICMP, THEM, US, &[8, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(about(&frame(&[], IPV4, &echo)), About::Other);
    }

    #[test]
    fn ipv6_is_looked_at_behind_its_extension_headers() {
        let (us, them) = ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
        let key = FlowKey::new("[fd00::1]:80".parse().unwrap(), "[fd00::2]:4000".parse().unwrap());
        let segment = tcp(4000, 80, 0x10);
        let behind: Vec<u8> = [&[TCP, 0, 0, 0, 0, 0, 0, 0], &segment[..]].concat();
        let flow = About::Flow { key, opens: false, error: false };
        assert_eq!(about(&frame(&[], IPV6, &ipv6(TCP, them, us, &segment))), flow);
        assert_eq!(about(&frame(&[], IPV6, &ipv6(60, them, us, &behind))), flow);
        let mut message = vec![2, 0, 0, 0, 0, 0, 5, 0];
        message.extend(ipv6(TCP, us, them, &tcp(80, 4000, 0x10)));
        let error = About::Flow { key, opens: false, error: true };
        assert_eq!(about(&frame(&[], IPV6, &ipv6(ICMP6, them, us, &message))), error);
    }

    #[test]
    fn news_of_neighbors_are_for_everybody_and_questions_are_not() {
        let arp = |operation: u8, sender: [u8; 4], target: [u8; 4]| {
            let mut packet = vec![0, 1, 8, 0, 6, 4, 0, operation];
            packet.extend([[2, 0, 0, 0, 0, 9].as_slice(), &sender, &[0; 6], &target].concat());
            about(&frame(&[], ARP, &packet))
        };
        assert_eq!(arp(1, THEM, US), About::Other);
        assert_eq!(arp(1, THEM, THEM), About::Neighbor);
        assert_eq!(arp(2, THEM, US), About::Neighbor);
        let (us, them) = ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
        let nd = |kind: u8| about(&frame(&[], IPV6, &ipv6(ICMP6, them, us, &[kind, 0, 0, 0, 0, 0, 0, 0])));
        assert_eq!((nd(136), nd(134), nd(135)), (About::Neighbor, About::Neighbor, About::Other));
        let probe = ipv6(ICMP6, Ipv6Addr::UNSPECIFIED, us, &[135, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(about(&frame(&[], IPV6, &probe)), About::Neighbor);
    }
}
