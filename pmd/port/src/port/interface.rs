//! The kernel's interface below an af_packet or AF_XDP port.

use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// An interface of the kernel, in the network namespace in which it was opened.
#[derive(Debug)]
pub(super) struct Interface {
    name: [libc::c_char; libc::IFNAMSIZ],
    socket: OwnedFd,
}

impl Interface {
    pub(super) fn open(name: &str) -> Option<Self> {
        let mut padded = [0; libc::IFNAMSIZ];
        if name.len() >= padded.len() {
            return None;
        }
        for (to, from) in padded.iter_mut().zip(name.bytes()) {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        // SAFETY: makes a new descriptor, or returns -1.
        let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        // SAFETY: the descriptor is new, and nobody else's.
        (socket >= 0).then(|| Self { name: padded, socket: unsafe { OwnedFd::from_raw_fd(socket) } })
    }

    /// Up, and with a carrier.
    pub(super) fn running(&self) -> bool {
        let wanted = libc::IFF_UP | libc::IFF_RUNNING;
        self.ask(libc::SIOCGIFFLAGS).is_some_and(|answer| {
            // SAFETY: SIOCGIFFLAGS filled this member.
            let flags = libc::c_int::from(unsafe { answer.ifr_ifru.ifru_flags });
            flags & wanted == wanted
        })
    }

    /// The interface's MTU in bytes.
    pub(super) fn mtu(&self) -> Option<u16> {
        // SAFETY: SIOCGIFMTU fills this member.
        let mtu = unsafe { self.ask(libc::SIOCGIFMTU)?.ifr_ifru.ifru_mtu };
        Some(u16::try_from(mtu).unwrap_or(u16::MAX))
    }

    /// Gives the interface an MTU, as DPDK does where it lets a driver have that one. Where the kernel refuses, it keeps its own.
    pub(super) fn set_mtu(&self, mtu: u16) {
        // SAFETY: an all-zero ifreq is valid.
        let mut wanted: libc::ifreq = unsafe { mem::zeroed() };
        wanted.ifr_name = self.name;
        wanted.ifr_ifru.ifru_mtu = mtu.into();
        // SAFETY: the request reads one ifreq.
        unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::SIOCSIFMTU, &raw mut wanted) };
    }

    fn ask(&self, request: libc::Ioctl) -> Option<libc::ifreq> {
        // SAFETY: an all-zero ifreq is valid.
        let mut answer: libc::ifreq = unsafe { mem::zeroed() };
        answer.ifr_name = self.name;
        // SAFETY: both requests read and write one ifreq.
        (unsafe { libc::ioctl(self.socket.as_raw_fd(), request, &raw mut answer) } == 0).then_some(answer)
    }
}
