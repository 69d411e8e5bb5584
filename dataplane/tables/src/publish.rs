//! How a table gets from control to a core without a lock.
//!
//! Each core has one slot (see [`slot`]): control puts a table in (the latest wins), the core looks once a
//! turn, swaps, acknowledges the epoch, and hands the old table back for control to free, so that a
//! polling core never frees one. If control stops taking old tables back, the core stops taking new ones: it runs on
//! with what it has, and nothing grows.
//!
//! What began under a table may end under it: a core holds a few old tables back for as long as it needs them.

use core::sync::atomic::Ordering;
use std::sync::Arc;

use crate::sync::{ArrayQueue, AtomicU64};

/// Old tables that may wait to be freed. Publications are rare next to turns of control's loop, so a few suffice.
const RETIRED: usize = 8;

/// Old tables that a core holds back stay below this number. With more of them in use at a time, the oldest goes all the same: configurations that change
/// often, and what never ends, must not add up to memory without bound.
pub const HELD: usize = 32;

/// A table with an epoch.
pub trait Versioned {
    /// The number that says which of two tables is newer.
    fn epoch(&self) -> u64;
}

#[derive(Debug)]
struct Slot<T> {
    next: ArrayQueue<Arc<T>>,
    retired: ArrayQueue<Arc<T>>,
    acknowledged: AtomicU64,
}

/// Control's end of one core's slot.
#[derive(Debug)]
pub struct Publisher<T>(Arc<Slot<T>>);

/// The core's end of its slot, with the table it runs.
#[derive(Debug)]
pub struct Subscriber<T> {
    slot: Arc<Slot<T>>,
    current: Arc<T>,
    /// Older ones that are still needed, the oldest first; fewer than [`HELD`].
    held: Vec<Arc<T>>,
}

/// A slot for one core, which starts with `first`.
#[must_use]
pub fn slot<T: Versioned>(first: Arc<T>) -> (Publisher<T>, Subscriber<T>) {
    let slot = Arc::new(Slot {
        next: ArrayQueue::new(1),
        retired: ArrayQueue::new(RETIRED),
        acknowledged: AtomicU64::new(first.epoch()),
    });
    let held = Vec::with_capacity(HELD);
    (Publisher(Arc::clone(&slot)), Subscriber { slot, current: first, held })
}

impl<T: Versioned> Publisher<T> {
    /// Makes `table` the next that the core takes; one that it had not taken yet is dropped here.
    pub fn publish(&self, table: Arc<T>) {
        drop(self.0.next.force_push(table));
    }

    /// Frees what the core handed back. To be called now and then.
    pub fn reclaim(&self) -> usize {
        core::iter::from_fn(|| self.0.retired.pop()).count()
    }

    /// The epoch that the core runs.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.0.acknowledged.load(Ordering::Acquire)
    }
}

impl<T: Versioned> Subscriber<T> {
    /// The table that this core runs.
    #[inline]
    #[must_use]
    pub fn current(&self) -> &T {
        &self.current
    }

    /// The table of this epoch, if this core runs it or holds it.
    #[inline]
    #[must_use]
    pub fn table(&self, epoch: u64) -> Option<&T> {
        if self.current.epoch() == epoch { Some(&self.current) } else { find(&self.held, epoch) }
    }

    /// The tables that are held back, the oldest first.
    #[must_use]
    pub fn held(&self) -> &[Arc<T>] {
        &self.held
    }

    /// Takes the next table if there is one, and says whether it did. Never blocks and never frees.
    #[inline]
    pub fn refresh(&mut self) -> bool {
        self.refresh_holding(false)
    }

    /// The same; where `hold`, the table that was run until now is held back until [`Subscriber::release`] lets it go.
    #[inline]
    pub fn refresh_holding(&mut self, hold: bool) -> bool {
        if self.slot.next.is_empty() || self.slot.retired.is_full() {
            return false;
        }
        let Some(next) = self.slot.next.pop() else {
            return false;
        };
        let epoch = next.epoch();
        let mut old = core::mem::replace(&mut self.current, next);
        if hold {
            self.held.push(old);
            if self.held.len() < HELD {
                self.slot.acknowledged.store(epoch, Ordering::Release);
                return true;
            }
            old = self.held.remove(0);
        }
        // Cannot fail: this core is the only one that pushes, and there was room above.
        drop(self.slot.retired.push(old));
        self.slot.acknowledged.store(epoch, Ordering::Release);
        true
    }

    /// Hands back the held tables whose epochs are not `needed`. Says whether it is done with them: control may have to make room first.
    pub fn release(&mut self, needed: impl Fn(u64) -> bool) -> bool {
        let mut position = 0;
        // At most HELD steps.
        while let Some(table) = self.held.get(position) {
            if needed(table.epoch()) {
                position += 1;
            } else if self.slot.retired.is_full() {
                return false;
            } else {
                let old = self.held.remove(position);
                // Cannot fail: this core is the only one that pushes, and there is room.
                drop(self.slot.retired.push(old));
            }
        }
        true
    }
}

/// The table of this epoch.
#[must_use]
pub fn find<T: Versioned>(held: &[Arc<T>], epoch: u64) -> Option<&T> {
    held.iter().rev().find(|table| table.epoch() == epoch).map(|table| &**table)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Table(u64);
    impl Versioned for Table {
        fn epoch(&self) -> u64 {
            self.0
        }
    }

    #[test]
    fn the_latest_wins_and_is_acknowledged() {
        let (publisher, mut subscriber) = slot(Arc::new(Table(1)));
        assert!(!subscriber.refresh());
        publisher.publish(Arc::new(Table(2)));
        publisher.publish(Arc::new(Table(3)));
        assert_eq!((publisher.acknowledged(), subscriber.current().0), (1, 1));
        assert!(subscriber.refresh());
        assert_eq!((publisher.acknowledged(), subscriber.current().0), (3, 3));
        assert!(!subscriber.refresh());
    }

    #[test]
    fn the_core_never_frees_a_table() {
        let first = Arc::new(Table(1));
        let watch = Arc::downgrade(&first);
        let (publisher, mut subscriber) = slot(first);
        publisher.publish(Arc::new(Table(2)));
        assert!(subscriber.refresh());
        assert!(watch.upgrade().is_some(), "still held for control");
        assert_eq!(publisher.reclaim(), 1);
        assert!(watch.upgrade().is_none());
    }

    #[test]
    fn a_core_whose_old_tables_nobody_takes_keeps_its_table() {
        let (publisher, mut subscriber) = slot(Arc::new(Table(0)));
        for epoch in 1..=RETIRED as u64 {
            publisher.publish(Arc::new(Table(epoch)));
            assert!(subscriber.refresh());
        }
        publisher.publish(Arc::new(Table(99)));
        assert!(!subscriber.refresh());
        assert_eq!(subscriber.current().0, RETIRED as u64);
        assert_eq!(publisher.reclaim(), RETIRED);
        assert!(subscriber.refresh());
        assert_eq!(subscriber.current().0, 99);
    }

    #[test]
    fn a_table_in_use_is_held_and_of_too_many_the_oldest_goes() {
        let (publisher, mut subscriber) = slot(Arc::new(Table(0)));
        let held = |subscriber: &Subscriber<Table>| subscriber.held().iter().map(|t| t.0).collect::<Vec<_>>();
        for epoch in 1..=3 {
            publisher.publish(Arc::new(Table(epoch)));
            assert!(subscriber.refresh_holding(epoch != 2));
        }
        assert_eq!(held(&subscriber), [0, 2]);
        assert_eq!((subscriber.table(2).map(|t| t.0), subscriber.table(1).map(|t| t.0)), (Some(2), None));
        assert_eq!(publisher.reclaim(), 1);
        assert!(subscriber.release(|epoch| epoch == 2));
        assert_eq!((held(&subscriber), publisher.reclaim()), (vec![2], 1));
        for epoch in 4..100 {
            publisher.publish(Arc::new(Table(epoch)));
            assert!(subscriber.refresh_holding(true));
            publisher.reclaim();
        }
        assert_eq!(subscriber.held().len(), HELD - 1);
        assert_eq!(subscriber.held()[0].0, 99 - (HELD as u64 - 1));
        // Nobody takes tables back: what does not fit stays, and goes later.
        assert!(!subscriber.release(|_| false));
        assert_eq!(subscriber.held().len(), HELD - 1 - RETIRED);
        while !subscriber.release(|_| false) {
            publisher.reclaim();
        }
        assert!(subscriber.held().is_empty());
    }

    #[test]
    fn across_threads_epochs_only_grow() {
        let (publisher, mut subscriber) = slot(Arc::new(Table(0)));
        let core = std::thread::spawn(move || {
            let mut last = 0;
            while last < 10_000 {
                if subscriber.refresh() {
                    assert!(subscriber.current().0 > last);
                    last = subscriber.current().0;
                }
                std::hint::spin_loop();
            }
        });
        for epoch in 1..=10_000 {
            publisher.publish(Arc::new(Table(epoch)));
            publisher.reclaim();
        }
        while !core.is_finished() {
            publisher.reclaim();
        }
        core.join().unwrap();
        assert_eq!(publisher.acknowledged(), 10_000);
    }
}
