//! What peers send and what they read: Ethernet, ARP and TCP over IPv4, as far as a script needs it.

use std::net::{Ipv4Addr, SocketAddrV4};

use pmd::checksum;

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;

/// MSS 1460, SACK permitted, window scale 7: what Linux says, without timestamps.
const SYN_OPTIONS: [u8; 12] = [2, 4, 0x05, 0xb4, 1, 1, 4, 2, 1, 3, 3, 7];

/// A peer's view of one connection.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) here: SocketAddrV4,
    pub(crate) there: SocketAddrV4,
    /// Ethernet addresses of both ends.
    pub(crate) macs: ([u8; 6], [u8; 6]),
    /// The next sequence number that it sends.
    pub(crate) seq: u32,
    /// The next that it expects.
    pub(crate) ack: u32,
}

/// A TCP segment as a peer sees it.
#[derive(Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) source: SocketAddrV4,
    pub(crate) destination: SocketAddrV4,
    pub(crate) seq: u32,
    pub(crate) flags: u8,
    pub(crate) payload: &'a [u8],
}

impl Peer {
    /// A frame with its next segment, written to `out`; moves `seq` on.
    pub(crate) fn segment(&mut self, flags: u8, payload: &[u8], out: &mut Vec<u8>) {
        let options: &[u8] = if flags & SYN != 0 { &SYN_OPTIONS } else { &[] };
        let tcp = 20 + options.len();
        let total = (20 + tcp + payload.len()) as u16;
        out.clear();
        out.extend_from_slice(&self.macs.1);
        out.extend_from_slice(&self.macs.0);
        out.extend_from_slice(&[8, 0, 0x45, 0]);
        out.extend_from_slice(&total.to_be_bytes());
        out.extend_from_slice(&[0, 0, 0x40, 0, 64, 6, 0, 0]);
        out.extend_from_slice(&self.here.ip().octets());
        out.extend_from_slice(&self.there.ip().octets());
        out.extend_from_slice(&self.here.port().to_be_bytes());
        out.extend_from_slice(&self.there.port().to_be_bytes());
        out.extend_from_slice(&self.seq.to_be_bytes());
        out.extend_from_slice(&if flags & ACK != 0 { self.ack } else { 0 }.to_be_bytes());
        out.extend_from_slice(&[(tcp as u8 / 4) << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
        out.extend_from_slice(options);
        out.extend_from_slice(payload);
        assert!(checksum::finish_tcp(out, 14, 20));
        let len = payload.len() as u32 + u32::from(flags & (SYN | FIN) != 0);
        self.seq = self.seq.wrapping_add(len);
    }

    /// Takes note of a segment; it must be the next one, as on these wires nothing is lost.
    pub(crate) fn note(&mut self, seen: &Seen<'_>) {
        if seen.flags & SYN != 0 {
            self.ack = seen.seq.wrapping_add(1);
            return;
        }
        assert_eq!(seen.flags & RST, 0, "{seen:?} to {self:?}");
        if !seen.payload.is_empty() || seen.flags & FIN != 0 {
            assert_eq!(seen.seq, self.ack, "{seen:?} to {self:?}");
        }
        self.ack = self.ack.wrapping_add(seen.payload.len() as u32 + u32::from(seen.flags & FIN != 0));
    }
}

/// The TCP segment in `frame`, if there is one.
pub(crate) fn tcp(frame: &[u8]) -> Option<Seen<'_>> {
    let ip = frame.get(14..).filter(|_| frame[12..14] == [8, 0])?;
    let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    let tcp = ip.get(20..total)?;
    let address = |at: usize| Ipv4Addr::from_octets(std::array::from_fn(|i| ip[at + i]));
    let port = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
    Some(Seen {
        source: SocketAddrV4::new(address(12), port(0)),
        destination: SocketAddrV4::new(address(16), port(2)),
        seq: u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]),
        flags: tcp[13],
        payload: &tcp[usize::from(tcp[12] >> 4) * 4..],
    })
}

/// The answer of a host at `mac` to the ARP request in `frame` (RFC 826). `None` where it is none.
pub(crate) fn arp_reply(frame: &[u8], mac: [u8; 6]) -> Option<Vec<u8>> {
    let arp = frame.get(14..42).filter(|arp| frame[12..14] == [8, 6] && arp[6..8] == [0, 1])?;
    // Announcements ask for the sender's own address.
    if arp[14..18] == arp[24..28] {
        return None;
    }
    let mut reply = [&arp[8..14], &mac, &[8, 6], &[0, 1, 8, 0, 6, 4, 0, 2], &mac, &arp[24..28], &arp[8..18]].concat();
    reply.resize(60, 0);
    Some(reply)
}
