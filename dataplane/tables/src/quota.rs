//! Limits per endpoint that hold for the whole appliance: its connections, and those of them that are kept idle.
//!
//! As with [`crate::lease`], a core takes units in advance, a batch at a time, so that it seldom touches what all cores write; but there are as many budgets as
//! endpoints, and what they allow changes with the configuration. So the shared number counts what is out, and how much that may be is said with
//! each call ([`Allowance`]).
//!
//! Each core has one unit of its own besides, which it need not ask for: however much one core takes, no other is without a connection. The rest is for whoever
//! comes first. No more units than allowed are ever out; where fewer are allowed than there are cores, each has its one all the same.
//! A core may be refused early, while each other one leaves its own unit unused, and [`Allowance::slack`] borrowed ones together.

use core::sync::atomic::Ordering;
use std::sync::OnceLock;

use crate::cluster::EndpointId;
use crate::sync::{Arc, AtomicU64};

/// Units borrowed at a time, at most.
const BATCH: u64 = 64;

/// Of a budget, a core borrows no more at a time than this part of what would be its own if all had the same.
const PARTS: u64 = 16;

/// Tries to change a shared number that others change too. Losing that often is as good as finding nothing.
const TRIES: usize = 16;

/// Endpoints of the first chunk, as a power of two; each chunk has twice as many as the one before.
const FIRST: u32 = 6;

/// Chunks: enough for all numbers of endpoints.
const CHUNKS: usize = (u32::BITS - FIRST + 1) as usize;

/// How much of something each endpoint may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    limit: u64,
    cores: u64,
    /// What may be borrowed: all but the cores' own units.
    shared: u64,
    batch: u64,
}

impl Allowance {
    /// `limit` units for `cores` cores together.
    #[must_use]
    pub fn new(limit: u32, cores: u16) -> Self {
        let (limit, cores) = (u64::from(limit), u64::from(cores.max(1)));
        let shared = limit.saturating_sub(cores);
        Self { limit, cores, shared, batch: (shared / cores / PARTS).clamp(1, BATCH) }
    }

    /// Borrowed units that others may hold unused while a core is refused.
    #[must_use]
    pub fn slack(&self) -> u64 {
        (self.cores - 1) * (2 * self.batch - 1)
    }
}

/// What cores have borrowed of one thing's units. A cache line of its own: others belong to other endpoints.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Lent {
    connections: Count,
    idle: Count,
}

/// Units that are out.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

/// What the cores share: for each endpoint, what is lent.
#[derive(Debug, Clone)]
pub struct Quotas(Arc<[OnceLock<Box<[Lent]>>; CHUNKS]>);

impl Default for Quotas {
    fn default() -> Self {
        Self::new()
    }
}

impl Quotas {
    /// With nothing lent.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new([const { OnceLock::new() }; CHUNKS]))
    }

    /// What is lent of an endpoint's. The first core that asks for one of a chunk makes it.
    #[must_use]
    pub fn of(&self, endpoint: EndpointId) -> Option<&Lent> {
        // Chunk n begins at (2^n - 1) << FIRST.
        let at = u64::from(endpoint.0) + (1 << FIRST);
        let level = at.ilog2();
        let chunk = self.0.get((level - FIRST) as usize)?;
        let entries = chunk.get_or_init(|| (0..1u64 << level).map(|_| Lent::default()).collect());
        entries.get(usize::try_from(at - (1 << level)).ok()?)
    }
}

impl Lent {
    /// Of its connections.
    #[must_use]
    pub fn connections(&self) -> &Count {
        &self.connections
    }

    /// Of its idle connections.
    #[must_use]
    pub fn idle(&self) -> &Count {
        &self.idle
    }
}

impl Count {
    /// Units that are out.
    #[must_use]
    pub fn lent(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Borrows a batch, or what is left of one.
    #[cold]
    fn borrow(&self, allowance: &Allowance) -> u64 {
        let mut lent = self.0.load(Ordering::Relaxed);
        for _ in 0..TRIES {
            let more = allowance.shared.saturating_sub(lent).min(allowance.batch);
            if more == 0 {
                return 0;
            }
            // Units say nothing about other memory, so that no order is needed.
            match self.0.compare_exchange_weak(lent, lent + more, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return more,
                Err(now) => lent = now,
            }
        }
        0
    }

    #[cold]
    fn give_back(&self, units: u64) {
        self.0.fetch_sub(units, Ordering::Relaxed);
    }
}

/// What one core has borrowed of one count. Its owner keeps account of what it uses.
#[derive(Debug, Default)]
pub struct Borrowed(u64);

impl Borrowed {
    /// Whether one more unit may be taken into use beside the `used` ones. Asks the others for more units only where this core has none left.
    #[inline]
    #[must_use]
    pub fn allows<'c>(&mut self, used: u64, allowance: &Allowance, count: impl FnOnce() -> Option<&'c Count>) -> bool {
        if used <= self.0 {
            // Its own, or one of those that it has.
            return allowance.limit > 0;
        }
        let more = if allowance.limit > 0 { count().map_or(0, |count| count.borrow(allowance)) } else { 0 };
        self.0 += more;
        more > 0
    }

    /// To be called when one unit fewer is used: `used` are left. Gives back what there is too much of.
    #[inline]
    pub fn settle<'c>(&mut self, used: u64, allowance: &Allowance, count: impl FnOnce() -> Option<&'c Count>) {
        // Of the borrowed ones: its own is used first. Some stay, so that who goes up and down asks seldom.
        let unused = (self.0 + 1).saturating_sub(used.max(1));
        if unused >= 2 * allowance.batch {
            self.return_units(unused - allowance.batch, count);
        }
    }

    /// To be called when the core is done with this count: all goes back.
    pub fn end<'c>(&mut self, count: impl FnOnce() -> Option<&'c Count>) {
        if self.0 > 0 {
            self.return_units(self.0, count);
        }
    }

    fn return_units<'c>(&mut self, units: u64, count: impl FnOnce() -> Option<&'c Count>) {
        self.0 -= units;
        if let Some(count) = count() {
            count.give_back(units);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const ENDPOINT: EndpointId = EndpointId(3);

    fn count(quotas: &Quotas) -> Option<&Count> {
        quotas.of(ENDPOINT).map(Lent::connections)
    }

    #[test]
    fn a_limit_is_never_exceeded_and_one_core_gets_what_others_leave() {
        for (cores, limit) in [(1u16, 5u32), (2, 10), (2, 2), (4, 1000), (8, 64), (8, 16_384)] {
            let (quotas, allowance) = (Quotas::new(), Allowance::new(limit, cores));
            let mut borrowed: Vec<Borrowed> = (0..cores).map(|_| Borrowed::default()).collect();
            let mut used = vec![0u64; cores.into()];
            let mut state = u64::from(limit);
            let mut random = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) as usize
            };
            for step in 0..200_000 {
                // Now one core wants it all, now another.
                let favourite = (step / 20_000) % used.len();
                let which = if random() % 10 < 8 { favourite } else { random() % used.len() };
                let sum: u64 = used.iter().sum();
                if random() % 100 < 60 {
                    if borrowed[which].allows(used[which], &allowance, || count(&quotas)) {
                        used[which] += 1;
                        assert!(sum < u64::from(limit), "{sum} of {limit} were out");
                    } else {
                        let own = (0..used.len()).filter(|&core| core != which && used[core] == 0).count() as u64;
                        assert!(sum + own + allowance.slack() >= u64::from(limit), "refused at {sum} of {limit}");
                    }
                } else if used[which] > 0 {
                    used[which] -= 1;
                    borrowed[which].settle(used[which], &allowance, || count(&quotas));
                }
            }
            borrowed.iter_mut().for_each(|one| one.end(|| count(&quotas)));
            assert_eq!(count(&quotas).unwrap().lent(), 0);
        }
    }

    #[test]
    fn alone_a_core_gets_exactly_the_limit_and_none_where_it_is_none() {
        for limit in [0, 1, 3] {
            let (quotas, allowance, mut borrowed) = (Quotas::new(), Allowance::new(limit, 1), Borrowed::default());
            let got = (0..10).take_while(|&used| borrowed.allows(used, &allowance, || count(&quotas))).count();
            assert_eq!(got, limit as usize);
        }
    }

    #[test]
    fn each_core_has_its_one_whatever_the_others_took() {
        let (quotas, allowance) = (Quotas::new(), Allowance::new(20, 4));
        let mut greedy = Borrowed::default();
        let got = (0..100).take_while(|&used| greedy.allows(used, &allowance, || count(&quotas))).count();
        assert_eq!(got, 17, "all but the others' own");
        for mut other in [Borrowed::default(), Borrowed::default(), Borrowed::default()] {
            assert!(other.allows(0, &allowance, || count(&quotas)));
            assert!(!other.allows(1, &allowance, || count(&quotas)));
        }
        // With fewer than one each, they still have one each.
        let allowance = Allowance::new(2, 4);
        assert!(Borrowed::default().allows(0, &allowance, || count(&quotas)));
    }

    #[test]
    fn a_limit_that_shrinks_takes_effect_as_units_come_back() {
        let (quotas, much, little) = (Quotas::new(), Allowance::new(100, 2), Allowance::new(10, 2));
        let mut borrowed = Borrowed::default();
        let mut used = (0..60).take_while(|&used| borrowed.allows(used, &much, || count(&quotas))).count() as u64;
        assert_eq!(used, 60);
        let mut other = Borrowed::default();
        assert!(other.allows(0, &little, || count(&quotas)) && !other.allows(1, &little, || count(&quotas)));
        while used > 5 {
            used -= 1;
            borrowed.settle(used, &little, || count(&quotas));
        }
        assert!(other.allows(1, &little, || count(&quotas)));
        assert!(count(&quotas).unwrap().lent() <= 8);
    }

    #[test]
    fn every_endpoint_has_its_own() {
        let quotas = Quotas::new();
        let ids = [0, 1, 63, 64, 191, 192, 447, 448, 100_000];
        for (at, id) in ids.into_iter().enumerate() {
            quotas.of(EndpointId(id)).unwrap().idle().0.store(at as u64 + 1, Ordering::Relaxed);
        }
        let found = ids.map(|id| quotas.of(EndpointId(id)).unwrap().idle().lent());
        assert_eq!(found, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(quotas.of(EndpointId(2)).unwrap().idle().lent(), 0);
    }
}
