//! The thread of one polling core: pinned, known to DPDK, and started again where the core panics.

use core::num::NonZeroU64;
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
use engine::exception::Exception;
use engine::idle::Idle;
use engine::steer::{Departure, Place, Steered};
use pmd::{DpdkLane, Eal, Lane};
use rustix::io::Errno;
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, getrlimit};
use rustix::rand::{GetRandomFlags, getrandom};
use rustix::thread::{
    CapabilitySet, CpuSet, capabilities, sched_getaffinity, sched_setaffinity, set_current_timer_slack,
};
use tables::CoreSettings;
use tables::lifecycle::{Lifecycle, Stage};

use crate::resume::Wakefulness;

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
    pub(crate) lanes: Vec<Steered<DpdkLane>>,
    /// Its end of each port's exception path.
    pub(crate) exceptions: Vec<Option<Exception<DpdkLane>>>,
    /// Its place among the cores.
    pub(crate) place: Place,
    /// The time that all cores live by.
    pub(crate) clock: Clock,
    /// What it does while there is nothing to do.
    pub(crate) idle: Idle,
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
        let _stopped = StoppedOnDrop(Arc::clone(&polling.seat.lifecycle), polling.place.departure.clone());
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

/// Keeps the program and its memory where they are: a page that the kernel took back costs a core that wants it a fault, and milliseconds where it has to
/// be read from a disk. What is mapped later stays from when it is first used.
pub(crate) fn stay_in_memory() {
    // With a limit, what is mapped later would be refused beyond it.
    let unbounded = capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK))
        || getrlimit(Resource::Memlock).current.is_none();
    let now = MlockAllFlags::CURRENT;
    let later = now | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    let locked = if unbounded { mlockall(now).and_then(|()| mlockall(later)) } else { Err(Errno::PERM) };
    if let Err(error) = locked {
        tracing::warn!(
            "memory is not locked ({error}): cores wait where the kernel takes pages back; CAP_IPC_LOCK, or memlock without a limit, would mend that"
        );
    }
}

struct StoppedOnDrop(Arc<Lifecycle>, Departure);

impl Drop for StoppedOnDrop {
    fn drop(&mut self) {
        self.0.advance(Stage::Stopped);
        self.1.agreed(true);
    }
}

fn poll(polling: Polling) -> Ended {
    let Polling { cpu, eal, lanes, exceptions, place, clock, idle, settings, seat, usher } = polling;
    let mut set = CpuSet::new();
    set.set(usize::from(cpu));
    sched_setaffinity(None, &set).map_err(|error| format!("cannot be pinned to CPU {cpu}: {error}"))?;
    let _registered = eal.register_thread().map_err(|error| error.to_string())?;
    let _wakefulness = match idle {
        Idle::Polling => None,
        Idle::Naps | Idle::Interrupts(_) => {
            // By default the kernel may end a nap 50 µs late, for the sake of fewer wake-ups.
            set_current_timer_slack(NonZeroU64::new(1))
                .map_err(|error| format!("cannot set its timer slack: {error}"))?;
            Some(Wakefulness::of(cpu))
        }
    };
    turn(lanes, exceptions, &settings, Surroundings { seat, place, clock, idle }, &usher)
}

/// What a core is surrounded by, beside its lanes.
struct Surroundings {
    seat: CoreSeat,
    place: Place,
    clock: Clock,
    idle: Idle,
}

/// Turns a core until it stops; a new one on the same lanes where it panics.
fn turn<L: Lane, X: Lane<Frame = L::Frame>>(
    mut lanes: Vec<L>,
    mut exceptions: Vec<Option<Exception<X>>>,
    settings: &CoreSettings,
    surroundings: Surroundings,
    usher: &Usher,
) -> Ended {
    let Surroundings { mut seat, place, clock, idle } = surroundings;
    let index = seat.index;
    let mut restarts: Vec<Instant> = Vec::new();
    loop {
        let mut core = Core::new(CoreInput {
            index,
            lanes,
            settings: settings.clone(),
            snapshot: seat.snapshot,
            endpoints: seat.endpoints,
            counters: seat.counters,
            lifecycle: seat.lifecycle,
            access: seat.access,
            place: place.clone(),
            seed: seed()?,
        })
        .with_exceptions(exceptions);
        if std::panic::catch_unwind(AssertUnwindSafe(|| core.run(&clock, &idle))).is_ok() {
            return Ok(());
        }
        // The panic hook has said where. The connections are lost; the lanes are not, because only a core's own state can
        // be half changed.
        restarts.retain(|at| at.elapsed() < RESTART_WINDOW);
        restarts.push(Instant::now());
        if restarts.len() > RESTARTS {
            return Err(format!("panicked {} times within {} s", restarts.len(), RESTART_WINDOW.as_secs()));
        }
        (lanes, exceptions) = std::panic::catch_unwind(AssertUnwindSafe(|| core.into_parts()))
            .map_err(|_| "panicked, and its lanes were lost with it".to_owned())?;
        seat = usher.seat(index).ok_or("has no seat")?;
        tracing::error!(core = index, "a core panicked; its connections are lost, and it starts again");
    }
}

/// Secrets come from the operating system; each start of a core has its own.
fn seed() -> Result<u64, String> {
    let mut bytes = [0; 8];
    fill_random(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

/// Fills a few bytes with the operating system's randomness.
pub(crate) fn fill_random(bytes: &mut [u8]) -> Result<(), String> {
    match getrandom(&mut *bytes, GetRandomFlags::empty()) {
        Ok(got) if got == bytes.len() => Ok(()),
        Ok(_) => Err("the operating system gave too little randomness".to_owned()),
        Err(error) => Err(format!("the operating system gave no randomness: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use control::runtime::Facts;
    use control::{Configured, Control, Launch, PortInfo, admin, core_settings};
    use pmd::sim::{Clock as SimClock, PathOptions, SimFrame, SimLane, WireOptions, wire};
    use pmd::{Burst, LaneCounters, Link, TxChecksum};

    use super::*;

    const CONFIGURATION: &str = r#"
apiVersion: millrace.dev/v1alpha1
kind: Appliance
metadata: { name: edge }
spec:
  cores: [0]
  ports: [{ name: north, device: "net_null0", addresses: [10.9.1.1/24] }]
"#;

    /// A lane that panics in some of its receive calls.
    struct Panicky {
        lane: SimLane,
        calls: Rc<Cell<u32>>,
        panics: fn(u32) -> bool,
    }

    impl Lane for Panicky {
        type Frame = SimFrame;
        fn receive(&mut self, burst: &mut Burst<SimFrame>) {
            self.calls.set(self.calls.get() + 1);
            assert!(!(self.panics)(self.calls.get()), "as the test wants it");
            self.lane.receive(burst);
        }
        fn allocate(&mut self) -> Option<SimFrame> {
            self.lane.allocate()
        }
        fn transmit(&mut self, frame: SimFrame, checksum: TxChecksum) {
            self.lane.transmit(frame, checksum);
        }
        fn flush(&mut self) {
            self.lane.flush();
        }
        fn mac(&self) -> [u8; 6] {
            self.lane.mac()
        }
        fn mtu(&self) -> u16 {
            self.lane.mtu()
        }
        fn link(&self) -> Link {
            self.lane.link()
        }
        fn counters(&self) -> LaneCounters {
            self.lane.counters()
        }

        fn allocate_reserved(&mut self) -> Option<Self::Frame> {
            self.lane.allocate_reserved()
        }

        fn allocate_large(&mut self) -> Option<Self::Frame> {
            self.lane.allocate_large()
        }

        fn largest(&self) -> u16 {
            self.lane.largest()
        }

        fn frames_in_use(&self) -> usize {
            self.lane.frames_in_use()
        }
    }

    /// Runs a core for a moment; how it ended, and how often it received.
    fn run(panics: fn(u32) -> bool) -> (Ended, u32) {
        let configuration = schema::load_str("test", CONFIGURATION).unwrap();
        let port = PortInfo {
            name: "north".into(),
            device: String::new(),
            driver: String::new(),
            mac: [0; 6],
            mtu: 1500,
            addresses: vec![],
            offloads: vec![],
        };
        let facts = Facts {
            name: "edge".into(),
            version: "0",
            memory: String::new(),
            cpus: vec![0],
            ports: vec![port],
            session_key: [1, 2],
            access_log: "/dev/null".into(),
            device_statistics: Box::new(Vec::new),
            clock: Box::new(|| 0),
            wake: Box::new(|| ()),
        };
        let mut configured = Configured::unwatched(configuration.clone());
        let compiled = configured.compile();
        let admin = admin::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let (control, mut seats) = Control::start(Launch { facts, configured, compiled, admin }).unwrap();
        let (lane, _other_end) = wire(WireOptions::symmetric(&SimClock::new(), PathOptions::default()), 1);
        let calls = Rc::new(Cell::new(0));
        let lane = Panicky { lane, calls: Rc::clone(&calls), panics };
        let ended = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(300));
                control.stop();
            });
            let seat = seats.pop().unwrap();
            let place = Place::alone();
            let _stopped = StoppedOnDrop(Arc::clone(&seat.lifecycle), place.departure.clone());
            let surroundings = Surroundings { seat, place, clock: Clock::start(), idle: Idle::Polling };
            let no_exceptions = Vec::<Option<Exception<Panicky>>>::new();
            turn(vec![lane], no_exceptions, &core_settings(&configuration), surroundings, &control.usher())
        });
        (ended, calls.get())
    }

    #[test]
    fn a_core_that_panics_serves_again() {
        let (ended, calls) = run(|call| call == 10 || call == 20);
        assert_eq!(ended, Ok(()));
        assert!(calls > 20, "{calls}");
    }

    #[test]
    fn a_core_that_panics_always_is_given_up() {
        let (ended, calls) = run(|_| true);
        assert!(ended.unwrap_err().starts_with("panicked 11 times"));
        assert_eq!(calls, 11);
    }
}
