//! `millrace check`: is this host ready?
//!
//! Looks, and changes nothing. What stands in the way of running fails; what costs speed or safety warns.

mod device;
mod host;

use std::path::PathBuf;

use schema::{ApplianceSpec, Hugepages};

use crate::failure::Failure;
use host::Host;

/// Prints a line per finding; fails where one of them would keep Millrace from running.
pub(crate) fn check(files: &[PathBuf]) -> Result<(), Failure> {
    let configuration = if files.is_empty() { None } else { Some(schema::load(files)?) };
    let findings = findings(&Host::this(), configuration.as_ref().map(|c| &c.appliance.spec));
    let mut text = String::new();
    for finding in &findings {
        text += &format!("{} {:<11} {}\n", finding.level.word(), finding.subject, finding.what);
        if let Some(hint) = &finding.hint {
            text += &format!("     {:<11} hint: {hint}\n", "");
        }
    }
    let count = |level| findings.iter().filter(|f| f.level == level).count();
    let (failed, warned) = (count(Level::Fail), count(Level::Warn));
    text += &match (failed, warned) {
        (0, 0) => "\nthis host is ready\n".to_owned(),
        (0, _) => format!("\nthis host is ready, with {warned} warning(s)\n"),
        _ => format!("\nthis host is not ready: {failed} failed, {warned} warning(s)\n"),
    };
    crate::say(&text);
    if failed == 0 { Ok(()) } else { Err(Failure::Reported(1)) }
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Pass,
    Warn,
    Fail,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug)]
struct Finding {
    level: Level,
    subject: String,
    what: String,
    hint: Option<String>,
}

impl Finding {
    fn new(level: Level, subject: &str, what: impl Into<String>) -> Self {
        Self { level, subject: subject.to_owned(), what: what.into(), hint: None }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

fn findings(host: &Host, spec: Option<&ApplianceSpec>) -> Vec<Finding> {
    let devices: Vec<(&str, &str)> =
        spec.map(|s| s.ports.iter().map(|p| (p.name.as_str(), &*p.device)).collect()).unwrap_or_default();
    let pci = devices.iter().any(|(_, device)| device::is_pci(device));
    let mut found = vec![privileges(host)];
    found.push(Finding::new(Level::Pass, "DPDK", pmd::dpdk_version()));
    found.extend(device::drivers(host, &devices));
    found.push(hugepages(host, spec, pci));
    found.extend(cpus(host, spec));
    found.push(clock(host));
    found.push(iommu(host, pci));
    for (name, device) in devices {
        found.extend(device::findings(host, name, device));
    }
    if spec.is_some_and(|spec| spec.ports.iter().any(|port| port.exception.is_some())) {
        found.push(tap(host));
    }
    found
}

/// What exception paths need of the kernel.
fn tap(host: &Host) -> Finding {
    let subject = "TAP";
    if host.exists("/dev/net/tun") {
        Finding::new(Level::Pass, subject, "/dev/net/tun is there for the exception path")
    } else {
        Finding::new(Level::Fail, subject, "an exception path is configured, and there is no /dev/net/tun")
            .hint("modprobe tun; in a container, give it the device /dev/net/tun and CAP_NET_ADMIN")
    }
}

/// Capabilities that DPDK's drivers need, by their bit (linux/capability.h).
const CAPABILITIES: &[(u32, &str)] = &[(12, "CAP_NET_ADMIN"), (13, "CAP_NET_RAW"), (14, "CAP_IPC_LOCK")];

fn privileges(host: &Host) -> Finding {
    let subject = "privileges";
    let hint = "run as root, or grant CAP_NET_RAW, CAP_NET_ADMIN and CAP_IPC_LOCK";
    let Some(effective) = host.capabilities() else {
        return Finding::new(Level::Warn, subject, "/proc/self/status cannot be read").hint(hint);
    };
    let missing: Vec<_> =
        CAPABILITIES.iter().filter(|(bit, _)| effective >> bit & 1 == 0).map(|&(_, name)| name).collect();
    if missing.is_empty() {
        Finding::new(Level::Pass, subject, "network and memory-locking capabilities are there")
    } else {
        Finding::new(Level::Fail, subject, format!("missing: {}", missing.join(", "))).hint(hint)
    }
}

fn hugepages(host: &Host, spec: Option<&ApplianceSpec>, pci: bool) -> Finding {
    let subject = "hugepages";
    let memory = spec.map(|s| s.memory).unwrap_or_default();
    let free = host.free_hugepages_mib();
    let mounted = if host.hugetlbfs_mounted() { "hugetlbfs is mounted" } else { "hugetlbfs is not mounted" };
    let what = format!("{free} MiB free, {} MiB wanted; {mounted}", memory.mebibytes);
    let hint = format!(
        "reserve some: echo {} > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages",
        memory.mebibytes.div_ceil(2)
    );
    let enough = free >= u64::from(memory.mebibytes);
    match memory.hugepages {
        Hugepages::Off => Finding::new(Level::Pass, subject, "off by configuration"),
        _ if enough => Finding::new(Level::Pass, subject, what),
        Hugepages::Required => Finding::new(Level::Fail, subject, what).hint(hint),
        Hugepages::Auto if pci => Finding::new(Level::Warn, subject, what).hint(hint),
        Hugepages::Auto => {
            Finding::new(Level::Pass, subject, format!("{what}; ordinary pages will do for virtual devices"))
        }
    }
}

fn cpus(host: &Host, spec: Option<&ApplianceSpec>) -> Vec<Finding> {
    let subject = "CPUs";
    let (online, isolated, nodes) = (host.online_cpus(), host.isolated_cpus(), host.numa_nodes());
    let mut found = vec![if online.len() < 2 {
        Finding::new(Level::Warn, subject, "only one CPU: the polling core shares it with everything else")
            .hint("give the machine a second CPU")
    } else {
        let isolated = if isolated.is_empty() { "none isolated".to_owned() } else { format!("isolated: {isolated:?}") };
        Finding::new(Level::Pass, subject, format!("{} online, {isolated}, {nodes} NUMA node(s)", online.len()))
    }];
    for core in spec.map(|s| s.cores.as_slice()).unwrap_or_default() {
        let cpu = core.value.0;
        let subject = format!("core {cpu}");
        found.push(if !online.contains(&cpu) {
            Finding::new(Level::Fail, &subject, format!("there is no CPU {cpu} online"))
                .hint(format!("choose one of {online:?} in spec.cores"))
        } else if !isolated.contains(&cpu) {
            Finding::new(
                Level::Warn,
                &subject,
                "is not isolated: the kernel runs other things there, which costs latency",
            )
            .hint(format!("boot with isolcpus={cpu} nohz_full={cpu} rcu_nocbs={cpu} where latency matters"))
        } else {
            Finding::new(Level::Pass, &subject, "is online and isolated")
        });
    }
    found
}

fn clock(host: &Host) -> Finding {
    let source = host.clock_source();
    match source.as_deref() {
        // Those that user space reads without a system call.
        Some("tsc" | "kvm-clock" | "hyperv_clocksource_tsc_page" | "arch_sys_counter") => {
            Finding::new(Level::Pass, "clock", source.unwrap_or_default())
        }
        Some(slow) => Finding::new(Level::Warn, "clock", format!("{slow}: every reading is a system call"))
            .hint("boot with clocksource=tsc if the CPU's TSC is constant"),
        None => Finding::new(Level::Warn, "clock", "the clock source cannot be read"),
    }
}

fn iommu(host: &Host, pci: bool) -> Finding {
    let groups = host.iommu_groups();
    match (pci, groups) {
        (false, 0) => Finding::new(Level::Pass, "IOMMU", "off; virtual devices need none"),
        (_, groups) if groups > 0 => {
            let vfio =
                if host.vfio_loaded() { "vfio-pci is loaded" } else { "vfio-pci is not loaded (modprobe vfio-pci)" };
            Finding::new(Level::Pass, "IOMMU", format!("on, {groups} groups; {vfio}"))
        }
        _ => Finding::new(
            Level::Warn,
            "IOMMU",
            "off: a NIC can then write anywhere in memory, and needs uio_pci_generic, or vfio's no-IOMMU mode, and hugepages",
        )
        .hint("boot with intel_iommu=on or amd_iommu=on, and iommu=pt"),
    }
}

#[cfg(test)]
mod tests;
