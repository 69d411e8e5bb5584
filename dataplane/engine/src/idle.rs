//! What a core does while there is nothing to do.
//!
//! Polling never sleeps. Adaptive looks for a while and then sleeps, so that an idle appliance leaves its CPU to others and to power saving:
//!
//! - Where all devices of a core have interrupts, until one of them has a frame, another thread has something for the core ([`pmd::Waker`]), or
//!   something is due.
//! - Else in short naps. A nap ends when something is due, and after 10 µs in any case: whatever arrives meanwhile, from a device or from
//!   another core, waits no longer than the nap and what the kernel takes to end it.

use core::time::Duration;

use pmd::{Sleeper, WokenBy};
use tables::counters::{Resting, Rests};

use crate::clock::{Clock, Instant};

/// Whether an idle core sleeps, and how.
#[derive(Debug, Default)]
pub enum Idle {
    /// Never.
    #[default]
    Polling,
    /// In short naps.
    Naps,
    /// Until it is woken. All lanes of the core have to be watched by this sleeper.
    Interrupts(Sleeper),
}

impl Idle {
    /// For listings.
    #[must_use]
    pub fn resting(&self) -> Resting {
        match self {
            Self::Polling => Resting::Polling,
            Self::Naps => Resting::Naps,
            Self::Interrupts(_) => Resting::Interrupts,
        }
    }
}

/// Without anything to do for so long, a core sleeps: longer than the answer of a neighbor on the same switch takes, so that a busy core
/// never does.
const LOOKING: Duration = Duration::from_micros(50);

/// The longest nap. What a kernel takes to wake a thread comes on top: on a virtual machine 23 µs passed in the median, and 43 µs at most in 99 of 100
/// naps; with naps of 20 µs it was 44 and 79.
pub(crate) const NAP: Duration = Duration::from_micros(10);

/// The longest sleep of a core that is woken: as long as its numbers may be old ([`crate::core`]), so that control sees it alive and
/// what nobody wakes for (a link's state, a listing) waits no longer.
const SLEEP: Duration = Duration::from_millis(10);

/// Naps shorter than this are not worth the system call.
const SHORTEST: Duration = Duration::from_micros(5);

/// Sleeps shorter than this are not worth those that switch interrupts.
const SHORTEST_SLEEP: Duration = Duration::from_micros(20);

/// Decides when to sleep.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    /// When there was last something to do.
    busy: Instant,
}

impl Rest {
    /// To be called after each turn: for how long to sleep, if at all. `due` says when something is due, where nothing arrives before.
    #[inline]
    pub(crate) fn after(
        &mut self,
        turn: Instant,
        busy: bool,
        idle: &Idle,
        due: impl FnOnce() -> Option<Instant>,
    ) -> Option<Duration> {
        let (most, shortest) = match idle {
            Idle::Polling => return None,
            Idle::Naps => (NAP, SHORTEST),
            Idle::Interrupts(_) => (SLEEP, SHORTEST_SLEEP),
        };
        if busy {
            self.busy = turn;
        }
        if turn - self.busy < LOOKING {
            return None;
        }
        let sleep = due().map_or(most, |due| (due - turn).min(most));
        (sleep >= shortest).then_some(sleep)
    }
}

/// How long a core that is woken may sleep at `now`.
pub(crate) fn until(now: Instant, due: Option<Instant>) -> Duration {
    due.map_or(SLEEP, |due| (due - now).min(SLEEP))
}

/// Naps for `duration`.
pub(crate) fn nap(duration: Duration, clock: &Clock, rests: &Rests) {
    let asleep = clock.now();
    clock.nap(duration);
    rests.napped(clock.now().since(asleep));
}

/// Sleeps for `duration` at most.
pub(crate) fn sleep(sleeper: &Sleeper, duration: Duration, clock: &Clock, rests: &Rests) {
    let asleep = clock.now();
    let woken = match sleeper.sleep(duration) {
        WokenBy::Device => &rests.woken_by_device,
        WokenBy::Call => &rests.woken_by_call,
        WokenBy::Time => &rests.woken_by_time,
    };
    woken.add(1);
    rests.asleep_nanoseconds.add(clock.now().since(asleep));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_sleeps_once_it_was_idle_and_wakes_for_what_is_due() {
        let at = |us: u64| Instant(us * 1000);
        for (idle, most, shortest) in
            [(Idle::Naps, NAP, SHORTEST), (Idle::Interrupts(Sleeper::new().unwrap()), SLEEP, SHORTEST_SLEEP)]
        {
            let mut rest = Rest::default();
            assert_eq!(rest.after(at(100), true, &idle, || None), None);
            assert_eq!(rest.after(at(149), false, &idle, || None), None);
            assert_eq!(rest.after(at(150), false, &idle, || None), Some(most));
            let (least, less) = (at(150) + shortest, Instant((at(150) + shortest).0 - 1));
            assert_eq!(rest.after(at(150), false, &idle, || Some(least)), Some(shortest));
            assert_eq!(rest.after(at(150), false, &idle, || Some(less)), None);
            assert_eq!(rest.after(at(150), false, &idle, || Some(at(100))), None);
            assert_eq!(rest.after(at(150), false, &idle, || Some(Instant::NEVER)), Some(most));
            assert_eq!(rest.after(at(160), true, &idle, || None), None, "there was something to do");
        }
        assert_eq!(Rest::default().after(at(150), false, &Idle::Polling, || None), None);
    }

    #[test]
    fn naps_and_sleeps_are_counted() {
        let (rests, clock) = (Rests::default(), Clock::start());
        nap(NAP, &clock, &rests);
        assert!(rests.nap_nanoseconds.read() >= NAP.as_nanos() as u64);
        let sleeper = Sleeper::new().unwrap();
        sleep(&sleeper, NAP, &clock, &rests);
        sleeper.lie_down();
        sleeper.waker().wake();
        sleep(&sleeper, SLEEP, &clock, &rests);
        let woken = [&rests.woken_by_device, &rests.woken_by_call, &rests.woken_by_time].map(|counter| counter.read());
        assert_eq!(woken, [0, 1, 1]);
        assert!(rests.asleep_nanoseconds.read() >= NAP.as_nanos() as u64);
    }
}
