//! Whether whoever reads from a ring sleeps, and has to be rung for.
//!
//! The reader lies down, looks once more, and sleeps; the writer publishes, and asks whether to ring. One of the two sees the other: either the
//! reader finds what was published, or the writer finds it lying. How it sleeps and how it is rung for is not decided here.

use std::sync::atomic::Ordering;

use crate::sync::{AtomicBool, fence};

/// The flag between one sleeper and all who may wake it.
#[derive(Debug)]
#[repr(align(128))]
pub struct Bell(AtomicBool);

impl Default for Bell {
    fn default() -> Self {
        Self::new()
    }
}

impl Bell {
    /// Of somebody who is up.
    #[must_use]
    pub fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Called by the sleeper, before it looks for the last time.
    pub fn lie_down(&self) {
        self.0.store(true, Ordering::Relaxed);
        // Between this store and the last look at the rings; the other half is in `must_ring`.
        fence(Ordering::SeqCst);
    }

    /// Called by the sleeper once it looks again by itself.
    pub fn get_up(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Called by a writer behind what it published: whether it is the one to ring. Of several, one is.
    #[inline]
    #[must_use]
    pub fn must_ring(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::Relaxed)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn one_of_several_rings_and_only_for_who_lies() {
        let bell = Bell::default();
        assert!(!bell.must_ring());
        bell.lie_down();
        assert!(bell.must_ring());
        assert!(!bell.must_ring());
        bell.lie_down();
        bell.get_up();
        assert!(!bell.must_ring());
    }
}
