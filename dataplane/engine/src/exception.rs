//! The exception path: frames that are for the host's kernel, and frames that it sends.
//!
//! A port may have a TAP interface beside it, for what Millrace does not do itself: SSH, BGP, OSPF, BFD, an address of the host's own. What the rules
//! claim goes there as it came; what the kernel sends goes out of the port as it is. Both are bounded in rate, and served after everything else in a
//! turn. The TAP has the port's Ethernet address and may have the port's IP addresses, so that one host answers for them: Millrace answers ARP and Neighbor
//! Discovery for its own, and the kernel, which sees no such question, for those that are listed here. What neighbors answer, both see. The kernel sees no segment of Millrace's
//! connections, and so sends no RST to them.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use pmd::{Burst, Frame, Lane, TxChecksum};
use tables::counters::PortCounters;
use tables::{CoreCounters, ExceptionSettings, Verdict};

use crate::clock::Instant;
use crate::port::{ETHERNET_HEADER, TokenBucket};

/// One core's end of a port's exception path.
#[derive(Debug)]
pub struct Exception<X: Lane> {
    lane: X,
    rules: ExceptionSettings,
    mac: [u8; 6],
    to_host: TokenBucket,
    /// Copies of neighbors' answers: apart, so that a flood of them takes nothing from what is the kernel's alone.
    copies: TokenBucket,
    from_host: TokenBucket,
    /// The kernel may have frames, which have to wait for their rate.
    waiting: bool,
    burst: Burst<X::Frame>,
}

/// One copy at most for so many packets that are the kernel's alone.
const COPIES: u32 = 10;

/// Whose a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claim {
    Millrace,
    Kernel,
    /// A neighbor's answer: each may have asked.
    Both,
}

impl<X: Lane> Exception<X> {
    /// The path by `lane`, the TAP's, beside a port with Ethernet address `mac`.
    #[must_use]
    pub fn new(lane: X, mac: [u8; 6], rules: ExceptionSettings) -> Self {
        let bucket = || TokenBucket::new(rules.packets_per_second);
        let copies = TokenBucket::new((rules.packets_per_second / COPIES).max(1));
        Self { lane, mac, to_host: bucket(), copies, from_host: bucket(), waiting: false, burst: Burst::new(), rules }
    }

    /// Takes a frame that the port received. Gives it back where it is not the kernel's alone. `listens` says whether Millrace listens at an address.
    pub fn divert(
        &mut self,
        now: Instant,
        frame: X::Frame,
        counters: &CoreCounters,
        port: Option<&PortCounters>,
        listens: impl Fn(SocketAddr) -> bool,
    ) -> Option<X::Frame> {
        let claim = claim(&self.rules, &self.mac, frame.bytes(), &listens);
        match claim {
            Claim::Millrace => return Some(frame),
            Claim::Both => {
                if self.copies.take(now) {
                    self.copy(frame.bytes());
                }
                return Some(frame);
            }
            Claim::Kernel if !self.to_host.take(now) => counters.drops[Verdict::ExceptionRate as usize].add(1),
            Claim::Kernel => {
                if let Some(port) = port {
                    port.exception_to_host.add(1);
                }
                self.lane.transmit(frame, TxChecksum::Complete);
            }
        }
        None
    }

    /// Sends what the kernel has for the port, a burst at most, and hands the TAP what it got. Returns whether there was anything.
    pub fn serve<L: Lane<Frame = X::Frame>>(
        &mut self,
        now: Instant,
        lane: &mut L,
        port: Option<&PortCounters>,
    ) -> bool {
        self.lane.flush();
        // Beyond the rate, frames wait in the kernel's queue, which knows what to do with them when it is full.
        self.waiting = !self.from_host.ready(now);
        if self.waiting {
            return false;
        }
        self.lane.receive(&mut self.burst);
        if self.burst.is_empty() {
            return false;
        }
        self.from_host.spend(now, self.burst.len() as u64);
        if let Some(port) = port {
            port.exception_from_host.add(self.burst.len() as u64);
        }
        for frame in self.burst.drain(..) {
            lane.transmit(frame, TxChecksum::Complete);
        }
        true
    }

    /// As [`Lane::arm`]: not while frames may wait of which the TAP has told already.
    pub(crate) fn arm(&mut self) -> bool {
        !self.waiting && self.lane.arm()
    }

    /// As [`Lane::disarm`].
    pub(crate) fn disarm(&mut self) {
        self.lane.disarm();
    }

    /// The TAP's lane.
    pub fn lane_mut(&mut self) -> &mut X {
        &mut self.lane
    }

    /// Writes what the TAP counted.
    pub fn report(&self, port: &PortCounters) {
        let counted = self.lane.counters();
        port.exception_lost.set(counted.tx_full + counted.pool_empty);
    }

    /// Gives the TAP's lane and the rules back.
    #[must_use]
    pub fn into_parts(self) -> (X, ExceptionSettings) {
        (self.lane, self.rules)
    }

    fn copy(&mut self, bytes: &[u8]) {
        let Some(mut copy) = self.lane.allocate() else { return };
        if copy.set_len(bytes.len()) {
            copy.bytes_mut().copy_from_slice(bytes);
            self.lane.transmit(copy, TxChecksum::Complete);
        }
    }
}

const VLAN: [u8; 2] = [0x81, 0x00];
const ARP: [u8; 2] = [0x08, 0x06];
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// Whose `frame` is. Reads as little as that takes, and checks nothing else: what is not claimed, the port looks at.
fn claim(rules: &ExceptionSettings, mac: &[u8; 6], frame: &[u8], listens: &impl Fn(SocketAddr) -> bool) -> Claim {
    let Some((header, packet)) = frame.split_first_chunk::<ETHERNET_HEADER>() else { return Claim::Millrace };
    let group = header[0] & 1 != 0;
    if !group && header[..6] != *mac {
        return Claim::Millrace;
    }
    // The kernel sees a tag and has an interface for it, or not.
    let (ethertype, packet) = match ([header[12], header[13]], packet) {
        (VLAN, [_, _, high, low, rest @ ..]) => ([*high, *low], rest),
        (ethertype, packet) => (ethertype, packet),
    };
    let claim = match ethertype {
        ARP => arp(rules, packet),
        IPV4 => ipv4(rules, packet, group, listens),
        IPV6 => ipv6(rules, packet, group, listens),
        _ => None,
    };
    claim.unwrap_or(Claim::Millrace)
}

/// RFC 826: an answer is everybody's; a question is for who has the address.
fn arp(rules: &ExceptionSettings, packet: &[u8]) -> Option<Claim> {
    let target: [u8; 4] = packet.get(24..28)?.try_into().ok()?;
    if rules.addresses.contains(&IpAddr::from(target)) {
        return Some(Claim::Kernel);
    }
    let answer = packet.get(6..8)? == [0, 2];
    Some(if answer { Claim::Both } else { Claim::Millrace })
}

fn ipv4(rules: &ExceptionSettings, packet: &[u8], group: bool, listens: &impl Fn(SocketAddr) -> bool) -> Option<Claim> {
    let header = packet.first_chunk::<20>()?;
    let len = usize::from(header[0] & 15) * 4;
    let destination = Ipv4Addr::new(header[16], header[17], header[18], header[19]);
    if rules.addresses.contains(&IpAddr::V4(destination)) {
        return Some(Claim::Kernel);
    }
    // Ports stand in the first fragment only.
    let first = u16::from_be_bytes([header[6], header[7]]) & 0x1fff == 0;
    let payload = if first { packet.get(len..)? } else { &[] };
    let kernel = match header[9] {
        ICMP if !group => match payload.first()? {
            0 => true,
            3 | 11 | 12 => is_kernels_v4(rules, payload.get(8..)?),
            _ => false,
        },
        protocol => transport(rules, protocol, payload, destination.into(), listens),
    };
    Some(if kernel { Claim::Kernel } else { Claim::Millrace })
}

fn ipv6(rules: &ExceptionSettings, packet: &[u8], group: bool, listens: &impl Fn(SocketAddr) -> bool) -> Option<Claim> {
    let (header, payload) = packet.split_first_chunk::<40>()?;
    let destination = Ipv6Addr::from(<[u8; 16]>::try_from(&header[24..]).ok()?);
    if rules.addresses.contains(&IpAddr::V6(destination)) {
        return Some(Claim::Kernel);
    }
    let kernel = match (header[6], payload.first()) {
        // RFC 4861: routers and neighbors tell everybody; a neighbor asks who has the address.
        (ICMPV6, Some(134 | 136)) => return Some(Claim::Both),
        (ICMPV6, Some(135)) => {
            let target: [u8; 16] = payload.get(8..24)?.try_into().ok()?;
            rules.addresses.contains(&IpAddr::from(target))
        }
        (ICMPV6, Some(129)) => !group,
        (ICMPV6, Some(1..=4)) => is_kernels_v6(rules, payload.get(8..)?),
        (ICMPV6, _) => false,
        (protocol, _) => transport(rules, protocol, payload, destination.into(), listens),
    };
    Some(if kernel { Claim::Kernel } else { Claim::Millrace })
}

/// Whether a packet is the kernel's by its protocol and ports. The port of either end counts, because the kernel connects, too; but Millrace's own
/// listeners go before a port of the other end's.
fn transport(
    rules: &ExceptionSettings,
    protocol: u8,
    payload: &[u8],
    destination: IpAddr,
    listens: &impl Fn(SocketAddr) -> bool,
) -> bool {
    let listed = match protocol {
        TCP => &rules.tcp,
        UDP => &rules.udp,
        _ => return rules.protocols.contains(&protocol),
    };
    let Some(&[a, b, c, d]) = payload.first_chunk::<4>() else { return false };
    let (remote, local) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    listed.contains(&local)
        || (listed.contains(&remote) && (protocol != TCP || !listens(SocketAddr::new(destination, local))))
}

/// Whether an error is about a packet that the kernel sent.
fn is_kernels_v4(rules: &ExceptionSettings, quoted: &[u8]) -> bool {
    let Some(header) = quoted.first_chunk::<20>() else { return false };
    let payload = quoted.get(usize::from(header[0] & 15) * 4..).unwrap_or_default();
    is_kernels(rules, header[9], ICMP, payload)
}

fn is_kernels_v6(rules: &ExceptionSettings, quoted: &[u8]) -> bool {
    let Some((header, payload)) = quoted.split_first_chunk::<40>() else { return false };
    is_kernels(rules, header[6], ICMPV6, payload)
}

fn is_kernels(rules: &ExceptionSettings, protocol: u8, icmp: u8, payload: &[u8]) -> bool {
    let listed = match protocol {
        TCP => &rules.tcp,
        UDP => &rules.udp,
        // Millrace sends no echo requests.
        _ => return protocol == icmp || rules.protocols.contains(&protocol),
    };
    let Some(&[a, b, c, d]) = payload.first_chunk::<4>() else { return false };
    listed.contains(&u16::from_be_bytes([a, b])) || listed.contains(&u16::from_be_bytes([c, d]))
}

#[cfg(test)]
mod tests;
