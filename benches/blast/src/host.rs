//! What the machine did meanwhile, from `/proc`: memory of the gateway's process, and time that was taken from the polling threads.

use std::fs;

use serde::Serialize;

/// Memory of the gateway's process, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Memory {
    /// Resident pages, without hugepages.
    pub(crate) resident_bytes: u64,
    /// Hugepages.
    pub(crate) hugepage_bytes: u64,
}

/// Time that was taken away from threads that never wait by themselves, in nanoseconds. From one moment to another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Taken {
    /// This thread was runnable, and something else ran on its CPU.
    pub(crate) generator_waited_nanoseconds: u64,
    /// The same of the gateway's polling threads, together; `None` where they are not known.
    pub(crate) gateway_waited_nanoseconds: Option<u64>,
    /// The hypervisor ran something else, of each CPU.
    pub(crate) stolen_nanoseconds: Vec<u64>,
}

/// Where to look.
#[derive(Debug, Default)]
pub(crate) struct Host {
    gateway: Option<u32>,
    polling: Vec<String>,
}

impl Host {
    /// This machine, and the process that is the gateway.
    pub(crate) fn new(gateway: Option<u32>) -> Self {
        Self { gateway, polling: gateway.map_or_else(Vec::new, polling_threads) }
    }

    /// The gateway's memory now.
    pub(crate) fn memory(&self) -> Option<Memory> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.gateway?)).ok()?;
        memory(&status)
    }

    /// Totals so far, of the calling thread among others.
    pub(crate) fn taken(&self) -> Taken {
        let waited = |path: &str| fs::read_to_string(path).ok().and_then(|text| waited(&text));
        let threads: Vec<u64> = self.polling.iter().filter_map(|path| waited(path)).collect();
        Taken {
            generator_waited_nanoseconds: waited("/proc/thread-self/schedstat").unwrap_or(0),
            gateway_waited_nanoseconds: (!threads.is_empty()).then(|| threads.iter().sum()),
            stolen_nanoseconds: fs::read_to_string("/proc/stat").map_or_else(|_| Vec::new(), |text| stolen(&text)),
        }
    }
}

impl Taken {
    /// What was taken since `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            generator_waited_nanoseconds: self
                .generator_waited_nanoseconds
                .saturating_sub(before.generator_waited_nanoseconds),
            gateway_waited_nanoseconds: self
                .gateway_waited_nanoseconds
                .zip(before.gateway_waited_nanoseconds)
                .map(|(after, before)| after.saturating_sub(before)),
            stolen_nanoseconds: self
                .stolen_nanoseconds
                .iter()
                .zip(&before.stolen_nanoseconds)
                .map(|(after, before)| after.saturating_sub(*before))
                .collect(),
        }
    }
}

/// The `schedstat` files of Millrace's polling threads, which are called `core-N`.
fn polling_threads(gateway: u32) -> Vec<String> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{gateway}/task")) else { return Vec::new() };
    tasks
        .filter_map(|task| {
            let path = task.ok()?.path();
            let name = fs::read_to_string(path.join("comm")).ok()?;
            name.starts_with("core-").then(|| path.join("schedstat").to_string_lossy().into_owned())
        })
        .collect()
}

fn memory(status: &str) -> Option<Memory> {
    let of = |name: &str| {
        let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
    };
    Some(Memory { resident_bytes: of("VmRSS:")?, hugepage_bytes: of("HugetlbPages:").unwrap_or(0) })
}

/// The second field (Documentation/scheduler/sched-stats.rst): nanoseconds on a run queue.
fn waited(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().nth(1)?.parse().ok()
}

/// The eighth number of each CPU's line (proc_stat(5)), in hundredths of a second.
fn stolen(stat: &str) -> Vec<u64> {
    const TICK: u64 = 10_000_000;
    let cpus = stat.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu "));
    cpus.map(|line| line.split_whitespace().nth(8).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * TICK).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read() {
        let status = "Name:\tmillrace\nVmRSS:\t   1000 kB\nHugetlbPages:\t  2048 kB\n";
        assert_eq!(memory(status), Some(Memory { resident_bytes: 1_024_000, hugepage_bytes: 2_097_152 }));
        assert_eq!(memory("Name: x\n"), None);
        assert_eq!(waited("380367 725500 2\n"), Some(725_500));
        let stat = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\ncpu1 1 2 3 4 5 6 7 0 0 0\nintr 5\n";
        assert_eq!(stolen(stat), [80_000_000, 0]);
    }

    #[test]
    fn this_process_can_be_asked() {
        let host = Host::new(Some(std::process::id()));
        assert!(host.memory().unwrap().resident_bytes > 0);
        let before = host.taken();
        assert_eq!(host.taken().since(&before).gateway_waited_nanoseconds, None);
        assert!(!before.stolen_nanoseconds.is_empty());
        assert_eq!(Host::new(None).memory(), None);
    }
}
