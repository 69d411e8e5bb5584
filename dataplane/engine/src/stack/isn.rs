//! Initial sequence numbers by keyed hash and clock (RFC 6528), through a stack that draws its own.
//!
//! smoltcp draws the initial sequence number of a connection from its interface's generator, an sPCG32 whose step can be
//! undone. [`seed`] works out the seed for which the draw is the number that we want; a throw-away interface made from it
//! then handles the one segment, or the one `connect`, that needs it. A unit test guards what this assumes about smoltcp.

use core::hash::Hasher;
use core::time::Duration;

use siphasher::sip::SipHasher13;
use smoltcp::iface::{Config, Interface};
use smoltcp::time::Instant as StackInstant;
use smoltcp::wire::HardwareAddress;

use super::device::Path;
use crate::clock::Instant;
use crate::flow::FlowKey;

/// smoltcp's generator (`src/rand.rs`): state ← state · M + A.
const M: u64 = 0xbb2e_fcec_3c39_611d;
const A: u64 = 0x7590_ef39;
/// The inverse of `M` modulo 2^64.
const M_INVERSE: u64 = inverse(M);

/// One tick of the ISN clock (RFC 6528 §3: a 4 µs timer).
const TICK: Duration = Duration::from_micros(4);

/// The secret of RFC 6528 and the function over it.
#[derive(Debug, Clone)]
pub(super) struct IsnGenerator {
    hasher: SipHasher13,
}

impl IsnGenerator {
    /// A generator with a secret drawn from `seed`.
    #[must_use]
    pub(super) fn new(seed: (u64, u64)) -> Self {
        Self { hasher: SipHasher13::new_with_keys(seed.0, seed.1) }
    }

    /// ISN = M + F(localip, localport, remoteip, remoteport, secretkey) (RFC 6528 §3).
    #[must_use]
    pub(super) fn isn(&self, key: &FlowKey, now: Instant) -> u32 {
        use core::hash::Hash;
        let mut hasher = self.hasher;
        key.hash(&mut hasher);
        let clock = now.0 / TICK.as_nanos() as u64;
        // Both are numbers modulo 2^32.
        (hasher.finish() as u32).wrapping_add(clock as u32)
    }
}

/// An interface whose next sequence number is `isn`.
#[must_use]
pub(super) fn interface(isn: u32, mut path: Path, now: StackInstant) -> Interface {
    let mut config = Config::new(HardwareAddress::Ip);
    config.random_seed = seed(isn);
    let mut interface = Interface::new(config, &mut path, now);
    interface.set_any_ip(true);
    interface
}

/// The seed for which the second draw is `isn`; the first is the interface's IPv4 identification, which is drawn again while it is 0.
fn seed(isn: u32) -> u64 {
    // With the top three bits 0 the output is the state shifted right by 29: the low 29 bits are free, and used to
    // step around a first draw of 0.
    for free in 0..8u64 {
        let second = (u64::from(isn) << 29) | ((free * 0x0123_4567) & ((1 << 29) - 1));
        let first = second.wrapping_sub(A).wrapping_mul(M_INVERSE);
        if identification(first) != 0 {
            return first.wrapping_sub(A).wrapping_mul(M_INVERSE);
        }
    }
    // Eight independent draws of 16 bits were all 0: once in 2^128 handshakes the number is smoltcp's own choice.
    0
}

/// What smoltcp makes of a state when it draws 16 bits.
fn identification(state: u64) -> u16 {
    let word = (state >> (29 - (state >> 61))) as u32;
    (word ^ (word >> 16)) as u16
}

/// The inverse of an odd number modulo 2^64, by Newton's iteration: each step doubles the number of right bits.
const fn inverse(m: u64) -> u64 {
    let mut x = m;
    let mut step = 0;
    while step < 6 {
        x = x.wrapping_mul(2u64.wrapping_sub(m.wrapping_mul(x)));
        step += 1;
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;
    use smoltcp::socket::tcp::{Socket, SocketBuffer};
    use smoltcp::wire::{IpAddress, TcpPacket};

    /// The number that a `connect` through [`interface`] really puts on the wire.
    fn on_the_wire(isn: u32) -> u32 {
        let mut interface = interface(isn, Path { mtu: 1500, largest: 0 }, StackInstant::ZERO);
        let mut socket = Socket::new(SocketBuffer::new(vec![0; 64]), SocketBuffer::new(vec![0; 64]));
        let remote = (IpAddress::v4(10, 0, 0, 2), 80);
        socket.connect(interface.context(), remote, (IpAddress::v4(10, 0, 0, 1), 40000)).unwrap();
        let mut sockets = smoltcp::iface::SocketSet::new(Vec::new());
        sockets.add(socket);
        let mut device = super::super::device::tests::Capture::default();
        interface.poll_egress(StackInstant::ZERO, &mut device, &mut sockets);
        let packet = device.sent.pop().unwrap();
        TcpPacket::new_checked(&packet[20..]).unwrap().seq_number().0 as u32
    }

    #[test]
    fn smoltcp_draws_the_number_that_was_wanted() {
        let mut wanted = 1u32;
        for _ in 0..2_000 {
            wanted = wanted.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            assert_eq!(on_the_wire(wanted), wanted);
        }
        for wanted in [0, 1, u32::MAX, 0x8000_0000, 0x7fff_ffff] {
            assert_eq!(on_the_wire(wanted), wanted);
        }
    }

    #[test]
    fn numbers_follow_the_clock_and_differ_between_flows_and_secrets() {
        let key = |port| {
            FlowKey::new("10.0.0.1:80".parse().unwrap(), std::net::SocketAddr::new("10.0.0.9".parse().unwrap(), port))
        };
        let generator = IsnGenerator::new((1, 2));
        let first = generator.isn(&key(1000), Instant(0));
        assert_eq!(generator.isn(&key(1000), Instant(4_000_000)).wrapping_sub(first), 1000);
        assert_ne!(generator.isn(&key(1001), Instant(0)), first);
        assert_ne!(IsnGenerator::new((1, 3)).isn(&key(1000), Instant(0)), first);
    }
}
