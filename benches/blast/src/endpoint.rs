//! One host of the load generator: a lane, and thousands of lean TCP connections on it.
//!
//! Its TCP is made for measuring: it must cost much less than the gateway's. So it keeps no buffers at all. A connection has one
//! message to send at a time, which its [`App`] writes again wherever a part of it has to be sent again; what is received in order
//! is handed over at once, and what is ahead of that is kept in the frame it came in. Lost segments are sent again by duplicate
//! acknowledgments, one by one (RFC 6582), or all of them when the timer says so. Windows are large and fixed,
//! acknowledgments ride on data or wait for the end of the burst, and one coarse timer a connection, found by a sweep, makes sure
//! that a lost segment hangs nothing. There is no congestion control: a bound on bytes under way, which should fit the wire's
//! ring, is what keeps it from losing its own segments.
//!
//! The run's loop calls [`Endpoint::turn`]; it never waits and never reads a clock.

mod app;
mod connection;
mod input;
mod loss;
mod output;

use std::collections::{BTreeMap, VecDeque};

use pmd::{Burst, Frame, Lane, RxChecksum, TxChecksum};

use crate::segment::{ARP_FRAME, Packet, Segment, Template, checksums_hold, flags, parse, syn_options, write_arp};
use connection::{Connection, Marks, State, TICK, ticks};

use loss::Loss;

pub use app::{App, Do, Gone, Start};

/// The window that is offered always, before it is shifted by [`HostOptions::window_scale`].
const WINDOW: u16 = u16::MAX;

/// Bursts taken in one turn, so that the other host has its turn soon.
const BURSTS_A_TURN: usize = 2;

/// Commands taken from the application in one turn, for the same reason.
const STARTS_A_TURN: usize = 64;

/// Segments that one connection sends at a stretch, so that many share the wire evenly.
const SEGMENTS_A_STRETCH: usize = 16;

/// The same of frames that the lane cuts into segments.
const LARGE_A_STRETCH: usize = 2;

/// Bytes of a frame above which what it brings about goes out at once.
const LARGE: usize = 9018;

/// Frames ahead of what is wanted next that are kept at most, of all connections together: less than a port has.
const AHEAD: usize = 2048;

/// Connections with more to send that get their stretch in one turn.
const STRETCHES_A_TURN: usize = 8;

/// Nanoseconds between two questions for the peer's Ethernet address.
const ARP_RETRY: u64 = 100_000_000;

/// Addresses that ask for it at most; the gateway asks for the others itself.
const ANNOUNCED: u32 = 64;

/// Duplicate acknowledgments that say that a segment was lost (RFC 5681 §3.2).
const DUPLICATES: u8 = 3;

/// No time at all.
const NEVER: u64 = u64::MAX;

/// No connection.
const NONE: u32 = u32::MAX;

/// Ports that connections are opened from: all but the well-known ones.
const PORTS: std::ops::Range<u32> = 1024..65536;

/// What a host is.
#[derive(Debug, Clone)]
pub struct HostOptions {
    /// The first of its consecutive IPv4 addresses.
    pub first: u32,
    /// How many it has.
    pub addresses: u32,
    /// The gateway's address on this side: what clients connect to, and whose Ethernet address is asked for.
    pub peer: u32,
    /// The port that clients connect to, or that backends listen on.
    pub port: u16,
    /// Listens, and opens nothing; else the other way round.
    pub listens: bool,
    /// Connections at most.
    pub connections: u32,
    /// Nanoseconds until an unacknowledged segment is sent again, doubled each time.
    pub retransmission: u64,
    /// Nanoseconds that an acknowledgment waits for data to ride on.
    pub delayed_ack: u64,
    /// Times that a segment is sent again before its connection is given up.
    pub retries: u8,
    /// Bytes under way above which only first segments of messages are sent.
    pub in_flight: u64,
    /// How far the window of 64 KiB that is offered is shifted, from 0 to 14: what may be under way to here on a connection.
    pub window_scale: u8,
    /// The share of TCP frames that vanish, in each direction, from 0 to 1.
    pub loss: f64,
    /// Where ports and sequence numbers begin; nanoseconds of the wall clock keep one run from meeting the last one's connections.
    pub seed: u64,
}

/// What a host counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct TcpCounters {
    /// Connections established.
    pub opened: u64,
    /// Connections that both sides closed.
    pub closed: u64,
    /// Connections that the peer reset, and attempts that it refused.
    pub reset: u64,
    /// Connections that were given up.
    pub timed_out: u64,
    /// Connections that we reset.
    pub aborted: u64,
    /// Segments sent again, by the timer.
    pub retransmissions: u64,
    /// Segments sent again because of duplicate acknowledgments.
    pub fast_retransmissions: u64,
    /// Segments received again.
    pub repeated: u64,
    /// Segments received ahead of what was wanted next.
    pub out_of_order: u64,
    /// TCP frames that vanished as [`HostOptions::loss`] wants, on their way in.
    pub lost_in: u64,
    /// The same on their way out.
    pub lost_out: u64,
    /// Segments with a wrong checksum.
    pub bad_checksum: u64,
    /// Segments of no connection.
    pub stray: u64,
    /// Acknowledgments without data that were sent.
    pub bare_acks: u64,
    /// Frames that could not be sent because the pool was empty.
    pub no_frame: u64,
}

/// A host.
pub struct Endpoint<L: Lane, A: App> {
    lane: L,
    app: A,
    options: HostOptions,
    template: Template,
    mss: u16,
    peer_known: bool,
    next_question: u64,
    connections: Vec<Connection>,
    states: Vec<A::State>,
    /// When each connection has to be looked at; too early is harmless.
    deadlines: Vec<u64>,
    swept: usize,
    /// Slots by our address and the client's port.
    slots: Vec<u32>,
    /// Slots of a listening host that are free.
    free: Vec<u32>,
    /// The next address and port to open from.
    next_port: u32,
    /// Connections to be acknowledged at the end of the turn.
    unacknowledged: Vec<u32>,
    /// Connections that have more to send.
    waiting: VecDeque<u32>,
    in_flight: u64,
    /// Frames by connection and sequence number, until what is missing before them has come.
    ahead: BTreeMap<(u32, u32), L::Frame>,
    /// The segment that was just looked at is to be kept there.
    out_of_order: bool,
    /// Bytes of payload that the lane cuts into segments at most; 0 where it cuts nothing.
    largest: u32,
    loss: Loss,
    sequence: u32,
    counters: TcpCounters,
    burst: Burst<L::Frame>,
}

impl<L: Lane, A: App> Endpoint<L, A> {
    /// A host on `lane`. Its connections' slots are `0..options.connections`.
    pub fn new(lane: L, app: A, options: HostOptions) -> Self {
        let count = options.connections as usize;
        let mut states = Vec::new();
        states.resize_with(count, A::State::default);
        let mss = u16::try_from(usize::from(lane.mtu()).saturating_sub(40)).unwrap_or(536);
        Self {
            template: Template::new(lane.mac()),
            mss,
            peer_known: false,
            next_question: 0,
            connections: vec![Connection::default(); count],
            states,
            deadlines: vec![NEVER; count],
            swept: 0,
            slots: vec![NONE; options.addresses as usize * 65536],
            free: if options.listens { (0..options.connections).rev().collect() } else { Vec::new() },
            next_port: (options.seed % u64::from((PORTS.end - PORTS.start) * options.addresses)) as u32,
            unacknowledged: Vec::new(),
            waiting: VecDeque::new(),
            in_flight: 0,
            ahead: BTreeMap::new(),
            out_of_order: false,
            largest: u32::from(lane.largest()).saturating_sub(40),
            loss: Loss::new(options.loss, options.seed),
            // Faster than connections use it up.
            sequence: (options.seed >> 6) as u32,
            counters: TcpCounters::default(),
            burst: Burst::new(),
            lane,
            app,
            options,
        }
    }

    /// The application.
    pub fn app(&self) -> &A {
        &self.app
    }

    /// The application, to be told something.
    pub fn app_mut(&mut self) -> &mut A {
        &mut self.app
    }

    /// The lane.
    pub fn lane(&self) -> &L {
        &self.lane
    }

    /// What was counted.
    pub fn counters(&self) -> TcpCounters {
        self.counters
    }

    /// Whether the gateway's Ethernet address is known.
    pub fn ready(&self) -> bool {
        self.peer_known
    }

    /// Connections that exist, in whatever state.
    pub fn live(&self) -> usize {
        self.connections.iter().filter(|connection| connection.state != State::Free).count()
    }

    /// Does what there is to do, at `now` nanoseconds. Returns whether there was anything.
    pub fn turn(&mut self, now: u64) -> bool {
        let mut burst = std::mem::take(&mut self.burst);
        let mut busy = false;
        for _ in 0..BURSTS_A_TURN {
            self.lane.receive(&mut burst);
            busy |= !burst.is_empty();
            let last = !burst.is_full();
            for frame in burst.drain(..) {
                self.frame(now, &frame);
                if frame.bytes().len() > LARGE {
                    // It took so long to check that the other end should not wait for the rest to go on.
                    self.acknowledge();
                    self.lane.flush();
                }
                if std::mem::take(&mut self.out_of_order) {
                    self.keep(frame);
                }
            }
            if last {
                break;
            }
        }
        self.burst = burst;
        if !self.peer_known {
            self.ask(now);
        } else if !self.options.listens {
            for _ in 0..STARTS_A_TURN {
                match self.app.start(now) {
                    Some(Start::Open(id)) => {
                        self.app.opening(now, id, &mut self.states[id as usize]);
                        self.connect(now, id);
                    }
                    Some(Start::Ask(id)) => {
                        let wanted = self.app.asked(now, id, &mut self.states[id as usize]);
                        self.perform(now, id, wanted);
                        self.output(now, id);
                    }
                    None => break,
                }
                busy = true;
            }
        }
        for _ in 0..STRETCHES_A_TURN.min(self.waiting.len()) {
            if self.in_flight >= self.options.in_flight {
                break;
            }
            let Some(id) = self.waiting.pop_front() else { break };
            self.connections[id as usize].marks.clear(Marks::WAITING);
            self.output(now, id);
            busy = true;
        }
        self.acknowledge();
        busy |= self.sweep(now);
        self.lane.flush();
        busy
    }

    /// Resets a connection, if there is one.
    pub fn abort(&mut self, now: u64, id: u32) {
        if self.connections.get(id as usize).is_some_and(|connection| connection.state != State::Free) {
            self.perform(now, id, Do::Abort);
        }
    }

    fn owns(&self, address: u32) -> bool {
        address.wrapping_sub(self.options.first) < self.options.addresses
    }

    /// Where the slot of a connection is noted.
    fn place(&self, local: u32, client_port: u16) -> usize {
        local.wrapping_sub(self.options.first) as usize * 65536 + usize::from(client_port)
    }

    fn frame(&mut self, now: u64, frame: &L::Frame) {
        match parse(frame.bytes()) {
            Packet::Tcp(segment) => {
                let good = match frame.rx_checksum() {
                    RxChecksum::Good => true,
                    RxChecksum::Bad => false,
                    RxChecksum::Unchecked => checksums_hold(frame.bytes()),
                };
                if !good {
                    self.counters.bad_checksum += 1;
                } else if self.loss.strikes() {
                    self.counters.lost_in += 1;
                } else {
                    self.segment(now, &segment);
                }
            }
            Packet::Arp { question, mac, sender, target } => {
                if sender == self.options.peer {
                    self.peer_known = true;
                    self.template.set_destination(mac);
                }
                if question && self.owns(target) {
                    self.send_bytes(&write_arp(false, (self.lane.mac(), target), (mac, sender)));
                }
            }
            Packet::Other => {}
        }
    }

    fn ask(&mut self, now: u64) {
        if now >= self.next_question {
            self.next_question = now + ARP_RETRY;
            // From each address, so that the gateway knows them all before it needs them.
            for address in 0..self.options.addresses.min(ANNOUNCED) {
                let from = (self.lane.mac(), self.options.first + address);
                self.send_bytes(&write_arp(true, from, ([0; 6], self.options.peer)));
            }
        }
    }

    fn send_bytes(&mut self, bytes: &[u8; ARP_FRAME]) {
        let Some(mut frame) = self.lane.allocate() else { return };
        // The least length of an Ethernet frame without FCS.
        if frame.set_len(60) {
            let (head, padding) = frame.bytes_mut().split_at_mut(ARP_FRAME);
            head.copy_from_slice(bytes);
            padding.fill(0);
            self.lane.transmit(frame, TxChecksum::Complete);
        }
    }

    fn segment(&mut self, now: u64, segment: &Segment<'_>) {
        if !self.owns(segment.destination) {
            return;
        }
        let id = self.noted(segment);
        if self.is_of(id, segment) {
            self.input(now, id, segment);
        } else if self.options.listens
            && id == NONE
            && segment.flags & (flags::SYN | flags::ACK | flags::RST) == flags::SYN
            && segment.destination_port == self.options.port
        {
            self.accept(now, segment);
        } else {
            self.counters.stray += 1;
            self.reject(segment);
        }
    }

    /// The slot that is noted for such a segment.
    fn noted(&self, segment: &Segment<'_>) -> u32 {
        let client_port = if self.options.listens { segment.source_port } else { segment.destination_port };
        self.slots.get(self.place(segment.destination, client_port)).copied().unwrap_or(NONE)
    }

    fn is_of(&self, id: u32, segment: &Segment<'_>) -> bool {
        self.connections.get(id as usize).is_some_and(|connection| {
            connection.remote == segment.source
                && connection.remote_port == segment.source_port
                && connection.local_port == segment.destination_port
        })
    }

    fn accept(&mut self, now: u64, syn: &Segment<'_>) {
        let Some(id) = self.free.pop() else { return self.reject(syn) };
        if !self.peer_known {
            self.template.set_destination(syn.mac);
        }
        let (mss, scale) = syn_options(syn.options);
        let sequence = self.initial_sequence();
        self.connections[id as usize] = Connection {
            local: syn.destination,
            remote: syn.source,
            local_port: syn.destination_port,
            remote_port: syn.source_port,
            snd_una: sequence,
            snd_nxt: sequence,
            snd_max: sequence,
            start: sequence.wrapping_add(1),
            end: sequence.wrapping_add(1),
            rcv_nxt: syn.seq.wrapping_add(1),
            told: syn.seq.wrapping_add(1),
            snd_wnd: u32::from(syn.window),
            mss: mss.unwrap_or(536).min(self.mss),
            scale: scale.unwrap_or(0),
            state: State::SynReceived,
            ..Connection::default()
        };
        let place = self.place(syn.destination, syn.source_port);
        self.slots[place] = id;
        self.send_syn(now, id);
    }

    fn connect(&mut self, now: u64, id: u32) {
        let ports = PORTS.end - PORTS.start;
        // A port whose connection is long gone; a free one is found at once unless nearly all are in use.
        for _ in 0..ports * self.options.addresses {
            let next = self.next_port;
            self.next_port = (next + 1) % (ports * self.options.addresses);
            let local = self.options.first + next / ports;
            // It fits: PORTS ends at 65536.
            let port = (PORTS.start + next % ports) as u16;
            let place = self.place(local, port);
            if self.slots[place] != NONE {
                continue;
            }
            self.slots[place] = id;
            let sequence = self.initial_sequence();
            self.connections[id as usize] = Connection {
                local,
                remote: self.options.peer,
                local_port: port,
                remote_port: self.options.port,
                snd_una: sequence,
                snd_nxt: sequence,
                snd_max: sequence,
                start: sequence.wrapping_add(1),
                end: sequence.wrapping_add(1),
                mss: 536,
                state: State::SynSent,
                ..Connection::default()
            };
            return self.send_syn(now, id);
        }
    }

    /// Grows with each connection, as RFC 9293 §3.4.1 wants it of a clock, by more than a message when all ports were used once,
    /// and by less than half of all numbers until then: so a peer in TIME-WAIT takes the next SYN (RFC 6191 §2).
    fn initial_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(64);
        self.sequence
    }

    fn acknowledge(&mut self) {
        for at in 0..self.unacknowledged.len() {
            let id = self.unacknowledged[at];
            let c = &mut self.connections[id as usize];
            c.marks.clear(Marks::LISTED);
            if c.state == State::Open && (c.told != c.rcv_nxt || c.marks.has(Marks::ACK)) {
                self.send_ack(id);
            }
        }
        self.unacknowledged.clear();
    }

    /// Looks at some connections' deadlines: at all of them within a thousand turns.
    fn sweep(&mut self, now: u64) -> bool {
        let all = self.deadlines.len();
        let mut due = false;
        let end = all.min(self.swept + (all / 1024).max(8));
        for id in self.swept..end {
            if self.deadlines[id] <= now {
                due = true;
                self.timer(now, id as u32);
            }
        }
        self.swept = if end == all { 0 } else { end };
        due
    }

    fn timer(&mut self, now: u64, id: u32) {
        self.deadlines[id as usize] = NEVER;
        let c = &self.connections[id as usize];
        if c.state == State::Free {
            return;
        }
        if c.state == State::Open && c.told != c.rcv_nxt && c.unsent() == 0 {
            self.send_ack(id);
        }
        let c = &mut self.connections[id as usize];
        if c.outstanding() > 0 || c.unsent() > 0 {
            if ticks(now) < c.retransmit_at {
                let at = u64::from(c.retransmit_at) * TICK;
                self.look_at(id, at);
            } else if c.retries >= self.options.retries {
                self.counters.timed_out += 1;
                return self.forget(now, id, Gone::TimedOut);
            } else {
                c.retries += 1;
                c.duplicates = 0;
                c.marks.clear(Marks::RECOVERING);
                self.counters.retransmissions += 1;
                self.resend(now, id);
            }
        }
        let deadline = self.app.deadline(&self.states[id as usize]);
        if deadline <= now {
            let wanted = self.app.expired(now, id, &mut self.states[id as usize]);
            self.perform(now, id, wanted);
            self.output(now, id);
        } else if deadline != NEVER {
            self.look_at(id, deadline);
        }
    }
}
