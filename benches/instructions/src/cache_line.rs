//! How long a cache line takes from one CPU to another one and back.
//!
//! `instructions time cache-line`. On a virtual machine that depends on where the host runs the two CPUs at the moment: on one core, on one socket, or on two. What
//! is measured between two polling threads depends on it as much, so that benches/reflect.py asks before and after.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Round trips that are timed, and those before, until both threads run.
const TRIPS: u64 = 200_000;
const FIRST: u64 = 2_000;

/// A cache line of its own, and the one beside it.
#[derive(Default)]
#[repr(align(128))]
struct Line(AtomicU64);

/// Prints the time of a round trip.
pub(crate) fn time() {
    let lines: Arc<[Line; 2]> = Arc::default();
    let theirs = Arc::clone(&lines);
    let other = std::thread::spawn(move || {
        let [ping, pong] = &*theirs;
        let mut seen = 0;
        while seen < FIRST + TRIPS {
            let now = ping.0.load(Ordering::Acquire);
            if now > seen {
                seen = now;
                pong.0.store(now, Ordering::Release);
            }
        }
    });
    let [ping, pong] = &*lines;
    let mut began = Instant::now();
    for trip in 1..=FIRST + TRIPS {
        ping.0.store(trip, Ordering::Release);
        while pong.0.load(Ordering::Acquire) < trip {
            std::hint::spin_loop();
        }
        if trip == FIRST {
            began = Instant::now();
        }
    }
    println!("{:.0} ns", began.elapsed().as_nanos() as f64 / TRIPS as f64);
    other.join().expect("it does not panic");
}
