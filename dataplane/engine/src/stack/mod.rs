//! TCP on one core: connections, their segments, their timers.
//!
//! It owns every TCP connection of the core, the flow table that finds them and the wheel that wakes them. Segments come in
//! from [`crate::port`], one at a time; bytes go to and from the layer above through [`ConnectionId`]s. smoltcp runs each
//! connection: one socket in a set of its own, one shared interface per MTU, at a time scale of the connection's side. It never
//! looks at the bytes it carries, and knows nothing of HTTP.

mod accept;
mod connection;
mod cookie;
mod device;
mod egress;
mod guard;
mod ingress;
mod interfaces;
mod isn;
mod limits;
mod pool;
mod recovery;
mod streams;
mod time_wait;
mod unreachable;

use core::time::Duration;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use pmd::{Lane, PortSet};
use smoltcp::wire::{IpAddress, IpEndpoint};
use tables::{CoreCounters, TcpSettings};

use self::connection::{Connection, Track};
pub use self::connection::{Ended, Side};
use self::cookie::Cookies;
use self::device::Path;
use self::interfaces::Interfaces;
use self::isn::IsnGenerator;
use self::limits::Leases;
pub use self::limits::Limits;
use self::pool::{SocketPool, SocketTimers};
pub use self::streams::Status;
use self::time_wait::{Entry, TimeWait};
use self::unreachable::Unreachable;
use crate::clock::Instant;
use crate::flow::{FlowKey, FlowTable};
use crate::port::{Hop, Port, Segment};
use crate::random::Random;
use crate::steer::SourcePorts;
use crate::timer::Wheel;

/// Source ports tried for one connection until one is free.
const PORT_TRIES: usize = 64;

/// Of them, those that are given up where replies to them would arrive at another core.
const PORT_TRIES_HERE: usize = 48;

/// Marks a flow table value as a TIME-WAIT slot.
const IN_TIME_WAIT: u32 = 1 << 31;

/// While the core drains, whoever acknowledges nothing for so long is taken for gone: four retransmissions and more.
const SILENCE: Duration = Duration::from_secs(5);

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
    /// Somebody does, for others than this client.
    Denied,
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
    interfaces: Interfaces,
    wheel: Wheel,
    dirty: VecDeque<u32>,
    ready: VecDeque<u32>,
    isn: IsnGenerator,
    cookies: Cookies,
    unreachable: Unreachable,
    random: Random,
    source_ports: SourcePorts,
    half_open: u32,
    live: u32,
    leases: Leases,
    scratch: Vec<u8>,
}

impl Stack {
    /// A stack without connections. `random` seeds its secrets.
    #[must_use]
    pub fn new(settings: &TcpSettings, mut random: Random) -> Self {
        let flows = settings.max_connections.saturating_add(settings.max_time_wait) as usize;
        let secret = [random.next_u64(), random.next_u64()];
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            flows: FlowTable::with_capacity(flows, [random.next_u64(), random.next_u64()]),
            waiting: TimeWait::new(settings.max_time_wait.max(1) as usize),
            pool: SocketPool::new(settings.receive_buffer as usize, settings.send_buffer as usize),
            interfaces: Interfaces::new(),
            wheel: Wheel::with_capacity(1024),
            dirty: VecDeque::with_capacity(1024),
            ready: VecDeque::with_capacity(1024),
            isn: IsnGenerator::new((random.next_u64(), random.next_u64())),
            cookies: Cookies::new(random.behind_a_hash()),
            unreachable: Unreachable::default(),
            // Source ports are there for anybody to see: what draws them must not tell what the secrets were drawn from.
            random: random.behind_a_hash(),
            source_ports: SourcePorts::alone(),
            half_open: 0,
            live: 0,
            leases: Limits::new(settings, 1, secret).lease(),
            scratch: Vec::new(),
            settings: settings.clone(),
        }
    }

    /// Has source ports drawn from `sources` from now on.
    pub fn draw_from(&mut self, sources: SourcePorts) {
        self.source_ports = sources;
    }

    /// Shares `limits` with other cores from now on. To be called before there are connections.
    pub fn limit_by(&mut self, limits: &Limits) {
        self.leases = limits.lease();
    }

    /// Ports that clients connect to are no source ports from now on.
    pub fn listen(&mut self, ports: &PortSet) {
        self.source_ports.listen(ports);
    }

    /// Whether a segment is of a connection of this core, in TIME-WAIT or not, or brings back a cookie of its own.
    #[must_use]
    pub fn knows(&mut self, now: Instant, segment: &Segment) -> bool {
        self.find(self.flows.hash(&segment.key), &segment.key).is_some() || self.returned_cookie(now, segment).is_some()
    }

    /// Opens a connection to a backend. The layer above hears of it when it is established, or has failed.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub fn connect<L: Lane>(&mut self, net: &mut Net<'_, L>, remote: SocketAddr) -> Result<ConnectionId, ConnectError> {
        // The best way, and the first of several as good.
        let ways = net.ports.iter().enumerate().rev().filter_map(|(i, port)| Some((port.preference(remote.ip())?, i)));
        let (_, index) = ways.max_by_key(|(preference, _)| *preference).ok_or(ConnectError::NoRoute)?;
        let port = net.ports.get(index).ok_or(ConnectError::NoRoute)?;
        let local = port.source_for(remote.ip()).ok_or(ConnectError::NoRoute)?;
        // It may not be ours yet: in IPv6 that is found out.
        let chosen = self.source_ports.address(index, local).filter(|own| port.owns(*own));
        let local = chosen.unwrap_or(local);
        let path = Path { mtu: port.mtu(local), largest: port.largest() };
        let (key, hash) = self.free_key(index, local, remote).ok_or(ConnectError::NoPort)?;

        let isn = self.isn.isn(&key, net.now);
        if !self.leases.connections.take() {
            return Err(ConnectError::Limit);
        }
        let Some(id) = self.open(key, hash, index, Side::Backend, path) else {
            self.leases.connections.put();
            return Err(ConnectError::Limit);
        };
        let Some(connection) = self.connection_mut(id) else { return Err(ConnectError::Limit) };
        let mut interface = isn::interface(isn, path, connection.stack_time(net.now));
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

    /// Resets the connections in `slots` that nobody above owns; those that have an owner are its to close.
    pub fn abort_orphans(&mut self, slots: core::ops::Range<u32>) {
        for id in slots {
            let Some(connection) = self.connection_mut(ConnectionId(id)) else { continue };
            if connection.orphan || connection.half_open {
                self.abort(ConnectionId(id));
            }
        }
    }

    /// While the core drains: orphans in `slots` that still have something to send, and whose peers acknowledge nothing of it, get `SILENCE` and no more. Peers
    /// that have shut their window are alive.
    pub fn hurry_orphans(&mut self, slots: core::ops::Range<u32>, now: Instant) {
        for id in slots.map(ConnectionId) {
            let Some(connection) = self.connection_mut(id) else { continue };
            let acknowledged = connection.track.snd_una;
            let silent = connection.orphan
                && !connection.track.window_shut
                && connection.hurried_at != Some(acknowledged)
                && connection.pooled.socket().send_queue() + connection.spill.len() > 0;
            if silent {
                connection.hurried_at = Some(acknowledged);
                connection.orphan_until = now + SILENCE;
                self.mark_dirty(id);
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

    /// A source port that is free towards `remote`, by port `index`.
    fn free_key(&mut self, index: usize, local: IpAddr, remote: SocketAddr) -> Option<(FlowKey, u64)> {
        (0..PORT_TRIES).find_map(|attempt| {
            let port = self.source_ports.draw(&mut self.random, index, local, remote, attempt < PORT_TRIES_HERE)?;
            let key = FlowKey::new(SocketAddr::new(local, port), remote);
            let hash = self.flows.hash(&key);
            self.find(hash, &key).is_none().then_some((key, hash))
        })
    }

    /// A slot with a closed socket, in the flow table. The caller has taken it from the leases.
    fn open(&mut self, key: FlowKey, hash: u64, port: usize, side: Side, path: Path) -> Option<ConnectionId> {
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
        let (interface, mtu) = self.interfaces.on(path);
        let connection = Connection {
            key,
            hash,
            port: port as u8,
            side,
            scale: timers.scale,
            mtu,
            interface,
            pooled: self.pool.take(&timers),
            track: Track::new(key.remote().ip(), mtu),
            hop: Hop::default(),
            spill: Vec::new(),
            closing: false,
            orphan: false,
            orphan_until: Instant::NEVER,
            linger: Duration::ZERO,
            hurried_at: None,
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
        if connection.half_open {
            self.half_open -= 1;
            self.leases.half_open.put();
        }
        if connection.side == Side::Client {
            self.leases.clients.put();
        }
        self.leases.connections.put();
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

fn ip_address(address: IpAddr) -> IpAddress {
    match address {
        IpAddr::V4(v4) => IpAddress::Ipv4(v4),
        IpAddr::V6(v6) => IpAddress::Ipv6(v6),
    }
}

fn endpoint(address: SocketAddr) -> IpEndpoint {
    IpEndpoint::new(ip_address(address.ip()), address.port())
}
