//! Ports: devices, and their addresses and routes on untagged frames and in VLANs.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use ipnet::IpNet;
use serde::Serialize;

use crate::located::Located;
use crate::name::Name;
use crate::resources::Exception;

/// `Appliance.spec.ports[]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Port {
    /// What the rest of Millrace calls it.
    pub name: Name,
    /// A DPDK vdev with its arguments, `net_af_packet0,iface=eth1`, or a PCI address, `0000:03:00.0`.
    pub device: Arc<str>,
    /// What it is on untagged frames. Its MTU is the device's.
    #[serde(flatten)]
    pub interface: Interface,
    /// What it is in VLANs; each of them once, at most [`Port::MAX_VLANS`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vlans: Vec<Located<Vlan>>,
    /// What of its traffic is for the host's kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exception: Option<Located<Exception>>,
    /// Receive (and transmit) queues; not more than `cores`. `None` takes one a core, or as many as the device has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queues: Option<Located<NonZeroU16>>,
}

impl Port {
    /// VLANs of one port at most: a core looks through them for each tagged frame.
    pub const MAX_VLANS: usize = 64;

    /// All of its interfaces: the one for untagged frames first, then those in VLANs with their identifiers.
    pub fn interfaces(&self) -> impl Iterator<Item = (Option<u16>, &Interface)> {
        let tagged = self.vlans.iter().map(|vlan| (Some(vlan.id), &vlan.interface));
        std::iter::once((None, &self.interface)).chain(tagged)
    }
}

/// `Appliance.spec.ports[].vlans[]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Vlan {
    /// The VLAN's identifier (IEEE 802.1Q), 1..=4,094.
    pub id: u16,
    /// What the port is in it.
    #[serde(flatten)]
    pub interface: Interface,
}

/// What a port is on untagged frames or in a VLAN.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Interface {
    /// Its addresses with their subnets.
    pub addresses: Vec<Located<IpNet>>,
    /// Routers for what lies in no subnet and on no route, at most one a family: an address in one of its subnets, or a
    /// link-local one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gateway: Vec<Located<IpAddr>>,
    /// Routes, each destination once, at most [`Interface::MAX_ROUTES`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Located<Route>>,
    /// Largest IP packet in bytes, 576..=9,216, with IPv6 from 1,280; `None` takes the device's own. Not above the port's in a VLAN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Whether IPv6 routers, on-link prefixes and the MTU are learned from router advertisements, too; default no.
    pub router_discovery: bool,
}

impl Interface {
    /// Routes of one interface at most: a core looks through them for each new connection.
    pub const MAX_ROUTES: usize = 64;

    /// Whether it has to do with IPv6.
    #[must_use]
    pub fn speaks_ipv6(&self) -> bool {
        self.router_discovery || self.addresses.iter().any(|net| net.addr().is_ipv6())
    }
}

/// `Appliance.spec.ports[].routes[]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Route {
    /// Whither; of all routes that lead to an address, the one with the longest prefix is taken.
    pub destination: IpNet,
    /// Next hops, among which flows are spread as long as they answer; at most [`Route::MAX_HOPS`], each an address in a subnet of the
    /// interface or a link-local one.
    pub via: Vec<Located<IpAddr>>,
}

impl Route {
    /// Next hops of one route at most: a core weighs all of them for each new flow.
    pub const MAX_HOPS: usize = 16;
}
