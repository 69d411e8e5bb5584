//! Connections listed for an operator.

use tables::inspect::ConnectionRow;

use crate::http::Side::{Backend, Client};
use crate::http::Stage;
use crate::support::gateway::GatewayOptions;
use crate::support::ms;
use crate::support::script::ACK;

fn listed(stage: &mut Stage) -> Vec<ConnectionRow> {
    let lifecycle = std::sync::Arc::clone(&stage.world.mid.lifecycle);
    let ticket = lifecycle.connections.ask();
    let mut rows = Vec::new();
    for _ in 0..100 {
        stage.world.run(ms(10));
        rows.extend(core::iter::from_fn(|| lifecycle.connections.next(ticket)));
        if lifecycle.connections.is_answered(ticket) {
            rows.extend(core::iter::from_fn(|| lifecycle.connections.next(ticket)));
            rows.sort_by_key(|row| (row.role, row.remote.port()));
            return rows;
        }
    }
    panic!("no answer");
}

#[test]
fn both_legs_show_what_they_are_at() {
    let mut stage = Stage::new(&GatewayOptions::default());
    assert!(listed(&mut stage).is_empty());
    let mut idle = stage.connect(4001);
    let mut busy = stage.connect(4000);
    stage.send(Client, &mut busy, ACK, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut backend = stage.accept();
    stage.head(Backend, &mut backend);
    stage.send(Client, &mut idle, ACK, b"GET / HT");
    stage.world.run(ms(1500));
    let rows = listed(&mut stage);
    let brief: Vec<_> = rows.iter().map(|r| (r.role, r.doing, r.state, r.remote.port())).collect();
    assert_eq!(
        brief,
        [
            ("client", "request", "established", 4000),
            ("client", "head", "established", 4001),
            ("upstream", "serving", "established", 8080),
        ]
    );
    let [client, head, upstream] = rows.as_slice() else { panic!() };
    assert_eq!(client.other, Some(upstream.remote));
    assert_eq!(upstream.other, Some(client.remote));
    assert_eq!(head.unread, 8);
    let age = client.age.unwrap();
    assert!((1_500_000_000..3_000_000_000).contains(&age) && client.request_age.unwrap() <= age, "{client:?}");

    stage.send(Backend, &mut backend, ACK, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    stage.read(Client, &mut busy, |bytes| bytes.ends_with(b"ok"));
    let rows = listed(&mut stage);
    let brief: Vec<_> = rows.iter().map(|r| (r.role, r.doing, r.other)).collect();
    assert_eq!(brief[0], ("client", "idle", None));
    assert_eq!(brief[2], ("upstream", "idle", None));
}

/// More connections than rows that wait: the core waits for the reader, serves on, and forgets a reader that went away.
#[test]
fn a_reader_that_is_slow_or_gone_holds_nothing_up() {
    let mut stage = Stage::new(&GatewayOptions::default());
    for port in 5000..7000 {
        stage.connect(port);
    }
    let lifecycle = std::sync::Arc::clone(&stage.world.mid.lifecycle);
    let gone = lifecycle.connections.ask();
    stage.world.run(ms(100));
    assert!(!lifecycle.connections.is_answered(gone));
    assert_eq!(listed(&mut stage).len(), 2000);
}
