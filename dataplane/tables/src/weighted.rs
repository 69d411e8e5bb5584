//! A weighted choice by chance, at a constant cost (Walker's alias method, built as Vose 1991 has it).

/// Entries with weights, at least one of which is not 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weighted {
    len: u32,
    /// Per entry: below which of 2^32 it is chosen itself, and who is otherwise. Empty where all weights are equal.
    alias: Box<[(u32, u32)]>,
    /// Per entry, for comparisons of what is under way. Empty where all are equal.
    weights: Box<[u32]>,
}

impl Weighted {
    /// Entries of these weights.
    #[must_use]
    pub fn new(weights: &[u32]) -> Self {
        let len = weights.len() as u32;
        if weights.windows(2).all(|pair| pair.first() == pair.last()) {
            return Self { len, alias: Box::default(), weights: Box::default() };
        }
        let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
        // Shares in units of 2^-32 of an even one.
        let mut shares: Vec<u128> =
            weights.iter().map(|&w| ((u128::from(w) * u128::from(len)) << 32) / u128::from(total.max(1))).collect();
        let mut alias: Vec<(u32, u32)> = (0..len).map(|entry| (u32::MAX, entry)).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..shares.len()).partition(|&entry| shares.get(entry).is_some_and(|&share| share < 1 << 32));
        while let (Some(&giver), Some(taker)) = (large.last(), small.pop()) {
            let share = shares.get(taker).copied().unwrap_or(0);
            if let Some(place) = alias.get_mut(taker) {
                *place = (share as u32, giver as u32);
            }
            if let Some(left) = shares.get_mut(giver) {
                *left -= (1 << 32) - share;
                if *left < 1 << 32 {
                    large.pop();
                    small.push(giver);
                }
            }
        }
        Self { len, alias: alias.into(), weights: weights.into() }
    }

    /// How many entries there are.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "never empty where it is used")]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// The entry that `random` chooses.
    #[inline]
    #[must_use]
    pub fn pick(&self, random: u64) -> usize {
        let entry = (((random >> 32) * u64::from(self.len)) >> 32) as usize;
        match self.alias.get(entry) {
            None => entry,
            Some(&(below, other)) => {
                if random as u32 <= below {
                    entry
                } else {
                    other as usize
                }
            }
        }
    }

    /// The weight of an entry, relative to the others'.
    #[inline]
    #[must_use]
    pub fn weight(&self, entry: usize) -> u32 {
        self.weights.get(entry).copied().unwrap_or(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Chi-squared of `draws` choices against the weights, and the degrees of freedom.
    fn chi_squared(weights: &[u32], draws: u32) -> f64 {
        let weighted = Weighted::new(weights);
        let mut counts = vec![0u32; weights.len()];
        let mut state = 1u64;
        for _ in 0..draws {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            counts[weighted.pick(z ^ (z >> 31))] += 1;
        }
        let total: f64 = weights.iter().map(|&w| f64::from(w)).sum();
        counts
            .iter()
            .zip(weights)
            .map(|(&count, &weight)| {
                let expected = f64::from(draws) * f64::from(weight) / total;
                if weight == 0 {
                    return if count == 0 { 0.0 } else { f64::INFINITY };
                }
                (f64::from(count) - expected).powi(2) / expected
            })
            .sum()
    }

    /// The 99.9 % quantiles for 2, 4 and 9 degrees of freedom.
    #[test]
    fn choices_follow_the_weights() {
        assert!(chi_squared(&[1, 1, 1], 300_000) < 13.8);
        assert!(chi_squared(&[1, 2, 7], 300_000) < 13.8);
        assert!(chi_squared(&[1_000_000, 1, 500_000, 3, 250_000], 300_000) < 18.5 + 5.0);
        assert!(chi_squared(&[3, 1, 4, 1, 5, 9, 2, 6, 5, 3], 300_000) < 27.9);
        assert!(chi_squared(&[0, 1, 2], 300_000) < 13.8);
        assert_eq!(Weighted::new(&[5]).pick(u64::MAX), 0);
    }
}
