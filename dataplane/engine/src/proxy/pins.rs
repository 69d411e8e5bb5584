//! Which snapshots are still needed: a request is served by the tables that it began under, until its response begins.

use arrayvec::ArrayVec;
use tables::Epoch;
use tables::publish::HELD;

/// How many requests need the tables of each epoch.
#[derive(Debug, Default)]
pub(super) struct Pins {
    epoch: Epoch,
    /// Requests that need those of `epoch`, which the core runs.
    current: u32,
    /// Requests that need older ones, the oldest first.
    older: ArrayVec<(Epoch, u32), HELD>,
    /// An older one is no longer needed.
    vacated: bool,
}

impl Pins {
    pub(super) fn new(epoch: Epoch) -> Self {
        Self { epoch, ..Self::default() }
    }

    /// A request begins, under the current tables.
    #[inline]
    pub(super) fn pin(&mut self) {
        self.current += 1;
    }

    /// A request that began under those of `epoch` needs them no longer.
    #[inline]
    pub(super) fn unpin(&mut self, epoch: Epoch) {
        if epoch == self.epoch {
            self.current -= 1;
        } else {
            self.unpin_older(epoch);
        }
    }

    #[cold]
    fn unpin_older(&mut self, epoch: Epoch) {
        // Not there where too many epochs were in use.
        let Some(at) = self.older.iter().position(|(older, _)| *older == epoch) else { return };
        if let Some((_, count)) = self.older.get_mut(at) {
            *count -= 1;
            if *count == 0 {
                self.older.remove(at);
                self.vacated = true;
            }
        }
    }

    /// The core runs the tables of `epoch` from now on. As [`tables::publish::Subscriber`] does, it gives up the oldest where there are too many.
    pub(super) fn swap(&mut self, epoch: Epoch) {
        if self.current > 0 {
            if self.older.len() + 1 >= HELD {
                self.older.remove(0);
            }
            self.older.push((self.epoch, self.current));
        }
        (self.epoch, self.current) = (epoch, 0);
    }

    /// The epoch that the core runs.
    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether a request needs the current tables.
    #[inline]
    pub(super) fn is_current_needed(&self) -> bool {
        self.current > 0
    }

    /// Whether a request needs the older tables of `epoch`.
    pub(super) fn needs(&self, epoch: Epoch) -> bool {
        self.older.iter().any(|(older, _)| *older == epoch)
    }

    /// Whether older tables can be handed back, until [`Pins::handed_back`].
    #[inline]
    pub(super) fn has_vacated(&self) -> bool {
        self.vacated
    }

    pub(super) fn handed_back(&mut self) {
        self.vacated = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_needed_until_the_last_request_of_their_epoch() {
        let mut pins = Pins::new(1);
        pins.pin();
        pins.pin();
        pins.swap(2);
        assert!(pins.needs(1) && !pins.is_current_needed());
        pins.pin();
        pins.unpin(1);
        assert!(pins.needs(1) && !pins.has_vacated());
        pins.unpin(2);
        pins.unpin(1);
        assert!(!pins.needs(1) && pins.has_vacated());
        pins.handed_back();
        pins.swap(3);
        assert!(!pins.needs(2) && !pins.has_vacated(), "nobody began under 2");
    }

    #[test]
    fn of_too_many_epochs_the_oldest_is_given_up() {
        let mut pins = Pins::new(0);
        for epoch in 1..=HELD as u64 {
            pins.pin();
            pins.swap(epoch);
        }
        assert!(!pins.needs(0) && pins.needs(1));
        pins.unpin(0);
        assert!(!pins.has_vacated());
    }
}
