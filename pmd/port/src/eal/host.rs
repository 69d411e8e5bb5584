//! What the machine offers, asked of the kernel before DPDK is.

use std::ffi::CString;
use std::fs;
use std::mem;
use std::path::Path;

/// `CAP_NET_RAW` in linux/capability.h.
const CAP_NET_RAW: u64 = 1 << 13;

/// `CAP_SYS_ADMIN` in linux/capability.h.
const CAP_SYS_ADMIN: u64 = 1 << 21;

/// The PCI vendor of virtio devices (VIRTIO 1.2 §4.1.2).
const VIRTIO: &str = "0x1af4";

/// Whether this network namespace has the interface.
pub(crate) fn interface_exists(name: &str) -> bool {
    let Ok(name) = CString::new(name) else { return false };
    // SAFETY: `name` is a C string that outlives the call.
    unsafe { libc::if_nametoindex(name.as_ptr()) != 0 }
}

/// Whether the kernel lets this process open packet sockets.
pub(super) fn may_open_packet_sockets() -> bool {
    // Where the kernel does not say, let the driver try.
    effective_capabilities().is_none_or(|bits| bits & CAP_NET_RAW != 0)
}

/// Whether /proc/self/pagemap tells this process where its pages are.
pub(super) fn may_see_physical_addresses() -> bool {
    effective_capabilities().is_some_and(|bits| bits & CAP_SYS_ADMIN != 0)
}

fn effective_capabilities() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let bits = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    // What cannot be read allows nothing.
    Some(u64::from_str_radix(bits.trim(), 16).unwrap_or(0))
}

/// Whether the device at this PCI address is a virtio device.
pub(super) fn is_virtio(address: &str) -> bool {
    let vendor = fs::read_to_string(Path::new("/sys/bus/pci/devices").join(address).join("vendor"));
    vendor.is_ok_and(|vendor| vendor.trim() == VIRTIO)
}

/// Memory in free hugepages of all sizes, in MiB.
pub(super) fn free_hugepages_mib() -> u32 {
    free_hugepages_under(Path::new("/sys/kernel/mm/hugepages"))
}

fn free_hugepages_under(folder: &Path) -> u32 {
    let Ok(sizes) = fs::read_dir(folder) else { return 0 };
    let kib: u64 = sizes
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name();
            let size: u64 = name.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            let count = |file| fs::read_to_string(entry.path().join(file)).ok()?.trim().parse::<u64>().ok();
            let free = count("free_hugepages")?.saturating_sub(count("resv_hugepages").unwrap_or(0));
            Some(size.saturating_mul(free))
        })
        .sum();
    u32::try_from(kib / 1024).unwrap_or(u32::MAX)
}

/// Whether hugetlbfs is mounted anywhere.
pub(super) fn hugetlbfs_mounted() -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(2) == Some("hugetlbfs"))
}

/// The cores that this process may run on, ascending.
pub(super) fn cores() -> Vec<u16> {
    // SAFETY: an all-zero cpu_set_t is the empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // The first thread's set, not this thread's, which its owner may have pinned already.
    let process = libc::pid_t::try_from(std::process::id()).unwrap_or(0);
    // SAFETY: `set` is as large as is said.
    if unsafe { libc::sched_getaffinity(process, size_of::<libc::cpu_set_t>(), &raw mut set) } != 0 {
        return Vec::new();
    }
    let most = u16::try_from(libc::CPU_SETSIZE).unwrap_or(0);
    // SAFETY: CPU_ISSET only reads `set`, below its size.
    (0..most).filter(|core| unsafe { libc::CPU_ISSET(usize::from(*core), &set) }).collect()
}

/// Cores as a list of ranges: `0-3,6`.
pub(super) fn ranges(cores: &[u16]) -> String {
    let mut runs: Vec<(u16, u16)> = Vec::new();
    for &core in cores {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(core) => *last = core,
            _ => runs.push((core, core)),
        }
    }
    let text = |(first, last): &(u16, u16)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    runs.iter().map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_cores() {
        assert_eq!(ranges(&[]), "");
        assert_eq!(ranges(&[3]), "3");
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
    }

    #[test]
    fn this_machine_has_a_core_and_a_loopback() {
        assert!(!cores().is_empty());
        assert!(interface_exists("lo"));
        assert!(!interface_exists("mrp-none"));
        assert!(!interface_exists("a\0b"));
    }

    #[test]
    fn free_pages_of_all_sizes_add_up() {
        let folder = std::env::temp_dir().join(format!("mrp-pages-{}", std::process::id()));
        for (size, free, reserved) in [("2048kB", "10\n", "2\n"), ("1048576kB", "1\n", "0\n")] {
            let sub = folder.join(format!("hugepages-{size}"));
            fs::create_dir_all(&sub).unwrap();
            fs::write(sub.join("free_hugepages"), free).unwrap();
            fs::write(sub.join("resv_hugepages"), reserved).unwrap();
        }
        assert_eq!(free_hugepages_under(&folder), 16 + 1024);
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(free_hugepages_under(&folder), 0);
    }
}
