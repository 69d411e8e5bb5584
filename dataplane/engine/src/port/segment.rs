//! TCP segments: what a valid one says, and bare ones of our own.

use core::net::IpAddr;
#[cfg(test)]
use core::net::Ipv4Addr;
use core::ops::{BitOr, Range};

use pmd::{RxChecksum, checksum};
use tables::Verdict;

use super::{ipv4, ipv6};
use crate::flow::FlowKey;

/// Bytes of a TCP header without options.
pub(super) const HEADER: usize = 20;

/// The largest shift of a window (RFC 7323 §2.3).
pub const LARGEST_WINDOW_SCALE: u8 = 14;

/// A TCP segment that passed every check that needs no connection.
#[derive(Debug, Clone, Copy)]
pub struct Segment {
    /// The connection; its local end is us.
    pub key: FlowKey,
    /// Which of the port's interfaces it came in by.
    pub interface: u8,
    /// Where the IP header begins in the frame.
    pub ip_offset: usize,
    /// Where the TCP header begins in the frame.
    pub tcp_offset: usize,
    /// Where the payload begins in the frame.
    pub payload_offset: usize,
    /// Bytes of payload.
    pub payload_len: usize,
    /// Where the IP packet ends in the frame, which may be padded beyond it.
    pub end: usize,
    /// Sequence number of the first byte, or of the SYN.
    pub seq: u32,
    /// Acknowledgment number; valid where the ACK flag is set.
    pub ack: u32,
    /// Control bits.
    pub flags: Flags,
    /// Window as it stands in the header, not scaled.
    pub window: u16,
    /// Options. Only a SYN's MSS, window scale and SACK-permitted mean anything.
    pub options: Options,
}

impl Segment {
    /// Sequence space that it takes: payload, SYN and FIN (RFC 9293 §3.4).
    #[inline]
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "SEG.LEN is the RFC's name, and no container's length")]
    pub fn len(&self) -> u32 {
        // It fits: an IP packet has at most 65,535 bytes.
        self.payload_len as u32 + u32::from(self.flags.syn()) + u32::from(self.flags.fin())
    }
}

#[cfg(test)]
impl Segment {
    /// An empty ACK from port 4000 of 10.0.0.2 to port 80 of 10.0.0.1, to be changed by tests.
    pub(crate) fn test() -> Self {
        Self {
            key: FlowKey::v4(Ipv4Addr::new(10, 0, 0, 1), 80, Ipv4Addr::new(10, 0, 0, 2), 4000),
            interface: 0,
            ip_offset: 14,
            tcp_offset: 34,
            payload_offset: 54,
            payload_len: 0,
            end: 54,
            seq: 0,
            ack: 0,
            flags: Flags::ACK,
            window: 0,
            options: Options::default(),
        }
    }
}

/// Control bits of a TCP header (RFC 9293 §3.1), without ECN's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronize sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Push.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgment number is valid.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer is valid.
    pub const URG: Self = Self(0x20);

    /// Whether all bits of `other` are set.
    #[inline]
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether FIN is set.
    #[inline]
    #[must_use]
    pub const fn fin(self) -> bool {
        self.contains(Self::FIN)
    }

    /// Whether SYN is set.
    #[inline]
    #[must_use]
    pub const fn syn(self) -> bool {
        self.contains(Self::SYN)
    }

    /// Whether RST is set.
    #[inline]
    #[must_use]
    pub const fn rst(self) -> bool {
        self.contains(Self::RST)
    }

    /// Whether ACK is set.
    #[inline]
    #[must_use]
    pub const fn ack(self) -> bool {
        self.contains(Self::ACK)
    }

    /// Whether a TCP sends such a combination: at most one of SYN, FIN and RST, and ACK unless it is a SYN or RST
    /// (RFC 9293 §3.10.7.4). Null and Xmas scans fail here, too.
    #[inline]
    #[must_use]
    pub const fn plausible(self) -> bool {
        match self.0 & 0x07 {
            0x00 | 0x01 => self.ack(),
            0x02 | 0x04 => true,
            _ => false,
        }
    }
}

impl BitOr for Flags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// TCP options that matter here (RFC 9293 §3.2, RFC 7323, RFC 2018). Where one is repeated, the last counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Maximum segment size, as it was sent.
    pub mss: Option<u16>,
    /// Window scale, as it was sent: it may be above [`LARGEST_WINDOW_SCALE`].
    pub window_scale: Option<u8>,
    /// Selective acknowledgments may be sent.
    pub sack_permitted: bool,
    /// It tells of data behind a gap (RFC 2018 §3).
    pub sack: bool,
    /// Timestamp value and echo reply.
    pub timestamps: Option<(u32, u32)>,
}

/// Reads the segment in `frame`, whose IPv4 header is valid and `ip`.
#[inline]
pub(super) fn parse_v4(frame: &[u8], ip: &ipv4::Header, seen: RxChecksum) -> Result<Segment, Verdict> {
    let place = Place {
        ip_offset: ipv4::ETHERNET,
        tcp_offset: ipv4::ETHERNET + ip.len,
        end: ipv4::ETHERNET + ip.total,
        addresses: ipv4::ETHERNET + 12..ipv4::ETHERNET + 20,
    };
    parse(frame, place, seen, |local_port, port| FlowKey::v4(ip.destination, local_port, ip.source, port))
}

/// Reads the segment in `frame`, whose IPv6 header is valid and `ip`, and begins at `ip_offset` now that its extension headers are gone.
#[inline]
pub(super) fn parse_v6(
    frame: &[u8],
    ip: &ipv6::Header,
    ip_offset: usize,
    seen: RxChecksum,
) -> Result<Segment, Verdict> {
    let place = Place {
        ip_offset,
        tcp_offset: ip_offset + ipv6::HEADER,
        end: ipv4::ETHERNET + ip.total,
        addresses: ip_offset + 8..ip_offset + 40,
    };
    parse(frame, place, seen, |local_port, port| FlowKey::v6(ip.destination, local_port, ip.source, port))
}

/// Where a segment lies in its frame.
struct Place {
    ip_offset: usize,
    tcp_offset: usize,
    end: usize,
    /// Source and destination, as they stand in the IP header.
    addresses: Range<usize>,
}

#[inline]
fn parse(
    frame: &[u8],
    place: Place,
    seen: RxChecksum,
    key: impl FnOnce(u16, u16) -> FlowKey,
) -> Result<Segment, Verdict> {
    let Place { ip_offset, tcp_offset, end, addresses } = place;
    let tcp = frame.get(tcp_offset..end).ok_or(Verdict::Truncated)?;
    let header = tcp.first_chunk::<HEADER>().ok_or(Verdict::TcpHeader)?;
    let len = usize::from(header[12] >> 4) * 4;
    let source_port = u16::from_be_bytes([header[0], header[1]]);
    let destination_port = u16::from_be_bytes([header[2], header[3]]);
    if len < HEADER || len > tcp.len() {
        return Err(Verdict::TcpHeader);
    }
    if seen != RxChecksum::Good {
        let addresses = frame.get(addresses).ok_or(Verdict::Truncated)?;
        // It fits: the IP header's length is 16 bits.
        let seed = checksum::pseudo_header(addresses, ipv4::TCP, tcp.len() as u16);
        if checksum::sum(seed, tcp) != 0xffff {
            return Err(Verdict::TcpChecksum);
        }
    }
    // A checksum error may be what made them 0.
    if source_port == 0 || destination_port == 0 {
        return Err(Verdict::TcpHeader);
    }
    let flags = Flags(header[13] & 0x3f);
    if !flags.plausible() {
        return Err(Verdict::TcpFlags);
    }
    Ok(Segment {
        key: key(destination_port, source_port),
        interface: 0,
        ip_offset,
        tcp_offset,
        payload_offset: tcp_offset + len,
        payload_len: tcp.len() - len,
        end,
        seq: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
        ack: u32::from_be_bytes([header[8], header[9], header[10], header[11]]),
        flags,
        window: u16::from_be_bytes([header[14], header[15]]),
        options: options(tcp.get(HEADER..len).ok_or(Verdict::TcpHeader)?)?,
    })
}

const OPTION_MSS: u8 = 2;
const OPTION_WINDOW_SCALE: u8 = 3;

fn options(bytes: &[u8]) -> Result<Options, Verdict> {
    let mut options = Options::default();
    for option in OptionIter(bytes) {
        let (kind, data) = option?;
        match (kind, data) {
            (OPTION_MSS, [high, low]) => options.mss = Some(u16::from_be_bytes([*high, *low])),
            (OPTION_WINDOW_SCALE, [shift]) => options.window_scale = Some(*shift),
            (4, []) => options.sack_permitted = true,
            (8, [a, b, c, d, e, f, g, h]) => {
                options.timestamps = Some((u32::from_be_bytes([*a, *b, *c, *d]), u32::from_be_bytes([*e, *f, *g, *h])));
            }
            (5, blocks) if !blocks.is_empty() && blocks.len() % 8 == 0 => options.sack = true,
            (2..=5 | 8, _) => return Err(Verdict::TcpOption),
            _ => {}
        }
    }
    Ok(options)
}

/// Kind and data of each option (RFC 9293 §3.2). Ends: each step takes at least one of at most 40 bytes.
struct OptionIter<'a>(&'a [u8]);

impl<'a> Iterator for OptionIter<'a> {
    type Item = Result<(u8, &'a [u8]), Verdict>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut bytes = self.0;
        while let [1, rest @ ..] = bytes {
            bytes = rest;
        }
        let (item, rest) = match bytes {
            [] | [0, ..] => return None,
            [kind, len, ..] if *len >= 2 && usize::from(*len) <= bytes.len() => {
                let (option, rest) = bytes.split_at(usize::from(*len));
                (Ok((*kind, &option[2..])), rest)
            }
            _ => (Err(Verdict::TcpOption), &bytes[..0]),
        };
        self.0 = rest;
        Some(item)
    }
}

/// Puts a SYN's options right in place, in `frame` and in `segment`: an MSS below `least_mss` (0, too) becomes that, and
/// a window scale above [`LARGEST_WINDOW_SCALE`] becomes that. The TCP checksum is left as it is: it was checked already.
pub fn clamp_syn_options(frame: &mut [u8], segment: &mut Segment, least_mss: u16) {
    let (from, to) = (segment.tcp_offset + HEADER, segment.payload_offset);
    let mut offset = from;
    // Ends: each step takes at least one of at most 40 bytes.
    while let Some(&kind) = frame.get(..to).and_then(|header| header.get(offset)) {
        let len = match kind {
            0 => break,
            1 => 1,
            _ => usize::from(frame.get(offset + 1).copied().unwrap_or(0)).max(2),
        };
        let data = frame.get_mut(offset + 2..(offset + len).min(to).max(offset + 2)).unwrap_or_default();
        match (kind, data) {
            (OPTION_MSS, [high, low]) if u16::from_be_bytes([*high, *low]) < least_mss => {
                [*high, *low] = least_mss.to_be_bytes();
            }
            (OPTION_WINDOW_SCALE, [shift]) => *shift = (*shift).min(LARGEST_WINDOW_SCALE),
            _ => {}
        }
        offset += len;
    }
    segment.options.mss = segment.options.mss.map(|mss| mss.max(least_mss));
    segment.options.window_scale = segment.options.window_scale.map(|shift| shift.min(LARGEST_WINDOW_SCALE));
}

/// A segment of ours that carries no data and needs no connection.
#[derive(Debug, Clone, Copy)]
pub struct Reply {
    /// The connection; its local end is the sender.
    pub key: FlowKey,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgment number; the ACK flag is set where there is one.
    pub ack: Option<u32>,
    /// Other control bits.
    pub flags: Flags,
    /// Window, as it goes into the header.
    pub window: u16,
}

impl Reply {
    /// Bytes of the longest: IPv6 and TCP without options.
    pub(crate) const LONGEST: usize = ipv6::HEADER + HEADER;

    /// Bytes of the IP header.
    pub(super) fn ip_header(&self) -> usize {
        if self.key.remote_addr().is_ipv4() { ipv4::HEADER } else { ipv6::HEADER }
    }

    /// Bytes of the IP packet.
    pub(crate) fn len(&self) -> usize {
        self.ip_header() + HEADER
    }

    /// The RST that answers `segment`, which belongs to no connection (RFC 9293 §3.10.7.1); `None` where that is a RST.
    #[must_use]
    pub fn reset(segment: &Segment) -> Option<Self> {
        let (seq, ack) = match segment.flags {
            flags if flags.rst() => return None,
            flags if flags.ack() => (segment.ack, None),
            _ => (0, Some(segment.seq.wrapping_add(segment.len()))),
        };
        Some(Self { key: segment.key, seq, ack, flags: Flags::RST, window: 0 })
    }

    /// Writes the packet, whose TCP checksum is still to be filled. `None` where it has no room.
    pub(crate) fn write(&self, packet: &mut [u8]) -> Option<IpAddr> {
        let packet = packet.get_mut(..self.len())?;
        let remote = self.key.remote_addr();
        let written = match (self.key.local_addr(), remote) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => ipv4::write(packet, ipv4::TCP, local, remote),
            (IpAddr::V6(local), IpAddr::V6(remote)) => ipv6::write(packet, ipv4::TCP, ipv6::HOPS, local, remote),
            _ => false,
        };
        if !written {
            return None;
        }
        let tcp = packet.last_chunk_mut::<HEADER>()?;
        let flags = self.flags | if self.ack.is_some() { Flags::ACK } else { Flags::default() };
        tcp[0..2].copy_from_slice(&self.key.local_port().to_be_bytes());
        tcp[2..4].copy_from_slice(&self.key.remote_port().to_be_bytes());
        tcp[4..8].copy_from_slice(&self.seq.to_be_bytes());
        tcp[8..12].copy_from_slice(&self.ack.unwrap_or(0).to_be_bytes());
        tcp[12] = 5 << 4;
        tcp[13] = flags.0;
        tcp[14..16].copy_from_slice(&self.window.to_be_bytes());
        tcp[16..20].fill(0);
        Some(remote)
    }
}
