//! A peer that sends exactly what it is told, and remembers what it got.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Duration;

use engine::clock::Instant;
use engine::port::Flags;
use pmd::sim::{SimLane, receive_all, send};
use pmd::{Lane, checksum};

use super::Party;

pub const FIN: Flags = Flags::FIN;
pub const SYN: Flags = Flags::SYN;
pub const RST: Flags = Flags::RST;
pub const ACK: Flags = Flags::ACK;
/// The flags that tests look at: PSH says nothing.
const LOOKED_AT: u8 = 0x17;

/// A TCP segment, to be sent or received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seg {
    /// When it was received.
    pub at: Duration,
    pub source: (Ipv4Addr, u16),
    pub destination: (Ipv4Addr, u16),
    pub seq: u32,
    pub ack: u32,
    pub flags: Flags,
    pub window: u16,
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
}

impl Seg {
    /// SYN, FIN, RST and ACK are exactly those of `flags`.
    pub fn is(&self, flags: Flags) -> bool {
        self.flags.0 & LOOKED_AT == flags.0
    }

    /// The sequence number behind it.
    pub fn end(&self) -> u32 {
        let flags = u32::from(self.flags.syn()) + u32::from(self.flags.fin());
        self.seq.wrapping_add(self.payload.len() as u32 + flags)
    }

    /// The data of option `kind`.
    pub fn option(&self, kind: u8) -> Option<&[u8]> {
        let mut rest = &self.options[..];
        while let [this, tail @ ..] = rest {
            match this {
                0 => return None,
                1 => rest = tail,
                _ => {
                    let len = usize::from(tail[0]);
                    if *this == kind {
                        return Some(&tail[1..len - 1]);
                    }
                    rest = &rest[len..];
                }
            }
        }
        None
    }
}

/// The scripted peer: one Ethernet station with one address.
pub struct Script {
    pub lane: SimLane,
    pub address: Ipv4Addr,
    /// The Ethernet address of the other end.
    pub towards: [u8; 6],
    /// Segments that came, oldest first.
    pub inbox: VecDeque<Seg>,
    /// ICMP messages that came, from the ICMP header on.
    pub icmp: VecDeque<Vec<u8>>,
    /// ARP requests that came.
    pub asked: usize,
    /// It answers ARP requests for any address but these.
    pub arp_deaf: Vec<Ipv4Addr>,
    /// It answers ARP requests.
    pub answers_arp: bool,
}

impl Script {
    pub fn new(lane: SimLane, address: [u8; 4], towards: [u8; 6]) -> Self {
        Self {
            lane,
            address: address.into(),
            towards,
            inbox: VecDeque::new(),
            icmp: VecDeque::new(),
            asked: 0,
            arp_deaf: Vec::new(),
            answers_arp: true,
        }
    }

    /// Sends `segment` with right checksums.
    pub fn send(&mut self, segment: &Seg) {
        let frame = self.tcp_frame(segment);
        assert!(send(&mut self.lane, &frame));
    }

    /// Sends an ICMP message: type, code, the second word, and the start of `about`, a segment that came from there.
    pub fn send_icmp(&mut self, kind: u8, code: u8, word: u32, about: &Seg) {
        let mut quoted = ip(6, about.source.0, about.destination.0, &tcp(about)[..8]);
        let total = 40 + about.options.len() + about.payload.len();
        quoted[2..4].copy_from_slice(&(total as u16).to_be_bytes());
        let mut message = vec![kind, code, 0, 0];
        message.extend(word.to_be_bytes());
        message.extend(quoted);
        let sum = !checksum::sum(0, &message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let packet = ip(1, self.address, about.source.0, &message);
        let frame = self.ethernet(0x0800, &packet);
        assert!(send(&mut self.lane, &frame));
    }

    fn tcp_frame(&self, segment: &Seg) -> Vec<u8> {
        let packet = ip(6, segment.source.0, segment.destination.0, &tcp(segment));
        let mut frame = self.ethernet(0x0800, &packet);
        assert!(checksum::finish_tcp(&mut frame, 14, 20));
        frame
    }

    fn ethernet(&self, ethertype: u16, payload: &[u8]) -> Vec<u8> {
        [&self.towards, &self.lane.mac(), &ethertype.to_be_bytes()[..], payload].concat()
    }

    fn take(&mut self, at: Duration, frame: &[u8]) {
        match frame[12..14] {
            [8, 6] => self.arp(frame),
            [8, 0] if frame[23] == 6 => self.inbox.push_back(parse(at, frame)),
            [8, 0] if frame[23] == 1 => self.icmp.push_back(frame[34..].to_vec()),
            _ => panic!("unexpected frame {frame:02x?}"),
        }
    }

    fn arp(&mut self, frame: &[u8]) {
        let target = Ipv4Addr::new(frame[38], frame[39], frame[40], frame[41]);
        let announcement = frame[28..32] == frame[38..42];
        if frame[21] != 1 || announcement {
            return;
        }
        self.asked += 1;
        if !self.answers_arp || self.arp_deaf.contains(&target) {
            return;
        }
        let mut reply = vec![0, 1, 8, 0, 6, 4, 0, 2];
        reply.extend(self.lane.mac());
        reply.extend(target.octets());
        reply.extend(&frame[22..32]);
        let frame = self.ethernet(0x0806, &reply);
        assert!(send(&mut self.lane, &frame));
    }
}

impl Party for Script {
    fn turn(&mut self, now: Instant) -> bool {
        let frames = receive_all(&mut self.lane);
        for frame in &frames {
            self.take(Duration::from_nanos(now.0), frame);
        }
        !frames.is_empty()
    }

    fn next(&mut self) -> Option<Duration> {
        self.lane.next_arrival()
    }
}

/// An IPv4 packet with a right header checksum.
fn ip(protocol: u8, source: Ipv4Addr, destination: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend((20 + payload.len() as u16).to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    let sum = !checksum::sum(0, &packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    packet
}

fn tcp(segment: &Seg) -> Vec<u8> {
    assert!(segment.options.len().is_multiple_of(4));
    let mut bytes = Vec::new();
    bytes.extend(segment.source.1.to_be_bytes());
    bytes.extend(segment.destination.1.to_be_bytes());
    bytes.extend(segment.seq.to_be_bytes());
    bytes.extend(segment.ack.to_be_bytes());
    bytes.push((((20 + segment.options.len()) / 4) << 4) as u8);
    bytes.push(segment.flags.0);
    bytes.extend(segment.window.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(&segment.options);
    bytes.extend(&segment.payload);
    bytes
}

fn parse(at: Duration, frame: &[u8]) -> Seg {
    let packet = &frame[14..];
    let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
    assert_eq!(checksum::sum(0, &packet[..20]), 0xffff, "IPv4 header checksum");
    let (source, destination) = (address(&packet[12..16]), address(&packet[16..20]));
    let tcp = &packet[20..total];
    let seed = checksum::pseudo_header(&packet[12..20], 6, tcp.len() as u16);
    assert_eq!(checksum::sum(seed, tcp), 0xffff, "TCP checksum");
    let word = |at: usize| u32::from_be_bytes(tcp[at..at + 4].try_into().unwrap());
    let half = |at: usize| u16::from_be_bytes(tcp[at..at + 2].try_into().unwrap());
    let header = usize::from(tcp[12] >> 4) * 4;
    Seg {
        at,
        source: (source, half(0)),
        destination: (destination, half(2)),
        seq: word(4),
        ack: word(8),
        flags: Flags(tcp[13]),
        window: half(14),
        options: tcp[20..header].to_vec(),
        payload: tcp[header..].to_vec(),
    }
}

fn address(bytes: &[u8]) -> Ipv4Addr {
    Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])
}
