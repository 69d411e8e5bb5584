//! TCP on one core: connections, their segments, their timers.
//!
//! It owns every TCP connection of the core, the flow table that finds them and the wheel that wakes them. Segments come in
//! from [`crate::port`], one at a time; bytes go to and from the layer above through [`ConnectionId`]s. smoltcp runs each
//! connection: one socket in a set of its own, one shared interface per MTU, at a time scale of the connection's side. It never
//! looks at the bytes it carries, and knows nothing of HTTP.

mod connection;
mod device;
mod guard;
mod isn;
mod pool;
mod streams;
mod time_wait;

use core::time::Duration;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use pmd::{Frame, Lane};
use smoltcp::iface::{Interface, PollResult};
use smoltcp::socket::tcp::State;
use smoltcp::wire::{IpAddress, IpEndpoint, IpListenEndpoint};
use tables::{CoreCounters, TcpSettings, Verdict};

use self::connection::{Connection, Track, stack_time};
pub use self::connection::{Ended, Side};
use self::device::{ConnectionDevice, Out};
use self::guard::{Judgement, Phase};
use self::isn::IsnGenerator;
use self::pool::{SocketPool, SocketTimers};
pub use self::streams::Status;
use self::time_wait::{Answer, Entry, TimeWait};
use crate::clock::Instant;
use crate::flow::{FlowKey, FlowTable};
use crate::port::{self, Flags, Hop, IcmpError, IcmpErrorKind, Port, Reply, Segment};
use crate::random::Random;
use crate::timer::Wheel;

/// Segments that one connection sends in one turn at most, so that a bulk transfer does not make the others wait.
const SEGMENTS_A_TURN: usize = 32;

/// Timers fired in one turn at most.
const TIMERS_A_TURN: usize = 256;

/// Connections visited for egress in one turn at most; the others keep their place in the queue.
const VISITS_A_TURN: usize = 1024;

/// TIME-WAIT entries ended in one turn at most.
const ENDS_A_TURN: usize = 64;

/// Source ports tried for one connection until one is free.
const PORT_TRIES: usize = 64;

/// Source ports are drawn from here up: below lie the ports that listeners use.
const FIRST_PORT: u16 = 10_240;

/// A client that has not completed its handshake by then is forgotten.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Different path MTUs at a time, each with an interface; further ones are rounded down to one of these.
const MTU_CLASSES: usize = 16;

/// Marks a flow table value as a TIME-WAIT slot.
const IN_TIME_WAIT: u32 = 1 << 31;

/// Names a connection while it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId(pub u32);

/// What the stack needs from its surroundings while it works.
pub struct Net<'a, L: Lane> {
    /// The time of this turn.
    pub now: Instant,
    /// The ports, by index.
    pub ports: &'a mut [Port<L>],
    /// The core's counters.
    pub counters: &'a CoreCounters,
}

/// Whether a SYN may open a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Somebody listens there.
    Listening,
    /// Nobody does.
    Closed,
    /// Somebody did, and accepts nothing new.
    Draining,
}

/// Why no connection could be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectError {
    /// No port leads there.
    NoRoute,
    /// All source ports that were tried are in use.
    NoPort,
    /// The connection limit is reached.
    Limit,
}

/// All TCP connections of one core.
pub struct Stack {
    settings: TcpSettings,
    slots: Vec<Option<Connection>>,
    free: Vec<u32>,
    flows: FlowTable,
    waiting: TimeWait,
    pool: SocketPool,
    interfaces: Vec<(u16, Interface)>,
    wheel: Wheel,
    dirty: VecDeque<u32>,
    ready: VecDeque<u32>,
    isn: IsnGenerator,
    random: Random,
    half_open: u32,
    live: u32,
    /// How many sockets' buffers fit into the memory for them.
    max_sockets: usize,
    scratch: Vec<u8>,
}

impl Stack {
    /// A stack without connections. `random` seeds its secrets.
    #[must_use]
    pub fn new(settings: &TcpSettings, mut random: Random) -> Self {
        let flows = settings.max_connections.saturating_add(settings.max_time_wait) as usize;
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            flows: FlowTable::with_capacity(flows, [random.next_u64(), random.next_u64()]),
            waiting: TimeWait::new(settings.max_time_wait.max(1) as usize),
            pool: SocketPool::new(settings.receive_buffer as usize, settings.send_buffer as usize),
            interfaces: Vec::with_capacity(MTU_CLASSES),
            wheel: Wheel::with_capacity(1024),
            dirty: VecDeque::with_capacity(1024),
            ready: VecDeque::with_capacity(1024),
            isn: IsnGenerator::new((random.next_u64(), random.next_u64())),
            // Source ports are there for anybody to see: what draws them must not tell what the secrets were drawn from.
            random: random.behind_a_hash(),
            half_open: 0,
            live: 0,
            max_sockets: max_sockets(settings),
            scratch: Vec::new(),
            settings: settings.clone(),
        }
    }

    /// Takes a segment that a port received in `frame`. `admit` says whether a SYN to that address may open a connection.
    pub fn segment<L: Lane>(
        &mut self,
        net: &mut Net<'_, L>,
        port: usize,
        frame: L::Frame,
        segment: &Segment,
        admit: impl FnOnce(SocketAddr) -> Admission,
    ) {
        let hash = self.flows.hash(&segment.key);
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

    /// Opens a connection to a backend. The layer above hears of it when it is established, or has failed.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub fn connect<L: Lane>(&mut self, net: &mut Net<'_, L>, remote: SocketAddr) -> Result<ConnectionId, ConnectError> {
        if self.live >= self.settings.max_connections || self.pool.in_use() >= self.max_sockets {
            return Err(ConnectError::Limit);
        }
        let on_link = net.ports.iter().position(|p| p.on_link(remote.ip()));
        let index =
            on_link.or_else(|| net.ports.iter().position(|p| p.reaches(remote.ip()))).ok_or(ConnectError::NoRoute)?;
        let port = net.ports.get(index).ok_or(ConnectError::NoRoute)?;
        let local = port.source_for(remote.ip()).ok_or(ConnectError::NoRoute)?;
        let mtu = port.mtu();
        let (key, hash) = self.free_key(local, remote).ok_or(ConnectError::NoPort)?;

        let isn = self.isn.isn(&key, net.now);
        let id = self.open(key, hash, index, Side::Backend, mtu).ok_or(ConnectError::Limit)?;
        let Some(connection) = self.connection_mut(id) else { return Err(ConnectError::Limit) };
        let mut interface = isn::interface(isn, mtu, connection.stack_time(net.now));
        let local = endpoint(key.local());
        let opened = connection.pooled.socket_mut().connect(interface.context(), endpoint(remote), local);
        if opened.is_err() {
            // The addresses are unicast and the ports are not 0: only a socket that is still open could refuse.
            self.release(id);
            return Err(ConnectError::NoRoute);
        }
        self.mark_dirty(id);
        Ok(id)
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
                let (interface, mtu) = interface_for(&mut self.interfaces, mtu.max(mtu_floor));
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

    /// Fails the connections in their handshake with `address`, whose link-layer address nobody told us.
    pub fn unreachable(&mut self, address: IpAddr) {
        for id in 0..self.slots.len() as u32 {
            let Some(connection) = self.connection_mut(ConnectionId(id)) else { continue };
            if connection.track.remote == address && !connection.established && connection.side == Side::Backend {
                connection.ended = Some(Ended::TimedOut);
                connection.pooled.socket_mut().abort();
                self.mark_ready(ConnectionId(id));
                self.mark_dirty(ConnectionId(id));
            }
        }
    }

    /// Wakes the connections whose timers are due. Returns whether there were any.
    pub fn timers(&mut self, now: Instant) -> bool {
        let mut any = false;
        let Self { wheel, slots, dirty, .. } = self;
        wheel.advance(now, TIMERS_A_TURN, |key| {
            any = true;
            if let Some(Some(connection)) = slots.get_mut(key as usize) {
                connection.armed = Instant::NEVER;
                if !connection.dirty {
                    connection.dirty = true;
                    dirty.push_back(key);
                }
            }
        });
        for _ in 0..ENDS_A_TURN {
            let Some((slot, entry)) = self.waiting.expire(now, false) else { break };
            self.flows.remove(entry.hash, slot | IN_TIME_WAIT);
            any = true;
        }
        any
    }

    /// Lets every connection that has something to do send. Returns whether there were any.
    pub fn egress<L: Lane>(&mut self, net: &mut Net<'_, L>) -> bool {
        let visits = self.dirty.len().min(VISITS_A_TURN);
        for _ in 0..visits {
            if let Some(id) = self.dirty.pop_front() {
                self.visit(net, ConnectionId(id));
            }
        }
        visits > 0
    }

    /// When a timer is due at the earliest; a lower bound.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.wheel.next_due().into_iter().chain(self.waiting.next_end()).min()
    }

    /// Writes the gauges.
    pub fn report(&self, counters: &CoreCounters) {
        counters.half_open.set(u64::from(self.half_open));
        counters.time_wait.set(self.waiting.len() as u64);
        counters.flows.set(self.flows.len() as u64);
        counters.timers.set(self.wheel.len() as u64);
        counters.sockets.set(self.pool.in_use() as u64);
    }

    /// Connections that live, TIME-WAIT not among them.
    #[must_use]
    pub fn live(&self) -> u32 {
        self.live
    }

    /// Resets all connections that nobody above owns; those that have an owner are its to close.
    pub fn abort_orphans(&mut self) {
        for id in 0..self.slots.len() as u32 {
            let Some(connection) = self.connection_mut(ConnectionId(id)) else { continue };
            if connection.orphan || connection.half_open {
                self.abort(ConnectionId(id));
            }
        }
    }

    /// The slots in use, for walks over all connections a piece at a time.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.slots.len() as u32
    }

    fn find(&self, hash: u64, key: &FlowKey) -> Option<u32> {
        self.flows.find(hash, |value| {
            if value & IN_TIME_WAIT != 0 {
                self.waiting.entry(value & !IN_TIME_WAIT).is_some_and(|entry| entry.key == *key)
            } else {
                self.slots.get(value as usize).and_then(Option::as_ref).is_some_and(|c| c.key == *key)
            }
        })
    }

    /// A source port that is free towards `remote`.
    fn free_key(&mut self, local: IpAddr, remote: SocketAddr) -> Option<(FlowKey, u64)> {
        (0..PORT_TRIES).find_map(|_| {
            let span = u64::from(u16::MAX - FIRST_PORT) + 1;
            let port = FIRST_PORT + (self.random.next_u64() % span) as u16;
            let key = FlowKey::new(SocketAddr::new(local, port), remote);
            let hash = self.flows.hash(&key);
            self.find(hash, &key).is_none().then_some((key, hash))
        })
    }

    /// A segment for which there is no connection.
    fn accept<L: Lane>(
        &mut self,
        net: &mut Net<'_, L>,
        index: usize,
        mut frame: L::Frame,
        segment: &Segment,
        hash: u64,
        admit: impl FnOnce(SocketAddr) -> Admission,
    ) {
        let Some(port) = net.ports.get_mut(index) else { return };
        let opens = segment.flags.syn() && !segment.flags.ack();
        let refusal = match admit(segment.key.local()) {
            _ if !opens => Some(Verdict::TcpNoConnection),
            Admission::Closed => Some(Verdict::TcpNoConnection),
            Admission::Draining => Some(Verdict::Draining),
            Admission::Listening => None,
        };
        if let Some(verdict) = refusal {
            drop_packet(net.counters, verdict);
            return port.reset_for(net.now, segment, net.counters);
        }
        if self.half_open >= self.settings.half_open {
            return drop_packet(net.counters, Verdict::HalfOpenLimit);
        }
        if self.live >= self.settings.max_connections {
            return drop_packet(net.counters, Verdict::ConnectionLimit);
        }
        // What is left is for the backend connections of those who are in.
        if self.pool.in_use() >= self.max_sockets - self.max_sockets / 8 {
            return drop_packet(net.counters, Verdict::NoMemory);
        }
        let mtu = port.mtu();
        let Some(id) = self.open(segment.key, hash, index, Side::Client, mtu) else {
            return drop_packet(net.counters, Verdict::NoMemory);
        };
        self.half_open += 1;
        let isn = self.isn.isn(&segment.key, net.now);
        let timers = self.timers_of(Side::Client);
        let Some(Some(connection)) = self.slots.get_mut(id.0 as usize) else { return };
        connection.half_open = true;
        let local = segment.key.local();
        let listen = IpListenEndpoint { addr: Some(ip_address(local.ip())), port: local.port() };
        let socket = connection.pooled.socket_mut();
        timers.apply_timeout(socket, HANDSHAKE);
        if socket.listen(listen).is_err() {
            return self.release(id);
        }
        let mut segment = *segment;
        port::clamp_syn_options(frame.bytes_mut(), &mut segment, self.settings.min_mss);
        let mut interface = isn::interface(isn, mtu, connection.stack_time(net.now));
        ingress(&mut interface, net, connection, &frame, &segment, &mut self.scratch);
        self.after_ingress(id);
    }

    /// A segment of connection `id`.
    fn deliver<L: Lane>(&mut self, net: &mut Net<'_, L>, id: u32, mut frame: L::Frame, segment: &Segment) {
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
        let Some((_, interface)) = self.interfaces.get_mut(usize::from(connection.interface)) else { return };
        ingress(interface, net, connection, &frame, segment, &mut self.scratch);
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
    fn after_ingress(&mut self, id: ConnectionId) {
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

    /// A slot with a closed socket, in the flow table.
    fn open(&mut self, key: FlowKey, hash: u64, port: usize, side: Side, mtu: u16) -> Option<ConnectionId> {
        let id = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1) as u32
        });
        if self.flows.insert(hash, id).is_err() {
            self.free.push(id);
            return None;
        }
        self.live += 1;
        let timers = self.timers_of(side);
        let (interface, mtu) = interface_for(&mut self.interfaces, mtu);
        let connection = Connection {
            key,
            hash,
            port: port as u8,
            side,
            scale: timers.scale,
            mtu,
            interface,
            pooled: self.pool.take(&timers),
            track: Track::new(key.remote().ip()),
            hop: Hop::default(),
            spill: Vec::new(),
            closing: false,
            orphan: false,
            orphan_until: Instant::NEVER,
            linger: Duration::ZERO,
            zero_window_since: Instant::NEVER,
            half_open: false,
            established: false,
            peer_finished: false,
            dirty: false,
            ready: false,
            armed: Instant::NEVER,
            challenges: 0,
            challenge_second: Instant::default(),
            ended: None,
        };
        if let Some(slot) = self.slots.get_mut(id as usize) {
            *slot = Some(connection);
        }
        Some(ConnectionId(id))
    }

    /// Frees a slot and all that belongs to it.
    fn release(&mut self, id: ConnectionId) {
        let Some(connection) = self.slots.get_mut(id.0 as usize).and_then(Option::take) else { return };
        self.wheel.cancel(id.0);
        self.flows.remove(connection.hash, id.0);
        self.half_open -= u32::from(connection.half_open);
        self.live -= 1;
        self.pool.put(connection.pooled);
        self.free.push(id.0);
    }

    /// Keeps of a connection only what TIME-WAIT needs.
    fn release_to_time_wait(&mut self, id: ConnectionId, now: Instant) {
        let Some(connection) = self.connection(id) else { return };
        let position = connection.position();
        let entry = Entry {
            key: connection.key,
            hash: connection.hash,
            snd_nxt: position.snd_nxt,
            rcv_nxt: position.rcv_nxt,
            until: now + self.settings.time_wait,
        };
        self.release(id);
        if self.waiting.is_full()
            && let Some((slot, oldest)) = self.waiting.expire(now, true)
        {
            self.flows.remove(oldest.hash, slot | IN_TIME_WAIT);
        }
        let slot = self.waiting.insert(entry);
        if self.flows.insert(entry.hash, slot | IN_TIME_WAIT).is_err() {
            self.waiting.remove(slot);
        }
    }

    /// Lets connection `id` send what it may, arms its timer, and frees it when it is done.
    fn visit<L: Lane>(&mut self, net: &mut Net<'_, L>, id: ConnectionId) {
        let Some(Some(connection)) = self.slots.get_mut(id.0 as usize) else { return };
        if !connection.dirty {
            return;
        }
        connection.dirty = false;
        connection.pour_spill();
        let time = connection.stack_time(net.now);
        let before = connection.pooled.socket().state();
        let shut = connection.shut_since(net.now) + self.settings.zero_window_timeout;
        if (connection.orphan && net.now >= connection.orphan_until) || net.now >= shut {
            connection.pooled.socket_mut().abort();
        }
        let Some((_, interface)) = self.interfaces.get_mut(usize::from(connection.interface)) else { return };
        let mut sent = 0;
        let idle = connection.pooled.socket().send_queue() == 0;
        // Half of all visits have nothing to send, and finding that out is cheaper than trying.
        let due =
            connection.has_news() || interface.poll_at(time, &connection.pooled.sockets).is_some_and(|at| at <= time);
        while due && sent < SEGMENTS_A_TURN {
            let Some(port) = net.ports.get_mut(usize::from(connection.port)) else { break };
            let out = Out {
                port,
                now: net.now,
                mtu: connection.mtu,
                bare: idle,
                hop: &mut connection.hop,
                track: &mut connection.track,
                counters: net.counters,
                scratch: &mut self.scratch,
            };
            let mut device = ConnectionDevice { packet: None, out };
            if interface.poll_egress(time, &mut device, &mut connection.pooled.sockets) == PollResult::None {
                break;
            }
            sent += 1;
            if connection.everything_sent() {
                break;
            }
        }
        let state = connection.pooled.socket().state();
        if state == State::Closed && before != State::Closed && connection.ended.is_none() {
            // The socket's own timeout: nothing else closes it in here.
            connection.ended = Some(Ended::TimedOut);
            net.counters.tcp_timeouts.add(1);
            if !connection.orphan && !connection.half_open {
                self.mark_ready(id);
            }
        }
        self.settle(net.now, id, sent);
    }

    /// Frees a connection that is done, or arms its timer.
    fn settle(&mut self, now: Instant, id: ConnectionId, sent: usize) {
        let Some(Some(connection)) = self.slots.get_mut(id.0 as usize) else { return };
        let state = connection.pooled.socket().state();
        let unowned = connection.orphan || connection.half_open;
        match state {
            State::Closed if unowned => return self.release(id),
            State::TimeWait if unowned => return self.release_to_time_wait(id, now),
            // Over, and its owner's to let go of: no timer may wake it before.
            State::TimeWait | State::Closed => return self.mark_ready(id),
            _ => {}
        }
        let Some(Some(connection)) = self.slots.get_mut(id.0 as usize) else { return };
        if sent == SEGMENTS_A_TURN {
            return self.mark_dirty(id);
        }
        // What was just sent acknowledged everything too, so that the next thing due is a retransmission, whose time has a lower bound.
        if sent > 0
            && !connection.orphan
            && connection.everything_sent()
            && connection.armed <= now + connection.least_rto()
        {
            return;
        }
        let time = connection.stack_time(now);
        let Some((_, interface)) = self.interfaces.get_mut(usize::from(connection.interface)) else { return };
        let due = interface.poll_at(time, &connection.pooled.sockets);
        let mut at = match due {
            // Something keeps it from sending now, an empty pool say: it tries again with the next tick.
            Some(at) if at <= time => now,
            Some(at) => connection.real_time(at),
            None => Instant::NEVER,
        };
        at = at.min(connection.zero_window_since + self.settings.zero_window_timeout);
        if connection.orphan {
            if state == State::FinWait2 {
                connection.orphan_until = connection.orphan_until.min(now + connection.linger);
            }
            at = at.min(connection.orphan_until);
        }
        // A timer that fires early finds nothing due and is armed anew, which is cheaper than moving it at every segment.
        if at < connection.armed {
            connection.armed = at;
            self.wheel.schedule(id.0, at);
        }
    }

    fn timers_of(&self, side: Side) -> SocketTimers {
        let scale = match side {
            Side::Client => self.settings.client_time_scale,
            Side::Backend => self.settings.backend_time_scale,
        };
        SocketTimers { keepalive: self.settings.keepalive, timeout: self.settings.timeout, scale: scale.max(1) }
    }

    fn connection(&self, id: ConnectionId) -> Option<&Connection> {
        self.slots.get(id.0 as usize)?.as_ref()
    }

    fn connection_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.slots.get_mut(id.0 as usize)?.as_mut()
    }

    fn mark_dirty(&mut self, id: ConnectionId) {
        if let Some(Some(connection)) = self.slots.get_mut(id.0 as usize)
            && !connection.dirty
        {
            connection.dirty = true;
            self.dirty.push_back(id.0);
        }
    }

    fn mark_ready(&mut self, id: ConnectionId) {
        if let Some(Some(connection)) = self.slots.get_mut(id.0 as usize)
            && !connection.ready
        {
            connection.ready = true;
            self.ready.push_back(id.0);
        }
    }
}

/// Lets `interface` take the segment in `frame`.
fn ingress<L: Lane>(
    interface: &mut Interface,
    net: &mut Net<'_, L>,
    connection: &mut Connection,
    frame: &L::Frame,
    segment: &Segment,
    scratch: &mut Vec<u8>,
) {
    let time = connection.stack_time(net.now);
    let packet = frame.bytes().get(segment.ip_offset..segment.end);
    let Some(port) = net.ports.get_mut(usize::from(connection.port)) else { return };
    connection.track.received(segment);
    net.counters.segments_received.add(1);
    let out = Out {
        port,
        now: net.now,
        mtu: connection.mtu,
        bare: true,
        hop: &mut connection.hop,
        track: &mut connection.track,
        counters: net.counters,
        scratch,
    };
    let mut device = ConnectionDevice { packet, out };
    interface.poll_ingress_single(time, &mut device, &mut connection.pooled.sockets);
}

/// Sends an ACK of where `connection` stands (RFC 5961 §3.2, §4.2, §5.2), unless it has sent enough of them this second (§7).
fn challenge<L: Lane>(net: &mut Net<'_, L>, connection: &mut Connection, position: &guard::Position, limit: u32) {
    if net.now.since(connection.challenge_second) >= 1_000_000_000 {
        connection.challenge_second = net.now;
        connection.challenges = 0;
    }
    if connection.challenges >= limit || position.phase == Phase::SynSent {
        return;
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

/// The position of the interface for `mtu`, made when it is first needed, and its MTU; with too many of them, the next smaller one's.
fn interface_for(interfaces: &mut Vec<(u16, Interface)>, mtu: u16) -> (u8, u16) {
    let at = match interfaces.iter().position(|&(m, _)| m == mtu) {
        Some(at) => at,
        None if interfaces.len() < MTU_CLASSES => {
            interfaces.push((mtu, isn::interface(0, mtu, stack_time(Instant::default(), 1))));
            interfaces.len() - 1
        }
        None => {
            let smaller = interfaces.iter().enumerate().filter(|(_, (m, _))| *m < mtu).max_by_key(|(_, (m, _))| *m);
            smaller.map_or(0, |(at, _)| at)
        }
    };
    // MTU_CLASSES fits.
    (at as u8, interfaces.get(at).map_or(mtu, |&(m, _)| m))
}

/// How many sockets the memory for buffers is enough for; one at least.
fn max_sockets(settings: &TcpSettings) -> usize {
    let each = u64::from(settings.receive_buffer) + u64::from(settings.send_buffer);
    usize::try_from(settings.buffer_memory / each.max(1)).unwrap_or(usize::MAX).max(1)
}

/// Replaces a field of a received frame. Its checksum was checked already.
fn overwrite<F: Frame>(frame: &mut F, at: usize, value: &[u8]) {
    if let Some(field) = frame.bytes_mut().get_mut(at..at + value.len()) {
        field.copy_from_slice(value);
    }
}

fn drop_packet(counters: &CoreCounters, verdict: Verdict) {
    counters.drops[verdict as usize].add(1);
}

fn ip_address(address: IpAddr) -> IpAddress {
    match address {
        IpAddr::V4(v4) => IpAddress::Ipv4(v4),
        IpAddr::V6(v6) => IpAddress::Ipv6(v6),
    }
}

fn endpoint(address: SocketAddr) -> IpEndpoint {
    IpEndpoint::new(ip_address(address.ip()), address.port())
}
