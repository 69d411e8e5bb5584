//! The turn of a polling core: everything that happens to a packet is called from here, in this order.
//!
//! One core owns its lanes, connections, timers and counters. It reads the clock once a turn, looks once whether control has
//! published a new snapshot, and never waits for anybody.

use std::sync::Arc;

use arrayvec::ArrayVec;
use pmd::{BURST, Burst, Lane, Sleeper};
use tables::access::AccessQueue;
use tables::inspect::Turn;
use tables::lifecycle::{Lifecycle, Stage};
use tables::publish::Subscriber;
use tables::quota::Quotas;
use tables::swap::Swap;
use tables::{CoreCounters, CoreSettings, EndpointSeat, EndpointTable, Snapshot, Verdict};

use crate::clock::{Clock, Instant};
use crate::exception::Exception;
use crate::idle::{self, Idle, Rest};
use crate::port::{Ingress, Port, Segment};
use crate::proxy::{Context, Proxy};
use crate::random::Random;
use crate::stack::{Admission, ConnectionId, Limits, Net, Stack};
use crate::steer::{Departure, Place, port_set};

/// Connections handed to the proxy in one turn at most: more than a burst from every port can touch.
const READY_A_TURN: usize = 1024;

/// Turns between two reports of gauges. At a million turns a second and more, a few hundred reports a second.
const REPORT_TURNS: u64 = 4096;

/// Nanoseconds between two reports where turns are long.
const REPORT_NANOSECONDS: u64 = 10_000_000;

/// Nanoseconds of a turn from which on it counts as slow: full bursts from two ports take a tenth of it.
const SLOW_TURN: u64 = 1_000_000;

/// Slots looked at in one turn while the core drains or stops, so that the walk does not hold up traffic.
const DRAIN_SLOTS_A_TURN: u32 = 1024;

/// Slots listed in one turn at most, when control asks for the connections.
const LISTED_SLOTS_A_TURN: u32 = 256;

/// Turns after the last connection ended: what is in the rings between cores by then is sent.
const LAST_TURNS: usize = 64;

/// What a core is made from.
pub struct CoreInput<L: Lane> {
    /// Its index among the appliance's cores.
    pub index: u16,
    /// One lane per port, in the order of the settings' ports.
    pub lanes: Vec<L>,
    /// What holds while it runs.
    pub settings: CoreSettings,
    /// The tables.
    pub snapshot: Subscriber<Snapshot>,
    /// The endpoints' state, and where it tells what it finds out about it.
    pub endpoints: EndpointSeat,
    /// What it counts.
    pub counters: Arc<CoreCounters>,
    /// What it is asked to do.
    pub lifecycle: Arc<Lifecycle>,
    /// Where it reports requests.
    pub access: AccessQueue,
    /// Its place among the others.
    pub place: Place,
    /// Seeds its secrets; from the operating system, except where a run is to be replayed.
    pub seed: u64,
}

/// One polling core. `X` is the lane of exception paths.
pub struct Core<L: Lane, X: Lane<Frame = <L as Lane>::Frame> = L> {
    index: u16,
    ports: Vec<Port<L>>,
    departure: Departure,
    /// By port.
    exceptions: Vec<Option<Exception<X>>>,
    stack: Stack,
    proxy: Proxy,
    snapshot: Subscriber<Snapshot>,
    endpoints: Subscriber<EndpointTable>,
    counters: Arc<CoreCounters>,
    lifecycle: Arc<Lifecycle>,
    access: AccessQueue,
    burst: Burst<L::Frame>,
    /// Of the burst, until it was looked through.
    arrived: ArrayVec<Arrived<L::Frame>, BURST>,
    turns: u64,
    busy: u64,
    busy_nanoseconds: u64,
    slow_turns: u64,
    slow_nanoseconds: u64,
    started: Option<Instant>,
    last_turn: Instant,
    last_was_busy: bool,
    next_report: Instant,
    /// The next slot to look at while draining or stopping.
    walk: u32,
    /// The listing of connections that is being made, and its next slot.
    listing: Option<(u64, u32)>,
    /// Requests that had begun at the last swap, until another one begins.
    unserved_since: Option<u64>,
}

/// A segment on its way from its port to its connection.
struct Arrived<F> {
    /// Until it is delivered.
    frame: Option<F>,
    segment: Segment,
    /// Of its connection's addresses.
    hash: u64,
}

impl<L: Lane, X: Lane<Frame = L::Frame>> Core<L, X> {
    /// A core that has not turned yet.
    #[must_use]
    pub fn new(input: CoreInput<L>) -> Self {
        let CoreInput { index, lanes, settings, snapshot, endpoints, counters, lifecycle, access, place, seed } = input;
        let ports: Vec<_> = lanes
            .into_iter()
            .zip(&settings.ports)
            .enumerate()
            .map(|(i, (lane, port))| Port::new(i, lane, port, &settings.tcp))
            .collect();
        let mut stack = Stack::new(&settings.tcp, Random::new(seed));
        stack.draw_from(place.sources);
        if let Some(limits) = &place.limits {
            stack.limit_by(limits);
        }
        let quotas = place.limits.as_ref().map_or_else(Quotas::new, Limits::endpoints);
        let EndpointSeat { table: endpoints, reports, cores } = endpoints;
        // Apart from the stack's numbers, which nobody should be able to tell from these.
        let dice = Random::new(seed ^ 0x6261_6c61_6e63_6572).behind_a_hash();
        let proxy = Proxy::new(snapshot.current(), (index, cores), quotas, reports, dice);
        counters.epoch.set(snapshot.current().epoch);
        // Nothing is there yet that could be of an older one.
        lifecycle.swaps.swept(snapshot.current().epoch);
        let mut core = Self {
            index,
            ports,
            departure: place.departure,
            exceptions: Vec::new(),
            stack,
            proxy,
            snapshot,
            endpoints,
            counters,
            lifecycle,
            access,
            burst: Burst::new(),
            arrived: ArrayVec::new(),
            turns: 0,
            busy: 0,
            busy_nanoseconds: 0,
            slow_turns: 0,
            slow_nanoseconds: 0,
            started: None,
            last_turn: Instant::default(),
            last_was_busy: false,
            next_report: Instant::default(),
            walk: 0,
            listing: None,
            unserved_since: None,
        };
        core.listen();
        core
    }

    /// The same core with exception paths beside its ports, in the ports' order.
    #[must_use]
    pub fn with_exceptions(mut self, exceptions: Vec<Option<Exception<X>>>) -> Self {
        self.exceptions = exceptions;
        self
    }

    /// Turns until the core is told to stop and has nothing left.
    pub fn run(&mut self, clock: &Clock, idle: &Idle) {
        self.counters.rests.way.set(idle.resting() as u64);
        let mut rest = Rest::default();
        while self.lifecycle.stage() < Stage::Stopped {
            let now = clock.now();
            let busy = self.turn(now);
            let Some(duration) = rest.after(now, busy, idle, || self.next_due()) else { continue };
            match idle {
                Idle::Interrupts(sleeper) => self.sleep(sleeper, clock),
                _ => idle::nap(duration, clock, &self.counters.rests),
            }
        }
        // What others handed to us before they agreed to leave still goes out.
        for _ in 0..LAST_TURNS {
            self.turn(clock.now());
        }
        self.report();
    }

    /// Sleeps until somebody wakes the core or something is due; not at all where there is something to do by now.
    fn sleep(&mut self, sleeper: &Sleeper, clock: &Clock) {
        sleeper.lie_down();
        let armed = self.arm();
        // What came before wakes nobody: this turn finds it.
        let now = clock.now();
        let busy = self.turn(now);
        if !armed {
            idle::nap(idle::NAP, clock, &self.counters.rests);
        } else if !busy && self.lifecycle.stage() < Stage::Stopped {
            // That turn may have armed a timer.
            let duration = idle::until(now, self.next_due());
            idle::sleep(sleeper, duration, clock, &self.counters.rests);
        }
        for port in &mut self.ports {
            port.lane_mut().disarm();
        }
        for exception in self.exceptions.iter_mut().flatten() {
            exception.disarm();
        }
        sleeper.get_up();
    }

    /// Has all lanes wake the core. `false` where one of them cannot.
    fn arm(&mut self) -> bool {
        self.ports.iter_mut().all(|port| port.lane_mut().arm())
            && self.exceptions.iter_mut().flatten().all(Exception::arm)
    }

    /// One turn. Returns whether there was anything to do.
    pub fn turn(&mut self, now: Instant) -> bool {
        if self.snapshot.refresh_holding(self.proxy.needs_current()) {
            self.swapped(now);
        } else if self.proxy.has_vacated() && self.snapshot.release(|epoch| self.proxy.needs(epoch)) {
            self.proxy.handed_back();
            self.lifecycle.swaps.holds(self.snapshot.held().len());
        }
        let checks = Arc::as_ptr(self.endpoints.current().checks());
        if self.endpoints.refresh() && !core::ptr::addr_eq(checks, Arc::as_ptr(self.endpoints.current().checks())) {
            self.proxy.renew_checks();
        }
        let stage = self.lifecycle.stage();
        let mut busy = false;
        for port in 0..self.ports.len() {
            busy |= self.receive(now, port, stage);
        }
        busy |= self.stack.timers(now);
        for port in &mut self.ports {
            if now >= port.next_maintenance() {
                port.maintain(now, &self.counters);
                port.unreachable(|address| self.stack.unreachable(address));
            }
        }
        busy |= self.stack.give_up_unreachable();
        busy |= self.serve(now, stage);
        if self.unserved_since.is_some_and(|requests| self.counters.requests_started.read() > requests) {
            self.unserved_since = None;
            self.lifecycle.swaps.first_request(self.proxy.epoch(), now.0);
        }
        let mut net = Net { now, ports: &mut self.ports, counters: &self.counters };
        busy |= self.stack.egress(&mut net);
        busy |= self.serve_exceptions(now);
        for port in &mut self.ports {
            port.lane_mut().flush();
        }
        self.account(now, busy);
        busy
    }

    /// When something is due at the earliest, if no packet comes before; for harnesses in virtual time.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        let ports = self.ports.iter().map(Port::next_maintenance).min();
        self.stack.next_due().into_iter().chain(self.proxy.next_due()).chain(ports).min()
    }

    /// Gives the lanes back.
    #[must_use]
    pub fn into_lanes(self) -> Vec<L> {
        self.into_parts().0
    }

    /// Gives the lanes and the exception paths back.
    #[must_use]
    pub fn into_parts(self) -> (Vec<L>, Vec<Option<Exception<X>>>) {
        (self.ports.into_iter().map(Port::into_lane).collect(), self.exceptions)
    }

    /// Connections of both legs that live.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.stack.live()
    }

    /// The ports, for tests and harnesses.
    pub fn ports_mut(&mut self) -> &mut [Port<L>] {
        &mut self.ports
    }

    /// Another snapshot is there: all that begins from now on is decided by it.
    #[cold]
    fn swapped(&mut self, now: Instant) {
        let requests = self.counters.requests_started.read();
        let swap = Swap {
            from: self.proxy.epoch(),
            to: self.snapshot.current().epoch,
            at: now.0,
            requests,
            running: self.proxy.active(),
            first_at: 0,
        };
        self.proxy.renew(self.snapshot.current());
        self.listen();
        self.counters.epoch.set(swap.to);
        self.lifecycle.swaps.switched(&swap);
        self.lifecycle.swaps.holds(self.snapshot.held().len());
        self.unserved_since = Some(requests);
    }

    /// Tells those who have to know which ports are listened on.
    fn listen(&mut self) {
        let ports = port_set(self.snapshot.current().binds().iter().map(|bind| bind.address));
        self.stack.listen(&ports);
        for port in &mut self.ports {
            port.lane_mut().listen(&ports);
        }
    }

    /// Takes a burst from one port: all its frames through the port first, and then the segments among them to their connections, which the CPU
    /// fetches meanwhile.
    fn receive(&mut self, now: Instant, index: usize, stage: Stage) -> bool {
        let Some(port) = self.ports.get_mut(index) else { return false };
        port.lane_mut().receive(&mut self.burst);
        let any = !self.burst.is_empty() || port.lane().worked();
        for (position, frame) in self.burst.drain(..).enumerate() {
            let frame = match self.exceptions.get_mut(index) {
                Some(Some(exception)) => {
                    let listens = |address| self.snapshot.current().bind(address).is_some();
                    match exception.divert(now, frame, &self.counters, self.counters.ports.get(index), listens) {
                        Some(frame) => frame,
                        None => continue,
                    }
                }
                _ => frame,
            };
            let Some(port) = self.ports.get_mut(index) else { break };
            let ingress = match port.ingress(now, frame, &self.counters) {
                Ingress::Segment(frame, segment) if port.lane().passes_on() && !self.stack.knows(now, &segment) => {
                    match port.lane_mut().pass_on(frame, position) {
                        Some(frame) => Ingress::Segment(frame, segment),
                        None => continue,
                    }
                }
                ingress => ingress,
            };
            match ingress {
                Ingress::Segment(frame, segment) => {
                    let hash = self.stack.approach(&segment.key);
                    self.arrived.push(Arrived { frame: Some(frame), segment, hash });
                }
                Ingress::IcmpError(error) => {
                    let mut net = Net { now, ports: &mut self.ports, counters: &self.counters };
                    self.stack.icmp_error(&mut net, &error);
                }
                Ingress::Done => {}
            }
        }
        if !self.arrived.is_empty() {
            self.deliver(now, index, stage);
        }
        any
    }

    /// Gives the segments that arrived to their connections, in their order.
    fn deliver(&mut self, now: Instant, index: usize, stage: Stage) {
        if self.arrived.len() > 1 {
            self.fetch();
        }
        let mut net = Net { now, ports: &mut self.ports, counters: &self.counters };
        for Arrived { frame, segment, hash } in &mut self.arrived {
            let Some(frame) = frame.take() else { continue };
            let snapshot = self.snapshot.current();
            let admit = |address, client| match snapshot.bind_at(address) {
                Some(bind) if !bind.allows(client) => Admission::Denied,
                Some(_) if stage == Stage::Running => Admission::Listening,
                Some(_) => Admission::Draining,
                None => Admission::Closed,
            };
            self.stack.segment(&mut net, index, frame, segment, *hash, admit);
        }
        self.arrived.clear();
    }

    /// Has the CPU fetch what the segments that arrived will need, one pointer further with each pass: their connections; those connections' sockets
    /// and clients. In a burst, what would be one miss behind the other for each segment lies beside those of the others. Going on to the connection
    /// at the other end fetched more than the nearest cache holds, and cost more than it gained.
    fn fetch(&self) {
        let likely: ArrayVec<_, BURST> =
            self.arrived.iter().filter_map(|arrived| self.stack.fetch_connection(arrived.hash)).collect();
        for &id in &likely {
            self.stack.fetch_socket(id);
            self.proxy.fetch(id);
        }
    }

    /// Lets the kernel's frames out, behind everything else.
    fn serve_exceptions(&mut self, now: Instant) -> bool {
        let mut any = false;
        for ((exception, port), shown) in self.exceptions.iter_mut().zip(&mut self.ports).zip(&self.counters.ports) {
            if let Some(exception) = exception {
                any |= exception.serve(now, port.lane_mut(), Some(shown));
            }
        }
        any
    }

    /// Lets the proxy deal with what happened.
    fn serve(&mut self, now: Instant, stage: Stage) -> bool {
        let Self { ports, stack, proxy, snapshot, endpoints, counters, access, .. } = self;
        let net = Net { now, ports, counters };
        let mut cx = Context {
            net,
            stack,
            snapshot: snapshot.current(),
            held: snapshot.held(),
            endpoints: endpoints.current(),
            draining: stage >= Stage::Draining,
            access,
            core: self.index,
        };
        let mut busy = proxy.timers(&mut cx);
        if proxy.is_sweeping() {
            busy = true;
            if let Some(epoch) = proxy.sweep(&mut cx) {
                self.lifecycle.swaps.swept(epoch);
            }
        }
        for _ in 0..READY_A_TURN {
            let Some(id) = cx.stack.next_ready() else { break };
            proxy.drive(&mut cx, id);
            busy = true;
        }
        if stage >= Stage::Draining {
            let slots = cx.stack.slots();
            let from = if self.walk >= slots { 0 } else { self.walk };
            let to = slots.min(from + DRAIN_SLOTS_A_TURN);
            self.walk = to;
            if stage == Stage::Draining {
                proxy.drain(&mut cx, from..to);
                cx.stack.hurry_orphans(from..to, now);
            } else {
                proxy.stop(&mut cx, from..to);
                cx.stack.abort_orphans(from..to);
            }
            if self.departure.agreed(cx.stack.live() == 0) {
                self.lifecycle.advance(Stage::Stopped);
            }
        }
        busy
    }

    /// Keeps the books of the turn, and now and then shows them.
    fn account(&mut self, now: Instant, busy: bool) {
        // `now` is when this turn began, and so when the last one ended: what has passed since that one began was its time.
        if self.started.is_none() {
            self.started = Some(now);
        } else if self.last_was_busy {
            let spent = now.since(self.last_turn);
            self.busy_nanoseconds += spent;
            if spent > SLOW_TURN {
                self.slow_turns += 1;
                self.slow_nanoseconds += spent;
            }
        }
        self.last_turn = now;
        self.last_was_busy = busy;
        self.turns += 1;
        self.busy += u64::from(busy);
        if self.turns.is_multiple_of(REPORT_TURNS) || now >= self.next_report {
            self.next_report = Instant(now.0 + REPORT_NANOSECONDS);
            self.report();
            self.listing = match (self.lifecycle.connections.asked(), self.listing) {
                (Some(asked), Some((ticket, next))) if asked == ticket => Some((ticket, next)),
                (asked, _) => asked.map(|ticket| (ticket, 0)),
            };
            if let Some((ticket, rule)) = self.lifecycle.turns.asked() {
                self.tell_turn(ticket, rule);
            }
        }
        if self.listing.is_some() {
            self.list_connections(now);
        }
    }

    /// Answers whose turn it is by the schedules of a rule. A rule that there is not gets no answer.
    #[cold]
    fn tell_turn(&self, ticket: u32, index: u32) {
        let snapshot = self.snapshot.current();
        let Some(rule) = snapshot.rules.get(index as usize) else { return };
        let (rule, targets) = self.proxy.places(snapshot, rule);
        self.lifecycle.turns.tell(Turn { ticket, epoch: snapshot.epoch, rule, targets });
    }

    /// Puts a few more connections into the listing that control asked for.
    #[cold]
    fn list_connections(&mut self, now: Instant) {
        let Some((ticket, next)) = self.listing else { return };
        let listing = &self.lifecycle.connections;
        let slots = self.stack.slots();
        let end = slots.min(next + LISTED_SLOTS_A_TURN);
        for slot in next..end {
            if !listing.has_room() {
                self.listing = Some((ticket, slot));
                return;
            }
            if let Some(row) = self.proxy.inspect(&self.stack, ConnectionId(slot), now, ticket) {
                listing.put(row);
            }
        }
        self.listing = (end < slots).then_some((ticket, end));
        if self.listing.is_none() {
            listing.answer(ticket);
        }
    }

    fn report(&self) {
        let counters = &self.counters;
        counters.turns.set(self.turns);
        counters.busy_turns.set(self.busy);
        counters.busy_nanoseconds.set(self.busy_nanoseconds);
        counters.slow_turns.set(self.slow_turns);
        counters.slow_nanoseconds.set(self.slow_nanoseconds);
        counters.nanoseconds.set(self.started.map_or(0, |started| self.last_turn.since(started)));
        self.stack.report(counters);
        self.proxy.report(counters);
        let mut ring_full = 0;
        for (port, shown) in self.ports.iter().zip(&counters.ports) {
            let counted = port.lane().counters();
            shown.rx_packets.set(counted.rx_packets);
            shown.rx_bytes.set(counted.rx_bytes);
            shown.tx_packets.set(counted.tx_packets);
            shown.tx_bytes.set(counted.tx_bytes);
            shown.tx_full.set(counted.tx_full);
            shown.tx_refused.set(counted.tx_refused);
            shown.pool_empty.set(counted.pool_empty);
            shown.rx_scattered.set(counted.rx_scattered);
            shown.frames_in_use.set(port.lane().frames_in_use() as u64);
            let steering = port.lane().steering();
            shown.way.set(steering.way as u64);
            shown.handed_in.set(steering.handed_in);
            shown.handed_out.set(steering.handed_out);
            shown.strays.set(steering.strays);
            shown.copies.set(steering.copies);
            ring_full += steering.ring_full;
            shown.link_up.set(u64::from(port.link_up()));
        }
        counters.drops[Verdict::RingFull as usize].set(ring_full);
        for (exception, shown) in self.exceptions.iter().zip(&counters.ports) {
            if let Some(exception) = exception {
                exception.report(shown);
            }
        }
        self.lifecycle.beat(self.turns);
    }
}
