//! Ports: configured and started once, then handed out as lanes.
//!
//! The binary calls it at start-up; the control side reads statistics and the link from it. It never receives or sends.

mod interface;
mod rules;

use std::ffi::{CStr, CString, c_char};
use std::path::PathBuf;
use std::ptr;
use std::sync::Arc;

use dpdk_sys as sys;

use crate::eal::{Eal, Runtime, interrupts, log};
use crate::error::{Errno, PortError, check};
use crate::lane::{LARGE_FRAME, Link, RESERVE};
use crate::mempool::Mempool;
use crate::offload::Offloads;
use crate::queue::DpdkLane;
use interface::Interface;

/// How a port is to be configured.
#[derive(Debug, Clone)]
pub struct PortOptions {
    /// Queue pairs, each of which becomes a lane.
    pub queues: u16,
    /// Fewer queues will do, where the device has no more.
    pub fewer_queues: bool,
    /// Lanes at least; those beyond the queues have buffers only. A core whose lane has no queue sends and receives by another's.
    pub lanes: u16,
    /// Where the device spreads flows over several queues by a hash: its key, of which it takes as much as it has room for. Empty leaves the
    /// driver's own, which everybody knows.
    pub rss_key: Vec<u8>,
    /// Frames that each receive ring holds; the driver's limits apply silently.
    pub rx_descriptors: u16,
    /// Frames that each send ring holds; the driver's limits apply silently.
    pub tx_descriptors: u16,
    /// The largest IP packet in bytes; `None` leaves what the device has.
    pub mtu: Option<u16>,
    /// The Ethernet address to take; `None` leaves what the device has.
    pub mac: Option<[u8; 6]>,
    /// Mbufs in each lane's pool. What the rings of the device can hold comes out of these. With the default
    /// data room, each takes 2.4 KiB of hugepages, and 4 KiB of ordinary ones, whose borders it may not cross.
    pub mbufs: u32,
    /// Bytes of the longest frame that an mbuf holds.
    pub data_room: u16,
    /// Receive what is sent to any group, as IPv6 needs.
    pub groups: bool,
    /// Mbufs in each lane's pool of large ones, 64 KiB each, with which the device cuts sent segments and joins received ones where it can.
    /// What a receive ring holds comes on top. 0 leaves segments as long as the MTU allows. They need hugepages.
    pub large_mbufs: u32,
    /// Have receive queues signal frames to who sleeps ([`DpdkLane::watch`]), where the device can.
    pub interrupts: bool,
}

impl PortOptions {
    /// The least [`PortOptions::data_room`] for IP packets of `mtu` bytes, and never less than the usual one: a multiple of 1,024, because some
    /// devices count in those.
    #[must_use]
    pub fn room_for(mtu: u16) -> u16 {
        let frame = (u32::from(mtu) + FRAME_OVERHEAD).next_multiple_of(1024);
        u16::try_from(frame).unwrap_or(u16::MAX).max(Self::default().data_room)
    }

    /// Bytes of memory that a lane with these options takes for large mbufs, at most.
    #[must_use]
    pub fn large_memory(&self) -> u64 {
        // Beside the frame and its headroom: the mbuf, the pool's own header, and what spreads them over memory channels.
        const EACH: u64 = 64 * 1024 + 512;
        let ring = if self.large_mbufs == 0 { 0 } else { u64::from(self.rx_descriptors) };
        (u64::from(self.large_mbufs) + ring) * EACH
    }
}

impl Default for PortOptions {
    fn default() -> Self {
        Self {
            queues: 1,
            fewer_queues: false,
            lanes: 1,
            rss_key: Vec::new(),
            rx_descriptors: 1024,
            tx_descriptors: 1024,
            mtu: None,
            mac: None,
            mbufs: 8192,
            data_room: 2048,
            groups: false,
            large_mbufs: 0,
            interrupts: false,
        }
    }
}

/// One port. Dropping it and all its lanes closes it.
#[derive(Debug)]
pub struct Port {
    shared: Arc<Shared>,
    /// Each lane's.
    pools: Vec<Pools>,
    /// Lanes that were handed out.
    taken: Vec<bool>,
    queues: u16,
    started: bool,
}

/// How a device spreads TCP flows over its queues: by the Toeplitz hash of addresses and ports, the low bits of which select an entry of
/// the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spreading {
    /// The hash's key.
    pub key: Vec<u8>,
    /// The indirection table; its entries are queues.
    pub table: Vec<u16>,
}

/// What the driver says about the port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// Receive offloads, by DPDK's names.
    pub rx_offloads: Vec<String>,
    /// Send offloads, by DPDK's names.
    pub tx_offloads: Vec<String>,
    /// Queue pairs at most.
    pub queues: u16,
    /// The driver spreads received flows over queues by itself (RSS).
    pub rss: bool,
}

/// What the device counted since it started. It may count what a lane never saw, and some drivers count little.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortStatistics {
    /// Frames received.
    pub rx_packets: u64,
    /// Frames sent.
    pub tx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Frames dropped because the receive ring was full.
    pub rx_missed: u64,
    /// Frames received in error.
    pub rx_errors: u64,
    /// Frames not sent because of an error.
    pub tx_errors: u64,
    /// Frames dropped because there was no mbuf for them.
    pub rx_no_mbuf: u64,
    /// All that the driver counts, by its own names.
    pub extended: Vec<(String, u64)>,
}

impl Port {
    /// Configures a device that was given to [`Eal::start`], named by the same string or by the name in it.
    ///
    /// # Errors
    /// As [`PortError`] lists them. A port that failed to configure stays unusable until DPDK is started anew.
    pub fn configure(eal: &Eal, device: &str, options: &PortOptions) -> Result<Self, PortError> {
        let (device_string, device) = (device, device.to_owned());
        let Some(known) = eal.runtime().device(&device) else { return Err(PortError::NotFound { device }) };
        let Some(id) = find(&known.name) else { return Err(PortError::NotFound { device }) };
        if !eal.runtime().claim(id) {
            return Err(PortError::InUse { device });
        }
        let interface = known.interface.as_deref().and_then(Interface::open);
        let socket = known.server_socket().map(PathBuf::from);
        let opened = Opened { id, runtime: Arc::clone(eal.runtime()), device: known.name.clone(), socket };
        let info = opened.info()?;
        if text(info.driver_name) == MEMIF {
            opened.step(
                "be used by a program that does not export rte_intr_callback_unregister and its like",
                || {
                    if interrupts::in_effect() { 0 } else { -libc::ENOTSUP }
                },
            )?;
        }
        let offloads = offloads(&info, options, device_string);
        let queues = opened.queues(options, &info)?;
        let jumbo = options.mtu.filter(|mtu| (ORDINARY_MTU + 1..=ring_room(&info, device_string)).contains(mtu));
        // What the driver would refuse it is not asked for.
        let asked = PortOptions { mtu: options.mtu.filter(|_| jumbo.is_none()), ..options.clone() };
        let (queues, (pools, interrupts)) = opened.configure_at_most(&asked, queues, &info, offloads)?;
        if interrupts && text(info.driver_name) == VHOST {
            opened.step("tell of its other side", || interrupts::wait_when_link_changes(opened.id))?;
        }
        if options.groups {
            opened.take_groups()?;
        }
        let mtu = match (jumbo, &interface) {
            (Some(mtu), Some(interface)) => {
                interface.set_mtu(mtu);
                interface.mtu().map_or(mtu, |below| mtu.min(below))
            }
            _ => opened.mtu(interface.as_ref())?,
        };
        if u32::from(options.data_room) < u32::from(mtu) + FRAME_OVERHEAD {
            return Err(PortError::DataRoom { device: opened.device.clone(), mtu, data_room: options.data_room });
        }
        let shared = Shared {
            mac: opened.mac()?,
            mtu,
            offloads,
            driver: text(info.driver_name),
            capabilities: capabilities(&info),
            interface,
            interrupts,
            opened,
        };
        let taken = vec![false; pools.len()];
        Ok(Self { shared: Arc::new(shared), pools, taken, queues, started: false })
    }

    /// Starts the device: from now on it receives.
    ///
    /// # Errors
    /// [`PortError::Refused`] with the driver's words.
    pub fn start(&mut self) -> Result<(), PortError> {
        if !self.started {
            let opened = &self.shared.opened;
            // SAFETY: the port is configured and not started, and its id is valid while `opened` lives.
            opened.step("start", || unsafe { sys::rte_eth_dev_start(opened.id) })?;
            self.started = true;
        }
        Ok(())
    }

    /// Hands out a lane, once: that of a queue, or one of those beyond the queues, which have buffers only.
    ///
    /// # Errors
    /// [`PortError::NotStarted`], or [`PortError::NoLane`] where it was handed out before or does not exist.
    pub fn take_lane(&mut self, queue: u16) -> Result<DpdkLane, PortError> {
        let device = || self.shared.opened.device.clone();
        if !self.started {
            return Err(PortError::NotStarted { device: device() });
        }
        match (self.pools.get(usize::from(queue)), self.taken.get_mut(usize::from(queue))) {
            (Some(pools), Some(taken)) if !*taken => {
                *taken = true;
                let own = (queue < self.queues).then_some(queue);
                Ok(DpdkLane::new(Arc::clone(&self.shared), own, pools.share()))
            }
            _ => Err(PortError::NoLane { device: device(), queue }),
        }
    }

    /// Hands out all lanes that are still there, in the queues' order, those without a queue last.
    ///
    /// # Errors
    /// [`PortError::NotStarted`].
    pub fn lanes(&mut self) -> Result<Vec<DpdkLane>, PortError> {
        let lanes = u16::try_from(self.pools.len()).unwrap_or(u16::MAX);
        let free = (0..lanes).filter(|queue| self.taken.get(usize::from(*queue)) == Some(&false));
        free.collect::<Vec<_>>().into_iter().map(|queue| self.take_lane(queue)).collect()
    }

    /// What DPDK calls the port.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.opened.device
    }

    /// The driver, such as `net_af_packet`.
    #[must_use]
    pub fn driver(&self) -> &str {
        &self.shared.driver
    }

    /// Queue pairs.
    #[must_use]
    pub fn queues(&self) -> u16 {
        self.queues
    }

    /// How the device spreads TCP flows over its queues, where it tells. To be asked once it is started.
    #[must_use]
    pub fn spreading(&self) -> Option<Spreading> {
        self.shared.opened.spreading(self.queues).ok().flatten()
    }

    /// The port's Ethernet address.
    #[must_use]
    pub fn mac(&self) -> [u8; 6] {
        self.shared.mac
    }

    /// The largest IP packet that the port carries, in bytes.
    #[must_use]
    pub fn mtu(&self) -> u16 {
        self.shared.mtu
    }

    /// The link's state, read without blocking.
    #[must_use]
    pub fn link(&self) -> Link {
        self.shared.link()
    }

    /// What the device does about checksums.
    #[must_use]
    pub fn offloads(&self) -> Offloads {
        self.shared.offloads
    }

    /// What the driver says about the port.
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        &self.shared.capabilities
    }

    /// The pool of a queue's lane.
    #[must_use]
    pub fn pool(&self, queue: u16) -> Option<&Mempool> {
        self.pools.get(usize::from(queue)).map(|pools| &pools.usual)
    }

    /// What the device counted.
    ///
    /// # Errors
    /// [`PortError::Refused`] where the driver keeps no counters.
    pub fn statistics(&self) -> Result<PortStatistics, PortError> {
        self.shared.opened.statistics()
    }
}

/// The pools of one lane.
#[derive(Debug)]
pub(crate) struct Pools {
    /// Frames of the usual size.
    pub(crate) usual: Mempool,
    /// A few more of those.
    pub(crate) reserve: Mempool,
    /// Frames of 64 KiB, where the device cuts or joins segments.
    pub(crate) large: Option<Mempool>,
}

impl Pools {
    fn share(&self) -> Self {
        Self {
            usual: self.usual.share(),
            reserve: self.reserve.share(),
            large: self.large.as_ref().map(Mempool::share),
        }
    }

    /// Mbufs that are held by someone.
    pub(crate) fn in_use(&self) -> u32 {
        self.usual.in_use() + self.reserve.in_use() + self.large.as_ref().map_or(0, Mempool::in_use)
    }
}

/// Sent mbufs that a virtio ring keeps before they are freed: two bursts.
const VIRTIO_FREES_AT: u16 = 64;

/// A port as its lanes share it, closed when the last of them is gone.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) mac: [u8; 6],
    pub(crate) mtu: u16,
    pub(crate) offloads: Offloads,
    driver: String,
    capabilities: Capabilities,
    /// The kernel's interface below, of whose carrier DPDK may know nothing.
    interface: Option<Interface>,
    /// Receive queues were configured to signal frames.
    interrupts: bool,
    opened: Opened,
}

impl Shared {
    pub(crate) fn id(&self) -> u16 {
        self.opened.id
    }

    /// Whether the driver's bursts have to be waited for, see [`interrupts`].
    pub(crate) fn needs_presence(&self) -> bool {
        self.driver == MEMIF
    }

    /// Whether queues may be able to signal frames.
    pub(crate) fn interrupts(&self) -> bool {
        self.interrupts
    }

    /// Whether asking for such a signal touches what the driver frees when the other side goes.
    pub(crate) fn guards_interrupts(&self) -> bool {
        self.driver == VHOST
    }

    pub(crate) fn link(&self) -> Link {
        let (mut up, mut mbps) = (0, 0);
        // SAFETY: the port exists as long as `opened`; both pointers are valid for the call.
        let known = check(unsafe { sys::shim_link(self.opened.id, &raw mut up, &raw mut mbps) }).is_ok();
        let carrier = self.interface.as_ref().is_none_or(Interface::running);
        Link { up: known && up != 0 && carrier, mbps }
    }
}

/// The driver whose interrupt handler frees what a burst may be using.
const MEMIF: &str = "net_memif";

/// The driver that tells by an event that the other side goes, before it frees what [`Lane::arm`](crate::Lane::arm) may be using.
const VHOST: &str = "net_vhost";

/// The port that DPDK knows under this name.
pub(crate) fn find(name: &str) -> Option<u16> {
    let name = CString::new(name).ok()?;
    let mut id = 0;
    // SAFETY: the name is a C string; the id is written to before the call returns.
    check(unsafe { sys::rte_eth_dev_get_port_by_name(name.as_ptr(), &raw mut id) }).ok().map(|_| id)
}

/// The MTU that DPDK lets af_packet have at most.
const ORDINARY_MTU: u16 = 1500;

/// The largest IP packet that the rings of an af_packet device hold, where its arguments say how large their frames are; else 0. The driver of
/// DPDK 22.11 says that it takes no frames above 1,518 bytes (`max_rx_pktlen`), and passes whatever its rings hold.
fn ring_room(info: &sys::rte_eth_dev_info, device: &str) -> u16 {
    // Before the frame stand a header of the kernel's and an address, aligned (linux/if_packet.h, TPACKET2_HDRLEN), in front of the rest.
    const BESIDE: u32 = 128 + FRAME_OVERHEAD;
    let said = device.split(',').find_map(|argument| argument.strip_prefix("framesz=")).and_then(|n| n.parse().ok());
    let room = said.unwrap_or(0u32).saturating_sub(BESIDE);
    if text(info.driver_name) == "net_af_packet" { u16::try_from(room).unwrap_or(u16::MAX) } else { 0 }
}

/// Bytes of a frame beside the IP packet: Ethernet header, two VLAN tags.
const FRAME_OVERHEAD: u32 = 14 + 8;

/// A port that this process claimed. Closed on drop.
#[derive(Debug)]
struct Opened {
    id: u16,
    device: String,
    /// The socket that it made.
    socket: Option<PathBuf>,
    /// Ends after the port.
    runtime: Arc<Runtime>,
}

impl Drop for Opened {
    fn drop(&mut self) {
        let _held = interrupts::Pause::begin();
        interrupts::wait_no_more(self.id);
        if let Some(socket) = &self.socket {
            // Its driver leaves descriptors that it closed with EAL's interrupt thread when the other side has come a second time (seen with 22.11),
            // and that thread ends the process with an abort. So it stays open until the process ends; that nobody finds it any more is all
            // that closing would do for others.
            let _ = std::fs::remove_file(socket);
            // SAFETY: as below.
            unsafe { sys::rte_eth_dev_stop(self.id) };
            return;
        }
        // SAFETY: no lane is left, so nobody polls the port. Stopping a stopped port, and a driver that cannot
        // stop, are harmless; closing gives back all mbufs in its rings.
        unsafe {
            sys::rte_eth_dev_stop(self.id);
            sys::rte_eth_dev_close(self.id);
        }
    }
}

impl Opened {
    /// Does one step of the set-up, and quotes what the driver logged where it fails.
    fn step(&self, step: &'static str, call: impl FnOnce() -> i32) -> Result<u32, PortError> {
        let mark = log::mark();
        check(call()).map_err(|cause| {
            let device = self.device.clone();
            PortError::Refused { device, step, cause, log: log::since(mark) }
        })
    }

    fn info(&self) -> Result<sys::rte_eth_dev_info, PortError> {
        let mut info = sys::rte_eth_dev_info::default();
        // SAFETY: the port exists; `info` is valid for the call.
        self.step("describe itself", || unsafe { sys::rte_eth_dev_info_get(self.id, &raw mut info) })?;
        Ok(info)
    }

    fn mac(&self) -> Result<[u8; 6], PortError> {
        let mut mac = [0; 6];
        // SAFETY: the port exists; six bytes are written.
        self.step("tell its address", || unsafe { sys::shim_mac(self.id, mac.as_mut_ptr()) })?;
        Ok(mac)
    }

    /// Lets frames to groups through. What has no filter, and so nothing to switch, says that it cannot.
    fn take_groups(&self) -> Result<(), PortError> {
        let set = || {
            // SAFETY: the port exists.
            match unsafe { sys::rte_eth_allmulticast_enable(self.id) } {
                error if error == -libc::ENOTSUP => 0,
                other => other,
            }
        };
        self.step("take frames to groups", set).map(|_| ())
    }

    fn mtu(&self, interface: Option<&Interface>) -> Result<u16, PortError> {
        let mut mtu = 0;
        // SAFETY: the port exists; `mtu` is valid for the call.
        self.step("tell its MTU", || unsafe { sys::rte_eth_dev_get_mtu(self.id, &raw mut mtu) })?;
        // af_packet says 1500, whatever the interface has.
        Ok(interface.and_then(Interface::mtu).map_or(mtu, |below| mtu.min(below)))
    }

    /// How many queue pairs there will be.
    fn queues(&self, options: &PortOptions, info: &sys::rte_eth_dev_info) -> Result<u16, PortError> {
        let available = info.max_rx_queues.min(info.max_tx_queues);
        let queues = if options.fewer_queues { options.queues.min(available) } else { options.queues };
        if queues == 0 || queues > available {
            return Err(PortError::Queues { device: self.device.clone(), wanted: options.queues, available });
        }
        Ok(queues)
    }

    /// With fewer queues where they need not be so many and the driver takes powers of two only, as net_vmxnet3 does. How many there are, and what
    /// [`Opened::configure`] gives.
    fn configure_at_most(
        &self,
        options: &PortOptions,
        queues: u16,
        info: &sys::rte_eth_dev_info,
        offloads: Offloads,
    ) -> Result<(u16, (Vec<Pools>, bool)), PortError> {
        match self.configure(options, queues, info, offloads) {
            Err(PortError::Refused { step: CONFIGURED, .. }) if options.fewer_queues && !queues.is_power_of_two() => {
                let fewer = 1 << queues.ilog2();
                self.configure(options, fewer, info, offloads).map(|done| (fewer, done))
            }
            other => other.map(|done| (queues, done)),
        }
    }

    fn configure(
        &self,
        options: &PortOptions,
        queues: u16,
        info: &sys::rte_eth_dev_info,
        offloads: Offloads,
    ) -> Result<(Vec<Pools>, bool), PortError> {
        let mut conf = sys::rte_eth_conf::default();
        let (rx_wanted, tx_wanted) = if options.large_mbufs > 0 {
            (RX_OFFLOADS | sys::SHIM_RX_OFFLOAD_TCP_LRO, TX_OFFLOADS | sys::SHIM_TX_OFFLOAD_TCP_TSO)
        } else {
            (RX_OFFLOADS, TX_OFFLOADS)
        };
        conf.rxmode.offloads = info.rx_offload_capa & rx_wanted;
        conf.txmode.offloads = info.tx_offload_capa & tx_wanted;
        let hashes = info.flow_type_rss_offloads & (sys::SHIM_RSS_IP | sys::SHIM_RSS_TCP | sys::SHIM_RSS_UDP);
        if queues > 1 && hashes != 0 {
            conf.rxmode.mq_mode = sys::RTE_ETH_MQ_RX_RSS;
            conf.rx_adv_conf.rss_conf.rss_hf = hashes;
            let room = if info.hash_key_size == 0 { USUAL_KEY } else { info.hash_key_size };
            if let Some(key) = options.rss_key.get(..usize::from(room)) {
                // DPDK only reads it.
                conf.rx_adv_conf.rss_conf.rss_key = key.as_ptr().cast_mut();
                conf.rx_adv_conf.rss_conf.rss_key_len = room;
            }
        }
        if let Some(mtu) = options.mtu {
            conf.rxmode.mtu = u32::from(mtu);
        }
        // SAFETY: the port exists and is not started; what is pointed at outlives the call.
        let configure = |conf: &_| unsafe { sys::rte_eth_dev_configure(self.id, queues, queues, conf) };
        conf.intr_conf.set_rxq(options.interrupts.into());
        let interrupts = options.interrupts && check(configure(&conf)).is_ok();
        if !interrupts {
            conf.intr_conf.set_rxq(0);
            self.step(CONFIGURED, || configure(&conf))?;
        }
        if let Some(mtu) = options.mtu {
            // SAFETY: as above.
            self.step("take the MTU", || unsafe { sys::rte_eth_dev_set_mtu(self.id, mtu) })?;
        }
        if let Some(mac) = options.mac {
            // SAFETY: as above; six bytes are read.
            self.step("take the Ethernet address", || unsafe { sys::shim_set_mac(self.id, mac.as_ptr()) })?;
        }
        let (mut rx, mut tx) = (options.rx_descriptors, options.tx_descriptors);
        self.step("take the ring sizes", || {
            // SAFETY: as above.
            unsafe { sys::rte_eth_dev_adjust_nb_rx_tx_desc(self.id, &raw mut rx, &raw mut tx) }
        })?;
        // SAFETY: as above.
        let socket = unsafe { sys::rte_eth_dev_socket_id(self.id) };
        let mut all = Vec::new();
        for queue in 0..queues.max(options.lanes) {
            let create = |mbufs, data_room| {
                Mempool::create(mbufs, data_room, socket)
                    .inspect(|pool| self.runtime.keep(pool.raw()))
                    .map_err(|cause| PortError::Memory { device: self.device.clone(), mbufs, cause })
            };
            let ring = if offloads.lro { u32::from(rx) } else { 0 };
            let large = (offloads.lro || offloads.tso).then(|| create(options.large_mbufs + ring, LARGE_FRAME));
            let pools = Pools {
                usual: create(options.mbufs, options.data_room)?,
                reserve: create(RESERVE, options.data_room)?,
                large: large.transpose()?,
            };
            if queue >= queues {
                all.push(pools);
                continue;
            }
            let receives = if offloads.lro { pools.large.as_ref() } else { None }.unwrap_or(&pools.usual);
            // -1 ("any") stays all ones, as DPDK wants it.
            let on = socket as u32;
            self.step("set up a receive queue", || {
                // SAFETY: as above; the pool outlives the port.
                unsafe { sys::rte_eth_rx_queue_setup(self.id, queue, rx, on, ptr::null(), receives.as_ptr()) }
            })?;
            self.send_queue(queue, tx, on, info)?;
            all.push(pools);
        }
        Ok((all, interrupts))
    }

    fn send_queue(&self, queue: u16, tx: u16, on: u32, info: &sys::rte_eth_dev_info) -> Result<(), PortError> {
        let set_up = |conf: &sys::rte_eth_txconf| {
            // SAFETY: the port exists and is not started; `conf` is valid for the call.
            unsafe { sys::rte_eth_tx_queue_setup(self.id, queue, tx, on, conf) }
        };
        if text(info.driver_name).starts_with("net_virtio") {
            // By default virtio frees sent mbufs only when the ring has next to no room: by then they have left the caches, and the pool of
            // large ones may be empty. How large the ring is, it does not say before.
            for ring in [tx, 512, 256, 128] {
                let conf = sys::rte_eth_txconf {
                    tx_free_thresh: ring.saturating_sub(VIRTIO_FREES_AT).max(1),
                    ..info.default_txconf
                };
                if set_up(&conf) == 0 {
                    return Ok(());
                }
            }
        }
        self.step("set up a send queue", || set_up(&info.default_txconf)).map(|_| ())
    }

    /// The key and the table of the hash that spreads flows; nothing where TCP's ports are not in it.
    fn spreading(&self, queues: u16) -> Result<Option<Spreading>, PortError> {
        let info = self.info()?;
        let mut key = vec![0; usize::from(if info.hash_key_size == 0 { USUAL_KEY } else { info.hash_key_size })];
        let mut conf = sys::rte_eth_rss_conf {
            rss_key: key.as_mut_ptr(),
            // It came from one byte.
            rss_key_len: u8::try_from(key.len()).unwrap_or(u8::MAX),
            rss_hf: 0,
        };
        // SAFETY: the port exists; `conf` and the key's room are valid for the call.
        self.step("tell its hash", || unsafe { sys::rte_eth_dev_rss_hash_conf_get(self.id, &raw mut conf) })?;
        if queues < 2 || info.reta_size == 0 || conf.rss_hf & sys::SHIM_RSS_TCP == 0 {
            return Ok(None);
        }
        let groups = usize::from(info.reta_size).div_ceil(RETA_GROUP);
        let mut entries = vec![sys::rte_eth_rss_reta_entry64 { mask: u64::MAX, reta: [0; RETA_GROUP] }; groups];
        self.step("tell its table", || {
            // SAFETY: the port exists; the entries are as many as the size says, in groups.
            unsafe { sys::rte_eth_dev_rss_reta_query(self.id, entries.as_mut_ptr(), info.reta_size) }
        })?;
        let table: Vec<u16> = entries.iter().flat_map(|group| group.reta).take(usize::from(info.reta_size)).collect();
        Ok(table.iter().all(|queue| *queue < queues).then_some(Spreading { key, table }))
    }

    fn statistics(&self) -> Result<PortStatistics, PortError> {
        let mut basic = sys::rte_eth_stats::default();
        // SAFETY: the port exists; `basic` is valid for the call.
        self.step("tell its counters", || unsafe { sys::rte_eth_stats_get(self.id, &raw mut basic) })?;
        Ok(PortStatistics {
            rx_packets: basic.ipackets,
            tx_packets: basic.opackets,
            rx_bytes: basic.ibytes,
            tx_bytes: basic.obytes,
            rx_missed: basic.imissed,
            rx_errors: basic.ierrors,
            tx_errors: basic.oerrors,
            rx_no_mbuf: basic.rx_nombuf,
            extended: self.extended().unwrap_or_default(),
        })
    }

    fn extended(&self) -> Result<Vec<(String, u64)>, Errno> {
        // SAFETY: the port exists; with no room, only the number of counters is returned.
        let count = check(unsafe { sys::rte_eth_xstats_get_names(self.id, ptr::null_mut(), 0) })?;
        let room = usize::try_from(count).unwrap_or(0);
        let mut names = vec![sys::rte_eth_xstat_name::default(); room];
        let mut values = vec![sys::rte_eth_xstat::default(); room];
        // SAFETY: the port exists; `count` entries can be written.
        check(unsafe { sys::rte_eth_xstats_get_names(self.id, names.as_mut_ptr(), count) })?;
        // SAFETY: as above.
        let got = check(unsafe { sys::rte_eth_xstats_get(self.id, values.as_mut_ptr(), count) })?;
        let named = values.iter().take(usize::try_from(got).unwrap_or(0)).filter_map(|value| {
            let name = names.get(usize::try_from(value.id).ok()?)?;
            Some((text(name.name.as_ptr()), value.value))
        });
        Ok(named.collect())
    }
}

/// The step at which a driver refuses a number of queues.
const CONFIGURED: &str = "be configured";

/// Bytes of a hash's key, where the driver does not say.
const USUAL_KEY: u8 = 40;

/// Entries of the indirection table that DPDK tells at a time.
const RETA_GROUP: usize = 64;

const RX_OFFLOADS: u64 =
    sys::SHIM_RX_OFFLOAD_IPV4_CKSUM | sys::SHIM_RX_OFFLOAD_TCP_CKSUM | sys::SHIM_RX_OFFLOAD_UDP_CKSUM;
const TX_OFFLOADS: u64 = sys::SHIM_TX_OFFLOAD_IPV4_CKSUM | sys::SHIM_TX_OFFLOAD_TCP_CKSUM;

fn offloads(info: &sys::rte_eth_dev_info, options: &PortOptions, device: &str) -> Offloads {
    let (rx, tx) = (info.rx_offload_capa, info.tx_offload_capa);
    let large = options.large_mbufs > 0;
    let cuts = sys::SHIM_TX_OFFLOAD_TCP_TSO | sys::SHIM_TX_OFFLOAD_TCP_CKSUM;
    // net_vhost hands segments from memory to memory as they are, where its other end wants that; it does not call this TSO and LRO.
    let vhost = text(info.driver_name) == "net_vhost" && device.contains("tso=1");
    Offloads {
        tso: large && (vhost || tx & cuts == cuts),
        lro: large && (vhost || rx & sys::SHIM_RX_OFFLOAD_TCP_LRO != 0),
        rx_l4: rx & sys::SHIM_RX_OFFLOAD_TCP_CKSUM != 0,
        rx_ipv4: rx & sys::SHIM_RX_OFFLOAD_IPV4_CKSUM != 0,
        tx_tcp: tx & sys::SHIM_TX_OFFLOAD_TCP_CKSUM != 0,
        tx_ipv4: tx & sys::SHIM_TX_OFFLOAD_IPV4_CKSUM != 0,
    }
}

fn capabilities(info: &sys::rte_eth_dev_info) -> Capabilities {
    let names = |set: u64, name: unsafe extern "C" fn(u64) -> *const c_char| {
        let bits = (0..u64::BITS).map(|bit| 1 << bit).filter(|bit| set & bit != 0);
        // SAFETY: both functions take any number and return a constant string.
        bits.map(|bit| text(unsafe { name(bit) })).collect()
    };
    Capabilities {
        rx_offloads: names(info.rx_offload_capa, sys::rte_eth_dev_rx_offload_name),
        tx_offloads: names(info.tx_offload_capa, sys::rte_eth_dev_tx_offload_name),
        queues: info.max_rx_queues.min(info.max_tx_queues),
        rss: info.flow_type_rss_offloads != 0,
    }
}

fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: DPDK's names end with a zero byte and stay where they are.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}
