//! A bounded ring from one core to another: one producer, one consumer, first in, first out.
//!
//! The engine hands packets from core to core by it. Each side works on numbers of its own and touches the other's cache line once a
//! batch: what is pushed is seen after [`Producer::publish`], and room comes back after [`Consumer::release`]. It never waits and,
//! once made, never allocates. What is still in it when both sides are gone is dropped.
//!
//! `scripts/test` runs `tests/model.rs` with loom, which tries every interleaving of a small ring.

mod bell;
mod sync;

use std::mem::MaybeUninit;
use std::sync::atomic::Ordering;

pub use bell::Bell;
use sync::{Arc, AtomicUsize, UnsafeCell};

/// A ring for `capacity` items, rounded up to a power of two.
#[must_use]
pub fn ring<T>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    let capacity = capacity.max(1).next_power_of_two();
    let shared = Arc::new(Shared {
        written: Line(AtomicUsize::new(0)),
        read: Line(AtomicUsize::new(0)),
        slots: (0..capacity).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect(),
    });
    (
        Producer { shared: Arc::clone(&shared), next: 0, published: 0, read: 0 },
        Consumer { shared, next: 0, released: 0, written: 0 },
    )
}

/// The writing end, owned by one core.
#[derive(Debug)]
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
    /// Items pushed so far, modulo 2^64.
    next: usize,
    /// Of those, the ones that the consumer may see.
    published: usize,
    /// Items read, as last seen.
    read: usize,
}

/// The reading end, owned by one core.
#[derive(Debug)]
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
    /// Items popped so far, modulo 2^64.
    next: usize,
    /// Of those, the ones whose room was given back.
    released: usize,
    /// Items published, as last seen.
    written: usize,
}

#[derive(Debug)]
struct Shared<T> {
    /// Items published by the producer, who alone writes it.
    written: Line<AtomicUsize>,
    /// Items whose room the consumer, who alone writes it, gave back.
    read: Line<AtomicUsize>,
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
}

/// A cache line of its own, and the one beside it, which x86 fetches along.
#[derive(Debug)]
#[repr(align(128))]
struct Line<T>(T);

// SAFETY: a slot is written by the producer while `written - read` says that it is free, and read by the consumer once `written` says that
// it is full; the Release stores and Acquire loads of the two numbers order those accesses. So items only move from one thread to another.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T> Shared<T> {
    #[inline]
    fn slot(&self, at: usize) -> &UnsafeCell<MaybeUninit<T>> {
        // The length is a power of two and not 0.
        &self.slots[at & (self.slots.len() - 1)]
    }
}

impl<T> Producer<T> {
    /// Puts `item` behind the others. It is not seen before [`Producer::publish`].
    ///
    /// # Errors
    /// The item, where the ring is full.
    #[inline]
    pub fn push(&mut self, item: T) -> Result<(), T> {
        if self.next.wrapping_sub(self.read) >= self.shared.slots.len() {
            self.read = self.shared.read.0.load(Ordering::Acquire);
            if self.next.wrapping_sub(self.read) >= self.shared.slots.len() {
                return Err(item);
            }
        }
        // SAFETY: the slot is free, since fewer items than slots were pushed and not given back, and only this producer writes slots. The
        // Acquire load of `read` came after the consumer moved the last item out of it.
        self.shared.slot(self.next).with_mut(|slot| unsafe { (*slot).write(item) });
        self.next = self.next.wrapping_add(1);
        Ok(())
    }

    /// Lets the consumer see all that was pushed. Says whether that was anything.
    #[inline]
    pub fn publish(&mut self) -> bool {
        let any = self.published != self.next;
        if any {
            self.published = self.next;
            self.shared.written.0.store(self.next, Ordering::Release);
        }
        any
    }

    /// Items that fit at most.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shared.slots.len()
    }
}

impl<T> Drop for Producer<T> {
    /// So that the ring knows all its items, and drops them.
    fn drop(&mut self) {
        self.publish();
    }
}

impl<T> Consumer<T> {
    /// Takes the oldest item that was published. Its room is not given back before [`Consumer::release`].
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        if self.next == self.written {
            self.written = self.shared.written.0.load(Ordering::Acquire);
            if self.next == self.written {
                return None;
            }
        }
        // SAFETY: the slot holds an item, since `written` is ahead of `next`, and the Acquire load of it came after the producer wrote the
        // slot. Each number is passed once, so that the item is moved out once.
        let item = self.shared.slot(self.next).with_mut(|slot| unsafe { (*slot).assume_init_read() });
        self.next = self.next.wrapping_add(1);
        Some(item)
    }

    /// Gives back the room of all that was popped.
    #[inline]
    pub fn release(&mut self) {
        if self.released != self.next {
            self.released = self.next;
            self.shared.read.0.store(self.next, Ordering::Release);
        }
    }

    /// Whether there is nothing to pop now.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.next == self.written && self.shared.written.0.load(Ordering::Acquire) == self.next
    }
}

impl<T> Drop for Consumer<T> {
    /// So that the ring does not drop again what was popped.
    fn drop(&mut self) {
        self.release();
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // Both ends are gone, and have said how far they came.
        let (mut at, end) = (self.read.0.load(Ordering::Acquire), self.written.0.load(Ordering::Acquire));
        while at != end {
            // SAFETY: nobody else is left, and the items between the two numbers were published and not popped.
            self.slot(at).with_mut(|slot| unsafe { (*slot).assume_init_drop() });
            at = at.wrapping_add(1);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn items_come_out_in_order_and_room_comes_back() {
        let (mut producer, mut consumer) = ring(4);
        assert_eq!(producer.capacity(), 4);
        for round in 0..10 {
            for item in 0..4 {
                assert_eq!(producer.push(round * 4 + item), Ok(()));
            }
            assert_eq!(producer.push(99), Err(99));
            assert!(consumer.is_empty(), "not published");
            producer.publish();
            assert!(!consumer.is_empty());
            for item in 0..4 {
                assert_eq!(consumer.pop(), Some(round * 4 + item));
            }
            assert_eq!(consumer.pop(), None);
            assert_eq!(producer.push(99), Err(99), "not released");
            consumer.release();
        }
    }

    #[test]
    fn what_is_left_is_dropped_once() {
        use std::sync::Arc;
        let item = Arc::new(());
        let (mut producer, mut consumer) = ring(8);
        for _ in 0..5 {
            producer.push(Arc::clone(&item)).unwrap();
        }
        producer.publish();
        drop(consumer.pop());
        producer.push(Arc::clone(&item)).unwrap();
        assert_eq!(Arc::strong_count(&item), 6);
        drop(consumer);
        assert_eq!(Arc::strong_count(&item), 6);
        drop(producer);
        assert_eq!(Arc::strong_count(&item), 1);
    }

    #[test]
    fn across_threads_nothing_is_lost_or_overtaken() {
        const ITEMS: u64 = 200_000;
        let (mut producer, mut consumer) = ring(64);
        let reader = std::thread::spawn(move || {
            let mut expected = 0;
            while expected < ITEMS {
                while let Some(item) = consumer.pop() {
                    assert_eq!(item, expected);
                    expected += 1;
                }
                consumer.release();
                std::thread::yield_now();
            }
        });
        for item in 0..ITEMS {
            while producer.push(item).is_err() {
                producer.publish();
                std::thread::yield_now();
            }
            if item.is_multiple_of(7) {
                producer.publish();
            }
        }
        producer.publish();
        reader.join().unwrap();
    }
}
