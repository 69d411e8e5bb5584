//! `millrace run`: from files to packets, and back to an orderly end.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use control::runtime::{Drained, Facts};
use control::{Compiled, Configured, Control, Launch, PortInfo, admin, core_settings};
use engine::clock::Clock;
use engine::exception::Exception;
use engine::idle::Idle;
use engine::steer::{LONGEST_KEY, Place, PortPlan, Rss, Rules, Steered, places};
use pmd::{DpdkLane, Eal, EalError, EalOptions, MemoryMode, Offloads, Port, PortOptions, Sleeper, Waker};
use schema::{ApplianceSpec, Configuration, Located};
use signal_hook::consts::SIGHUP;
use tables::TcpSettings;

use crate::cli::{Files, LogLevel};
use crate::exceptions;
use crate::failure::Failure;
use crate::polling::{self, Ended, Polling};
use crate::signals::Heard;

/// How often the main thread looks at signals and cores.
const LOOK: Duration = Duration::from_millis(50);

/// How far apart cores that leave together may end.
const TOGETHER: Duration = Duration::from_secs(1);

/// What a core has for giving back what it holds, once it has left. It takes no time, but a machine that has more to do than it can may not let it.
const LAST_STEPS: Duration = Duration::from_secs(3);

/// How long the start may take before the log says what it waits for.
const SLOW_START: Duration = Duration::from_secs(5);

/// Serves until a signal, or until all cores have ended.
pub(crate) fn run(files: &Files, state: &Path, log: LogLevel) -> Result<(), Failure> {
    let started = Instant::now();
    start_log(log);
    let mut configured = Configured::load(&files.files, state)?;
    let compiled = configured.compile();
    let configuration = configured.configuration().clone();
    if let Some((errors, accepted)) = configured.fallback() {
        let ago = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
        tracing::error!(
            "THE CONFIGURATION IS BAD; THE LAST GOOD ONE RUNS IN ITS PLACE, accepted {} s ago\n{errors}",
            ago.saturating_sub(accepted)
        );
    }
    let spec = &configuration.appliance.spec;
    let cpus: Vec<u16> = spec.cores.iter().map(|core| core.value.0).collect();
    // Before all else: it is what fails where Millrace runs already.
    let admin = bind_admin(&configuration)?;
    let mut signals = Heard::new(&[SIGHUP])?;

    for port in spec.ports.iter().filter(|port| port.device.contains("virtio_user") && port.device.contains("server=1"))
    {
        tracing::info!(
            "port {}: {} listens, and the start goes on once its other side is there",
            port.name,
            port.device
        );
    }
    polling::stay_in_memory();
    let eal = start_dpdk(&configuration)?;
    let (ports, mut lanes) = start_ports(&configuration, &eal)?;
    let count = u16::try_from(cpus.len()).unwrap_or(u16::MAX);
    let mut paths = exceptions::start(&configuration, &eal, &ports, count)?;
    let settings = core_settings(&configuration);
    if !polling::leave_cpus(&cpus) {
        tracing::warn!("the polling cores share their CPUs with everything else of this process: there are no others");
    }
    announce(&configuration, &compiled, &eal, &ports);
    let (idles, wakers) = rests(spec, &mut lanes, &mut paths)?;
    let plans = plans(&configuration, &compiled, &ports);
    let cores = steer(lanes, &plans, &settings.tcp, &wakers)?;
    // One for all cores: what they share, they date alike.
    let clock = Clock::start();
    let session_key = session_key(state)?;
    let facts = facts(&configuration, &eal, ports, cpus.clone(), clock.clone(), session_key, wakers);
    let (control, seats) = Control::start(Launch { facts, configured, compiled, admin }).map_err(|error| {
        let place = spec.access_log.path.display();
        Failure::new(format!("access log {place} cannot be opened, or a thread not be started: {error}"))
    })?;
    tracing::info!("admin endpoint: http://{}", control.admin_address());

    let mut threads = Vec::new();
    let cores = seats.into_iter().zip(cores).zip(paths).zip(idles);
    for ((((seat, (place, lanes)), exceptions), idle), cpu) in cores.zip(cpus) {
        let (eal, settings, usher, clock) = (eal.clone(), settings.clone(), control.usher(), clock.clone());
        let polling = Polling { cpu, eal, lanes, exceptions, place, clock, idle, settings, seat, usher };
        threads.push(polling::start(polling).map_err(|e| Failure::new(format!("no thread for a core: {e}")))?);
    }
    signals.started();
    let ended = serve(&control, &mut signals, &mut threads, started);
    drop(control);
    ended
}

fn start_log(level: LogLevel) {
    use std::io::IsTerminal;
    tracing_subscriber::fmt()
        .with_max_level(tracing::level_filters::LevelFilter::from(level))
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .init();
}

fn bind_admin(configuration: &Configuration) -> Result<std::net::TcpListener, Failure> {
    let spec = &configuration.appliance.spec;
    let address = spec.admin.address;
    admin::bind(address).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => "another program, perhaps another Millrace, listens there: stop it, or choose another spec.admin.address",
            io::ErrorKind::AddrNotAvailable => "spec.admin.address has to be an address of the kernel's network on this host",
            io::ErrorKind::PermissionDenied => "ports below 1024 need root or CAP_NET_BIND_SERVICE",
            _ => "choose another spec.admin.address",
        };
        Failure::new(format!("admin address {address}: {error}")).at(&spec.admin.at).hint(hint)
    })
}

fn start_dpdk(configuration: &Configuration) -> Result<Eal, Failure> {
    let spec = &configuration.appliance.spec;
    let options = EalOptions {
        cores: spec.cores.iter().map(|core| core.value.0).collect(),
        mebibytes: spec.memory.mebibytes,
        hugepages: match spec.memory.hugepages {
            schema::Hugepages::Auto => pmd::Hugepages::Auto,
            schema::Hugepages::Required => pmd::Hugepages::Required,
            schema::Hugepages::Off => pmd::Hugepages::Off,
        },
        // The process at the other end of such a device maps our memory, which has to be few files for that.
        single_file_segments: spec.ports.iter().any(|port| port.device.contains("virtio_user")),
        devices: spec.ports.iter().map(|port| port.device.to_string()).chain(exceptions::devices(spec)).collect(),
        ..EalOptions::default()
    };
    Eal::start(&options).map_err(|error| {
        let port_of = |device: &str| spec.ports.iter().find(|port| *port.device == *device).map(|port| &port.at);
        let place = match &error {
            EalError::UnknownDevice { device, .. }
            | EalError::NoSuchInterface { device, .. }
            | EalError::DeviceRefused { device, .. } => port_of(device),
            EalError::NoSuchCore { core, .. } => spec.cores.iter().find(|c| c.value.0 == *core).map(|c| &c.at),
            _ => None,
        };
        let failure = Failure::from(error);
        match place {
            Some(place) => failure.at(place),
            None => failure,
        }
    })
}

/// The ports, and for each core its lanes.
fn start_ports(configuration: &Configuration, eal: &Eal) -> Result<(Vec<Port>, Vec<Vec<DpdkLane>>), Failure> {
    let spec = &configuration.appliance.spec;
    let mut ports = Vec::new();
    let mut lanes: Vec<Vec<DpdkLane>> = spec.cores.iter().map(|_| Vec::new()).collect();
    let cores = u16::try_from(lanes.len()).unwrap_or(u16::MAX);
    // A key that nobody outside knows: else they could choose addresses and ports that all end at one core.
    let mut rss_key = vec![0; LONGEST_KEY];
    polling::fill_random(&mut rss_key).map_err(Failure::new)?;
    for configured in &spec.ports {
        let options = PortOptions {
            queues: configured.queues.as_ref().map_or(cores, |queues| queues.get()),
            fewer_queues: configured.queues.is_none(),
            lanes: cores,
            rss_key: rss_key.clone(),
            mtu: configured.interface.mtu,
            mbufs: mbufs(spec),
            data_room: configured.interface.mtu.map_or(PortOptions::default().data_room, PortOptions::room_for),
            groups: configured.interfaces().any(|(_, interface)| interface.speaks_ipv6()),
            large_mbufs: large_mbufs(spec, eal),
            interrupts: spec.idle == schema::Idle::Adaptive,
            ..PortOptions::default()
        };
        let at = |error: pmd::PortError| Failure::from(error).at(&configured.at);
        let mut port = Port::configure(eal, &configured.device, &options).map_err(at)?;
        port.start().map_err(at)?;
        for (core, lane) in lanes.iter_mut().zip(port.lanes().map_err(at)?) {
            core.push(lane);
        }
        ports.push(port);
    }
    Ok((ports, lanes))
}

/// What each core does while there is nothing to do, and what wakes those that sleep.
type Rests = (Vec<Idle>, Vec<Option<Waker>>);

/// Has devices wake the cores that may sleep, where all devices of a core can.
fn rests(
    spec: &ApplianceSpec,
    lanes: &mut [Vec<DpdkLane>],
    paths: &mut [Vec<Option<Exception<DpdkLane>>>],
) -> Result<Rests, Failure> {
    let (mut idles, mut wakers) = (Vec::new(), Vec::new());
    for ((core, lanes), paths) in lanes.iter_mut().enumerate().zip(paths) {
        if spec.idle == schema::Idle::Polling {
            idles.push(Idle::Polling);
            wakers.push(None);
            continue;
        }
        let sleeper = Sleeper::new().map_err(|error| Failure::new(format!("no descriptor to sleep by: {error}")))?;
        let silent = |(lane, path): (&mut DpdkLane, &mut Option<Exception<DpdkLane>>)| {
            !lane.watch(&sleeper) || path.as_mut().is_some_and(|path| !path.lane_mut().watch(&sleeper))
        };
        match lanes.iter_mut().zip(paths).position(silent) {
            Some(port) => {
                let name = spec.ports.get(port).map_or("", |port| port.name.as_str());
                tracing::info!("core {core} naps when idle: port {name} has no interrupts");
                idles.push(Idle::Naps);
                wakers.push(None);
            }
            None => {
                tracing::info!("core {core} sleeps when idle, until a device wakes it");
                wakers.push(Some(sleeper.waker()));
                idles.push(Idle::Interrupts(sleeper));
            }
        }
    }
    Ok((idles, wakers))
}

/// What is known of each port's device: how it spreads flows, or else the rules that it took.
fn plans(configuration: &Configuration, compiled: &Compiled, ports: &[Port]) -> Vec<PortPlan> {
    let spec = &configuration.appliance.spec;
    let cores = u16::try_from(spec.cores.len()).unwrap_or(u16::MAX);
    let listened = |address| compiled.snapshot.binds().iter().any(|bind| bind.address.ip() == address);
    let plan = |(configured, port): (&Located<schema::Port>, &Port)| {
        let queues = port.queues();
        let rss = port.spreading().and_then(|spreading| Rss::new(&spreading.key, &spreading.table));
        let wanted = || {
            // Rules are for untagged frames.
            let own: Vec<_> = configured.interface.addresses.iter().map(|net| net.value).collect();
            Rules::plan(cores, &own, listened)
        };
        let several = cores > 1 && queues == cores;
        let rules = if rss.is_none() && several { wanted() } else { None };
        PortPlan { queues, rss, rules: rules.filter(|rules| port.bring(rules.queues())) }
    };
    spec.ports.iter().zip(ports).map(plan).collect()
}

/// A core's place among the others, and its lanes with links to theirs.
type Seated = (Place, Vec<Steered<DpdkLane>>);

/// Seats the cores on the ports.
fn steer(
    lanes: Vec<Vec<DpdkLane>>,
    plans: &[PortPlan],
    tcp: &TcpSettings,
    wakers: &[Option<Waker>],
) -> Result<Vec<Seated>, Failure> {
    let mut secret = [0; 16];
    polling::fill_random(&mut secret).map_err(Failure::new)?;
    let secret = u128::from_ne_bytes(secret);
    let cores = u16::try_from(lanes.len()).unwrap_or(u16::MAX);
    let places = places(cores, plans, tcp, [secret as u64, (secret >> 64) as u64]);
    let steered = |lanes: Vec<DpdkLane>, links: Vec<_>| {
        let mut steered: Vec<_> = lanes.into_iter().zip(links).map(|(lane, link)| Steered::new(lane, link)).collect();
        steered.iter_mut().for_each(|lane| lane.wake(wakers));
        steered
    };
    Ok(lanes.into_iter().zip(places).map(|(lanes, (place, links))| (place, steered(lanes, links))).collect())
}

/// Mbufs per lane: the usual number, or what three quarters of the memory hold where that is less. The rest is for
/// rings and DPDK itself.
fn mbufs(spec: &ApplianceSpec) -> u32 {
    // An mbuf has ordinary pages to itself, see `PortOptions::mbufs`: one, or what the largest packets need with headroom and the mbuf itself.
    let room = spec.ports.iter().filter_map(|port| port.interface.mtu).map(PortOptions::room_for).max();
    let each = u64::from(room.unwrap_or_default()) / 4096 + 1;
    let pages = u64::from(spec.memory.mebibytes) * 256 * 3 / 4 / each;
    let lanes = (spec.ports.len() * spec.cores.len()) as u64;
    u32::try_from(pages / lanes.max(1)).unwrap_or(u32::MAX).min(PortOptions::default().mbufs)
}

/// Large mbufs per lane, with which devices cut and join TCP segments: on hugepages only, and only where they leave half of the memory to all else.
fn large_mbufs(spec: &ApplianceSpec, eal: &Eal) -> u32 {
    let options = PortOptions { large_mbufs: LARGE_MBUFS, ..PortOptions::default() };
    let lanes = (spec.ports.len() * spec.cores.len()) as u64;
    let fits = lanes * options.large_memory() <= u64::from(spec.memory.mebibytes) << 19;
    if fits && eal.memory_mode() == MemoryMode::Hugepages { LARGE_MBUFS } else { 0 }
}

/// Enough for what a few dozen connections send at a time, 64 KiB each.
const LARGE_MBUFS: u32 = 256;

/// The secret of session cookies: the one that is kept, or one of the operating system's randomness.
fn session_key(state: &Path) -> Result<[u64; 2], Failure> {
    let mut random = [0; 16];
    polling::fill_random(&mut random).map_err(Failure::new)?;
    let random = u128::from_ne_bytes(random);
    let (key, problem) = control::session_key(state, [(random >> 64) as u64, random as u64]);
    if let Some(problem) = problem {
        tracing::warn!("{problem}");
    }
    Ok(key)
}

fn facts(
    configuration: &Configuration,
    eal: &Eal,
    ports: Vec<Port>,
    cpus: Vec<u16>,
    clock: Clock,
    session_key: [u64; 2],
    wakers: Vec<Option<Waker>>,
) -> Facts {
    let spec = &configuration.appliance.spec;
    let names: Vec<Arc<str>> = spec.ports.iter().map(|port| port.name.as_str().into()).collect();
    Facts {
        name: configuration.appliance.metadata.name().to_string(),
        version: env!("CARGO_PKG_VERSION"),
        memory: memory(spec, eal),
        cpus,
        ports: spec
            .ports
            .iter()
            .zip(&ports)
            .map(|(configured, port)| PortInfo {
                name: configured.name.to_string(),
                device: configured.device.to_string(),
                driver: port.driver().to_owned(),
                mac: port.mac(),
                mtu: port.mtu(),
                addresses: addresses(configured),
                offloads: offloads(port.offloads()),
            })
            .collect(),
        session_key,
        access_log: spec.access_log.path.clone(),
        clock: Box::new(move || clock.now().0),
        wake: Box::new(move || wakers.iter().flatten().for_each(Waker::wake)),
        device_statistics: Box::new(move || {
            let mut found = Vec::new();
            for (name, port) in names.iter().zip(&ports) {
                // A driver that keeps no counters has none to show.
                let Ok(statistics) = port.statistics() else { continue };
                let counters = [
                    ("rx_missed", statistics.rx_missed),
                    ("rx_errors", statistics.rx_errors),
                    ("tx_errors", statistics.tx_errors),
                    ("rx_no_mbuf", statistics.rx_no_mbuf),
                ];
                found.extend(counters.map(|(counter, value)| (Arc::clone(name), counter.to_owned(), value)));
                let extended = statistics.extended.into_iter().filter(|(n, _)| counters.iter().all(|(c, _)| c != n));
                found.extend(extended.map(|(counter, value)| (Arc::clone(name), counter, value)));
            }
            found
        }),
    }
}

fn memory(spec: &ApplianceSpec, eal: &Eal) -> String {
    let kind = match eal.memory_mode() {
        MemoryMode::Hugepages => "hugepages",
        MemoryMode::Ordinary => "ordinary pages",
    };
    format!("{} MiB in {kind}", spec.memory.mebibytes)
}

fn offloads(offloads: Offloads) -> Vec<String> {
    let names = [
        (offloads.rx_ipv4, "rx-ipv4-checksum"),
        (offloads.rx_l4, "rx-l4-checksum"),
        (offloads.tx_ipv4, "tx-ipv4-checksum"),
        (offloads.tx_tcp, "tx-tcp-checksum"),
        (offloads.tso, "tso"),
        (offloads.lro, "lro"),
    ];
    names.into_iter().filter(|(on, _)| *on).map(|(_, name)| name.to_owned()).collect()
}

/// A port's addresses, those in VLANs with their identifiers.
fn addresses(port: &schema::Port) -> Vec<String> {
    let interfaces = port.interfaces();
    let named = interfaces.flat_map(|(vlan, interface)| interface.addresses.iter().map(move |net| (vlan, net.value)));
    named.map(|(vlan, net)| vlan.map_or_else(|| net.to_string(), |vlan| format!("{net}@{vlan}"))).collect()
}

fn announce(configuration: &Configuration, compiled: &Compiled, eal: &Eal, ports: &[Port]) {
    let spec = &configuration.appliance.spec;
    let cpus: Vec<String> = spec.cores.iter().map(|core| core.value.0.to_string()).collect();
    tracing::info!(
        "millrace {}, {}, {}, polling on CPU {}",
        env!("CARGO_PKG_VERSION"),
        eal.version(),
        memory(spec, eal),
        cpus.join(", "),
    );
    for (configured, port) in spec.ports.iter().zip(ports) {
        let [a, b, c, d, e, f] = port.mac();
        let offloads = offloads(port.offloads());
        tracing::info!(
            "port {}: {} by {}, {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}, MTU {}, {}, offloads: {}",
            configured.name,
            configured.device,
            port.driver(),
            port.mtu(),
            addresses(configured).join(" "),
            if offloads.is_empty() { "none".to_owned() } else { offloads.join(" ") },
        );
    }
    for (port, exception) in spec.ports.iter().filter_map(|port| Some((port, port.exception.as_ref()?))) {
        tracing::info!("port {}: what is the kernel's goes by {}", port.name, exception.interface);
    }
    for bind in compiled.snapshot.binds() {
        let names: Vec<&str> = bind.listeners().iter().map(|listener| &*listener.name).collect();
        tracing::info!("listening on {}: {}", bind.address, names.join(", "));
    }
    let conditions = compiled.routes.iter().flat_map(|route| route.parents.iter().map(move |parent| (route, parent)));
    for (route, parent) in conditions {
        for condition in parent.conditions.iter().filter(|c| c.status == control::status::ConditionStatus::False) {
            let (kind, reason, message) = (condition.kind, &condition.reason, &condition.message);
            tracing::warn!("route {} at {}: not {kind:?}: {reason}: {message}", route.name, parent.parent);
        }
    }
}

/// The main thread's loop.
fn serve(
    control: &Control,
    signals: &mut Heard,
    threads: &mut Vec<JoinHandle<Ended>>,
    started: Instant,
) -> Result<(), Failure> {
    let (mut ready, mut slow) = (false, false);
    let mut alone_since = None;
    loop {
        for signal in signals.pending() {
            if signal == SIGHUP {
                control.reload();
                continue;
            }
            return shut_down(control, signals, threads);
        }
        let ended = threads.iter().filter(|thread| thread.is_finished()).count();
        if ended == threads.len() {
            let result = join(threads);
            if result.is_ok() {
                tracing::info!("drained, bye");
            }
            return result;
        }
        // Cores leave together. One that is gone for good leaves flows without a core; whoever watches over us starts us again.
        if ended == 0 {
            alone_since = None;
        } else if alone_since.get_or_insert_with(Instant::now).elapsed() > TOGETHER {
            tracing::error!("a core has ended for good: the others finish what they have");
            return shut_down(control, signals, threads);
        }
        if !ready {
            let reasons = control.unready();
            ready = reasons.is_empty();
            if ready {
                tracing::info!("ready after {} ms", started.elapsed().as_millis());
            } else if !slow && started.elapsed() > SLOW_START {
                slow = true;
                tracing::warn!("not ready yet: {}", reasons.join("; "));
            }
        }
        std::thread::sleep(LOOK);
    }
}

fn shut_down(control: &Control, signals: &mut Heard, threads: &mut Vec<JoinHandle<Ended>>) -> Result<(), Failure> {
    let timeout = control.drain_timeout();
    tracing::info!(
        "draining: nothing new is accepted, what runs has {} s; a second signal stops at once",
        timeout.as_secs()
    );
    let again = || signals.pending().any(|signal| signal != SIGHUP);
    match control.drain(timeout, again) {
        Drained::Complete => tracing::info!("drained, bye"),
        Drained::TimedOut(open) => tracing::warn!("time is up: {open} connection(s) were reset"),
        Drained::Interrupted(open) => tracing::warn!("stopped at once: {open} connection(s) were reset"),
    }
    if threads.iter().all(JoinHandle::is_finished) {
        return join(threads);
    }
    // Joining would wait for ever for a core that does not answer.
    let began = Instant::now();
    while began.elapsed() < LAST_STEPS {
        std::thread::sleep(LOOK);
        if threads.iter().all(JoinHandle::is_finished) {
            return join(threads);
        }
    }
    Err(hung())
}

fn hung() -> Failure {
    Failure::new("a polling core did not stop").hint("this is a bug of Millrace; the process ends all the same")
}

/// Ends all polling threads that can be ended. What one of them complained about is the result.
fn join(threads: &mut Vec<JoinHandle<Ended>>) -> Result<(), Failure> {
    let mut result = Ok(());
    for thread in threads.drain(..) {
        let name = thread.thread().name().unwrap_or("core").to_owned();
        match thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => result = Err(Failure::new(format!("{name}: {reason}"))),
            Err(_) => result = Err(Failure::new(format!("{name} panicked"))),
        }
    }
    result
}
