//! TAP interfaces beside ports, for what is the kernel's.

use control::exception_settings;
use engine::exception::Exception;
use pmd::{DpdkLane, Eal, Port, PortOptions};
use schema::{ApplianceSpec, Configuration};

use crate::failure::Failure;

/// Frames in each of a TAP's rings. The kernel queues what does not fit.
const DESCRIPTORS: u16 = 256;

/// Mbufs in each of a TAP's pools: its receive ring, what is on its way out, and copies of neighbors' answers.
const MBUFS: u32 = 1024;

/// Bytes of Ethernet header and VLAN tags.
const FRAME_OVERHEAD: u16 = 14 + 8;

/// The device strings of the TAPs, for DPDK's start.
pub(crate) fn devices(spec: &ApplianceSpec) -> impl Iterator<Item = String> {
    (0..spec.ports.len()).filter_map(|index| device(spec, index))
}

/// Starts the TAPs. Gives, for each of so many cores, its end of each port's exception path.
pub(crate) fn start(
    configuration: &Configuration,
    eal: &Eal,
    ports: &[Port],
    cores: u16,
) -> Result<Vec<Vec<Option<Exception<DpdkLane>>>>, Failure> {
    let spec = &configuration.appliance.spec;
    let mut paths: Vec<Vec<_>> = (0..cores).map(|_| Vec::new()).collect();
    for ((index, port), rules) in ports.iter().enumerate().zip(exception_settings(configuration)) {
        let (Some(device), Some(rules)) = (device(spec, index), rules) else {
            paths.iter_mut().for_each(|path| path.push(None));
            continue;
        };
        let options = PortOptions {
            queues: cores,
            rx_descriptors: DESCRIPTORS,
            tx_descriptors: DESCRIPTORS,
            mtu: Some(port.mtu()),
            mac: Some(port.mac()),
            mbufs: MBUFS,
            data_room: PortOptions::default().data_room.max(port.mtu().saturating_add(FRAME_OVERHEAD)),
            interrupts: spec.idle == schema::Idle::Adaptive,
            ..PortOptions::default()
        };
        let at = |error: pmd::PortError| {
            let failure = Failure::from(error);
            match spec.ports.get(index).and_then(|port| port.exception.as_ref()) {
                Some(exception) => failure.at(&exception.at),
                None => failure,
            }
        };
        let mut tap = Port::configure(eal, &device, &options).map_err(at)?;
        tap.start().map_err(at)?;
        for (path, lane) in paths.iter_mut().zip(tap.lanes().map_err(at)?) {
            path.push(Some(Exception::new(lane, port.mac(), rules.clone())));
        }
    }
    Ok(paths)
}

/// DPDK's device for the TAP beside the port at `index`.
fn device(spec: &ApplianceSpec, index: usize) -> Option<String> {
    let exception = spec.ports.get(index)?.exception.as_ref()?;
    Some(format!("net_tap_exception{index},iface={}", exception.interface))
}
