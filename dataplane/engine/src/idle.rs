//! What a core does while there is nothing to do.
//!
//! Polling never sleeps. Adaptive looks for a while and then sleeps in short naps, so that an idle appliance leaves its CPU to others and
//! to power saving. A nap ends when something is due, and after 10 µs in any case: whatever arrives meanwhile, from a device or from
//! another core, waits no longer than the nap and what the kernel takes to end it.

use core::time::Duration;

use tables::counters::Naps;

use crate::clock::{Clock, Instant};

/// Whether an idle core sleeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Idle {
    /// Never.
    #[default]
    Polling,
    /// In short naps.
    Adaptive,
}

/// Without anything to do for so long, a core naps: longer than the answer of a neighbor on the same switch takes, so that a busy core
/// never does.
const LOOKING: Duration = Duration::from_micros(50);

/// The longest nap. What a kernel takes to wake a thread comes on top: on a virtual machine 23 µs passed in the median, and 43 µs at most in 99 of 100
/// naps; with naps of 20 µs it was 44 and 79.
const NAP: Duration = Duration::from_micros(10);

/// Naps shorter than this are not worth the system call.
const SHORTEST: Duration = Duration::from_micros(5);

/// Decides about naps.
#[derive(Debug)]
pub(crate) struct Rest {
    idle: Idle,
    /// When there was last something to do.
    busy: Instant,
}

impl Rest {
    pub(crate) fn new(idle: Idle) -> Self {
        Self { idle, busy: Instant::default() }
    }

    /// To be called after each turn: `due` says when something is due, where nothing arrives before.
    #[inline]
    pub(crate) fn after(
        &mut self,
        turn: Instant,
        busy: bool,
        clock: &Clock,
        naps: &Naps,
        due: impl FnOnce() -> Option<Instant>,
    ) {
        if self.idle == Idle::Polling {
            return;
        }
        if busy {
            self.busy = turn;
        } else if let Some(nap) = self.nap(turn, due) {
            let asleep = clock.now();
            clock.nap(nap);
            naps.slept(clock.now().since(asleep));
        }
    }

    /// How long to sleep, if at all.
    fn nap(&self, now: Instant, due: impl FnOnce() -> Option<Instant>) -> Option<Duration> {
        if now - self.busy < LOOKING {
            return None;
        }
        let nap = due().map_or(NAP, |due| (due - now).min(NAP));
        (nap >= SHORTEST).then_some(nap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_naps_once_it_was_idle_and_wakes_for_what_is_due() {
        let mut rest = Rest::new(Idle::Adaptive);
        let at = |us: u64| Instant(us * 1000);
        rest.after(at(100), true, &Clock::start(), &Naps::default(), || None);
        assert_eq!(rest.nap(at(149), || None), None);
        assert_eq!(rest.nap(at(150), || None), Some(NAP));
        assert_eq!(rest.nap(at(150), || Some(at(157))), Some(Duration::from_micros(7)));
        assert_eq!(rest.nap(at(150), || Some(at(151))), None);
        assert_eq!(rest.nap(at(150), || Some(at(100))), None);
        assert_eq!(rest.nap(at(150), || Some(Instant::NEVER)), Some(NAP));
        let naps = Naps::default();
        rest.after(at(150), false, &Clock::start(), &naps, || None);
        assert!(naps.nanoseconds.read() >= NAP.as_nanos() as u64);
    }
}
