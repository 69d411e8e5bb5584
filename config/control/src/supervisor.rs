//! Control's view of the cores: what they run, whether they live, what they count.
//!
//! Shared by the admin endpoint's thread and the main thread. Everything here reads atomics or takes a lock that no core knows.

mod endpoints;
mod turns;

use core::time::Duration;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crossbeam_queue::ArrayQueue;
use schema::Source;
use tables::access::AccessQueue;
use tables::counters::{Counter, PortCounters, RESTINGS, WAYS};
use tables::endpoints::Reports;
use tables::lifecycle::{Lifecycle, Stage};
use tables::publish::{Publisher, Subscriber, slot};
use tables::{CoreCounters, EndpointSeat, EndpointTable, Snapshot, Verdict};

use crate::access_log::AccessLog;
use crate::compile::Compiled;
use crate::endpoints::Endpoints;
use crate::epochs::{CoreEpoch, CoreSwap, Epochs, Receipts, SwapReceipt};
use crate::listing::{ConnectionListed, Connections};
use crate::metrics;
use crate::names::Names;
use crate::reload::unix_seconds;
use crate::runtime::PortInfo;
use crate::status::{
    self, Condition, ConditionKind, ConditionStatus, ConfigurationStatus, CoreDetail, CorePort, CoreStatus, Cores,
    PortStatus, Status,
};
use crate::text::ConfigurationText;

use endpoints::EndpointBooks;

/// A core whose heartbeat stands still for so long is reported as hung. Long enough for a busy virtual machine to lose its CPU
/// for a while.
const HUNG: Duration = Duration::from_secs(3);

/// Time over which a core's busy share is measured.
const BUSY_WINDOW: Duration = Duration::from_secs(1);

/// How often cores are looked at that are to take new tables.
const SWAP_LOOK: Duration = Duration::from_micros(100);

/// What the cores get to list their connections.
const LISTING: Duration = Duration::from_secs(2);

/// What a device calls packets that it had no room for.
const DEVICE_LOSSES: [&str; 2] = ["rx_missed", "rx_no_mbuf"];

/// Access records that wait for the writer, per core.
const ACCESS_QUEUE: usize = 16_384;

/// What a core is started with.
#[derive(Debug)]
pub struct CoreSeat {
    /// Position among the appliance's cores.
    pub index: u16,
    /// Its tables.
    pub snapshot: Subscriber<Snapshot>,
    /// The endpoints' state.
    pub endpoints: EndpointSeat,
    /// Its counters.
    pub counters: Arc<CoreCounters>,
    /// What it is asked to do.
    pub lifecycle: Arc<Lifecycle>,
    /// Its way to the access log.
    pub access: AccessQueue,
}

/// Reads the devices' own counters: port, counter, value.
pub type DeviceStatistics = Box<dyn Fn() -> Vec<(Arc<str>, String, u64)> + Send + Sync>;

/// Facts about the appliance that do not change while it runs.
pub struct Facts {
    /// Name of the Appliance resource.
    pub name: String,
    /// Millrace's version.
    pub version: &'static str,
    /// Where DPDK's memory lies, for people.
    pub memory: String,
    /// The CPU of each core.
    pub cpus: Vec<u16>,
    /// Its ports.
    pub ports: Vec<PortInfo>,
    /// The secret by which session cookies name endpoints.
    pub session_key: [u64; 2],
    /// Where access records go.
    pub access_log: PathBuf,
    /// The devices' own counters.
    pub device_statistics: DeviceStatistics,
    /// The clock that the cores live by, in nanoseconds.
    pub clock: CoreClock,
    /// Wakes the cores that sleep.
    pub wake: Wake,
}

/// Wakes the cores that sleep, so that they look for what they were given.
pub type Wake = Box<dyn Fn() + Send + Sync>;

/// Reads the clock that the cores live by, in nanoseconds.
pub type CoreClock = Box<dyn Fn() -> u64 + Send + Sync>;

/// Everything that control knows about the cores.
pub(crate) struct Supervisor {
    facts: Facts,
    port_names: Vec<Arc<str>>,
    started: Instant,
    compiled: Mutex<Arc<Compiled>>,
    /// Taken after `compiled`, where both are.
    endpoints: Mutex<EndpointBooks>,
    cores: Vec<CoreWatch>,
    draining: AtomicBool,
    access_log: Mutex<Option<AccessLog>>,
    configuration: Mutex<ConfigurationStatus>,
    receipts: Mutex<Receipts>,
    listing: Mutex<()>,
    /// Where it is kept what operators said of endpoints; held by who writes there.
    endpoints_kept: Mutex<Option<PathBuf>>,
    /// The texts of the running configuration.
    sources: Mutex<Arc<[Source]>>,
    names: Arc<Names>,
    restarts: [(&'static str, AtomicU64); 3],
    drain_timeout: Mutex<Duration>,
}

struct CoreWatch {
    publisher: Mutex<Publisher<Snapshot>>,
    endpoints: Mutex<Publisher<EndpointTable>>,
    reports: Reports,
    counters: Arc<CoreCounters>,
    lifecycle: Arc<Lifecycle>,
    access: AccessQueue,
    pulse: Mutex<Pulse>,
}

/// What was last seen of a core.
struct Pulse {
    heartbeat: u64,
    moved: Instant,
    sampled: Instant,
    busy_nanoseconds: u64,
    nanoseconds: u64,
    busy: f64,
}

impl Supervisor {
    pub(crate) fn new(
        facts: Facts,
        compiled: Compiled,
        names: Arc<Names>,
        endpoints_kept: Option<PathBuf>,
    ) -> (Arc<Self>, Vec<CoreSeat>) {
        let now = Instant::now();
        let mut compiled = compiled;
        let mut known = Endpoints::new(facts.session_key, now);
        endpoints::recall(&mut known, endpoints_kept.as_deref(), &compiled.configuration);
        known.adopt(&mut compiled.snapshot, &compiled.clusters, &compiled.checks, now);
        let table = known.table();
        let compiled = Arc::new(compiled);
        let (mut cores, mut seats) = (Vec::new(), Vec::new());
        for index in (0u16..).take(facts.cpus.len()) {
            let (publisher, snapshot) = slot(Arc::clone(&compiled.snapshot));
            let (endpoints, endpoint_table) = slot(Arc::clone(&table));
            let watch = CoreWatch {
                publisher: Mutex::new(publisher),
                endpoints: Mutex::new(endpoints),
                reports: EndpointSeat::reports(),
                counters: Arc::new(CoreCounters::new(facts.ports.len())),
                lifecycle: Arc::new(Lifecycle::default()),
                access: Arc::new(ArrayQueue::new(ACCESS_QUEUE)),
                pulse: Mutex::new(Pulse {
                    heartbeat: 0,
                    moved: now,
                    sampled: now,
                    busy_nanoseconds: 0,
                    nanoseconds: 0,
                    busy: 0.0,
                }),
            };
            seats.push(watch.seat(index, facts.cpus.len(), snapshot, endpoint_table));
            cores.push(watch);
        }
        let port_names = facts.ports.iter().map(|p| p.name.as_str().into()).collect();
        let supervisor = Self {
            facts,
            port_names,
            started: now,
            compiled: Mutex::new(compiled),
            endpoints: Mutex::new(EndpointBooks { known, table }),
            cores,
            draining: AtomicBool::new(false),
            access_log: Mutex::new(None),
            configuration: Mutex::default(),
            receipts: Mutex::default(),
            drain_timeout: Mutex::default(),
            listing: Mutex::default(),
            endpoints_kept: Mutex::new(endpoints_kept),
            sources: Mutex::default(),
            names,
            restarts: [("admin", AtomicU64::new(0)), ("reload", AtomicU64::new(0)), ("dns", AtomicU64::new(0))],
        };
        (Arc::new(supervisor), seats)
    }

    /// Opens the access log that [`Facts`] names.
    pub(crate) fn start_access_log(self: &Arc<Self>) -> std::io::Result<()> {
        let queues = self.cores.iter().map(|core| Arc::clone(&core.access)).collect();
        let weak = Arc::downgrade(self);
        let mut last = Arc::clone(&self.compiled().snapshot);
        let latest = move || {
            if let Some(supervisor) = weak.upgrade() {
                last = Arc::clone(&supervisor.compiled().snapshot);
            }
            Arc::clone(&last)
        };
        *lock(&self.access_log) = Some(AccessLog::start(&self.facts.access_log, queues, latest)?);
        Ok(())
    }

    /// Writes what is queued and closes the access log.
    pub(crate) fn close_access_log(&self) {
        let log = lock(&self.access_log).take();
        drop(log);
    }

    /// A seat for a core that starts again where another ended: same counters, same lifecycle, the newest tables.
    pub(crate) fn reseat(&self, index: u16) -> Option<CoreSeat> {
        let core = self.cores.get(usize::from(index))?;
        // Held until the publisher is replaced, so that a publication in between is not lost.
        let compiled = lock(&self.compiled);
        let (publisher, snapshot) = slot(Arc::clone(&compiled.snapshot));
        *lock(&core.publisher) = publisher;
        let books = lock(&self.endpoints);
        let (publisher, endpoints) = slot(Arc::clone(&books.table));
        *lock(&core.endpoints) = publisher;
        Some(core.seat(index, self.cores.len(), snapshot, endpoints))
    }

    /// Makes `compiled` what all cores run. It took `read` to read and check it, and compiling began at `since`. It ends here, when clusters
    /// have the selections of the moment.
    pub(crate) fn publish(&self, mut compiled: Compiled, read: Duration, since: Instant) {
        let microseconds = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let cores = (0u16..).zip(&self.cores).map(|(index, _)| CoreSwap::pending(index)).collect();
        let lost = self.lost();
        let mut current = lock(&self.compiled);
        let mut books = lock(&self.endpoints);
        let forgotten = books.known.forget(&compiled.configuration);
        books.known.adopt(&mut compiled.snapshot, &compiled.clusters, &compiled.checks, Instant::now());
        let compiled = Arc::new(compiled);
        let receipt = SwapReceipt {
            epoch: compiled.snapshot.epoch,
            published: unix_seconds(),
            read_microseconds: microseconds(read),
            compile_microseconds: microseconds(since.elapsed()),
            complete: false,
            lost: 0,
            cores,
        };
        lock(&self.receipts).begin(receipt, (self.facts.clock)(), lost);
        for core in &self.cores {
            lock(&core.publisher).publish(Arc::clone(&compiled.snapshot));
        }
        let old = core::mem::replace(&mut *current, compiled);
        let table = books.known.table();
        self.publish_endpoints(&mut books, table);
        drop((current, books));
        self.keep_forgotten(&forgotten);
        // Last: what says how ten thousand routes stood takes milliseconds to free, for which no core should wait.
        drop(old);
    }

    /// Waits until all cores run `epoch`, but no longer than `patience`, and says how they came to.
    pub(crate) fn await_swap(&self, epoch: u64, patience: Duration) -> Option<SwapReceipt> {
        let deadline = Instant::now() + patience;
        loop {
            // A core takes nothing new while there is no room for what it has.
            self.reclaim();
            // It acknowledges first and writes about it then; one that has passed this epoch over will not.
            let behind = self.cores.iter().any(|core| {
                let runs = lock(&core.publisher).acknowledged();
                runs < epoch || (runs == epoch && core.lifecycle.swaps.read(epoch).is_none())
            });
            if !behind || Instant::now() >= deadline {
                break;
            }
            std::thread::sleep(SWAP_LOOK);
        }
        self.reclaim();
        self.update_receipts();
        lock(&self.receipts).of(epoch)
    }

    /// Frees what cores have handed back.
    fn reclaim(&self) {
        for core in &self.cores {
            lock(&core.publisher).reclaim();
        }
    }

    fn update_receipts(&self) {
        let acknowledged: Vec<u64> = self.cores.iter().map(|core| lock(&core.publisher).acknowledged()).collect();
        let lost = self.lost();
        lock(&self.receipts)
            .update(&acknowledged, lost, |core, epoch| self.cores.get(core)?.lifecycle.swaps.read(epoch));
    }

    /// Packets lost for want of room so far.
    fn lost(&self) -> u64 {
        let of_cores = self.cores.iter().map(|core| {
            let ports = core.counters.ports.iter().map(|port| port.tx_full.read() + port.pool_empty.read());
            core.ring_full() + ports.sum::<u64>()
        });
        let devices = (self.facts.device_statistics)();
        let of_devices = devices.iter().filter(|(_, name, _)| DEVICE_LOSSES.contains(&name.as_str())).map(|(.., n)| n);
        of_cores.sum::<u64>() + of_devices.sum::<u64>()
    }

    /// The newest epoch of which all cores have closed what waited for what it does not have.
    pub(crate) fn swept(&self) -> u64 {
        self.cores.iter().map(|core| core.lifecycle.swaps.last_swept()).min().unwrap_or_default()
    }

    /// The newest epoch.
    pub(crate) fn epoch(&self) -> u64 {
        lock(&self.compiled).snapshot.epoch
    }

    /// Which core runs which epoch.
    pub(crate) fn epochs(&self) -> Epochs {
        self.update_receipts();
        let cores = (0u16..).zip(&self.cores).zip(&self.facts.cpus);
        Epochs {
            epoch: self.epoch(),
            cores: cores
                .map(|((index, core), &cpu)| CoreEpoch {
                    index,
                    cpu,
                    epoch: lock(&core.publisher).acknowledged(),
                    held: core.lifecycle.swaps.held(),
                })
                .collect(),
            swaps: lock(&self.receipts).all(),
        }
    }

    /// Notes where the configuration comes from, or what became of a change.
    pub(crate) fn configured(&self, change: impl FnOnce(&mut ConfigurationStatus)) {
        change(&mut lock(&self.configuration));
    }

    /// What the operator should know of the configuration, though it stops no traffic; empty where all is well.
    pub(crate) fn remarks(&self) -> Vec<String> {
        lock(&self.configuration).remarks(self.epoch())
    }

    /// Notes the texts of what runs.
    pub(crate) fn took(&self, sources: &[Source]) {
        *lock(&self.sources) = sources.into();
    }

    /// What runs, as it was given.
    pub(crate) fn configuration_text(&self) -> ConfigurationText {
        let sources = Arc::clone(&lock(&self.sources));
        let status = lock(&self.configuration);
        ConfigurationText::new(self.epoch(), status.origin, status.accepted, &sources)
    }

    /// What running requests get when the process is to end, by the running configuration.
    pub(crate) fn drain_timeout(&self) -> Duration {
        *lock(&self.drain_timeout)
    }

    pub(crate) fn set_drain_timeout(&self, timeout: Duration) {
        *lock(&self.drain_timeout) = timeout;
    }

    /// Notes that one of control's threads started over.
    pub(crate) fn restarted(&self, thread: &str) {
        if let Some((_, count)) = self.restarts.iter().find(|(name, _)| *name == thread) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn compiled(&self) -> Arc<Compiled> {
        Arc::clone(&lock(&self.compiled))
    }

    /// Frees old tables and looks at every core's heartbeat. To be called several times a second.
    pub(crate) fn tick(&self) {
        for core in &self.cores {
            lock(&core.publisher).reclaim();
            drop(core.observe());
        }
        self.tend_endpoints();
    }

    /// Why the process is not alive; empty where it is.
    pub(crate) fn dead(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        for (index, core) in self.cores.iter().enumerate() {
            if core.lifecycle.stage() == Stage::Stopped {
                // Where it was asked to, that is no defect: the process is about to end.
                if self.is_draining() {
                    continue;
                }
                reasons.push(format!("core {index} has stopped"));
            } else if let Some(silent) = core.hung() {
                reasons.push(format!("core {index} has not moved for {} s", silent.as_secs()));
            }
        }
        reasons
    }

    /// Why no traffic should be sent here; empty where it should.
    pub(crate) fn unready(&self) -> Vec<String> {
        let mut reasons = self.dead();
        if self.is_draining() {
            reasons.push("draining".to_owned());
        }
        match self.names.awaited() {
            0 => {}
            1 => reasons.push("a name of a backend has not been resolved yet".to_owned()),
            n => reasons.push(format!("{n} names of backends have not been resolved yet")),
        }
        let epoch = self.compiled().snapshot.epoch;
        for (index, core) in self.cores.iter().enumerate() {
            let runs = lock(&core.publisher).acknowledged();
            if runs != epoch {
                reasons.push(format!("core {index} runs epoch {runs}, not {epoch}"));
            }
            // A core that never turned has neither seen a link nor taken a table.
            if core.lifecycle.heartbeat() == 0 {
                reasons.push(format!("core {index} has not started"));
            }
        }
        for (index, port) in self.port_names.iter().enumerate() {
            if !self.link_up(index) {
                reasons.push(format!("port {port}: link down"));
            }
            // IPv6 addresses are not used before it is known that nobody else has them, which takes a second.
            let checked = |p: &PortCounters| p.addresses_tentative.read() == 0;
            if !self.cores.iter().filter_map(|core| core.counters.ports.get(index)).all(checked) {
                reasons.push(format!("port {port}: IPv6 addresses are being checked"));
            }
        }
        reasons
    }

    /// Makes readiness fail and the cores accept nothing new.
    pub(crate) fn drain(&self) {
        // Readiness first: whoever watches it should learn no later than clients do.
        self.draining.store(true, Ordering::Release);
        self.advance(Stage::Draining);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    pub(crate) fn advance(&self, stage: Stage) {
        for core in &self.cores {
            core.lifecycle.advance(stage);
        }
        (self.facts.wake)();
    }

    pub(crate) fn all_stopped(&self) -> bool {
        self.cores.iter().all(|core| core.lifecycle.stage() == Stage::Stopped)
    }

    /// Client connections of all cores, with those that are being opened.
    pub(crate) fn connections(&self) -> u64 {
        self.cores.iter().map(|c| c.counters.connections_open.read() + c.counters.half_open.read()).sum()
    }

    fn link_up(&self, port: usize) -> bool {
        self.cores.iter().all(|core| core.counters.ports.get(port).is_some_and(|p| p.link_up.read() == 1))
    }

    /// The metrics of these names; of all, where there are none.
    pub(crate) fn metrics(&self, names: &[String]) -> String {
        let compiled = self.compiled();
        let counters: Vec<_> = self.cores.iter().map(|core| Arc::clone(&core.counters)).collect();
        metrics::render(&metrics::Sources {
            version: self.facts.version,
            cores: &counters,
            ports: &self.port_names,
            series: &compiled.snapshot.series,
            in_use: &compiled.series_in_use,
            limits: &compiled.snapshot.limits,
            endpoints: &self.endpoints().endpoints,
            dns: &self.names().names,
            devices: &(self.facts.device_statistics)(),
            configuration: &lock(&self.configuration).clone(),
            epoch: compiled.snapshot.epoch,
            restarts: &self.restarts.each_ref().map(|(thread, count)| (*thread, count.load(Ordering::Relaxed))),
            access_log_lost: lock(&self.access_log).as_ref().map_or(0, AccessLog::lost),
            names,
        })
    }

    pub(crate) fn status(&self) -> Status {
        let compiled = self.compiled();
        let reasons = self.unready();
        let mut gateways = compiled.gateways.to_vec();
        let epoch = compiled.snapshot.epoch;
        if self.cores.iter().any(|core| lock(&core.publisher).acknowledged() != epoch) {
            let lists = gateways.iter_mut().flat_map(|g| {
                core::iter::once(&mut g.conditions).chain(g.listeners.iter_mut().map(|l| &mut l.conditions))
            });
            lists.for_each(|conditions| mark_pending(conditions));
        }
        Status {
            name: self.facts.name.clone(),
            version: self.facts.version.to_owned(),
            uptime_seconds: self.started.elapsed().as_secs(),
            ready: reasons.is_empty(),
            reasons,
            epoch,
            memory: self.facts.memory.clone(),
            configuration: lock(&self.configuration).clone(),
            cores: (0u16..).zip(&self.cores).zip(&self.facts.cpus).map(|((i, c), &cpu)| c.status(i, cpu)).collect(),
            ports: self.facts.ports.iter().enumerate().map(|(i, port)| self.port_status(i, port)).collect(),
            gateways,
            routes: compiled.routes.to_vec(),
            names: self.names().names,
        }
    }

    pub(crate) fn names(&self) -> status::Names {
        self.names.list()
    }

    /// The connections of all cores, at most `limit` of them. Waits for the cores, which answer within a few milliseconds.
    pub(crate) fn list_connections(&self, limit: usize) -> Connections {
        let _one_at_a_time = lock(&self.listing);
        let tickets: Vec<u64> = self.cores.iter().map(|core| core.lifecycle.connections.ask()).collect();
        (self.facts.wake)();
        let mut listed = Connections { connections: Vec::new(), more: false };
        let deadline = Instant::now() + LISTING;
        for ((index, core), ticket) in (0u16..).zip(&self.cores).zip(tickets) {
            let theirs = &core.lifecycle.connections;
            loop {
                let complete = theirs.is_answered(ticket);
                while let Some(row) = theirs.next(ticket) {
                    if listed.connections.len() == limit {
                        listed.more = true;
                        return listed;
                    }
                    listed.connections.push(ConnectionListed::new(index, &row));
                }
                if complete {
                    break;
                }
                if Instant::now() >= deadline || core.lifecycle.stage() == Stage::Stopped {
                    listed.more = true;
                    break;
                }
                std::thread::sleep(SWAP_LOOK);
            }
        }
        listed
    }

    pub(crate) fn core_details(&self) -> Cores {
        let all: u64 = self.cores.iter().map(|core| core.counters.connections_open.read()).sum();
        let details = (0u16..).zip(&self.cores).zip(&self.facts.cpus).map(|((index, watch), &cpu)| {
            let (counters, core) = (&watch.counters, watch.status(index, cpu));
            CoreDetail {
                share: if all == 0 { 0.0 } else { core.connections as f64 / all as f64 },
                core,
                when_idle: name_of(&RESTINGS, &counters.rests.way),
                upstream: counters.upstream_open.read(),
                upstream_idle: counters.upstream_idle.read(),
                ring_full: watch.ring_full(),
                ports: self.port_names.iter().zip(&counters.ports).map(|(name, port)| core_port(name, port)).collect(),
            }
        });
        Cores { cores: details.collect() }
    }

    fn port_status(&self, index: usize, port: &PortInfo) -> PortStatus {
        let counters = || self.cores.iter().filter_map(|core| core.counters.ports.get(index));
        PortStatus {
            name: port.name.clone(),
            device: port.device.clone(),
            driver: port.driver.clone(),
            mac: port.mac_text(),
            mtu: port.mtu,
            addresses: port.addresses.clone(),
            offloads: port.offloads.clone(),
            link_up: self.link_up(index),
            rx_packets: counters().map(|p| p.rx_packets.read()).sum(),
            tx_packets: counters().map(|p| p.tx_packets.read()).sum(),
        }
    }
}

impl CoreWatch {
    fn seat(
        &self,
        index: u16,
        cores: usize,
        snapshot: Subscriber<Snapshot>,
        table: Subscriber<EndpointTable>,
    ) -> CoreSeat {
        let cores = u16::try_from(cores).unwrap_or(u16::MAX);
        CoreSeat {
            index,
            snapshot,
            endpoints: EndpointSeat { table, reports: Arc::clone(&self.reports), cores },
            counters: Arc::clone(&self.counters),
            lifecycle: Arc::clone(&self.lifecycle),
            access: Arc::clone(&self.access),
        }
    }

    /// Packets that other cores had no room for.
    fn ring_full(&self) -> u64 {
        self.counters.drops.get(Verdict::RingFull as usize).map_or(0, Counter::read)
    }

    fn observe(&self) -> MutexGuard<'_, Pulse> {
        let mut pulse = lock(&self.pulse);
        let now = Instant::now();
        let heartbeat = self.lifecycle.heartbeat();
        if heartbeat != pulse.heartbeat {
            (pulse.heartbeat, pulse.moved) = (heartbeat, now);
        }
        if now.duration_since(pulse.sampled) >= BUSY_WINDOW {
            let (busy, all) = (self.counters.busy_nanoseconds.read(), self.counters.nanoseconds.read());
            let (busy_delta, all_delta) =
                (busy.saturating_sub(pulse.busy_nanoseconds), all.saturating_sub(pulse.nanoseconds));
            pulse.busy = if all_delta == 0 { 0.0 } else { busy_delta as f64 / all_delta as f64 };
            (pulse.busy_nanoseconds, pulse.nanoseconds, pulse.sampled) = (busy, all, now);
        }
        pulse
    }

    /// How long the core has stood still, where that is too long.
    fn hung(&self) -> Option<Duration> {
        let silent = self.observe().moved.elapsed();
        (silent > HUNG).then_some(silent)
    }

    fn status(&self, index: u16, cpu: u16) -> CoreStatus {
        let stage = self.lifecycle.stage();
        CoreStatus {
            index,
            cpu,
            stage: match stage {
                Stage::Running => "running",
                Stage::Draining => "draining",
                Stage::Stopping => "stopping",
                Stage::Stopped => "stopped",
            }
            .to_owned(),
            alive: stage != Stage::Stopped && self.hung().is_none(),
            epoch: lock(&self.publisher).acknowledged(),
            busy: lock(&self.pulse).busy,
            connections: self.counters.connections_open.read(),
            requests: self.counters.requests_active.read(),
        }
    }
}

fn core_port(name: &str, port: &PortCounters) -> CorePort {
    CorePort {
        name: name.to_owned(),
        way: name_of(&WAYS, &port.way),
        rx_packets: port.rx_packets.read(),
        tx_packets: port.tx_packets.read(),
        handed_in: port.handed_in.read(),
        handed_out: port.handed_out.read(),
        strays: port.strays.read(),
    }
}

/// What a number of a core's stands for.
fn name_of(names: &[&str], number: &Counter) -> String {
    let name = usize::try_from(number.read()).ok().and_then(|number| names.get(number));
    name.copied().unwrap_or_default().to_owned()
}

fn mark_pending(conditions: &mut [Condition]) {
    for condition in conditions {
        if condition.kind == ConditionKind::Programmed && condition.status == ConditionStatus::True {
            *condition = Condition::new(
                ConditionKind::Programmed,
                ConditionStatus::False,
                "Pending",
                "not all cores run the newest epoch yet",
            );
        }
    }
}

/// A panic elsewhere leaves these values whole: none is changed in more than one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
