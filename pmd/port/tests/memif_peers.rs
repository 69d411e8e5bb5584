//! The other side of a memif comes and goes as it likes, and the process that stays lives on.

mod common;

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{numbered, open, options, spawn, with_roles};
use pmd::{Burst, DpdkLane, Eal, EalOptions, Lane, PortOptions, TxChecksum};

/// Each guest is killed in the middle of its traffic.
const GUESTS: u32 = 12;

/// Before this, whatever is waited for has to be there.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_killed_peer_takes_no_memory_from_under_a_burst() {
    with_roles("a_killed_peer_takes_no_memory_from_under_a_burst", 0, &["host"], |role, folder| {
        let device = device(if role == "host" { "server" } else { "client" }, folder);
        let eal = Eal::start(&EalOptions { mebibytes: 64, ..options(&[&device]) }).unwrap();
        let (port, mut lane) = open(&eal, &device, &PortOptions { mbufs: 1024, ..PortOptions::default() });
        if role == "guest" {
            // Until it is killed.
            return wait_for("the end", || {
                talk(&mut lane);
                false
            });
        }
        let ended = AtomicBool::new(false);
        let received = AtomicU64::new(0);
        let received_by = AtomicU64::new(0);
        thread::scope(|scope| {
            let poller = scope.spawn(|| {
                // SAFETY: it only asks who this thread is.
                received_by.store(unsafe { libc::pthread_self() }, Ordering::Release);
                while !ended.load(Ordering::Relaxed) {
                    talk(&mut lane);
                    received.store(lane.counters().rx_packets, Ordering::Relaxed);
                }
                lane.frames_in_use()
            });
            wait_for("the poller", || received_by.load(Ordering::Acquire) != 0);
            let poller_thread = received_by.load(Ordering::Acquire);
            for _ in 0..GUESTS {
                let mut guest = spawn("a_killed_peer_takes_no_memory_from_under_a_burst", "guest", folder);
                let before = received.load(Ordering::Relaxed);
                wait_for("a guest's frames", || received.load(Ordering::Relaxed) > before + 1000);
                // As when other work takes the CPU in the middle of a burst, long enough for the driver to give its memory back.
                preempt(poller_thread);
                guest.kill().unwrap();
                guest.wait().unwrap();
                wait_for("the link to be down", || !port.link().up);
            }
            ended.store(true, Ordering::Relaxed);
            assert_eq!(poller.join().unwrap(), 0);
        });
    });
}

#[test]
fn a_peer_that_leaves_before_it_is_greeted_stops_nobody() {
    with_roles("a_peer_that_leaves_before_it_is_greeted_stops_nobody", 0, &["host"], |_, folder| {
        let device = device("server", folder);
        let eal = Eal::start(&EalOptions { mebibytes: 64, ..options(&[&device]) }).unwrap();
        let (port, lane) = open(&eal, &device, &PortOptions { mbufs: 1024, ..PortOptions::default() });
        for _ in 0..500 {
            // The listener's queue is short: it may be full.
            wait_for("a place in the listener's queue", || connect(&folder.join("memif")).is_ok());
        }
        assert!(!port.link().up);
        assert_eq!(lane.frames_in_use(), 0);
    });
}

fn device(role: &str, folder: &Path) -> String {
    format!("net_memif0,role={role},id=0,socket={},socket-abstract=no", folder.join("memif").display())
}

/// Receives what there is, and sends a burst.
fn talk(lane: &mut DpdkLane) {
    let mut burst = Burst::new();
    lane.receive(&mut burst);
    for number in 0..8 {
        let mut frame = lane.allocate().unwrap();
        numbered(&mut frame, number, 60);
        lane.transmit(frame, TxChecksum::Complete);
    }
    lane.flush();
}

/// Stops a thread for a while, wherever it is.
fn preempt(thread: libc::pthread_t) {
    extern "C" fn nap(_: libc::c_int) {
        let nap = libc::timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        // SAFETY: nanosleep may be called in a signal's handler; the time is valid for the call.
        unsafe { libc::nanosleep(&raw const nap, std::ptr::null_mut()) };
    }
    // SAFETY: the handler does nothing but sleep; the thread runs until it is joined, which is later.
    unsafe {
        libc::signal(libc::SIGUSR1, nap as *const () as libc::sighandler_t);
        libc::pthread_kill(thread, libc::SIGUSR1);
    }
}

/// A connection that is closed as soon as it is there.
fn connect(path: &Path) -> io::Result<()> {
    // SAFETY: the calls get what they ask for: an address with a path that ends with a zero byte, and its length.
    unsafe {
        let socket = libc::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET, 0);
        assert!(socket >= 0);
        let socket = OwnedFd::from_raw_fd(socket);
        let mut address: libc::sockaddr_un = zeroed();
        address.sun_family = libc::AF_UNIX as libc::sa_family_t;
        for (to, from) in address.sun_path.iter_mut().zip(path.to_str().unwrap().bytes()) {
            *to = from as libc::c_char;
        }
        let len = size_of::<libc::sockaddr_un>() as libc::socklen_t;
        match libc::connect(socket.as_raw_fd(), (&raw const address).cast(), len) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::yield_now();
    }
}
