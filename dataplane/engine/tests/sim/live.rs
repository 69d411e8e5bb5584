//! Tables that change while requests run, segment by segment.

use std::net::SocketAddr;
use std::sync::Arc;

use tables::access::Flag;
use tables::filter::{FieldChanges, Filters, Mirror, Retry, RuleFilters};
use tables::publish::HELD;
use tables::{ClusterId, Endpoint, EndpointId, EndpointTable, HttpSettings, Selection};

use crate::http::Side::{Backend, Client};
use crate::http::{GET, REPLY, Stage};
use crate::support::gateway::GatewayOptions;
use crate::support::script::{ACK, FIN, SYN};
use crate::support::{ms, secs};

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 9, 2, last], 8080))
}

fn stage(endpoints: &[u8]) -> Stage {
    let http = HttpSettings { epoch_header: true, ..GatewayOptions::default().http };
    let endpoints = endpoints.iter().map(|&last| address(last)).collect();
    Stage::new(&GatewayOptions { http, endpoints, ..GatewayOptions::default() })
}

const ANSWERED: &str = "HTTP/1.1 200 OK\r\nx-millrace-epoch: ";

/// A request whose first endpoint refuses it after the tables have changed is tried at the other one of its own tables, and only then is anything
/// served by the new ones.
#[test]
fn a_request_ends_under_the_tables_that_it_began_under() {
    let mut stage = stage(&[2, 3]);
    let mut client = stage.connect(4000);
    stage.send(Client, &mut client, ACK, GET);
    let syn = stage.accept_none();
    assert_eq!(syn.destination.0, address(2).ip());
    // Its tables are gone from control, and others have come and gone since.
    for epoch in 2..=20 {
        stage.world.mid.publish(epoch, &[address(9)]);
        stage.settle();
    }
    let swaps = |stage: &Stage| (stage.world.mid.lifecycle.swaps.read(20), stage.world.mid.lifecycle.swaps.held());
    assert_eq!(swaps(&stage).1, 1);
    stage.reject(&syn);
    let mut backend = stage.accept();
    assert_eq!(backend.local.0, address(3).ip(), "of the tables of epoch 1");
    stage.head(Backend, &mut backend);
    stage.send(Backend, &mut backend, ACK, REPLY);
    let reply = stage.read(Client, &mut client, |bytes| bytes.ends_with(b"ok"));
    assert!(reply.starts_with(&format!("{ANSWERED}1\r\n")), "{reply}");
    stage.settle();
    assert_eq!(swaps(&stage).1, 0, "nobody needs them any more");
    assert!(stage.closing(Backend).is(FIN | ACK), "an endpoint that is gone gets no other request");

    stage.send(Client, &mut client, ACK, GET);
    let mut backend = stage.accept();
    assert_eq!(backend.local.0, address(9).ip());
    stage.head(Backend, &mut backend);
    stage.send(Backend, &mut backend, ACK, REPLY);
    let reply = stage.read(Client, &mut client, |bytes| bytes.ends_with(b"ok"));
    assert!(reply.starts_with(&format!("{ANSWERED}20\r\n")), "{reply}");
    let swap = swaps(&stage).0.unwrap();
    assert_eq!((swap.from, swap.requests, swap.running), (19, 1, 1));
    assert!(swap.first_at > swap.at);
    assert!(stage.world.mid.log.iter().all(|record| record.flag == Flag::None && record.status == 200));
    assert_eq!(stage.world.mid.log.iter().map(|record| record.epoch).collect::<Vec<_>>(), [1, 20]);
}

/// What waits for an endpoint that is gone is closed, and what waits for one that stays is not.
#[test]
fn idle_connections_to_endpoints_that_are_gone_are_closed() {
    let mut stage = stage(&[2, 3]);
    let mut ends = Vec::new();
    for (port, last) in [(4000, 2), (4001, 3)] {
        let mut client = stage.connect(port);
        stage.send(Client, &mut client, ACK, GET);
        let mut backend = stage.accept();
        assert_eq!(backend.local.0, address(last).ip());
        stage.head(Backend, &mut backend);
        stage.send(Backend, &mut backend, ACK, REPLY);
        stage.read(Client, &mut client, |bytes| bytes.ends_with(b"ok"));
        ends.push((client, backend));
    }
    assert_eq!(stage.world.mid.lifecycle.swaps.last_swept(), 1);
    stage.world.mid.publish(2, &[address(3), address(4)]);
    let closed = stage.closing(Backend);
    assert_eq!((closed.destination.0.into(), closed.is(FIN | ACK)), (address(2).ip(), true));
    stage.settle();
    assert_eq!(stage.world.mid.lifecycle.swaps.last_swept(), 2);
    // The other one serves the next request.
    let (client, backend) = ends.last_mut().unwrap();
    for _ in 0..2 {
        stage.send(Client, client, ACK, GET);
        let request = stage.rx_any(Backend);
        if request.is(SYN) {
            assert_eq!(request.destination.0, address(4).ip());
            stage.reject(&request);
            continue;
        }
        assert_eq!(request.source, backend.remote);
        return;
    }
    let request = stage.rx_any(Backend);
    assert_eq!(request.source, backend.remote, "tried again on the connection that was idle");
}

/// A listener that is gone takes nobody in; who waits there is told, and who is being served is served.
#[test]
fn a_listener_that_is_gone_lets_its_clients_go() {
    let mut stage = stage(&[2]);
    let mut idle = stage.connect(4000);
    stage.send(Client, &mut idle, ACK, GET);
    let mut backend = stage.accept();
    stage.head(Backend, &mut backend);
    stage.send(Backend, &mut backend, ACK, REPLY);
    stage.read(Client, &mut idle, |bytes| bytes.ends_with(b"ok"));
    let mut busy = stage.connect(4001);
    stage.send(Client, &mut busy, ACK, GET);
    stage.head(Backend, &mut backend);

    stage.world.mid.publish_at(2, "10.9.1.1:81");
    let closed = stage.closing(Client);
    assert_eq!((closed.destination.1, closed.is(FIN | ACK)), (4000, true));
    stage.send(Backend, &mut backend, ACK, REPLY);
    let reply = stage.read(Client, &mut busy, |bytes| bytes.ends_with(b"ok"));
    assert!(reply.starts_with(ANSWERED) && reply.contains("\r\nConnection: close\r\n"), "{reply}");
    let refused = stage.knock(4002, 80);
    assert!(refused.flags.rst(), "nobody listens there: {refused:?}");
    assert!(stage.knock(4003, 81).is(SYN | ACK), "but there");
    stage.world.run(ms(1));
    assert!(stage.world.mid.log.iter().all(|record| record.status == 200));
}

/// What is known of endpoints belongs to the newest tables: a request of older ones goes by those, however clusters are numbered there.
#[test]
fn the_endpoints_of_other_tables_are_not_those_of_a_request() {
    let mut stage = stage(&[2, 3]);
    let mut client = stage.connect(4000);
    stage.send(Client, &mut client, ACK, GET);
    let syn = stage.accept_none();
    stage.world.mid.publish(2, &[address(9)]);
    let elsewhere = Endpoint { id: EndpointId(9), address: address(9), weight: 1 };
    let selection = Arc::new(Selection::round_robin(vec![elsewhere]));
    stage.world.mid.endpoints.publish(Arc::new(EndpointTable::new(1, 2, vec![Some(selection)], Arc::default())));
    stage.settle();
    stage.reject(&syn);
    assert_eq!(stage.accept().local.0, address(3).ip());
}

/// Has as many epochs in use as it takes for the tables of the first one to be given up. Returns the newest one.
fn wear_out(stage: &mut Stage, endpoints: &[SocketAddr]) -> u64 {
    let newest = HELD as u64 + 4;
    for epoch in 2..=newest {
        stage.world.mid.publish(epoch, endpoints);
        stage.settle();
        let mut client = stage.connect(5000 + epoch as u16);
        stage.send(Client, &mut client, ACK, GET);
        stage.settle();
    }
    assert_eq!(stage.world.mid.lifecycle.swaps.held(), HELD as u64 - 1);
    stage.world.south.inbox.clear();
    newest
}

/// A request that needs its tables once more when they are gone is served by those of now, and does not fail.
#[test]
fn a_request_whose_tables_were_given_up_begins_again() {
    for request in [GET, &b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"[..]] {
        let mut stage = stage(&[2]);
        let mut client = stage.connect(4000);
        stage.send(Client, &mut client, ACK, request);
        let syn = stage.accept_none();
        let newest = wear_out(&mut stage, &[address(9)]);
        stage.reject(&syn);
        let mut backend = stage.accept();
        assert_eq!(backend.local.0, address(9).ip(), "by the tables of now");
        let whole = stage.read(Backend, &mut backend, |bytes| {
            bytes.ends_with(b"\r\n\r\nbody") || (request == GET && bytes.ends_with(b"\r\n\r\n"))
        });
        assert!(whole.starts_with(if request == GET { "GET / " } else { "POST /x " }), "{whole}");
        stage.send(Backend, &mut backend, ACK, REPLY);
        let reply = stage.read(Client, &mut client, |bytes| bytes.ends_with(b"ok"));
        assert!(reply.starts_with(&format!("{ANSWERED}{newest}\r\n")), "{reply}");
        // It is of the newest epoch now, and lets go of that.
        stage.world.mid.publish(newest + 1, &[address(9)]);
        stage.settle();
        assert_eq!(stage.world.mid.log.last().map(|record| (record.status, record.epoch)), Some((200, newest)));
    }
}

/// The same where its route has filters, retries, and copies that wait for the rest of its body.
#[test]
fn filters_and_copies_survive_tables_that_were_given_up() {
    let filters = Filters {
        request: FieldChanges { strip: (*b"").into(), append: (*b"X-Added: yes\r\n").into() },
        mirrors: [Mirror { cluster: ClusterId(1), numerator: 1, denominator: 1 }].into(),
        ..Filters::default()
    };
    let retry = Retry { attempts: 1, backoff: ms(1), ..Retry::default() };
    let filters = RuleFilters { rule: filters, retry: Some(Box::new(retry)), ..RuleFilters::default() };
    let mut stage = Stage::new(&GatewayOptions { filters: Some(filters), ..GatewayOptions::default() });
    let mut client = stage.connect(4000);
    stage.send(Client, &mut client, ACK, b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nbody");
    let syns = [stage.accept_none(), stage.accept_none()];
    let [original, copy] = if syns[0].destination.1 == 8080 { syns } else { [syns[1].clone(), syns[0].clone()] };
    assert_eq!((original.destination.1, copy.destination.1), (8080, 9090));
    wear_out(&mut stage, &[address(9)]);
    let mirrored = stage.world.mid.counters.mirrors.read();
    stage.reject(&original);
    let mut backend = loop {
        let syn = stage.accept_none();
        if syn.destination.0 == address(9).ip() {
            break stage.accept_of(&syn);
        }
    };
    let head = stage.read(Backend, &mut backend, |bytes| bytes.ends_with(b"body"));
    assert!(head.contains("\r\nX-Added: yes\r\n"), "{head}");
    assert_eq!(stage.world.mid.counters.mirrors.read(), mirrored, "no second copy is made");
    // The rest of the body goes to both.
    let mut copy = stage.accept_of(&copy);
    stage.send(Client, &mut client, ACK, b"rest");
    stage.read(Backend, &mut backend, |bytes| bytes.ends_with(b"rest"));
    stage.read(Backend, &mut copy, |bytes| bytes.ends_with(b"bodyrest"));
    stage.send(Backend, &mut backend, ACK, REPLY);
    stage.read(Client, &mut client, |bytes| bytes.ends_with(b"ok"));
}

/// `timeouts.backendRequest` of a request holds whatever becomes of its tables.
#[test]
fn timeouts_outlive_the_tables_that_said_them() {
    let options = GatewayOptions { backend_timeout: Some(secs(2)), ..GatewayOptions::default() };
    let mut stage = Stage::new(&options);
    let mut client = stage.connect(4000);
    stage.send(Client, &mut client, ACK, GET);
    let mut backend = stage.accept();
    stage.head(Backend, &mut backend);
    wear_out(&mut stage, &[address(9)]);
    let late = stage.world.run_until(secs(3), |world| world.mid.log.iter().any(|record| record.client.port() == 4000));
    assert!(late, "it is not given up");
    let record = stage.world.mid.log.iter().find(|record| record.client.port() == 4000).unwrap();
    assert_eq!((record.status, record.detail), (504, "request_timeout"));
    assert!((2_000_000_000..2_100_000_000).contains(&record.duration_ns), "{}", record.duration_ns);
}

/// More epochs are in use at a time than tables are held back: all requests are served, and memory is bounded.
#[test]
fn requests_of_many_epochs_run_at_a_time() {
    let mut stage = stage(&[2]);
    let mut ends = Vec::new();
    let epochs = HELD as u64 + 8;
    for epoch in 1..=epochs {
        let mut client = stage.connect(4000 + epoch as u16);
        stage.send(Client, &mut client, ACK, GET);
        let mut backend = stage.accept();
        stage.head(Backend, &mut backend);
        ends.push((client, backend));
        stage.world.mid.publish(epoch + 1, &[address(2)]);
        stage.settle();
        assert!(stage.world.mid.lifecycle.swaps.held() < HELD as u64);
    }
    assert_eq!(stage.world.mid.lifecycle.swaps.held(), HELD as u64 - 1);
    for (mut client, mut backend) in ends {
        stage.send(Backend, &mut backend, ACK, REPLY);
        let reply = stage.read(Client, &mut client, |bytes| bytes.ends_with(b"ok"));
        assert!(reply.starts_with("HTTP/1.1 200 OK"), "{reply}");
        stage.settle();
        stage.world.mid.publisher.reclaim();
    }
    stage.settle();
    assert_eq!(stage.world.mid.lifecycle.swaps.held(), 0);
    assert_eq!(stage.world.mid.publisher.acknowledged(), epochs + 1);
    stage.world.run(secs(1));
    stage.world.mid.assert_sums();
}
