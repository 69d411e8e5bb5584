//! What a core says about its swaps from one snapshot to the next: a few words that the core writes and control reads, without a lock.

use core::sync::atomic::{AtomicU64, Ordering, fence};

/// Swaps that are remembered. Control looks at each soon after it asked for it.
const KEPT: usize = 16;

/// One core's last swaps.
#[derive(Debug, Default)]
pub struct Swaps {
    cells: [Cell; KEPT],
    swept: AtomicU64,
    held: AtomicU64,
}

/// A swap is written while `epoch` is 0.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Cell {
    epoch: AtomicU64,
    from: AtomicU64,
    at: AtomicU64,
    requests: AtomicU64,
    running: AtomicU64,
    first_at: AtomicU64,
}

/// How one core went from one epoch to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swap {
    /// The epoch that it ran before.
    pub from: u64,
    /// The epoch that it has run since.
    pub to: u64,
    /// When it switched, in nanoseconds of the cores' clock.
    pub at: u64,
    /// Requests that had begun by then, since the core's start: the number of the last one that the old tables decided about. The next
    /// one is the first under the new.
    pub requests: u64,
    /// Of those, the ones that were not finished. They end under the old tables.
    pub running: u64,
    /// When the first request under the new tables began; 0 before there is one.
    pub first_at: u64,
}

impl Swaps {
    /// Notes a swap, without its first request. Only the core calls it, and for larger epochs each time.
    pub fn switched(&self, swap: &Swap) {
        let Some(cell) = self.cell(swap.to) else { return };
        cell.epoch.store(0, Ordering::Relaxed);
        fence(Ordering::Release);
        cell.from.store(swap.from, Ordering::Relaxed);
        cell.at.store(swap.at, Ordering::Relaxed);
        cell.requests.store(swap.requests, Ordering::Relaxed);
        cell.running.store(swap.running, Ordering::Relaxed);
        cell.first_at.store(0, Ordering::Relaxed);
        cell.epoch.store(swap.to, Ordering::Release);
    }

    /// Notes that the first request under `epoch` began. Only the core calls it.
    pub fn first_request(&self, epoch: u64, at: u64) {
        if let Some(cell) = self.cell(epoch).filter(|cell| cell.epoch.load(Ordering::Relaxed) == epoch) {
            cell.first_at.store(at, Ordering::Relaxed);
        }
    }

    /// Notes that nothing waits any more for what `epoch` does not have. Only the core calls it.
    pub fn swept(&self, epoch: u64) {
        self.swept.store(epoch, Ordering::Release);
    }

    /// The newest epoch of which that was noted: no idle connection of the core is to an endpoint that this epoch does not have.
    #[must_use]
    pub fn last_swept(&self) -> u64 {
        self.swept.load(Ordering::Acquire)
    }

    /// Notes how many older tables requests still need. Only the core calls it.
    pub fn holds(&self, tables: usize) {
        self.held.store(tables as u64, Ordering::Relaxed);
    }

    /// Older tables that requests still need.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// The swap to `epoch`. `None` where the core has not done it, has passed it over, or has done many since.
    #[must_use]
    pub fn read(&self, epoch: u64) -> Option<Swap> {
        let cell = self.cell(epoch)?;
        if cell.epoch.load(Ordering::Acquire) != epoch {
            return None;
        }
        let swap = Swap {
            from: cell.from.load(Ordering::Relaxed),
            to: epoch,
            at: cell.at.load(Ordering::Relaxed),
            requests: cell.requests.load(Ordering::Relaxed),
            running: cell.running.load(Ordering::Relaxed),
            first_at: cell.first_at.load(Ordering::Relaxed),
        };
        fence(Ordering::Acquire);
        // Written over meanwhile: then it is as good as forgotten.
        (cell.epoch.load(Ordering::Relaxed) == epoch).then_some(swap)
    }

    fn cell(&self, epoch: u64) -> Option<&Cell> {
        self.cells.get(usize::try_from(epoch % KEPT as u64).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn swap(to: u64) -> Swap {
        Swap { from: to - 1, to, at: to * 10, requests: to * 100, running: 3, first_at: 0 }
    }

    #[test]
    fn a_swap_is_read_as_it_was_written_until_many_have_followed() {
        let swaps = Swaps::default();
        assert_eq!(swaps.read(5), None);
        swaps.switched(&swap(5));
        assert_eq!(swaps.read(5), Some(swap(5)));
        swaps.first_request(5, 77);
        assert_eq!(swaps.read(5), Some(Swap { first_at: 77, ..swap(5) }));
        swaps.switched(&swap(5 + KEPT as u64));
        assert_eq!(swaps.read(5), None);
        swaps.first_request(5, 99);
        assert_eq!(swaps.read(5 + KEPT as u64), Some(swap(5 + KEPT as u64)));
    }

    #[test]
    fn what_is_read_belongs_together() {
        let swaps = Swaps::default();
        std::thread::scope(|scope| {
            scope.spawn(|| (1..200_000).for_each(|epoch| swaps.switched(&swap(epoch))));
            for epoch in (1..200_000).cycle().take(400_000) {
                if let Some(read) = swaps.read(epoch) {
                    assert_eq!(read, swap(epoch));
                }
            }
        });
    }
}
