//! How a table gets from control to a core without a lock.
//!
//! Each core has one slot (see [`slot`]): control puts a table in (the latest wins), the core looks once a
//! turn, swaps, acknowledges the epoch, and hands the old table back for control to free, so that a
//! polling core never frees one. If control stops taking old tables back, the core stops taking new ones: it runs on
//! with what it has, and nothing grows.

use core::sync::atomic::Ordering;
use std::sync::Arc;

use crate::sync::{ArrayQueue, AtomicU64};

/// Old tables that may wait to be freed. Publications are rare next to turns of control's loop, so a few suffice.
const RETIRED: usize = 8;

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
}

/// A slot for one core, which starts with `first`.
#[must_use]
pub fn slot<T: Versioned>(first: Arc<T>) -> (Publisher<T>, Subscriber<T>) {
    let slot = Arc::new(Slot {
        next: ArrayQueue::new(1),
        retired: ArrayQueue::new(RETIRED),
        acknowledged: AtomicU64::new(first.epoch()),
    });
    (Publisher(Arc::clone(&slot)), Subscriber { slot, current: first })
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

    /// Takes the next table if there is one, and says whether it did. Never blocks and never frees.
    #[inline]
    pub fn refresh(&mut self) -> bool {
        if self.slot.next.is_empty() || self.slot.retired.is_full() {
            return false;
        }
        let Some(next) = self.slot.next.pop() else {
            return false;
        };
        let epoch = next.epoch();
        let old = core::mem::replace(&mut self.current, next);
        // Cannot fail: this core is the only one that pushes, and there was room above.
        drop(self.slot.retired.push(old));
        self.slot.acknowledged.store(epoch, Ordering::Release);
        true
    }
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
