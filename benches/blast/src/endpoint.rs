//! One host of the load generator: a lane, and thousands of lean TCP connections on it.
//!
//! Its TCP is made for measuring: it must cost much less than the gateway's. So it keeps no buffers at all. A connection has one
//! message to send at a time, which its [`App`] writes again wherever a part of it has to be sent again; what is received in order
//! is handed over at once, and what is not in order is dropped and asked for again (go-back-N). Windows are large and fixed,
//! acknowledgments ride on data or wait for the end of the burst, and one coarse timer a connection, found by a sweep, makes sure
//! that a lost segment hangs nothing. There is no congestion control: a bound on bytes under way, which should fit the wire's
//! ring, is what keeps it from losing its own segments.
//!
//! The run's loop calls [`Endpoint::turn`]; it never waits and never reads a clock.

use std::collections::VecDeque;

use pmd::{Burst, Frame, Lane, RxChecksum, TxChecksum};

use crate::segment::{
    ARP_FRAME, Fields, HEADERS, Packet, SYN_OPTIONS, Segment, Template, checksums_hold, flags, parse, syn_options,
    write_arp,
};

/// The window that is offered always, and how far it is shifted: 1 MiB.
const WINDOW: u16 = u16::MAX;
const WINDOW_SCALE: u8 = 4;

/// Bursts taken in one turn, so that the other host has its turn soon.
const BURSTS_A_TURN: usize = 2;

/// Commands taken from the application in one turn, for the same reason.
const STARTS_A_TURN: usize = 64;

/// Segments that one connection sends at a stretch, so that many share the wire evenly.
const SEGMENTS_A_STRETCH: usize = 16;

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
    /// Where ports and sequence numbers begin; nanoseconds of the wall clock keep one run from meeting the last one's connections.
    pub seed: u64,
}

/// What the application wants of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Do {
    /// Nothing.
    Nothing,
    /// Send a message of this many bytes, and close behind it or not. Only when the last one is acknowledged.
    Send {
        /// Bytes; at least one.
        len: u32,
        /// With a FIN.
        close: bool,
    },
    /// Send a FIN.
    Close,
    /// Send an RST, and forget the connection.
    Abort,
}

/// What the application begins by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Connect: the slot has no connection.
    Open(u32),
    /// Call [`App::asked`] for an open connection.
    Ask(u32),
}

/// Why a connection is no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// Both sides closed it.
    Closed,
    /// The peer reset it.
    Reset,
    /// The peer did not accept it.
    Refused,
    /// The peer did not acknowledge in time.
    TimedOut,
    /// We reset it.
    Aborted,
}

/// What runs on the connections of a host. `id` is the connection's slot, and `State` what the application keeps for it.
pub trait App {
    /// Kept for each slot.
    type State: Default;

    /// What to begin next; asked until there is nothing.
    fn start(&mut self, now: u64) -> Option<Start>;

    /// The connection is about to be opened, as [`App::start`] wanted.
    fn opening(&mut self, now: u64, id: u32, state: &mut Self::State);

    /// What [`App::start`] wanted to do with an open connection.
    fn asked(&mut self, now: u64, id: u32, state: &mut Self::State) -> Do;

    /// The connection is established.
    fn opened(&mut self, now: u64, id: u32, state: &mut Self::State) -> Do;

    /// The next bytes of the stream.
    fn receive(&mut self, now: u64, id: u32, state: &mut Self::State, bytes: &[u8]) -> Do;

    /// Writes the part of the message that begins at `offset`. The same part is always the same.
    fn fill(&self, state: &Self::State, offset: u32, out: &mut [u8]);

    /// The peer sends no more.
    fn ended(&mut self, now: u64, id: u32, state: &mut Self::State) -> Do;

    /// The connection is no more.
    fn gone(&mut self, now: u64, id: u32, state: &mut Self::State, how: Gone);

    /// When the application has waited too long for something; [`u64::MAX`] where it waits for nothing.
    fn deadline(&self, state: &Self::State) -> u64;

    /// It has.
    fn expired(&mut self, now: u64, id: u32, state: &mut Self::State) -> Do;
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
    /// Segments received out of order, and dropped.
    pub out_of_order: u64,
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
    sequence: u32,
    counters: TcpCounters,
    burst: Burst<L::Frame>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Free,
    SynSent,
    SynReceived,
    /// Established, or in any state of closing.
    Open,
}

/// One line of the cache.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(64))]
struct Connection {
    local: u32,
    remote: u32,
    local_port: u16,
    remote_port: u16,
    /// The oldest byte not acknowledged, the next to be sent, and behind the last that was ever sent.
    snd_una: u32,
    snd_nxt: u32,
    snd_max: u32,
    /// Where the message begins and ends.
    start: u32,
    end: u32,
    rcv_nxt: u32,
    /// RCV.NXT as last told the peer.
    told: u32,
    snd_wnd: u32,
    mss: u16,
    scale: u8,
    state: State,
    retries: u8,
    duplicates: u8,
    marks: Marks,
    /// When the segment at `snd_una` is sent again.
    retransmit_at: u32,
}

/// Small flags of a connection.
#[derive(Debug, Clone, Copy, Default)]
struct Marks(u8);

impl Marks {
    /// A FIN follows the message.
    const CLOSING: u8 = 1;
    /// The peer's FIN came.
    const ENDED: u8 = 2;
    /// In [`Endpoint::unacknowledged`].
    const LISTED: u8 = 4;
    /// In [`Endpoint::waiting`].
    const WAITING: u8 = 8;
    /// An acknowledgment has to be sent, even if it tells nothing new.
    const ACK: u8 = 16;

    fn has(self, mark: u8) -> bool {
        self.0 & mark != 0
    }

    fn set(&mut self, mark: u8) {
        self.0 |= mark;
    }

    fn clear(&mut self, mark: u8) {
        self.0 &= !mark;
    }
}

impl Connection {
    /// Behind all that is to be sent, the FIN among it.
    fn last(&self) -> u32 {
        self.end.wrapping_add(u32::from(self.marks.has(Marks::CLOSING)))
    }

    fn outstanding(&self) -> u32 {
        self.snd_max.wrapping_sub(self.snd_una)
    }

    fn under_way(&self) -> u32 {
        self.snd_nxt.wrapping_sub(self.snd_una)
    }

    fn unsent(&self) -> u32 {
        self.last().wrapping_sub(self.snd_nxt)
    }
}

/// Times in a [`Connection`] count in these nanoseconds, so that they fit 32 bits: an hour and more.
const TICK: u64 = 1 << 20;

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
                if good {
                    self.segment(now, &segment);
                } else {
                    self.counters.bad_checksum += 1;
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
        let client_port = if self.options.listens { segment.source_port } else { segment.destination_port };
        let id = self.slots.get(self.place(segment.destination, client_port)).copied().unwrap_or(NONE);
        let known = self.connections.get(id as usize).is_some_and(|connection| {
            connection.remote == segment.source
                && connection.remote_port == segment.source_port
                && connection.local_port == segment.destination_port
        });
        if known {
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

    fn input(&mut self, now: u64, id: u32, segment: &Segment<'_>) {
        let c = &mut self.connections[id as usize];
        if segment.flags & flags::RST != 0 {
            let valid = match c.state {
                State::SynSent => segment.flags & flags::ACK != 0 && segment.ack == c.snd_max,
                _ => segment.seq == c.rcv_nxt,
            };
            if valid {
                let how = if c.state == State::SynSent { Gone::Refused } else { Gone::Reset };
                self.counters.reset += 1;
                self.forget(now, id, how);
            }
            return;
        }
        match c.state {
            State::Free => return,
            State::SynSent => return self.syn_sent(now, id, segment),
            State::SynReceived if segment.flags & flags::SYN != 0 => return self.send_syn(now, id),
            State::SynReceived if segment.flags & flags::ACK == 0 || segment.ack != c.snd_max => return,
            State::SynReceived => {
                c.state = State::Open;
                c.snd_una = segment.ack;
                c.retries = 0;
                self.counters.opened += 1;
                let wanted = self.app.opened(now, id, &mut self.states[id as usize]);
                self.perform(now, id, wanted);
            }
            State::Open if segment.flags & flags::SYN != 0 => c.marks.set(Marks::ACK),
            State::Open => {}
        }
        if segment.flags & flags::ACK != 0 {
            self.acknowledged(now, id, segment);
        }
        self.data(now, id, segment);
        let c = &mut self.connections[id as usize];
        if c.state != State::Open {
            return;
        }
        self.output(now, id);
        let c = &mut self.connections[id as usize];
        if c.marks.has(Marks::CLOSING) && c.marks.has(Marks::ENDED) && c.snd_una == c.last() {
            // The FIN's acknowledgment cannot wait for the end of the turn.
            if c.told != c.rcv_nxt || c.marks.has(Marks::ACK) {
                self.send_ack(id);
            }
            self.counters.closed += 1;
            self.forget(now, id, Gone::Closed);
        } else if c.told != c.rcv_nxt || c.marks.has(Marks::ACK) {
            let waits = c.rcv_nxt.wrapping_sub(c.told) < 2 * u32::from(c.mss) && !c.marks.has(Marks::ACK);
            if waits {
                self.look_at(id, now + self.options.delayed_ack);
            } else if !c.marks.has(Marks::LISTED) {
                c.marks.set(Marks::LISTED);
                self.unacknowledged.push(id);
            }
        }
    }

    fn syn_sent(&mut self, now: u64, id: u32, segment: &Segment<'_>) {
        let c = &mut self.connections[id as usize];
        if segment.flags & (flags::SYN | flags::ACK) != flags::SYN | flags::ACK || segment.ack != c.snd_max {
            return self.reject(segment);
        }
        let (mss, scale) = syn_options(segment.options);
        c.mss = mss.unwrap_or(536).min(self.mss);
        c.scale = scale.unwrap_or(0);
        c.snd_una = segment.ack;
        c.rcv_nxt = segment.seq.wrapping_add(1);
        c.snd_wnd = u32::from(segment.window);
        c.state = State::Open;
        c.retries = 0;
        c.marks.set(Marks::ACK);
        self.counters.opened += 1;
        let wanted = self.app.opened(now, id, &mut self.states[id as usize]);
        self.perform(now, id, wanted);
        self.output(now, id);
        let c = &self.connections[id as usize];
        if c.state == State::Open && c.marks.has(Marks::ACK) {
            self.send_ack(id);
        }
    }

    fn acknowledged(&mut self, now: u64, id: u32, segment: &Segment<'_>) {
        let c = &mut self.connections[id as usize];
        let acked = segment.ack.wrapping_sub(c.snd_una);
        let window = u32::from(segment.window) << c.scale;
        if acked > 0 && acked <= c.outstanding() {
            let under_way = c.under_way();
            self.in_flight = self.in_flight.saturating_sub(u64::from(acked.min(under_way)));
            if acked > under_way {
                c.snd_nxt = segment.ack;
            }
            c.snd_una = segment.ack;
            c.retries = 0;
            c.duplicates = 0;
            c.retransmit_at = ticks(now + self.options.retransmission);
        } else if acked == 0
            && c.outstanding() > 0
            && segment.payload.is_empty()
            && segment.flags & flags::FIN == 0
            && window == c.snd_wnd
        {
            c.duplicates = c.duplicates.saturating_add(1);
            if c.duplicates == DUPLICATES {
                self.counters.fast_retransmissions += 1;
                self.go_back(id);
            }
        }
        let c = &mut self.connections[id as usize];
        // An older segment's window does not count.
        if acked <= i32::MAX as u32 {
            c.snd_wnd = window;
        }
    }

    /// Sends again from the oldest byte that is not acknowledged.
    fn go_back(&mut self, id: u32) {
        let c = &mut self.connections[id as usize];
        self.in_flight = self.in_flight.saturating_sub(u64::from(c.under_way()));
        c.snd_nxt = c.snd_una;
    }

    fn data(&mut self, now: u64, id: u32, segment: &Segment<'_>) {
        let c = &mut self.connections[id as usize];
        let fin = segment.flags & flags::FIN != 0;
        let ahead = segment.seq.wrapping_sub(c.rcv_nxt) as i32;
        if ahead == 0 && segment.payload.is_empty() && !fin {
            return;
        }
        if ahead > 0 {
            // Each has to be answered by itself: the peer counts.
            self.counters.out_of_order += 1;
            return self.send_ack(id);
        }
        let known = ahead.unsigned_abs() as usize;
        if known > 0 {
            if !segment.payload.is_empty() {
                self.counters.repeated += 1;
            }
            // A keep-alive probe, too.
            c.marks.set(Marks::ACK);
        }
        let Some(fresh) = segment.payload.get(known..) else { return };
        if !fresh.is_empty() {
            // A segment is less than 64 KiB long.
            c.rcv_nxt = c.rcv_nxt.wrapping_add(fresh.len() as u32);
            let wanted = self.app.receive(now, id, &mut self.states[id as usize], fresh);
            self.perform(now, id, wanted);
        }
        let c = &mut self.connections[id as usize];
        if fin && c.state == State::Open && !c.marks.has(Marks::ENDED) {
            c.rcv_nxt = c.rcv_nxt.wrapping_add(1);
            c.marks.set(Marks::ENDED | Marks::ACK);
            let wanted = self.app.ended(now, id, &mut self.states[id as usize]);
            self.perform(now, id, wanted);
        }
    }

    fn perform(&mut self, now: u64, id: u32, what: Do) {
        let c = &mut self.connections[id as usize];
        if c.state == State::Free {
            return;
        }
        match what {
            Do::Nothing => {}
            Do::Close => c.marks.set(Marks::CLOSING),
            // A peer that asks before it has taken the last message does not speak HTTP as we do.
            Do::Send { .. } if c.snd_una != c.last() || c.marks.has(Marks::CLOSING) => {
                self.perform(now, id, Do::Abort);
            }
            Do::Send { len, close } => {
                c.start = c.end;
                c.end = c.end.wrapping_add(len);
                if close {
                    c.marks.set(Marks::CLOSING);
                }
            }
            Do::Abort => {
                let fields = fields(c, flags::RST | flags::ACK, c.snd_nxt);
                self.send(&fields, &[]);
                self.counters.aborted += 1;
                self.forget(now, id, Gone::Aborted);
            }
        }
    }

    /// Sends what may be sent.
    fn output(&mut self, now: u64, id: u32) {
        for _ in 0..SEGMENTS_A_STRETCH {
            let c = &self.connections[id as usize];
            if c.state != State::Open || c.unsent() == 0 {
                return;
            }
            if self.in_flight >= self.options.in_flight && c.snd_nxt != c.start {
                break;
            }
            let room = c.snd_wnd.saturating_sub(c.under_way());
            let data = c.end.wrapping_sub(c.snd_nxt);
            // Behind the FIN, `data` would be minus one; but then nothing is unsent.
            let len = data.min(u32::from(c.mss)).min(room);
            if len == 0 && data > 0 {
                // Their window is shut: the timer probes it.
                if c.outstanding() == 0 {
                    self.arm(now, id);
                }
                return;
            }
            if !self.send_data(now, id, len) {
                return;
            }
        }
        let c = &mut self.connections[id as usize];
        if c.unsent() > 0 && !c.marks.has(Marks::WAITING) {
            c.marks.set(Marks::WAITING);
            self.waiting.push_back(id);
        }
    }

    /// Sends `len` bytes from `snd_nxt` on, and the FIN if it is its turn.
    fn send_data(&mut self, now: u64, id: u32, len: u32) -> bool {
        let Some(mut frame) = self.lane.allocate() else {
            self.counters.no_frame += 1;
            self.arm(now, id);
            return false;
        };
        let c = &mut self.connections[id as usize];
        let idle = c.outstanding() == 0;
        if !frame.set_len(HEADERS + len as usize) {
            return false;
        }
        let last = c.snd_nxt.wrapping_add(len) == c.end;
        let mut set = flags::ACK;
        if last && len > 0 {
            set |= flags::PSH;
        }
        let fin = last && c.marks.has(Marks::CLOSING);
        if fin {
            set |= flags::FIN;
        }
        self.template.write(frame.bytes_mut(), 0, &fields(c, set, c.snd_nxt));
        if len > 0
            && let Some(payload) = frame.bytes_mut().get_mut(HEADERS..)
        {
            self.app.fill(&self.states[id as usize], c.snd_nxt.wrapping_sub(c.start), payload);
        }
        self.lane.transmit(frame, TxChecksum::Tcp { l2_len: 14, l3_len: 20 });
        let sent = len + u32::from(fin);
        c.snd_nxt = c.snd_nxt.wrapping_add(sent);
        if (c.snd_nxt.wrapping_sub(c.snd_max) as i32) > 0 {
            c.snd_max = c.snd_nxt;
        }
        c.told = c.rcv_nxt;
        c.marks.clear(Marks::ACK);
        self.in_flight += u64::from(sent);
        if idle {
            self.arm(now, id);
        }
        true
    }

    /// Starts the retransmission timer.
    fn arm(&mut self, now: u64, id: u32) {
        let c = &mut self.connections[id as usize];
        let at = now + (self.options.retransmission << c.retries.min(6));
        c.retransmit_at = ticks(at);
        self.look_at(id, at);
    }

    fn look_at(&mut self, id: u32, at: u64) {
        let deadline = &mut self.deadlines[id as usize];
        *deadline = (*deadline).min(at);
    }

    fn send_syn(&mut self, now: u64, id: u32) {
        let c = &mut self.connections[id as usize];
        let answer = c.state == State::SynReceived;
        let set = if answer { flags::SYN | flags::ACK } else { flags::SYN };
        c.snd_nxt = c.end;
        c.snd_max = c.end;
        let fields = fields(c, set, c.end.wrapping_sub(1));
        let [high, low] = self.mss.to_be_bytes();
        self.send(&fields, &[2, 4, high, low, 1, 3, 3, WINDOW_SCALE]);
        self.arm(now, id);
    }

    fn send_ack(&mut self, id: u32) {
        let c = &mut self.connections[id as usize];
        c.told = c.rcv_nxt;
        c.marks.clear(Marks::ACK);
        let fields = fields(c, flags::ACK, c.snd_nxt);
        self.counters.bare_acks += 1;
        self.send(&fields, &[]);
    }

    /// Answers a segment of no connection (RFC 9293 §3.5.2).
    fn reject(&mut self, segment: &Segment<'_>) {
        if segment.flags & flags::RST != 0 {
            return;
        }
        let (seq, ack, set) = if segment.flags & flags::ACK != 0 {
            (segment.ack, 0, flags::RST)
        } else {
            let taken = segment.payload.len() as u32 + u32::from(segment.flags & (flags::SYN | flags::FIN) != 0);
            (0, segment.seq.wrapping_add(taken), flags::RST | flags::ACK)
        };
        let fields = Fields {
            source: segment.destination,
            destination: segment.source,
            source_port: segment.destination_port,
            destination_port: segment.source_port,
            seq,
            ack,
            flags: set,
            window: 0,
        };
        self.send(&fields, &[]);
    }

    fn send(&mut self, fields: &Fields, options: &[u8]) {
        debug_assert!(options.len() <= SYN_OPTIONS);
        let Some(mut frame) = self.lane.allocate() else {
            self.counters.no_frame += 1;
            return;
        };
        if !frame.set_len(HEADERS + options.len()) {
            return;
        }
        self.template.write(frame.bytes_mut(), options.len(), fields);
        if let Some(rest) = frame.bytes_mut().get_mut(HEADERS..) {
            rest.copy_from_slice(options);
        }
        self.lane.transmit(frame, TxChecksum::Tcp { l2_len: 14, l3_len: 20 });
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

    fn resend(&mut self, now: u64, id: u32) {
        if self.connections[id as usize].state != State::Open {
            return self.send_syn(now, id);
        }
        self.go_back(id);
        let c = &self.connections[id as usize];
        let data = c.end.wrapping_sub(c.snd_nxt);
        // Behind the data, only the FIN is left. A shut window is probed with one byte.
        let data = if data > i32::MAX as u32 { 0 } else { data };
        let len = data.min(u32::from(c.mss)).min(c.snd_wnd.max(1));
        if self.send_data(now, id, len) {
            self.arm(now, id);
            self.output(now, id);
        }
    }

    fn forget(&mut self, now: u64, id: u32, how: Gone) {
        let c = &mut self.connections[id as usize];
        self.in_flight = self.in_flight.saturating_sub(u64::from(c.under_way()));
        let (local, client_port) = (c.local, if self.options.listens { c.remote_port } else { c.local_port });
        c.state = State::Free;
        // The lists that it may be in are left to themselves.
        let place = self.place(local, client_port);
        self.slots[place] = NONE;
        self.deadlines[id as usize] = NEVER;
        if self.options.listens {
            self.free.push(id);
        }
        self.app.gone(now, id, &mut self.states[id as usize], how);
    }
}

fn fields(c: &Connection, set: u8, seq: u32) -> Fields {
    Fields {
        source: c.local,
        destination: c.remote,
        source_port: c.local_port,
        destination_port: c.remote_port,
        seq,
        ack: if set & flags::ACK == 0 { 0 } else { c.rcv_nxt },
        flags: set,
        window: WINDOW,
    }
}

fn ticks(now: u64) -> u32 {
    u32::try_from(now / TICK).unwrap_or(u32::MAX)
}
