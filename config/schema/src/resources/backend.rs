//! `Backend`: endpoints that no cluster knows (millrace.dev/v1alpha1).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use serde::Serialize;

use crate::located::Located;
use crate::name::ObjectName;
use crate::resources::Metadata;

/// A set of endpoints that serve the same thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Backend {
    /// Who it is.
    pub metadata: Metadata,
    /// What it is.
    pub spec: BackendSpec,
}

/// `Backend.spec`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackendSpec {
    /// What is spoken to the endpoints; `http` if not given.
    pub protocol: BackendProtocol,
    /// At least one, unless it is a subset; no two with the same address and port.
    pub endpoints: Vec<Located<Endpoint>>,
    /// It is a part of another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subset: Option<Located<BackendSubset>>,
}

/// `Backend.spec.subset`: those endpoints of another Backend that have all these labels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendSubset {
    /// The whole, of the same namespace; no subset itself.
    pub of: ObjectName,
    /// At least one.
    pub match_labels: BTreeMap<String, String>,
}

/// `Backend.spec.protocol`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum BackendProtocol {
    /// HTTP/1.1 in clear.
    #[default]
    Http,
}

/// One server of a backend, or those that a name stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    /// Where it is.
    #[serde(flatten)]
    pub place: EndpointPlace,
    /// Its share among the backend's endpoints, and that of each address of a name; 0 gets no new requests. 0..=1,000,000, default 1. Without
    /// meaning for SRV, whose records say.
    pub weight: u32,
    /// Those of a higher number take requests as those of the lower ones are not well; 0..=127, default 0. For SRV: what its best priority counts as.
    pub priority: u8,
    /// Where it is, see `BackendPolicy.spec.loadBalancer.zoneAware`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<Box<str>>,
    /// What tells it from others, for subsets.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(untagged)]
pub enum EndpointPlace {
    /// At an address.
    Address {
        /// A unicast address that is not the appliance's own and that some port can reach.
        address: IpAddr,
        /// Its port; where it is absent every `backendRef` to this backend names one. If both do, this counts.
        #[serde(skip_serializing_if = "Option::is_none")]
        port: Option<NonZeroU16>,
    },
    /// Where DNS says.
    Fqdn {
        /// The name.
        fqdn: Fqdn,
    },
}

/// `Backend.spec.endpoints[].fqdn` (Envoy Gateway's `Backend` has the same with `hostname` and `port`): each of its addresses is an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Fqdn {
    /// What is asked.
    #[serde(flatten)]
    pub name: DnsName,
    /// The port of its addresses; where it is absent every `backendRef` to this backend names one. SRV records have their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<NonZeroU16>,
}

/// What is asked of DNS.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DnsName {
    /// A whole name in lower case, without the dot at its end: search lists do not count. For SRV `_service._protocol.name` (RFC 2782).
    pub hostname: Arc<str>,
    /// Default `Address`.
    #[serde(rename = "type")]
    pub kind: DnsType,
    /// Default `IPv4AndIPv6`.
    pub lookup_family: LookupFamily,
}

/// `fqdn.type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum DnsType {
    /// A and AAAA records.
    #[default]
    Address,
    /// SRV records, and the addresses of their targets.
    #[serde(rename = "SRV")]
    Srv,
}

/// `fqdn.lookupFamily`, with Envoy Gateway's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum LookupFamily {
    /// A and AAAA records; all addresses of both are endpoints.
    #[default]
    #[serde(rename = "IPv4AndIPv6")]
    Ipv4AndIpv6,
    /// A records alone.
    #[serde(rename = "IPv4")]
    Ipv4,
    /// AAAA records alone.
    #[serde(rename = "IPv6")]
    Ipv6,
    /// AAAA records only where no A record is of use.
    #[serde(rename = "IPv4Preferred")]
    Ipv4Preferred,
    /// A records only where no AAAA record is of use.
    #[serde(rename = "IPv6Preferred")]
    Ipv6Preferred,
}

impl Endpoint {
    /// Its port, where it has one of its own. SRV records have theirs.
    #[must_use]
    pub fn port(&self) -> Option<NonZeroU16> {
        match &self.place {
            EndpointPlace::Address { port, .. } => *port,
            EndpointPlace::Fqdn { fqdn } => fqdn.port,
        }
    }

    /// What DNS is asked about it.
    #[must_use]
    pub fn name(&self) -> Option<&DnsName> {
        match &self.place {
            EndpointPlace::Address { .. } => None,
            EndpointPlace::Fqdn { fqdn } => Some(&fqdn.name),
        }
    }

    /// Whether a reference to it has to name a port.
    #[must_use]
    pub fn needs_port(&self) -> bool {
        self.port().is_none() && self.name().is_none_or(|name| name.kind == DnsType::Address)
    }

    /// Whether it has all the labels of a subset.
    #[must_use]
    pub fn is_in(&self, subset: &BackendSubset) -> bool {
        subset.match_labels.iter().all(|(key, value)| self.labels.get(key) == Some(value))
    }
}

impl core::fmt::Display for EndpointPlace {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Address { address, .. } => address.fmt(f),
            Self::Fqdn { fqdn } => f.write_str(&fqdn.name.hostname),
        }
    }
}
