//! The resources of Millrace's configuration (DESIGN.md §4): YAML in, types that cannot be wrong out.
//!
//! A configuration is taken whole or refused whole, with every error at once: file, line, column,
//! field, what was wrong, what would be right. `control` compiles a [`Configuration`] to the tables
//! that the cores read. This crate reads files and standard input and nothing else: it does not look
//! at the host, resolve names or keep state.
#![forbid(unsafe_code)]
// What comes from outside never panics here: files, requests, answers of DNS, what was kept on disk.
#![cfg_attr(
    not(test),
    warn(
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::string_slice,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

mod check;
mod decode;
mod error;
mod expression;
mod hostname;
mod load;
mod located;
mod name;
mod parts;
mod quantity;
mod reach;
pub mod resources;
mod source;
mod yaml;

use std::net::IpAddr;

use serde::Serialize;

pub use error::{ConfigError, Errors};
pub use expression::Expression;
pub use hostname::Hostname;
pub use load::{MAX_FILE_BYTES, load, load_read, load_sources, load_str};
pub use located::{Located, Location};
pub use name::{Name, ObjectName};
pub use parts::{Part, parts};
pub use quantity::{ByteSize, Timeout, parse_duration};
pub use reach::Reach;
pub use resources::*;
pub use source::{Source, locate, read, refuse};

/// The group of Millrace's own resources.
pub const MILLRACE_GROUP: &str = "millrace.dev";
/// The group of the Gateway API.
pub const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";
/// The `gatewayClassName` of Gateways that Millrace serves.
pub const GATEWAY_CLASS: &str = "millrace";

/// A whole configuration, in which every reference leads somewhere. Resources are in the order of
/// files and documents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Configuration {
    /// The one machine.
    pub appliance: Located<Appliance>,
    /// All Gateways; namespace and name are unique, here and in the other lists.
    pub gateways: Vec<Located<Gateway>>,
    /// All HTTPRoutes.
    pub routes: Vec<Located<HttpRoute>>,
    /// All Backends.
    pub backends: Vec<Located<Backend>>,
    /// All ReferenceGrants.
    pub grants: Vec<Located<ReferenceGrant>>,
    /// Namespaces whose labels are given.
    pub namespaces: Vec<Located<Namespace>>,
    /// All Services.
    pub services: Vec<Located<Service>>,
    /// All EndpointSlices.
    pub slices: Vec<Located<EndpointSlice>>,
    /// All BackendPolicies; of each backend one at most.
    pub backend_policies: Vec<Located<BackendPolicy>>,
    /// All RoutePolicies.
    pub route_policies: Vec<Located<RoutePolicy>>,
    /// All SecurityPolicies.
    pub security_policies: Vec<Located<SecurityPolicy>>,
}

impl Configuration {
    /// The addresses that a Gateway listens on: those it names, or all of the appliance's if it
    /// names none.
    #[must_use]
    pub fn gateway_addresses(&self, gateway: &Gateway) -> Vec<IpAddr> {
        if gateway.spec.addresses.is_empty() {
            self.appliance.spec.addresses().collect()
        } else {
            gateway.spec.addresses.iter().map(|a| a.value).collect()
        }
    }

    /// The Gateway of this name.
    #[must_use]
    pub fn gateway(&self, name: &ObjectName) -> Option<&Located<Gateway>> {
        self.gateways.iter().find(|g| g.metadata.object == *name)
    }

    /// Whether HTTPRoutes of the namespace `from` may refer to an object: it is of the same namespace, or a ReferenceGrant of its own
    /// says so.
    #[must_use]
    pub fn permits(&self, from: &Name, kind: &BackendKind, object: &ObjectName) -> bool {
        *from == object.namespace || self.grants.iter().any(|grant| grant.permits(from, kind, object))
    }

    /// Whether a listener of `gateway` takes routes of a namespace.
    #[must_use]
    pub fn takes_routes_from(&self, gateway: &Gateway, listener: &Listener, namespace: &Name) -> bool {
        match &listener.allowed_routes {
            RouteNamespaces::All => true,
            RouteNamespaces::None => false,
            RouteNamespaces::Same => namespace == gateway.metadata.namespace(),
            RouteNamespaces::Selector(selector) => {
                let found = self.namespaces.iter().find(|n| n.metadata.name() == namespace);
                let mut labels = found.map(|n| n.metadata.labels.clone()).unwrap_or_default();
                labels.insert("kubernetes.io/metadata.name".to_owned(), namespace.as_str().to_owned());
                selector.selects(&labels)
            }
        }
    }

    /// The Backend of this name.
    #[must_use]
    pub fn backend(&self, name: &ObjectName) -> Option<&Located<Backend>> {
        self.backends.iter().find(|b| b.metadata.object == *name)
    }
}

impl ApplianceSpec {
    /// Every address of every port.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let interfaces = self.ports.iter().flat_map(|port| port.interfaces());
        interfaces.flat_map(|(_, interface)| interface.addresses.iter().map(|net| net.addr()))
    }
}
