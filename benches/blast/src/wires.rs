//! DPDK: starting it, and opening the two ports.

use pmd::{DpdkLane, Eal, EalOptions, Hugepages, Lane, Offloads, Port, PortOptions};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::cli::Arguments;

/// One open port.
pub(crate) struct Wire {
    pub(crate) port: Port,
    pub(crate) lane: DpdkLane,
}

/// Frames of 64 KiB, of each port: a few bursts. The driver takes more for its ring where it receives into them.
const LARGE_MBUFS: u32 = 256;

/// Starts DPDK with the devices that the arguments name.
pub(crate) fn start(arguments: &Arguments) -> Result<Eal, String> {
    let devices =
        std::iter::once(&arguments.north).chain(&arguments.south).map(|given| device(arguments, given)).collect();
    let options = EalOptions {
        cores: vec![arguments.core],
        mebibytes: arguments.memory,
        hugepages: if arguments.ordinary_pages { Hugepages::Auto } else { Hugepages::Required },
        // What the other process has to map, it gets as one file a segment; the other drivers do not mind.
        single_file_segments: true,
        devices,
        file_prefix: arguments.file_prefix.clone(),
        ..EalOptions::default()
    };
    Eal::start(&options).map_err(|error| format!("{error}\n{}", error.log().join("\n")))
}

/// The device as DPDK gets it: net_vhost carries large segments where it is told to.
fn device(arguments: &Arguments, given: &str) -> String {
    let told = !arguments.large() || !given.starts_with("net_vhost") || given.contains("tso=");
    if told { given.to_owned() } else { format!("{given},tso=1") }
}

/// Opens a port.
pub(crate) fn open(eal: &Eal, arguments: &Arguments, given: &str) -> Result<Wire, String> {
    let device = &*device(arguments, given);
    let large_mbufs = if arguments.large() && !arguments.ordinary_pages { LARGE_MBUFS } else { 0 };
    // AF_XDP has no more, and kernels' bursts need them; the others' rings are as large as they are made.
    let rx_descriptors = if device.starts_with("net_af_xdp") { 2048 } else { PortOptions::default().rx_descriptors };
    let options = PortOptions { mbufs: arguments.mbufs, large_mbufs, rx_descriptors, ..PortOptions::default() };
    let mut port = Port::configure(eal, device, &options).map_err(|error| format!("{device}: {error}"))?;
    port.start().map_err(|error| format!("{device}: {error}"))?;
    let lane = port.take_lane(0).map_err(|error| format!("{device}: {error}"))?;
    Ok(Wire { port, lane })
}

/// Waits until both links are up.
pub(crate) fn wait_for_links(wires: &[&Wire]) -> Result<(), String> {
    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);
    let begun = std::time::Instant::now();
    while let Some(down) = wires.iter().find(|wire| !wire.lane.link().up) {
        if begun.elapsed() > PATIENCE {
            return Err(format!("the link of {} is down", down.port.name()));
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    Ok(())
}

/// Puts this thread on a CPU.
pub(crate) fn pin(core: u16) -> Result<(), String> {
    let mut set = CpuSet::new();
    set.set(usize::from(core));
    sched_setaffinity(None, &set).map_err(|error| format!("CPU {core}: {error}"))
}

/// Their names.
pub(crate) fn offloads(offloads: Offloads) -> Vec<&'static str> {
    let names = [
        (offloads.rx_ipv4, "rx-ipv4-checksum"),
        (offloads.rx_l4, "rx-l4-checksum"),
        (offloads.tx_ipv4, "tx-ipv4-checksum"),
        (offloads.tx_tcp, "tx-tcp-checksum"),
        (offloads.tso, "tso"),
        (offloads.lro, "lro"),
    ];
    names.into_iter().filter(|(on, _)| *on).map(|(_, name)| name).collect()
}
