//! Frames by hand, right ones and wrong ones. Nothing here checks what it is told to build.

use std::net::Ipv4Addr;

/// Flags of a TCP segment.
pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;
pub const URG: u8 = 0x20;

pub type Mac = [u8; 6];
pub const BROADCAST: Mac = [0xff; 6];

/// An Ethernet frame.
pub fn ethernet(destination: Mac, source: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(14 + payload.len());
    frame.extend(destination);
    frame.extend(source);
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An ARP packet for IPv4 over Ethernet; `operation` 1 asks, 2 answers.
pub fn arp(operation: u16, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4];
    packet.extend(operation.to_be_bytes());
    packet.extend(sender.0);
    packet.extend(sender.1.octets());
    packet.extend(target.0);
    packet.extend(target.1.octets());
    packet
}

/// An IPv4 header's fields that tests vary.
#[derive(Debug, Clone)]
pub struct Ip {
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub protocol: u8,
    pub version_ihl: u8,
    /// Flags and fragment offset.
    pub fragment: u16,
    pub ttl: u8,
    /// Added to the right total length.
    pub length_error: i16,
    pub bad_checksum: bool,
}

impl Ip {
    pub fn new(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8) -> Self {
        let (version_ihl, fragment, ttl) = (0x45, 0x4000, 64);
        Self { source, destination, protocol, version_ihl, fragment, ttl, length_error: 0, bad_checksum: false }
    }

    /// The packet.
    pub fn packet(&self, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(20 + payload.len()).expect("fits").wrapping_add_signed(self.length_error);
        let mut packet = vec![self.version_ihl, 0];
        packet.extend(length.to_be_bytes());
        packet.extend([0x12, 0x34]);
        packet.extend(self.fragment.to_be_bytes());
        packet.extend([self.ttl, self.protocol, 0, 0]);
        packet.extend(self.source.octets());
        packet.extend(self.destination.octets());
        let sum = checksum(&[&packet]) ^ if self.bad_checksum { 0x0101 } else { 0 };
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend(payload);
        packet
    }
}

/// A TCP segment.
#[derive(Debug, Clone)]
pub struct Tcp {
    pub source: u16,
    pub destination: u16,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    pub options: Vec<u8>,
    /// Instead of what the options need, in words of 4 bytes.
    pub data_offset: Option<u8>,
    pub bad_checksum: bool,
    pub payload: Vec<u8>,
}

impl Tcp {
    pub fn new(source: u16, destination: u16, flags: u8, seq: u32, ack: u32) -> Self {
        Self {
            source,
            destination,
            seq,
            ack,
            flags,
            window: 65_000,
            options: Vec::new(),
            data_offset: None,
            bad_checksum: false,
            payload: Vec::new(),
        }
    }

    pub fn payload(mut self, bytes: &[u8]) -> Self {
        self.payload = bytes.to_vec();
        self
    }

    pub fn options(mut self, bytes: &[u8]) -> Self {
        assert_eq!(bytes.len() % 4, 0, "options fill whole words");
        self.options = bytes.to_vec();
        self
    }

    /// The segment, with the checksum for these addresses.
    pub fn segment(&self, source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
        let words = self.data_offset.unwrap_or(5 + u8::try_from(self.options.len() / 4).expect("at most 40 bytes"));
        let mut segment = Vec::new();
        segment.extend(self.source.to_be_bytes());
        segment.extend(self.destination.to_be_bytes());
        segment.extend(self.seq.to_be_bytes());
        segment.extend(self.ack.to_be_bytes());
        segment.extend([words << 4, self.flags]);
        segment.extend(self.window.to_be_bytes());
        segment.extend([0; 4]);
        segment.extend(&self.options);
        segment.extend(&self.payload);
        let length = u16::try_from(segment.len()).expect("fits");
        let mut pseudo = Vec::new();
        pseudo.extend(source.octets());
        pseudo.extend(destination.octets());
        pseudo.extend([0, 6]);
        pseudo.extend(length.to_be_bytes());
        let sum = checksum(&[&pseudo, &segment]) ^ if self.bad_checksum { 0x0101 } else { 0 };
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        segment
    }

    /// Reads a received IPv4 packet that holds one; `None` for anything else.
    pub fn parse(packet: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr, Self)> {
        if packet.len() < 40 || packet[0] >> 4 != 4 || packet[9] != 6 {
            return None;
        }
        let header = usize::from(packet[0] & 15) * 4;
        let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
        let source = Ipv4Addr::from(<[u8; 4]>::try_from(&packet[12..16]).ok()?);
        let destination = Ipv4Addr::from(<[u8; 4]>::try_from(&packet[16..20]).ok()?);
        let tcp = packet.get(header..total)?;
        let words = tcp[12] >> 4;
        let long = |at: usize| u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]]);
        let short = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
        let segment = Self {
            source: short(0),
            destination: short(2),
            seq: long(4),
            ack: long(8),
            flags: tcp[13],
            window: short(14),
            options: tcp.get(20..usize::from(words) * 4)?.to_vec(),
            data_offset: Some(words),
            bad_checksum: false,
            payload: tcp[usize::from(words) * 4..].to_vec(),
        };
        Some((source, destination, segment))
    }
}

/// An ICMP message: type, code, then what follows the checksum.
pub fn icmp(kind: u8, code: u8, rest: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(rest);
    let sum = checksum(&[&message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// RFC 1071, over parts each of which but the last has an even length.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
