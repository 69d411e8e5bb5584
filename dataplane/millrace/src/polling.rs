//! The thread of one polling core: pinned, known to DPDK, and started again where the core panics.

use core::panic::AssertUnwindSafe;
use core::time::Duration;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use control::CoreSeat;
use control::runtime::Usher;
use engine::clock::Clock;
use engine::core::{Core, CoreInput};
use pmd::{DpdkLane, Eal};
use rustix::rand::{GetRandomFlags, getrandom};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tables::CoreSettings;
use tables::lifecycle::{Lifecycle, Stage};

/// A core that panics more often than this within [`RESTART_WINDOW`] is not started again: what makes it panic
/// does not pass.
const RESTARTS: usize = 10;

/// See [`RESTARTS`].
const RESTART_WINDOW: Duration = Duration::from_secs(60);

/// What a polling thread is made from.
pub(crate) struct Polling {
    /// The CPU it is pinned to.
    pub(crate) cpu: u16,
    /// DPDK.
    pub(crate) eal: Eal,
    /// Its lane of each port.
    pub(crate) lanes: Vec<DpdkLane>,
    /// What does not change.
    pub(crate) settings: CoreSettings,
    /// Its first seat.
    pub(crate) seat: CoreSeat,
    /// Gives it another.
    pub(crate) usher: Usher,
}

/// How a polling thread ended: well, or with what was in its way.
pub(crate) type Ended = Result<(), String>;

/// Starts the thread.
///
/// # Errors
/// The operating system has no thread left.
pub(crate) fn start(polling: Polling) -> io::Result<JoinHandle<Ended>> {
    std::thread::Builder::new().name(format!("core-{}", polling.seat.index)).spawn(move || {
        // However it ends: nobody has to wait for this core any more.
        let _stopped = StoppedOnDrop(Arc::clone(&polling.seat.lifecycle));
        poll(polling)
    })
}

/// Takes this thread, and those that it will start, off the polling CPUs. Says whether other CPUs were left.
pub(crate) fn leave_cpus(cpus: &[u16]) -> bool {
    let Ok(mut set) = sched_getaffinity(None) else {
        return false;
    };
    for &cpu in cpus {
        set.unset(usize::from(cpu));
    }
    set.count() > 0 && sched_setaffinity(None, &set).is_ok()
}

struct StoppedOnDrop(Arc<Lifecycle>);

impl Drop for StoppedOnDrop {
    fn drop(&mut self) {
        self.0.advance(Stage::Stopped);
    }
}

fn poll(polling: Polling) -> Ended {
    let Polling { cpu, eal, mut lanes, settings, mut seat, usher } = polling;
    let mut set = CpuSet::new();
    set.set(usize::from(cpu));
    sched_setaffinity(None, &set).map_err(|error| format!("cannot be pinned to CPU {cpu}: {error}"))?;
    let _registered = eal.register_thread().map_err(|error| error.to_string())?;
    let clock = Clock::start();
    let index = seat.index;
    let mut restarts: Vec<Instant> = Vec::new();
    loop {
        let mut core = Core::new(CoreInput {
            index,
            lanes,
            settings: settings.clone(),
            snapshot: seat.snapshot,
            counters: seat.counters,
            lifecycle: seat.lifecycle,
            access: seat.access,
            seed: seed()?,
        });
        if std::panic::catch_unwind(AssertUnwindSafe(|| core.run(&clock))).is_ok() {
            return Ok(());
        }
        // The panic hook has said where. The connections are lost; the lanes are not, because only a core's own state can
        // be half changed.
        restarts.retain(|at| at.elapsed() < RESTART_WINDOW);
        restarts.push(Instant::now());
        if restarts.len() > RESTARTS {
            return Err(format!("panicked {} times within {} s", restarts.len(), RESTART_WINDOW.as_secs()));
        }
        lanes = std::panic::catch_unwind(AssertUnwindSafe(|| core.into_lanes()))
            .map_err(|_| "panicked, and its lanes were lost with it".to_owned())?;
        seat = usher.seat(index).ok_or("has no seat")?;
        tracing::error!(core = index, "a core panicked; its connections are lost, and it starts again");
    }
}

/// Secrets come from the operating system; each start of a core has its own.
fn seed() -> Result<u64, String> {
    let mut bytes = [0; 8];
    match getrandom(&mut bytes, GetRandomFlags::empty()) {
        Ok(8) => Ok(u64::from_ne_bytes(bytes)),
        Ok(_) => Err("the operating system gave too little randomness".to_owned()),
        Err(error) => Err(format!("the operating system gave no randomness: {error}")),
    }
}
