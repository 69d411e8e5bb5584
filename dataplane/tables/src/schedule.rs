//! Weighted round robin, worked out ahead.

/// Slots of a schedule at most: weights are scaled down to fit, which bounds both memory and the error (below 1/4096 of the traffic).
const MAX_SLOTS: u64 = 4096;

/// Entries from which on the order is worked out by deadlines, in n log n steps instead of n².
const MANY: usize = 64;

/// The order in which weighted entries take their turns: each entry as often as its weight says, and spread as evenly as
/// possible (the smooth weighted round robin of NGINX, run once at compile time).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    slots: Box<[u32]>,
}

impl Schedule {
    /// A schedule over `weights`; an entry of weight 0 never has a turn. `None` where no entry has one.
    #[must_use]
    pub fn new(weights: &[u32]) -> Option<Self> {
        let weights = scaled(weights);
        let total: i64 = weights.iter().sum();
        if total == 0 {
            return None;
        }
        if weights.len() > MANY {
            return Some(Self { slots: by_deadline(&weights) });
        }
        let mut current = vec![0i64; weights.len()];
        let slots = (0..total)
            .filter_map(|_| {
                for (c, w) in current.iter_mut().zip(&weights) {
                    *c += w;
                }
                // The first of the largest, so that equal weights take turns in their order.
                let (chosen, _) = current
                    .iter()
                    .enumerate()
                    .filter(|&(i, _)| weights.get(i).is_some_and(|&w| w > 0))
                    .fold(None, |best: Option<(usize, i64)>, (i, &c)| match best {
                    Some((_, b)) if b >= c => best,
                    _ => Some((i, c)),
                })?;
                if let Some(c) = current.get_mut(chosen) {
                    *c -= total;
                }
                u32::try_from(chosen).ok()
            })
            .collect();
        Some(Self { slots })
    }

    /// Whose turn it is at `cursor`, which then moves on.
    #[inline]
    pub fn next(&self, cursor: &mut u32) -> usize {
        let at = *cursor as usize;
        let at = if at < self.slots.len() { at } else { 0 };
        // at + 1 ≤ MAX_SLOTS.
        *cursor = at as u32 + 1;
        self.slots.get(at).map_or(0, |&entry| entry as usize)
    }

    /// Whose turn it is at a place that `hash` chooses.
    #[inline]
    #[must_use]
    pub fn at(&self, hash: u64) -> usize {
        // The upper half times the length: no division.
        let at = (((hash >> 32) * self.slots.len() as u64) >> 32) as usize;
        self.slots.get(at).map_or(0, |&entry| entry as usize)
    }

    /// Turns until the schedule repeats.
    #[must_use]
    pub fn period(&self) -> usize {
        self.slots.len()
    }
}

/// The same evenness for many entries without a look at all of them for each turn: an entry of weight w is due every 1/w, from a phase on
/// that spreads the entries (the golden ratio's multiples).
fn by_deadline(weights: &[i64]) -> Box<[u32]> {
    let turns = (0u32..).zip(weights).flat_map(|(entry, &weight)| {
        let phase = i64::from(entry.wrapping_mul(0x9e37_79b9) >> 16);
        // Weights are scaled to 2^12 and a little: in units of 2^-48, no number exceeds 2^62.
        (0..weight).map(move |turn| ((((turn << 16) + phase) << 32) / weight, entry))
    });
    let mut turns: Vec<(i64, u32)> = turns.collect();
    turns.sort_unstable();
    turns.into_iter().map(|(_, entry)| entry).collect()
}

fn scaled(weights: &[u32]) -> Vec<i64> {
    let divisor = weights.iter().fold(0u64, |g, &w| gcd(g, u64::from(w))).max(1);
    let total: u64 = weights.iter().map(|&w| u64::from(w) / divisor).sum();
    weights
        .iter()
        .map(|&w| {
            let w = u64::from(w) / divisor;
            let w = if total <= MAX_SLOTS || w == 0 { w } else { (w * MAX_SLOTS / total).max(1) };
            // At most 2^32.
            w as i64
        })
        .collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(weights: &[u32], turns: usize) -> Vec<usize> {
        let schedule = Schedule::new(weights).unwrap();
        let mut cursor = 0;
        (0..turns).map(|_| schedule.next(&mut cursor)).collect()
    }

    #[test]
    fn equal_weights_take_turns() {
        assert_eq!(order(&[7, 7, 7], 6), [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn unequal_weights_are_spread() {
        assert_eq!(order(&[5, 1, 1], 7), [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn zero_weight_never_has_a_turn() {
        assert!(Schedule::new(&[0, 0]).is_none());
        assert!(Schedule::new(&[]).is_none());
        assert!(order(&[0, 3, 0], 9).iter().all(|&e| e == 1));
    }

    #[test]
    fn large_weights_keep_their_ratio_and_small_ones_their_turn() {
        let schedule = Schedule::new(&[1_000_000, 500_000, 1]).unwrap();
        assert!(schedule.period() <= MAX_SLOTS as usize + 1);
        let count = |e| schedule.slots.iter().filter(|&&s| s == e).count();
        assert!(count(2) >= 1);
        assert!((count(0) as f64 / count(1) as f64 - 2.0).abs() < 0.01);
    }

    #[test]
    fn many_entries_take_turns_as_evenly() {
        let weights: Vec<u32> = (0..1000).map(|i| 1 + i % 3).collect();
        let turns = order(&weights, 2 * 1999);
        for (entry, &weight) in weights.iter().enumerate() {
            let at: Vec<usize> = turns.iter().enumerate().filter(|&(_, &e)| e == entry).map(|(at, _)| at).collect();
            assert_eq!(at.len(), 2 * weight as usize);
            let gap = at.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
            assert!(gap <= 1999 / weight as usize + 20, "entry {entry} of weight {weight} waits {gap} turns");
        }
    }

    #[test]
    fn a_cursor_from_another_schedule_starts_over() {
        let schedule = Schedule::new(&[1, 1]).unwrap();
        let mut cursor = u32::MAX;
        assert_eq!(schedule.next(&mut cursor), 0);
        assert_eq!(schedule.next(&mut cursor), 1);
    }
}
