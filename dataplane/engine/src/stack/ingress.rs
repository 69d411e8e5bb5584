//! Segments on their way in: to their connection, through the guard, into smoltcp; or to a new connection, or to nobody.

use core::time::Duration;
use std::net::{IpAddr, SocketAddr};

use pmd::{Frame, Lane};
use smoltcp::iface::Interface;
use smoltcp::socket::tcp::State;
use tables::{CoreCounters, Verdict};

use super::connection::{Connection, Track};
use super::device::{ConnectionDevice, Out, Path};
use super::guard::{self, Judgement, Phase};
use super::recovery::Heard;
use super::time_wait::Answer;
use super::{Admission, ConnectionId, Ended, IN_TIME_WAIT, Net, Side, Stack};
use crate::clock::Instant;
use crate::flow::FlowKey;
use crate::port::{Flags, IcmpError, IcmpErrorKind, Reply, Segment};

/// A client that has not completed its handshake by then is forgotten.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(10);

impl Stack {
    /// The hash of a connection's addresses, for [`Stack::segment`]. The CPU fetches where it will be looked up.
    ///
    /// [`Stack::fetch_connection`] and [`Stack::fetch_socket`] are hints on the way there, for whole bursts; they change nothing.
    #[inline]
    #[must_use]
    pub fn approach(&self, key: &FlowKey) -> u64 {
        let hash = self.flows.hash(key);
        self.flows.prefetch(hash);
        hash
    }

    /// Has the CPU fetch the connection that is most likely under `hash`, and names it.
    #[inline]
    pub fn fetch_connection(&self, hash: u64) -> Option<ConnectionId> {
        let value = self.flows.likely(hash).filter(|value| value & IN_TIME_WAIT == 0)?;
        pmd::prefetch_whole(self.slots.get(value as usize)?);
        Some(ConnectionId(value))
    }

    /// Has the CPU fetch its socket.
    #[inline]
    pub fn fetch_socket(&self, id: ConnectionId) {
        if let Some(connection) = self.connection(id) {
            pmd::prefetch_whole(connection.pooled.socket());
        }
    }

    /// Takes a segment that a port received in `frame`, with the hash of its connection ([`Stack::approach`]). `admit` says whether a SYN to that address may open a connection.
    pub fn segment<L: Lane>(
        &mut self,
        net: &mut Net<'_, L>,
        port: usize,
        frame: L::Frame,
        segment: &Segment,
        hash: u64,
        admit: impl FnOnce(SocketAddr, IpAddr) -> Admission,
    ) {
        match self.find(hash, &segment.key) {
            Some(value) if value & IN_TIME_WAIT != 0 => {
                let slot = value & !IN_TIME_WAIT;
                if self.segment_in_time_wait(net, port, slot, segment) {
                    self.accept(net, port, frame, segment, hash, admit);
                }
            }
            Some(value) => self.deliver(net, value, frame, segment),
            None => self.accept(net, port, frame, segment, hash, admit),
        }
    }

    /// Takes an ICMP error about one of our segments (RFC 5927: only if its sequence number is in flight).
    pub fn icmp_error<L: Lane>(&mut self, net: &mut Net<'_, L>, error: &IcmpError) {
        let mtu_floor = self.settings.mtu_floor;
        let hash = self.flows.hash(&error.key);
        let value = self.find(hash, &error.key).filter(|value| value & IN_TIME_WAIT == 0);
        let Some(connection) = value.and_then(|id| self.connection_mut(ConnectionId(id))) else {
            return drop_packet(net.counters, Verdict::IcmpUnrelated);
        };
        let in_flight = connection.track.snd_nxt.wrapping_sub(connection.track.snd_una);
        if error.seq.wrapping_sub(connection.track.snd_una) >= in_flight.max(1) {
            return drop_packet(net.counters, Verdict::IcmpUnrelated);
        }
        match error.kind {
            IcmpErrorKind::FragmentationNeeded { mtu } => {
                let Some(port) = net.ports.get(usize::from(connection.port)) else { return };
                // RFC 8201 §4: IPv6 has a floor of its own.
                let floor = if error.key.local_addr().is_ipv6() { mtu_floor.max(1280) } else { mtu_floor };
                let path = Path { mtu: mtu.max(floor), largest: port.largest() };
                let (interface, mtu) = self.interfaces.on(path);
                let Some(connection) = value.and_then(|id| self.connection_mut(ConnectionId(id))) else { return };
                if mtu < connection.mtu {
                    connection.mtu = mtu;
                    connection.interface = interface;
                    let id = ConnectionId(value.unwrap_or_default());
                    self.mark_dirty(id);
                }
            }
            // Hard only while nothing was established (RFC 1122 §4.2.3.9, RFC 5927 §6.2).
            IcmpErrorKind::Unreachable { .. } if !connection.established && connection.side == Side::Backend => {
                connection.ended = Some(Ended::Reset);
                connection.pooled.socket_mut().abort();
                let id = ConnectionId(value.unwrap_or_default());
                self.mark_ready(id);
                self.mark_dirty(id);
            }
            IcmpErrorKind::Unreachable { .. } => {}
        }
    }

    /// A segment of connection `id`.
    pub(super) fn deliver<L: Lane>(&mut self, net: &mut Net<'_, L>, id: u32, mut frame: L::Frame, segment: &Segment) {
        let Some(Some(connection)) = self.slots.get_mut(id as usize) else { return };
        let position = connection.position();
        let judgement = guard::judge(&position, segment);
        match judgement {
            Judgement::Drop(verdict) => return drop_packet(net.counters, verdict),
            Judgement::Challenge(verdict) => {
                drop_packet(net.counters, verdict);
                return challenge(net, connection, &position, self.settings.challenges_per_second);
            }
            Judgement::DeliverWithAck(ack) => overwrite(&mut frame, segment.tcp_offset + 8, &ack.to_be_bytes()),
            Judgement::DeliverWithSeq(seq) => overwrite(&mut frame, segment.tcp_offset + 4, &seq.to_be_bytes()),
            Judgement::Deliver => {}
        }
        // smoltcp takes the window of every segment. That of an overtaken one would shut what is open, and nobody would open it again; and one
        // that came with an old ACK ends earlier than it would behind the present one.
        let old = matches!(judgement, Judgement::DeliverWithAck(_)) || connection.track.window_is_old(segment);
        if position.phase == Phase::Synchronized && old {
            overwrite(&mut frame, segment.tcp_offset + 14, &connection.track.window.to_be_bytes());
        }
        let was_open = connection.pooled.socket().state() != State::Closed;
        let Some(interface) = self.interfaces.get_mut(connection.interface) else { return };
        let before = (connection.track.snd_una, connection.track.window);
        ingress(interface, net, connection, &frame, segment, &mut self.scratch);
        if position.phase == Phase::Synchronized && was_lost(net.now, &mut connection.track, before, segment) {
            net.counters.losses.add(1);
            ask_again(interface, net, connection, &mut self.scratch);
        }
        if segment.flags.rst()
            && was_open
            && matches!(connection.pooled.socket().state(), State::Closed | State::Listen)
        {
            connection.ended = Some(Ended::Reset);
            net.counters.resets_received.add(1);
        }
        self.after_ingress(ConnectionId(id));
    }

    /// What a segment may have changed.
    pub(super) fn after_ingress(&mut self, id: ConnectionId) {
        let timers = self.timers_of(Side::Client);
        let Some(connection) = self.connection_mut(id) else { return };
        let socket = connection.pooled.socket_mut();
        match socket.state() {
            // A half-open connection that the peer reset.
            State::Listen => return self.release(id),
            State::SynSent | State::SynReceived => return self.mark_dirty(id),
            _ => {}
        }
        if !connection.established {
            connection.established = socket.state() != State::Closed;
            if connection.half_open {
                connection.half_open = false;
                timers.apply(socket);
                self.half_open -= 1;
                self.leases.half_open.put();
            }
        }
        let Some(connection) = self.connection_mut(id) else { return };
        let state = connection.pooled.socket().state();
        connection.peer_finished |=
            matches!(state, State::CloseWait | State::LastAck | State::Closing | State::TimeWait);
        if connection.orphan {
            self.discard_input(id);
        } else {
            self.mark_ready(id);
        }
        self.mark_dirty(id);
    }

    /// A segment for the TIME-WAIT entry in `slot`. Returns whether the segment opens a new connection instead.
    fn segment_in_time_wait<L: Lane>(
        &mut self,
        net: &mut Net<'_, L>,
        port: usize,
        slot: u32,
        segment: &Segment,
    ) -> bool {
        let Some(entry) = self.waiting.entry(slot).copied() else { return false };
        match entry.answer(segment) {
            Answer::Drop(verdict) => drop_packet(net.counters, verdict),
            Answer::Acknowledge => {
                drop_packet(net.counters, Verdict::TimeWait);
                self.waiting.extend(slot, net.now + self.settings.time_wait);
                let reply = Reply {
                    key: entry.key,
                    seq: entry.snd_nxt,
                    ack: Some(entry.rcv_nxt),
                    flags: Flags::ACK,
                    window: 0,
                };
                if let Some(port) = net.ports.get_mut(port) {
                    port.reply(net.now, &reply, net.counters);
                }
            }
            Answer::Reopen => {
                self.waiting.remove(slot);
                self.flows.remove(entry.hash, slot | IN_TIME_WAIT);
                return true;
            }
        }
        false
    }
}

/// Lets `interface` take the segment in `frame`.
pub(super) fn ingress<L: Lane>(
    interface: &mut Interface,
    net: &mut Net<'_, L>,
    connection: &mut Connection,
    frame: &L::Frame,
    segment: &Segment,
    scratch: &mut Vec<u8>,
) {
    connection.track.received(segment);
    net.counters.segments_received.add(1);
    feed(interface, net, connection, frame.bytes().get(segment.ip_offset..segment.end), scratch);
}

/// Lets `interface` take an IP packet.
#[inline]
fn feed<L: Lane>(
    interface: &mut Interface,
    net: &mut Net<'_, L>,
    connection: &mut Connection,
    packet: Option<&[u8]>,
    scratch: &mut Vec<u8>,
) {
    let time = connection.stack_time(net.now);
    let Some(port) = net.ports.get_mut(usize::from(connection.port)) else { return };
    let out = Out {
        port,
        now: net.now,
        mtu: connection.mtu,
        queued: 0,
        hop: &mut connection.hop,
        track: &mut connection.track,
        counters: net.counters,
        scratch,
    };
    let mut device = ConnectionDevice { packet, out };
    interface.poll_ingress_single(time, &mut device, &mut connection.pooled.sockets);
}

/// Whether what `segment`, which the stack has seen, says of our segments on their way is that the oldest is lost. `before`: SND.UNA and the
/// window until then.
#[inline]
fn was_lost(now: Instant, track: &mut Track, before: (u32, u16), segment: &Segment) -> bool {
    if !segment.flags.ack() || segment.flags.syn() || segment.flags.rst() {
        return false;
    }
    let bare = segment.len() == 0 && segment.ack == track.snd_una;
    let duplicate = bare && (segment.window == before.1 || segment.options.sack);
    let heard = Heard { una: (before.0, track.snd_una), nxt: track.snd_nxt, duplicate };
    track.recovery.heard(now, &heard) && !track.window_shut
}

/// Makes smoltcp send the oldest segment on its way again: by duplicate ACKs, as if the peer had sent them. Two with changing windows come
/// first, since smoltcp counts duplicates from the last change on, and acts at the third only.
#[cold]
pub(super) fn ask_again<L: Lane>(
    interface: &mut Interface,
    net: &mut Net<'_, L>,
    connection: &mut Connection,
    scratch: &mut Vec<u8>,
) {
    // A FIN alone is not sent again for duplicates; smoltcp would only forget its retransmission timer.
    if connection.pooled.socket().send_queue() == 0 {
        return;
    }
    let position = connection.position();
    let window = connection.track.window;
    let other = if window > 1 { window - 1 } else { window + 1 };
    // From them to us.
    let key = FlowKey::new(connection.key.remote(), connection.key.local());
    for window in [other, window, window, window, window] {
        let ack = Reply { key, seq: position.rcv_nxt, ack: Some(connection.track.snd_una), flags: Flags::ACK, window };
        let mut packet = [0; Reply::LONGEST];
        if ack.write(&mut packet).is_some() {
            feed(interface, net, connection, packet.get(..ack.len()), scratch);
        }
    }
}

/// Sends an ACK of where `connection` stands (RFC 5961 §3.2, §4.2, §5.2), unless it has sent enough of them this second (§7).
fn challenge<L: Lane>(net: &mut Net<'_, L>, connection: &mut Connection, position: &guard::Position, limit: u32) {
    if net.now.since(connection.challenge_second) >= 1_000_000_000 {
        connection.challenge_second = net.now;
        connection.challenges = 0;
    }
    if position.phase == Phase::SynSent {
        return;
    }
    if connection.challenges >= limit {
        return net.counters.challenge_acks_withheld.add(1);
    }
    connection.challenges += 1;
    net.counters.challenge_acks.add(1);
    let shift = connection.window_shift();
    let window = u16::try_from(position.rcv_window >> shift).unwrap_or(u16::MAX);
    let reply =
        Reply { key: connection.key, seq: position.snd_nxt, ack: Some(position.rcv_nxt), flags: Flags::ACK, window };
    if let Some(port) = net.ports.get_mut(usize::from(connection.port)) {
        port.reply(net.now, &reply, net.counters);
    }
}

/// Replaces a field of a received frame. Its checksum was checked already.
fn overwrite<F: Frame>(frame: &mut F, at: usize, value: &[u8]) {
    if let Some(field) = frame.bytes_mut().get_mut(at..at + value.len()) {
        field.copy_from_slice(value);
    }
}

pub(super) fn drop_packet(counters: &CoreCounters, verdict: Verdict) {
    counters.drops[verdict as usize].add(1);
}
