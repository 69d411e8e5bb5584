//! Frames that vanish at random, as on a bad path.

/// Decides for each frame. Equal seeds decide equally.
#[derive(Debug, Clone)]
pub(super) struct Loss {
    /// A frame vanishes when the next number is below this.
    below: u32,
    state: u64,
}

impl Loss {
    /// Loses this share of frames, from 0 to 1.
    pub(super) fn new(share: f64, seed: u64) -> Self {
        // A float that does not fit is the nearest number that does.
        Self { below: (share * f64::from(u32::MAX)) as u32, state: seed }
    }

    /// Whether the next frame vanishes.
    #[inline]
    pub(super) fn strikes(&mut self) -> bool {
        self.below > 0 && self.draw() < self.below
    }

    /// SplitMix64's upper half.
    fn draw(&mut self) -> u32 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.state ^ self.state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_kept_and_the_seed_decides() {
        let lost = |share, seed| {
            let mut loss = Loss::new(share, seed);
            (0..100_000).map(|_| loss.strikes()).collect::<Vec<_>>()
        };
        let count = |lost: Vec<bool>| lost.into_iter().filter(|lost| *lost).count();
        assert_eq!(count(lost(0.0, 1)), 0);
        assert!((900..1100).contains(&count(lost(0.01, 1))));
        assert_eq!(lost(0.01, 7), lost(0.01, 7));
        assert_ne!(lost(0.01, 7), lost(0.01, 8));
    }
}
