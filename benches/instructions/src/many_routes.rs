//! What many routes cost in time: a core that has ten of them, and one with ten thousand, in turns on one thread.
//!
//! `instructions time routes`. Ten thousand routes need no more instructions than ten, but lines of memory that are in no cache when each is asked
//! for once in a while. A CPU that nobody else uses is wanted.

use std::time::Duration;

use crate::gateway::Gateway;
use crate::heads::NGINX;

/// How many routes are compared.
const FEW: u32 = 10;
const MANY: u32 = 10_000;

/// Connections that ask together.
const CONNECTIONS: usize = 64;

/// Requests of a stretch, the first of which are not counted: the other core's lines are in the caches.
const STRETCH: u32 = 40_000;
const UNCOUNTED: u32 = 10_000;

/// Stretches of each core.
const STRETCHES: usize = 15;

/// Prints the time of a request in either core, for routes asked for in their order and in none.
pub(crate) fn time() {
    for (name, step) in [("in turn", 1), ("scattered", 7919)] {
        let mut cores = [FEW, MANY].map(|routes| core(routes, step));
        let mut each = [const { Vec::new() }; 2];
        for stretch in 0..STRETCHES {
            for at in if stretch % 2 == 0 { [0, 1] } else { [1, 0] } {
                let (gateway, ports) = &mut cores[at];
                run(gateway, ports, UNCOUNTED);
                each[at].push(run(gateway, ports, STRETCH - UNCOUNTED));
            }
        }
        let mut ratios: Vec<f64> = each[0].iter().zip(&each[1]).map(|(few, many)| many / few).collect();
        let [few, many] = each.each_mut().map(|each| median(each));
        println!(
            "{name}: {few:.0} ns a request with {FEW} routes, {many:.0} ns with {MANY}: {:.0} ns more, {:.3} of the time (median of {STRETCHES} pairs)",
            many - few,
            median(&mut ratios)
        );
    }
}

fn core(routes: u32, step: u32) -> (Gateway, Vec<u16>) {
    let request = |number: u32| {
        let route = number * step % routes;
        let head = format!("GET /n/r{route:05}/0123456789abcdef HTTP/1.1\r\nHost: gateway.test\r\n\r\n");
        &*Vec::leak(head.into_bytes())
    };
    let mut gateway = Gateway::routing(routes, Vec::leak((0..routes).map(request).collect()), NGINX);
    // One by one until all neighbors are known: few packets wait for one that is not. Each has to ask again and again: nothing else acknowledges
    // its replies.
    let ports = [1, 1, CONNECTIONS - 2].into_iter().flat_map(|more| gateway.connect(more)).collect();
    (gateway, ports)
}

/// Nanoseconds a request.
fn run(gateway: &mut Gateway, ports: &[u16], requests: u32) -> f64 {
    let before = gateway.spent();
    let rounds = requests / CONNECTIONS as u32;
    for _ in 0..rounds {
        gateway.exchange(ports);
    }
    gateway.check();
    let spent: Duration = gateway.spent() - before;
    spent.as_nanos() as f64 / f64::from(rounds * CONNECTIONS as u32)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
