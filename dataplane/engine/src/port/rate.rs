//! How often something may happen.

use crate::clock::Instant;

/// A token bucket, kept as the time at which it will be full again (GCRA, ITU-T I.371 Annex A): no refill, no timer.
#[derive(Debug, Clone)]
pub(crate) struct TokenBucket {
    /// Nanoseconds a token; 0 where nothing is allowed.
    interval: u64,
    /// How far `full_at` may be ahead of now before a token is refused.
    slack: u64,
    full_at: u64,
}

impl TokenBucket {
    /// `per_second` tokens, of which up to a quarter of a second's worth may be taken at once; none at all for 0.
    pub(crate) fn new(per_second: u32) -> Self {
        let interval = 1_000_000_000u64.checked_div(u64::from(per_second)).unwrap_or(0);
        let burst = u64::from(per_second / 4).max(1);
        Self { interval, slack: (burst - 1) * interval, full_at: 0 }
    }

    /// Whether there is a token.
    pub(crate) fn ready(&self, now: Instant) -> bool {
        self.interval != 0 && self.full_at.saturating_sub(now.0) <= self.slack
    }

    /// Takes `tokens` whether there are so many or not: [`TokenBucket::ready`] says so until they are paid back.
    pub(crate) fn spend(&mut self, now: Instant, tokens: u64) {
        self.full_at = self.full_at.max(now.0).saturating_add(self.interval.saturating_mul(tokens));
    }

    /// Takes a token, if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.max(now.0);
        let granted = self.interval != 0 && full_at - now.0 <= self.slack;
        if granted {
            self.full_at = full_at.saturating_add(self.interval);
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;

    #[test]
    fn gives_its_burst_and_then_its_rate() {
        let mut bucket = TokenBucket::new(1000);
        let taken = |bucket: &mut TokenBucket, at| (0..10_000).filter(|_| bucket.take(at)).count();
        assert_eq!(taken(&mut bucket, Instant(0)), 250);
        assert_eq!(taken(&mut bucket, Instant(100_000_000)), 100);
        assert_eq!(taken(&mut bucket, Instant(0) + Duration::from_secs(3600)), 250);
        assert_eq!(taken(&mut TokenBucket::new(1), Instant(5)), 1);
        assert_eq!(taken(&mut TokenBucket::new(0), Instant(5)), 0);
    }

    #[test]
    fn what_is_spent_in_advance_is_paid_back() {
        let mut bucket = TokenBucket::new(1000);
        bucket.spend(Instant(0), 249);
        assert!(bucket.ready(Instant(0)));
        bucket.spend(Instant(0), 101);
        assert!(!bucket.ready(Instant(0)) && !bucket.ready(Instant(99_000_000)));
        assert!(bucket.ready(Instant(101_000_000)));
        assert!(!TokenBucket::new(0).ready(Instant(5)));
    }
}
