//! Numbers for things that come and go: a thing keeps its number while a configuration has it, and for some time after.

use core::hash::Hash;
use std::collections::VecDeque;

use hashbrown::HashMap;
use tables::Epoch;

/// Hands out small numbers.
#[derive(Debug)]
pub(super) struct Ids<K> {
    given: HashMap<K, Given>,
    free: VecDeque<u32>,
    /// Numbers that were ever handed out.
    next: u32,
}

#[derive(Debug, Clone, Copy)]
struct Given {
    id: u32,
    /// The last epoch that used it.
    used: Epoch,
}

impl<K> Default for Ids<K> {
    fn default() -> Self {
        Self { given: HashMap::new(), free: VecDeque::new(), next: 0 }
    }
}

impl<K: Hash + Eq + Clone> Ids<K> {
    /// The number of `key`, which `epoch` uses; and whether it is new.
    pub(super) fn id(&mut self, key: &K, epoch: Epoch) -> (u32, bool) {
        if let Some(given) = self.given.get_mut(key) {
            given.used = epoch;
            return (given.id, false);
        }
        // The one that was free for longest. What has a number costs memory: that ends long before 32 bits do.
        let id = self.free.pop_front().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        });
        self.given.insert(key.clone(), Given { id, used: epoch });
        (id, true)
    }

    /// Takes back the numbers of what `epoch` does not use, but for the `kept` that were used last, and for those that `epoch`s from `since` on have
    /// used. Returns them.
    pub(super) fn retire(&mut self, epoch: Epoch, kept: usize, since: Epoch) -> Vec<u32> {
        let mut idle: Vec<(Epoch, u32)> =
            self.given.values().filter(|given| given.used < epoch).map(|given| (given.used, given.id)).collect();
        let Some(excess) = idle.len().checked_sub(kept).filter(|&excess| excess > 0) else { return Vec::new() };
        idle.sort_unstable();
        idle.truncate(excess);
        idle.retain(|(used, _)| *used < since);
        let Some(&(newest, last)) = idle.last() else { return Vec::new() };
        self.given.retain(|_, given| given.used > newest || (given.used == newest && given.id > last));
        let freed: Vec<u32> = idle.into_iter().map(|(_, id)| id).collect();
        self.free.extend(&freed);
        freed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_stays_while_it_is_used_and_comes_back_when_it_is_long_unused() {
        let mut ids = Ids::default();
        assert_eq!((ids.id(&"kept", 1), ids.id(&"a", 1)), ((0, true), (1, true)));
        assert_eq!((ids.id(&"kept", 2), ids.id(&"b", 2)), ((0, false), (2, true)));
        assert_eq!(ids.retire(2, 1, u64::MAX), [0; 0], "one may be unused");
        assert_eq!(ids.id(&"kept", 3), (0, false));
        assert_eq!(ids.retire(3, 1, u64::MAX), [1]);
        assert_eq!((ids.id(&"b", 4), ids.id(&"a", 4)), ((2, false), (1, true)));
    }

    #[test]
    fn memory_is_bounded_however_many_come_and_go() {
        let mut ids = Ids::default();
        for epoch in 1..10_000u64 {
            ids.id(&"stays".to_owned(), epoch);
            ids.id(&format!("goes-{epoch}"), epoch);
            ids.retire(epoch, 16, u64::MAX);
        }
        assert!(ids.next <= 19 && ids.given.len() <= 18, "{} {}", ids.next, ids.given.len());
        assert_eq!(ids.id(&"stays".to_owned(), 10_000), (0, false));
    }

    #[test]
    fn what_cores_may_still_use_is_not_taken_back() {
        let mut ids = Ids::default();
        ids.id(&"a", 1);
        ids.id(&"b", 2);
        assert_eq!(ids.retire(3, 0, 2), [0]);
        assert_eq!(ids.retire(3, 0, 3), [1]);
        assert_eq!(ids.id(&"c", 4), (0, true));
    }
}
