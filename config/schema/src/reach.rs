//! Which addresses requests can be sent to: for those that are not known before the configuration runs.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use crate::check::{default_route, is_link_local};
use crate::decode::not_of_a_host;
use crate::resources::ApplianceSpec;

/// What an appliance's ports lead to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    own: HashSet<IpAddr>,
    nets: Vec<IpNet>,
    /// TCP ports whose packets are the host's kernel's, at either end.
    kernels: HashSet<u16>,
}

impl Reach {
    /// What the ports of an appliance lead to.
    #[must_use]
    pub fn new(spec: &ApplianceSpec) -> Self {
        let mut nets = Vec::new();
        for (_, interface) in spec.ports.iter().flat_map(|port| port.interfaces()) {
            nets.extend(interface.addresses.iter().map(|net| net.trunc()).filter(|net| !is_link_local(net.addr())));
            nets.extend(interface.routes.iter().map(|route| route.destination));
            nets.extend(interface.gateway.iter().map(|router| default_route(router.value)));
            nets.extend(interface.router_discovery.then(|| default_route(Ipv6Addr::UNSPECIFIED.into())));
        }
        let exceptions = spec.ports.iter().filter_map(|port| port.exception.as_ref());
        let kernels = exceptions.flat_map(|exception| &exception.tcp).map(|port| port.get()).collect();
        Self { own: spec.addresses().collect(), nets, kernels }
    }

    /// The same of an address with a port.
    #[must_use]
    pub fn refusal_at(&self, at: SocketAddr) -> Option<&'static str> {
        let port = || self.kernels.contains(&at.port()).then_some("at a port that an exception gives to the kernel");
        self.refusal(at.ip()).or_else(port)
    }

    /// Why requests cannot be sent to an address, in words to follow it; `None` where they can. The same that a Backend's `address` is held to.
    #[must_use]
    pub fn refusal(&self, address: IpAddr) -> Option<&'static str> {
        if let Some(wrong) = not_of_a_host(address) {
            Some(wrong)
        } else if self.own.contains(&address) {
            Some("the appliance's own address")
        } else if is_link_local(address) {
            Some("a link-local address")
        } else if !self.nets.iter().any(|net| net.contains(&address)) {
            Some("an address that no port reaches")
        } else {
            None
        }
    }
}
