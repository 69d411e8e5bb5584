//! What smoltcp takes for a network device: one received packet in, any number of packets out.

use core::num::{NonZeroU16, NonZeroUsize};

use pmd::{Frame, Lane, TxChecksum};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, PacketMeta, RxToken, TxToken};
use smoltcp::time::Instant as StackInstant;
use tables::CoreCounters;

use super::connection::Track;
use crate::clock::Instant;
use crate::port::{ETHERNET_HEADER, Hop, Port};

/// Bytes of headers in front of a segment's payload at most: IPv6 and TCP with all options.
const HEADERS: usize = 40 + 60;

fn capabilities(mtu: u16, largest: u16) -> DeviceCapabilities {
    let mut capabilities = DeviceCapabilities::default();
    capabilities.medium = Medium::Ip;
    capabilities.max_transmission_unit = usize::from(mtu);
    // Ports check what comes in, and lanes fill in what goes out.
    capabilities.checksum = ChecksumCapabilities::ignored();
    let largest = NonZeroUsize::new(largest.into());
    capabilities.segmentation.tcpv4 = largest;
    capabilities.segmentation.tcpv6 = largest;
    capabilities
}

/// What a path carries; as a device without packets, it tells an interface so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Path {
    /// The largest IP packet.
    pub mtu: u16,
    /// The largest that the port cuts into segments; 0 where it does not.
    pub largest: u16,
}

/// The device of one connection while the stack works on it.
pub(super) struct ConnectionDevice<'a, L: Lane> {
    /// The IP packet that came in, until the stack takes it.
    pub packet: Option<&'a [u8]>,
    /// Where packets go out.
    pub out: Out<'a, L>,
}

/// Where a connection's packets go out, and who is told of them.
pub(super) struct Out<'a, L: Lane> {
    /// The port.
    pub port: &'a mut Port<L>,
    /// Real time.
    pub now: Instant,
    /// The path's MTU.
    pub mtu: u16,
    /// Bytes of the stream that are not acknowledged, and so may be sent. With none, there is nothing to send but acknowledgements.
    pub queued: usize,
    /// Next hop, remembered from packet to packet.
    pub hop: &'a mut Hop,
    /// The connection's sequence numbers.
    pub track: &'a mut Track,
    /// The core's counters.
    pub counters: &'a CoreCounters,
    /// Takes a packet for which there is no frame.
    pub scratch: &'a mut Vec<u8>,
}

impl<L: Lane> Device for ConnectionDevice<'_, L> {
    type RxToken<'t>
        = Received<'t>
    where
        Self: 't;
    type TxToken<'t>
        = Sending<'t, L>
    where
        Self: 't;

    fn receive(&mut self, _: StackInstant) -> Option<(Received<'_>, Sending<'_, L>)> {
        let packet = self.packet.take()?;
        Some((Received(packet), self.out.token(None)))
    }

    fn transmit(&mut self, _: StackInstant) -> Option<Sending<'_, L>> {
        // Taken before the stack decides that the packet is sent: with an empty pool it keeps its state and tries again.
        let Out { port, mtu, queued, .. } = &mut self.out;
        let mtu = usize::from(*mtu);
        let frame = match *queued {
            0 => port.bare_packet(mtu)?,
            queued if queued + HEADERS > mtu && port.largest() > 0 => port.large_packet()?,
            _ => port.packet(mtu)?,
        };
        Some(self.out.token(Some(frame)))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        capabilities(self.out.mtu, self.out.port.largest())
    }
}

impl<L: Lane> Out<'_, L> {
    fn token(&mut self, frame: Option<L::Frame>) -> Sending<'_, L> {
        Sending {
            frame,
            mss: None,
            out: Out {
                port: self.port,
                now: self.now,
                mtu: self.mtu,
                queued: self.queued,
                hop: self.hop,
                track: self.track,
                counters: self.counters,
                scratch: self.scratch,
            },
        }
    }
}

/// The packet that came in.
pub(super) struct Received<'t>(&'t [u8]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// Leave to send one packet.
pub(super) struct Sending<'t, L: Lane> {
    frame: Option<L::Frame>,
    /// What the port is to cut the packet's payload into.
    mss: Option<NonZeroU16>,
    out: Out<'t, L>,
}

impl<L: Lane> TxToken for Sending<'_, L> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let Self { frame, mss, out } = self;
        // What answers a segment at once is an ACK or a RST.
        let frame = frame.or_else(|| out.port.bare_packet(len)).and_then(|mut frame| {
            let fits = frame.set_len(ETHERNET_HEADER + len) && frame.bytes().len() == ETHERNET_HEADER + len;
            fits.then_some(frame)
        });
        let Some(mut frame) = frame else {
            // No buffer: the packet is lost as if on the wire, which the lane counted, and TCP will send it again.
            out.scratch.resize(len, 0);
            return f(out.scratch);
        };
        let (_, packet) = frame.bytes_mut().split_at_mut(ETHERNET_HEADER);
        let result = f(packet);
        out.track.sent(out.now, packet, out.counters);
        let ipv6 = packet.first().is_some_and(|first| first >> 4 == 6);
        let (l2_len, l3_len) = (ETHERNET_HEADER as u8, if ipv6 { 40 } else { 20 });
        let checksum = match mss {
            Some(mss) => TxChecksum::TcpSegments { l2_len, l3_len, mss: mss.get() },
            None => TxChecksum::Tcp { l2_len, l3_len },
        };
        let destination = out.track.remote;
        out.port.send_via(out.now, out.hop, frame, destination, checksum, out.counters);
        result
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.mss = meta.segmentation_offload_size;
    }
}

impl Device for Path {
    type RxToken<'t> = Received<'t>;
    type TxToken<'t> = Never;

    fn receive(&mut self, _: StackInstant) -> Option<(Received<'_>, Never)> {
        None
    }

    fn transmit(&mut self, _: StackInstant) -> Option<Never> {
        None
    }

    fn capabilities(&self) -> DeviceCapabilities {
        capabilities(self.mtu, self.largest)
    }
}

/// A token that nobody ever gets.
#[derive(Debug)]
pub(super) enum Never {}

impl TxToken for Never {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, _: usize, _: F) -> R {
        match self {}
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A device that keeps what is sent.
    #[derive(Debug, Default)]
    pub(in crate::stack) struct Capture {
        pub(in crate::stack) sent: Vec<Vec<u8>>,
    }

    pub(in crate::stack) struct Keep<'t>(&'t mut Vec<Vec<u8>>);

    impl TxToken for Keep<'_> {
        fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
            let mut packet = vec![0; len];
            let result = f(&mut packet);
            self.0.push(packet);
            result
        }
    }

    impl Device for Capture {
        type RxToken<'t> = Received<'t>;
        type TxToken<'t> = Keep<'t>;

        fn receive(&mut self, _: StackInstant) -> Option<(Received<'_>, Keep<'_>)> {
            None
        }

        fn transmit(&mut self, _: StackInstant) -> Option<Keep<'_>> {
            Some(Keep(&mut self.sent))
        }

        fn capabilities(&self) -> DeviceCapabilities {
            capabilities(1500, 0)
        }
    }
}
