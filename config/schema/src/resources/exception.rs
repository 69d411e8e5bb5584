//! `Appliance.spec.ports[].exception`: what of a port's traffic is for the host's kernel.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use serde::Serialize;

use crate::located::Located;

/// A TAP interface beside a port. What is listed goes to it, and what the kernel sends by it goes out of the port. Ports count at
/// either end of a packet, because the kernel connects, too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Exception {
    /// The interface's name, 1 to 15 characters. Millrace makes it where it is not there.
    pub interface: Arc<str>,
    /// TCP ports, such as 22 and 179. Nothing of Millrace's listens on them, and no backend does.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tcp: Vec<Located<NonZeroU16>>,
    /// UDP ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub udp: Vec<Located<NonZeroU16>>,
    /// IP protocols by number (RFC 5237), such as 89 for OSPF; not ICMP, TCP and UDP.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub protocols: Vec<Located<u8>>,
    /// Addresses that are the kernel's alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Located<IpAddr>>,
    /// Packets a second in each direction, on each core; 1..=10,000,000, default 10,000.
    pub packets_per_second: u32,
}
