//! What control asks of a core beside its tables, and what the core answers.

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::inspect::{Inspection, Turns};
use crate::swap::Swaps;

/// What a core is asked to do, and how far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
    /// Serve.
    Running = 0,
    /// Accept nothing new, say `Connection: close`, finish what runs.
    Draining = 1,
    /// Reset what is left, and leave the loop.
    Stopping = 2,
    /// The core has left its loop.
    Stopped = 3,
}

/// One core's lifecycle: control raises the stage, the core reads it once a turn.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Lifecycle {
    stage: AtomicU8,
    /// Turns of the loop, written by the core every so often: it stands still when the core hangs.
    heartbeat: AtomicU64,
    /// How the core went from snapshot to snapshot, written by it.
    pub swaps: Swaps,
    /// Its connections, listed when asked for.
    pub connections: Inspection,
    /// Whose turn it is by its schedules, told when asked.
    pub turns: Turns,
}

impl Lifecycle {
    /// The stage asked for.
    #[inline]
    #[must_use]
    pub fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Running,
            1 => Stage::Draining,
            2 => Stage::Stopping,
            _ => Stage::Stopped,
        }
    }

    /// Asks for a later stage; an earlier one than now is ignored.
    pub fn advance(&self, stage: Stage) {
        self.stage.fetch_max(stage as u8, Ordering::AcqRel);
    }

    /// Written by the core.
    #[inline]
    pub fn beat(&self, turns: u64) {
        self.heartbeat.store(turns, Ordering::Relaxed);
    }

    /// Read by whoever watches over the core.
    #[must_use]
    pub fn heartbeat(&self) -> u64 {
        self.heartbeat.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_never_goes_back() {
        let lifecycle = Lifecycle::default();
        assert_eq!(lifecycle.stage(), Stage::Running);
        lifecycle.advance(Stage::Stopping);
        lifecycle.advance(Stage::Draining);
        assert_eq!(lifecycle.stage(), Stage::Stopping);
    }
}
