//! Frames, as far as a load generator has to know them: Ethernet II without tags, ARP, IPv4 without options, TCP.
//!
//! Reads and writes bytes; keeps nothing. Called by [`crate::endpoint`].

use pmd::checksum;

/// TCP's flags (RFC 9293 §3.1).
pub mod flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronize sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// Hand what came to the application.
    pub const PSH: u8 = 0x08;
    /// The acknowledgment field holds.
    pub const ACK: u8 = 0x10;
}

/// Bytes of the Ethernet, IPv4 and TCP headers without options.
pub const HEADERS: usize = 14 + 20 + 20;

/// Bytes of the options on a SYN: maximum segment size, window scale, padding.
pub const SYN_OPTIONS: usize = 8;

/// Bytes of an ARP packet for IPv4 on Ethernet, with the Ethernet header (RFC 826).
pub const ARP_FRAME: usize = 14 + 28;

/// A TCP segment in an IPv4 packet.
#[derive(Debug, Clone, Copy)]
pub struct Segment<'a> {
    /// The sender's Ethernet address.
    pub mac: [u8; 6],
    /// The sender's IPv4 address.
    pub source: u32,
    /// The receiver's IPv4 address.
    pub destination: u32,
    /// The sender's port.
    pub source_port: u16,
    /// The receiver's port.
    pub destination_port: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgment number.
    pub ack: u32,
    /// [`flags`].
    pub flags: u8,
    /// The window, not scaled.
    pub window: u16,
    /// Options.
    pub options: &'a [u8],
    /// Data.
    pub payload: &'a [u8],
}

/// What a frame is.
#[derive(Debug)]
pub enum Packet<'a> {
    /// TCP.
    Tcp(Segment<'a>),
    /// ARP: who it is from, and whom it asks for.
    Arp {
        /// A question, else an answer.
        question: bool,
        /// The sender's Ethernet address.
        mac: [u8; 6],
        /// The sender's IPv4 address.
        sender: u32,
        /// The IPv4 address that is asked for.
        target: u32,
    },
    /// Something else, or a header that does not fit its frame.
    Other,
}

/// Reads a frame.
#[inline]
#[must_use]
pub fn parse(frame: &[u8]) -> Packet<'_> {
    let Some((header, rest)) = frame.split_first_chunk::<14>() else { return Packet::Other };
    let mac = [header[6], header[7], header[8], header[9], header[10], header[11]];
    match [header[12], header[13]] {
        [0x08, 0x00] => tcp(mac, rest).map_or(Packet::Other, Packet::Tcp),
        [0x08, 0x06] => arp(rest).unwrap_or(Packet::Other),
        _ => Packet::Other,
    }
}

#[inline]
fn tcp(mac: [u8; 6], packet: &[u8]) -> Option<Segment<'_>> {
    let (ip, _) = packet.split_first_chunk::<20>()?;
    // No IP options, no fragments: neither comes from a gateway under test.
    if ip[0] != 0x45 || ip[9] != 6 || (u16::from_be_bytes([ip[6], ip[7]]) & 0x3fff) != 0 {
        return None;
    }
    let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    let (header, rest) = packet.get(20..total)?.split_first_chunk::<20>()?;
    let offset = usize::from(header[12] >> 4) * 4;
    let (options, payload) = rest.split_at_checked(offset.checked_sub(20)?)?;
    Some(Segment {
        mac,
        source: u32::from_be_bytes([ip[12], ip[13], ip[14], ip[15]]),
        destination: u32::from_be_bytes([ip[16], ip[17], ip[18], ip[19]]),
        source_port: u16::from_be_bytes([header[0], header[1]]),
        destination_port: u16::from_be_bytes([header[2], header[3]]),
        seq: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
        ack: u32::from_be_bytes([header[8], header[9], header[10], header[11]]),
        flags: header[13],
        window: u16::from_be_bytes([header[14], header[15]]),
        options,
        payload,
    })
}

/// Whether the IPv4 and TCP checksums of a frame that [`parse`] took for TCP are right.
#[must_use]
pub fn checksums_hold(frame: &[u8]) -> bool {
    let Some((ip, _)) = frame.get(14..).and_then(|packet| packet.split_first_chunk::<20>()) else { return false };
    let total = u16::from_be_bytes([ip[2], ip[3]]);
    let Some(segment) = frame.get(34..14 + usize::from(total)) else { return false };
    let pseudo = checksum::pseudo_header(&ip[12..20], 6, total.saturating_sub(20));
    checksum::sum(0, ip) == 0xffff && checksum::sum(pseudo, segment) == 0xffff
}

fn arp(packet: &[u8]) -> Option<Packet<'static>> {
    let (packet, _) = packet.split_first_chunk::<28>()?;
    let question = match packet[..8] {
        [0, 1, 8, 0, 6, 4, 0, 1] => true,
        [0, 1, 8, 0, 6, 4, 0, 2] => false,
        _ => return None,
    };
    Some(Packet::Arp {
        question,
        mac: [packet[8], packet[9], packet[10], packet[11], packet[12], packet[13]],
        sender: u32::from_be_bytes([packet[14], packet[15], packet[16], packet[17]]),
        target: u32::from_be_bytes([packet[24], packet[25], packet[26], packet[27]]),
    })
}

/// An ARP frame.
#[must_use]
pub fn write_arp(question: bool, from: ([u8; 6], u32), to: ([u8; 6], u32)) -> [u8; ARP_FRAME] {
    let mut frame = [0; ARP_FRAME];
    let (destination, target) = if question { ([0xff; 6], [0; 6]) } else { (to.0, to.0) };
    frame[..6].copy_from_slice(&destination);
    frame[6..12].copy_from_slice(&from.0);
    frame[12..22].copy_from_slice(&[0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, if question { 1 } else { 2 }]);
    frame[22..28].copy_from_slice(&from.0);
    frame[28..32].copy_from_slice(&from.1.to_be_bytes());
    frame[32..38].copy_from_slice(&target);
    frame[38..42].copy_from_slice(&to.1.to_be_bytes());
    frame
}

/// What of a SYN's options matters here: the maximum segment size and the window scale (RFC 9293 §3.7.1, RFC 7323 §2.2).
#[must_use]
pub fn syn_options(mut options: &[u8]) -> (Option<u16>, Option<u8>) {
    let (mut mss, mut scale) = (None, None);
    loop {
        options = match options {
            [1, rest @ ..] => rest,
            [2, 4, high, low, rest @ ..] => {
                mss = Some(u16::from_be_bytes([*high, *low]));
                rest
            }
            [3, 3, shift, rest @ ..] => {
                scale = Some((*shift).min(14));
                rest
            }
            [kind, len, ..] if *kind > 1 && *len >= 2 => options.get(usize::from(*len)..).unwrap_or_default(),
            _ => return (mss, scale),
        }
    }
}

/// The headers that all segments of one host share.
#[derive(Debug, Clone)]
pub struct Template([u8; HEADERS]);

/// What differs from segment to segment.
#[derive(Debug, Clone, Copy)]
pub struct Fields {
    /// The sender's IPv4 address.
    pub source: u32,
    /// The receiver's IPv4 address.
    pub destination: u32,
    /// The sender's port.
    pub source_port: u16,
    /// The receiver's port.
    pub destination_port: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgment number.
    pub ack: u32,
    /// [`flags`].
    pub flags: u8,
    /// The window, scaled.
    pub window: u16,
}

impl Template {
    /// Headers from this Ethernet address.
    #[must_use]
    pub fn new(mac: [u8; 6]) -> Self {
        let mut bytes = [0; HEADERS];
        bytes[6..12].copy_from_slice(&mac);
        bytes[12..16].copy_from_slice(&[0x08, 0x00, 0x45, 0]);
        // Don't fragment; time to live 64; TCP.
        bytes[20..24].copy_from_slice(&[0x40, 0, 64, 6]);
        bytes[46] = 5 << 4;
        Self(bytes)
    }

    /// Sends to this Ethernet address from now on.
    pub fn set_destination(&mut self, mac: [u8; 6]) {
        self.0[..6].copy_from_slice(&mac);
    }

    /// Writes the headers of a segment, whose checksums are left to the lane, to the start of `frame`. The frame has its final
    /// length, and `options` bytes of options follow the headers.
    #[inline]
    pub fn write(&self, frame: &mut [u8], options: usize, fields: &Fields) {
        let total = frame.len() - 14;
        let Some(head) = frame.first_chunk_mut::<HEADERS>() else { return };
        *head = self.0;
        // A frame is at most 64 KiB.
        head[16..18].copy_from_slice(&(total as u16).to_be_bytes());
        head[26..30].copy_from_slice(&fields.source.to_be_bytes());
        head[30..34].copy_from_slice(&fields.destination.to_be_bytes());
        head[34..36].copy_from_slice(&fields.source_port.to_be_bytes());
        head[36..38].copy_from_slice(&fields.destination_port.to_be_bytes());
        head[38..42].copy_from_slice(&fields.seq.to_be_bytes());
        head[42..46].copy_from_slice(&fields.ack.to_be_bytes());
        head[46] = ((20 + options) as u8 / 4) << 4;
        head[47] = fields.flags;
        head[48..50].copy_from_slice(&fields.window.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let template = Template::new([2; 6]);
        let fields = Fields {
            source: 0x0a09_0102,
            destination: 0x0a09_0101,
            source_port: 1024,
            destination_port: 80,
            seq: 7,
            ack: 9,
            flags: flags::ACK | flags::PSH,
            window: 500,
        };
        let mut frame = vec![0; HEADERS + 5];
        template.write(&mut frame, 0, &fields);
        frame[HEADERS..].copy_from_slice(b"hello");
        assert!(!checksums_hold(&frame));
        assert!(checksum::finish_tcp(&mut frame, 14, 20));
        assert!(checksums_hold(&frame));
        let Packet::Tcp(segment) = parse(&frame) else { panic!("{frame:?}") };
        assert_eq!((segment.source, segment.destination, segment.seq, segment.ack), (0x0a09_0102, 0x0a09_0101, 7, 9));
        assert_eq!((segment.source_port, segment.destination_port, segment.window), (1024, 80, 500));
        assert_eq!((segment.payload, segment.options.len(), segment.mac), (&b"hello"[..], 0, [2; 6]));
        for cut in 0..frame.len() {
            assert!(!matches!(parse(&frame[..cut]), Packet::Tcp(_)), "cut at {cut}");
        }
        for at in 14..frame.len() {
            let mut wrong = frame.clone();
            wrong[at] ^= 0x10;
            assert!(!checksums_hold(&wrong) || !matches!(parse(&wrong), Packet::Tcp(_)), "byte {at}");
        }
    }

    #[test]
    fn arp_is_read() {
        let question = write_arp(true, ([2; 6], 10), ([0; 6], 11));
        assert!(
            matches!(parse(&question), Packet::Arp { question: true, sender: 10, target: 11, mac } if mac == [2; 6])
        );
        let answer = write_arp(false, ([3; 6], 11), ([2; 6], 10));
        assert!(
            matches!(parse(&answer), Packet::Arp { question: false, sender: 11, target: 10, mac } if mac == [3; 6])
        );
    }

    #[test]
    fn options_of_a_syn() {
        assert_eq!(syn_options(&[2, 4, 5, 180, 1, 3, 3, 7]), (Some(1460), Some(7)));
        assert_eq!(syn_options(&[4, 2, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 3, 3, 99]), (None, Some(14)));
        for broken in [&[2, 4, 5][..], &[3], &[9, 0, 2, 4, 5, 180], &[9, 1], &[5, 200, 1]] {
            assert_eq!(syn_options(broken), (None, None));
        }
    }
}
