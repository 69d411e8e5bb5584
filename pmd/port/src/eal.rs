//! Starting and ending DPDK's environment abstraction layer (EAL).
//!
//! Owns the process-wide state of DPDK: its memory, its devices before they are configured, its log. The binary calls it once,
//! before any port is configured. It never touches a packet, never pins or keeps a thread that polls, and never prints.

mod device;
mod host;
pub(crate) mod interrupts;
pub(crate) mod log;

use std::collections::HashSet;
use std::ffi::{CString, c_char, c_int};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::error::{EalError, Errno, check};
use crate::mempool::RawPool;

pub(crate) use device::Device;

/// How DPDK is to be started.
#[derive(Debug, Clone)]
pub struct EalOptions {
    /// Cores that polling threads will be pinned to. DPDK's own housekeeping threads keep off them where others are left.
    pub cores: Vec<u16>,
    /// Memory for mbufs and rings of all ports together, in MiB, taken at once.
    pub mebibytes: u32,
    /// Where that memory comes from.
    pub hugepages: Hugepages,
    /// DPDK virtual devices (`net_af_packet0,iface=eth0`) and PCI addresses (`0000:03:00.0`).
    pub devices: Vec<String>,
    /// The name under which another process can share DPDK's memory files. `None` keeps everything private to this process, so
    /// that any number of them run side by side.
    pub file_prefix: Option<String>,
    /// Few large files instead of one per page: what `net_vhost` and `net_virtio_user` need.
    pub single_file_segments: bool,
    /// Further arguments, handed to DPDK as they are.
    pub extra: Vec<String>,
}

impl Default for EalOptions {
    fn default() -> Self {
        Self {
            cores: Vec::new(),
            mebibytes: 256,
            hugepages: Hugepages::Auto,
            devices: Vec::new(),
            file_prefix: None,
            single_file_segments: false,
            extra: Vec::new(),
        }
    }
}

/// Whether memory comes from hugepages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Hugepages {
    /// If enough are free, else ordinary pages.
    #[default]
    Auto,
    /// Hugepages, or no start.
    Required,
    /// Ordinary pages. NICs on the PCI bus then need an IOMMU.
    Off,
}

/// Where DPDK's memory came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryMode {
    /// Hugepages.
    Hugepages,
    /// Ordinary 4 KiB pages.
    Ordinary,
}

/// DPDK, running. A clone is another handle on the same; when the last handle, port and lane is gone, DPDK ends.
#[derive(Debug, Clone)]
pub struct Eal {
    runtime: Arc<Runtime>,
}

/// DPDK's release, as it names itself. Can be asked before it is started.
#[must_use]
pub fn dpdk_version() -> String {
    // SAFETY: the function returns a constant string.
    unsafe { std::ffi::CStr::from_ptr(dpdk_sys::rte_version()) }.to_string_lossy().into_owned()
}

impl Eal {
    /// Starts DPDK, and checks that every device has a driver that took it.
    ///
    /// # Errors
    /// What can be told beforehand (privileges, interfaces, hugepages, cores, device strings) is checked beforehand, and can be
    /// tried again. Once DPDK itself was started, it cannot be started again in this process: [`EalError::AlreadyStarted`].
    pub fn start(options: &EalOptions) -> Result<Self, EalError> {
        let devices = devices(options)?;
        let memory = memory(options)?;
        let arguments = arguments(options, &devices, memory)?;
        if STARTED.swap(true, Ordering::SeqCst) {
            return Err(EalError::AlreadyStarted);
        }
        log::capture();
        let mark = log::mark();
        // EAL pins the thread that starts it to its main core, for good: let that be a thread of its own.
        let started = thread::scope(|scope| scope.spawn(|| init(arguments)).join());
        if let Err(cause) = started.unwrap_or(Err(Errno(libc::EFAULT))) {
            return Err(explain(options, memory, cause, log::since(mark)));
        }
        let runtime = Runtime { memory, devices, pools: Mutex::default(), claimed: Mutex::default() };
        let eal = Self { runtime: Arc::new(runtime) };
        for device in &eal.runtime.devices {
            if crate::port::find(&device.name).is_none() {
                let log = log::since(mark);
                return Err(EalError::DeviceRefused { device: device.text.clone(), log: complaints(log) });
            }
        }
        Ok(eal)
    }

    /// Where DPDK's memory came from.
    #[must_use]
    pub fn memory_mode(&self) -> MemoryMode {
        self.runtime.memory
    }

    /// DPDK's release, as it names itself.
    #[must_use]
    pub fn version(&self) -> String {
        dpdk_version()
    }

    /// Takes what DPDK logged since the last call, oldest line first. Of a long log only the end is kept.
    #[must_use]
    pub fn take_log(&self) -> Vec<String> {
        log::take()
    }

    /// Makes this thread known to DPDK, so that its mbufs go through a per-thread cache. To be called by each polling thread,
    /// after it was pinned. Without it everything works, and each mbuf costs an atomic operation on the shared ring.
    ///
    /// # Errors
    /// [`EalError::Thread`] when this thread is registered already, or DPDK has no place left.
    pub fn register_thread(&self) -> Result<RegisteredThread, EalError> {
        // SAFETY: reads a per-thread variable.
        if unsafe { dpdk_sys::rte_lcore_id() } != dpdk_sys::SHIM_LCORE_ID_ANY {
            return Err(EalError::Thread { cause: Errno(libc::EEXIST) });
        }
        // SAFETY: EAL is running, since `self` exists, and this thread has no lcore id.
        check(unsafe { dpdk_sys::rte_thread_register() }).map_err(|cause| EalError::Thread { cause })?;
        Ok(RegisteredThread { _runtime: Arc::clone(&self.runtime), _this_thread: PhantomData })
    }

    pub(crate) fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }
}

/// A thread that DPDK knows; dropped when the thread stops polling, and on that thread.
#[derive(Debug)]
pub struct RegisteredThread {
    _runtime: Arc<Runtime>,
    /// Not `Send`: the registration is this thread's.
    _this_thread: PhantomData<*const ()>,
}

impl Drop for RegisteredThread {
    fn drop(&mut self) {
        // SAFETY: this thread is registered (the guard cannot leave it), and EAL is running (`_runtime` holds it).
        unsafe { dpdk_sys::rte_thread_unregister() };
    }
}

/// What lives as long as anything of DPDK does: ports, lanes and registered threads each hold it.
#[derive(Debug)]
pub(crate) struct Runtime {
    memory: MemoryMode,
    devices: Vec<Device>,
    /// Every pool, freed only here: its mbufs may sit in the rings of any port.
    pools: Mutex<Vec<RawPool>>,
    /// Ports that were configured once.
    claimed: Mutex<HashSet<u16>>,
}

impl Runtime {
    /// The device that was given at the start, by its whole string or by its name alone.
    pub(crate) fn device(&self, text: &str) -> Option<&Device> {
        let name = device::name(text);
        self.devices.iter().find(|device| device.name == name)
    }

    pub(crate) fn keep(&self, pool: RawPool) {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).push(pool);
    }

    /// Whether the caller is the first to ask for this port.
    pub(crate) fn claim(&self, port: u16) -> bool {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner).insert(port)
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        let pools = std::mem::take(self.pools.get_mut().unwrap_or_else(PoisonError::into_inner));
        // Ports are closed and threads unregistered, so an mbuf that is still in use is in some owner's hands and will be
        // read, written and freed by it: then everything stays until the process ends.
        if pools.iter().any(|pool| pool.in_use() > 0) {
            return;
        }
        for pool in pools {
            pool.free();
        }
        interrupts::unregister_all();
        // SAFETY: EAL was started, this is the only place that ends it, and nothing of DPDK is in use any more: whoever
        // uses it holds this runtime.
        unsafe { dpdk_sys::rte_eal_cleanup() };
    }
}

/// EAL can be started once a process, by its own rules.
static STARTED: AtomicBool = AtomicBool::new(false);

fn devices(options: &EalOptions) -> Result<Vec<Device>, EalError> {
    let mut devices: Vec<Device> = Vec::new();
    for text in &options.devices {
        let device = Device::parse(text)?;
        if devices.iter().any(|other| other.name == device.name) {
            let reason = format!("{} is named twice", device.name);
            return Err(EalError::UnknownDevice { device: text.clone(), reason });
        }
        device.precheck()?;
        devices.push(device);
    }
    Ok(devices)
}

fn memory(options: &EalOptions) -> Result<MemoryMode, EalError> {
    let free_mib = host::free_hugepages_mib();
    let enough = free_mib >= options.mebibytes && free_mib > 0;
    // Without a prefix, pages are taken from the kernel directly, and no mount is needed.
    let reachable = options.file_prefix.is_none() || host::hugetlbfs_mounted();
    match options.hugepages {
        Hugepages::Off => Ok(MemoryMode::Ordinary),
        Hugepages::Auto if enough && reachable => Ok(MemoryMode::Hugepages),
        Hugepages::Auto => Ok(MemoryMode::Ordinary),
        Hugepages::Required if !enough => Err(EalError::NotEnoughHugepages { wanted_mib: options.mebibytes, free_mib }),
        Hugepages::Required if !reachable => Err(EalError::NoHugetlbfs),
        Hugepages::Required => Ok(MemoryMode::Hugepages),
    }
}

fn arguments(options: &EalOptions, devices: &[Device], memory: MemoryMode) -> Result<Vec<CString>, EalError> {
    let available = host::cores();
    if let Some(&core) = options.cores.iter().find(|core| !available.contains(core)) {
        return Err(EalError::NoSuchCore { core, available: host::ranges(&available) });
    }
    // EAL keeps its own threads off the cores of its lcores. So its one lcore, whose thread ends at once,
    // is said to be on the polling cores.
    let mut cores = if options.cores.is_empty() { available } else { options.cores.clone() };
    cores.sort_unstable();
    cores.dedup();
    let mut arguments = vec![
        "millrace".to_owned(),
        format!("--lcores=0@({})", host::ranges(&cores)),
        "--no-telemetry".to_owned(),
        "-m".to_owned(),
        options.mebibytes.to_string(),
    ];
    let mut say = |argument: &str| arguments.push(argument.to_owned());
    match (memory, &options.file_prefix) {
        (MemoryMode::Ordinary, _) => ["--no-huge", "--iova-mode=va"].into_iter().for_each(&mut say),
        (MemoryMode::Hugepages, None) => say("--in-memory"),
        (MemoryMode::Hugepages, Some(_)) => {}
    }
    // A virtio device may go past the IOMMU that it is behind, without a word (VIRTIO 1.2 §6.3, VIRTIO_F_ACCESS_PLATFORM), and with the virtual addresses that
    // DPDK would give it then never answers the first command. Physical addresses suit either kind.
    let virtio = devices.iter().any(|device| device.pci && host::is_virtio(&device.name));
    if virtio && memory == MemoryMode::Hugepages && host::may_see_physical_addresses() {
        say("--iova-mode=pa");
    }
    match &options.file_prefix {
        Some(prefix) => say(&format!("--file-prefix={prefix}")),
        // Nothing is written under this prefix, so that many processes may have it.
        None => ["--no-shconf", "--file-prefix=millrace"].into_iter().for_each(&mut say),
    }
    if options.single_file_segments {
        say("--single-file-segments");
    }
    if !devices.iter().any(|device| device.pci) {
        say("--no-pci");
    }
    for device in devices {
        say(&format!("{}={}", if device.pci { "--allow" } else { "--vdev" }, device.text));
    }
    arguments.extend(options.extra.iter().cloned());
    let to_c = |text: String| {
        CString::new(text.clone())
            .map_err(|_| EalError::UnknownDevice { device: text, reason: "it holds a zero byte".to_owned() })
    };
    arguments.into_iter().map(to_c).collect()
}

fn init(arguments: Vec<CString>) -> Result<u32, Errno> {
    // EAL permutes the array and keeps pointers into the strings: both live as long as the process.
    let arguments: Vec<*mut c_char> = arguments.into_iter().map(CString::into_raw).collect();
    let arguments = arguments.leak();
    let count = c_int::try_from(arguments.len()).map_err(|_| Errno(libc::E2BIG))?;
    // SAFETY: `arguments` are `count` C strings that are never freed; STARTED lets only one thread get here, once.
    check(unsafe { dpdk_sys::rte_eal_init(count, arguments.as_mut_ptr()) })
}

/// Finds the common reasons in DPDK's own words.
fn explain(options: &EalOptions, memory: MemoryMode, cause: Errno, log: Vec<String>) -> EalError {
    let says = |words: &str| log.iter().any(|line| line.contains(words));
    let unparsed = |text: &&String| says(&format!("failed to parse device \"{}\"", device::name(text)));
    if let Some(device) = options.devices.iter().find(unparsed) {
        let reason = "DPDK has no driver of this name".to_owned();
        return EalError::UnknownDevice { device: device.clone(), reason };
    }
    if let (true, Some(prefix)) = (says("Cannot create lock on"), &options.file_prefix) {
        return EalError::PrefixInUse { prefix: prefix.clone() };
    }
    if memory == MemoryMode::Hugepages && (says("No free") || says("Not enough memory") || says("Cannot get hugepage"))
    {
        return EalError::NotEnoughHugepages { wanted_mib: options.mebibytes, free_mib: host::free_hugepages_mib() };
    }
    if matches!(cause.0, libc::EACCES | libc::EPERM) || says("Permission denied") {
        let needed = complaints(log).pop().unwrap_or_else(|| "DPDK may not reach its memory or devices".to_owned());
        return EalError::NoPermission { needed };
    }
    EalError::Refused { cause, log: complaints(log) }
}

/// Without the lines that DPDK writes at every start.
fn complaints(log: Vec<String>) -> Vec<String> {
    const USUAL: &[&str] =
        &["EAL: Detected ", "EAL: Selected IOVA", "EAL: Multi-process socket", "EAL: VFIO support", "TELEMETRY:"];
    log.into_iter().filter(|line| !USUAL.iter().any(|usual| line.starts_with(usual))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(options: &EalOptions, memory: MemoryMode) -> Vec<String> {
        let devices = options.devices.iter().map(|text| Device::parse(text).unwrap()).collect::<Vec<_>>();
        let arguments = arguments(options, &devices, memory).unwrap();
        arguments.into_iter().map(|argument| argument.into_string().unwrap()).collect()
    }

    #[test]
    fn arguments_say_what_was_asked() {
        let mut options = EalOptions {
            cores: vec![0],
            mebibytes: 64,
            devices: vec!["net_ring0".into()],
            extra: vec!["--log-level=7".into()],
            ..EalOptions::default()
        };
        let said = text(&options, MemoryMode::Ordinary);
        assert_eq!(said[..5], ["millrace", "--lcores=0@(0)", "--no-telemetry", "-m", "64"]);
        assert!(
            ["--no-huge", "--iova-mode=va", "--no-pci", "--vdev=net_ring0"].iter().all(|a| said.iter().any(|s| s == a))
        );
        assert_eq!(said.last().unwrap(), "--log-level=7");

        options.devices.push("03:00.0".into());
        let said = text(&options, MemoryMode::Hugepages);
        assert!(said.contains(&"--in-memory".to_owned()) && said.contains(&"--allow=03:00.0".to_owned()));
        assert!(!said.contains(&"--no-pci".to_owned()) && !said.contains(&"--no-huge".to_owned()));

        options.file_prefix = Some("mr".into());
        options.single_file_segments = true;
        let said = text(&options, MemoryMode::Hugepages);
        assert!(said.contains(&"--file-prefix=mr".to_owned()) && said.contains(&"--single-file-segments".to_owned()));
        assert!(!said.contains(&"--in-memory".to_owned()));
    }

    #[test]
    fn what_is_wrong_is_said_before_dpdk_starts() {
        let with = |device: &str| EalOptions { devices: vec![device.into()], ..EalOptions::default() };
        let error = Eal::start(&with("net_af_packet0,iface=mrp-none")).unwrap_err();
        assert!(matches!(&error, EalError::NoSuchInterface { interface, .. } if interface == "mrp-none"), "{error}");
        assert!(matches!(Eal::start(&with("eth0")), Err(EalError::UnknownDevice { .. })));
        assert!(matches!(Eal::start(&with("ffff:ff:1f.7")), Err(EalError::UnknownDevice { .. })));
        let options = EalOptions { cores: vec![1023], ..EalOptions::default() };
        assert!(matches!(Eal::start(&options), Err(EalError::NoSuchCore { core: 1023, .. })));
        let options = EalOptions { hugepages: Hugepages::Required, mebibytes: u32::MAX, ..EalOptions::default() };
        assert!(matches!(Eal::start(&options), Err(EalError::NotEnoughHugepages { .. })));
        let options = EalOptions { devices: vec!["net_ring0".into(), "net_ring0,x=1".into()], ..EalOptions::default() };
        assert!(matches!(Eal::start(&options), Err(EalError::UnknownDevice { .. })));
    }
}
