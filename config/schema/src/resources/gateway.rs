//! `Gateway` (gateway.networking.k8s.io/v1).

use std::net::IpAddr;
use std::num::NonZeroU16;

use serde::Serialize;

use crate::hostname::Hostname;
use crate::located::Located;
use crate::name::Name;
use crate::resources::{LabelSelector, Metadata};

/// Addresses, and what is listened for on them. Its class is `millrace`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gateway {
    /// Who it is.
    pub metadata: Metadata,
    /// What it is.
    pub spec: GatewaySpec,
}

/// `Gateway.spec`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GatewaySpec {
    /// Addresses, each of them on a port of the appliance. Empty: all the addresses of all ports
    /// (see [`crate::Configuration::gateway_addresses`]).
    pub addresses: Vec<Located<IpAddr>>,
    /// At least one; their names are unique, and so is (port, hostname).
    pub listeners: Vec<Located<Listener>>,
}

/// `Gateway.spec.listeners[]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// What `sectionName` of a route refers to.
    pub name: Name,
    /// The requests that are meant; `None` means all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<Located<Hostname>>,
    /// TCP port.
    pub port: NonZeroU16,
    /// What is spoken.
    pub protocol: Protocol,
    /// `allowedRoutes.namespaces.from`: where routes may come from. Default: the Gateway's namespace.
    pub allowed_routes: RouteNamespaces,
}

/// `Gateway.spec.listeners[].protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// HTTP/1.1 in clear.
    Http,
}

/// `Gateway.spec.listeners[].allowedRoutes.namespaces.from`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub enum RouteNamespaces {
    /// Routes of the Gateway's own namespace.
    #[default]
    Same,
    /// Routes of any namespace.
    All,
    /// Routes of namespaces with such labels; the label `kubernetes.io/metadata.name` is every namespace's name.
    Selector(LabelSelector),
    /// No routes.
    None,
}
