//! What the machine gives to two CPUs that poll, with no wire and no gateway: how long it takes a CPU away at a time, how long a cache line
//! takes from one CPU to the other, and how long a CPU that sleeps takes to wake. No figure over a wire between the two can be better.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cli::Arguments;
use crate::wires;

/// A loop that reads the clock takes less; what takes longer was something else's.
const GAP: Duration = Duration::from_micros(3);

/// How long a line goes to and fro.
const LINE_TIME: Duration = Duration::from_millis(300);

/// Turns between two looks at the clock while a line goes to and fro.
const TURNS: u64 = 1000;

/// How often the other CPU is woken, and how long it sleeps before each: as in the report's `idle-wakes`.
const WAKES: usize = 200;
const SLEEP: Duration = Duration::from_millis(5);

/// What the machine gives.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    /// Of each CPU, while all of them poll.
    cpus: Vec<Stalls>,
    /// Nanoseconds until a value that one CPU wrote is seen by the other.
    line_nanoseconds: f64,
    wake: Wakes,
}

/// How long until a thread runs on the other CPU, which sleeps, that one on the first CPU wakes.
#[derive(Debug, Serialize)]
struct Wakes {
    p50_microseconds: f64,
    p99_microseconds: f64,
}

/// How long a polling CPU was away. Quantiles are over moments: what arrives at a moment drawn at random waits so long.
#[derive(Debug, Serialize)]
struct Stalls {
    cpu: u16,
    seconds: f64,
    /// The share of time that was taken, from 0 to 1.
    taken: f64,
    p99_microseconds: f64,
    p999_microseconds: f64,
    longest_microseconds: f64,
}

/// Measures, and prints what was found.
pub(crate) fn measure(arguments: &Arguments) -> Result<bool, String> {
    let cpus = [arguments.core, arguments.other_core];
    let duration = Duration::from_secs_f64(arguments.duration);
    let stalls = on_both(cpus, |cpu, _| stalls(cpu, duration))?;
    let line = Line::default();
    let [line_nanoseconds, _] = on_both(cpus, |_, first| line.bounce(first))?;
    let machine = Machine { cpus: stalls.into(), line_nanoseconds, wake: Wakes::of(wake(cpus)?) };
    let json = serde_json::to_string_pretty(&machine).map_err(|error| error.to_string())?;
    match arguments.json.as_deref() {
        None | Some("-") => println!("{json}"),
        Some(file) => std::fs::write(file, json).map_err(|error| format!("{file}: {error}"))?,
    }
    Ok(true)
}

/// Does the same on both CPUs at once. `work` gets its CPU, and whether that is the first.
fn on_both<T: Send>(cpus: [u16; 2], work: impl Fn(u16, bool) -> T + Sync) -> Result<[T; 2], String> {
    let pinned = |cpu, first| wires::pin(cpu).map(|()| work(cpu, first));
    thread::scope(|scope| {
        let other = scope.spawn(|| pinned(cpus[1], false));
        let first = scope.spawn(|| pinned(cpus[0], true));
        Ok([ended(first)?, ended(other)?])
    })
}

fn ended<T>(thread: thread::ScopedJoinHandle<'_, Result<T, String>>) -> Result<T, String> {
    thread.join().unwrap_or_else(|_| Err("a measuring thread panicked".to_owned()))
}

/// Wakes the second CPU now and then, and returns how long each wake took.
fn wake(cpus: [u16; 2]) -> Result<Vec<Duration>, String> {
    let (call, calls) = mpsc::channel::<Instant>();
    thread::scope(|scope| {
        let sleeper = scope.spawn(move || {
            wires::pin(cpus[1])?;
            Ok(calls.iter().map(|called| called.elapsed()).collect())
        });
        let caller = scope.spawn(move || {
            wires::pin(cpus[0])?;
            for _ in 0..WAKES {
                let begun = Instant::now();
                while begun.elapsed() < SLEEP {
                    std::hint::spin_loop();
                }
                call.send(Instant::now()).map_err(|_| "the sleeping thread is gone".to_owned())?;
            }
            Ok(())
        });
        let called = ended(caller);
        let woken = ended(sleeper)?;
        called.map(|()| woken)
    })
}

impl Wakes {
    fn of(mut taken: Vec<Duration>) -> Self {
        taken.sort_unstable();
        let microseconds =
            |percent: usize| taken.get(taken.len() * percent / 100).map_or(0.0, |one| one.as_secs_f64() * 1e6);
        Self { p50_microseconds: microseconds(50), p99_microseconds: microseconds(99) }
    }
}

fn stalls(cpu: u16, duration: Duration) -> Stalls {
    let mut gaps = Vec::with_capacity(1 << 16);
    let begun = Instant::now();
    let mut last = begun;
    while last - begun < duration {
        let now = Instant::now();
        if now - last > GAP {
            gaps.push(now - last);
        }
        last = now;
    }
    Stalls::of(cpu, last - begun, gaps)
}

impl Stalls {
    fn of(cpu: u16, lasted: Duration, mut gaps: Vec<Duration>) -> Self {
        gaps.sort_unstable_by(|a, b| b.cmp(a));
        let seconds = lasted.as_secs_f64();
        let microseconds = |quantile: f64| wait(&gaps, seconds * (1.0 - quantile)) * 1e6;
        Self {
            cpu,
            seconds,
            taken: gaps.iter().map(Duration::as_secs_f64).sum::<f64>() / seconds,
            p99_microseconds: microseconds(0.99),
            p999_microseconds: microseconds(0.999),
            longest_microseconds: gaps.first().map_or(0.0, |gap| gap.as_secs_f64() * 1e6),
        }
    }
}

/// The wait that is exceeded at moments that make `rest` seconds together. In a gap of g, moments of g - w wait longer than w.
fn wait(longest_first: &[Duration], rest: f64) -> f64 {
    let mut sum = 0.0;
    for (count, gap) in (1_u32..).zip(longest_first) {
        sum += gap.as_secs_f64();
        let next = longest_first.get(count as usize).map_or(0.0, Duration::as_secs_f64);
        // What the wait would be if shorter gaps had no part in it.
        let wait = (sum - rest) / f64::from(count);
        if wait >= next {
            return wait.max(0.0);
        }
    }
    0.0
}

/// A number in a cache line of its own, which two threads count up in turns.
#[derive(Default)]
#[repr(align(128))]
struct Line {
    count: AtomicU64,
    over: AtomicBool,
}

impl Line {
    /// Counts every second number, and returns nanoseconds from one to the other.
    fn bounce(&self, first: bool) -> f64 {
        let mut next = u64::from(!first);
        let begun = Instant::now();
        loop {
            for _ in 0..TURNS {
                while self.count.load(Ordering::Acquire) != next {
                    if self.over.load(Ordering::Relaxed) {
                        return 0.0;
                    }
                    std::hint::spin_loop();
                }
                self.count.store(next + 1, Ordering::Release);
                next += 2;
            }
            if first && begun.elapsed() > LINE_TIME {
                self.over.store(true, Ordering::Relaxed);
                return begun.elapsed().as_nanos() as f64 / next as f64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_quantiles_over_moments() {
        let gaps = |micros: &[u64]| micros.iter().map(|&us| Duration::from_micros(us)).collect::<Vec<_>>();
        let stalls = |micros: &[u64]| Stalls::of(1, Duration::from_secs(1), gaps(micros));
        // 1 % of a second is 10 ms: half of a gap of 20 ms lies further than 10 ms from its end.
        let one = stalls(&[5, 20_000, 5]);
        assert!((one.p99_microseconds - 10_000.0).abs() < 1.0, "{one:?}");
        assert!((one.p999_microseconds - 19_000.0).abs() < 1.0, "{one:?}");
        assert!((one.longest_microseconds - 20_000.0).abs() < 1.0 && (one.taken - 0.02001).abs() < 1e-6, "{one:?}");
        // Ten gaps of 1 ms are 1 % and no more: all others wait for nothing.
        assert!(stalls(&[1000; 10]).p99_microseconds < 1e-6);
        let twenty = stalls(&[1000; 20]);
        assert!((twenty.p99_microseconds - 500.0).abs() < 1e-3, "{twenty:?}");
        assert!(stalls(&[]).p999_microseconds < 1e-9);
    }

    #[test]
    fn a_cpu_is_woken_as_often_as_it_was_called() {
        let taken = wake([0, 0]).unwrap();
        assert_eq!(taken.len(), WAKES);
        let wakes = Wakes::of((1..=200).rev().map(Duration::from_micros).collect());
        assert!(
            (wakes.p50_microseconds - 101.0).abs() < 1e-6 && (wakes.p99_microseconds - 199.0).abs() < 1e-6,
            "{wakes:?}"
        );
    }

    #[test]
    fn a_line_goes_to_and_fro() {
        let line = Line::default();
        let ends: Vec<f64> = thread::scope(|scope| {
            let ends = [scope.spawn(|| line.bounce(true)), scope.spawn(|| line.bounce(false))];
            ends.map(|end| end.join().unwrap()).into()
        });
        assert!(ends[0] > 1.0 && ends[0] < 1e9 && ends[1] < 1e-9, "{ends:?}");
        assert!(line.count.load(Ordering::Relaxed) >= 2 * TURNS - 1);
    }
}
