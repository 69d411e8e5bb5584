//! `millrace reflect`: every frame goes back to where it came from. No configuration, no addresses: what a wire, a device and a core carry.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use engine::reflect::Reflector;
use pmd::{DpdkLane, Eal, EalOptions, Hugepages, Lane, Port, PortOptions};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::Serialize;
use tables::Counter;

use crate::cli::{Mirror, Output};
use crate::failure::Failure;
use crate::polling;
use crate::signals::Heard;
use crate::validate::{Table, print_json};

/// Turns between two looks at what the main thread wants: some tens of microseconds without frames, a few milliseconds with full bursts.
const TURNS: usize = 1024;

/// How often the main thread looks at signals.
const LOOK: Duration = Duration::from_millis(50);

/// How often it says how fast frames go.
const SAY: Duration = Duration::from_secs(1);

/// Reflects until a signal, or for as long as was asked for; then says what was reflected.
pub(crate) fn reflect(mirror: &Mirror) -> Result<(), Failure> {
    let mut signals = Heard::new(&[])?;
    polling::stay_in_memory();
    let eal = Eal::start(&EalOptions {
        cores: mirror.cores.clone(),
        mebibytes: mirror.mebibytes,
        hugepages: mirror.hugepages.into(),
        devices: mirror.devices.clone(),
        // As `millrace run` has it.
        single_file_segments: mirror.devices.iter().any(|device| device.contains("virtio_user")),
        ..EalOptions::default()
    })?;
    let (ports, lanes) = start_ports(mirror, &eal)?;
    signals.started();
    polling::leave_cpus(&mirror.cores);
    let counted: Vec<Vec<Counted>> = lanes.iter().map(|_| ports.iter().map(|_| Counted::default()).collect()).collect();
    let ended = AtomicBool::new(false);
    let started = Instant::now();
    let result = thread::scope(|scope| {
        let ended = &ended;
        let threads: Vec<_> = lanes
            .into_iter()
            .zip(&mirror.cores)
            .zip(&counted)
            .map(|((lanes, &cpu), counted)| {
                let eal = &eal;
                scope.spawn(move || poll(cpu, eal, lanes, counted, ended))
            })
            .collect();
        let watched = || threads.iter().any(thread::ScopedJoinHandle::is_finished);
        watch(mirror, &mut signals, &ports, &counted, started, watched);
        ended.store(true, Ordering::Relaxed);
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(result) => result.map_err(Failure::new),
            Err(_) => Err(Failure::new("a polling core panicked")),
        })
    });
    let report = Report::new(&ports, &counted, started.elapsed());
    match mirror.output {
        Output::Json => print_json(&report),
        Output::Table => crate::say(&report.render()),
    }
    result
}

/// The ports, and for each core its lanes.
fn start_ports(mirror: &Mirror, eal: &Eal) -> Result<(Vec<Port>, Vec<Vec<DpdkLane>>), Failure> {
    let mut lanes: Vec<Vec<DpdkLane>> = mirror.cores.iter().map(|_| Vec::new()).collect();
    let mut ports = Vec::new();
    for device in &mirror.devices {
        let options = PortOptions {
            queues: u16::try_from(mirror.cores.len()).unwrap_or(u16::MAX),
            mtu: mirror.mtu,
            data_room: mirror.mtu.map_or(PortOptions::default().data_room, PortOptions::room_for),
            // Frames to whom it may concern.
            groups: true,
            ..PortOptions::default()
        };
        let mut port = Port::configure(eal, device, &options)?;
        port.start()?;
        for (core, lane) in lanes.iter_mut().zip(port.lanes()?) {
            core.push(lane);
        }
        ports.push(port);
    }
    Ok((ports, lanes))
}

/// What one core counted on one port.
#[derive(Debug, Default)]
struct Counted {
    received: Counter,
    received_bytes: Counter,
    sent: Counter,
    full: Counter,
}

/// One core's thread.
fn poll(cpu: u16, eal: &Eal, lanes: Vec<DpdkLane>, counted: &[Counted], ended: &AtomicBool) -> Result<(), String> {
    let mut set = CpuSet::new();
    set.set(usize::from(cpu));
    sched_setaffinity(None, &set).map_err(|error| format!("cannot be pinned to CPU {cpu}: {error}"))?;
    let _registered = eal.register_thread().map_err(|error| error.to_string())?;
    let mut reflector = Reflector::new(lanes);
    while !ended.load(Ordering::Relaxed) {
        for _ in 0..TURNS {
            reflector.turn();
        }
        for (lane, shown) in reflector.lanes().iter().zip(counted) {
            let counters = lane.counters();
            shown.received.set(counters.rx_packets);
            shown.received_bytes.set(counters.rx_bytes);
            shown.sent.set(counters.tx_packets);
            shown.full.set(counters.tx_full);
        }
    }
    Ok(())
}

/// Waits for the end, and says each second on standard error how fast frames go.
fn watch(
    mirror: &Mirror,
    signals: &mut Heard,
    ports: &[Port],
    counted: &[Vec<Counted>],
    started: Instant,
    over: impl Fn() -> bool,
) {
    eprintln!("reflecting on CPU {}", mirror.cores.iter().map(u16::to_string).collect::<Vec<_>>().join(", "));
    let mut last = (started, Report::new(ports, counted, Duration::ZERO));
    while signals.pending().next().is_none() && !over() {
        if mirror.duration.is_some_and(|seconds| started.elapsed().as_secs_f64() >= seconds) {
            break;
        }
        thread::sleep(LOOK);
        let passed = last.0.elapsed();
        if passed >= SAY {
            let now = Report::new(ports, counted, started.elapsed());
            for ((port, was), is) in ports.iter().zip(&last.1.ports).zip(&now.ports) {
                let rate = |is: u64, was: u64| (is - was) as f64 / passed.as_secs_f64();
                // Looking at the link also has net_virtio_user take back a peer that was gone.
                let link = if port.link().up { "" } else { ", the link is down" };
                let (received, sent) = (rate(is.received, was.received), rate(is.sent, was.sent));
                eprintln!("{}: {received:.0} frames/s received, {sent:.0} sent{link}", is.port);
            }
            last = (Instant::now(), now);
        }
    }
}

/// What was reflected.
#[derive(Debug, Serialize)]
struct Report {
    seconds: f64,
    ports: Vec<Reflected>,
}

/// On one port, by all cores.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Reflected {
    port: String,
    driver: String,
    received: u64,
    received_bytes: u64,
    sent: u64,
    /// Frames that the device's ring had no place for.
    ring_full: u64,
    /// Frames that are not to be sent back.
    refused: u64,
    /// Sent frames a second.
    frames_per_second: f64,
}

impl Report {
    fn new(ports: &[Port], counted: &[Vec<Counted>], passed: Duration) -> Self {
        let sum = |at: usize, read: fn(&Counted) -> &Counter| {
            counted.iter().filter_map(|core| core.get(at)).map(|counted| read(counted).read()).sum::<u64>()
        };
        let seconds = passed.as_secs_f64();
        let reflected = |(at, port): (usize, &Port)| {
            let (received, sent, ring_full) = (sum(at, |c| &c.received), sum(at, |c| &c.sent), sum(at, |c| &c.full));
            Reflected {
                port: port.name().to_owned(),
                driver: port.driver().to_owned(),
                received,
                received_bytes: sum(at, |c| &c.received_bytes),
                sent,
                ring_full,
                refused: received.saturating_sub(sent + ring_full),
                frames_per_second: if seconds > 0.0 { sent as f64 / seconds } else { 0.0 },
            }
        };
        Self { seconds, ports: ports.iter().enumerate().map(reflected).collect() }
    }

    fn render(&self) -> String {
        let mut table = Table::new(&["PORT", "DRIVER", "RECEIVED", "SENT", "RING FULL", "REFUSED", "FRAMES/S"]);
        for port in &self.ports {
            table.row([
                port.port.clone(),
                port.driver.clone(),
                port.received.to_string(),
                port.sent.to_string(),
                port.ring_full.to_string(),
                port.refused.to_string(),
                format!("{:.0}", port.frames_per_second),
            ]);
        }
        format!("{}\nin {:.1} s\n", table.render(), self.seconds)
    }
}

impl From<crate::cli::Pages> for Hugepages {
    fn from(pages: crate::cli::Pages) -> Self {
        match pages {
            crate::cli::Pages::Auto => Self::Auto,
            crate::cli::Pages::Required => Self::Required,
            crate::cli::Pages::Off => Self::Off,
        }
    }
}
