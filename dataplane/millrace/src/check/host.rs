//! What the kernel says about the host, read from /proc and /sys.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A host whose /proc and /sys lie below a root.
pub(super) struct Host {
    root: PathBuf,
}

impl Host {
    /// The one that this runs on.
    pub(super) fn this() -> Self {
        Self { root: PathBuf::from("/") }
    }

    /// One that is a directory, for tests.
    #[cfg(test)]
    pub(super) fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// A file's text without white space at its ends.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.path(path)).ok().map(|text| text.trim().to_owned())
    }

    /// Names in a directory; none where there is no such.
    pub(super) fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// The last component of where a symbolic link leads.
    pub(super) fn link_name(&self, path: &str) -> Option<String> {
        let target = fs::read_link(self.path(path)).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    }

    /// This process's effective capabilities.
    pub(super) fn capabilities(&self) -> Option<u64> {
        let status = self.text("/proc/self/status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(line.trim(), 16).ok()
    }

    /// Memory in free hugepages of all sizes.
    pub(super) fn free_hugepages_mib(&self) -> u64 {
        let root = "/sys/kernel/mm/hugepages";
        let sizes = self.names(root).into_iter().filter_map(|name| {
            let kib: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            let free: u64 = self.text(&format!("{root}/{name}/free_hugepages"))?.parse().ok()?;
            Some(kib * free / 1024)
        });
        sizes.sum()
    }

    pub(super) fn hugetlbfs_mounted(&self) -> bool {
        let mounts = self.text("/proc/mounts").unwrap_or_default();
        mounts.lines().any(|line| line.split(' ').nth(2) == Some("hugetlbfs"))
    }

    pub(super) fn online_cpus(&self) -> Vec<u16> {
        self.text("/sys/devices/system/cpu/online").map(|list| cpu_list(&list)).unwrap_or_default()
    }

    pub(super) fn isolated_cpus(&self) -> Vec<u16> {
        self.text("/sys/devices/system/cpu/isolated").map(|list| cpu_list(&list)).unwrap_or_default()
    }

    pub(super) fn numa_nodes(&self) -> usize {
        let is_node = |name: &String| name.strip_prefix("node").is_some_and(|n| n.parse::<u32>().is_ok());
        self.names("/sys/devices/system/node").iter().filter(|name| is_node(name)).count().max(1)
    }

    pub(super) fn clock_source(&self) -> Option<String> {
        self.text("/sys/devices/system/clocksource/clocksource0/current_clocksource")
    }

    pub(super) fn iommu_groups(&self) -> usize {
        self.names("/sys/kernel/iommu_groups").len()
    }

    pub(super) fn vfio_loaded(&self) -> bool {
        self.exists("/sys/bus/pci/drivers/vfio-pci")
    }

    /// Whether this network namespace has the interface.
    pub(super) fn has_interface(&self, name: &str) -> bool {
        let listed = self.text("/proc/net/dev").unwrap_or_default();
        listed.lines().filter_map(|line| line.split_once(':')).any(|(found, _)| found.trim() == name)
    }

    /// Names and values of an interface's offloads, as ethtool tells them. `None` where there is no ethtool.
    pub(super) fn features(&self, interface: &str) -> Option<String> {
        if self.root != Path::new("/") {
            return self.text(&format!("/ethtool/{interface}"));
        }
        let output = Command::new("ethtool").args(["-k", interface]).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Reads `0-3,8`.
fn cpu_list(text: &str) -> Vec<u16> {
    let ranges = text.split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.trim().parse::<u16>().ok()?..=last.trim().parse::<u16>().ok()?)
    });
    ranges.flatten().collect()
}
