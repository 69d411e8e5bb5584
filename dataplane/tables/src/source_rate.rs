//! How many connections each source may open: a token bucket per client network, in a table that all cores share and that never grows.
//!
//! Asked at the SYN, before anything is kept of it. A bucket is one number, the time at which it is full again (GCRA, ITU-T I.371 Annex A);
//! one that is full is worth nothing, so that what a full set forgets is the bucket that has been full longest, or is nearest to it. A flood from
//! made-up sources therefore pushes out its own entries, and those of clients that hardly connect.
//!
//! Cores that ask for the same source at once agree by compare and swap: a limit holds for the appliance as it does for one core. Only while one
//! core enters a source that another does not see yet may more be admitted: a burst for each other core at most.

use core::hash::Hasher;
use core::net::IpAddr;
use core::sync::atomic::Ordering;

use siphasher::sip::SipHasher13;

use crate::settings::SourceLimit;
use crate::sync::AtomicU64;

/// Buckets that a source may be kept in: two cache lines.
const WAYS: usize = if cfg!(loom) { 2 } else { 8 };

/// Tries to change a bucket that others change too. Losing that often is as good as an empty bucket.
const TRIES: usize = 16;

/// The appliance's buckets.
#[derive(Debug)]
pub struct SourceRates {
    secret: SipHasher13,
    sets: Box<[Set]>,
    /// Nanoseconds a connection.
    interval: u64,
    /// How far a bucket's `full_at` may be ahead of now before a connection is refused.
    slack: u64,
    mask_v4: u32,
    mask_v6: u128,
}

#[derive(Debug)]
#[repr(align(128))]
struct Set([Bucket; WAYS]);

/// Both numbers say nothing about other memory, so that no order is needed.
#[derive(Debug)]
struct Bucket {
    /// A keyed hash of the source; 64 bits are enough to take it for the source itself. 0 where there is none.
    source: AtomicU64,
    full_at: AtomicU64,
}

impl SourceRates {
    /// Buckets as `limit` says, all full. `secret` keys the table.
    #[must_use]
    pub fn new(limit: &SourceLimit, secret: [u64; 2]) -> Self {
        let sets = (limit.sources as usize).div_ceil(WAYS).max(1).next_power_of_two();
        let interval = 1_000_000_000 / u64::from(limit.connections_per_second.max(1));
        let prefix = |len: u8, bits: u8| u32::from(bits.saturating_sub(len));
        let bucket = |_| Bucket { source: AtomicU64::new(0), full_at: AtomicU64::new(0) };
        Self {
            secret: SipHasher13::new_with_keys(secret[0], secret[1]),
            sets: (0..sets).map(|_| Set(core::array::from_fn(bucket))).collect(),
            interval,
            slack: u64::from(limit.burst.max(1) - 1) * interval,
            mask_v4: u32::MAX.checked_shl(prefix(limit.prefix_v4, 32)).unwrap_or(0),
            mask_v6: u128::MAX.checked_shl(prefix(limit.prefix_v6, 128)).unwrap_or(0),
        }
    }

    /// Whether `source` may open another connection at `now`, in nanoseconds of a clock that all cores read alike; it counts as opened then.
    pub fn admit(&self, now: u64, source: IpAddr) -> bool {
        let hash = self.hash(source);
        let Some(Set(set)) = self.sets.get(hash as usize & (self.sets.len() - 1)) else { return true };
        match set.iter().find(|bucket| bucket.source.load(Ordering::Relaxed) == hash) {
            Some(bucket) => self.take(bucket, now),
            None => self.enter(set, hash, now),
        }
    }

    /// A source that is not known takes the place of one that is worth the least, and its first connection out of a full bucket.
    fn enter(&self, set: &[Bucket; WAYS], hash: u64, now: u64) -> bool {
        let Some(coldest) = set.iter().min_by_key(|bucket| bucket.full_at.load(Ordering::Relaxed)) else { return true };
        let full_at = coldest.full_at.load(Ordering::Relaxed);
        let source = coldest.source.load(Ordering::Relaxed);
        if coldest.source.compare_exchange(source, hash, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            // Where another core is faster, it was for the source that is forgotten, or for this one.
            let first = now.saturating_add(self.interval);
            let _ = coldest.full_at.compare_exchange(full_at, first, Ordering::Relaxed, Ordering::Relaxed);
        }
        true
    }

    fn take(&self, bucket: &Bucket, now: u64) -> bool {
        let mut seen = bucket.full_at.load(Ordering::Relaxed);
        for _ in 0..TRIES {
            let full_at = seen.max(now);
            if full_at - now > self.slack {
                return false;
            }
            let next = full_at.saturating_add(self.interval);
            match bucket.full_at.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(changed) => seen = changed,
            }
        }
        false
    }

    fn hash(&self, source: IpAddr) -> u64 {
        let mut hasher = self.secret;
        match source {
            IpAddr::V4(v4) => hasher.write_u32(v4.to_bits() & self.mask_v4),
            IpAddr::V6(v6) => hasher.write_u128(v6.to_bits() & self.mask_v6),
        }
        // 0 marks an empty bucket.
        hasher.finish().max(1)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const LIMIT: SourceLimit =
        SourceLimit { connections_per_second: 10, burst: 5, prefix_v4: 32, prefix_v6: 64, sources: 1024 };

    fn v4(n: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(n))
    }

    fn at(ms: u64) -> u64 {
        ms * 1_000_000
    }

    fn admitted(sources: &SourceRates, now: u64, source: IpAddr, tries: u32) -> usize {
        (0..tries).filter(|_| sources.admit(now, source)).count()
    }

    #[test]
    fn each_source_has_its_burst_and_its_rate() {
        let sources = SourceRates::new(&LIMIT, [1, 2]);
        for source in [v4(1), v4(2), "2001:db8::1".parse().unwrap()] {
            assert_eq!(admitted(&sources, at(0), source, 100), 5);
            assert_eq!(admitted(&sources, at(1000), source, 100), 5, "full again, and no more");
            assert_eq!(admitted(&sources, at(1200), source, 100), 2);
        }
    }

    #[test]
    fn a_network_is_one_source() {
        let sources = SourceRates::new(&SourceLimit { prefix_v4: 24, ..LIMIT }, [1, 2]);
        let hosts = (0..100).filter(|host| sources.admit(at(0), v4(0x0a00_0000 + host)));
        assert_eq!(hosts.count(), 5);
        assert!(sources.admit(at(0), v4(0x0a00_0100)));
        let hosts = (0..100u128).filter(|host| {
            let address = (0x2001_0db8_u128 << 96) | host;
            sources.admit(at(0), IpAddr::V6(Ipv6Addr::from_bits(address)))
        });
        assert_eq!(hosts.count(), 5, "a /64");
        let all = SourceRates::new(&SourceLimit { prefix_v4: 0, prefix_v6: 0, ..LIMIT }, [1, 2]);
        assert_eq!((0..100).filter(|host| all.admit(at(0), v4(host << 24))).count(), 5);
    }

    #[test]
    fn a_flood_from_made_up_sources_neither_grows_the_table_nor_frees_who_is_over_the_limit() {
        let sources = SourceRates::new(&LIMIT, [1, 2]);
        let size = sources.sets.len();
        assert_eq!(size * WAYS, 1024);
        assert_eq!(admitted(&sources, at(0), v4(7), 50), 5);
        let refused = (0..1_000_000u32).filter(|n| !sources.admit(at(0), v4(0x0b00_0000 + n))).count();
        assert_eq!(refused, 0, "each of them came once");
        assert_eq!(admitted(&sources, at(50), v4(7), 50), 0, "still known");
        assert_eq!(sources.sets.len(), size);
    }

    #[test]
    fn all_cores_together_admit_what_one_would() {
        let sources = SourceRates::new(&SourceLimit { burst: 1000, ..LIMIT }, [1, 2]);
        assert!(sources.admit(at(0), v4(7)));
        let admitted: usize = std::thread::scope(|scope| {
            let cores: Vec<_> = (0..4).map(|_| scope.spawn(|| admitted(&sources, at(0), v4(7), 1_000_000))).collect();
            cores.into_iter().map(|core| core.join().unwrap()).sum()
        });
        assert_eq!(admitted, 999);
    }
}
