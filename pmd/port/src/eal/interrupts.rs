//! Stands between drivers and EAL's interrupt thread, where `net_memif` of DPDK 22.11 and later would take the process down.
//!
//! Drivers register callbacks with EAL, which calls them on a thread of its own. Two of memif's habits are deadly for a process that polls:
//!
//! - When the other side goes, `memif_disconnect` marks the port as disconnected, unregisters its callback, and unmaps the shared memory, in
//!   this order. A core that looked at the mark before, and was preempted in the middle of its burst, then reads what is no longer
//!   there. So unregistering waits until every burst that had begun has ended ([`Presence`]).
//! - When the other side has gone before it was greeted, `memif_listener_handler` closes the socket whose callback it registered a
//!   moment ago, and frees the handle. EAL then watches a descriptor that is closed, and aborts the process. So a
//!   handle that is freed is unregistered first.
//!
//! And EAL ends while its thread runs on: a callback that comes late finds memory gone. So that thread is held while a port closes ([`Pause`]), and
//! has nothing left to call when EAL ends ([`unregister_all`]).
//!
//! The functions below have the names of EAL's and call them: the dynamic linker lets drivers find the program's before EAL's, where the program
//! exports them (`-Wl,--export-dynamic-symbol`, by the build script of each package that has programs). [`in_effect`] tells. They are called by
//! drivers, never on a polling core's way.

use std::ffi::{CStr, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// How often is looked whether a burst has ended. A burst takes microseconds, unless its thread was preempted.
const LOOK: Duration = Duration::from_micros(50);

/// Whether a lane is within a call of its driver: odd while it is.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Presence(AtomicUsize);

impl Presence {
    /// One that unregistering waits for, as long as it lives.
    pub(crate) fn announce() -> Arc<Self> {
        let presence = Arc::new(Self::default());
        let mut all = lock(&PRESENCES);
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&presence));
        presence
    }

    /// Makes a call of the driver.
    #[inline]
    pub(crate) fn during<T>(&self, call: impl FnOnce() -> T) -> T {
        // A full barrier: what the driver reads, it reads after this is seen.
        self.0.fetch_add(1, Ordering::SeqCst);
        let result = call();
        self.0.fetch_add(1, Ordering::Release);
        result
    }

    /// Waits until the call that runs now has ended, or the deadline is over.
    fn wait(&self, deadline: Option<Instant>) {
        let seen = self.0.load(Ordering::SeqCst);
        let over = || deadline.is_some_and(|deadline| Instant::now() > deadline);
        while seen % 2 == 1 && self.0.load(Ordering::Acquire) == seen && !over() {
            thread::sleep(LOOK);
        }
    }
}

/// How long is waited for EAL's thread to be held. What it does takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);

/// While it lives, no driver's callback runs.
#[derive(Debug)]
pub(crate) struct Pause(Arc<Gate>);

/// Where EAL's thread waits.
#[derive(Debug, Default)]
struct Gate {
    stage: Mutex<Stage>,
    changed: Condvar,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    #[default]
    Asked,
    Held,
    Over,
}

impl Pause {
    /// Holds EAL's thread; lets it go where it does not come in time.
    pub(crate) fn begin() -> Self {
        let gate = Arc::new(Gate::default());
        let argument = Arc::into_raw(Arc::clone(&gate));
        // SAFETY: EAL runs, `hold` fits the type, and it takes back what the argument holds.
        let set = unsafe { dpdk_sys::rte_eal_alarm_set(1, Some(hold), argument.cast_mut().cast()) };
        if set == 0 {
            let stage = lock(&gate.stage);
            drop(gate.changed.wait_timeout_while(stage, PATIENCE, |stage| *stage == Stage::Asked));
        } else {
            // SAFETY: nobody else will take it back.
            drop(unsafe { Arc::from_raw(argument) });
        }
        Self(gate)
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        *lock(&self.0.stage) = Stage::Over;
        self.0.changed.notify_all();
    }
}

/// Makes EAL forget all that drivers registered. To be called before EAL ends, once all ports are closed.
pub(crate) fn unregister_all() {
    let _held = Pause::begin();
    let left = std::mem::take(&mut *lock(&REGISTERED));
    left.into_iter().for_each(Registration::unregister);
}

/// What EAL's thread calls to be held.
unsafe extern "C" fn hold(argument: *mut c_void) {
    // SAFETY: `Pause::begin` made it of an `Arc<Gate>`, for one call.
    let gate = unsafe { Arc::from_raw(argument.cast_const().cast::<Gate>()) };
    let mut stage = lock(&gate.stage);
    if *stage == Stage::Asked {
        *stage = Stage::Held;
        gate.changed.notify_all();
        drop(gate.changed.wait_while(stage, |stage| *stage == Stage::Held));
    }
}

/// Whether drivers find the functions of this module.
pub(crate) fn in_effect() -> bool {
    // SAFETY: the name is a C string.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"rte_intr_callback_unregister".as_ptr()) };
    ptr::eq(found, rte_intr_callback_unregister as *const c_void)
}

static PRESENCES: Mutex<Vec<Weak<Presence>>> = Mutex::new(Vec::new());

/// What is registered now: few, and they come and go with other sides.
static REGISTERED: Mutex<Vec<Registration>> = Mutex::new(Vec::new());

/// Addresses, to be compared and handed back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Registration {
    handle: usize,
    callback: usize,
    argument: usize,
}

impl Registration {
    fn new(handle: *mut c_void, callback: *const c_void, argument: *mut c_void) -> Self {
        Self {
            handle: handle.expose_provenance(),
            callback: callback.expose_provenance(),
            argument: argument.expose_provenance(),
        }
    }

    /// Makes EAL forget it.
    fn unregister(self) {
        let Some(own) = own() else { return };
        let handle = ptr::with_exposed_provenance_mut(self.handle);
        let callback = ptr::with_exposed_provenance(self.callback);
        let argument = ptr::with_exposed_provenance_mut(self.argument);
        // SAFETY: what was registered and not unregistered; handles are freed after that only. EAGAIN: the callback runs, and EAL is
        // to forget it when it returns.
        unsafe {
            if (own.unregister)(handle, callback, argument) == -libc::EAGAIN {
                (own.unregister_pending)(handle, callback, argument, nothing as *const c_void);
            }
        }
    }

    fn forget(self) {
        lock(&REGISTERED).retain(|other| *other != self);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until no lane is in a call that began before this one.
fn wait_for_calls(deadline: Option<Instant>) {
    fence(Ordering::SeqCst);
    let presences: Vec<_> = lock(&PRESENCES).iter().filter_map(Weak::upgrade).collect();
    presences.iter().for_each(|presence| presence.wait(deadline));
}

/// How long [`link_changed`] waits. The call that it waits for may be waiting for a lock of its caller's, which then frees nothing.
const LINK_PATIENCE: Duration = Duration::from_millis(100);

/// From now on, a change of the port's link waits for calls of lanes: `net_vhost` tells so that the other side goes, before it frees what belongs to it. Its bursts
/// it waits for itself; switching a queue's interrupt it does not. Returns what `rte_eth_dev_callback_register` does.
pub(crate) fn wait_when_link_changes(port: u16) -> c_int {
    // SAFETY: the function fits the type, and takes no argument.
    unsafe {
        dpdk_sys::rte_eth_dev_callback_register(
            port,
            dpdk_sys::RTE_ETH_EVENT_INTR_LSC,
            Some(link_changed),
            ptr::null_mut(),
        )
    }
}

/// Takes [`wait_when_link_changes`] back, where it was called.
pub(crate) fn wait_no_more(port: u16) {
    // SAFETY: as above; what is not registered is not found.
    unsafe {
        dpdk_sys::rte_eth_dev_callback_unregister(
            port,
            dpdk_sys::RTE_ETH_EVENT_INTR_LSC,
            Some(link_changed),
            ptr::null_mut(),
        )
    };
}

unsafe extern "C" fn link_changed(
    _port: u16,
    _event: dpdk_sys::rte_eth_event_type,
    _argument: *mut c_void,
    _answer: *mut c_void,
) -> c_int {
    wait_for_calls(Some(Instant::now() + LINK_PATIENCE));
    0
}

type Register = unsafe extern "C" fn(*mut c_void, *const c_void, *mut c_void) -> c_int;
type UnregisterPending = unsafe extern "C" fn(*mut c_void, *const c_void, *mut c_void, *const c_void) -> c_int;
type Free = unsafe extern "C" fn(*mut c_void);

/// EAL's own functions.
#[derive(Clone, Copy)]
struct Own {
    register: Register,
    unregister: Register,
    unregister_pending: UnregisterPending,
    free: Free,
}

fn own() -> Option<Own> {
    static OWN: OnceLock<Option<Own>> = OnceLock::new();
    fn next(name: &CStr) -> Option<*mut c_void> {
        // SAFETY: the name is a C string. The program stands first in the search, and EAL is among the rest.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
        (!found.is_null()).then_some(found)
    }
    *OWN.get_or_init(|| {
        let register = next(c"rte_intr_callback_register")?;
        let unregister = next(c"rte_intr_callback_unregister")?;
        let unregister_pending = next(c"rte_intr_callback_unregister_pending")?;
        let free = next(c"rte_intr_instance_free")?;
        // SAFETY: these are the functions of rte_interrupts.h, with the types that it declares; pointers to what EAL keeps stand for it.
        unsafe {
            Some(Own {
                register: std::mem::transmute::<*mut c_void, Register>(register),
                unregister: std::mem::transmute::<*mut c_void, Register>(unregister),
                unregister_pending: std::mem::transmute::<*mut c_void, UnregisterPending>(unregister_pending),
                free: std::mem::transmute::<*mut c_void, Free>(free),
            })
        }
    })
}

/// `rte_intr_callback_register` of `rte_interrupts.h`, for drivers.
#[unsafe(no_mangle)]
unsafe extern "C" fn rte_intr_callback_register(
    handle: *mut c_void,
    callback: *const c_void,
    argument: *mut c_void,
) -> c_int {
    let Some(own) = own() else { return -libc::ENOTSUP };
    // Before, since the callback may run, and free the handle, while this returns.
    let registration = Registration::new(handle, callback, argument);
    lock(&REGISTERED).push(registration);
    // SAFETY: the caller's arguments, as they are.
    let result = unsafe { (own.register)(handle, callback, argument) };
    if result < 0 {
        registration.forget();
    }
    result
}

/// `rte_intr_callback_unregister` of `rte_interrupts.h`, for drivers.
#[unsafe(no_mangle)]
unsafe extern "C" fn rte_intr_callback_unregister(
    handle: *mut c_void,
    callback: *const c_void,
    argument: *mut c_void,
) -> c_int {
    let Some(own) = own() else { return -libc::ENOTSUP };
    // SAFETY: the caller's arguments, as they are.
    let result = unsafe { (own.unregister)(handle, callback, argument) };
    if result > 0 {
        Registration::new(handle, callback, argument).forget();
    }
    // Whatever came of it: the caller goes on as if nothing used the device any more.
    wait_for_calls(None);
    result
}

/// `rte_intr_callback_unregister_pending` of `rte_interrupts.h`, for drivers.
#[unsafe(no_mangle)]
unsafe extern "C" fn rte_intr_callback_unregister_pending(
    handle: *mut c_void,
    callback: *const c_void,
    argument: *mut c_void,
    after: *const c_void,
) -> c_int {
    let Some(own) = own() else { return -libc::ENOTSUP };
    // SAFETY: the caller's arguments, as they are.
    let result = unsafe { (own.unregister_pending)(handle, callback, argument, after) };
    if result >= 0 {
        // EAL calls `after` with a lock held, and that frees the handle: by then there must be nothing to unregister.
        Registration::new(handle, callback, argument).forget();
    }
    result
}

/// What EAL calls when it has forgotten a callback.
extern "C" fn nothing(_handle: *mut c_void, _argument: *mut c_void) {}

/// `rte_intr_instance_free` of `rte_interrupts.h`, for drivers.
#[unsafe(no_mangle)]
unsafe extern "C" fn rte_intr_instance_free(handle: *mut c_void) {
    let Some(own) = own() else { return };
    let mut left: Vec<Registration> = Vec::new();
    lock(&REGISTERED).retain(|registration| {
        let keeps = registration.handle != handle.addr();
        if !keeps {
            left.push(*registration);
        }
        keeps
    });
    left.into_iter().for_each(Registration::unregister);
    // SAFETY: the caller's argument, as it is.
    unsafe { (own.free)(handle) };
}
