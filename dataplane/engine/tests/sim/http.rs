//! HTTP segment by segment: scripted clients and backends around the whole core.

use std::net::Ipv4Addr;
use std::time::Duration;

use engine::port::Flags;
use pmd::sim::PathOptions;
use tables::access::Flag;

use crate::support::gateway::{Gateway, GatewayOptions, NORTH_MAC, SOUTH_MAC, world};
use crate::support::script::{ACK, FIN, RST, SYN, Script, Seg};
use crate::support::{World, ms, secs, us};
use crate::tcp::MSS;

/// A gateway with a scripted client and a scripted backend.
pub struct Stage {
    pub world: World<Gateway, Script, Script>,
}

/// One end of a scripted connection.
#[derive(Debug, Clone, Copy)]
pub struct End {
    pub local: (Ipv4Addr, u16),
    pub remote: (Ipv4Addr, u16),
    seq: u32,
    ack: u32,
    window: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Client,
    Backend,
}
use Side::{Backend, Client};

pub const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
pub const REPLY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

impl Stage {
    pub fn new(options: &GatewayOptions) -> Self {
        let world = world(
            options,
            |lane| Script::new(lane, [10, 9, 1, 2], NORTH_MAC),
            |lane| Script::new(lane, [10, 9, 2, 2], SOUTH_MAC),
        );
        let mut stage = Self { world };
        stage.settle();
        stage
    }

    fn script(&mut self, side: Side) -> &mut Script {
        match side {
            Client => &mut self.world.north,
            Backend => &mut self.world.south,
        }
    }

    pub fn settle(&mut self) {
        self.world.run(us(200));
    }

    /// The client's end of a connection from `port` that it has not opened yet.
    pub fn end(&self, port: u16) -> End {
        End {
            local: (self.world.north.address, port),
            remote: (Ipv4Addr::new(10, 9, 1, 1), 80),
            seq: 1000,
            ack: 0,
            window: 60_000,
        }
    }

    /// The client connects from `port`.
    pub fn connect(&mut self, port: u16) -> End {
        let mut end = self.end(port);
        self.send(Client, &mut end, SYN, &[]);
        end.ack = self.expect(Client, SYN | ACK).end();
        self.send(Client, &mut end, ACK, b"");
        end
    }

    /// The backend accepts the next connection.
    pub fn accept(&mut self) -> End {
        let syn = self.expect(Backend, SYN);
        self.accept_of(&syn)
    }

    /// The backend accepts a connection that it was asked for a while ago.
    pub fn accept_of(&mut self, syn: &Seg) -> End {
        let mut end = End { local: syn.destination, remote: syn.source, seq: 5000, ack: syn.end(), window: 60_000 };
        self.send(Backend, &mut end, SYN | ACK, b"");
        end
    }

    /// The next connection that the backend is asked for, which it says nothing to.
    pub fn accept_none(&mut self) -> Seg {
        self.expect(Backend, SYN)
    }

    /// The backend refuses a connection.
    pub fn reject(&mut self, syn: &Seg) {
        let mut end = End { local: syn.destination, remote: syn.source, seq: 0, ack: syn.end(), window: 0 };
        self.send(Backend, &mut end, RST | ACK, b"");
    }

    /// What a client's SYN from `port` to `to` is answered with.
    pub fn knock(&mut self, port: u16, to: u16) -> Seg {
        self.world.north.inbox.clear();
        let mut end = End {
            local: (self.world.north.address, port),
            remote: (Ipv4Addr::new(10, 9, 1, 1), to),
            seq: 1000,
            ack: 0,
            window: 60_000,
        };
        self.send(Client, &mut end, SYN, &[]);
        loop {
            let segment = self.rx(Client);
            if segment.destination.1 == port {
                return segment;
            }
        }
    }

    /// The next segment that says something.
    #[track_caller]
    pub fn rx_any(&mut self, side: Side) -> Seg {
        loop {
            let segment = self.rx(side);
            if segment.flags.syn() || !segment.payload.is_empty() {
                return segment;
            }
        }
    }

    pub fn send(&mut self, side: Side, end: &mut End, flags: Flags, payload: &[u8]) {
        let segment = Seg {
            at: Duration::ZERO,
            source: end.local,
            destination: end.remote,
            seq: end.seq,
            ack: if flags.ack() { end.ack } else { 0 },
            flags,
            window: end.window,
            options: if flags.syn() { MSS.to_vec() } else { Vec::new() },
            payload: payload.to_vec(),
        };
        end.seq = segment.end();
        self.script(side).send(&segment);
    }

    #[track_caller]
    fn rx(&mut self, side: Side) -> Seg {
        let came = self.world.run_until(secs(100), |world| {
            let script = if side == Client { &world.north } else { &world.south };
            !script.inbox.is_empty()
        });
        assert!(came, "nothing is sent to the {side:?}");
        self.script(side).inbox.pop_front().unwrap()
    }

    #[track_caller]
    fn expect(&mut self, side: Side, flags: Flags) -> Seg {
        let segment = self.rx(side);
        assert!(segment.is(flags), "{flags:?} is expected, not {segment:?}");
        segment
    }

    /// What arrives in sequence at `end`, until `done`; acknowledged as it comes.
    #[track_caller]
    pub fn read(&mut self, side: Side, end: &mut End, done: impl Fn(&[u8]) -> bool) -> String {
        let mut bytes = Vec::new();
        while !done(&bytes) {
            let segment = self.rx(side);
            if segment.source != end.remote || segment.seq != end.ack {
                continue;
            }
            let over = segment.flags.rst() || segment.flags.fin() && segment.payload.is_empty();
            assert!(!over, "{segment:?} after {:?}", String::from_utf8_lossy(&bytes));
            end.ack = segment.end();
            if segment.flags.fin() {
                // The FIN is left for `closing`.
                end.ack = end.ack.wrapping_sub(1);
                self.script(side).inbox.push_front(Seg { seq: end.ack, payload: Vec::new(), ..segment.clone() });
            }
            if !segment.payload.is_empty() {
                bytes.extend(segment.payload);
                self.send(side, end, ACK, b"");
            }
        }
        String::from_utf8(bytes).unwrap()
    }

    /// A head without a body.
    #[track_caller]
    pub fn head(&mut self, side: Side, end: &mut End) -> String {
        self.read(side, end, |bytes| bytes.ends_with(b"\r\n\r\n"))
    }

    /// The next segment to `side` that closes its connection.
    #[track_caller]
    pub fn closing(&mut self, side: Side) -> Seg {
        loop {
            let segment = self.rx(side);
            if segment.flags.fin() || segment.flags.rst() {
                return segment;
            }
        }
    }
}

/// A client that has asked, and the backend that has its request.
fn asked(request: &[u8]) -> (Stage, End, End) {
    let mut stage = Stage::new(&GatewayOptions::default());
    let mut client = stage.connect(4000);
    stage.send(Client, &mut client, ACK, request);
    let mut backend = stage.accept();
    stage.head(Backend, &mut backend);
    (stage, client, backend)
}

#[test]
fn a_request_in_single_bytes() {
    let mut stage = Stage::new(&GatewayOptions::default());
    let mut client = stage.connect(4000);
    for byte in GET {
        stage.send(Client, &mut client, ACK, &[*byte]);
        stage.settle();
        assert!(
            stage.world.south.inbox.is_empty() || *byte == b'\n',
            "nothing goes to a backend before the head is whole"
        );
    }
    let mut backend = stage.accept();
    let head = stage.head(Backend, &mut backend);
    assert!(head.starts_with("GET / HTTP/1.1\r\n") && head.contains("10.9.1.2"), "{head}");
    for byte in REPLY {
        stage.send(Backend, &mut backend, ACK, &[*byte]);
        stage.settle();
    }
    let reply = stage.read(Client, &mut client, |bytes| bytes.ends_with(b"ok"));
    assert!(reply.starts_with("HTTP/1.1 200 OK\r\n"), "{reply}");
}

/// RFC 9110 §7.6.2: what may go no further is answered here, as `OPTIONS *` is; what may, goes on with one less. TRACE is 405 either way.
#[test]
fn options_that_may_go_no_further_are_answered_here() {
    let mut stage = Stage::new(&GatewayOptions::default());
    let mut client = stage.connect(4000);
    stage.send(Client, &mut client, ACK, b"OPTIONS /x HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n");
    let here = stage.head(Client, &mut client);
    assert!(here.starts_with("HTTP/1.1 200 OK\r\nAllow: GET, "), "{here}");
    stage.settle();
    assert!(stage.world.south.inbox.is_empty(), "nothing goes to a backend");
    assert_eq!(stage.world.mid.log[0].flag, Flag::Filter);
    stage.send(Client, &mut client, ACK, b"OPTIONS /x HTTP/1.1\r\nHost: a\r\nMax-Forwards: 1\r\n\r\n");
    let mut backend = stage.accept();
    let forwarded = stage.head(Backend, &mut backend);
    assert!(forwarded.contains("\r\nMax-Forwards: 0\r\n"), "{forwarded}");
    stage.send(Backend, &mut backend, ACK, REPLY);
    stage.read(Client, &mut client, |bytes| bytes.ends_with(b"ok"));
    // Zero means nothing to other methods.
    stage.send(Client, &mut client, ACK, b"GET /x HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n");
    let forwarded = stage.head(Backend, &mut backend);
    assert!(forwarded.contains("\r\nMax-Forwards: 0\r\n"), "{forwarded}");
    stage.send(Backend, &mut backend, ACK, REPLY);
    stage.read(Client, &mut client, |bytes| bytes.ends_with(b"ok"));
    for left in [0, 1] {
        let mut stage = Stage::new(&GatewayOptions::default());
        let mut client = stage.connect(4000);
        let request = format!("TRACE /x HTTP/1.1\r\nHost: a\r\nMax-Forwards: {left}\r\n\r\n");
        stage.send(Client, &mut client, ACK, request.as_bytes());
        let reply = stage.read(Client, &mut client, |bytes| bytes.ends_with(b"method_not_allowed"));
        assert!(reply.starts_with("HTTP/1.1 405 "), "{reply}");
    }
}

/// RFC 9112 §9.6: a client that has asked and closes its side still waits for the answer.
#[test]
fn a_half_closed_client_gets_its_answer() {
    let mut stage = Stage::new(&GatewayOptions::default());
    let mut client = stage.connect(4000);
    stage.send(Client, &mut client, FIN | ACK, GET);
    let mut backend = stage.accept();
    stage.head(Backend, &mut backend);
    stage.world.run(ms(100));
    stage.send(Backend, &mut backend, ACK, REPLY);
    stage.read(Client, &mut client, |bytes| bytes.ends_with(b"ok"));
    let fin = stage.closing(Client);
    assert!(fin.is(FIN | ACK), "{fin:?}");
    assert_eq!(stage.world.mid.log[0].flag, Flag::None);
}

/// A client that resets takes its request along: the backend connection is reset.
#[test]
fn a_client_that_resets_ends_its_request() {
    let (mut stage, mut client, _) = asked(GET);
    stage.send(Client, &mut client, RST, b"");
    assert!(stage.closing(Backend).flags.rst());
    assert_eq!(stage.world.mid.log[0].flag, Flag::ClientGone);
    assert_eq!(stage.world.mid.log[0].status, 499);
    stage.world.run(secs(5));
    stage.world.mid.assert_empty();
}

/// BEHAVIOUR.md: a peer that falls silent is found out by keep-alive, reset, and the other leg is told.
#[test]
fn a_client_that_falls_silent_takes_its_backend_along() {
    let mut options = GatewayOptions::default();
    options.http.response_timeout = secs(3600);
    let mut stage = Stage::new(&options);
    let mut client = stage.connect(4000);
    stage.send(Client, &mut client, ACK, GET);
    let mut backend = stage.accept();
    stage.head(Backend, &mut backend);
    let start = stage.world.clock.now();
    let mut resets = [None, None];
    // The backend answers its probes, the client does not.
    while resets.contains(&None) {
        stage.world.run(secs(1));
        let now = stage.world.clock.now() - start;
        assert!(now < secs(70), "{resets:?}");
        while let Some(segment) = stage.world.north.inbox.pop_front() {
            resets[0] = resets[0].or(segment.flags.rst().then_some(segment.at - start));
        }
        while let Some(segment) = stage.world.south.inbox.pop_front() {
            resets[1] = resets[1].or(segment.flags.rst().then_some(segment.at - start));
            if !segment.flags.rst() {
                stage.send(Backend, &mut backend, ACK, b"");
            }
        }
    }
    assert!(resets.iter().flatten().all(|at| (secs(58)..secs(62)).contains(at)), "{resets:?}");
    stage.world.run(secs(3));
    stage.world.mid.assert_empty();
}

/// BEHAVIOUR.md: bytes on an idle connection, or its end, and it is dropped: the next request opens another.
#[test]
fn an_idle_backend_connection_that_speaks_or_closes_is_dropped() {
    for (flags, bytes) in [(ACK, &b"HTTP/1.1 408 Too Late\r\n\r\n"[..]), (FIN | ACK, b""), (RST, b"")] {
        let (mut stage, mut client, mut backend) = asked(GET);
        stage.send(Backend, &mut backend, ACK, REPLY);
        stage.read(Client, &mut client, |bytes| bytes.ends_with(b"ok"));
        stage.settle();
        stage.world.run(ms(20));
        assert_eq!(stage.world.mid.counters.upstream_idle.read(), 1);
        stage.send(Backend, &mut backend, flags, bytes);
        stage.world.run(ms(20));
        assert_eq!(stage.world.mid.counters.upstream_idle.read(), 0, "{flags:?}");
        stage.world.south.inbox.clear();
        stage.send(Client, &mut client, ACK, GET);
        let mut backend = stage.accept();
        stage.head(Backend, &mut backend);
        stage.send(Backend, &mut backend, ACK, REPLY);
        let reply = stage.read(Client, &mut client, |bytes| bytes.ends_with(b"ok"));
        assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    }
}

/// RFC 9112 §9.3.2: responses come in the order of the requests, and a pipeline that the client closes is served to its end.
#[test]
fn a_pipeline_in_one_segment_with_a_fin() {
    let mut stage = Stage::new(&GatewayOptions::default());
    let mut client = stage.connect(4000);
    let pipeline: Vec<u8> = (0..5).flat_map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes()).collect();
    stage.send(Client, &mut client, FIN | ACK, &pipeline);
    let mut backend = stage.accept();
    for n in 0..5 {
        let head = stage.head(Backend, &mut backend);
        assert!(head.starts_with(&format!("GET /{n} ")), "{head}");
        let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n<{n}>\n");
        stage.send(Backend, &mut backend, ACK, reply.as_bytes());
    }
    let replies = stage.read(Client, &mut client, |bytes| bytes.ends_with(b"<4>\n"));
    let order: Vec<_> = replies.match_indices('<').map(|(at, _)| &replies[at + 1..at + 2]).collect();
    assert_eq!(order, ["0", "1", "2", "3", "4"]);
    assert!(stage.closing(Client).is(FIN | ACK));
}

/// RFC 9110 §7.8: after a switch, bytes pass as they are, half-closed in one direction too, until both have closed.
#[test]
fn a_tunnel() {
    let (mut stage, mut client, mut backend) =
        asked(b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    let switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst";
    stage.send(Backend, &mut backend, ACK, switch);
    let head = stage.read(Client, &mut client, |bytes| bytes.ends_with(b"first"));
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    stage.send(Client, &mut client, ACK, b"\x00up");
    assert_eq!(stage.read(Backend, &mut backend, |bytes| bytes.len() == 3), "\x00up");
    stage.send(Client, &mut client, FIN | ACK, b"last");
    assert_eq!(stage.read(Backend, &mut backend, |bytes| bytes.len() == 4), "last");
    assert!(stage.closing(Backend).is(FIN | ACK));
    backend.ack = backend.ack.wrapping_add(1);
    stage.send(Backend, &mut backend, ACK, b"down");
    assert_eq!(stage.read(Client, &mut client, |bytes| bytes.len() == 4), "down");
    stage.send(Backend, &mut backend, FIN | ACK, b"");
    assert!(stage.closing(Client).is(FIN | ACK));
    client.ack = client.ack.wrapping_add(1);
    stage.send(Client, &mut client, ACK, b"");
    stage.world.run(secs(5));
    assert_eq!(stage.world.mid.log[0].flag, Flag::Tunnel);
    stage.world.mid.assert_empty();
}

/// A body that ends with the connection is whole once the FIN came, though the backend forgets the connection before a slow client
/// has read it; and cut short where the RST comes instead.
#[test]
fn a_reset_behind_a_fin_cuts_nothing_short() {
    for whole in [true, false] {
        let mut stage = Stage::new(&GatewayOptions::default());
        let mut client = stage.connect(4000);
        client.window = 2000;
        stage.send(Client, &mut client, ACK, GET);
        let mut backend = stage.accept();
        stage.head(Backend, &mut backend);
        stage.send(Backend, &mut backend, ACK, b"HTTP/1.0 200 OK\r\n\r\n");
        for _ in 0..100 {
            stage.send(Backend, &mut backend, ACK, &[b'x'; 1000]);
            stage.settle();
        }
        if whole {
            stage.send(Backend, &mut backend, FIN | ACK, b"end");
            stage.settle();
        }
        stage.send(Backend, &mut backend, RST, b"");
        stage.settle();
        stage.world.run(ms(10));
        if whole {
            let response = stage
                .read(Client, &mut client, |bytes| bytes.ends_with(b"end") || bytes.ends_with(b"end\r\n0\r\n\r\n"));
            assert!(response.matches('x').count() == 100_000);
        } else {
            let mut ended = Vec::new();
            for _ in 0..500 {
                let segment = stage.rx(Client);
                client.ack = segment.end();
                ended.extend(&segment.payload);
                if segment.flags.fin() || segment.flags.rst() {
                    break;
                }
                stage.send(Client, &mut client, ACK, b"");
            }
            assert!(!ended.ends_with(b"0\r\n\r\n"), "no final chunk");
        }
        let flag = if whole { Flag::None } else { Flag::BackendTruncated };
        stage.world.run(ms(100));
        assert_eq!(stage.world.mid.log[0].flag, flag);
    }
}

/// BEHAVIOUR.md: a head that is not whole after 10 s, and a connection that asks nothing for 60 s.
#[test]
fn slow_heads_and_idle_clients() {
    let mut stage = Stage::new(&GatewayOptions::default());
    let mut slow = stage.connect(4000);
    stage.send(Client, &mut slow, ACK, b"GET / HT");
    let start = stage.world.clock.now();
    let reply = stage.read(Client, &mut slow, |bytes| bytes.starts_with(b"HTTP/1.1 408 "));
    assert!((stage.world.clock.now() - start).abs_diff(secs(10)) < ms(50), "{reply}");
    stage.closing(Client);
    stage.send(Client, &mut slow, RST, b"");
    stage.world.run(secs(1));
    stage.world.north.inbox.clear();
    stage.world.mid.assert_empty();
    let start = stage.world.clock.now();
    let mut idle = stage.connect(4001);
    let fin = loop {
        let segment = stage.rx(Client);
        if segment.flags.fin() {
            break segment;
        }
        stage.send(Client, &mut idle, ACK, b"");
    };
    assert!((fin.at - start).abs_diff(secs(60)) < ms(50), "{:?}", fin.at - start);
    assert!(stage.world.south.inbox.is_empty(), "no backend heard of it");
}

/// A connect that is slow costs time and no request: SYNs that are lost are repeated.
#[test]
fn a_lost_syn_to_a_backend_is_repeated() {
    let mut stage = Stage::new(&GatewayOptions::default());
    let mut client = stage.connect(4000);
    stage.send(Client, &mut client, ACK, GET);
    let first = stage.expect(Backend, SYN);
    let second = stage.expect(Backend, SYN);
    assert!((second.at - first.at).abs_diff(ms(100)) < ms(1));
    assert_eq!(second.seq, first.seq);
    let mut backend =
        End { local: first.destination, remote: first.source, seq: 5000, ack: first.end(), window: 60_000 };
    stage.send(Backend, &mut backend, SYN | ACK, b"");
    stage.head(Backend, &mut backend);
    stage.send(Backend, &mut backend, ACK, REPLY);
    stage.read(Client, &mut client, |bytes| bytes.ends_with(b"ok"));
    assert_eq!(stage.world.mid.lane(1).path(), PathOptions::default());
}
