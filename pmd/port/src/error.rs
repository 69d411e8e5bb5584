//! What can go wrong before packets flow, and the one place where C return values become results.
//!
//! On the hot path nothing fails: what cannot be received, allocated or sent is counted.

use std::ffi::{CStr, c_int};
use std::fmt;

/// Why DPDK's environment did not start. `Display` is one sentence for a human; [`EalError::hint`] says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EalError {
    /// DPDK can be started once in the life of a process, also when the first start failed.
    #[error("DPDK was already started in this process")]
    AlreadyStarted,
    /// The process lacks a privilege.
    #[error("no permission: {needed}")]
    NoPermission {
        /// What the process wanted to do and may not.
        needed: String,
    },
    /// A core that is not there, or that this process may not run on.
    #[error("core {core} is not available to this process (available: {available})")]
    NoSuchCore {
        /// The core that was asked for.
        core: u16,
        /// The cores that can be used, as a list of ranges.
        available: String,
    },
    /// A device string that is neither a DPDK virtual device nor a PCI address.
    #[error("device \"{device}\": {reason}")]
    UnknownDevice {
        /// The device as configured.
        device: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The kernel has no such network interface (in this network namespace).
    #[error("device \"{device}\": there is no network interface \"{interface}\"")]
    NoSuchInterface {
        /// The device as configured.
        device: String,
        /// The interface that it names.
        interface: String,
    },
    /// Hugepages are required, and too few are free.
    #[error("not enough hugepages: {wanted_mib} MiB wanted, {free_mib} MiB free")]
    NotEnoughHugepages {
        /// Memory asked for, in MiB.
        wanted_mib: u32,
        /// Memory in free hugepages, in MiB.
        free_mib: u32,
    },
    /// Hugepages are required to be files, and hugetlbfs is not mounted.
    #[error("hugetlbfs is not mounted")]
    NoHugetlbfs,
    /// Another process runs DPDK under the same file prefix.
    #[error("another process already runs DPDK with the file prefix \"{prefix}\"")]
    PrefixInUse {
        /// The prefix.
        prefix: String,
    },
    /// A driver refused the device, or DPDK has none for it.
    #[error("device \"{device}\" was refused by its driver: {}", last_line(.log))]
    DeviceRefused {
        /// The device as configured.
        device: String,
        /// DPDK's last log lines.
        log: Vec<String>,
    },
    /// DPDK's start failed for another reason.
    #[error("DPDK did not start ({cause}): {}", last_line(.log))]
    Refused {
        /// What DPDK returned.
        cause: Errno,
        /// DPDK's last log lines.
        log: Vec<String>,
    },
    /// A polling thread could not be made known to DPDK.
    #[error("DPDK did not accept the thread: {cause}")]
    Thread {
        /// What DPDK returned.
        cause: Errno,
    },
}

impl EalError {
    /// What the operator can do about it, as one sentence.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::AlreadyStarted => "start a new process",
            Self::NoPermission { .. } => "run as root, or grant CAP_NET_RAW, CAP_NET_ADMIN and CAP_IPC_LOCK",
            Self::NoSuchCore { .. } => "choose cores that lscpu shows as on-line and that the cpuset allows",
            Self::UnknownDevice { .. } => {
                "write a DPDK virtual device like \"net_af_packet0,iface=eth0\" or a PCI address like \"0000:03:00.0\""
            }
            Self::NoSuchInterface { .. } => "\"ip link\" lists the interfaces; mind the network namespace",
            Self::NotEnoughHugepages { .. } => {
                "reserve more (echo 512 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages), ask for less memory, \
                 or set hugepages to auto or off"
            }
            Self::NoHugetlbfs => "mount -t hugetlbfs nodev /dev/hugepages",
            Self::PrefixInUse { .. } => "stop that process, or choose another file prefix",
            Self::DeviceRefused { .. } => {
                "the driver's own words stand in the log lines; a PCI device must be bound to vfio-pci, or to uio_pci_generic where there is no IOMMU, and then needs hugepages"
            }
            Self::Refused { .. } => "DPDK's own words stand in the log lines",
            Self::Thread { .. } => "a thread registers once, and DPDK has 128 places",
        }
    }

    /// DPDK's last log lines, where they belong to the error.
    #[must_use]
    pub fn log(&self) -> &[String] {
        match self {
            Self::DeviceRefused { log, .. } | Self::Refused { log, .. } => log,
            _ => &[],
        }
    }
}

/// Why a port cannot be used. `Display` is one sentence for a human; [`PortError::hint`] says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PortError {
    /// No such device was given to [`crate::Eal::start`].
    #[error("DPDK has no port \"{device}\"")]
    NotFound {
        /// The device asked for.
        device: String,
    },
    /// The port has an owner already.
    #[error("port \"{device}\" is already in use")]
    InUse {
        /// The device asked for.
        device: String,
    },
    /// The driver has fewer queues.
    #[error("port \"{device}\" has {available} queue(s), and {wanted} were asked for")]
    Queues {
        /// The device.
        device: String,
        /// Queues asked for.
        wanted: u16,
        /// Queues that the driver has in both directions.
        available: u16,
    },
    /// A frame of the MTU does not fit into one mbuf.
    #[error("port \"{device}\": an MTU of {mtu} does not fit into mbufs of {data_room} bytes")]
    DataRoom {
        /// The device.
        device: String,
        /// The MTU in bytes.
        mtu: u16,
        /// Bytes of a frame that an mbuf holds.
        data_room: u16,
    },
    /// There is no memory for the mbufs.
    #[error("port \"{device}\": no memory for {mbufs} mbufs ({cause})")]
    Memory {
        /// The device.
        device: String,
        /// Mbufs asked for.
        mbufs: u32,
        /// What DPDK returned.
        cause: Errno,
    },
    /// The driver refused a step.
    #[error("port \"{device}\" refused to {step} ({cause}){}", after_colon(.log))]
    Refused {
        /// The device.
        device: String,
        /// What was tried, as a verb phrase.
        step: &'static str,
        /// What the driver returned.
        cause: Errno,
        /// DPDK's log lines of this step.
        log: Vec<String>,
    },
    /// A lane was asked for before the port was started.
    #[error("port \"{device}\" is not started")]
    NotStarted {
        /// The device.
        device: String,
    },
    /// The queue does not exist, or its lane was already handed out.
    #[error("port \"{device}\" has no free lane {queue}")]
    NoLane {
        /// The device.
        device: String,
        /// The queue asked for.
        queue: u16,
    },
}

impl PortError {
    /// What the operator can do about it, as one sentence.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "name the device in the appliance's ports, exactly as DPDK calls it",
            Self::InUse { .. } => "configure each device once",
            Self::Queues { .. } => "ask for fewer queues, or give the device more (af_packet: qpairs=N)",
            Self::DataRoom { .. } => "choose a smaller MTU or larger mbufs",
            Self::Memory { .. } => "give DPDK more memory, or ask for fewer mbufs",
            Self::Refused { .. } => "the driver's own words stand in the log lines",
            Self::NotStarted { .. } => "start the port first",
            Self::NoLane { .. } => "each queue has one lane, and it is handed out once",
        }
    }
}

/// An error number of DPDK: those of the C library, and some of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: rte_strerror takes any number, and returns a string in this thread's own buffer, which
        // is copied before the thread can call it again.
        let text = unsafe { CStr::from_ptr(dpdk_sys::rte_strerror(self.0)) };
        f.write_str(&text.to_string_lossy())
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Errno({}: {self})", self.0)
    }
}

impl Errno {
    /// The error number of this thread's last failed DPDK call.
    pub(crate) fn last() -> Self {
        // SAFETY: reads a per-thread variable.
        Self(unsafe { dpdk_sys::shim_errno() })
    }
}

/// The one conversion from what C returns: a value that is not negative, a negated error number, or -1
/// with the number in `rte_errno`.
pub(crate) fn check(returned: c_int) -> Result<u32, Errno> {
    u32::try_from(returned).map_err(|_| match Errno::last() {
        Errno(last) if returned == -1 && last != 0 => Errno(last),
        _ => Errno(returned.saturating_neg()),
    })
}

fn last_line(log: &[String]) -> &str {
    log.last().map_or("it gave no reason", String::as_str)
}

fn after_colon(log: &[String]) -> String {
    log.last().map_or_else(String::new, |line| format!(": {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c_returns_become_results() {
        assert_eq!(check(0), Ok(0));
        assert_eq!(check(7), Ok(7));
        assert_eq!(check(-22), Err(Errno(22)));
        assert_eq!(Errno(22).to_string(), "Invalid argument");
        assert_eq!(check(c_int::MIN), Err(Errno(c_int::MAX)));
    }

    #[test]
    fn a_refusal_quotes_the_driver() {
        let log = vec!["first".to_owned(), "rpmd: no such thing".to_owned()];
        let error = PortError::Refused { device: "net_x0".into(), step: "start", cause: Errno(22), log };
        assert_eq!(error.to_string(), "port \"net_x0\" refused to start (Invalid argument): rpmd: no such thing");
    }
}
