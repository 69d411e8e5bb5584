//! A host whose TCP is Millrace's: a port and a stack without the proxy.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use engine::clock::Instant;
use engine::port::{Ingress, Port};
use engine::random::Random;
use engine::stack::{Admission, ConnectionId, Net, Stack};
use pmd::sim::SimLane;
use pmd::{Burst, Lane};
use tables::{CoreCounters, PortSettings, TcpSettings, Verdict};

use super::Party;

/// What runs on a host.
pub trait App {
    /// Something happened to a connection.
    fn ready(&mut self, stack: &mut Stack, net: &mut Net<'_, SimLane>, id: ConnectionId);

    /// Called once a turn. Returns whether there was anything to do.
    fn tick(&mut self, _: &mut Stack, _: &mut Net<'_, SimLane>) -> bool {
        false
    }

    /// When `tick` has something to do.
    fn next(&self) -> Option<Instant> {
        None
    }
}

/// Connections in the hands of the test: it only notes which ones there are.
#[derive(Debug, Default)]
pub struct Manual {
    pub ids: BTreeSet<u32>,
}

impl App for Manual {
    fn ready(&mut self, _: &mut Stack, _: &mut Net<'_, SimLane>, id: ConnectionId) {
        self.ids.insert(id.0);
    }
}

pub struct Host<A> {
    pub port: [Port<SimLane>; 1],
    pub stack: Stack,
    pub counters: CoreCounters,
    pub app: A,
    /// TCP ports that somebody listens on.
    pub listening: Vec<u16>,
    burst: Burst<<SimLane as Lane>::Frame>,
}

impl<A: App> Host<A> {
    pub fn new(lane: SimLane, addresses: &[&str], tcp: &TcpSettings, seed: u64, app: A) -> Self {
        let settings = PortSettings::untagged("host", addresses.iter().map(|a| a.parse().unwrap()).collect());
        Self {
            port: [Port::new(0, lane, &settings, tcp)],
            stack: Stack::new(tcp, Random::new(seed)),
            counters: CoreCounters::new(1),
            app,
            listening: vec![80],
            burst: Burst::new(),
        }
    }

    /// Does something with the stack in between two turns.
    pub fn with<R>(&mut self, now: Instant, f: impl FnOnce(&mut Stack, &mut Net<'_, SimLane>, &mut A) -> R) -> R {
        let mut net = Net { now, ports: &mut self.port, counters: &self.counters };
        f(&mut self.stack, &mut net, &mut self.app)
    }

    pub fn connect(&mut self, now: Instant, to: SocketAddr) -> ConnectionId {
        self.with(now, |stack, net, _| stack.connect(net, to)).unwrap()
    }

    /// All bytes that can be read, which are consumed.
    pub fn read(&mut self, id: ConnectionId) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.stack.copy_front(id, &mut bytes);
        self.stack.consume(id, bytes.len());
        bytes
    }

    pub fn drops(&self, verdict: Verdict) -> u64 {
        self.counters.drops[verdict as usize].read()
    }

    pub fn lane(&self) -> &SimLane {
        self.port[0].lane()
    }

    /// Nothing is left of any connection.
    #[track_caller]
    pub fn assert_empty(&self) {
        self.stack.report(&self.counters);
        let c = &self.counters;
        let left = [c.flows.read(), c.timers.read(), c.sockets.read(), c.half_open.read(), c.time_wait.read()];
        assert_eq!(left, [0; 5], "flows, timers, sockets, half open, TIME-WAIT");
        assert_eq!(self.stack.live(), 0);
        assert_eq!(self.lane().frames_in_use(), 0);
    }
}

impl<A: App> Party for Host<A> {
    fn turn(&mut self, now: Instant) -> bool {
        let Self { port, stack, counters, app, listening, burst } = self;
        port[0].lane_mut().receive(burst);
        let mut busy = !burst.is_empty();
        for frame in burst.drain(..) {
            match port[0].ingress(now, frame, counters) {
                Ingress::Segment(frame, segment) => {
                    let admit = |address: SocketAddr, _| {
                        if listening.contains(&address.port()) { Admission::Listening } else { Admission::Closed }
                    };
                    let mut net = Net { now, ports: port, counters };
                    let hash = stack.approach(&segment.key);
                    stack.segment(&mut net, 0, frame, &segment, hash, admit);
                }
                Ingress::IcmpError(error) => {
                    stack.icmp_error(&mut Net { now, ports: port, counters }, &error);
                }
                Ingress::Done => {}
            }
        }
        busy |= stack.timers(now);
        if now >= port[0].next_maintenance() {
            port[0].maintain(now, counters);
            port[0].unreachable(|address| stack.unreachable(address));
            stack.give_up_unreachable();
        }
        let mut net = Net { now, ports: port, counters };
        while let Some(id) = stack.next_ready() {
            app.ready(stack, &mut net, id);
            busy = true;
        }
        busy |= app.tick(stack, &mut net);
        busy |= stack.egress(&mut net);
        port[0].lane_mut().flush();
        busy
    }

    fn next(&mut self) -> Option<Duration> {
        let stack = self.stack.next_due();
        let due = [stack, self.app.next(), Some(self.port[0].next_maintenance())].into_iter().flatten().min();
        let due = due.map(|at| Duration::from_nanos(at.0));
        due.into_iter().chain(self.lane().next_arrival()).min()
    }
}
