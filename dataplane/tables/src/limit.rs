//! Rate limits of requests that hold for the whole appliance: generic cell rates (GCRA, ITU-T I.371 Annex A) by key.
//!
//! Each key has a bucket of two words, which all cores share: a keyed hash, and the moment up to which everything that was earned was given out. Earned
//! is a request every [`LimitRate::interval`], and what was not used within [`LimitRate::depth`] is lost. Cores take a batch at a time
//! ([`LimitLeases`]), so that they write a bucket of a busy key once a batch; limits below a thousand requests a second and core take one
//! at a time and are exact. In any span no more than `span / interval + burst + cores × (batch − 1)` requests of a key pass.
//!
//! The table never grows. A key that finds its set full takes the place of the one that used the least of its allowance lately, **and goes on with
//! that one's bucket** (as in the Space-Saving sketch of Metwally et al.): so nobody gets a fresh allowance by pushing out his own key. What a key
//! loses by that is bounded by what the other one had used.

use core::fmt;
use core::sync::atomic::Ordering;
use std::sync::Arc;

use siphasher::sip::SipHasher13;

use crate::counters::Counter;
use crate::sync::{AtomicU64, fence};

/// Requests taken from a bucket at a time, at most.
const BATCH: u64 = 64;

/// Buckets that a key may be kept in: two cache lines.
const WAYS: usize = 8;

/// Tries to change a bucket that others change too. Losing that often is as good as finding nothing.
const TRIES: usize = 16;

/// Keys of one limit that a core holds batches of.
const HELD: usize = 256;

/// How long a batch is good for, in nanoseconds: what is not used meanwhile goes back.
const HELD_LIFE: u64 = 10_000_000;

/// Time zero of buckets: far enough in the past of [`now`](LimitLeases::take)'s zero for the deepest of them to be full then.
const ZERO: u64 = 1 << 62;

/// Position of a limit in its snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LimitId(pub u32);

/// One limit.
#[derive(Debug, Clone)]
pub struct Limit {
    /// `namespace/policy/rule`.
    pub name: Arc<str>,
    /// What it is attached to: `HTTPRoute/namespace/name`, with the rule's or listener's name behind it where only that is meant.
    pub target: Arc<str>,
    /// What its requests are told apart by.
    pub by: LimitKey,
    /// How many may pass.
    pub rate: LimitRate,
    /// The value of `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers §3).
    pub policy_field: Box<str>,
    /// The value of `RateLimit` up to the number of seconds.
    pub limit_field: Box<str>,
    /// Its buckets, which later snapshots go on with.
    pub keys: Arc<KeyTable>,
}

/// What requests are told apart by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LimitKey {
    /// Nothing.
    All,
    /// The client's network.
    Source {
        /// Bits of an IPv4 address that count.
        ipv4_prefix: u8,
        /// Bits of an IPv6 address that count.
        ipv6_prefix: u8,
    },
    /// The value of the first header field of this name, in lower case.
    Header(Box<str>),
    /// The value of the first cookie of this name.
    Cookie(Box<str>),
}

/// How many requests may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitRate {
    /// Nanoseconds to earn one, rounded up.
    pub interval: u64,
    /// Nanoseconds' worth that is saved up.
    pub depth: u64,
    /// Requests that a core takes at a time.
    pub batch: u64,
}

impl LimitRate {
    /// `requests` in `seconds`, of which `burst` are saved up, for `cores` cores.
    #[must_use]
    pub fn new(requests: u32, seconds: u32, burst: u32, cores: u16) -> Self {
        let (requests, seconds) = (u64::from(requests.max(1)), u64::from(seconds.max(1)));
        let interval = (seconds * 1_000_000_000).div_ceil(requests);
        let cores = u64::from(cores.max(1));
        // Not more than the rate's part of a millisecond. Alone, a core shares with nobody.
        let batch = if cores == 1 { 1 } else { (requests / seconds / 1000 / cores).clamp(1, BATCH) };
        Self { interval, depth: interval.saturating_mul(u64::from(burst.max(1))).min(ZERO), batch }
    }
}

/// The buckets of one limit.
pub struct KeyTable {
    /// Never the same twice in a process.
    serial: u64,
    /// Position of the cores' leases.
    slot: u32,
    secret: SipHasher13,
    sets: Box<[Set]>,
    counts: Box<[LimitCounts]>,
}

/// A set of buckets on two cache lines, which x86 fetches together.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Set([Bucket; WAYS]);

#[derive(Debug, Default)]
struct Bucket {
    /// A keyed hash; 64 bits are enough to take it for the key itself. 0: nobody's yet.
    key: AtomicU64,
    /// The moment up to which all was given out.
    spent: AtomicU64,
}

/// What one core counts of a limit.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct LimitCounts {
    /// Requests that it let pass.
    pub admitted: Counter,
    /// Requests that it refused.
    pub limited: Counter,
}

/// Why a request may not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// Nanoseconds until the key's next request may.
    pub nanoseconds: u64,
}

impl fmt::Debug for KeyTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither the secret nor a hundred thousand buckets.
        f.debug_struct("KeyTable").field("serial", &self.serial).field("sets", &self.sets.len()).finish_non_exhaustive()
    }
}

impl KeyTable {
    /// A table for `keys` keys and `cores` cores, all buckets full. `serial` is unlike that of any other in the process, `slot` unlike that of any other
    /// in use; `secret` keys the hashes.
    #[must_use]
    pub fn new(keys: usize, cores: usize, serial: u64, slot: u32, secret: (u64, u64)) -> Self {
        let sets = keys.div_ceil(WAYS).max(1).next_power_of_two();
        Self {
            serial,
            slot,
            secret: SipHasher13::new_with_keys(secret.0, secret.1),
            sets: (0..sets).map(|_| Set::default()).collect(),
            counts: (0..cores).map(|_| LimitCounts::default()).collect(),
        }
    }

    /// A hasher for keys of this table; what it comes to is to be given to [`LimitLeases::take`].
    #[inline]
    #[must_use]
    pub fn hasher(&self) -> SipHasher13 {
        self.secret
    }

    /// What each core counted.
    #[must_use]
    pub fn counts(&self) -> &[LimitCounts] {
        &self.counts
    }

    /// Keys that are kept at most.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.sets.len() * WAYS
    }

    /// Position of the cores' leases, free for another table when this one is gone.
    #[must_use]
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// Takes up to a batch from the bucket of `key`, which is not 0.
    fn borrow(&self, now: u64, key: u64, rate: &LimitRate) -> Result<u64, Wait> {
        let Some(bucket) = self.bucket(key) else { return Err(Wait { nanoseconds: rate.interval }) };
        let mut spent = bucket.spent.load(Ordering::Relaxed);
        for _ in 0..TRIES {
            let from = spent.max(now - rate.depth.min(now));
            let earned = (now.saturating_sub(from) / rate.interval).min(rate.batch);
            if earned == 0 {
                return Err(Wait { nanoseconds: (from + rate.interval).saturating_sub(now) });
            }
            let to = from + earned * rate.interval;
            // Moments say nothing about other memory, so that no order is needed.
            match bucket.spent.compare_exchange_weak(spent, to, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(earned),
                Err(changed) => spent = changed,
            }
        }
        Err(Wait { nanoseconds: rate.interval })
    }

    /// Gives back what was borrowed and not used, unless another key has the bucket by now.
    #[cold]
    fn give_back(&self, key: u64, units: u64, rate: &LimitRate) {
        let known = self.set(key).and_then(|set| set.0.iter().find(|b| b.key.load(Ordering::Relaxed) == key));
        if let Some(bucket) = known {
            bucket.spent.fetch_sub(units * rate.interval, Ordering::Relaxed);
        }
    }

    fn set(&self, key: u64) -> Option<&Set> {
        self.sets.get(key as usize & (self.sets.len() - 1))
    }

    /// The bucket of `key`: its own, or the one it takes over.
    fn bucket(&self, key: u64) -> Option<&Bucket> {
        let set = self.set(key)?;
        for _ in 0..TRIES {
            let (mut coldest, mut least, mut holder) = (None, u64::MAX, 0);
            for bucket in &set.0 {
                let held = bucket.key.load(Ordering::Relaxed);
                if held == key {
                    return Some(bucket);
                }
                let spent = bucket.spent.load(Ordering::Relaxed);
                if coldest.is_none() || spent < least {
                    (coldest, least, holder) = (Some(bucket), spent, held);
                }
            }
            let bucket = coldest?;
            if bucket.key.compare_exchange(holder, key, Ordering::Relaxed, Ordering::Relaxed).is_err() {
                continue;
            }
            // Another core may have brought the same key to another bucket at this moment: with a fence between writing and looking, at least one
            // of the two sees the other, and steps back.
            fence(Ordering::SeqCst);
            if set.0.iter().filter(|b| b.key.load(Ordering::Relaxed) == key).count() <= 1 {
                return Some(bucket);
            }
            let _ = bucket.key.compare_exchange(key, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
        None
    }
}

/// One core's leases of all limits.
#[derive(Debug, Default)]
pub struct LimitLeases {
    core: usize,
    /// By [`KeyTable::slot`]; only limits that are taken from by batches have one.
    tables: Vec<Option<Box<Table>>>,
}

#[derive(Debug)]
struct Table {
    serial: u64,
    held: Box<[Held]>,
}

/// Requests of one key that this core may let pass.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    key: u64,
    units: u64,
    until: u64,
}

impl LimitLeases {
    /// Leases of the core of this index.
    #[must_use]
    pub fn new(core: u16) -> Self {
        Self { core: usize::from(core), tables: Vec::new() }
    }

    /// Takes one request of the key that hashes to `hash`, at `now` in nanoseconds of a clock that all cores read alike.
    ///
    /// # Errors
    /// How long until there is one.
    pub fn take(&mut self, limit: &Limit, hash: u64, now: u64) -> Result<(), Wait> {
        let (now, key) = (now + ZERO, hash.max(1));
        let taken = if limit.rate.batch == 1 {
            limit.keys.borrow(now, key, &limit.rate).map(drop)
        } else {
            self.take_held(limit, key, now)
        };
        if let Some(counts) = limit.keys.counts.get(self.core) {
            match taken {
                Ok(()) => counts.admitted.add(1),
                Err(_) => counts.limited.add(1),
            }
        }
        taken
    }

    fn take_held(&mut self, limit: &Limit, key: u64, now: u64) -> Result<(), Wait> {
        let slot = limit.keys.slot as usize;
        if slot >= self.tables.len() {
            self.tables.resize_with(slot + 1, || None);
        }
        let Some(place) = self.tables.get_mut(slot) else { return Ok(()) };
        let table = match place {
            Some(table) if table.serial == limit.keys.serial => table,
            _ => {
                // Once for a limit: one is kept where all requests are one key.
                let held = if limit.by == LimitKey::All { 1 } else { HELD };
                place.insert(Box::new(Table { serial: limit.keys.serial, held: vec![Held::default(); held].into() }))
            }
        };
        // The low bits choose the set.
        let at = (key >> 32) as usize % table.held.len().max(1);
        let Some(held) = table.held.get_mut(at) else { return Ok(()) };
        if held.key != key || held.units == 0 || now >= held.until {
            if held.units > 0 {
                limit.keys.give_back(held.key, held.units, &limit.rate);
                held.units = 0;
            }
            let units = limit.keys.borrow(now, key, &limit.rate)?;
            *held = Held { key, units, until: now.saturating_add(HELD_LIFE) };
        }
        held.units -= 1;
        Ok(())
    }

    /// A request that was taken did not pass after all: another limit refused it.
    #[cold]
    pub fn put(&mut self, limit: &Limit, hash: u64) {
        limit.keys.give_back(hash.max(1), 1, &limit.rate);
        if let Some(counts) = limit.keys.counts.get(self.core) {
            counts.admitted.sub(1);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
