//! A client host and a host that stands for gateway and backends, on a wire in virtual time.

use std::time::Duration;

use blast::client::ClientCounters;
use blast::endpoint::{App, Do, Endpoint, Gone, HostOptions, Start};
use blast::server::{Server, ServerCounters, ServerState};
use blast::{Client, ClientOptions, Message};
use pmd::sim::{Clock, PathOptions, SimLane, WireOptions, wire};

const GATEWAY: u32 = 0x0a09_0101;
const CLIENTS: u32 = 0x0a09_010a;

/// Every so many replies, one is spoilt.
const EVERY: u64 = 50;

/// What the other side does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Nothing; it closes behind each response.
    ServerCloses,
    Stall {
        from: u64,
        to: u64,
    },
    Swap,
    Cut,
    CutAndClose,
    CutAndReset,
    Twice,
    TwiceLate,
    Silence,
    CloseInstead,
    ResetInstead,
    Status,
    Length,
    Body,
    SwapBody,
    Rubbish,
    /// A nonce that nobody sent, over the right body.
    Nonce,
    /// One byte more than `Content-Length` says.
    OneMore,
    /// The rest of a reply begins one byte late.
    OneLess,
    Refuse,
    /// Neither clients nor backends get to do anything.
    Pause {
        from: u64,
        to: u64,
    },
    /// It accepts no more connections than this.
    Few {
        connections: u32,
    },
}

impl Fault {
    /// Of the wrong replies, those that came beside a right one.
    pub(crate) fn extra(self, count: u64) -> u64 {
        if matches!(self, Fault::Twice | Fault::OneMore) { count } else { 0 }
    }
}

/// A clean path of 10 µs.
pub(crate) fn clean() -> PathOptions {
    PathOptions::default()
}

pub(crate) fn options(busy: u32, reply: u64, upload: usize) -> ClientOptions {
    ClientOptions {
        busy,
        idle: 0,
        close: false,
        rate: None,
        requests: vec![Message::request("gateway", "/n/", &[], upload, false)],
        reply,
        timeout: 200_000_000,
    }
}

pub(crate) struct Scene {
    clock: Clock,
    now: u64,
    pub(crate) north: Endpoint<SimLane, Client>,
    pub(crate) south: Endpoint<SimLane, Peer>,
}

impl Scene {
    pub(crate) fn new(seed: u64, path: PathOptions, client: ClientOptions, fault: Fault) -> Self {
        Self::lossy(seed, path, client, fault, 0.0)
    }

    /// Clients whose host loses frames by itself.
    pub(crate) fn lossy(seed: u64, path: PathOptions, client: ClientOptions, fault: Fault, loss: f64) -> Self {
        Self::over(seed, |clock| WireOptions::symmetric(clock, path), client, fault, loss)
    }

    /// Over a wire that carries segments of 64 KiB whole.
    pub(crate) fn large(client: ClientOptions) -> Self {
        let options = |clock: &Clock| {
            let mut options = WireOptions::symmetric(clock, clean());
            for lane in [&mut options.left, &mut options.right] {
                (lane.tso, lane.lro) = (true, true);
            }
            options
        };
        Self::over(1, options, client, Fault::None, 0.0)
    }

    fn over(
        seed: u64,
        options: impl FnOnce(&Clock) -> WireOptions,
        client: ClientOptions,
        fault: Fault,
        loss: f64,
    ) -> Self {
        let clock = Clock::new();
        let (left, right) = wire(options(&clock), seed);
        let connections = client.busy + client.idle;
        let host = HostOptions {
            first: CLIENTS,
            addresses: 2,
            peer: GATEWAY,
            port: 80,
            listens: false,
            connections,
            retransmission: 20_000_000,
            delayed_ack: 2_000_000,
            retries: 6,
            in_flight: 700_000,
            window_scale: 4,
            loss,
            seed,
        };
        let other = HostOptions {
            first: GATEWAY,
            addresses: 1,
            peer: CLIENTS,
            listens: true,
            loss: 0.0,
            connections: 2 * connections + 8,
            ..host
        };
        let other = match fault {
            Fault::Refuse => HostOptions { port: 81, ..other },
            Fault::Few { connections } => HostOptions { connections, ..other },
            _ => other,
        };
        let peer =
            Peer { reply: client.reply, server: Server::new(client.reply as usize), fault, served: 0, last: [0; 16] };
        Self {
            clock,
            now: 0,
            north: Endpoint::new(left, Client::new(client), host),
            south: Endpoint::new(right, peer, other),
        }
    }

    /// Runs for so long, and until all that was asked is answered or given up.
    pub(crate) fn run(&mut self, duration: Duration) -> ClientCounters {
        self.north.app_mut().measure(self.now, self.now + nanoseconds(duration));
        self.run_on(duration)
    }

    pub(crate) fn now(&self) -> u64 {
        self.now
    }

    /// The same, and measures nothing anew.
    pub(crate) fn run_on(&mut self, duration: Duration) -> ClientCounters {
        let end = self.now + nanoseconds(duration);
        let mut calm = 0;
        while calm < 10_000 {
            self.now += 10_000;
            let now = self.now;
            self.clock.advance_to(Duration::from_nanos(now));
            let fault = self.south.app().fault;
            let stalled = matches!(fault, Fault::Stall { from, to } if (from..to).contains(&now));
            if let Fault::Pause { from, to } = fault {
                if (from..to).contains(&now) {
                    continue;
                } else if now == to {
                    self.north.app_mut().disturbed(now);
                }
            }
            self.north.turn(now);
            if !stalled {
                self.south.turn(now);
            }
            if now >= end {
                self.north.app_mut().stop();
                calm = if self.north.app().outstanding() == 0 { calm + 1 } else { 0 };
                assert!(now < end + 10_000_000_000, "{} requests hang", self.north.app().outstanding());
            }
        }
        self.north.app().counters()
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap()
}

/// A backend that spoils some of its replies as a faulty gateway would.
pub(crate) struct Peer {
    reply: u64,
    server: Server,
    fault: Fault,
    served: u64,
    last: [u8; 16],
}

#[derive(Default)]
pub(crate) struct PeerState {
    inner: ServerState,
    reply: Option<Vec<u8>>,
    late: Option<Vec<u8>>,
}

impl Peer {
    pub(crate) fn counters(&self) -> ServerCounters {
        self.server.counters()
    }

    fn spoil(&mut self, state: &mut PeerState, len: u32) -> Do {
        self.served += 1;
        let spoilt = self.served.is_multiple_of(EVERY);
        let mut whole = vec![0; len as usize];
        self.server.fill(&state.inner, 0, &mut whole);
        let head = whole.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let nonce: [u8; 16] = whole[head..head + 16].try_into().unwrap();
        let before = std::mem::replace(&mut self.last, nonce);
        let mut close = self.fault == Fault::ServerCloses;
        if let Some(mut late) = state.late.take() {
            late.truncate(late.len());
            whole = late;
        } else if spoilt {
            match self.fault {
                Fault::None
                | Fault::ServerCloses
                | Fault::Stall { .. }
                | Fault::Pause { .. }
                | Fault::Refuse
                | Fault::Few { .. } => {}
                Fault::Swap => {
                    let mut other = Vec::new();
                    other.extend_from_slice(&whole[..head - 20]);
                    other.extend_from_slice(&before);
                    other.extend_from_slice(&whole[head - 4..]);
                    whole = other;
                }
                Fault::Cut => whole.truncate(head + 1700),
                Fault::CutAndClose => {
                    whole.truncate(head + 1700);
                    close = true;
                }
                Fault::CutAndReset => whole.truncate(head + 1700),
                Fault::Twice => whole.extend(whole.clone()),
                Fault::TwiceLate => state.late = Some(whole.clone()),
                Fault::Silence => return Do::Nothing,
                Fault::CloseInstead => return Do::Close,
                Fault::ResetInstead => return Do::Abort,
                Fault::Status => whole[9..12].copy_from_slice(b"503"),
                Fault::Length => {
                    let at = whole.windows(4).position(|four| four == b"3000").unwrap();
                    whole[at..at + 4].copy_from_slice(b"2999");
                    whole.pop();
                }
                Fault::Body => whole[head + 2000] ^= 1,
                Fault::SwapBody => whole[head + 1024..head + 1040].copy_from_slice(&before),
                Fault::Nonce => whole[head - 20..head - 4].copy_from_slice(b"00000000deadbeef"),
                Fault::OneMore => whole.push(b'!'),
                Fault::OneLess => drop(whole.remove(head + 2000)),
                Fault::Rubbish => whole[..4].copy_from_slice(b"HTML"),
            }
        }
        let len = whole.len() as u32;
        state.reply = Some(whole);
        Do::Send { len, close }
    }
}

impl App for Peer {
    type State = PeerState;

    fn start(&mut self, _now: u64) -> Option<Start> {
        None
    }
    fn opening(&mut self, _now: u64, _id: u32, _state: &mut PeerState) {}
    fn asked(&mut self, _now: u64, _id: u32, _state: &mut PeerState) -> Do {
        Do::Nothing
    }
    fn opened(&mut self, now: u64, id: u32, state: &mut PeerState) -> Do {
        *state = PeerState::default();
        self.server.opened(now, id, &mut state.inner)
    }
    fn receive(&mut self, now: u64, id: u32, state: &mut PeerState, bytes: &[u8]) -> Do {
        match self.server.receive(now, id, &mut state.inner, bytes) {
            Do::Send { len, .. } => self.spoil(state, len),
            other => other,
        }
    }
    fn fill(&self, state: &PeerState, offset: u32, out: &mut [u8]) {
        let reply = state.reply.as_ref().unwrap();
        let from = offset as usize;
        out.copy_from_slice(&reply[from..from + out.len()]);
    }
    fn ended(&mut self, now: u64, id: u32, state: &mut PeerState) -> Do {
        self.server.ended(now, id, &mut state.inner)
    }
    fn gone(&mut self, now: u64, id: u32, state: &mut PeerState, how: Gone) {
        self.server.gone(now, id, &mut state.inner, how);
    }
    fn deadline(&self, state: &PeerState) -> u64 {
        // A reset a little after a part of a reply went out.
        let cut = self.fault == Fault::CutAndReset
            && state.reply.as_ref().is_some_and(|reply| (reply.len() as u64) < self.reply);
        if cut { 0 } else { u64::MAX }
    }
    fn expired(&mut self, _now: u64, _id: u32, _state: &mut PeerState) -> Do {
        Do::Abort
    }
}
