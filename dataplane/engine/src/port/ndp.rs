//! Messages of Neighbor Discovery (RFC 4861 §4) and the listener report (RFC 3810 §5.2).

use core::net::Ipv6Addr;

use ipnet::Ipv6Net;
use tables::Verdict;

use super::icmpv6::{self, ICMP_HEADER, LISTENER_REPORT_V2};
use super::ipv6::{self, HEADER};

/// The hop limit of messages that stay on the link: what has it has passed no router (RFC 4861 §3.1).
pub(super) const LINK_HOPS: u8 = 255;

/// Bytes of an option with an Ethernet address.
const LINK_ADDRESS: usize = 8;

/// Options of one message at most.
const OPTIONS: usize = 32;

/// Prefixes taken from one router advertisement at most.
const PREFIXES: usize = 8;

const SOURCE_LINK_ADDRESS: u8 = 1;
const TARGET_LINK_ADDRESS: u8 = 2;
const PREFIX_INFORMATION: u8 = 3;
const MTU: u8 = 5;

/// Somebody wants to know who has `target`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Solicitation {
    pub(super) target: Ipv6Addr,
    pub(super) link_address: Option<[u8; 6]>,
}

/// Somebody says that it has `target`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Advertisement {
    pub(super) target: Ipv6Addr,
    pub(super) link_address: Option<[u8; 6]>,
    pub(super) router: bool,
    pub(super) solicited: bool,
}

/// A router says that it is there.
#[derive(Debug, Clone)]
pub(super) struct RouterAdvertisement {
    /// Seconds that it is a default router; 0 where it is none.
    pub(super) lifetime: u16,
    pub(super) link_address: Option<[u8; 6]>,
    pub(super) mtu: Option<u32>,
    /// Prefixes that are on the link, and for how many seconds.
    pub(super) prefixes: arrayvec::ArrayVec<(Ipv6Net, u32), PREFIXES>,
}

/// Reads a neighbor solicitation (RFC 4861 §7.1.1).
pub(super) fn solicitation(message: &[u8], ip: &ipv6::Header) -> Result<Solicitation, Verdict> {
    let (target, options) = target(message, ip)?;
    let link_address = options.link_address(SOURCE_LINK_ADDRESS)?;
    // Who has no address yet asks the group, and says nothing of itself.
    let nobody = ip.source.is_unspecified();
    if nobody && (ip.destination != ipv6::solicited_node(target) || link_address.is_some()) {
        return Err(Verdict::NdInvalid);
    }
    Ok(Solicitation { target, link_address })
}

/// Reads a neighbor advertisement (RFC 4861 §7.1.2).
pub(super) fn advertisement(message: &[u8], ip: &ipv6::Header) -> Result<Advertisement, Verdict> {
    let (target, options) = target(message, ip)?;
    let flags = message.get(4).copied().unwrap_or(0);
    let (router, solicited) = (flags & 0x80 != 0, flags & 0x40 != 0);
    if ip.source.is_unspecified() || (solicited && ip.destination.is_multicast()) {
        return Err(Verdict::NdInvalid);
    }
    let link_address = options.link_address(TARGET_LINK_ADDRESS)?;
    Ok(Advertisement { target, link_address, router, solicited })
}

/// Reads a router advertisement (RFC 4861 §6.1.2).
pub(super) fn router_advertisement(message: &[u8], ip: &ipv6::Header) -> Result<RouterAdvertisement, Verdict> {
    let (fixed, options) = message.split_first_chunk::<16>().ok_or(Verdict::NdInvalid)?;
    if ip.hop_limit != LINK_HOPS || fixed[1] != 0 || !ipv6::is_link_local(ip.source) {
        return Err(Verdict::NdInvalid);
    }
    let options = Options(options);
    let mut found = RouterAdvertisement {
        lifetime: u16::from_be_bytes([fixed[6], fixed[7]]),
        link_address: options.link_address(SOURCE_LINK_ADDRESS)?,
        mtu: None,
        prefixes: arrayvec::ArrayVec::new(),
    };
    for option in options.iter() {
        match option? {
            (MTU, [_, _, a, b, c, d]) => found.mtu = Some(u32::from_be_bytes([*a, *b, *c, *d])),
            (PREFIX_INFORMATION, data) => {
                let Some((fixed, prefix)) = data.split_first_chunk::<14>() else { return Err(Verdict::NdInvalid) };
                let Some(prefix) = prefix.first_chunk::<16>() else { return Err(Verdict::NdInvalid) };
                let valid = u32::from_be_bytes([fixed[2], fixed[3], fixed[4], fixed[5]]);
                let on_link = fixed[1] & 0x80 != 0;
                if let Ok(net) = Ipv6Net::new(Ipv6Addr::from(*prefix), fixed[0])
                    && on_link
                {
                    // What is beyond the bound is not taken.
                    let _ = found.prefixes.try_push((net.trunc(), valid));
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

/// What solicitations and advertisements have in common: a target, and options.
fn target<'a>(message: &'a [u8], ip: &ipv6::Header) -> Result<(Ipv6Addr, Options<'a>), Verdict> {
    let (header, rest) = message.split_first_chunk::<ICMP_HEADER>().ok_or(Verdict::NdInvalid)?;
    let (target, options) = rest.split_first_chunk::<16>().ok_or(Verdict::NdInvalid)?;
    let target = Ipv6Addr::from(*target);
    if ip.hop_limit != LINK_HOPS || header[1] != 0 || !ipv6::is_unicast(target) {
        return Err(Verdict::NdInvalid);
    }
    Ok((target, Options(options)))
}

/// The options of a message (RFC 4861 §4.6).
#[derive(Clone, Copy)]
struct Options<'a>(&'a [u8]);

impl<'a> Options<'a> {
    /// Type and data of each; an error where one has no length or reaches beyond the message, or where there are too many.
    fn iter(self) -> impl Iterator<Item = Result<(u8, &'a [u8]), Verdict>> {
        let mut rest = self.0;
        let mut left = OPTIONS;
        core::iter::from_fn(move || {
            let (kind, len) = match rest {
                [] => return None,
                [kind, len, ..] if *len > 0 && left > 0 => (*kind, usize::from(*len) * 8),
                _ => {
                    rest = &[];
                    return Some(Err(Verdict::NdInvalid));
                }
            };
            left -= 1;
            let Some((option, behind)) = rest.split_at_checked(len) else {
                rest = &[];
                return Some(Err(Verdict::NdInvalid));
            };
            rest = behind;
            Some(Ok((kind, &option[2..])))
        })
    }

    /// The Ethernet address in the option of type `wanted`, once all options are known to be well formed.
    fn link_address(self, wanted: u8) -> Result<Option<[u8; 6]>, Verdict> {
        let mut found = None;
        for option in self.iter() {
            let (kind, data) = option?;
            if kind == wanted {
                let mac = data.first_chunk::<6>().ok_or(Verdict::NdInvalid)?;
                // A group's address is nobody's.
                if mac[0] & 1 != 0 || *mac == [0; 6] {
                    return Err(Verdict::NdInvalid);
                }
                found = Some(*mac);
            }
        }
        Ok(found)
    }
}

/// A message of ours, but for its addresses.
#[derive(Debug, Clone, Copy)]
pub(super) enum Outgoing {
    /// Who has `target`? Without `link_address` where the source is unspecified.
    Solicitation { target: Ipv6Addr, link_address: Option<[u8; 6]> },
    /// We have `target`, at `link_address`.
    Advertisement { target: Ipv6Addr, link_address: [u8; 6], solicited: bool },
    /// Are there routers?
    RouterSolicitation { link_address: [u8; 6] },
}

impl Outgoing {
    /// Bytes of the IP packet.
    pub(super) fn len(&self) -> usize {
        HEADER
            + match self {
                Self::Solicitation { link_address: None, .. } => 24,
                Self::Solicitation { .. } | Self::Advertisement { .. } => 24 + LINK_ADDRESS,
                Self::RouterSolicitation { .. } => 8 + LINK_ADDRESS,
            }
    }

    /// Writes the IP packet, which is [`Outgoing::len`] bytes long.
    pub(super) fn write(&self, packet: &mut [u8], source: Ipv6Addr, destination: Ipv6Addr) -> Option<()> {
        if !ipv6::write(packet, ipv6::ICMP, LINK_HOPS, source, destination) {
            return None;
        }
        let (header, rest) = packet.get_mut(HEADER..)?.split_first_chunk_mut::<8>()?;
        let (kind, flags, target, option) = match *self {
            Self::Solicitation { target, link_address } => {
                let option = link_address.map(|mac| (SOURCE_LINK_ADDRESS, mac));
                (icmpv6::NEIGHBOR_SOLICITATION, 0, Some(target), option)
            }
            Self::Advertisement { target, link_address, solicited } => {
                // It overrides what is known (RFC 4861 §7.2.4): the address is one host's.
                let flags = if solicited { 0x60 } else { 0x20 };
                (icmpv6::NEIGHBOR_ADVERTISEMENT, flags, Some(target), Some((TARGET_LINK_ADDRESS, link_address)))
            }
            Self::RouterSolicitation { link_address } => {
                (icmpv6::ROUTER_SOLICITATION, 0, None, Some((SOURCE_LINK_ADDRESS, link_address)))
            }
        };
        *header = [kind, 0, 0, 0, flags, 0, 0, 0];
        let rest = match target {
            Some(target) => {
                let (place, rest) = rest.split_first_chunk_mut::<16>()?;
                *place = target.octets();
                rest
            }
            None => rest,
        };
        if let Some((kind, [a, b, c, d, e, f])) = option {
            *rest.first_chunk_mut::<LINK_ADDRESS>()? = [kind, 1, a, b, c, d, e, f];
        }
        icmpv6::finish(packet)
    }
}

/// Bytes of a hop-by-hop header with a router alert.
const ALERT: usize = 8;

/// Bytes of the IP packet that reports `groups` groups.
pub(super) fn report_len(groups: usize) -> usize {
    HEADER + ALERT + 8 + groups * 20
}

/// Writes a report of the groups that we listen to (RFC 3810 §5.2), which is [`report_len`] bytes long: switches that snoop let
/// through only what was asked for.
pub(super) fn write_report(packet: &mut [u8], source: Ipv6Addr, groups: &[Ipv6Addr]) -> Option<()> {
    const ALL_REPORT_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
    const EXCLUDE: u8 = 4;
    if !ipv6::write(packet, ipv6::HOP_BY_HOP, 1, source, ALL_REPORT_ROUTERS) {
        return None;
    }
    let (header, rest) = packet.split_first_chunk_mut::<HEADER>()?;
    let (alert, message) = rest.split_first_chunk_mut::<ALERT>()?;
    *alert = [ipv6::ICMP, 0, 5, 2, 0, 0, 1, 0];
    let (head, records) = message.split_first_chunk_mut::<8>()?;
    let [high, low] = u16::try_from(groups.len()).ok()?.to_be_bytes();
    *head = [LISTENER_REPORT_V2, 0, 0, 0, 0, 0, high, low];
    for (record, group) in records.chunks_exact_mut(20).zip(groups) {
        let (head, address) = record.split_at_mut(4);
        head.copy_from_slice(&[EXCLUDE, 0, 0, 0]);
        address.copy_from_slice(&group.octets());
    }
    icmpv6::fill(header, message)
}
