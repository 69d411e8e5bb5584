//! Clients, the gateway and backends, all with Millrace's TCP.

use crate::support::client::{Clients, Plan, Request};
use crate::support::gateway::{Gateway, GatewayOptions, world};
use crate::support::host::Host;
use crate::support::server::Server;
use crate::support::{World, secs};

type Sim = World<Gateway, Host<Clients>, Host<Server>>;

fn sim(options: &GatewayOptions, clients: Clients) -> Sim {
    let backends = ["10.9.2.2/24", "10.9.2.3/24", "10.9.2.4/24"];
    world(
        options,
        |lane| Host::new(lane, &["10.9.1.2/24"], &options.tcp, options.seed ^ 1, clients),
        |lane| {
            let mut host = Host::new(lane, &backends, &options.tcp, options.seed ^ 2, Server::default());
            host.listening = vec![8080];
            host
        },
    )
}

#[test]
fn a_request_goes_through_the_whole_core() {
    let plan = Plan::new([Request::get("get", 1000, 5)]);
    let mut sim = sim(&GatewayOptions::default(), Clients::new([plan], 1));
    assert!(sim.run_until(secs(5), |sim| sim.north.app.is_done()));
    assert!(sim.north.app.done[0].good, "{:?}", sim.north.app.done);
    sim.run(secs(100));
    sim.mid.assert_empty();
    sim.north.assert_empty();
    sim.south.assert_empty();
}
