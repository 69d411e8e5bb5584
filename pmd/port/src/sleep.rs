//! How a core sleeps while there is nothing to do, and who wakes it: a device by its interrupt, or another thread.
//!
//! A [`Sleeper`] belongs to one core and watches the rx queues of its lanes ([`DpdkLane::watch`](crate::DpdkLane::watch)); others hold its [`Waker`]. The order is the
//! caller's to keep: [`Sleeper::lie_down`], [`Lane::arm`](crate::Lane::arm) every lane, look once more, [`Sleeper::sleep`],
//! [`Lane::disarm`](crate::Lane::disarm), [`Sleeper::get_up`]. Whatever comes before the last look is found by it, whatever comes after it wakes.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use spsc::Bell;

/// Events taken at a time: they only say who woke us, so that few will do.
const EVENTS: usize = 8;

/// What an event carries: the waker's, or a device's.
const CALLED: u64 = 0;
const DEVICE: u64 = 1;

/// What one core sleeps in.
#[derive(Debug)]
pub struct Sleeper {
    epoll: OwnedFd,
    shared: Arc<Shared>,
    /// The kernel lacks `epoll_pwait2` (before 5.11): times are whole milliseconds.
    coarse: AtomicBool,
}

/// Wakes a sleeping core. Clones wake the same one.
#[derive(Debug, Clone)]
pub struct Waker(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bell: Bell,
    event: OwnedFd,
}

/// Who ended a sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WokenBy {
    /// A device: there may be frames.
    Device,
    /// Another thread, by a [`Waker`].
    Call,
    /// Nobody: the time is over, or a signal came.
    Time,
}

impl Sleeper {
    /// One that nothing wakes yet but its [`Waker`].
    ///
    /// # Errors
    /// The kernel's, where the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: both make a new descriptor, or return -1.
        let epoll = owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: as above.
        let event = owned(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        let sleeper =
            Self { epoll, shared: Arc::new(Shared { bell: Bell::new(), event }), coarse: AtomicBool::new(false) };
        sleeper.add(sleeper.shared.event.as_raw_fd(), CALLED)?;
        Ok(sleeper)
    }

    /// What others wake it by.
    #[must_use]
    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.shared))
    }

    /// Lets a device's descriptor wake it.
    pub(crate) fn watch(&self, device: RawFd) -> io::Result<()> {
        self.add(device, DEVICE)
    }

    /// Only what happens anew wakes (`EPOLLET`), so that nobody has to read the descriptors empty: some are the device itself.
    fn add(&self, descriptor: RawFd, data: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLET) as u32, u64: data };
        // SAFETY: the event is valid for the call; the kernel says where a descriptor is not.
        match unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, descriptor, &raw mut event) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Says that it is about to sleep: wakers wake it from now on.
    pub fn lie_down(&self) {
        self.shared.bell.lie_down();
    }

    /// Says that it looks by itself: wakers leave it alone.
    pub fn get_up(&self) {
        self.shared.bell.get_up();
    }

    /// Sleeps until a device or a waker has news that it has not had before, but no longer than `at_most`.
    pub fn sleep(&self, at_most: Duration) -> WokenBy {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        let happened = match self.wait(&mut events, at_most) {
            Ok(happened) => happened,
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
                self.coarse.store(true, Ordering::Relaxed);
                0
            }
            // A signal. Nothing else can be wrong with what is passed here.
            Err(_) => 0,
        };
        let happened = events.get(..happened).unwrap_or_default();
        if happened.is_empty() {
            WokenBy::Time
        } else if happened.iter().any(|event| event.u64 == DEVICE) {
            WokenBy::Device
        } else {
            WokenBy::Call
        }
    }

    fn wait(&self, events: &mut [libc::epoll_event; EVENTS], at_most: Duration) -> io::Result<usize> {
        let epoll = self.epoll.as_raw_fd();
        let room = EVENTS as libc::c_int;
        let happened = if self.coarse.load(Ordering::Relaxed) {
            // Rounded down: rather early than late.
            let milliseconds = libc::c_int::try_from(at_most.as_millis()).unwrap_or(libc::c_int::MAX);
            // SAFETY: as many events can be written as is said.
            libc::c_long::from(unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), room, milliseconds) })
        } else {
            let at_most = libc::timespec {
                tv_sec: libc::time_t::try_from(at_most.as_secs()).unwrap_or(libc::time_t::MAX),
                tv_nsec: at_most.subsec_nanos().into(),
            };
            let no_mask = ptr::null::<libc::sigset_t>();
            // SAFETY: epoll_pwait2(2): as above; the time is valid for the call, and without a mask its size does not count.
            unsafe {
                libc::syscall(
                    libc::SYS_epoll_pwait2,
                    epoll,
                    events.as_mut_ptr(),
                    room,
                    &raw const at_most,
                    no_mask,
                    0usize,
                )
            }
        };
        usize::try_from(happened).map_err(|_| io::Error::last_os_error())
    }
}

impl Waker {
    /// Wakes the core where it sleeps, or is about to; else it costs a barrier and a load. To be called behind what the core is to find.
    #[inline]
    pub fn wake(&self) {
        if self.0.bell.must_ring() {
            self.ring();
        }
    }

    #[cold]
    fn ring(&self) {
        let one = 1u64;
        // SAFETY: eight bytes are read. It cannot fail before it was called 2^64 times.
        unsafe { libc::write(self.0.event.as_raw_fd(), (&raw const one).cast(), size_of::<u64>()) };
    }
}

fn owned(descriptor: libc::c_int) -> io::Result<OwnedFd> {
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn time_ends_a_sleep_to_the_microsecond() {
        for coarse in [false, true] {
            let sleeper = Sleeper::new().unwrap();
            sleeper.coarse.store(coarse, Ordering::Relaxed);
            for microseconds in [0, 300, 3_000] {
                let (began, at_most) = (Instant::now(), Duration::from_micros(microseconds));
                assert_eq!(sleeper.sleep(at_most), WokenBy::Time);
                let slept = began.elapsed();
                assert!(
                    slept >= if coarse { Duration::from_millis(microseconds / 1000) } else { at_most },
                    "{slept:?}"
                );
                assert!(slept < at_most + Duration::from_secs(1), "{slept:?}");
            }
        }
    }

    #[test]
    fn a_call_wakes_who_lies_and_only_once() {
        let sleeper = Sleeper::new().unwrap();
        let waker = sleeper.waker();
        // Nobody lies there: nothing is kept of it.
        waker.wake();
        assert_eq!(sleeper.sleep(Duration::ZERO), WokenBy::Time);
        for _ in 0..3 {
            sleeper.lie_down();
            // Before it sleeps.
            waker.clone().wake();
            waker.wake();
            assert_eq!(sleeper.sleep(LONG), WokenBy::Call);
            assert_eq!(sleeper.sleep(Duration::ZERO), WokenBy::Time);
            sleeper.get_up();
        }
        // While it sleeps.
        sleeper.lie_down();
        let began = Instant::now();
        let caller = thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            waker.wake();
        });
        assert_eq!(sleeper.sleep(LONG), WokenBy::Call);
        assert!(began.elapsed() < LONG / 2);
        caller.join().unwrap();
    }

    #[test]
    fn a_device_wakes_each_time_though_nobody_reads_its_descriptor() {
        let (sleeper, device) = (Sleeper::new().unwrap(), Sleeper::new().unwrap());
        let interrupt = device.shared.event.as_raw_fd();
        sleeper.watch(interrupt).unwrap();
        for _ in 0..3 {
            assert_eq!(sleeper.sleep(Duration::ZERO), WokenBy::Time);
            device.waker().ring();
            assert_eq!(sleeper.sleep(LONG), WokenBy::Device);
        }
    }
}
