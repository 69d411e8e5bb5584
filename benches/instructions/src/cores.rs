//! What a second core is worth: whole cores between clients and backends in memory, one a thread, which share what the cores of an appliance share (tables,
//! leases, counters that control reads) and neither a wire nor a generator that would be the limit.
//!
//! `instructions time cores`. Each thread plays the clients and backends of its core, too; so as many CPUs as cores do. Two CPUs that share a physical core, caches or
//! a hypervisor's favour have less than twice the rate of one whatever they run. So there is a third part: two cores that share nothing at all.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use crate::gateway::{Gateway, Seat, seats};
use crate::heads::{NGINX, WRK};

/// Connections of a core, whose requests come in bursts.
const CONNECTIONS: usize = 32;

/// Bursts between two looks at the clock.
const BURSTS: usize = 16;

/// How long a part lasts. The parts take turns, so that all see the same machine.
const PART: Duration = Duration::from_millis(300);

/// Rounds of the parts; odd, for the median.
const ROUNDS: usize = 11;

/// Prints the rates of one core, of two, and of two that share nothing, and what the second one is worth: medians of the rounds' ratios.
pub(crate) fn time() {
    let parts: [fn() -> Vec<Seat>; 3] =
        [|| seats(1), || seats(2), || [seats(1), seats(1)].into_iter().flatten().collect()];
    let mut rounds = Vec::new();
    for round in 0..ROUNDS {
        let mut rates = [0.0; 3];
        for part in 0..parts.len() {
            let part = (part + round) % parts.len();
            rates[part] = rate(parts[part]());
        }
        rounds.push(rates);
    }
    let median = |of: fn(&[f64; 3]) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[ROUNDS / 2]
    };
    println!(
        "one core {:.0} requests/s, two cores {:.0}, two that share nothing {:.0}: {:.3} times the rate of one, {:.3} times that of two that share nothing",
        median(|rates| rates[0]),
        median(|rates| rates[1]),
        median(|rates| rates[2]),
        median(|rates| rates[1] / rates[0]),
        median(|rates| rates[1] / rates[2]),
    );
}

/// Bursts of requests on a core's connections, again and again; how many at a time.
fn requests(seat: Seat) -> impl FnMut() -> usize {
    let mut gateway = Gateway::on(seat, WRK, NGINX);
    // One by one until all neighbors are known: few packets wait for one that is not. None rests: its last answer would be sent again.
    let ports = [1, 1, CONNECTIONS - 2].map(|more| gateway.connect(more)).concat();
    move || {
        for _ in 0..BURSTS {
            gateway.exchange(&ports);
        }
        gateway.check();
        BURSTS * CONNECTIONS
    }
}

/// Requests a second of all these cores together.
fn rate(seats: Vec<Seat>) -> f64 {
    let barrier = Barrier::new(seats.len());
    std::thread::scope(|scope| {
        let thread = |seat| {
            let barrier = &barrier;
            scope.spawn(move || {
                let mut work = requests(seat);
                barrier.wait();
                let (start, mut done) = (Instant::now(), 0);
                while start.elapsed() < PART {
                    done += work();
                }
                done as f64 / start.elapsed().as_secs_f64()
            })
        };
        let threads: Vec<_> = seats.into_iter().map(thread).collect();
        threads.into_iter().map(|thread| thread.join().expect("it does not panic")).sum()
    })
}
