//! Randomness on a core: seeded, so that a run can be replayed.

use siphasher::sip::SipHasher13;

/// SplitMix64 (Steele, Lea and Flood 2014): for source ports and seeds. What an attacker must not guess, sequence numbers and flow
/// hashes, is keyed with SipHash, whose keys are drawn from here once, from a seed of the operating system's.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A generator that gives the same numbers for the same seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A generator whose numbers say nothing about this one's: seeded through a keyed hash.
    #[must_use]
    pub fn behind_a_hash(&mut self) -> Self {
        Self(SipHasher13::new_with_keys(self.next_u64(), self.next_u64()).hash(b"millrace"))
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
