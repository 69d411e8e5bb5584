//! Connections from clients: who may open one, and the two ways of a handshake.
//!
//! Below the limit on half-open connections a SYN gets a socket at once. Above it, it gets a cookie and nothing is kept; when the
//! cookie comes back, the SYN is made again from it and played to a fresh socket, whose SYN-ACK is thrown away.

use std::net::{IpAddr, SocketAddr};

use pmd::{Frame, Lane, TxChecksum};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant as StackInstant;
use smoltcp::wire::{IpListenEndpoint, IpProtocol, IpRepr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber};
use tables::{SynCookies, Verdict};

use super::cookie::Offer;
use super::device::Path;
use super::ingress::{HANDSHAKE, drop_packet, ingress};
use super::pool::window_shift;
use super::{Admission, ConnectionId, Net, Side, Stack, ip_address, isn};
use crate::clock::Instant;
use crate::flow::FlowKey;
use crate::port::{self, ETHERNET_HEADER, Flags, Segment};

/// Bytes of an IPv6 header and of a TCP header with the options of a SYN: the longest packet of a handshake.
const LONGEST: usize = 40 + 20 + 12;

impl Stack {
    /// A segment for which there is no connection.
    pub(super) fn accept<L: Lane>(
        &mut self,
        net: &mut Net<'_, L>,
        index: usize,
        frame: L::Frame,
        segment: &Segment,
        hash: u64,
        admit: impl FnOnce(SocketAddr, IpAddr) -> Admission,
    ) {
        let opens = segment.flags.syn() && !segment.flags.ack();
        let admission = admit(segment.key.local(), segment.key.remote_addr());
        let verdict = match admission {
            Admission::Listening if opens => return self.accept_syn(net, index, frame, segment, hash),
            Admission::Listening => match self.returned_cookie(net.now, segment) {
                Some(offer) => return self.accept_cookie(net, index, frame, segment, hash, offer),
                None => Verdict::TcpNoConnection,
            },
            // No answer: it would say that there is something.
            Admission::Denied => return drop_packet(net.counters, Verdict::SourceDenied),
            Admission::Draining if opens => Verdict::Draining,
            Admission::Draining | Admission::Closed => Verdict::TcpNoConnection,
        };
        drop_packet(net.counters, verdict);
        if let Some(port) = net.ports.get_mut(index) {
            port.reset_for(net.now, segment, net.counters);
        }
    }

    /// A SYN to somebody who listens.
    fn accept_syn<L: Lane>(
        &mut self,
        net: &mut Net<'_, L>,
        index: usize,
        mut frame: L::Frame,
        segment: &Segment,
        hash: u64,
    ) {
        if let Some(sources) = &self.leases.sources
            && !sources.admit(net.now.0, segment.key.remote_addr())
        {
            return drop_packet(net.counters, Verdict::SourceRate);
        }
        let cookies = self.settings.syn_cookies;
        if cookies == SynCookies::Always || !self.leases.half_open.take() {
            if cookies == SynCookies::Never {
                return drop_packet(net.counters, Verdict::HalfOpenLimit);
            }
            return self.send_cookie(net, index, frame, segment);
        }
        let Some(path) = path(net, index, segment) else { return self.leases.half_open.put() };
        let Some(id) = self.open_client(net, index, path, segment.key, hash) else { return };
        let isn = self.isn.isn(&segment.key, net.now);
        let mut segment = *segment;
        port::clamp_syn_options(frame.bytes_mut(), &mut segment, self.settings.min_mss);
        let Some(Some(connection)) = self.slots.get_mut(id.0 as usize) else { return };
        let mut interface = isn::interface(isn, path, connection.stack_time(net.now));
        ingress(&mut interface, net, connection, &frame, &segment, &mut self.scratch);
        self.after_ingress(id);
    }

    /// A half-open connection that listens for its SYN, if there is room for one; what there is none for is dropped. The caller has taken it
    /// from the lease of half-open ones.
    fn open_client<L: Lane>(
        &mut self,
        net: &mut Net<'_, L>,
        index: usize,
        path: Path,
        key: FlowKey,
        hash: u64,
    ) -> Option<ConnectionId> {
        let opened = if !self.leases.connections.take() {
            Err(Verdict::ConnectionLimit)
        } else if !self.leases.clients.take() {
            self.leases.connections.put();
            Err(Verdict::NoMemory)
        } else {
            self.open(key, hash, index, Side::Client, path).ok_or_else(|| {
                self.leases.clients.put();
                self.leases.connections.put();
                Verdict::NoMemory
            })
        };
        let opened = opened.inspect_err(|verdict| {
            self.leases.half_open.put();
            drop_packet(net.counters, *verdict);
        });
        let id = opened.ok()?;
        self.half_open += 1;
        let timers = self.timers_of(Side::Client);
        let connection = self.connection_mut(id)?;
        connection.half_open = true;
        let local = key.local();
        let listen = IpListenEndpoint { addr: Some(ip_address(local.ip())), port: local.port() };
        let socket = connection.pooled.socket_mut();
        timers.apply_timeout(socket, HANDSHAKE);
        if socket.listen(listen).is_err() {
            // Only a socket that is open, or port 0, could refuse.
            self.release(id);
            return None;
        }
        Some(id)
    }

    /// Answers a SYN with a cookie, in its own frame and to the station that it came from: no buffer, no neighbor, nothing kept.
    #[cold]
    fn send_cookie<L: Lane>(&mut self, net: &mut Net<'_, L>, index: usize, mut frame: L::Frame, segment: &Segment) {
        let Some(port) = net.ports.get_mut(index) else { return };
        let ipv6 = segment.key.local_addr().is_ipv6();
        let offer = Offer::new(&segment.options, if ipv6 { 1220 } else { 536 }, self.settings.min_mss);
        let cookie = self.cookies.make(net.now, &segment.key, segment.seq, offer);
        let receive = self.settings.receive_buffer as usize;
        let answer = TcpRepr {
            src_port: segment.key.local_port(),
            dst_port: segment.key.remote_port(),
            control: TcpControl::Syn,
            // Both are numbers modulo 2^32.
            seq_number: TcpSeqNumber(cookie as i32),
            ack_number: Some(TcpSeqNumber(segment.seq.wrapping_add(1) as i32)),
            window_len: u16::try_from(receive).unwrap_or(u16::MAX),
            // A shift never exceeds 14: buffers are at most 1 GiB.
            window_scale: offer.window_scale.map(|_| window_shift(receive) as u8),
            max_seg_size: Some(port.mtu(segment.key.local_addr()).saturating_sub(if ipv6 { 60 } else { 40 })),
            sack_permitted: offer.sack_permitted,
            ..NOTHING
        };
        let packet = &mut [0; LONGEST];
        let (local, remote) = (segment.key.local(), segment.key.remote());
        let packet = write(packet, local, remote, &answer);
        let fits = frame.set_len(ETHERNET_HEADER + packet.len());
        let Some(place) = frame.bytes_mut().get_mut(ETHERNET_HEADER..).filter(|_| fits) else {
            return drop_packet(net.counters, Verdict::NoMemory);
        };
        place.copy_from_slice(packet);
        net.counters.syn_cookies_sent.add(1);
        net.counters.segments_sent.add(1);
        let checksum = TxChecksum::Tcp { l2_len: ETHERNET_HEADER as u8, l3_len: if ipv6 { 40 } else { 20 } };
        port.send_back(frame, segment.interface, checksum);
    }

    /// What the SYN of a handshake asked for whose cookie `segment` brings back.
    pub(super) fn returned_cookie(&mut self, now: Instant, segment: &Segment) -> Option<Offer> {
        if !segment.flags.ack() || segment.flags.syn() || segment.flags.rst() {
            return None;
        }
        let (peer_isn, cookie) = (segment.seq.wrapping_sub(1), segment.ack.wrapping_sub(1));
        self.cookies.open(now, &segment.key, peer_isn, cookie)
    }

    /// Opens the connection whose cookie came back, and hands it the segment that brought it.
    #[cold]
    fn accept_cookie<L: Lane>(
        &mut self,
        net: &mut Net<'_, L>,
        index: usize,
        frame: L::Frame,
        segment: &Segment,
        hash: u64,
        offer: Offer,
    ) {
        let Some(path) = path(net, index, segment) else { return };
        // For a moment: it is complete when the segment is in.
        self.leases.half_open.take_anyway();
        let Some(id) = self.open_client(net, index, path, segment.key, hash) else { return };
        let Some(Some(connection)) = self.slots.get_mut(id.0 as usize) else { return };
        let mut syn = *segment;
        syn.flags = Flags::SYN;
        syn.seq = segment.seq.wrapping_sub(1);
        syn.payload_len = 0;
        syn.options.mss = Some(offer.mss);
        syn.options.window_scale = offer.window_scale;
        syn.options.sack_permitted = offer.sack_permitted;
        let again = TcpRepr {
            src_port: segment.key.remote_port(),
            dst_port: segment.key.local_port(),
            control: TcpControl::Syn,
            seq_number: TcpSeqNumber(syn.seq as i32),
            window_len: segment.window,
            window_scale: offer.window_scale,
            max_seg_size: Some(offer.mss),
            sack_permitted: offer.sack_permitted,
            ..NOTHING
        };
        let packet = &mut [0; LONGEST];
        let packet = write(packet, segment.key.remote(), segment.key.local(), &again);
        let cookie = segment.ack.wrapping_sub(1);
        let time = connection.stack_time(net.now);
        let mut interface = isn::interface(cookie, path, time);
        connection.track.received(&syn);
        let mut replay = Replay { packet: Some(packet), mtu: path.mtu, scratch: &mut self.scratch };
        interface.poll_ingress_single(time, &mut replay, &mut connection.pooled.sockets);
        interface.poll_egress(time, &mut replay, &mut connection.pooled.sockets);
        connection.track.sent_before(cookie);
        self.deliver(net, id.0, frame, segment);
        match self.connection(id) {
            // It was no answer to that SYN-ACK after all.
            Some(connection) if connection.half_open => self.release(id),
            Some(_) => net.counters.syn_cookies_accepted.add(1),
            None => {}
        }
    }
}

fn path<L: Lane>(net: &Net<'_, L>, index: usize, segment: &Segment) -> Option<Path> {
    net.ports.get(index).map(|port| Path { mtu: port.mtu(segment.key.local_addr()), largest: port.largest() })
}

/// A segment that says nothing yet.
const NOTHING: TcpRepr<'static> = TcpRepr {
    src_port: 0,
    dst_port: 0,
    control: TcpControl::None,
    seq_number: TcpSeqNumber(0),
    ack_number: None,
    window_len: 0,
    window_scale: None,
    max_seg_size: None,
    sack_permitted: false,
    sack_ranges: [None; 3],
    timestamp: None,
    payload: &[],
};

/// Writes the IP packet with `segment`, whose checksums are left to the lane.
fn write<'b>(buffer: &'b mut [u8; LONGEST], from: SocketAddr, to: SocketAddr, segment: &TcpRepr<'_>) -> &'b [u8] {
    let checksums = ChecksumCapabilities::ignored();
    let (source, destination) = (ip_address(from.ip()), ip_address(to.ip()));
    let ip = IpRepr::new(source, destination, IpProtocol::Tcp, segment.buffer_len(), 64);
    // The longest of each fits, see `LONGEST`.
    let (header, rest) = buffer.split_at_mut(ip.header_len());
    ip.emit(&mut *header, &checksums);
    let tcp = &mut rest[..segment.buffer_len()];
    segment.emit(&mut TcpPacket::new_unchecked(tcp), &source, &destination, &checksums);
    &buffer[..ip.header_len() + segment.buffer_len()]
}

/// A device that gives the stack one packet and throws away what it sends.
struct Replay<'a> {
    packet: Option<&'a [u8]>,
    mtu: u16,
    scratch: &'a mut Vec<u8>,
}

impl Device for Replay<'_> {
    type RxToken<'t>
        = Again<'t>
    where
        Self: 't;
    type TxToken<'t>
        = Nowhere<'t>
    where
        Self: 't;

    fn receive(&mut self, _: StackInstant) -> Option<(Again<'_>, Nowhere<'_>)> {
        let packet = self.packet.take()?;
        Some((Again(packet), Nowhere(self.scratch)))
    }

    fn transmit(&mut self, _: StackInstant) -> Option<Nowhere<'_>> {
        Some(Nowhere(self.scratch))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = usize::from(self.mtu);
        capabilities.checksum = ChecksumCapabilities::ignored();
        capabilities
    }
}

struct Again<'t>(&'t [u8]);

impl RxToken for Again<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

struct Nowhere<'t>(&'t mut Vec<u8>);

impl TxToken for Nowhere<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        self.0.resize(len, 0);
        f(self.0)
    }
}
