//! DPDK: starting it, and opening the two ports.

use pmd::{DpdkLane, Eal, EalOptions, Hugepages, Lane, Offloads, Port, PortOptions};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::cli::Arguments;

/// One open port.
pub(crate) struct Wire {
    pub(crate) port: Port,
    pub(crate) lane: DpdkLane,
}

/// Starts DPDK with the devices that the arguments name.
pub(crate) fn start(arguments: &Arguments) -> Result<Eal, String> {
    let devices: Vec<String> = std::iter::once(&arguments.north).chain(&arguments.south).cloned().collect();
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

/// Opens a port.
pub(crate) fn open(eal: &Eal, device: &str, mbufs: u32) -> Result<Wire, String> {
    let options = PortOptions { mbufs, ..PortOptions::default() };
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
    ];
    names.into_iter().filter(|(on, _)| *on).map(|(_, name)| name).collect()
}
