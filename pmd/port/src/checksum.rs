//! The Internet checksum (RFC 1071) in software, for devices that cannot do it.

use std::ops::Range;

/// The one's complement sum of `bytes`, taken as big-endian 16-bit words, folded to 16 bits and
/// added to `seed` (itself such a sum). Not yet inverted.
#[must_use]
pub fn sum(seed: u16, bytes: &[u8]) -> u16 {
    // Words of eight bytes, whose carries a wider sum keeps: it is the same in any word size and byte order (RFC 1071 §2). Two sums
    // at a time, because each addition waits for the one before it.
    let (mut even, mut odd) = (0u128, 0u128);
    let mut chunks = bytes.chunks_exact(32);
    for chunk in &mut chunks {
        let (a, b) = chunk.split_at(16);
        even += word(a) + word(a.split_at(8).1);
        odd += word(b) + word(b.split_at(8).1);
    }
    let mut rest = chunks.remainder();
    while let Some((first, more)) = rest.split_at_checked(8) {
        even += word(first);
        rest = more;
    }
    if !rest.is_empty() {
        let mut last = [0u8; 8];
        last[..rest.len()].copy_from_slice(rest);
        odd += word(&last);
    }
    let total = even + odd;
    // Both halves fit: a frame has fewer than 2^64 words.
    let (wide, carry) = (total as u64, (total >> 64) as u64);
    let (folded, over) = wide.overflowing_add(carry);
    add(seed, fold((folded >> 32) + (folded & 0xffff_ffff) + u64::from(over)))
}

/// Whether the checksum of an IPv4 header, options and all, is right.
#[inline]
#[must_use]
pub fn header_is_right(header: &[u8]) -> bool {
    match header.try_into() {
        Ok(plain) => add(header_sum(plain), u16::from_be_bytes([plain[10], plain[11]])) == 0xffff,
        Err(_) => sum(0, header) == 0xffff,
    }
}

/// The sum of an IPv4 header without options, and without its checksum. Nothing is read in wider pieces than it was written in: what has
/// just been written, a CPU cannot hand on to a wider read, which waits until it is in the cache.
#[inline]
fn header_sum(header: &[u8; 20]) -> u16 {
    let byte = |at: usize| u64::from(header[at]);
    let word = |at: usize| u64::from(u16::from_be_bytes([header[at], header[at + 1]]));
    let bytes = ((byte(0) + byte(8)) << 8) + byte(1) + byte(9);
    folded(bytes + word(2) + word(4) + word(6) + address(&header[12..]) + address(&header[16..]))
}

/// The first four bytes, as one big-endian number: a sum of 16-bit words once it is folded.
#[inline]
fn address(bytes: &[u8]) -> u64 {
    bytes.first_chunk::<4>().map_or(0, |bytes| u64::from(u32::from_be_bytes(*bytes)))
}

/// Folds a sum of big-endian words of 16 and 32 bits.
#[inline]
fn folded(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    // Truncation is the point: the value fits 16 bits by now.
    sum as u16
}

/// The big-endian sum of a sum of at most 34 bits in the machine's order.
#[inline]
fn fold(sum: u64) -> u16 {
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    // Truncation is the point: the value fits 16 bits after three folds.
    u16::from_be(sum as u16)
}

/// The first eight bytes, in the machine's order.
#[inline]
fn word(bytes: &[u8]) -> u128 {
    bytes.first_chunk::<8>().map_or(0, |bytes| u128::from(u64::from_ne_bytes(*bytes)))
}

/// One's complement addition of two folded sums.
#[must_use]
pub fn add(a: u16, b: u16) -> u16 {
    let (sum, over) = a.overflowing_add(b);
    sum + u16::from(over)
}

/// The sum over the pseudo header of TCP or UDP (RFC 9293 §3.1, RFC 8200 §8.1): `addresses` is source and
/// destination as they stand in the IP header, `len` the length of L4 header and payload in bytes.
#[must_use]
pub fn pseudo_header(addresses: &[u8], protocol: u8, len: u16) -> u16 {
    if addresses.len() == 8 {
        return folded(address(addresses) + address(&addresses[4..]) + u64::from(protocol) + u64::from(len));
    }
    add(add(sum(0, addresses), u16::from(protocol)), len)
}

/// Fills the TCP checksum, and the header checksum of IPv4, of the packet that begins `l2_len` bytes into
/// `frame` and whose IP header (with IPv6 extension headers) takes `l3_len` bytes. Bytes behind the length
/// that the IP header states are padding and are not counted.
///
/// Returns `false`, and changes nothing, where the frame is too short for what its header states, or
/// where the header is neither IPv4 nor IPv6 (RFC 791 §3.1, RFC 8200 §8.1, RFC 9293 §3.1).
#[must_use]
pub fn finish_tcp(frame: &mut [u8], l2_len: usize, l3_len: usize) -> bool {
    let Some(packet) = Packet::locate(frame, l2_len, l3_len, TCP) else {
        return false;
    };
    if packet.ipv4 {
        fill_ipv4(packet.header);
    }
    fill_l4(packet.segment, TCP_CHECKSUM, packet.pseudo_header);
    true
}

/// Fills the TCP or UDP checksum, and nothing else, of a packet of either protocol that begins `l2_len` bytes into `frame`
/// and has an IP header of `l3_len` bytes. Returns `false`, and changes nothing, as [`finish_tcp`] does, and for other protocols.
pub(crate) fn finish_l4(frame: &mut [u8], l2_len: usize, l3_len: usize) -> bool {
    let protocol = match frame.get(l2_len..) {
        Some([first, _, _, _, _, _, _, _, _, protocol, ..]) if *first >> 4 == 4 => *protocol,
        Some([_, _, _, _, _, _, next, ..]) => *next,
        _ => return false,
    };
    let place = match protocol {
        TCP => TCP_CHECKSUM,
        UDP => UDP_CHECKSUM,
        _ => return false,
    };
    let Some(packet) = Packet::locate(frame, l2_len, l3_len, protocol) else {
        return false;
    };
    fill_l4(packet.segment, place.clone(), packet.pseudo_header);
    if protocol == UDP && packet.segment[place.clone()] == [0, 0] {
        // Zero says that there is no checksum (RFC 768).
        packet.segment[place].fill(0xff);
    }
    true
}

/// Fills the header checksum of an IPv4 header of at least twenty bytes.
pub(crate) fn fill_ipv4(header: &mut [u8]) {
    let value = match (&*header).try_into() {
        Ok(plain) => !header_sum(plain),
        Err(_) => {
            header[10..12].fill(0);
            !sum(0, header)
        }
    };
    header[10..12].copy_from_slice(&value.to_be_bytes());
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const TCP_CHECKSUM: Range<usize> = 16..18;
const UDP_CHECKSUM: Range<usize> = 6..8;

/// A TCP or UDP packet whose IP and L4 headers are whole.
pub(crate) struct Packet<'a> {
    /// The IP header is one of IPv4.
    pub(crate) ipv4: bool,
    /// The sum over the pseudo header.
    pub(crate) pseudo_header: u16,
    /// The IP header, with IPv6 extension headers.
    pub(crate) header: &'a mut [u8],
    /// The L4 header, at least as long as the protocol's shortest, and the payload.
    pub(crate) segment: &'a mut [u8],
}

impl<'a> Packet<'a> {
    /// The TCP packet that begins `l2_len` bytes into `frame`; `None` as [`finish_tcp`] says.
    pub(crate) fn tcp(frame: &'a mut [u8], l2_len: usize, l3_len: usize) -> Option<Self> {
        Self::locate(frame, l2_len, l3_len, TCP)
    }

    fn locate(frame: &'a mut [u8], l2_len: usize, l3_len: usize, protocol: u8) -> Option<Self> {
        let packet = frame.get_mut(l2_len..)?;
        let (least, stated, addresses) = match packet {
            [first, _, high, low, ..] if *first >> 4 == 4 => {
                (20, usize::from(u16::from_be_bytes([*high, *low])), 12..20)
            }
            [first, _, _, _, high, low, ..] if *first >> 4 == 6 => {
                (40, 40 + usize::from(u16::from_be_bytes([*high, *low])), 8..40)
            }
            _ => return None,
        };
        let packet = packet.get_mut(..stated)?;
        let l4_header = if protocol == TCP { 20 } else { 8 };
        if l3_len < least || packet.len() < l3_len + l4_header {
            return None;
        }
        let (header, segment) = packet.split_at_mut(l3_len);
        // It fits: an IP packet without jumbo options holds at most 65,535 bytes behind its header.
        let pseudo_header = pseudo_header(&header[addresses], protocol, segment.len() as u16);
        Some(Self { ipv4: least == 20, pseudo_header, header, segment })
    }
}

fn fill_l4(segment: &mut [u8], place: Range<usize>, pseudo_header: u16) {
    segment[place.clone()].fill(0);
    let value = !sum(pseudo_header, segment);
    segment[place].copy_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        }
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        sum as u16
    }

    #[test]
    fn rfc_1071_example() {
        assert_eq!(sum(0, &[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
    }

    #[test]
    fn agrees_with_a_word_at_a_time_at_every_length() {
        let bytes: Vec<u8> = (0..2048u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for len in (0..100).chain([1460, 1461, 2047, 2048]) {
            assert_eq!(sum(0, &bytes[..len]), reference(&bytes[..len]), "length {len}");
        }
        assert_eq!(sum(0, &[0xff; 1500]), 0xffff);
    }

    #[test]
    fn headers_are_summed_like_anything_else() {
        let mut header = [0u8; 20];
        for turn in 0..2000u32 {
            for (at, byte) in header.iter_mut().enumerate() {
                let noise = (turn * 20 + at as u32).wrapping_mul(2_654_435_761) >> 13;
                // Full words carry most.
                *byte = if turn % 3 == 0 { 0xff } else { noise as u8 };
            }
            let mut expected = header;
            expected[10..12].fill(0);
            let value = !reference(&expected);
            fill_ipv4(&mut header);
            assert_eq!(header[10..12], value.to_be_bytes(), "{header:02x?}");
            assert_eq!(header_is_right(&header), reference(&header) == 0xffff, "{header:02x?}");
            header[3] ^= 1;
            assert!(!header_is_right(&header));
            assert_eq!(pseudo_header(&header[12..], 6, 0xffff), {
                let mut whole = header[12..].to_vec();
                whole.extend([0, 6, 0xff, 0xff]);
                reference(&whole)
            });
        }
    }

    #[test]
    fn seeds_add_up() {
        let bytes: Vec<u8> = (0..64).collect();
        assert_eq!(sum(sum(0, &bytes[..20]), &bytes[20..]), reference(&bytes));
    }

    /// A TCP segment of `payload` bytes in IPv4 or IPv6 behind `l2_len` bytes, with junk as checksums.
    fn tcp_frame(v6: bool, l2_len: usize, payload: usize) -> (Vec<u8>, usize) {
        let mut frame = vec![0xee; l2_len];
        let tcp = 20 + payload;
        let l3_len = if v6 { 40 } else { 20 };
        if v6 {
            frame.extend([0x60, 0, 0, 0, (tcp >> 8) as u8, tcp as u8, 6, 64]);
            frame.extend((0..32).map(|i| 0xf0 ^ i));
        } else {
            let total = 20 + tcp;
            frame.extend([0x45, 0, (total >> 8) as u8, total as u8, 1, 2, 0x40, 0, 64, 6, 0xde, 0xad]);
            frame.extend([10, 9, 1, 1, 10, 9, 2, 2]);
        }
        frame.extend([0x1f, 0x90, 0, 80, 1, 2, 3, 4, 5, 6, 7, 8, 0x50, 0x18, 0xff, 0xff, 0xbe, 0xef, 0, 0]);
        frame.extend((0..payload).map(|i| (i * 7) as u8));
        (frame, l3_len)
    }

    #[test]
    fn finished_tcp_sums_to_ones_in_both_families_and_ignores_padding() {
        for v6 in [false, true] {
            for l2_len in [14, 18] {
                for payload in [0, 1, 2, 1439, 1440] {
                    let (mut frame, l3_len) = tcp_frame(v6, l2_len, payload);
                    let len = frame.len();
                    frame.extend([0x55; 6]);
                    assert!(finish_tcp(&mut frame, l2_len, l3_len));
                    let (header, rest) = frame[l2_len..].split_at(l3_len);
                    let segment = &rest[..len - l2_len - l3_len];
                    let addresses = if v6 { &header[8..40] } else { &header[12..20] };
                    let mut whole = addresses.to_vec();
                    whole.extend([0, 6]);
                    whole.extend((segment.len() as u16).to_be_bytes());
                    whole.extend(segment);
                    assert_eq!(reference(&whole), 0xffff, "v6 {v6}, payload {payload}");
                    if !v6 {
                        assert_eq!(reference(header), 0xffff);
                    }
                    assert_eq!(frame[len..], [0x55; 6]);
                }
            }
        }
    }

    #[test]
    fn short_or_foreign_frames_are_left_alone() {
        for v6 in [false, true] {
            let (whole, l3_len) = tcp_frame(v6, 14, 8);
            for cut in 0..whole.len() {
                let mut frame = whole[..cut].to_vec();
                assert!(!finish_tcp(&mut frame, 14, l3_len), "cut at {cut}");
                assert_eq!(frame, whole[..cut]);
            }
            for (l2_len, l3_len) in [(0, l3_len), (14, 0), (14, 255), (255, l3_len), (14, l3_len - 1)] {
                let mut frame = whole.clone();
                assert!(!finish_tcp(&mut frame, l2_len, l3_len), "{l2_len}, {l3_len}");
                assert_eq!(frame, whole);
            }
        }
    }
}
