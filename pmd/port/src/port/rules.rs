//! Rules of the device for what it receives (`rte_flow`).

use std::net::IpAddr;

use dpdk_sys as sys;

use super::Port;
use crate::error::check;

/// Devices differ in whether rules of two kinds may have the same priority (flower wants one protocol at each), and in whether there is more than one.
const PRIORITIES: [u32; 2] = [0, 1];

impl Port {
    /// Has the device put packets to each of these addresses into the queue beside it. Says whether it took all of these rules; else it has none of them, nor any other.
    /// They end with the port.
    #[must_use]
    pub fn bring(&self, queues: impl IntoIterator<Item = (IpAddr, u16)>) -> bool {
        let id = self.shared.id();
        let taken = self.started && queues.into_iter().all(|(address, queue)| bring(id, address, queue));
        if !taken {
            // SAFETY: the port exists; one without rules, or without the call, says so and does nothing.
            unsafe { sys::shim_flow_flush(id) };
        }
        taken
    }
}

fn bring(port: u16, address: IpAddr, queue: u16) -> bool {
    let (octets, family) = match address {
        IpAddr::V4(address) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&address.octets());
            (octets, 4)
        }
        IpAddr::V6(address) => (address.octets(), 6),
    };
    PRIORITIES.into_iter().any(|priority| {
        // SAFETY: the port exists and is started; 16 bytes can be read.
        check(unsafe { sys::shim_flow_to_queue(port, priority, family, octets.as_ptr(), queue) }).is_ok()
    })
}
