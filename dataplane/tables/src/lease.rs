//! Limits that hold for the whole appliance, without a cache line that all cores write for every connection.
//!
//! What may be had lies in a budget that the cores share. Each core has a lease: a few units in advance, taken from the budget a batch
//! at a time, so that it touches the shared line once a batch.
//!
//! - A [`Budget`] counts what is there at a time, connections say. It is never exceeded: no more units are out than there are. A core may be
//!   refused a little early, while others hold units that they do not use: at most [`Budget::slack`], none with one core.
//! - A [`Rate`] counts what happens in time. In any span of time no more than `rate × span + burst +` [`Rate::slack`] happen.
//!
//! A lease belongs to one core, which asks it; dropping it gives everything back. Nothing here waits or allocates.

use core::sync::atomic::Ordering;

use crate::sync::{Arc, AtomicU64};

/// Units taken from a budget at a time, at most.
const BATCH: u64 = 64;

/// Of a budget, a core takes no more at a time than this part of what would be its own if all had the same.
const PARTS: u64 = 16;

/// Tries to change a shared number that others change too. Losing that often is as good as finding nothing.
const TRIES: usize = 16;

/// How long tokens that were taken from a rate are good for, in nanoseconds: what is not used meanwhile is lost, so that nobody saves it up.
const TOKEN_LIFE: u64 = 10_000_000;

/// So many units of something for all cores together.
#[derive(Debug, Clone)]
pub struct Budget {
    left: Arc<Line>,
    batch: u64,
    cores: u64,
}

/// A cache line of its own, and the one beside it, which x86 fetches along.
#[derive(Debug)]
#[repr(align(128))]
struct Line(AtomicU64);

/// One core's lease of a budget.
#[derive(Debug)]
pub struct Lease {
    budget: Budget,
    /// Units in hand; below zero where more were taken than there are, see [`Lease::take_anyway`].
    held: i64,
    /// Units in use.
    used: u64,
}

impl Budget {
    /// `limit` units for `cores` cores.
    #[must_use]
    pub fn new(limit: u64, cores: u16) -> Self {
        let cores = u64::from(cores.max(1));
        // Alone, a core takes them all at once.
        let batch = if cores == 1 { limit.max(1) } else { (limit / cores / PARTS).clamp(1, BATCH) };
        Self { left: Arc::new(Line(AtomicU64::new(limit))), batch, cores }
    }

    /// A lease for one core. There should be as many as there are cores, and no more.
    #[must_use]
    pub fn lease(&self) -> Lease {
        Lease { budget: self.clone(), held: 0, used: 0 }
    }

    /// Units that others may hold unused while a core is refused.
    #[must_use]
    pub fn slack(&self) -> u64 {
        (self.cores - 1) * (2 * self.batch - 1)
    }

    /// Takes a batch, or what is left of one.
    #[cold]
    fn borrow(&self) -> u64 {
        let mut left = self.left.0.load(Ordering::Relaxed);
        for _ in 0..TRIES {
            let batch = left.min(self.batch);
            if batch == 0 {
                return 0;
            }
            // Units say nothing about other memory, so that no order is needed.
            match self.left.0.compare_exchange_weak(left, left - batch, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return batch,
                Err(now) => left = now,
            }
        }
        0
    }

    fn give_back(&self, units: u64) {
        self.left.0.fetch_add(units, Ordering::Relaxed);
    }
}

impl Lease {
    /// Takes a unit into use. `false` where none is to be had.
    #[inline]
    #[must_use]
    pub fn take(&mut self) -> bool {
        if self.held <= 0 {
            // A batch is small.
            self.held += self.budget.borrow() as i64;
            if self.held <= 0 {
                return false;
            }
        }
        self.held -= 1;
        self.used += 1;
        true
    }

    /// Takes a unit into use, whether there is one or not: the limit is exceeded by it until it is put back, or another one is.
    pub fn take_anyway(&mut self) {
        if !self.take() {
            self.held -= 1;
            self.used += 1;
        }
    }

    /// A unit is no longer in use.
    #[inline]
    pub fn put(&mut self) {
        self.used = self.used.saturating_sub(1);
        self.held += 1;
        let most = 2 * self.budget.batch as i64;
        if self.held >= most {
            let surplus = self.held - self.budget.batch as i64;
            self.held -= surplus;
            self.budget.give_back(surplus as u64);
        }
    }

    /// Units in use by this core.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // What was taken beyond the limit never came from the budget.
        self.budget.give_back(u64::try_from(self.held + self.used as i64).unwrap_or(0));
    }
}

/// So many of something a second for all cores together: a token bucket.
#[derive(Debug, Clone)]
pub struct Rate {
    /// The moment, in nanoseconds, up to which all tokens that were earned were given out.
    spent: Arc<Line>,
    /// Nanoseconds to earn a token.
    interval: u64,
    /// Nanoseconds' worth of tokens that are saved up.
    depth: u64,
    batch: u64,
    cores: u64,
}

/// One core's lease of a rate.
#[derive(Debug)]
pub struct RateLease {
    rate: Rate,
    held: u64,
    /// When the tokens in hand are no longer good.
    until: u64,
}

impl Rate {
    /// `per_second` tokens a second for `cores` cores, of which `burst` are saved up. The time to earn one is kept in whole nanoseconds.
    #[must_use]
    pub fn new(per_second: u64, burst: u64, cores: u16) -> Self {
        let interval = (1_000_000_000 / per_second.max(1)).max(1);
        let cores = u64::from(cores.max(1));
        // Not more than the rate's part of a millisecond.
        let batch = (per_second / 1000 / cores).clamp(1, BATCH);
        let depth = interval.saturating_mul(burst.max(1));
        Self { spent: Arc::new(Line(AtomicU64::new(0))), interval, depth, batch, cores }
    }

    /// A lease for one core.
    #[must_use]
    pub fn lease(&self) -> RateLease {
        RateLease { rate: self.clone(), held: 0, until: 0 }
    }

    /// Tokens that cores may use later than they were earned.
    #[must_use]
    pub fn slack(&self) -> u64 {
        self.cores * (self.batch - 1)
    }

    #[cold]
    fn borrow(&self, now: u64) -> u64 {
        let mut spent = self.spent.0.load(Ordering::Relaxed);
        for _ in 0..TRIES {
            let from = spent.max(now.saturating_sub(self.depth));
            let earned = (now.saturating_sub(from) / self.interval).min(self.batch);
            if earned == 0 {
                return 0;
            }
            let to = from + earned * self.interval;
            match self.spent.0.compare_exchange_weak(spent, to, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return earned,
                Err(changed) => spent = changed,
            }
        }
        0
    }
}

impl RateLease {
    /// Takes a token at `now`, in nanoseconds of a clock that all cores read alike. `false` where the rate is used up.
    #[inline]
    #[must_use]
    pub fn take(&mut self, now: u64) -> bool {
        if self.held == 0 || now >= self.until {
            self.held = self.rate.borrow(now);
            self.until = now.saturating_add(TOKEN_LIFE);
        }
        let any = self.held > 0;
        self.held -= u64::from(any);
        any
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// SplitMix64.
    fn random(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z ^ (z >> 27)
    }

    #[test]
    fn a_limit_is_never_exceeded_and_nearly_reached_however_uneven() {
        for (cores, limit) in [(1u16, 10u64), (2, 10), (4, 1000), (8, 64), (8, 100_000)] {
            let budget = Budget::new(limit, cores);
            let mut leases: Vec<Lease> = (0..cores).map(|_| budget.lease()).collect();
            let mut state = limit;
            for step in 0..200_000u64 {
                // Now one core wants it all, now another, now all of them.
                let favourite = (step / 20_000) as usize % leases.len();
                let which =
                    if random(&mut state) % 10 < 8 { favourite } else { random(&mut state) as usize % leases.len() };
                let used: u64 = leases.iter().map(Lease::used).sum();
                if random(&mut state) % 100 < 60 {
                    if leases[which].take() {
                        assert!(used < limit, "{used} of {limit} were out");
                    } else {
                        assert!(used + budget.slack() >= limit, "refused at {used} of {limit}");
                    }
                } else if leases[which].used() > 0 {
                    leases[which].put();
                }
            }
            drop(leases);
            assert_eq!(budget.left.0.load(Ordering::Relaxed), limit);
        }
    }

    #[test]
    fn alone_a_core_gets_exactly_the_limit() {
        let mut lease = Budget::new(3, 1).lease();
        assert!(lease.take() && lease.take() && lease.take() && !lease.take());
        lease.put();
        assert!(lease.take() && !lease.take());
    }

    #[test]
    fn what_is_taken_anyway_is_missed_later() {
        let budget = Budget::new(2, 2);
        let mut lease = budget.lease();
        assert!(lease.take() && lease.take());
        lease.take_anyway();
        assert_eq!(lease.used(), 3);
        lease.put();
        assert!(!lease.take());
        lease.put();
        assert!(lease.take());
        drop(lease);
        assert_eq!(budget.left.0.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_core_that_is_gone_gives_back_what_it_used() {
        let budget = Budget::new(1000, 4);
        let mut lease = budget.lease();
        assert!((0..100).all(|_| lease.take()));
        drop(lease);
        assert_eq!(budget.left.0.load(Ordering::Relaxed), 1000);
    }

    #[test]
    fn a_rate_holds_in_every_span_however_uneven() {
        for (per_second, burst, cores) in [(1000u64, 10u64, 4u16), (100_000, 100, 8), (10, 1, 2), (1_000_000, 1, 1)] {
            let rate = Rate::new(per_second, burst, cores);
            let mut leases: Vec<RateLease> = (0..cores).map(|_| rate.lease()).collect();
            let mut state = per_second;
            let (mut now, mut taken) = (1_000_000_000u64, Vec::new());
            let step = 200_000_000 / per_second.min(1_000_000);
            for turn in 0..100_000u64 {
                now += random(&mut state) % step;
                let favourite = (turn / 5_000) as usize % leases.len();
                let which = if turn % 5 > 0 { favourite } else { random(&mut state) as usize % leases.len() };
                if leases[which].take(now) {
                    taken.push(now);
                }
            }
            let allowed = |span: u64| span / rate.interval + 1 + burst + rate.slack();
            for first in (0..taken.len()).step_by(97) {
                for last in (first..taken.len()).step_by(89) {
                    let (count, span) = ((last - first + 1) as u64, taken[last] - taken[first]);
                    assert!(count <= allowed(span), "{count} in {span} ns at {per_second} a second");
                }
            }
            let span = now - 1_000_000_000;
            assert!(taken.len() as u64 >= span / rate.interval * 9 / 10, "{} in {span} ns", taken.len());
        }
    }
}
