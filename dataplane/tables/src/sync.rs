//! What threads share: the standard library's, or loom's where it is being modelled (`tests/model.rs`).

#[cfg(loom)]
pub(crate) use self::modelled::ArrayQueue;
#[cfg(not(loom))]
pub(crate) use crossbeam_queue::ArrayQueue;
#[cfg(loom)]
pub(crate) use loom::sync::{
    Arc,
    atomic::{AtomicU64, fence},
};
#[cfg(not(loom))]
pub(crate) use std::sync::{
    Arc,
    atomic::{AtomicU64, fence},
};

#[cfg(loom)]
mod modelled {
    use std::collections::VecDeque;

    use loom::sync::{Mutex, MutexGuard};

    /// crossbeam's queue as it is documented: each call happens at one moment.
    #[derive(Debug)]
    pub(crate) struct ArrayQueue<T> {
        items: Mutex<VecDeque<T>>,
        capacity: usize,
    }

    impl<T> ArrayQueue<T> {
        pub(crate) fn new(capacity: usize) -> Self {
            Self { items: Mutex::new(VecDeque::new()), capacity }
        }

        pub(crate) fn push(&self, item: T) -> Result<(), T> {
            let mut items = self.lock();
            if items.len() == self.capacity {
                return Err(item);
            }
            items.push_back(item);
            Ok(())
        }

        pub(crate) fn force_push(&self, item: T) -> Option<T> {
            let mut items = self.lock();
            let oldest = if items.len() == self.capacity { items.pop_front() } else { None };
            items.push_back(item);
            oldest
        }

        pub(crate) fn pop(&self) -> Option<T> {
            self.lock().pop_front()
        }

        pub(crate) fn is_empty(&self) -> bool {
            self.lock().is_empty()
        }

        pub(crate) fn is_full(&self) -> bool {
            self.lock().len() == self.capacity
        }

        fn lock(&self) -> MutexGuard<'_, VecDeque<T>> {
            self.items.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
        }
    }
}
