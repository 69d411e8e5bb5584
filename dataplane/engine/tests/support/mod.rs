//! What the simulation tests share: virtual time, parties on wires, and the seeds that a run can be replayed from.
//!
//! A [`World`] has one party in the middle and one on each of two wires. Time jumps from event to event; a party that always has
//! something to do, or a timer that never moves on, fails the test.

pub mod appliance;
pub mod client;
pub mod gateway;
pub mod host;
pub mod http;
pub mod script;
pub mod server;

use std::time::Duration;

use engine::clock::Instant;
use pmd::sim::Clock;

/// Turns in which somebody is busy at one moment of virtual time: far more than a full receive ring takes.
const TURNS_A_MOMENT: u32 = 20_000;

/// Moments in a row at which time does not move on although nobody is busy.
const STILL_MOMENTS: u32 = 100;

/// Whoever takes turns.
pub trait Party {
    /// One turn. Returns whether there was anything to do.
    fn turn(&mut self, now: Instant) -> bool;

    /// When something is due, or arrives, at the earliest.
    fn next(&mut self) -> Option<Duration>;
}

/// Nobody.
impl Party for () {
    fn turn(&mut self, _: Instant) -> bool {
        false
    }

    fn next(&mut self) -> Option<Duration> {
        None
    }
}

/// Up to three parties in one virtual time.
pub struct World<M, N, S> {
    pub clock: Clock,
    /// What is tested.
    pub mid: M,
    /// On its first wire.
    pub north: N,
    /// On its second.
    pub south: S,
}

impl<M: Party, N: Party, S: Party> World<M, N, S> {
    pub fn now(&self) -> Instant {
        instant(self.clock.now())
    }

    /// Turns everybody until nobody has anything to do at this moment. Returns when something is due next.
    pub fn settle(&mut self) -> Option<Duration> {
        let now = self.now();
        let mut turns = 0;
        loop {
            let busy = [self.north.turn(now), self.mid.turn(now), self.south.turn(now)];
            if busy == [false; 3] {
                break;
            }
            turns += 1;
            assert!(turns < TURNS_A_MOMENT, "somebody is always busy (north, middle, south): {busy:?} at {now:?}");
        }
        [self.north.next(), self.mid.next(), self.south.next()].into_iter().flatten().min()
    }

    /// Lives for `span` at most, or until `done`. Returns whether it is.
    pub fn run_until(&mut self, span: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.clock.now() + span;
        let mut still = 0;
        loop {
            let next = self.settle();
            if done(self) {
                return true;
            }
            let now = self.clock.now();
            match next {
                Some(next) if next <= end => {
                    still = if next > now { 0 } else { still + 1 };
                    assert!(still < STILL_MOMENTS, "something is due at {next:?}, it is {now:?}, and nobody does it");
                    self.clock.advance_to(next);
                }
                _ if now < end => self.clock.advance_to(end),
                _ => return false,
            }
        }
    }

    /// Lives for `span`.
    pub fn run(&mut self, span: Duration) {
        self.run_until(span, |_| false);
    }
}

pub fn instant(at: Duration) -> Instant {
    Instant(at.as_nanos() as u64)
}

pub const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub const fn us(n: u64) -> Duration {
    Duration::from_micros(n)
}

pub const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Runs `test` for each seed of `seeds`, and says which one failed. `MILLRACE_SIM_SEED` runs that one only, `MILLRACE_SIM_SEEDS` so many of
/// them.
pub fn for_seeds(seeds: core::ops::Range<u64>, mut test: impl FnMut(u64)) {
    struct Tell(u64);
    impl Drop for Tell {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("seed {0}: set MILLRACE_SIM_SEED={0} to replay", self.0);
            }
        }
    }
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seeds = match (number("MILLRACE_SIM_SEED"), number("MILLRACE_SIM_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, Some(count)) => seeds.start..seeds.start + count,
        (None, None) => seeds,
    };
    for seed in seeds {
        let _tell = Tell(seed);
        test(seed);
    }
}
