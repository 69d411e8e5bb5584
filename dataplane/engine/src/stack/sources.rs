//! How many connections each source may open: a token bucket per client network, in a table that never grows.
//!
//! Asked at the SYN, before anything is kept of it. A bucket is one number, the time at which it is full again (GCRA, ITU-T I.371 Annex A);
//! one that is full is worth nothing, so that what a full set forgets is the bucket that has been full longest, or is nearest to it. A flood from
//! made-up sources therefore pushes out its own entries, and those of clients that hardly connect.

use core::hash::Hasher;
use core::net::IpAddr;

use siphasher::sip::SipHasher13;
use tables::SourceLimit;

use crate::clock::Instant;

/// Buckets that a source may be kept in: two cache lines.
const WAYS: usize = 8;

/// One core's buckets.
#[derive(Debug)]
pub(super) struct Sources {
    secret: SipHasher13,
    sets: Box<[[Bucket; WAYS]]>,
    /// Nanoseconds a connection.
    interval: u64,
    /// How far a bucket's `full_at` may be ahead of now before a connection is refused.
    slack: u64,
    mask_v4: u32,
    mask_v6: u128,
}

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    /// A keyed hash of the source; 64 bits are enough to take it for the source itself.
    source: u64,
    full_at: u64,
}

impl Sources {
    /// Buckets as `limit` says, all full. `secret` keys the table.
    #[must_use]
    pub(super) fn new(limit: &SourceLimit, secret: (u64, u64)) -> Self {
        let sets = (limit.sources as usize).div_ceil(WAYS).max(1).next_power_of_two();
        let interval = 1_000_000_000 / u64::from(limit.connections_per_second.max(1));
        let prefix = |len: u8, bits: u8| u32::from(bits.saturating_sub(len));
        Self {
            secret: SipHasher13::new_with_keys(secret.0, secret.1),
            sets: vec![[Bucket::default(); WAYS]; sets].into(),
            interval,
            slack: u64::from(limit.burst.max(1) - 1) * interval,
            mask_v4: u32::MAX.checked_shl(prefix(limit.prefix_v4, 32)).unwrap_or(0),
            mask_v6: u128::MAX.checked_shl(prefix(limit.prefix_v6, 128)).unwrap_or(0),
        }
    }

    /// Whether `source` may open another connection now, which counts as opened then.
    pub(super) fn admit(&mut self, now: Instant, source: IpAddr) -> bool {
        let hash = self.hash(source);
        let set = hash as usize & (self.sets.len() - 1);
        let Some(set) = self.sets.get_mut(set) else { return true };
        let known = set.iter().position(|bucket| bucket.source == hash);
        let place = known.unwrap_or_else(|| {
            let coldest = set.iter().enumerate().min_by_key(|(_, bucket)| bucket.full_at);
            coldest.map_or(0, |(place, _)| place)
        });
        let Some(bucket) = set.get_mut(place) else { return true };
        if known.is_none() {
            *bucket = Bucket { source: hash, full_at: 0 };
        }
        let full_at = bucket.full_at.max(now.0);
        let granted = full_at - now.0 <= self.slack;
        if granted {
            bucket.full_at = full_at.saturating_add(self.interval);
        }
        granted
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

#[cfg(test)]
mod tests {
    use core::time::Duration;
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const LIMIT: SourceLimit =
        SourceLimit { connections_per_second: 10, burst: 5, prefix_v4: 32, prefix_v6: 64, sources: 1024 };

    fn v4(n: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(n))
    }

    fn at(ms: u64) -> Instant {
        Instant::default() + Duration::from_millis(ms)
    }

    fn admitted(sources: &mut Sources, now: Instant, source: IpAddr, tries: u32) -> usize {
        (0..tries).filter(|_| sources.admit(now, source)).count()
    }

    #[test]
    fn each_source_has_its_burst_and_its_rate() {
        let mut sources = Sources::new(&LIMIT, (1, 2));
        for source in [v4(1), v4(2), "2001:db8::1".parse().unwrap()] {
            assert_eq!(admitted(&mut sources, at(0), source, 100), 5);
            assert_eq!(admitted(&mut sources, at(1000), source, 100), 5, "full again, and no more");
            assert_eq!(admitted(&mut sources, at(1200), source, 100), 2);
        }
    }

    #[test]
    fn a_network_is_one_source() {
        let mut sources = Sources::new(&SourceLimit { prefix_v4: 24, ..LIMIT }, (1, 2));
        let hosts = (0..100).filter(|host| sources.admit(at(0), v4(0x0a00_0000 + host)));
        assert_eq!(hosts.count(), 5);
        assert!(sources.admit(at(0), v4(0x0a00_0100)));
        let hosts = (0..100u128).filter(|host| {
            let address = (0x2001_0db8_u128 << 96) | host;
            sources.admit(at(0), IpAddr::V6(Ipv6Addr::from_bits(address)))
        });
        assert_eq!(hosts.count(), 5, "a /64");
        let mut all = Sources::new(&SourceLimit { prefix_v4: 0, prefix_v6: 0, ..LIMIT }, (1, 2));
        assert_eq!((0..100).filter(|host| all.admit(at(0), v4(host << 24))).count(), 5);
    }

    #[test]
    fn a_flood_from_made_up_sources_neither_grows_the_table_nor_frees_who_is_over_the_limit() {
        let mut sources = Sources::new(&LIMIT, (1, 2));
        let size = sources.sets.len();
        assert_eq!(size * WAYS, 1024);
        assert_eq!(admitted(&mut sources, at(0), v4(7), 50), 5);
        let refused = (0..1_000_000u32).filter(|n| !sources.admit(at(0), v4(0x0b00_0000 + n))).count();
        assert_eq!(refused, 0, "each of them came once");
        assert_eq!(admitted(&mut sources, at(50), v4(7), 50), 0, "still known");
        assert_eq!(sources.sets.len(), size);
    }
}
