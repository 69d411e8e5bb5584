//! From a segment's addresses and ports to its connection.
//!
//! A core owns one [`FlowTable`] for all its ports. The table holds 4-byte values only (slot indexes); the keys
//! stay in the connections, and the caller compares them through a callback: a hit touches one cache line here and
//! the connection's own, which is needed anyway. It never allocates after it was made, and never rehashes.

use core::hash::Hasher;
use core::mem::offset_of;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use siphasher::sip::SipHasher13;

/// Both ends of a connection, of either address family, seen from here: `local` is us.
///
/// IPv4 addresses are kept as IPv4-mapped IPv6 addresses (RFC 4291 §2.5.5.2); those never appear on a wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowKey {
    local: [u64; 2],
    remote: [u64; 2],
    /// Local port in the upper half.
    ports: u32,
}

impl FlowKey {
    /// The connection between `local`, which is us, and `remote`.
    #[must_use]
    pub fn new(local: SocketAddr, remote: SocketAddr) -> Self {
        Self {
            local: pack(local.ip()),
            remote: pack(remote.ip()),
            ports: u32::from(local.port()) << 16 | u32::from(remote.port()),
        }
    }

    /// The same for IPv4, from what stands in the headers.
    #[inline]
    #[must_use]
    pub fn v4(local: Ipv4Addr, local_port: u16, remote: Ipv4Addr, remote_port: u16) -> Self {
        Self {
            local: pack_v4(local),
            remote: pack_v4(remote),
            ports: u32::from(local_port) << 16 | u32::from(remote_port),
        }
    }

    /// The same for IPv6.
    #[inline]
    #[must_use]
    pub fn v6(local: Ipv6Addr, local_port: u16, remote: Ipv6Addr, remote_port: u16) -> Self {
        Self {
            local: pack_v6(local),
            remote: pack_v6(remote),
            ports: u32::from(local_port) << 16 | u32::from(remote_port),
        }
    }

    /// The SipHash-1-3 of the key under `secret`. SipHash ends with the length, so that the short form of IPv4 never equals a long one.
    ///
    /// Always inlined: as a call, it would cost a look-up a seventh more instructions.
    #[inline(always)]
    pub(crate) fn sip_hash(&self, secret: [u64; 2]) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(secret[0], secret[1]);
        if is_v4(self.local) && is_v4(self.remote) {
            hasher.write_u64(self.local[1] << 32 | self.remote[1] & 0xffff_ffff);
            hasher.write_u32(self.ports);
        } else {
            for word in [self.local[0], self.local[1], self.remote[0], self.remote[1]] {
                hasher.write_u64(word);
            }
            hasher.write_u32(self.ports);
        }
        hasher.finish()
    }

    /// Our end.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        SocketAddr::new(self.local_addr(), self.local_port())
    }

    /// The other end.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        SocketAddr::new(self.remote_addr(), self.remote_port())
    }

    /// Our address.
    #[inline]
    #[must_use]
    pub fn local_addr(&self) -> IpAddr {
        unpack(self.local)
    }

    /// The other end's address.
    #[inline]
    #[must_use]
    pub fn remote_addr(&self) -> IpAddr {
        unpack(self.remote)
    }

    /// Our port.
    #[inline]
    #[must_use]
    pub fn local_port(&self) -> u16 {
        (self.ports >> 16) as u16
    }

    /// The other end's port.
    #[inline]
    #[must_use]
    pub fn remote_port(&self) -> u16 {
        self.ports as u16
    }
}

impl core::fmt::Debug for FlowKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} <-> {}", self.local(), self.remote())
    }
}

/// Entries per bucket: with tags and values a bucket fills one cache line.
const WAYS: usize = 8;

/// Buckets that an entry may be placed in: its home and the next ones. At five entries a bucket on average (the most
/// that [`FlowTable::with_capacity`] allows) a run of eight full buckets does not happen by chance; the bound makes the
/// worst look-up 64 tags even if it does.
const REACH: usize = 8;

/// Entries per bucket that the table is sized for.
const LOAD: usize = 5;

/// No room within [`FlowTable`]'s reach, or the capacity is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// Maps hashes of keys to values, with a bounded number of entries.
#[derive(Debug)]
pub struct FlowTable {
    secret: [u64; 2],
    buckets: Box<[Bucket]>,
    len: usize,
    capacity: usize,
}

/// One cache line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Bucket {
    /// 0 where the entry is vacant.
    tags: [u16; WAYS],
    values: [u32; WAYS],
    /// Entries that were placed further on because this bucket was full: while it is 0, a search ends here. This is
    /// what makes tombstones needless.
    passed: u32,
}

// As ARCHITECTURE.md has it.
const _: () = assert!(
    offset_of!(Bucket, tags) == 0
        && offset_of!(Bucket, values) == 16
        && offset_of!(Bucket, passed) == 48
        && size_of::<Bucket>() == 64
);

const VACANT: Bucket = Bucket { tags: [0; WAYS], values: [0; WAYS], passed: 0 };

impl FlowTable {
    /// A table for `capacity` entries. Its memory is 12 to 26 bytes an entry, taken now. `secret` keys the hash, so that
    /// nobody outside can choose addresses and ports that collide.
    #[must_use]
    pub fn with_capacity(capacity: usize, secret: [u64; 2]) -> Self {
        let buckets = capacity.div_ceil(LOAD).max(REACH).next_power_of_two();
        Self { secret, buckets: vec![VACANT; buckets].into(), len: 0, capacity }
    }

    /// The hash of a key in this table (SipHash-1-3). Apart from [`FlowTable::find`] so that a whole burst can be hashed first.
    #[inline]
    #[must_use]
    pub fn hash(&self, key: &FlowKey) -> u64 {
        key.sip_hash(self.secret)
    }

    /// Has the CPU fetch what [`FlowTable::find`] will look at first.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        if let Some(bucket) = self.reach(hash).next().and_then(|home| self.buckets.get(home)) {
            pmd::prefetch(bucket);
        }
    }

    /// The value that [`FlowTable::find`] will most likely return: nothing but 16 bits of the hash was compared, in its home bucket.
    #[inline]
    #[must_use]
    pub fn likely(&self, hash: u64) -> Option<u32> {
        let bucket = self.buckets.get(self.reach(hash).next()?)?;
        let hits = matches(bucket, tag(hash));
        (hits != 0).then(|| bucket.values[hits.trailing_zeros() as usize % WAYS])
    }

    /// The value under `hash` whose key `is_it` confirms. `is_it` is called for values with an equal 16-bit tag only.
    #[inline]
    pub fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let tag = tag(hash);
        for position in self.reach(hash) {
            let bucket = self.buckets.get(position)?;
            let mut hits = matches(bucket, tag);
            while hits != 0 {
                let value = bucket.values[hits.trailing_zeros() as usize % WAYS];
                if is_it(value) {
                    return Some(value);
                }
                hits &= hits - 1;
            }
            if bucket.passed == 0 {
                return None;
            }
        }
        None
    }

    /// Adds `value` under `hash`. The caller knows that its key is not there yet.
    ///
    /// # Errors
    /// [`Full`] where the capacity is used up, or where all buckets in reach are full; nothing changed then.
    pub fn insert(&mut self, hash: u64, value: u32) -> Result<(), Full> {
        if self.len >= self.capacity {
            return Err(Full);
        }
        let place = self.reach(hash).enumerate().find_map(|(distance, position)| {
            let vacant = matches(self.buckets.get(position)?, 0);
            (vacant != 0).then(|| (distance, position, vacant.trailing_zeros() as usize % WAYS))
        });
        let Some((distance, position, way)) = place else {
            return Err(Full);
        };
        if let Some(bucket) = self.buckets.get_mut(position) {
            bucket.tags[way] = tag(hash);
            bucket.values[way] = value;
        }
        for position in self.reach(hash).take(distance) {
            self.buckets[position].passed += 1;
        }
        self.len += 1;
        Ok(())
    }

    /// Removes `value`, which was inserted under `hash`. `false` where it is not there.
    pub fn remove(&mut self, hash: u64, value: u32) -> bool {
        let tag = tag(hash);
        for (distance, position) in self.reach(hash).enumerate() {
            let bucket = &mut self.buckets[position];
            let mut hits = matches(bucket, tag);
            while hits != 0 {
                let way = hits.trailing_zeros() as usize % WAYS;
                if bucket.values[way] == value {
                    bucket.tags[way] = 0;
                    for position in self.reach(hash).take(distance) {
                        self.buckets[position].passed -= 1;
                    }
                    self.len -= 1;
                    return true;
                }
                hits &= hits - 1;
            }
            if bucket.passed == 0 {
                return false;
            }
        }
        false
    }

    /// Entries in the table.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Entries that it takes at most.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The positions of the home bucket of `hash` and of those behind it, in order.
    #[inline]
    fn reach(&self, hash: u64) -> impl Iterator<Item = usize> + use<> {
        let mask = self.buckets.len() - 1;
        // The tag takes the upper bits, the position the lower ones.
        let home = hash as usize & mask;
        (0..REACH).map(move |distance| (home + distance) & mask)
    }
}

#[inline]
fn tag(hash: u64) -> u16 {
    ((hash >> 48) as u16).max(1)
}

/// A bit per way whose tag is `tag`. Without a branch, so that it compiles to one vector comparison.
#[inline]
fn matches(bucket: &Bucket, tag: u16) -> u32 {
    let mut bits = 0;
    for way in 0..WAYS {
        bits |= u32::from(bucket.tags[way] == tag) << way;
    }
    bits
}

const V4_PREFIX: u64 = 0xffff << 32;

#[inline]
fn is_v4(address: [u64; 2]) -> bool {
    address[0] == 0 && address[1] >> 32 == V4_PREFIX >> 32
}

#[inline]
fn pack_v4(address: Ipv4Addr) -> [u64; 2] {
    [0, V4_PREFIX | u64::from(address.to_bits())]
}

fn pack(address: IpAddr) -> [u64; 2] {
    match address {
        IpAddr::V4(address) => pack_v4(address),
        IpAddr::V6(address) => pack_v6(address),
    }
}

#[inline]
fn pack_v6(address: Ipv6Addr) -> [u64; 2] {
    let bits = address.to_bits();
    [(bits >> 64) as u64, bits as u64]
}

#[inline]
fn unpack(address: [u64; 2]) -> IpAddr {
    if is_v4(address) {
        IpAddr::V4(Ipv4Addr::from_bits(address[1] as u32))
    } else {
        IpAddr::V6(Ipv6Addr::from_bits(u128::from(address[0]) << 64 | u128::from(address[1])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn key(n: u32) -> FlowKey {
        FlowKey::v4(Ipv4Addr::new(10, 0, 0, 1), 80, Ipv4Addr::from_bits(0x0b00_0000 | n >> 8), n as u16 & 0xff)
    }

    #[test]
    fn a_bucket_is_one_cache_line() {
        assert_eq!(size_of::<Bucket>(), 64);
        assert_eq!(align_of::<Bucket>(), 64);
    }

    #[test]
    fn keys_give_back_what_they_were_made_of() {
        for (local, remote) in [("10.1.2.3:80", "192.0.2.255:65535"), ("[2001:db8::1]:443", "[fe80::ffff:1]:1")] {
            let (local, remote): (SocketAddr, SocketAddr) = (local.parse().unwrap(), remote.parse().unwrap());
            let key = FlowKey::new(local, remote);
            assert_eq!((key.local(), key.remote()), (local, remote));
            assert_ne!(key, FlowKey::new(remote, local));
        }
        let (local, remote) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let other = FlowKey::new((local, 80).into(), (remote, 4000).into());
        assert_eq!(FlowKey::v4(local, 80, remote, 4000), other);
    }

    #[test]
    fn the_hash_depends_on_every_part_and_on_the_secret() {
        let table = FlowTable::with_capacity(8, [1, 2]);
        let base = FlowKey::new("10.0.0.1:80".parse().unwrap(), "10.0.0.2:81".parse().unwrap());
        for (local, remote) in [
            ("10.0.0.2:80", "10.0.0.2:81"),
            ("10.0.0.1:81", "10.0.0.2:81"),
            ("10.0.0.1:80", "10.0.0.3:81"),
            ("10.0.0.1:80", "10.0.0.2:80"),
            ("[::a00:1]:80", "[::a00:2]:81"),
        ] {
            let other = FlowKey::new(local.parse().unwrap(), remote.parse().unwrap());
            assert_ne!(table.hash(&base), table.hash(&other), "{other:?}");
        }
        assert_ne!(table.hash(&base), FlowTable::with_capacity(8, [1, 3]).hash(&base));
    }

    #[test]
    fn takes_its_capacity_whole_and_not_one_more() {
        for capacity in [1, 5, 40, 1000, 20_480] {
            let mut table = FlowTable::with_capacity(capacity, [7, 9]);
            for n in 0..capacity as u32 {
                assert_eq!(table.insert(table.hash(&key(n)), n), Ok(()), "{n} of {capacity}");
            }
            assert_eq!(table.insert(1, 1), Err(Full));
            assert_eq!(table.len(), capacity);
            for n in 0..capacity as u32 {
                assert_eq!(table.find(table.hash(&key(n)), |v| v == n), Some(n));
            }
        }
    }

    #[test]
    fn what_is_likely_is_what_is_there() {
        let mut table = FlowTable::with_capacity(100, [1, 2]);
        let hashes: Vec<u64> = (0..100).map(|n| table.hash(&key(n))).collect();
        for (&hash, value) in hashes.iter().zip(0..) {
            assert_eq!(table.likely(hash), None);
            table.insert(hash, value).unwrap();
            table.prefetch(hash);
            assert_eq!(table.likely(hash), Some(value));
        }
        for (&hash, value) in hashes.iter().zip(0..) {
            assert_eq!(table.likely(hash), table.find(hash, |v| v == value));
            table.remove(hash, value);
        }
    }

    #[test]
    fn equal_hashes_fill_the_reach_and_leave_again() {
        let mut table = FlowTable::with_capacity(1000, [0, 0]);
        let most = (WAYS * REACH) as u32;
        for n in 0..most {
            assert_eq!(table.insert(42, n), Ok(()));
        }
        assert_eq!(table.insert(42, most), Err(Full));
        for n in 0..most {
            assert_eq!(table.find(42, |v| v == n), Some(n));
            assert!(table.remove(42, n));
            assert!(!table.remove(42, n));
        }
        assert!(table.is_empty() && table.buckets.iter().all(|b| b.passed == 0 && b.tags == [0; WAYS]));
    }

    #[test]
    fn a_million_come_and_go_without_a_trace() {
        let mut table = FlowTable::with_capacity(4096, [3, 5]);
        for n in 0..1_000_000u32 {
            if n >= 4000 {
                assert!(table.remove(table.hash(&key(n - 4000)), n - 4000));
            }
            assert_eq!(table.insert(table.hash(&key(n)), n), Ok(()));
        }
        for n in 996_000..1_000_000 {
            assert!(table.remove(table.hash(&key(n)), n));
        }
        assert!(table.is_empty() && table.buckets.iter().all(|b| b.passed == 0 && b.tags == [0; WAYS]));
    }

    proptest! {
        /// Few distinct keys and a tiny table, so that buckets overflow all the time.
        #[test]
        fn does_what_a_hash_map_does(steps in prop::collection::vec((0u32..120, any::<bool>()), 0..400)) {
            let mut table = FlowTable::with_capacity(64, [11, 13]);
            let mut model = HashMap::new();
            for (n, add) in steps {
                let hash = table.hash(&key(n)) & 0xffff_0000_0000_0003;
                if !add {
                    prop_assert_eq!(table.remove(hash, n), model.remove(&n).is_some());
                } else if !model.contains_key(&n) && table.insert(hash, n).is_ok() {
                    model.insert(n, ());
                }
                prop_assert_eq!(table.len(), model.len());
                for n in 0..120 {
                    let hash = table.hash(&key(n)) & 0xffff_0000_0000_0003;
                    prop_assert_eq!(table.find(hash, |v| v == n).is_some(), model.contains_key(&n));
                }
            }
        }
    }
}
